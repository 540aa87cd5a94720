//! Stacks of language runtimes, which switch stacks and make code as they run. What is right says the
//! program itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;

use crate::chance;
use crate::common::{Location, ROOT, Recording, Sample, Test, output};

/// Where Go's own profile is known to differ. It leaves out what its compiler made (wrappers of methods
/// and of `go` statements), each goroutine's end, morestack where it goes on with who called that, and
/// the functions around the vDSO, where its own clock is asked. Where its signal comes together with that of preemption, it sees that one's function
/// as the leaf, about to run.
const APART_IN_GO_PROFILES: [&str; 6] = [
    "runtime.asyncPreempt",
    "runtime.goexit",
    "runtime.morestack",
    "main.main.func1",
    "sort.(*IntSlice).Less",
    "time.now",
];

/// The compiler numbers the wrappers of `go` statements, since Go 1.22 as gowrap1 and so on.
fn is_apart(name: &str) -> bool {
    let wraps = name.rsplit_once(".gowrap").is_some_and(|(_, number)| number.parse::<u32>().is_ok());
    wraps || APART_IN_GO_PROFILES.contains(&name)
}

/// Cumulative shares in percent, as Go's own profile has them.
fn shares_by_go(profile: &str) -> HashMap<String, f64> {
    let args = ["tool", "pprof", "-symbolize=none", "-sample_index=cpu", "-nodefraction=0", "-top", "-cum"];
    let text = output("go", &[&args[..], &[profile]].concat());
    let mut lines = text.lines().skip_while(|line| !line.contains("cum%")).skip(1);
    let shares = lines.by_ref().map(|line| {
        let mut columns = line.split_whitespace().skip(4);
        let share = columns.next().unwrap().trim_end_matches('%').parse().unwrap();
        (columns.next().unwrap().to_owned(), share)
    });
    shares.collect()
}

fn share(recording: &Recording, comm: &str, name: &str) -> f64 {
    let of = recording.total(|sample| sample.comm == comm && recording.has_frame(sample, name));
    100.0 * of as f64 / recording.total(|sample| sample.comm == comm) as f64
}

/// The thread's stack is in pieces then, and so is the goroutine's.
#[test]
fn go_that_c_calls_back() {
    let Some(test) = Test::new("callbacks") else { return };
    if !test.needs("go") {
        return;
    }
    let program = test.path("callbacks");
    let built = Command::new("go")
        .args(["build", "-o", &program, &format!("{ROOT}/tests/programs/callbacks.go")])
        .env("CGO_ENABLED", "1")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    for (levels, leaf) in [(1, "go"), (3, "go"), (3, "c")] {
        let number = levels.to_string();
        let how = ["--unwind", "table", "-F", "499", "--", &program, &number, leaf, "700"];
        let recording = test.record(&how);
        let leaf = if leaf == "go" { "main.leafInGo" } else { "leaf_in_c" };
        let all = recording.with(leaf);
        let whole = recording.total(|sample| {
            let names = recording.names(sample);
            let of = |name: &str| names.iter().filter(|it| **it == name).count();
            of(leaf) == 1
                && of("main.callsC") == levels + 1
                && of("calls_back") == levels
                && of("main.calledBack") == levels
                && of("main.main") == 1
        });
        test.tell(&format!("{levels} levels, {leaf}: {whole} of {all} have them all"));
        chance::at_least(whole, all, 0.98, 200, &recording.told);
    }
}

#[test]
fn go_sees_itself_the_same() {
    let Some(test) = Test::new("go") else { return };
    if !test.needs("go") {
        return;
    }
    let program = test.path("work");
    output("go", &["build", "-o", &program, &format!("{ROOT}/tests/programs/work.go")]);
    // Other work may keep one of the two profilers from seeing as much of a phase as the other one.
    let same = |unwind: &str| {
        let profile = test.path(&format!("{unwind}.own"));
        let recording = test.record(&["--unwind", unwind, "-F", "499", "--", &program, "8", &profile]);
        let own = shares_by_go(&profile);
        let all = recording.total(|sample| sample.comm == "work");
        chance::at_least(recording.complete, all, 0.995, 2000, &recording.told);

        // Both profiles are draws, of which the other has half as many samples or more.
        let mut largest = (0.0, String::new());
        let mut compare = |name: &str, own: f64| {
            let ours = share(&recording, "work", name);
            let chance = 100.0 * chance::error(all, own.max(ours) / 100.0) * f64::sqrt(1.0 + 2.0);
            let apart = (ours - own).abs() / (4.0 + chance);
            if apart >= largest.0 && !is_apart(name) {
                largest = (
                    apart,
                    format!("{name} has {ours:.1} %, by its own profile {own:.1} ± {:.1} %", 4.0 + chance),
                );
            }
        };
        let top: Vec<_> = own.iter().filter(|(_, share)| **share >= 3.0).collect();
        assert!(top.len() > 15, "{own:?}");
        for wanted in ["main.worker", "runtime.mallocgc", "runtime.systemstack", "runtime.gcBgMarkWorker"] {
            assert!(top.iter().any(|(name, _)| *name == wanted), "{wanted}: {own:?}");
        }
        top.iter().for_each(|(name, share)| compare(name, **share));
        // And nothing that it does not know: no invented frames.
        let ours = recording.locations.values().filter(|location| location.path() == program);
        for (name, _, _) in ours.flat_map(|location| &location.lines) {
            compare(name, own.get(name).copied().unwrap_or(0.0));
        }
        test.tell(&format!(
            "--unwind {unwind}: {} of {all} whole; largest difference: {}",
            recording.complete, largest.1
        ));
        if largest.0 <= 1.0 { Ok(()) } else { Err(largest.1) }
    };
    for unwind in ["table", "auto"] {
        chance::again("Go and we see the same", 3, || same(unwind));
    }
}

