//! A tree as it is drawn: nodes in preorder, so that what is below a node are those behind it up to its end, each
//! with its place from left to right. What has no value is not there.

use std::collections::HashMap;

use super::super::names::FrameKind;
use super::super::tree::{ROOT, Tree};

/// The nodes, by number; node 0 is the root, which is no frame.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Index of the frame in the tree's.
    pub(super) frame: Vec<u32>,
    pub(super) parent: Vec<usize>,
    pub(super) end: Vec<usize>,
    pub(super) depth: Vec<usize>,
    pub(super) own: Vec<i64>,
    pub(super) total: Vec<i64>,
    /// Where it begins and how wide it is, in the value's unit; what is negative is as wide as it is large.
    pub(super) start: Vec<i64>,
    pub(super) width: Vec<i64>,
}

/// A function, whatever calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: Box<str>,
    pub(super) kind: FrameKind,
    pub(super) own: i64,
    pub(super) total: i64,
}

impl Graph {
    /// Of one value of a tree, without the stacks that have a frame that `is_hidden`.
    pub(super) fn new(tree: &Tree<'_>, value: usize, is_hidden: impl Fn(&str) -> bool) -> Self {
        let hidden: Vec<bool> = tree.frames().all.iter().map(|frame| is_hidden(&frame.name)).collect();
        let mut own = tree.own(value);
        let mut gone = vec![false; tree.len()];
        for node in 1..tree.len() {
            gone[node] =
                gone[tree.parent(node as u32) as usize] || hidden[tree.frame_index(node as u32) as usize];
            if gone[node] {
                own[node] = 0;
            }
        }
        let total = tree.add_up(own.clone());
        let width = tree.add_up(own.iter().map(|value| value.saturating_abs()).collect());
        let mut children = tree.children(|node| width[node as usize] > 0);
        let frames = &tree.frames().all;
        children.sort_by(|a, b| {
            frames[tree.frame_index(a) as usize].name.cmp(&frames[tree.frame_index(b) as usize].name)
        });
        let mut graph = Self::default();
        let mut to_do = vec![(ROOT, 0, 0, 0)];
        while let Some((node, parent, depth, start)) = to_do.pop() {
            let at = graph.parent.len();
            graph.frame.push(if node == ROOT { u32::MAX } else { tree.frame_index(node) });
            graph.parent.push(parent);
            graph.depth.push(depth);
            graph.own.push(own[node as usize]);
            graph.total.push(total[node as usize]);
            graph.start.push(start);
            graph.width.push(width[node as usize]);
            let mut next = start;
            let begin = to_do.len();
            for &child in children.of(node) {
                to_do.push((child, at, depth + 1, next));
                next = next.saturating_add(width[child as usize]);
            }
            to_do[begin..].reverse();
        }
        graph.end = vec![0; graph.parent.len()];
        for node in (0..graph.parent.len()).rev() {
            graph.end[node] = graph.end[node].max(node + 1);
            let parent = graph.parent[node];
            graph.end[parent] = graph.end[parent].max(graph.end[node]);
        }
        graph
    }

    pub(super) fn len(&self) -> usize {
        self.parent.len()
    }

    pub(super) fn children(&self, node: usize) -> impl Iterator<Item = usize> {
        let mut next = node + 1;
        std::iter::from_fn(move || {
            let child = (next < self.end[node]).then_some(next)?;
            next = self.end[child];
            Some(child)
        })
    }

    /// Functions by their names, in any order; recursion counts once. Values of labels are none.
    pub(super) fn functions(&self, tree: &Tree<'_>) -> Vec<Function> {
        let mut functions: Vec<Function> = Vec::new();
        // Until which node the outermost call of each goes.
        let mut until: Vec<usize> = Vec::new();
        let mut index: HashMap<&str, usize> = HashMap::new();
        for node in 1..self.len() {
            let frame = &tree.frames().all[self.frame[node] as usize];
            if frame.kind == FrameKind::Process {
                continue;
            }
            let at = *index.entry(&frame.name).or_insert_with(|| {
                functions.push(Function { name: frame.name.clone(), kind: frame.kind, own: 0, total: 0 });
                until.push(0);
                functions.len() - 1
            });
            functions[at].own = functions[at].own.saturating_add(self.own[node]);
            if node >= until[at] {
                until[at] = self.end[node];
                functions[at].total = functions[at].total.saturating_add(self.total[node]);
            }
        }
        functions
    }
}
