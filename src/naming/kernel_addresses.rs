//! Where the kernel lies in memory is drawn anew at each start, so that who attacks it does not know. A
//! recording is read by more people than those who may see that (`/proc/kallsyms`): it tells offsets in
//! the kernel's image, in its modules and in BPF programs, unless the addresses were asked for.

use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::model::profile::{Mapping, Profile};

/// The kernel's half of all addresses: files and processes are laid out below it.
const KERNEL_HALF: u64 = 1 << 63;
/// What the kernel's image is aligned to (`CONFIG_PHYSICAL_ALIGN`): where its start is hidden from us.
const ALIGNMENT: u64 = 1 << 21;
/// Distances between mappings, as for files.
const APART: u64 = 1 << 20;

/// What kernel addresses are told relative to.
#[derive(Clone, Copy, Debug)]
pub struct Origins {
    /// Of the image: `_text`.
    image: u64,
}

impl Origins {
    /// Those of the running kernel.
    pub fn of(profile: &Profile) -> Self {
        let image = profile.mappings.iter().find(|mapping| is_image(mapping));
        let lowest = image.map_or(0, |mapping| mapping.memory_start & !(ALIGNMENT - 1));
        Self { image: start_of_image().filter(|&start| start <= lowest.max(1)).unwrap_or(lowest) }
    }

    /// What is told in place of an address.
    pub fn offset(self, mapping: &Mapping, address: u64) -> u64 {
        match mapping.memory_start {
            _ if is_image(mapping) => address.wrapping_sub(self.image),
            // Its range is not where it is, but its file offset.
            start if start < KERNEL_HALF => address.wrapping_sub(mapping.file_offset),
            start => address.wrapping_sub(start) + mapping.file_offset,
        }
    }

    /// Gives the kernel's mappings ranges behind those of the files, in which
    /// `address - memory_start + file_offset` is the offset.
    pub fn hide(self, profile: &mut Profile) {
        let below = profile.mappings.iter().map(|mapping| mapping.memory_limit);
        let mut next = below.filter(|&limit| limit < KERNEL_HALF).max().unwrap_or(0);
        let mut moved = vec![0u64; profile.mappings.len()];
        for (at, mapping) in profile.mappings.iter_mut().enumerate() {
            let (start, limit) = (mapping.memory_start, mapping.memory_limit);
            if start < KERNEL_HALF {
                // Of the kernel, and moved already: its address is the file offset.
                if mapping.file_offset >= KERNEL_HALF {
                    mapping.file_offset = 0;
                }
                continue;
            }
            next = (next + APART) & !(APART - 1);
            mapping.file_offset = self.offset(mapping, start);
            (mapping.memory_start, mapping.memory_limit) = (next, next + limit.wrapping_sub(start));
            moved[at] = next.wrapping_sub(start);
            next = mapping.memory_limit;
        }
        for location in &mut profile.locations {
            if let Some(mapping) = location.mapping {
                location.address = location.address.wrapping_add(moved[mapping.index()]);
            }
        }
    }
}

fn is_image(mapping: &Mapping) -> bool {
    mapping.path == "[kernel.kallsyms]" && mapping.memory_start >= KERNEL_HALF
}

/// The address of `_text`; `None` where it is hidden.
fn start_of_image() -> Option<u64> {
    let lines = BufReader::new(File::open("/proc/kallsyms").ok()?).lines();
    let line = lines.map_while(Result::ok).find(|line| line.ends_with(" T _text"))?;
    u64::from_str_radix(line.split(' ').next()?, 16).ok().filter(|&start| start != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::{Location, MappingId};

    #[test]
    fn offsets_stay_and_addresses_go() {
        const IMAGE: u64 = 0xffff_ffff_9a20_0000;
        let mapping = |path: &str, start: u64, bytes: u64| Mapping {
            path: path.to_owned(),
            memory_start: start,
            memory_limit: start.wrapping_add(bytes),
            ..Mapping::default()
        };
        let mut profile = Profile::default();
        profile.mappings = vec![
            mapping("/bin/a", 1 << 20, 4096),
            mapping("[kernel.kallsyms]", IMAGE + 0x3000, 0x2000),
            mapping("[ext4]", 0xffff_ffff_c012_3000, 0x1000),
            Mapping { file_offset: 0xffff_ffff_c000_0000, ..mapping("[bpf]", 4 << 20, 0x1000) },
        ];
        let addresses = [(1 << 20) + 8, IMAGE + 0x3456, 0xffff_ffff_c012_3456, (4 << 20) + 0x6ec];
        for (at, address) in addresses.into_iter().enumerate() {
            let mapping = Some(MappingId::from(at));
            profile.locations.push(Location { mapping, address, lines: Vec::new() });
        }
        Origins { image: IMAGE }.hide(&mut profile);
        let offset = |at: usize| {
            let (mapping, location) = (&profile.mappings[at], &profile.locations[at]);
            assert!((mapping.memory_start..mapping.memory_limit).contains(&location.address));
            location.address - mapping.memory_start + mapping.file_offset
        };
        assert_eq!([0, 1, 2, 3].map(offset), [8, 0x3456, 0x456, 0x6ec]);
        assert!(profile.mappings.iter().all(|mapping| mapping.file_offset < KERNEL_HALF));
        assert!(profile.locations.iter().all(|location| location.address < KERNEL_HALF));
    }
}
