//! Unwind tables of real, of odd and of hostile files. What is right is said by readelf, through
//! the judge in `tests/judges/ehrows.py`, which shares no code with the program.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use profiler::unwind::table::Table;
use profiler::unwind::{self, Rule};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/unwind");
const JUDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/ehrows.py");
const PROFILER: &str = env!("CARGO_BIN_EXE_profiler");

/// A directory of its own for a test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("profiler-unwind-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Compiles; none if there is no such compiler.
    fn compile(&self, name: &str, command: &str) -> Option<PathBuf> {
        let output = self.0.join(name);
        let mut words = command.split(' ');
        let compiler = words.next().unwrap();
        let run = Command::new(compiler).args(words).arg("-o").arg(&output).current_dir(DATA).output();
        let Ok(run) = run else {
            skip(&format!("{compiler} is not installed, so nothing was compiled by it"));
            return None;
        };
        assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
        Some(output)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Says where nobody can overlook it that a part of a test did not run.
fn skip(why: &str) {
    // Unlike `eprintln!`, this is not captured when the test passes.
    let _ = writeln!(std::io::stderr(), "SKIP: {why}");
}

/// What the judge says, none if it cannot run here.
fn judgement(file: &Path) -> Option<Output> {
    for tool in ["python3", "readelf"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(&format!("{tool} is not installed, so no judge looked at the rows"));
            return None;
        }
    }
    Some(Command::new("python3").args([JUDGE, PROFILER]).arg(file).output().unwrap())
}

fn judge(file: &Path) {
    let Some(output) = judgement(file) else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    print!("{text}");
}

fn table(file: &Path) -> Table {
    unwind::build(&File::open(file).unwrap()).unwrap()
}

/// The rows as printed, without their addresses.
fn printed(file: &Path) -> Vec<String> {
    let output = Command::new(PROFILER).arg("unwind-table").arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rule = |line: &str| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
    text.lines().skip(1).map(rule).collect()
}

#[test]
fn libraries_of_this_machine_are_as_readelf_says() {
    let mut files = vec![PathBuf::from(PROFILER)];
    // What this process, and what Python, have loaded.
    let maps =
        Command::new("python3").args(["-c", "import ssl; print(open('/proc/self/maps').read())"]).output();
    let maps = maps.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for line in maps.lines().chain(fs::read_to_string("/proc/self/maps").unwrap().lines()) {
        let mut words = line.split_whitespace().skip(1);
        if words.next().is_some_and(|flags| flags.contains('x'))
            && let Some(path) = words.nth(3).filter(|path| path.starts_with('/'))
        {
            files.push(path.into());
        }
    }
    files.extend(["/usr/lib/x86_64-linux-gnu/libstdc++.so.6"].map(PathBuf::from));
    files.sort();
    files.dedup();
    // Half a minute of readelf's time in all.
    files.retain(|file| fs::metadata(file).is_ok_and(|metadata| metadata.len() < 30 << 20));
    assert!(files.len() > 2, "{files:?}");
    for file in &files {
        judge(file);
    }
}

#[test]
fn compiled_frames_are_as_readelf_says() {
    let directory = Directory::new("compiled");
    // The rules that must be among the rows start like this; numbers differ between versions.
    for (name, command, rules) in [
        ("O2", "gcc -O2 frames.c", &["*(rbp-", "rsp+5400", "rbp+16 c-16 c-8"][..]),
        ("O0", "gcc -O0 -fcf-protection=none frames.c", &["rbp+16 c-16 c-8"]),
        ("fp", "gcc -O2 -fno-omit-frame-pointer frames.c", &["rbp+16 c-16 c-8"]),
        ("realign", "gcc -O2 -mstackrealign -mno-red-zone frames.c", &["*(rbp-"]),
        ("noplt", "gcc -O2 -fno-plt frames.c", &[]),
        ("plt", "gcc -O2 -fcf-protection=none -Wl,-z,lazy frames.c", &["plt(11) u c-8"]),
        ("ibt", "gcc -O2 -fcf-protection=full -Wl,-z,lazy,-z,ibtplt frames.c", &["plt("]),
        ("nopie", "gcc -O2 -no-pie -static frames.c", &["signal-frame", "end-of-stack"]),
        ("clang", "clang -O2 frames.c", &["rsp+5400"]),
        ("clang-O0", "clang -O0 -mstackrealign frames.c", &["rbp+16 c-16 c-8"]),
        ("throws", "g++ -O2 throws.cc", &["uncovered"]),
        ("throws-clang", "clang++ -O1 -fPIC throws.cc", &["uncovered"]),
        ("bfd-text", "gcc -O2 -Wl,-z,noseparate-code frames.c", &["plt(11) u c-8"]),
        (
            "debug-frame",
            "gcc -O2 -g -fno-asynchronous-unwind-tables -fno-unwind-tables -nostdlib \
            -ffreestanding -shared -fPIC -Wl,-z,undefs,--no-ld-generated-unwind-info frames.c",
            &["*(rbp-"],
        ),
    ] {
        let Some(file) = directory.compile(name, command) else { continue };
        judge(&file);
        let printed = printed(&file);
        for rule in rules {
            assert!(
                printed.iter().any(|printed| printed.starts_with(rule)),
                "{command}: no {rule} in {printed:#?}"
            );
        }
    }
}

