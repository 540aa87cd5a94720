//! What the sampler costs, by the kernel's run-time statistics.
//!
//! To keep statistics costs every run of every BPF program on the machine some 70 ns, which the two
//! programs at each context switch feel most. Where nobody wants to know what the other programs
//! cost, they are on for a tenth of the time only, and the rest is taken to be like it.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use libbpf_rs::skel::Skel;
use libbpf_rs::{Program, ProgramType, libbpf_sys};

use super::Sampler;

/// Statistics are on in the first `ON` of each `PERIOD`.
const ON: Duration = Duration::from_millis(100);
const PERIOD: Duration = Duration::from_secs(1);

/// What the sampler itself cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Time that our programs took.
    pub run_time_ns: u64,
    /// Runs of the sampling program alone, while statistics were on.
    pub sampler_runs: u64,
    /// Time of these.
    pub sampler_time_ns: u64,
    /// The part of the recording in which statistics were on, 0 to 1.
    pub measured: f64,
}

/// Keeps statistics on, always or in turns.
pub(super) struct Statistics {
    /// Open while they are on.
    on: Option<OwnedFd>,
    in_turns: bool,
    began: Instant,
    ended: Option<Instant>,
    /// When they were last switched on, and what the programs had taken then.
    since: (Instant, Cost),
    /// Time for which they were on before, and what the programs took in it.
    before: (Duration, Cost),
}

/// Switches them on.
fn switch_on() -> io::Result<OwnedFd> {
    // SAFETY: the call has no memory in its arguments.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a number that is not negative is a new descriptor, which is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Statistics {
    /// Switches them on; an error if the kernel does not keep them, or not for us.
    pub(super) fn begin(in_turns: bool) -> io::Result<Self> {
        let now = Instant::now();
        let none = Cost::default();
        let on = Some(switch_on()?);
        Ok(Self { on, in_turns, began: now, ended: None, since: (now, none), before: (Duration::ZERO, none) })
    }

    /// Time for which they were on so far, and what the programs took in it.
    fn so_far(&self, total: Cost) -> (Duration, Cost) {
        let (time, cost) = self.before;
        if self.on.is_none() {
            return (time, cost);
        }
        let (since, then) = self.since;
        let sum = Cost {
            run_time_ns: cost.run_time_ns + total.run_time_ns.saturating_sub(then.run_time_ns),
            sampler_runs: cost.sampler_runs + total.sampler_runs.saturating_sub(then.sampler_runs),
            sampler_time_ns: cost.sampler_time_ns
                + total.sampler_time_ns.saturating_sub(then.sampler_time_ns),
            measured: 1.0,
        };
        (time + since.elapsed(), sum)
    }

    /// The cost of the whole recording.
    fn cost(&self, total: Cost) -> Cost {
        let (on, cost) = self.so_far(total);
        let all = self.ended.unwrap_or_else(Instant::now) - self.began;
        if !self.in_turns || all.is_zero() {
            return Cost { measured: 1.0, ..cost };
        }
        let measured = (on.as_secs_f64() / all.as_secs_f64()).clamp(1e-3, 1.0);
        Cost { run_time_ns: (cost.run_time_ns as f64 / measured) as u64, measured, ..cost }
    }
}

impl Sampler {
    /// From here on the cost is counted.
    pub(super) fn begin_statistics(&mut self) {
        if let Some(statistics) = &mut self.statistics {
            statistics.began = Instant::now();
            statistics.since.0 = statistics.began;
        }
    }

    /// Switches statistics on or off, if it is time to.
    pub fn take_turn(&mut self) {
        let Some(statistics) = self.statistics.as_ref().filter(|statistics| statistics.in_turns) else {
            return;
        };
        let into = statistics.began.elapsed().as_micros() % PERIOD.as_micros();
        if (into < ON.as_micros()) != statistics.on.is_some() {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let total = self.total_cost().unwrap_or_default();
        let Some(statistics) = &mut self.statistics else { return };
        if statistics.on.is_some() {
            statistics.before = statistics.so_far(total);
            statistics.on = None;
        } else {
            statistics.on = switch_on().ok();
            statistics.since = (Instant::now(), total);
        }
    }

    /// Ends the time for which the cost is counted.
    pub(super) fn end_statistics(&mut self) {
        let Some(statistics) = &mut self.statistics else { return };
        statistics.ended = Some(Instant::now());
        if statistics.on.is_some() {
            self.turn();
        }
    }

    /// What the programs have cost so far; `None` if the kernel keeps no statistics.
    pub fn cost(&self) -> Option<Cost> {
        Some(self.statistics.as_ref()?.cost(self.total_cost()?))
    }

    /// What the kernel has counted since the programs were loaded, while anybody had statistics on.
    fn total_cost(&self) -> Option<Cost> {
        let mut cost = Cost::default();
        for program in self.skeleton.object().progs().filter(Program::autoload) {
            let mut info = libbpf_sys::bpf_prog_info::default();
            let mut length = size_of::<libbpf_sys::bpf_prog_info>() as u32;
            let fd = program.as_fd().as_raw_fd();
            // SAFETY: `info` is a zeroed structure of `length` bytes, which asks for no arrays.
            let err = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut length) };
            if err != 0 {
                return None;
            }
            cost.run_time_ns += info.run_time_ns;
            if program.prog_type() == ProgramType::PerfEvent {
                cost.sampler_runs += info.run_cnt;
                cost.sampler_time_ns += info.run_time_ns;
            }
        }
        Some(cost)
    }
}
