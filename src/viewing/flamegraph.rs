//! Flamegraphs: one file that is a picture, and opened in a browser a viewer.

use std::path::Path;

use anyhow::{Result, anyhow};
use inferno::flamegraph::color::Palette;

use super::columns::Opening;
use super::file::Pending;
use super::idle::Idle;
use super::names::FrameKind;
use super::picture::Picture;
use super::tree::{Shape, Tree};
use super::{View, columns, open_shown, scale, scripts, viewer};
use crate::cli::FlamegraphArgs;
use crate::model::profile::{Profile, ValueType};
use crate::text::{seconds, thousands};

const KIND_PALETTE: &str = "kind";

/// Draws the flamegraph of a profile and says on standard error what was written.
///
/// # Errors
/// If the palette is unknown, if the file cannot be read, has no samples or does not have the
/// value asked for, or if the image cannot be written. An older image then stays as it is.
pub fn run(args: &FlamegraphArgs) -> Result<()> {
    let palette = palette(&args.colors)?;
    let mut view = open_shown(&args.view)?;
    // After the choice of stacks, which may be by their names.
    if !args.native {
        scripts::hide_interpreters(&mut view.profile);
    }
    let (profile, index) = (&view.profile, view.index);
    let ty = &profile.sample_types[index];
    let sum = Sum::new(profile, index);
    let shape =
        Shape { tagroot: &args.view.tagroot, value: Some(index), reverse: args.reverse, ..Shape::default() };
    let tree = Tree::new(profile, &shape)?;
    let has = |kind| tree.frames().all.iter().any(|frame| frame.kind == kind);
    let on_cpu = view.blocked != Some(index);
    let in_legend = |kind| match kind {
        FrameKind::Process => true,
        FrameKind::Blocked | FrameKind::Runnable => view.blocked.is_some(),
        FrameKind::Waker => has(FrameKind::Waker),
        _ => on_cpu,
    };
    let picture = Picture {
        tree: &tree,
        value: index,
        unit: &unit_of(ty),
        title: args.title.clone().unwrap_or_else(|| title(profile, ty, args.inverted)),
        subtitle: args.subtitle.clone().unwrap_or_else(|| subtitle(&view, &sum, &args.view.select.input)),
        palette,
        in_legend: &in_legend,
    };
    let drawn = picture.draw(args)?;
    let written = if args.picture_only {
        drawn.svg
    } else {
        let opening = Opening {
            title: picture.title,
            about: picture.subtitle,
            value: index,
            group: &args.view.tagroot,
            inverted: args.inverted,
            reverse: args.reverse,
            comparison: None,
        };
        let data = columns::pack(profile, &Tree::new(profile, &Shape::default())?, &opening)?;
        viewer::into_file(&args.output, &drawn.svg, &opening.title, &data)
    };
    let mut file = Pending::create(&args.output)?;
    file.write_all(written.as_bytes())?;
    let name = file.name();
    file.commit()?;
    let frames = thousands(drawn.frames as i64);
    let left_out = match drawn.left_out {
        0 => String::new(),
        count => format!(", {} narrower ones left out: see --minwidth", thousands(count as i64)),
    };
    say!("wrote {name} ({frames} frames{left_out}, {})", sum.text(ty));
    Ok(())
}

/// The palette by name; none for our own.
fn palette(name: &str) -> Result<Option<Palette>> {
    if name == KIND_PALETTE {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|_| {
        let names = Palette::VARIANTS.join(", ");
        anyhow!("failed to find the palette '{name}': name one of {KIND_PALETTE}, {names} with --colors")
    })
}

/// The sum of all values: in a comparison, of what grew and of what shrank.
struct Sum {
    grew: i64,
    shrank: i64,
}

impl Sum {
    fn new(profile: &Profile, index: usize) -> Self {
        let mut sum = Self { grew: 0, shrank: 0 };
        for sample in profile.samples() {
            let value = sample.values[index];
            let side = if value < 0 { &mut sum.shrank } else { &mut sum.grew };
            // Both together have been found to have a sum.
            *side = side.saturating_add(value);
        }
        sum
    }

