//! Files that root may not open: those of FUSE file systems, which are their user's alone, and those on NFS
//! servers that take root for nobody.
//!
//! The file's user may. FUSE asks that all ids be the user's, and in a user namespace that the namespace be
//! (a thread of ours with such ids would be open to the user's signals), so that a process of its own takes
//! on the ids of the process that has mapped the file, opens what was located before, and copies it to
//! memory. The server behind such a file is a stranger's program, which may let us wait for ever: the
//! time that is spent on waiting is bounded in sum.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Uid, fork, pipe2, read, setgroups, setresgid, setresuid, write};

use super::open::Missing;
use crate::machine;

/// Waiting for all such files together.
pub const PATIENCE: Duration = Duration::from_millis(200);
/// Waiting for one of them.
const PATIENCE_EACH: Duration = Duration::from_millis(50);
const MOST_BYTES: i64 = 64 << 20;

/// Whose rights a process has.
struct User {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    /// The user namespace in which the ids are meant, if it is not ours.
    namespace: Option<File>,
}

/// A copy of the file that was located, read with the rights of a process.
///
/// # Errors
/// If the process is gone, may not read the file either, or the file system does not answer in time.
pub fn copy(tgid: u32, place: &OwnedFd, patience: &mut Duration) -> Result<File, Missing> {
    if patience.is_zero() {
        return Err(Missing::NotPermitted);
    }
    let user = User::of(tgid).ok_or(Missing::NotPermitted)?;
    // Everything that the child needs is made before the fork: we may have another thread.
    let path = CString::new(format!("/proc/self/fd/{}", place.as_raw_fd())).map_err(|_| Missing::Gone)?;
    let memory = memfd_create("copy", MFdFlags::MFD_CLOEXEC)?;
    let (ended, alive) = pipe2(OFlag::O_CLOEXEC)?;
    let began = Instant::now();
    // SAFETY: the child calls nothing but the kernel until it ends.
    let child = match unsafe { fork() }? {
        ForkResult::Child => {
            let status = user.read(&path, &memory).err().map_or(0, |errno| errno as i32);
            // SAFETY: ends the child without dropping what belongs to the parent.
            unsafe { nix::libc::_exit(status) };
        }
        ForkResult::Parent { child } => child,
    };
    drop(alive);
    let timeout = PollTimeout::try_from(PATIENCE_EACH.min(*patience)).unwrap_or(PollTimeout::ZERO);
    let in_time = poll(&mut [PollFd::new(ended.as_fd(), PollFlags::POLLIN)], timeout).is_ok_and(|n| n > 0);
    *patience = patience.saturating_sub(began.elapsed());
    if !in_time {
        // It may be beyond the reach of signals until the file system answers: nobody waits for it.
        let _ = kill(child, Signal::SIGKILL);
        return Err(Missing::Slow);
    }
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, 0)) => Ok(File::from(memory)),
        Ok(WaitStatus::Exited(_, errno)) => Err(Errno::from_raw(errno).into()),
        _ => Err(Missing::NotPermitted),
    }
}

impl User {
    fn of(tgid: u32) -> Option<Self> {
        let status = machine::read_text(format!("/proc/{tgid}/status")).ok()?;
        let ids = |name: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().filter_map(|id| id.parse().ok()).collect())
        };
        let namespace = File::open(format!("/proc/{tgid}/ns/user")).ok()?;
        let is_ours = std::fs::metadata("/proc/self/ns/user").ok()?.ino() == namespace.metadata().ok()?.ino();
        let inside = |map: &str, id: u32| if is_ours { Some(id) } else { inside(tgid, map, id) };
        // The second is the effective one.
        let (uid, gid) = (*ids("Uid:")?.get(1)?, *ids("Gid:")?.get(1)?);
        let groups = ids("Groups:")?.into_iter().filter_map(|id| inside("gid_map", id)).map(Gid::from_raw);
        Some(Self {
            uid: Uid::from_raw(inside("uid_map", uid)?),
            gid: Gid::from_raw(inside("gid_map", gid)?),
            groups: groups.collect(),
            namespace: (!is_ours).then_some(namespace),
        })
    }

    /// Takes on the user's rights for good, and copies.
    fn read(&self, path: &CStr, memory: &OwnedFd) -> nix::Result<()> {
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if let Some(namespace) = &self.namespace {
            setns(namespace, CloneFlags::CLONE_NEWUSER)?;
        }
        // A user namespace may forbid this; what is left then are groups that its owner has.
        let _ = setgroups(&self.groups);
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = open(path, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
            return Err(Errno::ENXIO);
        }
        if stat.st_size > MOST_BYTES {
            return Err(Errno::EFBIG);
        }
        let mut buffer = [0; 1 << 16];
        let mut left = MOST_BYTES;
        loop {
            let bytes = read(&file, &mut buffer)?;
            left -= bytes as i64;
            if bytes == 0 || left < 0 {
                return Ok(());
            }
            let mut rest = &buffer[..bytes];
            while !rest.is_empty() {
                rest = &rest[write(memory, rest)?..];
            }
        }
    }
}

/// An id as it is inside of a process's user namespace: lines are `INSIDE OUTSIDE COUNT`.
fn inside(tgid: u32, map: &str, id: u32) -> Option<u32> {
    let map = machine::read_text(format!("/proc/{tgid}/{map}")).ok()?;
    map.lines().find_map(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [inside, outside, count] = numbers[..] else { return None };
        let within = id.checked_sub(outside).filter(|&within| within < count)?;
        inside.checked_add(within)
    })
}
