//! `profiler record`: the pipeline, from the command line to the file, top to bottom.
//!
//! The order of the first steps is what makes short-lived processes visible: the side-band listens
//! before `/proc` is read, both before the sampler starts, and the command waits for all of them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::RecordArgs;
use crate::machine::signals::Signals;
use crate::machine::usage::{self, CpuTime};
use crate::model::event::{Event, Timed};
use crate::model::process::Processes;
use crate::model::profile::{Profile, ValueType};
use crate::naming;
use crate::programs::{Window, chains, sampled};
use crate::recording::capture::bpf::{self, Filter, Sampler};
use crate::recording::capture::child::Child;
use crate::recording::capture::perf::{self, Sideband};
use crate::recording::capture::proc;
use crate::recording::plan::Plan;
use crate::recording::progress::Progress;
use crate::recording::summary::Summary;
use crate::recording::tally::Tally;
use crate::recording::timeline::Timeline;
use crate::recording::unwinding::Unwinding;
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
    }
    // After the fork: the command keeps the limit that it was given.
    usage::raise_file_limit();

    let mut machine = Machine::listen(args, &mut plan)?;
    machine.programs = open_window(args);
    let clocked = if args.off_cpu_only { &[][..] } else { &plan.cpus };
    let clocks = clocked.iter().map(|&cpu| perf::open_clock(cpu, args.frequency, args.include_idle));
    machine.sampler.attach(clocks.collect::<Result<_>>()?)?;
    for missing in machine.sideband.missing.iter().chain(&machine.sampler.missing) {
        eprintln!("profiler: this kernel lacks {missing}");
    }

    let machine_before = CpuTime::of(&plan.cpus);
    let target_before = target_cpu_ns(&plan);
    let own_before = usage::own_cpu_s();
    let (started, start_ns) = (Instant::now(), proc::now_ns());
    if let Some(child) = &mut child {
        child.release()?;
    }
    let reason = follow(args, &plan, &mut signals, &mut child, &mut machine)?;
    let mut programs = machine.programs.take().and_then(|window| window.close().ok());
    let blocked = machine.flush_threads()?;
    machine.sampler.detach();
    let duration = started.elapsed();
    let target_ns = target_cpu_ns(&plan).saturating_sub(target_before);
    // Twice: what was counted into one map while the other was drained.
    for _ in 0..2 {
        machine.drain()?;
    }
    machine.unwinding.wait_for_tables(&machine.timeline.objects);
    machine.take_late();

    let Machine { sideband, sampler, timeline, unwinding, .. } = machine;
    let mut summary = Summary {
        duration_s: duration.as_secs_f64(),
        cpus: plan.cpus.len(),
        frequency_hz: args.frequency,
        outcomes: sampler.outcomes()?,
        sideband_lost: sideband.lost,
        cpu: CpuTime::of(&plan.cpus).since(machine_before),
        cost: sampler.cost(),
        own_cpu_s: usage::own_cpu_s() - own_before,
        own_peak_bytes: usage::own_peak_bytes(),
        kernel_bytes: sampler.map_bytes() + sideband.ring_bytes(),
        tables: unwinding.figures(),
        blocks: sampler.blocks()?,
        off_cpu_only: args.off_cpu_only,
        ..Summary::default()
    };
    drop((sampler, sideband, unwinding));
    let (mut finished, objects) = timeline.finish();
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
    finished.profile.time_ns = unix_ns(start_ns);
    finished.profile.duration_ns = duration.as_nanos() as i64;
    finished.profile.comments = comments(&summary);

    naming::name_and_write(args, finished, &objects, &summary, &mut signals, output)?;
    if summary.taken() == 0 {
        eprintln!("profiler: {}", explain_nothing(args, &plan, &summary, target_ns));
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
    machine: &mut Machine,
) -> Result<End> {
    let progress = Progress::new();
    let started = Instant::now();
    let mut drained = started;
    let mut tick = BUSY_TICK;
    let mut rest = SHORTEST_REST;
    let mut lost = 0;
    loop {
        let left = args.duration.map(|duration| duration.saturating_sub(started.elapsed()));
        wait(signals, machine, rest, left.map_or(tick, |left| left.min(tick)))?;
        let looked = Instant::now();
        machine.sampler.take_turn();
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
        if left == Some(Duration::ZERO) || (child.is_none() && targets_are_gone(plan, &machine.timeline)) {
            return Ok(End::Time);
        }
        if machine.sideband.lost > lost {
            // What was not told can be seen, as far as it still lives.
            lost = machine.sideband.lost;
            machine.timeline.inbox().extend(snapshot(plan));
        }
        if drained.elapsed() >= machine.sampler.sizes.interval || machine.sampler.is_half_full() {
            machine.drain()?;
            drained = Instant::now();
        } else {
            tick = if machine.read()? { BUSY_TICK } else { (tick * 2).min(QUIET_TICK) };
        }
        rest = (looked.elapsed() * REST_PER_LOOK).clamp(SHORTEST_REST, BUSY_TICK);
        if progress.is_visible() {
            let so_far = Summary {
                outcomes: machine.sampler.outcomes()?,
                blocks: machine.sampler.blocks()?,
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
        Filter::Processes(_) => timeline.processes.living() == 0,
        Filter::Threads(tids) => !tids.iter().any(|&tid| proc::exists(tid)),
    }
}

/// Sleeps until a signal, a ring that wants to be read, or the timeout; samples of unknown processes
/// count after a rest.
fn wait(signals: &Signals, machine: &Machine, rest: Duration, timeout: Duration) -> Result<()> {
    let dumps = machine.sampler.dumps_fd();
    if dumps.is_some() {
        std::thread::sleep(rest.min(timeout));
    }
    let timeout = if dumps.is_some() { timeout.saturating_sub(rest) } else { timeout };
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(signals.fd(), PollFlags::POLLIN)];
    fds.extend(machine.sideband.fds().chain(dumps).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    // Rounded up: a timeout of 0 would spin through the last millisecond.
    let timeout = PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error).context("failed to wait for events"),
    }
}

