// The viewer's modules, each by itself, in node.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { contrast, darkened, hash, mixed, ofHue } from "../../src/viewing/viewer/js/colors.js";
import { decode } from "../../src/viewing/viewer/js/data.js";
import { ROW, nodeAt, panelOf, rangeWithin, visit } from "../../src/viewing/viewer/js/draw.js";
import { step } from "../../src/viewing/viewer/js/keys.js";
import { changeOf, isSure, quantile } from "../../src/viewing/viewer/js/comparison.js";
import { hasHeat, heat, lanes, steps } from "../../src/viewing/viewer/js/moments.js";
import { clipped, escapeFolded, printable } from "../../src/viewing/viewer/js/names.js";
import { PrefixTree } from "../../src/viewing/viewer/js/prefix.js";
import { amount, percent } from "../../src/viewing/viewer/js/scale.js";
import { Searcher, literally, matcher, matches, matchingFrames } from "../../src/viewing/viewer/js/search.js";
import { Profile, labelAt, shape } from "../../src/viewing/viewer/js/shape.js";
import { tableRows } from "../../src/viewing/viewer/js/table.js";
import { details } from "../../src/viewing/viewer/js/tooltip.js";
import { firstView, fromFragment, toFragment, valueName } from "../../src/viewing/viewer/js/view.js";
import { made } from "./made.mjs";

const ROWS = [
  { stack: ["main", "parse", "read"], labels: { comm: "a", pid: "1" }, values: [5] },
  { stack: ["main", "parse"], labels: { comm: "a", pid: "1" }, values: [2] },
  { stack: ["main", "eval", "eval", "read"], labels: { comm: "b", pid: "2" }, values: [3] },
  { stack: ["idle"], labels: { comm: "b", pid: "2" }, values: [1] },
];

function profileOf(rows = ROWS, header = {}) {
  return new Profile(decode(made(rows, header)));
}

function viewOf(profile, parts = {}) {
  return Object.assign(firstView(profile.header), parts);
}

// Paths and totals of a tree, in its order.
function paths(profile, tree) {
  const found = {};
  for (let node = 1; node < tree.length; node += 1) {
    const names = [];
    for (let at = node; at !== 0; at = tree.parent[at]) {
      names.unshift(profile.frames.name[tree.frame[at]]);
    }
    found[names.join(";")] = tree.total[node];
  }
  return found;
}

function drawn(parts, rows = ROWS) {
  const profile = profileOf(rows);
  return paths(profile, shape(profile, viewOf(profile, parts)).main);
}

test("a prefix tree has each beginning once", () => {
  const tree = new PrefixTree();
  const insert = (elements) => elements.reduce((node, element) => tree.child(node, element), 0);
  const known = new Map([["", 0]]);
  let state = 7;
  for (let i = 0; i < 20000; i += 1) {
    const elements = [];
    for (let k = 0; k < i % 9; k += 1) {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      elements.push((state >>> 16) % 7);
    }
    const node = insert(elements);
    const key = elements.join();
    assert.equal(known.get(key) === undefined ? node : known.get(key), node, key);
    elements.forEach((_, k) => known.set(elements.slice(0, k + 1).join(), insert(elements.slice(0, k + 1))));
  }
  assert.equal(tree.length, known.size);
});

test("the file is read as it was written", () => {
  const rows = [
    { stack: [{ name: "a", kind: "kernel", binary: "/lib/x", file: "x.c", line: 300 }], values: [2 ** 40, -1] },
    { stack: ["b", "c"], values: [0, 129] },
  ];
  const types = [{ name: "x", unit: "bytes" }, { name: "y", unit: "count" }];
  const { frames, tree, rows: read, header } = decode(made(rows, { types }));
  assert.deepEqual(frames.name, ["a", "b", "c"]);
  assert.deepEqual([...frames.firstLine], [300, 0, 0]);
  assert.equal(header.binaries[frames.binary[0] - 1], "/lib/x");
  assert.deepEqual([...tree.parent], [0, 0, 0, 2]);
  assert.deepEqual(read.values.map((column) => [...column]), [[2 ** 40, 0], [-1, 129]]);
});

