//! Commands and processes that do what few do: odd names, a stop, another user, children that stay.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::chance;
use crate::common::{Recording, Running, Test, copy_program, kill, output, spawn, wait_until};

fn require(recording: &Recording, function: &str, what: &str) {
    let right = |sample: &_| recording.names(sample).windows(2).any(|names| names == [function, "main"]);
    let (right, all) = (recording.total(right), recording.total(|_| true));
    chance::at_least(right, all, 0.9, 50, &format!("{what}: {:?}", recording.leaves()));
}

/// Started and attached to. What the name holds is no end of a line, of a frame, or of the path.
#[test]
fn files_with_odd_names() {
    let Some(test) = Test::new("odd-names") else { return };
    let program = test.spin("plain", "busy_oddly", &[]);
    let names: [&[u8]; 7] = [
        b"with space",
        b"semi;colon",
        b"new\nline",
        b"bytes\xff\xfe",
        b"gone (deleted)",
        b"(deleted)",
        &[b'x'; 200],
    ];
    for name in names {
        let dir = test.dir.join("dir;of \n names");
        fs::create_dir_all(&dir).unwrap();
        let odd = dir.join(OsStr::from_bytes(name));
        copy_program(&program, &odd, 0);
        let what = String::from_utf8_lossy(name).into_owned();
        let mut recorder = test.profiler(&["record", "-F", "499", "--"]);
        recorder.arg(&odd).arg("0.3");
        require(&Running::new(test.dir.join("output.pb.gz"), recorder).finish(), "busy_oddly", &what);
        let running = spawn(Command::new(&odd).arg("1000"));
        let pid = running.0.id();
        require(&test.record_until(0.2, pid, &["-F", "499", "-p", &pid.to_string()]), "busy_oddly", &what);
        let folded =
            output(test.profiler(&["folded"]).get_program(), &["folded", &test.path("output.pb.gz")]);
        // After the process's name the stack begins where the process began.
        let split = folded.lines().filter(|line| {
            let second = line.split(';').nth(1).unwrap_or_default();
            line.contains("busy_oddly")
                && !["_start", "[truncated"].iter().any(|root| second.starts_with(root))
        });
        assert_eq!(split.count(), 0, "{what}: {folded}");
    }
}

/// A command that leaves children behind ends the recording, which says what it misses.
#[test]
fn a_daemon_outlives_its_command() {
    let Some(test) = Test::new("daemon") else { return };
    let program = test.spin("daemon", "busy_daemon", &[]);
    let script = format!("setsid sh -c 'echo $$ > pid; exec {program} 1000' & sleep 0.3; exit 0");
    let recording = test.record(&["-F", "499", "-d", "20", "--", "sh", "-c", &script]);
    let pid: u32 = fs::read_to_string(test.dir.join("pid")).unwrap().trim().parse().unwrap();
    kill(pid, Signal::SIGKILL);
    let said = format!("profiler record -p {pid}");
    let told = &recording.told;
    assert!(told.contains("still run") && told.contains(&said), "nothing says that {pid} lives on: {told}");
}

/// Time of a stopped process is off the CPU, where it was stopped.
#[test]
fn a_stopped_process() {
    let Some(test) = Test::new("stopped") else { return };
    let program = test.spin("stopped", "busy_until_stopped", &[]);
    let running = spawn(Command::new(&program).arg("1000"));
    let pid = running.0.id();
    wait_until("it computes", || crate::common::cpu_s(pid) > 0.05);
    kill(pid, Signal::SIGSTOP);
    let recorder = test.started(&["--off-cpu-only", "-p", &pid.to_string(), "-d", "1"]);
    recorder.finish_off_cpu();
    kill(pid, Signal::SIGCONT);
    let file = test.path("output.pb.gz");
    let folded = output(test.profiler(&[]).get_program(), &["folded", "--type", "off-cpu", &file]);
    let time = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    let all: u64 = folded.lines().map(time).sum();
    let stopped: u64 = folded.lines().filter(|line| line.contains("main;busy_until_stopped")).map(time).sum();
    assert!(all > 500_000_000 && stopped * 10 >= all * 9, "{folded}");
}

/// Its file is where only root may go; the recorder looks there as root.
#[test]
fn a_command_that_becomes_another_user() {
    let Some(test) = Test::new("other-user") else { return };
    if !test.needs("setpriv") {
        return;
    }
    let program = test.spin("other", "busy_as_nobody", &[]);
    fs::set_permissions(&test.dir, fs::Permissions::from_mode(0o755)).unwrap();
    let reachable = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", &program, "0"])
        .stderr(Stdio::null())
        .status();
    if !reachable.is_ok_and(|status| status.success()) {
        return test.skip("another user may not go where the test's files are");
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", &program, "0.3"];
    let recording = test.record(&[&["-F", "499", "--"], &user[..]].concat());
    let (named, all) = (recording.with("busy_as_nobody"), recording.total(|sample| sample.comm == "other"));
    chance::at_least(named, all, 0.9, 50, &format!("{:?}", recording.leaves()));
}

/// The recorder itself runs in a PID namespace of its own. What is in it is recorded under the ids that
/// it has there; what is outside is one process.
#[test]
fn in_a_pid_namespace_of_its_own() {
    let Some(test) = Test::new("inside") else { return };
    let inside = test.spin("inside", "busy_inside", &[]);
    let outside = test.spin("outside", "busy_outside", &[]);
    let _outside = spawn(Command::new(outside).arg("1000"));
    let profiler = test.profiler(&[]);
    let profiler = profiler.get_program().to_str().unwrap();
    let script = format!(
        "{inside} 1000 & echo $! > pid; {profiler} record -a -F 499 -d 2 -o all.pb.gz 2> all; all=$?
         {profiler} record -p $! -F 499 -d 1 -o one.pb.gz 2> one; one=$?; kill $!; exit $((all + one))"
    );
    let mut unshare = Command::new("unshare");
    unshare.args(["-p", "-f", "--mount-proc", "--kill-child", "sh", "-c", &script]).current_dir(&test.dir);
    let output = unshare.stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if told.contains("unshare:") {
        return test.skip(&format!("no PID namespace can be made here: {told}"));
    }
    let told = ["all", "one"].map(|name| fs::read_to_string(test.dir.join(name)).unwrap_or(told.clone()));
    assert!(output.status.success(), "{told:?}");
    let pid: u32 = fs::read_to_string(test.dir.join("pid")).unwrap().trim().parse().unwrap();
    let least = 50;
    for (file, told) in ["all.pb.gz", "one.pb.gz"].into_iter().zip(told) {
        let recording = Recording::read(&test.path(file), told);
        let found = recording.with("busy_inside");
        let right = recording.total(|sample| {
            recording.has_frame(sample, "busy_inside") && sample.pid == pid && sample.comm == "inside"
        });
        assert!(found >= least && right == found, "{file}: {right} of {found}: {:?}", recording.leaves());
        assert_eq!(recording.with("busy_outside"), 0, "{file}: it has no id here");
        if file == "all.pb.gz" {
            let others = recording.total(|sample| sample.comm == "[other PID namespace]");
            assert!(others >= least, "{others} samples of what is outside: {:?}", recording.leaves());
        }
    }
}
