//! The flamegraph as a picture: what an `<img>`, a forge's README, paper and a browser without scripts show. Drawn by
//! inferno, to which this module adds colours by kind of frame, their legend, units, and what was left out.
//!
//! A picture of all frames of a large profile is useless to people and to browsers. So what is narrower than
//! asked for is not drawn; its siblings that are not drawn either become one grey frame that tells their number.

use std::collections::HashMap;

use anyhow::{Context, Result};
use inferno::flamegraph::color::{BackgroundColor, Color, Palette, PaletteMap};
use inferno::flamegraph::{Direction, Options, TextTruncateDirection, from_lines};

use super::folded::annotation;
use super::names::{FrameKind, escape};
use super::tree::{ROOT, Tree};
use super::{colors, scale};
use crate::cli::{FlamegraphArgs, MinWidth};
use crate::text::thousands;

/// Width for which pixels count when the image is as wide as its window: inferno's initial one.
const FLUID_WIDTH: u32 = 1200;
/// What inferno leaves free on both sides together.
const PADDING: u32 = 20;
/// Deepest frame that is drawn. A picture of all frames of an endless recursion is a million pixels high.
const MAX_DEPTH: u32 = 1000;
/// Most bytes of a name: a picture holds it once for each of its frames.
const MAX_NAME: usize = 1000;

/// What is drawn, and the words around it.
pub(super) struct Picture<'a> {
    pub(super) tree: &'a Tree<'a>,
    /// The value, and its unit.
    pub(super) value: usize,
    pub(super) unit: &'a str,
    pub(super) title: String,
    pub(super) subtitle: String,
    /// None for our own.
    pub(super) palette: Option<Palette>,
    /// Kinds that the legend has.
    pub(super) in_legend: &'a dyn Fn(FrameKind) -> bool,
}

/// A picture, and how many frames it shows and leaves out.
pub(super) struct Drawn {
    pub(super) svg: String,
    pub(super) frames: usize,
    pub(super) left_out: usize,
}

impl Picture<'_> {
    pub(super) fn draw(&self, args: &FlamegraphArgs) -> Result<Drawn> {
        let mark = match self.palette {
            None => inner_mark,
            Some(Palette::Multi(_)) => annotation,
            // These colour by the whole text if at all.
            Some(Palette::Basic(_)) => |_| "",
        };
        let frames = &self.tree.frames().all;
        let names: Vec<_> = frames.iter().map(|frame| text(&frame.name, mark(frame.kind))).collect();
        let min_width = match args.minwidth {
            MinWidth::Percent(percent) => percent,
            MinWidth::Pixels(pixels) => {
                100.0 * pixels / f64::from(args.width.unwrap_or(FLUID_WIDTH) - PADDING)
            }
        };
        let lines = Lines::new(self.tree, self.value, min_width, &names);
        let mut by_kind = PaletteMap::default();
        let mut options = Options::default();
        let insert = |map: &mut PaletteMap, name: &str, [r, g, b]: colors::Rgb| {
            map.insert(name, Color { r, g, b });
        };
        if let Some(palette) = self.palette {
            options.colors = palette;
        } else {
            insert(&mut by_kind, "", colors::ROOT);
            for (name, frame) in names.iter().zip(&self.tree.frames().all) {
                insert(&mut by_kind, name, colors::color(&frame.name, frame.kind));
            }
            options.bgcolors = Some(BackgroundColor::Grey);
        }
        for name in &lines.groups {
            insert(&mut by_kind, name, colors::LEFT_OUT);
        }
        if self.palette.is_none() {
            options.palette_map = Some(&mut by_kind);
        }
        options.min_width = min_width;
        options.image_width = args.width.map(|width| width as usize);
        // As wide as browsers' monospace fonts are; inferno's 0.59 lets text run out of its frame.
        options.font_width = 0.61;
        options.text_truncate_direction = TextTruncateDirection::Right;
        options.frame_height = args.height as usize;
        options.hash = args.hash;
        options.deterministic = args.deterministic;
        options.no_javascript = true;
        if args.inverted {
            options.direction = Direction::Inverted;
        }
        options.title = plain(&self.title);
        options.subtitle = Some(plain(&self.subtitle));
        options.count_name = args.countname.as_deref().map_or_else(|| UNSCALED.to_owned(), plain);
        // It goes into a comment, which may not hold two hyphens in a row nor end with one.
        options.notes = plain(args.notes.as_deref().unwrap_or_default()).replace('-', "- ");

        let mut svg = Vec::new();
        from_lines(&mut options, lines.text.iter().map(String::as_str), &mut svg)
            .context("failed to draw the flamegraph")?;
        let svg = String::from_utf8(svg).context("failed to draw the flamegraph")?;
        let svg = scaled(&without_script(svg), self.unit);
        let svg = if self.palette.is_none() { with_legend(svg, self.in_legend) } else { svg };
        Ok(Drawn { frames: svg.matches("<title>").count(), left_out: lines.left_out, svg })
    }
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

