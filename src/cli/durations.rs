//! Lengths of time as people type them.

use std::time::Duration;

/// The longest duration that makes sense: a year.
const LONGEST_S: f64 = 366.0 * 86_400.0;

/// Parses the length of a recording, or of a part of it.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let seconds =
        parse_seconds(text).ok_or("expected a duration such as 30s, 2m, 1m30s, 500ms or 10 (seconds)")?;
    if !(0.001..=LONGEST_S).contains(&seconds) {
        return Err("expected from 1ms to a year".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Parses `120s`, `2m`, `1m30s`, `500ms`, `20us`, `1h` or plain seconds, which may have a fraction.
pub(super) fn parse_seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..letters] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" | "min" => 60.0,
                "h" => 3600.0,
                // Plain seconds stand alone: `1m30` is more likely a slip than 1 min 30 s.
                "" if digits == text.len() => 1.0,
                _ => return None,
            };
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(seconds)
}

/// Parses how exactly it is kept when.
pub(super) fn parse_step(text: &str) -> Result<Duration, String> {
    match parse_seconds(text) {
        Some(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a step of time from 1ms to 1h, such as 100ms".to_owned()),
    }
}

/// Parses a moment of a recording, since its beginning.
pub(super) fn parse_moment(text: &str) -> Result<Duration, String> {
    match parse_seconds(text) {
        Some(seconds) if (0.0..=LONGEST_S).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("expected a time since the recording began, such as 12s, 1m30s or 0.5".to_owned()),
    }
}

/// Parses the length of a period.
pub(super) fn parse_period(text: &str) -> Result<Duration, String> {
    let period = parse_duration(text)?;
    if period < Duration::from_secs(1) {
        return Err("a period takes 1s at least".to_owned());
    }
    Ok(period)
}

/// Parses an amount of bytes: `500M`, `1G`, `1.5GiB`; units are powers of 1024.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_end_matches(['b', 'B']).trim_end_matches('i');
    let power = ["", "K", "M", "G", "T"].iter().position(|known| unit.eq_ignore_ascii_case(known));
    match (number.parse::<f64>(), power) {
        (Ok(number), Some(power)) if number * 1024f64.powi(power as i32) >= 1.0 => {
            Ok((number * 1024f64.powi(power as i32)) as u64)
        }
        _ => Err("expected an amount such as 500M, 1G or 1000000 (bytes)".to_owned()),
    }
}

/// Parses a length of a block: a duration, or 0.
pub(super) fn parse_block(text: &str) -> Result<Duration, String> {
    let hint = || "expected a duration such as 1ms, 100us, 2s or 0".to_owned();
    match text.trim() {
        "0" => Some(Duration::ZERO),
        text => parse_seconds(text).filter(|&seconds| seconds <= LONGEST_S).map(Duration::from_secs_f64),
    }
    .ok_or_else(hint)
}

/// Parses a length of a window, which may be 0.
pub(super) fn parse_window(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" { Ok(Duration::ZERO) } else { parse_duration(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let ms = |text| parse_duration(text).map(|d| d.as_millis());
        assert_eq!(ms("120s"), Ok(120_000));
        assert_eq!(ms("2m"), Ok(120_000));
        assert_eq!(ms("1m30s"), Ok(90_000));
        assert_eq!(ms("120"), Ok(120_000));
        assert_eq!(ms("0.5"), Ok(500));
        assert_eq!(ms("250ms"), Ok(250));
        for bad in ["", "0", "-1", "s", "1x", "1m30", "1..2s", "nan", "1e9", "99999h", "10 s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert_eq!(parse_bytes("500M"), Ok(500 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("1kb"), Ok(1024));
        for bad in ["", "0", "G", "1X", "-1", "1..0M"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn blocks_are_as_short_as_one_likes() {
        let ns = |text| parse_block(text).map(|d| d.as_nanos());
        assert_eq!(ns("0"), Ok(0));
        assert_eq!(ns("1ms"), Ok(1_000_000));
        assert_eq!(ns("0.5ms"), Ok(500_000));
        assert_eq!(ns("100us"), Ok(100_000));
        assert_eq!(ns("7ns"), Ok(7));
        assert_eq!(ns("1s500ms"), Ok(1_500_000_000));
        for bad in ["", "-1", "1xs", "ms", "1ms2", "nan", "1e3ms", "9999999h", "S"] {
            assert!(parse_block(bad).is_err(), "{bad:?} was taken");
        }
    }
}
