//! Processes over time: which object an address belonged to when it was sampled.
//!
//! Events are applied in time order, as far as that is known. Each keeps the model at the state that
//! the machine had then, so that a stack's addresses become [`Location`]s on arrival and a process
//! that execs, unloads a library or exits a moment later does not take its names along.
//!
//! What comes late is told to the stacks that were resolved without it: see [`Change`].
//!
//! Not everything has an event: mremap has none, nor has what another process does that shares the
//! address space, and the kernel may have had no room for a record. A sampled address that nothing
//! holds shows it, and [`Event::Maps`] heals it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use crate::model::compiled::Found;
use crate::model::event::{Event, Ksymbol, Mmap, Stack, Truncation};
use crate::model::objects::{JitSlot, ObjectId, Objects, Root};
use crate::model::process::Process;
use crate::model::regions::{self, Region, Regions};
use crate::model::scripts::{Frame, Runtime};
use crate::model::snapshot::{self, Change, Location, Resolved, Snapshot, What};

/// Every process that lives, and those whose last counts are not in yet.
#[derive(Debug)]
pub struct Processes {
    processes: HashMap<u32, Process>,
    /// BPF programs by address.
    bpf: BTreeMap<u64, (u64, ObjectId)>,
    exited: Vec<(u32, u64)>,
    /// False: only processes that were announced by [`Self::follow`] or forked by one of them.
    everything: bool,
    peak: usize,
    /// Time of the newest fork.
    forked_ns: u64,
    /// Processes whose executable memory is not what it was when [`Self::take_changed`] was called.
    changed: HashSet<u32>,
}

impl Processes {
    /// An empty machine. With `everything` false, only followed processes are modelled.
    pub fn new(everything: bool) -> Self {
        Self {
            processes: HashMap::new(),
            bpf: BTreeMap::new(),
            exited: Vec::new(),
            everything,
            peak: 0,
            forked_ns: 0,
            changed: HashSet::new(),
        }
    }

    /// Models this process and its children although not everything is modelled.
    pub fn follow(&mut self, tgid: u32) {
        self.processes.entry(tgid).or_insert_with(|| Process::unknown(tgid)).followed = true;
    }

    /// Models a process that the kernel has taken for one of ours: the record of its birth was lost.
    pub fn adopt(&mut self, tgid: u32) {
        if !self.everything && !self.processes.contains_key(&tgid) {
            self.follow(tgid);
            self.changed.insert(tgid);
        }
    }

    /// Largest number of processes that were held at once.
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// Applies an event that is not a stack. Says what that changes for stacks of the time since.
    pub fn apply(&mut self, time_ns: u64, event: Event, objects: &mut Objects) -> Vec<Change> {
        let mut changes = Vec::new();
        match event {
            Event::Fork { tgid, tid, parent_tgid, parent_tid } if tgid == parent_tgid => {
                if let Some(process) = self.process(tgid, objects) {
                    let name = process.threads.get(&parent_tid).unwrap_or(&process.comm);
                    let comm = Rc::clone(&name.comm);
                    process.rename(tid, comm, time_ns);
                }
            }
            Event::Fork { tgid, tid, parent_tgid, parent_tid } => {
                changes.extend(self.fork(time_ns, [tgid, tid], [parent_tgid, parent_tid]));
            }
            Event::Comm { tgid, tid, comm, exec } => {
                if exec {
                    let what = What::Executed { at_ns: time_ns };
                    self.change(Change { tgid, since_ns: time_ns, what }, objects, &mut changes);
                }
                let Some(process) = self.process(tgid, objects) else { return changes };
                if process.begin_ns() <= time_ns {
                    process.rename(tid, comm.into(), time_ns);
                    if tid == tgid || exec {
                        process.name_by(tid);
                    }
                }
            }
            Event::Exit { tgid, tid } => self.exit(time_ns, tgid, tid, objects),
            Event::Mmap(mmap) => {
                let Some(process) = self.process(mmap.tgid, objects) else { return changes };
                // Asking /proc takes longer than all the rest, and most files are known.
                if !process.root_is_known && !objects.knows(time_ns, &mmap) {
                    process.root = objects.root_of(mmap.tgid).unwrap_or_else(|| process.root.clone());
                    process.root_is_known = true;
                }
                let (object, file_offset) = process.held(time_ns, &mmap, objects);
                let tgid = mmap.tgid;
                let Range { start, end } = mmap.range;
                let (since_ns, seen_ns) = (time_ns, time_ns);
                let region = Region { end, file_offset, object, since_ns, seen_ns };
                let what = What::Mapped { start, region };
                self.change(Change { tgid, since_ns, what }, objects, &mut changes);
            }
            Event::Maps { tgid, mmaps } => changes.extend(self.reread(time_ns, tgid, &mmaps, objects)),
            Event::Ksymbol(symbol) => self.ksymbol(&symbol, objects),
            Event::Joined { tgid } => self.adopt(tgid),
            Event::Stack(_) | Event::Dump(_) | Event::Thread(_) | Event::Cgroup { .. } | Event::Code(..) => {
                debug_assert!(false, "what was measured is resolved, not applied");
            }
        }
        self.peak = self.peak.max(self.processes.len());
        changes
    }

