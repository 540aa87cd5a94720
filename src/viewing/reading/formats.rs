//! What kind of file it is, by its content: the kinds that are read, and by name those that are not,
//! with what to do about them.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{folded, perf_script};

/// Most bytes of JSON, which takes up to eight times as much while it is read.
pub(super) const MOST_JSON: usize = 128 << 20;
/// Bytes by which text is told from other data, and from each other kinds of text whose lines are short.
const LOOKED_AT: usize = 4096;
/// Most bytes that are looked through for lines: comments of `perf script --header`, and stacks of recursions.
const MOST_LOOKED_AT: usize = 16 << 20;
/// Lines that tell kinds of text apart.
const LINES: usize = 3;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Or what is taken for it, for nothing else is known about it.
    Pprof,
    Folded,
    PerfScript,
    Speedscope,
    Firefox,
    Chrome,
    /// What it is, and what to do.
    Foreign(&'static str),
}

const LEGACY: &str = "a profile in one of pprof's old formats, which have addresses and no names: convert it with \
                      `go tool pprof -proto -output=new.pb.gz BINARY FILE`";
const JSON: &str = "JSON of an unknown kind: of JSON, files of speedscope, of the Firefox Profiler and Chrome's \
                    .cpuprofile are read";
const TRACE: &str = "a Chrome trace: save its CPU profile as .cpuprofile, or load it into speedscope and export it \
                     from there";
const GECKO: &str =
    "a profile as Firefox itself keeps it: open it in profiler.firefox.com and save it from there";
const UNKNOWN_TEXT: &str = "text of an unknown kind: of text, folded stacks (`a;b;c 12`) and the output of \
                            `perf script` are read";

/// By the first bytes.
const STARTS: &[(&[u8], &str)] = &[
    (b"heap profile:", LEGACY),
    (b"heapz ", LEGACY),
    (b"growthz ", LEGACY),
    (b"fragmentationz ", LEGACY),
    (b"goroutine profile:", LEGACY),
    (b"threadcreate profile:", LEGACY),
    (b"--- ", LEGACY),
    (b"cycles/second", LEGACY),
    (
        b"heap_v2/",
        "a heap profile of jemalloc: fold it with `jeprof --collapsed BINARY FILE`, and name what that writes",
    ),
    (b"PERFILE2", "a perf.data file: name the output of `perf script`, or record with `profiler record`"),
    (
        b"FLR\0",
        "a recording of Java's Flight Recorder: fold it with async-profiler's `jfrconv --cpu FILE out.collapsed`",
    ),
    (b"Nettrace", "a trace of .NET: convert it with `dotnet-trace convert --format speedscope FILE`"),
    (b"<?xml", "an XML or SVG file: name the profile that it was drawn from"),
    (b"<svg", "an SVG file: name the profile that it was drawn from"),
    (
        b"<!DOCTYPE html",
        "an HTML page: name the profile itself; a server may have sent the page in its place",
    ),
    (
        b"<!doctype html",
        "an HTML page: name the profile itself; a server may have sent the page in its place",
    ),
    (b"<html", "an HTML page: name the profile itself; a server may have sent the page in its place"),
    (b"# callgrind format", "a file of callgrind: see it with `callgrind_annotate` or KCachegrind"),
    (
        b"version: 1\ncreator: callgrind",
        "a file of callgrind: see it with `callgrind_annotate` or KCachegrind",
    ),
    (
        b"v8-version,",
        "a log of V8: make a profile of it with `node --prof-process --preprocess`, or record with `node --cpu-prof`",
    ),
    (b"\x7fELF", "a program or library: record it with `profiler record`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it with `zstd -d` first"),
    (b"\xfd7zXZ\0", "compressed with xz: unpack it with `xz -d` first"),
    (b"BZh", "compressed with bzip2: unpack it with `bzip2 -d` first"),
    (b"\x04\x22\x4d\x18", "compressed with lz4: unpack it with `lz4 -d` first"),
    (b"PK\x03\x04", "a zip archive: unpack it, and name the profile in it"),
    (b"\x1f\x8b", "gzip in gzip in gzip: unpack it with `gzip -d` first"),
];

