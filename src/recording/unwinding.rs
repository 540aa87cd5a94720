//! Keeps the kernel's unwind tables in step with the processes, and unwinds the stacks of those
//! that were too young to have any.
//!
//! A file's table is built once, however many processes map it, by a worker without rights. That of a large
//! file takes a tenth of a second, in which the rings would fill: stacks that need it wait. A process's mappings are published when they change; processes that share them (after a
//! fork) share what is published. One whose mappings find no room has none that the kernel walks by,
//! rather than those it had before.

mod made;
mod stacks;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use crate::interpreters::Interpreters;
use crate::machine::usage::RoomInMemory;
use crate::model::event::{Dump, Stack, Truncation};
use crate::model::objects::{ObjectId, Objects, Pinned, Source};
use crate::model::processes::Processes;
use crate::model::regions::{self, Region, Regions};
use crate::model::scripts::Runtime;
use crate::model::snapshot::Snapshot;
use crate::recording::capture::bpf::flat::FlatTable;
use crate::recording::capture::bpf::interpreters::{Known, Mapped};
use crate::recording::capture::bpf::tables::{
    Capacity, Code, FileTable, Mapping, MappingRun, Refusal, Tables, joined,
};
use crate::recording::capture::bpf::walk::{describe, walk};
use crate::recording::capture::memory::Memory;
use crate::recording::capture::proc;
use crate::recording::jvms::Jvms;
use crate::recording::summary::TableFigures;
use crate::recording::table_builder::{Built, TableBuilder};
use made::Made;

/// Files from this size on are built aside: smaller ones take a few milliseconds.
const LARGE_BYTES: u64 = 8 << 20;
/// Stacks that wait for tables: 17 MiB of them.
const MOST_HELD: usize = 1024;

/// How long the recording waits for the table of a small file, which takes some milliseconds: with it, stacks
/// are walked at once. One that takes longer comes when it comes, and others are not waited for meanwhile.
const SHORT_WAIT: Duration = Duration::from_millis(20);

/// How long a stack waits for what is known of code that was new.
const LONGEST_HELD_NS: u64 = 1_500_000_000;

fn is_old(time_ns: u64) -> bool {
    proc::now_ns().saturating_sub(time_ns) > LONGEST_HELD_NS
}

/// A file's table, as far as it is.
#[derive(Clone, Copy)]
enum State {
    /// In the kernel's arrays, or found to have no table or no room.
    Done(Option<FileTable>),
    Building,
}

/// Tables of files and of processes.
#[derive(Default)]
pub struct Unwinding {
    files: HashMap<ObjectId, State>,
    builder: TableBuilder,
    /// Stacks that wait for a table: their time and what their process was then.
    held: Vec<(u64, Snapshot, Rc<Dump>)>,
    late: Vec<(u64, Snapshot, Stack)>,
    /// Built, and waiting for the arrays to exist.
    unpublished: Vec<(ObjectId, FlatTable)>,
    /// Files that are interpreters, and what the kernel knows them by.
    interpreters: HashMap<ObjectId, (Interpreters, Known)>,
    /// Files that claim to be interpreters, and are not known as such.
    unknown: HashMap<ObjectId, Vec<String>>,
    /// By process. None: the kernel knows that it has none.
    processes: HashMap<u32, Option<Rc<Published>>>,
    /// Processes whose mappings are not published, and how many that was true of.
    refused: HashMap<u32, Refusal>,
    refused_ever: u64,
    /// Whether there may be more room than there was.
    retry: bool,
    by_regions: HashMap<*const Regions, Weak<Published>>,
    tables: Option<Tables>,
    /// Processes that execute a program which the model does not know yet.
    ahead: HashSet<u32>,
    /// Java virtual machines, tables of what they have compiled, and of which these are new.
    jvms: Jvms,
    made: HashMap<u32, Rc<Made>>,
    recompiled: HashSet<u32>,
    /// Processes whose stacks that are held may have been waiting for that.
    new_made: HashSet<u32>,
    /// Processes that had a JVM, and until when.
    without_jvm: VecDeque<(u32, Instant)>,
    /// Whether any file is one.
    has_jvm: bool,
    /// Seconds spent on building tables, and what came of it.
    build_s: f64,
    rows: usize,
    pages: usize,
    /// Executable mappings at the start.
    mappings: usize,
}

/// The mappings of one or more processes, in the kernel's array.
struct Published {
    run: MappingRun,
    /// What of it is compiled code of its process.
    made: Option<Rc<Made>>,
    /// Keeps the address that is the key in `by_regions` from being used again.
    regions: Rc<Regions>,
}

