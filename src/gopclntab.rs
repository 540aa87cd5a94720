//! Go's own table of functions. Every Go program carries `.gopclntab`, since its runtime prints and walks
//! stacks by it: `-ldflags="-s -w"` strips the symbol table and the debug information, not this.
//!
//! ```text
//! header ─▶ functions: (start, record)…     record ─▶ name, flags, lists by program counter
//! list: (change of value, length of code)…, in variable-length integers, from value -1 on
//! ```
//!
//! A function's lists give for each instruction the depth of the stack, the file, the line, and which call
//! that was inlined the instruction belongs to. The tree of inlined calls lies outside of the section, at
//! an address that only the runtime's `moduledata` has: it is found by its first word, which points to
//! this section, and believed if the words behind it point to the section's parts.
//!
//! The layout is that of Go 1.18 and later (src/runtime/symtab.go, runtime2.go).

use anyhow::{Context, Result, bail, ensure};

use crate::elf::{Elf, Source};

/// Kubernetes has 30 MB.
const MAX_BYTES: u64 = 256 << 20;
const MAGIC_1_18: u32 = 0xffff_fff0;
const MAGIC_1_20: u32 = 0xffff_fff1;
/// Flags of a record: a stack's first function; one that writes the stack pointer.
const TOP_FRAME: u8 = 1;
const WRITES_SP: u8 = 2;
/// Position of the list of inlined calls among a record's lists, and of their tree among its data.
const PCDATA_INLINED: u32 = 2;
const FUNCDATA_INLINED: u8 = 3;
/// Calls that were inlined into one another: compilers stop long before.
const MAX_INLINED: usize = 64;

/// The section's bytes and its address, if the file is a Go program.
///
/// # Errors
/// If the section cannot be read or is larger than 256 MiB.
pub fn section(elf: &Elf, file: &dyn Source) -> Result<Option<(Vec<u8>, u64)>> {
    // The second is that of position-independent programs: as much of its name as is kept.
    for name in [".gopclntab", ".data.rel.ro.gop"] {
        if let Some(bytes) = elf.section(file, name, MAX_BYTES)? {
            return Ok(Some((bytes, elf.section_address(name).unwrap_or(0))));
        }
    }
    Ok(merged(elf, file))
}

/// The table of a program that another linker than Go's has made, as it does where Go calls C: that of a
/// position-independent one is merged into a section with other data.
fn merged(elf: &Elf, file: &dyn Source) -> Option<(Vec<u8>, u64)> {
    const ALIGNMENT: usize = 32;
    if [".note.go.buildid", ".go.buildinfo"].iter().all(|name| elf.section_address(name).is_none()) {
        return None;
    }
    let (mut data, addr) = elf.relocated(file, ".data.rel.ro", MAX_BYTES)?;
    let at = (0..data.len()).step_by(ALIGNMENT).find(|&at| is_table(&data[at..]))?;
    data.drain(..at);
    Some((data, addr + at as u64))
}

/// Whether a table begins here: a header, and functions with names.
fn is_table(bytes: &[u8]) -> bool {
    let is_header = bytes.get(1..8) == Some(&[0xff, 0xff, 0xff, 0, 0, 1, 8]);
    is_header
        && Pclntab::new(bytes, None).is_ok_and(|table| {
            let named = table.record(0).is_some_and(|function| !function.name.is_empty());
            named && table.functions > 0 && table.start(table.functions).is_some()
        })
}

/// The table. Whatever offsets in it say, nothing outside of its bytes is read.
pub struct Pclntab<'a> {
    bytes: &'a [u8],
    /// Number of functions.
    pub functions: usize,
    /// Address that functions' starts are relative to.
    pub text: u64,
    is_1_20: bool,
    names: usize,
    units: usize,
    files: usize,
    lists: usize,
    records: usize,
}

/// What the table says of a function.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    at: usize,
    /// Its name, as bytes.
    pub name: &'a [u8],
    /// A stack's first function.
    pub is_top: bool,
    /// It writes the stack pointer: no depth applies to it.
    pub writes_sp: bool,
    /// Where the list of stack depths begins.
    pub depths: Option<usize>,
}

/// A function at an instruction, and where in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The function.
    pub name: String,
    /// Its file; empty if that is not known.
    pub file: String,
    /// The line; 0 if that is not known.
    pub line: u32,
}

impl<'a> Pclntab<'a> {
    /// Reads the header. `text` is the address of the section `.text`, for headers that leave it out.
    ///
    /// # Errors
    /// If it is malformed or of an unknown version.
    pub fn new(bytes: &'a [u8], text: Option<u64>) -> Result<Self> {
        let word = |at: usize| -> Result<u64> {
            let word = bytes.get(at..at + 8).context("the header is cut")?;
            Ok(u64::from_le_bytes(word.try_into()?))
        };
        let is_1_20 = match (word(0)? as u32, word(0)? >> 32) {
            // The high half: two bytes of 0, length of the shortest instruction, size of a word.
            (MAGIC_1_18, 0x0801_0000) => false,
            (MAGIC_1_20, 0x0801_0000) => true,
            (magic, _) => bail!("unknown version {magic:#x} of .gopclntab"),
        };
        let functions = usize::try_from(word(8)?)?;
        ensure!(functions <= bytes.len() / 8, "more functions than .gopclntab can hold");
        let at = |field: usize| anyhow::Ok(usize::try_from(word(field)?)?.min(bytes.len()));
        Ok(Self {
            bytes,
            functions,
            text: Some(word(24)?).filter(|&addr| addr != 0).or(text).unwrap_or(0),
            is_1_20,
            names: at(32)?,
            units: at(40)?,
            files: at(48)?,
            lists: at(56)?,
            records: at(64)?,
        })
    }

