//! `--every`: files of one recorder, period by period.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::chance;
use crate::common::{JUDGES, Recording, Running, Test, cpu_s, kill, output, refusal, spawn, wait_until};

/// Recordings in a directory, the oldest first.
fn files(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names.into_iter().map(|name| format!("{directory}/{name}")).collect()
}

/// One file of many, which the judge finds whole. Its equation is in its comments.
fn read(file: &str) -> Recording {
    let dump = output("python3", &[&format!("{JUDGES}/dump.py"), file]);
    let sum = dump
        .lines()
        .find_map(|line| line.strip_prefix("comment\tsamples: "))
        .unwrap_or_else(|| panic!("{dump}"));
    Recording::read(file, format!("  {sum}\n"))
}

/// Milliseconds since midnight at which a file says that it begins.
fn begin_ms(file: &str) -> i64 {
    let name = file.rsplit('/').next().unwrap();
    let (_, time) = name.split_once('T').unwrap();
    let part = |range: std::ops::Range<usize>| time[range].parse::<i64>().unwrap();
    ((part(0..2) * 60 + part(2..4)) * 60 + part(4..6)) * 1000 + part(7..10)
}

/// A recorder that writes into a directory of the test's.
fn started(test: &Test, args: &[&str]) -> Running {
    let command = test.profiler(&[&["record", "-o", "dir"], args].concat());
    let running = Running::new(PathBuf::from("/nowhere"), command);
    running.wait_until_it_samples();
    running
}

#[test]
fn periods_follow_each_other_and_add_up() {
    let Some(test) = Test::alone("every") else { return };
    let program = test.spin("spin", "busy", &[]);
    let brief = test.spin("brief", "busy_brief", &[]);
    // One that runs all the time, and many that are short, at the borders too.
    let long = spawn(Command::new(&program).arg("600"));
    let shell = spawn(Command::new("sh").args(["-c", "while :; do \"$0\" 0.02; done", &brief]));
    let targets = format!("{},{}", long.0.id(), shell.0.id());
    let mut recorder = started(&test, &["-F", "499", "--every", "1s", "-p", &targets]);
    let before = cpu_s(long.0.id());
    let dir = test.path("dir");
    wait_until("six files are there", || files(&dir).len() >= 6);
    let ran = cpu_s(long.0.id()) - before;
    kill(recorder.pid(), Signal::SIGINT);
    assert!(recorder.child.0.wait().unwrap().success());
    let told = recorder.told();
    let all = files(&dir);
    assert!(told.contains(&format!("profiler: {} files, in all taken ", all.len())), "{told}");
    assert!(!told.contains("UNACCOUNTED"), "{told}");
    let mode = |file: &String| fs::metadata(file).unwrap().mode() & 0o777;
    assert!(all.iter().all(|file| mode(file) == 0o600), "recordings are their owner's alone");
    let recordings: Vec<Recording> = all.iter().map(|file| read(file)).collect();
    // The sum of the kernel's own counters is that of the files.
    let sum: u64 = recordings.iter().map(|it| it.total(|_| true)).sum();
    let equation = told.lines().find(|line| line.contains("in all taken")).unwrap();
    let numbers: Vec<u64> = equation.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [_, taken, complete, incomplete, lost] = numbers[..] else { panic!("{equation}") };
    assert_eq!((taken, sum), (complete + incomplete + lost, complete + incomplete), "{equation}");
    assert_eq!(lost, 0, "{equation}");
    // Where one ends the next begins.
    for (at, pair) in all.windows(2).enumerate() {
        let end = begin_ms(&pair[0]) + (recordings[at].seconds() * 1e3) as i64;
        assert!((end - begin_ms(&pair[1])).abs() <= 20, "{pair:?}: {} s", recordings[at].seconds());
    }
    // All of a program's time is in them, as one recording would have it.
    let long = recordings.iter().map(|it| it.total(|sample| sample.pid == long.0.id())).sum::<u64>();
    let least = *chance::around(ran * 499.0).start();
    assert!(long >= least, "{long} samples in {ran} s of CPU time: {told}");
    let brief: u64 = recordings.iter().map(|it| it.total(|sample| sample.comm == "brief")).sum();
    let named: u64 = recordings.iter().map(|it| it.with("busy_brief")).sum();
    assert!(brief > 100 && named * 100 >= brief * 70, "{named} of {brief}");
    // What is not whole is so for other reasons than that a window ended: none waits for its frames.
    for recording in &recordings {
        let full = recording.comments.iter().find(|comment| comment.contains("ring buffer full"));
        assert_eq!(full, None, "{:?}", recording.comments);
    }
}

