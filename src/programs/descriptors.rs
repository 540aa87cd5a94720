//! Descriptors by which processes keep BPF programs.
//!
//! The kernel lists them where it can (`bpf/descriptors.bpf.c`): on a machine with 100,000 open files that
//! takes some milliseconds, and reading a link of `/proc` for each half a second. `/proc` is read where it
//! cannot: without the capabilities, in a PID namespace (the kernel tells ids of the first one), before
//! Linux 5.8.

use std::fs;
use std::io::Read;
use std::mem::MaybeUninit;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Iter, Link};

#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/descriptors.skel.rs"));
}
use skeleton::{DescriptorsSkel, DescriptorsSkelBuilder};

/// Of bpf/descriptors.bpf.c: process, number, 16 bytes of name.
const RECORD_BYTES: usize = 24;
/// What the kernel's first PID namespace is called.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// What a descriptor is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A program, or a link that attaches one.
    Program,
    /// A perf event, which may run one.
    PerfEvent,
}

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Descriptor {
    /// The process.
    pub tgid: u32,
    /// Its number.
    pub fd: u32,
    /// What it is of.
    pub kind: Kind,
}

/// The kernel's list, where it makes one.
pub struct Lister(Option<(DescriptorsSkel<'static>, Link)>);

impl std::fmt::Debug for Lister {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lister").field(&self.id()).finish()
    }
}

impl Lister {
    /// Loads the program that makes it. That takes an id of a program, so it is done once.
    pub fn new() -> Self {
        Self(load().ok())
    }

    /// The id of that program.
    pub fn id(&self) -> Option<u32> {
        self.0.as_ref().and_then(|(_, link)| link.info().ok()).map(|info| info.prog_id)
    }

    /// All descriptors, ascending, and how many processes may not be looked at.
    pub fn list(&self) -> (Vec<Descriptor>, usize) {
        let (mut found, unreadable) = self.by_kernel().map_or_else(by_proc, |found| (found, 0));
        found.sort_unstable();
        (found, unreadable)
    }

    fn by_kernel(&self) -> Option<Vec<Descriptor>> {
        let (_, link) = self.0.as_ref()?;
        let mut records = Vec::new();
        Iter::new(link).ok()?.read_to_end(&mut records).ok()?;
        let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |&word| u32::from_ne_bytes(word));
        let descriptor = |record: &[u8]| {
            let name = record[8..].split(|&byte| byte == 0).next().unwrap_or_default();
            let kind = kind(std::str::from_utf8(name).ok()?)?;
            Some(Descriptor { tgid: number(record), fd: number(&record[4..]), kind })
        };
        Some(records.chunks_exact(RECORD_BYTES).filter_map(descriptor).collect())
    }
}

fn load() -> Result<(DescriptorsSkel<'static>, Link)> {
    let namespace = fs::read_link("/proc/self/ns/pid").context("failed to read /proc/self/ns/pid")?;
    ensure!(namespace == Path::new(FIRST_NAMESPACE), "in a PID namespace");
    // There are one or two of it in a run of the program.
    let object = Box::leak(Box::new(MaybeUninit::uninit()));
    let skeleton = DescriptorsSkelBuilder::default().open(object)?.load()?;
    let link = skeleton.progs.list_descriptors.attach()?;
    Ok((skeleton, link))
}

fn kind(name: &str) -> Option<Kind> {
    match name.trim_matches(['[', ']']) {
        "bpf-prog" | "bpf_link" | "bpf-link" => Some(Kind::Program),
        "perf_event" => Some(Kind::PerfEvent),
        _ => None,
    }
}

fn by_proc() -> (Vec<Descriptor>, usize) {
    let (mut found, mut unreadable) = (Vec::new(), 0);
    for tgid in crate::recording::capture::proc::processes() {
        let Ok(fds) = fs::read_dir(format!("/proc/{tgid}/fd")) else {
            // A process that has ended is none.
            unreadable += usize::from(Path::new(&format!("/proc/{tgid}")).exists());
            continue;
        };
        found.extend(fds.flatten().filter_map(|fd| {
            let target = fs::read_link(fd.path()).ok()?;
            let kind = kind(target.to_str()?.strip_prefix("anon_inode:")?)?;
            Some(Descriptor { tgid, fd: fd.file_name().to_str()?.parse().ok()?, kind })
        }));
    }
    (found, unreadable)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_kernel_lists_what_proc_shows() {
        let lister = Lister::new();
        if lister.id().is_none() {
            say!("SKIP: the kernel lists no descriptors here: it takes root and Linux 5.8");
            return;
        }
        let by_kernel = || lister.by_kernel().unwrap();
        let program = crate::programs::sys::load_empty().unwrap();
        let (tgid, fd) = (std::process::id(), program.as_raw_fd() as u32);
        let ours = Descriptor { tgid, fd, kind: Kind::Program };
        assert!(by_kernel().contains(&ours) && by_proc().0.contains(&ours));
        // A file that is only called so.
        let dir = std::env::temp_dir().join(format!("profiler-descriptors-{tgid}"));
        fs::create_dir_all(&dir).unwrap();
        let file = File::create(dir.join("bpf-prog")).unwrap();
        let strange = Descriptor { fd: file.as_raw_fd() as u32, ..ours };
        assert!(!by_kernel().contains(&strange) && !by_proc().0.contains(&strange));
        fs::remove_dir_all(&dir).unwrap();
    }
}
