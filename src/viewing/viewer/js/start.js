// Opens the viewer over the picture, where the browser can.

import { App } from "./app.js";
import { decode, unpack } from "./data.js";
import { element } from "./dom.js";
import { Profile } from "./shape.js";

const SVG = "http://www.w3.org/2000/svg";

// Where the viewer goes: over the whole window. In a page of SVG that is a foreign object in the picture's place.
function place(style) {
  const sheet = element("style", {}, style);
  if (document.documentElement.namespaceURI !== SVG) {
    document.body.textContent = "";
    document.body.append(sheet);
    return document.body;
  }
  const svg = document.documentElement;
  for (const child of svg.children) {
    if (child.tagName !== "script") {
      child.style.display = "none";
    }
  }
  svg.removeAttribute("viewBox");
  svg.setAttribute("width", "100%");
  svg.setAttribute("height", "100%");
  const foreign = document.createElementNS(SVG, "foreignObject");
  foreign.setAttribute("width", "100%");
  foreign.setAttribute("height", "100%");
  const body = element("div", { class: "page" }, sheet);
  foreign.append(body);
  svg.append(foreign);
  return body;
}

export async function start() {
  if (typeof DecompressionStream === "undefined") {
    // The picture stays.
    return;
  }
  const text = (id) => document.getElementById(id).textContent;
  const began = performance.now();
  const profile = new Profile(decode(await unpack(text("profile"))));
  const root = place(text("viewer-style"));
  document.title = profile.header.title;
  window.viewer = new App(profile, root);
  window.viewer.box.dataset.openedMs = String(Math.round(performance.now() - began));
}

start();
