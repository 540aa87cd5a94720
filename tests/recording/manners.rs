//! What a recorder that runs as root does to the machine that it runs on, and what it lets others do.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;

use crate::common::{Test, spawn, wait_until};

const SIX: &str = "bpf,perfmon,sys_ptrace,dac_read_search,checkpoint_restore,syslog";

#[test]
fn too_few_descriptors_are_told() {
    let Some(test) = Test::new("descriptors") else { return };
    let spin = test.spin("spin", "busy", &[]);
    let _copies: Vec<_> = (0..40)
        .map(|number| {
            let copy = test.path(&format!("spin{number}"));
            fs::copy(&spin, &copy).unwrap();
            spawn(Command::new(copy).arg("600"))
        })
        .collect();
    // Too few for everything; enough for some files.
    let cpus = thread::available_parallelism().unwrap().get();
    for limit in [54 + 4 * cpus, 132 + 4 * cpus] {
        let profiler = env!("CARGO_BIN_EXE_profiler");
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
    let Some(test) = Test::new("many-files") else { return };
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
    let Some(test) = Test::new("hotplug") else { return };
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
