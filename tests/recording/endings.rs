//! How a recording ends, and what is left then: a whole file, or none.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::chance;
use crate::common::{Running, Test, kill, output, refusal, spawn, wait_for_cpu_time, wait_until};

#[test]
fn every_end_leaves_a_whole_file() {
    let Some(test) = Test::new("endings") else { return };
    let program = test.spin("spin", "busy", &[]);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // Another process is the target: the signal ends the recording, not what is recorded.
        let target = spawn(Command::new(&program).arg("600"));
        let recorder = test.started(&["-F", "499", "-p", &target.0.id().to_string()]);
        wait_for_cpu_time(target.0.id(), 0.3);
        kill(recorder.pid(), signal);
        let recording = recorder.finish();
        assert!(
            recording.with("busy") >= *chance::around(0.3 * 499.0).start(),
            "{signal}: {}",
            recording.told
        );
        // It still runs.
        kill(target.0.id(), Signal::SIGCONT);
        assert_eq!(test.names(), ["output.pb.gz", "spin"]);
    }
    // By time: not before, and long before the command, which needs more than a minute of CPU time.
    let by_time = test.record(&["-F", "499", "-d", "700ms", "--", &program, "100"]);
    assert!((0.69..60.0).contains(&by_time.seconds()), "{:?}", by_time.comments);
    assert!(by_time.with("busy") > 10, "{}", by_time.told);
    // By the command: once it had its CPU time, and long before the time that was given.
    let by_child = test.record(&["-F", "499", "-d", "100s", "--", &program, "0.4"]);
    assert!((0.4..60.0).contains(&by_child.seconds()), "{:?}", by_child.comments);
    // The target's end ends it too.
    let target = spawn(Command::new(&program).arg("600"));
    let by_target = test.started(&["-F", "499", "-p", &target.0.id().to_string()]);
    drop(target);
    by_target.finish();
    assert_eq!(test.names(), ["output.pb.gz", "spin"]);
}

/// Whoever sends a signal that ends programs wants an end, and not that what was recorded is lost.
#[test]
fn every_signal_that_ends_programs_ends_a_recording() {
    let Some(test) = Test::new("ending-signals") else { return };
    let program = test.spin("spin", "busy", &[]);
    let target = spawn(Command::new(&program).arg("600"));
    for signal in [
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGXCPU,
        Signal::SIGIO,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        let pid = target.0.id().to_string();
        let recorder = test.started(&["-F", "499", "--unwind", "fp", "--no-bpf-stats", "-p", &pid]);
        wait_for_cpu_time(target.0.id(), 0.1);
        kill(recorder.pid(), signal);
        let recording = recorder.finish();
        assert!(recording.with("busy") > 10, "{signal}: {:?}", recording.leaves());
    }
}

/// As many as one likes, at any moment: what is recorded is whole, and so the end is a good one.
#[test]
fn no_signal_ends_a_recorder_that_ends() {
    let Some(test) = Test::new("ending-twice") else { return };
    let program = test.spin("spin", "busy", &["-g"]);
    let target = spawn(Command::new(&program).arg("600"));
    for _ in 0..3 {
        let mut recorder = test.started(&["-F", "499", "-p", &target.0.id().to_string()]);
        wait_for_cpu_time(target.0.id(), 0.1);
        while recorder.child.0.try_wait().unwrap().is_none() {
            kill(recorder.pid(), Signal::SIGINT);
            sleep(Duration::from_micros(500));
        }
        let recording = recorder.finish();
        assert!(recording.total(|_| true) > 10, "{}", recording.told);
    }
}

/// The limit of a file's size is told as any other error; the command has the signal that it expects.
#[test]
fn files_that_may_not_grow_are_told() {
    let Some(test) = Test::new("full-files") else { return };
    let limited = "ulimit -f 0; exec \"$0\" record --no-symbolize -o out -- sleep 0.1";
    let mut command = Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_profiler")]).current_dir(&test.dir);
    let told = refusal(&command.output().unwrap());
    assert!(told.contains("out: ") && told.contains("ulimit -f"), "{told}");
    assert!(test.names().is_empty(), "{:?}", test.names());
    let mut command = test.profiler(&["record", "--", "grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]);
    let ran = command.output().unwrap();
    let sets = String::from_utf8_lossy(&ran.stdout).into_owned();
    let numbers: Vec<u64> = sets
        .lines()
        .map(|line| u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap())
        .collect();
    let ignored = 1 << (Signal::SIGXFSZ as i32 - 1) | 1 << (Signal::SIGPIPE as i32 - 1);
    assert!(numbers.len() == 2 && numbers.iter().all(|set| set & ignored == 0), "{sets}");
}

#[test]
fn signals_to_the_recorder_end_its_command() {
    let Some(test) = Test::new("ending-child") else { return };
    let program = test.spin("spin", "busy", &[]);
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let recorder = test.started(&["-F", "499", "--", &program, "600"]);
        let child = format!("/proc/{0}/task/{0}/children", recorder.pid());
        let child = fs::read_to_string(child).unwrap();
        // The command is the first; workers follow.
        let child = child.split_whitespace().next().unwrap().parse().unwrap();
        wait_for_cpu_time(child, 0.3);
        kill(recorder.pid(), signal);
        assert!(recorder.finish_with(status).with("busy") >= *chance::around(0.3 * 499.0).start());
    }
}

#[test]
fn the_exit_status_is_the_commands() {
    let Some(test) = Test::new("status") else { return };
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -TERM $$", 143)] {
        test.start(&["-F", "999", "--", "sh", "-c", script]).finish_with(status);
    }
}