/// Everything that listens to the machine, and the model of it that comes of that.
struct Machine {
    sideband: Sideband,
    sampler: Sampler,
    timeline: Timeline,
    unwinding: Unwinding,
    /// What BPF programs cost, if that is recorded.
    programs: Option<Window>,
}

impl Machine {
    /// Opens the side-band, reads what runs already, makes its unwind tables, loads the sampler.
    fn listen(args: &RecordArgs, plan: &mut Plan) -> Result<Self> {
        let sideband = Sideband::open(&plan.online, sideband_pages(plan.online.len()))?;
        let mut timeline =
            Timeline::new(processes(plan), Tally::new(empty_profile(args), short_blocks(args)));
        let mut unwinding = Unwinding::default();
        timeline.inbox().extend(snapshot(plan));
        timeline.advance(proc::now_ns(), |_, _, _, _| None);
        if plan.walk_by_tables {
            unwinding.prepare(&timeline.processes, &timeline.objects);
            let mut capacity = unwinding.capacity();
            if let Some([chunks, mappings]) = args.table_limits.as_deref() {
                (capacity.chunks, capacity.mappings) = (*chunks, *mappings);
            }
            plan.config.tables = Some(capacity);
        }
        let sampler = Sampler::load(&plan.config)?;
        if let Some(tables) = sampler.tables()? {
            unwinding.publish(tables, &mut timeline.processes, &timeline.objects);
        }
        Ok(Self { sideband, sampler, timeline, unwinding, programs: None })
    }

    /// Reads all rings and applies what happened; says whether the next look should be soon: new
    /// files are there to be opened, or new mappings to be walked by, or stacks arrive in numbers.
    fn read(&mut self) -> Result<bool> {
        self.take_late();
        let Self { sideband, sampler, timeline, unwinding, .. } = self;
        let now_ns = proc::now_ns();
        let known = timeline.objects.iter().len();
        let many = sampler.read_stacks(timeline.inbox())?;
        sideband.read(timeline.inbox());
        timeline.advance(now_ns, |time_ns, dump, processes, objects| {
            unwinding.unwind(time_ns, dump, processes, objects)
        });
        let published = unwinding.update(&mut timeline.processes, &timeline.objects);
        Ok(many || published || timeline.objects.iter().len() > known)
    }

