//! Names for addresses. The only user of blazesym.
//!
//! Runs after recording, object by object, so that only one binary's symbols and debug information
//! are in memory at a time. A binary that cannot be read, a demangler that panics or a list of JIT
//! functions that makes no sense costs the names it would have given, never the recording. Every
//! frame without a name says where it is and why: `libfoo.so.1+0x1234 [stripped binary]`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use blazesym::symbolize::source::{Elf, Kernel, Source as SymbolSource};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use blazesym::{MaybeDefault, symbolize::Reason};

use super::go;
use crate::elf;
use crate::machine::kallsyms::Kallsyms;
use crate::model::objects::{Object, ObjectId, Objects, Source};
use crate::model::profile::{Function, Line, LocationId, Mapping, MappingId};
use crate::recording::tally::Finished;
use crate::text::basename;

/// One function at an address; several where some are inlined, innermost first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Frame {
    pub(super) name: String,
    pub(super) filename: String,
    pub(super) line: i64,
}

/// What is known of an address: its functions, or why there are none.
type Names = Result<Vec<Frame>, &'static str>;

/// Names every location of a recording. `progress` is told before each object: how many are done,
/// of how many. Objects for which `skip` says so stay unnamed.
pub fn symbolize(
    recording: &mut Finished,
    objects: &Objects,
    inlined: bool,
    skip: impl Fn(usize) -> bool,
    mut progress: impl FnMut(usize, usize),
) {
    let mut by_mapping: BTreeMap<MappingId, Vec<LocationId>> = BTreeMap::new();
    for (at, location) in recording.profile.locations.iter().enumerate() {
        if let Some(mapping) = location.mapping.filter(|_| location.lines.is_empty()) {
            by_mapping.entry(mapping).or_default().push(LocationId::from(at));
        }
    }
    let total = by_mapping.len();
    for (done, (mapping, mut locations)) in by_mapping.into_iter().enumerate() {
        progress(done, total);
        let object = recording.object_of.get(&mapping).copied().unwrap_or(ObjectId::NONE);
        let object = objects.get(object);
        // Neighbours share compilation units and symbols.
        locations.sort_by_key(|&id| recording.profile.location(id).address);
        let offsets: Vec<u64> = locations
            .iter()
            .map(|&id| {
                file_offset(recording.profile.mapping(mapping), recording.profile.location(id).address)
            })
            .collect();
        let names = if skip(done) {
            vec![Err("symbolizer crashed on this file"); offsets.len()]
        } else {
            names_in(object, &offsets, inlined)
        };
        for ((id, offset), names) in locations.into_iter().zip(offsets).zip(names) {
            name(recording, id, mapping, object, offset, names);
        }
        if matches!(object.source, Source::Kernel) {
            split_modules(recording, mapping);
        }
    }
    name_the_rest(recording, |_, _| "unmapped");
}

/// Names every location by where it is, when symbols are not wanted or were interrupted.
pub fn leave_unnamed(recording: &mut Finished, reason: &'static str) {
    name_the_rest(recording, |_, _| reason);
}

fn file_offset(mapping: &Mapping, address: u64) -> u64 {
    // The kernel's and BPF programs' offsets are addresses: their mappings have no file offset.
    if is_by_address(mapping) { address } else { address - mapping.memory_start + mapping.file_offset }
}

fn is_by_address(mapping: &Mapping) -> bool {
    mapping.path == "[kernel.kallsyms]" || mapping.path == "[bpf]"
}

/// Gives a location the lines for `names`, or one that says why there are none.
fn name(
    recording: &mut Finished,
    id: LocationId,
    mapping: MappingId,
    object: &Object,
    offset: u64,
    names: Names,
) {
    let profile = &mut recording.profile;
    let named = names.is_ok();
    let frames = names.unwrap_or_else(|reason| {
        vec![Frame { name: format!("{}+{offset:#x} [{reason}]", basename(&object.path)), ..Frame::default() }]
    });
    let mapping = &mut profile.mappings[mapping.index()];
    mapping.has_functions |= named;
    mapping.has_filenames |= frames.iter().any(|frame| !frame.filename.is_empty());
    mapping.has_line_numbers |= frames.iter().any(|frame| frame.line != 0);
    mapping.has_inline_frames |= frames.len() > 1;
    let lines = frames
        .into_iter()
        .map(|frame| Line {
            line: frame.line,
            function: profile
                .functions
                .intern(Function {
                    system_name: frame.name.clone(),
                    name: frame.name,
                    filename: frame.filename,
                    start_line: 0,
                })
                .into(),
        })
        .collect();
    profile.locations[id.index()].lines = lines;
}

