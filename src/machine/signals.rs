//! Signals as something to poll for.
//!
//! They are blocked from the start, so that none can end the program between two steps, and read
//! from a descriptor where the recording can act on them. All that end a program by default are among them, but for
//! those that tell of a fault: whoever sends one wants an end, and not that the recording is lost. What whoever
//! started us has ignored (nohup) stays so.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that arrive from now on.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    set: SigSet,
    for_child: bool,
    /// How often we were asked to end.
    pub interrupts: u32,
}

/// A signal, and whether another process sent it to us: the terminal's go to the whole foreground
/// process group, so that a child has got them already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Sent to us alone.
    pub to_us_alone: bool,
}

const ENDING: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXCPU,
    Signal::SIGIO,
    Signal::SIGPWR,
];
/// They mean something to programs; without a command they mean the end as well.
const PASSED_ON: [Signal; 3] = [Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];
/// Taken even where they were ignored: a shell without job control ignores SIGINT for what it starts in the
/// background, and whoever sends that one there means us.
const ALWAYS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD];

impl Signals {
    /// Blocks the signals and opens the descriptor. Some are for a command, if there is one (`for_child`).
    pub fn block(for_child: bool) -> Result<Self> {
        let ignored = ignored();
        let is_wanted = |signal: &Signal| ALWAYS.contains(signal) || ignored >> (*signal as i32 - 1) & 1 == 0;
        let all = ENDING.into_iter().chain(PASSED_ON).chain([Signal::SIGCHLD]);
        let set: SigSet = all.filter(is_wanted).collect();
        set.thread_block().context("failed to block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).context("failed to open a signal descriptor")?;
        Ok(Self { fd, set, for_child, interrupts: 0 })
    }

    /// Lets signals act on us as usual, when there is nothing left to lose. What has come until now asked for an end
    /// that is here.
    pub fn release(mut self) {
        while self.receive().is_some() {}
        // If this fails they stay blocked, which they have been all along.
        let _ = self.set.thread_unblock();
    }

    /// Descriptor that is readable when there is a signal.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next signal, if there is one.
    pub fn receive(&mut self) -> Option<Received> {
        while let Ok(Some(info)) = self.fd.read_signal() {
            let Ok(signal) = Signal::try_from(info.ssi_signo as i32) else { continue };
            if signal == Signal::SIGCHLD {
                continue;
            }
            let ends = ENDING.contains(&signal) || (!self.for_child && PASSED_ON.contains(&signal));
            self.interrupts += u32::from(ends);
            return Some(Received { signal, to_us_alone: info.ssi_code != nix::libc::SI_KERNEL });
        }
        None
    }
}

/// The signals that this process ignores, as the kernel writes the set.
fn ignored() -> u64 {
    let status = super::read_text("/proc/self/status").unwrap_or_default();
    let set =
        status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    set.unwrap_or(0)
}

/// Has writing fail with an error where a file would grow beyond the limit (RLIMIT_FSIZE), in place of a signal that
/// ends us without a word.
pub fn be_told_of_full_files() {
    // SAFETY: ignores a signal, which runs no code of ours.
    unsafe { nix::libc::signal(nix::libc::SIGXFSZ, nix::libc::SIG_IGN) };
}
