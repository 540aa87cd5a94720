//! What kind of file it is, by its content: the kinds that are read, and by name those that are not,
//! with what to do about them.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{folded, foreign, perf_script, text};
use crate::viewing::pprof;

/// Most bytes of JSON, which takes up to eight times as much while it is read.
pub(super) const MOST_JSON: usize = 128 << 20;
/// Most bytes that are looked through for lines: comments of `perf script --header`, and stacks of recursions.
const MOST_LOOKED_AT: usize = 16 << 20;
/// Lines that tell kinds of text apart.
const LINES: usize = 3;

/// A kind of file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Pprof,
    Folded,
    PerfScript,
    Speedscope,
    Firefox,
    Chrome,
    /// What it is, and what to do.
    Foreign(Cow<'static, str>),
}

const fn foreign(what: &'static str) -> Format {
    Format::Foreign(Cow::Borrowed(what))
}

const JSON: &str = "JSON of an unknown kind: of JSON, files of speedscope, of the Firefox Profiler and Chrome's \
                    .cpuprofile are read";
const TRACE: &str = "a Chrome trace: save its CPU profile as .cpuprofile, or load it into speedscope and export it \
                     from there";
const GECKO: &str =
    "a profile as Firefox itself keeps it: open it in profiler.firefox.com and save it from there";
const OLD_CHROME: &str = "a CPU profile of a Chrome or Node.js of before 2017, a tree below `head`: record it again with \
                          one of today";
const V8_HEAP: &str = "a profile of the heap of V8: open it in Chrome's developer tools, under Memory";
const COMPARISON: &str = "a comparison of two profiles, with two counts in each line: give the two files to \
                          `profiler diff`";
const UNKNOWN_TEXT: &str = "text of an unknown kind: of text, folded stacks (`a;b;c 12`) and the output of \
                            `perf script` are read";

/// What a file's bytes are, which [`text::decoded`] made plain.
pub(super) fn recognise(data: &[u8]) -> Format {
    if data.is_empty() {
        return foreign("empty: make one with `profiler record`");
    }
    if let Some(what) = foreign::name(data) {
        return foreign(what);
    }
    let is_text = text::is_text(data);
    if !is_text && (pprof::begins(data) || !text::is_nearly_text(data)) {
        return if pprof::begins(data) { Format::Pprof } else { unknown(data) };
    }
    let lines = first_lines(data);
    // An event of `perf script` may end in a number, as folded stacks do, and those may begin as JSON does.
    if perf_script::is_applicable(&lines) {
        Format::PerfScript
    } else if folded::is_comparison(&lines) {
        foreign(COMPARISON)
    } else if folded::is_applicable(&lines) {
        Format::Folded
    } else if text::start(data).first().is_some_and(|byte| b"{[".contains(byte)) {
        json(data)
    } else if is_text
        && std::str::from_utf8(text::look(data)).map_or_else(|error| error.error_len().is_none(), |_| true)
    {
        foreign(UNKNOWN_TEXT)
    } else {
        unknown(data)
    }
}

fn unknown(data: &[u8]) -> Format {
    let start = data[..data.len().min(8)].escape_ascii();
    Format::Foreign(format!("of an unknown kind, and begins with `{start}`: name a profile").into())
}

/// Whole lines from the start of a text, among them some that are neither blank nor comments.
fn first_lines(data: &[u8]) -> Cow<'_, str> {
    let mut length = text::LOOKED_AT;
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

/// What tells kinds of JSON apart: which fields there are.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(rename = "$schema", borrow)]
    schema: Option<Cow<'a, str>>,
    shared: Option<IgnoredAny>,
    profiles: Option<IgnoredAny>,
    profile: Option<Inner>,
    /// An answer of Chrome's developer tools protocol.
    result: Option<Answer>,
    head: Option<Head>,
    meta: Option<Meta>,
    threads: Option<IgnoredAny>,
    nodes: Option<IgnoredAny>,
    #[serde(rename = "timeDeltas")]
    time_deltas: Option<IgnoredAny>,
    #[serde(rename = "startTime")]
    start_time: Option<IgnoredAny>,
    #[serde(rename = "traceEvents")]
    trace_events: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Inner {
    nodes: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Answer {
    profile: Option<Inner>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "selfSize")]
    size: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "preprocessedProfileVersion")]
    preprocessed: Option<IgnoredAny>,
}

