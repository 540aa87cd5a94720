//! A child process that names and writes while the recorder goes on. There is one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setpgid};

/// The place for such a child.
#[derive(Debug, Default)]
pub struct Writer(Option<Pid>);

impl Writer {
    /// Whether one writes.
    pub fn is_busy(&self) -> bool {
        self.0.is_some()
    }

    /// Has a child do this with the recorder's memory as it is now.
    ///
    /// # Errors
    /// If there can be no child.
    pub fn start(&mut self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        // SAFETY: this process has one thread.
        match unsafe { fork() }.context("failed to fork for naming")? {
            ForkResult::Parent { child } => self.0 = Some(child),
            ForkResult::Child => {
                // Ctrl-C is for the recorder; what has been recorded is written.
                let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
                // A panic must not lead back to where recording goes on.
                let written = catch_unwind(AssertUnwindSafe(write));
                if let Ok(Err(error)) = &written {
                    say!("profiler: error: {error:#}");
                }
                // SAFETY: ends the child without dropping what belongs to the parent.
                unsafe { nix::libc::_exit(i32::from(!matches!(written, Ok(Ok(()))))) };
            }
        }
        Ok(())
    }

    /// Looks, or waits if `flags` do not say otherwise, whether it has ended; and if it has, whether all is written.
    pub fn reap(&mut self, flags: Option<WaitPidFlag>) -> Option<bool> {
        let status = waitpid(self.0?, flags);
        if status == Ok(WaitStatus::StillAlive) {
            return None;
        }
        self.0 = None;
        Some(matches!(status, Ok(WaitStatus::Exited(_, 0))))
    }
}
