//! What to record, checked before anything is touched.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::{RecordArgs, Unwind};
use crate::machine::cgroups::{self, Hierarchy, Target};
use crate::machine::usage::{RoomForFiles, RoomInMemory};
use crate::recording::capture::bpf::{Config, EventKind, Filter, OffCpu};
use crate::recording::capture::perf::event::Event;
use crate::recording::capture::{kernel, perf, proc};

/// A request that can be carried out, as far as can be told beforehand.
#[derive(Debug)]
pub struct Plan {
    /// For the BPF program. Without a command, the filter is final.
    pub config: Config,
    /// CPUs that are sampled.
    pub cpus: Vec<u32>,
    /// CPUs that are online, all of which the side-band watches.
    pub online: Vec<u32>,
    /// Walk user stacks by unwind tables, not by frame pointers alone.
    pub walk_by_tables: bool,
    /// The cgroup that is asked for.
    pub cgroup: Option<Target>,
    /// The hierarchies whose cgroups are told: v2, and one of v1.
    pub hierarchies: [Option<Hierarchy>; 2],
    /// What is sampled in place of the CPU's clock.
    pub event: Option<Event>,
    /// Processes that are asked for by name, whose use of CPU explains an empty recording.
    pub watched: Vec<u32>,
}

impl Plan {
    /// Checks the command line against the machine.
    ///
    /// # Errors
    /// If a process, thread, CPU or cgroup does not exist.
    pub fn new(args: &RecordArgs) -> Result<Self> {
        let online = perf::online_cpus()?;
        let cpus = match &args.cpu {
            None => online.clone(),
            Some(list) => {
                let cpus = perf::parse_cpus(list)?;
                if let Some(unknown) = cpus.iter().find(|cpu| !online.contains(cpu)) {
                    bail!("CPU {unknown} of `{list}` is not online; online are {}", ranges(&online));
                }
                cpus
            }
        };
        let mut watched = Vec::new();
        let filter = if !args.pid.is_empty() {
            for &pid in &args.pid {
                let tgid = proc::tgid_of(pid)?.with_context(|| format!("no process {pid}: see ps -e"))?;
                ensure!(tgid == pid, "{pid} is a thread of process {tgid}: use -t {pid} or -p {tgid}");
            }
            watched.clone_from(&args.pid);
            Filter::Processes(args.pid.clone())
        } else if !args.tid.is_empty() {
            for &tid in &args.tid {
                watched.push(proc::tgid_of(tid)?.with_context(|| format!("no thread {tid}: see ps -eL"))?);
            }
            Filter::Threads(args.tid.clone())
        } else if !args.command.is_empty() {
            Filter::Processes(Vec::new())
        } else {
            Filter::Everything
        };
        for (at, (key, _)) in args.label.iter().enumerate() {
            ensure!(
                args.label[..at].iter().all(|(other, _)| other != key),
                "--label {key} is given twice: a label has one value"
            );
        }
        if let Some(longest) = args.max_block {
            ensure!(
                longest >= args.min_block && !longest.is_zero(),
                "--max-block {longest:?} is shorter than --min-block {:?}: no block is as long as that",
                args.min_block
            );
        }
        let cgroup = args.cgroup.as_deref().map(cgroups::find).transpose()?;
        let hierarchies = hierarchies(cgroup.as_ref());
        let controller = hierarchies[1].as_ref().and_then(|it| Some((it.controller.as_deref()?, it.number)));
        let controller =
            controller.and_then(|(name, number)| Some((kernel::cgroup_subsystem(name)?, number)));
        let event = args.event.as_deref().map(Event::parse).transpose()?;
        ensure!(
            args.cpu.is_none() || !event.as_ref().is_some_and(Event::is_tracepoint),
            "a tracepoint is sampled on all CPUs: leave out -C"
        );
        let config = Config {
            frequency_hz: args.frequency,
            cpus: cpus.len(),
            filter,
            cgroup: cgroup.as_ref().map(|it| (it.id, it.hierarchy.controller.is_some())),
            cgroup_controller: controller,
            user_stacks: !args.kernel_stacks_only,
            kernel_stacks: !args.user_stacks_only,
            include_idle: args.include_idle,
            time_slot_ns: args.timeline.map(nanoseconds),
            event: event.as_ref().map(|event| match event.is_tracepoint() {
                true => EventKind::Tracepoint(args.count.unwrap_or(1)),
                false => EventKind::Perf,
            }),
            command: None,
            latency: None,
            pid_namespace: pid_namespace(),
            counts_entries: args.counts_entries,
            memory: RoomInMemory::now(),
            interpreters: !args.no_interpreters,
            few_descriptors: false,
            off_cpu: (args.off_cpu || args.off_cpu_only).then(|| OffCpu {
                min_ns: nanoseconds(args.min_block),
                max_ns: args.max_block.map_or(u64::MAX, nanoseconds),
                states: args.state.as_ref().map_or(u32::MAX, |states| states.bits),
                wakers: args.wakers,
            }),
            statistics_in_turns: args.no_bpf_stats,
            tables: None,
        };
        let walk_by_tables = match args.unwind {
            Unwind::Fp => false,
            Unwind::Auto => kernel::lacks_for_tables().is_none(),
            Unwind::Table => match kernel::lacks_for_tables() {
                None => true,
                Some(lacks) => {
                    bail!("this kernel cannot walk by tables, it lacks {lacks}; use --unwind auto")
                }
            },
        };
        Ok(Self { config, cpus, online, walk_by_tables, event, cgroup, hierarchies, watched })
    }

