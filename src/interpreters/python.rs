//! CPython 3.8 and later: recognised by `_PyRuntime`, `PyCode_Type` and `_PyEval_EvalFrameDefault`, which
//! it exports for its own extension modules.
//!
//! From 3.13 on `_PyRuntime` begins with `_Py_DebugOffsets`, a table of the fields' offsets for debuggers
//! (Include/internal/pycore_debug_offsets.h). Up to 3.12 the layout is that of the release, of which
//! no more are made: the minor version is in `Py_Version` or, before 3.11, shows in what is exported.
//! Either is checked against the size of code objects, which their type has, as the compiler made it.
//!
//! All of that is in the file as it is on disk: no process is read.

use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::{Context as _, Result, bail, ensure};

use crate::elf::symbols::Exported;
use crate::elf::{Elf, Machine, Source};

/// Beginnings of the names of symbols that are looked for.
pub const SYMBOLS: [&str; 8] = [
    "_PyRuntime",
    "PyCode_Type",
    "_PyEval_EvalFrameDefault",
    "PyEval_EvalFrameEx", // of all versions
    "Py_Version",
    "PyObject_CallNoArgs",       // since 3.9
    "PyModule_AddObjectRef",     // since 3.10
    "PyCode_NewWithPosOnlyArgs", // since 3.8
];

/// There is no such field.
pub const NO_OFFSET: u16 = 0xffff;

/// Which frames of the list one run of the loop has: `enum python_runs` of bpf/profile.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runs {
    /// One.
    #[default]
    OneEach,
    /// Up to the one that is marked.
    IsEntry,
    /// Up to one without code.
    Shim,
}

/// How lines are told: `enum python_lines` of bpf/profile.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Lines {
    /// `co_lnotab`, up to 3.9.
    #[default]
    Lnotab,
    /// `co_linetable` of 3.10 (PEP 626).
    Linetable,
    /// `co_linetable` since 3.11 (PEP 657, Objects/locations.md).
    Locations,
    /// Java's: see `hotspot::methods::line`.
    Bytecode,
}

/// Where an interpreter has what: `struct python` of bpf/profile.h.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the fields of CPython's structures, by their names there
pub struct Layout {
    pub interpreters: u64,
    pub code_type: u64,
    pub interpreter_next: u16,
    pub interpreter_threads: u16,
    pub thread_next: u16,
    pub thread_id: u16,
    pub thread_frame: u16,
    pub thread_cframe: u16,
    pub cframe_frame: u16,
    pub cframe_previous: u16,
    pub frame_code: u16,
    pub frame_previous: u16,
    pub frame_instruction: u16,
    pub frame_owner: u16,
    pub object_type: u16,
    pub code_size: u16,
    pub code_first_line: u16,
    pub code_name: u16,
    pub code_qualified: u16,
    pub code_file: u16,
    pub code_lines: u16,
    pub code_instructions: u16,
    pub text_length: u16,
    pub text_hash: u16,
    pub text_ascii: u16,
    pub text_wide: u16,
    pub bytes_data: u16,
    pub text_kind_shift: u16,
    pub runs: Runs,
    pub lines: Lines,
}

/// The most that is read of a code object.
const MOST_OF_CODE: u16 = 248;

/// Whether a file says that it is CPython, of whatever version.
pub fn is_claimed(symbols: &[Exported]) -> bool {
    ["PyCode_Type", "PyEval_EvalFrameEx"].iter().all(|name| symbols.iter().any(|it| it.name == *name))
}

