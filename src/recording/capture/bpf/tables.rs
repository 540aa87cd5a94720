//! Unwind tables, in the arrays that the BPF program walks by.
//!
//! The arrays are mapped here and written as memory; the kernel reads them at the same time. So
//! nothing that a walk can reach is ever changed: rows, pages and rules are only added, and a
//! process's mappings are written where no process points, before the process is pointed there.
//!
//! A run of mappings is taken back in two steps. It loses its number at once: from then on no walk
//! begins in it, whatever process still points there. It is written again only after a grace period
//! (see [`Tables::settle`]), when the walks that began before have ended. So are tables of code that
//! a process compiles while it runs ([`Tables::add_made`]): a new one is written beside the old one,
//! a new run of mappings leads there, and the old one is free after the old run is.

mod rows;

use std::collections::HashMap;
use std::mem::size_of;

use anyhow::Result;
use libbpf_rs::{MapCore, MapFlags, MapHandle};

use super::arrays::{Array, FreeRuns};
use super::blocks::Blocks;
use super::decode::{Plain, plain};
use super::encode::encode;
use super::flat;
use super::interpreters::{Known, Layouts, Mapped};
use super::skeleton::types as abi;
use crate::interpreters::Interpreters;
use crate::machine::usage::RoomInMemory;
use crate::unwind::{Reason, Rule};
use rows::Cursor;
pub use rows::MadeTables;

/// How large the arrays are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Chunks of rows in a block, 64 KiB each.
    pub chunks: u32,
    /// Blocks that there may be; the first one is there from the start.
    pub blocks: u32,
    /// Pages of 64 KiB of file.
    pub pages: u32,
    /// Mappings of all processes.
    pub mappings: u32,
    /// Processes.
    pub processes: u32,
}

impl Capacity {
    /// For tables with `rows` rows and `pages` pages and processes with `mappings` mappings at the
    /// start. Rows get more room when they need it. There is room for as many pages and mappings again,
    /// for a compiler and what it builds, and for the largest process there can be.
    pub fn new(rows: usize, pages: usize, mappings: usize) -> Self {
        // Rows of a page are in one chunk, so that some of it stays empty.
        let chunks = rows.div_ceil(usize::from(ROWS_PER_CHUNK)) * 9 / 8;
        Self {
            chunks: (chunks + 64) as u32,
            blocks: abi::limits::MAX_BLOCKS.0,
            pages: (pages * 2 + 32_768) as u32,
            // At most half a GiB.
            mappings: ((mappings * 2).min(1 << 24) + MAPPINGS_MORE) as u32,
            processes: 1 << 15,
        }
    }

    /// For processes with `mappings` mappings, where there is little memory, of which rows may take a quarter.
    pub fn little(mappings: usize, memory: RoomInMemory) -> Self {
        let chunks = 16;
        let block = u64::from(chunks) * size_of::<abi::unwind_chunk>() as u64;
        Self {
            chunks,
            blocks: (memory.0 / 4 / block).clamp(1, abi::limits::MAX_BLOCKS.0.into()) as u32,
            pages: 16_384,
            mappings: (mappings + MAPPINGS_MORE / 8) as u32,
            processes: 1 << 12,
        }
    }
}

/// Room for mappings beside that for what there is at the start: for the largest process that there can
/// be, and while another run of its is written.
const MAPPINGS_MORE: usize = 1 << 17;

/// How many stacks of a process without mappings are sent to be walked in user space.
pub const STACKS_SENT: u32 = abi::limits::STACK_DUMPS_PER_PROCESS.0;

const ROWS_PER_CHUNK: u16 = abi::limits::ROWS_PER_CHUNK.0 as u16;

/// Executable memory of a process, as the walk needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// File offset of `start`.
    pub file_offset: u64,
    /// What is known of the code.
    pub code: Code,
}

/// What is known of a mapping's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It was made while the program ran: by frame pointer, if at all.
    Made,
    /// A file that describes nothing, or for whose table there was no room.
    Undescribed,
    /// The table is being built: until then stacks are sent.
    Soon,
    /// By this table.
    Table(FileTable),
}

