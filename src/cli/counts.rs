//! Options of `profiler counts`.

use std::time::Duration;

use clap::Args;

use crate::cli::TEMPLATE;
use crate::cli::durations::parse_duration;

const EXAMPLES: &str = "\
Examples:
  profiler counts syscalls                  system calls per second, and which, until Ctrl-C
  profiler counts syscalls -d 10s -n 20     ten lines, with the twenty most frequent
  profiler counts vfs --interval 5s         reads, writes, fsyncs, opens and creates of files, per second";

/// Options of `profiler counts`.
#[derive(Args, Debug)]
#[command(before_help = EXAMPLES, help_template = TEMPLATE)]
pub struct CountsArgs {
    /// What to count: syscalls, or vfs (the kernel's functions for files, where it lets them be traced)
    #[arg(value_name = "WHAT", hide_possible_values = true)]
    pub what: What,

    /// How often to print
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = parse_duration)]
    pub interval: Duration,

    /// How long: 120s, 2m, 1m30s, 500ms, or seconds. Default is until Ctrl-C
    #[arg(short, long, value_name = "DUR", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Of system calls, so many by name, the most frequent first
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 8)]
    pub rows: usize,
}

/// What is counted.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// System calls, by name.
    Syscalls,
    /// Calls of `vfs_read` and its like.
    Vfs,
}
