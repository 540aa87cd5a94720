//! The one model of a profile: what `record` fills, what the pprof reader returns and every
//! output draws from. It has the shape of `profile.proto` with names in place of string indices:
//! values with a type and a unit, stacks of locations, locations in mappings, named by lines.
//!
//! Stacks are leaf first, as in pprof; text output turns them root first. Everything that repeats
//! (functions, locations, beginnings of stacks, label sets) is interned, so that the memory of a profile grows
//! with what is distinct in it and not with the number of samples.
//!
//! This module and its tree know only std.

use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;

use super::prefix_tree::{Backwards, PrefixTree};

/// What one value of a sample measures, such as `cpu` in `nanoseconds`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueType {
    /// `samples`, `cpu`, …
    pub name: String,
    /// `count`, `nanoseconds`, `bytes`, …
    pub unit: String,
}

impl ValueType {
    /// Shorthand for a literal type and unit.
    pub fn new(name: &str, unit: &str) -> Self {
        Self { name: name.to_owned(), unit: unit.to_owned() }
    }
}

/// A file, or a thing like one, into which addresses point.
///
/// Address spaces of different processes overlap, so a recording does not store them: each object
/// gets a range of its own, in which `address - memory_start + file_offset` is the file offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub memory_start: u64,
    /// First address behind the mapping.
    pub memory_limit: u64,
    /// File offset of `memory_start`.
    pub file_offset: u64,
    /// Path as the process saw it, or a name in brackets such as `[kernel.kallsyms]`.
    pub path: String,
    /// GNU build id in lower-case hex, or empty.
    pub build_id: String,
    /// True if at least one location in this mapping has a function name from symbol data.
    pub has_functions: bool,
    /// True if at least one location in this mapping has a source file.
    pub has_filenames: bool,
    /// True if at least one location in this mapping has a line number.
    pub has_line_numbers: bool,
    /// True if at least one location in this mapping was expanded into inlined functions.
    pub has_inline_frames: bool,
}

/// A function, named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Function {
    /// Demangled name, for people.
    pub name: String,
    /// Name as in the symbol table.
    pub system_name: String,
    /// Source file, or empty.
    pub filename: String,
    /// Line of the function's definition, or 0.
    pub start_line: i64,
}

/// One line of a location: a function, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The function.
    pub function: FunctionId,
    /// Source line, or 0.
    pub line: i64,
}

/// An address, and once it is symbolized the functions there, innermost inlined one first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// The mapping that holds `address`.
    pub mapping: Option<MappingId>,
    /// Address within the mapping's range. For a caller it lies within the call instruction.
    pub address: u64,
    /// Functions at the address, innermost first; empty while it is not symbolized.
    pub lines: Vec<Line>,
}

/// Name of the frame between the stack of a thread that was blocked and, towards the leaf, the stack
/// of who woke it.
pub const WAKER_SEPARATOR: &str = "--";

/// Label that says when a sample was taken: nanoseconds since the recording began.
pub const TIME_LABEL: &str = "timeline";
/// Label that says on which CPU a sample was taken, where it is kept when.
pub const CPU_LABEL: &str = "cpu";

/// A label's value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LabelValue {
    /// Text.
    Str(Rc<str>),
    /// A number and its unit, which may be empty.
    Num(i64, Rc<str>),
}

/// A fact about a sample, such as `comm` = `bash`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label {
    /// `pid`, `comm`, `thread_comm`, …
    pub key: Rc<str>,
    /// Its value.
    pub value: LabelValue,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);
        impl $name {
            /// Position in the table.
            pub fn index(self) -> usize { self.0 as usize }
        }
        impl From<usize> for $name {
            /// # Panics
            /// Beyond 2³² entries, which no input that fits our size limits reaches.
            fn from(index: usize) -> Self {
                Self(u32::try_from(index).expect("more than 2^32 interned entries"))
            }
        }
    )*};
}
ids! {
    /// Index into [`Profile::mappings`].
    MappingId,
    /// Index into [`Profile::functions`].
    FunctionId,
    /// Index into [`Profile::locations`].
    LocationId,
    /// An interned stack.
    StackId,
    /// An interned set of labels.
    LabelsId
}

