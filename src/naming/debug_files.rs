//! Files that hold the symbols and debug information of a stripped one, where gdb and distributions keep
//! them (GDB manual, "Debugging Information in Separate Files"):
//!
//! ```text
//! /usr/lib/debug/.build-id/ab/cdef….debug     by build id
//! DIR/NAME  DIR/.debug/NAME  /usr/lib/debug/DIR/NAME     by the link in the stripped file
//! ```
//!
//! A path is a hint: a package that was updated leaves one file of the old version and one of the new. What
//! is found is believed if it has the same build id or, where there is none, the checksum in the link.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::Crc;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::elf::{self, Elf};

/// Where distributions install them; only root can write there.
const DEBUG_DIR: &str = "/usr/lib/debug";
/// Debug information of a browser is 3 GB. A checksum takes a second a gigabyte.
const MOST_CHECKED_BYTES: u64 = 4 << 30;

/// The file with the symbols of a program or library, among those that `open` finds by the name in it.
pub fn find(file: &File, mut open: impl FnMut(Option<&str>) -> Vec<File>) -> Option<File> {
    let elf = Elf::read(file).ok()?;
    let id = elf::layout::Layout::read(file).ok()?.build_id;
    let link = elf.section(file, ".gnu_debuglink", 4096).ok().flatten().and_then(|link| parse_link(&link));
    open(link.as_ref().map(|(name, _)| name.as_str())).into_iter().find(|found| {
        match (&id[..], elf::layout::Layout::read(found).map(|layout| layout.build_id)) {
            ([_, ..], Ok(theirs)) if !theirs.is_empty() => theirs == id,
            _ => link.as_ref().is_some_and(|(_, checksum)| crc(found) == Some(*checksum)),
        }
    })
}

/// Files where the symbols may be of a program or library of this build id, which was mapped from `path` and
/// has this name in its link.
pub fn candidates(build_id: &[u8], link: Option<&str>, path: &str) -> Vec<File> {
    let link = link.filter(|name| is_name(name));
    let paths = by_build_id(build_id).into_iter().chain(by_link(link, path));
    paths.filter_map(|(path, trusted)| open_regular(&path, trusted)).collect()
}

/// A path, and whether only root could put something there.
type Candidate = (PathBuf, bool);

fn by_build_id(id: &[u8]) -> Option<Candidate> {
    let (first, rest) = id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some((format!("{DEBUG_DIR}/.build-id/{first:02x}/{rest}.debug").into(), true))
}

fn by_link(link: Option<&str>, path: &str) -> Vec<Candidate> {
    let (Some(name), Some(dir)) = (link, Path::new(path).parent()) else { return Vec::new() };
    let installed = Path::new(DEBUG_DIR).join(dir.strip_prefix("/").unwrap_or(dir));
    vec![(dir.join(name), false), (dir.join(".debug").join(name), false), (installed.join(name), true)]
}

/// A file's name, without a directory, up to a zero; at the next multiple of four the CRC-32 of the file.
fn parse_link(link: &[u8]) -> Option<(String, u32)> {
    let end = link.iter().position(|&byte| byte == 0)?;
    let name = std::str::from_utf8(&link[..end]).ok()?;
    let checksum = link.get((end + 1).next_multiple_of(4)..)?.first_chunk()?;
    is_name(name).then(|| (name.to_owned(), u32::from_le_bytes(*checksum)))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && name != ".."
}

/// Not a device or a FIFO and, where others could have put it, not through a link.
fn open_regular(path: &Path, trusted: bool) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let flags = if trusted { flags } else { flags | OFlag::O_NOFOLLOW };
    let file = File::from(open(path, flags, Mode::empty()).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

fn crc(file: &File) -> Option<u32> {
    let mut reader = file.take(MOST_CHECKED_BYTES);
    let (mut crc, mut buffer) = (Crc::new(), vec![0; 1 << 17]);
    loop {
        match reader.read(&mut buffer).ok()? {
            0 => return Some(crc.sum()),
            bytes => crc.update(&buffer[..bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(parse_link(b"a.debug\0\x78\x56\x34\x12"), Some(("a.debug".to_owned(), 0x1234_5678)));
        assert_eq!(parse_link(b"ab\0\0\x01\0\0\0"), Some(("ab".to_owned(), 1)));
        for bad in [
            &b""[..],
            b"\0\0\0\0\0\0\0\0",
            b"a",
            b"a\0\0\0\0",
            b"../etc/x\0\0\0\0\0\0\0\0",
            b"..\0\0\0\0\0\0",
        ] {
            assert_eq!(parse_link(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn places() {
        let (path, _) = by_build_id(&[0xab, 0xcd, 0x01]).unwrap();
        assert_eq!(path, Path::new("/usr/lib/debug/.build-id/ab/cd01.debug"));
        assert_eq!(by_build_id(&[0xab]), None);
        let paths: Vec<_> =
            by_link(Some("x.debug"), "/opt/bin/x").into_iter().map(|(path, _)| path).collect();
        let expected = ["/opt/bin/x.debug", "/opt/bin/.debug/x.debug", "/usr/lib/debug/opt/bin/x.debug"];
        assert_eq!(paths, expected.map(PathBuf::from));
    }
}
