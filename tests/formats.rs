//! Files that other programs write, and files that the program writes for them: the real binary, and as
//! judges the importers of those programs.

mod files;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use files::{Directory, failure, success};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
fn folded(file: &str, options: &[&str]) -> String {
    success(&[&["folded", file], options].concat()).0
}
fn unpacked(name: &str) -> Vec<u8> {
    Command::new("gzip").args(["-dc", &format!("{DATA}/{name}")]).output().unwrap().stdout
}

const SPEEDSCOPE: &str = include_str!("data/formats/speedscope.json");

const FIREFOX: &str = include_str!("data/formats/firefox-47.json");

const FIREFOX_TODAY: &str = include_str!("data/formats/firefox-70.json");
const CHROME: &str = include_str!("data/formats/v8.cpuprofile");

const PERF_SCRIPT: &str = include_str!("data/formats/perf-script.txt");

#[test]
fn what_other_profilers_write_is_read() {
    let directory = Directory::new("read");
    let text = directory.file("x.folded", "main;read_[k] 3\nmain;twice;leaf_[i] 2\n");
    assert_eq!(folded(&text, &[]), "main;read 3\nmain;twice;leaf 2\n");
    assert_eq!(folded(&text, &["--annotate"]), "main;read_[k] 3\nmain;twice;leaf_[i] 2\n");

    let perf = directory.file("perf.txt", PERF_SCRIPT);
    let expected = "work;main;do_syscall_64_[k] 10101010\nwork;main;leaf 10101010\n";
    assert_eq!(folded(&perf, &["--annotate"]), expected);
    assert_eq!(
        folded(&perf, &["--sample-index", "cpu", "--tagroot", ""]),
        expected.replace("work;", "").replace("_[k]", "")
    );

    let speedscope = directory.file("x.json", SPEEDSCOPE);
    let expected = "main 3250000\nmain;leaf 3000000\nmain;other 1500000\nother 1000000\n";
    assert_eq!(folded(&speedscope, &[]), expected);
    let expected = "one;main 3000000\none;main;leaf 3000000\none;other 1000000\ntwo;main 250000\ntwo;main;other 1500000\n";
    assert_eq!(folded(&speedscope, &["--tagroot", "thread_comm"]), expected);

    let firefox = directory.file("firefox.json", FIREFOX);
    assert_eq!(
        folded(&firefox, &["--annotate"]),
        "app 1\napp;main 1\napp;main;leaf 1\napp;main;leaf;inner_[i] 1\n"
    );
    let cpu = "13 20000\n13;main;leaf 30000\n13;main;leaf;inner 500000\n";
    assert_eq!(folded(&firefox, &["--type", "cpu", "--tagroot", "tid"]), cpu);

    let chrome = directory.file("x.cpuprofile", CHROME);
    assert_eq!(folded(&chrome, &[]), "(idle) 1\nrun 2\nrun;(anonymous) 1\n");
    // 250 µs up to the second sample; 50 µs are left for the last.
    let time = "(idle) 700000\nrun 300000\nrun;(anonymous) 500000\n";
    assert_eq!(folded(&chrome, &["--sample-index", "time"]), time);
    let answer =
        directory.file("answer.json", format!("{{\"id\": 1, \"result\": {{\"profile\": {CHROME}}}}}"));
    assert_eq!(folded(&answer, &["--sample-index", "time"]), time);
    let half = directory.file("half.json", CHROME.replace("\"run\"", "\"run\\ud800\""));
    assert_eq!(folded(&half, &["--sample-index", "time"]), time.replace("run", "run\u{fffd}"));
    // Fractions are not lost.
    let fractions = SPEEDSCOPE.replace("\"milliseconds\"", "\"nanoseconds\"");
    let fractions = folded(&directory.file("fractions.json", fractions), &[]);
    let sum: i64 = sums(&fractions).values().sum();
    let whole: i64 = sums(&folded(&speedscope, &[])).values().sum();
    assert!((sum * 1_000_000 - whole).abs() <= 1_000_000, "{sum} {whole} {fractions}");
    for (name, text) in [("cr", &b"main;a 1\rmain;b 2\r"[..]), ("utf16", b"\xff\xfem\0;\0a\0 \x001\0\n\0")] {
        let file = directory.file(name, text);
        assert!(folded(&file, &[]).starts_with(if name == "cr" {
            "main;a 1\nmain;b 2\n"
        } else {
            "m;a 1\n"
        }));
    }
    // However they are packed, and whatever they are called.
    let gzip = |file: &str| {
        let packed = Command::new("gzip").args(["-c", file]).output().unwrap().stdout;
        directory.file("packed", packed)
    };
    assert_eq!(folded(&gzip(&gzip(&chrome)), &["--sample-index", "1"]), time);
}