impl Mapping {
    /// Whether one entry can stand for this mapping and for `next`. Only if nothing lies between
    /// them, as an entry says that what it holds is code.
    fn continues_in(&self, next: &Self) -> bool {
        let same_place =
            self.file_offset.wrapping_sub(self.start) == next.file_offset.wrapping_sub(next.start);
        let has_offsets = matches!(self.code, Code::Table(_));
        self.end == next.start && self.code == next.code && (same_place || !has_offsets)
    }
}

impl From<&Mapping> for abi::unwind_mapping {
    fn from(mapping: &Mapping) -> Self {
        let (has_table, table) = match mapping.code {
            Code::Made => (abi::has_table::TABLE_NONE, FileTable::default()),
            Code::Undescribed => (abi::has_table::TABLE_EMPTY, FileTable::default()),
            Code::Soon => (abi::has_table::TABLE_SOON, FileTable::default()),
            Code::Table(table) => (abi::has_table::TABLE_READY, table),
        };
        Self {
            start: mapping.start,
            end: mapping.end,
            to_table: mapping.file_offset.wrapping_sub(mapping.start).wrapping_sub(table.file_offset),
            first_page: table.first_page,
            last_page: table.last_page,
            has_table: has_table.0 as u16,
        }
    }
}

/// As few mappings as describe the same memory. A runtime that compiles piece by piece has many side
/// by side.
pub fn joined(mappings: impl Iterator<Item = Mapping>) -> Vec<Mapping> {
    let mut all: Vec<Mapping> = Vec::new();
    for mapping in mappings {
        match all.last_mut() {
            Some(last) if last.continues_in(&mapping) => last.end = mapping.end,
            _ => all.push(mapping),
        }
    }
    all
}

/// A file's table in the kernel's arrays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTable {
    /// Offset in the file where the table begins: a multiple of 64 KiB.
    file_offset: u64,
    /// Index of its first page.
    first_page: u32,
    /// Number of its pages less 1.
    last_page: u16,
}

/// The mappings of one or more processes, in the kernel's array.
#[derive(Debug, PartialEq, Eq)]
pub struct MappingRun {
    /// Index of the header.
    start: u32,
    /// Mappings behind it.
    mappings: u32,
    /// In the header, and in the entries of the processes that may walk by these mappings.
    number: u32,
}

/// Why mappings are not in the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// More than a process may have.
    TooMany,
    /// The array is full. There may be room later.
    NoRoom,
}

/// Which mappings a process has: what the program looks up first.
enum ProcessMap {
    Kernel(MapHandle),
    Private(HashMap<u32, abi::unwind_process>),
}

impl ProcessMap {
    fn get(&self, tgid: u32) -> Option<abi::unwind_process> {
        match self {
            Self::Kernel(map) => {
                map.lookup(&tgid.to_ne_bytes(), MapFlags::ANY).ok().flatten().map(|bytes| plain(&bytes))
            }
            Self::Private(map) => map.get(&tgid).copied(),
        }
    }

    fn remove_unused(&self, tgid: u32) {
        if let (Self::Kernel(map), Some(0)) = (self, self.get(tgid).map(|process| process.owner)) {
            // It may have gone meanwhile.
            let _ = map.delete(&tgid.to_ne_bytes());
        }
    }

    /// Changes where a process's mappings are, but not whose they are.
    fn set(&mut self, tgid: u32, process: abi::unwind_process) -> bool {
        let known = self.get(tgid).unwrap_or_default();
        let (execs, owner, since_ns) = (known.execs, known.owner, known.since_ns);
        let process = abi::unwind_process { execs, owner, since_ns, ..process };
        match self {
            Self::Kernel(map) => {
                // SAFETY: plain integers, read as bytes.
                let bytes: [u8; size_of::<abi::unwind_process>()] = unsafe { std::mem::transmute(process) };
                map.update(&tgid.to_ne_bytes(), &bytes, MapFlags::ANY).is_ok()
            }
            Self::Private(map) => {
                map.insert(tgid, process);
                true
            }
        }
    }
}