#[test]
fn signals_are_passed_on() {
    let Some(test) = Test::new("signals") else { return };
    for signal in ["USR1", "USR2", "QUIT", "TERM"] {
        let script = format!(
            "trap 'echo {signal} > got; exit 3' {signal}; : > ready; i=0; while [ $i -lt 6000 ]; do sleep 0.01; i=$((i+1)); done"
        );
        let recorder = test.started(&["--", "sh", "-c", &script]);
        wait_until("the command is ready", || test.dir.join("ready").exists());
        kill(recorder.pid(), format!("SIG{signal}").parse().unwrap());
        recorder.finish_with(3);
        assert_eq!(fs::read_to_string(test.dir.join("got")).unwrap().trim(), signal);
        fs::remove_file(test.dir.join("got")).unwrap();
        fs::remove_file(test.dir.join("ready")).unwrap();
    }
}

/// The second interrupt comes while frames are named: what takes long there is a large binary
/// with debug information, and this one is the largest that is certain to be here.
#[test]
fn a_second_interrupt_writes_at_once() {
    let Some(test) = Test::new("interrupts") else { return };
    let target = test.profiler(&["record", "--help"]).get_program().to_owned();
    let script = "while :; do \"$0\" folded missing 2> /dev/null; done";
    let busy = spawn(Command::new("sh").args(["-c", script]).arg(target));
    let mut without_names = 0;
    for wait in [0, 5, 20, 50, 100, 200] {
        let recorder = test.started(&["-F", "999", "-p", &busy.0.id().to_string()]);
        sleep(Duration::from_millis(300));
        kill(recorder.pid(), Signal::SIGINT);
        sleep(Duration::from_millis(wait));
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(recorder.pid() as i32), Signal::SIGINT);
        // One that comes after the file was written ends the recorder as it would end anything.
        let recording = recorder.finish_where(|ended| ended.success() || ended.signal() == Some(2));
        assert!(!recording.samples.is_empty(), "{}", recording.told);
        if recording.told.contains("interrupted again") {
            without_names += 1;
            let reasons = recording.locations.values().filter(|l| l.name().ends_with("[not symbolized]"));
            assert!(reasons.count() > 0);
        }
        let left: Vec<_> = test.names().into_iter().filter(|name| name.ends_with(".tmp")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    test.tell(&format!("{without_names} of 6 second interrupts came while frames were named"));
    assert!(without_names > 0, "no second interrupt came in time");
}

/// Waits for a recorder that cannot write; returns what it said.
fn failure(mut recorder: Running) -> String {
    let status = recorder.child.0.wait().unwrap();
    let told = recorder.told();
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("profiler: error: failed to write ") && !told.contains("panicked"), "{told}");
    told
}

#[test]
fn a_directory_that_vanishes() {
    let Some(test) = Test::new("vanished") else { return };
    let directory = test.path("directory");
    fs::create_dir(&directory).unwrap();
    let busy = spawn(Command::new("sh").args(["-c", "while :; do :; done"]));
    let (pid, file) = (busy.0.id(), format!("{directory}/out.pb.gz"));
    let recorder = test.started(&["--no-symbolize", "-p", &pid.to_string(), "-o", &file]);
    fs::remove_dir_all(&directory).unwrap();
    wait_for_cpu_time(pid, 0.2);
    kill(recorder.pid(), Signal::SIGINT);
    let told = failure(recorder);
    let kept = told.trim_end().rsplit_once(": what was written is in ").expect(&told).1;
    assert!(told.contains("No such file or directory") && kept.contains("out.pb.gz."), "{told}");
    // It is a whole recording, and nobody's but its owner's.
    output(env!("CARGO_BIN_EXE_profiler"), &["folded", kept]);
    assert_eq!(fs::metadata(kept).unwrap().mode() & 0o777, 0o600);
    fs::remove_file(kept).unwrap();
    assert!(test.names().is_empty(), "{:?}", test.names());
}

