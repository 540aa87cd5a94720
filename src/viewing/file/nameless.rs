//! A file without its name, in a directory that is open: how it is made, named, and kept if it cannot be named.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, open, openat, renameat, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

/// A file in a directory without the name that it is to have.
#[derive(Debug)]
pub(super) struct Nameless {
    pub file: File,
    pub directory: OwnedFd,
    /// What it is to be called.
    pub name: OsString,
    /// What it is called until then.
    hidden: OsString,
    /// Whether it is there by its hidden name.
    is_linked: bool,
}

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Its owner: a recording holds command lines, paths and names of everybody's programs.
    Owner,
    /// Whoever the user lets read new files (umask).
    ByUmask,
}

impl Readers {
    fn mode(self) -> Mode {
        match self {
            Self::Owner => Mode::from_bits_truncate(0o600),
            Self::ByUmask => Mode::from_bits_truncate(0o666),
        }
    }
}

impl Nameless {
    pub fn create(directory: OwnedFd, name: &OsStr, readers: Readers) -> nix::Result<Self> {
        let hidden = named_after(".", name, &format!(".{}.tmp", std::process::id()));
        // To be read if it has to be copied to another disk.
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let mode = readers.mode();
        let (file, is_linked) = match openat(&directory, ".", flags | OFlag::O_TMPFILE, mode) {
            Ok(file) => (file, false),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT | Errno::EINVAL) => {
                let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL;
                let made = openat(&directory, &*hidden, flags, mode);
                // No other process has our id, so what is there was left behind by one that was killed.
                let made = made.or_else(|errno| match errno {
                    Errno::EEXIST => {
                        unlinkat(&directory, &*hidden, UnlinkatFlags::NoRemoveDir)?;
                        openat(&directory, &*hidden, flags, mode)
                    }
                    other => Err(other),
                });
                (made?, true)
            }
            Err(other) => return Err(other),
        };
        Ok(Self { file: file.into(), directory, name: name.to_owned(), hidden, is_linked })
    }

    /// Gives the file its name. A file that is there is replaced at once, which takes a name of ours first.
    pub fn name(&mut self) -> nix::Result<()> {
        if !self.is_linked {
            self.link(&self.hidden).or_else(|errno| match errno {
                Errno::EEXIST => {
                    unlinkat(&self.directory, &*self.hidden, UnlinkatFlags::NoRemoveDir)?;
                    self.link(&self.hidden)
                }
                other => Err(other),
            })?;
            self.is_linked = true;
        }
        renameat(&self.directory, &*self.hidden, &self.directory, &*self.name)?;
        self.is_linked = false;
        Ok(())
    }

    /// Gives a file without a name a name that is free.
    fn link(&self, name: &OsStr) -> nix::Result<()> {
        let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let linked = linkat(AT_FDCWD, file.as_str(), &self.directory, name, AtFlags::AT_SYMLINK_FOLLOW);
        // Without /proc it takes a right (CAP_DAC_READ_SEARCH), or a new kernel.
        linked.or_else(|errno| match errno {
            Errno::ENOENT => linkat(&self.file, "", &self.directory, name, AtFlags::AT_EMPTY_PATH),
            other => Err(other),
        })
    }

    /// Keeps what was written when the file cannot have its name: beside it, or with other temporary files. Returns
    /// where.
    pub fn keep(&mut self) -> io::Result<PathBuf> {
        let name = named_after("", &self.name, &format!(".{}", std::process::id()));
        if self.name_if_free(&name).is_ok() {
            let directory = fs::read_link(format!("/proc/self/fd/{}", self.directory.as_raw_fd()));
            return Ok(directory.unwrap_or_default().join(name));
        }
        let path = std::env::temp_dir();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(&path, flags, Mode::empty())?;
        let mut elsewhere = Self::create(directory, &name, Readers::Owner)?;
        self.file.seek(SeekFrom::Start(0))?;
        io::copy(&mut self.file, &mut elsewhere.file)?;
        give_to_caller(&elsewhere.file);
        elsewhere.file.sync_all()?;
        elsewhere.name_if_free(&name)?;
        Ok(path.join(name))
    }

    fn name_if_free(&mut self, name: &OsStr) -> nix::Result<()> {
        if !self.is_linked {
            return self.link(name);
        }
        let (directory, hidden) = (&self.directory, &*self.hidden);
        renameat2(directory, hidden, directory, name, RenameFlags::RENAME_NOREPLACE)?;
        self.is_linked = false;
        Ok(())
    }
}

/// A name for something beside a file. Names have at most 255 bytes.
fn named_after(before: &str, name: &OsStr, behind: &str) -> OsString {
    let mut made = OsString::from(before);
    made.push(if name.len() < 230 { name } else { "profiler".as_ref() });
    made.push(behind);
    made
}

impl Drop for Nameless {
    fn drop(&mut self) {
        if self.is_linked {
            // An error here has nobody to hear it.
            let _ = unlinkat(&self.directory, &*self.hidden, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Under sudo, gives a file to the user who called it.
pub(super) fn give_to_caller(file: &File) {
    if let Some((uid, gid)) = sudo_caller() {
        // Some file systems know no owners. A file of root's is better than none.
        let _ = fchown(file, Some(uid), Some(gid));
    }
}

/// User and group who called sudo. Only root can give files away; for others this fails unheard.
pub(super) fn sudo_caller() -> Option<(u32, u32)> {
    let id = |name| std::env::var(name).ok()?.parse().ok();
    Some((id("SUDO_UID")?, id("SUDO_GID")?))
}
