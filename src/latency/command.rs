//! `profiler latency`, from the command line to the histograms and, with `--slower-than`, the file.

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;

use super::cost::{Cost, Guard};
use super::report::{self, time};
use super::target::Target;
use crate::cli::{Cli, Command, LatencyArgs, RecordArgs};
use crate::machine::cgroups;
use crate::machine::signals::Signals;
use crate::machine::usage::{self, CpuTime, RoomForFiles};
use crate::model::profile::{Profile, ValueType};
use crate::naming;
use crate::recording::about;
use crate::recording::capture::bpf::latency::{Config, Latency};
use crate::recording::capture::bpf::{self, Filter, Sampler};
use crate::recording::capture::child::Child;
use crate::recording::capture::proc;
use crate::recording::pace::Pace;
use crate::recording::plan::Plan;
use crate::recording::recorder::Recorder;
use crate::recording::summary::Summary;
use crate::recording::tallies::Tallies;
use crate::text::thousands;
use crate::viewing::file::Pending;

/// How often the cost is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What listens: the BPF programs alone, or all that it takes to know stacks.
enum Listener {
    Counts(Box<Sampler>),
    Stacks(Box<Recorder>, Pending),
}

impl Listener {
    fn sampler(&mut self) -> &mut Sampler {
        match self {
            Self::Counts(sampler) => sampler,
            Self::Stacks(recorder, _) => &mut recorder.sampler,
        }
    }
}

/// Measures, prints, and returns the exit status: the command's, or 0.
///
/// # Errors
/// If the target is not there or cannot be measured, rights are missing, or what was found cannot be written.
pub fn run(args: &LatencyArgs) -> Result<i32> {
    let record = as_record(args);
    let mut plan = Plan::new(&record)?;
    let processes = match &plan.cgroup {
        Some(cgroup) if args.pid.is_empty() => cgroups::members(&cgroup.directory),
        _ => args.pid.clone(),
    };
    let target = Target::find(&args.target, &processes, args.even_if_it_throws)?;
    bpf::probe()?;
    let slower_than_ns =
        args.slower_than.map(|shortest| u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX));
    let mut signals = Signals::block(!args.command.is_empty())?;
    let output = slower_than_ns.map(|_| Pending::private(&args.output)).transpose()?;
    let mut child = match args.command.as_slice() {
        [] => None,
        command => Some(Child::fork(command)?),
    };
    if let (Some(child), Filter::Processes(ids)) = (&child, &mut plan.config.filter) {
        ids.push(child.tgid());
    }
    let cost = Cost::measure(&target.probe, &plan.config)?;
    plan.config.latency = Some(Config { probe: target.probe.clone(), slower_than_ns });
    let mut listener = match output {
        None => Listener::Counts(Box::new(Sampler::load(&plan.config)?)),
        Some(output) => {
            let room = RoomForFiles::make(plan.online.len());
            plan.fit(room);
            let mut recorder = Recorder::listen(&record, &mut plan, room)?;
            recorder.timeline.tally = Tallies::of_all(empty_profile(), String::new());
            recorder.timeline.tally.set_called(&target.called);
            Listener::Stacks(Box::new(recorder), output)
        }
    };
    let attached = listener.sampler().attach(Vec::new());
    attached.with_context(|| format!("failed to measure {}", target.name))?;
    let machine_before = CpuTime::of(&plan.cpus);
    let own_before = usage::own_cpu_s();
    let (began, start_ns) = (Instant::now(), proc::now_ns());
    if let Some(child) = &mut child {
        child.release()?;
    }
    let mut guard = cost.map(|cost| Guard::new(cost, args.max_cost / 100.0));
    let end = follow(args, &record, &plan, &mut signals, &mut child, &mut listener, guard.as_mut())?;
    let duration = began.elapsed();
    let runs = listener.sampler().latency_runs()?;
    listener.sampler().detach();
    let latencies = listener.sampler().latencies()?;

    let report = report::text(&target.name, duration.as_secs_f64(), &latencies, args.per_process);
    // Where the stacks go to standard output there is no place for anything else.
    match &listener {
        Listener::Stacks(..) if args.output.as_os_str() == "-" => say!("{}", report.trim_end()),
        _ => print(&report)?,
    }
    let spent = cost.map(|cost| (cost, cost.of(runs) / 1e9));
    match spent {
        Some((cost, seconds)) => {
            let others = if cost.other_ns > 0.0 {
                format!(", and each other system call of the machine {}", time(cost.other_ns))
            } else {
                String::new()
            };
            say!(
                "profiler: measuring costs a call {}{others}: {:.3} s in all, {:.2}% of one CPU",
                time(cost.call_ns),
                seconds,
                100.0 * seconds / duration.as_secs_f64()
            );
        }
        None => say!("profiler: what measuring costs a call is not known on this kernel"),
    }
    if let End::Cost(share) = end {
        say!(
            "profiler: ended by itself: measuring cost {:.1}% of one CPU, and --max-cost is {}%; -p or -G measure less, a higher --max-cost goes on",
            100.0 * share,
            args.max_cost
        );
    }
    if latencies.iter().all(|latency| latency.calls == 0) {
        say!("profiler: 0 calls: nothing that is measured has called it in {:.1} s", duration.as_secs_f64());
    }
    if let Listener::Stacks(recorder, output) = listener {
        let cpu = CpuTime::of(&plan.cpus).since(machine_before);
        write(
            args,
            &record,
            &target,
            *recorder,
            output,
            &latencies,
            (start_ns, duration, cpu, own_before),
            &mut signals,
        )?;
    }
    signals.release();
    Ok(match (child, end) {
        (None, _) => 0,
        (Some(_), End::Child(status)) => status,
        (Some(mut child), End::Time) => {
            child.signal(nix::sys::signal::Signal::SIGTERM);
            child.wait();
            0
        }
        (Some(mut child), _) => child.wait(),
    })
}

