//! Values as bytes, between this program and a worker of its. Who reads believes nothing: what is missing or
//! makes no sense is `None`.

/// What is written.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    /// Numbers, after their count.
    pub fn numbers(&mut self, numbers: &[u64]) -> &mut Self {
        self.number(numbers.len() as u64);
        for &number in numbers {
            self.number(number);
        }
        self
    }

    /// Bytes, after their count.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    /// All of it.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// What is read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// A number.
    pub fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    /// How many values follow, each of so many bytes at least: no more than there is room for.
    pub fn count(&mut self, each: usize) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count.checked_mul(each)? <= self.0.len()).then_some(count)
    }

    /// Numbers.
    pub fn numbers(&mut self) -> Option<Vec<u64>> {
        let count = self.count(8)?;
        (0..count).map(|_| self.number()).collect()
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.count(1)?;
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Text; what is no UTF-8 is replaced.
    pub fn text(&mut self) -> Option<String> {
        self.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Whether all has been read.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_not_read() {
        let mut writer = Writer::default();
        writer.number(7).numbers(&[1, 2]).bytes(b"name");
        let bytes = writer.finish();
        let read = |bytes: &[u8]| {
            let mut reader = Reader(bytes);
            let values = (reader.number()?, reader.numbers()?, reader.text()?);
            reader.is_at_end().then_some(values)
        };
        assert_eq!(read(&bytes), Some((7, vec![1, 2], "name".to_owned())));
        assert!((0..bytes.len()).all(|len| read(&bytes[..len]).is_none()));
        // A count beyond all memory takes none.
        assert_eq!(Reader(&u64::MAX.to_le_bytes()).numbers(), None);
    }
}
