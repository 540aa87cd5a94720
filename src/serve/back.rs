//! The process that records, and answers the front (`front.rs`).

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdout, fork, pipe2};

use super::address::{self, Listener};
use super::front;
use super::http::Request;
use super::link::{self, Answer, Asked};
use super::metrics::{self, Own};
use super::push::Target;
use crate::cli::{RecordArgs, ServeArgs};
use crate::machine::signals::Signals;
use crate::machine::usage::{self, RoomForFiles};
use crate::naming;
use crate::programs::{Switch, Watch};
use crate::recording::capture::bpf;
use crate::recording::cpus::clocks;
use crate::recording::mark::Mark;
use crate::recording::pace::Pace;
use crate::recording::part::Part;
use crate::recording::plan::Plan;
use crate::recording::record;
use crate::recording::recorder::Recorder;
use crate::recording::tallies::{Swap, WindowId};

/// Recordings at once.
const MOST_WINDOWS: usize = 8;
/// Of those that are over, so many are named at once.
const MOST_NAMING: usize = 4;
/// Recordings for the server that is pushed to, of which one is going on.
const MOST_PUSHES: usize = 3;
/// The recorder ends so long after the last request.
const IDLE: Duration = Duration::from_secs(60);
/// So do statistics of BPF programs, which a scraper asks for again and again.
const STATISTICS: Duration = Duration::from_secs(300);

/// Whom a recording is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// A connection of the front's.
    Client(u64),
    /// The server that is pushed to.
    Server,
}

/// A recording, from the request to the answer.
struct Job {
    whom: For,
    state: State,
}

enum State {
    Open {
        window: WindowId,
        began: Box<Mark>,
        due: Instant,
    },
    Ended(Box<Part>),
    /// A child names it, or records by itself.
    Child {
        pid: Pid,
        pipe: File,
        bytes: Vec<u8>,
    },
}

/// What listens while somebody asks.
struct Active {
    plan: Plan,
    recorder: Recorder,
    pace: Pace,
    used: Instant,
}

struct Server<'a> {
    args: &'a ServeArgs,
    record: RecordArgs,
    push: Option<Target>,
    link: UnixStream,
    active: Option<Active>,
    jobs: Vec<Job>,
    statistics: Option<(Switch, Instant)>,
    /// Counters, those of the recorder that listens now left out.
    own: Own,
}

/// Serves until a signal.
///
/// # Errors
/// If it cannot listen, or may not record.
pub fn run(args: &ServeArgs) -> Result<()> {
    let token = args.token_file.as_deref().map(address::token).transpose()?;
    let push = args.push.as_deref().map(|url| Target::parse(url, &args.push_name)).transpose()?;
    bpf::probe()?;
    let listener = Listener::open(&args.listen, token.is_some())?;
    let signals = Signals::block(false)?;
    let record = RecordArgs::of(&["-F", &args.frequency.to_string(), "--no-bpf-stats"])?;
    // What is not possible is said now, and not to the first who asks.
    Plan::new(&record)?;
    usage::raise_file_limit();
    let (link, theirs) = UnixStream::pair().context("failed to make a pair of sockets")?;
    // SAFETY: the process has one thread.
    let front = match unsafe { fork() }.context("failed to fork the process that listens")? {
        ForkResult::Child => {
            drop(link);
            let served = front::run(&listener, token.as_deref(), theirs);
            if let Err(error) = &served {
                say!("profiler: error: {error:#}");
            }
            // SAFETY: ends the child without dropping what belongs to the parent.
            unsafe { nix::libc::_exit(i32::from(served.is_err())) };
        }
        ForkResult::Parent { child } => child,
    };
    drop((theirs, token));
    say!("profiler: serving at {listener} (/debug/pprof/profile, /debug/pprof/offcpu, /metrics, /healthz)");
    let own = Own::default();
    let mut server =
        Server { args, record, push, link, active: None, jobs: Vec::new(), statistics: None, own };
    let ended = server.serve(signals);
    server.jobs.iter().for_each(Job::stop);
    listener.remove();
    drop(server);
    let _ = waitpid(front, None);
    ended
}

