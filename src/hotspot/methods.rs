//! What a method is called, in which file it is, and its lines.

use std::collections::HashMap;
use std::rc::Rc;

use super::structs::Structs;
use super::{Reads, number};

/// Longer names are cut: those of lambdas and of generated classes have some hundred characters.
const LONGEST_NAME: usize = 1024;
/// A method has 64 KiB of bytecode at most.
const MOST_LINES: usize = 65_536;
/// Bytes of a compressed table of lines.
const MOST_OF_LINES: usize = 1 << 18;
const HAS_LINES: u64 = 1;
/// What of a bytecode's address is in a frame: see `SCRIPT_INSTRUCTION_MASK` in bpf/profile.h.
const INSTRUCTION_MASK: u64 = 0x7f_ffff;
/// What of a `ConstMethod`'s address is in a frame.
const CHECKSUM_MASK: u64 = (1 << 40) - 1;

/// Where the fields are.
#[derive(Debug)]
pub struct Fields {
    const_method: u64,
    constants: u64,
    flags: Option<u64>,
    const_bytes: u64,
    size_in_words: Option<u64>,
    code_size: u64,
    name_index: u64,
    pool_holder: u64,
    pool_bytes: u64,
    source_index: Option<u64>,
    klass_name: u64,
    symbol_length: u64,
    symbol_body: u64,
}

/// A method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Method {
    /// `java.util.HashMap.put`
    pub name: Rc<str>,
    /// `java/util/HashMap.java`
    pub file: Rc<str>,
    /// The lowest address of its bytecode.
    pub code: u64,
    /// Bytes of bytecode.
    pub code_bytes: u32,
    /// The first bytecode of each line, ascending.
    pub lines: Rc<[(u32, u32)]>,
}

impl Method {
    /// The line of a bytecode; 0 if there is none.
    pub fn line(&self, bci: u32) -> u32 {
        let next = self.lines.partition_point(|line| line.0 <= bci);
        next.checked_sub(1).map_or(0, |at| self.lines[at].1)
    }

    /// The line of its first bytecode.
    pub fn first_line(&self) -> u32 {
        self.line(0)
    }

    /// Its lines, for [`line()`].
    pub fn table(&self) -> Vec<u8> {
        let head = [(self.code & INSTRUCTION_MASK) as u32, self.code_bytes];
        let lines = self.lines.iter().flat_map(|&(bci, line)| [bci, line]);
        head.into_iter().chain(lines).flat_map(u32::to_le_bytes).collect()
    }
}

/// The line at what a frame has of the address of its bytecode.
pub fn line(table: &[u8], instruction: u64) -> Option<u32> {
    let (words, _) = table.as_chunks::<4>();
    let word = |at: usize| words.get(at).map(|word| u32::from_le_bytes(*word));
    let bci = instruction.wrapping_sub(word(0)?.into()) & INSTRUCTION_MASK;
    if bci >= u64::from(word(1)?) {
        return None;
    }
    let lines = words.get(2..)?.as_chunks::<2>().0;
    let next = lines.partition_point(|[start, _]| u64::from(u32::from_le_bytes(*start)) <= bci);
    next.checked_sub(1).map(|at| u32::from_le_bytes(lines[at][1]))
}

impl Fields {
    /// `None` if this version lays them out in a way that is not known.
    pub fn find(structs: &Structs) -> Option<Self> {
        // The walk takes that one for granted.
        let const_method = structs.offset("Method", "_constMethod").filter(|&at| at == 8)?;
        let flags = structs.offset("ConstMethod", "_flags");
        Some(Self {
            const_method,
            constants: structs.offset("ConstMethod", "_constants")?,
            flags: flags.or_else(|| structs.offset("ConstMethod", "_flags._flags")),
            const_bytes: structs.size("ConstMethod")?,
            size_in_words: structs.offset("ConstMethod", "_constMethod_size"),
            code_size: structs.offset("ConstMethod", "_code_size")?,
            name_index: structs.offset("ConstMethod", "_name_index")?,
            pool_holder: structs.offset("ConstantPool", "_pool_holder")?,
            pool_bytes: structs.size("ConstantPool")?,
            source_index: structs.offset("ConstantPool", "_source_file_name_index"),
            klass_name: structs.offset("Klass", "_name")?,
            symbol_length: structs.offset("Symbol", "_length")?,
            symbol_body: structs.offset("Symbol", "_body")?,
        })
    }

    /// Whether this is a method that has its constant part where a frame said.
    pub fn has(&self, memory: &Reads<'_>, method: u64, checksum: u64) -> bool {
        let part = memory.u64(method.wrapping_add(self.const_method));
        part.is_some_and(|part| part & CHECKSUM_MASK == checksum)
    }

