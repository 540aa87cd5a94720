//! What `packaging/` hands to users, judged by the programs that will read it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use clap::Parser;
use profiler::cli::Cli;

#[path = "../packaging/manual.rs"]
#[allow(dead_code)] // its `main`
mod manual;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SERVICE: &str = include_str!("../packaging/profiler.service");
const DAEMONSET: &str = include_str!("../packaging/daemonset.yaml");

/// A directory of its own for a test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("profiler-packaging-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Copies a file to a place below the directory.
    fn install(&self, from: impl AsRef<Path>, to: &str) {
        let to = self.0.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a command; `None` if there is none of that name, which is told.
fn run(test: &str, command: &mut Command) -> Option<Output> {
    match command.env("LC_ALL", "C.UTF-8").output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Unlike `eprintln!`, this is not captured when the test passes.
            let program = command.get_program().display();
            let _ = writeln!(std::io::stderr(), "SKIP: {test}: {program} is not installed");
            None
        }
        output => Some(output.unwrap()),
    }
}

/// Everything that a command printed, after its exit status.
fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status)
}

/// Standard output of a command that succeeds and has nothing to say on standard error.
fn stdout(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What the profiler itself says of its options.
fn help(command: &str) -> String {
    let args = command.split_whitespace().chain(["--help"]);
    stdout(&Command::new(env!("CARGO_BIN_EXE_profiler")).args(args).output().unwrap())
}

/// The long options in a text.
fn options(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| word.len() > 3 && word.starts_with("--"))
        .collect()
}

#[test]
fn manual_pages_have_every_option_and_example() {
    let dir = Directory::new("pages");
    manual::write(&dir.0, "2026-11-27").unwrap();
    let pages = dir.0.join("man/man1");
    let commands = [
        "",
        "record",
        "serve",
        "flamegraph",
        "folded",
        "top",
        "diff",
        "merge",
        "source",
        "convert",
        "threads",
        "stats",
        "latency",
        "doctor",
        "counts",
    ];
    assert_eq!(fs::read_dir(&pages).unwrap().count(), commands.len());
    for command in commands {
        let name = if command.is_empty() { "profiler.1".to_owned() } else { format!("profiler-{command}.1") };
        // What man(1) warns of it prints on standard error.
        let mut man = Command::new("man");
        man.args(["--warnings", "--local-file"]).arg(pages.join(&name)).env("MANWIDTH", "200");
        let Some(output) = run("manual_pages_have_every_option_and_example", &mut man) else { return };
        let page = stdout(&output);
        let help = help(command);
        assert!(!options(&help).is_empty(), "{help}");
        let missing: Vec<_> = options(&help).difference(&options(&page)).copied().collect();
        assert!(missing.is_empty(), "{name} lacks {missing:?}:\n{page}");
        for example in help.lines().skip(1).take_while(|line| line.starts_with("  ")) {
            assert!(page.contains(example.trim()), "{name} lacks {example:?}:\n{page}");
        }
    }
}

#[test]
fn shells_complete_commands_and_options() {
    const TEST: &str = "shells_complete_commands_and_options";
    let dir = Directory::new("completions");
    manual::write(&dir.0, "2026-11-27").unwrap();
    let completions = |shell: &str, script: &str, file: &str| {
        let mut command = Command::new(shell);
        command.args(["-c", script]).arg(dir.0.join(file));
        run(TEST, &mut command).map(|output| stdout(&output))
    };
    let lists = |out: String| {
        let words: BTreeSet<_> = out.split_whitespace().collect();
        assert!(words.contains("record"), "{out}");
        assert!(words.contains("--off-cpu") && words.contains("--off-cpu-only"), "{out}");
        assert!(!words.contains("stats") && !words.contains("--pid"), "{out}");
    };

    let bash = r#"source "$0"
        COMP_WORDS=(profiler rec) COMP_CWORD=1 && _profiler profiler rec profiler && echo "${COMPREPLY[@]}"
        COMP_WORDS=(profiler record --off) COMP_CWORD=2 && _profiler profiler --off record && echo "${COMPREPLY[@]}""#;
    completions("bash", bash, "bash-completion/completions/profiler").map(lists);
    let fish = r#"source $argv[1]; complete -C "profiler rec"; complete -C "profiler record --off""#;
    completions("fish", fish, "fish/vendor_completions.d/profiler.fish").map(lists);
    // zsh completes at a terminal only: it loads the function and knows whose it is.
    let zsh = r#"fpath=("${0:h}" $fpath); autoload -U compinit && compinit -u -D && print $_comps[profiler]
        autoload +X _profiler && whence -w _profiler"#;
    if let Some(out) = completions("zsh", zsh, "zsh/site-functions/_profiler") {
        assert_eq!(out, "_profiler\n_profiler: function\n");
    }
}

