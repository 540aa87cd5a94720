//! Programs of containers: of who keeps them, of the cgroup and of the devices that they are attached to.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{Guarded, Test, output, spawn, wait_until};
use crate::machine::{Filter, Place, can_pin, cgroup_mount, program};

/// A cgroup as a container has one: gone at the end.
struct Cgroup {
    path: String,
    id: String,
}

impl Cgroup {
    fn new(mount: &str) -> Self {
        let id = format!("{:0>64x}", std::process::id());
        let path = format!("{mount}/docker-{id}.scope");
        fs::create_dir(&path).unwrap();
        Self { path, id }
    }

    fn add(&self, pid: u32) {
        fs::write(format!("{}/cgroup.procs", self.path), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It is empty when the processes are gone, which is a moment after they were ended.
        wait_until("the cgroup is empty", || fs::remove_dir(&self.path).is_ok());
    }
}

#[test]
fn programs_have_the_labels_of_their_containers() {
    let Some(test) = Test::alone("stats-containers") else { return };
    let Some(mount) = cgroup_mount() else {
        return test.skip("no cgroup v2 hierarchy is mounted, to put a process into");
    };
    let tools = ["bpftool", "clang", "ip", "tc", "nsenter", "unshare"];
    if !can_pin(&test) || !tools.into_iter().all(|tool| test.needs(tool)) {
        return;
    }
    let container = Cgroup::new(&mount);
    let place = Place::new(&test);
    let (of_host, of_container) = (Filter::start(&test, "send", 1), Filter::start(&test, "send", 1));
    container.add(of_container.pid());
    let net = format!("--net=/run/netns/{}", place.name());
    let inside: Guarded = spawn(Command::new("nsenter").args([&net, "sleep", "600"]));
    container.add(inside.0.id());
    wait_until("it is in the namespace", || {
        fs::read_to_string(format!("/proc/{}/comm", inside.0.id())).is_ok_and(|comm| comm == "sleep\n")
    });

    // The node knows its pod by the name of its log.
    let log = format!("/var/log/containers/web-0_shop_nginx-{}.log", container.id);
    let stats = || -> Value {
        let script = "mount -t tmpfs tmpfs /var/log && mkdir /var/log/containers && touch \"$1\" && exec \"$2\" stats -d 100ms -o json";
        let profiler = env!("CARGO_BIN_EXE_profiler");
        serde_json::from_str(&output("unshare", &["--mount", "sh", "-c", script, "sh", &log, profiler]))
            .unwrap()
    };
    let labels =
        json!([{ "container_id": container.id, "pod": "web-0", "namespace": "shop", "container": "nginx" }]);
    let containers = |statistics: &Value, id: u64| program(statistics, id)["containers"].clone();
    let ids = ["classifies_what_comes_in", "passes_on", "lets_out"].map(|name| place.id(name));

    let statistics = stats();
    assert_eq!(containers(&statistics, of_container.id), labels, "of the owner");
    assert_eq!(containers(&statistics, of_host.id), json!([]), "of nobody's");
    assert_eq!(containers(&statistics, ids[0]), labels, "of the network namespace");
    assert_eq!(containers(&statistics, ids[2]), json!([]), "of a cgroup that is none's");

    // On the host's end of a pair, and on the cgroup itself.
    let device = format!("vc{}", std::process::id());
    place.inside("ip", &["link", "set", "dev", "v1", "xdp", "off"]);
    output("ip", &["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", place.name()]);
    output("ip", &["link", "set", "dev", &device, "xdp", "pinned", &place.pin("passes_on")]);
    output("bpftool", &["cgroup", "attach", &container.path, "egress", "pinned", &place.pin("lets_out")]);
    let statistics = stats();
    let attached = program(&statistics, ids[1])["attach"].to_string();
    assert!(attached.contains(&format!("xdp {device} ")), "{attached}");
    assert_eq!(containers(&statistics, ids[1]), labels, "of a device's other end");
    assert_eq!(containers(&statistics, ids[2]), labels, "of the cgroup");
    // The device ends with the namespace that its other end is in.
    drop((inside, of_container));
}
