//! Time off the CPU: what of it is recorded, by which hooks, and how it ends.

use std::io::{BufReader, Read};
use std::mem::size_of;
use std::ops::Range;

use anyhow::{Context, Result, bail};
use libbpf_rs::{Iter, Link};

use super::decode::{dump_event, plain, thread_time};
use super::skeleton::OpenProfileSkel;
use super::{Sampler, abi, with_log};
use crate::machine::kallsyms::Kallsyms;
use crate::machine::rights::{self, Capability};
use crate::model::event::{Count, CountKey, Dump, Kind, ThreadTime, Timed};
use crate::recording::capture::kernel;

/// Which blocks get a stack; all others are added up by thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffCpu {
    /// Shortest, in nanoseconds.
    pub min_ns: u64,
    /// Longest.
    pub max_ns: u64,
    /// `TASK_*` bits, by include/linux/sched.h.
    pub states: u32,
    /// Take the stacks of those who end blocks, too.
    pub wakers: bool,
}

/// Where a thread is seen to return from a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnHook {
    /// The tracepoint of Linux 6.18.
    SchedExit,
    /// A kprobe at this function.
    Kprobe(String),
}

/// Where the kernel has the functions that time off the CPU is about. The kernel takes a while to
/// print its symbols, so they are read once. None are known where addresses are hidden.
struct Functions(Vec<(String, Range<u64>)>);

impl Functions {
    fn find() -> Self {
        let wanted = |name: &str| {
            [SWITCHES, WAKES, FAULTS].contains(&name) || is_behind_switch(name) || enters_interrupt(name)
        };
        Self(Kallsyms::read().map(|symbols| symbols.ranges(wanted)).unwrap_or_default())
    }

    fn code(&self, wanted: impl Fn(&str) -> bool) -> Vec<Range<u64>> {
        self.0.iter().filter(|(name, _)| wanted(name)).map(|(_, range)| range.clone()).collect()
    }
}

const SWITCHES: &str = "__schedule";
const WAKES: &str = "try_to_wake_up";
const FAULTS: &str = "asm_exc_page_fault";

/// What a thread runs first when it is back on a CPU; compilers add to its name.
fn is_behind_switch(name: &str) -> bool {
    name.split('.').next() == Some("finish_task_switch") && !name.ends_with(".cold")
}

fn enters_interrupt(name: &str) -> bool {
    name.starts_with("asm_sysvec_")
        || ["asm_common_interrupt", "handle_softirqs", "__do_softirq", "el1h_64_irq"].contains(&name)
}

impl ReturnHook {
    /// The best hook of this kernel.
    fn find(functions: &Functions) -> Result<Self> {
        if kernel::has_sched_exit() {
            return Ok(Self::SchedExit);
        }
        match functions.0.iter().rfind(|(name, _)| is_behind_switch(name)) {
            Some((name, _)) => Ok(Self::Kprobe(name.clone())),
            None if !rights::has(Capability::Syslog) => bail!(
                "--off-cpu needs the addresses of kernel functions (/proc/kallsyms): {}",
                rights::refusal(&[Capability::Syslog])
            ),
            None => bail!(
                "this kernel has no hook behind a switch, neither the tracepoint sched_exit_tp (Linux 6.18) nor the function finish_task_switch: --off-cpu cannot work"
            ),
        }
    }

    /// In words.
    pub fn name(&self) -> &str {
        match self {
            Self::SchedExit => "sched_exit_tp",
            Self::Kprobe(function) => function,
        }
    }
}

/// What the scheduler's hooks were loaded with.
pub(super) struct Hooks {
    pub(super) returned: ReturnHook,
    wakers: bool,
    /// Code of `__schedule()`, above which kernel stacks show the hooks themselves.
    schedule: Vec<Range<u64>>,
    /// Code of `try_to_wake_up()`, the same for those who wake.
    wake_up: Vec<Range<u64>>,
    /// Where interrupts enter: below is what they interrupted.
    interrupts: Vec<Range<u64>>,
}

/// Sets up what the object needs for time off the CPU, or leaves all of it out.
pub(super) fn configure(
    open: &mut OpenProfileSkel<'_>,
    wanted: Option<OffCpu>,
    tables: bool,
    cpus: usize,
) -> Result<Option<Hooks>> {
    let progs = &mut open.progs;
    let programs = [
        &mut progs.switched,
        &mut progs.follow_newborn,
        &mut progs.change_id,
        &mut progs.follow_threads,
        &mut progs.end_threads,
        &mut progs.flush_threads,
    ];
    programs.into_iter().for_each(|program| program.set_autoload(wanted.is_some()));
    progs.returned.set_autoload(false);
    progs.returned_by_kprobe.set_autoload(false);
    progs.waking.set_autoload(wanted.is_some_and(|wanted| wanted.wakers));
    let Some(wanted) = wanted else {
        open.maps.thread_times.set_autocreate(false)?;
        open.maps.ended_threads.set_autocreate(false)?;
        open.maps.flush_space.set_autocreate(false)?;
        return Ok(None);
    };
    if let Some(lacks) = kernel::lacks_for_off_cpu() {
        bail!("this kernel lacks {lacks}, without which --off-cpu cannot work");
    }
    let functions = Functions::find();
    let returned = ReturnHook::find(&functions)?;
    match returned {
        ReturnHook::SchedExit => progs.returned.set_autoload(true),
        ReturnHook::Kprobe(_) => progs.returned_by_kprobe.set_autoload(true),
    }
    open.maps.ended_threads.set_max_entries(records_bytes(cpus))?;
    let knobs = open.maps.rodata_data.as_deref_mut().context("the BPF object has no knobs")?;
    (knobs.min_block_ns, knobs.max_block_ns) = (wanted.min_ns, wanted.max_ns);
    knobs.block_states = wanted.states;
    knobs.off_cpu_by_tables = tables;
    if let Some(entry) = functions.code(|name| name == FAULTS).pop() {
        (knobs.page_fault_start, knobs.page_fault_end) = (entry.start, entry.end);
    }
    Ok(Some(Hooks {
        returned,
        wakers: wanted.wakers,
        schedule: functions.code(|name| name == SWITCHES),
        wake_up: functions.code(|name| name == WAKES),
        interrupts: functions.code(enters_interrupt),
    }))
}

