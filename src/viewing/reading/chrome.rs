//! CPU profiles of V8: what Chrome's developer tools save and `node --cpu-prof` writes, `.cpuprofile`.
//!
//! A tree of nodes, and the node that ran at each sample with the time since the one before. The time up
//! to the next sample is a sample's own, as the developer tools count it. Their root, `(root)`, is left out;
//! `(program)`, `(idle)` and `(garbage collector)` stay.
//!
//! The format: <https://chromedevtools.github.io/devtools-protocol/tot/Profiler/#type-Profile>.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::super::budget::DAMAGED;
use super::stacks::{Builder, Frame};
use crate::model::profile::{Profile, StackId, ValueType};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(borrow)]
    nodes: Vec<Node<'a>>,
    #[serde(default)]
    samples: Vec<u64>,
    #[serde(default)]
    time_deltas: Vec<f64>,
    #[serde(default)]
    start_time: f64,
    #[serde(default)]
    end_time: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node<'a> {
    id: u64,
    #[serde(borrow)]
    call_frame: CallFrame<'a>,
    #[serde(default)]
    children: Vec<u64>,
    parent: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallFrame<'a> {
    #[serde(borrow)]
    function_name: Cow<'a, str>,
    #[serde(borrow, default)]
    url: Cow<'a, str>,
    /// Counted from 0.
    #[serde(default)]
    line_number: f64,
}

pub(super) fn parse(text: &str) -> Result<Profile> {
    let file: File = serde_json::from_str(text.trim_start_matches('\u{feff}')).context(DAMAGED)?;
    let (samples, deltas) = (file.samples.len(), file.time_deltas.len());
    ensure!(samples == deltas, "it has {samples} samples and {deltas} times: {DAMAGED}");
    let mut builder =
        Builder::new(vec![ValueType::new("samples", "count"), ValueType::new("time", "nanoseconds")]);
    let places = places(&file.nodes, &mut builder)?;
    let labels = builder.labels(&[])?;
    let mut passed = file.time_deltas.first().copied().unwrap_or_default();
    for (at, id) in file.samples.iter().enumerate() {
        let place = places.get(id).with_context(|| format!("node {id} is sampled and missing: {DAMAGED}"))?;
        let own = match file.time_deltas.get(at + 1) {
            Some(&delta) => {
                passed += delta;
                delta
            }
            None => file.end_time - file.start_time - passed,
        };
        // Clocks of threads differ a little, and a sample may seem to be older than the one before.
        let microseconds = if own.is_finite() { own.max(0.0) } else { 0.0 };
        builder.add(*place, labels, &[1, (microseconds * 1e3) as i64])?;
    }
    let mut profile = builder.finish();
    profile.default_sample_type = "time".to_owned();
    let microseconds = file.end_time - file.start_time;
    profile.duration_ns = if microseconds > 0.0 { (microseconds * 1e3) as i64 } else { 0 };
    Ok(profile)
}

/// The place of each node by its id; none of the root's.
fn places(nodes: &[Node], builder: &mut Builder) -> Result<HashMap<u64, Option<StackId>>> {
    let mut by_id = HashMap::with_capacity(nodes.len());
    let mut parents = HashMap::with_capacity(nodes.len());
    for node in nodes {
        ensure!(by_id.insert(node.id, node).is_none(), "two nodes have the id {}: {DAMAGED}", node.id);
        for child in node
            .children
            .iter()
            .copied()
            .map(|child| (child, node.id))
            .chain(node.parent.map(|parent| (node.id, parent)))
        {
            let known = parents.insert(child.0, child.1).unwrap_or(child.1);
            ensure!(known == child.1, "node {} is below two others: {DAMAGED}", child.0);
        }
    }
    let mut places: HashMap<u64, Option<StackId>> = HashMap::with_capacity(nodes.len());
    let mut above = Vec::new();
    for node in nodes {
        // Up to what is known, and down again.
        let mut id = node.id;
        above.clear();
        let mut parent = loop {
            if let Some(&place) = places.get(&id) {
                break place;
            }
            ensure!(above.len() <= nodes.len(), "node {id} is below itself: {DAMAGED}");
            above.push(id);
            match parents.get(&id) {
                Some(&parent) => id = parent,
                None => break None,
            }
        };
        for &id in above.iter().rev() {
            let node = by_id.get(&id).with_context(|| format!("node {id} is missing: {DAMAGED}"))?;
            let frame = &node.call_frame;
            if !(parent.is_none() && frame.function_name == "(root)") {
                let location = builder.location(&Frame {
                    name: if frame.function_name.is_empty() { "(anonymous)" } else { &frame.function_name },
                    file: &frame.url,
                    line: (frame.line_number as i64).saturating_add(1).max(0),
                    ..Frame::default()
                })?;
                parent = Some(builder.child(parent, location)?);
            }
            places.insert(id, parent);
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = r#""nodes": [
        {"id": 1, "callFrame": {"functionName": "(root)", "url": "", "lineNumber": -1}, "children": [2, 3]},
        {"id": 2, "callFrame": {"functionName": "main", "url": "a.js", "lineNumber": 4}, "children": [4]},
        {"id": 3, "callFrame": {"functionName": "(idle)", "url": "", "lineNumber": -1}},
        {"id": 4, "callFrame": {"functionName": "", "url": "a.js", "lineNumber": 6}}]"#;

    #[test]
    fn a_sample_lasts_to_the_next() {
        let text = format!(
            "{{{NODES}, \"samples\": [2, 4, 3, 4], \"timeDeltas\": [10, 100, -5, 50], \"startTime\": 1000, \"endTime\": 1200}}"
        );
        let profile = parse(&text).unwrap();
        let mut found: Vec<_> = profile
            .samples()
            .iter()
            .map(|sample| {
                let mut stack: Vec<_> = profile.stack(sample.stack).collect();
                stack.reverse();
                let names = stack.into_iter().map(|at| {
                    let line = profile.location(at).lines[0];
                    format!("{}:{}", profile.function(line.function).name, line.line)
                });
                (names.collect::<Vec<_>>().join(";"), sample.values.clone())
            })
            .collect();
        found.sort();
        // The second lasts for no time, and the last for what is left of 200 µs.
        let expected = [
            ("(idle):0", vec![1, 50_000]),
            ("main:5", vec![1, 100_000]),
            ("main:5;(anonymous):7", vec![2, 45_000]),
        ];
        assert_eq!(found, expected.map(|(names, values)| (names.to_owned(), values)));
    }

    #[test]
    fn damage_is_named() {
        for (text, expected) in [
            (format!("{{{NODES}, \"samples\": [9], \"timeDeltas\": [1]}}"), "node 9 is sampled and missing"),
            (format!("{{{NODES}, \"samples\": [2], \"timeDeltas\": []}}"), "1 samples and 0 times"),
            (
                r#"{"nodes": [{"id": 1, "callFrame": {"functionName": "a"}, "children": [1]}]}"#.to_owned(),
                "node 1 is below itself",
            ),
            (
                r#"{"nodes": [{"id": 1, "callFrame": {"functionName": "a"}, "parent": 5}]}"#.to_owned(),
                "node 5 is missing",
            ),
        ] {
            let message = format!("{:#}", parse(&text).unwrap_err());
            assert!(message.contains(expected), "{message}");
        }
    }
}
