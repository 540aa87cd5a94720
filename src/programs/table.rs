//! Statistics as a table for people.

use std::fmt::Write as _;

use super::{Program, Statistics};
use crate::text::{kib, mib, thousands};

/// A column: its title, whether it stands to the right, what it says of a program. The first to give
/// way on a narrow terminal has the highest rank; 0 stays.
struct Column {
    title: &'static str,
    right: bool,
    rank: u8,
    cell: fn(&Statistics, &Program) -> String,
}

const fn left(title: &'static str, rank: u8, cell: fn(&Statistics, &Program) -> String) -> Column {
    Column { title, right: false, rank, cell }
}

const fn right(title: &'static str, rank: u8, cell: fn(&Statistics, &Program) -> String) -> Column {
    Column { title, right: true, rank, cell }
}

const COLUMNS: [Column; 19] = [
    right("id", 0, |_, p| format!("{}{}", p.id, if p.ours { "*" } else { " " })),
    left("type", 4, |_, p| p.kind.clone()),
    left("name", 0, |_, p| p.name.clone()),
    left("owner", 1, |_, p| {
        let owners: Vec<String> = p.owners.iter().map(ToString::to_string).collect();
        listed(&[owners, p.pins.clone()].concat())
    }),
    left("container", 6, |_, p| p.containers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    left("attached to", 2, |_, p| listed(&p.attach)),
    right("time ms", 0, |_, p| ms(p.run_time_ns)),
    right("runs", 0, |_, p| thousands(p.run_count)),
    right("ns/run", 0, |_, p| p.average_ns().map_or("-".to_owned(), |ns| format!("{ns:.0}"))),
    right("% of one CPU", 0, |s, p| format!("{:.3}", s.percent_of_one_cpu(p.run_time_ns))),
    right("% of machine", 5, |s, p| format!("{:.3}", s.percent_of_machine(p.run_time_ns))),
    right("total ms", 8, |_, p| ms(p.total_run_time_ns)),
    right("total runs", 9, |_, p| thousands(p.total_run_count)),
    right("maps", 7, |_, p| match p.shared_maps {
        0 => p.map_ids.len().to_string(),
        shared => format!("{} ({shared} shared)", p.map_ids.len()),
    }),
    right("map KiB", 3, |_, p| kib(p.map_memory_bytes)),
    right("JIT bytes", 10, |_, p| p.jit_bytes.to_string()),
    left("loaded at", 11, |_, p| utc(p.loaded_at_ns)),
    left("tag", 12, |_, p| p.tag.clone()),
    left("notes", 0, |_, p| notes(p)),
];

/// Columns that a single reading has nothing for.
const OF_WINDOWS: [&str; 5] = ["time ms", "runs", "ns/run", "% of one CPU", "% of machine"];

/// The lines, at most as wide as the terminal, if one is looking.
pub fn print(statistics: &Statistics, shown: &[&Program], width: Option<usize>) -> String {
    let mut text = heading(statistics);
    let mut columns: Vec<(&Column, Vec<String>)> = COLUMNS
        .iter()
        .filter(|column| statistics.window_ns > 0 || !OF_WINDOWS.contains(&column.title))
        .map(|column| (column, shown.iter().map(|program| (column.cell)(statistics, program)).collect()))
        .collect();
    // Most machines have neither.
    let is_optional = |title| ["container", "notes"].contains(&title);
    columns.retain(|(column, cells)| !is_optional(column.title) || cells.iter().any(|cell| !cell.is_empty()));
    let size = |(column, cells): &(&Column, Vec<String>)| {
        let widest = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(column.title.chars().count())
    };
    let mut left_out = Vec::new();
    while let Some(width) = width
        && columns.iter().map(|column| size(column) + 2).sum::<usize>() > width + 2
        && let Some(last) =
            (0..columns.len()).filter(|&at| columns[at].0.rank > 0).max_by_key(|&at| columns[at].0.rank)
    {
        left_out.push(columns.remove(last).0.title);
    }
    for row in 0..=shown.len() {
        let mut line = String::new();
        for column in &columns {
            let cell = if row == 0 { column.0.title } else { &column.1[row - 1] };
            let room = size(column);
            let _ = match column.0.right {
                true => write!(line, "{cell:>room$}  "),
                false => write!(line, "{cell:room$}  "),
            };
        }
        let line: String = line.trim_end().chars().take(width.unwrap_or(usize::MAX)).collect();
        let _ = writeln!(text, "{line}");
    }
    if !left_out.is_empty() {
        let _ = writeln!(text, "(too narrow for: {}; -o csv has all)", left_out.join(", "));
    }
    text
}

/// What stands above the table: sums, our share, what statistics cost, what is not known.
fn heading(statistics: &Statistics) -> String {
    let (all, own) = (statistics.sum(|_| true), statistics.sum(|program| program.ours));
    let percent = |ns| {
        let (one, machine) = (statistics.percent_of_one_cpu(ns), statistics.percent_of_machine(ns));
        format!("{one:.3}% of one CPU, {machine:.3}% of the machine")
    };
    let mut text = format!("{} programs", all.programs);
    // Writing to a string cannot fail.
    if statistics.window_ns > 0 {
        let _ = write!(
            text,
            " ran {} times in {:.3} s for {} ms: {} ({} CPUs)",
            thousands(all.run_count),
            statistics.window_ns as f64 / 1e9,
            ms(all.run_time_ns),
            percent(all.run_time_ns),
            statistics.cpus
        );
    }
    let _ = write!(text, "; maps {}, programs {}", size(all.map_memory_bytes), size(all.program_bytes));
    let _ = write!(text, "; of that, this profiler (*): {} programs", own.programs);
    if statistics.window_ns > 0 {
        let _ = write!(text, ", {} ms, {}", ms(own.run_time_ns), percent(own.run_time_ns));
    }
    let _ = writeln!(text, ", {}", size(own.map_memory_bytes + own.program_bytes));
    let unused = statistics.unused_map_bytes();
    if unused > 0 {
        let _ = writeln!(
            text,
            "  {} more in maps that no program uses by itself (inner maps, maps held open)",
            size(unused)
        );
    }
    if statistics.window_ns > 0 {
        let _ = writeln!(text, "  {}", cost(statistics));
    }
    if statistics.unseen > 0 {
        let _ = writeln!(
            text,
            "  {} more programs were loaded and unloaded between two looks: not known what they cost",
            statistics.unseen
        );
    }
    if statistics.unreadable > 0 {
        let _ = writeln!(
            text,
            "  {} processes may not be looked at and may own programs: that takes CAP_SYS_PTRACE",
            statistics.unreadable
        );
    }
    text
}

/// What having statistics on costs.
fn cost(statistics: &Statistics) -> String {
    let Some(means) = statistics.means else { return "statistics could not be switched on".to_owned() };
    let mut text = match (statistics.was_on, statistics.cost_ns_per_run, statistics.cost_ns()) {
        (true, ..) => "statistics were on already, so that this adds no cost to programs".to_owned(),
        (_, Some(ns), Some(cost_ns)) => format!(
            "statistics ({means}) cost each run about {ns:.0} ns: {} ms, {:.3}% of one CPU",
            ms(cost_ns),
            statistics.percent_of_one_cpu(cost_ns)
        ),
        _ => format!("statistics ({means}): what they cost could not be measured"),
    };
    if let Some(ns) = statistics.empty_run_ns {
        let _ = write!(text, "; an empty program shows {ns:.0} ns/run");
    }
    let _ = write!(text, "; profiler itself {} ms CPU", ms(statistics.own_cpu_ns));
    text
}

/// What is out of the ordinary with a program.
fn notes(program: &Program) -> String {
    let mut notes = Vec::new();
    for (holds, note) in [(program.loaded, "loaded meanwhile"), (program.unloaded, "unloaded meanwhile")] {
        notes.extend(holds.then(|| note.to_owned()));
    }
    for (number, what) in
        [(program.recursion_misses, "recursion misses"), (program.link_misses, "runs missed by probes")]
    {
        notes.extend((number > 0).then(|| format!("{} {what}", thousands(number))));
    }
    notes.join(", ")
}

fn listed(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(", ") }
}

