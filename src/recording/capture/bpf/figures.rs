//! What the kernel counted: samples by their keys, how runs ended, what memory that takes.

use std::collections::{BTreeMap, HashMap};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use anyhow::{Context, Result};
use libbpf_rs::skel::Skel;
use libbpf_rs::{Map, MapCore, MapFlags, MapHandle, libbpf_sys};

use super::decode::{count_key, outcome, plain};
use super::{Sampler, abi};
use crate::model::event::{Count, Loss, Outcome};
use crate::model::unsymbolized::Wholeness;

/// What came of the switches of recorded threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Where threads were seen to return.
    pub hook: String,
    /// Blocks that were long enough: those that were returned from, and those that had not ended.
    pub taken: u64,
    /// Those for which there was no room: their time is among the short ones'.
    pub lost: BTreeMap<Loss, u64>,
    /// All other returns.
    pub short: u64,
    /// Wake-ups by how whole the wakers' stacks are.
    pub wakers: Wholeness,
    /// Those whose stacks there was no room for.
    pub wakers_lost: u64,
    /// Threads for whose time there was no room.
    pub threads_lost: u64,
    /// By how whole their stacks are.
    pub stacks: Wholeness,
    /// Threads.
    pub threads: usize,
}

/// How every run of the sampler ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Runs by outcome.
    pub by_outcome: HashMap<Outcome, u64>,
    /// Children that were not followed because the set of targets was full.
    pub follow_failed: u64,
}

impl Sampler {
    /// Ends of all runs so far.
    pub fn outcomes(&self) -> Result<Outcomes> {
        let mut outcomes = Outcomes::default();
        let states = self.skeleton.maps.cpu_states.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        for bytes in states.unwrap_or_default() {
            let state: abi::cpu_state = plain(&bytes);
            for (index, runs) in state.outcomes.iter().enumerate() {
                *outcomes.by_outcome.entry(outcome(index as u32)).or_default() += runs;
            }
            outcomes.follow_failed += state.follow_failed;
        }
        outcomes.by_outcome.retain(|_, runs| *runs > 0);
        Ok(outcomes)
    }

    /// How blocks were counted, if time off the CPU is recorded.
    pub fn blocks(&self) -> Result<Option<Blocks>> {
        let Some(hook) = self.return_hook() else { return Ok(None) };
        let mut blocks = Blocks { hook: hook.name().to_owned(), ..Blocks::default() };
        let key = abi::cpu_state_index::CPU_STATE_SCHEDULER.0.to_ne_bytes();
        let states = self.skeleton.maps.cpu_states.lookup_percpu(&key, MapFlags::ANY)?;
        for bytes in states.unwrap_or_default() {
            let state: abi::cpu_state = plain(&bytes);
            for (index, &runs) in state.outcomes.iter().enumerate() {
                match outcome(index as u32) {
                    Outcome::Filtered | Outcome::Idle => blocks.short += runs,
                    outcome => {
                        blocks.taken += runs;
                        if let Outcome::Lost(loss) = outcome {
                            *blocks.lost.entry(loss).or_default() += runs;
                        }
                    }
                }
            }
            blocks.threads_lost += state.threads_lost;
        }
        let key = abi::cpu_state_index::CPU_STATE_WAKER.0.to_ne_bytes();
        let states = self.skeleton.maps.cpu_states.lookup_percpu(&key, MapFlags::ANY)?;
        for bytes in states.unwrap_or_default() {
            let state: abi::cpu_state = plain(&bytes);
            let lost = state
                .outcomes
                .iter()
                .zip(0..)
                .filter(|(_, index)| matches!(outcome(*index), Outcome::Lost(_)));
            blocks.wakers_lost += lost.map(|(runs, _)| runs).sum::<u64>();
        }
        blocks.lost.retain(|_, lost| *lost > 0);
        Ok(Some(blocks))
    }

    /// Bytes that the maps take in the kernel, as it says itself.
    pub fn map_bytes(&self) -> u64 {
        let bytes = |map: Map<'_>| {
            let info =
                std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd())).ok()?;
            info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse::<u64>().ok())
        };
        self.skeleton.object().maps().filter(Map::autocreate).filter_map(bytes).sum()
    }
}

/// Entries that are read at once. A bucket never holds as many.
const BATCH: usize = 4096;

/// Reads and empties a map that no program uses.
pub(super) fn drain(map: &MapHandle) -> Result<Vec<Count>> {
    let capacity = (map.max_entries() as usize).min(BATCH);
    let mut keys = vec![abi::counts_key::default(); capacity];
    let mut values = vec![abi::counts_value::default(); capacity];
    let mut counts = Vec::new();
    let mut position = 0u32;
    let mut first = true;
    loop {
        let mut n = capacity as u32;
        let mut next = 0u32;
        let options = libbpf_sys::bpf_map_batch_opts {
            sz: size_of::<libbpf_sys::bpf_map_batch_opts>() as _,
            ..Default::default()
        };
        // SAFETY: `keys` and `values` hold `n` elements of exactly the map's key and value size,
        // which were taken from the same types when the map was made.
        let err = unsafe {
            libbpf_sys::bpf_map_lookup_and_delete_batch(
                map.as_fd().as_raw_fd(),
                if first { ptr::null_mut() } else { (&raw mut position).cast() },
                (&raw mut next).cast(),
                keys.as_mut_ptr().cast(),
                values.as_mut_ptr().cast(),
                &raw mut n,
                &raw const options,
            )
        };
        let error = std::io::Error::from_raw_os_error(-err);
        let end = err == -nix::libc::ENOENT;
        if err < 0 && !end && error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("failed to read the map of counts");
        }
        if err == 0 || end {
            counts.extend(keys.iter().zip(&values).take(n as usize).map(|(key, value)| Count {
                key: count_key(key),
                samples: value.samples,
                time_ns: value.time_ns,
            }));
            (position, first) = (next, false);
        }
        if end {
            return Ok(counts);
        }
    }
}
