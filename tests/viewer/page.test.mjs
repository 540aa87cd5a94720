// The viewer in a real browser, on files that the program wrote: each sentence that docs/viewer.md promises.
// PROFILER is the program; CHROMIUM may name the browser.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Browser } from "./chromium.mjs";
import { large, pprof } from "./pprof.mjs";

const PROFILER = process.env.PROFILER;
const SAMPLES = fileURLToPath(new URL("../../samples/", import.meta.url));
const DATA = fileURLToPath(new URL("../data/", import.meta.url));
const ALT = 1;
const SHIFT = 8;
const TYPES = [
  ["samples", "count"],
  ["cpu", "nanoseconds"],
];

const directory = mkdtempSync(join(tmpdir(), "profiler-viewer-"));
let browser;

before(async () => {
  browser = await Browser.open();
});

after(async () => {
  if (browser) {
    await browser.close();
  }
  rmSync(directory, { recursive: true, force: true });
});

// Draws a file, or rows, and opens the picture at a fragment.
async function open(input, { fragment = "", options = [], type = "svg" } = {}) {
  let file = input;
  if (typeof input !== "string") {
    file = join(directory, "made.pb.gz");
    writeFileSync(file, pprof(input, TYPES));
  }
  const output = join(directory, `flamegraph.${type}`);
  execFileSync(PROFILER, ["flamegraph", file, "-o", output, ...options], { stdio: "pipe" });
  await browser.go(`file://${output}${fragment}`);
}

const state = () => browser.run("Object.assign({}, document.querySelector('.viewer').dataset)");
const texts = (selector) => browser.run(`[...document.querySelectorAll(${JSON.stringify(selector)})].map(it => it.textContent)`);

// Where a frame is in the window: its middle and its width. `node` is an expression.
const PLACE = `(node, panel = viewer.main) => {
  const { tree, zoom } = panel;
  const width = viewer.size.width;
  const scale = width / (panel.to - panel.from);
  const isAbove = node < zoom && tree.end[node] >= tree.end[zoom];
  const left = isAbove ? 0 : Math.max(0, (tree.start[node] - panel.from) * scale);
  const right = isAbove ? width : Math.min(width, (tree.start[node] + tree.width[node] - panel.from) * scale);
  const row = tree.depth[node] - panel.skip;
  const y = (panel.up ? panel.base - (row + 1) * 18 : panel.base + row * 18) + 9;
  const bounds = viewer.canvas.getBoundingClientRect();
  return { x: bounds.left + (left + right) / 2, y: bounds.top + y - viewer.scroller.scrollTop, width: right - left, bottom: bounds.bottom, top: bounds.top };
}`;
const place = (node, panel = "viewer.main") => browser.run(`(${PLACE})(${node}, ${panel})`);
// The first node of a name, and how many there are.
const NODES = `(name, tree = viewer.main.tree) => {
  const found = [];
  for (let node = 1; node < tree.length; node += 1) {
    if (viewer.profile.frames.name[tree.frame[node]] === name) found.push(node);
  }
  return found;
}`;
const nodes = (name) => browser.run(`(${NODES})(${JSON.stringify(name)})`);
async function click(node, modifiers = 0) {
  const { x, y } = await place(node);
  await browser.click(x, y, modifiers);
}
async function search(text) {
  await browser.run("viewer.controls.search.focus(); viewer.controls.search.select(); 0");
  await browser.type(text);
  await browser.until("!viewer.searcher.isBusy");
}

const ROWS = [
  { stack: ["main", "json.(*Decoder).Decode", "read"], labels: { comm: "alpha", pid: 10 }, values: [30, 300e6] },
  { stack: ["main", "json.(*decoder).value"], labels: { comm: "alpha", pid: 10 }, values: [20, 500e6] },
  { stack: ["main", "jsonX(*Decoder)"], labels: { comm: "beta", pid: 20 }, values: [10, 100e6] },
  { stack: ["main", "eval", "eval", "eval", "read"], labels: { comm: "beta", pid: 20 }, values: [40, 400e6] },
];

test("a search highlights exactly the frames whose name contains the text", async () => {
  await open(ROWS);
  await browser.key("/");
  await browser.type("json.(*Decoder)");
  assert.equal((await state()).matches, "2");
  // What is drawn in the colour of matches is what matches.
  const pixels = async (name) => {
    const [node] = await nodes(name);
    const { x, y, top } = await place(node);
    const { width } = await place(0);
    return browser.run(`[...viewer.canvas.getContext("2d").getImageData(${Math.round(x)}, ${Math.round(y - top + 7)}, 1, 1).data].slice(0, 3).join() + (${width} > 0 ? "" : "")`);
  };
  const match = await pixels("json.(*Decoder).Decode");
  assert.equal(await pixels("json.(*decoder).value"), match);
  for (const other of ["jsonX(*Decoder)", "main", "read", "eval"]) {
    assert.notEqual(await pixels(other), match, other);
  }
  await search("/^json\\..*value$/");
  assert.equal((await state()).matches, "1");
  await search("/(/");
  assert.ok(await browser.run("viewer.controls.search.classList.contains('bad')"));
  await search("/(a)/");
  assert.ok(!(await browser.run("viewer.controls.search.classList.contains('bad')")));
});

