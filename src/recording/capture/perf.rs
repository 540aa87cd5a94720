//! perf events: the ticks that the sampler runs on, and the side-band.
//!
//! The side-band is one dummy software event per CPU whose ring tells of every fork, exec, thread
//! name, exit, executable mapping and BPF program of the machine. Its records are small and are
//! written by the kernel at the very moment, so that a process which lives for 3 ms leaves them
//! behind. Layouts are those of `perf_event.h`; every record ends in the sample id that
//! `sample_id_all` asks for: `{ u32 pid, tid; u64 time; }`.
//!
//! The only user of perf-event-open-sys.

pub mod counter;
pub mod event;

use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use memmap2::{MmapOptions, MmapRaw};
use perf_event_open_sys as sys;
use sys::bindings as abi;

use self::event::Event as Sampled;
use crate::machine::rights;
use crate::model::event::{Event, FileId, Ksymbol, Mmap, Timed};

/// Parses a CPU list as in `0-3,8`, the format of the files in sysfs.
pub fn parse_cpus(list: &str) -> Result<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = (first.trim().parse::<u32>(), last.trim().parse::<u32>());
        match bounds {
            (Ok(first), Ok(last)) if first <= last && last < 65_536 => cpus.extend(first..=last),
            _ => bail!("`{list}` is not a list of CPUs such as 0-3,8"),
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// The CPUs that are online.
pub fn online_cpus() -> Result<Vec<u32>> {
    let path = "/sys/devices/system/cpu/online";
    parse_cpus(&fs::read_to_string(path).with_context(|| format!("failed to read {path}"))?)
}

/// Opens an event for all tasks on a CPU.
fn open(attr: &mut abi::perf_event_attr, cpu: u32) -> io::Result<OwnedFd> {
    open_for(attr, -1, cpu as i32, 0)
}

/// Opens an event for a task (or, by the flags, a cgroup) and a CPU; -1 is any.
fn open_for(attr: &mut abi::perf_event_attr, task: i32, cpu: i32, flags: u32) -> io::Result<OwnedFd> {
    attr.size = size_of::<abi::perf_event_attr>() as u32;
    let flags = flags | abi::PERF_FLAG_FD_CLOEXEC;
    // SAFETY: `attr` is a valid attribute structure that says its own size.
    let fd = unsafe { sys::perf_event_open(attr, task, cpu, -1, flags.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call just returned this descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens the sampling clock of a CPU, stopped until a BPF program is attached to it.
pub fn open_clock(cpu: u32, frequency_hz: u32, include_idle: bool) -> Result<OwnedFd> {
    let mut attr = abi::perf_event_attr {
        type_: abi::PERF_TYPE_SOFTWARE,
        config: u64::from(abi::PERF_COUNT_SW_CPU_CLOCK),
        ..Default::default()
    };
    attr.__bindgen_anon_1.sample_freq = u64::from(frequency_hz);
    attr.set_freq(1);
    attr.set_disabled(1);
    attr.set_exclude_idle(u64::from(!include_idle));
    open(&mut attr, cpu).map_err(|error| explain(error, cpu, frequency_hz))
}

/// How often an event is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// So often a second; the kernel finds the period.
    Hz(u32),
    /// Once in so many events of a CPU.
    OneIn(u64),
}

/// Opens an event of a CPU to be sampled, stopped until a BPF program is attached to it.
pub fn open_sampled(event: &Sampled, cpu: u32, rate: Rate) -> Result<OwnedFd> {
    let mut attr = event.attr();
    attr.set_disabled(1);
    let hz = match rate {
        Rate::Hz(hz) => {
            attr.__bindgen_anon_1.sample_freq = u64::from(hz);
            attr.set_freq(1);
            hz
        }
        Rate::OneIn(period) => {
            attr.__bindgen_anon_1.sample_period = period;
            0
        }
    };
    open(&mut attr, cpu).map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ENOENT | nix::libc::EOPNOTSUPP | nix::libc::ENODEV) => anyhow::anyhow!(
            "this machine does not count {}: a virtual machine has seldom hardware counters, and not every event can \
             be sampled; page-faults, context-switches and task-clock always can",
            event.name
        ),
        _ => explain(error, cpu, hz),
    })
}