impl Job {
    /// Ends a child, if there is one.
    fn stop(&self) {
        if let State::Child { pid, .. } = &self.state {
            let _ = kill(*pid, Signal::SIGKILL);
            let _ = waitpid(*pid, None);
        }
    }
}

impl Server<'_> {
    fn serve(&mut self, mut signals: Signals) -> Result<()> {
        if self.push.is_some() {
            self.open(For::Server, self.args.push_every)?;
        }
        loop {
            let asked = self.wait(&signals)?;
            let looked = Instant::now();
            while signals.receive().is_some() {}
            if signals.interrupts > 0 {
                return Ok(());
            }
            if asked {
                let asked = link::asked(&mut self.link).context("the process that listens has ended")?;
                self.asked(asked)?;
            }
            if let Some(active) = &mut self.active {
                active.recorder.sampler.take_turn();
                active.pace.look(looked, &self.record, &active.plan, &mut active.recorder)?;
            }
            self.end_windows()?;
            self.name_ended()?;
            self.hear_children()?;
            self.rest();
        }
    }

    /// Waits for what comes; says whether the front asks for something.
    fn wait(&self, signals: &Signals) -> Result<bool> {
        let pipes = self.jobs.iter().filter_map(|job| match &job.state {
            State::Child { pipe, .. } => Some(pipe.as_fd()),
            _ => None,
        });
        let others: Vec<BorrowedFd<'_>> = [self.link.as_fd()].into_iter().chain(pipes).collect();
        let due = self.jobs.iter().filter_map(|job| match &job.state {
            State::Open { due, .. } => Some(due.saturating_duration_since(Instant::now())),
            State::Ended(_) => Some(Duration::from_millis(20)),
            State::Child { .. } => None,
        });
        let at_most = due.min().unwrap_or(IDLE).min(Duration::from_secs(1));
        let recorder = self.active.as_ref().map(|active| (&active.recorder, &active.pace));
        let ready = Pace::wait(signals, recorder, &others, at_most)?;
        Ok(ready.first() == Some(&true))
    }

    fn asked(&mut self, asked: Asked) -> Result<()> {
        let (id, request) = match asked {
            Asked::For(id, request) => (id, request),
            Asked::Nothing(id) => return self.forget(For::Client(id)),
        };
        if let Request::Metrics { open } = request {
            let text = self.metrics(open);
            return self.answer(id, 200, text.into_bytes());
        }
        self.own.requests += 1;
        if self.jobs.iter().filter(|job| job.whom != For::Server).count() >= MOST_WINDOWS {
            self.own.refused += 1;
            return self.answer(id, 503, format!("{MOST_WINDOWS} recordings are under way\n").into_bytes());
        }
        let begun = match request {
            Request::OffCpu(seconds) => self.off_cpu(id, seconds),
            Request::Profile(seconds) => self.open(For::Client(id), Duration::from_secs(u64::from(seconds))),
            _ => Ok(()),
        };
        match begun {
            Ok(()) => Ok(()),
            Err(error) => self.answer(id, 500, format!("{error:#}\n").into_bytes()),
        }
    }

    fn answer(&mut self, id: u64, status: u16, body: Vec<u8>) -> Result<()> {
        link::answer(&mut self.link, &Answer { id, status, body })
            .context("the process that listens has ended")
    }

    /// Nobody wants it any more.
    fn forget(&mut self, whom: For) -> Result<()> {
        for job in self.jobs.extract_if(.., |job| job.whom == whom) {
            job.stop();
            let window = match &job.state {
                State::Open { window, .. } => *window,
                State::Ended(part) => part.window,
                State::Child { .. } => continue,
            };
            if let Some(active) = &mut self.active {
                active.recorder.timeline.tally.forget(window);
            }
        }
        Ok(())
    }

    /// Begins a recording.
    fn open(&mut self, whom: For, length: Duration) -> Result<()> {
        let is_new = self.active.is_none();
        if is_new {
            self.active = Some(Active::begin(&self.record)?);
        }
        let active = self.active.as_mut().context("no recorder")?;
        active.used = Instant::now();
        let swap = if is_new { Swap::default() } else { active.recorder.drain()? };
        let window = active.recorder.timeline.tally.open(swap);
        let began = Box::new(Mark::now(&active.plan, &active.recorder)?);
        self.jobs.push(Job { whom, state: State::Open { window, began, due: Instant::now() + length } });
        Ok(())
    }

    /// Records blocks in a process of its own, whose hooks nobody else pays for.
    fn off_cpu(&mut self, id: u64, seconds: u32) -> Result<()> {
        let args =
            RecordArgs::of(&["--off-cpu-only", "--no-bpf-stats", "-d", &format!("{seconds}s"), "-o", "-"])?;
        let state = in_child(|pipe| {
            dup2_stdout(&pipe)?;
            dup2_stderr(File::options().write(true).open("/dev/null")?)?;
            record::run(&args).map(drop)
        })?;
        self.jobs.push(Job { whom: For::Client(id), state });
        Ok(())
    }

    /// Ends windows that are due.
    fn end_windows(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let now = Instant::now();
        // A server that takes nothing holds up its own recordings, whose windows grow then.
        let waiting = self.jobs.iter().filter(|job| job.whom == For::Server).count();
        let is_due = |job: &Job| {
            matches!(job.state, State::Open { due, .. } if due <= now)
                && (job.whom != For::Server || waiting <= MOST_PUSHES)
        };
        if !self.jobs.iter().any(is_due) {
            return Ok(());
        }
        let Active { plan, recorder, .. } = active;
        let swap = recorder.drain()?;
        let mark = Mark::now(plan, recorder)?;
        let mut pushed = false;
        for job in self.jobs.iter_mut().filter(|job| is_due(job)) {
            let State::Open { window, began, .. } = &job.state else { continue };
            recorder.timeline.tally.close(*window, swap);
            let summary = mark.since(began, &self.record, plan, recorder);
            job.state = State::Ended(Box::new(Part::new(*window, swap, summary, None, began)));
            pushed |= job.whom == For::Server;
        }
        if pushed {
            // Where one ends the next begins.
            let window = recorder.timeline.tally.open(swap);
            let due = now + self.args.push_every;
            self.jobs
                .push(Job { whom: For::Server, state: State::Open { window, began: Box::new(mark), due } });
        }
        active.used = Instant::now();
        recorder.forget_unused();
        Ok(())
    }

    /// Has children name what is over, when its last stacks are in.
    fn name_ended(&mut self) -> Result<()> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let Active { recorder, .. } = active;
        let mut naming = self.jobs.iter().filter(|job| matches!(job.state, State::Child { .. })).count();
        for job in &mut self.jobs {
            let State::Ended(part) = &mut job.state else { continue };
            if naming >= MOST_NAMING || !part.is_settled(recorder) {
                continue;
            }
            let Some(mut finished) = part.take(recorder) else { continue };
            let (objects, record, push, whom) =
                (&recorder.timeline.objects, &self.record, &self.push, job.whom);
            let (summary, began) = (&part.summary, part.began);
            let until = SystemTime::now();
            let state = in_child(|pipe| {
                let mut signals = Signals::block(false)?;
                let (data, _) = naming::encode(record, &mut finished, objects, summary, &mut signals);
                match (whom, push) {
                    (For::Server, Some(target)) => target.send(&data, began, until),
                    _ => std::io::Write::write_all(&mut &pipe, &data)
                        .context("failed to hand over the profile"),
                }
            })?;
            job.state = state;
            naming += 1;
        }
        Ok(())
    }

    /// Takes what children have made, and hands it on when they have ended.
    fn hear_children(&mut self) -> Result<()> {
        let mut over = Vec::new();
        for (at, job) in self.jobs.iter_mut().enumerate() {
            let State::Child { pipe, bytes, .. } = &mut job.state else { continue };
            let mut chunk = vec![0; 1 << 16];
            loop {
                match pipe.read(&mut chunk) {
                    Ok(0) => {
                        over.push(at);
                        break;
                    }
                    Ok(n) => bytes.extend(&chunk[..n]),
                    Err(_) => break,
                }
            }
        }
        for at in over.into_iter().rev() {
            let Job { whom, state: State::Child { pid, bytes, .. } } = self.jobs.remove(at) else { continue };
            let ended = waitpid(pid, None);
            let is_good = matches!(ended, Ok(nix::sys::wait::WaitStatus::Exited(_, 0)));
            match whom {
                For::Client(id) if is_good && !bytes.is_empty() => self.answer(id, 200, bytes)?,
                For::Client(id) => {
                    self.answer(id, 500, b"failed to record; see what the server prints\n".to_vec())?
                }
                For::Server => {}
            }
        }
        Ok(())
    }

    /// Ends what nobody has asked for in a while.
    fn rest(&mut self) {
        if self.statistics.as_ref().is_some_and(|(_, asked)| asked.elapsed() > STATISTICS) {
            self.statistics = None;
        }
        if self.jobs.is_empty() && self.active.as_ref().is_some_and(|active| active.used.elapsed() > IDLE) {
            self.own = self.counters();
            self.active = None;
        }
    }

    /// All counters so far.
    fn counters(&self) -> Own {
        let mut own = self.own;
        if let Some(Active { recorder, plan, .. }) = &self.active {
            if let Ok(mark) = Mark::now(plan, recorder) {
                let (taken, lost) = mark.taken_and_lost();
                own.samples += taken - lost;
                own.lost += lost;
            }
            own.sideband_lost += recorder.sideband.lost;
        }
        own
    }

    fn metrics(&mut self, open: bool) -> String {
        let now = Instant::now();
        match &mut self.statistics {
            Some((_, asked)) => *asked = now,
            None => self.statistics = Switch::unmeasured().ok().map(|switch| (switch, now)),
        }
        let statistics = Watch::totals();
        let own = Own {
            cpu_s: usage::own_cpu_s() + usage::children_cpu_s(),
            resident_bytes: usage::resident_bytes(),
            is_recording: self.active.is_some(),
            windows: self.jobs.len(),
            ..self.counters()
        };
        metrics::print(statistics.as_ref().ok(), &own, open)
    }
}

