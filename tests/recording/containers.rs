//! Containers: labels of their samples, and recordings of one cgroup, on v2 and v1 and in cgroup namespaces.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::process::{Command, Stdio};

use crate::common::{JUDGES, Recording, Running, Test, output, spawn, wait_for_cpu_time, wait_until};

/// An id as containers have, like no other on this machine.
fn container_id(number: u32) -> String {
    format!("{:08x}{number:08x}{}", std::process::id(), "f0".repeat(24))
}

/// Mount points of the v2 hierarchy and of v1 memory, as far as there are.
fn hierarchies() -> Vec<(&'static str, String)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let find = |holds: &dyn Fn(&[&str]) -> bool| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            holds(&fields).then(|| fields[1].to_owned())
        })
    };
    let v2 = find(&|fields| fields[2] == "cgroup2");
    let v1 = find(&|fields| fields[2] == "cgroup" && fields[3].split(',').any(|it| it == "memory"));
    [("v2", v2), ("v1", v1)].into_iter().filter_map(|(name, mount)| Some((name, mount?))).collect()
}

/// A cgroup, removed when its tasks have ended.
struct Group(String);

impl Group {
    fn new(test: &Test, path: String) -> Option<Self> {
        match fs::create_dir(&path) {
            Ok(()) => Some(Self(path)),
            Err(error) => {
                test.skip(&format!("no cgroup {path} can be made: {error}"));
                None
            }
        }
    }

