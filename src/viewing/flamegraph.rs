//! Flamegraphs: one SVG file that opens from disk, with zoom and search. Drawn by inferno, to
//! which this module adds colours by kind of frame, their legend, and words about the profile.

use anyhow::{Context, Result, anyhow, bail, ensure};
use inferno::flamegraph::color::{BackgroundColor, Palette, PaletteMap};
use inferno::flamegraph::{Direction, Options, TextTruncateDirection, from_lines};

use super::file::Pending;
use super::folded::annotation;
use super::frames::{self, Folded};
use super::names::FrameKind;
use super::{View, colors, open};
use crate::cli::{FlamegraphArgs, MinWidth};
use crate::model::profile::{Profile, ValueType};
use crate::text::{bytes, seconds, thousands};

/// Most bytes of text to draw. A browser gives up long before.
const MAX_TEXT: usize = 1 << 30;
/// Bytes of a sum behind its stack: a space and up to 19 digits.
const MAX_DIGITS: usize = 20;
/// Width for which pixels count when the image is as wide as its window: inferno's initial one.
const FLUID_WIDTH: u32 = 1200;
/// What inferno leaves free on both sides together.
const PADDING: u32 = 20;
const KIND_PALETTE: &str = "kind";

/// Draws the flamegraph of a profile and says on standard error what was written.
///
/// # Errors
/// If the palette is unknown, if the file cannot be read, has no samples or does not have the
/// value asked for, or if the image cannot be written. An older image then stays as it is.
pub fn run(args: &FlamegraphArgs) -> Result<()> {
    let palette = palette(&args.colors)?;
    let view = open(&args.view)?;
    let (profile, index) = (&view.profile, view.index);
    let mark = match palette {
        None => inner_mark,
        Some(Palette::Multi(_)) => annotation,
        // These colour by the whole text if at all.
        Some(Palette::Basic(_)) => |_| "",
    };
    let folded = frames::fold(profile, index, view.blocked, &args.view.tagroot, mark)?;
    let (lines, total) = lines(&folded, &args.view.input.display().to_string())?;
    let svg = draw(args, &view, palette, &folded, &lines, total)?;
    let drawn = svg.matches("<title>").count();
    let mut file = Pending::create(&args.output)?;
    file.write_all(svg.as_bytes())?;
    let name = file.name();
    file.commit()?;
    let ty = &profile.sample_types[index];
    say!("wrote {name} ({} frames, {})", thousands(drawn as i64), amount(total, ty));
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

/// Tells kinds apart that may have frames of the same name: inferno keeps such frames apart, looks
/// up their colours with the mark, and shows them without it. It knows four marks. Unresolved
/// frames and BPF programs need none, as no function is called like them.
fn inner_mark(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Process | FrameKind::Blocked => "_[w]",
        FrameKind::Waker => "_[j]",
        kind => annotation(kind),
    }
}

/// The lines to draw, and the sum of their values. Negative ones, as comparisons have, have no
/// width and are left out.
fn lines(folded: &Folded, input: &str) -> Result<(Vec<String>, i64)> {
    let (mut lines, mut size, mut total, mut left_out) = (Vec::new(), 0, 0_i64, 0);
    let mut frames: Vec<&str> = Vec::new();
    for (names, sum) in folded.lines() {
        if sum < 0 {
            left_out += 1;
            continue;
        }
        total = total.checked_add(sum).ok_or_else(|| {
            anyhow!("failed to add up the values in {input}: the sum exceeds 2^63; make it again")
        })?;
        frames.clear();
        frames.extend(names);
        let length = frames.iter().map(|name| name.len() + 1).sum::<usize>();
        size += length;
        ensure!(
            size <= MAX_TEXT,
            "failed to draw {input}: its stacks are more than {} MiB of text; record for a \
             shorter time",
            MAX_TEXT >> 20
        );
        let mut line = String::with_capacity(length + MAX_DIGITS);
        for name in &frames {
            if !line.is_empty() {
                line.push(';');
            }
            line.push_str(name);
        }
        line.push_str(&format!(" {sum}"));
        lines.push(line);
    }
    if lines.is_empty() {
        bail!("failed to draw {input}: all its values are negative; see `profiler folded`");
    }
    if left_out > 0 {
        say!("profiler: warning: {left_out} stacks with negative values are not drawn");
    }
    Ok((lines, total))
}

