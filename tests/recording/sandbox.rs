//! Files that were made to break whoever reads them: what they cost, and what they cannot reach.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::common::{Guarded, Running, Test, copy_program, output, spawn, wait_for_cpu_time};

/// Whoever gets hold of a worker gets hold of nothing else: a worker tries, and tells.
#[test]
fn workers_can_do_nothing_else() {
    let Some(test) = Test::new("workers") else { return };
    let ran = test.profiler(&["doctor"]).output().unwrap();
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stderr));
    for worker in ["unwind tables", "names", "the memory of Java virtual machines"] {
        let all = format!("worker for {worker}: none of 8 attempts to get out succeeded");
        assert!(told.contains(&all), "{told}");
    }
    assert!(!Path::new("/tmp/profiler-worker-was-here").exists());
    for line in told.lines().filter(|line| line.contains("lacks")) {
        test.skip(&format!("a fence of the workers: {}", line.trim()));
    }
    assert!(told.contains("setcap cap_bpf,cap_perfmon,"), "{told}");
}

/// Ends workers of a recorder, one after the other, until it is told to stop; returns how many.
fn killing(recorder: u32, kind: &'static str, stop: &AtomicBool, killed: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let children = fs::read_to_string(format!("/proc/{recorder}/task/{recorder}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            let name = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            // One that has given up its rights has begun to work.
            if name.starts_with(&format!("profiler-worker\0{kind}\0")) && status.contains("Seccomp:\t2") {
                let signal = [Signal::SIGSEGV, Signal::SIGKILL][killed.load(Ordering::Relaxed) % 2];
                if signal::kill(Pid::from_raw(child.parse().unwrap()), signal).is_ok() {
                    killed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        thread::sleep(Duration::from_micros(300));
    }
}

/// Copies of a program, which are objects of their own, and run.
fn copies(test: &Test, program: &str, count: usize) -> Vec<Guarded> {
    let copy = |number| {
        let copy = test.path(&format!("copy{number}"));
        // Another size is another table.
        copy_program(program, &copy, number + 1);
        spawn(Command::new(copy).arg("600"))
    };
    (0..count).map(copy).collect()
}

#[test]
fn workers_that_die_cost_a_file_each() {
    let Some(test) = Test::new("dying-workers") else { return };
    let program = test.spin("spin", "busy", &["-g"]);
    let running = copies(&test, &program, 24);
    let pids: Vec<String> = running.iter().map(|child| child.0.id().to_string()).collect();
    let pids = pids.join(",");
    for (kind, least) in [("tables", 3), ("names", 3)] {
        let (stop, killed) = (AtomicBool::new(false), AtomicUsize::new(0));
        let recording = thread::scope(|scope| {
            let recorder = test.start(&["-F", "999", "-d", "3s", "-p", &pids]);
            let pid = recorder.pid();
            let (stop, killed) = (&stop, &killed);
            scope.spawn(move || killing(pid, kind, stop, killed));
            let recording = recorder.finish();
            stop.store(true, Ordering::Relaxed);
            recording
        });
        let killed = killed.load(Ordering::Relaxed);
        let reasons = ["symbolizer crashed on this file", "procedure linkage table"];
        let (named, all) = (recording.with("busy"), recording.total(|_| true));
        test.tell(&format!("{killed} workers for {kind} ended: {named} of {all} samples have names"));
        assert!(killed >= least, "{kind}: {killed}");
        // Every frame has its name, or the reason.
        for name in recording.leaves().keys().filter(|name| name.starts_with("copy")) {
            assert!(reasons.iter().any(|reason| name.contains(&format!("[{reason}]"))), "{name}");
        }
        if kind == "tables" {
            assert_eq!(recording.told.matches("symbolizer").count(), 0, "{}", recording.told);
            assert!(named * 10 >= all * 9, "{}", recording.told);
        }
    }
    // Left alone, all have names.
    let recording = test.record(&["-F", "499", "-d", "2s", "-p", &pids]);
    assert!(recording.with("busy") * 10 >= recording.total(|_| true) * 9, "{:?}", recording.leaves());
}

/// A section of debug information that is 2 GiB of zeros, in 2 MB.
#[test]
fn a_bomb_costs_its_own_names() {
    let Some(test) = Test::new("bomb") else { return };
    if !test.needs("objcopy") {
        return;
    }
    let bomb = test.spin("bomb", "ticking", &[]);
    let harmless = test.spin("harmless", "busy", &[]);
    let script = "import struct, sys, zlib\n\
        c = zlib.compressobj(9)\n\
        zeros = bytes(1 << 24)\n\
        data = b''.join(c.compress(zeros) for _ in range(128)) + c.flush()\n\
        open('blob', 'wb').write(struct.pack('<IIQQ', 1, 0, 1 << 31, 1) + data)\n";
    output("python3", &["-c", &script.replace("'blob'", &format!("'{}'", test.path("blob")))]);
    let sections = ["info", "line", "abbrev"].map(|name| format!(".debug_{name}={}", test.path("blob")));
    let adds: Vec<&str> = sections.iter().flat_map(|section| ["--add-section", section]).collect();
    output("objcopy", &[&adds[..], &[bomb.as_str()]].concat());
    let flags = "import struct, sys\n\
        f = open(sys.argv[1], 'r+b'); d = f.read()\n\
        off, = struct.unpack_from('<Q', d, 40); size, count, names = struct.unpack_from('<HHH', d, 58)\n\
        text, = struct.unpack_from('<Q', d, off + names * size + 24)\n\
        for i in range(count):\n\
        \x20   name, kind, flags = struct.unpack_from('<IIQ', d, off + i * size)\n\
        \x20   if d[text + name:].startswith(b'.debug_'):\n\
        \x20       f.seek(off + i * size + 8); f.write(struct.pack('<Q', flags | 0x800))\n";
    output("python3", &["-c", flags, &bomb]);
    let running = [&bomb, &harmless].map(|program| spawn(Command::new(program).arg("600")));
    let pids = running.each_ref().map(|child| child.0.id());
    let recorder = test.started(&["-F", "499", "-p", &format!("{},{}", pids[0], pids[1])]);
    pids.iter().for_each(|&pid| wait_for_cpu_time(pid, 0.3));
    let recording = recorder.interrupt();
    assert!(recording.with("busy") > 50, "{:?}", recording.leaves());
    let peak = recording.told.split("naming ").nth(1).and_then(|rest| rest.split(", ").nth(1));
    let peak = peak.and_then(|peak| peak.split(' ').next()).and_then(|mib| mib.parse::<f64>().ok());
    test.tell(&format!(
        "names of the bomb: {:?}; the worker's peak: {peak:?} MiB",
        recording.with("ticking")
    ));
    assert!(peak.is_some_and(|mib| mib < 1024.0), "{}", recording.told);
}

/// A file of its owner's alone has names, too, though the worker could not open it.
#[test]
fn closed_files_have_names() {
    use std::os::unix::fs::PermissionsExt;
    let Some(test) = Test::new("closed-files") else { return };
    let program = test.spin("spin", "busy", &[]);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let file = test.dir.join("output.pb.gz");
    let recorder = test.profiler(&["record", "-F", "999", "--", &program, "0.5"]);
    let recording = Running::new(file, recorder).finish();
    assert!(recording.with("busy") * 10 > recording.total(|_| true) * 8, "{:?}", recording.leaves());
}
