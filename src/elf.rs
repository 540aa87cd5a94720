//! Facts about an ELF file. The only user of the `object` crate.
//!
//! Files come from every process on the machine and are untrusted. They are read with `pread` and
//! never mapped: a mapped file that someone truncates would kill us with SIGBUS.

use std::fs::File;
use std::ops::Range;

use object::elf::{ELF_NOTE_GNU, FileHeader64, NT_GNU_BUILD_ID};
use object::read::ReadCache;
use object::read::elf::NoteIterator;
use object::{NativeEndian, Object as _, ObjectSection as _};

/// The GNU build id, if the file is an ELF file that has one.
pub fn build_id(file: &File) -> Option<Vec<u8>> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).ok()?;
    elf.build_id().ok()?.map(<[u8]>::to_vec)
}

/// File offsets of the procedure linkage table: stubs that jump to other objects, and that have no
/// symbols of their own.
pub fn plt(file: &File) -> Vec<Range<u64>> {
    let cache = ReadCache::new(file);
    let Ok(elf) = object::File::parse(&cache) else { return Vec::new() };
    let is_plt = |name: &str| name == ".plt" || name.starts_with(".plt.");
    elf.sections()
        .filter(|section| section.name().is_ok_and(is_plt))
        .filter_map(|section| section.file_range())
        .map(|(offset, size)| offset..offset.saturating_add(size))
        .collect()
}

/// The running kernel's build id. Its notes are published without an ELF file around them.
pub fn kernel_build_id() -> Option<Vec<u8>> {
    let notes = std::fs::read("/sys/kernel/notes").ok()?;
    let mut notes = NoteIterator::<FileHeader64<NativeEndian>>::new(NativeEndian, 4, &notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == ELF_NOTE_GNU && note.n_type(NativeEndian) == NT_GNU_BUILD_ID {
            return Some(note.desc().to_vec());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_elf_has_no_build_id() {
        assert_eq!(build_id(&File::open("Cargo.toml").unwrap()), None);
        assert_eq!(build_id(&File::open("/dev/null").unwrap()), None);
    }
}
