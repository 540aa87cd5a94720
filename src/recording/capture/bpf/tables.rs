//! Unwind tables, in the arrays that the BPF program walks by.
//!
//! The arrays are mapped here and written as memory; the kernel reads them at the same time. So
//! nothing that a walk can reach is ever changed: rows, pages and rules are only added, and a
//! process's mappings are written where no process points, before the process is pointed there.
//! What is freed is written again only after a grace period (see [`Tables::settle`]).

use std::collections::HashMap;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::ptr;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use memmap2::{MmapOptions, MmapRaw};

use super::encode::encode;
use super::skeleton::types as abi;
use crate::model::event::{Dump, Truncation};
use crate::unwind::Rule;
use crate::unwind::table::{Page, Table};

/// How large the arrays are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Chunks of rows, 64 KiB each.
    pub chunks: u32,
    /// Pages of 64 KiB of file.
    pub pages: u32,
    /// Mappings of all processes.
    pub mappings: u32,
    /// Processes.
    pub processes: u32,
}

impl Capacity {
    /// For tables with `rows` rows and `pages` pages at the start, with room for as much again and
    /// for a compiler and what it builds: 32 MiB and up.
    pub fn new(rows: usize, pages: usize) -> Self {
        Self {
            chunks: (rows / usize::from(ROWS_PER_CHUNK) * 2 + 384) as u32,
            pages: (pages * 2 + 32_768) as u32,
            mappings: 1 << 17,
            processes: 1 << 15,
        }
    }
}

const ROWS_PER_CHUNK: u16 = abi::limits::ROWS_PER_CHUNK.0 as u16;

/// A mapping of a process, as the walk needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// File offset of `start`.
    pub file_offset: u64,
    /// The file's table; without one, frames are walked by frame pointer.
    pub table: Option<FileTable>,
    /// There will be one soon: until then stacks are sent.
    pub soon: bool,
}

/// A table in the kernel's arrays: the page of file offset 0, modulo 2³².
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileTable {
    page_0: u32,
    end: u32,
}

/// A run of mappings in the array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    first: u32,
    len: u32,
}

/// An array map, as memory.
struct Array<T> {
    memory: MmapRaw,
    len: u32,
    used: u32,
    _type: std::marker::PhantomData<T>,
}

impl<T: Copy> Array<T> {
    fn map(map: &dyn MapCore) -> Result<Self> {
        let (len, bytes) = (map.max_entries(), map.max_entries() as usize * size_of::<T>());
        let name = map.name().to_string_lossy().into_owned();
        let memory = MmapOptions::new()
            .len(bytes)
            .map_raw(map.as_fd().as_raw_fd())
            .with_context(|| format!("failed to map {bytes} bytes of the BPF array {name}"))?;
        Ok(Self { memory, len, used: 0, _type: std::marker::PhantomData })
    }

    fn read(&self, at: u32) -> Option<T> {
        // SAFETY: as in `write`; every bit pattern is a valid `T`.
        (at < self.len).then(|| unsafe { self.memory.as_ptr().cast::<T>().add(at as usize).read_volatile() })
    }

    fn write(&mut self, at: u32, value: T) {
        assert!(at < self.len, "beyond the end of a BPF array");
        // SAFETY: the mapping holds `len` values of `T`, whose size is a multiple of 8 as the
        // kernel lays out array elements, and `at` is below `len`. No reference to it exists.
        unsafe { self.memory.as_mut_ptr().cast::<T>().add(at as usize).write_volatile(value) };
    }
}

/// The arrays.
pub struct Tables {
    chunks: Array<abi::unwind_chunk>,
    pages: Array<abi::unwind_page>,
    mappings: Array<abi::unwind_mapping>,
    rules: Array<abi::unwind_rule>,
    processes: MapHandle,
    known_rules: HashMap<Rule, u16>,
    /// Rows used in the last chunk.
    rows_in_chunk: u16,
    /// Freed runs of mappings, reusable; and those that a walk may still be in.
    free: Vec<Block>,
    retired: Vec<Block>,
    /// Files and processes that found no room.
    pub refused: u64,
}

impl Tables {
    /// Maps the arrays.
    pub(super) fn new(
        chunks: &dyn MapCore,
        pages: &dyn MapCore,
        mappings: &dyn MapCore,
        rules: &dyn MapCore,
        processes: MapHandle,
    ) -> Result<Self> {
        Ok(Self {
            chunks: Array::map(chunks)?,
            pages: Array::map(pages)?,
            mappings: Array::map(mappings)?,
            rules: Array::map(rules)?,
            processes,
            known_rules: HashMap::new(),
            rows_in_chunk: ROWS_PER_CHUNK,
            free: Vec::new(),
            retired: Vec::new(),
            refused: 0,
        })
    }

