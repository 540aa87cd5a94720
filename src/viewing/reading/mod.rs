//! Files of profiles, whoever wrote them, as a [`Profile`].
//!
//! What a file is says its content, never its name. pprof is read whole; folded stacks, the text of
//! `perf script`, and the JSON of speedscope, of the Firefox Profiler and of Chrome are read for their
//! stacks, names, lines and values. Anything else that people hand to a viewer is refused by its name
//! and with what to do: see `formats.rs`.
//!
//! A directory of recordings is read as one of them: see [`directory`].
//!
//! Nothing is believed: what is kept is charged to a budget, and JSON is parsed into
//! the types that its fields have, so that memory stays in proportion to the file.

mod chrome;
pub mod directory;
mod firefox;
mod folded;
mod foreign;
mod formats;
mod json;
mod load;
mod perf_script;
mod several;
mod speedscope;
mod stacks;
mod text;

use std::path::Path;

use anyhow::{Context, Result, bail};

use self::formats::Format;
use self::load::Loaded;
use super::pprof;
use crate::model::profile::Profile;

/// Reads a file of a kind that is known, gzipped or not, or a directory of recordings; `-` is standard input.
///
/// # Errors
/// If the file cannot be read, is of no kind that is known, is damaged, or takes more memory than any
/// real profile.
pub fn read(path: &Path) -> Result<Profile> {
    let is_stdin = path.as_os_str() == "-";
    if !is_stdin && path.is_dir() {
        let sum = directory::read(path, [None, None]);
        return sum
            .map(|sum| sum.profile)
            .with_context(|| format!("failed to read the profiles in {}", path.display()));
    }
    let name = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    let loaded = if is_stdin { load::stdin() } else { load::file(path) };
    loaded.and_then(|loaded| whole(loaded, &name)).with_context(|| {
        if is_stdin {
            "failed to read a profile from standard input".to_owned()
        } else {
            format!("failed to read the profile {name}")
        }
    })
}

fn whole(mut loaded: Loaded, name: &str) -> Result<Profile> {
    several::separate(&mut loaded);
    let mut notes = Vec::new();
    let error = match parse_noting(&loaded.data, &mut notes) {
        Ok(profile) => {
            for note in notes {
                say!("profiler: {name}: {note}");
            }
            return Ok(profile);
        }
        Err(error) => error,
    };
    let Some((profile, count)) = several::parse(&loaded)? else { return Err(error) };
    say!("profiler: {name} holds several profiles: its {count} are added up");
    Ok(profile)
}

/// The profile in the bytes of one file, unpacked.
///
/// # Errors
/// As [`read`].
pub fn parse(data: &[u8]) -> Result<Profile> {
    parse_noting(data, &mut Vec::new())
}

/// `notes` get what of the file is left out.
fn parse_noting(data: &[u8], notes: &mut Vec<String>) -> Result<Profile> {
    let data = &*text::decoded(data);
    let text = || String::from_utf8_lossy(data);
    let json = || json::text(data);
    match formats::recognise(data) {
        Format::Pprof => pprof::parse(data),
        Format::Folded => folded::parse(&text()),
        Format::PerfScript => perf_script::parse(&text(), notes),
        Format::Speedscope => speedscope::parse(&json()?).context("it is a speedscope file"),
        Format::Firefox => firefox::parse(&json()?).context("it is a file of the Firefox Profiler"),
        Format::Chrome => chrome::parse(&json()?).context("it is a CPU profile of Chrome or Node.js"),
        Format::Foreign(what) => bail!("it is {what}"),
    }
}
