//! What a user without any right leaves where the recorder, as root, looks: links to what is not his, devices,
//! files that change under its hands, files that no linker made. It costs his own names at most.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::Signal;

use crate::chance;
use crate::common::{Guarded, Recording, Running, Test, kill, output, spawn, wait_for_cpu_time, wait_until};

const NOBODY: u32 = 65_534;

/// Runs a command that must succeed, as nobody.
fn as_nobody(program: &str, args: &[&str]) {
    let ran = Command::new(program).args(args).uid(NOBODY).gid(NOBODY).status().unwrap();
    assert!(ran.success(), "{program} {args:?}: {ran}");
}

/// A process of nobody's that runs code of its own making, and the line that a perf map of it would have.
fn compiling(program: &str) -> (Guarded, String) {
    let mut command = Command::new(program);
    command.args(["100000", "silent"]).stdout(Stdio::piped()).uid(NOBODY).gid(NOBODY);
    let mut running = spawn(&mut command);
    let mut range = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut range).unwrap();
    (running, range.trim().to_owned())
}

/// Removes a perf map at the end.
struct Map(String);

impl Drop for Map {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Nobody lists its compiled code in what it must not read, and in what is no file. Nothing of it is opened, and the
/// others have their names.
#[test]
fn perf_maps_that_are_none_are_not_opened() {
    let Some(test) = Test::new("planted-maps") else { return };
    if !test.needs("strace") || !cfg!(target_arch = "x86_64") {
        return test.skip("it needs strace, and its programs make code for x86-64");
    }
    let program = test.compile("tests/programs/compiles.c", "compiles", &[]);
    let harmless = test.spin("harmless", "busy", &[]);
    let (fifo, hole) = (test.path("fifo"), test.path("hole"));
    output("mkfifo", &["-m", "666", &fifo]);
    fs::File::create(&hole).unwrap().set_len(1 << 43).unwrap();
    let secret = test.path("secret");
    let targets = ["/proc/kmsg", "/dev/ptmx", "/proc/self/environ", &fifo, &hole, &secret];
    let planted: Vec<(Guarded, Map)> = targets
        .iter()
        .map(|target| {
            let (running, range) = compiling(&program);
            let map = Map(format!("/tmp/perf-{}.map", running.0.id()));
            as_nobody("ln", &["-s", target, &map.0]);
            let line = format!("{range} from_a_secret\n");
            fs::write(&secret, line).unwrap();
            (running, map)
        })
        .collect();
    output("chmod", &["600", &secret]);
    let other = spawn(Command::new(harmless).arg("100000"));
    let pids: Vec<String> = planted.iter().map(|(running, _)| running.0.id().to_string()).collect();
    let pids = format!("{},{}", pids.join(","), other.0.id());
    let log = test.path("opened");
    let mut recorder = Command::new("strace");
    recorder.args(["-f", "-y", "-o", &log, "-e", "trace=open,openat,openat2"]);
    recorder.arg(env!("CARGO_BIN_EXE_profiler")).args(["record", "-F", "499", "-d", "3s", "-p", &pids]);
    recorder.current_dir(&test.dir);
    let recording = Running::new(test.dir.join("output.pb.gz"), recorder).finish();
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains(".map\""), "no perf map was looked for: {}", &log[..log.len().min(2000)]);
    for line in log.lines().filter(|line| !line.contains("O_PATH")) {
        let opened = line.rsplit_once(" = ").map_or("", |(_, result)| result);
        for target in ["/proc/kmsg", "/dev/ptmx", "fifo>", "hole>", "secret>"] {
            assert!(!opened.contains(target), "{line}");
        }
    }
    assert_eq!(recording.with("from_a_secret"), 0, "{:?}", recording.leaves());
    only_the_harmless_is_named(&recording, other.0.id(), 30);
}

/// A process's samples have the name `busy`.
fn only_the_harmless_is_named(recording: &Recording, pid: u32, least: u64) {
    let all = recording.total(|sample| sample.pid == pid);
    let named = recording.total(|sample| sample.pid == pid && recording.has_frame(sample, "busy"));
    chance::at_least(named, all, 0.9, least, &format!("{:?}", recording.leaves()));
}

