//! Walks over the fields of a protobuf message, in place and without allocating.
//!
//! A message type with vectors would hold whatever a file claims: a few bytes of input become a
//! few hundred of memory. Here the caller sees one field at a time and decides what is kept. The
//! rules are those of google/pprof's `proto.go`, which is why this is not prost's decoder: that one
//! accepts groups and rejects field 0, numbers that overflow, and text that is not UTF-8.
//!
//! The encoding: <https://protobuf.dev/programming-guides/encoding/>.

use anyhow::{Result, anyhow, bail};

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Wire type 0: integers and booleans.
    Varint(u64),
    /// Wire type 2: text, messages and packed integers.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which no known field has.
    Fixed,
}

impl<'a> Value<'a> {
    /// The integer.
    pub(super) fn int(self) -> Result<u64> {
        match self {
            Value::Varint(number) => Ok(number),
            _ => bail!("a field that holds a number is of another type"),
        }
    }

    /// The integer as the signed one that `int64` fields hold in two's complement.
    pub(super) fn signed(self) -> Result<i64> {
        self.int().map(u64::cast_signed)
    }

    /// The bytes.
    pub(super) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => bail!("a field that holds a message or text is of another type"),
        }
    }

    /// The fields of the message.
    pub(super) fn message(self) -> Result<Fields<'a>> {
        self.bytes().map(Fields)
    }

    /// One element, or all of a packed field, of a repeated integer.
    pub(super) fn ints(self) -> Result<Ints<'a>> {
        match self {
            Value::Varint(number) => Ok(Ints { one: Some(number), packed: &[] }),
            Value::Bytes(packed) => Ok(Ints { one: None, packed }),
            Value::Fixed => bail!("a field that holds numbers is of another type"),
        }
    }
}

/// The fields of a message as (number, value); ends after an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Value<'a>)> {
        let key = varint(&mut self.0)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = varint(&mut self.0)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            other => bail!("a field is of the unknown wire type {other}"),
        };
        Ok((key >> 3, value))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let left = self.0.len();
        let length = usize::try_from(length).ok().filter(|length| *length <= left);
        let (taken, rest) = length.and_then(|length| self.0.split_at_checked(length)).ok_or_else(|| {
            anyhow!("a field reaches beyond the end of its message, where {left} bytes are left")
        })?;
        self.0 = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Where in a message fields begin, and their numbers; ends at the first that is damaged.
pub(in crate::viewing) fn fields(message: &[u8]) -> impl Iterator<Item = (usize, u64)> {
    let mut rest = Fields(message);
    std::iter::from_fn(move || {
        let start = message.len() - rest.0.len();
        let (number, _) = rest.next()?.ok()?;
        Some((start, number))
    })
}

/// Whether the first two fields have a number and type that a profile's fields have: what says whether data is a
/// profile at all, damaged or not.
pub(in crate::viewing) fn begins(data: &[u8]) -> bool {
    let mut rest = Fields(data);
    !data.is_empty()
        && (0..2).all(|_| {
            let Ok(tag) = varint(&mut &*rest.0) else { return rest.0.is_empty() };
            let is_known = match (tag >> 3, tag & 7) {
                // Tables, the strings, the period's type; comments may be packed.
                (1..=6 | 11 | 13, 2) => true,
                (7..=10 | 12..=15, 0) => true,
                _ => false,
            };
            // One that is cut off is a damaged profile's.
            is_known
                && (rest.next().is_some_and(|field| field.is_ok()) || {
                    rest = Fields(&[]);
                    true
                })
        })
}

/// The numbers of a repeated field.
pub(super) struct Ints<'a> {
    one: Option<u64>,
    packed: &'a [u8],
}

impl Iterator for Ints<'_> {
    type Item = Result<u64>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(number) = self.one.take() {
            return Some(Ok(number));
        }
        if self.packed.is_empty() {
            return None;
        }
        let number = varint(&mut self.packed);
        if number.is_err() {
            self.packed = &[];
        }
        Some(number)
    }
}

/// Seven bits a byte, lowest first; the eighth says that more follow. At most ten bytes, and what
/// does not fit 64 bits is cut off, as in google/pprof.
fn varint(data: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for (i, &byte) in data.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *data = &data[i + 1..];
            return Ok(number);
        }
    }
    if data.len() < 10 { bail!("a number is cut off") } else { bail!("a number is too long") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(data: &[u8]) -> Result<Vec<(u64, Value<'_>)>> {
        Fields(data).collect()
    }

    #[test]
    fn fields_have_a_number_and_a_value() {
        // The examples of the encoding's own description: 150 in field 1, "testing" in field 2.
        assert_eq!(fields(&[0x08, 0x96, 0x01]).unwrap(), [(1, Value::Varint(150))]);
        assert_eq!(fields(b"\x12\x07testing").unwrap(), [(2, Value::Bytes(b"testing"))]);
        assert_eq!(
            fields(&[0x0d, 1, 2, 3, 4, 0x11, 1, 2, 3, 4, 5, 6, 7, 8]).unwrap(),
            [(1, Value::Fixed), (2, Value::Fixed)]
        );
    }

    #[test]
    fn packed_and_single_numbers_are_the_same() {
        let numbers = |value: Value| value.ints().unwrap().collect::<Result<Vec<_>>>();
        assert_eq!(numbers(Value::Bytes(&[3, 0x8e, 2, 0x9e, 0xa7, 5])).unwrap(), [3, 270, 86942]);
        assert_eq!(numbers(Value::Varint(7)).unwrap(), [7]);
        assert!(numbers(Value::Bytes(&[3, 0x8e])).is_err());
        assert_eq!(Value::Varint(u64::MAX).signed().unwrap(), -1);
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for bad in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x12, 2, b'a'],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x0d, 1, 2, 3],
            &[0x11, 1, 2, 3, 4],
            &[0x0b],
            &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
        ] {
            assert!(fields(bad).is_err(), "{bad:?} was taken");
        }
    }
}
