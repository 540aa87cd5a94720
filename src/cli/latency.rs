//! Options of `profiler latency`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::TEMPLATE;
use crate::cli::durations::{parse_block, parse_duration};

const EXAMPLES: &str = "\
Examples:
  profiler latency syscall:read -d 10s              how long read(2) takes, in all processes
  profiler latency syscall:futex -p 1234            in one process and the children it starts
  profiler latency /usr/bin/redis-server:call -d 5s a function of a program, wherever it runs
  profiler latency libc.so.6:malloc -- ls           a function of a library, in a command
  profiler latency kernel:vfs_read --per-process    a function of the kernel, process by process
  profiler latency syscall:fsync --slower-than 1ms  the slow ones' stacks, too: profiler flamegraph shows them";

const NOTES: &str = "\
Calls are counted exactly. A function's are counted by uprobes, which cost each call some microseconds, a
system call's by a program that runs at every system call of the machine; what a call costs is measured
here, at the beginning, and printed. Above --max-cost the measurement ends by itself.

While a program's function is measured the kernel has an address of its own on the program's stack, where
the one to return to was. What looks for that does not find it: an exception that passes through the
function ends the program.";

/// Options of `profiler latency`.
#[derive(Args, Debug)]
#[command(before_help = EXAMPLES, after_help = NOTES, help_template = TEMPLATE)]
pub struct LatencyArgs {
    /// What to measure: syscall:NAME, PROG:FUNCTION with a program or shared library by its path or,
    /// without one, as PATH or the loader's directories have it, or kernel:FUNCTION
    #[arg(value_name = "TARGET")]
    pub target: String,

    /// How long: 120s, 2m, 1m30s, 500ms, or seconds. Default is until Ctrl-C or the end of CMD
    #[arg(short, long, value_name = "DUR", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// The whole system; this is the default when nothing else is named
    #[arg(short, long, group = "whose")]
    pub all: bool,

    /// Only in these processes and the children they start from now on
    #[arg(short, long, value_name = "PID,…", value_delimiter = ',', group = "whose", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,

    /// Only in this cgroup (v2) or below it
    #[arg(short = 'G', long, value_name = "CGROUP")]
    pub cgroup: Option<PathBuf>,

    /// A histogram for each process, not one of all
    #[arg(long)]
    pub per_process: bool,

    /// Keep the stacks of calls that took so long or longer, as a pprof file of calls and their time
    #[arg(long, value_name = "DUR", value_parser = parse_block)]
    pub slower_than: Option<Duration>,

    /// Where to write these; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "output.pb.gz", requires = "slower_than")]
    pub output: PathBuf,

    /// Measure a function of a program that throws C++ exceptions. One that passes through the function
    /// ends the program then: see docs/latency.md
    #[arg(long)]
    pub even_if_it_throws: bool,

    /// End when what we cost is above so many percent of one CPU, on average over five seconds
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0, value_parser = parse_percent)]
    pub max_cost: f64,

    /// Run this command and measure in it and its children; its exit status is returned
    #[arg(last = true, value_name = "CMD", group = "whose", num_args = 1..)]
    pub command: Vec<OsString>,
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent.is_finite() => Ok(percent),
        _ => Err("expected a percentage such as 10".to_owned()),
    }
}
