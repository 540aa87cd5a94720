//! Work that may crash, in a process of its own.
//!
//! Naming frames reads files that anybody on the machine may have written, as root, with libraries
//! that map them: a file that is truncated at the wrong moment is a SIGBUS, a crafted one may
//! exhaust stack or memory. A forked child has the whole recording without copying it. If it dies,
//! the recording does not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe2};

use crate::machine::signals::Signals;

/// What the child sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Steps that are done, and steps in all; the next one begins.
    Step(usize, usize),
    /// A result.
    Data(Vec<u8>),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It sent everything.
    Finished,
    /// It died before.
    Crashed,
    /// It was stopped by a signal to us.
    Stopped,
}

/// The child's end of the pipe.
pub struct Sender(File);

impl Sender {
    /// Reports that `done` steps of `total` are done.
    pub fn step(&mut self, done: usize, total: usize) {
        self.send(b'S', &[(done as u64).to_ne_bytes(), (total as u64).to_ne_bytes()].concat());
    }

    /// Hands over a result.
    pub fn data(&mut self, data: &[u8]) {
        self.send(b'D', data);
    }

    fn send(&mut self, tag: u8, payload: &[u8]) {
        // If nobody listens any more, the work is not wanted.
        let length = (payload.len() as u64).to_ne_bytes();
        let sent = self.0.write_all(&[tag]).and_then(|()| self.0.write_all(&length));
        if sent.and_then(|()| self.0.write_all(payload)).is_err() {
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { nix::libc::_exit(1) };
        }
    }
}

/// Runs `work` in a child, handing each message of it to `on_message`, until it ends or one more signal that
/// asks us to end arrives. Must be called while there is only one thread.
pub fn run(
    signals: &mut Signals,
    work: impl FnOnce(&mut Sender),
    mut on_message: impl FnMut(Message),
) -> Result<Ending> {
    let (from_child, to_parent) = pipe2(OFlag::O_CLOEXEC).context("failed to create a pipe")?;
    // SAFETY: the process has one thread, so the child may do everything its parent could.
    let child = match unsafe { fork() }.context("failed to fork the symbolizer")? {
        ForkResult::Child => {
            drop(from_child);
            let mut sender = Sender(File::from(to_parent));
            work(&mut sender);
            // SAFETY: ends the child without dropping what belongs to the parent (temporary
            // files, BPF links).
            unsafe { nix::libc::_exit(0) };
        }
        ForkResult::Parent { child } => child,
    };
    drop(to_parent);
    let mut pipe = File::from(from_child);
    let interrupts = signals.interrupts;
    let mut stopped = false;
    loop {
        let mut fds =
            [PollFd::new(pipe.as_fd(), PollFlags::POLLIN), PollFd::new(signals.fd(), PollFlags::POLLIN)];
        // A failed poll (EINTR) is a reason to look at both.
        let _ = poll(&mut fds, PollTimeout::from(200u16));
        let readable = fds[0].revents().is_some_and(|events| !events.is_empty());
        while signals.receive().is_some() {}
        if signals.interrupts > interrupts && !stopped {
            stopped = true;
            let _ = kill(child, Signal::SIGKILL);
        }
        if readable || stopped {
            match receive(&mut pipe) {
                Ok(message) => on_message(message),
                Err(_) => break,
            }
        }
    }
    let status = waitpid(child, None);
    Ok(match status {
        _ if stopped => Ending::Stopped,
        Ok(WaitStatus::Exited(_, 0)) => Ending::Finished,
        _ => Ending::Crashed,
    })
}

fn receive(pipe: &mut File) -> io::Result<Message> {
    let mut head = [0; 9];
    pipe.read_exact(&mut head)?;
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |&word| u64::from_ne_bytes(word));
    let length = number(&head[1..]);
    let mut payload = Vec::new();
    if pipe.take(length).read_to_end(&mut payload)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(match head[0] {
        b'S' => Message::Step(number(&payload) as usize, number(&payload[8..]) as usize),
        _ => Message::Data(payload),
    })
}
