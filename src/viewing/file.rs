//! Files that appear whole or not at all.
//!
//! Data goes to a file without a name or, where the file system has no such thing, to a hidden one beside the
//! target; it takes the target's name when all is written. Until then an older file stays as it is.
//!
//! We may be root in a directory where everybody writes. So the directory is opened once, and everything is
//! done in that very directory, whatever its path leads to later; links are not followed, and what is no file
//! (a FIFO, a device) must be ours or root's, and is opened only then.
//!
//! What can be known at the start is refused at the start. What happens later, when there is something to lose (the
//! directory is removed, a directory has the name), costs the name alone: the data is kept under another one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::geteuid;

use crate::machine::{self, rights, shortage, streams};

use nameless::{Nameless, Readers, give_to_caller, sudo_caller};

mod nameless;

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

    /// The same in a directory that is open. `path` is what leads to the file, for messages, and its last part the name.
    ///
    /// # Errors
    /// Those of [`Self::create`].
    pub fn private_in(directory: BorrowedFd<'_>, path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default();
        let sink = directory.try_clone_to_owned().map_err(anyhow::Error::from);
        let sink = sink.and_then(|directory| in_directory(directory, path, name, Readers::Owner));
        Self::made(path, sink)
    }

    /// Once more the way to the same file: for what is to be in it meanwhile.
    ///
    /// # Errors
    /// Those of [`Self::create`].
    pub fn again(&self) -> Result<Self> {
        let Sink::File(Nameless { directory, name, .. }) = &self.sink else {
            return Self::private(&self.path);
        };
        let sink = directory.try_clone().map_err(anyhow::Error::from);
        Self::made(
            &self.path,
            sink.and_then(|directory| in_directory(directory, &self.path, name, Readers::Owner)),
        )
    }

    fn open(path: &Path, readers: Readers) -> Result<Self> {
        Self::made(path, sink(path, readers))
    }

    fn made(path: &Path, sink: Result<Sink>) -> Result<Self> {
        let sink = sink.map_err(|error| anyhow!("failed to create {}: {error:#}", path.display()))?;
        Ok(Self { path: path.to_owned(), sink })
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
    /// If the data does not reach the disk or the name cannot be given. The older file remains then; data that cannot
    /// have its name is kept under another one, which the error tells.
    pub fn commit(mut self) -> Result<()> {
        let Sink::File(nameless) = &mut self.sink else { return Ok(()) };
        give_to_caller(&nameless.file);
        // Without this, a full disk or a lost server may show only after the rename.
        let synced = nameless.file.sync_all();
        synced.map_err(|error| self.failure(&error))?;
        let Sink::File(nameless) = &mut self.sink else { return Ok(()) };
        let Err(errno) = nameless.name() else { return Ok(()) };
        let kept = nameless.keep();
        let why = io::Error::from(errno);
        match kept {
            Ok(kept) => {
                let remedy = shortage::remedy(errno).map(|remedy| format!(" ({remedy})")).unwrap_or_default();
                let (name, kept) = (self.name(), kept.display());
                bail!("failed to write {name}: {why}{remedy}: what was written is in {kept}")
            }
            Err(_) => Err(self.failure(&why)),
        }
    }

    fn failure(&self, error: &io::Error) -> anyhow::Error {
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space, or name a file on another disk with -o"
            }
            io::ErrorKind::FileTooLarge => {
                shortage::remedy(Errno::EFBIG).unwrap_or("name another file with -o")
            }
            _ => "name another file with -o",
        };
        anyhow!("failed to write {}: {error}: {advice}", self.name())
    }
}

fn sink(path: &Path, readers: Readers) -> Result<Sink> {
    if path.as_os_str() == "-" {
        ensure!(!streams::stdout_was_closed(), "standard output is closed: name a file with -o");
        return Ok(Sink::Stdout);
    }
    // `Path` has no part for a slash at the end.
    let is_directory = [&b"/"[..], b"/."].iter().any(|end| path.as_os_str().as_bytes().ends_with(end));
    let Some(name) = path.file_name().filter(|_| !is_directory) else {
        bail!("it is a directory: name a file in it with -o")
    };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(parent(path), flags, Mode::empty()).map_err(|errno| refused(errno, path))?;
    in_directory(directory, path, name, readers)
}

fn in_directory(directory: OwnedFd, path: &Path, name: &OsStr, readers: Readers) -> Result<Sink> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match openat(&directory, name, flags, Mode::empty()) {
        Ok(place) => {
            if let Some(direct) = existing(&directory, &place)? {
                return Ok(Sink::Direct(direct));
            }
        }
        Err(Errno::ENAMETOOLONG) => {
            bail!("its name has {} bytes, which are too many: name another file with -o", name.len())
        }
        // What hinders a look hinders writing as well, or does not.
        Err(_) => {}
    }
    Nameless::create(directory, name, readers).map(Sink::File).map_err(|errno| refused(errno, path))
}