fn name_the_rest(recording: &mut Finished, reason: impl Fn(&str, u64) -> &'static str) {
    let profile = &mut recording.profile;
    for location in &mut profile.locations {
        if !location.lines.is_empty() {
            continue;
        }
        let (place, offset) = match location.mapping {
            Some(mapping) => {
                let mapping = &profile.mappings[mapping.index()];
                (format!("{}+", basename(&mapping.path)), file_offset(mapping, location.address))
            }
            None => (String::new(), location.address),
        };
        let name = format!("{place}{offset:#x} [{}]", reason(&place, offset));
        let function = Function { system_name: name.clone(), name, ..Function::default() };
        let function = profile.functions.intern(function).into();
        location.lines = vec![Line { function, line: 0 }];
    }
}

fn names_in(object: &Object, offsets: &[u64], inlined: bool) -> Vec<Names> {
    match &object.source {
        Source::Kernel => in_kernel(offsets, inlined),
        Source::Bpf { .. } => in_bpf(object, offsets),
        Source::File(_) => match object.file() {
            Ok(file) => in_file(file, offsets, inlined),
            Err(why) => vec![Err(why.why()); offsets.len()],
        },
        Source::Jit(Some(map)) => in_perf_map(map, offsets),
        Source::Jit(None) => vec![Err("JIT code, no perf map"); offsets.len()],
        Source::Nowhere => vec![Err("unmapped"); offsets.len()],
    }
}

/// Asks blazesym for a batch; if that panics, for each address alone, so that one bad name costs
/// one name.
fn ask(
    source: &SymbolSource<'_>,
    inlined: bool,
    inputs: &[u64],
    input: fn(&[u64]) -> Input<&[u64]>,
) -> Vec<Names> {
    let symbolizer = || {
        Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_code_info(true)
            .enable_inlined_fns(inlined)
            .build()
    };
    let batch = |inputs: &[u64]| -> Option<Vec<Names>> {
        catch_unwind(AssertUnwindSafe(|| {
            let symbolizer = symbolizer();
            match symbolizer.symbolize(source, input(inputs)) {
                Ok(symbols) => symbols.into_iter().map(names_of).collect(),
                Err(error) => vec![Err(why(&error)); inputs.len()],
            }
        }))
        .ok()
    };
    batch(inputs).unwrap_or_else(|| {
        let alone = |&addr: &u64| batch(&[addr]).and_then(|names| names.into_iter().next());
        inputs.iter().map(|addr| alone(addr).unwrap_or(Err("symbolizer panicked"))).collect()
    })
}

fn why(error: &blazesym::Error) -> &'static str {
    match error.kind() {
        blazesym::ErrorKind::PermissionDenied => "symbols not permitted",
        blazesym::ErrorKind::OutOfMemory => "out of memory",
        _ => "not a readable ELF file",
    }
}

fn names_of(symbol: Symbolized<'_>) -> Names {
    match symbol {
        Symbolized::Sym(symbol) => Ok(frames(&symbol)),
        Symbolized::Unknown(Reason::MissingSyms) => Err("stripped binary"),
        Symbolized::Unknown(Reason::UnknownAddr) => Err("no symbol"),
        Symbolized::Unknown(Reason::InvalidFileOffset) => Err("not code"),
        Symbolized::Unknown(Reason::Unmapped) => Err("unmapped"),
        Symbolized::Unknown(_) => Err("symbolizer failed"),
    }
}