/// The layout, and the code of the loop by address in the image.
///
/// # Errors
/// If this is not CPython, not of a known version, or does not agree with itself.
pub fn find(elf: &Elf, file: &dyn Source, symbols: &[Exported]) -> Result<(Layout, Vec<Range<u64>>)> {
    let get = |name: &str| symbols.iter().find(|symbol| symbol.name == name);
    let code_type = get("PyCode_Type").context("no PyCode_Type")?;
    let minor = match get("Py_Version") {
        Some(symbol) => {
            let version = word::<4>(elf, file, symbol.vaddr)?;
            ensure!(version >> 24 == 3, "version {version:#x}");
            version >> 16 & 0xff
        }
        None if get("PyModule_AddObjectRef").is_some() => 10,
        None if get("PyObject_CallNoArgs").is_some() => 9,
        None if get("PyCode_NewWithPosOnlyArgs").is_some() => 8,
        None => bail!("older than 3.8"),
    };
    let runtime = get("_PyRuntime").context("no _PyRuntime")?;
    let the_loop = get("_PyEval_EvalFrameDefault").context("no loop")?;
    let mut layout = match minor {
        8..=12 => of_release(minor),
        _ => by_debug_offsets(elf, file, runtime.vaddr, minor)?,
    };
    layout.interpreters = layout.interpreters.wrapping_add(runtime.vaddr);
    layout.code_type = code_type.vaddr;
    // `tp_basicsize`, behind a header with a size and `tp_name`.
    let size = word::<8>(elf, file, code_type.vaddr.wrapping_add(u64::from(layout.object_type) + 24))?;
    let expected = match minor {
        8 | 9 => 144..=176,
        10 => 168..=176,
        _ => u64::from(layout.code_instructions)..=u64::from(layout.code_instructions),
    };
    ensure!(expected.contains(&size), "code objects of 3.{minor} have {size} bytes");
    // All fields that are read of one.
    let fields = [
        layout.code_first_line,
        layout.code_name,
        layout.code_qualified,
        layout.code_file,
        layout.code_lines,
        layout.object_type,
    ];
    let used = fields.into_iter().filter(|&field| field != NO_OFFSET).max().unwrap_or(0);
    ensure!(used < MOST_OF_CODE - 8, "a field at {used}");
    layout.code_size = used + 8;
    let range = the_loop.vaddr..the_loop.vaddr.saturating_add(the_loop.size);
    ensure!(!range.is_empty(), "an empty loop");
    let apart = split_off(elf, file, &range);
    Ok((layout, std::iter::once(range).chain(apart).collect()))
}

fn word<const N: usize>(elf: &Elf, file: &dyn Source, vaddr: u64) -> Result<u64> {
    let bytes = elf.image(file, vaddr, N as u64)?;
    Ok(bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)))
}

/// Where objects have what that comes behind their header of so many bytes.
fn objects(header: u16, has_wide_pointer: bool) -> Layout {
    let pointer = if has_wide_pointer { 8 } else { 0 };
    Layout {
        object_type: header - 8,
        text_length: header,
        text_hash: header + 8,
        text_ascii: header + 24 + pointer,
        text_wide: header + 40 + 2 * pointer,
        bytes_data: header + 16,
        text_kind_shift: 2,
        thread_cframe: NO_OFFSET,
        cframe_frame: NO_OFFSET,
        cframe_previous: NO_OFFSET,
        frame_owner: NO_OFFSET,
        code_qualified: NO_OFFSET,
        ..Layout::default()
    }
}

/// The last state of each release up to 3.12: Include/internal/pycore_{runtime,interp,frame}.h and
/// Include/cpython/{pystate,frameobject,code}.h.
fn of_release(minor: u64) -> Layout {
    let objects = objects(16, minor <= 11);
    // `PyFrameObject` and `PyCodeObject` of 3.8 to 3.10.
    let old = Layout {
        interpreters: 32,
        interpreter_next: 0,
        interpreter_threads: 8,
        thread_next: 8,
        thread_frame: 24,
        thread_id: 176,
        frame_previous: 24,
        frame_code: 32,
        frame_instruction: if minor == 10 { 96 } else { 104 },
        code_first_line: 40,
        code_file: 104,
        code_name: 112,
        code_lines: 120,
        ..objects.clone()
    };
    match minor {
        8 | 9 => old,
        10 => Layout { thread_cframe: 48, cframe_previous: 8, lines: Lines::Linetable, ..old },
        11 => Layout {
            interpreters: 40,
            interpreter_next: 0,
            interpreter_threads: 16,
            thread_next: 8,
            thread_id: 152,
            thread_cframe: 56,
            cframe_frame: 8,
            cframe_previous: 16,
            frame_code: 32,
            frame_previous: 48,
            frame_instruction: 56,
            frame_owner: 68,
            code_first_line: 72,
            code_file: 112,
            code_name: 120,
            code_qualified: 128,
            code_lines: 136,
            code_instructions: 184,
            runs: Runs::IsEntry,
            lines: Lines::Locations,
            ..objects
        },
        _ => Layout {
            interpreters: 40,
            interpreter_next: 0,
            interpreter_threads: 72,
            thread_next: 8,
            thread_id: 136,
            thread_cframe: 56,
            cframe_frame: 0,
            cframe_previous: 8,
            frame_code: 0,
            frame_previous: 8,
            frame_instruction: 56,
            frame_owner: 70,
            code_first_line: 68,
            code_file: 112,
            code_name: 120,
            code_qualified: 128,
            code_lines: 136,
            code_instructions: 192,
            runs: Runs::Shim,
            lines: Lines::Locations,
            ..objects
        },
    }
}

