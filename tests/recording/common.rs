//! What the tests share: a directory and a turn for each, programs to record, recordings as a
//! judge reads them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
pub const JUDGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges");

/// Held for reading by tests that look at their own processes, and for writing by those that measure
/// what all share: the whole machine, its settings, or times.
static TURN: RwLock<()> = RwLock::new(());

enum Turn {
    Shared { _turn: RwLockReadGuard<'static, ()> },
    Alone { _turn: RwLockWriteGuard<'static, ()> },
}

/// A test's turn and its directory, which is removed at the end.
pub struct Test {
    pub name: &'static str,
    pub dir: PathBuf,
    _turn: Turn,
}

impl Test {
    /// A test beside which others may run. Waits for its turn. `None` if nothing can be recorded here,
    /// which is told.
    pub fn new(name: &'static str) -> Option<Self> {
        Self::with(name, Turn::Shared { _turn: TURN.read().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Like [`Test::new`], with no other test beside it.
    pub fn alone(name: &'static str) -> Option<Self> {
        Self::with(name, Turn::Alone { _turn: TURN.write().unwrap_or_else(PoisonError::into_inner) })
    }

    fn with(name: &'static str, turn: Turn) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("profiler-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let test = Self { name, dir, _turn: turn };
        let cannot = if !nix::unistd::geteuid().is_root() {
            Some("recording needs root")
        } else if !fs::exists("/sys/kernel/btf/vmlinux").unwrap() {
            Some("the kernel has no BTF")
        } else {
            ["python3", "gcc"].into_iter().find(|tool| !has(tool)).map(|_| "python3 or gcc is not installed")
        };
        match cannot {
            Some(why) => {
                test.skip(why);
                None
            }
            None => Some(test),
        }
    }

    /// Says where nobody can overlook it that a test, or a part of it, did not run.
    pub fn skip(&self, why: &str) {
        // Unlike `eprintln!`, this is not captured when the test passes.
        let _ = writeln!(std::io::stderr(), "SKIP: {}: {why}", self.name);
    }

    /// Says what was measured, also when the test passes.
    pub fn tell(&self, what: &str) {
        let _ = writeln!(std::io::stderr(), "MEASURED: {}: {what}", self.name);
    }

    /// Whether a tool is there; tells if it is not.
    pub fn needs(&self, tool: &str) -> bool {
        let there = has(tool);
        if !there {
            self.skip(&format!("{tool} is not installed"));
        }
        there
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.dir.join(name), text).unwrap();
        self.path(name)
    }

    /// Names of the files in the test's directory, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Compiles `samples/…` or `tests/programs/…` with frame pointers, unless `flags` differ.
    /// Functions of equal code stay apart.
    pub fn compile(&self, source: &str, name: &str, flags: &[&str]) -> String {
        let program = self.path(name);
        let compiler = if source.ends_with(".cc") { "g++" } else { "gcc" };
        let output = Command::new(compiler)
            .args([
                "-O2",
                "-fno-omit-frame-pointer",
                "-fno-ipa-icf",
                "-o",
                &program,
                &format!("{ROOT}/{source}"),
            ])
            .args(flags)
            .output()
            .unwrap();
        assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
        program
    }

    /// `spin.c` whose busy function is called `function`.
    pub fn spin(&self, name: &str, function: &str, flags: &[&str]) -> String {
        let define = format!("-DFUNCTION={function}");
        self.compile("tests/programs/spin.c", name, &[&[define.as_str()], flags].concat())
    }

    /// The recorder, to be started in the test's directory.
    pub fn profiler(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_profiler"));
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        command.env_remove("SUDO_UID").env_remove("SUDO_GID");
        let default = || {
            // SAFETY: a signal's default action is no handler that could run anything.
            [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP]
                .into_iter()
                .try_for_each(|signal| {
                    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.map(drop)
                })
                .map_err(std::io::Error::from)
        };
        // Under nohup and in the background of a shell, some are ignored by whoever is started there.
        // SAFETY: between fork and exec, `default` does nothing but system calls.
        unsafe { command.pre_exec(default) };
        command
    }

    /// Runs `profiler record` to its end, which must be good.
    pub fn record(&self, args: &[&str]) -> Recording {
        self.start(args).finish()
    }

    /// Starts `profiler record`.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::new(self.dir.join("output.pb.gz"), self.profiler(&[&["record"], args].concat()))
    }

    /// Records a process that runs already until it has had so much more CPU time, however long that takes
    /// beside other work.
    pub fn record_until(&self, cpu_s: f64, pid: u32, args: &[&str]) -> Recording {
        let running = self.started(args);
        wait_for_cpu_time(pid, cpu_s);
        running.interrupt()
    }

    /// A directory for files that are synced to a disk, and gone with who opened them: where programs are
    /// built, if the test's own directory is in memory.
    pub fn disk(&self) -> &str {
        use nix::sys::statfs::{TMPFS_MAGIC, statfs};
        if statfs(&self.dir).unwrap().filesystem_type() == TMPFS_MAGIC {
            return env!("CARGO_TARGET_TMPDIR");
        }
        self.dir.to_str().unwrap()
    }

    /// A copy of the recorder that every user can reach, as its own directory may be root's alone.
    pub fn profiler_for_everybody(&self) -> String {
        let profiler = self.path("profiler");
        copy_program(env!("CARGO_BIN_EXE_profiler"), &profiler, 0);
        fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o777)).unwrap();
        profiler
    }

    /// Starts `profiler record` and waits until it samples.
    pub fn started(&self, args: &[&str]) -> Running {
        let running = self.start(args);
        running.wait_until_it_samples();
        running
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn has(tool: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| path.join(tool).exists())
}

/// Runs a command that must succeed, and returns what it printed.
pub fn output(program: impl AsRef<OsStr>, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}: {message}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Copies a program, and some bytes behind it. By another process: while this one has a file open for writing,
/// whatever another test starts inherits that for a moment, and what is open for writing cannot be executed.
pub fn copy_program(program: impl AsRef<OsStr>, copy: impl AsRef<OsStr>, more: usize) {
    let script = format!("cp \"$0\" \"$1\" && head -c {more} /dev/zero >>\"$1\"");
    let ran = Command::new("sh").arg("-c").arg(script).args([program.as_ref(), copy.as_ref()]).status();
    assert!(ran.unwrap().success(), "{} is not copied", program.as_ref().display());
}

/// Waits until something is so. Five minutes are no measure of how long it may take, but for a machine with
/// ten times as much to do as it can; they end a test that would hang.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !holds() {
        assert!(Instant::now() < deadline, "after five minutes it is not so that {what}");
        sleep(Duration::from_millis(3));
    }
}

