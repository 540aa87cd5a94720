//! Where programs are attached, in words: `tracepoint sys_enter_read`, `fentry vfs_read`, `tc eth0
//! ingress`, `cgroup_inet_egress /system.slice`.
//!
//! Links tell it best. What older interfaces attached is asked of the place itself: network devices
//! by netlink, cgroups and socket maps by `BPF_PROG_QUERY`, perf events by `BPF_TASK_FD_QUERY` (which
//! also stands in for the links of perf events before Linux 6.6). Of a socket's filter the kernel does
//! not tell the socket: its owner is all that is known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::btf::Names;
use super::maps::Map;
use super::network::Namespaces;
use super::sys::{self, Object, Target, raw};
use crate::machine::kallsyms::Kallsyms;
use crate::machine::mounts;

/// Where programs are attached, and what went by there.
#[derive(Debug, Default)]
pub struct Attachments {
    /// Places by program, and how often each.
    pub places: BTreeMap<u32, BTreeMap<String, usize>>,
    /// Runs that were left out, by program.
    pub misses: BTreeMap<u32, u64>,
    /// Paths of the cgroups that programs are attached to, by program.
    pub cgroups: BTreeMap<u32, BTreeSet<String>>,
    /// Network namespaces other than our own whose traffic passes a program, by program.
    pub namespaces: BTreeMap<u32, BTreeSet<u64>>,
}

/// Program types whose programs sit on network devices and namespaces.
const OF_NETWORK: [u32; 5] = [
    raw::BPF_PROG_TYPE_SCHED_CLS,
    raw::BPF_PROG_TYPE_SCHED_ACT,
    raw::BPF_PROG_TYPE_XDP,
    raw::BPF_PROG_TYPE_FLOW_DISSECTOR,
    raw::BPF_PROG_TYPE_SK_LOOKUP,
];

/// Attach types of programs on cgroups, by program type.
const OF_CGROUPS: [(u32, &[u32]); 7] = [
    (raw::BPF_PROG_TYPE_CGROUP_SKB, &[0, 1]),
    (raw::BPF_PROG_TYPE_CGROUP_SOCK, &[2, 12, 13, 34]),
    (raw::BPF_PROG_TYPE_SOCK_OPS, &[3]),
    (raw::BPF_PROG_TYPE_CGROUP_DEVICE, &[6]),
    (
        raw::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        &[8, 9, 10, 11, 14, 15, 19, 20, 29, 30, 31, 32, 49, 50, 51, 52, 53],
    ),
    (raw::BPF_PROG_TYPE_CGROUP_SYSCTL, &[18]),
    (raw::BPF_PROG_TYPE_CGROUP_SOCKOPT, &[21, 22]),
];

