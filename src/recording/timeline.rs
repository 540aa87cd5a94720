//! Events of several rings, in the order of time, applied to the model of the machine.
//!
//! Each CPU has rings of its own, so what is read from them is ordered only within each. All rings
//! are read one after the other, what they held is sorted, and what is older than that look is
//! applied: at once, since a process may be gone in 3 ms, and its files with it.
//!
//! That is nearly the order of time. A CPU that is kept from running between taking the time of a
//! record and committing it, as a hypervisor may do, commits late. So a stack is resolved when it
//! comes, but kept for `PATIENCE_NS`, together with what its process was then: an event from before
//! it that comes in that time is told to the stack too.
//!
//! And not all that happens is told. A stack with an address that no mapping holds waits for
//! `/proc` to be read again, which whoever owns this does for [`Timeline::stale`] processes, not more
//! often than helps. What was read then goes to the stack, unless its process has executed another
//! program since, or has been told to have mapped something else there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use crate::model::event::{Count, Dump, Event, Stack, Timed};
use crate::model::objects::{ObjectId, Objects};
use crate::model::processes::Processes;
use crate::model::snapshot::{Change, Resolved, Snapshot};
use crate::model::unsymbolized::Unsymbolized;
use crate::recording::containers::Containers;
use crate::recording::tallies::{Tallies, WindowId};

/// How late an event may come and still reach the stacks that were seen after it.
const PATIENCE_NS: u64 = 100_000_000;
/// How long a stack waits for maps to be read.
const LONGEST_WAIT_NS: u64 = 2_000_000_000;
/// After so long all that belongs to a time is in.
pub const SETTLED_NS: u64 = LONGEST_WAIT_NS + 2 * PATIENCE_NS;
/// Stacks that wait for that, of up to 17 KiB each.
const MOST_WAITING: usize = 1024;
/// Between two readings of one process's maps: four times as long after each that did not help.
const FIRST_REST_NS: u64 = 10_000_000;
const LONGEST_REST_NS: u64 = 10_000_000_000;

/// Walks a stack that came as memory by the mappings that its process had then. `None` if it has to
/// wait for a table, and will come as [`Timeline::late`].
pub trait Unwind: FnMut(u64, &Rc<Dump>, &Snapshot, &Objects) -> Option<Stack> {}
impl<F: FnMut(u64, &Rc<Dump>, &Snapshot, &Objects) -> Option<Stack>> Unwind for F {}

/// A stack that an event may still come for.
#[derive(Debug)]
struct Held {
    time_ns: u64,
    then: Snapshot,
    stack: Stack,
    /// What it was walked from, if it is to be walked again.
    dump: Option<Rc<Dump>>,
    resolved: Resolved,
}

/// What was read of a process, until all that was told before is in.
#[derive(Debug)]
struct Read {
    time_ns: u64,
    tgid: u32,
    change: Option<Change>,
}

/// When a process's maps are read again.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Not before.
    next_ns: u64,
    rest_ns: u64,
    /// Asked for, or in the inbox.
    is_under_way: bool,
}

/// What reading maps again has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rereads {
    /// Times that maps of a process were read.
    pub maps: u64,
    /// Stacks that were resolved by them.
    pub stacks: u64,
}

/// The machine over time, and what was sampled on it.
#[derive(Debug)]
pub struct Timeline {
    /// Processes that live now.
    pub processes: Processes,
    /// What their code lies in.
    pub objects: Objects,
    /// What was sampled so far.
    pub tally: Tallies,
    /// What was read from `/proc` again.
    pub rereads: Rereads,
    waiting: Vec<Timed>,
    /// Of all events so far.
    newest_ns: u64,
    held: VecDeque<Held>,
    /// Those of which an address is in no mapping.
    stale: Vec<Held>,
    readings: HashMap<u32, Reading>,
    done: VecDeque<Read>,
}

