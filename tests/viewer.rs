//! The viewer: its modules in node, and the files that the program writes in a real browser. The tests are in
//! `tests/viewer`, in the viewer's language.

use std::io::Write;
use std::process::{Command, Stdio};

const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/viewer");

/// True if the program is there; else says that the test does not run.
fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        // Unlike `eprintln!`, this is not captured when the test passes.
        let _ = writeln!(std::io::stderr(), "SKIP: {test}: {program} is not installed");
    }
    found.is_ok()
}

/// Runs one of the files and shows what it says of what it measured and skipped.
fn node(file: &str) {
    let output = Command::new("node")
        .args(["--test", &format!("{TESTS}/{file}")])
        .env("PROFILER", env!("CARGO_BIN_EXE_profiler"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines() {
        let said = line.trim_start_matches(['#', ' ']);
        if said.starts_with("SKIP: ") || said.starts_with("MEASURED: ") {
            let _ = writeln!(std::io::stderr(), "{said}");
        }
    }
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("# fail 0") || text.contains("ℹ fail 0"), "{text}");
    let passed = text.lines().find_map(|line| line.split_once("pass ")?.1.trim().parse::<u32>().ok());
    assert!(passed.is_some_and(|passed| passed > 0), "no test ran: {text}");
}

#[test]
fn its_modules_do_what_they_say() {
    if has("node", "viewer modules") {
        node("units.test.mjs");
    }
}

#[test]
fn in_a_browser_it_does_what_its_page_says() {
    if has("node", "viewer in a browser") && has("chromium", "viewer in a browser") {
        node("page.test.mjs");
    }
}
