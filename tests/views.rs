//! What is shown is what was measured: units, idle time, what is left out, names, and files that are large in one way
//! only. The files are made here, and what is right follows from how they are made.

mod files;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use profiler::model::profile::{
    Function, FunctionId, Label, LabelValue, Line, Location, LocationId, Mapping, MappingId, Profile,
    ValueType,
};
use profiler::viewing::pprof;

use files::{Directory, stdout, success};

/// The picture of a file alone, and what was said about it.
fn picture(file: &str, more: &[&str]) -> (String, String) {
    success(&[&["flamegraph", file, "-o", "-", "--picture-only"], more].concat())
}

/// A profile by its stacks, root first. A frame is a name, or a name and a mapping's path behind an @.
struct Made(Profile);

impl Made {
    fn new(types: &[(&str, &str)]) -> Self {
        Self(Profile::new(types.iter().map(|(name, unit)| ValueType::new(name, unit)).collect()))
    }

    fn location(&mut self, frame: &str) -> LocationId {
        let (name, path) = frame.split_once('@').unwrap_or((frame, ""));
        let profile = &mut self.0;
        let mapping = (!path.is_empty()).then(|| {
            let known = profile.mappings.iter().position(|mapping| mapping.path == path);
            MappingId::from(known.unwrap_or_else(|| {
                profile.mappings.push(Mapping { path: path.to_owned(), ..Mapping::default() });
                profile.mappings.len() - 1
            }))
        });
        let function = Function { name: name.to_owned(), ..Function::default() };
        let function = FunctionId::from(profile.functions.intern(function));
        let location = Location { mapping, address: 0, lines: vec![Line { function, line: 0 }] };
        let known = profile.locations.iter().position(|it| *it == location);
        known
            .unwrap_or_else(|| {
                profile.locations.push(location);
                profile.locations.len() - 1
            })
            .into()
    }

    fn sample(&mut self, stack: &[&str], labels: &[Label], values: &[i64]) {
        let mut locations: Vec<_> = stack.iter().map(|frame| self.location(frame)).collect();
        locations.reverse();
        let stack = self.0.intern_stack(&locations);
        let labels = self.0.intern_labels(labels);
        self.0.add(stack, labels, values);
    }

    fn write(&self, directory: &Directory) -> String {
        directory.file("made.pb.gz", pprof::encode(&self.0))
    }
}

fn number(key: &str, value: i64, unit: &str) -> Label {
    Label { key: key.into(), value: LabelValue::Num(value, unit.into()) }
}

/// The titles of a picture's frames: the value's text by name.
fn titles(svg: &str) -> BTreeMap<String, String> {
    let titles = svg.split("<title>").skip(1).filter_map(|rest| rest.split("</title>").next());
    titles
        .filter_map(|title| title.rsplit_once(" ("))
        .map(|(name, text)| (name.into(), text.into()))
        .collect()
}

#[test]
fn units_are_scaled_in_titles_and_tooltips() {
    let directory = Directory::new("units");
    for (unit, value, shown) in [
        ("microseconds", 1_500_000, "1.50 s"),
        ("milliseconds", 1500, "1.50 s"),
        ("nanoseconds", 12_340_000, "12.340 ms"),
        ("kilobytes", 1500, "1.46 MiB"),
        ("bytes", 999, "999 bytes"),
    ] {
        let mut made = Made::new(&[("it", unit)]);
        made.sample(&["main", "leaf"], &[], &[value]);
        let (svg, said) = picture(&made.write(&directory), &[]);
        assert!(svg.contains(&format!(">{shown} of it, made.pb.gz<")), "{unit}: {svg}");
        assert_eq!(titles(&svg)["leaf"], format!("{shown}, 100.00%)"), "{unit}");
        assert!(said.contains(shown), "{said}");
    }
}

#[test]
fn numbers_of_labels_have_their_unit() {
    let directory = Directory::new("labels");
    let mut made = Made::new(&[("samples", "count")]);
    made.sample(&["main"], &[number("size", 1024, "bytes"), number("pid", 4242, "")], &[1]);
    made.sample(&["main"], &[number("size", 1_500_000, "bytes")], &[2]);
    let folded = stdout(&["folded", &made.write(&directory), "--tagroot", "size,pid"]);
    assert_eq!(folded, "1 KiB;4242;main 1\n1.43 MiB;main 2\n");
}