    fn process(&mut self, tgid: u32, objects: &mut Objects) -> Option<&mut Process> {
        if self.everything && !self.processes.contains_key(&tgid) {
            let mut process = Process::unknown(tgid);
            if let Some(root) = objects.root_of(tgid) {
                (process.root, process.root_is_known) = (root, true);
            }
            self.processes.insert(tgid, process);
        }
        self.processes.get_mut(&tgid)
    }

    fn fork(&mut self, time_ns: u64, child: [u32; 2], parent: [u32; 2]) -> Option<Change> {
        let ([tgid, tid], [parent_tgid, parent_tid]) = (child, parent);
        let known = self.processes.get(&tgid);
        if known.is_some_and(|known| known.forked_ns >= time_ns) {
            return None; // the id has been given away since, or this is told twice
        }
        self.forked_ns = self.forked_ns.max(time_ns);
        let mut child = match self.processes.get(&parent_tgid) {
            Some(parent) => parent.child(time_ns, [tgid, tid], [parent_tgid, parent_tid]),
            None if self.everything => Process { forked_ns: time_ns, ..Process::unknown(tgid) },
            None => {
                // Not one of ours: if its id was, that process is gone.
                self.processes.remove(&tgid);
                self.changed.insert(tgid);
                return None;
            }
        };
        let inherited = Rc::clone(&child.regions);
        if let Some(known) = self.processes.remove(&tgid) {
            child.take_newer(known);
        }
        self.processes.insert(tgid, child);
        self.changed.insert(tgid);
        Some(Change { tgid, since_ns: time_ns, what: What::Forked(inherited) })
    }

    /// Changes the memory of a process, and of its children if that had happened when they were forked.
    /// It may have been another process's, or another program's, that had the id then.
    fn change(&mut self, change: Change, objects: &mut Objects, changes: &mut Vec<Change>) {
        let Some(process) = self.process(change.tgid, objects) else { return };
        let at_ns = change.happened_ns();
        let begin_ns = process.begin_ns();
        if begin_ns <= change.since_ns && process.change(&change) {
            self.changed.insert(change.tgid);
        }
        if at_ns < self.forked_ns {
            let end_ns = if begin_ns > at_ns && begin_ns > change.since_ns { begin_ns } else { u64::MAX };
            let forked_later = self.processes.iter().filter(|(tgid, child)| {
                child.parent == Some(change.tgid)
                    && (at_ns..end_ns).contains(&child.forked_ns)
                    && child.forked_ns >= change.since_ns
                    && **tgid != change.tgid
            });
            let children: Vec<(u32, u64)> =
                forked_later.map(|(&tgid, child)| (tgid, child.forked_ns)).collect();
            for (tgid, since_ns) in children {
                self.change(Change { tgid, since_ns, ..change.clone() }, objects, changes);
            }
        }
        changes.push(change);
    }

