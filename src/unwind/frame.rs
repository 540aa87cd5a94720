//! The vocabulary of rules: how to get from a frame's registers to its caller's.
//!
//! With `sp`, `fp` and `pc` the stack pointer, frame pointer and instruction of a frame, and *x the
//! eight bytes at address x, a [`Frame`] says
//!
//! ```text
//! Cfa::Sp(o)                   cfa = sp + o
//! Cfa::Fp(o)                   cfa = fp + o
//! Cfa::DerefSp { o, a }        cfa = *(sp + o) + a
//! Cfa::DerefFp { o, a }        cfa = *(fp + o) + a
//! Cfa::Plt { t }               cfa = sp + 8 + ((pc & 15) >= t ? 8 : 0)
//! Cfa::Register { r, o }       cfa = r + o                       leaf only
//! Cfa::DerefIndexed { r, o, a } cfa = *(sp + o + 8 r) + a        leaf only
//!
//! SavedFp::Same                caller's fp = fp
//! SavedFp::AtCfa(o)            caller's fp = *(cfa + o)
//! SavedFp::AtFp(o)             caller's fp = *(fp + o)
//! SavedFp::AtSp(o)             caller's fp = *(sp + o)
//! SavedFp::Register(r)         caller's fp = r                   leaf only
//! SavedFp::Lost                not known
//!
//! SavedBase::Same              caller's base = base
//! SavedBase::AtCfa(n)          caller's base = *(cfa - 8 n)
//! SavedBase::Lost              not known, or not needed in this file
//!
//! ReturnAddress::AtCfa(o)      caller's pc = *(cfa + o)
//! ReturnAddress::Register(r)   caller's pc = r                   leaf only
//!
//! always                       caller's sp = cfa
//! ```
//!
//! *Leaf only*: a call may change most registers, and of those that it must not only sp and fp are
//! followed through the callers. So the rule holds where the registers come from the kernel, at the
//! leaf.
//!
//! But for one register, the *base*: on x86-64 ld.so's `_dl_runtime_resolve` calls others with its CFA
//! in rbx. It is followed in files that have such a row; elsewhere it would only cost rules, and a
//! load for each frame.

use super::Rule;
use super::dwarf::{CfaRule, Op, SavedRule, operations, register_relative};

/// A general register by its DWARF number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(u8);

impl Register {
    /// The DWARF number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Where the frame's canonical frame address is: the caller's sp after the return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// `sp + o`. 32 bits, as rustc has frames of half a megabyte.
    Sp(i32),
    /// `fp + o`
    Fp(i32),
    /// `*(sp + offset) + addend`
    DerefSp {
        /// Added to sp.
        offset: i16,
        /// Added to what is there.
        addend: i16,
    },
    /// `*(fp + offset) + addend`: functions that align their stack to more than 16 bytes.
    DerefFp {
        /// Added to fp.
        offset: i16,
        /// Added to what is there.
        addend: i16,
    },
    /// `sp + 8`, and 8 more from byte `threshold` of each 16-byte PLT entry on, where the entry
    /// has pushed its relocation's index.
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
    /// `*(sp + offset + 8 * register) + addend`; leaf only. OpenSSL's multiplication of large
    /// numbers has the caller's sp behind as many words as these have.
    DerefIndexed {
        /// Which.
        register: Register,
        /// Added to sp, with its eightfold. 12 bits.
        offset: i16,
        /// Added to what is there.
        addend: i16,
    },
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SavedFp {
    /// Untouched.
    Same,
    /// `*(cfa + o)`. On ARM it is at the bottom of the frame, however large that is.
    AtCfa(i32),
    /// `*(fp + o)`: functions that align their stack.
    AtFp(i16),
    /// `*(sp + o)`: hand-written code that aligns its stack without a frame pointer.
    AtSp(i16),
    /// In another register; leaf only.
    Register(Register),
    /// Nowhere, or where no rule here can say. The walk goes on until a frame needs it.
    Lost,
}

/// Where the caller's base is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SavedBase {
    /// Untouched.
    Same,
    /// `*(cfa - 8 n)`, with n from 2 to 15.
    AtCfa(u8),
    /// Nowhere, or nobody asks.
    Lost,
}

/// Where the return address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnAddress {
    /// `*(cfa + o)`
    AtCfa(i32),
    /// In a register; leaf only.
    Register(Register),
    /// `*(sp + o)`: where a signal has left it.
    AtSp(i16),
}

/// How to get from a frame to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The caller's sp.
    pub cfa: Cfa,
    /// The caller's fp.
    pub fp: SavedFp,
    /// The caller's base.
    pub base: SavedBase,
    /// The caller's pc.
    pub ra: ReturnAddress,
}

/// DWARF's numbers of a machine's registers, and their names.
#[derive(Debug)]
pub struct Registers {
    /// The stack pointer.
    pub sp: u16,
    /// The frame pointer.
    pub fp: u16,
    /// A register that calls preserve, and that may lead to a CFA.
    pub base: u16,
    /// The return address: a register, or a column of its own.
    pub ra: u16,
    /// Names of those that rules may have, by their number.
    pub names: &'static [&'static str],
}

impl Registers {
    /// The register of this number, if a rule may have it.
    pub fn get(&self, number: u16) -> Option<Register> {
        u8::try_from(number).ok().filter(|number| usize::from(*number) < self.names.len()).map(Register)
    }