#[test]
fn hiding_idle_threads_invents_no_time() {
    let directory = Directory::new("idle");
    let mut made = Made::new(&[("cpu", "nanoseconds"), ("off_cpu", "nanoseconds")]);
    made.0.duration_ns = 10_000_000_000;
    for pid in 0..40 {
        let labels = [number("pid", pid, ""), number("tid", pid, "")];
        made.sample(&["start", "wait@/bin/idle"], &labels, &[0, 9_900_000_000]);
    }
    let worker = [number("pid", 99, ""), number("tid", 99, "")];
    made.sample(&["start", "work@/bin/work"], &worker, &[2_000_000_000, 0]);
    made.sample(&["start", "lock@/bin/work"], &worker, &[0, 1_000_000_000]);
    let file = made.write(&directory);
    let folded = stdout(&["folded", &file, "--type", "wall", "--hide-idle", "--tagroot", ""]);
    let (mut idle, mut rest) = (0, 0);
    for line in folded.lines() {
        let (stack, value) = line.rsplit_once(' ').unwrap();
        let value: i64 = value.parse().unwrap();
        *(if stack.contains("idle thread") { &mut idle } else { &mut rest }) += value;
    }
    // What is not idle has its own time to the nanosecond; 396 s of waiting take no more than can be seen.
    assert_eq!(rest, 3_000_000_000, "{folded}");
    assert!(idle > 0 && idle <= rest / 10, "{idle} of {rest}");
    let (svg, _) = picture(&file, &["--type", "wall", "--hide-idle"]);
    assert!(svg.contains("396.00 s of 40 idle threads drawn narrow"), "{svg}");

    // A frame never shows more time than it names: here all of it is less than its share would be.
    let mut made = Made::new(&[("off_cpu", "nanoseconds")]);
    made.0.duration_ns = 1_000_000;
    made.sample(&["wait@/bin/idle"], &[number("pid", 1, ""), number("tid", 1, "")], &[990_000]);
    for i in 0..600 {
        let lock = format!("lock{i}@/bin/work");
        made.sample(&[&lock], &[number("pid", 2, ""), number("tid", 2, "")], &[900_000]);
    }
    let folded =
        stdout(&["folded", &made.write(&directory), "--type", "off-cpu", "--hide-idle", "--tagroot", ""]);
    let idle: Vec<_> = folded.lines().filter(|line| line.contains("idle thread")).collect();
    assert_eq!(idle, ["[1 idle thread: 0.0 s] 990000"]);
}

#[test]
fn what_is_left_out_is_told() {
    let directory = Directory::new("left-out");
    let mut made = Made::new(&[("samples", "count")]);
    made.sample(&["main", "wide"], &[], &[100_000]);
    for i in 0..500 {
        made.sample(&["main", &format!("narrow{i}"), "below"], &[], &[5]);
    }
    let file = made.write(&directory);
    let (svg, said) = picture(&file, &["--minwidth", "0.1%"]);
    // all, main, wide and the one for the others.
    assert!(
        said.contains("(4 frames, 1,000 narrower ones left out: see --minwidth, 102,500 samples)"),
        "{said}"
    );
    assert_eq!(titles(&svg)["[500 functions below 0.1 %]"], "2,500 samples, 2.44%)");
    let (svg, said) = picture(&file, &["--minwidth", "0"]);
    assert!(!said.contains("left out") && titles(&svg).contains_key("narrow499"), "{said}");
}

#[test]
fn both_signs_of_a_comparison_are_drawn() {
    let directory = Directory::new("signs");
    let mut made = Made::new(&[("cpu", "nanoseconds")]);
    made.sample(&["main", "grew"], &[], &[3_000_000_000]);
    made.sample(&["main", "shrank"], &[], &[-1_000_000_000]);
    let (svg, said) = picture(&made.write(&directory), &[]);
    let titles = titles(&svg);
    assert_eq!((&*titles["grew"], &*titles["shrank"]), ("3.00 s, 75.00%)", "1.00 s, 25.00%)"));
    assert!(said.contains("2.00 s of cpu: +3.00 s and -1.00 s"), "{said}");
}

