//! Facts about an ELF file. Here and in this folder alone the `object` crate is used.
//!
//! Files come from every process on the machine and are untrusted. They are read with `pread` and
//! never mapped: a mapped file that someone truncates would kill us with SIGBUS.

mod functions;
pub mod layout;
mod parts;
mod relocations;
pub mod symbols;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use object::elf::{self, ELF_NOTE_GNU, FileHeader32, FileHeader64, NT_GNU_BUILD_ID};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader};
use object::{LittleEndian as LE, NativeEndian};
use parts::{array, decompressed, one, read};
use serde::{Deserialize, Serialize};

/// Call frame information of the largest browsers is 30 MB.
const MAX_CALL_FRAMES_BYTES: u64 = 64 << 20;
/// A stub takes 16 bytes, and the largest programs call some ten thousand functions of others.
const MAX_PLT_BYTES: u64 = 4 << 20;
/// Linkers make four at most.
const MAX_PLTS: usize = 8;
/// Of the image, at a time.
const MAX_IMAGE_BYTES: u64 = 4 << 20;
const MAX_NOTES_BYTES: u64 = 1 << 16;
/// Of sections. Each has a name at least, and debug builds one for each function.
const MAX_HEADERS: u64 = 1 << 16;
/// Linux executes no file with more than 64 KiB of them.
const MAX_PROGRAM_HEADERS: u64 = (1 << 16) / 56;
const MAX_NAMES_BYTES: u64 = 16 << 20;

fn build_id_in(notes: &[u8]) -> Option<Vec<u8>> {
    let mut notes = NoteIterator::<FileHeader64<NativeEndian>>::new(NativeEndian, 4, notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == ELF_NOTE_GNU && note.n_type(NativeEndian) == NT_GNU_BUILD_ID {
            return Some(note.desc().to_vec());
        }
    }
    None
}

/// File offsets of the procedure linkage table: stubs that jump to other objects, and that have no
/// symbols of their own.
pub fn plt(file: &dyn Source) -> Vec<Range<u64>> {
    let sections = Elf::read_of_any_width(file).map(|elf| elf.sections).unwrap_or_default();
    sections
        .into_iter()
        .filter(Section::is_plt)
        .map(|section| section.file_offset..section.file_offset.saturating_add(section.file_bytes))
        .collect()
}

/// Whether part of a file's debug information is in one that it shares with others: `dwz -m`.
pub fn shares_debug_information(file: &dyn Source) -> bool {
    // As much of `.gnu_debugaltlink` as is kept of names.
    Elf::read_of_any_width(file).is_ok_and(|elf| elf.find(".gnu_debugaltlin").is_some())
}

/// The running kernel's build id. Its notes are published without an ELF file around them.
pub fn kernel_build_id() -> Option<Vec<u8>> {
    build_id_in(&std::fs::read("/sys/kernel/notes").ok()?)
}

/// Where an ELF image is read from: a file, or memory in the case of the vDSO.
pub trait Source {
    /// Bytes in all.
    fn size(&self) -> io::Result<u64>;
    /// Fills `bytes` with those at `offset`.
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

impl Source for Vec<u8> {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).ok();
        let source = start.and_then(|start| self.get(start..start.checked_add(bytes.len())?));
        bytes.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Address in the ELF image.
    pub vaddr: u64,
    /// Where its bytes are in the file.
    pub file_offset: u64,
    /// How many of them there are.
    pub file_bytes: u64,
    /// Whether it holds code.
    pub executable: bool,
}

impl Segment {
    /// The offset in the file of an address, and how many bytes of the segment follow it.
    pub fn locate(&self, vaddr: u64) -> Option<(u64, u64)> {
        let within = vaddr.checked_sub(self.vaddr).filter(|within| *within < self.file_bytes)?;
        Some((self.file_offset.checked_add(within)?, self.file_bytes - within))
    }

    /// The address of an offset in the file.
    pub fn vaddr(&self, file_offset: u64) -> Option<u64> {
        let within = file_offset.checked_sub(self.file_offset)?;
        // An end of code is an address too, so the segment's end counts.
        if within <= self.file_bytes { self.vaddr.checked_add(within) } else { None }
    }
}

/// Whose instructions a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// The 32-bit mode of x86.
    I386,
}

impl Machine {
    /// This program's own.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// Whether this program's machine runs its code.
    pub fn runs_here(self) -> bool {
        self == Self::NATIVE || (self == Self::I386 && Self::NATIVE == Self::X86_64)
    }

