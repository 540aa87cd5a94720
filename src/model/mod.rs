//! The model: what happened on the machine, who ran there, what code lies in, and what was measured.
//!
//! [`event`] is the vocabulary in which all of capture speaks. [`processes`] holds the address spaces, as they
//! were at the time of the last event, and turns a stack's addresses into locations in [`objects`]: files,
//! the kernel, BPF programs, JIT code. [`profile`] is what comes of it and what every view starts from.

pub mod compiled;
pub mod event;
mod maps;
pub mod objects;
pub mod prefix_tree;
mod process;
pub mod processes;
pub mod profile;
pub mod regions;
pub mod remapped;
pub mod scripts;
pub mod snapshot;
pub mod unsymbolized;
