//! Java virtual machines among the processes: what they have compiled is asked of a worker, which reads their memory
//! ([`crate::hotspot`]).
//!
//! One question is under way at a time. A JVM's code is looked through when it is new, then again as long as samples
//! fall into it: soon where something had changed or an address is not known, seldom where nothing does, and never so
//! often that looking would take more than a small part of the time. Functions at the places of samples are asked for
//! at once, while the code is still there.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::hotspot::wire::{Answer, HeapTable, Place, Question};
use crate::interpreters::Interpreters;
use crate::interpreters::hotspot::Layout;
use crate::model::compiled::{New, number};
use crate::model::objects::Objects;
use crate::model::scripts::CodeKey;
use crate::recording::capture::proc;
use crate::worker::{Kind, Worker, ask};

/// After the first look, and the longest between two.
const FIRST_REST: Duration = Duration::from_millis(20);
const LONGEST_REST: Duration = Duration::from_secs(1);
/// So many times as long as a look took, at least.
const REST_PER_LOOK: u32 = 40;
/// The same where an address is not known.
const REST_PER_SOON: u32 = 10;
/// For one answer. A large code cache is looked through in a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// A JVM that has no code by then, or none that is understood, never will have.
const LONGEST_START: Duration = Duration::from_secs(10);
/// A JVM on which the worker died or hung so often is asked no more.
const MOST_FAILURES: u32 = 3;
/// So is one whose structures were not understood so often: before it is linked they are not there.
const MOST_STRANGE: u32 = 5;
/// Places in one question.
const MOST_WANTED: usize = 10_000;

/// All of them.
#[derive(Debug, Default)]
pub struct Jvms {
    worker: Option<Worker>,
    jvms: HashMap<u32, Jvm>,
    asked: Option<Asked>,
    /// JVMs and blobs so far.
    next: u64,
    next_blob: u64,
    /// Whether there can be no worker.
    has_no_worker: bool,
}

#[derive(Debug)]
struct Jvm {
    number: u64,
    layout: Layout,
    bias: u64,
    looked: Instant,
    /// How long the last look took.
    took: Duration,
    rest: Duration,
    /// Whether a sample was in it since the last look, and in code that is not known.
    is_active: bool,
    is_behind: bool,
    has_code: bool,
    wanted: Vec<CodeKey>,
    failures: u32,
    /// How often in a row its structures were not understood.
    strange: u32,
    since: Instant,
    was_new: bool,
}

#[derive(Debug)]
struct Asked {
    tgid: u32,
    number: u64,
    question: Question,
    wanted: Vec<CodeKey>,
    began: Instant,
    began_ns: u64,
}

/// A process whose code has changed.
#[derive(Debug)]
pub struct NewTables {
    /// Which.
    pub tgid: u32,
    /// Tables of its heaps.
    pub heaps: Vec<HeapTable>,
    /// Between which addresses all of them are or will be.
    pub bounds: (u64, u64),
}

impl Jvm {
    fn is_asked(&self) -> bool {
        self.failures < MOST_FAILURES && self.strange < MOST_STRANGE
    }

    fn is_new(&self) -> bool {
        !self.has_code && self.is_asked() && self.since.elapsed() < LONGEST_START
    }

    fn is_due(&self) -> bool {
        let least = if self.is_behind { self.took * REST_PER_SOON } else { self.took * REST_PER_LOOK };
        let rest = if self.is_behind { FIRST_REST } else { self.rest };
        (self.is_active || self.is_new()) && self.looked.elapsed() >= rest.max(least)
    }
}

impl Jvms {
    /// Whether a process has one.
    pub fn has(&self, tgid: u32) -> bool {
        self.jvms.contains_key(&tgid)
    }

    /// Takes what a process has mapped now: a JVM, or none. Says whether it had one and has none any more.
    pub fn mapped(&mut self, tgid: u32, found: Option<(&Layout, u64)>) -> bool {
        let Some((layout, bias)) = found else { return self.jvms.remove(&tgid).is_some() };
        let known = self.jvms.get(&tgid);
        if known.is_some_and(|jvm| jvm.bias == bias && jvm.layout == *layout) {
            return false;
        }
        self.next += 1;
        let jvm = Jvm {
            number: self.next,
            layout: layout.clone(),
            bias,
            looked: Instant::now().checked_sub(LONGEST_REST).unwrap_or_else(Instant::now),
            took: Duration::ZERO,
            rest: FIRST_REST,
            is_active: true,
            is_behind: false,
            has_code: false,
            wanted: Vec::new(),
            failures: 0,
            strange: 0,
            since: Instant::now(),
            was_new: true,
        };
        self.jvms.insert(tgid, jvm);
        false
    }

