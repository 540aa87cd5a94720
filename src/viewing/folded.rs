//! Folded stacks: one stack a line, root first, with its sum. flamegraph.pl, inferno, speedscope
//! and grep read it.
//!
//! A folded line is `root;…;leaf count`. Programs that read it split at `;`, take a number after
//! the last space for the count and one before it for a second count, and skip lines that start
//! with `# `. Names are changed so that none of this happens by accident: see `escape`.

use std::cmp::Ordering;
use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};

use super::frames::Identity;
use super::names::{FrameKind, escape};
use super::tree::{ROOT, Shape, Tree};
use crate::cli::FoldedArgs;
use crate::model::profile::Profile;

/// Prints the stacks of a profile to standard output, in the order of the lines' bytes. A reader
/// that has seen enough and left, such as `head`, is no error.
///
/// # Errors
/// If the file cannot be read, has no samples or does not have the value asked for, or if standard
/// output cannot be written.
pub fn run(args: &FoldedArgs) -> Result<()> {
    let view = super::open_shown(&args.view)?;
    let mark = if args.annotate { annotation } else { waker_annotation };
    let tree = tree(&view.profile, view.index, &args.view.tagroot, mark)?;
    match write(&tree, view.index, mark, BufWriter::new(io::stdout().lock())) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context(
            "failed to write folded stacks to standard output; redirect it to a file on a disk \
             with free space",
        ),
    }
}

/// The lines of the value at `index`, below the values of the labels `tagroot`.
///
/// # Errors
/// As of [`Tree::new`].
pub fn fold(profile: &Profile, index: usize, tagroot: &[String]) -> Result<Vec<u8>> {
    let tree = tree(profile, index, tagroot, waker_annotation)?;
    let mut lines = Vec::new();
    write(&tree, index, waker_annotation, &mut lines)?;
    Ok(lines)
}

/// The same with marks, below the names of processes.
///
/// # Errors
/// As of [`Tree::new`].
pub(super) fn marked(profile: &Profile, index: usize) -> Result<Vec<u8>> {
    let tree = tree(profile, index, &["comm".to_owned()], annotation)?;
    let mut lines = Vec::new();
    write(&tree, index, annotation, &mut lines)?;
    Ok(lines)
}

fn tree<'a>(
    profile: &'a Profile,
    index: usize,
    tagroot: &[String],
    mark: fn(FrameKind) -> &'static str,
) -> Result<Tree<'a>> {
    let shape = Shape { identity: Identity::Text(mark), tagroot, value: Some(index), ..Shape::default() };
    Tree::new(profile, &shape)
}

/// The mark that inferno and flamegraph.pl know for frames of this kind.
pub(super) fn annotation(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Kernel => "_[k]",
        FrameKind::Inlined => "_[i]",
        FrameKind::Jit => "_[j]",
        FrameKind::Waker => "_[w]",
        FrameKind::Process
        | FrameKind::User
        | FrameKind::Python
        | FrameKind::JavaScript
        | FrameKind::Java
        | FrameKind::Bpf
        | FrameKind::Unresolved
        | FrameKind::Blocked
        | FrameKind::Runnable => "",
    }
}

/// Wakers are marked always: the same function may have slept and woken.
fn waker_annotation(kind: FrameKind) -> &'static str {
    if kind == FrameKind::Waker { annotation(kind) } else { "" }
}

/// What comes next in the order of lines: the line of a node, or all lines of those below it.
#[derive(Clone, Copy)]
struct Entry {
    node: u32,
    is_line: bool,
}

fn write(
    tree: &Tree<'_>,
    value: usize,
    mark: fn(FrameKind) -> &'static str,
    mut out: impl Write,
) -> io::Result<()> {
    let frames = &tree.frames().all;
    let names: Vec<_> = frames.iter().map(|frame| escape(&frame.name) + mark(frame.kind)).collect();
    let name = |node: u32| &*names[tree.frame_index(node) as usize];
    let own = tree.own(value);
    let children = tree.children(|_| true);
    let push = |node: u32, entries: &mut Vec<Entry>| {
        let from = entries.len();
        for &node in children.of(node) {
            let lines = (own[node as usize] != 0).then_some(Entry { node, is_line: true });
            let below = (!children.of(node).is_empty()).then_some(Entry { node, is_line: false });
            entries.extend(lines.into_iter().chain(below));
        }
        // The last one is taken first.
        entries[from..].sort_by(|a, b| compare(*b, *a, name, &own));
    };
    let mut entries = Vec::new();
    push(ROOT, &mut entries);
    // The text of the path down to a node, and where it ends for each node on it.
    let (mut path, mut ends) = (String::new(), vec![(ROOT, 0)]);
    while let Some(Entry { node, is_line }) = entries.pop() {
        let parent = tree.parent(node);
        while let Some(&(at, end)) = ends.last() {
            if at == parent {
                path.truncate(end);
                break;
            }
            ends.pop();
        }
        path.push_str(name(node));
        if is_line {
            writeln!(out, "{path} {}", own[node as usize])?;
        } else {
            path.push(';');
            ends.push((node, path.len()));
            push(node, &mut entries);
        }
    }
    out.flush()
}

/// As the lines' bytes compare: what follows a name decides where one name begins like another.
fn compare<'n>(a: Entry, b: Entry, name: impl Fn(u32) -> &'n str, own: &[i64]) -> Ordering {
    let (first, second) = (name(a.node).as_bytes(), name(b.node).as_bytes());
    let common = first.len().min(second.len());
    first[..common].cmp(&second[..common]).then_with(|| {
        let rest = |entry: Entry, name: &[u8]| {
            let end = if entry.is_line { format!(" {}", own[entry.node as usize]) } else { ";".to_owned() };
            [&name[common..], end.as_bytes()].concat()
        };
        rest(a, first).cmp(&rest(b, second))
    })
}

#[cfg(test)]
mod tests;
