//! Names of the kernel's code.
//!
//! `/proc/kallsyms` has no sizes: a symbol reaches to the next one. That holds within the image; behind it are gaps,
//! in which the last symbol before an address says nothing of it. What is there belongs to a module as far as
//! `/proc/modules` says that it reaches, to a BPF program that no event has told of, or to nobody any more.
//! The page of old system calls that every x86-64 process has (`[vsyscall]`) is an address of the kernel's too.

use std::collections::HashMap;
use std::ops::Range;

use super::names::{Frame, Names};
use super::resolver::{self, Depth};
use crate::machine::kallsyms::{Kallsyms, Symbol};
use crate::model::profile::{Mapping, MappingId, Profile};

/// The same in every process, and on every machine.
const VSYSCALL: Range<u64> = 0xffff_ffff_ff60_0000..0xffff_ffff_ff60_1000;
/// Of kernels, with room to spare: what lies further behind the first symbol is looked at closely.
const LARGEST_TEXT: u64 = 64 << 20;
/// Of a BPF program whose length nobody has told. Most have some hundred bytes.
const LONGEST_PROGRAM: u64 = 64 << 10;

/// Names of addresses in the kernel.
pub fn names(addrs: &[u64]) -> Vec<Names> {
    let mut names = resolver::in_kernel(addrs, Depth::Lines);
    // Hidden addresses read as 0 and would name everything after the last symbol.
    if names.iter().all(|name| name.is_err()) {
        names.fill(Err("kernel symbols hidden: needs CAP_SYSLOG and kernel.kptr_restrict below 2"));
    }
    let lowest = addrs.iter().min().copied().unwrap_or(0);
    // kallsyms takes the kernel a while to print.
    let code = if addrs.iter().any(|&addr| addr - lowest > LARGEST_TEXT && !VSYSCALL.contains(&addr)) {
        Code::read()
    } else {
        None
    };
    for (names, &addr) in names.iter_mut().zip(addrs) {
        if VSYSCALL.contains(&addr) {
            *names = Ok(vec![Frame::named("[vsyscall]")]);
        } else if code.as_ref().is_some_and(|code| names.is_ok() && !code.holds(addr)) {
            *names = Err("no symbol");
        }
    }
    names
}

/// Where the kernel has code.
struct Code {
    /// Symbols by address, and the module that each is in.
    symbols: Vec<(u64, Option<Box<str>>)>,
    /// First address behind each module.
    ends: HashMap<Box<str>, u64>,
}

impl Code {
    /// That of the running kernel; `None` where its addresses are hidden.
    fn read() -> Option<Self> {
        let kallsyms = Kallsyms::read().ok()?;
        let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
        Self::of(kallsyms.iter(), &modules)
    }

    fn of<'a>(symbols: impl Iterator<Item = Symbol<'a>>, modules: &str) -> Option<Self> {
        let mut symbols: Vec<(u64, Option<Box<str>>)> = symbols
            .filter(|symbol| symbol.addr != 0)
            .map(|symbol| (symbol.addr, symbol.module.map(Into::into)))
            .collect();
        symbols.sort_unstable();
        let ends = modules.lines().filter_map(|line| {
            // `ext4 1056768 2 - Live 0xffffffffc0123000`
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let start = u64::from_str_radix(fields.get(5)?.strip_prefix("0x")?, 16).ok()?;
            let end = start.checked_add(fields.get(1)?.parse().ok()?)?;
            (start != 0).then(|| (format!("[{}]", fields[0]).into(), end))
        });
        let ends = ends.collect();
        (!symbols.is_empty()).then_some(Self { symbols, ends })
    }

    /// The module in which an address lies, in brackets; inside, `None` in the image. `None` where no symbol reaches.
    fn module(&self, addr: u64) -> Option<Option<&str>> {
        let next = self.symbols.partition_point(|(start, _)| *start <= addr);
        let (start, module) = &self.symbols[next.checked_sub(1)?];
        let end = match module.as_deref() {
            Some("[bpf]") => start.saturating_add(LONGEST_PROGRAM),
            // Its end may be hidden where the symbols are not.
            Some(module) => self.ends.get(module).copied().unwrap_or(u64::MAX),
            // Behind the image's last symbol, which has no length, the page that it is in is its own.
            None => match self.symbols.get(next) {
                Some((_, None)) => u64::MAX,
                _ => (start | 0xfff) + 1,
            },
        };
        (addr < end).then_some(module.as_deref())
    }

    fn holds(&self, addr: u64) -> bool {
        self.module(addr).is_some()
    }
}

