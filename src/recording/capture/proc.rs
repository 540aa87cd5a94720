//! What ran before the recording: `/proc`, told as the events that would have led to it.
//!
//! The side-band is opened first, so that nothing falls between the two; what both tell is applied
//! twice, which changes nothing. Each process is stamped with the time at which its files were
//! read, so that the side-band's later word wins.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::libc::ESRCH;
use nix::time::{ClockId, clock_gettime};

use crate::machine;
use crate::machine::kallsyms::Kallsyms;
use crate::model::event::{Event, FileId, Ksymbol, Mmap, Timed};

/// CLOCK_MONOTONIC in nanoseconds.
pub fn now_ns() -> u64 {
    // The clock exists on every Linux; a failure would mean a broken libc.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Process ids that exist now.
pub fn processes() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process or thread exists.
pub fn exists(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}

/// The process a thread belongs to; `None` if there is no such thread.
///
/// # Errors
/// If it cannot be known.
pub fn tgid_of(tid: u32) -> Result<Option<u32>> {
    let path = format!("/proc/{tid}/status");
    let status = match machine::read_text(&path) {
        // The latter if it ends meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH) => {
            return Ok(None);
        }
        status => status.with_context(|| format!("failed to read {path}"))?,
    };
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    Ok(tgid.and_then(|tgid| tgid.trim().parse().ok()))
}

/// User and system time of a process and of the children it waited for, in nanoseconds.
pub fn cpu_time_ns(tgid: u32) -> Option<u64> {
    let stat = machine::read_text(format!("/proc/{tgid}/stat")).ok()?;
    // The name in parentheses may hold anything; fields are counted from behind it.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks * (1_000_000_000 / 100))
}

/// Appends what leads to the state that a process has now. A process that is gone adds nothing.
pub fn snapshot(tgid: u32, events: &mut Vec<Timed>) {
    let time_ns = now_ns();
    let mut push = |event| events.push(Timed { time_ns, event });
    for tid in threads(tgid) {
        if let Ok(comm) = machine::read_text(format!("/proc/{tgid}/task/{tid}/comm")) {
            let comm = comm.trim_end_matches('\n').to_owned();
            push(Event::Comm { tgid, tid, comm, exec: false });
        }
    }
    push(maps(tgid, tgid).event);
}

/// What executable memory a process has, as its thread `tid` sees it. Any other will do, but not one
/// that has exited, as the first one can long before the process does: that has none.
pub fn maps(tgid: u32, tid: u32) -> Timed {
    let time_ns = now_ns();
    let read = |tid: u32| {
        let lines = machine::read_text(format!("/proc/{tgid}/task/{tid}/maps")).unwrap_or_default();
        lines.lines().filter_map(|line| parse_maps_line(tgid, line)).collect::<Vec<_>>()
    };
    let mut mmaps = read(tid);
    if mmaps.is_empty() {
        mmaps = threads(tgid).map(read).find(|mmaps| !mmaps.is_empty()).unwrap_or_default();
    }
    Timed { time_ns, event: Event::Maps { tgid, mmaps } }
}

/// Its threads.
pub fn threads(tgid: u32) -> impl Iterator<Item = u32> {
    let threads = fs::read_dir(format!("/proc/{tgid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// `55d0-55d4 r-xp 00001000 08:01 1234   /path with spaces`, if it is executable.
fn parse_maps_line(tgid: u32, line: &str) -> Option<Mmap> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    if fields.next()?.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let file_offset = hex(fields.next()?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let path = fields.next().unwrap_or_default().trim_start().trim_end_matches(" (deleted)");
    let file = if inode == 0 {
        FileId::Anonymous
    } else {
        FileId::Inode { device: nix::sys::stat::makedev(hex(major)?, hex(minor)?), inode, generation: 0 }
    };
    let path = if path.is_empty() { "//anon" } else { path }.to_owned();
    Some(Mmap { tgid, range: hex(start)?..hex(end)?, file_offset, file, path })
}

/// Our own program's file, and where in it the code at an address of ours is.
pub fn own_code(address: u64) -> Option<(PathBuf, u64)> {
    let Event::Maps { mmaps, .. } = maps(std::process::id(), std::process::id()).event else { return None };
    let mmap = mmaps.into_iter().find(|mmap| mmap.range.contains(&address))?;
    Some((PathBuf::from("/proc/self/exe"), address - mmap.range.start + mmap.file_offset))
}

/// Of BPF code whose length we may not know, and that no symbol follows.
const LONGEST_UNKNOWN_PROGRAM: u64 = 1 << 20;

/// Appends the BPF programs and trampolines that are loaded now, from kallsyms, which has no sizes:
/// `code` has those of programs by address, as far as we may know them.
pub fn snapshot_bpf(code: &HashMap<u64, u32>, events: &mut Vec<Timed>) {
    let time_ns = now_ns();
    let Ok(symbols) = Kallsyms::read() else { return };
    let programs = symbols.iter().filter(|symbol| symbol.module == Some("[bpf]") && symbol.addr != 0);
    let mut programs: Vec<(u64, &str)> = programs.map(|symbol| (symbol.addr, symbol.name)).collect();
    programs.sort_unstable();
    for (at, &(start, name)) in programs.iter().enumerate() {
        let next = programs.get(at + 1).map(|&(next, _)| next);
        let range = start..end_of_program(start, next, code.get(&start).copied());
        let event = Event::Ksymbol(Ksymbol { range, name: name.to_owned(), registered: true });
        events.push(Timed { time_ns, event });
    }
}

/// Where BPF code ends: where it is known to, or where the next begins.
fn end_of_program(start: u64, next: Option<u64>, bytes: Option<u32>) -> u64 {
    let longest = bytes.map_or(LONGEST_UNKNOWN_PROGRAM, u64::from);
    start.saturating_add(longest).min(next.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_programs_end_with_their_code() {
        assert_eq!(end_of_program(0x1000, Some(0x9000), Some(0x40)), 0x1040);
        assert_eq!(end_of_program(0x1000, None, Some(0x40)), 0x1040);
        assert_eq!(end_of_program(0x1000, Some(0x1020), Some(0x40)), 0x1020);
        assert_eq!(end_of_program(0x1000, Some(0x9000), None), 0x9000);
        assert_eq!(end_of_program(0x1000, None, None), 0x10_1000);
    }

    #[test]
    fn maps_lines() {
        let line = "7f00-7f10 r-xp 00002000 fe:01 42                         /opt/a b (deleted)";
        let mmap = parse_maps_line(1, line).unwrap();
        assert_eq!((mmap.range, mmap.file_offset, mmap.path.as_str()), (0x7f00..0x7f10, 0x2000, "/opt/a b"));
        assert!(matches!(mmap.file, FileId::Inode { inode: 42, .. }));
        assert!(parse_maps_line(1, "7f00-7f10 r--p 00002000 fe:01 42  /x").is_none());
        assert!(parse_maps_line(1, "garbage").is_none());
        let jit = parse_maps_line(1, "7f00-7f10 rwxp 00000000 00:00 0 ").unwrap();
        assert_eq!((jit.file, jit.path.as_str()), (FileId::Anonymous, "//anon"));
    }
}
