//! The process that strangers speak to: it holds connections and reads heads, and has no rights.
//!
//! One loop over all connections, none of which it ever waits for. Whoever sends slowly holds a place and no more;
//! when all places are taken, the one that has been sending its head for longest gives way to a new one. So
//! neither thousands of connections nor one byte a second keep others out, and memory has a bound.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use super::address::Listener;
use super::http::{self, MOST_HEAD_BYTES, Refused, Request};
use super::link::{self, Answer, Asked};
use crate::machine::rights;

/// Connections at once.
const MOST_CONNECTIONS: usize = 256;
/// How long a head may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long an answer may take to be read, from the last byte that was.
const BODY: Duration = Duration::from_secs(30);
const LONGEST_BODY: Duration = Duration::from_secs(600);

const TEXT: &str = "text/plain; charset=utf-8";
const INDEX: &str = "\
/debug/pprof/profile?seconds=30   samples of the CPU, as pprof: go tool pprof URL
/debug/pprof/offcpu?seconds=30    where threads wait
/metrics                          what BPF programs cost, for Prometheus
/healthz                          whether this works
";

/// What a connection does.
enum State {
    Head(Vec<u8>),
    /// For its answer.
    Waits(Request),
    Answer {
        bytes: Vec<u8>,
        sent: usize,
        began: Instant,
    },
}

struct Connection {
    id: u64,
    stream: File,
    state: State,
    deadline: Instant,
}

/// All connections.
struct Front<'a> {
    token: Option<&'a str>,
    link: UnixStream,
    connections: Vec<Connection>,
    next: u64,
}

/// Gives up what the process may do, for good.
///
/// # Errors
/// If the kernel refuses, so that nobody is served with more rights than it takes.
fn give_up_rights() -> Result<()> {
    const NOBODY: u32 = 65_534;
    nix::sys::prctl::set_no_new_privs().context("failed to give up new privileges")?;
    // Who is not root, or has few capabilities, cannot become another user, and stays who they are.
    let _ = setgroups(&[])
        .and_then(|()| setgid(Gid::from_raw(NOBODY)))
        .and_then(|()| setuid(Uid::from_raw(NOBODY)));
    rights::give_up_all().context("failed to give up capabilities")
}

/// Serves until the other process is gone.
///
/// # Errors
/// If rights cannot be given up, or the loop cannot go on.
pub fn run(listener: &Listener, token: Option<&str>, link: UnixStream) -> Result<()> {
    give_up_rights()?;
    link.set_nonblocking(false).context("failed to set up the link")?;
    let mut front = Front { token, link, connections: Vec::new(), next: 1 };
    let mut answers = Vec::new();
    loop {
        let now = Instant::now();
        front.expire(now);
        let mut fds = vec![
            PollFd::new(front.link.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.fd(), PollFlags::POLLIN),
        ];
        fds.extend(front.connections.iter().map(|connection| {
            let wanted = match connection.state {
                State::Head(_) | State::Waits(_) => PollFlags::POLLIN,
                State::Answer { .. } => PollFlags::POLLOUT,
            };
            PollFd::new(connection.stream.as_fd(), wanted)
        }));
        let next = front.connections.iter().map(|connection| connection.deadline).min();
        let timeout = next.map_or(1000, |next| next.saturating_duration_since(now).as_millis().min(1000) + 1);
        let _ = poll(&mut fds, PollTimeout::try_from(timeout as i32).unwrap_or(PollTimeout::MAX));
        let ready: Vec<bool> =
            fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
        drop(fds);
        // From the last on, so that the places of those before stay.
        for at in (0..front.connections.len()).rev() {
            if ready[at + 2] && !front.go_on(at) {
                front.close(at);
            }
        }
        if ready[0] && !front.read_answers(&mut answers)? {
            return Ok(());
        }
        if ready[1] {
            front.accept(listener);
        }
    }
}

