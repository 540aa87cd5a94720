//! What of an ELF file is mapped where: enough to tell whether a mapping can be of it.
//!
//! Unlike [`super::Elf`], which reads the tables of 64-bit code, this is read of every file that is mapped as
//! code, 32-bit ones included, and costs a few small reads.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::LazyLock;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader32, FileHeader64};
use object::pod::bytes_of_slice;
use object::read::elf::{FileHeader, ProgramHeader};

use super::parts::{array, one, read};
use super::{MAX_HEADERS, MAX_NOTES_BYTES, MAX_PROGRAM_HEADERS, Segment, Source, build_id_in};

/// Of the list of functions, which is longer in large files.
const MAX_DIGESTED_BYTES: u64 = 16 << 10;

/// A part of the file that is loaded, with the memory that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Its bytes in the file.
    pub segment: Segment,
    /// How much memory it takes: more than its bytes where the rest are zeros.
    pub memory_bytes: u64,
}

/// Where a program or library wants to be in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its code is for the 32-bit mode of the machine.
    pub is_32_bit: bool,
    /// What is loaded.
    pub loads: Vec<Load>,
    /// GNU build id, or empty.
    pub build_id: Vec<u8>,
    /// A hash of all headers: files that differ in it are not the same.
    pub digest: u64,
}

impl Layout {
    /// Reads the headers of a file.
    ///
    /// # Errors
    /// If it cannot be read, or is not an ELF program or library.
    pub fn read(file: &dyn Source) -> Result<Self> {
        let ident = read(file, 0, 16, 16).context("failed to read the ELF header")?;
        ensure!(ident.starts_with(&elf::ELFMAG), "failed to find the ELF magic number: not an ELF file");
        ensure!(ident[5] == elf::ELFDATA2LSB, "failed to read the ELF header: not little-endian");
        match ident[4] {
            elf::ELFCLASS64 => Self::read_as::<FileHeader64<LE>>(file),
            elf::ELFCLASS32 => Self::read_as::<FileHeader32<LE>>(file),
            other => anyhow::bail!("failed to read the ELF header: unknown class {other}"),
        }
    }

    fn read_as<H: FileHeader<Endian = LE>>(file: &dyn Source) -> Result<Self> {
        let size = size_of::<H>() as u64;
        let header: H = one(&read(file, 0, size, size).context("failed to read the ELF header")?)?;
        let kind = header.e_type(LE);
        ensure!(
            matches!(kind, elf::ET_EXEC | elf::ET_DYN),
            "failed to find a program or library: the ELF file is of type {kind}"
        );
        let count = header.e_phnum(LE).into();
        ensure!(
            count <= MAX_PROGRAM_HEADERS,
            "failed to read the program headers: there are {count} of them"
        );
        let headers: Vec<H::ProgramHeader> =
            array(file, header.e_phoff(LE).into(), count).context("failed to read the program headers")?;
        let of_type = |wanted| headers.iter().filter(move |header| header.p_type(LE) == wanted);
        let build_id = of_type(elf::PT_NOTE).find_map(|note| {
            let bytes = read(file, note.p_offset(LE).into(), note.p_filesz(LE).into(), MAX_NOTES_BYTES);
            build_id_in(&bytes.ok()?)
        });
        // Programs run without section headers, and truncated files have lost them.
        let sections = u64::from(header.e_shnum(LE)).min(MAX_HEADERS);
        let sections: Vec<H::SectionHeader> =
            array(file, header.e_shoff(LE).into(), sections).unwrap_or_default();
        let mut digest = DefaultHasher::new();
        bytes_of_slice(&[header]).hash(&mut digest);
        bytes_of_slice(&headers).hash(&mut digest);
        bytes_of_slice(&sections).hash(&mut digest);
        build_id.hash(&mut digest);
        // Where functions begin differs even where somebody gave two programs the same build id.
        for functions in of_type(elf::PT_GNU_EH_FRAME) {
            let bytes: u64 = functions.p_filesz(LE).into();
            let bytes = bytes.min(MAX_DIGESTED_BYTES);
            read(file, functions.p_offset(LE).into(), bytes, bytes).unwrap_or_default().hash(&mut digest);
        }
        Ok(Self {
            is_32_bit: header.is_class_32(),
            loads: of_type(elf::PT_LOAD).map(load).collect(),
            build_id: build_id.unwrap_or_default(),
            digest: digest.finish(),
        })
    }

