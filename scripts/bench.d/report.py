"""Makes docs/benchmarks.md of the figures that bench.py left."""

import itertools
import json
import os
import platform
import statistics
import subprocess

median = statistics.median
SECTIONS = ["slowdown", "bpf", "frames", "lightswitch", "off_cpu", "recorder", "build"]


def spread(values, form="{:.3f}"):
    """Median (least–most)."""
    if not values:
        return "failed"
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(median(values))} ({form.format(min(values))}–{form.format(max(values))})"


def told_apart(a, b):
    """The p of the two-sided Mann–Whitney test, by counting all ways to deal out the values."""
    values, n = a + b, len(a)
    ranks = {value: statistics.mean(at for at, v in enumerate(sorted(values), 1) if v == value)
             for value in set(values)}
    middle = n * (len(values) + 1) / 2
    off = abs(sum(ranks[value] for value in a) - middle)
    sums = [abs(sum(ranks[value] for value in chosen) - middle) for chosen in itertools.combinations(values, n)]
    return sum(s >= off - 1e-9 for s in sums) / len(sums)


def verdict(reached):
    return "reached" if reached else "**missed**"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def slowdown(workloads):
    limits = {"64 threads": 1.015, "2,000 × /bin/true": 1.03, "sched pipe": 1.03}
    ratios = {workload: {(name, hz): values for name, hz, values in figures["ratios"]}
              for workload, figures in workloads.items()}
    variants = list(ratios["64 threads"])
    label = {"none": "none (the noise)", "samply": "samply (of the command alone)"}
    runs = len(ratios["64 threads"]["none", 0])
    rows = []
    for name, hz in variants:
        cells = [ratios[workload][name, hz] for workload in ratios]
        cells = [spread(cell) + (f", {runs - len(cell)} of {runs} failed" if len(cell) < runs else "") for cell in cells]
        rows.append([label.get(name, name) + (f", {hz} Hz" if hz else ""), *cells])
    targets = []
    for workload, by_variant in ratios.items():
        fp = median(by_variant["profiler fp", 999])
        tables, dwarf = median(by_variant["profiler", 999]), median(by_variant["perf dwarf", 99])
        peers = {name: median(values) for (name, hz), values in by_variant.items()
                 if values and hz == 999 and not name.startswith("profiler")}
        best = min(peers, key=peers.get)
        p = told_apart(by_variant["none", 0], by_variant["profiler fp", 99])
        targets += [
            [f"{workload}, fp, 999 Hz: at most {limits[workload]}", f"{fp:.3f}", verdict(round(fp, 3) <= limits[workload])],
            [f"{workload}, fp, 999 Hz: no more than the best peer ({best} {peers[best]:.3f})", f"{fp:.3f}",
             verdict(round(fp, 3) <= round(peers[best], 3))],
            [f"{workload}, fp, 99 Hz: not to be told from none (p > 0.05)", f"p = {p:.2f}", verdict(p > 0.05)],
            [f"{workload}, tables, 999 Hz: no more than perf dwarf at 99 Hz ({dwarf:.3f})", f"{tables:.3f}",
             verdict(round(tables, 3) <= round(dwarf, 3))]]
    bare = ", ".join(f"{workload} {spread(figures['bare_s'], '{:.2f}')} s" for workload, figures in workloads.items())
    text = ("## Slowdown\n\nWall-clock time of a workload while a recorder samples the machine, over the mean of "
            f"the runs without one just before and after. Without: {bare}.\n\n")
    return text + table(["wall ×", *ratios], rows), targets


def bpf(scenes):
    rows = [[scene, *(spread(values, "{:,.0f}") for values in by_name.values())] for scene, by_name in scenes.items()]
    targets = [[f"BPF ns a run, fp, {scene}: at most 1,300", f"{median(by_name['profiler fp']):,.0f}",
                verdict(median(by_name["profiler fp"]) <= 1300)] for scene, by_name in scenes.items()]
    text = ("## BPF run time\n\nNanoseconds a run of the sampling program at 999 Hz, by the kernel's statistics. "
            "bcc's and bpftrace's also run on idle CPUs, where they end at once.\n\n")
    return text + table(["ns a run", *next(iter(scenes.values()))], rows), targets


def frames(by_name):
    limits = {7: 3000, 40: 10_000}
    depths = list(by_name["profiler"])
    rows = [[name, *(spread(values, "{:,.0f}") for values in by_depth.values())] for name, by_depth in by_name.items()]
    targets = []
    for depth, limit in limits.items():
        ours = median(by_name["profiler"][str(depth)])
        targets.append([f"BPF ns a run by tables, {depth} frames: at most {limit:,}", f"{ours:,.0f}", verdict(ours <= limit)])
    text = ("## BPF run time by depth\n\nNanoseconds a run at 999 Hz on two threads whose stacks have so many frames: "
            "by tables on a program without frame pointers, by frame pointers on one that has them.\n\n")
    return text + table(["frames", *depths], rows), targets


