//! A directory of recordings, one after the other: their names, and which of them are kept.
//!
//! A file's name is the time at which it begins, so that names sort as the files do. Whoever records into the
//! directory holds a lock on it. What a recorder that was killed has left half written is removed by the next.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag};
use nix::sys::stat::fstatat;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::viewing::file::Pending;
use crate::viewing::reading::directory::{SUFFIX, begin_ms};

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// What began not longer ago.
    For(Duration),
    /// The newest, of so many bytes in all.
    Bytes(u64),
}

/// A directory that is recorded into.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    keep: Keep,
    opened: Flock<File>,
}

impl Directory {
    /// Makes it, unless it is there, and takes it.
    ///
    /// # Errors
    /// If it cannot be made, is no directory, or another recorder writes there.
    pub fn open(path: &Path, keep: Keep) -> Result<Self> {
        if !path.is_dir() {
            fs::create_dir(path)
                .with_context(|| format!("failed to make the directory {}", path.display()))?;
        }
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(path);
        let opened = opened.with_context(|| format!("failed to open {}", path.display()))?;
        let opened = match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(opened) => opened,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!("another profiler records into {}: name another directory with -o", path.display())
            }
            Err((_, error)) => return Err(error).context(format!("failed to lock {}", path.display())),
        };
        let directory = Self { path: path.to_owned(), keep, opened };
        for name in directory.names(is_half_written) {
            // Nobody else writes here.
            directory.remove(&name);
        }
        Ok(directory)
    }

    /// The file of a recording that begins at a time.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn file(&self, begin: SystemTime) -> Result<Pending> {
        Pending::private_in(self.opened.as_fd(), &self.path.join(name_of(begin)))
    }

    /// The same with other temporary files, where nothing can be made in this directory any more.
    ///
    /// # Errors
    /// If it cannot be made there either.
    pub fn file_elsewhere(begin: SystemTime) -> Result<Pending> {
        Pending::private(&std::env::temp_dir().join(name_of(begin)))
    }

    fn remove(&self, name: &str) {
        // It may have been taken away by somebody else.
        let _ = unlinkat(&*self.opened, name, UnlinkatFlags::NoRemoveDir);
    }

    fn names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let entries = fs::read_dir(format!("/proc/self/fd/{}", self.opened.as_raw_fd()))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| wanted(name)).collect();
        names.sort_unstable();
        names
    }

    /// Removes what is not kept, at a time.
    pub fn prune(&self, now: SystemTime) {
        let names = self.names(is_recording);
        let old: Vec<&String> = match self.keep {
            Keep::All => Vec::new(),
            Keep::For(time) => {
                let oldest = name_of(now.checked_sub(time).unwrap_or(UNIX_EPOCH));
                names.iter().filter(|name| **name < oldest).collect()
            }
            Keep::Bytes(most) => {
                let mut sum = 0;
                let status =
                    |name: &String| fstatat(&*self.opened, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
                let size = |name: &String| status(name).map_or(0, |it| it.st_size.cast_unsigned());
                // The newest always stays.
                let newest_first = names.iter().rev().enumerate();
                let sums = newest_first.map(|(at, name)| {
                    sum += size(name);
                    (at > 0 && sum > most, name)
                });
                sums.filter(|(is_over, _)| *is_over).map(|(_, name)| name).collect()
            }
        };
        for name in old {
            self.remove(name);
        }
    }
}

/// `YYYYMMDDTHHMMSS.mmmZ.pb.gz`.
fn name_of(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}.{:03}{SUFFIX}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

/// Of a day since 1970-01-01, in the proleptic Gregorian calendar. Years are counted from March on, so that a
/// leap day is the last of its year; 400 of them have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

fn is_recording(name: &str) -> bool {
    begin_ms(name).is_some()
}