    /// Reads a method; `None` if that is none.
    pub fn read(&self, memory: &Reads<'_>, method: u64, counts: &Counts) -> Option<Method> {
        let part = memory.u64(method.wrapping_add(self.const_method)).filter(|part| part % 8 == 0)?;
        let bytes = memory.bytes(part, self.const_bytes as usize)?;
        let pool = number(&bytes, self.constants, 8).filter(|pool| pool % 8 == 0)?;
        let constant = |index: u64| self.symbol(memory, pool.wrapping_add(self.pool_bytes + 8 * index));
        let name = constant(number(&bytes, self.name_index, 2)?)?;
        let holder = memory.u64(pool.wrapping_add(self.pool_holder))?;
        let class = self.symbol(memory, holder.wrapping_add(self.klass_name))?;
        let source = self.source_index.and_then(|at| memory.u16(pool.wrapping_add(at))).filter(|&it| it != 0);
        let source = source.and_then(|index| constant(index.into()));
        let package = class.rfind('/').map_or("", |end| &class[..=end]);
        let code = part.wrapping_add(self.const_bytes);
        let code_bytes = number(&bytes, self.code_size, 2)? as u32;
        let has_lines =
            self.flags.and_then(|at| number(&bytes, at, 2)).is_some_and(|flags| flags & HAS_LINES != 0);
        let words = self.size_in_words.and_then(|at| number(&bytes, at, 4)).unwrap_or(0);
        let end = part.wrapping_add(8 * words);
        let lines = code.wrapping_add(code_bytes.into());
        let room = usize::try_from(end.saturating_sub(lines)).unwrap_or(0).min(MOST_OF_LINES);
        let lines = if has_lines { memory.bytes(lines, room) } else { None };
        Some(Method {
            name: format!("{}.{name}", class.replace('/', ".")).into(),
            file: source.map(|source| format!("{package}{source}")).unwrap_or_default().into(),
            code,
            code_bytes,
            lines: lines.map(|lines| decode_lines(&lines, counts)).unwrap_or_default().into(),
        })
    }

    /// The symbol to which a word leads.
    fn symbol(&self, memory: &Reads<'_>, at: u64) -> Option<String> {
        let symbol = memory.u64(at).filter(|symbol| symbol % 8 == 0)?;
        let length = memory.u16(symbol.wrapping_add(self.symbol_length))?;
        let text =
            memory.bytes(symbol.wrapping_add(self.symbol_body), usize::from(length).min(LONGEST_NAME))?;
        let text = String::from_utf8_lossy(&text);
        Some(
            text.chars()
                .map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char })
                .collect(),
        )
    }
}

/// How numbers are written in a few bytes (src/hotspot/share/utilities/unsigned5.hpp): since JDK 20 no byte of them
/// is 0.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// What is taken off each byte.
    pub left_out: u32,
}

impl Counts {
    /// Reads one, and how far that went.
    pub fn number(self, bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
        const MORE: u8 = 192;
        let (mut sum, mut shift) = (0u32, 0);
        loop {
            let byte = bytes.next()?;
            sum = sum.wrapping_add(u32::from(byte).checked_sub(self.left_out)? << shift);
            shift += 6;
            if byte < MORE || shift > 24 {
                return Some(sum);
            }
        }
    }

    /// One whose lowest bit is its sign.
    fn signed(self, bytes: &mut impl Iterator<Item = u8>) -> Option<i32> {
        let number = self.number(bytes)?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}

/// `CompressedLineNumberReadStream`: pairs of differences, in a byte if they are small.
fn decode_lines(bytes: &[u8], counts: &Counts) -> Vec<(u32, u32)> {
    const ESCAPE: u8 = 0xff;
    let mut bytes = bytes.iter().copied();
    let (mut bci, mut line) = (0u32, 0u32);
    let mut by_bci: HashMap<u32, u32> = HashMap::new();
    while let Some(byte) = bytes.next().filter(|&byte| byte != 0) {
        if byte == ESCAPE {
            let (Some(bcis), Some(lines)) = (counts.signed(&mut bytes), counts.signed(&mut bytes)) else {
                break;
            };
            (bci, line) = (bci.wrapping_add_signed(bcis), line.wrapping_add_signed(lines));
        } else {
            (bci, line) = (bci.wrapping_add((byte >> 3).into()), line.wrapping_add((byte & 7).into()));
        }
        by_bci.insert(bci, line);
        if by_bci.len() >= MOST_LINES {
            break;
        }
    }
    let mut lines: Vec<(u32, u32)> = by_bci.into_iter().collect();
    lines.sort_unstable();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        // Two small steps, and one back by 3 lines.
        let written = [0, 7 << 3 | 5, 2 << 3 | 1, 0xff, 1 + 2 * 20, 1 + (2 * 3 - 1), 0];
        let counts = Counts { left_out: 1 };
        let lines = decode_lines(&written[1..], &counts);
        assert_eq!(lines, [(7, 5), (9, 6), (29, 3)]);
        assert_eq!(decode_lines(&written, &counts), []);
        let method =
            Method { code: 0xabcd_ef01_2345, code_bytes: 40, lines: lines.into(), ..Method::default() };
        assert_eq!([0, 6, 7, 8, 9, 28, 29, 39].map(|bci| method.line(bci)), [0, 0, 5, 5, 6, 6, 3, 3]);
        let table = method.table();
        let at = |bci: u64| line(&table, (method.code + bci) & INSTRUCTION_MASK);
        assert_eq!([0, 7, 28, 39].map(at), [None, Some(5), Some(6), Some(3)]);
        assert_eq!((at(40), at(u64::MAX)), (None, None));
        assert_eq!(line(&table[..9], 0x2345), None);
    }

    #[test]
    fn numbers_of_five_bytes_end() {
        let number = |left_out, bytes: &[u8]| Counts { left_out }.number(&mut bytes.iter().copied());
        assert_eq!(number(0, &[191]), Some(191));
        assert_eq!(number(0, &[192, 1]), Some(192 + 64));
        assert_eq!(number(1, &[1]), Some(0));
        assert_eq!(number(1, &[192, 1]), Some(191));
        assert_eq!(number(0, &[255; 9]), number(0, &[255; 5]));
        assert_eq!((number(1, &[0]), number(0, &[200])), (None, None));
    }
}
