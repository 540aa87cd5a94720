//! `profiler source`: the lines of a function with what each took, and its instructions.
//!
//! The lines are in the profile, their text is in files that may be elsewhere or gone: a file is looked for
//! where the profile says, and then below each `--source-path` without more and more of the directories
//! that it lay in where it was compiled. Without text the lines have their numbers and values.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::top::Screen;
use super::{View, disassembly, open, scale};
use crate::cli::SourceArgs;
use crate::expression;
use crate::model::profile::{FunctionId, MappingId, Profile};
use crate::text::{percent, printable};

/// Most bytes of a source file.
const MOST_SOURCE: u64 = 64 << 20;
/// Lines around those with values that are shown too.
const AROUND: i64 = 3;

/// Prints the lines of a function, and if asked for its instructions, to standard output.
///
/// # Errors
/// If the file cannot be read, has no samples, or no function is called so; or if standard output cannot
/// be written.
pub fn run(args: &SourceArgs) -> Result<()> {
    let view = open(&args.select)?;
    let functions = find(&view.profile, &args.function)?;
    let mut listings = BTreeMap::new();
    collect(&view, &functions, &mut listings);
    ensure!(
        !listings.is_empty(),
        "failed to find samples of '{}' in {}: `profiler top` prints the names that have some",
        args.function,
        args.select.input.display()
    );
    let mut listings: Vec<_> = listings.into_iter().collect();
    listings.sort_by_key(|(_, listing)| std::cmp::Reverse(listing.total[1]));
    let screen = Screen::of_stdout();
    let mut text = String::new();
    for ((name, file), listing) in &listings {
        text += &listing.text(&view, name, file, args, &screen);
    }
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("failed to write the lines to standard output"),
    }
}

/// Functions that are called so, or else those that the expression finds.
fn find(profile: &Profile, wanted: &str) -> Result<HashSet<FunctionId>> {
    let all = || profile.functions.iter().enumerate();
    let exact: HashSet<_> = all()
        .filter(|(_, it)| it.name == wanted || it.system_name == wanted)
        .map(|(at, _)| at.into())
        .collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    let regex = expression::compile(wanted).with_context(|| format!("failed to understand '{wanted}'"))?;
    Ok(all().filter(|(_, it)| regex.is_match(&it.name)).map(|(at, _)| at.into()).collect())
}

/// Self and total of something.
type Values = [i64; 2];

/// What is known of one function in one file.
#[derive(Default)]
struct Listing {
    start_line: i64,
    total: Values,
    lines: BTreeMap<i64, Values>,
    /// By what the code lies in and the address there.
    addresses: BTreeMap<(MappingId, u64), Values>,
}

fn collect(view: &View, functions: &HashSet<FunctionId>, listings: &mut BTreeMap<(String, String), Listing>) {
    let profile = &view.profile;
    for sample in profile.samples() {
        let value = sample.values[view.index];
        if value == 0 {
            continue;
        }
        let mut met = HashSet::new();
        let mut is_leaf = true;
        for at in profile.stack(sample.stack) {
            let location = profile.location(at);
            for line in &location.lines {
                let own = if std::mem::take(&mut is_leaf) { value } else { 0 };
                if !functions.contains(&line.function) {
                    continue;
                }
                let function = profile.function(line.function);
                let key = (function.name.clone(), function.filename.clone());
                let mut once = |what: (FunctionId, Option<i64>, Option<(MappingId, u64)>)| {
                    if met.insert(what) { value } else { 0 }
                };
                let whole = once((line.function, None, None));
                let of_line = once((line.function, Some(line.line), None));
                let place = location.mapping.map(|mapping| (mapping, location.address));
                let of_address = place.map(|place| (place, once((line.function, None, Some(place)))));
                let listing = listings.entry(key).or_default();
                listing.start_line = function.start_line;
                let add = |values: &mut Values, total: i64| {
                    *values = [values[0].saturating_add(own), values[1].saturating_add(total)];
                };
                add(&mut listing.total, whole);
                add(listing.lines.entry(line.line).or_default(), of_line);
                if let Some((place, total)) = of_address {
                    add(listing.addresses.entry(place).or_default(), total);
                }
            }
            is_leaf = false;
        }
    }
}

