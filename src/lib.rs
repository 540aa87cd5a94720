//! `profiler`: an offline CPU profiler for Linux.
#![warn(missing_docs)]

pub mod capture;
pub mod cli;
pub mod elf;
pub mod event;
pub mod objects;
pub mod output;
pub mod process;
pub mod profile;
