//! The command line: options, their units and their help. The only user of clap.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::machine::rights;

const EXAMPLES: &str = "\
Examples:
  profiler record -d 30s                    the whole machine for 30 s, into output.pb.gz
  profiler record -- make -j4               a command and all its children
  profiler record -p 1234 -d 10s            a running process and the children it starts
  profiler record --off-cpu -d 30s          where threads wait, too
  profiler flamegraph                       output.pb.gz into flamegraph.svg
  profiler flamegraph --type off-cpu        where they waited; --type wall for both
  profiler threads                          each thread's time, on the CPU and off it
  profiler stats                            what every BPF program on the machine costs
  profiler folded | grep -c malloc          folded stacks, one a line, root first
  go tool pprof -http=: output.pb.gz        the same file in the standard viewer";

const RECORD_EXAMPLES: &str = "\
Examples:
  profiler record -d 10s                    everything that runs, for 10 s
  profiler record -- ./server --port 80     from its first instruction to its end
  profiler record -p 1234,1300 -F 999       two processes at 999 Hz, until Ctrl-C
  profiler record -G /system.slice/nginx.service -d 1m
  profiler record -C 0-3 -K -d 5s           kernel stacks of four CPUs
  profiler record --off-cpu -p 1234 -d 10s  where a process runs, and where it waits
  profiler record --off-cpu-only --wakers   where threads wait, and who wakes them";

const FLAMEGRAPH_EXAMPLES: &str = "\
Examples:
  profiler flamegraph                       output.pb.gz into flamegraph.svg
  profiler flamegraph --inverted            roots on top (icicle)
  profiler flamegraph --focus '^malloc$'    only stacks with this function
  profiler flamegraph --reverse             merged from the leaf: which functions are hot, then who calls them
  profiler flamegraph other.pb.gz -o - --title 'Before' > before.svg";

const STATS_EXAMPLES: &str = "\
Examples:
  profiler stats                            what every BPF program costs, measured for 1 s
  profiler stats -d 10s -n 5 --sort avg     the five whose runs take longest, over 10 s
  profiler stats --interval 2s              again and again, until Ctrl-C
  profiler stats --type xdp -o json         XDP programs, for other programs
  profiler stats -d 0 --name '^sd_'         what has been counted so far, without measuring";

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
    /// Draw a flamegraph of a pprof file
    Flamegraph(FlamegraphArgs),
    /// Print the stacks of a pprof file folded: root;…;leaf count
    Folded(FoldedArgs),
    /// Print where each thread's time went: on the CPU, waiting for one, blocked
    Threads(ThreadsArgs),
    /// Print what every BPF program on the machine costs (needs root or CAP_SYS_ADMIN)
    Stats(StatsArgs),
    /// Print how the stack is unwound at each instruction of a file
    #[command(hide = true)]
    UnwindTable(UnwindTableArgs),
}

/// Options of `profiler record`.
#[derive(Args, Debug)]
#[command(before_help = RECORD_EXAMPLES, after_help = rights::HELP, help_template = TEMPLATE)]
pub struct RecordArgs {
    /// How long to record: 120s, 2m, 1m30s, 500ms, or seconds. Default is until Ctrl-C or the
    /// end of CMD. A CMD that still runs then is sent SIGTERM
    #[arg(short, long, value_name = "DUR", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Samples per second and CPU
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub frequency: u32,

    /// The whole system; this is the default when nothing else is named
    #[arg(short, long, group = "target")]
    pub all: bool,

    /// These processes, their threads, and the children they start from now on
    #[arg(short, long, value_name = "PID,…", value_delimiter = ',', group = "target", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,

    /// These threads only
    #[arg(short, long, value_name = "TID,…", value_delimiter = ',', group = "target", value_parser = clap::value_parser!(u32).range(1..))]
    pub tid: Vec<u32>,

    /// Only these CPUs, as in 0-3,8
    #[arg(short = 'C', long, value_name = "CPUS")]
    pub cpu: Option<String>,

    /// Only tasks in this cgroup (v2) or below it: a path under the cgroup mount
    #[arg(short = 'G', long, value_name = "CGROUP")]
    pub cgroup: Option<PathBuf>,

    /// User stacks only
    #[arg(short = 'U', long, conflicts_with = "kernel_stacks_only")]
    pub user_stacks_only: bool,

