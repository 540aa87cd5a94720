//! speedscope's own JSON: frames, and profiles of samples or of events that open and close frames.
//!
//! The format: <https://github.com/jlfwong/speedscope/wiki/Importing-from-custom-sources>. Each of its
//! profiles (most often a thread) becomes samples with the profile's name as a label, if there are several.
//! Times are kept in nanoseconds.

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::super::budget::DAMAGED;
use super::stacks::{Builder, Frame as Named, Rounding};
use crate::model::profile::{Label, LabelValue, LabelsId, LocationId, Profile, StackId, ValueType};

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    shared: Shared<'a>,
    #[serde(borrow)]
    profiles: Vec<Source<'a>>,
}

#[derive(Deserialize)]
struct Shared<'a> {
    #[serde(borrow)]
    frames: Vec<Frame<'a>>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    file: Option<Cow<'a, str>>,
    line: Option<f64>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unit: Cow<'a, str>,
    #[serde(default)]
    events: Vec<Event<'a>>,
    #[serde(default)]
    samples: Vec<Vec<u32>>,
    #[serde(default)]
    weights: Vec<f64>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    at: f64,
    frame: u32,
}

pub(super) fn parse(text: &str) -> Result<Profile> {
    let text = text.trim_start_matches('\u{feff}');
    let file: File = serde_json::from_str(text).context(DAMAGED)?;
    let mut types: Vec<ValueType> = Vec::new();
    let mut columns = Vec::new();
    for source in &file.profiles {
        let (ty, factor) = unit(&source.unit)?;
        let at = types.iter().position(|known| *known == ty).unwrap_or(types.len());
        if at == types.len() {
            types.push(ty);
        }
        columns.push((at, factor));
    }
    let mut builder = Builder::new(types.clone());
    let mut frames = Vec::with_capacity(file.shared.frames.len());
    for frame in &file.shared.frames {
        let file = frame.file.as_deref().unwrap_or_default();
        let line = frame.line.unwrap_or_default() as i64;
        frames.push(builder.location(&Named { name: &frame.name, file, line, ..Named::default() })?);
    }
    for (source, (column, factor)) in file.profiles.iter().zip(columns) {
        let name = source.name.as_deref().unwrap_or_default();
        let label = Label { key: "thread_comm".into(), value: LabelValue::Str(name.into()) };
        let is_one_of_several = file.profiles.len() > 1 && !name.is_empty();
        let labels = builder.labels(if is_one_of_several { std::slice::from_ref(&label) } else { &[] })?;
        let mut target = Target {
            builder: &mut builder,
            frames: &frames,
            labels,
            column,
            factor,
            rounding: Rounding::default(),
            values: vec![0; types.len()],
        };
        match &*source.kind {
            "sampled" => target.sampled(source),
            "evented" => target.evented(source),
            kind => bail!("a profile of the type '{kind}' is unknown; sampled and evented are read"),
        }
        .with_context(|| format!("its profile '{name}'"))?;
    }
    Ok(builder.finish())
}

/// What a unit measures, and how many of what is kept are one of it.
fn unit(name: &str) -> Result<(ValueType, f64)> {
    let time = |factor| (ValueType::new("time", "nanoseconds"), factor);
    Ok(match name {
        "none" => (ValueType::new("samples", "count"), 1.0),
        "bytes" => (ValueType::new("space", "bytes"), 1.0),
        "nanoseconds" => time(1.0),
        "microseconds" => time(1e3),
        "milliseconds" => time(1e6),
        "seconds" => time(1e9),
        _ => bail!("its unit '{name}' is unknown: {DAMAGED}"),
    })
}

struct Target<'a> {
    builder: &'a mut Builder,
    frames: &'a [LocationId],
    labels: LabelsId,
    column: usize,
    factor: f64,
    rounding: Rounding,
    values: Vec<i64>,
}

impl Target<'_> {
    fn frame(&self, at: u32) -> Result<LocationId> {
        let found = self.frames.get(at as usize).copied();
        found.with_context(|| format!("frame {at} of {} is referred to: {DAMAGED}", self.frames.len()))
    }

    fn add(&mut self, leaf: Option<StackId>, value: f64) -> Result<()> {
        self.values[self.column] = self.rounding.round(value * self.factor);
        self.builder.add(leaf, self.labels, &self.values)
    }

    fn sampled(&mut self, source: &Source) -> Result<()> {
        let (samples, weights) = (source.samples.len(), source.weights.len());
        ensure!(
            weights == samples || weights == 0,
            "it has {samples} samples and {weights} weights: {DAMAGED}"
        );
        for (at, sample) in source.samples.iter().enumerate() {
            let mut leaf = None;
            for &frame in sample {
                let frame = self.frame(frame)?;
                leaf = Some(self.builder.child(leaf, frame)?);
            }
            self.add(leaf, source.weights.get(at).copied().unwrap_or(1.0))?;
        }
        Ok(())
    }

    fn evented(&mut self, source: &Source) -> Result<()> {
        let mut leaf: Option<StackId> = None;
        let mut last = None;
        for event in &source.events {
            // Time in which nothing is open is no stack's.
            if let (Some(last), Some(_)) = (last, leaf) {
                let passed: f64 = event.at - last;
                ensure!(passed >= 0.0, "its events are not in the order of time: {DAMAGED}");
                if passed > 0.0 {
                    self.add(leaf, passed)?;
                }
            }
            last = Some(event.at);
            let frame = self.frame(event.frame)?;
            leaf = match (&*event.kind, leaf) {
                ("O", _) => Some(self.builder.child(leaf, frame)?),
                ("C", Some(open)) if self.builder.parts(open).is_some_and(|(_, leaf)| leaf == frame) => {
                    self.builder.parts(open).and_then(|(callers, _)| callers)
                }
                ("C", _) => {
                    bail!("frame {} is closed that is not the innermost open one: {DAMAGED}", event.frame)
                }
                (kind, _) => bail!("an event of the type '{kind}' is unknown: {DAMAGED}"),
            };
        }
        Ok(())
    }
}
