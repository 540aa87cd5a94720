//! CPU profiles of V8: what Chrome's developer tools save and `node --cpu-prof` writes, `.cpuprofile`.
//!
//! A tree of nodes, and the node that ran at each sample with the time since the one before. The time up
//! to the next sample is a sample's own, as the developer tools count it. Their root, `(root)`, is left out;
//! `(program)`, `(idle)` and `(garbage collector)` stay.
//!
//! `--cpu-prof` and the tools write the profile itself; the protocol's answers hold it in `profile` or `result`. Old
//! ones have a count in each node and no samples.
//!
//! The format: <https://chromedevtools.github.io/devtools-protocol/tot/Profiler/#type-Profile>.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::super::budget::DAMAGED;
use super::stacks::{Builder, Frame, Rounding};
use crate::model::profile::{Profile, StackId, ValueType};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(borrow, default)]
    nodes: Vec<Node<'a>>,
    samples: Option<Vec<Id>>,
    time_deltas: Option<Vec<f64>>,
    start_time: Option<f64>,
    end_time: Option<f64>,
    #[serde(borrow)]
    profile: Option<Box<Self>>,
    #[serde(borrow)]
    result: Option<Box<Self>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node<'a> {
    id: Id,
    #[serde(borrow)]
    call_frame: CallFrame<'a>,
    children: Option<Vec<Id>>,
    parent: Option<Id>,
    hit_count: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CallFrame<'a> {
    #[serde(borrow)]
    function_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    url: Option<Cow<'a, str>>,
    /// Counted from 0.
    line_number: Option<f64>,
}

/// What names a node: a whole number, which some writers write as `1.0` or as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id(i64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written<'a> {
            Whole(i64),
            Number(f64),
            #[serde(borrow)]
            Text(Cow<'a, str>),
        }
        let id = match Written::deserialize(deserializer)? {
            Written::Whole(id) => Some(id),
            // From there on, not every whole number is one.
            Written::Number(id) if id.fract() == 0.0 && id.abs() < 9e15 => Some(id as i64),
            Written::Text(id) => id.parse().ok(),
            Written::Number(_) => None,
        };
        id.map(Self).ok_or_else(|| D::Error::custom("the id of a node is no whole number"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

pub(super) fn parse(text: &str) -> Result<Profile> {
    let mut file: File = serde_json::from_str(text).context(DAMAGED)?;
    while let Some(inner) = file.profile.take().or(file.result.take()) {
        file = *inner;
    }
    let file_samples = file.samples.unwrap_or_default();
    let time_deltas = file.time_deltas.unwrap_or_default();
    let lasted = file.end_time.unwrap_or_default() - file.start_time.unwrap_or_default();
    let (samples, deltas) = (file_samples.len(), time_deltas.len());
    ensure!(samples == deltas, "it has {samples} samples and {deltas} times: {DAMAGED}");
    let mut builder =
        Builder::new(vec![ValueType::new("samples", "count"), ValueType::new("time", "nanoseconds")]);
    let places = places(&file.nodes, &mut builder)?;
    let labels = builder.labels(&[])?;
    let mut rounding = Rounding::default();
    let mut passed = time_deltas.first().copied().unwrap_or_default();
    for (at, id) in file_samples.iter().enumerate() {
        let place = places.get(id).with_context(|| format!("node {id} is sampled and missing: {DAMAGED}"))?;
        let own = match time_deltas.get(at + 1) {
            Some(&delta) => {
                passed += delta;
                delta
            }
            None => lasted - passed,
        };
        // Clocks of threads differ a little, and a sample may seem to be older than the one before.
        let microseconds = if own.is_finite() { own.max(0.0) } else { 0.0 };
        builder.add(*place, labels, &[1, rounding.round(microseconds * 1e3)])?;
    }
    let is_counted = file_samples.is_empty();
    for (node, hits) in file.nodes.iter().filter_map(|node| Some((node, node.hit_count?))) {
        if is_counted && hits > 0.0 {
            builder.add(places[&node.id], labels, &[hits as i64, 0])?;
        }
    }
    let mut profile = builder.finish();
    let default = if is_counted { "samples" } else { "time" };
    default.clone_into(&mut profile.default_sample_type);
    profile.duration_ns = if lasted > 0.0 { (lasted * 1e3) as i64 } else { 0 };
    Ok(profile)
}

/// The place of each node by its id; none of the root's.
fn places(nodes: &[Node], builder: &mut Builder) -> Result<HashMap<Id, Option<StackId>>> {
    let mut by_id = HashMap::with_capacity(nodes.len());
    let mut parents = HashMap::with_capacity(nodes.len());
    for node in nodes {
        ensure!(by_id.insert(node.id, node).is_none(), "two nodes have the id {}: {DAMAGED}", node.id);
        for child in node
            .children
            .iter()
            .flatten()
            .copied()
            .map(|child| (child, node.id))
            .chain(node.parent.map(|parent| (node.id, parent)))
        {
            let known = parents.insert(child.0, child.1).unwrap_or(child.1);
            ensure!(known == child.1, "node {} is below two others: {DAMAGED}", child.0);
        }
    }
    let mut places: HashMap<Id, Option<StackId>> = HashMap::with_capacity(nodes.len());
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
            let name = frame.function_name.as_deref().unwrap_or_default();
            if !(parent.is_none() && name == "(root)") {
                let location = builder.location(&Frame {
                    name: if name.is_empty() { "(anonymous)" } else { name },
                    file: frame.url.as_deref().unwrap_or_default(),
                    // 0 is none.
                    line: frame.line_number.map_or(0, |line| (line as i64).saturating_add(1).max(0)),
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

    /// The sums of the values, and the names of the functions.
    fn told(text: &str) -> (i64, i64, Vec<String>) {
        let profile = parse(text).unwrap();
        let names = profile.functions.iter().map(|function| function.name.clone()).collect();
        (profile.total(0), profile.total(1), names)
    }

    #[test]
    fn what_others_write_is_read_where_it_is_clear() {
        let file = |first: &str, second: &str| {
            format!(
                "{{\"nodes\": [{{\"id\": {first}, \"callFrame\": {{\"functionName\": \"(root)\", \"url\": null}}, \"children\": [{second}]}}, \
                 {{\"id\": {second}, \"callFrame\": {{\"functionName\": \"a\", \"lineNumber\": null}}, \"children\": null}}], \
                 \"samples\": [{second}, {second}], \"timeDeltas\": [5, 10], \"startTime\": 0, \"endTime\": 30}}"
            )
        };
        for (first, second) in [("1", "2"), ("1.0", "2.0"), ("1", "-2"), ("\"1\"", "\"2\"")] {
            let text = file(first, second);
            assert_eq!(told(&text), (2, 25_000, vec!["a".to_owned()]), "{text}");
            let answer = format!("{{\"id\": 3, \"result\": {{\"profile\": {text}}}}}");
            assert_eq!(told(&answer), told(&text));
        }
        assert!(format!("{:#}", parse(&file("1", "2.5")).err().unwrap()).contains("no whole number"));
        let counted = "{\"nodes\": [{\"id\": 1, \"callFrame\": {\"functionName\": \"a\"}, \"hitCount\": 3}], \"startTime\": 1}";
        assert_eq!(told(counted), (3, 0, vec!["a".to_owned()]));
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
