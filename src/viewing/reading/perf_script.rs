//! The text that `perf script` prints: a line for each event, and below it the frames of its stack, leaf first, up to a
//! blank line. Without stacks (`perf record` without `-g`) the event's line has the frame.
//!
//! Each kind of event becomes a value of its own: its period where perf printed it, else 1. So the totals are
//! perf's: the number of events, or the sum of their periods.
//!
//! Two passes: which events there are is known at the end only, and a profile wants to know at its start.

mod frame;
mod head;

use std::collections::HashMap;

use anyhow::{Result, ensure};

use self::frame::Frame;
use self::head::Head;
use super::super::budget::DAMAGED;
use super::stacks::{self, Builder};
use crate::model::profile::{Label, LabelValue, LabelsId, LocationId, Profile, ValueType};

/// Most kinds of events; `perf record -e 'syscalls:*'` has 700.
const MOST_KINDS: usize = 1024;

/// Whether the first lines are an event, and if it lacks its time, a frame of its stack.
pub(super) fn is_applicable(lines: &str) -> bool {
    is_timed(lines).is_some()
}

/// Whether events have times; none if there are no events.
fn is_timed(text: &str) -> Option<bool> {
    let mut lines = lines(text).filter(|line| !line.trim().is_empty() && !is_comment(line));
    let first = lines.next()?;
    let says = |head: Head| head.event.is_some() || head.period.is_some() || !head.rest.trim().is_empty();
    let second = lines.next().and_then(frame::frame);
    if let Some(head) = head::head(first, true) {
        return (says(head) || second.is_some()).then_some(true);
    }
    (head::head(first, false).is_some() && second.is_some()).then_some(false)
}

fn lines(text: &str) -> std::str::Lines<'_> {
    text.trim_start_matches('\u{feff}').lines()
}

/// As in what `perf script --header` prints first.
fn is_comment(line: &str) -> bool {
    line == "#" || line.starts_with("# ")
}

