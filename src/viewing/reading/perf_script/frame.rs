//! A frame as `perf script` prints it: `address symbol+0xoffset (file)`.
//!
//! Symbols and files may hold blanks and parentheses, so the file is the last group of parentheses that is balanced and
//! stands behind a blank: `std::function<void (int)>::operator()+0x3 (/opt/my app (x86)/run (deleted))`.

use super::head::{is_hex, words};

/// A frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Frame<'a> {
    pub(super) address: u64,
    /// Empty if perf knew none.
    pub(super) symbol: &'a str,
    /// Empty if perf knew none.
    pub(super) file: &'a str,
    pub(super) is_inlined: bool,
    /// Of its source, if it was asked for.
    pub(super) source: &'a str,
    pub(super) line: i64,
}

const UNKNOWN: &str = "[unknown]";

/// The frame of a line.
pub(super) fn frame(line: &str) -> Option<Frame<'_>> {
    let (at, word) = words(line).next().filter(|(_, word)| is_hex(word))?;
    let address = u64::from_str_radix(word, 16).ok()?;
    let (symbol, file) = split(line[at + word.len()..].trim());
    let known = |text| if text == UNKNOWN { "" } else { text };
    let is_inlined = file == "inlined";
    let file = if is_inlined { "" } else { known(without_offset(file)) };
    Some(Frame { address, symbol: known(without_offset(symbol)), file, is_inlined, ..Frame::default() })
}

/// The frame in what follows an event in its line, behind whatever else there is.
pub(super) fn inline(text: &str) -> Option<Frame<'_>> {
    let text = text.trim();
    let mut next = words(text);
    let (_, first) = next.next()?;
    if is_hex(first) {
        // The address of the data may come first (`-F addr`).
        let second = next.next();
        let is_data = second.is_some_and(|(_, word)| is_hex(word))
            && next.next().is_some_and(|(_, word)| !word.starts_with('('));
        return frame(match second {
            Some((at, _)) if is_data => &text[at..],
            _ => text,
        });
    }
    // An address is printed 16 characters wide.
    let is_wide = |at: usize, word: &str| {
        let blanks = text[..at].len() - text[..at].trim_end_matches(' ').len();
        is_hex(word) && blanks > 0 && blanks + word.len() > 16
    };
    let (at, _) = words(text).rev().find(|&(at, word)| is_wide(at, word))?;
    frame(&text[at..]).filter(|frame| !frame.file.is_empty())
}

/// `file:line` of a frame's source, and whether the frame is inlined, which perf prints behind that.
pub(super) fn source(line: &str) -> Option<(&str, i64, bool)> {
    let text = line.strip_prefix("  ")?.trim_end();
    let (text, is_inlined) = text.strip_suffix(" (inlined)").map_or((text, false), |text| (text, true));
    let text = text.split_once(" (discriminator ").map_or(text, |(text, _)| text);
    let numbered = text.rsplit_once(':').and_then(|(file, line)| Some((file, line.parse().ok()?)));
    let (file, line) = numbered.filter(|&(file, line)| file != "??" && line > 0).unwrap_or(("", 0));
    (is_inlined || line > 0).then_some((file, line, is_inlined))
}

/// Symbol and file.
fn split(text: &str) -> (&str, &str) {
    let Some(start) = text.strip_suffix(')').and_then(|_| start(text)) else { return (text, "") };
    let (symbol, file) = (text[..start].trim_end(), &text[start + 1..text.len() - 1]);
    // A symbol such as `(idle)` alone, or a file alone.
    if symbol.is_empty() && !file.starts_with(['/', '[']) { (text, "") } else { (symbol, file) }
}

/// Where the parenthesis before the file is.
fn start(text: &str) -> Option<usize> {
    let is_behind_blank = |at: usize| at == 0 || text[..at].ends_with([' ', '\t']);
    let mut depth = 0_usize;
    let balanced = text.bytes().enumerate().rev().find_map(|(at, byte)| {
        depth = match byte {
            b')' => depth + 1,
            b'(' => depth - 1,
            _ => depth,
        };
        (depth == 0).then_some(at)
    });
    let opened = || text.rmatch_indices('(').map(|(at, _)| at).filter(|&at| is_behind_blank(at));
    let has_offset = |&at: &usize| without_offset(text[..at].trim_end()).len() < text[..at].trim_end().len();
    balanced
        .filter(|&at| is_behind_blank(at))
        .or_else(|| opened().find(has_offset))
        .or_else(|| opened().next())
}

