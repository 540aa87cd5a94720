//! What the operating system tells about itself and about us, and nothing that is about profiles.

pub mod cgroups;
pub mod containers;
pub mod kallsyms;
pub mod mounts;
pub mod rights;
pub mod shortage;
pub mod signals;
pub mod streams;
pub mod terminal;
pub mod tracefs;
pub mod usage;

use std::io;
use std::path::Path;

/// A text of the kernel's. Names in it, of files and of programs, are bytes that need not be UTF-8: those that
/// are not are replaced.
///
/// # Errors
/// If it cannot be read.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
