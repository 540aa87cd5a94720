//! Go's table of stack depths. Go has no `.eh_frame`, and strips what debuggers have instead; but its
//! own runtime walks stacks by `.gopclntab`, which every program carries: for each instruction, how
//! far the stack pointer is below the return address. That is exact where frame pointers are not:
//! functions in assembly have none, so that their callers would be missing.
//!
//! ```text
//! header ─▶ functions: (start, record)…       record ─▶ name, flags, list of depths
//! depths: (change of depth, length of code)…, in variable-length integers, from depth -1 on
//! ```
//!
//! The layout is that of Go 1.18 and later. Programs of older ones are walked by frame pointers.

use anyhow::{Context, Result, bail, ensure};

use super::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
use super::table::END_OF_TABLE;
use super::{Reason, Rule, Switch};
use crate::elf::{Elf, Segment, Source};

/// Kubernetes has 30 MB.
const MAX_BYTES: u64 = 256 << 20;
/// Equal lists are shared, so that all functions together have more than the section.
const DEPTHS_PER_BYTE: usize = 4;
const MAGIC_1_18: u32 = 0xffff_fff0;
const MAGIC_1_20: u32 = 0xffff_fff1;
/// Flags of a record: a stack's first function; one that writes the stack pointer.
const TOP_FRAME: u8 = 1;
const WRITES_SP: u8 = 2;

/// The rules of a Go program's functions by file offset, ascending; empty for other programs.
///
/// # Errors
/// If the section is malformed or of an unknown version.
pub fn rows(elf: &Elf, file: &dyn Source) -> Result<Vec<(u64, Rule)>> {
    // The second is that of position-independent programs: as much of its name as is kept.
    for name in [".gopclntab", ".data.rel.ro.gop"] {
        if let Some(bytes) = elf.section(file, name, MAX_BYTES)? {
            return Pclntab::new(&bytes)?.rows(&elf.segments);
        }
    }
    Ok(Vec::new())
}

struct Pclntab<'a> {
    bytes: &'a [u8],
    functions: usize,
    /// Address that functions' starts are relative to.
    text: u64,
    names: usize,
    depths: usize,
    records: usize,
    /// Where a record has its flags.
    flags: usize,
}

