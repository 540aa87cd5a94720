//! The frames of x86-64: which rules its code has, and how DWARF writes them.
//!
//! With `rsp`, `rbp`, `rip` of a frame and *x = the eight bytes at address x, a [`Frame`] says
//!
//! ```text
//! Cfa::Rsp(o)                  cfa = rsp + o
//! Cfa::Rbp(o)                  cfa = rbp + o
//! Cfa::DerefRsp { o, a }       cfa = *(rsp + o) + a
//! Cfa::DerefRbp { o, a }       cfa = *(rbp + o) + a
//! Cfa::Plt { t }               cfa = rsp + 8 + ((rip & 15) >= t ? 8 : 0)
//! Cfa::Register { r, o }       cfa = r + o                       leaf only
//!
//! SavedRbp::Same               caller's rbp = rbp
//! SavedRbp::AtCfa(o)           caller's rbp = *(cfa + o)
//! SavedRbp::AtRbp(o)           caller's rbp = *(rbp + o)
//! SavedRbp::AtRsp(o)           caller's rbp = *(rsp + o)
//! SavedRbp::Register(r)        caller's rbp = r                  leaf only
//! SavedRbp::Lost               not known
//!
//! ReturnAddress::AtCfa         caller's rip = *(cfa - 8)
//! ReturnAddress::Register(r)   caller's rip = r                  leaf only
//!
//! always                       caller's rsp = cfa
//! ```
//!
//! *Leaf only*: a call may change any register but rbx, rbp, rsp and r12 to r15, and of these only
//! rsp and rbp are followed through the callers. So the rule holds where the registers come from
//! the kernel: at the leaf, and below a signal frame if one restores them all.
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

use std::fmt;

use super::{Reason, Rule};

/// DWARF's number of the frame pointer (System V ABI, figure 3.36).
pub const RBP: u16 = 6;
/// DWARF's number of the stack pointer.
pub const RSP: u16 = 7;
/// DWARF's number of the return address.
pub const RIP: u16 = 16;

const NAMES: [&str; 16] = [
    "rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// A general register by its DWARF number, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(u8);

impl Register {
    fn new(number: u16) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| usize::from(*number) < NAMES.len()).map(Self)
    }

    /// The DWARF number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Where the frame's canonical frame address is: the caller's rsp after the return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// `rsp + o`. 32 bits, as rustc has frames of half a megabyte.
    Rsp(i32),
    /// `rbp + o`
    Rbp(i32),
    /// `*(rsp + offset) + addend`
    DerefRsp {
        /// Added to rsp.
        offset: i16,
        /// Added to what is there.
        addend: i16,
    },
    /// `*(rbp + offset) + addend`: functions that align their stack to more than 16 bytes.
    DerefRbp {
        /// Added to rbp.
        offset: i16,
        /// Added to what is there.
        addend: i16,
    },
    /// `rsp + 8`, and 8 more from byte `threshold` of each 16-byte PLT entry on, where the entry
    /// has pushed its relocation's index: 11, or with IBT 9 or 10.
    Plt {
        /// The first byte after the push.
        threshold: u8,
    },
    /// Another register; leaf only.
    Register {
        /// Which.
        register: Register,
        /// Added to it.
        offset: i32,
    },
}

/// Where the caller's rbp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SavedRbp {
    /// Untouched.
    Same,
    /// `*(cfa + o)`
    AtCfa(i16),
    /// `*(rbp + o)`: functions that align their stack.
    AtRbp(i16),
    /// `*(rsp + o)`: hand-written code that aligns its stack without a frame pointer.
    AtRsp(i16),
    /// In another register; leaf only.
    Register(Register),
    /// Nowhere, or where no rule here can say. The walk goes on until a frame needs it.
    Lost,
}

/// Where the return address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnAddress {
    /// `*(cfa - 8)`
    AtCfa,
    /// In a register; leaf only.
    Register(Register),
}

/// How to get from a frame to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The caller's rsp.
    pub cfa: Cfa,
    /// The caller's rbp.
    pub rbp: SavedRbp,
    /// The caller's rip.
    pub ra: ReturnAddress,
}

