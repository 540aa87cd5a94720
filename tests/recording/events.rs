//! Samples of events, and the line of counters. What is right the recorded program knows by construction,
//! or the kernel says to it (getrusage), or perf says, which counts in the same run.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use crate::common::{Guarded, Test, output, refusal, rests, wait_until};

const PAGES: u64 = 40_960;
const CALLS: u64 = 30_000;
const BLOCKS: u64 = 2_000;
const COMPUTES_MS: u64 = 700;

/// The program, which waits.
struct Program {
    child: Guarded,
    tells: BufReader<ChildStdout>,
    go: Option<ChildStdin>,
}

/// What the kernel told the program that it had used.
struct Usage {
    faults: f64,
    switches: f64,
    seconds: f64,
}

impl Program {
    fn start(test: &Test) -> Self {
        let program = test.compile("tests/programs/events.c", "events", &[]);
        let numbers = [PAGES, CALLS, BLOCKS, COMPUTES_MS].map(|number| number.to_string());
        let mut child =
            Command::new(program).args(numbers).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (tells, go) = (BufReader::new(child.stdout.take().unwrap()), child.stdin.take());
        Self { child: Guarded(child), tells, go }
    }

    fn pid(&self) -> String {
        self.child.0.id().to_string()
    }

    /// Lets it do its work; returns when it has, and waits again.
    fn work(&mut self) -> Usage {
        self.go.as_mut().unwrap().write_all(b"1").unwrap();
        let mut line = String::new();
        self.tells.read_line(&mut line).unwrap();
        let words: Vec<f64> = line.split(' ').filter_map(|word| word.trim().parse().ok()).collect();
        Usage { faults: words[0], switches: words[1], seconds: words[2] / 1e3 }
    }

    fn end(mut self) {
        drop(self.go.take());
        self.child.0.wait().unwrap();
    }
}

/// The value behind a word of the line of counters.
fn counter(told: &str, name: &str) -> f64 {
    let line = told.lines().find_map(|line| line.strip_prefix("  counters ")).expect(told);
    let value = line.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{name} in {line}"));
    value.split(' ').next().unwrap().replace(',', "").parse().unwrap()
}