impl<'a> Pclntab<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self> {
        let word = |at: usize| -> Result<u64> {
            let word = bytes.get(at..at + 8).context("the header is cut")?;
            Ok(u64::from_le_bytes(word.try_into()?))
        };
        let flags = match (word(0)? as u32, word(0)? >> 32) {
            // The high half: two bytes of 0, length of the shortest instruction, size of a word.
            (MAGIC_1_18, 0x0801_0000) => 37,
            (MAGIC_1_20, 0x0801_0000) => 41,
            (magic, _) => bail!("unknown version {magic:#x} of .gopclntab"),
        };
        let functions = usize::try_from(word(8)?)?;
        ensure!(functions <= bytes.len() / 8, "more functions than .gopclntab can hold");
        let at = |field: usize| anyhow::Ok(usize::try_from(word(field)?)?.min(bytes.len()));
        Ok(Self {
            bytes,
            functions,
            text: word(24)?,
            names: at(32)?,
            depths: at(56)?,
            records: at(64)?,
            flags,
        })
    }

    fn u32(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    }

    fn rows(&self, segments: &[Segment]) -> Result<Vec<(u64, Rule)>> {
        let code = segments.iter().filter(|segment| segment.executable);
        let (text, size) = code
            .filter_map(|segment| segment.locate(self.text))
            .next()
            .context("the code of .gopclntab is not in the file")?;
        let mut rows: Vec<(u64, Rule)> = Vec::new();
        let mut budget = self.bytes.len().saturating_mul(DEPTHS_PER_BYTE);
        for i in 0..self.functions {
            let entry = self.records + 8 * i;
            let (start, end) = (self.u32(entry), self.u32(entry + 8));
            let (start, end) = start.zip(end).context("the list of functions is cut")?;
            let (start, end) = (text + start as u64, text + end as u64);
            ensure!(
                start <= end && end <= (text + size).min(END_OF_TABLE - 1),
                "functions descend or leave the code"
            );
            if rows.last().is_some_and(|&(last, _)| last > start) {
                bail!("functions descend");
            }
            let record = self.u32(entry + 4).and_then(|offset| self.records.checked_add(offset));
            let Some(function) = record.and_then(|at| self.function(at)) else {
                rows.push((start, Rule::NotUnderstood(Reason::Instructions)));
                continue;
            };
            // The kernel returns from a handler to its first instruction, which no call is before.
            if let (Some(Rule::SignalFrame), Some(before)) = (function.fixed, start.checked_sub(1))
                && rows.last().is_none_or(|&(last, _)| last <= before)
            {
                rows.push((before, Rule::SignalFrame));
            }
            self.function_rows(&function, start, end, &mut budget, &mut rows)?;
        }
        if let Some(end) = self.u32(self.records + 8 * self.functions).filter(|_| !rows.is_empty()) {
            rows.push((text + end as u64, Rule::Uncovered));
        }
        Ok(rows)
    }

    fn function(&self, record: usize) -> Option<Function> {
        let name = self.bytes.get(self.names.checked_add(self.u32(record + 4)?)?..)?;
        let name = name.split(|&byte| byte == 0).next()?;
        let flags = *self.bytes.get(record + self.flags)?;
        let depths = self.u32(record + 16)?;
        let fixed = match name {
            b"runtime.systemstack" => Some(Rule::Switch(Switch::SystemStack)),
            b"runtime.morestack" => Some(Rule::Switch(Switch::MoreStack)),
            b"runtime.asmcgocall" => Some(Rule::Switch(Switch::CgoCall)),
            b"runtime.sigreturn" | b"runtime.sigreturn__sigaction" => Some(Rule::SignalFrame),
            // To the runtime a stack starts here; above is the signal frame.
            b"runtime.sigtramp" => None,
            // Never returns, and the goroutine is not running.
            b"runtime.mcall" => Some(Rule::EndOfStack),
            _ if flags & TOP_FRAME != 0 => Some(Rule::EndOfStack),
            _ => None,
        };
        let depths = (depths != 0).then(|| self.depths.saturating_add(depths));
        Some(Function { fixed, depths, writes_sp: flags & WRITES_SP != 0 })
    }

    fn function_rows(
        &self,
        function: &Function,
        start: u64,
        end: u64,
        budget: &mut usize,
        rows: &mut Vec<(u64, Rule)>,
    ) -> Result<()> {
        let (None, Some(mut at)) = (function.fixed, function.depths) else {
            rows.push((start, function.fixed.unwrap_or(Rule::Uncovered)));
            return Ok(());
        };
        let (mut depth, mut pc) = (-1_i64, start);
        while pc < end {
            *budget = budget.checked_sub(1).context("functions share long lists of depths")?;
            let change = self.varint(&mut at);
            if change == Some(0) && pc > start {
                // The end of the list. What follows fills the space up to the next function.
                rows.push((pc, Rule::Uncovered));
                return Ok(());
            }
            let (Some(change), Some(length @ 1..)) = (change, self.varint(&mut at)) else {
                rows.push((pc, Rule::NotUnderstood(Reason::Instructions)));
                return Ok(());
            };
            // Zigzag: 0, -1, 1, -2, …
            let before = depth;
            depth += i64::from(change >> 1) ^ -i64::from(change & 1);
            let rule = rule(depth, function.writes_sp);
            // Before Go 1.21 all of the frame is made first, and rbp saved in the instruction behind.
            let save = if depth - 8 < 128 { 5 } else { 8 };
            if let (0, 9.., Rule::Frame(frame)) = (before, depth, rule)
                && length > save
            {
                rows.push((pc, Rule::Frame(Frame { fp: SavedFp::Same, ..frame })));
                rows.push((pc + u64::from(save), rule));
            } else {
                rows.push((pc, rule));
            }
            pc += u64::from(length);
        }
        Ok(())
    }

    fn varint(&self, at: &mut usize) -> Option<u32> {
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
}

struct Function {
    /// The rule for all of it.
    fixed: Option<Rule>,
    depths: Option<usize>,
    writes_sp: bool,
}

/// The rule at a depth. A function that has a frame has saved rbp next to the return address.
fn rule(depth: i64, writes_sp: bool) -> Rule {
    let fp = if depth > 0 { SavedFp::AtCfa(-16) } else { SavedFp::Same };
    match i32::try_from(depth) {
        // It may be on another stack now, to which no depth applies.
        Ok(1..) if writes_sp => Rule::Switch(Switch::FramePointer),
        Ok(depth @ 0..0x7fff_0000) => Rule::Frame(Frame {
            cfa: Cfa::Sp(depth + 8),
            fp,
            base: SavedBase::Lost,
            ra: ReturnAddress::AtCfa(-8),
        }),
        _ => Rule::NotUnderstood(Reason::Cfa),
    }
}