/// Why it ended.
enum End {
    Time,
    Signal,
    Child(i32),
    /// It cost too much: the share of a CPU.
    Cost(f64),
}

fn follow(
    args: &LatencyArgs,
    record: &RecordArgs,
    plan: &Plan,
    signals: &mut Signals,
    child: &mut Option<Child>,
    listener: &mut Listener,
    mut guard: Option<&mut Guard>,
) -> Result<End> {
    let began = Instant::now();
    let mut asked = began;
    let mut pace = Pace::new(plan);
    loop {
        let left = args.duration.map(|duration| duration.saturating_sub(began.elapsed()));
        let at_most = left.map_or(TICK, |left| left.min(TICK));
        // Stacks of what has just begun wait for its tables, as in any recording.
        let recorder = match &*listener {
            Listener::Stacks(recorder, _) => Some((&**recorder, &pace)),
            Listener::Counts(_) => None,
        };
        Pace::wait(signals, recorder, &[], at_most)?;
        let looked = Instant::now();
        while let Some(received) = signals.receive() {
            if let Some(child) = child.as_ref().filter(|_| received.to_us_alone) {
                child.signal(received.signal);
            }
        }
        let mut too_much = None;
        if let Some(guard) = guard.as_mut().filter(|_| asked.elapsed() >= TICK) {
            asked = looked;
            too_much = guard.is_too_much(looked, listener.sampler().latency_runs()?);
        }
        if let Listener::Stacks(recorder, _) = listener {
            pace.look(looked, record, plan, recorder)?;
        }
        if let Some(status) = child.as_mut().and_then(Child::poll) {
            return Ok(End::Child(status));
        }
        if let Some(share) = too_much {
            return Ok(End::Cost(share));
        }
        if signals.interrupts > 0 {
            return Ok(End::Signal);
        }
        let is_gone = |tgid: &u32| !proc::exists(*tgid);
        let gone = child.is_none() && !plan.watched.is_empty() && plan.watched.iter().all(is_gone);
        if left == Some(Duration::ZERO) || gone {
            return Ok(End::Time);
        }
    }
}

/// The same targets, as a recording has them.
fn as_record(args: &LatencyArgs) -> RecordArgs {
    let mut line: Vec<std::ffi::OsString> =
        ["profiler", "record", "--no-bpf-stats", "-o"].map(Into::into).into();
    line.push(args.output.clone().into());
    for pid in &args.pid {
        line.extend(["-p".into(), pid.to_string().into()]);
    }
    if let Some(cgroup) = &args.cgroup {
        line.extend(["-G".into(), cgroup.clone().into()]);
    }
    if !args.command.is_empty() {
        line.push("--".into());
        line.extend(args.command.iter().cloned());
    }
    match Cli::parse_from(line).command {
        Command::Record(record) => record,
        _ => unreachable!("the second word of the line is `record`"),
    }
}

fn empty_profile() -> Profile {
    let types = [("calls", "count"), ("latency", "nanoseconds")];
    let mut profile = Profile::new(types.map(|(name, unit)| ValueType::new(name, unit)).to_vec());
    profile.default_sample_type = "latency".to_owned();
    profile.period_type = ValueType::new("calls", "count");
    profile.period = 1;
    profile
}

/// Names and writes the stacks of slow calls.
#[allow(clippy::too_many_arguments)] // a step of `run`, with what it has at hand
fn write(
    args: &LatencyArgs,
    record: &RecordArgs,
    target: &Target,
    mut recorder: Recorder,
    output: Pending,
    latencies: &[Latency],
    (start_ns, duration, cpu, own_before): (u64, Duration, CpuTime, f64),
    signals: &mut Signals,
) -> Result<()> {
    for _ in 0..2 {
        recorder.drain()?;
    }
    recorder.read()?;
    recorder.settle();
    let Recorder { sideband, sampler, timeline, unwinding, containers, .. } = recorder;
    let slow: u64 = latencies.iter().map(|latency| latency.slow).sum();
    let shortest = args.slower_than.map_or(0.0, |shortest| shortest.as_nanos() as f64);
    let mut summary = Summary {
        duration_s: duration.as_secs_f64(),
        cpus: usize::try_from(
            nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)?.unwrap_or(1),
        )?,
        outcomes: Some(sampler.slow_outcomes()?),
        sideband_lost: sideband.lost,
        cpu,
        own_cpu_s: usage::own_cpu_s() - own_before,
        own_peak_bytes: usage::own_peak_bytes(),
        kernel_bytes: sampler.map_bytes()
            + unwinding.kernel_bytes()
            + sideband.ring_bytes()
            + timeline.objects.copied_bytes(),
        tables: unwinding.figures(),
        rereads: timeline.rereads,
        headline: Some(format!(
            "{} calls of {} took {} or longer",
            thousands(slow),
            target.name,
            time(shortest)
        )),
        ..Summary::default()
    };
    drop((sampler, sideband, unwinding));
    let (mut finished, objects) = timeline.finish();
    summary.missing = objects.missing();
    summary.complete = finished.samples.complete;
    summary.incomplete = std::mem::take(&mut finished.samples.incomplete);
    containers.name(&mut finished.profile);
    finished.profile.time_ns = about::unix_ns(start_ns);
    finished.profile.duration_ns = duration.as_nanos() as i64;
    finished.profile.comments = about::comments(&summary);
    naming::name_and_write(record, finished, &objects, &summary, signals, output)
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("failed to write to standard output")
        }
        _ => Ok(()),
    }
}
