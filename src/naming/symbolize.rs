//! Names for the locations of a recording.
//!
//! Runs after recording, object by object. Files, and lists of compiled code, are read by a worker without
//! rights (see `super::namer`); the kernel and BPF programs, which nobody but root can have made, are asked
//! here. What cannot be read costs the names it would have given, never the recording. Every frame without a
//! name says where it is and why: `libfoo.so.1+0x1234 [stripped binary]`.

use std::collections::BTreeMap;

use super::kernel;
use super::kernel_addresses::Origins;
use super::namer::Namer;
use super::names::{Frame, Names};
use crate::model::objects::{Object, ObjectId, Objects, Source};
use crate::model::profile::{Function, Line, LocationId, Mapping, MappingId};
use crate::model::scripts::Name;
use crate::model::unsymbolized::Unsymbolized;
use crate::programs::code;
use crate::text::basename;

/// What is told of addresses: where it is given, offsets in place of the kernel's.
pub type Kernel = Option<Origins>;

/// Names every location of a recording. `progress` is told before each object: how many are done,
/// of how many.
pub fn symbolize(
    recording: &mut Unsymbolized,
    objects: &Objects,
    inlined: bool,
    kernel: Kernel,
    namer: &mut Namer<'_>,
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
        let names = names_in(namer, object, objects, &offsets, inlined);
        if namer.ended.is_some() {
            break;
        }
        for ((id, offset), names) in locations.into_iter().zip(offsets).zip(names) {
            let shown = shown(kernel, recording.profile.mapping(mapping), offset);
            name(recording, id, mapping, object, shown, names);
        }
        if matches!(object.source, Source::Kernel) {
            kernel::split_modules(&mut recording.profile, mapping);
        }
    }
    name_the_rest(recording, kernel, if namer.ended.is_some() { "not symbolized" } else { "unmapped" });
}

/// Names every location by where it is, when symbols are not wanted or were interrupted.
pub fn leave_unnamed(recording: &mut Unsymbolized, kernel: Kernel, reason: &'static str) {
    name_the_rest(recording, kernel, reason);
}

fn shown(kernel: Kernel, mapping: &Mapping, offset: u64) -> u64 {
    kernel.filter(|_| is_by_address(mapping)).map_or(offset, |origins| origins.offset(mapping, offset))
}

fn file_offset(mapping: &Mapping, address: u64) -> u64 {
    // The kernel's and BPF programs' offsets are addresses: their mappings have no file offset. But of functions
    // that share a page the mappings would overlap: some lie elsewhere, and have their address as file offset.
    if is_by_address(mapping) && mapping.file_offset == 0 {
        return address;
    }
    (address - mapping.memory_start).wrapping_add(mapping.file_offset)
}

fn is_by_address(mapping: &Mapping) -> bool {
    mapping.path == "[kernel.kallsyms]" || mapping.path == "[bpf]"
}

/// Gives a location the lines for `names`, or one that says why there are none.
fn name(
    recording: &mut Unsymbolized,
    id: LocationId,
    mapping: MappingId,
    object: &Object,
    offset: u64,
    names: Names,
) {
    let profile = &mut recording.profile;
    let named = names.is_ok();
    let frames = names.unwrap_or_else(|reason| {
        vec![Frame::named(&format!("{}+{offset:#x} [{reason}]", basename(&object.path)))]
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
                    system_name: frame.system_name,
                    name: frame.name,
                    filename: frame.filename,
                    start_line: 0,
                })
                .into(),
        })
        .collect();
    profile.locations[id.index()].lines = lines;
}

fn name_the_rest(recording: &mut Unsymbolized, kernel: Kernel, reason: &'static str) {
    let profile = &mut recording.profile;
    for location in &mut profile.locations {
        if !location.lines.is_empty() {
            continue;
        }
        let (place, offset) = match location.mapping {
            Some(mapping) => {
                let mapping = &profile.mappings[mapping.index()];
                let offset = file_offset(mapping, location.address);
                (format!("{}+", basename(&mapping.path)), shown(kernel, mapping, offset))
            }
            None => (String::new(), location.address),
        };
        let name = format!("{place}{offset:#x} [{reason}]");
        let function = Function { system_name: name.clone(), name, ..Function::default() };
        let function = profile.functions.intern(function).into();
        location.lines = vec![Line { function, line: 0 }];
    }
    if let Some(origins) = kernel {
        origins.hide(profile);
    }
}

fn names_in(
    namer: &mut Namer<'_>,
    object: &Object,
    objects: &Objects,
    offsets: &[u64],
    inlined: bool,
) -> Vec<Names> {
    match &object.source {
        Source::Kernel => kernel::names(offsets),
        Source::Bpf { .. } => in_bpf(object, offsets),
        Source::File(_) => match object.file() {
            Ok(file) => namer.file(object, file, offsets, inlined),
            Err(why) => vec![Err(why.why()); offsets.len()],
        },
        Source::Jit(Some(lists)) => namer.jit(lists, objects, offsets),
        Source::Jit(None) => vec![Err("JIT code of an unknown process"); offsets.len()],
        Source::Script(_) => offsets.iter().map(|&at| Ok(script_frames(objects, at))).collect(),
        Source::Nowhere => vec![Err("unmapped"); offsets.len()],
    }
}

/// Functions of a script, or a frame that says why it has no name.
fn script_frames(objects: &Objects, number: u64) -> Vec<Frame> {
    match objects.scripts.names(number) {
        Ok(names) => {
            let frame = |name: Name| Frame {
                filename: name.file.to_string(),
                line: name.line.into(),
                ..Frame::named(&name.function)
            };
            names.into_iter().map(frame).collect()
        }
        Err((runtime, why)) => {
            vec![Frame::named(&format!("[{}: {}]", runtime.language().to_lowercase(), why.reason()))]
        }
    }
}

/// The kernel told the program's name when it loaded; its lines are there while it still is.
fn in_bpf(object: &Object, addrs: &[u64]) -> Vec<Names> {
    let lines = tag(&object.path).map_or_else(Vec::new, |tag| code::lines(tag, addrs));
    let mut lines = lines.into_iter();
    let names = addrs.iter().map(|_| {
        let name = Frame::named(&object.path);
        Ok(vec![match lines.next().flatten() {
            Some(line) => Frame { filename: line.file, line: line.line.into(), ..name },
            None => name,
        }])
    });
    names.collect()
}

/// The hash of a program's instructions in its symbol, `bpf_prog_0123456789abcdef_name`.
fn tag(symbol: &str) -> Option<[u8; 8]> {
    let digits = symbol.strip_prefix("bpf_prog_")?.get(..16)?;
    u64::from_str_radix(digits, 16).ok().map(u64::to_be_bytes)
}
