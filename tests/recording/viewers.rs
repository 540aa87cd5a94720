//! What others make of a recording, and what kernel, vDSO and BPF frames look like in it.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::chance;
use crate::common::{JUDGES, Test, output, spawn};

#[test]
fn go_tool_pprof_shows_it() {
    let Some(test) = Test::new("pprof") else { return };
    if !test.needs("go") {
        return;
    }
    let program = test.compile("samples/shares.c", "shares", &[]);
    let recording = test.record(&["-F", "499", "--", &program, "1"]);
    let file = &recording.file;
    let pprof = |args: &[&str]| {
        let home = [("HOME", test.dir.as_os_str()), ("PPROF_TMPDIR", test.dir.as_os_str())];
        let output = Command::new("go")
            .args([&["tool", "pprof", "-symbolize=none"], args, &[file.as_str()]].concat())
            .envs(home)
            .output()
            .unwrap();
        let (told, text) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{args:?}: {told}");
        assert!(text.contains("heavy"), "{args:?}: {text}\n{told}");
        text.into_owned()
    };
    let top = pprof(&["-top"]);
    // flat flat% sum% cum cum% name: the hottest comes first.
    let first = top.lines().skip_while(|line| !line.contains("flat%")).nth(1).unwrap();
    let fields: Vec<&str> = first.split_whitespace().collect();
    let share: f64 = fields[1].trim_end_matches('%').parse().unwrap();
    let heavy = recording.total(|sample| recording.leaf(sample).name() == "heavy");
    let ours = 100.0 * heavy as f64 / recording.total(|_| true) as f64;
    assert!(fields[5] == "heavy" && (share - ours).abs() < 0.01, "{ours} %: {top}");
    assert!(top.contains("File: shares") && top.contains("Type: cpu"), "{top}");
    pprof(&["-tree"]);
    pprof(&["-peek", "heavy|medium"]);
    pprof(&["-traces"]);
    pprof(&["-top", "-sample_index=samples"]);
    assert!(pprof(&["-tree", "-tagroot=comm"]).contains("shares"));
    assert!(pprof(&["-tree", "-tagroot=comm,thread_comm"]).contains("shares"));
    if let Some(checker) = build_checker(&test) {
        assert!(output(checker, &[file]).contains(": OK "));
    }

    // A port that is free now; the server listens on no other address.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let pprof = output("go", &["tool", "-n", "pprof"]);
    let server = spawn(
        Command::new(pprof.trim())
            .args(["-symbolize=none", "-no_browser", &format!("-http={address}"), file])
            .env("HOME", &test.dir)
            .stderr(Stdio::null()),
    );
    for page in ["/ui/top", "/ui/flamegraph"] {
        let text = get(&address, page);
        assert!(text.starts_with("HTTP/1.0 200") && text.contains("heavy"), "{page}: {text:.300}");
    }
    drop(server);
}

/// A page of a server that is about to start.
fn get(address: &str, page: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let request = format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

/// Builds google/pprof's own checker; none if the library is not there.
fn build_checker(test: &Test) -> Option<String> {
    let program = test.path("gopprofcheck");
    let output = Command::new("go")
        .args(["build", "-o", &program, "main.go"])
        .current_dir(Path::new(JUDGES).join("gopprofcheck"))
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode")])
        .env("GOCACHE", test.path("cache"))
        .output()
        .unwrap();
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
        test.skip(&format!("google/pprof's checker does not build: {message}"));
        return None;
    }
    Some(program)
}

#[test]
fn kernel_frames_are_those_of_kallsyms() {
    let Some(test) = Test::new("kernel") else { return };
    let args = ["if=/dev/zero", "of=/dev/null", "bs=64k"];
    let busy = spawn(Command::new("dd").args(args).stderr(Stdio::null()));
    let pid = busy.0.id();
    let args = ["-F", "999", "-p", &pid.to_string(), "--kernel-addresses"];
    let recording = test.record_until(0.5, pid, &args[..4]);
    let with_addresses = test.record_until(0.5, pid, &args);
    let all = recording.total(|_| true);
    // What dd does is read and write.
    for (function, share) in [("do_syscall_64", 0.8), ("vfs_read", 0.5)] {
        chance::at_least(recording.with(function), all, share, 400, &format!("{:?}", recording.leaves()));
    }
    let text = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let mut symbols: Vec<(u64, &str)> = text
        .lines()
        .map(|line| {
            let mut fields = line.split_ascii_whitespace();
            (u64::from_str_radix(fields.next().unwrap(), 16).unwrap(), fields.nth(1).unwrap())
        })
        .collect();
    symbols.sort_unstable();
    let image = symbols.iter().find(|(_, name)| *name == "_text").unwrap().0;
    assert!(image >= 1 << 63 && recording.locations.values().all(|l| l.address < 1 << 63), "{image:#x}");
    let in_image = |l: &&crate::common::Location| l.path() == "[kernel.kallsyms]";
    let offsets = recording.locations.values().filter(in_image).map(|l| (image + l.file_offset(), l));
    let addresses = with_addresses.locations.values().filter(in_image).map(|l| (l.address, l));
    let mut checked = 0;
    for (address, location) in offsets.chain(addresses) {
        let below = symbols.partition_point(|(start, _)| *start <= address);
        let start = symbols[below - 1].0;
        // Several symbols may have one address.
        let names: Vec<&str> =
            symbols[..below].iter().rev().take_while(|(at, _)| *at == start).map(|(_, name)| *name).collect();
        assert!(names.contains(&location.name()), "{location:?}: kallsyms has {names:?}");
        checked += 1;
    }
    test.tell(&format!("{checked} kernel addresses agree with kallsyms"));
    assert!(checked > 10);
}

