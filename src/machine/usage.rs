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
    status_bytes("self", "VmRSS:")
}

/// Largest resident memory of this process so far, in bytes.
pub fn own_peak_bytes() -> u64 {
    // The resource usage of a process counts its parent's pages until exec: read our own instead.
    peak_bytes("self")
}

/// The same of a process that lives.
pub fn peak_bytes(pid: &str) -> u64 {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: &str, name: &str) -> u64 {
    let status = super::read_text(format!("/proc/{pid}/status")).unwrap_or_default();
    kib_of(&status, name).unwrap_or(0)
}

/// Bytes, of a line `NAME N kB`.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let kib = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    kib.map(|kib: u64| kib * 1024)
}

/// Descriptors of a recording itself: BPF maps, programs and links (44 were counted), pipes, files of
/// `/proc`; and of each CPU: two rings, a clock, the link of the sampler to it.
const OWN_DESCRIPTORS: u64 = 96;
const DESCRIPTORS_PER_CPU: u64 = 4;
/// What stays free when all else is open: what is opened and closed again.
const SPARE_DESCRIPTORS: u64 = 24;

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

/// Below it, a recording takes less than it would.
const LITTLE_MEMORY: u64 = 256 << 20;

/// How much memory there is for a recording, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomInMemory(pub u64);

impl RoomInMemory {
    /// Enough for everything.
    pub const PLENTY: Self = Self(u64::MAX);

    /// As the machine and the limits of our cgroups tell it now. They cannot tell all: who gets no memory has to go
    /// on with less.
    pub fn now() -> Self {
        let meminfo = super::read_text("/proc/meminfo").unwrap_or_default();
        let available = kib_of(&meminfo, "MemAvailable:");
        available.into_iter().chain(super::cgroups::memory_limit()).min().map_or(Self::PLENTY, Self)
    }

    /// Whether tables and rings have to be small.
    pub fn is_little(self) -> bool {
        self.0 < LITTLE_MEMORY
    }

    /// Less than there seemed to be: little.
    pub fn less(self) -> Self {
        Self(self.0.min(LITTLE_MEMORY) / 2)
    }
}

/// Below which number the descriptors of files must be that are kept open.
#[derive(Clone, Copy, Debug)]
pub struct RoomForFiles {
    /// Until the sampler is loaded.
    pub before: i32,
    /// From then on.
    pub after: i32,
    /// There is not even room for all that a recording takes by itself.
    pub is_tight: bool,
}

impl RoomForFiles {
    /// Raises the limit as far as it may be. One that is below what a recording takes by itself is raised to
    /// that, where this is permitted, and told: files find little room then.
    pub fn make(cpus: usize) -> Self {
        let own = OWN_DESCRIPTORS + DESCRIPTORS_PER_CPU * cpus as u64;
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((own, own));
        if hard < own && setrlimit(Resource::RLIMIT_NOFILE, own, own).is_ok() {
            say!(
                "profiler: the limit of open files (RLIMIT_NOFILE) is {hard}, and a recording itself takes up to {own}: \
                 raised to that; few files are opened, and the others have no names"
            );
        } else {
            raise_file_limit();
        }
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((own, own));
        let below = |kept: u64| i32::try_from(limit.saturating_sub(kept)).unwrap_or(i32::MAX);
        let is_tight = limit < own;
        if is_tight {
            say!(
                "profiler: the limit of open files (RLIMIT_NOFILE) is {limit}, and a recording itself takes up to {own}: \
                 stacks are walked by frame pointers, what BPF programs cost is not recorded, and few files have names"
            );
        }
        Self { before: below(own), after: below(SPARE_DESCRIPTORS), is_tight }
    }
}

/// Release and machine name of the running kernel.
pub fn kernel() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown kernel".to_owned(),
        |name| format!("{} {}", name.release().to_string_lossy(), name.machine().to_string_lossy()),
    )
}
