//! Unwind tables, built by a worker while the recording goes on.
//!
//! A few files are given to it at a time; their tables come in the same order. When it dies, or does not come
//! to an end, that costs the file at the head of the queue its table, and a new worker gets the others.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::interpreters::Interpreters;
use crate::model::objects::{ObjectId, Objects};
use crate::recording::capture::bpf::flat::FlatTable;
use crate::worker::wire::Reader;
use crate::worker::{self, Kind, Patience, Worker, ask};

/// Files that a worker has at once.
const MOST_ASKED: usize = 8;
/// For a file of ordinary size; the largest libraries take a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a file.
#[derive(Debug)]
pub struct Built {
    /// The file.
    pub object: ObjectId,
    /// Its table, if it has one.
    pub table: Option<FlatTable>,
    /// The interpreters that it is.
    pub interpreters: Interpreters,
    /// How long it took.
    pub seconds: f64,
}

impl Built {
    fn nothing(object: ObjectId) -> Self {
        Self { object, table: None, interpreters: Interpreters::default(), seconds: 0.0 }
    }

    fn read(object: ObjectId, answer: &[u8]) -> Self {
        let mut reader = Reader(answer);
        let seconds = reader.number().unwrap_or(0) as f64 / 1e9;
        let interpreters = reader.bytes().and_then(Interpreters::from_bytes).unwrap_or_default();
        let table = reader.bytes().and_then(FlatTable::from_bytes);
        Self { object, table, interpreters, seconds }
    }
}

/// Who builds them.
#[derive(Debug)]
pub struct TableBuilder {
    /// Whether interpreters are looked for.
    with_interpreters: bool,
    worker: Option<Worker>,
    /// Files whose tables are not there yet.
    queue: VecDeque<ObjectId>,
    /// How many of them the worker has.
    asked: usize,
    /// Since when it has had the first.
    since: Instant,
    patience: Patience,
    /// Files that cost a worker its life or its time.
    pub lost: usize,
}

impl Default for TableBuilder {
    fn default() -> Self {
        Self {
            with_interpreters: false,
            worker: None,
            queue: VecDeque::new(),
            asked: 0,
            since: Instant::now(),
            patience: Patience::new(PATIENCE),
            lost: 0,
        }
    }
}

impl TableBuilder {
    /// One that looks for interpreters too, or does not.
    pub fn new(with_interpreters: bool) -> Self {
        Self { with_interpreters, ..Self::default() }
    }

    /// Asks for a file's table. False if it cannot be built.
    pub fn ask(&mut self, object: ObjectId, objects: &Objects) -> bool {
        if self.worker.is_none() {
            match Worker::start(Kind::Tables) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => {
                    if self.lost == 0 {
                        say!("profiler: unwind tables are not built: {error:#}");
                    }
                    self.lost += 1;
                    return false;
                }
            }
        }
        self.queue.push_back(object);
        self.send(objects);
        true
    }

    /// How many are not there yet.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// CPU time of workers, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.worker.as_ref().map_or(0.0, Worker::cpu_s)
    }

    /// To be polled for tables that come.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.worker.as_ref().filter(|_| !self.queue.is_empty()).and_then(Worker::fd)
    }

    /// Waits until one comes, or the time is over.
    pub fn wait(&self, time: Duration) {
        if let Some(worker) = &self.worker {
            worker.wait(None, time);
        }
    }

    /// The next that has come, or turned out never to.
    pub fn built(&mut self, objects: &Objects) -> Option<Built> {
        let &first = self.queue.front()?;
        self.send(objects);
        let Some(worker) = self.worker.as_mut().filter(|_| self.asked > 0) else {
            // Nobody builds it, or it has changed, or there is no descriptor left to hand it over.
            return self.queue.pop_front().map(Built::nothing);
        };
        match worker.hear() {
            Ok(Some(message)) => {
                let object = self.queue.pop_front()?;
                self.asked -= 1;
                self.since = Instant::now();
                self.send(objects);
                Some(Built::read(object, &message.payload))
            }
            Ok(None) => {
                let bytes = objects.get(first).file().ok().and_then(|file| file.metadata().ok());
                let bytes = bytes.map_or(0, |meta| meta.len());
                if self.since.elapsed() < self.patience.of(bytes) {
                    return None;
                }
                self.patience.lose();
                self.lose(objects)
            }
            Err(_) => self.lose(objects),
        }
    }

    /// Gives up the first.
    fn lose(&mut self, objects: &Objects) -> Option<Built> {
        self.lost += 1;
        let object = self.queue.pop_front()?;
        self.asked = 0;
        if self.worker.as_mut()?.restart().is_err() {
            self.worker = None;
        }
        self.send(objects);
        Some(Built::nothing(object))
    }

    fn send(&mut self, objects: &Objects) {
        let Some(worker) = &mut self.worker else { return };
        while self.asked < MOST_ASKED
            && let Some(&object) = self.queue.get(self.asked)
            && let Ok(file) = objects.get(object).file()
            && let Ok(file) = worker::shared(file)
        {
            if self.asked == 0 {
                self.since = Instant::now();
            }
            // If it is dead that is heard later.
            let _ = worker.ask(ask::TABLE, &[u8::from(self.with_interpreters)], vec![file]);
            self.asked += 1;
        }
    }
}
