//! What the sampler is asked for, and how large its maps are for that.
//!
//! The kernel counts into one of two hash maps. A sample adds at most one entry, so a map that is
//! swapped every `interval` cannot overflow while it has room for CPUs × Hz × interval entries;
//! [`Sizes`] gives it twice that. Where this would be large, the interval shrinks instead. Frames
//! arrive through a ring sized for half an interval of deepest stacks.
//!
//! Blocks have no such bound: there are as many keys as threads and places where they wait. So the
//! map and the ring have room for thousands, and a map that is half full, by the stacks that have
//! arrived, is drained at once.

use std::mem::offset_of;
use std::time::Duration;

use super::skeleton::types as abi;
use super::{OffCpu, latency, tables};
use crate::machine::usage::RoomInMemory;

/// What the sampler is asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Samples per second and CPU.
    pub frequency_hz: u32,
    /// CPUs that are sampled.
    pub cpus: usize,
    /// Whose samples are taken.
    pub filter: Filter,
    /// Inode of the PID namespace that ids are of, unless it is the first.
    pub pid_namespace: Option<u32>,
    /// Only tasks in this cgroup or below: its id, and whether that is of the v1 controller's hierarchy.
    pub cgroup: Option<(u64, bool)>,
    /// The v1 controller whose cgroups are told: its number in the kernel, and its hierarchy's.
    pub cgroup_controller: Option<(u32, u32)>,
    /// Walk user stacks.
    pub user_stacks: bool,
    /// Walk kernel stacks.
    pub kernel_stacks: bool,
    /// Sample the idle task.
    pub include_idle: bool,
    /// Keep when and where samples were taken, in slots of so many nanoseconds.
    pub time_slot_ns: Option<u64>,
    /// What is sampled in place of the CPU's clock.
    pub event: Option<EventKind>,
    /// Measure how long calls take.
    pub latency: Option<latency::Config>,
    /// The process whose first exec is where the recording begins for it.
    pub command: Option<u32>,
    /// Record time off the CPU too.
    pub off_cpu: Option<OffCpu>,
    /// Capacity of the counts map, in place of the computed one.
    pub counts_entries: Option<u32>,
    /// Keep the kernel's run-time statistics for a part of the time only.
    pub statistics_in_turns: bool,
    /// How much memory there is for all of it.
    pub memory: RoomInMemory,
    /// Look for frames of scripts.
    pub interpreters: bool,
    /// Leave out what can be done without, as there are few descriptors.
    pub few_descriptors: bool,
    /// Walk user stacks by unwind tables of this size; without it, by frame pointers.
    pub tables: Option<tables::Capacity>,
}

/// What is sampled in place of the CPU's clock, as far as it matters to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// An event of perf's, which tells how many it stands for.
    Perf,
    /// A tracepoint: each hit runs the program, which takes one of so many.
    Tracepoint(u64),
}

/// Whose samples are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Everybody's.
    Everything,
    /// These processes' and their future children's.
    Processes(Vec<u32>),
    /// These threads'.
    Threads(Vec<u32>),
}

/// Memory of the maps, by the formula in the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Entries of each of the two counts maps.
    pub counts_entries: u32,
    /// Bytes of the ring for stack bodies.
    pub ring_bytes: u32,
    /// How often counts are drained.
    pub interval: Duration,
}

/// Largest counts map; reached by 33 CPUs at 999 Hz and one drain per second.
const MOST_COUNTS: u64 = 1 << 16;
/// The least of it, and of the ring for stack bodies, where blocks are recorded.
const OFF_CPU_COUNTS: u64 = 1 << 15;
const OFF_CPU_RING: u64 = 1 << 22;
/// A stack of 256 frames, kernel and user together. Deeper ones are few.
const DEEP_BODY_BYTES: u64 = (offset_of!(abi::stack_body, frames) + 8 * 256) as u64;

impl Sizes {
    /// Sizes for a number of CPUs that are sampled at a frequency, and for blocks.
    pub fn new(cpus: usize, frequency_hz: u32, off_cpu: bool) -> Self {
        let (least_counts, least_ring) =
            if off_cpu { (OFF_CPU_COUNTS, OFF_CPU_RING) } else { (1024, 1 << 18) };
        let per_second = (cpus as u64 * u64::from(frequency_hz)).max(1);
        let counts_entries = (2 * per_second).clamp(least_counts, MOST_COUNTS);
        let interval = Duration::from_millis((counts_entries * 500 / per_second).clamp(100, 1000));
        // Bodies are read about ten times in an interval; room is left for five of those.
        let bodies = per_second * interval.as_millis() as u64 / 2000 + 1;
        let ring_bytes = (bodies * DEEP_BODY_BYTES).next_power_of_two().clamp(least_ring, 1 << 26);
        Self { counts_entries: counts_entries as u32, ring_bytes: ring_bytes as u32, interval }
    }
}

/// Nanoseconds between two samples at a frequency, rounded down as the kernel does.
pub fn period_ns(frequency_hz: u32) -> u64 {
    1_000_000_000 / u64::from(frequency_hz.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counts_map_holds_more_than_an_interval_can_count() {
        for cpus in [1, 2, 64, 1024] {
            for hz in [1, 99, 999, 10_000] {
                let sizes = Sizes::new(cpus, hz, false);
                let counted = cpus as f64 * f64::from(hz) * sizes.interval.as_secs_f64();
                let busiest = 1 << 18; // beyond this the drain cannot run often enough
                if cpus as u32 * hz <= busiest {
                    assert!(counted <= f64::from(sizes.counts_entries), "{cpus} CPUs at {hz} Hz: {sizes:?}");
                }
            }
        }
    }
}
