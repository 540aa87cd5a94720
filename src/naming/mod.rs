//! The end of a recording: names for its frames, the file, the summary.
//!
//! Strangers' files are read by a worker (see [`crate::worker`]); the recording stays here. Whatever goes wrong
//! with names, the file is written, with those that there are.

pub mod by_worker;
mod copies;
mod debug_files;
pub mod demangle;
mod files;
mod go;
mod jit;
mod jitdump;
mod kernel;
mod kernel_addresses;
mod namer;
mod names;
mod perf_map;
mod resolver;
pub mod symbolize;

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;

use self::kernel_addresses::Origins;
use self::namer::Namer;
use self::symbolize::Kernel;
use crate::cli::RecordArgs;
use crate::machine::signals::Signals;
use crate::machine::usage;
use crate::model::objects::Objects;
use crate::model::profile::Profile;
use crate::model::unsymbolized::Unsymbolized;
use crate::recording::progress::Progress;
use crate::recording::summary::{Summary, hottest};
use crate::text::{exact_duration, printable, thousands};
use crate::viewing::file::Pending;
use crate::viewing::{moments, pprof};

/// Names the frames, writes the file, and prints the summary.
///
/// # Errors
/// If the file cannot be written.
pub fn name_and_write(
    args: &RecordArgs,
    mut recording: Unsymbolized,
    objects: &Objects,
    summary: &Summary,
    signals: &mut Signals,
    mut output: Pending,
) -> Result<()> {
    let (data, text) = encode(args, &mut recording, objects, summary, signals);
    output.write_all(&data)?;
    let name = output.name();
    output.commit()?;
    say_part!("profiler: {}", printable(&text));
    say!("  wrote   {name} ({:.1} KiB); next: {}", data.len() as f64 / 1024.0, next_command(&name));
    Ok(())
}

/// The file of a recording, with names unless they are not wanted, and the summary's text.
pub fn encode(
    args: &RecordArgs,
    recording: &mut Unsymbolized,
    objects: &Objects,
    summary: &Summary,
    signals: &mut Signals,
) -> (Vec<u8>, String) {
    let kernel = (!args.kernel_addresses).then(|| Origins::of(&recording.profile));
    let own_cpu_s = usage::own_cpu_s();
    let named = !args.no_symbolize;
    // A fault of ours costs names, and not the recording.
    let naming =
        catch_unwind(AssertUnwindSafe(|| named.then(|| name(args, kernel, recording, objects, signals))));
    let naming = naming.unwrap_or_else(|_| {
        say!("profiler: writing without names: the symbolizer failed");
        None
    });
    symbolize::leave_unnamed(recording, kernel, "not symbolized");
    let naming = naming.map(|(cpu_s, peak_bytes)| (cpu_s + usage::own_cpu_s() - own_cpu_s, peak_bytes));
    let text = summary.text(&hottest(&recording.profile, 5), naming);
    let data = pprof::encode(&recording.profile);
    let price = price_of_timeline(args, &mut recording.profile, data.len());
    (data, text + &price)
}

/// What it costs to say when samples were taken, by the file that there would be without it: the profile loses its
/// moments here.
fn price_of_timeline(args: &RecordArgs, profile: &mut Profile, bytes: usize) -> String {
    let Some(step) = args.timeline else { return String::new() };
    let samples = profile.samples().len();
    moments::forget(profile);
    let without = pprof::encode(profile).len();
    format!(
        "  timeline steps of {}: {} samples in place of {}, {:.1} KiB of the file in place of {:.1}\n",
        exact_duration(step),
        thousands(samples as u64),
        thousands(profile.samples().len() as u64),
        bytes as f64 / 1024.0,
        without as f64 / 1024.0
    )
}

fn next_command(name: &str) -> String {
    match name {
        "output.pb.gz" => "profiler flamegraph".to_owned(),
        "standard output" => "profiler flamegraph FILE".to_owned(),
        name => format!("profiler flamegraph {name}"),
    }
}

/// Names the frames; returns what that took of workers: seconds of CPU time, bytes of memory.
fn name(
    args: &RecordArgs,
    kernel: Kernel,
    recording: &mut Unsymbolized,
    objects: &Objects,
    signals: &mut Signals,
) -> (f64, u64) {
    let progress = Progress::new();
    let mut namer = Namer::new(signals);
    assert!(args.panic_at.as_deref() != Some("naming"), "as was asked for");
    symbolize::symbolize(recording, objects, !args.no_inline, kernel, &mut namer, |done, total| {
        progress.say(&format!("naming frames: file {} of {total} (Ctrl-C: write without names)", done + 1));
    });
    progress.clear();
    if namer.crashed + namer.hung > 0 {
        say!(
            "profiler: the symbolizer crashed on {} files and came to no end with {}: their frames say so",
            namer.crashed,
            namer.hung
        );
    }
    if namer.copies.refused > 0 {
        say!(
            "profiler: {} files that a worker may not open were too large to be copied for it: their names are missing",
            namer.copies.refused
        );
    }
    namer.cost()
}
