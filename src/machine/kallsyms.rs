//! The kernel's own symbols, as `/proc/kallsyms` lists them: `ADDRESS TYPE NAME`, then after a tab the
//! module in brackets. Where addresses are hidden (kernel.kptr_restrict) they read as 0.

use std::fs;
use std::io;
use std::ops::Range;

/// The text of the list, to be walked by [`Kallsyms::iter`].
pub struct Kallsyms(Vec<u8>);

/// A line of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Address; 0 if it is hidden.
    pub addr: u64,
    /// Name.
    pub name: &'a str,
    /// Module, in brackets; `[bpf]` for BPF programs; `None` in the kernel's image.
    pub module: Option<&'a str>,
}

impl Kallsyms {
    /// Reads the list.
    ///
    /// # Errors
    /// If `/proc/kallsyms` cannot be read.
    pub fn read() -> io::Result<Self> {
        fs::read("/proc/kallsyms").map(Self)
    }

    /// Its symbols: those of the image in the order of their addresses, then the modules'.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> + Clone {
        self.0.split(|&byte| byte == b'\n').filter_map(parse)
    }

    /// Address ranges of the symbols that are asked for. A symbol ends where the next address begins.
    pub fn ranges(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, Range<u64>)> {
        let mut symbols = self.iter();
        let mut found = Vec::new();
        while let Some(Symbol { addr, name, .. }) = symbols.by_ref().find(|symbol| wanted(symbol.name)) {
            // Some symbols share an address.
            let end = symbols.clone().map(|symbol| symbol.addr).find(|&next| next > addr);
            found.extend(end.map(|end| (name.to_owned(), addr..end)));
        }
        found
    }
}

fn parse(line: &[u8]) -> Option<Symbol<'_>> {
    let line = std::str::from_utf8(line).ok()?;
    let mut fields = line.split_ascii_whitespace();
    let addr = u64::from_str_radix(fields.next()?, 16).ok()?;
    Some(Symbol { addr, name: fields.nth(1)?, module: fields.next() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = b"ffffffff81000000 T _stext\nffffffff81000000 t same\nffffffff81000040 T next\n\
            ffffffffc0001000 t of_module\t[ext4]\ngarbage\n\xff\n";
        let symbols = Kallsyms(text.to_vec());
        assert_eq!(symbols.iter().count(), 4);
        let last = Symbol { addr: 0xffff_ffff_c000_1000, name: "of_module", module: Some("[ext4]") };
        assert_eq!(symbols.iter().last(), Some(last));
        let stext = symbols.ranges(|name| name == "_stext");
        assert_eq!(stext, [("_stext".to_owned(), 0xffff_ffff_8100_0000..0xffff_ffff_8100_0040)]);
    }
}
