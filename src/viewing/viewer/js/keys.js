// The keyboard: everything that the mouse can do.

import { nameOf } from "./tooltip.js";

// The node that an arrow leads to from one that is selected.
export function step(panel, node, key) {
  const { tree } = panel;
  const outwards = panel.up ? "ArrowUp" : "ArrowDown";
  if (key === outwards) {
    return widestChild(tree, node);
  }
  if (key === "ArrowUp" || key === "ArrowDown") {
    return tree.parent[node];
  }
  if (node === 0) {
    return 0;
  }
  const parent = tree.parent[node];
  let before = node;
  for (let child = parent + 1; child < tree.end[parent]; child = tree.end[child]) {
    if (child === node) {
      const next = tree.end[node];
      return key === "ArrowLeft" ? before : next < tree.end[parent] ? next : node;
    }
    before = child;
  }
  return node;
}

function widestChild(tree, node) {
  let found = node;
  let widest = -1;
  for (let child = node + 1; child < tree.end[node]; child = tree.end[child]) {
    if (tree.width[child] > widest) {
      [found, widest] = [child, tree.width[child]];
    }
  }
  return found;
}

export function installKeys(app) {
  document.addEventListener("keydown", (event) => {
    const inSearch = event.target === app.controls.search;
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "f" && !inSearch) {
        event.preventDefault();
        app.controls.search.select();
      }
      return;
    }
    const act = inSearch ? searchKey(app, event) : pictureKey(app, event);
    if (act) {
      event.preventDefault();
      act();
    }
  });
}

function searchKey(app, event) {
  if (event.key === "Enter") {
    return () => app.goToMatch(event.shiftKey ? -1 : 1);
  }
  if (event.key === "Escape" || event.key === "ArrowDown" || event.key === "ArrowUp") {
    return () => {
      if (event.key === "Escape") {
        app.back();
      }
      app.canvas.focus({ preventScroll: true });
    };
  }
  return null;
}

function pictureKey(app, event) {
  const { view } = app;
  const at = app.hovered || app.selected;
  const named = at && at.node !== 0 ? nameOf(app.profile, at.panel.tree, at.node) : null;
  const isButton = ["BUTTON", "SELECT"].includes(event.target.tagName.toUpperCase());
  if (isButton && !["Escape", "/", "?"].includes(event.key)) {
    return null;
  }
  if (event.key.startsWith("Arrow")) {
    const from = app.selected || { panel: app.main, node: app.main.zoom };
    return () => {
      app.hovered = null;
      app.tooltip.hide();
      const node = step(from.panel, from.node, event.key);
      if (!app.isShown(from.panel, node)) {
        app.change({ zoom: node });
      }
      app.select({ panel: from.panel.isCallers ? from.panel : app.main, node }, true);
    };
  }
  const toggle = (key) => () => app.change({ [key]: !view[key] });
  const keys = {
    Escape: () => {
      app.controls.help.hidden = true;
      app.controls.menu.hidden = true;
      app.back();
    },
    "/": () => app.controls.search.select(),
    "?": () => app.controls.toggleHelp(),
    0: () => app.reset(),
    r: toggle("reverse"),
    i: toggle("flip"),
    t: toggle("table"),
    x: toggle("recursion"),
    u: toggle("unresolved"),
    b: () => app.change({ colors: view.colors === "binary" ? "kind" : "binary" }),
    n: () => app.goToMatch(1),
    N: () => app.goToMatch(-1),
  };
  const withFrame = {
    Enter: () => app.zoomTo(at),
    s: () => app.withFunction(at, () => app.showCallers(named)),
    h: () => app.hide(at),
    f: () => app.focus(at),
    c: () => app.copyName(at),
    C: () => app.copyStack(at),
  };
  if (Object.prototype.hasOwnProperty.call(withFrame, event.key)) {
    return named === null && event.key !== "Enter" ? null : at ? withFrame[event.key] : null;
  }
  return Object.prototype.hasOwnProperty.call(keys, event.key) ? keys[event.key] : null;
}
