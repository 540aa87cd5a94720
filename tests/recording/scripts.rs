//! Frames of scripts: Python's. What is right says the script, whose functions have known shares and known
//! callers; lines say Python's own tables. `PYTHONS` names other interpreters than `python3`, as
//! `scripts/test-runtimes` does.

use std::collections::BTreeMap;
use std::process::Command;

use profiler::interpreters::python::{self, Lines};

use crate::chance;
use crate::common::{JUDGES, Location, ROOT, Recording, Sample, Test, has, output, spawn, wait_until};

const HOW: [&str; 4] = ["--unwind", "table", "-F", "499"];

fn pythons() -> Vec<String> {
    let named = std::env::var("PYTHONS").unwrap_or_else(|_| "python3".to_owned());
    named.split_whitespace().filter(|name| name.contains('/') || has(name)).map(str::to_owned).collect()
}

/// Whether this interpreter's frames can be seen: not those of a wrapper, or before 3.8.
fn minor(python: &str) -> u32 {
    output(python, &["-c", "import sys; print(sys.version_info[1])"]).trim().parse().unwrap()
}

fn is_script(location: &Location) -> bool {
    location.path() == "[python]"
}

/// The script's functions of a sample, leaf first, with their places.
fn functions<'a>(recording: &'a Recording, sample: &Sample) -> Vec<&'a (String, u64, String)> {
    let locations = sample.stack.iter().map(|id| &recording.locations[id]);
    locations.filter(|location| is_script(location)).flat_map(|location| &location.lines).collect()
}

/// Names alone, without the qualification that 3.11 and later have.
fn names<'a>(recording: &'a Recording, sample: &Sample) -> Vec<&'a str> {
    let name = |(name, _, _): &'a (String, u64, String)| {
        if name.starts_with('[') { name.as_str() } else { name.rsplit('.').next().unwrap_or(name) }
    };
    functions(recording, sample).into_iter().map(name).collect()
}

fn record(test: &Test, python: &str, what: &str, seconds: &str, more: &[&str]) -> Recording {
    let script = format!("{ROOT}/tests/programs/script.py");
    test.record(&[&HOW[..], more, &["--", python, &script, what, seconds]].concat())
}

/// A test of each interpreter, if there is one.
fn with_pythons(name: &'static str, run: impl Fn(&Test, &str, u32)) {
    let Some(test) = Test::new(name) else { return };
    let pythons = pythons();
    if pythons.is_empty() {
        test.skip("python3 is not installed");
    }
    if cfg!(not(target_arch = "x86_64")) {
        return test.skip("Python's threads are found on x86-64 alone");
    }
    for python in pythons {
        let minor = minor(&python);
        if minor < 8 {
            test.skip(&format!("{python} is 3.{minor}: frames are those of 3.8 and later"));
            continue;
        }
        run(&test, &python, minor);
    }
}