    /// Leaves out what takes descriptors that there are not.
    pub fn fit(&mut self, room: RoomForFiles) {
        self.walk_by_tables &= !room.is_tight;
        self.config.interpreters &= !room.is_tight;
        self.config.few_descriptors |= room.is_tight;
    }

    /// Gives up what takes memory, most of it last; false if there is nothing left to give up.
    pub fn reduce(&mut self) -> bool {
        if !self.config.memory.is_little() {
            self.config.memory = self.config.memory.less();
        } else if self.walk_by_tables {
            self.walk_by_tables = false;
            self.config.tables = None;
        } else {
            return false;
        }
        true
    }

    /// How many events one sample stands for, if that does not change.
    pub fn one_in(&self, args: &RecordArgs) -> Option<u64> {
        let is_tracepoint = self.event.as_ref().is_some_and(Event::is_tracepoint);
        args.count.or(is_tracepoint.then_some(1))
    }

    /// Whether stacks may come from any process: a waker is seldom one that was asked for.
    pub fn models_everything(&self) -> bool {
        let is_all = self.config.filter == Filter::Everything && self.config.cgroup.is_none();
        is_all || self.config.off_cpu.is_some_and(|off_cpu| off_cpu.wakers)
    }
}

/// v2, and of v1 the hierarchy of the cgroup that is asked for, or else the one that tells most.
fn hierarchies(target: Option<&Target>) -> [Option<Hierarchy>; 2] {
    let is_v1 = |hierarchy: &Hierarchy| hierarchy.controller.is_some();
    let all = cgroups::hierarchies();
    let asked = target.map(|target| target.hierarchy.clone()).filter(is_v1);
    let v2 = all.iter().find(|hierarchy| !is_v1(hierarchy)).cloned();
    [v2, asked.or_else(|| all.into_iter().find(is_v1))]
}

/// The inode of our PID namespace, unless that is the first, whose ids the kernel's programs see.
fn pid_namespace() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    /// `PROC_PID_INIT_INO` in the kernel's proc_ns.h.
    const FIRST: u64 = 0xefff_fffc;
    let ours = Path::new("/proc/self/ns/pid").metadata().ok()?.ino();
    (ours != FIRST).then_some(ours as u32)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn ranges(cpus: &[u32]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < cpus.len() {
        let first = cpus[at];
        while at + 1 < cpus.len() && cpus[at + 1] == cpus[at] + 1 {
            at += 1;
        }
        let separator = if text.is_empty() { "" } else { "," };
        let last = cpus[at];
        text +=
            &if first == last { format!("{separator}{first}") } else { format!("{separator}{first}-{last}") };
        at += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranges_read_like_sysfs() {
        assert_eq!(super::ranges(&[0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
        assert_eq!(super::ranges(&[3]), "3");
    }
}
