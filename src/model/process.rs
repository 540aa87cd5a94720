//! One process: its program, its threads' names, the code in its memory, and since when each of them is so.
//!
//! An id says little: it is given away again, and a process executes one program after the other. So
//! a process knows when it was forked and when it executed its program, and takes nothing from before
//! that, however late it comes.
//!
//! A process's mappings are shared with its parent from fork until one of them changes, so that
//! memory grows with the programs that run and not with the processes.

use std::collections::HashMap;
use std::rc::Rc;

use crate::model::event::Mmap;
use crate::model::objects::{Held, JitSlot, ObjectId, Objects, Root};
use crate::model::regions::{self, Regions};
use crate::model::remapped;
use crate::model::snapshot::{Change, What};

/// A thread's name, and since when it has it.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) comm: Rc<str>,
    pub(super) since_ns: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) threads: HashMap<u32, Name>,
    pub(super) comm: Name,
    /// Time of its fork, if that was seen.
    pub(super) forked_ns: u64,
    /// Time of its last exec, if that was seen.
    pub(super) executed_ns: u64,
    /// Whose memory it has a copy of, if it has not executed a program since.
    pub(super) parent: Option<u32>,
    pub(super) regions: Rc<Regions>,
    /// Those of the program before the last exec, whose registers a thread has until that is done.
    pub(super) replaced: Rc<Regions>,
    /// The newest of its regions is from then.
    pub(super) mapped_ns: u64,
    /// Where its paths start; its parent's as long as it is not known.
    pub(super) root: Root,
    pub(super) root_is_known: bool,
    pub(super) jit: Rc<JitSlot>,
    pub(super) first_exited: bool,
    pub(super) exited_ns: Option<u64>,
    /// It was announced as one to follow, or forked by one that was.
    pub(super) followed: bool,
}

impl Process {
    pub(super) fn unknown(tgid: u32) -> Self {
        Self {
            threads: HashMap::new(),
            comm: Name { comm: "[unknown]".into(), since_ns: 0 },
            forked_ns: 0,
            executed_ns: 0,
            parent: None,
            regions: Rc::default(),
            replaced: Rc::default(),
            mapped_ns: 0,
            root: Root::OURS,
            root_is_known: false,
            jit: JitSlot::new(tgid, None),
            first_exited: false,
            exited_ns: None,
            followed: false,
        }
    }

    /// When it was forked or last executed a program: what happened before concerns others.
    pub(super) fn begin_ns(&self) -> u64 {
        self.forked_ns.max(self.executed_ns)
    }

    /// What a mapping holds, and the offset of its first byte there.
    pub(super) fn held(&self, time_ns: u64, mmap: &Mmap, objects: &mut Objects) -> (ObjectId, u64) {
        match objects.of_mapping(time_ns, mmap, &self.root) {
            Held::Object(object) => (object, mmap.file_offset),
            Held::Memory => {
                objects.find_jitdump(time_ns, &self.jit, mmap, &self.root);
                remapped::text(time_ns, mmap, &self.regions, &self.root, objects)
                    .unwrap_or((ObjectId::MEMORY, mmap.file_offset))
            }
        }
    }

    /// Maps, or forgets what was mapped before an exec; says whether that changed anything.
    pub(super) fn change(&mut self, change: &Change) -> bool {
        match &change.what {
            What::Mapped { start, region } => {
                self.mapped_ns = self.mapped_ns.max(region.seen_ns);
                regions::map(Rc::make_mut(&mut self.regions), *start, region)
            }
            What::Executed { at_ns } if *at_ns == change.since_ns => {
                self.execute(*at_ns);
                true
            }
            What::Executed { at_ns } => {
                Rc::make_mut(&mut self.regions).retain(|_, region| region.seen_ns > *at_ns);
                true
            }
            What::Forked(_) | What::Reread { .. } => false,
        }
    }

    /// What one of its threads forks. It has the name of that thread.
    pub(super) fn child(
        &self,
        time_ns: u64,
        [tgid, tid]: [u32; 2],
        [parent_tgid, parent_tid]: [u32; 2],
    ) -> Self {
        let name = self.threads.get(&parent_tid).unwrap_or(&self.comm);
        let name = Name { comm: Rc::clone(&name.comm), since_ns: time_ns };
        let mut regions = Rc::clone(&self.regions);
        if self.mapped_ns > time_ns {
            Rc::make_mut(&mut regions).retain(|_, region| region.since_ns <= time_ns);
        }
        let has_compiled_code = regions.values().any(|region| region.object == ObjectId::MEMORY);
        Self {
            threads: HashMap::from([(tid, name.clone())]),
            comm: name,
            forked_ns: time_ns,
            executed_ns: 0,
            parent: Some(parent_tgid),
            regions,
            replaced: Rc::clone(&self.replaced),
            mapped_ns: self.mapped_ns.min(time_ns),
            root: self.root.clone(),
            root_is_known: self.root_is_known,
            jit: JitSlot::new(tgid, Some(&self.jit).filter(|_| has_compiled_code)),
            first_exited: false,
            exited_ns: None,
            followed: self.followed,
        }
    }

    /// Of a newborn: what is known already of the time since, and not of who had the id before.
    pub(super) fn take_newer(&mut self, known: Self) {
        let forked_ns = self.forked_ns;
        if known.executed_ns > forked_ns {
            *self = Self { forked_ns, followed: self.followed | known.followed, ..known };
            return;
        }
        self.threads.extend(known.threads.into_iter().filter(|(_, name)| name.since_ns > forked_ns));
        if known.comm.since_ns > forked_ns {
            self.comm = known.comm;
        }
        if known.mapped_ns > forked_ns {
            let mut newer = Rc::unwrap_or_clone(known.regions);
            newer.retain(|_, region| region.seen_ns > forked_ns);
            regions::fill(&mut newer, &self.regions);
            (self.regions, self.mapped_ns) = (Rc::new(newer), known.mapped_ns);
        }
        self.exited_ns = known.exited_ns.filter(|exited_ns| *exited_ns > forked_ns);
    }

    /// Gives up the memory and the threads of the program that it executed before.
    pub(super) fn execute(&mut self, time_ns: u64) {
        let old = std::mem::take(&mut self.regions);
        if self.mapped_ns > time_ns {
            let newer = old.iter().filter(|(_, region)| region.seen_ns > time_ns);
            self.regions = Rc::new(newer.map(|(&start, region)| (start, region.clone())).collect());
        } else {
            self.jit = JitSlot::new(self.jit.tgid(), None);
        }
        self.replaced = old;
        self.threads.retain(|_, name| name.since_ns > time_ns);
        self.executed_ns = time_ns;
        self.parent = None;
        // A thread that executes takes the first one's place.
        self.first_exited = false;
        // The new program may have changed its root since the fork.
        self.root_is_known = false;
    }

    pub(super) fn rename(&mut self, tid: u32, comm: Rc<str>, since_ns: u64) {
        if self.threads.get(&tid).is_none_or(|known| known.since_ns <= since_ns) {
            self.threads.insert(tid, Name { comm, since_ns });
        }
    }

    pub(super) fn name_by(&mut self, tid: u32) {
        if let Some(name) = self.threads.get(&tid).filter(|name| name.since_ns >= self.comm.since_ns) {
            self.comm = name.clone();
        }
    }
}
