//! What DWARF says of a frame, in as far as a rule can be made of it.

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
    /// The stack pointer.
    pub sp: SavedRule<'a>,
    /// The frame pointer.
    pub fp: SavedRule<'a>,
    /// The base; none if it need not be followed.
    pub base: Option<SavedRule<'a>>,
    /// The return address.
    pub ra: SavedRule<'a>,
    /// Whether the CIE is marked as a signal frame's ('S').
    pub is_signal_frame: bool,
}

/// The offset, if the expression is `register + offset`.
pub(super) fn register_relative(bytes: &[u8], register: u16) -> Option<i64> {
    match *operations(bytes)?.as_slice() {
        [Op::Register(r, offset)] if r == register => Some(offset),
        _ => None,
    }
}

/// The operations of DWARF expressions that occur in rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Op {
    Register(u16, i64),
    Constant(i64),
    PlusConstant(i64),
    Deref,
    And,
    Ge,
    Mul,
    Plus,
    Shl,
}

/// Decodes an expression; none if it has an operation that no rule needs. The codes are those of
/// DWARF 5, section 7.7.1.
pub(super) fn operations(bytes: &[u8]) -> Option<Vec<Op>> {
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
            0x1e => Op::Mul,
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