/// Sums by what comes before the last word of each line.
fn sums(text: &str) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let (key, value) = line.rsplit_once(' ').unwrap();
        *sums.entry(key.to_owned()).or_insert(0) += value.parse::<i64>().unwrap();
    }
    sums
}

/// Recordings of perf, in all the forms in which it prints them: every event and every period is counted.
#[test]
fn what_perf_prints_adds_up_to_what_perf_counts() {
    let directory = Directory::new("perf-record");
    let data = directory.path("perf.data");
    // Two processes; the name of one has a blank, a digit and is not ASCII.
    let shell = directory.path("é run 3");
    fs::copy("/bin/sh", &shell).unwrap();
    let work = format!(
        "'{shell}' -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; /bin/true; /bin/true'; ls / >/dev/null"
    );
    let perf = |args: &[&str]| {
        let output = Command::new("perf").args(args).stdin(std::process::Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (events, graph) in [
        ("cpu-clock:u,page-faults", true),
        ("cpu-clock", false),
        ("sched:sched_switch,sched:sched_process_exec", true),
        ("sched:sched_process_exec", false),
        ("task-clock,sched:sched_process_exec", true),
    ] {
        let graph: &[&str] = if graph { &["-g"] } else { &[] };
        let record =
            [&["record", "-q", "--sample-cpu", "-e", events, "-o", &data], graph, &["--", "sh", "-c", &work]]
                .concat();
        if perf(&record).is_none() {
            files::skip(&format!(
                "what_perf_prints_adds_up_to_what_perf_counts: perf cannot record {events}"
            ));
            continue;
        }
        // What perf itself says of each event: its number, or its period where it prints one.
        let clock = events.contains("clock");
        let own = perf(&["script", "-i", &data, "-F", if clock { "event,period" } else { "event" }]).unwrap();
        let mut counted = BTreeMap::new();
        for line in own.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace().rev();
            let event = words.next().unwrap().strip_suffix(':').unwrap();
            // perf does not print the period of a tracepoint by itself.
            let period = words.next().filter(|_| !event.starts_with("sched:"));
            let period = period.map_or(1, |period| period.parse::<i64>().unwrap());
            *counted.entry(event.to_owned()).or_insert(0) += period;
        }
        assert!(!counted.is_empty(), "{events}");
        let forms: [&[&str]; 4] =
            [&[], &["--header"], &["--ns", "-F", "+pid"], &["--no-inline", "-F", "+cpu"]];
        for form in forms {
            let text = perf(&[&["script", "-i", &data], form].concat()).unwrap();
            let file = directory.file("perf.txt", &text);
            for (event, total) in &counted {
                let name = match event.split(':').next().unwrap() {
                    "cpu-clock" | "task-clock" => "cpu",
                    "sched" => event,
                    name => name,
                };
                let (lines, message) = success(&["folded", &file, "--sample-index", name]);
                assert_eq!(sums(&lines).values().sum::<i64>(), *total, "{event} {form:?} {lines}");
                assert_eq!(message, "", "{event} {form:?}");
                assert!(lines.contains("é run_3") || !event.contains("clock"), "{event} {form:?} {lines}");
            }
        }
    }
}

#[test]
fn tables_of_todays_firefox_are_read() {
    let directory = Directory::new("shared");
    // Version 70: tables are shared, a stack says how far before it its prefix is, and frames have libraries.
    let file = FIREFOX_TODAY;
    let path = directory.file("x.json", file);
    // Stacks 1 and 2 are the same frame below the same one.
    assert_eq!(folded(&path, &["--sample-index", "time"]), "t;main 3000000\nt;main;leaf 3500000\n");
    let early = directory.file("early.json", file.replace("[0, 1, 2]", "[0, 2, 2]"));
    assert!(
        failure(&["folded", &early])
            .contains("it is a file of the Firefox Profiler: its thread 't': an earlier stack")
    );
}

#[test]
fn a_profile_of_node_is_read() {
    let directory = Directory::new("node");
    let script = directory.file(
        "a.js",
        "function spin(ms) { const end = Date.now() + ms; let x = 0; while (Date.now() < end) { x += Math.sqrt(x + 1); } return x; }\n\
         function outer() { return spin(300); }\nouter();\n",
    );
    let made = Command::new("node")
        .args(["--cpu-prof", &format!("--cpu-prof-dir={}", directory.path("")), &script])
        .output();
    let Ok(made) = made else {
        return eprintln!("SKIP: a_profile_of_node_is_read: node is not installed");
    };
    assert!(made.status.success(), "{made:?}");
    let file = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|it| it == "cpuprofile")).unwrap();
    let lines = folded(file.to_str().unwrap(), &["--sample-index", "time"]);
    let spin: i64 = lines
        .lines()
        .filter(|line| line.contains("outer;spin"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<i64>().unwrap())
        .sum();
    // It spins for 300 ms by the clock, and the profile's times are by the clock.
    assert!((250_000_000..400_000_000).contains(&spin), "{spin}: {lines}");
}