    fn exit(&mut self, time_ns: u64, tgid: u32, tid: u32, objects: &mut Objects) {
        let Some(process) = self.processes.get_mut(&tgid) else { return };
        if process.forked_ns > time_ns {
            return; // the id had another owner then
        }
        // The first thread can exit before the others do, and gives the process its name.
        process.first_exited |= tid == tgid;
        let others = !process.first_exited
            || process
                .threads
                .iter()
                .any(|(&other, name)| other != tgid && (other != tid || name.since_ns > time_ns));
        if others && tid != tgid {
            if process.threads.get(&tid).is_some_and(|name| name.since_ns <= time_ns) {
                process.threads.remove(&tid);
            }
        } else if !others {
            process.exited_ns = Some(time_ns);
            // Some runtimes write their list now.
            objects.find_perf_map(&process.jit, &process.root);
            self.exited.push((tgid, time_ns));
            self.changed.insert(tgid);
        }
    }

    /// Replaces what is known of a process's memory by what `/proc` shows of it.
    fn reread(&mut self, time_ns: u64, tgid: u32, mmaps: &[Mmap], objects: &mut Objects) -> Option<Change> {
        let process = self.process(tgid, objects)?;
        let since_ns = process.begin_ns();
        let known = Rc::clone(&process.regions);
        let mut shown = Rc::<Regions>::default();
        if !mmaps.is_empty() && since_ns <= time_ns {
            if !process.root_is_known {
                process.root = objects.root_of(tgid).unwrap_or_else(|| process.root.clone());
                process.root_is_known = true;
            }
            let mut now = Regions::new();
            for mmap in mmaps {
                let (object, file_offset) = process.held(time_ns, mmap, objects);
                let Range { start, end } = mmap.range;
                let (since_ns, seen_ns) = (time_ns, time_ns);
                let mut region = Region { end, file_offset, object, since_ns, seen_ns };
                if let Some((at, told)) = regions::holding(&known, start)
                    && told.object == object
                    && told.file_offset.wrapping_add(start - at) == file_offset
                {
                    region.since_ns = told.since_ns;
                }
                regions::map(&mut now, start, &region);
            }
            for (&start, region) in known.iter().filter(|(_, region)| region.seen_ns > time_ns) {
                regions::map(&mut now, start, region);
            }
            shown = Rc::new(now);
            process.regions = Rc::clone(&shown);
            process.mapped_ns = process.mapped_ns.max(time_ns);
            if !regions::are_alike(&shown, &known) {
                self.changed.insert(tgid);
            }
        }
        Some(Change { tgid, since_ns, what: What::Reread { shown, known } })
    }

    fn ksymbol(&mut self, symbol: &Ksymbol, objects: &mut Objects) {
        let Range { start, end } = symbol.range;
        if !symbol.registered {
            self.bpf.remove(&start);
        } else if self.bpf.get(&start).is_none_or(|(_, known)| objects.get(*known).path != symbol.name) {
            self.bpf.insert(start, (end, objects.bpf(&symbol.name, start, end)));
        }
    }

    /// Processes whose executable memory has changed since the last call.
    pub fn take_changed(&mut self) -> HashSet<u32> {
        std::mem::take(&mut self.changed)
    }

    /// Executable memory of a process.
    pub fn regions(&self, tgid: u32) -> Option<&Rc<Regions>> {
        self.processes
            .get(&tgid)
            .filter(|process| process.exited_ns.is_none())
            .map(|process| &process.regions)
    }

    /// Processes that are modelled.
    pub fn tgids(&self) -> impl Iterator<Item = u32> {
        self.processes.keys().copied()
    }

    /// Objects that some process has mapped; more than once where several have.
    pub fn mapped_objects(&self) -> impl Iterator<Item = ObjectId> {
        self.processes.values().flat_map(|process| process.regions.values().map(|region| region.object))
    }

