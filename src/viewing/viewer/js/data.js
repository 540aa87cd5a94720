// The profile that src/viewing/columns.rs writes: four bytes of length, a header in JSON, and columns of numbers
// of seven bits a byte, lowest first, one behind the other; all deflated, in base64.

class Columns {
  constructor(bytes, at) {
    this.bytes = bytes;
    this.at = at;
  }

  number() {
    let byte = this.bytes[this.at++];
    if (byte < 128) {
      return byte;
    }
    let number = byte & 127;
    for (let scale = 128; byte >= 128; scale *= 128) {
      byte = this.bytes[this.at++];
      number += (byte & 127) * scale;
    }
    return number;
  }

  numbers(count) {
    const numbers = new Float64Array(count);
    for (let i = 0; i < count; i += 1) {
      numbers[i] = this.number();
    }
    return numbers;
  }

  // The lowest bit is the sign.
  signed(count) {
    const numbers = this.numbers(count);
    for (let i = 0; i < count; i += 1) {
      const number = numbers[i];
      numbers[i] = number % 2 === 0 ? number / 2 : -(number + 1) / 2;
    }
    return numbers;
  }
}

export async function unpack(base64) {
  const binary = atob(base64.trim());
  const packed = new Uint8Array(binary.length);
  for (let i = 0; i < packed.length; i += 1) {
    packed[i] = binary.charCodeAt(i);
  }
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export function decode(bytes) {
  const headerLength = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + headerLength)));
  const reader = new Columns(bytes, 4 + headerLength);
  const { nodes, rows } = header;
  const frames = {
    name: header.names,
    kind: reader.numbers(header.names.length),
    binary: reader.numbers(header.names.length),
    file: reader.numbers(header.names.length),
    firstLine: reader.numbers(header.names.length),
    lastLine: reader.numbers(header.names.length),
  };
  const tree = readTree(reader, nodes);
  const leaf = new Int32Array(rows);
  for (let row = 0, at = 0; row < rows; row += 1) {
    at += reader.number();
    leaf[row] = at;
  }
  const labels = new Int32Array(rows);
  for (let row = 0; row < rows; row += 1) {
    labels[row] = reader.number();
  }
  const values = header.types.map(() => reader.signed(rows));
  return { header, frames, tree, rows: { leaf, labels, values } };
}

// Nodes in preorder: the frame of each, and how many levels to go up from the node before it.
function readTree(reader, nodes) {
  const frame = new Int32Array(nodes);
  const parent = new Int32Array(nodes);
  frame[0] = -1;
  for (let node = 1; node < nodes; node += 1) {
    frame[node] = reader.number();
  }
  for (let node = 1; node < nodes; node += 1) {
    let above = node - 1;
    for (let pops = reader.number(); pops > 0; pops -= 1) {
      above = parent[above];
    }
    parent[node] = above;
  }
  return { length: nodes, frame, parent };
}
