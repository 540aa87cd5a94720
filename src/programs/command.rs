//! `profiler stats`: measure, choose, sort, print.

use std::cmp::Reverse;
use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Program, Statistics, Switch, Watch, csv, json, openmetrics, table};
use crate::cli::{Format, Sort, StatsArgs};
use crate::expression::{self, Regex};
use crate::machine::rights::{self, Capability};
use crate::machine::signals::Signals;
use crate::machine::terminal;

/// How often new programs are looked for, which takes one system call: those that live shorter are
/// only counted.
const TICK: Duration = Duration::from_millis(20);

/// Measures and prints, once or again and again.
///
/// # Errors
/// If programs may not be listed, a pattern is wrong, or standard output cannot be written.
pub fn run(args: &StatsArgs) -> Result<()> {
    let name = args.name.as_deref().map(expression::compile).transpose().context("failed to read --name")?;
    if args.duration == Some(Duration::ZERO) && args.interval.is_some() {
        bail!("-d 0 prints totals once; leave out --interval");
    }
    // From here on no signal ends us with statistics left on.
    let mut signals = Signals::block(false)?;
    let result = measure(args, name.as_ref(), &mut signals);
    signals.release();
    match result {
        Err(error)
            if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) =>
        {
            Ok(())
        }
        result => result,
    }
}

fn measure(args: &StatsArgs, name: Option<&Regex>, signals: &mut Signals) -> Result<()> {
    if args.duration == Some(Duration::ZERO) {
        return print(args, name, &Watch::totals().map_err(explained)?, true);
    }
    let switch = match Switch::on(args.by_sysctl) {
        Ok(switch) => switch,
        Err(error) => {
            // If it is permission that is missing, listing says so.
            let totals = Watch::totals().map_err(explained)?;
            let why = match error.kind() {
                ErrorKind::NotFound => {
                    "this kernel has neither BPF_ENABLE_STATS nor kernel.bpf_stats_enabled".to_owned()
                }
                _ => error.to_string(),
            };
            say!("profiler: BPF run-time statistics cannot be switched on: {why}");
            say!("profiler: what follows was counted before, if anybody had them on");
            return print(args, name, &totals, true);
        }
    };
    let started = Instant::now();
    let window = args.interval.or(args.duration).unwrap_or(Duration::from_secs(1));
    let mut first = true;
    loop {
        let mut watch = Watch::start().map_err(explained)?;
        let ends = Instant::now() + window;
        while signals.interrupts == 0 && Instant::now() < ends {
            wait(signals, ends.saturating_duration_since(Instant::now()).min(TICK))?;
            watch.tick().map_err(explained)?;
        }
        // What was asked to end early has measured so far.
        print(args, name, &watch.finish().map_err(explained)?.with(&switch), first)?;
        first = false;
        let over = args.interval.is_none() || args.duration.is_some_and(|all| started.elapsed() >= all);
        if over || signals.interrupts > 0 {
            return Ok(());
        }
    }
}

fn explained(error: io::Error) -> anyhow::Error {
    let denied = error.kind() == ErrorKind::PermissionDenied;
    let error = match denied {
        true => anyhow!(rights::refusal(&[Capability::SysAdmin])),
        false => error.into(),
    };
    error.context("failed to list BPF programs")
}

/// Sleeps until a signal or the timeout.
fn wait(signals: &mut Signals, timeout: Duration) -> Result<()> {
    // Rounded up: a timeout of 0 would spin through the last millisecond.
    let timeout = PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(signals.fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => while signals.receive().is_some() {},
        Err(error) => return Err(error).context("failed to wait for signals"),
    }
    Ok(())
}

