//! Tail calls: whose time it is.
//!
//! A program that ends in a tail call is replaced by the one it calls, and the kernel, which measures
//! from the call of the first to the return of the last, counts the whole chain for the first. Which
//! program runs at a moment the samples of the CPU's clock tell: they see its code. So a chain's time,
//! which is exact, is split in the proportion of the samples that fell in each of its programs.
//!
//! A chain is all programs that may come to call each other: those that use a map of programs, and
//! those that it holds. With `n` of a chain's `N` samples, a program's share is `n / N`, with an error
//! by Agresti and Coull: that of 95 % confidence, which is not 0 for a program without samples.

use std::collections::{BTreeMap, HashMap};

use super::{Map, Statistics};

/// A share of a chain's time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Time of the program's own code and of what that calls.
    pub run_time_ns: u64,
    /// How far off it may be, with 95 % confidence.
    pub error_ns: u64,
    /// Samples that fell in the program.
    pub samples: u64,
    /// Samples that fell in the chain.
    pub of_samples: u64,
}

impl Estimate {
    fn new(chain_ns: u64, samples: u64, of_samples: u64) -> Self {
        let (n, total, time) = (samples as f64, of_samples as f64, chain_ns as f64);
        let z = 1.96f64;
        let center = (n + z * z / 2.0) / (total + z * z);
        let error = z * (center * (1.0 - center) / (total + z * z)).sqrt();
        Self { run_time_ns: (time * n / total) as u64, error_ns: (time * error) as u64, samples, of_samples }
    }
}

impl Estimate {
    /// The error as a part of the time.
    pub fn error_percent(&self) -> f64 {
        100.0 * self.error_ns as f64 / self.run_time_ns.max(1) as f64
    }
}

/// Splits the time of every chain that has samples; these are by the address of the function in whose
/// code they fell.
pub fn split(statistics: &mut Statistics, samples: &HashMap<u64, u64>) {
    let chains = chains(statistics);
    let of_program: Vec<u64> = statistics
        .programs
        .iter()
        .map(|program| program.functions.iter().filter_map(|address| samples.get(address)).sum())
        .collect();
    for chain in chains {
        let total: u64 = chain.iter().map(|&at| of_program[at]).sum();
        let time_ns: u64 = chain.iter().map(|&at| statistics.programs[at].run_time_ns).sum();
        if total == 0 || time_ns == 0 {
            continue;
        }
        for at in chain {
            statistics.programs[at].estimate = Some(Estimate::new(time_ns, of_program[at], total));
        }
    }
}

/// Positions of the programs of each chain of two and more.
fn chains(statistics: &Statistics) -> Vec<Vec<usize>> {
    let programs = &statistics.programs;
    let at: HashMap<u32, usize> = programs.iter().zip(0..).map(|(program, at)| (program.id, at)).collect();
    let maps: HashMap<u32, &Map> = statistics.maps.iter().map(|map| (map.id, map)).collect();
    // The chain of a program is named after one of it, to which its entries lead.
    let mut leads: Vec<usize> = (0..programs.len()).collect();
    let find = |leads: &[usize], mut at: usize| {
        while leads[at] != at {
            at = leads[at];
        }
        at
    };
    for (caller, program) in programs.iter().enumerate() {
        let called = program.map_ids.iter().filter_map(|id| maps.get(id)).flat_map(|map| &map.programs);
        for called in called.filter_map(|id| at.get(id)) {
            let (from, to) = (find(&leads, caller), find(&leads, *called));
            leads[from] = to;
        }
    }
    let mut chains: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..programs.len() {
        chains.entry(find(&leads, at)).or_default().push(at);
    }
    chains.into_values().filter(|chain| chain.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::Program;

    #[test]
    fn a_chains_time_goes_where_its_samples_fell() {
        let program = |id, map_ids: &[u32], run_time_ns| Program {
            id,
            map_ids: map_ids.to_vec(),
            run_time_ns,
            functions: vec![u64::from(id) << 12, (u64::from(id) << 12) + 64],
            ..Program::default()
        };
        let map = |id, programs: &[u32]| Map { id, programs: programs.to_vec(), ..Map::default() };
        let mut statistics = Statistics {
            programs: vec![
                program(1, &[10], 1000),
                program(2, &[10, 11], 0),
                program(3, &[], 0),
                program(4, &[], 500),
                program(5, &[12], 70),
                program(6, &[], 0),
            ],
            // The last one holds a program that is gone, and one whose chain has no samples.
            maps: vec![map(10, &[2]), map(11, &[3]), map(12, &[99, 6])],
            ..Statistics::default()
        };
        let samples = HashMap::from([(0x1000, 10), (0x2040, 30), (0x3000, 20), (0x3040, 40), (0x4000, 500)]);
        split(&mut statistics, &samples);
        let found: Vec<_> =
            statistics.programs.iter().map(|it| it.estimate.map(|it| (it.run_time_ns, it.samples))).collect();
        assert_eq!(found, [Some((100, 10)), Some((300, 30)), Some((600, 60)), None, None, None]);
        // By hand: (60 + 1.92) / (100 + 3.84) = 0.596; 1.96 × √(0.596 × 0.404 / 103.84) = 0.0944.
        assert_eq!(statistics.programs[2].estimate.map(|it| it.error_ns), Some(94));
    }
}
