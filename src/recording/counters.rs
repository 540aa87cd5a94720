//! What the machine or the recorded tasks used while they were recorded: the line of counters that every
//! recording prints, as `perf stat` would.
//!
//! Of tasks the BPF programs read the sums that the kernel keeps for each ([`Used`]); of the machine
//! `/proc` has them. Both cost nothing while something runs. What the kernel keeps no sums of is counted by
//! perf: a machine's migrations, one CPU's share of the rest, and what the hardware counts.

use std::fmt::Write as _;
use std::fs;

use crate::cli::RecordArgs;
use crate::machine::usage::CpuTime;
use crate::recording::capture::bpf::{Filter, Used};
use crate::recording::capture::perf::counter::{Counter, Scope};
use crate::recording::capture::perf::event::Event;
use crate::recording::plan::Plan;
use crate::text::thousands;

/// What is counted while a recording runs.
#[derive(Debug)]
pub struct Counting {
    /// Of the whole machine: what it had counted when the recording began.
    machine: Option<Machine>,
    cycles: Option<Counter>,
    instructions: Option<Counter>,
    /// The event that is sampled, counted.
    sampled: Option<Counter>,
    /// Tasks are counted on all CPUs, though not all are sampled.
    on_all_cpus: bool,
}

/// Sums that are read before and after.
#[derive(Debug)]
struct Machine {
    switches: Sum,
    faults: Sum,
    major_faults: Sum,
    migrations: Sum,
}

/// A sum of the machine's.
#[derive(Debug)]
enum Sum {
    /// In a file of `/proc`, behind a word; its value when the recording began.
    Proc(&'static str, &'static str, u64),
    /// Of some CPUs.
    Perf(Counter),
    Unknown,
}

impl Sum {
    fn of_proc(file: &'static str, word: &'static str) -> Self {
        read(file, word).map_or(Self::Unknown, |value| Self::Proc(file, word, value))
    }

    fn of_cpus(event: &str, scope: &Scope) -> Self {
        counter(event, scope, None).map_or(Self::Unknown, Self::Perf)
    }

    fn since(&self) -> Option<u64> {
        match self {
            Self::Proc(file, word, before) => Some(read(file, word)?.saturating_sub(*before)),
            Self::Perf(counter) => counter.read().ok(),
            Self::Unknown => None,
        }
    }
}

