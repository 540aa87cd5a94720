//! Names of a Go program's functions without a symbol table or debug information: from the table that its
//! own runtime prints stacks by (see [`crate::gopclntab`]).

use super::names::Frame;
use crate::elf::{Elf, Source};
use crate::gopclntab::{self, InlinedCalls, Pclntab};

/// Functions at file offsets, innermost first; `None` if the file is no Go program or its table cannot be
/// read. An offset outside of its functions has none.
pub fn names(file: &dyn Source, offsets: &[u64], inlined: bool) -> Option<Vec<Vec<Frame>>> {
    let elf = Elf::read(file).ok()?;
    let (bytes, addr) = gopclntab::section(&elf, file).ok()??;
    let table = Pclntab::new(&bytes, elf.section_address(".text")).ok()?;
    let calls = if inlined { InlinedCalls::find(&elf, file, &table, addr) } else { None };
    let code = || elf.segments.iter().filter(|segment| segment.executable);
    let names = |offset: &u64| {
        let vaddr = code().find_map(|segment| segment.vaddr(*offset));
        let pc = vaddr.and_then(|vaddr| usize::try_from(vaddr.checked_sub(table.text)?).ok());
        let places = pc.map(|pc| table.places(pc, calls.as_ref())).unwrap_or_default();
        places
            .into_iter()
            .map(|place| Frame { filename: place.file, line: place.line.into(), ..Frame::named(&place.name) })
            .collect()
    };
    Some(offsets.iter().map(names).collect())
}
