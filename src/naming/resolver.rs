//! The only user of blazesym: symbols and lines of ELF files and of the kernel.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Elf, Kernel, Source};
use blazesym::symbolize::{CodeInfo, Input, Reason, Sym, Symbolized, Symbolizer};

use super::demangle::demangle;
use super::names::{Frame, Names};

/// What is looked at in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Symbols alone.
    Symbols,
    /// Debug information too: source files and lines.
    Lines,
    /// And functions that are inlined.
    Inlined,
}

/// Where files with debug information are. They are believed by their build id or checksum.
const DEBUG_DIRS: [&str; 2] = ["/usr/lib/debug", "/lib/debug"];

/// Names at offsets in a file; an empty one where no name is sure, but a line may be. `shares` says that part of its
/// debug information is in a file that it shares with others (`.gnu_debugaltlink`).
pub fn in_file(file: &File, offsets: &[u64], depth: Depth, shares: bool) -> Vec<Names> {
    // Separate files that are all its own are looked for by `super::debug_files`.
    let dirs = if shares { &DEBUG_DIRS[..] } else { &[] };
    ask(&source(file, depth), depth, dirs, offsets, |offsets| Input::FileOffset(offsets))
}

/// The same at addresses in an ELF image, from a file that has its symbols, but not its code.
pub fn in_debug_file(file: &File, vaddrs: &[u64], depth: Depth) -> Vec<Names> {
    ask(&source(file, depth), depth, &DEBUG_DIRS, vaddrs, |vaddrs| Input::VirtOffset(vaddrs))
}

/// Names at addresses in the kernel.
pub fn in_kernel(addrs: &[u64], depth: Depth) -> Vec<Names> {
    // A vmlinux beside the kernel may be gigabytes of debug information: kallsyms names functions.
    let kernel = Kernel { vmlinux: MaybeDefault::None, debug_syms: false, ..Kernel::default() };
    ask(&Source::Kernel(kernel), depth, &[], addrs, |addrs| Input::AbsAddr(addrs))
}

fn source(file: &File, depth: Depth) -> Source<'static> {
    // The descriptor leads to the file even if its path is gone or is another one's by now.
    let elf = Elf::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    Source::Elf(Elf { debug_syms: depth != Depth::Symbols, ..elf })
}

/// Asks for a batch; if that panics, for each address alone, so that one bad name costs one name.
fn ask(
    source: &Source<'_>,
    depth: Depth,
    debug_dirs: &[&str],
    inputs: &[u64],
    input: fn(&[u64]) -> Input<&[u64]>,
) -> Vec<Names> {
    let symbolizer = || {
        Symbolizer::builder()
            .enable_auto_reload(false)
            .enable_code_info(true)
            .enable_inlined_fns(depth == Depth::Inlined)
            .enable_demangling(false)
            .set_debug_dirs(Some(debug_dirs))
            .build()
    };
    let batch = |inputs: &[u64]| -> Option<Vec<Names>> {
        catch_unwind(AssertUnwindSafe(|| {
            let symbolizer = symbolizer();
            match symbolizer.symbolize(source, input(inputs)) {
                Ok(symbols) => symbols
                    .into_iter()
                    .map(|symbol| names_of(symbol, !matches!(source, Source::Kernel(_))))
                    .collect(),
                Err(error) => vec![Err(why(&error)); inputs.len()],
            }
        }))
        .ok()
    };
    batch(inputs).unwrap_or_else(|| {
        let alone = |&addr: &u64| batch(&[addr]).and_then(|names| names.into_iter().next());
        inputs.iter().map(|addr| alone(addr).unwrap_or(Err("symbolizer panicked"))).collect()
    })
}

fn why(error: &blazesym::Error) -> &'static str {
    match error.kind() {
        blazesym::ErrorKind::PermissionDenied => "symbols not permitted",
        blazesym::ErrorKind::OutOfMemory => "out of memory",
        _ => "not a readable ELF file",
    }
}

fn names_of(symbol: Symbolized<'_>, has_sizes: bool) -> Names {
    match symbol {
        Symbolized::Sym(symbol) => {
            let mut frames = frames(&symbol);
            // The symbol before the address, of which nothing says that it reaches so far, or a label.
            let is_guessed = (has_sizes && symbol.size.is_none()) || symbol.name.starts_with(".L");
            if let Some(outermost) = frames.last_mut().filter(|_| is_guessed) {
                (outermost.name, outermost.system_name) = (String::new(), String::new());
            }
            Ok(frames)
        }
        Symbolized::Unknown(Reason::MissingSyms) => Err("stripped binary"),
        Symbolized::Unknown(Reason::UnknownAddr) => Err("no symbol"),
        Symbolized::Unknown(Reason::InvalidFileOffset) => Err("not code"),
        Symbolized::Unknown(Reason::Unmapped) => Err("unmapped"),
        Symbolized::Unknown(_) => Err("symbolizer failed"),
    }
}

/// blazesym lists inlined functions from the outermost in; pprof wants the innermost first.
fn frames(symbol: &Sym<'_>) -> Vec<Frame> {
    let frame = |symbol: &str, code: Option<&CodeInfo<'_>>| Frame {
        name: demangle(symbol),
        system_name: symbol.to_owned(),
        filename: code.map(|code| code.to_path().to_string_lossy().into_owned()).unwrap_or_default(),
        line: code.and_then(|code| code.line).unwrap_or(0).into(),
    };
    // Debug information may be without the names that it shares with other files.
    let inlined = symbol.inlined.iter().rev().filter(|f| !f.name.is_empty());
    let inlined = inlined.map(|f| frame(&f.name, f.code_info.as_ref()));
    inlined.chain([frame(&symbol.name, symbol.code_info.as_deref())]).collect()
}
