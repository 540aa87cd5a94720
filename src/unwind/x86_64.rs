//! The frames of x86-64: which rules its code has, and how DWARF writes them.
//!
//! The return address is always at CFA - 8, but for a leaf that keeps it in a register. A call
//! preserves rbx, rbp, rsp and r12 to r15. Entries of a procedure linkage table push before they
//! jump, from byte 11 on, or with IBT 9 or 10.
//!
//! [`Rule::SignalFrame`] is `__restore_rt`, to which a signal handler returns. The kernel has put a
//! `struct rt_sigframe` there; with the handler's return address popped, `rsp` points at its
//! `ucontext_t`, and the interrupted registers lie at fixed places in `uc_mcontext`:
//!
//! ```text
//! rsp' = *(rsp + 160)    rbp' = *(rsp + 120)    rip' = *(rsp + 168)
//! ```
//!
//! Code written by hand has more: `_start` and `clone` declare their return address undefined, which
//! is how a stack ends; `longjmp` and `setcontext` describe the frame they are going to, with rules
//! for rsp itself, for the few instructions around the jump. Those are not understood, on purpose.

use super::dwarf::{CfaRule, Op, RowRules, SavedRule, operations, register_relative};
use super::frame::{Cfa, Frame, Registers, ReturnAddress};
use super::{Reason, Rule};

const RBX: u16 = 3;
const RBP: u16 = 6;
const RSP: u16 = 7;
const RIP: u16 = 16;

/// By the System V ABI, figure 3.36.
pub const REGISTERS: Registers = Registers {
    sp: RSP,
    fp: RBP,
    base: RBX,
    ra: RIP,
    names: &[
        "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
        "r14", "r15",
    ],
};

/// The rule that a row comes to.
pub fn rule(row: &RowRules) -> Rule {
    if row.is_signal_frame && is_restore_rt(row) {
        return Rule::SignalFrame;
    }
    let ra = match row.ra {
        SavedRule::Unspecified | SavedRule::Undefined => return Rule::EndOfStack,
        SavedRule::Offset(-8) => Some(ReturnAddress::AtCfa(-8)),
        SavedRule::Register(register) => REGISTERS.get(register).map(ReturnAddress::Register),
        _ => None,
    };
    let Some(ra) = ra else { return Rule::NotUnderstood(Reason::ReturnAddress) };
    // The caller's rsp is the CFA unless a row says otherwise, and then it goes elsewhere.
    if !matches!(row.sp, SavedRule::Unspecified | SavedRule::ValueOffset(0)) {
        return Rule::NotUnderstood(Reason::StackPointer);
    }
    let Some(cfa) = cfa(row.cfa) else { return Rule::NotUnderstood(Reason::Cfa) };
    let (fp, base) = (REGISTERS.saved_fp(row.fp), Registers::saved_base(row.base));
    let frame = Frame { cfa, fp, base, ra };
    if row.is_signal_frame { Rule::ExactFrame(frame) } else { Rule::Frame(frame) }
}

fn cfa(rule: CfaRule) -> Option<Cfa> {
    REGISTERS.cfa(rule).or_else(|| match rule {
        CfaRule::Register(..) => None,
        CfaRule::Expression(bytes) => match *operations(bytes)?.as_slice() {
            [
                Op::Register(RSP, 8),
                Op::Register(RIP, 0),
                Op::Constant(15),
                Op::And,
                Op::Constant(threshold @ 0..=15),
                Op::Ge,
                Op::Constant(3),
                Op::Shl,
                Op::Plus,
            ] => Some(Cfa::Plt { threshold: u8::try_from(threshold).ok()? }),
            [
                Op::Register(RSP, offset @ -2048..=2047),
                Op::Register(register, 0),
                Op::Constant(8),
                Op::Mul,
                Op::Plus,
                Op::Deref,
                Op::PlusConstant(addend),
            ] => Some(Cfa::DerefIndexed {
                register: REGISTERS.get(register)?,
                offset: i16::try_from(offset).ok()?,
                addend: i16::try_from(addend).ok()?,
            }),
            _ => None,
        },
    })
}

/// Whether this is the frame of `struct rt_sigframe`, as glibc, bionic and libgcc describe it.
fn is_restore_rt(row: &RowRules) -> bool {
    let CfaRule::Expression(cfa) = row.cfa else { return false };
    let at = |saved, place| match saved {
        SavedRule::Expression(bytes) => register_relative(bytes, RSP) == Some(place),
        _ => false,
    };
    operations(cfa).is_some_and(|cfa| *cfa == [Op::Register(RSP, 160), Op::Deref])
        && at(row.sp, 160)
        && at(row.fp, 120)
        && at(row.ra, 168)
}

#[cfg(test)]
mod tests {
    use super::super::frame::{SavedBase, SavedFp};
    use super::*;

    const PLAIN: RowRules = RowRules {
        cfa: CfaRule::Register(RSP, 8),
        sp: SavedRule::Unspecified,
        fp: SavedRule::Unspecified,
        base: None,
        ra: SavedRule::Offset(-8),
        is_signal_frame: false,
    };

