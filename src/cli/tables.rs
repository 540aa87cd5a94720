//! Options of the commands that make tables and other files of a file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::TEMPLATE;
use super::durations::parse_moment;
use super::view::{ChosenArgs, PartArgs, SelectArgs};

const TOP_EXAMPLES: &str = "\
Examples:
  profiler top                              functions that take most, of output.pb.gz
  profiler top -i                           the table and the flamegraph, in the terminal
  profiler top --sort total -n 50           with all that they call, the first 50
  profiler top --by line --focus '^parse'   lines, of stacks with such a function
  profiler top --by process --type off-cpu  processes by the time for which they waited
  profiler top --from 20s --to 21s          one second of a recording that was made with --timeline
  profiler top --by label:phase --json      values of a label, for other programs";

const DIFF_EXAMPLES: &str = "\
Examples:
  profiler diff old.pb.gz new.pb.gz         shares of the whole: what takes more, what less
  profiler diff old.pb.gz new.pb.gz -o diff.svg
  profiler diff --absolute a.pb.gz b.pb.gz  values as they are, for programs that did the same work
  profiler diff --fail-above 5% --json main.pb.gz branch.pb.gz > diff.json || echo slower";

const SOURCE_EXAMPLES: &str = "\
Examples:
  profiler source main.work                 the lines of a function, and what each took
  profiler source '^parse' --source-path .  of all functions that are called so; their text is here
  profiler source -d memcpy                 with its instructions";

const CONVERT_EXAMPLES: &str = "\
Examples:
  profiler convert --to speedscope -o a.json          output.pb.gz for speedscope.app
  profiler convert --to firefox other.pb.gz > a.json  for profiler.firefox.com
  profiler convert --to pprof app.cpuprofile -o a.pb.gz";

/// What a row of a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A function's name.
    Function,
    /// A function and a line in its file.
    Line,
    /// A program, a library, the kernel.
    Binary,
    /// A process: its name and id.
    Process,
    /// A thread: its name and id.
    Thread,
    /// The value of the label of this name.
    Label(String),
}

impl By {
    /// The heading of such rows.
    pub fn title(&self) -> &str {
        match self {
            Self::Function => "function",
            Self::Line => "function and line",
            Self::Binary => "binary",
            Self::Process => "process",
            Self::Thread => "thread",
            Self::Label(name) => name,
        }
    }
}

/// Options of `profiler top`.
#[derive(Args, Debug)]
#[command(before_help = TOP_EXAMPLES, help_template = TEMPLATE)]
pub struct TopArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub select: SelectArgs,

    /// What a row is: function, line, binary, process, thread, or label:NAME for the values of a label; a sample
    /// with several values is in the row of each
    #[arg(long, value_name = "WHAT", default_value = "function", value_parser = parse_by)]
    pub by: By,

    /// By what to sort: self (its own), or total (with all that it calls)
    #[arg(long, value_name = "KEY", default_value = "self")]
    pub sort: TopSort,

    /// Print at most so many rows. Default is 20 on a terminal, and else all
    #[arg(short = 'n', long, value_name = "ROWS")]
    pub rows: Option<usize>,

    /// Print JSON: values as they are in the file, and their shares in percent
    #[arg(long)]
    pub json: bool,

    /// Open the table and the flamegraph in the terminal, with the keys of the viewer: ? lists them
    #[arg(short, long, conflicts_with_all = ["json", "rows", "by"])]
    pub interactive: bool,
}

/// Keys to sort rows by.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TopSort {
    #[value(name = "self")]
    Own,
    Total,
}

/// Options of `profiler diff`.
#[derive(Args, Debug)]
#[command(before_help = DIFF_EXAMPLES, help_template = TEMPLATE)]
pub struct DiffArgs {
    /// The earlier profile
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,

    /// The later one, of the same kind
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub chosen: ChosenArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub part: PartArgs,

