//! Whose samples are taken, which stacks, and what is named.

use std::collections::HashSet;
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::chance;
use crate::common::{Recording, Test, output, spawn, wait_for_cpu_time, wait_until};

fn pids(recording: &Recording) -> HashSet<u32> {
    recording.samples.iter().map(|sample| sample.pid).collect()
}

#[test]
fn processes_and_their_children() {
    let Some(test) = Test::new("filter-process") else { return };
    let program = test.spin("spin", "busy", &[]);
    let other = spawn(Command::new(&program).arg("600"));
    // A shell that starts children all the time, and changes nothing in between.
    let shell = spawn(Command::new("sh").args(["-c", "while :; do \"$0\" 0.05; done", &program]));
    let id = shell.0.id();
    let recorder = test.started(&["-F", "499", "-p", &id.to_string()]);
    // CPU time of children that it has waited for, in clock ticks.
    let children_s = || {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(13).unwrap().parse::<f64>().unwrap() / 100.0
    };
    let before = children_s();
    wait_until("some children have come and gone", || children_s() > before + 0.3);
    let recording = recorder.interrupt();
    assert!(!pids(&recording).contains(&other.0.id()));
    let children = pids(&recording).into_iter().filter(|pid| *pid != id).count();
    assert!(children >= 3 && recording.with("busy") > 10, "{children}: {}", recording.told);
    // Two at once, and no others.
    let (first, second) = (other.0.id(), spawn(Command::new(&program).arg("600")));
    let recorder = test.started(&["-F", "499", "-p", &format!("{first},{}", second.0.id())]);
    [first, second.0.id()].into_iter().for_each(|pid| wait_for_cpu_time(pid, 0.2));
    let recording = recorder.interrupt();
    assert_eq!(pids(&recording), HashSet::from([other.0.id(), second.0.id()]));
}

#[test]
fn one_thread_of_two() {
    let Some(test) = Test::new("filter-thread") else { return };
    let program = test.compile("tests/programs/threads.c", "threads", &["-pthread"]);
    let running = spawn(Command::new(&program).arg("600"));
    let tasks = format!("/proc/{}/task", running.0.id());
    let alpha = || {
        let mut tasks = fs::read_dir(&tasks).unwrap().flatten();
        let task = tasks.find(|task| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == "alpha-worker")
        });
        task.map(|task| task.file_name().into_string().unwrap())
    };
    wait_until("the thread has its name", || alpha().is_some());
    // Both threads' time.
    let recording = test.record_until(0.6, running.0.id(), &["-F", "499", "-t", &alpha().unwrap()]);
    let all = recording.total(|_| true);
    assert!(all > 50, "{}", recording.told);
    assert_eq!(recording.total(|s| s.thread_comm == "alpha-worker" && s.comm == "threads"), all);
    assert_eq!(recording.with("busy_beta"), 0);
}

#[test]
fn one_cpu_of_two() {
    let Some(test) = Test::alone("filter-cpu") else { return };
    if !test.needs("taskset") || output("nproc", &[]).trim() == "1" {
        return test.skip("there is one CPU only");
    }
    let on_0 = test.spin("on-cpu-0", "busy_on_0", &[]);
    let on_1 = test.spin("on-cpu-1", "busy_on_1", &[]);
    let first = spawn(Command::new("taskset").args(["-c", "0", &on_0, "600"]));
    let second = spawn(Command::new("taskset").args(["-c", "1", &on_1, "600"]));
    let recorder = test.started(&["-F", "499", "-C", "0"]);
    [&first, &second].into_iter().for_each(|busy| wait_for_cpu_time(busy.0.id(), 0.3));
    let recording = recorder.interrupt();
    assert!(recording.with("busy_on_0") > 50 && recording.with("busy_on_1") == 0, "{:?}", recording.leaves());
    assert!(recording.told.contains(" on 1 CPU "), "{}", recording.told);
}

/// Removes a cgroup when its tasks have ended.
struct Cgroup(String);

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn one_cgroup() {
    let Some(test) = Test::new("filter-cgroup") else { return };
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields[2] == "cgroup2").then(|| fields[1].to_owned())
    });
    let Some(mount) = mount else { return test.skip("no cgroup v2 hierarchy is mounted") };
    let name = format!("profiler-test-{}", std::process::id());
    let (parent, child) = (format!("{mount}/{name}"), format!("{mount}/{name}/below"));
    if let Err(error) = fs::create_dir(&parent).and_then(|()| fs::create_dir(&child)) {
        return test.skip(&format!("no cgroup can be made: {error}"));
    }
    let _parent = Cgroup(parent.clone());
    let _child = Cgroup(child.clone());
    let inside = test.spin("inside", "busy_inside", &[]);
    let outside = test.spin("outside", "busy_outside", &[]);
    let script = "echo $$ > \"$1/cgroup.procs\" && exec \"$0\" 600";
    let in_group = spawn(Command::new("sh").args(["-c", script, &inside, &child]));
    let _outside = spawn(Command::new(&outside).arg("600"));
    wait_for_cpu_time(in_group.0.id(), 0.1);
    for group in [format!("/{name}/below"), format!("/{name}"), parent.clone()] {
        let recording = test.record_until(0.3, in_group.0.id(), &["-F", "499", "-G", &group]);
        let all = recording.total(|_| true);
        assert!(
            all >= *chance::around(0.3 * 499.0).start() && recording.total(|s| s.comm == "inside") == all,
            "{group}: {}",
            recording.told
        );
        assert_eq!(recording.with("busy_outside"), 0);
    }
}

