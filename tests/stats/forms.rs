//! The forms of the output, read by others than the program.

use std::io::Write;
use std::ops::RangeInclusive;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{ROOT, Test, output};
use crate::machine::{Filter, program};

fn stats(test: &Test, args: &[&str]) -> String {
    output(test.profiler(&[]).get_program(), &[&["stats"], args].concat())
}

/// Every key of docs/stats.md is there with its type, and there is no other.
#[test]
fn json_has_the_documented_shape() {
    let Some(test) = Test::alone("stats-json") else { return };
    let filter = Filter::start(&test, "send", 1);
    let statistics: Value = serde_json::from_str(&stats(&test, &["-d", "100ms", "-o", "json"])).unwrap();
    let document = std::fs::read_to_string(format!("{ROOT}/docs/stats.md")).unwrap();
    let program = program(&statistics, filter.id);
    let map =
        statistics["maps"].as_array().unwrap().iter().find(|map| map["id"] == program["map_ids"][0]).unwrap();
    for (title, object) in [
        ("The object", &statistics),
        ("`totals`", &statistics["totals"]),
        ("`own`", &statistics["own"]),
        ("`statistics`", &statistics["statistics"]),
        ("A program", program),
        ("A map", map),
    ] {
        let table = document.split("\n**").find_map(|part| part.strip_prefix(&format!("{title}**")));
        let table = table.unwrap_or_else(|| panic!("{title} is not in docs/stats.md"));
        let mut documented: Vec<(&str, &str)> = Vec::new();
        for line in table.lines().filter(|line| line.starts_with("| `")) {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            documented.push((fields[1].trim_matches('`'), fields[2]));
        }
        let mut keys: Vec<&str> = documented.iter().map(|(key, _)| *key).collect();
        keys.sort_unstable();
        let mut found: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, keys, "{title}");
        for (key, kind) in documented {
            let value = &object[key];
            let right = match kind.trim_end_matches(" or null") {
                "integer" => value.is_u64(),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "object" => value.is_object(),
                "strings" => value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
                "integers" => value.as_array().is_some_and(|list| list.iter().all(Value::is_u64)),
                "objects" => value.as_array().is_some_and(|list| list.iter().all(Value::is_object)),
                other => panic!("{key}: {other} is no type"),
            };
            assert!(
                right || kind.ends_with(" or null") && value.is_null(),
                "{title}: {key} is {value}, and not {kind}"
            );
        }
    }
    // Two programs at least have the maps' memory between them, and totals are sums.
    let sum = |key: &str| -> u64 {
        statistics["programs"].as_array().unwrap().iter().map(|program| program[key].as_u64().unwrap()).sum()
    };
    for key in ["run_count", "run_time_ns", "map_memory_bytes"] {
        assert_eq!(statistics["totals"][key], sum(key), "{key}");
    }
}

const OPENMETRICS: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    for sample in family.samples:
        print(sample.name, sample.labels.get('id', '-'), sample.labels.get('name', '-'), sample.value)
";

/// Windows of 100 ms in three seconds: all of them, or as few as a busy machine lets end in time.
const SOME: RangeInclusive<usize> = 2..=31;

/// Feeds text to a command that must like it, and returns what it says.
fn judge(mut command: Command, text: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn openmetrics_pass_prometheus_own_parser() {
    let Some(test) = Test::alone("stats-metrics") else { return };
    let filter = Filter::start(&test, "send", 1);
    let text = stats(&test, &["-d", "100ms", "-o", "openmetrics"]);
    let mut python = Command::new("python3");
    // Debian's modules, for whatever Python is first in the path.
    python.args(["-c", OPENMETRICS]).env("PYTHONPATH", "/usr/lib/python3/dist-packages");
    let samples = judge(python, &text);
    assert!(samples.contains("bpf_cpus - - "), "{samples}");
    let ours = samples.lines().filter(|line| line.contains(&format!(" {} keeps_all ", filter.id)));
    assert_eq!(ours.count(), 11, "{samples}");
}

const CSV: &str = "
import csv, sys
rows = list(csv.DictReader(sys.stdin, strict=True))
assert all(None not in row and None not in row.values() for row in rows), rows
for row in rows:
    print(row['id'], row['name'], row['type'], row['map_memory_bytes'], row['loaded_in_window'])
";

#[test]
fn csv_has_a_header_and_a_line_for_each_program() {
    let Some(test) = Test::alone("stats-csv") else { return };
    let filter = Filter::start(&test, "send", 1);
    let text =
        stats(&test, &["--interval", "100ms", "-d", "3s", "-o", "csv", "--pid", &filter.pid().to_string()]);
    let mut python = Command::new("python3");
    python.args(["-c", CSV]);
    let rows = judge(python, &text);
    let expected = format!("{} keeps_all socket_filter ", filter.id);
    // Some windows, and one header.
    let windows = rows.lines().filter(|row| row.starts_with(&expected) && row.ends_with(" false"));
    assert!(SOME.contains(&windows.count()) && SOME.contains(&rows.lines().count()), "{rows}");
}

#[test]
fn the_table_is_appended_where_nobody_looks_and_redrawn_on_a_terminal() {
    let Some(test) = Test::alone("stats-table") else { return };
    let _filter = Filter::start(&test, "send", 1);
    let text = stats(&test, &["--interval", "100ms", "-d", "3s", "--sort", "id", "-n", "1"]);
    assert!(SOME.contains(&text.matches("% of one CPU  ").count()), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    let first = text.lines().next().unwrap();
    for word in [" programs ran ", "% of one CPU, ", "% of the machine", "; maps ", "this profiler (*): "] {
        assert!(first.contains(word), "{word:?} is not in {first}");
    }
    assert!(text.contains("; an empty program shows "), "{text}");
    if !test.needs("script") {
        return;
    }
    // A terminal of 100 columns: what is left out is named, and each picture fits.
    // Programs of others, which may run more often, are none of ours.
    let more = Filter::start(&test, "load", 50);
    let command = format!(
        "stty cols 100 rows 20; {} stats --interval 100ms -d 3s --pid {}",
        test.profiler(&[]).get_program().display(),
        more.pid()
    );
    let text = output("script", &["-qec", &command, "/dev/null"]);
    assert!(SOME.contains(&text.matches("\x1b[H\x1b[2J").count()), "{text}");
    assert!(text.contains("too narrow for: tag"), "{text}");
    for picture in text.split("\x1b[H\x1b[2J").skip(1) {
        let lines: usize = picture.lines().map(|line| line.trim_end().chars().count().div_ceil(100)).sum();
        assert!((12..20).contains(&lines) && picture.contains("keeps_all"), "{lines} lines: {picture}");
    }
}
