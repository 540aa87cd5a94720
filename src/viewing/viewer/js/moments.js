// When time was used, where the recording kept it: by CPU, by thread or by any label, and second by second.

import { keeps, labelValues } from "./shape.js";

const SECOND = 1e9;
// Steps beyond which several are one: more than a screen has pixels.
const MOST_TIMES = 20000;
const MOST_LANES = 64;

// The length of a step and how many there are, in nanoseconds.
export function steps({ times, interval }) {
  const last = times.reduce((latest, time) => Math.max(latest, time === null ? 0 : time), 0) + interval;
  const step = interval * Math.max(1, Math.ceil(last / interval / MOST_TIMES));
  return { step, count: Math.ceil(last / step), last };
}

// Calls `take(set, step, value)` for what the view chooses, at whatever time it was.
function eachMoment(profile, view, take) {
  const { times } = profile.header;
  const { step } = steps(profile.header);
  const { labels, values } = profile.rows;
  const isKept = keeps(profile, Object.assign({}, view, { time: null }));
  const column = values[view.value];
  for (let row = 0; row < column.length; row += 1) {
    const time = times[labels[row]];
    if (time !== null && time >= 0 && column[row] !== 0 && isKept(row)) {
      take(labels[row], Math.floor(time / step), Math.abs(column[row]));
    }
  }
}

// The use over time of each value of the label `key`, those with most first and CPUs in their order; of all
// together without one.
export function lanes(profile, view, key) {
  const { count } = steps(profile.header);
  const names = key === "" ? null : labelValues(profile, key);
  const known = new Map();
  eachMoment(profile, view, (set, step, value) => {
    const name = names === null ? "" : names[set];
    if (name === undefined) {
      return;
    }
    if (!known.has(name)) {
      known.set(name, { name, sum: 0, bars: new Float64Array(count) });
    }
    const lane = known.get(name);
    lane.bars[step] += value;
    lane.sum += value;
  });
  const all = [...known.values()];
  const isNumber = all.every(({ name }) => /^\d+$/.test(name));
  all.sort((a, b) => (key === "cpu" && isNumber ? a.name - b.name : b.sum - a.sum));
  if (all.length <= MOST_LANES) {
    return all;
  }
  const others = all.splice(MOST_LANES - 1).reduce((one, { bars }) => one.map((bar, i) => bar + bars[i]));
  return [...all, others];
}

// Whether steps are parts of seconds.
export function hasHeat(header) {
  const { step } = steps(header);
  return step < SECOND && SECOND % step === 0;
}

// Seconds from left to right, in each the steps of it from below: what begins at one moment of every second is a row.
export function heat(profile, view) {
  const { step, count } = steps(profile.header);
  const rows = Math.round(SECOND / step);
  const cells = new Float64Array(Math.ceil(count / rows) * rows);
  eachMoment(profile, view, (_, at, value) => {
    cells[at] += value;
  });
  return { step, rows, columns: cells.length / rows, cells };
}