impl Timeline {
    /// Starts with the processes that are modelled and an empty tally.
    pub fn new(processes: Processes, tally: Tallies) -> Self {
        Self {
            processes,
            objects: Objects::default(),
            tally,
            rereads: Rereads::default(),
            waiting: Vec::new(),
            newest_ns: 0,
            held: VecDeque::new(),
            stale: Vec::new(),
            readings: HashMap::new(),
            done: VecDeque::new(),
        }
    }

    /// Where new events are appended, in any order.
    pub fn inbox(&mut self) -> &mut Vec<Timed> {
        &mut self.waiting
    }

    /// Has labels for the cgroups of what came.
    pub fn look_at_cgroups(&mut self, containers: &mut Containers) {
        let Self { waiting, tally, .. } = self;
        tally.with_groups(|groups| containers.look(waiting, groups));
    }

    /// Processes that have come to the recorded cgroup, and of which nothing is known.
    pub fn joined(&self) -> Vec<u32> {
        let joined = self.waiting.iter().filter_map(|timed| match timed.event {
            Event::Joined { tgid } => Some(tgid),
            _ => None,
        });
        joined.filter(|&tgid| !self.processes.lives(tgid)).collect()
    }

    /// Applies what happened up to `until_ns`; all rings must have been read since.
    pub fn advance(&mut self, until_ns: u64, mut unwind: impl Unwind) {
        // Stable: one CPU's events of one instant keep their order.
        self.waiting.sort_by_key(|event| event.time_ns);
        let ready = self.waiting.partition_point(|event| event.time_ns <= until_ns);
        let mut events = std::mem::take(&mut self.waiting);
        for Timed { time_ns, event } in events.drain(..ready) {
            self.newest_ns = self.newest_ns.max(time_ns);
            match event {
                Event::Dump(dump) => {
                    let then = self.processes.snapshot(time_ns, dump.key.tgid);
                    let dump = Rc::new(dump);
                    if let Some(stack) = unwind(time_ns, &dump, &then, &self.objects) {
                        self.hold(time_ns, then, stack, Some(dump));
                    }
                }
                Event::Stack(stack) => {
                    let then = self.processes.snapshot(time_ns, stack.key.tgid);
                    self.hold(time_ns, then, stack, None);
                }
                Event::Code(key, code) => self.objects.scripts.learn(key, *code),
                Event::Thread(time) => {
                    let comm = self.processes.comm(time.tgid).into();
                    self.tally.thread(time_ns, &time, &comm);
                }
                event => {
                    let reread = if let Event::Maps { tgid, .. } = event { Some(tgid) } else { None };
                    let changes = self.processes.apply(time_ns, event, &mut self.objects);
                    match reread {
                        Some(tgid) => {
                            let change = changes.into_iter().next();
                            self.done.push_back(Read { time_ns, tgid, change });
                        }
                        None => self.tell(time_ns, &changes),
                    }
                }
            }
        }
        self.waiting = events;
        while let Some(read) = pop_if(&mut self.done, |read| read.time_ns + PATIENCE_NS <= until_ns) {
            self.heal(&read, &mut unwind);
        }
        self.release(until_ns);
    }

    /// Takes a stack of a process as it was then.
    pub fn late(&mut self, time_ns: u64, then: Snapshot, stack: Stack) {
        self.hold(time_ns, then, stack, None);
    }

    fn hold(&mut self, time_ns: u64, then: Snapshot, stack: Stack, dump: Option<Rc<Dump>>) {
        let resolved = self.processes.resolve(&then, &stack, &mut self.objects);
        let is_stale = resolved.is_stale && self.stale.len() < MOST_WAITING;
        let dump = dump.filter(|_| is_stale);
        let held = Held { time_ns, then, stack, dump, resolved };
        if is_stale {
            self.stale.push(held);
        } else {
            self.held.push_back(held);
        }
    }

