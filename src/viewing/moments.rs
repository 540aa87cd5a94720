//! When samples were taken, where a recording says so (`record --timeline`): a label of each sample, in nanoseconds
//! since the recording began. Time that has no moment, such as that of all short waits of a thread, has no such label.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::scale;
use crate::model::profile::{CPU_LABEL, Label, LabelValue, Profile, TIME_LABEL};

/// Keeps the samples of a part of the recording, and returns what of each value has no moment, and so is left out.
///
/// # Errors
/// If the recording does not say when, or no sample lies in that part.
pub(super) fn keep(profile: &mut Profile, part: [Option<Duration>; 2]) -> Result<Vec<i64>> {
    let [from, to] = bounds(part)?;
    let cut = cut(profile, from, to);
    let Some((first, last)) = cut.moments else {
        bail!("it does not say when its samples were taken: record with --timeline")
    };
    ensure!(!profile.samples().is_empty(), no_sample([from, to], [first, last]));
    Ok(cut.timeless)
}

/// A part of the recording in nanoseconds since it began.
///
/// # Errors
/// If it ends before it begins.
pub(super) fn bounds(part: [Option<Duration>; 2]) -> Result<[i64; 2]> {
    let [from, to] = part.map(|time| time.map(|time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)));
    let (from, to) = (from.unwrap_or(0), to.unwrap_or(i64::MAX));
    ensure!(from < to, "--from {} is not before --to {}", seconds(from), seconds(to));
    Ok([from, to])
}

/// What is said of a part without samples, and of when they are.
pub(super) fn no_sample([from, to]: [i64; 2], [first, last]: [i64; 2]) -> String {
    format!(
        "no sample is of --from {} --to {}: they are of {} to {}",
        seconds(from),
        if to == i64::MAX { "the end".to_owned() } else { seconds(to) },
        seconds(first),
        seconds(last)
    )
}

/// What was found when samples were left out.
pub(super) struct Cut {
    /// Of each value, what has no moment and so is left out.
    pub(super) timeless: Vec<i64>,
    /// The first and the last moment that there was, unless there was none.
    pub(super) moments: Option<(i64, i64)>,
}

/// Keeps the samples from one moment until before another.
pub(super) fn cut(profile: &mut Profile, from: i64, to: i64) -> Cut {
    let times: Vec<Option<i64>> = profile.label_sets().map(time).collect();
    let mut timeless = vec![0_i64; profile.sample_types.len()];
    let mut moments: Option<(i64, i64)> = None;
    for sample in profile.take_samples() {
        let Some(time) = times[sample.labels.index()] else {
            for (sum, value) in timeless.iter_mut().zip(&sample.values) {
                *sum = sum.saturating_add(value.saturating_abs());
            }
            continue;
        };
        moments = Some(moments.map_or((time, time), |(first, last)| (first.min(time), last.max(time))));
        if (from..to).contains(&time) {
            profile.add(sample.stack, sample.labels, &sample.values);
        }
    }
    if profile.duration_ns > 0 {
        profile.duration_ns = to.min(profile.duration_ns).saturating_sub(from.max(0)).max(0);
    }
    Cut { timeless, moments }
}

/// Counts moments from a time so much earlier.
pub(super) fn delay(profile: &mut Profile, by_ns: i64) {
    if !profile.label_sets().any(|labels| time(labels).is_some()) {
        return;
    }
    for sample in profile.take_samples() {
        let mut labels = profile.labels(sample.labels).to_vec();
        for label in labels.iter_mut().filter(|label| *label.key == *TIME_LABEL) {
            if let LabelValue::Num(time, _) = &mut label.value {
                *time = time.saturating_add(by_ns);
            }
        }
        let labels = profile.intern_labels(&labels);
        profile.add(sample.stack, labels, &sample.values);
    }
}

