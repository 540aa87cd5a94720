//! The compact table: which rule holds where in a file.
//!
//! Rows are kept as the kernel will have them. A page is 64 KiB of the file, so that a row needs
//! only the low half of its offset and 4 bytes in all. A row's rule holds from its offset to the
//! next row's. Every page can be searched alone: one that begins inside a row starts with a copy of
//! that row's rule, and where a page has no row at or below an offset, nothing covers it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use anyhow::{Result, ensure};
use foldhash::fast::RandomState;

use super::{Reason, Rule};

/// Code beyond this offset in its file is not covered. The largest browsers have 0.3 GB of it.
pub const END_OF_TABLE: u64 = 1 << 32;
/// The largest libraries have a few million rows.
const MAX_ROWS: usize = 8 << 20;
/// With the two reserved ones, all indexes fit into 16 bits.
const MAX_RULES: usize = 65_000;

/// Names a rule within its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub u16);

impl RuleIndex {
    /// [`Rule::Uncovered`], in every table.
    pub const UNCOVERED: Self = Self(0);
    /// [`Reason::TooManyRules`], in every table.
    const TOO_MANY: Self = Self(1);
}

/// From this offset on, up to the next row's, this rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Offset in the file.
    pub file_offset: u64,
    /// The rule.
    pub rule: RuleIndex,
}

/// A row within its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRow {
    /// Low 16 bits of the offset in the file.
    pub pc_low: u16,
    /// The rule.
    pub rule: RuleIndex,
}

/// Rows for 64 KiB of a file, by ascending `pc_low`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Offset in the file divided by 65,536.
    pub number: u16,
    /// At least one. Pages without a row are left out: nothing covers them.
    pub rows: &'a [PageRow],
}

/// How the call frame information came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frame description entries in the table.
    pub fdes: usize,
    /// Entries of functions that the linker discarded, or outside the file's code.
    pub ignored_fdes: usize,
    /// Entries that another one for the same code supersedes.
    pub duplicate_fdes: usize,
    /// Entries that could not be read at all.
    pub broken_entries: usize,
    /// Rows that were not understood, by reason.
    pub not_understood: BTreeMap<Reason, usize>,
}

/// The rules for the code of one file, by offset in the file.
#[derive(Debug)]
pub struct Table {
    pages: Vec<(u16, Range<usize>)>,
    page_rows: Vec<PageRow>,
    rules: Vec<Rule>,
    /// How it came out.
    pub stats: Stats,
}

impl Table {
    /// The rule that holds for the instruction at an offset of the file.
    pub fn lookup(&self, file_offset: u64) -> Rule {
        self.find(file_offset).map_or(Rule::Uncovered, |row| self.rule(row.rule))
    }

    fn find(&self, file_offset: u64) -> Option<&PageRow> {
        let number = u16::try_from(file_offset >> 16).ok()?;
        let page = self.pages.binary_search_by_key(&number, |page| page.0).ok()?;
        let rows = &self.page_rows[self.pages[page].1.clone()];
        let above = rows.partition_point(|row| u64::from(row.pc_low) <= file_offset & 0xffff);
        rows[..above].last()
    }

    /// The rule that an index from this table names.
    ///
    /// # Panics
    /// If the index is another table's.
    pub fn rule(&self, index: RuleIndex) -> Rule {
        self.rules[usize::from(index.0)]
    }

    /// All rules, by their index. Some may be in no row.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The pages, ascending.
    pub fn pages(&self) -> impl Iterator<Item = Page<'_>> {
        self.pages.iter().map(|(number, rows)| Page { number: *number, rows: &self.page_rows[rows.clone()] })
    }

    /// The rows, ascending, each with another rule than the one before.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let rows = self.pages().flat_map(|page| {
            let start = u64::from(page.number) << 16;
            page.rows
                .iter()
                .map(move |row| Row { file_offset: start + u64::from(row.pc_low), rule: row.rule })
        });
        // The copy at the start of a page continues a row. The first row after a gap can never look
        // like one, as the gap begins with a row of its own.
        rows.scan(None, |last, row| Some((last.replace(row.rule) != Some(row.rule)).then_some(row))).flatten()
    }

    /// Bytes of rows, as the kernel will hold them.
    pub fn rows_bytes(&self) -> usize {
        self.page_rows.len() * 4
    }
}

