"""Measures the recorders side by side: see the sections' texts, and report.py for the table.

Every section runs all recorders once in each repeat, the first of one repeat being the last of the
next, so that what drifts or disturbs the machine meets them all alike.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import report
from recorders import (COMMANDS, DIR, OFF_CPU_COMMANDS, OUTPUT, PROFILER, cpu_s, kill_group, recording, running, samply,
                       sampling_programs, all_programs, with_bpf_statistics)

QUICK = "--quick" in sys.argv
REPEATS = 1 if QUICK else int(os.environ.get("REPEATS", 5))
CPUS = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0))[:2])
CPU = CPUS.split(",")[0]
SCALE = 0.2 if QUICK else 1.0  # of the lengths of all runs

# Each prints the seconds it took. Pinned: whether a child, or the other end of a pipe, runs on the
# same CPU or on another makes more difference than any recorder.
THREADS = ["taskset", "-c", CPUS, f"{DIR}/threads", "64", str(int(2200 * SCALE))]
WORKLOADS = {
    "64 threads": THREADS,
    "2,000 × /bin/true": ["taskset", "-c", CPU, f"{DIR}/spawn", str(int(2000 * SCALE)), "/bin/true"],
    "sched pipe": ["taskset", "-c", CPU, "perf", "bench", "-f", "simple", "sched", "pipe",
                   "-l", str(int(300_000 * SCALE))],
}
VARIANTS = [("none", 0), ("profiler", 99), ("profiler fp", 99), ("perf dwarf", 99)]
VARIANTS += [(name, 999) for name in [*COMMANDS, "samply"] if name != "lightswitch"]
BPF_RECORDERS = ["profiler", "profiler fp", "bcc", "bpftrace"]
FRAMES = [7, 20, 40, 120]
# Frame pointers are what bcc walks by; tables are to do without.
FRAME_RECORDERS = [("profiler", "threads-no-fp"), ("profiler fp", "threads"), ("bcc", "threads")]


def seconds_of(command, may_fail=False):
    """What a workload says it took; None if it, or the recorder that started it, failed."""
    result = subprocess.run(command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    if result.returncode:
        say(f"{' '.join(command)} failed: {result.stderr[:200]}")
        return None if may_fail else sys.exit(1)
    return float(re.findall(r"^\s*([\d.]+)\s*$", result.stdout, re.M)[-1])


def rotated(items, by):
    by %= len(items)
    return items[by:] + items[:by]


def slowdown():
    """Wall-clock time of a workload under each recorder, over that of the runs without one just
    before and after it. The variant "none" is such a run as well: it shows the noise."""
    results = {}
    for workload, command in WORKLOADS.items():
        seconds_of(command)
        ratios = {variant: [] for variant in VARIANTS}
        bare = [seconds_of(command)]
        for repeat in range(REPEATS):
            for variant in rotated(VARIANTS, repeat):
                name, hz = variant
                if name == "none":
                    taken = seconds_of(command)
                elif name == "samply":
                    taken = seconds_of(samply(hz, command), may_fail=True)
                else:
                    with recording(name, hz):
                        taken = seconds_of(command)
                bare.append(seconds_of(command))
                if taken:
                    ratios[variant].append(taken / ((bare[-2] + bare[-1]) / 2))
        results[workload] = {"bare_s": bare, "ratios": [[*variant, ratios[variant]] for variant in VARIANTS]}
        say(f"{workload}: " + ", ".join(f"{name} {hz} {report.median(ratios[name, hz]):.4f}"
                                        for name, hz in VARIANTS if ratios[name, hz]))
    return results


def bpf_during(name, hz, act):
    """Nanoseconds a run of a recorder's BPF program while `act` runs; and the recorder."""
    others = sampling_programs()
    with recording(name, hz) as recorder:
        before = sampling_programs()
        act()
        after = sampling_programs()
    ours = [id for id in before if id in after and id not in others]
    runs = sum(after[id][1] - before[id][1] for id in ours)
    return sum(after[id][0] - before[id][0] for id in ours) / runs, recorder