/// The number behind a word at the begin of a line.
fn read(file: &str, word: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A counter, if the machine has it for us.
fn counter(event: &str, scope: &Scope, cpus: Option<&[u32]>) -> Option<Counter> {
    Counter::open(&Event::parse(event).ok()?, scope, cpus).ok()
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Time on a CPU of the tasks; of a machine all of its CPUs' time.
    pub clock_ns: u64,
    /// Of a machine, the time in which its CPUs ran something.
    pub busy_ns: Option<u64>,
    /// Switches to another thread.
    pub switches: Option<u64>,
    /// Moves of threads to another CPU.
    pub migrations: Option<u64>,
    /// Page faults.
    pub faults: Option<u64>,
    /// Of those that had to read from a disk.
    pub major_faults: Option<u64>,
    /// Of the hardware, where it counts them.
    pub cycles: Option<u64>,
    /// The same.
    pub instructions: Option<u64>,
    /// Threads that are in none of these.
    pub threads_lost: u64,
    /// Tasks are counted on all CPUs, though not all are sampled.
    pub on_all_cpus: bool,
}

impl Counting {
    /// Begins. The command, if there is one, is counted from its first instruction on.
    pub fn begin(args: &RecordArgs, plan: &Plan, command: Option<u32>) -> Self {
        let chosen = args.cpu.is_some().then_some(&plan.cpus[..]);
        let scope = match (&plan.config.filter, &plan.cgroup, command) {
            (_, Some(cgroup), None) if plan.config.filter == Filter::Everything => {
                Scope::Cgroup(cgroup.directory.clone(), plan.cpus.clone())
            }
            (Filter::Everything, ..) => Scope::Cpus(plan.cpus.clone()),
            (Filter::Processes(_), _, Some(command)) => Scope::Command(command),
            (Filter::Processes(tgids), ..) => Scope::Processes(tgids.clone()),
            (Filter::Threads(tids), ..) => Scope::Threads(tids.clone()),
        };
        let is_machine = matches!(scope, Scope::Cpus(_));
        let chosen = chosen.filter(|_| !is_machine);
        let machine = is_machine.then(|| match args.cpu {
            None => Machine {
                switches: Sum::of_proc("/proc/stat", "ctxt"),
                faults: Sum::of_proc("/proc/vmstat", "pgfault"),
                major_faults: Sum::of_proc("/proc/vmstat", "pgmajfault"),
                migrations: Sum::of_cpus("cpu-migrations", &scope),
            },
            Some(_) => Machine {
                switches: Sum::of_cpus("context-switches", &scope),
                faults: Sum::of_cpus("page-faults", &scope),
                major_faults: Sum::of_cpus("major-faults", &scope),
                migrations: Sum::of_cpus("cpu-migrations", &scope),
            },
        });
        let by_frequency = args.count.is_none();
        let sampled = plan.event.as_ref().filter(|event| by_frequency && !event.is_tracepoint());
        Self {
            machine,
            cycles: counter("cycles", &scope, chosen),
            instructions: counter("instructions", &scope, chosen),
            sampled: sampled.and_then(|event| Counter::open(event, &scope, chosen).ok()),
            on_all_cpus: args.cpu.is_some() && !is_machine,
        }
    }

    /// Ends; of tasks with what they used, of a machine with what its CPUs did.
    pub fn end(&self, used: Option<Used>, duration_ns: u64, cpus: usize, cpu: CpuTime) -> Option<Counters> {
        let read = |counter: &Option<Counter>| counter.as_ref()?.read().ok();
        let hardware = Counters {
            cycles: read(&self.cycles),
            instructions: read(&self.instructions),
            on_all_cpus: self.on_all_cpus,
            ..Counters::default()
        };
        if let Some(machine) = &self.machine {
            return Some(Counters {
                clock_ns: duration_ns * cpus as u64,
                busy_ns: Some((cpu.busy_s * 1e9) as u64),
                switches: machine.switches.since(),
                migrations: machine.migrations.since(),
                faults: machine.faults.since(),
                major_faults: machine.major_faults.since(),
                ..hardware
            });
        }
        used.map(|used| Counters {
            clock_ns: used.run_ns,
            switches: Some(used.switches),
            migrations: Some(used.migrations),
            faults: Some(used.faults),
            major_faults: Some(used.major_faults),
            threads_lost: used.threads_lost,
            ..hardware
        })
    }

    /// How many of the sampled event there were, if that was counted.
    pub fn sampled(&self) -> Option<u64> {
        self.sampled.as_ref()?.read().ok()
    }
}

impl Counters {
    /// The line for people, without a line's end.
    pub fn text(&self) -> String {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let mut text = match self.busy_ns {
            None => format!("task-clock {:.3} s", seconds(self.clock_ns)),
            Some(busy) => {
                format!("cpu-clock {:.3} s (busy {:.2} s)", seconds(self.clock_ns), seconds(busy))
            }
        };
        for (name, value) in [
            ("context-switches", self.switches),
            ("cpu-migrations", self.migrations),
            ("page-faults", self.faults),
        ] {
            if let Some(value) = value {
                let _ = write!(text, ", {name} {}", thousands(value));
            }
        }
        if let Some(major) = self.major_faults {
            let _ = write!(text, " ({} major)", thousands(major));
        }
        for (name, value) in [("cycles", self.cycles), ("instructions", self.instructions)] {
            if let Some(value) = value {
                let _ = write!(text, ", {name} {}", thousands(value));
            }
        }
        if let (Some(cycles @ 1..), Some(instructions)) = (self.cycles, self.instructions) {
            let _ = write!(text, " ({:.2} a cycle)", instructions as f64 / cycles as f64);
        }
        if self.on_all_cpus {
            text += "; on all CPUs";
        }
        if self.threads_lost > 0 {
            let _ = write!(text, "; without {} threads, too many at once", thousands(self.threads_lost));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known_and_nothing_else() {
        let mut counters = Counters { clock_ns: 1_500_000_000, switches: Some(1234), ..Counters::default() };
        assert_eq!(counters.text(), "task-clock 1.500 s, context-switches 1,234");
        (counters.faults, counters.major_faults) = (Some(7), Some(2));
        (counters.cycles, counters.instructions) = (Some(1000), Some(1500));
        counters.threads_lost = 3;
        assert_eq!(
            counters.text(),
            "task-clock 1.500 s, context-switches 1,234, page-faults 7 (2 major), cycles 1,000, \
             instructions 1,500 (1.50 a cycle); without 3 threads, too many at once"
        );
    }

    #[test]
    fn proc_has_the_machines_sums() {
        assert!(read("/proc/stat", "ctxt").is_some_and(|switches| switches > 0));
        assert!(read("/proc/vmstat", "pgfault").is_some_and(|faults| faults > 0));
        assert_eq!(read("/proc/stat", "ctx"), None);
    }
}