#[test]
fn what_is_not_read_is_named() {
    let directory = Directory::new("named");
    let word = |number: u64| number.to_le_bytes();
    let legacy_cpu = [0, 3, 0, 10_000, 0, 1, 1, 0x1000].map(word).concat();
    let gzip = |data: &[u8]| {
        let file = directory.file("layer", data);
        Command::new("gzip").args(["-c", &file]).output().unwrap().stdout
    };
    let layers = (0..4).fold(b"x".to_vec(), |data, _| gzip(&data));
    for (data, words) in [
        (
            &legacy_cpu[..],
            "old formats, which have addresses and no names: convert it with `go tool pprof -proto",
        ),
        (b"heap profile: 1: 2 [3: 4] @ heap/524288\n", "old formats"),
        (
            b"heap_v2/524288\n  t*: 1: 2 [0: 0]\n",
            "heap profile of jemalloc: fold it with `jeprof --collapsed",
        ),
        (b"FLR\0\0\x02", "Java's Flight Recorder"),
        (b"{\"traceEvents\": []}", "a Chrome trace"),
        (b"{\"profile\": {\"threads\": []}}", "as Firefox itself keeps it"),
        (b"{\"a\": 1}", "JSON of an unknown kind"),
        (b"{\"nodes\": [", "JSON that is damaged or cut off"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"PK\x03\x04xx", "a zip archive"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"\x7fELF\x02", "a program or library"),
        (b"# callgrind format\n", "a file of callgrind"),
        (b"Once upon a time\n", "text of an unknown kind"),
        (b"--- a/x\n+++ b/x\n", "text of an unknown kind"),
        (b"2ELIFREP\0\0\0", "a perf.data file: name the output of `perf script`"),
        (b"\n<!DOCTYPE HTML>\n", "an HTML page"),
        (b"main;a 10 20\nmain;b 5 0\n", "a comparison of two profiles"),
        (b"main;a 1\nmain;b 2.5\n", "line 2 of its folded stacks has no whole number at its end"),
        (b"main;a 1e3\n", "line 1 of its folded stacks has no whole number at its end"),
        (b"\xde\xad\xbe\xef\x01", "of an unknown kind, and begins with `\\xde\\xad\\xbe\\xef\\x01`"),
        (&layers, "gzip in gzip"),
        (&gzip(b""), "it is empty"),
    ] {
        let file = directory.file("file", data);
        for command in [&["folded", &file][..], &["flamegraph", &file, "-o", "-"], &["threads", &file]] {
            let message = failure(command);
            assert!(message.contains(words), "{message}, not {words}");
            assert!(message.contains(&format!("failed to read the profile {file}: ")), "{message}");
        }
    }
    let bad = directory.file("bad.json", SPEEDSCOPE.replace("\"frame\": 2", "\"frame\": 7"));
    let message = failure(&["folded", &bad]);
    assert!(
        message.contains("a speedscope file: its profile 'one': frame 7 of 3 is referred to"),
        "{message}"
    );
}

#[test]
fn profiles_in_a_row_are_added_up() {
    let directory = Directory::new("row");
    let cpu = fs::read(format!("{DATA}/cpu.pb.gz")).unwrap();
    let one = folded(&format!("{DATA}/cpu.pb.gz"), &[]);
    let doubled: String = one
        .lines()
        .map(|line| {
            let (stack, count) = line.rsplit_once(' ').unwrap();
            format!("{stack} {}\n", 2 * count.parse::<i64>().unwrap())
        })
        .collect();
    let raw = unpacked("cpu.pb.gz");
    for (name, bytes) in [("gz", [&cpu[..], &cpu].concat()), ("raw", [&raw[..], &raw].concat())] {
        let file = directory.file(name, bytes);
        let (lines, message) = success(&["folded", &file]);
        assert_eq!(lines, doubled);
        assert!(message.contains("holds several profiles: its 2 are added up"), "{message}");
    }
    let heap = fs::read(format!("{DATA}/heap.pb.gz")).unwrap();
    let message = failure(&["folded", &directory.file("both", [cpu, heap].concat())]);
    assert!(
        message.contains("several profiles in a row") && message.contains("samples/count, cpu/nanoseconds"),
        "{message}"
    );
}

