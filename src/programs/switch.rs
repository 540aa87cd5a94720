//! The kernel's run-time statistics: switched on for a while, and what that costs.
//!
//! `BPF_ENABLE_STATS` (Linux 5.8) counts its holders, so that closing our descriptor takes nothing
//! from another's. Older kernels have one sysctl for all: what it said before is put back when
//! [`Switch`] is dropped. Signals that end the program must be read from a descriptor meanwhile
//! ([`crate::machine::signals`]), so that every way out drops it; only SIGKILL does not.
//!
//! # What it costs
//!
//! With statistics on, the kernel reads its clock before and after each run and adds to counters of
//! the CPU. An empty program of ours is run 100,000 times by `BPF_PROG_TEST_RUN` without and with
//! statistics; the difference is what every run of every program pays. What the kernel then says of
//! the empty program's run time is the clock's own share in every figure. The cost cannot be measured
//! if somebody else has statistics on, and then we add none.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::sys;

/// Where older kernels are told.
const SYSCTL: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Keeps statistics on until it is dropped.
#[derive(Debug)]
pub struct Switch {
    how: How,
    /// What each run costs more, in nanoseconds. `None` if statistics were on already, or if it could
    /// not be measured.
    pub cost_ns: Option<f64>,
    /// What the kernel says that an empty program takes.
    pub empty_ns: Option<f64>,
    /// Whether somebody else had them on.
    pub was_on: bool,
}

/// By what they are on.
#[derive(Debug)]
enum How {
    Descriptor { _fd: OwnedFd },
    Sysctl { _sysctl: Sysctl },
}

/// A file that is put back as it was.
#[derive(Debug)]
struct Sysctl {
    path: PathBuf,
    before: Option<String>,
}

impl Sysctl {
    fn set(path: &str) -> io::Result<Self> {
        let path = PathBuf::from(path);
        let before = fs::read_to_string(&path)?;
        // On already: nothing to do, and nothing to put back.
        let before = (before.trim() == "0").then_some(before);
        if before.is_some() {
            fs::write(&path, "1\n")?;
        }
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = fs::write(&self.path, before)
        {
            say!("profiler: failed to restore {}: {error}", self.path.display());
        }
    }
}

impl How {
    fn on(by_sysctl: bool) -> io::Result<Self> {
        Ok(match sys::enable_statistics() {
            Ok(fd) if !by_sysctl => Self::Descriptor { _fd: fd },
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            _ => Self::Sysctl { _sysctl: Sysctl::set(SYSCTL)? },
        })
    }
}

impl Switch {
    /// Switches statistics on, and does not measure what that costs.
    ///
    /// # Errors
    /// Those of [`Self::on`].
    pub fn unmeasured() -> io::Result<Self> {
        Ok(Self { how: How::on(false)?, cost_ns: None, empty_ns: None, was_on: false })
    }

    /// Switches statistics on, by the sysctl only if the kernel lacks the other way or it is asked for.
    ///
    /// # Errors
    /// If the kernel keeps no statistics or we may not switch them on.
    pub fn on(by_sysctl: bool) -> io::Result<Self> {
        let probe = Probe::load().ok();
        let off = probe.as_ref().and_then(Probe::time);
        let was_on = probe.as_ref().is_some_and(|probe| probe.counted().is_some());
        let how = How::on(by_sysctl)?;
        let on = probe.as_ref().and_then(Probe::time);
        let cost_ns = off.zip(on).filter(|_| !was_on).map(|(off, on)| (on - off).max(0.0));
        Ok(Self { how, cost_ns, empty_ns: probe.and_then(|probe| probe.counted()), was_on })
    }

    /// What keeps them on, in words.
    pub fn means(&self) -> &'static str {
        match self.how {
            How::Descriptor { .. } => "BPF_ENABLE_STATS",
            How::Sysctl { .. } => "kernel.bpf_stats_enabled",
        }
    }
}

/// An empty program.
struct Probe(OwnedFd);

impl Probe {
    const RUNS: u32 = 20_000;

    fn load() -> io::Result<Self> {
        sys::load_empty().map(Self)
    }

    /// Nanoseconds of one run: the least of five rounds, as others only ever add to it.
    fn time(&self) -> Option<f64> {
        let round = |_| {
            let started = Instant::now();
            sys::run_empty(&self.0, Self::RUNS).ok()?;
            Some(started.elapsed())
        };
        let rounds: Option<Vec<Duration>> = (0..5).map(round).collect();
        Some(rounds?.into_iter().min()?.as_nanos() as f64 / f64::from(Self::RUNS))
    }

    /// Nanoseconds of one run, by the kernel; `None` if it did not count.
    fn counted(&self) -> Option<f64> {
        let info = sys::counters(&self.0).ok().filter(|info| info.run_cnt > 0)?;
        Some(info.run_time_ns as f64 / info.run_cnt as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sysctl_is_put_back_even_by_a_panic_and_only_if_it_was_off() {
        let path = std::env::temp_dir().join(format!("profiler-sysctl-{}", std::process::id()));
        let name = path.to_str().unwrap();
        let read = || fs::read_to_string(&path).unwrap();
        for before in ["0\n", "1\n"] {
            fs::write(&path, before).unwrap();
            let panicked = std::panic::catch_unwind(|| {
                let _sysctl = Sysctl::set(name).unwrap();
                assert_eq!(read(), "1\n");
                std::panic::resume_unwind(Box::new(()));
            });
            assert!(panicked.is_err());
            assert_eq!(read(), before);
        }
        fs::remove_file(&path).unwrap();
        assert!(Sysctl::set(name).is_err());
    }
}
