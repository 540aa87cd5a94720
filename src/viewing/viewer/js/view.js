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

const FLAGS = ["reverse", "flip", "recursion", "unresolved", "table"];
const LISTS = ["group", "hide", "focus"];

// Only what differs from the view that the file opens with.
export function toFragment(view, header) {
  const first = firstView(header);
  const parameters = new URLSearchParams();
  const value = header.types[view.value].name;
  if (view.value !== first.value) {
    parameters.set("value", value);
  }
  for (const flag of FLAGS) {
    if (view[flag] !== first[flag]) {
      parameters.set(flag, view[flag] ? "1" : "0");
    }
  }
  for (const list of LISTS) {
    if (view[list].join("\n") !== first[list].join("\n")) {
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
    parameters.set("only", `${view.only.key}=${view.only.value}`);
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
  const numbers = (text || "").split("-").map(Number);
  return numbers.length === 2 && numbers[0] < numbers[1] ? numbers : null;
}

// The view of an address. What it does not know, such as a value that another file has, is left as it is.
export function fromFragment(fragment, header) {
  const view = firstView(header);
  const parameters = new URLSearchParams(fragment.replace(/^#/, ""));
  const value = header.types.findIndex((type) => type.name === parameters.get("value"));
  view.value = value < 0 ? view.value : value;
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
  view.search = parameters.get("search") || "";
  view.colors = parameters.get("colors") === "binary" ? "binary" : "kind";
  view.sort = ["own", "total", "name"].includes(parameters.get("sort")) ? parameters.get("sort") : "own";
  view.lanes = parameters.has("lanes") ? parameters.get("lanes") : view.lanes;
  view.callers = parameters.get("callers");
  const only = parameters.get("only");
  if (only !== null && only.includes("=")) {
    const at = only.indexOf("=");
    view.only = { key: only.slice(0, at), value: only.slice(at + 1) };
  }
  view.time = pair(parameters.get("time"));
  view.range = pair(parameters.get("range"));
  const zoom = Number(parameters.get("zoom"));
  view.zoom = Number.isInteger(zoom) && zoom > 0 ? zoom : 0;
  return view;
}
