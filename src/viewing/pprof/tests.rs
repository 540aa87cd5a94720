use std::path::Path;

use pprof::protos::{self, Message};

use super::read::parse_within;
use super::*;
use crate::model::profile::{
    Function, FunctionId, Label, LabelValue, Line, Location, LocationId, Mapping, MappingId, Profile,
    ValueType,
};
use crate::viewing::reading::read;

fn example() -> Profile {
    let types = [("samples", "count"), ("cpu", "nanoseconds")];
    let mut profile = Profile::new(types.map(|(name, unit)| ValueType::new(name, unit)).to_vec());
    profile.default_sample_type = "samples".to_owned();
    profile.period_type = ValueType::new("cpu", "nanoseconds");
    profile.period = 10_101_010;
    profile.time_ns = 1_700_000_000_000_000_000;
    profile.duration_ns = 5_000_000_000;
    profile.comments = vec!["made by hand".to_owned(), "ü; 99 Hz".to_owned()];
    for (i, path) in ["/usr/bin/app", "[kernel.kallsyms]"].into_iter().enumerate() {
        let memory_start = 0x1000 * (i as u64 + 1);
        profile.mappings.push(Mapping {
            memory_start,
            memory_limit: memory_start + 0x1000,
            file_offset: 0x200,
            path: path.to_owned(),
            build_id: "ab12".repeat(i),
            has_functions: true,
            has_filenames: i == 0,
            has_line_numbers: i == 0,
            has_inline_frames: false,
        });
    }
    let mut line = |name: &str, line| {
        let function = Function {
            name: name.to_owned(),
            system_name: format!("_Z{name}"),
            filename: "app.c".to_owned(),
            start_line: line - 1,
        };
        Line { function: FunctionId::from(profile.functions.intern(function)), line }
    };
    let lines = [vec![line("main", 10)], vec![line("leaf", 7), line("caller", 20)], vec![]];
    for (i, lines) in lines.into_iter().enumerate() {
        let mapping = Some(MappingId(u32::from(i == 2)));
        profile.locations.push(Location { mapping, address: 0x1010 + i as u64 * 0x800, lines });
    }
    let label = |key: &str, value| Label { key: key.into(), value };
    let app = profile.intern_labels(&[
        label("comm", LabelValue::Str("app".into())),
        label("pid", LabelValue::Num(42, "".into())),
        label("alloc", LabelValue::Num(-1, "bytes".into())),
    ]);
    let none = profile.intern_labels(&[]);
    let deep = profile.intern_stack(&[2, 1, 0].map(LocationId));
    let flat = profile.intern_stack(&[LocationId(0)]);
    let empty = profile.intern_stack(&[]);
    for (stack, labels, values) in
        [(deep, app, [3, 30]), (flat, none, [1, 10]), (deep, none, [i64::MAX, -5]), (empty, app, [1, 1])]
    {
        profile.add(stack, labels, &values);
    }
    profile
}

/// Everything a profile says, with names in place of ids, which a writer may change.
fn content(profile: &Profile) -> String {
    let location = |at: LocationId| {
        let location = profile.location(at);
        let lines: Vec<_> =
            location.lines.iter().map(|line| (profile.function(line.function), line.line)).collect();
        format!("{:?} {:#x} {lines:?}", location.mapping.map(|at| profile.mapping(at)), location.address)
    };
    let samples: Vec<_> = profile
        .samples()
        .iter()
        .map(|sample| {
            let stack: Vec<_> = profile.stack(sample.stack).map(location).collect();
            (stack, profile.labels(sample.labels).to_vec(), sample.values.clone())
        })
        .collect();
    format!(
        "{:?} {:?} {:?} {} {} {} {:?} {:?} {samples:#?}",
        profile.sample_types,
        profile.default_sample_type,
        profile.period_type,
        profile.period,
        profile.time_ns,
        profile.duration_ns,
        profile.comments,
        profile.mappings.first(),
    )
}

/// [`read`] on a file with these bytes.
fn read_bytes(name: &str, bytes: &[u8]) -> anyhow::Result<Profile> {
    let path = std::env::temp_dir().join(format!("profiler-{name}-{}", std::process::id()));
    std::fs::write(&path, bytes)?;
    let read = read(&path);
    std::fs::remove_file(&path)?;
    read
}

fn encoded(profile: &Profile) -> protos::Profile {
    let mut raw = Vec::new();
    let bytes = encode(profile);
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut raw).unwrap();
    protos::Profile::decode(&raw[..]).unwrap()
}

#[test]
fn what_is_written_reads_the_same() {
    let profile = example();
    let read = read_bytes("round-trip", &encode(&profile)).unwrap();
    assert_eq!(content(&read), content(&profile));
    assert_eq!(encode(&read), encode(&profile));
    assert_eq!(encode(&example()), encode(&profile));
}

