//! `profiler unwind-table`: the rows of a file, for people and for tests.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::Instant;

use anyhow::{Context, Result};

use super::Rule;
use super::frame::Registers;
use super::table::Table;
use crate::cli::UnwindTableArgs;
use crate::elf::Elf;

/// Prints a file's rows to standard output, and what there is to know about them to standard error.
/// Columns are named and written as by `readelf --debug-dump=frames-interp`.
///
/// # Errors
/// If the file has no table, or standard output cannot be written.
pub fn run(args: &UnwindTableArgs) -> Result<()> {
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("failed to open {name}"))?;
    let start = Instant::now();
    let elf = Elf::read_of_any_width(&file).with_context(|| format!("failed to read {name}"))?;
    let table = super::build_for_any_machine(&elf, &file, &[])
        .with_context(|| format!("failed to build the table of {name}"))?;
    let elapsed = start.elapsed();
    match write(&table, &elf, BufWriter::new(io::stdout().lock())) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("failed to write rows to standard output")?,
    }
    let stats = &table.stats;
    say!(
        "{} functions, {} rows, {} rules; {} pages, {} bytes; {:.1} ms",
        stats.fdes,
        table.rows().count(),
        table.rules().len(),
        table.pages().count(),
        table.rows_bytes(),
        elapsed.as_secs_f64() * 1e3,
    );
    for (count, what) in [
        (stats.duplicate_fdes, "entries for code that has one already"),
        (stats.ignored_fdes, "entries for no code of this file"),
        (stats.broken_entries, "entries that cannot be read"),
    ] {
        if count > 0 {
            say!("{count} {what}");
        }
    }
    for (reason, rows) in &stats.not_understood {
        say!("{rows} rows not understood: {}", reason.words());
    }
    Ok(())
}

fn write(table: &Table, elf: &Elf, mut out: impl Write) -> io::Result<()> {
    let registers = elf.machine.registers();
    let fp = registers.names[usize::from(registers.fp)];
    writeln!(out, "{:<16} {:<8} {:<14} {fp:<10} ra", "vaddr", "offset", "CFA")?;
    for row in table.rows() {
        let offset = row.file_offset;
        let code = elf.segments.iter().filter(|segment| segment.executable);
        let vaddr = code.filter_map(|segment| segment.vaddr(offset)).next().unwrap_or_default();
        writeln!(out, "{vaddr:016x} {offset:08x} {}", words(&table.rule(row.rule), registers))?;
    }
    out.flush()
}

/// A rule in columns: CFA, frame pointer and return address, if it is an ordinary frame's.
pub fn words(rule: &Rule, registers: &Registers) -> String {
    match rule {
        Rule::Frame(frame) | Rule::ExactFrame(frame) | Rule::LoopFrame(frame) | Rule::JavaFrame(frame) => {
            let [cfa, fp, ra] = registers.words(frame);
            format!("{cfa:<14} {fp:<10} {ra}")
        }
        Rule::SignalFrame => "signal-frame".to_owned(),
        Rule::Soon => "soon".to_owned(),
        Rule::Switch(switch) => format!("switch: {switch:?}"),
        Rule::EndOfStack => "end-of-stack".to_owned(),
        Rule::Uncovered => "uncovered".to_owned(),
        Rule::NotUnderstood(reason) => format!("not-understood: {}", reason.words()),
    }
}