/// The arrays.
pub struct Tables {
    chunks: Blocks,
    pages: Array<abi::unwind_page>,
    mappings: Array<abi::unwind_mapping>,
    rules: Array<abi::unwind_rule>,
    processes: ProcessMap,
    layouts: Layouts,
    known_rules: HashMap<[u8; 8], u16>,
    free_chunks: FreeRuns,
    free_pages: FreeRuns,
    /// Where rows of files are written.
    cursor: Cursor,
    free: FreeRuns,
    /// Runs that have lost their number, and that walks may still be in; and tables that such runs led to.
    retired: Vec<MappingRun>,
    retired_tables: Vec<MadeTables>,
    /// Number of the last run.
    runs: u32,
    /// Files that found no room.
    pub refused_files: u64,
}

/// In every set of tables: what rules are that found no room.
const NO_ROOM_FOR_RULE: (Rule, u16) = (Rule::NotUnderstood(Reason::TooManyRules), 0);

impl Plain for abi::unwind_process {}

impl Tables {
    /// Maps the arrays.
    pub(super) fn new(
        chunks: Blocks,
        pages: &dyn MapCore,
        mappings: &dyn MapCore,
        rules: &dyn MapCore,
        [pythons, v8s]: [&dyn MapCore; 2],
        processes: MapHandle,
    ) -> Result<Self> {
        let (pages, mappings, rules) = (Array::map(pages)?, Array::map(mappings)?, Array::map(rules)?);
        let layouts = Layouts::map(pythons, v8s)?;
        Ok(Self::of(chunks, pages, mappings, rules, layouts, ProcessMap::Kernel(processes)))
    }

    /// Arrays of the same layout without a kernel that walks by them: for tests, and to be printed.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn private(capacity: &Capacity) -> Result<Self> {
        let chunks = Blocks::private(capacity.chunks, capacity.blocks)?;
        let pages = Array::private(capacity.pages)?;
        let mappings = Array::private(capacity.mappings)?;
        let rules = Array::private(abi::limits::MAX_RULES.0)?;
        let processes = ProcessMap::Private(HashMap::new());
        Ok(Self::of(chunks, pages, mappings, rules, Layouts::private()?, processes))
    }

    fn of(
        chunks: Blocks,
        pages: Array<abi::unwind_page>,
        mappings: Array<abi::unwind_mapping>,
        mut rules: Array<abi::unwind_rule>,
        layouts: Layouts,
        processes: ProcessMap,
    ) -> Self {
        let free = FreeRuns::all(mappings.len());
        let (free_chunks, free_pages) = (FreeRuns::all(chunks.len()), FreeRuns::all(pages.len()));
        rules.write(NO_ROOM_FOR_RULE.1.into(), encode(NO_ROOM_FOR_RULE.0));
        Self {
            chunks,
            pages,
            mappings,
            rules,
            processes,
            layouts,
            known_rules: HashMap::from([(flat::bytes(NO_ROOM_FOR_RULE.0), NO_ROOM_FOR_RULE.1)]),
            free_chunks,
            free_pages,
            cursor: Cursor::NONE,
            free,
            retired: Vec::new(),
            retired_tables: Vec::new(),
            runs: 0,
            refused_files: 0,
        }
    }

    /// Adds what a file has of interpreters.
    pub fn add_interpreters(&mut self, interpreters: &Interpreters) -> Known {
        self.layouts.add(interpreters)
    }

    /// Files of interpreters that found no room.
    pub fn refused_interpreters(&self) -> u64 {
        self.layouts.refused
    }

    /// Writes mappings, sorted by address, and the interpreters among them, where no process points yet.
    ///
    /// # Errors
    /// If they are too many or there is no room.
    pub fn add_mappings(&mut self, mappings: &[Mapping], mapped: Mapped) -> Result<MappingRun, Refusal> {
        let len = u32::try_from(mappings.len()).ok().filter(|&len| len <= abi::limits::MAX_MAPPINGS.0);
        let len = len.ok_or(Refusal::TooMany)?;
        let start = self.free.take(len + 1).ok_or(Refusal::NoRoom)?;
        for (at, mapping) in (start + 1..).zip(mappings) {
            self.mappings.write(at, mapping.into());
        }
        // 0 is no run's. It takes a year to have written all numbers.
        self.runs = self.runs.checked_add(1).unwrap_or(1);
        self.write_header(start, mapped.header(self.runs));
        Ok(MappingRun { start, mappings: len, number: self.runs })
    }

    fn write_header(&mut self, start: u32, header: abi::unwind_run) {
        self.mappings.write_part(start, 0, header);
    }

    /// Points a process to its mappings; false if there are too many processes.
    pub fn set_process(&mut self, tgid: u32, run: &MappingRun) -> bool {
        let process = abi::unwind_process {
            first_mapping: run.start + 1,
            mappings: run.mappings,
            run: run.number,
            ..Default::default()
        };
        self.processes.set(tgid, process)
    }

    /// Points a process to nothing: its stacks are sent, as those of one that nobody knows.
    pub fn clear_process(&mut self, tgid: u32) {
        self.processes.set(tgid, abi::unwind_process::default());
    }

    /// Whether a process was forked or has executed another program since `known_ns`, so that mappings
    /// of then are not its own. If it does so right now, the kernel finds that they are not.
    pub fn is_ahead(&self, tgid: u32, known_ns: u64) -> bool {
        self.processes.get(tgid).is_some_and(|process| process.since_ns > known_ns)
    }

    /// Removes the entry of a process that is gone, if the kernel has never seen that it is its own.
    pub fn forget_unused(&self, tgid: u32) {
        self.processes.remove_unused(tgid);
    }

    /// Takes a run back. Processes that still point to it are not walked by it any more.
    pub fn retire(&mut self, run: MappingRun) {
        self.write_header(run.start, abi::unwind_run::default());
        self.retired.push(run);
    }

    /// Makes retired runs usable again: to be called when every walk that ran when they were retired
    /// has ended, such as after a drain of counts.
    pub fn settle(&mut self) {
        for run in self.retired.drain(..) {
            self.free.give_back(run.start, run.mappings + 1);
        }
        for made in std::mem::take(&mut self.retired_tables) {
            self.give_back(made);
        }
    }
}