def lightswitch(by_name):
    columns = [("stacks whole", "whole", 100, "{:.2f}", " %", lambda ours, theirs: ours >= theirs),
               ("BPF ns a run", "ns", 1, "{:,.0f}", "", lambda ours, theirs: ours <= theirs),
               ("CPU while recording", "cpu_before_stop_s", 1000, "{:.0f}", " ms", lambda ours, theirs: ours <= theirs),
               ("CPU in all", "cpu_s", 1000, "{:.0f}", " ms", lambda ours, theirs: ours <= theirs),
               ("peak memory", "peak", 1e-6, "{:.0f}", " MB", lambda ours, theirs: ours <= theirs)]
    rows, targets = [], []
    for what, key, scale, form, unit, holds in columns:
        ours, theirs = ([run[key] * scale for run in by_name[name]] for name in ("profiler", "lightswitch"))
        rows.append([what, spread(ours, form) + unit, spread(theirs, form) + unit])
        targets.append([f"{what}: no worse than lightswitch ({form.format(median(theirs))}{unit})",
                        f"{form.format(median(ours))}{unit}", verdict(holds(median(ours), median(theirs)))])
    text = ("## Beside lightswitch\n\nTwo threads without frame pointers, 20 frames deep, some 20 s at 101 Hz; a stack is "
            "whole if it has every caller up to the thread's start.\n\n")
    return text + table(["", *by_name], rows), targets


def off_cpu(results):
    ns = results.pop("ns")
    names = list(next(iter(results.values()))["ratios"])
    rows = [[name, *(spread(figures["ratios"][name]) for figures in results.values())] for name in names]
    targets = []
    for workload, figures in results.items():
        found = {name: median(values) for name, values in figures["ratios"].items()}
        peers = min(found[name] for name in ("offcputime, all", "perf, all", "bpftrace, all"))
        targets += [
            [f"off-CPU, {workload}, blocks of 1 ms: at most 1.15", f"{found['profiler, 1 ms']:.3f}",
             verdict(round(found["profiler, 1 ms"], 3) <= 1.15)],
            ["the same with `--no-bpf-stats`", f"{found['profiler, 1 ms, --no-bpf-stats']:.3f}",
             verdict(round(found["profiler, 1 ms, --no-bpf-stats"], 3) <= 1.15)],
            [f"off-CPU, {workload}, all blocks: no more than the best peer ({peers:.3f})", f"{found['profiler, all']:.3f}",
             verdict(found["profiler, all"] <= peers)]]
    targets.append(["off-CPU, ns a switch without a stack: at most 300", f"{median(ns):,.0f}", verdict(median(ns) <= 300)])
    bare = ", ".join(f"{workload} {spread(figures['bare_s'], '{:.2f}')} s" for workload, figures in results.items())
    text = ("## Time off the CPU\n\nWall-clock time under recorders of blocked time, over the mean of the runs without "
            f"one just before and after. Without: {bare}. offcputime is libbpf-tools', perf records "
            f"sched:sched_switch with -g. A switch costs ours {spread(ns, '{:,.0f}')} ns.\n\n")
    return text + table(["wall ×", *results], rows), targets


def recorder(runs):
    cpu = [100 * run["cpu_s"] / run["seconds"] for run in runs]
    peak = [run["peak"] / 1e6 for run in runs]
    size = [run["file"] / run["samples"] for run in runs]
    printed = [run["printed"]["cpu_percent"] for run in runs]
    text = (f"## The recorder itself\n\n{runs[0]['seconds']:.0f} s at 99 Hz of two busy CPUs and some 20 processes a second "
            f"that come and go; {median([run['samples'] for run in runs]):,.0f} samples.\n\n")
    text += table(["", "median (least–most)"], [
        ["own CPU while recording, of one CPU", spread(cpu, "{:.2f}") + " %"],
        ["the same as it prints it", spread(printed, "{:.2f}") + " %"],
        ["peak memory before naming", spread(peak, "{:.1f}") + " MB"],
        ["bytes of output a sample", spread(size, "{:.0f}")],
        ["naming: CPU", spread([1000 * run["naming_cpu_s"] for run in runs], "{:.0f}") + " ms"],
        ["naming: peak memory", spread([run["naming_peak"] / 1e6 for run in runs], "{:.0f}") + " MB"]])
    return text, [
        ["own CPU at 99 Hz: below 0.5 % of one CPU", f"{median(cpu):.2f} %", verdict(round(median(cpu), 2) < 0.5)],
        ["peak memory before naming: below 60 MB", f"{max(peak):.1f} MB", verdict(max(peak) < 60)],
        ["output at 99 Hz: at most 130 bytes a sample", f"{median(size):.0f}", verdict(median(size) <= 130)]]


