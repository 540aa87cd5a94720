//! A comparison as a flamegraph. The picture is inferno's: frames are as wide as after, red where they take more of the
//! whole than before, and blue where they take less; what vanished has no width. The viewer behind it has both, with
//! frames as wide as before and after together.

use std::path::Path;

use anyhow::{Context, Result};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::View;
use super::columns::{self, Comparison, Opening};
use super::merge::Merger;
use super::names::escape;
use super::picture::without_script;
use super::tree::{ROOT, Shape, Tree};
use super::viewer;
use crate::model::profile::{Profile, ValueType};

/// Deepest frame that is drawn: what is called beyond it counts for it.
const MAX_DEPTH: usize = 1000;
/// Values of what is compared: before and after together, and each. They are as they were measured; the viewer, too,
/// multiplies those before.
pub(super) const BOTH: usize = 0;
const BEFORE: usize = 1;
pub(super) const AFTER: usize = 2;

/// The file, a picture with the viewer or a page of HTML as `output` is called.
pub(super) fn draw(
    before: &View,
    after: &View,
    kind: Comparison,
    about: &str,
    output: &Path,
) -> Result<String> {
    let mut merger = Merger::default();
    merger.add(&compared(before, BEFORE))?;
    merger.add(&compared(after, AFTER))?;
    let both = merger.finish();
    let comm = ["comm".to_owned()];
    let picture = picture(&both, &comm, kind.factor, about)?;
    let opening = Opening {
        title: "Differential Flame Graph".to_owned(),
        about: about.to_owned(),
        value: BOTH,
        group: &comm,
        inverted: false,
        reverse: false,
        comparison: Some(kind),
    };
    let data = columns::pack(&both, &Tree::new(&both, &Shape::default())?, &opening)?;
    Ok(viewer::into_file(output, &picture, &opening.title, &data))
}

fn picture(both: &Profile, tagroot: &[String], factor: f64, subtitle: &str) -> Result<String> {
    let tree = Tree::new(both, &Shape { tagroot, ..Shape::default() })?;
    let (old, new) = (tree.own(BEFORE), tree.own(AFTER));
    let names: Vec<String> = tree.frames().all.iter().map(|frame| escape(&frame.name)).collect();
    let mut lines = Vec::new();
    // Each is rounded with the remainder of those before it, so that the sum is right.
    let (mut before, mut given) = (0.0, 0);
    for node in 1..tree.len() as u32 {
        let (old, new) = (old[node as usize], new[node as usize]);
        before += old as f64 * factor;
        let old = (before.round() as i64).saturating_sub(given);
        given += old;
        if old <= 0 && new <= 0 {
            continue;
        }
        let mut path = Vec::new();
        let mut at = node;
        while at != ROOT {
            path.push(&*names[tree.frame_index(at) as usize]);
            at = tree.parent(at);
        }
        path.reverse();
        path.truncate(MAX_DEPTH);
        lines.push(format!("{} {old} {new}", path.join(";")));
    }
    // inferno wants equal beginnings side by side.
    lines.sort_unstable();
    let mut options = Options::default();
    options.title = "Differential Flame Graph".to_owned();
    options.subtitle = Some(subtitle.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
    options.count_name = both.sample_types[AFTER].unit.clone();
    options.font_width = 0.61;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.no_javascript = true;
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .context("failed to draw the comparison")?;
    Ok(without_script(String::from_utf8(svg).context("failed to draw the comparison")?))
}

/// A profile with what is compared as one of the values. What is negative, as in a profile that is a difference
/// itself, is none.
fn compared(view: &View, at: usize) -> Profile {
    let mut profile = view.profile.clone();
    let samples = profile.take_samples();
    let ty = &view.profile.sample_types[view.index];
    let unit = if ty.unit.is_empty() || ty.unit == "count" { &ty.name } else { &ty.unit };
    profile.sample_types = ["comparison", "before", "after"].map(|name| ValueType::new(name, unit)).to_vec();
    profile.default_sample_type = String::new();
    for sample in samples {
        let value = sample.values[view.index].max(0);
        let mut values = [0; 3];
        (values[BOTH], values[at]) = (value, value);
        profile.add(sample.stack, sample.labels, &values);
    }
    profile
}
