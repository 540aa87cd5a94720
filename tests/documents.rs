//! What the program can print is in docs/troubleshooting.md: its own text is searched for the words, so that
//! a new reason without a line in that page fails here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A string literal of the program, without the tests.
struct Literal {
    file: String,
    /// The function that it is in, or nothing.
    function: String,
    /// What stands before it, without white space at the end.
    before: String,
    /// The character behind it.
    after: Option<char>,
    text: String,
}

/// The files below a directory whose names end so: path and text.
fn sources(dir: &Path, ends: &[&str], files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, ends, files);
        } else if path.extension().is_some_and(|extension| ends.iter().any(|end| extension == *end))
            && !["tests.rs", "histories.rs"].iter().any(|tests| path.ends_with(tests))
        {
            files.push((path.to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// All string literals of `src/`, in order, with where they stand.
fn literals() -> Vec<Literal> {
    let mut files = Vec::new();
    sources(Path::new(&format!("{ROOT}/src")), &["rs"], &mut files);
    let mut found = Vec::new();
    for (file, text) in files {
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let mut at = 0;
        while let Some(next) = code[at..].find(['"', '\'', '/']).map(|offset| at + offset) {
            let rest = &code[next..];
            // Comments and characters may hold quotes; a lifetime holds none.
            if rest.starts_with("//") {
                at = next + rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
                at = next + rest[2..].find('\'').unwrap_or(0) + 3;
            } else if code[..next].ends_with("r#") && rest.starts_with('"') {
                // Raw: pieces of SVG, for no reader.
                at = next + 3 + rest[1..].find("\"#").unwrap_or(0);
            } else if let Some(rest) = rest.strip_prefix('"') {
                let (literal, length) = literal(rest);
                let before = code[..next].trim_end();
                let function = before.rsplit_once("fn ").and_then(|(_, rest)| rest.split_once(['(', '<']));
                found.push(Literal {
                    file: file.clone(),
                    function: function.map_or_else(String::new, |(name, _)| name.to_owned()),
                    before: before.chars().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect(),
                    after: rest[length..].chars().next(),
                    text: literal,
                });
                at = next + 1 + length;
            } else {
                at = next + 1;
            }
        }
    }
    found
}

/// The text of a literal that begins here, and its length in the program with the quote behind it.
fn literal(code: &str) -> (String, usize) {
    let mut text = String::new();
    let mut chars = code.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, at + 1),
            '\\' => match chars.next().map(|(_, c)| c) {
                // A line that goes on in the next one.
                Some('\n') => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                Some(c @ ('"' | '\\')) => text.push(c),
                _ => text.push(' '),
            },
            c => text.push(c),
        }
    }
    panic!("a literal without an end: {code:.60}");
}

/// What of a format string is always printed: the parts between its `{…}` that have words.
fn words(format: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = format;
    while let Some((part, behind)) = rest.split_once('{') {
        parts.push(part);
        rest = behind.split_once('}').map_or("", |(_, rest)| rest);
    }
    parts.push(rest);
    let clean = |part: &str| {
        let text = part.split_whitespace().collect::<Vec<_>>().join(" ");
        text.trim_matches(|c: char| !c.is_alphanumeric() && !"[]%'".contains(c)).to_owned()
    };
    let has_words = |part: &String| part.chars().filter(|c| c.is_alphabetic()).count() >= 4;
    parts.into_iter().map(clean).filter(has_words).collect()
}

fn page() -> String {
    fs::read_to_string(format!("{ROOT}/docs/troubleshooting.md")).unwrap()
}

