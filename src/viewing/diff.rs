//! `profiler diff`: what takes more and what takes less than before, and how sure that is.
//!
//! Two recordings are seldom equally long. So what is compared are shares: the later one is scaled to the
//! total of the earlier one, as `go tool pprof -diff_base … -normalize` does. `--absolute` compares values as
//! they are, for programs that did the same work. `statistics.rs` says what may be chance.

use std::collections::HashMap;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::file::Pending;
use super::names::FrameKind;
use super::statistics::{self, Hits};
use super::top::Screen;
use super::totals::{self, Row};
use super::{View, columns, differential, merge, open, scale, whole};
use crate::cli::DiffArgs;
use crate::model::profile::{Profile, ValueType};
use crate::text::{percent, printable, thousands};

/// Exit status where something grew by more than is allowed.
const GREW: i32 = 3;

/// Prints the comparison to standard output; the exit status is 3 if something grew by more than
/// `--fail-above` allows.
///
/// # Errors
/// If a file cannot be read, has no samples or does not have the value asked for, if the two measure
/// different things, or if standard output cannot be written.
pub fn run(args: &DiffArgs) -> Result<i32> {
    let mut before = open(&args.select(&args.before))?;
    let mut after = open(&args.select(&args.after))?;
    let (before_name, after_name) = (args.before.display().to_string(), args.after.display().to_string());
    let [value, other] = [&before, &after].map(|view| view.profile.sample_types[view.index].name.clone());
    merge::align(&mut before.profile, &mut after.profile);
    merge::compatible(&before.profile, &after.profile)
        .with_context(|| format!("failed to compare {before_name} with {after_name}"))?;
    let Some(index) = before.profile.sample_type(Some(&value)).filter(|_| value == other) else {
        bail!(
            "failed to compare {before_name} with {after_name}: the one has '{value}' and the other '{other}'; \
             name a value that both have with --sample-index"
        );
    };
    (before.index, after.index) = (index, index);
    before.whole = whole(&before.profile, index, &args.before)?;
    after.whole = whole(&after.profile, index, &args.after)?;
    let mut comparison = Comparison::new(&before, &after, args);
    comparison.rows.sort_by(|a, b| {
        let size = |change: &Change| change.own.abs().max(change.total.abs());
        size(b).total_cmp(&size(a)).then_with(|| a.name.cmp(&b.name))
    });
    if let Some(output) = &args.output {
        let factor = 1.0 / comparison.factor;
        let each = [&before, &after].map(|view| value_of_a_sample(&view.profile, view.index));
        let each = if let [Some(before), Some(after)] = each { Some([before, after]) } else { None };
        let kind = columns::Comparison { each, factor, is_absolute: args.absolute };
        let mut file = Pending::create(output)?;
        let about = format!("{before_name} and {after_name}");
        file.write_all(differential::draw(&before, &after, kind, &about, output)?.as_bytes())?;
        let name = file.name();
        file.commit()?;
        say!("wrote {name}");
    }
    let too_much: Vec<&Change> = match args.fail_above {
        Some(limit) => comparison.rows.iter().filter(|row| comparison.exceeds(row, limit)).collect(),
        None => Vec::new(),
    };
    let text = if args.json { comparison.json(args, &too_much) } else { comparison.table(args) };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("failed to write the comparison to standard output")?,
    }
    let Some(first) = too_much.first() else { return Ok(0) };
    let (limit, others) = (args.fail_above.unwrap_or_default(), too_much.len() - 1);
    say!(
        "profiler: {} takes {:+.2} % of the whole more than before, which is above {limit} %; so do {} others",
        printable(&first.name).replace('\n', " "),
        comparison.percent(first.total),
        thousands(others as i64)
    );
    Ok(GREW)
}

/// A function, or whatever rows are of, before and after.
struct Change {
    name: String,
    kind: Option<FrameKind>,
    binary: String,
    /// Values as they were measured: self, total.
    before: [i64; 2],
    after: [i64; 2],
    /// Differences of what is compared, in the value's unit.
    own: f64,
    total: f64,
    /// Standard deviations of them; none where nobody knows how many samples they are of.
    deviations: Option<[f64; 2]>,
}

struct Comparison {
    ty: ValueType,
    /// Sums of all values.
    totals: [i64; 2],
    /// What shares are of.
    wholes: [i64; 2],
    /// By what values of after are multiplied.
    factor: f64,
    absolute: bool,
    rows: Vec<Change>,
}

impl Comparison {
    fn new(before: &View, after: &View, args: &DiffArgs) -> Self {
        let index = before.index;
        let ty = before.profile.sample_types[index].clone();
        let totals = [before, after].map(|view| view.profile.total(index));
        let wholes = [before.whole, after.whole];
        let factor = match args.absolute || wholes.contains(&0) {
            true => 1.0,
            false => wholes[0] as f64 / wholes[1] as f64,
        };
        let mut rows: Vec<Change> = Vec::new();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for (at, view) in [before, after].into_iter().enumerate() {
            for row in totals::rows(&view.profile, &[index], &args.by) {
                let Row { name, binary, kind, own, total, .. } = row;
                let place = *by_name.entry(name.clone()).or_insert_with(|| {
                    let none = [0; 2];
                    rows.push(Change {
                        name,
                        kind,
                        binary,
                        before: none,
                        after: none,
                        own: 0.0,
                        total: 0.0,
                        deviations: None,
                    });
                    rows.len() - 1
                });
                let values = if at == 0 { &mut rows[place].before } else { &mut rows[place].after };
                *values = [values[0].saturating_add(own[0]), values[1].saturating_add(total[0])];
            }
        }
        let sample_values = [before, after].map(|view| value_of_a_sample(&view.profile, index));
        for row in &mut rows {
            let change = |at: usize| row.after[at] as f64 * factor - row.before[at] as f64;
            (row.own, row.total) = (change(0), change(1));
            let [Some(first), Some(second)] = sample_values else { continue };
            let deviation = |at: usize| {
                let hits = |values: [i64; 2], total: i64, each: f64| Hits {
                    hits: values[at] as f64 / each,
                    all: total as f64 / each,
                };
                let (old, new) = (hits(row.before, wholes[0], first), hits(row.after, wholes[1], second));
                if args.absolute {
                    statistics::of_counts(old.hits, new.hits) * first
                } else {
                    statistics::of_shares(old, new) * wholes[0] as f64
                }
            };
            row.deviations = Some([deviation(0), deviation(1)]);
        }
        Self { ty, totals, wholes, factor, absolute: args.absolute, rows }
    }

