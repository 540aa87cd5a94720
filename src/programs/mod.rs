//! What every BPF program on the machine costs.
//!
//! # From the question to the answer
//!
//! [`Switch`] has the kernel count runs and their time. [`Watch`] reads all programs at the beginning
//! of a window and at its end, and what comes and goes in between; the difference of the counters is
//! what the window cost. Around them stand the facts that make a number mean something: who keeps a
//! program (`owners`), where it runs (`attach`, `network`), what its maps take (`maps`), what it
//! is called beyond the kernel's 15 characters (`btf`). [`Statistics`] is all of that as plain data;
//! [`command`] prints it as a table, JSON, CSV or OpenMetrics.
//!
//! ```no_run
//! use profiler::programs::{Switch, Watch};
//!
//! let switch = Switch::on(false)?;
//! let mut watch = Watch::start()?;
//! for _ in 0..10 {
//!     std::thread::sleep(std::time::Duration::from_millis(100));
//!     watch.tick()?;
//! }
//! let statistics = watch.finish()?.with(&switch);
//! # std::io::Result::Ok(())
//! ```
//!
//! # What the numbers mean
//!
//! The kernel takes its clock before and after a run. So a run's time has one reading of the clock in
//! it, and whatever interrupted the run. It counts by program: a program that is called by a tail call
//! counts for the one that was called first, and one that another program calls or extends for that
//! one. Runs that the kernel suppressed, since the program was running on that CPU already, are
//! `recursion_misses`; those that a probe could not make, `link_misses`.
//!
//! Percentages are of one CPU, and, divided by the number of CPUs that are online, of the machine.

mod attach;
mod btf;
pub mod chains;
pub mod code;
pub mod command;
mod containers;
mod csv;
mod descriptors;
mod json;
mod maps;
mod network;
pub mod openmetrics;
mod owners;
pub mod sampled;
mod switch;
mod sys;
mod table;
mod watch;

pub use containers::Container;
pub use maps::Map;
pub use owners::Owner;
pub use switch::Switch;
pub use watch::Watch;

/// A program and what it cost in the window.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Its id.
    pub id: u32,
    /// Its type, as bpftool spells it.
    pub kind: String,
    /// Its whole name, where its type information has it; else the kernel's 15 characters.
    pub name: String,
    /// The kernel's hash of its code, in hexadecimal.
    pub tag: String,
    /// Processes that keep it.
    pub owners: Vec<Owner>,
    /// Files that it, or a link of it, is pinned to.
    pub pins: Vec<String>,
    /// Where it is attached, in words.
    pub attach: Vec<String>,
    /// Containers that its owners are in, or what it is attached to is of.
    pub containers: Vec<Container>,
    /// Runs in the window.
    pub run_count: u64,
    /// Their time.
    pub run_time_ns: u64,
    /// Runs since it was loaded, while somebody had statistics on.
    pub total_run_count: u64,
    /// Their time.
    pub total_run_time_ns: u64,
    /// Runs that were suppressed since it was loaded, for it was running already.
    pub recursion_misses: u64,
    /// Runs that its probes have missed.
    pub link_misses: u64,
    /// Maps that it uses.
    pub map_ids: Vec<u32>,
    /// Their memory, of shared ones its share.
    pub map_memory_bytes: u64,
    /// How many of them are shared with other programs.
    pub shared_maps: usize,
    /// Memory of the program itself, without the machine's code.
    pub memory_bytes: u64,
    /// The machine's code.
    pub jit_bytes: u64,
    /// When it was loaded, in nanoseconds since 1970.
    pub loaded_at_ns: i128,
    /// Addresses of its functions' code.
    pub functions: Vec<u64>,
    /// What of its chain's time is its own, where tail calls hide that and samples tell.
    pub estimate: Option<chains::Estimate>,
    /// Whether it belongs to a profiler like this one.
    pub ours: bool,
    /// Loaded within the window.
    pub loaded: bool,
    /// Unloaded within the window.
    pub unloaded: bool,
}

impl Program {
    /// Average time of a run in the window; `None` without one.
    pub fn average_ns(&self) -> Option<f64> {
        (self.run_count > 0).then(|| self.run_time_ns as f64 / self.run_count as f64)
    }
}

