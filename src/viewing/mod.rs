//! Writers and readers of files: pprof, folded stacks, flamegraphs.
//!
//! [`pprof`] reads a file, `open` applies the options that say what of it is shown, [`tree`] merges its stacks, and
//! every output is made of that tree; [`scale`] writes its values for people.

mod colors;
mod columns;
pub mod file;
pub mod flamegraph;
mod focus;
pub mod folded;
pub mod frames;
mod idle;
pub mod names;
mod picture;
pub mod pprof;
pub mod scale;
mod scripts;
pub mod threads;
pub mod tree;
mod viewer;

use anyhow::{Result, bail};

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
    let mut profile = pprof::read(&view.input)?;
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
    let names: Vec<_> = profile.sample_types.iter().map(|ty| ty.name.as_str()).collect();
    let name = view.input.display();
    let wanted = view.shown.map(Shown::name).or(view.sample_index.as_deref());
    let index = match wanted {
        // Stacks weighted by samples are what flamegraphs are known for, whatever the default of
        // the file, which is made for tables.
        None => profile.sample_type(Some("samples")).or_else(|| profile.sample_type(None)),
        Some(wanted) => match profile.sample_type(Some(wanted)) {
            None => bail!(
                "failed to find the value '{wanted}' in {name}: it has {}; name one of them with \
                 --sample-index, or record with --off-cpu or without --no-bpf-stats",
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ),
            found => found,
        },
    };
    let Some(index) = index.filter(|_| !profile.samples().is_empty()) else {
        bail!(
            "failed to find samples in {name}: the profile is empty; record longer, or while the \
             program uses CPU"
        );
    };
    if profile.samples().iter().all(|sample| sample.values[index] == 0) {
        bail!(
            "failed to find samples in {name}: every value of '{}' is 0; name one of {} with \
             --sample-index",
            names[index],
            names.join(", ")
        );
    }
    let is_blocked = ["off_cpu", "wall"].contains(&names[index]);
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
