//! `profiler threads`: where each thread's time went, and whether it adds up.
//!
//! The scheduler's hook knows how long a thread was on the CPU to the nanosecond; the sampler
//! estimates the same from its ticks. Both are in the table, so that every recording is a test of
//! its sampler.
//!
//! # The stated error
//!
//! A thread that is on a CPU for a time of m + f periods, 0 ≤ f < 1, is found by m or by m + 1 ticks:
//! by the latter with probability f, if it came at any moment between two ticks. That has the
//! variance f·(1 − f), which is at most ¼ and at most the time in periods. So a thread that was on
//! CPUs k times, t periods in all, is found t times with a variance of at most min(t, k/4). Twice the
//! square root is stated, and one tick more for the two ends of the recording: 95 % of threads should
//! lie within it, and more do where that bound is far from the truth.
//!
//! What it leaves out shows as threads that do not:
//!
//! - Aliasing. A program that a timer drives at the sampler's rate, or a simple ratio of it, comes at
//!   the same moment between two ticks again and again. 99 Hz is chosen because timers are not.
//! - Ticks that never came. A CPU that is late, such as a virtual one whose host runs another, skips
//!   them; exact time goes on. So the sampled time of all threads together is a little low.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use anyhow::{Context, Result, bail};

use super::reading;
use crate::cli::ThreadsArgs;
use crate::model::profile::{Profile, Sample};
use crate::text::printable;

/// Nanoseconds of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    comm: String,
    lifetime: i64,
    on_cpu: i64,
    sampled: i64,
    runnable: i64,
    blocked: i64,
    below: i64,
    /// Times that it left a CPU.
    events: i64,
}

impl Row {
    fn sum(&self) -> i64 {
        self.on_cpu + self.runnable + self.blocked + self.below
    }

    /// How far the sampled time may be from the exact one, in nanoseconds.
    fn error(&self, period: i64) -> f64 {
        let period = period as f64;
        // It may be on a CPU at the end.
        let variance = (self.on_cpu as f64 / period).min((self.events + 1) as f64 / 4.0);
        period * (2.0 * variance.sqrt() + 1.0)
    }
}

/// Prints the table of a recording's threads to standard output.
///
/// # Errors
/// If the file cannot be read or has no times of threads, or if standard output cannot be written.
pub fn run(args: &ThreadsArgs) -> Result<()> {
    let profile = reading::read(&args.input)?;
    let rows = rows(&profile);
    if rows.values().all(|row| row.lifetime == 0) {
        bail!("failed to find the times of threads in {}: record with --off-cpu", args.input.display());
    }
    match io::stdout().lock().write_all(table(&profile, &rows).as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("failed to write the table to standard output"),
    }
}

fn rows(profile: &Profile) -> BTreeMap<(i64, i64), Row> {
    let column = |name: &str| profile.sample_types.iter().position(|ty| ty.name == name);
    let [cpu, events, off, exact, lifetime] =
        ["cpu", "off_cpu_events", "off_cpu", "thread_cpu", "thread_lifetime"].map(column);
    let value = |sample: &Sample, column: Option<usize>| column.map_or(0, |at| sample.values[at]);
    let mut rows: BTreeMap<(i64, i64), Row> = BTreeMap::new();
    for sample in profile.samples() {
        let id = |key| profile.label(sample.labels, key).and_then(|text| text.parse().ok());
        let (Some(pid), Some(tid)) = (id("pid"), id("tid")) else { continue };
        let row = rows.entry((pid, tid)).or_default();
        row.sampled += value(sample, cpu);
        row.on_cpu += value(sample, exact);
        row.lifetime += value(sample, lifetime);
        row.events += value(sample, events);
        let off = value(sample, off);
        match marker(profile, sample) {
            Some("[runnable]") => row.runnable += off,
            Some(name) if name.starts_with("[blocked") => row.below += off,
            _ => row.blocked += off,
        }
        if row.comm.is_empty() || value(sample, lifetime) > 0 {
            row.comm = profile.label(sample.labels, "thread_comm").unwrap_or_default();
        }
    }
    // Threads that were sampled and ended in the moment before their times were kept.
    rows.retain(|_, row| row.lifetime > 0);
    rows
}

/// The name of a stack's only frame.
fn marker<'a>(profile: &'a Profile, sample: &Sample) -> Option<&'a str> {
    let mut stack = profile.stack(sample.stack);
    let (frame, None) = (stack.next()?, stack.next()) else { return None };
    let line = profile.location(frame).lines.first()?;
    Some(&profile.function(line.function).name)
}

fn table(profile: &Profile, rows: &BTreeMap<(i64, i64), Row>) -> String {
    let mut text = String::new();
    let is_sampled = profile.sample_types.iter().any(|ty| ty.name == "cpu");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:>8} {:>8} {:15} {:>11} {:>17} {:>11} {:>11} {:>11} {:>11} {:>8}",
        "pid",
        "tid",
        "thread",
        "on-CPU ms",
        "sampled ± error",
        "runnable",
        "blocked",
        "short",
        "sum",
        "of life"
    );
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|(_, row)| std::cmp::Reverse((row.on_cpu, row.runnable)));
    let ms = |ns: i64| format!("{:.3}", ns as f64 / 1e6);
    for ((pid, tid), row) in rows {
        let sampled = if is_sampled {
            format!("{:.0} ± {:.0}", row.sampled as f64 / 1e6, row.error(profile.period) / 1e6)
        } else {
            "-".to_owned()
        };
        let _ = writeln!(
            text,
            "{pid:>8} {tid:>8} {:15} {:>11} {sampled:>17} {:>11} {:>11} {:>11} {:>11} {:>7.2}%",
            printable(&row.comm).replace('\n', "\u{fffd}"),
            ms(row.on_cpu),
            ms(row.runnable),
            ms(row.blocked),
            ms(row.below),
            ms(row.sum()),
            100.0 * row.sum() as f64 / row.lifetime.max(1) as f64,
        );
    }
    text
}