/// Finds where programs are attached. `programs` are those that exist, `maps` the maps, `events` what
/// perf events run.
pub fn find(
    programs: &[&sys::Program],
    maps: &BTreeMap<u32, Map>,
    events: &[(u32, Target)],
    names: &mut Names,
) -> Attachments {
    let mut found = Attachments::default();
    let mut links = Vec::new();
    for id in sys::ids_after(Object::Link, 0).unwrap_or_default() {
        // What vanished meanwhile is no error, nor is a kernel without links.
        if let Ok(Some(fd)) = sys::open(Object::Link, id)
            && let Ok(link) = sys::link(&fd)
        {
            links.push(link);
        }
    }
    let raws: BTreeMap<u32, &raw::bpf_prog_info> =
        programs.iter().map(|program| (program.raw.id, &program.raw)).collect();
    let has = |kinds: &[u32]| programs.iter().any(|program| kinds.contains(&program.raw.type_));

    names.learn(links.iter().filter_map(|link| match link.target {
        Target::Function { object, function, .. } => Some((home(&raws, link.program, object), function)),
        _ => None,
    }));
    let addresses = links.iter().filter_map(|link| match &link.target {
        Target::Kprobes { addresses, .. } => Some(addresses),
        _ => None,
    });
    let symbols = symbols(&addresses.flatten().take(1 << 12).copied().filter(|&at| at != 0).collect());
    let on_netns = links.iter().any(|link| matches!(link.target, Target::Netns { .. }));
    let namespaces = if on_netns || has(&OF_NETWORK) { Namespaces::find() } else { Namespaces::default() };
    let of_cgroups: Vec<u32> = OF_CGROUPS
        .iter()
        .filter(|(kind, _)| has(&[*kind]))
        .flat_map(|(_, attach_types)| attach_types.iter().copied())
        .collect();
    let on_cgroup = links.iter().any(|link| matches!(link.target, Target::Cgroup { .. }));
    let cgroups = if on_cgroup || !of_cgroups.is_empty() { cgroups() } else { BTreeMap::new() };

    let describe = |program: u32, target: &Target| match target {
        Target::Function { attach_type, object, function } => {
            let home = home(&raws, program, *object);
            let of = if home == *object { String::new() } else { format!(" of program {object}") };
            let name = match names.get(home, *function) {
                Some(name) => name.to_owned(),
                // Before Linux 5.13.
                None if *function == 0 => "(the kernel does not tell which)".to_owned(),
                None => format!("type {function}"),
            };
            format!("{}{of}", function_place(*attach_type, &name))
        }
        Target::Cgroup { id, attach_type } => {
            let path = cgroups.get(id).map_or_else(|| format!("id {id}"), |(_, name)| name.clone());
            format!("{} {path}", sys::attach_type(*attach_type))
        }
        Target::Netns { inode, attach_type } => {
            format!("{}{}", sys::attach_type(*attach_type), namespaces.name(u64::from(*inode)))
        }
        Target::Operations { map } => format!("struct_ops {}", map_name(maps, *map)),
        Target::Sockets { map, attach_type } => {
            format!("{} map {}", sys::attach_type(*attach_type), map_name(maps, *map))
        }
        Target::Kprobes { addresses, at_return } => {
            let name = |at: &u64| symbols.get(at).cloned().unwrap_or_else(|| format!("{at:#x}"));
            let word = if *at_return { "kretprobe" } else { "kprobe" };
            format!("{word} {}", some(addresses.iter().map(name)))
        }
        // Programs that know the tracepoint's types are attached to it as those that do not.
        Target::RawTracepoint(name) => {
            let typed = raws.get(&program).is_some_and(|info| info.type_ == raw::BPF_PROG_TYPE_TRACING);
            format!("{} {name}", if typed { "tp_btf" } else { "raw_tp" })
        }
        target => plain(target),
    };
    for link in &links {
        *found.misses.entry(link.program).or_default() += link.misses;
        match &link.target {
            Target::Cgroup { id, .. } => {
                found
                    .cgroups
                    .entry(link.program)
                    .or_default()
                    .extend(cgroups.get(id).map(|(_, name)| name.clone()));
            }
            Target::Netns { inode, .. } if !namespaces.is_own(u64::from(*inode)) => {
                found.namespaces.entry(link.program).or_default().insert(u64::from(*inode));
            }
            _ => {}
        }
        match link.target {
            // Told by the devices, and by the events.
            Target::Device | Target::Unknown(raw::BPF_LINK_TYPE_PERF_EVENT) => {}
            _ => found.add(link.program, describe(link.program, &link.target)),
        }
    }
    let mut seen = BTreeSet::new();
    for (program, target) in events {
        let place = describe(*program, target);
        if !found.places.contains_key(program) || seen.contains(program) {
            seen.insert(*program);
            found.add_once(*program, place);
        }
    }
    for link in &links {
        if matches!(link.target, Target::Unknown(raw::BPF_LINK_TYPE_PERF_EVENT))
            && !seen.contains(&link.program)
        {
            found.add(link.program, "perf event".to_owned());
        }
    }
    if has(&OF_NETWORK) {
        for place in namespaces.programs() {
            found.add_once(place.program, place.text);
            if !namespaces.is_own(place.namespace) {
                found.namespaces.entry(place.program).or_default().insert(place.namespace);
            }
        }
    }
    for (dir, name) in cgroups.values().filter(|_| !of_cgroups.is_empty()) {
        let Ok(dir) = File::open(dir) else { continue };
        for &kind in &of_cgroups {
            for program in sys::attached(dir.as_raw_fd() as u32, kind) {
                found.add_once(program, format!("{} {name}", sys::attach_type(kind)));
                found.cgroups.entry(program).or_default().insert(name.clone());
            }
        }
    }
    for map in maps.values() {
        found.in_map(map);
    }
    found
}

impl Attachments {
    fn add(&mut self, program: u32, place: String) {
        *self.places.entry(program).or_default().entry(place).or_default() += 1;
    }

