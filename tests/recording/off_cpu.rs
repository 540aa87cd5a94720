//! Time off the CPU. What is right the recorded programs say themselves, from their own clocks and
//! the scheduler's, or the kernel says in /proc.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::chance;
use crate::common::{Test, kill, output, refusal, spawn, starts_thread, wait_for_cpu_time};
use crate::limits;

/// Threads of samples/blocking.c, and where each waits.
const FUNCTIONS: [(&str, &str); 7] = [
    ("nanosleep", "in_nanosleep"),
    ("pipe", "in_pipe_read"),
    ("mutex", "in_mutex"),
    ("poll", "in_poll"),
    ("epoll", "in_epoll"),
    ("fsync", "in_fsync"),
    ("disk", "in_disk_read"),
];

/// Nanoseconds by thread's name and stack, root first.
struct Blocks(Vec<(Vec<String>, u64)>);

impl Blocks {
    fn of(test: &Test, args: &[&str]) -> Self {
        Self::with(test, &["--type", "off-cpu"], args)
    }

    /// Another value than nanoseconds.
    fn with(test: &Test, value: &[&str], args: &[&str]) -> Self {
        let file = test.path("output.pb.gz");
        let folded = [&["folded", "--tagroot", "thread_comm", &file], value, args].concat();
        let text = output(env!("CARGO_BIN_EXE_profiler"), &folded);
        let parse = |line: &str| {
            let (stack, ns) = line.rsplit_once(' ').unwrap();
            (stack.split(';').map(str::to_owned).collect(), ns.parse().unwrap())
        };
        Self(text.lines().map(parse).collect())
    }

    fn total(&self, holds: impl Fn(&[String]) -> bool) -> u64 {
        self.0.iter().filter(|(stack, _)| holds(stack)).map(|(_, ns)| ns).sum()
    }
}

fn has(stack: &[String], name: &str) -> bool {
    stack.iter().any(|frame| frame == name)
}

/// A row of `profiler threads`, in milliseconds.
#[derive(Debug)]
struct Row {
    tid: u32,
    name: String,
    on_cpu: f64,
    sampled: f64,
    error: f64,
    runnable: f64,
    blocked: f64,
    of_life: f64,
}

fn threads(test: &Test) -> Vec<Row> {
    let text = output(env!("CARGO_BIN_EXE_profiler"), &["threads", &test.path("output.pb.gz")]);
    let row = |line: &str| {
        // A name may have spaces.
        let words: Vec<&str> = line.split_whitespace().collect();
        let n = words.len();
        let number = |at: usize| words[n - at].trim_end_matches('%').parse().unwrap();
        Row {
            tid: words[1].parse().unwrap(),
            name: words[2..n - 9].join(" "),
            on_cpu: number(9),
            sampled: number(8),
            error: number(6),
            runnable: number(5),
            blocked: number(4),
            of_life: number(1),
        }
    };
    text.lines().skip(1).map(row).collect()
}

fn closes_alone(row: &Row) {
    assert!((99.5..=100.5).contains(&row.of_life), "{row:?}");
}

/// Every thread's sum is its life; the sampler's time is within its own error, of two standard deviations,
/// for 95 % of them, and far from it for none.
fn closes(test: &Test, rows: &[Row]) {
    rows.iter().for_each(closes_alone);
    // Times are printed in whole milliseconds.
    let within = |times: f64| {
        rows.iter().filter(move |row| (row.sampled - row.on_cpu).abs() <= times * row.error + 1.0).count()
            as u64
    };
    let all = rows.len() as u64;
    test.tell(&format!("sampled time within its error: {} of {all} threads", within(1.0)));
    chance::at_least(within(1.0), all, 0.95, 1, &format!("{rows:?}"));
    assert_eq!(within(2.5), all, "{rows:?}");
}

/// The row of a thread.
fn row<'a>(rows: &'a [Row], name: &str) -> &'a Row {
    rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name} in {rows:?}"))
}

