//! How long calls take: what `bpf/latency.bpf.c` is attached to, and what it has counted.

use std::mem::MaybeUninit;
use std::ops::Sub;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject};

use super::decode::{Plain, comm, outcome, plain};
use super::skeleton::OpenProfileSkel;
use super::{Outcomes, Sampler, abi, skeleton, with_log};
use crate::model::event::{Loss, Outcome};
use crate::recording::capture::kernel;

/// Processes that have counts of their own.
const MOST_PROCESSES: u32 = 1 << 12;

impl Plain for abi::latency {}
impl Plain for abi::latency_key {}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Calls of what.
    pub probe: Probe,
    /// Keep stacks of calls that took so long.
    pub slower_than_ns: Option<u64>,
}

/// What calls are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A system call, by its number.
    Syscall(u32),
    /// A function of a file.
    Function {
        /// The file.
        path: PathBuf,
        /// Where its code is in the file.
        offset: u64,
    },
    /// A function of the kernel.
    Kernel(String),
}

/// How calls of the kernel's functions are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KernelHook {
    /// fentry and fexit.
    Trampoline,
    /// A kprobe and a kretprobe.
    Kprobe,
}

/// How often the programs ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// At the begin and at the return of calls, of whatever system call.
    pub all: u64,
    /// Calls of what was asked for, by whomever.
    pub asked: u64,
}

impl Sub for Runs {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { all: self.all.saturating_sub(before.all), asked: self.asked.saturating_sub(before.asked) }
    }
}

/// What was counted of a process, or of several: see `struct latency`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The process; 0: those for which there was no room.
    pub tgid: u32,
    /// Its name.
    pub comm: String,
    /// Calls that began.
    pub calls: u64,
    /// Those that returned.
    pub returned: u64,
    /// Those that were left without a return.
    pub left: u64,
    /// Those that were not timed.
    pub deep: u64,
    /// Of the returned, those that were slow.
    pub slow: u64,
    /// Of these, those without a stack, as the space for it was in use.
    pub slow_lost: u64,
    /// Time of the returned.
    pub total_ns: u64,
    /// The longest.
    pub longest_ns: u64,
    /// Returned ones of 2^i up to 2^(i + 1) nanoseconds.
    pub slots: Vec<u64>,
}

impl Latency {
    /// Those that have not returned yet, or ended with their thread.
    pub fn open(&self) -> u64 {
        self.calls.saturating_sub(self.returned + self.left + self.deep)
    }

    /// Average time of a call that returned.
    pub fn average_ns(&self) -> f64 {
        self.total_ns as f64 / self.returned.max(1) as f64
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.returned += other.returned;
        self.left += other.left;
        self.deep += other.deep;
        self.slow += other.slow;
        self.slow_lost += other.slow_lost;
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
        self.longest_ns = self.longest_ns.max(other.longest_ns);
        self.slots.resize(self.slots.len().max(other.slots.len()), 0);
        for (sum, calls) in self.slots.iter_mut().zip(&other.slots) {
            *sum += calls;
        }
    }
}

/// The programs that a recording is loaded with: which, of those that see calls.
pub(super) struct Hooks {
    probe: Probe,
    kernel: Option<KernelHook>,
}