fn explain(error: io::Error, cpu: u32, frequency_hz: u32) -> anyhow::Error {
    let what = format!("failed to open the sampling event of CPU {cpu} at {frequency_hz} Hz");
    match error.raw_os_error() {
        Some(nix::libc::EACCES | nix::libc::EPERM) => {
            anyhow::anyhow!("{what}: {}", rights::refusal_of_perf())
        }
        Some(nix::libc::EINVAL) => {
            let limit = fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate").unwrap_or_default();
            anyhow::anyhow!(
                "{what}: the kernel refuses the rate (kernel.perf_event_max_sample_rate is {}); choose a lower -F",
                limit.trim()
            )
        }
        _ => anyhow::Error::new(error).context(what),
    }
}

/// The side-band of all CPUs.
pub struct Sideband {
    /// By CPU.
    rings: Vec<(u32, Ring)>,
    attr: abi::perf_event_attr,
    pages: usize,
    /// Records that the kernel had no room for.
    pub lost: u64,
    /// What this kernel does not report, in words.
    pub missing: Vec<String>,
}

impl Sideband {
    /// Opens the side-band of `cpus`, with `pages` (a power of two) of ring each.
    pub fn open(cpus: &[u32], pages: usize) -> Result<Self> {
        let mut missing = Vec::new();
        let mut attr = abi::perf_event_attr {
            type_: abi::PERF_TYPE_SOFTWARE,
            config: u64::from(abi::PERF_COUNT_SW_DUMMY),
            sample_type: u64::from(abi::PERF_SAMPLE_TID | abi::PERF_SAMPLE_TIME),
            clockid: nix::libc::CLOCK_MONOTONIC,
            ..Default::default()
        };
        attr.set_use_clockid(1);
        attr.set_sample_id_all(1);
        attr.set_watermark(1);
        attr.__bindgen_anon_2.wakeup_watermark = (pages * page_size() / 4) as u32;
        attr.set_task(1);
        attr.set_comm(1);
        attr.set_comm_exec(1);
        attr.set_mmap(1);
        attr.set_mmap2(1);
        attr.set_ksymbol(1);
        // Not build_id: a kernel that writes one mapping's record to several listeners leaves the bit
        // that marks a build id set for those that asked for none, who then take an inode for one.
        // Other profilers crash of it (seen on Linux 6.18, perf_event_mmap_output).
        let first = *cpus.first().context("no CPU is online")?;
        // A kernel refuses bits it does not know.
        if open(&mut attr, first).is_err_and(|error| error.raw_os_error() == Some(nix::libc::EINVAL)) {
            attr.set_ksymbol(0);
            missing.push("symbol records of BPF programs (Linux 5.1)".to_owned());
        }
        let mut sideband = Self { rings: Vec::new(), attr, pages, lost: 0, missing };
        cpus.iter().try_for_each(|&cpu| sideband.listen_to(cpu))?;
        Ok(sideband)
    }

    /// Opens the ring of a CPU: at the start, and again when a CPU has come back, for the kernel takes its events
    /// away with it. What a ring of before holds is read first, by [`Self::read`].
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn listen_to(&mut self, cpu: u32) -> Result<()> {
        let pages = self.pages;
        let fd = open(&mut self.attr, cpu).map_err(|error| match error.raw_os_error() {
            Some(nix::libc::EACCES | nix::libc::EPERM) => anyhow::anyhow!(
                "failed to open the perf side-band of CPU {cpu}: {}",
                rights::refusal_of_perf()
            ),
            _ => anyhow::Error::new(error).context(format!("failed to open the perf side-band of CPU {cpu}")),
        })?;
        let ring = Ring::map(fd, pages)
            .with_context(|| format!("failed to map {pages} pages of perf ring for CPU {cpu}"))?;
        self.rings.retain(|(known, _)| *known != cpu);
        self.rings.push((cpu, ring));
        Ok(())
    }

