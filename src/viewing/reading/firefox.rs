//! Profiles as the Firefox Profiler saves them and samply writes: tables as columns, a thread each.
//!
//! The format: <https://github.com/firefox-devtools/profiler/blob/main/src/types/profile.ts>. Each thread
//! had its own tables up to version 55; then they moved to `shared` one by one, so each is looked for in the
//! thread and then there. Values are those of the samples (their weights, or 1), and CPU
//! time where it was kept in a unit of time. Markers, counters and allocations are not read.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::super::budget::DAMAGED;
use super::stacks::{Builder, Frame, Rounding};
use crate::model::profile::{Label, LabelValue, Profile, StackId, ValueType};

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    meta: Meta<'a>,
    #[serde(borrow, default)]
    libs: Vec<Lib<'a>>,
    #[serde(borrow, default)]
    shared: Shared<'a>,
    #[serde(borrow)]
    threads: Vec<Thread<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow)]
    sample_units: Option<Units<'a>>,
    /// Milliseconds since 1970.
    start_time: Option<f64>,
}

#[derive(Deserialize)]
struct Units<'a> {
    #[serde(rename = "threadCPUDelta", borrow)]
    cpu: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Lib<'a> {
    #[serde(borrow, default)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shared<'a> {
    #[serde(borrow)]
    string_array: Option<Vec<Cow<'a, str>>>,
    stack_table: Option<StackTable>,
    frame_table: Option<FrameTable>,
    func_table: Option<FuncTable>,
    resource_table: Option<ResourceTable>,
    sources: Option<Sources>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StackTable {
    frame: Vec<u32>,
    prefix: Option<Vec<Option<u32>>>,
    /// In place of `prefix` since version 66: by how much it comes earlier, or 0 for none.
    prefix_offset: Option<Vec<u32>>,
}