    /// Bytes of an address.
    pub fn address_bytes(self) -> u8 {
        if self == Self::I386 { 4 } else { 8 }
    }
}

/// In which dialect call frame information is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `.eh_frame`: Linux Standard Base, section 10.6.
    EhFrame,
    /// `.debug_frame`: DWARF, section 6.4.
    DebugFrame,
}

/// Call frame information.
#[derive(Debug)]
pub struct CallFrames {
    /// Whose frames they are.
    pub machine: Machine,
    /// How to read it.
    pub dialect: Dialect,
    /// Address of the first byte.
    pub vaddr: u64,
    /// The section, or more: it may be known only where it begins.
    pub bytes: Vec<u8>,
    /// How many functions it describes at most, if that is known.
    pub max_fdes: Option<u32>,
}

/// A procedure linkage table.
#[derive(Debug)]
pub struct Stubs {
    /// Address of the first byte.
    pub vaddr: u64,
    /// Where it is in the file.
    pub file_offset: u64,
    /// Its code.
    pub bytes: Vec<u8>,
}

/// The headers of an ELF file. Nothing is read here that does not lie within the file or
/// is larger than a limit, whatever the headers claim.
#[derive(Debug)]
pub struct Elf {
    /// Whose code it is.
    pub machine: Machine,
    /// What is loaded.
    pub segments: Vec<Segment>,
    eh_frame_header: Option<Segment>,
    sections: Vec<Section>,
}

#[derive(Debug)]
struct Section {
    name: Vec<u8>,
    vaddr: u64,
    file_offset: u64,
    file_bytes: u64,
    is_compressed: bool,
}

impl Section {
    fn is_plt(&self) -> bool {
        self.name == b".plt" || self.name == b".iplt" || self.name.starts_with(b".plt.")
    }
}

impl Elf {
    /// Reads the headers of 64-bit code.
    ///
    /// # Errors
    /// If the file cannot be read or is not an ELF program or library for a [`Machine`] of 64 bits.
    pub fn read(file: &dyn Source) -> Result<Self> {
        let elf = Self::read_of_any_width(file)?;
        ensure!(elf.machine != Machine::I386, "failed to find 64-bit code: the ELF file is for 32 bits");
        Ok(elf)
    }

    /// Reads the headers of code for the machine's 32-bit mode, too.
    ///
    /// # Errors
    /// If the file cannot be read or is not an ELF program or library for a [`Machine`].
    pub fn read_of_any_width(file: &dyn Source) -> Result<Self> {
        let ident = read(file, 0, 16, 16).context("failed to read the ELF header")?;
        ensure!(ident.starts_with(&elf::ELFMAG), "failed to find the ELF magic number: not an ELF file");
        match ident[4] {
            elf::ELFCLASS32 => Self::read_as::<FileHeader32<LE>>(file, &ident),
            _ => Self::read_as::<FileHeader64<LE>>(file, &ident),
        }
    }

    fn read_as<H: FileHeader<Endian = LE>>(file: &dyn Source, ident: &[u8]) -> Result<Self> {
        let size = size_of::<H>() as u64;
        let header: H = one(&read(file, 0, size, size).context("failed to read the ELF header")?)?;
        let is_little_endian = ident[5] == elf::ELFDATA2LSB;
        let machine = match (header.e_machine(LE), ident[4]) {
            (elf::EM_X86_64, elf::ELFCLASS64) if is_little_endian => Machine::X86_64,
            (elf::EM_AARCH64, elf::ELFCLASS64) if is_little_endian => Machine::Aarch64,
            (elf::EM_386, elf::ELFCLASS32) if is_little_endian => Machine::I386,
            (other, _) => bail!("failed to find code that is known: the ELF file is for machine {other}"),
        };
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
        Ok(Self {
            machine,
            segments: of_type(elf::PT_LOAD).map(segment).collect(),
            eh_frame_header: of_type(elf::PT_GNU_EH_FRAME).map(segment).next(),
            // Programs run without section headers, and truncated files have lost them.
            sections: sections(file, &header).unwrap_or_default(),
        })
    }

