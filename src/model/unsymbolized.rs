//! A recording before its frames have names: the profile, and where the names are to be had.

use std::collections::{BTreeMap, HashMap};

use crate::model::event::Truncation;
use crate::model::objects::{ObjectId, Objects, Source};
use crate::model::profile::{LocationId, MappingId, Profile};
use crate::model::scripts::{self, Runtime};

/// A recording that is complete, but not named.
#[derive(Debug, Default)]
pub struct Unsymbolized {
    /// The profile.
    pub profile: Profile,
    /// Object behind each mapping.
    pub object_of: HashMap<MappingId, ObjectId>,
    /// Samples by how whole their stacks are.
    pub samples: Wholeness,
    /// The same of blocks.
    pub blocks: Wholeness,
    /// The same of wakers.
    pub wakings: Wholeness,
    /// Threads whose time was kept.
    pub threads: usize,
    /// Samples and blocks that have no process id, for want of room.
    pub without_ids: u64,
}

impl Unsymbolized {
    /// Samples that fell in BPF programs and what they call, by where the program's function begins.
    pub fn samples_in_bpf(&self, objects: &Objects) -> HashMap<u64, u64> {
        let mut samples = HashMap::new();
        let Some(column) = self.profile.sample_type(Some("samples")) else { return samples };
        let begin = |id: LocationId| {
            let mapping = self.profile.location(id).mapping?;
            match objects.get(*self.object_of.get(&mapping)?).source {
                Source::Bpf { start, .. } => Some(start),
                _ => None,
            }
        };
        for sample in self.profile.samples() {
            if let Some(begin) = self.profile.stack(sample.stack).find_map(begin) {
                *samples.entry(begin).or_default() += sample.values[column].cast_unsigned();
            }
        }
        samples
    }

    /// Samples and blocks with frames of scripts, by whose they are.
    pub fn scripts(&self, objects: &Objects) -> BTreeMap<Runtime, scripts::Figures> {
        let columns =
            ["samples", "off_cpu_events"].iter().filter_map(|name| self.profile.sample_type(Some(name)));
        let columns: Vec<usize> = columns.collect();
        let frame = |id: LocationId| {
            let location = self.profile.location(id);
            match objects.get(*self.object_of.get(&location.mapping?)?).source {
                Source::Script(runtime) => Some((runtime, location)),
                _ => None,
            }
        };
        let mut figures: BTreeMap<Runtime, scripts::Figures> = BTreeMap::new();
        for sample in self.profile.samples() {
            let count = columns.iter().map(|&at| sample.values[at].cast_unsigned()).sum::<u64>();
            let mut of_sample: BTreeMap<Runtime, Option<scripts::Missing>> = BTreeMap::new();
            for (runtime, location) in self.profile.stack(sample.stack).filter_map(frame) {
                let mapping = location.mapping.map(|id| self.profile.mapping(id));
                let number = mapping.map_or(0, |it| location.address - it.memory_start + it.file_offset);
                let missing = objects.scripts.names(number).err().map(|(_, why)| why);
                let first = of_sample.entry(runtime).or_default();
                *first = first.or(missing);
            }
            for (runtime, missing) in of_sample {
                let figures = figures.entry(runtime).or_default();
                match missing {
                    None => figures.named += count,
                    Some(why) => *figures.unnamed.entry(why).or_default() += count,
                }
            }
        }
        figures
    }

