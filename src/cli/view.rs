//! Options of the commands that show a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::TEMPLATE;
use crate::cli::durations::parse_moment;

const FLAMEGRAPH_EXAMPLES: &str = "\
Examples:
  profiler flamegraph                       output.pb.gz into flamegraph.svg: a picture, and opened in a
                                            browser a viewer
  profiler flamegraph -o profile.html       the same as a page
  profiler flamegraph --inverted            roots on top (icicle)
  profiler flamegraph --focus '^malloc$'    only stacks with this function
  profiler flamegraph --from 10s --to 12s   two seconds of a recording that was made with --timeline
  profiler flamegraph --reverse             merged from the leaf: which functions are hot, then who calls them
  profiler flamegraph other.pb.gz -o - --title 'Before' > before.svg";

/// Which stacks and which value of a profile are meant.
#[derive(Args, Debug)]
pub struct SelectArgs {
    /// A pprof file, gzipped or not, by this or any other program, or a file of another profiler: folded
    /// stacks, perf script, speedscope, Firefox Profiler, .cpuprofile; a directory of `record --every`; `-`
    /// is standard input
    #[arg(value_name = "FILE", default_value = "output.pb.gz")]
    pub input: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub chosen: ChosenArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub part: PartArgs,
}

/// Which stacks and which value, of any profile.
#[derive(Args, Clone, Debug)]
pub struct ChosenArgs {
    /// What to show: cpu or samples (time on the CPU), off-cpu (blocked, and waiting for a CPU),
    /// wall (both), or bpf (BPF programs by their run time)
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "sample_index", hide_possible_values = true)]
    pub shown: Option<Shown>,

    /// Which value to show, by its pprof name or its number from 0. Default is samples where the file
    /// has it, else the file's own default
    #[arg(long, value_name = "NAME")]
    pub sample_index: Option<String>,

    /// Only stacks with a frame whose name matches this regular expression
    #[arg(long, value_name = "REGEX")]
    pub focus: Option<String>,

    /// Only stacks without such a frame
    #[arg(long, value_name = "REGEX")]
    pub ignore: Option<String>,
}

/// Which part of a recording's time.
#[derive(Args, Clone, Debug)]
pub struct PartArgs {
    /// Only what was taken from this time on, since the recording, or the first in a directory, began: 12s,
    /// 1m30s. The recording was made with --timeline
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub from: Option<Duration>,

    /// Only what was taken before this time
    #[arg(long, alias = "until", value_name = "TIME", value_parser = parse_moment)]
    pub to: Option<Duration>,
}

/// Which stacks and which value of a profile to show, and how stacks are shown.
#[derive(Args, Debug)]
pub struct ViewArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub select: SelectArgs,

    /// Fold threads that were blocked in one stack for over 95 % of the recording into one frame for
    /// each process, drawn narrow, with their number and time in its name
    #[arg(long)]
    pub hide_idle: bool,

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

    /// Show the native functions of an interpreter too, among those of the scripts that it runs
    #[arg(long)]
    pub native: bool,

    /// Where to write; `-` is standard output. A name that ends in .html or .htm makes a page, any other an SVG
    /// image; opened in a browser, both are a viewer
    #[arg(short, long, value_name = "FILE", default_value = "flamegraph.svg")]
    pub output: PathBuf,

    /// Only the picture, without the viewer and the profile in it
    #[arg(long)]
    pub picture_only: bool,

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
    #[arg(long, value_name = "WIDTH", default_value = "0.1%", value_parser = parse_min_width)]
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

/// Below which width a frame is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MinWidth {
    /// Share of the whole in percent.
    Percent(f64),
    /// Pixels of the image.
    Pixels(f64),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_percent_or_pixels() {
        assert_eq!(parse_min_width("0.1%"), Ok(MinWidth::Percent(0.1)));
        assert_eq!(parse_min_width("0.1"), Ok(MinWidth::Percent(0.1)));
        assert_eq!(parse_min_width("0.5px"), Ok(MinWidth::Pixels(0.5)));
        for bad in ["", "px", "-1%", "inf", "NaNpx"] {
            assert!(parse_min_width(bad).is_err(), "{bad:?} was taken");
        }
    }
}
