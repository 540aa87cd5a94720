//! `--timeline`: when samples were taken, and what viewers make of it.

use std::process::Command;

use crate::common::{JUDGES, Recording, Test, output, refusal};

const STEP_NS: i64 = 50_000_000;

/// One function after another, with half a second between them in which nothing is done.
fn record(test: &Test, args: &[&str]) -> Recording {
    let (early, late) = (test.spin("early", "busy_early", &[]), test.spin("late", "busy_late", &[]));
    let shell = ["--", "sh", "-c", "\"$0\" 0.7; sleep 0.5; \"$1\" 0.7", &early, &late];
    test.record(&[&["-F", "499"], args, &shell].concat())
}

/// Times of the samples of a process of this name, in nanoseconds.
fn times(file: &str, comm: &str) -> Vec<i64> {
    let labels = output("python3", &[&format!("{JUDGES}/labels.py"), file]);
    let of = labels.lines().filter(|line| line.contains(&format!("\tcomm={comm}\t")));
    let value = |line: &str, key: &str| {
        line.split('\t').find_map(|label| label.strip_prefix(key)).map(|value| value.parse::<i64>().unwrap())
    };
    of.map(|line| {
        assert!(value(line, "cpu=").is_some(), "{line}");
        value(line, "timeline=").unwrap_or_else(|| panic!("{line}"))
    })
    .collect()
}

#[test]
fn samples_know_when_they_were_taken() {
    let Some(test) = Test::new("moments") else { return };
    let recording = record(&test, &["--timeline=50ms"]);
    let file = &recording.file;
    let [early, late] = ["early", "late"].map(|comm| times(file, comm));
    assert!(early.len() > 1 && late.len() > 1, "{early:?} {late:?}");
    let length = (recording.seconds() * 1e9) as i64;
    for time in early.iter().chain(&late) {
        // The beginning is rounded down to a step, too.
        assert!(time % STEP_NS == 0 && (0..length + STEP_NS).contains(time), "{time} of {length}");
    }
    let (last, next) = (*early.iter().max().unwrap(), *late.iter().min().unwrap());
    // Both are rounded down.
    assert!(next - last >= 500_000_000 - STEP_NS, "{last} ns, then {next} ns");
    // It takes CPU time, and so at least as long.
    assert!(last - early.iter().min().unwrap() >= 700_000_000 - 2 * STEP_NS, "{early:?}");
    let told = recording.told.lines().find(|line| line.contains("timeline steps of 50 ms: "));
    assert!(told.is_some_and(|line| line.contains(" samples in place of ")), "{}", recording.told);

    let folded = |args: &[&str]| {
        let output = test.profiler(&[&["folded"], args].concat()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let sum = |text: &str| -> u64 {
        text.lines().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let border = format!("{}ms", next / 1_000_000);
    let (before, after) = (folded(&["--to", &border]), folded(&["--from", &border]));
    assert!(before.contains("busy_early") && !before.contains("busy_late"), "{before}");
    assert!(after.contains("busy_late") && !after.contains("busy_early"), "{after}");
    assert_eq!(sum(&before) + sum(&after), sum(&folded(&[])));
    // What is converted has its part, too; --to is a format there.
    let converted = test.profiler(&["convert", "--to", "folded", "--until", &border]).output().unwrap();
    let converted = String::from_utf8_lossy(&converted.stdout).into_owned();
    assert_eq!(sum(&converted), sum(&before), "{converted}");
    if test.needs("go") {
        // It takes both ends of a range for a part of it.
        let focus = format!("-tagfocus=timeline=0ms:{}ms", next / 1_000_000 - 1);
        let raw = Command::new("go")
            .args(["tool", "pprof", "-symbolize=none", "-sample_index=samples", "-traces", &focus, file])
            .env("HOME", &test.dir)
            .output()
            .unwrap();
        let raw = String::from_utf8_lossy(&raw.stdout).into_owned();
        assert!(raw.contains("busy_early") && !raw.contains("busy_late"), "{raw}");
    }
    let error = refusal(&test.profiler(&["top", "--from", "1h"]).output().unwrap());
    assert!(error.contains("no sample is of --from 3600.00 s"), "{error}");
}

#[test]
fn without_the_option_no_label_is_added() {
    let Some(test) = Test::new("no-moments") else { return };
    let program = test.spin("spin", "busy", &[]);
    let recording = test.record(&["--", &program, "0.2"]);
    let labels = output("python3", &[&format!("{JUDGES}/labels.py"), &recording.file]);
    assert!(!labels.contains("timeline=") && !labels.contains("\tcpu="), "{labels}");
    let error = refusal(&test.profiler(&["folded", "--from", "0s"]).output().unwrap());
    assert!(error.contains("record with --timeline"), "{error}");
}