test("stacks from the root", () => {
  assert.deepEqual(drawn({}), {
    idle: 1,
    main: 10,
    "main;eval": 3,
    "main;eval;eval": 3,
    "main;eval;eval;read": 3,
    "main;parse": 7,
    "main;parse;read": 5,
  });
});

test("stacks from the leaf", () => {
  assert.deepEqual(drawn({ reverse: true }), {
    idle: 1,
    parse: 2,
    "parse;main": 2,
    read: 8,
    "read;eval": 3,
    "read;eval;eval": 3,
    "read;eval;eval;main": 3,
    "read;parse": 5,
    "read;parse;main": 5,
  });
});

test("labels stand at the root", () => {
  const one = drawn({ group: ["comm"] });
  assert.equal(one.a, 7);
  assert.equal(one["b;main;eval;eval;read"], 3);
  assert.equal(drawn({ group: ["comm", "pid"] })["a;1;main;parse;read"], 5);
  // From the leaf they are the outermost callers: what is hot is so in all of them together.
  const turned = drawn({ group: ["comm"], reverse: true });
  assert.deepEqual([turned.read, turned["read;parse;main;a"], turned["idle;b"]], [8, 5, 1]);
});

test("what is hidden, in focus or of a label is all that counts", () => {
  assert.deepEqual(drawn({ hide: ["parse"] }).main, 3);
  assert.deepEqual(Object.keys(drawn({ hide: ["parse", "idle"] })), ["main", "main;eval", "main;eval;eval", "main;eval;eval;read"]);
  assert.deepEqual(drawn({ focus: ["read"] }).main, 8);
  assert.deepEqual(drawn({ focus: ["read"], hide: ["eval"] }), { main: 5, "main;parse": 5, "main;parse;read": 5 });
  assert.deepEqual(drawn({ only: { key: "pid", value: "2" } }).main, 3);
});

test("what is hidden or in focus is so however the rest is folded", () => {
  const address = (name) => ({ name, kind: "unresolved", binary: "/lib/libx.so.1" });
  const rows = [
    { stack: ["main", "f", "f", address("libx.so.1+0x1"), "leaf"], values: [1] },
    { stack: ["main", address("libx.so.1+0x2")], values: [4] },
    { stack: ["main", "g"], values: [16] },
  ];
  const all = (parts) => drawn(parts, rows).main || 0;
  for (const recursion of [false, true]) {
    for (const unresolved of [false, true]) {
      const folds = { recursion, unresolved };
      assert.equal(all({ ...folds, hide: ["libx.so.1+0x1"] }), 20);
      assert.equal(all({ ...folds, focus: ["libx.so.1+0x2"] }), 4);
      // What a binary's addresses are folded into stands for all of them.
      assert.equal(all({ ...folds, hide: ["[unresolved in libx.so.1]"] }), 16);
      assert.equal(all({ ...folds, focus: ["[unresolved in libx.so.1]"], hide: ["f"] }), 4);
    }
  }
});

