//! Files that appear whole or not at all.
//!
//! Data goes to a file without a name or, where the file system has no such thing, to a hidden one beside the
//! target; it takes the target's name when all is written. Until then an older file stays as it is.
//!
//! We may be root in a directory where everybody writes. So the directory is opened once, and everything is
//! done in that very directory, whatever its path leads to later; links are not followed, and what is no file
//! (a FIFO, a device) must be ours or root's.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

use crate::machine::shortage;

/// A file on its way. If it is dropped before [`Pending::commit`], nothing remains of it.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// A file that gets its name at the end.
    File(Nameless),
    /// A device or pipe, which is no file to be replaced.
    Direct(File),
    Stdout,
}

/// A file in a directory without the name that it is to have.
#[derive(Debug)]
struct Nameless {
    file: File,
    directory: OwnedFd,
    /// What it is to be called.
    name: OsString,
    /// What it is called until then.
    hidden: OsString,
    /// Whether it is there by its hidden name.
    is_linked: bool,
}

/// Who may read a file that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
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

impl Pending {
    /// Opens the way to `path`; `-` is standard output. A directory that cannot be written is found now and
    /// not after a long recording.
    ///
    /// # Errors
    /// If `path` is a directory or a symbolic link, or no file can be made there. A link is refused because
    /// root would write where the link's owner wants.
    pub fn create(path: &Path) -> Result<Self> {
        Self::open(path, Readers::ByUmask)
    }

    /// The same for a file that is its owner's alone.
    ///
    /// # Errors
    /// Those of [`Self::create`].
    pub fn private(path: &Path) -> Result<Self> {
        Self::open(path, Readers::Owner)
    }

    fn open(path: &Path, readers: Readers) -> Result<Self> {
        let sink = Self::sink(path, readers)
            .map_err(|error| anyhow!("failed to create {}: {error:#}", path.display()))?;
        Ok(Self { path: path.to_owned(), sink })
    }

    fn sink(path: &Path, readers: Readers) -> Result<Sink> {
        if path.as_os_str() == "-" {
            return Ok(Sink::Stdout);
        }
        if let Ok(metadata) = fs::symlink_metadata(path) {
            let kind = metadata.file_type();
            ensure!(!kind.is_dir(), "it is a directory: name a file in it with -o");
            ensure!(
                !kind.is_symlink(),
                "it is a symbolic link, which is not followed: name the file itself with -o, or - \
                 for standard output"
            );
            ensure!(!kind.is_socket() && !kind.is_block_device(), "it is not a file: name one with -o");
            if !kind.is_file() {
                let flags = (OFlag::O_NOFOLLOW | OFlag::O_NOCTTY).bits();
                let direct = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
                let owner = direct.metadata()?.uid();
                ensure!(
                    [0, geteuid().as_raw()].contains(&owner) || Some(owner) == sudo_caller().map(|it| it.0),
                    "it is no file, and belongs to another user ({owner}): name a file with -o"
                );
                return Ok(Sink::Direct(direct));
            }
        }
        let Some(name) = path.file_name() else { bail!("it is a directory: name a file in it with -o") };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        Nameless::create(directory, name, readers).map(Sink::File).map_err(|errno| match errno {
            Errno::ENOENT => {
                anyhow!("there is no directory {}: make it, or name another with -o", directory.display())
            }
            _ => anyhow!(
                "{} in the directory {}: {}",
                io::Error::from(errno),
                directory.display(),
                shortage::remedy(errno).unwrap_or("make it writable, or name another with -o")
            ),
        })
    }

    /// What is written, for messages.
    pub fn name(&self) -> String {
        match self.sink {
            Sink::Stdout => "standard output".to_owned(),
            _ => self.path.display().to_string(),
        }
    }

    /// Appends `data`. A reader of standard output that has seen enough and left is no error.
    ///
    /// # Errors
    /// If it cannot be written, for example because the disk is full.
    pub fn write_all(&mut self, data: &[u8]) -> Result<()> {
        let written = match &mut self.sink {
            Sink::File(Nameless { file, .. }) | Sink::Direct(file) => file.write_all(data),
            Sink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(data).and_then(|()| stdout.flush())
            }
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| self.failure(&error)),
        }
    }

    /// Gives the file its name, and under sudo to the user who called sudo.
    ///
    /// # Errors
    /// If the data does not reach the disk or the name cannot be given. The older file remains.
    pub fn commit(mut self) -> Result<()> {
        let Sink::File(nameless) = &mut self.sink else { return Ok(()) };
        if let Some((uid, gid)) = sudo_caller() {
            // Some file systems know no owners. A file of root's is better than none.
            let _ = fchown(&nameless.file, Some(uid), Some(gid));
        }
        // Without this, a full disk or a lost server may show only after the rename.
        let named = nameless.file.sync_all().and_then(|()| Ok(nameless.name()?));
        named.map_err(|error| self.failure(&error))
    }

    fn failure(&self, error: &io::Error) -> anyhow::Error {
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space, or name a file on another disk with -o"
            }
            _ => "name another file with -o",
        };
        anyhow!("failed to write {}: {error}: {advice}", self.name())
    }
}