/// Values by position, each stored once.
#[derive(Clone, Debug)]
pub struct Interner<T> {
    values: Vec<Rc<T>>,
    index: HashMap<Rc<T>, u32>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: Vec::new(), index: HashMap::new() }
    }
}

impl<T: Eq + Hash> Interner<T> {
    /// The position of `value`, which is added if it is new.
    pub fn intern(&mut self, value: T) -> usize {
        if let Some(&at) = self.index.get(&value) {
            return at as usize;
        }
        let at = self.values.len();
        let value = Rc::new(value);
        self.values.push(Rc::clone(&value));
        self.index.insert(value, at as u32);
        at
    }

    /// The position of `value`, if it is there.
    pub fn find(&self, value: &T) -> Option<usize> {
        self.index.get(value).map(|&at| at as usize)
    }

    /// The value at a position that [`Self::intern`] returned.
    pub fn get(&self, at: usize) -> &T {
        &self.values[at]
    }

    /// All values in the order of their positions.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.values.iter().map(|value| &**value)
    }
}

/// Values counted for one stack under one set of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The stack, see [`Profile::stack`].
    pub stack: StackId,
    /// The labels, see [`Profile::labels`].
    pub labels: LabelsId,
    /// One value per entry of [`Profile::sample_types`].
    pub values: Vec<i64>,
}

/// A profile. See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// What the values of each sample measure.
    pub sample_types: Vec<ValueType>,
    /// Name of the sample type to show first, or empty.
    pub default_sample_type: String,
    /// Regular expression for the whole name of functions that viewers leave out, with all that they
    /// call, or empty: the allocator's in a profile of allocations.
    pub drop_frames: String,
    /// Exceptions from `drop_frames`, or empty.
    pub keep_frames: String,
    /// What `period` measures.
    pub period_type: ValueType,
    /// Distance between two samples.
    pub period: i64,
    /// Start of the recording, nanoseconds since 1970, or 0.
    pub time_ns: i64,
    /// Length of the recording in nanoseconds, or 0.
    pub duration_ns: i64,
    /// Free text for people.
    pub comments: Vec<String>,
    /// The objects that addresses point into. The first is the main binary.
    pub mappings: Vec<Mapping>,
    /// Every function named by a line.
    pub functions: Interner<Function>,
    /// Every location. Distinct by `mapping` and `address` in a recording.
    pub locations: Vec<Location>,
    /// Root first.
    stacks: PrefixTree,
    labels: Interner<Box<[Label]>>,
    /// What the sets of labels take.
    label_bytes: u64,
    samples: Vec<Sample>,
    sample_index: HashMap<(StackId, LabelsId), usize>,
}

/// Locations of a stack, leaf first.
#[derive(Clone, Debug)]
pub struct Stack<'a>(Backwards<'a>);

impl Iterator for Stack<'_> {
    type Item = LocationId;

    fn next(&mut self) -> Option<LocationId> {
        self.0.next().map(LocationId)
    }
}

/// Bytes of a hash table with room for so many entries: a byte of control each, and an eighth that is empty.
pub fn table_bytes<T>(room: usize) -> u64 {
    (room as u64 * 8 / 7) * (size_of::<T>() as u64 + 1)
}

impl Profile {
    /// An empty profile of these values.
    pub fn new(sample_types: Vec<ValueType>) -> Self {
        Self { sample_types, ..Self::default() }
    }

    /// Interns a stack, leaf first.
    pub fn intern_stack(&mut self, leaf_first: &[LocationId]) -> StackId {
        StackId(self.stacks.insert(leaf_first.iter().rev().map(|at| at.0)))
    }

    /// The stack in which that of `callers` calls `leaf`; without callers, the one that begins with it.
    pub fn push_frame(&mut self, callers: Option<StackId>, leaf: LocationId) -> StackId {
        StackId(self.stacks.child(callers.map_or(PrefixTree::ROOT, |stack| stack.0), leaf.0))
    }

