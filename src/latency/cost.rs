//! What it costs to measure a call: measured here, on this machine, before the calls of others are.
//!
//! The kernel's own statistics tell how long BPF programs run, and not what it takes to get to them: of a
//! uprobe that is two traps, ten times as much. So the same programs are attached to something that this
//! process does itself, thousands of times, with and without them. The fastest of several rounds counts, as
//! whatever else the machine does only adds to it.

use std::collections::VecDeque;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::recording::capture::bpf::latency::{Config as Measured, Probe, Runs};
use crate::recording::capture::bpf::{Config, Filter, Sampler};

const ROUNDS: usize = 7;
const CALLS: u32 = 500;
/// The cost is judged by the average over so long.
const WINDOW: Duration = Duration::from_secs(5);

/// Nanoseconds that measuring adds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// To a call that is measured.
    pub call_ns: f64,
    /// To any other system call, where all run the programs.
    pub other_ns: f64,
}

impl Cost {
    /// Measures it for a kind of target; `None` if there is nothing of our own that could be called.
    ///
    /// # Errors
    /// If the programs cannot be loaded or attached, as those for the target itself could not be.
    pub fn measure(probe: &Probe, config: &Config) -> Result<Option<Self>> {
        let Some((own, call)) = own(probe) else { return Ok(None) };
        let bare = (fastest(call), fastest(other));
        let latency = Some(Measured { probe: own, slower_than_ns: None });
        let config = Config {
            filter: Filter::Everything,
            cgroup: None,
            command: None,
            tables: None,
            latency,
            ..config.clone()
        };
        let loaded = Sampler::load(&config).and_then(|mut sampler| {
            sampler.attach(Vec::new())?;
            Ok(sampler)
        });
        let mut sampler = match loaded {
            Ok(sampler) => sampler,
            // What is asked for is another function of the kernel's, and tells itself what is wrong.
            Err(_) if matches!(probe, Probe::Kernel(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let probed = (fastest(call), fastest(other));
        sampler.detach();
        let is_syscall = matches!(probe, Probe::Syscall(_));
        Ok(Some(Self {
            call_ns: (probed.0 - bare.0).max(1.0),
            other_ns: if is_syscall { (probed.1 - bare.1).max(1.0) } else { 0.0 },
        }))
    }

    /// Nanoseconds that so many runs of the programs cost.
    pub fn of(&self, runs: Runs) -> f64 {
        // Two runs are a call.
        let calls = runs.all as f64 / 2.0;
        if self.other_ns == 0.0 {
            return calls * self.call_ns;
        }
        let asked = (runs.asked as f64).min(calls);
        asked * self.call_ns + (calls - asked) * self.other_ns
    }
}

/// What of our own is measured like a target, and what calls it.
fn own(probe: &Probe) -> Option<(Probe, fn())> {
    match probe {
        Probe::Syscall(_) => Some((Probe::Syscall(nix::libc::SYS_getppid as u32), getppid)),
        Probe::Function { .. } => {
            let address = profiler_probed as *const () as u64;
            let (path, offset) = crate::recording::capture::proc::own_code(address)?;
            Some((Probe::Function { path, offset }, probed))
        }
        Probe::Kernel(_) => Some((Probe::Kernel("vfs_read".to_owned()), read)),
    }
}

/// To be probed.
#[inline(never)]
extern "C" fn profiler_probed(number: u64) -> u64 {
    black_box(number) + 1
}

fn probed() {
    black_box(profiler_probed(black_box(1)));
}

fn getppid() {
    // SAFETY: the call takes nothing and changes nothing.
    black_box(unsafe { nix::libc::syscall(nix::libc::SYS_getppid) });
}

/// A call of the kernel's `vfs_read`, which has nothing to do.
fn read() {
    static NOTHING: LazyLock<Option<File>> = LazyLock::new(|| File::open("/dev/null").ok());
    if let Some(mut nothing) = NOTHING.as_ref() {
        let _ = black_box(nothing.read(&mut [0]));
    }
}

/// Nanoseconds of a system call that does next to nothing, now.
pub fn system_call_ns() -> f64 {
    fastest(other)
}

/// Another system call than that.
fn other() {
    // SAFETY: the call takes nothing and changes nothing.
    black_box(unsafe { nix::libc::syscall(nix::libc::SYS_getuid) });
}

/// Nanoseconds of a call, in the fastest round.
fn fastest(call: fn()) -> f64 {
    let round = || {
        let began = Instant::now();
        (0..CALLS).for_each(|_| call());
        began.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}

/// Watches what the measurement costs.
#[derive(Debug)]
pub struct Guard {
    cost: Cost,
    most_share: f64,
    /// When, and how many runs there had been.
    looks: VecDeque<(Instant, Runs)>,
}

impl Guard {
    /// Lets it cost at most a share of one CPU.
    pub fn new(cost: Cost, most_share: f64) -> Self {
        Self { cost, most_share, looks: VecDeque::from([(Instant::now(), Runs::default())]) }
    }

    /// Takes a look at the runs so far; the share of a CPU that they cost, if that is too much. Before the
    /// window is full the time that is not over counts as free: a burst of calls is no reason to end.
    pub fn is_too_much(&mut self, now: Instant, runs: Runs) -> Option<f64> {
        self.looks.push_back((now, runs));
        while self.looks.len() > 2 && now.duration_since(self.looks[1].0) >= WINDOW {
            self.looks.pop_front();
        }
        let (since, before) = self.looks[0];
        let time = now.duration_since(since).max(WINDOW).as_nanos() as f64;
        let share = self.cost.of(runs - before) / time;
        (share > self.most_share).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_a_flood_is_not() {
        let cost = Cost { call_ns: 10_000.0, other_ns: 0.0 };
        let began = Instant::now();
        let at = |s: f64| began + Duration::from_secs_f64(s);
        let runs = |calls: u64| Runs { all: 2 * calls, asked: calls };
        // 20,000 calls of 10 µs are 0.2 s: 4 % of five seconds.
        let mut guard = Guard::new(cost, 0.1);
        for tenth in 1..=100 {
            assert_eq!(guard.is_too_much(at(f64::from(tenth) / 10.0), runs(20_000)), None);
        }
        // 11,000 calls a second are 11 % of a CPU, which five seconds show.
        let mut guard = Guard::new(cost, 0.1);
        let found = (1..=100u32).find_map(|tenth| {
            guard
                .is_too_much(at(f64::from(tenth) / 10.0), runs(u64::from(tenth) * 1100))
                .map(|share| (tenth, share))
        });
        let (tenth, share) = found.unwrap();
        assert!((45..=51).contains(&tenth) && (0.1..0.12).contains(&share), "{tenth} {share}");
    }

    #[test]
    fn other_system_calls_cost_too() {
        let cost = Cost { call_ns: 1000.0, other_ns: 100.0 };
        assert_eq!(cost.of(Runs { all: 20, asked: 4 }), 4.0 * 1000.0 + 6.0 * 100.0);
    }
}