/// By the interpreter's own table. Its parts have grown: where each begins depends on the version.
fn by_debug_offsets(elf: &Elf, file: &dyn Source, runtime: u64, minor: u64) -> Result<Layout> {
    // Words: 0 cookie, 1 version, 2 free-threaded; 3 runtime; 6 interpreter; then thread, frame, code.
    let (thread, frame, code) = match minor {
        13 => (19, 28, 34),
        14 => (22, 31, 39),
        _ => bail!("version 3.{minor} is not known"),
    };
    const WORDS: u64 = 64;
    let bytes = elf.image(file, runtime, 8 * WORDS)?;
    ensure!(bytes.starts_with(b"xdebugpy"), "no debug offsets");
    let (words, _) = bytes.as_chunks::<8>();
    let word = |at: usize| words.get(at).map_or(0, |word| u64::from_le_bytes(*word));
    ensure!(word(1) >> 16 == 3 << 8 | minor, "debug offsets of {:#x}", word(1));
    let small = |at: usize| {
        let offset = word(at);
        let fits = u16::try_from(offset).ok().filter(|&offset| offset < NO_OFFSET);
        fits.with_context(|| format!("word {at} of the debug offsets is {offset}"))
    };
    let is_free_threaded = word(2) != 0;
    let interned_alone = is_free_threaded && minor >= 14;
    Ok(Layout {
        interpreters: word(5),
        interpreter_next: small(8)?,
        interpreter_threads: small(9)?,
        thread_next: small(thread + 2)?,
        thread_frame: small(thread + 4)?,
        thread_id: small(thread + 5)?,
        frame_previous: small(frame + 1)?,
        frame_code: small(frame + 2)?,
        frame_instruction: small(frame + 3)?,
        frame_owner: small(frame + 5)?,
        code_file: small(code + 1)?,
        code_name: small(code + 2)?,
        code_qualified: small(code + 3)?,
        code_lines: small(code + 4)?,
        code_first_line: small(code + 5)?,
        code_instructions: small(code + 9)?,
        runs: Runs::Shim,
        lines: Lines::Locations,
        text_kind_shift: if interned_alone { 8 } else { 2 },
        ..objects(if is_free_threaded { 32 } else { 16 }, false)
    })
}

/// The part of a function that the compiler has put elsewhere, as it expects it to run seldom. It has no
/// exported symbol, but the function jumps there, to several places, while a call in the place of
/// a return goes to a function's beginning alone.
fn split_off(elf: &Elf, file: &dyn Source, function: &Range<u64>) -> Option<Range<u64>> {
    const ENOUGH: usize = 4;
    if elf.machine != Machine::X86_64 {
        return None;
    }
    let code = elf.image(file, function.start, function.end - function.start).ok()?;
    let starts = elf.function_starts(file);
    let mut targets: HashMap<usize, HashSet<u64>> = HashMap::new();
    for at in 0..code.len().saturating_sub(6) {
        // jmp and jcc over a distance of 32 bits, wherever the bytes look like them
        let distance_at = match code[at..at + 2] {
            [0xe9, _] => at + 1,
            [0x0f, 0x80..=0x8f] => at + 2,
            _ => continue,
        };
        let distance = i32::from_le_bytes(*code.get(distance_at..)?.first_chunk()?);
        let behind = function.start.wrapping_add(distance_at as u64 + 4);
        let target = behind.wrapping_add_signed(distance.into());
        let next = starts.partition_point(|&start| start <= target);
        if function.contains(&target) || next == 0 || next == starts.len() || starts[next - 1] == target {
            continue;
        }
        targets.entry(next - 1).or_default().insert(target);
    }
    let (&at, places) = targets.iter().max_by_key(|(at, places)| (places.len(), **at))?;
    (places.len() >= ENOUGH).then(|| starts[at]..starts[at + 1])
}

