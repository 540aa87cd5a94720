//! What a worker could do if somebody else were master of it: it tries, and tells. `profiler doctor` shows the
//! outcome, and tests hold it to nothing at all.

use std::ffi::CString;

use nix::errno::Errno;
use nix::libc;

use super::wire::{Reader, Writer};
use super::{Kind, Worker, ask};

/// What a worker must not be able to do.
pub const ATTEMPTS: [&str; 8] = [
    "opening /etc/shadow",
    "creating a file",
    "writing the recording",
    "executing a program",
    "opening a socket",
    "tracing the recorder",
    "ending the recorder",
    "loading a BPF program",
];

/// Of bpf(2).
const PROG_LOAD: libc::c_long = 5;

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// What was tried.
    pub what: &'static str,
    /// Whether it was refused.
    pub refused: bool,
}

/// Lets a worker try everything. `output` is a file that exists, and that the recorder could write.
///
/// # Errors
/// If there is no worker.
pub fn try_everything(kind: Kind, output: &str) -> anyhow::Result<(super::Fences, Vec<Attempt>)> {
    let mut worker = Worker::start(kind)?;
    let mut asked = Writer::default();
    asked.number(std::process::id().into()).bytes(output.as_bytes());
    worker.ask(ask::PROBE, &asked.finish(), Vec::new())?;
    let answer = loop {
        worker.wait(None, std::time::Duration::from_millis(100));
        if let Some(message) = worker.hear()? {
            break message;
        }
    };
    let mut reader = Reader(&answer.payload);
    let outcome = |what| Attempt { what, refused: reader.number() == Some(1) };
    Ok((worker.fences, ATTEMPTS.map(outcome).to_vec()))
}

/// In the worker: tries each of [`ATTEMPTS`].
pub(super) fn attempt(asked: &[u8]) -> Option<Vec<u8>> {
    let mut asked = Reader(asked);
    let parent = i32::try_from(asked.number()?).ok()?;
    let output = CString::new(asked.bytes()?).ok()?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    let arguments = [c"true".as_ptr(), std::ptr::null()];
    // SAFETY (of each): all pointers are to texts or lists that end as they should; what succeeds is the end of
    // the test, and not of anything that the worker needs.
    let attempts: [&dyn Fn() -> libc::c_long; 8] = [
        &|| unsafe { libc::open(c"/etc/shadow".as_ptr(), libc::O_RDONLY) }.into(),
        &|| unsafe { libc::open(c"/tmp/profiler-worker-was-here".as_ptr(), flags, 0o600) }.into(),
        &|| unsafe { libc::open(output.as_ptr(), libc::O_WRONLY) }.into(),
        &|| unsafe { libc::execv(c"/bin/true".as_ptr(), arguments.as_ptr()) }.into(),
        &|| unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) }.into(),
        &|| unsafe { libc::ptrace(libc::PTRACE_SEIZE, parent, 0, 0) },
        // A signal that does nothing to a process that may be ended.
        &|| unsafe { libc::kill(parent, 0) }.into(),
        &|| unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, std::ptr::null::<u8>(), 0) },
    ];
    let mut answer = Writer::default();
    for attempt in attempts {
        let refused = attempt() == -1 && [libc::EPERM, libc::EACCES].contains(&Errno::last_raw());
        answer.number(refused.into());
    }
    Some(answer.finish())
}