    fn rule(&mut self, rule: Rule) -> Option<u16> {
        if let Some(&known) = self.known_rules.get(&rule) {
            return Some(known);
        }
        let index = u16::try_from(self.rules.used).ok()?;
        self.rules.write(self.rules.used, encode(rule));
        self.rules.used += 1;
        self.known_rules.insert(rule, index);
        Some(index)
    }

    /// Adds a file's table. `None` if there is no room.
    pub fn add_file(&mut self, table: &Table) -> Option<FileTable> {
        let base = self.pages.used;
        let first_page = u32::from(table.pages().next()?.number);
        let end = base + u32::from(table.pages().last()?.number) - first_page + 1;
        if end > self.pages.len {
            self.refused += 1;
            return None;
        }
        // Pages without rows in between stay zero, which is none.
        for page in table.pages() {
            let entry = self.add_page(table, &page)?;
            self.pages.write(base + u32::from(page.number) - first_page, entry);
        }
        self.pages.used = end;
        Some(FileTable { page_0: base.wrapping_sub(first_page), end })
    }

    fn add_page(&mut self, table: &Table, page: &Page<'_>) -> Option<abi::unwind_page> {
        // A search starts at the page's first row: one for offset 0, where nothing may be covered.
        let gap = page.rows.first().is_none_or(|row| row.pc_low != 0).then_some((0, Rule::Uncovered));
        let rows = gap.into_iter().chain(page.rows.iter().map(|row| (row.pc_low, table.rule(row.rule))));
        // A search takes 13 steps. More rows would be more than one every 8 bytes.
        let n = u16::try_from(page.rows.len() + usize::from(gap.is_some())).ok();
        let n = n.filter(|&n| u32::from(n) <= abi::limits::MAX_ROWS_PER_PAGE.0)?;
        if self.rows_in_chunk + n > ROWS_PER_CHUNK {
            if self.chunks.used == self.chunks.len {
                self.refused += 1;
                return None;
            }
            self.chunks.used += 1;
            self.rows_in_chunk = 0;
        }
        let chunk = self.chunks.used - 1;
        let first = self.rows_in_chunk;
        let start = chunk as usize * usize::from(ROWS_PER_CHUNK) + usize::from(first);
        for (at, (low, rule)) in rows.enumerate() {
            let row = abi::unwind_row { low, rule: self.rule(rule)? };
            // SAFETY: rows are 4 bytes and fill their chunks; `first + n` is at most a chunk's rows,
            // so that this one lies within chunk `chunk`, and that within the mapping.
            unsafe {
                self.chunks.memory.as_mut_ptr().cast::<abi::unwind_row>().add(start + at).write_volatile(row)
            };
        }
        self.rows_in_chunk += n;
        Some(abi::unwind_page { chunk, first, rows: n })
    }

    /// Writes mappings, sorted by address, where no process points yet. `None` if there are too
    /// many or there is no room.
    pub fn add_mappings(&mut self, mappings: &[Mapping]) -> Option<Block> {
        let len = mappings.len() as u32;
        // Blocks are reused by size, rounded up: a process's next ones fit where its last were.
        let room = len.max(8).next_power_of_two();
        let known = self.free.iter().position(|block| block.len == room);
        let block = match known {
            Some(at) => self.free.swap_remove(at),
            None if len <= abi::limits::MAX_MAPPINGS.0 && self.mappings.used + room <= self.mappings.len => {
                let first = self.mappings.used;
                self.mappings.used += room;
                Block { first, len: room }
            }
            None => {
                self.refused += 1;
                return None;
            }
        };
        for (at, mapping) in mappings.iter().enumerate() {
            let value = abi::unwind_mapping {
                start: mapping.start,
                end: mapping.end,
                to_file: mapping.file_offset.wrapping_sub(mapping.start),
                first_page: mapping.table.map_or(0, |table| table.page_0),
                has_table: match mapping.table {
                    Some(_) => abi::has_table::TABLE_READY.0,
                    None if mapping.soon => abi::has_table::TABLE_SOON.0,
                    None => abi::has_table::TABLE_NONE.0,
                },
            };
            self.mappings.write(block.first + at as u32, value);
        }
        Some(block)
    }

    /// Points a process to its `len` mappings.
    pub fn set_process(&mut self, tgid: u32, block: Block, len: usize) {
        let process =
            abi::unwind_process { first_mapping: block.first, mappings: len as u32, ..Default::default() };
        // SAFETY: plain integers, read as bytes.
        let bytes: [u8; size_of::<abi::unwind_process>()] = unsafe { std::mem::transmute(process) };
        if self.processes.update(&tgid.to_ne_bytes(), &bytes, MapFlags::ANY).is_err() {
            self.refused += 1;
        }
    }

    /// Gives a block back when no process is pointed to it any more.
    pub fn retire(&mut self, block: Block) {
        self.retired.push(block);
    }

    /// Makes retired blocks usable again: to be called when every walk that ran when they were
    /// retired has ended, such as after a drain of counts.
    pub fn settle(&mut self) {
        self.free.append(&mut self.retired);
    }
}

