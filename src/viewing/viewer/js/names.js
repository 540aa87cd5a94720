// Names as they may be shown: they are chosen by whoever wrote the program that was recorded.

const SHOWN = 2000;
// Control characters, and those that would turn the direction of the text around them.
// eslint-disable-next-line no-control-regex
const STEERING = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]/g;

export function printable(name) {
  const text = name.length > SHOWN ? `${name.slice(0, SHOWN)}…` : name;
  return text.replace(STEERING, "\ufffd");
}

// As src/viewing/names.rs does for a folded line.
export function escapeFolded(name) {
  let text = name.replace(/;/g, ":");
  text = text.replace(/ ([\d.]+)$/, "_$1");
  return text.startsWith("# ") ? `#_${text.slice(2)}` : text;
}

export function basename(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}

// The first characters of a name, with dots where more follow; nothing where there is room for too few.
export function clipped(name, characters) {
  if (name.length <= characters) {
    return name;
  }
  return characters < 4 ? "" : `${name.slice(0, characters - 1)}…`;
}
