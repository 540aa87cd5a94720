// The table of functions: what is their own and all that they are on the stack for. Only the rows that can be seen
// are elements.

import { Changes, isSure } from "./comparison.js";
import { element, replaceChildren } from "./dom.js";
import { printable } from "./names.js";
import { amount, percent } from "./scale.js";
import { functions } from "./tree.js";

const LINE = 22;

// Rows with a value, sorted as asked for: by `own`, `total` or `name`. In a comparison values are changes.
export function tableRows(profile, tree, sort) {
  const keys = profile.functionKeys();
  const { own, total } = functions(tree, keys, profile.names.length);
  const rows = [];
  own.forEach((value, id) => {
    if (value !== 0 || total[id] !== 0) {
      rows.push({ id, name: profile.names[id], own: value, total: total[id] });
    }
  });
  const changes = Changes.of(profile, tree);
  if (changes !== null) {
    const later = { own: tree.after, total: tree.afterTotal };
    const after = functions(tree, keys, profile.names.length, later);
    rows.forEach((row) => {
      row.changes = { own: changes.of(row.own, after.own[row.id]), total: changes.of(row.total, after.total[row.id]) };
      // Of each two are looked at.
      row.isSure = Object.values(row.changes).some((it) => isSure(it, 2 * rows.length));
      row.own = row.changes.own.change;
      row.total = row.changes.total.change;
    });
  }
  const byName = (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
  const byValue = (key) => (a, b) => Math.abs(b[key]) - Math.abs(a[key]) || byName(a, b);
  rows.sort(sort === "name" ? byName : byValue(sort));
  return rows;
}

export class Table {
  // `asked` is called with what the user wants: `sort`, `select`, `callers`.
  constructor(asked) {
    this.asked = asked;
    this.rows = [];
    this.body = element("div", { class: "rows", onscroll: () => this.draw(), tabIndex: 0 });
    this.spacer = element("div", { class: "spacer" });
    this.lines = element("div", { class: "lines" });
    this.body.append(this.spacer, this.lines);
    this.heads = {};
    const head = (key, text) => {
      this.heads[key] = element("button", { class: `head ${key}`, onclick: () => asked.sort(key) }, text);
      return this.heads[key];
    };
    this.box = element(
      "aside",
      { class: "table", hidden: true, "aria-label": "Functions" },
      element("div", { class: "line heads" }, head("own", "self"), head("total", "total"), head("name", "function")),
      this.body,
    );
  }

  show(profile, tree, view, type, isMatch) {
    this.unit = type.unit === "count" ? "" : type.unit;
    this.all = tree.width[0];
    this.changes = Changes.of(profile, tree);
    const found = isMatch ? new Set(profile.nameOf.filter((_, frame) => isMatch[frame])) : null;
    this.rows = tableRows(profile, tree, view.sort).filter((row) => !found || found.has(row.id));
    for (const [key, head] of Object.entries(this.heads)) {
      head.setAttribute("aria-pressed", String(key === view.sort));
    }
    this.spacer.style.height = `${this.rows.length * LINE}px`;
    this.box.dataset.rows = String(this.rows.length);
    this.draw();
  }

  draw() {
    const first = Math.floor(this.body.scrollTop / LINE);
    const shown = this.rows.slice(first, first + Math.ceil(this.body.clientHeight / LINE) + 1);
    this.lines.style.transform = `translateY(${first * LINE}px)`;
    const { changes } = this;
    const cell = (kind, row) => {
      const change = changes && row.changes[kind];
      return element(
        "span",
        { class: `value ${kind}`, title: change ? changes.values(change, this.unit) : "" },
        element("span", { class: "amount" }, change ? changes.share(change) : amount(row[kind], this.unit)),
        element("span", { class: "share" }, change ? changes.margin(change) : percent(Math.abs(row[kind]), this.all)),
      );
    };
    replaceChildren(
      this.lines,
      ...shown.map((row) =>
        element(
          "div",
          {
            class: changes && !row.isSure ? "line chance" : "line",
            title: "Click: search. Double click: callers and callees",
            onclick: () => this.asked.select(row.name),
            ondblclick: () => this.asked.callers(row.name),
          },
          cell("own", row),
          cell("total", row),
          element("span", { class: "name" }, printable(row.name)),
        ),
      ),
    );
  }
}
