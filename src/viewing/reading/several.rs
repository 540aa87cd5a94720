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
