//! Where events come from: the BPF program, perf events and `/proc`. Nothing here knows what
//! becomes of them.

pub mod bpf;
pub mod child;
pub mod kernel;
pub mod memory;
pub mod perf;
pub mod proc;
