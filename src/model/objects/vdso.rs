//! The pages of code that the kernel maps into every process.
//!
//! They have no file: the image is read from the process's memory. A 32-bit process has another one than a
//! 64-bit one, with other functions at the same offsets. The kernel has one image for each mode, so that
//! it is read once for each, and told apart by its length and by where it lies: a 32-bit process has nothing
//! above 4 GiB, and a 64-bit process has it near its stack.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{Missing, ObjectId, Objects, Pinned};
use crate::machine;
use crate::model::event::Mmap;

impl Objects {
    /// The image in a process's memory or, if that is gone, in ours.
    pub(super) fn of_vdso(&mut self, mmap: &Mmap) -> ObjectId {
        let is_low = mmap.range.end <= 1 << 32;
        let key = (mmap.range.end - mmap.range.start, is_low);
        let known = self.vdso.get(&key).copied();
        if let Some(known) = known.filter(|&known| !self.is_missing(known)) {
            return known;
        }
        let image = memory(mmap.tgid, &mmap.range).or_else(|why| {
            let ours = own().filter(|ours| !is_low && ours.end - ours.start == key.0).ok_or(why)?;
            memory(std::process::id(), &ours)
        });
        let pinned = image.and_then(|image| Pinned::image("vdso", &image));
        match (known, pinned) {
            (Some(known), Ok(pinned)) => {
                self.fill(known, pinned);
                known
            }
            (Some(known), Err(_)) => known,
            (None, pinned) => {
                let object = self.add_file("[vdso]", pinned);
                self.vdso.insert(key, object);
                object
            }
        }
    }
}

/// The memory of a process.
fn memory(tgid: u32, range: &Range<u64>) -> Result<Vec<u8>, Missing> {
    const MOST_BYTES: u64 = 1 << 20;
    let memory = File::open(format!("/proc/{tgid}/mem"))?;
    let mut bytes = vec![0; range.end.saturating_sub(range.start).min(MOST_BYTES) as usize];
    memory.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// Where ours is.
pub(super) fn own() -> Option<Range<u64>> {
    let maps = machine::read_text("/proc/self/maps").ok()?;
    let range = maps.lines().find(|line| line.ends_with("[vdso]"))?.split(' ').next()?;
    let (start, end) = range.split_once('-')?;
    Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}