impl Unwinding {
    /// Nothing yet.
    pub fn new(with_interpreters: bool) -> Self {
        Self { builder: TableBuilder::new(with_interpreters), ..Self::default() }
    }

    /// Builds the tables of everything that is mapped now, before there is a kernel to give them to. With little memory
    /// they are built one by one, when there is: all of them at once take four times the room.
    pub fn prepare(&mut self, memory: RoomInMemory, processes: &Processes, objects: &Objects) {
        let mapped: Vec<ObjectId> = processes.mapped_objects().collect();
        for object in mapped {
            if memory.is_little() {
                break;
            }
            self.build(object, objects);
        }
        self.finish_building(objects);
        self.mappings =
            processes.tgids().filter_map(|tgid| processes.regions(tgid)).map(|all| all.len()).sum();
    }

    /// What the arrays need to hold.
    pub fn capacity(&self, memory: RoomInMemory) -> Capacity {
        if memory.is_little() {
            return Capacity::little(self.mappings, memory);
        }
        Capacity::new(self.rows, self.pages, self.mappings)
    }

    /// Bytes of the tables' rows in the kernel.
    pub fn kernel_bytes(&self) -> u64 {
        self.tables.as_ref().map_or(0, Tables::row_bytes)
    }

    /// Takes the kernel's arrays and fills them with what is known.
    pub fn publish(&mut self, tables: Tables, processes: &mut Processes, objects: &Objects) {
        self.tables = Some(tables);
        for (interpreters, known) in self.interpreters.values_mut() {
            *known = self.tables.as_mut().map_or(Known::default(), |it| it.add_interpreters(interpreters));
        }
        for (object, table) in std::mem::take(&mut self.unpublished) {
            self.publish_file(object, &table);
        }
        processes.take_changed();
        let all: Vec<u32> = processes.tgids().collect();
        for tgid in all {
            self.update_process(u64::MAX, tgid, processes, objects);
        }
    }

    /// Publishes what changed since the last call, up to `known_ns`; says whether anything did.
    pub fn update(&mut self, known_ns: u64, processes: &mut Processes, objects: &Objects) -> bool {
        let mut changed = processes.take_changed();
        changed.extend(self.ahead.drain());
        changed.extend(self.recompiled.drain());
        if self.tables.is_none() {
            return false;
        }
        if std::mem::take(&mut self.retry) {
            let refused = self.refused.iter().filter(|(_, why)| **why == Refusal::NoRoom);
            changed.extend(refused.map(|(&tgid, _)| tgid));
        }
        let built = self.take_built(objects);
        let new_made = std::mem::take(&mut self.new_made);
        if !new_made.is_empty() || self.held.first().is_some_and(|held| is_old(held.0)) {
            self.release_held(objects, |tgid| new_made.contains(&tgid));
        }
        for &tgid in changed.iter().chain(&built) {
            self.update_process(known_ns, tgid, processes, objects);
        }
        !changed.is_empty() || self.builder.waiting() > 0
    }

    /// Publishes tables that were built aside; returns the processes that have waited for them.
    fn take_built(&mut self, objects: &Objects) -> Vec<u32> {
        let mut changed = Vec::new();
        let mut any = false;
        while let Some(built) = self.builder.built(objects) {
            any = true;
            let object = built.object;
            self.built(built);
            let is_it = |region: &Region| objects.get(region.object).table == object;
            let maps = |published: &Published| published.regions.values().any(is_it);
            self.by_regions.retain(|_, published| published.upgrade().is_some_and(|one| !maps(&one)));
            let walked = self.processes.iter().filter(|(_, one)| one.as_ref().is_some_and(|one| maps(one)));
            changed.extend(walked.map(|(&tgid, _)| tgid));
        }
        if !any {
            return changed;
        }
        self.release_held(objects, |_| true);
        changed
    }

    /// Stacks that have waited for tables: their time, their process as it was then.
    pub fn take_late(&mut self) -> Vec<(u64, Snapshot, Stack)> {
        std::mem::take(&mut self.late)
    }

    /// Waits for all tables that were asked for.
    fn finish_building(&mut self, objects: &Objects) {
        while self.builder.waiting() > 0 {
            match self.builder.built(objects) {
                Some(built) => self.built(built),
                None => self.builder.wait(SHORT_WAIT),
            }
        }
    }