/// What inferno gets for a name.
fn text(name: &str, mark: &str) -> String {
    let mut name = escape(name);
    if name.len() > MAX_NAME {
        let end = (0..=MAX_NAME).rfind(|&at| name.is_char_boundary(at)).unwrap_or(0);
        name.truncate(end);
        name.push('…');
    }
    // It takes one mark off the end, which the function itself may be called.
    let looks_marked = ["_[k]", "_[w]", "_[i]", "_[j]"].iter().any(|end| name.ends_with(end));
    name + if mark.is_empty() && looks_marked { "_[i]" } else { mark }
}

/// What is not drawn below a frame, or below others of its kind.
#[derive(Clone, Copy, Default)]
struct LeftOut {
    frames: u32,
    width: i64,
}

/// The lines that inferno reads.
struct Lines {
    text: Vec<String>,
    /// Names of the frames that stand for those left out.
    groups: Vec<String>,
    left_out: usize,
}

impl Lines {
    fn new(tree: &Tree<'_>, value: usize, min_width: f64, names: &[String]) -> Self {
        // What shrank in a comparison is as wide as what grew by as much.
        let own: Vec<_> = tree.own(value).into_iter().map(i64::saturating_abs).collect();
        let widths = tree.add_up(own.clone());
        let least = widths[ROOT as usize] as f64 * min_width / 100.0;
        let mut depths = vec![0_u32; tree.len()];
        let mut is_drawn = vec![true; tree.len()];
        let mut below: HashMap<u32, LeftOut> = HashMap::new();
        let mut left_out = 0;
        for node in 1..tree.len() {
            let parent = tree.parent(node as u32);
            depths[node] = depths[parent as usize] + 1;
            let is_wide = widths[node] > 0 && widths[node] as f64 >= least && depths[node] <= MAX_DEPTH;
            is_drawn[node] = is_wide && is_drawn[parent as usize];
            if is_drawn[node] || widths[node] == 0 {
                continue;
            }
            left_out += 1;
            if is_drawn[parent as usize] {
                let group = below.entry(parent).or_default();
                group.frames += 1;
                group.width = group.width.saturating_add(widths[node]);
            }
        }
        let children = tree.children(|node| is_drawn[node as usize]);
        let mut lines = Self { text: Vec::new(), groups: Vec::new(), left_out };
        let mut to_do: Vec<_> = children.of(ROOT).to_vec();
        // The text of the path down to a node, and where it ends for each node on it.
        let (mut path, mut ends) = (String::new(), vec![(ROOT, 0)]);
        lines.add_group("", below.get(&ROOT), depths[ROOT as usize], min_width);
        while let Some(node) = to_do.pop() {
            let parent = tree.parent(node);
            while let Some(&(at, end)) = ends.last() {
                if at == parent {
                    path.truncate(end);
                    break;
                }
                ends.pop();
            }
            if !path.is_empty() {
                path.push(';');
            }
            path.push_str(&names[tree.frame_index(node) as usize]);
            ends.push((node, path.len()));
            if own[node as usize] > 0 {
                lines.text.push(format!("{path} {}", own[node as usize]));
            }
            lines.add_group(&path, below.get(&node), depths[node as usize], min_width);
            to_do.extend_from_slice(children.of(node));
        }
        lines
    }