/// The units where the Debian package puts them, among those of this system.
fn unit_root(name: &str, service: &str) -> Directory {
    let dir = Directory::new(name);
    let units = Path::new("/usr/lib/systemd/system");
    for entry in fs::read_dir(units).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.extension() == Some(OsStr::new("target")) && path.is_file() {
            dir.install(path, &format!("usr/lib/systemd/system/{}", name.display()));
        }
    }
    dir.install("/bin/sh", "bin/sh");
    dir.install(format!("{ROOT}/packaging/profiler.timer"), "usr/lib/systemd/system/profiler.timer");
    fs::write(dir.0.join("usr/lib/systemd/system/profiler.service"), service).unwrap();
    dir
}

#[test]
fn systemd_accepts_the_units() {
    const TEST: &str = "systemd_accepts_the_units";
    let verify = |name: &str, service: &str| {
        let root = unit_root(name, service);
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["verify", "--man=no", "--recursive-errors=no"]);
        analyze.arg(format!("--root={}", root.0.display())).args(["profiler.service", "profiler.timer"]);
        run(TEST, &mut analyze)
    };
    let Some(output) = verify("units", SERVICE) else { return };
    assert_eq!(stdout(&output), "");
    // It would have told.
    let broken = SERVICE.replace("StateDirectory=", "StatesDirectory=");
    let output = verify("broken", &broken).unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("StatesDirectory"), "{}", said(&output));
}

#[test]
fn systemd_finds_the_service_confined() {
    let mut analyze = Command::new("systemd-analyze");
    // Up to 4.9 of 10 is "OK"; without a sandbox the service has 9.2.
    analyze.args(["security", "--offline=yes", "--threshold=30"]);
    analyze.arg(format!("{ROOT}/packaging/profiler.service"));
    let Some(output) = run("systemd_finds_the_service_confined", &mut analyze) else { return };
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Overall exposure level"), "{}", said(&output));
}

#[test]
fn recordings_are_kept_for_a_week() {
    let dir = Directory::new("tmpfiles");
    dir.install(format!("{ROOT}/packaging/profiler.tmpfile"), "profiler.conf");
    let state = dir.0.join("var/lib/private/profiler");
    fs::create_dir_all(&state).unwrap();
    for (name, days) in [("old", 8), ("young", 6)] {
        let file = fs::File::create(state.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
    }
    let mut tmpfiles = Command::new("systemd-tmpfiles");
    tmpfiles.arg(format!("--root={}", dir.0.display())).arg("--clean").arg(dir.0.join("profiler.conf"));
    let Some(output) = run("recordings_are_kept_for_a_week", &mut tmpfiles) else { return };
    assert_eq!(stdout(&output), "");
    let left: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["young"]);
}

#[test]
fn kubernetes_accepts_the_daemonset() {
    // scripts/test puts the validator, which brings the schemas, where nothing else is touched.
    let target = Path::new(env!("CARGO_BIN_EXE_profiler")).ancestors().nth(2).unwrap();
    let validate = |file: &Path| {
        let mut validator = Command::new(target.join("validators/bin/kubernetes-validate"));
        run("kubernetes_accepts_the_daemonset", validator.arg("--strict").arg(file))
    };
    let Some(output) = validate(&Path::new(ROOT).join("packaging/daemonset.yaml")) else { return };
    assert!(output.status.success(), "{}", said(&output));
    // It would have told.
    let dir = Directory::new("daemonset");
    let broken = dir.0.join("broken.yaml");
    fs::write(&broken, DAEMONSET.replace("hostPID:", "hostPIDs:")).unwrap();
    let output = validate(&broken).unwrap();
    assert!(!output.status.success() && said(&output).contains("hostPIDs"), "{}", said(&output));
}

/// The rest of the one line of a text that begins like this.
fn line<'a>(text: &'a str, begins: &str) -> &'a str {
    let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix(begins));
    let found = lines.next().unwrap_or_else(|| panic!("no line begins with {begins:?}"));
    assert_eq!(lines.next(), None, "two lines begin with {begins:?}");
    found
}

#[test]
fn the_service_and_the_daemonset_use_options_that_there_are() {
    let service = line(SERVICE, "ExecStart=").split_once("/usr/bin/profiler ").unwrap().1;
    // The output's name is the shell's to make.
    let service = service.replace(r#""$STATE_DIRECTORY/$(date -u +%%Y%%m%%dT%%H%%M%%SZ).pb.gz"'"#, "FILE");
    let daemonset = line(DAEMONSET, "args: [").trim_end_matches(']');
    for words in [&service, daemonset] {
        let args = words.split([' ', ',']).filter(|word| !word.is_empty()).map(|word| word.trim_matches('"'));
        Cli::try_parse_from(["profiler"].into_iter().chain(args)).unwrap();
    }
}

#[test]
fn the_service_and_the_daemonset_have_the_same_rights() {
    let words = |text: &str| -> BTreeSet<String> {
        let words = text.trim_end_matches(']').split([' ', ',']).filter(|word| !word.is_empty());
        words.map(|word| word.trim_start_matches("CAP_").to_owned()).collect()
    };
    let bounding = words(line(SERVICE, "CapabilityBoundingSet="));
    assert_eq!(bounding, words(line(SERVICE, "AmbientCapabilities=")));
    assert_eq!(bounding, words(line(DAEMONSET, "add: [")));
}