def build(figures):
    ours, perf, dwarf = figures.values()
    cut = "" if dwarf[0]["finished"] else " (stopped)"

    def row(what, key, scale, form, unit=""):
        cells = [[run[key] * scale for run in runs] for runs in (ours, perf, dwarf)]
        return [what, *(spread(cell, form) + unit for cell in cells)]

    ours_s, perf_s, dwarf_s = (median([run["seconds"] for run in runs]) for runs in (ours, perf, dwarf))
    ours_peak, perf_peak = (median([run["peak"] for run in runs]) / 1e6 for runs in (ours, perf))
    text = ("## From stop to flamegraph\n\n"
            "A recording at 999 Hz of 45 s of this crate's own release build. perf: `perf record -F 999 -a -g`, then "
            "`perf script --no-inline | inferno-collapse-perf | inferno-flamegraph`. perf dwarf: "
            "`--call-graph dwarf` and without `--no-inline`, once, stopped after 180 s; perf 6.1 finds inlined "
            "frames in such stacks only.\n\n")
    text += table(["", "profiler", "perf", "perf dwarf" + cut], [
        row("samples", "samples", 1, "{:,.0f}"),
        row("stop to SVG", "seconds", 1, "{:.2f}", " s"),
        row("of which until the recording is written", "stop_s", 1, "{:.2f}", " s"),
        row("CPU after stop", "cpu_s", 1, "{:.2f}", " s"),
        row("peak memory while recording", "peak_before_stop", 1e-6, "{:.0f}", " MB"),
        row("peak memory of the largest process", "peak", 1e-6, "{:.0f}", " MB"),
        row("recording", "file", 1e-6, "{:.2f}", " MB"),
        row("SVG", "svg", 1e-6, "{:.2f}", " MB")])
    inlined = spread([100 * run["inlined"] for run in ours], "{:.1f}")
    text += f"\nSamples of profiler's with an inlined frame: {inlined} %.\n"
    text += "".join(f"Unwind tables: {run['tables']}.\n" for run in ours if run.get("tables"))
    per_sample, dwarfs = (median([run["file"] / run["samples"] for run in runs]) for runs in (ours, dwarf))
    return text, [
        ["data written: at most 1/50 of perf dwarf's a sample", f"1/{dwarfs / per_sample:,.0f}", verdict(dwarfs >= 50 * per_sample)],
        ["stop to SVG: faster than perf's without inlined frames", f"{ours_s:.2f} s, perf {perf_s:.2f} s",
         verdict(ours_s < perf_s)],
        ["stop to SVG: 50 times as fast as perf's with inlined frames (`--call-graph dwarf`)",
         f"{'at least ' if cut else ''}{dwarf_s / ours_s:.0f} times", verdict(dwarf_s / ours_s >= 50)],
        ["peak memory: below perf's", f"{ours_peak:.0f} MB, perf {perf_peak:.0f} MB",
         verdict(ours_peak < perf_peak)]]


def commit():
    describe = subprocess.run(["git", "describe", "--always", "--dirty"], text=True, capture_output=True)
    return describe.stdout.strip() or "unknown"


def cpu_model():
    with open("/proc/cpuinfo") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    return names[0] if names else platform.machine()


def document(folder, prefix):
    kept = {}
    for name in SECTIONS:
        if os.path.exists(path := f"{folder}/{prefix}{name}.json"):
            with open(path) as file:
                kept[name] = json.load(file)
    texts, targets = [], []
    for name, section in kept.items():
        text, reached = globals()[name](section["figures"])
        texts.append(text)
        targets += reached
    measured = table(["section", "taken", "repeats", "commit", "others used", "load"],
                     [[name, section["date"], section["repeats"], section["commit"], f"{section['busy']:.1%}",
                       section["load"][0]] for name, section in kept.items()])
    return "\n".join([
        "# Benchmarks\n",
        "Made by `scripts/bench`, which installs the peers and runs them interleaved; to be read as ratios within "
        "a row or a column, not as properties of another machine. Figures are medians (least–most).\n",
        f"{os.cpu_count()} CPUs ({cpu_model()}), Linux {platform.release()}, {versions()}.\n",
        measured,
        "`others used` is the share of the CPUs' time in use before the section began.\n",
        "## Targets\n",
        table(["target", "found", ""], targets),
        *texts])


def versions():
    def first_line(*command):
        result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return result.stdout.strip().splitlines()[0]

    bcc = first_line("dpkg-query", "-W", "-f", "${Version}", "bpfcc-tools")
    return ", ".join([first_line("perf", "--version"), f"bcc {bcc}", first_line("bpftrace", "--version"),
                      os.environ["CRATES"]])