/// What a signal trampoline does: `mov $15 (rt_sigreturn), %rax; syscall`.
const SIGRETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];

#[repr(C)]
struct CopiedStack {
    bytes: *const u8,
    start: u64,
    length: u64,
}

// bpf/unwind_native.c: the BPF program's own search and step, compiled for this machine.
unsafe extern "C" {
    fn profiler_unwind_step(
        registers: *mut abi::unwind_registers,
        rule: *const abi::unwind_rule,
        leaf: *const u64,
        stack: *const CopiedStack,
    ) -> u32;
    fn profiler_find_row(chunk: *const abi::unwind_chunk, page: *const abi::unwind_page, low: u16) -> u32;
}

impl Tables {
    /// Walks a stack that came as memory, without tables by frame pointers. `find` gives the table and
    /// the file offset of an address that is code, `read` the code there.
    pub fn walk(
        tables: Option<&Self>,
        dump: &Dump,
        find: impl Fn(u64) -> Option<(Option<FileTable>, u64)>,
        read: impl Fn(u64, &mut [u8]) -> bool,
        frames: &mut Vec<u64>,
    ) -> Option<Truncation> {
        let [ip, sp, fp] = dump.registers;
        let mut registers =
            abi::unwind_registers { ip, sp, fp, bx: dump.leaf[abi::limits::LEAF_BX.0 as usize] };
        let memory =
            CopiedStack { bytes: dump.memory.as_ptr(), start: dump.start, length: dump.memory.len() as u64 };
        let mut is_return_address = 0;
        let mut had_rule = false;
        for depth in 0..abi::limits::MAX_USER_FRAMES.0 {
            let found = find(registers.ip.wrapping_sub(is_return_address));
            if found.is_none() && depth > 0 {
                return Some(Truncation::ReturnAddress);
            }
            let mut rule =
                found.and_then(|(table, offset)| tables?.lookup(table?, offset)).unwrap_or_default();
            let has_rule = u32::from(rule.cfa) != abi::cfa::CFA_UNCOVERED.0;
            // As in the kernel: a signal trampoline that is not described.
            let mut code = [0; SIGRETURN.len()];
            if !has_rule && had_rule && read(registers.ip, &mut code) && code == SIGRETURN {
                rule = encode(Rule::SignalFrame);
                is_return_address = 0;
            }
            had_rule = has_rule;
            // All but the leaf's are taken for return addresses.
            frames.push(registers.ip.wrapping_add(u64::from(depth > 0) & !is_return_address));
            let below = registers.sp;
            let leaf = if depth as u64 == is_return_address { dump.leaf.as_ptr() } else { ptr::null() };
            // SAFETY: the pointers are to values of the types that the C side declares, from which
            // the Rust ones are generated; `memory` says how long it is, and is not kept.
            let step =
                unsafe { profiler_unwind_step(&raw mut registers, &raw const rule, leaf, &raw const memory) };
            match abi::step(step) {
                // As in the kernel: only a leaf may have nothing on the stack.
                abi::step::STEP_CALLER if registers.sp < below.saturating_add(u64::from(depth > 0)) => {
                    return Some(Truncation::FramePointer);
                }
                abi::step::STEP_CALLER => is_return_address = 1,
                abi::step::STEP_INTERRUPTED => is_return_address = 0,
                abi::step::STEP_END => return None,
                abi::step::STEP_FAULT => return Some(Truncation::UnreadableStack),
                abi::step::STEP_REGISTER => return Some(Truncation::CallerRegister),
                abi::step::STEP_NO_ROW if tables.is_none() => return Some(Truncation::FramePointer),
                abi::step::STEP_NO_ROW => return Some(Truncation::NoRow),
                _ => return Some(Truncation::NotUnderstood),
            }
        }
        Some(Truncation::UserDepth)
    }

    /// The rule for a file offset, from the kernel's own arrays.
    fn lookup(&self, table: FileTable, offset: u64) -> Option<abi::unwind_rule> {
        let index = table.page_0.wrapping_add((offset >> 16) as u32);
        if index >= table.end {
            return None;
        }
        let page = self.pages.read(index)?;
        if page.rows == 0 || page.chunk >= self.chunks.used {
            return None;
        }
        // SAFETY: `page.chunk` is one that was filled; the mapping holds whole chunks.
        let chunk =
            unsafe { self.chunks.memory.as_ptr().cast::<abi::unwind_chunk>().add(page.chunk as usize) };
        // SAFETY: both point to what the C side declares; it reads rows within the chunk.
        let row = unsafe { profiler_find_row(chunk, &raw const page, offset as u16) };
        // SAFETY: the C side masks the index to lie within the chunk.
        let row = unsafe { chunk.cast::<abi::unwind_row>().add(row as usize).read() };
        self.rules.read(row.rule.into())
    }
}