/// Takes rules by ascending file offset.
pub struct Builder {
    table: Table,
    // Every row asks it. Its keys are a stranger's: the hash has a random seed.
    indexes: HashMap<Rule, RuleIndex, RandomState>,
    /// What comes is code of an interpreter's loop.
    in_loop: bool,
    /// Not yet a row: the next may replace it, or turn out to be the same rule.
    pending: Option<(u64, Rule)>,
    /// Rule of the last row.
    current: (Rule, RuleIndex),
}

impl Default for Builder {
    /// For an empty table.
    fn default() -> Self {
        let rules = vec![Rule::Uncovered, Rule::NotUnderstood(Reason::TooManyRules)];
        let indexes = [(rules[0], RuleIndex::UNCOVERED), (rules[1], RuleIndex::TOO_MANY)];
        let indexes = HashMap::from_iter(indexes);
        let table = Table { pages: Vec::new(), page_rows: Vec::new(), rules, stats: Stats::default() };
        Self {
            table,
            indexes,
            in_loop: false,
            pending: None,
            current: (Rule::Uncovered, RuleIndex::UNCOVERED),
        }
    }
}

impl Builder {
    /// Says whether the rules to come are of an interpreter's loop.
    pub fn in_loop(&mut self, in_loop: bool) {
        self.in_loop = in_loop;
    }

    /// From this offset on, below [`END_OF_TABLE`], this rule holds. Offsets never descend; of two
    /// rules for the same offset the later one holds.
    ///
    /// # Errors
    /// If the table would become too large.
    pub fn push(&mut self, file_offset: u64, rule: Rule) -> Result<()> {
        let rule = match rule {
            Rule::Frame(frame) if self.in_loop => Rule::LoopFrame(frame),
            rule => rule,
        };
        if let Some((offset, last)) = self.pending.replace((file_offset, rule))
            && offset != file_offset
        {
            self.write(offset, last)?;
        }
        Ok(())
    }

    /// The table; the last rule pushed has no end and is left out.
    pub fn finish(mut self, stats: Stats) -> Result<Table> {
        if let Some((offset, _)) = self.pending.take() {
            self.write(offset, Rule::Uncovered)?;
        }
        let not_understood = std::mem::take(&mut self.table.stats.not_understood);
        self.table.stats = Stats { not_understood, ..stats };
        self.table.page_rows.shrink_to_fit();
        Ok(self.table)
    }

    fn write(&mut self, file_offset: u64, rule: Rule) -> Result<()> {
        if rule == self.current.0 {
            return Ok(());
        }
        debug_assert!(file_offset < END_OF_TABLE);
        if let Rule::NotUnderstood(reason) = rule {
            *self.table.stats.not_understood.entry(reason).or_default() += 1;
        }
        let index = self.intern(rule);
        let (number, pc_low) = ((file_offset >> 16) as u16, file_offset as u16);
        self.open_pages(number, pc_low)?;
        self.row(PageRow { pc_low, rule: index })?;
        self.current = (rule, index);
        Ok(())
    }

    /// Opens the pages up to this one. Those that the current rule covers begin with it.
    fn open_pages(&mut self, number: u16, pc_low: u16) -> Result<()> {
        let last = self.table.pages.last().map(|page| page.0);
        if last == Some(number) {
            return Ok(());
        }
        let rows = self.table.page_rows.len();
        if self.current.1 == RuleIndex::UNCOVERED {
            self.table.pages.push((number, rows..rows));
            return Ok(());
        }
        for next in last.map_or(number, |last| last + 1)..=number {
            let rows = self.table.page_rows.len();
            self.table.pages.push((next, rows..rows));
            if next != number || pc_low != 0 {
                self.row(PageRow { pc_low: 0, rule: self.current.1 })?;
            }
        }
        Ok(())
    }

