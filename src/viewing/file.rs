//! Files that appear whole or not at all.
//!
//! Data goes to a temporary file beside the target, which takes the target's name when all is
//! written. Until then an older file stays as it is.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};

/// A file on its way. If it is dropped before [`Pending::commit`], nothing remains of it.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    /// A file that gets its name at the end.
    Temporary(File, PathBuf),
    /// A device or pipe, which is no file to be replaced.
    Direct(File),
    Stdout,
}

impl Pending {
    /// Opens the way to `path`; `-` is standard output. For a file this makes `.NAME.PID.tmp` in
    /// the same directory, so that a directory that cannot be written is found now and not after a
    /// long recording.
    ///
    /// # Errors
    /// If `path` is a directory or a symbolic link, or the temporary file cannot be made. A link
    /// is refused because root would write where the link's owner wants.
    pub fn create(path: &Path) -> Result<Self> {
        let sink =
            Self::sink(path).map_err(|error| anyhow!("failed to create {}: {error:#}", path.display()))?;
        Ok(Self { path: path.to_owned(), sink })
    }

    fn sink(path: &Path) -> Result<Sink> {
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
                return Ok(Sink::Direct(OpenOptions::new().write(true).open(path)?));
            }
        }
        let Some(name) = path.file_name() else { bail!("it is a directory: name a file in it with -o") };
        let mut hidden = OsString::from(".");
        // Names have at most 255 bytes.
        hidden.push(if name.len() < 230 { name } else { "profiler".as_ref() });
        hidden.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let open = || OpenOptions::new().write(true).create_new(true).open(&temporary);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // No other process has our id, so it was left behind by one that was killed.
                fs::remove_file(&temporary).and_then(|()| open())
            }
            opened => opened,
        };
        match file {
            Ok(file) => Ok(Sink::Temporary(file, temporary)),
            Err(error) => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory = directory.unwrap_or(Path::new(".")).display();
                Err(match error.kind() {
                    io::ErrorKind::NotFound => {
                        anyhow!("there is no directory {directory}: make it, or name another with -o")
                    }
                    _ => anyhow!(
                        "{error} in the directory {directory}: make it writable, or name another \
                         with -o"
                    ),
                })
            }
        }
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
            Sink::Temporary(file, _) | Sink::Direct(file) => file.write_all(data),
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
    pub fn commit(self) -> Result<()> {
        let Sink::Temporary(file, temporary) = &self.sink else { return Ok(()) };
        if let Some((uid, gid)) = sudo_caller() {
            // Some file systems know no owners. A file of root's is better than none.
            let _ = fchown(file, Some(uid), Some(gid));
        }
        // Without this, a full disk or a lost server may show only after the rename.
        file.sync_all().and_then(|()| fs::rename(temporary, &self.path)).map_err(|error| self.failure(&error))
        // Dropping finds no temporary file any more.
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

impl Drop for Pending {
    fn drop(&mut self) {
        if let Sink::Temporary(_, temporary) = &self.sink {
            // After a commit there is none; and an error here has nobody to hear it.
            let _ = fs::remove_file(temporary);
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
        assert_eq!(directory.names(), [format!(".out.{}.tmp", std::process::id()), "out".into()]);
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
