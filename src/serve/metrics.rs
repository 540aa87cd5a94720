//! `/metrics`: what BPF programs cost, and what we do, as counters that only grow.
//!
//! OpenMetrics names a counter's family without its `_total`, Prometheus' older format with it; the samples are
//! the same.

use std::fmt::Write as _;

use crate::programs::openmetrics::{info, labels};
use crate::programs::{Program, Statistics};

/// Our own figures, since we were started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// CPU time of the recorder, of naming too.
    pub cpu_s: f64,
    /// Its memory now, in bytes.
    pub resident_bytes: u64,
    /// Whether it records now.
    pub is_recording: bool,
    /// Recordings that are under way.
    pub windows: usize,
    /// Recordings that were asked for.
    pub requests: u64,
    /// Requests that found too many others.
    pub refused: u64,
    /// Samples taken.
    pub samples: u64,
    /// Samples lost.
    pub lost: u64,
    /// Records of processes that were lost.
    pub sideband_lost: u64,
}

/// A family of metrics under way.
struct Text {
    text: String,
    open: bool,
}

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let family = if kind == "counter" && !self.open { format!("{name}_total") } else { name.to_owned() };
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = if labels.is_empty() {
            writeln!(self.text, "{name} {value}")
        } else {
            writeln!(self.text, "{name}{{{labels}}} {value}")
        };
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "counter", help);
        self.sample(&format!("{name}_total"), "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }
}

type Value = fn(&Program) -> f64;

const COUNTERS: [(&str, &str, Value); 4] = [
    ("bpf_program_runs", "Runs since the program was loaded, while statistics were on.", |p| {
        p.total_run_count as f64
    }),
    ("bpf_program_run_time_seconds", "Time of these runs.", |p| p.total_run_time_ns as f64 / 1e9),
    ("bpf_program_recursion_misses", "Runs suppressed because the program was running.", |p| {
        p.recursion_misses as f64
    }),
    ("bpf_program_link_misses", "Runs that probes have missed.", |p| p.link_misses as f64),
];

const GAUGES: [(&str, &str, Value); 3] = [
    ("bpf_program_map_memory_bytes", "Memory of the program's maps, of shared ones its share.", |p| {
        p.map_memory_bytes as f64
    }),
    ("bpf_program_jit_bytes", "Machine code of the program.", |p| p.jit_bytes as f64),
    ("bpf_program_load_time_seconds", "When the program was loaded, since 1970.", |p| {
        p.loaded_at_ns as f64 / 1e9
    }),
];

/// All of it; without statistics nothing on BPF programs.
pub fn print(statistics: Option<&Statistics>, own: &Own, open: bool) -> String {
    let mut text = Text { text: String::new(), open };
    text.counter("profiler_cpu_seconds", "CPU time of the profiler.", own.cpu_s);
    text.gauge("profiler_resident_memory_bytes", "Memory of the profiler.", own.resident_bytes as f64);
    text.gauge("profiler_recording", "1 while it records.", f64::from(u8::from(own.is_recording)));
    text.gauge("profiler_windows", "Recordings under way.", own.windows as f64);
    text.counter("profiler_requests", "Recordings that were asked for.", own.requests as f64);
    text.counter("profiler_refused_requests", "Requests that found too many others.", own.refused as f64);
    text.counter("profiler_samples", "Samples taken.", own.samples as f64);
    text.counter("profiler_lost_samples", "Samples lost.", own.lost as f64);
    text.counter("profiler_lost_process_records", "Records of processes lost.", own.sideband_lost as f64);
    text.gauge(
        "bpf_statistics_readable",
        "1 if what BPF programs cost may be seen.",
        f64::from(u8::from(statistics.is_some())),
    );
    if let Some(statistics) = statistics {
        of_programs(&mut text, statistics);
    }
    if open {
        text.text.push_str("# EOF\n");
    }
    text.text
}

fn of_programs(text: &mut Text, statistics: &Statistics) {
    let totals = statistics.sum(|_| true);
    text.gauge("bpf_programs", "Programs that are loaded.", totals.programs as f64);
    text.gauge(
        "bpf_map_memory_bytes",
        "Memory of all maps that programs use.",
        totals.map_memory_bytes as f64,
    );
    text.family("bpf_program_info", "gauge", "Owners and places of a program.");
    for program in &statistics.programs {
        text.sample("bpf_program_info", &info(program), 1.0);
    }
    for (name, help, value) in COUNTERS {
        text.family(name, "counter", help);
        for program in &statistics.programs {
            text.sample(&format!("{name}_total"), &labels(program), value(program));
        }
    }
    for (name, help, value) in GAUGES {
        text.family(name, "gauge", help);
        for program in &statistics.programs {
            text.sample(name, &labels(program), value(program));
        }
    }
}
