//! `profiler record`: the pipeline, from the command line to the file, top to bottom.
//!
//! The order of the first steps is what makes short-lived processes visible: the side-band listens
//! before `/proc` is read, both before the sampler starts, and the command waits for all of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::RecordArgs;
use crate::machine::rights::{self, Capability};
use crate::machine::signals::Signals;
use crate::machine::usage::{self, CpuTime, RoomForFiles};
use crate::naming;
use crate::programs::{Window, chains, sampled};
use crate::recording::about;
use crate::recording::capture::bpf::{self, Filter};
use crate::recording::capture::child::Child;
use crate::recording::capture::proc;
use crate::recording::checkpoint::{self, Checkpoint};
use crate::recording::counters::Counting;
use crate::recording::cpus::clocks;
use crate::recording::pace::Pace;
use crate::recording::plan::Plan;
use crate::recording::progress::Progress;
use crate::recording::recorder::Recorder;
use crate::recording::rotation::{self, Rotation};
use crate::recording::summary::{SampledEvent, Summary};
use crate::recording::tallies::Swap;
use crate::recording::timeline::Timeline;
use crate::viewing::file::Pending;

/// Records, and returns the exit status: the command's, or else 0 if nothing went wrong on the way.
///
/// # Errors
/// If the machine or the user's rights do not allow it, a target does not exist, the command
/// cannot be run or the file cannot be written. No output remains then.
pub fn run(args: &RecordArgs) -> Result<i32> {
    let mut plan = Plan::new(args)?;
    bpf::probe()?;
    let mut signals = Signals::block(!args.command.is_empty())?;
    checkpoint::check(args)?;
    let directory = rotation::directory(args)?;
    let output = if directory.is_none() { Some(Pending::private(&args.output)?) } else { None };
    let mut child = match args.command.as_slice() {
        [] => None,
        command => Some(Child::fork(command)?),
    };
    if let (Some(child), Filter::Processes(ids)) = (&child, &mut plan.config.filter) {
        ids.push(child.tgid());
        plan.config.command = Some(child.tgid());
    }
    // After the fork: the command keeps the limit that it was given.
    let room = RoomForFiles::make(plan.online.len());

    plan.fit(room);
    let mut recorder = Recorder::listen(args, &mut plan, room)?;
    recorder.programs =
        if room.is_tight { None } else { open_window(args, recorder.sampler.measures_itself()) };
    let clocks = clocks(args, &plan)?;
    let counting = Counting::begin(args, &plan, child.as_ref().map(Child::tgid));
    recorder.sampler.attach(clocks)?;
    recorder.say_what_is_missing();
    if let Some(lost) = rights::without_names() {
        say!("profiler: {lost}");
    }

    let machine_before = CpuTime::of(&plan.cpus);
    let target_before = target_cpu_ns(&plan);
    let own_before = usage::own_cpu_s() + recorder.unwinding.builders_cpu_s();
    let (started, start_ns) = (Instant::now(), proc::now_ns());
    if let Some(child) = &mut child {
        child.release()?;
    }
    rights::keep_for_recording(recorder.programs.is_some());
    recorder.timeline.tally.open(Swap::default());
    let mut rotation = match directory {
        Some(directory) => Some(Rotation::begin(directory, args, &plan, &recorder)?),
        None => None,
    };
    let mut checkpoint = Checkpoint::begin(args, &plan, &recorder)?;
    let mut keep = Keep { failed: false };
    let reason = keep.on("recording", End::Signal, || {
        let files = (&mut rotation, &mut checkpoint, &output);
        follow(args, &plan, &mut signals, &mut child, &mut recorder, files)
    });
    keep.beside("reading counters", (), || recorder.sampler.end_counters());
    let counted = counting.sampled();
    if let End::Child(_) = reason {
        keep.on("reading what happened", false, || recorder.read());
        about::say_who_goes_on(recorder.timeline.processes.living().collect());
    }
    if let Some(window) = &mut recorder.programs {
        window.stop();
    }
    if let Some(rotation) = &mut rotation {
        rotation.wait();
    }
    if let Some(checkpoint) = &mut checkpoint {
        checkpoint.wait();
    }
    let blocked = keep.on("reading the threads' times", 0, || recorder.flush_threads());
    recorder.sampler.detach();
    let duration = started.elapsed();
    // While the sampler is still there: it is one of the programs.
    let mut programs = recorder.programs.take().and_then(|window| window.close().ok());
    let target_ns = target_cpu_ns(&plan).saturating_sub(target_before);
    // Twice: what was counted into one map while the other was drained.
    for _ in 0..2 {
        keep.on("reading counts", Swap::default(), || recorder.drain());
    }
    // Once more: what was read again is applied.
    keep.on("reading what happened", false, || recorder.read());
    keep.on("waiting for unwind tables", (), || {
        recorder.settle();
        Ok(())
    });
    if let Some(rotation) = rotation {
        rotation.finish(args, &plan, programs, blocked, recorder)?;
        return Ok(status(child, &reason, keep.failed, signals));
    }

    let Recorder { sideband, mut sampler, timeline, unwinding, containers, .. } = recorder;
    let used = keep.beside("reading counters", None, || sampler.used());
    let outcomes = keep.on("reading how samples were counted", None, || sampler.outcomes().map(Some));
    let blocks = keep.on("reading how blocks were counted", None, || sampler.blocks());
    let cpu = CpuTime::of(&plan.cpus).since(machine_before);
    let mut summary = Summary {
        duration_s: duration.as_secs_f64(),
        cpus: plan.cpus.len(),
        frequency_hz: args.frequency,
        outcomes,
        sideband_lost: sideband.lost,
        cpu,
        counters: counting.end(used, duration.as_nanos() as u64, plan.cpus.len(), cpu),
        cost: sampler.cost(),
        own_cpu_s: usage::own_cpu_s() + unwinding.builders_cpu_s() - own_before,
        own_peak_bytes: usage::own_peak_bytes(),
        kernel_bytes: sampler.map_bytes()
            + unwinding.kernel_bytes()
            + sideband.ring_bytes()
            + timeline.objects.copied_bytes(),
        tables: unwinding.figures(),
        unknown_interpreters: unwinding.unknown_interpreters(timeline.objects.sampled_tables()),
        blocks,
        off_cpu_only: args.off_cpu_only,
        rereads: timeline.rereads,
        ..Summary::default()
    };
    drop((sampler, sideband, unwinding));
    let (mut finished, objects) = timeline.finish();
    summary.missing = objects.missing();
    summary.of_32_bits = objects.of_32_bits();
    summary.scripts = finished.scripts(&objects);
    summary.complete = finished.samples.complete;
    summary.incomplete = std::mem::take(&mut finished.samples.incomplete);
    summary.without_ids = finished.without_ids;
    if let Some(blocks) = &mut summary.blocks {
        blocks.taken += blocked;
        blocks.stacks = std::mem::take(&mut finished.blocks);
        blocks.wakers = std::mem::take(&mut finished.wakings);
        blocks.threads = finished.threads;
    }
    if let Some(statistics) = &mut programs {
        chains::split(statistics, &finished.samples_in_bpf(&objects));
        sampled::add_to(&mut finished.profile, statistics);
    }
    summary.programs = programs;
    containers.name(&mut finished.profile);
    if let Some(event) = &plan.event {
        about::weigh(&mut finished.profile, event, counted);
        let events =
            finished.profile.sample_type(Some(&event.name)).map_or(0, |at| finished.profile.total(at));
        summary.event = Some(SampledEvent {
            name: event.name.clone(),
            one_in: plan.one_in(args),
            most_hz: args.frequency,
            events: events.cast_unsigned(),
            is_counted: counted.is_some(),
        });
    }
    finished.profile.time_ns = about::unix_ns(start_ns);
    finished.profile.duration_ns = duration.as_nanos() as i64;
    finished.profile.comments = about::comments(&summary);

    if let Some(output) = output {
        naming::name_and_write(args, finished, &objects, &summary, &mut signals, output)?;
    }
    if summary.taken() == 0 && !keep.failed {
        say!("profiler: {}", about::explain_nothing(args, &plan, &summary, target_ns));
    }
    Ok(status(child, &reason, keep.failed, signals))
}

