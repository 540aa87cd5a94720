//! What can be sampled and counted: the names by which perf knows events, and what the kernel calls them.
//!
//! A name is of one of these forms; `:u` or `:k` behind it, of all but the last, count user or kernel mode
//! alone.
//!
//! ```text
//! page-faults  cycles  LLC-load-misses      the kernel's own names, in the tables below
//! r01c2                                     a number of the CPU's manual
//! cpu/event=0xc2,umask=1/  power/energy-pkg/  of a PMU, by what it says of itself in sysfs
//! tracepoint:sched:sched_switch             a tracepoint; also sched:sched_switch, as perf has it
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::abi;
use crate::machine::rights::{self, Capability};
use crate::machine::tracefs::Tracefs;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// As it was asked for, but for `tracepoint:`.
    pub name: String,
    /// Unit of its count: `count`, or `nanoseconds` of clocks.
    pub unit: &'static str,
    /// `perf_event_attr.type`.
    pub(super) kind: u32,
    /// Its `config`, `config1` and `config2`.
    pub(super) config: [u64; 3],
    /// Count in one mode alone.
    pub(super) mode: Option<Mode>,
}

/// Mode of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    User,
    Kernel,
}

/// Names of `enum perf_sw_ids`. The first of equals is ours.
const SOFTWARE: &[(&str, u32)] = &[
    ("page-faults", abi::PERF_COUNT_SW_PAGE_FAULTS),
    ("faults", abi::PERF_COUNT_SW_PAGE_FAULTS),
    ("minor-faults", abi::PERF_COUNT_SW_PAGE_FAULTS_MIN),
    ("major-faults", abi::PERF_COUNT_SW_PAGE_FAULTS_MAJ),
    ("context-switches", abi::PERF_COUNT_SW_CONTEXT_SWITCHES),
    ("cs", abi::PERF_COUNT_SW_CONTEXT_SWITCHES),
    ("cpu-migrations", abi::PERF_COUNT_SW_CPU_MIGRATIONS),
    ("migrations", abi::PERF_COUNT_SW_CPU_MIGRATIONS),
    ("cgroup-switches", abi::PERF_COUNT_SW_CGROUP_SWITCHES),
    ("alignment-faults", abi::PERF_COUNT_SW_ALIGNMENT_FAULTS),
    ("emulation-faults", abi::PERF_COUNT_SW_EMULATION_FAULTS),
    ("cpu-clock", abi::PERF_COUNT_SW_CPU_CLOCK),
    ("task-clock", abi::PERF_COUNT_SW_TASK_CLOCK),
];

/// Names of `enum perf_hw_id`.
const HARDWARE: &[(&str, u32)] = &[
    ("cycles", abi::PERF_COUNT_HW_CPU_CYCLES),
    ("cpu-cycles", abi::PERF_COUNT_HW_CPU_CYCLES),
    ("instructions", abi::PERF_COUNT_HW_INSTRUCTIONS),
    ("cache-references", abi::PERF_COUNT_HW_CACHE_REFERENCES),
    ("cache-misses", abi::PERF_COUNT_HW_CACHE_MISSES),
    ("branches", abi::PERF_COUNT_HW_BRANCH_INSTRUCTIONS),
    ("branch-instructions", abi::PERF_COUNT_HW_BRANCH_INSTRUCTIONS),
    ("branch-misses", abi::PERF_COUNT_HW_BRANCH_MISSES),
    ("bus-cycles", abi::PERF_COUNT_HW_BUS_CYCLES),
    ("stalled-cycles-frontend", abi::PERF_COUNT_HW_STALLED_CYCLES_FRONTEND),
    ("stalled-cycles-backend", abi::PERF_COUNT_HW_STALLED_CYCLES_BACKEND),
    ("ref-cycles", abi::PERF_COUNT_HW_REF_CPU_CYCLES),
];

/// Caches: `CACHE-ACCESS` is one event.
const CACHES: &[(&str, u32)] = &[
    ("L1-dcache", abi::PERF_COUNT_HW_CACHE_L1D),
    ("L1-icache", abi::PERF_COUNT_HW_CACHE_L1I),
    ("LLC", abi::PERF_COUNT_HW_CACHE_LL),
    ("dTLB", abi::PERF_COUNT_HW_CACHE_DTLB),
    ("iTLB", abi::PERF_COUNT_HW_CACHE_ITLB),
    ("branch", abi::PERF_COUNT_HW_CACHE_BPU),
    ("node", abi::PERF_COUNT_HW_CACHE_NODE),
];
const ACCESSES: &[(&str, u32, u32)] = &[
    ("loads", abi::PERF_COUNT_HW_CACHE_OP_READ, abi::PERF_COUNT_HW_CACHE_RESULT_ACCESS),
    ("load-misses", abi::PERF_COUNT_HW_CACHE_OP_READ, abi::PERF_COUNT_HW_CACHE_RESULT_MISS),
    ("stores", abi::PERF_COUNT_HW_CACHE_OP_WRITE, abi::PERF_COUNT_HW_CACHE_RESULT_ACCESS),
    ("store-misses", abi::PERF_COUNT_HW_CACHE_OP_WRITE, abi::PERF_COUNT_HW_CACHE_RESULT_MISS),
    ("prefetches", abi::PERF_COUNT_HW_CACHE_OP_PREFETCH, abi::PERF_COUNT_HW_CACHE_RESULT_ACCESS),
    ("prefetch-misses", abi::PERF_COUNT_HW_CACHE_OP_PREFETCH, abi::PERF_COUNT_HW_CACHE_RESULT_MISS),
];