/// The summary's numbers of blocks: taken, complete, incomplete, lost, and the other returns. They add up.
fn blocks_told(told: &str) -> [u64; 5] {
    let line = told.lines().find_map(|line| line.strip_prefix("  blocks  ")).expect(told);
    let (sum, rest) = line.split_once(';').unwrap();
    let short = rest.split("; ").find_map(|part| part.trim().strip_suffix(" short or runnable")).unwrap();
    let short = short.replace(',', "").parse().unwrap();
    let numbers: Vec<u64> = sum.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [taken, complete, incomplete, lost] = numbers[..] else { panic!("{line}") };
    assert_eq!(taken, complete + incomplete + lost, "{line}");
    [taken, complete, incomplete, lost, short]
}

/// Runs a program of the test's under the recorder; returns what the recorder told, and the number that
/// the program printed behind `word`.
fn record_counting(test: &Test, args: &[&str], program: &[&str], word: &str) -> (String, u64) {
    let truth = test.path("truth");
    let command = format!("exec {} > {truth}", program.join(" "));
    let told = test.start(&[&["--off-cpu"], args, &["--", "sh", "-c", &command]].concat()).finish_off_cpu();
    let truth = std::fs::read_to_string(truth).unwrap();
    let number = truth.trim().strip_prefix(word).unwrap_or_else(|| panic!("{word} in {truth}"));
    (told, number.trim().parse().unwrap())
}

#[test]
fn ten_thousand_threads() {
    let Some(test) = Test::alone("off-cpu-many") else { return };
    let program = test.compile("tests/programs/sleepers.c", "sleepers", &["-pthread"]);
    let (told, rounds) = record_counting(&test, &[], &[&program, "10000", "1000", "1"], "rounds");
    let [_, _, _, lost, _] = blocks_told(&told);
    let events = ["--sample-index", "off_cpu_events"];
    let found = Blocks::with(&test, &events, &[]).total(|stack| has(stack, "asleep"));
    test.tell(&format!("{found} of {rounds} blocks, {lost} lost"));
    // Each sleep is one block, and now and then a thread waits for memory besides. Of one in ten thousand
    // sleepers that are moved to another CPU the scheduler itself says that they waited for one.
    assert!(found + lost >= rounds - rounds / 1000 && found <= rounds + rounds / 100, "{told}");
    assert!(lost < rounds / 100, "{told}");
    let rows = threads(&test);
    assert!((10_001..=10_002).contains(&rows.len()), "{}", rows.len());
    rows.iter().for_each(closes_alone);
    // docs/memory.md: beside its stack a thread takes 2 KiB, and the ring is of 4 MiB.
    let (recorder, _) = limits::peaks(&told);
    let cpus = std::thread::available_parallelism().unwrap().get() as f64;
    let file = test.path("output.pb.gz");
    let by_thread = ["folded", "--tagroot", "tid", events[0], events[1], &file];
    let stacks = output(env!("CARGO_BIN_EXE_profiler"), &by_thread).lines().count() as f64;
    let (most, _) = limits::bounds(cpus, 99.0, 10.0, stacks, limits::rows(&told));
    let most = most + 2.0 * 4.0 + rows.len() as f64 / 512.0;
    test.tell(&format!("recorder {recorder} of at most {most:.1} MiB"));
    assert!(recorder > 1.0 && recorder < most, "{told}");
}

#[test]
fn as_many_switches_as_there_can_be() {
    let Some(test) = Test::alone("off-cpu-switches") else { return };
    let program = test.compile("tests/programs/switches.c", "switches", &["-pthread"]);
    for block in ["0", "1ms"] {
        let (told, switches) =
            record_counting(&test, &["--min-block", block], &[&program, "2", "1"], "switches");
        let [taken, _, _, lost, short] = blocks_told(&told);
        test.tell(&format!("--min-block {block}: {switches} switches/s, {lost} lost"));
        // Every switch of the program is one return, but for a few before and after it counts.
        assert!((taken + short).abs_diff(switches) < 100, "{switches} switches: {told}");
        assert!(lost < switches / 1000, "{told}");
        assert_eq!(block == "0", taken > switches / 4, "{told}");
        threads(&test).iter().for_each(closes_alone);
    }
}

