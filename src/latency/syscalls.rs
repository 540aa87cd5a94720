//! Names and numbers of system calls, as the C library's headers had them where this was built.

include!(concat!(env!("OUT_DIR"), "/syscalls.rs"));

/// The number of a system call of 64-bit programs.
pub fn number(name: &str) -> Option<u32> {
    SYSCALLS.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
}

/// The name of a number.
pub fn name(number: u32) -> Option<&'static str> {
    SYSCALLS.iter().find(|(_, known)| *known == number).map(|&(name, _)| name)
}

/// Names that are like one that is not known.
pub fn like(name: &str) -> Vec<&'static str> {
    let names = SYSCALLS.iter().map(|&(known, _)| known);
    names.filter(|known| known.contains(name) || (known.len() > 2 && name.contains(known))).take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        assert_eq!(number("read"), Some(nix::libc::SYS_read as u32));
        assert_eq!(number("statx"), Some(nix::libc::SYS_statx as u32));
        assert_eq!(number("readx"), None);
        assert!(like("readx").contains(&"read"));
    }
}
