//! For the Firefox Profiler: its processed format, a thread each, which share their tables.
//!
//! The file is of version 60, and the viewer brings it up to its own. It draws samples over time, which a
//! profile does not know: the stacks of a thread follow each other, each for as long as its value says, so
//! that the time line is one of shares and not of moments.
//!
//! The format: <https://github.com/firefox-devtools/profiler/blob/main/src/types/profile.ts>, and its history
//! in docs-developer/CHANGELOG-formats.md there.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use serde_json::{Value, json};

use crate::model::profile::{LabelsId, Profile};
use crate::viewing::View;
use crate::viewing::names::FrameKind;
use crate::viewing::tree::{Shape, Tree};

const VERSION: u32 = 60;

/// Categories of frames: name and colour, of those that the viewer knows.
const CATEGORIES: [(&str, &str); 8] = [
    ("Other", "grey"),
    ("User", "yellow"),
    ("Kernel", "orange"),
    ("JIT", "green"),
    ("BPF", "purple"),
    ("Inlined", "lightblue"),
    ("Blocked", "blue"),
    ("Waker", "brown"),
];

fn category(kind: FrameKind) -> usize {
    match kind {
        FrameKind::User => 1,
        FrameKind::Kernel => 2,
        FrameKind::Jit => 3,
        FrameKind::Bpf => 4,
        FrameKind::Inlined => 5,
        FrameKind::Blocked | FrameKind::Runnable => 6,
        FrameKind::Waker => 7,
        _ => 0,
    }
}

pub(super) fn json(view: &View, title: &str) -> Result<Vec<u8>> {
    let profile = &view.profile;
    let shape = Shape { value: Some(view.index), ..Shape::default() };
    let tree = Tree::new(profile, &shape)?;
    let file = json!({
        "meta": meta(profile, title),
        "libs": libs(&tree),
        "pages": [],
        "counters": [],
        "shared": shared(profile, &tree),
        "threads": threads(view, &tree),
    });
    Ok(serde_json::to_vec(&file)?)
}

fn meta(profile: &Profile, title: &str) -> Value {
    let categories =
        CATEGORIES.map(|(name, color)| json!({ "name": name, "color": color, "subcategories": ["Other"] }));
    json!({
        "version": 31,
        "preprocessedProfileVersion": VERSION,
        "interval": if profile.period > 0 { profile.period as f64 / 1e6 } else { 1.0 },
        "startTime": profile.time_ns as f64 / 1e6,
        "product": title,
        "importedFrom": concat!("profiler ", env!("CARGO_PKG_VERSION")),
        "processType": 0,
        "stackwalk": 1,
        "debug": false,
        "platform": "Linux",
        "oscpu": "Linux",
        "symbolicated": true,
        "usesOnlyOneStackType": true,
        "sourceCodeIsNotOnSearchfox": true,
        "keepProfileThreadOrder": true,
        "categories": categories,
        "markerSchema": [],
        "extensions": { "id": [], "name": [], "baseURL": [], "length": 0 },
    })
}

fn libs(tree: &Tree<'_>) -> Value {
    let lib = |path: &str| {
        let name = crate::text::basename(path);
        json!({ "name": name, "path": path, "debugName": name, "debugPath": path, "breakpadId": "", "codeId": null, "arch": "" })
    };
    tree.frames().binaries.iter().map(|path| lib(path)).collect()
}

/// Texts, each once.
#[derive(Default)]
struct Strings<'a> {
    all: Vec<&'a str>,
    index: HashMap<&'a str, usize>,
}

impl<'a> Strings<'a> {
    fn add(&mut self, text: &'a str) -> usize {
        let next = self.all.len();
        let at = *self.index.entry(text).or_insert(next);
        if at == next {
            self.all.push(text);
        }
        at
    }
}

