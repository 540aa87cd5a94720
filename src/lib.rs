//! `profiler`: an offline CPU profiler for Linux.
//!
//! # The flow
//!
//! ```text
//! capture::perf  ─┐                                        ┌─ symbolize ─ output::pprof ─▶ file
//! capture::proc  ─┼─▶ event ─▶ timeline ─▶ process ─▶ tally ─▶ profile
//! capture::bpf   ─┘                        objects                └──── output::{folded, flamegraph}
//! ```
//!
//! [`record`] is the pipeline on one page. Rings and `/proc` become [`event::Event`]s; the
//! [`timeline`] applies them in the order of time to the model of [`process`]es, which turns a
//! stack's addresses into locations in [`objects`]; [`tally`] adds up what the kernel counted. At
//! the end [`naming`] gives the frames names and writes the [`profile`]. Everything that looks at a
//! profile starts from the file.
//!
//! [`unwind`] makes tables by which stacks are walked without frame pointers, as a pure function of a
//! file; [`unwinding`] keeps them in the kernel in step with the processes.
//!
//! [`programs`] stands apart: what every BPF program on the machine costs, ours included. A recording
//! takes a window of it.
//!
//! # The words
//!
//! *tgid* and *tid* are the kernel's process and thread ids. *Addresses* belong to a process,
//! *file offsets* to an object. Stacks are leaf first in memory, root first in text. A *stack id*
//! is the hash of a stack's frames, a *body* its frames. Suffixes name units: `_ns`, `_hz`, `_s`,
//! `_bytes`.
#![warn(missing_docs)]

pub mod cli;
pub mod elf;
pub mod machine;
pub mod model;
pub mod naming;
pub mod programs;
pub mod recording;
pub mod unwind;
pub mod viewing;