fn json(data: &[u8]) -> Format {
    let data = data.strip_prefix("\u{feff}".as_bytes()).unwrap_or(data);
    let Ok(text) = std::str::from_utf8(data) else { return foreign(JSON) };
    if text.trim_start().starts_with('[') {
        return foreign(if text.contains("\"ph\"") { TRACE } else { JSON });
    }
    let fields: Fields = match serde_json::from_str(text) {
        Ok(fields) => fields,
        Err(error) if error.is_data() => return foreign(JSON),
        Err(_) => return foreign("JSON that is damaged or cut off: make or copy it again"),
    };
    let answer = fields.result.and_then(|answer| answer.profile);
    let is_speedscope = fields.schema.is_some_and(|schema| schema.contains("speedscope"));
    if is_speedscope || fields.shared.is_some() && fields.profiles.is_some() {
        Format::Speedscope
    } else if fields.meta.as_ref().is_some_and(|meta| meta.preprocessed.is_some()) {
        Format::Firefox
    } else if fields.nodes.is_some() && (fields.time_deltas.is_some() || fields.start_time.is_some())
        || fields.profile.as_ref().or(answer.as_ref()).is_some_and(|profile| profile.nodes.is_some())
    {
        Format::Chrome
    } else if fields.threads.is_some() && fields.meta.is_some() || fields.profile.is_some() {
        foreign(GECKO)
    } else if let Some(head) = fields.head {
        foreign(if head.size.is_some() { V8_HEAP } else { OLD_CHROME })
    } else if fields.trace_events.is_some() {
        foreign(TRACE)
    } else {
        foreign(JSON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_looked_for_behind_long_ones() {
        let header = format!("# ========\n{}\n", "# cpu topology: 1,2,3\n".repeat(1000));
        let event = "x 1 1.0: 5 cycles: \n\t 10 f (/x)\n\n".repeat(1000);
        assert_eq!(recognise(format!("{header}{event}").as_bytes()), Format::PerfScript);
        let stack = format!("main{} 3\n", ";recursion".repeat(10_000));
        assert_eq!(recognise(stack.repeat(2).as_bytes()), Format::Folded);
        assert_eq!(recognise(stack.trim_end().as_bytes()), Format::Folded);
        let text = format!("{}Once upon a time\n", "# a\n".repeat(5000));
        assert_eq!(recognise(text.as_bytes()), foreign(UNKNOWN_TEXT));
    }

    #[test]
    fn stacks_may_begin_as_json_does() {
        for text in ["[unknown];main 3\n[unknown];b 2\n", "{closure};main 3\nx 2\n", "\u{feff}[a] 3\r\n"] {
            assert_eq!(recognise(text.as_bytes()), Format::Folded, "{text}");
        }
        assert_eq!(recognise(b"\xef\xbb\xbf {\"a\":\n 1}"), foreign(JSON));
    }

    #[test]
    fn fields_tell_kinds_of_json() {
        for (text, format) in [
            ("{\"$schema\": \"https://www.speedscope.app/file-format-schema.json\"}", Format::Speedscope),
            (" {\"shared\": {\"frames\": []}, \"profiles\": []}", Format::Speedscope),
            ("{\"meta\": {\"preprocessedProfileVersion\": 30}, \"threads\": []}", Format::Firefox),
            ("{\"meta\": {\"version\": 20}, \"threads\": []}", foreign(GECKO)),
            ("{\"nodes\": [], \"timeDeltas\": []}", Format::Chrome),
            ("{\"traceEvents\": []}", foreign(TRACE)),
            ("[{\"ph\": \"X\"}]", foreign(TRACE)),
            ("{\"nodes\": [], \"startTime\": 1}", Format::Chrome),
            ("{\"profile\": {\"nodes\": []}}", Format::Chrome),
            ("{\"id\": 1, \"result\": {\"profile\": {\"nodes\": []}}}", Format::Chrome),
            ("{\"profile\": {\"threads\": []}}", foreign(GECKO)),
            ("{\"head\": {\"hitCount\": 1}}", foreign(OLD_CHROME)),
            ("{\"head\": {\"selfSize\": 1}}", foreign(V8_HEAP)),
            ("{}", foreign(JSON)),
            ("[1]", foreign(JSON)),
        ] {
            assert_eq!(recognise(text.as_bytes()), format, "{text}");
        }
        assert!(matches!(recognise(b"{\"nodes\": ["), Format::Foreign(what) if what.contains("cut off")));
    }

    #[test]
    fn stacks_with_odd_lines_are_stacks() {
        for text in [
            "main;a 1.5\n",
            "main;a 1e3\n",
            "main;a 1,234\nb 2\n",
            "main;a 9223372036854775808\n",
            "a 1\nb 2.5\n",
            "a 1\nb 2\nwarning\n",
            "[x];a 1.5\n",
            "main;a\u{1}b 1\nmain;b 2\n",
        ] {
            assert_eq!(recognise(text.as_bytes()), Format::Folded, "{text}");
        }
        for text in ["main;a 10 20\nmain;b 5 0\n", "# x\n\na 1 2\nb;c -3\t4\n"] {
            assert_eq!(recognise(text.as_bytes()), foreign(COMPARISON), "{text}");
        }
        for text in ["worker 3 12\n", "a;worker 3 12\nb 1\n"] {
            assert_eq!(recognise(text.as_bytes()), Format::Folded, "{text}");
        }
        for text in ["Once upon a time\n", "a,b,3\n", "12.5 13.5\n", "a\n", "a", "caf\u{e9} 1.5\n"] {
            assert_eq!(recognise(text.as_bytes()), foreign(UNKNOWN_TEXT), "{text}");
        }
        // Numbers at the ends of lines of JSON are none of stacks.
        assert_eq!(recognise(b"{\n\"a;b\": 1,\n\"c;d\": 2,\n\"e\": 3\n}\n"), foreign(JSON));
    }

    #[test]
    fn pprof_begins_with_its_fields() {
        for data in [&b"\x0a\x04\x08\x01\x10\x02\x12\x00"[..], b"\x32\x00\x0a\x00", b"\x0a\x44\x01"] {
            assert_eq!(recognise(data), Format::Pprof, "{data:?}");
        }
        for data in
            [&b"\x08\x01\x02"[..], b"\x0b\x01", b"\x0a\x01\x01\x08\x01", b"\xff\x01\x02", b"\xb2\xc3\xd4"]
        {
            assert!(
                matches!(recognise(data), Format::Foreign(what) if what.starts_with("of an unknown kind, and begins with `\\")),
                "{data:?}"
            );
        }
    }
}