    fn add_group(&mut self, path: &str, group: Option<&LeftOut>, depth: u32, min_width: f64) {
        let Some(LeftOut { frames, width }) = group else { return };
        let s = if *frames == 1 { "" } else { "s" };
        let why =
            if depth >= MAX_DEPTH { "and their callees".to_owned() } else { format!("below {min_width} %") };
        let name = format!("[{} function{s} {why}]", thousands(*frames));
        let separator = if path.is_empty() { "" } else { ";" };
        self.text.push(format!("{path}{separator}{name} {width}"));
        self.groups.push(name);
    }
}

/// What inferno calls a value until [`scaled`] finds it.
const UNSCALED: &str = "\u{e000}";

/// Gives every value in the tooltips the unit that suits it.
fn scaled(svg: &str, unit: &str) -> String {
    let mark = format!(" {UNSCALED}, ");
    let mut text = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some(at) = rest.find(&mark) {
        let (head, tail) = rest.split_at(at);
        // A name may hold the mark, but not behind a bracket and a number.
        let number = head.rsplit('(').next().unwrap_or_default();
        match number.replace(',', "").parse() {
            Ok(value) => {
                text.push_str(&head[..head.len() - number.len()]);
                text.push_str(&scale::amount(value, unit));
                text.push_str(", ");
            }
            Err(_) => text.push_str(&rest[..at + mark.len()]),
        }
        rest = &tail[mark.len()..];
    }
    text + rest
}

/// Without the script that is nearly empty, what it was called by, and what it would have moved.
pub(super) fn without_script(svg: String) -> String {
    let mut svg = svg.replacen(r#" onload="init(evt)""#, "", 1);
    for (from, to) in [
        (r#"<script type="text/ecmascript">"#, "</script>"),
        (r#"<text id="unzoom""#, "</text>"),
        (r#"<text id="search""#, "</text>"),
        (r#"<text id="matched""#, "</text>"),
    ] {
        if let Some(start) = svg.find(from)
            && let Some(length) = svg[start..].find(to)
        {
            svg.replace_range(start..start + length + to.len(), "");
        }
    }
    svg
}

/// Puts the legend below the subtitle, for which the lines above move up. If a later inferno draws
/// them elsewhere, the picture stays as it is.
fn with_legend(svg: String, shown: &dyn Fn(FrameKind) -> bool) -> String {
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

/// Text without the characters that XML cannot hold.
fn plain(text: &str) -> String {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if allowed(c) { c } else { ' ' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_finds_its_place_in_infernos_picture() {
        for direction in [Direction::Straight, Direction::Inverted] {
            let mut options = Options::default();
            options.subtitle = Some("about".to_owned());
            options.direction = direction;
            options.no_javascript = true;
            let mut svg = Vec::new();
            from_lines(&mut options, ["main;leaf 1"], &mut svg).unwrap();
            let svg = with_legend(String::from_utf8(svg).unwrap(), &|_| true);
            assert!(svg.contains(r##"<svg id="legend""##));
            assert!(svg.contains(r##"id="title" fill="rgb(0,0,0)" x="50.0000%" y="20.00">"##));
            let svg = without_script(svg);
            for gone in ["<script", "init(evt)", ">Search<", "Reset Zoom"] {
                assert!(!svg.contains(gone), "{gone} is in the picture");
            }
        }
    }

    #[test]
    fn tooltips_are_scaled() {
        let title = format!("<title>f(x) (1,500,000,000 {UNSCALED}, 5.00%)</title>");
        assert_eq!(scaled(&title, "nanoseconds"), "<title>f(x) (1.50 s, 5.00%)</title>");
        let odd = format!("<title>f {UNSCALED}, (2 {UNSCALED}, 5.00%)</title>");
        assert_eq!(scaled(&odd, "count"), format!("<title>f {UNSCALED}, (2, 5.00%)</title>"));
    }
}
