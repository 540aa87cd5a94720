//! `profiler`: an offline CPU profiler for Linux.
//!
//! # The flow
//!
//! ```text
//! capture::perf  ─┐                                                ┌─ naming ─ viewing::pprof ─▶ file
//! capture::proc  ─┼─▶ model::event ─▶ timeline ─▶ model::processes ─▶ tally ─▶ model::profile
//! capture::bpf   ─┘                               model::objects                 └─ viewing::{folded, …}
//! ```
//!
//! # The rooms
//!
//! | folder | holds |
//! |---|---|
//! | [`recording`] | the pipeline, from the command line to a profile without names: start at [`recording::record`] |
//! | [`model`] | events, processes, what code lies in, profiles |
//! | [`unwind`] | tables to walk stacks without frame pointers, as a pure function of a file |
//! | [`naming`] | names for a profile's frames |
//! | [`viewing`] | everything that starts from a file: flamegraphs, folded stacks, tables; pprof itself |
//! | [`counts`] | how often something is called, second by second |
//! | [`latency`] | how long calls take: histograms, and the stacks of slow ones by way of [`recording`] |
//! | [`serve`] | recordings over HTTP, for whoever asks |
//! | [`worker`] | processes without rights, which read strangers' files |
//! | [`programs`] | what every BPF program on the machine costs; a recording takes a window of it |
//! | [`interpreters`] | what an interpreter's file says of where its frames are |
//! | [`hotspot`] | what a Java virtual machine's memory says of its compiled code |
//! | [`machine`], [`elf`], [`expression`], [`gopclntab`], [`text`] | what several of them need: the operating system, ELF files, regular expressions, Go's table of functions, numbers for people |
//!
//! # The words
//!
//! *tgid* and *tid* are the kernel's process and thread ids. *Addresses* belong to a process,
//! *file offsets* to an object. Stacks are leaf first in memory, root first in text. A *stack id*
//! is the hash of a stack's frames, a *body* its frames. Suffixes name units: `_ns`, `_hz`, `_s`,
//! `_bytes`.
#![warn(missing_docs)]
// Messages go through `say!`, which does not panic where nobody reads them.
#![warn(clippy::print_stderr)]

// First, as its macros are used by all that follow.
#[macro_use]
pub mod text;

pub mod cli;
pub mod counts;
pub mod doctor;
pub mod elf;
pub mod expression;
pub mod gopclntab;
pub mod hotspot;
pub mod interpreters;
pub mod latency;
pub mod machine;
pub mod model;
pub mod naming;
pub mod programs;
pub mod recording;
pub mod serve;
pub mod unwind;
pub mod viewing;
pub mod worker;