#[test]
fn stress_adds_up() {
    let Some(test) = Test::alone("off-cpu-stress") else { return };
    if !test.needs("stress-ng") {
        return;
    }
    let mut timeouts = ["3s", "10s", "30s"].into_iter();
    chance::again("every stressor has 100 ms of CPU time", 3, || {
        let timeout = timeouts.next().unwrap();
        let stress =
            ["stress-ng", "--quiet", "--cpu", "2", "--switch", "2", "--timer", "1", "--timeout", timeout];
        test.start(&[&["--off-cpu", "--"][..], &stress].concat()).finish_off_cpu();
        let rows = threads(&test);
        closes(&test, &rows);
        // Each switch stressor is a pair.
        for (name, threads) in [("stress-ng-cpu", 2), ("stress-ng-switc", 4), ("stress-ng-timer", 1)] {
            let found = rows.iter().filter(|row| row.name == name && row.on_cpu > 100.0).count();
            if found != threads {
                return Err(format!("{found} of {threads} {name} in {timeout}: {rows:?}"));
            }
        }
        Ok(())
    });
}

/// What `perf sched timehist` says of a thread, in milliseconds.
#[derive(Debug, Default)]
struct Timehist {
    off_cpu: f64,
    blocked: f64,
    is_preempted: bool,
}

/// By thread's name. A line tells of a thread's turn on a CPU: how long it was off it before, how long of
/// that it had been woken already, how long it ran, and in which state it left.
fn timehist(test: &Test, data: &str) -> Result<BTreeMap<String, Timehist>, String> {
    let perf = ["--mount", "perf", "sched", "timehist", "--state", "-i", data];
    let output = Command::new("unshare").args(perf).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let mut threads: BTreeMap<String, Timehist> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, cpu, ref name @ .., wait, delay, _, state] = words[..] else { continue };
        let (Ok(wait), Ok(delay)) = (wait.parse::<f64>(), delay.parse::<f64>()) else { continue };
        assert!(cpu.starts_with('['), "{line}");
        let name = name.join(" ");
        let thread = threads.entry(name.split('[').next().unwrap().to_owned()).or_default();
        thread.off_cpu += wait;
        thread.blocked += if thread.is_preempted { 0.0 } else { wait - delay };
        thread.is_preempted = state == "R";
    }
    test.tell(&format!("perf sched timehist: {} names of threads", threads.len()));
    Ok(threads)
}

#[test]
fn perf_says_the_same() {
    let Some(test) = Test::alone("off-cpu-perf") else { return };
    if !test.needs("perf") {
        return;
    }
    let program = test.compile("samples/blocking.c", "blocking", &["-fomit-frame-pointer", "-pthread"]);
    let data = test.path("perf.data");
    // perf mounts tracefs if it finds none: not for the whole machine. On one CPU, as perf 6.1 has been
    // seen to lose all events of another one's idle task.
    let record = ["perf", "sched", "record", "-m", "4M", "-o", &data, "--", "taskset", "-c", "0"];
    let perf = [&["unshare", "--mount"], &record[..]].concat();
    let program = [&program, "3", test.disk()];
    let ours = ["--off-cpu", "--min-block", "0", "--"];
    let perf = chance::again("perf reads what it has written", 3, || {
        test.start(&[&ours[..], &perf, &program[..]].concat()).finish_off_cpu();
        timehist(&test, &data)
    });
    let blocks = Blocks::of(&test, &[]);
    let rows = threads(&test);
    for (thread, function) in FUNCTIONS {
        let row = rows.iter().find(|row| row.name == thread).unwrap();
        let truth = perf.get(thread).unwrap_or_else(|| panic!("{thread} in {perf:?}"));
        if truth.off_cpu < 500.0 {
            assert!(["fsync", "disk"].contains(&thread), "{thread} was off the CPU for {truth:?}");
            test.skip(&format!("{function} blocks for {:.0} ms of 3 s only here", truth.off_cpu));
            continue;
        }
        let found = blocks.total(|stack| has(stack, function)) as f64 / 1e6;
        // When a wait for something ends and one for a CPU begins, the two do not mean the same moment.
        let blocked = found / truth.blocked;
        let off = (found + row.runnable) / truth.off_cpu;
        test.tell(&format!("{function}: {off:.4} of perf's time off the CPU; blocked alone {blocked:.4}"));
        assert!((0.97..=1.03).contains(&off), "{row:?} {truth:?}");
    }
}

