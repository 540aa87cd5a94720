//! Threads that wait for work all the time are most of a machine's blocked time, and tell nothing:
//! one frame for all of a process's, with their number and time in its name, takes their place. It is as narrow
//! as can be seen, and never shows more time than there was: what is drawn is a part of theirs.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::profile::{Label, LabelsId, Profile, StackId};

/// A thread is idle if it was blocked in one stack for more than this share of the recording.
const IDLE: f64 = 0.95;
/// Of what is left, the width of a process's frame for its idle threads: enough to be seen.
const WIDTH: f64 = 0.005;
/// Of what is left, the width of all these frames together at most.
const MOST_WIDTH: f64 = 0.05;

/// What was folded together.
pub(super) struct Idle {
    pub(super) threads: usize,
    /// Their time.
    pub(super) sum: i64,
}

/// Folds the idle threads' time at the value `index` together, process by process. `blocked` is the
/// value that tells for how long they were blocked.
pub(super) fn fold(profile: &mut Profile, index: usize, blocked: usize) -> Idle {
    let mut folded = Idle { threads: 0, sum: 0 };
    let least = (profile.duration_ns as f64 * IDLE) as i64;
    if least <= 0 {
        return folded;
    }
    let samples = profile.take_samples();
    // By thread and by where it waits, whoever wakes it.
    let mut waits: HashMap<(LabelsId, StackId), i64> = HashMap::new();
    for sample in &samples {
        let sum = waits.entry((sample.labels, profile.without_waker(sample.stack))).or_default();
        *sum = sum.saturating_add(sample.values[blocked]);
    }
    let mut idle: BTreeMap<Vec<Label>, (HashSet<LabelsId>, i64)> = BTreeMap::new();
    let mut rest = 0i64;
    for sample in samples {
        let value = sample.values[index];
        let place = profile.without_waker(sample.stack);
        // What has no code is no place to wait in: a thread that has no CPU is not idle, nor is one that
        // is blocked for a short time very often.
        let has_code = profile.stack(place).any(|at| profile.location(at).mapping.is_some());
        if has_code && waits.get(&(sample.labels, place)).is_some_and(|&sum| sum > least) {
            let mut labels = profile.labels(sample.labels).to_vec();
            labels.retain(|label| matches!(&*label.key, "pid" | "comm"));
            let (threads, sum) = idle.entry(labels).or_default();
            threads.insert(sample.labels);
            *sum = sum.saturating_add(value);
        } else {
            rest = rest.saturating_add(value);
            profile.add(sample.stack, sample.labels, &sample.values);
        }
    }
    let width = (rest as f64 * WIDTH.min(MOST_WIDTH / idle.len().max(1) as f64)) as i64;
    for (labels, (threads, sum)) in idle {
        let threads = threads.len();
        folded.threads += threads;
        folded.sum = folded.sum.saturating_add(sum);
        let plural = if threads == 1 { "" } else { "s" };
        let marker = profile.marker(&format!("[{threads} idle thread{plural}: {:.1} s]", sum as f64 / 1e9));
        let stack = profile.intern_stack(&[marker]);
        let labels = profile.intern_labels(&labels);
        let mut values = vec![0; profile.sample_types.len()];
        values[index] = width.clamp(1, sum.max(1));
        profile.add(stack, labels, &values);
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::{LabelValue, Location, LocationId, Mapping, MappingId, ValueType};

    #[test]
    fn idle_threads_of_a_process_become_one_narrow_frame() {
        let mut profile = Profile::new(vec![ValueType::new("off_cpu", "nanoseconds")]);
        profile.duration_ns = 1_000_000_000;
        profile.mappings.push(Mapping::default());
        profile.locations.push(Location { mapping: Some(MappingId(0)), ..Location::default() });
        let stack = profile.intern_stack(&[LocationId(0)]);
        for (pid, tid, ns) in [(1, 1, 990_000_000), (1, 2, 980_000_000), (1, 3, 500_000_000), (2, 4, 1_000)] {
            let number =
                |key: &str, id: i64| Label { key: key.into(), value: LabelValue::Num(id, "".into()) };
            let labels = profile.intern_labels(&[number("pid", pid), number("tid", tid)]);
            profile.add(stack, labels, &[ns]);
        }
        // One that two others wake, by turns.
        let separator = profile.marker(crate::model::profile::WAKER_SEPARATOR);
        let labels =
            profile.intern_labels(&[Label { key: "pid".into(), value: LabelValue::Num(3, "".into()) }]);
        for waker in ["a", "b"] {
            let waker = profile.marker(waker);
            let woken = profile.intern_stack(&[waker, separator, LocationId(0)]);
            profile.add(woken, labels, &[490_000_000]);
        }
        let runnable = profile.marker("[runnable]");
        let runnable = profile.intern_stack(&[runnable]);
        let labels = profile.intern_labels(&[]);
        profile.add(runnable, labels, &[999_000_000]);
        fold(&mut profile, 0, 0);
        let values: Vec<i64> = profile.samples().iter().map(|sample| sample.values[0]).collect();
        assert_eq!(values, [500_000_000, 1_000, 999_000_000, 7_495_005, 7_495_005]);
        let frame = profile.stack(profile.samples()[3].stack).next().unwrap();
        let name = profile.location(frame).lines[0].function;
        assert_eq!(profile.function(name).name, "[2 idle threads: 2.0 s]");
        assert_eq!(profile.label(profile.samples()[3].labels, "tid"), None);
    }
}
