//! What this kernel can do, asked of its own type information (BTF): distributions bring features to kernels
//! of older versions, and leave some out of newer ones. A version is looked at for one thing only, a bug
//! whose fix changes no type.

use std::fs;
use std::sync::LazyLock;

use libbpf_rs::btf::types::{Enum, Enum64, FuncProto, Ptr, Typedef};
use libbpf_rs::btf::{Btf, BtfType};

/// The fix without which [`user_reads_may_freeze`].
const READS_FIX: &str = "a fix for reads of user memory in interrupts (6.1.36, 6.3.10 or 6.4)";

/// What of it matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Features {
    bpf_loop: bool,
    task_pt_regs: bool,
    /// The tracepoint `sched_switch` tells the state with which a thread leaves.
    state_at_switch: bool,
    sched_exit: bool,
    task_storage: bool,
    /// Tracepoints tell of cgroups.
    cgroups: bool,
}

static FEATURES: LazyLock<Features> = LazyLock::new(|| {
    // Without BTF nothing can be loaded, and that is said in its own words.
    let all = Features {
        bpf_loop: true,
        task_pt_regs: true,
        state_at_switch: true,
        sched_exit: true,
        task_storage: true,
        cgroups: true,
    };
    Btf::from_vmlinux().map_or(all, |btf| Features {
        bpf_loop: has_helper(&btf, "BPF_FUNC_loop"),
        task_pt_regs: has_helper(&btf, "BPF_FUNC_task_pt_regs"),
        task_storage: has_helper(&btf, "BPF_FUNC_task_storage_get"),
        // The program's context, preempt, prev, next, prev_state.
        state_at_switch: tracepoint_parameters(&btf, "sched_switch").is_some_and(|n| n >= 5),
        sched_exit: tracepoint_parameters(&btf, "sched_exit_tp").is_some(),
        cgroups: tracepoint_parameters(&btf, "cgroup_mkdir").is_some(),
    })
});

fn has_helper(btf: &Btf<'_>, name: &str) -> bool {
    let is_it = |value: Option<&std::ffi::OsStr>| value.is_some_and(|value| value == name);
    match btf.type_by_name::<Enum<'_>>("bpf_func_id") {
        Some(helpers) => helpers.iter().any(|helper| is_it(helper.name)),
        None => btf
            .type_by_name::<Enum64<'_>>("bpf_func_id")
            .is_some_and(|helpers| helpers.iter().any(|helper| is_it(helper.name))),
    }
}

/// How many parameters a tracepoint's functions take, the first of them the kernel's own; `None` if there
/// is no such tracepoint.
fn tracepoint_parameters(btf: &Btf<'_>, name: &str) -> Option<usize> {
    let pointer: BtfType<'_> = btf.type_by_name::<Typedef<'_>>(&format!("btf_trace_{name}"))?.next_type()?;
    let function = Ptr::try_from(pointer).ok()?.next_type()?;
    Some(FuncProto::try_from(function).ok()?.len())
}

/// Whether reading user memory from an interrupt can freeze this kernel.
///
/// In Linux 5.19 to 6.3, `copy_from_user_nofault` checks the kernel's side of the copy and takes a
/// lock for that, which the interrupted code may hold. Fixed in 6.4 ("mm: Fix
/// copy_from_user_nofault()", d319f344561d), 6.3.10 and 6.1.36.
pub fn user_reads_may_freeze() -> bool {
    running().is_some_and(may_freeze)
}

/// Whether the kernel itself walks user stacks, by frame pointers, because we must not or, without
/// the registers of a task in the kernel (`bpf_task_pt_regs`), cannot.
pub fn walks_user_stacks() -> bool {
    user_reads_may_freeze() || !FEATURES.task_pt_regs
}

/// What this kernel lacks for walks by unwind tables, in words.
pub fn lacks_for_tables() -> Option<&'static str> {
    if user_reads_may_freeze() {
        return Some(READS_FIX);
    }
    (!FEATURES.bpf_loop).then_some("bpf_loop (Linux 5.17)")
}

/// What this kernel lacks for recording time off the CPU, in words.
pub fn lacks_for_off_cpu() -> Option<&'static str> {
    (!FEATURES.state_at_switch).then_some("the thread's state in sched_switch (Linux 5.18)")
}

