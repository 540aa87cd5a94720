// Colours of frames: by kind, as src/viewing/colors.rs has them, or by binary.

// How dark frames are for viewers who prefer a dark page; their text is white then. A test computes the contrast.
const DARK = 0.34;
const BINARIES = 10;
export const LEFT_OUT = [206, 206, 206];
export const MATCH = [255, 64, 200];

// FNV-1a of the UTF-8 bytes, folded to a byte; 64 bits in two halves.
export function hash(name) {
  let [low, high] = [0x84222325, 0xcbf29ce4];
  for (const byte of new TextEncoder().encode(name.slice(0, 4096))) {
    low = (low ^ byte) >>> 0;
    // Times 2^40 + 0x1b3.
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 0x100000000) + (low << 8)) >>> 0;
    low = product >>> 0;
  }
  return (low ^ high) & 255;
}

export function mixed(from, to, share) {
  return from.map((value, i) => Math.floor((value * (255 - share) + to[i] * share) / 255));
}

export function darkened(color) {
  return color.map((value) => Math.round(value * DARK));
}

export function css(color) {
  return `rgb(${color.join(",")})`;
}

// Relative luminance and contrast as WCAG 2 defines them.
export function contrast(one, other) {
  const light = (color) => {
    const [r, g, b] = color.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [light(one), light(other)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

// A light colour for a place on the colour wheel, in degrees.
export function ofHue(hue, strength = 0.62, lightness = 0.76) {
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    const a = strength * Math.min(lightness, 1 - lightness);
    return Math.round(255 * (lightness - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

// The colour of each frame, and the legend to it.
export function palette(profile, by, tree, isDark) {
  const suited = (color) => (isDark ? darkened(color) : color);
  return by === "binary" ? byBinary(profile, tree, suited) : byKind(profile, tree, suited);
}

function byKind({ frames, header }, tree, suited) {
  const colors = frames.name.map((name, frame) => {
    const kind = header.kinds[frames.kind[frame]];
    return css(suited(mixed(kind.from, kind.to, hash(name))));
  });
  const used = new Set();
  for (let node = 1; node < tree.length; node += 1) {
    used.add(frames.kind[tree.frame[node]]);
  }
  const legend = header.kinds
    .map((kind, i) => ({ name: kind.name, color: css(suited(kind.from)), isUsed: used.has(i) }))
    .filter((kind) => kind.isUsed);
  return { colors, legend };
}

function byBinary({ frames, header }, tree, suited) {
  const own = new Float64Array(header.binaries.length + 1);
  for (let node = 1; node < tree.length; node += 1) {
    own[frames.binary[tree.frame[node]]] += Math.abs(tree.own[node]);
  }
  const order = header.binaries.map((_, i) => i + 1).filter((i) => own[i] > 0);
  order.sort((a, b) => own[b] - own[a]);
  const hues = new Map(order.slice(0, BINARIES).map((binary, i) => [binary, (i * 137.5 + 40) % 360]));
  const colorOf = (binary, name) => {
    const shade = 0.78 + 0.07 * (hash(name) / 255);
    return hues.has(binary) ? ofHue(hues.get(binary), 0.7, shade) : binary === 0 ? [214, 214, 220] : [190, 190, 190];
  };
  const colors = frames.name.map((name, frame) => css(suited(colorOf(frames.binary[frame], name))));
  const legend = order.slice(0, BINARIES).map((binary) => ({
    name: header.binaries[binary - 1].slice(header.binaries[binary - 1].lastIndexOf("/") + 1),
    color: css(suited(colorOf(binary, ""))),
  }));
  if (order.length > BINARIES) {
    legend.push({ name: `${order.length - BINARIES} others`, color: css(suited([190, 190, 190])) });
  }
  return { colors, legend };
}
