//! Dispatches the command line and prints errors.

use clap::Parser;
use profiler::cli::Cli;

fn main() {
    let _cli = Cli::parse();
}
