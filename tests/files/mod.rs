//! What the tests of files share: a directory for each, and runs of the program.
#![allow(dead_code)] // each of them uses a part of it

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A directory of its own for a test, removed at the end.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let name = format!("profiler-{}-{name}-{}", env!("CARGO_CRATE_NAME"), std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file, and returns its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.0.join(name), bytes).unwrap();
        self.path(name)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Names of the files in it, sorted.
    pub fn names(&self) -> Vec<String> {
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

/// Says where nobody can overlook it that a test, or a part of it, did not run.
pub fn skip(why: &str) {
    // Unlike `eprintln!`, this is not captured when the test passes.
    let _ = writeln!(std::io::stderr(), "SKIP: {why}");
}

/// The program, to be started without standard input.
pub fn profiler(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_profiler"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it, however it ends.
pub fn run(args: &[&str]) -> Output {
    profiler(args).output().unwrap()
}

/// Standard output and standard error of a run that succeeds.
pub fn success(args: &[&str]) -> (String, String) {
    let output = run(args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {message}");
    (String::from_utf8(output.stdout).unwrap(), message)
}

/// Standard output of a run that succeeds.
pub fn stdout(args: &[&str]) -> String {
    success(args).0
}

/// Standard error of a run that fails as every failure should: exit status 1, one line, which
/// says who speaks and what failed, and nothing on standard output.
pub fn failure(args: &[&str]) -> String {
    let output = run(args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
    assert!(message.starts_with("profiler: error: failed to "), "{args:?}: {message}");
    assert_eq!(message.trim_end().lines().count(), 1, "{args:?}: {message}");
    assert!(output.stdout.is_empty(), "{args:?} wrote output");
    message
}
