//! What each function, line, binary, process, thread or value of a label takes: its own, and with all that it
//! calls. Tables and comparisons are made of these.
//!
//! *Self* is the value of samples whose leaf it is, *total* that of samples in whose stack it is, once a
//! sample, as `go tool pprof -top` counts (flat and cum). As there, a function is its name: equal names of
//! several binaries are one row, which names the binary of the first.

use std::collections::HashMap;

use super::names::{FrameKind, kind, mapping_kind};
use crate::cli::By;
use crate::model::profile::{Label, LabelValue, LabelsId, Location, LocationId, Profile};
use crate::text::basename;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    /// Path of the binary, or empty.
    pub(super) binary: String,
    /// Source file, or empty.
    pub(super) file: String,
    /// What kind of function it is; none of what is no function.
    pub(super) kind: Option<FrameKind>,
    /// The value whose stacks end here, for each of the values asked for.
    pub(super) own: Vec<i64>,
    /// The value of stacks with it.
    pub(super) total: Vec<i64>,
}

/// Where nothing is known.
const NONE: &str = "(none)";

/// The rows of a profile in the order in which they are met, with the values at `indices`.
pub(super) fn rows(profile: &Profile, indices: &[usize], by: &By) -> Vec<Row> {
    let mut finder = Finder { profile, by, rows: Vec::new(), index: HashMap::new(), values: indices.len() };
    let mut of_location: Vec<Option<Box<[u32]>>> = vec![None; profile.locations.len()];
    let mut of_labels: HashMap<LabelsId, Box<[u32]>> = HashMap::new();
    // In which sample a row was last met.
    let mut met: Vec<u32> = Vec::new();
    for (number, sample) in (1..).zip(profile.samples()) {
        let add = |sums: &mut [i64]| {
            for (sum, &index) in sums.iter_mut().zip(indices) {
                *sum = sum.saturating_add(sample.values[index]);
            }
        };
        if indices.iter().all(|&index| sample.values[index] == 0) {
            continue;
        }
        if let By::Process | By::Thread | By::Label(_) = by {
            let rows = of_labels.entry(sample.labels).or_insert_with(|| finder.labels(sample.labels));
            for &row in rows.iter() {
                let row = &mut finder.rows[row as usize];
                add(&mut row.own);
                add(&mut row.total);
            }
            continue;
        }
        let mut leaf = true;
        for at in profile.stack(sample.stack) {
            let rows = of_location[at.index()].get_or_insert_with(|| finder.location(at));
            met.resize(finder.rows.len(), 0);
            for &row in rows.iter() {
                let own = std::mem::take(&mut leaf);
                if std::mem::replace(&mut met[row as usize], number) != number {
                    add(&mut finder.rows[row as usize].total);
                }
                if own {
                    add(&mut finder.rows[row as usize].own);
                }
            }
        }
        if leaf {
            let row = finder.row("[no stack]", None, "", None);
            add(&mut finder.rows[row as usize].own);
            add(&mut finder.rows[row as usize].total);
        }
    }
    finder.rows
}

struct Finder<'a> {
    profile: &'a Profile,
    by: &'a By,
    rows: Vec<Row>,
    index: HashMap<Box<str>, u32>,
    values: usize,
}

impl Finder<'_> {
    /// The rows of a location's frames, leaf first.
    fn location(&mut self, at: LocationId) -> Box<[u32]> {
        let profile = self.profile;
        let location = profile.location(at);
        let mapping = location.mapping.map(|at| profile.mapping(at));
        let path = mapping.map_or("", |mapping| &mapping.path);
        if *self.by == By::Binary {
            let name = match (path, location.lines.first()) {
                ("", Some(line)) if profile.function(line.function).name.starts_with('[') => {
                    // A marker, such as that of a thread that waits for a CPU.
                    &profile.function(line.function).name
                }
                ("", _) => NONE,
                (path, _) => path,
            };
            return [self.row(name, None, path, None)].into();
        }
        if location.lines.is_empty() {
            // As in pprof, all of a binary's in one row.
            let name = if path.is_empty() { "<unknown>".to_owned() } else { format!("[{}]", basename(path)) };
            return [self.row(&name, None, path, Some(FrameKind::Unresolved))].into();
        }
        let place = mapping.map(|mapping| mapping_kind(&mapping.path));
        let last = location.lines.len() - 1;
        let lines = location.lines.iter().enumerate();
        lines
            .map(|(at, line)| {
                self.line(
                    location,
                    at,
                    line.line,
                    if at < last { Some(FrameKind::Inlined) } else { place },
                    path,
                )
            })
            .collect()
    }

    fn line(
        &mut self,
        location: &Location,
        at: usize,
        line: i64,
        place: Option<FrameKind>,
        path: &str,
    ) -> u32 {
        let function = self.profile.function(location.lines[at].function);
        let name = if function.name.is_empty() { &function.system_name } else { &function.name };
        let kind = Some(kind(name, place));
        let row = if *self.by == By::Line {
            self.row(name, Some((&function.filename, line)), path, kind)
        } else {
            self.row(name, None, path, kind)
        };
        if self.rows[row as usize].file.is_empty() {
            self.rows[row as usize].file.clone_from(&function.filename);
        }
        row
    }

    fn row(&mut self, name: &str, line: Option<(&str, i64)>, binary: &str, kind: Option<FrameKind>) -> u32 {
        let name = match line {
            Some((file, line)) if !file.is_empty() => format!("{name} {file}:{line}"),
            Some((_, line)) if line > 0 => format!("{name}:{line}"),
            _ => name.to_owned(),
        };
        let next = self.rows.len() as u32;
        let row = *self.index.entry(name.as_str().into()).or_insert(next);
        if row == next {
            let zero = vec![0; self.values];
            self.rows.push(Row {
                name,
                binary: binary.to_owned(),
                file: line.map_or_else(String::new, |(file, _)| file.to_owned()),
                kind,
                own: zero.clone(),
                total: zero,
            });
        }
        row
    }

    /// The rows of a set of labels: several where it has several values of the label, as in `go tool pprof -tags`.
    fn labels(&mut self, labels: LabelsId) -> Box<[u32]> {
        let labels = self.profile.labels(labels);
        let find = |key: &str| labels.iter().find(|label| &*label.key == key).map(text);
        let both = |name: &str, id: &str| match (find(name), find(id)) {
            (Some(name), Some(id)) => Some(format!("{name} ({id})")),
            (name, id) => name.or(id),
        };
        let name = match self.by {
            By::Process => both("comm", "pid"),
            By::Thread => both("thread_comm", "tid"),
            By::Label(key) => {
                let values = labels.iter().filter(|label| *label.key == **key);
                let mut rows: Vec<u32> = values.map(|value| self.row(&text(value), None, "", None)).collect();
                rows.sort_unstable();
                rows.dedup();
                if !rows.is_empty() {
                    return rows.into();
                }
                None
            }
            By::Function | By::Line | By::Binary => None,
        };
        [self.row(name.as_deref().unwrap_or(NONE), None, "", None)].into()
    }
}

fn text(label: &Label) -> String {
    match &label.value {
        LabelValue::Str(text) => text.to_string(),
        LabelValue::Num(number, unit) => super::scale::label(*number, unit),
    }
}
