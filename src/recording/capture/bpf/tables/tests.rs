//! Two files and more than one process in the arrays.

use super::*;
use crate::unwind::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
use crate::unwind::table::{Builder, Stats, Table};

const NO_SCRIPTS: Mapped = Mapped::NONE;
const SMALL: Capacity = Capacity { chunks: 4, blocks: 1, pages: 64, mappings: 64, processes: 8 };

fn sp(offset: i32) -> Rule {
    let (fp, base) = (SavedFp::Same, SavedBase::Lost);
    Rule::Frame(Frame { cfa: Cfa::Sp(offset), fp, base, ra: ReturnAddress::AtCfa(-8) })
}

/// The rules of a file from some offsets on.
fn table(rows: &[(u64, Rule)]) -> Table {
    let mut builder = Builder::default();
    rows.iter().for_each(|&(offset, rule)| builder.push(offset, rule).unwrap());
    builder.finish(Stats::default()).unwrap()
}

fn mapping(range: std::ops::Range<u64>, file_offset: u64, table: Option<FileTable>) -> Mapping {
    let code = table.map_or(Code::Made, Code::Table);
    Mapping { start: range.start, end: range.end, file_offset, code }
}

impl Tables {
    /// The CFA's offset at a file offset, 0 where no row is.
    fn cfa(&self, table: FileTable, offset: u64) -> i32 {
        let rule = self.lookup(table, offset).unwrap_or_default();
        assert!([abi::cfa::CFA_UNCOVERED.0, abi::cfa::CFA_SP.0].contains(&rule.cfa.into()));
        rule.offset
    }

    /// The mappings by which a process is walked, as walk_by_tables finds them.
    pub(in crate::recording) fn walked_by(&self, tgid: u32) -> Vec<(u64, u64)> {
        let ProcessMap::Private(map) = &self.processes else { panic!("the kernel's") };
        let process = map.get(&tgid).copied().unwrap_or_default();
        let header = process.first_mapping.checked_sub(1).and_then(|at| self.mappings.read(at));
        if process.mappings == 0 || header.is_none_or(|header| header.start != u64::from(process.run)) {
            return Vec::new();
        }
        let all = process.first_mapping..process.first_mapping + process.mappings;
        all.map(|at| self.mappings.read(at).unwrap()).map(|one| (one.start, one.end)).collect()
    }
}

#[test]
fn an_address_outside_of_its_files_table_never_has_a_neighbours_rule() {
    let mut tables = Tables::private(&SMALL).unwrap();
    let end = Rule::Uncovered;
    // Their pages lie side by side: 2 to 3, 5 to 7, 0.
    let first = tables.add_file(&table(&[(0x2_0000, sp(8)), (0x3_1000, end)])).unwrap();
    let second = tables.add_file(&table(&[(0x5_0010, sp(16)), (0x7_0000, end)])).unwrap();
    let third = tables.add_file(&table(&[(0x10, sp(24)), (0x20, end)])).unwrap();
    for (file, cfa, start, stop) in
        [(first, 8, 0x2_0000, 0x3_1000), (second, 16, 0x5_0010, 0x7_0000), (third, 24, 0x10, 0x20)]
    {
        for offset in (0..0x20_0000).step_by(16).chain([u64::MAX, u64::MAX << 16, 1 << 32, 1 << 48]) {
            let wanted = if (start..stop).contains(&offset) { cfa } else { 0 };
            assert_eq!(tables.cfa(file, offset), wanted, "{offset:#x}");
        }
    }
}

#[test]
fn a_file_that_found_no_room_leaves_nothing_behind() {
    let mut tables = Tables::private(&Capacity { chunks: 1, ..SMALL }).unwrap();
    let many = |first: u64, rows: u64| -> Vec<(u64, Rule)> {
        (0..rows).map(|i| (first + 10 * i, sp(8 * (1 + i as i32 % 2)))).collect()
    };
    // The third page has no room in the only chunk.
    let large = table(&[many(0, 6000), many(0x1_0000, 6000), many(0x2_0000, 6000)].concat());
    assert_eq!((tables.add_file(&large), tables.refused_files), (None, 1));
    let small =
        table(&[(0x10, sp(64)), (0x20, Rule::Uncovered), (0x2_0010, sp(64)), (0x2_0020, Rule::Uncovered)]);
    let small = tables.add_file(&small).unwrap();
    assert_eq!([0x10, 0x1_0010, 0x2_0010].map(|offset| tables.cfa(small, offset)), [64, 0, 64]);
}