impl Event {
    /// The event of a name.
    ///
    /// # Errors
    /// If nobody here knows the name.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(tracepoint) = text.strip_prefix("tracepoint:") {
            return Self::tracepoint(tracepoint);
        }
        let (name, mode) = match text.rsplit_once(':') {
            Some((name, "u")) => (name, Some(Mode::User)),
            Some((name, "k")) => (name, Some(Mode::Kernel)),
            Some(_) => return Self::tracepoint(text),
            None => (text, None),
        };
        let found = Self::named(name).or_else(|| raw(name)).map(Ok).or_else(|| of_pmu(name));
        let (kind, config) = found.with_context(|| {
            let known = SOFTWARE.iter().chain(HARDWARE).map(|&(name, _)| name).collect::<Vec<_>>();
            format!(
                "no event `{text}`; known are {}, L1-dcache-load-misses and its like, rNNN, PMU/TERM=VALUE,…/ and \
                 tracepoint:SYSTEM:NAME, and of each but the last those of user or kernel mode alone (cycles:u, cycles:k)",
                known.join(", ")
            )
        })??;
        let is_clock = kind == abi::PERF_TYPE_SOFTWARE
            && [abi::PERF_COUNT_SW_CPU_CLOCK, abi::PERF_COUNT_SW_TASK_CLOCK]
                .map(u64::from)
                .contains(&config[0]);
        let unit = if is_clock { "nanoseconds" } else { "count" };
        Ok(Self { name: text.to_owned(), unit, kind, config, mode })
    }

    fn named(name: &str) -> Option<(u32, [u64; 3])> {
        let of = |table: &[(&str, u32)]| {
            table.iter().find(|(known, _)| *known == name).map(|&(_, number)| u64::from(number))
        };
        if let Some(number) = of(SOFTWARE) {
            return Some((abi::PERF_TYPE_SOFTWARE, [number, 0, 0]));
        }
        if let Some(number) = of(HARDWARE) {
            return Some((abi::PERF_TYPE_HARDWARE, [number, 0, 0]));
        }
        CACHES.iter().find_map(|&(cache, number)| {
            let access = name.strip_prefix(cache)?.strip_prefix('-')?;
            let &(_, op, result) = ACCESSES.iter().find(|(known, _, _)| *known == access)?;
            Some((abi::PERF_TYPE_HW_CACHE, [u64::from(number | op << 8 | result << 16), 0, 0]))
        })
    }

    fn tracepoint(text: &str) -> Result<Self> {
        let is_name = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
        };
        let parts = text.split_once(':').filter(|(system, name)| is_name(system) && is_name(name));
        let Some((system, name)) = parts else {
            bail!("`{text}` is no tracepoint; expected SYSTEM:NAME such as sched:sched_switch")
        };
        let tracefs = Tracefs::open().map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                anyhow::anyhow!(
                    "tracefs is not mounted, and to open it is {}",
                    rights::refusal(&[Capability::SysAdmin])
                )
            }
            _ => anyhow::Error::new(error).context("failed to open tracefs"),
        })?;
        let id = tracefs.read(&format!("events/{system}/{name}/id"));
        let id = id.with_context(|| format!("no tracepoint {text}: `perf list tracepoint` shows all"))?;
        let id = id.trim().parse().with_context(|| format!("tracepoint {text} has the id {id:?}"))?;
        let (kind, config) = (abi::PERF_TYPE_TRACEPOINT, [id, 0, 0]);
        Ok(Self { name: text.to_owned(), unit: "count", kind, config, mode: None })
    }

    /// Whether it is a tracepoint, at which programs of another type run.
    pub fn is_tracepoint(&self) -> bool {
        self.kind == abi::PERF_TYPE_TRACEPOINT
    }

    pub(super) fn attr(&self) -> abi::perf_event_attr {
        let mut attr =
            abi::perf_event_attr { type_: self.kind, config: self.config[0], ..Default::default() };
        attr.__bindgen_anon_3.config1 = self.config[1];
        attr.__bindgen_anon_4.config2 = self.config[2];
        attr.set_exclude_kernel(u64::from(self.mode == Some(Mode::User)));
        attr.set_exclude_user(u64::from(self.mode == Some(Mode::Kernel)));
        attr
    }
}

/// `r` and the number of an event in hexadecimal.
fn raw(name: &str) -> Option<(u32, [u64; 3])> {
    let number = u64::from_str_radix(name.strip_prefix('r')?, 16).ok()?;
    Some((abi::PERF_TYPE_RAW, [number, 0, 0]))
}

