//! The line with which `perf script` begins an event:
//! `comm pid/tid [cpu] time: period event: what the event says, or a frame`.
//!
//! A process may be called anything, blanks, digits and colons included, so the line is read outwards from its time: what
//! stands before it is read from the right, and its first word behind it that ends in a colon is the event.
//! Each field may be missing, as `perf script -F` was told, and some stand between (`-F misc`, `-F tod`).

/// An event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) comm: &'a str,
    pub(super) pid: Option<i64>,
    pub(super) tid: Option<i64>,
    pub(super) period: Option<u64>,
    /// Without its last colon, but with those in it: `sched:sched_switch`, `cycles:u`.
    pub(super) event: Option<&'a str>,
    /// What follows: arguments of a tracepoint, or the frame of an event without a stack.
    pub(super) rest: &'a str,
}

/// Most fields between a process and the time that are known: the CPU, flags, date and time of day.
const BETWEEN: usize = 4;

/// The event that a line begins, of a text whose events have times (`timed`) or have none.
pub(super) fn head(line: &str, timed: bool) -> Option<Head<'_>> {
    if timed { with_time(line) } else { without_time(line) }
}

/// The words of a text and where they begin in it.
pub(super) fn words(text: &str) -> impl DoubleEndedIterator<Item = (usize, &str)> {
    text.split_ascii_whitespace().map(|word| (word.as_ptr().addr() - text.as_ptr().addr(), word))
}

fn with_time(line: &str) -> Option<Head<'_>> {
    let mut nameless = None;
    for (at, word) in words(line).filter(|(_, word)| is_time(word)) {
        let (before, behind) = (&line[..at], &line[at + word.len()..]);
        if let Some(task) = task(before) {
            return Some(with_body(task, behind));
        }
        nameless.get_or_insert((before, behind));
    }
    // `-F comm,time,event`.
    let (before, behind) = nameless?;
    let head = with_body(Head { comm: before.trim(), ..Head::default() }, behind);
    head.event.is_some().then_some(head)
}

/// The first word that is a number of a thread, and behind which an event follows.
fn without_time(line: &str) -> Option<Head<'_>> {
    let found = |both: bool| {
        let mut numbers = words(line).skip(1).take(16);
        numbers.find_map(|(at, word)| {
            let (pid, tid) = ids(word).filter(|(pid, _)| pid.is_some() == both)?;
            let mut behind = &line[at + word.len()..];
            if let Some((at, cpu)) = words(behind).next().filter(|(_, word)| is_cpu(word)) {
                behind = &behind[at + cpu.len()..];
            }
            let head = with_body(Head { comm: line[..at].trim(), pid, tid, ..Head::default() }, behind);
            head.event.is_some().then_some(head)
        })
    };
    found(true).or_else(|| found(false))
}

/// Process and thread, which end before the time.
fn task(text: &str) -> Option<Head<'_>> {
    let mut between = true;
    let mut last = words(text).rev().take(BETWEEN + 1).enumerate().peekable();
    while let Some((distance, (at, word))) = last.next() {
        let named = |end: usize, (pid, tid)| Head { comm: text[..end].trim(), pid, tid, ..Head::default() };
        if is_cpu(word) {
            let task = last.peek().and_then(|&(_, (at, word))| Some((at, ids(word)?)));
            return Some(task.map_or(named(at, (None, None)), |(at, ids)| named(at, ids)));
        }
        // A single number may be anything unless it stands where the thread's does.
        if let Some(ids) = ids(word).filter(|(pid, _)| pid.is_some() || between) {
            return Some(named(at, ids));
        }
        between &= distance == 0 && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    }
    None
}

/// Period, event and the rest, behind the time.
fn with_body<'a>(task: Head<'a>, text: &'a str) -> Head<'a> {
    let (period, behind) = match words(text).next() {
        Some((at, word)) if is_number(word) => (word.parse().ok(), &text[at + word.len()..]),
        _ => (None, text),
    };
    if let Some((event, rest)) = event(behind) {
        return Head { period, event: Some(event), rest, ..task };
    }
    // Without an event, a number before a frame's address or before nothing is the period; one before a name is the
    // address.
    let mut next = words(behind).map(|(_, word)| word);
    match (next.next(), next.next()) {
        (None, _) => Head { period, ..task },
        (Some(address), Some(_)) if period.is_some() && is_hex(address) => {
            Head { period, rest: behind, ..task }
        }
        _ => Head { rest: text, ..task },
    }
}

/// The event's name and what follows.
fn event(text: &str) -> Option<(&str, &str)> {
    let mut words = words(text);
    let (start, mut word) = words.next()?;
    let mut at = start;
    if word == "raw" {
        // `raw 0x1a8:`.
        (at, word) = words.next()?;
    }
    let end = at + word.len();
    let name = text[start..end].strip_suffix(':').filter(|name| !name.is_empty())?;
    Some((name, &text[end..]))
}

