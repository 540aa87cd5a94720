//! Counts and stacks, put together into samples.
//!
//! The kernel counts by key; the frames of a key arrive once per drain interval, stamped with the
//! time, and are resolved in the state that the process had then. A drained count therefore finds
//! its stack among those of its own interval. If the ring was full the frames may come with a later
//! interval, or never: then the time is still told, under a frame that says why it has no other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::model::event::{CgroupIds, Count, CountKey, Kind, Moment, OUTSIDE, ThreadTime, Truncation};
use crate::model::objects::{ObjectId, Objects, Source};
use crate::model::profile::{
    CPU_LABEL, Label, LabelValue, LabelsId, Location as ProfileLocation, LocationId, Mapping, MappingId,
    Profile, StackId, TIME_LABEL, WAKER_SEPARATOR,
};
use crate::model::snapshot::{Location, OTHER_NAMESPACE, Resolved};
use crate::model::unsymbolized::{Unsymbolized, Wholeness};
use crate::recording::containers::Groups;

/// Values of blocks.
const BLOCKED: [&str; 2] = ["off_cpu_events", "off_cpu"];

/// A stack that arrived, as the profile holds it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    time_ns: u64,
    stack: StackId,
    labels: LabelsId,
    truncation: Option<Truncation>,
}

/// Samples so far.
#[derive(Debug, Default)]
pub struct Tally {
    profile: Profile,
    locations: HashMap<Location, LocationId>,
    markers: HashMap<String, LocationId>,
    mappings: HashMap<ObjectId, MappingId>,
    seen: HashMap<CountKey, Seen>,
    orphans: HashMap<CountKey, Count>,
    /// Samples by how whole their stacks are.
    pub samples: Wholeness,
    /// The same of blocks.
    pub blocks: Wholeness,
    /// The same of wakers.
    wakings: Wholeness,
    /// Stacks of wakers, by their ids.
    wakers: HashMap<u64, StackId>,
    /// Blocks and nanoseconds by stack and waker, to be put together when all stacks are in.
    woken: HashMap<(StackId, LabelsId, u64), [u64; 2]>,
    threads: usize,
    /// Frame of blocks that have no stack; empty if blocks are not recorded.
    short: String,
    known: Rc<RefCell<Labels>>,
    /// Slot of time in which it begins.
    first_slot: u32,
    /// Names of the first two values: the number of samples, or of slow calls, and what they measure.
    sampled: [Rc<str>; 2],
}

/// What is known of samples and is not a process's own.
#[derive(Debug, Default)]
pub struct Labels {
    /// By cgroup.
    pub groups: Groups,
    /// Those of a former time, which stacks that are held may need.
    pub before: Groups,
    /// Of all samples.
    pub fixed: Vec<Label>,
    /// What slow calls are of: the leaf of their stacks.
    pub called: String,
    /// Length of the slots of time in which it is kept when samples were taken.
    pub slot_ns: Option<u64>,
}

impl Tally {
    /// Starts from a profile that has its sample types and no samples.
    pub fn new(profile: Profile, short: String, known: Rc<RefCell<Labels>>, began_ns: u64) -> Self {
        let name = |at: usize| profile.sample_types.get(at).map_or("", |ty| &ty.name).into();
        let sampled = [name(0), name(1)];
        // It wraps around as the kernel's does.
        let first_slot = known.borrow().slot_ns.map_or(0, |slot_ns| (began_ns / slot_ns) as u32);
        Self { profile, short, sampled, known, first_slot, ..Self::default() }
    }

    /// Whether it has counts of a key, and not its stack.
    pub fn waits_for(&self, key: &CountKey) -> bool {
        self.orphans.contains_key(key)
    }

