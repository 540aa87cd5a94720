//! A command that is recorded from its first instruction to its end.
//!
//! The child is forked early and waits before exec, so that it can be put under the sampler's
//! filter while it has not run anything of its own. Two pipes: one holds it back, the other brings
//! back the error of a failed exec.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, execvp, fork, pipe2};

/// The command, forked and held back or running.
pub struct Child {
    pid: Pid,
    name: OsString,
    go: Option<File>,
    failure: File,
    status: Option<i32>,
}

impl Child {
    /// Forks the command and holds it back. Must be called while there is only one thread.
    pub fn fork(command: &[OsString]) -> Result<Self> {
        let name = command.first().context("no command")?.clone();
        let argv = command
            .iter()
            .map(|arg| {
                CString::new(arg.as_bytes()).with_context(|| format!("argument {arg:?} has a NUL byte"))
            })
            .collect::<Result<Vec<_>>>()?;
        let (held, go) = pipe2(OFlag::O_CLOEXEC).context("failed to create a pipe")?;
        let (failure, failed) = pipe2(OFlag::O_CLOEXEC).context("failed to create a pipe")?;
        // SAFETY: the process has one thread, so the child may do everything its parent could.
        match unsafe { fork() }.with_context(|| format!("failed to fork for {name:?}"))? {
            ForkResult::Child => {
                drop((go, failure));
                exec(&argv, held, failed)
            }
            ForkResult::Parent { child } => Ok(Self {
                pid: child,
                name,
                go: Some(File::from(go)),
                failure: File::from(failure),
                status: None,
            }),
        }
    }

    /// Process id.
    pub fn tgid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Lets the command run; fails if it cannot be executed.
    pub fn release(&mut self) -> Result<()> {
        if let Some(mut go) = self.go.take() {
            // The child may have been killed meanwhile: its end is seen by `poll`.
            let _ = go.write_all(&[1]);
        }
        let mut errno = [0; 4];
        match self.failure.read_exact(&mut errno) {
            // Closed by a successful exec.
            Err(_) => Ok(()),
            Ok(()) => {
                let error = Errno::from_raw(i32::from_ne_bytes(errno));
                let _ = waitpid(self.pid, None);
                self.status = Some(127);
                Err(anyhow!("failed to run {:?}: {}; nothing was recorded", self.name, error.desc()))
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // It may be gone; then there is nobody to tell.
            let _ = kill(self.pid, signal);
        }
    }

    /// Exit status if it has ended, as a shell reports it: 128 + N for signal N.
    pub fn poll(&mut self) -> Option<i32> {
        self.reap(Some(WaitPidFlag::WNOHANG))
    }

    /// Waits for its end, and says so if that takes a while.
    pub fn wait(&mut self) -> i32 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        if self.poll().is_none() {
            let (name, pid) = (self.name.to_string_lossy(), self.pid);
            say!("profiler: waiting for {name} (process {pid}) to end; Ctrl-C leaves it alone");
        }
        loop {
            if let Some(status) = self.reap(None) {
                return status;
            }
        }
    }

    fn reap(&mut self, flags: Option<WaitPidFlag>) -> Option<i32> {
        if self.status.is_none() {
            self.status = match waitpid(self.pid, flags) {
                Ok(WaitStatus::Exited(_, status)) => Some(status),
                Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
                // Somebody else reaped it.
                Err(Errno::ECHILD) => Some(0),
                _ => None,
            };
        }
        self.status
    }
}

impl Drop for Child {
    /// A recording that fails to start takes its command along; one that ran leaves it alone.
    fn drop(&mut self) {
        if self.go.take().is_some() {
            // Its end of the pipe closes without a byte: it exits by itself.
            let _ = waitpid(self.pid, None);
        }
    }
}

/// The child's side: waits for the word, then becomes the command.
fn exec(argv: &[CString], held: OwnedFd, failed: OwnedFd) -> ! {
    let mut word = [0];
    if File::from(held).read_exact(&mut word).is_err() {
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { nix::libc::_exit(127) };
    }
    // The recorder blocks signals and ignores SIGPIPE and SIGXFSZ; a command expects neither.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // What a service manager gave the recorder to record with (AmbientCapabilities=) would reach the command.
    // A kernel that does not know such capabilities gives none.
    // SAFETY: takes capabilities away, and touches no memory.
    unsafe { nix::libc::prctl(nix::libc::PR_CAP_AMBIENT, nix::libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    for signal in [nix::libc::SIGPIPE, nix::libc::SIGXFSZ] {
        // SAFETY: sets a default disposition, which runs no code of ours.
        unsafe { nix::libc::signal(signal, nix::libc::SIG_DFL) };
    }
    let Err(error) = execvp(&argv[0], argv);
    let _ = File::from(failed).write_all(&(error as i32).to_ne_bytes());
    // SAFETY: as above.
    unsafe { nix::libc::_exit(127) }
}
