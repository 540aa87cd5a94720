//! Java in HotSpot: whole stacks and names, without a flag to the JVM. What is right says the program, whose methods
//! have known shares and known callers. `JAVAS` names other JVMs than `java`, with ';' between them, as
//! `scripts/test-runtimes` does.

use std::collections::BTreeMap;
use std::process::Command;

use crate::chance;
use crate::common::{ROOT, Recording, Sample, Test, has, output, spawn, wait_until};

const HOW: [&str; 4] = ["--unwind", "table", "-F", "499"];

/// A test of each JVM, if there is one, with the directory of the compiled program.
fn with_javas(name: &'static str, run: impl Fn(&Test, &[&str], &str)) {
    let Some(test) = Test::new(name) else { return };
    let named = std::env::var("JAVAS").unwrap_or_else(|_| "java".to_owned());
    if !test.needs("javac") || (named == "java" && !has("java")) {
        return;
    }
    if cfg!(not(target_arch = "x86_64")) {
        return test.skip("frames of HotSpot are known on x86-64 alone");
    }
    let classes = test.path("");
    output("javac", &["--release", "17", "-d", &classes, &format!("{ROOT}/tests/programs/Methods.java")]);
    for java in named.split(';') {
        run(&test, &java.split(' ').collect::<Vec<_>>(), &classes);
    }
}

fn command<'a>(java: &[&'a str], classes: &'a str, what: &'a str, seconds: &'a str) -> Vec<&'a str> {
    [java, &["-cp", classes, "Methods", what, seconds]].concat()
}

fn record(test: &Test, java: &[&str], classes: &str, what: &str, seconds: &str) -> Recording {
    test.record(&[&HOW[..], &["--"], &command(java, classes, what, seconds)].concat())
}

/// The program's methods of a sample, leaf first.
fn methods<'a>(recording: &'a Recording, sample: &Sample) -> Vec<&'a str> {
    let java = sample.stack.iter().map(|id| &recording.locations[id]).filter(|it| it.path() == "[java]");
    let names = java.flat_map(|location| &location.lines).map(|line| line.0.as_str());
    names.filter_map(of_program).collect()
}

/// A method's name in the program: `descend`, `Part.run`.
fn of_program(name: &str) -> Option<&str> {
    let name = name.strip_prefix("Methods.").or(name.strip_prefix("Methods$"))?;
    (!name.contains("Lambda") && !name.starts_with("lambda$")).then_some(name)
}

/// In the thread that runs the program.
fn is_main(sample: &Sample) -> bool {
    sample.thread_comm == "methods"
}

fn is_whole(recording: &Recording, sample: &Sample) -> bool {
    !recording.names(sample).iter().any(|name| name.starts_with("[truncated"))
}

#[test]
fn methods_have_their_shares_below_their_callers() {
    with_javas("java-shares", |test, java, classes| {
        let recording = record(test, java, classes, "shares", "5");
        let mut by: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut all, mut whole, mut named, mut deep, mut twice, mut placed) = (0, 0, 0, 0, 0, 0);
        for sample in recording.samples.iter().filter(|sample| is_main(sample)) {
            let methods = methods(&recording, sample);
            all += sample.samples;
            whole += sample.samples * u64::from(is_whole(&recording, sample));
            let leaves: Vec<&str> =
                methods.iter().copied().filter(|name| name.ends_with("_percent")).collect();
            let Some(leaf) = leaves.first() else { continue };
            named += sample.samples;
            *by.entry(leaf).or_default() += sample.samples;
            twice += sample.samples * u64::from(leaves.len() > 1);
            let levels = methods.iter().filter(|name| **name == "descend").count();
            deep += sample.samples * u64::from(levels == 11 && methods.last() == Some(&"Work.run"));
            // Of the method that runs, in any of its lines.
            let lines = sample.stack.iter().flat_map(|id| &recording.locations[id].lines);
            let mut lines = lines.filter(|line| line.0.ends_with(leaf));
            placed += sample.samples * u64::from(lines.any(|line| line.1 > 0 && line.2 == "Methods.java"));
        }
        test.tell(&format!(
            "{java:?}: {whole} of {all} whole, {named} named, {deep} of these with all levels, {placed} with a line; {by:?}"
        ));
        chance::at_least(whole, all, 0.98, 1000, &recording.told);
        chance::at_least(named, all, 0.90, 1000, &recording.told);
        chance::at_least(deep, named, 0.98, 1000, &recording.told);
        chance::at_least(placed, named, 0.90, 1000, &recording.told);
        assert_eq!(twice, 0, "methods that do not call each other");
        for (name, truth) in [("sixty_percent", 60.0), ("thirty_percent", 30.0), ("ten_percent", 10.0)] {
            let share = 100.0 * by[name] as f64 / named as f64;
            let points = 12.0 + 100.0 * chance::error(named, truth / 100.0);
            assert!((share - truth).abs() < points, "{name} has {share:.1} %: {by:?}");
        }
        assert!(recording.told.contains("stacks in Java, "), "{}", recording.told);
    });
}

