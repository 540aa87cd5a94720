//! Names from a runtime's list of the functions that it compiled: `/tmp/perf-PID.map`, lines of
//! `START SIZE name`, hexadecimal (tools/perf/Documentation/jit-interface.txt in Linux).
//!
//! A runtime appends; it never takes a line back. Where lines overlap, the last one that covers an address
//! says what lay there last: a large stub may hold a small function, and code that was freed leaves the
//! room to new code of any size. So it is decided for each address, and not by the nearest start.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// More than any runtime writes in days.
const MOST_BYTES: u64 = 1 << 30;
/// Longer lines are cut: Java's signatures are long, names of megabytes are none.
const MOST_IN_LINE: u64 = 1 << 16;

/// The names of addresses, which must be ascending. What is read within `time` counts.
///
/// # Errors
/// If the file cannot be read at all.
pub fn names(map: &File, addrs: &[u64], time: Duration) -> std::io::Result<Vec<Option<Rc<str>>>> {
    debug_assert!(addrs.is_sorted());
    let started = Instant::now();
    // The descriptor's position may be anywhere if the map was read before.
    let mut map = map;
    map.seek(SeekFrom::Start(0))?;
    let mut names = vec![None; addrs.len()];
    let mut reader = BufReader::with_capacity(1 << 17, map.take(MOST_BYTES));
    let mut line = Vec::new();
    for number in 0_u64.. {
        line.clear();
        if reader.by_ref().take(MOST_IN_LINE).read_until(b'\n', &mut line)? == 0
            || (number.is_multiple_of(1024) && started.elapsed() > time)
        {
            break;
        }
        let Some((start, end, name)) = parse(&line) else { continue };
        let first = addrs.partition_point(|&addr| addr < start);
        let covered = &mut names[first..];
        let len = addrs[first..].partition_point(|&addr| addr < end);
        if len > 0 {
            let name: Rc<str> = String::from_utf8_lossy(name).into();
            covered[..len].fill(Some(name));
        }
    }
    Ok(names)
}

/// Start, end and name of a line's function.
fn parse(line: &[u8]) -> Option<(u64, u64, &[u8])> {
    let line = line.trim_ascii_end();
    let mut fields = line.splitn(3, |&byte| byte == b' ');
    let mut hex = || {
        let text = std::str::from_utf8(fields.next()?).ok()?;
        u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let (start, size) = (hex()?, hex()?);
    let name = fields.next().filter(|name| !name.is_empty())?;
    // Some write a size of 0 for code of unknown length: its first byte at least is its own.
    Some((start, start.saturating_add(size.max(1)), name))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names_in(text: &[u8], addrs: &[u64]) -> Vec<Option<String>> {
        let fd = nix::sys::memfd::memfd_create("map", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(text).unwrap();
        let names = names(&file, addrs, Duration::from_secs(60)).unwrap();
        names.into_iter().map(|name| name.map(|name| name.to_string())).collect()
    }

    #[test]
    fn lines() {
        let text = b"1000 10 old\ngarbage\n1000 20 JS:*f a.js:1:2\n0x2000 0x8 g\n3000 0 no size\n4000 8 \n";
        let names = names_in(text, &[0x0fff, 0x101f, 0x1020, 0x2007, 0x3000, 0x3001, 0x4000]);
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(names, [None, some("JS:*f a.js:1:2"), None, some("g"), some("no size"), None, None]);
    }

    #[test]
    fn the_last_line_that_covers_an_address_names_it() {
        let text = b"1000 1000 large\n1100 10 inside\n5000 40 dead\n4ff0 100 over it\n5000 8 newest\n";
        let names = names_in(text, &[0x10ff, 0x1108, 0x1110, 0x4ff0, 0x5007, 0x5008]);
        let names: Vec<&str> = names.iter().map(|name| name.as_deref().unwrap_or("")).collect();
        assert_eq!(names, ["large", "inside", "large", "over it", "newest", "over it"]);
    }

    #[test]
    fn hostile_lines_cost_themselves() {
        let mut text = vec![b'x'; 3 << 16];
        text.extend(b"\nffffffffffffffff ffffffffffffffff end\n \n1 zz n\n10 10 \xff\xfe\n");
        let names = names_in(&text, &[0x10, u64::MAX - 1]);
        assert_eq!(names, [Some("\u{fffd}\u{fffd}".to_owned()), None]);
    }
}
