//! The BPF program: load, attach, drain. The only user of libbpf and of the ABI in
//! `bpf/profile.h`, from which everything in `abi` is generated.

use std::cell::RefCell;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{
    Link, MapCore, MapFlags, MapHandle, MapType, OpenObject, PrintLevel, RingBuffer, RingBufferBuilder,
    libbpf_sys,
};

use crate::machine::rights::{self, Capability};
use crate::machine::shortage;
use crate::model::event::{Count, Dump, Event, Stack, Timed};
use crate::recording::capture::kernel;

#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/profile.skel.rs"));
}
use decode::{cgroup, dump, stack, thread};
use skeleton::types as abi;

mod arrays;
mod blocks;
mod config;
mod counters;
pub mod counts;
mod decode;
mod encode;
mod figures;
pub mod flat;
pub mod found;
pub mod interpreters;
pub mod latency;
mod loaded;
mod off_cpu;
mod statistics;
pub mod tables;
pub mod walk;

pub use config::{Config, EventKind, Filter, Sizes, period_ns};
pub use counters::Used;
pub use figures::{Blocks, Outcomes};
pub use off_cpu::{OffCpu, ReturnHook};
pub use statistics::Cost;

/// Ring for the stacks of young processes: 240 of them.
const DUMPS_BYTES: u32 = 1 << 22;
/// Ring for cgroups that are made, 240 of them.
const CGROUPS_BYTES: u32 = 1 << 18;
/// Threads of interpreters that are found without a search.
const MOST_THREADS: u32 = 1 << 14;
/// Functions of scripts whose names are not sent again.
const MOST_CODES: u32 = 1 << 15;
/// Ring for names of functions of scripts: some hundreds.
const CODES_BYTES: u32 = 1 << 19;
/// Processes or threads that can be followed at once.
const MOST_TARGETS: u32 = 1 << 16;
/// Where there is little memory, rings and maps are so many times as small. Powers of two stay such.
const LITTLE: u32 = 8;

/// The loaded program and its maps.
pub struct Sampler {
    skeleton: loaded::Loaded<skeleton::ProfileSkel<'static>>,
    links: Vec<Link>,
    clocks: Vec<Link>,
    counting: Vec<Link>,
    event: Option<EventKind>,
    statistics: Option<statistics::Statistics>,
    bodies: RingBuffer<'static>,
    received: Rc<RefCell<Vec<Timed>>>,
    counts: [MapHandle; 2],
    current: usize,
    /// Stacks that have arrived since the last drain.
    arrived: usize,
    walks_by_tables: bool,
    /// The first block of unwind tables, and how many there may be, until somebody fills it.
    block: Option<(MapHandle, u32)>,
    hooks: Option<off_cpu::Hooks>,
    calls: Option<latency::Hooks>,
    /// Sizes in force.
    pub sizes: Sizes,
    /// What this kernel lacks, in words.
    pub missing: Vec<String>,
}

/// What libbpf said, to be shown if a step fails.
static LIBBPF_LOG: Mutex<String> = Mutex::new(String::new());

fn keep_message(_: PrintLevel, message: String) {
    if let Ok(mut log) = LIBBPF_LOG.lock() {
        log.push_str(&message);
    }
}

/// The last lines of libbpf's log, behind an error that it explains.
fn with_log(error: libbpf_rs::Error, what: &str) -> anyhow::Error {
    let log = LIBBPF_LOG.lock().map(|log| log.clone()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(24)..].join("\n  ");
    let error = match error.kind() {
        // The verifier's refusal has the same code, but it has more to say.
        libbpf_rs::ErrorKind::PermissionDenied if !log.contains("processed ") => {
            anyhow!(rights::refusal(&[Capability::Bpf, Capability::Perfmon]))
        }
        _ => {
            let told = shortage::with_positive_number(format!("{error:#}"));
            if tail.is_empty() { anyhow!(told) } else { anyhow!("{told}\n  {tail}") }
        }
    };
    error.context(what.to_owned())
}

