//! Time off the CPU. What is right the recorded programs say themselves, from their own clocks and
//! the scheduler's, or the kernel says in /proc.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::common::{Test, output, spawn};

/// Nanoseconds by thread's name and stack, root first.
struct Blocks(Vec<(Vec<String>, u64)>);

impl Blocks {
    fn of(test: &Test, args: &[&str]) -> Self {
        let profiler = env!("CARGO_BIN_EXE_profiler");
        let file = test.path("output.pb.gz");
        let folded = ["folded", "--type", "off-cpu", "--tagroot", "thread_comm", &file];
        let text = output(profiler, &[&folded[..], args].concat());
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

/// Every thread's sum is its life; the sampler's time is within its own error for 95 % of them.
fn closes(test: &Test, rows: &[Row]) {
    for row in rows {
        assert!((99.5..=100.5).contains(&row.of_life), "{row:?}");
    }
    // The error is printed in whole milliseconds.
    let right = rows.iter().filter(|row| (row.sampled - row.on_cpu).abs() <= row.error + 1.0).count();
    test.tell(&format!("sampled time within its error: {right} of {} threads", rows.len()));
    assert!(right as f64 >= 0.95 * rows.len() as f64 - 1.0, "{rows:?}");
}

#[test]
fn every_way_to_wait() {
    let Some(test) = Test::new("off-cpu-kinds") else { return };
    let program = test.compile("samples/blocking.c", "blocking", &["-fomit-frame-pointer", "-pthread"]);
    let truth = test.path("truth");
    let command = format!("exec {program} 5 {} > {truth}", test.dir.display());
    test.start(&["--off-cpu", "--min-block", "0", "--", "sh", "-c", &command]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    let truth = std::fs::read_to_string(truth).unwrap();
    let functions = [
        ("nanosleep", "in_nanosleep", 0.03),
        ("pipe", "in_pipe_read", 0.03),
        ("mutex", "in_mutex", 0.08),
        ("poll", "in_poll", 0.03),
        ("epoll", "in_epoll", 0.03),
        ("fsync", "in_fsync", 0.08),
        ("disk", "in_disk_read", 0.03),
    ];
    for (thread, function, bound) in functions {
        let line = truth.lines().find_map(|line| line.strip_prefix(thread)?.strip_prefix(' '));
        let told: f64 = line.unwrap_or_else(|| panic!("{thread} in {truth}")).parse().unwrap();
        let found = blocks.total(|stack| has(stack, function)) as f64;
        test.tell(&format!("{function}: {:.4} of what the program says", found / told));
        assert!((found / told - 1.0).abs() <= bound, "{function}: {found} of {told}");
        let whole = blocks.total(|stack| {
            has(stack, function) && ["clone3", "__clone3"].contains(&stack[1].as_str()) && has(stack, "work")
        });
        assert!(whole as f64 >= 0.995 * found, "{function}: {whole} of {found} from the thread's start");
        let above = blocks.total(|stack| has(stack, function) && stack[0] != thread);
        assert!((above as f64) < 0.001 * found, "{function} in other threads: {above}");
    }
    closes(&test, &threads(&test));
}

/// Who wakes whom in samples/blocking.c its text says.
#[test]
fn wakers_are_found() {
    let Some(test) = Test::new("off-cpu-wakers") else { return };
    let program = test.compile("samples/blocking.c", "blocking", &["-fomit-frame-pointer", "-pthread"]);
    let dir = test.dir.to_str().unwrap();
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
    let Some(test) = Test::new("off-cpu-waker") else { return };
    let write = "import os, time\ndef tick():\n  os.write(1, b'x')\n  time.sleep(.005)\nwhile True: tick()";
    let mut writer = Command::new("python3");
    let mut writer = spawn(writer.args(["-c", write]).stdout(std::process::Stdio::piped()));
    let pipe = writer.0.stdout.take().unwrap();
    let reader = Command::new("cat").stdin(pipe).stdout(std::process::Stdio::null()).spawn().unwrap();
    let reader = crate::common::Guarded(reader);
    sleep(Duration::from_millis(100));
    let pid = reader.0.id().to_string();
    test.start(&["--off-cpu-only", "--wakers", "-p", &pid, "-d", "2s"]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    let all = blocks.total(|stack| has(stack, "vfs_read"));
    let woken = blocks.total(|stack| {
        stack.ends_with(&["_start_[w]".to_owned(), "python3_[w]".to_owned()])
            && stack.iter().any(|frame| frame.contains("write_[w]"))
    });
    assert!(all > 1_800_000_000 && woken as f64 >= 0.98 * all as f64, "{woken} of {all}: {:?}", blocks.0);
    assert!(blocks.total(|stack| stack[0] != "cat") == 0);
}

#[test]
fn short_blocks_are_added_up() {
    let Some(test) = Test::new("off-cpu-short") else { return };
    let program = test.compile("samples/blocking.c", "blocking", &["-pthread"]);
    let dir = test.dir.to_str().unwrap();
    test.start(&["--off-cpu", "--", &program, "2", dir]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    // Reads of 1 MiB take a disk less than 1 ms now and then, ticks of 7 ms never.
    assert!(blocks.total(|stack| stack[0] == "nanosleep" && has(stack, "[blocked < 1 ms]")) < 50_000_000);
    assert!(blocks.total(|stack| has(stack, "in_nanosleep")) > 1_500_000_000);
    closes(&test, &threads(&test));
}

#[test]
fn two_hogs_share_a_cpu() {
    let Some(test) = Test::new("off-cpu-hogs") else { return };
    let hogs: Vec<_> = ["hog_a", "hog_b"].map(|name| test.spin(name, name, &[])).to_vec();
    let running: Vec<_> =
        hogs.iter().map(|hog| spawn(Command::new("taskset").args(["-c", "0", hog, "30"]))).collect();
    sleep(Duration::from_millis(500));
    let pids = format!("{},{}", running[0].0.id(), running[1].0.id());
    test.start(&["--off-cpu", "-p", &pids, "-d", "4s"]).finish_off_cpu();
    let rows = threads(&test);
    assert_eq!(rows.len(), 2, "{rows:?}");
    for row in &rows {
        let life = row.on_cpu + row.runnable + row.blocked;
        let share = row.runnable / life;
        test.tell(&format!("{}: {:.1} % runnable", row.name, share * 100.0));
        // Others run there too, and take from both.
        assert!((0.4..0.7).contains(&share) && row.blocked < 0.01 * life, "{row:?}");
    }
    closes(&test, &rows);
    let blocks = Blocks::of(&test, &[]);
    assert!(blocks.total(|stack| stack[1] == "[runnable]") > 3_000_000_000);
}

#[test]
fn one_that_waits_all_the_time() {
    let Some(test) = Test::new("off-cpu-still") else { return };
    let sleeper = spawn(Command::new("sleep").arg("60"));
    sleep(Duration::from_millis(200));
    let pid = sleeper.0.id().to_string();
    test.start(&["--off-cpu-only", "-p", &pid, "-d", "2s"]).finish_off_cpu();
    let blocks = Blocks::of(&test, &[]);
    let [(stack, ns)] = &blocks.0[..] else { panic!("{:?}", blocks.0) };
    assert!((1_950_000_000..2_400_000_000).contains(ns), "{ns}");
    assert!(stack[1] == "_start" && has(stack, "main") || stack[1].contains("sleep"), "{stack:?}");
    assert!(stack.iter().any(|frame| frame.contains("nanosleep")), "{stack:?}");
    assert!(stack.last().unwrap().contains("nanosleep"), "{stack:?}");
    let hidden = Blocks::of(&test, &["--hide-idle"]);
    assert!(hidden.0[0].0[0].starts_with("[1 idle thread: 2."), "{:?}", hidden.0);
}

#[test]
fn threads_that_come_and_go() {
    let Some(test) = Test::new("off-cpu-churn") else { return };
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
    assert!((2_000_000_000..2_400_000_000).contains(&asleep), "{asleep}");
}

#[test]
fn the_idle_task_never_blocks() {
    let Some(test) = Test::new("off-cpu-system") else { return };
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
