// What is told of a frame under the mouse, or of the one that is selected.

import { Changes } from "./comparison.js";
import { element, replaceChildren } from "./dom.js";
import { basename, printable } from "./names.js";
import { amount, percent } from "./scale.js";

const GAP = 14;

// The lines: pairs of a word and a text.
export function details(profile, panel, node, type) {
  const { tree, zoom } = panel;
  const { frames, header } = profile;
  const unit = type.unit === "count" ? type.name : type.unit;
  const lines = [];
  const frame = tree.frame[node];
  if (node !== 0) {
    const binary = frames.binary[frame];
    const [first, last] = [frames.firstLine[frame], frames.lastLine[frame]];
    const file = header.files[frames.file[frame]];
    lines.push(["kind", header.kinds[frames.kind[frame]].name]);
    if (binary > 0) {
      lines.push(["binary", header.binaries[binary - 1]]);
    }
    if (file) {
      const at = first === 0 ? "" : last > first ? `:${first}–${last}` : `:${first}`;
      lines.push(["source", `${file}${at}`]);
    }
  }
  const changes = Changes.of(profile, tree);
  const own = ownOf(panel, node);
  if (changes !== null) {
    return [...lines, ...changes.details(node, unit, own)];
  }
  lines.push(["total", amount(tree.total[node], unit)]);
  if (own !== null) {
    lines.push(["self", amount(tree[own][node], unit)]);
  }
  // As in `profiler top`: of sizes, whatever their signs.
  const share = (of) => percent(Math.abs(tree.total[node]), tree.width[of]);
  lines.push(["of all", share(0)]);
  if (zoom !== 0 && node > zoom && node < tree.end[zoom]) {
    lines.push(["of the zoom", share(zoom)]);
  }
  if (node !== 0 && tree.parent[node] !== 0) {
    const caller = tree.parent[node];
    const by = panel.isCallers || panel.isReversed ? "of its callee" : "of its caller";
    lines.push([by, share(caller)]);
  }
  return lines;
}

// Which values of the tree are a frame's self. A tree of callers has of its own what ends there, which is at the
// outermost caller. What begins there is self: from the leaf that is all that the first frame has, and no other has
// any. Among the callers of one function the leaf is not known.
function ownOf({ tree, isCallers, isReversed }, node) {
  if (isReversed && !isCallers && tree.depth[node] === 1) {
    return "total";
  }
  return isReversed || isCallers ? null : "own";
}

export function nameOf(profile, tree, node) {
  return node === 0 ? "all" : profile.frames.name[tree.frame[node]];
}

export class Tooltip {
  constructor() {
    this.box = element("div", { class: "tooltip", role: "tooltip", hidden: true });
  }

  show(profile, panel, node, type, x, y) {
    const name = printable(nameOf(profile, panel.tree, node));
    const rows = details(profile, panel, node, type).map(([word, text]) => {
      const shown = printable(word === "binary" ? shortPath(text) : text);
      return element("tr", {}, element("th", {}, word), element("td", {}, shown));
    });
    const table = element("table", {}, element("tbody", {}, ...rows));
    replaceChildren(this.box, element("div", { class: "name" }, name), table);
    this.box.hidden = false;
    const { offsetWidth, offsetHeight } = this.box;
    const [width, height] = [window.innerWidth, window.innerHeight];
    this.box.style.left = `${Math.max(4, Math.min(x + GAP, width - offsetWidth - 4))}px`;
    this.box.style.top = `${y + GAP + offsetHeight < height ? y + GAP : Math.max(4, y - offsetHeight - GAP)}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}

function shortPath(path) {
  return path.length > 80 ? `…/${basename(path)}` : path;
}
