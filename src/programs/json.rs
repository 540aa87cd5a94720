//! Statistics as one JSON object; docs/stats.md describes it. With viewing::columns the only user of serde_json.

use serde_json::{Value, json};

use super::{Container, Owner, Program, Statistics, table};

/// The object, on one line. `shown` are the programs to list; totals are of all.
pub fn print(statistics: &Statistics, shown: &[&Program]) -> String {
    let totals = |totals: super::Totals| {
        json!({
            "programs": totals.programs,
            "run_count": totals.run_count,
            "run_time_ns": totals.run_time_ns,
            "percent_of_one_cpu": statistics.percent_of_one_cpu(totals.run_time_ns),
            "percent_of_machine": statistics.percent_of_machine(totals.run_time_ns),
            "map_memory_bytes": totals.map_memory_bytes,
            "program_memory_bytes": totals.program_bytes,
        })
    };
    let mut all = totals(statistics.sum(|_| true));
    all["unused_map_memory_bytes"] = json!(statistics.unused_map_bytes());
    let mut own = totals(statistics.sum(|program| program.ours));
    own["process_cpu_ns"] = json!(statistics.own_cpu_ns);
    let object = json!({
        "window_ns": statistics.window_ns,
        "cpus": statistics.cpus,
        "totals": all,
        "own": own,
        "statistics": {
            "switched_on_by": statistics.means,
            "were_on": statistics.was_on,
            "cost_ns_per_run": statistics.cost_ns_per_run,
            "cost_ns": statistics.cost_ns(),
            "empty_run_ns": statistics.empty_run_ns,
        },
        "unseen_programs": statistics.unseen,
        "unreadable_processes": statistics.unreadable,
        "programs": shown.iter().map(|program| describe(statistics, program)).collect::<Vec<_>>(),
        "maps": statistics.maps.iter().map(map).collect::<Vec<_>>(),
    });
    format!("{object}\n")
}

fn describe(statistics: &Statistics, program: &Program) -> Value {
    let owner = |owner: &Owner| json!({ "pid": owner.pid, "comm": owner.comm });
    json!({
        "id": program.id,
        "type": program.kind,
        "name": program.name,
        "tag": program.tag,
        "owners": program.owners.iter().map(owner).collect::<Vec<_>>(),
        "pins": program.pins,
        "attach": program.attach,
        "containers": program.containers.iter().map(container).collect::<Vec<_>>(),
        "run_count": program.run_count,
        "run_time_ns": program.run_time_ns,
        "average_ns": program.average_ns(),
        "percent_of_one_cpu": statistics.percent_of_one_cpu(program.run_time_ns),
        "percent_of_machine": statistics.percent_of_machine(program.run_time_ns),
        "total_run_count": program.total_run_count,
        "total_run_time_ns": program.total_run_time_ns,
        "recursion_misses": program.recursion_misses,
        "link_misses": program.link_misses,
        "map_ids": program.map_ids,
        "map_memory_bytes": program.map_memory_bytes,
        "shared_maps": program.shared_maps,
        "program_memory_bytes": program.memory_bytes,
        "jit_bytes": program.jit_bytes,
        "loaded_at": table::utc(program.loaded_at_ns),
        "own": program.ours,
        "loaded_in_window": program.loaded,
        "unloaded_in_window": program.unloaded,
    })
}

fn container(container: &Container) -> Value {
    container.labels().map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
}

fn map(map: &super::Map) -> Value {
    json!({
        "id": map.id,
        "type": map.kind,
        "name": map.name,
        "memory_bytes": map.bytes,
        "program_ids": map.users,
    })
}