impl Front<'_> {
    fn accept(&mut self, listener: &Listener) {
        // A few at a time: who is here already shall not wait for all who come.
        for _ in 0..64 {
            let Some(stream) = listener.accept() else { return };
            if self.connections.len() >= MOST_CONNECTIONS {
                let heads = self.connections.iter().enumerate();
                let mut heads = heads.filter(|(_, it)| matches!(it.state, State::Head(_)));
                match heads.next().map(|(at, _)| at) {
                    Some(oldest) => self.close(oldest),
                    None => {
                        refuse(stream);
                        continue;
                    }
                }
            }
            self.connections.push(Connection {
                id: self.next,
                stream: File::from(stream),
                state: State::Head(Vec::new()),
                deadline: Instant::now() + HEAD,
            });
            self.next += 1;
        }
    }

    fn close(&mut self, at: usize) {
        // In order: the first is the oldest.
        let gone = self.connections.remove(at);
        if let State::Waits(_) = gone.state {
            // The other process may be gone as well.
            let _ = link::ask(&mut self.link, Asked::Nothing(gone.id));
        }
    }

    /// Closes connections that have taken too long.
    fn expire(&mut self, now: Instant) {
        for at in (0..self.connections.len()).rev() {
            if self.connections[at].deadline > now {
                continue;
            }
            if let State::Head(_) = self.connections[at].state {
                self.respond(at, 408, TEXT, b"the request took too long\n");
            } else {
                self.close(at);
            }
        }
    }

    /// Does what a connection is ready for; false if it is over.
    fn go_on(&mut self, at: usize) -> bool {
        let connection = &mut self.connections[at];
        match &mut connection.state {
            // It says no more that matters, but it may go.
            State::Waits(_) => match connection.stream.read(&mut [0; 1024]) {
                Ok(n) => n > 0,
                Err(error) => is_for_later(&error),
            },
            State::Head(head) => {
                let mut bytes = [0; 1024];
                match connection.stream.read(&mut bytes) {
                    Ok(0) => return false,
                    Ok(n) => {
                        head.extend(&bytes[..n.min(MOST_HEAD_BYTES + 1 - head.len().min(MOST_HEAD_BYTES))])
                    }
                    Err(error) => return is_for_later(&error),
                }
                if let Some(asked) = http::parse(head, self.token) {
                    self.route(at, asked);
                }
                true
            }
            State::Answer { .. } => self.send(at),
        }
    }

    fn route(&mut self, at: usize, asked: Result<Request, Refused>) {
        match asked {
            Err(Refused(status, why)) => self.respond(at, status, TEXT, format!("{why}\n").as_bytes()),
            Ok(Request::Health) => self.respond(at, 200, TEXT, b"ok\n"),
            Ok(Request::Index) => self.respond(at, 200, TEXT, INDEX.as_bytes()),
            Ok(request) => {
                let connection = &mut self.connections[at];
                connection.state = State::Waits(request);
                connection.deadline = Instant::now() + LONGEST_BODY;
                let id = connection.id;
                if link::ask(&mut self.link, Asked::For(id, request)).is_err() {
                    self.respond(at, 500, TEXT, b"the recorder is gone\n");
                }
            }
        }
    }

    /// Begins to answer; what can be sent at once is.
    fn respond(&mut self, at: usize, status: u16, kind: &str, body: &[u8]) {
        let bytes = [http::head(status, kind, body.len()).as_bytes(), body].concat();
        let connection = &mut self.connections[at];
        let began = Instant::now();
        connection.state = State::Answer { bytes, sent: 0, began };
        connection.deadline = began + BODY;
    }

    fn send(&mut self, at: usize) -> bool {
        let connection = &mut self.connections[at];
        let State::Answer { bytes, sent, began } = &mut connection.state else { return true };
        match connection.stream.write(&bytes[*sent..]) {
            Ok(n) => {
                *sent += n;
                connection.deadline = (Instant::now() + BODY).min(*began + LONGEST_BODY);
                *sent < bytes.len()
            }
            Err(error) => is_for_later(&error),
        }
    }

    /// Hands on what the recorder says; false if it is gone.
    fn read_answers(&mut self, answers: &mut Vec<u8>) -> Result<bool> {
        let mut bytes = vec![0; 1 << 16];
        match self.link.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(n) => answers.extend(&bytes[..n]),
            Err(error) if is_for_later(&error) => {}
            Err(error) => return Err(error).context("failed to hear of the recorder"),
        }
        while let Some(Answer { id, status, body }) = link::take_answer(answers) {
            let Some(at) = self.connections.iter().position(|connection| connection.id == id) else {
                continue;
            };
            let kind = match self.connections[at].state {
                State::Waits(Request::Metrics { open: true }) if status == 200 => {
                    "application/openmetrics-text; version=1.0.0; charset=utf-8"
                }
                State::Waits(Request::Metrics { open: false }) if status == 200 => {
                    "text/plain; version=0.0.4; charset=utf-8"
                }
                State::Waits(_) if status == 200 => "application/octet-stream",
                _ => TEXT,
            };
            self.respond(at, status, kind, &body);
        }
        Ok(true)
    }
}

fn is_for_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// There is no place, not even one that could be taken from somebody.
fn refuse(stream: OwnedFd) {
    let body = "too many recordings at once\n";
    let _ = File::from(stream).write((http::head(503, TEXT, body.len()) + body).as_bytes());
}
