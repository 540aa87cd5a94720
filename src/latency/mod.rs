//! `profiler latency`: how long calls take.
//!
//! # From the question to the answer
//!
//! [`target`] finds what is asked for: a system call's number, where a function lies in a file (`file` says in which), a
//! function of the kernel. The BPF programs ([`bpf::latency`](crate::recording::capture::bpf::latency)) count each call
//! and how long it took, by process and by power of two. [`cost`] measures what that costs a call, on
//! this machine, before it begins, and ends it where it becomes too much. [`report`] prints the histograms.
//!
//! With `--slower-than` the stack of each slow call is kept, by the same walk and the same model of processes
//! as any recording's, and named and written like one: [`command`] has both ways on one page.

pub mod command;
pub mod cost;
mod file;
pub mod report;
pub mod syscalls;
pub mod target;
