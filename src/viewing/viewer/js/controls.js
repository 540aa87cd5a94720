// What stands around the picture: the bar above it, what was hidden or chosen, the line below it, the help.

import { Changes } from "./comparison.js";
import { element, replaceChildren } from "./dom.js";
import { clipped, printable } from "./names.js";
import { amount, percent, thousands } from "./scale.js";
import { labelValues } from "./shape.js";
import { nameOf } from "./tooltip.js";
import { valueName } from "./view.js";

const MOST_VALUES = 200;
const SAID_MS = 1500;

const KEYS = [
  ["click, Enter", "zoom in"],
  ["Esc", "take back the last step"],
  ["arrows", "go to callers, callees, siblings"],
  ["/", "search: text, or /regular expression/"],
  ["Enter, Shift-Enter", "next and previous match"],
  ["s", "callers above, callees below"],
  ["Alt-click, h", "remove all stacks with a function"],
  ["f", "only stacks with a function"],
  ["r", "merge from the leaf"],
  ["i", "flip: root above or below"],
  ["t", "table of functions"],
  ["b", "colour by binary"],
  ["x", "fold direct recursion"],
  ["u", "fold unresolved addresses of a binary"],
  ["c, C", "copy the name, the stack"],
  ["0", "reset"],
  ["?", "this help"],
];

export class Controls {
  constructor(app) {
    this.app = app;
    const { header } = app.profile;
    const button = (text, title, act) => element("button", { type: "button", title, onclick: act }, text);
    const toggle = (text, title, key, on = true, off = false) => {
      const made = button(text, title, () => app.change({ [key]: app.view[key] === on ? off : on }));
      made.isOn = () => app.view[key] === on;
      return made;
    };
    const onValue = () => app.change({ value: Number(this.value.value) });
    this.value = element("select", { title: "What is shown", onchange: onValue });
    header.types.forEach((type, i) => {
      const name = printable(valueName(header, i)).replace(/_/g, " ");
      this.value.append(element("option", { value: String(i), title: printable(type.unit) }, name));
    });
    this.group = element("select", { title: "What stands at the root", onchange: () => this.groupBy() });
    this.only = element("select", { title: "Only samples with a label", onchange: () => this.onlyWith() });
    this.fillLabels(header.labels.keys);
    this.toggles = [
      toggle("From leaf", "Merge stacks from the leaf (r)", "reverse"),
      toggle("Flip", "Root above or below (i)", "flip"),
      toggle("Table", "Functions by self and total (t)", "table"),
      toggle("Binaries", "Colour by binary (b)", "colors", "binary", "kind"),
    ];
    this.search = element("input", {
      type: "search",
      placeholder: "Search: text or /regex/",
      spellcheck: false,
      autocomplete: "off",
      "aria-label": "Search",
      oninput: () => app.change({ search: this.search.value }),
    });
    this.matches = element("output", { class: "matches" });
    this.bar = element(
      "header",
      { class: "bar" },
      this.value,
      this.group,
      this.only,
      element("span", { class: "buttons" }, ...this.toggles),
      element("span", { class: "find" }, this.search, this.matches),
      button("Reset", "Back to the view that the file opens with (0)", () => app.reset()),
      button("?", "Keys", () => this.toggleHelp()),
    );
    this.chips = element("div", { class: "chips", hidden: true });
    this.status = element("span", { class: "status" });
    this.legend = element("span", { class: "legend" });
    const title = element("strong", { class: "title", title: printable(header.about) }, printable(header.title));
    this.foot = element("footer", { class: "foot" }, title, this.status, this.legend);
    const key = ([keys, what]) => element("tr", {}, element("th", {}, keys), element("td", {}, what));
    this.help = element(
      "div",
      { class: "help", hidden: true, role: "dialog", "aria-label": "Keys", onclick: () => this.toggleHelp() },
      element("table", {}, element("tbody", {}, ...KEYS.map(key))),
      element("p", {}, printable(header.about)),
    );
    this.menu = element("div", { class: "menu", role: "menu", hidden: true });
  }

  fillLabels(keys) {
    const { profile, view } = this.app;
    this.group.append(groupOption([]));
    if (profile.header.group.length > 1) {
      this.group.append(groupOption(profile.header.group));
    }
    this.only.append(element("option", { value: "" }, "all samples"));
    keys.forEach((key) => {
      this.group.append(groupOption([key]));
      const group = element("optgroup", { label: labelText(key) });
      const most = this.mostOf(key, view.value);
      for (const [value] of most.slice(0, MOST_VALUES)) {
        group.append(onlyOption({ key, value }));
      }
      const left = most.length - MOST_VALUES;
      if (left > 0) {
        const text = `… and ${thousands(left)} more, which have less: group by it to see them`;
        group.append(element("option", { disabled: true }, text));
      }
      this.only.append(group);
    });
    [this.group, this.only].forEach((select) => {
      select.hidden = keys.length === 0;
    });
  }