    /// Reads the call frame information, what counts first first: `.eh_frame`, by its name or, where
    /// sections are stripped, by the program header of the exception tables; and `.debug_frame`, but
    /// for that of Go. It tells neither where frame pointers are nor how stacks are switched, and
    /// Go's frame pointers lead through both.
    ///
    /// # Errors
    /// If there is none, or what there is cannot be read or is too large.
    pub fn call_frames(&self, file: &dyn Source) -> Result<Vec<CallFrames>> {
        let eh_frame = match (self.frames_in(file, Dialect::EhFrame).transpose(), &self.eh_frame_header) {
            (Some(Ok(frames)), _) => Some(Ok(frames)),
            (_, Some(header)) => Some(
                self.behind_eh_frame_header(file, header)
                    .context("failed to find .eh_frame by PT_GNU_EH_FRAME"),
            ),
            (none, None) => none,
        };
        let is_go = self.find(".note.go.buildid").is_some();
        let debug = if is_go { None } else { self.frames_in(file, Dialect::DebugFrame).transpose() };
        let none = if is_go {
            "failed to find call frame information: Go's .debug_frame is not enough"
        } else {
            "failed to find call frame information: no .eh_frame or .debug_frame"
        };
        let (mut sources, mut error) = (Vec::new(), anyhow!(none));
        for found in eh_frame.into_iter().chain(debug) {
            match found {
                Ok(frames) => sources.push(frames),
                Err(failed) => error = failed,
            }
        }
        if sources.is_empty() { Err(error) } else { Ok(sources) }
    }

    /// Procedure linkage tables, as far as they can be read.
    pub fn stubs(&self, file: &dyn Source) -> Vec<Stubs> {
        let tables = self.sections.iter().filter(|section| section.is_plt());
        let read = tables.filter_map(|section| {
            let bytes = read(file, section.file_offset, section.file_bytes, MAX_PLT_BYTES).ok()?;
            Some(Stubs { vaddr: section.vaddr, file_offset: section.file_offset, bytes })
        });
        // Any number of sections may claim the same bytes.
        read.take(MAX_PLTS).collect()
    }

    fn frames_in(&self, file: &dyn Source, dialect: Dialect) -> Result<Option<CallFrames>> {
        let name = match dialect {
            Dialect::EhFrame => ".eh_frame",
            Dialect::DebugFrame => ".debug_frame",
        };
        let vaddr = self.find(name).map_or(0, |section| section.vaddr);
        let bytes = self.section(file, name, MAX_CALL_FRAMES_BYTES)?;
        // An empty one describes nothing, and is no reason not to look further.
        let bytes = bytes.filter(|bytes| !bytes.is_empty());
        Ok(bytes.map(|bytes| CallFrames { machine: self.machine, dialect, vaddr, bytes, max_fdes: None }))
    }

    fn find(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name.as_bytes())
    }

    /// The bytes of the section of a name, of which the first 16 letters count.
    ///
    /// # Errors
    /// If it cannot be read or is larger than `limit` bytes.
    pub fn section(&self, file: &dyn Source, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(section) = self.find(name) else { return Ok(None) };
        let is_32_bit = self.machine == Machine::I386;
        read(file, section.file_offset, section.file_bytes, limit)
            .and_then(|bytes| if section.is_compressed { decompressed(&bytes, is_32_bit) } else { Ok(bytes) })
            .map(Some)
            .with_context(|| format!("failed to read {name}"))
    }

    /// The address of the section of a name, of which the first 16 letters count.
    pub fn section_address(&self, name: &str) -> Option<u64> {
        self.find(name).map(|section| section.vaddr)
    }

    /// Bytes of the image at an address, as far as the file has them.
    pub(crate) fn image(&self, file: &dyn Source, vaddr: u64, bytes: u64) -> Result<Vec<u8>> {
        let place = self.segments.iter().find_map(|segment| segment.locate(vaddr));
        let (offset, left) = place.with_context(|| format!("no segment holds address {vaddr:#x}"))?;
        ensure!(bytes <= left, "{bytes} bytes at address {vaddr:#x} are beyond their segment's end");
        read(file, offset, bytes, MAX_IMAGE_BYTES)
    }

    /// `.eh_frame_hdr` begins with a version, three encodings, the address of `.eh_frame` and the
    /// number of functions (Linux Standard Base, section 10.6.2). All linkers encode these two in
    /// the same way.
    fn behind_eh_frame_header(&self, file: &dyn Source, header: &Segment) -> Result<CallFrames> {
        const VERSION: u8 = 1;
        const PC_RELATIVE_I32: u8 = 0x1b;
        const U32: u8 = 0x03;
        const OMITTED: u8 = 0xff;
        let bytes = read(file, header.file_offset, 12, 12)?;
        let [VERSION, PC_RELATIVE_I32, count_encoding, _, a, b, c, d, ref count @ ..] = *bytes.as_slice()
        else {
            bail!("unknown encoding {:x?}", bytes.get(..4).unwrap_or_default());
        };
        let max_fdes = match (count_encoding, count.try_into()) {
            (U32, Ok(count)) => Some(u32::from_le_bytes(count)),
            (OMITTED, _) => None,
            _ => bail!("unknown encoding {count_encoding:#x} of the number of functions"),
        };
        let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
        let vaddr = header.vaddr.wrapping_add(4).wrapping_add_signed(distance);
        let place = self.segments.iter().find_map(|segment| segment.locate(vaddr));
        let (offset, size) = place.with_context(|| format!("no segment holds address {vaddr:#x}"))?;
        // Its size is not known: it ends with a terminator, somewhere in its segment.
        let limit = MAX_CALL_FRAMES_BYTES;
        let bytes = read(file, offset, size.min(limit), limit)?;
        Ok(CallFrames { machine: self.machine, dialect: Dialect::EhFrame, vaddr, bytes, max_fdes })
    }
}