/// What a line is.
enum Line<'a> {
    Blank,
    Event(Head<'a>),
    /// Of a process or mapping, and no event (`--show-task-events`).
    Record,
    Frame(Frame<'a>),
    /// File and line of the frame above, and whether that is inlined.
    Source(&'a str, i64, bool),
    /// Registers, branches, comments.
    Detail,
    Odd,
}

impl<'a> Line<'a> {
    fn new(line: &'a str, timed: bool) -> Self {
        if line.trim().is_empty() {
            return Self::Blank;
        }
        if is_comment(line) {
            return Self::Detail;
        }
        // The names of processes are padded with blanks, never with tabs.
        if !line.starts_with('\t')
            && let Some(head) = head::head(line, timed)
        {
            let is_record = head.rest.trim_start().starts_with("PERF_RECORD_")
                || head.event.is_some_and(|event| event.starts_with("PERF_RECORD_"));
            return if is_record { Self::Record } else { Self::Event(head) };
        }
        if !line.starts_with([' ', '\t']) {
            return Self::Odd;
        }
        let source =
            || frame::source(line).map(|(file, line, is_inlined)| Self::Source(file, line, is_inlined));
        frame::frame(line).map(Self::Frame).or_else(source).unwrap_or(Self::Detail)
    }
}

/// `notes` get what of the text is left out.
pub(super) fn parse(text: &str, notes: &mut Vec<String>) -> Result<Profile> {
    let text = text.trim_start_matches('\u{feff}');
    let timed = is_timed(text).unwrap_or(true);
    let text = whole(text, timed, notes);
    let events = events(text, timed)?;
    let mut reader = Reader {
        builder: Builder::new(value_types(&events)),
        columns: events.iter().enumerate().map(|(at, event)| (event.name, at)).collect(),
        values: vec![0; events.len()],
        locations: HashMap::new(),
        labels: HashMap::new(),
        frames: Vec::new(),
        stack: Vec::new(),
    };
    let mut open: Option<Head> = None;
    let mut odd = 0_u64;
    for line in text.lines() {
        match Line::new(line, timed) {
            Line::Event(head) => {
                if let Some(open) = open.replace(head) {
                    reader.add(&open)?;
                }
                reader.frames.extend(frame::inline(head.rest));
            }
            // What a tracepoint says may end in a blank line; its stack follows.
            Line::Blank if reader.frames.is_empty() => {}
            Line::Blank => {
                if let Some(open) = open.take() {
                    reader.add(&open)?;
                }
            }
            Line::Frame(frame) if open.is_some() => reader.frames.push(frame),
            Line::Source(file, line, is_inlined) => {
                if let Some(frame) = reader.frames.last_mut() {
                    (frame.source, frame.line) = (file, line);
                    frame.is_inlined |= is_inlined;
                }
            }
            Line::Record | Line::Detail => {}
            Line::Frame(_) | Line::Odd => odd += 1,
        }
    }
    if let Some(open) = open {
        reader.add(&open)?;
    }
    if odd > 0 {
        notes.push(format!("lines that are neither events nor frames of `perf script`, left out: {odd}"));
    }
    let mut profile = reader.builder.finish();
    profile.default_sample_type = profile.sample_types[0].name.clone();
    Ok(profile)
}

/// The text without the event in which it is cut off: `head`, `tail` and full disks leave half a stack.
fn whole<'a>(text: &'a str, timed: bool, notes: &mut Vec<String>) -> &'a str {
    let mut end = text.len();
    let last = text.lines().next_back().unwrap_or_default();
    let (start, head) = loop {
        let start = text[..end].rfind('\n').map_or(0, |at| at + 1);
        match Line::new(&text[start..end], timed) {
            Line::Event(head) => break (start, Some(head)),
            Line::Odd if end == text.len() => break (start, None),
            _ if start == 0 => return text,
            _ => end = start - 1,
        }
    };
    let mut before = text[..start].lines().rev();
    // Whether blank lines end events.
    let closed = before.next().is_some_and(|line| line.trim().is_empty())
        && before.next().is_some_and(|line| line.starts_with([' ', '\t']));
    let has_frames = text[end..].lines().any(|line| frame::frame(line).is_some());
    if text.ends_with('\n') {
        if closed && has_frames && matches!(Line::new(last, timed), Line::Frame(_) | Line::Source(..)) {
            notes.push(
                "no blank line ends its last event: if it is cut off there, that stack lacks callers"
                    .to_owned(),
            );
        }
        return text;
    }
    let is_whole = head.is_some_and(|head| {
        let rest = head.rest.trim_end();
        let is_end = has_frames || rest.is_empty() || frame::inline(rest).is_none();
        !closed
            && head.event.is_some()
            && (is_end || rest.ends_with(')'))
            && (!has_frames || last.ends_with(')'))
    });
    if is_whole {
        return text;
    }
    notes.push("it is cut off in its last event, which is left out".to_owned());
    &text[..start]
}

/// A kind of event.
struct Event<'a> {
    name: &'a str,
    has_period: bool,
}

/// The kinds of events in a text.
fn events(text: &str, timed: bool) -> Result<Vec<Event<'_>>> {
    let mut events: Vec<Event> = Vec::new();
    let mut known = HashMap::new();
    for line in text.lines() {
        let Line::Event(head) = Line::new(line, timed) else { continue };
        let name = head.event.unwrap_or_default();
        let at = *known.entry(name).or_insert(events.len());
        if at == events.len() {
            ensure!(
                at < MOST_KINDS,
                "it has more than {MOST_KINDS} kinds of events: record fewer kinds (`perf record -e`)"
            );
            events.push(Event { name, has_period: false });
        }
        events[at].has_period |= head.period.is_some();
    }
    ensure!(
        !events.is_empty(),
        "it looks like the output of `perf script`, but has no whole event: {DAMAGED}"
    );
    Ok(events)
}

/// What the events count: `1001001 cpu-clock:u:` is time, 1001001 ns each; `cycles:` without a period is a sample.
fn value_types(events: &[Event]) -> Vec<ValueType> {
    let of = |event: &Event, name: &str| {
        let is_tracepoint = name.contains(':') && !name.starts_with("mem:");
        match name {
            "cpu-clock" | "task-clock" if event.has_period => ValueType::new("cpu", "nanoseconds"),
            "" => ValueType::new("samples", "count"),
            name if event.has_period || is_tracepoint => ValueType::new(name, "count"),
            _ if events.len() == 1 => ValueType::new("samples", "count"),
            name => ValueType::new(name, "samples"),
        }
    };
    let mut types: Vec<_> = events.iter().map(|event| of(event, without_modifiers(event.name))).collect();
    // `cycles:u` and `cycles:k` are two; so are the two clocks.
    let mut count = HashMap::new();
    for ty in &types {
        *count.entry(ty.name.clone()).or_insert(0) += 1;
    }
    for (ty, event) in types.iter_mut().zip(events) {
        if count[&ty.name] > 1 && !event.name.is_empty() {
            event.name.clone_into(&mut ty.name);
        }
    }
    types
}