#[test]
fn a_value_is_found_by_position_and_in_place_of_one_without_data() {
    let heap = format!("{DATA}/heap.pb.gz");
    assert_eq!(folded(&heap, &["--sample-index", "1"]), folded(&heap, &["--sample-index", "alloc_space"]));
    assert!(failure(&["folded", &heap, "--sample-index", "4"]).contains("failed to find the value '4'"));
    // What is allocated and not in use any more.
    let directory = Directory::new("default");
    let text = directory.file(
        "x.json",
        SPEEDSCOPE
            .replace("\"milliseconds\", \"startValue\": 0, \"endValue\": 3", "\"none\"")
            .replace("1.5, 0.25", "0, 0"),
    );
    let (lines, message) = success(&["folded", &text]);
    assert_eq!(lines, "main 3000000\nmain;leaf 3000000\nother 1000000\n");
    assert!(
        message.contains("every value of 'samples' is 0") && message.contains("so 'time' is shown"),
        "{message}"
    );
    assert!(
        failure(&["folded", &text, "--sample-index", "samples"]).contains("every value of 'samples' is 0")
    );
}

#[test]
fn what_is_written_as_perf_prints_it_is_what_inferno_reads() {
    use inferno::collapse::Collapse;
    use inferno::collapse::perf::{Folder, Options};

    let directory = Directory::new("perf");
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/samples");
    for file in
        [format!("{samples}/server.pb.gz"), format!("{samples}/shares.pb.gz"), format!("{DATA}/cpu.pb.gz")]
    {
        for value in ["samples", "cpu"] {
            let (text, _) = success(&["convert", &file, "--sample-index", value, "--to", "perf-script"]);
            let mut options = Options::default();
            options.annotate_kernel = true;
            let mut lines = Vec::new();
            Folder::from(options).collapse(text.as_bytes(), &mut lines).unwrap();
            let sums = |lines: &str| {
                let mut sums = BTreeMap::new();
                for line in lines.lines() {
                    let (stack, value) = line.rsplit_once(' ').unwrap();
                    // inferno changes names a little; the number of frames and which are the kernel's stay.
                    let shape: Vec<bool> = stack.split(';').map(|frame| frame.ends_with("_[k]")).collect();
                    *sums.entry(shape).or_insert(0) += value.parse::<i64>().unwrap();
                }
                sums
            };
            let ours = folded(&file, &["--sample-index", value, "--annotate"]);
            // The vDSO is the kernel to it.
            let theirs = String::from_utf8(lines).unwrap().replace("clock_gettime_[k]", "clock_gettime");
            let total = |text: &str| sums(text).values().sum::<i64>();
            assert_eq!(total(&theirs), total(&ours), "{file} {value}");
            if file.contains("cpu.pb.gz") {
                // Go's own profiles have no process's name, which perf always prints.
                continue;
            }
            assert!(sums(&theirs) == sums(&ours), "{file} {value}");
            // And back.
            let back = directory.file("perf.txt", &text);
            assert_eq!(folded(&back, &["--sample-index", value, "--annotate"]), ours, "{file} {value}");
        }
    }
}

#[test]
fn what_is_converted_to_pprof_and_folded_is_the_same() {
    let directory = Directory::new("convert");
    let chrome = directory.file("x.cpuprofile", CHROME);
    let pprof = directory.path("x.pb.gz");
    success(&["convert", &chrome, "--to", "pprof", "-o", &pprof]);
    for value in ["0", "1"] {
        assert_eq!(folded(&pprof, &["--sample-index", value]), folded(&chrome, &["--sample-index", value]));
    }
    let server = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/server.pb.gz");
    let (text, _) = success(&["convert", server, "--to", "folded"]);
    assert_eq!(text, folded(server, &["--annotate"]));
    let text = directory.file("x.folded", &text);
    assert_eq!(folded(&text, &["--annotate"]), folded(server, &["--annotate"]));
    // What shrank has no place elsewhere.
    let less = directory.file("less.folded", "a;b -3\n");
    let older = directory.file("older", "older");
    let message = failure(&["convert", &less, "--to", "perf-script", "-o", &older]);
    assert!(message.contains("values of a comparison are negative"), "{message}");
    assert_eq!(fs::read_to_string(older).unwrap(), "older");
}
