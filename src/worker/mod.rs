//! Strangers' bytes are read in processes that can do nothing else.
//!
//! Any program on the machine may be a file that was made to break whoever reads it, and the recorder runs as
//! root. So it reads no more of such a file than what is where in it (`elf::layout`); unwind tables and names
//! are made by *workers*, and one reads the memory of Java virtual machines. A worker is this program, started anew, so that nothing of the recording is in
//! its memory; before it is given a file it gives up all rights (`confine`).
//!
//! ```text
//! recorder ── file as a descriptor ──▶ worker
//!          ◀── rows or names as bytes, which the recorder checks ──
//! ```
//!
//! A file on which a worker dies or does not come to an end costs what it would have given, and a new worker
//! goes on with the next one. What has hung several times is waited for less and less.

mod channel;
mod confine;
mod probe;
mod serve;
pub mod wire;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::machine::rights;
use channel::Channel;
pub use channel::Message;
pub use confine::Fences;
pub use probe::{ATTEMPTS, Attempt, try_everything};
pub use serve::{own_bytes, serve_if_asked};
use wire::Reader;

/// How a worker is called, by which this program knows that it is one.
const NAME: &str = "profiler-worker";
/// The argument of a worker that becomes another user.
const NOBODY: &str = "nobody";
/// A worker that has not said that it is ready by then never will. Starting takes milliseconds.
const STARTING: Duration = Duration::from_secs(20);
/// A worker that is killed is gone in a millisecond, unless it cannot be killed.
const ENDING: Duration = Duration::from_secs(1);
/// How often a new one is started at most: workers that always die are of no use.
const MOST_STARTS: u32 = 100_000;
/// How many in a row may die as they start: once they are nobody, others of that user can end them.
const MOST_STILLBORN: u32 = 20;

/// What a worker is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unwind tables.
    Tables,
    /// Names.
    Names,
    /// What is in the memory of Java virtual machines.
    Memory,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Tables => "tables",
            Self::Names => "names",
            Self::Memory => "memory",
        }
    }
}

/// What is asked of a worker, and what it answers.
pub mod ask {
    /// The table of a file.
    pub const TABLE: u8 = b'T';
    /// Names in a file.
    pub const NAMES: u8 = b'N';
    /// Names in lists of compiled functions.
    pub const JIT: u8 = b'J';
    /// What a Java virtual machine has compiled: see [`crate::hotspot`].
    pub const JVM: u8 = b'V';
    /// What a worker can do: see `super::probe`.
    pub const PROBE: u8 = b'P';
    /// The worker asks: files that may hold a file's debug information.
    pub const DEBUG_FILES: u8 = b'D';
    /// It is ready.
    pub const READY: u8 = b'R';
    /// The answer to what was asked.
    pub const ANSWER: u8 = b'A';
}

/// A process that reads for us, or a place for one.
#[derive(Debug)]
pub struct Worker {
    kind: Kind,
    running: Option<Running>,
    starts: u32,
    /// Seconds of CPU time of those that have ended.
    cpu_s: f64,
    /// The largest memory of theirs.
    peak_bytes: u64,
    /// Which fences the last one had.
    pub fences: Fences,
}

#[derive(Debug)]
struct Running {
    // The first to be dropped: a worker ends by itself when its socket is closed, but for one that hangs.
    channel: Channel,
    child: Ending,
}

/// A process that is ended when it is not needed any more.
#[derive(Debug)]
struct Ending(Child);

