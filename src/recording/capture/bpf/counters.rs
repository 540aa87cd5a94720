//! What the recorded threads used, by the kernel's own sums: see `bpf/counters.bpf.c`.

use std::io::Read;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use libbpf_rs::{Link, MapCore, MapFlags};

use super::decode::{Plain, plain};
use super::skeleton::OpenProfileSkel;
use super::{Filter, Sampler, abi, with_log};

/// Threads that are counted at once.
const MOST_THREADS: u32 = 1 << 13;
/// How long threads that have just ended may take to be freed, which waits for all CPUs to pass a switch.
const LONGEST_FREE: Duration = Duration::from_millis(200);

impl Plain for abi::counters {}

/// What the recorded threads used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Time on a CPU.
    pub run_ns: u64,
    /// Switches to another thread.
    pub switches: u64,
    /// Moves to another CPU.
    pub migrations: u64,
    /// Page faults.
    pub faults: u64,
    /// Of those that had to read from a disk.
    pub major_faults: u64,
    /// Threads that are in none of these, at least for a part of their time.
    pub threads_lost: u64,
}

/// Sets up what counts threads, or leaves it out.
pub(super) fn configure(open: &mut OpenProfileSkel<'_>, wanted: bool, command: Option<u32>) -> Result<()> {
    let progs = &mut open.progs;
    for program in
        [&mut progs.begin_counters, &mut progs.end_counters, &mut progs.thread_ends, &mut progs.thread_freed]
    {
        program.set_autoload(wanted);
    }
    progs.begin_command.set_autoload(wanted && command.is_some());
    if wanted {
        open.maps.counted_threads.set_max_entries(MOST_THREADS)?;
    } else {
        open.maps.counted_threads.set_autocreate(false)?;
        open.maps.counters.set_autocreate(false)?;
    }
    let knobs = open.maps.rodata_data.as_deref_mut().context("the BPF object has no knobs")?;
    knobs.command = command.unwrap_or(0);
    Ok(())
}

/// Whether the threads that a recording is of are counted one by one; of all that run on the machine /proc
/// has the sums.
pub(super) fn wanted(filter: &Filter, cgroup: Option<(u64, bool)>) -> bool {
    *filter != Filter::Everything || cgroup.is_some()
}

impl Sampler {
    /// Begins to count. Links of what sees threads end.
    pub(super) fn begin_counters(&self) -> Result<Vec<Link>> {
        let progs = &self.skeleton.progs;
        if !progs.begin_counters.autoload() {
            return Ok(Vec::new());
        }
        let failed = |error, name: &str| with_log(error, &format!("failed to attach to {name}"));
        // First the threads that there are. Those that end between the two steps are in none.
        self.walk_threads(&progs.begin_counters)?;
        let freed = progs.thread_freed.attach().map_err(|error| failed(error, "sched_process_free"))?;
        let ends = progs.thread_ends.attach().map_err(|error| failed(error, "sched_process_exit"))?;
        let mut links = vec![freed, ends];
        if progs.begin_command.autoload() {
            links.push(progs.begin_command.attach().map_err(|error| failed(error, "sched_process_exec"))?);
        }
        Ok(links)
    }

    /// The recording ends for all threads that there are.
    pub fn end_counters(&self) -> Result<()> {
        if self.skeleton.progs.end_counters.autoload() {
            self.walk_threads(&self.skeleton.progs.end_counters)?;
        }
        Ok(())
    }

    fn walk_threads(&self, program: &libbpf_rs::ProgramMut<'_>) -> Result<()> {
        self.iterate(program)?.read_to_end(&mut Vec::new()).context("failed to walk the list of threads")?;
        Ok(())
    }

    /// What the threads used, when those that have ended are freed; `None` if they are not counted.
    pub fn used(&mut self) -> Result<Option<Used>> {
        if !self.skeleton.progs.end_counters.autoload() {
            return Ok(None);
        }
        let deadline = Instant::now() + LONGEST_FREE;
        let mut counters = self.counters()?;
        while counters.ending > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(2));
            counters = self.counters()?;
        }
        self.counting.clear();
        Ok(Some(Used {
            run_ns: counters.run_ns,
            switches: counters.switches,
            migrations: counters.migrations,
            faults: counters.faults,
            major_faults: counters.major_faults,
            threads_lost: counters.threads_lost + counters.ending.max(0).cast_unsigned(),
        }))
    }

    fn counters(&self) -> Result<abi::counters> {
        let found = self.skeleton.maps.counters.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        Ok(plain(&found.unwrap_or_default()))
    }
}