@with_bpf_statistics
def bpf():
    """What a run of the sampling BPF program costs, by the kernel's own statistics: on a program
    with 16 frames to walk, and on a Rust build."""
    results = {scene: {name: [] for name in BPF_RECORDERS} for scene in ("64 threads", "Rust build")}
    for repeat in range(REPEATS):
        for name in rotated(BPF_RECORDERS, repeat):
            results["64 threads"][name].append(bpf_during(name, 999, lambda: seconds_of(THREADS))[0])
        with crate_build():
            time.sleep(5 * SCALE)
            for name in rotated(BPF_RECORDERS, repeat):
                results["Rust build"][name].append(bpf_during(name, 999, lambda: time.sleep(5 * SCALE))[0])
    return results


@with_bpf_statistics
def frames():
    """What a run of the sampling BPF program costs by the depth of the stack."""
    results = {name: {depth: [] for depth in FRAMES} for name, _ in FRAME_RECORDERS}
    for repeat in range(REPEATS):
        for depth in FRAMES:
            for name, program in rotated(FRAME_RECORDERS, repeat):
                command = ["taskset", "-c", CPUS, f"{DIR}/{program}", "2", str(int(2200 * SCALE)), str(depth)]
                results[name][depth].append(bpf_during(name, 999, lambda: seconds_of(command))[0])
    return results


def off_cpu():
    """Wall-clock time of what switches most, under recorders of blocked time; and what a switch costs
    ours, by the kernel's statistics, where no block is long enough for a stack."""
    workloads = {"sched pipe": WORKLOADS["sched pipe"],
                 "sched messaging": ["taskset", "-c", CPUS, "perf", "bench", "-f", "simple", "sched", "messaging",
                                     "-g", "4", "-l", str(int(600 * SCALE))]}
    results = {"ns": []}
    for workload, command in workloads.items():
        seconds_of(command)
        ratios = {name: [] for name in ["none", *OFF_CPU_COMMANDS]}
        bare = [seconds_of(command)]
        for repeat in range(REPEATS):
            for name in rotated(list(ratios), repeat):
                if name == "none":
                    taken = seconds_of(command)
                else:
                    with recording(name, 0):
                        before = all_programs()
                        taken = seconds_of(command)
                        after = all_programs()
                    # Messages wait for longer, now and then.
                    if (workload, name) == ("sched pipe", "profiler, 1 ms"):
                        hooks = [id for id, (title, *_) in after.items() if title in ("switched", "returned")]
                        time_ns, runs = ([after[id][at] - before[id][at] for id in hooks if id in before] for at in (1, 2))
                        results["ns"].append(sum(time_ns) / max(1, max(runs)))
                bare.append(seconds_of(command))
                ratios[name].append(taken / ((bare[-2] + bare[-1]) / 2))
        results[workload] = {"bare_s": bare, "ratios": ratios}
        say(f"off-CPU, {workload}: " + ", ".join(f"{name} {report.median(of):.3f}" for name, of in ratios.items()))
    return results


@with_bpf_statistics
def lightswitch():
    """Beside the other profiler that walks by unwind tables in BPF, at a frequency that it takes: a
    program of known stacks without frame pointers."""
    chain = re.compile(r"start_thread;work;(descend;){16}spin")
    command = ["taskset", "-c", CPUS, f"{DIR}/threads-no-fp", "2", str(int(22_000 * SCALE)), "20"]
    results = {"profiler": [], "lightswitch": []}
    for repeat in range(REPEATS):
        for name in rotated(list(results), repeat):
            ns, recorder = bpf_during(name, 101, lambda: seconds_of(command))
            folded = subprocess.check_output([PROFILER, "folded", "--tagroot=", OUTPUT], text=True)
            # The kernel's own frames stand above.
            stacks = [line.rpartition(" ") for line in folded.splitlines()]
            stacks = [parts for parts in stacks if ";spin;" in parts[0] + ";"]
            whole = sum(int(n) for stack, _, n in stacks if chain.search(stack))
            results[name].append({"ns": ns, "whole": whole / max(1, sum(int(n) for *_, n in stacks)),
                                  "cpu_s": recorder.rusage.ru_utime + recorder.rusage.ru_stime,
                                  "cpu_before_stop_s": recorder.cpu_before_stop_s,
                                  "peak": max(recorder.peak_before_stop, recorder.rusage.ru_maxrss * 1024)})
            say(f"lightswitch: {name}: {results[name][-1]}")
    return results


