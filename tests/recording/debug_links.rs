//! Files that a program says have its debug information (`.gnu_debuglink`), where a user without any right decides what
//! its path leads to.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::common::{Guarded, Running, Test, copy_program, output, spawn, wait_until};

const NOBODY: u32 = 65_534;

/// `elsewhere.c` without symbols, whose link names a file; beside it, by that name, what was stripped.
fn linked(test: &Test, name: &str, flags: &[&str]) -> String {
    let program = test.compile("tests/programs/elsewhere.c", "elsewhere", &[&["-g"], flags].concat());
    let debug = test.path(name);
    output("objcopy", &["--only-keep-debug", &program, &debug]);
    output("strip", &[&program]);
    output("objcopy", &[&format!("--add-gnu-debuglink={debug}"), &program]);
    program
}

/// Starts a shell in a mount namespace of its own; `None` if there can be none. It has become the program when its
/// name is that.
fn in_namespace(test: &Test, user: Option<u32>, script: &str) -> Option<Guarded> {
    let mut command = Command::new("unshare");
    command.arg(if user.is_some() { "-Urm" } else { "-m" }).args(["sh", "-c", script]);
    command.current_dir(&test.dir);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut running = spawn(&mut command);
    let comm = format!("/proc/{}/comm", running.0.id());
    let mut has_ended = false;
    wait_until("the program runs", || {
        has_ended = running.0.try_wait().unwrap().is_some();
        has_ended || fs::read_to_string(&comm).unwrap_or_default() == "x\n"
    });
    (!has_ended).then_some(running)
}

/// Records processes for two seconds, and returns what was opened meanwhile: lines of strace, without those that only
/// located something.
fn opened(test: &Test, pids: &str) -> (crate::common::Recording, Vec<String>) {
    let log = test.path("opened");
    let mut recorder = Command::new("strace");
    recorder.args(["-f", "-y", "-o", &log, "-e", "trace=open,openat,openat2"]);
    recorder.arg(env!("CARGO_BIN_EXE_profiler")).args(["record", "-F", "499", "-d", "2s", "-p", pids]);
    recorder.current_dir(&test.dir);
    let recording = Running::new(test.dir.join("output.pb.gz"), recorder).finish();
    let log = fs::read_to_string(&log).unwrap();
    (recording, log.lines().map(str::to_owned).collect())
}