    /// Objects that may be sampled, as far as can be told now.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> {
        let of_processes = self.processes.values().flat_map(|process| {
            let regions = process.regions.values().chain(process.replaced.values());
            regions.map(|region| region.object).chain(process.jit.objects())
        });
        of_processes.chain(self.bpf.values().map(|(_, object)| *object))
    }

    /// Name of a process, as far as it is known.
    pub fn comm(&self, tgid: u32) -> String {
        self.processes
            .get(&tgid)
            .map_or_else(|| "[unknown]".to_owned(), |process| process.comm.comm.to_string())
    }

    /// Whether a process is modelled and has not exited.
    pub fn lives(&self, tgid: u32) -> bool {
        self.processes.get(&tgid).is_some_and(|process| process.exited_ns.is_none())
    }

    /// Modelled processes that were asked for and have not exited.
    pub fn living(&self) -> impl Iterator<Item = u32> {
        let lives = |process: &Process| process.followed && process.exited_ns.is_none();
        self.processes.iter().filter(move |(_, process)| lives(process)).map(|(&tgid, _)| tgid)
    }

    /// A process as it is now, at `time_ns`.
    pub fn snapshot(&self, time_ns: u64, tgid: u32) -> Snapshot {
        let process = self.processes.get(&tgid);
        Snapshot {
            time_ns,
            since_ns: process.map_or(0, Process::begin_ns),
            tgid,
            comm: process.map(|process| Rc::clone(&process.comm.comm)),
            regions: process.map(|process| Rc::clone(&process.regions)).unwrap_or_default(),
            replaced: process.map(|process| Rc::clone(&process.replaced)).unwrap_or_default(),
            jit: process.map_or_else(|| JitSlot::new(tgid, None), |process| Rc::clone(&process.jit)),
            root: process.map_or(Root::OURS, |process| process.root.clone()),
        }
    }

    /// Locations of a stack's frames, and whose it is, in the state that its process had then.
    pub fn resolve(&self, then: &Snapshot, stack: &Stack, objects: &mut Objects) -> Resolved {
        let mut frames = Vec::with_capacity(stack.kernel.len() + stack.user.len());
        for (depth, &addr) in stack.kernel.iter().enumerate() {
            frames.push(self.kernel_location(addr.wrapping_sub(u64::from(depth > 0))));
        }
        let mut truncation = stack.truncation;
        let mut is_stale = truncation == Some(Truncation::ReturnAddress);
        let mut scripts = stack.scripts.iter().peekable();
        let mut leaf_is_32_bit = None;
        let mut push_scripts = |frames: &mut Vec<Location>, depth: usize, objects: &mut Objects| {
            while let Some((_, frame)) = scripts.next_if(|(before, _)| *before == depth) {
                let object = ObjectId::of_scripts(frame.runtime());
                frames.push(Location { object, file_offset: objects.scripts.number(*frame) });
            }
        };
        for (depth, &addr) in stack.user.iter().enumerate() {
            push_scripts(&mut frames, depth, objects);
            // Return addresses point behind the call, a leaf's own address at its instruction.
            let addr = if depth > 0 { addr.wrapping_sub(1) } else { addr };
            match then.location(addr) {
                Some(location) if location.object == ObjectId::MEMORY => {
                    let found = objects.compiled.find(then.tgid(), addr, then.time_ns);
                    let is_other = matches!(found, Some(Err(_)));
                    frames.push(found.map_or(location, |found| compiled(found, objects)));
                    if is_other {
                        // What lies above was found by the frame of what was there before.
                        truncation = truncation.or(Some(Truncation::NoTable));
                        break;
                    }
                }
                Some(location) => {
                    let is_32_bit = objects.get(location.object).is_32_bit();
                    if is_32_bit.is_some() && leaf_is_32_bit.is_some_and(|leaf| Some(leaf) != is_32_bit) {
                        // What a walk by words of the leaf's size finds from here on are no callers.
                        truncation = Some(Truncation::Bits32);
                        break;
                    }
                    leaf_is_32_bit = leaf_is_32_bit.or(is_32_bit);
                    frames.push(location);
                }
                // In the midst of exec the registers still are those of the program that is gone.
                None if depth == 0
                    && !stack.kernel.is_empty()
                    && regions::holding(&then.replaced, addr).is_some() =>
                {
                    truncation = stack.truncation.filter(|why| why.is_in_kernel());
                    break;
                }
                None if depth == 0 => {
                    frames.push(Location { object: ObjectId::NONE, file_offset: addr });
                    truncation = truncation.or(Some(Truncation::Unmapped));
                    is_stale = true;
                }
                None => {
                    // What lies here is data that was taken for a frame: so is all above it.
                    truncation = Some(Truncation::ReturnAddress);
                    is_stale = true;
                    break;
                }
            }
        }
        push_scripts(&mut frames, stack.user.len(), objects);
        for frame in &mut frames {
            if frame.object == ObjectId::MEMORY {
                frame.object = objects.jit(&then.jit, &then.root);
            }
            objects.sampled(frame.object);
        }
        let (comm, thread_comm) = snapshot::names(then, stack);
        Resolved { frames, truncation, is_stale, comm, thread_comm }
    }

    fn kernel_location(&self, addr: u64) -> Location {
        let object = match self.bpf.range(..=addr).next_back() {
            Some((_, &(end, object))) if addr < end => object,
            _ => ObjectId::KERNEL,
        };
        Location { object, file_offset: addr }
    }

    /// Looks for the perf maps of all processes once more, at the end.
    pub fn find_perf_maps(&self, objects: &mut Objects) {
        for process in self.processes.values() {
            objects.find_perf_map(&process.jit, &process.root);
        }
    }

    /// Forgets processes that exited before `time_ns`, when all counts up to then are in.
    pub fn forget_exited(&mut self, time_ns: u64) {
        let Self { processes, exited, .. } = self;
        exited.retain(|&(tgid, exited_ns)| {
            if exited_ns >= time_ns {
                return true;
            }
            // The id may have been given to another process since.
            if processes.get(&tgid).is_some_and(|process| process.exited_ns == Some(exited_ns)) {
                processes.remove(&tgid);
            }
            false
        });
    }
}

