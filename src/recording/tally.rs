//! Counts and stacks, put together into samples.
//!
//! The kernel counts by key; the frames of a key arrive once per drain interval, stamped with the
//! time, and are resolved in the state that the process had then. A drained count therefore finds
//! its stack among those of its own interval. If the ring was full the frames may come with a later
//! interval, or never: then the time is still told, under a frame that says why it has no other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::model::event::{CgroupIds, Count, CountKey, Kind, OUTSIDE, ThreadTime, Truncation};
use crate::model::objects::{ObjectId, Objects, Source};
use crate::model::profile::{
    LabelsId, Location as ProfileLocation, LocationId, Mapping, MappingId, Profile, StackId, WAKER_SEPARATOR,
    table_bytes,
};
use crate::model::snapshot::{Location, OTHER_NAMESPACE, Resolved};
use crate::model::unsymbolized::{Unsymbolized, Wholeness};
use crate::recording::budget::Pressure;
use crate::recording::labels::{Labels, Origin, called};

/// Sets of labels that are added when the budget is used up: names, some 300 bytes each.
const MOST_LATE_LABELS: usize = 4096;

/// In place of names beyond those.
const OTHERS: &str = "[others]";

/// Values of blocks.
const BLOCKED: [&str; 2] = ["off_cpu_events", "off_cpu"];

