//! `profiler stats` beside bpftool, fdinfo and programs whose runs are known to the last one.
//!
//! The tests need root and take turns. What cannot run here says so: `SKIP: test: why`.

#[path = "../recording/chance.rs"]
#[allow(dead_code, reason = "nothing is sampled here")]
mod chance;
mod comings;
#[path = "../recording/common.rs"]
#[allow(dead_code, reason = "nothing is recorded here")]
mod common;
mod containers;
mod forms;
mod machine;
mod peers;
