//! Folded stacks: `root;…;leaf count`, one stack a line.
//!
//! The marks that flamegraph.pl, inferno and this program append to names become what they stand for:
//! `_[k]` is code of the kernel, `_[j]` is compiled at run time, `_[i]` is inlined into the frame before
//! it, and `_[w]` behind a frame `--` is of the thread that woke the one before it.

use anyhow::{Context, Result};

use super::super::budget::DAMAGED;
use super::stacks::{Builder, Frame};
use crate::model::profile::{LocationId, Profile, ValueType, WAKER_SEPARATOR};

/// Whether the lines are stacks with counts; some may be odd, which [`parse`] names.
pub(super) fn is_applicable(lines: &str) -> bool {
    // As much of a number as others write: `1.5`, `1e3`, `1,234`.
    let is_number = |word: &str| {
        word.ends_with(|c: char| c.is_ascii_digit())
            && word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
            && word.bytes().all(|byte| byte.is_ascii_digit() || b"+-.,eE".contains(&byte))
    };
    let is_like =
        |line: &str| line.trim_end().rsplit_once([' ', '\t']).is_some_and(|(_, word)| is_number(word));
    let stacks =
        || lines.lines().map(|line| line.trim_start_matches('\u{feff}')).filter(|line| is_stack(line));
    let like = stacks().filter(|line| is_like(line)).count();
    stacks().next().is_some_and(is_like)
        && 2 * like > stacks().count()
        && stacks().any(|line| split(line).is_some() || is_like(line) && line.contains(';'))
}

/// Whether all lines are stacks with two counts, as `difffolded.pl` writes them: before and after.
pub(super) fn is_comparison(lines: &str) -> bool {
    let mut stacks = lines.lines().filter(|line| is_stack(line)).peekable();
    stacks.peek().is_some()
        && lines.contains(';')
        && stacks.all(|line| split(line).is_some_and(|(stack, _)| split(stack).is_some()))
}

pub(super) fn parse(text: &str) -> Result<Profile> {
    let mut builder = Builder::new(vec![ValueType::new("samples", "count")]);
    let labels = builder.labels(&[])?;
    let mut stack = Vec::new();
    for (at, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        if !is_stack(line) {
            continue;
        }
        let (frames, count) = split(line).with_context(|| {
            format!("line {at} of its folded stacks has no whole number at its end: {DAMAGED}")
        })?;
        read_frames(&mut builder, frames, &mut stack)?;
        builder.add_leaf_first(&stack, labels, &[count])?;
    }
    Ok(builder.finish())
}

/// The locations of `frames`, leaf first.
pub(super) fn read_frames(builder: &mut Builder, frames: &str, stack: &mut Vec<LocationId>) -> Result<()> {
    stack.clear();
    let mut woken = false;
    for text in frames.split(';') {
        woken |= text == WAKER_SEPARATOR;
        let marked = |mark| text.strip_suffix(mark).filter(|name| !name.is_empty());
        let frame = |name, place| Frame { name, place, ..Frame::default() };
        if let (Some(name), Some(&caller)) = (marked("_[i]"), stack.last()) {
            let location = builder.inlined(caller, &frame(name, ""))?;
            stack.pop();
            stack.push(location);
            continue;
        }
        let frame = if let Some(name) = marked("_[k]") {
            frame(name, "[kernel.kallsyms]")
        } else if let Some(name) = marked("_[j]") {
            frame(name, "[jit]")
        } else if let Some(name) = marked("_[w]").filter(|_| woken) {
            frame(name, "")
        } else {
            frame(text, "")
        };
        stack.push(builder.location(&frame)?);
    }
    stack.reverse();
    Ok(())
}

fn is_stack(line: &str) -> bool {
    !line.trim().is_empty() && !line.starts_with("# ") && line != "#"
}

/// The stack and the count of a line.
pub(super) fn split(line: &str) -> Option<(&str, i64)> {
    let (stack, count) = line.trim_end().rsplit_once([' ', '\t'])?;
    let stack = stack.trim();
    (!stack.is_empty()).then_some(())?;
    Some((stack, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_kinds() {
        let profile =
            parse("# x\nmain;read_[k] 3\nmain;twice;leaf_[i] 2\n\nmain;_[k] 1\nmain;read_[k] 4\n").unwrap();
        let names = |at: usize| {
            let stack = profile.stack(profile.samples()[at].stack);
            let lines = stack.flat_map(|at| &profile.location(at).lines);
            lines.map(|line| profile.function(line.function).name.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([names(0), names(1), names(2)], ["read main", "leaf twice main", "_[k] main"]);
        assert_eq!(profile.stack(profile.samples()[1].stack).count(), 2);
        let read = profile.location(profile.stack(profile.samples()[0].stack).next().unwrap());
        assert_eq!(profile.mapping(read.mapping.unwrap()).path, "[kernel.kallsyms]");
        assert_eq!(profile.samples()[0].values, [7]);
    }

    #[test]
    fn lines_have_whole_numbers() {
        for text in ["a;b 1\nc\n", "a;b 1.5\n", "5\n", "a 99999999999999999999\n"] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains("no whole number"), "{message}");
        }
        assert_eq!(parse("f(int, char) 12\nf(int, char)\t3\n").unwrap().total(0), 15);
        assert_eq!(parse("grew 2\nshrank -3\n").unwrap().total(0), -1);
    }
}