#[test]
fn lines_are_those_that_python_reads_itself() {
    let Some(test) = Test::new("scripts-tables") else { return };
    for python in pythons() {
        let mut functions = 0;
        for text in output(&python, &[&format!("{JUDGES}/codelines.py")]).lines() {
            let fields: Vec<&str> = text.split(' ').collect();
            let [kind, table, first, lines] = fields[..] else { panic!("{text}") };
            let kind = match kind {
                "lnotab" => Lines::Lnotab,
                "linetable" => Lines::Linetable,
                _ => Lines::Locations,
            };
            let table: Vec<u8> = (0..table.len() / 2)
                .map(|at| u8::from_str_radix(&table[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            let first = first.parse().unwrap();
            for (at, line) in lines.split(',').enumerate() {
                let ours = python::line(kind, &table, first, at as u64).unwrap_or(0);
                assert_eq!(ours, line.parse::<u32>().unwrap(), "{python}: instruction {at}: {text}");
            }
            functions += 1;
        }
        assert!(functions > 100, "{python}: {functions}");
        test.tell(&format!("{python}: lines of {functions} functions"));
    }
}

/// What the interpreter calls to run a script: 3.10 and later, and before, or where names of its own are stripped.
const RUNS_A_FILE: [&str; 3] = ["_PyRun_SimpleFileObject", "PyRun_SimpleFileExFlags", "PyRun_AnyFileExFlags"];

#[test]
fn functions_have_their_shares_below_their_callers() {
    with_pythons("scripts-shares", |test, python, _| {
        let recording = record(test, python, "shares", "3", &[]);
        let mut by: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut running, mut seen, mut all, mut deep, mut whole, mut twice) = (0, 0, 0, 0, 0, 0);
        for sample in &recording.samples {
            let names = names(&recording, sample);
            all += sample.samples;
            // Before and after the script there is none of its functions.
            if RUNS_A_FILE.iter().any(|name| recording.has_frame(sample, name)) {
                running += sample.samples;
                let has_names = !names.is_empty() && !names.iter().any(|name| name.starts_with('['));
                seen += sample.samples * u64::from(has_names);
            }
            whole += sample.samples
                * u64::from(!recording.names(sample).iter().any(|name| name.starts_with("[truncated")));
            let leaves: Vec<&str> = names.iter().copied().filter(|name| name.ends_with("_percent")).collect();
            let Some(leaf) = leaves.first() else { continue };
            *by.entry(leaf).or_default() += sample.samples;
            twice += sample.samples * u64::from(leaves.len() > 1);
            deep += sample.samples * u64::from(names.iter().filter(|name| **name == "descend").count() == 11);
        }
        let named: u64 = by.values().sum();
        test.tell(&format!(
            "{python}: {seen} of {running} named, {deep} of {named} with all levels, {whole} of {all} whole; {by:?}"
        ));
        chance::at_least(seen, running, 0.95, 700, &recording.told);
        chance::at_least(deep, named, 0.98, 700, &recording.told);
        chance::at_least(whole, all, 0.99, 700, &recording.told);
        assert_eq!(twice, 0, "functions that do not call each other");
        for (name, truth) in [("sixty_percent", 60.0), ("thirty_percent", 30.0), ("ten_percent", 10.0)] {
            let share = 100.0 * by[name] as f64 / named as f64;
            let points = 3.0 + 100.0 * chance::error(named, truth / 100.0);
            assert!((share - truth).abs() < points, "{name} has {share:.1} %: {by:?}");
        }
        assert!(recording.told.contains("stacks in Python, "), "{}", recording.told);
    });
}

/// Who calls whom in script.py's `calls`, directly or through C.
const CALLS: [(&str, &[&str]); 17] = [
    ("<module>", &["calls"]),
    ("calls", &["until"]),
    ("until", &["once"]),
    ("once", &["sorts_by_key", "sorts_by_less", "reduces", "consumes", "replaces"]),
    ("sorts_by_key", &["key", "<listcomp>", "__init__"]),
    ("sorts_by_less", &["__lt__", "<listcomp>", "__init__"]),
    ("<listcomp>", &["__init__"]),
    ("reduces", &["combine"]),
    ("consumes", &["delegate"]),
    ("delegate", &["produce"]),
    ("replaces", &["sub"]),
    ("sub", &["replacement", "_compile"]),
    ("key", &["spin"]),
    ("__lt__", &["spin"]),
    ("combine", &["spin"]),
    ("produce", &["spin"]),
    ("replacement", &["spin"]),
];

#[test]
fn no_function_is_called_by_one_that_does_not_call_it() {
    with_pythons("scripts-calls", |test, python, minor| {
        let recording = record(test, python, "calls", "4", &[]);
        let (mut pairs, mut impossible) = (0, BTreeMap::new());
        for sample in &recording.samples {
            let mut names = names(&recording, sample);
            if !names.contains(&"once") {
                continue;
            }
            // What re calls to compile its pattern, once, is its own.
            if let Some(compiles) = names.iter().position(|name| *name == "_compile") {
                names.drain(..compiles);
            }
            for pair in names.windows(2).filter(|pair| !pair[1].starts_with('[')) {
                pairs += sample.samples;
                let known = CALLS.iter().find(|(caller, _)| *caller == pair[1]);
                if !known.is_some_and(|(_, callees)| callees.contains(&pair[0])) {
                    *impossible.entry((pair[1], pair[0])).or_insert(0) += sample.samples;
                }
            }
        }
        test.tell(&format!("{python}: {pairs} calls, impossible: {impossible:?}"));
        assert!(pairs > 5000, "{pairs} calls: {}", recording.told);
        // Up to 3.9 nothing tells that a function is about to begin: its caller's frame stands for it.
        assert!(impossible.is_empty() || minor < 10, "{impossible:?}");
        for name in ["key", "__lt__", "combine", "produce", "replacement"] {
            assert!(recording.total(|sample| names(&recording, sample).contains(&name)) > 10, "{name}");
        }
    });
}

#[test]
fn functions_that_are_gone_keep_their_names() {
    with_pythons("scripts-drops", |test, python, _| {
        let recording = record(test, python, "drops", "3", &[]);
        let (mut all, mut unnamed, mut wrong) = (0, 0, BTreeMap::new());
        for sample in &recording.samples {
            let functions = functions(&recording, sample);
            if !functions.iter().any(|(name, _, _)| name == "drops") {
                continue;
            }
            all += sample.samples;
            unnamed += sample.samples * u64::from(functions.iter().any(|(name, ..)| name.starts_with('[')));
            // `made_7` of `made/7` calls `inner_7`.
            for (name, _, file) in &functions {
                let name = name.rsplit('.').next().unwrap();
                let number = name.strip_prefix("made_").or(name.strip_prefix("inner_"));
                if number.is_some_and(|number| *file != format!("made/{number}")) {
                    *wrong.entry(format!("{name} of {file}")).or_insert(0) += sample.samples;
                }
            }
            let numbers: Vec<&str> = names(&recording, sample)
                .into_iter()
                .filter_map(|name| name.strip_prefix("made_").or(name.strip_prefix("inner_")))
                .collect();
            if numbers.windows(2).any(|pair| pair[0] != pair[1]) {
                *wrong.entry(format!("{numbers:?}")).or_insert(0) += sample.samples;
            }
        }
        test.tell(&format!("{python}: {unnamed} of {all} unnamed, wrong: {wrong:?}"));
        assert!(wrong.is_empty(), "{wrong:?}");
        chance::at_least(all - unnamed, all, 0.99, 500, &recording.told);
    });
}

#[test]
fn threads_and_coroutines_are_not_mixed_up() {
    with_pythons("scripts-threads", |test, python, _| {
        let recording = record(test, python, "threads", "4", &[]);
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        for sample in &recording.samples {
            let names = names(&recording, sample);
            let letter = |name: &str| {
                let letter = name.strip_prefix("inner_").or(name.strip_prefix("outer_"))?;
                (letter.len() == 1).then(|| letter.to_owned())
            };
            let letters: Vec<String> = names.iter().filter_map(|name| letter(name)).collect();
            let coroutines = names.iter().filter(|name| name.ends_with("_coroutine")).count();
            if letters.is_empty() && coroutines == 0 {
                continue;
            }
            assert!(letters.iter().all(|one| *one == letters[0]), "{names:?}");
            assert!(letters.is_empty() || coroutines == 0, "{names:?}");
            *seen.entry(letters.first().cloned().unwrap_or_default()).or_default() += sample.samples;
            if names.first() == Some(&"spin") && coroutines > 0 {
                assert_eq!(&names[1..3], ["leaf_coroutine", "outer_coroutine"], "{names:?}");
            }
        }
        test.tell(&format!("{python}: {seen:?}"));
        assert!(seen.len() == 6 && seen.values().all(|n| *n > 100), "{seen:?}: {}", recording.told);
    });
}

/// Each run of the loop has the frames of its own interpreter.
#[test]
fn interpreters_in_one_thread_are_not_mixed_up() {
    const INSIDE: [&str; 9] = [
        "spins_inside",
        "goes_inside",
        "goes_inside",
        "goes_inside",
        "goes_inside",
        "<module>",
        "between",
        "outside",
        "until",
    ];
    with_pythons("scripts-nests", |test, python, _| {
        let recording = record(test, python, "nests", "2", &[]);
        let (mut inside, mut outside, mut wrong) = (0, 0, BTreeMap::new());
        for sample in &recording.samples {
            let names = names(&recording, sample);
            let mut of_one = names.iter().map(|name| name.ends_with("inside"));
            match names.first() {
                Some(&"spins_inside") if names.starts_with(&INSIDE) => inside += sample.samples,
                Some(&"spin") if !of_one.any(|is_inside| is_inside) => outside += sample.samples,
                Some(&("spins_inside" | "spin")) => *wrong.entry(names).or_insert(0) += sample.samples,
                _ => {}
            }
        }
        test.tell(&format!("{python}: {inside} inside, {outside} outside, wrong: {wrong:?}"));
        let misled: u64 = wrong.values().sum();
        assert!(inside > 200 && outside > 600, "{}", recording.told);
        chance::at_least(inside + outside, inside + outside + misled, 0.99, 800, &recording.told);
        assert!(recording.samples.iter().any(|sample| names(&recording, sample).last() == Some(&"<module>")));
    });
}

#[test]
fn lines_have_their_shares() {
    with_pythons("scripts-lines", |test, python, _| {
        let recording = record(test, python, "lines", "3", &[]);
        let source = std::fs::read_to_string(format!("{ROOT}/tests/programs/script.py")).unwrap();
        let mut by: BTreeMap<u64, u64> = BTreeMap::new();
        for sample in &recording.samples {
            let functions = functions(&recording, sample);
            let Some((_, line, file)) = functions.iter().find(|(name, ..)| name.ends_with("by_line")) else {
                continue;
            };
            assert!(file.ends_with("script.py"), "{file}");
            *by.entry(*line).or_default() += sample.samples;
        }
        let all: u64 = by.values().sum();
        test.tell(&format!("{python}: {by:?}"));
        assert!(all > 700, "{all}: {}", recording.told);
        for (line, text) in (1..).zip(source.lines()) {
            let Some((_, truth)) = text.split_once("  # ") else { continue };
            let Ok(truth) = truth.parse::<f64>() else { continue };
            let share = 100.0 * by.get(&line).copied().unwrap_or(0) as f64 / all as f64;
            let points = 4.0 + 100.0 * chance::error(all, truth / 100.0);
            assert!((share - truth).abs() < points, "line {line} has {share:.1} %: {by:?}");
        }
    });
}

#[test]
fn blocks_have_frames_of_scripts_too() {
    with_pythons("scripts-blocks", |test, python, _| {
        let script = format!("{ROOT}/tests/programs/script.py");
        // It runs already: the first stacks of a process that is not known yet have no frames of scripts.
        let child = spawn(Command::new(python).args([&script, "sleeps", "600"]));
        wait_until("the script sleeps", || {
            let wchan = std::fs::read_to_string(format!("/proc/{}/wchan", child.0.id())).unwrap_or_default();
            wchan.contains("nanosleep") || wchan.contains("select")
        });
        let pid = child.0.id().to_string();
        let running = test.start(&["--off-cpu", "--wakers", "-d", "2s", "-p", &pid]);
        let told = running.finish_off_cpu();
        let folded = test.profiler(&["folded", "--type", "off-cpu"]).output().unwrap();
        let folded = String::from_utf8_lossy(&folded.stdout).into_owned();
        let ns = |line: &str| line.rsplit(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        let of = |name: &str| folded.lines().filter(|line| line.contains(name)).map(ns).sum::<u64>();
        // Up to 3.10 it sleeps by select(2).
        let (all, with) = (of("clock_nanosleep;") + of("sys_pselect6;"), of("goes_to_wait;waits;"));
        test.tell(&format!("{python}: {with} of {all} ns asleep have their functions"));
        assert!(all > 300_000_000 && with as f64 > 0.98 * all as f64, "{told}\n{folded}");
    });
}

/// Such a stack is walked at the end, when the interpreter's memory is still what it was.
#[test]
fn who_is_blocked_at_the_end_has_frames_of_scripts() {
    with_pythons("scripts-blocked", |test, python, _| {
        let script = format!("{ROOT}/tests/programs/script.py");
        let running = test.start(&["--off-cpu", "-d", "3s", "--", python, &script, "blocks", "1"]);
        let told = running.finish_off_cpu();
        let folded = test.profiler(&["folded", "--type", "off-cpu"]).output().unwrap();
        let folded = String::from_utf8_lossy(&folded.stdout).into_owned();
        let ns = |line: &str| line.rsplit(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        let of = |name: &str| folded.lines().filter(|line| line.contains(name)).map(ns).sum::<u64>();
        // Up to 3.10 it sleeps by select(2).
        let (all, with) = (of("clock_nanosleep;") + of("sys_pselect6;"), of("blocks;waits_for_ever;"));
        test.tell(&format!("{python}: {with} of {all} ns asleep have their functions"));
        assert!(all > 1_000_000_000 && with as f64 > 0.98 * all as f64, "{told}\n{folded}");
    });
}

#[test]
fn children_that_live_for_milliseconds_are_named() {
    with_pythons("scripts-forks", |test, python, _| {
        let recording = record(test, python, "forks", "3", &[]);
        let parent = recording.samples.iter().map(|sample| sample.pid).min().unwrap();
        let in_loop = |sample: &Sample| {
            sample.pid != parent
                && recording.names(sample).iter().any(|name| name.contains("_PyEval_EvalFrameDefault"))
        };
        let named = |sample: &Sample| {
            let names = names(&recording, sample);
            in_loop(sample) && names.contains(&"forks")
        };
        let (all, named) = (recording.total(in_loop), recording.total(named));
        test.tell(&format!("{python}: {named} of {all} stacks of children are named"));
        if all < 100 {
            // Distributions strip the loop's name.
            return test.skip("the interpreter's own functions have no names here");
        }
        chance::at_least(named, all, 0.97, 100, &recording.told);
    });
}

#[test]
fn scripts_can_be_left_out() {
    with_pythons("scripts-none", |test, python, _| {
        let recording = record(test, python, "shares", "1", &["--no-interpreters"]);
        assert!(!recording.locations.values().any(is_script), "{}", recording.told);
        assert!(!recording.told.contains("  scripts "), "{}", recording.told);
    });
}

/// It costs itself its names, and nobody else anything.
#[test]
fn an_interpreter_that_lies_costs_its_own_names() {
    let Some(test) = Test::new("scripts-lies") else { return };
    let flags = ["-rdynamic", "-pthread", "-fno-inline"];
    let program = test.compile("tests/programs/fake_python.c", "fake_python", &flags);
    for (how, frames) in
        [("cycle", "a_name_that_goes_on"), ("wild", ""), ("threads", "[python: thread not found]")]
    {
        let recording = test.record(&[&HOW[..], &["--", &program, how, "1"]].concat());
        let in_loop = recording.with("_PyEval_EvalFrameDefault");
        let with = recording.total(|sample| {
            functions(&recording, sample)
                .iter()
                .any(|(name, ..)| frames.is_empty() || name.starts_with(frames))
        });
        test.tell(&format!("{how}: {with} of {in_loop} samples have frames; {}", recording.complete));
        if cfg!(target_arch = "x86_64") {
            assert!(with > 100, "{how}: {}", recording.told);
        }
        let of_others =
            |sample: &Sample| sample.comm != "fake_python" && !functions(&recording, sample).is_empty();
        assert_eq!(recording.total(of_others), 0, "{how}");
        if how == "threads" {
            chance::at_least(recording.complete, in_loop, 0.99, 200, &recording.told);
        }
    }
}

#[test]
fn an_interpreter_of_an_unknown_version_is_told() {
    let Some(test) = Test::new("scripts-unknown") else { return };
    let flags = ["-rdynamic", "-pthread", "-fno-inline", "-DVERSION=0x036300f0"];
    let program = test.compile("tests/programs/fake_python.c", "fake_python", &flags);
    let recording = test.record(&[&HOW[..], &["--", &program, "cycle", "0.3"]].concat());
    assert!(recording.with("_PyEval_EvalFrameDefault") > 20, "{}", recording.told);
    assert!(
        recording.told.contains("scripts of CPython (") && recording.told.contains("99"),
        "{}",
        recording.told
    );
    assert!(!recording.samples.iter().any(|sample| !functions(&recording, sample).is_empty()));
}

fn nodes() -> Vec<String> {
    let named = std::env::var("NODES").unwrap_or_else(|_| "node".to_owned());
    named.split_whitespace().filter(|name| name.contains('/') || has(name)).map(str::to_owned).collect()
}

/// Names of JavaScript's functions of a sample, leaf first, of this file.
fn javascript<'a>(recording: &'a Recording, sample: &Sample, file: &str) -> Vec<&'a str> {
    let locations = sample.stack.iter().map(|id| &recording.locations[id]);
    let lines = locations.filter(|location| location.path() == "[javascript]").flat_map(|it| &it.lines);
    lines.filter(|(_, _, path)| path.ends_with(file)).map(|(name, ..)| name.as_str()).collect()
}

/// A test of each Node.js, if there is one; with its major version.
fn with_nodes(name: &'static str, run: impl Fn(&Test, &str, u32)) {
    let Some(test) = Test::new(name) else { return };
    let nodes = nodes();
    if nodes.is_empty() {
        test.skip("node is not installed");
    }
    for node in nodes {
        let version = output(&node, &["-p", "process.versions.node"]);
        run(&test, &node, version.split('.').next().unwrap().parse().unwrap());
    }
}

#[test]
fn javascript_has_its_shares_without_a_flag() {
    with_nodes("scripts-node", |test, node, major| {
        let script = format!("{ROOT}/tests/programs/shares.js");
        let recording = test.record(&[&HOW[..], &["--", node, &script, "3"]].concat());
        let main = recording.samples.iter().map(|sample| sample.pid).min().unwrap();
        let mut by: BTreeMap<&str, u64> = BTreeMap::new();
        let (mut all, mut deep, mut whole) = (0, 0, 0);
        for sample in recording.samples.iter().filter(|sample| sample.pid == main) {
            // V8's own threads compile and collect.
            if !["node", "MainThread", "node-MainThread"].contains(&sample.thread_comm.as_str()) {
                continue;
            }
            let names = javascript(&recording, sample, "/shares.js");
            all += sample.samples;
            let cut = recording.names(sample).iter().any(|name| name.starts_with("[truncated"));
            whole += sample.samples * u64::from(!cut);
            let Some(leaf) = names.iter().copied().find(|name| name.ends_with("_percent")) else { continue };
            *by.entry(leaf).or_default() += sample.samples;
            deep += sample.samples * u64::from(names.iter().filter(|name| **name == "descend").count() == 11);
        }
        let named: u64 = by.values().sum();
        test.tell(&format!("{node}: {named} of {all} named, {deep} with all levels, {whole} whole; {by:?}"));
        chance::at_least(named, all, 0.90, 700, &recording.told);
        chance::at_least(whole, all, 0.99, 700, &recording.told);
        // What was inlined has no frame: since 24, the recursion.
        assert!(major >= 24 || deep as f64 > 0.45 * named as f64, "{deep} of {named}");
        for (name, truth) in [("sixty_percent", 60.0), ("thirty_percent", 30.0), ("ten_percent", 10.0)] {
            let share = 100.0 * by.get(name).copied().unwrap_or(0) as f64 / named as f64;
            let points = 3.0 + 100.0 * chance::error(named, truth / 100.0);
            assert!((share - truth).abs() < points, "{name} has {share:.1} %: {by:?}");
        }
    });
}

/// Who calls whom in work.js, directly or through C++.
const CALLS_OF_NODE: [(&str, &str); 9] = [
    ("everything", "outer"),
    ("outer", "middle"),
    ("middle", "leaf"),
    ("everything", "sorted"),
    ("sorted", "compare"),
    ("everything", "parsed"),
    ("parsed", "revive"),
    ("everything", "replaced"),
    ("replaced", "swap"),
];

/// Inlined functions have no frames, so that any function may seem to be called by its caller's caller.
fn calls(caller: &str, callee: &str) -> bool {
    CALLS_OF_NODE.iter().any(|(from, to)| *from == caller && (*to == callee || calls(to, callee)))
}

#[test]
fn no_javascript_is_called_by_what_does_not_call_it() {
    with_nodes("scripts-node-calls", |test, node, _| {
        let script = format!("{ROOT}/tests/programs/work.js");
        let recording = test.record(&[&HOW[..], &["--", node, &script, "4"]].concat());
        let (mut pairs, mut impossible) = (0, BTreeMap::new());
        for sample in &recording.samples {
            let names = javascript(&recording, sample, "/work.js");
            for pair in names
                .windows(2)
                .filter(|pair| !pair.iter().any(|name| name.is_empty() || name.starts_with('(')))
            {
                pairs += sample.samples;
                if !calls(pair[1], pair[0]) {
                    *impossible.entry((pair[1], pair[0])).or_insert(0) += sample.samples;
                }
            }
        }
        test.tell(&format!("{node}: {pairs} calls, impossible: {impossible:?}"));
        assert!(pairs > 1000, "{pairs} calls: {}", recording.told);
        assert!(impossible.is_empty(), "{impossible:?}");
    });
}
