//! What `profiler convert` writes, opened by the projects that it is for: speedscope in Chromium, and the
//! Firefox Profiler's own command line. `scripts/test` fetches both from npm into `target/importers`.

mod files;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use files::{Directory, skip, stdout};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A package that `scripts/test` has fetched, and the program that runs it.
fn package(name: &str, program: &str) -> Option<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(ROOT).join("target"), PathBuf::from);
    let path = target.join("importers/node_modules").join(name);
    if !path.exists() {
        skip(&format!(
            "{name} is not in {}: scripts/test fetches it from npm",
            target.join("importers").display()
        ));
        return None;
    }
    if !Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        skip(&format!("{program} is not installed, so {name} did not open a file"));
        return None;
    }
    Some(path)
}
/// Self and total of each function, by our own table, which `tests/tables.rs` holds to pprof's.
fn top(file: &str, value: &str) -> (i64, BTreeMap<String, (i64, i64)>) {
    let table: Value =
        serde_json::from_str(&stdout(&["top", file, "--sample-index", value, "--json"])).unwrap();
    let rows = table["rows"].as_array().unwrap().iter();
    let number = |row: &Value, key: &str| row[key].as_i64().unwrap();
    let rows = rows
        .map(|row| (row["name"].as_str().unwrap().to_owned(), (number(row, "self"), number(row, "total"))));
    (number(&table, "total"), rows.collect())
}

/// Functions that are one frame, and so one row in viewers too.
fn alone(json: &Value) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for frame in json["shared"]["frames"].as_array().unwrap() {
        *counts.entry(frame["name"].as_str().unwrap()).or_default() += 1;
    }
    counts.into_iter().filter(|(_, count)| *count == 1).map(|(name, _)| name.to_owned()).collect()
}

fn unescape(html: &str) -> String {
    html.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

#[test]
fn speedscope_opens_what_is_written_for_it() {
    let Some(speedscope) = package("speedscope", "chromium") else { return };
    let directory = Directory::new("speedscope");
    for file in [format!("{ROOT}/samples/server.pb.gz"), format!("{ROOT}/tests/data/cpu.pb.gz")] {
        let json = directory.path("x.speedscope.json");
        stdout(&["convert", &file, "--sample-index", "samples", "--to", "speedscope", "-o", &json]);
        let base64 = Command::new("base64").args(["-w0", &json]).output().unwrap().stdout;
        let script = directory.path("load.js");
        let text = String::from_utf8(base64).unwrap();
        fs::write(&script, format!("speedscope.loadFileFromBase64(\"x.speedscope.json\", \"{text}\")"))
            .unwrap();
        let page = speedscope.join("dist/release/index.html");
        let output = Command::new("timeout")
            .args([
                "120",
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--virtual-time-budget=8000",
            ])
            .args([
                "--allow-file-access-from-files",
                &format!("--user-data-dir={}", directory.path("data")),
                "--dump-dom",
            ])
            .arg(format!("file://{}#localProfilePath={script}&view=sandwich", page.display()))
            .output()
            .unwrap();
        let dom = String::from_utf8_lossy(&output.stdout).into_owned();
        let name = Path::new(&file).file_name().unwrap().to_str().unwrap();
        assert!(dom.contains(&format!("<title>{name} (samples) - speedscope</title>")), "{dom:.2000}");
        // The table's cells: total, self, and the name, which ends the row.
        let mut found = 0;
        let names = alone(&serde_json::from_slice(&fs::read(&json).unwrap()).unwrap());
        let (_, ours) = top(&file, "samples");
        let table = dom.rsplit_once("Self").map_or("", |(_, table)| table);
        for row in table.split("<tr").skip(1) {
            let mut words: Vec<String> = Vec::new();
            for part in row.split('>').skip(1) {
                let text = unescape(part.split('<').next().unwrap_or_default());
                if !text.is_empty() {
                    words.push(text);
                }
            }
            let [total, own, .., name] = &words[..] else { continue };
            let count = |text: &str| text.split(' ').next().unwrap().replace(',', "").parse::<i64>().ok();
            // The row of the process is no function.
            let Some(values) = ours.get(name).filter(|_| names.contains(name)) else { continue };
            assert_eq!((count(own), count(total)), (Some(values.0), Some(values.1)), "{name}: {words:?}");
            found += 1;
        }
        assert!(found >= 5, "{found} functions of {file} in {table:.3000}");
    }
}

#[test]
fn the_firefox_profiler_opens_what_is_written_for_it() {
    let Some(package) = package("@firefox-devtools/profiler-cli", "node") else { return };
    let directory = Directory::new("firefox");
    let cli = |args: &[&str]| {
        let output = Command::new("node")
            .arg(package.join("dist/profiler-cli.js"))
            .args(args)
            .env("HOME", &directory.0)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    // A value, and how many of it are one of what is shown.
    for (file, value, each) in [
        ("samples/server.pb.gz", "samples", 1.0),
        ("samples/shares.pb.gz", "cpu", 1e6),
        ("tests/data/heap.pb.gz", "inuse_space", 1.0),
    ] {
        let file = format!("{ROOT}/{file}");
        let json = directory.path("x.json");
        stdout(&["convert", &file, "--sample-index", value, "--to", "firefox", "-o", &json]);
        // It hands the file to a process of its own, and does not wait long for it.
        cli(&["load", &json]);
        let start = Instant::now();
        let answer = loop {
            let (out, error) = cli(&["thread", "functions", "--json"]);
            if let Ok(answer) = serde_json::from_str::<Value>(&out) {
                break Ok(answer);
            }
            if error.contains("Profile load failed") || start.elapsed() > Duration::from_secs(60) {
                break Err(format!("{out}{error}"));
            }
            std::thread::sleep(Duration::from_millis(500));
        };
        cli(&["stop", "--all"]);
        let answer = answer.unwrap_or_else(|error| panic!("{file}: {error}"));
        let (_, ours) = top(&file, value);
        let mut theirs: BTreeMap<&str, (usize, f64, f64)> = BTreeMap::new();
        for function in answer["functions"].as_array().unwrap() {
            let row = theirs.entry(function["name"].as_str().unwrap()).or_default();
            let number = |key: &str| function[key].as_f64().unwrap() * each;
            *row = (row.0 + 1, row.1 + number("selfSamples"), row.2 + number("totalSamples"));
        }
        for (name, &(own, total)) in &ours {
            let &(functions, found_own, found_total) =
                theirs.get(&**name).unwrap_or_else(|| panic!("{file}: {name} is missing"));
            assert!((found_own - own as f64).abs() < 1.0, "{file} {name}: {found_own}, not {own}");
            // The same name in two binaries is two functions there.
            assert!(
                functions > 1 || (found_total - total as f64).abs() < 1.0,
                "{file} {name}: {found_total}, not {total}"
            );
        }
        assert_eq!(ours.len(), theirs.len(), "{file}");
    }
}