/// Whether a process is in poll(2).
pub fn polls(pid: u32) -> bool {
    let syscall = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    syscall.starts_with(&format!("{} ", nix::libc::SYS_poll))
}

/// Whether a recorder waits for what comes: in poll(2), or in the rest between two looks, which is all
/// that is left of the time where there is much to look at.
pub fn rests(pid: u32) -> bool {
    let syscall = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let rest = nix::libc::SYS_clock_nanosleep;
    polls(pid) || syscall.starts_with(&format!("{rest} "))
}

/// CPU time of a process's threads that live, in seconds, as the scheduler counts it.
pub fn cpu_s(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let ns = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    ns.sum::<f64>() / 1e9
}

/// Waits until a process has had so much more CPU time.
pub fn wait_for_cpu_time(pid: u32, seconds: f64) {
    let before = cpu_s(pid);
    wait_until(&format!("process {pid} had {seconds} s of CPU time"), || cpu_s(pid) >= before + seconds);
}

/// Waits until a process has nothing to do: whenever somebody looks, all its threads sleep.
pub fn wait_until_it_rests(pid: u32) {
    let mut seen = 0;
    wait_until(&format!("process {pid} rests"), || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
        let states = stats.map(|stat| stat.rsplit(") ").next().and_then(|state| state.chars().next()));
        seen = if states.into_iter().all(|state| state == Some('S')) { seen + 1 } else { 0 };
        sleep(Duration::from_millis(20));
        seen >= 5
    });
}

