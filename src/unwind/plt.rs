//! Rows for procedure linkage tables that nobody has described: lld and mold write no call frame
//! information for theirs, and a sample in a stub would lack the function that called it.
//!
//! A stub consists of very few kinds of instructions, by linker, by machine, for lazy binding or not,
//! with landing pads for indirect branches or not. So it is not known by its pattern but read: what
//! counts is how much it has pushed.
//!
//! ```text
//! header:  push GOT+8; jmp *GOT+16           entered with an index pushed, from below
//! stub:    jmp *GOT; push index; jmp header  lazy: the first jump leads behind itself at first
//! stub:    endbr64; jmp *GOT                 bound at the start
//! ```
//!
//! What is read in a straight line has pushed nothing behind a jump: another stub begins there, or the
//! jump has led there. Only what a direct jump leads to begins with what was pushed before that.

use std::collections::HashMap;

use super::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
use super::{Rule, aarch64};
use crate::elf::{Machine, Stubs};

/// Stubs, and rules of 64-bit x86, come in sixteen bytes.
const SLOT: usize = 16;
/// Bytes on the stack at the first instruction: the return address.
const CALLED: i32 = 8;

/// The rules of a table by file offset, ascending; the end is the last.
pub(super) fn rows(machine: Machine, stubs: &Stubs) -> Vec<(u64, Rule)> {
    let rows = match machine {
        Machine::X86_64 => x86_64(stubs),
        Machine::Aarch64 => aarch64(&stubs.bytes),
        // Linkers describe them, or nearly: a sample there is one in thousands.
        Machine::I386 => Vec::new(),
    };
    let end = (stubs.bytes.len(), Rule::Uncovered);
    rows.into_iter().chain([end]).map(|(at, rule)| (stubs.file_offset + at as u64, rule)).collect()
}

fn frame(cfa: Cfa, ra: ReturnAddress) -> Rule {
    Rule::Frame(Frame { cfa, fp: SavedFp::Same, base: SavedBase::Lost, ra })
}

/// What an instruction of a stub does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Push,
    /// A direct jump, by so many bytes from its end.
    Jump(i32),
    /// It never goes on behind it.
    Leave,
    /// Fills the space between stubs, and may stand within one.
    Pad,
    Nothing,
}

/// The instruction at the start of `code` and its size; none if no stub has it.
fn decode(code: &[u8]) -> Option<(Does, usize)> {
    if code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) {
        return Some((Does::Nothing, 4)); // endbr64
    }
    // Operand size, segment, and bnd: of no concern.
    let prefixes = code.iter().take_while(|byte| matches!(byte, 0x66 | 0x2e | 0xf2)).count();
    let code = &code[prefixes..];
    let (does, size) = match *code {
        [0x50..=0x57, ..] => (Does::Push, 1),
        [0x41, 0x50..=0x57, ..] | [0x6a, _, ..] => (Does::Push, 2),
        [0x68, _, _, _, _, ..] => (Does::Push, 5),
        [0xff, 0x35, _, _, _, _, ..] => (Does::Push, 6),
        [0xff, 0x25, _, _, _, _, ..] => (Does::Leave, 6),
        [0xff, 0xe0..=0xe7, ..] => (Does::Leave, 2),
        [0x41, 0xff, 0xe0..=0xe7, ..] => (Does::Leave, 3),
        [0x90 | 0xcc, ..] => (Does::Pad, 1),
        [0xeb, by, ..] => (Does::Jump(by.cast_signed().into()), 2),
        [0xe9, a, b, c, d, ..] => (Does::Jump(i32::from_le_bytes([a, b, c, d])), 5),
        [0x41, 0xb8..=0xbf, _, _, _, _, ..] => (Does::Nothing, 6), // mov $index, %r11d
        [0x4c, 0x8b | 0x8d, 0x1d, _, _, _, _, ..] => (Does::Nothing, 7), // mov or lea …(%rip), %r11
        [0x0f, 0x1f, modrm, ..] => (Does::Pad, 3 + addressing(modrm)),
        _ => return None,
    };
    (size <= code.len()).then_some((does, prefixes + size))
}

/// Bytes behind the ModRM byte of an instruction without immediate operands.
fn addressing(modrm: u8) -> usize {
    let sib = usize::from(modrm & 7 == 4);
    match modrm >> 6 {
        0 if modrm & 7 == 5 => 4,
        0 => sib,
        1 => 1 + sib,
        2 => 4 + sib,
        _ => 0,
    }
}