/// A stack that arrived, as the profile holds it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    time_ns: u64,
    stack: StackId,
    labels: LabelsId,
    truncation: Option<Truncation>,
    has_ids: bool,
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
    /// What is to be given up, as little room is left.
    pub pressure: Pressure,
    /// Samples and blocks whose process id was.
    without_ids: u64,
    /// Sets of labels that were added since nothing was left.
    late_labels: usize,
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

    /// Bytes that it holds, by the sizes of its tables.
    pub fn held_bytes(&self) -> u64 {
        self.profile.held_bytes()
            + table_bytes::<(Location, LocationId)>(self.locations.capacity())
            + table_bytes::<(CountKey, Seen)>(self.seen.capacity())
            + table_bytes::<(CountKey, Count)>(self.orphans.capacity())
            + table_bytes::<(u64, StackId)>(self.wakers.capacity())
            + table_bytes::<((StackId, LabelsId, u64), [u64; 2])>(self.woken.capacity())
    }

    /// Takes the resolved frames of a key, seen at `time_ns`.
    pub fn stack(&mut self, time_ns: u64, key: CountKey, resolved: &Resolved, objects: &Objects) {
        let origin = Origin {
            tgid: Some(key.tgid),
            tid: self.told_apart(key.tid),
            comm: &resolved.comm,
            thread_comm: &resolved.thread_comm,
            cgroups: key.cgroups,
            moment: key.moment,
        };
        let seen = self.counted_under(time_ns, &key, resolved, &origin, objects);
        if key.kind == Kind::Waker && seen.truncation != Some(Truncation::Budget) {
            self.wakers.insert(key.waker_id, seen.stack);
        }
        self.seen.insert(key, seen);
        if let Some(count) = self.orphans.remove(&key) {
            self.add(&count);
        }
    }

    /// What a key's counts are counted under, of all that there is room for the one that tells most.
    fn counted_under(
        &mut self,
        time_ns: u64,
        key: &CountKey,
        resolved: &Resolved,
        origin: &Origin,
        objects: &Objects,
    ) -> Seen {
        let truncation = resolved.truncation;
        let seen = |(stack, labels), has_ids| Seen { time_ns, stack, labels, truncation, has_ids };
        if self.pressure == Pressure::None {
            return seen(self.place(key, resolved, origin, objects), true);
        }
        if let Some(known) = self.known(key, resolved, origin) {
            return seen(known, true);
        }
        let origin = origin.without_ids();
        if self.pressure == Pressure::High {
            return seen(self.place(key, resolved, &origin, objects), false);
        }
        if let Some(known) = self.known(key, resolved, &origin) {
            return seen(known, false);
        }
        let frame = self.truncated(Truncation::Budget);
        let rest = (self.profile.intern_stack(&[frame]), self.labels(&origin));
        Seen { truncation: Some(Truncation::Budget), ..seen(rest, false) }
    }

    /// The stack and labels of a key, which are added if they are new.
    fn place(
        &mut self,
        key: &CountKey,
        resolved: &Resolved,
        origin: &Origin,
        objects: &Objects,
    ) -> (StackId, LabelsId) {
        let frames = self.frames(key, resolved, |tally, at| Some(tally.location(at, objects)));
        let stack = self.profile.intern_stack(&frames.unwrap_or_default());
        (stack, self.labels(origin))
    }

    /// The same, if something is counted under them already.
    fn known(&mut self, key: &CountKey, resolved: &Resolved, origin: &Origin) -> Option<(StackId, LabelsId)> {
        let labels = self.profile.find_labels(&self.known.borrow().of(origin, self.first_slot))?;
        if key.kind == Kind::Waker {
            return Some((*self.wakers.get(&key.waker_id)?, labels));
        }
        let frames = self.frames(key, resolved, |tally, at| tally.locations.get(&at).copied())?;
        let stack = self.profile.find_stack(&frames)?;
        let is_woken = self.woken.contains_key(&(stack, labels, key.waker_id));
        (is_woken || self.profile.has_sample(stack, labels)).then_some((stack, labels))
    }

    /// The frames of a stack, if all their places are found.
    fn frames(
        &mut self,
        key: &CountKey,
        resolved: &Resolved,
        find: impl Fn(&mut Self, Location) -> Option<LocationId>,
    ) -> Option<Vec<LocationId>> {
        let mut frames =
            resolved.frames.iter().map(|&at| find(self, at)).collect::<Option<Vec<LocationId>>>()?;
        if let Some(truncation) = resolved.truncation {
            frames.push(self.truncated(truncation));
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
            frames.push(self.marker(called(&resolved.thread_comm)));
        }
        Some(frames)
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
        self.without_ids += if seen.has_ids { 0 } else { count.samples };
        if count.key.waker_id != 0 {
            let mut woken = (seen.stack, seen.labels, count.key.waker_id);
            if self.pressure == Pressure::Full && !self.woken.contains_key(&woken) {
                woken.2 = 0; // of whom nothing is known
            }
            let sum = self.woken.entry(woken).or_default();
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
        let thread_comm: Rc<str> = time.comm.as_str().into();
        let origin = Origin {
            tgid: Some(time.tgid),
            tid: self.told_apart(time.tid),
            comm,
            thread_comm: &thread_comm,
            cgroups: time.cgroups,
            moment: None,
        };
        let labels = match self.pressure {
            Pressure::None => self.labels(&origin),
            _ => self.labels(&origin.without_ids()),
        };
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
    fn told_apart(&self, tid: u32) -> Option<u32> {
        (!self.short.is_empty()).then_some(tid)
    }

    /// Labels, which are added if they are new and there is room.
    fn labels(&mut self, origin: &Origin) -> LabelsId {
        let labels = self.known.borrow().of(origin, self.first_slot);
        if self.pressure < Pressure::Full {
            return self.profile.intern_labels(&labels);
        }
        if let Some(known) = self.profile.find_labels(&labels) {
            return known;
        }
        if self.late_labels < MOST_LATE_LABELS {
            self.late_labels += 1;
            return self.profile.intern_labels(&labels);
        }
        let others: Rc<str> = OTHERS.into();
        let origin = Origin { comm: &others, thread_comm: &others, cgroups: CgroupIds::default(), ..*origin };
        let labels = self.known.borrow().of(&origin, self.first_slot);
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
            without_ids: self.without_ids,
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

    /// The frame where a stack is cut.
    fn truncated(&mut self, why: Truncation) -> LocationId {
        self.marker(&format!("[truncated: {}]", why.reason()))
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
mod tests;