    /// Asks for the name of a method that the interpreter ran, or of a place in compiled code.
    pub fn want(&mut self, key: CodeKey) {
        if let Some(jvm) = self.jvms.get_mut(&key.tgid) {
            jvm.is_active = true;
            jvm.is_behind |= number(&key) == Some(0);
            jvm.wanted.push(key);
        }
    }

    /// To be polled for an answer.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.worker.as_ref().filter(|_| self.asked.is_some()).and_then(Worker::fd)
    }

    /// CPU time of the worker, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.worker.as_ref().map_or(0.0, Worker::cpu_s)
    }

    /// Takes an answer, if one has come, and asks the next question. Returns the tables of a process whose code has
    /// changed.
    pub fn turn(&mut self, objects: &mut Objects) -> Vec<NewTables> {
        if self.jvms.is_empty() {
            return Vec::new();
        }
        for tgid in objects.compiled.take_active() {
            if let Some(jvm) = self.jvms.get_mut(&tgid) {
                jvm.is_active = true;
            }
        }
        let changed = self.hear(objects);
        if self.asked.is_none() && !self.has_no_worker {
            self.ask();
        }
        changed.into_iter().collect()
    }

    /// Whether a process has a JVM of whose code nothing is known yet.
    pub fn is_new(&self, tgid: u32) -> bool {
        !self.has_no_worker && self.jvms.get(&tgid).is_some_and(Jvm::is_new)
    }

    /// JVMs that were new, and about which nothing is to be known, since the last call.
    pub fn take_settled(&mut self) -> Vec<u32> {
        let has_no_worker = self.has_no_worker;
        let is_settled = |jvm: &Jvm| jvm.was_new && (has_no_worker || !jvm.is_new());
        let settled = self.jvms.iter_mut().filter(|(_, jvm)| is_settled(jvm));
        settled
            .map(|(&tgid, jvm)| {
                jvm.was_new = false;
                tgid
            })
            .collect()
    }

    /// A stack of a process waits for what is known of its code.
    pub fn hurry(&mut self, tgid: u32) {
        if let Some(jvm) = self.jvms.get_mut(&tgid) {
            (jvm.is_active, jvm.is_behind) = (true, true);
        }
    }

    /// Whether there is anything to be asked or heard.
    pub fn is_busy(&self) -> bool {
        let waits = |jvm: &Jvm| jvm.is_asked() && (jvm.is_behind || !jvm.wanted.is_empty());
        self.asked.is_some() || (!self.has_no_worker && self.jvms.values().any(waits))
    }

    /// Waits for an answer, or the time.
    pub fn wait(&self, time: Duration) {
        match self.worker.as_ref().filter(|_| self.asked.is_some()) {
            Some(worker) => worker.wait(None, time),
            None => std::thread::sleep(time),
        }
    }

    fn hear(&mut self, objects: &mut Objects) -> Option<NewTables> {
        let asked = self.asked.take()?;
        let heard = self.worker.as_mut()?.hear();
        match heard {
            Ok(Some(message)) => {
                let answer = Answer::from_bytes(&message.payload, &asked.question);
                if answer.is_none() {
                    self.fail(asked.tgid, objects);
                }
                answer.and_then(|answer| self.take(&asked, answer, objects))
            }
            Ok(None) if asked.began.elapsed() < PATIENCE => {
                self.asked = Some(asked);
                None
            }
            _ => {
                self.fail(asked.tgid, objects);
                if let Some(Err(_)) = self.worker.as_mut().map(Worker::restart) {
                    self.has_no_worker = true;
                }
                None
            }
        }
    }

    fn fail(&mut self, tgid: u32, objects: &mut Objects) {
        if let Some(jvm) = self.jvms.get_mut(&tgid) {
            jvm.failures += 1;
            jvm.looked = Instant::now();
            if jvm.failures >= MOST_FAILURES {
                jvm.wanted.clear();
                objects.compiled.forget(tgid);
            }
        }
    }

    fn take(&mut self, asked: &Asked, answer: Answer, objects: &mut Objects) -> Option<NewTables> {
        let tgid = asked.tgid;
        let jvm = self.jvms.get_mut(&tgid).filter(|jvm| jvm.number == asked.number)?;
        if asked.question.looks {
            let changed = !answer.come.is_empty() || !answer.gone.is_empty();
            jvm.took = Duration::from_nanos(answer.look_ns).min(asked.began.elapsed());
            jvm.rest = if changed { jvm.rest / 2 } else { jvm.rest * 2 }.clamp(FIRST_REST, LONGEST_REST);
            jvm.has_code = answer.has_code;
            jvm.strange = if answer.is_known { 0 } else { jvm.strange + 1 };
            if answer.is_fresh {
                objects.compiled.forget(tgid);
            }
            self.next_blob = answer.come.iter().map(|new| new.number).max().unwrap_or(0).max(self.next_blob);
            let new = |new: crate::hotspot::wire::NewBlob| New {
                number: new.number,
                code: new.start..new.end,
                name: new.name.into(),
            };
            if let Some(heaps) = &answer.heaps {
                objects.compiled.heaps(tgid, heaps.iter().map(|heap| heap.low..heap.high).collect());
            }
            let come = answer.come.into_iter().map(new).collect();
            objects.compiled.update(tgid, asked.began_ns, &answer.gone, come);
        }
        let (mut places, mut methods) = (answer.places.into_iter(), answer.methods.into_iter());
        for &key in &asked.wanted {
            if number(&key).is_some() {
                if let Some(names) = places.next().filter(|names| !names.is_empty()) {
                    objects.scripts.learn_place(key, names);
                }
            } else if let Some(Some(code)) = methods.next() {
                objects.scripts.learn(key, code);
            }
        }
        answer.heaps.map(|heaps| NewTables { tgid, heaps, bounds: answer.bounds })
    }

    /// Asks about the JVM that has waited longest.
    fn ask(&mut self) {
        let worth = |jvm: &Jvm| jvm.is_asked() && (jvm.is_due() || !jvm.wanted.is_empty());
        let next = self.jvms.iter_mut().filter(|(_, jvm)| worth(jvm));
        let Some((&tgid, jvm)) = next.min_by_key(|(_, jvm)| jvm.looked) else { return };
        let looks = jvm.is_due();
        // Places that are not known yet need a look.
        let count = jvm.wanted.len().min(MOST_WANTED);
        let mut wanted: Vec<CodeKey> = jvm.wanted.drain(..count).collect();
        if !looks {
            let (later, now) = wanted.into_iter().partition(|key| number(key) == Some(0));
            wanted = now;
            jvm.wanted.extend::<Vec<CodeKey>>(later);
            if wanted.is_empty() {
                return;
            }
        }
        let place = |key: &CodeKey| Some(Place { blob: number(key)?, addr: key.code });
        let places = wanted.iter().filter_map(place).collect();
        let methods = wanted.iter().filter(|key| number(key).is_none());
        let layout = Interpreters { hotspot: Some(jvm.layout.clone()), ..Interpreters::default() };
        let question = Question {
            jvm: jvm.number,
            layout: layout.to_bytes(),
            bias: jvm.bias,
            looks,
            next_blob: self.next_blob,
            places,
            methods: methods.map(|key| [key.code, key.checksum]).collect(),
        };
        if looks {
            jvm.looked = Instant::now();
            (jvm.is_active, jvm.is_behind) = (false, false);
        }
        let number = jvm.number;
        let Ok(memory) = File::open(format!("/proc/{tgid}/mem")) else {
            // It is gone, or may not be read: what is wanted has no names.
            jvm.failures = MOST_FAILURES;
            return;
        };
        if self.worker.is_none() && !self.has_no_worker {
            match Worker::start(Kind::Memory) {
                Ok(worker) => self.worker = Some(worker),
                Err(error) => {
                    self.has_no_worker = true;
                    say!("profiler: code of Java is not looked at: {error:#}");
                }
            }
        }
        let Some(worker) = self.worker.as_mut().filter(|_| !self.has_no_worker) else { return };
        // If it is dead that is heard later.
        let _ = worker.ask(ask::JVM, &question.to_bytes(), vec![OwnedFd::from(memory)]);
        let (began, began_ns) = (Instant::now(), proc::now_ns());
        self.asked = Some(Asked { tgid, number, question, wanted, began, began_ns });
    }
}