/// `cycles` of `cycles:ppp`.
fn without_modifiers(event: &str) -> &str {
    let is_modifier = |c: char| "ukhHGIpPSDWeb".contains(c);
    match event.rsplit_once(':') {
        Some((name, end)) if !name.is_empty() && end.chars().all(is_modifier) => name,
        _ => event,
    }
}

/// Makes a profile of events.
struct Reader<'a> {
    builder: Builder,
    columns: HashMap<&'a str, usize>,
    values: Vec<i64>,
    /// What is known already, as a text repeats itself: frames, and processes and threads.
    locations: HashMap<Frame<'a>, LocationId>,
    labels: HashMap<(&'a str, Option<i64>, Option<i64>), LabelsId>,
    /// Of the event that is read, leaf first.
    frames: Vec<Frame<'a>>,
    stack: Vec<LocationId>,
}

impl<'a> Reader<'a> {
    /// Adds an event with the frames below it.
    fn add(&mut self, head: &Head<'a>) -> Result<()> {
        self.stack.clear();
        let frames = std::mem::take(&mut self.frames);
        let mut first = 0;
        while first < frames.len() {
            // Functions that are inlined come before the one that they are in.
            let inlined = frames[first..].iter().take_while(|frame| frame.is_inlined).count();
            match frames.get(first + inlined) {
                Some(physical) => {
                    let mut location = self.location(physical)?;
                    for inner in frames[first..first + inlined].iter().rev() {
                        location = self.builder.inlined(location, &named(inner, ""))?;
                    }
                    self.stack.push(location);
                }
                // In none: the text is cut.
                None => {
                    for frame in &frames[first..] {
                        let location = self.location(frame)?;
                        self.stack.push(location);
                    }
                }
            }
            first += inlined + 1;
        }
        self.frames = frames;
        self.frames.clear();
        let labels = self.labels(head)?;
        let column = self.columns[head.event.unwrap_or_default()];
        self.values[column] = head.period.map_or(1, |period| i64::try_from(period).unwrap_or(i64::MAX));
        self.builder.add_leaf_first(&self.stack, labels, &self.values)?;
        self.values[column] = 0;
        Ok(())
    }

    fn location(&mut self, frame: &Frame<'a>) -> Result<LocationId> {
        // What has a name is one, wherever in it a sample was.
        let is_named = !frame.symbol.is_empty();
        let frame = Frame { address: if is_named { 0 } else { frame.address }, is_inlined: false, ..*frame };
        if let Some(&known) = self.locations.get(&frame) {
            return Ok(known);
        }
        // perf says as the file of a BPF program its name.
        let is_bpf = frame.file.starts_with("bpf_") && !frame.file.contains('/');
        let place = if is_bpf { "[bpf]" } else { frame.file };
        let location = match (is_named, place.is_empty()) {
            (true, _) => self.builder.location(&named(&frame, place))?,
            (false, true) => {
                self.builder.location(&stacks::Frame { name: "[unknown]", ..stacks::Frame::default() })?
            }
            (false, false) => self.builder.unnamed(place, frame.address)?,
        };
        self.locations.insert(frame, location);
        Ok(location)
    }

    fn labels(&mut self, head: &Head<'a>) -> Result<LabelsId> {
        let key = (head.comm, head.pid, head.tid);
        if let Some(&known) = self.labels.get(&key) {
            return Ok(known);
        }
        let number = |key: &str, id: Option<i64>| {
            Some(Label { key: key.into(), value: LabelValue::Num(id?, "".into()) })
        };
        let comm = Label { key: "comm".into(), value: LabelValue::Str(head.comm.into()) };
        let comm = (!head.comm.is_empty()).then_some(comm);
        let labels = [comm, number("pid", head.pid), number("tid", head.tid)];
        let labels = self.builder.labels(&labels.into_iter().flatten().collect::<Vec<_>>())?;
        self.labels.insert(key, labels);
        Ok(labels)
    }
}

