//! Whole stacks of code without frame pointers, by unwind tables. What callers a function has is
//! known from the program's source.

use crate::common::{Recording, Test};

const HOW: [&str; 4] = ["--unwind", "table", "-F", "999"];

/// Records a program and requires that 99.5 % of its samples reach its first function.
fn whole(test: &Test, command: &[&str], comm: &str) -> Recording {
    let recording = test.record(&[&HOW[..], &["--"], command].concat());
    let all = recording.total(|sample| sample.comm == comm);
    let whole = recording.total(|sample| {
        let names = recording.names(sample);
        // In the midst of exec and exit there is no user stack.
        let in_kernel = names.iter().any(|name| ["do_exit", "bprm_execve"].contains(name));
        sample.comm == comm && (in_kernel || names.last() == Some(&"_start"))
    });
    test.tell(&format!("{whole} of {all} stacks are whole"));
    assert!(all > 500, "{all} samples of {comm}");
    assert!(whole as f64 >= 0.995 * all as f64, "{whole} of {all}: {}", recording.told);
    recording
}

/// Every sample with `leaf` has these callers, each directly above the one before.
fn callers(recording: &Recording, leaf: &str, callers: &[&str]) {
    let chain: Vec<&str> = std::iter::once(leaf).chain(callers.iter().copied()).collect();
    let (mut all, mut right) = (0, 0);
    for sample in &recording.samples {
        let names = recording.names(sample);
        if names.contains(&leaf) && !names.iter().any(|name| name.starts_with("[truncated")) {
            all += sample.samples;
            right += sample.samples * u64::from(names.windows(chain.len()).any(|window| window == chain));
        }
    }
    assert!(all > 200 && right as f64 >= 0.995 * all as f64, "{right} of {all} have {chain:?}");
}

#[test]
fn frames_of_every_kind() {
    let Some(test) = Test::new("whole-c") else { return };
    let program = test.compile("tests/programs/deep.c", "deep", &["-fomit-frame-pointer"]);
    let recording = whole(&test, &[&program], "deep");
    callers(&recording, "with_alloca", &["variable", "realigned", "main"]);
    callers(&recording, "leaf", &["compare"]);
    callers(&recording, "sorted", &["with_alloca"]);
}

#[test]
fn two_hundred_deep() {
    let Some(test) = Test::new("whole-deep") else { return };
    let program = test.compile(
        "tests/programs/deep.c",
        "deep",
        &["-fomit-frame-pointer", "-fno-optimize-sibling-calls"],
    );
    let recording = whole(&test, &[&program, "recursion"], "deep");
    let chain = vec!["down"; 201];
    callers(&recording, "leaf", &[&chain[..], &["main"]].concat());
}

#[test]
fn through_a_signal() {
    let Some(test) = Test::new("whole-signal") else { return };
    let program = test.compile("tests/programs/deep.c", "deep", &["-fomit-frame-pointer"]);
    let recording = whole(&test, &[&program, "signal"], "deep");
    let through = recording.total(|sample| {
        let names = recording.names(sample);
        names.contains(&"handler") && names.contains(&"main")
    });
    let all = recording.total(|sample| recording.has_frame(sample, "handler"));
    assert!(all > 200 && through as f64 >= 0.995 * all as f64, "{through} of {all}");
}

#[test]
fn exceptions() {
    let Some(test) = Test::new("whole-throw") else { return };
    if !test.needs("g++") {
        return;
    }
    let program = test.compile("tests/programs/throws.cc", "throws", &["-fomit-frame-pointer"]);
    let recording = whole(&test, &[&program], "throws");
    // The unwinder's own frames stand above the thrower's.
    let unwinding = recording.total(|sample| {
        let names = recording.names(sample);
        names.iter().any(|name| name.contains("_Unwind_"))
            && names.contains(&"thrower(int)")
            && names.contains(&"main")
    });
    assert!(unwinding > 200, "{unwinding}");
    // Its last instructions have the place where the exception lands for a return address.
    let landing = recording.total(|sample| {
        let names = recording.names(sample);
        names.contains(&"_Unwind_Resume") && names.iter().any(|name| name.starts_with("[truncated"))
    });
    assert_eq!(landing, 0, "{}", recording.told);
}

#[test]
fn an_interpreter() {
    let Some(test) = Test::new("whole-python") else { return };
    if !test.needs("python3") {
        return;
    }
    let script =
        "import time\nend = time.time() + 2\nwhile time.time() < end: sum(i * i for i in range(1000))";
    whole(&test, &["python3", "-c", script], "python3");
}