    fn text(&self, ty: &ValueType) -> String {
        if self.shrank == 0 {
            return amount(self.grew, ty);
        }
        let [more, less] = [self.grew, self.shrank].map(|it| scale::amount(it, &ty.unit));
        format!("{}: +{more} and {less}", amount(self.grew + self.shrank, ty))
    }
}

/// What stands behind a value in a tooltip.
fn unit_of(ty: &ValueType) -> String {
    if ty.unit.is_empty() || ty.unit == "count" { ty.name.clone() } else { ty.unit.clone() }
}

fn title(profile: &Profile, ty: &ValueType, inverted: bool) -> String {
    let of = match &*ty.name {
        "off_cpu" => "Off-CPU Time ",
        "wall" => "Wall-Clock Time ",
        "bpf_time" => "BPF Program Time ",
        "cpu" | "samples" if profile.period_type.name == "cpu" => "CPU ",
        _ => "",
    };
    format!("{of}{}", if inverted { "Icicle Graph" } else { "Flame Graph" })
}

/// How much, how long, and of which file.
fn subtitle(view: &View, sum: &Sum, input: &Path) -> String {
    let (profile, ty) = (&view.profile, &view.profile.sample_types[view.index]);
    let mut parts = vec![sum.text(ty)];
    if let Some(Idle { threads, sum }) = view.idle {
        parts.push(format!("{} of {} idle threads drawn narrow", seconds(sum), thousands(threads as i64)));
    }
    if profile.duration_ns > 0 {
        parts.push(format!("{} recorded", seconds(profile.duration_ns)));
    }
    parts.push(if input.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        input.file_name().unwrap_or(input.as_os_str()).to_string_lossy().into_owned()
    });
    parts.join(", ")
}

/// A total with its unit: `1,234 samples`, `12.3 s of cpu`, `1.5 MiB of inuse_space`.
fn amount(total: i64, ty: &ValueType) -> String {
    match ty.unit.as_str() {
        "count" | "" => format!("{} {}", thousands(total), ty.name),
        unit => format!("{} of {}", scale::amount(total, unit), ty.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_their_units() {
        let show = |total, name, unit| amount(total, &ValueType::new(name, unit));
        assert_eq!(show(1_234_567, "samples", "count"), "1,234,567 samples");
        assert_eq!(show(12_340_000_000, "cpu", "nanoseconds"), "12.34 s of cpu");
        assert_eq!(show(12_340_000, "cpu", "nanoseconds"), "12.340 ms of cpu");
        assert_eq!(show(3 << 19, "inuse_space", "bytes"), "1.50 MiB of inuse_space");
        assert_eq!(show(999, "alloc", "bytes"), "999 bytes of alloc");
        assert_eq!(show(1000, "x", "cycles"), "1,000 cycles of x");
    }

    #[test]
    fn titles_follow_the_profile_and_the_layout() {
        let (samples, cpu) = (ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds"));
        let mut profile = Profile::new(Vec::new());
        profile.period_type = cpu;
        assert_eq!(title(&profile, &samples, false), "CPU Flame Graph");
        assert_eq!(title(&profile, &samples, true), "CPU Icicle Graph");
        assert_eq!(title(&Profile::default(), &samples, false), "Flame Graph");
        assert_eq!(
            title(&profile, &ValueType::new("off_cpu", "nanoseconds"), true),
            "Off-CPU Time Icicle Graph"
        );
    }

    #[test]
    fn palettes_are_infernos_and_ours() {
        assert!(palette("kind").unwrap().is_none());
        for name in Palette::VARIANTS {
            assert!(palette(name).unwrap().is_some());
        }
        let message = palette("pink").unwrap_err().to_string();
        assert!(message.contains("kind, aqua") && message.contains("yellow"), "{message}");
    }
}
