//! Code of loaded programs: where it lies, and which source lines it is of.
//!
//! The kernel says both of a program by its id. Its symbols say less: they have a function's address and its
//! tag, a hash of its instructions, which functions of several programs have in common whose source is the
//! same. So what is asked for an address is asked of the program whose code lies there.

use std::collections::HashMap;

use super::btf::Strings;
use super::sys;

/// A line of source code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file, as the compiler was given it.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

/// Bytes of code of every function of every loaded program, by its address. Empty for users who may
/// not list programs or see kernel addresses.
pub fn lengths() -> HashMap<u64, u32> {
    let mut lengths = HashMap::new();
    for (_, program) in loaded() {
        lengths.extend(program.functions.into_iter().zip(program.lengths));
    }
    lengths
}

/// Source lines at `addrs`, in their order, within the functions that have `tag`. None where no such
/// function is loaded now, or its program came without lines.
pub fn lines(tag: [u8; 8], addrs: &[u64]) -> Vec<Option<Line>> {
    let mut found = vec![None; addrs.len()];
    for (fd, program) in loaded() {
        // The symbol of the first function has the whole program's tag.
        let tags = std::iter::once(&program.raw.tag).chain(program.tags.iter().skip(1));
        let functions = program.functions.iter().zip(&program.lengths).zip(tags);
        let lies_in = |addr: u64| {
            let mut functions = functions.clone().filter(|(_, theirs)| **theirs == tag);
            functions.find_map(|((&start, &length), _)| {
                (start..start.saturating_add(length.into())).contains(&addr).then_some(start)
            })
        };
        let here: Vec<_> =
            addrs.iter().enumerate().filter_map(|(at, &addr)| Some((at, addr, lies_in(addr)?))).collect();
        if here.is_empty() {
            continue;
        }
        let Ok(records) = sys::lines(&fd, &program.raw) else { continue };
        let Some(strings) = Strings::of(program.raw.btf_id) else { continue };
        for (at, addr, start) in here {
            found[at] = record_at(&records, start, addr)
                .map(|record| Line { file: strings.get(record.file), line: record.line });
        }
    }
    found
}

fn loaded() -> impl Iterator<Item = (std::os::fd::OwnedFd, sys::Program)> {
    let ids = sys::ids_after(sys::Object::Program, 0).unwrap_or_default();
    ids.into_iter().filter_map(|id| {
        let fd = sys::open(sys::Object::Program, id).ok()??;
        let program = sys::program(&fd).ok()?;
        Some((fd, program))
    })
}

/// The record of the instruction at an address: the last before it in its function, which begins at `start`.
fn record_at(records: &[sys::LineRecord], start: u64, addr: u64) -> Option<&sys::LineRecord> {
    let before = records.iter().filter(|record| (start..=addr).contains(&record.addr));
    before.max_by_key(|record| record.addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_function_at_the_address() {
        let record = |addr, line| sys::LineRecord { addr, file: 0, line };
        // The kernel lays the functions of a program where there is room, in any order.
        let records = [record(0x900, 1), record(0x910, 2), record(0x100, 8), record(0x108, 9)];
        let line = |start, addr| record_at(&records, start, addr).map(|record| record.line);
        assert_eq!(line(0x900, 0x90f), Some(1));
        assert_eq!(line(0x900, 0x910), Some(2));
        assert_eq!(line(0x100, 0x140), Some(9));
        // Instructions before the first record have none, and above all not another function's.
        assert_eq!(line(0x800, 0x8ff), None);
    }
}