/// What a file's bytes are.
pub(super) fn recognise(data: &[u8]) -> Format {
    if data.is_empty() {
        return Format::Foreign("empty: make one with `profiler record`");
    }
    if let Some((_, what)) = STARTS.iter().find(|(start, _)| data.starts_with(start)) {
        return Format::Foreign(what);
    }
    if is_legacy_cpu(data) {
        return Format::Foreign(LEGACY);
    }
    let start = &data[..data.len().min(LOOKED_AT)];
    if start.iter().any(|&byte| byte < b' ' && !b"\t\n\r\x1b".contains(&byte)) {
        return Format::Pprof;
    }
    let lines = first_lines(data);
    // An event of `perf script` may end in a number, as folded stacks do, and those may begin as JSON does.
    if perf_script::is_applicable(&lines) {
        Format::PerfScript
    } else if folded::is_applicable(&lines) {
        Format::Folded
    } else if begins_json(start) {
        json(data)
    } else if std::str::from_utf8(start).is_ok_and(|text| text.contains('\n') || text.contains(' ')) {
        Format::Foreign(UNKNOWN_TEXT)
    } else {
        Format::Pprof
    }
}

fn begins_json(start: &[u8]) -> bool {
    let start = start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start);
    start.trim_ascii_start().first().is_some_and(|byte| b"{[".contains(byte))
}

/// Whole lines from the start of a text, among them some that are neither blank nor comments.
fn first_lines(data: &[u8]) -> Cow<'_, str> {
    let mut length = LOOKED_AT;
    loop {
        let start = &data[..data.len().min(length)];
        let is_all = start.len() == data.len();
        // The last line may be cut.
        let end = if is_all { Some(start.len()) } else { start.iter().rposition(|&byte| byte == b'\n') };
        let lines = &start[..end.unwrap_or_default()];
        let told = lines
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.starts_with(b"#") && !line.trim_ascii().is_empty());
        if is_all || length >= MOST_LOOKED_AT || told.take(LINES).count() == LINES {
            return String::from_utf8_lossy(lines.strip_prefix("\u{feff}".as_bytes()).unwrap_or(lines));
        }
        length *= 4;
    }
}

/// The binary CPU profiles of gperftools and of old Go: words of 4 or 8 bytes, of either order, that begin
/// with 0, 3, 0 (or 1, Java's), the period, 0.
fn is_legacy_cpu(data: &[u8]) -> bool {
    let words = |size: usize, little: bool| {
        let word = |at: usize| {
            let bytes = data.get(at * size..(at + 1) * size)?;
            let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
            Some(if little { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) })
        };
        matches!(
            (word(0), word(1), word(2), word(3), word(4)),
            (Some(0), Some(3), Some(0 | 1), Some(1..), Some(0))
        )
    };
    [(4, true), (4, false), (8, true), (8, false)].into_iter().any(|(size, little)| words(size, little))
}

/// What tells kinds of JSON apart: which fields there are.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "$schema", borrow)]
    schema: Option<Cow<'a, str>>,
    shared: Option<IgnoredAny>,
    profiles: Option<IgnoredAny>,
    profile: Option<IgnoredAny>,
    meta: Option<Meta>,
    threads: Option<IgnoredAny>,
    nodes: Option<IgnoredAny>,
    #[serde(rename = "timeDeltas")]
    time_deltas: Option<IgnoredAny>,
    #[serde(rename = "traceEvents")]
    trace_events: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "preprocessedProfileVersion")]
    preprocessed: Option<IgnoredAny>,
}

