//! Address spaces over time: which object an address belonged to when it was sampled.
//!
//! Events are applied in time order. Each keeps the model at the state that the machine had then,
//! so that a stack's addresses become [`Location`]s on arrival and a process that execs, unloads a
//! library or exits a moment later does not take its names along.
//!
//! A process's mappings are shared with its parent from fork until one of them changes, so that
//! memory grows with the programs that run and not with the processes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use crate::model::event::{Event, Kind, Ksymbol, Stack, Truncation};
use crate::model::objects::{Held, ObjectId, Objects, Root};
use crate::model::remapped;

/// An address, independent of the process it was seen in.
///
/// For a caller it points into the call, one byte before the return address, since a call can be
/// the last instruction of a function or of an inlined one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// What it lies in.
    pub object: ObjectId,
    /// Offset in the object's file; the address itself where there is no file.
    pub file_offset: u64,
}

/// A stack, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Frames, leaf first: the kernel's, then the user's.
    pub frames: Vec<Location>,
    /// Why it is not whole, if it is not.
    pub truncation: Option<Truncation>,
    /// Name of the process, that is of its first thread.
    pub comm: Rc<str>,
    /// Name of the thread.
    pub thread_comm: Rc<str>,
}

/// A range of executable memory; its start is the key in [`Regions`].
#[derive(Clone, Debug)]
pub struct Region {
    /// First address behind it.
    pub end: u64,
    /// Offset of its start in the object's file.
    pub file_offset: u64,
    /// What is mapped.
    pub object: ObjectId,
}

/// The executable memory of a process, by address.
pub type Regions = BTreeMap<u64, Region>;

#[derive(Clone, Debug)]
struct Process {
    threads: HashMap<u32, Rc<str>>,
    comm: Rc<str>,
    regions: Rc<Regions>,
    /// Where its paths start; its parent's as long as it is not known.
    root: Root,
    root_is_known: bool,
    jit: Option<ObjectId>,
    first_exited: bool,
    exited_ns: Option<u64>,
    /// It was announced by [`Processes::follow`], or forked by one that was.
    followed: bool,
}

/// A process as it once was.
#[derive(Debug)]
pub struct Snapshot(Process);