/// What all programs cost in a window.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Length of the window; 0 if there was none, and only totals are known.
    pub window_ns: u64,
    /// CPUs that are online.
    pub cpus: usize,
    /// Programs by id, also those that came or went in the window.
    pub programs: Vec<Program>,
    /// All maps by id.
    pub maps: Vec<Map>,
    /// Programs that were loaded and unloaded between two looks: it is not known what they cost.
    pub unseen: u64,
    /// Processes that we may not look at: they may own programs.
    pub unreadable: usize,
    /// What kept statistics on; `None` if nothing did.
    pub means: Option<&'static str>,
    /// What statistics cost each run, in nanoseconds, where it could be measured.
    pub cost_ns_per_run: Option<f64>,
    /// What the kernel says that an empty program takes.
    pub empty_run_ns: Option<f64>,
    /// Whether somebody else had them on already.
    pub was_on: bool,
    /// CPU time of this process in the window.
    pub own_cpu_ns: u64,
}

/// Programs that are watched while something else goes on.
#[derive(Debug)]
pub struct Window {
    _switch: Switch,
    watch: Watch,
}

impl Window {
    /// Begins.
    ///
    /// # Errors
    /// If the kernel keeps no statistics, or we may not see them.
    pub fn open() -> std::io::Result<Self> {
        Ok(Self { _switch: Switch::unmeasured()?, watch: Watch::start()? })
    }

    /// To be called about once a second: see [`Watch::tick`].
    pub fn tick(&mut self) {
        // What cannot be listed now is missed; the end tells.
        let _ = self.watch.tick();
    }

    /// Ends what is measured, at once. Who owns the programs is looked up when it is closed, which may take a
    /// while.
    pub fn stop(&mut self) {
        // As above.
        let _ = self.watch.stop();
    }

    /// Ends.
    ///
    /// # Errors
    /// Those of [`Watch::finish`].
    pub fn close(self) -> std::io::Result<Statistics> {
        self.watch.finish()
    }
}

/// Sums over programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub programs: usize,
    /// Their runs in the window.
    pub run_count: u64,
    /// Their time.
    pub run_time_ns: u64,
    /// Memory of maps.
    pub map_memory_bytes: u64,
    /// Memory of programs, code of the machine included.
    pub program_bytes: u64,
}

impl Statistics {
    /// Adds what the switch knows.
    pub fn with(self, switch: &Switch) -> Self {
        Self {
            means: Some(switch.means()),
            cost_ns_per_run: switch.cost_ns,
            empty_run_ns: switch.empty_ns,
            was_on: switch.was_on,
            ..self
        }
    }

    /// Sums of the programs for which something holds.
    pub fn sum(&self, holds: impl Fn(&Program) -> bool) -> Totals {
        let mut totals = Totals::default();
        for program in self.programs.iter().filter(|program| holds(program)) {
            totals.programs += 1;
            totals.run_count += program.run_count;
            totals.run_time_ns += program.run_time_ns;
            totals.map_memory_bytes += program.map_memory_bytes;
            totals.program_bytes += program.memory_bytes + program.jit_bytes;
        }
        totals
    }

    /// Memory of maps that no program uses by itself: inner maps of maps, and what is only held open.
    pub fn unused_map_bytes(&self) -> u64 {
        self.maps.iter().filter(|map| map.users.is_empty()).map(|map| map.bytes).sum()
    }

    /// Percent of one CPU in the window that a time is.
    pub fn percent_of_one_cpu(&self, time_ns: u64) -> f64 {
        if self.window_ns == 0 { 0.0 } else { 100.0 * time_ns as f64 / self.window_ns as f64 }
    }

    /// Percent of all CPUs.
    pub fn percent_of_machine(&self, time_ns: u64) -> f64 {
        self.percent_of_one_cpu(time_ns) / self.cpus.max(1) as f64
    }

    /// Time in which no sample could be taken: of programs of kprobes, tracepoints and perf events, as
    /// the sampler itself is one, the kernel runs only one at a time on a CPU (`bpf_prog_active`).
    pub fn unsampled_ns(&self) -> u64 {
        let excludes = |program: &Program| {
            let kind = ["kprobe", "tracepoint", "perf_event"].contains(&&*program.kind);
            let is_uprobe = program.attach.first().is_some_and(|place| place.starts_with('u'));
            kind && !is_uprobe && !program.ours
        };
        self.sum(excludes).run_time_ns
    }

    /// What having statistics on cost in the window, where it is known.
    pub fn cost_ns(&self) -> Option<u64> {
        let runs = self.sum(|_| true).run_count;
        self.cost_ns_per_run.map(|ns| (ns * runs as f64) as u64)
    }
}
