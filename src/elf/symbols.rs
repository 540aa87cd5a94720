//! Symbols of code in a file's own tables, whatever their type and size.
//!
//! Assembly often gives its functions neither. And a program that has lost its section headers still has
//! the symbols that the dynamic linker needs: the table that PT_DYNAMIC leads to.

use anyhow::{Context as _, Result};
use object::LittleEndian as LE;
use object::elf::{self, Dyn64, FileHeader64, ProgramHeader64, Sym32, Sym64};

use super::functions::Ends;
use super::parts::{array, one, read};
use super::{Elf, MAX_PROGRAM_HEADERS, Machine, Source};

/// Of one table. That of a browser with all symbols is 100 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Of a symbol that is looked for by its name; and how many of those are looked at.
const MOST_IN_NAME: usize = 256;
const MOST_EXPORTED: usize = 4096;

/// A function or a label in code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Address in the ELF image.
    pub vaddr: u64,
    /// First address behind it: by its size or, without one, where its call frame information ends, or where the next
    /// function, symbol or segment begins.
    pub end: u64,
    /// Name.
    pub name: String,
}

/// A symbol that was asked for by its name. Several may have one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Address in the ELF image.
    pub vaddr: u64,
    /// Name.
    pub name: String,
    /// What is there chooses the function when the program starts.
    pub is_indirect: bool,
}

/// Symbols of code whose names are wanted.
///
/// # Errors
/// If the file is no ELF program of 64 bits, or its tables cannot be read.
pub fn named(file: &dyn Source, wanted: impl Fn(&str) -> bool) -> Result<Vec<Named>> {
    let mut found = Vec::new();
    each(&Elf::read(file)?, file, |symbol, kind| {
        if wanted(&symbol.name) {
            let is_indirect = kind == elf::STT_GNU_IFUNC;
            found.push(Named { vaddr: symbol.vaddr, name: symbol.name, is_indirect });
        }
    })?;
    Ok(found)
}

/// Symbols that lie in code, ascending; of several with one address, the first that has a size.
///
/// # Errors
/// If the file is no ELF program, or its tables cannot be read.
pub fn of_code(file: &dyn Source) -> Result<Vec<Symbol>> {
    of_code_by(&Elf::read_of_any_width(file)?, file, file)
}

/// The same of a program, by the tables of another file that has what was stripped from it.
///
/// # Errors
/// If the tables cannot be read.
pub fn of_code_by(elf: &Elf, program: &dyn Source, tables: &dyn Source) -> Result<Vec<Symbol>> {
    let mut found = Vec::new();
    each(elf, tables, |symbol, _| found.push(symbol))?;
    found.sort_by_key(|symbol: &Symbol| (symbol.vaddr, symbol.end == symbol.vaddr));
    found.dedup_by_key(|symbol| symbol.vaddr);
    let mut found = without_labels(found);
    let ends = Ends::new(elf, program);
    for at in 0..found.len() {
        let next = found.get(at + 1).map_or(u64::MAX, |symbol| symbol.vaddr);
        let symbol = &mut found[at];
        if symbol.end == symbol.vaddr {
            let segment = elf.segments.iter().find_map(|segment| segment.locate(symbol.vaddr));
            let end = symbol.vaddr.saturating_add(segment.map_or(0, |(_, left)| left)).min(next);
            symbol.end = ends.of(symbol.vaddr).unwrap_or(u64::MAX).min(end);
        }
    }
    Ok(found)
}

/// Takes out what has no size and lies within a function: a place to jump to. In assembly without sizes it is told by
/// its name, `function.label`, as NASM has it.
fn without_labels(symbols: Vec<Symbol>) -> Vec<Symbol> {
    let mut functions: Vec<Symbol> = Vec::with_capacity(symbols.len());
    let mut sized_until = 0;
    for symbol in symbols {
        let has_size = symbol.end > symbol.vaddr;
        let is_label = symbol.vaddr < sized_until
            || functions.last().is_some_and(|function| {
                symbol.name.strip_prefix(&function.name).is_some_and(|rest| rest.starts_with('.'))
            });
        if has_size || !is_label {
            sized_until = sized_until.max(symbol.end);
            functions.push(symbol);
        }
    }
    functions
}

