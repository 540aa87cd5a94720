//! Frames are named by what ran: not by what lies at its path later, nor by what its path suggests.

use std::fs;
use std::process::Command;

use crate::chance;
use crate::common::{Test, output};
use crate::processes::busy;

#[test]
fn a_program_in_memory() {
    let Some(test) = Test::new("memfd") else { return };
    let program = test.spin("payload", "busy_in_memory", &[]);
    let script = "import os, sys\n\
        fd = os.memfd_create('payload')\n\
        os.write(fd, open(sys.argv[1], 'rb').read())\n\
        os.execve(fd, ['payload', '0.5'], os.environ)\n";
    let recording = test.record(&["-F", "499", "--", "python3", "-c", script, &program]);
    let named = recording.with("busy_in_memory");
    assert!(named >= *chance::around(0.95 * 0.5 * 499.0).start(), "{named}: {:#?}", recording.leaves());
}

/// Where one segment holds headers and code, loaders map the whole file at once and then put other mappings over its
/// end: the mapping that was told of is none that there is.
const ONE_SEGMENT: &str = "-Wl,-z,noseparate-code";

/// Whole stacks with this function, of the samples that are expected of half a second at 499 Hz.
fn whole(recording: &crate::common::Recording, function: &str, from: &str) {
    let whole =
        recording.total(|sample| recording.has_frame(sample, function) && recording.has_frame(sample, from));
    let least = *chance::around(0.95 * 0.5 * 499.0).start();
    assert!(whole >= least, "{function}: {whole}: {:#?}{}", recording.leaves(), recording.told);
    assert!(!recording.told.contains("file gone"), "{}", recording.told);
}

#[test]
fn a_program_in_memory_that_is_one_segment() {
    let Some(test) = Test::new("memfd-one-segment") else { return };
    let flags = ["-fomit-frame-pointer", ONE_SEGMENT];
    let program = test.spin("payload", "busy_in_memory", &[&flags[..], &["-pie", "-fPIE"]].concat());
    let script = "import os, sys\n\
        fd = os.memfd_create('payload')\n\
        os.write(fd, open(sys.argv[1], 'rb').read())\n\
        os.execve(fd, ['payload', '0.5'], os.environ)\n";
    let recording = test.record(&["-F", "499", "--", "python3", "-c", script, &program]);
    whole(&recording, "busy_in_memory", "main");
}

/// Extensions of scripts are often copied, loaded and removed.
#[test]
fn a_library_that_is_removed_once_it_is_loaded() {
    let Some(test) = Test::new("removed-library") else { return };
    for (name, flags) in [("one", &[ONE_SEGMENT][..]), ("several", &[])] {
        let flags = [&["-DLIBRARY", "-shared", "-fPIC", "-fomit-frame-pointer"], flags].concat();
        let library = test.spin(name, "busy_in_library", &flags);
        let script = "import ctypes, os, sys\n\
            library = ctypes.CDLL(sys.argv[1])\n\
            os.unlink(sys.argv[1])\n\
            library.busy_in_library(ctypes.c_double(0.5))\n";
        let recording = test.record(&["-F", "499", "--", "python3", "-c", script, &library]);
        whole(&recording, "busy_in_library", "_start");
    }
}

/// A part of a mapping that was made writable is a mapping of its own, until it is joined with the rest again.
#[test]
fn code_that_is_patched_when_its_file_has_lost_its_path() {
    let Some(test) = Test::new("patched") else { return };
    let renamed = format!("-DRENAME_ITSELF=\"{}\"", test.path("renamed"));
    for lost in ["-DREMOVE_ITSELF", &renamed] {
        let program = test.spin("tool", "patched_work", &["-DREPROTECT", "-fomit-frame-pointer", lost]);
        let recording = test.record(&["-F", "499", "--", &program, "0.5"]);
        whole(&recording, "patched_work", "main");
    }
}

/// `cp`, `scp` and `curl -o` write the next build into the inode of the one before.
#[test]
fn a_program_that_is_overwritten_in_place() {
    let Some(test) = Test::new("overwritten") else { return };
    test.spin("one", "work_of_first", &[]);
    test.spin("two", "work_of_second", &["-g"]);
    let script = "cp one tool; ./tool 0.5; cp two tool; ./tool 0.5";
    let recording = test.record(&["-F", "499", "--", "sh", "-c", script]);
    busy(&recording, "work_of_first", "tool", 0.5 * 499.0);
    busy(&recording, "work_of_second", "tool", 0.5 * 499.0);
}

