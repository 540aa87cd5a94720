//! Keeps the kernel's unwind tables in step with the processes, and unwinds the stacks of those
//! that were too young to have any.
//!
//! A file's table is built once, however many processes map it. A process's mappings are published
//! when they change; processes that share them (after a fork) share what is published.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::rc::{Rc, Weak};

use crate::capture::bpf::tables::{Block, Capacity, FileTable, Mapping, Tables};
use crate::event::{Dump, Stack, Truncation};
use crate::objects::{ObjectId, Objects, Source};
use crate::process::{Processes, Regions};
use crate::summary::TableFigures;
use crate::unwind;
use crate::unwind::table::Table;

/// Tables of files and of processes.
#[derive(Default)]
pub struct Unwinding {
    files: HashMap<ObjectId, Option<FileTable>>,
    /// Built, and waiting for the arrays to exist.
    unpublished: Vec<(ObjectId, Table)>,
    processes: HashMap<u32, Rc<Published>>,
    by_regions: HashMap<*const Regions, Weak<Published>>,
    tables: Option<Tables>,
    /// Seconds spent on building tables, and what came of it.
    build_s: f64,
    rows: usize,
    pages: usize,
}

/// The mappings of one or more processes, in the kernel's array.
struct Published {
    block: Block,
    mappings: usize,
    /// Keeps the address that is the key in `by_regions` from being used again.
    _regions: Rc<Regions>,
}

impl Unwinding {
    /// Builds the tables of everything that is mapped now, before there is a kernel to give them to.
    pub fn prepare(&mut self, processes: &Processes, objects: &Objects) {
        let mapped: Vec<ObjectId> = processes.mapped_objects().collect();
        for object in mapped {
            self.build(object, objects);
        }
    }

    /// What the arrays need to hold.
    pub fn capacity(&self) -> Capacity {
        Capacity::new(self.rows, self.pages)
    }

    /// Takes the kernel's arrays and fills them with what is known.
    pub fn publish(&mut self, tables: Tables, processes: &mut Processes, objects: &Objects) {
        self.tables = Some(tables);
        for (object, table) in std::mem::take(&mut self.unpublished) {
            self.publish_file(object, &table);
        }
        processes.take_changed();
        let all: Vec<u32> = processes.tgids().collect();
        for tgid in all {
            self.update_process(tgid, processes, objects);
        }
    }

    /// Publishes what changed since the last call; says whether anything did.
    pub fn update(&mut self, processes: &mut Processes, objects: &Objects) -> bool {
        let changed = processes.take_changed();
        if self.tables.is_none() {
            return false;
        }
        for &tgid in &changed {
            self.update_process(tgid, processes, objects);
        }
        !changed.is_empty()
    }

    /// To be called after each drain of counts, when every walk of before has ended.
    pub fn settle(&mut self) {
        if let Some(tables) = &mut self.tables {
            tables.settle();
        }
        self.by_regions.retain(|_, published| published.strong_count() > 0);
    }

    /// What the tables came to, if stacks are walked by them.
    pub fn figures(&self) -> Option<TableFigures> {
        let tables = self.tables.as_ref()?;
        Some(TableFigures {
            files: self.files.values().flatten().count(),
            rows: self.rows,
            build_s: self.build_s,
            refused: tables.refused,
        })
    }

    /// Kernel memory of the arrays, in bytes.
    pub fn bytes(&self) -> u64 {
        self.tables.as_ref().map_or(0, Tables::bytes)
    }