/// What this kernel lacks for measuring calls, in words.
pub fn lacks_for_latency() -> Option<&'static str> {
    match () {
        () if !FEATURES.task_storage => Some("memory of BPF programs in each thread (Linux 5.11)"),
        () if !FEATURES.task_pt_regs => Some("bpf_task_pt_regs (Linux 5.15)"),
        () => lacks_for_tables(),
    }
}

/// Whether there is a tracepoint behind a switch, in the thread that returns (Linux 6.18).
pub fn has_sched_exit() -> bool {
    FEATURES.sched_exit
}

/// Whether the kernel has cgroups, and tells of them.
pub fn tells_cgroups() -> bool {
    FEATURES.cgroups
}

/// The number of a v1 controller of cgroups in this kernel.
pub fn cgroup_subsystem(controller: &str) -> Option<u32> {
    // The one whose name is another inside.
    let controller = if controller == "blkio" { "io" } else { controller };
    let name = format!("{controller}_cgrp_id");
    let btf = Btf::from_vmlinux().ok()?;
    let all = btf.type_by_name::<Enum<'_>>("cgroup_subsys_id")?;
    let found = all.iter().find(|member| member.name.is_some_and(|known| *known == *name))?;
    u32::try_from(found.value).ok()
}

/// The frames that the kernel gives of its own stack, at most; its default if it does not tell.
pub fn max_stack() -> u32 {
    const DEFAULT: u32 = 127;
    let told = fs::read_to_string("/proc/sys/kernel/perf_event_max_stack");
    told.ok().and_then(|told| told.trim().parse().ok()).unwrap_or(DEFAULT)
}

/// The upstream version of this kernel, if it tells.
fn running() -> Option<[u32; 3]> {
    let signature = fs::read_to_string("/proc/version_signature").unwrap_or_default();
    let version = fs::read_to_string("/proc/version").unwrap_or_default();
    upstream(&signature, &version)
}

fn may_freeze(version: [u32; 3]) -> bool {
    match version {
        [5, minor, _] => minor >= 19,
        [6, 0 | 2, _] => true,
        [6, 1, patch] => patch < 36,
        [6, 3, patch] => patch < 10,
        _ => false,
    }
}

/// The upstream version, which distributions hide behind a release such as `6.1.0-50-amd64`:
/// Ubuntu tells it at the end of /proc/version_signature, Debian within /proc/version.
fn upstream(signature: &str, version: &str) -> Option<[u32; 3]> {
    let words = || version.split_whitespace();
    let debian = words().skip_while(|word| *word != "Debian").nth(1);
    let release = words().nth(2);
    [signature.split_whitespace().last(), debian, release].into_iter().flatten().find_map(parse)
}

fn parse(text: &str) -> Option<[u32; 3]> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let mut numbers = text[..end].split('.').map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok);
    Some([next()?, next()?, next().unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_versions() {
        let debian = "Linux version 6.1.0-50-cloud-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian \
                      12.2.0-14+deb12u1) 12.2.0) #1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1 (2026-10-01)";
        // gcc's own version comes first, in parentheses: "(Debian" is another word.
        assert_eq!(upstream("", debian), Some([6, 1, 176]));
        let ubuntu = "Linux version 6.2.0-39-generic (buildd@lcy02) #40-Ubuntu SMP";
        assert_eq!(upstream("Ubuntu 6.2.0-39.40-generic 6.2.16", ubuntu), Some([6, 2, 16]));
        assert_eq!(upstream("", "Linux version 6.18.44-fc-v669 (x@y) #1 SMP"), Some([6, 18, 44]));
    }

    #[test]
    fn kernels_that_may_freeze() {
        for bad in [[5, 19, 0], [6, 0, 7], [6, 1, 35], [6, 2, 16], [6, 3, 9]] {
            assert!(may_freeze(bad), "{bad:?}");
        }
        for good in [[5, 10, 0], [5, 18, 9], [6, 1, 36], [6, 3, 10], [6, 4, 0], [7, 2, 0]] {
            assert!(!may_freeze(good), "{good:?}");
        }
    }
}