/// `.NAME.PID.tmp`: see [`crate::viewing::file`].
fn is_half_written(name: &str) -> bool {
    let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
    name.and_then(|name| name.rsplit_once('.')).is_some_and(|(name, _)| is_recording(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_times_and_sort_as_they_do() {
        let name = |seconds: u64, ms: u32| name_of(UNIX_EPOCH + Duration::new(seconds, ms * 1_000_000));
        // By date -u -d @….
        assert_eq!(name(0, 0), "19700101T000000.000Z.pb.gz");
        assert_eq!(name(951_782_400, 7), "20000229T000000.007Z.pb.gz");
        assert_eq!(name(1_709_251_199, 999), "20240229T235959.999Z.pb.gz");
        assert_eq!(name(1_735_689_599, 0), "20241231T235959.000Z.pb.gz");
        assert_eq!(name(4_107_542_399, 0), "21000228T235959.000Z.pb.gz");
        assert_eq!(name(4_107_542_400, 0), "21000301T000000.000Z.pb.gz");
        assert!(is_recording(&name(951_782_400, 7)));
        assert!(is_half_written(&format!(".{}.123.tmp", name(0, 0))));
        for (seconds, ms) in [(0, 0), (951_782_400, 7), (1_709_251_199, 999), (4_107_542_400, 0)] {
            assert_eq!(begin_ms(&name(seconds, ms)), Some(seconds.cast_signed() * 1000 + i64::from(ms)));
        }
        for other in ["output.pb.gz", "Z.pb.gz", "20000229T000000Z.pb.gz", "x20000229T000000.007Z.pb.gz"] {
            assert!(!is_recording(other) && !is_half_written(&format!(".{other}.1.tmp")), "{other}");
        }
    }

    #[test]
    fn what_is_not_kept_is_removed_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("profiler-directory-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let at = |ago: u64| name_of(now - Duration::from_secs(ago));
        let fill = || {
            for name in [at(0), at(60), at(120), at(180), "other.pb.gz".to_owned()] {
                fs::write(path.join(name), [0; 100]).unwrap();
            }
            fs::write(path.join(format!(".{}.1.tmp", at(0))), "half").unwrap();
        };
        let left = |keep| {
            fill();
            let directory = Directory::open(&path, keep).unwrap();
            assert!(Directory::open(&path, keep).unwrap_err().to_string().contains("another profiler"));
            directory.prune(now);
            directory.names(|_| true)
        };
        let other = || "other.pb.gz".to_owned();
        assert_eq!(left(Keep::All), [at(180), at(120), at(60), at(0), other()]);
        assert_eq!(left(Keep::For(Duration::from_secs(130))), [at(120), at(60), at(0), other()]);
        assert_eq!(left(Keep::Bytes(250)), [at(60), at(0), other()]);
        assert_eq!(left(Keep::Bytes(10)), [at(0), other()]);
        fs::remove_dir_all(&path).unwrap();
    }

    /// Whoever may write beside the directory can put another one in its place.
    #[test]
    fn another_directory_by_the_same_path_is_left_alone() {
        let base = std::env::temp_dir().join(format!("profiler-swapped-{}", std::process::id()));
        let (path, victim) = (base.join("ev"), base.join("victim"));
        fs::create_dir_all(&victim).unwrap();
        let old = name_of(UNIX_EPOCH);
        fs::write(victim.join(&old), "precious").unwrap();
        let directory = Directory::open(&path, Keep::Bytes(1)).unwrap();
        fs::rename(&path, base.join("ev.old")).unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for begin in [now, now + Duration::from_secs(1)] {
            let mut file = directory.file(begin).unwrap();
            file.write_all(b"mine").unwrap();
            file.commit().unwrap();
        }
        directory.prune(now);
        let names = |path: &Path| -> Vec<_> {
            fs::read_dir(path).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
        };
        assert_eq!(names(&victim), [old]);
        assert_eq!(names(&base.join("ev.old")), [name_of(now + Duration::from_secs(1))]);
        fs::remove_dir_all(&base).unwrap();
    }
}
