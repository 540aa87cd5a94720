//! What a frame is called in text, and what kind of frame it is, by its name and its mapping.

use crate::model::profile::{Location, Mapping};
use crate::text::{basename, is_steering};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrameKind {
    /// No function: a label's value below the root, such as the name of a process.
    Process,
    /// A function of the kernel or of one of its modules.
    Kernel,
    /// A function of a program or library.
    User,
    /// A function that was inlined into the one below it.
    Inlined,
    /// Code made at run time.
    Jit,
    /// A function of a script in Python.
    Python,
    /// A function of a script in JavaScript.
    JavaScript,
    /// A method in Java.
    Java,
    /// A BPF program.
    Bpf,
    /// An address without a name.
    Unresolved,
    /// A frame of a thread that is blocked, whatever its code.
    Blocked,
    /// A frame of a thread that woke a blocked one.
    Waker,
    /// No function: a thread that waits for a CPU.
    Runnable,
}

impl FrameKind {
    /// Whether it is a function of a script.
    pub fn is_script(self) -> bool {
        matches!(self, Self::Python | Self::JavaScript | Self::Java)
    }

    /// In a word, for other programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Kernel => "kernel",
            Self::User => "user",
            Self::Inlined => "inlined",
            Self::Jit => "jit",
            Self::Python => "python",
            Self::JavaScript => "javascript",
            Self::Java => "java",
            Self::Bpf => "bpf",
            Self::Unresolved => "unresolved",
            Self::Blocked => "blocked",
            Self::Waker => "waker",
            Self::Runnable => "runnable",
        }
    }
}

/// Name of a location that has none: `libc.so.6+0x1234`, in which the number is an offset in the
/// file, or the address where no mapping is known.
pub(super) fn address_name(location: &Location, mapping: Option<&Mapping>) -> String {
    match mapping {
        Some(mapping) if !mapping.path.is_empty() => {
            format!("{}+{:#x}", basename(&mapping.path), offset_in_file(location, mapping))
        }
        _ => format!("{:#x}", location.address),
    }
}

/// Where in the file of a mapping a location is. Nothing makes a foreign file's addresses lie within their mappings.
pub(super) fn offset_in_file(location: &Location, mapping: &Mapping) -> u64 {
    location.address.wrapping_sub(mapping.memory_start).wrapping_add(mapping.file_offset)
}

/// Kind of a function that is [`FrameKind::Inlined`], or else by what its mapping holds.
pub(super) fn kind(name: &str, place: Option<FrameKind>) -> FrameKind {
    match place {
        Some(FrameKind::Inlined) => FrameKind::Inlined,
        _ if is_unresolved(name) => FrameKind::Unresolved,
        None | Some(FrameKind::Kernel) if is_bpf_program(name) => FrameKind::Bpf,
        place => place.unwrap_or(FrameKind::User),
    }
}

/// Kind of the code that a mapping holds.
pub fn mapping_kind(path: &str) -> FrameKind {
    const MODULE_ENDS: [&str; 4] = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"];
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let file = basename(path);
    if let Some(inner) = path.strip_prefix('[') {
        return match inner.split([']', ':', '.']).next().unwrap_or_default() {
            "bpf" | "bpf programs" => FrameKind::Bpf,
            "jit" | "anon" | "anon_shmem" => FrameKind::Jit,
            "python" => FrameKind::Python,
            "javascript" => FrameKind::JavaScript,
            "java" => FrameKind::Java,
            "vdso" | "vdso32" | "vvar" | "vsyscall" | "vectors" | "sigpage" | "heap" | "stack"
            | "uprobes" | "unknown" | "" => FrameKind::User,
            // `[kernel.kallsyms]`, `[guest.kernel.kallsyms]`, or a module such as `[ext4]`.
            _ => FrameKind::Kernel,
        };
    }
    let is_perf_map = file.starts_with("perf-") && file.ends_with(".map");
    // What perf makes of a jitdump, and the shared memory that .NET writes its code through.
    let is_jit_image = file.starts_with("jitted-") && file.ends_with(".so");
    if is_perf_map || is_jit_image || path.starts_with("//anon") || path.starts_with("/memfd:doublemapper") {
        return FrameKind::Jit;
    }
    if MODULE_ENDS.iter().any(|end| file.ends_with(end)) || file == "vmlinux" || file.starts_with("vmlinux-")
    {
        return FrameKind::Kernel;
    }
    FrameKind::User
}