    /// A shell that comes to this cgroup and then does something else.
    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo $$ >'{}/cgroup.procs' && {script}", self.0)]);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Samples and labels.
fn labels(recording: &Recording) -> Vec<(u64, HashMap<String, String>)> {
    let text = output("python3", &[&format!("{JUDGES}/labels.py"), &recording.file]);
    let parse = |line: &str| {
        let (samples, labels) = line.split_once('\t')?;
        let pairs = labels.split('\t').filter_map(|label| label.split_once('='));
        let labels = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Some((samples.parse().ok()?, labels))
    };
    text.lines().filter_map(parse).filter(|(samples, _)| *samples > 0).collect()
}

/// Samples of a command, and of those the ones for which something holds of their labels.
fn of(
    samples: &[(u64, HashMap<String, String>)],
    comm: &str,
    holds: impl Fn(&HashMap<String, String>) -> bool,
) -> (u64, u64) {
    let mine = samples.iter().filter(|(_, labels)| labels.get("comm").is_some_and(|it| it == comm));
    mine.fold((0, 0), |(all, good), (n, labels)| (all + n, good + if holds(labels) { *n } else { 0 }))
}

#[test]
fn samples_have_the_labels_of_their_container_even_when_it_is_gone() {
    let Some(test) = Test::alone("container-labels") else { return };
    let inside = test.spin("inside", "busy_inside", &[]);
    let brief = test.spin("brief", "busy_brief", &[]);
    let outside = test.spin("outside", "busy_outside", &[]);
    for (at, (version, mount)) in hierarchies().into_iter().enumerate() {
        let at = at as u32 * 100;
        let id = container_id(at);
        let Some(group) = Group::new(&test, format!("{mount}/docker-{id}.scope")) else { return };
        let _inside = spawn(&mut group.shell(&format!("exec {inside} 600")));
        let _outside = spawn(Command::new(&outside).arg("600"));
        // The node's names of containers, where nobody else sees them.
        let script = format!(
            "mount -t tmpfs none /var/log && mkdir /var/log/containers && \
             : >/var/log/containers/web-0_shop_nginx-{id}.log && exec \"$@\""
        );
        let mut command = Command::new("unshare");
        let own = test.profiler(&[]);
        command.args(["-m", "sh", "-c", &script, "sh"]).arg(own.get_program()).current_dir(&test.dir);
        command.args(["record", "-F", "499", "--label", "region=eu"]).stdin(Stdio::null());
        let recorder = Running::new(test.dir.join("output.pb.gz"), command);
        recorder.wait_until_it_samples();
        // Containers of 30 ms, which are gone before the recording ends.
        for number in 1..=20 {
            let path = format!("{mount}/libpod-{}", container_id(at + number));
            let Some(group) = Group::new(&test, path) else { return };
            assert!(group.shell(&format!("exec {brief} 0.03")).status().unwrap().success());
        }
        let recording = recorder.interrupt();
        let samples = labels(&recording);
        let is = |key: &str, value: &str, labels: &HashMap<String, String>| {
            labels.get(key).is_some_and(|it| it == value)
        };
        let (all, named) = of(&samples, "inside", |labels| {
            is("container_id", &id, labels)
                && is("pod", "web-0", labels)
                && is("namespace", "shop", labels)
                && is("container", "nginx", labels)
                && is("cgroup", &format!("/docker-{id}.scope"), labels)
                && is("region", "eu", labels)
        });
        assert!(all > 50 && named == all, "{version}: {named} of {all}: {}", recording.told);
        // Beside the shell's own, from before it came there.
        let (all, named) =
            of(&samples, "brief", |labels| labels.get("container_id").is_some_and(|it| it.len() == 64));
        assert!(all > 50 && named * 100 >= all * 99, "{version}: {named} of {all}: {}", recording.told);
        let mut by_container: BTreeMap<&String, u64> = BTreeMap::new();
        for (n, labels) in &samples {
            if is("comm", "brief", labels)
                && let Some(id) = labels.get("container_id")
            {
                *by_container.entry(id).or_default() += n;
            }
        }
        assert!(by_container.len() >= 18, "{version}: {by_container:?}");
        let (all, wrong) = of(&samples, "outside", |labels| labels.contains_key("container_id"));
        assert!(all > 50 && wrong == 0, "{version}: {wrong} of {all}");
        let host = output("uname", &["-n"]);
        assert!(recording.comments.contains(&format!("host: {}", host.trim())), "{:?}", recording.comments);
    }
}

/// What the summary says of the tables, and of memory in MiB: the recorder's and the kernel's.
fn cost(told: &str) -> (u64, f64) {
    let number = |before: &str, after: &str| {
        let text = told.split(after).next().unwrap().rsplit(before).next().unwrap();
        text.trim().replace(',', "").parse::<f64>().unwrap_or_else(|_| panic!("{text} in {told}"))
    };
    let rows = number("tables ", " unwind rows");
    (rows as u64, number(", ", " MiB peak") + number("peak + ", " MiB in the kernel"))
}

#[test]
fn a_cgroup_costs_what_its_processes_cost() {
    let Some(test) = Test::alone("cgroup-cost") else { return };
    let program = test.spin("inside", "busy_inside", &[]);
    // Something else that is large.
    let _other = spawn(Command::new("python3").args(["-c", "while True: pass"]));
    for (version, mount) in hierarchies() {
        let path = format!("{mount}/profiler-cost-{}", std::process::id());
        let Some(group) = Group::new(&test, path.clone()) else { return };
        let inside = spawn(&mut group.shell(&format!("exec {program} 600")));
        let pid = inside.0.id();
        wait_until("the program runs", || {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "inside")
        });
        let by_process = test.record_until(0.3, pid, &["-F", "499", "-p", &pid.to_string()]);
        let by_group = test.record_until(0.3, pid, &["-F", "499", "-G", &path]);
        let all = by_group.total(|_| true);
        assert!(all > 50 && by_group.total(|sample| sample.pid == pid) == all, "{}", by_group.told);
        assert_eq!(by_group.with("busy_inside"), all, "{version}: {:?}", by_group.leaves());
        let [(rows, memory), (rows_of_group, memory_of_group)] =
            [&by_process, &by_group].map(|it| cost(&it.told));
        test.tell(&format!(
            "{version}: -p {rows} rows, {memory} MiB; -G {rows_of_group}, {memory_of_group} MiB"
        ));
        assert!(rows_of_group <= rows, "{version}: {rows_of_group} rows, {rows} of the process alone");
        assert!(memory_of_group <= 1.5 * memory, "{version}: {memory_of_group} MiB, {memory} of the process");
    }
}

