//! Statistics in the OpenMetrics text format, which Prometheus' own older format takes as well.
//!
//! The two disagree about the names of counters, so that everything is a gauge; what only grows says so
//! in its help.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Container, Program, Statistics};

type Value = fn(&Statistics, &Program) -> f64;

const OF_PROGRAMS: [(&str, &str, Value); 10] = [
    ("bpf_program_window_runs", "Runs in the window.", |_, p| p.run_count as f64),
    ("bpf_program_window_run_time_seconds", "Time of the runs in the window.", |_, p| {
        p.run_time_ns as f64 / 1e9
    }),
    ("bpf_program_window_cpu_ratio", "Share of one CPU in the window.", |s, p| {
        s.percent_of_one_cpu(p.run_time_ns) / 100.0
    }),
    (
        "bpf_program_runs",
        "Runs since the program was loaded, while statistics were on; only grows.",
        |_, p| p.total_run_count as f64,
    ),
    (
        "bpf_program_run_time_seconds",
        "Time of the runs since the program was loaded, while statistics were on; only grows.",
        |_, p| p.total_run_time_ns as f64 / 1e9,
    ),
    (
        "bpf_program_recursion_misses",
        "Runs suppressed because the program was running; only grows.",
        |_, p| p.recursion_misses as f64,
    ),
    ("bpf_program_link_misses", "Runs that probes have missed; only grows.", |_, p| p.link_misses as f64),
    ("bpf_program_map_memory_bytes", "Memory of the program's maps, of shared ones its share.", |_, p| {
        p.map_memory_bytes as f64
    }),
    ("bpf_program_jit_bytes", "Machine code of the program.", |_, p| p.jit_bytes as f64),
    ("bpf_program_load_time_seconds", "When the program was loaded, since 1970.", |_, p| {
        p.loaded_at_ns as f64 / 1e9
    }),
];

/// Families of metrics, a sample for each program, and the end.
pub fn print(statistics: &Statistics, shown: &[&Program]) -> String {
    let mut text = String::new();
    let totals = statistics.sum(|_| true);
    let of_all = [
        ("bpf_window_seconds", "Length of the window.", statistics.window_ns as f64 / 1e9),
        ("bpf_cpus", "CPUs that are online.", statistics.cpus as f64),
        ("bpf_programs", "Programs.", totals.programs as f64),
        (
            "bpf_window_run_time_seconds",
            "Time of all programs in the window.",
            totals.run_time_ns as f64 / 1e9,
        ),
        ("bpf_map_memory_bytes", "Memory of all maps that programs use.", totals.map_memory_bytes as f64),
    ];
    // Writing to a string cannot fail.
    for (name, help, value) in of_all {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    let _ = writeln!(
        text,
        "# HELP bpf_program_info Owners and places of a program.\n# TYPE bpf_program_info gauge"
    );
    for program in shown {
        let _ = writeln!(text, "bpf_program_info{{{}}} 1", info(program));
    }
    for (name, help, value) in OF_PROGRAMS {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for program in shown {
            let _ = writeln!(text, "{name}{{{}}} {}", labels(program), value(statistics, program));
        }
    }
    text.push_str("# EOF\n");
    text
}

/// Labels that tell a program from all others.
pub fn labels(program: &Program) -> String {
    format!("id=\"{}\",type=\"{}\",name=\"{}\"", program.id, escaped(&program.kind), escaped(&program.name))
}

/// Labels that say what a program is: whose, where, and of which containers.
pub fn info(program: &Program) -> String {
    let owners: Vec<String> = program.owners.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "{},tag=\"{}\",owners=\"{}\",pins=\"{}\",attach=\"{}\"",
        labels(program),
        program.tag,
        escaped(&owners.join("; ")),
        escaped(&program.pins.join("; ")),
        escaped(&program.attach.join("; ")),
    );
    for key in ["container_id", "pod", "namespace", "container"] {
        let values = program.containers.iter().flat_map(Container::labels).filter(|(label, _)| *label == key);
        let values: BTreeSet<&str> = values.map(|(_, value)| value).collect();
        if !values.is_empty() {
            let values: Vec<&str> = values.into_iter().collect();
            // Writing to a string cannot fail.
            let _ = write!(text, ",{key}=\"{}\"", escaped(&values.join("; ")));
        }
    }
    text
}

/// Text as the value of a label.
pub fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\n"), "a\\\"b\\\\c\\n");
    }
}