    /// Lets changes reach the stacks that were seen after them, but came before.
    fn tell(&mut self, time_ns: u64, changes: &[Change]) {
        if time_ns >= self.newest_ns {
            return;
        }
        for change in changes {
            for read in self.done.iter_mut().filter(|read| read.time_ns >= time_ns) {
                if let Some(reread) = &mut read.change {
                    reread.revise(read.time_ns, change);
                }
            }
            for held in self.held.iter_mut().chain(&mut self.stale) {
                if held.then.amend(change) {
                    held.resolved = self.processes.resolve(&held.then, &held.stack, &mut self.objects);
                }
            }
        }
        // What seemed to be known may have been another process's.
        if let Some(first) = self.held.iter().position(|held| held.resolved.is_stale) {
            for held in self.held.split_off(first) {
                if held.resolved.is_stale && self.stale.len() < MOST_WAITING {
                    self.stale.push(held);
                } else {
                    self.held.push_back(held);
                }
            }
        }
    }

    /// Gives the stacks of a process that have waited for it what `/proc` showed.
    fn heal(&mut self, read: &Read, unwind: &mut impl Unwind) {
        let &Read { time_ns: read_ns, tgid, .. } = read;
        self.rereads.maps += u64::from(self.readings.contains_key(&tgid));
        let mut helped = false;
        for mut held in std::mem::take(&mut self.stale) {
            if held.then.tgid() != tgid || held.time_ns > read_ns {
                self.stale.push(held);
                continue;
            }
            if read.change.as_ref().is_some_and(|change| held.then.amend(change)) {
                if let Some(dump) = held.dump.take() {
                    match unwind(held.time_ns, &dump, &held.then, &self.objects) {
                        Some(stack) => held.stack = stack,
                        None => continue,
                    }
                }
                let resolved = self.processes.resolve(&held.then, &held.stack, &mut self.objects);
                let is_healed = !resolved.is_stale;
                self.rereads.stacks += u64::from(is_healed);
                helped |= is_healed;
                held.resolved = resolved;
            }
            self.give(held);
        }
        if let Some(reading) = self.readings.get_mut(&tgid) {
            reading.is_under_way = false;
            reading.rest_ns = if helped { FIRST_REST_NS } else { (reading.rest_ns * 4).min(LONGEST_REST_NS) };
            reading.next_ns = read_ns + reading.rest_ns;
        }
    }

    /// Processes whose maps are to be read again, by the thread that showed it: [`Event::Maps`] is
    /// expected of each.
    pub fn stale(&mut self, now_ns: u64) -> Vec<(u32, u32)> {
        let mut wanted = Vec::new();
        self.readings.retain(|_, reading| reading.is_under_way || reading.next_ns + LONGEST_REST_NS > now_ns);
        for held in &self.stale {
            let key = &held.stack.key;
            let reading = self.readings.entry(key.tgid).or_insert(Reading {
                next_ns: 0,
                rest_ns: FIRST_REST_NS,
                is_under_way: false,
            });
            if !reading.is_under_way && reading.next_ns <= now_ns {
                reading.is_under_way = true;
                wanted.push((key.tgid, key.tid));
            }
        }
        wanted
    }

    /// Hands over the stacks for which nothing can come any more.
    fn release(&mut self, until_ns: u64) {
        let is_over = |held: &Held| held.time_ns.saturating_add(PATIENCE_NS) <= until_ns;
        while let Some(held) = pop_if(&mut self.held, is_over) {
            self.give(held);
        }
        let given_up: Vec<Held> = {
            let is_over = |held: &mut Held| held.time_ns.saturating_add(LONGEST_WAIT_NS) <= until_ns;
            self.stale.extract_if(.., is_over).collect()
        };
        given_up.into_iter().for_each(|held| self.give(held));
    }

    fn give(&mut self, held: Held) {
        self.tally.stack(held.time_ns, held.stack.key, &held.resolved, &self.objects);
    }

    /// Takes the counts of the interval that ended at `end_ns`, when [`Self::advance`] has gone
    /// beyond it.
    pub fn count(&mut self, counts: &[Count], end_ns: u64) {
        self.tally.count(counts, end_ns);
        self.processes.forget_exited(end_ns);
    }

    /// Gives all stacks what has been read for them: nothing more will come.
    pub fn settle(&mut self, mut unwind: impl Unwind) {
        while let Some(read) = self.done.pop_front() {
            self.heal(&read, &mut unwind);
        }
    }

