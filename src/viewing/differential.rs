//! A comparison as a flamegraph: frames are as wide as after, red where they take more of the whole than
//! before, and blue where they take less. What vanished has no width: the table has it.

use anyhow::{Context, Result};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::View;
use super::merge::Merger;
use super::names::escape;
use super::tree::{ROOT, Shape, Tree};
use crate::model::profile::{Profile, ValueType};

/// Deepest frame that is drawn: what is called beyond it counts for it.
const MAX_DEPTH: usize = 1000;

/// The picture, of values of which those before are multiplied by `factor`.
pub(super) fn draw(before: &View, after: &View, factor: f64, subtitle: &str) -> Result<String> {
    let mut merger = Merger::default();
    merger.add(&column(before, 0, factor))?;
    merger.add(&column(after, 1, 1.0))?;
    let both = merger.finish();
    let comm = ["comm".to_owned()];
    let tree = Tree::new(&both, &Shape { tagroot: &comm, ..Shape::default() })?;
    let (old, new) = (tree.own(0), tree.own(1));
    let names: Vec<String> = tree.frames().all.iter().map(|frame| escape(&frame.name)).collect();
    let mut lines = Vec::new();
    for node in 1..tree.len() as u32 {
        let (old, new) = (old[node as usize], new[node as usize]);
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
        lines.push(format!("{} {} {}", path.join(";"), old.max(0), new.max(0)));
    }
    // inferno wants equal beginnings side by side.
    lines.sort_unstable();
    let mut options = Options::default();
    options.title = "Differential Flame Graph".to_owned();
    options.subtitle = Some(subtitle.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
    let ty = &after.profile.sample_types[after.index];
    options.count_name =
        if ty.unit.is_empty() || ty.unit == "count" { ty.name.clone() } else { ty.unit.clone() };
    options.font_width = 0.61;
    options.text_truncate_direction = TextTruncateDirection::Right;
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .context("failed to draw the comparison")?;
    String::from_utf8(svg).context("failed to draw the comparison")
}

/// A profile with what is compared as the first or the second of two values.
fn column(view: &View, at: usize, factor: f64) -> Profile {
    let mut profile = view.profile.clone();
    let samples = profile.take_samples();
    profile.sample_types = vec![ValueType::new("before", ""), ValueType::new("after", "")];
    for sample in samples {
        let mut values = [0; 2];
        values[at] = (sample.values[view.index] as f64 * factor).round() as i64;
        profile.add(sample.stack, sample.labels, &values);
    }
    profile
}
