//! Histograms of calls, as text.

use std::fmt::Write as _;

use crate::recording::capture::bpf::latency::Latency;
use crate::text::{percent, printable, thousands};

/// Widest bar.
const BAR: usize = 40;
/// Processes in the list of those with the most calls.
const MOST_PROCESSES: usize = 20;

/// What was measured: in all and by process, or process by process.
pub fn text(target: &str, seconds: f64, processes: &[Latency], per_process: bool) -> String {
    let all = processes.iter().fold(Latency::default(), |mut sum, process| {
        sum.add(process);
        sum
    });
    let mut text = format!("{target} in {seconds:.1} s: {}\n", sums(&all));
    let mut sorted: Vec<&Latency> = processes.iter().filter(|process| process.calls > 0).collect();
    sorted.sort_by_key(|process| (std::cmp::Reverse(process.calls), process.tgid));
    if per_process {
        for process in sorted {
            let _ = write!(text, "\n{} ({}): {}\n", printable(&process.comm), id(process), sums(process));
            histogram(&mut text, process);
        }
        return text;
    }
    text.push('\n');
    histogram(&mut text, &all);
    if sorted.len() > 1 {
        let _ = writeln!(
            text,
            "\n{:>16} {:>8} {:>12} {:>12} {:>12} {:>12}",
            "process", "pid", "calls", "average", "longest", "total"
        );
        for process in sorted.iter().take(MOST_PROCESSES) {
            let _ = writeln!(
                text,
                "{:>16} {:>8} {:>12} {:>12} {:>12} {:>12}",
                printable(&process.comm),
                id(process),
                thousands(process.calls),
                time(process.average_ns()),
                time(process.longest_ns as f64),
                time(process.total_ns as f64),
            );
        }
        if sorted.len() > MOST_PROCESSES {
            let left: u64 = sorted[MOST_PROCESSES..].iter().map(|process| process.calls).sum();
            let _ = writeln!(
                text,
                "{:>16} {:>8} {:>12}",
                "others",
                sorted.len() - MOST_PROCESSES,
                thousands(left)
            );
        }
    }
    text
}

fn id(process: &Latency) -> String {
    if process.tgid == 0 { "-".to_owned() } else { process.tgid.to_string() }
}

fn sums(latency: &Latency) -> String {
    let mut text = format!(
        "{} calls = returned {} + left {} + deep {} + open {}",
        latency.calls,
        latency.returned,
        latency.left,
        latency.deep,
        latency.open()
    );
    if latency.returned > 0 {
        let _ = write!(
            text,
            "; {} in all, average {}, longest {}",
            time(latency.total_ns as f64),
            time(latency.average_ns()),
            time(latency.longest_ns as f64)
        );
    }
    text
}

/// The form that bcc's tools have made usual.
fn histogram(text: &mut String, latency: &Latency) {
    let used = |slot: &usize| latency.slots[*slot] > 0;
    let slots = 0..latency.slots.len();
    let (Some(first), Some(last)) = (slots.clone().find(used), slots.rev().find(used)) else { return };
    let most = latency.slots.iter().copied().max().unwrap_or(1).max(1);
    let _ = writeln!(text, "{:>19} .. {:<19} : {:<12} distribution", "nanoseconds", "", "calls");
    for slot in first..=last {
        let calls = latency.slots[slot];
        let (from, to) = (if slot == 0 { 0 } else { 1u64 << slot }, (2u64 << slot) - 1);
        let bar = "*".repeat((calls as u128 * BAR as u128 / u128::from(most)) as usize);
        let _ = writeln!(
            text,
            "{from:>19} .. {to:<19} : {calls:<12} |{bar:<BAR$}| {:5.1}%",
            percent(calls as f64, latency.returned as f64)
        );
    }
}

/// A time with the unit that suits it.
pub fn time(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.0} ns"),
        ..1e6 => format!("{:.2} µs", ns / 1e3),
        ..1e9 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.3} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(tgid: u32, slots: &[(usize, u64)]) -> Latency {
        let mut latency =
            Latency { tgid, comm: format!("prog{tgid}"), slots: vec![0; 42], ..Latency::default() };
        for &(slot, calls) in slots {
            latency.slots[slot] = calls;
            latency.returned += calls;
            latency.total_ns += calls << slot;
        }
        latency.calls = latency.returned + 3;
        (latency.left, latency.deep) = (1, 1);
        latency
    }

    #[test]
    fn sums_close_and_bars_are_shares() {
        let found =
            text("syscall:read", 2.0, &[process(7, &[(10, 4), (12, 8)]), process(8, &[(10, 4)])], false);
        let lines: Vec<&str> = found.lines().collect();
        assert!(
            lines[0]
                .starts_with("syscall:read in 2.0 s: 22 calls = returned 16 + left 2 + deep 2 + open 2; "),
            "{found}"
        );
        let bars: Vec<&str> = found.lines().filter(|line| line.contains('|')).collect();
        assert_eq!(bars.len(), 3, "{found}");
        assert!(bars[0].trim().starts_with("1024 .. 2047 "), "{found}");
        assert!(
            bars[0].contains(": 8 ") && bars[0].contains(&"*".repeat(40)) && bars[0].ends_with(" 50.0%"),
            "{found}"
        );
        assert!(bars[1].contains(": 0 "), "{found}");
        assert!(found.contains("prog7        7           15"), "{found}");
    }

    #[test]
    fn each_process_has_its_own() {
        let found = text("syscall:read", 2.0, &[process(7, &[(0, 4)]), process(8, &[(3, 4), (5, 1)])], true);
        assert!(found.contains("prog8 (8): 8 calls") && found.contains("prog7 (7): 7 calls"), "{found}");
        assert!(found.find("prog8").unwrap() < found.find("prog7").unwrap(), "the most first: {found}");
        assert!(found.contains("0 .. 1 "), "{found}");
        assert_eq!(found.matches('|').count(), 2 * 4);
    }
}