test("Enter and Shift-Enter go from match to match, and the figures stay on screen", async () => {
  await open(ROWS);
  await search("eval");
  const figures = async () => (await texts(".matches"))[0];
  assert.equal(await figures(), "1 of 3 · 40.0 % of all");
  const found = [];
  for (let i = 0; i < 4; i += 1) {
    await browser.key("Enter");
    found.push(await browser.run("viewer.selected.node"));
  }
  const all = await nodes("eval");
  assert.deepEqual(found, [...all, all[0]]);
  await browser.key("Enter", SHIFT);
  assert.equal(await browser.run("viewer.selected.node"), all[2]);
  assert.equal(await figures(), "3 of 3 · 40.0 % of all");
  const [read] = await nodes("json.(*Decoder).Decode");
  await click(read);
  assert.equal(await figures(), "3 of 3 · 0.0 % of the zoom · 40.0 % of all");
  const { x, right, bottom } = await browser.run("document.querySelector('.matches').getBoundingClientRect().toJSON()");
  assert.ok(x > 0 && right < 1280 && bottom < 100);
});

test("root, search box and reset are visible on open, at any depth and layout", async () => {
  const deep = [{ stack: Array.from({ length: 900 }, (_, i) => `f${i}`), values: [7, 7] }];
  for (const rows of [ROWS, deep]) {
    for (const options of [[], ["--inverted"], ["--reverse"], ["--inverted", "--reverse"]]) {
      for (const type of ["svg", "html"]) {
        await open(rows, { options, type });
        const root = await place(0);
        assert.ok(root.y > root.top && root.y < root.bottom && root.width > 1200, `${options} ${JSON.stringify(root)}`);
        const seen = await browser.run(`[...document.querySelectorAll("input, .bar button")].map(it => {
          const { left, right, top, bottom } = it.getBoundingClientRect();
          const at = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
          return [it.placeholder || it.textContent, left >= 0 && right <= 1280 && top >= 0 && bottom <= 800 && at === it];
        })`);
        assert.ok(seen.length > 5 && seen.every(([, isSeen]) => isSeen), JSON.stringify(seen));
      }
    }
  }
});

test("every node of a large profile can be reached by clicking", async () => {
  await open(large(450000));
  const count = Number((await state()).nodes);
  assert.ok(count >= 425000, `${count} nodes`);
  const clicks = [];
  for (let i = 0; i < 12; i += 1) {
    const target = 1 + Math.floor(((i + 0.37) / 12) * (count - 1));
    await browser.key("Escape");
    await browser.key("0");
    let made = 0;
    while ((await browser.run("viewer.view.range === null ? viewer.main.zoom : -1")) !== target) {
      // As a user would: the highest caller that is not zoomed on yet and can be told from others, or what is near.
      const at = await browser.run(`(() => {
        const place = ${PLACE};
        const path = [];
        for (let node = ${target}; node !== 0; node = viewer.main.tree.parent[node]) path.unshift(node);
        const wide = path.filter((node) => place(node).width >= 3 && (node > viewer.main.zoom || viewer.view.range));
        const node = wide.length > 0 ? wide[wide.length - 1] : path.find((node) => node > viewer.main.zoom);
        const found = place(node);
        viewer.scroller.scrollTop += found.y < found.top + 9 ? found.y - found.top - 200 : found.y > found.bottom - 9 ? found.y - found.bottom + 200 : 0;
        return place(node);
      })()`);
      await browser.click(at.x, at.y);
      made += 1;
      assert.ok(made < 40, `node ${target} is not reached: ${JSON.stringify(at)} ${JSON.stringify(await state())}`);
    }
    clicks.push(made);
  }
  console.log(`MEASURED: clicks to nodes of ${count}: ${clicks.join(", ")}`);
  const ms = await browser.run("(() => { const began = performance.now(); viewer.showCallers(viewer.profile.names[0]); return performance.now() - began; })()");
  const opened = (await state()).openedMs;
  console.log(`MEASURED: ${count} nodes open in ${opened} ms, callers and callees of a function in ${Math.round(ms)} ms`);
  assert.ok(Number((await state()).total) > 0);
});

