//! What a process has mapped now, as `/proc/PID/maps` lists it.

use crate::model::event::{FileId, Mmap};

/// What a process has mapped of files, by address, executable or not. A process that is gone has nothing.
pub fn of_files(tgid: u32) -> Vec<Mmap> {
    let maps = std::fs::read(format!("/proc/{tgid}/maps")).unwrap_or_default();
    String::from_utf8_lossy(&maps).lines().filter_map(|line| part(tgid, line)).collect()
}

/// `55d0-55d4 r--p 00001000 08:01 1234   /path with spaces`
pub fn part(tgid: u32, line: &str) -> Option<Mmap> {
    let mut fields = line.splitn(6, ' ');
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = fields.next()?.split_once('-')?;
    let file_offset = hex(fields.nth(1)?)?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok().filter(|&inode| inode != 0)?;
    let path = fields.next()?.trim_start();
    let path = path.strip_suffix(" (deleted)").unwrap_or(path).to_owned();
    let device = nix::sys::stat::makedev(hex(major)?, hex(minor)?);
    let file = FileId::Inode { device, inode, generation: 0 };
    Some(Mmap { tgid, range: hex(start)?..hex(end)?, file_offset, file, path })
}
