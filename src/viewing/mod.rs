//! Writers and readers of files: pprof, folded stacks, flamegraphs.
//!
//! [`reading`] reads a file, `open` applies the options that say what of it is shown, [`tree`] merges its stacks, and
//! every output is made of that tree; [`scale`] writes its values for people.

mod budget;
mod colors;
mod columns;
pub mod convert;
pub mod diff;
mod differential;
mod disassembly;
mod dropped;
mod explore;
pub mod file;
pub mod flamegraph;
mod focus;
pub mod folded;
pub mod frames;
mod idle;
pub mod merge;
pub mod moments;
pub mod names;
mod picture;
pub mod pprof;
pub mod reading;
pub mod scale;
mod scripts;
pub mod source;
mod statistics;
pub mod threads;
pub mod top;
mod totals;
pub mod tree;
mod values;
mod viewer;

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cli::{ChosenArgs, PartArgs, SelectArgs, Shown, ViewArgs};
use crate::model::profile::{Profile, ValueType};

/// A profile, and what of it is shown.
struct View {
    profile: Profile,
    /// The value.
    index: usize,
    /// What shares are of: the value of all samples, each without its sign.
    whole: i64,
    /// The value that only samples of blocked time have, where those are shown.
    blocked: Option<usize>,
    /// Threads that are drawn narrow.
    idle: Option<idle::Idle>,
}

/// What the options name.
fn open(select: &SelectArgs) -> Result<View> {
    let (mut profile, mut timeless) = read_part(select)?;
    let off_cpu = profile.sample_type(Some("off_cpu"));
    let on = profile.sample_type(Some("cpu"));
    if let Some(off) = off_cpu
        && (on.is_some() || select.chosen.shown == Some(Shown::Wall))
        && profile.sample_type(Some("wall")).is_none()
    {
        profile.add_sample_type(ValueType::new("wall", "nanoseconds"), |values| {
            on.map_or(0, |on| values[on]).saturating_add(values[off])
        });
        if let Some(timeless) = &mut timeless {
            timeless.push(on.map_or(0, |on| timeless[on]).saturating_add(timeless[off]));
        }
    }
    dropped::leave_out(&mut profile, &select.input);
    let index = values::choose(&profile, select)?;
    if let Some(timeless) = timeless {
        moments::say_what_is_timeless(&profile, index, &timeless);
    }
    let is_blocked = ["off_cpu", "wall"].contains(&&*profile.sample_types[index].name);
    choose_stacks(&mut profile, select)?;
    let whole = whole(&profile, index, &select.input)?;
    Ok(View { profile, index, whole, blocked: off_cpu.filter(|_| is_blocked), idle: None })
}

/// What shares of a value are of.
///
/// # Errors
/// If it is more than a number has room for.
fn whole(profile: &Profile, index: usize, input: &Path) -> Result<i64> {
    profile.size(index).with_context(|| {
        format!("failed to add up the values in {}: the sum exceeds 2^63; make it again", input.display())
    })
}

/// Reads the part of a recording, or of a directory of them, that the options name; returns what of each value has no
/// moment, and so is in no part.
fn read_part(select: &SelectArgs) -> Result<(Profile, Option<Vec<i64>>)> {
    let PartArgs { from, to } = select.part;
    let part = [from, to];
    let is_part = part.iter().any(Option::is_some);
    let failed = || format!("failed to show a part of {}", select.input.display());
    if is_part && select.input.is_dir() {
        let sum = reading::directory::read(&select.input, part).with_context(failed)?;
        return Ok((sum.profile, Some(sum.timeless)));
    }
    let mut profile = reading::read(&select.input)?;
    if !is_part {
        return Ok((profile, None));
    }
    let timeless = moments::keep(&mut profile, part).with_context(failed)?;
    Ok((profile, Some(timeless)))
}

/// Keeps the stacks that the options name.
fn choose_stacks(profile: &mut Profile, select: &SelectArgs) -> Result<()> {
    let ChosenArgs { focus, ignore, .. } = &select.chosen;
    if focus.is_some() || ignore.is_some() {
        focus::keep(profile, focus.as_deref(), ignore.as_deref())?;
    }
    Ok(())
}

/// What the options name, with idle threads as they say.
fn open_shown(args: &ViewArgs) -> Result<View> {
    let mut view = open(&args.select)?;
    let name = args.select.input.display();
    match view.blocked {
        Some(blocked) if args.hide_idle => {
            view.idle = Some(idle::fold(&mut view.profile, view.index, blocked));
        }
        None if args.hide_idle => bail!(
            "failed to hide idle threads in {name}: idle is who is blocked, and time on the CPU is shown; {}",
            match view.profile.sample_type(Some("off_cpu")) {
                Some(_) => "use --type off-cpu or --type wall",
                None => "record with --off-cpu",
            }
        ),
        _ => {}
    }
    Ok(view)
}
