//! Shares and rates that are known by construction, and names that binutils knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::chance;
use crate::common::{Recording, Test, output};

/// Two builds at once, each on a CPU if there are two. bash tells how long each ran, and its CPU time.
#[test]
fn known_shares_of_known_time() {
    let Some(test) = Test::alone("shares") else { return };
    if !test.needs("bash") {
        return;
    }
    let with = test.compile("samples/shares.c", "with-fp", &[]);
    let without = test.compile("samples/shares.c", "without-fp", &["-fomit-frame-pointer"]);
    let script =
        "TIMEFORMAT='%3R %3U %3S'; { time \"$0\" 10; } 2> with & { time \"$1\" 10; } 2> without & wait";
    let recording = test.record(&["--", "bash", "-c", script, &with, &without]);
    for (comm, times) in [("with-fp", "with"), ("without-fp", "without")] {
        let samples = recording.total(|sample| sample.comm == comm);
        let times = std::fs::read_to_string(test.dir.join(times)).unwrap();
        let times: Vec<f64> = times.split_whitespace().map(|time| time.parse().unwrap()).collect();
        let [wall_s, user_s, system_s] = times[..] else { panic!("{times:?}") };
        let cpu_s = user_s + system_s;
        let rate = samples as f64 / cpu_s;
        let share = |function: &str| {
            let own = recording.total(|s| s.comm == comm && recording.leaf(s).name() == function);
            100.0 * own as f64 / samples as f64
        };
        let shares = ["heavy", "medium", "light"].map(share);
        let said = format!("{comm}: {samples} samples in {cpu_s:.3} s: {rate:.2} Hz; shares {shares:.2?} %");
        test.tell(&said);
        // Alone on a CPU it has all the samples of its time. On one that is shared with others, chance
        // decides whose time a sample falls into: the more, the less of the CPU it had.
        let others = (1.0 - cpu_s / wall_s).clamp(0.0, 1.0).sqrt();
        let hz = 2.0 + others * chance::DEVIATIONS * (samples as f64).sqrt() / cpu_s;
        assert!((rate - 99.0).abs() <= hz, "more than {hz:.1} Hz off: {said}");
        for (share, truth) in shares.into_iter().zip([70.0, 20.0, 10.0]) {
            let points = 3.0 + others * 100.0 * chance::error(samples, truth / 100.0);
            assert!((share - truth).abs() <= points, "more than {points:.1} points off: {said}");
        }
    }
    // With frame pointers, callers are there too. The nearest one, `work`, may be missing: gcc gives
    // no frame to a function that neither calls nor uses the stack.
    let whole = recording.total(|sample| {
        let names = recording.names(sample);
        let leaf = names.first().is_some_and(|leaf| ["heavy", "medium", "light"].contains(leaf));
        sample.comm == "with-fp" && leaf && names[1..3.min(names.len())].contains(&"main")
    });
    let all = recording.total(|sample| sample.comm == "with-fp");
    chance::at_least(whole, all, 0.95, 500, "stacks of main and what it calls");
}

/// `vaddr - file offset` of the segments of an ELF file, by readelf.
fn segments(program: &str) -> Vec<(u64, u64, u64)> {
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
    let text = output("readelf", &["-lW", program]);
    let loads = text.lines().filter(|line| line.trim_start().starts_with("LOAD"));
    loads
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (hex(fields[1]), hex(fields[2]), hex(fields[4]))
        })
        .collect()
}

/// Functions and lines at addresses, innermost first, by addr2line.
fn addr2line(program: &str, addresses: &[u64]) -> Vec<Vec<(String, u64, String)>> {
    let addresses: Vec<String> = addresses.iter().map(|addr| format!("{addr:#x}")).collect();
    let mut args = vec!["-a", "-i", "-f", "-C", "-e", program];
    args.extend(addresses.iter().map(String::as_str));
    let text = output("addr2line", &args);
    let mut answers: Vec<Vec<(String, u64, String)>> = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            answers.push(Vec::new());
            continue;
        }
        let place = lines.next().unwrap().split(" (").next().unwrap();
        let (file, number) = place.rsplit_once(':').unwrap();
        let basename = file.rsplit('/').next().unwrap();
        answers.last_mut().unwrap().push((line.to_owned(), number.parse().unwrap_or(0), basename.to_owned()));
    }
    answers
}