impl StackTable {
    /// Of each stack, the one that it continues.
    fn prefixes(&self) -> Option<Vec<Option<u32>>> {
        // What would come before the first one is missing, as is what comes later.
        let before = |(&by, at): (&u32, u32)| (by > 0).then(|| at.checked_sub(by).unwrap_or(u32::MAX));
        let from_offsets = || Some(self.prefix_offset.as_ref()?.iter().zip(0..).map(before).collect());
        self.prefix.clone().or_else(from_offsets)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FrameTable {
    func: Vec<u32>,
    #[serde(default)]
    line: Vec<Option<i64>>,
    /// Within the library; -1 for none.
    #[serde(default)]
    address: Vec<i64>,
    #[serde(default)]
    inline_depth: Vec<u32>,
    /// Since version 70: index into the libraries, or -1.
    #[serde(default)]
    lib: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FuncTable {
    name: Vec<u32>,
    #[serde(default)]
    resource: Vec<i64>,
    #[serde(default)]
    file_name: Vec<Option<u32>>,
    #[serde(default)]
    source: Vec<Option<u32>>,
}

#[derive(Deserialize)]
struct ResourceTable {
    #[serde(default)]
    lib: Vec<Option<i64>>,
}

#[derive(Deserialize)]
struct Sources {
    filename: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thread<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    process_name: Option<Cow<'a, str>>,
    /// Numbers, or text such as `12.1`.
    #[serde(default)]
    pid: Value,
    #[serde(default)]
    tid: Value,
    #[serde(borrow)]
    string_array: Option<Vec<Cow<'a, str>>>,
    stack_table: Option<StackTable>,
    frame_table: Option<FrameTable>,
    func_table: Option<FuncTable>,
    resource_table: Option<ResourceTable>,
    #[serde(borrow)]
    samples: Samples<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Samples<'a> {
    stack: Vec<Option<u32>>,
    weight: Option<Vec<f64>>,
    #[serde(borrow)]
    weight_type: Option<Cow<'a, str>>,
    #[serde(rename = "threadCPUDelta")]
    cpu: Option<Vec<Option<f64>>>,
}

pub(super) fn parse(text: &str) -> Result<Profile> {
    let text = text.trim_start_matches('\u{feff}');
    let file: File = serde_json::from_str(text).context(DAMAGED)?;
    let cpu_factor = file.meta.sample_units.as_ref().and_then(|units| match &*units.cpu {
        "ns" => Some(1.0),
        "µs" => Some(1e3),
        _ => None,
    });
    let mut types = vec![ValueType::new("samples", "count")];
    for thread in &file.threads {
        let ty = weight(thread.samples.weight_type.as_deref()).0;
        if !types.contains(&ty) {
            types.push(ty);
        }
    }
    let cpu = cpu_factor.map(|factor| (types.len(), factor));
    if cpu.is_some() {
        types.push(ValueType::new("cpu", "nanoseconds"));
    }
    let mut builder = Builder::new(types.clone());
    for thread in &file.threads {
        read_thread(&mut builder, &types, cpu, &file, thread)
            .with_context(|| format!("its thread '{}'", thread.name))?;
    }
    let mut profile = builder.finish();
    profile.default_sample_type = "samples".to_owned();
    profile.time_ns = file.meta.start_time.map_or(0, |ms| (ms * 1e6) as i64);
    Ok(profile)
}

/// What a thread's weights measure, and how many of what is kept are one of them.
fn weight(kind: Option<&str>) -> (ValueType, f64) {
    match kind {
        Some("tracing-ms") => (ValueType::new("time", "nanoseconds"), 1e6),
        Some("bytes") => (ValueType::new("space", "bytes"), 1.0),
        _ => (ValueType::new("samples", "count"), 1.0),
    }
}

fn read_thread(
    builder: &mut Builder,
    types: &[ValueType],
    cpu: Option<(usize, f64)>,
    file: &File,
    thread: &Thread,
) -> Result<()> {
    let text = |key: &str, text: &str| Label { key: key.into(), value: LabelValue::Str(text.into()) };
    let number = |key: &str, value: &Value| {
        let number = value.as_i64().or_else(|| value.as_str()?.split('.').next()?.parse().ok())?;
        Some(Label { key: key.into(), value: LabelValue::Num(number, "".into()) })
    };
    let process = thread.process_name.as_deref().unwrap_or(&thread.name);
    let labels = [Some(text("comm", process)), number("pid", &thread.pid), number("tid", &thread.tid)];
    let labels = labels.into_iter().flatten().chain([text("thread_comm", &thread.name)]);
    let labels = builder.labels(&labels.filter(is_set).collect::<Vec<_>>())?;

    let nodes = stacks(builder, file, thread)?;
    let (ty, factor) = weight(thread.samples.weight_type.as_deref());
    let column = types.iter().position(|known| *known == ty).unwrap_or_default();
    let samples = &thread.samples;
    let lengths = [samples.weight.as_ref().map(Vec::len), samples.cpu.as_ref().map(Vec::len)];
    for length in lengths.into_iter().flatten() {
        let stacks = samples.stack.len();
        ensure!(length == stacks, "{length} of the values of {stacks} samples are there: {DAMAGED}");
    }
    let (mut rounding, mut cpu_rounding) = (Rounding::default(), Rounding::default());
    for (at, stack) in samples.stack.iter().enumerate() {
        let leaf = match stack {
            Some(stack) => Some(*nodes.get(*stack as usize).with_context(|| missing("stack", *stack))?),
            None => None,
        };
        let mut values = vec![0; types.len()];
        let weight = samples.weight.as_ref().map_or(1.0, |weights| weights[at]);
        values[column] = rounding.round(weight * factor);
        if let (Some((column, factor)), Some(deltas)) = (cpu, &samples.cpu) {
            values[column] = cpu_rounding.round(deltas[at].unwrap_or_default() * factor);
        }
        builder.add(leaf, labels, &values)?;
    }
    Ok(())
}

fn is_set(label: &Label) -> bool {
    !matches!(&label.value, LabelValue::Str(text) if text.is_empty())
}

fn missing(what: &str, at: u32) -> String {
    format!("{what} {at} is referred to and missing: {DAMAGED}")
}

/// The place of each entry of a thread's table of stacks.
fn stacks(builder: &mut Builder, file: &File, thread: &Thread) -> Result<Vec<StackId>> {
    let lacks = |what: &str| format!("it has no {what}: save it again with a Firefox Profiler of today");
    let shared = &file.shared;
    let table =
        thread.stack_table.as_ref().or(shared.stack_table.as_ref()).with_context(|| lacks("stackTable"))?;
    let frames =
        thread.frame_table.as_ref().or(shared.frame_table.as_ref()).with_context(|| lacks("frameTable"))?;
    let names = Names::of(file, thread).with_context(|| lacks("funcTable or stringArray"))?;
    let prefixes = table.prefixes().with_context(|| lacks("prefix"))?;
    ensure!(table.frame.len() == prefixes.len(), "columns of its stackTable differ in length: {DAMAGED}");
    let mut nodes: Vec<StackId> = Vec::with_capacity(table.frame.len());
    for (&frame, prefix) in table.frame.iter().zip(prefixes) {
        let parent = match prefix {
            // What comes later cannot be above, so there is no circle.
            Some(at) => Some(*nodes.get(at as usize).with_context(|| missing("an earlier stack", at))?),
            None => None,
        };
        let at = frame as usize;
        let function = *frames.func.get(at).with_context(|| missing("frame", frame))?;
        let line = frames.line.get(at).copied().flatten().unwrap_or_default();
        let address = frames.address.get(at).copied().unwrap_or(-1);
        let lib = frames.lib.get(at).copied();
        let named = names.frame(function, line, u64::try_from(address).unwrap_or_default(), lib)?;
        let is_inlined = frames.inline_depth.get(at).is_some_and(|&depth| depth > 0);
        nodes.push(match parent.filter(|_| is_inlined).and_then(|caller| builder.parts(caller)) {
            Some((callers, leaf)) => {
                let location = builder.inlined(leaf, &named)?;
                builder.child(callers, location)?
            }
            None => {
                let location = builder.location(&named)?;
                builder.child(parent, location)?
            }
        });
    }
    Ok(nodes)
}

/// What names a thread's functions.
struct Names<'a> {
    strings: &'a [Cow<'a, str>],
    functions: &'a FuncTable,
    resources: &'a [Option<i64>],
    sources: &'a [u32],
    libs: &'a [Lib<'a>],
}

