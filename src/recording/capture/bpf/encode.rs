//! Rules as the BPF program reads them: see `bpf/unwind.h`.

use super::skeleton::types as abi;
use crate::elf::Machine;
use crate::unwind::frame::{Cfa, Frame, ReturnAddress, SavedBase, SavedFp};
use crate::unwind::x86_64::REGISTERS;
use crate::unwind::{Reason, Rule, Switch, aarch64};

/// Stands for a register in a rule that needs none.
const NO_REGISTER: i32 = abi::limits::LEAF_REGISTERS.0 as i32;

/// The macros of profile.h.
const SAVED_PC_EXACT: u8 = 8;
const CFA_OF_LOOP: u8 = 0x80;

/// A rule that has no such form is not understood.
pub(super) fn encode(rule: Rule) -> abi::unwind_rule {
    let plain = |cfa: abi::cfa| abi::unwind_rule { cfa: cfa.0 as u8, ..Default::default() };
    let frame = match rule {
        Rule::Frame(frame) | Rule::ExactFrame(frame) | Rule::LoopFrame(frame) | Rule::JavaFrame(frame) => {
            frame
        }
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
        Rule::Soon => return plain(abi::cfa::CFA_SOON),
        Rule::Uncovered => return plain(abi::cfa::CFA_UNCOVERED),
        Rule::NotUnderstood(_) => return plain(abi::cfa::CFA_NOT_UNDERSTOOD),
    };
    let encoded = match Machine::NATIVE {
        Machine::X86_64 | Machine::I386 => x86_64(&frame),
        Machine::Aarch64 => aarch64(&frame),
    };
    let mut encoded = encoded.unwrap_or(plain(abi::cfa::CFA_NOT_UNDERSTOOD));
    match rule {
        Rule::ExactFrame(_) => encoded.saved |= SAVED_PC_EXACT,
        Rule::LoopFrame(_) => encoded.cfa |= CFA_OF_LOOP,
        // Both: see IS_JAVA in profile.h.
        Rule::JavaFrame(_) => {
            encoded.cfa |= CFA_OF_LOOP;
            encoded.saved |= SAVED_PC_EXACT;
        }
        _ => {}
    }
    encoded
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
        // See INDEXED_RULE_REGISTER in profile.h.
        Cfa::DerefIndexed { register, offset, addend } => {
            (abi::cfa::CFA_DEREF_INDEXED, halves(offset << 4 | i16::from(register.number()), addend))
        }
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
        (SavedFp::Register(register), _) => (abi::saved_fp::SAVED_FP_REGISTER, register.number().into()),
        (SavedFp::Lost, _) => lost,
    }
}