    /// Objects that its stacks lie in.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> {
        self.mappings.keys().copied()
    }

    /// Distinct stacks so far.
    pub fn stacks(&self) -> usize {
        self.profile.samples().len()
    }

    /// Takes the resolved frames of a key, seen at `time_ns`.
    pub fn stack(&mut self, time_ns: u64, key: CountKey, resolved: &Resolved, objects: &Objects) {
        let mut frames: Vec<LocationId> =
            resolved.frames.iter().map(|&location| self.location(location, objects)).collect();
        if let Some(truncation) = resolved.truncation {
            frames.push(self.marker(&format!("[truncated: {}]", truncation.reason())));
        }
        if frames.is_empty() {
            // What was not asked for (-K, -U) has no frames, but it has time.
            frames.push(self.marker(match key.tgid {
                0 => "[idle]",
                OUTSIDE => OTHER_NAMESPACE,
                _ => "[not recorded]",
            }));
        }
        if key.kind == Kind::Latency {
            let called = self.known.borrow().called.clone();
            frames.insert(0, self.marker(&called));
        }
        if key.kind == Kind::Waker {
            frames.push(self.marker(&resolved.thread_comm));
        }
        let stack = self.profile.intern_stack(&frames);
        let names = [&resolved.comm, &resolved.thread_comm];
        let labels = self.labels([key.tgid, key.tid], names, key.cgroups, key.moment);
        if key.kind == Kind::Waker {
            self.wakers.insert(key.waker_id, stack);
        }
        self.seen.insert(key, Seen { time_ns, stack, labels, truncation: resolved.truncation });
        if let Some(count) = self.orphans.remove(&key) {
            self.add(&count);
        }
    }

    /// Takes the counts of an interval that ended at `end_ns`, all stacks of which have arrived.
    pub fn count(&mut self, counts: &[Count], end_ns: u64) {
        for count in counts {
            if self.seen.contains_key(&count.key) {
                self.add(count);
            } else {
                let orphan =
                    self.orphans.entry(count.key).or_insert(Count { samples: 0, time_ns: 0, ..*count });
                orphan.samples += count.samples;
                orphan.time_ns += count.time_ns;
            }
        }
        // Stacks of the next interval may have arrived already; those of this one come again.
        self.seen.retain(|_, seen| seen.time_ns > end_ns);
    }

    fn add(&mut self, count: &Count) {
        let Some(&seen) = self.seen.get(&count.key) else { return };
        let [number, measure] = self.sampled.clone();
        let (wholeness, columns) = match count.key.kind {
            Kind::OnCpu | Kind::Latency => (&mut self.samples, [&*number, &*measure]),
            Kind::OffCpu => (&mut self.blocks, BLOCKED),
            Kind::Waker => return self.wakings.add(seen.truncation, count.samples),
        };
        wholeness.add(seen.truncation, count.samples);
        if count.key.waker_id != 0 {
            let sum = self.woken.entry((seen.stack, seen.labels, count.key.waker_id)).or_default();
            *sum = [sum[0] + count.samples, sum[1].saturating_add(count.time_ns)];
            return;
        }
        self.add_values(seen.stack, seen.labels, columns, [count.samples, count.time_ns]);
    }

    /// Puts wakers above the blocks that they ended: from the block's leaf over the waker's to its
    /// root, which is where the cause lies.
    fn join_wakers(&mut self) {
        let separator = self.marker(WAKER_SEPARATOR);
        let unknown = self.marker("[waker not recorded]");
        for ((blocked, labels, waker), values) in std::mem::take(&mut self.woken) {
            let waker = self.wakers.get(&waker).map(|&stack| self.profile.stack(stack));
            let mut frames: Vec<LocationId> = waker.map_or_else(|| vec![unknown], Iterator::collect);
            frames.reverse();
            frames.push(separator);
            frames.extend(self.profile.stack(blocked));
            let stack = self.profile.intern_stack(&frames);
            self.add_values(stack, labels, BLOCKED, values);
        }
    }

    fn add_values(&mut self, stack: StackId, labels: LabelsId, columns: [&str; 2], values: [u64; 2]) {
        let types = &self.profile.sample_types;
        let mut all = vec![0; types.len()];
        for (column, value) in columns.iter().zip(values) {
            if let Some(at) = types.iter().position(|ty| ty.name == *column) {
                all[at] = saturate(value);
            }
        }
        self.profile.add(stack, labels, &all);
    }

    /// Takes what a thread did in all: the part of its time off the CPU that has no stack, and its
    /// exact time on it.
    pub fn thread(&mut self, time: &ThreadTime, comm: &Rc<str>) {
        self.threads += 1;
        let labels =
            self.labels([time.tgid, time.tid], [comm, &time.comm.as_str().into()], time.cgroups, None);
        let short = self.short.clone();
        for (marker, values) in [
            ("[runnable]", [time.preemptions, time.runnable_ns]),
            (&short, [time.blocks.saturating_sub(time.stacked), time.below_ns()]),
        ] {
            if values != [0, 0] {
                let stack = [self.marker(marker)];
                let stack = self.profile.intern_stack(&stack);
                self.add_values(stack, labels, BLOCKED, values);
            }
        }
        let stack = [self.marker("[thread]")];
        let stack = self.profile.intern_stack(&stack);
        let values = [time.on_cpu_ns, time.lifetime_ns];
        self.add_values(stack, labels, ["thread_cpu", "thread_lifetime"], values);
    }

    /// Threads multiply the number of samples, and are told apart only where their time is kept.
    fn labels(
        &mut self,
        [tgid, tid]: [u32; 2],
        names: [&Rc<str>; 2],
        cgroups: CgroupIds,
        moment: Option<Moment>,
    ) -> LabelsId {
        let [comm, thread_comm] = names;
        let number =
            |key: &str, id: u32| Label { key: key.into(), value: LabelValue::Num(id.into(), "".into()) };
        let text =
            |key: &str, value: &Rc<str>| Label { key: key.into(), value: LabelValue::Str(Rc::clone(value)) };
        let mut labels = vec![number("pid", tgid), text("comm", comm), text("thread_comm", thread_comm)];
        if !self.short.is_empty() {
            labels.insert(1, number("tid", tid));
        }
        let known = self.known.borrow();
        let group = known.groups.get(&cgroups).or_else(|| known.before.get(&cgroups));
        labels.extend(group.into_iter().flat_map(|group| group.iter()).cloned());
        labels.extend(known.fixed.iter().cloned());
        if let (Some(moment), Some(slot_ns)) = (moment, known.slot_ns) {
            // What a window before counted last may be a slot early.
            let slot = moment.slot.wrapping_sub(self.first_slot).cast_signed().max(0);
            let since = i64::from(slot).saturating_mul(saturate(slot_ns));
            labels
                .push(Label { key: TIME_LABEL.into(), value: LabelValue::Num(since, "nanoseconds".into()) });
            // As text: a reader takes the number 0 for no label.
            labels.extend(moment.cpu.map(|cpu| text(CPU_LABEL, &cpu.to_string().into())));
        }
        drop(known);
        self.profile.intern_labels(&labels)
    }

    /// The profile, addresses laid out, when all counts are in.
    pub fn finish(mut self, objects: &Objects, names: impl Fn(u32) -> String) -> Unsymbolized {
        let orphans: Vec<Count> = self.orphans.drain().map(|(_, count)| count).collect();
        for count in orphans {
            let comm: Rc<str> = names(count.key.tgid).into();
            let resolved = Resolved {
                frames: Vec::new(),
                truncation: Some(Truncation::NoFrames),
                is_stale: false,
                thread_comm: count.key.comm.to_string().into(),
                comm,
            };
            self.stack(u64::MAX, count.key, &resolved, objects);
            self.add(&count);
        }
        if !self.woken.is_empty() {
            self.join_wakers();
        }
        let object_of = self.mappings.iter().map(|(&object, &mapping)| (mapping, object)).collect();
        let mut unsymbolized = Unsymbolized {
            profile: self.profile,
            object_of,
            samples: self.samples,
            blocks: self.blocks,
            wakings: self.wakings,
            threads: self.threads,
        };
        unsymbolized.main_binary_first(objects);
        unsymbolized.lay_out(objects);
        unsymbolized
    }

    fn location(&mut self, location: Location, objects: &Objects) -> LocationId {
        if let Some(&known) = self.locations.get(&location) {
            return known;
        }
        let mappings = &mut self.profile.mappings;
        let mapping = (location.object != ObjectId::NONE).then(|| {
            *self.mappings.entry(location.object).or_insert_with(|| {
                let object = objects.get(location.object);
                let path = match object.source {
                    Source::Bpf { .. } => "[bpf]".to_owned(),
                    _ => object.path.clone(),
                };
                let build_id = object.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
                mappings.push(Mapping { path, build_id, ..Mapping::default() });
                MappingId::from(mappings.len() - 1)
            })
        });
        let id = LocationId::from(self.profile.locations.len());
        self.profile.locations.push(ProfileLocation {
            mapping,
            address: location.file_offset,
            lines: Vec::new(),
        });
        self.locations.insert(location, id);
        id
    }

    /// A frame that is no code.
    fn marker(&mut self, name: &str) -> LocationId {
        if let Some(&known) = self.markers.get(name) {
            return known;
        }
        let id = self.profile.marker(name);
        self.markers.insert(name.to_owned(), id);
        id
    }
}

