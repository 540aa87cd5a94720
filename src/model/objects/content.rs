//! A file's content, kept so that names can be taken from it when the recording has ended.
//!
//! A descriptor is enough for a file that is deleted, and for one whose process is gone. It is not for one
//! that is overwritten in place: `cp`, `scp` and `curl -o` write the next build into the same inode. So the
//! content of files that are likely to see that is copied when the first sample falls into them: small ones,
//! and larger ones that were written within a day. The copies are bounded in size and in sum; a file that is
//! not copied and changes is still noticed, and gives no names.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::identity::Identity;
use super::open::Missing;
use crate::elf::layout::Layout;

/// All copies together.
pub const COPIES_BYTES: u64 = 64 << 20;
/// A copy of so much takes less than the unwind table of the same file.
const SMALL_BYTES: u64 = 1 << 20;
const LARGE_BYTES: u64 = 16 << 20;
/// When a file is looked at last that nobody else can change.
const OURS: u64 = u64::MAX;
const DAY_NS: i128 = 86_400 * 1_000_000_000;

/// An ELF file as it was when it was first seen.
#[derive(Debug)]
pub struct Pinned {
    file: Rc<File>,
    /// What it holds, in memory of ours.
    copy: Option<File>,
    identity: Cell<Identity>,
    /// When it was last found to be the same, on CLOCK_MONOTONIC.
    looked_ns: Cell<u64>,
    /// Where it is loaded.
    pub layout: Layout,
}

impl Pinned {
    /// A file that was just opened.
    ///
    /// # Errors
    /// If it is not an ELF program or library.
    pub fn new(file: File, identity: Identity, now_ns: u64) -> Result<Self, Missing> {
        let layout = Layout::read(&file).map_err(|_| {
            let mut magic = [0; 2];
            let is_for_windows = file.read_exact_at(&mut magic, 0).is_ok() && &magic == b"MZ";
            if is_for_windows { Missing::NotForLinux } else { Missing::NotElf }
        })?;
        let (identity, looked_ns) = (Cell::new(identity), Cell::new(now_ns));
        Ok(Self { file: Rc::new(file), copy: None, identity, looked_ns, layout })
    }

    /// An image of memory, which is our own and changes no more.
    ///
    /// # Errors
    /// If there is no memory, or the image is no ELF program or library.
    pub fn image(name: &str, image: &[u8]) -> Result<Self, Missing> {
        in_memory(name, image).and_then(Self::copied)
    }

    /// A file of our own that nobody changes.
    ///
    /// # Errors
    /// If it is no ELF program or library.
    pub fn copied(file: File) -> Result<Self, Missing> {
        let identity = Identity::of(&file)?;
        Self::new(file, identity, OURS)
    }

    /// Owner and rights of the file itself, and not of a copy.
    ///
    /// # Errors
    /// If the file system does not tell.
    pub fn metadata(&self) -> std::io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    /// What it was when it was first seen.
    pub fn identity(&self) -> Identity {
        self.identity.get()
    }

    /// Whether it still was what it had been, at a moment of CLOCK_MONOTONIC that is not in the future.
    pub fn was_same_at(&self, time_ns: u64) -> bool {
        if self.looked_ns.get() >= time_ns {
            return true;
        }
        let now_ns = super::now_ns();
        let same = self.is_same();
        if same {
            self.looked_ns.set(now_ns);
        }
        same
    }

    fn is_same(&self) -> bool {
        let known = self.identity.get();
        let Ok(now) = known.again(&self.file) else { return false };
        if now == known {
            return true;
        }
        let same = now.may_be(&known)
            && Layout::read(&*self.file).is_ok_and(|layout| layout.digest == self.layout.digest);
        if same {
            self.identity.set(now);
        }
        same
    }

    /// The content as it was when it was first seen.
    ///
    /// # Errors
    /// If it has changed since, and there is no copy of it.
    pub fn file(&self) -> Result<&File, Missing> {
        match &self.copy {
            Some(copy) => Ok(copy),
            None if self.looked_ns.get() == OURS || self.is_same() => Ok(&self.file),
            None => Err(Missing::Changed),
        }
    }

    /// Copies the content if it is likely to be overwritten and not larger than `most_bytes`; returns how
    /// many bytes that took.
    pub fn copy(&mut self, most_bytes: u64) -> u64 {
        let Identity { size, modified_ns, .. } = self.identity.get();
        let is_recent = || super::identity::realtime_ns(super::now_ns()) - modified_ns < DAY_NS;
        let likely = size <= SMALL_BYTES || (size <= LARGE_BYTES && is_recent());
        if !likely || size > most_bytes || self.copy.is_some() || self.looked_ns.get() == OURS {
            return 0;
        }
        let Ok(copy) = copied(&self.file, size) else { return 0 };
        // It may have changed while it was read.
        if !self.is_same() {
            return 0;
        }
        self.copy = Some(copy);
        size
    }
}

/// The bytes of a file in memory of its own. What we hold of them meanwhile is small.
fn copied(file: &File, bytes: u64) -> Result<File, Missing> {
    let mut copy = in_memory("copy", &[])?;
    let mut chunk = vec![0; 1 << 16];
    let mut at = 0;
    while at < bytes {
        let part = &mut chunk[..(bytes - at).min(1 << 16) as usize];
        file.read_exact_at(part, at)?;
        copy.write_all(part)?;
        at += part.len() as u64;
    }
    Ok(copy)
}

fn in_memory(name: &str, content: &[u8]) -> Result<File, Missing> {
    let mut file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    Ok(file)
}