    /// Descriptors that become readable when a ring fills up.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|(_, ring)| ring.fd.as_fd())
    }

    /// Bytes of ring that are mapped.
    pub fn ring_bytes(&self) -> u64 {
        self.rings.iter().map(|(_, ring)| ring.map.len() as u64).sum()
    }

    /// Appends everything that is in the rings, CPU by CPU.
    pub fn read(&mut self, events: &mut Vec<Timed>) {
        let lost = &mut self.lost;
        for (_, ring) in &mut self.rings {
            ring.drain(|kind, misc, body| match kind {
                abi::PERF_RECORD_LOST => *lost += Fields(body).skip(8).u64(),
                _ => events.extend(parse(kind, misc, body)),
            });
        }
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { nix::libc::sysconf(nix::libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// The kernel's ring of one event: a control page, then data.
struct Ring {
    fd: OwnedFd,
    map: MmapRaw,
    record: Vec<u8>,
}

impl Ring {
    fn map(fd: OwnedFd, pages: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len((pages + 1) * page_size()).map_raw(fd.as_raw_fd())?;
        Ok(Self { fd, map, record: Vec::new() })
    }

    /// Hands over every whole record: type, misc bits, and what follows the header.
    fn drain(&mut self, mut each: impl FnMut(u32, u16, &[u8])) {
        let page = page_size();
        let size = self.map.len() - page;
        let base = self.map.as_mut_ptr();
        let control = base.cast::<abi::perf_event_mmap_page>();
        // SAFETY: the control page is mapped for the life of `self`, and the two positions are
        // aligned u64s that kernel and user space share by the protocol of perf_event.h: the
        // kernel writes data_head, which must be read before the data, and we write data_tail
        // when the data has been read.
        let (head, tail) = unsafe {
            (
                AtomicU64::from_ptr(&raw mut (*control).data_head),
                AtomicU64::from_ptr(&raw mut (*control).data_tail),
            )
        };
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        let copy = |at: u64, into: &mut [u8]| {
            let start = at as usize % size;
            let first = into.len().min(size - start);
            // SAFETY: both parts lie within the `size` bytes of data behind the control page, and
            // the kernel does not write between tail and head.
            unsafe {
                std::ptr::copy_nonoverlapping(base.add(page + start), into.as_mut_ptr(), first);
                std::ptr::copy_nonoverlapping(
                    base.add(page),
                    into.as_mut_ptr().add(first),
                    into.len() - first,
                );
            }
        };
        while end.wrapping_sub(at) >= 8 {
            let mut header = [0; 8];
            copy(at, &mut header);
            let fields = Fields(&header);
            let (kind, misc, length) = (fields.u32(), fields.skip(4).u16(), fields.skip(6).u16());
            if length < 8 || u64::from(length) > end.wrapping_sub(at) {
                // Cannot be unless the kernel breaks its own format; skip all rather than loop.
                at = end;
                break;
            }
            self.record.resize(usize::from(length) - 8, 0);
            copy(at + 8, &mut self.record);
            each(kind, misc, &self.record);
            at += u64::from(length);
        }
        tail.store(at, Ordering::Release);
    }
}

/// Native-endian fields at the start of a slice; beyond its end they read as zero.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn skip(self, bytes: usize) -> Self {
        Self(self.0.get(bytes..).unwrap_or_default())
    }
    fn array<const N: usize>(self) -> [u8; N] {
        self.0.first_chunk().copied().unwrap_or([0; N])
    }
    fn u16(self) -> u16 {
        u16::from_ne_bytes(self.array())
    }
    fn u32(self) -> u32 {
        u32::from_ne_bytes(self.array())
    }
    fn u64(self) -> u64 {
        u64::from_ne_bytes(self.array())
    }
    /// Text up to the first NUL.
    fn text(self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..end]).into_owned()
    }
}

