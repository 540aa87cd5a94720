//! Compiles the BPF program and generates its skeleton and the types it shares with user space.

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "bpf/profile.bpf.c";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let arch = match target.as_str() {
        "x86_64" => "x86",
        "aarch64" => "arm64",
        other => panic!("no BPF program for {other}: profiler runs on x86_64 and aarch64"),
    };
    SkeletonBuilder::new()
        .source(SOURCE)
        .clang_args([
            &format!("-D__TARGET_ARCH_{arch}"),
            "-Wall",
            "-Werror",
            // clang for the bpf target does not look where Debian keeps <asm/…>, be it for this
            // machine or for another.
            &format!("-idirafter/usr/include/{target}-linux-gnu"),
            &format!("-idirafter/usr/{target}-linux-gnu/include"),
        ])
        .build_and_generate(out.join("profile.skel.rs"))
        .unwrap_or_else(|error| panic!("failed to build {SOURCE}: {error:#}"));
    // The unwinder's step function once more, for stacks that are walked in user space.
    cc::Build::new().file("bpf/unwind_native.c").opt_level(2).compile("unwind_native");
    println!("cargo:rerun-if-changed=bpf");
}