fn ms(ns: u64) -> String {
    format!("{:.3}", ns as f64 / 1e6)
}

/// Bytes in the unit that suits them.
fn size(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", kib(bytes)) } else { mib(bytes) }
}

/// A time in nanoseconds since 1970 as `2026-11-21T14:28:44Z`.
pub fn utc(ns: i128) -> String {
    let seconds = ns.div_euclid(1_000_000_000) as i64;
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years from 1 March on, so that the leap day is the last: 400 of them have 146,097 days.
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (year, day) = (era * 400 + year + month / 10, day - (153 * month + 2) / 5 + 1);
    let month = (month + 2) % 12 + 1;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        // date -u -d @SECONDS +%FT%TZ
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * 1_000_000_000), text);
        }
    }

    #[test]
    fn columns_give_way_to_a_narrow_terminal_and_are_named() {
        let program = Program { id: 7, name: "f".repeat(20), tag: "0".repeat(16), ..Program::default() };
        let statistics =
            Statistics { window_ns: 1, cpus: 2, programs: vec![program.clone()], ..Statistics::default() };
        let wide = print(&statistics, &[&program], None);
        assert!(wide.contains(&program.tag) && !wide.contains("too narrow"), "{wide}");
        let narrow = print(&statistics, &[&program], Some(100));
        assert!(narrow.contains(&program.name) && !narrow.contains(&program.tag), "{narrow}");
        assert!(narrow.contains("too narrow for: tag, loaded at"), "{narrow}");
        let table = narrow.lines().filter(|line| line.contains("ns/run") && line.contains("id"));
        assert!(table.into_iter().all(|line| line.chars().count() <= 100), "{narrow}");
    }
}