/// The event that a record tells of, if it is one we follow.
fn parse(kind: u32, misc: u16, body: &[u8]) -> Option<Timed> {
    let sample_id = body.len().checked_sub(16)?;
    let time_ns = Fields(&body[sample_id + 8..]).u64();
    let body = Fields(&body[..sample_id]);
    let event = match kind {
        abi::PERF_RECORD_FORK => Event::Fork {
            tgid: body.u32(),
            parent_tgid: body.skip(4).u32(),
            tid: body.skip(8).u32(),
            parent_tid: body.skip(12).u32(),
        },
        abi::PERF_RECORD_EXIT => Event::Exit { tgid: body.u32(), tid: body.skip(8).u32() },
        abi::PERF_RECORD_COMM => Event::Comm {
            tgid: body.u32(),
            tid: body.skip(4).u32(),
            comm: body.skip(8).text(),
            exec: u32::from(misc) & abi::PERF_RECORD_MISC_COMM_EXEC != 0,
        },
        abi::PERF_RECORD_MMAP2 => {
            let start = body.skip(8).u64();
            let path = body.skip(64).text();
            Event::Mmap(Mmap {
                tgid: body.u32(),
                range: start..start.checked_add(body.skip(16).u64())?,
                file_offset: body.skip(24).u64(),
                file: file_id(body.skip(32), &path),
                path,
            })
        }
        abi::PERF_RECORD_KSYMBOL => {
            let start = body.u64();
            Event::Ksymbol(Ksymbol {
                range: start..start.checked_add(u64::from(body.skip(8).u32()))?,
                name: body.skip(16).text(),
                registered: u32::from(body.skip(14).u16()) & abi::PERF_RECORD_KSYMBOL_FLAGS_UNREGISTER == 0,
            })
        }
        _ => return None,
    };
    // Those of tasks outside of our PID namespace have no ids here: 0, or -1 when they are gone.
    let is_ours = |tgid: u32| tgid != 0 && tgid != u32::MAX;
    let is_known = match &event {
        Event::Fork { tgid, .. } | Event::Exit { tgid, .. } | Event::Comm { tgid, .. } => is_ours(*tgid),
        Event::Mmap(mmap) => is_ours(mmap.tgid),
        _ => true,
    };
    is_known.then_some(Timed { time_ns, event })
}

/// `identity` is `{ u32 major, minor; u64 inode, generation }`. Records can also hold a build id in
/// its place, but not ours: see [`Sideband::open`].
fn file_id(identity: Fields<'_>, path: &str) -> FileId {
    let (major, minor) = (identity.u32(), identity.skip(4).u32());
    let inode = identity.skip(8).u64();
    // The kernel marks memory without a file by a name of its own and by inode 0.
    if inode == 0 || !path.starts_with('/') || path.starts_with("//") {
        return FileId::Anonymous;
    }
    FileId::Inode {
        device: nix::sys::stat::makedev(major.into(), minor.into()),
        inode,
        generation: identity.skip(16).u64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpus("0-3,8\n").unwrap(), [0, 1, 2, 3, 8]);
        assert_eq!(parse_cpus("1,1,0").unwrap(), [0, 1]);
        for bad in ["", "a", "3-1", "0-", "-1", "0-99999999", "1,,2"] {
            assert!(parse_cpus(bad).is_err(), "{bad:?} was taken");
        }
    }

    /// A COMM record as the kernel lays it out: pid, tid, comm padded to 8, sample id.
    #[test]
    fn a_comm_record_is_read() {
        let mut body = Vec::new();
        body.extend(7u32.to_ne_bytes());
        body.extend(8u32.to_ne_bytes());
        body.extend(*b"true\0\0\0\0");
        body.extend(7u32.to_ne_bytes());
        body.extend(8u32.to_ne_bytes());
        body.extend(12345u64.to_ne_bytes());
        let exec = abi::PERF_RECORD_MISC_COMM_EXEC as u16;
        let event = Event::Comm { tgid: 7, tid: 8, comm: "true".to_owned(), exec: true };
        assert_eq!(parse(abi::PERF_RECORD_COMM, exec, &body), Some(Timed { time_ns: 12345, event }));
        assert_eq!(parse(abi::PERF_RECORD_COMM, exec, &body[..15]), None);
    }
}