/// All symbols of a program's code with their kinds, from each table that a file has.
fn each(program: &Elf, tables: &dyn Source, mut found: impl FnMut(Symbol, u8)) -> Result<()> {
    let elf = Elf::read_of_any_width(tables)?;
    for (symbols, names) in [(".symtab", ".strtab"), (".dynsym", ".dynstr")] {
        let tables = elf.section(tables, symbols, MAX_BYTES)?.zip(elf.section(tables, names, MAX_BYTES)?);
        if let Some((symbols, names)) = tables {
            collect(program, &symbols, &names, &mut found);
        }
    }
    if elf.sections.is_empty()
        && elf.machine != Machine::I386
        && let Some((symbols, names)) = dynamic_tables(&elf, tables)?
    {
        collect(program, &symbols, &names, &mut found);
    }
    Ok(())
}

fn collect(elf: &Elf, symbols: &[u8], names: &[u8], found: &mut impl FnMut(Symbol, u8)) {
    if elf.machine == Machine::I386 {
        let (symbols, _) = symbols.as_chunks::<{ size_of::<Sym32<LE>>() }>();
        symbols.iter().filter_map(|it| one::<Sym32<LE>>(it).ok()).for_each(|it| take(elf, &it, names, found));
    } else {
        let (symbols, _) = symbols.as_chunks::<{ size_of::<Sym64<LE>>() }>();
        symbols.iter().filter_map(|it| one::<Sym64<LE>>(it).ok()).for_each(|it| take(elf, &it, names, found));
    }
}

fn take(
    elf: &Elf,
    symbol: &impl object::read::elf::Sym<Endian = LE>,
    names: &[u8],
    found: &mut impl FnMut(Symbol, u8),
) {
    let kind = symbol.st_type();
    let is_code = matches!(kind, elf::STT_FUNC | elf::STT_GNU_IFUNC | elf::STT_NOTYPE);
    let is_defined = !matches!(symbol.st_shndx(LE), elf::SHN_UNDEF | elf::SHN_ABS);
    let vaddr = symbol.st_value(LE).into();
    let in_code = || elf.segments.iter().any(|it| it.executable && it.locate(vaddr).is_some());
    if !is_code || !is_defined || !in_code() {
        return;
    }
    let name = names.get(symbol.st_name(LE) as usize..).unwrap_or_default();
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    // Labels of the assembler's own are no names: `.L1`, `$x`.
    if name.is_empty() || name.starts_with(b".L") || name.starts_with(b"$") {
        return;
    }
    let end = vaddr.saturating_add(symbol.st_size(LE).into());
    found(Symbol { vaddr, end, name: String::from_utf8_lossy(name).into_owned() }, kind);
}

/// A symbol that a file exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Address in the ELF image.
    pub vaddr: u64,
    /// Bytes.
    pub size: u64,
    /// Name.
    pub name: String,
}

/// The exported symbols whose names begin in one of these ways; none, and soon, of a file without such
/// names.
///
/// # Errors
/// If the tables cannot be read.
pub fn exported(elf: &Elf, file: &dyn Source, prefixes: &[&str]) -> Result<Vec<Exported>> {
    let is_wanted = |name: &[u8]| prefixes.iter().any(|prefix| name.starts_with(prefix.as_bytes()));
    let (symbols, names) = match elf.section(file, ".dynstr", MAX_BYTES)? {
        // Most files have none of the names.
        Some(names) if !names.split(|&byte| byte == 0).any(is_wanted) => return Ok(Vec::new()),
        Some(names) => (elf.section(file, ".dynsym", MAX_BYTES)?.unwrap_or_default(), names),
        None => dynamic_tables(elf, file)?.unwrap_or_default(),
    };
    let (symbols, _) = symbols.as_chunks::<{ size_of::<Sym64<LE>>() }>();
    let mut found = Vec::new();
    for symbol in symbols {
        let Ok(symbol) = one::<Sym64<LE>>(symbol) else { continue };
        let name = names.get(symbol.st_name.get(LE) as usize..).unwrap_or_default();
        if symbol.st_shndx.get(LE) == elf::SHN_UNDEF || !is_wanted(name) {
            continue;
        }
        let Some(end) = name.iter().take(MOST_IN_NAME).position(|&byte| byte == 0) else { continue };
        let name = &name[..end];
        let (vaddr, size) = (symbol.st_value.get(LE), symbol.st_size.get(LE));
        found.push(Exported { vaddr, size, name: String::from_utf8_lossy(name).into_owned() });
        if found.len() == MOST_EXPORTED {
            break;
        }
    }
    Ok(found)
}