#[test]
fn threads_that_execute_and_zombies() {
    let Some(test) = Test::alone("off-cpu-exec") else { return };
    let program = test.compile("tests/programs/executes.c", "executes", &["-pthread"]);
    let zombie = spawn(Command::new("sh").args(["-c", "true & exec sleep 600"]));
    sleep(Duration::from_millis(200));
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", zombie.0.id())).unwrap();
    let dead: u32 = children.trim().parse().unwrap();
    let pid = zombie.0.id().to_string();
    test.start(&["--off-cpu", "-p", &format!("{pid},{dead}"), "-d", "300ms"]).finish_off_cpu();
    let rows = threads(&test);
    assert!(rows.iter().all(|row| row.tid != dead), "{rows:?}");
    test.start(&["--off-cpu", "--", &program]).finish_off_cpu();
    let rows = threads(&test);
    rows.iter().for_each(closes_alone);
    // The first thread waits for 200 ms, when the second executes the program again, which waits for 300.
    let blocked: Vec<f64> = rows.iter().map(|row| row.blocked).collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    // Each waits for the other as well, while that waits for a CPU and executes.
    let others: f64 = rows.iter().map(|row| row.runnable + row.on_cpu).sum();
    assert!(blocked.iter().any(|ms| (199.0..250.0 + others).contains(ms)), "{rows:?}");
    assert!(blocked.iter().any(|ms| (499.0..600.0 + others).contains(ms)), "{rows:?}");
}

