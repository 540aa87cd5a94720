//! Options of `profiler record`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::ArgPredicate;

use crate::cli::TEMPLATE;
use crate::cli::durations::{parse_block, parse_bytes, parse_duration, parse_period, parse_step};
use crate::cli::labels::parse_label;
use crate::machine::rights;

const RECORD_EXAMPLES: &str = "\
Examples:
  profiler record -d 10s                    everything that runs, for 10 s
  profiler record -- ./server --port 80     from its first instruction to its end
  profiler record -p 1234,1300 -F 999       two processes at 999 Hz, until Ctrl-C
  profiler record -G /system.slice/nginx.service -d 1m
  profiler record -F 19 --every 60s --keep 24h -o /var/lib/profiler     on and on
  profiler record --label region=eu -d 1m   with a label that tells where it was made
  profiler record -C 0-3 -K -d 5s           kernel stacks of four CPUs
  profiler record -e page-faults -p 1234    where memory is touched first; tracepoint:sched:sched_switch, cycles, …
  profiler record --timeline -d 1m          and when: profiler top --from 20s --to 21s
  profiler record --off-cpu -p 1234 -d 10s  where a process runs, and where it waits
  profiler record --off-cpu-only --wakers   where threads wait, and who wakes them";

/// Options of `profiler record`.
#[derive(Args, Debug)]
#[command(before_help = RECORD_EXAMPLES, after_help = rights::HELP, help_template = TEMPLATE)]
pub struct RecordArgs {
    /// How long to record: 120s, 2m, 1m30s, 500ms, or seconds. Default is until Ctrl-C or the
    /// end of CMD. A CMD that still runs then is sent SIGTERM
    #[arg(short, long, value_name = "DUR", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Sample this event in place of the CPU's clock: page-faults, context-switches, cycles, …, a raw
    /// or PMU event as perf writes it, or tracepoint:SYSTEM:NAME; cycles:u and cycles:k are those of
    /// one mode
    #[arg(short = 'e', long, value_name = "EVENT", conflicts_with = "blocked")]
    pub event: Option<String>,

    /// One sample in so many events; tracepoints: 1. Default is as often as -F says
    #[arg(short = 'c', long, value_name = "N", requires = "event", value_parser = clap::value_parser!(u64).range(1..=1 << 48))]
    pub count: Option<u64>,

    /// Samples per second and CPU. Default is 99; of an event at most 999
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = 99, default_value_if("event", ArgPredicate::IsPresent, "999"), hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..=10_000))]
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

    /// Only tasks in this cgroup or below it, of v2 or a v1 controller: its directory, or its path as in
    /// /proc/PID/cgroup
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

    /// Leave out the functions of scripts in Python and JavaScript and the methods in Java: record the native
    /// functions of their interpreters alone, and walk what Java compiles by frame pointers
    #[arg(long)]
    pub no_interpreters: bool,

    /// Leave out what BPF programs cost, which the kernel takes some 70 ns a run to count; our own are
    /// then measured for a tenth of the time
    #[arg(long)]
    pub no_bpf_stats: bool,

    /// Keep when each sample was taken, in steps of so much, and on which CPU: for --from and --to of the
    /// commands that show a file, and a strip of time in the viewer. The file is larger; the summary says by
    /// how much. Default is 100ms
    #[arg(long, value_name = "STEP", num_args = 0..=1, require_equals = true, default_missing_value = "100ms", value_parser = parse_step)]
    pub timeline: Option<Duration>,

    /// Give every sample this label, as in region=eu; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub label: Vec<(String, String)>,

    /// Go on and on: a file for each period of this length, without a gap between them, in the directory
    /// that -o names. They are named while recording goes on
    #[arg(long, value_name = "DUR", value_parser = parse_period, conflicts_with = "event")]
    pub every: Option<Duration>,

    /// Of these files keep those that began not longer ago than this
    #[arg(long, value_name = "DUR", value_parser = parse_duration, requires = "every")]
    pub keep: Option<Duration>,

    /// Keep the newest, of so many bytes in all, as in 500M or 1G
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, requires = "every", conflicts_with = "keep")]
    pub keep_bytes: Option<u64>,

    /// Write the file every so often while recording goes on: if the recorder is killed, only what came after
    /// that is lost. What BPF programs cost is written at the end alone
    #[arg(long, value_name = "DUR", value_parser = parse_period, conflicts_with_all = ["every", "event"])]
    pub checkpoint: Option<Duration>,

    /// What the recorder may hold of what it has counted. From half of it on, new samples have no process id;
    /// when it is used up, new stacks are counted under one frame that says so
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "256M")]
    pub memory_budget: u64,

    /// Where to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "output.pb.gz")]
    pub output: PathBuf,

    /// Do not expand frames into the functions that were inlined there (faster)
    #[arg(long)]
    pub no_inline: bool,

    /// Write where the kernel lies in memory, too; otherwise its addresses are told as offsets
    #[arg(long)]
    pub kernel_addresses: bool,

    /// Write addresses with mappings and build ids, to be named later or elsewhere
    #[arg(long)]
    pub no_symbolize: bool,

    /// Capacity of the kernel's table of counts, in place of the computed one (for tests)
    #[arg(long, value_name = "ENTRIES", hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub counts_entries: Option<u32>,

    /// Capacity of the kernel's unwind tables, in place of the computed one (for tests)
    #[arg(long, value_name = "CHUNKS,MAPPINGS", hide = true, value_delimiter = ',')]
    pub table_limits: Option<Vec<u32>>,

    /// Fail on purpose: while it records, or while it names (for tests)
    #[arg(long, value_name = "STEP", hide = true)]
    pub panic_at: Option<String>,

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_letters() {
        assert_eq!(parse_states("S,D").map(|states| states.bits), Ok(3));
        assert_eq!(parse_states("DT").map(|states| states.bits), Ok(14));
        for bad in ["", ",", "s", "SX", "D "] {
            assert!(parse_states(bad).unwrap_err().contains("expected states"), "{bad:?}");
        }
        assert!(parse_states("R").unwrap_err().contains("[runnable]"));
    }
}
