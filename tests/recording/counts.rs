//! Calls per second: beside a program that knows how many it makes.

use std::process::{Command, Stdio};

use crate::common::{Test, output, refusal, spawn};

/// The rate of a name in a line.
fn rate(line: &str, name: &str) -> Option<u64> {
    let (_, rest) =
        line.split_once(&format!("   {name} ")).or_else(|| line.split_once(&format!(", {name} ")))?;
    // Commas are in numbers, and a comma and a space between names.
    rest.split(", ").next()?.replace(',', "").trim().parse().ok()
}

#[test]
fn system_calls_are_counted_by_name() {
    let Some(test) = Test::alone("counts-syscalls") else { return };
    let program = test.compile("tests/programs/latency.c", "calls", &["-pthread", "-fno-inline"]);
    let mut counts = test
        .profiler(&["counts", "syscalls", "--interval", "1s", "-n", "400"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(counts.stdout.take().unwrap()));
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("calls/s"));
    next();
    output(&program, &["asks", "200000"]);
    // It may have been at work when lines were printed: what follows has none of it.
    let mut asked = 0;
    for _ in 0..20 {
        let found = rate(&next(), "getppid").unwrap_or(0);
        asked += found;
        if asked > 0 && found < 1000 {
            break;
        }
    }
    crate::common::kill(counts.id(), nix::sys::signal::Signal::SIGINT);
    let mut told = String::new();
    std::io::Read::read_to_string(&mut counts.stderr.take().unwrap(), &mut told).unwrap();
    assert!(counts.wait().unwrap().success(), "{told}");
    // Rates are per second, and on a machine with other work a line may be of more than one.
    assert!((100_000..=202_000).contains(&asked), "{asked}");
    assert!(told.contains(" system calls in ") && told.contains("counting costs each about"), "{told}");
}

#[test]
fn functions_for_files_are_counted_where_the_kernel_lets_them() {
    let Some(test) = Test::alone("counts-vfs") else { return };
    let _reads =
        spawn(Command::new("dd").args(["if=/dev/zero", "of=/dev/null", "bs=1"]).stderr(Stdio::null()));
    let found = test.profiler(&["counts", "vfs", "-d", "2s", "--interval", "1s"]).output().unwrap();
    if !found.status.success() {
        let why = refusal(&found);
        assert!(why.contains("it has no kprobes, and refuses fentry"), "{why}");
        return test.skip(&why);
    }
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("vfs_read/s") && lines.len() >= 3, "{text}");
    let numbers: Vec<u64> =
        lines[1].split_whitespace().skip(1).map(|word| word.replace(',', "").parse().unwrap()).collect();
    assert!(numbers[0] > 1000 && numbers[1] > 1000, "{text}");
}
