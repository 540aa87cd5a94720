//! Programs that come and go, kernels and users that lack something, and every way out.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::chance::again;
use crate::common::{Test, kill, output, refusal, spawn, wait_until};
use crate::machine::{Filter, Measuring, kept, program, wait_until_it_watches};

#[test]
fn programs_that_come_and_go_are_shown_and_flagged() {
    let Some(test) = Test::alone("stats-comings") else { return };
    // To find the owners of new programs takes time, of which the profiler spends a twentieth on it.
    let mut lives = [200, 1_000, 5_000, 20_000].into_iter().map(Duration::from_millis);
    again("owners are found while they live", 4, || come_and_go(&test, lives.next().unwrap()));
}

/// Programs that stay, go, come, and come and go after so long; an error if nobody looked at the last in time.
fn come_and_go(test: &Test, life: Duration) -> Result<(), String> {
    let mut stays = Filter::start(test, "send", 5_000);
    let mut goes = Filter::start(test, "send", 7_000);
    let measuring = Measuring::start(test, &[]);
    let mut comes = Filter::start(test, "send", 6_000);
    let mut passes = Filter::start(test, "send", 8_000);
    wait_until("programs that came are noticed", || {
        let known = kept(measuring.pid());
        [comes.id, passes.id].iter().all(|id| known.contains(id))
    });
    sleep(life);
    [&mut stays, &mut goes, &mut comes, &mut passes].into_iter().for_each(Filter::send);
    let [stays_id, goes_id, comes_id, passes_id] = [&stays, &goes, &comes, &passes].map(|filter| filter.id);
    let (gone, passed) = (goes.pid(), passes.pid());
    drop((goes, passes));
    // A program is kept in memory for its counters, and then let go.
    wait_until("programs that went are let go", || {
        let shown = Command::new("bpftool").args(["prog", "show", "id", &goes_id.to_string()]).output();
        !shown.is_ok_and(|output| output.status.success())
    });
    let statistics = measuring.finish();
    if program(&statistics, passes_id)["owners"] == Value::Array(Vec::new()) {
        return Err(format!("a program that lived for {life:?} has no owner"));
    }
    for (id, runs, loaded, unloaded) in [
        (stays_id, 5_000, false, false),
        (goes_id, 7_000, false, true),
        (comes_id, 6_000, true, false),
        (passes_id, 8_000, true, true),
    ] {
        let ours = program(&statistics, id);
        assert_eq!(ours["run_count"], runs, "{ours}");
        assert_eq!(
            (&ours["loaded_in_window"], &ours["unloaded_in_window"]),
            (&loaded.into(), &unloaded.into())
        );
        assert_eq!(ours["owners"][0]["comm"], "filter", "{ours}");
    }
    let owner = |id| program(&statistics, id)["owners"][0]["pid"].clone();
    assert_eq!((owner(goes_id), owner(passes_id)), (gone.into(), passed.into()));
    Ok(())
}

#[test]
fn programs_that_vanish_are_no_error() {
    let Some(test) = Test::alone("stats-storm") else { return };
    let idle = Filter::start(&test, "send", 1);
    let mut storm = spawn(Command::new(test.path("filter")).args(["storm", "60000"]));
    let mut unseen = 0;
    let mut rounds = 0;
    while (rounds < 5 || unseen <= 100) && storm.0.try_wait().unwrap().is_none() {
        for args in [&["-d", "0"][..], &["-d", "100ms"]] {
            let told = output(test.profiler(&[]).get_program(), &[&["stats", "-o", "json"], args].concat());
            let statistics: Value = serde_json::from_str(&told).unwrap();
            program(&statistics, idle.id);
            unseen += statistics["unseen_programs"].as_u64().unwrap();
        }
        rounds += 1;
    }
    test.tell(&format!("{rounds} rounds, {unseen} programs came and went unseen"));
    assert!(rounds >= 5 && unseen > 100, "{rounds} rounds, {unseen} unseen");
}

#[test]
fn without_privilege_the_capability_is_named() {
    let Some(test) = Test::alone("stats-unprivileged") else { return };
    let profiler = test.profiler_for_everybody();
    for args in [&["stats"][..], &["stats", "-d", "0"]] {
        let output =
            Command::new(&profiler).args(args).uid(65534).gid(65534).current_dir("/").output().unwrap();
        let message = refusal(&output);
        assert!(
            message.contains("failed to list BPF programs: ") && message.contains("CAP_SYS_ADMIN"),
            "{message}"
        );
        assert!(output.stdout.is_empty());
    }
}

/// `/proc` without the sysctl stands for a kernel without it.
#[test]
fn without_statistics_what_is_known_is_printed() {
    let Some(test) = Test::alone("stats-without") else { return };
    let filter = Filter::start(&test, "send", 1);
    let hide = "mount -t tmpfs tmpfs /proc/sys/kernel && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", hide, "sh"]).arg(test.profiler(&[]).get_program());
    let output = command.args(["stats", "--by-sysctl", "-o", "json"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("statistics cannot be switched on"), "{told}");
    let statistics: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(statistics["window_ns"], 0);
    assert_eq!(statistics["statistics"]["switched_on_by"], Value::Null);
    assert_eq!(program(&statistics, filter.id)["owners"][0]["comm"], "filter");
}

