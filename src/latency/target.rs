//! What `profiler latency` is to measure, found by its name.

use std::fs::File;

use anyhow::{Context, Result, bail, ensure};

use super::file::{self, Found};
use super::syscalls;
use crate::elf::Elf;
use crate::elf::symbols::{self, Named};
use crate::machine::kallsyms::Kallsyms;
use crate::machine::rights::{self, Capability};
use crate::naming::demangle::demangle;
use crate::recording::capture::bpf::latency::Probe;

/// A target that is there.
#[derive(Debug)]
pub struct Target {
    /// As it was asked for.
    pub name: String,
    /// Its part of that, for the leaf of stacks.
    pub called: String,
    /// What of it the BPF programs are attached to.
    pub probe: Probe,
    /// Keeps it what it is.
    _file: Option<Found>,
}

impl Target {
    /// Finds `syscall:NAME`, `PROG:FUNCTION` or `kernel:FUNCTION`, in these processes or, if there are none, in any.
    ///
    /// # Errors
    /// If there is no such thing, or it cannot be measured.
    pub fn find(text: &str, processes: &[u32], may_throw: bool) -> Result<Self> {
        let (place, called) = parts(text).with_context(|| {
            format!("`{text}` is no target: expected syscall:NAME, PROG:FUNCTION or kernel:FUNCTION")
        })?;
        let (probe, file) = match place {
            "syscall" => (syscall(called)?, None),
            "kernel" => (kernel(called)?, None),
            program => {
                let found = file::find(program, processes)?;
                (function(&found, called, may_throw)?, Some(found))
            }
        };
        Ok(Self { name: text.to_owned(), called: called.to_owned(), probe, _file: file })
    }
}

/// A place and what is called there: what the last colon parts, but for those in pairs of names such as `ns::f`. A path
/// may have some, too.
fn parts(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let is_lone = |at: usize| bytes.get(at + 1) != Some(&b':') && !text[..at].ends_with(':');
    let at = text.match_indices(':').map(|(at, _)| at).rfind(|&at| is_lone(at))?;
    Some((&text[..at], &text[at + 1..])).filter(|(place, called)| !place.is_empty() && !called.is_empty())
}

fn syscall(name: &str) -> Result<Probe> {
    let number = syscalls::number(name).with_context(|| {
        let like = syscalls::like(name);
        let hint = if like.is_empty() {
            "see syscalls(2)".to_owned()
        } else {
            format!("there are {}", like.join(", "))
        };
        format!("no system call `{name}`; {hint}")
    })?;
    let returns = !["exit", "exit_group", "rt_sigreturn"].contains(&name);
    ensure!(returns, "the system call {name} does not return: there is no latency to measure");
    Ok(Probe::Syscall(number))
}

fn kernel(name: &str) -> Result<Probe> {
    let symbols = Kallsyms::read().context("failed to read /proc/kallsyms")?;
    let mut found = symbols.iter().filter(|symbol| symbol.name == name && symbol.module != Some("[bpf]"));
    let first = found.next().with_context(|| {
        format!("this kernel has no function `{name}`: see /proc/kallsyms; small functions are inlined into others")
    })?;
    if first.addr == 0 {
        bail!("the kernel's addresses are hidden: {}", rights::refusal(&[Capability::Syslog]));
    }
    ensure!(found.next().is_none(), "this kernel has several functions `{name}`, which cannot be told apart");
    Ok(Probe::Kernel(name.to_owned()))
}

fn function(of: &Found, name: &str, may_throw: bool) -> Result<Probe> {
    let Found { file, shown } = of;
    let elf = Elf::read(file).with_context(|| format!("{shown} is no program that can be measured"))?;
    // The runtime moves stacks, and finds the probe's return addresses on them.
    let is_go = [".gopclntab", ".go.buildinfo"].iter().any(|section| elf.section_address(section).is_some());
    ensure!(
        !is_go,
        "{shown} is a Go program, which return probes crash; record it with --off-cpu, or use its own trace"
    );
    ensure!(
        may_throw || !has_string(&elf, file, b"\0__cxa_throw\0"),
        "{shown} throws C++ exceptions, and one that passes through a function with a return probe ends the program; \
         --even-if-it-throws measures it, for functions that none passes through"
    );
    let exact = symbols::named(file, |symbol| symbol == name)
        .with_context(|| format!("failed to read the symbols of {shown}"))?;
    let found = match exact.is_empty() {
        false => exact,
        true => symbols::named(file, |symbol| symbol.starts_with('_') && is_called(&demangle(symbol), name))?,
    };
    let places: Vec<u64> = {
        let mut places: Vec<u64> = found.iter().map(|symbol| symbol.vaddr).collect();
        places.sort_unstable();
        places.dedup();
        places
    };
    let place = match places[..] {
        [one] => one,
        [] => bail!(
            "{shown} has no symbol of a function `{name}`: nm -D {shown} and nm {shown} show those that it has"
        ),
        _ => bail!(
            "{shown} has {} functions `{name}`: name one by its symbol, such as {}",
            places.len(),
            found[0].name
        ),
    };
    if let Some(Named { name, .. }) = found.iter().find(|symbol| symbol.is_indirect) {
        bail!(
            "{name} of {shown} is chosen from several when the program starts (IFUNC): name one of those, such as __{name}_avx2"
        );
    }
    let offset =
        elf.segments.iter().filter(|segment| segment.executable).find_map(|segment| segment.locate(place));
    let (offset, _) = offset.with_context(|| format!("{name} of {shown} lies in no code of the file"))?;
    Ok(Probe::Function { path: of.path(), offset })
}

