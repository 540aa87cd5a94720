//! The end of a recording: names for its frames, the file, the summary.
//!
//! Naming runs in a process of its own (see [`crate::naming::isolate`]). A file on which it dies is left
//! out at the next try, so that it costs its own names only; after a second interrupt, or when
//! nothing helps, the recording is written without names.

mod debug_files;
pub mod demangle;
mod files;
mod go;
pub mod isolate;
mod jit;
mod jitdump;
mod kernel_addresses;
mod names;
mod perf_map;
mod resolver;
pub mod symbolize;

use std::collections::BTreeSet;

use anyhow::Result;

use self::isolate::{Ending, Message, Sender};
use self::kernel_addresses::Origins;
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

/// Tries before the recording is written without names: each leaves out one more file.
const TRIES: usize = 8;

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
    let named =
        if args.no_symbolize { None } else { name(args, kernel, recording, objects, summary, signals) };
    named.unwrap_or_else(|| {
        symbolize::leave_unnamed(recording, kernel, "not symbolized");
        let data = pprof::encode(&recording.profile);
        let text = summary.text(&hottest(&recording.profile, 5), None);
        let price = price_of_timeline(args, &mut recording.profile, data.len());
        (data, text + &price)
    })
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

/// The encoded profile and the summary's text; `None` if it has to do without names.
fn name(
    args: &RecordArgs,
    kernel: Kernel,
    recording: &mut Unsymbolized,
    objects: &Objects,
    summary: &Summary,
    signals: &mut Signals,
) -> Option<(Vec<u8>, String)> {
    let progress = Progress::new();
    let mut skip = BTreeSet::new();
    for _ in 0..TRIES {
        let mut step = None;
        let mut results = Vec::new();
        let work = |sender: &mut Sender| work(args, kernel, recording, objects, summary, &skip, sender);
        let ending = isolate::run(signals, work, |message| match message {
            Message::Step(done, total) => {
                step = Some(done);
                progress.say(&format!(
                    "naming frames: file {} of {total} (Ctrl-C: write without names)",
                    done + 1
                ));
            }
            Message::Data(data) => results.push(data),
        });
        progress.clear();
        match ending {
            Ok(Ending::Finished) => {
                let text = results.pop().and_then(|text| String::from_utf8(text).ok())?;
                return Some((results.pop()?, text));
            }
            Ok(Ending::Stopped) => {
                say!("profiler: interrupted again: writing without names");
                return None;
            }
            Ok(Ending::Crashed) => {
                say!("profiler: the symbolizer crashed; trying again without the file it was at");
                skip.insert(step?);
            }
            Err(error) => {
                say!("profiler: writing without names: {error:#}");
                return None;
            }
        }
    }
    say!("profiler: the symbolizer crashed {TRIES} times: writing without names");
    None
}

/// What the child does: everything that touches other people's files.
fn work(
    args: &RecordArgs,
    kernel: Kernel,
    recording: &mut Unsymbolized,
    objects: &Objects,
    summary: &Summary,
    skip: &BTreeSet<usize>,
    sender: &mut Sender,
) {
    // A panic on one name is caught; its frame says so.
    std::panic::set_hook(Box::new(|_| {}));
    let inlined = !args.no_inline;
    symbolize::symbolize(
        recording,
        objects,
        inlined,
        kernel,
        |step| skip.contains(&step),
        |done, total| sender.step(done, total),
    );
    let data = pprof::encode(&recording.profile);
    let naming = (usage::own_cpu_s(), usage::own_peak_bytes());
    let text = summary.text(&hottest(&recording.profile, 5), Some(naming));
    let text = text + &price_of_timeline(args, &mut recording.profile, data.len());
    sender.data(&data);
    sender.data(text.as_bytes());
}
