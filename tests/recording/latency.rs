//! How long calls take. What is right the measured program knows: how often it calls, and how long that
//! takes by its own clock.

use std::collections::BTreeMap;
use std::process::Output;

use crate::chance;
use crate::common::{Test, output, refusal, wait_until};

/// The numbers of the first line: calls = returned + left + deep + open.
#[derive(Debug, PartialEq, Eq)]
struct Sums {
    calls: u64,
    returned: u64,
    left: u64,
    deep: u64,
    open: u64,
}

/// What was printed.
struct Measured {
    sums: Sums,
    /// Calls by the least nanoseconds of their slot.
    slots: BTreeMap<u64, u64>,
    text: String,
    told: String,
}

impl Measured {
    fn of(output: &Output) -> Self {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !told.contains("panicked"), "{}: {told}", output.status);
        // A measured command prints there too.
        let line = text.lines().find(|line| line.contains(" calls = returned ")).expect(&told);
        let numbers: Vec<u64> = line.split([' ', ';']).filter_map(|word| word.parse().ok()).collect();
        let [calls, returned, left, deep, open] = numbers[..5] else { panic!("{line}") };
        assert_eq!(calls, returned + left + deep + open, "{line}");
        let slot = |line: &str| -> Option<(u64, u64)> {
            let (range, calls) = line.split_once(" : ")?;
            let calls = calls.split(' ').next()?.parse().ok()?;
            Some((range.split(" .. ").next()?.trim().parse().ok()?, calls))
        };
        let slots: BTreeMap<u64, u64> =
            text.lines().filter_map(slot).filter(|(_, calls)| *calls > 0).collect();
        assert_eq!(slots.values().sum::<u64>(), returned, "{text}");
        Self { sums: Sums { calls, returned, left, deep, open }, slots: with_zero_as_one(slots), text, told }
    }

    /// What the program printed of itself: slow calls, and calls by slot.
    fn truth(&self) -> (u64, BTreeMap<u64, u64>) {
        let slow = self.text.lines().find_map(|line| line.strip_prefix("slow ")?.parse().ok()).unwrap();
        let pair = |line: &str| {
            let (slot, calls) = line.split_once(' ')?;
            Some((slot.parse().ok()?, calls.parse().ok()?))
        };
        (slow, self.text.lines().filter_map(pair).collect())
    }
}

fn with_zero_as_one(mut slots: BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
    if let Some(calls) = slots.remove(&0) {
        slots.insert(1, calls);
    }
    slots
}

/// Measures a program's own function, or a system call, while it does one kind of calls.
fn measure(test: &Test, target: &str, args: &[&str], program: &[&str]) -> Measured {
    // Other system calls of the machine cost too, and how many there are is not the test's.
    let line = [&["latency", target, "--max-cost", "1000"], args, &["--"], program].concat();
    Measured::of(&test.profiler(&line).output().unwrap())
}

fn compile(test: &Test) -> String {
    test.compile("tests/programs/latency.c", "calls", &["-pthread", "-fno-inline"])
}

/// At least 99 % of the calls are in the slot that the program has them in, which is another one only if
/// what the probes add leads over its edge.
fn near_truth(measured: &Measured) {
    let (_, truth) = measured.truth();
    let all: u64 = truth.values().sum();
    let same: u64 =
        truth.iter().map(|(slot, &calls)| calls.min(measured.slots.get(slot).copied().unwrap_or(0))).sum();
    assert_eq!(measured.sums.returned, all, "{}", measured.text);
    chance::at_least(same, all, 0.99, 100, &measured.text);
}

#[test]
fn functions_are_timed_by_the_slot() {
    let Some(test) = Test::alone("latency-sleeps") else { return };
    let program = compile(&test);
    let target = format!("{program}:asleep");
    let alone = measure(&test, &target, &[], &[&program, "sleeps", "400"]);
    assert_eq!(alone.sums, Sums { calls: 400, returned: 400, left: 0, deep: 0, open: 0 });
    near_truth(&alone);
    assert!(alone.told.contains("measuring costs a call "), "{}", alone.told);
    test.tell(alone.told.lines().find(|line| line.contains("measuring costs")).unwrap());
    let threads = measure(&test, &target, &[], &[&program, "threads", "200"]);
    assert_eq!(threads.sums, Sums { calls: 800, returned: 800, left: 0, deep: 0, open: 0 });
    near_truth(&threads);
}