/// How a row of call frame information gives the CFA.
#[derive(Clone, Copy, Debug)]
pub enum CfaRule<'a> {
    /// A register, by DWARF number, plus an offset.
    Register(u16, i64),
    /// A DWARF expression.
    Expression(&'a [u8]),
}

/// How a row gives a register's value in the caller.
#[derive(Clone, Copy, Debug)]
pub enum SavedRule<'a> {
    /// The row does not mention it.
    Unspecified,
    /// Declared to be nowhere.
    Undefined,
    /// Declared untouched.
    Same,
    /// At CFA + offset.
    Offset(i64),
    /// It is CFA + offset.
    ValueOffset(i64),
    /// In this register.
    Register(u16),
    /// At the address that a DWARF expression gives.
    Expression(&'a [u8]),
    /// Anything else.
    Other,
}

/// What a row says of the registers that are followed.
#[derive(Clone, Copy, Debug)]
pub struct RowRules<'a> {
    /// The CFA.
    pub cfa: CfaRule<'a>,
    /// rsp.
    pub rsp: SavedRule<'a>,
    /// rbp.
    pub rbp: SavedRule<'a>,
    /// The return address.
    pub ra: SavedRule<'a>,
    /// Whether the CIE is marked as a signal frame's ('S').
    pub is_signal_frame: bool,
}

/// The rule that a row comes to.
pub fn rule(row: &RowRules) -> Rule {
    if row.is_signal_frame {
        return if is_restore_rt(row) { Rule::SignalFrame } else { Rule::NotUnderstood(Reason::SignalFrame) };
    }
    let ra = match row.ra {
        SavedRule::Unspecified | SavedRule::Undefined => return Rule::EndOfStack,
        SavedRule::Offset(-8) => Some(ReturnAddress::AtCfa),
        SavedRule::Register(register) => Register::new(register).map(ReturnAddress::Register),
        _ => None,
    };
    let Some(ra) = ra else { return Rule::NotUnderstood(Reason::ReturnAddress) };
    // The caller's rsp is the CFA unless a row says otherwise, and then it goes elsewhere.
    if !matches!(row.rsp, SavedRule::Unspecified | SavedRule::ValueOffset(0)) {
        return Rule::NotUnderstood(Reason::StackPointer);
    }
    let Some(cfa) = cfa(row.cfa) else { return Rule::NotUnderstood(Reason::Cfa) };
    Rule::Frame(Frame { cfa, rbp: saved_rbp(row.rbp), ra })
}

fn cfa(rule: CfaRule) -> Option<Cfa> {
    match rule {
        CfaRule::Register(register, offset) => {
            let offset = i32::try_from(offset).ok()?;
            Some(match register {
                RSP => Cfa::Rsp(offset),
                RBP => Cfa::Rbp(offset),
                other => Cfa::Register { register: Register::new(other)?, offset },
            })
        }
        CfaRule::Expression(bytes) => match *operations(bytes)?.as_slice() {
            [Op::Register(register, offset)] => cfa(CfaRule::Register(register, offset)),
            [Op::Register(register, offset), Op::Deref] => deref(register, offset, 0),
            [Op::Register(register, offset), Op::Deref, Op::PlusConstant(addend)]
            | [Op::Register(register, offset), Op::Deref, Op::Constant(addend), Op::Plus] => {
                deref(register, offset, addend)
            }
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
            _ => None,
        },
    }
}

fn deref(register: u16, offset: i64, addend: i64) -> Option<Cfa> {
    let (offset, addend) = (i16::try_from(offset).ok()?, i16::try_from(addend).ok()?);
    match register {
        RSP => Some(Cfa::DerefRsp { offset, addend }),
        RBP => Some(Cfa::DerefRbp { offset, addend }),
        _ => None,
    }
}

