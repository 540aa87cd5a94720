//! What listens to the machine while a recording runs, and the model of the machine that comes of it.
//!
//! [`Recorder::listen`] opens everything in the order that makes short processes visible;
//! [`Recorder::read`] and [`Recorder::drain`] keep the model up to date; [`Recorder::flush_threads`] ends
//! the time of threads.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::RecordArgs;
use crate::machine::usage::RoomForFiles;
use crate::machine::{cgroups, shortage};
use crate::model::event::{Dump, Event, Timed};
use crate::model::objects::Objects;
use crate::model::processes::Processes;
use crate::model::snapshot::Snapshot;
use crate::programs::{Window, code};
use crate::recording::about;
use crate::recording::budget::Budget;
use crate::recording::capture::bpf::{Filter, Sampler};
use crate::recording::capture::perf::Sideband;
use crate::recording::capture::proc;
use crate::recording::containers::{self, Containers};
use crate::recording::labels::Labels;
use crate::recording::plan::Plan;
use crate::recording::tallies::{Swap, Tallies};
use crate::recording::timeline::Timeline;
use crate::recording::unwinding::Unwinding;

/// How often deleted files that nobody maps any more are let go.
const RELEASE: Duration = Duration::from_secs(10);

/// Everything that listens to the machine, and the model of it that comes of that.
pub struct Recorder {
    /// Forks, mappings, names and exits, from perf.
    pub sideband: Sideband,
    /// The BPF programs.
    pub sampler: Sampler,
    /// The model, event by event.
    pub timeline: Timeline,
    /// Unwind tables, in step with the model.
    pub unwinding: Unwinding,
    /// What BPF programs cost, if that is recorded.
    pub programs: Option<Window>,
    /// Labels of cgroups and containers.
    pub containers: Containers,
    /// When deleted files were let go last.
    released: Instant,
}

impl Recorder {
    /// Opens the side-band, reads what runs already, makes its unwind tables, loads the sampler.
    pub fn listen(args: &RecordArgs, plan: &mut Plan, room: RoomForFiles) -> Result<Self> {
        let sideband = Sideband::open(&plan.online, sideband_pages(plan.online.len()))?;
        let fixed = args.label.iter().map(|(key, value)| containers::text(key, value)).collect();
        let labels = Labels { fixed, slot_ns: plan.config.time_slot_ns, ..Labels::default() };
        let mut tally =
            Tallies::new(about::empty_profile(args, plan.event.as_ref()), about::short_blocks(args), labels);
        tally.budget = Budget(args.memory_budget);
        let mut timeline = Timeline::new(processes(plan), tally);
        let mut unwinding = Unwinding::new(plan.config.interpreters);
        timeline.objects.keep_below(room.before);
        timeline.inbox().extend(snapshot(plan));
        timeline.advance(proc::now_ns(), |_: u64, _: &Rc<Dump>, _: &Snapshot, _: &Objects| None);
        if plan.walk_by_tables {
            unwinding.prepare(plan.config.memory, &timeline.processes, &timeline.objects);
        }
        let mut sampler = load(args, plan, &unwinding)?;
        timeline.objects.keep_below(room.after);
        if let Some(tables) = sampler.tables()? {
            unwinding.publish(tables, &mut timeline.processes, &timeline.objects);
        }
        let [v2, v1] = plan.hierarchies.clone();
        let containers = Containers::new(v2, v1);
        Ok(Self {
            sideband,
            sampler,
            timeline,
            unwinding,
            programs: None,
            containers,
            released: Instant::now(),
        })
    }

    /// Says what this kernel lacks.
    pub fn say_what_is_missing(&self) {
        for missing in self.sideband.missing.iter().chain(&self.sampler.missing) {
            say!("profiler: this kernel lacks {missing}");
        }
    }

    /// Reads all rings and applies what happened; says whether the next look should be soon: new
    /// files are there to be opened, or new mappings to be walked by, or stacks arrive in numbers.
    pub fn read(&mut self) -> Result<bool> {
        self.take_late();
        let Self { sideband, sampler, timeline, unwinding, containers, .. } = self;
        let now_ns = proc::now_ns();
        let known = timeline.objects.iter().len();
        let many = sampler.read_stacks(timeline.inbox())?;
        sideband.read(timeline.inbox());
        timeline.look_at_cgroups(containers);
        for tgid in timeline.joined() {
            proc::snapshot(tgid, timeline.inbox());
        }
        timeline.advance(now_ns, |time_ns: u64, dump: &Rc<Dump>, then: &Snapshot, objects: &Objects| {
            unwinding.unwind(time_ns, dump, then, objects)
        });
        unwinding.name_unknown(&timeline.processes, &mut timeline.objects);
        for (tgid, tid) in timeline.stale(now_ns) {
            timeline.processes.adopt(tgid);
            timeline.inbox().push(proc::maps(tgid, tid));
        }
        let published = unwinding.update(now_ns, &mut timeline.processes, &timeline.objects);
        Ok(many || published || timeline.objects.iter().len() > known)
    }

    /// Gives stacks that have waited for it what was read again, and those their tables that need them.
    pub fn settle(&mut self) {
        let Self { timeline, unwinding, .. } = self;
        timeline.settle(|time_ns: u64, dump: &Rc<Dump>, then: &Snapshot, objects: &Objects| {
            unwinding.unwind(time_ns, dump, then, objects)
        });
        unwinding.finish_jvms(&timeline.processes, &mut timeline.objects);
        unwinding.wait_for_tables(&timeline.objects);
        self.take_late();
        self.unwinding.finish_jvms(&self.timeline.processes, &mut self.timeline.objects);
    }