    /// Kernel stacks only
    #[arg(short = 'K', long)]
    pub kernel_stacks_only: bool,

    /// Record blocked time too: where threads wait, for how long, beside where they run
    #[arg(long, group = "blocked", conflicts_with = "cpu")]
    pub off_cpu: bool,

    /// Record blocked time alone
    #[arg(long, group = "blocked", conflicts_with_all = ["cpu", "frequency", "include_idle"])]
    pub off_cpu_only: bool,

    /// Of blocked time record who ended it, too: the waker's stack, drawn above the blocked one
    #[arg(long, requires = "blocked")]
    pub wakers: bool,

    /// Shortest block that gets a stack; shorter ones are added up by thread. 0 takes all
    #[arg(long, value_name = "DUR", default_value = "1ms", value_parser = parse_block, requires = "blocked")]
    pub min_block: Duration,

    /// Longest block that gets a stack
    #[arg(long, value_name = "DUR", value_parser = parse_block, requires = "blocked")]
    pub max_block: Option<Duration>,

    /// Only blocks in these states: S (interruptible), D (uninterruptible, disk), I (idle thread of
    /// the kernel's), T (stopped)
    #[arg(long, value_name = "STATES", value_parser = parse_states, requires = "blocked")]
    pub state: Option<States>,

    /// Sample idle CPUs too; without it their time is only reported
    #[arg(short = 'I', long)]
    pub include_idle: bool,

    /// How user stacks are walked: table by unwind tables made of each binary's .eh_frame, with
    /// frame pointers where there is none; fp by frame pointers alone, which most distributions'
    /// binaries lack; auto by tables where the kernel can
    #[arg(long, value_name = "HOW", default_value = "auto", hide_possible_values = true)]
    pub unwind: Unwind,

    /// Leave out what BPF programs cost, which the kernel takes some 70 ns a run to count; our own are
    /// then measured for a tenth of the time
    #[arg(long)]
    pub no_bpf_stats: bool,

    /// Where to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "output.pb.gz")]
    pub output: PathBuf,

    /// Do not expand frames into the functions that were inlined there (faster)
    #[arg(long)]
    pub no_inline: bool,

    /// Write addresses with mappings and build ids, to be named later or elsewhere
    #[arg(long)]
    pub no_symbolize: bool,

    /// Capacity of the kernel's table of counts, in place of the computed one (for tests)
    #[arg(long, value_name = "ENTRIES", hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub counts_entries: Option<u32>,

    /// Capacity of the kernel's unwind tables, in place of the computed one (for tests)
    #[arg(long, value_name = "CHUNKS,MAPPINGS", hide = true, value_delimiter = ',')]
    pub table_limits: Option<Vec<u32>>,

    /// Run this command and record it and its children; its exit status is returned
    #[arg(last = true, value_name = "CMD", group = "target", num_args = 1..)]
    pub command: Vec<OsString>,
}

/// States in which a thread is blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct States {
    /// As they were asked for.
    pub letters: String,
    /// Their bits of `TASK_*` (include/linux/sched.h).
    pub bits: u32,
}

/// How user stacks are walked.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwind {
    /// By tables where the kernel can, else by frame pointers.
    Auto,
    /// By tables, or not at all.
    Table,
    /// By frame pointers alone.
    Fp,
}

/// Which stacks and which value of a profile to show.
#[derive(Args, Debug)]
pub struct ViewArgs {
    /// A pprof file, gzipped or not, by this or any other program; `-` is standard input
    #[arg(value_name = "FILE", default_value = "output.pb.gz")]
    pub input: PathBuf,

    /// What to show: cpu or samples (time on the CPU), off-cpu (blocked, and waiting for a CPU),
    /// wall (both), or bpf (BPF programs by their run time)
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "sample_index", hide_possible_values = true)]
    pub shown: Option<Shown>,

    /// Which value to show, by its pprof name. Default is samples where the file has it, else
    /// the file's own default
    #[arg(long, value_name = "NAME")]
    pub sample_index: Option<String>,

    /// Fold threads that were blocked in one stack for over 95 % of the recording into one frame for
    /// each process, drawn narrow, with their number and time in its name
    #[arg(long)]
    pub hide_idle: bool,

    /// Only stacks with a frame whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    pub focus: Option<String>,

    /// Only stacks without such a frame
    #[arg(long, value_name = "REGEX")]
    pub ignore: Option<String>,

    /// Put the values of these labels below the stack's root, as go tool pprof does; an empty
    /// list puts none
    #[arg(long, value_name = "LABEL,…", default_value = "comm", value_delimiter = ',')]
    pub tagroot: Vec<String>,
}

