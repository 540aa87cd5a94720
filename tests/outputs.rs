//! The real binary on real and on hostile files. What is right is said by the judges in
//! `tests/judges`, which share no code with the program, or derived by hand.

mod files;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use files::{Directory, failure, profiler, run, skip, stdout};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
const JUDGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges");
/// Runs a judge in Python; none if there is no Python.
fn judge(args: &[&str]) -> Option<Output> {
    let Ok(output) = Command::new("python3").args(args).output() else {
        skip("python3 is not installed, so no judge looked at the output");
        return None;
    };
    Some(output)
}

/// Checks an SVG against folded text.
fn judge_svg(folded: &str, svg: &str) {
    let script = format!("{JUDGES}/svgframes.py");
    let Some(output) = judge(&[&script, "oracle", folded, svg, "--inverted-ok"]) else { return };
    assert!(output.status.success(), "{svg}: {}", String::from_utf8_lossy(&output.stdout));
}

fn lines(text: &str) -> BTreeMap<String, i64> {
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        let count: i64 = count.parse().unwrap();
        if count != 0 {
            assert!(lines.insert(stack.to_owned(), count).is_none(), "twice: {stack}");
        }
    }
    lines
}

#[test]
fn folded_stacks_are_those_of_the_judge() {
    for (file, index, name) in [
        ("cpu.pb.gz", "0", "samples"),
        ("cpu.pb.gz", "1", "cpu"),
        ("heap.pb.gz", "0", "alloc_objects"),
        ("heap.pb.gz", "3", "inuse_space"),
    ] {
        let path = format!("{DATA}/{file}");
        let ours = stdout(&["folded", &path, "--tagroot", "", "--sample-index", name]);
        let mut sorted: Vec<_> = ours.lines().collect();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(ours.lines()), "{file} {name}: not sorted");
        let script = format!("{JUDGES}/pprofcheck.py");
        let Some(theirs) = judge(&[&script, "--folded", "--index", index, &path]) else { return };
        assert_eq!(lines(&ours), lines(&String::from_utf8(theirs.stdout).unwrap()), "{file} {name}");
    }
}

