//! Names that are there, but not in a program's own symbol table. What is right says the source.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::chance;
use crate::common::{ROOT, Recording, Sample, Test, copy_program, output, spawn};

/// Requires that almost all samples of a program have these functions, the leaf last, side by side.
fn require(recording: &Recording, comm: &str, functions: &[&str], what: &str) {
    let wanted: Vec<&str> = functions.iter().rev().copied().collect();
    let has_all = |names: Vec<&str>| names.windows(wanted.len()).any(|window| window == wanted);
    let all = recording.total(|sample| sample.comm == comm);
    let right = recording.total(|sample| sample.comm == comm && has_all(recording.names(sample)));
    chance::at_least(right, all, 0.95, 100, &format!("{what}: {:?}", recording.leaves()));
}

#[test]
fn go_without_symbols() {
    let Some(test) = Test::new("go-stripped") else { return };
    if !test.needs("go") {
        return;
    }
    let source = format!("{ROOT}/tests/programs/names.go");
    let text = fs::read_to_string(&source).unwrap();
    let line = |mark: &str| 1 + text.lines().position(|line| line.ends_with(mark)).unwrap() as u64;
    for flags in ["-ldflags=-s -w", "-ldflags=-w"] {
        let program = test.path("gonames");
        output("go", &["build", flags, "-o", &program, &source]);
        let recording = test.record(&["-F", "499", "--", &program, "1"]);
        require(&recording, "gonames", &["main.main", "main.middleOfGo", "main.leafOfGo"], flags);
        // The function that is inlined is there, with the lines of both.
        let inlined = |id: &u64| {
            let lines = &recording.locations[id].lines;
            lines.len() == 2
                && lines[0].0 == "main.inlinedOfGo"
                && lines[0].1 == line("// inlined here")
                && lines[0].2.ends_with("names.go")
                && (&lines[1].0[..], lines[1].1) == ("main.leafOfGo", line("// called here"))
        };
        let found = recording.total(|sample| sample.stack.iter().any(inlined));
        assert!(found >= 10, "{flags}: {found} samples in the inlined function: {:?}", recording.leaves());
    }
}

/// Where Go calls C, another linker than Go's own puts the table among other data.
#[test]
fn go_that_another_linker_has_made_position_independent() {
    let Some(test) = Test::new("go-pie") else { return };
    if !test.needs("go") {
        return;
    }
    let source = fs::read_to_string(format!("{ROOT}/tests/programs/names.go")).unwrap();
    let source = source.replace("package main\n", "package main\n\nimport \"C\"\n");
    let (program, source) = (test.path("gopie"), test.file("gopie.go", &source));
    output("go", &["build", "-buildmode=pie", "-ldflags=-linkmode=external -s -w", "-o", &program, &source]);
    output("strip", &[&program]);
    assert!(
        !output("readelf", &["-SW", &program]).contains("gopclntab"),
        "the table has a section of its own"
    );
    let recording = test.record(&["-F", "499", "--", &program, "1"]);
    require(&recording, "gopie", &["main.main", "main.middleOfGo", "main.leafOfGo"], "position-independent");
    let inlined = |id: &u64| recording.locations[id].lines.iter().any(|line| line.0 == "main.inlinedOfGo");
    let found = recording.total(|sample| sample.stack.iter().any(inlined));
    assert!(found >= 10, "{found} samples in the inlined function: {:?}", recording.leaves());
    let incomplete = recording.incomplete;
    assert!(incomplete * 20 <= recording.total(|_| true), "{incomplete} incomplete: {}", recording.told);
}

/// A program that is split into a stripped file and `names.debug`.
fn split(test: &Test, flags: &[&str]) -> String {
    let program = test.compile("tests/programs/elsewhere.c", "elsewhere", &[&["-g"], flags].concat());
    output("objcopy", &["--only-keep-debug", &program, &test.path("names.debug")]);
    output("strip", &[&program]);
    program
}

fn link(test: &Test, program: &str) {
    let debug = test.path("names.debug");
    output("objcopy", &[&format!("--add-gnu-debuglink={debug}"), program]);
}

const CHAIN: [&str; 3] = ["main", "middle_elsewhere", "leaf_elsewhere"];

