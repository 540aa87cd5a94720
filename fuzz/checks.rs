//! What must hold of any input: for the fuzz targets, and for the tests that keep what they found.

use profiler::elf::{self, CallFrames, Dialect, Machine, Segment};
use profiler::interpreters::python::Lines;
use profiler::interpreters::{self, python};
use profiler::model::profile::Profile;
use profiler::unwind::sources::{self, Sources};
use profiler::unwind::{self, Rule};
use profiler::viewing::{folded, pprof, reading};

/// Begins like an ELF file and is taken for one, or is a byte of flags and the section of call
/// frames in a file that is otherwise sound: mutations seldom get past an ELF file's headers. Says
/// whether there was a table.
pub fn unwind(bytes: &[u8]) -> bool {
    let table = if bytes.starts_with(b"\x7fELF") {
        let file = bytes.to_vec();
        let id = elf::layout::Layout::read(&file).map(|layout| layout.build_id).unwrap_or_default();
        assert!(id.len() <= bytes.len());
        assert!(elf::plt(&file).len() * 64 <= bytes.len());
        unwind::build(&file)
    } else {
        let Some((flags, section)) = bytes.split_first() else { return false };
        let code = Segment { vaddr: 0, file_offset: 0, file_bytes: 1 << 24, executable: true };
        let high = Segment { vaddr: 1 << 40, file_offset: 1 << 24, file_bytes: 1 << 33, executable: true };
        let machine = if flags & 128 == 0 { Machine::X86_64 } else { Machine::Aarch64 };
        let frames = CallFrames {
            machine,
            dialect: if flags & 1 == 0 { Dialect::EhFrame } else { Dialect::DebugFrame },
            vaddr: 1 << 24,
            bytes: section.to_vec(),
            max_fdes: (flags & 2 != 0).then_some(u32::from(flags >> 2)),
        };
        let (segments, frames) = (&[code, high], &[frames]);
        sources::table(Sources { machine, segments, go: Vec::new(), frames, plts: Vec::new(), loops: &[] })
    };
    let Ok(table) = table else { return false };
    let rows: Vec<_> = table.rows().map(|row| (row.file_offset, table.rule(row.rule))).collect();
    // Prologues that functions share may be run up to four times their size.
    assert!(rows.len() <= 4 * bytes.len());
    assert!(table.rows_bytes() <= 4 * (rows.len() + (1 << 16)));
    for pair in rows.windows(2) {
        let [(start, rule), (end, next)] = [pair[0], pair[1]];
        assert!(start < end && rule != next);
        assert_eq!(table.lookup(start), rule);
        assert_eq!(table.lookup(start + (end - start) / 2), rule);
        assert_eq!(table.lookup(end - 1), rule);
    }
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        assert_eq!(table.lookup(first.0.wrapping_sub(1)), Rule::Uncovered);
        assert_eq!(last.1, Rule::Uncovered);
    }
    for page in table.pages() {
        assert!(!page.rows.is_empty() && page.rows.is_sorted_by(|a, b| a.pc_low < b.pc_low));
    }
    true
}

/// A file that may be an interpreter's; or a byte that says how, and a function's table of lines or a string.
/// Says whether something was found.
pub fn scripts(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"\x7fELF") {
        let found = interpreters::find(&bytes.to_vec());
        assert!(found.loops.iter().all(|code| code.start < code.end));
        return !found.is_empty();
    }
    let Some((&how, rest)) = bytes.split_first() else { return false };
    let lines = match how & 3 {
        0 => Lines::Lnotab,
        1 => Lines::Linetable,
        2 => Lines::Locations,
        _ => {
            let text = python::text(rest, u16::from(how >> 2));
            assert!(text.chars().count() <= rest.len());
            return true;
        }
    };
    let first = u32::from_le_bytes([how, how, how, 0]);
    let mut found = false;
    for instruction in (0..64).chain([1 << 20, u64::from(u32::MAX)]) {
        found |= python::line(lines, rest, first, instruction).is_some();
    }
    found
}

/// The message in a pprof file. What can be read can be folded. Says whether it could be read.
pub fn pprof(bytes: &[u8]) -> bool {
    let Ok(profile) = pprof::parse(bytes) else { return false };
    folds(&profile);
    true
}

/// A file of any other kind: what it is says its content. Says whether it could be read.
pub fn formats(bytes: &[u8]) -> bool {
    let Ok(profile) = reading::parse(bytes) else { return false };
    folds(&profile);
    true
}

/// The text of `perf script`, behind an event by which it is known. Says whether it could be read.
pub fn perf(bytes: &[u8]) -> bool {
    formats(&[b"x 1 1.0: 5 cycles: \n\t 10 f (/x)\n\n", bytes].concat())
}

fn folds(profile: &Profile) {
    for index in 0..profile.sample_types.len() {
        if let Ok(folded) = folded::fold(profile, index, &["comm".to_owned()]) {
            let text = String::from_utf8(folded).unwrap();
            for line in text.lines() {
                let (stack, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<i64>().is_ok_and(|value| value != 0), "{line}");
                assert!(stack.split(';').all(|name| !name.is_empty() && !name.contains('\r')), "{line}");
            }
        }
    }
}
