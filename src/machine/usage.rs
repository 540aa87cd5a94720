//! What the machine and this process used: CPU time and memory, read before and after.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};

/// CPU time of some CPUs since boot, by the kernel's own accounting (10 ms ticks).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTime {
    /// Seconds in which something ran.
    pub busy_s: f64,
    /// Seconds in which nothing did.
    pub idle_s: f64,
}

impl CpuTime {
    /// Of the given CPUs, now.
    pub fn of(cpus: &[u32]) -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let mut sum = Self::default();
        for line in stat.lines() {
            let mut fields = line.split_whitespace();
            let cpu = fields.next().and_then(|name| name.strip_prefix("cpu")?.parse::<u32>().ok());
            if !cpu.is_some_and(|cpu| cpus.contains(&cpu)) {
                continue;
            }
            // user nice system idle iowait irq softirq; guests are within user, steal is nobody's.
            let ticks: Vec<f64> = fields.take(7).filter_map(|field| field.parse().ok()).collect();
            let idle: f64 = ticks.iter().skip(3).take(2).sum();
            sum.idle_s += idle / 100.0;
            sum.busy_s += (ticks.iter().sum::<f64>() - idle) / 100.0;
        }
        sum
    }

    /// What came since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self { busy_s: self.busy_s - earlier.busy_s, idle_s: self.idle_s - earlier.idle_s }
    }
}

/// CPU time of this process so far, in seconds.
pub fn own_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_SELF)
}

fn cpu_s(who: UsageWho) -> f64 {
    getrusage(who).map_or(0.0, |usage| {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}

/// CPU time of children that have ended, in seconds.
pub fn children_cpu_s() -> f64 {
    cpu_s(UsageWho::RUSAGE_CHILDREN)
}

/// Resident memory of this process now, in bytes.
pub fn resident_bytes() -> u64 {
    status_bytes("VmRSS:")
}

/// Largest resident memory of this process so far, in bytes.
pub fn own_peak_bytes() -> u64 {
    // The resource usage of a process counts its parent's pages until exec: read our own instead.
    status_bytes("VmHWM:")
}

fn status_bytes(name: &str) -> u64 {
    let status = super::read_text("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0u64) * 1024
}

/// Lets this process hold as many files open as it may: each binary on the machine stays open while
/// it is recorded. Without the right to more, the binaries beyond the limit go unnamed.
pub fn raise_file_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// The name of this host.
pub fn host() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "unknown".to_owned(), |name| name.nodename().to_string_lossy().into_owned())
}

/// Release and machine name of the running kernel.
pub fn kernel() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown kernel".to_owned(),
        |name| format!("{} {}", name.release().to_string_lossy(), name.machine().to_string_lossy()),
    )
}
