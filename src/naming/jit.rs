//! Names of compiled code, from the lists of the process that it was compiled in and, for what that process
//! inherited, of those that it was forked from.

use std::fs::File;
use std::time::Duration;

use super::names::{Frame, Names};
use super::{jitdump, perf_map};
use crate::model::objects::{Jit, Objects, Source};

/// What reading one list may take: 100 MB are a second.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// Placeholder for the reason, which the recorder knows.
pub const NOT_LISTED: &str = "not listed";

/// The lists of a process.
#[derive(Debug)]
pub struct Lists {
    /// Perf maps, the newest last.
    pub maps: Vec<File>,
    /// A jitdump.
    pub dump: Option<File>,
}

/// The files of a process's lists and of those that it was forked from: of each process how many perf maps,
/// and whether a jitdump follows them.
pub fn lists<'a>(jit: &'a Jit, objects: &'a Objects) -> (Vec<(usize, bool)>, Vec<&'a File>) {
    let (mut lists, mut files) = (Vec::new(), Vec::new());
    let mut next = Some(jit);
    while let Some(jit) = next {
        let before = files.len();
        files.extend(jit.maps.iter().flatten());
        lists.push((files.len() - before, jit.dump.is_some()));
        files.extend(&jit.dump);
        next = jit.parent.and_then(|parent| match &objects.get(parent).source {
            Source::Jit(Some(jit)) => Some(jit),
            _ => None,
        });
    }
    (lists, files)
}

/// Why an address in compiled code has no name.
pub fn why(jit: &Jit) -> &'static str {
    match &jit.maps {
        _ if jit.dump.is_some() => "JIT code, not in its jitdump",
        Ok(_) => "not in perf map",
        Err(why) => why.why(),
    }
}

/// Names of addresses, which must be ascending.
pub fn names(lists: &[Lists], addrs: &[u64]) -> Vec<Names> {
    let mut names: Vec<Names> = vec![Err(NOT_LISTED); addrs.len()];
    for Lists { maps, dump } in lists {
        from_dump(dump.as_ref(), addrs, &mut names);
        for map in maps.iter().rev() {
            let Ok(found) = perf_map::names(map, addrs, LONGEST_READ) else { continue };
            fill(&mut names, found.into_iter().map(|name| name.map(|name| Frame::named(&name))));
        }
    }
    names
}

fn from_dump(dump: Option<&File>, addrs: &[u64], names: &mut [Names]) {
    let Some(Ok(found)) = dump.map(|dump| jitdump::functions(dump, addrs, LONGEST_READ)) else {
        return;
    };
    let frames = found.into_iter().map(|found| {
        let (function, addr) = found?;
        let (file, line) = function.line(addr);
        Some(Frame { filename: file.to_owned(), line: line.into(), ..Frame::named(&function.name) })
    });
    fill(names, frames);
}

fn fill(names: &mut [Names], found: impl Iterator<Item = Option<Frame>>) {
    for (names, found) in names.iter_mut().zip(found) {
        if let (Err(_), Some(frame)) = (&names, found) {
            *names = Ok(vec![frame]);
        }
    }
}