fn print(args: &StatsArgs, name: Option<&Regex>, statistics: &Statistics, first: bool) -> Result<()> {
    let terminal = terminal::size().filter(|_| args.output == Format::Table);
    let mut shown = choose(statistics, args, name);
    let mut text = match args.output {
        Format::Table => table::print(statistics, &shown, terminal.map(|(width, _)| width)),
        Format::Json => json::print(statistics, &shown),
        Format::Csv => csv::print(statistics, &shown, first),
        Format::Openmetrics => openmetrics::print(statistics, &shown),
    };
    if let (Some(_), Some((width, height))) = (args.interval, terminal) {
        // What is redrawn in place has to fit in: long lines take several of the terminal's.
        let lines: usize = text.lines().map(|line| line.chars().count().div_ceil(width).max(1)).sum();
        shown.truncate(shown.len().saturating_sub((lines + 1).saturating_sub(height)));
        text = table::print(statistics, &shown, Some(width));
    }
    let mut out = io::stdout().lock();
    let lead = match (args.interval, terminal, first) {
        (Some(_), Some(_), _) => "\x1b[H\x1b[2J",
        (Some(_), None, false) if args.output == Format::Table => "\n",
        _ => "",
    };
    out.write_all(format!("{lead}{text}").as_bytes())?;
    out.flush()?;
    Ok(())
}

/// The programs that were asked for, sorted: the most expensive first, or by id or name.
fn choose<'a>(statistics: &'a Statistics, args: &StatsArgs, name: Option<&Regex>) -> Vec<&'a Program> {
    let mut shown: Vec<&Program> = statistics
        .programs
        .iter()
        .filter(|program| name.is_none_or(|name| name.is_match(&program.name)))
        .filter(|program| args.kind.as_ref().is_none_or(|kind| *kind == program.kind))
        .filter(|program| {
            args.pid.is_empty() || program.owners.iter().any(|owner| args.pid.contains(&owner.pid))
        })
        .collect();
    let totals_only = statistics.window_ns == 0;
    shown.sort_by_cached_key(|program| {
        let window = match args.sort {
            Sort::Runtime | Sort::Cpu if totals_only => program.total_run_time_ns,
            Sort::Runtime | Sort::Cpu => program.run_time_ns,
            Sort::Runcount if totals_only => program.total_run_count,
            Sort::Runcount => program.run_count,
            Sort::Avg => program.average_ns().unwrap_or(0.0) as u64,
            Sort::Memory => program.map_memory_bytes,
            Sort::Id | Sort::Name => 0,
        };
        let name = if args.sort == Sort::Name { program.name.clone() } else { String::new() };
        (Reverse(window), name, program.id)
    });
    shown.truncate(args.rows.unwrap_or(usize::MAX));
    shown
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn chosen(statistics: &Statistics, options: &[&str]) -> Vec<u32> {
        let line = [&["profiler", "stats"], options].concat();
        let Command::Stats(args) = Cli::parse_from(line).command else { unreachable!() };
        let name = args.name.as_deref().map(|name| expression::compile(name).unwrap());
        choose(statistics, &args, name.as_ref()).iter().map(|program| program.id).collect()
    }

    #[test]
    fn programs_are_chosen_and_sorted() {
        let program = |id, name: &str, runs, ns, bytes| Program {
            id,
            name: name.to_owned(),
            kind: if id == 3 { "xdp" } else { "kprobe" }.to_owned(),
            owners: vec![super::super::Owner { pid: 100 + id, comm: String::new(), ours: false }],
            run_count: runs,
            run_time_ns: ns,
            map_memory_bytes: bytes,
            ..Program::default()
        };
        let programs =
            vec![program(1, "c", 10, 100, 7), program(2, "a", 1, 90, 9), program(3, "b", 99, 99, 8)];
        let statistics = Statistics { window_ns: 1_000, programs, ..Statistics::default() };
        for (options, ids) in [
            (&[][..], &[1, 3, 2][..]),
            (&["--sort", "runcount"], &[3, 1, 2]),
            (&["--sort", "avg"], &[2, 1, 3]),
            (&["--sort", "cpu"], &[1, 3, 2]),
            (&["--sort", "memory"], &[2, 3, 1]),
            (&["--sort", "id"], &[1, 2, 3]),
            (&["--sort", "name"], &[2, 3, 1]),
            (&["-n", "1"], &[1]),
            (&["--name", "^[ab]$"], &[3, 2]),
            (&["--type", "xdp"], &[3]),
            (&["--pid", "101,102"], &[1, 2]),
        ] {
            assert_eq!(chosen(&statistics, options), ids, "{options:?}");
        }
    }
}