test("Alt-click removes all stacks with a function, Escape brings them back", async () => {
  await open(ROWS);
  const [node] = await nodes("eval");
  await click(node, ALT);
  let now = await state();
  assert.equal(now.total, "60");
  assert.deepEqual(await nodes("eval"), []);
  assert.match((await texts(".chip")).join(), /without eval/);
  const [decode] = await nodes("json.(*Decoder).Decode");
  const { x, y } = await place(decode);
  await browser.mouse("mouseMoved", x, y);
  assert.match((await texts(".status"))[0], /30 samples, 50.0 % of all/);
  await browser.mouse("mouseMoved", 5, 5);
  await browser.key("Escape");
  now = await state();
  assert.equal(now.total, "100");
  assert.equal((await nodes("eval")).length, 3);
});

test("callers stand above a function and callees below it", async () => {
  await open(ROWS);
  const [, , inner] = await nodes("eval");
  const { x, y } = await place(inner);
  await browser.mouse("mouseMoved", x, y);
  await browser.key("s");
  assert.equal(await browser.run("viewer.view.callers"), "eval");
  assert.equal((await state()).total, "40");
  const middle = await place(1);
  const callers = await browser.run(`(${NODES})("main", viewer.panels[0].tree)`);
  const callees = await nodes("read");
  const above = await place(callers[0], "viewer.panels[0]");
  const below = await place(callees[0]);
  assert.ok(above.y < middle.y && middle.y < below.y, JSON.stringify([above, middle, below]));
  await browser.key("Escape");
  assert.equal((await state()).total, "100");
});

test("r merges from the leaf and i flips", async () => {
  await open(ROWS);
  const rootBefore = await place(0);
  await browser.key("i");
  assert.ok((await place(0)).y < rootBefore.y);
  await browser.key("i");
  await browser.key("r");
  const depth = await browser.run(`viewer.main.tree.depth[(${NODES})("read")[0]]`);
  assert.equal(depth, 1);
  await browser.key("r");
  assert.equal(await browser.run(`viewer.main.tree.depth[(${NODES})("main")[0]]`), 2);
});

test("the tooltip has name, binary, source, self, total and shares in scaled units", async () => {
  const rows = ROWS.map((row) => ({ ...row, stack: row.stack.map((name) => ({ name, binary: "/usr/bin/tool", file: "src/tool.c", line: 42 })) }));
  await open(rows, { fragment: "#value=cpu" });
  const [decode] = await nodes("json.(*Decoder).Decode");
  const [main] = await nodes("main");
  await click(main);
  const { x, y } = await place(decode);
  await browser.mouse("mouseMoved", x, y);
  const lines = Object.fromEntries(await browser.run("[...document.querySelectorAll('.tooltip tr')].map(it => [...it.children].map(cell => cell.textContent))"));
  assert.equal((await texts(".tooltip .name"))[0], "json.(*Decoder).Decode");
  assert.deepEqual(lines, {
    kind: "user",
    binary: "/usr/bin/tool",
    source: "src/tool.c:42",
    total: "300.000 ms",
    self: "0 ns",
    "of all": "23.1 %",
    "of the zoom": "37.5 %",
    "of its caller": "37.5 %",
  });
});

test("a menu switches between all values of the file", async () => {
  await open(ROWS);
  const values = await browser.run("[...viewer.controls.value.options].map(it => it.textContent)");
  assert.deepEqual(values, ["samples", "cpu"]);
  await choose("value", "1");
  assert.equal((await state()).total, "1300000000");
  const server = `${SAMPLES}server.pb.gz`;
  await open(server);
  const shown = await browser.run("viewer.profile.header.types.map(type => type.name)");
  for (const [i, name] of shown.entries()) {
    await choose("value", String(i));
    const folded = execFileSync(PROFILER, ["folded", server, "--sample-index", name, "--tagroot", ""], { encoding: "utf8", stdio: "pipe" });
    const total = folded.trim().split("\n").reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
    assert.equal((await state()).total, String(total), name);
  }
});

async function choose(control, value) {
  await browser.run(`(() => { const it = viewer.controls.${control}; it.value = ${JSON.stringify(value)}; it.dispatchEvent(new Event("change")); })()`);
}

test("menus root the graph by a label and filter by its value", async () => {
  await open(ROWS);
  const roots = () => browser.run(`(() => { const { tree } = viewer.main; const names = []; for (let node = 1; node < tree.length; node = tree.end[node]) names.push(viewer.profile.frames.name[tree.frame[node]]); return names; })()`);
  assert.deepEqual(await roots(), ["alpha", "beta"]);
  await choose("group", '["pid"]');
  assert.deepEqual(await roots(), ["10", "20"]);
  await choose("group", "[]");
  assert.deepEqual(await roots(), ["main"]);
  await choose("only", JSON.stringify({ key: "pid", value: "20" }));
  assert.equal((await state()).total, "50");
  assert.deepEqual(await nodes("json.(*Decoder).Decode"), []);
});

