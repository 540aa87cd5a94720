// From the profile and what the viewer is asked for to the tree that is drawn.

import { basename } from "./names.js";
import { PrefixTree } from "./prefix.js";
import { addUp, arrange, around, emptyTree, finish, reversed, valuesOf } from "./tree.js";

const NO_GROUP = -1;

// The profile with what is looked up often: functions by name, and the order of names. Frames are added as labels
// stand at the root or addresses are folded.
export class Profile {
  constructor({ header, frames, tree, rows }) {
    Object.assign(this, { header, tree, rows });
    this.frames = {
      name: Array.from(frames.name),
      kind: Array.from(frames.kind),
      binary: Array.from(frames.binary),
      file: Array.from(frames.file),
      firstLine: Array.from(frames.firstLine),
      lastLine: Array.from(frames.lastLine),
    };
    this.labelKind = header.kinds.findIndex((kind) => kind.name === "process");
    this.unresolvedKind = header.kinds.findIndex((kind) => kind.name === "unresolved");
    this.added = new Map();
    this.names = [];
    this.nameIds = new Map();
    this.nameOf = [];
    this.frames.name.forEach((name) => this.nameOf.push(this.nameId(name)));
    this.order();
    this.folded = new Map();
  }

  nameId(name) {
    const known = this.nameIds.get(name);
    if (known !== undefined) {
      return known;
    }
    this.nameIds.set(name, this.names.length);
    this.names.push(name);
    return this.names.length - 1;
  }

  // Frames compare by name, bytes as in folded text.
  order() {
    const { name, kind } = this.frames;
    const sorted = name.map((_, frame) => frame);
    sorted.sort((a, b) => (name[a] < name[b] ? -1 : name[a] > name[b] ? 1 : kind[a] - kind[b]));
    this.rank = new Int32Array(name.length);
    sorted.forEach((frame, at) => {
      this.rank[frame] = at;
    });
  }

  // A frame that is no function of the profile, by its name.
  frame(name, kind, binary) {
    const key = `${kind} ${binary} ${name}`;
    if (!this.added.has(key)) {
      const { frames } = this;
      this.added.set(key, frames.name.length);
      frames.name.push(name);
      frames.kind.push(kind);
      frames.binary.push(binary);
      frames.file.push(0);
      frames.firstLine.push(0);
      frames.lastLine.push(0);
      this.nameOf.push(this.nameId(name));
    }
    return this.added.get(key);
  }

  isLabel(frame) {
    return this.frames.kind[frame] === this.labelKind;
  }

  // For each frame which function it is, or -1 for what is none.
  functionKeys() {
    return this.nameOf.map((id, frame) => (this.isLabel(frame) ? -1 : id));
  }

  // The name under which a frame stands once unresolved addresses are folded, or null for one that stays as it is.
  foldedName(frame) {
    const { kind, binary } = this.frames;
    if (kind[frame] !== this.unresolvedKind || binary[frame] === 0) {
      return null;
    }
    return `[unresolved in ${basename(this.header.binaries[binary[frame] - 1])}]`;
  }

  // The tree with direct recursion or the unresolved addresses of a binary as one frame, and where each node went.
  fold({ recursion, unresolved }) {
    if (!recursion && !unresolved) {
      return { tree: this.tree, place: null };
    }
    const key = `${recursion} ${unresolved}`;
    if (!this.folded.has(key)) {
      const { length, parent, frame } = this.tree;
      const prefix = new PrefixTree();
      const place = new Int32Array(length);
      for (let node = 1; node < length; node += 1) {
        const above = place[parent[node]];
        let of = frame[node];
        const folded = unresolved ? this.foldedName(of) : null;
        const isAddress = folded !== null;
        if (isAddress) {
          of = this.frame(folded, this.unresolvedKind, this.frames.binary[of]);
        }
        const isSame = above !== 0 && prefix.element[above] === of;
        place[node] = isSame && (recursion || isAddress) ? above : prefix.child(above, of);
      }
      const tree = { length: prefix.length, parent: prefix.parent, frame: prefix.element };
      this.folded.set(key, { tree, place });
      this.order();
    }
    return this.folded.get(key);
  }
}

// Whether what is shown is a comparison: its value is what was before and after together.
export function isComparison({ comparison }, view) {
  return Boolean(comparison) && view.value === comparison.value;
}

