//! Processes as they come, change and go: every one is named.

use std::fs;

use crate::chance;
use crate::common::{Recording, Sample, Test, output};

/// Counts the samples in user mode of some processes: all, with a named leaf, and of these with a
/// symbol. Named is what has a symbol, or a module that exists, an offset and a reason.
fn named(recording: &Recording, wanted: impl Fn(&Sample) -> bool) -> (u64, u64, u64) {
    let (mut all, mut named, mut symbols) = (0, 0, 0);
    for sample in recording.samples.iter().filter(|sample| wanted(sample)) {
        let leaf = recording.leaf(sample);
        if leaf.in_kernel() || leaf.path() == "[bpf]" {
            continue;
        }
        all += sample.samples;
        let name = leaf.name();
        let place = name.strip_suffix(']').and_then(|name| name.split_once("+0x"));
        if let Some((module, _)) = place {
            named += if module.is_empty() { 0 } else { sample.samples };
        } else if !(name.is_empty() || name.starts_with("0x") || name.starts_with('[')) {
            named += sample.samples;
            symbols += sample.samples;
        }
    }
    (all, named, symbols)
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

#[test]
fn short_processes_of_a_shell_and_a_compiler_are_named() {
    let Some(test) = Test::new("builds") else { return };
    let program = "#include <stdio.h>\n#include <math.h>\nint N(int x) { return printf(\"%d\", x); }\n";
    for i in 0..40 {
        test.file(&format!("file{i}.c"), &program.replace('N', &format!("function_{i}")));
    }
    for (what, script, comms, enough) in [
        (
            "2,000 × true",
            "i=0; while [ $i -lt 2000 ]; do /bin/true; i=$((i+1)); done",
            &["true", "sh", "dash"][..],
            100,
        ),
        (
            "gcc of 40 files",
            "for f in file*.c; do gcc -O1 -c $f; done; gcc -shared -o all.so file*.o",
            &["sh", "dash", "gcc", "cc1", "as", "collect2", "ld", "x86_64-linux-gn"],
            200,
        ),
    ] {
        let recorder = test.started(&["-a", "-F", "999"]);
        let status = std::process::Command::new("sh").args(["-c", script]).current_dir(&test.dir).status();
        let recording = recorder.interrupt();
        // The loader's own work before the program's first instruction is the program's too.
        assert!(status.unwrap().success());
        let of_ours = |sample: &Sample| comms.contains(&sample.comm.as_str());
        let (all, named, symbols) = named(&recording, of_ours);
        let said = format!(
            "{what}: {all} samples in user mode, {:.2} % named, {:.2} % by a symbol; {}",
            percent(named, all),
            percent(symbols, all),
            recording.told.lines().nth(1).unwrap_or_default().trim(),
        );
        test.tell(&said);
        chance::at_least(named, all, 0.98, enough, &format!("{said}\n{:#?}", recording.leaves()));
        let unknown = recording.total(|sample| sample.comm.contains("[unknown]") || sample.comm.is_empty());
        let most = chance::most(recording.total(|_| true), 0.005);
        assert!(unknown <= most, "{unknown} samples of nobody, of at most {most}: {}", recording.told);
        assert_eq!(recording.lost, 0, "{}", recording.told);
    }
}

#[test]
fn two_thousand_processes_lose_nothing() {
    let Some(test) = Test::new("two-thousand") else { return };
    let half = "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done";
    let recording = test.record(&["-F", "999", "--", "sh", "-c", &format!("({half}) & ({half}); wait")]);
    let pids: std::collections::HashSet<u32> = recording.samples.iter().map(|sample| sample.pid).collect();
    test.tell(&format!("{} of 2,000 processes have samples", pids.len()));
    assert!(pids.len() > 200, "{}", recording.told);
    assert_eq!(recording.lost, 0, "{}", recording.told);
    assert!(recording.comments.contains(&"side-band records lost: 0".to_owned()), "{:?}", recording.comments);
    assert!(!recording.told.contains("not followed"), "{}", recording.told);
}

#[test]
fn threads_have_their_names() {
    let Some(test) = Test::new("threads") else { return };
    let program = test.compile("tests/programs/threads.c", "threads", &["-pthread"]);
    let recording = test.record(&["-F", "499", "--", &program, "0.5"]);
    for (function, name) in [("busy_alpha", "alpha-worker"), ("busy_beta", "beta-worker")] {
        let all = recording.with(function);
        let right = recording
            .total(|s| recording.has_frame(s, function) && s.thread_comm == name && s.comm == "threads");
        assert!(right == all, "{function}: {right} of {all}: {:#?}", recording.leaves());
        busy(&recording, function, "threads", 0.5 * 499.0);
    }
}

/// Requires that a function has the samples of its CPU time in processes of a name; `expected` is that time
/// by the rate. A twentieth of it may be the kernel's.
pub fn busy(recording: &Recording, function: &str, comm: &str, expected: f64) {
    let samples = recording.total(|sample| sample.comm == comm && recording.leaf(sample).name() == function);
    let least = *chance::around(0.95 * expected).start();
    assert!(
        samples >= least,
        "{function} in {comm}: {samples} of at least {least}: {:#?}\n{}",
        recording.leaves(),
        recording.told
    );
}

#[test]
fn a_program_that_only_a_chroot_has() {
    let Some(test) = Test::new("chroot") else { return };
    fs::create_dir_all(test.dir.join("root/only/here")).unwrap();
    test.spin("root/only/here/jailed", "busy_in_chroot", &["-static"]);
    let root = test.path("root");
    let recording = test.record(&["-F", "499", "--", "chroot", &root, "/only/here/jailed", "0.5"]);
    busy(&recording, "busy_in_chroot", "jailed", 0.5 * 499.0);
    assert!(recording.mappings.iter().any(|mapping| mapping.path == "/only/here/jailed"));
}

#[test]
fn a_program_that_deletes_itself() {
    let Some(test) = Test::new("deleted") else { return };
    let program = test.spin("deleted", "busy_deleted", &["-DREMOVE_ITSELF"]);
    let recording = test.record(&["-F", "499", "--", &program, "0.5"]);
    assert!(!fs::exists(&program).unwrap());
    busy(&recording, "busy_deleted", "deleted", 0.5 * 499.0);
}

#[test]
fn a_deleted_program_that_ran_before() {
    let Some(test) = Test::new("deleted-before") else { return };
    let program = test.spin("deleted", "busy_deleted", &["-DREMOVE_ITSELF"]);
    let running = crate::common::spawn(std::process::Command::new(&program).arg("600"));
    while fs::exists(&program).unwrap() {
        std::thread::yield_now();
    }
    let pid = running.0.id();
    let recording = test.record_until(0.3, pid, &["-F", "499", "-p", &pid.to_string()]);
    busy(&recording, "busy_deleted", "deleted", 0.3 * 499.0);
}

#[test]
fn a_library_that_is_loaded_late() {
    let Some(test) = Test::new("late") else { return };
    let library = test.spin("libplugin.so", "busy_in_plugin", &["-DLIBRARY", "-shared", "-fPIC"]);
    let program = test.compile("tests/programs/late.c", "late", &["-ldl"]);
    let recording = test.record(&["-F", "499", "--", &program, &library, "busy_in_plugin", "0.5"]);
    busy(&recording, "busy_in_plugin", "late", 0.5 * 499.0);
    assert!(recording.mappings.iter().any(|mapping| mapping.path == library));
}

#[test]
fn javascript_is_named_by_the_runtimes_map() {
    let Some(test) = Test::new("node") else { return };
    if !test.needs("node") {
        return;
    }
    let script = test.file(
        "hot.js",
        "function burnInScript(n) { let x = 1; for (let i = 0; i < n; i++) x = (x * 31 + i) % 1000003; return x; }
         let x = 0;
         while (process.cpuUsage().user < 1500000) x += burnInScript(200000);",
    );
    let command = ["node", "--perf-basic-prof", &script];
    let recording = test.record(&[&["-F", "499", "--no-interpreters", "--"], &command[..]].concat());
    for pid in recording.samples.iter().map(|sample| sample.pid).collect::<std::collections::HashSet<_>>() {
        let _ = fs::remove_file(format!("/tmp/perf-{pid}.map"));
    }
    let all = recording.total(|_| true);
    let hot = recording.total(|s| recording.names(s).iter().any(|name| name.contains("burnInScript")));
    test.tell(&format!("the hot function is in {:.1} % of {all} samples of node", percent(hot, all)));
    chance::at_least(hot, all, 0.6, 500, &format!("{:#?}", recording.leaves()));
}

#[test]
fn both_programs_of_an_exec() {
    let Some(test) = Test::new("exec") else { return };
    let first = test.spin("first", "busy_before_exec", &[]);
    let second = test.spin("second", "busy_after_exec", &["-static"]);
    let recording = test.record(&["-F", "499", "--", &first, "0.4", &second, "0.4"]);
    busy(&recording, "busy_before_exec", "first", 0.4 * 499.0);
    busy(&recording, "busy_after_exec", "second", 0.4 * 499.0);
    let pids = |function| {
        let samples = recording.samples.iter().filter(|s| recording.has_frame(s, function));
        samples.map(|s| s.pid).collect::<std::collections::HashSet<_>>()
    };
    assert_eq!(pids("busy_before_exec"), pids("busy_after_exec"));
}

#[test]
fn processes_that_live_three_milliseconds() {
    let Some(test) = Test::new("brief") else { return };
    let program = test.spin("brief", "busy_briefly", &[]);
    let script = "i=0; while [ $i -lt 40 ]; do \"$0\" 0.002; i=$((i+1)); done";
    let recording = test.record(&["-F", "1999", "--", "sh", "-c", script, &program]);
    let (all, named, symbols) = named(&recording, |sample| sample.comm == "brief");
    test.tell(&format!("{all} samples in user mode of 40 processes, {named} named, {symbols} by a symbol"));
    busy(&recording, "busy_briefly", "brief", 40.0 * 0.002 * 1999.0);
    chance::at_least(named, all, 0.98, 100, &format!("{:#?}", recording.leaves()));
    let seen: std::collections::HashSet<u32> = recording
        .samples
        .iter()
        .filter(|s| recording.leaf(s).name() == "busy_briefly")
        .map(|sample| sample.pid)
        .collect();
    assert!(seen.len() >= 38, "{} of 40 processes", seen.len());
}

#[test]
fn a_program_that_only_another_mount_namespace_has() {
    let Some(test) = Test::new("mount-namespace") else { return };
    let program = test.spin("visible", "busy_in_namespace", &[]);
    let hidden = test.path("mount");
    fs::create_dir(&hidden).unwrap();
    let script = "mount -t tmpfs none \"$1\" && cp \"$0\" \"$1/hidden\" && exec \"$1/hidden\" 0.5";
    let recording = test.record(&["-F", "499", "--", "unshare", "-m", "sh", "-c", script, &program, &hidden]);
    assert!(!fs::exists(format!("{hidden}/hidden")).unwrap());
    busy(&recording, "busy_in_namespace", "hidden", 0.5 * 499.0);
}

#[test]
fn a_program_in_another_pid_namespace() {
    let Some(test) = Test::new("pid-namespace") else { return };
    let program = test.spin("inner", "busy_as_init", &[]);
    let recording = test.record(&["-F", "499", "--", "unshare", "-p", "-f", "--mount-proc", &program, "0.5"]);
    busy(&recording, "busy_as_init", "inner", 0.5 * 499.0);
    // Labels have the ids that the machine's first namespace gives.
    assert!(recording.samples.iter().all(|sample| sample.pid > 1), "{:#?}", recording.samples);
}

#[test]
fn a_fork_without_exec() {
    let Some(test) = Test::new("fork") else { return };
    let program = test.compile("tests/programs/forks.c", "forks", &[]);
    let mut recorder = test.profiler(&["record", "-F", "499", "--", &program]);
    let stdout = fs::File::create(test.dir.join("ids")).unwrap();
    recorder.stdout(stdout);
    let recording = crate::common::Running::new(test.dir.join("output.pb.gz"), recorder).finish();
    let ids = fs::read_to_string(test.dir.join("ids")).unwrap();
    let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
    for (function, pid) in [("busy_parent", ids[0]), ("busy_child", ids[1])] {
        let all = recording.with(function);
        let right =
            recording.total(|s| recording.has_frame(s, function) && s.pid == pid && s.comm == "forks");
        assert!(right == all, "{function}: {right} of {all}: {:#?}", recording.leaves());
        busy(&recording, function, "forks", 0.5 * 499.0);
    }
}

/// A stripped program: its frames say where they are, and why they have no name.
#[test]
fn a_stripped_program_says_so() {
    let Some(test) = Test::new("stripped") else { return };
    let program = test.spin("stripped", "busy_stripped", &["-s"]);
    let recording = test.record(&["-F", "499", "--", &program, "0.3"]);
    let leaves = recording.total(|s| {
        let name = recording.leaf(s).name();
        name.starts_with("stripped+0x") && name.ends_with(" [stripped binary]")
    });
    let least = *chance::around(0.3 * 0.95 * 499.0).start();
    assert!(leaves >= least, "{leaves} of at least {least}: {:#?}", recording.leaves());
    if test.needs("readelf") {
        let text = output("readelf", &["-n", &program]);
        let id = text.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap_or_default();
        assert!(recording.mappings.iter().any(|m| m.path == program && m.build_id == id), "{id}");
    }
}
