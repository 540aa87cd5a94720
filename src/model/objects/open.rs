//! Opening files that other people's processes chose.
//!
//! We run as root, and paths are strangers' words: in a mount namespace of their own, anybody can make any
//! path lead to a device, a pipe, or a file of `/proc` whose reading never ends or has effects. So a path is
//! followed below its process's root and never through the kernel's own links. What it leads to is first
//! only located (`O_PATH`, which opens nothing), looked at, and opened for reading by that same descriptor,
//! so that nobody can put another file in its place in between. The kernel's links to mapped files
//! (`map_files`) lead to the file itself, but what was mapped may be a device as well: they go the same way.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{
    CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs,
};

/// Files here are the kernel's talk.
const NO_FILES: [FsType; 5] =
    [PROC_SUPER_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, DEBUGFS_MAGIC, CGROUP2_SUPER_MAGIC];

/// Why there is no file to name code by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Missing {
    /// Neither the process nor the path leads to it any more.
    Gone,
    /// Its path leads to another file.
    Replaced,
    /// It is not what it was when it was mapped.
    Changed,
    /// We may not open it.
    NotPermitted,
    /// We may not, and its file system did not answer its user in time.
    Slow,
    /// We have as many files open as we may.
    TooManyFiles,
    /// It is a device, a pipe, or the kernel's.
    NotRegular,
    /// It holds no ELF program or library.
    NotElf,
    /// It holds code for Windows or .NET, of which we read no names.
    NotForLinux,
    /// A page of the kernel's, which has no file.
    KernelPage,
    /// The kernel gave another reason, by its number.
    Other(i32),
}

impl Missing {
    /// A few words for people.
    pub fn why(self) -> &'static str {
        match self {
            Self::Gone => "file gone before it could be opened",
            Self::Replaced => "file replaced before it could be opened",
            Self::Changed => "binary changed since",
            Self::NotPermitted => "file may not be opened: permission denied",
            Self::Slow => "file may not be opened: its file system does not answer",
            Self::TooManyFiles => "file not opened: too many open files (RLIMIT_NOFILE)",
            Self::NotRegular => "not a regular file",
            Self::NotElf => "not an ELF file",
            Self::NotForLinux => "code for Windows or .NET",
            Self::KernelPage => "page of the kernel",
            Self::Other(errno) => Errno::from_raw(errno).desc(),
        }
    }
}

impl From<Errno> for Missing {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::ENOENT | Errno::ESRCH | Errno::ENOTDIR | Errno::ESTALE => Self::Gone,
            Errno::EACCES | Errno::EPERM => Self::NotPermitted,
            Errno::EMFILE | Errno::ENFILE => Self::TooManyFiles,
            Errno::ENXIO | Errno::ELOOP => Self::NotRegular,
            other => Self::Other(other as i32),
        }
    }
}

impl From<io::Error> for Missing {
    fn from(error: io::Error) -> Self {
        Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32)).into()
    }
}

/// A process's root directory: what its paths start from.
#[derive(Clone, Debug)]
pub struct Root(pub(super) Option<Rc<OwnedFd>>);

impl Root {
    /// Our own root, for processes of which nothing is known.
    pub const OURS: Self = Self(None);

    /// That of a process.
    ///
    /// # Errors
    /// If there is none, or it may not be looked at.
    pub fn of(tgid: u32) -> Result<Self, Missing> {
        Ok(Self(Some(Rc::new(directory(&format!("/proc/{tgid}/root"))?))))
    }

    /// Opens a regular file for reading by its path below this root.
    ///
    /// # Errors
    /// If the path leads to none, or to one that may not be opened.
    pub fn open(&self, path: &str) -> Result<File, Missing> {
        open_located(&self.locate(path, ResolveFlag::empty())?)
    }

    /// The same, if the file is one that is believed. `believes` is asked before it is opened, with its status and
    /// whether links led to it.
    ///
    /// # Errors
    /// If the path leads to none, or to one that may not be opened; inside, what `believes` says.
    pub fn open_believed<E>(
        &self,
        path: &str,
        believes: impl Fn(&FileStat, bool) -> Result<(), E>,
    ) -> Result<Result<File, E>, Missing> {
        let (place, by_link) = match self.locate(path, ResolveFlag::RESOLVE_NO_SYMLINKS) {
            Err(Missing::NotRegular) => (self.locate(path, ResolveFlag::empty())?, true),
            place => (place?, false),
        };
        match believes(&fstat(&place)?, by_link) {
            Ok(()) => open_located(&place).map(Ok),
            Err(why) => Ok(Err(why)),
        }
    }

    fn locate(&self, path: &str, resolve: ResolveFlag) -> Result<OwnedFd, Missing> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | resolve);
        let relative = path.trim_start_matches('/');
        Ok(match &self.0 {
            Some(root) => openat2(root, relative, how)?,
            None => openat2(directory("/")?, relative, how)?,
        })
    }
}

/// A descriptor of a directory that opens nothing.
pub(super) fn directory(path: &str) -> Result<OwnedFd, Missing> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Locates the file that a link of the kernel's leads to.
pub(super) fn locate(link: &str) -> Result<OwnedFd, Missing> {
    Ok(open(link, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Opens for reading what was located, if that is a regular file.
///
/// # Errors
/// If it is not, or may not be opened.
pub(super) fn open_located(place: &OwnedFd) -> Result<File, Missing> {
    let mode = SFlag::from_bits_truncate(fstat(place)?.st_mode);
    if mode & SFlag::S_IFMT != SFlag::S_IFREG || NO_FILES.contains(&fstatfs(place)?.filesystem_type()) {
        return Err(Missing::NotRegular);
    }
    // Without O_NONBLOCK it would wait for whoever holds a lease on the file.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    Ok(open(format!("/proc/self/fd/{}", place.as_raw_fd()).as_str(), flags, Mode::empty()).map(File::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_paths_lead_to_regular_files_only() {
        let dir = std::env::temp_dir().join(format!("profiler-open-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let root = Root(Some(Rc::new(directory(dir.to_str().unwrap()).unwrap())));
        std::fs::write(dir.join("file"), "x").unwrap();
        for (link, to) in
            [("out", "../../../../etc/passwd"), ("absolute", "/file"), ("magic", "/proc/self/exe")]
        {
            std::os::unix::fs::symlink(to, dir.join(link)).unwrap();
        }
        nix::unistd::mkfifo(&dir.join("fifo"), Mode::S_IRWXU).unwrap();
        assert!(root.open("/file").is_ok());
        // Links are the process's: they start from its root, and lead no way out of it.
        assert!(root.open("/absolute").is_ok());
        assert_eq!(root.open("/out").unwrap_err(), Missing::Gone);
        assert_eq!(root.open("/magic").unwrap_err(), Missing::Gone);
        assert_eq!(root.open("/fifo").unwrap_err(), Missing::NotRegular);
        assert_eq!(root.open("/..").unwrap_err(), Missing::NotRegular);
        for path in ["/proc/self/maps", "/proc/self/exe", "/dev/null", "/sys/kernel/notes"] {
            assert_eq!(Root::OURS.open(path).unwrap_err(), Missing::NotRegular, "{path}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
