//! Signals as something to poll for.
//!
//! They are blocked from the start, so that none can end the program between two steps, and read
//! from a descriptor where the recording can act on them.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that arrive from now on.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    set: SigSet,
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

const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
const PASSED_ON: [Signal; 3] = [Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

impl Signals {
    /// Blocks the signals and opens the descriptor. Those that only a child could want are taken
    /// if `for_child`.
    pub fn block(for_child: bool) -> Result<Self> {
        let mut set: SigSet = ENDING.into_iter().collect();
        set.add(Signal::SIGCHLD);
        if for_child {
            set.extend(PASSED_ON);
        }
        set.thread_block().context("failed to block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).context("failed to open a signal descriptor")?;
        Ok(Self { fd, set, interrupts: 0 })
    }

    /// Lets signals act on us as usual, when there is nothing left to lose.
    pub fn release(self) {
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
            self.interrupts += u32::from(ENDING.contains(&signal));
            return Some(Received { signal, to_us_alone: info.ssi_code != nix::libc::SI_KERNEL });
        }
        None
    }
}
