//! Threads that wait for work all the time are most of a machine's blocked time, and tell nothing:
//! one frame for all of a process's, with their number and time in its name, takes their place.

use std::collections::BTreeMap;

use crate::profile::{Label, Profile};

/// A thread is idle if it was blocked in one stack for more than this share of the recording.
const IDLE: f64 = 0.95;
/// Of what is left, the width of a process's frame for its idle threads: enough to be seen.
const WIDTH: f64 = 0.005;

/// Folds the idle threads' time at the value `index` together, process by process. `blocked` is the
/// value that tells for how long they were blocked.
pub(super) fn fold(profile: &mut Profile, index: usize, blocked: usize) {
    let least = (profile.duration_ns as f64 * IDLE) as i64;
    if least <= 0 {
        return;
    }
    let samples = profile.take_samples();
    let mut idle: BTreeMap<Vec<Label>, (usize, i64)> = BTreeMap::new();
    let mut rest = 0i64;
    for sample in samples {
        let value = sample.values[index];
        // What has no code is no place to wait in: a thread that has no CPU is not idle, nor is one that
        // is blocked for a short time very often.
        let has_code = profile.stack(sample.stack).iter().any(|&at| profile.location(at).mapping.is_some());
        if sample.values[blocked] > least && has_code {
            let mut labels = profile.labels(sample.labels).to_vec();
            labels.retain(|label| matches!(&*label.key, "pid" | "comm"));
            let (threads, sum) = idle.entry(labels).or_default();
            *threads += 1;
            *sum = sum.saturating_add(value);
        } else {
            rest = rest.saturating_add(value);
            profile.add(sample.stack, sample.labels, &sample.values);
        }
    }
    for (labels, (threads, sum)) in idle {
        let plural = if threads == 1 { "" } else { "s" };
        let marker = profile.marker(&format!("[{threads} idle thread{plural}: {:.1} s]", sum as f64 / 1e9));
        let stack = profile.intern_stack(&[marker]);
        let labels = profile.intern_labels(&labels);
        let mut values = vec![0; profile.sample_types.len()];
        values[index] = ((rest as f64 * WIDTH) as i64).max(1);
        profile.add(stack, labels, &values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{LabelValue, Location, LocationId, Mapping, MappingId, ValueType};

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
        let runnable = profile.marker("[runnable]");
        let runnable = profile.intern_stack(&[runnable]);
        let labels = profile.intern_labels(&[]);
        profile.add(runnable, labels, &[999_000_000]);
        fold(&mut profile, 0, 0);
        let values: Vec<i64> = profile.samples().iter().map(|sample| sample.values[0]).collect();
        assert_eq!(values, [500_000_000, 1_000, 999_000_000, 7_495_005]);
        let frame = profile.stack(profile.samples()[3].stack)[0];
        let name = profile.location(frame).lines[0].function;
        assert_eq!(profile.function(name).name, "[2 idle threads: 2.0 s]");
        assert_eq!(profile.label(profile.samples()[3].labels, "tid"), None);
    }
}
