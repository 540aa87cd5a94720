//! What a worker does: it waits for a file, reads it, answers.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use nix::libc;

use super::channel::{Channel, Message};
use super::confine::confine;
use super::wire::Writer;
use super::{Kind, NAME, NOBODY, ask, probe};
use crate::hotspot::jvm::Jvm;
use crate::hotspot::wire::Question;
use crate::interpreters::{self, Interpreters};
use crate::naming;
use crate::recording::capture::bpf::flat::FlatTable;
use crate::unwind;

/// What is known of so many Java virtual machines is kept.
const MOST_JVMS: usize = 256;

/// If this process was started as a worker, it is one until the recorder ends.
pub fn serve_if_asked() {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|name| name.as_bytes() != NAME.as_bytes()) {
        return;
    }
    let kind = match args.next().as_deref().and_then(|kind| kind.to_str()) {
        Some("tables") => Kind::Tables,
        Some("names") => Kind::Names,
        Some("memory") => Kind::Memory,
        _ => return,
    };
    let parent = args.next().and_then(|pid| pid.to_str()?.parse().ok()).unwrap_or(0);
    let becomes_nobody = args.next().is_some_and(|user| user == NOBODY);
    // A panic costs one file, and nobody reads what it says.
    std::panic::set_hook(Box::new(|_| {}));
    let _ = nix::sys::prctl::set_name(c"profiler");
    let Ok(socket) = super::shared(&stdin()) else { std::process::exit(1) };
    close_all_but(&socket);
    OWN_BYTES.store(address_space(), Ordering::Relaxed);
    let fences = confine(kind, parent, becomes_nobody);
    let mut channel = Channel::new(socket, true);
    let mut ready = Writer::default();
    ready.number(fences.bits());
    let _ = channel.send(ask::READY, &ready.finish(), Vec::new());
    let mut jvms = HashMap::new();
    while channel.flush().is_ok()
        && let Ok(Some(message)) = channel.receive(true)
    {
        let answer = catch_unwind(AssertUnwindSafe(|| answer(kind, message, &mut channel, &mut jvms)));
        // An answer of no bytes: there is nothing to say.
        let answer = answer.ok().flatten().unwrap_or_default();
        let _ = channel.send(ask::ANSWER, &answer, Vec::new());
    }
    std::process::exit(0);
}

static OWN_BYTES: AtomicU64 = AtomicU64::new(0);

/// The address space that this worker began with.
pub fn own_bytes() -> u64 {
    OWN_BYTES.load(Ordering::Relaxed)
}

fn address_space() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(1 << 18) * 4096
}

/// The socket that the recorder has given.
fn stdin() -> File {
    // SAFETY: the recorder starts a worker with its socket there, and nothing else reads it.
    unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(0) }
}

/// Closes whatever was inherited, standard streams excepted.
fn close_all_but(socket: &OwnedFd) {
    let socket = socket.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, socket.saturating_sub(1)), (socket + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: this process has just begun and has opened nothing that it still uses, but the socket.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

fn answer(
    kind: Kind,
    message: Message,
    channel: &mut Channel,
    jvms: &mut HashMap<u64, Jvm>,
) -> Option<Vec<u8>> {
    let mut files = message.descriptors.into_iter().map(File::from);
    match (message.kind, kind) {
        (ask::TABLE, Kind::Tables) => {
            let began = Instant::now();
            let file = files.next()?;
            let mut interpreters = Interpreters::default();
            if message.payload == [1] {
                // A panic costs the interpreters, and not the table.
                let found = catch_unwind(AssertUnwindSafe(|| interpreters::find(&file)));
                interpreters = found.unwrap_or_default();
            }
            let table = unwind::build_with_loops(&file, &interpreters.loops).ok();
            let table = table.map(|table| FlatTable::of(&table).to_bytes()).unwrap_or_default();
            let mut answer = Writer::default();
            answer.number(began.elapsed().as_nanos() as u64).bytes(&interpreters.to_bytes()).bytes(&table);
            Some(answer.finish())
        }
        (ask::NAMES, Kind::Names) => {
            naming::by_worker::file(&message.payload, &files.next()?, channel_asks(channel))
        }
        (ask::JIT, Kind::Names) => naming::by_worker::jit(&message.payload, files),
        (ask::JVM, Kind::Memory) => {
            let question = Question::from_bytes(&message.payload)?;
            if jvms.len() > MOST_JVMS {
                jvms.clear();
            }
            // One that causes a panic begins anew.
            let mut jvm = jvms.remove(&question.jvm).unwrap_or_default();
            let answer = jvm.answer(&question, &files.next()?).to_bytes();
            jvms.insert(question.jvm, jvm);
            Some(answer)
        }
        (ask::PROBE, _) => probe::attempt(&message.payload),
        _ => None,
    }
}

/// Asks the recorder for files that may hold a file's debug information, by the name in the file.
fn channel_asks(channel: &mut Channel) -> impl FnMut(Option<&str>) -> Vec<File> {
    |link| {
        let asked = channel.send(ask::DEBUG_FILES, link.unwrap_or_default().as_bytes(), Vec::new());
        if asked.and_then(|()| channel.flush()).is_err() {
            return Vec::new();
        }
        let answer = channel.receive(true).ok().flatten();
        answer.into_iter().flat_map(|message| message.descriptors).map(File::from).collect()
    }
}