    /// Adds a place that may have been told already.
    fn add_once(&mut self, program: u32, place: String) {
        self.places.entry(program).or_default().entry(place).or_insert(1);
    }

    /// Adds what is attached to a map of sockets.
    fn in_map(&mut self, map: &Map) {
        if !matches!(map.kind.as_str(), "sockmap" | "sockhash") {
            return;
        }
        let Ok(Some(fd)) = sys::open(Object::Map, map.id) else { return };
        for kind in [
            raw::BPF_SK_SKB_STREAM_PARSER,
            raw::BPF_SK_SKB_STREAM_VERDICT,
            raw::BPF_SK_SKB_VERDICT,
            raw::BPF_SK_MSG_VERDICT,
        ] {
            for program in sys::attached(fd.as_raw_fd() as u32, kind) {
                self.add_once(program, format!("{} map {}", sys::attach_type(kind), map.name));
            }
        }
    }
}

/// The type information that a program's function is in. A link tells a program's id in its place if
/// that is what it attaches to; the program itself tells it since Linux 5.18.
fn home(programs: &BTreeMap<u32, &raw::bpf_prog_info>, program: u32, object: u32) -> u32 {
    programs.get(&program).map(|info| info.attach_btf_obj_id).filter(|&home| home != 0).unwrap_or(object)
}

fn function_place(attach_type: u32, name: &str) -> String {
    let bare = |prefix| name.strip_prefix(prefix).unwrap_or(name);
    match attach_type {
        raw::BPF_TRACE_FENTRY => format!("fentry {name}"),
        raw::BPF_TRACE_FEXIT => format!("fexit {name}"),
        raw::BPF_MODIFY_RETURN => format!("fmod_ret {name}"),
        raw::BPF_TRACE_RAW_TP => format!("tp_btf {}", bare("btf_trace_")),
        raw::BPF_LSM_MAC => format!("lsm {}", bare("bpf_lsm_")),
        0 => format!("freplace {name}"),
        other => format!("{} {name}", sys::attach_type(other)),
    }
}

/// Targets that need nothing else to be told.
fn plain(target: &Target) -> String {
    let ret = |at_return: &bool| if *at_return { "ret" } else { "" };
    match target {
        Target::Tracepoint(name) => format!("tracepoint {name}"),
        Target::Iterator(name) => format!("iter {name}"),
        Target::Netfilter { family, hook, priority } => {
            let family = match family {
                1 => "inet",
                2 => "ipv4",
                7 => "bridge",
                10 => "ipv6",
                _ => "?",
            };
            let hooks = ["prerouting", "input", "forward", "output", "postrouting"];
            let hook = hooks.get(*hook as usize).unwrap_or(&"?");
            format!("netfilter {family} {hook} priority {priority}")
        }
        Target::Kprobe { function, offset, address, at_return } => {
            let at = match (function.as_str(), offset) {
                ("", _) => format!("{address:#x}"),
                (_, 0) => function.clone(),
                _ => format!("{function}+{offset:#x}"),
            };
            format!("k{}probe {at}", ret(at_return))
        }
        Target::Uprobe { path, offset, at_return } => {
            format!("u{}probe {path}+{offset:#x}", ret(at_return))
        }
        Target::Uprobes { path, offsets, at_return } => {
            let offsets = some(offsets.iter().map(|offset| format!("+{offset:#x}")));
            format!("u{}probe {path} {offsets}", ret(at_return))
        }
        Target::Event { kind, config } => format!("perf event {}", event(*kind, *config)),
        Target::Unknown(kind) => sys::link_type(*kind),
        other => format!("{other:?}"),
    }
}