    /// pprof takes the first mapping for the main binary and titles the profile with it. Of a whole
    /// machine that is the program with the most samples.
    pub fn main_binary_first(&mut self, objects: &Objects) {
        let mut samples = vec![0i64; self.profile.mappings.len()];
        for sample in self.profile.samples() {
            let locations = self.profile.stack(sample.stack);
            let mut touched: Vec<MappingId> =
                locations.filter_map(|id| self.profile.location(id).mapping).collect();
            touched.sort_unstable();
            touched.dedup();
            for mapping in touched {
                samples[mapping.index()] += sample.values[0];
            }
        }
        let is_program = |at: usize| {
            let object = self.object_of.get(&MappingId::from(at)).copied().unwrap_or(ObjectId::NONE);
            let object = objects.get(object);
            let is_library = object.path.rsplit('/').next().is_some_and(|name| name.contains(".so"));
            matches!(object.source, Source::File(_)) && !is_library && !object.path.starts_with('[')
        };
        let Some(main) = (0..samples.len()).max_by_key(|&at| (is_program(at), samples[at])) else { return };
        let swapped = |id: MappingId| match id.index() {
            0 => MappingId::from(main),
            at if at == main => MappingId::from(0),
            _ => id,
        };
        self.profile.mappings.swap(0, main);
        for location in &mut self.profile.locations {
            location.mapping = location.mapping.map(swapped);
        }
        self.object_of = self.object_of.drain().map(|(id, object)| (swapped(id), object)).collect();
    }

    /// Gives every mapping a range of its own. The kernel's addresses mean something to other
    /// tools and stay; files, which every process has elsewhere, are put side by side.
    pub fn lay_out(&mut self, objects: &Objects) {
        const PAGE: u64 = 4096;
        const ALIGNMENT: u64 = 1 << 20;
        let mut extent = vec![(u64::MAX, 0); self.profile.mappings.len()];
        for location in &self.profile.locations {
            if let Some(mapping) = location.mapping {
                let (low, high) = &mut extent[mapping.index()];
                *low = location.address.min(*low);
                *high = location.address.max(*high);
            }
        }
        let mut base = vec![0; extent.len()];
        let mut next = ALIGNMENT;
        // A BPF program may have come to where another was, and the kernel has code near them that
        // it has no symbols for.
        let is_free = |start: u64, end: u64, taken: &[(u64, u64)]| {
            taken.iter().all(|&(from, to)| end <= from || start >= to)
        };
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for (at, &(low, high)) in extent.iter().enumerate() {
            let object = self.object_of.get(&MappingId::from(at)).copied().unwrap_or(ObjectId::NONE);
            if matches!(objects.get(object).source, Source::Kernel) {
                taken.push((low & !(PAGE - 1), (high | (PAGE - 1)).saturating_add(1)));
            }
        }
        for (at, mapping) in self.profile.mappings.iter_mut().enumerate() {
            let (low, high) = extent[at];
            let (low, limit) = (low & !(PAGE - 1), (high | (PAGE - 1)).saturating_add(1));
            let object = self.object_of.get(&MappingId::from(at)).copied().unwrap_or(ObjectId::NONE);
            match objects.get(object).source {
                Source::Kernel => (mapping.memory_start, mapping.memory_limit) = (low, limit),
                Source::Bpf { start, end } if is_free(start, end, &taken) => {
                    (mapping.memory_start, mapping.memory_limit) = (start, end);
                    taken.push((start, end));
                }
                _ => {
                    // Code without a file begins at its first page.
                    let start = match objects.get(object).source {
                        Source::Jit(_) | Source::Bpf { .. } => low,
                        _ => 0,
                    };
                    mapping.file_offset = start;
                    mapping.memory_start = next;
                    mapping.memory_limit = next + (limit - start);
                    base[at] = next.wrapping_sub(start);
                    next = (mapping.memory_limit + ALIGNMENT) & !(ALIGNMENT - 1);
                }
            }
        }
        for location in &mut self.profile.locations {
            if let Some(mapping) = location.mapping {
                location.address = location.address.wrapping_add(base[mapping.index()]);
            }
        }
    }
}

/// How many stacks are whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wholeness {
    /// Whole.
    pub complete: u64,
    /// Not whole, by what they lack.
    pub incomplete: BTreeMap<Truncation, u64>,
}

impl Wholeness {
    /// Those that are not whole.
    pub fn incomplete(&self) -> u64 {
        self.incomplete.values().sum()
    }

    /// Counts stacks that lack this.
    pub fn add(&mut self, truncation: Option<Truncation>, n: u64) {
        match truncation {
            None => self.complete += n,
            Some(truncation) => *self.incomplete.entry(truncation).or_default() += n,
        }
    }
}
