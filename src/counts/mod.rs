//! `profiler counts`: how often something is called per second, on the whole machine, line by line.
//!
//! The kernel counts (`bpf/counts.bpf.c`); here the counts of two moments are subtracted and divided by the
//! time between them, as it was and not as it was asked for.

use std::io::{self, ErrorKind, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::{CountsArgs, What};
use crate::latency::{cost, report, syscalls};
use crate::machine::signals::Signals;
use crate::recording::capture::bpf::counts::{Counted, Counts, OF_32_BIT, UNKNOWN, VFS};
use crate::recording::capture::bpf::probe;
use crate::text::thousands;

/// Counts and prints until the time is over or a signal comes.
///
/// # Errors
/// If the kernel cannot count this, or rights are missing, or standard output cannot be written.
pub fn run(args: &CountsArgs) -> Result<()> {
    probe()?;
    let mut signals = Signals::block(false)?;
    let counted = if args.what == What::Vfs { Counted::Vfs } else { Counted::Syscalls };
    let mut counts = Counts::load(counted)?;
    let bare_ns = cost::system_call_ns();
    counts.attach()?;
    let cost_ns = (cost::system_call_ns() - bare_ns).max(0.0);
    let began = Instant::now();
    let (mut before, mut since) = (counts.read()?, began);
    let mut total = 0;
    let mut lines = 0;
    loop {
        let left = args.duration.map(|all| all.saturating_sub(began.elapsed()));
        let tick = args.interval.saturating_sub(since.elapsed());
        wait(&mut signals, left.map_or(tick, |left| left.min(tick)))?;
        let is_over = signals.interrupts > 0 || args.duration.is_some_and(|all| began.elapsed() >= all);
        if since.elapsed() < args.interval && !is_over {
            continue;
        }
        let (now, at) = (counts.read()?, Instant::now());
        let calls: Vec<u64> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
        total += calls.iter().sum::<u64>();
        let seconds = (at - since).as_secs_f64();
        let text = match counted {
            Counted::Vfs => vfs(&calls, seconds, lines % 20 == 0),
            Counted::Syscalls => system_calls(&calls, seconds, args.rows, lines == 0),
        };
        if !print(&text)? {
            break;
        }
        (before, since) = (now, at);
        lines += 1;
        if is_over {
            break;
        }
    }
    if counted == Counted::Syscalls {
        say!(
            "profiler: {} system calls in {:.1} s; counting costs each about {}",
            thousands(total),
            began.elapsed().as_secs_f64(),
            report::time(cost_ns)
        );
    }
    signals.release();
    Ok(())
}

/// A second's, and what it was made of.
fn system_calls(calls: &[u64], seconds: f64, rows: usize, is_first: bool) -> String {
    let all: u64 = calls.iter().sum();
    let mut most: Vec<(usize, u64)> =
        calls.iter().copied().enumerate().filter(|(_, calls)| *calls > 0).collect();
    most.sort_by_key(|&(number, calls)| (std::cmp::Reverse(calls), number));
    let named = most.iter().take(rows).map(|&(number, calls)| {
        let name = match number {
            OF_32_BIT => "of 32-bit programs".to_owned(),
            UNKNOWN => "of unknown numbers".to_owned(),
            number => syscalls::name(number as u32).map_or_else(|| format!("number {number}"), str::to_owned),
        };
        format!("{name} {}", per_second(calls, seconds))
    });
    let named: Vec<String> = named.collect();
    let head = if is_first { "time (UTC)     calls/s   the most of them\n" } else { "" };
    format!("{head}{} {:>12}   {}\n", clock(), per_second(all, seconds), named.join(", "))
}

/// As vfsstat has it.
fn vfs(calls: &[u64], seconds: f64, with_head: bool) -> String {
    let mut text = String::new();
    if with_head {
        text += "time (UTC)";
        for name in VFS {
            text += &format!(" {:>17}", format!("{name}/s"));
        }
        text.push('\n');
    }
    text += &format!("{:<10}", clock());
    for (at, _) in VFS.iter().enumerate() {
        text += &format!(" {:>17}", per_second(calls.get(at).copied().unwrap_or(0), seconds));
    }
    text.push('\n');
    text
}

fn per_second(calls: u64, seconds: f64) -> String {
    thousands((calls as f64 / seconds.max(1e-9)).round() as u64)
}

/// The time of day.
fn clock() -> String {
    let s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// Sleeps until a signal or the timeout.
fn wait(signals: &mut Signals, timeout: Duration) -> Result<()> {
    let timeout = PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(signals.fd(), PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => while signals.receive().is_some() {},
        Err(error) => return Err(error).context("failed to wait for signals"),
    }
    Ok(())
}

/// Says whether anybody still reads.
fn print(text: &str) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("failed to write to standard output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_rates() {
        let mut calls = vec![0; 1024];
        (calls[nix::libc::SYS_read as usize], calls[nix::libc::SYS_close as usize]) = (4000, 1000);
        calls[OF_32_BIT] = 2;
        let line = system_calls(&calls, 2.0, 2, false);
        assert!(line.ends_with("2,501   read 2,000, close 500\n"), "{line}");
        assert!(system_calls(&calls, 2.0, 3, true).contains("close 500, of 32-bit programs 1\n"));
        let text = vfs(&[20, 40, 0, 2, 0], 2.0, true);
        let [head, line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!(head.len(), line.len());
        assert!(line.split_whitespace().skip(1).eq(["10", "20", "0", "1", "0"]), "{line}");
    }
}