/// Whether a file's symbols, also those that it takes from others, have a name.
fn has_string(elf: &Elf, file: &File, name: &[u8]) -> bool {
    const MOST_BYTES: u64 = 256 << 20;
    [".dynstr", ".strtab"].iter().any(|section| {
        let names = elf.section(file, section, MOST_BYTES).ok().flatten().unwrap_or_default();
        names.windows(name.len()).any(|found| found == name)
    })
}

/// Whether people call a function so: by all of its name, or that without parameters, the type that a template returns, or
/// what it is a template of.
fn is_called(full: &str, name: &str) -> bool {
    let is_plain = || {
        let Some(plain) = plain(full) else { return false };
        plain == name || without_arguments(plain) == Some(name)
    };
    full == name || full.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')) || is_plain()
}

/// The part of `int ns::f<int>(char)` that is `ns::f<int>`. Names of operators have brackets and spaces of their own.
fn plain(full: &str) -> Option<&str> {
    const NAMELESS: &str = "(anonymous namespace)";
    if full.contains("operator") {
        return None;
    }
    let (mut start, mut depth, mut at) = (0, 0_u32, 0);
    while let Some(byte) = full.as_bytes().get(at) {
        match byte {
            b'(' if full[at..].starts_with(NAMELESS) => at += NAMELESS.len() - 1,
            b'(' if depth == 0 => return Some(&full[start..at]),
            b'<' => depth += 1,
            b'>' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 => start = at + 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// `ns::f` of `ns::f<int>`.
fn without_arguments(plain: &str) -> Option<&str> {
    let mut depth = 0_u32;
    for (at, byte) in plain.bytes().enumerate().rev() {
        match byte {
            b'>' => depth += 1,
            b'<' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return plain.ends_with('>').then(|| &plain[..at]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_found_or_it_is_said_why_not() {
        let error = |text: &str| format!("{:#}", Target::find(text, &[], false).unwrap_err());
        assert_eq!(
            Target::find("syscall:read", &[], false).unwrap().probe,
            Probe::Syscall(nix::libc::SYS_read as u32)
        );
        assert!(error("syscall:raed").contains("no system call `raed`"));
        assert!(error("syscall:exit_group").contains("does not return"));
        assert!(error("read").contains("is no target"));
        assert!(error("/nowhere/prog:main").contains("/nowhere/prog"));
        assert!(error("kernel:no_such_function_here").contains("no function `no_such_function_here`"));
        let fifo = std::env::temp_dir().join(format!("profiler-target-{}", std::process::id()));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let of_fifo = error(&format!("{}:x", fifo.display()));
        std::fs::remove_file(&fifo).unwrap();
        assert!(of_fifo.contains("is no file"), "{of_fifo}");
        // This very program has it.
        let own = std::env::current_exe().unwrap();
        assert!(error(&format!("{}:no_such_function", own.display())).contains("no symbol of a function"));
    }

    #[test]
    fn the_last_colon_parts_a_place_from_a_name() {
        assert_eq!(parts("/usr/bin/a:ns::B::f(int) const"), Some(("/usr/bin/a", "ns::B::f(int) const")));
        assert_eq!(parts("/dir:with/colons:f"), Some(("/dir:with/colons", "f")));
        assert_eq!(parts("syscall:read"), Some(("syscall", "read")));
        for bad in ["read", "a::b", "prog:", ":f", ""] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_those_that_people_write() {
        assert!(is_called("ns::f(int)", "ns::f") && is_called("ns::f(int)", "ns::f(int)"));
        assert!(!is_called("ns::f2(int)", "ns::f") && !is_called("ns::f<int>::g(int)", "ns::f"));
        let template = "std::vector<int, A<int> > ns::(anonymous namespace)::f<B<int>, char>(int, char)";
        for name in ["ns::(anonymous namespace)::f<B<int>, char>", "ns::(anonymous namespace)::f", template] {
            assert!(is_called(template, name), "{name}");
        }
        for name in ["f", "A", "vector", "ns::f", "", "int", "std::vector"] {
            assert!(!is_called(template, name), "{name}");
        }
        assert!(
            is_called("ns::A<int>::f(int)", "ns::A<int>::f") && !is_called("ns::A<int>::f(int)", "ns::A")
        );
        for odd in ["operator new(unsigned long)", "ns::operator<(A, A)", "f<", "(", "", "é<(", "a b"] {
            assert!(!is_called(odd, "nothing"), "{odd}");
        }
    }
}
