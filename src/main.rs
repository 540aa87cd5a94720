//! Dispatches the command line and prints errors.

use std::process::ExitCode;

use clap::Parser;
use profiler::cli::{Cli, Command};
use profiler::output::{flamegraph, folded};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Record(_) => Err(anyhow::anyhow!("failed to record: not written yet")),
        Command::Flamegraph(args) => flamegraph::run(&args),
        Command::Folded(args) => folded::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("profiler: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
