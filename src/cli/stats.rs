//! Options of `profiler stats`.

use std::time::Duration;

use clap::Args;

use crate::cli::TEMPLATE;
use crate::cli::durations::{parse_duration, parse_window};

const STATS_EXAMPLES: &str = "\
Examples:
  profiler stats                            what every BPF program costs, measured for 1 s
  profiler stats -d 10s -n 5 --sort avg     the five whose runs take longest, over 10 s
  profiler stats --interval 2s              again and again, until Ctrl-C
  profiler stats --type xdp -o json         XDP programs, for other programs
  profiler stats -d 0 --name '^sd_'         what has been counted so far, without measuring";

/// Options of `profiler stats`.
#[derive(Args, Debug)]
#[command(before_help = STATS_EXAMPLES, help_template = TEMPLATE)]
pub struct StatsArgs {
    /// How long to measure: 10s, 500ms, or seconds. Default is 1s; with --interval, until Ctrl-C. 0
    /// prints what was counted since each program was loaded, as far as anybody had statistics on
    #[arg(short, long, value_name = "DUR", value_parser = parse_window)]
    pub duration: Option<Duration>,

    /// Measure again and again, each time for so long; on a terminal, in place
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    pub interval: Option<Duration>,

    /// Print at most so many programs; totals are of all
    #[arg(short = 'n', long, value_name = "ROWS")]
    pub rows: Option<usize>,

    /// By what to sort, the most first; id and name rise
    #[arg(long, value_name = "KEY", default_value = "runtime")]
    pub sort: Sort,

    /// Only programs whose name this regular expression finds
    #[arg(long, value_name = "RE")]
    pub name: Option<String>,

    /// Only programs of this type, as bpftool spells it: kprobe, sched_cls, xdp, …
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,

    /// Only programs that these processes keep
    #[arg(short, long, value_name = "PID,…", value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// In what form
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub output: Format,

    /// Switch statistics on as for a kernel without BPF_ENABLE_STATS (for tests)
    #[arg(long, hide = true)]
    pub by_sysctl: bool,
}

/// Keys to sort programs by.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Sort {
    Runtime,
    Runcount,
    Avg,
    Cpu,
    Memory,
    Id,
    Name,
}

/// Forms of statistics.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Table,
    Json,
    Csv,
    Openmetrics,
}
