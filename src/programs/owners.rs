//! Who keeps programs: processes by their descriptors, and files of the BPF file system.
//!
//! A process keeps a program by a descriptor of it, of a link that attaches it, or of a perf event
//! that runs it: [`Lister::list`]. Its `fdinfo` tells of which program; perf events are asked for by
//! [`sys::perf_event`], which tells where they run the program as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::descriptors::{Descriptor, Kind, Lister};
use super::sys::{self, Target};
use crate::machine::mounts;

/// A process that keeps a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Whether it runs the profiler.
    pub ours: bool,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({})", self.comm, self.pid)
    }
}

/// What one look at all processes and files tells, by program.
#[derive(Debug, Default)]
pub struct Owners {
    /// Processes.
    pub processes: BTreeMap<u32, BTreeSet<Owner>>,
    /// Files that a program or a link of it is pinned to.
    pub pins: BTreeMap<u32, BTreeSet<PathBuf>>,
    /// Where perf events run programs.
    pub events: Vec<(u32, Target)>,
    /// Processes whose descriptors we must not see.
    pub unreadable: usize,
}

/// A descriptor by which a profiler only watches a program has this flag, which means nothing there:
/// whoever looks on is not an owner.
pub const WATCHING: nix::fcntl::OFlag = nix::fcntl::OFlag::O_NONBLOCK;

impl Owners {
    /// Looks at every process and every file of the mounted BPF file systems.
    pub fn scan(lister: &Lister) -> Self {
        let (found, unreadable) = lister.list();
        let mut owners = Self { unreadable, ..Self::default() };
        let own = fs::metadata("/proc/self/exe").map(|exe| (exe.dev(), exe.ino())).ok();
        for of_one in found.chunk_by(|a, b| a.tgid == b.tgid) {
            let pid = of_one[0].tgid;
            let mut kept = BTreeSet::new();
            for &Descriptor { fd, kind, .. } in of_one {
                match kind {
                    Kind::Program => kept.extend(program_of(pid, fd)),
                    Kind::PerfEvent => {
                        let event = sys::perf_event(pid, fd);
                        kept.extend(event.as_ref().map(|(program, _)| *program));
                        owners.events.extend(event);
                    }
                }
            }
            if kept.is_empty() {
                let closed = |errno: std::io::Error| errno.kind() == std::io::ErrorKind::PermissionDenied;
                let is_closed = fs::read_dir(format!("/proc/{pid}/fdinfo")).err().is_some_and(closed);
                owners.unreadable += usize::from(is_closed);
                continue;
            }
            let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            let comm = String::from_utf8_lossy(&comm).trim_end_matches('\n').to_owned();
            let exe = fs::metadata(format!("/proc/{pid}/exe")).map(|exe| (exe.dev(), exe.ino())).ok();
            let owner = Owner { pid, comm, ours: exe.is_some() && exe == own };
            for program in kept {
                owners.processes.entry(program).or_default().insert(owner.clone());
            }
        }
        for mount in mounts::of_type("bpf") {
            owners.find_pins(&mount.point);
        }
        owners
    }

    fn find_pins(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.find_pins(&path),
                Ok(kind) if kind.is_file() => {
                    let program = sys::open_pinned(&path).ok().and_then(|fd| pinned_program(&fd));
                    if let Some(program) = program {
                        self.pins.entry(program).or_default().insert(path);
                    }
                }
                _ => {}
            }
        }
    }
}

/// The program of a descriptor of a program or of a link.
fn program_of(pid: u32, fd: u32) -> Option<u32> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    let flags = i32::from_str_radix(field(&info, "flags:")?, 8).ok()?;
    // A link's descriptor is never one by which somebody watches.
    if flags & WATCHING.bits() != 0 && field(&info, "link_id:").is_none() {
        return None;
    }
    field(&info, "prog_id:")?.parse().ok()
}

fn pinned_program(fd: &OwnedFd) -> Option<u32> {
    program_of(std::process::id(), fd.as_raw_fd() as u32)
}

/// What stands behind a name in the text of an `fdinfo`.
pub fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_fdinfo() {
        let info = "pos:\t0\nflags:\t02000002\nprog_type:\t1\nprog_id:\t42\n";
        assert_eq!(field(info, "prog_id:"), Some("42"));
        assert_eq!(field(info, "link_id:"), None);
    }
}