/// Says what of a value has been left out for it has no moment.
pub(super) fn say_what_is_timeless(profile: &Profile, index: usize, timeless: &[i64]) {
    let ty = &profile.sample_types[index];
    // Values that are made of others come later.
    let left_out = timeless.get(index).copied().unwrap_or(0);
    if left_out > 0 {
        say!(
            "profiler: {} of '{}' are left out, as the recording does not say when they were: waits for a CPU, \
             and waits too short for a stack",
            scale::amount(left_out, &ty.unit),
            ty.name
        );
    }
}

/// Forgets when samples were taken, and on which CPUs.
pub fn forget(profile: &mut Profile) {
    let samples = profile.take_samples();
    for sample in samples {
        let timeless: Vec<Label> =
            profile.labels(sample.labels).iter().filter(|it| !is_moment(it)).cloned().collect();
        let labels = profile.intern_labels(&timeless);
        profile.add(sample.stack, labels, &sample.values);
    }
}

/// When the samples with these labels were taken.
pub(super) fn time(labels: &[Label]) -> Option<i64> {
    labels.iter().find_map(|label| match label.value {
        LabelValue::Num(time, _) if &*label.key == TIME_LABEL => Some(time),
        _ => None,
    })
}

fn is_moment(label: &Label) -> bool {
    [TIME_LABEL, CPU_LABEL].contains(&&*label.key)
}

fn seconds(ns: i64) -> String {
    scale::amount(ns, "nanoseconds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::{Location, LocationId, ValueType};

    /// Of one function: 1 at 0 s, 2 at 1 s, 4 at 2 s, and 8 at no time.
    fn profile() -> Profile {
        let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
        profile.duration_ns = 3_000_000_000;
        profile.locations.push(Location::default());
        let stack = profile.intern_stack(&[LocationId(0)]);
        let comm = Label { key: "comm".into(), value: LabelValue::Str("x".into()) };
        let at = |second: i64| Label {
            key: TIME_LABEL.into(),
            value: LabelValue::Num(second * 1_000_000_000, "nanoseconds".into()),
        };
        for (labels, value) in [
            (vec![comm.clone(), at(0)], 1),
            (vec![comm.clone(), at(1)], 2),
            (vec![comm.clone(), at(2)], 4),
            (vec![comm], 8),
        ] {
            let labels = profile.intern_labels(&labels);
            profile.add(stack, labels, &[value]);
        }
        profile
    }

    fn kept(from: Option<u64>, to: Option<u64>) -> Result<(i64, i64)> {
        let mut profile = profile();
        let timeless = keep(&mut profile, [from, to].map(|time| time.map(Duration::from_secs)))?;
        assert_eq!(timeless, [8]);
        Ok((profile.total(0), profile.duration_ns / 1_000_000_000))
    }

    #[test]
    fn a_part_begins_with_its_first_moment_and_ends_before_its_last() {
        assert_eq!(kept(Some(1), Some(2)).unwrap(), (2, 1));
        assert_eq!(kept(None, Some(2)).unwrap(), (3, 2));
        assert_eq!(kept(Some(1), None).unwrap(), (6, 2));
        assert_eq!(kept(Some(0), Some(9)).unwrap(), (7, 3));
    }

    #[test]
    fn a_part_without_samples_is_refused_with_the_times_that_there_are() {
        let error = kept(Some(5), Some(6)).unwrap_err().to_string();
        assert!(error.contains("they are of 0 ns to 2.00 s"), "{error}");
        assert!(kept(Some(2), Some(2)).unwrap_err().to_string().contains("not before"));
        let mut timeless = profile();
        forget(&mut timeless);
        let error = keep(&mut timeless, [Some(Duration::ZERO), None]).unwrap_err().to_string();
        assert!(error.contains("--timeline"), "{error}");
    }

    #[test]
    fn without_moments_samples_add_up() {
        let mut timeless = profile();
        forget(&mut timeless);
        assert_eq!(timeless.samples().iter().map(|sample| sample.values[0]).collect::<Vec<_>>(), [15]);
    }
}