    /// The callers of a stack's leaf, and the leaf; none of an empty stack.
    pub fn pop_frame(&self, stack: StackId) -> Option<(Option<StackId>, LocationId)> {
        let leaf = self.stack(stack).next()?;
        let callers = self.stacks.parent(stack.0);
        Some(((callers != PrefixTree::ROOT).then_some(StackId(callers)), leaf))
    }

    /// Number of distinct beginnings of stacks, which take eight bytes each.
    pub fn stack_nodes(&self) -> usize {
        self.stacks.len()
    }

    /// Interns a set of labels; their order counts.
    pub fn intern_labels(&mut self, labels: &[Label]) -> LabelsId {
        let known = self.labels.values.len();
        let id = self.labels.intern(labels.into());
        if id == known {
            self.label_bytes += size_of_val(labels) as u64 + 64; // with its place in two tables
        }
        id.into()
    }

    /// Whether there is a sample of these.
    pub fn has_sample(&self, stack: StackId, labels: LabelsId) -> bool {
        self.sample_index.contains_key(&(stack, labels))
    }

    /// A stack, leaf first, if it is known.
    pub fn find_stack(&self, leaf_first: &[LocationId]) -> Option<StackId> {
        self.stacks.find(leaf_first.iter().rev().map(|at| at.0)).map(StackId)
    }

    /// A set of labels, if it is known.
    pub fn find_labels(&self, labels: &[Label]) -> Option<LabelsId> {
        self.labels.find(&labels.into()).map(LabelsId::from)
    }

    /// Bytes that are held, by the sizes of the tables that grow with what is counted.
    pub fn held_bytes(&self) -> u64 {
        let (nodes, elsewhere) = self.stacks.room();
        let values = 8 * self.sample_types.len() as u64 + 16; // and what the allocator adds
        8 * nodes as u64
            + table_bytes::<((u32, u32), u32)>(elsewhere)
            + size_of::<Sample>() as u64 * self.samples.capacity() as u64
            + values * self.samples.len() as u64
            + table_bytes::<((StackId, LabelsId), usize)>(self.sample_index.capacity())
            + size_of::<Location>() as u64 * self.locations.capacity() as u64
            + self.label_bytes
    }

    /// Adds `values` (one per sample type) to what `stack` has under `labels`.
    pub fn add(&mut self, stack: StackId, labels: LabelsId, values: &[i64]) {
        debug_assert_eq!(values.len(), self.sample_types.len());
        let at = *self.sample_index.entry((stack, labels)).or_insert_with(|| {
            self.samples.push(Sample { stack, labels, values: vec![0; values.len()] });
            self.samples.len() - 1
        });
        for (sum, value) in self.samples[at].values.iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
    }

    /// Takes all samples out, to be changed and added again.
    pub fn take_samples(&mut self) -> Vec<Sample> {
        self.sample_index.clear();
        std::mem::take(&mut self.samples)
    }

    /// Adds a value to every sample, made of those that it has.
    pub fn add_sample_type(&mut self, ty: ValueType, value: impl Fn(&[i64]) -> i64) {
        self.sample_types.push(ty);
        for sample in &mut self.samples {
            sample.values.push(value(&sample.values));
        }
    }

    /// Adds a frame that is no code.
    pub fn marker(&mut self, name: &str) -> LocationId {
        let name = name.to_owned();
        let function = Function { system_name: name.clone(), name, ..Function::default() };
        let function = self.functions.intern(function).into();
        self.locations.push(Location { lines: vec![Line { function, line: 0 }], ..Location::default() });
        LocationId::from(self.locations.len() - 1)
    }

    /// Whether the frame is [`WAKER_SEPARATOR`].
    pub fn is_waker_separator(&self, at: LocationId) -> bool {
        let location = self.location(at);
        location.mapping.is_none()
            && matches!(location.lines[..], [line] if self.function(line.function).name == WAKER_SEPARATOR)
    }

    /// The stack without that of the thread that woke this one.
    pub fn without_waker(&self, id: StackId) -> StackId {
        let mut found = id.0;
        let mut node = id.0;
        for at in self.stack(id) {
            node = self.stacks.parent(node);
            if self.is_waker_separator(at) {
                found = node;
            }
        }
        StackId(found)
    }

