//! Tables of code that processes compile while they run.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Unwinding;
use crate::hotspot::wire::base;
use crate::model::objects::Objects;
use crate::model::processes::Processes;
use crate::model::regions::Regions;
use crate::recording::capture::bpf::tables::{Code, FileTable, MadeTables, Mapping};
use crate::recording::jvms::NewTables;

/// How late stacks of a process may be walked after its end.
const LATE: Duration = Duration::from_secs(3);

/// The tables of one process.
#[derive(Debug)]
pub(super) struct Made {
    pub tables: MadeTables,
    /// Addresses of each heap or of what it may grow to, and its table; without one it comes.
    heaps: Vec<(u64, u64, Option<FileTable>)>,
}

impl Made {
    /// A mapping of code that was made, cut where heaps begin and end.
    pub fn split(&self, mapping: &Mapping) -> Vec<Mapping> {
        let mut pieces = Vec::new();
        let mut start = mapping.start;
        for &(low, high, table) in &self.heaps {
            let (low, high) = (low.max(start), high.min(mapping.end));
            if low >= high {
                continue;
            }
            if start < low {
                pieces.push(Mapping { start, end: low, ..*mapping });
            }
            let file_offset = low - base(self.low_of(low));
            let code = table.map_or(Code::Soon, Code::Table);
            pieces.push(Mapping { start: low, end: high, file_offset, code });
            start = high;
        }
        if start < mapping.end {
            pieces.push(Mapping { start, ..*mapping });
        }
        pieces
    }

    /// The first address of the heap that holds an address.
    fn low_of(&self, addr: u64) -> u64 {
        let heap = self.heaps.iter().find(|(low, high, _)| (*low..*high).contains(&addr));
        heap.map_or(addr, |heap| heap.0)
    }
}

impl Unwinding {
    /// Looks at what Java virtual machines have compiled, and takes what names their frames.
    pub fn look_at_jvms(&mut self, objects: &mut Objects) {
        // Stacks of theirs may be on the way.
        while let Some(&(tgid, since)) = self.without_jvm.front()
            && since.elapsed() > LATE
        {
            self.without_jvm.pop_front();
            if !self.jvms.has(tgid) {
                objects.compiled.forget(tgid);
                let old = self.made.remove(&tgid);
                self.let_go(old);
            }
        }
        for new in self.jvms.turn(objects) {
            self.take_made(&new);
        }
        for tgid in self.jvms.take_settled() {
            self.recompiled.insert(tgid);
        }
    }

    /// Waits for the last tables and names of Java virtual machines, at the end.
    pub fn finish_jvms(&mut self, processes: &Processes, objects: &mut Objects) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let began = Instant::now();
        self.name_unknown(processes, objects);
        for (_, _, dump) in &self.held {
            self.jvms.hurry(dump.key.tgid);
        }
        while self.jvms.is_busy() && began.elapsed() < PATIENCE {
            self.jvms.wait(Duration::from_millis(20));
            self.look_at_jvms(objects);
        }
    }

    fn take_made(&mut self, new: &NewTables) {
        let NewTables { tgid, heaps, bounds } = new;
        let Some(tables) = &mut self.tables else { return };
        let flat: Vec<_> = heaps.iter().map(|heap| &heap.table).collect();
        // Without room they are walked by those of before: what was compiled since has no rows.
        let Some(made) = tables.add_made(&flat) else { return };
        let mut all: Vec<(u64, u64, Option<FileTable>)> = Vec::new();
        let first = heaps.first().map_or(0, |heap| heap.low);
        let mut at = if bounds.0 == 0 { first } else { bounds.0 };
        for (heap, table) in heaps.iter().zip(&made.tables) {
            // Between heaps that there are, there may be others soon.
            all.push((at.min(heap.low), heap.low, None));
            all.extend([(heap.low, heap.high, *table), (heap.high, heap.end, None)]);
            at = heap.end;
        }
        all.push((at, bounds.1.max(at), None));
        all.retain(|(low, high, _)| low < high);
        let old = self.made.insert(*tgid, Rc::new(Made { tables: made, heaps: all }));
        self.new_made.insert(*tgid);
        self.let_go(old);
        self.recompiled.insert(*tgid);
    }

    /// Takes tables back to which nothing leads: neither a process nor a run of mappings.
    pub(super) fn let_go(&mut self, made: Option<Rc<Made>>) {
        if let (Some(made), Some(tables)) = (made.and_then(Rc::into_inner), &mut self.tables) {
            tables.retire_made(made.tables);
        }
    }

    /// Tells what a process has mapped of a JVM.
    pub(super) fn find_jvm(&mut self, tgid: u32, regions: Option<&Rc<Regions>>, objects: &Objects) {
        let files = &self.interpreters;
        if !self.has_jvm {
            return;
        }
        let found = regions.and_then(|regions| {
            regions.iter().find_map(|(&start, region)| {
                let (file, _) = files.get(&objects.get(region.object).table)?;
                Some((file.hotspot.as_ref()?, file.bias(start, region.file_offset)?))
            })
        });
        if self.jvms.mapped(tgid, found) {
            self.without_jvm.push_back((tgid, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::capture::bpf::tables::{Capacity, Tables};

    #[test]
    fn a_mapping_is_cut_where_heaps_begin_and_end() {
        let mut arrays =
            Tables::private(&Capacity { chunks: 1, blocks: 1, pages: 1, mappings: 1, processes: 1 }).unwrap();
        let table = FileTable::default();
        let heaps = vec![(0x1_2000, 0x2_0000, Some(table)), (0x2_0000, 0x3_0000, None)];
        let made = Made { tables: arrays.add_made(&[]).unwrap(), heaps };
        let mapping = |start, end, file_offset, code| Mapping { start, end, file_offset, code };
        let whole = mapping(0x1_0000, 0x4_0000, 7, Code::Made);
        let pieces = [
            mapping(0x1_0000, 0x1_2000, 7, Code::Made),
            mapping(0x1_2000, 0x2_0000, 0x2000, Code::Table(table)),
            mapping(0x2_0000, 0x3_0000, 0, Code::Soon),
            mapping(0x3_0000, 0x4_0000, 7, Code::Made),
        ];
        assert_eq!(made.split(&whole), pieces);
        // Memory comes piece by piece: what lies within a heap is as far from its begin.
        let later = made.split(&mapping(0x1_8000, 0x1_9000, 0, Code::Made));
        assert_eq!(later, [mapping(0x1_8000, 0x1_9000, 0x8000, Code::Table(table))]);
        let outside = mapping(0x5_0000, 0x6_0000, 0, Code::Made);
        assert_eq!(made.split(&outside), [outside]);
    }
}
