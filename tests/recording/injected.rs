//! Errors of the kernel's, put into a recorder by strace: in each system call by which a recording begins, goes on and
//! ends. Then there is a whole file or none, and one message that says why.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{JUDGES, Test, spawn};

/// What an older file of the output's name holds.
const OLD: &str = "an older file";

/// A system call, the error that it is to end with, and at how many of its places.
struct Fault {
    call: &'static str,
    error: &'static str,
    places: u64,
    /// From there on, or only there.
    lasts: bool,
    /// What a recorder that gives up has to say, the remedy last.
    says: &'static [&'static str],
}

const NO_FILES: &[&str] = &["Too many open files", "(ulimit -n)"];
const NO_MEMORY: &[&str] = &["emory", "free some memory"];
const NO_SPACE: &[&str] = &["output.pb.gz: No space left on device", "free some space"];
const BROKEN: &[&str] = &["Input/output error"];

const fn once(call: &'static str, error: &'static str, places: u64, says: &'static [&'static str]) -> Fault {
    Fault { call, error, places, lasts: false, says }
}

const fn for_good(
    call: &'static str,
    error: &'static str,
    places: u64,
    says: &'static [&'static str],
) -> Fault {
    Fault { call, error, places, lasts: true, says }
}

const FAULTS: &[Fault] = &[
    once("write", "ENOSPC", 16, NO_SPACE),
    once("fsync", "EIO", 1, BROKEN),
    once("fsync", "ENOSPC", 1, NO_SPACE),
    once("linkat", "EIO", 1, BROKEN),
    once("linkat", "ENOSPC", 1, NO_SPACE),
    once("renameat", "EIO", 1, BROKEN),
    once("renameat", "ENOSPC", 1, NO_SPACE),
    once("openat", "EMFILE", 6, NO_FILES),
    for_good("openat", "EMFILE", 6, NO_FILES),
    once("memfd_create", "EMFILE", 2, NO_FILES),
    once("perf_event_open", "EMFILE", 3, NO_FILES),
    once("mmap", "ENOMEM", 3, NO_MEMORY),
    for_good("mmap", "ENOMEM", 3, NO_MEMORY),
    once("poll", "ENOMEM", 3, NO_MEMORY),
    // What libbpf asks the kernel before it loads a program has no answer then, and the load another error.
    once("bpf", "ENOMEM", 6, &["failed to "]),
    for_good("bpf", "ENOMEM", 3, &["failed to "]),
    once("read", "EIO", 4, BROKEN),
];

/// Runs a recorder under strace, in a directory with an older file; returns what it said and strace's log.
fn recorded(test: &Test, directory: &Path, target: u32, strace: &[&str]) -> (Output, String) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir(directory).unwrap();
    fs::write(directory.join("output.pb.gz"), OLD).unwrap();
    let log = test.path("log");
    let mut recorder = Command::new("strace");
    recorder.args(["-o", &log]).args(strace).arg(env!("CARGO_BIN_EXE_profiler"));
    recorder.args(["record", "-F", "499", "-d", "60ms", "--unwind", "fp", "-p", &target.to_string()]);
    recorder.env_remove("SUDO_UID").env_remove("SUDO_GID").env("RUST_BACKTRACE", "0");
    recorder.env("TMPDIR", directory);
    let output = recorder.current_dir(directory).output().unwrap();
    (output, fs::read_to_string(&log).unwrap_or_default())
}

/// How many of each call there are in a recording: before the program's own first instruction, and in all. The Rust
/// runtime's stack for signals is the last that is made before it.
fn counted(log: &str) -> BTreeMap<String, [u64; 2]> {
    let mut counts: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    let mut begun = false;
    for line in log.lines() {
        let Some((call, _)) = line.split_once('(') else { continue };
        begun |= call == "sigaltstack" && line.contains("ss_sp=0x");
        let [before, all] = counts.entry(call.to_owned()).or_default();
        *all += 1;
        *before += u64::from(!begun);
    }
    counts
}

/// By a reader that is not ours. How long its process had the CPU is another matter.
fn is_whole(file: &Path, what: &str) {
    let judged = crate::common::output("python3", &[&format!("{JUDGES}/dump.py"), &file.to_string_lossy()]);
    assert!(!judged.lines().any(|line| line.starts_with("error")), "{what}: {judged}");
}

