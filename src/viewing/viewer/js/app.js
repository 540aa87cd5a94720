// The viewer: what the user does becomes a view, and every view is drawn anew from the profile.

import { MATCH, LEFT_OUT, css, darkened, palette } from "./colors.js";
import { Changes } from "./comparison.js";
import { Controls } from "./controls.js";
import { copy, element } from "./dom.js";
import { ROW, extent, nodeAt, paint, panelOf, rangeWithin, rowTop, zoomAround } from "./draw.js";
import { installKeys } from "./keys.js";
import { installMouse } from "./mouse.js";
import { clipped, escapeFolded, printable } from "./names.js";
import { amount, percent, thousands } from "./scale.js";
import { Searcher, literally, matches, matchingFrames } from "./search.js";
import { installPaper } from "./paper.js";
import { labelAt, shape } from "./shape.js";
import { Table } from "./table.js";
import { Strip } from "./strip.js";
import { Tooltip, nameOf } from "./tooltip.js";
import { firstView, fromFragment, toFragment } from "./view.js";

// What changes the tree; the rest changes how it is looked at.
const SHAPING = ["value", "group", "only", "hide", "focus", "callers", "reverse", "recursion", "unresolved", "time"];
// Pixels of a frame that a search leads to.
const WIDE_ENOUGH = 30;
// Pixels below which a frame cannot be told from its neighbours: a click there looks closer at all of them.
const TOO_NARROW = 3;
const LOOK_CLOSER = 24;

export class App {
  constructor(profile, root) {
    this.profile = profile;
    this.view = fromFragment(location.hash, profile.header);
    this.panels = [];
    this.hovered = null;
    this.selected = null;
    this.found = null;
    this.tooltip = new Tooltip();
    this.searcher = new Searcher(() => this.refresh());
    this.table = new Table({
      sort: (sort) => this.change({ sort }),
      select: (name) => this.searchFor(name),
      callers: (name) => this.showCallers(name),
    });
    this.strip = new Strip(
      profile,
      (time) => this.change({ time }),
      (lanes) => this.change({ lanes }),
    );
    this.controls = new Controls(this);
    this.canvas = element("canvas", { tabIndex: 0, role: "img", "aria-label": "Flame graph" });
    // As high as the whole picture, of which the canvas shows what is scrolled to.
    this.spacer = element("div", { class: "height" }, this.canvas);
    this.scroller = element("div", { class: "scroller" }, this.spacer);
    this.box = element(
      "div",
      { class: "viewer" },
      this.controls.bar,
      this.controls.chips,
      this.strip.box,
      element("div", { class: "main" }, this.scroller, this.table.box),
      this.controls.foot,
      this.tooltip.box,
      this.controls.help,
      this.controls.menu,
    );
    root.append(this.box);
    this.dark = window.matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", () => this.refresh());
    this.scroller.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(this.scroller);
    window.addEventListener("hashchange", () => this.goTo(fromFragment(location.hash, profile.header)));
    installPaper(this);
    installMouse(this);
    installKeys(this);
    this.refresh();
    this.scrollToRoot();
    this.canvas.focus({ preventScroll: true });
  }

  get type() {
    return this.profile.header.types[this.view.value];
  }

  // Changes the view in some of its parts.
  change(parts) {
    const isShaping = SHAPING.some((key) => key in parts);
    const isZoom = isShaping || "zoom" in parts;
    const next = Object.assign({}, this.view, isShaping ? { zoom: 0 } : {}, isZoom ? { range: null } : {}, parts);
    this.goTo(next, isShaping || "flip" in parts);
  }

  goTo(view, isMoved = true) {
    this.view = view;
    history.replaceState(null, "", `#${toFragment(view, this.profile.header)}`);
    this.refresh();
    if (isMoved) {
      this.scrollToRoot();
    }
  }

  refresh() {
    const { profile, view } = this;
    const key = JSON.stringify(SHAPING.map((part) => view[part]));
    if (key !== this.shapeKey) {
      this.shapeKey = key;
      this.shape = shape(profile, view);
      this.selected = null;
      this.hovered = null;
      this.tooltip.hide();
    }
    this.layOut();
    const colorsKey = `${view.colors} ${this.dark.matches} ${key}`;
    if (colorsKey !== this.colorsKey) {
      this.colorsKey = colorsKey;
      this.colors = this.suitedColors(this.dark.matches);
    }
    this.look();
    this.controls.show();
    this.strip.show(view);
    this.table.box.hidden = !view.table;
    if (view.table) {
      this.table.show(profile, this.shape.full, view, this.type, this.found && this.found.isMatch);
    }
    this.draw();
  }

