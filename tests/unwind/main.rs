//! Unwind tables of real, of odd and of hostile files. What is right is said by readelf, through
//! the judge in `tests/judges/ehrows.py`, which shares no code with the program.

#[path = "../../fuzz/checks.rs"]
mod checks;
mod hostile;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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
fn judgement(file: &Path, how: &[&str]) -> Option<Output> {
    for tool in ["python3", "readelf"] {
        if Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_err() {
            skip(&format!("{tool} is not installed, so no judge looked at the rows"));
            return None;
        }
    }
    Some(Command::new("python3").arg(JUDGE).args(how).arg(PROFILER).arg(file).output().unwrap())
}

fn judge(file: &Path) {
    let Some(output) = judgement(file, &[]) else { return };
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
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let files = &files;
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || files.iter().skip(first).step_by(threads).for_each(|file| judge(file)));
        }
    });
}

/// The files of those names that this machine has; says which it has not.
fn large_files() -> Vec<PathBuf> {
    let libraries = [
        Path::new("/usr/lib/x86_64-linux-gnu"),
        Path::new("/lib/x86_64-linux-gnu"),
        Path::new("/usr/lib64"),
        Path::new("/usr/lib/aarch64-linux-gnu"),
    ];
    let in_libraries = |name: &str| -> Option<PathBuf> {
        let entries = libraries.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten();
        let mut paths = entries.flatten().map(|entry| entry.path());
        paths.find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)))
    };
    let program = |name: &str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found =
            std::env::split_paths(&paths).map(|directory| directory.join(name)).find(|path| path.exists());
        found.and_then(|path| fs::canonicalize(path).ok())
    };
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let rustc = || -> Option<PathBuf> {
        let mut entries = fs::read_dir(Path::new(sysroot.as_ref().ok()?).join("lib")).ok()?.flatten();
        let is_driver = |path: &Path| path.to_string_lossy().contains("librustc_driver");
        entries.find_map(|entry| Some(entry.path()).filter(|path| is_driver(path)))
    };
    let python = ["python3.11", "python3.12", "python3.13", "python3"].iter().find_map(|name| {
        let path = Path::new("/usr/bin").join(name);
        path.exists().then_some(path)
    });
    let mut files = Vec::new();
    for (name, file) in [
        ("libc", in_libraries("libc.so.6")),
        ("libcrypto", in_libraries("libcrypto.so.")),
        ("python", python),
        // Debian's program of that name is small since Node.js 20.
        ("node", in_libraries("libnode.so.").or_else(|| program("node"))),
        ("librustc_driver", rustc()),
        ("libx264", in_libraries("libx264.so.")),
    ] {
        match file {
            Some(file) => files.push(file),
            None => skip(&format!("{name} is not installed, so no addresses of it were looked up")),
        }
    }
    files
}

/// In arrays as the kernel has them, by the search that it runs: what readelf says, and nothing where
/// it says nothing, though other files' tables lie before and behind.
#[test]
fn random_addresses_have_the_rules_that_readelf_says() {
    for file in large_files() {
        // readelf takes minutes for it on a machine that others use too.
        if fs::metadata(&file).is_ok_and(|metadata| metadata.len() > 30 << 20) {
            skip(&format!(
                "{} is too large for a test: scripts/check-unwind-rows looks at it",
                file.display()
            ));
            continue;
        }
        let Some(output) = judgement(&file, &["--random", "10000"]) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        print!("{text}");
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
        ("bits32", "gcc -m32 -O2 frames.c", &["*(ebp-", "esp+4 u c-4", "ebp+8 c-8 c-4"]),
        ("bits32-O0", "gcc -m32 -O0 -fcf-protection=none -Wl,-z,lazy frames.c", &["plt(11) u c-4"]),
        ("bits32-static", "gcc -m32 -static frames.c", &["ebp+8 c-8 c-4", "end-of-stack"]),
        ("arm64", "aarch64-linux-gnu-gcc -O2 frames.c", &["sp+0 u x30", "x29+", "end-of-stack"]),
        (
            "arm64-signed",
            "aarch64-linux-gnu-gcc -O2 -mbranch-protection=standard -fomit-frame-pointer frames.c",
            &["sp+0 u x30", "sp+32 u c-"],
        ),
        (
            "debug-frame",
            "gcc -O2 -g -fno-asynchronous-unwind-tables -fno-unwind-tables -nostdlib \
            -ffreestanding -shared -fPIC -Wl,-z,undefs,--no-ld-generated-unwind-info frames.c",
            &["*(rbp-"],
        ),
        (
            "debug-frame-zlib",
            "gcc -O2 -g -fno-asynchronous-unwind-tables -fno-unwind-tables -nostdlib -ffreestanding \
            -shared -fPIC -Wl,-z,undefs,--no-ld-generated-unwind-info,--compress-debug-sections=zlib frames.c",
            &["*(rbp-"],
        ),
        (
            "debug-frame-zstd",
            "gcc -O2 -g -fno-asynchronous-unwind-tables -fno-unwind-tables -nostdlib -ffreestanding \
            -shared -fPIC -Wl,-z,undefs,--no-ld-generated-unwind-info,--compress-debug-sections=zstd frames.c",
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
            "*(rsp+8+8*r9)+8 *(rbp+0) c-8",
            "not-understood: CFA expression",
            "rsp+8 *(rbp+0) c-8",
            "not-understood: stack pointer",
            "not-understood: return address",
            "end-of-stack",
            // Of a signal frame: its address is exact, and all else is as in any other.
            "rsp+8 u c-8",
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