/// Sets up what the object needs to measure calls, or leaves all of it out.
pub(super) fn configure(
    open: &mut OpenProfileSkel<'_>,
    wanted: Option<&Config>,
    tables: bool,
) -> Result<Option<Hooks>> {
    let progs = &mut open.progs;
    let programs = [
        &mut progs.syscall_begins,
        &mut progs.syscall_returns,
        &mut progs.function_begins,
        &mut progs.function_returns,
        &mut progs.kernel_begins,
        &mut progs.kernel_returns,
        &mut progs.kernel_begins_by_kprobe,
        &mut progs.kernel_returns_by_kprobe,
    ];
    programs.into_iter().for_each(|program| program.set_autoload(false));
    let Some(wanted) = wanted else {
        open.maps.open_calls.set_autocreate(false)?;
        open.maps.latencies.set_autocreate(false)?;
        open.maps.latency_runs.set_autocreate(false)?;
        open.maps.walking.set_autocreate(false)?;
        return Ok(None);
    };
    if let Some(lacks) = kernel::lacks_for_latency() {
        bail!("this kernel lacks {lacks}, without which profiler latency cannot work");
    }
    let mut kernel = None;
    match &wanted.probe {
        Probe::Syscall(_) => {
            progs.syscall_begins.set_autoload(true);
            progs.syscall_returns.set_autoload(true);
        }
        Probe::Function { .. } => {
            progs.function_begins.set_autoload(true);
            progs.function_returns.set_autoload(true);
        }
        Probe::Kernel(function) => {
            let hook = kernel_hook(function)?;
            kernel = Some(hook);
            match hook {
                KernelHook::Trampoline => trampoline(progs, function)?,
                KernelHook::Kprobe => {
                    progs.kernel_begins_by_kprobe.set_autoload(true);
                    progs.kernel_returns_by_kprobe.set_autoload(true);
                }
            }
        }
    }
    open.maps.latencies.set_max_entries(MOST_PROCESSES)?;
    open.maps.walking.set_max_entries(libbpf_rs::num_possible_cpus()? as u32)?;
    let knobs = open.maps.rodata_data.as_deref_mut().context("the BPF object has no knobs")?;
    knobs.latency_syscall = if let Probe::Syscall(number) = wanted.probe { number } else { 0 };
    knobs.of_kernel = kernel.is_some();
    knobs.slower_than_ns = wanted.slower_than_ns.unwrap_or(u64::MAX);
    knobs.latency_by_tables = tables;
    Ok(Some(Hooks { probe: wanted.probe.clone(), kernel }))
}

fn trampoline(progs: &mut skeleton::OpenProfileProgs<'_>, function: &str) -> Result<()> {
    for program in [&mut progs.kernel_begins, &mut progs.kernel_returns] {
        program.set_autoload(true);
        program
            .set_attach_target(0, Some(function.to_owned()))
            .map_err(|error| with_log(error, &format!("failed to find the kernel's function {function}")))?;
    }
    Ok(())
}

/// How this kernel shows calls of a function of its own: that is tried, as kernels of one version differ.
fn kernel_hook(function: &str) -> Result<KernelHook> {
    let Err(error) = try_trampoline(function) else { return Ok(KernelHook::Trampoline) };
    if Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        return Ok(KernelHook::Kprobe);
    }
    let why = format!("{error:#}");
    let why = why.lines().next().unwrap_or_default();
    bail!("this kernel cannot measure its own functions: it has no kprobes, and refuses fentry ({why})")
}

fn try_trampoline(function: &str) -> Result<()> {
    let mut storage = MaybeUninit::<OpenObject>::uninit();
    let mut open = skeleton::ProfileSkelBuilder::default()
        .open(&mut storage)
        .map_err(|error| with_log(error, "failed to open the BPF object"))?;
    for mut program in open.open_object_mut().progs_mut() {
        program.set_autoload(false);
    }
    trampoline(&mut open.progs, function)?;
    let skeleton = open.load().map_err(|error| anyhow!("to load: {error}"))?;
    for program in [&skeleton.progs.kernel_returns, &skeleton.progs.kernel_begins] {
        drop(program.attach().map_err(|error| anyhow!("to attach: {error}"))?);
    }
    Ok(())
}

