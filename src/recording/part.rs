//! A part of what a recorder sees, from its end to its file.

use std::time::{Duration, SystemTime};

use crate::model::event::Outcome;
use crate::model::unsymbolized::Unsymbolized;
use crate::programs::{Statistics, chains, sampled};
use crate::recording::about::{self, unix_ns};
use crate::recording::capture::proc;
use crate::recording::mark::Mark;
use crate::recording::recorder::Recorder;
use crate::recording::summary::Summary;
use crate::recording::tallies::{Swap, WindowId};
use crate::recording::timeline::SETTLED_NS;

/// A window that has ended, and waits for its last stacks or for its turn.
#[derive(Debug)]
pub struct Part {
    /// Which.
    pub window: WindowId,
    /// What was counted in it; what the window itself tells comes with [`Self::take`].
    pub summary: Summary,
    /// When it began.
    pub began: SystemTime,
    programs: Option<Statistics>,
    ended: Swap,
}

impl Part {
    /// Of a window that began at a mark and ended at a swap.
    pub fn new(
        window: WindowId,
        ended: Swap,
        summary: Summary,
        programs: Option<Statistics>,
        began: &Mark,
    ) -> Self {
        let since_1970 = Duration::from_nanos(unix_ns(began.time_ns).cast_unsigned());
        Self { window, summary, began: SystemTime::UNIX_EPOCH + since_1970, programs, ended }
    }

    /// Whether all stacks of its time are in, or will not come any more.
    pub fn is_settled(&self, recorder: &Recorder) -> bool {
        let now_ns = proc::now_ns();
        let is_over = now_ns >= self.ended.after_ns + SETTLED_NS;
        is_over || !(recorder.timeline.holds(now_ns, self.ended.after_ns) || recorder.unwinding.builds())
    }

    /// Takes the window out of the recorder: the profile, with all but names, and its summary.
    pub fn take(&mut self, recorder: &mut Recorder) -> Option<Unsymbolized> {
        let mut finished = recorder.timeline.window(self.window)?;
        let Self { summary, programs, began, .. } = self;
        summary.complete = finished.samples.complete;
        summary.incomplete = std::mem::take(&mut finished.samples.incomplete);
        summary.without_ids = finished.without_ids;
        let counted = summary.complete + summary.incomplete.values().sum::<u64>();
        summary.outcomes.get_or_insert_default().by_outcome.insert(Outcome::Complete, counted);
        if let Some(blocks) = &mut summary.blocks {
            blocks.stacks = std::mem::take(&mut finished.blocks);
            blocks.wakers = std::mem::take(&mut finished.wakings);
            blocks.threads = finished.threads;
            let lost: u64 = blocks.lost.values().sum();
            blocks.taken = blocks.stacks.complete + blocks.stacks.incomplete() + lost;
        }
        if let Some(statistics) = programs {
            chains::split(statistics, &finished.samples_in_bpf(&recorder.timeline.objects));
            sampled::add_to(&mut finished.profile, statistics);
        }
        summary.programs = programs.take();
        recorder.containers.name(&mut finished.profile);
        let since_1970 = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        finished.profile.time_ns = since_1970.as_nanos() as i64;
        finished.profile.duration_ns = (summary.duration_s * 1e9) as i64;
        finished.profile.comments = about::comments(summary);
        Some(finished)
    }
}
