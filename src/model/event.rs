//! What happened, and when: the vocabulary between capture and the model of processes.
//!
//! The perf side-band, `/proc` and the BPF rings all speak in [`Event`]s, stamped with
//! CLOCK_MONOTONIC nanoseconds, so that one stream in time order describes a machine's processes
//! and their stacks. Identifiers are the kernel's: `tgid` is what people call a pid, `tid` names a
//! thread.
//!
//! This module knows only std and [`crate::model::scripts`].

use std::fmt;
use std::ops::Range;

use crate::model::scripts::{Code, CodeKey, Frame};

/// Something that happened at a point in time.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// What happened.
    pub event: Event,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A thread or, where `tgid` differs from `parent_tgid`, a process was born.
    Fork {
        /// Process of the newborn.
        tgid: u32,
        /// The newborn.
        tid: u32,
        /// Process that forked.
        parent_tgid: u32,
        /// Thread that forked.
        parent_tid: u32,
    },
    /// A thread got a name.
    Comm {
        /// Its process.
        tgid: u32,
        /// The thread.
        tid: u32,
        /// The name, at most 15 bytes.
        comm: String,
        /// True if the process has just executed another program.
        exec: bool,
    },
    /// A thread ended.
    Exit {
        /// Its process.
        tgid: u32,
        /// The thread.
        tid: u32,
    },
    /// Executable memory was mapped.
    Mmap(Mmap),
    /// All executable memory that `/proc` shows of a process; nothing if it could not be read.
    Maps {
        /// The process.
        tgid: u32,
        /// By address.
        mmaps: Vec<Mmap>,
    },
    /// Kernel code was loaded that has a symbol of its own: a BPF program or trampoline.
    Ksymbol(Ksymbol),
    /// A stack was seen for the first time since counts were last drained.
    Stack(Stack),
    /// The stack of a process whose mappings were not known yet.
    Dump(Dump),
    /// A thread's time in the recording, when one of the two ends.
    Thread(ThreadTime),
    /// A cgroup was made.
    Cgroup {
        /// In the hierarchy of the v1 controller that is looked at.
        is_v1: bool,
        /// Its id there.
        id: u64,
        /// Its path there.
        path: String,
    },
    /// A process came to the cgroup that is recorded.
    Joined {
        /// The process.
        tgid: u32,
    },
    /// A function of a script was seen for the first time.
    Code(CodeKey, Box<Code>),
}

/// A file, as the kernel names it in a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileId {
    /// By device and inode.
    Inode {
        /// Device number, as `makedev` composes it.
        device: u64,
        /// Inode number.
        inode: u64,
        /// Tells files apart that had the inode one after the other; 0 if unknown.
        generation: u64,
    },
    /// Memory that no file backs: JIT code, `[vdso]`.
    Anonymous,
}

/// A range of executable memory and what is behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Mmap {
    /// Process.
    pub tgid: u32,
    /// Addresses.
    pub range: Range<u64>,
    /// Offset of `range.start` in the file.
    pub file_offset: u64,
    /// The file.
    pub file: FileId,
    /// Path in the mount namespace of the process, or a name such as `//anon` or `[vdso]`.
    pub path: String,
}

/// A symbol that the kernel registered, such as `bpf_prog_6deef7357e7b4530_on_cpu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ksymbol {
    /// Addresses of its code.
    pub range: Range<u64>,
    /// Name.
    pub name: String,
    /// False when it went away.
    pub registered: bool,
}

/// Why a stack is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Truncation {
    /// More kernel frames than are recorded.
    KernelDepth,
    /// The kernel gave no stack of its own.
    KernelFailed,
    /// More user frames than are recorded.
    UserDepth,
    /// A frame pointer that cannot be one: code without frame pointers.
    FramePointer,
    /// A frame pointer into memory that cannot be read now.
    UnreadableStack,
    /// Code that no unwind table covers, without frame pointers.
    NoRow,
    /// An unwind rule that is not known.
    NotUnderstood,
    /// A rule that needs a register which only the leaf has.
    CallerRegister,
    /// The process was too young to have tables, and its stack could not be sent.
    NoTable,
    /// The kernel walked, and does not say where it stopped.
    KernelWalk,
    /// A return address outside executable memory: code without frame pointers.
    ReturnAddress,
    /// It leads to a root, but a frame pointer was followed from code that does not show that it is its own.
    Unproven,
    /// Code for the 32-bit mode of the machine, where no tables are used, or calls 64-bit code.
    Bits32,
    /// The code that ran lies in no mapping that was told or that could still be read.
    Unmapped,
    /// The ring was full whenever the stack was seen: its time is known, its frames are not.
    NoFrames,
    /// The recorder had no room for another stack.
    Budget,
}

impl Truncation {
    /// Whether it is the kernel's part that is not whole.
    pub fn is_in_kernel(self) -> bool {
        matches!(self, Self::KernelDepth | Self::KernelFailed)
    }

    /// A few words for people; also the name of the frame that marks such a stack.
    pub fn reason(self) -> &'static str {
        match self {
            Self::KernelDepth => "kernel stack too deep",
            Self::KernelFailed => "no kernel stack",
            Self::UserDepth => "user stack too deep",
            Self::FramePointer => "no frame pointer",
            Self::UnreadableStack => "stack not readable",
            Self::NoRow => "no unwind row",
            Self::NotUnderstood => "unknown unwind rule",
            Self::CallerRegister => "unwind rule needs a register",
            Self::NoTable => "no unwind table yet",
            Self::KernelWalk => "walked by the kernel",
            Self::ReturnAddress => "no frame pointer: return address is not code",
            Self::Unproven => "callers may be missing: code without unwind rows",
            Self::Bits32 => "32-bit process",
            Self::Unmapped => "code in no known mapping",
            Self::NoFrames => "ring buffer full",
            Self::Budget => "memory budget used up",
        }
    }
}

