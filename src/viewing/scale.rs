//! Values as people read them, in one way wherever they are shown. What `go tool pprof` takes for a unit of time
//! or of memory is one here; the viewer's `scale.js` is the same in its language.

use crate::text::thousands;

/// Nanoseconds of a unit of time.
const TIMES: &[(f64, &[&str])] = &[
    (1.0, &["ns", "nanosecond"]),
    (1e3, &["us", "µs", "microsecond"]),
    (1e6, &["ms", "millisecond"]),
    (1e9, &["s", "sec", "second"]),
    (60e9, &["minute", "min"]),
    (3600e9, &["hour", "hr"]),
];
/// Bytes of a unit of memory. A kilobyte has 1024 of them, as in pprof.
const SIZES: &[(f64, &[&str])] = &[
    (1.0, &["b", "byte"]),
    (1024.0, &["kb", "kib", "kbyte", "kilobyte"]),
    (1_048_576.0, &["mb", "mib", "mbyte", "megabyte"]),
    (1_073_741_824.0, &["gb", "gib", "gbyte", "gigabyte"]),
];

/// How many of the first of its kind (nanoseconds, bytes) a unit is.
fn factor(units: &[(f64, &[&str])], unit: &str) -> Option<f64> {
    let unit = unit.to_lowercase();
    let single = unit.strip_suffix('s').unwrap_or(&unit);
    let is_it = |names: &[&str]| names.contains(&&*unit) || names.contains(&single);
    units.iter().find(|(_, it)| is_it(it)).map(|(factor, _)| *factor)
}

/// The finer of two units of one kind, and how many of it each of them is.
pub fn common_unit<'a>(a: &'a str, b: &'a str) -> Option<(&'a str, [i64; 2])> {
    if a == b {
        return Some((a, [1, 1]));
    }
    [TIMES, SIZES].into_iter().find_map(|units| {
        let (of_a, of_b) = (factor(units, a)?, factor(units, b)?);
        let finer = of_a.min(of_b);
        Some((if of_a <= of_b { a } else { b }, [of_a, of_b].map(|it| (it / finer) as i64)))
    })
}

/// A value with its unit: `12.34 s`, `1.50 MiB`, `1,234 cycles`; a count is a number alone.
pub fn amount(value: i64, unit: &str) -> String {
    if let Some(factor) = factor(TIMES, unit) {
        time(value as f64 * factor)
    } else if let Some(factor) = factor(SIZES, unit) {
        size(value as f64 * factor)
    } else if unit.is_empty() || unit == "count" {
        thousands(value)
    } else {
        format!("{} {unit}", thousands(value))
    }
}

/// A number of a label: as [`amount`], without decimals that say nothing, and digits alone without a unit.
pub fn label(value: i64, unit: &str) -> String {
    if unit.is_empty() {
        return value.to_string();
    }
    let text = amount(value, unit);
    let Some((number, unit)) = text.split_once(' ') else { return text };
    let number = match number.split_once('.') {
        Some((whole, digits)) if digits.bytes().all(|digit| digit == b'0') => whole,
        _ => number,
    };
    format!("{number} {unit}")
}

fn time(ns: f64) -> String {
    match ns.abs() {
        size if size >= 1e9 => format!("{:.2} s", ns / 1e9),
        size if size >= 1e6 => format!("{:.3} ms", ns / 1e6),
        size if size >= 1e3 => format!("{:.3} µs", ns / 1e3),
        _ => format!("{ns:.0} ns"),
    }
}

fn size(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut name) = (bytes, "bytes");
    for unit in UNITS {
        if value.abs() >= 1024.0 {
            (value, name) = (value / 1024.0, unit);
        }
    }
    if name == "bytes" { format!("{value:.0} bytes") } else { format!("{value:.2} {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_unit_that_suits_them() {
        for (value, unit, shown) in [
            (1_500_000, "microseconds", "1.50 s"),
            (1500, "ms", "1.50 s"),
            (12_340_000, "nanoseconds", "12.340 ms"),
            (-2_000, "ns", "-2.000 µs"),
            (7, "Nanoseconds", "7 ns"),
            (2, "hours", "7200.00 s"),
            (1500, "kilobytes", "1.46 MiB"),
            (999, "bytes", "999 bytes"),
            (-(3 << 19), "B", "-1.50 MiB"),
            (1_234_567, "count", "1,234,567"),
            (1000, "cycles", "1,000 cycles"),
            (5, "", "5"),
        ] {
            assert_eq!(amount(value, unit), shown, "{value} {unit}");
        }
    }

    #[test]
    fn units_of_one_kind_have_one_in_common() {
        assert_eq!(common_unit("microseconds", "ms"), Some(("microseconds", [1, 1000])));
        assert_eq!(common_unit("MiB", "bytes"), Some(("bytes", [1 << 20, 1])));
        assert_eq!(common_unit("cycles", "cycles"), Some(("cycles", [1, 1])));
        assert_eq!([common_unit("bytes", "ns"), common_unit("count", "cycles")], [None, None]);
    }

    #[test]
    fn labels_are_short() {
        let shown = [label(1024, "bytes"), label(1_500_000, "bytes"), label(4242, ""), label(30, "s")];
        assert_eq!(shown, ["1 KiB", "1.43 MiB", "4242", "30 s"]);
    }
}