#[test]
fn directives_written_by_hand_have_their_rules() {
    let directory = Directory::new("directives");
    let Some(file) = directory.compile("odd", "gcc -nostdlib -static directives.s") else { return };
    assert_eq!(
        printed(&file),
        [
            "rsp+8 u c-8",
            "r10+0 u c-8",
            "rax+524288 u c-8",
            "rsp+8 u rcx",
            "rsp+8 r9 c-8",
            "rsp+8 u c-8",
            "rsp+16 c-16 c-8",
            "rsp+400016 c-16 c-8",
            "rsp+16 c-16 c-8",
            "rsp+8 u c-8",
            "rsp+8 lost c-8",
            "rsp+8 *(rbp+0) c-8",
            "rsp+8 *(rsp+16) c-8",
            "rsp+8 *(rbp+0) c-8",
            "*(rbp-8)+0 *(rbp+0) c-8",
            "*(rsp+16)+8 *(rbp+0) c-8",
            "not-understood: CFA expression",
            "rsp+8 *(rbp+0) c-8",
            "not-understood: stack pointer",
            "not-understood: return address",
            "end-of-stack",
            "not-understood: signal frame",
            "uncovered",
            "end-of-stack",
            "uncovered",
        ]
    );
}

#[test]
fn section_headers_are_not_needed() {
    let directory = Directory::new("stripped");
    let Some(file) = directory.compile("whole", "gcc -O2 frames.c") else { return };
    let whole = table(&file);
    let mut bytes = fs::read(&file).unwrap();
    bytes[0x28..0x30].fill(0); // e_shoff
    bytes[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
    let stripped = unwind::build(&bytes).unwrap();
    assert!(whole.rows().count() > 20);
    assert_eq!(
        whole.rows().map(|row| (row.file_offset, whole.rule(row.rule))).collect::<Vec<_>>(),
        stripped.rows().map(|row| (row.file_offset, stripped.rule(row.rule))).collect::<Vec<_>>()
    );
}

#[test]
fn the_vdso_has_rows_too() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else {
        return skip("this process has no vDSO");
    };
    let (start, end) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
    let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).unwrap());
    let mut image = vec![0; (end - start) as usize];
    File::open("/proc/self/mem").unwrap().read_exact_at(&mut image, start).unwrap();
    let table = unwind::build(&image).unwrap();
    assert!(table.rows().count() > 5);
    assert_eq!(table.stats.broken_entries, 0);
    let directory = Directory::new("vdso");
    fs::write(directory.0.join("vdso"), image).unwrap();
    judge(&directory.0.join("vdso"));
}

#[test]
fn lookups_find_the_rows() {
    let table = table(Path::new(PROFILER));
    let rows: Vec<_> = table.rows().collect();
    assert!(rows.len() > 10_000);
    for pair in rows.windows(2) {
        assert!(pair[0].file_offset < pair[1].file_offset && pair[0].rule != pair[1].rule);
        let rule = table.rule(pair[0].rule);
        assert_eq!(table.lookup(pair[0].file_offset), rule);
        assert_eq!(table.lookup(pair[1].file_offset - 1), rule);
    }
    assert_eq!(table.lookup(rows[0].file_offset - 1), Rule::Uncovered);
    assert_eq!(table.rule(rows.last().unwrap().rule), Rule::Uncovered);
    assert!(table.pages().all(|page| !page.rows.is_empty()));
    assert!(table.pages().all(|page| page.rows.windows(2).all(|pair| pair[0].pc_low < pair[1].pc_low)));
}

