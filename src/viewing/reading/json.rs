//! JSON as it comes: what its parser refuses and other readers take is made plain first.

use std::borrow::Cow;

use anyhow::{Result, ensure};

use super::formats::MOST_JSON;

/// The text of a file that is JSON.
pub(super) fn text(data: &[u8]) -> Result<Cow<'_, str>> {
    ensure!(
        data.len() <= MOST_JSON,
        "it is JSON of more than {} MiB: record for a shorter time, or write pprof",
        MOST_JSON >> 20
    );
    let text = String::from_utf8_lossy(data.strip_prefix("\u{feff}".as_bytes()).unwrap_or(data));
    Ok(without_surrogates(text))
}

/// Without halves of characters: V8 writes names of JavaScript as they are, and those may hold a `\ud83d` alone.
fn without_surrogates(text: Cow<'_, str>) -> Cow<'_, str> {
    let is_half = |at: usize, range: std::ops::RangeInclusive<u32>| {
        let digits = text.get(at..at + 6).and_then(|escape| escape.strip_prefix("\\u"));
        digits
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .is_some_and(|unit| range.contains(&unit))
    };
    let (mut plain, mut done, mut at) = (String::new(), 0, 0);
    while let Some(next) = text[at..].find('\\').map(|offset| at + offset) {
        let (first, second) = (is_half(next, 0xd800..=0xdbff), is_half(next, 0xdc00..=0xdfff));
        at = if first && is_half(next + 6, 0xdc00..=0xdfff) {
            next + 12
        } else if first || second {
            plain += &text[done..next];
            plain += "\\ufffd";
            done = next + 6;
            done
        } else {
            // Another backslash may follow; a character that does is passed by whole.
            next + 1 + text[next + 1..].chars().next().map_or(0, char::len_utf8)
        };
    }
    if done == 0 {
        return text;
    }
    plain += &text[done..];
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_characters_are_replaced() {
        for (text, plain) in [
            (r"a\ud800", r"a\ufffd"),
            (r"\uDC00b\ud83d\ude00\uD800\n", r"\ufffdb\ud83d\ude00\ufffd\n"),
            (r"\\ud800 \u00e9 \é \", r"\\ud800 \u00e9 \é \"),
            (r"\ud800\ud800\udc00", r"\ufffd\ud800\udc00"),
            (r"\ud80", r"\ud80"),
        ] {
            assert_eq!(without_surrogates(text.into()), plain);
        }
    }
}