test("a process at the root can be chosen, and is no function to be hidden", async () => {
  await open(ROWS);
  const [alpha] = await nodes("alpha");
  await click(alpha, ALT);
  assert.deepEqual([(await state()).total, await texts(".chip")], ["100", []]);
  const point = async (node) => {
    const { x, y } = await place(node);
    await browser.mouse("mouseMoved", x, y);
  };
  await point(alpha);
  await browser.key("s");
  assert.equal((await state()).total, "100");
  await browser.key("f");
  assert.equal((await state()).total, "50");
  assert.match((await texts(".chip")).join(), /comm = alpha/);
  await browser.key("Escape");
  await browser.key("r");
  const turned = await nodes("beta");
  await point(turned[0]);
  await browser.key("f");
  assert.equal((await state()).total, "50");
  assert.match((await texts(".chip")).join(), /comm = beta/);
});

test("menus take labels of any text, and say what they do not hold", async () => {
  const rows = Array.from({ length: 260 }, (_, i) => ({ stack: ["main"], labels: { "k=v": `value\n${i}` }, values: [1000 - i, 1] }));
  await open(rows);
  const shown = (control) => browser.run(`viewer.controls.${control}.selectedOptions[0].textContent`);
  await choose("only", JSON.stringify({ key: "k=v", value: "value\n7" }));
  assert.equal((await state()).total, "993");
  await browser.go(await browser.run("location.href"));
  assert.equal((await state()).total, "993");
  assert.match(await shown("only"), /^value.7$/);
  assert.match(await browser.run("viewer.controls.only.textContent"), /… and 60 more, which have less/);
  // One that the menu does not hold.
  await open(rows, { fragment: `#${new URLSearchParams({ only: "k%3Dv=value\n259", group: "k=v" })}` });
  assert.equal((await state()).total, "741");
  assert.match(await shown("only"), /^value.259$/);
  assert.equal(await shown("group"), "by k=v");
});

test("a link of another recording shows a picture", async () => {
  for (const fragment of ["#range=1000-2000", "#range=0-Infinity", "#zoom=999", "#time=1-2", "#group=nosuch", "#zoom=2&range=99-100"]) {
    await open(ROWS, { fragment });
    assert.deepEqual([(await state()).total, await texts(".chip")], ["100", []], fragment);
    assert.equal(await browser.run("viewer.main.to - viewer.main.from === viewer.main.tree.width[viewer.main.zoom]"), true, fragment);
    assert.notEqual(await browser.run("viewer.controls.group.selectedIndex"), -1, fragment);
  }
});

test("a search that comes to no end is given up, and the page goes on", async () => {
  const long = "x".repeat(60);
  await open([...ROWS, { stack: [long, "/(/"], labels: { comm: "beta", pid: 20 }, values: [5, 5] }]);
  await browser.run("viewer.change({ search: '/(x+x+)+y/' }); 0");
  assert.match((await texts(".matches")).join(), /searching/);
  await browser.key("t");
  assert.equal(await browser.run("document.querySelector('.table').hidden"), false);
  await browser.until("viewer.controls.search.classList.contains('bad')");
  assert.match((await texts(".matches")).join(), /given up after 2 s/);
  // Another one ends the last, and finds what there is.
  await browser.run("viewer.change({ search: '/(x+x+)+y/i' }); viewer.change({ search: '/^JSON.*E$/' }); 0");
  await browser.until("!viewer.searcher.isBusy");
  assert.equal((await state()).matches, "2");
  assert.ok(!(await browser.run("viewer.controls.search.classList.contains('bad')")));
  // A click in the table means the name as it stands.
  await browser.run("viewer.change({ search: '' }); [...document.querySelectorAll('.table .line .name')].find(it => it.textContent === '/(/').click(); 0");
  await browser.until("!viewer.searcher.isBusy");
  assert.equal((await state()).matches, "1");
  assert.deepEqual(browser.errors, []);
});

test("c copies the name and C the stack as folded text", async () => {
  await open(ROWS, { type: "html" });
  await browser.run("document.execCommand = () => { window.copied = document.querySelector('textarea').value; return true; }; 0");
  const [node] = await nodes("json.(*Decoder).Decode");
  const { x, y } = await place(node);
  await browser.mouse("mouseMoved", x, y);
  await browser.key("c");
  assert.equal(await browser.run("window.copied"), "json.(*Decoder).Decode");
  await browser.key("C");
  assert.equal(await browser.run("window.copied"), "alpha;main;json.(*Decoder).Decode 30");
});