#[test]
fn the_value_shown_is_samples_or_the_files_own() {
    let cpu = format!("{DATA}/cpu.pb.gz");
    assert_eq!(stdout(&["folded", &cpu]), stdout(&["folded", &cpu, "--sample-index", "samples"]));
    let heap = format!("{DATA}/heap.pb.gz");
    let own = stdout(&["folded", &heap, "--sample-index", "inuse_space"]);
    assert_eq!(stdout(&["folded", &heap]), own);
    let message = failure(&["folded", &heap, "--sample-index", "cpu"]);
    for name in ["'cpu'", "alloc_objects, alloc_space, inuse_objects, inuse_space"] {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn tags_stand_at_the_root() {
    let cpu = format!("{DATA}/cpu.pb.gz");
    let ours = stdout(&["folded", &cpu, "--tagroot", "none,phase"]);
    let program = "import sys; sys.path.insert(0, sys.argv[1]); import pprofcheck as p
profile, _ = p.load(sys.argv[2])
for stack, values, sample in p.stacks(profile):
    tags = [profile.string_table[l.str] for l in sample.label if profile.string_table[l.key] == 'phase']
    print(';'.join(tags + stack), values[0])";
    let Some(theirs) = judge(&["-c", program, JUDGES, &cpu]) else { return };
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for line in String::from_utf8(theirs.stdout).unwrap().lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap();
        // The label that Go wrote would split the frame and read as a count.
        let stack = stack.replace("hash; 1", "hash:_1");
        *expected.entry(stack).or_default() += count.parse::<i64>().unwrap();
    }
    assert_eq!(lines(&ours), expected);
    assert!(expected.keys().any(|stack| stack.starts_with("hash:_1;")));
}

#[test]
fn inlined_functions_are_annotated() {
    let cpu = format!("{DATA}/cpu.pb.gz");
    let annotated = stdout(&["folded", &cpu, "--annotate"]);
    // `make.go` has it so: mix is inlined into hash, which is not.
    assert!(annotated.contains(";main.hash;main.mix_[i] "), "{annotated}");
    let plain = stdout(&["folded", &cpu]);
    let total = |text: &str| lines(text).values().sum::<i64>();
    assert_eq!(total(&annotated), total(&plain));
    assert_eq!(lines(&annotated.replace("_[i]", "")), lines(&plain));
}

#[test]
fn pictures_show_what_the_folded_text_says() {
    let directory = Directory::new("pictures");
    for file in ["cpu.pb.gz", "heap.pb.gz"] {
        let input = format!("{DATA}/{file}");
        let folded = stdout(&["folded", &input, "--tagroot", "phase"]);
        let text = directory.file("in.folded", folded.as_bytes());
        let mut reversed = String::new();
        for (stack, count) in lines(&folded) {
            let frames: Vec<_> = stack.split(';').rev().collect();
            reversed += &format!("{} {count}\n", frames.join(";"));
        }
        let reversed = directory.file("reversed.folded", reversed.as_bytes());
        let svg = directory.path("out.svg");
        for options in [
            &[][..],
            &["--inverted"],
            &["--reverse"],
            &["--inverted", "--reverse", "--minwidth", "0"],
            &["--colors", "hot"],
            &["--colors", "java", "--hash"],
            &["--width", "1000", "--height", "20", "--minwidth", "0.5px"],
        ] {
            let args = [&["flamegraph", &input, "-o", &svg, "--tagroot", "phase"][..], options];
            let output = run(&args.concat());
            let message = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{options:?}: {message}");
            assert!(message.starts_with(&format!("wrote {svg} (")), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
            judge_svg(if options.contains(&"--reverse") { &reversed } else { &text }, &svg);
        }
    }
}

/// A protobuf message: integers and messages by field number.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn int(mut self, field: u64, number: u64) -> Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(self, field: u64, message: Message) -> Self {
        self.bytes(field, &message.0)
    }

    fn strings(self, texts: &[&str]) -> Self {
        texts.iter().fold(self, |message, text| message.bytes(6, text.as_bytes()))
    }
}

fn message() -> Message {
    Message::default()
}

/// `main` of a program calls `main` of the kernel; each has a mapping and a location.
fn two_mains() -> Message {
    let texts = ["", "samples", "count", "main", "/bin/app", "[kernel.kallsyms]", "comm", "main 7"];
    let location = |id| message().int(1, id).int(2, id).message(4, message().int(1, 1));
    message()
        .message(1, message().int(1, 1).int(2, 2))
        .message(3, message().int(1, 1).int(5, 4))
        .message(3, message().int(1, 2).int(5, 5))
        .message(4, location(1))
        .message(4, location(2))
        .message(5, message().int(1, 1).int(2, 3))
        .strings(&texts)
}

#[test]
fn a_name_of_two_kinds_has_two_colors() {
    let directory = Directory::new("kinds");
    let label = message().int(1, 6).int(2, 7);
    let sample = message().bytes(1, &[2, 1]).int(2, 5).message(3, label);
    let input = directory.file("in.pb", &two_mains().message(2, sample).0);
    assert_eq!(stdout(&["folded", &input]), "main_7;main;main 5\n");
    assert_eq!(stdout(&["folded", &input, "--annotate"]), "main_7;main;main_[k] 5\n");
    let svg = stdout(&["flamegraph", &input, "-o", "-"]);
    let colors: Vec<_> = svg
        .split("<title>main (5 samples, 100.00%)</title>")
        .skip(1)
        .map(|frame| frame.split("fill=\"").nth(1).unwrap().split('"').next().unwrap())
        .collect();
    assert_eq!(colors.len(), 2, "{svg}");
    assert_ne!(colors[0], colors[1]);
    assert!(!svg.contains("_["), "marks are shown: {svg}");
    for word in ["process", "kernel", "user", "inlined", "JIT", "BPF", "unresolved"] {
        assert!(svg.contains(&format!(">{word}</text>")), "no {word} in the legend");
    }
    // Nothing in the picture comes from elsewhere than its input.
    assert_eq!(svg, stdout(&["flamegraph", &input, "-o", "-"]));
}