test("the tooltip's self is the function's own, from the root and from the leaf", () => {
  const profile = profileOf([...ROWS, { stack: [], values: [32] }]);
  const type = profile.header.types[0];
  const self = (panel, node) => Object.fromEntries(details(profile, panel, node, type)).self;
  const normal = shape(profile, viewOf(profile)).main;
  const own = new Map(tableRows(profile, normal, "own").map((row) => [row.name, `${row.own} samples`]));
  const sums = new Map();
  for (let node = 1; node < normal.length; node += 1) {
    const name = profile.frames.name[normal.frame[node]];
    sums.set(name, (sums.get(name) || 0) + parseInt(self({ tree: normal, zoom: 0 }, node), 10));
  }
  assert.deepEqual([...sums].map(([name, sum]) => [name, `${sum} samples`]).sort(), [...own].sort());
  const { main } = shape(profile, viewOf(profile, { reverse: true }));
  assert.equal(main.total[0], 43);
  let seen = 0;
  for (let node = 0; node < main.length; node += 1) {
    const isFirst = main.depth[node] === 1;
    const expected = isFirst ? own.get(profile.frames.name[main.frame[node]]) : undefined;
    assert.equal(self({ tree: main, zoom: 0, isReversed: true }, node), expected);
    seen += isFirst ? 1 : 0;
  }
  assert.equal(seen, 3);
  // Among the callers of one function nobody knows the leaf.
  const { callers, callees } = shape(profile, viewOf(profile, { callers: "parse" }));
  for (let node = 1; node < callers.length; node += 1) {
    assert.equal(self({ tree: callers, zoom: 0, isCallers: true }, node), undefined);
  }
  assert.equal(self({ tree: callees, zoom: 0 }, 1), "2 samples");
});

test("shares are of sizes, whatever their signs", () => {
  for (const [values, expected] of [[[-15, -5], ["75.0 %", "25.0 %"]], [[5, -5], ["50.0 %", "50.0 %"]], [[6, -2], ["75.0 %", "25.0 %"]], [[3, 1], ["75.0 %", "25.0 %"]]]) {
    const profile = profileOf([{ stack: ["main", "a"], values: [values[0]] }, { stack: ["main", "b"], values: [values[1]] }]);
    const { main } = shape(profile, viewOf(profile));
    const told = (node) => Object.fromEntries(details(profile, { tree: main, zoom: 1 }, node, profile.header.types[0]));
    const keys = ["of all", "of the zoom", "of its caller"];
    assert.deepEqual([2, 3].map((node) => keys.map((key) => told(node)[key])), expected.map((share) => [share, share, share]));
  }
});

test("recursion and unresolved addresses fold", () => {
  const folded = drawn({ recursion: true });
  assert.equal(folded["main;eval;read"], 3);
  assert.equal(folded["main;eval;eval"], undefined);
  const address = (name) => ({ name, kind: "unresolved", binary: "/lib/libx.so.1" });
  const rows = [
    { stack: ["main", address("libx.so.1+0x1"), address("libx.so.1+0x2"), "leaf"], values: [1] },
    { stack: ["main", address("libx.so.1+0x3")], values: [4] },
  ];
  assert.deepEqual(drawn({ unresolved: true }, rows), {
    main: 5,
    "main;[unresolved in libx.so.1]": 5,
    "main;[unresolved in libx.so.1];leaf": 1,
  });
});

test("callers and callees add up to what the function has in the table", () => {
  const profile = profileOf();
  for (const name of ["read", "eval", "parse", "main", "idle"]) {
    const { callers, callees, full } = shape(profile, viewOf(profile, { callers: name }));
    const row = tableRows(profile, full, "own").find((it) => it.name === name);
    assert.equal(callers.total[0], row.total, name);
    assert.equal(callees.total[0], row.total, name);
  }
  const { callers, callees } = shape(profile, viewOf(profile, { callers: "eval" }));
  assert.deepEqual(paths(profile, callers), { eval: 3, "eval;main": 3 });
  assert.deepEqual(paths(profile, callees), { eval: 3, "eval;eval": 3, "eval;eval;read": 3 });
});

test("the table counts recursion once", () => {
  const profile = profileOf();
  const rows = (sort) => tableRows(profile, shape(profile, viewOf(profile)).main, sort);
  assert.deepEqual(
    rows("total").map(({ name, own, total }) => [name, own, total]),
    [["main", 0, 10], ["read", 8, 8], ["parse", 2, 7], ["eval", 0, 3], ["idle", 1, 1]],
  );
  assert.equal(rows("own")[0].name, "read");
  assert.equal(rows("name")[0].name, "eval");
});