fn named<'a>(frame: &Frame<'a>, place: &'a str) -> stacks::Frame<'a> {
    let name = if frame.symbol.is_empty() { "[unknown]" } else { frame.symbol };
    stacks::Frame { name, file: frame.source, line: frame.line, place, address: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Profile, Vec<String>) {
        assert!(is_applicable(text), "{text}");
        let mut notes = Vec::new();
        (parse(text, &mut notes).unwrap(), notes)
    }

    /// Each stack, root first behind its process, with its values.
    fn stacks(profile: &Profile) -> Vec<String> {
        let stacks = profile.samples().iter().map(|sample| {
            let mut names = Vec::new();
            for at in profile.stack(sample.stack) {
                let location = profile.location(at);
                names.extend(location.lines.iter().map(|line| profile.function(line.function).name.clone()));
                if location.lines.is_empty() {
                    names.push(format!("{:#x}", location.address));
                }
            }
            names.push(profile.label(sample.labels, "comm").unwrap_or_default());
            names.reverse();
            format!("{} {:?}", names.join(";"), sample.values)
        });
        stacks.collect()
    }

    fn types(profile: &Profile) -> Vec<String> {
        profile.sample_types.iter().map(|ty| format!("{}/{}", ty.name, ty.unit)).collect()
    }

    #[test]
    fn the_event_says_what_is_counted() {
        for (line, ty) in [
            ("cc 1/2 [000] 1234.5: 1001001 cpu-clock:u: ", "cpu/nanoseconds"),
            ("cc 1 1234.5:    250000 cycles:ppp: ", "cycles/count"),
            ("cc 1 1234.5: cycles: ", "samples/count"),
            ("cc 1 1234.5: sched:sched_switch: prev_comm=a 12 5", "sched:sched_switch/count"),
            ("cc 1 1234.5: 3 cpu/mem-loads,ldlat=30/P: ", "cpu/mem-loads,ldlat=30/P/count"),
            ("a: b 12 1.5: ", "samples/count"),
            ("cc 12 cycles: ", "samples/count"),
        ] {
            let (profile, notes) = read(&format!("# perf\n#\n\n{line}\n\t 1 f (x)\n\n"));
            assert_eq!((types(&profile), notes), (vec![ty.to_owned()], vec![]), "{line}");
        }
    }

    #[test]
    fn each_event_is_a_value() {
        let text = "\u{feff}a 1 1.0: 100 cycles:u: \n\t 10 f+0x1 (/x)\n\n\
            a 1 1.1: 7 cycles:k: \n\t 10 f+0x2 (/x)\n\n\
            a 1 1.2: 9 page-faults: \n\n\
            b c 1 1.3: sched:sched_wakeup: comm=x pid=12 9.5: y: 3\n\t 10 f+0x3 (/x)\n\n\
            a 1 1.4: 100 cycles:u: \r\n\t 10 f+0x1 (/x)\r\n\r\n";
        let (profile, notes) = read(text);
        let expected = ["cycles:u/count", "cycles:k/count", "page-faults/count", "sched:sched_wakeup/count"];
        assert_eq!(types(&profile), expected);
        assert_eq!(stacks(&profile), ["a;f [200, 7, 0, 0]", "a [0, 0, 9, 0]", "b c;f [0, 0, 0, 1]"]);
        assert_eq!((notes, &*profile.default_sample_type), (vec![], "cycles:u"));
        // Without periods, each counts its samples.
        let (profile, _) = read("a 1 1.0: cycles: \n\t 10 f (/x)\n\na 1 1.0: faults: \n\t 10 f (/x)\n\n");
        assert_eq!(types(&profile), ["cycles/samples", "faults/samples"]);
    }

    #[test]
    fn frames_are_inlined_named_and_found() {
        let text = "x 12/13 5.0: 1 cycles: \n\t 10 deep (inlined)\n\t 10 mid\n  x.c:3 (inlined)\n\t 10 outer+0x3 (/bin/x)\n  x.c:12\n\t 20 main+0x3 (/bin/x)\n\n\
            x 12/13 5.0: 1 cycles: \n\t 11 [unknown] (/bin/x)\n\t 7f11 [unknown] ([unknown])\n\t 7f12 [unknown] ([unknown])\n\n\
            x 12/13 5.0: 1 cycles: \n\tff bpf_prog_6deef7357e7b4530_sd_fw+0x3 (bpf_prog_6deef7357e7b4530_sd_fw)\n ABI:2 AX:0x0\n\n";
        let (profile, notes) = read(text);
        assert_eq!(
            stacks(&profile),
            [
                "x;main;outer;mid;deep [1]",
                "x;[unknown];[unknown];0x11 [1]",
                "x;bpf_prog_6deef7357e7b4530_sd_fw [1]"
            ]
        );
        assert_eq!(notes, Vec::<String>::new());
        let leaf = profile.location(profile.stack(profile.samples()[0].stack).next().unwrap());
        let lines: Vec<_> = leaf.lines.iter().map(|line| line.line).collect();
        assert_eq!((lines, &*profile.mapping(leaf.mapping.unwrap()).path), (vec![0, 3, 12], "/bin/x"));
        let label = |key| profile.label(profile.samples()[0].labels, key).unwrap();
        assert_eq!((label("pid"), label("tid")), ("12".to_owned(), "13".to_owned()));
        assert_eq!(profile.mappings.last().unwrap().path, "[bpf]");
    }

    #[test]
    fn events_without_stacks_have_a_frame_or_none() {
        let (profile, notes) = read(
            "             x 12 5.0: 7 cycles:  ffffffff81000000 do_idle+0x1 ([kernel.kallsyms])\n\
             \u{20}            x 12 5.1: PERF_RECORD_COMM exec: x:12/12\n\
             \u{20}            x 12 5.1: 7 cycles:                55 main+0x1 (/bin/x)\n",
        );
        assert_eq!(stacks(&profile), ["x;do_idle [7]", "x;main [7]"]);
        assert_eq!(notes, Vec::<String>::new());
        // All end in a number, as folded stacks do.
        let (profile, _) = read("x 12 [000] 5.0: irq:irq: vec 12\nx 12 [000] 5.1: irq:irq: vec 3\n");
        assert_eq!(stacks(&profile), ["x [2]"]);
        // What a tracepoint says ends in a blank line.
        let (profile, _) = read(
            "x 12 5.0: ftrace:print: f: hello\n\n\t 10 f (/x)\n\nx 12 5.0: ftrace:print: f: y\n\n\t 10 f (/x)\n\n",
        );
        assert_eq!(stacks(&profile), ["x;f [2]"]);
    }

    #[test]
    fn what_is_cut_off_is_no_stack() {
        let whole = "x 1 1.0: 5 cycles: \n\t 10 leaf+0x1 (/bin/x)\n\t 20 main+0x5 (/bin/x)\n\n".repeat(2);
        for cut in [
            "x 1 1",
            "x 1 1.0: 5 cyc",
            "x 1 1.0: 5 cycles: \n\t 10 le",
            "x 1 1.0: 5 cycles: \n\t 10 leaf+0x1 (/bin/x)",
        ] {
            let (profile, notes) = read(&format!("{whole}{cut}"));
            assert_eq!(stacks(&profile), ["x;main;leaf [10]"], "{cut}");
            assert!(notes.len() == 1 && notes[0].contains("cut off in its last event"), "{notes:?}");
        }
        // Its end may be gone with the blank line behind it only.
        let (profile, notes) =
            read(whole.trim_end().strip_suffix("").map(|text| format!("{text}\n")).unwrap().as_str());
        assert_eq!(stacks(&profile), ["x;main;leaf [10]"]);
        assert!(notes.len() == 1 && notes[0].contains("no blank line ends"), "{notes:?}");
        let (profile, notes) = read("x 1 1.0: 5 cycles: \n\t 10 leaf+0x1 (/bin/x)");
        assert_eq!((stacks(&profile), notes), (vec!["x;leaf [5]".to_owned()], vec![]));
        let (_, notes) = read(&format!("{whole}Terminated\n"));
        assert!(notes.len() == 1 && notes[0].contains("left out: 1"), "{notes:?}");
    }

    #[test]
    fn kinds_of_events_are_bounded() {
        let text = |events: usize| (0..events).map(|at| format!("x 1 1.0: 5 e{at}: \n")).collect::<String>();
        assert_eq!(read(&text(MOST_KINDS)).0.sample_types.len(), MOST_KINDS);
        let message = parse(&text(MOST_KINDS + 1), &mut Vec::new()).unwrap_err().to_string();
        assert!(message.contains("more than 1024 kinds of events"), "{message}");
    }
}
