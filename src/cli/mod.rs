//! The command line: options, their units and their help. The only user of clap.
//! A command's options are in a file of their own.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use counts::{CountsArgs, What};
pub use latency::LatencyArgs;
pub use record::{RecordArgs, States, Unwind};
pub use serve::ServeArgs;
pub use stats::{Format, Sort, StatsArgs};
pub use tables::{By, ConvertArgs, DiffArgs, MergeArgs, SourceArgs, Target, TopArgs, TopSort};
pub use view::{
    ChosenArgs, FlamegraphArgs, FoldedArgs, MinWidth, PartArgs, SelectArgs, Shown, ThreadsArgs, ViewArgs,
};

mod counts;
mod durations;
mod labels;
mod latency;
mod record;
mod serve;
mod stats;
mod tables;
mod view;

const EXAMPLES: &str = "\
Examples:
  profiler record -d 30s                    the whole machine for 30 s, into output.pb.gz
  profiler record -- make -j4               a command and all its children
  profiler record -p 1234 -d 10s            a running process and the children it starts
  profiler record --off-cpu -d 30s          where threads wait, too
  profiler flamegraph                       output.pb.gz into flamegraph.svg
  profiler flamegraph --type off-cpu        where they waited; --type wall for both
  profiler top                              functions that take most; --by line, process, thread, …
  profiler diff before.pb.gz after.pb.gz    what takes more, what less, and whether it is chance
  profiler source main.work                 the lines of a function, with what each took
  profiler threads                          each thread's time, on the CPU and off it
  profiler serve                            the same on demand: go tool pprof http://…
  profiler stats                            what every BPF program on the machine costs
  profiler doctor                           what can be recorded here, and what is missing for the rest
  profiler latency syscall:fsync            how long calls take: histograms, and stacks of slow ones
  profiler counts syscalls                  how many system calls a second, and which
  profiler folded | grep -c malloc          folded stacks, one a line, root first
  go tool pprof -http=: output.pb.gz        the same file in the standard viewer";

const TEMPLATE: &str = "{before-help}{about-with-newline}\n{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Where a Linux machine's CPU time goes: record it, look at it. One file, standard pprof.
#[derive(Parser, Debug)]
#[command(name = "profiler", version, before_help = EXAMPLES, help_template = TEMPLATE, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program is asked to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Record CPU samples with kernel and user stacks (needs root or capabilities, see its --help)
    Record(RecordArgs),
    /// Record for whoever asks over HTTP, as go tool pprof and Prometheus do
    Serve(ServeArgs),
    /// Draw a flamegraph of a pprof file
    Flamegraph(FlamegraphArgs),
    /// Print the stacks of a pprof file folded: root;…;leaf count
    Folded(FoldedArgs),
    /// Print what takes most: functions, lines, binaries, processes, threads
    Top(TopArgs),
    /// Compare two profiles: what takes more, what less, and how sure that is
    Diff(DiffArgs),
    /// Add profiles up
    Merge(MergeArgs),
    /// Print the lines of a function, and its instructions, with what each took
    Source(SourceArgs),
    /// Write a profile in another format
    Convert(ConvertArgs),
    /// Print where each thread's time went: on the CPU, waiting for one, blocked
    Threads(ThreadsArgs),
    /// Print what every BPF program on the machine costs (needs root or CAP_SYS_ADMIN)
    Stats(StatsArgs),
    /// Print what can be recorded here, what is missing for the rest, and what would be enough
    Doctor,
    /// Measure how long calls take: system calls, functions of programs and of the kernel
    Latency(LatencyArgs),
    /// Count system calls, or the kernel's functions for files, second by second
    Counts(CountsArgs),
    /// Print how the stack is unwound at each instruction of a file
    #[command(hide = true)]
    UnwindTable(UnwindTableArgs),
}

impl RecordArgs {
    /// Options that are ours and not the user's.
    ///
    /// # Errors
    /// If there are no such options.
    pub fn of(options: &[&str]) -> anyhow::Result<Self> {
        match Cli::try_parse_from(["profiler", "record"].iter().chain(options))?.command {
            Command::Record(args) => Ok(args),
            _ => anyhow::bail!("failed to make options of {options:?}"),
        }
    }
}

/// Options of `profiler unwind-table`.
#[derive(Args, Debug)]
pub struct UnwindTableArgs {
    /// A program or shared library
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Read addresses from standard input, one a line, and print the rule that a walk finds for each
    #[arg(long)]
    pub addresses: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
