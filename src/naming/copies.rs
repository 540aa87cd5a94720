//! Copies of files that a worker, who has no rights, cannot open by their descriptors.
//!
//! Whoever made such a file decides how large it is and how fast it is read, and the recording waits meanwhile: so
//! there is one budget of bytes and of time for all copies, holes are not read, and who wants to end is heard.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};

/// All copies together.
const MOST_BYTES: u64 = 1 << 30;
const MOST_TIME: Duration = Duration::from_secs(10);
/// A file of this length has holes that cost nothing here, but whoever reads them all needs time for that.
const LONGEST: u64 = 1 << 30;
const CHUNK: usize = 1 << 20;

/// What may still be copied.
#[derive(Debug)]
pub struct Copies {
    bytes: u64,
    time: Duration,
    /// Files that there was no budget for.
    pub refused: usize,
}

impl Copies {
    pub fn new() -> Self {
        Self { bytes: MOST_BYTES, time: MOST_TIME, refused: 0 }
    }

    /// What a file holds, in memory of ours. `ends` is asked now and then whether nobody waits for it any more.
    ///
    /// # Errors
    /// If it is too large for what is left, cannot be read, or nobody waits for it.
    pub fn copy(&mut self, file: &File, ends: impl FnMut() -> bool) -> io::Result<File> {
        let began = Instant::now();
        let copy = self.copied(file, began, ends);
        self.time = self.time.saturating_sub(began.elapsed());
        if copy.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::FileTooLarge) {
            self.refused += 1;
        }
        copy
    }

    fn copied(&mut self, file: &File, began: Instant, mut ends: impl FnMut() -> bool) -> io::Result<File> {
        let length = file.metadata()?.len();
        if length > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let copy = File::from(memfd_create("copy", MFdFlags::MFD_CLOEXEC)?);
        copy.set_len(length)?;
        let mut chunk = vec![0; CHUNK];
        let mut end = 0;
        while let Some(data) = data_from(file, end)?.filter(|data| *data < length) {
            end = match lseek(file, data.cast_signed(), Whence::SeekHole) {
                Ok(hole) => hole.cast_unsigned().clamp(data, length),
                Err(_) => length,
            };
            let mut at = data;
            while at < end {
                if ends() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let part = &mut chunk[..(end - at).min(CHUNK as u64) as usize];
                if self.bytes < part.len() as u64 || began.elapsed() > self.time {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                self.bytes -= part.len() as u64;
                file.read_exact_at(part, at)?;
                copy.write_all_at(part, at)?;
                at += part.len() as u64;
            }
            if end == data {
                break;
            }
        }
        Ok(copy)
    }
}

/// Where data begins in a file, from an offset on.
fn data_from(file: &File, offset: u64) -> io::Result<Option<u64>> {
    match lseek(file, offset.cast_signed(), Whence::SeekData) {
        Ok(data) => Ok(Some(data.cast_unsigned().max(offset))),
        Err(Errno::ENXIO) => Ok(None),
        // A file system that knows no holes.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Some(offset)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(length: u64, data: &[(u64, &[u8])]) -> File {
        let file = File::from(memfd_create("file", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(length).unwrap();
        data.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
        file
    }

    fn read(file: &File, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![1; length];
        file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    #[test]
    fn holes_cost_nothing_and_are_there() {
        let mut copies = Copies::new();
        let (middle, end) = (500 << 20, (1 << 30) - 3);
        let whole = file(1 << 30, &[(0, b"begin"), (middle, b"middle"), (end, b"end")]);
        let copy = copies.copy(&whole, || false).unwrap();
        assert_eq!(copy.metadata().unwrap().len(), 1 << 30);
        assert_eq!(read(&copy, 0, 6), b"begin\0");
        assert_eq!(read(&copy, middle, 7), b"middle\0");
        assert_eq!(read(&copy, end, 3), b"end");
        assert!(MOST_BYTES - copies.bytes <= 3 * CHUNK as u64, "{copies:?}");
        assert_eq!(copies.copy(&file(0, &[]), || false).unwrap().metadata().unwrap().len(), 0);
    }

    #[test]
    fn the_budget_is_of_all_copies_together() {
        let mut copies = Copies { bytes: 3 << 20, ..Copies::new() };
        let large = file(2 << 20, &[(0, &[7; 2 << 20])]);
        assert_eq!(read(&copies.copy(&large, || false).unwrap(), (2 << 20) - 1, 1), [7]);
        assert_eq!(copies.copy(&large, || false).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(copies.refused, 1);
        let mut late = Copies { time: Duration::ZERO, ..Copies::new() };
        assert_eq!(late.copy(&large, || false).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(Copies::new().copy(&large, || true).unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
