//! A file's unwind table in the form in which a worker sends it: pages, rows, and rules as the kernel reads
//! them. Whatever a worker sends, what is made of it is a table: the walk looks at rules by their bits, and
//! reads no other memory than that of its arrays and of the stack (`bpf/unwind.h`).

use super::encode::encode;
use super::skeleton::types as abi;
use crate::unwind::Rule;
use crate::unwind::table::{PageRow, RuleIndex, Table};
use crate::worker::wire::{Reader, Writer};

const RULE_BYTES: usize = 8;

/// Rows for 64 KiB of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlatPage {
    /// Offset in the file divided by 65,536.
    pub number: u16,
    /// At least one, ascending.
    pub rows: Vec<PageRow>,
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlatTable {
    /// Ascending.
    pub pages: Vec<FlatPage>,
    /// As the kernel reads them, by the index in rows.
    rules: Vec<[u8; RULE_BYTES]>,
}

impl FlatTable {
    /// A table that was built here.
    pub fn of(table: &Table) -> Self {
        let pages = table.pages().map(|page| FlatPage { number: page.number, rows: page.rows.to_vec() });
        Self { pages: pages.collect(), rules: table.rules().iter().map(|&rule| bytes(rule)).collect() }
    }

    /// The rule of a row.
    pub fn rule(&self, row: &PageRow) -> [u8; RULE_BYTES] {
        self.rules[usize::from(row.rule.0)]
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.pages.iter().map(|page| page.rows.len()).sum()
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(self.rules.as_flattened()).number(self.pages.len() as u64);
        for page in &self.pages {
            let rows: Vec<[u8; 4]> = page
                .rows
                .iter()
                .map(|row| {
                    let ([a, b], [c, d]) = (row.pc_low.to_le_bytes(), row.rule.0.to_le_bytes());
                    [a, b, c, d]
                })
                .collect();
            writer.number(page.number.into()).bytes(rows.as_flattened());
        }
        writer.finish()
    }

    /// From bytes; `None` if they are no table.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (rules, []) = reader.bytes()?.as_chunks() else { return None };
        let rules = rules.to_vec();
        let mut pages: Vec<FlatPage> = Vec::new();
        for _ in 0..reader.count(16)? {
            let number = u16::try_from(reader.number()?).ok()?;
            let (rows, []) = reader.bytes()?.as_chunks::<4>() else { return None };
            let row = |&[a, b, c, d]: &[u8; 4]| PageRow {
                pc_low: u16::from_le_bytes([a, b]),
                rule: RuleIndex(u16::from_le_bytes([c, d])),
            };
            let rows: Vec<PageRow> = rows.iter().map(row).collect();
            let ascends = rows.is_sorted_by(|a, b| a.pc_low < b.pc_low);
            let has_rules = rows.iter().all(|row| usize::from(row.rule.0) < rules.len());
            let follows = pages.last().is_none_or(|last| last.number < number);
            if rows.is_empty() || !ascends || !has_rules || !follows {
                return None;
            }
            pages.push(FlatPage { number, rows });
        }
        reader.is_at_end().then_some(Self { pages, rules })
    }
}

/// A rule as the kernel reads it.
pub fn bytes(rule: Rule) -> [u8; RULE_BYTES] {
    let abi::unwind_rule { cfa, saved, fp_offset, offset } = encode(rule);
    let ([a, b], [c, d, e, f]) = (fp_offset.to_ne_bytes(), offset.to_ne_bytes());
    [cfa, saved, a, b, c, d, e, f]
}

/// The same for the array of rules.
pub(super) fn rule(bytes: [u8; RULE_BYTES]) -> abi::unwind_rule {
    let [cfa, saved, a, b, c, d, e, f] = bytes;
    abi::unwind_rule {
        cfa,
        saved,
        fp_offset: i16::from_ne_bytes([a, b]),
        offset: i32::from_ne_bytes([c, d, e, f]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_travels_and_half_of_one_does_not() {
        let own = std::fs::File::open("/proc/self/exe").unwrap();
        let table = FlatTable::of(&crate::unwind::build(&own).unwrap());
        assert!(table.rows() > 1000);
        let sent = table.to_bytes();
        assert_eq!(FlatTable::from_bytes(&sent).as_ref(), Some(&table));
        for cut in [0, 7, sent.len() / 2, sent.len() - 1] {
            assert_eq!(FlatTable::from_bytes(&sent[..cut]), None);
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let row = |pc_low, rule| PageRow { pc_low, rule: RuleIndex(rule) };
        let page = |number, rows: &[PageRow]| FlatPage { number, rows: rows.to_vec() };
        let read = |pages: Vec<FlatPage>| {
            FlatTable::from_bytes(&FlatTable { pages, rules: vec![[0; 8]; 2] }.to_bytes()).is_some()
        };
        assert!(read(vec![page(1, &[row(0, 0), row(4, 1)]), page(3, &[row(0, 1)])]));
        assert!(!read(vec![page(1, &[row(0, 2)])]), "a rule that is not there");
        assert!(!read(vec![page(1, &[row(4, 0), row(4, 1)])]), "rows that do not ascend");
        assert!(!read(vec![page(1, &[])]), "a page without rows");
        assert!(!read(vec![page(1, &[row(0, 0)]), page(1, &[row(0, 0)])]), "a page twice");
    }
}