impl Ending {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Who has changed its user may be out of our reach, and who waits for a dead file system is out of everybody's:
        // such a one is left alone, and ends with us (PR_SET_PDEATHSIG).
        let _ = self.0.kill();
        let began = Instant::now();
        let mut pause = Duration::from_micros(100);
        while matches!(self.0.try_wait(), Ok(None)) && began.elapsed() < ENDING {
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl Worker {
    /// Starts one.
    ///
    /// # Errors
    /// If this program cannot be started once more.
    pub fn start(kind: Kind) -> Result<Self> {
        let mut worker =
            Self { kind, running: None, starts: 0, cpu_s: 0.0, peak_bytes: 0, fences: Fences::default() };
        worker.restart()?;
        Ok(worker)
    }

    /// Starts another one in place of one that died or has to.
    ///
    /// # Errors
    /// If this program cannot be started once more.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let began = Instant::now();
        let mut stillborn = 1;
        while let Err(error) = self.start_once(began) {
            anyhow::ensure!(stillborn < MOST_STILLBORN && began.elapsed() < STARTING, error);
            stillborn += 1;
        }
        Ok(())
    }

    fn start_once(&mut self, began: Instant) -> Result<()> {
        // Their program is no profiler.
        anyhow::ensure!(!cfg!(test), "unit tests start no workers");
        anyhow::ensure!(self.starts < MOST_STARTS, "{} workers have died", self.starts);
        self.starts += 1;
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
        let (ours, theirs) = pair.context("failed to create a socket")?;
        // Who may not end other users' processes could not end a worker that hangs.
        let user = if rights::may_end_others() { NOBODY } else { "same user" };
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .args([self.kind.name(), &std::process::id().to_string(), user])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("failed to start a worker (/proc/self/exe)")?;
        let mut running = Running { channel: Channel::new(ours, false), child: Ending(child) };
        let ready = loop {
            if let Some(message) = running.channel.receive(false).context("a worker died as it started")? {
                break message;
            }
            anyhow::ensure!(began.elapsed() < STARTING, "a worker did not start");
            let mut fds = [PollFd::new(running.channel.fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(100u16));
        };
        self.fences = Fences::from_bits(Reader(&ready.payload).number().unwrap_or(0));
        self.running = Some(running);
        Ok(())
    }

    /// Ends it, if there is one.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            self.cpu_s += cpu_s(running.child.id());
            self.peak_bytes = self.peak_bytes.max(peak_bytes(running.child.id()));
        }
    }

    /// CPU time of it and of those before it, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.cpu_s + self.running.as_ref().map_or(0.0, |running| cpu_s(running.child.id()))
    }

    /// Largest memory so far, of it and of those before it, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.pid().map_or(0, peak_bytes).max(self.peak_bytes)
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// Asks for something.
    ///
    /// # Errors
    /// If it is dead.
    pub fn ask(&mut self, kind: u8, payload: &[u8], files: Vec<OwnedFd>) -> io::Result<()> {
        self.channel()?.send(kind, payload, files)
    }

    /// What it has said, if anything.
    ///
    /// # Errors
    /// If it is dead.
    pub fn hear(&mut self) -> io::Result<Option<Message>> {
        let channel = self.channel()?;
        channel.push(nix::sys::socket::MsgFlags::MSG_DONTWAIT)?;
        channel.receive(false)
    }

    /// To be polled for what it says.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.channel.fd())
    }

    /// Waits until it says something, or another descriptor is readable, or the time is over.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, time: Duration) {
        let Some(running) = &self.running else { return };
        let sends = if running.channel.wants_to_send() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(running.channel.fd(), PollFlags::POLLIN | sends)];
        fds.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
        let time = PollTimeout::try_from(time.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        // A failed poll (EINTR) is a reason to look.
        let _ = poll(&mut fds, time);
    }

    fn channel(&mut self) -> io::Result<&mut Channel> {
        self.running.as_mut().map(|running| &mut running.channel).ok_or(io::ErrorKind::BrokenPipe.into())
    }
}

/// CPU time of a living process, in seconds, as the scheduler counts it.
fn cpu_s(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).map_or(0.0, |ns: f64| ns / 1e9)
}

fn peak_bytes(pid: u32) -> u64 {
    crate::machine::usage::peak_bytes(&pid.to_string())
}

/// A second descriptor of a file, to be handed over.
///
/// # Errors
/// If there is no room for one.
pub fn shared(file: &File) -> io::Result<OwnedFd> {
    file.as_fd().try_clone_to_owned()
}

/// How long one file may take: reading it costs time by its size, and who has seen several that never came
/// to an end has less patience.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    first: Duration,
    hung: u32,
}

impl Patience {
    /// So long for the first one.
    pub fn new(first: Duration) -> Self {
        Self { first, hung: 0 }
    }

    /// For a file of so many bytes.
    pub fn of(self, bytes: u64) -> Duration {
        const BYTES_PER_S: u64 = 10 << 20;
        const LEAST: Duration = Duration::from_secs(2);
        (self.first + Duration::from_secs(bytes / BYTES_PER_S))
            .div_f64(f64::from(1u32 << self.hung))
            .max(LEAST)
    }

    /// One more has not come to an end.
    pub fn lose(&mut self) {
        self.hung = (self.hung + 1).min(8);
    }
}
