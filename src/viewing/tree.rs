//! One tree of frames, which every output is made of: folded text, pictures, the viewer and tables.
//!
//! A node is a frame under its callers: the root is node 0 and no frame, and children have higher numbers than
//! their parents, so that a loop downwards over the numbers sees children first. Nodes take eight bytes, however
//! many samples there are and however long their stacks.
//!
//! Values are with *rows*: what one node has of its own under one set of labels, all values of the file side by
//! side. [`Tree::own`] adds the rows up to a value for each node, [`Tree::totals`] adds what is below.
//!
//! A thread that is blocked in a function is another thing than one that computes there. So a sample that has
//! values of both sorts becomes two rows: the blocked time goes to frames of [`FrameKind::Blocked`], the rest to
//! the functions' own.
//!
//! ```text
//! let tree = Tree::new(&profile, &Shape { tagroot: &[], ..Shape::default() })?;
//! let (own, totals) = (tree.own(value), tree.totals(value));
//! for node in 1..tree.len() as u32 {
//!     let frame = tree.frame(node); // name, kind, binary, function, lines
//!     // own[node as usize], totals[node as usize], tree.parent(node)
//! }
//! ```

use std::borrow::Cow;

use anyhow::{Result, ensure};

use super::frames::{Frame, Frames, Identity};
use super::names::FrameKind;
use crate::model::prefix_tree::PrefixTree;
use crate::model::profile::{LabelValue, LabelsId, Profile, Sample};

/// Most nodes: 2 GiB of them.
const MAX_NODES: usize = 1 << 28;
/// Most frames of all samples' stacks. Locations may expand to many lines each, and be repeated.
const MAX_STEPS: u64 = 1 << 33;

/// The root: every stack, and no frame.
pub const ROOT: u32 = PrefixTree::ROOT;

/// What a tree is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// When two frames are the same.
    pub identity: Identity,
    /// Labels whose values stand at the root, in this order. A sample without a label has no frame for it.
    pub tagroot: &'a [String],
    /// Only samples that have this value.
    pub value: Option<usize>,
    /// Leaf first: functions stand at the root, their callers above them, and labels at the far end.
    pub reverse: bool,
}

impl Default for Shape<'_> {
    fn default() -> Self {
        Self { identity: Identity::Function, tagroot: &[], value: None, reverse: false }
    }
}

/// The tree. See the module's text.
#[derive(Debug)]
pub struct Tree<'a> {
    frames: Frames<'a>,
    nodes: PrefixTree,
    rows: Vec<(u32, LabelsId)>,
    /// Values of the rows, one after the other.
    values: Vec<i64>,
    types: usize,
}

impl<'a> Tree<'a> {
    /// The tree of a profile's samples.
    ///
    /// # Errors
    /// If it takes more memory or time than any program's stacks, as only a made-up file does.
    pub fn new(profile: &'a Profile, shape: &Shape<'_>) -> Result<Self> {
        let types = profile.sample_types.len();
        let mut tree = Self {
            frames: Frames::new(profile, shape.identity),
            nodes: PrefixTree::default(),
            rows: Vec::new(),
            values: Vec::new(),
            types,
        };
        let split = Split::new(profile);
        let mut stack = Vec::new();
        let mut steps = 0;
        for sample in profile.samples() {
            for (state, values) in split.rows(sample) {
                if shape.value.map_or_else(|| values.iter().all(|it| *it == 0), |at| values[at] == 0) {
                    continue;
                }
                stack.clear();
                tree.stack(profile, shape, sample, state, &mut stack)?;
                steps += stack.len() as u64;
                ensure!(
                    steps <= MAX_STEPS,
                    "failed to go through the stacks: they have more than {MAX_STEPS} frames; record for a \
                     shorter time"
                );
                let mut node = ROOT;
                for &frame in &stack {
                    node = tree.nodes.child(node, frame);
                    ensure!(
                        tree.nodes.len() <= MAX_NODES,
                        "failed to merge the stacks: they have more than {MAX_NODES} distinct frames; record \
                         for a shorter time"
                    );
                }
                tree.rows.push((node, sample.labels));
                tree.values.extend_from_slice(&values);
            }
        }
        Ok(tree)
    }

    /// The frames of a sample in the order in which the tree has them.
    fn stack(
        &mut self,
        profile: &Profile,
        shape: &Shape<'_>,
        sample: &Sample,
        mut state: Option<FrameKind>,
        stack: &mut Vec<u32>,
    ) -> Result<()> {
        for key in shape.tagroot {
            if let Some(value) = tag(profile, sample.labels, key) {
                stack.push(self.frames.label(&value)?);
            }
        }
        let mut locations: Vec<_> = profile.stack(sample.stack).collect();
        locations.reverse();
        for at in locations {
            if profile.is_waker_separator(at) {
                state = Some(FrameKind::Waker);
            }
            stack.extend_from_slice(self.frames.location(at, state)?);
        }
        if stack.is_empty() {
            stack.push(self.frames.no_stack()?);
        }
        if shape.reverse {
            stack.reverse();
        }
        Ok(())
    }