/// A recorder's programs are ours; those that a profiler only watches are not.
#[test]
fn a_profilers_own_programs_are_marked() {
    let Some(test) = Test::alone("stats-own") else { return };
    let filter = Filter::start(&test, "send", 1);
    let recorder = test.started(&["-a", "-d", "60s", "--no-symbolize"]);
    let other = Measuring::start(&test, &[]);
    let measuring = Measuring::start(&test, &[]);
    sleep(Duration::from_millis(300));
    let table = output(test.profiler(&[]).get_program(), &["stats", "-d", "100ms", "--sort", "id"]);
    let statistics = measuring.finish();
    let programs = statistics["programs"].as_array().unwrap();
    let is_recorders = |program: &Value| program["owners"][0]["pid"] == recorder.pid();
    assert!(programs.iter().all(|program| program["own"] == true || !is_recorders(program)), "{statistics}");
    // Those of others that measure at the same time are ours too.
    let ours: Vec<&Value> = programs.iter().filter(|program| program["own"] == true).collect();
    let sum = |key: &str| ours.iter().map(|program| program[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(statistics["own"]["programs"], ours.len());
    assert_eq!(statistics["own"]["run_time_ns"], sum("run_time_ns"));
    assert!(sum("run_time_ns") > 0, "{statistics}");
    let sampler =
        ours.iter().find(|program| is_recorders(program) && program["type"] == "perf_event").unwrap();
    assert!(sampler["attach"][0].as_str().unwrap().starts_with("perf event cpu-clock"), "{sampler}");
    assert!(table.contains(&format!("{}* ", sampler["id"])), "{table}");
    let filter = program(&statistics, filter.id);
    assert_eq!(
        (filter["own"].clone(), filter["owners"].as_array().unwrap().len()),
        (false.into(), 1),
        "{filter}"
    );
    other.finish();
    recorder.interrupt();
}

const SYSCTL: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Puts the sysctl back as it was.
struct Restored(String);

impl Drop for Restored {
    fn drop(&mut self) {
        fs::write(SYSCTL, &self.0).unwrap();
    }
}

#[test]
fn the_sysctl_is_restored_on_every_way_out() {
    let Some(test) = Test::alone("stats-sysctl") else { return };
    let read = || fs::read_to_string(SYSCTL).unwrap().trim().to_owned();
    let _restored = Restored(read());
    let mut filter = Filter::start(&test, "send", 1_000);
    for before in ["0", "1"] {
        fs::write(SYSCTL, before).unwrap();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut command = test.profiler(&["stats", "--by-sysctl", "-d", "60s", "-o", "json"]);
            let measuring = spawn(command.stdout(Stdio::piped()));
            wait_until_it_watches(measuring.0.id());
            filter.send();
            kill(measuring.0.id(), signal);
            let mut child = measuring;
            let told = std::io::read_to_string(child.0.stdout.take().unwrap()).unwrap();
            assert!(child.0.wait().unwrap().success(), "{signal}");
            assert_eq!(read(), before, "after {signal}");
            let statistics: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(program(&statistics, filter.id)["run_count"], 1_000);
            assert_eq!(statistics["statistics"]["switched_on_by"], "kernel.bpf_stats_enabled");
        }
        // A reader that goes away, and an end in time.
        let closed = format!(
            "{} stats --by-sysctl --interval 50ms | head -1",
            test.profiler(&[]).get_program().display()
        );
        output("sh", &["-c", &closed]);
        output(test.profiler(&[]).get_program(), &["stats", "--by-sysctl", "-d", "50ms"]);
        assert_eq!(read(), before);
    }
}

#[test]
fn five_hundred_programs_take_little_memory() {
    let Some(test) = Test::alone("stats-many") else { return };
    let _loaded = Filter::start(&test, "load", 500);
    let mut command = test.profiler(&["stats", "--interval", "300ms", "-o", "json"]);
    let mut child = spawn(command.stdout(Stdio::piped()));
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.0.stdout.take().unwrap()));
    let mut first = String::new();
    for _ in 0..3 {
        first = lines.next().unwrap().unwrap();
    }
    let statistics: Value = serde_json::from_str(&first).unwrap();
    let ours =
        statistics["programs"].as_array().unwrap().iter().filter(|program| program["name"] == "keeps_all");
    assert_eq!(ours.count(), 500);
    let status = fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
    let kib: u64 = peak.split(' ').next().unwrap().parse().unwrap();
    test.tell(&format!("500 programs: peak {kib} KiB"));
    assert!(kib < 30 * 1024, "{kib} KiB");
    kill(child.0.id(), Signal::SIGINT);
    drop(lines);
    assert!(child.0.wait().unwrap().success());
}