/// `name` of `name+0x12`.
fn without_offset(text: &str) -> &str {
    let offset = text.rsplit_once("+0x").filter(|(name, offset)| !name.is_empty() && is_hex(offset));
    offset.map_or(text, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_parentheses_hold_the_file() {
        for (text, symbol, file) in [
            ("do_idle+0x1 ([kernel.kallsyms])", "do_idle", "[kernel.kallsyms]"),
            ("main (/bin/x)", "main", "/bin/x"),
            ("main+0x3 (/bin/x (deleted))", "main", "/bin/x (deleted)"),
            ("main+0x3 (/opt/my app (x86)/x)", "main", "/opt/my app (x86)/x"),
            ("f(int)+0x3 (/opt/a)b)", "f(int)", "/opt/a)b"),
            ("g(+0x3 (/opt/a)b)", "g(", "/opt/a)b"),
            ("f (/opt/a)b)", "f", "/opt/a)b"),
            ("(anonymous namespace)::hot(int)+0x3 (/bin/x)", "(anonymous namespace)::hot(int)", "/bin/x"),
            (
                "std::function<void (int)>::operator()(int) const+0x3 (/bin/x)",
                "std::function<void (int)>::operator()(int) const",
                "/bin/x",
            ),
            ("operator() (/bin/x)", "operator()", "/bin/x"),
            ("json.(*Décoder).f+0x3 (/bin/x)", "json.(*Décoder).f", "/bin/x"),
            (
                "py::処理関数データ読込:/x.py+0x3 (/tmp/perf-12.map)",
                "py::処理関数データ読込:/x.py",
                "/tmp/perf-12.map",
            ),
            ("é(+0x3 (/bin/x)", "é(", "/bin/x"),
            ("(idle) (/bin/x)", "(idle)", "/bin/x"),
            ("(idle)", "(idle)", ""),
            ("f(int)", "f(int)", ""),
            ("f+0x12", "f", ""),
            ("([kernel.kallsyms])", "", "[kernel.kallsyms]"),
            ("[unknown] (/bin/x)", "", "/bin/x"),
            ("[unknown] ([unknown])", "", ""),
            ("f+0x3 (/usr/lib/libc.so.6+0x26ad0)", "f", "/usr/lib/libc.so.6"),
            ("+0x3", "+0x3", ""),
            (")", ")", ""),
            ("", "", ""),
        ] {
            let line = format!("\t  ff10 {text}\r");
            let found = frame(&line).unwrap();
            assert_eq!((found.address, found.symbol, found.file), (0xff10, symbol, file), "{text}");
        }
        assert!(frame("\t 10 deep (inlined)").unwrap().is_inlined);
        for line in ["", "\t", "  x.c:12", "main (/bin/x)", "\t 12345678901234567 f (/x)"] {
            assert_eq!(frame(line), None, "{line}");
        }
    }

    #[test]
    fn frames_stand_in_the_line_of_an_event() {
        for (text, address, symbol) in [
            ("  ffffffff81000000 do_idle+0x1 ([kernel.kallsyms])", 0xffff_ffff_8100_0000, "do_idle"),
            (" 55 main+0x1 (/bin/x)", 0x55, "main"),
            (" 55 add (/bin/x)", 0x55, "add"),
            ("     7ffe12345678                55 main+0x1 (/bin/x)", 0x55, "main"),
            (" fd: 0x3, count: 10              401000 main+0x1 (/bin/x)", 0x40_1000, "main"),
        ] {
            let found = inline(text).unwrap();
            assert_eq!((found.address, found.symbol), (address, symbol), "{text}");
        }
        for text in
            ["", " prev_comm=x prev_pid=12 ==> next_comm=y (z)", " fd: 3 (x)", " NR 0 (3, 7ffe00000000, 0)"]
        {
            assert_eq!(inline(text), None, "{text}");
        }
    }

    #[test]
    fn sources_are_below_their_frames() {
        assert_eq!(source("  x.c:12"), Some(("x.c", 12, false)));
        assert_eq!(source("  a b.rs:7 (discriminator 3) (inlined)"), Some(("a b.rs", 7, true)));
        assert_eq!(source("  ??:0 (inlined)"), Some(("", 0, true)));
        for line in ["  [kernel.kallsyms][ffffffff82252ac3]", "  ??:0", "x.c:12", ""] {
            assert_eq!(source(line), None, "{line}");
        }
    }
}
