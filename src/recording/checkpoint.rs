//! `record --checkpoint`: the file of a recording that goes on, for whoever is killed before its end.
//!
//! A child process has the recorder's memory as it was when it was forked. It ends the recording there, as if
//! that were the end, names what there is and writes the file, while the recorder goes on; the next one, and
//! the end itself, write it anew. There is one such child at a time: where it takes longer than the period, the
//! next one waits.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::wait::WaitPidFlag;

use crate::cli::RecordArgs;
use crate::machine::signals::Signals;
use crate::naming;
use crate::recording::mark::Mark;
use crate::recording::part::Part;
use crate::recording::plan::Plan;
use crate::recording::recorder::Recorder;
use crate::recording::tallies::{Swap, WindowId};
use crate::recording::writer::Writer;
use crate::viewing::file::Pending;

/// When the file is written, and by whom.
#[derive(Debug)]
pub struct Checkpoint {
    period: Duration,
    due: Instant,
    began: Mark,
    window: WindowId,
    writer: Writer,
    failed: bool,
}

/// Refuses an output that cannot be written several times.
///
/// # Errors
/// If it is standard output.
pub fn check(args: &RecordArgs) -> Result<()> {
    ensure!(
        args.checkpoint.is_none() || args.output.as_os_str() != "-",
        "--checkpoint writes a file several times, and standard output is none: name one with -o"
    );
    Ok(())
}

impl Checkpoint {
    /// Begins, when the recorder has just begun; `None` if it was not asked for.
    pub fn begin(args: &RecordArgs, plan: &Plan, recorder: &Recorder) -> Result<Option<Self>> {
        let Some(period) = args.checkpoint else { return Ok(None) };
        let window = recorder.timeline.tally.first().context("no window is open")?;
        let (began, due) = (Mark::now(plan, recorder)?, Instant::now() + period);
        Ok(Some(Self { period, due, began, window, writer: Writer::default(), failed: false }))
    }

    /// To be called at each look: has the file written when that is due.
    pub fn tick(
        &mut self,
        args: &RecordArgs,
        plan: &Plan,
        recorder: &mut Recorder,
        output: &Pending,
    ) -> Result<()> {
        self.reap(Some(WaitPidFlag::WNOHANG));
        if Instant::now() < self.due || self.writer.is_busy() {
            return Ok(());
        }
        self.due = Instant::now() + self.period;
        let swap = recorder.drain()?;
        let summary = Mark::now(plan, recorder)?.since(&self.began, args, plan, recorder);
        let Self { window, began, .. } = self;
        self.writer.start(|| {
            recorder.timeline.tally.close(*window, swap);
            recorder.timeline.release_all();
            write(args, Part::new(*window, Swap::default(), summary, None, began), recorder, output)
        })
    }

    fn reap(&mut self, flags: Option<WaitPidFlag>) {
        if self.writer.reap(flags) == Some(false) && !self.failed {
            self.failed = true;
            say!("profiler: a checkpoint was not written; recording goes on");
        }
    }

    /// Waits for a child that writes: what it writes is older than what comes.
    pub fn wait(&mut self) {
        self.reap(None);
    }
}

/// In the child: names and writes what there is.
fn write(args: &RecordArgs, mut part: Part, recorder: &mut Recorder, output: &Pending) -> Result<()> {
    let mut finished = part.take(recorder).context("the window is gone")?;
    let mut signals = Signals::block(false)?;
    let mut output = output.again()?;
    let objects = &recorder.timeline.objects;
    let (data, _) = naming::encode(args, &mut finished, objects, &part.summary, &mut signals);
    output.write_all(&data)?;
    output.commit()
}
