//! All programs, from the beginning of a window to its end.
//!
//! Counters are read at the beginning and at the end. In between a program may go, and its counters
//! with it: so each is watched through a descriptor, which keeps it in memory, though no longer in
//! use, until the next [`Watch::tick`], at most for as long as [`Watch::RELEASE`] says. What others
//! closed meanwhile is gone then, and its counters were read before.
//!
//! Ids grow: a new program has one above all before. At the end an empty program of ours gets the
//! next id, so that it is known how many programs were loaded in between, even of those that came
//! and went unseen.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{FcntlArg, fcntl};
use nix::time::{ClockId, clock_gettime};

use super::attach::{self, Attachments};
use super::btf::Names;
use super::containers::{Container, Containers};
use super::descriptors::Lister;
use super::maps::{self, Map};
use super::owners::{Owners, WATCHING};
use super::sys::{self, Object, raw};
use super::{Program, Statistics};
use crate::machine::usage;

/// Programs as they run.
#[derive(Debug)]
pub struct Watch {
    watched: BTreeMap<u32, Watched>,
    /// The highest id seen.
    newest: u32,
    /// The highest id before the window, if ids can be told.
    last_before: Option<u32>,
    started: Instant,
    released: Instant,
    /// Whether there are programs whose uses have not been looked up.
    has_new: bool,
    /// When uses were looked up last, and how long that took.
    looked: Instant,
    look_took: Duration,
    names: Names,
    unreadable: usize,
    /// Our CPU time at the beginning.
    own_cpu_s: f64,
    stopped: Option<Stopped>,
    lister: Lister,
}

/// What the end of a window tells.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    window: Duration,
    own_cpu_s: f64,
    /// The id of the next program.
    last: Option<u32>,
}

/// See [`Watch::tick`].
const REST_PER_LOOK: u32 = 20;

/// One program.
#[derive(Debug)]
struct Watched {
    /// `None` once it is gone.
    fd: Option<OwnedFd>,
    info: sys::Program,
    memory_bytes: u64,
    before: Counters,
    now: Counters,
    loaded: bool,
    uses: Uses,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    runs: u64,
    time_ns: u64,
    recursion_misses: u64,
    link_misses: u64,
}

/// Who keeps a program, where it is attached, and the memory of its maps.
#[derive(Clone, Debug, Default)]
struct Uses {
    owners: Vec<super::Owner>,
    pins: Vec<String>,
    attach: Vec<String>,
    containers: Vec<Container>,
    map_memory_bytes: u64,
    shared_maps: usize,
}

impl Watch {
    /// How long a program that nobody else keeps is kept at most, if there are ticks.
    pub const RELEASE: Duration = Duration::from_secs(1);

    /// Reads everything about all programs, and their counters last: the window begins.
    ///
    /// # Errors
    /// If programs cannot be listed: that takes `CAP_SYS_ADMIN`.
    pub fn start() -> io::Result<Self> {
        let mut watch = Self::open()?;
        watch.find_uses();
        watch.read_counters();
        for watched in watch.watched.values_mut() {
            watched.before = watched.now;
        }
        watch.own_cpu_s = usage::own_cpu_s();
        watch.started = Instant::now();
        watch.released = watch.started;
        Ok(watch)
    }

    /// What all programs have counted since they were loaded, and while statistics were on; no window.
    ///
    /// # Errors
    /// Those of [`Self::start`].
    pub fn totals() -> io::Result<Statistics> {
        let mut totals = Self::open()?.finish()?;
        totals.window_ns = 0;
        for program in &mut totals.programs {
            (program.run_count, program.run_time_ns) = (0, 0);
            program.loaded = false;
        }
        Ok(totals)
    }

    fn open() -> io::Result<Self> {
        usage::raise_file_limit();
        let now = Instant::now();
        let lister = Lister::new();
        let marker = next_id();
        let mut watch = Self {
            watched: BTreeMap::new(),
            newest: 0,
            last_before: None,
            started: now,
            released: now,
            has_new: false,
            looked: now,
            look_took: Duration::ZERO,
            names: Names::default(),
            unreadable: 0,
            own_cpu_s: 0.0,
            stopped: None,
            lister,
        };
        watch.find_new(false)?;
        watch.newest = watch.newest.max(marker.unwrap_or(0));
        watch.last_before = marker.map(|_| watch.newest);
        Ok(watch)
    }

