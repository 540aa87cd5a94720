//! The frames of 64-bit ARM: which rules its code has, and how DWARF writes them.
//!
//! A call leaves the return address in x30. A function that calls others stores it, beside the
//! caller's x29 as a pair wherever compilers have a say; one that does not is a leaf, and so is any
//! function in its first instructions. Return addresses may be signed: their high bits are for the
//! walk to remove, so that the rows of `DW_CFA_AARCH64_negate_ra_state` need no rule of their own.
//!
//! [`Rule::SignalFrame`] is the vDSO's `__kernel_rt_sigreturn`, to which a signal handler returns.
//! It describes the frame record that the kernel has put above its `struct rt_sigframe`, and that
//! lacks the interrupted code's x30. In the structure itself, at sp, are all registers.
//!
//! `_start` and `clone` declare x30 undefined, which is how a stack ends.

use super::dwarf::{CfaRule, RowRules, SavedRule};
use super::frame::{Frame, Registers, ReturnAddress, SavedBase};
use super::{Reason, Rule};

const X29: u16 = 29;

/// By the DWARF for the Arm 64-bit Architecture, section 4.1.
pub const REGISTERS: Registers = Registers {
    sp: 31,
    fp: X29,
    base: 30, // of the leaf alone
    ra: 30,
    names: &[
        "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
        "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29",
        "x30", "sp",
    ],
};

/// The rule that a row comes to.
pub fn rule(row: &RowRules) -> Rule {
    if row.is_signal_frame {
        let is_record = matches!(
            (row.cfa, row.fp, row.ra),
            (CfaRule::Register(X29, 0), SavedRule::Offset(0), SavedRule::Offset(8))
        );
        return if is_record { Rule::SignalFrame } else { Rule::NotUnderstood(Reason::SignalFrame) };
    }
    let ra = match row.ra {
        SavedRule::Undefined => return Rule::EndOfStack,
        SavedRule::Unspecified | SavedRule::Same => REGISTERS.get(REGISTERS.ra).map(ReturnAddress::Register),
        SavedRule::Register(register) => REGISTERS.get(register).map(ReturnAddress::Register),
        SavedRule::Offset(offset) => i32::try_from(offset).ok().map(ReturnAddress::AtCfa),
        _ => None,
    };
    let Some(ra) = ra else { return Rule::NotUnderstood(Reason::ReturnAddress) };
    if !matches!(row.sp, SavedRule::Unspecified | SavedRule::ValueOffset(0)) {
        return Rule::NotUnderstood(Reason::StackPointer);
    }
    let Some(cfa) = REGISTERS.cfa(row.cfa) else { return Rule::NotUnderstood(Reason::Cfa) };
    Rule::Frame(Frame { cfa, fp: REGISTERS.saved_fp(row.fp), base: SavedBase::Lost, ra })
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Cfa, SavedFp};
    use super::*;

    const ENTRY: RowRules = RowRules {
        cfa: CfaRule::Register(31, 0),
        sp: SavedRule::Unspecified,
        fp: SavedRule::Unspecified,
        base: None,
        ra: SavedRule::Unspecified,
        is_signal_frame: false,
    };

    #[test]
    fn return_addresses_are_where_the_function_has_put_them() {
        let frame = |row: RowRules| match rule(&row) {
            Rule::Frame(frame) => REGISTERS.words(&frame).join(" "),
            other => format!("{other:?}"),
        };
        assert_eq!(frame(ENTRY), "sp+0 u x30");
        let stored = RowRules {
            cfa: CfaRule::Register(31, 48),
            fp: SavedRule::Offset(-48),
            ra: SavedRule::Offset(-40),
            ..ENTRY
        };
        assert_eq!(frame(stored), "sp+48 c-48 c-40");
        assert_eq!(frame(RowRules { cfa: CfaRule::Register(X29, 48), ..stored }), "x29+48 c-48 c-40");
        assert_eq!(frame(RowRules { ra: SavedRule::Offset(-16), ..ENTRY }), "sp+0 u c-16");
        assert_eq!(frame(RowRules { ra: SavedRule::Register(9), ..ENTRY }), "sp+0 u x9");
        assert_eq!(rule(&RowRules { ra: SavedRule::Undefined, ..ENTRY }), Rule::EndOfStack);
        let reason = Rule::NotUnderstood(Reason::ReturnAddress);
        assert_eq!(rule(&RowRules { ra: SavedRule::ValueOffset(8), ..ENTRY }), reason);
    }

    #[test]
    fn only_the_kernels_frame_record_is_a_signal_frame() {
        let trampoline = RowRules {
            cfa: CfaRule::Register(X29, 0),
            fp: SavedRule::Offset(0),
            ra: SavedRule::Offset(8),
            is_signal_frame: true,
            ..ENTRY
        };
        assert_eq!(rule(&trampoline), Rule::SignalFrame);
        let other = RowRules { ra: SavedRule::Offset(16), ..trampoline };
        assert_eq!(rule(&other), Rule::NotUnderstood(Reason::SignalFrame));
        let Rule::Frame(frame) = rule(&RowRules { is_signal_frame: false, ..trampoline }) else {
            panic!("not a frame");
        };
        assert_eq!((frame.cfa, frame.fp), (Cfa::Fp(0), SavedFp::AtCfa(0)));
    }
}
