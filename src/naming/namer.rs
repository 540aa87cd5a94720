//! The recorder's side of naming: it hands each file to a worker and takes the names that come back.
//!
//! A file on which the worker dies, or does not come to an end, has no names; the next one is given to a new
//! worker. One more signal that asks us to end ends naming: what has names keeps them.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::copies::Copies;
use super::names::Names;
use super::{by_worker, debug_files, jit};
use crate::machine::signals::Signals;
use crate::model::objects::{Jit, Object, Objects};
use crate::worker::{self, Kind, Patience, Worker, ask};

/// For a file that names quickly; large ones have more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Memory for the names of a file, beside some times its size: debug information may be compressed.
const MEMORY: u64 = 512 << 20;
const MEMORY_PER_BYTE: u64 = 12;
/// The reason of frames whose file nobody was asked about.
const ENDED: &str = "not symbolized";
/// What blazesym's lack of permission comes to.
const NOT_PERMITTED: &str = "symbols not permitted";

/// Who is asked for names.
pub struct Namer<'a> {
    signals: &'a mut Signals,
    interrupts: u32,
    worker: Option<Worker>,
    patience: Patience,
    /// A file that nobody but its owner may open is handed over as a copy.
    pub copies: Copies,
    /// Why there are no more names.
    pub ended: Option<String>,
    /// Files on which a worker died.
    pub crashed: usize,
    /// Files with which it did not come to an end.
    pub hung: usize,
}

impl<'a> Namer<'a> {
    /// Nobody is started before there is something to name.
    pub fn new(signals: &'a mut Signals) -> Self {
        let interrupts = signals.interrupts;
        Self {
            signals,
            interrupts,
            worker: None,
            patience: Patience::new(PATIENCE),
            copies: Copies::new(),
            ended: None,
            crashed: 0,
            hung: 0,
        }
    }

    /// CPU time that workers took, in seconds, and the memory of the last one.
    pub fn cost(&self) -> (f64, u64) {
        self.worker.as_ref().map_or((0.0, 0), |worker| (worker.cpu_s(), worker.peak_bytes()))
    }

    /// Names at offsets of an object's file.
    pub fn file(&mut self, object: &Object, file: &File, offsets: &[u64], inlined: bool) -> Vec<Names> {
        if !self.opens()
            && let Ok(copy) = self.copied(file)
        {
            return self.in_file(object, &copy, offsets, inlined);
        }
        let names = self.in_file(object, file, offsets, inlined);
        if !names.iter().all(|names| *names == Err(NOT_PERMITTED)) {
            return names;
        }
        match self.copied(file) {
            Ok(copy) => self.in_file(object, &copy, offsets, inlined),
            Err(_) => names,
        }
    }

    fn in_file(&mut self, object: &Object, file: &File, offsets: &[u64], inlined: bool) -> Vec<Names> {
        let bytes = file.metadata().map_or(0, |meta| meta.len());
        let memory = MEMORY.saturating_add(bytes.saturating_mul(MEMORY_PER_BYTE));
        let asked = by_worker::ask_file(offsets, inlined, memory);
        self.ask(ask::NAMES, &asked, &[file], bytes, offsets.len(), Some(object))
    }

    fn copied(&mut self, file: &File) -> std::io::Result<File> {
        self.copies.copy(file, || is_interrupted(self.signals, self.interrupts))
    }

    /// Names of addresses, ascending, in the lists of a process and of those that it was forked from.
    pub fn jit(&mut self, jit: &Jit, objects: &Objects, addrs: &[u64]) -> Vec<Names> {
        let (lists, files) = jit::lists(jit, objects);
        let bytes = files.iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
        let asked = by_worker::ask_jit(&lists, addrs);
        let mut names = self.ask(ask::JIT, &asked, &files, bytes, addrs.len(), None);
        for names in &mut names {
            if *names == Err(jit::NOT_LISTED) {
                *names = Err(jit::why(jit));
            }
        }
        names
    }

