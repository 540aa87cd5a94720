//! The names that people gave to functions, from the symbols that compilers made of them.

use std::panic::catch_unwind;

/// Longer ones are left as they are: they take long and nobody reads them.
const LONGEST: usize = 1 << 16;

/// The name behind a symbol of C++ or Rust; any other symbol is its own name.
pub fn demangle(symbol: &str) -> String {
    if symbol.len() > LONGEST || !symbol.starts_with('_') {
        return symbol.to_owned();
    }
    // Symbols are untrusted: one that makes a demangler panic costs its own name.
    catch_unwind(|| rust(symbol).or_else(|| cpp(symbol))).ok().flatten().unwrap_or_else(|| symbol.to_owned())
}

fn rust(symbol: &str) -> Option<String> {
    // The alternative form leaves the hash out.
    rustc_demangle::try_demangle(symbol).ok().map(|name| format!("{name:#}"))
}

fn cpp(symbol: &str) -> Option<String> {
    cpp_demangle::Symbol::new(symbol).ok()?.demangle().ok()
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_of_each_language() {
        for (symbol, name) in [
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_ZN3foo3barEi", "foo::bar(int)"),
            ("main", "main"),
            ("_start", "_start"),
            ("_Z", "_Z"),
            ("", ""),
        ] {
            assert_eq!(demangle(symbol), name, "{symbol}");
        }
    }
}