  suitedColors(isDark) {
    const { full } = this.shape;
    const colors = palette(this.profile, this.view.colors, full, isDark);
    const changes = Changes.of(this.profile, full);
    return changes ? Object.assign(colors, { legend: changes.legend(isDark) }) : colors;
  }

  layOut() {
    const { view } = this;
    const zoomIn = (tree) => {
      // A link may be of another recording.
      view.zoom = view.zoom < tree.length ? view.zoom : 0;
      view.range = rangeWithin(tree, view.zoom, view.range);
      return view.zoom;
    };
    if (view.callers !== null) {
      const { callers, callees } = this.shape;
      const above = (callers.height[0] || 1) - 1;
      this.panels = [
        panelOf(callers, 0, null, { up: true, base: above * ROW, skip: 2, isCallers: true }),
        panelOf(callees, zoomIn(callees), view.range, { up: false, base: above * ROW, skip: 1 }),
      ];
      this.height = (above + (callees.height[0] || 0)) * ROW;
      this.main = this.panels[1];
      return;
    }
    const tree = this.shape.main;
    this.height = (tree.height[0] + 1) * ROW;
    const base = view.flip ? 0 : this.height;
    this.main = panelOf(tree, zoomIn(tree), view.range, { up: !view.flip, base, skip: 0, isReversed: view.reverse });
    this.panels = [this.main];
  }

  // What the search finds in what is drawn.
  look() {
    this.found = null;
    this.searchError = null;
    try {
      const byName = this.searcher.matching(this.profile.names, this.view.search);
      if (byName !== null) {
        const isMatch = matchingFrames(this.profile, byName);
        this.found = Object.assign({ isMatch }, matches(this.main.tree, isMatch, this.main.zoom));
      }
    } catch (error) {
      this.searchError = String(error.message);
    }
    this.match = this.match && this.found && this.match < this.found.nodes.length ? this.match : 0;
  }

  get size() {
    return { width: this.scroller.clientWidth, height: this.scroller.clientHeight, scroll: this.scroller.scrollTop };
  }

  resize() {
    this.strip.show(this.view);
    this.draw();
  }

  draw() {
    const { width, height } = this.size;
    // A flame graph stands on the lower edge.
    const lift = this.main.up && this.view.callers === null ? Math.max(0, height - this.height) : 0;
    if (this.panels.length === 1 && this.main.up) {
      this.main.base = this.height + lift;
    }
    this.spacer.style.height = `${Math.max(this.height, height)}px`;
    const ratio = window.devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.width = `${width}px`;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paintOn(context, this.size, this.dark.matches);
    this.report();
  }

  paintOn(context, size, isDark) {
    const { profile, colors, found } = this;
    const root = isDark ? "#3a3a40" : "#eeeeee";
    const match = css(isDark ? [170, 0, 120] : MATCH);
    paint(context, this.panels, size, {
      background: isDark ? "#1b1b1f" : "#ffffff",
      grey: css(isDark ? darkened(LEFT_OUT) : LEFT_OUT),
      color: ({ tree }, node) => {
        if (node === 0) {
          return root;
        }
        if (found && found.isMatch[tree.frame[node]]) {
          return match;
        }
        const changes = Changes.of(profile, tree);
        return changes ? changes.color(node, isDark) : colors.colors[tree.frame[node]];
      },
      textColor: () => (isDark ? "#ffffff" : "#000000"),
      text: ({ tree }, node, letters) => this.textOf(profile, tree, node, letters),
      outlines: (panel) => this.outlines(panel, isDark),
    });
  }

  textOf(profile, tree, node, letters) {
    const name = printable(nameOf(profile, tree, node).slice(0, letters + 2));
    if (node !== 0) {
      return clipped(name, letters);
    }
    const { type } = this;
    const unit = type.unit === "count" ? type.name : type.unit;
    const changes = Changes.of(profile, tree);
    const all = changes ? changes.values(changes.total(0), unit) : amount(tree.total[0], unit);
    return clipped(`all — ${all}`, letters);
  }

