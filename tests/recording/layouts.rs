//! Files as linkers lay them out, and processes with more mappings than most.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::common::{Guarded, ROOT, Recording, Sample, Test, has, spawn};
use crate::whole::HOW;

/// Of some samples, how many have these names one directly above the other, from the leaf or one of
/// its callers on.
fn share(recording: &Recording, chain: &[&str], some: impl Fn(&Sample, &[&str]) -> bool) -> (u64, u64) {
    let all = recording.total(|sample| some(sample, &recording.names(sample)));
    let right = recording.total(|sample| {
        let names = recording.names(sample);
        some(sample, &names) && names.windows(chain.len()).any(|window| window == chain)
    });
    (right, all)
}

/// Requires 95 % of more than some samples, as other work may run beside.
fn nearly_all(test: &Test, what: &str, recording: &Recording, (right, all): (u64, u64), least: u64) {
    test.tell(&format!("{what}: {right} of {all}"));
    assert!(
        all >= least && right as f64 >= 0.95 * all as f64,
        "{what}: {right} of {all}: {}{:#?}",
        recording.told,
        recording.leaves()
    );
}

/// Compiles and links, by a linker that may not be there.
fn link(test: &Test, linker: &str, flags: &[&str]) -> bool {
    let tool = if linker == "lld" { "ld.lld" } else { linker };
    if linker != "bfd" && !test.needs(tool) {
        return false;
    }
    let run = Command::new("gcc").arg(format!("-fuse-ld={linker}")).args(flags).output().unwrap();
    assert!(run.status.success(), "{linker} {flags:?}: {}", String::from_utf8_lossy(&run.stderr));
    true
}

/// lld and mold write no call frame information for their procedure linkage tables.
#[test]
#[cfg(target_arch = "x86_64")]
fn stubs_that_nobody_has_described() {
    let Some(test) = Test::new("stubs") else { return };
    let source = format!("{ROOT}/tests/programs/stubs.c");
    let (library, program) = (test.path("libtiny.so"), test.path("stubs"));
    link(&test, "bfd", &["-O2", "-DLIBRARY", "-shared", "-fPIC", "-o", &library, &source]);
    let path = format!("-Wl,-rpath,{}", test.dir.display());
    for (linker, flags) in [
        ("bfd", &["-Wl,-z,now"][..]),
        ("lld", &["-Wl,-z,now"]),
        ("lld", &["-Wl,-z,now", "-fno-omit-frame-pointer"]),
        ("lld", &["-Wl,-z,lazy", "-fcf-protection"]),
        ("mold", &["-Wl,-z,now"]),
        ("mold", &["-Wl,-z,lazy", "-fcf-protection"]),
    ] {
        let common = ["-O2", "-fno-plt", "-fplt", "-o", &program, &source, &library, &path];
        if !link(&test, linker, &[&common[..], flags].concat()) {
            continue;
        }
        let recording = test.record(&[&HOW[..], &["--", &program, "2"]].concat());
        let is_stub = |sample: &Sample, names: &[&str]| {
            sample.comm == "stubs" && names.first().is_some_and(|leaf| leaf.contains("procedure linkage"))
        };
        // Modern CPUs spend next to nothing there; what there is must be right.
        let (right, all) = share(&recording, &["calls_tiny", "main"], is_stub);
        if all < 20 {
            test.skip(&format!("{linker} {flags:?}: {all} samples in stubs say nothing"));
            continue;
        }
        nearly_all(&test, &format!("{linker} {flags:?}"), &recording, (right, all), 20);
    }
}

#[test]
fn processes_with_thousands_of_mappings() {
    let Some(test) = Test::new("mappings") else { return };
    let program = test.compile(
        "tests/programs/many_mappings.c",
        "many",
        &["-fomit-frame-pointer", "-fno-optimize-sibling-calls"],
    );
    for pieces in ["500", "1500", "6000"] {
        let mut child =
            Guarded(Command::new(&program).args([pieces, "60"]).stdout(Stdio::piped()).spawn().unwrap());
        let mut ready = String::new();
        BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        let pid = child.0.id();
        let how = ["--unwind", "table", "-F", "199", "-p", &pid.to_string()];
        let recording = test.record_until(2.0, pid, &how);
        let chain = [&["leaf_of_many"][..], &["recurse"; 61], &["main"]].concat();
        let found = share(&recording, &chain, |_, names| names.contains(&"leaf_of_many"));
        nearly_all(&test, &format!("{pieces} pieces"), &recording, found, 50);
    }
}

/// Every process is recorded: the tables of other files lie beside this one's.
#[test]
#[cfg(target_arch = "x86_64")]
fn code_far_behind_its_files_table() {
    let Some(test) = Test::new("far") else { return };
    let program = test.compile("tests/programs/far.c", "far", &[]);
    let far = spawn(&mut Command::new(program));
    let recording = test.record_until(2.0, far.0.id(), &["--unwind", "table", "-F", "299", "-a"]);
    let chain = ["far_away", "calls_far_away", "main"];
    let found =
        share(&recording, &chain, |sample, names| sample.comm == "far" && names.contains(&"far_away"));
    nearly_all(&test, "far away", &recording, found, 30);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn files_of_every_layout() {
    let Some(test) = Test::new("layouts") else { return };
    let source = format!("{ROOT}/tests/programs/layouts.c");
    let program = test.path("layouts");
    let judge = |what: &str| {
        let recording = test.record(&["--unwind", "table", "-F", "299", "--", &program, "2"]);
        let found = share(&recording, &["in_the_middle", "main"], |sample, _| sample.comm == "layouts");
        nearly_all(&test, what, &recording, found, 50);
    };
    for (linker, flags) in [
        ("bfd", "-static-pie"),
        ("bfd", "-static"),
        ("bfd", "-Wl,-z,noseparate-code"),
        ("bfd", "-no-pie -Wl,-Ttext-segment=0x10000000"),
        ("bfd", "-pie -Wl,-Ttext-segment=0x7000000000"),
        ("bfd", "-Wl,-z,max-page-size=0x200000,-z,common-page-size=0x200000"),
        ("bfd", "-z execstack"),
        // What the linker and the C library's startup code describe remains in .eh_frame.
        ("bfd", "-g -fno-asynchronous-unwind-tables -fno-unwind-tables"),
        ("lld", "-Wl,--no-rosegment"),
        ("lld", "-Wl,--icf=all"),
        ("lld", "-Wl,-z,separate-loadable-segments"),
        ("mold", "-Wl,--no-eh-frame-hdr"),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        if link(&test, linker, &[&["-O2", "-o", &program, &source], &flags[..]].concat()) {
            judge(&format!("{linker} {flags:?}"));
        }
    }
    link(&test, "bfd", &["-O2", "-o", &program, &source]);
    if has("patchelf") {
        let long = format!("/{}", "x/".repeat(2000));
        let run = Command::new("patchelf").args(["--set-rpath", &long, &program]).status().unwrap();
        assert!(run.success());
        judge("patchelf with a long path");
    } else {
        test.skip("patchelf is not installed");
    }
}
