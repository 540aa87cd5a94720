//! Which functions a stack has, from root to leaf, beside what elfutils' eu-stack sees when it stops
//! the same process at random moments: see tests/judges/paths.py.

use std::process::Command;

use crate::common::{JUDGES, Test, spawn};
use crate::whole::HOW;

const STOPS: &str = "50";

/// Records a program that runs, and stops it.
fn judge(test: &Test, command: &[&str]) {
    if !test.needs("eu-stack") {
        return;
    }
    let program = spawn(Command::new(command[0]).args(&command[1..]).env("SECONDS", "600"));
    let pid = program.0.id().to_string();
    // elfutils sees no frames of scripts.
    let how = [&HOW[..], &["--no-interpreters", "-p", &pid]].concat();
    let recording = test.record_until(2.0, program.0.id(), &how);
    let judge = format!("{JUDGES}/paths.py");
    let judged = Command::new("python3").args([&judge, &pid, &recording.file, STOPS]).output().unwrap();
    let text = String::from_utf8_lossy(&judged.stdout);
    test.tell(text.lines().next().unwrap_or_default());
    assert!(judged.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&judged.stderr));
}

#[test]
fn of_c() {
    let Some(test) = Test::new("paths-c") else { return };
    let flags = ["-fomit-frame-pointer", "-fno-optimize-sibling-calls"];
    let program = test.compile("tests/programs/deep.c", "deep", &flags);
    judge(&test, &[&program]);
    judge(&test, &[&program, "recursion"]);
    judge(&test, &[&program, "signal"]);
}

#[test]
fn of_exceptions() {
    let Some(test) = Test::new("paths-throw") else { return };
    if test.needs("g++") {
        judge(&test, &[&test.compile("tests/programs/throws.cc", "throws", &["-fomit-frame-pointer"])]);
    }
}

#[test]
fn of_threads() {
    let Some(test) = Test::new("paths-threads") else { return };
    let program = test.compile("tests/programs/threads.c", "threads", &["-fomit-frame-pointer"]);
    judge(&test, &[&program, "600"]);
}

#[test]
fn of_static_libraries() {
    let Some(test) = Test::new("paths-static") else { return };
    if !std::fs::exists("/usr/include/openssl/evp.h").unwrap() {
        return test.skip("libssl-dev is not installed");
    }
    let libraries = ["-w", "-fomit-frame-pointer", "-static", "-lssl", "-lcrypto", "-lz", "-lzstd"];
    judge(&test, &[&test.compile("tests/programs/crypto.c", "crypto", &libraries)]);
}

#[test]
fn of_an_interpreter() {
    let Some(test) = Test::new("paths-python") else { return };
    judge(&test, &["python3", "-c", "while True: sum(i * i for i in range(1000))"]);
}
