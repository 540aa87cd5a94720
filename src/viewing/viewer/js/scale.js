// Values as people read them: the same as src/viewing/scale.rs, to which a test holds it.

const TIMES = [
  [1, ["ns", "nanosecond"]],
  [1e3, ["us", "µs", "microsecond"]],
  [1e6, ["ms", "millisecond"]],
  [1e9, ["s", "sec", "second"]],
  [60e9, ["minute", "min"]],
  [3600e9, ["hour", "hr"]],
];
const SIZES = [
  [1, ["b", "byte"]],
  [1024, ["kb", "kib", "kbyte", "kilobyte"]],
  [1024 ** 2, ["mb", "mib", "mbyte", "megabyte"]],
  [1024 ** 3, ["gb", "gib", "gbyte", "gigabyte"]],
];

// A value with its unit: `12.34 s`, `1.50 MiB`, `1,234 cycles`; a count is a number alone.
export function amount(value, unit) {
  const lower = unit.toLowerCase();
  const single = lower.endsWith("s") ? lower.slice(0, -1) : lower;
  const find = (units) => units.find(([, names]) => names.includes(lower) || names.includes(single));
  const time = find(TIMES);
  if (time) {
    return timeText(value * time[0]);
  }
  const size = find(SIZES);
  if (size) {
    return sizeText(value * size[0]);
  }
  return unit === "" || unit === "count" ? thousands(value) : `${thousands(value)} ${unit}`;
}

export function thousands(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+$)/g, ",");
}

// A part of a whole.
export function percent(part, whole) {
  if (whole === 0) {
    return "0 %";
  }
  const share = (100 * part) / whole;
  const size = Math.abs(share);
  const digits = size >= 9.995 || size === 0 ? 1 : size >= 0.0995 ? 2 : size >= 0.00995 ? 3 : 4;
  return `${share.toFixed(digits)} %`;
}

function timeText(ns) {
  const size = Math.abs(ns);
  if (size >= 1e9) {
    return `${(ns / 1e9).toFixed(2)} s`;
  }
  if (size >= 1e6) {
    return `${(ns / 1e6).toFixed(3)} ms`;
  }
  return size >= 1e3 ? `${(ns / 1e3).toFixed(3)} µs` : `${ns.toFixed(0)} ns`;
}

function sizeText(bytes) {
  let [value, name] = [bytes, "bytes"];
  for (const unit of ["KiB", "MiB", "GiB", "TiB", "PiB"]) {
    if (Math.abs(value) >= 1024) {
      [value, name] = [value / 1024, unit];
    }
  }
  return name === "bytes" ? `${value.toFixed(0)} bytes` : `${value.toFixed(2)} ${name}`;
}
