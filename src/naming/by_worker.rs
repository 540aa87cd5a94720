//! Names from a worker: what is asked, what is answered, and both ends of it.
//!
//! The recorder reads answers as it would read a stranger's file: a worker may have become its master's.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Mutex;

use super::names::{Frame, Names};
use super::{files, jit};
use crate::worker::wire::{Reader, Writer};

/// Functions that are inlined into one another at one address: a hundred were seen.
const MOST_FRAMES: usize = 4096;
/// Reasons are a few words, of which there are some dozens.
const MOST_REASONS: usize = 64;
const LONGEST_REASON: usize = 80;

/// What is asked about a file, of a worker that may take so much memory for it.
pub fn ask_file(offsets: &[u64], inlined: bool, most_memory: u64) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.number(most_memory).number(inlined.into()).numbers(offsets);
    writer.finish()
}

/// What is asked about lists of compiled code: of each process how many perf maps it has, and whether a
/// jitdump follows.
pub fn ask_jit(lists: &[(usize, bool)], addrs: &[u64]) -> Vec<u8> {
    let mut writer = Writer::default();
    let numbers: Vec<u64> = lists.iter().flat_map(|&(maps, dump)| [maps as u64, dump.into()]).collect();
    writer.numbers(&numbers).numbers(addrs);
    writer.finish()
}

/// In the worker: names in a file.
pub fn file(asked: &[u8], file: &File, debug: impl FnMut(Option<&str>) -> Vec<File>) -> Option<Vec<u8>> {
    let mut reader = Reader(asked);
    limit_memory(reader.number()?);
    let inlined = reader.number()? != 0;
    let offsets = reader.numbers()?;
    Some(answer(&files::names(file, &offsets, inlined, debug)))
}

/// In the worker: names in lists of compiled code.
pub fn jit(asked: &[u8], mut files: impl Iterator<Item = File>) -> Option<Vec<u8>> {
    let mut reader = Reader(asked);
    let (counts, addrs) = (reader.numbers()?, reader.numbers()?);
    let lists = counts.chunks_exact(2).map(|list| {
        let maps = files.by_ref().take(usize::try_from(list[0]).unwrap_or(0)).collect();
        jit::Lists { maps, dump: if list[1] == 0 { None } else { files.next() } }
    });
    let lists: Vec<jit::Lists> = lists.collect();
    Some(answer(&jit::names(&lists, &addrs)))
}

/// From here on this process has so much address space beside what it began with.
fn limit_memory(bytes: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_AS) else { return };
    let most = crate::worker::own_bytes().saturating_add(bytes).min(hard);
    let _ = setrlimit(Resource::RLIMIT_AS, most, hard);
}

fn answer(names: &[Names]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.number(names.len() as u64);
    for names in names {
        match names {
            Ok(frames) => {
                writer.number(frames.len() as u64);
                for Frame { name, system_name, filename, line } in frames {
                    for text in [name, system_name, filename] {
                        writer.bytes(text.as_bytes());
                    }
                    writer.number(line.cast_unsigned());
                }
            }
            Err(why) => {
                writer.number(0).bytes(why.as_bytes());
            }
        }
    }
    writer.finish()
}

/// What a worker has answered about so many addresses; `None` if it makes no sense.
pub fn read_answer(bytes: &[u8], asked: usize) -> Option<Vec<Names>> {
    let mut reader = Reader(bytes);
    if reader.count(8)? != asked {
        return None;
    }
    let names: Option<Vec<Names>> = (0..asked).map(|_| read_names(&mut reader)).collect();
    names.filter(|_| reader.is_at_end())
}

fn read_names(reader: &mut Reader<'_>) -> Option<Names> {
    match reader.count(32)? {
        0 => reader.text().map(|why| Err(reason(&why))),
        frames if frames > MOST_FRAMES => None,
        frames => {
            let frame = |_| {
                let (name, system_name, filename) = (reader.text()?, reader.text()?, reader.text()?);
                Some(Frame { name, system_name, filename, line: reader.number()?.cast_signed() })
            };
            (0..frames).map(frame).collect::<Option<Vec<_>>>().map(Ok)
        }
    }
}

/// A reason that came as text. There are few, and so they are kept.
fn reason(text: &str) -> &'static str {
    static KNOWN: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = known.get(text) {
        return known;
    }
    if known.len() >= MOST_REASONS || text.len() > LONGEST_REASON || text.chars().any(char::is_control) {
        return "symbolizer failed";
    }
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    known.insert(text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_travel_and_nonsense_does_not() {
        let frame = Frame { filename: "a.c".to_owned(), line: 7, ..Frame::named("f") };
        let names = [Ok(vec![frame.clone(), Frame::named("g")]), Err("no symbol")];
        let sent = answer(&names);
        assert_eq!(read_answer(&sent, 2), Some(names.to_vec()));
        assert_eq!(read_answer(&sent, 1), None);
        assert!((0..sent.len()).all(|cut| read_answer(&sent[..cut], 2).is_none()));
        let steered = answer(&[Err("\u{1b}[2J")]);
        assert_eq!(read_answer(&steered, 1), Some(vec![Err("symbolizer failed")]));
    }
}