// Whether a row is one that a view is of, but for its value.
export function keeps(profile, view) {
  const { rows } = profile;
  const stays = visible(profile, view);
  const only = onlySets(profile, view);
  const range = timeRange(profile, view);
  return (row) => {
    const labels = rows.labels[row];
    return (!stays || stays[rows.leaf[row]] === 1) && (!only || only[labels]) && (!range || range[labels]);
  };
}

// The rows that a view is of: nodes with weights, and the group that each is in.
export function choose(profile, view) {
  const { rows } = profile;
  const { tree, place } = profile.fold(view);
  const isKept = keeps(profile, view);
  const groups = groupsOf(profile, view);
  const values = rows.values[view.value];
  const later = isComparison(profile.header, view) ? rows.values[profile.header.comparison.after] : null;
  const chosen = { node: [], weight: [], group: [], after: later && [] };
  for (let row = 0; row < values.length; row += 1) {
    if (values[row] !== 0 && isKept(row)) {
      chosen.node.push(place ? place[rows.leaf[row]] : rows.leaf[row]);
      if (later) {
        // What was before counts as if there had been as much as after.
        const before = values[row] - later[row];
        chosen.weight.push(before * profile.header.comparison.factor + later[row]);
        chosen.after.push(later[row]);
      } else {
        chosen.weight.push(values[row]);
      }
      chosen.group.push(groups ? groups.of[rows.labels[row]] : NO_GROUP);
    }
  }
  return { tree, chosen, groups };
}

// Of each node of the profile's own tree whether stacks that end there stay: none of their functions is hidden, one
// is in focus. What is folded changes nothing of it: frames go by their own name and by that of what they fold into.
function visible(profile, { hide, focus }) {
  if (hide.length === 0 && focus.length === 0) {
    return null;
  }
  const { tree, names, nameOf } = profile;
  const of = (list) => {
    const set = new Set(list);
    return nameOf.map((id, frame) => set.has(names[id]) || set.has(profile.foldedName(frame)));
  };
  const [isHidden, isFocused] = [of(hide), of(focus)];
  const gone = new Uint8Array(tree.length);
  const found = new Uint8Array(tree.length);
  found[0] = focus.length === 0 ? 1 : 0;
  const stays = new Uint8Array(tree.length);
  stays[0] = found[0];
  for (let node = 1; node < tree.length; node += 1) {
    const parent = tree.parent[node];
    gone[node] = gone[parent] || isHidden[tree.frame[node]] ? 1 : 0;
    found[node] = found[parent] || isFocused[tree.frame[node]] ? 1 : 0;
    stays[node] = found[node] && !gone[node] ? 1 : 0;
  }
  return stays;
}

// The values of a label in each set of labels, joined as `--tagroot` does; undefined where a set has none.
export function labelValues(profile, key) {
  const { sets, keys, texts } = profile.header.labels;
  const wanted = keys.indexOf(key);
  return sets.map((set) => {
    const found = [];
    for (let i = 0; i < set.length; i += 2) {
      if (set[i] === wanted) {
        found.push(texts[set[i + 1]]);
      }
    }
    return found.length > 0 ? found.join(",") : undefined;
  });
}

// The groups by the labels that stand at the root: the frames of each, and which one a set of labels is in.
function groupsOf(profile, view) {
  if (view.group.length === 0 || view.callers !== null) {
    return null;
  }
  const byKey = view.group.map((key) => labelValues(profile, key));
  const known = new Map();
  const paths = [];
  const of = profile.header.labels.sets.map((_, set) => {
    const path = byKey.map((values) => values[set]).filter((value) => value !== undefined);
    const id = JSON.stringify(path);
    if (!known.has(id)) {
      known.set(id, paths.length);
      paths.push(path.map((value) => profile.frame(value, profile.labelKind, 0)));
    }
    return known.get(id);
  });
  profile.order();
  return { of, paths };
}

// Which label a frame at the root stands for, with its value: `names` are its own and those of the labels around it,
// the outermost first, up to the root or, from the leaf, down to the functions.
export function labelAt(profile, { group }, names, isReversed) {
  const byKey = group.map((key) => labelValues(profile, key));
  for (let set = 0; set < profile.header.labels.sets.length; set += 1) {
    const path = group.map((key, i) => ({ key, value: byKey[i][set] })).filter(({ value }) => value !== undefined);
    const from = isReversed ? path.length - names.length : 0;
    const at = isReversed ? from : names.length - 1;
    if (from >= 0 && at < path.length && names.every((name, i) => path[from + i].value === name)) {
      return path[at];
    }
  }
  return null;
}

