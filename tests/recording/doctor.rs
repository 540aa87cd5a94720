//! `profiler doctor`: what can be recorded here.

use std::process::Command;

use crate::common::Test;

#[test]
fn doctor_tells_what_is_enough() {
    let Some(test) = Test::alone("doctor") else { return };
    let ran = test.profiler(&["doctor"]).output().unwrap();
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{told}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(told.contains("ok       profiler record works here"), "{told}");
    assert!(told.contains("setcap cap_bpf,cap_perfmon,"), "{told}");
}

/// The exit status says whether `profiler record` works, however little it names.
#[test]
fn doctor_fails_where_nothing_can_be_recorded() {
    let Some(test) = Test::alone("doctor-rights") else { return };
    let with = test.compile("tests/programs/with_capabilities.c", "with", &["-static"]);
    let profiler = test.profiler_for_everybody();
    let run = |set: &str| {
        let ran = Command::new(&with).args(["65534", set, &profiler, "doctor"]).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned())
    };
    let (status, told) = run("none");
    assert_eq!(status, Some(1), "{told}");
    assert!(told.contains("MISSING") && told.contains("CAP_BPF and CAP_PERFMON are missing"), "{told}");
    let (status, told) = run("bpf,perfmon,sys_ptrace");
    if told.contains("perf_event_paranoid is") {
        return test.skip("kernel.perf_event_paranoid is above 2: nobody records without CAP_SYS_ADMIN");
    }
    assert_eq!(status, Some(0), "{told}");
    assert!(
        told.contains("missing  CAP_DAC_READ_SEARCH") && told.contains("ok       CAP_SYS_PTRACE"),
        "{told}"
    );
    // Who is no root cannot become nobody; all else is given up, by each of the workers.
    let workers = ["unwind tables", "names", "the memory of Java virtual machines"];
    for worker in workers.map(|what| format!("worker for {what}: none of 8 attempts to get out succeeded")) {
        assert!(told.contains(&worker), "{told}");
    }
}
