//! Files that people hand to a viewer and that are not read, by name and with what to do about them.

use super::text;

const LEGACY: &str = "a profile in one of pprof's old formats, which have addresses and no names: convert it with \
                      `go tool pprof -proto -output=new.pb.gz BINARY FILE`";
const HTML: &str = "an HTML page: name the profile itself; a server may have sent the page in its place";
const SVG: &str = "an XML or SVG file: name the profile that it was drawn from";
const PERF_DATA: &str =
    "a perf.data file: name the output of `perf script`, or record with `profiler record`";
const CALLGRIND: &str = "a file of callgrind: see it with `callgrind_annotate` or KCachegrind";
const BPFTRACE: &str =
    "the output of bpftrace: fold its stacks with `stackcollapse-bpftrace.pl`, and name what that writes";
const MACH_O: &str = "a program or library of macOS: name a profile";
const PSTATS: &str = "a profile of Python's cProfile, which has no stacks: see it with `python3 -m pstats FILE`, or record \
                      with `profiler record`";

/// By the first bytes.
const STARTS: &[(&[u8], &str)] = &[
    (b"heap profile:", LEGACY),
    (b"heapz ", LEGACY),
    (b"growthz ", LEGACY),
    (b"fragmentationz ", LEGACY),
    (b"goroutine profile:", LEGACY),
    (b"threadcreate profile:", LEGACY),
    (b"--- symbol", LEGACY),
    (b"--- profile", LEGACY),
    (b"--- heap", LEGACY),
    (b"--- growth", LEGACY),
    (b"--- contention", LEGACY),
    (b"--- mutex:", LEGACY),
    (b"--- threadz", LEGACY),
    (
        b"--- Execution profile ---",
        "text that async-profiler made for people: record with `asprof -o collapsed`, or `-o jfr`",
    ),
    (b"cycles/second", LEGACY),
    (
        b"heap_v2/",
        "a heap profile of jemalloc: fold it with `jeprof --collapsed BINARY FILE`, and name what that writes",
    ),
    (b"PERFILE2", PERF_DATA),
    (b"2ELIFREP", PERF_DATA),
    (b"gmon\x01", "a profile of gprof, which has no stacks: see it with `gprof BINARY FILE`"),
    (b"gmon\0", "a profile of gprof, which has no stacks: see it with `gprof BINARY FILE`"),
    (b"memray\0", "a recording of memray: see it with `memray flamegraph FILE`"),
    (
        b"SQLite format 3\0",
        "a database of SQLite, as Nsight Systems and other profilers export: name a profile",
    ),
    (b"version: 1\ncreator: ", CALLGRIND),
    (b"desc: --massif", "a file of massif, which has no stacks of time: see it with `ms_print`"),
    (b"desc: ", "a file of cachegrind or another tool of Valgrind: see it with `cg_annotate` or `ms_print`"),
    (b"@[\n", BPFTRACE),
    (
        b"FLR\0",
        "a recording of Java's Flight Recorder: fold it with async-profiler's `jfrconv --cpu FILE out.collapsed`",
    ),
    (b"Nettrace", "a trace of .NET: convert it with `dotnet-trace convert --format speedscope FILE`"),
    (b"# callgrind format", CALLGRIND),
    (
        b"v8-version,",
        "a log of V8: make a profile of it with `node --prof-process --preprocess`, or record with `node --cpu-prof`",
    ),
    (b"\x7fELF", "a program or library: record it with `profiler record`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it with `zstd -d` first"),
    (b"\xfd7zXZ\0", "compressed with xz: unpack it with `xz -d` first"),
    (b"BZh", "compressed with bzip2: unpack it with `bzip2 -d` first"),
    (b"\x04\x22\x4d\x18", "compressed with lz4: unpack it with `lz4 -d` first"),
    (b"PK\x03\x04", "a zip archive: unpack it, and name the profile in it"),
    (b"\x1f\x9d", "compressed with compress: unpack it with `gzip -d` first"),
    (b"7z\xbc\xaf\x27\x1c", "an archive of 7-Zip: unpack it with `7z x`, and name the profile in it"),
    (b"\x5d\0\0", "compressed with lzma: unpack it with `xz -d` first"),
    (b"\xcf\xfa\xed\xfe", MACH_O),
    (b"\xce\xfa\xed\xfe", MACH_O),
    (b"\xfe\xed\xfa\xcf", MACH_O),
    (b"\xfe\xed\xfa\xce", MACH_O),
    (b"\xca\xfe\xba\xbe", "a class of Java, or a program or library of macOS: name a profile"),
    // A dictionary of tuples, as `marshal` writes it.
    (b"{)", PSTATS),
    (b"{\xa9", PSTATS),
    (b"{(", PSTATS),
    (b"{\xa8", PSTATS),
    (b"\xfb)", PSTATS),
    (b"\xfb\xa9", PSTATS),
    (b"\xfb(", PSTATS),
    (b"\xfb\xa8", PSTATS),
    (b"\x1f\x8b", "gzip in gzip in gzip: unpack it with `gzip -d` first"),
];

/// By the first characters, in any case, behind white space.
const WORDS: &[(&str, &str)] =
    &[("<!doctype html", HTML), ("<html", HTML), ("<?xml", SVG), ("<svg", SVG), ("<!doctype svg", SVG)];

