//! Where functions begin and end by their call frame information, which stripped files have too.

use std::cell::Cell;

use super::parts::read;
use super::{Elf, MAX_CALL_FRAMES_BYTES, Source};

/// A function by the search table of `.eh_frame_hdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    /// Address of its first byte.
    pub start: u64,
    /// Address of its frame description entry (FDE).
    fde: u64,
}

impl Elf {
    /// Functions by the search table of `.eh_frame_hdr`, ascending. All linkers encode it in the same way. Empty if
    /// there is none.
    pub(crate) fn described(&self, file: &dyn Source) -> Vec<Described> {
        const ENCODINGS: [u8; 4] = [1, 0x1b, 0x03, 0x3b]; // version 1; relative to here; u32; to the header
        let Some(header) = &self.eh_frame_header else { return Vec::new() };
        let Ok(bytes) = read(file, header.file_offset, header.file_bytes, MAX_CALL_FRAMES_BYTES) else {
            return Vec::new();
        };
        let (Some(&ENCODINGS), Some(entries)) = (bytes.first_chunk(), bytes.get(12..)) else {
            return Vec::new();
        };
        let (entries, _) = entries.as_chunks::<8>();
        let [start, fde] = [0, 4].map(|at| {
            move |entry: &[u8; 8]| {
                let distance = i32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
                header.vaddr.wrapping_add_signed(distance.into())
            }
        });
        let found: Vec<Described> =
            entries.iter().map(|entry| Described { start: start(entry), fde: fde(entry) }).collect();
        if found.is_sorted_by_key(|function| function.start) { found } else { Vec::new() }
    }

    /// Where functions begin, ascending.
    pub(crate) fn function_starts(&self, file: &dyn Source) -> Vec<u64> {
        self.described(file).into_iter().map(|function| function.start).collect()
    }

    /// The first address behind a function, by its FDE: length, pointer to the CIE, address relative to here, bytes.
    /// `None` if it is encoded in another way, in which case the address is not that of the table.
    fn end_of(&self, file: &dyn Source, function: Described) -> Option<u64> {
        let fde = self.image(file, function.fde, 16).ok()?;
        let word = |at: usize| Some(u32::from_le_bytes(*fde.get(at..)?.first_chunk()?));
        let start = function.fde.wrapping_add(8).wrapping_add_signed(word(8)?.cast_signed().into());
        if start == function.start { Some(start.saturating_add(word(12)?.into())) } else { None }
    }
}

/// Asks where code ends that has no size of its own.
pub(super) struct Ends<'a> {
    elf: &'a Elf,
    file: &'a dyn Source,
    described: Vec<Described>,
    /// How many FDEs may still be read.
    left: Cell<usize>,
}

impl<'a> Ends<'a> {
    pub(super) fn new(elf: &'a Elf, file: &'a dyn Source) -> Self {
        /// Functions of assembly without a size: some thousands in the largest libraries of cryptography.
        const MOST_READ: usize = 1 << 16;
        Self { elf, file, described: elf.described(file), left: Cell::new(MOST_READ) }
    }

    /// The first address that is not of the function at `vaddr`: behind its FDE or, if it has none, where the next
    /// FDE begins. `None` if no more is known of it.
    pub(super) fn of(&self, vaddr: u64) -> Option<u64> {
        let next = self.described.partition_point(|function| function.start <= vaddr);
        let own = next.checked_sub(1).map(|at| self.described[at]).filter(|_| self.left.get() > 0);
        let own_end = own.and_then(|own| {
            self.left.set(self.left.get() - 1);
            self.elf.end_of(self.file, own).filter(|&end| end > vaddr)
        });
        own_end.or_else(|| self.described.get(next).map(|function| function.start))
    }
}