/// A program that is in the kernel most of the time: it reads from /dev/zero.
const SYSCALLS: [&str; 4] = ["dd", "if=/dev/zero", "of=/dev/null", "bs=64k"];

#[test]
fn user_or_kernel_stacks_only() {
    let Some(test) = Test::new("filter-stacks") else { return };
    let busy = spawn(Command::new(SYSCALLS[0]).args(&SYSCALLS[1..]).stderr(Stdio::null()));
    let pid = busy.0.id();
    let record = |flags: &[&str]| {
        test.record_until(0.4, pid, &[&["-F", "999", "-p", &pid.to_string()], flags].concat())
    };
    let sides = |recording: &Recording| {
        let stacks = recording.samples.iter().flat_map(|sample| &sample.stack);
        let code = stacks.map(|id| &recording.locations[id]).filter(|l| l.mapping.is_some());
        code.fold(
            (0, 0),
            |(kernel, user), l| {
                if l.in_kernel() { (kernel + 1, user) } else { (kernel, user + 1) }
            },
        )
    };
    let both = record(&[]);
    let (kernel, user) = sides(&both);
    assert!(kernel > 0 && user > 0 && both.with("do_syscall_64") > 100, "{:?}", both.leaves());
    let (kernel, user) = sides(&record(&["-U"]));
    assert!(kernel == 0 && user > 0, "-U: {kernel} {user}");
    let (kernel, user) = sides(&record(&["-K"]));
    assert!(kernel > 0 && user == 0, "-K: {kernel} {user}");
}

#[test]
fn idle_cpus_only_when_asked_for() {
    let Some(test) = Test::alone("filter-idle") else { return };
    let without = test.record(&["-F", "99", "-d", "1s"]);
    assert_eq!(without.total(|s| s.pid == 0), 0);
    chance::again("all the time of all CPUs", 3, || idle_cpus_are_seen(&test));
}

/// Records with idle CPUs, beside perf. An error is what may come of a recorder that had to wait for a CPU
/// between the start of its clocks and that of its own time, or the other way round at the end.
fn idle_cpus_are_seen(test: &Test) -> Result<(), String> {
    // perf records the same time.
    let recorder = test.started(&["-F", "99", "-I"]);
    let data = test.path("perf.data");
    let perf = ["record", "-q", "-e", "cpu-clock", "-F", "99", "-a", "-o", &data, "--", "sleep", "1.5"];
    let theirs = test.needs("perf").then(|| {
        output("perf", &perf);
        output("perf", &["script", "-F", "cpu", "-i", &data]).lines().count() as f64 / 1.5 / 99.0
    });
    if theirs.is_none() {
        sleep(Duration::from_millis(1500));
    }
    let with = recorder.interrupt();
    let all = with.total(|_| true);
    // All the time of all CPUs, whether they were busy or not: this many were seen all the time.
    let seen = all as f64 / with.seconds() / 99.0;
    let cpus: f64 = output("nproc", &[]).trim().parse().unwrap();
    let said = format!("{seen:.2} of {cpus} CPUs seen, by perf {theirs:.2?}: {}", with.told);
    if seen >= 1.04 * cpus {
        return Err(said);
    }
    if seen < 0.92 * cpus {
        // On some virtual machines the timers of an idle CPU run where no registers are at hand,
        // and the kernel drops the sample: then perf has no more than we have.
        if !theirs.is_some_and(|theirs| theirs < 0.95 * cpus && seen > 0.8 * theirs) {
            return Err(said);
        }
        test.skip(&format!("this kernel does not sample all idle CPUs: {}", said.lines().next().unwrap()));
    }
    let idle = with.total(|s| s.pid == 0);
    assert_eq!(idle, with.total(|s| s.pid == 0 && s.comm.starts_with("swapper")));
    test.tell(&format!("{idle} of {all} samples idle"));
    Ok(())
}

#[test]
fn without_names_there_are_addresses_and_build_ids() {
    let Some(test) = Test::new("no-symbolize") else { return };
    let program = test.spin("spin", "busy", &["-Wl,--build-id"]);
    let recording = test.record(&["-F", "499", "--no-symbolize", "--", &program, "0.3"]);
    let mapping = recording.mappings.iter().find(|m| m.path == program).expect("the program's mapping");
    assert_eq!(mapping.flags, "0000");
    // BPF programs are named by the kernel's list of them, and have no addresses.
    let of_code = || recording.mappings.iter().filter(|m| m.path != "[bpf programs]");
    assert!(of_code().all(|m| m.flags == "0000"), "{:?}", recording.mappings);
    if test.needs("readelf") {
        let text = output("readelf", &["-n", &program]);
        let id = text.lines().find_map(|line| line.trim().strip_prefix("Build ID: ")).unwrap();
        assert_eq!(mapping.build_id, id);
    }
    assert_eq!(recording.with("busy"), 0);
    if test.needs("go") {
        let text = output("go", &["tool", "pprof", "-symbolize=none", "-top", &recording.file]);
        assert!(text.contains("spin"), "{text}");
    }
}

#[test]
fn a_recording_into_a_pipe() {
    let Some(test) = Test::new("pipe") else { return };
    let program = test.spin("spin", "busy", &[]);
    let piped = test.profiler(&["record", "-F", "499", "-o", "-", "--", &program, "0.3"]).output().unwrap();
    assert!(piped.status.success());
    let file = test.path("piped");
    fs::write(&file, &piped.stdout).unwrap();
    let recording = Recording::read(&file, String::from_utf8(piped.stderr).unwrap());
    assert!(recording.with("busy") >= *chance::around(0.3 * 499.0).start());
    assert_eq!(test.names(), ["piped", "spin"]);
}