  outlines(panel, isDark) {
    const marked = [];
    const add = (at, color, dashed) => {
      if (at && at.panel === panel && this.isShown(panel, at.node)) {
        marked.push({ node: at.node, color, dashed });
      }
    };
    if (panel === this.main && this.view.callers !== null && panel.tree.length > 1) {
      add({ panel, node: 1 }, isDark ? "#ffffff" : "#000000", false);
    }
    add(this.hovered, isDark ? "#ffffff" : "#444444", true);
    add(this.selected, isDark ? "#ffffff" : "#000000", false);
    return marked;
  }

  isShown(panel, node) {
    const { tree, zoom } = panel;
    const isAbove = node < zoom && tree.end[node] >= tree.end[zoom];
    const isBelow = node >= zoom && node < tree.end[zoom];
    return isAbove || (isBelow && tree.start[node] < panel.to && tree.start[node] + tree.width[node] > panel.from);
  }

  // The frame at a place of the canvas.
  frameAt(x, y) {
    const { width, scroll } = this.size;
    for (const panel of this.panels) {
      const node = nodeAt(panel, x, y + scroll, width);
      if (node >= panel.skip - (panel.isCallers ? 1 : 0) && node >= 0) {
        return { panel, node };
      }
    }
    return null;
  }

  zoomTo({ panel, node }) {
    if (panel.isCallers) {
      this.showCallers(this.profile.frames.name[panel.tree.frame[node]]);
      return;
    }
    this.change({ zoom: node });
    this.select({ panel: this.main, node }, true);
  }

  // What a click on a frame does. Where many are in a few pixels it shows them side by side, and the next click
  // chooses.
  click(at, x) {
    const { width } = this.size;
    const { panel, node } = at;
    if (panel !== this.main || node === 0 || extent(panel, node, width)[1] >= TOO_NARROW) {
      this.zoomTo(at);
      return;
    }
    this.lookCloser(node, x, (LOOK_CLOSER / width) * (panel.to - panel.from));
  }

  // Shows a part of the picture that is `wide`, around a place in pixels.
  lookCloser(node, x, wide) {
    const { main } = this;
    const { width } = this.size;
    if (wide >= main.tree.width[0]) {
      this.change({ zoom: 0 });
      return;
    }
    const at = main.from + (x / width) * (main.to - main.from);
    // The place stays where it is.
    const middle = at + wide / 2 - (x / width) * wide;
    this.change(zoomAround(main, middle, wide, node));
  }

  select(at, isScrolled) {
    this.selected = at;
    if (at && isScrolled) {
      const top = rowTop(at.panel, at.panel.tree.depth[at.node]);
      const { height, scroll } = this.size;
      if (top < scroll || top + ROW > scroll + height) {
        this.scroller.scrollTop = top - height / 2;
      }
    }
    this.controls.showFoot();
    this.draw();
  }

  // To the next or the previous match; it is zoomed on where it is too narrow to be seen.
  goToMatch(step) {
    if (!this.found || this.found.nodes.length === 0) {
      return;
    }
    const count = this.found.nodes.length;
    const isFirst = this.matchOf !== this.view.search;
    this.matchOf = this.view.search;
    const match = isFirst ? (step > 0 ? 0 : count - 1) : (this.match + step + count) % count;
    const node = this.found.nodes[match];
    const { tree } = this.main;
    const [, wide] = this.isShown(this.main, node) ? extent(this.main, node, this.size.width) : [0, 0];
    if (wide < WIDE_ENOUGH) {
      let zoom = node;
      while (zoom !== 0 && tree.width[zoom] * this.size.width < 4 * WIDE_ENOUGH * tree.width[node]) {
        zoom = tree.parent[zoom];
      }
      const narrower = (tree.width[node] / tree.width[zoom]) * this.size.width < WIDE_ENOUGH;
      this.change({ zoom: narrower ? node : zoom });
    }
    this.match = match;
    this.select({ panel: this.main, node: this.found.nodes[match] }, true);
    this.controls.showMatches();
    this.report();
  }