function onlySets(profile, view) {
  if (view.only === null) {
    return null;
  }
  return labelValues(profile, view.only.key).map((value) => value === view.only.value);
}

// The sets of labels within a range of time, where the recording says when.
function timeRange(profile, view) {
  if (view.time === null || !profile.header.times) {
    return null;
  }
  const [from, to] = view.time;
  return profile.header.times.map((time) => time !== null && time >= from && time < to);
}

// The tree of a view, or its two trees where callers are looked at.
export function shape(profile, view) {
  const { tree, chosen, groups } = choose(profile, view);
  const rootFirst = groups ? grouped(profile, tree, chosen, groups) : plain(profile, tree, chosen);
  if (view.callers !== null) {
    const id = profile.nameId(view.callers);
    const isIt = (frame) => profile.nameOf[frame] === id && !profile.isLabel(frame);
    const { callers, callees } = around(rootFirst, isIt, profile.rank);
    const part = { partOf: rootFirst };
    return { full: rootFirst, callers: Object.assign(callers, part), callees: Object.assign(callees, part) };
  }
  const turned = view.reverse ? reversed(rootFirst, profile.rank) : rootFirst;
  return { full: rootFirst, main: turned };
}

function plain(profile, tree, { node, weight, after }) {
  const sums = (values) => {
    const own = new Float64Array(tree.length);
    node.forEach((at, i) => {
      own[at] += values[i];
    });
    return own;
  };
  const own = sums(weight);
  const later = after && sums(after);
  if (tree !== profile.tree) {
    return arrange({ length: tree.length, parent: tree.parent, element: tree.frame }, own, profile.rank, later);
  }
  // The file has it in preorder and sorted: only what has no width is left out.
  const width = addUp(tree.parent, own.map(Math.abs));
  const total = addUp(tree.parent, own.slice());
  const laterTotal = later && addUp(tree.parent, later.slice());
  const drawn = emptyTree(tree.length, later !== null);
  const place = new Int32Array(tree.length);
  let length = 1;
  fill(drawn, 0, -1, 0, own[0], total[0], width[0]);
  const fillLater = (at, from) => {
    if (later) {
      drawn.after[at] = later[from];
      drawn.afterTotal[at] = laterTotal[from];
    }
  };
  fillLater(0, 0);
  for (let at = 1; at < tree.length; at += 1) {
    if (width[at] > 0) {
      place[at] = length;
      fill(drawn, length, tree.frame[at], place[tree.parent[at]], own[at], total[at], width[at]);
      fillLater(length, at);
      length += 1;
    }
  }
  return finish(drawn, length);
}

function fill(tree, at, frame, parent, own, total, width) {
  tree.frame[at] = frame;
  tree.parent[at] = parent;
  tree.depth[at] = at === 0 ? 0 : tree.depth[parent] + 1;
  tree.own[at] = own;
  tree.total[at] = total;
  tree.width[at] = width;
}

function grouped(profile, tree, { node, weight, group, after }, { paths }) {
  const prefix = new PrefixTree();
  const begins = paths.map((path) => path.reduce((at, frame) => prefix.child(at, frame), 0));
  const byGroup = paths.map(() => []);
  group.forEach((of, i) => byGroup[of].push(i));
  const pairs = [];
  const place = new Int32Array(tree.length);
  const placedFor = new Int32Array(tree.length).fill(-1);
  const path = [];
  byGroup.forEach((members, of) => {
    for (const i of members) {
      let at = node[i];
      path.length = 0;
      while (at !== 0 && placedFor[at] !== of) {
        path.push(at);
        at = tree.parent[at];
      }
      let found = at === 0 ? begins[of] : place[at];
      for (let k = path.length - 1; k >= 0; k -= 1) {
        found = prefix.child(found, tree.frame[path[k]]);
        place[path[k]] = found;
        placedFor[path[k]] = of;
      }
      pairs.push(found, i);
    }
  });
  return arrange(prefix, valuesOf(prefix, pairs, weight), profile.rank, valuesOf(prefix, pairs, after));
}
