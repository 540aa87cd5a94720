//! Every frame is what ran, and whose it was: ids, names and addresses are given away again.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::{Recording, Sample, Test, output, spawn};

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// Share of the samples with a frame of this name for which something else holds too.
fn share(recording: &Recording, name: &str, holds: impl Fn(&Sample) -> bool) -> f64 {
    let all = recording.with(name);
    assert!(all > 50, "{all} samples of {name}: {:?}", recording.leaves());
    percent(recording.total(|sample| recording.has_frame(sample, name) && holds(sample)), all)
}

/// The kernel gives a new thread, and a forked process, the name of the thread that made it.
#[test]
fn a_name_is_inherited_from_the_thread() {
    let Some(test) = Test::new("names-inherited") else { return };
    let program = test.compile("tests/programs/names.c", "server", &["-pthread"]);
    let recording = test.record(&["-F", "499", "--", &program, "inherits", "0.5"]);
    let threads = share(&recording, "spin_thread", |sample| sample.thread_comm == "pool");
    assert!(threads > 99.0, "{threads} % of the thread made by `pool` has its name");
    let children = share(&recording, "spin_child", |sample| sample.comm == "pool");
    assert!(children > 99.0, "{children} % of the child forked by `pool` has its name");
    let processes = share(&recording, "spin_thread", |sample| sample.comm == "server");
    assert!(processes > 99.0, "{processes} % of the thread belongs to `server`");
}

/// A thread renames itself between two jobs of the same code, whose CPU time is known. Half a period
/// at the border may go either way, and the clock of the test is not the sampler's.
#[test]
fn time_is_told_under_the_name_of_its_moment() {
    let Some(test) = Test::new("names-renamed") else { return };
    let program = test.compile("tests/programs/names.c", "worker", &["-pthread"]);
    let (mut warm_up, mut all) = (0, 0);
    for _ in 0..3 {
        let recording = test.record(&["-F", "999", "--", &program, "renames"]);
        all += recording.with("job");
        warm_up +=
            recording.total(|sample| recording.has_frame(sample, "job") && sample.thread_comm == "warm-up");
        let others = recording.total(|sample| {
            recording.has_frame(sample, "job") && !["warm-up", "request"].contains(&&*sample.thread_comm)
        });
        assert_eq!(others, 0, "{:?}", recording.leaves());
    }
    let share = percent(warm_up, all);
    assert!((22.0..28.0).contains(&share), "{share} % of {all} samples under `warm-up`, which is 25 %");
}

/// Two plug-ins of one size come to the same address in turn, and their code is equal too.
#[test]
fn a_plug_in_does_not_get_the_names_of_the_one_before_it() {
    let Some(test) = Test::new("plug-ins") else { return };
    let program = test.compile("tests/programs/plugins.c", "host", &["-ldl"]);
    let plugin = |work: &str| {
        let define = format!("-DWORK={work}");
        test.compile("tests/programs/plugin.c", &format!("{work}.so"), &[&define, "-shared", "-fPIC"])
    };
    let (first, other) = (plugin("work_of_first"), plugin("work_of_other"));
    for walk in ["auto", "fp"] {
        let script = format!("{program} 2 {first} {other} > truth");
        let recording = test.record(&["-F", "999", "--unwind", walk, "--", "sh", "-c", &script]);
        let truth = fs::read_to_string(test.path("truth")).unwrap();
        let (same_place, truth) = truth.trim().split_once(' ').unwrap();
        if same_place != "1" {
            return test.skip("the loader puts the two plug-ins at different addresses");
        }
        let truth = 100.0 * truth.parse::<f64>().unwrap();
        let (first, other) = (recording.with("work_of_first"), recording.with("work_of_other"));
        let share = percent(other, first + other);
        test.tell(&format!("--unwind {walk}: {share:.1} % of {}, and {truth:.1} % in truth", first + other));
        assert!(first + other > 1000, "{:?}", recording.leaves());
        assert!((share - truth).abs() < 3.0, "{share} % where the program measured {truth} %");
    }
}

#[test]
fn a_process_whose_first_thread_has_ended_is_recorded_like_any_other() {
    let Some(test) = Test::new("orphan") else { return };
    let program = test.compile("tests/programs/orphan.c", "orphan", &["-pthread"]);
    let orphan = spawn(Command::new(&program).arg("60").stderr(Stdio::null()));
    let pid = orphan.0.id().to_string();
    sleep(Duration::from_millis(300));
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default(), "", "it has maps still");
    let all = ["-F", "499", "-a", "-d", "1500ms"];
    for args in [&["-F", "499", "-p", &pid, "-d", "1500ms"][..], &all] {
        let recording = test.record(args);
        let of_it = |sample: &Sample| sample.pid.to_string() == pid;
        let named =
            recording.total(|sample| of_it(sample) && recording.has_frame(sample, "spin_of_survivor"));
        let whole = recording.total(|sample| of_it(sample) && recording.has_frame(sample, "survive"));
        let all = recording.total(of_it);
        assert!(all > 50, "{all} samples: {:?}", recording.leaves());
        assert!(percent(named, all) > 95.0, "{named} of {all} named: {:?}", recording.leaves());
        assert!(percent(whole, all) > 95.0, "{whole} of {all} whole");
    }
}