#[test]
fn text_of_users_keeps_the_picture_well_formed() {
    let directory = Directory::new("text");
    let cpu = format!("{DATA}/cpu.pb.gz");
    let svg = directory.path("out.svg");
    let odd = "a -- <b> & \"c\" ]]> \u{1}-";
    let args = ["flamegraph", &cpu, "-o", &svg, "--title", odd, "--subtitle", odd, "--notes", odd];
    stdout(&[&args[..], &["--countname", "<&>"]].concat());
    let folded = directory.file("in.folded", stdout(&["folded", &cpu]).as_bytes());
    judge_svg(&folded, &svg);
    let svg = fs::read_to_string(svg).unwrap();
    assert!(svg.contains("a -- &lt;b&gt; &amp;"), "the title is missing");
}

#[test]
fn titles_tell_what_is_shown() {
    let cpu = format!("{DATA}/cpu.pb.gz");
    let title = |args: &[&str]| {
        let svg = stdout(&[&["flamegraph", &cpu, "-o", "-"], args].concat());
        let text = |id: &str| {
            let text = svg.split(&format!("id=\"{id}\"")).nth(1).unwrap();
            text.split('>').nth(1).unwrap().split('<').next().unwrap().to_owned()
        };
        (text("title"), text("subtitle"))
    };
    assert_eq!(title(&[]).0, "CPU Flame Graph");
    assert_eq!(title(&["--inverted"]).0, "CPU Icicle Graph");
    let total: i64 = lines(&stdout(&["folded", &cpu])).values().sum();
    let (_, subtitle) = title(&[]);
    assert!(subtitle.starts_with(&format!("{total} samples, ")), "{subtitle}");
    assert!(subtitle.ends_with(" s recorded, cpu.pb.gz"), "{subtitle}");
    assert_eq!(title(&["--title", "T", "--subtitle", "S"]), ("T".to_owned(), "S".to_owned()));
}

#[test]
fn an_older_picture_survives_every_failure() {
    let directory = Directory::new("older");
    let svg = directory.file("old.svg", b"old");
    symlink(&svg, directory.0.join("link.svg")).unwrap();
    let cpu = format!("{DATA}/cpu.pb.gz");
    // It ends within its first field.
    let bad = directory.file("bad.pb", b"\x0a\x44\x08");
    let empty = directory.file("empty.pb", &two_mains().0);
    let link = directory.path("link.svg");
    let nowhere = directory.path("none/out.svg");
    for (args, expected) in [
        (&[&bad, "-o", &svg][..], "bad.pb: it is not a pprof file"),
        (&[&empty, "-o", &svg], "the profile is empty"),
        (&["/no/such/file", "-o", &svg], "/no/such/file: no such file"),
        (&["/", "-o", &svg], "directory"),
        (&[&cpu, "-o", &svg, "--colors", "pink"], "kind, aqua"),
        (&[&cpu, "-o", &svg, "--sample-index", "x"], "samples, cpu"),
        (&[&cpu, "-o", &link], "symbolic link"),
        (&[&cpu, "-o", &directory.path("")], "directory"),
        (&[&cpu, "-o", &nowhere], "there is no directory"),
        (&[&cpu, "-o", "/dev/full"], "free some space"),
    ] {
        let message = failure(&[&["flamegraph"], args].concat());
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(fs::read(&svg).unwrap(), b"old");
    assert_eq!(directory.names(), ["bad.pb", "empty.pb", "link.svg", "old.svg"]);
    stdout(&["flamegraph", &cpu, "-o", &svg]);
    assert!(fs::read(&svg).unwrap().starts_with(b"<?xml"));
    assert_eq!(directory.names(), ["bad.pb", "empty.pb", "link.svg", "old.svg"]);
}

#[test]
fn under_sudo_files_belong_to_its_caller() {
    let directory = Directory::new("sudo");
    if fs::metadata(&directory.0).unwrap().uid() != 0 {
        return skip("only root can give files away");
    }
    let svg = directory.path("out.svg");
    let cpu = format!("{DATA}/cpu.pb.gz");
    let mut command = profiler(&["flamegraph", &cpu, "-o", &svg]);
    let output = command.env("SUDO_UID", "1234").env("SUDO_GID", "2345").output().unwrap();
    assert!(output.status.success());
    let metadata = fs::metadata(&svg).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (1234, 2345));
}

