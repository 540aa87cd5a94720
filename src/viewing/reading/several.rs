//! Files that hold one pprof profile behind the other, as `cat a.pb.gz b.pb.gz` makes them.
//!
//! Joined protobuf messages read as one message whose tables contradict each other. google/pprof says
//! "concatenated profiles detected" and leaves it there, but merges the same profiles if they are named
//! one by one. So each is read by itself here, and then they are merged.
//!
//! Where one ends is known of gzip streams. In what is not packed, writers put the strings behind all tables
//! and samples. So a table or a sample behind strings begins the next profile, and so does a field that a
//! profile has once and this one had.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::folded;
use super::load::Loaded;
use crate::model::profile::Profile;
use crate::viewing::merge::Merger;
use crate::viewing::pprof;

/// Most samples of their sum: each may take 400 bytes.
const MOST_SAMPLES: usize = 2 << 20;

/// The sum of all profiles and their number; none if the file is no row of profiles.
///
/// # Errors
/// If they cannot be added up.
pub(super) fn parse(loaded: &Loaded) -> Result<Option<(Profile, usize)>> {
    let starts = [0].into_iter().chain(loaded.ends.iter().copied());
    let streams: Vec<_> = starts.zip(loaded.ends.iter().copied()).map(|(start, end)| start..end).collect();
    let parts: Vec<_> = streams.into_iter().flat_map(|stream| split(&loaded.data, stream)).collect();
    if parts.len() < 2 {
        return Ok(None);
    }
    let mut merger = Merger::default();
    for part in &parts {
        let Ok(profile) = pprof::parse(&loaded.data[part.clone()]) else { return Ok(None) };
        merger.add(&profile).context("it is several profiles in a row, which cannot be added up")?;
        ensure!(
            merger.samples() <= MOST_SAMPLES,
            "it is several profiles in a row of more than {MOST_SAMPLES} distinct stacks: name fewer of them"
        );
    }
    Ok(Some((merger.finish(), parts.len())))
}

/// Puts ends of lines between texts of folded stacks that `cat` joined, and whose last lines have none: `a 1` and `b 2`
/// are no `a 1b 2`. A text that was packed piece by piece is left as it is, where one piece ends within a line.
pub(super) fn separate(loaded: &mut Loaded) {
    let is_stack = |line: Option<&[u8]>| {
        line.and_then(|line| std::str::from_utf8(line).ok()).is_some_and(|line| folded::split(line).is_some())
    };
    let data = &loaded.data;
    let starts = [0].into_iter().chain(loaded.ends.iter().copied());
    let parts: Vec<_> =
        starts.zip(loaded.ends.iter().copied()).map(|(start, end)| &data[start..end]).collect();
    let lacks = |pair: &[&[u8]]| {
        let is_end = |byte: &u8| *byte == b'\n';
        is_stack(pair[0].rsplit(is_end).next()) && is_stack(pair[1].split(is_end).next())
    };
    if !parts.windows(2).any(lacks) {
        return;
    }
    let (mut whole, mut ends) = (Vec::with_capacity(data.len() + parts.len()), Vec::new());
    for (at, part) in parts.iter().enumerate() {
        whole.extend_from_slice(part);
        if parts.get(at..at + 2).is_some_and(lacks) {
            whole.push(b'\n');
        }
        ends.push(whole.len());
    }
    *loaded = Loaded { data: whole, ends };
}

/// The profiles in a part of the data.
fn split(data: &[u8], stream: Range<usize>) -> Vec<Range<usize>> {
    let mut starts = vec![stream.start];
    let (mut had_strings, mut single) = (false, 0_u32);
    for (offset, number) in pprof::fields(&data[stream.clone()]) {
        // Fields that a message has once: drop_frames up to period, and default_sample_type.
        let bit = if matches!(number, 7..=12 | 14) { 1 << number } else { 0 };
        if had_strings && (number <= 5 || single & bit != 0) {
            starts.push(stream.start + offset);
            (had_strings, single) = (false, 0);
        }
        had_strings |= number == 6;
        single |= bit;
    }
    let ends = starts[1..].iter().copied().chain([stream.end]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_apart() {
        for (parts, whole) in [
            (&["a;b 1", "c 2\nd 3", "e 4\n"][..], "a;b 1\nc 2\nd 3\ne 4\n"),
            (&["a;b 1\n", "c 2\n"], "a;b 1\nc 2\n"),
            // Packed piece by piece.
            (&["a;b 1", "0\nc 2\n"], "a;b 10\nc 2\n"),
            (&["a;b 1\nma", "in 2\n"], "a;b 1\nmain 2\n"),
            (&["a"], "a"),
        ] {
            let ends = parts.iter().scan(0, |end, part| {
                *end += part.len();
                Some(*end)
            });
            let mut loaded = Loaded { ends: ends.collect(), data: parts.concat().into_bytes() };
            separate(&mut loaded);
            assert_eq!(
                (std::str::from_utf8(&loaded.data), loaded.ends.last()),
                (Ok(whole), Some(&whole.len()))
            );
        }
    }
}