fn saved_rbp(rule: SavedRule) -> SavedRbp {
    let saved = match rule {
        SavedRule::Unspecified | SavedRule::Same => Some(SavedRbp::Same),
        SavedRule::Offset(offset) => i16::try_from(offset).ok().map(SavedRbp::AtCfa),
        SavedRule::Register(RBP) => Some(SavedRbp::Same),
        SavedRule::Register(register) => Register::new(register).map(SavedRbp::Register),
        SavedRule::Expression(bytes) => {
            let at = |register| i16::try_from(register_relative(bytes, register)?).ok();
            at(RBP).map(SavedRbp::AtRbp).or_else(|| at(RSP).map(SavedRbp::AtRsp))
        }
        SavedRule::Undefined | SavedRule::ValueOffset(_) | SavedRule::Other => None,
    };
    saved.unwrap_or(SavedRbp::Lost)
}

/// Whether this is the frame of `struct rt_sigframe`, as glibc, bionic and libgcc describe it.
fn is_restore_rt(row: &RowRules) -> bool {
    let CfaRule::Expression(cfa) = row.cfa else { return false };
    let at = |saved, place| match saved {
        SavedRule::Expression(bytes) => register_relative(bytes, RSP) == Some(place),
        _ => false,
    };
    operations(cfa).is_some_and(|cfa| *cfa == [Op::Register(RSP, 160), Op::Deref])
        && at(row.rsp, 160)
        && at(row.rbp, 120)
        && at(row.ra, 168)
}

/// The offset, if the expression is `register + offset`.
fn register_relative(bytes: &[u8], register: u16) -> Option<i64> {
    match *operations(bytes)?.as_slice() {
        [Op::Register(r, offset)] if r == register => Some(offset),
        _ => None,
    }
}

/// The operations of DWARF expressions that occur in the rules above.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Register(u16, i64),
    Constant(i64),
    PlusConstant(i64),
    Deref,
    And,
    Ge,
    Plus,
    Shl,
}

/// Decodes an expression; none if it has an operation that no rule needs. The codes are those of
/// DWARF 5, section 7.7.1.
fn operations(bytes: &[u8]) -> Option<Vec<Op>> {
    // The longest pattern has 11 bytes; LEB128 may be padded.
    const LONGEST: usize = 32;
    if bytes.len() > LONGEST {
        return None;
    }
    let mut rest = bytes.iter().copied();
    let mut operations = Vec::new();
    while let Some(code) = rest.next() {
        operations.push(match code {
            0x06 => Op::Deref,
            0x08 => Op::Constant(rest.next()?.into()),
            0x09 => Op::Constant(rest.next()?.cast_signed().into()),
            0x0a => Op::Constant(u16::from_le_bytes([rest.next()?, rest.next()?]).into()),
            0x0b => Op::Constant(i16::from_le_bytes([rest.next()?, rest.next()?]).into()),
            0x10 => Op::Constant(leb128(&mut rest, false)?),
            0x11 => Op::Constant(leb128(&mut rest, true)?),
            0x1a => Op::And,
            0x22 => Op::Plus,
            0x23 => Op::PlusConstant(leb128(&mut rest, false)?),
            0x24 => Op::Shl,
            0x2a => Op::Ge,
            0x30..=0x4f => Op::Constant((code - 0x30).into()),
            0x70..=0x8f => Op::Register((code - 0x70).into(), leb128(&mut rest, true)?),
            _ => return None,
        });
    }
    Some(operations)
}

/// A LEB128 number below 2^62 in size; no rule has a larger one.
fn leb128(bytes: &mut impl Iterator<Item = u8>, signed: bool) -> Option<i64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = bytes.next()?;
        value |= i64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let negative = signed && byte & 0x40 != 0;
            return Some(if negative { value | (-1 << (shift + 7)) } else { value });
        }
    }
    None
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(NAMES[usize::from(self.0)])
    }
}

impl fmt::Display for Cfa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match *self {
            Self::Rsp(offset) => format!("rsp{offset:+}"),
            Self::Rbp(offset) => format!("rbp{offset:+}"),
            Self::DerefRsp { offset, addend } => format!("*(rsp{offset:+}){addend:+}"),
            Self::DerefRbp { offset, addend } => format!("*(rbp{offset:+}){addend:+}"),
            Self::Plt { threshold } => format!("plt({threshold})"),
            Self::Register { register, offset } => format!("{register}{offset:+}"),
        })
    }
}