#[test]
fn there_are_more_blocks_when_one_is_full() {
    let mut tables = Tables::private(&Capacity { chunks: 1, blocks: 3, ..SMALL }).unwrap();
    // Each of a page that fills more than half of a chunk, and a chunk is all of a block.
    let file = |cfa: i32| -> Vec<(u64, Rule)> {
        (0..8000).map(|i| (8 * i, sp(cfa + 8 * (i as i32 % 2)))).chain([(64_000, Rule::Uncovered)]).collect()
    };
    let files: Vec<_> = (1..=3)
        .map(|n| {
            tables.add_file(&table(
                &[
                    file(100 * n),
                    vec![(0x1_0000, sp(8)), (0x1_8000, sp(16))],
                    vec![(0x1_9000, Rule::Uncovered)],
                ]
                .concat(),
            ))
        })
        .collect();
    for (n, file) in (1..).zip(&files) {
        let file = file.unwrap();
        assert_eq!([0, 8, 63_992].map(|at| tables.cfa(file, at)), [100 * n, 100 * n + 8, 100 * n + 8]);
        assert_eq!(tables.cfa(file, 0x1_8000), 16);
    }
    assert_eq!(tables.row_bytes(), 2 << 16);
    let large = table(&[file(400), vec![(0x1_0000, Rule::Uncovered)]].concat());
    let more: Vec<_> = (0..4).map(|_| tables.add_file(&large).is_some()).collect();
    assert!(more.contains(&false) && tables.refused_files > 0, "{more:?}");
}

#[test]
fn a_page_with_too_many_rows_costs_only_itself() {
    let mut tables = Tables::private(&SMALL).unwrap();
    let mut rows: Vec<(u64, Rule)> = (0..9000).map(|i| (4 * i, sp(8 * (1 + i as i32 % 2)))).collect();
    rows.extend([(0x1_0000, sp(64)), (0x1_0010, Rule::Uncovered)]);
    let file = tables.add_file(&table(&rows)).unwrap();
    let rule = tables.lookup(file, 8).unwrap();
    assert_eq!(u32::from(rule.cfa), abi::cfa::CFA_NOT_UNDERSTOOD.0);
    assert_eq!(tables.cfa(file, 0x1_0008), 64);
}

#[test]
fn a_run_is_not_given_away_while_anyone_points_to_it() {
    let mut tables = Tables::private(&Capacity { mappings: 3, ..SMALL }).unwrap();
    let (parent, child, other) = (1, 2, 3);
    let run = tables
        .add_mappings(&[mapping(0x1000..0x2000, 0, None), mapping(0x5000..0x6000, 0, None)], NO_SCRIPTS)
        .unwrap();
    assert!(tables.set_process(parent, &run));
    // The kernel's hook gives a child its parent's entry, before anyone here knows of it.
    let _ = tables.set_process(child, &run);
    assert_eq!(tables.walked_by(child), [(0x1000, 0x2000), (0x5000, 0x6000)]);
    tables.retire(run);
    // Walks that had begun may still be in it.
    assert_eq!(tables.add_mappings(&[mapping(0x9000..0xa000, 0, None)], NO_SCRIPTS), Err(Refusal::NoRoom));
    assert!(tables.walked_by(child).is_empty());
    tables.settle();
    let run = tables.add_mappings(&[mapping(0x9000..0xa000, 0, None)], NO_SCRIPTS).unwrap();
    let _ = tables.set_process(other, &run);
    assert_eq!(tables.walked_by(other), [(0x9000, 0xa000)]);
    assert_eq!((tables.walked_by(parent), tables.walked_by(child)), (Vec::new(), Vec::new()));
    tables.clear_process(other);
    assert!(tables.walked_by(other).is_empty());
}

