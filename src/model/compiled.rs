//! Code that a process's runtime has compiled, as far as the runtime was asked: which function is where, and since
//! when.
//!
//! The same addresses hold one function after another. What is known is what was there when somebody looked last; a
//! sample from before may be of what was there before that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use crate::model::scripts::{CodeKey, Missing, Runtime};

/// In the checksum of a key: it is an address in compiled code, and the rest the number of the code there.
const COMPILED: u64 = 1 << 63;
/// The rest is the number of the look before which nothing was known to be there.
const UNKNOWN: u64 = 1 << 62;

/// The compiled code of all processes.
#[derive(Debug, Default)]
pub struct Compiled {
    processes: HashMap<u32, Process>,
    /// Processes that have had samples.
    active: HashSet<u32>,
}

#[derive(Debug, Default)]
struct Process {
    heaps: Vec<Range<u64>>,
    by_start: BTreeMap<u64, Piece>,
    starts: HashMap<u64, u64>,
    looks: u64,
}

#[derive(Debug)]
struct Piece {
    end: u64,
    number: u64,
    name: Rc<str>,
    since_ns: u64,
    /// Whether there was something else before.
    is_second: bool,
}

/// A function that is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// Its number, of no other.
    pub number: u64,
    /// Its code.
    pub code: Range<u64>,
    /// Its name.
    pub name: Rc<str>,
}

/// The code at an address.
pub type Found = Result<(CodeKey, Option<Rc<str>>), Missing>;

impl Compiled {
    /// Forgets a process's code.
    pub fn forget(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
    }

    /// Takes the heaps in which a process has compiled code.
    pub fn heaps(&mut self, tgid: u32, heaps: Vec<Range<u64>>) {
        self.processes.entry(tgid).or_default().heaps = heaps;
    }

    /// Takes what a look at `time_ns` has found: functions that are gone, by their numbers, and new ones.
    pub fn update(&mut self, tgid: u32, time_ns: u64, gone: &[u64], new: Vec<New>) {
        let process = self.processes.entry(tgid).or_default();
        process.looks += 1;
        let mut freed: BTreeMap<u64, u64> = BTreeMap::new();
        for number in gone {
            if let Some(start) = process.starts.remove(number)
                && let Some(piece) = process.by_start.remove(&start)
            {
                freed.insert(start, piece.end);
            }
        }
        for New { number, code, name } in new {
            let before = freed.range(..code.end).next_back();
            let is_second = before.is_some_and(|(_, &end)| end > code.start);
            process.starts.insert(number, code.start);
            let piece = Piece { end: code.end, number, name, since_ns: time_ns, is_second };
            if let Some(old) = process.by_start.insert(code.start, piece) {
                process.starts.remove(&old.number);
            }
        }
    }

    /// What is at an address of a process at a time, if that is compiled code.
    pub fn find(&mut self, tgid: u32, addr: u64, time_ns: u64) -> Option<Found> {
        let process = self.processes.get(&tgid)?;
        self.active.insert(tgid);
        if !process.heaps.iter().any(|heap| heap.contains(&addr)) {
            return None;
        }
        let key = |checksum| CodeKey { tgid, runtime: Runtime::Java, code: addr, checksum };
        let piece = process.by_start.range(..=addr).next_back().map(|(_, piece)| piece);
        Some(match piece.filter(|piece| addr < piece.end) {
            Some(piece) if piece.is_second && time_ns < piece.since_ns => Err(Missing::Replaced),
            Some(piece) => Ok((key(COMPILED | piece.number), Some(Rc::clone(&piece.name)))),
            None => Ok((key(COMPILED | UNKNOWN | process.looks), None)),
        })
    }

    /// Processes that have had samples since the last call.
    pub fn take_active(&mut self) -> HashSet<u32> {
        std::mem::take(&mut self.active)
    }
}

/// Of a key, the number of the code at its address, 0 if that is not known; `None` if it is no such key.
pub fn number(key: &CodeKey) -> Option<u64> {
    let rest = key.checksum & !COMPILED;
    (key.checksum & COMPILED != 0).then_some(if rest & UNKNOWN == 0 { rest } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(number: u64, code: Range<u64>) -> New {
        New { number, code, name: format!("f{number}").into() }
    }

    #[test]
    fn an_address_has_the_name_that_it_had_then() {
        let mut compiled = Compiled::default();
        assert_eq!(compiled.find(1, 100, 0), None);
        compiled.heaps(1, std::iter::once(100..1000).collect());
        compiled.update(1, 10, &[], vec![new(7, 100..200), new(8, 300..400)]);
        let name = |compiled: &mut Compiled, addr, time_ns| match compiled.find(1, addr, time_ns) {
            Some(Ok((key, name))) => (number(&key), name.as_deref().unwrap_or("").to_owned()),
            Some(Err(missing)) => (None, missing.reason().to_owned()),
            None => (None, "none".to_owned()),
        };
        assert_eq!(name(&mut compiled, 150, 5), (Some(7), "f7".to_owned()));
        assert_eq!(name(&mut compiled, 200, 5), (Some(0), String::new()));
        assert_eq!(name(&mut compiled, 1000, 5), (None, "none".to_owned()));
        compiled.update(1, 20, &[7], vec![new(9, 150..180), new(10, 200..220)]);
        assert_eq!(name(&mut compiled, 160, 15), (None, "code was replaced".to_owned()));
        assert_eq!(name(&mut compiled, 160, 21), (Some(9), "f9".to_owned()));
        assert_eq!(name(&mut compiled, 210, 15), (Some(10), "f10".to_owned()));
        assert_eq!(name(&mut compiled, 110, 21), (Some(0), String::new()));
        assert_eq!(compiled.take_active(), HashSet::from([1]));
        compiled.forget(1);
        assert_eq!(compiled.find(1, 160, 21), None);
    }
}