/// Whether a function is the first of a thread: of the kernel's making or, without symbols, in libc. How
/// the C library calls it depends on its version and on whether its debug symbols are installed.
pub fn starts_thread(name: &str) -> bool {
    let plain = name.trim_start_matches("__GI_").trim_start_matches('_');
    ["start", "dl_start_user", "clone", "clone3", "start_thread"].contains(&plain)
        || name.starts_with("libc.so.6+")
}

pub fn kill(pid: u32, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
}

/// A child that does not outlive the test.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn spawn(command: &mut Command) -> Guarded {
    Guarded(command.stdin(Stdio::null()).spawn().unwrap())
}

/// A recorder that runs.
pub struct Running {
    pub child: Guarded,
    file: PathBuf,
    told: File,
}

impl Running {
    pub fn new(file: PathBuf, mut command: Command) -> Self {
        // A file, for a pipe would have to be read all the time.
        let told = nix::sys::memfd::memfd_create("stderr", nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
        let told = File::from(told.unwrap());
        command.stderr(told.try_clone().unwrap());
        Self { child: Guarded(command.spawn().unwrap()), file, told }
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn told(&mut self) -> String {
        let mut text = String::new();
        // The descriptor shares its position with the recorder's, which has ended.
        self.told.seek(SeekFrom::Start(0)).unwrap();
        self.told.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until the recorder holds links to its programs, and waits for what comes: all clocks are
    /// attached then, and the command runs.
    pub fn wait_until_it_samples(&self) {
        let fds = format!("/proc/{}/fd", self.pid());
        let has_link = || {
            let entries = fs::read_dir(&fds).into_iter().flatten().flatten();
            let mut links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
            links.any(|link| link.to_string_lossy().contains("bpf_link"))
        };
        wait_until("the recorder samples", || rests(self.pid()) && has_link());
    }

    pub fn interrupt(self) -> Recording {
        kill(self.pid(), Signal::SIGINT);
        self.finish()
    }

    pub fn finish(self) -> Recording {
        self.finish_with(0)
    }

    /// Waits for the end of a recording of time off the CPU, which the judges find valid; returns what
    /// the recorder told.
    pub fn finish_off_cpu(mut self) -> String {
        let ended = self.child.0.wait().unwrap();
        let told = self.told();
        assert!(ended.success() && !told.contains("UNACCOUNTED") && !told.contains("panicked"), "{told}");
        let judged = output("python3", &[&format!("{JUDGES}/dump.py"), &self.file.to_string_lossy()]);
        // The one thing that it may find wrong is that time on the CPU is not the first of the values.
        let mut errors = judged.lines().filter(|line| line.starts_with("error"));
        assert!(errors.all(|error| error.contains("sample types are")), "{judged}");
        told
    }

    /// Waits for the end with an exit status; reads and checks the file.
    pub fn finish_with(self, status: i32) -> Recording {
        self.finish_where(|ended| ended.code() == Some(status))
    }

    /// Waits for the end of a recorder that was asked to panic.
    pub fn finish_after_a_fault(mut self, status: i32) -> Recording {
        let ended = self.child.0.wait().unwrap();
        let told = self.told().replace("panicked", "was asked to panic");
        assert_eq!(ended.code(), Some(status), "{told}");
        Recording::read(&self.file.to_string_lossy(), told)
    }

    /// Waits for an end that is right.
    pub fn finish_where(mut self, right: impl Fn(ExitStatus) -> bool) -> Recording {
        let ended = self.child.0.wait().unwrap();
        let told = self.told();
        assert!(right(ended), "{ended}: {told}");
        Recording::read(&self.file.to_string_lossy(), told)
    }
}

#[derive(Debug, Default, Clone)]
pub struct Mapping {
    pub start: u64,
    pub limit: u64,
    pub offset: u64,
    pub path: String,
    pub build_id: String,
    pub flags: String,
}

#[derive(Debug, Default, Clone)]
pub struct Location {
    pub mapping: Option<Mapping>,
    pub address: u64,
    /// Name, line and file; innermost function first.
    pub lines: Vec<(String, u64, String)>,
}

impl Location {
    pub fn name(&self) -> &str {
        self.lines.first().map_or("", |line| &line.0)
    }

    pub fn path(&self) -> &str {
        self.mapping.as_ref().map_or("", |mapping| &mapping.path)
    }

    pub fn in_kernel(&self) -> bool {
        // Its addresses are told as offsets; what else is in brackets has these names.
        let of_programs = [
            "[vdso]",
            "[vsyscall]",
            "[uprobes]",
            "[jit]",
            "[python]",
            "[javascript]",
            "[java]",
            "[unmapped]",
        ];
        self.path().starts_with('[') && !of_programs.contains(&self.path())
    }

    pub fn file_offset(&self) -> u64 {
        self.mapping.as_ref().map_or(self.address, |m| self.address - m.start + m.offset)
    }
}

#[derive(Debug, Clone)]
pub struct Sample {
    pub samples: u64,
    pub ns: u64,
    pub pid: u32,
    pub comm: String,
    pub thread_comm: String,
    /// Leaf first.
    pub stack: Vec<u64>,
}

/// A recording, as a judge reads it.
#[derive(Debug)]
pub struct Recording {
    pub file: String,
    pub told: String,
    pub comments: Vec<String>,
    pub mappings: Vec<Mapping>,
    pub locations: HashMap<u64, Location>,
    pub samples: Vec<Sample>,
    pub complete: u64,
    pub incomplete: u64,
    pub lost: u64,
}

impl Recording {
    /// Reads a file by the judge, and checks it and what the recorder told.
    pub fn read(file: &str, told: String) -> Self {
        let mut recording = Self {
            file: file.to_owned(),
            told,
            comments: Vec::new(),
            mappings: Vec::new(),
            locations: HashMap::new(),
            samples: Vec::new(),
            complete: 0,
            incomplete: 0,
            lost: 0,
        };
        let mut mappings = HashMap::new();
        let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("no number: {text}"));
        for line in output("python3", &[&format!("{JUDGES}/dump.py"), file]).lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["error", error] => panic!("{file}: {error}"),
                // W6 and W7: mappings overlap, locations lie outside them. W10: nothing counted.
                ["warning", rule, count] => {
                    assert!(
                        !["W6", "W7", "W10", "W11", "W14", "W15", "W16"].contains(&rule),
                        "{rule} ×{count}"
                    )
                }
                ["comment", comment] => recording.comments.push(comment.to_owned()),
                ["mapping", id, start, limit, offset, path, build_id, flags] => {
                    let (path, build_id, flags) = (path.to_owned(), build_id.to_owned(), flags.to_owned());
                    let [start, limit, offset] = [start, limit, offset].map(number);
                    let mapping = Mapping { start, limit, offset, path, build_id, flags };
                    mappings.insert(number(id), mapping.clone());
                    recording.mappings.push(mapping);
                }
                ["location", id, mapping, address, ref lines @ ..] => {
                    let lines = lines.chunks(3).map(|l| (l[0].to_owned(), number(l[1]), l[2].to_owned()));
                    let mapping = mappings.get(&number(mapping)).cloned();
                    let location = Location { mapping, address: number(address), lines: lines.collect() };
                    recording.locations.insert(number(id), location);
                }
                ["sample", samples, ns, pid, comm, thread_comm, ref stack @ ..] => {
                    recording.samples.push(Sample {
                        samples: number(samples),
                        ns: number(ns),
                        pid: number(pid) as u32,
                        comm: comm.to_owned(),
                        thread_comm: thread_comm.to_owned(),
                        stack: stack.iter().map(|id| number(id)).collect(),
                    });
                }
                _ => panic!("{line}"),
            }
        }
        recording.check_equation();
        recording.check_values();
        recording
    }

