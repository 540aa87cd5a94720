//! Files that are damaged or made to do harm.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::{Directory, PROFILER, checks};

/// CPU time of this thread: how long something took does not depend on what else the machine does.
fn cpu_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Checks what must hold of a mutant's table, if there is one; the longest time so far is the first
/// value.
fn survive(slowest: &mut Duration, bytes: &[u8]) -> bool {
    let start = cpu_time();
    let built = checks::unwind(bytes);
    *slowest = (cpu_time() - start).max(*slowest);
    built
}

/// Inputs that once found something, and a few that together reach most of the code.
#[test]
fn inputs_that_fuzzing_found_are_survived() {
    let targets = [
        ("unwind", checks::unwind as fn(&[u8]) -> bool),
        ("pprof", checks::pprof),
        ("scripts", checks::scripts),
    ];
    for (target, check) in targets {
        let inputs =
            fs::read_dir(format!("{}/tests/data/fuzz/{target}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let (mut all, mut good, mut slowest) = (0, 0, Duration::ZERO);
        for input in inputs {
            let bytes = fs::read(input.unwrap().path()).unwrap();
            let start = cpu_time();
            good += usize::from(check(&bytes));
            slowest = (cpu_time() - start).max(slowest);
            all += 1;
        }
        assert!(all > 20 && good > 5, "{target}: {good} of {all}");
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    }
}

/// Files of other profilers, cut off and with bytes and digits changed.
#[test]
fn damaged_files_of_other_profilers_are_survived() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut good, mut all) = (0, 0);
    let seeds = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/formats")).unwrap();
    for seed in seeds {
        let seed = fs::read(seed.unwrap().path()).unwrap();
        assert!(checks::formats(&seed));
        for _ in 0..500 {
            let mut bytes = seed.clone();
            for _ in 0..=random(3) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] = b"0123456789-,[]{}:\"; \n\xff"[random(22)],
                    1 => bytes.truncate(at + 1),
                    2 => drop(bytes.remove(at.min(bytes.len() - 2))),
                    // Numbers are indices and times.
                    _ => {
                        let digits: Vec<_> =
                            (0..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()).collect();
                        if !digits.is_empty() {
                            bytes[digits[random(digits.len())]] = b"0123456789"[random(10)];
                        }
                    }
                }
                if bytes.len() < 3 {
                    break;
                }
            }
            good += usize::from(checks::formats(&bytes));
            checks::perf(&bytes);
            all += 1;
        }
    }
    assert!(good > all / 20 && good < all, "{good} of {all}");
}