    /// Finds programs that are new; lets go of those that are gone. To be called often: what comes
    /// and goes between two calls is only counted.
    ///
    /// # Errors
    /// If programs cannot be listed any more.
    pub fn tick(&mut self) -> io::Result<()> {
        // Where programs come all the time, a look is followed by a rest of REST_PER_LOOK times its length.
        if self.has_new && self.looked.elapsed() >= REST_PER_LOOK * self.look_took {
            self.find_uses();
        }
        self.find_new(true)?;
        if self.released.elapsed() >= Self::RELEASE {
            self.read_counters();
            self.release();
        }
        Ok(())
    }

    /// Reads the counters for the last time.
    ///
    /// # Errors
    /// If programs cannot be listed any more.
    pub fn stop(&mut self) -> io::Result<Stopped> {
        self.find_new(true)?;
        self.read_counters();
        let window = self.started.elapsed();
        let stopped = Stopped { window, own_cpu_s: usage::own_cpu_s() - self.own_cpu_s, last: next_id() };
        self.stopped = Some(stopped);
        Ok(stopped)
    }

    /// Ends the window, unless it was stopped before, and looks up whose the programs are.
    ///
    /// # Errors
    /// If programs cannot be listed any more.
    pub fn finish(mut self) -> io::Result<Statistics> {
        let Stopped { window, own_cpu_s, last } = match self.stopped.take() {
            Some(stopped) => stopped,
            None => self.stop()?,
        };
        self.release();
        let maps = self.find_uses();
        let seen = self.watched.values().filter(|watched| watched.loaded).count() as u64;
        let loaded =
            self.last_before.zip(last).map(|(first, last)| u64::from(last.saturating_sub(first + 1)));
        Ok(Statistics {
            window_ns: window.as_nanos() as u64,
            cpus: crate::recording::capture::perf::online_cpus().map_or(1, |cpus| cpus.len()),
            own_cpu_ns: (own_cpu_s * 1e9) as u64,
            unseen: loaded.map_or(0, |loaded| loaded.saturating_sub(seen)),
            unreadable: self.unreadable,
            programs: self.programs(),
            maps: maps.into_values().collect(),
            ..Statistics::default()
        })
    }

    /// Opens and reads programs of higher ids than all before.
    fn find_new(&mut self, loaded: bool) -> io::Result<()> {
        for id in sys::ids_after(Object::Program, self.newest)? {
            self.newest = id;
            if self.lister.id() == Some(id) {
                // It is no part of what is measured: it runs before the window and after it.
                continue;
            }
            let Some(fd) = watch(id)? else { continue };
            let Ok(info) = sys::program(&fd) else { continue };
            let memory_bytes = maps::memory(&fd);
            let watched = Watched {
                fd: Some(fd),
                info,
                memory_bytes,
                before: Counters::default(),
                now: Counters::default(),
                loaded,
                uses: Uses::default(),
            };
            self.watched.insert(id, watched);
            self.has_new = true;
        }
        Ok(())
    }

    fn read_counters(&mut self) {
        for watched in self.watched.values_mut() {
            let Some(info) = watched.fd.as_ref().and_then(|fd| sys::counters(fd).ok()) else { continue };
            watched.now.runs = info.run_cnt;
            watched.now.time_ns = info.run_time_ns;
            watched.now.recursion_misses = info.recursion_misses;
        }
    }

    /// Closes all descriptors, and opens those again that somebody else keeps in use.
    fn release(&mut self) {
        for (&id, watched) in &mut self.watched {
            if watched.fd.take().is_some() {
                watched.fd = watch(id).ok().flatten();
            }
        }
        self.released = Instant::now();
    }