#[test]
fn pipes_end_quietly_and_files_come_from_them() {
    let directory = Directory::new("pipes");
    // More than a pipe holds, so that the reader is gone before all is written.
    let name = "x".repeat(1 << 20);
    let sample = message().bytes(1, &[1]).int(2, 5);
    let function = message().int(1, 1).int(2, 3);
    let input = message()
        .message(1, message().int(1, 1).int(2, 2))
        .message(2, sample)
        .message(4, message().int(1, 1).message(4, message().int(1, 1)))
        .message(5, function)
        .strings(&["", "samples", "count", &name]);
    let input = directory.file("in.pb", &input.0);
    for args in [&["folded", &input][..], &["flamegraph", &input, "-o", "-"]] {
        let mut child = profiler(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {message}");
        assert!(!message.contains("error"), "{args:?}: {message}");
    }
    let output = profiler(&["folded", "-"])
        .stdin(fs::File::open(format!("{DATA}/cpu.pb.gz")).unwrap())
        .output()
        .unwrap();
    let direct = stdout(&["folded", &format!("{DATA}/cpu.pb.gz")]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), direct);
    let full = profiler(&["folded", &input]).stdout(fs::File::create("/dev/full").unwrap()).output();
    assert_eq!(full.unwrap().status.code(), Some(1));
}

#[test]
fn values_beyond_all_bounds_are_refused_and_negative_ones_drawn() {
    let directory = Directory::new("values");
    let sample = |stack, value: i64| message().bytes(1, stack).int(2, value.cast_unsigned());
    let huge = two_mains().message(2, sample(&[1], i64::MAX)).message(2, sample(&[2, 1], i64::MAX));
    let huge = directory.file("huge.pb", &huge.0);
    for args in [&["flamegraph", &huge, "-o", "-"][..], &["top", &huge], &["diff", &huge, &huge]] {
        assert!(failure(args).contains("2^63"), "{args:?}");
    }
    let mixed = two_mains().message(2, sample(&[1], -3)).message(2, sample(&[2, 1], 4));
    let mixed = directory.file("mixed.pb", &mixed.0);
    assert_eq!(stdout(&["folded", &mixed]), "main -3\nmain;main 4\n");
    // 3 of 7, and 4 of 7 of which none is the caller's own: both signs have their width.
    for title in ["main (7 samples, 100.00%)", "main (4 samples, 57.14%)", "1 samples: +4 and -3"] {
        assert!(stdout(&["flamegraph", &mixed, "-o", "-"]).contains(title), "no {title}");
    }
}

#[test]
fn a_gzip_bomb_is_refused() {
    let directory = Directory::new("bomb");
    let bomb = directory.path("bomb.pb.gz");
    // 4 GiB, of which half is read.
    let made = Command::new("sh")
        .args(["-c", "head -c 64M /dev/zero | gzip -9 > \"$0.1\" && for i in $(seq 64); do cat \"$0.1\"; done > \"$0\"", &bomb])
        .status();
    assert!(made.unwrap().success());
    let message = failure(&["folded", &bomb]);
    assert!(message.contains("more than 2048 MiB"), "{message}");
}