/// The page's words between its headings, without marks of code and of cells.
fn plain(page: &str) -> String {
    page.replace(['`', '|'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Reasons why a stack is not whole, and why a sample is lost: what `fn reason` of an enumeration gives.
fn truncations(literals: &[Literal]) -> BTreeSet<&str> {
    literals.iter().filter(|it| it.function == "reason").map(|it| it.text.as_str()).collect()
}

/// Reasons why a frame has no name.
fn unnamed(literals: &[Literal]) -> BTreeSet<&str> {
    let is_reason = |it: &&Literal| {
        (it.before.ends_with("Err(") && it.after == Some(')'))
            || (it.function == "why" && it.before.ends_with("=>"))
            || it.before.ends_with("const STUB: &str =")
            || it.before.ends_with("const ENDED: &str =")
            || it.before.ends_with("const NOT_PERMITTED: &str =")
            || it.before.ends_with("self.restart(")
            || it.before.ends_with("|_, _|")
    };
    literals.iter().filter(is_reason).map(|it| it.text.as_str()).collect()
}

#[test]
fn every_reason_of_a_frame_has_a_line() {
    let (literals, page) = (literals(), page());
    let (truncations, unnamed) = (truncations(&literals), unnamed(&literals));
    // The search finds what it is meant to find.
    for known in ["no unwind row", "ring buffer full", "counts map full"] {
        assert!(truncations.contains(known), "{truncations:?}");
    }
    for known in
        ["stripped binary", "not in perf map", "not symbolized", "not a readable ELF file", "unmapped"]
    {
        assert!(unnamed.contains(known), "{unnamed:?}");
    }
    let keys: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for reason in truncations.union(&unnamed) {
        assert!(keys.contains(reason), "docs/troubleshooting.md has no line for `{reason}`");
    }
    // Nor a line for what is not printed any more.
    let section =
        |title: &str| page.split(&format!("\n## {title}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    for (title, printed) in
        [("Frames: a stack that is not whole", &truncations), ("Frames: code without a name", &unnamed)]
    {
        for line in section(title).lines().filter(|line| line.starts_with("| `")) {
            let key = line.split('`').nth(1).unwrap();
            assert!(printed.contains(key), "no frame says `{key}`, docs/troubleshooting.md has it");
        }
    }
}

#[test]
fn every_frame_in_brackets_has_a_line() {
    let (literals, page) = (literals(), plain(&page()));
    let is_frame =
        |text: &str| text.starts_with('[') && text.ends_with(']') && !text.starts_with("[truncated");
    let frames: Vec<&Literal> = literals.iter().filter(|it| is_frame(&it.text)).collect();
    assert!(frames.iter().any(|it| it.text == "[runnable]") && frames.len() > 10);
    for Literal { text, file, .. } in frames {
        let known = words(text).iter().all(|part| page.contains(part));
        assert!(known, "docs/troubleshooting.md has nothing on the frame {text} of {file}");
    }
}

#[test]
fn every_line_for_people_has_a_line() {
    let (literals, page) = (literals(), plain(&page()));
    let prints = |before: &str| ["say!(", "say_part!("].iter().any(|end| before.ends_with(end));
    let is_line = |it: &&Literal| {
        let summary = it.file.ends_with("/summary.rs") && it.text.contains(' ');
        // A hidden command's own.
        let shown = !it.file.ends_with("/show.rs") && prints(&it.before);
        summary || shown || it.function == "explain_nothing" || it.function == "names_lost"
    };
    let lines: Vec<&Literal> = literals.iter().filter(is_line).collect();
    for known in
        ["  not followed: ", "  lost {} process records", "; no room for {files} files", "UNACCOUNTED"]
    {
        assert!(lines.iter().any(|it| it.text.contains(known)), "the search does not find {known}");
    }
    let mut missing = Vec::new();
    for Literal { text, file, .. } in lines {
        for part in words(text.strip_prefix("profiler: ").unwrap_or(text)) {
            if !page.contains(&part) {
                missing.push(format!("{part:?} of {file}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/troubleshooting.md lacks\n{}", missing.join("\n"));
}

#[test]
fn every_limit_is_in_the_code() {
    let page = fs::read_to_string(format!("{ROOT}/docs/limits.md")).unwrap();
    let mut files = Vec::new();
    for dir in ["src", "bpf"] {
        sources(Path::new(&format!("{ROOT}/{dir}")), &["rs", "h", "c"], &mut files);
    }
    let code: String = files.into_iter().map(|(_, text)| text).collect();
    let mut limits = 0;
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let Some(text) = line.split(" | ").nth(2).and_then(|cell| cell.strip_prefix('`')?.strip_suffix('`'))
        else {
            continue;
        };
        // Rust has a type between the name and the value.
        let (name, value) = text.split_once(" = ").unwrap_or((text, ""));
        let said = code.match_indices(name).any(|(at, _)| {
            let behind = code[at + name.len()..].lines().next().unwrap_or_default();
            let behind = behind.split_once(" = ").filter(|(ty, _)| ty.is_empty() || ty.starts_with(':'));
            value.is_empty()
                || behind.is_some_and(|(_, found)| found.trim_end_matches([';', ',']).starts_with(value))
        });
        assert!(said, "docs/limits.md has `{text}`, which is not in the code");
        limits += 1;
    }
    assert!(limits > 15, "{limits} limits in docs/limits.md");
}