#[test]
fn each_call_is_counted_however_it_ends() {
    let Some(test) = Test::alone("latency-exact") else { return };
    let program = compile(&test);
    let found = |function: &str, kind: &str| {
        measure(&test, &format!("{program}:{function}"), &[], &[&program, kind, "100"]).sums
    };
    let all_return = |calls| Sums { calls, returned: calls, left: 0, deep: 0, open: 0 };
    assert_eq!(found("recurses", "recursion"), all_return(1000));
    // Of 100 calls at once the kernel sees 64 return.
    assert_eq!(
        found("recurses", "deep"),
        Sums { calls: 10_000, returned: 6400, left: 0, deep: 3600, open: 0 }
    );
    // What is left shows when the next one begins; the last ones stay open.
    assert_eq!(found("leaves", "longjmp"), Sums { calls: 100, returned: 0, left: 99, deep: 0, open: 1 });
    assert_eq!(found("enters", "longjmp"), Sums { calls: 300, returned: 0, left: 297, deep: 0, open: 3 });
    assert_eq!(found("even", "jumps"), all_return(500));
    assert_eq!(found("odd", "jumps"), all_return(400));
}

#[test]
fn system_calls_are_counted_by_process() {
    let Some(test) = Test::alone("latency-syscalls") else { return };
    let program = compile(&test);
    let asks = measure(&test, "syscall:getppid", &[], &[&program, "asks", "50000"]);
    assert_eq!(asks.sums, Sums { calls: 50_000, returned: 50_000, left: 0, deep: 0, open: 0 });
    assert!(asks.told.contains("and each other system call of the machine"), "{}", asks.told);
    let sleeps = measure(&test, "syscall:clock_nanosleep", &[], &[&program, "sleeps", "400"]);
    near_truth(&sleeps);
    // A shell and two children of it: each has its own histogram.
    let command = format!("{program} asks 300 >one; {program} asks 200 >two");
    let output = test
        .profiler(&[
            "latency",
            "syscall:getppid",
            "--max-cost",
            "1000",
            "--per-process",
            "--",
            "sh",
            "-c",
            &command,
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for (calls, name) in [(300, "calls ("), (200, "calls (")] {
        let line = format!("): {calls} calls = returned {calls} + left 0 + deep 0 + open 0");
        assert!(text.lines().any(|found| found.starts_with(name) && found.contains(&line)), "{text}");
    }
}

/// In a mount namespace, as in a container, a path may be that of another file.
#[test]
fn a_file_is_that_of_the_process() {
    let Some(test) = Test::alone("latency-mounts") else { return };
    let here = compile(&test);
    let other = test.path("other");
    std::fs::copy(&here, &other).unwrap();
    let script = "mount --bind \"$1\" \"$0\" && exec \"$0\" sleeps 100000";
    let mut unshare = std::process::Command::new("unshare");
    unshare.args(["-m", "sh", "-c", script, &here, &other]).stdout(std::process::Stdio::null());
    let inside = crate::common::spawn(&mut unshare);
    let mut outside = std::process::Command::new(&here);
    outside.args(["sleeps", "100000"]).stdout(std::process::Stdio::null());
    let pid = inside.0.id().to_string();
    let exe = format!("/proc/{pid}/maps");
    wait_until("it runs", || std::fs::read_to_string(&exe).is_ok_and(|maps| maps.contains("/calls")));
    let latency = |target: &str, more: &[&str]| {
        let line = [&["latency", target, "-d", "300ms", "--max-cost", "1000"], more].concat();
        test.profiler(&line).output().unwrap()
    };
    let through = |link: &str| format!("/proc/{pid}/{link}:asleep");
    let named = [through(&format!("root{here}")), through("exe")];
    let asked = [format!("{here}:asleep"), "calls:asleep".to_owned()];
    let in_it = ["-p", &*pid];
    let anywhere = named.iter().map(|target| (target, &[][..]));
    for (target, more) in anywhere.chain(asked.iter().map(|target| (target, &in_it[..]))) {
        let Sums { calls, returned, left, deep, .. } = Measured::of(&latency(target, more)).sums;
        // Of 2.7 ms on average.
        assert!(calls > 10 && returned + 1 >= calls && left + deep == 0, "{target} {more:?}: {calls}");
    }
    // That of the same path here is another one, which nobody runs.
    assert_eq!(Measured::of(&latency(&asked[0], &[])).sums.calls, 0);
    let outside = crate::common::spawn(&mut outside);
    let both = format!("{pid},{}", outside.0.id());
    wait_until("both run", || {
        std::fs::read_to_string(format!("/proc/{}/maps", outside.0.id()))
            .is_ok_and(|maps| maps.contains("/calls"))
    });
    let why = refusal(&latency(&asked[0], &["-p", &both]));
    assert!(why.contains(&format!("is one file in process {pid} and another one in ")), "{why}");
    // What is deleted is measured where it runs.
    std::fs::remove_file(&here).unwrap();
    let alone = outside.0.id().to_string();
    assert!(Measured::of(&latency(&asked[0], &["-p", &alone])).sums.calls > 10);
    assert!(refusal(&latency(&asked[0], &[])).contains("failed to find"));
}

#[test]
fn stacks_on_standard_output_are_there_alone() {
    let Some(test) = Test::alone("latency-piped") else { return };
    let program = compile(&test);
    let mut sleeps = std::process::Command::new(&program);
    let sleeps = crate::common::spawn(sleeps.args(["sleeps", "100000"]).stdout(std::process::Stdio::null()));
    let pid = sleeps.0.id().to_string();
    let line = ["latency", "syscall:clock_nanosleep", "-p", &pid, "-d", "1s", "--slower-than", "1ms"];
    let output = test.profiler(&[&line[..], &["-o", "-"]].concat()).output().unwrap();
    assert!(output.stdout.starts_with(&[0x1f, 0x8b]), "{}", String::from_utf8_lossy(&output.stdout));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains(" calls = returned ") && told.contains(" distribution"), "{told}");
    let file = test.path("piped");
    std::fs::write(&file, &output.stdout).unwrap();
    let folded = crate::common::output(env!("CARGO_BIN_EXE_profiler"), &["folded", &file]);
    assert!(folded.lines().all(|line| line.contains(";sleeps;")) && !folded.is_empty(), "{folded}");
}

/// A program that has just begun has no unwind tables yet: its stacks wait for them.
#[test]
fn stacks_of_a_young_program_are_whole() {
    let Some(test) = Test::alone("latency-young") else { return };
    let program = compile(&test);
    let target = format!("{program}:recurses");
    // 10,000 calls in a moment; of those whose stacks are sent, 64 between two looks, the rest is not whole.
    let mut whole = Vec::new();
    for _ in 0..3 {
        let measured = measure(&test, &target, &["--slower-than", "1ns"], &[&program, "recursion", "1000"]);
        let sum = measured.told.lines().find(|line| line.starts_with("  taken ")).unwrap().to_owned();
        let numbers: Vec<u64> = sum.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [taken, complete, ..] = numbers[..] else { panic!("{sum}") };
        assert_eq!(taken, 10_000, "{sum}");
        whole.push(complete);
        if complete * 2 > taken {
            return test.tell(&sum);
        }
    }
    panic!("of 10000: {whole:?}");
}

#[test]
fn stacks_of_slow_calls_are_kept() {
    let Some(test) = Test::alone("latency-slow") else { return };
    let program = compile(&test);
    for (target, leaf) in
        [("syscall:clock_nanosleep".to_owned(), "clock_nanosleep"), (format!("{program}:asleep"), "asleep")]
    {
        let measured = measure(&test, &target, &["--slower-than", "2ms"], &[&program, "sleeps", "400"]);
        let (slow, _) = measured.truth();
        let file = test.path("output.pb.gz");
        let folded = |value: &str| {
            let args = ["folded", "--sample-index", value, "--tagroot", "", &file];
            output(env!("CARGO_BIN_EXE_profiler"), &args)
        };
        let lines = folded("calls");
        let sum = |text: &str| -> u64 {
            text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
        };
        // Those that take 2 ms but for what the probes add are few.
        let calls = sum(&lines);
        assert!(calls.abs_diff(slow) <= 2 + slow / 50, "{calls} of {slow}: {lines}");
        assert!(
            measured.told.contains(&format!("{calls} calls of {target} took 2.00 ms or longer")),
            "{}",
            measured.told
        );
        let whole = |line: &&str| {
            let (stack, _) = line.rsplit_once(' ').unwrap();
            let frames: Vec<&str> = stack.split(';').collect();
            frames.last() == Some(&leaf) && frames.contains(&"main") && frames.contains(&"sleeps")
        };
        let text: String = lines.lines().filter(whole).map(|line| format!("{line}\n")).collect();
        chance::at_least(sum(&text), calls, 0.995, 100, &lines);
        assert!(sum(&folded("latency")) >= calls * 2_000_000, "{lines}");
        assert!(!measured.told.contains("UNACCOUNTED"), "{}", measured.told);
        if test.needs("go") {
            let top =
                output("go", &["tool", "pprof", "-top", "-symbolize=none", "-sample_index=latency", &file]);
            assert!(top.contains("Type: latency") && top.contains(leaf), "{top}");
        }
    }
}

#[test]
fn what_costs_too_much_ends_by_itself() {
    let Some(test) = Test::alone("latency-cost") else { return };
    let program = compile(&test);
    let _busy = crate::common::spawn(std::process::Command::new(&program).arg("endless"));
    let began = std::time::Instant::now();
    let target = format!("{program}:asks_itself");
    let output = test.profiler(&["latency", &target, "-d", "10m"]).output().unwrap();
    let measured = Measured::of(&output);
    assert!(measured.told.contains("ended by itself: measuring cost "), "{}", measured.told);
    assert!(began.elapsed().as_secs() < 300, "{}", measured.told);
    test.tell(measured.told.lines().find(|line| line.contains("ended by itself")).unwrap());
}

#[test]
fn functions_of_the_kernel_are_measured_where_that_can_be() {
    let Some(test) = Test::alone("latency-kernel") else { return };
    let program = compile(&test);
    let output =
        test.profiler(&["latency", "kernel:vfs_read", "--", &program, "reads", "3000"]).output().unwrap();
    if !output.status.success() {
        let why = refusal(&output);
        assert!(why.contains("it has no kprobes, and refuses fentry"), "{why}");
        return test.skip(&why);
    }
    let Sums { calls, returned, .. } = Measured::of(&output).sums;
    // The loader reads the head of each library.
    assert!((3000..3030).contains(&calls) && returned == calls, "{calls} {returned}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let Some(test) = Test::alone("latency-refused") else { return };
    let refused = |args: &[&str]| refusal(&test.profiler(&[&["latency"], args].concat()).output().unwrap());
    assert!(refused(&["syscall:raed"]).contains("no system call `raed`"));
    assert!(refused(&["/nowhere:main"]).contains("failed to find /nowhere"));
    assert!(refused(&["sh:no_such_function"]).contains("no symbol of a function `no_such_function`"));
    assert!(refused(&["syscall:read", "-p", "4194305"]).contains("no process 4194305"));
    assert!(refused(&["syscall:read", "--max-cost", "0"]).contains("expected a percentage"));
    assert!(refused(&["syscall:read", "-d", "1ms", "--", "/nowhere/command"]).contains("/nowhere/command"));
    assert!(test.names().is_empty(), "{:?}", test.names());
    let throws = test.compile("tests/programs/throws.cc", "throws", &[]);
    assert!(refused(&[&format!("{throws}:main")]).contains("throws C++ exceptions"));
    // A program that has what Go's have.
    let source = test.file(
        "go.c",
        "int called(void) { return 1; } int main(void) { return called(); }\n\
        __attribute__((section(\".gopclntab\"))) const int table = 1;\n",
    );
    output("gcc", &["-O0", "-o", &test.path("go"), &source]);
    assert!(refused(&[&format!("{}:called", test.path("go"))]).contains("is a Go program"));
}
