//! Programs on the machine, for a test: loaded by bpftool and others, attached where traffic passes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::common::{Guarded, ROOT, Test, kill, output, polls, spawn, wait_until};

/// A measurement that runs until it is told to end.
pub struct Measuring(Guarded);

impl Measuring {
    /// Starts `profiler stats` and waits until the window has begun.
    pub fn start(test: &Test, args: &[&str]) -> Self {
        let mut command = test.profiler(&[&["stats", "-d", "60s", "-o", "json"], args].concat());
        let child = spawn(command.stdout(Stdio::piped()));
        let measuring = Self(child);
        wait_until_it_watches(measuring.pid());
        measuring
    }

    pub fn pid(&self) -> u32 {
        self.0.0.id()
    }

    /// Ends the window, and returns what was measured.
    pub fn finish(mut self) -> Value {
        kill(self.pid(), nix::sys::signal::Signal::SIGINT);
        let mut text = String::new();
        self.0.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(self.0.0.wait().unwrap().success());
        let mut lines = text.lines();
        let value = serde_json::from_str(lines.next().expect("one object")).unwrap();
        assert_eq!(lines.next(), None, "{text}");
        value
    }
}

/// `profiler stats` polls for signals once the window has begun.
pub fn wait_until_it_watches(pid: u32) {
    let mut seen = 0;
    wait_until("the window has begun", || {
        seen += u32::from(polls(pid));
        seen >= 5
    });
}

/// The program of an id in an object of ours.
pub fn program(statistics: &Value, id: u64) -> &Value {
    let mut programs = statistics["programs"].as_array().unwrap().iter();
    programs.find(|program| program["id"] == id).unwrap_or_else(|| panic!("no program {id} in {statistics}"))
}

/// What bpftool says of a program.
pub fn bpftool(id: u64) -> Value {
    serde_json::from_str(&output("bpftool", &["-j", "prog", "show", "id", &id.to_string()])).unwrap()
}

/// `tests/programs/filter.c`, which runs.
pub struct Filter {
    child: Guarded,
    input: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub id: u64,
}

