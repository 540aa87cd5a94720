//! The frames of the 32-bit mode of x86: words have four bytes, the return address is at CFA - 4, and registers
//! have numbers of their own.
//!
//! A signal's frame is described in full, by expressions from esp: in the kernel's page of code, `__kernel_sigreturn`
//! and `__kernel_rt_sigreturn`, which have different places for the same registers.

use super::dwarf::{CfaRule, Op, RowRules, SavedRule, operations, register_relative};
use super::frame::{Cfa, Frame, Registers, ReturnAddress, SavedBase, SavedFp};
use super::{Reason, Rule};

const EBX: u16 = 3;
const ESP: u16 = 4;
const EBP: u16 = 5;
const EIP: u16 = 8;

/// By the System V ABI for the Intel386, figure 2-29.
pub const REGISTERS: Registers = Registers {
    sp: ESP,
    fp: EBP,
    base: EBX,
    ra: EIP,
    names: &["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"],
};

/// The rule that a row comes to.
pub fn rule(row: &RowRules) -> Rule {
    if row.is_signal_frame
        && let Some(frame) = signal_frame(row)
    {
        return Rule::Frame(frame);
    }
    let ra = match row.ra {
        SavedRule::Unspecified | SavedRule::Undefined => return Rule::EndOfStack,
        SavedRule::Offset(-4) => ReturnAddress::AtCfa(-4),
        _ => return Rule::NotUnderstood(Reason::ReturnAddress),
    };
    if !matches!(row.sp, SavedRule::Unspecified | SavedRule::ValueOffset(0)) {
        return Rule::NotUnderstood(Reason::StackPointer);
    }
    let Some(cfa) = cfa(row.cfa) else { return Rule::NotUnderstood(Reason::Cfa) };
    let frame = Frame { cfa, fp: REGISTERS.saved_fp(row.fp), base: SavedBase::Lost, ra };
    if row.is_signal_frame { Rule::ExactFrame(frame) } else { Rule::Frame(frame) }
}

fn cfa(rule: CfaRule) -> Option<Cfa> {
    REGISTERS.cfa(rule).or_else(|| match rule {
        CfaRule::Register(..) => None,
        CfaRule::Expression(bytes) => match *operations(bytes)?.as_slice() {
            [
                Op::Register(ESP, 4),
                Op::Register(EIP, 0),
                Op::Constant(15),
                Op::And,
                Op::Constant(threshold @ 0..=15),
                Op::Ge,
                Op::Constant(2),
                Op::Shl,
                Op::Plus,
            ] => Some(Cfa::Plt { threshold: u8::try_from(threshold).ok()? }),
            _ => None,
        },
    })
}

fn signal_frame(row: &RowRules) -> Option<Frame> {
    let at = |saved| match saved {
        SavedRule::Expression(bytes) => i16::try_from(register_relative(bytes, ESP)?).ok(),
        _ => None,
    };
    let CfaRule::Expression(cfa) = row.cfa else { return None };
    let [Op::Register(ESP, sp), Op::Deref] = *operations(cfa)?.as_slice() else { return None };
    Some(Frame {
        cfa: Cfa::DerefSp { offset: i16::try_from(sp).ok()?, addend: 0 },
        fp: SavedFp::AtSp(at(row.fp)?),
        base: SavedBase::Lost,
        ra: ReturnAddress::AtSp(at(row.ra)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: RowRules = RowRules {
        cfa: CfaRule::Register(ESP, 4),
        sp: SavedRule::Unspecified,
        fp: SavedRule::Unspecified,
        base: None,
        ra: SavedRule::Offset(-4),
        is_signal_frame: false,
    };

    #[test]
    fn frames_have_words_of_four_bytes() {
        let frame = |row| match rule(&row) {
            Rule::Frame(frame) => REGISTERS.words(&frame).join(" "),
            other => panic!("{other:?}"),
        };
        assert_eq!(frame(PLAIN), "esp+4 u c-4");
        let with_fp = RowRules { cfa: CfaRule::Register(EBP, 8), fp: SavedRule::Offset(-8), ..PLAIN };
        assert_eq!(frame(with_fp), "ebp+8 c-8 c-4");
        // main() aligns its stack: *(ebp - 4), and ecx before that.
        assert_eq!(
            frame(RowRules { cfa: CfaRule::Expression(&[0x75, 0x7c, 0x06]), ..PLAIN }),
            "*(ebp-4)+0 u c-4"
        );
        assert_eq!(frame(RowRules { cfa: CfaRule::Register(1, 0), ..PLAIN }), "ecx+0 u c-4");
        let plt = [0x74, 4, 0x78, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x32, 0x24, 0x22];
        assert_eq!(frame(RowRules { cfa: CfaRule::Expression(&plt), ..PLAIN }), "plt(11) u c-4");
        assert_eq!(rule(&RowRules { ra: SavedRule::Undefined, ..PLAIN }), Rule::EndOfStack);
        let of_64_bits = RowRules { ra: SavedRule::Offset(-8), ..PLAIN };
        assert_eq!(rule(&of_64_bits), Rule::NotUnderstood(Reason::ReturnAddress));
    }

    #[test]
    fn a_signals_frame_has_its_registers_in_their_places() {
        // __kernel_sigreturn, behind its pop: sigcontext at esp + 4.
        let row = RowRules {
            cfa: CfaRule::Expression(&[0x74, 32, 0x06]),
            fp: SavedRule::Expression(&[0x74, 28]),
            ra: SavedRule::Expression(&[0x74, 0xbc, 0]),
            is_signal_frame: true,
            ..PLAIN
        };
        let Rule::Frame(frame) = rule(&row) else { panic!("{:?}", rule(&row)) };
        assert_eq!(REGISTERS.words(&frame).join(" "), "*(esp+32)+0 *(esp+28) *(esp+60)");
    }
}
