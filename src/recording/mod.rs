//! Recording: from the machine to a profile without names.
//!
//! [`record`] is the pipeline on one page. [`plan`] checks what was asked for before anything is touched;
//! [`recorder`] opens what listens: the perf side-band, `/proc` and the BPF programs ([`capture`]). Their
//! events are put in the order of time by [`timeline`] and applied to the [model](crate::model);
//! [`unwinding`] keeps the kernel's unwind tables in step with it, [`jvms`] those of code that Java compiles; [`tally`] adds up what the kernel counted.
//! [`summary`] is what a person reads in the end, [`counters`] a line of it, [`about`] what the file says of its own recording.

pub mod about;
pub mod budget;
pub mod capture;
mod checkpoint;
pub mod containers;
pub mod counters;
pub mod cpus;
pub mod directory;
pub mod jvms;
pub mod labels;
pub mod mark;
pub mod pace;
pub mod part;
pub mod plan;
pub mod progress;
pub mod record;
pub mod recorder;
pub mod rotation;
pub mod summary;
pub mod table_builder;
pub mod tallies;
pub mod tally;
pub mod timeline;
pub mod unwinding;
mod writer;

#[cfg(test)]
mod histories;