/// Names of perf events, as perf spells them.
fn event(kind: u32, config: u64) -> String {
    const HARDWARE: [&str; 10] = [
        "cycles",
        "instructions",
        "cache-references",
        "cache-misses",
        "branches",
        "branch-misses",
        "bus-cycles",
        "stalled-cycles-frontend",
        "stalled-cycles-backend",
        "ref-cycles",
    ];
    const SOFTWARE: [&str; 12] = [
        "cpu-clock",
        "task-clock",
        "page-faults",
        "context-switches",
        "cpu-migrations",
        "minor-faults",
        "major-faults",
        "alignment-faults",
        "emulation-faults",
        "dummy",
        "bpf-output",
        "cgroup-switches",
    ];
    let names: &[&str] = match kind {
        0 => &HARDWARE,
        1 => &SOFTWARE,
        _ => &[],
    };
    let name = usize::try_from(config).ok().and_then(|config| names.get(config));
    let source = || match (source(kind), kind) {
        (Some(source), _) if config == 0 => source,
        (Some(source), _) => format!("{source} config {config:#x}"),
        // The clocks have types of their own since Linux 6.4, which sysfs does not tell: they are the
        // first to be given any, behind the fixed ones (perf_event_init in kernel/events/core.c).
        (None, 6) => "cpu-clock".to_owned(),
        (None, 7) => "task-clock".to_owned(),
        (None, _) => format!("type {kind} config {config:#x}"),
    };
    name.map_or_else(source, |name| (*name).to_owned())
}

/// The name of a source of events that got its type at run time.
fn source(kind: u32) -> Option<String> {
    let mut sources = fs::read_dir("/sys/bus/event_source/devices").ok()?.flatten();
    let is_it = |dir: &fs::DirEntry| {
        let told = fs::read_to_string(dir.path().join("type"));
        told.is_ok_and(|told| told.trim().parse() == Ok(kind))
    };
    Some(sources.find(is_it)?.file_name().to_string_lossy().into_owned())
}

/// The first three of many.
fn some(mut items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(3);
    let text = items.by_ref().take(3).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

fn map_name(maps: &BTreeMap<u32, Map>, id: u32) -> String {
    maps.get(&id).filter(|map| !map.name.is_empty()).map_or_else(|| id.to_string(), |map| map.name.clone())
}

/// Directories of all cgroups and their paths below the mount, by id, which is the inode's number.
fn cgroups() -> BTreeMap<u64, (PathBuf, String)> {
    fn walk(dir: &Path, name: &str, found: &mut BTreeMap<u64, (PathBuf, String)>) {
        let Ok(id) = fs::metadata(dir).map(|file| file.ino()) else { return };
        let shown = if name.is_empty() { "/" } else { name };
        found.insert(id, (dir.to_owned(), shown.to_owned()));
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let below = entry.file_name();
                walk(&entry.path(), &format!("{name}/{}", below.to_string_lossy()), found);
            }
        }
    }
    let mut found = BTreeMap::new();
    for mount in mounts::of_type("cgroup2") {
        walk(&mount.point, "", &mut found);
    }
    found
}

/// Names of kernel functions that begin at these addresses.
fn symbols(addresses: &BTreeSet<u64>) -> HashMap<u64, String> {
    let mut names = HashMap::new();
    if addresses.is_empty() {
        return names;
    }
    let Ok(symbols) = Kallsyms::read() else { return names };
    for symbol in symbols.iter().filter(|symbol| addresses.contains(&symbol.addr)) {
        names.entry(symbol.addr).or_insert_with(|| symbol.name.to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_words() {
        let kprobe = |function: &str, offset, at_return| Target::Kprobe {
            function: function.to_owned(),
            offset,
            address: 0xffff_ffff_8100_0000,
            at_return,
        };
        for (target, text) in [
            (kprobe("vfs_read", 0, false), "kprobe vfs_read"),
            (kprobe("vfs_read", 4, true), "kretprobe vfs_read+0x4"),
            (kprobe("", 0, false), "kprobe 0xffffffff81000000"),
            (Target::Netfilter { family: 2, hook: 1, priority: -5 }, "netfilter ipv4 input priority -5"),
            (Target::Event { kind: 1, config: 0 }, "perf event cpu-clock"),
            (Target::Event { kind: 0xffff, config: 0x1a8 }, "perf event type 65535 config 0x1a8"),
        ] {
            assert_eq!(plain(&target), text);
        }
        assert_eq!(function_place(raw::BPF_TRACE_RAW_TP, "btf_trace_sched_switch"), "tp_btf sched_switch");
        assert_eq!(function_place(raw::BPF_LSM_MAC, "bpf_lsm_file_open"), "lsm file_open");
    }

    #[test]
    fn many_functions_are_shortened() {
        let names = |n: u64| some(vec![(); n as usize].into_iter().map(|()| "f".to_owned()));
        assert_eq!([names(1), names(3), names(5)], ["f", "f, f, f", "f, f, f and 2 more"]);
    }
}