#[test]
fn truncated_files_are_survived() {
    let directory = Directory::new("truncated");
    let Some(file) = directory.compile("whole", "gcc -O2 frames.c") else { return };
    let whole = fs::read(&file).unwrap();
    let mut slowest = Duration::ZERO;
    let mut built = 0;
    for length in (0..whole.len()).step_by(11) {
        built += usize::from(survive(&mut slowest, &whole[..length]));
    }
    // Without its section headers, which come last, a file still has a table.
    assert!(built > 10, "{built}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn damaged_files_are_survived() {
    let directory = Directory::new("damaged");
    let Some(file) = directory.compile("whole", "gcc -O2 -s frames.c") else { return };
    let whole = fs::read(&file).unwrap();
    let section = |name| -> Option<(usize, usize)> {
        let output = Command::new("readelf").arg("-SW").arg(&file).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let line = text.lines().find(|line| line.contains(name))?;
        let numbers: Vec<_> = line.split(name).nth(1)?.split_whitespace().skip(2).take(2).collect();
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(numbers[0])?, number(numbers[1])?))
    };
    let headers = (0, 64 + 13 * 56);
    let eh_frame = section(" .eh_frame ").unwrap_or((0, whole.len()));
    let section_headers = (whole.len() - 64 * 29, 64 * 29);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        // xorshift64: the same mutants in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below
    };
    let mut slowest = Duration::ZERO;
    let mut built = 0;
    for mutant in 0..6_000 {
        let mut bytes = whole.clone();
        let (start, size) = [eh_frame, eh_frame, headers, section_headers][mutant % 4];
        for _ in 0..=random(4) {
            let place = start + random(size);
            match random(3) {
                0 => bytes[place] ^= 1 << random(8),
                1 => bytes[place] = [0, 0xff, 0x7f, 0x80][random(4)],
                _ => bytes[place] = random(256) as u8,
            }
        }
        built += usize::from(survive(&mut slowest, &bytes));
    }
    assert!((2_000..6_000).contains(&built), "{built}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

/// An ELF file, and where things are in it.
struct Image {
    bytes: Vec<u8>,
    /// Offset of the section headers.
    sections: usize,
    /// Offset of the header of `.eh_frame`.
    eh_frame: usize,
}

impl Image {
    fn read(file: &Path) -> Self {
        let mut this = Self { bytes: fs::read(file).unwrap(), sections: 0, eh_frame: 0 };
        this.sections = this.word(0x28, 8);
        let header = |index| this.sections + 64 * index;
        let names = this.word(header(this.word(0x3e, 2)) + 24, 8);
        this.eh_frame = (0..this.word(0x3c, 2))
            .map(header)
            .find(|header| this.bytes[names + this.word(*header, 4)..].starts_with(b".eh_frame\0"))
            .unwrap();
        this
    }

    /// Without what else a table is made of: the way to `.eh_frame` by the program headers
    /// (PT_GNU_EH_FRAME), and procedure linkage tables.
    fn with_eh_frame_alone(file: &Path) -> Self {
        let mut this = Self::read(file);
        let headers = this.word(0x20, 8);
        for header in (headers..headers + 56 * this.word(0x38, 2)).step_by(56) {
            if this.word(header, 4) == 0x6474_e550 {
                this.bytes[header..header + 4].fill(0);
            }
        }
        let names = this.sections + 64 * this.word(0x3e, 2);
        let (start, size) = (this.word(names + 24, 8), this.word(names + 32, 8));
        for at in start..start + size - 4 {
            if &this.bytes[at..at + 4] == b".plt" {
                this.bytes[at + 1] = b'q';
            }
        }
        this
    }

    fn word(&self, at: usize, size: usize) -> usize {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&self.bytes[at..at + size]);
        u64::from_le_bytes(word) as usize
    }

    fn set(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn section_headers(&self) -> impl Iterator<Item = usize> + use<> {
        (self.sections..self.sections + 64 * self.word(0x3c, 2)).step_by(64)
    }
}

/// Runs with 256 MiB of memory and 20 s of CPU time, on a file as large as it claims to be, and sparse. The
/// exit code is 0 or 1: nothing was allocated in vain, and it ended by itself.
fn limited(directory: &Directory, bytes: &[u8], size: u64) -> (Option<i32>, String) {
    let path = directory.0.join("limited");
    fs::write(&path, bytes).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
    let command = "ulimit -v 262144; ulimit -t 20; exec \"$0\" unwind-table \"$1\" >/dev/null";
    let run = Command::new("sh").args(["-c", command, PROFILER]).arg(&path).output().unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(matches!(run.status.code(), Some(0 | 1)), "{:?} {message}", run.status);
    (run.status.code(), message)
}

#[test]
fn claims_of_size_cost_nothing() {
    let directory = Directory::new("claims");
    let Some(file) = directory.compile("whole", "gcc -O2 frames.c") else { return };
    let whole = || Image::read(&file);
    for size in [2_u64 << 30, 63 << 20, u64::MAX, 1 << 63] {
        let mut image = whole();
        for header in image.section_headers() {
            image.set(header + 32, size);
        }
        limited(&directory, &image.bytes, image.bytes.len() as u64);
        limited(&directory, &image.bytes, 3 << 30);
    }
    let mut counts = whole();
    counts.bytes[0x38..0x3a].fill(0xff); // program headers
    limited(&directory, &counts.bytes, 3 << 30);
    let mut counts = whole();
    counts.bytes[0x3c..0x3e].fill(0); // section headers: see section 0
    counts.set(counts.sections + 32, 1 << 40);
    limited(&directory, &counts.bytes, 3 << 30);
    let mut section = Image::with_eh_frame_alone(&file);
    section.set(section.eh_frame + 32, 2 << 30);
    let (code, message) = limited(&directory, &section.bytes, 3 << 30);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("more than the limit"), "{message}");
}

