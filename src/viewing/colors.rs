//! The palette that tells kinds of frames apart, and its legend.
//!
//! All colours are light, for the text on them is black. Kinds differ in lightness as well as in
//! hue where they meet most often (kernel and user), for eyes that tell few hues apart.

use std::fmt::Write;

use super::names::FrameKind;

/// Red, green, blue.
pub(super) type Rgb = [u8; 3];

/// The frame below all others.
pub(super) const ROOT: Rgb = [238, 238, 238];

/// What stands for frames that are not drawn.
pub(super) const LEFT_OUT: Rgb = [224, 224, 224];

/// Kinds with their word in the legend and the two colours between which their frames vary.
pub(super) const KINDS: [(FrameKind, &str, Rgb, Rgb); 13] = [
    (FrameKind::Process, "process", [221, 228, 238], [204, 214, 228]),
    (FrameKind::Kernel, "kernel", [250, 160, 92], [238, 134, 62]),
    (FrameKind::User, "user", [255, 231, 140], [247, 207, 98]),
    (FrameKind::Inlined, "inlined", [174, 232, 228], [132, 208, 208]),
    (FrameKind::Jit, "JIT", [176, 226, 138], [136, 204, 104]),
    (FrameKind::Python, "Python", [164, 208, 250], [124, 182, 238]),
    (FrameKind::JavaScript, "JavaScript", [232, 240, 150], [212, 224, 110]),
    (FrameKind::Java, "Java", [252, 198, 190], [242, 166, 156]),
    (FrameKind::Bpf, "BPF", [218, 186, 250], [196, 156, 238]),
    (FrameKind::Unresolved, "unresolved", [206, 206, 206], [178, 178, 178]),
    (FrameKind::Blocked, "blocked", [178, 214, 252], [138, 188, 244]),
    (FrameKind::Waker, "waker", [226, 208, 170], [208, 186, 140]),
    (FrameKind::Runnable, "runnable", [250, 176, 196], [244, 156, 182]),
];

/// Colour of a frame. A function has the same one in every picture.
pub(super) fn color(name: &str, kind: FrameKind) -> Rgb {
    let (_, _, from, to) = KINDS.into_iter().find(|entry| entry.0 == kind).unwrap_or(KINDS[2]);
    // FNV-1a, whose low bits are the best mixed.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let share = (hash ^ (hash >> 32)) % 256;
    std::array::from_fn(|i| {
        let (from, to) = (u64::from(from[i]), u64::from(to[i]));
        ((from * (255 - share) + to * share) / 255) as u8
    })
}

/// The legend as an SVG element, centred in the picture, with its text on the line `y`.
pub(super) fn legend(y: u32, shown: impl Fn(FrameKind) -> bool) -> String {
    const SQUARE: u32 = 10;
    const LETTER: u32 = 7;
    const GAP: u32 = 18;
    let entry = |word: &str| SQUARE + 5 + LETTER * word.len() as u32;
    let kinds = || KINDS.into_iter().filter(|(kind, ..)| shown(*kind));
    let width = kinds().map(|(_, word, ..)| entry(word) + GAP).sum::<u32>().saturating_sub(GAP);
    let mut x = -i64::from(width / 2);
    // A nested image may start at a percentage, and so stays centred when the window changes.
    let mut svg = r#"<svg id="legend" x="50%" y="0" overflow="visible">"#.to_owned();
    for (_, word, [r, g, b], _) in kinds() {
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            r##"<rect x="{x}" y="{}" width="{SQUARE}" height="{SQUARE}" fill="rgb({r},{g},{b})" stroke="#777" stroke-width="0.5"/><text x="{}" y="{y}">{word}</text>"##,
            y - SQUARE + 1,
            x + i64::from(SQUARE) + 5,
        );
        x += i64::from(entry(word) + GAP);
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance and contrast as WCAG 2 defines them.
    fn contrast_to_black(color: Rgb) -> f64 {
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        let [r, g, b] = color.map(linear);
        (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) / 0.05
    }

    #[test]
    fn black_text_is_readable_on_every_color() {
        for (_, word, from, to) in KINDS {
            for color in [from, to] {
                // 7 is what WCAG asks of the best legible text.
                assert!(contrast_to_black(color) > 7.0, "{word}: {}", contrast_to_black(color));
            }
        }
    }

    #[test]
    fn colors_stay_within_their_kind_and_vary() {
        for (kind, _, from, to) in KINDS {
            let mut seen = std::collections::HashSet::new();
            for i in 0..100 {
                let color = color(&format!("function{i}"), kind);
                seen.insert(color);
                for channel in 0..3 {
                    assert!((to[channel]..=from[channel]).contains(&color[channel]));
                }
            }
            assert!(seen.len() > 10, "{kind:?} has {} colors", seen.len());
        }
    }
}
