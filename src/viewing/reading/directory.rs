//! A directory of recordings that follow each other, as `record --every` makes it, as one recording.
//!
//! A file's name is the time at which it begins. So the moments of its samples become those since the first
//! file began, and of a part only those files are read in which it may lie. A file that does not know its samples'
//! moments is in a part as a whole, or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load;
use crate::model::profile::Profile;
use crate::viewing::merge::Merger;
use crate::viewing::moments;

/// How the names of such recordings end.
pub const SUFFIX: &str = "Z.pb.gz";
/// Most samples of their sum: each may take 400 bytes.
const MOST_SAMPLES: usize = 2 << 20;
const NS_PER_MS: i64 = 1_000_000;

/// What the files of a directory come to.
pub(in crate::viewing) struct Sum {
    pub(in crate::viewing) profile: Profile,
    /// What of each value has no moment, and so is in no part.
    pub(in crate::viewing) timeless: Vec<i64>,
}

/// Adds up the recordings of a directory, or what of them is in a part of the time since the first one began.
///
/// # Errors
/// If there are none, one cannot be read or added to those before it, or none has a sample in that part.
pub(in crate::viewing) fn read(path: &Path, part: [Option<Duration>; 2]) -> Result<Sum> {
    let [from, to] = moments::bounds(part)?;
    let is_part = part.iter().any(Option::is_some);
    let names = names(path)?;
    let (first_ms, _) = *names.first().with_context(|| {
        format!("it is a directory without files of `record --every`, such as 20260131T093000.000{SUFFIX}: name a file in it")
    })?;
    let mut merger = Merger::default();
    let mut timeless: BTreeMap<String, i64> = BTreeMap::new();
    let (mut files, mut whole, mut gone, mut last_ns) = (0, 0, 0, 0);
    for (at, (begin_ms, name)) in names.iter().enumerate() {
        let begin_ns = begin_ms.saturating_sub(first_ms).saturating_mul(NS_PER_MS);
        let next = names.get(at + 1).map(|(begin_ms, _)| begin_ms.saturating_sub(first_ms));
        last_ns = last_ns.max(begin_ns);
        if begin_ns >= to || next.is_some_and(|next| next.saturating_mul(NS_PER_MS) <= from) {
            continue;
        }
        let file = path.join(name);
        // A recorder that keeps some of them may have removed it meanwhile.
        if !file.exists() {
            gone += 1;
            continue;
        }
        let loaded = load::file(&file).and_then(|loaded| super::whole(loaded, name));
        let mut profile = loaded.with_context(|| format!("failed to read {name}"))?;
        let end_ns = begin_ns.saturating_add(profile.duration_ns.max(0));
        last_ns = last_ns.max(end_ns);
        let has_moments = profile.label_sets().any(|labels| moments::time(labels).is_some());
        if is_part {
            if end_ns <= from {
                continue;
            }
            if has_moments {
                let cut = moments::cut(
                    &mut profile,
                    from.saturating_sub(begin_ns).max(0),
                    to.saturating_sub(begin_ns),
                );
                for (ty, value) in profile.sample_types.iter().zip(cut.timeless) {
                    let sum = timeless.entry(ty.name.clone()).or_default();
                    *sum = sum.saturating_add(value);
                }
            } else if !profile.samples().is_empty() {
                whole += 1;
            }
        }
        moments::delay(&mut profile, begin_ns);
        profile.time_ns = first_ms.saturating_mul(NS_PER_MS);
        merger.align(&mut profile);
        merger.add(&profile).with_context(|| format!("failed to add {name} to those before it"))?;
        ensure!(
            merger.samples() <= MOST_SAMPLES,
            "they have more than {MOST_SAMPLES} distinct stacks: name some of the files, or a part by --from and --to"
        );
        files += 1;
    }
    let profile = merger.finish();
    ensure!(files > 0 || is_part, "all of its {} recordings were removed meanwhile", names.len());
    ensure!(!is_part || !profile.samples().is_empty(), moments::no_sample([from, to], [0, last_ns]));
    let shown = path.display();
    say!("profiler: {shown} holds {} recordings: {files} are added up", names.len());
    if gone > 0 {
        say!("profiler: {gone} recordings in {shown} were removed meanwhile");
    }
    if whole > 0 {
        say!(
            "profiler: {whole} of these are taken as a whole, as they do not say when their samples were taken: record \
             with --timeline"
        );
    }
    let of = |name: &str| timeless.get(name).copied().unwrap_or(0);
    let timeless = profile.sample_types.iter().map(|ty| of(&ty.name)).collect();
    Ok(Sum { profile, timeless })
}

/// The recordings in a directory and when they begin, the first one first. Other files are none of ours.
fn names(path: &Path) -> Result<Vec<(i64, String)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().into_string();
        names.extend(name.ok().and_then(|name| Some((begin_ms(&name)?, name))));
    }
    names.sort_unstable();
    Ok(names)
}

/// The time at which a recording of this name begins, `YYYYMMDDTHHMMSS.mmmZ.pb.gz`, in milliseconds since 1970.
pub fn begin_ms(name: &str) -> Option<i64> {
    let (day, time) = name.strip_suffix(SUFFIX)?.split_once('T')?;
    let (time, ms) = time.split_once('.')?;
    let is_number = |text: &str, digits| text.len() == digits && text.bytes().all(|it| it.is_ascii_digit());
    if !is_number(day, 8) || !is_number(time, 6) || !is_number(ms, 3) {
        return None;
    }
    let number = |text: &str| text.parse::<i64>().ok();
    let (year, month, day) = (number(&day[..4])?, number(&day[4..6])?, number(&day[6..])?);
    let (hour, minute, second) = (number(&time[..2])?, number(&time[2..4])?, number(&time[4..])?);
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1000 + number(ms)?)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar. Years are counted from March on, so that a leap day is the
/// last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}
