// The mouse on the picture: pointing, zooming, hiding, the menu of a frame.

import { element, replaceChildren } from "./dom.js";
import { nameOf } from "./tooltip.js";

// By how much a step of the wheel zooms.
const WHEEL = 1.25;

export function installMouse(app) {
  const { canvas, tooltip } = app;
  const at = (event) => {
    const bounds = canvas.getBoundingClientRect();
    return app.frameAt(event.clientX - bounds.left, event.clientY - bounds.top);
  };
  canvas.addEventListener("mousemove", (event) => {
    app.hovered = at(event);
    canvas.style.cursor = app.hovered ? "pointer" : "default";
    if (app.hovered) {
      tooltip.show(app.profile, app.hovered.panel, app.hovered.node, app.type, event.clientX, event.clientY);
    } else {
      tooltip.hide();
    }
    app.controls.showFoot();
    app.draw();
  });
  canvas.addEventListener("mouseleave", () => {
    app.hovered = null;
    tooltip.hide();
    app.controls.showFoot();
    app.draw();
  });
  canvas.addEventListener("click", (event) => {
    const frame = at(event);
    app.controls.menu.hidden = true;
    tooltip.hide();
    if (!frame) {
      return;
    }
    if (event.altKey && frame.node !== 0) {
      app.hide(frame);
    } else {
      app.click(frame, event.clientX - canvas.getBoundingClientRect().left);
    }
  });
  // Ctrl and the wheel look closer where the mouse is, as on a map.
  canvas.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey) {
        return;
      }
      event.preventDefault();
      const x = event.clientX - canvas.getBoundingClientRect().left;
      const frame = at(event);
      const { from, to } = app.main;
      const wide = (to - from) * WHEEL ** Math.sign(event.deltaY);
      app.lookCloser(frame && frame.panel === app.main ? frame.node : app.main.zoom, x, wide);
    },
    { passive: false },
  );
  canvas.addEventListener("contextmenu", (event) => {
    const frame = at(event);
    if (frame && frame.node !== 0) {
      event.preventDefault();
      tooltip.hide();
      showMenu(app, frame, event.clientX, event.clientY);
    }
  });
  app.box.addEventListener("pointerdown", (event) => {
    if (!app.controls.menu.contains(event.target)) {
      app.controls.menu.hidden = true;
    }
  });
}

function showMenu(app, frame, x, y) {
  const { menu } = app.controls;
  const name = nameOf(app.profile, frame.panel.tree, frame.node);
  const item = (text, act) =>
    element(
      "button",
      {
        type: "button",
        role: "menuitem",
        onclick: () => {
          menu.hidden = true;
          act();
        },
      },
      text,
    );
  replaceChildren(
    menu,
    item("Zoom in", () => app.zoomTo(frame)),
    item("Callers and callees (s)", () => app.withFunction(frame, () => app.showCallers(name))),
    item("Only stacks with it (f)", () => app.focus(frame)),
    item("Without stacks with it (h)", () => app.hide(frame)),
    item("Search for it", () => app.searchFor(name)),
    item("Copy name (c)", () => app.copyName(frame)),
    item("Copy stack (C)", () => app.copyStack(frame)),
  );
  menu.hidden = false;
  menu.style.left = `${Math.min(x, window.innerWidth - menu.offsetWidth - 4)}px`;
  menu.style.top = `${Math.min(y, window.innerHeight - menu.offsetHeight - 4)}px`;
}