/// One and the same path is a list of nobody's, and a link to a file of root's, in turn and all the time.
#[test]
fn perf_maps_that_become_links_are_not_followed() {
    let Some(test) = Test::new("swapped-maps") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program makes code for x86-64");
    }
    let program = test.compile("tests/programs/compiles.c", "compiles", &[]);
    let (running, range) = compiling(&program);
    let pid = running.0.id();
    let map = Map(format!("/tmp/perf-{pid}.map"));
    let other = Map(format!("/tmp/perf-{pid}.map.other"));
    fs::write(&map.0, format!("{range} of_its_own\n")).unwrap();
    chown(&map.0, Some(NOBODY), Some(NOBODY)).unwrap();
    let secret = test.file("secret", &format!("{range} from_a_secret\n"));
    output("chmod", &["600", &secret]);
    as_nobody("ln", &["-s", &secret, &other.0]);
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let recordings: Vec<Recording> = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (one, two) = (Path::new(&map.0), Path::new(&other.0));
                renameat2(AT_FDCWD, one, AT_FDCWD, two, RenameFlags::RENAME_EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let record = |_| test.record_until(0.1, pid, &["-F", "499", "-p", &pid.to_string()]);
        let recordings = (0..8).map(record).collect();
        wait_until("the path was swapped 10,000 times", || swaps.load(Ordering::Relaxed) > 10_000);
        stop.store(true, Ordering::Relaxed);
        recordings
    });
    let own = recordings.iter().filter(|recording| recording.with("of_its_own") > 0).count();
    test.tell(&format!("{} swaps; {own} of 8 recordings found the list", swaps.load(Ordering::Relaxed)));
    for recording in recordings {
        assert!(recording.total(|_| true) > 10, "{:?}", recording.leaves());
        assert_eq!(recording.with("from_a_secret"), 0, "{:?}", recording.leaves());
    }
}

/// Numbers that repeat with every run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

/// The field of `bytes` bytes at an offset.
fn field(file: &[u8], at: usize, bytes: usize) -> usize {
    file[at..at + bytes].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
}

/// A library that no linker makes any more, by its number. Bytes of code stay: it runs.
fn damaged(library: &[u8], code: usize, number: usize) -> Vec<u8> {
    let mut file = library.to_vec();
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number as u64) << 20 | 1);
    let (segments, sections) = (field(library, 32, 8), field(library, 40, 8));
    let (segment_count, section_count) = (field(library, 56, 2), field(library, 60, 2));
    let header = |index: usize| sections + index * 64;
    match number % 10 {
        // Sizes and places of sections beyond all that there is.
        0 => (1..section_count).for_each(|i| file[header(i) + 32..][..8].fill(0x7f)),
        1 => (1..section_count).for_each(|i| file[header(i) + 24..][..8].fill(0xff)),
        // As many headers as can be claimed.
        2 => file[60..62].fill(0xff),
        3 => file[56..58].fill(0xff),
        // Entries of no size; symbols whose names are anywhere.
        4 => (1..section_count).for_each(|i| file[header(i) + 56..][..8].fill(0)),
        5 => (1..section_count).for_each(|i| file[header(i) + 40] = random.next(section_count) as u8),
        // All sections are compressed, and say that they are large.
        6 => {
            for i in 1..section_count {
                let at = field(library, header(i) + 24, 8);
                file[header(i) + 9] |= 8;
                if at > code + 64 && at + 24 < library.len() && at < sections {
                    file[at..at + 4].copy_from_slice(&[1 + (number % 2) as u8, 0, 0, 0]);
                    file[at + 8..at + 16].copy_from_slice(&(1u64 << 62).to_le_bytes());
                }
            }
        }
        // The file ends early.
        7 => file.truncate((code + 64).max(library.len() - 1 - random.next(library.len() / 2))),
        // Bits of the tables that headers are.
        8 => {
            for _ in 0..8 {
                let at = segments + random.next(segment_count * 56);
                file[at] ^= 1 << random.next(8);
                let at = sections + random.next(section_count * 64);
                file[at] ^= 1 << random.next(8);
            }
        }
        // Bits of anything but the code and the first header.
        _ => {
            for _ in 0..64 {
                let at = 64 + random.next(library.len() - 64);
                if !(code..code + 16).contains(&at) {
                    file[at] ^= 1 << random.next(8);
                }
            }
        }
    }
    // Each is an object of its own.
    file.extend((number as u64).to_le_bytes());
    file
}

/// A library with a function whose bytes are known, and where in the file they are.
fn turning(test: &Test) -> (Vec<u8>, usize) {
    let library = test.compile("tests/programs/turn.c", "turn.so", &["-shared", "-fPIC", "-g"]);
    let library = fs::read(library).unwrap();
    let bytes = [0xb9, 0x40, 0x0d, 0x03, 0x00, 0xff, 0xc9, 0x75, 0xfc, 0xc3];
    let code = library.windows(bytes.len()).position(|window| window == bytes).unwrap();
    (library, code)
}

/// Starts nobody's process that runs the code of these files.
fn mapping(program: &str, code: usize, files: &[String]) -> Guarded {
    let mut command = Command::new(program);
    command.arg(code.to_string()).args(files).stdout(Stdio::piped()).uid(NOBODY).gid(NOBODY);
    let mut running = spawn(&mut command);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "mapped\n");
    running
}

