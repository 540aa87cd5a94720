//! What to do where the machine has run out of something, by the kernel's error.

use std::io;

use nix::errno::Errno;

/// What to do about an error, if it is a shortage.
pub fn remedy(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::EMFILE => "raise this process's limit of open files (ulimit -n)",
        Errno::ENFILE => "raise the machine's limit of open files (sysctl fs.file-max)",
        Errno::ENOMEM => {
            "free some memory, or raise what limits it (memory.max of the cgroup, ulimit -v, ulimit -l)"
        }
        Errno::EFBIG => "raise this process's limit of the size of files (ulimit -f)",
        Errno::ENOSPC | Errno::EDQUOT => "free some space",
        _ => return None,
    })
}

/// What to do about the error in a message, unless it says so. Errors of libraries tell their number in their text
/// alone, as the standard library and nix write it.
pub fn remedy_in(message: &str) -> Option<&'static str> {
    // Not ENOSPC, which the kernel says of other things than disks as well.
    let errnos = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];
    let remedy = errnos.into_iter().find(|&errno| names(message, errno)).and_then(remedy);
    remedy.filter(|remedy| !message.contains(remedy))
}

/// Whether an error is that there was no memory.
pub fn is_of_memory(error: &anyhow::Error) -> bool {
    names(&format!("{error:#}"), Errno::ENOMEM)
}

fn names(message: &str, errno: Errno) -> bool {
    let told = [format!("(os error {})", errno as i32), format!("{errno:?}: ")];
    told.iter().any(|told| message.contains(told))
}

/// An error of a library that has forgotten that the kernel's numbers are positive where they are told to people.
pub fn with_positive_number(message: String) -> String {
    let number = message.split_once("(os error -").and_then(|(_, rest)| rest.split_once(')'));
    match number.and_then(|(digits, _)| digits.parse().ok()) {
        Some(number) => io::Error::from_raw_os_error(number).to_string(),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortages_are_found_as_they_are_told() {
        let by_std = io::Error::from_raw_os_error(Errno::EMFILE as i32).to_string();
        assert!(remedy_in(&format!("failed: {by_std}")).unwrap().contains("ulimit -n"));
        assert!(remedy_in(&format!("failed: {}", Errno::ENOMEM)).unwrap().contains("memory"));
        assert_eq!(remedy_in("failed: No such file or directory (os error 2)"), None);
    }

    #[test]
    fn numbers_are_the_kernels() {
        let wrong = io::Error::from_raw_os_error(-(Errno::ENOMEM as i32)).to_string();
        let right = io::Error::from_raw_os_error(Errno::ENOMEM as i32).to_string();
        assert_eq!(with_positive_number(wrong), right);
        assert_eq!(with_positive_number(right.clone()), right);
    }
}