#[test]
fn names_are_those_of_the_file() {
    let directory = Directory::new("names");
    let mut made = Made::new(&[("samples", "count")]);
    for end in ["_[k]", "_[w]", "_[i]", "_[j]"] {
        made.sample(&["main", &format!("a{end}")], &[], &[10]);
    }
    let function = Function { system_name: "_ZN3foo3barEv".into(), ..Function::default() };
    let function = FunctionId::from(made.0.functions.intern(function));
    made.0.locations.push(Location { lines: vec![Line { function, line: 0 }], ..Location::default() });
    let stack = made.0.intern_stack(&[LocationId::from(made.0.locations.len() - 1)]);
    let labels = made.0.intern_labels(&[]);
    made.0.add(stack, labels, &[1]);
    let file = made.write(&directory);
    let titles = titles(&picture(&file, &[]).0);
    for name in ["a_[k]", "a_[w]", "a_[i]", "a_[j]"] {
        assert_eq!(titles[name], "10 samples, 24.39%)", "{titles:?}");
    }
    // One that has the symbol alone is read as people write it.
    let folded = stdout(&["folded", &file]);
    assert!(folded.contains("foo::bar") && !folded.contains("_ZN3foo"), "{folded}");
}

#[test]
fn markers_have_the_colour_of_what_they_stand_for() {
    let directory = Directory::new("markers");
    let mut made = Made::new(&[("samples", "count")]);
    made.sample(&["[bpf programs]", "program"], &[], &[1]);
    made.sample(&["[truncated: deep]", "leaf"], &[], &[1]);
    let (svg, _) = picture(&made.write(&directory), &[]);
    let is_grey = |name: &str| {
        let frame = svg.split(&format!("<title>{name} ")).nth(1).unwrap();
        let color = frame.split("fill=\"rgb(").nth(1).unwrap().split(')').next().unwrap();
        let channels: Vec<_> = color.split(',').collect();
        channels.windows(2).all(|pair| pair[0] == pair[1])
    };
    assert!(!is_grey("[bpf programs]") && is_grey("[truncated: deep]"));
}

/// A protobuf field that holds bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7f {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
    message
}

/// `main` at location 1 and `leaf` at location 2.
fn two_functions() -> Vec<u8> {
    let mut file = field(1, &[8, 1, 16, 2]);
    for id in [1, 2] {
        file.extend(field(5, &[8, id, 16, id + 2]));
        file.extend(field(4, &[&[8, id][..], &field(4, &[8, id])].concat()));
    }
    for text in ["", "samples", "count", "main", "leaf"] {
        file.extend(field(6, text.as_bytes()));
    }
    file
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip =
        Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = gzip.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

#[test]
fn equal_samples_add_up_however_well_they_compress() {
    let directory = Directory::new("equal");
    let sample = field(2, &[field(1, &[2, 1, 1, 1, 1, 1]), field(2, &[1])].concat());
    let file = compressed(&[two_functions(), sample.repeat(3_000_000)].concat());
    assert!(file.len() < 200_000, "{} bytes", file.len());
    let file = directory.file("equal.pb.gz", &file);
    assert_eq!(stdout(&["folded", &file]), "main;main;main;main;main;leaf 3000000\n");
}

#[test]
fn a_stack_may_be_of_any_length() {
    let directory = Directory::new("deep");
    let stack = [&[2][..], &[1; 70_001]].concat();
    let sample = field(2, &[field(1, &stack), field(2, &[5])].concat());
    let file = directory.file("deep.pb.gz", compressed(&[two_functions(), sample].concat()));
    let folded = stdout(&["folded", &file]);
    assert_eq!(folded.len(), 70_001 * "main;".len() + "leaf 5\n".len());
    assert!(folded.ends_with(";main;leaf 5\n"));
    let (svg, said) = picture(&file, &[]);
    assert!(said.contains("(1,002 frames, 69,002 narrower ones left out"), "{said}");
    assert!(svg.contains("[1 function and their callees] (5 samples"));
    // The viewer has all of it.
    let path = directory.0.join("deep.svg");
    success(&["flamegraph", &file, "-o", path.to_str().unwrap()]);
    assert!(fs::metadata(path).unwrap().len() < 1 << 20);
}