// What `go tool pprof -top` prints: name, flat and cum.
function goTop(file, index, unit) {
  const all = ["-nodecount=100000", "-nodefraction=0", "-edgefraction=0", "-symbolize=none"];
  const options = ["tool", "pprof", "-top", ...all, `-unit=${unit}`, `-sample_index=${index}`, file];
  const output = execFileSync("go", options, { encoding: "utf8", stdio: "pipe", env: { ...process.env, HOME: directory } });
  const rows = new Map();
  for (const line of output.split("\n")) {
    const found = /^\s*(-?[\d.]+)\S*\s+[\d.]+%\s+[\d.]+%\s+(-?[\d.]+)\S*\s+[\d.]+%\s+(.+)$/.exec(line);
    if (found) {
      rows.set(found[3].replace(/ \(inline\)$/, "").replace(/ \(partial-inline\)$/, ""), [Number(found[1]), Number(found[2])]);
    }
  }
  return rows;
}

test("the table is that of go tool pprof -top", async () => {
  let hasGo = true;
  try {
    execFileSync("go", ["version"], { stdio: "pipe" });
  } catch {
    hasGo = false;
    console.log("SKIP: the table is that of go tool pprof -top: go is not installed");
  }
  for (const file of hasGo ? [`${SAMPLES}server.pb.gz`, `${SAMPLES}shares.pb.gz`, `${DATA}cpu.pb.gz`, `${DATA}heap.pb.gz`] : []) {
    await open(file, { fragment: "#table=1" });
    const types = await browser.run("viewer.profile.header.types.map(type => [type.name, type.unit])");
    for (const [i, [name, unit]] of types.entries()) {
      if (name === "wall") {
        continue;
      }
      await choose("value", String(i));
      const rows = await browser.run("viewer.table.rows.map(row => [row.name, row.own, row.total])");
      const go = goTop(file, name, unit);
      let compared = 0;
      for (const [function_, own, total] of rows) {
        // Addresses are called otherwise there, and markers that are recorded with off-CPU time are frames too.
        const theirs = go.get(function_);
        if (theirs) {
          compared += 1;
          assert.ok(close(own, theirs[0]) && close(total, theirs[1]), `${file} ${name} ${function_}: ${own} ${total}, go ${theirs}`);
        }
      }
      assert.ok(compared >= Math.min(rows.length, 10) * 0.8, `${file} ${name}: ${compared} of ${rows.length} functions compared`);
    }
  }
  await open(ROWS, { fragment: "#table=1" });
  const column = async () => (await texts(".table .lines .name")).slice(0, 3);
  assert.deepEqual(await column(), ["read", "json.(*decoder).value", "jsonX(*Decoder)"]);
  const head = await browser.run("document.querySelector('.head.total').getBoundingClientRect().toJSON()");
  await browser.click((head.left + head.right) / 2, (head.top + head.bottom) / 2);
  assert.deepEqual(await column(), ["main", "read", "eval"]);
});

// Values in their own unit are printed with two digits behind the point.
function close(ours, theirs) {
  return Math.abs(ours - theirs) <= 0.51;
}

test("direct recursion folds on x, unresolved addresses on u", async () => {
  const rows = [...ROWS, { stack: ["main", { name: "libx.so+0x10 [stripped binary]", binary: "/lib/libx.so" }, { name: "libx.so+0x20 [stripped binary]", binary: "/lib/libx.so" }], values: [5, 5] }];
  await open(rows);
  assert.equal((await nodes("eval")).length, 3);
  await browser.key("x");
  assert.equal((await nodes("eval")).length, 1);
  assert.equal((await state()).total, "105");
  await browser.key("u");
  assert.equal((await nodes("[unresolved in libx.so]")).length, 1);
  await browser.key("u");
  await browser.key("x");
  assert.equal((await nodes("eval")).length, 3);
});

test("dark is what the viewer prefers, and all text has a contrast above 7", async () => {
  await open(ROWS);
  for (const isDark of [false, true]) {
    await browser.dark(isDark);
    await browser.key("?");
    const pairs = await browser.run(`[...document.querySelectorAll(".bar *, .foot *, .help *")].filter(it => it.textContent.trim() !== "" || it.value).map(it => {
      let back = it;
      while (getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") back = back.parentElement;
      return [it.className || it.tagName, getComputedStyle(it).color, getComputedStyle(back).backgroundColor];
    })`);
    assert.ok(pairs.length > 20);
    for (const [what, front, back] of pairs) {
      const found = contrast(front, back);
      assert.ok(found > 7, `${what} has ${front} on ${back}: ${found}`);
    }
    // The picture follows when the browser tells of the change.
    await browser.until(`(viewer.canvas.getContext("2d").getImageData(1, 1, 1, 1).data[0] < 100) === ${isDark}`);
    await browser.key("Escape");
  }
  await browser.dark(false);
});