fn json(data: &[u8]) -> Format {
    let data = data.strip_prefix("\u{feff}".as_bytes()).unwrap_or(data);
    let Ok(text) = std::str::from_utf8(data) else { return Format::Foreign(JSON) };
    if text.starts_with('[') {
        return Format::Foreign(if text.contains("\"ph\"") { TRACE } else { JSON });
    }
    let fields: Fields = match serde_json::from_str(text) {
        Ok(fields) => fields,
        Err(error) if error.is_data() => return Format::Foreign(JSON),
        Err(_) => return Format::Foreign("JSON that is damaged or cut off: make or copy it again"),
    };
    let is_speedscope = fields.schema.is_some_and(|schema| schema.contains("speedscope"));
    if is_speedscope || fields.shared.is_some() && fields.profiles.is_some() {
        Format::Speedscope
    } else if fields.meta.as_ref().is_some_and(|meta| meta.preprocessed.is_some()) {
        Format::Firefox
    } else if fields.threads.is_some() && fields.meta.is_some() || fields.profile.is_some() {
        Format::Foreign(GECKO)
    } else if fields.nodes.is_some() && fields.time_deltas.is_some() {
        Format::Chrome
    } else if fields.trace_events.is_some() {
        Format::Foreign(TRACE)
    } else {
        Format::Foreign(JSON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_old_cpu_profiles() {
        for size in [4, 8] {
            for little in [true, false] {
                for third in [0, 1] {
                    let word = |number: u64| {
                        let mut bytes = number.to_be_bytes()[8 - size..].to_vec();
                        if little {
                            bytes.reverse();
                        }
                        bytes
                    };
                    let data = [0, 3, third, 10_000, 0, 1, 1, 0x1000].map(word).concat();
                    assert_eq!(recognise(&data), Format::Foreign(LEGACY));
                }
            }
        }
    }

    #[test]
    fn lines_are_looked_for_behind_long_ones() {
        let header = format!("# ========\n{}\n", "# cpu topology: 1,2,3\n".repeat(1000));
        let event = "x 1 1.0: 5 cycles: \n\t 10 f (/x)\n\n".repeat(1000);
        assert_eq!(recognise(format!("{header}{event}").as_bytes()), Format::PerfScript);
        let stack = format!("main{} 3\n", ";recursion".repeat(10_000));
        assert_eq!(recognise(stack.repeat(2).as_bytes()), Format::Folded);
        assert_eq!(recognise(stack.trim_end().as_bytes()), Format::Folded);
        let text = format!("{}Once upon a time\n", "# a\n".repeat(5000));
        assert_eq!(recognise(text.as_bytes()), Format::Foreign(UNKNOWN_TEXT));
    }

    #[test]
    fn stacks_may_begin_as_json_does() {
        for text in ["[unknown];main 3\n[unknown];b 2\n", "{closure};main 3\nx 2\n", "\u{feff}[a] 3\r\n"] {
            assert_eq!(recognise(text.as_bytes()), Format::Folded, "{text}");
        }
        assert_eq!(recognise(b"\xef\xbb\xbf {\"a\":\n 1}"), Format::Foreign(JSON));
    }

    #[test]
    fn fields_tell_kinds_of_json() {
        for (text, format) in [
            ("{\"$schema\": \"https://www.speedscope.app/file-format-schema.json\"}", Format::Speedscope),
            (" {\"shared\": {\"frames\": []}, \"profiles\": []}", Format::Speedscope),
            ("{\"meta\": {\"preprocessedProfileVersion\": 30}, \"threads\": []}", Format::Firefox),
            ("{\"meta\": {\"version\": 20}, \"threads\": []}", Format::Foreign(GECKO)),
            ("{\"nodes\": [], \"timeDeltas\": []}", Format::Chrome),
            ("{\"traceEvents\": []}", Format::Foreign(TRACE)),
            ("[{\"ph\": \"X\"}]", Format::Foreign(TRACE)),
            ("{}", Format::Foreign(JSON)),
            ("[1]", Format::Foreign(JSON)),
        ] {
            assert_eq!(recognise(text.as_bytes()), format, "{text}");
        }
        assert!(matches!(recognise(b"{\"nodes\": ["), Format::Foreign(what) if what.contains("cut off")));
    }
}