/// What is there by the name: nothing to be said against a file that can be replaced; what is no file is opened.
fn existing(directory: &OwnedFd, place: &OwnedFd) -> Result<Option<File>> {
    let status = fstat(place)?;
    let kind = SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT;
    ensure!(kind != SFlag::S_IFDIR, "it is a directory: name a file in it with -o");
    ensure!(
        kind != SFlag::S_IFLNK,
        "it is a symbolic link, which is not followed: name the file itself with -o, or - \
         for standard output"
    );
    ensure!(![SFlag::S_IFSOCK, SFlag::S_IFBLK].contains(&kind), "it is not a file: name one with -o");
    let (user, owner) = (geteuid().as_raw(), status.st_uid);
    if kind == SFlag::S_IFREG {
        let around = fstat(directory)?;
        let is_sticky = Mode::from_bits_truncate(around.st_mode).contains(Mode::S_ISVTX);
        ensure!(
            !is_sticky || [owner, around.st_uid].contains(&user) || rights::may_act_as_owner(),
            "it belongs to another user ({owner}), who alone can replace it in this directory: name another file with -o"
        );
        let (mounted, expected) = (mount_of(place), mount_of(directory));
        ensure!(
            mounted.is_none() || mounted == expected,
            "a file is mounted there, which cannot be replaced: name another file with -o"
        );
        return Ok(None);
    }
    ensure!(
        [0, user].contains(&owner) || Some(owner) == sudo_caller().map(|it| it.0),
        "it is no file, and belongs to another user ({owner}): name a file with -o"
    );
    // That very device or FIFO, which is not waited for.
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let direct = match open(format!("/proc/self/fd/{}", place.as_raw_fd()).as_str(), flags, Mode::empty()) {
        Err(Errno::ENXIO) if kind == SFlag::S_IFIFO => {
            bail!("nobody reads this FIFO: start its reader first, or name a file with -o")
        }
        direct => direct?,
    };
    let flags = OFlag::from_bits_retain(fcntl(&direct, FcntlArg::F_GETFL)?) - OFlag::O_NONBLOCK;
    fcntl(&direct, FcntlArg::F_SETFL(flags))?;
    Ok(Some(direct.into()))
}

/// Which mount a descriptor leads to, if the kernel tells.
fn mount_of(place: &OwnedFd) -> Option<u64> {
    let info = machine::read_text(format!("/proc/self/fdinfo/{}", place.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn refused(errno: Errno, path: &Path) -> anyhow::Error {
    let directory = parent(path).display();
    match errno {
        Errno::ENOENT => anyhow!("there is no directory {directory}: make it, or name another with -o"),
        _ => anyhow!(
            "{} in the directory {directory}: {}",
            io::Error::from(errno),
            shortage::remedy(errno).unwrap_or("make it writable, or name another with -o")
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, symlink};

    use super::*;

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
        // Nobody reads it: opening it would wait.
        let refused = Pending::private(&fifo).unwrap_err().to_string();
        assert!(refused.contains("belongs to another user (65534)"), "{refused}");
    }

    #[test]
    fn a_fifo_is_written_if_somebody_reads_it_and_not_waited_for() {
        let directory = Directory::new("own-fifo");
        let fifo = directory.0.join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let refused = Pending::private(&fifo).unwrap_err().to_string();
        assert!(refused.contains("nobody reads this FIFO"), "{refused}");
        let mut reader =
            OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&fifo).unwrap();
        let mut pending = Pending::private(&fifo).unwrap();
        let Sink::Direct(file) = &pending.sink else { panic!("{pending:?}") };
        let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK), "{flags:?}");
        pending.write_all(b"mine").unwrap();
        pending.commit().unwrap();
        let mut read = [0; 4];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        assert_eq!(&read, b"mine");
    }

    #[test]
    fn what_can_be_known_is_refused_at_the_start() {
        let directory = Directory::new("known");
        let message = |name: &str| Pending::private(&directory.0.join(name)).unwrap_err().to_string();
        for name in ["new/", "new/."] {
            assert!(message(name).contains("it is a directory"), "{}", message(name));
        }
        let (longest, longer) = ("a".repeat(255), "a".repeat(256));
        assert!(message(&longer).contains("its name has 256 bytes"), "{}", message(&longer));
        Pending::private(&directory.0.join(&longest)).unwrap().commit().unwrap();
        assert_eq!(directory.names(), [longest]);
    }

    /// What happens to the name or the directory meanwhile costs no data.
    #[test]
    fn data_is_kept_under_another_name() {
        let directory = Directory::new("kept");
        let written = |meanwhile: &dyn Fn(&Path)| {
            let here = directory.0.join("here");
            let _ = fs::remove_dir_all(&here);
            fs::create_dir(&here).unwrap();
            let path = here.join("out");
            let mut pending = Pending::private(&path).unwrap();
            pending.write_all(b"mine").unwrap();
            meanwhile(&path);
            let error = pending.commit().unwrap_err().to_string();
            let kept = PathBuf::from(error.split(": what was written is in ").nth(1).expect(&error));
            assert_eq!(fs::read(&kept).unwrap(), b"mine", "{error}");
            assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
            fs::remove_file(&kept).unwrap();
            kept
        };
        let name = format!("out.{}", std::process::id());
        let beside = written(&|path| fs::create_dir(path).unwrap());
        assert_eq!(beside, directory.0.join("here").join(&name));
        let elsewhere = written(&|path| fs::remove_dir_all(path.parent().unwrap()).unwrap());
        assert_eq!(elsewhere, std::env::temp_dir().join(&name));
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