/// The exit status: the command's, or else whether all steps of the recording went well.
fn status(child: Option<Child>, reason: &End, failed: bool, signals: Signals) -> i32 {
    // There is only the end to come: no signal is needed for it, and none may change the status.
    let Some(mut child) = child else { return i32::from(failed) };
    // Waiting for a command is what one may want to end.
    signals.release();
    match reason {
        End::Child(status) => *status,
        End::Time => {
            child.signal(nix::sys::signal::Signal::SIGTERM);
            child.wait();
            0
        }
        End::Signal => child.wait(),
    }
}

/// Steps of a recording from which there are samples already: whatever goes wrong, what there is will be written.
struct Keep {
    failed: bool,
}

impl Keep {
    /// Does a step.
    fn on<T>(&mut self, what: &str, otherwise: T, step: impl FnOnce() -> Result<T>) -> T {
        attempt(step).unwrap_or_else(|failed| {
            say!("profiler: {what} failed, and what was recorded until then is written: {failed}");
            self.failed = true;
            otherwise
        })
    }

    /// Does a step without which the samples are all there.
    fn beside<T>(&self, what: &str, otherwise: T, step: impl FnOnce() -> Result<T>) -> T {
        attempt(step).unwrap_or_else(|failed| {
            say!("profiler: {what} failed, and everything else is written: {failed}");
            otherwise
        })
    }
}

