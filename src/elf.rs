//! Facts about an ELF file. The only user of the `object` crate.
//!
//! Files come from every process on the machine and are untrusted. They are read with `pread` and
//! never mapped: a mapped file that someone truncates would kill us with SIGBUS.

use std::fs::File;

use object::Object as _;
use object::read::ReadCache;

/// The GNU build id, if the file is an ELF file that has one.
pub fn build_id(file: &File) -> Option<Vec<u8>> {
    let cache = ReadCache::new(file);
    let elf = object::File::parse(&cache).ok()?;
    elf.build_id().ok()?.map(<[u8]>::to_vec)
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
