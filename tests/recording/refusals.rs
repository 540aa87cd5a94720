//! What cannot be recorded is refused at once: one message that says what to do, no file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::common::{Test, output, refusal};
use crate::rights;

#[test]
fn requests_that_cannot_be_met() {
    let Some(test) = Test::new("refusals") else { return };
    let plain = test.file("plain", "no program");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    // Ids are below this, by the kernel.
    let nobody = "4194305";
    let cases: &[(&[&str], &[&str])] = &[
        (&["-p", nobody], &["no process 4194305", "ps"]),
        (&["-t", nobody], &["no thread 4194305", "ps"]),
        (&["-p", "1,4194305"], &["no process 4194305"]),
        (&["-p", "0"], &["0"]),
        (&["-G", "/no/such/cgroup"], &["cgroup", "/no/such/cgroup"]),
        (&["-C", "99"], &["CPU 99", "online are 0"]),
        (&["-C", "0-"], &["0-"]),
        (&["-C", ""], &["CPU"]),
        (&["-F", "0"], &["1..=10000"]),
        (&["-F", "1000000"], &["1..=10000"]),
        (&["-d", "5 parsecs"], &["duration"]),
        (&["-U", "-K"], &["cannot be used with"]),
        (&["-p", "1", "-a"], &["cannot be used with"]),
        (&["--no-such-option"], &["--no-such-option", "unexpected"]),
        (&["stray"], &["stray", "unexpected"]),
        (&["--", "/no/such/program"], &["/no/such/program", "No such file"]),
        (&["--", "no-such-program-in-path"], &["no-such-program-in-path", "No such file"]),
        (&["--", &plain], &["plain", "Permission denied"]),
        (&["--", "/"], &["Permission denied"]),
        (&["-o", "/no/such/directory/out.pb.gz"], &["/no/such/directory", "-o"]),
        (&["-o", "/tmp"], &["is a directory", "-o"]),
    ];
    let long = "a".repeat(256);
    output("mkfifo", &[&test.path("fifo")]);
    let outputs: &[(&[&str], &[&str])] = &[
        (&["-o", "new/"], &["is a directory", "-o"]),
        (&["-o", &long], &["256 bytes", "-o"]),
        (&["-o", "fifo"], &["nobody reads this FIFO", "-o"]),
    ];
    let before = test.names();
    for (args, words) in cases.iter().chain(outputs) {
        let args = [&["record", "-d", "5s"], *args].concat();
        // Twice the same option is an error of its own.
        let args: Vec<&str> = if args.iter().filter(|arg| **arg == "-d").count() == 2 {
            [&args[..1], &args[3..]].concat()
        } else {
            args
        };
        let message = refusal(&test.profiler(&args).output().unwrap());
        for word in *words {
            assert!(message.contains(word), "{args:?}: {message:?} lacks {word:?}");
        }
        assert_eq!(test.names(), before, "{args:?} left a file");
    }
}

/// What cannot be written at the end is known at the start.
#[test]
fn outputs_that_cannot_be_had() {
    let Some(test) = Test::new("outputs") else { return };
    let script = |program: &str, script: &str, word: &str| {
        let profiler = env!("CARGO_BIN_EXE_profiler");
        let mut command = Command::new(program);
        let args = if program == "unshare" { &["-m", "sh", "-c"][..] } else { &["-c"] };
        let ran = command.args(args).args([script, profiler]).current_dir(&test.dir).output().unwrap();
        if ran.status.code() == Some(99) {
            return test.skip(&format!("nothing can be mounted here: {script}"));
        }
        let message = refusal(&ran);
        assert!(message.contains(word) && message.contains("-o"), "{script}: {message}");
    };
    let record = "exec \"$0\" record -d 5s -o";
    script("sh", &format!("{record} - >&-"), "standard output is closed");
    let mounted = format!("touch at from; mount --bind from at || exit 99; {record} at");
    script("unshare", &mounted, "a file is mounted there");
    let with = rights::with_capabilities(&test);
    let profiler = test.profiler_for_everybody();
    fs::create_dir(test.dir.join("sticky")).unwrap();
    fs::set_permissions(test.dir.join("sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(test.dir.join("sticky/out"), "root's").unwrap();
    let args = ["1001", rights::SIX, &profiler, "record", "-d", "5s", "-o", "sticky/out"];
    let message = refusal(&Command::new(with).args(args).current_dir(&test.dir).output().unwrap());
    let is_told = message.contains("belongs to another user (0)") || message.contains("CAP_SYS_ADMIN");
    assert!(is_told, "{message}");
    assert_eq!(fs::read(test.dir.join("sticky/out")).unwrap(), b"root's");
}

#[test]
fn users_without_rights_are_told_what_they_need() {
    let Some(test) = Test::new("unprivileged") else { return };
    if !test.needs("setpriv") {
        return;
    }
    let profiler = test.profiler_for_everybody();
    for args in [&["-d", "1s"][..], &["-p", "1"], &["--", "true"]] {
        let output = Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", &profiler, "record"])
            .args(args)
            .current_dir(&test.dir)
            .output()
            .unwrap();
        let message = refusal(&output);
        assert!(message.contains("root") && message.contains("CAP_BPF"), "{args:?}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
        assert_eq!(test.names(), ["profiler"]);
    }
}

#[test]
fn a_kernel_without_type_information() {
    let Some(test) = Test::new("no-btf") else { return };
    let script = "mount -t tmpfs none /sys/kernel/btf || exit 99; exec \"$0\" record -d 1s";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_profiler")])
        .current_dir(&test.dir)
        .output()
        .unwrap();
    if output.status.code() == Some(99) {
        return test.skip("/sys/kernel/btf cannot be mounted over");
    }
    let message = refusal(&output);
    assert!(
        message.contains("/sys/kernel/btf/vmlinux") && message.contains("CONFIG_DEBUG_INFO_BTF"),
        "{message}"
    );
    assert!(test.names().is_empty());
}