/// What a file is that is not read.
pub(super) fn name(data: &[u8]) -> Option<&'static str> {
    let at = |start: &&(&[u8], &'static str)| {
        // `{(` may begin a stack of a closure.
        data.starts_with(start.0) && (start.1 != PSTATS || data[0] != b'{' || !text::is_nearly_text(data))
    };
    if let Some((_, what)) = STARTS.iter().find(at) {
        return Some(what);
    }
    let start = text::start(data);
    let begins =
        |word: &str| start.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    if let Some((_, what)) = WORDS.iter().find(|(word, _)| begins(word)) {
        return Some(what);
    }
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    if line.starts_with(b"goroutine ") && line.ends_with(b"]:") {
        return Some("stacks of goroutines, as Go prints them in a panic: record with `profiler record`");
    }
    if line.starts_with(b"Attach") && (line.ends_with(b" probe...") || line.ends_with(b" probes...")) {
        return Some(BPFTRACE);
    }
    if is_legacy_cpu(data) {
        return Some(LEGACY);
    }
    if data.get(257..262) == Some(b"ustar") {
        return Some("a tar archive: unpack it with `tar -xf`, and name the profile in it");
    }
    if data.starts_with(b"go 1.")
        && data.get(..16).is_some_and(|start| start.windows(6).any(|word| word == b" trace"))
    {
        return Some(
            "a trace of Go's execution: see it with `go tool trace`; /debug/pprof/profile has the profile",
        );
    }
    // The window's size and the method, whose sum is a multiple of 31; text may begin so.
    let is_zlib = matches!(data, [0x78, flags, ..] if (0x7800 + u16::from(*flags)) % 31 == 0);
    (is_zlib && (data[1] >= 0x80 || !text::is_text(data)))
        .then_some("compressed with zlib: unpack it with `pigz -dz` or `zlib-flate -uncompress` first")
}

/// The binary CPU profiles of gperftools and of old Go: words of 4 or 8 bytes, of either order, that begin
/// with 0, 3, 0 (or 1, Java's), the period, 0.
fn is_legacy_cpu(data: &[u8]) -> bool {
    let words = |size: usize, little: bool| {
        let word = |at: usize| {
            let bytes = data.get(at * size..(at + 1) * size)?;
            let push = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
            Some(if little { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) })
        };
        matches!(
            (word(0), word(1), word(2), word(3), word(4)),
            (Some(0), Some(3), Some(0 | 1), Some(1..), Some(0))
        )
    };
    [(4, true), (4, false), (8, true), (8, false)].into_iter().any(|(size, little)| words(size, little))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_old_cpu_profiles() {
        for size in [4, 8] {
            for little in [true, false] {
                for third in [0, 1] {
                    let word = |number: u64| {
                        let mut bytes = number.to_be_bytes()[8 - size..].to_vec();
                        if little {
                            bytes.reverse();
                        }
                        bytes
                    };
                    let data = [0, 3, third, 10_000, 0, 1, 1, 0x1000].map(word).concat();
                    assert_eq!(name(&data), Some(LEGACY));
                }
            }
        }
    }

    #[test]
    fn starts_tell_files() {
        let tar = [&[b'x'; 257][..], b"ustar\x0000"].concat();
        for (data, words) in [
            (&b"2ELIFREP\0\0"[..], "a perf.data file"),
            (b"gmon\x01\0\0\0", "gprof"),
            (b"go 1.22 trace\0\0\0", "trace of Go's execution"),
            (b"\xfb)\x03\xfa\x01~\xe9", "cProfile"),
            (b"\xfb(\xe9\x01", "cProfile"),
            (b"{(\x03\0\0\0", "cProfile"),
            (b"\xcf\xfa\xed\xfe\x07", "of macOS"),
            (b"SQLite format 3\0", "SQLite"),
            (b"x\x9c\x4d\xcc", "compressed with zlib"),
            (b"\x1f\x9d\x90", "compressed with compress"),
            (b"7z\xbc\xaf\x27\x1c\0", "7-Zip"),
            (b"]\0\0\x80\0", "compressed with lzma"),
            (b"memray\0\x0b", "memray"),
            (&tar, "a tar archive"),
            (b"--- Execution profile ---\n", "asprof -o collapsed"),
            (b"--- threadz 1 ---\n", "old formats"),
            (b"\n<!DOCTYPE HTML>", "an HTML page"),
            (b"<HTML>", "an HTML page"),
            (b"\xef\xbb\xbf<?XML ?>", "an XML or SVG file"),
            (b"version: 1\ncreator: xdebug 3\n", "callgrind"),
            (b"desc: --massif\n", "ms_print"),
            (b"desc: I1 cache:\n", "cg_annotate"),
            (b"goroutine 1 [running]:\n", "goroutines"),
            (b"goroutine profile: total 3\n", "old formats"),
            (b"Attaching 1 probe...\n", "bpftrace"),
        ] {
            let found = name(data).unwrap_or_default();
            assert!(found.contains(words), "{found:?}, not {words}");
        }
        for data in [
            &b"--- a/x\n+++ b/x\n"[..],
            b"{(closure)};a 3\n",
            b"x^;a 3\n",
            b"main;a 3\n",
            b"\x0a\x04\x08\x01",
            b"",
        ] {
            assert_eq!(name(data), None, "{data:?}");
        }
    }
}