  // The values of a label by what they have, the most first.
  mostOf(key, at) {
    const { profile } = this.app;
    const values = labelValues(profile, key);
    const { labels, values: columns } = profile.rows;
    const sums = new Map();
    labels.forEach((set, row) => {
      const value = values[set];
      if (value !== undefined) {
        sums.set(value, (sums.get(value) || 0) + Math.abs(columns[at][row]));
      }
    });
    return [...sums].sort((a, b) => b[1] - a[1]);
  }

  groupBy() {
    this.app.change({ group: JSON.parse(this.group.value) });
  }

  onlyWith() {
    const { value } = this.only;
    this.app.change({ only: value === "" ? null : JSON.parse(value) });
  }

  show() {
    const { view } = this.app;
    this.value.value = String(view.value);
    showOption(this.group, groupOption(view.group));
    showOption(this.only, view.only ? onlyOption(view.only) : { value: "" });
    this.toggles.forEach((toggle) => toggle.setAttribute("aria-pressed", String(toggle.isOn())));
    if (this.search.value !== view.search) {
      this.search.value = view.search;
    }
    this.showMatches();
    this.showChips();
    this.showFoot();
    this.showLegend();
  }

  showMatches() {
    const { app } = this;
    this.search.classList.toggle("bad", app.searchError !== null);
    this.matches.textContent = app.matchText();
  }

  showChips() {
    const { app } = this;
    const { view } = app;
    const chip = (text, parts) =>
      element(
        "button",
        { type: "button", class: "chip", title: "Take this back", onclick: () => app.change(parts) },
        `${printable(text).slice(0, 80)} ✕`,
      );
    const chips = view.hide.map((name) => chip(`without ${name}`, { hide: view.hide.filter((it) => it !== name) }));
    view.focus.forEach((name) => chips.push(chip(`only with ${name}`, { focus: [] })));
    if (view.callers !== null) {
      chips.push(chip(`callers and callees of ${view.callers}`, { callers: null }));
    }
    if (view.only) {
      chips.push(chip(`${view.only.key} = ${view.only.value}`, { only: null }));
    }
    if (view.time) {
      chips.push(chip(`from ${amount(view.time[0], "ns")} to ${amount(view.time[1], "ns")}`, { time: null }));
    }
    if (view.recursion) {
      chips.push(chip("recursion folded", { recursion: false }));
    }
    if (view.unresolved) {
      chips.push(chip("unresolved addresses folded", { unresolved: false }));
    }
    replaceChildren(this.chips, ...chips);
    this.chips.hidden = chips.length === 0;
  }

  // The frame that is pointed at, selected or zoomed on.
  showFoot() {
    const { app } = this;
    const at = app.hovered || app.selected || { panel: app.main, node: app.main.zoom };
    const { tree } = at.panel;
    if (at.node >= tree.length) {
      return;
    }
    const unit = app.type.unit === "count" ? app.type.name : app.type.unit;
    const name = printable(nameOf(app.profile, tree, at.node)).slice(0, 200);
    const changes = Changes.of(app.profile, tree);
    const total = tree.total[at.node];
    const share = () => `${amount(total, unit)}, ${percent(Math.abs(total), tree.width[0])} of all`;
    const change = () => `${changes.values(changes.total(at.node), unit)}, ${changes.share(changes.total(at.node))}`;
    this.status.textContent = `${name} — ${changes ? change() : share()}`;
  }

  showLegend() {
    replaceChildren(
      this.legend,
      ...this.app.colors.legend.map(({ name, color }) => {
        const square = element("i", { style: `background:${color}` });
        return element("span", { class: "entry" }, square, clipped(printable(name), 24));
      }),
    );
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
  }

  // A word in the line below, for a moment.
  say(text) {
    this.status.textContent = text;
    window.setTimeout(() => this.showFoot(), SAID_MS);
  }
}

// The options of menus: their values are what they stand for, as JSON, since keys and values may be any text.
function groupOption(keys) {
  const text = keys.length === 0 ? "no groups" : `by ${keys.map(labelText).join(", ")}`;
  return element("option", { value: JSON.stringify(keys) }, text);
}

function onlyOption({ key, value }) {
  return element("option", { value: JSON.stringify({ key, value }) }, printable(value).slice(0, 60));
}

// Shows an option as the one that is chosen, which a link may have even where the menu does not.
function showOption(menu, option) {
  menu.value = option.value;
  if (menu.value !== option.value) {
    menu.append(option);
    menu.value = option.value;
  }
}

const LABELS = { comm: "process", thread_comm: "thread", tid: "thread id", pid: "pid" };

function labelText(key) {
  return LABELS[key] || printable(key).slice(0, 60);
}