/// Nobody mounts a directory of its own over one of the machine's, and runs a program there whose link names what only
/// the machine's has.
#[test]
fn devices_and_secrets_are_not_opened() {
    let Some(test) = Test::new("strange-links") else { return };
    if !["strace", "objcopy", "unshare"].into_iter().all(|tool| test.needs(tool)) {
        return;
    }
    fs::set_permissions(&test.dir, fs::Permissions::from_mode(0o777)).unwrap();
    let mut running = Vec::new();
    for (dir, name) in [("/dev", "ptmx"), ("/proc", "kmsg"), ("/etc", "shadow")] {
        let program = linked(&test, name, &[]);
        let copy = test.path(&format!("with-{name}"));
        copy_program(program, &copy, 0);
        let script = format!("mount -t tmpfs none {dir} && cp {copy} {dir}/x && exec {dir}/x 600");
        let Some(started) = in_namespace(&test, Some(NOBODY), &script) else {
            return test.skip("nobody can have a user namespace here");
        };
        running.push((started, dir, name));
    }
    // A link, and a mount, to what is root's alone.
    let program = linked(&test, "secret", &[]);
    fs::set_permissions(test.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let secret = test.path("secret");
    for how in ["ln -s", "touch at/secret; mount --bind"] {
        let script = format!(
            "mkdir -p at && mount -t tmpfs none at && cp {program} at/x && {how} {secret} at/secret && exec at/x 600"
        );
        let Some(started) = in_namespace(&test, Some(NOBODY), &script) else {
            return test.skip("nobody can mount what it may not read");
        };
        running.push((started, "at", "secret"));
    }
    let pids: Vec<String> = running.iter().map(|(running, ..)| running.0.id().to_string()).collect();
    let (recording, log) = opened(&test, &pids.join(","));
    for (started, dir, name) in &running {
        assert!(recording.total(|sample| sample.pid == started.0.id()) > 20, "{:?}", recording.leaves());
        let looked_for = format!("{}/{name}\"", dir.trim_start_matches('/'));
        assert!(log.iter().any(|line| line.contains(&looked_for)), "{looked_for} was not looked for");
    }
    for line in log.iter().filter(|line| !line.contains("O_PATH")) {
        let opened = line.rsplit_once(" = ").map_or("", |(_, result)| result);
        for target in ["/dev/ptmx", "/dev/pts", "/proc/kmsg", "/etc/shadow", "secret>"] {
            assert!(!opened.contains(target), "{line}");
        }
    }
}

/// What a container has of its own, by its paths.
#[test]
fn debug_files_of_another_root_are_found() {
    let Some(test) = Test::new("inner-links") else { return };
    if !["objcopy", "unshare"].into_iter().all(|tool| test.needs(tool)) {
        return;
    }
    let program = linked(&test, "names.debug", &["-Wl,--build-id=0x0123456789abcdef"]);
    for place in ["at", "/usr/lib/debug/.build-id/01"] {
        let name = if place == "at" { "names.debug" } else { "23456789abcdef.debug" };
        let script = format!(
            "mkdir -p at /usr/lib/debug && mount -t tmpfs none /usr/lib/debug && mount -t tmpfs none at && mkdir -p {place} && \
             cp {program} at/x && cp names.debug {place}/{name} && exec at/x 600"
        );
        let Some(started) = in_namespace(&test, None, &script) else {
            return test.skip("nothing can be mounted here");
        };
        fs::rename(test.path("names.debug"), test.path("aside")).unwrap();
        let recording = test.record_until(0.3, started.0.id(), &["-p", &started.0.id().to_string()]);
        fs::rename(test.path("aside"), test.path("names.debug")).unwrap();
        assert!(recording.with("leaf_elsewhere") > 10, "{place}: {:?}", recording.leaves());
    }
}

/// Files that only their owner may read are copied for the worker: a hole of a gigabyte costs nothing, and what belongs
/// to somebody else is not believed.
#[test]
fn holes_are_not_read_and_strangers_files_not_believed() {
    let Some(test) = Test::new("sparse-links") else { return };
    if !test.needs("objcopy") {
        return;
    }
    let program = linked(&test, "names.debug", &["-Wl,--build-id=none"]);
    let debug = test.path("names.debug");
    let record = || {
        for file in [&program, &debug] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let running = spawn(Command::new(&program).arg("600").uid(NOBODY).gid(NOBODY));
        test.record_until(0.2, running.0.id(), &["-F", "499", "-p", &running.0.id().to_string()])
    };
    for file in [&program, &debug] {
        chown(file, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let recording = record();
    assert!(recording.with("leaf_elsewhere") > 10, "{:?}", recording.leaves());
    chown(&debug, Some(1001), Some(1001)).unwrap();
    let recording = record();
    assert_eq!(recording.with("leaf_elsewhere"), 0, "{:?}", recording.leaves());
    chown(&debug, Some(NOBODY), Some(NOBODY)).unwrap();
    let whole = fs::metadata(&debug).unwrap().len();
    fs::OpenOptions::new().write(true).open(&debug).unwrap().set_len(1000 << 20).unwrap();
    let sparse = fs::metadata(&debug).unwrap();
    if sparse.blocks() * 512 > 2 * whole + (1 << 20) {
        return test.skip("the file system has no holes");
    }
    let recording = record();
    let stripped = recording.total(|sample| recording.leaf(sample).name().starts_with("elsewhere+0x"));
    assert!(stripped > 10, "{:?}", recording.leaves());
}
