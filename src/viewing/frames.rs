//! From a profile to the frames that text shows: root first, each with a name that is safe in a
//! folded line and a kind that outputs may mark or colour.
//!
//! A folded line is `root;…;leaf count`. Programs that read it split at `;`, take a number after
//! the last space for the count and one before it for a second count, and skip lines that start
//! with `# `. Names are changed so that none of this happens by accident: see [`super::names`].

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::iter;

use anyhow::{Result, ensure};

use super::names::{FrameKind, address_name, escape, kind, mapping_kind};
use crate::model::profile::{FunctionId, Interner, LabelValue, LabelsId, Location, LocationId, Profile};

/// Most frames of one stack, inlined ones included. Locations may expand to many lines each.
const MAX_STACK: usize = 1 << 20;
/// Most frames of all stacks together; each takes four bytes.
const MAX_FRAMES: usize = 1 << 28;
/// Most bytes of the distinct frames' names.
const MAX_NAMES: usize = 1 << 29;

/// Stacks as lines, sorted and each once.
#[derive(Debug, Default)]
pub struct Folded {
    frames: Interner<Box<str>>,
    kinds: Vec<FrameKind>,
    /// Stacks root first as indices into `frames`, with their sums.
    stacks: Vec<(Box<[u32]>, i64)>,
}

/// Folds a profile: the values at `index` of equal lines are summed up, lines whose sum is 0 are
/// left out. The values of the labels `tagroot` come first, in this order; a sample without a
/// label has no frame for it. Samples that have a value at `blocked` have frames of that kind. `mark`
/// is appended to a name by its kind.
///
/// # Errors
/// If the stacks hold more frames than memory is for, as only a made-up file does.
pub fn fold(
    profile: &Profile,
    index: usize,
    blocked: Option<usize>,
    tagroot: &[String],
    mark: fn(FrameKind) -> &'static str,
) -> Result<Folded> {
    let mut folder = Folder::new(profile, mark);
    let mut sums: HashMap<Box<[u32]>, i64> = HashMap::new();
    let mut stack = Vec::new();
    let mut total_frames = 0;
    for sample in profile.samples() {
        stack.clear();
        folder.state = None;
        for key in tagroot {
            if let Some(value) = tag(profile, sample.labels, key) {
                stack.push(folder.intern(&value, FrameKind::Process)?);
            }
        }
        let is_blocked = blocked.is_some_and(|at| sample.values[at] != 0);
        folder.state = is_blocked.then_some(FrameKind::Blocked);
        for &at in profile.stack(sample.stack).iter().rev() {
            if profile.is_waker_separator(at) {
                folder.state = Some(FrameKind::Waker);
            }
            stack.extend_from_slice(folder.location(at)?);
            ensure!(
                stack.len() <= MAX_STACK,
                "failed to fold a stack: it has more than {MAX_STACK} frames; no program that runs \
                 has such a stack, so make the profile again"
            );
        }
        if stack.is_empty() {
            stack.push(folder.intern("[no stack]", FrameKind::Unresolved)?);
        }
        let value = sample.values[index];
        if let Some(sum) = sums.get_mut(&stack[..]) {
            *sum = sum.saturating_add(value);
            continue;
        }
        total_frames += stack.len();
        ensure!(
            total_frames <= MAX_FRAMES,
            "failed to fold the stacks: they have more than {MAX_FRAMES} frames; record for a \
             shorter time"
        );
        sums.insert(stack.as_slice().into(), value);
    }
    let mut folded = folder.folded;
    let mut stacks: Vec<_> = sums.into_iter().filter(|(_, sum)| *sum != 0).collect();
    stacks.sort_by(|a, b| folded.compare(a, b));
    folded.stacks = stacks;
    Ok(folded)
}

/// Names each location once, and each function once per kind: a file may repeat a long name very
/// often.
struct Folder<'a> {
    profile: &'a Profile,
    mark: fn(FrameKind) -> &'static str,
    folded: Folded,
    names_bytes: usize,
    mapping_kinds: Vec<FrameKind>,
    /// What the frames to come are, whatever their code: of a thread that is blocked, or of the one
    /// that woke it.
    state: Option<FrameKind>,
    /// Frames of functions that are inlined, or else lie in a mapping of a kind or in none.
    functions: HashMap<(FunctionId, Option<FrameKind>), u32>,
    /// Frames of locations, root first: by themselves, in threads that are blocked, in wakers.
    locations: [Vec<Option<Box<[u32]>>>; 3],
}

impl<'a> Folder<'a> {
    fn new(profile: &'a Profile, mark: fn(FrameKind) -> &'static str) -> Self {
        Self {
            profile,
            mark,
            folded: Folded::default(),
            names_bytes: 0,
            mapping_kinds: profile.mappings.iter().map(|it| mapping_kind(&it.path)).collect(),
            state: None,
            functions: HashMap::new(),
            locations: std::array::from_fn(|_| vec![None; profile.locations.len()]),
        }
    }