/// Each gets the path of the one before and, on many file systems, its inode.
#[test]
fn short_programs_that_follow_each_other_at_a_path() {
    let Some(test) = Test::new("inode-reuse") else { return };
    test.spin("a", "work_of_a", &["-DNAME=\"is_a\""]);
    test.spin("b", "work_of_b", &["-DNAME=\"is_b\"", "-g"]);
    for removed in ["rm t", ":"] {
        let script = format!(
            "for i in $(seq 60); do cp a t; ./t 0.004; {removed}; cp b t; ./t 0.004; {removed}; done"
        );
        let recording = test.record(&["-F", "999", "--", "sh", "-c", &script]);
        let of = |name: &str, function: &str| {
            recording.total(|sample| sample.comm == name && recording.has_frame(sample, function))
        };
        let right = of("is_a", "work_of_a") + of("is_b", "work_of_b");
        let wrong = of("is_a", "work_of_b") + of("is_b", "work_of_a");
        assert!(
            right >= 50 && wrong == 0,
            "{removed}: {right} right, {wrong} wrong: {:#?}",
            recording.leaves()
        );
    }
}

#[test]
fn code_that_was_made_at_run_time() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let Some(test) = Test::new("compiled") else { return };
    let program = test.compile("tests/programs/compiled.c", "compiled", &[]);
    for memory in ["private", "shared", "huge", "memfd", "shm", "file", "sysv"] {
        if Command::new(&program).args([memory, "0"]).status().unwrap().code() == Some(77) {
            test.skip(&format!("no memory of the kind `{memory}`"));
            continue;
        }
        let recording = test.record(&["-F", "499", "--", &program, memory, "0.5"]);
        let named = recording.with("compiled_function");
        let least = *chance::around(0.95 * 0.5 * 499.0).start();
        assert!(named >= least, "{memory}: {named}: {:#?}", recording.leaves());
    }
}

/// Node copies its text to huge pages, in place.
#[test]
fn text_that_was_moved_to_huge_pages() {
    let Some(test) = Test::new("large-pages") else { return };
    if !test.needs("node") {
        return;
    }
    let script = "const end = Date.now() + 2000; while (Date.now() < end) \
        JSON.stringify(Array.from({length: 2000}, (_, i) => ({a: i, b: 'x' + i})));";
    let recording = test.record(&["-F", "299", "--", "node", "--use-largepages=on", "-e", script]);
    let starts = |sample: &crate::common::Sample| {
        recording.names(sample).iter().any(|name| name.starts_with("node::Start("))
    };
    let of_node = |sample: &crate::common::Sample| sample.thread_comm == "node";
    let (named, all) =
        (recording.total(|sample| of_node(sample) && starts(sample)), recording.total(of_node));
    chance::at_least(named, all, 0.9, 50, &format!("{:#?}", recording.leaves()));
}

/// Undoes mounts when the test ends.
struct Mounted(Vec<String>);

impl Drop for Mounted {
    fn drop(&mut self) {
        for mounted in self.0.iter().rev() {
            let _ = Command::new("umount").args(["-l", mounted]).status();
        }
    }
}

/// Not even root may open files there.
#[test]
fn a_program_on_a_file_system_of_its_users() {
    let Some(test) = Test::new("fuse") else { return };
    if !["mksquashfs", "squashfuse", "setpriv"].into_iter().all(|tool| test.needs(tool)) {
        return;
    }
    if !fs::exists("/dev/fuse").unwrap() {
        return test.skip("there is no /dev/fuse");
    }
    for dir in ["in", "mounted"] {
        fs::create_dir(test.dir.join(dir)).unwrap();
    }
    test.spin("in/app", "busy_in_app", &[]);
    output("mksquashfs", &[&test.path("in"), &test.path("image"), "-quiet"]);
    let mounted = test.path("mounted");
    output("chown", &["nobody", &mounted]);
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let mount =
        Command::new("setpriv").args(as_nobody).args(["squashfuse", &test.path("image"), &mounted]).status();
    if !mount.unwrap().success() {
        return test.skip("nobody may not mount by FUSE here");
    }
    let _mounted = Mounted(vec![mounted.clone()]);
    let app = format!("{mounted}/app");
    let recording = test.record(&[&["-F", "499", "--", "setpriv"], &as_nobody[..], &[&app, "0.5"]].concat());
    busy(&recording, "busy_in_app", "app", 0.5 * 499.0);
    let whole = recording
        .total(|sample| recording.has_frame(sample, "busy_in_app") && recording.has_frame(sample, "main"));
    chance::at_least(whole, recording.with("busy_in_app"), 0.99, 100, &recording.told);
}

