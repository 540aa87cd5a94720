//! `profiler`: an offline CPU profiler for Linux.
#![warn(missing_docs)]

pub mod cli;
pub mod output;
pub mod profile;
