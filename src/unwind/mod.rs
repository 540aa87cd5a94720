//! Call frame information into a table that a kernel program can walk.
//!
//! Compilers describe in `.eh_frame`, for C++ exceptions and debuggers, how to get from any
//! instruction to its function's caller: the *canonical frame address* (CFA), which is the stack
//! pointer after the return, and where the caller's registers are. The description is a program of
//! small instructions for each function (*FDE*), which starts from a shared prologue (*CIE*). To
//! interpret it at every sample is too slow, and in the kernel impossible. So it is interpreted once
//! for a file, ahead:
//!
//! ```text
//! elf ─▶ sections, segments ─▶ sources ─▶ rows of rules ─▶ table ─▶ pages of 4-byte rows
//!                                 ├ eh_frame, entries, dwarf: what the file says
//!                                 ├ go, plt: what it does not say, but shows
//!                                 ├ x86_64, aarch64, i386: what a row means on a machine
//!                                 └ frame: the rules that there are
//! ```
//!
//! Only what a walk needs is kept: CFA, frame pointer and return address. A whole libc comes to some
//! hundred different [`Rule`]s, so a row is an offset and the rule's index.
//!
//! What keeps the walk honest:
//!
//! - A row that is not understood has a rule which says so. It never extends its predecessor: a walk
//!   that goes on by the wrong rule yields plausible nonsense.
//! - The end of a function is a row too, [`Rule::Uncovered`], unless another function starts there.
//! - Where several FDEs cover an instruction (identical code folding, broken linkers), the one that
//!   starts last below it is right, as it is for C++ exceptions: they search a list of starts.
//! - Rules belong to offsets in the *file*, not to addresses: a process may map any part anywhere,
//!   and each segment has a distance of its own between the two.
//! - Files come from every process on the machine and are untrusted. All sizes are bounded, by the
//!   file's and by constants; work is linear in the section's size.

pub mod aarch64;
pub mod dwarf;
pub mod eh_frame;
mod entries;
pub mod frame;
pub mod go;
pub mod i386;
mod plt;
pub mod show;
pub mod sources;
pub mod table;
pub mod x86_64;

use std::ops::Range;

use anyhow::{Result, ensure};

use crate::elf::{Elf, Machine, Source};
use dwarf::RowRules;
use frame::Registers;
use sources::Sources;
use table::Table;

/// How to get from an instruction to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// An ordinary frame.
    Frame(frame::Frame),
    /// An ordinary frame by its places, but marked as a signal's ('S'): its caller may have been
    /// interrupted, so that what is the return address elsewhere is the very instruction. Assembly
    /// that switches stacks is often marked like this, for debuggers to bear with it.
    ExactFrame(frame::Frame),
    /// An ordinary frame, of an interpreter's loop: it stands for frames of a script.
    LoopFrame(frame::Frame),
    /// A frame of HotSpot's interpreter: it is one of a Java method, and says itself where its caller's stack
    /// ends, for arguments may have been moved there.
    JavaFrame(frame::Frame),
    /// Where a process makes code while it runs: what is there by now is not known yet.
    Soon,
    /// The kernel has interrupted the caller, to deliver a signal.
    SignalFrame,
    /// The caller is on another stack.
    Switch(Switch),
    /// There is no caller: the thread starts here.
    EndOfStack,
    /// No function is described here: follow the frame pointer, if at all.
    Uncovered,
    /// Described, but in a way that has no rule here.
    NotUnderstood(Reason),
}

/// How Go code has got to the stack that it is on: the runtime's own functions run on the system's
/// stack, and where their goroutine was left is in its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// `runtime.systemstack`: its return address is on the goroutine's stack.
    SystemStack,
    /// `runtime.morestack`: the goroutine stopped in the function that needs more stack.
    MoreStack,
    /// `runtime.asmcgocall`: like systemstack, to call C.
    CgoCall,
    /// Around calls into the vDSO: the frame pointer leads back.
    FramePointer,
}

/// Why a row is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The CFA is the result of an unknown expression, or is too far from its register.
    Cfa,
    /// The return address is neither in its place nor in a register.
    ReturnAddress,
    /// The caller's stack pointer is not the CFA.
    StackPointer,
    /// Marked as a signal frame, which it does not look like.
    SignalFrame,
    /// The instructions are malformed or of an unknown kind.
    Instructions,
    /// The file has more different rules than a table can hold.
    TooManyRules,
}

impl Reason {
    /// A few words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Cfa => "CFA expression",
            Self::ReturnAddress => "return address",
            Self::StackPointer => "stack pointer",
            Self::SignalFrame => "signal frame",
            Self::Instructions => "instructions",
            Self::TooManyRules => "too many rules",
        }
    }
}

impl Machine {
    /// Its registers.
    pub fn registers(self) -> &'static Registers {
        match self {
            Self::X86_64 => &x86_64::REGISTERS,
            Self::Aarch64 => &aarch64::REGISTERS,
            Self::I386 => &i386::REGISTERS,
        }
    }

    /// The rule that a row comes to.
    fn rule(self, row: &RowRules) -> Rule {
        match self {
            Self::X86_64 => x86_64::rule(row),
            Self::Aarch64 => aarch64::rule(row),
            Self::I386 => i386::rule(row),
        }
    }
}

/// The table of a file.
///
/// # Errors
/// If the file cannot be read, is not for this machine, has no call frame information, or more of it
/// than is reasonable.
pub fn build(file: &dyn Source) -> Result<Table> {
    build_with_loops(file, &[])
}

/// The same, with the code of interpreters' loops marked, by file offset.
///
/// # Errors
/// As [`build`].
pub fn build_with_loops(file: &dyn Source, loops: &[Range<u64>]) -> Result<Table> {
    let elf = Elf::read_of_any_width(file)?;
    ensure!(elf.machine.runs_here(), "failed to find code for this machine: it is {:?}'s", elf.machine);
    build_for_any_machine(&elf, file, loops)
}

fn build_for_any_machine(elf: &Elf, file: &dyn Source, loops: &[Range<u64>]) -> Result<Table> {
    // Go's stacks are laid out in another way on arm64.
    let go =
        if elf.machine == Machine::X86_64 { go::rows(elf, file).unwrap_or_default() } else { Vec::new() };
    let plts: Vec<_> = elf.stubs(file).iter().map(|stubs| plt::rows(elf.machine, stubs)).collect();
    let frames = match elf.call_frames(file) {
        Err(error) if go.is_empty() && plts.is_empty() => return Err(error),
        frames => frames.unwrap_or_default(),
    };
    sources::table(Sources {
        machine: elf.machine,
        segments: &elf.segments,
        go,
        frames: &frames,
        plts,
        loops,
    })
}
