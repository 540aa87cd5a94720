//! One table of what several sources say about a file's code.
//!
//! ```text
//! Go's table of stack depths ─▶ .eh_frame ─▶ .debug_frame ─▶ procedure linkage tables
//! ```
//!
//! Each adds the code that those before it do not describe: a function that two describe is taken
//! whole from the first. So assembly that has its frames in `.debug_frame` alone is covered in a program
//! whose compiler wrote `.eh_frame`, and neither is mixed with what the other says of a function.

use std::ops::Range;

use anyhow::Result;

use super::eh_frame::{self, Work};
use super::entries::Code;
use super::table::{Builder, END_OF_TABLE, Stats, Table};
use super::{Machine, Rule};
use crate::elf::{CallFrames, Segment};

/// Rules by file offset, ascending; the last is [`Rule::Uncovered`], where the code ends.
pub type Rows = Vec<(u64, Rule)>;

/// What there is.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Whose code it is.
    pub machine: Machine,
    /// Where it is.
    pub segments: &'a [Segment],
    /// Rows of Go's functions; empty for other programs.
    pub go: Rows,
    /// Call frame information, what counts first first.
    pub frames: &'a [CallFrames],
    /// Rows of each procedure linkage table.
    pub plts: Vec<Rows>,
    /// Code of interpreters' loops: whole functions, by file offset.
    pub loops: &'a [Range<u64>],
}

/// Code that one source describes.
struct Piece {
    code: Code,
    /// Index of the section, or behind those of the rows.
    source: usize,
}

/// The table of all that is described.
///
/// # Errors
/// If there is more of it than is reasonable. What is merely wrong is left out, and counted.
pub fn table(sources: Sources<'_>) -> Result<Table> {
    let mut stats = Stats::default();
    let mut sections = Vec::new();
    for frames in sources.frames {
        match eh_frame::open(frames, &mut stats) {
            Ok(section) => sections.push(section),
            Err(error) if sections.is_empty() && sources.frames.len() == 1 => return Err(error),
            // The others are as good as without it.
            Err(_) => stats.broken_entries += 1,
        }
    }
    let first_of_rows = sections.len();
    let rows: Vec<Rows> = std::iter::once(sources.go).chain(sources.plts).collect();
    let whole = |(index, rows): (usize, &Rows)| {
        let (start, end) = (rows.first()?.0, rows.last()?.0);
        let code = Code { start, end, fde: 0 };
        (start < end && end < END_OF_TABLE).then_some(vec![Piece { code, source: first_of_rows + index }])
    };
    let mut from_rows = rows.iter().enumerate().map(whole);
    let mut pieces = from_rows.next().flatten().unwrap_or_default();
    for (source, section) in sections.iter_mut().enumerate() {
        let codes = section.codes(sources.segments, &mut stats);
        stats.fdes += add(&mut pieces, codes.into_iter().map(|code| Piece { code, source }));
    }
    for layer in from_rows.flatten() {
        add(&mut pieces, layer.into_iter());
    }
    let build = |follows_base| {
        let mut work = Work::new(sections.iter().map(|section| section.bytes()).sum(), follows_base);
        let mut builder = Builder::default();
        for Piece { code, source } in &pieces {
            builder.in_loop(sources.loops.iter().any(|code_of_loop| code_of_loop.contains(&code.start)));
            match sections.get(*source) {
                Some(section) => section.rows(code, &mut work, &mut builder)?,
                None => {
                    let rows = &rows[*source - first_of_rows];
                    rows.iter().try_for_each(|&(at, rule)| builder.push(at, rule))?;
                }
            }
            builder.push(code.end, Rule::Uncovered)?;
        }
        builder.finish(stats.clone())
    };
    let table = build(false)?;
    // Whether some CFA is in the base: in few files, and elsewhere it would only cost rules.
    if !table.rules().iter().any(|rule| sources.machine.registers().is_from_base(rule)) {
        return Ok(table);
    }
    drop(table);
    build(true)
}

/// Adds the pieces of a layer, by ascending address, that overlap none which is there; returns how
/// many those are.
fn add(pieces: &mut Vec<Piece>, layer: impl Iterator<Item = Piece>) -> usize {
    let there = pieces.len();
    let mut next = 0;
    for piece in layer {
        while next < there && pieces[next].code.end <= piece.code.start {
            next += 1;
        }
        if next == there || pieces[next].code.start >= piece.code.end {
            pieces.push(piece);
        }
    }
    let added = pieces.len() - there;
    // Two ascending runs, which a stable sort merges.
    if there > 0 && added > 0 {
        pieces.sort_by_key(|piece| piece.code.start);
    }
    added
}
