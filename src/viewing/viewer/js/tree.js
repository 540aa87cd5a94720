// Trees to be drawn: arrays by node, in preorder, so that what is below a node are the nodes behind it up to its
// end. Node 0 is the root, "all". Every shape of a profile comes out as such a tree: from the root, from the leaf,
// callers, callees, with recursion folded. In a comparison they have what is of after, too: `after` of its own and
// `afterTotal`, as parts of `own` and `total`.

import { PrefixTree } from "./prefix.js";

// Frames of reversed stacks beyond which these are cut: an endless recursion, turned, has no end either.
const MOST_STEPS = 3e7;

// A tree from the nodes of a prefix tree and what each has of its own, and of that after. `rank` orders frames.
export function arrange(prefix, own, rank, after = null) {
  const count = prefix.length;
  const { parent, element } = prefix;
  const total = own.slice(0, count);
  const width = total.map(Math.abs);
  addUp(parent, total);
  addUp(parent, width);
  const afterTotal = after && addUp(parent, after.slice(0, count));
  const [starts, children] = childLists(parent, width, count);
  const tree = emptyTree(count, after !== null);
  const stack = [0];
  const place = new Int32Array(count);
  let length = 0;
  while (stack.length > 0) {
    const node = stack.pop();
    const at = length;
    length += 1;
    place[node] = at;
    tree.frame[at] = element[node];
    tree.parent[at] = at === 0 ? 0 : place[parent[node]];
    tree.depth[at] = at === 0 ? 0 : tree.depth[tree.parent[at]] + 1;
    tree.own[at] = own[node];
    tree.total[at] = total[node];
    tree.width[at] = width[node];
    if (after) {
      tree.after[at] = after[node];
      tree.afterTotal[at] = afterTotal[node];
    }
    const below = children.subarray(starts[node], starts[node + 1]);
    sortBy(below, (child) => rank[element[child]]);
    for (let i = below.length - 1; i >= 0; i -= 1) {
      stack.push(below[i]);
    }
  }
  tree.place = place;
  return finish(tree, length);
}

// Adds to each node's value what is below it: children stand behind their parents.
export function addUp(parent, values) {
  for (let node = values.length - 1; node > 0; node -= 1) {
    values[parent[node]] += values[node];
  }
  return values;
}

// Who has which children, without those of no width.
function childLists(parent, width, count) {
  const starts = new Int32Array(count + 1);
  for (let node = 1; node < count; node += 1) {
    if (width[node] > 0) {
      starts[parent[node] + 1] += 1;
    }
  }
  for (let node = 0; node < count; node += 1) {
    starts[node + 1] += starts[node];
  }
  const next = starts.slice();
  const children = new Int32Array(starts[count]);
  for (let node = 1; node < count; node += 1) {
    if (width[node] > 0) {
      children[next[parent[node]]++] = node;
    }
  }
  return [starts, children];
}

function sortBy(nodes, key) {
  for (let i = 1; i < nodes.length; i += 1) {
    if (key(nodes[i - 1]) > key(nodes[i])) {
      nodes.sort((a, b) => key(a) - key(b));
      return;
    }
  }
}

export function emptyTree(count, isCompared = false) {
  return {
    after: isCompared ? new Float64Array(count) : null,
    afterTotal: isCompared ? new Float64Array(count) : null,
    length: 0,
    frame: new Int32Array(count),
    parent: new Int32Array(count),
    depth: new Int32Array(count),
    own: new Float64Array(count),
    total: new Float64Array(count),
    width: new Float64Array(count),
    start: new Float64Array(count),
    end: new Int32Array(count),
    height: new Int32Array(count),
  };
}