/// Where stat(2) shows other numbers than the kernel has in its mappings.
#[test]
fn short_programs_on_stacked_file_systems() {
    let Some(test) = Test::new("stacked") else { return };
    for dir in ["lower", "upper", "merged"] {
        fs::create_dir(test.dir.join(dir)).unwrap();
    }
    test.spin("lower/old", "work_of_old", &[]);
    test.spin("new", "work_of_new", &[]);
    let (upper, merged) = (test.path("upper"), test.path("merged"));
    let mount =
        |args: &[&str]| Command::new("mount").args(args).status().is_ok_and(|status| status.success());
    if !mount(&["-t", "tmpfs", "none", &upper]) {
        return test.skip("nothing can be mounted");
    }
    let mut mounted = Mounted(vec![upper.clone()]);
    for dir in ["files", "work"] {
        fs::create_dir(format!("{upper}/{dir}")).unwrap();
    }
    let options = format!("lowerdir={},upperdir={upper}/files,workdir={upper}/work", test.path("lower"));
    if !mount(&["-t", "overlay", "overlay", "-o", &options, &merged]) {
        return test.skip("no overlay can be mounted");
    }
    mounted.0.push(merged);
    let script =
        "for i in $(seq 40); do merged/old 0.008; cp new merged/new$i; sleep 0.02; merged/new$i 0.008; done";
    let recording = test.record(&["-F", "999", "--", "sh", "-c", script]);
    for (comm, function) in [("old", "work_of_old"), ("new", "work_of_new")] {
        let named = recording.with(function);
        let gone = recording.total(|sample| {
            let names = recording.names(sample);
            sample.comm.starts_with(comm)
                && names.iter().any(|name| name.contains("[file ") || name.contains("[binary "))
        });
        assert!(
            named >= 100 && gone * 10 <= named,
            "{comm}: {named}, {gone} unnamed: {:#?}",
            recording.leaves()
        );
    }
}

/// An old program's personality: every mapping that can be read is executable.
#[test]
fn a_program_of_which_all_is_executable() {
    let Some(test) = Test::new("all-executable") else { return };
    if !test.needs("setarch") {
        return;
    }
    let program = test.spin("legacy", "busy_in_legacy", &[]);
    let recording = test.record(&["-F", "499", "--", "setarch", "-X", &program, "0.5"]);
    busy(&recording, "busy_in_legacy", "legacy", 0.5 * 499.0);
}

/// With frame pointers and without, in the kernel's page of code, and through a signal's handler.
#[test]
fn a_32_bit_program() {
    let Some(test) = Test::new("bits32") else { return };
    let source = format!("{}/tests/programs/bits32.c", crate::common::ROOT);
    let program = test.path("bits32");
    for flags in [&["-O2"][..], &["-O1", "-fno-omit-frame-pointer"]] {
        let args = [&["-m32", "-o", &program, &source], flags].concat();
        if !Command::new("gcc").args(&args).output().unwrap().status.success() {
            return test.skip("gcc makes no 32-bit programs");
        }
        for (mode, chain) in [
            ("plain", &["busy_in_32_bits", "computes", "main"][..]),
            ("signal", &["busy_in_32_bits", "handles", "__kernel_sigreturn"]),
            ("siginfo", &["busy_in_32_bits", "handles", "__kernel_rt_sigreturn"]),
        ] {
            let recording = test.record(&["-F", "499", "--", &program, mode, "0.8"]);
            let busy = |sample: &crate::common::Sample| recording.leaf(sample).name() == "busy_in_32_bits";
            let all = recording.total(busy);
            let whole = recording.total(|sample| {
                let names = recording.names(sample);
                busy(sample)
                    && names.starts_with(chain)
                    && names.contains(&"computes")
                    && names.contains(&"main")
            });
            assert!(all >= 100, "{flags:?} {mode}: {all}: {:#?}", recording.leaves());
            chance::at_least(whole, all, 0.99, 100, &format!("{flags:?} {mode}: {:#?}", recording.leaves()));
            let taken = recording.complete + recording.incomplete;
            chance::at_least(recording.complete, taken, 0.98, 100, &recording.told);
            assert!(recording.told.contains("of 32-bit processes"), "{}", recording.told);
            // The page has other functions at the same offsets in a 64-bit process.
            let in_vdso = |named: bool| {
                recording.total(|sample| {
                    let leaf = recording.leaf(sample);
                    let is_named = leaf.name().contains("vdso_clock_gettime");
                    sample.comm == "bits32" && leaf.path() == "[vdso]" && is_named == named
                })
            };
            if mode == "plain" {
                let (named, other) = (in_vdso(true), in_vdso(false));
                assert!(named >= 20 && other * 10 <= named, "{named} and {other}: {:#?}", recording.leaves());
            }
        }
    }
    // Without tables nothing is walked as if it were 64-bit code.
    let recording = test.record(&["-F", "499", "--unwind", "fp", "--", &program, "plain", "0.5"]);
    let cut = |sample: &crate::common::Sample| recording.has_frame(sample, "[truncated: 32-bit process]");
    let (user, cut) = (recording.with("busy_in_32_bits"), recording.total(cut));
    assert!(
        user >= 50 && cut >= user && recording.with("main") == 0,
        "{user}, {cut}: {:#?}",
        recording.samples
    );
}