/// Judges what a recorder has left and said.
fn judge(fault: &Fault, place: u64, directory: &Path, output: &Output) -> &'static str {
    let told = String::from_utf8_lossy(&output.stderr);
    let what = format!("{} {} at {place}: {}: {told}", fault.call, fault.error, output.status);
    assert!(!told.contains("panicked") && output.status.code().is_some(), "{what}");
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    left.sort();
    let file = directory.join("output.pb.gz");
    let errors = told.matches("profiler: error: ").count();
    if fs::read(&file).unwrap() == OLD.as_bytes() {
        assert_eq!((output.status.code(), errors), (Some(1), 1), "{what}");
        for part in fault.says {
            assert!(told.contains(part), "without `{part}`: {what}");
        }
        // What could not be given its name is kept under another one.
        let Some((_, kept)) = told.trim_end().rsplit_once(": what was written is in ") else {
            assert_eq!(left, ["output.pb.gz"], "{what}");
            return "no file";
        };
        assert_eq!(left, ["output.pb.gz", kept.rsplit('/').next().unwrap()], "{what}");
        is_whole(Path::new(kept), &what);
        return "another name";
    }
    assert_eq!(left, ["output.pb.gz"], "{what}");
    is_whole(&file, &what);
    let is_part = told.contains(" failed, and what was recorded until then is written: ");
    assert_eq!((output.status.code(), errors), (Some(i32::from(is_part)), 0), "{what}");
    if is_part { "a part" } else { "a file" }
}

#[test]
fn errors_leave_a_whole_file_or_none() {
    let Some(test) = Test::new("injected") else { return };
    if !test.needs("strace") {
        return;
    }
    let program = test.spin("spin", "busy", &[]);
    let target = spawn(Command::new(&program).arg("600"));
    let directory = test.dir.join("recorded");
    let calls: Vec<&str> = FAULTS.iter().map(|fault| fault.call).collect();
    let trace = format!("trace=sigaltstack,{}", calls.join(","));
    let (first, log) = recorded(&test, &directory, target.0.id(), &["-e", &trace]);
    if !first.status.success() && log.is_empty() {
        return test.skip(&format!("strace: {}", String::from_utf8_lossy(&first.stderr)));
    }
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let counts = counted(&log);
    let mut ends: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    for fault in FAULTS {
        let [before, all] = counts.get(fault.call).copied().unwrap_or_default();
        // Without O_TMPFILE a file has a name from its beginning.
        assert!(all > before || fault.call == "linkat", "no {}: {log}", fault.call);
        for place in places(before, all, fault.places) {
            let when = if fault.lasts { format!("{place}+") } else { place.to_string() };
            let inject = format!("inject={}:error={}:when={when}", fault.call, fault.error);
            let trace = format!("trace={}", fault.call);
            let strace = ["-e", &trace, "-e", &inject];
            let (output, log) = recorded(&test, &directory, target.0.id(), &strace);
            // The number of some calls goes with what runs on the machine.
            let end = if log.contains("INJECTED") {
                judge(fault, place, &directory, &output)
            } else {
                "not reached"
            };
            *ends.entry(format!("{} {}", fault.call, fault.error)).or_default().entry(end).or_default() += 1;
        }
    }
    test.tell(&format!("{ends:?}"));
    // Each of these must have cost a file, and some of the others none.
    for lost in ["write ENOSPC", "fsync EIO", "perf_event_open EMFILE", "mmap ENOMEM"] {
        assert!(ends[lost].contains_key("no file"), "{lost}: {ends:?}");
    }
    assert!(ends["renameat ENOSPC"].contains_key("another name"), "{ends:?}");
    assert!(ends["openat EMFILE"].contains_key("a file"), "{ends:?}");
    assert!(ends["poll ENOMEM"].contains_key("a part"), "{ends:?}");
}

/// Some places among those after the first `before` of `all`, evenly, the last one included.
fn places(before: u64, all: u64, most: u64) -> Vec<u64> {
    let there = all - before;
    let some = most.min(there);
    (1..=some).map(|at| before + at * there / some).collect()
}
