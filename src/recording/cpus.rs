//! CPUs that go and come while a recording runs: taken offline by hand, by a hypervisor, by a suspend.
//!
//! The kernel takes the events of a CPU away with it, and does not give them back. So the list of CPUs is looked
//! at with each drain, and those that have come are listened to and sampled from then on. What happened on them
//! before is in no record: `/proc` is read again.

use std::os::fd::OwnedFd;

use anyhow::Result;

use crate::cli::RecordArgs;
use crate::recording::capture::perf::event::Event;
use crate::recording::capture::perf::{self, Rate};
use crate::recording::plan::Plan;
use crate::recording::recorder::Recorder;

/// What the sampler runs on, stopped until it is attached.
///
/// # Errors
/// If the kernel refuses it.
pub fn clocks(args: &RecordArgs, plan: &Plan) -> Result<Vec<OwnedFd>> {
    let clocked = if args.off_cpu_only { &[][..] } else { &plan.cpus };
    // A tracepoint's program runs on all CPUs, whichever its event is on.
    let is_tracepoint = plan.event.as_ref().is_some_and(Event::is_tracepoint);
    let clocked = if is_tracepoint { &clocked[..1] } else { clocked };
    clocked.iter().map(|&cpu| clock(args, plan, cpu)).collect()
}

fn clock(args: &RecordArgs, plan: &Plan, cpu: u32) -> Result<OwnedFd> {
    let rate = args.count.map_or(Rate::Hz(args.frequency), Rate::OneIn);
    match &plan.event {
        None => perf::open_clock(cpu, args.frequency, args.include_idle),
        Some(event) => perf::open_sampled(event, cpu, rate),
    }
}

/// Those that are online.
#[derive(Debug)]
pub struct Cpus {
    online: Vec<u32>,
}

impl Cpus {
    /// At the start.
    pub fn new(online: &[u32]) -> Self {
        Self { online: online.to_vec() }
    }

    /// Takes in what has changed, and says it.
    pub fn follow(&mut self, args: &RecordArgs, plan: &Plan, recorder: &mut Recorder) {
        let Ok(now) = perf::online_cpus() else { return };
        if now == self.online {
            return;
        }
        for cpu in self.online.iter().filter(|cpu| !now.contains(cpu)) {
            say!("profiler: CPU {cpu} went offline: it is not sampled until it comes back");
        }
        let came: Vec<u32> = now.iter().filter(|cpu| !self.online.contains(cpu)).copied().collect();
        for &cpu in &came {
            let is_tracepoint = plan.event.as_ref().is_some_and(Event::is_tracepoint);
            let wanted = args.cpu.is_none() || plan.cpus.contains(&cpu);
            let wanted = wanted && !args.off_cpu_only && !is_tracepoint;
            let clock = wanted.then(|| clock(args, plan, cpu)).transpose();
            let opened = recorder.sideband.listen_to(cpu).and(clock);
            match opened.and_then(|clock| clock.map_or(Ok(()), |clock| recorder.sampler.attach_clock(clock)))
            {
                Ok(()) => say!("profiler: CPU {cpu} came online, and is sampled from now on"),
                Err(error) => say!("profiler: CPU {cpu} came online, and is not sampled: {error:#}"),
            }
        }
        if !came.is_empty() {
            recorder.look_again(plan);
        }
        self.online = now;
    }
}