    #[test]
    fn expressions_that_rules_need_are_understood() {
        let is = |bytes: &[u8], wanted| assert_eq!(cfa(CfaRule::Expression(bytes)), wanted, "{bytes:x?}");
        is(&[0x76, 0x78, 0x06], Some(Cfa::DerefFp { offset: -8, addend: 0 }));
        is(&[0x77, 0xa0, 0x01, 0x06], Some(Cfa::DerefSp { offset: 160, addend: 0 }));
        is(&[0x77, 0x10, 0x06, 0x23, 0x08], Some(Cfa::DerefSp { offset: 16, addend: 8 }));
        is(&[0x77, 0x10, 0x06, 0x38, 0x22], Some(Cfa::DerefSp { offset: 16, addend: 8 }));
        is(&[0x77, 0x10, 0x06, 0x09, 0xf8, 0x22], Some(Cfa::DerefSp { offset: 16, addend: -8 }));
        is(&[0x77, 0x10], Some(Cfa::Sp(16)));
        // OpenSSL's bn_mul_mont, whose numbers have r9 words.
        let r9 = REGISTERS.get(9).unwrap();
        let indexed = Cfa::DerefIndexed { register: r9, offset: 8, addend: 8 };
        is(&[0x77, 8, 0x79, 0, 0x38, 0x1e, 0x22, 0x06, 0x23, 8], Some(indexed));
        for threshold in [9, 10, 11] {
            let plt = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + threshold, 0x2a, 0x33, 0x24, 0x22];
            is(&plt, Some(Cfa::Plt { threshold }));
        }
    }

    #[test]
    fn expressions_that_no_rule_can_say_are_not_understood() {
        for bytes in [
            &[][..],
            &[0x06],
            &[0x76],                                                       // cut off
            &[0x76, 0x80],                                                 // cut off
            &[0x73, 0x00, 0x06],                                           // *(rbx)
            &[0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a],             // half a PLT
            &[0x77, 0x80, 0x80, 0x04, 0x06],                               // *(rsp + 65536)
            &[0x77, 0x80, 0x10, 0x79, 0, 0x38, 0x1e, 0x22, 0x06, 0x23, 8], // *(rsp + 2048 + 8 r9) + 8
            &[0x77, 8, 0x79, 0, 0x34, 0x1e, 0x22, 0x06, 0x23, 8],          // *(rsp + 8 + 4 r9) + 8
            &[0x77, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0x31; 33],
            &[0x96],
        ] {
            assert_eq!(cfa(CfaRule::Expression(bytes)), None, "{bytes:x?}");
        }
    }

    #[test]
    fn what_cannot_be_given_has_a_reason() {
        let reason = |row: RowRules| match rule(&row) {
            Rule::NotUnderstood(reason) => Some(reason),
            _ => None,
        };
        assert_eq!(reason(PLAIN), None);
        assert_eq!(reason(RowRules { cfa: CfaRule::Register(RSP, 1 << 31), ..PLAIN }), Some(Reason::Cfa));
        assert_eq!(reason(RowRules { cfa: CfaRule::Register(17, 8), ..PLAIN }), Some(Reason::Cfa));
        let ra = Some(Reason::ReturnAddress);
        assert_eq!(reason(RowRules { ra: SavedRule::Offset(-16), ..PLAIN }), ra);
        assert_eq!(reason(RowRules { ra: SavedRule::Same, ..PLAIN }), ra);
        assert_eq!(reason(RowRules { sp: SavedRule::Offset(48), ..PLAIN }), Some(Reason::StackPointer));
        assert_eq!(reason(RowRules { sp: SavedRule::ValueOffset(0), ..PLAIN }), None);
    }

    #[test]
    fn signal_frames_that_are_none_are_ordinary_but_exact() {
        let row = RowRules { is_signal_frame: true, ..PLAIN };
        let (Rule::Frame(plain), Rule::ExactFrame(exact)) = (rule(&PLAIN), rule(&row)) else {
            panic!("{:?}", rule(&row));
        };
        assert_eq!(plain, exact);
        assert_eq!(rule(&RowRules { ra: SavedRule::Undefined, ..row }), Rule::EndOfStack);
    }

    #[test]
    fn a_lost_frame_pointer_does_not_end_the_walk() {
        let fp = |fp| match rule(&RowRules { fp, ..PLAIN }) {
            Rule::Frame(frame) => frame.fp,
            other => panic!("{other:?}"),
        };
        assert_eq!(fp(SavedRule::Same), SavedFp::Same);
        assert_eq!(fp(SavedRule::Offset(-16)), SavedFp::AtCfa(-16));
        assert_eq!(fp(SavedRule::Expression(&[0x76, 0x00])), SavedFp::AtFp(0));
        assert_eq!(fp(SavedRule::Expression(&[0x77, 0x10])), SavedFp::AtSp(16));
        assert_eq!(fp(SavedRule::Register(9)), SavedFp::Register(REGISTERS.get(9).unwrap()));
        for lost in [
            SavedRule::Undefined,
            SavedRule::Other,
            SavedRule::ValueOffset(-16),
            SavedRule::Offset(1 << 40),
            SavedRule::Register(20),
            SavedRule::Expression(&[0x73, 0x00]),
        ] {
            assert_eq!(fp(lost), SavedFp::Lost, "{lost:?}");
        }
    }

    #[test]
    fn registers_have_names() {
        let cfa = Cfa::Register { register: REGISTERS.get(10).unwrap(), offset: 0 };
        let frame = Frame { cfa, fp: SavedFp::AtSp(8), base: SavedBase::Lost, ra: ReturnAddress::AtCfa(-8) };
        assert_eq!(REGISTERS.words(&frame), ["r10+0", "*(rsp+8)", "c-8"]);
        assert_eq!(REGISTERS.get(15).map(|register| register.number()), Some(15));
        assert_eq!(REGISTERS.get(16), None);
    }
}