    fn intern(&mut self, name: &str, kind: FrameKind) -> Result<u32> {
        let kind = match kind {
            FrameKind::Unresolved if name == "[runnable]" => FrameKind::Runnable,
            FrameKind::Process => kind,
            _ => self.state.unwrap_or(kind),
        };
        let mut text = escape(name);
        text.push_str((self.mark)(kind));
        let length = text.len();
        let at = self.folded.frames.intern(text.into());
        if at == self.folded.kinds.len() {
            self.folded.kinds.push(kind);
            self.names_bytes += length;
            ensure!(
                self.names_bytes <= MAX_NAMES,
                "failed to fold the stacks: the names of their frames have more than {} MiB; \
                 record for a shorter time",
                MAX_NAMES >> 20
            );
        }
        // Every frame took bytes in a file whose size is limited well below 2³².
        Ok(at as u32)
    }

    fn location(&mut self, at: LocationId) -> Result<&[u32]> {
        let known = match self.state {
            None => 0,
            Some(FrameKind::Waker) => 2,
            Some(_) => 1,
        };
        if self.locations[known][at.index()].is_none() {
            let frames = self.frames(self.profile.location(at))?;
            self.locations[known][at.index()] = Some(frames.into());
        }
        Ok(self.locations[known][at.index()].as_deref().unwrap_or_default())
    }

    fn frames(&mut self, location: &Location) -> Result<Vec<u32>> {
        let Some((physical, inlined)) = location.lines.split_last() else {
            let mapping = location.mapping.map(|at| self.profile.mapping(at));
            return Ok(vec![self.intern(&address_name(location, mapping), FrameKind::Unresolved)?]);
        };
        let place = location.mapping.map(|at| self.mapping_kinds[at.index()]);
        let mut frames = vec![self.function(physical.function, place)?];
        for line in inlined.iter().rev() {
            frames.push(self.function(line.function, Some(FrameKind::Inlined))?);
        }
        if self.state == Some(FrameKind::Waker) {
            // These go from the leaf to the root.
            frames.reverse();
        }
        Ok(frames)
    }

    fn function(&mut self, at: FunctionId, place: Option<FrameKind>) -> Result<u32> {
        let place_or_state = self.state.or(place);
        if let Some(&frame) = self.functions.get(&(at, place_or_state)) {
            return Ok(frame);
        }
        let name = &self.profile.function(at).name;
        let frame = self.intern(name, kind(name, place))?;
        self.functions.insert((at, place_or_state), frame);
        Ok(frame)
    }
}

impl Folded {
    /// The stacks, each as its frames' names from the root to the leaf and its sum, in the order
    /// of their lines' bytes.
    pub fn lines(&self) -> impl Iterator<Item = (impl Iterator<Item = &str>, i64)> {
        self.stacks.iter().map(|(stack, sum)| (self.names(stack), *sum))
    }

    /// Each distinct frame with its kind. If `mark` makes two kinds look alike, the first one.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, FrameKind)> {
        self.frames.iter().map(|name| &**name).zip(self.kinds.iter().copied())
    }

    fn names(&self, stack: &[u32]) -> impl Iterator<Item = &str> {
        stack.iter().map(|&at| &**self.frames.get(at as usize))
    }

    /// As the lines' bytes compare, which are not built for it.
    fn compare(&self, a: &(Box<[u32]>, i64), b: &(Box<[u32]>, i64)) -> Ordering {
        let common = iter::zip(&a.0, &b.0).take_while(|(a, b)| a == b).count();
        if let (Some(&a), Some(&b)) = (a.0.get(common), b.0.get(common)) {
            let (a, b) = (self.frames.get(a as usize), self.frames.get(b as usize));
            if !a.starts_with(&**b) && !b.starts_with(&**a) {
                return a.cmp(b);
            }
        }
        // What follows a name decides: a semicolon or, where the line ends, a space. So the last
        // common frame is compared too.
        let from = common.saturating_sub(1);
        let bytes = |(stack, sum): &'_ (Box<[u32]>, i64)| {
            let sum = *sum;
            let text = self.names(&stack[from..]).flat_map(|name| iter::once(";").chain([name]));
            let text: Vec<_> = text.collect();
            let bytes = text.into_iter().flat_map(str::bytes);
            bytes.chain(iter::once_with(move || format!(" {sum}").into_bytes()).flatten())
        };
        bytes(a).cmp(bytes(b))
    }
}

