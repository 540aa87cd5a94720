//! BPF programs in recordings: what they cost by the kernel's statistics, and by the samples in them.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder};

use crate::chance;
use crate::common::{JUDGES, ROOT, Test, output};

/// Compiles a program of the tests and loads it.
fn load(test: &Test, name: &str) -> Object {
    let object = test.path(&format!("{name}.o"));
    let source = format!("{ROOT}/tests/programs/{name}.bpf.c");
    output("clang", &["-target", "bpf", "-O2", "-g", "-c", &source, "-o", &object]);
    ObjectBuilder::default().open_file(&object).unwrap().load().unwrap()
}

/// Calls getppid() on a thread of its own while `then` runs.
fn with_calls(then: impl FnOnce()) {
    /// Also where a check fails.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = nix::unistd::getppid();
            }
        });
        let _over = Over(&over);
        then();
    });
}

#[test]
fn tail_calls_are_told_apart() {
    let Some(test) = Test::alone("programs-tail-calls") else { return };
    let object = load(&test, "tail_calls");
    let next = object.maps().find(|map| map.name() == "next").unwrap();
    for (key, name) in ["chain_most", "chain_some", "chain_least"].iter().enumerate() {
        let program = object.progs().find(|program| program.name() == *name).unwrap();
        let fd = program.as_fd().as_raw_fd().to_ne_bytes();
        next.update(&(key as u32).to_ne_bytes(), &fd, MapFlags::ANY).unwrap();
    }
    let entry = object.progs_mut().find(|program| program.name() == "chain_entry").unwrap();
    let _link = entry.attach().unwrap();
    let mut samples = 0;
    with_calls(|| {
        let recording = test.record_until(3.0, std::process::id(), &["-F", "999"]);
        samples = recording.total(|sample| {
            let names = recording.names(sample);
            names.iter().any(|name| name.starts_with("bpf_prog_") && name.contains("_chain_"))
        });
    });

    let profiler = env!("CARGO_BIN_EXE_profiler");
    let file = test.path("output.pb.gz");
    let text = output(profiler, &["folded", "--type", "bpf", &file]);
    let time = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.split([';', ' ']).any(|word| word == name));
        lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
    };
    assert!(samples > 300, "{samples} samples in the chain");
    let all = time("chain_entry") + time("chain_most") + time("chain_some") + time("chain_least");
    for (name, truth) in [("chain_most", 70.0), ("chain_some", 20.0), ("chain_least", 10.0)] {
        let share = 100.0 * time(name) / all;
        // Samples tell them apart.
        let points = 4.0 + 100.0 * chance::error(samples, truth / 100.0);
        test.tell(&format!("{name}: {share:.1} % of the chain, {truth} ± {points:.1} % by its work"));
        assert!((share - truth).abs() <= points, "{name}: {share} of {samples}: {text}");
        let line = text.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.contains("[estimated ±"), "{line}");
    }
    // Beside each estimate is what the kernel counted: all of it for the first.
    if test.needs("go") {
        let raw = output("go", &["tool", "pprof", "-sample_index=bpf_time", "-raw", &file]);
        let counted = raw.matches("bpf_time_by_kernel:[0 nanoseconds]").count();
        assert!(counted == 3 && raw.matches("bpf_time_by_kernel:[").count() == 4, "{raw}");
    }
    let dump = output("python3", &[&format!("{JUDGES}/dump.py"), &file]);
    let lines = dump.lines().filter(|line| line.starts_with("location") && line.contains("_work\t"));
    let lines: Vec<_> = lines.collect();
    assert!(lines.iter().any(|line| line.ends_with("tail_calls.bpf.c")), "{lines:?}");
    // Whose time it was: this process called.
    let victims = output(profiler, &["folded", "--focus", "^bpf_prog_[0-9a-f]+_(chain_most|work)$", &file]);
    assert!(victims.lines().count() > 0 && victims.lines().all(|line| line.contains("getppid")), "{victims}");
}

/// What our own programs cost in all is scaled up from a tenth of the time: as much as a run of the
/// sampler and the number of its runs say. It runs at every tick of a CPU that is busy, whoever is there.
#[test]
fn cost_without_statistics_of_others() {
    let Some(test) = Test::alone("programs-none") else { return };
    let program = test.spin("spin", "busy", &[]);
    let recording =
        test.record(&["--no-bpf-stats", "-F", "999", "-d", "3s", "--", "taskset", "-c", "0", &program, "9"]);
    let told = &recording.told;
    let cost = told.lines().find_map(|line| line.strip_prefix("  cost    BPF ")).expect(told);
    let number = |text: &str| text.trim().parse::<f64>().unwrap();
    let (run_us, rest) = cost.split_once(" µs a run, about ").expect(told);
    let all_ms = number(rest.split_once(" ms in all").expect(told).0);
    // … samples in 3.0 s on 2 CPUs at 999 Hz; CPUs 48% idle
    let (_, machine) = told.split_once(" on ").expect(told);
    let (cpus, machine) = machine.split_once(" CPU").expect(told);
    let (_, machine) = machine.split_once("; CPUs ").expect(told);
    let busy = 1.0 - number(machine.split_once("% idle").expect(told).0) / 100.0;
    let runs = number(cpus) * busy * 999.0 * recording.seconds();
    let expected_ms = number(run_us) * runs / 1e3;
    test.tell(&format!("{all_ms} ms told, {expected_ms:.1} ms by {runs:.0} runs of {run_us} µs"));
    assert!(!told.contains("  eBPF "), "{told}");
    assert!((0.6 * expected_ms..1.7 * expected_ms).contains(&all_ms), "{told}");
}
