//! Tables, written into the arrays: rows into chunks, and pages that lead there.
//!
//! A file's stays. That of code which a process compiles while it runs has chunks and pages of its own, which are
//! free again when nothing leads there any more.

use super::{FileTable, NO_ROOM_FOR_RULE, ROWS_PER_CHUNK, Tables, abi, flat};
use crate::recording::capture::bpf::flat::{FlatPage, FlatTable};
use crate::unwind::Rule;
use crate::unwind::table::Table;

/// The tables of code that a process has compiled, one for each of its code heaps: unlike files' they are taken back.
#[derive(Debug, PartialEq, Eq)]
pub struct MadeTables {
    /// In the order in which they were given; `None` of one without a row.
    pub tables: Vec<Option<FileTable>>,
    /// Runs of pages, and chunks, that are theirs.
    pages: Vec<(u32, u32)>,
    chunks: Vec<u32>,
}

/// Where the next rows are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    chunk: u32,
    /// Rows used in it.
    rows: u16,
}

impl Cursor {
    /// In no chunk.
    pub const NONE: Self = Self { chunk: 0, rows: ROWS_PER_CHUNK };
}

impl Tables {
    fn rule(&mut self, rule: [u8; 8]) -> u16 {
        if let Some(&known) = self.known_rules.get(&rule) {
            return known;
        }
        let Ok(index) = u16::try_from(self.known_rules.len()) else { return NO_ROOM_FOR_RULE.1 };
        self.rules.write(index.into(), flat::rule(rule));
        self.known_rules.insert(rule, index);
        index
    }

    /// Adds a table that was built in this process.
    pub fn add_file(&mut self, table: &Table) -> Option<FileTable> {
        self.add_flat(&FlatTable::of(table))
    }

    /// Adds a file's table. `None` if there is no room, or nothing in it.
    pub fn add_flat(&mut self, table: &FlatTable) -> Option<FileTable> {
        let (first, pages) = extent(table)?;
        let Some(base) = self.free_pages.take(pages) else {
            self.refused_files += 1;
            return None;
        };
        let mut cursor = self.cursor;
        let written = self.write_table(table, base, &mut cursor, &mut Vec::new());
        self.cursor = cursor;
        if written.is_none() {
            self.free_pages.give_back(base, pages);
            self.refused_files += 1;
            return None;
        }
        Some(FileTable {
            file_offset: u64::from(first) << 16,
            first_page: base,
            last_page: (pages - 1) as u16,
        })
    }

    /// Adds tables of compiled code, to which nothing leads yet. `None` if there is no room.
    pub fn add_made(&mut self, tables: &[&FlatTable]) -> Option<MadeTables> {
        let mut made = MadeTables { tables: Vec::new(), pages: Vec::new(), chunks: Vec::new() };
        let mut cursor = Cursor::NONE;
        for table in tables {
            let Some((first, pages)) = extent(table) else {
                made.tables.push(None);
                continue;
            };
            let base = self.free_pages.take(pages);
            made.pages.extend(base.map(|base| (base, pages)));
            let written = base.and_then(|base| self.write_table(table, base, &mut cursor, &mut made.chunks));
            let (Some(base), Some(())) = (base, written) else {
                self.give_back(made);
                self.refused_files += 1;
                return None;
            };
            let file_offset = u64::from(first) << 16;
            made.tables.push(Some(FileTable {
                file_offset,
                first_page: base,
                last_page: (pages - 1) as u16,
            }));
        }
        Some(made)
    }

    /// Takes tables of compiled code back, to which no run leads that has a number.
    pub fn retire_made(&mut self, made: MadeTables) {
        self.retired_tables.push(made);
    }

    pub(super) fn give_back(&mut self, made: MadeTables) {
        made.pages.into_iter().for_each(|(start, pages)| self.free_pages.give_back(start, pages));
        made.chunks.into_iter().for_each(|chunk| self.free_chunks.give_back(chunk, 1));
    }

    /// Writes a table from a page on; says which chunks that took.
    fn write_table(
        &mut self,
        table: &FlatTable,
        base: u32,
        cursor: &mut Cursor,
        chunks: &mut Vec<u32>,
    ) -> Option<()> {
        let (first, _) = extent(table)?;
        let mut next = base;
        for page in &table.pages {
            let entry = self.add_page(table, page, cursor, chunks)?;
            let at = base + u32::from(page.number - first);
            // Pages without rows in between are none, whatever was there before.
            (next..at).for_each(|gap| self.pages.write(gap, abi::unwind_page::default()));
            self.pages.write(at, entry);
            next = at + 1;
        }
        Some(())
    }

    fn add_page(
        &mut self,
        table: &FlatTable,
        page: &FlatPage,
        cursor: &mut Cursor,
        chunks: &mut Vec<u32>,
    ) -> Option<abi::unwind_page> {
        let mut rows: Vec<(u16, [u8; 8])> =
            page.rows.iter().map(|row| (row.pc_low, table.rule(row))).collect();
        // A search starts at the page's first row: one for offset 0, where nothing may be covered.
        if rows.first().is_none_or(|row| row.0 != 0) {
            rows.insert(0, (0, flat::bytes(Rule::Uncovered)));
        }
        // A search takes 13 steps. More rows would be more than one every 8 bytes.
        if rows.len() > abi::limits::MAX_ROWS_PER_PAGE.0 as usize {
            rows = vec![(0, flat::bytes(NO_ROOM_FOR_RULE.0))];
        }
        let n = rows.len() as u16;
        if cursor.rows + n > ROWS_PER_CHUNK {
            let chunk = self.free_chunk()?;
            chunks.push(chunk);
            *cursor = Cursor { chunk, rows: 0 };
        }
        let Cursor { chunk, rows: first } = *cursor;
        for (at, (low, rule)) in (usize::from(first)..).zip(rows) {
            let row = abi::unwind_row { low, rule: self.rule(rule) };
            self.chunks.write(chunk, at, row);
        }
        cursor.rows += n;
        let (block, chunk) = self.chunks.place(chunk);
        Some(abi::unwind_page { block, chunk, first, rows: n })
    }

    fn free_chunk(&mut self) -> Option<u32> {
        if let Some(chunk) = self.free_chunks.take(1) {
            return Some(chunk);
        }
        let first = self.chunks.len();
        if self.chunks.grow() {
            self.free_chunks.give_back(first, self.chunks.len() - first);
        }
        self.free_chunks.take(1)
    }
}

/// The first page of a table, and how many it has.
fn extent(table: &FlatTable) -> Option<(u16, u32)> {
    let (first, last) = (table.pages.first()?.number, table.pages.last()?.number);
    Some((first, u32::from(last - first) + 1))
}
