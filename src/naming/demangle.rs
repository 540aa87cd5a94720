//! The names that people gave to functions, from the symbols that compilers made of them.

use std::fmt;
use std::panic::catch_unwind;

use cpp_demangle::{DemangleOptions, DemangleWrite};

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
    let mut name = Bounded(String::new());
    let symbol = cpp_demangle::Symbol::new(symbol).ok()?;
    symbol.structured_demangle(&mut name, &DemangleOptions::new()).ok()?;
    Some(name.0)
}

/// Text that ends the demangling where it becomes too long: a symbol's parts may refer to each other,
/// so that each byte of it doubles the name.
struct Bounded(String);

impl DemangleWrite for Bounded {
    fn write_string(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
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

    #[test]
    fn names_that_grow_without_end_are_given_up() {
        // A pair of the type before it, again and again: each two characters double the name.
        let digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut symbol = "_Z1f1pI1aS0_E".to_owned();
        for at in digits.chars() {
            symbol += &format!("1pIS{at}_S{at}_E");
        }
        let started = std::time::Instant::now();
        assert!(demangle(&symbol).len() <= super::LONGEST);
        assert!(started.elapsed().as_secs() < 10);
    }
}