/// A file system of 64 KiB that is full but for less than a page.
#[test]
fn a_full_disk_leaves_the_older_file() {
    let Some(test) = Test::new("full") else { return };
    let mount = test.path("mount");
    fs::create_dir(&mount).unwrap();
    let script = "mount -t tmpfs -o size=64k none \"$1\" && cd \"$1\" && echo old > out.pb.gz || exit 99
        cat /dev/zero > fill 2> /dev/null &
        \"$0\" record -F 999 -d 1500ms -a -o out.pb.gz; status=$?
        wait; cat out.pb.gz; ls -A; exit $status";
    let busy = spawn(Command::new("sh").args(["-c", "while :; do :; done"]));
    let profiler = test.profiler(&[]).get_program().to_owned();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .args([profiler, mount.into()])
        .output()
        .unwrap();
    drop(busy);
    let told = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) {
        return test.skip(&format!("no tmpfs can be mounted: {told}"));
    }
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("failed to write out.pb.gz") && told.contains("free some space"), "{told}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "old\nfill\nout.pb.gz\n");
}

#[test]
fn links_are_refused_and_older_files_stay() {
    let Some(test) = Test::new("links") else { return };
    let old = test.file("old", "old");
    let link = test.path("link");
    std::os::unix::fs::symlink(&old, &link).unwrap();
    let output = test.profiler(&["record", "-d", "100ms", "-o", &link]).output().unwrap();
    assert!(refusal(&output).contains("symbolic link"));
    let output = test.profiler(&["record", "-o", &old, "--", "/no/such/command"]).output().unwrap();
    assert!(refusal(&output).contains("/no/such/command"));
    assert_eq!(fs::read_to_string(&old).unwrap(), "old");
    assert_eq!(test.names(), ["link", "old"]);
    // Until the end of a recording the older file is whole; then it is replaced.
    let file = test.file("output.pb.gz", "old");
    let recorder = test.started(&["-F", "999", "-a"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    recorder.interrupt();
    assert_eq!(test.names(), ["link", "old", "output.pb.gz"]);
}

#[test]
fn under_sudo_the_file_is_the_callers() {
    let Some(test) = Test::new("sudo") else { return };
    let mut recorder = test.profiler(&["record", "-d", "200ms"]);
    recorder.envs([("SUDO_UID", "1234"), ("SUDO_GID", "2345")]);
    let file = test.dir.join("output.pb.gz");
    Running::new(file.clone(), recorder).finish();
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (1234, 2345));
    test.record(&["-d", "200ms"]);
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (0, 0));
}

#[test]
fn nothing_recorded_is_explained() {
    let Some(test) = Test::new("nothing") else { return };
    let sleeping = spawn(Command::new("sleep").arg("600"));
    let recording = test.record(&["-d", "500ms", "-p", &sleeping.0.id().to_string()]);
    assert!(
        recording.told.contains("profiler: 0 samples: the target used 0 ms of CPU in "),
        "{}",
        recording.told
    );
    assert!(recording.samples.is_empty());
    let recording = test.record(&["-F", "1", "--", "true"]);
    assert!(recording.told.contains("0 samples: the command ran for"), "{}", recording.told);
    let views = test.profiler(&["folded", "--sample-index", "samples", &recording.file]).output().unwrap();
    let said = String::from_utf8_lossy(&views.stderr);
    assert!(views.stdout.is_empty() && said.contains("every value of 'samples' is 0"), "{views:?}");
}

#[test]
fn a_terminal_shows_progress() {
    let Some(test) = Test::new("terminal") else { return };
    if !test.needs("script") {
        return;
    }
    let profiler = env!("CARGO_BIN_EXE_profiler");
    let command = format!("{profiler} record -F 999 -d 3s -o {}", test.path("output.pb.gz"));
    let typed = test.path("typescript");
    let text = output("env", &["TERM=xterm", "script", "-qec", &command, &typed]);
    assert!(text.contains("recording: ") && text.contains(" s left") && text.contains(" lost"), "{text:?}");
    // Without a terminal there is no such line.
    let recording = test.record(&["-d", "300ms"]);
    assert!(!recording.told.contains("recording:"), "{}", recording.told);
}

/// Whatever goes wrong once there are samples: they are written, and the exit status stays the command's.
#[test]
fn faults_of_ours_lose_no_recording() {
    let Some(test) = Test::new("faults") else { return };
    let program = test.spin("spin", "busy", &[]);
    let script = format!("'{program}' 3; exit 7");
    for (step, told, named) in [
        ("recording", "recording failed, and what was recorded until then is written: a fault", true),
        ("naming", "writing without names: the symbolizer failed", false),
    ] {
        let recorder = test.start(&["-F", "499", "--panic-at", step, "--", "sh", "-c", &script]);
        let recording = recorder.finish_after_a_fault(7);
        assert!(recording.told.contains(told), "{}", recording.told);
        assert!(recording.total(|_| true) > 20, "{step}: {}", recording.told);
        assert_eq!(recording.with("busy") > 20, named, "{step}: {:?}", recording.leaves());
    }
}
