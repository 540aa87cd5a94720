// Elements of HTML, in a page of HTML and in one of SVG alike.

const XHTML = "http://www.w3.org/1999/xhtml";

// An element with properties, listeners (`onclick`) and children. Text is set as text: names are never markup.
export function element(tag, properties, ...children) {
  const made = document.createElementNS(XHTML, tag);
  for (const [key, value] of Object.entries(properties || {})) {
    if (key.startsWith("on")) {
      made.addEventListener(key.slice(2), value);
    } else if (key === "class" || key === "for" || key.startsWith("aria-") || key === "role" || key === "style") {
      made.setAttribute(key, value);
    } else {
      made[key] = value;
    }
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function replaceChildren(parent, ...children) {
  parent.textContent = "";
  parent.append(...children.filter((child) => child !== null && child !== undefined));
}

// To the clipboard. Pages from a disk have no permission to, but may copy what is selected.
export function copy(text) {
  const area = element("textarea", { value: text, class: "offscreen" });
  document.querySelector(".viewer").append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  if (!isDone && navigator.clipboard) {
    navigator.clipboard.writeText(text).catch(() => {});
  }
}