#[test]
fn the_kernels_page_of_user_code_is_named() {
    let Some(test) = Test::new("vdso") else { return };
    let program = test.compile("tests/programs/clock.c", "clock", &[]);
    let recording = test.record(&["-F", "999", "--", &program, "0.5"]);
    let in_vdso: Vec<_> =
        recording.samples.iter().filter(|sample| recording.leaf(sample).path() == "[vdso]").collect();
    let all: u64 = in_vdso.iter().map(|sample| sample.samples).sum();
    if all < 20 {
        // Without a clock that user mode can read, the vDSO makes a system call.
        return test.skip(&format!("clock_gettime spends no time in the vDSO: {:?}", recording.leaves()));
    }
    let named: u64 = in_vdso
        .iter()
        .filter(|sample| recording.leaf(sample).name().ends_with("clock_gettime"))
        .map(|sample| sample.samples)
        .sum();
    test.tell(&format!("{all} samples in the vDSO, {named} in clock_gettime"));
    assert!(named * 10 > all * 9, "{:?}", recording.leaves());
}

/// A program that takes a while at every system call.
#[test]
fn bpf_programs_have_frames() {
    let Some(test) = Test::new("bpf") else { return };
    if !test.needs("clang") {
        return;
    }
    let object = test.path("busy.bpf.o");
    let source = format!("{}/tests/programs/busy.bpf.c", crate::common::ROOT);
    output("clang", &["-O2", "-g", "-target", "bpf", "-c", &source, "-o", &object]);
    let loaded = libbpf_rs::ObjectBuilder::default().open_file(&object).and_then(|open| open.load());
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return test.skip(&format!("the BPF program cannot be loaded: {error:#}")),
    };
    let program = loaded.progs_mut().next().unwrap();
    let _link = match program.attach() {
        Ok(link) => link,
        Err(error) => return test.skip(&format!("the BPF program cannot be attached: {error:#}")),
    };
    let args = ["if=/dev/zero", "of=/dev/null", "bs=1"];
    let busy = spawn(Command::new("dd").args(args).stderr(Stdio::null()));
    let pid = busy.0.id();
    let recording = test.record_until(0.5, pid, &["-F", "1999", "-p", &pid.to_string()]);
    let is_the_program = |id: &u64| {
        recording.locations[id].path() == "[bpf]" && recording.locations[id].name().ends_with("_busy_in_bpf")
    };
    let in_bpf = recording.total(|sample| sample.stack.iter().any(is_the_program));
    test.tell(&format!("{in_bpf} of {} samples in the BPF program", recording.total(|_| true)));
    assert!(in_bpf > 20, "{:#?}", recording.leaves());
}

#[test]
fn instructions_have_what_they_took() {
    let Some(test) = Test::new("instructions") else { return };
    if !test.needs("objdump") || cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let program = test.compile("samples/shares.c", "shares", &["-g"]);
    let recording = test.record(&["-F", "499", "--", &program, "1"]);
    let file = &*recording.file;
    let args = ["source", "-d", "heavy", file, "--sample-index", "samples"];
    let listed = test.profiler(&args).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let heavy = recording.total(|sample| recording.leaf(sample).name() == "heavy");
    // `heavy in …/shares.c: 347 self, 347 total, 69.4% of 500`
    assert!(
        text.contains(&format!("shares.c: {} self, ", profiler::text::thousands(heavy))),
        "{heavy}: {text}"
    );
    let (lines, instructions) = text.split_once(&format!("  instructions in {program}:\n")).unwrap();
    // Its loop is a line of the source, which is still where the compiler saw it.
    assert!(lines.contains("DEFINE_SPIN(heavy"), "{lines}");
    let count = |word: &str| word.replace(',', "").parse::<u64>().unwrap_or(0);
    let sum = |text: &str, column: usize| -> u64 {
        text.lines().filter_map(|line| line.split_whitespace().nth(column)).map(count).sum()
    };
    assert_eq!(sum(instructions, 0), heavy, "{instructions}");
    // The same instructions as another disassembler finds.
    let ours: Vec<String> =
        instructions.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    let dump = output("objdump", &["-d", "--no-show-raw-insn", "--disassemble=heavy", &program]);
    let theirs: Vec<String> = dump
        .lines()
        .filter_map(|line| line.trim_start().split_once(":\t"))
        .map(|(address, _)| address.to_owned())
        .collect();
    assert!(ours.len() > 3 && theirs.starts_with(&ours), "{ours:?} and {theirs:?}");
    // Another file in its place has other instructions.
    test.compile("samples/threads.c", "shares", &["-lpthread"]);
    let text = String::from_utf8(test.profiler(&args).output().unwrap().stdout).unwrap();
    assert!(text.contains("the file is another one by now"), "{text}");
}