fn segment(header: &impl ProgramHeader<Endian = LE>) -> Segment {
    Segment {
        vaddr: header.p_vaddr(LE).into(),
        file_offset: header.p_offset(LE).into(),
        file_bytes: header.p_filesz(LE).into(),
        executable: header.p_flags(LE) & elf::PF_X != 0,
    }
}

/// The sections that have bytes in the file.
fn sections<H: FileHeader<Endian = LE>>(file: &dyn Source, header: &H) -> Result<Vec<Section>> {
    let offset: u64 = header.e_shoff(LE).into();
    if offset == 0 {
        return Ok(Vec::new());
    }
    // Counts that do not fit into the ELF header are in section 0.
    let zero: Vec<H::SectionHeader> = array(file, offset, 1)?;
    let count = match (header.e_shnum(LE), zero.as_slice()) {
        (0, [zero]) => zero.sh_size(LE).into(),
        (count, _) => count.into(),
    };
    let names = match (header.e_shstrndx(LE), zero.as_slice()) {
        (elf::SHN_XINDEX, [zero]) => zero.sh_link(LE) as usize,
        (index, _) => index.into(),
    };
    let headers: Vec<H::SectionHeader> = array(file, offset, count)?;
    let names = headers.get(names).context("no section names")?;
    let names = read(file, names.sh_offset(LE).into(), names.sh_size(LE).into(), MAX_NAMES_BYTES)?;
    let sections = headers.iter().filter_map(|header| {
        let absent = matches!(header.sh_type(LE), elf::SHT_NOBITS | elf::SHT_NULL);
        let name = names.get(header.sh_name(LE) as usize..)?;
        // Longer names are not those looked for, and many may share their ends.
        let name = name.iter().take(16).take_while(|byte| **byte != 0).copied().collect();
        (!absent).then(|| Section {
            name,
            vaddr: header.sh_addr(LE).into(),
            file_offset: header.sh_offset(LE).into(),
            file_bytes: header.sh_size(LE).into(),
            is_compressed: header.sh_flags(LE).into() & u64::from(elf::SHF_COMPRESSED) != 0,
        })
    });
    Ok(sections.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_elf_is_refused() {
        for path in ["Cargo.toml", "/dev/null", "/proc/self/maps"] {
            let error = Elf::read(&File::open(path).unwrap()).unwrap_err();
            assert!(format!("{error:#}").starts_with("failed to "), "{path}: {error:#}");
        }
    }

    #[test]
    fn segments_translate_both_ways() {
        let segment = Segment { vaddr: 0x5000, file_offset: 0x4000, file_bytes: 0x100, executable: true };
        assert_eq!(segment.locate(0x5010), Some((0x4010, 0xf0)));
        assert_eq!(segment.locate(0x4fff), None);
        assert_eq!(segment.locate(0x5100), None);
        assert_eq!(segment.vaddr(0x4010), Some(0x5010));
        assert_eq!(segment.vaddr(0x4100), Some(0x5100));
        assert_eq!(segment.vaddr(0x4101), None);
    }
}