    fn u32(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    }

    /// Start of a function relative to [`Self::text`]; of the one behind the last, the end of the code.
    pub fn start(&self, function: usize) -> Option<usize> {
        self.u32(self.records.checked_add(function.checked_mul(8)?)?)
    }

    /// The record of a function.
    pub fn record(&self, function: usize) -> Option<Record<'a>> {
        let at = self.records.checked_add(self.u32(self.records + 8 * function + 4)?)?;
        let flags = *self.bytes.get(at.checked_add(if self.is_1_20 { 41 } else { 37 })?)?;
        let depths = self.u32(at + 16)?;
        Some(Record {
            at,
            name: self.text_at(self.names.checked_add(self.u32(at + 4)?)?)?,
            is_top: flags & TOP_FRAME != 0,
            writes_sp: flags & WRITES_SP != 0,
            depths: (depths != 0).then(|| self.lists.saturating_add(depths)),
        })
    }

    fn text_at(&self, at: usize) -> Option<&'a [u8]> {
        self.bytes.get(at..)?.split(|&byte| byte == 0).next()
    }

    /// The function that holds an address relative to [`Self::text`].
    fn function_at(&self, pc: usize) -> Option<usize> {
        let (mut low, mut high) = (0, self.functions);
        while low < high {
            let middle = low.midpoint(high);
            if self.start(middle)? <= pc { low = middle + 1 } else { high = middle }
        }
        let function = low.checked_sub(1)?;
        (pc < self.start(function + 1)?).then_some(function)
    }

    /// A variable-length integer, and moves `at` behind it.
    pub fn varint(&self, at: &mut usize) -> Option<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = *self.bytes.get(*at)?;
            *at += 1;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The value that a list has at an offset within its function.
    fn value(&self, list: usize, within: usize) -> Option<i32> {
        if list == 0 {
            return None;
        }
        let mut at = self.lists.checked_add(list)?;
        let (mut value, mut pc) = (-1_i32, 0_usize);
        loop {
            let change = self.varint(&mut at)?;
            if change == 0 && pc > 0 {
                return None;
            }
            value = value.wrapping_add(zigzag(change));
            pc = pc.checked_add(self.varint(&mut at)? as usize)?;
            if within < pc {
                return Some(value);
            }
        }
    }

    fn source_at(&self, record: usize, within: usize) -> Option<(String, u32)> {
        let line = self.value(self.u32(record + 24)?, within)?;
        let file = usize::try_from(self.value(self.u32(record + 20)?, within)?).ok()?;
        let unit = self.u32(record + 32)?.checked_add(file)?;
        let offset = self.u32(self.units.checked_add(unit.checked_mul(4)?)?)?;
        let file = self.text_at(self.files.checked_add(offset)?)?;
        Some((String::from_utf8_lossy(file).into_owned(), u32::try_from(line).unwrap_or(0)))
    }

    /// The functions at an address relative to [`Self::text`], innermost first; none if there is none.
    pub fn places(&self, pc: usize, calls: Option<&InlinedCalls>) -> Vec<Place> {
        let mut places = Vec::new();
        let Some(function) = self.function_at(pc) else { return places };
        let (Some(record), Some(start)) = (self.record(function), self.start(function)) else {
            return places;
        };
        let mut within = pc - start;
        while places.len() < MAX_INLINED {
            let (file, line) = self.source_at(record.at, within).unwrap_or_default();
            let inlined = calls.and_then(|calls| self.inlined_call(record.at, within, calls));
            let name = inlined.map_or(record.name, |(name, _)| name);
            places.push(Place { name: String::from_utf8_lossy(name).into_owned(), file, line });
            match inlined {
                Some((_, call)) => within = call,
                None => break,
            }
        }
        places
    }

    /// The inlined function that an instruction belongs to, and where in its function it was called.
    fn inlined_call(&self, record: usize, within: usize, calls: &InlinedCalls) -> Option<(&'a [u8], usize)> {
        let lists = self.u32(record + 28)?;
        let (first_list, data) = if self.is_1_20 { (44, 43) } else { (40, 39) };
        let has_tree = *self.bytes.get(record + data)? > FUNCDATA_INLINED;
        if lists <= PCDATA_INLINED as usize || !has_tree {
            return None;
        }
        let list = self.u32(record + first_list + 4 * PCDATA_INLINED as usize)?;
        let index = usize::try_from(self.value(list, within)?).ok()?;
        let tree = record.checked_add(first_list)?.checked_add(lists.checked_mul(4)?)?;
        let tree = self.u32(tree.checked_add(4 * usize::from(FUNCDATA_INLINED))?)?;
        if tree == u32::MAX as usize {
            return None;
        }
        // Go 1.20: kind of function, name, call, line; before: parent, kind, file, line, name, call.
        let (size, name, call) = if self.is_1_20 { (16, 4, 8) } else { (20, 12, 16) };
        let entry = tree.checked_add(index.checked_mul(size)?)?;
        let name = self.text_at(self.names.checked_add(calls.u32(entry + name)?)?)?;
        Some((name, calls.u32(entry + call)?))
    }
}

