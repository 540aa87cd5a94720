//! Folded stacks: one stack a line, root first, with its sum. flamegraph.pl, inferno, speedscope
//! and grep read it.

use std::io::{self, BufWriter, Write};

use anyhow::{Context, Result};

use super::frames::{self, Folded};
use super::names::FrameKind;
use crate::cli::FoldedArgs;

/// Prints the stacks of a profile to standard output, in the order of the lines' bytes. A reader
/// that has seen enough and left, such as `head`, is no error.
///
/// # Errors
/// If the file cannot be read, has no samples or does not have the value asked for, or if standard
/// output cannot be written.
pub fn run(args: &FoldedArgs) -> Result<()> {
    let view = super::open(&args.view)?;
    let mark = if args.annotate { annotation } else { waker_annotation };
    let folded = frames::fold(&view.profile, view.index, None, &args.view.tagroot, mark)?;
    match write(&folded, BufWriter::new(io::stdout().lock())) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context(
            "failed to write folded stacks to standard output; redirect it to a file on a disk \
             with free space",
        ),
    }
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

fn write(folded: &Folded, mut out: impl Write) -> io::Result<()> {
    for (names, sum) in folded.lines() {
        for (i, name) in names.enumerate() {
            if i > 0 {
                out.write_all(b";")?;
            }
            out.write_all(name.as_bytes())?;
        }
        writeln!(out, " {sum}")?;
    }
    out.flush()
}