test("search is plain text in any case, or an expression", () => {
  assert.equal(matcher(""), null);
  assert.ok(matcher("JSON.(*dec")("encoding/json.(*Decoder).Decode"));
  assert.ok(!matcher("json.(*Decoder)")("jsonX(*Decoder)"));
  assert.ok(matcher("/^ma.n$/")("MAIN"));
  assert.throws(() => matcher("/(/"));
  const profile = profileOf();
  const tree = shape(profile, viewOf(profile)).main;
  const found_ = (text) => matchingFrames(profile, new Searcher().matching(profile.names, text));
  const isMatch = found_("eval");
  const found = matches(tree, isMatch, 0);
  assert.deepEqual([found.nodes.length, found.all, found.zoomed], [2, 3, 3]);
  const parse = found.nodes[1] + 2;
  assert.equal(profile.frames.name[tree.frame[parse]], "parse");
  assert.equal(matches(tree, isMatch, parse).zoomed, 0);
  const main = found_("main");
  assert.equal(matches(tree, main, parse).zoomed, 7);
});

test("an expression may have flags, and any name can be searched for as it stands", () => {
  assert.ok(matcher("/^MA.n$/i")("main") && matcher("/^a.b$/s")("a\nb") && matcher("/b$/gm")("b\nc"));
  const twice = matcher("/a/gy");
  assert.ok(twice("xa") && twice("xa"));
  // No flags, so a path.
  assert.ok(matcher("/usr/lib")("in /usr/lib/x") && matcher("/a/ss")("/a/ss"));
  for (const name of ["/(/", "/usr/bin/x/", "f", "a/b", "/a+b/i", "//", "", "[/x/"]) {
    const found = matcher(literally(name)) || (() => true);
    assert.ok(found(`x${name}y`), name);
    assert.ok(name === "" || !found("/usr/b"), name);
  }
});

test("only what is wide enough is drawn, and nothing is left without a trace", () => {
  const rows = [];
  for (let i = 0; i < 5000; i += 1) {
    rows.push({ stack: ["main", `narrow${i}`, "below"], values: [1] });
  }
  rows.push({ stack: ["main", "wide"], values: [5000] });
  const profile = profileOf(rows);
  const tree = shape(profile, viewOf(profile)).main;
  const panel = panelOf(tree, 0, null, { up: false, base: 0, skip: 0 });
  const [frames, greys] = [[], []];
  visit(panel, 1000, 0, 10, (node) => frames.push(node), (x, w, depth, height) => greys.push([x, w, depth, height]));
  assert.equal(frames.length, 3);
  const covered = greys.reduce((sum, [, w]) => sum + w, 0);
  assert.ok(Math.abs(covered - 500) < 1, `${covered} pixels are grey`);
  assert.ok(greys.length <= 1000 && greys.every(([, , depth, height]) => depth === 2 && height === 2));
  // A zoom finds every one of them.
  for (const i of [0, 1234, 4999]) {
    const node = 2 + 2 * i;
    const at = nodeAt(panelOf(tree, node, null, { up: false, base: 0, skip: 0 }), 500, 2 * ROW + 1, 1000);
    assert.equal(at, node);
  }
});

test("arrows lead to callers, callees and siblings", () => {
  const profile = profileOf();
  const tree = shape(profile, viewOf(profile)).main;
  const name = (node) => (node === 0 ? "all" : profile.frames.name[tree.frame[node]]);
  const panel = { tree, up: true };
  const go = (...keys) => name(keys.reduce((node, key) => step(panel, node, key), 0));
  assert.equal(go("ArrowUp"), "main");
  assert.equal(go("ArrowUp", "ArrowUp"), "parse");
  assert.equal(go("ArrowUp", "ArrowUp", "ArrowLeft"), "eval");
  assert.equal(go("ArrowUp", "ArrowLeft"), "idle");
  assert.equal(go("ArrowUp", "ArrowUp", "ArrowRight"), "parse");
  assert.equal(go("ArrowUp", "ArrowDown", "ArrowDown"), "all");
});

