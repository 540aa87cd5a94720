//! Bounds: what a full map loses is counted, and memory stays below the formula of docs/memory.md.

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Recording, Test, cpu_s, spawn};

const MIB: f64 = 1048576.0;

#[test]
fn what_a_full_map_loses_is_told() {
    let Some(test) = Test::alone("full-map") else { return };
    let program = test.compile("samples/stacks.c", "stacks", &[]);
    let recording = test.record(&["-F", "1999", "--counts-entries", "64", "--", &program, "100000", "1"]);
    assert!(recording.lost > 100, "{}", recording.told);
    assert!(recording.complete + recording.incomplete >= 64, "{}", recording.told);
    let reason = format!("counts map full {}", recording.lost);
    assert!(recording.told.contains(&format!("lost samples: {reason}\n")), "{}", recording.told);
    assert!(recording.comments.contains(&format!("lost: {reason}")), "{:?}", recording.comments);
    // With room for all, nothing is lost.
    let recording = test.record(&["-F", "1999", "--", &program, "100000", "1"]);
    assert_eq!(recording.lost, 0, "{}", recording.told);
}

/// Peaks that the summary tells, in MiB: of the recorder and of naming.
pub fn peaks(told: &str) -> (f64, f64) {
    let cost = told.lines().find(|line| line.starts_with("  cost ")).expect("costs");
    let mut peaks =
        cost.split(" MiB peak").map(|part| part.rsplit(' ').next().unwrap().parse().unwrap_or(0.0));
    (peaks.next().unwrap(), peaks.next().unwrap())
}

/// Unwind rows that the summary tells, if any.
pub fn rows(told: &str) -> Option<f64> {
    let line = told.lines().find_map(|line| line.strip_prefix("  tables "))?;
    Some(line.split_whitespace().next().unwrap().replace(',', "").parse().unwrap())
}

/// The bounds of docs/memory.md, in MiB.
pub fn bounds(cpus: f64, hz: f64, processes: f64, stacks: f64, rows: Option<f64>) -> (f64, f64) {
    // Both CPUs at 10,000 Hz are below the 32,768 samples per second that shorten the interval.
    let ring = (cpus * hz / 2.0 * 2096.0).clamp(262144.0, 64.0 * MIB) as u64;
    let ring = ring.next_power_of_two() as f64;
    // Those of scripts are there where tables are.
    let tables = rows.map_or(0.0, |rows| 32.0 + 24.0 * rows / MIB);
    let base = 16.0 + 0.5 * cpus + 4096.0 * processes / MIB + tables;
    (base + 2.0 * ring / MIB + 768.0 * stacks / MIB, base + 48.0 + 1300.0 * stacks / MIB)
}

fn check(test: &Test, recording: &Recording, hz: f64, processes: usize) -> usize {
    let stacks: HashSet<_> = recording.samples.iter().map(|sample| (sample.pid, &sample.stack)).collect();
    let cpus = recording.told.split(" CPU").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let (recorder, naming) = peaks(&recording.told);
    let (most, most_naming) = bounds(cpus, hz, processes as f64, stacks.len() as f64, rows(&recording.told));
    let said = format!(
        "{} stacks, {processes} processes, {hz} Hz: recorder {recorder} of at most {most:.1} MiB, naming {naming} of {most_naming:.1} MiB",
        stacks.len()
    );
    test.tell(&said);
    assert!(recorder > 1.0 && recorder < most, "{said}: {}", recording.told);
    assert!(naming > 1.0 && naming < most_naming, "{said}: {}", recording.told);
    stacks.len()
}

#[test]
fn memory_at_two_thousand_processes() {
    let Some(test) = Test::alone("memory-processes") else { return };
    let program = test.spin("spin", "busy", &[]);
    let sleeping: Vec<_> = (0..2000).map(|_| spawn(Command::new("sleep").arg("600"))).collect();
    let busy = spawn(Command::new(&program).arg("600"));
    for unwind in ["fp", "auto"] {
        let recording = test.record_until(0.7, busy.0.id(), &["-a", "--unwind", unwind]);
        assert!(recording.with("busy") > 20, "{}", recording.told);
        check(&test, &recording, 99.0, sleeping.len() + 200);
        assert!(unwind != "fp" || peaks(&recording.told).0 < 60.0, "{}", recording.told);
    }
}

#[test]
fn memory_at_a_hundred_thousand_stacks() {
    let Some(test) = Test::alone("memory-stacks") else { return };
    let program = test.compile("samples/stacks.c", "stacks", &[]);
    let busy = [0, 1]
        .map(|half| spawn(Command::new(&program).args(["400000", "100", &(half * 500_000).to_string()])));
    let pids: Vec<u32> = busy.iter().map(|busy| busy.0.id()).collect();
    let of = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let recorder = test.started(&["-F", "10000", "-p", &of]);
    // Time for 120,000 on one CPU.
    let cpu_time = || pids.iter().map(|&pid| cpu_s(pid)).sum::<f64>();
    let (start, before) = (Instant::now(), cpu_time());
    while cpu_time() < before + 12.0 && start.elapsed() < Duration::from_secs(45) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let recording = recorder.interrupt();
    let stacks = check(&test, &recording, 10_000.0, 2);
    assert_eq!(recording.lost, 0, "{}", recording.told);
    assert!(stacks > 30_000, "{}", recording.told);
    if stacks < 100_000 {
        test.skip(&format!("{stacks} distinct stacks instead of 100,000: the CPUs are shared"));
    }
}

/// What there is no room for is counted all the same, under a frame that says so.
#[test]
fn a_memory_budget_is_kept() {
    let Some(test) = Test::alone("memory-budget") else { return };
    let program = test.compile("samples/stacks.c", "stacks", &[]);
    let record =
        |budget: &[&str]| test.record(&[&["-F", "9999"], budget, &["--", &program, "400000", "3"]].concat());
    let distinct = |recording: &Recording| {
        recording.samples.iter().map(|sample| &sample.stack).collect::<HashSet<_>>().len()
    };
    let recording = record(&["--memory-budget", "2M"]);
    let merged = recording.with("[truncated: memory budget used up]");
    test.tell(&format!("{} stacks, {merged} samples of others: {}", distinct(&recording), recording.told));
    let samples = recording.total(|_| true);
    assert!(samples > 5000, "{}", recording.told);
    // The budget holds some 5,000 of them, and an interval brings as many as there are samples in it.
    assert!(merged * 4 > samples, "{}", recording.told);
    assert!(recording.told.contains("half of the memory budget was used"), "{}", recording.told);
    assert!(recording.total(|sample| sample.comm == "stacks") * 2 > samples, "{}", recording.told);
    // With room for all, nothing is given up.
    let recording = record(&[]);
    assert_eq!(recording.with("[truncated: memory budget used up]"), 0, "{}", recording.told);
    assert!(!recording.told.contains("memory budget"), "{}", recording.told);
    assert!(recording.samples.iter().all(|sample| sample.pid != 0), "{}", recording.told);
}
