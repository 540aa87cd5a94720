// Drawing: only what can be seen. What is narrower than a part of a pixel is not looked into: such frames become
// grey columns as high as the highest stack in them, so that what is there shows, and a zoom shows what it is.

export const ROW = 18;
const NARROW = 0.4;
const FONT = '12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, "Liberation Mono", monospace';

// What of a range lies within a node; null where that is nothing.
export function rangeWithin(tree, node, range) {
  if (range === null || tree.length === 0) {
    return null;
  }
  const from = Math.max(range[0], tree.start[node]);
  const to = Math.min(range[1], tree.start[node] + tree.width[node]);
  return from < to ? [from, to] : null;
}

// A panel is a tree that grows up or down from a line: `base` is the y of its root's far edge, `skip` the number of
// its first rows that are not drawn. `zoom` is the node that has the whole width, or of which a part has it: that
// `from` and `to`, in the tree's own measure.
export function panelOf(tree, zoom, range, more) {
  const [from, to] = range || [tree.start[zoom], tree.start[zoom] + tree.width[zoom]];
  return Object.assign({ tree, zoom, from, to }, more);
}

export function rowTop(panel, depth) {
  const row = depth - panel.skip;
  return panel.up ? panel.base - (row + 1) * ROW : panel.base + row * ROW;
}

// The node's left edge and width in pixels.
export function extent(panel, node, width) {
  const { tree, zoom } = panel;
  if (node < zoom && tree.end[node] >= tree.end[zoom]) {
    return [0, width];
  }
  const scale = width / (panel.to - panel.from);
  const left = Math.max(0, (tree.start[node] - panel.from) * scale);
  const right = Math.min(width, (tree.start[node] + tree.width[node] - panel.from) * scale);
  return [left, Math.max(0, right - left)];
}

// Calls `frame(node, x, width, depth)` for what is wide enough and `grey(x, width, depth, height)` for the rest,
// within the depths that can be seen.
export function visit(panel, width, from, to, frame, grey) {
  const { tree, zoom } = panel;
  if (tree.length === 0 || tree.width[0] === 0) {
    return;
  }
  const above = [];
  for (let node = zoom; node !== 0; node = tree.parent[node]) {
    above.push(tree.parent[node]);
  }
  above.reverse().forEach((node) => {
    if (tree.depth[node] >= from && tree.depth[node] <= to) {
      frame(node, 0, width, tree.depth[node]);
    }
  });
  const scale = width / (panel.to - panel.from);
  // The grey column that is being filled.
  let [run, runEnd, runDepth, runHeight] = [0, -1, 0, 0];
  const flush = () => {
    if (runEnd > run) {
      grey(run, runEnd - run, runDepth, runHeight);
    }
    runEnd = -1;
  };
  const last = tree.end[zoom];
  for (let node = zoom; node < last; ) {
    const depth = tree.depth[node];
    let x = (tree.start[node] - panel.from) * scale;
    let w = tree.width[node] * scale;
    if (depth > to || x + w <= 0 || x >= width) {
      node = tree.end[node];
      continue;
    }
    if (w >= NARROW) {
      w = Math.min(x + w, width) - Math.max(x, 0);
      x = Math.max(x, 0);
      if (depth >= from) {
        frame(node, x, w, depth);
      }
      node += 1;
      continue;
    }
    if (depth !== runDepth || x - runEnd > NARROW || x + w - run > 1) {
      flush();
      [run, runDepth, runHeight] = [x, depth, 0];
    }
    runEnd = x + w;
    runHeight = Math.max(runHeight, tree.height[node] + 1);
    node = tree.end[node];
  }
  flush();
}