    /// Takes the stacks whose tables have come.
    fn take_late(&mut self) {
        for (time_ns, then, stack) in self.unwinding.take_late() {
            self.timeline.late(time_ns, &then, &stack);
        }
    }

    /// Takes the counts of the interval that ends now.
    fn drain(&mut self) -> Result<()> {
        if let Some(programs) = &mut self.programs {
            programs.tick();
        }
        let end_ns = proc::now_ns();
        let counts = self.sampler.drain()?;
        self.unwinding.settle();
        self.read()?;
        self.timeline.count(&counts, end_ns);
        Ok(())
    }

    /// Ends the time of all threads; returns how many were blocked. The stacks of those are walked one
    /// by one: together they would be large.
    fn flush_threads(&mut self) -> Result<u64> {
        let mut counts = Vec::new();
        let Self { sideband, sampler, timeline, unwinding, .. } = self;
        sideband.read(timeline.inbox());
        sampler.flush_threads(|thread, stack| {
            let now_ns = thread.time_ns;
            timeline.inbox().push(thread);
            if let Some((dump, count)) = stack {
                timeline.inbox().push(Timed { time_ns: now_ns, event: Event::Dump(dump) });
                counts.push(count);
            }
            timeline.advance(now_ns, |time_ns, dump, processes, objects| {
                unwinding.unwind(time_ns, dump, processes, objects)
            });
        })?;
        timeline.tally.count(&counts, 0);
        Ok(counts.len() as u64)
    }
}

/// Begins to watch BPF programs. Without it there is still all the rest.
fn open_window(args: &RecordArgs) -> Option<Window> {
    if args.no_bpf_stats {
        return None;
    }
    Window::open()
        .map_err(|error| eprintln!("profiler: what BPF programs cost is not recorded: {error}"))
        .ok()
}

fn processes(plan: &Plan) -> Processes {
    let mut processes = Processes::new(plan.models_everything());
    match &plan.config.filter {
        Filter::Everything => {}
        Filter::Processes(ids) => ids.iter().for_each(|&tgid| processes.follow(tgid)),
        Filter::Threads(_) => plan.watched.iter().for_each(|&tgid| processes.follow(tgid)),
    }
    processes
}

/// What runs already, as the events that led to it.
fn snapshot(plan: &Plan) -> Vec<Timed> {
    let processes = match &plan.config.filter {
        _ if plan.models_everything() => proc::processes(),
        Filter::Everything => proc::processes(),
        Filter::Processes(ids) => ids.clone(),
        Filter::Threads(_) => plan.watched.clone(),
    };
    let mut events = Vec::new();
    proc::snapshot_bpf(&mut events);
    for tgid in processes {
        proc::snapshot(tgid, &mut events);
    }
    events
}

/// Rings take 512 KiB per CPU: 5,000 records, of which a short process leaves ten. Large machines
/// get smaller ones, since their CPUs share the load.
fn sideband_pages(cpus: usize) -> usize {
    if cpus <= 16 { 128 } else { 32 }
}

fn empty_profile(args: &RecordArgs) -> Profile {
    let mut profile = Profile::default();
    let on = [("samples", "count"), ("cpu", "nanoseconds")];
    let off = [("off_cpu_events", "count"), ("off_cpu", "nanoseconds")];
    // Not of stacks but of threads: how long each ran exactly, and how long it was watched.
    let threads = [("thread_cpu", "nanoseconds"), ("thread_lifetime", "nanoseconds")];
    let bpf = [(sampled::RUNS, "count"), (sampled::TIME, "nanoseconds")];
    let recorded = [
        (!args.off_cpu_only, on),
        (args.off_cpu || args.off_cpu_only, off),
        (args.off_cpu || args.off_cpu_only, threads),
        (!args.no_bpf_stats, bpf),
    ];
    let types = recorded.iter().filter(|(wanted, _)| *wanted).flat_map(|(_, types)| types);
    profile.sample_types = types.map(|(name, unit)| ValueType::new(name, unit)).collect();
    profile.default_sample_type = if args.off_cpu_only { "off_cpu" } else { "cpu" }.to_owned();
    profile.period_type = ValueType::new("cpu", "nanoseconds");
    profile.period = bpf::period_ns(args.frequency) as i64;
    profile
}

