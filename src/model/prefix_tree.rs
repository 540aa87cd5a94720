//! Sequences that share their beginnings, each beginning stored once.
//!
//! Stacks are what it is for: from the root on, thousands of them are the same. A node is one element of a
//! sequence and the node before it, eight bytes in all; a sequence is the number of its last node. So memory
//! goes with the distinct nodes, however many sequences there are and however long they are.
//!
//! The children of a node are not listed. A sequence that leaves the known ones puts its nodes one behind the
//! other, so that the first child of nearly every node is the node that follows it, which a look at that node's
//! parent confirms. Only the others, at most one for each sequence that was added, are in a hash table.

use std::collections::HashMap;

/// The tree. Node 0 is the empty sequence.
#[derive(Clone, Debug)]
pub struct PrefixTree {
    /// (parent, element); that of the root is never looked at.
    nodes: Vec<(u32, u32)>,
    /// Children that do not follow their parent.
    elsewhere: HashMap<(u32, u32), u32>,
}

impl Default for PrefixTree {
    fn default() -> Self {
        Self { nodes: vec![(0, u32::MAX)], elsewhere: HashMap::new() }
    }
}

impl PrefixTree {
    /// The empty sequence.
    pub const ROOT: u32 = 0;

    /// The sequence of `node` with `element` behind it, which is added if it is new.
    ///
    /// # Panics
    /// Beyond 2³² nodes, 32 GiB, where readers stop long before.
    pub fn child(&mut self, node: u32, element: u32) -> u32 {
        if let Some(known) = self.known_child(node, element) {
            return known;
        }
        let is_last = node as usize + 1 == self.nodes.len();
        let child = self.push(node, element);
        if !is_last {
            self.elsewhere.insert((node, element), child);
        }
        child
    }

    fn known_child(&self, node: u32, element: u32) -> Option<u32> {
        match self.nodes.get(node as usize + 1)? {
            &next if next == (node, element) => Some(node + 1),
            _ => self.elsewhere.get(&(node, element)).copied(),
        }
    }

    fn push(&mut self, parent: u32, element: u32) -> u32 {
        let node = u32::try_from(self.nodes.len()).expect("more than 2^32 nodes of a prefix tree");
        self.nodes.push((parent, element));
        node
    }

    /// The sequence of these elements, first to last.
    pub fn insert(&mut self, elements: impl IntoIterator<Item = u32>) -> u32 {
        elements.into_iter().fold(Self::ROOT, |node, element| self.child(node, element))
    }

    /// The sequence of these elements, if it is known.
    pub fn find(&self, elements: impl IntoIterator<Item = u32>) -> Option<u32> {
        elements.into_iter().try_fold(Self::ROOT, |node, element| self.known_child(node, element))
    }

    /// Nodes and entries of the hash table for which there is room.
    pub fn room(&self) -> (usize, usize) {
        (self.nodes.capacity(), self.elsewhere.capacity())
    }

    /// The sequence without its last element; that of the root is the root.
    pub fn parent(&self, node: u32) -> u32 {
        self.nodes[node as usize].0
    }

    /// The last element of a sequence that is not empty.
    pub fn element(&self, node: u32) -> u32 {
        self.nodes[node as usize].1
    }

    /// The elements of a sequence, last to first.
    pub fn backwards(&self, node: u32) -> Backwards<'_> {
        Backwards { tree: self, node }
    }

    /// Number of nodes with the root. Children have higher numbers than their parents.
    #[allow(clippy::len_without_is_empty)] // it never is
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// The elements of a sequence, last to first: see [`PrefixTree::backwards`].
#[derive(Clone, Debug)]
pub struct Backwards<'a> {
    tree: &'a PrefixTree,
    node: u32,
}

impl Iterator for Backwards<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.node == PrefixTree::ROOT {
            return None;
        }
        let (parent, element) = self.tree.nodes[self.node as usize];
        self.node = parent;
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_share_their_beginnings() {
        let mut tree = PrefixTree::default();
        let sequences: [&[u32]; 7] = [&[1, 2, 3], &[1, 2], &[1, 2, 4], &[], &[2], &[1, 2, 3, 5], &[2, 0]];
        let nodes = sequences.map(|sequence| tree.insert(sequence.iter().copied()));
        // 1 12 123 124 2 1235 20, and the root.
        assert_eq!(tree.len(), 8);
        for (sequence, node) in sequences.iter().zip(nodes) {
            let mut found: Vec<_> = tree.backwards(node).collect();
            found.reverse();
            assert_eq!(found, *sequence);
            assert_eq!(tree.insert(sequence.iter().copied()), node, "{sequence:?} is there twice");
        }
        assert_eq!(tree.len(), 8);
        assert_eq!((tree.parent(nodes[2]), tree.element(nodes[2])), (nodes[1], 4));
    }

    #[test]
    fn it_is_the_same_as_a_set_of_prefixes() {
        // xorshift, over few elements, so that beginnings meet.
        let mut state = 0x9e37_79b9_u32;
        let mut random = move |below: u32| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % below
        };
        let mut tree = PrefixTree::default();
        let mut prefixes = HashMap::new();
        prefixes.insert(Vec::new(), PrefixTree::ROOT);
        for _ in 0..2000 {
            let length = random(12);
            let sequence: Vec<u32> = (0..length).map(|_| random(4)).collect();
            let known = prefixes.get(&sequence).copied();
            assert_eq!(tree.find(sequence.iter().copied()), known, "{sequence:?}");
            tree.insert(sequence.iter().copied());
            let mut node = PrefixTree::ROOT;
            for end in 1..=sequence.len() {
                node = tree.child(node, sequence[end - 1]);
                assert_eq!(*prefixes.entry(sequence[..end].to_vec()).or_insert(node), node);
            }
        }
        assert_eq!(tree.len(), prefixes.len());
    }
}