/// Ring for threads that end: a CPU takes 20 µs to end one, and at the latest after
/// 100 ms the ring is read.
fn records_bytes(cpus: usize) -> u32 {
    (cpus * 5000 * size_of::<abi::thread_record>()).next_power_of_two().clamp(1 << 20, 1 << 24) as u32
}

impl Hooks {
    /// The hooks' own frames lie above the switch, or above the wake-up; what an interrupt came upon
    /// did not wake anybody.
    pub(super) fn trim(&self, key: &CountKey, kernel: &mut Vec<u64>) {
        let within = |code: &[Range<u64>], frame: &u64| code.iter().any(|range| range.contains(frame));
        let hooked = match key.kind {
            Kind::OnCpu | Kind::Latency => return,
            Kind::OffCpu => &self.schedule,
            Kind::Waker => &self.wake_up,
        };
        if let Some(at) = kernel.iter().take(10).position(|frame| within(hooked, frame)) {
            kernel.drain(..at);
        }
        if key.kind == Kind::Waker
            && key.tgid == 0
            && let Some(at) = kernel.iter().position(|frame| within(&self.interrupts, frame))
        {
            kernel.truncate(at + 1);
        }
    }

    pub(super) fn attach(&self, sampler: &Sampler) -> Result<Vec<Link>> {
        let progs = &sampler.skeleton.progs;
        let failed = |error, name: &str| with_log(error, &format!("failed to attach to {name}"));
        let newborn = progs.follow_newborn.attach().map_err(|error| failed(error, "sched_process_fork"))?;
        let exec = progs.change_id.attach().map_err(|error| failed(error, "sched_process_exec"))?;
        let switched = progs.switched.attach().map_err(|error| failed(error, "sched_switch"))?;
        let returned = match &self.returned {
            ReturnHook::SchedExit => progs.returned.attach(),
            ReturnHook::Kprobe(function) => progs.returned_by_kprobe.attach_kprobe(false, function),
        };
        let mut links =
            vec![newborn, exec, switched, returned.map_err(|error| failed(error, self.returned.name()))?];
        if self.wakers {
            links.push(progs.waking.attach().map_err(|error| failed(error, "sched_waking"))?);
        }
        Ok(links)
    }
}

impl Sampler {
    /// Begins to keep the time of every thread that there is.
    pub(super) fn follow_threads(&self) -> Result<()> {
        self.iterate(&self.skeleton.progs.follow_threads)?
            .read_to_end(&mut Vec::new())
            .context("failed to walk the list of threads")?;
        Ok(())
    }

    /// Ends the time of every thread that lives, and the sampler with those that are not blocked. The
    /// others come with a stack and what is counted under it.
    pub fn flush_threads(&mut self, mut each: impl FnMut(Timed, Option<(Dump, Count)>)) -> Result<()> {
        if self.hooks.is_some() {
            self.end_threads(&self.skeleton.progs.end_threads, &mut each)?;
            self.clocks.clear();
            self.end_threads(&self.skeleton.progs.flush_threads, &mut each)?;
        }
        Ok(())
    }

    fn end_threads(
        &self,
        program: &libbpf_rs::ProgramMut<'_>,
        mut each: impl FnMut(Timed, Option<(Dump, Count)>),
    ) -> Result<()> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let mut threads = BufReader::with_capacity(1 << 16, self.iterate(program)?);
        let mut record = vec![0; size_of::<abi::thread_record>()];
        let mut blocked = vec![0; size_of::<abi::blocked_thread>()];
        let failed = "failed to read the threads' times";
        while threads.read(&mut record[..1]).context(failed)? > 0 {
            threads.read_exact(&mut record[1..]).context(failed)?;
            let time: abi::thread_record = plain(&record);
            let mut stack = None;
            if time.has_stack != 0 {
                threads.read_exact(&mut blocked).context(failed)?;
                let blocked: abi::blocked_thread = plain(&blocked);
                stack = dump_event(&blocked.dump).map(|mut dump| {
                    hooks.trim(&dump.key, &mut dump.kernel);
                    let count = Count { key: dump.key, samples: 1, time_ns: blocked.blocked_ns };
                    (dump, count)
                });
            }
            each(thread_time(&time), stack);
        }
        Ok(())
    }

    pub(super) fn iterate(&self, program: &libbpf_rs::ProgramMut<'_>) -> Result<Iter> {
        let link = program.attach().map_err(|error| with_log(error, "failed to attach an iterator"))?;
        Iter::new(&link).context("failed to start an iterator over threads")
    }

    /// The hook by which threads are seen to return, if time off the CPU is recorded.
    pub fn return_hook(&self) -> Option<&ReturnHook> {
        self.hooks.as_ref().map(|hooks| &hooks.returned)
    }
}

impl ThreadTime {
    /// Time blocked for less than the threshold.
    pub fn below_ns(&self) -> u64 {
        self.off_cpu_ns.saturating_sub(self.runnable_ns + self.stacked_ns)
    }
}
