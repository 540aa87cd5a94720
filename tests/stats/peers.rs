//! The same programs as bpftool and fdinfo tell of them.

use serde_json::Value;

use crate::common::{Test, output};
use crate::machine::{Filter, Measuring, Place, Script, bpftool, can_pin, cgroup_mount, program};

const CALLS: u64 = 300_000;

fn needs(test: &Test) -> bool {
    if cgroup_mount().is_none() {
        test.skip("no cgroup v2 hierarchy is mounted, to attach a program to");
        return false;
    }
    let tools = ["bpftool", "bpftrace", "clang", "ip", "tc", "nsenter", "unshare"];
    can_pin(test) && tools.into_iter().all(|tool| test.needs(tool))
}

/// Everything that both tell of a program; `before` is what bpftool said before the window.
fn same(test: &Test, ours: &Value, before: &Value) {
    let theirs = bpftool(ours["id"].as_u64().unwrap());
    for (key, their_key) in [
        ("type", "type"),
        ("name", "name"),
        ("tag", "tag"),
        ("jit_bytes", "bytes_jited"),
        ("program_memory_bytes", "bytes_memlock"),
        ("map_ids", "map_ids"),
    ] {
        let nothing = Value::Array(Vec::new());
        let their = theirs.get(their_key).unwrap_or(&nothing);
        assert_eq!(&ours[key], their, "{key}: {ours} and {theirs}");
    }
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let runs = number(&theirs["run_cnt"]) - number(&before["run_cnt"]);
    let ns = number(&theirs["run_time_ns"]) - number(&before["run_time_ns"]);
    let (our_runs, our_ns) = (number(&ours["run_count"]), number(&ours["run_time_ns"]));
    let said = format!("{}: {our_runs} runs and bpftool {runs}, {our_ns} ns and {ns}", ours["name"]);
    test.tell(&said);
    assert!(our_runs > 0 && our_runs.abs_diff(runs) * 1000 <= runs, "{said}");
    let average = |ns: u64, runs: u64| ns as f64 / runs as f64;
    assert!((average(our_ns, our_runs) / average(ns, runs) - 1.0).abs() <= 0.1, "{said}");
    let at = |text: &str| output("date", &["-d", text, "+%s"]).trim().parse::<i64>().unwrap();
    let loaded = at(ours["loaded_at"].as_str().unwrap());
    assert!((loaded - theirs["loaded_at"].as_i64().unwrap()).abs() <= 1, "{ours} and {theirs}");
}

/// Memory of a map, as bpftool reads it from fdinfo.
fn map_bytes(id: &Value) -> u64 {
    let text = output("bpftool", &["-j", "map", "show", "id", &id.to_string()]);
    let map: Value = serde_json::from_str(&text).unwrap();
    map["bytes_memlock"].as_u64().unwrap()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn programs_are_those_of_bpftool() {
    let Some(test) = Test::alone("stats-peers") else { return };
    if !needs(&test) {
        return;
    }
    let calls = test.compile("tests/programs/calls.c", "calls", &[]);
    let place = Place::new(&test);
    let mut filter = Filter::start(&test, "send", 20_000);
    // Two scripts on the same calls, of different costs.
    let scripts = [Script::start("@ = count();"), Script::start("@[pid, comm, cpu] = hist(nsecs);")];
    let pinned = ["classifies_what_comes_in", "passes_on", "lets_out"];
    let ids = pinned.map(|name| place.id(name));
    let all = [&ids[..], &[filter.id, scripts[0].id, scripts[1].id]].concat();
    let before: Vec<Value> = all.iter().map(|&id| bpftool(id)).collect();

    let measuring = Measuring::start(&test, &[]);
    output(&calls, &["getppid", &CALLS.to_string()]);
    place.send(&calls, 30_000);
    filter.send();
    let statistics = measuring.finish();

    for (&id, before) in all.iter().zip(&before) {
        let ours = program(&statistics, id);
        same(&test, ours, before);
        assert_eq!((&ours["loaded_in_window"], &ours["unloaded_in_window"]), (&false.into(), &false.into()));
        let percent =
            100.0 * ours["run_time_ns"].as_f64().unwrap() / statistics["window_ns"].as_f64().unwrap();
        let told = ours["percent_of_one_cpu"].as_f64().unwrap();
        assert!((told - percent).abs() < 1e-6 * percent, "{ours}");
    }
    for script in &scripts {
        let ours = program(&statistics, script.id);
        // Shells call it as well when they start, which on a shared machine may be many.
        let runs = ours["run_count"].as_u64().unwrap();
        assert!((CALLS..=CALLS + CALLS / 20).contains(&runs), "{ours}");
        assert_eq!(list(&ours["attach"]), ["tracepoint sys_enter_getppid"]);
        assert_eq!(ours["owners"], serde_json::json!([{ "pid": script.pid(), "comm": "bpftrace" }]));
    }
    let ours = program(&statistics, filter.id);
    assert_eq!(ours["run_count"], 20_000, "{ours}");
    assert_eq!(ours["owners"], serde_json::json!([{ "pid": filter.pid(), "comm": "filter" }]));
    assert!(list(&ours["attach"])[0].starts_with("socket "), "{ours}");
    let name = place.name();
    let places = [
        format!("tc v1 ingress in netns {name}"),
        format!("xdp v1 (driver) in netns {name}"),
        format!("cgroup_inet_egress /{name}"),
    ];
    for ((pinned, id), place_of_it) in pinned.into_iter().zip(ids).zip(&places) {
        let ours = program(&statistics, id);
        assert_eq!(list(&ours["attach"]), [place_of_it]);
        assert_eq!(list(&ours["pins"]), [&place.pin(pinned)]);
        assert!(ours["run_count"].as_u64().unwrap() >= 30_000, "{ours}");
    }
    memory(&test, &statistics, &all, &ids);
}

/// What a program has for itself is its own; what three share is split, and nothing lost by it.
fn memory(test: &Test, statistics: &Value, all: &[u64], sharing: &[u64]) {
    let whole =
        |id: u64| program(statistics, id)["map_ids"].as_array().unwrap().iter().map(map_bytes).sum::<u64>();
    for &id in all.iter().filter(|id| !sharing.contains(id)) {
        let ours = program(statistics, id);
        // Maps of bpftrace's scripts grow with what they count.
        let difference = ours["map_memory_bytes"].as_u64().unwrap().abs_diff(whole(id));
        assert_eq!((difference, &ours["shared_maps"]), (0, &0.into()), "{ours}");
    }
    let classifier = program(statistics, sharing[0]);
    let maps = classifier["map_ids"].as_array().unwrap();
    let own =
        maps.iter().find(|id| !program(statistics, sharing[1])["map_ids"].as_array().unwrap().contains(id));
    let shared = map_bytes(maps.iter().find(|id| Some(*id) != own).unwrap());
    let told: Vec<u64> =
        sharing.iter().map(|&id| program(statistics, id)["map_memory_bytes"].as_u64().unwrap()).collect();
    test.tell(&format!(
        "maps: {} B of its own, {shared} B of three: shares {told:?}",
        map_bytes(own.unwrap())
    ));
    assert_eq!(told.iter().sum::<u64>(), map_bytes(own.unwrap()) + shared);
    assert!(told[1].abs_diff(shared / 3) <= 1 && told[2].abs_diff(shared / 3) <= 1, "{told:?} of {shared}");
    assert!(sharing.iter().all(|&id| program(statistics, id)["shared_maps"] == 1));
}