/// What of a profile to show.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nanoseconds on the CPU.
    Cpu,
    /// Samples on the CPU.
    Samples,
    /// Nanoseconds off the CPU.
    OffCpu,
    /// Nanoseconds on and off the CPU.
    Wall,
    /// Nanoseconds in BPF programs, by the kernel's own count.
    Bpf,
}

impl Shown {
    /// Its name in the file, or what its name would be.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Samples => "samples",
            Self::OffCpu => "off_cpu",
            Self::Wall => "wall",
            Self::Bpf => "bpf_time",
        }
    }
}

/// Options of `profiler threads`.
#[derive(Args, Debug)]
pub struct ThreadsArgs {
    /// A recording made with --off-cpu; `-` is standard input
    #[arg(value_name = "FILE", default_value = "output.pb.gz")]
    pub input: PathBuf,
}

/// Options of `profiler folded`.
#[derive(Args, Debug)]
pub struct FoldedArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub view: ViewArgs,

    #[allow(rustdoc::broken_intra_doc_links)] // as help prints it
    /// Mark kernel frames _[k], inlined ones _[i], JIT-compiled ones _[j]
    #[arg(long)]
    pub annotate: bool,
}

/// Options of `profiler flamegraph`.
#[derive(Args, Debug)]
#[command(before_help = FLAMEGRAPH_EXAMPLES, help_template = TEMPLATE)]
pub struct FlamegraphArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub view: ViewArgs,

    /// Where to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "flamegraph.svg")]
    pub output: PathBuf,

    /// Draw roots on top and leaves below (icicle). Stacks stay as they are: see --reverse
    #[arg(short, long)]
    pub inverted: bool,

    /// Merge stacks from the leaf, so that the hottest functions stand at the root with their
    /// callers above. The layout stays as it is: see --inverted
    #[arg(long)]
    pub reverse: bool,

    /// Title
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,

    /// Second line of the title
    #[arg(long, value_name = "TEXT")]
    pub subtitle: Option<String>,

    /// Leave out frames narrower than this: 0.1% of the total, or 0.5px at the image's width
    #[arg(long, value_name = "WIDTH", default_value = "0.01%", value_parser = parse_min_width)]
    pub minwidth: MinWidth,

    /// Colours: `kind` tells kernel, user, inlined, JIT, BPF and unresolved frames apart; or one
    /// of inferno's palettes, such as hot, mem, io, java, aqua
    #[arg(long, value_name = "PALETTE", default_value = "kind")]
    pub colors: String,

    /// Width of the image in pixels. Default is as wide as the window
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(100..=100_000))]
    pub width: Option<u32>,

    /// Height of a frame in pixels
    #[arg(long, value_name = "PX", default_value_t = 16, value_parser = clap::value_parser!(u32).range(6..=200))]
    pub height: u32,

    /// Colour by the hash of the function's name (with an inferno palette)
    #[arg(long)]
    pub hash: bool,

    /// Like --hash, without its weighting of the first letters
    #[arg(long)]
    pub deterministic: bool,

    /// Name of the counted unit in the tooltips. Default is the value's own
    #[arg(long, value_name = "TEXT")]
    pub countname: Option<String>,

    /// A note, embedded in the image
    #[arg(long, value_name = "TEXT")]
    pub notes: Option<String>,
}

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

/// Below which width a frame is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MinWidth {
    /// Share of the whole in percent.
    Percent(f64),
    /// Pixels of the image.
    Pixels(f64),
}

/// Parses a length of a block: a duration, or 0.
fn parse_block(text: &str) -> Result<Duration, String> {
    let hint = || "expected a duration such as 1ms, 100us, 2s or 0".to_owned();
    match text.trim() {
        "0" => Some(Duration::ZERO),
        text => parse_seconds(text).filter(|&seconds| seconds <= LONGEST_S).map(Duration::from_secs_f64),
    }
    .ok_or_else(hint)
}