    /// A part of what there was before.
    fn percent(&self, value: f64) -> f64 {
        percent(value, self.wholes[0] as f64)
    }

    /// Whether a difference is none by chance; none if nobody knows.
    fn significant(&self, row: &Change) -> [Option<bool>; 2] {
        // Of each row two differences are looked at.
        let compared = 2 * self.rows.len();
        let sure = |at: usize, change: f64| {
            row.deviations.map(|deviations| statistics::is_significant(change, deviations[at], compared))
        };
        [sure(0, row.own), sure(1, row.total)]
    }

    fn exceeds(&self, row: &Change, limit: f64) -> bool {
        self.percent(row.total) > limit && self.significant(row)[1] != Some(false)
    }

    fn json(&self, args: &DiffArgs, too_much: &[&Change]) -> String {
        let rows = self.rows.iter().take(args.rows.unwrap_or(usize::MAX)).map(|row| {
            let significant = self.significant(row);
            let part = |at: usize, change: f64| {
                json!({
                    "before": row.before[at],
                    "after": row.after[at],
                    "change": change,
                    "change_percent": self.percent(change),
                    "margin_percent": row.deviations.map(|it| self.percent(statistics::margin(it[at]))),
                    "significant": significant[at],
                })
            };
            json!({
                "name": row.name,
                "binary": row.binary,
                "kind": row.kind.map(FrameKind::name),
                "self": part(0, row.own),
                "total": part(1, row.total),
            })
        });
        let summary = json!({
            "value": self.ty.name,
            "unit": self.ty.unit,
            "normalised": !self.absolute,
            "total_before": self.totals[0],
            "total_after": self.totals[1],
            "fail_above_percent": args.fail_above,
            "failed": too_much.iter().map(|row| &row.name).collect::<Vec<_>>(),
            "rows": rows.collect::<Vec<_>>(),
        });
        format!("{summary}\n")
    }

    fn table(&self, args: &DiffArgs) -> String {
        let screen = Screen::of_stdout();
        let shown = args.rows.unwrap_or(if screen.width.is_some() { 20 } else { usize::MAX });
        let [before, after] = self.totals.map(|total| scale::amount(total, &self.ty.unit));
        let how = if self.absolute { "as they are" } else { "as shares of the whole" };
        let mut text = format!("{before} of {} before, {after} after; compared {how}\n", self.ty.name);
        let heading = format!(
            "{:>8} {:>8} {:>17}  {:>8} {:>8} {:>17}  {}",
            "self",
            "after",
            "change",
            "total",
            "after",
            "change",
            args.by.title()
        );
        text += &(screen.bold(&heading) + "\n");
        let whole = self.wholes[if self.absolute { 0 } else { 1 }] as f64;
        for row in self.rows.iter().take(shown) {
            let significant = self.significant(row);
            let part = |at: usize, change: f64| {
                let margin =
                    row.deviations.map(|it| format!(" ± {:.2}", self.percent(statistics::margin(it[at]))));
                format!(
                    "{:>7.2}% {:>7.2}% {:>17}",
                    self.percent(row.before[at] as f64),
                    percent(row.after[at] as f64, whole),
                    format!("{:+.2}%{}", self.percent(change), margin.unwrap_or_default())
                )
            };
            let numbers = format!("{}  {}  ", part(0, row.own), part(1, row.total));
            let name = screen.cut(&printable(&row.name).replace('\n', "\u{fffd}"), numbers.chars().count());
            let line = numbers + &name;
            // What may be chance is grey on a terminal, and elsewhere has a word.
            let by_chance = !significant.iter().any(|sure| *sure != Some(false));
            text += &match (by_chance, screen.colors) {
                (true, true) => format!("\x1b[2m{line}\x1b[0m"),
                (true, false) => format!("{line}  (may be chance)"),
                (false, true) if row.total > 0.0 => format!("\x1b[31m{line}\x1b[0m"),
                (false, true) => format!("\x1b[32m{line}\x1b[0m"),
                (false, false) => line,
            };
            text.push('\n');
        }
        let left = self.rows.len().saturating_sub(shown);
        if left > 0 {
            text += &format!("… and {} more: -n {} shows all\n", thousands(left as i64), self.rows.len());
        }
        text
    }
}

/// What one sample adds to a value; none if the value does not go with samples, as that of a comparison does not.
fn value_of_a_sample(profile: &Profile, index: usize) -> Option<f64> {
    let ty = &profile.sample_types[index];
    if profile.samples().iter().any(|sample| sample.values[index] < 0) {
        None
    } else if ty.name == "samples" && ty.unit == "count" {
        Some(1.0)
    } else if *ty == profile.period_type && profile.period > 0 {
        Some(profile.period as f64)
    } else {
        None
    }
}
