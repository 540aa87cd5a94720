//! Names from a runtime's record of the code that it made: `jit-PID.dump`, which a process maps so that
//! the side-band tells of it (tools/perf/Documentation/jitdump-specification.txt in Linux). Unlike a perf
//! map it has source lines, and code that moves.
//!
//! ```text
//! header: magic, version, size, machine, …        in the byte order of the machine
//! record: kind, size, time ─▶ load: address, size, name | move: from, to, size | lines of the next load
//! ```
//!
//! As in a perf map, the last record that covers an address says what lay there last.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;
use std::time::{Duration, Instant};

const MAGIC: u32 = 0x4a69_5444;
const LOAD: u32 = 0;
const MOVE: u32 = 1;
const DEBUG_INFO: u32 = 2;
/// Of a file, a record, and of all lines together.
const MOST_BYTES: u64 = 4 << 30;
const MOST_IN_RECORD: u32 = 64 << 20;
const MOST_LINES: usize = 1 << 20;

/// A compiled function.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Where its code begins.
    start: u64,
    /// Lines by the address where they begin, ascending: file and line.
    lines: Vec<(u64, Rc<str>, u32)>,
}

impl Function {
    /// File and line at an address of it; empty and 0 if they are not known.
    pub fn line(&self, addr: u64) -> (&str, u32) {
        let at = self.lines.partition_point(|(start, _, _)| *start <= addr);
        at.checked_sub(1).map_or(("", 0), |at| (&self.lines[at].1, self.lines[at].2))
    }
}

/// For each address that was asked for its function, and the address as it was when that was loaded.
pub type Found = Vec<Option<(Rc<Function>, u64)>>;

/// Whether a file begins like a jitdump.
pub fn is_jitdump(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(|&magic| u32::from_ne_bytes(magic) == MAGIC)
}

/// The functions that addresses, which must be ascending, lie in, and each address as it was when its
/// function was loaded. What is read within `time` counts.
///
/// # Errors
/// If the file is no jitdump or cannot be read at all.
pub fn functions(dump: &File, addrs: &[u64], time: Duration) -> io::Result<Found> {
    debug_assert!(addrs.is_sorted());
    let started = Instant::now();
    let mut dump = dump;
    dump.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::with_capacity(1 << 17, dump.take(MOST_BYTES));
    let mut head = [0; 40];
    reader.read_exact(&mut head)?;
    if !is_jitdump(&head) {
        return Err(io::Error::other("not a jitdump"));
    }
    // A header may be longer than those of today.
    let header = u64::from(Fields(&head[8..]).u32().unwrap_or(0));
    io::copy(&mut reader.by_ref().take(header.saturating_sub(40)), &mut io::sink())?;
    let mut found: Found = vec![None; addrs.len()];
    let mut lines = Lines::default();
    let mut record = Vec::new();
    for number in 0_u64.. {
        // What a runtime has not written whole yet ends the file.
        let mut head = [0; 16];
        if reader.read_exact(&mut head).is_err() || (number.is_multiple_of(256) && started.elapsed() > time) {
            break;
        }
        let mut fields = Fields(&head);
        let (kind, size) = (fields.u32().unwrap_or(u32::MAX), fields.u32().unwrap_or(0));
        let Some(size) = size.checked_sub(16).filter(|&size| size <= MOST_IN_RECORD) else { break };
        record.clear();
        if reader.by_ref().take(size.into()).read_to_end(&mut record)? != size as usize {
            break;
        }
        // Records that make no sense are passed over: their size says where the next one is.
        let _ = match kind {
            LOAD => load(Fields(&record), addrs, &mut found, &mut lines),
            MOVE => moved(Fields(&record), addrs, &mut found),
            DEBUG_INFO => lines.read(Fields(&record)),
            _ => None,
        };
    }
    Ok(found)
}

fn covered(addrs: &[u64], start: u64, size: u64) -> std::ops::Range<usize> {
    let end = start.saturating_add(size);
    addrs.partition_point(|&addr| addr < start)..addrs.partition_point(|&addr| addr < end)
}

/// `u32 pid, tid; u64 vma, address, size, index; char name[]`, then the code.
fn load(mut fields: Fields<'_>, addrs: &[u64], found: &mut Found, lines: &mut Lines) -> Option<()> {
    let lines = std::mem::take(&mut lines.of_next);
    fields.skip(16)?;
    let (start, size, _) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let name = fields.text()?;
    let range = covered(addrs, start, size);
    if !range.is_empty() {
        let name = String::from_utf8_lossy(name).into_owned();
        let function = Rc::new(Function { name, start, lines });
        for at in range {
            found[at] = Some((Rc::clone(&function), addrs[at]));
        }
    }
    Some(())
}