def recorder():
    """A recording at 99 Hz of two busy CPUs and of some 20 processes a second that come and go: the
    recorder's own CPU time and memory before it names anything, and the size of its file. Both as
    it prints them and as the kernel has them."""
    results = []
    churn = ["sh", "-c", "while :; do /bin/true; sleep 0.05; done"]
    for _ in range(REPEATS):
        with running([f"{DIR}/threads", "2", "1e9"]), running(churn):
            with recording("profiler", 99) as ours:
                start, cpu_at_start = time.monotonic(), cpu_s(ours.process.pid)
                time.sleep(30 * SCALE)
                seconds, cpu = time.monotonic() - start, cpu_s(ours.process.pid) - cpu_at_start
        samples, printed = our_summary(ours.text)
        results.append({"seconds": seconds, "cpu_s": cpu, "peak": ours.peak_before_stop, "samples": samples,
                        "file": os.path.getsize(OUTPUT), "printed": printed,
                        "naming_cpu_s": ours.rusage.ru_utime + ours.rusage.ru_stime - ours.cpu_before_stop_s,
                        "naming_peak": ours.rusage.ru_maxrss * 1024})
        say(f"recorder: {results[-1]}")
    return results


def our_summary(text):
    samples = re.search(r"^profiler: ([\d,]+) samples", text, re.M)[1]
    printed = re.search(r"BPF ([\d.]+) µs.*recorder (\d+) ms CPU \(([\d.]+)%.*?([\d.]+) MiB peak", text)
    names = ["bpf_us", "cpu_ms", "cpu_percent", "peak_mib"]
    return int(samples.replace(",", "")), dict(zip(names, map(float, printed.groups())))


def crate_build():
    """A build of this very crate, from the first of its dependencies on."""
    target = f"{DIR}/crate"
    shutil.rmtree(target, ignore_errors=True)
    return running(["cargo", "build", "--release", "--offline", "--locked"],
                   env={**os.environ, "CARGO_TARGET_DIR": target})


