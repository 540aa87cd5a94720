//! Writes the manual pages and the shell completions, made of the command line's own definitions, into a
//! directory laid out like `/usr/local/share`.
//!
//! Usage: cargo run --release --example manual -- DIRECTORY DATE

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use profiler::cli::Cli;

/// Each shell with the place where it looks for completions.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions"),
    (Shell::Fish, "fish/vendor_completions.d"),
    (Shell::Zsh, "zsh/site-functions"),
];

fn main() -> ExitCode {
    let args: Vec<_> = env::args().skip(1).collect();
    let [directory, date] = &args[..] else {
        eprintln!(
            "manual: error: expected a directory to write to, and the date of the pages, as in 2026-11-27"
        );
        return ExitCode::FAILURE;
    };
    match write(Path::new(directory), date) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: error: failed to write into {directory}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes everything below `directory`, pages as of `date`.
pub fn write(directory: &Path, date: &str) -> io::Result<()> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    for (shell, place) in COMPLETIONS {
        let place = directory.join(place);
        fs::create_dir_all(&place)?;
        let file = generate_to(shell, &mut command, &name, &place)?;
        // bash looks for a file of the command's name.
        if shell == Shell::Bash {
            fs::rename(file, place.join(&name))?;
        }
    }

    let pages = directory.join("man/man1");
    fs::create_dir_all(&pages)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let commands = [&command].into_iter().chain(command.get_subcommands());
    for command in commands.filter(|command| !command.is_hide_set()) {
        let man =
            Man::new(command.clone()).date(date).source(concat!("profiler ", env!("CARGO_PKG_VERSION")));
        write_page(command, &man, &pages)?;
    }
    Ok(())
}

/// Writes the page of one command. The examples, which open `--help`, close the page, as is the custom.
fn write_page(command: &Command, man: &Man, directory: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    if let Some(examples) = command.get_before_help() {
        let mut section = Roff::new();
        section.control("SH", ["EXAMPLES"]).control("nf", []);
        // The first line is the heading.
        for line in examples.to_string().lines().skip(1) {
            section.text([roman(line)]);
        }
        section.control("fi", []).to_writer(&mut page)?;
    }
    fs::write(directory.join(man.get_filename()), page)
}