/// The tables that the dynamic linker uses. It needs no number of symbols; linkers put their names right
/// behind them.
fn dynamic_tables(elf: &Elf, file: &dyn Source) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let header: FileHeader64<LE> = one(&read(file, 0, 64, 64)?)?;
    let count = u64::from(header.e_phnum.get(LE)).min(MAX_PROGRAM_HEADERS);
    let headers: Vec<ProgramHeader64<LE>> = array(file, header.e_phoff.get(LE), count)?;
    let Some(dynamic) = headers.iter().find(|header| header.p_type.get(LE) == elf::PT_DYNAMIC) else {
        return Ok(None);
    };
    let entries = dynamic.p_filesz.get(LE) / size_of::<Dyn64<LE>>() as u64;
    let entries: Vec<Dyn64<LE>> = array(file, dynamic.p_offset.get(LE), entries)?;
    let value = |tag: u32| {
        entries.iter().find(|entry| entry.d_tag.get(LE) == u64::from(tag)).map(|entry| entry.d_val.get(LE))
    };
    let (Some(symbols), Some(names), Some(names_bytes)) =
        (value(elf::DT_SYMTAB), value(elf::DT_STRTAB), value(elf::DT_STRSZ))
    else {
        return Ok(None);
    };
    let locate = |vaddr: u64| elf.segments.iter().find_map(|segment| segment.locate(vaddr));
    let (symbols_at, _) = locate(symbols).context("no segment holds DT_SYMTAB")?;
    let (names_at, _) = locate(names).context("no segment holds DT_STRTAB")?;
    let symbols_bytes = names.saturating_sub(symbols);
    Ok(Some((
        read(file, symbols_at, symbols_bytes, MAX_BYTES)?,
        read(file, names_at, names_bytes, MAX_BYTES)?,
    )))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn our_own() {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let symbols = of_code(&file).unwrap();
        assert!(symbols.is_sorted_by(|a, b| a.vaddr < b.vaddr));
        assert!(symbols.iter().all(|symbol| symbol.vaddr <= symbol.end));
        let main = symbols.iter().find(|symbol| symbol.name == "main").expect("this program has a main");
        assert!(main.end > main.vaddr);
    }

    /// As tables have them: an address, a size, a name.
    fn symbols(of: &[(u64, u64, &str)]) -> Vec<Symbol> {
        let symbol = |&(vaddr, size, name): &(u64, u64, &str)| Symbol {
            vaddr,
            end: vaddr + size,
            name: name.to_owned(),
        };
        of.iter().map(symbol).collect()
    }

    #[test]
    fn places_in_functions_are_none() {
        let found = without_labels(symbols(&[
            (10, 10, "sized"),
            (15, 0, "inside"),
            (20, 0, "unsized"),
            (24, 0, "unsized.loop"),
            (28, 0, "unsized.done"),
            (32, 0, "unsized_too"),
            (40, 5, "unsized_too.cold"),
        ]));
        let names: Vec<&str> = found.iter().map(|symbol| symbol.name.as_str()).collect();
        assert_eq!(names, ["sized", "unsized", "unsized_too", "unsized_too.cold"]);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(of_code(&File::open("/dev/null").unwrap()).is_err());
        assert!(of_code(&b"\x7fELF".to_vec()).is_err());
    }
}
