//! What this process may do: its capabilities, what each is for, and what to say when one is missing.
//!
//! The kernel answers a missing capability with `EPERM` or `EACCES` and no name. So nothing is refused
//! beforehand; when the kernel has refused, what it wants for that is compared with what the process has.
//! Table and words are those of README.md, which `tests/recording/rights.rs` holds to what the kernel does.

use std::fs;

/// A capability that a recording has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Loads BPF programs and maps.
    Bpf,
    /// Opens perf events, and BPF programs that read the kernel's memory.
    Perfmon,
    /// Looks at other users' processes and into other mount namespaces.
    SysPtrace,
    /// Opens files in directories that are closed to this user.
    DacReadSearch,
    /// Follows the links to mapped files (`/proc/PID/map_files`), and so to deleted ones.
    CheckpointRestore,
    /// Sees the kernel's addresses (`/proc/kallsyms`).
    Syslog,
    /// Switches BPF run-time statistics on and lists BPF programs.
    SysAdmin,
}

use Capability::{Bpf, CheckpointRestore, DacReadSearch, Perfmon, SysAdmin, SysPtrace, Syslog};

/// For `profiler record --help`.
pub const HELP: &str = "\
Rights: root, or CAP_BPF and CAP_PERFMON; for names also CAP_SYS_PTRACE (other users' processes),
CAP_DAC_READ_SEARCH (files in closed directories), CAP_CHECKPOINT_RESTORE (deleted files) and
CAP_SYSLOG (the kernel). CAP_SYS_ADMIN is needed for what BPF programs cost, and for everything where
kernel.perf_event_paranoid is above 2, as Debian's kernels have it.";

/// What recordings do without if it is missing.
pub const FOR_NAMES: [(Capability, &str); 4] = [
    (SysPtrace, "other users' processes"),
    (DacReadSearch, "files in closed directories"),
    (CheckpointRestore, "deleted files"),
    (Syslog, "the kernel"),
];

impl Capability {
    /// Name and number, by include/uapi/linux/capability.h.
    fn known_as(self) -> (&'static str, u32) {
        match self {
            DacReadSearch => ("CAP_DAC_READ_SEARCH", 2),
            SysPtrace => ("CAP_SYS_PTRACE", 19),
            SysAdmin => ("CAP_SYS_ADMIN", 21),
            Syslog => ("CAP_SYSLOG", 34),
            Perfmon => ("CAP_PERFMON", 38),
            Bpf => ("CAP_BPF", 39),
            CheckpointRestore => ("CAP_CHECKPOINT_RESTORE", 40),
        }
    }

    /// `CAP_…`.
    pub fn name(self) -> &'static str {
        self.known_as().0
    }

    /// Whether a set, as the kernel writes it, has this one or the one that stands in for it: what was
    /// CAP_SYS_ADMIN's before it got a capability of its own, CAP_SYS_ADMIN still permits.
    fn is_in(self, set: u64) -> bool {
        let has = |capability: Self| set >> capability.known_as().1 & 1 == 1;
        has(self) || (matches!(self, Bpf | Perfmon | CheckpointRestore) && has(SysAdmin))
    }
}

/// The effective set of this process; if it cannot be read, all.
fn effective() -> u64 {
    set_of("CapEff:")
}

fn permitted() -> u64 {
    set_of("CapPrm:")
}

