//! `profiler unwind-table --addresses`: the rules that a walk finds, for tests. They are looked up in
//! arrays as the kernel has them, by the search that it runs, and read back from there.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Write};

use anyhow::{Context, Result};

use super::encode::decode;
use super::tables::{Capacity, FileTable, Tables};
use crate::cli::UnwindTableArgs;
use crate::elf::{Elf, Machine};
use crate::unwind;
use crate::unwind::show::words;
use crate::unwind::table::{Builder, Stats, Table};
use crate::unwind::{Reason, Rule};

/// Reads hexadecimal addresses of a file's code, one a line, and prints the rule for each.
///
/// # Errors
/// If the file has no table, or a line no address.
pub fn run(args: &UnwindTableArgs) -> Result<()> {
    let name = args.file.display();
    let file = File::open(&args.file).with_context(|| format!("failed to open {name}"))?;
    let elf = Elf::read(&file).with_context(|| format!("failed to read {name}"))?;
    let table = unwind::build(&file).with_context(|| format!("failed to build the table of {name}"))?;
    let (tables, found) = arrays(&table)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let line = line.context("failed to read addresses from standard input")?;
        let address =
            u64::from_str_radix(&line, 16).with_context(|| format!("failed to read the address {line:?}"))?;
        let code = elf.segments.iter().filter(|segment| segment.executable);
        let place = code.filter_map(|segment| segment.locate(address)).next();
        let (offset, _) = place.with_context(|| format!("failed to find {line} in the code of {name}"))?;
        let rule = tables.lookup(found, offset).map_or(Rule::Uncovered, |rule| decode(&rule));
        writeln!(out, "{}", words(&rule, Machine::NATIVE.registers()))
            .context("failed to write to standard output")?;
    }
    out.flush().context("failed to write to standard output")
}

/// Arrays with a file's table between those of two others, which describe every byte.
fn arrays(table: &Table) -> Result<(Tables, FileTable)> {
    let neighbour = || -> Result<Table> {
        let mut builder = Builder::default();
        builder.push(0, Rule::NotUnderstood(Reason::Instructions))?;
        builder.push(16 << 16, Rule::Uncovered)?;
        builder.finish(Stats::default())
    };
    let pages = table.pages().last().map_or(0, |page| usize::from(page.number) + 1);
    let mut tables = Tables::private(&Capacity::new(table.rows_bytes() / 4, pages, 0))?;
    tables.add_file(&neighbour()?).context("failed to add a table to empty arrays")?;
    let found = tables.add_file(table).context("failed to find room for the file's table")?;
    tables.add_file(&neighbour()?).context("failed to find room for another table")?;
    Ok((tables, found))
}