/// Compares every sampled address of the program, and returns how many of them had inlined code.
fn agrees_with_addr2line(recording: &Recording, program: &str) -> (usize, usize, BTreeSet<String>) {
    let sampled: Vec<_> = recording.locations.values().filter(|l| l.path() == program).collect();
    assert!(!sampled.is_empty(), "{:?}", recording.mappings);
    let segments = segments(program);
    let addresses: Vec<u64> = sampled
        .iter()
        .map(|location| {
            let at = location.file_offset();
            let segment = segments.iter().find(|(offset, _, size)| (*offset..offset + size).contains(&at));
            let (offset, vaddr, _) = segment.expect("an address outside all segments");
            at - offset + vaddr
        })
        .collect();
    let mut inlined = 0;
    let mut mangled = BTreeSet::new();
    let (mut differ, mut lines_differ): (Vec<String>, Vec<String>) = Default::default();
    for ((location, address), theirs) in sampled.iter().zip(&addresses).zip(addr2line(program, &addresses)) {
        // `.text` beyond the functions with debug information (`_start`) has a name and no line.
        let ours: Vec<_> = location
            .lines
            .iter()
            .map(|(name, line, file)| (name.clone(), *line, file.rsplit('/').next().unwrap().to_owned()))
            .collect();
        inlined += usize::from(theirs.len() > 1);
        // The PLT's stubs have neither symbol nor debug information.
        if theirs[0].0 == "??" {
            assert!(ours[0].0.ends_with(']'), "{address:#x} has no name, ours is {ours:?}");
            continue;
        }
        // Some C++ names are beyond the demangler; they stay as they are in the binary.
        let mut plain = |name: &str| match name.strip_prefix("_Z") {
            Some(_) => {
                mangled.insert(name.to_owned());
                output("c++filt", &[name]).trim().replace(' ', "")
            }
            None => name.replace(' ', ""),
        };
        // The return type of a template function: before its name in the name of a lambda in it,
        // by our demangler, and not by binutils'.
        let bare = |name: String| name.replace("unsignedlongzoo::feed", "zoo::feed");
        let ours_plain: Vec<_> = ours.iter().map(|frame| bare(plain(&frame.0))).collect();
        let theirs_plain: Vec<_> = theirs.iter().map(|frame| bare(frame.0.replace(' ', ""))).collect();
        // addr2line itself gives some addresses of a function its whole name and some its last part.
        let same = |(ours, theirs): (&String, &String)| {
            ours == theirs || !theirs.contains(':') && ours.contains(&format!("::{theirs}("))
        };
        // It also takes the first parameter of a template constructor for a return type and leaves
        // it out: counted among the names that are beyond it.
        let without_parameters = |name: &String| name.rsplit_once('(').map(|(head, _)| head.to_owned());
        let mut same_but_for_parameters = |pair: (&String, &String)| {
            let head = without_parameters(pair.0);
            let equal = head.is_some() && head == without_parameters(pair.1);
            if equal && !same(pair) {
                mangled.insert(pair.0.clone());
            }
            equal || same(pair)
        };
        if ours.len() != theirs.len()
            || !ours_plain.iter().zip(&theirs_plain).all(&mut same_but_for_parameters)
        {
            differ.push(format!("{address:#x}: ours {ours:?}, addr2line {theirs:?}"));
        } else if ours.iter().zip(&theirs).any(|(a, b)| b.1 != 0 && (a.1, &a.2) != (b.1, &b.2)) {
            lines_differ.push(format!("{address:#x}: ours {ours:?}, addr2line {theirs:?}"));
        }
    }
    assert!(lines_differ.is_empty(), "lines differ:\n{}", lines_differ.join("\n"));
    // Of inlined functions that DWARF gives no linkage name, addr2line names a few by the function
    // around them. Of 50 addresses one may be such; a C program has none.
    let first: String = differ.iter().take(4).map(|text| format!("\n{text}")).collect();
    assert!(differ.len() * 50 <= sampled.len(), "{} of {} differ:{first}", differ.len(), sampled.len());
    let functions: BTreeSet<_> = sampled.iter().flat_map(|l| l.lines.iter().map(|line| &line.0)).collect();
    // A handful of the library's names the demangler does not know; which of them are sampled, chance says.
    assert!(mangled.len() <= functions.len() / 20 + 3, "not demangled of {}: {mangled:#?}", functions.len());
    (sampled.len(), inlined, mangled)
}

#[test]
fn inlined_frames_and_lines_are_those_of_addr2line() {
    let Some(test) = Test::alone("inlined") else { return };
    for (source, name) in
        [("tests/programs/inlined.c", "inlined-c"), ("tests/programs/inlined.cc", "inlined-cc")]
    {
        if !test.needs("addr2line") || !test.needs("readelf") || name.ends_with("cc") && !test.needs("g++") {
            continue;
        }
        let program = test.compile(source, name, &["-g"]);
        let recording = test.record(&["-F", "4999", "--", &program, "1.5"]);
        let (addresses, inlined, mangled) = agrees_with_addr2line(&recording, &program);
        test.tell(&format!("{name}: {addresses} addresses agree, {inlined} of them in inlined code"));
        if !mangled.is_empty() {
            test.tell(&format!("{name}: names that were not demangled: {mangled:?}"));
        }
        assert!(addresses >= 10 && inlined >= 5, "{addresses} addresses, {inlined} inlined");
        let mapping = recording.mappings.iter().find(|m| m.path == program).unwrap();
        assert_eq!(mapping.flags, "1111", "{mapping:?}");
    }
}

/// Without inlined functions, an address has the one function that the symbol table has.
#[test]
fn without_inlining_names_are_those_of_the_symbol_table() {
    let Some(test) = Test::alone("no-inline") else { return };
    if !test.needs("nm") {
        return;
    }
    let program = test.compile("tests/programs/inlined.c", "inlined-c", &["-g"]);
    let recording = test.record(&["-F", "4999", "--no-inline", "--", &program, "0.5"]);
    let mut symbols = BTreeMap::new();
    for line in output("nm", &["--defined-only", &program]).lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [address, kind, name] = fields[..]
            && "tT".contains(kind)
        {
            symbols.insert(u64::from_str_radix(address, 16).unwrap(), name.to_owned());
        }
    }
    let segments = segments(&program);
    let mut names: HashMap<&str, u64> = HashMap::new();
    for location in recording.locations.values().filter(|l| l.path() == program) {
        // Stubs have no symbols, and lie behind one of another section.
        if location.name().ends_with(" [procedure linkage table]") {
            continue;
        }
        let at = location.file_offset();
        let (offset, vaddr, _) =
            segments.iter().find(|(offset, _, size)| (*offset..offset + size).contains(&at)).unwrap();
        let (_, symbol) = symbols.range(..=at - offset + vaddr).next_back().unwrap();
        assert_eq!(location.lines.len(), 1, "{location:?}");
        assert_eq!(location.name(), symbol);
        *names.entry(symbol).or_default() += 1;
    }
    assert!(!names.is_empty());
    assert_eq!(recording.mappings.iter().find(|m| m.path == program).unwrap().flags.as_bytes()[3], b'0');
}