/// Who calls whom in Methods.java's `calls`, directly or through the class library.
const CALLS: [(&str, &[&str]); 13] = [
    ("Work.run", &["works"]),
    ("works", &["once"]),
    ("once", &["sorts", "streams", "dispatches", "reflects"]),
    ("dispatches", &["Part.run", "Other.run"]),
    ("sorts", &["compares"]),
    ("streams", &["key", "combines"]),
    ("reflects", &["reflected"]),
    ("compares", &["spin"]),
    ("key", &["spin"]),
    ("combines", &["spin"]),
    ("reflected", &["spin"]),
    ("Part.run", &["spin"]),
    ("Other.run", &["spin"]),
];

#[test]
fn no_method_is_called_by_one_that_does_not_call_it() {
    with_javas("java-calls", |test, java, classes| {
        let recording = record(test, java, classes, "calls", "5");
        let (mut pairs, mut running, mut whole, mut impossible) = (0, 0, 0, BTreeMap::new());
        for sample in recording.samples.iter().filter(|sample| is_main(sample)) {
            let names = methods(&recording, sample);
            if !names.contains(&"once") {
                continue;
            }
            running += sample.samples;
            whole += sample.samples * u64::from(is_whole(&recording, sample));
            for pair in names.windows(2) {
                pairs += sample.samples;
                let known = CALLS.iter().find(|(caller, _)| *caller == pair[1]);
                if !known.is_some_and(|(_, callees)| callees.contains(&pair[0])) {
                    *impossible.entry((pair[1], pair[0])).or_insert(0) += sample.samples;
                }
            }
        }
        test.tell(&format!(
            "{java:?}: {pairs} calls, impossible: {impossible:?}; {whole} of {running} stacks are whole"
        ));
        assert!(pairs > 3000, "{pairs} calls: {}", recording.told);
        assert!(impossible.is_empty(), "{impossible:?}");
        chance::at_least(whole, running, 0.98, 1000, &recording.told);
        for name in ["compares", "key", "combines", "reflected", "Part.run", "Other.run"] {
            let with = |sample: &Sample| methods(&recording, sample).contains(&name);
            assert!(recording.total(with) > 10, "{name}");
        }
    });
}

#[test]
fn blocks_have_methods_too() {
    with_javas("java-blocks", |test, java, classes| {
        // It runs already: what it has compiled and what it interprets is asked for when the recording begins.
        let command = command(java, classes, "sleeps", "600");
        let child = spawn(Command::new(command[0]).args(&command[1..]));
        wait_until("the program sleeps", || {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.0.id())).unwrap_or_default();
            maps.contains("libmanagement")
        });
        let pid = child.0.id().to_string();
        let running = test.start(&["--off-cpu", "-d", "3s", "-p", &pid]);
        let told = running.finish_off_cpu();
        let folded =
            test.profiler(&["folded", "--type", "off-cpu", "--tagroot", "thread_comm"]).output().unwrap();
        let folded = String::from_utf8_lossy(&folded.stdout).into_owned();
        let ns = |line: &str| line.rsplit(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        let asleep = |line: &&str| line.starts_with("methods;") && line.contains("Thread.sleep");
        let chain = [&["Methods.goes_to_wait"; 6][..], &["Methods.waits;"]].concat().join(";");
        let all: u64 = folded.lines().filter(asleep).map(ns).sum();
        let with: u64 = folded.lines().filter(asleep).filter(|line| line.contains(&chain)).map(ns).sum();
        test.tell(&format!("{java:?}: {with} of {all} ns asleep have their methods"));
        assert!(all > 1_000_000_000 && with as f64 > 0.95 * all as f64, "{told}\n{folded}");
    });
}

#[test]
fn without_interpreters_a_jvm_is_not_asked() {
    with_javas("java-none", |test, java, classes| {
        let program = command(java, classes, "shares", "1");
        let recording = test.record(&[&HOW[..], &["--no-interpreters", "--"], &program].concat());
        let in_java = recording
            .total(|sample| sample.stack.iter().any(|id| recording.locations[id].path() == "[java]"));
        assert_eq!(in_java, 0);
        assert!(!recording.told.contains("in Java"), "{}", recording.told);
    });
}
