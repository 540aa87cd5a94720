//! As `perf script` prints events, which most viewers read.
//!
//! Some readers count events and others add up their periods, so a stack has one event for each of its
//! samples, which share the value. No profile knows when they were: they follow each other, a period apart.
//! Names keep their kind by what perf writes behind them: `([kernel.kallsyms])`, `(inlined)`, a path.

use std::fmt::Write;

use anyhow::Result;

use crate::model::profile::{Location, Profile, Sample};
use crate::text::printable;
use crate::viewing::names::{address_name, clean, offset_in_file};
use crate::viewing::{View, scale};

/// Bytes after which text is handed on.
const PIECE: usize = 1 << 20;
/// Most events of a stack, so that a count of bytes or cycles is no count of events.
const MOST_EVENTS: i64 = 1 << 20;

pub(super) fn write(view: &View, mut out: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let profile = &view.profile;
    let mut time_ns = profile.time_ns.max(0);
    let name = event_name(view);
    let mut text = String::new();
    let mut without = 0_i64;
    for sample in profile.samples() {
        let value = sample.values[view.index];
        let events = events(view, sample);
        if value <= 0 {
            continue;
        }
        if profile.stack(sample.stack).next().is_none() {
            without = without.saturating_add(value);
        }
        let (head, stack) = (head(profile, sample), stack(profile, sample));
        for event in 0..events {
            // What does not divide goes to the first ones.
            let share = value / events + i64::from(event < value % events);
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{head} {}.{:06}: {share:>10} {}: \n{stack}\n",
                time_ns / 1_000_000_000,
                time_ns % 1_000_000_000 / 1000,
                name
            );
            time_ns = time_ns.saturating_add(profile.period.clamp(1000, 1_000_000_000));
            if text.len() >= PIECE {
                out(text.as_bytes())?;
                text.clear();
            }
        }
    }
    out(text.as_bytes())?;
    if without > 0 {
        let ty = &profile.sample_types[view.index];
        say!(
            "profiler: {} of '{}' have no stack; they are written, but most readers of perf script leave such events \
             out",
            scale::amount(without, &ty.unit),
            printable(&ty.name)
        );
    }
    Ok(())
}

/// How many samples a stack's value is of.
fn events(view: &View, sample: &Sample) -> i64 {
    let profile = &view.profile;
    let value = sample.values[view.index];
    let ty = &profile.sample_types[view.index];
    let events = if ty.unit == "count" && ty.name == "samples" {
        value
    } else if *ty == profile.period_type && profile.period > 0 {
        value / profile.period
    } else {
        1
    };
    events.clamp(1, MOST_EVENTS.min(value.max(1)))
}

/// The event that counts the value, in one word.
fn event_name(view: &View) -> String {
    let ty = &view.profile.sample_types[view.index];
    match (&*ty.name, &*ty.unit) {
        ("cpu", "nanoseconds") => "cpu-clock".to_owned(),
        (name, _) => clean(name).replace(' ', "_"),
    }
}

/// Process and thread, as each event begins.
fn head(profile: &Profile, sample: &Sample) -> String {
    let label = |key: &str| profile.label(sample.labels, key);
    let comm = clean(&label("comm").unwrap_or_else(|| "unknown".to_owned()));
    let number = |key: &str| label(key).and_then(|text| text.parse::<u32>().ok());
    let pid = number("pid").unwrap_or_default();
    let tid = number("tid").unwrap_or(pid);
    format!("{comm} {pid}/{tid} [000]")
}

/// The frames of a stack, leaf first.
fn stack(profile: &Profile, sample: &Sample) -> String {
    let mut text = String::new();
    for at in profile.stack(sample.stack) {
        frames(profile, profile.location(at), &mut text);
    }
    text
}

fn frames(profile: &Profile, location: &Location, text: &mut String) {
    let mapping = location.mapping.map(|at| profile.mapping(at));
    let path = mapping.map_or("", |mapping| &mapping.path);
    let path = if path.is_empty() { "[unknown]".to_owned() } else { clean(path) };
    let address = location.address;
    let Some(last) = location.lines.len().checked_sub(1) else {
        let (address, name) = match mapping.filter(|mapping| !mapping.path.is_empty()) {
            // An address in the file, as perf writes it; from it and the path readers make the name.
            Some(mapping) => (offset_in_file(location, mapping), "[unknown]".to_owned()),
            None => (address, clean(&address_name(location, mapping))),
        };
        let _ = writeln!(text, "\t{address:16x} {name} ({path})");
        return;
    };
    for (at, line) in location.lines.iter().enumerate() {
        let function = profile.function(line.function);
        let name = clean(if function.name.is_empty() { &function.system_name } else { &function.name });
        // Readers take an offset off the name.
        let offset = if name.contains("+0x") { "+0x0" } else { "" };
        let place = if at < last { "inlined" } else { &path };
        let _ = writeln!(text, "\t{address:16x} {name}{offset} ({place})");
    }
}