fn set_of(name: &str) -> u64 {
    let status = super::read_text("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(name)?.trim(), 16).ok());
    set.unwrap_or(u64::MAX)
}

/// Whether this process has a capability, or one that stands in for it.
pub fn has(capability: Capability) -> bool {
    capability.is_in(effective())
}

/// Whether this process may end those of other users (CAP_KILL).
pub fn may_end_others() -> bool {
    effective() >> 5 & 1 == 1
}

/// Whether it may replace other users' files where only these may (CAP_FOWNER).
pub fn may_act_as_owner() -> bool {
    effective() >> 3 & 1 == 1
}

/// What a recorder goes on needing when it has begun, by number: CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and
/// CAP_FOWNER for its output; CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP and CAP_SYS_RESOURCE for its workers and
/// its command; and those of [`Capability`] for processes that come.
const KEPT: [u32; 15] = [0, 1, 2, 3, 5, 6, 7, 8, 19, 21, 24, 34, 38, 39, 40];

/// Gives up, for good, what a recording that has begun has no use for. CAP_SYS_ADMIN is kept where the kernel asks for
/// it, and for what BPF programs cost.
pub fn keep_for_recording(watches_programs: bool) {
    let replaced = has_itself(Bpf) && has_itself(Perfmon);
    let needs_admin = watches_programs || is_paranoid() || !replaced;
    let kept = KEPT.iter().filter(|&&number| number != SysAdmin.known_as().1 || needs_admin);
    let kept = kept.fold(0u64, |set, number| set | 1 << number);
    for number in (0..64).filter(|number| kept >> number & 1 == 0) {
        // Where this is not permitted, no program that is executed gets more than this process has.
        // SAFETY: takes numbers alone.
        unsafe { nix::libc::prctl(nix::libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
    }
    // A process may always have less; where it may not, it goes on with what it has.
    let _ = set_capabilities(effective() & kept, permitted() & kept);
}

/// Whether a set has a capability itself, and none that stands in for it.
fn has_itself(capability: Capability) -> bool {
    effective() >> capability.known_as().1 & 1 == 1
}

/// Gives up all capabilities, for good.
///
/// # Errors
/// If the kernel refuses.
pub fn give_up_all() -> std::io::Result<()> {
    set_capabilities(0, 0)
}

fn set_capabilities(effective: u64, permitted: u64) -> std::io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`; 0: of this thread.
    const OF_OURSELVES: [u32; 2] = [0x2008_0522, 0];
    let [low, high] = [0, 32].map(|shift| [effective, permitted, 0].map(|set| (set >> shift) as u32));
    let sets = [low, high];
    // SAFETY: capset(2) reads a header of two words and, for this version, six words of sets: effective, permitted and
    // inheritable, the lower halves and the upper.
    let set = unsafe { nix::libc::syscall(nix::libc::SYS_capset, OF_OURSELVES.as_ptr(), sets.as_ptr()) };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// What the kernel refused to do, of which it is known what it takes: why, and what to do.
pub fn refusal(needed: &[Capability]) -> String {
    explain(effective(), needed)
}

/// The same of a perf event.
pub fn refusal_of_perf() -> String {
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    explain_perf(effective(), paranoid.trim())
}

/// Whether the kernel asks for `CAP_SYS_ADMIN` for everything, as Debian's do.
pub fn is_paranoid() -> bool {
    let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    paranoid.trim().parse().is_ok_and(|paranoid: i32| paranoid > 2)
}

fn explain(set: u64, needed: &[Capability]) -> String {
    let missing: Vec<&str> = needed.iter().filter(|it| !it.is_in(set)).map(|it| it.name()).collect();
    match missing[..] {
        [] => {
            let needed: Vec<&str> = needed.iter().map(|it| it.name()).collect();
            format!(
                "not permitted, though this process has {}: it is in a user namespace, or a filter of system calls \
                 (seccomp), a security module or, before Linux 5.11, the limit of locked memory (ulimit -l) forbids it",
                needed.join(" and ")
            )
        }
        [one] => format!("not permitted: {one} is missing; run as root (sudo profiler …), or add it"),
        _ => format!(
            "not permitted: {} are missing; run as root (sudo profiler …), or add them",
            missing.join(" and ")
        ),
    }
}

/// Upstream's kernel knows 2 as the strictest; Debian's and Ubuntu's know 3 and 4, which CAP_PERFMON does not
/// overcome.
fn explain_perf(set: u64, paranoid: &str) -> String {
    if !SysAdmin.is_in(set) && paranoid.parse().is_ok_and(|paranoid: i32| paranoid > 2) {
        return format!(
            "not permitted: kernel.perf_event_paranoid is {paranoid}, and above 2 it takes CAP_SYS_ADMIN, which is \
             missing; run as root (sudo profiler …), add it, or type: sudo sysctl kernel.perf_event_paranoid=2"
        );
    }
    explain(set, &[Perfmon])
}

/// What will have no names for want of a capability, in words; `None` if none is missing.
pub fn without_names() -> Option<String> {
    names_lost(effective())
}

fn names_lost(set: u64) -> Option<String> {
    let missing = FOR_NAMES.iter().filter(|(capability, _)| !capability.is_in(set));
    let missing: Vec<String> =
        missing.map(|(it, what)| format!("{what} ({} is missing)", it.name())).collect();
    (!missing.is_empty()).then(|| format!("frames may have no names: those of {}", missing.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(capabilities: &[Capability]) -> u64 {
        capabilities.iter().map(|it| 1 << it.known_as().1).sum()
    }

    #[test]
    fn what_is_missing_is_named_and_nothing_else() {
        let none = explain(0, &[Bpf, Perfmon]);
        assert!(none.contains("CAP_BPF and CAP_PERFMON are missing"), "{none}");
        let one = explain(set(&[Bpf]), &[Bpf, Perfmon]);
        assert!(one.contains("CAP_PERFMON is missing") && !one.contains("CAP_BPF"), "{one}");
        let all = explain(set(&[SysAdmin]), &[Bpf, Perfmon]);
        assert!(all.contains("seccomp") && !all.contains("missing"), "{all}");
    }

    #[test]
    fn debians_paranoia_is_not_blamed_on_perfmon() {
        let six = set(&[Bpf, Perfmon, SysPtrace, DacReadSearch, CheckpointRestore, Syslog]);
        let refused = explain_perf(six, "3");
        assert!(
            refused.contains("perf_event_paranoid is 3") && refused.contains("CAP_SYS_ADMIN"),
            "{refused}"
        );
        assert!(explain_perf(set(&[Bpf]), "2").contains("CAP_PERFMON is missing"));
        assert!(!explain_perf(u64::MAX, "3").contains("paranoid"));
    }

    #[test]
    fn the_six_lose_no_names_and_each_of_four_loses_some() {
        let six = set(&[Bpf, Perfmon, SysPtrace, DacReadSearch, CheckpointRestore, Syslog]);
        assert_eq!(names_lost(six), None);
        for (capability, what) in FOR_NAMES {
            let text = names_lost(six & !set(&[capability])).unwrap();
            assert!(text.contains(capability.name()) && text.contains(what), "{text}");
            assert_eq!(text.matches("CAP_").count(), 1, "{text}");
        }
    }
}