#[test]
fn only_what_is_used_is_written() {
    let mut profile = example();
    profile.default_sample_type.clear();
    profile.mappings.insert(0, Mapping { path: "/main".to_owned(), ..Mapping::default() });
    profile.mappings.push(Mapping { path: "/unused".to_owned(), ..Mapping::default() });
    let unused = Function { name: "unused".to_owned(), ..Function::default() };
    profile.functions.intern(unused);
    profile.locations.push(Location::default());
    // The mappings moved by one: nothing but the inserted one changes its place in the file.
    for location in &mut profile.locations {
        location.mapping = location.mapping.map(|at| MappingId(at.0 + 1));
    }
    let written = encoded(&profile);
    let text = |at: i64| written.string_table[at as usize].as_str();
    assert_eq!(written.string_table[0], "");
    let paths: Vec<_> = written.mapping.iter().map(|mapping| text(mapping.filename)).collect();
    assert_eq!(paths, ["/main", "[kernel.kallsyms]", "/usr/bin/app"]);
    assert_eq!(written.location.len(), 3);
    assert_eq!(written.function.len(), 3);
    assert_eq!(text(written.default_sample_type), "cpu");
    let mut unique = written.string_table.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), written.string_table.len());
    let ids: Vec<_> = written.location.iter().map(|location| location.id).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn a_profile_without_anything_is_a_file() {
    let read = read_bytes("nothing", &encode(&Profile::default())).unwrap();
    assert_eq!(content(&read), content(&Profile::default()));
}

/// The reader's answer to the example with one thing changed.
fn changed(change: impl FnOnce(&mut protos::Profile)) -> Result<Profile, String> {
    let mut file = encoded(&example());
    change(&mut file);
    parse(&file.encode_to_vec()).map_err(|error| format!("{error:#}"))
}

#[test]
fn damage_is_named() {
    type Change = fn(&mut protos::Profile);
    let cases: &[(&str, Change)] = &[
        ("string 999 is referred to", |file| file.sample_type[0].ty = 999),
        ("string -1 is referred to", |file| file.sample_type[0].unit = -1),
        ("string 999", |file| file.function[0].name = 999),
        ("string 999", |file| file.function[0].system_name = 999),
        ("string 999", |file| file.function[0].filename = 999),
        ("string 999", |file| file.mapping[0].filename = 999),
        ("string 999", |file| file.mapping[0].build_id = 999),
        ("string 999", |file| file.drop_frames = 999),
        ("string 999", |file| file.keep_frames = i64::MIN),
        ("string 999", |file| file.comment.push(999)),
        ("string 999", |file| file.default_sample_type = 999),
        ("string 999", |file| file.period_type.as_mut().unwrap().ty = 999),
        ("sample 1: string 999", |file| file.sample[0].label[0].key = 999),
        ("sample 1: string 999", |file| file.sample[0].label[0].str = 999),
        ("sample 1: string 999", |file| file.sample[0].label[1].num_unit = 999),
        ("the first of its strings is not empty", |file| file.string_table[0] = "x".to_owned()),
        ("it has no strings", |file| file.string_table.clear()),
        ("a mapping has the id 0", |file| file.mapping[0].id = 0),
        ("a location has the id 0", |file| file.location[0].id = 0),
        ("a function has the id 0", |file| file.function[2].id = 0),
        ("two mappings have the id 1", |file| file.mapping[1].id = 1),
        ("two locations have the id 1", |file| file.location[1].id = 1),
        ("two functions have the id 2", |file| file.function[2].id = 2),
        ("in function 77, which is missing", |file| file.location[1].line[0].function_id = 77),
        ("in function 0, which is missing", |file| file.location[1].line[0].function_id = 0),
        ("sample 2: location 0 is missing", |file| file.sample[1].location_id[0] = 0),
        ("sample 2: location 77 is missing", |file| file.sample[1].location_id[0] = 77),
        ("sample 1: it has 1 of the 2 values", |file| file.sample[0].value.truncate(1)),
        ("sample 1: it has more values than the 2", |file| file.sample[0].value.push(1)),
        ("sample 1: it has values, but", |file| file.sample_type.clear()),
    ];
    for (expected, change) in cases {
        let expected = if *expected == "string 999" { "string " } else { expected };
        match changed(change) {
            Err(message) => assert!(message.contains(expected), "{message}, not {expected}"),
            Ok(_) => panic!("taken in spite of: {expected}"),
        }
    }
}

#[test]
fn what_is_unusual_but_legal_is_read() {
    type Change = fn(&mut protos::Profile);
    let cases: &[Change] = &[
        |file| file.location[0].id = 77,
        |file| file.location[0].mapping_id = 0,
        |file| file.location[0].mapping_id = 77,
        |file| file.sample[0].value = vec![-1, i64::MIN],
        |file| file.location[0].address = u64::MAX,
        |file| file.sample[0].label.clear(),
        |file| file.sample.clear(),
        |file| file.period_type = None,
        |file| file.location.reverse(),
        |file| file.sample[0].location_id = vec![1; 70_002],
    ];
    for (i, change) in cases.iter().enumerate() {
        // The sample that referred to location 1 has to follow its new id.
        let read = changed(|file| {
            change(file);
            for id in file.sample.iter_mut().flat_map(|sample| &mut sample.location_id) {
                *id = if i == 0 && *id == 1 { 77 } else { *id };
            }
        });
        assert!(read.is_ok(), "case {i}: {read:?}");
    }
    // A mapping that is missing is none, as in google/pprof.
    let read = changed(|file| file.location[0].mapping_id = 77).unwrap();
    assert!(read.locations[0].mapping.is_none() && read.locations[1].mapping.is_some());
}