/// blazesym lists inlined functions from the outermost in; pprof wants the innermost first.
fn frames(symbol: &Sym<'_>) -> Vec<Frame> {
    let frame = |name: &str, code: Option<&CodeInfo<'_>>| Frame {
        name: name.to_owned(),
        filename: code.map(|code| code.to_path().to_string_lossy().into_owned()).unwrap_or_default(),
        line: code.and_then(|code| code.line).unwrap_or(0).into(),
    };
    let inlined = symbol.inlined.iter().rev().map(|f| frame(&f.name, f.code_info.as_ref()));
    inlined.chain([frame(&symbol.name, symbol.code_info.as_deref())]).collect()
}

fn in_file(file: &File, offsets: &[u64], inlined: bool) -> Vec<Names> {
    // The descriptor leads to the file even if its path is gone or is another one's by now.
    let elf = Elf::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let ask =
        |elf, inlined| ask(&SymbolSource::Elf(elf), inlined, offsets, |offsets| Input::FileOffset(offsets));
    let mut names = ask(elf.clone(), inlined);
    let symbols = ask(Elf { debug_syms: false, ..elf }, false);
    for (names, symbol) in names.iter_mut().zip(symbols) {
        if let (Ok(frames), Ok(symbol)) = (names, symbol)
            && let Some(outermost) = frames.last_mut()
            && is_qualified(&symbol[0].name, &outermost.name)
        {
            outermost.name.clone_from(&symbol[0].name);
        }
    }
    if names.iter().any(|names| names.is_err())
        && let Some(places) = go::names(file, offsets, inlined)
    {
        for (names, places) in names.iter_mut().zip(places) {
            if names.is_err() && !places.is_empty() {
                *names = Ok(places);
            }
        }
    }
    // The last symbol before these stubs, `_init`, is not theirs.
    let plt = elf::plt(file);
    for (names, offset) in names.iter_mut().zip(offsets) {
        if plt.iter().any(|stubs| stubs.contains(offset)) {
            *names = Err("procedure linkage table");
        }
    }
    names
}

/// Whether `symbol` is a C++ or Rust function's full name of which `name` is the last part. Debug
/// information has no more than that of functions that no other file can see.
fn is_qualified(symbol: &str, name: &str) -> bool {
    let is_whole = |name: &str| name.contains("::") || name.contains('(');
    !is_whole(name) && is_whole(symbol) && symbol.contains(name)
}

fn kernel_source() -> SymbolSource<'static> {
    // A vmlinux beside the kernel may be gigabytes of debug information: kallsyms names functions.
    SymbolSource::Kernel(Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() })
}

fn in_kernel(addrs: &[u64], inlined: bool) -> Vec<Names> {
    let mut names = ask(&kernel_source(), inlined, addrs, |addrs| Input::AbsAddr(addrs));
    // Hidden addresses read as 0 and would name everything after the last symbol.
    if names.iter().all(|name| name.is_err()) {
        names.fill(Err("kernel symbols hidden: needs CAP_SYSLOG and kernel.kptr_restrict below 2"));
    }
    names
}

/// The kernel told the program's name when it loaded; its lines are there while it still is.
fn in_bpf(object: &Object, addrs: &[u64]) -> Vec<Names> {
    let live = ask(&kernel_source(), false, addrs, |addrs| Input::AbsAddr(addrs));
    live.into_iter()
        .map(|names| match names {
            Ok(frames) if frames[0].name == short_bpf_name(&object.path) || frames[0].name == object.path => {
                Ok(vec![Frame { name: object.path.clone(), ..frames[0].clone() }])
            }
            _ => Ok(vec![Frame { name: object.path.clone(), ..Frame::default() }]),
        })
        .collect()
}

/// `bpf_prog_0123456789abcdef_name` is `name`.
fn short_bpf_name(symbol: &str) -> &str {
    symbol.strip_prefix("bpf_prog_").and_then(|rest| rest.split_once('_')).map_or(symbol, |(_, name)| name)
}

