// pprof files made by hand: https://github.com/google/pprof/blob/main/proto/profile.proto

import { gzipSync } from "node:zlib";

// `rows` are `{ stack, labels, values }`: names root first, each a name or `{ name, binary, file, line }`, and labels
// of text, of numbers, or of `[number, unit]`.
export function pprof(rows, types = [["samples", "count"]]) {
  const strings = new Map([["", 0]]);
  const text = (string) => {
    if (!strings.has(string)) {
      strings.set(string, strings.size);
    }
    return strings.get(string);
  };
  const chunks = [];
  const write = (field, message) => chunks.push(Buffer.from([(field << 3) | 2, ...varint(message.length)]), Buffer.from(message));
  const type = ([name, unit]) => [...int(1, text(name)), ...int(2, text(unit))];
  types.forEach((it) => write(1, type(it)));
  const mappings = new Map();
  const mapping = (path) => {
    if (!mappings.has(path)) {
      mappings.set(path, mappings.size + 1);
      write(3, [...int(1, mappings.size), ...int(5, text(path))]);
    }
    return mappings.get(path);
  };
  const locations = new Map();
  const location = (given) => {
    const { name, binary = "/bin/app", file = "", line = 0 } = given.name === undefined ? { name: given } : given;
    const key = `${name}\n${binary}`;
    if (!locations.has(key)) {
      const id = locations.size + 1;
      locations.set(key, id);
      write(5, [...int(1, id), ...int(2, text(name)), ...int(4, text(file)), ...int(5, line)]);
      const lines = [...int(1, id), ...int(2, line)];
      write(4, [...int(1, id), ...int(2, mapping(binary)), ...sub(4, lines)]);
    }
    return locations.get(key);
  };
  for (const { stack, labels = {}, values } of rows) {
    const ids = stack.map(location).reverse().flatMap(varint);
    const number = (value, unit) => [...int(3, value), ...int(4, text(unit))];
    const label = ([key, value]) =>
      sub(3, [...int(1, text(key)), ...(typeof value === "string" ? int(2, text(value)) : number(...[value, ""].flat()))]);
    write(2, [...sub(1, ids), ...sub(2, values.flatMap(varint)), ...Object.entries(labels).flatMap(label)]);
  }
  [...strings.keys()].forEach((string) => {
    const bytes = Buffer.from(string);
    chunks.push(Buffer.from([(6 << 3) | 2, ...varint(bytes.length)]), bytes);
  });
  return gzipSync(Buffer.concat(chunks), { level: 1 });
}

function varint(number) {
  const bytes = [];
  let left = number;
  while (left > 127) {
    bytes.push((left % 128) | 128);
    left = Math.floor(left / 128);
  }
  bytes.push(left);
  return bytes;
}

function int(field, number) {
  return [field << 3, ...varint(number)];
}

function sub(field, message) {
  return [(field << 3) | 2, ...varint(message.length), ...message];
}

// Rows of so many nodes: wide ones, narrow ones and deep ones, by a fixed rule.
export function large(count) {
  const rows = [];
  let state = 99;
  const random = (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
  const stack = ["main"];
  for (let made = 0; made < count; ) {
    stack.length = 1 + random(Math.min(stack.length, 40));
    const more = 1 + random(6);
    for (let i = 0; i < more; i += 1) {
      const id = random(3000);
      stack.push(`package${id % 60}.function${id}`);
    }
    made += more;
    rows.push({ stack: stack.slice(), values: [1 + random(100), 1e7] });
  }
  return rows;
}