/// Builds what can be built of a mutant, and uses it; the longest time so far is the first value.
fn survive(slowest: &mut Duration, bytes: &Vec<u8>) -> bool {
    let start = Instant::now();
    let built = unwind::build(bytes).map(|table| {
        assert!(table.rows().count() <= bytes.len());
        for offset in (0..0x1_0000).step_by(97) {
            std::hint::black_box(table.lookup(offset));
        }
    });
    *slowest = start.elapsed().max(*slowest);
    built.is_ok()
}

#[test]
fn truncated_files_are_survived() {
    let directory = Directory::new("truncated");
    let Some(file) = directory.compile("whole", "gcc -O2 frames.c") else { return };
    let whole = fs::read(&file).unwrap();
    let mut slowest = Duration::ZERO;
    let mut built = 0;
    for length in (0..whole.len()).step_by(11) {
        built += usize::from(survive(&mut slowest, &whole[..length].to_vec()));
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

#[test]
fn claims_of_size_cost_nothing() {
    let directory = Directory::new("claims");
    let Some(file) = directory.compile("whole", "gcc -O2 frames.c") else { return };
    let whole = fs::read(&file).unwrap();
    let field = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().unwrap()) as usize;
    let sections = field(0x28);
    // With half a GB of memory; the file is as large as it claims to be, and sparse.
    let limited = |bytes: &[u8], size: u64| {
        let path = directory.0.join("claims");
        fs::write(&path, bytes).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        let start = Instant::now();
        let command = "ulimit -v 524288; exec \"$0\" unwind-table \"$1\" >/dev/null";
        let run = Command::new("sh").args(["-c", command, PROFILER]).arg(&path).output().unwrap();
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    for size in [2_u64 << 30, 127 << 20, u64::MAX, 1 << 63] {
        let mut bytes = whole.clone();
        for header in (sections..whole.len()).step_by(64) {
            bytes[header + 32..header + 40].copy_from_slice(&size.to_le_bytes());
        }
        let (code, message) = limited(&bytes, whole.len() as u64);
        assert!(matches!(code, Some(0 | 1)), "{size}: {code:?} {message}");
        let (code, message) = limited(&bytes, 3 << 30);
        assert!(matches!(code, Some(0 | 1)), "{size}: {code:?} {message}");
    }
    let mut counts = whole.clone();
    counts[0x38..0x3a].fill(0xff); // program headers
    counts[0x3c..0x3e].fill(0); // section headers: see section 0
    counts[sections + 32..sections + 40].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let (code, message) = limited(&counts, 3 << 30);
    assert!(matches!(code, Some(0 | 1)), "{code:?} {message}");
    let mut section = whole.clone();
    for header in (sections..whole.len()).step_by(64) {
        // The section of call frames alone: type and address are those of an ordinary section.
        if field(header + 24) == eh_frame_offset(&whole, sections) {
            section[header + 32..header + 40].copy_from_slice(&(2_u64 << 30).to_le_bytes());
        }
    }
    let (code, message) = limited(&section, 3 << 30);
    assert_eq!(code, Some(1), "{message}");
    assert!(message.contains("more than the limit"), "{message}");
}

/// Where `.eh_frame` is: found by its name.
fn eh_frame_offset(bytes: &[u8], sections: usize) -> usize {
    let word = |at: usize, size: usize| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(&bytes[at..at + size]);
        u64::from_le_bytes(word) as usize
    };
    let names = word(sections + 64 * word(0x3e, 2) + 24, 8);
    (0..word(0x3c, 2))
        .map(|index| sections + 64 * index)
        .find(|header| bytes[names + word(*header, 4)..].starts_with(b".eh_frame\0"))
        .map(|header| word(header + 24, 8))
        .unwrap()
}

#[test]
fn other_files_are_refused_with_a_reason() {
    let directory = Directory::new("refused");
    let mut files =
        vec![("Cargo.toml".into(), "not an ELF file"), ("/dev/null".into(), "beyond the file's end")];
    if let Some(object) = directory.compile("frames.o", "gcc -c frames.c") {
        files.push((object, "of type 1"));
    }
    for (file, reason) in files {
        let output = Command::new(PROFILER).arg("unwind-table").arg(&file).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.starts_with("profiler: error: failed to read "), "{message}");
        assert!(message.contains(reason) && message.lines().count() == 1, "{message}");
    }
}
