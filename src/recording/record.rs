//! `profiler record`: the pipeline, from the command line to the file, top to bottom.
//!
//! The order of the first steps is what makes short-lived processes visible: the side-band listens
//! before `/proc` is read, both before the sampler starts, and the command waits for all of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::RecordArgs;
use crate::machine::rights::{self, Capability};
use crate::machine::signals::Signals;
use crate::machine::usage::{self, CpuTime};
use crate::naming;
use crate::programs::{Window, chains, sampled};
use crate::recording::about;
use crate::recording::capture::bpf::{self, Filter};
use crate::recording::capture::child::Child;
use crate::recording::capture::perf::event::Event;
use crate::recording::capture::perf::{self, Rate};
use crate::recording::capture::proc;
use crate::recording::counters::Counting;
use crate::recording::plan::Plan;
use crate::recording::progress::Progress;
use crate::recording::recorder::Recorder;
use crate::recording::summary::{SampledEvent, Summary};
use crate::recording::timeline::Timeline;
use crate::viewing::file::Pending;

/// How often the side-band is read while new files appear: soon enough to open them.
const BUSY_TICK: Duration = Duration::from_millis(10);
/// How often it is read otherwise. A ring that fills up ends the wait, and so does a sample of a
/// process that is not known yet.
const QUIET_TICK: Duration = Duration::from_millis(100);
/// In a storm of processes one is always new. So each look is followed by a rest of so many times its
/// own length, and not less than the shortest.
const REST_PER_LOOK: u32 = 50;
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// Records, and returns the exit status: the command's, or 0.
///
/// # Errors
/// If the machine or the user's rights do not allow it, a target does not exist, the command
/// cannot be run or the file cannot be written. No output remains then.
pub fn run(args: &RecordArgs) -> Result<i32> {
    let mut plan = Plan::new(args)?;
    bpf::probe()?;
    let mut signals = Signals::block(!args.command.is_empty())?;
    let output = Pending::create(&args.output)?;
    let mut child = match args.command.as_slice() {
        [] => None,
        command => Some(Child::fork(command)?),
    };
    if let (Some(child), Filter::Processes(ids)) = (&child, &mut plan.config.filter) {
        ids.push(child.tgid());
        plan.config.command = Some(child.tgid());
    }
    // After the fork: the command keeps the limit that it was given.
    usage::raise_file_limit();

    let mut recorder = Recorder::listen(args, &mut plan)?;
    recorder.programs = open_window(args, recorder.sampler.measures_itself());
    let clocked = if args.off_cpu_only { &[][..] } else { &plan.cpus };
    // A tracepoint's program runs on all CPUs, whichever its event is on.
    let is_tracepoint = plan.event.as_ref().is_some_and(Event::is_tracepoint);
    let clocked = if is_tracepoint { &clocked[..1] } else { clocked };
    let rate = args.count.map_or(Rate::Hz(args.frequency), Rate::OneIn);
    let clocks = clocked.iter().map(|&cpu| match &plan.event {
        None => perf::open_clock(cpu, args.frequency, args.include_idle),
        Some(event) => perf::open_sampled(event, cpu, rate),
    });
    let clocks = clocks.collect::<Result<_>>()?;
    let counting = Counting::begin(args, &plan, child.as_ref().map(Child::tgid));
    recorder.sampler.attach(clocks)?;
    for missing in recorder.sideband.missing.iter().chain(&recorder.sampler.missing) {
        say!("profiler: this kernel lacks {missing}");
    }
    if let Some(lost) = rights::without_names() {
        say!("profiler: {lost}");
    }

    let machine_before = CpuTime::of(&plan.cpus);
    let target_before = target_cpu_ns(&plan);
    let own_before = usage::own_cpu_s();
    let (started, start_ns) = (Instant::now(), proc::now_ns());
    if let Some(child) = &mut child {
        child.release()?;
    }
    let reason = follow(args, &plan, &mut signals, &mut child, &mut recorder)?;
    recorder.sampler.end_counters()?;
    let counted = counting.sampled();
    if let End::Child(_) = reason {
        recorder.read()?;
        about::say_who_goes_on(recorder.timeline.processes.living().collect());
    }
    let mut programs = recorder.programs.take().and_then(|window| window.close().ok());
    let blocked = recorder.flush_threads()?;
    recorder.sampler.detach();
    let duration = started.elapsed();
    let target_ns = target_cpu_ns(&plan).saturating_sub(target_before);
    // Twice: what was counted into one map while the other was drained.
    for _ in 0..2 {
        recorder.drain()?;
    }
    // Once more: what was read again is applied.
    recorder.read()?;
    recorder.settle();

    let Recorder { sideband, mut sampler, timeline, unwinding, containers, .. } = recorder;
    let used = sampler.used()?;
    let cpu = CpuTime::of(&plan.cpus).since(machine_before);
    let mut summary = Summary {
        duration_s: duration.as_secs_f64(),
        cpus: plan.cpus.len(),
        frequency_hz: args.frequency,
        outcomes: sampler.outcomes()?,
        sideband_lost: sideband.lost,
        cpu,
        counters: counting.end(used, duration.as_nanos() as u64, plan.cpus.len(), cpu),
        cost: sampler.cost(),
        own_cpu_s: usage::own_cpu_s() - own_before,
        own_peak_bytes: usage::own_peak_bytes(),
        kernel_bytes: sampler.map_bytes() + sideband.ring_bytes() + timeline.objects.copied_bytes(),
        tables: unwinding.figures(),
        blocks: sampler.blocks()?,
        off_cpu_only: args.off_cpu_only,
        rereads: timeline.rereads,
        ..Summary::default()
    };
    drop((sampler, sideband, unwinding));
    let (mut finished, objects) = timeline.finish();
    summary.missing = objects.missing();
    summary.scripts = finished.scripts(&objects);
    summary.complete = finished.samples.complete;
    summary.incomplete = std::mem::take(&mut finished.samples.incomplete);
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

    naming::name_and_write(args, finished, &objects, &summary, &mut signals, output)?;
    if summary.taken() == 0 {
        say!("profiler: {}", about::explain_nothing(args, &plan, &summary, target_ns));
    }
    signals.release();
    Ok(match child {
        None => 0,
        Some(mut child) => match reason {
            End::Child(status) => status,
            End::Time => {
                child.signal(nix::sys::signal::Signal::SIGTERM);
                child.wait();
                0
            }
            End::Signal => child.wait(),
        },
    })
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
) -> Result<End> {
    let progress = Progress::new();
    let started = Instant::now();
    let mut drained = started;
    let mut tick = BUSY_TICK;
    let mut rest = SHORTEST_REST;
    let mut lost = 0;
    loop {
        let left = args.duration.map(|duration| duration.saturating_sub(started.elapsed()));
        wait(signals, recorder, rest, left.map_or(tick, |left| left.min(tick)))?;
        let looked = Instant::now();
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
        if recorder.sideband.lost > lost {
            // What was not told can be seen, as far as it still lives.
            lost = recorder.sideband.lost;
            recorder.look_again(plan);
        }
        if drained.elapsed() >= recorder.sampler.sizes.interval || recorder.sampler.is_half_full() {
            recorder.drain()?;
            drained = Instant::now();
        } else {
            tick = if recorder.read()? { BUSY_TICK } else { (tick * 2).min(QUIET_TICK) };
        }
        rest = (looked.elapsed() * REST_PER_LOOK).clamp(SHORTEST_REST, BUSY_TICK);
        if progress.is_visible() {
            let so_far = Summary {
                outcomes: recorder.sampler.outcomes()?,
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

/// Sleeps until a signal, a ring that wants to be read, or the timeout; samples of unknown processes
/// count after a rest.
fn wait(signals: &Signals, recorder: &Recorder, rest: Duration, timeout: Duration) -> Result<()> {
    let dumps = recorder.sampler.dumps_fd();
    if dumps.is_some() {
        std::thread::sleep(rest.min(timeout));
    }
    let timeout = if dumps.is_some() { timeout.saturating_sub(rest) } else { timeout };
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(signals.fd(), PollFlags::POLLIN)];
    fds.extend(recorder.sideband.fds().chain(dumps).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // Rounded up: a timeout of 0 would spin through the last millisecond.
    let timeout = PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("failed to wait for events"),
    }
}

/// Begins to watch BPF programs. Without it there is still all the rest.
fn open_window(args: &RecordArgs, measures_itself: bool) -> Option<Window> {
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