  // Looks for a name as it stands, whatever a search would make of it.
  searchFor(name) {
    this.change({ search: literally(name) });
  }

  showCallers(name) {
    this.change({ callers: name, search: "" });
  }

  // What stands at the root may be no function but the value of a label, which is neither hidden nor called.
  withFunction({ panel: { tree }, node }, act) {
    if (this.profile.isLabel(tree.frame[node])) {
      this.controls.say("this is no function; f shows only what is below it");
    } else {
      act(nameOf(this.profile, tree, node));
    }
  }

  hide(at) {
    this.withFunction(at, (name) => this.change({ hide: [...this.view.hide, name] }));
  }

  focus(at) {
    const { tree, isReversed } = at.panel;
    const isLabel = (node) => node !== 0 && this.profile.isLabel(tree.frame[node]);
    if (!isLabel(at.node)) {
      this.change({ focus: [nameOf(this.profile, tree, at.node)] });
      return;
    }
    const names = [];
    for (let { node } = at; isLabel(node); node = tree.parent[node]) {
      names.push(nameOf(this.profile, tree, node));
    }
    this.change({ only: labelAt(this.profile, this.view, isReversed ? names : names.reverse(), isReversed) });
  }

  // Takes back one thing, the last that was done first: what Escape does.
  back() {
    const { view } = this;
    if (view.search !== "") {
      this.change({ search: "" });
    } else if (view.zoom !== 0 || view.range !== null) {
      this.change({ zoom: 0 });
      this.scrollToRoot();
    } else if (view.callers !== null) {
      this.change({ callers: null });
    } else if (view.hide.length > 0) {
      this.change({ hide: view.hide.slice(0, -1) });
    } else if (view.focus.length > 0 || view.only !== null || view.time !== null) {
      this.change({ focus: [], only: null, time: null });
    }
  }

  reset() {
    const first = firstView(this.profile.header);
    this.matchOf = null;
    this.goTo(Object.assign(first, { colors: this.view.colors, table: this.view.table, sort: this.view.sort }));
  }

  copyName({ panel, node }) {
    copy(nameOf(this.profile, panel.tree, node));
    this.controls.say("name copied");
  }

  // The stack of a frame as folded text, root first.
  stackText({ panel, node }) {
    const names = [];
    for (let at = node; at !== 0; at = panel.tree.parent[at]) {
      names.push(escapeFolded(this.profile.frames.name[panel.tree.frame[at]]));
    }
    if (!panel.isCallers && !panel.isReversed) {
      names.reverse();
    }
    return `${names.join(";")} ${panel.tree.total[node]}`;
  }

  copyStack(at) {
    copy(this.stackText(at));
    this.controls.say("stack copied");
  }

  scrollToRoot() {
    this.draw();
    if (this.view.callers !== null) {
      this.scroller.scrollTop = Math.max(0, this.main.base - this.size.height / 2);
    } else {
      this.scroller.scrollTop = this.main.up ? this.scroller.scrollHeight : 0;
    }
    this.draw();
  }

  // What is shown, for who reads the page by program.
  report() {
    const { view, main, found, box } = this;
    box.dataset.total = String(main.tree.total[0]);
    box.dataset.nodes = String(main.tree.length);
    box.dataset.zoom = printable(nameOf(this.profile, main.tree, main.zoom));
    box.dataset.value = this.type.name;
    box.dataset.matches = found ? String(found.nodes.length) : "";
    box.dataset.selected = this.selected
      ? printable(nameOf(this.profile, this.selected.panel.tree, this.selected.node))
      : "";
    box.dataset.view = toFragment(view, this.profile.header);
  }

  matchText() {
    if (this.searchError !== null) {
      return this.searchError;
    }
    if (!this.found) {
      return this.searcher.isBusy ? "searching…" : "";
    }
    const { nodes, all, zoomed } = this.found;
    const { tree, zoom } = this.main;
    const at = nodes.length === 0 ? 0 : this.match + 1;
    const parts = [`${thousands(at)} of ${thousands(nodes.length)}`, `${percent(all, tree.width[0])} of all`];
    if (zoom !== 0) {
      parts.splice(1, 0, `${percent(zoomed, tree.width[zoom])} of the zoom`);
    }
    return parts.join(" · ");
  }
}