/// `u32 pid, tid; u64 vma, from, to, size, index`. Only code that was asked for at its first place is known;
/// what was asked for at its last place only, a load has not been kept of.
fn moved(mut fields: Fields<'_>, addrs: &[u64], found: &mut Found) -> Option<()> {
    fields.skip(16)?;
    let (from, to, size) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let source = covered(addrs, from, size).find_map(|at| found[at].as_ref().map(|(it, _)| Rc::clone(it)))?;
    for at in covered(addrs, to, size) {
        let then = source.start.wrapping_add(addrs[at] - to);
        found[at] = Some((Rc::clone(&source), then));
    }
    Some(())
}

/// Lines, which come before the load that they belong to.
#[derive(Default)]
struct Lines {
    of_next: Vec<(u64, Rc<str>, u32)>,
    kept: usize,
}

impl Lines {
    /// `u64 address, entries; { u64 address; u32 line, discriminator; char file[] }…`, in which a file that is
    /// one byte 0xff is the one before.
    fn read(&mut self, mut fields: Fields<'_>) -> Option<()> {
        self.of_next.clear();
        fields.skip(8)?;
        let entries = fields.u64()?;
        let mut file: Rc<str> = "".into();
        for _ in 0..entries {
            let (addr, line, _) = (fields.u64()?, fields.u32()?, fields.u32()?);
            let text = fields.text()?;
            if text != [0xff] {
                file = String::from_utf8_lossy(text).into();
            }
            self.kept += 1;
            if self.kept > MOST_LINES {
                return None;
            }
            self.of_next.push((addr, Rc::clone(&file), line));
        }
        self.of_next.sort_by_key(|(addr, _, _)| *addr);
        Some(())
    }
}

/// The fields of a record, front to back.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    fn u32(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*word))
    }

    fn u64(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*word))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn record(kind: u32, words: &[u64], rest: &[u8]) -> Vec<u8> {
        let body: Vec<u8> =
            words.iter().flat_map(|word| word.to_ne_bytes()).chain(rest.iter().copied()).collect();
        let mut record = [kind.to_ne_bytes(), (16 + body.len() as u32).to_ne_bytes()].concat();
        record.extend([0; 8]);
        record.extend(body);
        record
    }

    fn file(records: &[Vec<u8>]) -> File {
        let fd = nix::sys::memfd::memfd_create("dump", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(&[MAGIC.to_ne_bytes(), 1_u32.to_ne_bytes(), 40_u32.to_ne_bytes()].concat()).unwrap();
        file.write_all(&[0; 28]).unwrap();
        records.iter().for_each(|record| file.write_all(record).unwrap());
        file
    }

    fn found(file: &File, addrs: &[u64]) -> Vec<String> {
        let functions = functions(file, addrs, Duration::from_secs(60)).unwrap();
        let text = |(function, addr): (Rc<Function>, u64)| {
            let (file, line) = function.line(addr);
            format!("{} {file}:{line}", function.name)
        };
        functions.into_iter().map(|it| it.map(text).unwrap_or_default()).collect()
    }

    #[test]
    fn loads_moves_and_lines() {
        let entry = |addr: u64, line: u32, file: &[u8]| {
            [&addr.to_ne_bytes()[..], &line.to_ne_bytes(), &[0; 4], file, &[0]].concat()
        };
        let lines = [entry(0x1000, 7, b"a.js"), entry(0x1008, 9, &[0xff])].concat();
        let file = file(&[
            record(LOAD, &[0, 0x1000, 0x1000, 0x40, 0], b"dead\0code"),
            record(DEBUG_INFO, &[0x1000, 2], &lines),
            record(LOAD, &[0, 0x1000, 0x1000, 0x10, 1], b"f\0code"),
            record(77, &[1, 2, 3], b""),
            record(MOVE, &[0, 0x5000, 0x1000, 0x5000, 0x10, 1], b""),
        ]);
        let names = found(&file, &[0x1004, 0x1008, 0x1010, 0x5009, 0x5010]);
        assert_eq!(names, ["f a.js:7", "f a.js:9", "dead :0", "f a.js:9", ""]);
    }

    #[test]
    fn what_makes_no_sense_costs_itself() {
        let mut cut = record(LOAD, &[0, 0, 0x2000, 0x10, 0], b"cut\0");
        cut.truncate(30);
        let endless = record(DEBUG_INFO, &[0, u64::MAX], &[0; 40]);
        let unnamed = record(LOAD, &[0, 0, 0x1000, 0x10, 0], b"no end");
        let good = record(LOAD, &[0, 0, 0x1000, u64::MAX, 0], b"good\0");
        let file = file(&[endless, unnamed, good, cut]);
        assert_eq!(found(&file, &[0xfff, 0x1000, u64::MAX - 1]), ["", "good :0", "good :0"]);
        assert!(functions(&File::open("/dev/null").unwrap(), &[], Duration::ZERO).is_err());
    }
}