#[test]
fn files_that_no_linker_made_cost_their_own_names() {
    let Some(test) = Test::new("damaged-files") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program's code is for x86-64");
    }
    const FILES: usize = 300;
    let (library, code) = turning(&test);
    let maps = test.compile("tests/programs/maps.c", "maps", &[]);
    let write = |number| {
        let path = test.path(&format!("damaged{number}"));
        fs::write(&path, damaged(&library, code, number)).unwrap();
        path
    };
    let mut files: Vec<String> = (0..FILES).map(write).collect();
    let whole = test.path("turn.so");
    files.push(whole);
    // As large as a file can be, and all of it a hole; where its file system takes that.
    let hole = format!("/dev/shm/profiler-hole-{}", std::process::id());
    let _hole = Map(hole.clone());
    let mut bytes = library.clone();
    let sections = field(&library, 40, 8);
    (1..field(&library, 60, 2)).for_each(|i| bytes[sections + i * 64 + 38] = 0x3f);
    fs::write(&hole, bytes).unwrap();
    match fs::OpenOptions::new().write(true).open(&hole).unwrap().set_len(i64::MAX as u64 & !0xffff) {
        Ok(()) => files.push(hole),
        Err(error) => test.skip(&format!("no file of 8 EiB in /dev/shm: {error}")),
    }
    let harmless = test.spin("harmless", "busy", &["-g"]);
    let harmless = spawn(Command::new(harmless).arg("100000"));
    let strange = mapping(&maps, code, &files);
    let pids = format!("{},{}", strange.0.id(), harmless.0.id());
    let recorder = test.started(&["-F", "999", "-p", &pids]);
    wait_for_cpu_time(strange.0.id(), 1.5);
    let began = Instant::now();
    kill(recorder.pid(), Signal::SIGINT);
    samples_no_more(&recorder);
    let stopped = began.elapsed();
    let recording = recorder.finish();
    test.tell(&format!(
        "{} files: sampling ended after {:.0} ms, the recording after {:.1} s; {} leaves",
        files.len(),
        stopped.as_secs_f64() * 1e3,
        began.elapsed().as_secs_f64(),
        recording.leaves().len()
    ));
    // What took 52 s once takes 200 ms on a machine with nothing else to do.
    assert!(stopped < Duration::from_secs(5), "{stopped:?}");
    only_the_harmless_is_named(&recording, harmless.0.id(), 300);
    // The library that is whole is named, too, beside all that are not.
    assert!(recording.with("turn") > 0, "{:?}", recording.leaves());
    assert!(recording.total(|sample| sample.pid == strange.0.id()) > 300, "{:?}", recording.leaves());
}

/// Waits until a recorder has taken its programs off the CPUs' clocks.
fn samples_no_more(recorder: &Running) {
    let fds = format!("/proc/{}/fd", recorder.pid());
    wait_until("sampling has ended", || {
        let links = fs::read_dir(&fds).into_iter().flatten().flatten();
        let mut links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
        !links.any(|link| link.to_string_lossy().contains("bpf_link"))
    });
}

/// Whoever maps a file that is cut is sent a signal for reading it (SIGBUS).
#[test]
fn files_that_are_cut_while_they_are_read_cost_their_own_names() {
    let Some(test) = Test::new("cut-files") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program's code is for x86-64");
    }
    let (mut library, code) = turning(&test);
    let end = (code + 0xfff) & !0xfff;
    assert!(library.len() > end, "{} bytes", library.len());
    // Larger, so that reading it takes a while.
    library.resize(64 << 20, 0);
    let write = |number| {
        let path = test.path(&format!("cut{number}"));
        fs::write(&path, &library).unwrap();
        path
    };
    let files: Vec<String> = (0..9).map(write).collect();
    let maps = test.compile("tests/programs/maps.c", "maps", &[]);
    let harmless = test.spin("harmless", "busy", &["-g"]);
    let harmless = spawn(Command::new(harmless).arg("100000"));
    let strange = mapping(&maps, code, &files);
    let pids = format!("{},{}", strange.0.id(), harmless.0.id());
    let (stop, cuts) = (AtomicBool::new(false), AtomicU64::new(0));
    let recording = thread::scope(|scope| {
        let open = |path: &String| fs::OpenOptions::new().write(true).open(path).unwrap();
        let handles: Vec<fs::File> = files.iter().map(open).collect();
        let (stop, cuts, library) = (&stop, &cuts, &library);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for file in &handles {
                    file.set_len(end as u64).unwrap();
                    file.set_len(library.len() as u64).unwrap();
                    cuts.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let recorder = test.started(&["-F", "499", "-p", &pids]);
        wait_for_cpu_time(strange.0.id(), 0.5);
        wait_for_cpu_time(harmless.0.id(), 0.3);
        let recording = recorder.interrupt();
        stop.store(true, Ordering::Relaxed);
        recording
    });
    test.tell(&format!("{} cuts: {:?}", cuts.load(Ordering::Relaxed), recording.leaves()));
    assert!(cuts.load(Ordering::Relaxed) > 100);
    only_the_harmless_is_named(&recording, harmless.0.id(), 50);
}