#[test]
fn debug_files_beside_the_program() {
    let Some(test) = Test::new("debug-files") else { return };
    if !test.needs("objcopy") {
        return;
    }
    let program = split(&test, &[]);
    link(&test, &program);
    let recording = test.record(&["-F", "499", "--", &program, "0.5"]);
    require(&recording, "elsewhere", &CHAIN, "beside it");
    let with_lines = |id: &u64| {
        recording.locations[id]
            .lines
            .iter()
            .any(|(name, line, file)| name == "leaf_elsewhere" && *line > 0 && file.ends_with("elsewhere.c"))
    };
    assert!(recording.total(|sample| with_lines(&sample.stack[0])) > 0, "{:?}", recording.leaves());
    fs::create_dir(test.dir.join(".debug")).unwrap();
    fs::rename(test.path("names.debug"), test.dir.join(".debug/names.debug")).unwrap();
    require(&test.record(&["-F", "499", "--", &program, "0.5"]), "elsewhere", &CHAIN, "in .debug");

    // The file of another build has other names, and is not believed.
    for flags in [&["-Wl,--build-id"][..], &["-Wl,--build-id=none"]] {
        split(&test, &[&["-DLEAF=of_another_build"][..], flags].concat());
        let other = fs::read(test.path("names.debug")).unwrap();
        let program = split(&test, flags);
        link(&test, &program);
        fs::write(test.path("names.debug"), other).unwrap();
        fs::remove_dir_all(test.dir.join(".debug")).ok();
        let recording = test.record(&["-F", "499", "--", &program, "0.5"]);
        assert_eq!(recording.with("of_another_build"), 0, "{flags:?}: {:?}", recording.leaves());
        let stripped = |sample: &Sample| recording.leaf(sample).name().starts_with("elsewhere+0x");
        assert!(recording.total(stripped) > 50, "{flags:?}: {:?}", recording.leaves());
    }
}