/// The tables of all threads. Each frame has a function of its own, and each binary a resource.
fn shared(profile: &Profile, tree: &Tree<'_>) -> Value {
    let frames = &tree.frames().all;
    let count = frames.len();
    let none = vec![Value::Null; count];
    let mut strings = Strings::default();
    let names: Vec<usize> = frames.iter().map(|frame| strings.add(&frame.name)).collect();
    let (mut sources, mut source_index) = (Vec::new(), HashMap::new());
    let mut file_of = Vec::with_capacity(count);
    for frame in frames {
        let file =
            frame.function.map(|at| profile.function(at).filename.as_str()).filter(|file| !file.is_empty());
        file_of.push(file.map(|file| {
            *source_index.entry(file).or_insert_with(|| {
                sources.push(strings.add(file));
                sources.len() - 1
            })
        }));
    }
    let binaries: Vec<usize> =
        tree.frames().binaries.iter().map(|path| strings.add(crate::text::basename(path))).collect();
    let lines: Vec<_> = frames.iter().map(|frame| (frame.lines.0 > 0).then_some(frame.lines.0)).collect();
    let start_line = |frame: &crate::viewing::frames::Frame| {
        frame.function.map(|at| profile.function(at).start_line).filter(|&line| line > 0)
    };
    // The root is no stack, so each has its node's number less one.
    let nodes = 1..tree.len() as u32;
    json!({
        "stringArray": strings.all,
        "sources": { "uuid": vec![Value::Null; sources.len()], "filename": sources, "length": sources.len() },
        "stackTable": {
            "frame": nodes.clone().map(|node| tree.frame_index(node)).collect::<Vec<_>>(),
            "prefix": nodes.clone().map(|node| tree.parent(node).checked_sub(1)).collect::<Vec<_>>(),
            "length": nodes.len(),
        },
        "frameTable": {
            "address": vec![-1; count],
            // The function into which one is inlined stands below it, as everywhere.
            "inlineDepth": vec![0; count],
            "category": frames.iter().map(|frame| category(frame.kind)).collect::<Vec<_>>(),
            "subcategory": vec![0; count],
            "func": (0..count).collect::<Vec<_>>(),
            "nativeSymbol": none,
            "innerWindowID": vec![0; count],
            "line": lines,
            "column": none,
            "length": count,
        },
        "funcTable": {
            "name": names,
            "isJS": vec![false; count],
            "relevantForJS": vec![false; count],
            "resource": frames.iter().map(|frame| frame.binary.map_or(-1, i64::from)).collect::<Vec<_>>(),
            "source": file_of,
            "lineNumber": frames.iter().map(start_line).collect::<Vec<_>>(),
            "columnNumber": none,
            "length": count,
        },
        "resourceTable": {
            "lib": (0..binaries.len()).collect::<Vec<_>>(),
            "name": binaries,
            "host": vec![Value::Null; binaries.len()],
            // A library.
            "type": vec![1; binaries.len()],
            "length": binaries.len(),
        },
        "nativeSymbols": { "libIndex": [], "address": [], "name": [], "functionSize": [], "length": 0 },
    })
}

fn threads(view: &View, tree: &Tree<'_>) -> Vec<Value> {
    let profile = &view.profile;
    let mut by_thread: BTreeMap<Thread, Vec<(u32, i64)>> = BTreeMap::new();
    let mut known: HashMap<LabelsId, Thread> = HashMap::new();
    for (node, labels, values) in tree.rows() {
        let thread = known.entry(labels).or_insert_with(|| Thread::of(profile, labels)).clone();
        by_thread.entry(thread).or_default().push((node, values[view.index]));
    }
    let mut threads: Vec<_> = by_thread.into_iter().collect();
    // The viewer opens with the first one.
    let sum = |rows: &[(u32, i64)]| rows.iter().fold(0_i64, |sum, (_, value)| sum.saturating_add(*value));
    threads.sort_by_key(|(thread, rows)| (std::cmp::Reverse(sum(rows)), thread.clone()));
    threads.into_iter().map(|(thread, rows)| thread.json(view, &rows)).collect()
}

/// Which thread samples are of, as far as labels tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    comm: String,
    name: String,
    pid: String,
    tid: String,
}

impl Thread {
    fn of(profile: &Profile, labels: LabelsId) -> Self {
        let label = |key: &str| profile.label(labels, key);
        let comm = label("comm").unwrap_or_else(|| "all".to_owned());
        let pid = label("pid").unwrap_or_else(|| "0".to_owned());
        Self {
            name: label("thread_comm").unwrap_or_else(|| comm.clone()),
            tid: label("tid").unwrap_or_else(|| pid.clone()),
            comm,
            pid,
        }
    }

    fn json(&self, view: &View, rows: &[(u32, i64)]) -> Value {
        let unit = &*view.profile.sample_types[view.index].unit;
        // What the viewer calls a weight, and milliseconds on its time line for each unit of the value.
        let (kind, factor, length) = match unit {
            "nanoseconds" => ("tracing-ms", 1e-6, 1e-6),
            "microseconds" => ("tracing-ms", 1e-3, 1e-3),
            "milliseconds" => ("tracing-ms", 1.0, 1.0),
            "seconds" => ("tracing-ms", 1e3, 1e3),
            "bytes" => ("bytes", 1.0, 1e-6),
            _ => ("samples", 1.0, view.profile.period.max(1_000_000) as f64 / 1e6),
        };
        let mut at = 0.0;
        let times: Vec<f64> = rows
            .iter()
            .map(|(_, value)| {
                let time = at;
                at += *value as f64 * length;
                time
            })
            .collect();
        json!({
            "processType": "default",
            "processName": self.comm,
            "processStartupTime": 0,
            "processShutdownTime": null,
            "registerTime": 0,
            "unregisterTime": null,
            "pausedRanges": [],
            "name": self.name,
            "isMainThread": self.pid == self.tid,
            "pid": self.pid,
            "tid": self.tid.parse::<u64>().map_or_else(|_| json!(self.tid), |tid| json!(tid)),
            "samples": {
                "stack": rows.iter().map(|(node, _)| node - 1).collect::<Vec<_>>(),
                "time": times,
                "weight": rows.iter().map(|(_, value)| *value as f64 * factor).collect::<Vec<_>>(),
                "weightType": kind,
                "length": rows.len(),
            },
            "markers": { "data": [], "name": [], "startTime": [], "endTime": [], "phase": [], "category": [], "length": 0 },
        })
    }
}
