//! `profiler convert`: a profile for other viewers.
//!
//! What their formats have no place for is left out, and what they want and a profile has not, such as the
//! moment of each sample, is made up in a way that changes no sum: each module says how.

mod firefox;
mod perf_script;
mod speedscope;

use anyhow::{Result, bail};

use super::file::Pending;
use super::{View, folded, moments, open};
use crate::cli::{ConvertArgs, Target};

/// Writes a profile in another format.
///
/// # Errors
/// If the file cannot be read, has no samples or does not have the value asked for; if the format has no
/// place for what is in it; or if the result cannot be written. An older file then stays as it is.
pub fn run(args: &ConvertArgs) -> Result<()> {
    if args.to == Target::Pprof {
        return pprof(args);
    }
    let view = open(&args.select())?;
    let negative = view.profile.samples().iter().any(|sample| sample.values[view.index] < 0);
    if negative && args.to != Target::Folded {
        bail!(
            "failed to convert {}: values of a comparison are negative, and other viewers have no place for \
             them; convert it --to folded or pprof",
            args.input.display()
        );
    }
    let mut file = Pending::create(&args.output)?;
    match args.to {
        Target::Folded => file.write_all(&folded::marked(&view.profile, view.index)?)?,
        Target::Speedscope => file.write_all(&speedscope::json(&view, &title(&view, args))?)?,
        Target::Firefox => file.write_all(&firefox::json(&view, &title(&view, args))?)?,
        Target::PerfScript => perf_script::write(&view, |text| file.write_all(text))?,
        // All values go there, and it has been written.
        Target::Pprof => {}
    }
    file.commit()
}

/// What pprof has a place for: everything.
fn pprof(args: &ConvertArgs) -> Result<()> {
    let (mut profile, timeless) = super::read_part(&args.select())?;
    if let (Some(timeless), Some(index)) = (timeless, profile.sample_type(None)) {
        moments::say_what_is_timeless(&profile, index, &timeless);
    }
    super::choose_stacks(&mut profile, &args.select())?;
    let mut file = Pending::create(&args.output)?;
    file.write_all(&super::pprof::encode(&profile))?;
    file.commit()
}

/// What viewers call the profile.
fn title(view: &View, args: &ConvertArgs) -> String {
    let of = &view.profile.sample_types[view.index].name;
    let input = &args.input;
    let name = input.file_name().filter(|_| input.as_os_str() != "-");
    name.map_or_else(|| of.clone(), |name| format!("{} ({of})", name.to_string_lossy()))
}
