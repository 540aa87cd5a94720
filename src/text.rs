//! Numbers, amounts and names as people read them, written once.

use std::time::Duration;

/// Prints a line to standard error. Nobody may read there any more, or the disk behind it be full: what is
/// said is lost then, and nothing else. (`eprintln!` would panic, and the recording be lost.)
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($argument)*);
    }};
}

/// The same without an end of line.
#[macro_export]
macro_rules! say_part {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($argument)*);
    }};
}

/// 1234567 as 1,234,567.
pub fn thousands(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest unit of which there is at least one, with two decimals: `1.50 MiB`.
pub fn bytes(count: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut shown = (count as f64, "bytes");
    for unit in UNITS {
        if shown.0 >= 1024.0 {
            shown = (shown.0 / 1024.0, unit);
        }
    }
    if shown.1 == "bytes" { format!("{count} bytes") } else { format!("{:.2} {}", shown.0, shown.1) }
}

/// Bytes in KiB, without the unit.
pub fn kib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1024.0)
}

/// Bytes in MiB, whatever their number: what is compared has one unit.
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Nanoseconds as milliseconds below a second, as seconds from there on.
pub fn seconds(ns: i64) -> String {
    let seconds = ns as f64 / 1e9;
    if seconds < 1.0 { format!("{:.3} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// A duration in the largest unit of which it is a multiple: `1 ms`, `1500 µs`.
pub fn exact_duration(time: Duration) -> String {
    let ns = time.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns")];
    let (unit, name) =
        units.into_iter().find(|(unit, _)| u128::is_multiple_of(ns, *unit)).unwrap_or((1, "ns"));
    format!("{} {name}", ns / unit)
}

/// What follows the last slash of a path.
pub fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Lines for a terminal, without what would steer it: names are chosen by whoever wrote a program.
pub fn printable(lines: &str) -> String {
    lines.chars().map(|c| if is_steering(c) && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Control characters, and those that turn the direction of the text around them, so that another name is seen than
/// the one that is there.
pub fn is_steering(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control()
}

/// A part of a whole in percent, with the sign of the part; 0 of nothing.
pub fn percent(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { 100.0 * part / whole.abs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let texts = [0, 999, 1000, 1_234_567, -1234].map(thousands);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567", "-1,234"]);
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn durations_lose_nothing() {
        let texts = [1_500_000, 2_000_000_000, 1, 60_000_000_000].map(Duration::from_nanos);
        assert_eq!(texts.map(exact_duration), ["1500 µs", "2 s", "1 ns", "60 s"]);
    }

    #[test]
    fn names_do_not_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}]0;b\u{7}\n\u{9b}1mé"), "a\u{fffd}]0;b\u{fffd}\n\u{fffd}1mé");
    }

    #[test]
    fn names_do_not_turn_the_text_around_them() {
        for c in ['\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}'] {
            assert_eq!(printable(&format!("a{c}b")), "a\u{fffd}b", "{c:?}");
        }
        assert_eq!(printable("שלום عالم \u{200d}"), "שלום عالم \u{200d}");
    }

    #[test]
    fn shares_of_a_negative_whole_have_the_sign_of_their_part() {
        assert_eq!([percent(-15.0, -20.0), percent(5.0, -20.0), percent(5.0, 20.0)], [-75.0, 25.0, 25.0]);
        assert_eq!(percent(5.0, 0.0), 0.0);
    }

    #[test]
    fn the_last_part_of_a_path() {
        assert_eq!(["/a/b.so", "b", "/a/"].map(basename), ["b.so", "b", ""]);
    }
}