/// The sum of a value of the file's, in all or below a function.
fn total(test: &Test, value: &str, function: &str) -> f64 {
    let file = test.path("output.pb.gz");
    let folded = output(
        env!("CARGO_BIN_EXE_profiler"),
        &["folded", "--sample-index", value, &file, "--focus", function],
    );
    folded.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn near(found: f64, right: f64, share: f64, what: &str) {
    assert!((found - right).abs() <= right * share, "{what}: {found} is not {right} by more than {share}");
}

/// What perf stat counted.
fn perf_counted(text: &str, event: &str) -> f64 {
    let line = text.lines().find(|line| line.contains(&format!(",{event}")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or_else(|| panic!("{event} in {text}"))
}

#[test]
fn counters_are_those_of_perf_and_of_getrusage() {
    let Some(test) = Test::alone("counters") else { return };
    let mut program = Program::start(&test);
    let running = test.started(&["-p", &program.pid()]);
    let perf = test.needs("perf").then(|| {
        let events = "task-clock,context-switches,cpu-migrations,page-faults,major-faults";
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x,", "-e", events, "-o", &test.path("perf"), "-p", &program.pid()]);
        let perf = Guarded(perf.stdin(Stdio::null()).spawn().unwrap());
        wait_until("perf counts", || rests(perf.0.id()));
        perf
    });
    let usage = program.work();
    program.end();
    let recording = running.finish();
    for (name, right) in
        [("task-clock", usage.seconds), ("context-switches", usage.switches), ("page-faults", usage.faults)]
    {
        near(
            counter(&recording.told, name),
            right,
            0.02,
            &format!("{name} by getrusage: {}", recording.told),
        );
    }
    if let Some(mut perf) = perf {
        perf.0.wait().unwrap();
        let text = std::fs::read_to_string(test.path("perf")).unwrap();
        test.tell(&format!(
            "{} | {}",
            recording.told.lines().find(|line| line.contains("counters")).unwrap(),
            text.replace('\n', " ")
        ));
        let told = &recording.told;
        // perf takes the time by another clock: what the hypervisor gave to others is in it.
        let stolen = 0.05;
        near(counter(told, "task-clock"), perf_counted(&text, "task-clock") / 1e3, 0.02 + stolen, &text);
        near(counter(told, "context-switches"), perf_counted(&text, "context-switches"), 0.02, &text);
        near(counter(told, "page-faults"), perf_counted(&text, "page-faults"), 0.02, &text);
    }
    assert!(recording.comments.iter().any(|comment| comment.starts_with("counters: task-clock ")));
}

#[test]
fn counters_of_a_command_have_its_children_and_those_of_the_machine_have_all() {
    let Some(test) = Test::new("counters-children") else { return };
    let program = test.compile("tests/programs/events.c", "events", &[]);
    // Two of them, of which the second is never waited for.
    let command = format!(
        "echo 12 | {program} 20480 0 1000 300 >one; (echo 12 | {program} 20480 0 1000 300 >two) & sleep 3"
    );
    let mut running = test.start(&["--", "sh", "-c", &command]);
    running.child.0.wait().unwrap();
    let told = running.told();
    let read = |name: &str| std::fs::read_to_string(test.path(name)).unwrap();
    let number = |text: &str, at: usize| text.split(' ').nth(at).unwrap().trim().parse::<f64>().unwrap();
    let sum = |at: usize| number(&read("one"), at) + number(&read("two"), at);
    // Those of the shells, of sleep and of starting all of them come to it.
    let (faults, switches) = (counter(&told, "page-faults"), counter(&told, "context-switches"));
    assert!((sum(1)..sum(1) * 1.02 + 1500.0).contains(&faults), "{} of {told}", sum(1));
    assert!((sum(3)..sum(3) * 1.02 + 100.0).contains(&switches), "{} of {told}", sum(3));
    // All of the machine, by another program of the same kind.
    let running = test.started(&["-a", "-F", "9"]);
    output("sh", &["-c", &format!("echo 12 | {program} 40960 0 1000 1")]);
    let recording = running.interrupt();
    assert!(counter(&recording.told, "page-faults") >= 40_960.0, "{}", recording.told);
    assert!(counter(&recording.told, "context-switches") >= 1000.0, "{}", recording.told);
    near(
        counter(&recording.told, "cpu-clock"),
        recording.seconds() * cpus(&recording.told),
        0.02,
        &recording.told,
    );
}

fn cpus(told: &str) -> f64 {
    told.split(" s on ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn page_faults_and_switches_are_counted_where_they_happen() {
    let Some(test) = Test::alone("events") else { return };
    const RATES: [&[&str]; 3] = [&["-c", "1"], &[], &["-c", "7"]];
    for (event, function, there, rates) in
        [("page-faults", "touches", PAGES, &RATES[..]), ("context-switches", "blocks", BLOCKS, &RATES[..1])]
    {
        for rate in rates {
            let mut program = Program::start(&test);
            let pid = program.pid();
            let running = test.started(&[&["-e", event, "-p", &pid], *rate].concat());
            let usage = program.work();
            program.end();
            let mut running = running;
            assert!(running.child.0.wait().unwrap().success());
            let told = running.told();
            let right = if event == "page-faults" { usage.faults } else { usage.switches };
            // Of seven events a CPU may keep six for itself, and it samples all that run there.
            near(total(&test, event, "."), right, 0.02, &told);
            let samples = total(&test, "samples", ".");
            if *rate == RATES[0] {
                near(samples, right, 0.02, &told);
            }
            // What comes to it elsewhere depends on the machine: threads are made to wait for others.
            let found = total(&test, event, function);
            assert!(found >= 0.9 * there as f64, "{found} of {there} in {function}: {told}");
            assert!(!told.contains("UNACCOUNTED"), "{told}");
        }
    }
}

#[test]
fn each_hit_of_a_tracepoint_is_counted() {
    let Some(test) = Test::alone("tracepoints") else { return };
    const EVENT: &str = "syscalls:sys_enter_getppid";
    let probe = test
        .profiler(&["record", "-e", "tracepoint:syscalls:sys_enter_getppid", "-d", "1ms"])
        .output()
        .unwrap();
    if !probe.status.success() {
        return test.skip(&format!("no tracepoint of a system call: {}", refusal(&probe)));
    }
    for (rate, per_sample) in [("1", 1.0), ("10", 10.0)] {
        let mut program = Program::start(&test);
        let pid = program.pid();
        let mut running = test.started(&["-e", &format!("tracepoint:{EVENT}"), "-c", rate, "-p", &pid]);
        // Others that trace it by perf still see all of it.
        let perf = test.needs("perf").then(|| {
            let mut perf = Command::new("perf");
            perf.args(["stat", "-x,", "-e", EVENT, "-o", &test.path("perf"), "-p", &pid]);
            let perf = Guarded(perf.stdin(Stdio::null()).spawn().unwrap());
            wait_until("perf counts", || rests(perf.0.id()));
            perf
        });
        program.work();
        program.end();
        assert!(running.child.0.wait().unwrap().success());
        let told = running.told();
        let (hits, samples) = (total(&test, EVENT, "asks"), total(&test, "samples", "asks"));
        // Each CPU keeps the last hits that make no sample.
        near(hits, CALLS as f64, 0.002, &told);
        near(samples, hits / per_sample, 0.0, &told);
        if let Some(mut perf) = perf {
            perf.0.wait().unwrap();
            let text = std::fs::read_to_string(test.path("perf")).unwrap();
            if !text.contains("<not") {
                near(hits, perf_counted(&text, EVENT), 0.02, &told);
            }
        }
    }
}

#[test]
fn an_event_that_cannot_be_is_refused() {
    let Some(test) = Test::new("events-refused") else { return };
    let refused = |args: &[&str]| {
        let output =
            test.profiler(&[&["record", "-d", "1ms", "-o", "none"], args].concat()).output().unwrap();
        assert!(!test.names().contains(&"none".to_owned()));
        refusal(&output)
    };
    assert!(refused(&["-e", "page-fault"]).contains("no event `page-fault`; known are page-faults"));
    assert!(refused(&["-e", "tracepoint:../x"]).contains("is no tracepoint"));
    assert!(refused(&["-e", "nowhere/event=1/"]).contains("no PMU `nowhere`"));
    assert!(refused(&["-e", "page-faults", "--off-cpu"]).contains("cannot be used with"));
    let there = std::path::Path::new("/sys/bus/event_source/devices/cpu").exists();
    if !there {
        assert!(refused(&["-e", "cycles"]).contains("this machine does not count cycles"));
    }
}