impl Listing {
    fn text(&self, view: &View, name: &str, file: &str, args: &SourceArgs, screen: &Screen) -> String {
        let unit = &view.profile.sample_types[view.index].unit;
        let amount = |value: i64| if value == 0 { ".".to_owned() } else { scale::amount(value, unit) };
        let all = view.profile.total(view.index);
        let clean = |text: &str| printable(text).replace('\n', "\u{fffd}");
        let place = if file.is_empty() { "an unknown file".to_owned() } else { clean(file) };
        let heading = format!(
            "{} in {place}: {} self, {} total, {:.2}% of {}",
            clean(name),
            amount(self.total[0]),
            amount(self.total[1]),
            percent(self.total[1].abs() as f64, view.whole as f64),
            scale::amount(all, unit)
        );
        let mut text = screen.bold(&heading) + "\n";
        let source = text_of(file, &args.source_path);
        if source.is_none() && !file.is_empty() {
            text += "  (its text was not found: --source-path names a directory in which it may be)\n";
        }
        let mut last = None;
        for number in self.shown(source.as_ref().map_or(0, Vec::len) as i64) {
            if last.is_some_and(|last| number > last + 1) {
                text += &format!("{:>12} {:>12}  {:>6}\n", "", "", "…");
            }
            last = Some(number);
            let values = self.lines.get(&number).copied().unwrap_or_default();
            let line =
                source.as_ref().zip(usize::try_from(number - 1).ok()).and_then(|(lines, at)| lines.get(at));
            let line = clean(&line.map_or_else(String::new, |line| line.replace('\t', "    ")));
            let head = format!("{:>12} {:>12}  {number:>6}  ", amount(values[0]), amount(values[1]));
            let line = screen.cut(&line, head.chars().count());
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", format!("{head}{line}").trim_end());
        }
        if args.disassemble {
            text += &self.instructions(&view.profile, amount, screen);
        }
        text + "\n"
    }

    /// Numbers of lines to show: those with values and, where there is text, some around them.
    fn shown(&self, lines: i64) -> Vec<i64> {
        let mut shown = std::collections::BTreeSet::new();
        for &line in self.lines.keys() {
            shown.insert(line);
            shown.extend((line - AROUND).max(1)..=(line + AROUND).min(lines));
        }
        if (1..=lines).contains(&self.start_line) {
            shown.insert(self.start_line);
        }
        shown.into_iter().collect()
    }

    fn instructions(&self, profile: &Profile, amount: impl Fn(i64) -> String, screen: &Screen) -> String {
        let mut text = String::new();
        let mappings: std::collections::BTreeSet<_> =
            self.addresses.keys().map(|(mapping, _)| *mapping).collect();
        for id in mappings {
            let mapping = profile.mapping(id);
            let path = printable(&mapping.path).replace('\n', "\u{fffd}");
            let offset =
                |address: u64| address.wrapping_sub(mapping.memory_start).wrapping_add(mapping.file_offset);
            let here = self.addresses.range((id, 0)..=(id, u64::MAX));
            let values: BTreeMap<u64, Values> =
                here.map(|(&(_, address), values)| (offset(address), *values)).collect();
            let offsets: Vec<u64> = values.keys().copied().collect();
            match disassembly::functions(mapping, &offsets) {
                Err(error) => text += &format!("  (no instructions of {path}: {error:#})\n"),
                Ok(instructions) => {
                    text += &format!("  instructions in {path}:\n");
                    for instruction in instructions {
                        // Callers' addresses lie within the call instruction.
                        let inside = values.range(instruction.offset..instruction.offset + instruction.bytes);
                        let sum = inside.fold([0; 2], |sum: Values, (_, values)| {
                            [sum[0] + values[0], sum[1] + values[1]]
                        });
                        let head = format!(
                            "{:>12} {:>12}  {:>10x}  ",
                            amount(sum[0]),
                            amount(sum[1]),
                            instruction.vaddr
                        );
                        let line = screen.cut(&instruction.text, head.chars().count());
                        let _ = writeln!(text, "{head}{line}");
                    }
                }
            }
        }
        text
    }
}

/// The lines of a source file, if it can be found.
fn text_of(file: &str, roots: &[PathBuf]) -> Option<Vec<String>> {
    let path = Path::new(file);
    let parts: Vec<_> =
        path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect();
    let below = |root: &PathBuf| {
        let suffixes: Vec<PathBuf> =
            (0..parts.len()).map(|from| root.join(parts[from..].iter().collect::<PathBuf>())).collect();
        suffixes
    };
    let own = path.is_absolute().then(|| path.to_owned());
    own.into_iter().chain(roots.iter().flat_map(below)).find_map(|path| lines_of(&path))
}

fn lines_of(path: &Path) -> Option<Vec<String>> {
    // A profile may name anything: only a file of a size that source has is opened, and no pipe is waited for.
    let metadata = fs::metadata(path).ok().filter(|it| it.is_file() && it.len() <= MOST_SOURCE)?;
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path).ok()?.take(MOST_SOURCE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
}