impl Nameless {
    fn create(directory: &Path, name: &OsStr, readers: Readers) -> nix::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(directory, flags, Mode::empty())?;
        let mut hidden = OsString::from(".");
        // Names have at most 255 bytes.
        hidden.push(if name.len() < 230 { name } else { "profiler".as_ref() });
        hidden.push(format!(".{}.tmp", std::process::id()));
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
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
    fn name(&mut self) -> nix::Result<()> {
        if !self.is_linked {
            let link = || {
                let file = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                linkat(AT_FDCWD, file.as_str(), &self.directory, &*self.hidden, AtFlags::AT_SYMLINK_FOLLOW)
            };
            link().or_else(|errno| match errno {
                Errno::EEXIST => {
                    unlinkat(&self.directory, &*self.hidden, UnlinkatFlags::NoRemoveDir)?;
                    link()
                }
                other => Err(other),
            })?;
            self.is_linked = true;
        }
        renameat(&self.directory, &*self.hidden, &self.directory, &*self.name)?;
        self.is_linked = false;
        Ok(())
    }
}

impl Drop for Nameless {
    fn drop(&mut self) {
        if self.is_linked {
            // An error here has nobody to hear it.
            let _ = unlinkat(&self.directory, &*self.hidden, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// User and group who called sudo. Only root can give files away; for others this fails unheard.
fn sudo_caller() -> Option<(u32, u32)> {
    let id = |name| std::env::var(name).ok()?.parse().ok();
    Some((id("SUDO_UID")?, id("SUDO_GID")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A directory of its own for a test, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("profiler-file-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_appears_with_commit_only() {
        let directory = Directory::new("commit");
        let path = directory.0.join("out");
        fs::write(&path, "old").unwrap();
        let mut pending = Pending::create(&path).unwrap();
        pending.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        // Nothing can be seen of it; where a file system has no files without names, a hidden one.
        assert!(directory.names().iter().all(|name| name == "out" || name.starts_with(".out.")));
        pending.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(directory.names(), ["out"]);

        let mut pending = Pending::create(&path).unwrap();
        pending.write_all(b"newest").unwrap();
        drop(pending);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(directory.names(), ["out"]);
    }

    #[test]
    fn links_and_directories_are_refused() {
        let directory = Directory::new("link");
        let (target, link) = (directory.0.join("target"), directory.0.join("link"));
        fs::write(&target, "old").unwrap();
        symlink(&target, &link).unwrap();
        let message = |path: &Path| Pending::create(path).unwrap_err().to_string();
        assert!(message(&link).contains("symbolic link"));
        assert!(message(&directory.0).contains("is a directory"));
        assert!(message(&directory.0.join("none/out")).contains("there is no directory"));
        assert!(message(Path::new("")).contains("is a directory"));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(directory.names(), ["link", "target"]);
    }

    #[test]
    fn what_a_killed_process_left_is_replaced() {
        let directory = Directory::new("stale");
        let path = directory.0.join("out");
        fs::write(directory.0.join(format!(".out.{}.tmp", std::process::id())), "stale").unwrap();
        let mut pending = Pending::create(&path).unwrap();
        pending.write_all(b"new").unwrap();
        pending.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(directory.names(), ["out"]);
    }

    #[test]
    fn a_recording_is_its_owners() {
        let directory = Directory::new("readers");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let path = directory.0.join("recording");
        // Whatever was there before.
        fs::write(&path, "old").unwrap();
        Pending::private(&path).unwrap().commit().unwrap();
        assert_eq!(mode(&path), 0o600);
        let picture = directory.0.join("picture");
        Pending::create(&picture).unwrap().commit().unwrap();
        assert_ne!(mode(&picture), 0o600);
    }

    #[test]
    fn another_directory_by_the_same_path_gets_nothing() {
        let directory = Directory::new("swapped");
        let (here, there) = (directory.0.join("here"), directory.0.join("there"));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        let mut pending = Pending::private(&here.join("out")).unwrap();
        fs::rename(&here, directory.0.join("moved")).unwrap();
        symlink(&there, &here).unwrap();
        pending.write_all(b"mine").unwrap();
        pending.commit().unwrap();
        assert_eq!(fs::read(directory.0.join("moved/out")).unwrap(), b"mine");
        assert_eq!(fs::read_dir(&there).unwrap().count(), 0);
    }

    #[test]
    fn a_strangers_fifo_is_not_written() {
        let directory = Directory::new("fifo");
        let fifo = directory.0.join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        if std::os::unix::fs::chown(&fifo, Some(65_534), None).is_err() {
            say!("SKIP: giving a file away needs root");
            return;
        }
        // Somebody reads it, so that opening it does not wait.
        let reader = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        let refused = Pending::private(&fifo).unwrap_err().to_string();
        assert!(refused.contains("belongs to another user (65534)"), "{refused}");
        drop(reader);
    }

    #[test]
    fn devices_are_written_and_stay_devices() {
        let mut pending = Pending::create(Path::new("/dev/null")).unwrap();
        pending.write_all(b"gone").unwrap();
        pending.commit().unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let mut full = Pending::create(Path::new("/dev/full")).unwrap();
        let message = full.write_all(b"x").unwrap_err().to_string();
        assert!(message.contains("/dev/full") && message.contains("free some space"), "{message}");
    }
}
