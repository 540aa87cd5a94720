//! What a recorder that runs as root does to the machine that it runs on, and what it lets others do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;

use crate::common::{Test, copy_program, kill, output, spawn, wait_for_cpu_time, wait_until};

const SIX: &str = "bpf,perfmon,sys_ptrace,dac_read_search,checkpoint_restore,syslog";

#[test]
fn too_few_descriptors_are_told() {
    let Some(test) = Test::new("descriptors") else { return };
    let spin = test.spin("spin", "busy", &[]);
    let copies: Vec<_> = (0..40)
        .map(|number| {
            let copy = test.path(&format!("spin{number}"));
            copy_program(&spin, &copy, 0);
            // So that the recorder has a CPU beside them.
            spawn(Command::new("nice").args(["-n", "19", &copy, "600"]))
        })
        .collect();
    // Too few for everything; enough for some files.
    let cpus = thread::available_parallelism().unwrap().get();
    let few = 42 + 4 * cpus;
    let profiler = env!("CARGO_BIN_EXE_profiler");
    // Processes have to be followed then, which takes more.
    for whose in [format!("-p {}", copies[0].0.id()), format!("-- {spin} 0.5")] {
        let script = format!("ulimit -n {few}; exec '{profiler}' record -d 1s -F 499 {whose}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(&test.dir);
        let recording = crate::common::Running::new(test.dir.join("output.pb.gz"), command).finish();
        assert!(recording.complete + recording.incomplete > 0, "{whose}: {}", recording.told);
    }
    for limit in [few, 132 + 4 * cpus] {
        let script = format!("ulimit -n {limit}; exec '{profiler}' record -d 3s -F 499 -a");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(&test.dir);
        let file = test.dir.join("output.pb.gz");
        let recording = crate::common::Running::new(file, command).finish();
        let reason = "file not opened: too many open files (RLIMIT_NOFILE)";
        let told: Vec<&str> = recording.told.lines().filter(|line| line.contains(reason)).collect();
        assert!(told.iter().any(|line| line.contains("files without names")), "{limit}: {}", recording.told);
        assert!(!recording.told.contains("file gone"), "{limit}: {}", recording.told);
        assert!(recording.leaves().keys().any(|leaf| leaf.contains(&format!(" [{reason}] in "))), "{limit}");
    }
}

/// systemd gives its services ambient capabilities; they are the recorder's and not the command's.
#[test]
fn a_command_inherits_no_capability() {
    let Some(test) = Test::new("ambient") else { return };
    let with = test.compile("tests/programs/with_capabilities.c", "with", &["-static"]);
    let profiler = test.profiler_for_everybody();
    let script = "grep -h Cap /proc/self/status > sets; head -c 1 /etc/shadow > shadow; exit 5";
    let args = ["65534", SIX, &profiler, "record", "-F", "999", "--", "sh", "-c", script];
    let output = Command::new(with).args(args).current_dir(&test.dir).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if told.contains("perf_event_paranoid") {
        return test.skip("kernel.perf_event_paranoid is above 2: nobody records without CAP_SYS_ADMIN");
    }
    assert_eq!(output.status.code(), Some(5), "{told}");
    let sets = fs::read_to_string(test.dir.join("sets")).unwrap();
    for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
        let line = sets.lines().find(|line| line.starts_with(set)).unwrap();
        assert!(line.ends_with("0000000000000000"), "{sets}");
    }
    assert_eq!(fs::metadata(test.dir.join("shadow")).unwrap().len(), 0);
    assert_eq!(fs::metadata(test.dir.join("output.pb.gz")).unwrap().mode() & 0o777, 0o600);
}

/// A recording ends when it is to end, and not when all of the machine's descriptors have been looked at.
#[test]
fn the_duration_holds_whatever_the_machine_holds() {
    let Some(test) = Test::alone("many-files") else { return };
    let script = "import resource, os, time\n\
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))\n\
        count = min(most - 50, 100000)\n\
        first = os.open('/dev/null', os.O_RDONLY)\n\
        for i in range(count): os.dup(first)\n\
        print(count, file=open('count', 'w'))\n\
        os.rename('count', 'opened')\n\
        time.sleep(600)\n";
    let _holder = spawn(Command::new("python3").args(["-c", script]).current_dir(&test.dir));
    wait_until("the files are open", || test.dir.join("opened").exists());
    let count = fs::read_to_string(test.dir.join("opened")).unwrap();
    // Where others want the CPUs a recorder may have to wait for one: once is enough.
    let times: Vec<f64> = (0..8).map(|_| test.record(&["-d", "500ms", "-a"]).seconds()).collect();
    test.tell(&format!("{} more descriptors: recordings of 0.5 s took {times:?}", count.trim()));
    assert!(times.iter().any(|seconds| (0.499..0.55).contains(seconds)), "{times:?}");
}

