//! The text that `perf script` prints, folded by inferno, which knows what the versions of perf write.
//!
//! Of a file with several events the first one is taken. Its period is the value where perf printed it,
//! and else each event counts 1.

use anyhow::{Context, Result};
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};

use super::super::budget::DAMAGED;
use super::folded;
use super::stacks::Builder;
use crate::model::profile::{Label, LabelValue, Profile, ValueType};

/// Whether the first lines are an event and a frame of its stack.
pub(super) fn is_applicable(lines: &str) -> bool {
    Folder::default().is_applicable(lines) == Some(true)
}

pub(super) fn parse(text: &str) -> Result<Profile> {
    let mut options = Options::default();
    options.annotate_kernel = true;
    options.annotate_jit = true;
    let mut lines = Vec::new();
    Folder::from(options).collapse(text.as_bytes(), &mut lines).with_context(|| {
        format!("it looks like the output of `perf script`, but is not understood: {DAMAGED}")
    })?;
    let mut builder = Builder::new(vec![value_type(text)]);
    let mut stack = Vec::new();
    for line in String::from_utf8_lossy(&lines).lines() {
        let Some((frames, count)) = folded::split(line) else { continue };
        // The process's name comes first.
        let (comm, frames) = frames.split_once(';').unwrap_or((frames, ""));
        let labels = builder.labels(&[Label { key: "comm".into(), value: LabelValue::Str(comm.into()) }])?;
        stack.clear();
        if !frames.is_empty() {
            folded::read_frames(&mut builder, frames, &mut stack)?;
        }
        builder.add_leaf_first(&stack, labels, &[count])?;
    }
    Ok(builder.finish())
}

/// What the first event counts: `… 1234.5:  1001001 cpu-clock:u:` is time, 1001001 ns each.
fn value_type(text: &str) -> ValueType {
    let event =
        text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    let mut words = event.split_once(": ").map_or("", |(_, rest)| rest).split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_period = first.parse::<u64>().is_ok();
    let name = if is_period { second } else { first };
    let name = name.split(':').next().unwrap_or_default();
    match name {
        _ if !is_period || name.is_empty() => ValueType::new("samples", "count"),
        "cpu-clock" | "task-clock" => ValueType::new("cpu", "nanoseconds"),
        name => ValueType::new(name, "count"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_says_what_is_counted() {
        for (line, name, unit) in [
            ("cc 1/2 [000] 1234.5: 1001001 cpu-clock:u: ", "cpu", "nanoseconds"),
            ("cc 1 1234.5:    250000 cycles: ", "cycles", "count"),
            ("cc 1 1234.5: cycles: ", "samples", "count"),
            ("a: b 12 1.5: ", "samples", "count"),
            ("", "samples", "count"),
        ] {
            assert_eq!(
                value_type(&format!("# perf\n\n{line}\n 1 f (x)\n")),
                ValueType::new(name, unit),
                "{line}"
            );
        }
    }
}