/// Fails if the kernel cannot run the program at all, naming what it lacks.
pub fn probe() -> Result<()> {
    let btf = "/sys/kernel/btf/vmlinux";
    if !std::path::Path::new(btf).exists() {
        bail!(
            "this kernel has no type information: {btf} is missing; it needs a kernel built with CONFIG_DEBUG_INFO_BTF"
        );
    }
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as u64,
        ..Default::default()
    };
    let page = 4096;
    match MapHandle::create(MapType::RingBuf, Some("probe"), 0, 0, page, &options) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == libbpf_rs::ErrorKind::PermissionDenied => {
            bail!("BPF is {}", rights::refusal(&[Capability::Bpf, Capability::Perfmon]))
        }
        // That is no type of maps that it knows.
        Err(error) if error.kind() == libbpf_rs::ErrorKind::InvalidInput => {
            bail!("this kernel lacks BPF ring buffers (Linux 5.8): {error}")
        }
        Err(error) => bail!("failed to make a BPF ring buffer: {error:#}"),
    }
}

impl Sampler {
    /// Loads the program. Nothing is sampled before [`Self::attach`].
    pub fn load(config: &Config) -> Result<Self> {
        libbpf_rs::set_print(Some((PrintLevel::Warn, keep_message)));
        let mut missing = Vec::new();
        // There are as many events as there are: sized as for blocks.
        let unbounded = config.off_cpu.is_some() || config.event.is_some() || config.latency.is_some();
        let mut sizes = Sizes::new(config.cpus, config.frequency_hz, unbounded);
        if let Some(entries) = config.counts_entries {
            sizes.counts_entries = entries;
        }

        // The object lives as long as the process that records with it.
        let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
        let of_others = if config.few_descriptors { loaded::placeholders() } else { Vec::new() };
        let mut open = skeleton::ProfileSkelBuilder::default()
            .open(storage)
            .map_err(|error| with_log(error, "failed to open the BPF object"))?;
        let knobs = open.maps.rodata_data.as_deref_mut().context("the BPF object has no knobs")?;
        let (filter, targets) = match &config.filter {
            Filter::Everything => (abi::filter::FILTER_NONE, &[][..]),
            Filter::Processes(ids) => (abi::filter::FILTER_TGID, &ids[..]),
            Filter::Threads(ids) => (abi::filter::FILTER_TID, &ids[..]),
        };
        knobs.filter = filter.0;
        (knobs.cgroup_id, knobs.cgroup_is_v1) = config.cgroup.unwrap_or_default();
        if let Some((subsystem, hierarchy)) = config.cgroup_controller {
            (knobs.cgroup_subsystem, knobs.cgroup_hierarchy) = (subsystem, hierarchy);
        }
        knobs.pid_namespace = config.pid_namespace.unwrap_or(0);
        knobs.doubts_frame_pointers = config.interpreters;
        knobs.user_stacks = config.user_stacks;
        knobs.kernel_stacks = config.kernel_stacks;
        knobs.include_idle = config.include_idle;
        knobs.kernel_walks_user = kernel::user_reads_may_freeze();
        knobs.max_kernel_frames = kernel::max_stack().clamp(1, abi::limits::MAX_KERNEL_FRAMES.0);
        knobs.time_slot_ns = config.time_slot_ns.unwrap_or(0);
        knobs.period_ns = if config.event.is_some() { 0 } else { period_ns(config.frequency_hz) };
        knobs.hits_per_sample = if let Some(EventKind::Tracepoint(n)) = config.event { n } else { 1 };
        let tables = config.tables;
        if let Some(lacks) = kernel::lacks_for_tables() {
            let by_kernel = kernel::walks_user_stacks();
            let walk = if by_kernel { "by the kernel" } else { "by frame pointers alone" };
            missing.push(format!("{lacks}: user stacks are walked {walk}"));
        }
        let follow = matches!(config.filter, Filter::Processes(_));
        open.progs.follow_child.set_autoload(follow);
        open.progs.forget_process.set_autoload(follow || tables.is_some());
        open.progs.cgroup_made.set_autoload(kernel::tells_cgroups() && !config.few_descriptors);
        open.progs.cgroup_joined.set_autoload(kernel::tells_cgroups() && config.cgroup.is_some());
        open.progs.cgroup_born_into.set_autoload(config.cgroup.is_some());
        let at_tracepoint = matches!(config.event, Some(EventKind::Tracepoint(_)));
        open.progs.on_cpu.set_autoload(tables.is_none() && !at_tracepoint);
        open.progs.on_cpu_by_tables.set_autoload(tables.is_some() && !at_tracepoint);
        open.progs.at_tracepoint.set_autoload(tables.is_none() && at_tracepoint);
        open.progs.at_tracepoint_by_tables.set_autoload(tables.is_some() && at_tracepoint);
        open.progs.inherit_tables.set_autoload(tables.is_some());
        open.progs.forget_tables.set_autoload(tables.is_some());
        if tables.is_none() && config.latency.is_some() {
            // Its programs refer to all of them, if only where they do not come to.
            open.maps.unwind_rules.set_max_entries(1)?;
            open.maps.unwind_blocks.set_max_entries(1)?;
        } else if tables.is_none() {
            // No memory for what nothing reads.
            let maps = &mut open.maps;
            maps.unwind_blocks.set_autocreate(false)?;
            maps.unwind_pages.set_autocreate(false)?;
            maps.unwind_mappings.set_autocreate(false)?;
            maps.unwind_rules.set_autocreate(false)?;
            maps.pythons.set_autocreate(false)?;
            maps.v8s.set_autocreate(false)?;
            maps.python_threads.set_autocreate(false)?;
            maps.known_codes.set_autocreate(false)?;
            maps.codes.set_autocreate(false)?;
            maps.dumps.set_autocreate(false)?;
        }
        let mut block = None;
        let less = if config.memory.is_little() { LITTLE } else { 1 };
        if let Some(capacity) = tables {
            let (first, _) = block.insert((blocks::in_kernel(capacity.chunks)?, capacity.blocks));
            open.maps.unwind_blocks.set_inner_map_fd(first.as_fd())?;
            open.maps.unwind_pages.set_max_entries(capacity.pages)?;
            open.maps.unwind_mappings.set_max_entries(capacity.mappings)?;
            open.maps.unwind_processes.set_max_entries(capacity.processes)?;
            open.maps.dumps.set_max_entries(DUMPS_BYTES / less)?;
            if config.interpreters {
                open.maps.python_threads.set_max_entries(MOST_THREADS / less)?;
                open.maps.known_codes.set_max_entries(MOST_CODES / less)?;
                open.maps.codes.set_max_entries(CODES_BYTES)?;
            }
        }
        open.maps.counts_a.set_max_entries(sizes.counts_entries)?;
        open.maps.counts_b.set_max_entries(sizes.counts_entries)?;
        open.maps.bodies.set_max_entries(sizes.ring_bytes)?;
        open.maps.cgroup_events.set_max_entries(CGROUPS_BYTES)?;
        open.maps.targets.set_max_entries(if filter == abi::filter::FILTER_NONE {
            1
        } else {
            MOST_TARGETS / less
        })?;

        let counted = config.latency.is_none()
            && !config.few_descriptors
            && counters::wanted(&config.filter, config.cgroup);
        counters::configure(&mut open, counted, config.command)?;
        let calls = latency::configure(&mut open, config.latency.as_ref(), tables.is_some())?;
        let hooks = off_cpu::configure(&mut open, config.off_cpu, tables.is_some(), config.cpus)?;

        let skeleton = open.load().map_err(|error| with_log(error, "failed to load the BPF program"))?;
        let mut skeleton = loaded::Loaded::new(skeleton);
        if config.few_descriptors {
            skeleton.close_placeholders(&of_others);
        }
        let counts =
            [MapHandle::try_from(&skeleton.maps.counts_a)?, MapHandle::try_from(&skeleton.maps.counts_b)?];
        let received = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&received);
        let mut builder = RingBufferBuilder::new();
        builder.add(&skeleton.maps.bodies, move |bytes| {
            sink.borrow_mut().extend(stack(bytes));
            0
        })?;
        if tables.is_some() {
            let dumped = Rc::clone(&received);
            builder.add(&skeleton.maps.dumps, move |bytes| {
                dumped.borrow_mut().extend(dump(bytes));
                0
            })?;
            let named = Rc::clone(&received);
            // Behind the stacks, which were sent later: what is read there has its names here.
            builder.add(&skeleton.maps.codes, move |bytes| {
                named.borrow_mut().extend(decode::code(bytes));
                0
            })?;
        }
        if hooks.is_some() {
            let ended = Rc::clone(&received);
            builder.add(&skeleton.maps.ended_threads, move |bytes| {
                ended.borrow_mut().extend(thread(bytes));
                0
            })?;
        }
        let cgroups = Rc::clone(&received);
        builder.add(&skeleton.maps.cgroup_events, move |bytes| {
            cgroups.borrow_mut().extend(cgroup(bytes));
            0
        })?;
        let bodies = builder.build().map_err(|error| with_log(error, "failed to map the BPF ring buffer"))?;
        let mut sampler = Self {
            skeleton,
            links: Vec::new(),
            clocks: Vec::new(),
            counting: Vec::new(),
            event: config.event,
            statistics: None,
            bodies,
            received,
            counts,
            current: 0,
            arrived: 0,
            walks_by_tables: tables.is_some(),
            block,
            hooks,
            calls,
            sizes,
            missing,
        };
        // Beside latency they would add to what a call costs.
        if config.latency.is_none() {
            match statistics::Statistics::begin(config.statistics_in_turns) {
                Ok(statistics) => sampler.statistics = Some(statistics),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => sampler.missing.push(
                    "BPF run-time statistics (Linux 5.8): the sampler's own cost is not known".to_owned(),
                ),
                // Who lacks the right is told so elsewhere.
                Err(_) if !rights::has(Capability::SysAdmin) => {}
                Err(error) => say!("profiler: what the sampler costs is not recorded: {error}"),
            }
        }
        for id in targets {
            sampler.target(*id)?;
        }
        Ok(sampler)
    }

    /// Adds a process or thread, by the meaning of the filter, to those that are sampled.
    pub fn target(&self, id: u32) -> Result<()> {
        let update = self.skeleton.maps.targets.update(&id.to_ne_bytes(), &[0; 8], MapFlags::ANY);
        update.with_context(|| format!("failed to add {id} to the sampled tasks (at most {MOST_TARGETS})"))
    }

    /// Starts sampling on `clocks`, one event per CPU, and following children.
    pub fn attach(&mut self, clocks: Vec<OwnedFd>) -> Result<()> {
        self.begin_statistics();
        self.counting = self.begin_counters()?;
        let progs = &self.skeleton.progs;
        for (program, name) in [
            (&progs.follow_child, "sched_process_fork"),
            (&progs.inherit_tables, "sched_process_fork"),
            (&progs.forget_tables, "sched_process_exec"),
            (&progs.forget_process, "sched_process_free"),
            (&progs.cgroup_made, "cgroup_mkdir"),
            (&progs.cgroup_joined, "cgroup_attach_task"),
            (&progs.cgroup_born_into, "sched_process_fork"),
        ] {
            if program.autoload() {
                let link = program
                    .attach()
                    .map_err(|error| with_log(error, &format!("failed to attach to {name}")))?;
                self.links.push(link);
            }
        }
        if let Some(hooks) = &self.hooks {
            let links = hooks.attach(self)?;
            self.links.extend(links);
            self.follow_threads()?;
        }
        if let Some(calls) = &self.calls {
            let links = calls.attach(self)?;
            self.links.extend(links);
        }
        clocks.into_iter().try_for_each(|clock| self.attach_clock(clock))
    }

    /// Starts sampling on one clock more.
    pub fn attach_clock(&mut self, clock: OwnedFd) -> Result<()> {
        let progs = &self.skeleton.progs;
        let samplers = match self.event {
            Some(EventKind::Tracepoint(_)) => [&progs.at_tracepoint, &progs.at_tracepoint_by_tables],
            _ => [&progs.on_cpu, &progs.on_cpu_by_tables],
        };
        let sampler = samplers[usize::from(self.walks_by_tables)];
        // libbpf closes the event with the link.
        let link = sampler.attach_perf_event(clock.into_raw_fd());
        let link = link.map_err(|error| with_log(error, "failed to attach the sampler to a CPU's clock"))?;
        self.clocks.push(link);
        Ok(())
    }

    /// The arrays of unwind tables, if stacks are walked by them.
    ///
    /// # Errors
    /// If they cannot be mapped.
    pub fn tables(&mut self) -> Result<Option<tables::Tables>> {
        let Some((block, most)) = self.block.take() else { return Ok(None) };
        let maps = &self.skeleton.maps;
        let processes = MapHandle::try_from(&maps.unwind_processes)?;
        tables::Tables::new(
            blocks::Blocks::of_kernel(MapHandle::try_from(&maps.unwind_blocks)?, &block, most)?,
            &maps.unwind_pages,
            &maps.unwind_mappings,
            &maps.unwind_rules,
            [&maps.pythons, &maps.v8s],
            processes,
        )
        .map(Some)
    }

    /// Whether the sampler's own cost is measured.
    pub fn measures_itself(&self) -> bool {
        self.statistics.is_some()
    }

    /// Readable when a process was sampled whose mappings are not known.
    pub fn dumps_fd(&self) -> Option<BorrowedFd<'_>> {
        self.walks_by_tables.then(|| self.skeleton.maps.dumps.as_fd())
    }

    /// Stops sampling.
    pub fn detach(&mut self) {
        self.clocks.clear();
        self.links.clear();
        self.end_statistics();
    }

    /// Appends the stacks that arrived since the last call; says whether they are many.
    pub fn read_stacks(&mut self, events: &mut Vec<Timed>) -> Result<bool> {
        self.bodies.consume().context("failed to read the BPF ring buffer")?;
        let mut received = self.received.borrow_mut();
        if let Some(hooks) = &self.hooks {
            for Timed { event, .. } in received.iter_mut() {
                if let Event::Stack(Stack { key, kernel, .. }) | Event::Dump(Dump { key, kernel, .. }) = event
                {
                    hooks.trim(key, kernel);
                }
            }
        }
        let arrived = received.len();
        self.arrived += arrived;
        events.append(&mut received);
        Ok(arrived > self.sizes.counts_entries as usize / 16)
    }

    /// Whether the counts should not wait for the end of their interval, which has room for all samples.
    pub fn is_half_full(&self) -> bool {
        (self.hooks.is_some() || self.event.is_some() || self.calls.is_some())
            && self.arrived > self.sizes.counts_entries as usize / 2
    }

    fn publish_counts(&self, which: usize) -> Result<()> {
        let fd = self.counts[which].as_fd().as_raw_fd().to_ne_bytes();
        let update = self.skeleton.maps.current_counts.update(&0u32.to_ne_bytes(), &fd, MapFlags::ANY);
        update.context("failed to swap the map of counts")
    }

    /// Takes everything counted since the last call, while counting goes on in another map. The
    /// swap returns when no program can touch the old map any more. Frames of all keys are in the
    /// ring by then, or were refused by it.
    pub fn drain(&mut self) -> Result<Vec<Count>> {
        let old = self.current;
        self.publish_counts(1 - old)?;
        self.current = 1 - old;
        self.arrived = 0;
        figures::drain(&self.counts[old])
    }
}