impl Snapshot {
    /// Executable memory.
    pub fn regions(&self) -> &Regions {
        &self.0.regions
    }
}

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
            changed: HashSet::new(),
        }
    }

    /// Models this process and its children although not everything is modelled.
    pub fn follow(&mut self, tgid: u32) {
        self.processes.entry(tgid).or_insert_with(Process::unknown).followed = true;
    }

    /// Largest number of processes that were held at once.
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// Applies an event that is not a stack; times must not decrease.
    pub fn apply(&mut self, time_ns: u64, event: Event, objects: &mut Objects) {
        match event {
            Event::Fork { tgid, tid, parent_tgid, .. } => self.fork(tgid, tid, parent_tgid, objects),
            Event::Comm { tgid, tid, comm, exec } => {
                let Some(process) = self.process(tgid, objects) else { return };
                let comm: Rc<str> = comm.into();
                if exec {
                    process.regions = Rc::default();
                    process.jit = None;
                    process.threads.clear();
                    // A thread that executes takes the first one's place.
                    process.first_exited = false;
                }
                if tid == tgid || exec {
                    process.comm = Rc::clone(&comm);
                }
                process.threads.insert(tid, comm);
                if exec {
                    // The new program may have changed its root since the fork.
                    process.root_is_known = false;
                    self.changed.insert(tgid);
                }
            }
            Event::Exit { tgid, tid } => {
                let Some(process) = self.processes.get_mut(&tgid) else { return };
                // The first thread can exit before the others do, and gives the process its name.
                process.first_exited |= tid == tgid;
                let others = !process.first_exited
                    || process.threads.keys().any(|&other| other != tid && other != tgid);
                if others && tid != tgid {
                    process.threads.remove(&tid);
                } else if !others {
                    process.exited_ns = Some(time_ns);
                    self.exited.push((tgid, time_ns));
                    self.changed.insert(tgid);
                }
            }
            Event::Mmap(mmap) => {
                let Some(process) = self.process(mmap.tgid, objects) else { return };
                // Asking /proc takes longer than all the rest, and most files are known.
                if !process.root_is_known && !objects.knows(time_ns, &mmap) {
                    process.root = objects.root_of(mmap.tgid).unwrap_or_else(|| process.root.clone());
                    process.root_is_known = true;
                }
                let (object, file_offset) = match objects.of_mapping(time_ns, &mmap, &process.root) {
                    Held::Object(object) => (object, mmap.file_offset),
                    Held::Memory => remapped::text(time_ns, &mmap, &process.regions, &process.root, objects)
                        .unwrap_or_else(|| {
                            (*process.jit.get_or_insert_with(|| objects.jit()), mmap.file_offset)
                        }),
                };
                if process.map(&mmap.range, file_offset, object) {
                    self.changed.insert(mmap.tgid);
                }
            }
            Event::Ksymbol(symbol) => self.ksymbol(&symbol, objects),
            Event::Stack(_) | Event::Dump(_) | Event::Thread(_) => {
                debug_assert!(false, "what was measured is resolved, not applied");
            }
        }
        self.peak = self.peak.max(self.processes.len());
    }

    fn process(&mut self, tgid: u32, objects: &mut Objects) -> Option<&mut Process> {
        if self.everything && !self.processes.contains_key(&tgid) {
            let mut process = Process::unknown();
            if let Some(root) = objects.root_of(tgid) {
                (process.root, process.root_is_known) = (root, true);
            }
            self.processes.insert(tgid, process);
        }
        self.processes.get_mut(&tgid)
    }

    fn fork(&mut self, tgid: u32, tid: u32, parent_tgid: u32, objects: &mut Objects) {
        if tgid == parent_tgid {
            if let Some(process) = self.process(tgid, objects) {
                let comm = Rc::clone(&process.comm);
                process.threads.entry(tid).or_insert(comm);
            }
            return;
        }
        let child = match self.processes.get(&parent_tgid) {
            Some(parent) => Process {
                threads: HashMap::from([(tid, Rc::clone(&parent.comm))]),
                first_exited: false,
                exited_ns: None,
                ..parent.clone()
            },
            None if self.everything => Process::unknown(),
            None => return,
        };
        self.changed.insert(tgid);
        self.processes.insert(tgid, child);
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

    /// Name of a process, as far as it is known.
    pub fn comm(&self, tgid: u32) -> String {
        self.processes.get(&tgid).map_or_else(|| "[unknown]".to_owned(), |process| process.comm.to_string())
    }

    /// Whether a process is modelled and has not exited.
    pub fn lives(&self, tgid: u32) -> bool {
        self.processes.get(&tgid).is_some_and(|process| process.exited_ns.is_none())
    }

    /// Number of modelled processes that have not exited.
    pub fn living(&self) -> usize {
        self.processes.values().filter(|process| process.followed && process.exited_ns.is_none()).count()
    }

    /// A process as it is now, for a stack that can be resolved only later.
    pub fn snapshot(&self, tgid: u32) -> Option<Snapshot> {
        self.processes.get(&tgid).cloned().map(Snapshot)
    }

    /// Locations of a stack's frames, and whose it is.
    pub fn resolve(&self, stack: &Stack, objects: &mut Objects) -> Resolved {
        self.resolve_in(self.processes.get(&stack.key.tgid), stack, objects)
    }

    /// The same in the state that the process had before.
    pub fn resolve_then(&self, then: &Snapshot, stack: &Stack, objects: &mut Objects) -> Resolved {
        self.resolve_in(Some(&then.0), stack, objects)
    }

    fn resolve_in(&self, process: Option<&Process>, stack: &Stack, objects: &mut Objects) -> Resolved {
        let mut frames = Vec::with_capacity(stack.kernel.len() + stack.user.len());
        for (depth, &addr) in stack.kernel.iter().enumerate() {
            frames.push(self.kernel_location(addr.wrapping_sub(u64::from(depth > 0))));
        }
        let mut truncation = stack.truncation;
        let unknown: Rc<str> = "[unknown]".into();
        let (comm, thread_comm) = match &process {
            Some(process) => {
                let thread = process.threads.get(&stack.key.tid).unwrap_or(&process.comm);
                (Rc::clone(&process.comm), Rc::clone(thread))
            }
            None if stack.key.kind == Kind::Waker && stack.key.tgid == 0 => {
                ("[interrupt]".into(), "[interrupt]".into())
            }
            None if stack.key.tgid == 0 => ("swapper".into(), "swapper".into()),
            None => (Rc::clone(&unknown), unknown),
        };
        for (depth, &addr) in stack.user.iter().enumerate() {
            // Return addresses point behind the call, a leaf's own address at its instruction.
            let addr = if depth > 0 { addr.wrapping_sub(1) } else { addr };
            match process.and_then(|process| process.location(addr)) {
                Some(location) if objects.get(location.object).is_32_bit() => {
                    // What a walk by 64-bit words found above it are no callers.
                    frames.push(location);
                    truncation = Some(Truncation::Bits32);
                    break;
                }
                Some(location) => frames.push(location),
                // In the midst of exec the registers still are those of the program that is gone.
                None if depth == 0 && !stack.kernel.is_empty() => {
                    truncation = stack.truncation.filter(|why| why.is_in_kernel());
                    break;
                }
                None if depth == 0 => frames.push(Location { object: ObjectId::NONE, file_offset: addr }),
                None => {
                    // What lies here is data that was taken for a frame: so is all above it.
                    truncation = Some(Truncation::ReturnAddress);
                    break;
                }
            }
        }
        for frame in &frames {
            objects.sampled(frame.object);
        }
        if let Some(process) = process
            && let Some(jit) = process.jit
            && frames.iter().any(|frame| frame.object == jit)
        {
            objects.pin_perf_map(jit, stack.key.tgid, &process.root);
        }
        Resolved { frames, truncation, comm, thread_comm }
    }

    fn kernel_location(&self, addr: u64) -> Location {
        let object = match self.bpf.range(..=addr).next_back() {
            Some((_, &(end, object))) if addr < end => object,
            _ => ObjectId::KERNEL,
        };
        Location { object, file_offset: addr }
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

impl Process {
    fn unknown() -> Self {
        Self {
            threads: HashMap::new(),
            comm: "[unknown]".into(),
            regions: Rc::default(),
            root: Root::OURS,
            root_is_known: false,
            jit: None,
            first_exited: false,
            exited_ns: None,
            followed: false,
        }
    }

    /// Maps; says whether that changed anything.
    fn map(&mut self, range: &Range<u64>, file_offset: u64, object: ObjectId) -> bool {
        let Range { start, end } = *range;
        if start >= end {
            return false;
        }
        let known = self.regions.range(..=start).next_back();
        if known.is_some_and(|(&at, region)| {
            at == start && region.end == end && region.file_offset == file_offset && region.object == object
        }) {
            return false;
        }
        let regions = Rc::make_mut(&mut self.regions);
        // What the new mapping covers is gone; what sticks out on either side stays.
        let mut overlapped: Vec<u64> = regions.range(start..end).map(|(&at, _)| at).collect();
        overlapped.extend(
            regions.range(..start).next_back().filter(|(_, region)| region.end > start).map(|(&at, _)| at),
        );
        for at in overlapped {
            let Some(old) = regions.remove(&at) else { continue };
            if at < start {
                regions.insert(at, Region { end: start, ..old.clone() });
            }
            if old.end > end {
                let file_offset = old.file_offset.wrapping_add(end - at);
                regions.insert(end, Region { file_offset, ..old });
            }
        }
        regions.insert(start, Region { end, file_offset, object });
        true
    }

    fn location(&self, addr: u64) -> Option<Location> {
        let (start, region) = self.regions.range(..=addr).next_back()?;
        if addr >= region.end {
            return None;
        }
        let file_offset = if Some(region.object) == self.jit {
            addr
        } else {
            region.file_offset.wrapping_add(addr - start)
        };
        Some(Location { object: region.object, file_offset })
    }
}
