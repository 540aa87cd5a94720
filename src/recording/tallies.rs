//! Samples of several windows at once: what one recorder sees, counted for all who want a part of it.
//!
//! A window begins and ends where the kernel's map of counts is swapped, so that each count belongs to a
//! window whole, and windows side by side have all counts between them. The stacks behind the counts come by
//! other ways, and late ones up to some seconds later: a window that has ended waits for those. The swap takes a
//! moment, and a stack of that moment may be behind counts of either side: it goes to both, for a stack without a
//! count is nothing.

use std::cell::RefCell;
use std::rc::Rc;

use crate::model::event::{Count, CountKey, ThreadTime};
use crate::model::objects::{ObjectId, Objects};
use crate::model::profile::Profile;
use crate::model::snapshot::Resolved;
use crate::model::unsymbolized::Unsymbolized;
use crate::recording::budget::Budget;
use crate::recording::capture::proc;
use crate::recording::containers::Groups;
use crate::recording::labels::Labels;
use crate::recording::tally::Tally;

/// A moment at which counts were taken: before the swap of the kernel's maps, and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// CLOCK_MONOTONIC nanoseconds.
    pub before_ns: u64,
    /// The same.
    pub after_ns: u64,
}

/// Which window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowId(u64);

#[derive(Debug)]
struct Window {
    id: WindowId,
    tally: Tally,
    from: Swap,
    to: Option<Swap>,
}

/// All windows that are open, or that have ended and wait for stacks.
#[derive(Debug)]
pub struct Tallies {
    windows: Vec<Window>,
    /// What windows begin with.
    empty: Profile,
    short: String,
    labels: Rc<RefCell<Labels>>,
    /// What all of them may hold.
    pub budget: Budget,
    next: u64,
}

impl Tallies {
    /// No window yet; they will have these types of values, and this frame for blocks without a stack.
    pub fn new(empty: Profile, short: String, labels: Labels) -> Self {
        let labels = Rc::new(RefCell::new(labels));
        Self { windows: Vec::new(), empty, short, labels, budget: Budget::default(), next: 0 }
    }

    /// One window of all that comes.
    pub fn of_all(empty: Profile, short: String) -> Self {
        let mut tallies = Self::new(empty, short, Labels::default());
        tallies.open(Swap::default());
        tallies
    }

    /// Begins a window.
    pub fn open(&mut self, from: Swap) -> WindowId {
        let id = WindowId(self.next);
        self.next += 1;
        let began_ns = if from == Swap::default() { proc::now_ns() } else { from.before_ns };
        let tally = Tally::new(self.empty.clone(), self.short.clone(), Rc::clone(&self.labels), began_ns);
        self.windows.push(Window { id, tally, from, to: None });
        id
    }

    /// Ends a window, when its last counts are in.
    pub fn close(&mut self, id: WindowId, to: Swap) {
        if let Some(window) = self.windows.iter_mut().find(|window| window.id == id) {
            window.to = Some(to);
        }
    }

    /// Forgets a window that nobody wants any more.
    pub fn forget(&mut self, id: WindowId) {
        self.windows.retain(|window| window.id != id);
    }

    /// Takes a window out.
    pub fn finish(
        &mut self,
        id: WindowId,
        objects: &Objects,
        names: impl Fn(u32) -> String,
    ) -> Option<Unsymbolized> {
        let at = self.windows.iter().position(|window| window.id == id)?;
        Some(self.windows.remove(at).tally.finish(objects, names))
    }

    /// The window that was opened first.
    pub fn first(&self) -> Option<WindowId> {
        self.windows.first().map(|window| window.id)
    }

    /// Says what slow calls are of.
    pub fn set_called(&mut self, called: &str) {
        called.clone_into(&mut self.labels.borrow_mut().called);
    }

    /// Gives the labels of cgroups to whoever knows them.
    pub fn with_groups(&mut self, learn: impl FnOnce(&mut Groups)) {
        learn(&mut self.labels.borrow_mut().groups);
    }

    /// Forgets labels of cgroups that have not been asked for since the last call.
    pub fn forget_groups(&mut self) {
        let mut labels = self.labels.borrow_mut();
        labels.before = std::mem::take(&mut labels.groups);
    }

    /// Objects that stacks lie in.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> {
        self.windows.iter().flat_map(|window| window.tally.objects())
    }

    /// Takes the resolved frames of a key, seen at `time_ns`.
    pub fn stack(&mut self, time_ns: u64, key: CountKey, resolved: &Resolved, objects: &Objects) {
        for window in &mut self.windows {
            let began = window.from == Swap::default() || time_ns > window.from.before_ns;
            let lasts = window.to.is_none_or(|to| time_ns <= to.after_ns);
            // There may have been no room for the stack until the next interval.
            if (began && lasts) || window.tally.waits_for(&key) {
                window.tally.stack(time_ns, key, resolved, objects);
            }
        }
    }

    /// Takes the counts of an interval that ended at `end_ns`, all stacks of which have arrived.
    pub fn count(&mut self, counts: &[Count], end_ns: u64) {
        for window in self.windows.iter_mut().filter(|window| window.to.is_none()) {
            window.tally.count(counts, end_ns);
        }
        let held = self.windows.iter().map(|window| window.tally.held_bytes()).sum();
        let pressure = self.budget.pressure(held);
        self.windows.iter_mut().for_each(|window| window.tally.pressure = pressure);
    }

    /// Takes what a thread did in all, which ended at `time_ns`.
    pub fn thread(&mut self, time_ns: u64, time: &ThreadTime, comm: &Rc<str>) {
        for window in &mut self.windows {
            if time_ns > window.from.after_ns && window.to.is_none_or(|to| time_ns <= to.after_ns) {
                window.tally.thread(time, comm);
            }
        }
    }
}
