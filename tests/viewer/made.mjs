// Profiles made by hand, as the file that the viewer reads: a second writer, in the words of src/viewing/columns.rs.

const KINDS = ["process", "kernel", "user", "inlined", "JIT", "BPF", "unresolved", "blocked", "waker", "runnable"];

// `rows` are `{ stack, labels, values }`: names root first, each a name, or `{ name, kind, binary, file, line }`.
export function made(rows, header = {}) {
  const types = header.types || [{ name: "samples", unit: "count" }];
  const frames = [];
  const known = new Map();
  const binaries = [];
  const files = [""];
  const index = (list, item) => (list.includes(item) ? list.indexOf(item) : list.push(item) - 1);
  const frameOf = (given) => {
    const frame = Object.assign({ kind: "user", binary: "", file: "", line: 0 }, given.name ? given : { name: given });
    const key = `${frame.name}\n${frame.kind}\n${frame.binary}`;
    if (!known.has(key)) {
      known.set(key, frames.push(frame) - 1);
    }
    return known.get(key);
  };
  const root = { children: new Map(), rows: [] };
  const labels = { keys: [], texts: [], sets: [] };
  const sets = new Map();
  for (const { stack, labels: own = {}, values } of rows) {
    let node = root;
    for (const given of stack) {
      const frame = frameOf(given);
      if (!node.children.has(frame)) {
        node.children.set(frame, { children: new Map(), rows: [] });
      }
      node = node.children.get(frame);
    }
    const key = JSON.stringify(own);
    if (!sets.has(key)) {
      const set = Object.entries(own).flatMap(([k, v]) => [index(labels.keys, k), index(labels.texts, v)]);
      sets.set(key, labels.sets.push(set) - 1);
    }
    node.rows.push([sets.get(key), values]);
  }
  const columns = { frames: [], pops: [], leaves: [], labels: [], values: types.map(() => []) };
  let [count, lastDepth, lastLeaf, rowCount] = [0, 0, 0, 0];
  const walk = (node, of, depth) => {
    const at = count;
    count += 1;
    if (at > 0) {
      varint(columns.frames, of);
      varint(columns.pops, lastDepth + 1 - depth);
      lastDepth = depth;
    }
    for (const [set, values] of node.rows) {
      varint(columns.leaves, at - lastLeaf);
      lastLeaf = at;
      varint(columns.labels, set);
      values.forEach((value, i) => varint(columns.values[i], value < 0 ? -2 * value - 1 : 2 * value));
      rowCount += 1;
    }
    const below = [...node.children].sort(([a], [b]) => (frames[a].name < frames[b].name ? -1 : 1));
    below.forEach(([frame, child]) => walk(child, frame, depth + 1));
  };
  walk(root, -1, 0);
  const bytes = [];
  frames.forEach((frame) => varint(bytes, KINDS.indexOf(frame.kind)));
  frames.forEach((frame) => varint(bytes, frame.binary === "" ? 0 : index(binaries, frame.binary) + 1));
  frames.forEach((frame) => varint(bytes, index(files, frame.file)));
  frames.forEach((frame) => varint(bytes, frame.line));
  frames.forEach((frame) => varint(bytes, frame.line));
  const kinds = KINDS.map((name) => ({ name, from: [250, 231, 140], to: [240, 200, 100] }));
  const all = Object.assign(
    { title: "made", about: "by hand", value: 0, group: [], inverted: false, reverse: false, types, kinds, binaries },
    { files, names: frames.map((frame) => frame.name), labels, times: null, interval: 1, nodes: count, rows: rowCount },
    header,
  );
  const text = new TextEncoder().encode(JSON.stringify(all));
  const length = new Uint8Array(new Uint32Array([text.length]).buffer);
  const numbers = [columns.frames, columns.pops, columns.leaves, columns.labels, ...columns.values];
  return Uint8Array.from([...length, ...text, ...bytes, ...numbers.flat()]);
}

function varint(bytes, number) {
  let left = number;
  while (left > 127) {
    bytes.push((left % 128) | 128);
    left = Math.floor(left / 128);
  }
  bytes.push(left);
}