fn x86_64(frame: &Frame) -> Option<abi::unwind_rule> {
    if let ReturnAddress::AtSp(ip) = frame.ra {
        return signal_32(frame, ip);
    }
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
        ReturnAddress::AtCfa(_) | ReturnAddress::AtSp(_) => NO_REGISTER,
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

/// See bits32.h.
fn signal_32(frame: &Frame, ip: i16) -> Option<abi::unwind_rule> {
    let (Cfa::DerefSp { offset: sp, addend: 0 }, SavedFp::AtSp(fp_offset)) = (frame.cfa, frame.fp) else {
        return None;
    };
    let offset = i32::from(ip) << 16 | i32::from(sp.cast_unsigned());
    let saved = abi::saved_fp::SAVED_FP_AT_SP.0 as u8;
    Some(abi::unwind_rule { cfa: abi::cfa::CFA_SIGNAL.0 as u8, saved, fp_offset, offset })
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

/// The rule that an encoded one stands for. Only the leaf has other registers than sp and fp, so that
/// a frame pointer in one of them is lost here; and why a rule is not understood is not kept.
pub(super) fn decode(rule: &abi::unwind_rule) -> Rule {
    let in_loop = rule.cfa & CFA_OF_LOOP != 0;
    let rule = &abi::unwind_rule { cfa: rule.cfa & !CFA_OF_LOOP, ..*rule };
    let switch = match abi::cfa(rule.cfa.into()) {
        abi::cfa::CFA_UNCOVERED => return Rule::Uncovered,
        abi::cfa::CFA_END => return Rule::EndOfStack,
        abi::cfa::CFA_SOON => return Rule::Soon,
        abi::cfa::CFA_SIGNAL => return Rule::SignalFrame,
        abi::cfa::CFA_SYSTEM_STACK => Some(Switch::SystemStack),
        abi::cfa::CFA_MORE_STACK => Some(Switch::MoreStack),
        abi::cfa::CFA_CGO_CALL => Some(Switch::CgoCall),
        abi::cfa::CFA_OTHER_STACK => Some(Switch::FramePointer),
        _ => None,
    };
    let is_exact = rule.saved & SAVED_PC_EXACT != 0;
    let kind = match (is_exact, in_loop) {
        (true, true) => Rule::JavaFrame,
        (true, false) => Rule::ExactFrame,
        (false, true) => Rule::LoopFrame,
        (false, false) => Rule::Frame,
    };
    let frame = || decoded_frame(rule).map(kind);
    switch.map(Rule::Switch).or_else(frame).unwrap_or(NOT_UNDERSTOOD)
}

const NOT_UNDERSTOOD: Rule = Rule::NotUnderstood(Reason::Cfa);

fn decoded_frame(rule: &abi::unwind_rule) -> Option<Frame> {
    let registers = Machine::NATIVE.registers();
    let register = |number: i32| registers.get(number as u16);
    let (offset, low, high) = (rule.offset, rule.offset as i16, (rule.offset >> 16) as i16);
    let last = NO_REGISTER - 1;
    let mut ra = None;
    let cfa = match abi::cfa(rule.cfa.into()) {
        abi::cfa::CFA_SP => Cfa::Sp(offset),
        abi::cfa::CFA_FP => Cfa::Fp(offset),
        abi::cfa::CFA_DEREF_SP => Cfa::DerefSp { offset: low, addend: high },
        abi::cfa::CFA_DEREF_FP => Cfa::DerefFp { offset: low, addend: high },
        abi::cfa::CFA_PLT => Cfa::Plt { threshold: offset as u8 },
        abi::cfa::CFA_DEREF_INDEXED => {
            Cfa::DerefIndexed { register: register(offset & last)?, offset: low >> 4, addend: high }
        }
        abi::cfa::CFA_REGISTER => {
            let returned = (offset >> abi::limits::LEAF_RULE_RETURN_ADDRESS_SHIFT.0) & (2 * NO_REGISTER - 1);
            ra = (returned < NO_REGISTER).then(|| register(returned)).flatten();
            let added = offset >> abi::limits::LEAF_RULE_ADDED_SHIFT.0;
            match (offset & last) as u16 {
                sp if sp == registers.sp => Cfa::Sp(added),
                fp if fp == registers.fp => Cfa::Fp(added),
                other => Cfa::Register { register: registers.get(other)?, offset: added },
            }
        }
        _ => return None,
    };
    let fp = match abi::saved_fp(u32::from(rule.saved & (SAVED_PC_EXACT - 1))) {
        abi::saved_fp::SAVED_FP_SAME => SavedFp::Same,
        abi::saved_fp::SAVED_FP_AT_CFA => SavedFp::AtCfa(rule.fp_offset.into()),
        abi::saved_fp::SAVED_FP_AT_FP => SavedFp::AtFp(rule.fp_offset),
        abi::saved_fp::SAVED_FP_AT_SP => SavedFp::AtSp(rule.fp_offset),
        _ => SavedFp::Lost,
    };
    let (base, ra) = match (Machine::NATIVE, fp) {
        (Machine::X86_64 | Machine::I386, _) => {
            let base = match rule.saved >> 4 {
                0 => SavedBase::Lost,
                1 => SavedBase::Same,
                eights => SavedBase::AtCfa(eights),
            };
            (base, ra.map_or(ReturnAddress::AtCfa(-8), ReturnAddress::Register))
        }
        (Machine::Aarch64, SavedFp::AtCfa(at)) => (SavedBase::Lost, ReturnAddress::AtCfa(at + 8)),
        (Machine::Aarch64, _) if rule.fp_offset != 0 => {
            (SavedBase::Lost, ReturnAddress::AtCfa(rule.fp_offset.into()))
        }
        (Machine::Aarch64, _) => (SavedBase::Lost, ReturnAddress::Register(register(30)?)),
    };
    Some(Frame { cfa, fp, base, ra })
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

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn what_is_encoded_can_be_read_back() {
        let [r9, rbx, rcx] = [9, 3, 2].map(|number| REGISTERS.get(number).unwrap());
        let mut rules = vec![Rule::Uncovered, Rule::EndOfStack, Rule::SignalFrame, NOT_UNDERSTOOD];
        rules.extend([Switch::SystemStack, Switch::MoreStack, Switch::CgoCall].map(Rule::Switch));
        rules.push(Rule::Switch(Switch::FramePointer));
        for cfa in [
            Cfa::Sp(540_088),
            Cfa::Fp(-16),
            Cfa::DerefSp { offset: -8, addend: 64 },
            Cfa::DerefFp { offset: 8, addend: -8 },
            Cfa::Plt { threshold: 11 },
            Cfa::Register { register: rbx, offset: -4096 },
            Cfa::DerefIndexed { register: r9, offset: 2047, addend: -8 },
            Cfa::DerefIndexed { register: rbx, offset: -2048, addend: 8 },
        ] {
            for fp in [SavedFp::Same, SavedFp::AtCfa(-16), SavedFp::AtFp(0), SavedFp::AtSp(88), SavedFp::Lost]
            {
                for base in [SavedBase::Lost, SavedBase::Same, SavedBase::AtCfa(15)] {
                    rules.push(Rule::Frame(Frame { cfa, fp, base, ra: ReturnAddress::AtCfa(-8) }));
                }
            }
        }
        for cfa in [Cfa::Sp(8), Cfa::Fp(16), Cfa::Register { register: r9, offset: 0 }] {
            let ra = ReturnAddress::Register(rcx);
            rules.push(Rule::Frame(Frame { cfa, fp: SavedFp::Same, base: SavedBase::Lost, ra }));
        }
        for rule in rules {
            assert_eq!(decode(&encode(rule)), rule);
        }
    }
}
