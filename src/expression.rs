//! Regular expressions in the dialect of google/pprof, which is that of RE2, by the only user of regex.
//!
//! The two agree on nearly everything. What differs is translated: `\Q…\E` quotes; `[` in a class is a bracket, and
//! `&&`, `--` and `~~` are characters, where regex has classes within classes; a `{` that begins no repetition is a
//! brace; `\<` and `\>` are characters; and a backslash before three digits is a character by its number.

use anyhow::{Result, anyhow};
pub use regex::Regex;
use regex::RegexBuilder;

/// An expression as users of google/pprof write it.
///
/// # Errors
/// If it is none.
pub fn compile(pattern: &str) -> Result<Regex> {
    Ok(build(&translate(pattern))?)
}

fn build(translated: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(translated).octal(true).build()
}

/// One that must match all of a name.
///
/// # Errors
/// If it is none, and in one line why.
pub fn compile_whole(pattern: &str) -> Result<Regex> {
    // By itself first: brackets may only be closed by those around it.
    let pattern = translate(pattern);
    let whole = build(&pattern).and_then(|_| build(&format!("^(?:{pattern})$")));
    whole.map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        anyhow!("{}", reason.strip_prefix("error: ").unwrap_or(reason))
    })
}

fn translate(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        let taken = match next {
            '\\' if rest.starts_with("\\Q") => {
                let quoted = &rest[2..];
                let end = quoted.find("\\E").unwrap_or(quoted.len());
                text += &regex::escape(&quoted[..end]);
                (2 + end + 2).min(rest.len())
            }
            '\\' => escape(rest, &mut text),
            '[' => class(rest, &mut text),
            '{' if !is_repetition(rest) => {
                text += "\\{";
                1
            }
            _ => {
                text.push(next);
                next.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    text
}

/// A backslash with what belongs to it, by its length.
fn escape(rest: &str, text: &mut String) -> usize {
    let Some(next) = rest[1..].chars().next() else {
        text.push('\\');
        return 1;
    };
    match next {
        '<' | '>' => text.push(next),
        'x' | 'p' | 'P' if rest[2..].starts_with('{') => {
            let end = rest.find('}').map_or(rest.len(), |at| at + 1);
            text.push_str(&rest[..end]);
            return end;
        }
        _ => {
            text.push('\\');
            text.push(next);
        }
    }
    1 + next.len_utf8()
}

/// A class in brackets, by its length; all that is left of one that nothing closes.
fn class(rest: &str, text: &mut String) -> usize {
    let mut at = 1;
    text.push('[');
    if rest[at..].starts_with('^') {
        text.push('^');
        at += 1;
    }
    if rest[at..].starts_with(']') {
        text.push_str("\\]");
        at += 1;
    }
    while let Some(next) = rest[at..].chars().next() {
        match next {
            ']' => {
                text.push(']');
                return at + 1;
            }
            '\\' => at += escape(&rest[at..], text),
            '[' if rest[at..].starts_with("[:") && rest[at..].contains(":]") => {
                let end = at + rest[at..].find(":]").map_or(2, |end| end + 2);
                text.push_str(&rest[at..end]);
                at = end;
            }
            '[' | '&' | '~' => {
                text.push('\\');
                text.push(next);
                at += 1;
            }
            '-' if rest[..at].ends_with('-') => {
                text.push_str("\\-");
                at += 1;
            }
            _ => {
                text.push(next);
                at += next.len_utf8();
            }
        }
    }
    at
}

/// Whether `{…}` says how often: `{2}`, `{2,}`, `{2,5}`.
fn is_repetition(rest: &str) -> bool {
    let Some(end) = rest.find('}') else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match rest[1..end].split_once(',') {
        Some((least, most)) => is_number(least) && (most.is_empty() || is_number(most)),
        None => is_number(&rest[1..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go's regexp says of each, which is RE2's dialect too: whether the whole text matches.
    #[test]
    fn expressions_mean_what_they_mean_in_re2() {
        for (pattern, matching, other) in [
            (r"\Qa.b\E", "a.b", "axb"),
            (r"\Qf(*T)\E.*", "f(*T)::g", "f(T)::g"),
            (r"x\Q[", "x[", "x"),
            (r"[[]x", "[x", "x"),
            (r"[[a]+", "[a[", "]"),
            (r"[^[]", "a", "["),
            (r"[]a]+", "]a", "["),
            (r"[^]a]", "[", "]"),
            (r"[[:alpha:]_]+", "ab_", "a1"),
            (r"[a&&b]+", "a&b", "c"),
            (r"[a~~b]+", "a~b", "c"),
            (r"[+--]+", "+,-", "."),
            (r"[a\]]+", "a]", "["),
            (r"[\x{41}-C]", "B", "D"),
            (r"func{}", "func{}", "func"),
            (r"a{2}b{1,}c{0,1}", "aabb", "ab"),
            (r"a{,2}", "a{,2}", "aa"),
            (r"\<init\>", "<init>", "init"),
            (r"\101\x42", "AB", "ab"),
            (r"\pL+\p{Greek}", "aβ", "1β"),
            (r"é[é]", "éé", "é"),
        ] {
            let whole = compile_whole(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert!(whole.is_match(matching), "{pattern} and {matching}");
            assert!(!whole.is_match(other), "{pattern} and {other}");
        }
    }

    #[test]
    fn what_is_no_expression_is_told_in_one_line() {
        for (pattern, reason) in [
            ("malloc(", "unclosed group"),
            ("a[", "unclosed character class"),
            ("a)(b", "unopened group"),
            ("(?=a)", "look-around"),
            ("a\\", "incomplete escape"),
        ] {
            let error = compile_whole(pattern).unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains('\n'), "{pattern}: {error}");
        }
    }
}
