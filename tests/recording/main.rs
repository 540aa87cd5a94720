//! Recordings of real programs. What is right is known by construction, said by binutils, or read
//! from the file by the judges in `tests/judges`; never by earlier output of the program.
//!
//! The tests need root. What cannot run here says so: `SKIP: test: why`.

mod chance;
mod commands;
mod common;
mod containers;
mod counts;
mod debug_links;
mod doctor;
mod endings;
mod events;
mod filters;
mod identities;
mod identity;
mod injected;
mod java;
mod latency;
mod layouts;
mod limits;
mod manners;
mod moments;
mod names;
mod off_cpu;
mod paths;
mod processes;
mod programs;
mod refusals;
mod rights;
mod rotation;
mod runtimes;
mod sandbox;
mod scripts;
mod serve;
mod shares;
mod strangers;
mod viewers;
mod walks;
mod whole;
