//! Instructions of functions in a file, as text. The only user of iced-x86.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};

use crate::elf::layout::Layout;
use crate::elf::{Elf, Machine, symbols};
use crate::model::profile::Mapping;

/// Most bytes of one function.
const MOST_CODE: u64 = 1 << 20;

/// An instruction.
#[derive(Debug)]
pub(super) struct Instruction {
    /// Where in the file.
    pub(super) offset: u64,
    /// Address in the ELF image.
    pub(super) vaddr: u64,
    pub(super) bytes: u64,
    pub(super) text: String,
}

/// The instructions of the functions that hold these file offsets.
///
/// # Errors
/// If the file is gone or another one by now, or is for another machine.
pub(super) fn functions(mapping: &Mapping, offsets: &[u64]) -> Result<Vec<Instruction>> {
    let path = Path::new(&mapping.path);
    ensure!(path.is_absolute(), "it is no file");
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    ensure!(is_file, "the file is gone");
    let file = File::open(path).context("failed to open it")?;
    let layout = Layout::read(&file)?;
    let build_id: String = layout.build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(mapping.build_id.is_empty() || mapping.build_id == build_id, "the file is another one by now");
    let elf = Elf::read(&file)?;
    if elf.machine != Machine::X86_64 {
        bail!("only x86-64 is disassembled");
    }
    let symbols = symbols::of_code(&file)?;
    let mut found = Vec::new();
    let mut done = 0;
    for &offset in offsets {
        let segment = elf.segments.iter().find(|segment| segment.vaddr(offset).is_some());
        let (segment, vaddr) =
            segment.and_then(|it| Some((it, it.vaddr(offset)?))).context("an address is in no segment")?;
        if vaddr < done {
            continue;
        }
        let at = symbols.partition_point(|symbol| symbol.vaddr <= vaddr);
        let symbol = at.checked_sub(1).and_then(|at| symbols.get(at)).filter(|symbol| vaddr < symbol.end);
        let symbol = symbol.context("it has no symbol that says where the function begins")?;
        let bytes = (symbol.end - symbol.vaddr).min(MOST_CODE);
        let (start, left) = segment.locate(symbol.vaddr).context("the function is in no segment")?;
        let mut code = vec![0; bytes.min(left) as usize];
        file.read_exact_at(&mut code, start).context("failed to read its code")?;
        decode(&code, symbol.vaddr, start, &mut found);
        done = symbol.end;
    }
    Ok(found)
}

fn decode(code: &[u8], vaddr: u64, offset: u64, found: &mut Vec<Instruction>) {
    let mut decoder = Decoder::with_ip(64, code, vaddr, DecoderOptions::NONE);
    let mut formatter = GasFormatter::new();
    // As objdump prints them.
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.options_mut().set_uppercase_hex(false);
    formatter.options_mut().set_small_hex_numbers_in_decimal(false);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        found.push(Instruction {
            offset: offset + (instruction.ip() - vaddr),
            vaddr: instruction.ip(),
            bytes: instruction.len() as u64,
            text,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_becomes_text() {
        let mut found = Vec::new();
        // push %rbp; mov %rsp,%rbp; call to itself; ret
        decode(&[0x55, 0x48, 0x89, 0xe5, 0xe8, 0xf7, 0xff, 0xff, 0xff, 0xc3], 0x1000, 0x40, &mut found);
        let found: Vec<_> =
            found.iter().map(|it| (it.offset, it.vaddr, it.bytes, it.text.replace(' ', ""))).collect();
        assert_eq!(found.len(), 4);
        assert_eq!(found[0], (0x40, 0x1000, 1, "push%rbp".to_owned()));
        assert_eq!((found[2].0, found[2].2), (0x44, 5));
        assert!(found[2].3.starts_with("call") && found[2].3.contains("1000"), "{:?}", found[2]);
    }
}