#[test]
fn what_is_written_satisfies_the_judges() {
    let directory = Directory::new("written");
    let gopprofcheck = build_gopprofcheck(&directory);
    let script = format!("{JUDGES}/pprofcheck.py");
    for name in ["cpu.pb.gz", "heap.pb.gz"] {
        let original = format!("{DATA}/{name}");
        let profile = profiler::viewing::reading::read(Path::new(&original)).unwrap();
        let written = directory.file(name, profiler::viewing::pprof::encode(&profile));
        if let Some(program) = &gopprofcheck {
            // `FILE: OK samples=… totals=[…]`, then the hottest leaves.
            let verdict = |file: &str| {
                let output = Command::new(program).arg(file).output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                assert!(output.status.success(), "{text}");
                text.split_once("totals=").unwrap().1.to_owned()
            };
            assert_eq!(verdict(&written), verdict(&original));
        }
        let Some(output) = judge(&[&script, "--json", &written]) else { return };
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("\"errors\": []"), "{text}");
        let stacks = |file| lines_of(judge(&[&script, "--folded", file]).unwrap());
        assert_eq!(stacks(&written), stacks(&original));
    }
}

fn lines_of(output: Output) -> BTreeMap<String, i64> {
    lines(&String::from_utf8(output.stdout).unwrap())
}

/// Builds google/pprof's own checker; none if Go or the library is not there.
fn build_gopprofcheck(directory: &Directory) -> Option<String> {
    let program = directory.path("gopprofcheck");
    let output = Command::new("go")
        .args(["build", "-o", &program, "main.go"])
        .current_dir(Path::new(JUDGES).join("gopprofcheck"))
        .envs([("GO111MODULE", "off"), ("GOPATH", "/usr/share/gocode")])
        .env("GOCACHE", directory.path("cache"))
        .output();
    match output {
        Ok(output) if output.status.success() => Some(program),
        Ok(output) => {
            let message = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
            skip(&format!("google/pprof's checker does not build: {message}"));
            None
        }
        Err(_) => {
            skip("go is not installed, so google/pprof's checker did not run");
            None
        }
    }
}

#[test]
fn files_are_refused_that_google_pprof_refuses() {
    let directory = Directory::new("parity");
    let Some(gopprofcheck) = build_gopprofcheck(&directory) else { return };
    let unpacked = Command::new("gzip").args(["-dc", &format!("{DATA}/heap.pb.gz")]).output();
    let original = unpacked.unwrap().stdout;
    // Reproducible damage all over the file: xorshift chooses where and how.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut taken, mut refused) = (0, 0);
    for i in 0..300 {
        let mut bytes = original.clone();
        match i % 3 {
            0 => bytes[random(original.len())] ^= 1 << random(8),
            1 => bytes[random(original.len())] = random(256) as u8,
            _ => bytes.truncate(random(original.len())),
        }
        let file = directory.file(&format!("{i}.pb"), &bytes);
        let theirs = Command::new(&gopprofcheck).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&theirs.stdout).into_owned();
        let ours = run(&["folded", &file]);
        let message = String::from_utf8(ours.stderr).unwrap();
        assert!(matches!(ours.status.code(), Some(0 | 1)), "{i}: {message}");
        let read = !message.contains("failed to read");
        // The one intended difference: google/pprof drops a reference to a missing mapping, where
        // we say that the file is damaged.
        if message.contains("in mapping ") {
            continue;
        }
        let legal = !text.contains("PARSE") && !text.contains("INVALID");
        assert_eq!(read, legal, "case {i}: ours: {message:?} theirs: {text}");
        *(if legal { &mut taken } else { &mut refused }) += 1;
    }
    assert!(taken > 30 && refused > 100, "{taken} taken, {refused} refused");
}