#[test]
fn what_is_killed_leaves_whole_files() {
    let Some(test) = Test::new("every-killed") else { return };
    let dir = test.path("dir");
    let own = std::process::id().to_string();
    let mut recorder = started(&test, &["-F", "99", "--every", "1s", "-p", &own]);
    let second = refusal(&test.profiler(&["record", "--every", "1s", "-o", "dir"]).output().unwrap());
    assert!(second.contains("another profiler records into dir"), "{second}");
    wait_until("two files are there", || files(&dir).len() >= 2);
    kill(recorder.pid(), Signal::SIGKILL);
    let _ = recorder.child.0.wait();
    let told = recorder.told();
    assert!(!told.contains("error"), "{told}");
    // The child that writes is left to its work.
    let is_free = || {
        let lock = fs::File::open(&dir).unwrap();
        nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok()
    };
    wait_until("nobody writes there", is_free);
    let left = files(&dir);
    left.iter().for_each(|file| drop(read(file)));
    // What was half written is removed by the next, and what is too old, and nothing else.
    let half = format!("{dir}/.20200101T000000.000Z.pb.gz.1.tmp");
    let old = format!("{dir}/20200101T000000.000Z.pb.gz");
    let other = format!("{dir}/other.pb.gz");
    [&half, &old, &other].into_iter().for_each(|file| fs::write(file, "x").unwrap());
    let mut recorder = started(&test, &["-F", "99", "--every", "1s", "-p", &own, "--keep", "1h"]);
    wait_until("another file is there", || {
        files(&dir).iter().any(|file| !left.contains(file) && *file > left[0] && *file != other)
    });
    kill(recorder.pid(), Signal::SIGTERM);
    assert!(recorder.child.0.wait().unwrap().success(), "{}", recorder.told());
    let kept = |file: &String| fs::exists(file).unwrap();
    assert!(!kept(&half) && !kept(&old) && kept(&other) && left.iter().all(kept), "{:?}", files(&dir));
    // By size: the newest only.
    let mut recorder = started(&test, &["-F", "99", "--every", "1s", "-p", &own, "--keep-bytes", "1K"]);
    wait_until("all but the newest are gone", || files(&dir).len() == 2);
    kill(recorder.pid(), Signal::SIGTERM);
    assert!(recorder.child.0.wait().unwrap().success(), "{}", recorder.told());
}

/// Values of a file's samples that were taken in a part of it, by their labels, in nanoseconds since it began.
fn taken_in(file: &str, from_ns: i64, to_ns: i64) -> u64 {
    let dump = output("python3", &[&format!("{JUDGES}/labels.py"), file]);
    let moment = |line: &str| {
        let label = line.split('\t').find_map(|label| label.strip_prefix("timeline="));
        label.unwrap_or_else(|| panic!("{line}")).parse::<i64>().unwrap()
    };
    let samples = dump.lines().filter(|line| line.contains("timeline="));
    let taken = samples.filter(|line| (from_ns..to_ns).contains(&moment(line)));
    taken.map(|line| line.split(['\t', ',', ' ']).find_map(|word| word.parse::<u64>().ok()).unwrap()).sum()
}