#[test]
fn debug_files_by_build_id() {
    let Some(test) = Test::new("debug-by-id") else { return };
    if !test.needs("objcopy") || !test.needs("unshare") {
        return;
    }
    let program = split(&test, &["-Wl,--build-id=0x0123456789abcdef"]);
    // In a mount namespace of its own, where /usr/lib/debug is another directory.
    let script = "mkdir -p /usr/lib/debug && mount -t tmpfs none /usr/lib/debug || exit 77
        mkdir -p /usr/lib/debug/.build-id/01
        cp names.debug /usr/lib/debug/.build-id/01/23456789abcdef.debug
        exec \"$@\"";
    let recorder = env!("CARGO_BIN_EXE_profiler");
    let mut command = Command::new("unshare");
    command.current_dir(&test.dir).args(["-m", "sh", "-c", script, "sh", recorder, "record", "-F", "499"]);
    let output = command.args(["--", &program, "0.5"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(77) {
        return test.skip(&format!("no file system can be mounted here: {told}"));
    }
    assert!(output.status.success(), "{told}");
    require(&Recording::read(&test.path("output.pb.gz"), told), "elsewhere", &CHAIN, "by build id");
}

#[test]
fn symbols_without_type_and_size() {
    let Some(test) = Test::new("odd-symbols") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program is assembly for x86-64");
    }
    let program =
        test.compile("tests/programs/elsewhere.c", "elsewhere", &["-DASSEMBLY", "-rdynamic", "-no-pie"]);
    let leaf = |recording: &Recording, what: &str| {
        let all = recording.total(|sample| sample.comm == "elsewhere");
        let named = recording.total(|sample| recording.leaf(sample).name() == "leaf_elsewhere");
        chance::at_least(named, all, 0.95, 100, &format!("{what}: {:?}", recording.leaves()));
    };
    leaf(&test.record(&["-F", "499", "--", &program, "0.5"]), "all symbols");
    // What the dynamic linker needs is left.
    output("strip", &[&program]);
    leaf(&test.record(&["-F", "499", "--", &program, "0.5"]), "stripped");
    // And now without section headers: their offset, size and number in the ELF header are 0.
    let mut bytes = fs::read(&program).unwrap();
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    let bare = test.path("bare");
    fs::write(&bare, bytes).unwrap();
    copy_program(&bare, &program, 0);
    leaf(&test.record(&["-F", "499", "--", &program, "0.5"]), "no section headers");
}

/// Samples in code with a name, by the process.
fn by_process(recording: &Recording, name: &str) -> Vec<u32> {
    let found = recording.samples.iter().filter(|sample| recording.leaf(sample).name() == name);
    let mut pids: Vec<u32> = found.map(|sample| sample.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[test]
fn each_process_has_its_own_perf_map() {
    let Some(test) = Test::new("perf-maps") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program makes code for x86-64");
    }
    let program = test.compile("tests/programs/compiles.c", "compiles", &[]);
    let recording = test.record(&["-F", "499", "--", &program, "0.7", "workers"]);
    let (one, other) = (recording.with("compiled_by_one"), recording.with("compiled_by_other"));
    let leaves = recording.leaves();
    assert!(one > 100 && other > 100, "{leaves:?}");
    chance::at_least(one + other, recording.total(|_| true), 0.9, 300, &format!("{leaves:?}"));
    let pids = [by_process(&recording, "compiled_by_one"), by_process(&recording, "compiled_by_other")];
    assert!(pids[0].len() == 1 && pids[1].len() == 1 && pids[0] != pids[1], "{pids:?}: {leaves:?}");
}

#[test]
fn a_perf_map_that_is_written_at_the_end() {
    let Some(test) = Test::new("map-at-exit") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program makes code for x86-64");
    }
    let program = test.compile("tests/programs/compiles.c", "compiles", &[]);
    let recording = test.record(&["-F", "499", "--", &program, "0.5", "at-exit"]);
    let pid = recording.samples.iter().find(|sample| sample.comm == "compiles").unwrap().pid;
    fs::remove_file(format!("/tmp/perf-{pid}.map")).unwrap();
    let named = recording.total(|sample| recording.leaf(sample).name() == "listed_at_exit");
    chance::at_least(named, recording.total(|_| true), 0.9, 100, &format!("{:?}", recording.leaves()));
}

/// Ids repeat and /tmp stays, and everybody may write there.
#[test]
fn a_perf_map_that_is_not_the_processs() {
    let Some(test) = Test::new("foreign-map") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program makes code for x86-64");
    }
    let program = test.compile("tests/programs/compiles.c", "compiles", &[]);
    let mut command = Command::new(program);
    let mut running = spawn(command.args(["1000", "silent"]).stdout(Stdio::piped()));
    let mut range = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut range).unwrap();
    let pid = running.0.id();
    let path = format!("/tmp/perf-{pid}.map");
    let record = |name: &str, prepare: &dyn Fn()| {
        fs::write(&path, format!("{} {name}\n", range.trim())).unwrap();
        prepare();
        let recording = test.record_until(0.3, pid, &["-F", "499", "-p", &pid.to_string()]);
        fs::remove_file(&path).unwrap();
        let all = recording.total(|_| true);
        assert!(all > 50, "{:?}", recording.leaves());
        (recording.with(name), recording)
    };
    // Where the file is the process's own, its name is believed: so the others' could have been.
    let (named, recording) = record("of_its_own", &|| {});
    chance::at_least(named, recording.total(|_| true), 0.9, 50, &format!("{:?}", recording.leaves()));
    let two_days = Duration::from_secs(2 * 86_400);
    let age = || {
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - two_days).unwrap();
    };
    let (named, recording) = record("of_the_past", &age);
    assert_eq!(named, 0, "{:?}", recording.leaves());
    let give_away = || std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    let (named, recording) = record("forged", &give_away);
    assert_eq!(named, 0, "{:?}", recording.leaves());
}

#[test]
fn a_jitdump_has_names_and_lines() {
    let Some(test) = Test::new("jitdump") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program makes code for x86-64");
    }
    let program = test.compile("tests/programs/compiles.c", "compiles", &[]);
    let dir = test.dir.to_str().unwrap();
    let recording = test.record(&["-F", "499", "--", &program, "0.5", "dump", dir]);
    let line = ("dumped_function".to_owned(), 42, "source.of.jit".to_owned());
    let named = recording.total(|sample| recording.leaf(sample).lines.first() == Some(&line));
    chance::at_least(named, recording.total(|_| true), 0.9, 100, &format!("{:?}", recording.leaves()));
}

