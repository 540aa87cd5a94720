//! The entries of a section of call frame information, and where their code is.

use super::table::END_OF_TABLE;
use crate::elf::{CallFrames, Dialect, Segment};

/// One of a section's entries, by its offset.
pub(super) enum Entry {
    /// What several functions have in common.
    Cie(usize),
    /// A function.
    Fde(usize),
    /// The end, most often.
    Terminator,
    /// The rest of the section cannot be read.
    Broken,
}

/// Splits the section into entries: a 32-bit length, or 0xffffffff and a 64-bit length; then what
/// tells a CIE from an FDE, as wide as the length but for 32 bits in `.eh_frame` always.
pub(super) fn entries(frames: &CallFrames) -> impl Iterator<Item = Entry> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let start = offset;
        let rest = frames.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        // Whatever comes next, this is the last entry unless it is found to be sound.
        offset = usize::MAX;
        Some(entry(rest, frames.dialect, start).map_or(Entry::Broken, |(entry, size)| {
            offset = start.saturating_add(size);
            entry
        }))
    })
}

/// The entry at the start of `bytes`, and its size.
fn entry(bytes: &[u8], dialect: Dialect, offset: usize) -> Option<(Entry, usize)> {
    let (length, bytes) = bytes.split_first_chunk()?;
    let (length, bytes, header, wide) = match u32::from_le_bytes(*length) {
        0 => return Some((Entry::Terminator, 4)),
        0xffff_ffff => {
            let (length, bytes) = bytes.split_first_chunk()?;
            (usize::try_from(u64::from_le_bytes(*length)).ok()?, bytes, 12, true)
        }
        length => (usize::try_from(length).ok()?, bytes, 4, false),
    };
    let body = bytes.get(..length)?;
    let is_cie = match (dialect, wide) {
        (Dialect::EhFrame, _) => body.first_chunk() == Some(&[0; 4]),
        (Dialect::DebugFrame, false) => body.first_chunk() == Some(&[0xff; 4]),
        (Dialect::DebugFrame, true) => body.first_chunk() == Some(&[0xff; 8]),
    };
    Some((if is_cie { Entry::Cie(offset) } else { Entry::Fde(offset) }, header + length))
}

/// The code that an FDE describes.
pub(super) struct Code {
    pub start: u64,
    /// Offset in the file, not address; above the start.
    pub end: u64,
    /// Offset of the FDE in its section.
    pub fde: usize,
}

/// Where in the file an FDE's code is; none if nowhere.
pub(super) fn located(fde: usize, address: u64, size: u64, segments: &[Segment]) -> Option<Code> {
    // Linkers set the address of a discarded function to 0, where the ELF header is.
    let address = Some(address).filter(|address| *address != 0)?;
    let executable = segments.iter().filter(|segment| segment.executable);
    let (start, room) = executable.filter_map(|segment| segment.locate(address)).next()?;
    let end = start.checked_add(size.min(room))?.min(END_OF_TABLE - 1);
    (start < end).then_some(Code { start, end, fde })
}
