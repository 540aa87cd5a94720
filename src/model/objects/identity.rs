//! Which file a mapping is of, and whether that file still is what it was.
//!
//! A path is no identity, nor is an inode number: a compiler's output is removed and the next one gets both,
//! and `cp` writes a new program into the old one's inode. What tells files apart is what the kernel keeps
//! of them: device and inode, the inode's generation, size, and the times of the last change of content
//! (mtime) and of anything at all (ctime, which nobody can set back). A descriptor that is kept holds the
//! inode, so that no other file can get its number; what remains is that its content changes, which it is
//! asked for whenever something is taken from it.
//!
//! Times of mappings are CLOCK_MONOTONIC, those of files CLOCK_REALTIME: they are compared by the
//! difference that the two have now.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, ECRYPTFS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, fstatfs};
use nix::time::{ClockId, clock_getres, clock_gettime};

use super::open::Missing;
use crate::model::event::{FileId, Mmap};

/// File systems that show other device numbers than the kernel has in its mappings.
const STACKED: [FsType; 3] = [OVERLAYFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, ECRYPTFS_SUPER_MAGIC];

/// What a file was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device number, as stat(2) tells it.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Tells files apart that had the inode one after the other; 0 where the file system has none.
    pub generation: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of content, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Last change of content, name or rights.
    pub changed_ns: i128,
}

impl Identity {
    /// What a file is now.
    ///
    /// # Errors
    /// If the file system does not tell.
    pub fn of(file: &File) -> Result<Self, Missing> {
        Ok(Self::with(&file.metadata()?, generation(file)))
    }

    /// The same of an inode that is known.
    fn with(meta: &Metadata, generation: u64) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            generation,
            size: meta.len(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// What a file is now of which a descriptor has been kept.
    ///
    /// # Errors
    /// If the file system does not tell.
    pub fn again(&self, file: &File) -> Result<Self, Missing> {
        Ok(Self::with(&file.metadata()?, self.generation))
    }

    /// Whether its content may be what it was: a file that was linked, unlinked or given other rights since,
    /// or one whose time was set back.
    pub fn may_be(&self, earlier: &Self) -> bool {
        Self { changed_ns: earlier.changed_ns, ..*self } == *earlier
    }

    /// Whether it has not been touched since a moment of CLOCK_MONOTONIC.
    pub fn is_older_than(&self, time_ns: u64) -> bool {
        let time_ns = realtime_ns(time_ns);
        self.modified_ns <= time_ns && self.changed_ns <= time_ns
    }

    /// Whether this file, found by the mapping's path, is what was mapped at `time_ns`.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_path(&self, file: &File, id: &FileId, time_ns: u64) -> Result<(), Missing> {
        let FileId::Inode { device, inode, generation } = *id else { return Err(Missing::Gone) };
        if self.device == device {
            if self.inode != inode || !self.may_have(generation) {
                return Err(Missing::Replaced);
            }
        } else if !fstatfs(file).is_ok_and(|fs| STACKED.contains(&fs.filesystem_type())) {
            return Err(Missing::Replaced);
        }
        // Content that was written just before the program ran may as well have been written just after.
        if self.is_older_than(time_ns.saturating_sub(tick_ns())) { Ok(()) } else { Err(Missing::Changed) }
    }

    /// Whether this file, of which a descriptor has been kept, is the kernel's file of an id. Stacked file systems
    /// have other numbers than the kernel, which tell nothing.
    pub fn is(&self, id: &FileId) -> bool {
        matches!(*id, FileId::Inode { device, inode, generation }
            if self.device == device && self.inode == inode && self.may_have(generation))
    }

    fn may_have(&self, generation: u64) -> bool {
        generation == 0 || self.generation == 0 || self.generation == generation
    }

    /// Whether this file, to which the kernel's link of a mapping led, is what was mapped. It is unless the
    /// process has executed another program meanwhile, which may be mapped where the first one was.
    ///
    /// # Errors
    /// If it is not.
    pub fn check_link(&self, file: &File, mmap: &Mmap) -> Result<(), Missing> {
        let FileId::Inode { device, inode, generation } = mmap.file else { return Err(Missing::Gone) };
        let same_inode = self.inode == inode && self.may_have(generation);
        // Stacked file systems have other numbers than the kernel.
        let same = same_inode || (self.device != device && has_path(file, &mmap.path));
        if same { Ok(()) } else { Err(Missing::Replaced) }
    }
}

fn has_path(file: &File, path: &str) -> bool {
    let strip = |path: &str| path.strip_suffix(" (deleted)").unwrap_or(path).to_owned();
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .is_ok_and(|link| strip(&link.to_string_lossy()) == strip(path))
}

/// The generation of a file's inode, as it is in records of mappings.
fn generation(file: &File) -> u64 {
    let mut generation: u32 = 0;
    // SAFETY: the kernel writes an int, although the request's number is made for a long.
    let result = unsafe {
        nix::libc::ioctl(file.as_raw_fd(), nix::libc::FS_IOC_GETVERSION, std::ptr::from_mut(&mut generation))
    };
    if result == 0 { generation.into() } else { 0 }
}

/// How late the clock of files can be: the length of a tick of the kernel's.
fn tick_ns() -> u64 {
    const LONGEST_NS: u64 = 10_000_000;
    clock_getres(ClockId::CLOCK_REALTIME_COARSE).map_or(LONGEST_NS, |tick| tick.tv_nsec() as u64)
}

/// A moment of CLOCK_MONOTONIC as nanoseconds since 1970.
pub(super) fn realtime_ns(time_ns: u64) -> i128 {
    let now = |clock| {
        clock_gettime(clock)
            .map_or(0, |now| i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
    };
    i128::from(time_ns) + now(ClockId::CLOCK_REALTIME) - now(ClockId::CLOCK_MONOTONIC)
}
