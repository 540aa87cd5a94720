//! What a process was at some time, and what its stacks' addresses were then.

use std::rc::Rc;

use crate::model::event::{Kind, OUTSIDE, Stack, Truncation};
use crate::model::objects::{JitSlot, ObjectId, Root};
use crate::model::regions::{self, Region, Regions};

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
    /// An address was in no known mapping: what is known of the process may be stale.
    pub is_stale: bool,
    /// Name of the process, that is of its first thread.
    pub comm: Rc<str>,
    /// Name of the thread.
    pub thread_comm: Rc<str>,
}

/// The name of all processes that our PID namespace has no id of.
pub const OTHER_NAMESPACE: &str = "[other PID namespace]";

/// What a process was at some time, as far as its stacks' names depend on it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) time_ns: u64,
    /// The last fork or exec before.
    pub(super) since_ns: u64,
    pub(super) tgid: u32,
    pub(super) comm: Option<Rc<str>>,
    pub(super) regions: Rc<Regions>,
    /// Of the program before the last exec, whose registers a thread has until that is done.
    pub(super) replaced: Rc<Regions>,
    pub(super) jit: Rc<JitSlot>,
    pub(super) root: Root,
}

impl Snapshot {
    /// Executable memory.
    pub fn regions(&self) -> &Rc<Regions> {
        &self.regions
    }

    /// What its code lies in.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> {
        let regions = self.regions.values().chain(self.replaced.values());
        regions.map(|region| region.object).chain(self.jit.objects())
    }

    /// Whose it is.
    pub fn tgid(&self) -> u32 {
        self.tgid
    }

    /// Takes in what had happened by then, but was not known. Says whether that changes anything.
    pub fn amend(&mut self, change: &Change) -> bool {
        if change.tgid != self.tgid || change.since_ns > self.time_ns {
            return false;
        }
        if change.since_ns < self.since_ns && !change.is_reread() {
            return false; // it had executed another program by then
        }
        let since_ns = change.since_ns;
        match &change.what {
            What::Mapped { start, region } => regions::map(Rc::make_mut(&mut self.regions), *start, region),
            What::Reread { shown, known } => {
                let found = regions::only_in(shown, known);
                regions::fill(Rc::make_mut(&mut self.regions), &found);
                !found.is_empty()
            }
            What::Forked(inherited) => {
                self.since_ns = since_ns;
                Rc::make_mut(&mut self.regions).retain(|_, region| region.seen_ns > since_ns);
                regions::fill(Rc::make_mut(&mut self.regions), inherited);
                true
            }
            What::Executed { at_ns } => {
                self.since_ns = since_ns;
                self.replaced = Rc::clone(&self.regions);
                Rc::make_mut(&mut self.regions).retain(|_, region| region.seen_ns > *at_ns);
                true
            }
        }
    }
}

/// What an event has changed. Of interest to stacks that were resolved without it: to those from
/// before an event that came late, and to those from before maps were read again.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Process.
    pub tgid: u32,
    /// From then on it is so.
    pub(super) since_ns: u64,
    pub(super) what: What,
}

impl Change {
    /// When it happened: to a child, before it was forked.
    pub(super) fn happened_ns(&self) -> u64 {
        match &self.what {
            What::Mapped { region, .. } => region.seen_ns,
            What::Executed { at_ns } => *at_ns,
            What::Forked(_) | What::Reread { .. } => self.since_ns,
        }
    }

    /// Whether it is what was read from `/proc`.
    pub fn is_reread(&self) -> bool {
        matches!(self.what, What::Reread { .. })
    }

    /// Of what was read from `/proc` at `read_ns`: takes in what had happened by then, but was not
    /// known.
    pub fn revise(&mut self, read_ns: u64, late: &Self) {
        let What::Reread { known, .. } = &mut self.what else { return };
        if late.tgid != self.tgid || late.since_ns > read_ns {
            return;
        }
        match &late.what {
            What::Mapped { start, region } => {
                regions::map(Rc::make_mut(known), *start, region);
            }
            // What was known then was another process's, or another program's.
            What::Forked(_) | What::Executed { .. } => {
                self.since_ns = self.since_ns.max(late.since_ns);
                Rc::make_mut(known).retain(|_, region| region.seen_ns > late.since_ns);
            }
            What::Reread { .. } => {}
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    Mapped {
        start: u64,
        region: Region,
    },
    /// By itself, or by its parent before the fork.
    Executed {
        at_ns: u64,
    },
    /// With a copy of its parent's memory.
    Forked(Rc<Regions>),
    /// What was shown, and what was known by events: of the rest nothing had told.
    Reread {
        shown: Rc<Regions>,
        known: Rc<Regions>,
    },
}

/// Names of a process and of a thread: the sample has the thread's, which for the first one is the
/// process's.
pub(super) fn names(then: &Snapshot, stack: &Stack) -> (Rc<str>, Rc<str>) {
    let key = &stack.key;
    if key.tgid == 0 {
        let name: Rc<str> = if key.kind == Kind::Waker { "[interrupt]" } else { "swapper" }.into();
        return (Rc::clone(&name), name);
    }
    if key.tgid == OUTSIDE {
        return (OTHER_NAMESPACE.into(), key.comm.to_string().into());
    }
    let process: Rc<str> = then.comm.clone().unwrap_or_else(|| "[unknown]".into());
    let thread: Rc<str> = key.comm.to_string().into();
    match (thread.is_empty(), key.tid == key.tgid) {
        (true, _) => (Rc::clone(&process), process),
        (false, true) => (Rc::clone(&thread), thread),
        (false, false) => (process, thread),
    }
}

impl Snapshot {
    pub(super) fn location(&self, addr: u64) -> Option<Location> {
        let (start, region) = regions::holding(&self.regions, addr)?;
        let file_offset = if region.object == ObjectId::MEMORY {
            addr
        } else {
            region.file_offset.wrapping_add(addr - start)
        };
        Some(Location { object: region.object, file_offset })
    }
}