/// An array for the native walk, which only reads.
fn for_walk<T: Copy>(array: &Array<T>) -> super::walk::Array {
    super::walk::Array::new(array.as_ptr(), array.len() as usize)
}

// bpf/unwind_native.c: the BPF program's own search, compiled for this machine.
unsafe extern "C" {
    fn profiler_find_page(mapping: *const abi::unwind_mapping, offset: u64, index: *mut u32) -> bool;
    fn profiler_find_row(chunk: *const abi::unwind_chunk, page: *const abi::unwind_page, low: u16) -> u32;
}

impl Tables {
    /// Bytes of the rows in the kernel.
    pub fn row_bytes(&self) -> u64 {
        self.chunks.bytes()
    }

    /// Blocks of chunks, pages and rules, for a walk in this process.
    pub(super) fn for_walk(&self) -> [super::walk::Array; 3] {
        [self.chunks.for_walk(), for_walk(&self.pages), for_walk(&self.rules)]
    }

    /// Layouts of interpreters, for the same.
    pub(super) fn layouts_for_walk(&self) -> [super::walk::Array; 2] {
        self.layouts.for_walk()
    }

    /// The rule for a file offset, from the kernel's own arrays.
    pub(super) fn lookup(&self, table: FileTable, offset: u64) -> Option<abi::unwind_rule> {
        let file = Mapping { start: 0, end: u64::MAX, file_offset: 0, code: Code::Table(table) };
        let mapping = abi::unwind_mapping::from(&file);
        let offset = offset.wrapping_add(mapping.to_table);
        let mut index = 0;
        // SAFETY: both point to what the C side declares; it keeps neither.
        if !unsafe { profiler_find_page(&raw const mapping, offset, &raw mut index) } {
            return None;
        }
        let page = self.pages.read(index)?;
        let chunk = self.chunks.chunk(&page).filter(|_| page.rows > 0)?;
        // SAFETY: both point to what the C side declares; it reads rows within the chunk.
        let row = unsafe { profiler_find_row(chunk, &raw const page, offset as u16) };
        // SAFETY: the C side masks the index to lie within the chunk.
        let row = unsafe { chunk.cast::<abi::unwind_row>().add(row as usize).read() };
        self.rules.read(row.rule.into())
    }
}

#[cfg(test)]
mod tests;