/// As of a container that is given 64 MiB.
#[test]
fn little_memory_is_enough() {
    let Some(test) = Test::new("little-memory") else { return };
    let program = test.spin("inside", "busy_inside", &[]);
    let mut tried = false;
    for (version, mount) in hierarchies() {
        let path = format!("{mount}/profiler-little-{}", std::process::id());
        let Some(group) = Group::new(&test, path.clone()) else { return };
        let limit = if version == "v1" { "memory.limit_in_bytes" } else { "memory.max" };
        if fs::write(format!("{path}/{limit}"), "64M").is_err() {
            continue;
        }
        tried = true;
        let file = test.path("little.pb.gz");
        let mut recorder = group.shell("exec \"$0\" \"$@\"");
        recorder.args([
            env!("CARGO_BIN_EXE_profiler"),
            "record",
            "-F",
            "499",
            "-o",
            &file,
            "--",
            &program,
            "1",
        ]);
        let recording = Running::new(file.into(), recorder).finish();
        let all = recording.total(|_| true);
        assert!(recording.told.contains("profiler: little memory: "), "{}", recording.told);
        assert!(all > 100 && recording.with("busy_inside") * 100 >= all * 95, "{}", recording.told);
        assert!(recording.complete * 100 >= all * 95, "{}", recording.told);
    }
    if !tried {
        test.skip("no cgroup's memory can be limited");
    }
    // Without a limit it is not said. A machine with so little memory cannot run these tests.
    let recording = test.record(&["--", &program, "0.2"]);
    assert!(!recording.told.contains("little memory"), "{}", recording.told);
}

/// Processes that come to a cgroup while it is recorded: by themselves, and with children that stay.
#[test]
fn who_comes_to_a_cgroup_is_recorded_whole() {
    let Some(test) = Test::new("cgroup-joins") else { return };
    let program = test.spin("inside", "busy_inside", &[]);
    for (version, mount) in hierarchies() {
        let path = format!("{mount}/profiler-joins-{}", std::process::id());
        let Some(group) = Group::new(&test, path.clone()) else { return };
        let recorder = test.started(&["-F", "999", "-G", &path]);
        for _ in 0..10 {
            assert!(group.shell(&format!("{program} 0.03; exec {program} 0.2")).status().unwrap().success());
        }
        let late = spawn(Command::new(&program).arg("600"));
        wait_for_cpu_time(late.0.id(), 0.1);
        fs::write(format!("{path}/cgroup.procs"), late.0.id().to_string()).unwrap();
        wait_for_cpu_time(late.0.id(), 0.2);
        let recording = recorder.interrupt();
        let spins = recording.total(|sample| sample.comm == "inside");
        let named = recording.total(|s| s.comm == "inside" && recording.has_frame(s, "busy_inside"));
        // Beginnings and ends are the loader's.
        let late = recording.total(|sample| sample.pid == late.0.id());
        assert!(late > 50 && spins > 400, "{version}: {late}, {spins}: {}", recording.told);
        assert!(named * 100 >= spins * 95, "{version}: {named} of {spins}: {:?}", recording.leaves());
        let whole = recording.complete as f64 / (recording.complete + recording.incomplete) as f64;
        assert!(whole >= 0.99, "{version}: {}", recording.told);
    }
}

/// A path as it is seen in a cgroup namespace, whose root is not the hierarchy's.
#[test]
fn a_path_of_a_cgroup_namespace() {
    let Some(test) = Test::new("cgroup-namespace") else { return };
    if !test.needs("unshare") {
        return;
    }
    let program = test.spin("inside", "busy_inside", &[]);
    let outside = test.spin("outside", "busy_outside", &[]);
    for (version, mount) in hierarchies() {
        let name = format!("profiler-ns-{}", std::process::id());
        let Some(parent) = Group::new(&test, format!("{mount}/{name}")) else { return };
        let Some(root) = Group::new(&test, format!("{}/root", parent.0)) else { return };
        let Some(below) = Group::new(&test, format!("{}/root/below", parent.0)) else { return };
        let inside = spawn(&mut below.shell(&format!("exec {program} 600")));
        let _outside = spawn(&mut root.shell(&format!("exec {outside} 600")));
        // As the mount was made outside, and as one that is made inside shows it.
        let type_of = if version == "v2" { "cgroup2" } else { "cgroup -o memory" };
        let again = format!("umount {mount} && mount -t {type_of} none {mount} && ");
        for (kind, mounted) in [("the host's mount", ""), ("its own mount", again.as_str())] {
            let own = test.profiler(&[]);
            let profiler = own.get_program().to_str().unwrap();
            let script = format!("{mounted}exec {profiler} record -F 499 -G /below");
            let mut command = root.shell("exec unshare -C -m sh -c \"$0\"");
            command.arg(script).current_dir(&test.dir).stdin(Stdio::null());
            let recorder = Running::new(test.dir.join("output.pb.gz"), command);
            recorder.wait_until_it_samples();
            wait_for_cpu_time(inside.0.id(), 0.3);
            let recording = recorder.interrupt();
            let all = recording.total(|_| true);
            assert!(all > 50, "{version}, {kind}: {}", recording.told);
            assert_eq!(recording.with("busy_inside"), all, "{version}, {kind}: {:?}", recording.leaves());
        }
    }
}