/// Which functions of work.js call which, directly or through C++.
const CALLS: [(&str, &str); 10] = [
    ("everything", "outer"),
    ("outer", "middle"),
    ("middle", "leaf"),
    ("everything", "sorted"),
    ("sorted", "compare"),
    ("sorted", ""),
    ("everything", "parsed"),
    ("parsed", "revive"),
    ("everything", "replaced"),
    ("replaced", "swap"),
];

/// The script's function that a frame is of: `JS:*leaf /path/work.js:5:14`, and up to Node.js 18
/// `LazyCompile:*leaf …` or `Function:`.
fn of_script(name: &str) -> Option<&str> {
    let (kind, rest) = name.split_once(':')?;
    let (name, _) = rest.split_once(' ').filter(|(_, place)| place.contains("work.js"))?;
    if !["JS", "LazyCompile", "Function"].contains(&kind) {
        return None;
    }
    Some(name.trim_start_matches(['*', '~', '^', '+']))
}

#[test]
fn node_from_start_to_javascript() {
    let Some(test) = Test::new("node") else { return };
    if !test.needs("node") {
        return;
    }
    let script = format!("{ROOT}/tests/programs/work.js");
    let node = ["node", "--perf-basic-prof", "--interpreted-frames-native-stack", "--no-turbo-inlining"];
    // By the map that the runtime writes, and not by what V8 has in memory.
    let how = ["--unwind", "table", "-F", "999", "--no-interpreters", "--"];
    let recording = test.record(&[&how[..], &node[..], &[&script, "3"]].concat());
    for pid in recording.samples.iter().map(|sample| sample.pid) {
        let _ = std::fs::remove_file(format!("/tmp/perf-{pid}.map"));
    }
    let (mut all, mut whole, mut pairs) = (0, 0, 0);
    let mut invented = BTreeMap::new();
    for sample in &recording.samples {
        let names = recording.names(sample);
        let ours: Vec<&str> = names.iter().filter_map(|name| of_script(name)).collect();
        if ours.is_empty() {
            continue;
        }
        all += sample.samples;
        // Leaf first: C++ is below the script.
        let start = names.iter().any(|name| name.starts_with("node::Start("));
        whole += sample.samples
            * u64::from(
                start
                    && names.ends_with(&["__libc_start_main_impl", "_start"])
                    && ours.contains(&"everything"),
            );
        for pair in ours.windows(2).map(|pair| (pair[1], pair[0])).filter(|pair| *pair != ("", "everything"))
        {
            pairs += sample.samples;
            if !CALLS.contains(&pair) {
                *invented.entry(pair).or_default() += sample.samples;
            }
        }
    }
    let wrong: u64 = invented.values().sum();
    test.tell(&format!(
        "{whole} of {all} whole; {wrong} of {pairs} calls are none of the script: {invented:?}"
    ));
    for name in ["leaf", "compare", "revive", "swap"] {
        let with =
            recording.total(|sample| recording.names(sample).iter().any(|n| of_script(n) == Some(name)));
        assert!(with > 5, "{name}: {with} samples");
    }
    chance::at_least(whole, all, 0.995, 400, &recording.told);
    // A leaf that has not pushed rbp yet, and is not just about to, is named without its caller.
    chance::at_least(pairs - wrong, pairs, 0.999, 500, &format!("{invented:?}"));
}

/// Whether a frame is of the code at its file's entry point, which only a first function is. The
/// distribution's programs have no names.
fn is_entry(location: &Location, entries: &mut HashMap<String, u64>) -> bool {
    if location.path().is_empty() || location.path().starts_with('[') {
        return false;
    }
    let entry = *entries.entry(location.path().to_owned()).or_insert_with(|| {
        let header = output("readelf", &["-h", location.path()]);
        let entry = header.lines().find_map(|line| line.trim().strip_prefix("Entry point address:"));
        u64::from_str_radix(entry.unwrap().trim().trim_start_matches("0x"), 16).unwrap()
    });
    // Offsets and addresses agree within a page. The linker's `_start` goes on in `_dl_start_user`.
    location.file_offset().wrapping_sub(entry) & 0xfff < 64
}

