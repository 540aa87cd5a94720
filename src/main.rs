//! Dispatches the command line and prints errors.

#![warn(clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use profiler::cli::{Cli, Command};
use profiler::counts;
use profiler::doctor;
use profiler::latency;
use profiler::machine::{shortage, signals};
use profiler::programs;
use profiler::recording::capture::bpf::found;
use profiler::recording::record;
use profiler::say;
use profiler::serve;
use profiler::text::printable;
use profiler::unwind::show;
use profiler::viewing::{convert, diff, flamegraph, folded, merge, source, threads, top};

fn main() -> ExitCode {
    profiler::worker::serve_if_asked();
    signals::be_told_of_full_files();
    let result = match Cli::parse().command {
        Command::Record(args) => record::run(&args),
        Command::Serve(args) => serve::run(&args).map(|()| 0),
        Command::Flamegraph(args) => flamegraph::run(&args).map(|()| 0),
        Command::Folded(args) => folded::run(&args).map(|()| 0),
        Command::Top(args) => top::run(&args).map(|()| 0),
        Command::Diff(args) => diff::run(&args),
        Command::Merge(args) => merge::run(&args).map(|()| 0),
        Command::Source(args) => source::run(&args).map(|()| 0),
        Command::Convert(args) => convert::run(&args).map(|()| 0),
        Command::Threads(args) => threads::run(&args).map(|()| 0),
        Command::Doctor => Ok(doctor::run()),
        Command::Stats(args) => programs::command::run(&args).map(|()| 0),
        Command::Latency(args) => latency::command::run(&args),
        Command::Counts(args) => counts::run(&args).map(|()| 0),
        Command::UnwindTable(args) if args.addresses => found::run(&args).map(|()| 0),
        Command::UnwindTable(args) => show::run(&args).map(|()| 0),
    };
    match result {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(error) => {
            // It may name what strangers chose: files, functions, processes.
            let told = printable(&format!("{error:#}"));
            let remedy = shortage::remedy_in(&told).map(|remedy| format!(": {remedy}")).unwrap_or_default();
            say!("profiler: error: {told}{remedy}");
            ExitCode::FAILURE
        }
    }
}
