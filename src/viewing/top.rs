//! `profiler top`: a table of what takes most, for people or as JSON.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use serde_json::json;

use super::names::FrameKind;
use super::totals::{self, Row};
use super::{explore, open, scale};
use crate::cli::{TopArgs, TopSort};
use crate::machine::terminal;
use crate::text::{basename, percent, printable, thousands};

/// Prints the table of a profile to standard output. A reader that has seen enough and left is no error.
///
/// # Errors
/// If the file cannot be read, has no samples or does not have the value asked for, or if standard
/// output cannot be written.
pub fn run(args: &TopArgs) -> Result<()> {
    let view = open(&args.select)?;
    if args.interactive {
        return explore::run(&view, args.sort);
    }
    let mut rows = totals::rows(&view.profile, &[view.index], &args.by);
    sort(&mut rows, args.sort);
    let ty = &view.profile.sample_types[view.index];
    let total = view.profile.total(view.index);
    let whole = view.whole;
    let text = if args.json {
        let rows: Vec<_> =
            rows.iter().take(args.rows.unwrap_or(usize::MAX)).map(|row| as_json(row, whole)).collect();
        let table = json!({ "value": ty.name, "unit": ty.unit, "total": total, "rows": rows });
        format!("{table}\n")
    } else {
        let table = Table { rows: &rows, unit: &ty.unit, whole, what: args.by.title() };
        let screen = Screen::of_stdout();
        let shown = args.rows.unwrap_or(if screen.width.is_some() { 20 } else { usize::MAX });
        let mut head = format!("{} of {}", scale::amount(total, &ty.unit), printable(&ty.name));
        if total.unsigned_abs() != whole.unsigned_abs() {
            head +=
                &format!("; shares are of {}, as some values are negative", scale::amount(whole, &ty.unit));
        }
        let sum: i128 = rows.iter().map(|row| i128::from(row.own[0])).sum();
        if sum != total.into() {
            head +=
                "; a sample with several values of the label is in the row of each, so rows add up to more";
        }
        head.push('\n');
        head + &table.text(shown, &screen)
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("failed to write the table to standard output"),
    }
}

/// The most first, as `go tool pprof` sorts; what is equal by name.
fn sort(rows: &mut [Row], by: TopSort) {
    rows.sort_by(|a, b| {
        let (first, second) = match by {
            TopSort::Own => (b.own[0].abs().cmp(&a.own[0].abs()), b.total[0].abs().cmp(&a.total[0].abs())),
            TopSort::Total => (b.total[0].abs().cmp(&a.total[0].abs()), b.own[0].abs().cmp(&a.own[0].abs())),
        };
        first.then(second).then_with(|| a.name.cmp(&b.name))
    });
}

/// How much it is of the whole, whatever its sign, as google/pprof has it.
fn share(value: i64, whole: i64) -> f64 {
    percent(value.unsigned_abs() as f64, whole as f64)
}

fn as_json(row: &Row, whole: i64) -> serde_json::Value {
    let share = |value: i64| share(value, whole);
    json!({
        "name": row.name,
        "file": row.file,
        "binary": row.binary,
        "kind": row.kind.map(FrameKind::name),
        "self": row.own[0],
        "self_percent": share(row.own[0]),
        "total": row.total[0],
        "total_percent": share(row.total[0]),
    })
}

/// Where a table is shown.
pub(super) struct Screen {
    /// Characters of a line; none if nobody counts them.
    pub(super) width: Option<usize>,
    pub(super) colors: bool,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        if !io::stdout().is_terminal() {
            return Self { width: None, colors: false };
        }
        let width = terminal::size().map_or(80, |(width, _)| width);
        // https://no-color.org
        let colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { width: Some(width), colors }
    }

    /// Text that is cut to what is left of a line behind `used` characters.
    pub(super) fn cut(&self, text: &str, used: usize) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let room = width.saturating_sub(used).max(8);
        if text.chars().count() <= room {
            return text.to_owned();
        }
        text.chars().take(room - 1).chain(['…']).collect()
    }

    /// Text in the colour of its kind.
    pub(super) fn paint(&self, text: &str, kind: Option<FrameKind>) -> String {
        let color = match kind {
            Some(FrameKind::Kernel) => "33",
            Some(FrameKind::Inlined) => "36",
            Some(FrameKind::Jit) => "32",
            Some(FrameKind::Bpf) => "35",
            Some(FrameKind::Unresolved) => "2",
            _ => return text.to_owned(),
        };
        if self.colors { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(&self, text: &str) -> String {
        if self.colors { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

struct Table<'a> {
    rows: &'a [Row],
    unit: &'a str,
    /// What shares are of.
    whole: i64,
    what: &'a str,
}

impl Table<'_> {
    fn text(&self, shown: usize, screen: &Screen) -> String {
        let amount = |value: i64| scale::amount(value, self.unit);
        let share = |value: i64| format!("{:.2}%", share(value, self.whole));
        let rows = &self.rows[..shown.min(self.rows.len())];
        let width = |values: fn(&Row) -> i64, title: &str| {
            let longest = rows.iter().map(|row| amount(values(row)).chars().count()).max();
            longest.unwrap_or_default().max(title.len())
        };
        let (own, total) = (width(|row| row.own[0], "self"), width(|row| row.total[0], "total"));
        let heading =
            format!("{:>own$} {:>7} {:>total$} {:>7}  {}", "self", "self%", "total", "total%", self.what);
        let mut text = screen.bold(&heading) + "\n";
        for row in rows {
            let numbers = format!(
                "{:>own$} {:>7} {:>total$} {:>7}  ",
                amount(row.own[0]),
                share(row.own[0]),
                amount(row.total[0]),
                share(row.total[0])
            );
            let used = numbers.chars().count();
            let name = screen.cut(&printable(&row.name).replace('\n', "\u{fffd}"), used);
            text += &numbers;
            text += &screen.paint(&name, row.kind);
            let binary = printable(basename(&row.binary)).replace('\n', "\u{fffd}");
            let has_room = screen
                .width
                .is_none_or(|width| used + name.chars().count() + binary.chars().count() + 4 <= width);
            // What the row is called already need not be there again.
            if !binary.is_empty() && row.name != row.binary && has_room {
                text += &format!("  ({binary})");
            }
            text.push('\n');
        }
        let left = self.rows.len() - rows.len();
        if left > 0 {
            text += &format!("… and {} more: -n {} shows all\n", thousands(left as i64), self.rows.len());
        }
        text
    }
}
