// What the viewer is asked for, and its form in the address: a link shows the same again.

export function firstView(header) {
  return {
    value: header.value,
    group: header.group,
    only: null,
    hide: [],
    focus: [],
    callers: null,
    reverse: header.reverse,
    flip: header.inverted,
    recursion: false,
    unresolved: false,
    colors: "kind",
    table: false,
    sort: "own",
    search: "",
    zoom: 0,
    range: null,
    time: null,
    lanes: header.labels.keys.includes("cpu") ? "cpu" : "",
  };
}

// What the strip of time may show beside the values of a label.
export const HEAT = "heat map";

// What a value is called in the menu and in the address: by its unit too where another one has its name, and by its
// number where that has its unit as well.
export function valueName(header, at) {
  const { name, unit } = header.types[at];
  const equal = header.types.filter((type) => type.name === name);
  if (equal.length === 1) {
    return name;
  }
  return equal.filter((type) => type.unit === unit).length === 1 ? `${name}/${unit}` : `${name}/${unit}/${at + 1}`;
}

// A label's key ends at the first `=` of an address, so that it may have none.
const inKey = (text) => text.replace(/[%=]/g, encodeURIComponent);
const outOfKey = (text) => text.replace(/%(25|3D)/g, decodeURIComponent);

const FLAGS = ["reverse", "flip", "recursion", "unresolved", "table"];
const LISTS = ["group", "hide", "focus"];

// Only what differs from the view that the file opens with.
export function toFragment(view, header) {
  const first = firstView(header);
  const parameters = new URLSearchParams();
  if (view.value !== first.value) {
    parameters.set("value", valueName(header, view.value));
  }
  for (const flag of FLAGS) {
    if (view[flag] !== first[flag]) {
      parameters.set(flag, view[flag] ? "1" : "0");
    }
  }
  for (const list of LISTS) {
    if (JSON.stringify(view[list]) !== JSON.stringify(first[list])) {
      // An empty list is one empty text.
      (view[list].length > 0 ? view[list] : [""]).forEach((item) => parameters.append(list, item));
    }
  }
  for (const text of ["search", "colors", "sort", "lanes"]) {
    if (view[text] !== first[text]) {
      parameters.set(text, view[text]);
    }
  }
  if (view.callers !== null) {
    parameters.set("callers", view.callers);
  }
  if (view.only !== null) {
    parameters.set("only", `${inKey(view.only.key)}=${view.only.value}`);
  }
  if (view.time !== null) {
    parameters.set("time", view.time.join("-"));
  }
  if (view.range !== null) {
    parameters.set("range", view.range.join("-"));
  }
  if (view.zoom !== 0) {
    parameters.set("zoom", String(view.zoom));
  }
  return parameters.toString();
}

// Two numbers, the lower one first.
function pair(text) {
  const found = /^(\d[\d.]*(?:e[-+]?\d+)?)-(\d[\d.]*(?:e[-+]?\d+)?)$/.exec(text || "");
  const numbers = found === null ? [] : [Number(found[1]), Number(found[2])];
  return numbers[0] < numbers[1] && numbers[1] < Infinity ? numbers : null;
}

// The view of an address. What it does not know, such as a value that another file has, is left as it is.
export function fromFragment(fragment, header) {
  const view = firstView(header);
  const parameters = new URLSearchParams(fragment.replace(/^#/, ""));
  const values = header.types.map((_, at) => valueName(header, at));
  const names = header.types.map(({ name }) => name);
  const value = [values, names].map((list) => list.indexOf(parameters.get("value"))).find((at) => at >= 0);
  view.value = value === undefined ? view.value : value;
  for (const flag of FLAGS) {
    if (parameters.has(flag)) {
      view[flag] = parameters.get(flag) === "1";
    }
  }
  for (const list of LISTS) {
    if (parameters.has(list)) {
      view[list] = parameters.getAll(list).filter((item) => item !== "");
    }
  }
  const { keys } = header.labels;
  view.group = view.group.filter((key) => keys.includes(key) || header.group.includes(key));
  view.search = parameters.get("search") || "";
  view.colors = parameters.get("colors") === "binary" ? "binary" : "kind";
  view.sort = ["own", "total", "name"].includes(parameters.get("sort")) ? parameters.get("sort") : "own";
  const lanes = parameters.get("lanes");
  view.lanes = ["", HEAT, ...keys].includes(lanes) ? lanes : view.lanes;
  view.callers = parameters.get("callers");
  const only = parameters.get("only");
  if (only !== null && only.includes("=")) {
    const at = only.indexOf("=");
    view.only = { key: outOfKey(only.slice(0, at)), value: only.slice(at + 1) };
  }
  view.time = header.times ? pair(parameters.get("time")) : null;
  view.range = pair(parameters.get("range"));
  const zoom = Number(parameters.get("zoom"));
  view.zoom = Number.isInteger(zoom) && zoom > 0 ? zoom : 0;
  return view;
}