    /// Looks up who keeps the programs, and where they are attached.
    fn find_uses(&mut self) -> BTreeMap<u32, Map> {
        let started = Instant::now();
        self.has_new = false;
        let mut maps = maps::read().unwrap_or_default();
        for (&id, watched) in self.watched.iter().filter(|(_, watched)| watched.fd.is_some()) {
            for map in &watched.info.maps {
                if let Some(map) = maps.get_mut(map) {
                    map.users.push(id);
                }
            }
        }
        let owners = Owners::scan(&self.lister);
        self.unreadable = owners.unreadable;
        let here: Vec<_> = self
            .watched
            .values()
            .filter(|watched| watched.fd.is_some())
            .map(|watched| &watched.info)
            .collect();
        let Attachments { places, misses, cgroups, namespaces } =
            attach::find(&here, &maps, &owners.events, &mut self.names);
        let mut containers = Containers::new(&namespaces.values().flatten().copied().collect());
        for (id, watched) in &mut self.watched {
            if watched.fd.is_none() {
                // What it was when it was there.
                continue;
            }
            watched.now.link_misses = misses.get(id).copied().unwrap_or(0);
            let times = |(place, times): (&String, &usize)| match times {
                1 => place.clone(),
                times => format!("{place} ×{times}"),
            };
            let used = || watched.info.maps.iter().filter_map(|map| maps.get(map));
            let owners_of_it: Vec<_> = owners.processes.get(id).into_iter().flatten().cloned().collect();
            let uses = Uses {
                containers: containers.of(
                    &owners_of_it,
                    cgroups.get(id).into_iter().flatten().map(String::as_str),
                    namespaces.get(id).into_iter().flatten(),
                ),
                map_memory_bytes: used().map(|map| map.share(*id)).sum(),
                shared_maps: used().filter(|map| map.users.len() > 1).count(),
                owners: owners_of_it,
                pins: owners
                    .pins
                    .get(id)
                    .into_iter()
                    .flatten()
                    .map(|pin| pin.display().to_string())
                    .collect(),
                attach: places.get(id).into_iter().flatten().map(times).collect(),
            };
            // A program that ends is detached first: its last known places are kept.
            if !uses.owners.is_empty() || !uses.pins.is_empty() || !uses.attach.is_empty() {
                watched.uses = uses;
            }
        }
        self.looked = Instant::now();
        self.look_took = self.looked - started;
        maps
    }

    fn programs(&mut self) -> Vec<Program> {
        let cut = |info: &sys::Program| sys::string(&info.raw.name).len() == info.raw.name.len() - 1;
        let key = |info: &sys::Program| Some((info.raw.btf_id, info.function_type?));
        self.names.learn(
            self.watched.values().map(|watched| &watched.info).filter(|info| cut(info)).filter_map(key),
        );
        let boot_ns = boot_ns();
        let names = &self.names;
        let program = |watched: &Watched| {
            let Watched { info, before, now, uses, .. } = watched;
            let short = sys::string(&info.raw.name);
            let long = key(info).filter(|_| cut(info)).and_then(|(object, id)| names.get(object, id));
            let mut attach = uses.attach.clone();
            let unlisted = match info.raw.type_ {
                raw::BPF_PROG_TYPE_SOCKET_FILTER => Some("socket"),
                raw::BPF_PROG_TYPE_PERF_EVENT => Some("perf event"),
                _ => None,
            };
            if let (Some(what), true) = (unlisted, attach.is_empty()) {
                attach.push(format!("{what} (the kernel does not tell which)"));
            }
            Program {
                id: info.raw.id,
                kind: sys::program_type(info.raw.type_),
                name: long.filter(|long| long.starts_with(&short)).map_or(short.clone(), str::to_owned),
                tag: info.raw.tag.iter().map(|byte| format!("{byte:02x}")).collect(),
                ours: uses.owners.iter().any(|owner| owner.ours),
                owners: uses.owners.clone(),
                pins: uses.pins.clone(),
                attach,
                containers: uses.containers.clone(),
                run_count: now.runs.saturating_sub(before.runs),
                run_time_ns: now.time_ns.saturating_sub(before.time_ns),
                total_run_count: now.runs,
                total_run_time_ns: now.time_ns,
                recursion_misses: now.recursion_misses,
                link_misses: now.link_misses,
                map_ids: info.maps.clone(),
                map_memory_bytes: uses.map_memory_bytes,
                shared_maps: uses.shared_maps,
                memory_bytes: watched.memory_bytes,
                functions: info.functions.clone(),
                estimate: None,
                jit_bytes: u64::from(info.raw.jited_prog_len),
                loaded_at_ns: boot_ns + i128::from(info.raw.load_time),
                loaded: watched.loaded,
                unloaded: watched.fd.is_none(),
            }
        };
        self.watched.values().map(program).collect()
    }
}

/// A descriptor that marks us as onlookers; `None` if there is no such program any more.
fn watch(id: u32) -> io::Result<Option<OwnedFd>> {
    let fd = sys::open(Object::Program, id)?;
    if let Some(fd) = &fd {
        // If it fails we are taken for an owner, and nothing worse.
        let _ = fcntl(fd, FcntlArg::F_SETFL(WATCHING));
    }
    Ok(fd)
}

/// The id that the next program gets, found by using it up.
fn next_id() -> Option<u32> {
    let fd = sys::load_empty().ok()?;
    Some(sys::counters(&fd).ok()?.id)
}

/// When the machine started, in nanoseconds since 1970, by its own clocks.
fn boot_ns() -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
    let up = clock_gettime(ClockId::CLOCK_BOOTTIME);
    now - up.map_or(0, |up| i128::from(up.tv_sec()) * 1_000_000_000 + i128::from(up.tv_nsec()))
}
