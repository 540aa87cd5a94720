//! Where a blob's frame is, instruction by instruction.
//!
//! A method's code has one frame, of the size that its blob says, but for the instructions that make it and those
//! that take it away. Their forms are few: compilers put
//!
//! ```text
//! push %rbp; sub $n,%rsp      or      sub $n,%rsp; mov %rbp,m(%rsp)
//! add $n,%rsp; pop %rbp; [cmp m(%r15),%rsp; ja …;] ret
//! ```
//!
//! and nothing else has the frame's own size as an operand, so they are found by their bytes.

use super::blobs::{Blob, Kind};
use crate::unwind::Rule;
use crate::unwind::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};

const PUSH_RBP: u8 = 0x55;
const POP_RBP: u8 = 0x5d;
const RET: u8 = 0xc3;
/// Between the return address that calls from C++ have and the call itself.
const CALL_STUB: u64 = 16;

fn frame(cfa: Cfa, fp: SavedFp) -> Rule {
    Rule::Frame(Frame { cfa, fp, base: SavedBase::Lost, ra: ReturnAddress::AtCfa(-8) })
}

/// With the caller's fp in its register.
fn none() -> Rule {
    frame(Cfa::Sp(8), SavedFp::Same)
}

/// With the caller's fp below the return address.
fn of_bytes(bytes: i32) -> Rule {
    frame(Cfa::Sp(bytes), SavedFp::AtCfa(-16))
}

fn by_frame_pointer() -> Frame {
    Frame { cfa: Cfa::Fp(16), fp: SavedFp::AtCfa(-16), base: SavedBase::Lost, ra: ReturnAddress::AtCfa(-8) }
}

/// Rules for a blob's code, each from an address on.
pub fn rules(blob: &Blob, code: &[u8], call_stub: u64) -> Vec<(u64, Rule)> {
    let mut rules = match blob.kind {
        Kind::Interpreter => vec![(blob.start, Rule::JavaFrame(by_frame_pointer()))],
        Kind::Method | Kind::Native | Kind::Runtime => in_frame(blob, code),
        Kind::Frameless => vec![(blob.start, none())],
        Kind::Other => Vec::new(),
    };
    if blob.kind == Kind::Other && (blob.start..blob.end).contains(&call_stub) {
        let start = call_stub.saturating_sub(CALL_STUB).max(blob.start);
        rules = vec![(start, Rule::Frame(by_frame_pointer())), (call_stub + 1, Rule::Uncovered)];
    }
    rules
}

fn in_frame(blob: &Blob, code: &[u8]) -> Vec<(u64, Rule)> {
    let Ok(bytes) = i32::try_from(blob.frame) else { return Vec::new() };
    let body = of_bytes(bytes);
    let complete = usize::try_from(blob.complete).ok().filter(|&complete| complete <= code.len());
    let mut rules = match complete {
        Some(complete) => prologue(bytes, &code[..complete]),
        None => vec![(0, body)],
    };
    let mut at = complete.unwrap_or(0);
    while let Some((add, pop)) = next_epilogue(bytes, code, at) {
        if let Some(add) = add {
            rules.push((add, of_bytes(16)));
        }
        rules.push((pop, none()));
        at = end_of_epilogue(code, pop);
        rules.push((at, body));
    }
    rules.into_iter().map(|(at, rule)| (blob.start + at as u64, rule)).collect()
}

/// Rules for the code before the frame is there, and behind.
fn prologue(bytes: i32, code: &[u8]) -> Vec<(usize, Rule)> {
    let mut rules = vec![(0, none())];
    let sub = |at: usize| {
        let (size, end) = adjusted(code, at, 0xec)?;
        (size == bytes - 16 || size == bytes - 8).then_some(end)
    };
    let found = (0..code.len()).rev().find_map(|at| Some((at, sub(at)?)));
    // `mov %rsp,%rbp` may come between.
    let before = found.map_or(code.len(), |(at, _)| at);
    let pushed = (before.saturating_sub(4)..before).rev().find(|&at| code[at] == PUSH_RBP);
    match (pushed, found) {
        (Some(push), Some((_, end))) => rules.extend([(push + 1, of_bytes(16)), (end, of_bytes(bytes))]),
        (Some(push), None) if bytes == 16 => rules.push((push + 1, of_bytes(16))),
        (None, Some((_, end))) => rules.push((end, frame(Cfa::Sp(bytes), SavedFp::Same))),
        _ => {}
    }
    rules.push((code.len(), of_bytes(bytes)));
    rules
}

