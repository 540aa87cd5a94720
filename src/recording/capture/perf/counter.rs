//! Events that are counted, and not sampled: in the kernel, exactly, for the tasks or CPUs of a recording.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use super::event::Event;
use super::{abi, open_for};
use crate::recording::capture::proc;

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that these CPUs do.
    Cpus(Vec<u32>),
    /// A process that is about to execute a program, from there on, and its children.
    Command(u32),
    /// Processes and the children that they start from now on.
    Processes(Vec<u32>),
    /// Threads.
    Threads(Vec<u32>),
    /// A cgroup by its directory, on these CPUs.
    Cgroup(PathBuf, Vec<u32>),
}

/// Counters of one event.
#[derive(Debug)]
pub struct Counter(Vec<File>);

/// More threads than this are not counted one by one.
const MOST_THREADS: usize = 1024;

impl Counter {
    /// Begins to count; only on `cpus`, if they are given, what threads do.
    ///
    /// # Errors
    /// If the kernel does not count this event, or not for us, or there are too many threads.
    pub fn open(event: &Event, scope: &Scope, cpus: Option<&[u32]>) -> io::Result<Self> {
        let mut attr = event.attr();
        attr.read_format =
            u64::from(abi::PERF_FORMAT_TOTAL_TIME_ENABLED | abi::PERF_FORMAT_TOTAL_TIME_RUNNING);
        let anywhere = [-1];
        let on: Vec<i32> =
            cpus.map_or(anywhere.to_vec(), |cpus| cpus.iter().map(|&cpu| cpu as i32).collect());
        let mut opened = Vec::new();
        match scope {
            Scope::Cpus(cpus) => {
                for &cpu in cpus {
                    opened.push(open_for(&mut attr, -1, cpu as i32, 0)?);
                }
            }
            Scope::Cgroup(directory, cpus) => {
                let directory = File::open(directory)?;
                for &cpu in cpus {
                    let flags = abi::PERF_FLAG_PID_CGROUP;
                    opened.push(open_for(&mut attr, directory.as_raw_fd(), cpu as i32, flags)?);
                }
            }
            Scope::Command(tgid) => {
                attr.set_inherit(1);
                attr.set_disabled(1);
                attr.set_enable_on_exec(1);
                for &cpu in &on {
                    opened.push(open_for(&mut attr, *tgid as i32, cpu, 0)?);
                }
            }
            Scope::Processes(tgids) => {
                attr.set_inherit(1);
                let threads: Vec<u32> = tgids.iter().flat_map(|&tgid| proc::threads(tgid)).collect();
                open_threads(&mut attr, &threads, &on, &mut opened)?;
            }
            Scope::Threads(tids) => open_threads(&mut attr, tids, &on, &mut opened)?,
        }
        Ok(Self(opened.into_iter().map(File::from).collect()))
    }

    /// The count so far. Where the hardware has fewer counters than are asked of it, each counts for a part
    /// of the time, and what it would have counted in all of it is computed, as perf does.
    ///
    /// # Errors
    /// If a counter cannot be read.
    pub fn read(&self) -> io::Result<u64> {
        let mut sum = 0.0;
        for mut counter in &self.0 {
            let mut words = [0; 24];
            counter.read_exact(&mut words)?;
            let word = |at: usize| words[8 * at..].first_chunk().map_or(0, |&word| u64::from_ne_bytes(word));
            let (value, enabled, running) = (word(0) as f64, word(1) as f64, word(2) as f64);
            if running > 0.0 {
                sum += value * enabled / running;
            }
        }
        Ok(sum.round() as u64)
    }
}

fn open_threads(
    attr: &mut abi::perf_event_attr,
    tids: &[u32],
    cpus: &[i32],
    opened: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    if tids.len() * cpus.len() > MOST_THREADS {
        return Err(io::Error::other(format!("{} threads are too many to count one by one", tids.len())));
    }
    for &tid in tids {
        for &cpu in cpus {
            match open_for(attr, tid as i32, cpu, 0) {
                Ok(counter) => opened.push(counter),
                // It has just ended.
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
