//! Rules as the BPF program reads them: see `bpf/unwind.h`.

use super::skeleton::types as abi;
use crate::elf::Machine;
use crate::unwind::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
use crate::unwind::x86_64::REGISTERS;
use crate::unwind::{Rule, Switch, aarch64};

/// Stands for a register in a rule that needs none.
const NO_REGISTER: i32 = abi::limits::LEAF_REGISTERS.0 as i32;

/// A rule that has no such form is not understood.
pub(super) fn encode(rule: Rule) -> abi::unwind_rule {
    let plain = |cfa: abi::cfa| abi::unwind_rule { cfa: cfa.0 as u8, ..Default::default() };
    let frame = match rule {
        Rule::Frame(frame) => frame,
        Rule::SignalFrame => return plain(abi::cfa::CFA_SIGNAL),
        Rule::Switch(switch) => {
            return plain(match switch {
                Switch::SystemStack => abi::cfa::CFA_SYSTEM_STACK,
                Switch::MoreStack => abi::cfa::CFA_MORE_STACK,
                Switch::CgoCall => abi::cfa::CFA_CGO_CALL,
                Switch::FramePointer => abi::cfa::CFA_OTHER_STACK,
            });
        }
        Rule::EndOfStack => return plain(abi::cfa::CFA_END),
        Rule::Uncovered => return plain(abi::cfa::CFA_UNCOVERED),
        Rule::NotUnderstood(_) => return plain(abi::cfa::CFA_NOT_UNDERSTOOD),
    };
    let encoded = match Machine::NATIVE {
        Machine::X86_64 => x86_64(&frame),
        Machine::Aarch64 => aarch64(&frame),
    };
    encoded.unwrap_or(plain(abi::cfa::CFA_NOT_UNDERSTOOD))
}

/// `cfa` and `offset` of a rule.
fn cfa(cfa: Cfa) -> (abi::cfa, i32) {
    let halves = |offset: i16, addend: i16| (i32::from(addend) << 16) | i32::from(offset.cast_unsigned());
    match cfa {
        Cfa::Sp(offset) => (abi::cfa::CFA_SP, offset),
        Cfa::Fp(offset) => (abi::cfa::CFA_FP, offset),
        Cfa::DerefSp { offset, addend } => (abi::cfa::CFA_DEREF_SP, halves(offset, addend)),
        Cfa::DerefFp { offset, addend } => (abi::cfa::CFA_DEREF_FP, halves(offset, addend)),
        Cfa::Plt { threshold } => (abi::cfa::CFA_PLT, threshold.into()),
        Cfa::Register { offset, .. } => (abi::cfa::CFA_REGISTER, offset),
    }
}

/// `saved_fp` and `fp_offset` of a rule.
fn saved_fp(frame: &Frame) -> (abi::saved_fp, i16) {
    let near = |at, offset: i32| Some((at, i16::try_from(offset).ok()?));
    let lost = (abi::saved_fp::SAVED_FP_UNDEFINED, 0);
    match (frame.fp, frame.cfa) {
        (SavedFp::Same, _) => (abi::saved_fp::SAVED_FP_SAME, 0),
        (SavedFp::AtFp(offset), _) => (abi::saved_fp::SAVED_FP_AT_FP, offset),
        (SavedFp::AtSp(offset), _) => (abi::saved_fp::SAVED_FP_AT_SP, offset),
        (SavedFp::AtCfa(offset), cfa) => near(abi::saved_fp::SAVED_FP_AT_CFA, offset)
            .or_else(|| match cfa {
                // At the other end of a large frame.
                Cfa::Sp(size) => near(abi::saved_fp::SAVED_FP_AT_SP, offset.checked_add(size)?),
                Cfa::Fp(size) => near(abi::saved_fp::SAVED_FP_AT_FP, offset.checked_add(size)?),
                _ => None,
            })
            .unwrap_or(lost),
        (SavedFp::Register(_) | SavedFp::Lost, _) => lost,
    }
}

