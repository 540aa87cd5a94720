//! Compiles the BPF programs and generates their skeletons and the types it shares with user space.

use std::env;
use std::fmt::Write as _;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

/// What the recorder loads, what counts alone, and what lists descriptors.
const SOURCES: [&str; 3] = ["profile", "counts", "descriptors"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let arch = match target.as_str() {
        "x86_64" => "x86",
        "aarch64" => "arm64",
        other => panic!("no BPF program for {other}: profiler runs on x86_64 and aarch64"),
    };
    for name in SOURCES {
        let source = format!("bpf/{name}.bpf.c");
        SkeletonBuilder::new()
            .source(&source)
            .clang_args([
                &format!("-D__TARGET_ARCH_{arch}"),
                "-Wall",
                "-Werror",
                // clang for the bpf target does not look where Debian keeps <asm/…>, be it for this
                // machine or for another.
                &format!("-idirafter/usr/include/{target}-linux-gnu"),
                &format!("-idirafter/usr/{target}-linux-gnu/include"),
            ])
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .unwrap_or_else(|error| panic!("failed to build {source}: {error:#}"));
    }
    // The unwinder's step function once more, for stacks that are walked in user space.
    cc::Build::new().file("bpf/unwind_native.c").opt_level(2).compile("unwind_native");
    std::fs::write(out.join("syscalls.rs"), syscalls()).expect("cargo's directory can be written");
    println!("cargo:rerun-if-changed=bpf");
}

/// Names and numbers of system calls, from the C library's headers for the target, as a table in Rust.
fn syscalls() -> String {
    let macros = cc::Build::new().file("bpf/syscalls.h").flag("-dM").expand();
    let macros = String::from_utf8_lossy(&macros).into_owned();
    let mut table = String::from("const SYSCALLS: &[(&str, u32)] = &[\n");
    for line in macros.lines() {
        let Some((name, number)) = line.strip_prefix("#define __NR_").and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        if let Ok(number) = number.trim().parse::<u32>() {
            let _ = writeln!(table, "    ({name:?}, {number}),");
        }
    }
    table + "];\n"
}
