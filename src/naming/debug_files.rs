//! Files that hold the symbols and debug information of a stripped one, where gdb and distributions keep
//! them (GDB manual, "Debugging Information in Separate Files"):
//!
//! ```text
//! /usr/lib/debug/.build-id/ab/cdef….debug     by build id
//! DIR/NAME  DIR/.debug/NAME  /usr/lib/debug/DIR/NAME     by the link in the stripped file
//! ```
//!
//! `DIR` is a path of the process that has mapped the file, and so it is followed below that process's root, which
//! a stranger may have made. What it leads to is opened only if that process could have read it itself (see
//! [`believes`]). `/usr/lib/debug` is looked for below our own root first, and then below the process's.
//!
//! A path is a hint: a package that was updated leaves one file of the old version and one of the new. What
//! is found is believed if it has the same build id or, where there is none, the checksum in the link. The recorder
//! looks at build ids, which takes a few KiB of a file; checksums, which take all of it, are the worker's.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use flate2::Crc;
use nix::sys::stat::FileStat;

use crate::elf::Elf;
use crate::elf::layout::Layout;
use crate::model::objects::{Object, Root};

/// Where distributions install them.
const DEBUG_DIR: &str = "/usr/lib/debug";
/// Debug information of a browser is 3 GB. A checksum takes a second a gigabyte.
const MOST_CHECKED_BYTES: u64 = 4 << 30;

/// The file with the symbols of a program or library, among those that `open` finds by the name in it.
pub fn find(file: &File, mut open: impl FnMut(Option<&str>) -> Vec<File>) -> Option<File> {
    let elf = Elf::read(file).ok()?;
    let id = Layout::read(file).ok()?.build_id;
    let link = elf.section(file, ".gnu_debuglink", 4096).ok().flatten().and_then(|link| parse_link(&link));
    open(link.as_ref().map(|(name, _)| name.as_str())).into_iter().find(|found| {
        match (&id[..], Layout::read(found).map(|layout| layout.build_id)) {
            ([_, ..], Ok(theirs)) if !theirs.is_empty() => theirs == id,
            _ => link.as_ref().is_some_and(|(_, checksum)| crc(found) == Some(*checksum)),
        }
    })
}

/// Files where the symbols of an object may be that has this name in its link.
pub fn candidates(object: &Object, link: Option<&str>) -> Vec<File> {
    let link = link.filter(|name| is_name(name));
    let installed = installed(&object.build_id, link, &object.path);
    let ours = installed.iter().filter_map(|path| Root::OURS.open(path).ok());
    let binary = object.metadata();
    let believes = |status: &FileStat, by_link: bool| {
        let binary = binary.as_ref().filter(|_| !by_link).ok_or(())?;
        believes(binary, status).then_some(()).ok_or(())
    };
    let beside = beside(link, &object.path);
    let theirs = beside.iter().chain(&installed);
    let theirs = theirs.filter_map(|path| object.root.open_believed(path, believes).ok()?.ok());
    let mut found: Vec<File> = Vec::new();
    for file in ours.chain(theirs) {
        let id = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        if may_be(&object.build_id, &file) && !found.iter().any(|other| id(other) == id(&file)) {
            found.push(file);
        }
    }
    found
}

/// Whether a file may be a binary's, by whom they belong to. A process can put there, by a link or a mount of its
/// own, what it may not read, and we may be root: such a file would not even be opened by the process itself.
fn believes(binary: &Metadata, status: &FileStat) -> bool {
    let owner = status.st_uid == 0 || status.st_uid == binary.uid();
    let is_open = status.st_mode & 0o004 != 0;
    let is_binary_closed = binary.mode() & 0o055 == 0 && status.st_uid == binary.uid();
    owner && (is_open || is_binary_closed)
}

/// Whether a file may be that of a build id, by its own.
fn may_be(id: &[u8], file: &File) -> bool {
    let theirs = Layout::read(file).map(|layout| layout.build_id);
    theirs.is_ok_and(|theirs| id.is_empty() || theirs.is_empty() || theirs == id)
}

fn installed(id: &[u8], link: Option<&str>, path: &str) -> Vec<String> {
    let by_link = link.zip(directory(path)).map(|(name, dir)| format!("{DEBUG_DIR}{dir}/{name}"));
    by_build_id(id).into_iter().chain(by_link).collect()
}

fn by_build_id(id: &[u8]) -> Option<String> {
    let (first, rest) = id.split_first().filter(|(_, rest)| !rest.is_empty())?;
    let rest: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{DEBUG_DIR}/.build-id/{first:02x}/{rest}.debug"))
}

fn beside(link: Option<&str>, path: &str) -> Vec<String> {
    let (Some(name), Some(dir)) = (link, directory(path)) else { return Vec::new() };
    vec![format!("{dir}/{name}"), format!("{dir}/.debug/{name}")]
}

/// The directory of an absolute path, without a slash at its end.
fn directory(path: &str) -> Option<&str> {
    let dir = Path::new(path).parent().filter(|dir| dir.is_absolute())?.to_str()?;
    Some(dir.trim_end_matches('/'))
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
        assert_eq!(by_build_id(&[0xab, 0xcd, 0x01]).unwrap(), "/usr/lib/debug/.build-id/ab/cd01.debug");
        assert_eq!(by_build_id(&[0xab]), None);
        let link = Some("x.debug");
        assert_eq!(beside(link, "/opt/bin/x"), ["/opt/bin/x.debug", "/opt/bin/.debug/x.debug"]);
        assert_eq!(beside(link, "/x"), ["/x.debug", "/.debug/x.debug"]);
        assert_eq!(installed(&[], link, "/opt/bin/x"), ["/usr/lib/debug/opt/bin/x.debug"]);
        // Paths in brackets are no paths, and those of memory have names without a directory.
        for none in ["[vdso]", "memfd:x", "/"] {
            assert_eq!(beside(link, none), Vec::<String>::new(), "{none}");
        }
    }

    #[test]
    fn whose_files_are_believed() {
        let dir = std::env::temp_dir().join(format!("profiler-believes-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let binary = |mode| {
            use std::os::unix::fs::PermissionsExt;
            let path = dir.join(format!("{mode:o}"));
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path.metadata().unwrap()
        };
        let (open, closed) = (binary(0o755), binary(0o700));
        let status = |uid, mode| {
            let mut status = nix::sys::stat::stat("/").unwrap();
            (status.st_uid, status.st_mode) = (uid, mode);
            status
        };
        let (own, other) = (open.uid(), open.uid() + 1);
        assert!(believes(&open, &status(own, 0o644)) && believes(&open, &status(0, 0o644)));
        assert!(!believes(&open, &status(other, 0o644)));
        // A secret of the owner's or of root's, which others can run a program beside.
        assert!(!believes(&open, &status(own, 0o600)) && !believes(&open, &status(0, 0o640)));
        assert!(believes(&closed, &status(own, 0o600)));
        assert!(!believes(&closed, &status(other, 0o600)));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