/// The values of a label, joined by commas as `go tool pprof -tagroot` does.
fn tag(profile: &Profile, labels: LabelsId, key: &str) -> Option<String> {
    let labels = profile.labels(labels).iter().filter(|label| &*label.key == key);
    let values: Vec<_> = labels
        .map(|label| match &label.value {
            LabelValue::Str(text) => Cow::from(&**text),
            LabelValue::Num(number, _) => number.to_string().into(),
        })
        .collect();
    (!values.is_empty() && !key.is_empty()).then(|| values.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::profile::{Function, Label, Line, Mapping, MappingId, ValueType};

    /// `main` calls `twice` in the same program, into which `leaf` is inlined; then an address
    /// in a library; then one of nowhere.
    fn profile() -> Profile {
        let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
        for (path, memory_start, file_offset) in [("/bin/app", 0x1000, 0), ("/lib/libx.so.1", 0x8000, 0x200)]
        {
            profile.mappings.push(Mapping {
                memory_start,
                file_offset,
                path: path.to_owned(),
                ..Mapping::default()
            });
        }
        let mut line = |name: &str| {
            let function = Function { name: name.to_owned(), ..Function::default() };
            Line { function: FunctionId::from(profile.functions.intern(function)), line: 0 }
        };
        let (main, twice, leaf) = (line("main"), line("twice"), line("leaf"));
        let at = |mapping, address, lines| Location { mapping, address, lines };
        let (app, lib) = (Some(MappingId(0)), Some(MappingId(1)));
        profile.locations = vec![
            at(app, 0x1010, vec![main]),
            at(app, 0x1020, vec![leaf, twice]),
            at(lib, 0x8034, vec![]),
            at(None, 0xdead, vec![]),
        ];
        profile
    }

    fn lines(profile: &Profile, tagroot: &[&str], mark: fn(FrameKind) -> &'static str) -> Vec<String> {
        let tagroot: Vec<_> = tagroot.iter().map(|&key| key.to_owned()).collect();
        let folded = fold(profile, 0, None, &tagroot, mark).unwrap();
        let line = |(names, sum): (_, i64)| format!("{} {sum}", Iterator::collect::<Vec<_>>(names).join(";"));
        folded.lines().map(line).collect()
    }

    #[test]
    fn stacks_turn_root_first_below_their_tags() {
        let mut profile = profile();
        let stack = profile.intern_stack(&[2, 1, 0].map(LocationId));
        let other = profile.intern_stack(&[LocationId(3)]);
        let none = profile.intern_stack(&[]);
        let comm = |name: &str| Label { key: "comm".into(), value: LabelValue::Str(name.into()) };
        let pid = Label { key: "pid".into(), value: LabelValue::Num(7, "".into()) };
        let a = profile.intern_labels(&[comm("app"), pid]);
        let b = profile.intern_labels(&[]);
        for (stack, labels, value) in [(stack, a, 2), (other, b, 1), (none, b, 4), (stack, b, 0)] {
            profile.add(stack, labels, &[value]);
        }
        let mark = |kind| match kind {
            FrameKind::Inlined => "_[i]",
            FrameKind::Process => "_[w]",
            _ => "",
        };
        assert_eq!(
            lines(&profile, &["pid", "comm", "tid"], mark),
            ["0xdead 1", "7_[w];app_[w];main;twice;leaf_[i];libx.so.1+0x234 2", "[no stack] 4",]
        );
        assert_eq!(lines(&profile, &[""], |_| "")[1], "[no stack] 4");
    }

    #[test]
    fn lines_that_read_the_same_are_one_and_sorted_as_text() {
        let mut profile = Profile::new(vec![ValueType::new("samples", "count")]);
        let names = ["a", "a (x)", "b", "ab", "a;"];
        for (mapping, path) in ["/bin/x", "[kernel.kallsyms]"].iter().enumerate() {
            profile.mappings.push(Mapping { path: (*path).to_owned(), ..Mapping::default() });
            for name in names {
                let function = Function { name: name.to_owned(), ..Function::default() };
                let function = FunctionId::from(profile.functions.intern(function));
                profile.locations.push(Location {
                    mapping: Some(mapping.into()),
                    address: 0,
                    lines: vec![Line { function, line: 0 }],
                });
            }
        }
        let labels = profile.intern_labels(&[]);
        for stack in [&[0][..], &[5], &[2, 0], &[2, 1], &[0, 0], &[3], &[4], &[2, 0, 0]] {
            let stack: Vec<_> = stack.iter().map(|&at| LocationId(at)).collect();
            let stack = profile.intern_stack(&stack);
            profile.add(stack, labels, &[1]);
        }
        let found = lines(&profile, &[], |_| "");
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!(found, sorted);
        assert_eq!(found, ["a (x);b 1", "a 2", "a: 1", "a;a 1", "a;a;b 1", "a;b 1", "ab 1"]);
    }
}