    /// What a row is: function, line, binary, process, thread, or label:NAME for the values of a label
    #[arg(long, value_name = "WHAT", default_value = "function", value_parser = parse_by)]
    pub by: By,

    /// Draw the comparison, too, as a flamegraph: red is more than before, blue is less
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Compare values as they are, not shares of the whole
    #[arg(long)]
    pub absolute: bool,

    /// Exit with status 3 if a row takes more than before by more than this part of the whole, and not by
    /// chance
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub fail_above: Option<f64>,

    /// Print at most so many rows. Default is 20 on a terminal, and else all
    #[arg(short = 'n', long, value_name = "ROWS")]
    pub rows: Option<usize>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl DiffArgs {
    /// What is compared of one of the files.
    pub fn select(&self, input: &Path) -> SelectArgs {
        SelectArgs { input: input.to_owned(), chosen: self.chosen.clone(), part: self.part.clone() }
    }
}

/// Options of `profiler merge`.
#[derive(Args, Debug)]
pub struct MergeArgs {
    /// Profiles of the same kind, or directories of them that `record --every` made
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    pub inputs: Vec<PathBuf>,

    /// Where to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "merged.pb.gz")]
    pub output: PathBuf,
}

/// Options of `profiler source`.
#[derive(Args, Debug)]
#[command(before_help = SOURCE_EXAMPLES, help_template = TEMPLATE)]
pub struct SourceArgs {
    /// Name of a function, or a regular expression for names
    #[arg(value_name = "FUNCTION")]
    pub function: String,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub select: SelectArgs,

    /// Where source files may be that are not where the profile says
    #[arg(long, value_name = "DIR,…", value_delimiter = ',')]
    pub source_path: Vec<PathBuf>,

    /// Print instructions, too, where the binary is still there
    #[arg(short, long)]
    pub disassemble: bool,
}

/// Options of `profiler convert`.
#[derive(Args, Debug)]
#[command(before_help = CONVERT_EXAMPLES, help_template = TEMPLATE)]
pub struct ConvertArgs {
    /// A profile, as of any other command; `-` is standard input
    #[arg(value_name = "FILE", default_value = "output.pb.gz")]
    pub input: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub chosen: ChosenArgs,

    /// Only what was taken from this time on, since the recording began: 12s, 1m30s. The recording was made
    /// with --timeline
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub from: Option<Duration>,

    /// Only what was taken before this time: the --to of other commands
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub until: Option<Duration>,

    /// To what: speedscope, firefox (the Firefox Profiler), perf-script (its text), folded, or pprof
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    pub to: Target,

    /// Where to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}

impl ConvertArgs {
    /// What is converted.
    pub fn select(&self) -> SelectArgs {
        SelectArgs {
            input: self.input.clone(),
            chosen: self.chosen.clone(),
            part: PartArgs { from: self.from, to: self.until },
        }
    }
}

/// Formats to convert to.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Target {
    Speedscope,
    Firefox,
    PerfScript,
    Folded,
    Pprof,
}

fn parse_by(text: &str) -> Result<By, String> {
    Ok(match text {
        "function" => By::Function,
        "line" => By::Line,
        "binary" => By::Binary,
        "process" => By::Process,
        "thread" => By::Thread,
        _ => match text.strip_prefix("label:").filter(|name| !name.is_empty()) {
            Some(name) => By::Label(name.to_owned()),
            None => return Err("expected function, line, binary, process, thread or label:NAME".to_owned()),
        },
    })
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>() {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent),
        _ => Err("expected a percentage such as 5%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_percentages_are_understood() {
        assert_eq!(parse_by("line"), Ok(By::Line));
        assert_eq!(parse_by("label:phase"), Ok(By::Label("phase".to_owned())));
        assert!(parse_by("label:").is_err() && parse_by("phase").is_err());
        assert_eq!([parse_percent("5%"), parse_percent("0.5")], [Ok(5.0), Ok(0.5)]);
        assert!(parse_percent("-1%").is_err() && parse_percent("x").is_err());
    }
}
