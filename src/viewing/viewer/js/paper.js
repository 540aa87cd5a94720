// On paper the whole view is one picture, as high as a page.

import { element } from "./dom.js";
import { ROW } from "./draw.js";

const WIDTH = 1500;
const MOST_ROWS = 60;

export function installPaper(app) {
  let paper = null;
  window.addEventListener("beforeprint", () => {
    paper = paperOf(app);
    app.scroller.classList.add("printed");
    app.scroller.append(paper);
  });
  window.addEventListener("afterprint", () => {
    app.scroller.classList.remove("printed");
    paper.remove();
  });
}

function paperOf(app) {
  const { main, colors } = app;
  const rows = Math.min(app.height, MOST_ROWS * ROW);
  const canvas = element("canvas", { class: "paper", width: 2 * WIDTH, height: 2 * rows });
  const context = canvas.getContext("2d");
  context.setTransform(2, 0, 0, 2, 0, 0);
  const isUp = app.panels.length === 1 && main.up;
  const { base } = main;
  if (isUp) {
    main.base = app.height;
  }
  app.colors = app.suitedColors(false);
  app.paintOn(context, { width: WIDTH, height: rows, scroll: isUp ? app.height - rows : 0 }, false);
  app.colors = colors;
  main.base = base;
  return canvas;
}