/// The line of an instruction, by a function's table of lines and its first line; `None` if it has none
/// or the table does not reach so far.
pub fn line(lines: Lines, table: &[u8], first_line: u32, instruction: u64) -> Option<u32> {
    let line = match lines {
        Lines::Lnotab => by_lnotab(table, first_line.into(), instruction),
        Lines::Linetable => by_linetable(table, first_line.into(), instruction.saturating_mul(2)),
        Lines::Locations => by_locations(table, first_line.into(), instruction),
        Lines::Bytecode => None,
    };
    line.and_then(|line| u32::try_from(line).ok())
}

/// Pairs of how many bytes and how many lines on: Objects/lnotab_notes.txt.
fn by_lnotab(table: &[u8], first_line: i64, byte: u64) -> Option<i64> {
    let (mut at, mut line) = (0, first_line);
    for pair in table.as_chunks::<2>().0 {
        at += u64::from(pair[0]);
        if at > byte {
            break;
        }
        line += i64::from(pair[1].cast_signed());
    }
    Some(line)
}

/// Pairs of how many bytes a line has and how far it is from the one before.
fn by_linetable(table: &[u8], first_line: i64, byte: u64) -> Option<i64> {
    const NO_LINE: i8 = -128;
    let (mut end, mut line) = (0, first_line);
    for pair in table.as_chunks::<2>().0 {
        end += u64::from(pair[0]);
        let delta = pair[1].cast_signed();
        if delta != NO_LINE {
            line += i64::from(delta);
        }
        if byte < end {
            return (delta != NO_LINE).then_some(line);
        }
    }
    None
}

/// Entries of a few bytes, the first of which has the top bit: what kind it is, and for how many
/// instructions.
fn by_locations(table: &[u8], first_line: i64, instruction: u64) -> Option<i64> {
    let mut bytes = table.iter().copied().peekable();
    let (mut end, mut line) = (0, first_line);
    while let Some(head) = bytes.next() {
        if head & 0x80 == 0 {
            return None;
        }
        let kind = head >> 3 & 15;
        end += u64::from(head & 7) + 1;
        let mut rest = std::iter::from_fn(|| bytes.next_if(|byte| byte & 0x80 == 0));
        match kind {
            10..=12 => line = line.checked_add(i64::from(kind - 10))?,
            13 | 14 => line = line.checked_add(signed(&mut rest)?)?,
            _ => {}
        }
        rest.for_each(drop);
        if instruction < end {
            return (kind != 15).then_some(line);
        }
    }
    None
}

/// Six bits a byte, the lowest first; of a signed number the lowest bit is the sign.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let byte = bytes.next()?;
        value |= u64::from(byte & 63).checked_shl(shift)?;
        shift += 6;
        if byte & 64 == 0 {
            break;
        }
    }
    let magnitude = (value >> 1).cast_signed();
    Some(if value & 1 == 0 { magnitude } else { -magnitude })
}

/// A string's characters: so many bytes each, or ASCII where it is 0.
pub fn text(bytes: &[u8], kind: u16) -> String {
    let char = |code: u32| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    match kind {
        2 => bytes.as_chunks().0.iter().map(|&unit| char(u16::from_le_bytes(unit).into())).collect(),
        4 => bytes.as_chunks().0.iter().map(|&unit| char(u32::from_le_bytes(unit))).collect(),
        _ => bytes.iter().map(|&byte| char(byte.into())).collect(),
    }
}
