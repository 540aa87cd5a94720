//! The recorder's side of naming: it hands each file to a worker and takes the names that come back.
//!
//! A file on which the worker dies, or does not come to an end, has no names; the next one is given to a new
//! worker. One more signal that asks us to end ends naming: what has names keeps them.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::by_worker;
use super::debug_files;
use super::jit;
use super::names::Names;
use crate::machine::signals::Signals;
use crate::model::objects::{Jit, Object, Objects};
use crate::worker::{self, Kind, Patience, Worker, ask};

/// For a file that names quickly; large ones have more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Memory for the names of a file, beside some times its size: debug information may be compressed.
const MEMORY: u64 = 512 << 20;
const MEMORY_PER_BYTE: u64 = 12;
/// A file that nobody but its owner may open is handed over as a copy.
const MOST_COPIED_BYTES: u64 = 1 << 30;
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
            && let Ok(copy) = copied(file)
        {
            return self.in_file(object, &copy, offsets, inlined);
        }
        let names = self.in_file(object, file, offsets, inlined);
        if !names.iter().all(|names| *names == Err(NOT_PERMITTED)) {
            return names;
        }
        match copied(file) {
            Ok(copy) => self.in_file(object, &copy, offsets, inlined),
            Err(_) => names,
        }
    }

    fn in_file(&mut self, object: &Object, file: &File, offsets: &[u64], inlined: bool) -> Vec<Names> {
        let bytes = file.metadata().map_or(0, |meta| meta.len());
        let memory = MEMORY.saturating_add(bytes.saturating_mul(MEMORY_PER_BYTE));
        let asked = by_worker::ask_file(offsets, inlined, memory);
        let opens = self.opens();
        let debug = |link: &str| {
            let link = Some(link).filter(|link| !link.is_empty());
            let found = debug_files::candidates(&object.build_id, link, &object.path).into_iter();
            found.map(|file| if opens { readable(file) } else { copied(&file).unwrap_or(file) }).collect()
        };
        self.ask(ask::NAMES, &asked, &[file], bytes, offsets.len(), &debug)
    }

    /// Names of addresses, ascending, in the lists of a process and of those that it was forked from.
    pub fn jit(&mut self, jit: &Jit, objects: &Objects, addrs: &[u64]) -> Vec<Names> {
        let (lists, files) = jit::lists(jit, objects);
        let bytes = files.iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
        let asked = by_worker::ask_jit(&lists, addrs);
        let mut names = self.ask(ask::JIT, &asked, &files, bytes, addrs.len(), &|_| Vec::new());
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
        debug: &dyn Fn(&str) -> Vec<File>,
    ) -> Vec<Names> {
        let answer = self.answer(kind, payload, files, bytes, debug);
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
        debug: &dyn Fn(&str) -> Vec<File>,
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
                    let found = debug(&link).iter().filter_map(|file| worker::shared(file).ok()).collect();
                    alive = worker.ask(ask::DEBUG_FILES, &[], found);
                }
                Ok(Some(message)) if message.payload.is_empty() => return Err("symbolizer failed"),
                Ok(Some(message)) => return Ok(message.payload),
                Ok(None) => {
                    while self.signals.receive().is_some() {}
                    if self.signals.interrupts > self.interrupts {
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

/// A file that a worker, who is nobody, can open by its descriptor: this one, or a copy.
fn readable(file: File) -> File {
    use std::os::unix::fs::MetadataExt;
    match file.metadata() {
        Ok(meta) if meta.mode() & 0o004 == 0 => copied(&file).unwrap_or(file),
        _ => file,
    }
}

fn copied(file: &File) -> std::io::Result<File> {
    let bytes = file.metadata()?.len();
    if bytes > MOST_COPIED_BYTES {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    let mut copy = File::from(memfd_create("copy", MFdFlags::MFD_CLOEXEC)?);
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let part = &mut chunk[..(bytes - at).min(1 << 20) as usize];
        file.read_exact_at(part, at)?;
        copy.write_all(part)?;
        at += part.len() as u64;
    }
    Ok(copy)
}