/// A place in code that a runtime has compiled and tells of.
fn compiled(found: Found, objects: &mut Objects) -> Location {
    let file_offset = match found {
        Ok((key, name)) => objects.scripts.place(key, name.as_ref()),
        Err(missing) => objects.scripts.number(Frame::Missing(Runtime::Java, missing)),
    };
    Location { object: ObjectId::of_scripts(Runtime::Java), file_offset }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{CgroupIds, Comm, CountKey, FileId, Kind};

    /// Ids that no process has.
    const ID: u32 = 4_100_000_000;
    const CHILD: u32 = 4_100_000_001;

    fn mmap(tgid: u32, start: u64, file: u64) -> Event {
        Event::Mmap(Mmap {
            tgid,
            range: start..start + 0x1000,
            file_offset: 0,
            file: FileId::Inode { device: u64::MAX, inode: file, generation: 0 },
            path: format!("/no/such/file/{file}"),
        })
    }

    fn comm(tid: u32, name: &str, exec: bool) -> Event {
        Event::Comm { tgid: ID, tid, comm: name.to_owned(), exec }
    }

    fn fork(tid: u32) -> Event {
        Event::Fork { tgid: CHILD, tid: CHILD, parent_tgid: ID, parent_tid: tid }
    }

    struct Machine(Processes, Objects);

    impl Machine {
        fn after(events: impl IntoIterator<Item = (u64, Event)>) -> Self {
            let mut machine = Self(Processes::new(true), Objects::default());
            for (time_ns, event) in events {
                machine.0.apply(time_ns, event, &mut machine.1);
            }
            machine
        }

        fn resolve(&mut self, tgid: u32, tid: u32, name: &str, kernel: &[u64], user: &[u64]) -> Resolved {
            let mut thread = Comm::default();
            thread.0[..name.len()].copy_from_slice(name.as_bytes());
            let key = CountKey {
                tgid,
                tid,
                kind: Kind::OnCpu,
                process_state: 0,
                comm: thread,
                kernel_stack_id: 0,
                user_stack_id: 0,
                waker_id: 0,
                cgroups: CgroupIds::default(),
                moment: None,
            };
            let (kernel, user) = (kernel.to_vec(), user.to_vec());
            let stack = Stack { key, truncation: None, kernel, user, scripts: Vec::new() };
            let then = self.0.snapshot(u64::MAX, tgid);
            self.0.resolve(&then, &stack, &mut self.1)
        }

        fn path(&mut self, tgid: u32, addr: u64) -> String {
            let object = self.resolve(tgid, tgid, "", &[], &[addr]).frames[0].object;
            self.1.get(object).path.clone()
        }
    }

    #[test]
    fn a_child_has_the_name_of_the_thread_that_forked_it() {
        let pool = [(1, comm(ID, "server", true)), (2, comm(ID + 9, "pool", false)), (3, fork(ID + 9))];
        let machine = Machine::after(pool);
        assert_eq!((machine.0.comm(ID), machine.0.comm(CHILD)), ("server".into(), "pool".into()));
    }

    #[test]
    fn the_first_threads_name_is_the_processs_at_the_sample() {
        let mut machine = Machine::after([(1, comm(ID, "before", true))]);
        let first = machine.resolve(ID, ID, "now", &[0xffff], &[]);
        assert_eq!((&*first.comm, &*first.thread_comm), ("now", "now"));
        let other = machine.resolve(ID, ID + 1, "worker", &[0xffff], &[]);
        assert_eq!((&*other.comm, &*other.thread_comm), ("before", "worker"));
    }

    #[test]
    fn a_process_that_gets_an_id_has_nothing_of_the_one_before() {
        let history = [(1, mmap(CHILD, 0x1000, 1)), (2, mmap(ID, 0x5000, 2)), (3, fork(ID))];
        let mut machine = Machine::after(history);
        assert_eq!(machine.path(CHILD, 0x5000), "/no/such/file/2");
        assert_eq!(machine.path(CHILD, 0x1000), "[unmapped]");
        // Nor does what is told late of that one reach it.
        let late = [(0, mmap(CHILD, 0x9000, 3)), (1, Event::Exit { tgid: CHILD, tid: CHILD })];
        for (time_ns, event) in late {
            machine.0.apply(time_ns, event, &mut machine.1);
        }
        assert_eq!(machine.path(CHILD, 0x9000), "[unmapped]");
        assert!(machine.0.lives(CHILD));
    }

    #[test]
    fn code_that_nothing_holds_is_never_whole() {
        let mut machine = Machine::after([(1, mmap(ID, 0x1000, 1))]);
        for kernel in [&[][..], &[0xffff_ffff_8100_0000]] {
            let resolved = machine.resolve(ID, ID, "", kernel, &[0x9000]);
            assert_eq!(resolved.truncation, Some(Truncation::Unmapped));
            assert!(resolved.is_stale);
        }
        let resolved = machine.resolve(ID, ID, "", &[], &[0x1000, 0x9001]);
        assert_eq!((resolved.frames.len(), resolved.truncation), (1, Some(Truncation::ReturnAddress)));
    }

    /// The registers are still those of the program that is replaced.
    #[test]
    fn in_the_midst_of_exec_there_is_no_user_stack() {
        let history = [(1, mmap(ID, 0x1000, 1)), (2, comm(ID, "next", true))];
        let mut machine = Machine::after(history);
        let resolved = machine.resolve(ID, ID, "", &[0xffff_ffff_8100_0000], &[0x1000]);
        assert_eq!((resolved.frames.len(), resolved.truncation, resolved.is_stale), (1, None, false));
    }

    #[test]
    fn what_proc_shows_replaces_what_was_told_before() {
        let shown = |start, file| match mmap(ID, start, file) {
            Event::Mmap(mmap) => Event::Maps { tgid: ID, mmaps: vec![mmap] },
            _ => unreachable!(),
        };
        let history = [(1, mmap(ID, 0x1000, 1)), (9, mmap(ID, 0x3000, 3)), (5, shown(0x2000, 2))];
        let mut machine = Machine::after(history);
        assert_eq!(machine.path(ID, 0x1000), "[unmapped]");
        assert_eq!(machine.path(ID, 0x2000), "/no/such/file/2");
        assert_eq!(machine.path(ID, 0x3000), "/no/such/file/3", "told of the time since");
        // Nothing could be read: the process is gone.
        machine.0.apply(10, Event::Maps { tgid: ID, mmaps: Vec::new() }, &mut machine.1);
        assert_eq!(machine.path(ID, 0x2000), "/no/such/file/2");
    }

    #[test]
    fn an_unfollowed_process_takes_the_id_of_a_followed_one_away() {
        let mut processes = Processes::new(false);
        processes.follow(CHILD);
        processes.apply(3, fork(ID), &mut Objects::default());
        assert_eq!((processes.living().count(), processes.lives(CHILD)), (0, false));
    }
}