impl Filter {
    pub fn start(test: &Test, what: &str, n: u32) -> Self {
        let program = test.path("filter");
        if !fs::exists(&program).unwrap() {
            test.compile("tests/programs/filter.c", "filter", &[]);
        }
        let mut child: Child = Command::new(program)
            .args([what, &n.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        Self { child: Guarded(child), input, answers, id: line.trim().parse().unwrap() }
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Lets it send its packets.
    pub fn send(&mut self) {
        self.input.write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

/// A network namespace with a pair of devices, a cgroup and pinned programs: gone at the end.
pub struct Place {
    name: String,
    cgroup: String,
}

impl Place {
    /// Loads `tests/programs/attached.bpf.c` and attaches its programs. Traffic arrives at `v1`.
    pub fn new(test: &Test) -> Self {
        let name = format!("profiler-{}-{}", test.name, std::process::id());
        let cgroup = format!("{}/{name}", cgroup_mount().expect("the test has looked for it"));
        let place = Self { name, cgroup };
        let object = test.path("attached.bpf.o");
        let source = format!("{ROOT}/tests/programs/attached.bpf.c");
        output("clang", &["-O2", "-g", "-target", "bpf", "-c", &source, "-o", &object]);
        output("bpftool", &["prog", "loadall", &object, &place.pin("")]);
        output("ip", &["netns", "add", &place.name]);
        place.inside("ip", &["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        for device in ["lo", "v0", "v1"] {
            place.inside("ip", &["link", "set", device, "up"]);
        }
        place.inside("ip", &["addr", "add", "10.9.9.1/24", "dev", "v0"]);
        place.inside("ip", &["neigh", "add", "10.9.9.2", "lladdr", "02:00:00:00:00:02", "dev", "v0"]);
        place.inside("tc", &["qdisc", "add", "dev", "v1", "clsact"]);
        let classifier = place.pin("classifies_what_comes_in");
        place.inside(
            "tc",
            &["filter", "add", "dev", "v1", "ingress", "bpf", "da", "object-pinned", &classifier],
        );
        place.inside("ip", &["link", "set", "dev", "v1", "xdp", "pinned", &place.pin("passes_on")]);
        fs::create_dir(&place.cgroup).unwrap();
        output("bpftool", &["cgroup", "attach", &place.cgroup, "egress", "pinned", &place.pin("lets_out")]);
        place
    }

    /// Where a program is pinned.
    pub fn pin(&self, program: &str) -> String {
        format!("/sys/fs/bpf/{}/{program}", self.name).trim_end_matches('/').to_owned()
    }

    /// The id of a pinned program.
    pub fn id(&self, program: &str) -> u64 {
        let text = output("bpftool", &["-j", "prog", "show", "pinned", &self.pin(program)]);
        let value: Value = serde_json::from_str(&text).unwrap();
        value["id"].as_u64().unwrap()
    }

    /// Runs a command in the network namespace; unlike `ip netns exec`, with the mounts that there are.
    pub fn inside(&self, program: &str, args: &[&str]) {
        let net = format!("--net=/run/netns/{}", self.name);
        output("nsenter", &[&[net.as_str(), program], args].concat());
    }

    /// Sends packets from the cgroup, through the devices.
    pub fn send(&self, calls: &str, packets: u32) {
        let enter = format!("echo $$ >{}/cgroup.procs; exec {calls} 10.9.9.2 {packets}", self.cgroup);
        self.inside("sh", &["-c", &enter]);
    }

    /// How its cgroup and namespace are called.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Each may not have been made yet.
        let quietly = |program: &str, args: &[&str]| {
            let _ = Command::new(program).args(args).stderr(Stdio::null()).stdout(Stdio::null()).status();
        };
        quietly("ip", &["netns", "del", &self.name]);
        quietly("rmdir", &[&self.cgroup]);
        let _ = fs::remove_dir_all(self.pin(""));
    }
}

/// Where the hierarchy of cgroup v2 is mounted, if it is.
pub fn cgroup_mount() -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    mount.map(|mount| mount.split(' ').nth(1).unwrap().to_owned())
}

/// Whether programs can be pinned, which is told if they cannot.
pub fn can_pin(test: &Test) -> bool {
    use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
    let can = statfs("/sys/fs/bpf").is_ok_and(|mount| mount.filesystem_type() == BPF_FS_MAGIC);
    if !can {
        test.skip("no BPF file system is mounted at /sys/fs/bpf, to pin programs in");
    }
    can
}

/// bpftrace with a script that counts calls of getppid, until it is dropped.
pub struct Script {
    child: Guarded,
    pub id: u64,
}

impl Script {
    /// Starts it in a mount namespace of its own, where it has the tracepoints. `action` is what it does.
    pub fn start(action: &str) -> Self {
        let script = format!("tracepoint:syscalls:sys_enter_getppid {{ {action} }}");
        let mount = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec bpftrace -q -e \"$1\" 2>/dev/null";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", mount, "sh", &script]).stdout(Stdio::null());
        let child = spawn(&mut command);
        let mut id = None;
        // It tries the kernel out by other programs first, and waits for events once this one is attached.
        wait_until("bpftrace has attached its program", || {
            id = kept(child.0.id()).into_iter().find(|&id| {
                let shown = Command::new("bpftool").args(["prog", "show", "id", &id.to_string()]).output();
                String::from_utf8_lossy(&shown.unwrap().stdout).contains("name sys_enter_getpp")
            });
            id.is_some() && waits(child.0.id())
        });
        Self { id: id.unwrap(), child }
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }
}

/// Whether a process waits for events.
fn waits(pid: u32) -> bool {
    let syscall = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = syscall.split(' ').next().unwrap().parse();
    number.is_ok_and(|number: i64| [nix::libc::SYS_epoll_wait, nix::libc::SYS_epoll_pwait].contains(&number))
}

/// Programs that a process has descriptors of.
pub fn kept(pid: u32) -> Vec<u64> {
    let fds = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    fds.filter_map(|fd| {
        let info = fs::read_to_string(fd.path()).ok()?;
        info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok())
    })
    .collect()
}