    fn row(&mut self, row: PageRow) -> Result<()> {
        let rows = &mut self.table.page_rows;
        ensure!(rows.len() < MAX_ROWS, "failed to hold more than {MAX_ROWS} rows");
        rows.push(row);
        if let Some(page) = self.table.pages.last_mut() {
            page.1.end = rows.len();
        }
        Ok(())
    }

    fn intern(&mut self, rule: Rule) -> RuleIndex {
        if let Some(index) = self.indexes.get(&rule) {
            return *index;
        }
        let count = self.table.rules.len();
        let Some(index) = u16::try_from(count).ok().filter(|_| count < MAX_RULES) else {
            return RuleIndex::TOO_MANY;
        };
        self.table.rules.push(rule);
        self.indexes.insert(rule, RuleIndex(index));
        RuleIndex(index)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
    use super::*;

    fn rsp(offset: i32) -> Rule {
        Rule::Frame(Frame {
            cfa: Cfa::Sp(offset),
            fp: SavedFp::Same,
            base: SavedBase::Lost,
            ra: ReturnAddress::AtCfa(-8),
        })
    }

    fn table(rows: &[(u64, Rule)]) -> Table {
        let mut builder = Builder::default();
        for (offset, rule) in rows {
            builder.push(*offset, *rule).unwrap();
        }
        builder.finish(Stats::default()).unwrap()
    }

    #[test]
    fn rows_hold_up_to_the_next_one() {
        let table = table(&[
            (0x100, rsp(8)),
            (0x104, rsp(16)),
            (0x104, rsp(24)), // replaces the one before
            (0x108, rsp(24)), // the same
            (0x10c, Rule::Uncovered),
            (0x10c, rsp(8)), // the next function starts where the last one ended
            (0x110, Rule::Uncovered),
        ]);
        let rows: Vec<_> = table.rows().map(|row| (row.file_offset, table.rule(row.rule))).collect();
        let end = (0x110, Rule::Uncovered);
        assert_eq!(rows, [(0x100, rsp(8)), (0x104, rsp(24)), (0x10c, rsp(8)), end]);
        for (offset, rule) in [
            (0, Rule::Uncovered),
            (0xff, Rule::Uncovered),
            (0x100, rsp(8)),
            (0x103, rsp(8)),
            (0x10b, rsp(24)),
            (0x10f, rsp(8)),
            (0x110, Rule::Uncovered),
            (0x1_0100, Rule::Uncovered),
            (u64::MAX, Rule::Uncovered),
        ] {
            assert_eq!(table.lookup(offset), rule, "{offset:#x}");
        }
    }

    #[test]
    fn every_page_can_be_searched_alone() {
        let table = table(&[
            (0xfff0, rsp(8)),
            (0x3_0000, rsp(16)),
            (0x3_0010, Rule::Uncovered),
            (0x5_0020, rsp(16)),
            (0x6_0000, Rule::Uncovered),
        ]);
        let pages: Vec<_> = table
            .pages()
            .map(|page| {
                (page.number, page.rows.iter().map(|row| (row.pc_low, row.rule.0)).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(
            pages,
            [
                (0, vec![(0xfff0, 2)]),
                (1, vec![(0, 2)]),
                (2, vec![(0, 2)]),
                (3, vec![(0, 3), (0x10, 0)]),
                (5, vec![(0x20, 3)]),
                (6, vec![(0, 0)]),
            ]
        );
        assert_eq!(table.rows().count(), 5);
        assert_eq!(table.lookup(0x2_1234), rsp(8));
        assert_eq!(table.lookup(0x4_0000), Rule::Uncovered);
        assert_eq!(table.lookup(0x5_ffff), rsp(16));
        assert_eq!(table.rows_bytes(), 7 * 4);
    }

    #[test]
    fn too_many_rules_are_not_understood() {
        let rows: Vec<_> = (0..70_000_i32).map(|i| (u64::from(i.cast_unsigned()), rsp(i))).collect();
        let table = table(&rows);
        assert_eq!(table.rules().len(), MAX_RULES);
        assert_eq!(table.lookup(64_000), rsp(64_000));
        assert_eq!(table.lookup(69_000), Rule::NotUnderstood(Reason::TooManyRules));
    }
}