fn saturate(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::event::Comm;
    use crate::model::profile::ValueType;

    fn key(stack: u64) -> CountKey {
        CountKey {
            tgid: 7,
            tid: 8,
            kind: Kind::OnCpu,
            process_state: 0,
            comm: Comm(*b"worker\0\0\0\0\0\0\0\0\0\0"),
            kernel_stack_id: 0,
            user_stack_id: stack,
            waker_id: 0,
            cgroups: CgroupIds::default(),
            moment: None,
        }
    }

    fn count(key: CountKey, samples: u64) -> Count {
        Count { key, samples, time_ns: samples * 10 }
    }

    fn resolved(address: u64, truncation: Option<Truncation>) -> Resolved {
        Resolved {
            frames: vec![Location { object: ObjectId::KERNEL, file_offset: address }],
            truncation,
            is_stale: false,
            comm: "process".into(),
            thread_comm: "worker".into(),
        }
    }

    fn tally() -> Tally {
        let types = [("samples", "count"), ("cpu", "nanoseconds"), ("off_cpu_events", "count")];
        let off = ("off_cpu", "nanoseconds");
        let types = types.into_iter().chain([off]).map(|(name, unit)| ValueType::new(name, unit)).collect();
        Tally::new(Profile::new(types), String::new(), Rc::default(), 0)
    }

    fn values(unsymbolized: &Unsymbolized) -> Vec<Vec<i64>> {
        unsymbolized.profile.samples().iter().map(|sample| sample.values.to_vec()).collect()
    }

    #[test]
    fn a_count_finds_its_stack_whichever_comes_first() {
        let objects = Objects::default();
        let mut tally = tally();
        tally.stack(5, key(1), &resolved(0x1000, None), &objects);
        tally.count(&[count(key(1), 3), count(key(2), 4)], 10);
        tally.stack(9, key(2), &resolved(0x2000, None), &objects);
        let unsymbolized = tally.finish(&objects, |_| "unused".to_owned());
        assert_eq!(values(&unsymbolized), [[3, 30, 0, 0], [4, 40, 0, 0]]);
        assert_eq!((unsymbolized.samples.complete, unsymbolized.samples.incomplete()), (7, 0));
    }

    #[test]
    fn a_count_whose_stack_never_comes_keeps_its_time_and_its_names() {
        let objects = Objects::default();
        let mut tally = tally();
        tally.count(&[count(key(1), 3)], 10);
        tally.count(&[count(key(1), 2)], 20);
        let unsymbolized = tally.finish(&objects, |tgid| format!("process {tgid}"));
        assert_eq!(values(&unsymbolized), [[5, 50, 0, 0]]);
        assert_eq!(unsymbolized.samples.incomplete, BTreeMap::from([(Truncation::NoFrames, 5)]));
        let labels = unsymbolized.profile.samples()[0].labels;
        assert_eq!(unsymbolized.profile.label(labels, "comm").as_deref(), Some("process 7"));
        assert_eq!(unsymbolized.profile.label(labels, "thread_comm").as_deref(), Some("worker"));
    }

    #[test]
    fn samples_count_as_what_their_stacks_are() {
        let objects = Objects::default();
        let mut tally = tally();
        tally.stack(5, key(1), &resolved(0x1000, Some(Truncation::Unmapped)), &objects);
        tally.stack(5, key(2), &resolved(0x1000, None), &objects);
        tally.count(&[count(key(1), 3), count(key(2), 4)], 10);
        let unsymbolized = tally.finish(&objects, |_| String::new());
        assert_eq!(unsymbolized.samples.complete, 4);
        assert_eq!(unsymbolized.samples.incomplete, BTreeMap::from([(Truncation::Unmapped, 3)]));
    }

    #[test]
    fn a_block_goes_below_the_stack_of_who_ended_it() {
        let objects = Objects::default();
        let mut tally = tally();
        let waker = CountKey { kind: Kind::Waker, waker_id: 99, ..key(1) };
        let block = CountKey { kind: Kind::OffCpu, waker_id: 99, ..key(2) };
        tally.stack(5, block, &resolved(0x2000, None), &objects);
        tally.stack(5, waker, &resolved(0x1000, None), &objects);
        tally.count(&[count(block, 1), count(waker, 1)], 10);
        let unsymbolized = tally.finish(&objects, |_| String::new());
        assert_eq!(values(&unsymbolized), [[0, 0, 1, 10]]);
        let stack: Vec<_> = unsymbolized.profile.stack(unsymbolized.profile.samples()[0].stack).collect();
        let address = |at: usize| unsymbolized.profile.location(stack[at]).address;
        assert_eq!((stack.len(), address(1), address(3)), (4, 0x1000, 0x2000), "waker's root first");
        assert_eq!((unsymbolized.blocks.complete, unsymbolized.wakings.complete), (1, 1));
    }
}