// The node at a place, or -1.
export function nodeAt(panel, x, y, width) {
  const { tree, zoom } = panel;
  const row = Math.floor((panel.up ? panel.base - y : y - panel.base) / ROW);
  const depth = row + panel.skip;
  if (row < 0 || tree.length === 0 || tree.width[0] === 0 || x < 0 || x >= width) {
    return -1;
  }
  if (depth <= tree.depth[zoom]) {
    let node = zoom;
    while (tree.depth[node] > depth) {
      node = tree.parent[node];
    }
    return node;
  }
  const at = placeAt(panel, x, width);
  let node = zoom;
  while (tree.depth[node] < depth) {
    const child = childAt(tree, node, at);
    if (child < 0) {
      return -1;
    }
    node = child;
  }
  return node;
}

// What a place in pixels is in the tree's own measure.
export function placeAt(panel, x, width) {
  return panel.from + (x / width) * (panel.to - panel.from);
}

// A part of the picture that is `wide` around a place, and the lowest node that holds it.
export function zoomAround(panel, at, wide, node) {
  const { tree } = panel;
  const root = tree.width[0];
  const from = Math.max(0, Math.min(at - wide / 2, root - wide));
  const range = [from, Math.min(root, from + wide)];
  let zoom = node;
  while (zoom !== 0 && (tree.start[zoom] > range[0] || tree.start[zoom] + tree.width[zoom] < range[1])) {
    zoom = tree.parent[zoom];
  }
  return { zoom, range };
}

function childAt(tree, node, at) {
  for (let child = node + 1; child < tree.end[node]; child = tree.end[child]) {
    if (at >= tree.start[child] && at < tree.start[child] + tree.width[child]) {
      return child;
    }
  }
  return -1;
}

// Paints panels. `look` has the colours, the texts of frames and what is marked.
export function paint(context, panels, size, look) {
  const { width, height, scroll } = size;
  context.fillStyle = look.background;
  context.fillRect(0, 0, width, height);
  context.font = FONT;
  context.textBaseline = "middle";
  context.direction = "ltr";
  const letter = context.measureText("mmmmmmmmmm").width / 10;
  for (const panel of panels) {
    const shift = panel.skip * ROW;
    const [top, bottom] = panel.up
      ? [panel.base - scroll - height + shift, panel.base - scroll + shift]
      : [scroll - panel.base + shift, scroll + height - panel.base + shift];
    const from = Math.max(panel.skip, Math.floor(top / ROW) - 1);
    const to = Math.ceil(bottom / ROW) + 1;
    const texts = [];
    visit(
      panel,
      width,
      from,
      to,
      (node, x, w, depth) => {
        const y = rowTop(panel, depth) - scroll;
        const isAbove = depth < panel.tree.depth[panel.zoom];
        context.globalAlpha = isAbove ? 0.55 : 1;
        context.fillStyle = look.color(panel, node);
        context.fillRect(x, y, Math.max(w - (w > 3 ? 1 : 0.25 * w), 0.3), ROW - 1);
        context.globalAlpha = 1;
        if (w > 3.5 * letter) {
          texts.push([node, x, w, y]);
        }
      },
      (x, w, depth, tall) => {
        const y = rowTop(panel, panel.up ? depth + tall - 1 : depth) - scroll;
        context.fillStyle = look.grey;
        context.fillRect(x, y, Math.max(w, 0.5), tall * ROW - 1);
      },
    );
    for (const [node, x, w, y] of texts) {
      context.fillStyle = look.textColor(panel, node);
      context.fillText(look.text(panel, node, Math.floor((w - 7) / letter)), x + 4, y + ROW / 2);
    }
    for (const { node, color, dashed } of look.outlines(panel)) {
      const [x, w] = extent(panel, node, width);
      const y = rowTop(panel, panel.tree.depth[node]) - scroll;
      context.strokeStyle = color;
      context.lineWidth = 2;
      context.setLineDash(dashed ? [3, 2] : []);
      context.strokeRect(x + 1, y + 1, Math.max(Math.min(w, width - x) - 3, 1), ROW - 3);
    }
    context.setLineDash([]);
  }
}