    /// Looks at what lives again, since records of what happened were lost.
    pub fn look_again(&mut self, plan: &Plan) {
        self.timeline.inbox().extend(snapshot(plan));
        if !plan.models_everything() {
            let living: Vec<u32> = self.timeline.processes.living().collect();
            snapshot_of(living, self.timeline.inbox());
        }
    }

    /// Takes the stacks whose tables have come.
    fn take_late(&mut self) {
        for (time_ns, then, stack) in self.unwinding.take_late() {
            self.timeline.late(time_ns, then, stack);
        }
    }

    /// Takes the counts of the interval that ends now, and says when that was.
    pub fn drain(&mut self) -> Result<Swap> {
        if let Some(programs) = &mut self.programs {
            programs.tick();
        }
        self.containers.tick();
        let end_ns = proc::now_ns();
        let counts = self.sampler.drain()?;
        let swap = Swap { before_ns: end_ns, after_ns: proc::now_ns() };
        self.unwinding.settle();
        self.read()?;
        self.timeline.count(&counts, end_ns);
        if self.released.elapsed() >= RELEASE {
            self.timeline.forget_deleted();
            self.released = Instant::now();
        }
        Ok(swap)
    }

    /// Gives back what only windows that are over had a use for.
    pub fn forget_unused(&mut self) {
        self.timeline.forget_unused();
        self.containers.forget();
    }

    /// Ends the time of all threads; returns how many were blocked. The stacks of those are walked one
    /// by one: together they would be large.
    pub fn flush_threads(&mut self) -> Result<u64> {
        let mut counts = Vec::new();
        let Self { sideband, sampler, timeline, unwinding, containers, .. } = self;
        sideband.read(timeline.inbox());
        sampler.flush_threads(|thread, stack| {
            let now_ns = thread.time_ns;
            timeline.inbox().push(thread);
            if let Some((dump, count)) = stack {
                timeline.inbox().push(Timed { time_ns: now_ns, event: Event::Dump(dump) });
                counts.push(count);
            }
            timeline.look_at_cgroups(containers);
            timeline.advance(now_ns, |time_ns: u64, dump: &Rc<Dump>, then: &Snapshot, objects: &Objects| {
                unwinding.unwind(time_ns, dump, then, objects)
            });
        })?;
        unwinding.name_unknown(&timeline.processes, &mut timeline.objects);
        timeline.tally.count(&counts, 0);
        Ok(counts.len() as u64)
    }
}

/// Loads the sampler, with less room where there is no memory for more.
fn load(args: &RecordArgs, plan: &mut Plan, unwinding: &Unwinding) -> Result<Sampler> {
    let by_tables = plan.walk_by_tables;
    loop {
        if plan.walk_by_tables {
            let mut capacity = unwinding.capacity(plan.config.memory);
            if let Some([chunks, mappings]) = args.table_limits.as_deref() {
                (capacity.chunks, capacity.blocks, capacity.mappings) = (*chunks, 1, *mappings);
            }
            plan.config.tables = Some(capacity);
        }
        let error = match Sampler::load(&plan.config) {
            Ok(sampler) => {
                if plan.config.memory.is_little() {
                    say!(
                        "profiler: little memory: there is less room for unwind tables, for names of scripts and for \
                         processes that are followed"
                    );
                }
                if by_tables && !plan.walk_by_tables {
                    say!(
                        "profiler: no memory for unwind tables: user stacks are walked by frame pointers alone"
                    );
                }
                return Ok(sampler);
            }
            Err(error) => error,
        };
        if !shortage::is_of_memory(&error) || !plan.reduce() {
            return Err(error);
        }
    }
}

fn processes(plan: &Plan) -> Processes {
    let mut processes = Processes::new(plan.models_everything());
    match &plan.config.filter {
        Filter::Everything => members(plan).into_iter().for_each(|tgid| processes.follow(tgid)),
        Filter::Processes(ids) => ids.iter().for_each(|&tgid| processes.follow(tgid)),
        Filter::Threads(_) => plan.watched.iter().for_each(|&tgid| processes.follow(tgid)),
    }
    processes
}

/// Processes in the cgroup that is asked for, if one is.
fn members(plan: &Plan) -> Vec<u32> {
    plan.cgroup.as_ref().map(|cgroup| cgroups::members(&cgroup.directory)).unwrap_or_default()
}

/// What runs already, as the events that led to it.
fn snapshot(plan: &Plan) -> Vec<Timed> {
    let processes = match &plan.config.filter {
        _ if plan.models_everything() => proc::processes(),
        Filter::Everything => members(plan),
        Filter::Processes(ids) => ids.clone(),
        Filter::Threads(_) => plan.watched.clone(),
    };
    let mut events = Vec::new();
    proc::snapshot_bpf(&code::lengths(), &mut events);
    snapshot_of(processes, &mut events);
    events
}

fn snapshot_of(processes: Vec<u32>, events: &mut Vec<Timed>) {
    for tgid in processes {
        proc::snapshot(tgid, events);
    }
}

/// Rings take 512 KiB per CPU: 5,000 records, of which a short process leaves ten. Large machines
/// get smaller ones, since their CPUs share the load.
fn sideband_pages(cpus: usize) -> usize {
    if cpus <= 16 { 128 } else { 32 }
}