/// Real containers, by what Debian has.
#[test]
fn containers_of_podman() {
    let Some(test) = Test::new("podman") else { return };
    if !test.needs("podman") || !test.needs("runc") {
        return;
    }
    let program = test.compile("tests/programs/spin.c", "spun", &["-static", "-DFUNCTION=busy"]);
    let paths = ["store", "run"].map(|name| test.path(name));
    let limit = output("sh", &["-c", "ulimit -Hn"]);
    let limit = format!("nofile={0}:{0}", limit.trim());
    // Storage of its own; limits within what a shell may have; runc knows cgroup v1, v2 and both.
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--storage-driver", "vfs", "--root", &paths[0], "--runroot", &paths[1]]);
        command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command.args(args).stdin(Stdio::null());
        command
    };
    output("tar", &["-C", test.dir.to_str().unwrap(), "-cf", &test.path("image.tar"), "spun"]);
    let image = "localhost/profiler-test:1";
    let imported = podman(&["import", "--quiet", &test.path("image.tar"), image]).output().unwrap();
    let run = ["run", "--network=none", "--ulimit", &limit, "--ulimit", "nproc=1000:1000"];
    let run = |more: &[&str], seconds: &str| {
        podman(&[&run[..], more, &[image, "/spun", seconds]].concat()).output().unwrap()
    };
    let first = run(&["--rm"], "0");
    if !imported.status.success() || !first.status.success() {
        let why = String::from_utf8_lossy(&first.stderr).into_owned();
        return test.skip(&format!("podman runs no container here: {}", why.trim()));
    }
    let host = spawn(Command::new(&program).arg("600"));
    let recorder = test.started(&["-F", "499"]);
    for _ in 0..3 {
        assert!(run(&["--rm"], "0.03").status.success());
    }
    // The id of one that stays is podman's own word.
    assert!(run(&["--name", "kept"], "0.5").status.success());
    let id = podman(&["inspect", "--format", "{{.Id}}", "kept"]).output().unwrap();
    let id = String::from_utf8(id.stdout).unwrap().trim().to_owned();
    let recording = recorder.interrupt();
    assert!(podman(&["rm", "--force", "kept"]).output().unwrap().status.success());
    let samples = labels(&recording);
    let on_host = host.0.id().to_string();
    let inside = |labels: &&HashMap<String, String>| {
        labels.get("comm").is_some_and(|it| it == "spun") && labels.get("pid") != Some(&on_host)
    };
    let count = |holds: &dyn Fn(&HashMap<String, String>) -> bool| -> u64 {
        samples.iter().filter(|(_, labels)| holds(labels)).map(|(n, _)| n).sum()
    };
    let all = count(&|labels| inside(&labels));
    let named = count(&|labels| inside(&labels) && labels.contains_key("container_id"));
    let kept = count(&|labels| inside(&labels) && labels.get("container_id") == Some(&id));
    assert!(all > 200 && named * 100 >= all * 99, "{named} of {all}: {}", recording.told);
    assert!(kept * 10 >= all * 7, "{kept} of {all} are those of {id}");
    let wrong = count(&|labels| labels.get("pid") == Some(&on_host) && labels.contains_key("container_id"));
    assert_eq!(wrong, 0, "samples of the host's process in a container");
    let busy = recording.total(|s| s.comm == "spun" && recording.has_frame(s, "busy"));
    let spun = recording.total(|s| s.comm == "spun");
    assert!(busy * 100 >= spun * 98, "{busy} of {spun} named: {:?}", recording.leaves());
}