#[test]
fn compressed_sections_do_not_explode() {
    let directory = Directory::new("compressed");
    let Some(file) = directory.compile("whole", "gcc -O2 frames.c") else { return };
    let whole = Image::read(&file);
    let mut zeros = ZlibEncoder::new(Vec::new(), Compression::best());
    zeros.write_all(&vec![0; 80 << 20]).unwrap();
    let zeros = zeros.finish().unwrap();
    for (kind, claimed, wanted) in [
        (1_u64, 2_u64 << 30, "more than the limit"),
        (1, 64 << 20, " 0 rows"),
        (1, 100, " 0 rows"),
        (2, 64 << 20, "failed to decompress"),
        (3, 64 << 20, "unknown compression 3"),
    ] {
        let mut image = Image::with_eh_frame_alone(&file);
        image.set(image.eh_frame + 8, 0x800); // SHF_COMPRESSED
        image.set(image.eh_frame + 24, whole.bytes.len() as u64);
        image.set(image.eh_frame + 32, 24 + zeros.len() as u64);
        image.bytes.extend([kind, claimed, 1].iter().flat_map(|word| word.to_le_bytes()));
        image.bytes.extend(&zeros);
        let (_, message) = limited(&directory, &image.bytes, image.bytes.len() as u64);
        assert!(message.contains(wanted), "{message}");
    }
}

/// As many entries as fit into the largest section that is read.
#[test]
fn large_sections_stay_within_limits() {
    const LARGEST: usize = 64 << 20;
    let directory = Directory::new("large");
    let Some(file) = directory.compile("whole", "gcc -O2 frames.c") else { return };
    let whole = Image::read(&file);
    let text = whole.word(0x18, 8) as u64; // e_entry
    // Version 1, no augmentation, and so absolute addresses; rsp + 8, and the return address below.
    let cie = [16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1, 0, 0];
    let fde = |place: u32, start: u64, length: u64, instructions: &[u8]| {
        let size = 20 + instructions.len() as u32;
        let head = [size.to_le_bytes(), (place + 4).to_le_bytes()].concat();
        [&head, &start.to_le_bytes()[..], &length.to_le_bytes(), instructions].concat()
    };
    let prologues = cie.repeat(LARGEST / cie.len());
    let mut functions = cie.to_vec();
    for i in 0..(2 << 20) - 1 {
        functions.extend(fde(functions.len() as u32, text + i % 256, 8, &[]));
    }
    // Advance by 1, rsp + 8 to 23.
    let steps: Vec<u8> = (0..LARGEST / 3 - 100).flat_map(|i| [0x41, 0x0e, 8 + i as u8 % 16]).collect();
    let rows = [&cie[..], &fde(cie.len() as u32, text, 1 << 31, &steps)].concat();
    for (section, wanted) in [
        (prologues, "failed to hold more than 65536 prologues"),
        (functions, " functions, "),
        (rows, "failed to hold more than 8388608 rows"),
    ] {
        let mut image = Image::read(&file);
        let offset = image.bytes.len() as u64;
        image.set(image.eh_frame + 24, offset);
        image.set(image.eh_frame + 32, section.len() as u64);
        // Whatever is loaded is large.
        let headers = image.word(0x20, 8);
        for header in (headers..headers + 56 * image.word(0x38, 2)).step_by(56) {
            if image.word(header, 4) == 1 {
                image.set(header + 32, 1 << 31);
            }
        }
        image.bytes.extend(section);
        let (_, message) = limited(&directory, &image.bytes, image.bytes.len() as u64);
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn other_files_are_refused_with_a_reason() {
    let directory = Directory::new("refused");
    let mut files =
        vec![("Cargo.toml".into(), "not an ELF file"), ("/dev/null".into(), "beyond the file's end")];
    if let Some(object) = directory.compile("frames.o", "gcc -c frames.c") {
        files.push((object, "of type 1"));
    }
    let no_eh_frame = "gcc -g -fno-asynchronous-unwind-tables -fno-unwind-tables -nostdlib -ffreestanding \
                       -shared -fPIC -Wl,-z,undefs,--no-ld-generated-unwind-info frames.c";
    if let Some(file) = directory.compile("go", no_eh_frame) {
        let name = ".note.go.buildid=/dev/null";
        let run = Command::new("objcopy")
            .args(["--add-section", name, "--rename-section", ".plt=.stubs"])
            .arg(&file)
            .status();
        assert!(run.unwrap().success());
        files.push((file, "Go's .debug_frame"));
    }
    for (file, reason) in files {
        let output = Command::new(PROFILER).arg("unwind-table").arg(&file).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.starts_with("profiler: error: failed to "), "{message}");
        assert!(message.contains(reason) && message.lines().count() == 1, "{message}");
    }
}