/// The least significant bit is the sign: 0, -1, 1, -2, …
pub fn zigzag(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// The trees of inlined calls of all functions.
pub struct InlinedCalls(Vec<u8>);

impl InlinedCalls {
    /// Finds them; `None` if this program does not say where they are.
    pub fn find(elf: &Elf, file: &dyn Source, table: &Pclntab<'_>, table_addr: u64) -> Option<Self> {
        // Where the linker puts moduledata, by version.
        for name in [".go.module", ".noptrdata", ".data", ".data.rel.ro"] {
            let Some((data, _)) = elf.relocated(file, name, MAX_BYTES) else { continue };
            if let Some(addr) = table.address_of_calls(&data, table_addr) {
                let (offset, bytes) = elf.segments.iter().find_map(|segment| segment.locate(addr))?;
                let mut calls = vec![0; usize::try_from(bytes.min(MAX_BYTES)).ok()?];
                file.read_exact_at(&mut calls, offset).ok()?;
                return Some(Self(calls));
            }
        }
        None
    }

    fn u32(&self, at: usize) -> Option<usize> {
        let bytes = self.0.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    }
}

impl Pclntab<'_> {
    /// The field `gofunc` of the `moduledata` in `data`.
    fn address_of_calls(&self, data: &[u8], table_addr: u64) -> Option<u64> {
        let (words, _) = data.as_chunks::<8>();
        let word = |at: usize| words.get(at).map(|&word| u64::from_le_bytes(word));
        let part = |offset: usize| table_addr.wrapping_add(offset as u64);
        let at = (0..words.len()).find(|&at| {
            // Its header, then slices of its parts: address, length, capacity.
            word(at) == Some(table_addr)
                && [(1, self.names), (4, self.units), (7, self.files), (10, self.lists), (13, self.records)]
                    .iter()
                    .all(|&(field, offset)| word(at + field) == Some(part(offset)))
        })?;
        // Go 1.20 has two fields more, about coverage.
        word(at + if self.is_1_20 { 40 } else { 38 }).filter(|&addr| addr != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of Go 1.20 with all parts at the end.
    fn header() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((u64::from(MAGIC_1_20) | 0x0801_0000 << 32).to_le_bytes());
        bytes.extend([0_u64, 0, 0x1000, 72, 72, 72, 72, 72].iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }

    #[test]
    fn lists_of_values() {
        let mut bytes = header();
        // -1 + 6 = 5 for 3 bytes, 5 - 2 = 3 for 200 bytes, the end.
        bytes.extend([9, 12, 3, 3, 0xc8, 1, 0]);
        let table = Pclntab::new(&bytes, None).unwrap();
        let value = |within| table.value(1, within);
        assert_eq!([value(0), value(2), value(3), value(202)], [Some(5), Some(5), Some(3), Some(3)]);
        assert_eq!(value(203), None);
        assert_eq!(table.value(1 << 20, 0), None);
        assert_eq!([0, 1, 2, 3].map(zigzag), [0, -1, 1, -2]);
    }

    #[test]
    fn a_table_among_other_data_is_told_by_its_content() {
        let mut bytes = header();
        assert!(!is_table(&bytes), "without functions");
        bytes[8] = 1;
        // One function from 0 to 16, its record behind: start, name at 2 of the names, no lists.
        let record: [u32; 3] = [0, 12, 16];
        bytes.extend(record.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([0_u32, 0].iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend([0; 40]);
        bytes[72 + 12 + 4] = 60;
        assert!(!is_table(&bytes), "without a name");
        bytes.extend(b"main.main\0");
        let name = bytes.len() as u32 - 10 - 72;
        bytes[72 + 12 + 4..72 + 12 + 8].copy_from_slice(&name.to_le_bytes());
        assert!(is_table(&bytes));
        bytes[1] = 0;
        assert!(!is_table(&bytes));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert!(Pclntab::new(&[], None).is_err());
        assert!(Pclntab::new(&[0; 80], None).is_err());
        let mut bytes = header();
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Pclntab::new(&bytes, None).is_err());
        // Offsets beyond the end lead nowhere.
        let mut bytes = header();
        bytes[8] = 1;
        bytes[64..72].copy_from_slice(&u64::MAX.to_le_bytes());
        let table = Pclntab::new(&bytes, None).unwrap();
        assert!(table.record(0).is_none() && table.places(0, None).is_empty());
    }
}