    /// The CFA that a row gives, by rules that all machines have.
    pub(super) fn cfa(&self, rule: CfaRule) -> Option<Cfa> {
        match rule {
            CfaRule::Register(register, offset) => {
                let offset = i32::try_from(offset).ok()?;
                Some(match register {
                    sp if sp == self.sp => Cfa::Sp(offset),
                    fp if fp == self.fp => Cfa::Fp(offset),
                    other => Cfa::Register { register: self.get(other)?, offset },
                })
            }
            CfaRule::Expression(bytes) => match *operations(bytes)?.as_slice() {
                [Op::Register(register, offset)] => self.cfa(CfaRule::Register(register, offset)),
                [Op::Register(register, offset), Op::Deref] => self.deref(register, offset, 0),
                [Op::Register(register, offset), Op::Deref, Op::PlusConstant(addend)]
                | [Op::Register(register, offset), Op::Deref, Op::Constant(addend), Op::Plus] => {
                    self.deref(register, offset, addend)
                }
                _ => None,
            },
        }
    }

    fn deref(&self, register: u16, offset: i64, addend: i64) -> Option<Cfa> {
        let (offset, addend) = (i16::try_from(offset).ok()?, i16::try_from(addend).ok()?);
        match register {
            sp if sp == self.sp => Some(Cfa::DerefSp { offset, addend }),
            fp if fp == self.fp => Some(Cfa::DerefFp { offset, addend }),
            _ => None,
        }
    }

    /// The caller's frame pointer.
    pub(super) fn saved_fp(&self, rule: SavedRule) -> SavedFp {
        let saved = match rule {
            SavedRule::Unspecified | SavedRule::Same => Some(SavedFp::Same),
            SavedRule::Offset(offset) => i32::try_from(offset).ok().map(SavedFp::AtCfa),
            SavedRule::Register(fp) if fp == self.fp => Some(SavedFp::Same),
            SavedRule::Register(register) => self.get(register).map(SavedFp::Register),
            SavedRule::Expression(bytes) => {
                let at = |register| i16::try_from(register_relative(bytes, register)?).ok();
                at(self.fp).map(SavedFp::AtFp).or_else(|| at(self.sp).map(SavedFp::AtSp))
            }
            SavedRule::Undefined | SavedRule::ValueOffset(_) | SavedRule::Other => None,
        };
        saved.unwrap_or(SavedFp::Lost)
    }

    /// The caller's base, if it is asked for.
    pub(super) fn saved_base(rule: Option<SavedRule>) -> SavedBase {
        match rule {
            Some(SavedRule::Unspecified | SavedRule::Same) => SavedBase::Same,
            Some(SavedRule::Offset(offset @ -120..=-16)) if offset % 8 == 0 => {
                SavedBase::AtCfa((offset / -8) as u8)
            }
            _ => SavedBase::Lost,
        }
    }

    /// Whether a rule leads from the base to the CFA.
    pub(super) fn is_from_base(&self, rule: &Rule) -> bool {
        match rule {
            Rule::Frame(Frame { cfa: Cfa::Register { register, .. }, .. })
            | Rule::ExactFrame(Frame { cfa: Cfa::Register { register, .. }, .. })
            | Rule::LoopFrame(Frame { cfa: Cfa::Register { register, .. }, .. })
            | Rule::JavaFrame(Frame { cfa: Cfa::Register { register, .. }, .. }) => {
                u16::from(register.0) == self.base
            }
            _ => false,
        }
    }

    /// A frame in readelf's words: its CFA, frame pointer and return address.
    pub fn words(&self, frame: &Frame) -> [String; 3] {
        let name = |register: Register| self.names[usize::from(register.0)];
        let [sp, fp] = [self.sp, self.fp].map(|number| self.names[usize::from(number)]);
        let cfa = match frame.cfa {
            Cfa::Sp(offset) => format!("{sp}{offset:+}"),
            Cfa::Fp(offset) => format!("{fp}{offset:+}"),
            Cfa::DerefSp { offset, addend } => format!("*({sp}{offset:+}){addend:+}"),
            Cfa::DerefFp { offset, addend } => format!("*({fp}{offset:+}){addend:+}"),
            Cfa::Plt { threshold } => format!("plt({threshold})"),
            Cfa::Register { register, offset } => format!("{}{offset:+}", name(register)),
            Cfa::DerefIndexed { register, offset, addend } => {
                format!("*({sp}{offset:+}+8*{}){addend:+}", name(register))
            }
        };
        let saved = match frame.fp {
            SavedFp::Same => "u".to_owned(),
            SavedFp::AtCfa(offset) => format!("c{offset:+}"),
            SavedFp::AtFp(offset) => format!("*({fp}{offset:+})"),
            SavedFp::AtSp(offset) => format!("*({sp}{offset:+})"),
            SavedFp::Register(register) => name(register).to_owned(),
            SavedFp::Lost => "lost".to_owned(),
        };
        let ra = match frame.ra {
            ReturnAddress::AtCfa(offset) => format!("c{offset:+}"),
            ReturnAddress::Register(register) => name(register).to_owned(),
            ReturnAddress::AtSp(offset) => format!("*({sp}{offset:+})"),
        };
        [cfa, saved, ra]
    }
}