fn draw(
    args: &FlamegraphArgs,
    view: &View,
    palette: Option<Palette>,
    folded: &Folded,
    lines: &[String],
    total: i64,
) -> Result<String> {
    let View { profile, index, blocked } = view;
    let ty = &profile.sample_types[*index];
    let mut by_kind = PaletteMap::default();
    let mut options = Options::default();
    if let Some(palette) = palette {
        options.colors = palette;
    } else {
        let insert = |map: &mut PaletteMap, name: &str, [r, g, b]: colors::Rgb| {
            map.insert(name, inferno::flamegraph::color::Color { r, g, b });
        };
        insert(&mut by_kind, "", colors::ROOT);
        for (name, kind) in folded.kinds() {
            insert(&mut by_kind, name, colors::color(name, kind));
        }
        options.palette_map = Some(&mut by_kind);
        options.bgcolors = Some(BackgroundColor::Grey);
    }
    let width = args.width.unwrap_or(FLUID_WIDTH);
    options.min_width = match args.minwidth {
        MinWidth::Percent(percent) => percent,
        MinWidth::Pixels(pixels) => 100.0 * pixels / f64::from(width - PADDING),
    };
    options.image_width = args.width.map(|width| width as usize);
    // As wide as browsers' monospace fonts are; inferno's 0.59 lets text run out of its frame.
    options.font_width = 0.61;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.frame_height = args.height as usize;
    options.hash = args.hash;
    options.deterministic = args.deterministic;
    options.reverse_stack_order = args.reverse;
    if args.inverted {
        options.direction = Direction::Inverted;
    }
    options.title = plain(&args.title.clone().unwrap_or_else(|| title(profile, ty, args.inverted)));
    let about = || subtitle(profile, ty, total, &args.view.input);
    options.subtitle = Some(plain(&args.subtitle.clone().unwrap_or_else(about)));
    let unit = if ty.unit.is_empty() || ty.unit == "count" { &ty.name } else { &ty.unit };
    options.count_name = plain(args.countname.as_ref().unwrap_or(unit));
    if blocked.is_some() {
        // As in all off-CPU flamegraphs.
        options.factor = 1e-3;
        options.count_name = plain(args.countname.as_deref().unwrap_or("us"));
    }
    // It goes into a comment, which may not hold two hyphens in a row nor end with one.
    options.notes = plain(args.notes.as_deref().unwrap_or_default()).replace('-', "- ");

    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .context("failed to draw the flamegraph")?;
    let svg = String::from_utf8(svg).context("failed to draw the flamegraph")?;
    let on_cpu = blocked.is_none_or(|at| at != *index);
    let in_legend = |kind| match kind {
        FrameKind::Process => true,
        FrameKind::Blocked | FrameKind::Runnable => blocked.is_some(),
        FrameKind::Waker => folded.kinds().any(|(_, kind)| kind == FrameKind::Waker),
        _ => on_cpu,
    };
    Ok(if palette.is_none() { with_legend(svg, in_legend) } else { svg })
}

/// Puts the legend below the subtitle, for which the lines above move up. If a later inferno draws
/// them elsewhere, the picture stays as it is.
fn with_legend(svg: String, shown: impl Fn(FrameKind) -> bool) -> String {
    const TITLE: (&str, &str) = (r##" x="50.0000%" y="24.00">"##, r##" x="50.0000%" y="20.00">"##);
    const SUBTITLE: (&str, &str) = (
        r##"<text id="subtitle" x="50.0000%" y="48.00">"##,
        r##"<text id="subtitle" x="50.0000%" y="36.00">"##,
    );
    let Some(at) = svg.find(SUBTITLE.0) else { return svg };
    let (head, tail) = svg.split_at(at);
    let head = head.replacen(TITLE.0, TITLE.1, 1);
    format!("{head}{}{}", colors::legend(52, shown), tail.replacen(SUBTITLE.0, SUBTITLE.1, 1))
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
fn subtitle(profile: &Profile, ty: &ValueType, total: i64, input: &std::path::Path) -> String {
    let mut parts = vec![amount(total, ty)];
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
        "nanoseconds" => format!("{} of {}", seconds(total), ty.name),
        "bytes" => format!("{} of {}", bytes(total), ty.name),
        "count" | "" => format!("{} {}", thousands(total), ty.name),
        unit => format!("{} {unit} of {}", thousands(total), ty.name),
    }
}

/// Text without the characters that XML cannot hold.
fn plain(text: &str) -> String {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if allowed(c) { c } else { ' ' }).collect()
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
    fn the_legend_finds_its_place_in_infernos_picture() {
        for direction in [Direction::Straight, Direction::Inverted] {
            let mut options = Options::default();
            options.subtitle = Some("about".to_owned());
            options.direction = direction;
            let mut svg = Vec::new();
            from_lines(&mut options, ["main;leaf 1"], &mut svg).unwrap();
            let svg = with_legend(String::from_utf8(svg).unwrap(), |_| true);
            assert!(svg.contains(r##"<svg id="legend""##));
            assert!(svg.contains(r##"id="title" fill="rgb(0,0,0)" x="50.0000%" y="20.00">"##));
        }
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
