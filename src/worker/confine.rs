//! How a worker gives up its rights, for good, before the first byte of a stranger's file reaches it.
//!
//! What it keeps: its memory, the socket to the recorder, and the descriptors that come over it. A worker for
//! names that has become nobody opens these once more, by `/proc/self/fd`, and files of debug information that
//! everybody may read. One that stays who it was (of a user's recorder, or one without CAP_SETUID, or without
//! CAP_KILL, which could not end it) could open what is that user's: it opens nothing, and is given copies. Those for
//! tables and for memory open nothing either. Each fence stands by itself; what the kernel does not have, or this
//! process may not do, is reported and does without.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use caps::CapSet;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getegid, geteuid, getpid, getppid, setgroups, setresgid, setresuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::Kind;

const NOBODY: u32 = 65_534;
/// Address space: the program itself, and what files are mapped and read into.
const MOST_MEMORY_FOR_TABLES: u64 = 2 << 30;
const MOST_MEMORY_FOR_NAMES: u64 = 64 << 30;
const MOST_FILES: u64 = 256;

/// Which fences stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fences {
    /// The user is nobody.
    pub is_nobody: bool,
    /// There are no capabilities, and none can be got.
    pub no_capabilities: bool,
    /// The kernel's access rules for files and the network.
    pub landlock: bool,
    /// The kernel's filter of system calls.
    pub seccomp: bool,
}

impl Fences {
    /// As bits.
    pub fn bits(self) -> u64 {
        let all = [self.is_nobody, self.no_capabilities, self.landlock, self.seccomp];
        all.into_iter().rev().fold(0, |bits, fence| bits << 1 | u64::from(fence))
    }

    /// From bits.
    pub fn from_bits(bits: u64) -> Self {
        let bit = |at: u32| bits >> at & 1 == 1;
        Self { is_nobody: bit(0), no_capabilities: bit(1), landlock: bit(2), seccomp: bit(3) }
    }
}

/// Gives up all rights; `becomes_nobody` if the recorder could end a process of another user's.
pub fn confine(kind: Kind, parent: i32, becomes_nobody: bool) -> Fences {
    limit(kind);
    let no_capabilities = drop_rights(becomes_nobody);
    // Core dumps and debuggers of the same user: nobody's processes may be others', too.
    let _ = nix::sys::prctl::set_dumpable(false);
    let no_new_rights = nix::sys::prctl::set_no_new_privs().is_ok();
    // Changing the user has undone it.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    if getppid().as_raw() != parent {
        // The recorder has ended meanwhile.
        std::process::exit(0);
    }
    let is_nobody = geteuid().as_raw() == NOBODY && getegid().as_raw() == NOBODY;
    let landlock = landlock(kind == Kind::Names && is_nobody).unwrap_or(false);
    let seccomp = no_new_rights && seccomp(kind).is_ok();
    Fences { is_nobody, no_capabilities: no_capabilities && no_new_rights, landlock, seccomp }
}

/// Bounds what can be used up.
fn limit(kind: Kind) {
    // The first that the kernel ends when memory is short. Who may not say so is as likely as others.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let memory = match kind {
        Kind::Tables | Kind::Memory => MOST_MEMORY_FOR_TABLES,
        Kind::Names => MOST_MEMORY_FOR_NAMES,
    };
    for (resource, most) in [
        (Resource::RLIMIT_AS, memory),
        (Resource::RLIMIT_NOFILE, MOST_FILES),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
    ] {
        let _ = setrlimit(resource, most, most);
    }
}

/// Gives up capabilities, and the user where that is wanted.
fn drop_rights(becomes_nobody: bool) -> bool {
    for capability in caps::all() {
        // It takes CAP_SETPCAP; without it no program that is executed gets more than we have.
        let _ = caps::drop(None, CapSet::Bounding, capability);
    }
    if becomes_nobody && geteuid().is_root() {
        let _ = setgroups(&[]);
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        let _ = setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid));
    }
    let sets = [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted];
    let cleared = sets.map(|set| caps::clear(None, set));
    // A kernel may have no ambient ones.
    cleared[1..].iter().all(Result::is_ok)
}

fn landlock(reads: bool) -> Result<bool> {
    let abi = ABI::V6;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    if reads {
        rules = rules.add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::ReadFile))?;
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

/// Allows what reading, computing and answering take; everything else fails with EPERM.
fn seccomp(kind: Kind) -> Result<()> {
    let mut calls = vec![
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_fcntl,
        libc::SYS_fstat,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_getrusage,
        libc::SYS_gettid,
        libc::SYS_lseek,
        libc::SYS_madvise,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_newfstatat,
        libc::SYS_ppoll,
        libc::SYS_pread64,
        libc::SYS_read,
        libc::SYS_recvmsg,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_yield,
        libc::SYS_sendmsg,
        libc::SYS_sigaltstack,
        libc::SYS_statx,
        libc::SYS_write,
    ];
    if kind == Kind::Names {
        calls.extend([libc::SYS_fstatfs, libc::SYS_readlinkat, libc::SYS_getcwd]);
        #[cfg(target_arch = "x86_64")]
        calls.extend([libc::SYS_readlink, libc::SYS_access]);
    }
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        calls.into_iter().map(|call| (call, Vec::new())).collect();
    let no_code = |argument| rule(argument, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    rules.insert(libc::SYS_mmap, vec![no_code(2)?]);
    rules.insert(libc::SYS_mprotect, vec![no_code(2)?]);
    // An abort sends its signal to itself, and limits are its own.
    rules.insert(libc::SYS_tgkill, vec![rule(0, SeccompCmpOp::Eq, getpid().as_raw() as u64)?]);
    rules.insert(libc::SYS_prlimit64, vec![rule(0, SeccompCmpOp::Eq, 0)?]);
    if kind == Kind::Names {
        let writes = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE;
        let writes = (writes & !libc::O_DIRECTORY) as u64;
        rules.insert(libc::SYS_openat, vec![rule(2, SeccompCmpOp::MaskedEq(writes), 0)?]);
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter: BpfProgram = SeccompFilter::new(rules, refuse, SeccompAction::Allow, arch)?.try_into()?;
    seccompiler::apply_filter(&filter).context("failed to install the filter of system calls")
}

fn rule(argument: u8, holds: SeccompCmpOp, value: u64) -> Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, holds, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_travel_as_bits() {
        for bits in 0..16 {
            assert_eq!(Fences::from_bits(bits).bits(), bits);
        }
    }
}