impl fmt::Display for SavedRbp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match *self {
            Self::Same => "u".to_owned(),
            Self::AtCfa(offset) => format!("c{offset:+}"),
            Self::AtRbp(offset) => format!("*(rbp{offset:+})"),
            Self::AtRsp(offset) => format!("*(rsp{offset:+})"),
            Self::Register(register) => register.to_string(),
            Self::Lost => "lost".to_owned(),
        })
    }
}

impl fmt::Display for ReturnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtCfa => f.pad("c-8"),
            Self::Register(register) => register.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: RowRules = RowRules {
        cfa: CfaRule::Register(RSP, 8),
        rsp: SavedRule::Unspecified,
        rbp: SavedRule::Unspecified,
        ra: SavedRule::Offset(-8),
        is_signal_frame: false,
    };

    #[test]
    fn expressions_that_rules_need_are_understood() {
        let is = |bytes: &[u8], wanted| assert_eq!(cfa(CfaRule::Expression(bytes)), wanted, "{bytes:x?}");
        is(&[0x76, 0x78, 0x06], Some(Cfa::DerefRbp { offset: -8, addend: 0 }));
        is(&[0x77, 0xa0, 0x01, 0x06], Some(Cfa::DerefRsp { offset: 160, addend: 0 }));
        is(&[0x77, 0x10, 0x06, 0x23, 0x08], Some(Cfa::DerefRsp { offset: 16, addend: 8 }));
        is(&[0x77, 0x10, 0x06, 0x38, 0x22], Some(Cfa::DerefRsp { offset: 16, addend: 8 }));
        is(&[0x77, 0x10, 0x06, 0x09, 0xf8, 0x22], Some(Cfa::DerefRsp { offset: 16, addend: -8 }));
        is(&[0x77, 0x10], Some(Cfa::Rsp(16)));
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
            &[0x76],                                           // cut off
            &[0x76, 0x80],                                     // cut off
            &[0x73, 0x00, 0x06],                               // *(rbx)
            &[0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a], // half a PLT
            &[0x77, 0x80, 0x80, 0x04, 0x06],                   // *(rsp + 65536)
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
        assert_eq!(reason(RowRules { rsp: SavedRule::Offset(48), ..PLAIN }), Some(Reason::StackPointer));
        assert_eq!(reason(RowRules { rsp: SavedRule::ValueOffset(0), ..PLAIN }), None);
        assert_eq!(reason(RowRules { is_signal_frame: true, ..PLAIN }), Some(Reason::SignalFrame));
    }

    #[test]
    fn a_lost_frame_pointer_does_not_end_the_walk() {
        let rbp = |rbp| match rule(&RowRules { rbp, ..PLAIN }) {
            Rule::Frame(frame) => frame.rbp,
            other => panic!("{other:?}"),
        };
        assert_eq!(rbp(SavedRule::Same), SavedRbp::Same);
        assert_eq!(rbp(SavedRule::Offset(-16)), SavedRbp::AtCfa(-16));
        assert_eq!(rbp(SavedRule::Expression(&[0x76, 0x00])), SavedRbp::AtRbp(0));
        assert_eq!(rbp(SavedRule::Expression(&[0x77, 0x10])), SavedRbp::AtRsp(16));
        assert_eq!(rbp(SavedRule::Register(9)), SavedRbp::Register(Register(9)));
        for lost in [
            SavedRule::Undefined,
            SavedRule::Other,
            SavedRule::ValueOffset(-16),
            SavedRule::Offset(1 << 20),
            SavedRule::Register(20),
            SavedRule::Expression(&[0x73, 0x00]),
        ] {
            assert_eq!(rbp(lost), SavedRbp::Lost, "{lost:?}");
        }
    }

    #[test]
    fn registers_have_names() {
        let cfa = Cfa::Register { register: Register(10), offset: 0 };
        assert_eq!(format!("[{cfa:>8}]"), "[   r10+0]");
        assert_eq!(Register::new(15).map(|register| register.number()), Some(15));
        assert_eq!(Register::new(16), None);
    }
}