/// Names from a runtime's list of functions: `START SIZE name`, hexadecimal, one a line; a later
/// line replaces an earlier one. The format is perf's (tools/perf/Documentation/jit-interface.txt).
fn in_perf_map(map: &File, addrs: &[u64]) -> Vec<Names> {
    const MOST_BYTES: u64 = 1 << 30;
    let mut functions: BTreeMap<u64, (u64, String)> = BTreeMap::new();
    // Our own descriptor's position may be anywhere if the map was read before.
    let path = format!("/proc/self/fd/{}", map.as_fd().as_raw_fd());
    let Ok(file) = File::open(path) else { return vec![Err("perf map not readable"); addrs.len()] };
    let wanted: Vec<u64> = addrs.to_vec();
    let mut reader = BufReader::new(file.take(MOST_BYTES));
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(1 << 16).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let mut fields = text.trim_end().splitn(3, ' ');
        let hex = |field: Option<&str>| u64::from_str_radix(field?.trim_start_matches("0x"), 16).ok();
        let (Some(start), Some(size), Some(name)) = (hex(fields.next()), hex(fields.next()), fields.next())
        else {
            continue;
        };
        let end = start.saturating_add(size.max(1));
        // Only what was sampled is kept: a runtime's list can be far larger than that.
        let first = wanted.partition_point(|&addr| addr < start);
        if wanted.get(first).is_some_and(|&addr| addr < end) {
            functions.insert(start, (end, name.to_owned()));
        }
    }
    let find = |addr: &u64| match functions.range(..=addr).next_back() {
        Some((_, (end, name))) if addr < end => Ok(vec![Frame { name: name.clone(), ..Frame::default() }]),
        _ => Err("not in perf map"),
    };
    addrs.iter().map(find).collect()
}

/// Gives the addresses of each kernel module a mapping of their own, `[name]`, by kallsyms.
fn split_modules(recording: &mut Finished, kernel: MappingId) {
    // Without modules there is nothing to split, and kallsyms takes the kernel a while to print.
    if std::fs::read("/proc/modules").unwrap_or_default().is_empty() {
        return;
    }
    let Ok(kallsyms) = Kallsyms::read() else { return };
    let mut symbols: Vec<(u64, Option<&str>)> =
        kallsyms.iter().map(|symbol| (symbol.addr, symbol.module)).collect();
    symbols.sort_unstable();
    let mut modules: HashMap<String, MappingId> = HashMap::new();
    let profile = &mut recording.profile;
    for location in profile.locations.iter_mut().filter(|location| location.mapping == Some(kernel)) {
        let at = symbols.partition_point(|(addr, _)| *addr <= location.address);
        let Some(&(_, Some(module))) = at.checked_sub(1).map(|at| &symbols[at]) else { continue };
        let mappings = &mut profile.mappings;
        let id = *modules.entry(module.to_owned()).or_insert_with(|| {
            let range = location.address..location.address;
            mappings.push(Mapping {
                path: module.to_owned(),
                memory_start: range.start,
                memory_limit: range.end,
                has_functions: true,
                ..Mapping::default()
            });
            MappingId::from(mappings.len() - 1)
        });
        let mapping = &mut mappings[id.index()];
        mapping.memory_start = mapping.memory_start.min(location.address & !0xfff);
        mapping.memory_limit = mapping.memory_limit.max((location.address | 0xfff) + 1);
        location.mapping = Some(id);
    }
    // What is left is the kernel's image alone: a range that holds no module.
    let left = profile.locations.iter().filter(|location| location.mapping == Some(kernel));
    let (low, high) = left
        .fold((u64::MAX, 0), |(low, high), location| (low.min(location.address), high.max(location.address)));
    if low <= high {
        let mapping = &mut profile.mappings[kernel.index()];
        (mapping.memory_start, mapping.memory_limit) = (low & !0xfff, (high | 0xfff) + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_map_lines() {
        let path = std::env::temp_dir().join(format!("profiler-perf-map-{}", std::process::id()));
        std::fs::write(&path, "1000 10 old\ngarbage\n1000 20 JS:*f a.js:1:2\n0x2000 0x8 g\n").unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let names: Vec<Option<String>> = in_perf_map(&file, &[0x0fff, 0x101f, 0x1020, 0x2007])
            .into_iter()
            .map(|names| names.ok().map(|frames| frames[0].name.clone()))
            .collect();
        assert_eq!(names, [None, Some("JS:*f a.js:1:2".to_owned()), None, Some("g".to_owned())]);
    }
}
