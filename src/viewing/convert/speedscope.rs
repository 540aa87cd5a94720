//! For speedscope: one profile of samples with weights, most of them first.
//!
//! It has no labels: the process's name is each stack's root, as in flamegraphs.
//!
//! The format: <https://www.speedscope.app/file-format-schema.json>.

use anyhow::Result;
use serde_json::{Value, json};

use crate::viewing::View;
use crate::viewing::tree::{ROOT, Shape, Tree};

pub(super) fn json(view: &View, title: &str) -> Result<Vec<u8>> {
    let comm = ["comm".to_owned()];
    let shape = Shape { tagroot: &comm, value: Some(view.index), ..Shape::default() };
    let tree = Tree::new(&view.profile, &shape)?;
    let own = tree.own(view.index);
    let mut leaves: Vec<u32> = (1..tree.len() as u32).filter(|&node| own[node as usize] > 0).collect();
    leaves.sort_by_key(|&node| std::cmp::Reverse(own[node as usize]));
    let stacks: Vec<Value> = leaves.iter().map(|&leaf| stack(&tree, leaf)).collect();
    let weights: Vec<i64> = leaves.iter().map(|&leaf| own[leaf as usize]).collect();
    let total = weights.iter().fold(0_i64, |sum, weight| sum.saturating_add(*weight));
    let frames: Vec<Value> = tree
        .frames()
        .all
        .iter()
        .map(|frame| {
            let function = frame.function.map(|at| view.profile.function(at));
            let mut fields = json!({ "name": frame.name });
            if let Some(function) = function.filter(|function| !function.filename.is_empty()) {
                fields["file"] = json!(function.filename);
                if function.start_line > 0 {
                    fields["line"] = json!(function.start_line);
                }
            } else if let Some(binary) = frame.binary {
                // What tells equal names apart.
                fields["file"] = json!(tree.frames().binaries.get(binary as usize));
            }
            fields
        })
        .collect();
    let unit = match &*view.profile.sample_types[view.index].unit {
        unit @ ("nanoseconds" | "microseconds" | "milliseconds" | "seconds" | "bytes") => unit,
        _ => "none",
    };
    let file = json!({
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": concat!("profiler ", env!("CARGO_PKG_VERSION")),
        "name": title,
        "activeProfileIndex": 0,
        "shared": { "frames": frames },
        "profiles": [{
            "type": "sampled",
            "name": title,
            "unit": unit,
            "startValue": 0,
            "endValue": total,
            "samples": stacks,
            "weights": weights,
        }],
    });
    Ok(serde_json::to_vec(&file)?)
}

/// The frames down to a leaf, root first.
fn stack(tree: &Tree<'_>, leaf: u32) -> Value {
    let mut frames = Vec::new();
    let mut node = leaf;
    while node != ROOT {
        frames.push(tree.frame_index(node));
        node = tree.parent(node);
    }
    frames.reverse();
    json!(frames)
}