/// From which offset on how much is on the stack; none where the code is not that of a stub, up to
/// the next slot. `entered` has what is there where jumps lead; those within are added to `jumps`.
fn depths(
    code: &[u8],
    entered: &HashMap<usize, i32>,
    jumps: &mut HashMap<usize, i32>,
) -> Vec<(usize, Option<i32>)> {
    let mut found = Vec::new();
    let (mut at, mut depth, mut begins) = (0, CALLED, true);
    while at < code.len() {
        if begins {
            depth = entered.get(&at).copied().unwrap_or(CALLED);
        }
        let Some((does, size)) = decode(&code[at..]) else {
            found.push((at, None));
            at = (at / SLOT + 1) * SLOT;
            begins = true;
            continue;
        };
        if does == Does::Pad && begins && at % SLOT != 0 {
            at += size;
            continue;
        }
        found.push((at, Some(depth)));
        at += size;
        begins = matches!(does, Does::Jump(_) | Does::Leave);
        match does {
            // Stubs push two words at most; a section of pushes is none.
            Does::Push => depth = (depth + 8).min(64),
            Does::Jump(by) => {
                let target = i64::try_from(at).ok().and_then(|at| usize::try_from(at + i64::from(by)).ok());
                if let Some(target) = target.filter(|target| *target < code.len()) {
                    jumps.insert(target, depth);
                }
            }
            Does::Leave | Does::Pad | Does::Nothing => {}
        }
    }
    found
}

fn x86_64(stubs: &Stubs) -> Vec<(usize, Rule)> {
    let (mut jumps, none) = (HashMap::new(), HashMap::new());
    depths(&stubs.bytes, &none, &mut jumps);
    let found = depths(&stubs.bytes, &jumps, &mut HashMap::new());
    let rule = |depth: Option<i32>| {
        depth.map_or(Rule::Uncovered, |depth| frame(Cfa::Sp(depth), ReturnAddress::AtCfa(-8)))
    };
    let is_aligned = stubs.vaddr.is_multiple_of(SLOT as u64);
    let mut rows = Vec::new();
    for slot in found.chunk_by(|a, b| a.0 / SLOT == b.0 / SLOT) {
        // Thousands of lazy stubs would be a row every eight bytes: one rule says the same.
        let start = slot[0].0;
        let pushed = slot.iter().position(|(_, depth)| *depth != Some(CALLED));
        if let Some((before, behind)) = pushed.and_then(|at| slot.split_at_checked(at))
            && !before.is_empty()
            && behind.iter().all(|(_, depth)| *depth == Some(CALLED + 8))
            && is_aligned
            && start % SLOT == 0
        {
            let threshold = (behind[0].0 % SLOT) as u8;
            rows.push((start, frame(Cfa::Plt { threshold }, ReturnAddress::AtCfa(-8))));
        } else {
            rows.extend(slot.iter().map(|&(at, depth)| (at, rule(depth))));
        }
    }
    rows
}

