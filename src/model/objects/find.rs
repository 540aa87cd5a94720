//! Finding the file of a mapping while it can still be reached.
//!
//! A mapping is told of as it was made, and the kernel's link to its file (`/proc/PID/map_files/START-END`) has the
//! range that it has now. Loaders make one mapping of a whole file and then put others over its end; mprotect
//! cuts pieces out and joins them again. So where the link of the range that was told of is gone, those of what
//! lies there now are tried. Each file that is found is checked against what the kernel told.

use std::fs::File;
use std::os::fd::OwnedFd;

use super::identity::Identity;
use super::open::{self, Missing, Root};
use crate::model::event::{FileId, Mmap};
use crate::model::maps;

/// Pieces of a mapping that are looked at.
const MOST_PIECES: usize = 16;

/// The mapped file and what it is, if it can still be reached.
pub fn file(time_ns: u64, mmap: &Mmap, root: &Root) -> Result<(File, Identity), Missing> {
    let path = || {
        let file = root.open(&mmap.path)?;
        let identity = Identity::of(&file)?;
        identity.check_path(&file, &mmap.file, time_ns)?;
        Ok((file, identity))
    };
    by_link(mmap).or_else(|first| {
        path()
            .map_err(|second| if matches!(first, Missing::Gone | Missing::Replaced) { second } else { first })
    })
}

fn by_link(mmap: &Mmap) -> Result<(File, Identity), Missing> {
    let checked = |place: OwnedFd| {
        let file = open::open_located(&place)?;
        let identity = Identity::of(&file)?;
        identity.check_link(&file, mmap)?;
        Ok((file, identity))
    };
    let mut why = match open::locate(&link_of(mmap)) {
        Err(Missing::Gone) => Missing::Gone,
        place => return checked(place?),
    };
    for piece in pieces(mmap) {
        match open::locate(&link_of(&piece)).and_then(checked) {
            Err(Missing::Gone | Missing::Replaced) => {}
            Err(other) => why = other,
            found => return found,
        }
    }
    Err(why)
}

/// Locates the mapped file by the kernel's link, without opening it.
pub fn place(mmap: &Mmap) -> Result<OwnedFd, Missing> {
    let inode = |file: &FileId| if let FileId::Inode { inode, .. } = *file { Some(inode) } else { None };
    open::locate(&link_of(mmap)).or_else(|why| {
        let mut pieces = pieces(mmap).filter(|piece| inode(&piece.file) == inode(&mmap.file));
        pieces.find_map(|piece| open::locate(&link_of(&piece)).ok()).ok_or(why)
    })
}

/// Opens a mapped file, whatever its path leads to, if it is a regular one.
///
/// # Errors
/// If nothing is mapped there any more, or it may not be opened.
pub fn open_mapped(mmap: &Mmap) -> Result<File, Missing> {
    open::open_located(&place(mmap)?)
}

/// What lies in a mapping's range now.
fn pieces(mmap: &Mmap) -> impl Iterator<Item = Mmap> {
    let overlaps = |now: &Mmap| now.range.start < mmap.range.end && mmap.range.start < now.range.end;
    maps::of_files(mmap.tgid).into_iter().filter(overlaps).take(MOST_PIECES)
}

/// The kernel's link to the file of a mapping.
fn link_of(mmap: &Mmap) -> String {
    // Unpadded hex, unlike /proc/PID/maps.
    format!("/proc/{}/map_files/{:x}-{:x}", mmap.tgid, mmap.range.start, mmap.range.end)
}