#[test]
fn text_need_not_be_utf8_and_unknown_fields_are_skipped() {
    let mut raw = encoded(&example()).encode_to_vec();
    let at = raw.windows(5).position(|bytes| bytes == b"app.c").unwrap();
    raw[at] = 0xff;
    // doc_url, and fields of every wire type that no one knows, one of them numbered 0.
    raw.extend_from_slice(&[0x78, 1, 0xa0, 6, 1, 0xa1, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0xa2, 6, 1, 0]);
    raw.extend_from_slice(&[0xa5, 6, 1, 2, 3, 4, 0, 1]);
    let read = parse(&raw).unwrap();
    assert!(read.functions.iter().any(|function| function.filename == "\u{fffd}pp.c"));
}

#[test]
fn two_profiles_in_a_row_are_refused() {
    let mut raw = encoded(&example()).encode_to_vec();
    raw.extend_from_within(..);
    let message = parse(&raw).unwrap_err().to_string();
    assert!(message.contains("have the id") || message.contains("several profiles"), "{message}");
    let string_table = vec![String::new()];
    let time = protos::Profile { string_table, time_nanos: 1, ..Default::default() };
    let mut raw = time.encode_to_vec();
    raw.extend_from_within(..);
    assert!(parse(&raw).unwrap_err().to_string().contains("several profiles"));
}

#[test]
fn memory_is_bounded_against_small_messages() {
    // Each name is two bytes in the file and a kilobyte in memory.
    let functions = (1..5000).map(|id| protos::Function { id, name: 1, ..Default::default() });
    let file = protos::Profile {
        string_table: vec![String::new(), "x".repeat(1 << 10)],
        function: functions.collect(),
        ..Default::default()
    };
    let raw = file.encode_to_vec();
    assert!(parse(&raw).is_ok());
    let message = parse_within(&raw, 4 << 20).unwrap_err().to_string();
    assert!(message.contains("4 MiB of memory"), "{message}");
    // A million empty samples, functions and lines: none is stored.
    for field in [2 << 3 | 2, 4 << 3 | 2, 5 << 3 | 2] {
        let mut raw = vec![0x32, 0];
        raw.extend([field, 0].repeat(1 << 20));
        assert!(parse(&raw).is_err());
    }
}

#[test]
fn no_cut_and_no_flipped_bit_panics() {
    let raw = encoded(&example()).encode_to_vec();
    for end in 0..raw.len() {
        let _ = parse(&raw[..end]);
    }
    for at in 0..raw.len() {
        for bit in 0..8 {
            let mut raw = raw.clone();
            raw[at] ^= 1 << bit;
            if let Ok(profile) = parse(&raw) {
                // What is taken can be written.
                assert!(parse(&encoded(&profile).encode_to_vec()).is_ok(), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn files_that_are_something_else_are_told_apart() {
    let gz = encode(&example());
    let mut damaged = gz.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let mut trailing = gz.clone();
    trailing.extend_from_slice(b"trailing");
    for (name, bytes, expected) in [
        ("empty", &b""[..], "it is empty"),
        ("text", b"no stack\n", "text of an unknown kind"),
        ("legacy", b"heap profile: 1: 2 [3: 4] @ heapz/1\n", "old formats"),
        ("perf", b"PERFILE2\0\0", "perf.data"),
        ("cut", &gz[..gz.len() - 20], "ends too early"),
        ("header", &gz[..5], "ends too early"),
        ("damaged", &damaged, "its gzip data"),
        ("trailing", &trailing, "its gzip data"),
    ] {
        let message = format!("{:#}", read_bytes(name, bytes).unwrap_err());
        assert!(message.starts_with("failed to read the profile "), "{message}");
        assert!(message.contains(expected), "{name}: {message}");
    }
    let message = |path: &str| format!("{:#}", read(Path::new(path)).unwrap_err());
    assert!(message("/").contains("directory"));
    assert!(message("/no/such/file").contains("no such file"));
}

#[test]
fn gzip_members_may_follow_each_other() {
    let raw = encoded(&example()).encode_to_vec();
    let mut bytes = Vec::new();
    for part in raw.chunks(raw.len() / 3 + 1) {
        let mut gzip = flate2::write::GzEncoder::new(bytes, flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, part).unwrap();
        bytes = gzip.finish().unwrap();
    }
    let read = read_bytes("members", &bytes).unwrap();
    assert_eq!(content(&read), content(&example()));
}