fn x86_64(frame: &Frame) -> Option<abi::unwind_rule> {
    let (saved_fp, fp_offset) = saved_fp(frame);
    let (cfa, offset) = cfa(frame.cfa);
    let saved_bx = match frame.base {
        SavedBase::Lost => 0,
        SavedBase::Same => 1,
        SavedBase::AtCfa(eights) => eights,
    };
    let saved = saved_fp.0 as u8 | saved_bx << 4;
    let rule = |cfa: abi::cfa, offset| abi::unwind_rule { cfa: cfa.0 as u8, saved, fp_offset, offset };
    // A register that only the leaf has: see LEAF_RULE_CFA in profile.h.
    let return_register = match frame.ra {
        ReturnAddress::AtCfa(_) => NO_REGISTER,
        ReturnAddress::Register(register) => i32::from(register.number()),
    };
    if return_register == NO_REGISTER && cfa != abi::cfa::CFA_REGISTER {
        return Some(rule(cfa, offset));
    }
    let cfa_register = match frame.cfa {
        Cfa::Sp(_) => REGISTERS.sp.into(),
        Cfa::Fp(_) => REGISTERS.fp.into(),
        Cfa::Register { register, .. } => i32::from(register.number()),
        _ => return None,
    };
    let added = offset << abi::limits::LEAF_RULE_ADDED_SHIFT.0;
    if added >> abi::limits::LEAF_RULE_ADDED_SHIFT.0 != offset {
        return None;
    }
    let return_register = return_register << abi::limits::LEAF_RULE_RETURN_ADDRESS_SHIFT.0;
    Some(rule(abi::cfa::CFA_REGISTER, added | return_register | cfa_register))
}

/// See `caller_of` in unwind.h.
fn aarch64(frame: &Frame) -> Option<abi::unwind_rule> {
    /// Between the halves of a frame record.
    const RETURN_ADDRESS: i32 = 8;
    let (cfa, offset) = cfa(frame.cfa);
    let (saved_fp, fp_offset) = match (frame.fp, frame.ra) {
        (SavedFp::Same, ReturnAddress::AtCfa(at)) => {
            let at = i16::try_from(at).ok().filter(|at| *at != 0)?;
            (abi::saved_fp::SAVED_FP_SAME, at)
        }
        (SavedFp::AtCfa(fp), ReturnAddress::AtCfa(at)) if at == fp + RETURN_ADDRESS => saved_fp(frame),
        (SavedFp::Same, ReturnAddress::Register(x30)) if u16::from(x30.number()) == aarch64::REGISTERS.ra => {
            (abi::saved_fp::SAVED_FP_SAME, 0)
        }
        _ => return None,
    };
    let is_known = matches!(cfa, abi::cfa::CFA_SP | abi::cfa::CFA_FP);
    let rule = abi::unwind_rule { cfa: cfa.0 as u8, saved: saved_fp.0 as u8, fp_offset, offset };
    is_known.then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_records_of_arm() {
        let encoded = |cfa, fp, ra| {
            aarch64(&Frame { cfa, fp, base: SavedBase::Lost, ra })
                .map(|rule| (u32::from(rule.cfa), u32::from(rule.saved), rule.fp_offset, rule.offset))
        };
        let (sp, fp) = (abi::cfa::CFA_SP.0, abi::cfa::CFA_FP.0);
        let x30 = ReturnAddress::Register(aarch64::REGISTERS.get(30).unwrap());
        let same = abi::saved_fp::SAVED_FP_SAME.0;
        assert_eq!(encoded(Cfa::Sp(0), SavedFp::Same, x30), Some((sp, same, 0, 0)));
        assert_eq!(encoded(Cfa::Sp(16), SavedFp::Same, ReturnAddress::AtCfa(-16)), Some((sp, same, -16, 16)));
        let pair = (SavedFp::AtCfa(-48), ReturnAddress::AtCfa(-40));
        let at_cfa = abi::saved_fp::SAVED_FP_AT_CFA.0;
        assert_eq!(encoded(Cfa::Fp(48), pair.0, pair.1), Some((fp, at_cfa, -48, 48)));
        // The record of a large frame is near its stack pointer.
        let large = (SavedFp::AtCfa(-70_016), ReturnAddress::AtCfa(-70_008));
        let at_sp = abi::saved_fp::SAVED_FP_AT_SP.0;
        assert_eq!(encoded(Cfa::Sp(70_032), large.0, large.1), Some((sp, at_sp, 16, 70_032)));
        // Apart from each other.
        assert_eq!(encoded(Cfa::Sp(48), SavedFp::AtCfa(-48), ReturnAddress::AtCfa(-8)), None);
        assert_eq!(encoded(Cfa::Sp(48), SavedFp::AtCfa(-48), x30), None);
    }
}
