//! Words that the dynamic linker writes before a program runs, as far as the file alone says what they will be:
//! addresses in the image, of position-independent code. Some linkers leave zeros in their place.

use object::LittleEndian as LE;
use object::elf::{self, Rela64};

use super::parts::one;
use super::{Elf, Machine, Source};

/// Browsers have 20 MB of them.
const MAX_BYTES: u64 = 128 << 20;

impl Elf {
    /// The bytes of a section as they are when it is loaded at the addresses of the file, and where it begins.
    pub(crate) fn relocated(&self, file: &dyn Source, name: &str, limit: u64) -> Option<(Vec<u8>, u64)> {
        let relative = match self.machine {
            Machine::X86_64 => elf::R_X86_64_RELATIVE,
            Machine::Aarch64 => elf::R_AARCH64_RELATIVE,
            Machine::I386 => return None,
        };
        let mut bytes = self.section(file, name, limit).ok()??;
        let vaddr = self.section_address(name)?;
        let relocations = self.section(file, ".rela.dyn", MAX_BYTES).ok().flatten().unwrap_or_default();
        let (relocations, _) = relocations.as_chunks::<{ size_of::<Rela64<LE>>() }>();
        for relocation in relocations.iter().filter_map(|it| one::<Rela64<LE>>(it).ok()) {
            let at = relocation.r_offset.get(LE).checked_sub(vaddr).and_then(|at| usize::try_from(at).ok());
            if relocation.r_type(LE, false) == relative
                && let Some(at) = at
                && let Some(word) = at.checked_add(8).and_then(|end| bytes.get_mut(at..end))
            {
                word.copy_from_slice(&relocation.r_addend.get(LE).to_le_bytes());
            }
        }
        Some((bytes, vaddr))
    }
}