// As WCAG 2 defines it, of two colours as `rgb(…)`.
function contrast(...colors) {
  const [a, b] = colors.map((color) => {
    const [r, g, bl] = color.match(/\d+/g).map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * bl;
  });
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

test("b colours by binary, with a legend of the ten largest", async () => {
  const rows = Array.from({ length: 14 }, (_, i) => ({ stack: [{ name: `f${i}`, binary: `/usr/lib/lib${i}.so` }], values: [100 - i, 1] }));
  await open(rows);
  await browser.key("b");
  const legend = await texts(".legend .entry");
  assert.deepEqual(legend, [...Array.from({ length: 10 }, (_, i) => `lib${i}.so`), "4 others"]);
  const colors = await browser.run("[...document.querySelectorAll('.legend i')].map(it => getComputedStyle(it).backgroundColor)");
  assert.equal(new Set(colors).size, 11);
});

test("no mouse is needed", async () => {
  await open(ROWS);
  // From the root over its process and main to the widest callee.
  await browser.key("ArrowUp");
  await browser.key("ArrowUp");
  await browser.key("ArrowUp");
  const widest = (await state()).selected;
  assert.equal(widest, "json.(*Decoder).Decode");
  await browser.key("ArrowRight");
  assert.equal((await state()).selected, "json.(*decoder).value");
  await browser.key("ArrowLeft");
  await browser.key("Enter");
  assert.equal((await state()).zoom, "json.(*Decoder).Decode");
  await browser.key("Escape");
  assert.equal((await state()).zoom, "all");
  await browser.key("t");
  assert.equal(await browser.run("document.querySelector('.table').hidden"), false);
});

test("zoom, search, value and layout live in the address", async () => {
  await open(ROWS);
  await choose("value", "1");
  await browser.key("i");
  const [node] = await nodes("json.(*Decoder).Decode");
  await click(node);
  await search("read");
  const url = await browser.run("location.href");
  const before_ = await state();
  await browser.go(url);
  const now = await state();
  delete before_.openedMs;
  delete now.openedMs;
  delete before_.selected;
  delete now.selected;
  assert.deepEqual(now, before_);
  assert.deepEqual([now.zoom, now.value, now.matches], ["json.(*Decoder).Decode", "cpu", "2"]);
});

test("dragging over the strip of time restricts all to that range", async () => {
  await open(ROWS);
  assert.ok(await browser.run("document.querySelector('.strip').hidden"));
  const at = (ms) => ({ comm: "alpha", timeline: [ms * 1e6, "nanoseconds"] });
  await open([
    { stack: ["main", "early"], labels: at(0), values: [10, 1] },
    { stack: ["main", "middle"], labels: at(100), values: [20, 1] },
    { stack: ["main", "middle"], labels: at(200), values: [30, 1] },
    { stack: ["main", "late"], labels: at(300), values: [40, 1] },
  ]);
  const { left, width, top } = await browser.run("document.querySelector('.strip canvas').getBoundingClientRect().toJSON()");
  const drag = async (from, to) => {
    const y = top + 20;
    await browser.mouse("mousePressed", left + from * width, y, { button: "left", clickCount: 1 });
    await browser.mouse("mouseMoved", left + to * width, y, { button: "left" });
    await browser.mouse("mouseReleased", left + to * width, y, { button: "left", clickCount: 1 });
  };
  await drag(0.26, 0.74);
  assert.equal((await state()).total, "50");
  assert.deepEqual([(await nodes("early")).length, (await nodes("middle")).length], [0, 1]);
  assert.match((await texts(".chip")).join(), /from 100.000 ms to 300.000 ms/);
  await browser.key("Escape");
  assert.equal((await state()).total, "100");
});

test("the strip of time is by CPU, by thread, or a heat map of seconds", async () => {
  const at = (ms, cpu, thread) => ({ comm: "alpha", thread_comm: thread, cpu: String(cpu), timeline: [ms * 1e6, "nanoseconds"] });
  await open([
    { stack: ["main", "zero"], labels: at(0, 0, "worker"), values: [10, 1] },
    { stack: ["main", "one"], labels: at(500, 1, "helper"), values: [20, 1] },
    { stack: ["main", "one"], labels: at(1500, 1, "worker"), values: [30, 1] },
    { stack: ["main", "two"], labels: at(2000, 0, "worker"), values: [40, 1] },
  ]);
  const strip = () => browser.run("document.querySelector('.strip').dataset.lanes");
  const show = (key) => browser.run(`{ const by = document.querySelector('.strip select'); by.value = ${JSON.stringify(key)}; by.dispatchEvent(new Event("change")); } 0`);
  assert.equal(await strip(), "0,1");
  await show("thread_comm");
  assert.equal(await strip(), "worker,helper");
  await show("heat map");
  assert.equal(await strip(), "heat map");
  // Of three seconds of two halves: the upper cell of the first, then from it to the lower one of the third.
  // What is chosen has a line above the strip, which moves it.
  const cell = async (x, y) => {
    const { left, width, top, height } = await browser.run("document.querySelector('.strip canvas').getBoundingClientRect().toJSON()");
    return [left + x * width, top + y * height];
  };
  await browser.click(...(await cell(1 / 6, 1 / 4)));
  assert.equal((await state()).total, "20");
  await browser.mouse("mousePressed", ...(await cell(1 / 6, 1 / 4)), { button: "left", clickCount: 1 });
  await browser.mouse("mouseReleased", ...(await cell(5 / 6, 3 / 4)), { button: "left", clickCount: 1 });
  assert.equal((await state()).total, "90");
  assert.match((await texts(".chip")).join(), /from 500.000 ms to 2.50 s/);
  // Without a mouse: from step to step, and the link has it.
  await browser.run("document.querySelector('.strip canvas').focus(); viewer.change({ time: null, lanes: '' }); 0");
  await browser.key("ArrowRight");
  assert.equal((await state()).total, "10");
  await browser.key("ArrowRight", SHIFT);
  assert.equal((await state()).total, "30");
  await browser.key("ArrowRight");
  assert.equal((await state()).total, "20");
  assert.match((await state()).view, /lanes=&.*time=500000000-1500000000/);
});

// Two profiles, of which the later one has twice as many samples: what is compared are shares.
async function compare(options = []) {
  const rows = (values) => Object.entries(values).map(([name, value]) => ({ stack: ["main", name], labels: { comm: "app" }, values: [value] }));
  const files = [
    { f: 700, g: 250, gone: 50, same: 1000 },
    { f: 600, g: 1300, new: 100, same: 2000 },
  ].map((values, i) => {
    const file = join(directory, `compared${i}.pb.gz`);
    writeFileSync(file, pprof(rows(values)));
    return file;
  });
  const output = join(directory, "diff.svg");
  execFileSync(PROFILER, ["diff", ...files, "-o", output, ...options], { stdio: "pipe" });
  await browser.go(`file://${output}`);
}

test("a comparison shows what grew, what shrank, what vanished and what is new, with both values", async () => {
  const told = async (name) => {
    const [node] = await nodes(name);
    const { x, y, top } = await place(node);
    await browser.mouse("mouseMoved", x, y);
    const tooltip = (await texts(".tooltip td")).join("; ");
    // Beside the outline of what is pointed at, and without its text.
    const at = `${Math.round(x + 1)}, ${Math.round(y - top - 5)}`;
    const color = await browser.run(`[...viewer.canvas.getContext("2d").getImageData(${at}, 1, 1).data].slice(0, 3)`);
    return { tooltip, color };
  };
  await compare();
  assert.equal((await state()).total, "8000");
  const [f, g, gone, fresh, same] = [await told("f"), await told("g"), await told("gone"), await told("new"), await told("same")];
  assert.match(f.tooltip, /700 samples \(35\.0 %\) → 600 samples \(15\.0 %\); -20\.0 % ± \d/);
  assert.match(g.tooltip, /250 samples \(12\.5 %\) → 1,300 samples \(32\.5 %\); \+20\.0 %/);
  assert.match(gone.tooltip, /50 samples \(2\.50 %\) → 0 samples \(0\.0 %\)|50 samples \(2\.50 %\) → 0 samples/);
  assert.match(fresh.tooltip, /0 samples .* → 100 samples \(2\.50 %\)/);
  assert.match(same.tooltip, /may be chance/);
  assert.ok(![f, g, gone, fresh].some(({ tooltip }) => tooltip.includes("may be chance")));
  for (const more of [g, fresh]) {
    assert.ok(more.color[0] > more.color[2] + 40, `${more.color}`);
  }
  for (const less of [f, gone]) {
    assert.ok(less.color[2] > less.color[0] + 40, `${less.color}`);
  }
  assert.ok(Math.max(...same.color) - Math.min(...same.color) < 10, `${same.color}`);
  assert.deepEqual(await texts(".legend .entry"), ["more than before", "less", "may be chance"]);
  // As the table of the program has it, by the size of the change of their own; what may be chance is grey.
  await browser.key("t");
  const rows = await browser.run(`[...document.querySelectorAll(".table .lines .line")].map((line) => [line.querySelector(".name").textContent, line.querySelector(".own .amount").textContent, line.classList.contains("chance")])`);
  assert.deepEqual(
    rows.map(([name]) => name).sort(),
    ["f", "g", "gone", "main", "new", "same"],
  );
  assert.deepEqual(rows.find(([name]) => name === "f"), ["f", "-20.0 %", false]);
  assert.deepEqual(rows.find(([name]) => name === "new"), ["new", "+2.50 %", false]);
  assert.deepEqual(rows.find(([name]) => name === "same"), ["same", "0.0 %", true]);
  assert.deepEqual(rows.slice(0, 2).map(([name]) => name), ["f", "g"]);
  // The same from the leaf, among callers, and by process.
  for (const fragment of ["reverse=1", "callers=f", "group=", "recursion=1"]) {
    await browser.run(`location.hash = ${JSON.stringify(fragment)}; 0`);
    await browser.until(`viewer.view.${fragment.split("=")[0]} !== false`);
    assert.match((await told("f")).tooltip, /700 samples .* → 600 samples .*; -20\.0 %/, fragment);
  }
});

test("a comparison of many small counts is exact", async () => {
  // 100 stacks of one sample each before, and 140 samples after: each has the same share.
  const rows = (value) => Array.from({ length: 100 }, (_, i) => ({ stack: ["main", `f${i}`], labels: { comm: "app" }, values: [i % 5 < 2 && value > 1 ? 2 : 1] }));
  const files = [1, 2].map((value) => {
    const file = join(directory, `small${value}.pb.gz`);
    writeFileSync(file, pprof(rows(value)));
    return file;
  });
  const output = join(directory, "small.svg");
  execFileSync(PROFILER, ["diff", ...files, "-o", output], { stdio: "pipe" });
  await browser.go(`file://${output}`);
  assert.equal(Math.round((await state()).total), 280);
  assert.match((await texts(".status")).join(), /100 samples \(100\.0 %\) → 140 samples \(100\.0 %\), 0\.0 %/);
});

test("a comparison of values as they are, and each of the two by itself", async () => {
  await compare(["--absolute"]);
  assert.equal((await state()).total, "6000");
  const show = (i) => browser.run(`viewer.change({ value: ${i} }); 0`);
  await show(1);
  assert.deepEqual([(await state()).value, (await state()).total], ["before", "2000"]);
  assert.equal((await nodes("new")).length, 0);
  await show(2);
  assert.deepEqual([(await state()).value, (await state()).total], ["after", "4000"]);
});

test("print is one page of the current view", async () => {
  for (const rows of [ROWS, [{ stack: Array.from({ length: 500 }, (_, i) => `f${i}`), values: [7, 7] }]]) {
    for (const type of ["svg", "html"]) {
      await open(rows, { type });
      const pdf = (await browser.pdf()).toString("latin1");
      const pages = [...pdf.matchAll(/\/Type\s*\/Page\b(?!s)/g)].length;
      assert.equal(pages, 1, `${type}: ${pages} pages`);
    }
  }
});

test("names are harmless", async () => {
  const names = ["</script><script>window.hacked = 1</script>", "]]><script>window.hacked = 1</script>", "<img src=x onerror='window.hacked = 1'>", "\u202egnp.exe\u202c", "a\u0001b\u001bc", "שלום عالم", "& < > \" '", "x".repeat(10e6)];
  const rows = names.map((name) => ({ stack: [name, "leaf"], labels: { comm: name.slice(0, 300) }, values: [10, 10] }));
  for (const type of ["svg", "html"]) {
    await open(rows, { type });
    assert.equal((await state()).total, "80");
    for (const node of await browser.run("Array.from({ length: viewer.main.tree.length - 1 }, (_, i) => i + 1)")) {
      const { x, y } = await place(node);
      await browser.mouse("mouseMoved", x, y);
    }
    await browser.key("t");
    await browser.key("b");
    assert.equal(await browser.run("window.hacked"), undefined);
    assert.deepEqual(browser.errors, []);
    assert.equal(await browser.run("document.documentElement.scrollWidth <= 1280"), true);
  }
});

test("as an image it is the picture, and no script runs", async () => {
  const output = join(directory, "image.svg");
  writeFileSync(join(directory, "made.pb.gz"), pprof(ROWS, TYPES));
  execFileSync(PROFILER, ["flamegraph", join(directory, "made.pb.gz"), "-o", output], { stdio: "pipe" });
  const page = join(directory, "page.html");
  writeFileSync(page, `<!DOCTYPE html><img src="image.svg" width="1200">`);
  await browser.go(`file://${page}`, "document.images[0].complete");
  const { width, height } = await browser.run("({ width: document.images[0].naturalWidth, height: document.images[0].naturalHeight })");
  assert.ok(width === 1200 && height > 100 && height < 600, `${width}x${height}`);
  assert.ok(readFileSync(output, "utf8").startsWith("<?xml"));
});