fn attempt<T>(step: impl FnOnce() -> Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(done) => done.map_err(|error| format!("{error:#}")),
        Err(_) => Err("a fault of this program, please report it".to_owned()),
    }
}

/// Why a recording ended.
enum End {
    Time,
    Signal,
    Child(i32),
}

/// Lets the machine run until the recording ends, keeping the model of it up to date.
fn follow(
    args: &RecordArgs,
    plan: &Plan,
    signals: &mut Signals,
    child: &mut Option<Child>,
    recorder: &mut Recorder,
    (rotation, checkpoint, output): (&mut Option<Rotation>, &mut Option<Checkpoint>, &Option<Pending>),
) -> Result<End> {
    let progress = Progress::new();
    let started = Instant::now();
    let mut pace = Pace::new(plan);
    loop {
        let left = args.duration.map(|duration| duration.saturating_sub(started.elapsed()));
        Pace::wait(signals, Some((recorder, &pace)), &[], left.unwrap_or(Duration::MAX))?;
        let looked = Instant::now();
        assert!(args.panic_at.as_deref() != Some("recording") || !pace.has_drained, "as was asked for");
        recorder.sampler.take_turn();
        while let Some(received) = signals.receive() {
            if let Some(child) = child.as_ref().filter(|_| received.to_us_alone) {
                child.signal(received.signal);
            }
        }
        if let Some(status) = child.as_mut().and_then(Child::poll) {
            return Ok(End::Child(status));
        }
        if signals.interrupts > 0 {
            return Ok(End::Signal);
        }
        if left == Some(Duration::ZERO) || (child.is_none() && targets_are_gone(plan, &recorder.timeline)) {
            return Ok(End::Time);
        }
        if let Some(rotation) = rotation {
            rotation.tick(args, plan, recorder)?;
        }
        if let (Some(checkpoint), Some(output)) = (&mut *checkpoint, output) {
            checkpoint.tick(args, plan, recorder, output)?;
        }
        pace.look(looked, args, plan, recorder)?;
        if progress.is_visible() {
            let so_far = Summary {
                outcomes: Some(recorder.sampler.outcomes()?),
                blocks: recorder.sampler.blocks()?,
                off_cpu_only: args.off_cpu_only,
                ..Summary::default()
            };
            progress.recording(started.elapsed(), args.duration, &so_far);
        }
    }
}

/// Whether nothing that was asked for can still run.
fn targets_are_gone(plan: &Plan, timeline: &Timeline) -> bool {
    match &plan.config.filter {
        Filter::Everything => false,
        Filter::Processes(_) => timeline.processes.living().next().is_none(),
        Filter::Threads(tids) => !tids.iter().any(|&tid| proc::exists(tid)),
    }
}

/// Begins to watch BPF programs. Without it there is still all the rest.
pub(super) fn open_window(args: &RecordArgs, measures_itself: bool) -> Option<Window> {
    let denied = |what: &str| {
        say!("profiler: {what} is not recorded: {}", rights::refusal(&[Capability::SysAdmin]));
    };
    if args.no_bpf_stats {
        if !measures_itself && !rights::has(Capability::SysAdmin) {
            denied("what the sampler costs");
        }
        return None;
    }
    match Window::open() {
        Ok(window) => Some(window),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            denied("what BPF programs cost, the sampler included,");
            None
        }
        Err(error) => {
            say!("profiler: what BPF programs cost is not recorded: {error}");
            None
        }
    }
}

/// CPU time that the watched processes have used so far.
fn target_cpu_ns(plan: &Plan) -> u64 {
    plan.watched.iter().filter_map(|&tgid| proc::cpu_time_ns(tgid)).sum()
}