/// Why a sample is in no count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Loss {
    /// The kernel's table of counts was full.
    CountsFull,
    /// The kernel's table of counts refused for another reason.
    CountsBusy,
    /// A block whose end the kernel did not tell: its time is among the short ones'.
    Unseen,
    /// Another stack was being walked on the CPU, by a thread that was preempted.
    Preempted,
}

impl Loss {
    /// A few words for people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::CountsFull => "counts map full",
            Self::CountsBusy => "counts map busy",
            Self::Unseen => "switch not traced",
            Self::Preempted => "another walk was preempted",
        }
    }
}

/// What a run of the sampler came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The CPU was idle.
    Idle,
    /// Not one of the tasks that are recorded.
    Filtered,
    /// Counted with whole stacks.
    Complete,
    /// Counted with a stack that is walked in user space: whole or not is known then.
    Dumped,
    /// Counted with a stack that is not whole.
    Incomplete(Truncation),
    /// Not counted.
    Lost(Loss),
}

/// What time was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Running: samples of the CPU's clock.
    OnCpu,
    /// Blocked: from switch to switch.
    OffCpu,
    /// None: the stack of who ended a block.
    Waker,
    /// A call that took long: from its begin to its return.
    Latency,
}

/// The process and the thread id of all tasks outside of our PID namespace: `OUTSIDE_ID` in bpf/profile.h.
pub const OUTSIDE: u32 = u32::MAX;

/// The cgroups of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CgroupIds {
    /// In the v2 hierarchy.
    pub v2: u64,
    /// In that of a v1 controller, or 0.
    pub v1: u64,
}

/// Under what samples are counted in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CountKey {
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// What the time was spent on.
    pub kind: Kind,
    /// Changes with all that a stack's names depend on beside its addresses and its thread: the
    /// process that has the id, its program, its name, the code that is mapped.
    pub process_state: u32,
    /// Name of the thread.
    pub comm: Comm,
    /// Hash of the kernel stack, or 0.
    pub kernel_stack_id: u64,
    /// Hash of the user stack, or 0.
    pub user_stack_id: u64,
    /// Of a block, who ended it, or 0; of a waker, itself.
    pub waker_id: u64,
    /// Where its thread was.
    pub cgroups: CgroupIds,
    /// When and on which CPU, if that is kept.
    pub moment: Option<Moment>,
}

/// When something was counted, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Moment {
    /// Number of the slot of time, of an equal length each, since the boot; it wraps around.
    pub slot: u32,
    /// The CPU, unless it was on none.
    pub cpu: Option<u32>,
}

/// The frames behind a key, leaf first.
#[derive(Clone, Debug, PartialEq)]
pub struct Stack {
    /// The key.
    pub key: CountKey,
    /// Whether the walk reached the end of both stacks.
    pub truncation: Option<Truncation>,
    /// Addresses in the kernel.
    pub kernel: Vec<u64>,
    /// Addresses in user space.
    pub user: Vec<u64>,
    /// Frames of scripts, each with the number of addresses that go before it.
    pub scripts: Vec<(usize, Frame)>,
}

/// A stack that has yet to be walked.
#[derive(Clone, Debug, PartialEq)]
pub struct Dump {
    /// The key it is counted under.
    pub key: CountKey,
    /// Whether the kernel's part is whole.
    pub truncation: Option<Truncation>,
    /// Addresses in the kernel.
    pub kernel: Vec<u64>,
    /// Instruction pointer, stack pointer and frame pointer in user mode.
    pub registers: [u64; 3],
    /// All general registers in user mode, by DWARF number.
    pub leaf: [u64; 16],
    /// Whether the instruction pointer is behind a call into the kernel.
    pub is_return_address: bool,
    /// Whether it is in code for the machine's 32-bit mode.
    pub is_32_bit: bool,
    /// The stack pointer of the process's first function.
    pub initial_stack: u64,
    /// The thread pointer of a thread that is blocked still, so that an interpreter's memory is what it was.
    pub thread_pointer: Option<u64>,
    /// Address of the first byte of `memory`.
    pub start: u64,
    /// The stack from there on.
    pub memory: Vec<u8>,
}

/// Where a thread's time went while it was recorded, in nanoseconds. Each moment is either on or
/// off the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadTime {
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Name of the thread.
    pub comm: String,
    /// Its birth or the recording's begin, until its end or the recording's.
    pub lifetime_ns: u64,
    /// On a CPU.
    pub on_cpu_ns: u64,
    /// Off the CPU.
    pub off_cpu_ns: u64,
    /// Of that: waiting for a CPU.
    pub runnable_ns: u64,
    /// Of that: blocked, and counted under a stack.
    pub stacked_ns: u64,
    /// Times it left the CPU because it had to wait for something.
    pub blocks: u64,
    /// Times it left the CPU for another thread.
    pub preemptions: u64,
    /// Blocks that are counted under a stack.
    pub stacked: u64,
    /// Where it was at its end.
    pub cgroups: CgroupIds,
}

/// A thread's name, as the kernel keeps it: at most 15 bytes, then zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Comm(pub [u8; 16]);

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|&byte| byte == 0).next().unwrap_or_default();
        f.write_str(&String::from_utf8_lossy(name))
    }
}

/// What was counted under a key since the last drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The key.
    pub key: CountKey,
    /// Samples.
    pub samples: u64,
    /// Nanoseconds they stand for.
    pub time_ns: u64,
}