/// Every command that takes a file takes the directory of many, too.
#[test]
fn a_directory_is_read_as_one_recording() {
    let Some(test) = Test::new("every-read") else { return };
    let spin = spawn(Command::new(test.spin("spin", "busy", &[])).arg("600"));
    let pid = spin.0.id().to_string();
    let record = |dir: &str, more: &[&str]| {
        let line = [&["record", "-o", dir, "-F", "199", "--every", "1s", "-d", "3500ms", "-p", &pid], more];
        let recorded = test.profiler(&line.concat()).output().unwrap();
        assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
        files(&test.path(dir))
    };
    let run = |args: &[&str]| {
        let output = test.profiler(args).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {told}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let counts = text.lines().filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        (counts.sum::<u64>(), told)
    };
    let folded = |input: &str, more: &[&str]| run(&[&["folded", input], more].concat());
    let all = record("dir", &["--timeline=50ms"]);
    // Nobody's business.
    fs::write(test.path("dir/notes.txt"), "x").unwrap();
    let sum: u64 = all.iter().map(|file| read(file).total(|_| true)).sum();
    assert!(sum > 50 && all.len() >= 3, "{sum} in {all:?}");
    let (found, told) = folded("dir", &[]);
    assert_eq!(found, sum);
    assert!(told.contains(&format!("dir holds {0} recordings: {0} are added up", all.len())), "{told}");
    run(&["merge", "dir", "-o", "merged.pb.gz"]);
    assert_eq!(folded("merged.pb.gz", &[]).0, sum);
    // A part of the time since the first one began, of several files.
    let begins: Vec<i64> = all.iter().map(|file| (begin_ms(file) - begin_ms(&all[0])) * 1_000_000).collect();
    let part = (500_000_000, 2_250_000_000);
    let in_part: u64 =
        all.iter().zip(&begins).map(|(file, begin)| taken_in(file, part.0 - begin, part.1 - begin)).sum();
    assert!(0 < in_part && in_part < sum, "{in_part} of {sum}");
    let times = ["--from", "500ms", "--to", "2250ms"];
    let (found, told) = folded("dir", &times);
    assert_eq!(found, in_part, "{told}");
    let begun = begins.iter().filter(|begin| **begin < part.1).count();
    assert!(begun < all.len() && told.contains(&format!("recordings: {begun} are added up")), "{told}");
    // Moments are the same in what was merged.
    assert_eq!(folded("merged.pb.gz", &times).0, in_part);
    // And where the files are named one by one, in whatever order.
    let mut one_by_one: Vec<&str> = all.iter().rev().map(String::as_str).collect();
    one_by_one.splice(0..0, ["merge", "-o", "named.pb.gz"]);
    run(&one_by_one);
    let named = folded("named.pb.gz", &times).0;
    // Names of files have times in milliseconds.
    assert!(named.abs_diff(in_part) <= 25, "{named}, {in_part}");
    let none = refusal(&test.profiler(&["top", "dir", "--from", "1h"]).output().unwrap());
    assert!(none.contains("failed to show a part of dir: no sample is of --from"), "{none}");
    // Files without moments are there as a whole, which is said.
    let whole = record("whole", &[]);
    let first = read(&whole[0]).total(|_| true);
    let (found, told) = folded("whole", &["--to", "100ms"]);
    assert_eq!(found, first, "{told}");
    assert!(told.contains("1 of these are taken as a whole"), "{told}");
    fs::create_dir(test.path("empty")).unwrap();
    let empty = refusal(&test.profiler(&["top", "empty"]).output().unwrap());
    assert!(empty.contains("a directory without files of `record --every`"), "{empty}");
    fs::write(&whole[1], "junk").unwrap();
    let junk = refusal(&test.profiler(&["top", "whole"]).output().unwrap());
    assert!(junk.contains("failed to read the profiles in whole: failed to read 20"), "{junk}");
}

/// Programs that are new come and go all the time: what was opened for them is closed, and memory does not grow.
#[test]
fn going_on_and_on_does_not_grow() {
    let Some(test) = Test::alone("every-on") else { return };
    let brief = test.spin("brief", "busy_brief", &[]);
    // A file of its own for each process.
    let script = "n=0; while :; do n=$((n+1)); cp \"$0\" \"$0.$n\"; \"$0.$n\" 0.02; rm \"$0.$n\"; done";
    let storm = spawn(Command::new("sh").args(["-c", script, &brief]));
    let mut recorder = started(
        &test,
        &["-F", "199", "--every", "1s", "-p", &storm.0.id().to_string(), "--keep-bytes", "1K"],
    );
    let pid = recorder.pid();
    let fds = || fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count());
    let rss = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0)
    };
    sleep(Duration::from_secs(4));
    let before = (fds(), rss());
    sleep(Duration::from_secs(8));
    let after = (fds(), rss());
    kill(pid, Signal::SIGTERM);
    assert!(recorder.child.0.wait().unwrap().success(), "{}", recorder.told());
    test.tell(&format!("descriptors and KiB of memory after 4 s {before:?}, after 12 s {after:?}"));
    assert!(after.0 <= before.0 + 150, "descriptors: {before:?}, {after:?}");
    assert!(after.1 <= before.1 + 16 * 1024, "memory: {before:?}, {after:?}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let Some(test) = Test::new("every-refused") else { return };
    test.file("plain", "x");
    for (args, why) in [
        (&["--every", "60s"][..], "name a directory"),
        (&["--every", "60s", "-o", "-"], "name a directory"),
        (&["--every", "60s", "-o", "plain"], "failed to make the directory plain"),
        (&["--every", "60s", "-o", "none/such"], "failed to make the directory none/such"),
    ] {
        let message = refusal(&test.profiler(&[&["record"], args].concat()).output().unwrap());
        assert!(message.contains(why), "{args:?}: {message}");
    }
    for args in [
        &["--keep", "1h"][..],
        &["--every", "1ms", "-o", "d"],
        &["--every", "2s", "--keep-bytes", "0", "-o", "d"],
    ] {
        let output = test.profiler(&[&["record"], args].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    assert_eq!(test.names(), ["plain"]);
}
