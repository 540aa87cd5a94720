use super::*;
use crate::model::profile::{
    Function, FunctionId, Label, LabelValue, Line, Location, LocationId, Mapping, MappingId, ValueType,
};

/// `main` calls `twice` in the same program, into which `leaf` is inlined; then an address
/// in a library; then one of nowhere.
fn profile() -> Profile {
    let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
    for (path, memory_start, file_offset) in [("/bin/app", 0x1000, 0), ("/lib/libx.so.1", 0x8000, 0x200)] {
        profile.mappings.push(Mapping {
            memory_start,
            file_offset,
            path: path.to_owned(),
            ..Mapping::default()
        });
    }
    let mut line = |name: &str| {
        let function = Function { name: name.to_owned(), ..Function::default() };
        Line { function: FunctionId::from(profile.functions.intern(function)), line: 0 }
    };
    let (main, twice, leaf) = (line("main"), line("twice"), line("leaf"));
    let at = |mapping, address, lines| Location { mapping, address, lines };
    let (app, lib) = (Some(MappingId(0)), Some(MappingId(1)));
    profile.locations = vec![
        at(app, 0x1010, vec![main]),
        at(app, 0x1020, vec![leaf, twice]),
        at(lib, 0x8034, vec![]),
        at(None, 0xdead, vec![]),
    ];
    profile
}

fn lines(profile: &Profile, tagroot: &[&str], mark: fn(FrameKind) -> &'static str) -> Vec<String> {
    let tagroot: Vec<_> = tagroot.iter().map(|&key| key.to_owned()).collect();
    let tree = tree(profile, 0, &tagroot, mark).unwrap();
    let mut text = Vec::new();
    write(&tree, 0, mark, &mut text).unwrap();
    String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn stacks_turn_root_first_below_their_tags() {
    let mut profile = profile();
    let stack = profile.intern_stack(&[2, 1, 0].map(LocationId));
    let other = profile.intern_stack(&[LocationId(3)]);
    let none = profile.intern_stack(&[]);
    let comm = |name: &str| Label { key: "comm".into(), value: LabelValue::Str(name.into()) };
    let pid = Label { key: "pid".into(), value: LabelValue::Num(7, "".into()) };
    let a = profile.intern_labels(&[comm("app"), pid]);
    let b = profile.intern_labels(&[]);
    for (stack, labels, value) in [(stack, a, 2), (other, b, 1), (none, b, 4), (stack, b, 0)] {
        profile.add(stack, labels, &[value]);
    }
    let mark = |kind| match kind {
        FrameKind::Inlined => "_[i]",
        FrameKind::Process => "_[w]",
        _ => "",
    };
    assert_eq!(
        lines(&profile, &["pid", "comm", "tid"], mark),
        ["0xdead 1", "7_[w];app_[w];main;twice;leaf_[i];libx.so.1+0x234 2", "[no stack] 4",]
    );
    assert_eq!(lines(&profile, &[""], |_| "")[1], "[no stack] 4");
}

#[test]
fn lines_that_read_the_same_are_one_and_sorted_as_text() {
    let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
    let names = ["a", "a (x)", "b", "ab", "a;"];
    for (mapping, path) in ["/bin/x", "[kernel.kallsyms]"].iter().enumerate() {
        profile.mappings.push(Mapping { path: (*path).to_owned(), ..Mapping::default() });
        for name in names {
            let function = Function { name: name.to_owned(), ..Function::default() };
            let function = FunctionId::from(profile.functions.intern(function));
            profile.locations.push(Location {
                mapping: Some(mapping.into()),
                address: 0,
                lines: vec![Line { function, line: 0 }],
            });
        }
    }
    let labels = profile.intern_labels(&[]);
    for stack in [&[0][..], &[5], &[2, 0], &[2, 1], &[0, 0], &[3], &[4], &[2, 0, 0], &[2, 5, 0]] {
        let stack: Vec<_> = stack.iter().map(|&at| LocationId(at)).collect();
        let stack = profile.intern_stack(&stack);
        profile.add(stack, labels, &[1]);
    }
    let found = lines(&profile, &[], |_| "");
    let mut sorted = found.clone();
    sorted.sort();
    assert_eq!(found, sorted);
    assert_eq!(found, ["a (x);b 1", "a 2", "a: 1", "a;a 1", "a;a;b 2", "a;b 1", "ab 1"]);
}