/// Of a storm of short processes, the share of user stacks that are whole.
#[test]
fn storms_of_short_processes() {
    let Some(test) = Test::new("storms") else { return };
    let compiled = format!(
        "for i in $(seq 500); do {}; done",
        test.spin("short", "busy", &["-fomit-frame-pointer"]) + " 0"
    );
    let storms = [
        ("true", "for i in $(seq 500); do /bin/true; done".to_owned()),
        ("ls", "for i in $(seq 500); do ls / >/dev/null; done".to_owned()),
        ("gcc", "for i in $(seq 500); do gcc --version >/dev/null; done".to_owned()),
        ("short", compiled),
    ];
    let mut entries = HashMap::new();
    for (comm, script) in storms {
        let recording = test.record(&["--unwind", "table", "-F", "1999", "--", "sh", "-c", &script]);
        let (mut all, mut whole) = (0, 0);
        let mut why: BTreeMap<&str, u64> = BTreeMap::new();
        for sample in recording.samples.iter().filter(|sample| ["sh", comm].contains(&sample.comm.as_str())) {
            let user = sample.stack.iter().any(|id| !recording.locations[id].in_kernel());
            if !user {
                continue;
            }
            all += sample.samples;
            let first = &recording.locations[sample.stack.last().unwrap()];
            match recording.names(sample).last() {
                _ if is_entry(first, &mut entries) => whole += sample.samples,
                Some(reason) if reason.starts_with("[truncated") => {
                    *why.entry(reason).or_default() += sample.samples
                }
                other => *why.entry(other.copied().unwrap_or("")).or_default() += sample.samples,
            }
        }
        test.tell(&format!("500 × {comm}: {whole} of {all} user stacks are whole; {why:?}"));
        chance::at_least(whole, all, 0.95, 300, &format!("{comm}: {why:?}"));
    }
}

#[test]
fn a_library_that_is_loaded_later() {
    let Some(test) = Test::new("loads") else { return };
    let program = test.compile("tests/programs/loads.c", "loads", &["-fomit-frame-pointer"]);
    let flags = ["-fomit-frame-pointer", "-shared", "-fPIC"];
    let library = test.compile("tests/programs/loaded.c", "libloaded.so", &flags);
    let recording = test.record(&["--unwind", "table", "-F", "999", "--", &program, &library, "1"]);
    let chain = ["library_leaf", "library_callee", "library_work", "main"];
    let within = |sample: &Sample| recording.leaf(sample).name() == "library_leaf";
    let all = recording.total(within);
    let whole = recording.total(|sample| {
        let names = recording.names(sample);
        within(sample) && names.starts_with(&chain) && names.last() == Some(&"_start")
    });
    test.tell(&format!("{whole} of {all} stacks through the library are whole"));
    chance::at_least(whole, all, 0.995, 200, &recording.told);
}

/// Mappings of processes that are gone make room: 3,000 programs need more than there is.
#[test]
fn three_thousand_programs_leave_nothing_behind() {
    let Some(test) = Test::new("execs") else { return };
    let script = "for i in $(seq 3000); do /bin/true; done";
    let limits = ["--table-limits", "256,2048"];
    let recording =
        test.record(&[&["--unwind", "table", "-F", "99"], &limits[..], &["--", "sh", "-c", script]].concat());
    assert!(!recording.told.contains("no room"), "{}", recording.told);
    let processes = recording.samples.iter().map(|sample| sample.pid).collect::<HashSet<_>>().len();
    assert!(processes > 20, "{}", recording.told);
}

/// A machine whose binaries do not fit is recorded as well as frame pointers go, and told so.
#[test]
fn full_tables_fall_back_to_frame_pointers() {
    let Some(test) = Test::new("full-tables") else { return };
    let program = test.spin("spin", "busy", &[]);
    for (limits, what) in [("1,65536", "rows"), ("256,8", "mappings")] {
        let args = ["--unwind", "table", "-F", "999", "--table-limits", limits, "--"];
        let script = format!("{program} 1; ls -R /usr/share >/dev/null; true");
        let recording = test.record(&[&args[..], &["sh", "-c", &script]].concat());
        let tables = recording.told.lines().find(|line| line.starts_with("  tables ")).expect("tables");
        test.tell(&format!(
            "{what}: {}; complete {}, incomplete {}",
            tables.trim(),
            recording.complete,
            recording.incomplete
        ));
        assert!(tables.contains("; no room for "), "{what}: {}", recording.told);
        assert!(recording.with("busy") > 30 && recording.lost == 0, "{what}: {}", recording.told);
    }
}