// Fills in what follows from parents and widths: where nodes end, where they start, how high they are.
export function finish(tree, length) {
  tree.length = length;
  tree.end.fill(0);
  tree.height.fill(0);
  for (let node = length - 1; node >= 0; node -= 1) {
    if (tree.end[node] === 0) {
      tree.end[node] = node + 1;
    }
    const parent = tree.parent[node];
    if (node > 0) {
      tree.end[parent] = Math.max(tree.end[parent], tree.end[node]);
      tree.height[parent] = Math.max(tree.height[parent], tree.height[node] + 1);
    }
  }
  // Where the next child of each node starts.
  const next = new Float64Array(length);
  for (let node = 1; node < length; node += 1) {
    const parent = tree.parent[node];
    tree.start[node] = next[parent];
    next[parent] += tree.width[node];
    next[node] = tree.start[node];
  }
  return tree;
}

// The same stacks from the leaf to the root.
export function reversed(tree, rank) {
  const prefix = new PrefixTree();
  let steps = 0;
  for (let node = 1; node < tree.length; node += 1) {
    steps += tree.own[node] === 0 ? 0 : tree.depth[node];
  }
  const most = steps > MOST_STEPS ? Math.max(8, Math.floor(MOST_STEPS / tree.length)) : Infinity;
  const ends = [];
  // What has no stack has none from the leaf either.
  for (let node = 0; node < tree.length; node += 1) {
    if (tree.own[node] !== 0) {
      let found = 0;
      let left = most;
      for (let at = node; at !== 0 && left > 0; at = tree.parent[at]) {
        found = prefix.child(found, tree.frame[at]);
        left -= 1;
      }
      ends.push(found, node);
    }
  }
  return arrange(prefix, valuesOf(prefix, ends, tree.own), rank, valuesOf(prefix, ends, tree.after));
}

// Callers and callees of a function: of each stack that has it, what is above and below its outermost call.
export function around(tree, isIt, rank) {
  const callers = new PrefixTree();
  const callees = new PrefixTree();
  const above = [];
  const below = [];
  const place = new Int32Array(tree.length);
  for (let node = 1; node < tree.length; ) {
    if (!isIt(tree.frame[node])) {
      node += 1;
      continue;
    }
    let found = callers.child(0, tree.frame[node]);
    for (let at = tree.parent[node]; at !== 0; at = tree.parent[at]) {
      found = callers.child(found, tree.frame[at]);
    }
    above.push(found, node);
    place[node] = callees.child(0, tree.frame[node]);
    below.push(place[node], node);
    const end = tree.end[node];
    for (node += 1; node < end; node += 1) {
      place[node] = callees.child(place[tree.parent[node]], tree.frame[node]);
      if (tree.own[node] !== 0) {
        below.push(place[node], node);
      }
    }
  }
  const [over, under] = [valuesOf(callers, above, tree.total), valuesOf(callees, below, tree.own)];
  return {
    callers: arrange(callers, over, rank, valuesOf(callers, above, tree.afterTotal)),
    callees: arrange(callees, under, rank, valuesOf(callees, below, tree.after)),
  };
}

// Of pairs of a node and the one whose value it gets, all values added up.
export function valuesOf(prefix, pairs, values) {
  if (values === null) {
    return null;
  }
  const sums = new Float64Array(prefix.length);
  for (let i = 0; i < pairs.length; i += 2) {
    sums[pairs[i]] += values[pairs[i + 1]];
  }
  return sums;
}

// By function, whatever calls it: what is its own, and all time in which it is on the stack, recursion counted
// once. `key` says which frames are one function; negative ones are none. `values` are those of nodes.
export function functions(tree, key, count, values = tree) {
  const own = new Float64Array(count);
  const total = new Float64Array(count);
  // The end of the outermost call that the walk is in.
  const until = new Int32Array(count);
  for (let node = 1; node < tree.length; node += 1) {
    const of = key[tree.frame[node]];
    if (of < 0) {
      continue;
    }
    own[of] += values.own[node];
    if (node >= until[of]) {
      total[of] += values.total[node];
      until[of] = tree.end[node];
    }
  }
  return { own, total };
}