impl Active {
    fn begin(args: &RecordArgs) -> Result<Self> {
        let mut plan = Plan::new(args)?;
        let room = RoomForFiles::make(plan.online.len());
        plan.fit(room);
        let mut recorder = Recorder::listen(args, &mut plan, room)?;
        recorder.sampler.attach(clocks(args, &plan)?)?;
        let pace = Pace::new(&plan);
        Ok(Self { plan, recorder, pace, used: Instant::now() })
    }
}

/// Does something in a child, whose output comes through a pipe.
fn in_child(work: impl FnOnce(File) -> Result<()>) -> Result<State> {
    let (from_child, to_parent) = pipe2(OFlag::O_CLOEXEC).context("failed to create a pipe")?;
    // SAFETY: the process has one thread that runs.
    match unsafe { fork() }.context("failed to fork")? {
        ForkResult::Child => {
            drop(from_child);
            let worked = work(File::from(to_parent));
            if let Err(error) = &worked {
                say!("profiler: error: {error:#}");
            }
            // SAFETY: ends the child without dropping what belongs to the parent.
            unsafe { nix::libc::_exit(i32::from(worked.is_err())) };
        }
        ForkResult::Parent { child } => {
            let flags = nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
            nix::fcntl::fcntl(&from_child, flags).context("failed to set up a pipe")?;
            Ok(State::Child { pid: child, pipe: File::from(from_child), bytes: Vec::new() })
        }
    }
}