test("names are harmless", () => {
  assert.equal(printable("a\u202eb\u0007c\u061cd"), "a\ufffdb\ufffdc\ufffdd");
  assert.ok(printable("x".repeat(1e7)).length < 3000);
  assert.equal(escapeFolded("[u8; 8]::f 3"), "[u8: 8]::f_3");
  assert.equal(clipped("abcdef", 4), "abc…");
  assert.equal(clipped("abcdef", 3), "");
});

test("values are scaled as the program does", () => {
  // The cases of src/viewing/scale.rs.
  const text = readFileSync(new URL("../../src/viewing/scale.rs", import.meta.url), "utf8");
  const cases = [...text.matchAll(/\((-?[\d_]+|-\(3 << 19\)), "([^"]*)", "([^"]*)"\)/g)];
  assert.ok(cases.length >= 10);
  for (const [, number, unit, shown] of cases) {
    const value = number.startsWith("-(") ? -(3 << 19) : Number(number.replace(/_/g, ""));
    assert.equal(amount(value, unit), shown);
  }
  assert.deepEqual([percent(1, 3), percent(1, 10), percent(1, 1e4), percent(0, 0)], ["33.3 %", "10.0 %", "0.010 %", "0 %"]);
});

// Sets of labels in the order of their rows; each has its time, in milliseconds, or none.
function profileOfTimes(rows, interval = 100) {
  const times = rows.map(({ at }) => (at === undefined ? null : at * 1e6));
  const stacks = rows.map(({ labels, value, stack = ["main"] }, i) => ({ stack, labels: Object.assign({ set: i }, labels), values: [value] }));
  return profileOf(stacks, { times, interval: interval * 1e6 });
}

test("time is told by lane: CPUs in their order, others by what they have", () => {
  const profile = profileOfTimes([
    { at: 0, labels: { cpu: "10", comm: "few" }, value: 1 },
    { at: 0, labels: { cpu: "2", comm: "many" }, value: 4 },
    { at: 200, labels: { cpu: "2", comm: "many" }, value: 5, stack: ["main", "late"] },
    { labels: { comm: "few" }, value: 100 },
  ]);
  const shown = (view, key) => lanes(profile, viewOf(profile, view), key).map(({ name, bars }) => [name, [...bars]]);
  assert.deepEqual(shown({}, "cpu"), [
    ["2", [4, 0, 5]],
    ["10", [1, 0, 0]],
  ]);
  assert.deepEqual(shown({}, "comm"), [
    ["many", [4, 0, 5]],
    ["few", [1, 0, 0]],
  ]);
  assert.deepEqual(shown({}, ""), [["", [5, 0, 5]]]);
  // As all else it is of what the view chooses, but of all times.
  assert.deepEqual(shown({ hide: ["late"], time: [200e6, 300e6] }, ""), [["", [5, 0, 0]]]);
  assert.deepEqual(shown({ only: { key: "cpu", value: "10" } }, ""), [["", [1, 0, 0]]]);
  assert.equal(viewOf(profile).lanes, "cpu");
  // Times that no screen has room for are put together.
  const long = profileOfTimes([{ at: 0, value: 1 }, { at: 9e9, value: 2 }], 1);
  assert.ok(steps(long.header).count <= 20000);
  assert.deepEqual([...lanes(long, viewOf(long), "")[0].bars].filter((bar) => bar > 0), [1, 2]);
});

