//! The file of a program or a library, by what people call it.
//!
//! A container has files of its own, and one of the same name may well be outside of it. So where it is said in
//! which processes to measure, they are asked first: for what they have mapped by that name, then for what
//! they see there. And what is measured is the file that was opened, whatever its name comes to mean:
//! `/proc/PID/root` and `/proc/PID/exe` lead into a container, but what they say that they lead to does not.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;

use crate::model::event::Event;
use crate::model::objects::{Missing, Root, open_mapped};
use crate::recording::capture::proc;

/// A file that is open, and so stays the one that it is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: File,
    /// What to call it.
    pub(super) shown: String,
}

impl Found {
    /// Where the kernel finds it, for as long as it is open.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// Finds a file by its path, or by its name as a shell or the loader would, as these processes have it, or else as
/// we do.
///
/// # Errors
/// If there is none, it is no plain file, or these processes have several.
pub(super) fn find(program: &str, processes: &[u32]) -> Result<Found> {
    let mut found: Option<(u32, Found, (u64, u64))> = None;
    for &pid in processes {
        let shown = format!("{program} of process {pid}");
        let file = match of_process(program, pid) {
            Ok(file) => file,
            Err(Missing::Gone) => continue,
            Err(why) => bail!("{shown}: {}", why.why()),
        };
        let next = Found { file, shown };
        let metadata = next.file.metadata()?;
        let id = (metadata.dev(), metadata.ino());
        match &found {
            Some((other, _, known)) if *known != id => bail!(
                "{program} is one file in process {other} and another one in {pid}: measure in one of them at a time"
            ),
            Some(_) => {}
            None => found = Some((pid, next, id)),
        }
    }
    if let Some((_, found, _)) = found {
        return Ok(found);
    }
    let path = of_ours(program)?;
    let shown = path.canonicalize().unwrap_or_else(|_| path.clone());
    let shown = if path.starts_with("/proc") { &path } else { &shown };
    open(&path, shown.display().to_string())
}

fn open(path: &Path, shown: String) -> Result<Found> {
    ensure!(path.is_file(), "{shown} is no file, and so no program that can be measured");
    // Somebody may put a FIFO in its place, which would be waited for.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = file.with_context(|| format!("failed to open {shown}"))?;
    Ok(Found { file, shown })
}

/// What a process has mapped as code by a name, also where that is deleted or replaced by now, or what it sees at a
/// path. Where its links lead is its user's choice: they are followed below its own root, to plain files.
fn of_process(program: &str, pid: u32) -> Result<File, Missing> {
    let Event::Maps { mmaps, .. } = proc::maps(pid, pid).event else { return Err(Missing::Gone) };
    // That says itself whose file it is.
    if program.starts_with("/proc/") {
        return Err(Missing::Gone);
    }
    let is_path = program.contains('/');
    let is_called = |path: &str| match is_path {
        true => path == program,
        false => path.starts_with('/') && path.rsplit('/').next() == Some(program),
    };
    let called: Vec<_> = mmaps.iter().filter(|mmap| is_called(&mmap.path)).collect();
    if let Some(file) = called.iter().find_map(|mmap| open_mapped(mmap).ok()) {
        return Ok(file);
    }
    // Mapped without the kernel's links, which take CAP_CHECKPOINT_RESTORE; or not yet.
    let path = called.first().map_or(program, |mmap| &mmap.path);
    if path.starts_with('/') { Root::of(pid)?.open(path) } else { Err(Missing::Gone) }
}

/// A path as it is, and a name as a shell or the loader would find it.
fn of_ours(program: &str) -> Result<PathBuf> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return match path.metadata() {
            Ok(_) => Ok(path),
            Err(error) => Err(error).with_context(|| format!("failed to find {program}")),
        };
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let libraries = [
        format!("/lib/{}-linux-gnu", std::env::consts::ARCH),
        format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH),
    ];
    let others = ["/usr/local/lib", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
    let directories = std::env::split_paths(&paths)
        .chain(libraries.iter().map(PathBuf::from))
        .chain(others.iter().map(PathBuf::from));
    let mut places = directories.map(|directory| directory.join(program));
    places.find(|path| path.is_file()).with_context(|| {
        format!("no program or library `{program}` in PATH or the loader's directories: name it by its path")
    })
}
