//! Rows from Go's table of functions. Go has no `.eh_frame`, and strips what debuggers have instead; but its
//! own runtime walks stacks by [`.gopclntab`](crate::gopclntab), which has for each instruction how far the
//! stack pointer is below the return address. That is exact where frame pointers are not: functions in
//! assembly have none, so that their callers would be missing.
//!
//! Programs of Go before 1.18 are walked by frame pointers.

use anyhow::{Context, Result, bail, ensure};

use super::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
use super::table::END_OF_TABLE;
use super::{Reason, Rule, Switch};
use crate::elf::{Elf, Segment, Source};
use crate::gopclntab::{self, Pclntab, Record, zigzag};

/// Equal lists are shared, so that all functions together have more than the section.
const DEPTHS_PER_BYTE: usize = 4;

/// The rules of a Go program's functions by file offset, ascending; empty for other programs.
///
/// # Errors
/// If the section is malformed or of an unknown version.
pub fn rows(elf: &Elf, file: &dyn Source) -> Result<Vec<(u64, Rule)>> {
    match gopclntab::section(elf, file)? {
        Some((bytes, _)) => {
            rows_of(&Pclntab::new(&bytes, elf.section_address(".text"))?, bytes.len(), &elf.segments)
        }
        None => Ok(Vec::new()),
    }
}

fn rows_of(table: &Pclntab<'_>, bytes: usize, segments: &[Segment]) -> Result<Vec<(u64, Rule)>> {
    let code = segments.iter().filter(|segment| segment.executable);
    let (text, size) = code
        .filter_map(|segment| segment.locate(table.text))
        .next()
        .context("the code of .gopclntab is not in the file")?;
    let mut rows: Vec<(u64, Rule)> = Vec::new();
    let mut budget = bytes.saturating_mul(DEPTHS_PER_BYTE);
    for i in 0..table.functions {
        let (start, end) = (table.start(i), table.start(i + 1));
        let (start, end) = start.zip(end).context("the list of functions is cut")?;
        let (start, end) = (text + start as u64, text + end as u64);
        ensure!(
            start <= end && end <= (text + size).min(END_OF_TABLE - 1),
            "functions descend or leave the code"
        );
        if rows.last().is_some_and(|&(last, _)| last > start) {
            bail!("functions descend");
        }
        let Some(function) = table.record(i) else {
            rows.push((start, Rule::NotUnderstood(Reason::Instructions)));
            continue;
        };
        let fixed = fixed_rule(&function);
        // The kernel returns from a handler to its first instruction, which no call is before.
        if let (Some(Rule::SignalFrame), Some(before)) = (fixed, start.checked_sub(1))
            && rows.last().is_none_or(|&(last, _)| last <= before)
        {
            rows.push((before, Rule::SignalFrame));
        }
        function_rows(table, &function, fixed, start, end, &mut budget, &mut rows)?;
    }
    if let Some(end) = table.start(table.functions).filter(|_| !rows.is_empty()) {
        rows.push((text + end as u64, Rule::Uncovered));
    }
    Ok(rows)
}

/// The rule for all of a function, where that is known by its name.
fn fixed_rule(function: &Record<'_>) -> Option<Rule> {
    match function.name {
        b"runtime.systemstack" => Some(Rule::Switch(Switch::SystemStack)),
        b"runtime.morestack" => Some(Rule::Switch(Switch::MoreStack)),
        b"runtime.asmcgocall" => Some(Rule::Switch(Switch::CgoCall)),
        b"runtime.sigreturn" | b"runtime.sigreturn__sigaction" => Some(Rule::SignalFrame),
        // To the runtime a stack starts here; above is the signal frame.
        b"runtime.sigtramp" => None,
        // Never returns, and the goroutine is not running.
        b"runtime.mcall" => Some(Rule::EndOfStack),
        _ if function.is_top => Some(Rule::EndOfStack),
        _ => None,
    }
}

fn function_rows(
    table: &Pclntab<'_>,
    function: &Record<'_>,
    fixed: Option<Rule>,
    start: u64,
    end: u64,
    budget: &mut usize,
    rows: &mut Vec<(u64, Rule)>,
) -> Result<()> {
    let (None, Some(mut at)) = (fixed, function.depths) else {
        rows.push((start, fixed.unwrap_or(Rule::Uncovered)));
        return Ok(());
    };
    let (mut depth, mut pc) = (-1_i64, start);
    while pc < end {
        *budget = budget.checked_sub(1).context("functions share long lists of depths")?;
        let change = table.varint(&mut at);
        if change == Some(0) && pc > start {
            // The end of the list. What follows fills the space up to the next function.
            rows.push((pc, Rule::Uncovered));
            return Ok(());
        }
        let (Some(change), Some(length @ 1..)) = (change, table.varint(&mut at)) else {
            rows.push((pc, Rule::NotUnderstood(Reason::Instructions)));
            return Ok(());
        };
        let before = depth;
        depth += i64::from(zigzag(change));
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