/// Stubs leave the stack and x30 alone; the header pushes a pair that x30 is in, and keeps the pair
/// until its last instruction.
fn aarch64(code: &[u8]) -> Vec<(usize, Rule)> {
    const PUSH_X16_X30: [u8; 4] = 0xa9bf_7bf0_u32.to_le_bytes();
    const BRANCH_X17: [u8; 4] = 0xd61f_0220_u32.to_le_bytes();
    let Some(x30) = aarch64::REGISTERS.get(aarch64::REGISTERS.ra) else { return Vec::new() };
    let stub = frame(Cfa::Sp(0), ReturnAddress::Register(x30));
    let mut rows = vec![(0, stub)];
    let mut words = code.chunks(4).zip((4..).step_by(4));
    if let Some((_, pushed)) = words.by_ref().take(2).find(|(word, _)| *word == PUSH_X16_X30) {
        rows.push((pushed, frame(Cfa::Sp(16), ReturnAddress::AtCfa(-8))));
        rows.extend(words.find(|(word, _)| *word == BRANCH_X17).map(|(_, left)| (left, stub)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(machine: Machine, bytes: &[u8], vaddr: u64) -> Vec<(u64, String)> {
        let stubs = Stubs { vaddr, file_offset: 0x1000, bytes: bytes.to_vec() };
        let mut words: Vec<(u64, String)> = rows(machine, &stubs)
            .into_iter()
            .map(|(offset, rule)| match rule {
                Rule::Frame(frame) => (offset - 0x1000, machine.registers().words(&frame).join(" ")),
                other => (offset - 0x1000, format!("{other:?}")),
            })
            .collect();
        words.dedup_by(|next, last| next.1 == last.1);
        words
    }

    fn x86(bytes: &[&[u8]]) -> Vec<(u64, String)> {
        words(Machine::X86_64, &bytes.concat(), 0x2000)
    }

    fn are(found: Vec<(u64, String)>, wanted: &[(u64, &str)]) {
        assert_eq!(found.iter().map(|(at, rule)| (*at, rule.as_str())).collect::<Vec<_>>(), wanted);
    }

    /// push GOT+8(%rip); jmp *GOT+16(%rip); nopl 0(%rax)
    const HEADER: [u8; 16] = [0xff, 0x35, 1, 2, 3, 4, 0xff, 0x25, 1, 2, 3, 4, 0x0f, 0x1f, 0x40, 0];

    #[test]
    fn lazy_stubs_have_pushed_an_index() {
        // jmp *GOT(%rip); push $0; jmp header
        let stub = |to: u8| [0xff, 0x25, 1, 2, 3, 4, 0x68, 0, 0, 0, 0, 0xe9, to, 0xff, 0xff, 0xff];
        let header = [(0, "rsp+16 u c-8"), (6, "rsp+24 u c-8")];
        let all = [&header[..], &[(16, "plt(11) u c-8"), (48, "Uncovered")]].concat();
        are(x86(&[&HEADER, &stub(0xe0), &stub(0xd0)]), &all);
        // Where the machine's addresses do not tell stubs apart, each has its rows.
        let found = words(Machine::X86_64, &[&HEADER[..], &stub(0xe0)].concat(), 0x2008);
        let rows = [(16, "rsp+8 u c-8"), (27, "rsp+16 u c-8"), (32, "Uncovered")];
        are(found, &[&header[..], &rows].concat());
    }

    #[test]
    fn stubs_with_landing_pads() {
        // endbr64; push $0; jmp header; xchg %ax, %ax
        let stub = [0xf3, 0x0f, 0x1e, 0xfa, 0x68, 0, 0, 0, 0, 0xe9, 0xe2, 0xff, 0xff, 0xff, 0x66, 0x90];
        let found = x86(&[&HEADER, &stub]);
        let rows = [(0, "rsp+16 u c-8"), (6, "rsp+24 u c-8"), (16, "plt(9) u c-8"), (32, "Uncovered")];
        are(found, &rows);
        // endbr64; bnd jmp *GOT(%rip); nopl 0(%rax,%rax)
        let second = [0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 1, 2, 3, 4, 0x0f, 0x1f, 0x44, 0, 0];
        are(x86(&[&second, &second]), &[(0, "rsp+8 u c-8"), (32, "Uncovered")]);
    }

    #[test]
    fn a_header_that_nobody_jumps_to_is_entered_by_a_call() {
        // endbr64; push %r11; push GOT+8(%rip); jmp *GOT+16(%rip); int3…
        let header = [
            0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x53, 0xff, 0x35, 1, 2, 3, 4, 0xff, 0x25, 1, 2, 3, 4, 0xcc, 0xcc,
            0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
        ];
        // endbr64; mov $0, %r11d; jmp *GOT(%rip)
        let stub = [0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0xbb, 0, 0, 0, 0, 0xff, 0x25, 1, 2, 3, 4];
        let found = x86(&[&header, &stub]);
        let rows = [(0, "rsp+8 u c-8"), (6, "rsp+16 u c-8"), (12, "rsp+24 u c-8"), (32, "rsp+8 u c-8")];
        are(found, &[&rows[..], &[(48, "Uncovered")]].concat());
    }

    #[test]
    fn what_is_no_stub_is_not_covered() {
        let call = [0xe8, 0, 0, 0, 0, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];
        let cut = [0xff, 0x25, 1, 2];
        let found = x86(&[&[0x90; 16], &call, &[0x90; 16], &cut]);
        let rows = [(0, "rsp+8 u c-8"), (16, "Uncovered"), (32, "rsp+8 u c-8"), (48, "Uncovered")];
        are(found, &rows);
        assert_eq!(x86(&[]), [(0, "Uncovered".to_owned())]);
        // Jumps anywhere, and prefixes without end.
        for bytes in [&[0xe9, 0, 0, 0, 0x80][..], &[0xeb, 0xfe], &[0x66; 40], &[0x0f, 0x1f, 0x84]] {
            assert!(x86(&[bytes]).len() <= 2, "{bytes:x?}");
        }
    }

    #[test]
    fn stubs_of_arm_leave_the_return_address_in_its_register() {
        let code = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let (push, adrp, ldr, add, branch, nop) =
            (0xa9bf_7bf0, 0xb000_0090, 0xf947_fe11, 0x913f_e210, 0xd61f_0220, 0xd503_201f);
        let stub = [adrp, ldr, add, branch];
        let lazy = [&[push, adrp, ldr, add, branch, nop, nop, nop][..], &stub].concat();
        let found = words(Machine::Aarch64, &code(&lazy), 0);
        are(found, &[(0, "sp+0 u x30"), (4, "sp+16 u c-8"), (20, "sp+0 u x30"), (48, "Uncovered")]);
        are(words(Machine::Aarch64, &code(&stub), 0), &[(0, "sp+0 u x30"), (16, "Uncovered")]);
    }
}