    /// Whether a mapping that begins at this offset of the file can be one that loads it. Its length says
    /// little: a library is first mapped as a whole, and its segments then over that.
    pub fn is_loaded_at(&self, file_offset: u64) -> bool {
        self.loads.iter().any(|load| {
            let Segment { file_offset: start, file_bytes, .. } = load.segment;
            let end = start.saturating_add(file_bytes).saturating_add(page_bytes() - 1);
            (start & !(page_bytes() - 1)..end & !(page_bytes() - 1)).contains(&file_offset)
        })
    }

    /// What must be added to an address of the image, if this offset of the file is mapped at `addr`. A page
    /// of the file can be in two segments, of which `is_code` chooses.
    pub fn bias(&self, addr: u64, file_offset: u64, is_code: bool) -> Option<u64> {
        let holds = |load: &&Load| {
            let Segment { file_offset: start, file_bytes, executable, .. } = load.segment;
            let pages = start & !(page_bytes() - 1)..start.saturating_add(file_bytes);
            executable == is_code && pages.contains(&file_offset)
        };
        let segment = self.loads.iter().find(holds)?.segment;
        let vaddr = segment.vaddr.wrapping_add(file_offset.wrapping_sub(segment.file_offset));
        Some(addr.wrapping_sub(vaddr))
    }

    /// All memory of the image.
    pub fn extent(&self, bias: u64) -> Range<u64> {
        let start = self.loads.iter().map(|load| load.segment.vaddr).min().unwrap_or(0);
        let end = self.loads.iter().map(|load| load.segment.vaddr.saturating_add(load.memory_bytes)).max();
        (start & !(page_bytes() - 1)).wrapping_add(bias)..end.unwrap_or(0).wrapping_add(bias)
    }

    /// The offset in the file of an address of the image that lies in its code, if `bytes` from there do.
    pub fn code_at(&self, vaddr: u64, bytes: u64) -> Option<u64> {
        self.loads.iter().filter(|load| load.segment.executable).find_map(|load| {
            let start = load.segment.vaddr & !(page_bytes() - 1);
            let end = load.segment.vaddr.checked_add(load.memory_bytes)?.checked_add(page_bytes() - 1)?;
            let fits = vaddr >= start && vaddr.checked_add(bytes)? <= end & !(page_bytes() - 1);
            fits.then(|| load.segment.file_offset.wrapping_add(vaddr.wrapping_sub(load.segment.vaddr)))
        })
    }
}

/// The unit in which memory is mapped.
fn page_bytes() -> u64 {
    static PAGE_BYTES: LazyLock<u64> = LazyLock::new(|| {
        let bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
    });
    *PAGE_BYTES
}

fn load(header: &impl ProgramHeader<Endian = LE>) -> Load {
    Load {
        segment: Segment {
            vaddr: header.p_vaddr(LE).into(),
            file_offset: header.p_offset(LE).into(),
            file_bytes: header.p_filesz(LE).into(),
            executable: header.p_flags(LE) & elf::PF_X != 0,
        },
        memory_bytes: header.p_memsz(LE).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn our_own_program() {
        let layout = Layout::read(&File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(!layout.is_32_bit && !layout.build_id.is_empty());
        let code = layout.loads.iter().find(|load| load.segment.executable).unwrap();
        let Segment { vaddr, file_offset, .. } = code.segment;
        assert!(layout.is_loaded_at(file_offset & !(PAGE - 1)));
        assert!(!layout.is_loaded_at(1 << 40));
        let bias = layout.bias(0x7000_0000_0000, file_offset & !(PAGE - 1), true).unwrap();
        let page = vaddr & !(PAGE - 1);
        assert_eq!(bias, 0x7000_0000_0000 - page);
        assert_eq!(layout.code_at(page, PAGE), Some(file_offset & !(PAGE - 1)));
        assert_eq!(layout.code_at(page, 1 << 40), None);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        for path in ["Cargo.toml", "/dev/null", "/proc/self/maps"] {
            let error = Layout::read(&File::open(path).unwrap()).unwrap_err();
            assert!(format!("{error:#}").starts_with("failed to "), "{path}: {error:#}");
        }
    }
}
