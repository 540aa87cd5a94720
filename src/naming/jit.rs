//! Names of compiled code, from the lists of the process that it was compiled in and, for what that process
//! inherited, of those that it was forked from.

use std::time::Duration;

use super::names::{Frame, Names};
use super::{jitdump, perf_map};
use crate::model::objects::{Jit, Objects, Source};

/// What reading one list may take: 100 MB are a second.
const LONGEST_READ: Duration = Duration::from_secs(5);

/// Names of addresses, which must be ascending.
pub fn names(jit: &Jit, objects: &Objects, addrs: &[u64]) -> Vec<Names> {
    let mut names: Vec<Names> = vec![Err(why(jit)); addrs.len()];
    let mut next = Some(jit);
    while let Some(jit) = next {
        from_dump(jit, addrs, &mut names);
        for map in jit.maps.iter().flatten().rev() {
            let Ok(found) = perf_map::names(map, addrs, LONGEST_READ) else { continue };
            fill(&mut names, found.into_iter().map(|name| name.map(|name| Frame::named(&name))));
        }
        next = jit.parent.and_then(|parent| match &objects.get(parent).source {
            Source::Jit(Some(jit)) => Some(jit),
            _ => None,
        });
    }
    names
}

fn why(jit: &Jit) -> &'static str {
    match &jit.maps {
        _ if jit.dump.is_some() => "JIT code, not in its jitdump",
        Ok(_) => "not in perf map",
        Err(why) => why.why(),
    }
}

fn from_dump(jit: &Jit, addrs: &[u64], names: &mut [Names]) {
    let Some(Ok(found)) = jit.dump.as_ref().map(|dump| jitdump::functions(dump, addrs, LONGEST_READ)) else {
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
