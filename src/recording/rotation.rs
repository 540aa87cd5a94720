//! `record --every`: one recorder, and a file for each period of time.
//!
//! Periods follow each other without a gap, since they are [windows](crate::recording::tallies) of one recording:
//! where one ends the next one begins, at a swap of the kernel's counts. What a window has is named and written
//! by a child process while recording goes on. There is one such child at a time; where it takes longer than a
//! period, the next window waits, and the one after it grows instead of memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::wait::WaitPidFlag;

use crate::cli::RecordArgs;
use crate::machine::signals::Signals;
use crate::model::objects::Objects;
use crate::model::unsymbolized::Unsymbolized;
use crate::naming;
use crate::programs::Statistics;
use crate::recording::directory::{Directory, Keep};
use crate::recording::mark::Mark;
use crate::recording::part::Part;
use crate::recording::plan::Plan;
use crate::recording::record::open_window;
use crate::recording::recorder::Recorder;
use crate::recording::summary::equation;
use crate::recording::tallies::{Swap, WindowId};
use crate::recording::writer::Writer;

/// Windows that have ended and are not written.
const MOST_ENDED: usize = 2;

/// Files of one recording, period by period.
#[derive(Debug)]
pub struct Rotation {
    directory: Directory,
    period: Duration,
    window: WindowId,
    began: Mark,
    due: Instant,
    ended: VecDeque<Part>,
    writer: Writer,
    files: u64,
    failed: u64,
    /// Of all windows that were written.
    complete: u64,
    incomplete: u64,
}

/// The directory that was asked for, if recordings follow one another.
///
/// # Errors
/// If none was named, or it cannot be written.
pub fn directory(args: &RecordArgs) -> Result<Option<Directory>> {
    if args.every.is_none() {
        return Ok(None);
    }
    ensure!(
        !["-", "output.pb.gz"].iter().any(|name| args.output.as_os_str() == *name),
        "--every writes a file for each period: name a directory for them with -o"
    );
    let keep = match (args.keep, args.keep_bytes) {
        (Some(time), _) => Keep::For(time),
        (_, Some(bytes)) => Keep::Bytes(bytes),
        _ => Keep::All,
    };
    let directory = Directory::open(&args.output, keep)?;
    // It is found now if nothing can be written there, and not after the first period.
    drop(directory.file(SystemTime::now())?);
    Ok(Some(directory))
}

impl Rotation {
    /// Begins, when the recorder has just begun.
    pub fn begin(directory: Directory, args: &RecordArgs, plan: &Plan, recorder: &Recorder) -> Result<Self> {
        let period = args.every.context("no period")?;
        let window = recorder.timeline.tally.first().context("no window is open")?;
        let began = Mark::now(plan, recorder)?;
        let due = Instant::now() + period;
        let (ended, writer) = (VecDeque::new(), Writer::default());
        let (files, failed, complete, incomplete) = (0, 0, 0, 0);
        Ok(Self { directory, period, window, began, due, ended, writer, files, failed, complete, incomplete })
    }

    /// To be called at each look: ends a window that is due, has one written that is settled.
    pub fn tick(&mut self, args: &RecordArgs, plan: &Plan, recorder: &mut Recorder) -> Result<()> {
        self.reap(Some(WaitPidFlag::WNOHANG));
        if Instant::now() >= self.due && self.ended.len() < MOST_ENDED {
            self.cut(args, plan, recorder)?;
            // By the clock, unless a window had to wait.
            self.due = (self.due + self.period).max(Instant::now());
        }
        let settled = self.ended.front().is_some_and(|part| part.is_settled(recorder));
        if settled && !self.writer.is_busy() {
            self.write_first(args, recorder)?;
        }
        Ok(())
    }

    fn cut(&mut self, args: &RecordArgs, plan: &Plan, recorder: &mut Recorder) -> Result<()> {
        let programs = recorder.programs.take().and_then(|window| {
            let closed = window.close().ok();
            recorder.programs = open_window(args, true);
            closed
        });
        let swap = recorder.drain()?;
        let mark = Mark::now(plan, recorder)?;
        let summary = mark.since(&self.began, args, plan, recorder);
        recorder.timeline.tally.close(self.window, swap);
        self.ended.push_back(Part::new(self.window, swap, summary, programs, &self.began));
        self.window = recorder.timeline.tally.open(swap);
        self.began = mark;
        recorder.forget_unused();
        Ok(())
    }

    /// Has a child name and write the oldest window.
    fn write_first(&mut self, args: &RecordArgs, recorder: &mut Recorder) -> Result<()> {
        let Some(mut part) = self.ended.pop_front() else { return Ok(()) };
        let Some(finished) = part.take(recorder) else { return Ok(()) };
        let objects = &recorder.timeline.objects;
        self.files += 1;
        self.complete +=
            part.summary.complete + part.summary.blocks.as_ref().map_or(0, |it| it.stacks.complete);
        self.incomplete += part.summary.incomplete.values().sum::<u64>()
            + part.summary.blocks.as_ref().map_or(0, |it| it.stacks.incomplete());
        self.writer.start(|| write(args, finished, objects, &part, &self.directory))
    }

    fn reap(&mut self, flags: Option<WaitPidFlag>) {
        self.failed += u64::from(self.writer.reap(flags) == Some(false));
    }

    /// Waits for a child that writes: it holds what the recorder has attached.
    pub fn wait(&mut self) {
        self.reap(None);
    }

    /// Ends the last window, when its counts are in, and writes all that is left. `blocked` threads were
    /// counted at the end.
    ///
    /// # Errors
    /// If a file could not be written.
    pub fn finish(
        mut self,
        args: &RecordArgs,
        plan: &Plan,
        programs: Option<Statistics>,
        blocked: u64,
        mut recorder: Recorder,
    ) -> Result<()> {
        let mark = Mark::now(plan, &recorder)?;
        let summary = mark.since(&self.began, args, plan, &recorder);
        self.ended.push_back(Part::new(self.window, Swap::default(), summary, programs, &self.began));
        recorder.timeline.release_all();
        while !self.ended.is_empty() {
            self.wait();
            self.write_first(args, &mut recorder)?;
        }
        self.wait();
        let (taken, lost) = mark.taken_and_lost();
        let taken = taken + blocked;
        let equation = equation(taken, self.complete, self.incomplete, lost);
        say!("profiler: {} files, in all {equation}", self.files);
        if self.failed > 0 {
            bail!("failed to write {} of {} files", self.failed, self.files);
        }
        Ok(())
    }
}

/// In the child: names and writes a window, and removes what is not kept.
fn write(
    args: &RecordArgs,
    mut finished: Unsymbolized,
    objects: &Objects,
    part: &Part,
    directory: &Directory,
) -> Result<()> {
    let mut signals = Signals::block(false)?;
    let output = directory.file(part.began);
    let mut output = output.or_else(|error| {
        let elsewhere = Directory::file_elsewhere(part.began)?;
        say!("profiler: {error:#}: writing {} in place of it", elsewhere.name());
        anyhow::Ok(elsewhere)
    })?;
    let name = output.name();
    let (data, _) = naming::encode(args, &mut finished, objects, &part.summary, &mut signals);
    output.write_all(&data)?;
    output.commit()?;
    directory.prune(SystemTime::now());
    say!("profiler: wrote {name}: {}", part.summary.line());
    Ok(())
}