impl Hooks {
    /// Attaches; the return first, as a call that has begun has to be seen to return.
    pub(super) fn attach(&self, sampler: &Sampler) -> Result<Vec<Link>> {
        let progs = &sampler.skeleton.progs;
        // Where there is no room for another process.
        let rest = abi::latency_key::default();
        sampler.skeleton.maps.latencies.update(
            bytes(&rest),
            &vec![0; size_of::<abi::latency>()],
            MapFlags::ANY,
        )?;
        let (returned, begun, place) = match (&self.probe, self.kernel) {
            (Probe::Syscall(_), _) => {
                (progs.syscall_returns.attach(), progs.syscall_begins.attach(), "system calls".to_owned())
            }
            (Probe::Function { path, offset }, _) => {
                let offset = usize::try_from(*offset)?;
                (
                    progs.function_returns.attach_uprobe(true, -1, path, offset),
                    progs.function_begins.attach_uprobe(false, -1, path, offset),
                    path.display().to_string(),
                )
            }
            (Probe::Kernel(function), Some(KernelHook::Kprobe)) => (
                progs.kernel_returns_by_kprobe.attach_kprobe(true, function),
                progs.kernel_begins_by_kprobe.attach_kprobe(false, function),
                function.clone(),
            ),
            (Probe::Kernel(function), _) => {
                (progs.kernel_returns.attach(), progs.kernel_begins.attach(), function.clone())
            }
        };
        let failed = |error| with_log(error, &format!("failed to attach to {place}"));
        // They are detached in this order: no call begins that is not seen to return.
        Ok(vec![begun.map_err(failed)?, returned.map_err(failed)?])
    }
}

fn bytes(key: &abi::latency_key) -> &[u8] {
    // SAFETY: the key consists of integers without padding between them, and lives as long as the slice.
    unsafe { std::slice::from_raw_parts((&raw const *key).cast(), size_of::<abi::latency_key>()) }
}

impl Sampler {
    /// What was counted so far, by process.
    pub fn latencies(&self) -> Result<Vec<Latency>> {
        let map = &self.skeleton.maps.latencies;
        let mut found = Vec::new();
        for key in map.keys() {
            let Some(value) = map.lookup(&key, MapFlags::ANY)? else { continue };
            let (key, value): (abi::latency_key, abi::latency) = (plain(&key), plain(&value));
            let comm = if key.tgid == 0 { "(others)".to_owned() } else { comm(value.comm).to_string() };
            found.push(Latency {
                tgid: key.tgid,
                comm,
                calls: value.calls,
                returned: value.returned,
                left: value.left,
                deep: value.deep,
                slow: value.slow,
                slow_lost: value.slow_lost,
                total_ns: value.total_ns,
                longest_ns: value.longest_ns,
                slots: value.slots.to_vec(),
            });
        }
        Ok(found)
    }

    /// How often the programs ran so far.
    pub fn latency_runs(&self) -> Result<Runs> {
        let sum = |slot: u32| -> Result<u64> {
            let cpus = self.skeleton.maps.latency_runs.lookup_percpu(&slot.to_ne_bytes(), MapFlags::ANY)?;
            let words = cpus.unwrap_or_default();
            Ok(words.iter().filter_map(|word| word.first_chunk().map(|&word| u64::from_ne_bytes(word))).sum())
        };
        Ok(Runs { all: sum(0)?, asked: sum(1)? })
    }

    /// How the stacks of slow calls ended.
    pub fn slow_outcomes(&self) -> Result<Outcomes> {
        let mut outcomes = Outcomes::default();
        let key = abi::cpu_state_index::CPU_STATE_LATENCY.0.to_ne_bytes();
        for bytes in self.skeleton.maps.cpu_states.lookup_percpu(&key, MapFlags::ANY)?.unwrap_or_default() {
            let state: abi::cpu_state = plain(&bytes);
            for (index, runs) in state.outcomes.iter().enumerate().filter(|(_, runs)| **runs > 0) {
                *outcomes.by_outcome.entry(outcome(index as u32)).or_default() += runs;
            }
        }
        let lost: u64 = self.latencies()?.iter().map(|latency| latency.slow_lost).sum();
        if lost > 0 {
            outcomes.by_outcome.insert(Outcome::Lost(Loss::Preempted), lost);
        }
        Ok(outcomes)
    }
}
