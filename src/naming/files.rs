//! Names in programs and libraries, from wherever they have them: their own symbols and debug information,
//! a file beside them that has what was stripped, Go's table of functions, the symbols that no one else
//! takes. Each later source is asked for what the ones before have no name for.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::names::{Frame, Names};
use super::resolver::{self, Depth};
use super::{debug_files, demangle, go};
use crate::elf::{self, Elf, symbols};

/// Names at offsets of a file. `debug` opens files that may hold its debug information, by the name of one in
/// this file.
pub fn names(
    file: &File,
    offsets: &[u64],
    inlined: bool,
    debug: impl FnMut(Option<&str>) -> Vec<File>,
) -> Vec<Names> {
    let depth = if inlined { Depth::Inlined } else { Depth::Lines };
    let shares = elf::shares_debug_information(file);
    let mut names = resolver::in_file(file, offsets, depth, shares);
    qualify(&mut names, || resolver::in_file(file, offsets, Depth::Symbols, false));
    // Stubs that jump to other files come first: the last symbol before them, `_init`, is not theirs.
    let plt = elf::plt(file);
    for (names, offset) in names.iter_mut().zip(offsets) {
        if plt.iter().any(|stubs| stubs.contains(offset)) {
            *names = Err(STUB);
        }
    }
    let lacks_lines = |names: &Names| names.as_ref().map_or_else(|why| *why != STUB, |it| it[0].line == 0);
    let lacks_lines = |names: &Names| is_unnamed(names) || lacks_lines(names);
    let debug = if names.iter().any(lacks_lines) { debug_files::find(file, debug) } else { None };
    if let Some(debug) = &debug {
        from_debug_file(file, debug, offsets, depth, &mut names);
    }
    if names.iter().any(lacks_lines)
        && let Some(found) = go::names(file, offsets, inlined)
    {
        // It has lines and inlined calls, too, which a symbol alone has not.
        for (names, found) in names.iter_mut().zip(found) {
            if lacks_lines(names) && !found.is_empty() {
                *names = Ok(found);
            }
        }
    }
    if names.iter().any(is_unnamed) {
        from_symbols(file, debug.as_ref(), offsets, &mut names);
    }
    // A line without a function.
    names
        .iter_mut()
        .filter(|names| is_unnamed(names) && names.is_ok())
        .for_each(|names| *names = Err("no symbol"));
    names
}

/// The name of frames in stubs: a frame of its own kind, and no failure.
const STUB: &str = "procedure linkage table";

fn is_unnamed(names: &Names) -> bool {
    match names {
        Ok(frames) => frames.last().is_none_or(|outermost| outermost.name.is_empty()),
        Err(why) => *why != STUB,
    }
}

/// Gives functions to what has none. A line that is known stays.
fn fill(names: &mut [Names], found: impl Iterator<Item = Option<Frame>>) {
    for (names, found) in names.iter_mut().zip(found) {
        let Some(found) = found.filter(|_| is_unnamed(names)) else { continue };
        match names.as_mut().ok().and_then(|frames| frames.last_mut()) {
            Some(Frame { name, system_name, .. }) => (*name, *system_name) = (found.name, found.system_name),
            None => *names = Ok(vec![found]),
        }
    }
}

/// Debug information has no more than the last part of the names of functions that no other file can see;
/// the symbol has all of it. It has none where a name is in a file that it shares with others.
fn qualify(names: &mut [Names], symbols: impl FnOnce() -> Vec<Names>) {
    let is_short = |frames: &Vec<Frame>| frames.last().is_some_and(|it| !is_whole(&it.name));
    if !names.iter().any(|names| names.as_ref().is_ok_and(is_short)) {
        return;
    }
    for (names, symbol) in names.iter_mut().zip(symbols()) {
        if let (Ok(frames), Ok(symbol)) = (names, symbol)
            && let (Some(outermost), Some(symbol)) = (frames.last_mut(), symbol.last())
            && (outermost.name.is_empty()
                || (!is_whole(&outermost.name)
                    && is_whole(&symbol.name)
                    && symbol.name.contains(&outermost.name)))
        {
            outermost.name.clone_from(&symbol.name);
            outermost.system_name.clone_from(&symbol.system_name);
        }
    }
}

fn is_whole(name: &str) -> bool {
    name.contains("::") || name.contains('(')
}