/// Parses a length of a window, which may be 0.
fn parse_window(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

/// Parses thread states as letters.
fn parse_states(text: &str) -> Result<States, String> {
    let letters: String = text.chars().filter(|&letter| letter != ',').collect();
    let bits = letters.chars().try_fold(0, |bits, letter| match letter {
        'S' => Ok(bits | 1),
        'D' => Ok(bits | 2),
        'T' => Ok(bits | 4 | 8),
        'I' => Ok(bits | 0x400),
        'R' => Err("a thread in R is not blocked: its time is always there, as [runnable]".to_owned()),
        _ => Err(format!("expected states such as S, D, I or T, and not {letter:?}")),
    })?;
    if bits == 0 {
        return Err("expected states such as S, D, I or T".to_owned());
    }
    Ok(States { letters, bits })
}

fn parse_min_width(text: &str) -> Result<MinWidth, String> {
    let (number, make): (_, fn(f64) -> MinWidth) = match text.strip_suffix("px") {
        Some(number) => (number, MinWidth::Pixels),
        None => (text.strip_suffix('%').unwrap_or(text), MinWidth::Percent),
    };
    match number.trim().parse::<f64>() {
        Ok(width) if width.is_finite() && width >= 0.0 => Ok(make(width)),
        _ => Err("expected a width such as 0.1% or 0.5px".to_owned()),
    }
}

/// The longest duration that makes sense: a year.
const LONGEST_S: f64 = 366.0 * 86_400.0;

/// Parses the length of a recording.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds =
        parse_seconds(text).ok_or("expected a duration such as 30s, 2m, 1m30s, 500ms or 10 (seconds)")?;
    if !(0.001..=LONGEST_S).contains(&seconds) {
        return Err("a recording takes from 1ms to a year".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Parses `120s`, `2m`, `1m30s`, `500ms`, `20us`, `1h` or plain seconds, which may have a fraction.
fn parse_seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..letters] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                // Plain seconds stand alone: `1m30` is more likely a slip than 1 min 30 s.
                "" if digits == text.len() => 1.0,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("120s"), Ok(120_000));
        assert_eq!(ms("2m"), Ok(120_000));
        assert_eq!(ms("1m30s"), Ok(90_000));
        assert_eq!(ms("120"), Ok(120_000));
        assert_eq!(ms("0.5"), Ok(500));
        assert_eq!(ms("250ms"), Ok(250));
        for bad in ["", "0", "-1", "s", "1x", "1m30", "1..2s", "nan", "1e9", "99999h", "10 s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn blocks_are_as_short_as_one_likes() {
        let ns = |text| parse_block(text).map(|d| d.as_nanos());
        assert_eq!(ns("0"), Ok(0));
        assert_eq!(ns("1ms"), Ok(1_000_000));
        assert_eq!(ns("0.5ms"), Ok(500_000));
        assert_eq!(ns("100us"), Ok(100_000));
        assert_eq!(ns("7ns"), Ok(7));
        assert_eq!(ns("1s500ms"), Ok(1_500_000_000));
        for bad in ["", "-1", "1xs", "ms", "1ms2", "nan", "1e3ms", "9999999h", "S"] {
            assert!(parse_block(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn states_are_letters() {
        assert_eq!(parse_states("S,D").map(|states| states.bits), Ok(3));
        assert_eq!(parse_states("DT").map(|states| states.bits), Ok(14));
        for bad in ["", ",", "s", "SX", "D "] {
            assert!(parse_states(bad).unwrap_err().contains("expected states"), "{bad:?}");
        }
        assert!(parse_states("R").unwrap_err().contains("[runnable]"));
    }

    #[test]
    fn widths_are_percent_or_pixels() {
        assert_eq!(parse_min_width("0.1%"), Ok(MinWidth::Percent(0.1)));
        assert_eq!(parse_min_width("0.1"), Ok(MinWidth::Percent(0.1)));
        assert_eq!(parse_min_width("0.5px"), Ok(MinWidth::Pixels(0.5)));
        for bad in ["", "px", "-1%", "inf", "NaNpx"] {
            assert!(parse_min_width(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
