//! Tables and comparisons of profiles, beside those of `go tool pprof`.

mod files;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use profiler::model::profile::{Function, Label, LabelValue, Line, Location, Profile, ValueType};
use profiler::viewing::{pprof, reading};
use serde_json::Value;

use files::{Directory, failure, run, skip, stdout, success};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
fn json(args: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[args, &["--json"]].concat())).unwrap()
}

fn names() -> [(String, Vec<&'static str>); 4] {
    let file = |name: &str| format!("{ROOT}/{name}");
    [
        (file("tests/data/cpu.pb.gz"), vec!["samples", "cpu"]),
        (file("tests/data/heap.pb.gz"), vec!["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"]),
        (file("samples/server.pb.gz"), vec!["samples", "cpu", "bpf_time"]),
        (file("samples/shares.pb.gz"), vec!["samples", "cpu"]),
    ]
}

/// Flat and cum of each function, as `go tool pprof` says; none without Go.
fn pprof_top(options: &[&str], unit: &str) -> Option<BTreeMap<String, (i64, i64)>> {
    let unit = format!("-unit={unit}");
    let output = Command::new("go")
        .args([
            "tool",
            "pprof",
            "-top",
            "-symbolize=none",
            "-nodecount=0",
            "-nodefraction=0",
            "-edgefraction=0",
            &unit,
        ])
        .args(options)
        .output();
    let Ok(output) = output else {
        skip("go is not installed, so `go tool pprof` did not look at the tables");
        return None;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
    let mut rows = BTreeMap::new();
    for line in text.lines().skip_while(|line| !line.trim_start().starts_with("flat ")).skip(1) {
        let mut rest = line.trim_start();
        let mut word = || {
            let (word, tail) = rest.split_once(' ').unwrap();
            rest = tail.trim_start();
            word
        };
        let number = |word: &str| {
            let end = word.find(|c: char| !c.is_ascii_digit() && !"-.".contains(c)).unwrap_or(word.len());
            word[..end].parse::<f64>().unwrap().round() as i64
        };
        let (flat, _, _, cum, _) = (word(), word(), word(), word(), word());
        let name = rest.trim_end_matches(" (inline)").trim_end_matches(" (partial-inline)");
        rows.insert(name.to_owned(), (number(flat), number(cum)));
    }
    Some(rows)
}

#[test]
fn top_is_that_of_pprof() {
    for (file, values) in names() {
        for value in values {
            let index = format!("-sample_index={value}");
            let unit = if value.ends_with("space") { "bytes" } else { "nanoseconds" };
            let Some(theirs) = pprof_top(&[&index, &file], unit) else { return };
            let ours = json(&["top", &file, "--sample-index", value]);
            let rows: BTreeMap<String, (i64, i64)> = ours["rows"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| {
                    (
                        row["name"].as_str().unwrap().to_owned(),
                        (row["self"].as_i64().unwrap(), row["total"].as_i64().unwrap()),
                    )
                })
                .collect();
            let differ: Vec<_> =
                theirs.iter().filter(|(name, values)| rows.get(*name) != Some(values)).collect();
            assert!(
                differ.is_empty() && rows.len() == theirs.len(),
                "{file} {value}: {differ:?}; {} and {}",
                rows.len(),
                theirs.len()
            );
            let own: i64 = rows.values().map(|(own, _)| own).sum();
            assert_eq!(Some(own), ours["total"].as_i64(), "{file} {value}");
        }
    }
}

#[test]
fn rows_are_of_what_was_asked_for() {
    let shares = format!("{ROOT}/samples/shares.pb.gz");
    let sum = |by: &str| {
        let table = json(&["top", &shares, "--by", by]);
        let rows = table["rows"].as_array().unwrap().clone();
        let own: i64 = rows.iter().map(|row| row["self"].as_i64().unwrap()).sum();
        assert_eq!(Some(own), table["total"].as_i64(), "{by}");
        rows.into_iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for by in ["function", "line", "binary", "process", "thread", "label:comm"] {
        assert!(!sum(by).is_empty());
    }
    let processes = sum("process");
    assert!(
        processes.iter().any(|name| name.starts_with("shares (") && name.ends_with(')')),
        "{processes:?}"
    );
    assert!(sum("label:comm").contains(&"shares".to_owned()));
    assert!(sum("binary").contains(&"/opt/samples/shares".to_owned()));
    // The program came from standard input to the compiler.
    let lines = sum("line");
    assert!(lines.iter().any(|name| name.starts_with("heavy ") && name.ends_with(":31")), "{lines:?}");
    // For people: a heading, one line a row, and of how many.
    let text = stdout(&["top", &shares, "-n", "2"]);
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.lines().last().unwrap().contains("more: -n"), "{text}");
    // What is focused on alone.
    let focused = json(&["top", &shares, "--focus", "^nothing_is_called_so$|main"]);
    assert!(focused["total"].as_i64() <= json(&["top", &shares])["total"].as_i64());
}

#[test]
fn shares_are_of_all_values_whatever_their_sign() {
    let directory = Directory::new("signs");
    for (folded, total, expected) in [
        ("a -5\nb -15\n", -20, [("a", 25.0), ("b", 75.0)]),
        ("a 5\nb -5\n", 0, [("a", 50.0), ("b", 50.0)]),
        ("a 6\nb -2\n", 4, [("a", 75.0), ("b", 25.0)]),
    ] {
        let file = profile(&directory, "signs", folded);
        let table = json(&["top", &file]);
        assert_eq!(table["total"], total);
        for (name, share) in expected {
            let row = table["rows"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
            assert_eq!([&row["self_percent"], &row["total_percent"]], [share, share], "{folded}: {name}");
        }
        // Nothing changed, and nothing is compared with nothing.
        for options in [&[][..], &["--absolute"]] {
            let same = json(&[&["diff", &file, &file], options].concat());
            for row in same["rows"].as_array().unwrap() {
                assert_eq!(row["self"]["change"], 0.0, "{folded}");
            }
        }
    }
    assert!(stdout(&["top", &directory.path("signs")]).starts_with("4 of samples; shares are of 8, "));
    // All of a, which shrank, went to b.
    let [before, after] = ["a -15\nb -5\n", "a -5\nb -15\n"];
    let before = profile(&directory, "before", before);
    let table = json(&["diff", &before, &profile(&directory, "after", after)]);
    let change = |name: &str| {
        let row = table["rows"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
        row["self"]["change_percent"].as_f64().unwrap()
    };
    assert_eq!([change("a"), change("b")], [50.0, -50.0]);
}

/// A function, its labels and its value.
type Labelled<'a> = (&'a str, &'a [(&'a str, &'a str)], i64);

/// A profile of stacks of one function, with labels, changed and written.
fn made(directory: &Directory, samples: &[Labelled<'_>], change: impl Fn(&mut Profile)) -> String {
    let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
    for (name, labels, value) in samples {
        let function = Function { name: (*name).to_owned(), ..Function::default() };
        let function = profile.functions.intern(function).into();
        profile.locations.push(Location { lines: vec![Line { function, line: 0 }], ..Location::default() });
        let stack = profile.intern_stack(&[(profile.locations.len() - 1).into()]);
        let label =
            |(key, text): &(&str, &str)| Label { key: (*key).into(), value: LabelValue::Str((*text).into()) };
        let labels = profile.intern_labels(&labels.iter().map(label).collect::<Vec<_>>());
        profile.add(stack, labels, &[*value]);
    }
    change(&mut profile);
    directory.file("made.pb.gz", pprof::encode(&profile))
}

#[test]
fn a_sample_counts_for_each_value_of_its_label() {
    let directory = Directory::new("several");
    let samples: [Labelled<'_>; 4] = [
        ("f", &[("k", "a"), ("k", "b"), ("k", "b")], 5),
        ("f", &[("k", "b"), ("other", "a")], 7),
        ("g", &[("other", "a")], 2),
        ("g", &[("k", "c"), ("k", "a")], 1),
    ];
    let file = made(&directory, &samples, |_| {});
    let table = json(&["top", &file, "--by", "label:k"]);
    let rows = table["rows"].as_array().unwrap().iter();
    let mut rows: Vec<_> =
        rows.map(|row| (row["name"].as_str().unwrap(), row["self"].as_i64().unwrap())).collect();
    rows.sort_unstable();
    assert_eq!(rows, [("(none)", 2), ("a", 6), ("b", 12), ("c", 1)]);
    assert_eq!(table["total"], 15);
    let text = stdout(&["top", &file, "--by", "label:k"]);
    assert!(text.lines().next().unwrap().ends_with("so rows add up to more"), "{text}");
    assert!(!stdout(&["top", &file, "--by", "label:other"]).contains("add up to more"));
}

#[test]
fn expressions_are_those_of_pprof() {
    let directory = Directory::new("expressions");
    let samples: [Labelled<'_>; 3] = [("json.(*Decoder).Decode", &[], 1), ("[x", &[], 2), ("jsonx", &[], 4)];
    let file = made(&directory, &samples, |_| {});
    for (focus, total) in [(r"\Qjson.(*D\E", 1), ("[[]", 2), ("json{,1}|n[x]", 4), (r"n\.|^[^[]*x$", 5)] {
        assert_eq!(json(&["top", &file, "--focus", focus])["total"], total, "{focus}");
    }
    assert!(run(&["top", &file, "--focus", "("]).status.code() == Some(1));
    // What a file itself asks for is no reason to show nothing.
    let file = made(&directory, &samples, |profile| profile.drop_frames = "malloc(".to_owned());
    let (text, said) = success(&["top", &file]);
    assert!(text.starts_with("7 of samples\n"), "{text}");
    assert!(said.contains("its drop_frames 'malloc(' is no regular expression (unclosed group)"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn on_a_terminal_lines_are_as_wide_as_it() {
    // `script` gives its command a terminal.
    let server = format!("{ROOT}/samples/server.pb.gz");
    let command = format!("stty cols 60 rows 20; {} top {server}", env!("CARGO_BIN_EXE_profiler"));
    let Ok(output) =
        Command::new("script").args(["-qec", &command, "/dev/null"]).env_remove("NO_COLOR").output()
    else {
        return skip("script (bsdutils) is not installed, so no terminal was there");
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("self%"), "{text}");
    assert!(text.contains("\x1b[1m") && text.contains('…'), "{text}");
    for line in text.lines() {
        let mut plain = String::new();
        let mut parts = line.split('\x1b');
        plain.push_str(parts.next().unwrap());
        parts.for_each(|part| plain.push_str(part.split_once('m').unwrap().1));
        assert!(plain.trim_end().chars().count() <= 60, "{plain:?}");
    }
}

#[test]
fn in_a_terminal_one_can_look_around() {
    let server = format!("{ROOT}/samples/server.pb.gz");
    let refused = failure(&["top", "-i", &server]);
    assert!(refused.contains("standard output is no terminal"), "{refused}");
    let command = format!(
        "stty cols 100 rows 30; timeout --foreground 60 {} top -i {server}",
        env!("CARGO_BIN_EXE_profiler")
    );
    let started = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut script) = started else {
        return skip("script (bsdutils) is not installed, so no terminal was there");
    };
    let (mut keys, mut screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
    let (mut seen, mut from) = (String::new(), 0);
    // Presses keys, and waits for what is drawn then.
    let mut after = |pressed: &str, what: &str| {
        if !pressed.is_empty() {
            from = seen.len();
            keys.write_all(pressed.as_bytes()).unwrap();
        }
        let mut bytes = [0; 4096];
        while !seen[from..].contains(what) {
            let count = screen.read(&mut bytes).unwrap();
            assert!(count > 0, "{what} was not shown: {seen}");
            seen += &String::from_utf8_lossy(&bytes[..count]);
        }
    };
    after("", "self%");
    after("", "compress/flate");
    // The flamegraph, in which a search finds something in the colour of matches, and the keys.
    after("t", "▕");
    after("/deflate\r", "48;2;255;64;200");
    after("?", "table or flamegraph");
    // The terminal is left as it was.
    after("q", "\u{1b}[?1049l");
    assert!(script.wait().unwrap().success());
}

/// Folded stacks as a profile.
fn profile(directory: &Directory, name: &str, folded: &str) -> String {
    let text = directory.file(&format!("{name}.folded"), folded);
    let path = directory.path(name);
    stdout(&["convert", &text, "--to", "pprof", "-o", &path]);
    path
}

#[test]
fn differences_are_those_of_pprof() {
    let directory = Directory::new("diff");
    let (server, cpu) = (format!("{ROOT}/samples/server.pb.gz"), format!("{ROOT}/tests/data/cpu.pb.gz"));
    let a = profile(&directory, "a", "main;f 700\nmain;g 250\nmain 50\nmain;gone 100\n");
    let b = profile(&directory, "b", "main;f 1600\nmain;g 300\nmain 100\nmain;new 40\n");
    let half = directory.path("half");
    stdout(&["convert", &server, "--focus", "flate", "--to", "pprof", "-o", &half]);
    for (before, after, value) in
        [(&a, &b, "samples"), (&b, &a, "samples"), (&server, &half, "cpu"), (&cpu, &cpu, "cpu")]
    {
        for normalise in [false, true] {
            let index = format!("-sample_index={value}");
            let base = format!("-diff_base={before}");
            let mut options = vec![&*index, &*base];
            options.extend(normalise.then_some("-normalize"));
            options.push(after);
            let Some(mut theirs) = pprof_top(&options, "nanoseconds") else { return };
            theirs.retain(|_, values| *values != (0, 0));
            let absolute: &[&str] = if normalise { &[] } else { &["--absolute"] };
            let ours = json(&[&["diff", before, after, "--sample-index", value], absolute].concat());
            let tolerance =
                if normalise { 1000.0_f64.max(1e-6 * ours["total_before"].as_f64().unwrap()) } else { 0.5 };
            let tolerance = if value == "samples" && normalise { 20.0 } else { tolerance };
            for row in ours["rows"].as_array().unwrap() {
                let name = row["name"].as_str().unwrap();
                let (flat, cum) = theirs.get(name).copied().unwrap_or_default();
                for (part, expected) in [("self", flat), ("total", cum)] {
                    let found = row[part]["change"].as_f64().unwrap();
                    // pprof rounds each sample where it scales.
                    assert!(
                        (found - expected as f64).abs() <= tolerance,
                        "{before} {after} {name} {part}: {found}, not {expected}"
                    );
                }
            }
            let rows = ours["rows"].as_array().unwrap();
            for name in theirs.keys() {
                assert!(rows.iter().any(|row| row["name"] == name.as_str()), "{name} is missing");
            }
        }
    }
}

#[test]
fn what_grew_is_told_from_chance() {
    let directory = Directory::new("grew");
    let before = profile(&directory, "before", "main;f 7000\nmain;g 3000\n");
    let same = profile(&directory, "same", "main;f 7030\nmain;g 2970\n");
    let slower = profile(&directory, "slower", "main;f 7000\nmain;g 6000\n");
    let row = |table: &Value, name: &str| {
        table["rows"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
    };
    let table = json(&["diff", &before, &same]);
    assert_eq!(row(&table, "g")["self"]["significant"], false);
    // The standard deviation is sqrt(2 · 0.3 · 0.7 / 10,000) = 0.65 %, of which 1.96 are ± 1.27 %.
    let margin = row(&table, "g")["self"]["margin_percent"].as_f64().unwrap();
    assert!((margin - 1.27).abs() < 0.02, "{margin}");
    assert!(stdout(&["diff", &before, &same]).contains("may be chance"));
    // g takes 6,000 of 13,000, which was 3,000 of 10,000.
    let table = json(&["diff", &before, &slower]);
    let percent = row(&table, "g")["self"]["change_percent"].as_f64().unwrap();
    assert!((percent - 16.15).abs() < 0.01, "{percent}");
    assert_eq!(row(&table, "g")["self"]["significant"], true);

    let status = |after: &str, limit: &str| {
        let output = run(&["diff", &before, after, "--fail-above", limit, "--json"]);
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        (
            output.status.code().unwrap(),
            summary["failed"].as_array().unwrap().len(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(status(&same, "0").0, 0);
    assert_eq!(status(&slower, "20%").0, 0);
    let (code, failed, message) = status(&slower, "10%");
    assert_eq!((code, failed), (3, 1));
    assert!(message.contains("g takes +16.15 % of the whole more than before"), "{message}");
    // As values the whole grew by 30 %, and f not at all.
    let table = json(&["diff", "--absolute", &before, &slower]);
    assert_eq!(row(&table, "f")["self"]["change"], 0.0);
    assert_eq!(row(&table, "main")["total"]["change"], 3000.0);
    let heap = format!("{ROOT}/tests/data/heap.pb.gz");
    let output = run(&["diff", &before, &heap]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("failed to compare") && message.contains("alloc_objects/count"), "{message}");
}

/// A copy with its nanoseconds in microseconds, which loses nothing of them, and another value before the others.
fn units(from: &str, to: &str) {
    let mut profile = reading::read(Path::new(from)).unwrap();
    let cpu = profile.sample_type(Some("cpu")).unwrap();
    let samples = profile.take_samples();
    profile.sample_types[cpu].unit = "microseconds".to_owned();
    profile.period_type.unit = "microseconds".to_owned();
    profile.period /= 1000;
    profile.sample_types.insert(0, ValueType::new("extra", "count"));
    for mut sample in samples {
        assert_eq!(sample.values[cpu] % 1000, 0);
        sample.values[cpu] /= 1000;
        sample.values.insert(0, 1);
        profile.add(sample.stack, sample.labels, &sample.values);
    }
    fs::write(to, pprof::encode(&profile)).unwrap();
}

#[test]
fn merged_profiles_are_those_of_pprof() {
    let directory = Directory::new("merge");
    let server = format!("{ROOT}/samples/server.pb.gz");
    let part = directory.path("part");
    stdout(&["convert", &server, "--focus", "flate", "--to", "pprof", "-o", &part]);
    let merged = directory.path("merged.pb.gz");
    stdout(&["merge", &server, &part, &server, "-o", &merged]);
    let theirs = directory.path("theirs.pb.gz");
    let made = Command::new("go")
        .args(["tool", "pprof", "-proto", "-symbolize=none", "-output", &theirs, &server, &part, &server])
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        return skip("go is not installed, so `go tool pprof` did not merge");
    }
    for value in ["samples", "cpu"] {
        let [a, b] = [&merged, &theirs].map(|file| json(&["top", file, "--sample-index", value]));
        assert_eq!(a["rows"], b["rows"], "{value}");
        let index = format!("-sample_index={value}");
        assert_eq!(
            pprof_top(&[&index, &merged], "nanoseconds"),
            pprof_top(&[&index, &theirs], "nanoseconds")
        );
    }
    // As many samples, so that all that pprof takes for equal is equal here.
    let raw = |file: &str| {
        let output =
            Command::new("go").args(["tool", "pprof", "-raw", "-symbolize=none", file]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let section =
            |from: &str, to: &str| text.split(from).nth(1).unwrap().split(to).next().unwrap().lines().count();
        (
            section("Samples:\n", "Locations\n"),
            section("Locations\n", "Mappings\n"),
            section("Mappings\n", "\u{0}"),
        )
    };
    assert_eq!(raw(&merged), raw(&theirs));
    // What one of them has in microseconds, and something that the others have not.
    let go = format!("{ROOT}/tests/data/cpu.pb.gz");
    let theirs = directory.path("theirs.pb.gz");
    units(&go, &theirs);
    let output = run(&["merge", &go, &theirs, "-o", &merged]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && message.contains("not all of the profiles have extra"), "{message}");
    let total =
        |file: &str, value: &str| json(&["top", file, "--sample-index", value])["total"].as_i64().unwrap();
    for value in ["samples", "cpu"] {
        assert_eq!(total(&merged, value), 2 * total(&go, value), "{value}");
    }
    let compared = json(&["diff", &go, &theirs, "--sample-index", "cpu"]);
    assert_eq!(compared["total_before"], compared["total_after"], "{compared}");
    assert!(
        compared["rows"].as_array().unwrap().iter().all(|row| row["total"]["change"] == 0.0),
        "{compared}"
    );
    let heap = format!("{ROOT}/tests/data/heap.pb.gz");
    let output = run(&["merge", &server, &heap, "-o", &merged]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && message.contains("heap.pb.gz") && message.contains("the one measures"),
        "{message}"
    );
}

#[test]
fn lines_of_a_function_have_what_they_took() {
    let cpu = format!("{ROOT}/tests/data/cpu.pb.gz");
    let source = |options: &[&str]| stdout(&[&["source", "--sample-index", "cpu"], options].concat());
    // `go tool pprof -list 'main.hash$'` says so: 170 ms flat, 310 ms cum, all in line 25 of make.go.
    let text = source(&["main.hash", &cpu, "--source-path", &format!("{ROOT}/tests/data")]);
    let line =
        text.lines().find(|line| line.contains("x ^= mix(x) >> 7")).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(
        line.split_whitespace().take(5).collect::<Vec<_>>(),
        ["170.000", "ms", "310.000", "ms", "25"],
        "{text}"
    );
    assert!(
        text.starts_with("main.hash in ./make.go: 170.000 ms self, 310.000 ms total, 17.42% of 1.78 s\n"),
        "{text}"
    );
    // Lines around it have their text and no value.
    assert!(text.contains(".            .      23      x := uint64(1)"), "{text}");
    let bare = source(&["main.hash", &cpu]);
    assert!(
        bare.contains("its text was not found: --source-path")
            && bare.contains("170.000 ms   310.000 ms      25"),
        "{bare}"
    );
    // A regular expression finds several, the hottest first.
    let several = source(&["^main\\.", &cpu]);
    let total = |name: &str| several.find(&format!("{name} in ")).unwrap_or_else(|| panic!("{several}"));
    assert!(total("main.main") < total("main.hash"), "{several}");
    let output = run(&["source", "no_such_function", &cpu]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("failed to find samples of 'no_such_function'"), "{message}");
}

#[test]
fn a_comparison_is_drawn() {
    let directory = Directory::new("drawn");
    let before = profile(&directory, "before", "main;f 700\nmain;g 250\nmain;gone 50\n");
    let after = profile(&directory, "after", "main;f 600\nmain;g 1300\nmain;new 100\n");
    let svg = directory.path("diff.svg");
    stdout(&["diff", &before, &after, "-o", &svg]);
    let svg = fs::read_to_string(svg).unwrap();
    let frame = |name: &str| {
        let (_, rest) =
            svg.split_once(&format!("<title>{name} (")).unwrap_or_else(|| panic!("{name}: {svg}"));
        let (title, rest) = rest.split_once("</title>").unwrap();
        let (_, color) = rest.split_once("fill=\"rgb(").unwrap();
        let color: Vec<u32> =
            color.split(')').next().unwrap().split(',').map(|it| it.parse().unwrap()).collect();
        (title.to_owned(), color)
    };
    // Before is as if it had been 2,000, too: f 1,400, g 500. Red has less blue, and blue less red.
    let (title, color) = frame("f");
    assert!(title.starts_with("600 samples, 30.00%; -40.00%") && color[0] < color[2], "{title} {color:?}");
    let (title, color) = frame("g");
    assert!(title.starts_with("1,300 samples, 65.00%; +40.00%") && color[2] < color[0], "{title} {color:?}");
}