    /// The recording, when all counts are in.
    pub fn finish(mut self) -> (Unsymbolized, Objects) {
        self.release(u64::MAX);
        let finished = self.tally.first().and_then(|window| self.window(window)).unwrap_or_default();
        (finished, self.objects)
    }

    /// Takes out a window that has ended, and for which nothing can come any more.
    pub fn window(&mut self, window: WindowId) -> Option<Unsymbolized> {
        let Self { processes, objects, tally, .. } = self;
        processes.find_perf_maps(objects);
        tally.finish(window, objects, |tgid| processes.comm(tgid))
    }

    /// Whether stacks up to `time_ns` may still come, or wait for something.
    pub fn holds(&self, now_ns: u64, time_ns: u64) -> bool {
        let mut held = self.held.iter().chain(&self.stale);
        now_ns <= time_ns + PATIENCE_NS || held.any(|held| held.time_ns <= time_ns)
    }

    /// Closes the files of objects that no process maps and no stack lies in any more.
    pub fn forget_unused(&mut self) {
        let used = self.used();
        self.objects.keep_open(used);
        self.tally.forget_groups();
    }

    /// Closes deleted files that nobody maps and no sample fell into.
    pub fn forget_deleted(&mut self) {
        let used = self.used();
        self.objects.close_deleted(used);
    }

    fn used(&self) -> HashSet<ObjectId> {
        let held = self.held.iter().chain(&self.stale);
        let mut used: HashSet<ObjectId> =
            held.flat_map(|held| held.resolved.frames.iter().map(|frame| frame.object)).collect();
        used.extend(self.held.iter().chain(&self.stale).flat_map(|held| held.then.objects()));
        used.extend(self.processes.objects());
        used.extend(self.tally.objects());
        used
    }

    /// Hands over all stacks that are held: nothing more will come.
    pub fn release_all(&mut self) {
        self.release(u64::MAX);
    }
}