    /// The summary's sum closes, is that of the comments, and is what the samples add up to.
    fn check_equation(&mut self) {
        assert!(!self.told.contains("UNACCOUNTED") && !self.told.contains("panicked"), "{}", self.told);
        let sum = self.told.lines().find(|line| line.starts_with("  taken ")).expect(&self.told).trim();
        let numbers: Vec<u64> = sum.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [taken, complete, incomplete, lost] = numbers[..] else { panic!("{sum}") };
        assert_eq!(
            format!("taken {taken} = complete {complete} + incomplete {incomplete} + lost {lost}"),
            sum
        );
        assert_eq!(taken, complete + incomplete + lost, "{sum}");
        assert_eq!(self.total(|_| true), complete + incomplete, "{sum}");
        assert!(self.comments.contains(&format!("samples: {sum}")), "{:?}", self.comments);
        (self.complete, self.incomplete, self.lost) = (complete, incomplete, lost);
    }

    /// Its length, by the comments.
    pub fn seconds(&self) -> f64 {
        let line = self.comments.iter().find(|comment| comment.starts_with("frequency: ")).unwrap();
        line.rsplit_once(", ").unwrap().1.trim_end_matches(" s").parse().unwrap()
    }

    /// Each sample stands for the time between two; each address lies in its mapping.
    fn check_values(&self) {
        let hz = self.comments.iter().find_map(|c| c.strip_prefix("frequency: ")?.split(' ').next());
        let period_ns = 1_000_000_000 / hz.expect("the rate").parse::<u64>().unwrap();
        for sample in &self.samples {
            let each = sample.ns / sample.samples;
            assert!(each.abs_diff(period_ns) <= 1 && sample.ns % sample.samples == 0, "{sample:?}");
        }
        for location in self.locations.values() {
            let inside =
                location.mapping.as_ref().is_none_or(|m| (m.start..m.limit).contains(&location.address));
            assert!(inside, "{location:?}");
        }
    }

