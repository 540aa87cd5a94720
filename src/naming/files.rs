//! Names in programs and libraries, from wherever they have them: their own symbols and debug information,
//! a file beside them that has what was stripped, Go's table of functions, the symbols that no one else
//! takes. Each later source is asked for what the ones before have no name for.

use std::fs::File;

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
    let mut names = resolver::in_file(file, offsets, depth);
    qualify(&mut names, || resolver::in_file(file, offsets, Depth::Symbols));
    // Stubs that jump to other files come first: the last symbol before them, `_init`, is not theirs.
    let plt = elf::plt(file);
    for (names, offset) in names.iter_mut().zip(offsets) {
        if plt.iter().any(|stubs| stubs.contains(offset)) {
            *names = Err(STUB);
        }
    }
    let lacks_lines = |names: &Names| names.as_ref().map_or_else(|why| *why != STUB, |it| it[0].line == 0);
    if names.iter().any(lacks_lines)
        && let Some(debug) = debug_files::find(file, debug)
    {
        from_debug_file(file, &debug, offsets, depth, &mut names);
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
        from_symbols(file, offsets, &mut names);
    }
    names
}

/// The name of frames in stubs: a frame of its own kind, and no failure.
const STUB: &str = "procedure linkage table";

fn is_unnamed(names: &Names) -> bool {
    names.as_ref().is_err_and(|why| *why != STUB)
}

fn fill(names: &mut [Names], found: Vec<Vec<Frame>>) {
    for (names, found) in names.iter_mut().zip(found) {
        if is_unnamed(names) && !found.is_empty() {
            *names = Ok(found);
        }
    }
}

/// Debug information has no more than the last part of the names of functions that no other file can see;
/// the symbol has all of it.
fn qualify(names: &mut [Names], symbols: impl FnOnce() -> Vec<Names>) {
    let is_short = |frames: &Vec<Frame>| frames.last().is_some_and(|it| !is_whole(&it.name));
    if !names.iter().any(|names| names.as_ref().is_ok_and(is_short)) {
        return;
    }
    for (names, symbol) in names.iter_mut().zip(symbols()) {
        if let (Ok(frames), Ok(symbol)) = (names, symbol)
            && let (Some(outermost), Some(symbol)) = (frames.last_mut(), symbol.last())
            && !is_whole(&outermost.name)
            && is_whole(&symbol.name)
            && symbol.name.contains(&outermost.name)
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
    let Ok(elf) = Elf::read(file) else { return };
    let vaddrs: Vec<u64> = offsets
        .iter()
        .map(|&offset| elf.segments.iter().find_map(|segment| segment.vaddr(offset)).unwrap_or(0))
        .collect();
    let mut found = resolver::in_debug_file(debug, &vaddrs, depth);
    qualify(&mut found, || resolver::in_debug_file(debug, &vaddrs, Depth::Symbols));
    for (names, found) in names.iter_mut().zip(found) {
        let Ok(found) = found else { continue };
        if is_unnamed(names) || (names.as_ref().is_ok_and(|it| it[0].line == 0) && found[0].line != 0) {
            *names = Ok(found);
        }
    }
}

fn from_symbols(file: &File, offsets: &[u64], names: &mut [Names]) {
    let (Ok(elf), Ok(symbols)) = (Elf::read(file), symbols::of_code(file)) else { return };
    // Without section headers the file is as readable as it was to the kernel.
    let why = if symbols.is_empty() { "stripped binary" } else { "no symbol" };
    names.iter_mut().filter(|names| is_unnamed(names)).for_each(|names| *names = Err(why));
    let find = |offset: &u64| {
        let code = elf.segments.iter().filter(|segment| segment.executable);
        let vaddr = code.filter_map(|segment| segment.vaddr(*offset)).next()?;
        let at = symbols.partition_point(|symbol| symbol.vaddr <= vaddr).checked_sub(1)?;
        let symbol = symbols.get(at).filter(|symbol| vaddr < symbol.end)?;
        let name = demangle::demangle(&symbol.name);
        Some(Frame { name, system_name: symbol.name.clone(), ..Frame::default() })
    };
    fill(names, offsets.iter().map(|offset| find(offset).into_iter().collect()).collect());
}