/// Gives the addresses of each kernel module a mapping of their own, `[name]`, by kallsyms.
pub fn split_modules(profile: &mut Profile, kernel: MappingId) {
    // Without modules there is nothing to split, and kallsyms takes the kernel a while to print.
    let has_modules = !std::fs::read("/proc/modules").unwrap_or_default().is_empty();
    let code = if has_modules { Code::read() } else { None };
    split(profile, kernel, |addr| match &code {
        _ if VSYSCALL.contains(&addr) => Some("[vsyscall]"),
        Some(code) => code.module(addr).flatten(),
        None => None,
    });
}

fn split<'a>(profile: &mut Profile, kernel: MappingId, module_at: impl Fn(u64) -> Option<&'a str>) {
    let mut modules: HashMap<&str, MappingId> = HashMap::new();
    for location in profile.locations.iter_mut().filter(|location| location.mapping == Some(kernel)) {
        let Some(module) = module_at(location.address) else { continue };
        let mappings = &mut profile.mappings;
        let id = *modules.entry(module).or_insert_with(|| {
            let range = location.address..location.address;
            mappings.push(Mapping {
                path: module.to_owned(),
                memory_start: range.start,
                memory_limit: range.end,
                has_functions: true,
                ..Mapping::default()
            });
            MappingId::from(mappings.len() - 1)
        });
        let mapping = &mut mappings[id.index()];
        mapping.memory_start = mapping.memory_start.min(location.address & !0xfff);
        mapping.memory_limit = mapping.memory_limit.max((location.address | 0xfff) + 1);
        location.mapping = Some(id);
    }
    if modules.is_empty() {
        return;
    }
    // What is left is the kernel's image alone: a range that holds no module.
    let left = profile.locations.iter().filter(|location| location.mapping == Some(kernel));
    let (low, high) = left
        .fold((u64::MAX, 0), |(low, high), location| (low.min(location.address), high.max(location.address)));
    if low <= high {
        let mapping = &mut profile.mappings[kernel.index()];
        (mapping.memory_start, mapping.memory_limit) = (low & !0xfff, (high | 0xfff) + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbol_reaches_no_further_than_what_it_is_in() {
        const IMAGE: u64 = 0xffff_ffff_8100_0000;
        const MODULE: u64 = 0xffff_ffff_c012_3000;
        const PROGRAM: u64 = 0xffff_ffff_c040_0000;
        let symbol = |addr, module| Symbol { addr, name: "f", module };
        let symbols = [
            symbol(IMAGE, None),
            symbol(IMAGE + 0x1_0000, None),
            symbol(MODULE + 0x40, Some("[ext4]")),
            symbol(PROGRAM, Some("[bpf]")),
        ];
        let modules = format!("ext4 8192 2 - Live {MODULE:#x}\nhidden 4096 0 - Live 0x0000000000000000\n");
        let code = Code::of(symbols.into_iter(), &modules).unwrap();
        for (addr, module) in [
            (IMAGE - 1, None),
            (IMAGE + 0xffff, Some(None)),
            (IMAGE + 0x1_0fff, Some(None)),
            (IMAGE + 0x1_1000, None),
            (MODULE + 0x1fff, Some(Some("[ext4]"))),
            (MODULE + 0x2000, None),
            (PROGRAM + 0x80, Some(Some("[bpf]"))),
            (PROGRAM + LONGEST_PROGRAM, None),
        ] {
            assert_eq!(code.module(addr), module, "{addr:#x}");
        }
        assert!(Code::of([symbol(0, None)].into_iter(), "").is_none());
    }
}