    fn ask(
        &mut self,
        kind: u8,
        payload: &[u8],
        files: &[&File],
        bytes: u64,
        count: usize,
        object: Option<&Object>,
    ) -> Vec<Names> {
        let answer = self.answer(kind, payload, files, bytes, object);
        let names =
            answer.and_then(|answer| by_worker::read_answer(&answer, count).ok_or("symbolizer failed"));
        names.unwrap_or_else(|why| vec![Err(why); count])
    }

    fn answer(
        &mut self,
        kind: u8,
        payload: &[u8],
        files: &[&File],
        bytes: u64,
        object: Option<&Object>,
    ) -> Result<Vec<u8>, &'static str> {
        let files: Result<Vec<_>, _> = files.iter().map(|file| worker::shared(file)).collect();
        let files = files.map_err(|_| "symbolizer failed")?;
        self.start();
        if self.ended.is_some() {
            return Err(ENDED);
        }
        let deadline = Instant::now() + self.patience.of(bytes);
        let Some(worker) = &mut self.worker else { return Err(ENDED) };
        let mut alive = worker.ask(kind, payload, files);
        while alive.is_ok() {
            match worker.hear() {
                Ok(Some(message)) if message.kind == ask::DEBUG_FILES => {
                    let link = String::from_utf8_lossy(&message.payload).into_owned();
                    let link = Some(&*link).filter(|link| !link.is_empty());
                    let found = object.map_or_else(Vec::new, |object| debug_files::candidates(object, link));
                    let mut handed = Vec::new();
                    for file in found {
                        let opens = worker.fences.is_nobody && is_open_to_everybody(&file);
                        let ends = || is_interrupted(self.signals, self.interrupts);
                        let copy = if opens { None } else { self.copies.copy(&file, ends).ok() };
                        handed.extend(worker::shared(&copy.unwrap_or(file)));
                    }
                    alive = worker.ask(ask::DEBUG_FILES, &[], handed);
                }
                Ok(Some(message)) if message.payload.is_empty() => return Err("symbolizer failed"),
                Ok(Some(message)) => return Ok(message.payload),
                Ok(None) => {
                    if is_interrupted(self.signals, self.interrupts) {
                        worker.stop();
                        return self.end("interrupted again: writing without names".to_owned(), ENDED);
                    }
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        self.hung += 1;
                        self.patience.lose();
                        return self.restart("symbolizer hung on this file");
                    }
                    worker.wait(Some(self.signals.fd()), left.min(Duration::from_millis(200)));
                }
                Err(error) => alive = Err(error),
            }
        }
        self.crashed += 1;
        self.restart("symbolizer crashed on this file")
    }

    /// Starts a worker, unless there is one.
    fn start(&mut self) {
        if self.worker.is_none() && self.ended.is_none() {
            match Worker::start(Kind::Names) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => drop(self.end(format!("writing without names: {error:#}"), ENDED)),
            }
        }
    }

    /// Whether the worker opens what everybody may open.
    fn opens(&mut self) -> bool {
        self.start();
        self.worker.as_ref().is_none_or(|worker| worker.fences.is_nobody)
    }

    fn restart(&mut self, why: &'static str) -> Result<Vec<u8>, &'static str> {
        match self.worker.as_mut().map(Worker::restart) {
            Some(Err(error)) => self.end(format!("writing without names: {error:#}"), why),
            _ => Err(why),
        }
    }

    fn end(&mut self, why: String, reason: &'static str) -> Result<Vec<u8>, &'static str> {
        say!("profiler: {why}");
        self.ended = Some(why);
        Err(reason)
    }
}

/// Whether a worker, who is nobody, can open a file by its descriptor.
fn is_open_to_everybody(file: &File) -> bool {
    file.metadata().is_ok_and(|meta| meta.mode() & 0o004 != 0)
}

/// Whether one more signal has come that asks us to end.
fn is_interrupted(signals: &mut Signals, interrupts: u32) -> bool {
    while signals.receive().is_some() {}
    signals.interrupts > interrupts
}