#[test]
fn every_way_to_wait() {
    let Some(test) = Test::alone("off-cpu-kinds") else { return };
    let program = test.compile("samples/blocking.c", "blocking", &["-fomit-frame-pointer", "-pthread"]);
    let truth = test.path("truth");
    let command = format!("exec {program} 5 {} > {truth}", test.disk());
    test.start(&["--off-cpu", "--min-block", "0", "--", "sh", "-c", &command]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    let truth = std::fs::read_to_string(truth).unwrap();
    for (thread, function) in FUNCTIONS {
        let bound = if ["mutex", "fsync"].contains(&thread) { 0.08 } else { 0.03 };
        let line = truth.lines().find_map(|line| line.strip_prefix(thread)?.strip_prefix(' '));
        let told: f64 = line.unwrap_or_else(|| panic!("{thread} in {truth}")).parse().unwrap();
        if told < 500e6 {
            // A file system in memory has nothing to wait for.
            assert!(["fsync", "disk"].contains(&thread), "{thread} was blocked for {told} ns");
            test.skip(&format!("{function} blocks for {:.0} ms of 5 s only here", told / 1e6));
            continue;
        }
        let found = blocks.total(|stack| has(stack, function)) as f64;
        test.tell(&format!("{function}: {:.4} of what the program says", found / told));
        assert!((found / told - 1.0).abs() <= bound, "{function}: {found} of {told}");
        let whole =
            blocks.total(|stack| has(stack, function) && starts_thread(&stack[1]) && has(stack, "work"));
        assert!(whole as f64 >= 0.995 * found, "{function}: {whole} of {found} from the thread's start");
        let above = blocks.total(|stack| has(stack, function) && stack[0] != thread);
        assert!((above as f64) < 0.001 * found, "{function} in other threads: {above}");
    }
    closes(&test, &threads(&test));
}

/// Who wakes whom in samples/blocking.c its text says.
#[test]
fn wakers_are_found() {
    let Some(test) = Test::alone("off-cpu-wakers") else { return };
    let program = test.compile("samples/blocking.c", "blocking", &["-fomit-frame-pointer", "-pthread"]);
    let dir = test.disk();
    test.start(&["--off-cpu", "--wakers", "--", &program, "2", dir]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    for (function, waker, comm) in [
        ("in_pipe_read", "main_[w]", "blocking_[w]"),
        ("in_poll", "main_[w]", "blocking_[w]"),
        ("in_epoll", "main_[w]", "blocking_[w]"),
        ("in_mutex", "hold_[w]", "holder_[w]"),
        ("in_nanosleep", "try_to_wake_up_[w]", "[interrupt]_[w]"),
    ] {
        let all = blocks.total(|stack| has(stack, function));
        let woken = blocks.total(|stack| {
            let at = |name: &str| stack.iter().position(|frame| frame == name);
            let order = [function, "--_[w]", "try_to_wake_up_[w]", waker, comm].map(at);
            order.is_sorted() && order[0].is_some() && order[4] == Some(stack.len() - 1)
        });
        test.tell(&format!("{function}: {:.1} % by {waker}", 100.0 * woken as f64 / all as f64));
        assert!(all > 500_000_000 && woken as f64 >= 0.98 * all as f64, "{function}: {woken} of {all}");
    }
    closes(&test, &threads(&test));
}

/// The waker is not of those that were asked for.
#[test]
fn wakers_of_another_process() {
    let Some(test) = Test::alone("off-cpu-waker") else { return };
    let write = "import os, time\ndef tick():\n  os.write(1, b'x')\n  time.sleep(.005)\nwhile True: tick()";
    let mut writer = Command::new("python3");
    let mut writer = spawn(writer.args(["-c", write]).stdout(std::process::Stdio::piped()));
    let pipe = writer.0.stdout.take().unwrap();
    let reader = Command::new("cat").stdin(pipe).stdout(std::process::Stdio::null()).spawn().unwrap();
    let reader = crate::common::Guarded(reader);
    sleep(Duration::from_millis(100));
    let pid = reader.0.id().to_string();
    let recorder = test.started(&["--off-cpu-only", "--wakers", "-p", &pid]);
    // What it is not on a CPU or waits for one, as the scheduler counts it, it reads.
    let elsewhere = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        text.split(' ').take(2).map(|ns| ns.parse::<u64>().unwrap()).sum::<u64>()
    };
    let (start, before) = (Instant::now(), elsewhere());
    sleep(Duration::from_secs(2));
    let reads = start.elapsed().as_nanos() as u64 - (elsewhere() - before);
    kill(recorder.pid(), Signal::SIGINT);
    recorder.finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    let all = blocks.total(|stack| has(stack, "vfs_read"));
    let woken = blocks.total(|stack| {
        stack.ends_with(&["_start_[w]".to_owned(), "python3_[w]".to_owned()])
            && stack.iter().any(|frame| frame.contains("write_[w]"))
    });
    assert!(
        reads > 500_000_000 && all as f64 >= 0.95 * reads as f64,
        "{all} ns of {reads}, which is too little: {:?}",
        blocks.0
    );
    assert!(woken as f64 >= 0.98 * all as f64, "{woken} of {all}: {:?}", blocks.0);
    assert!(blocks.total(|stack| stack[0] != "cat") == 0);
}

#[test]
fn short_blocks_are_added_up() {
    let Some(test) = Test::alone("off-cpu-short") else { return };
    let program = test.compile("samples/blocking.c", "blocking", &["-pthread"]);
    let dir = test.disk();
    test.start(&["--off-cpu", "--", &program, "2", dir]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    // Reads of 1 MiB take a disk less than 1 ms now and then, ticks of 7 ms never.
    assert!(blocks.total(|stack| stack[0] == "nanosleep" && has(stack, "[blocked < 1 ms]")) < 50_000_000);
    let rows = threads(&test);
    let sleeps = row(&rows, "nanosleep").blocked;
    let found = blocks.total(|stack| has(stack, "in_nanosleep")) as f64 / 1e6;
    assert!(sleeps > 500.0 && found >= 0.95 * sleeps, "{found} of {sleeps} ms");
    closes(&test, &rows);
}

#[test]
fn two_hogs_share_a_cpu() {
    let Some(test) = Test::alone("off-cpu-hogs") else { return };
    let hogs: Vec<_> = ["hog_a", "hog_b"].map(|name| test.spin(name, name, &[])).to_vec();
    let running: Vec<_> =
        hogs.iter().map(|hog| spawn(Command::new("taskset").args(["-c", "0", hog, "600"]))).collect();
    running.iter().for_each(|hog| wait_for_cpu_time(hog.0.id(), 0.2));
    let pids = format!("{},{}", running[0].0.id(), running[1].0.id());
    let recorder = test.started(&["--off-cpu", "-p", &pids]);
    // Milliseconds that each waited for the CPU, as the scheduler counts them. Others may run there too.
    let delays = || {
        running.iter().map(|hog| {
            let text = std::fs::read_to_string(format!("/proc/{}/schedstat", hog.0.id())).unwrap();
            text.split(' ').nth(1).unwrap().parse::<f64>().unwrap() / 1e6
        })
    };
    let (start, before) = (Instant::now(), delays().collect::<Vec<_>>());
    sleep(Duration::from_secs(4));
    let truth: Vec<f64> = delays().zip(before).map(|(after, before)| after - before).collect();
    let seen = start.elapsed().as_secs_f64() * 1e3;
    kill(recorder.pid(), Signal::SIGINT);
    recorder.finish_off_cpu();
    let rows = threads(&test);
    assert_eq!(rows.len(), 2, "{rows:?}");
    for (name, truth) in ["hog_a", "hog_b"].into_iter().zip(truth) {
        let row = row(&rows, name);
        let life = row.on_cpu + row.runnable + row.blocked;
        test.tell(&format!("{name}: {} ms runnable of {life:.0}; {truth:.0} of {seen:.0} ms", row.runnable));
        // The recording began before, and ended after. A turn that lasts is counted when it ends.
        let slack = 50.0 + 0.02 * truth;
        let range = truth - slack..truth + (life - seen).max(0.0) + slack;
        assert!(range.contains(&row.runnable), "{range:?} {row:?}");
        assert!(row.runnable > 0.4 * life && row.blocked < 0.01 * life, "{row:?}");
    }
    closes(&test, &rows);
    let runnable = rows.iter().map(|row| row.runnable).sum::<f64>();
    let found = Blocks::of(&test, &[]).total(|stack| stack[1] == "[runnable]") as f64 / 1e6;
    assert!((found / runnable - 1.0).abs() < 0.01, "{found} of {runnable} ms");
}

#[test]
fn one_that_waits_all_the_time() {
    let Some(test) = Test::alone("off-cpu-still") else { return };
    let sleeper = spawn(Command::new("sleep").arg("600"));
    sleep(Duration::from_millis(200));
    let pid = sleeper.0.id().to_string();
    let start = Instant::now();
    test.start(&["--off-cpu-only", "-p", &pid, "-d", "2s"]).finish_off_cpu();
    let most = start.elapsed().as_nanos() as u64;
    let blocks = Blocks::of(&test, &[]);
    let [(stack, ns)] = &blocks.0[..] else { panic!("{:?}", blocks.0) };
    assert!((1_950_000_000..most).contains(ns), "{ns} of {most}");
    assert!(stack[1] == "_start" && has(stack, "main") || stack[1].contains("sleep"), "{stack:?}");
    assert!(stack.iter().any(|frame| frame.contains("nanosleep")), "{stack:?}");
    assert!(stack.last().unwrap().contains("nanosleep"), "{stack:?}");
    let hidden = Blocks::of(&test, &["--hide-idle"]);
    assert!(hidden.0[0].0[0].starts_with("[1 idle thread: "), "{:?}", hidden.0);
}

#[test]
fn threads_that_come_and_go() {
    let Some(test) = Test::alone("off-cpu-churn") else { return };
    let script = "for i in $(seq 200); do /bin/sleep 0.01; done";
    let recording = test.start(&["--off-cpu", "--", "sh", "-c", script]).finish_off_cpu();
    let rows = threads(&test);
    closes(&test, &rows);
    let sleepers: Vec<&Row> = rows.iter().filter(|row| row.name == "sleep").collect();
    assert!((199..=201).contains(&sleepers.len()), "{}: {recording}", sleepers.len());
    let mut tids: Vec<u32> = rows.iter().map(|row| row.tid).collect();
    tids.sort_unstable();
    tids.dedup();
    assert_eq!(tids.len(), rows.len(), "a thread has two rows");
    // Each sleeps for 10 ms, and the shell waits for it.
    let asleep = Blocks::of(&test, &[])
        .total(|stack| stack[0] == "sleep" && stack.iter().any(|frame| frame.contains("nanosleep")));
    assert!((2_000_000_000..3_000_000_000).contains(&asleep), "{asleep}");
}

#[test]
fn the_idle_task_never_blocks() {
    let Some(test) = Test::alone("off-cpu-system") else { return };
    test.start(&["--off-cpu", "-d", "2s"]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    assert_eq!(blocks.total(|stack| stack[0].starts_with("swapper")), 0);
    let rows = threads(&test);
    assert!(rows.len() > 20, "{}", rows.len());
    closes(&test, &rows);
    let by_state: BTreeMap<bool, usize> = rows.iter().fold(BTreeMap::new(), |mut map, row| {
        *map.entry(row.blocked > 0.0).or_default() += 1;
        map
    });
    assert!(by_state[&true] > 10, "{by_state:?}");
}

#[test]
fn one_that_waits_by_frame_pointers() {
    let Some(test) = Test::alone("off-cpu-fp") else { return };
    let program = test.compile("tests/programs/sleepers.c", "sleepers", &["-pthread"]);
    let sleeper = spawn(Command::new(program).args(["1", "600000", "600"]));
    sleep(Duration::from_millis(200));
    let pid = sleeper.0.id().to_string();
    let told = test.start(&["--off-cpu-only", "--unwind", "fp", "-p", &pid, "-d", "300ms"]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    // The libc in between has no frame pointers: it hides its caller, and no more.
    assert!(blocks.total(|stack| has(stack, "work")) > 290_000_000, "{:?}", blocks.0);
    // Nothing was sampled, so the summary is of blocks: where two threads sleep.
    assert!(told.contains("profiler: 2 blocks in ") && !told.contains(" samples in "), "{told}");
    let hottest = told.lines().find(|line| line.starts_with("  blocked ")).expect(&told);
    // Since glibc 2.41 all calls that can be cancelled are made in one place.
    let sleeps = ["nanosleep", "__syscall_cancel_arch"].iter().any(|name| hottest.contains(name));
    assert!(hottest.contains("100.0%") && sleeps, "{told}");
}

#[test]
fn no_blocks_are_explained() {
    let Some(test) = Test::alone("off-cpu-nothing") else { return };
    let program = test.spin("hog", "busy", &[]);
    let told = test.start(&["--off-cpu-only", "--min-block", "10s", "--", &program, "0.2"]).finish_off_cpu();
    assert!(told.contains("profiler: 0 blocks: ") && told.contains("[blocked < 10 s]"), "{told}");
    // The other way round: who waits has no samples, but it has blocks.
    let still = spawn(Command::new("sleep").arg("600"));
    let pid = still.0.id().to_string();
    let told = test.start(&["--off-cpu", "-p", &pid, "-d", "200ms"]).finish_off_cpu();
    assert!(told.contains("0 samples: the target used 0 ms") && told.contains("--type off-cpu"), "{told}");
    // Blocks in other states than asked for have no stack, and their frame says so.
    test.start(&["--off-cpu", "--state", "D", "-p", &pid, "-d", "200ms"]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    assert!(blocks.total(|stack| has(stack, "[blocked < 1 ms or not in D]")) > 190_000_000, "{:?}", blocks.0);
}

/// An interrupt at any moment leaves a whole file or none.
#[test]
fn interrupts_of_a_start() {
    let Some(test) = Test::alone("off-cpu-interrupts") else { return };
    let (mut whole, mut none) = (0, 0);
    // Milliseconds after its start, and two that come when it samples.
    for wait in [Some(5), Some(60), Some(120), Some(200), Some(400), None, None] {
        let mut recorder = test.start(&["--off-cpu", "-a"]);
        match wait {
            Some(wait) => sleep(Duration::from_millis(wait)),
            None => recorder.wait_until_it_samples(),
        }
        kill(recorder.pid(), Signal::SIGINT);
        if recorder.child.0.wait().unwrap().signal() == Some(2) {
            assert!(test.names().is_empty(), "{:?}", test.names());
            none += 1;
            continue;
        }
        recorder.finish_off_cpu();
        assert_eq!(test.names(), ["output.pb.gz"]);
        threads(&test).iter().for_each(closes_alone);
        std::fs::remove_file(test.path("output.pb.gz")).unwrap();
        whole += 1;
    }
    test.tell(&format!("{whole} files, {none} times none"));
    assert!(whole >= 2);
}

/// The end of a recording meets threads that switch at that moment: each block is in one place.
#[test]
fn ends_amid_switches() {
    let Some(test) = Test::new("off-cpu-ends") else { return };
    let program = test.compile("tests/programs/sleepers.c", "sleepers", &["-pthread"]);
    let _sleepers = spawn(Command::new(&program).args(["40", "1", "1000"]));
    for _ in 0..25 {
        test.start(&["--off-cpu", "--no-symbolize", "-a", "-d", "20ms"]).finish_off_cpu();
        threads(&test).iter().for_each(closes_alone);
    }
}

#[test]
fn requests_that_make_no_sense() {
    let Some(test) = Test::new("off-cpu-refusals") else { return };
    let cases: &[(&[&str], &[&str])] = &[
        (&["--off-cpu", "--min-block", "soon"], &["--min-block", "100us"]),
        (&["--off-cpu", "--min-block", "-1"], &["'-1'"]),
        (&["--off-cpu", "--min-block", ""], &["--min-block"]),
        (&["--off-cpu", "--max-block", "1parsec"], &["--max-block", "100us"]),
        (&["--off-cpu", "--max-block", "0"], &["--max-block 0ns is shorter than --min-block 1ms"]),
        (&["--off-cpu", "--min-block", "2s", "--max-block", "1s"], &["--max-block 1s is shorter"]),
        (&["--off-cpu", "--state", "Q"], &["--state", "'Q'", "S, D, I or T"]),
        (&["--off-cpu", "--state", ""], &["--state", "expected states"]),
        (&["--off-cpu", "--state", "R"], &["[runnable]"]),
        (&["--state", "S"], &["required", "--off-cpu"]),
        (&["--min-block", "0"], &["required", "--off-cpu"]),
        (&["--off-cpu", "--off-cpu-only"], &["cannot be used with"]),
        (&["--off-cpu-only", "-F", "99"], &["cannot be used with"]),
        (&["--off-cpu", "-C", "0"], &["cannot be used with"]),
    ];
    for (args, words) in cases {
        let message = refusal(&test.profiler(&[&["record", "-d", "1s"], *args].concat()).output().unwrap());
        for word in *words {
            assert!(message.contains(word), "{args:?}: {message:?} lacks {word:?}");
        }
        assert!(test.names().is_empty(), "{args:?}");
    }
    // Views of a file that has no time off the CPU.
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cpu.pb.gz");
    for (args, words) in [
        (&["folded", "--hide-idle"][..], ["idle", "record with --off-cpu"]),
        (&["flamegraph", "--type", "wall"], ["'wall'", "record with --off-cpu"]),
        (&["folded", "--type", "off-cpu"], ["'off_cpu'", "record with --off-cpu"]),
        (&["threads"], ["times of threads", "record with --off-cpu"]),
    ] {
        let message = refusal(&test.profiler(&[args, &[file]].concat()).output().unwrap());
        assert!(words.iter().all(|word| message.contains(word)), "{args:?}: {message}");
    }
}