/// mremap moves code without an event: what is sampled there leads to the maps.
#[test]
fn code_that_was_moved_is_found() {
    let Some(test) = Test::new("moved") else { return };
    let program = test.compile("tests/programs/moved.c", "moved", &["-ldl"]);
    let library = test.compile(
        "tests/programs/plugin.c",
        "library.so",
        &["-DWORK=work_that_was_moved", "-shared", "-fPIC"],
    );
    for walk in ["auto", "fp"] {
        let args = ["-F", "999", "--unwind", walk, "--", &program, "1", &library, "work_that_was_moved"];
        let recording = test.record(&args);
        let moved = recording.with("work_that_was_moved");
        let all = recording.total(|sample| sample.comm == "moved" && !recording.leaf(sample).in_kernel());
        assert!(all > 500 && percent(moved, all) > 95.0, "{moved} of {all}: {:?}", recording.leaves());
        assert!(recording.told.contains("healed"), "{}", recording.told);
        // By frame pointers alone a stack ends where a C library without them called main.
        let whole = walk == "fp" || percent(recording.incomplete, all) < 2.0;
        assert!(whole, "{}", recording.told);
    }
}

/// A child's id is free before the kernel's last hook for it runs. Here the next child has it at once.
#[test]
fn children_that_share_an_id_are_all_recorded_each_by_its_name() {
    let Some(test) = Test::new("reused-ids") else { return };
    let program = test.compile("tests/programs/reused.c", "reused", &[]);
    let mut run = Command::new("sh");
    let tried =
        run.args(["-c", &format!("{program} 1 0.001; exit $?")]).stdout(Stdio::null()).status().unwrap();
    if !tried.success() {
        return test.skip("process ids cannot be chosen here (clone3 with set_tid, Linux 5.5)");
    }
    let hz = 1999;
    for off_cpu in [&[][..], &["--off-cpu"]] {
        let script = format!("for i in 1 2 3; do {program} 60 0.01 > cpu && exit 0; done; exit 3");
        let args = [&["-F", "1999"][..], off_cpu, &["--", "sh", "-c", &script]].concat();
        let told;
        let (even, odd, wrong);
        if off_cpu.is_empty() {
            let recording = test.record(&args);
            let of = |comm: &str, name: &str| {
                recording.total(|sample| sample.comm == comm && recording.has_frame(sample, name))
            };
            (even, odd) = (of("even", "work_of_even"), of("odd", "work_of_odd"));
            wrong = of("even", "work_of_odd") + of("odd", "work_of_even");
            told = recording.told;
        } else {
            told = test.start(&args).finish_off_cpu();
            let folded = output(
                env!("CARGO_BIN_EXE_profiler"),
                &["folded", "--tagroot", "comm", "--type", "samples", &test.path("output.pb.gz")],
            );
            let of = |comm: &str, name: &str| -> u64 {
                let lines = folded.lines().filter(|line| line.starts_with(comm) && line.contains(name));
                lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
            };
            (even, odd) = (of("even;", "work_of_even"), of("odd;", "work_of_odd"));
            wrong = of("even;", "work_of_odd") + of("odd;", "work_of_even");
        }
        let cpu_s: f64 = fs::read_to_string(test.path("cpu")).unwrap().trim().parse().unwrap();
        let expected = cpu_s * f64::from(hz);
        test.tell(&format!(
            "{off_cpu:?}: {even} + {odd} samples of {expected:.0}, {wrong} of another's name"
        ));
        assert_eq!(wrong, 0, "samples under the name of another child: {told}");
        // The kernel drops ticks on a busy machine, but not two thirds.
        assert!((even + odd) as f64 > 0.8 * expected, "{even} + {odd} samples of {expected}: {told}");
    }
}

/// A child of vfork runs in its parent's memory, and is another process.
#[test]
fn a_child_of_vfork_has_its_parents_frames() {
    let Some(test) = Test::new("vfork") else { return };
    for flags in [&["-fomit-frame-pointer"][..], &[], &["-static"]] {
        let program = test.compile("tests/programs/vfork.c", "vfork", flags);
        let told = test.start(&["--off-cpu", "-F", "199", "--", &program, "2"]).finish_off_cpu();
        let file = test.path("output.pb.gz");
        let folded = output(env!("CARGO_BIN_EXE_profiler"), &["folded", "--type", "off-cpu", &file]);
        for (what, frame, whole) in [
            ("the parent", ";vfork;", "main;starts_children;vfork;"),
            ("the child", "nanosleep", "main;starts_children;"),
        ] {
            let time = |part: &str| -> u64 {
                let lines = folded.lines().filter(|line| line.contains(frame) && line.contains(part));
                lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
            };
            let frame_is_named = folded.contains(frame);
            if what == "the parent" && !frame_is_named {
                // A static libc may call it __vfork.
                continue;
            }
            assert!(percent(time(whole), time("")) > 95.0, "{flags:?}, {what}: {told}\n{folded}");
        }
    }
}