#[test]
fn too_many_mappings_are_not_the_same_as_no_room() {
    let mut tables = Tables::private(&SMALL).unwrap();
    let mappings =
        |n: u64| -> Vec<Mapping> { (0..n).map(|i| mapping(i << 13..(i << 13) + 4096, 0, None)).collect() };
    let most = u64::from(abi::limits::MAX_MAPPINGS.0);
    assert_eq!(tables.add_mappings(&mappings(most + 1), NO_SCRIPTS), Err(Refusal::TooMany));
    assert_eq!(tables.add_mappings(&mappings(most), NO_SCRIPTS), Err(Refusal::NoRoom));
    assert!(tables.add_mappings(&mappings(63), NO_SCRIPTS).is_ok());
    assert_eq!(tables.add_mappings(&[], NO_SCRIPTS), Err(Refusal::NoRoom));
    let mut tables = Tables::private(&Capacity::new(0, 0, 0)).unwrap();
    let run = tables.add_mappings(&mappings(most), NO_SCRIPTS).unwrap();
    let _ = tables.set_process(1, &run);
    assert_eq!(tables.walked_by(1).len() as u64, most);
}

#[test]
fn mappings_side_by_side_are_joined_if_their_rules_are_the_same() {
    let mut tables = Tables::private(&SMALL).unwrap();
    let [one, other] =
        [8, 16].map(|cfa| Some(tables.add_file(&table(&[(0, sp(cfa)), (0x9000, Rule::Uncovered)])).unwrap()));
    let join = |mappings: &[Mapping]| -> Vec<(u64, u64)> {
        joined(mappings.iter().copied()).iter().map(|one| (one.start, one.end)).collect()
    };
    let soon = Mapping { code: Code::Soon, ..mapping(0x3000..0x4000, 0, None) };
    let all = |table| [mapping(0x1000..0x2000, 0x1000, table), mapping(0x2000..0x3000, 0x2000, table)];
    assert_eq!(join(&all(None)), [(0x1000, 0x3000)]);
    assert_eq!(join(&all(one)), [(0x1000, 0x3000)]);
    assert_eq!(join(&[all(one)[0], all(other)[1]]), [(0x1000, 0x2000), (0x2000, 0x3000)]);
    assert_eq!(join(&[all(None)[1], soon]), [(0x2000, 0x3000), (0x3000, 0x4000)]);
    // The same file, but at another distance; what has no table has no offsets either.
    let [a, b] = [one, None].map(|table| {
        join(&[mapping(0x1000..0x2000, 0x1000, table), mapping(0x2000..0x3000, 0x1000, table)]).len()
    });
    assert_eq!((a, b), (2, 1));
    // What lies between is no code.
    assert_eq!(join(&[all(None)[0], mapping(0x2001..0x3000, 0, None)]).len(), 2);
    let joined = joined([all(one)[0], all(one)[1], mapping(0x3000..0x9000, 0x3000, one)].into_iter());
    assert_eq!(joined, [mapping(0x1000..0x9000, 0x1000, one)]);
}

#[test]
fn tables_of_compiled_code_are_written_again_when_nothing_leads_there() {
    let mut tables = Tables::private(&SMALL).unwrap();
    let code = [(0x10, sp(8)), (0x20, Rule::Soon), (0x5_0000, Rule::Uncovered)];
    let code = flat::FlatTable::of(&table(&code));
    let file = tables.add_file(&table(&[(0x10, sp(24)), (0x20, Rule::Uncovered)])).unwrap();
    for _ in 0..100 {
        let made = tables.add_made(&[&code, &flat::FlatTable::default()]).unwrap();
        assert_eq!(made.tables[1], None);
        assert_eq!(tables.cfa(made.tables[0].unwrap(), 0x10), 8);
        tables.retire_made(made);
        tables.settle();
    }
    // As long as walks may be in them they are not free: of four chunks the file has one.
    let mut retired = 0;
    while let Some(made) = tables.add_made(&[&code]) {
        tables.retire_made(made);
        retired += 1;
    }
    assert_eq!((retired, tables.refused_files), (3, 1));
    tables.settle();
    assert!(tables.add_made(&[&code]).is_some());
    assert_eq!(tables.cfa(file, 0x10), 24);
}