fn is_time(word: &str) -> bool {
    let number = word.strip_suffix(':').and_then(|word| word.split_once('.'));
    number.is_some_and(|(whole, part)| is_number(whole) && is_number(part))
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// As addresses are.
pub(super) fn is_hex(word: &str) -> bool {
    (1..=16).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_cpu(word: &str) -> bool {
    let number = word.strip_prefix('[').and_then(|word| word.strip_suffix(']'));
    number.is_some_and(|number| is_number(number.strip_prefix('-').unwrap_or(number)))
}

/// `pid/tid`, or the thread's alone.
fn ids(word: &str) -> Option<(Option<i64>, Option<i64>)> {
    let id = |text: &str| {
        is_number(text.strip_prefix('-').unwrap_or(text)).then(|| text.parse::<i64>().ok()).flatten()
    };
    match word.split_once('/') {
        Some((pid, tid)) => Some((Some(id(pid)?), Some(id(tid)?))),
        None => Some((None, Some(id(word)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = (&'a str, Option<i64>, Option<i64>, Option<u64>, Option<&'a str>, &'a str);

    fn fields<'a>(head: &Head<'a>) -> Fields<'a> {
        (head.comm, head.pid, head.tid, head.period, head.event, head.rest.trim())
    }

    #[test]
    fn heads_are_read_from_their_time() {
        let (one, both) = (Some(12), (Some(12), Some(13)));
        for (line, expected) in [
            (
                "cc 12/13 [000] 1234.5: 1001001 cpu-clock:u: ",
                ("cc", both.0, both.1, Some(1_001_001), Some("cpu-clock:u"), ""),
            ),
            (
                "            cc 12/13      [003] 2.000001234:     cycles: ",
                ("cc", both.0, both.1, None, Some("cycles"), ""),
            ),
            (
                "cc 12 1234.5:  250000           cycles: ",
                ("cc", None, one, Some(250_000), Some("cycles"), ""),
            ),
            // Names with blanks, digits, colons.
            (
                "HTTP server 8080 12/13 [000] 5.0: 1 cycles: ",
                ("HTTP server 8080", both.0, both.1, Some(1), Some("cycles"), ""),
            ),
            ("my prog 3 12 5.0: 1 cycles: ", ("my prog 3", None, one, Some(1), Some("cycles"), "")),
            ("at 1.5: x 12/13 5.0: 1 cycles: ", ("at 1.5: x", both.0, both.1, Some(1), Some("cycles"), "")),
            (":12 12 5.0: 1 cycles: ", (":12", None, one, Some(1), Some("cycles"), "")),
            ("[1] 12 5.0: 1 cycles: ", ("[1]", None, one, Some(1), Some("cycles"), "")),
            ("swapper     0 [-01] 5.0: 1 cycles: ", ("swapper", None, Some(0), Some(1), Some("cycles"), "")),
            // Tracepoints say more, with times of their own.
            (
                "a 12 [001] 5.0: sched:sched_switch: prev_pid=1 at 6.5: cycles: ==> next 3 1.0:",
                (
                    "a",
                    None,
                    one,
                    None,
                    Some("sched:sched_switch"),
                    "prev_pid=1 at 6.5: cycles: ==> next 3 1.0:",
                ),
            ),
            // Fields that -F adds or leaves out.
            ("cc 12/13 [000] U     5.0: 1 cycles: ", ("cc", both.0, both.1, Some(1), Some("cycles"), "")),
            ("cc 12 U     5.0: 1 cycles: ", ("cc", None, one, Some(1), Some("cycles"), "")),
            (
                "cc 12/13 2026-11-28 01:02:03.4 5.0: 1 cycles: ",
                ("cc", both.0, both.1, Some(1), Some("cycles"), ""),
            ),
            ("cc [000] 5.0: 1 cycles: ", ("cc", None, None, Some(1), Some("cycles"), "")),
            ("my cc 5.0: 1 cycles: ", ("my cc", None, None, Some(1), Some("cycles"), "")),
            ("5.0: 1 cycles: ", ("", None, None, Some(1), Some("cycles"), "")),
            ("cc 12 5.0: ", ("cc", None, one, None, None, "")),
            ("cc 12 5.0:       77 ", ("cc", None, one, Some(77), None, "")),
            (
                "cc 12 5.0:       77   ffff12 f+0x1 (/x)",
                ("cc", None, one, Some(77), None, "ffff12 f+0x1 (/x)"),
            ),
            ("cc 12 5.0:       55 main+0x1 (/x)", ("cc", None, one, None, None, "55 main+0x1 (/x)")),
            ("cc 12 5.0: 1 raw 0x1a8:u: ", ("cc", None, one, Some(1), Some("raw 0x1a8:u"), "")),
        ] {
            assert_eq!(head(line, true).as_ref().map(fields), Some(expected), "{line}");
        }
        for line in
            ["", "cc 12", "main;leaf 12", "cc 12 cycles: ", "a.b: c", "took 12 s at 1.5: not", "\t 10 f (/x)"]
        {
            assert_eq!(head(line, true), None, "{line}");
        }
    }

    #[test]
    fn heads_may_lack_times() {
        for (line, expected) in [
            ("x 12 cycles: ", ("x", None, Some(12), None, Some("cycles"), "")),
            ("x 12 [001]   1000 cycles:u: ", ("x", None, Some(12), Some(1000), Some("cycles:u"), "")),
            (
                "Thread 3 12/13   1000 cycles: ",
                ("Thread 3", Some(12), Some(13), Some(1000), Some("cycles"), ""),
            ),
        ] {
            assert_eq!(head(line, false).as_ref().map(fields), Some(expected), "{line}");
        }
        for line in ["x cycles:", "x 12", "x 12 5.5 s", "12 cycles:"] {
            assert_eq!(head(line, false), None, "{line}");
        }
    }
}
