// The table of functions: what is their own and all that they are on the stack for. Only the rows that can be seen
// are elements.

import { element, replaceChildren } from "./dom.js";
import { printable } from "./names.js";
import { amount, percent } from "./scale.js";
import { functions } from "./tree.js";

const LINE = 22;

// Rows with a value, sorted as asked for: by `own`, `total` or `name`.
export function tableRows(profile, tree, sort) {
  const { own, total } = functions(tree, profile.functionKeys(), profile.names.length);
  const rows = [];
  own.forEach((value, id) => {
    if (value !== 0 || total[id] !== 0) {
      rows.push({ id, name: profile.names[id], own: value, total: total[id] });
    }
  });
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
    this.all = tree.total[0];
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
    const cell = (kind, value) =>
      element(
        "span",
        { class: `value ${kind}` },
        element("span", { class: "amount" }, amount(value, this.unit)),
        element("span", { class: "share" }, percent(value, this.all)),
      );
    replaceChildren(
      this.lines,
      ...shown.map((row) =>
        element(
          "div",
          {
            class: "line",
            title: "Click: search. Double click: callers and callees",
            onclick: () => this.asked.select(row.name),
            ondblclick: () => this.asked.callers(row.name),
          },
          cell("own", row.own),
          cell("total", row.total),
          element("span", { class: "name" }, printable(row.name)),
        ),
      ),
    );
  }
}