fn pop_if<T>(queue: &mut VecDeque<T>, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
    if is_wanted(queue.front()?) { queue.pop_front() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{CgroupIds, Comm, CountKey, FileId, Kind, Mmap, Truncation};
    use crate::model::profile::{Profile, ValueType};

    /// An id that no process has.
    const ID: u32 = 4_200_000_000;

    fn timeline() -> Timeline {
        let types = ["samples", "cpu"].map(|name| ValueType::new(name, "count")).to_vec();
        Timeline::new(Processes::new(true), Tallies::of_all(Profile::new(types), String::new()))
    }

    fn mmap(start: u64, file: u64) -> Mmap {
        Mmap {
            tgid: ID,
            range: start..start + 0x1000,
            file_offset: 0,
            file: FileId::Inode { device: u64::MAX, inode: file, generation: 0 },
            path: format!("/no/such/file/{file}"),
        }
    }

    fn key(stack: u64) -> CountKey {
        CountKey {
            tgid: ID,
            tid: ID,
            kind: Kind::OnCpu,
            process_state: 0,
            comm: Comm::default(),
            kernel_stack_id: 0,
            user_stack_id: stack,
            waker_id: 0,
            cgroups: CgroupIds::default(),
            moment: None,
        }
    }

    fn stack(time_ns: u64, addr: u64) -> Timed {
        let stack = Stack {
            key: key(addr),
            truncation: None,
            kernel: Vec::new(),
            user: vec![addr],
            scripts: Vec::new(),
        };
        Timed { time_ns, event: Event::Stack(stack) }
    }

    fn never(_: u64, _: &Rc<Dump>, _: &Snapshot, _: &Objects) -> Option<Stack> {
        None
    }

    /// Mappings of the leaves in the order of the samples, and how many are incomplete.
    fn finish(mut timeline: Timeline, addrs: &[u64]) -> (Vec<String>, u64) {
        timeline.settle(never);
        let counts: Vec<Count> =
            addrs.iter().map(|&addr| Count { key: key(addr), samples: 1, time_ns: 1 }).collect();
        timeline.tally.count(&counts, 0);
        let (finished, _) = timeline.finish();
        let profile = &finished.profile;
        let leaves = profile.samples().iter().map(|sample| {
            let leaf = profile.location(profile.stack(sample.stack).next().unwrap());
            leaf.mapping.map_or_else(|| "nowhere".to_owned(), |id| profile.mapping(id).path.clone())
        });
        (leaves.collect(), finished.samples.incomplete())
    }

    #[test]
    fn a_record_that_comes_late_reaches_the_stacks_since_and_no_other() {
        let mut timeline = timeline();
        let first = Timed { time_ns: 100, event: Event::Mmap(mmap(0x1000, 1)) };
        timeline.inbox().extend([first, stack(200, 0x1001), stack(400, 0x1002)]);
        timeline.advance(500, never);
        timeline.inbox().push(Timed { time_ns: 300, event: Event::Mmap(mmap(0x1000, 2)) });
        timeline.advance(600, never);
        let (leaves, _) = finish(timeline, &[0x1001, 0x1002]);
        assert_eq!(leaves, ["/no/such/file/1", "/no/such/file/2"]);
    }

    #[test]
    fn a_stack_whose_code_nothing_holds_waits_for_the_maps() {
        let mut timeline = timeline();
        timeline.inbox().push(stack(200, 0x1001));
        timeline.advance(300, never);
        assert_eq!(timeline.stale(300), [(ID, ID)]);
        assert_eq!(timeline.stale(300), [], "that is under way");
        let maps = Event::Maps { tgid: ID, mmaps: vec![mmap(0x1000, 1)] };
        timeline.inbox().push(Timed { time_ns: 310, event: maps });
        timeline.advance(400, never);
        timeline.advance(400 + PATIENCE_NS, never);
        assert_eq!(timeline.rereads, Rereads { maps: 1, stacks: 1 });
        assert_eq!(finish(timeline, &[0x1001]), (vec!["/no/such/file/1".to_owned()], 0));
    }

    #[test]
    fn maps_of_the_next_program_are_not_those_of_a_stack() {
        let mut timeline = timeline();
        timeline.inbox().push(stack(200, 0x1001));
        timeline.advance(300, never);
        timeline.stale(300);
        let exec = Event::Comm { tgid: ID, tid: ID, comm: "next".to_owned(), exec: true };
        let maps = Event::Maps { tgid: ID, mmaps: vec![mmap(0x1000, 1)] };
        timeline.inbox().extend([Timed { time_ns: 310, event: maps }, Timed { time_ns: 305, event: exec }]);
        timeline.advance(400, never);
        assert_eq!(finish(timeline, &[0x1001]), (vec!["nowhere".to_owned()], 1));
    }

    #[test]
    fn maps_that_do_not_help_are_read_more_and_more_seldom() {
        let mut timeline = timeline();
        let (mut now_ns, mut readings) = (0, Vec::new());
        while now_ns < 10_000_000_000 {
            now_ns += 5_000_000;
            timeline.inbox().push(stack(now_ns, now_ns));
            timeline.advance(now_ns, never);
            for _ in timeline.stale(now_ns) {
                readings.push(now_ns);
                timeline.inbox().push(Timed {
                    time_ns: now_ns,
                    event: Event::Maps { tgid: ID, mmaps: vec![mmap(1, 1)] },
                });
            }
        }
        assert!((4..12).contains(&readings.len()), "{readings:?}");
    }

    #[test]
    fn what_is_given_up_says_that_nothing_is_mapped_there() {
        let mut timeline = timeline();
        timeline.inbox().push(stack(200, 0x1001));
        timeline.advance(300, never);
        timeline.advance(300 + LONGEST_WAIT_NS, never);
        timeline.tally.count(&[Count { key: key(0x1001), samples: 1, time_ns: 1 }], 0);
        let (finished, _) = timeline.finish();
        assert_eq!(finished.samples.incomplete.get(&Truncation::Unmapped), Some(&1));
    }
}