    /// The samples, each stack and label set once.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Locations of a stack, leaf first.
    pub fn stack(&self, id: StackId) -> Stack<'_> {
        Stack(self.stacks.backwards(id.0))
    }

    /// Labels of a set.
    pub fn labels(&self, id: LabelsId) -> &[Label] {
        self.labels.get(id.index())
    }

    /// All sets of labels, in the order of their ids.
    pub fn label_sets(&self) -> impl ExactSizeIterator<Item = &[Label]> {
        self.labels.iter().map(|set| &**set)
    }

    /// Text of the label `key`, if the set has it. Numbers are written in decimal.
    pub fn label(&self, id: LabelsId, key: &str) -> Option<String> {
        let label = self.labels(id).iter().find(|label| &*label.key == key)?;
        Some(match &label.value {
            LabelValue::Str(text) => text.to_string(),
            LabelValue::Num(number, _) => number.to_string(),
        })
    }

    /// Location at a position.
    pub fn location(&self, id: LocationId) -> &Location {
        &self.locations[id.index()]
    }

    /// Function at a position.
    pub fn function(&self, id: FunctionId) -> &Function {
        self.functions.get(id.index())
    }

    /// Mapping at a position.
    pub fn mapping(&self, id: MappingId) -> &Mapping {
        &self.mappings[id.index()]
    }

    /// Sum of the value at `index` over all samples.
    pub fn total(&self, index: usize) -> i64 {
        self.samples.iter().fold(0, |sum, sample| sum.saturating_add(sample.values[index]))
    }

    /// Sum of the value at `index` over all samples, of each without its sign: the whole that shares are of, as in
    /// google/pprof. None where it is 2^63 or more, at which sums of samples stop.
    pub fn size(&self, index: usize) -> Option<i64> {
        let size =
            self.samples.iter().map(|sample| u128::from(sample.values[index].unsigned_abs())).sum::<u128>();
        i64::try_from(size).ok().filter(|size| *size < i64::MAX)
    }

    /// Index of the sample type to show: `wanted` by name, or else the default, or else the last,
    /// as `go tool pprof` chooses.
    pub fn sample_type(&self, wanted: Option<&str>) -> Option<usize> {
        let by_name = |name: &str| self.sample_types.iter().position(|ty| ty.name == name);
        match wanted {
            Some(name) => by_name(name),
            None => by_name(&self.default_sample_type).or(self.sample_types.len().checked_sub(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stacks_under_equal_labels_add_up() {
        let mut profile = Profile {
            sample_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
            ..Profile::default()
        };
        profile.locations = vec![Location::default(), Location { address: 1, ..Location::default() }];
        let deep = profile.intern_stack(&[LocationId(1), LocationId(0)]);
        let flat = profile.intern_stack(&[LocationId(0)]);
        let label = |name: &str| Label { key: "comm".into(), value: LabelValue::Str(name.into()) };
        let a = profile.intern_labels(&[label("a")]);
        let b = profile.intern_labels(&[label("b")]);
        for (stack, labels) in [(deep, a), (flat, a), (deep, b), (deep, a)] {
            profile.add(stack, labels, &[1, 10]);
        }
        let values: Vec<_> = profile.samples().iter().map(|sample| sample.values.clone()).collect();
        assert_eq!(values, [vec![2, 20], vec![1, 10], vec![1, 10]]);
        assert_eq!(profile.total(1), 40);
        assert_eq!(profile.label(b, "comm").as_deref(), Some("b"));
        assert_eq!(profile.label(b, "pid"), None);
    }

    #[test]
    fn the_default_sample_type_wins_over_the_last() {
        let mut profile = Profile {
            sample_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
            ..Profile::default()
        };
        assert_eq!(profile.sample_type(None), Some(1));
        profile.default_sample_type = "samples".to_owned();
        assert_eq!(profile.sample_type(None), Some(0));
        assert_eq!(profile.sample_type(Some("cpu")), Some(1));
        assert_eq!(profile.sample_type(Some("wall")), None);
    }
}