    /// Samples for which something holds.
    pub fn total(&self, holds: impl Fn(&Sample) -> bool) -> u64 {
        self.samples.iter().filter(|sample| holds(sample)).map(|sample| sample.samples).sum()
    }

    pub fn leaf(&self, sample: &Sample) -> &Location {
        &self.locations[&sample.stack[0]]
    }

    /// Names of a sample's functions, leaf first, inlined ones included.
    pub fn names<'a>(&'a self, sample: &Sample) -> Vec<&'a str> {
        let locations = sample.stack.iter().map(|id| &self.locations[id]);
        locations.flat_map(|location| location.lines.iter().map(|line| line.0.as_str())).collect()
    }

    pub fn has_frame(&self, sample: &Sample, name: &str) -> bool {
        self.names(sample).contains(&name)
    }

    /// Samples with a frame of this name.
    pub fn with(&self, name: &str) -> u64 {
        self.total(|sample| self.has_frame(sample, name))
    }

    /// Samples by the name of their leaf, for messages.
    pub fn leaves(&self) -> BTreeMap<String, u64> {
        let mut leaves = BTreeMap::new();
        for sample in &self.samples {
            let name = format!("{} in {}", self.leaf(sample).name(), sample.comm);
            *leaves.entry(name).or_default() += sample.samples;
        }
        leaves
    }
}

/// Standard error of a recorder that must refuse: exit status not 0, one line, no panic.
pub fn refusal(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.status.code().is_some(), "{}: {message}", output.status);
    assert!(!message.contains("panicked"), "{message}");
    assert_eq!(message.matches("error:").count(), 1, "{message}");
    message
}
