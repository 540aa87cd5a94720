//! Events of several rings, in the order of time, applied to the model of the machine.
//!
//! Each CPU has rings of its own, so what is read from them is ordered only within each. An event
//! is released when nothing earlier can still arrive: every ring has been read at a moment after
//! it. Until then it waits here.

use crate::model::event::{Count, Dump, Event, Stack, Timed};
use crate::model::objects::Objects;
use crate::model::process::{Processes, Snapshot};
use crate::recording::tally::{Finished, Tally};

/// The machine over time, and what was sampled on it.
#[derive(Debug)]
pub struct Timeline {
    /// Processes that live now.
    pub processes: Processes,
    /// What their code lies in.
    pub objects: Objects,
    /// What was sampled so far.
    pub tally: Tally,
    waiting: Vec<Timed>,
}

impl Timeline {
    /// Starts with the processes that are modelled and an empty tally.
    pub fn new(processes: Processes, tally: Tally) -> Self {
        Self { processes, objects: Objects::default(), tally, waiting: Vec::new() }
    }

    /// Where new events are appended, in any order.
    pub fn inbox(&mut self) -> &mut Vec<Timed> {
        &mut self.waiting
    }

    /// Applies what happened up to `until_ns`; all rings must have been read since. `unwind` walks
    /// stacks that came as memory, or keeps them for [`Self::late`].
    pub fn advance(
        &mut self,
        until_ns: u64,
        mut unwind: impl FnMut(u64, Dump, &Processes, &Objects) -> Option<Stack>,
    ) {
        // Stable: one CPU's events of one instant keep their order.
        self.waiting.sort_by_key(|event| event.time_ns);
        let ready = self.waiting.partition_point(|event| event.time_ns <= until_ns);
        for Timed { time_ns, event } in self.waiting.drain(..ready) {
            let event = match event {
                Event::Dump(dump) => match unwind(time_ns, dump, &self.processes, &self.objects) {
                    Some(stack) => Event::Stack(stack),
                    None => continue,
                },
                event => event,
            };
            match event {
                Event::Stack(stack) => {
                    let resolved = self.processes.resolve(&stack, &mut self.objects);
                    self.tally.stack(time_ns, stack.key, &resolved, &self.objects);
                }
                Event::Thread(time) => {
                    let comm = self.processes.comm(time.tgid).into();
                    self.tally.thread(&time, &comm);
                }
                event => self.processes.apply(time_ns, event, &mut self.objects),
            }
        }
    }

    /// Takes a stack of a process as it was then.
    pub fn late(&mut self, time_ns: u64, then: &Snapshot, stack: &Stack) {
        let resolved = self.processes.resolve_then(then, stack, &mut self.objects);
        self.tally.stack(time_ns, stack.key, &resolved, &self.objects);
    }

    /// Takes the counts of the interval that ended at `end_ns`, when [`Self::advance`] has gone
    /// beyond it.
    pub fn count(&mut self, counts: &[Count], end_ns: u64) {
        self.tally.count(counts, end_ns);
        self.processes.forget_exited(end_ns);
    }

    /// The recording, when all counts are in.
    pub fn finish(self) -> (Finished, Objects) {
        let Self { processes, objects, tally, .. } = self;
        (tally.finish(&objects, |tgid| processes.comm(tgid)), objects)
    }
}