/// A CPU that was away is sampled again. It is everybody's, so that this runs only where that is wanted.
#[test]
fn cpus_that_come_back_are_sampled() {
    let Some(test) = Test::alone("hotplug") else { return };
    if std::env::var_os("PROFILER_TAKES_CPUS").is_none() {
        return test.skip("it takes a CPU from everybody for two seconds: PROFILER_TAKES_CPUS=1 allows it");
    }
    let switch = "/sys/devices/system/cpu/cpu1/online";
    if !fs::exists(switch).unwrap() {
        return test.skip("this machine has no CPU that can be taken away");
    }
    let spin = test.spin("spin", "busy", &[]);
    let recorder = test.started(&["-F", "499", "-C", "1"]);
    let told = |recorder: &mut crate::common::Running, words: &str| {
        wait_until(words, || recorder.told().contains(words));
    };
    let mut recorder = recorder;
    fs::write(switch, "0").unwrap();
    told(&mut recorder, "CPU 1 went offline");
    fs::write(switch, "1").unwrap();
    told(&mut recorder, "CPU 1 came online, and is sampled from now on");
    let ran = Command::new("taskset").args(["-c", "1", &spin, "0.5"]).status().unwrap();
    assert!(ran.success());
    let recording = recorder.interrupt();
    let busy = recording.with("busy");
    assert!(*crate::chance::around(0.5 * 499.0).start() <= busy, "{busy}: {}", recording.told);
}

/// Whoever kills the recorder has what it has written until then: a whole file.
#[test]
fn a_recorder_that_is_killed_has_its_checkpoints() {
    let Some(test) = Test::new("checkpoints") else { return };
    let program = test.spin("spin", "busy", &["-g"]);
    let running = spawn(Command::new(program).arg("100000"));
    let pid = running.0.id().to_string();
    let recorder = test.started(&["-F", "499", "--checkpoint", "1s", "-p", &pid]);
    let file = test.path("output.pb.gz");
    wait_until("there is a checkpoint", || fs::exists(&file).unwrap());
    let first = fs::metadata(&file).unwrap();
    wait_until("there is another", || {
        fs::metadata(&file).is_ok_and(|meta| meta.modified().unwrap() > first.modified().unwrap())
    });
    kill(recorder.pid(), Signal::SIGKILL);
    drop(recorder);
    let dump = output("python3", &[&format!("{}/dump.py", crate::common::JUDGES), &file]);
    assert!(!dump.lines().any(|line| line.starts_with("error")), "{dump}");
    assert!(dump.contains("\tbusy\t"), "{dump}");
    let samples = dump.lines().filter_map(|line| line.strip_prefix("sample\t")?.split('\t').next());
    let samples: u64 = samples.filter_map(|count| count.parse::<u64>().ok()).sum();
    test.tell(&format!("{samples} samples in the last checkpoint"));
    assert!(samples > 50, "{dump}");
    // One that comes to its end is as it would be without.
    let recorder = test.started(&["-F", "499", "--checkpoint", "1s", "-p", &pid]);
    wait_for_cpu_time(running.0.id(), 2.5);
    let recording = recorder.interrupt();
    assert!(recording.with("busy") * 10 > recording.total(|_| true) * 9, "{:?}", recording.leaves());
    assert!(recording.total(|_| true) > 300, "{}", recording.told);
    let refused = test.profiler(&["record", "-d", "1s", "--checkpoint", "1s", "-o", "-"]).output().unwrap();
    assert!(crate::common::refusal(&refused).contains("--checkpoint"));
}

/// When it has begun it has no capability that it will not need, and its command has all that it was given.
#[test]
fn rights_that_are_not_needed_are_given_up() {
    let Some(test) = Test::new("given-up") else { return };
    let set = |pid: u32, name: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let own = set(std::process::id(), "CapEff:");
    for (args, admin) in [(&[][..], true), (&["--no-bpf-stats"][..], false)] {
        let recorder = test.started(&[args, &["--", "sleep", "100"]].concat());
        let pid = recorder.pid();
        // CAP_SYS_MODULE, CAP_SYS_BOOT, CAP_NET_ADMIN, CAP_SYS_TIME
        let dangerous = [16, 22, 12, 25].iter().fold(0u64, |set, number| set | 1 << number);
        wait_until("rights are given up", || set(pid, "CapEff:") & dangerous == 0);
        assert_eq!((set(pid, "CapPrm:") | set(pid, "CapBnd:")) & dangerous, 0);
        let paranoid = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap();
        if paranoid.trim().parse::<i32>().unwrap() <= 2 && own >> 38 & 3 == 3 {
            assert_eq!(set(pid, "CapEff:") >> 21 & 1 == 1, admin && own >> 21 & 1 == 1, "{args:?}");
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let command = children.split_whitespace().map(|child| child.parse().unwrap()).find(|child| {
            fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == "sleep")
        });
        assert_eq!(set(command.unwrap(), "CapEff:"), own);
        kill(pid, Signal::SIGINT);
        drop(recorder.finish_where(|_| true));
    }
}