/// The operand of an instruction that adds to rsp or takes from it, by the third byte, and its end.
fn adjusted(code: &[u8], at: usize, which: u8) -> Option<(i32, usize)> {
    match *code.get(at..)? {
        [0x48, 0x81, third, a, b, c, d, ..] if third == which => {
            Some((i32::from_le_bytes([a, b, c, d]), at + 7))
        }
        [0x48, 0x83, third, size, ..] if third == which => Some((size.cast_signed().into(), at + 4)),
        _ => None,
    }
}

/// The next place that takes the frame away: behind the addition, if there is one, and behind the pop.
fn next_epilogue(bytes: i32, code: &[u8], from: usize) -> Option<(Option<usize>, usize)> {
    (from..code.len()).find_map(|at| {
        if bytes == 16 {
            // A pop alone: known by what follows.
            let is_end = code[at] == POP_RBP && end_of_epilogue(code, at + 1) > at + 1;
            return is_end.then_some((None, at + 1));
        }
        if code[at] != 0x48 {
            return None;
        }
        let (size, end) = adjusted(code, at, 0xc4)?;
        (size == bytes - 16 && code.get(end) == Some(&POP_RBP)).then_some((Some(end), end + 1))
    })
}

/// Behind the return, or where something else begins: then the frame is taken for there again.
fn end_of_epilogue(code: &[u8], mut at: usize) -> usize {
    let starts = |at: usize, bytes: &[u8]| code.get(at..).is_some_and(|code| code.starts_with(bytes));
    let begin = at;
    loop {
        at += match code.get(at) {
            _ if starts(at, &[0xc5, 0xf8, 0x77]) => 3, // vzeroupper
            _ if starts(at, &[0x49, 0x3b, 0xa7]) => 7, // cmp m(%r15),%rsp
            _ if starts(at, &[0x49, 0x3b, 0x67]) => 4, // the same, near
            _ if starts(at, &[0x0f, 0x87]) => 6,       // ja
            Some(&0xe9) => return (at + 5).min(code.len()),
            Some(&RET) => return at + 1,
            _ => return begin,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(kind: Kind, frame: u64, complete: u64, code: &[u8]) -> Blob {
        let end = 0x1000 + code.len() as u64;
        let (name, method, compilation) = (0, 0, 0);
        Blob { at: 0xf00, start: 0x1000, end, kind, name, frame, complete, method, compilation }
    }

    #[test]
    fn a_frame_is_there_from_its_prologue_to_its_epilogue() {
        // nop; push %rbp; sub $0x20,%rsp; nop; add $0x20,%rsp; pop %rbp; cmp; ja; ret; nop
        let code = [
            &[0x90, 0x55, 0x48, 0x83, 0xec, 0x20, 0x90, 0x48, 0x83, 0xc4, 0x20, 0x5d][..],
            &[0x49, 0x3b, 0xa7, 0, 0, 0, 0, 0x0f, 0x87, 0, 0, 0, 0, 0xc3, 0x90],
        ]
        .concat();
        let rules = rules(&blob(Kind::Method, 0x30, 6, &code), &code, 0);
        let wanted = [
            (0, none()),
            (2, of_bytes(16)),
            (6, of_bytes(0x30)),
            (6, of_bytes(0x30)),
            (11, of_bytes(16)),
            (12, none()),
            (26, of_bytes(0x30)),
        ];
        assert_eq!(rules, wanted.map(|(at, rule)| (0x1000 + at, rule)));
    }

    #[test]
    fn the_frame_pointer_may_be_saved_later() {
        // sub $0x118,%rsp; mov %rbp,0x110(%rsp); nop
        let code = [0x48, 0x81, 0xec, 0x18, 1, 0, 0, 0x48, 0x89, 0xac, 0x24, 0x10, 1, 0, 0, 0x90];
        let rules = rules(&blob(Kind::Method, 0x120, 15, &code), &code, 0);
        let wanted = [(0, none()), (7, frame(Cfa::Sp(0x120), SavedFp::Same)), (15, of_bytes(0x120))];
        assert_eq!(rules, wanted.map(|(at, rule)| (0x1000 + at, rule)));
    }

    #[test]
    fn nonsense_gives_rules_in_order() {
        for (frame, complete) in [(16, u64::MAX), (0x30, 3), (16, 9), (u64::MAX, 0), (0, 4)] {
            for byte in [0x48, PUSH_RBP, POP_RBP, RET, 0xe9, 0xff] {
                for length in [1, 9, 40] {
                    let code = vec![byte; length];
                    for kind in [Kind::Method, Kind::Interpreter, Kind::Runtime, Kind::Other] {
                        let rules = rules(&blob(kind, frame, complete, &code), &code, 0x1000);
                        assert!(rules.is_sorted_by_key(|rule| rule.0), "{rules:?}");
                    }
                }
            }
        }
    }
}