/// `PMU/TERM=VALUE,…/`, where a term may also be the name of an event that the PMU lists.
fn of_pmu(name: &str) -> Option<Result<(u32, [u64; 3])>> {
    let (pmu, terms) = name.strip_suffix('/')?.split_once('/')?;
    Some(pmu_event(Path::new("/sys/bus/event_source/devices"), pmu, terms))
}

fn pmu_event(devices: &Path, pmu: &str, terms: &str) -> Result<(u32, [u64; 3])> {
    let is_file = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    ensure!(is_file(pmu) && devices.join(pmu).is_dir(), "no PMU `{pmu}`; there are {}", names(devices));
    let device = devices.join(pmu);
    let read = |file: &str| {
        fs::read_to_string(device.join(file)).map(|text| text.trim().to_owned()).with_context(|| {
            format!("failed to read {file} of the PMU {pmu}, which has {}", names(&device.join("format")))
        })
    };
    let kind = read("type")?.parse().with_context(|| format!("the PMU {pmu} has no type"))?;
    let mut config = [0; 3];
    let mut left: Vec<String> = terms.split(',').rev().map(str::to_owned).collect();
    // An event that is listed stands for terms; those name none in turn.
    let mut expanded = 0;
    while let Some(term) = left.pop() {
        let (key, value) = term.split_once('=').unwrap_or((&term, "1"));
        ensure!(is_file(key), "`{term}` is no term of the PMU {pmu}");
        if !term.contains('=') && expanded == 0 && device.join("events").join(key).is_file() {
            let terms = read(&format!("events/{key}"))?;
            left.extend(terms.split(',').rev().map(str::to_owned));
            expanded += 1;
            continue;
        }
        let number = match value.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => value.parse(),
        };
        let number = number.with_context(|| format!("`{value}` of `{term}` is no number"))?;
        let format = read(&format!("format/{key}"))?;
        place(&format, number, &mut config)
            .with_context(|| format!("`{term}` has no place in `{format}`, its format by the PMU {pmu}"))?;
    }
    Ok((kind, config))
}

/// Puts a number where a format says, such as `config:0-7,32-35`.
fn place(format: &str, mut number: u64, config: &mut [u64; 3]) -> Option<()> {
    let (word, bits) = format.split_once(':')?;
    let word = config.get_mut(["config", "config1", "config2"].iter().position(|known| *known == word)?)?;
    for range in bits.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let length = last.checked_sub(first)?.checked_add(1).filter(|_| last < 64)?;
        let mask = u64::MAX >> (64 - length);
        *word |= (number & mask) << first;
        number = number.checked_shr(length).unwrap_or(0);
    }
    (number == 0).then_some(())
}

fn names(directory: &Path) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_perf() {
        let parsed =
            |text: &str| Event::parse(text).map(|event| (event.kind, event.config[0], event.mode)).ok();
        assert_eq!(parsed("page-faults"), Some((1, 2, None)));
        assert_eq!(parsed("cs:u"), Some((1, 3, Some(Mode::User))));
        assert_eq!(parsed("instructions:k"), Some((0, 1, Some(Mode::Kernel))));
        // perf stat -vv -e LLC-load-misses: type 3, config 0x10002.
        assert_eq!(parsed("LLC-load-misses"), Some((3, 0x1_0002, None)));
        assert_eq!(parsed("r01c2"), Some((4, 0x1c2, None)));
        for bad in
            ["", "page-fault", "cycles:x", "r", "rx", "LLC", "LLC-", "sched:", "a/b", "../x:y", "cpu/", "//"]
        {
            assert_eq!(parsed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_pmu_says_where_its_terms_go() {
        let devices = std::env::temp_dir().join(format!("profiler-pmu-{}", std::process::id()));
        let pmu = devices.join("made_up");
        for (file, text) in [
            ("type", "9\n"),
            ("format/event", "config:0-7,32-35\n"),
            ("format/umask", "config:8-15\n"),
            ("format/edge", "config:18\n"),
            ("format/frontend", "config1:0-23\n"),
            ("events/known", "event=0xc2,umask=0x2\n"),
        ] {
            fs::create_dir_all(pmu.join(file).parent().unwrap()).unwrap();
            fs::write(pmu.join(file), text).unwrap();
        }
        let found = |terms: &str| pmu_event(&devices, "made_up", terms);
        assert_eq!(found("event=0x3c2,umask=1,edge").unwrap(), (9, [0x3_0004_01c2, 0, 0]));
        assert_eq!(found("known,frontend=7").unwrap(), (9, [0x2c2, 7, 0]));
        for bad in ["", "event", "unknown=1", "event=0x10000", "umask=x", "../type=1", "known=1"] {
            assert_eq!(found(bad).is_ok(), bad == "event", "{bad}");
        }
        assert!(pmu_event(&devices, "other", "event=1").unwrap_err().to_string().contains("made_up"));
        fs::remove_dir_all(devices).unwrap();
    }
}