    /// To be polled for tables that come.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.builder.fd().into_iter().chain(self.jvms.fd())
    }

    /// CPU time that others took to build tables, in seconds.
    pub fn builders_cpu_s(&self) -> f64 {
        self.builder.cpu_s() + self.jvms.cpu_s()
    }

    /// Lets all tables that were asked for be built, at the end.
    pub fn wait_for_tables(&mut self, objects: &Objects) {
        self.finish_building(objects);
        for (time_ns, then, dump) in std::mem::take(&mut self.held) {
            let (stack, _) = self.walk(&dump, then.regions(), objects);
            self.late.push((time_ns, then, stack));
        }
    }

    /// To be called after each drain of counts, when every walk of before has ended.
    pub fn settle(&mut self) {
        if let Some(tables) = &mut self.tables {
            tables.settle();
        }
        self.retry = true;
        self.by_regions.retain(|_, published| published.strong_count() > 0);
    }

    /// Whether a table is being built.
    pub fn builds(&self) -> bool {
        self.builder.waiting() > 0
    }

    /// What the tables came to, if stacks are walked by them.
    pub fn figures(&self) -> Option<TableFigures> {
        let tables = self.tables.as_ref()?;
        Some(TableFigures {
            files: self.files.values().filter(|state| matches!(state, State::Done(Some(_)))).count(),
            rows: self.rows,
            build_s: self.build_s,
            refused_files: tables.refused_files,
            refused_processes: self.refused_ever,
            interpreters: self.interpreters.len(),
            refused_interpreters: tables.refused_interpreters(),
        })
    }

    /// Interpreters that are not known, among the files of these objects.
    pub fn unknown_interpreters(&self, objects: impl Iterator<Item = ObjectId>) -> BTreeSet<String> {
        objects.filter_map(|object| self.unknown.get(&object)).flatten().cloned().collect()
    }

    fn build(&mut self, object: ObjectId, objects: &Objects) {
        let object = objects.get(object).table;
        if self.files.contains_key(&object) {
            return;
        }
        self.files.insert(object, State::Done(None));
        let Source::File(file) = &objects.get(object).source else { return };
        match file.as_ref().map(Pinned::file) {
            Ok(Ok(file)) => {
                let first = self.builder.waiting() == 0;
                if !self.builder.ask(object, objects) {
                    return;
                }
                self.files.insert(object, State::Building);
                let small = file.metadata().is_ok_and(|meta| meta.len() < LARGE_BYTES);
                if self.tables.is_some() && small && first {
                    self.wait_shortly(objects);
                }
            }
            // What it holds now is another program's.
            Ok(Err(_)) => {}
            // It may still be opened through another process: ask again then.
            Err(_) => drop(self.files.remove(&object)),
        }
    }

    /// Waits for a table that nobody walks by yet.
    fn wait_shortly(&mut self, objects: &Objects) {
        let began = Instant::now();
        while self.builder.waiting() > 0 && began.elapsed() < SHORT_WAIT {
            self.builder.wait(SHORT_WAIT.saturating_sub(began.elapsed()));
            if let Some(built) = self.builder.built(objects) {
                self.built(built);
            }
        }
    }

    fn built(&mut self, built: Built) {
        let Built { object, table, mut interpreters, seconds } = built;
        self.build_s += seconds;
        if !interpreters.unknown.is_empty() {
            self.unknown.insert(object, std::mem::take(&mut interpreters.unknown));
        }
        if !interpreters.is_empty() {
            let tables = self.tables.as_mut();
            let known = tables.map_or(Known::default(), |tables| tables.add_interpreters(&interpreters));
            self.has_jvm |= interpreters.hotspot.is_some();
            self.interpreters.insert(object, (interpreters, known));
        }
        self.files.insert(object, State::Done(None));
        let Some(table) = table else { return };
        self.rows += table.rows();
        self.pages += table.pages.last().map_or(0, |page| usize::from(page.number) + 1);
        if self.tables.is_some() {
            self.publish_file(object, &table);
        } else {
            self.unpublished.push((object, table));
        }
    }

    fn publish_file(&mut self, object: ObjectId, table: &FlatTable) {
        let Some(tables) = &mut self.tables else { return };
        let published = tables.add_flat(table);
        self.files.insert(object, State::Done(published));
    }

    fn table(&self, object: ObjectId) -> State {
        self.files.get(&object).copied().unwrap_or(State::Done(None))
    }

    fn update_process(&mut self, known_ns: u64, tgid: u32, processes: &Processes, objects: &Objects) {
        let lives = processes.lives(tgid);
        let regions = processes.regions(tgid).filter(|regions| lives && !regions.is_empty());
        self.find_jvm(tgid, regions, objects);
        let published = regions.map(|regions| self.published(tgid, regions, objects)).transpose();
        let Some(tables) = &mut self.tables else { return };
        let mut refused = published.as_ref().err().copied();
        // The kernel's entry leads elsewhere before what it leads to is given away. That of a process
        // that is gone is gone with it.
        let old = match published.ok().flatten() {
            Some(published) => {
                if tables.is_ahead(tgid, known_ns) {
                    // It forks or executes just now: those are not its mappings any more.
                    self.ahead.insert(tgid);
                } else if !tables.set_process(tgid, &published.run) {
                    refused = Some(Refusal::NoRoom);
                }
                self.processes.insert(tgid, Some(published))
            }
            None if lives => {
                let old = self.processes.insert(tgid, None);
                if !matches!(old, Some(None)) {
                    tables.clear_process(tgid);
                }
                old
            }
            None => {
                tables.forget_unused(tgid);
                self.processes.remove(&tgid)
            }
        };
        match refused {
            Some(why) => self.refused_ever += u64::from(self.refused.insert(tgid, why).is_none()),
            None => drop(self.refused.remove(&tgid)),
        }
        if let Some(last) = old.flatten().and_then(Rc::into_inner) {
            tables.retire(last.run);
            self.let_go(last.made);
        }
    }

    fn published(
        &mut self,
        tgid: u32,
        regions: &Rc<Regions>,
        objects: &Objects,
    ) -> Result<Rc<Published>, Refusal> {
        let made = self.made.get(&tgid).filter(|_| self.jvms.has(tgid)).map(Rc::clone);
        let is_shared = made.is_none() && !self.jvms.is_new(tgid);
        let known = self.by_regions.get(&Rc::as_ptr(regions)).filter(|_| is_shared);
        match known.and_then(Weak::upgrade) {
            Some(known) => Ok(known),
            None => self.publish_regions(tgid, made, regions, objects),
        }
    }

    fn publish_regions(
        &mut self,
        tgid: u32,
        made: Option<Rc<Made>>,
        regions: &Rc<Regions>,
        objects: &Objects,
    ) -> Result<Rc<Published>, Refusal> {
        for region in regions.values() {
            self.build(region.object, objects);
        }
        let mappings = self.mappings(tgid, made.as_deref(), regions, objects);
        let mapped = self.mapped_interpreters(regions, objects);
        let tables = self.tables.as_mut().ok_or(Refusal::NoRoom)?;
        let run = tables.add_mappings(&mappings, mapped)?;
        let is_shared = made.is_none() && !self.jvms.is_new(tgid);
        let published = Rc::new(Published { run, made, regions: Rc::clone(regions) });
        if is_shared {
            self.by_regions.insert(Rc::as_ptr(regions), Rc::downgrade(&published));
        }
        Ok(published)
    }

    fn mapped_interpreters(&self, regions: &Regions, objects: &Objects) -> Mapped {
        let mut mapped = Mapped::default();
        for (&start, region) in regions {
            if let Some((found, known)) = self.interpreters.get(&objects.get(region.object).table)
                && let Some(bias) = found.bias(start, region.file_offset)
            {
                mapped.add(*known, bias);
            }
        }
        mapped
    }

    fn mappings(&self, tgid: u32, made: Option<&Made>, regions: &Regions, objects: &Objects) -> Vec<Mapping> {
        // Some of what it has made may be a JVM's code, which is not told yet: nor is what its files are.
        let builds =
            || regions.values().any(|it| matches!(self.table(objects.get(it.object).table), State::Building));
        let is_new = made.is_none() && (self.jvms.is_new(tgid) || builds());
        let mappings = regions.iter().map(|(&start, region)| {
            let code = match self.table(objects.get(region.object).table) {
                State::Building => Code::Soon,
                State::Done(Some(table)) => Code::Table(table),
                State::Done(None) if matches!(objects.get(region.object).source, Source::File(_)) => {
                    Code::Undescribed
                }
                State::Done(None) if is_new => Code::Soon,
                State::Done(None) => Code::Made,
            };
            Mapping { start, end: region.end, file_offset: region.file_offset, code }
        });
        match made {
            Some(made) => joined(mappings.flat_map(|mapping| match mapping.code {
                Code::Made => made.split(&mapping),
                _ => vec![mapping],
            })),
            None => joined(mappings),
        }
    }
}

#[cfg(test)]
mod tests;
