//! The kernel's files about tracepoints (tracefs), which on many machines nobody has mounted. Then a mount of
//! our own is made that is in no directory, so that nobody else sees it, and that ends with this value.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::libc;
use nix::sys::stat::Mode;

/// The root of the file system.
#[derive(Debug)]
pub struct Tracefs(OwnedFd);

/// Numbers of include/uapi/linux/mount.h.
const FSOPEN_CLOEXEC: libc::c_long = 1;
const FSCONFIG_CMD_CREATE: libc::c_long = 6;
const FSMOUNT_CLOEXEC: libc::c_long = 1;

impl Tracefs {
    /// Opens it where it is mounted, or else makes a mount.
    ///
    /// # Errors
    /// If it is not mounted, and may not be (CAP_SYS_ADMIN), or the kernel has none.
    pub fn open() -> io::Result<Self> {
        for mounted in ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] {
            if Path::new(mounted).join("events").is_dir() {
                return File::open(mounted).map(|root| Self(root.into()));
            }
        }
        Self::mount()
    }

    fn mount() -> io::Result<Self> {
        let name: &CStr = c"tracefs";
        // SAFETY: the name is a string that lives through the call, which keeps nothing.
        let context = owned(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })?;
        let fd = context.as_raw_fd();
        let none = std::ptr::null::<libc::c_char>();
        // SAFETY: this command takes no key and no value.
        let created = unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0) };
        if created < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has no memory in its arguments.
        owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0) }).map(Self)
    }

    /// The text of a file below the root.
    ///
    /// # Errors
    /// If there is no such file, or it may not be read.
    pub fn read(&self, path: &str) -> io::Result<String> {
        let file = openat(self.0.as_fd(), path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text)?;
        Ok(text)
    }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the call that gave it has just opened it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