    /// Number of nodes, with the root.
    #[allow(clippy::len_without_is_empty)] // it has its root
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Who calls this node; the root is its own.
    pub fn parent(&self, node: u32) -> u32 {
        self.nodes.parent(node)
    }

    /// The frame of a node that is not the root, as an index into [`Tree::frames`].
    pub fn frame_index(&self, node: u32) -> u32 {
        self.nodes.element(node)
    }

    /// The frame of a node that is not the root.
    pub fn frame(&self, node: u32) -> &Frame {
        &self.frames.all[self.nodes.element(node) as usize]
    }

    /// All frames, and the binaries that they name.
    pub fn frames(&self) -> &Frames<'a> {
        &self.frames
    }

    /// What nodes have of their own under sets of labels, with one value for each sample type. A node may have
    /// several rows with the same labels.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (u32, LabelsId, &[i64])> {
        let row = |(at, &(node, labels)): (usize, &(u32, LabelsId))| {
            (node, labels, &self.values[at * self.types..][..self.types])
        };
        self.rows.iter().enumerate().map(row)
    }

    /// The value of each node's own.
    pub fn own(&self, value: usize) -> Vec<i64> {
        let mut own = vec![0_i64; self.len()];
        for (node, _, values) in self.rows() {
            own[node as usize] = own[node as usize].saturating_add(values[value]);
        }
        own
    }

    /// The value of each node and all below it.
    pub fn totals(&self, value: usize) -> Vec<i64> {
        self.add_up(self.own(value))
    }

    /// Adds to what each node has of its own what is below it.
    pub fn add_up(&self, mut own: Vec<i64>) -> Vec<i64> {
        for node in (1..self.len()).rev() {
            let parent = self.nodes.parent(node as u32) as usize;
            own[parent] = own[parent].saturating_add(own[node]);
        }
        own
    }

    /// The children of each of the nodes that are chosen, which must have their parents among them.
    pub fn children(&self, chosen: impl Fn(u32) -> bool) -> Children {
        let nodes = || (1..self.len() as u32).filter(|&node| chosen(node));
        let mut starts = vec![0_u32; self.len() + 1];
        for node in nodes() {
            starts[self.parent(node) as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut ends = starts.clone();
        let mut all = vec![0; *starts.last().unwrap_or(&0) as usize];
        for node in nodes() {
            let end = &mut ends[self.parent(node) as usize];
            all[*end as usize] = node;
            *end += 1;
        }
        Children { starts, all }
    }
}

/// Which nodes are below which: see [`Tree::children`].
#[derive(Debug)]
pub struct Children {
    starts: Vec<u32>,
    all: Vec<u32>,
}

impl Children {
    /// The children of a node.
    pub fn of(&self, node: u32) -> &[u32] {
        &self.all[self.starts[node as usize] as usize..self.starts[node as usize + 1] as usize]
    }

    /// Sorts the children of every node.
    pub fn sort_by(&mut self, mut compare: impl FnMut(u32, u32) -> std::cmp::Ordering) {
        for bounds in self.starts.windows(2) {
            self.all[bounds[0] as usize..bounds[1] as usize].sort_by(|a, b| compare(*a, *b));
        }
    }
}

/// Tells the values of blocked threads from the others.
struct Split {
    off_cpu: Option<usize>,
    off_cpu_events: Option<usize>,
    wall: Option<usize>,
}

impl Split {
    fn new(profile: &Profile) -> Self {
        let column = |name: &str| profile.sample_types.iter().position(|ty| ty.name == name);
        Self { off_cpu: column("off_cpu"), off_cpu_events: column("off_cpu_events"), wall: column("wall") }
    }

    /// The values of a sample by what its frames are.
    fn rows<'s>(&self, sample: &'s Sample) -> impl Iterator<Item = (Option<FrameKind>, Cow<'s, [i64]>)> {
        let columns = [self.off_cpu, self.off_cpu_events];
        let is_blocked = columns.into_iter().flatten().any(|at| sample.values[at] != 0);
        if !is_blocked {
            return [Some((None, Cow::from(&sample.values))), None].into_iter().flatten();
        }
        let (mut running, mut blocked) = (sample.values.clone(), vec![0; sample.values.len()]);
        for at in columns.into_iter().flatten() {
            blocked[at] = std::mem::take(&mut running[at]);
        }
        if let (Some(off_cpu), Some(wall)) = (self.off_cpu, self.wall) {
            // The sum of both.
            blocked[wall] = blocked[off_cpu];
            running[wall] = running[wall].saturating_sub(blocked[off_cpu]);
        }
        [Some((None, running.into())), Some((Some(FrameKind::Blocked), blocked.into()))].into_iter().flatten()
    }
}

/// The values of a label, joined by commas as `go tool pprof -tagroot` does.
fn tag(profile: &Profile, labels: LabelsId, key: &str) -> Option<String> {
    let labels = profile.labels(labels).iter().filter(|label| &*label.key == key);
    let values: Vec<_> = labels
        .map(|label| match &label.value {
            LabelValue::Str(text) => Cow::from(&**text),
            LabelValue::Num(number, unit) => super::scale::label(*number, unit).into(),
        })
        .collect();
    (!values.is_empty() && !key.is_empty()).then(|| values.join(","))
}