/// What a separate file says counts where it says more.
fn from_debug_file(file: &File, debug: &File, offsets: &[u64], depth: Depth, names: &mut [Names]) {
    let Ok(elf) = Elf::read_of_any_width(file) else { return };
    let vaddrs: Vec<u64> = offsets
        .iter()
        .map(|&offset| elf.segments.iter().find_map(|segment| segment.vaddr(offset)).unwrap_or(0))
        .collect();
    let mut found = resolver::in_debug_file(debug, &vaddrs, depth);
    qualify(&mut found, || resolver::in_debug_file(debug, &vaddrs, Depth::Symbols));
    for (names, found) in names.iter_mut().zip(found) {
        let Ok(found) = found else { continue };
        // A line that the file itself has is as good.
        if found.last().is_some_and(|outermost| outermost.name.is_empty()) && names.is_ok() {
            continue;
        }
        if is_unnamed(names) || (names.as_ref().is_ok_and(|it| it[0].line == 0) && found[0].line != 0) {
            *names = Ok(found);
        }
    }
}

/// The symbols that no one else takes: without a type or a size, and those of a file without section headers.
fn from_symbols(file: &File, debug: Option<&File>, offsets: &[u64], names: &mut [Names]) {
    let Ok(elf) = Elf::read_of_any_width(file) else { return };
    let Ok(own) = symbols::of_code_by(&elf, file, file) else { return };
    // Without section headers the file is as readable as it was to the kernel.
    let why = if own.is_empty() { "stripped binary" } else { "no symbol" };
    names.iter_mut().filter(|names| is_unnamed(names) && names.is_err()).for_each(|names| *names = Err(why));
    // A C library's, which often has no symbol that is left, behind a function without a size.
    let returns = |&offset: &u64| is_sigreturn(file, offset).then(|| Frame::named("__restore_rt"));
    fill(names, offsets.iter().map(returns));
    let code = || elf.segments.iter().filter(|segment| segment.executable);
    let stripped = debug.and_then(|debug| symbols::of_code_by(&elf, file, debug).ok());
    for symbols in [Some(own), stripped].into_iter().flatten() {
        let find = |offset: &u64| {
            let vaddr = code().find_map(|segment| segment.vaddr(*offset))?;
            let at = symbols.partition_point(|symbol| symbol.vaddr <= vaddr).checked_sub(1)?;
            let symbol = symbols.get(at).filter(|symbol| vaddr < symbol.end)?;
            let name = demangle::demangle(&symbol.name);
            Some(Frame { name, system_name: symbol.name.clone(), ..Frame::default() })
        };
        fill(names, offsets.iter().map(find));
    }
}

/// Whether an offset is in the instructions that return from a signal's handler on x86-64. Debuggers know them by
/// these bytes too, which C libraries therefore keep: `mov $15, %rax; syscall`.
fn is_sigreturn(file: &File, offset: u64) -> bool {
    const CODE: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    // In the system call the address is the one behind it, which may be behind the function.
    let mut around = [0; 2 * CODE.len()];
    let Some(first) = offset.checked_sub(CODE.len() as u64) else { return false };
    file.read_exact_at(&mut around, first).is_ok() && around.windows(CODE.len()).any(|bytes| bytes == CODE)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_return_from_a_signal_is_known_by_its_bytes() {
        let fd = nix::sys::memfd::memfd_create("code", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let mut file = File::from(fd);
        // nop…; mov $15, %rax; syscall; nop…
        let code = [&[0x90; 16][..], &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05], &[0x90; 16]].concat();
        file.write_all(&code).unwrap();
        let found: Vec<u64> = (0..60).filter(|&offset| is_sigreturn(&file, offset)).collect();
        assert_eq!(found, (16..=25).collect::<Vec<u64>>());
    }

    #[test]
    fn a_line_without_a_function_is_given_one() {
        let line = Frame { filename: "a.s".to_owned(), line: 3, ..Frame::default() };
        let mut names =
            [Ok(vec![line.clone()]), Err("stripped binary"), Err(STUB), Ok(vec![Frame::named("known")])];
        fill(&mut names, (0..4).map(|_| Some(Frame::named("f"))));
        let named = Frame { name: "f".to_owned(), system_name: "f".to_owned(), ..line };
        let known = Ok(vec![Frame::named("known")]);
        assert_eq!(names, [Ok(vec![named]), Ok(vec![Frame::named("f")]), Err(STUB), known]);
    }
}
