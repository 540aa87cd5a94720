//! Whole stacks of code without frame pointers, by unwind tables. What callers a function has is
//! known from the program's source.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use crate::chance;
use crate::common::{Guarded, Recording, Sample, Test, output, starts_thread, wait_until_it_rests};

pub const HOW: [&str; 4] = ["--unwind", "table", "-F", "999"];

/// Records a program, which computes for two seconds at least, and requires that 99.5 % of its samples reach
/// its first function.
fn whole(test: &Test, command: &[&str], comm: &str) -> Recording {
    let recording = test.record(&[&HOW[..], &["--"], command].concat());
    reach_the_root(test, &recording, 0.995, |sample| sample.comm == comm);
    recording
}

/// Requires that this share of some samples reach their thread's first function.
fn reach_the_root(test: &Test, recording: &Recording, share: f64, some: impl Fn(&Sample) -> bool) {
    let all = recording.total(&some);
    let broken = RefCell::new(String::new());
    let whole = recording.total(|sample| {
        let names = recording.names(sample);
        // In the midst of exec and exit there is no user stack.
        let in_kernel = names.iter().any(|name| ["do_exit", "bprm_execve"].contains(name));
        let root = names.last().is_some_and(|root| starts_thread(root));
        if some(sample) && !in_kernel && !root {
            let _ = writeln!(broken.borrow_mut(), "{} {names:?}", sample.samples);
        }
        some(sample) && (in_kernel || root)
    });
    test.tell(&format!("{whole} of {all} stacks are whole"));
    chance::at_least(whole, all, share, 500, &format!("{}{}", recording.told, broken.borrow()));
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
    chance::at_least(right, all, 0.995, 200, &format!("{chain:?}"));
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

/// A process is not over when a thread of it is.
#[test]
fn executed_after_a_thread() {
    let Some(test) = Test::new("whole-exec") else { return };
    let program = test.compile("tests/programs/deep.c", "deep", &["-fomit-frame-pointer"]);
    let script = format!(
        "import os, threading\nt = threading.Thread(target=int)\nt.start()\nt.join()\nos.execv('{program}', ['deep'])"
    );
    whole(&test, &["python3", "-c", &script], "deep");
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
    chance::at_least(through, all, 0.995, 200, "through the handler to main");
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
    // Its last instructions have the place where the exception lands for a return address. Before, there
    // are a few where the return address is that place's and the stack pointer is not yet: in libgcc's
    // own tables the two belong together, so in one stack of a thousand the walk goes astray.
    let landing = recording.total(|sample| {
        let names = recording.names(sample);
        ["_Unwind_Resume", "thrower(int)"].iter().all(|name| names.contains(name))
            && names.iter().any(|name| name.starts_with("[truncated"))
    });
    let most = chance::most(unwinding, 0.001);
    assert!(landing <= most, "{landing} of {unwinding}, of at most {most}: {}", recording.told);
}

#[test]
fn an_interpreter() {
    let Some(test) = Test::new("whole-python") else { return };
    if !test.needs("python3") {
        return;
    }
    let script = "import time\nwhile time.process_time() < 4: sum(i * i for i in range(1000))";
    whole(&test, &["python3", "-c", script], "python3");
}

/// ld.so calls others with its CFA in rbx.
#[test]
fn bound_lazily() {
    let Some(test) = Test::new("whole-lazy") else { return };
    let flags = ["-fomit-frame-pointer", "-fno-builtin", "-fcf-protection=none", "-Wl,-z,lazy"];
    let program = test.compile("tests/programs/lazy.c", "lazy", &flags);
    let recording = whole(&test, &[&program], "lazy");
    let resolves = |name: &str| name.starts_with("_dl_runtime_resolve");
    let called = |sample: &Sample| {
        recording
            .names(sample)
            .windows(3)
            .any(|window| resolves(window[0]) && window[1..] == ["bind", "main"])
    };
    let through = recording.total(|sample| recording.has_frame(sample, "_dl_fixup") && called(sample));
    let all = recording.with("_dl_fixup");
    chance::at_least(through, all, 0.99, 50, "from _dl_fixup to bind and main");
}

/// Its signal trampoline is described nowhere. Neither is the rest of it, so `main` is the last
/// function that can be reached.
#[test]
fn through_a_signal_of_musl() {
    let Some(test) = Test::new("whole-musl") else { return };
    if !test.needs("musl-gcc") {
        return;
    }
    let program = test.path("deep");
    let source = format!("{}/tests/programs/deep.c", crate::common::ROOT);
    output("musl-gcc", &["-O2", "-fomit-frame-pointer", "-static", "-o", &program, &source]);
    let recording = test.record(&[&HOW[..], &["--", &program, "timer"]].concat());
    // What the handler interrupted, if that is not a function of musl's.
    let callers = |sample: &Sample| -> Vec<&str> {
        let names = recording.names(sample).into_iter();
        names.skip_while(|name| *name != "handler").skip(1).collect()
    };
    let of_musl = |sample: &Sample| callers(sample).get(1).is_some_and(|name| name.contains("clock_gettime"));
    let all = recording.total(|sample| recording.has_frame(sample, "handler") && !of_musl(sample));
    let through = recording.total(|sample| {
        let callers = callers(sample);
        callers.first() == Some(&"__restore_rt") && callers.contains(&"main") && !of_musl(sample)
    });
    test.tell(&format!("{through} of {all} stacks of a handler reach main"));
    chance::at_least(through, all, 0.995, 200, "through the handler to main");
}

#[test]
fn threads() {
    let Some(test) = Test::new("whole-threads") else { return };
    let program = test.compile("tests/programs/threads.c", "threads", &["-fomit-frame-pointer"]);
    let recording = whole(&test, &[&program, "1"], "threads");
    callers(&recording, "busy_alpha", &["run_busy_alpha"]);
    callers(&recording, "busy_beta", &["run_busy_beta"]);
}

/// Assembly whose callers the unwinder does not find. Which of it runs, and how long, is the CPU's choice: one
/// with AVX-512 has OpenSSL multiply by the first of them.
const UNDESCRIBED: [(&str, &str); 5] = [
    ("bn_mul_mont", "its CFA is an expression of two registers"),
    ("bn_mul4x_mont", "its CFA is an expression of two registers"),
    ("bn_mul_mont_gather5", "its CFA is an expression of two registers"),
    // rsp and rbp hold what they like there.
    ("HUF_decompress4X1_usingDTable_internal_fast_asm_loop", "it has no call frame information"),
    ("HUF_decompress4X2_usingDTable_internal_fast_asm_loop", "it has no call frame information"),
];

/// Assembly of Debian's static libraries, most of which describes its frames.
#[test]
fn linked_statically() {
    let Some(test) = Test::new("whole-static") else { return };
    for header in ["openssl/evp.h", "zlib.h", "zstd.h"] {
        if !std::fs::exists(format!("/usr/include/{header}")).unwrap() {
            return test.skip(&format!("{header} is not installed"));
        }
    }
    let libraries = ["-w", "-fomit-frame-pointer", "-static", "-lssl", "-lcrypto", "-lz", "-lzstd"];
    let program = test.compile("tests/programs/crypto.c", "crypto", &libraries);
    let recording = test.record(&[&HOW[..], &["--", &program]].concat());
    // Some symbols have an underscore before.
    let is_in = |sample: &Sample, name: &str| recording.leaf(sample).name().trim_start_matches('_') == name;
    let whole = |sample: &Sample| recording.names(sample).last().is_some_and(|name| starts_thread(name));
    let undescribed =
        |sample: &Sample| !whole(sample) && UNDESCRIBED.iter().any(|(name, _)| is_in(sample, name));
    for (name, why) in UNDESCRIBED {
        let left_out = recording.total(|sample| !whole(sample) && is_in(sample, name));
        test.tell(&format!("left out: {left_out} samples in {name}: {why}"));
    }
    let (left_out, all) = (recording.total(undescribed), recording.total(|sample| sample.comm == "crypto"));
    assert!(
        left_out <= chance::most(all, 0.05),
        "{left_out} of {all} are left out: {:?}",
        recording.leaves()
    );
    reach_the_root(&test, &recording, 0.995, |sample| sample.comm == "crypto" && !undescribed(sample));
}

/// OpenSSL's multiplication has its caller's stack pointer behind as many words as its numbers have.
/// Those of 256 bits, half of such a key, are multiplied by the code that all CPUs have.
#[test]
#[cfg(target_arch = "x86_64")]
fn multiplying_large_numbers() {
    let Some(test) = Test::new("whole-openssl") else { return };
    if !test.needs("openssl") {
        return;
    }
    let recording = test.record(&[&HOW[..], &["--", "openssl", "speed", "-seconds", "3", "rsa512"]].concat());
    // Its first function has no name, as it is stripped.
    let of_it = |sample: &Sample| sample.comm == "openssl";
    let all = recording.total(of_it);
    let unknown = recording.total(|sample| {
        let names = recording.names(sample);
        of_it(sample) && names.iter().any(|name| name.contains("truncated: unknown unwind rule"))
    });
    test.tell(&format!("{unknown} of {all} stacks have a rule that is not known"));
    // Without that rule a quarter of them.
    assert!(all > 100 && unknown * 100 <= all, "{unknown} of {all}: {}", recording.told);
}

/// Records the machine while a compiler runs. One runs already and waits for its input: what the
/// recorder needs to build a large compiler's tables is not what is asked here.
fn compiler(test: &Test, waiting: &[&str], command: &[&str]) -> Recording {
    let run = |command: &[&str]| {
        let mut run = Command::new(command[0]);
        run.args(&command[1..]).current_dir(&test.dir);
        run
    };
    let waiting = Guarded(run(waiting).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    wait_until_it_rests(waiting.0.id());
    let recorder = test.started(&HOW);
    wait_until_it_rests(recorder.pid());
    assert!(run(command).status().unwrap().success(), "{command:?}");
    recorder.interrupt()
}

#[test]
fn clang() {
    let Some(test) = Test::new("whole-clang") else { return };
    if !test.needs("clang") {
        return;
    }
    let mut source = String::new();
    for i in 0..700 {
        let _ = writeln!(
            source,
            "int f{i}(int *a, int n) {{ int s = {i}; for (int i = 0; i < n; i++) {{ switch (a[i] % 7) {{
            case 0: s += a[i] * {i}; break; case 1: s ^= a[i] << 3; break; case 2: for (int j = i; j < n; j += {i} + 1)
            s -= a[j] / (i + 1); break; case 3: s = s > a[i] ? s * 3 : a[i] - s; break; default: a[i] = s; }} }} return s; }}"
        );
    }
    let source = test.file("large.c", &source);
    let command = ["clang", "-cc1", "-O2", "-emit-obj", "-o", "/dev/null", &source];
    let recording = compiler(&test, &["clang", "-cc1", "-E", "-"], &command);
    reach_the_root(&test, &recording, 0.995, |sample| sample.comm.starts_with("clang"));
}

#[test]
fn rustc() {
    let Some(test) = Test::new("whole-rustc") else { return };
    if !test.needs("rustc") {
        return;
    }
    let mut source = String::new();
    for i in 1..20 {
        let _ = writeln!(
            source,
            "pub fn f{i}(v: &mut Vec<String>, m: &mut std::collections::BTreeMap<String, u64>, n: u64) -> u64 {{
            for i in 0..n {{ v.push(format!(\"{{}}-{i}\", i * {i})); *m.entry(v[i as usize].clone()).or_default() += i; }}
            v.sort_by_key(|s| s.len() * {i}); m.iter().filter(|(k, _)| k.len() > {i}).map(|(_, v)| v * {i}).sum() }}"
        );
    }
    let source = test.file("large.rs", &source);
    // Not rustup's stand-in.
    let rustc = format!("{}/bin/rustc", output("rustc", &["--print", "sysroot"]).trim());
    let flags = ["-O", "--crate-type=lib", "--emit=metadata,link"];
    let command = [&[rustc.as_str()], &flags[..], &[&source]].concat();
    let recording = compiler(&test, &[&rustc, "-"], &command);
    reach_the_root(&test, &recording, 0.98, |sample| sample.comm == "rustc");
}