/// True for `bpf_prog_` + 16 hex digits of the tag + `_name`, the kernel's name of a BPF program.
/// The tag counts: `bpf_prog_load` is a function of libbpf, `bpf_prog_alloc` one of the kernel.
fn is_bpf_program(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("bpf_prog_") else { return false };
    let tag = rest.split('_').next().unwrap_or_default();
    tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// True for the names that a recording gives to what has none: `libfoo.so+0x12 [stripped binary]`,
/// `0x7f00 [no mapping]`, `[truncated: …]`.
fn is_unresolved(name: &str) -> bool {
    if name.starts_with('[') {
        return true;
    }
    let Some((place, reason)) = name.rsplit_once(" [") else { return false };
    if !reason.ends_with(']') {
        return false;
    }
    let address = place.rsplit_once('+').map_or(place, |(_, offset)| offset);
    address
        .strip_prefix("0x")
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Kind of a frame that is no code but stands for something else.
pub(super) fn marker_kind(name: &str) -> Option<FrameKind> {
    let inner = name.strip_prefix('[')?.strip_suffix(']')?;
    match inner {
        "runnable" => Some(FrameKind::Runnable),
        "bpf programs" => Some(FrameKind::Bpf),
        // As in `[3 idle threads: 1.0 s]`.
        _ => {
            let mut words = inner.split(' ');
            let count = words.next()?.parse::<u64>();
            let is_idle = count.is_ok() && words.next() == Some("idle");
            is_idle.then_some(FrameKind::Blocked)
        }
    }
}

/// What has no name.
pub const UNNAMED: &str = "[unnamed]";

/// A name as people see it: whitespace and control characters are spaces, what XML cannot hold or turns the text
/// around it is U+FFFD, and what is empty says so.
pub(super) fn clean(name: &str) -> String {
    let trimmed = name.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    let text: String = trimmed
        .chars()
        .map(|c| match c {
            c if c.is_control() || c.is_whitespace() => ' ',
            c if is_steering(c) => '\u{fffd}',
            '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            c => c,
        })
        .collect();
    if text.is_empty() { UNNAMED.to_owned() } else { text }
}

/// A name as it may stand in a folded line: clean, and `;` becomes `:`. `name 12` becomes `name_12`, for it would
/// read as a count, and `# name` becomes `#_name`, for it would read as a comment.
pub(super) fn escape(name: &str) -> String {
    let mut text = clean(name).replace(';', ":");
    if let Some(space) = text.rfind(' ') {
        let end = &text[space + 1..];
        if end.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            text.replace_range(space..=space, "_");
        }
    }
    if text.starts_with("# ") {
        text.replace_range(1..2, "_");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_break_lines() {
        assert_eq!(escape("[u8; 8]::len"), "[u8: 8]::len");
        assert_eq!(escape("a\nb\tc\u{a0}d\u{7f}"), "a b c d");
        assert_eq!(escape("worker 3"), "worker_3");
        assert_eq!(escape("took 1 2.5"), "took 1_2.5");
        assert_eq!(escape("worker 3a"), "worker 3a");
        assert_eq!(escape("# comment"), "#_comment");
        assert_eq!(escape(" \r\n"), "[unnamed]");
        assert_eq!(escape("\u{ffff}"), "\u{fffd}");
        assert_eq!(escape("a\u{202e}b"), "a\u{fffd}b");
    }

    #[test]
    fn mappings_tell_kinds() {
        use FrameKind::*;
        for (path, kind) in [
            ("[kernel.kallsyms]", Kernel),
            ("[kernel.kallsyms]_stext", Kernel),
            ("[guest.kernel.kallsyms]", Kernel),
            ("[nf_tables]", Kernel),
            ("/lib/modules/6.1.0/kernel/fs/ext4/ext4.ko.xz", Kernel),
            ("/usr/lib/debug/boot/vmlinux-6.1.0", Kernel),
            ("[bpf]", Bpf),
            ("[jit]", Jit),
            ("[python]", Python),
            ("[javascript]", JavaScript),
            ("[java]", Java),
            ("//anon", Jit),
            ("[anon]", Jit),
            ("[anon:v8]", Jit),
            ("/tmp/perf-12.map", Jit),
            ("/memfd:doublemapper (deleted)", Jit),
            ("[vdso]", User),
            ("[stack:12]", User),
            ("[uprobes]", User),
            ("/usr/bin/perf-archive", User),
            ("/usr/lib/x86_64-linux-gnu/libc.so.6", User),
            ("", User),
        ] {
            assert_eq!(mapping_kind(path), kind, "{path}");
        }
    }

    #[test]
    fn names_tell_kinds() {
        let (kernel, user) = (Some(FrameKind::Kernel), Some(FrameKind::User));
        let program = "bpf_prog_6deef7357e7b4530_sd_fw_egress";
        assert_eq!(kind(program, kernel), FrameKind::Bpf);
        assert_eq!(kind("bpf_prog_alloc", kernel), FrameKind::Kernel);
        assert_eq!(kind("bpf_prog_load", user), FrameKind::User);
        for name in ["a.so.1+0x1f [stripped binary]", "0x7f00 [no mapping]", "[truncated: deep]"] {
            assert_eq!(kind(name, user), FrameKind::Unresolved, "{name}");
        }
        assert_eq!(marker_kind("[29 idle threads: 677.0 s]"), Some(FrameKind::Blocked));
        assert_eq!(marker_kind("[bpf programs]"), Some(FrameKind::Bpf));
        assert_eq!(marker_kind("[truncated: deep]"), None);
        for name in ["main", "operator new [](x)", "f [clone]", "f+0xzz [x]", "0x [x]", "f+0x1"] {
            assert_eq!(kind(name, user), FrameKind::User, "{name}");
        }
    }
}