test("a heat map has what lies at one moment of every second in a row", () => {
  const profile = profileOfTimes([0, 250, 1250, 2250].map((at) => ({ at, value: 1 })), 250);
  const { rows, columns, cells } = heat(profile, viewOf(profile));
  assert.deepEqual([rows, columns], [4, 3]);
  assert.deepEqual([...cells], [1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
  assert.ok(hasHeat(profile.header));
  assert.ok(!hasHeat(profileOfTimes([{ at: 2000, value: 1 }], 2000).header));
});

test("changes are as sure as the program says", () => {
  // From tables of the normal distribution.
  for (const [probability, point] of [[0.975, 1.959964], [0.9995, 3.290527], [0.999975, 4.055627]]) {
    assert.ok(Math.abs(quantile(probability) - point) < 1e-3, `${quantile(probability)}`);
  }
  // 400 of 1,000 and 500 of 1,000: (p (1 - p) + q (1 - q)) / 1,000 has the root 0.0222 of a whole.
  const shares = { each: [1, 1], factor: 1, absolute: false };
  const it = changeOf(shares, [1000, 1000], 900, 500);
  assert.deepEqual([it.before, it.after, it.change], [400, 500, 100]);
  assert.ok(Math.abs(it.deviation - 22.2) < 0.1, `${it.deviation}`);
  assert.ok(isSure(it, 1) && !isSure(it, 1e6));
  // What was before has half the samples that it stands for: the variance is that of 500.
  const half = changeOf({ ...shares, factor: 2 }, [1000, 1000], 900, 500);
  assert.ok(Math.abs(half.deviation - 1000 * Math.sqrt(0.24 / 500 + 0.25 / 1000)) < 0.1, `${half.deviation}`);
  // Counts as they are have themselves for a variance.
  const counts = changeOf({ ...shares, absolute: true }, [1000, 3000], 900, 500);
  assert.ok(Math.abs(counts.deviation - 30) < 1e-9, `${counts.deviation}`);
  assert.ok(isSure(changeOf({ each: null, factor: 1 }, [9, 9], 3, 1), 1e6));
});

test("a link shows the same again", () => {
  const { header } = profileOf(ROWS, { types: [{ name: "samples", unit: "count" }, { name: "cpu", unit: "nanoseconds" }], group: ["comm"], times: [0, 0] });
  const view = Object.assign(firstView(header), {
    value: 1,
    group: [],
    hide: ["a&b=c", "d;#"],
    callers: "x y",
    only: { key: "k", value: "a=b" },
    search: "/é+/",
    zoom: 17,
    flip: true,
    time: [5, 9],
    range: [0.5, 3],
    lanes: "heat map",
  });
  assert.deepEqual(fromFragment(`#${toFragment(view, header)}`, header), view);
  assert.equal(toFragment(firstView(header), header), "");
  assert.deepEqual(fromFragment("#zoom=-1&value=none&only=x&time=a", header), firstView(header));
});

test("a link to another file shows what there is of it", () => {
  const { header } = profileOf();
  // No times, no such labels.
  const odd = "time=1-2&group=nosuch&lanes=nosuch&range=0-Infinity&value=nosuch";
  assert.deepEqual(fromFragment(`#${odd}`, header), firstView(header));
  assert.deepEqual(fromFragment("#group=nosuch&group=pid", header).group, ["pid"]);
  const timed = profileOfTimes([{ at: 0, value: 1 }]).header;
  assert.deepEqual(fromFragment("#time=1-2", timed).time, [1, 2]);
  for (const range of [[1e-7, 3], [0, 1.5e-9], [12.5, 1e21]]) {
    const view = Object.assign(firstView(header), { range });
    assert.deepEqual(fromFragment(toFragment(view, header), header).range, range);
  }
  const profile = profileOf();
  const tree = shape(profile, viewOf(profile)).main;
  assert.equal(tree.width[0], 11);
  assert.deepEqual(rangeWithin(tree, 0, [5, 100]), [5, 11]);
  assert.equal(rangeWithin(tree, 0, [100, 200]), null);
  assert.equal(rangeWithin(tree, 1, [3, 5]), null, "idle has the first");
  assert.equal(rangeWithin(tree, 0, null), null);
});

test("a frame at the root is the value of one label", () => {
  const profile = profileOf([
    { stack: ["f"], labels: { comm: "x", thread_comm: "x", pid: "1" }, values: [1] },
    { stack: ["f"], labels: { thread_comm: "y", pid: "1" }, values: [2] },
  ]);
  const view = viewOf(profile, { group: ["comm", "thread_comm", "pid"] });
  const key = (names, isReversed = false) => (labelAt(profile, view, names, isReversed) || {}).key;
  assert.deepEqual([key(["x"]), key(["x", "x"]), key(["x", "x", "1"])], ["comm", "thread_comm", "pid"]);
  // A label that a stack does not have has no frame.
  assert.deepEqual([key(["y"]), key(["y", "1"]), key(["z"])], ["thread_comm", "pid", undefined]);
  assert.deepEqual([key(["1"], true), key(["x", "1"], true), key(["x", "x", "1"], true)], ["pid", "thread_comm", "comm"]);
  assert.deepEqual(labelAt(profile, view, ["y"], false), { key: "thread_comm", value: "y" });
});

test("labels and values of any text live in the address", () => {
  const odd = ["a=b", "a%3Db", "%", "a\nb", "=", "é&#"];
  const rows = odd.flatMap((key, i) => odd.map((value, k) => ({ stack: ["main"], labels: { [key]: value }, values: [1 + i * 10 + k] })));
  const profile = profileOf(rows);
  odd.forEach((key, i) => odd.forEach((value, k) => {
    const view = fromFragment(`#${toFragment(viewOf(profile, { only: { key, value } }), profile.header)}`, profile.header);
    assert.deepEqual(view.only, { key, value });
    assert.equal(shape(profile, view).main.total[0], 1 + i * 10 + k);
  }));
  const { header } = profile;
  const group = ["a\nb", "a=b"];
  assert.deepEqual(fromFragment(toFragment(viewOf(profile, { group }), header), header).group, group);
  // One value with a line break is not two.
  const two = profileOf([{ stack: ["f"], labels: { a: "x\ny" }, values: [1] }, { stack: ["f"], labels: { a: "x", b: "y" }, values: [2] }]);
  const roots = paths(two, shape(two, viewOf(two, { group: ["a", "b"] })).main);
  assert.deepEqual([roots["x\ny"], roots.x, roots["x;y"]], [1, 2, 2]);
});

test("values of one name are told apart", () => {
  const types = [["x", "count"], ["x", "bytes"], ["y", "a"], ["y", "a"]].map(([name, unit]) => ({ name, unit }));
  const { header } = profileOf([{ stack: ["f"], values: [1, 2, 3, 4] }], { types });
  const names = types.map((_, i) => valueName(header, i));
  assert.deepEqual(names, ["x/count", "x/bytes", "y/a/3", "y/a/4"]);
  types.forEach((_, value) => {
    const view = Object.assign(firstView(header), { value });
    assert.equal(fromFragment(toFragment(view, header), header).value, value);
  });
  // As links had it.
  assert.equal(fromFragment("#value=y", header).value, 2);
});

test("text is readable on every colour", () => {
  const kinds = readFileSync(new URL("../../src/viewing/colors.rs", import.meta.url), "utf8");
  const colors = [...kinds.matchAll(/\[(\d+), (\d+), (\d+)\]/g)].map((found) => found.slice(1).map(Number));
  assert.ok(colors.length > 20);
  for (let hue = 0; hue < 360; hue += 5) {
    colors.push(ofHue(hue, 0.7, 0.78), ofHue(hue, 0.7, 0.85));
  }
  for (const color of colors) {
    assert.ok(contrast(color, [0, 0, 0]) > 7, `${color} has ${contrast(color, [0, 0, 0])} to black`);
    const dark = darkened(color);
    assert.ok(contrast(dark, [255, 255, 255]) > 7, `${dark} has ${contrast(dark, [255, 255, 255])} to white`);
  }
});

test("colours are those of the picture", () => {
  // FNV-1a of "a" and of "foobar" from the hash's own page.
  assert.equal(hash("a"), (0x8601ec8c ^ 0xaf63dc4c) & 255);
  assert.equal(hash("foobar"), (0xf73967e8 ^ 0x85944171) & 255);
  assert.deepEqual(mixed([0, 10, 20], [255, 10, 0], 255), [255, 10, 0]);
});
