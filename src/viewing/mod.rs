//! Writers and readers of files: pprof, folded stacks, flamegraphs.
//!
//! [`reading`] reads a file, `open` applies the options that say what of it is shown, [`tree`] merges its stacks, and
//! every output is made of that tree; [`scale`] writes its values for people.

mod budget;
mod colors;
mod columns;
mod dropped;
pub mod file;
pub mod flamegraph;
mod focus;
pub mod folded;
pub mod frames;
mod idle;
mod merge;
pub mod names;
mod picture;
pub mod pprof;
pub mod reading;
pub mod scale;
mod scripts;
pub mod threads;
pub mod tree;
mod viewer;
mod values;

use anyhow::{Context, Result, bail};

use crate::cli::{Shown, ViewArgs};
use crate::model::profile::{Profile, ValueType};

/// A profile, and what of it is shown.
struct View {
    profile: Profile,
    /// The value.
    index: usize,
    /// The value that only samples of blocked time have, where those are shown.
    blocked: Option<usize>,
    /// Threads that are drawn narrow.
    idle: Option<idle::Idle>,
}

/// What the options name.
fn open(view: &ViewArgs) -> Result<View> {
    let mut profile = reading::read(&view.input)?;
    let off_cpu = profile.sample_type(Some("off_cpu"));
    let on = profile.sample_type(Some("cpu"));
    if let Some(off) = off_cpu
        && (on.is_some() || view.shown == Some(Shown::Wall))
        && profile.sample_type(Some("wall")).is_none()
    {
        profile.add_sample_type(ValueType::new("wall", "nanoseconds"), |values| {
            on.map_or(0, |on| values[on]).saturating_add(values[off])
        });
    }
    dropped::leave_out(&mut profile)
        .with_context(|| format!("failed to show the profile {}", view.input.display()))?;
    let index = values::choose(&profile, view)?;
    let name = view.input.display();
    let is_blocked = ["off_cpu", "wall"].contains(&&*profile.sample_types[index].name);
    if view.focus.is_some() || view.ignore.is_some() {
        focus::keep(&mut profile, view.focus.as_deref(), view.ignore.as_deref())?;
    }
    let blocked = off_cpu.filter(|_| is_blocked);
    let mut idle = None;
    match blocked {
        Some(blocked) if view.hide_idle => idle = Some(idle::fold(&mut profile, index, blocked)),
        None if view.hide_idle => bail!(
            "failed to hide idle threads in {name}: idle is who is blocked, and time on the CPU is shown; {}",
            match off_cpu {
                Some(_) => "use --type off-cpu or --type wall",
                None => "record with --off-cpu",
            }
        ),
        _ => {}
    }
    // After the choice of stacks, which may be by their names.
    if !view.native {
        scripts::hide_interpreters(&mut profile);
    }
    Ok(View { profile, index, blocked, idle })
}