impl<'a> Names<'a> {
    fn of(file: &'a File, thread: &'a Thread) -> Option<Self> {
        let shared = &file.shared;
        let resources = thread.resource_table.as_ref().or(shared.resource_table.as_ref());
        Some(Self {
            strings: thread.string_array.as_ref().or(shared.string_array.as_ref())?,
            functions: thread.func_table.as_ref().or(shared.func_table.as_ref())?,
            resources: resources.map(|table| &table.lib[..]).unwrap_or_default(),
            sources: shared.sources.as_ref().map(|table| &table.filename[..]).unwrap_or_default(),
            libs: &file.libs,
        })
    }

    fn text(&self, at: u32) -> Result<&'a str> {
        self.strings.get(at as usize).map(|text| &**text).with_context(|| missing("string", at))
    }

    /// `lib` is that of the frame, where frames have one; else that of the function counts.
    fn frame(&self, function: u32, line: i64, address: u64, lib: Option<i64>) -> Result<Frame<'a>> {
        let at = function as usize;
        let name = self.functions.name.get(at).with_context(|| missing("function", function))?;
        let source = self.functions.source.get(at).copied().flatten();
        let source = source.and_then(|source| self.sources.get(source as usize).copied());
        let file = source.or_else(|| self.functions.file_name.get(at).copied().flatten());
        let lib = lib.or_else(|| {
            let resource = *self.functions.resource.get(at)?;
            *self.resources.get(usize::try_from(resource).ok()?)?
        });
        let lib = lib.and_then(|lib| self.libs.get(usize::try_from(lib).ok()?));
        let place = lib.map_or("", |lib| if lib.path.is_empty() { &lib.name } else { &lib.path });
        Ok(Frame {
            name: self.text(*name)?,
            file: file.map_or(Ok(""), |file| self.text(file))?,
            line,
            place,
            address: if place.is_empty() { 0 } else { address },
        })
    }
}