    fn build(&mut self, object: ObjectId, objects: &Objects) {
        if self.files.contains_key(&object) {
            return;
        }
        self.files.insert(object, None);
        let vdso = match &objects.get(object).source {
            Source::Vdso => crate::symbolize::vdso(),
            _ => None,
        };
        let file = match &objects.get(object).source {
            Source::File(Some(file)) => file,
            Source::Vdso => match &vdso {
                Some(file) => file,
                None => return,
            },
            // It may still be opened through another process: ask again then.
            Source::File(None) => {
                self.files.remove(&object);
                return;
            }
            _ => return,
        };
        let started = std::time::Instant::now();
        // Untrusted input: a bug in the parser costs this file's table.
        let table = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| unwind::build(file)));
        self.build_s += started.elapsed().as_secs_f64();
        let Ok(Ok(table)) = table else { return };
        self.rows += table.rows_bytes() / 4;
        self.pages += table.pages().last().map_or(0, |page| usize::from(page.number) + 1);
        if self.tables.is_some() {
            self.publish_file(object, &table);
        } else {
            self.unpublished.push((object, table));
        }
    }

    fn publish_file(&mut self, object: ObjectId, table: &Table) {
        let Some(tables) = &mut self.tables else { return };
        let published = tables.add_file(table);
        self.files.insert(object, published);
    }

    fn update_process(&mut self, tgid: u32, processes: &Processes, objects: &Objects) {
        let Some(regions) =
            processes.regions(tgid).filter(|regions| !regions.is_empty() && processes.lives(tgid))
        else {
            self.forget(tgid);
            return;
        };
        let known = self.by_regions.get(&Rc::as_ptr(regions)).and_then(Weak::upgrade);
        let published = known.or_else(|| self.publish_regions(regions, objects));
        let Some(tables) = &mut self.tables else { return };
        match published {
            Some(published) => {
                tables.set_process(tgid, published.block, published.mappings);
                let old = self.processes.insert(tgid, published);
                self.release(old);
            }
            None => self.forget(tgid),
        }
    }

    fn publish_regions(&mut self, regions: &Rc<Regions>, objects: &Objects) -> Option<Rc<Published>> {
        for region in regions.values() {
            self.build(region.object, objects);
        }
        let mappings: Vec<Mapping> = regions
            .iter()
            .map(|(&start, region)| Mapping {
                start,
                end: region.end,
                file_offset: region.file_offset,
                table: self.files.get(&region.object).copied().flatten(),
            })
            .collect();
        let block = self.tables.as_mut()?.add_mappings(&mappings)?;
        let published = Rc::new(Published { block, mappings: mappings.len(), _regions: Rc::clone(regions) });
        self.by_regions.insert(Rc::as_ptr(regions), Rc::downgrade(&published));
        Some(published)
    }

    fn forget(&mut self, tgid: u32) {
        // The kernel's entry goes with the process.
        let old = self.processes.remove(&tgid);
        self.release(old);
    }

    fn release(&mut self, old: Option<Rc<Published>>) {
        if let (Some(last), Some(tables)) = (old.and_then(Rc::into_inner), &mut self.tables) {
            tables.retire(last.block);
        }
    }

    /// Walks a stack that came as memory, by the mappings that its process has now.
    pub fn unwind(&mut self, dump: &Dump, processes: &Processes, objects: &Objects) -> Stack {
        for region in processes.regions(dump.key.tgid).into_iter().flat_map(|regions| regions.values()) {
            self.build(region.object, objects);
        }
        let mut stack = Stack {
            key: dump.key,
            truncation: dump.truncation,
            kernel: dump.kernel.clone(),
            user: Vec::new(),
        };
        let (Some(tables), Some(regions)) = (&self.tables, processes.regions(dump.key.tgid)) else {
            stack.user.push(dump.registers[0]);
            stack.truncation = Some(Truncation::NoTable);
            return stack;
        };
        let find = |addr: u64| {
            let (start, region) = regions.range(..=addr).next_back()?;
            let offset = region.file_offset.wrapping_add(addr - start);
            (addr < region.end).then(|| (self.files.get(&region.object).copied().flatten(), offset))
        };
        let read = |addr: u64, code: &mut [u8]| {
            let Some((start, region)) = regions.range(..=addr).next_back() else { return false };
            let offset = region.file_offset.wrapping_add(addr - start);
            match &objects.get(region.object).source {
                Source::File(Some(file)) => file.read_exact_at(code, offset).is_ok(),
                _ => false,
            }
        };
        let truncation = tables.walk(dump, find, read, &mut stack.user);
        stack.truncation = stack.truncation.or(truncation);
        stack
    }
}
