// What it takes to look at profiles of three sizes: our file and inferno's SVG in the same browser, in the same run, and
// `go tool pprof -top` beside writing ours. Prints a table; scripts/bench view runs it.

import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Browser } from "../../tests/viewer/chromium.mjs";
import { large, pprof } from "../../tests/viewer/pprof.mjs";

const { PROFILER, BENCH_DIR } = process.env;
const SIZES = process.argv.includes("--quick") ? [17e3] : [17e3, 425e3, 5e6];
const TYPES = [["samples", "count"], ["cpu", "nanoseconds"]];
// Beyond it inferno's picture does not open in minutes.
const MOST_FOR_INFERNO = 425e3;
const PATIENCE = { timeout: 600e3, maxBuffer: 2 ** 32 };

// Runs a command: its CPU seconds and peak memory in MiB, by GNU time.
function cost(command, options = {}) {
  const found = spawnSync("time", ["-f", "%U %S %M", ...command], { encoding: "utf8", ...PATIENCE, ...options });
  if (found.status !== 0) {
    throw new Error(`${command.join(" ")}: ${found.stderr}`);
  }
  const [user, system, kib] = found.stderr.trim().split("\n").pop().split(" ").map(Number);
  return { cpu: user + system, mib: kib / 1024 };
}

function has(program) {
  return spawnSync("sh", ["-c", `command -v ${program}`]).status === 0;
}

// Opens a page and does what `steps` say: the milliseconds of each until it is painted, and the memory of its script.
async function look(file, isOpen, steps) {
  const browser = await Browser.open();
  try {
    const began = performance.now();
    await browser.go(`file://${file}`, isOpen);
    const painted = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))";
    await browser.run(painted);
    const found = { open: performance.now() - began };
    for (const [name, step] of Object.entries(steps)) {
      const from = performance.now();
      await browser.run(step);
      await browser.run(painted);
      found[name] = performance.now() - from;
    }
    found.heap = (await browser.run("performance.memory.usedJSHeapSize")) / 2 ** 20;
    return found;
  } finally {
    await browser.close();
  }
}

const OURS = {
  zoom: "viewer.change({ zoom: viewer.main.tree.length >> 1 })",
  unzoom: "viewer.change({ zoom: 0 })",
  search: "viewer.change({ search: 'function12' })",
  callers: "viewer.showCallers(viewer.profile.names[viewer.profile.names.length >> 1])",
};
const INFERNOS = {
  zoom: "zoom(document.querySelectorAll('#frames > g')[document.querySelectorAll('#frames > g').length >> 1])",
  unzoom: "unzoom()",
  search: "search('function12')",
};

function row(...cells) {
  console.log(`| ${cells.map((cell) => (typeof cell === "number" ? cell.toFixed(cell < 10 ? 2 : 0) : cell)).join(" | ")} |`);
}

async function main() {
  mkdirSync(BENCH_DIR, { recursive: true });
  row("frames", "what", "file, MiB", "CPU s", "peak MiB", "open ms", "zoom ms", "unzoom ms", "search ms", "callers ms", "heap MiB");
  row(...Array(11).fill("---"));
  for (const size of SIZES) {
    const input = join(BENCH_DIR, `view-${size}.pb.gz`);
    writeFileSync(input, pprof(large(size), TYPES));
    const ours = join(BENCH_DIR, `view-${size}.svg`);
    const written = cost([PROFILER, "flamegraph", input, "-o", ours]);
    const seen = await look(ours, "window.viewer !== undefined", OURS);
    const mib = (file) => statSync(file).size / 2 ** 20;
    const show = (what, file, { cpu, mib: peak }, times) =>
      row(String(size), what, file, cpu, peak, ...["open", "zoom", "unzoom", "search", "callers", "heap"].map((key) => times[key] || "-"));
    show("profiler", mib(ours), written, seen);
    if (size <= MOST_FOR_INFERNO && has("inferno-flamegraph")) {
      const folded = join(BENCH_DIR, `view-${size}.folded`);
      writeFileSync(folded, execFileSync(PROFILER, ["folded", input], PATIENCE));
      const theirs = join(BENCH_DIR, `inferno-${size}.svg`);
      const drawn = cost(["sh", "-c", `inferno-flamegraph --minwidth 0 < ${folded} > ${theirs}`]);
      show("inferno", mib(theirs), drawn, await look(theirs, "document.querySelector('#frames') !== null", INFERNOS));
    }
    const go = cost(["go", "tool", "pprof", "-top", "-symbolize=none", input], { stdio: ["ignore", "ignore", "pipe"] });
    show("go tool pprof -top", "-", go, {});
  }
}

main();