/// `dwz -m` moves what files have in common, names too, to a file of its own. Without that one the symbols are left.
#[test]
fn debug_information_that_files_share() {
    let Some(test) = Test::new("dwz") else { return };
    if !test.needs("dwz") {
        return;
    }
    let program = test.compile("tests/programs/elsewhere.c", "elsewhere", &["-g"]);
    let (other, shared) = (test.path("other"), test.path("shared"));
    copy_program(&program, &other, 0);
    output("dwz", &["-m", &shared, &program, &other]);
    assert!(
        output("readelf", &["-SW", &program]).contains(".gnu_debugaltlink"),
        "dwz found nothing to share"
    );
    for there in [true, false] {
        if !there {
            fs::remove_file(&shared).unwrap();
        }
        let recording = test.record(&["-F", "499", "--", &program, "0.5"]);
        let chain = ["main", "middle_elsewhere", "leaf_elsewhere"];
        require(&recording, "elsewhere", &chain, &format!("shared file there: {there}"));
        let in_source = |it: &(String, u64, String)| {
            it.0 == "leaf_elsewhere" && it.1 > 0 && it.2.ends_with("elsewhere.c")
        };
        let lines = recording.total(|sample| recording.leaf(sample).lines.iter().any(in_source));
        chance::at_least(lines, recording.with("leaf_elsewhere"), 0.95, 100, "lines");
    }
}

#[test]
fn symbols_without_a_size_end_where_a_function_begins() {
    let Some(test) = Test::new("unsized") else { return };
    if !cfg!(target_arch = "x86_64") {
        return test.skip("the program has assembly for x86-64");
    }
    let program = test.compile("tests/programs/unsized.c", "unsized", &["-rdynamic"]);
    let recording = test.record(&["-F", "499", "--", &program, "0.5", "labels"]);
    for function in ["unsized_work", "sized_work"] {
        let expected = 0.25 * 499.0;
        let named = recording.total(|sample| recording.leaf(sample).name() == function);
        assert!(
            named >= *chance::around(0.8 * expected).start(),
            "{function}: {named}: {:?}",
            recording.leaves()
        );
    }
    assert_eq!(recording.with("inner_label") + recording.with("unsized_work.loop"), 0);
    let recording = test.record(&["-F", "499", "--", &program, "0.5", "hidden"]);
    require(&recording, "unsized", &["main", "calls_hidden", "hidden_work"], "with symbols");
    output("strip", &[&program]);
    let recording = test.record(&["-F", "499", "--", &program, "0.5", "hidden"]);
    let caller = recording.with("calls_hidden");
    chance::at_least(caller, recording.total(|_| true), 0.95, 100, &format!("{:?}", recording.leaves()));
    // The work of the function that has lost its name is not that of the one before it.
    let before = recording.with("unsized_before");
    assert!(before * 20 <= caller, "{before} of {caller}: {:?}", recording.leaves());
}

/// It lies above all of the kernel's code, the last symbol of which is not its own.
#[test]
fn the_page_of_old_system_calls() {
    let Some(test) = Test::new("vsyscall") else { return };
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    if !maps.contains("[vsyscall]") {
        return test.skip("there is no such page here (vsyscall=none, or another machine)");
    }
    let program = test.compile("tests/programs/vsyscall.c", "vsyscall", &[]);
    let recording = test.record(&["-F", "499", "--", &program, "0.5"]);
    let calls = recording.with("old_calls");
    chance::at_least(recording.with("[vsyscall]"), calls, 0.5, 100, &format!("{:?}", recording.leaves()));
    let others = |sample: &Sample| {
        let names = recording.names(sample);
        let above = names.windows(2).find(|pair| pair[1] == "old_calls").map(|pair| pair[0].to_owned());
        above.is_some_and(|name| name.starts_with("bpf_"))
    };
    assert_eq!(recording.total(others), 0, "{:?}", recording.leaves());
}

#[test]
fn an_empty_name_of_a_process_is_told_as_one() {
    let Some(test) = Test::new("empty-name") else { return };
    let program = test.spin("spin", "busy", &["-DNAME=\"\""]);
    let recording = test.record(&["-F", "499", "--", &program, "0.5"]);
    let busy = recording.total(|sample| recording.has_frame(sample, "busy"));
    let called = |sample: &Sample| sample.comm == "[unnamed]" && sample.thread_comm == "[unnamed]";
    let unnamed = recording.total(|sample| recording.has_frame(sample, "busy") && called(sample));
    chance::at_least(unnamed, busy, 0.95, 50, "samples of a program without a name");
    // Below a root of its own, and in the table by that name.
    let said = |args: &[&str]| String::from_utf8(test.profiler(args).output().unwrap().stdout).unwrap();
    assert!(said(&["folded"]).lines().any(|line| line.starts_with("[unnamed];") && line.contains(";busy")));
    assert!(said(&["top", "--by", "process"]).contains("  [unnamed] ("));
}
