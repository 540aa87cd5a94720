//! Text as it comes: in UTF-8 or UTF-16, with a mark of its order of bytes or without, and with any ends of lines.

use std::borrow::Cow;

/// Bytes by which text is told from other data.
pub(super) const LOOKED_AT: usize = 4096;

/// The data in UTF-8 if it is text in UTF-16, with ends of lines that [`str::lines`] knows.
pub(super) fn decoded(data: &[u8]) -> Cow<'_, [u8]> {
    let units = |order: fn([u8; 2]) -> u16| {
        let units = data[2..].as_chunks().0.iter().map(|&unit| order(unit));
        let text: String =
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Cow::Owned(text.into_bytes())
    };
    match data {
        [0xff, 0xfe, ..] => units(u16::from_le_bytes),
        [0xfe, 0xff, ..] if !data.starts_with(b"\xfe\xed") => units(u16::from_be_bytes),
        // As on the first Macintosh.
        _ if is_text(data) && look(data).contains(&b'\r') && !data.contains(&b'\n') => {
            Cow::Owned(data.iter().map(|&byte| if byte == b'\r' { b'\n' } else { byte }).collect())
        }
        _ => Cow::Borrowed(data),
    }
}

/// The bytes that are looked at.
pub(super) fn look(data: &[u8]) -> &[u8] {
    &data[..data.len().min(LOOKED_AT)]
}

/// Those behind white space.
pub(super) fn start(data: &[u8]) -> &[u8] {
    let start = look(data);
    start.strip_prefix("\u{feff}".as_bytes()).unwrap_or(start).trim_ascii_start()
}

fn controls(data: &[u8]) -> usize {
    look(data).iter().filter(|&&byte| byte < b' ' && !b"\t\n\r\x1b".contains(&byte)).count()
}

/// Whether there are no bytes that text has not.
pub(super) fn is_text(data: &[u8]) -> bool {
    controls(data) == 0
}

/// Whether there are few: a name may hold anything.
pub(super) fn is_nearly_text(data: &[u8]) -> bool {
    controls(data) <= 1 + look(data).len() / 64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_plain() {
        for (data, plain) in [
            (&b"\xff\xfea\0;\0\xe9\0 \x001\0\n\0"[..], "a;\u{e9} 1\n"),
            (b"\xfe\xff\0a\0 \x001\0\n\xd8\0", "a 1\n\u{fffd}"),
            (b"a 1\rb 2\r", "a 1\nb 2\n"),
            (b"a 1\r\nb 2", "a 1\r\nb 2"),
            (b"", ""),
        ] {
            assert_eq!(std::str::from_utf8(&decoded(data)), Ok(plain));
        }
        assert!(matches!(decoded(b"\x0a\x04\r"), Cow::Borrowed(_)));
    }
}