def pipeline(*commands, into, limit_s=None):
    """Runs commands one into the next; wall-clock and CPU seconds, peak memory of the largest."""
    start, processes, source = time.monotonic(), [], subprocess.DEVNULL
    for command in commands:
        last = command is commands[-1]
        process = subprocess.Popen(command, stdin=source, stdout=open(into, "w") if last else subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        if source != subprocess.DEVNULL:
            source.close()
        processes.append(process)
        source = process.stdout
    limit = threading.Timer(limit_s or 1e6, lambda: [kill_group(process) for process in processes])
    limit.start()
    usages = [os.wait4(process.pid, 0)[2] for process in processes]
    finished = limit.is_alive()
    limit.cancel()
    return {"seconds": time.monotonic() - start, "finished": finished,
            "cpu_s": sum(usage.ru_utime + usage.ru_stime for usage in usages),
            "peak": max(usage.ru_maxrss * 1024 for usage in usages)}


def build():
    """A recording at 999 Hz of 45 s of a Rust crate's build; then, on the quiet machine, from the
    signal that stops it to the flamegraph. Every recording is of a build of its own."""
    results = {name: [] for name in ["profiler", "perf -g", "perf dwarf"]}
    for repeat in range(REPEATS):
        for name in rotated(["profiler", "perf -g"], repeat):
            results[name].append(recorded_build(name))
            say(f"build: {name}: {results[name][-1]}")
    # perf tells inlined frames in stacks that it unwound by DWARF, and in no others.
    results["perf dwarf"].append(recorded_build("perf dwarf"))
    say(f"build: perf dwarf: {results['perf dwarf'][-1]}")
    return results


def recorded_build(name):
    """From stop to flamegraph, with what each program does if it is not told otherwise, except that
    perf's frame-pointer stacks are spared the search for inlined frames that they do not have."""
    with recording(name, 999) as recorder:
        with crate_build():
            time.sleep(45 * SCALE)
    svg = f"{DIR}/{name.replace(' ', '')}.svg"
    if name == "profiler":
        after = pipeline([PROFILER, "flamegraph", OUTPUT, "-o", svg], into=os.devnull)
        samples, inlined = our_summary(recorder.text)[0], inlined_share()
    else:
        script = ["perf", "script", "-i", OUTPUT] + (["--no-inline"] if name == "perf -g" else [])
        after = pipeline(script, ["inferno-collapse-perf"], ["inferno-flamegraph"], into=svg,
                         limit_s=180 * SCALE)
        samples, inlined = int(re.search(r"\((\d+) samples\)", recorder.text)[1]), None
    usage = recorder.rusage
    tables = re.search(r"^  tables .*", recorder.text, re.M)
    return {"samples": samples, "tables": tables and tables[0].split(maxsplit=1)[1], "inlined": inlined, "finished": after["finished"],
            "file": os.path.getsize(OUTPUT), "svg": os.path.getsize(svg),
            "stop_s": recorder.stop_s, "seconds": recorder.stop_s + after["seconds"],
            "cpu_s": usage.ru_utime + usage.ru_stime - recorder.cpu_before_stop_s + after["cpu_s"],
            "peak_before_stop": recorder.peak_before_stop,
            "peak": max(usage.ru_maxrss * 1024, after["peak"])}


def inlined_share():
    """Share of the samples in which a frame is an inlined one."""
    folded = subprocess.check_output([PROFILER, "folded", "--annotate", OUTPUT], text=True)
    counts = [(int(line.rpartition(" ")[2]), "_[i]" in line) for line in folded.splitlines()]
    return sum(n for n, inlined in counts if inlined) / sum(n for n, _ in counts)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def busy_share(seconds=3):
    """Share of the CPUs' time that somebody uses now."""
    def ticks():
        with open("/proc/stat") as stat:
            fields = [int(field) for field in stat.readline().split()[1:8]]
        return sum(fields), fields[3] + fields[4]
    total, idle = ticks()
    time.sleep(seconds)
    total_after, idle_after = ticks()
    return 1 - (idle_after - idle) / (total_after - total)


def main():
    sections = {"slowdown": slowdown, "bpf": bpf, "frames": frames, "lightswitch": lightswitch, "off_cpu": off_cpu, "recorder": recorder, "build": build}
    wanted = [name for name in sys.argv[1:] if name != "--quick"] or list(sections)
    if unknown := set(wanted) - set(sections):
        raise SystemExit(f"bench: no section {', '.join(unknown)}; there are {', '.join(sections)}")
    # Whatever ends this ends its recorders: a signal becomes an exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in wanted:
        busy = busy_share()
        if busy > 0.05:
            say(f"the machine is {busy:.0%} busy already: the figures will not be worth much")
        start = time.monotonic()
        figures = sections[name]()
        say(f"{name} took {time.monotonic() - start:.0f} s")
        kept = {"figures": figures, "busy": busy, "repeats": REPEATS, "date": time.strftime("%Y-%m-%d %H:%M"),
                "load": os.getloadavg(), "commit": report.commit()}
        with open(f"{DIR}/{'quick-' if QUICK else ''}{name}.json", "w") as file:
            json.dump(kept, file, indent=1, ensure_ascii=False)
    text = report.document(DIR, "quick-" if QUICK else "")
    print(text)
    if not QUICK:
        with open("docs/benchmarks.md", "w") as file:
            file.write(text)


if __name__ == "__main__":
    # Which a shell that started this in the background ignores, and so would all recorders.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    main()