/// The frame of blocks that have no stack, by what was asked for; empty if none was.
fn short_blocks(args: &RecordArgs) -> String {
    if !(args.off_cpu || args.off_cpu_only) {
        return String::new();
    }
    let shortest = (!args.min_block.is_zero()).then(|| format!("< {}", length(args.min_block)));
    let longest = args.max_block.map(|longest| format!("> {}", length(longest)));
    let states = args.state.as_ref().map(|states| format!("not in {}", states.letters));
    let left_out: Vec<String> = [shortest, longest, states].into_iter().flatten().collect();
    if left_out.is_empty() {
        // There was no room, or the recording ended just then.
        return "[blocked: no stack]".to_owned();
    }
    format!("[blocked {}]", left_out.join(" or "))
}

/// A length in the largest unit of which it is a multiple.
fn length(time: Duration) -> String {
    let ns = time.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns")];
    let (unit, name) =
        units.into_iter().find(|(unit, _)| u128::is_multiple_of(ns, *unit)).unwrap_or((1, "ns"));
    format!("{} {name}", ns / unit)
}

/// Wall-clock time of a moment on the monotonic clock.
fn unix_ns(monotonic_ns: u64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as i64 - proc::now_ns().saturating_sub(monotonic_ns) as i64
}

/// What is told to people who open the file elsewhere.
fn comments(summary: &Summary) -> Vec<String> {
    let command: Vec<String> = std::env::args().collect();
    let mut comments = vec![
        format!("command: {}", command.join(" ")),
        format!("profiler {} on Linux {}", env!("CARGO_PKG_VERSION"), usage::kernel()),
        format!(
            "frequency: {} Hz on {} CPUs, {:.3} s",
            summary.frequency_hz, summary.cpus, summary.duration_s
        ),
        format!("samples: {}", summary.equation()),
    ];
    comments.extend(summary.blocks.as_ref().map(|blocks| format!("blocks: {}", blocks.equation())));
    comments.extend(summary.incomplete.iter().map(|(why, n)| format!("incomplete: {} {n}", why.reason())));
    comments.extend(summary.lost().iter().map(|(why, n)| format!("lost: {} {n}", why.reason())));
    if summary.excluded() > 0 {
        comments.push(format!("not sampled beside other BPF programs: about {}", summary.excluded()));
    }
    comments.push(format!("side-band records lost: {}", summary.sideband_lost));
    comments
}

/// CPU time that the watched processes have used so far.
fn target_cpu_ns(plan: &Plan) -> u64 {
    plan.watched.iter().filter_map(|&tgid| proc::cpu_time_ns(tgid)).sum()
}

/// Why there are no samples, or no blocks.
fn explain_nothing(args: &RecordArgs, plan: &Plan, summary: &Summary, target_ns: u64) -> String {
    let seconds = summary.duration_s;
    let period_ms = 1e3 / f64::from(args.frequency);
    if let (true, Some(blocks)) = (args.off_cpu_only, &summary.blocks) {
        let frame = short_blocks(args);
        return match blocks.threads {
            0 => format!("0 blocks: no thread was there in {seconds:.1} s"),
            threads => format!(
                "0 blocks: the {threads} threads were on a CPU, waited for one, or were {frame}, in {seconds:.1} s; \
                 profiler threads tells how long, --min-block 0 takes all blocks"
            ),
        };
    }
    let why = if !plan.watched.is_empty() {
        format!(
            "the target used {} ms of CPU in {seconds:.1} s: it waits rather than computes; {}",
            target_ns / 1_000_000,
            if args.off_cpu { "profiler flamegraph --type off-cpu shows where" } else { "try --off-cpu" }
        )
    } else if !args.command.is_empty() {
        format!(
            "the command ran for {:.0} ms and used less CPU than the {period_ms:.0} ms between two samples; try a higher -F",
            seconds * 1e3
        )
    } else if args.cgroup.is_some() {
        format!("no task of the cgroup was on a CPU at a sample in {seconds:.1} s")
    } else {
        format!(
            "the CPUs were busy for {:.0} ms of {seconds:.1} s; a longer -d sees more, -I shows idle CPUs too",
            summary.cpu.busy_s * 1e3
        )
    };
    format!("0 samples: {why}")
}
