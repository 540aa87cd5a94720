//! How often system calls, or the kernel's functions for files, are called: `bpf/counts.bpf.c`.

use std::mem::MaybeUninit;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject, PrintLevel};

use super::{keep_message, with_log};

#[allow(missing_docs, unused_qualifications, clippy::all, clippy::pedantic)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/counts.skel.rs"));
}
use skeleton::types as abi;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// System calls, by their numbers.
    Syscalls,
    /// Functions for files.
    Vfs,
}

/// Index of the system calls of programs in the machine's 32-bit mode, in place of a number.
pub const OF_32_BIT: usize = abi::counts_limits::COUNTS_32_BIT.0 as usize;
/// Index of system calls with numbers beyond all that are known.
pub const UNKNOWN: usize = abi::counts_limits::COUNTS_UNKNOWN.0 as usize;
/// Names of the functions for files, by their index.
pub const VFS: [&str; abi::vfs::VFS_FUNCTIONS.0 as usize] =
    ["vfs_read", "vfs_write", "vfs_fsync_range", "vfs_open", "vfs_create"];

/// Counters that run.
pub struct Counts {
    skeleton: skeleton::CountsSkel<'static>,
    links: Vec<Link>,
}

impl Counts {
    /// Loads the programs. Nothing is counted before [`Self::attach`].
    ///
    /// # Errors
    /// If the kernel refuses, or has no means to see calls of its own functions.
    pub fn load(what: Counted) -> Result<Self> {
        libbpf_rs::set_print(Some((PrintLevel::Warn, keep_message)));
        if what == Counted::Syscalls {
            let skeleton = load(|name| name == "count_syscall")
                .map_err(|error| with_log(error, "failed to load the BPF program"))?;
            return Ok(Self { skeleton, links: Vec::new() });
        }
        let refused = match load(|name| name.ends_with("_entry")).and_then(|skeleton| {
            let links = attach(&skeleton)?;
            Ok((skeleton, links))
        }) {
            Ok((skeleton, _)) => return Ok(Self { skeleton, links: Vec::new() }),
            Err(error) => error,
        };
        if !Path::new("/sys/bus/event_source/devices/kprobe").exists() {
            bail!(
                "this kernel cannot count calls of its own functions: it has no kprobes, and refuses fentry ({refused})"
            );
        }
        let skeleton = load(|name| name.ends_with("_kprobe"))
            .map_err(|error| with_log(error, "failed to load the BPF programs"))?;
        Ok(Self { skeleton, links: Vec::new() })
    }

    /// Begins to count.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(&mut self) -> Result<()> {
        self.links =
            attach(&self.skeleton).map_err(|error| anyhow!("failed to attach the BPF programs: {error}"))?;
        Ok(())
    }

    /// Calls so far, by index.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn read(&self) -> Result<Vec<u64>> {
        let indices = 0..abi::counts_limits::COUNTS.0;
        let map = &self.skeleton.maps.counts;
        indices
            .map(|index| {
                let cpus = map.lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)?.unwrap_or_default();
                let words = cpus.iter().filter_map(|word| word.first_chunk());
                Ok(words.map(|&word| u64::from_ne_bytes(word)).sum())
            })
            .collect()
    }
}

fn load(wanted: impl Fn(&str) -> bool) -> libbpf_rs::Result<skeleton::CountsSkel<'static>> {
    // The object lives as long as the process.
    let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
    let mut open = skeleton::CountsSkelBuilder::default().open(storage)?;
    for mut program in open.open_object_mut().progs_mut() {
        let is_wanted = wanted(&program.name().to_string_lossy());
        program.set_autoload(is_wanted);
    }
    open.load()
}

fn attach(skeleton: &skeleton::CountsSkel<'_>) -> libbpf_rs::Result<Vec<Link>> {
    let programs = skeleton.object().progs_mut().filter(|program| program.autoload());
    programs.map(|program| program.attach()).collect()
}
