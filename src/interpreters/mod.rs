//! Interpreters and runtimes: what a file says of them, as a pure function of the file.
//!
//! The walk of a stack finds a script's frames in memory of the interpreter's (see
//! `bpf/interpreters.h`). What it needs for that is in the interpreter's own file: which code is the
//! loop that runs scripts, and which field of its structures is where. A file is recognised by the symbols
//! that it exports, whatever its name and path are; the fields come from tables that debuggers are
//! meant to read, or, where a version has none, are those of its release.
//!
//! | module | for |
//! |---|---|
//! | [`python`] | CPython |
//! | [`v8`] | V8, in Node.js and Electron |
//! | [`hotspot`] | HotSpot, the JVM: where to begin in its memory, which [`crate::hotspot`] reads |
//!
//! A new runtime is one module here, one header in `bpf/`, and its case in [`find`] and
//! `capture::bpf::interpreters`.

pub mod hotspot;
pub mod python;
pub mod v8;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::elf::{Elf, Source, symbols};

/// What a file has of interpreters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreters {
    /// CPython.
    pub python: Option<python::Layout>,
    /// V8.
    pub v8: Option<v8::Layout>,
    /// HotSpot.
    #[serde(default)]
    pub hotspot: Option<hotspot::Layout>,
    /// What it claims to be and is not known as: a name, and why.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// Code of the loops that run scripts, by file offset.
    pub loops: Vec<Range<u64>>,
    /// First address of the image, to which a mapping of file offset 0 would belong; and the like.
    pub segments: Vec<crate::elf::Segment>,
}

impl Interpreters {
    /// Whether there is none whose frames can be read.
    pub fn is_empty(&self) -> bool {
        self.python.is_none() && self.v8.is_none() && self.hotspot.is_none()
    }

    /// As bytes, to be sent by a worker: none if there are no interpreters.
    pub fn to_bytes(&self) -> Vec<u8> {
        if self.is_empty() && self.unknown.is_empty() {
            Vec::new()
        } else {
            serde_json::to_vec(self).unwrap_or_default()
        }
    }

    /// From such bytes, which a stranger may have steered: the walk believes no layout (`bpf/interpreters.h`).
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// What is added to addresses of the image where the file is mapped at `start` from an offset on.
    pub fn bias(&self, start: u64, file_offset: u64) -> Option<u64> {
        let code = self.segments.iter().filter(|segment| segment.executable);
        let vaddr = code.filter_map(|segment| segment.vaddr(file_offset)).next()?;
        Some(start.wrapping_sub(vaddr))
    }
}

/// Looks for interpreters in a file. What claims to be one and does not agree with itself is none, and told.
pub fn find(file: &dyn Source) -> Interpreters {
    let Ok(elf) = Elf::read(file) else { return Interpreters::default() };
    let names = [&python::SYMBOLS[..], &v8::SYMBOLS, &hotspot::SYMBOLS].concat();
    let symbols = symbols::exported(&elf, file, &names).unwrap_or_default();
    let hotspot = hotspot::find(&elf, &symbols).ok();
    let mut found = Interpreters { hotspot, ..Interpreters::default() };
    let unknown = |name: &str, why: &anyhow::Error| format!("{name} ({why:.80})");
    match v8::find(&elf, file, &symbols) {
        Ok(layout) => found.v8 = Some(layout),
        Err(why) if v8::is_claimed(&symbols) => found.unknown.push(unknown("V8", &why)),
        Err(_) => {}
    }
    let python = python::find(&elf, file, &symbols);
    if let (Err(why), true) = (&python, python::is_claimed(&symbols)) {
        found.unknown.push(unknown("CPython", why));
    }
    if let Ok((layout, loops)) = python {
        let offset = |vaddr: u64| elf.segments.iter().find_map(|segment| segment.locate(vaddr));
        let range = |code: Range<u64>| {
            let start = offset(code.start)?.0;
            Some(start..start.saturating_add(code.end - code.start))
        };
        found.loops = loops.into_iter().filter_map(range).collect();
        found.python = Some(layout);
    }
    if !found.is_empty() {
        found.segments = elf.segments;
    }
    found
}
