//! `profiler doctor`: what this machine, kernel and user can do, found by trying it.
//!
//! What is missing is told with what recordings do without it, and what would be enough: a line for setcap, and
//! a securityContext for Kubernetes. The workers that read strangers' files are started as a recording starts
//! them, and made to try what they must not be able to do.

use std::process::Command as Process;

use anyhow::Result;
use nix::unistd::geteuid;

use crate::cli::RecordArgs;
use crate::machine::rights::{self, Capability};
use crate::machine::usage;
use crate::recording::capture::bpf::{self, Sampler};
use crate::recording::capture::perf::{self, Sideband};
use crate::recording::plan::Plan;
use crate::viewing::file::Pending;
use crate::worker::{self, Fences, Kind};

/// Prints the findings; the exit status is 0 if `profiler record` works, however little it names.
pub fn run() -> i32 {
    println_or_not(&format!(
        "profiler {} on Linux {}, user {}\n",
        env!("CARGO_PKG_VERSION"),
        usage::kernel(),
        geteuid()
    ));
    let record = trial();
    match &record {
        Ok(lacks) => {
            finding("ok", "profiler record works here", "");
            lacks.iter().for_each(|lacks| finding("lacks", lacks, "this kernel does without"));
        }
        Err(error) => finding("MISSING", "profiler record does not work", &format!("{error:#}")),
    }
    for (capability, effect) in rights::FOR_NAMES {
        right(capability, &format!("no names of {effect}"));
    }
    right(Capability::SysAdmin, "what BPF programs cost is not recorded, and profiler stats does not work");
    for kind in [Kind::Tables, Kind::Names, Kind::Memory] {
        sandbox(kind);
    }
    println_or_not(&enough());
    i32::from(record.is_err())
}

/// Standard output may be closed: then nobody reads this.
fn println_or_not(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn finding(state: &str, what: &str, effect: &str) {
    let effect = if effect.is_empty() { String::new() } else { format!(": {effect}") };
    println_or_not(&format!("  {state:<8} {what}{effect}"));
}

fn right(capability: Capability, effect: &str) {
    if rights::has(capability) {
        finding("ok", capability.name(), "");
    } else {
        finding("missing", capability.name(), effect);
    }
}

/// Begins a recording of nothing; returns what the kernel lacks for parts of it.
fn trial() -> Result<Vec<String>> {
    let plan = Plan::new(&RecordArgs::of(&[])?)?;
    bpf::probe()?;
    let sideband = Sideband::open(&plan.online, 1)?;
    let mut sampler = Sampler::load(&plan.config)?;
    let clocks = plan.cpus.iter().take(1).map(|&cpu| perf::open_clock(cpu, 1, false));
    sampler.attach(clocks.collect::<Result<_>>()?)?;
    sampler.detach();
    Ok(sideband.missing.iter().chain(&sampler.missing).cloned().collect())
}

/// Starts a worker and lets it try what it must not.
fn sandbox(kind: Kind) {
    let what = format!(
        "worker for {}",
        match kind {
            Kind::Tables => "unwind tables",
            Kind::Names => "names",
            Kind::Memory => "the memory of Java virtual machines",
        }
    );
    let directory = std::env::temp_dir();
    let file = directory.join(format!("profiler-doctor-{}", std::process::id()));
    // A file as recordings are: its owner's alone.
    let made = Pending::private(&file).and_then(Pending::commit);
    let tried = worker::try_everything(kind, &file.to_string_lossy());
    if made.is_ok() {
        let _ = std::fs::remove_file(&file);
    }
    let (fences, attempts) = match tried {
        Ok(tried) => tried,
        Err(error) => return finding("MISSING", &what, &format!("{error:#}; it gives nothing")),
    };
    let Fences { is_nobody, no_capabilities, landlock, seccomp } = fences;
    let all = [
        (
            is_nobody,
            "is nobody (CAP_SETUID, CAP_SETGID, CAP_KILL)",
            "it opens nothing, and is given copies of files",
        ),
        (no_capabilities, "has no capabilities", "the other fences stand"),
        (landlock, "Landlock (Linux 5.13)", "the other fences stand"),
        (seccomp, "seccomp", "the other fences stand"),
    ];
    for (stands, fence, effect) in all {
        if !stands {
            finding("lacks", &format!("{what}: {fence}"), effect);
        }
    }
    let done: Vec<&str> =
        attempts.iter().filter(|attempt| !attempt.refused).map(|attempt| attempt.what).collect();
    let tried = attempts.len();
    if done.is_empty() {
        finding("ok", &format!("{what}: none of {tried} attempts to get out succeeded"), "");
    } else {
        finding("OPEN", &format!("{what}: not refused"), &done.join(", "));
    }
}

/// What is enough for somebody who is not root.
fn enough() -> String {
    let mut needed = vec![Capability::Bpf, Capability::Perfmon];
    needed.extend(rights::FOR_NAMES.map(|(capability, _)| capability));
    if rights::is_paranoid() {
        needed.push(Capability::SysAdmin);
    }
    let small: Vec<String> = needed.iter().map(|it| it.name().to_lowercase()).collect();
    let short: Vec<&str> = needed.iter().map(|it| it.name().trim_start_matches("CAP_")).collect();
    let exe = std::env::current_exe().map_or_else(|_| "profiler".to_owned(), |exe| exe.display().to_string());
    let has_setcap = Process::new("setcap").arg("-h").output().is_ok();
    let hint = if has_setcap { "" } else { "   # Debian: libcap2-bin" };
    format!(
        "\nEnough for a user:\n  sudo setcap {}=ep {exe}{hint}\nEnough for a container, with hostPID: true:\n  \
         securityContext:\n    runAsUser: 0\n    allowPrivilegeEscalation: false\n    \
         capabilities: {{ drop: [ALL], add: [{}] }}\n    seccompProfile: {{ type: Unconfined }}\n    \
         appArmorProfile: {{ type: Unconfined }}",
        small.join(","),
        short.join(", ")
    )
}
