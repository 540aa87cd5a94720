//! From the locations of a profile to frames: what stands in one cell of a flamegraph.
//!
//! A location is an address; a frame is a function, of one kind, in one binary. Many locations have the same
//! frame, and one location has several where functions were inlined. What a frame looks like in text is not
//! decided here: its kind is a field, and its name is the one in the file.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use super::names::{FrameKind, address_name, clean, escape, kind, mapping_kind, marker_kind};
use crate::model::profile::{FunctionId, Interner, Location, LocationId, MappingId, Profile};

/// Most bytes of the distinct frames' names. One function may have a frame of each kind.
const MAX_NAMES: usize = 1 << 29;

/// A frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its name, which may hold anything but control characters, and is not empty.
    pub name: Box<str>,
    /// What it is.
    pub kind: FrameKind,
    /// Index into [`Frames::binaries`].
    pub binary: Option<u32>,
    /// The function; none of a label's value or an address without a name.
    pub function: Option<FunctionId>,
    /// First and last source line that was seen of it, or 0.
    pub lines: (i64, i64),
}

/// When two frames are the same.
#[derive(Clone, Copy, Debug)]
pub enum Identity {
    /// The same name, kind and binary.
    Function,
    /// The same name with what is appended for its kind: what a line of text can tell apart.
    Text(fn(FrameKind) -> &'static str),
}

/// What tells frames apart: name, kind and mapping.
type Key = (Box<str>, Option<FrameKind>, Option<u32>);

/// All frames of a profile, each once, and how they were found.
#[derive(Debug)]
pub struct Frames<'a> {
    profile: &'a Profile,
    identity: Identity,
    /// The frames.
    pub all: Vec<Frame>,
    index: HashMap<Key, u32>,
    /// Paths of binaries.
    pub binaries: Interner<Box<str>>,
    names_bytes: usize,
    /// Kind and binary of each mapping.
    mappings: Vec<(FrameKind, Option<u32>)>,
    /// Frames of functions: a file may repeat a long name very often.
    functions: HashMap<(FunctionId, FrameKind, Option<u32>), u32>,
    /// Frames of locations, root first: by themselves, in threads that are blocked, in wakers.
    locations: [Vec<Option<Box<[u32]>>>; 3],
}

impl<'a> Frames<'a> {
    pub(super) fn new(profile: &'a Profile, identity: Identity) -> Self {
        let mut binaries = Interner::default();
        let mut mapping = |path: &str| {
            let binary = (!path.is_empty()).then(|| binaries.intern(clean(path).into_boxed_str()) as u32);
            (mapping_kind(path), binary)
        };
        Self {
            profile,
            identity,
            all: Vec::new(),
            index: HashMap::new(),
            mappings: profile.mappings.iter().map(|it| mapping(&it.path)).collect(),
            binaries,
            names_bytes: 0,
            functions: HashMap::new(),
            locations: std::array::from_fn(|_| vec![None; profile.locations.len()]),
        }
    }

    /// The frame of a label's value.
    pub(super) fn label(&mut self, value: &str) -> Result<u32> {
        self.intern(value, FrameKind::Process, None, None)
    }

    /// The frame of a sample without a stack.
    pub(super) fn no_stack(&mut self) -> Result<u32> {
        self.intern("[no stack]", FrameKind::Unresolved, None, None)
    }

    /// The frames of a location, root first; those of wakers leaf first, as they go from the leaf to the root.
    /// `state` is what the frames are, whatever their code: of a thread that is blocked, or of the one that
    /// woke it.
    pub(super) fn location(&mut self, at: LocationId, state: Option<FrameKind>) -> Result<&[u32]> {
        let known = match state {
            None => 0,
            Some(FrameKind::Waker) => 2,
            Some(_) => 1,
        };
        if self.locations[known][at.index()].is_none() {
            let frames = self.find(self.profile.location(at), state)?;
            self.locations[known][at.index()] = Some(frames.into());
        }
        Ok(self.locations[known][at.index()].as_deref().unwrap_or_default())
    }

    fn find(&mut self, location: &Location, state: Option<FrameKind>) -> Result<Vec<u32>> {
        let place = |at: MappingId| self.mappings[at.index()];
        let (place, binary) = location.mapping.map(place).map_or((None, None), |(kind, of)| (Some(kind), of));
        let Some((physical, inlined)) = location.lines.split_last() else {
            let mapping = location.mapping.map(|at| self.profile.mapping(at));
            let name = address_name(location, mapping);
            return Ok(vec![self.intern(&name, state.unwrap_or(FrameKind::Unresolved), binary, None)?]);
        };
        let mut frames = Vec::with_capacity(location.lines.len());
        let callers = [(physical, place)].into_iter();
        for (line, place) in callers.chain(inlined.iter().rev().map(|it| (it, Some(FrameKind::Inlined)))) {
            let frame = self.function(line.function, place, binary, state)?;
            if line.line > 0 {
                let lines = &mut self.all[frame as usize].lines;
                let first = if lines.0 == 0 { line.line } else { lines.0.min(line.line) };
                *lines = (first, lines.1.max(line.line));
            }
            frames.push(frame);
        }
        if state == Some(FrameKind::Waker) {
            frames.reverse();
        }
        Ok(frames)
    }

    fn function(
        &mut self,
        at: FunctionId,
        place: Option<FrameKind>,
        binary: Option<u32>,
        state: Option<FrameKind>,
    ) -> Result<u32> {
        let function = self.profile.function(at);
        // Some writers give the symbol only.
        let name = if function.name.is_empty() { &function.system_name } else { &function.name };
        let kind = marker_kind(name).or(state).unwrap_or_else(|| kind(name, place));
        if let Some(&frame) = self.functions.get(&(at, kind, binary)) {
            return Ok(frame);
        }
        let frame = self.intern(name, kind, binary, Some(at))?;
        self.functions.insert((at, kind, binary), frame);
        Ok(frame)
    }

    fn intern(
        &mut self,
        name: &str,
        kind: FrameKind,
        binary: Option<u32>,
        function: Option<FunctionId>,
    ) -> Result<u32> {
        let name = clean(name);
        let key: (Box<str>, _, _) = match self.identity {
            Identity::Function => (name.as_str().into(), Some(kind), binary),
            Identity::Text(mark) => ((escape(&name) + mark(kind)).into(), None, None),
        };
        if let Some(&frame) = self.index.get(&key) {
            return Ok(frame);
        }
        self.names_bytes += 2 * name.len();
        ensure!(
            self.names_bytes <= MAX_NAMES,
            "failed to name the frames: their names take more than {} MiB; record for a shorter time",
            MAX_NAMES >> 20
        );
        // Every frame took bytes in a file whose size is limited well below 2³².
        let frame = self.all.len() as u32;
        self.all.push(Frame { name: name.into(), kind, binary, function, lines: (0, 0) });
        self.index.insert(key, frame);
        Ok(frame)
    }
}
