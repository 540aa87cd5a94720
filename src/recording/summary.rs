//! What a recording came to, in the few lines that a tired person reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::machine::usage::CpuTime;
use crate::model::event::{Loss, Outcome, Truncation};
use crate::model::profile::Profile;
use crate::model::scripts::{Figures, Runtime};
use crate::programs::{Program, Statistics};
use crate::recording::capture::bpf::{Blocks, Cost, Outcomes, tables};
use crate::recording::counters::Counters;
use crate::recording::timeline::Rereads;
use crate::text::{mib, percent, thousands};
use crate::viewing::names::{FrameKind, mapping_kind};

/// What the unwind tables came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TableFigures {
    /// Files with a table.
    pub files: usize,
    /// Rows of all of them.
    pub rows: usize,
    /// Seconds spent on building them.
    pub build_s: f64,
    /// Files for which there was no room: walked by frame pointers.
    pub refused_files: u64,
    /// Processes for whose mappings there was no room, for a time at least.
    pub refused_processes: u64,
    /// Files that are interpreters.
    pub interpreters: usize,
    /// Those for which there was no room: their scripts have no frames.
    pub refused_interpreters: u64,
}

/// The event of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SampledEvent {
    /// As it was asked for.
    pub name: String,
    /// Events that one sample stands for, if that was asked for.
    pub one_in: Option<u64>,
    /// Or how often it was sampled at most.
    pub most_hz: u32,
    /// Events that the samples stand for.
    pub events: u64,
    /// Whether the kernel counted them, or the samples told how many they stood for.
    pub is_counted: bool,
}

impl SampledEvent {
    /// How often it was sampled.
    pub fn rate(&self) -> String {
        match self.one_in {
            Some(1) => "each".to_owned(),
            Some(n) => format!("1 in {n}"),
            None => format!("at most {} Hz", self.most_hz),
        }
    }
}

/// The figures of a recording.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Length in seconds.
    pub duration_s: f64,
    /// CPUs that were sampled.
    pub cpus: usize,
    /// Rate that was asked for.
    pub frequency_hz: u32,
    /// Samples with whole stacks.
    pub complete: u64,
    /// Samples with stacks that are not whole.
    pub incomplete: BTreeMap<Truncation, u64>,
    /// How every run of the sampler ended; `None` if its counters could not be read.
    pub outcomes: Option<Outcomes>,
    /// Side-band records that the kernel had no room for.
    pub sideband_lost: u64,
    /// Files with samples whose names are missing, by the reason.
    pub missing: BTreeMap<&'static str, usize>,
    /// Files with samples whose code is that of 32-bit processes.
    pub of_32_bits: usize,
    /// Samples and blocks that have no process id, for want of room.
    pub without_ids: u64,
    /// Samples and blocks with frames of scripts, by whose they are.
    pub scripts: BTreeMap<Runtime, Figures>,
    /// Interpreters with samples whose frames cannot be read, and why.
    pub unknown_interpreters: BTreeSet<String>,
    /// CPU time of the sampled CPUs.
    pub cpu: CpuTime,
    /// What the BPF programs cost.
    pub cost: Option<Cost>,
    /// Our own CPU time while recording, in seconds.
    pub own_cpu_s: f64,
    /// Our own peak memory while recording, in bytes.
    pub own_peak_bytes: u64,
    /// Memory in the kernel for maps and rings, in bytes.
    pub kernel_bytes: u64,
    /// Time off the CPU, if it was recorded.
    pub blocks: Option<Blocks>,
    /// What BPF programs cost, if it was recorded.
    pub programs: Option<Statistics>,
    /// Nothing was sampled.
    pub off_cpu_only: bool,
    /// Unwind tables, if stacks were walked by them.
    pub tables: Option<TableFigures>,
    /// The event that was sampled, if it was not the CPU's clock.
    pub event: Option<SampledEvent>,
    /// In place of the number of samples: of slow calls.
    pub headline: Option<String>,
    /// What was used.
    pub counters: Option<Counters>,
    /// What was read from `/proc` again, since stacks showed that not all was told.
    pub rereads: Rereads,
}

impl Summary {
    /// Samples lost by reason.
    pub fn lost(&self) -> BTreeMap<Loss, u64> {
        let lost = self.by_outcome().filter_map(|(outcome, runs)| match outcome {
            Outcome::Lost(loss) => Some((*loss, runs)),
            _ => None,
        });
        lost.collect()
    }

    fn by_outcome(&self) -> impl Iterator<Item = (&Outcome, u64)> {
        self.outcomes.iter().flat_map(|outcomes| &outcomes.by_outcome).map(|(outcome, &runs)| (outcome, runs))
    }

    fn runs(&self, what: impl Fn(&Outcome) -> bool) -> u64 {
        self.by_outcome().filter(|(outcome, _)| what(outcome)).map(|(_, runs)| runs).sum()
    }

    /// Samples taken: every run of the sampler on a task that was asked for. Where that is not known, those that
    /// were counted.
    pub fn taken(&self) -> u64 {
        if self.outcomes.is_none() {
            return self.complete + self.incomplete.values().sum::<u64>();
        }
        self.runs(|outcome| !matches!(outcome, Outcome::Idle | Outcome::Filtered))
    }

    /// How its samples add up.
    pub fn equation(&self) -> String {
        let incomplete = self.incomplete.values().sum();
        if self.outcomes.is_none() {
            let complete = self.complete;
            return format!("taken: not known; counted: complete {complete} + incomplete {incomplete}");
        }
        equation(self.taken(), self.complete, incomplete, self.lost().values().sum())
    }

    /// Sampler runs on busy CPUs per second that the CPUs were busy.
    pub fn delivered_hz(&self) -> Option<f64> {
        let runs = self.runs(|outcome| *outcome != Outcome::Idle);
        (self.cpu.busy_s >= 1.0).then(|| runs as f64 / self.cpu.busy_s)
    }

    /// One line for people, of a file among many.
    pub fn line(&self) -> String {
        let blocks = self.blocks.as_ref().map(|blocks| format!("; blocks {}", blocks.equation()));
        format!(
            "{:.1} s, {}{}; recorder {:.0} ms CPU, {} + {} in the kernel",
            self.duration_s,
            self.equation(),
            blocks.unwrap_or_default(),
            self.own_cpu_s * 1e3,
            mib(self.own_peak_bytes),
            mib(self.kernel_bytes),
        )
    }

    /// The lines for people. `hottest` are names and their shares in percent.
    pub fn text(&self, hottest: &[(String, f64)], naming: Option<(f64, u64)>) -> String {
        let mut text = String::new();
        let blocks = self.blocks.as_ref().filter(|_| self.off_cpu_only);
        let (count, what) = blocks.map_or((self.taken(), "samples"), |blocks| (blocks.taken, "blocks"));
        let plural = if self.cpus == 1 { "" } else { "s" };
        let counted = format!("{} {what}", thousands(count));
        let headline = self.headline.as_ref().unwrap_or(&counted);
        let _ = write!(text, "{headline} in {:.1} s on {} CPU{plural}", self.duration_s, self.cpus);
        if let Some(event) = &self.event {
            let how = if event.is_counted { "counted" } else { "told by the samples" };
            let events = thousands(event.events);
            let _ = write!(text, " of {events} {} ({}; {how})", event.name, event.rate());
        } else if !self.off_cpu_only && self.headline.is_none() {
            let _ = write!(text, " at {} Hz", self.frequency_hz);
            if let Some(hz) = self.delivered_hz() {
                let _ = write!(text, " ({hz:.1} Hz delivered per busy CPU)");
            }
        }
        let _ =
            writeln!(text, "; CPUs {:.0}% idle", percent(self.cpu.idle_s, self.cpu.busy_s + self.cpu.idle_s));
        if !self.off_cpu_only {
            let _ = writeln!(text, "  {}", self.equation());
        }
        if !self.incomplete.is_empty() {
            let mut reasons: Vec<_> = self.incomplete.iter().collect();
            reasons.sort_by_key(|&(_, &samples)| std::cmp::Reverse(samples));
            let reasons = reasons.iter().map(|(why, samples)| format!("{} {samples}", why.reason()));
            let _ = writeln!(text, "  incomplete stacks: {}", reasons.collect::<Vec<_>>().join(", "));
        }
        if !self.lost().is_empty() {
            let reasons =
                self.lost().iter().map(|(why, n)| format!("{} {n}", why.reason())).collect::<Vec<_>>();
            let _ = writeln!(text, "  lost samples: {}", reasons.join(", "));
        }
        if self.sideband_lost > 0 {
            let _ = writeln!(
                text,
                "  lost {} process records (too many at once): some frames may lack names",
                self.sideband_lost
            );
        }
        if !self.missing.is_empty() {
            let reasons = self.missing.iter().map(|(why, files)| format!("{why} {files}"));
            let _ = writeln!(text, "  files without names: {}", reasons.collect::<Vec<_>>().join(", "));
        }
        for (runtime, figures) in &self.scripts {
            let of = thousands(figures.named + figures.unnamed.values().sum::<u64>());
            let _ = write!(text, "  scripts {of} stacks in {}, ", runtime.language());
            let _ = write!(text, "{} with all names", thousands(figures.named));
            for (why, stacks) in &figures.unnamed {
                let _ = write!(text, "; {} {}", why.reason(), thousands(*stacks));
            }
            text.push('\n');
        }
        for name in &self.unknown_interpreters {
            let _ =
                writeln!(text, "  scripts of {name} have no frames: its own functions stand in their place");
        }
        if self.rereads.stacks > 0 {
            let _ = writeln!(
                text,
                "  healed  {} stacks: what their processes had mapped was not told, but read again ({} times)",
                thousands(self.rereads.stacks),
                thousands(self.rereads.maps)
            );
        }
        let not_followed = self.outcomes.as_ref().map_or(0, |outcomes| outcomes.follow_failed);
        if not_followed > 0 {
            let _ = writeln!(text, "  not followed: {not_followed} child processes, too many at once");
        }
        if let Some(blocks) = &self.blocks {
            let _ = writeln!(text, "  blocks  {}", blocks.text());
            let Blocks { wakers, wakers_lost, .. } = blocks;
            if wakers.complete + wakers.incomplete() + wakers_lost > 0 {
                let _ = writeln!(
                    text,
                    "  woken   by {} stacks (complete {} + incomplete {}), lost {wakers_lost}",
                    thousands(wakers.complete + wakers.incomplete()),
                    thousands(wakers.complete),
                    wakers.incomplete(),
                );
            }
        }
        if self.without_ids > 0 {
            let _ = writeln!(
                text,
                "  memory  {} samples without process ids: half of the memory budget was used",
                thousands(self.without_ids)
            );
        }
        for (at, (name, share)) in hottest.iter().enumerate() {
            let label = if self.off_cpu_only { "blocked" } else { "hottest" };
            let label = if at == 0 { label } else { "" };
            let _ = writeln!(text, "  {label:7} {share:5.1}%  {name}");
        }
        if let Some(built) = self.tables {
            let _ = write!(
                text,
                "  tables  {} unwind rows of {} files, built in {:.0} ms",
                thousands(built.rows as u64),
                built.files,
                built.build_s * 1e3
            );
            if self.of_32_bits > 0 {
                let _ = write!(text, "; {} sampled files are of 32-bit processes", self.of_32_bits);
            }
            if built.refused_files > 0 {
                let files = thousands(built.refused_files);
                let _ = write!(text, "; no room for {files} files: walked by frame pointers");
            }
            if built.refused_interpreters > 0 {
                let files = thousands(built.refused_interpreters);
                let _ = write!(text, "; no room for {files} interpreters: scripts in them have no frames");
            }
            if built.refused_processes > 0 {
                let processes = thousands(built.refused_processes);
                let _ = write!(
                    text,
                    "; no room for the mappings of {processes} processes: of their stacks only the first {} are walked",
                    tables::STACKS_SENT,
                );
            }
            text.push('\n');
        }
        if let Some(counters) = &self.counters {
            let _ = writeln!(text, "  counters {}", counters.text());
        }
        text += &self.programs.as_ref().map(costliest).unwrap_or_default();
        if self.excluded() > 0 {
            let _ = writeln!(
                text,
                "  not sampled: about {} samples' time in eBPF programs of kprobes, tracepoints and perf events, beside which the kernel runs no sampler",
                thousands(self.excluded()),
            );
        }
        let _ = write!(text, "  cost    ");
        if let Some(cost) = self.cost {
            let _ = write!(text, "BPF ");
            if cost.sampler_runs > 0 {
                let ns = cost.sampler_time_ns as f64 / cost.sampler_runs as f64;
                let _ = write!(text, "{:.2} µs a run, ", ns / 1e3);
            }
            let _ = write!(
                text,
                "{}{:.1} ms in all ({:.3}% of the CPUs' time); ",
                if cost.measured < 1.0 { "about " } else { "" },
                cost.run_time_ns as f64 / 1e6,
                percent(cost.run_time_ns as f64 / 1e9, self.duration_s * self.cpus as f64),
            );
        }
        let _ = write!(
            text,
            "recorder {:.0} ms CPU ({:.2}% of one), {} peak + {} in the kernel",
            self.own_cpu_s * 1e3,
            percent(self.own_cpu_s, self.duration_s),
            mib(self.own_peak_bytes),
            mib(self.kernel_bytes),
        );
        if let Some((cpu_s, bytes)) = naming {
            let _ = write!(text, "; naming {:.0} ms CPU", cpu_s * 1e3);
            // Where there were no files to read, there was no worker.
            if bytes > 0 {
                let _ = write!(text, ", {} peak", mib(bytes));
            }
        }
        text.push('\n');
        text
    }
}

/// The most expensive BPF programs, and our own.
fn costliest(statistics: &Statistics) -> String {
    const SHOWN: usize = 3;
    let ms = |ns: u64| format!("{:.1} ms", ns as f64 / 1e6);
    let time = |it: &Program| it.estimate.map_or(it.run_time_ns, |estimate| estimate.run_time_ns);
    let mut others: Vec<&Program> =
        statistics.programs.iter().filter(|program| !program.ours && time(program) > 0).collect();
    others.sort_by_key(|program| std::cmp::Reverse(time(program)));
    let named = others.iter().take(SHOWN).map(|program| {
        let owner = program.owners.first().map(|owner| format!(" of {owner}")).unwrap_or_default();
        let about = if program.estimate.is_some() { "about " } else { "" };
        format!("{}{owner} {about}{}", program.name, ms(time(program)))
    });
    let named: Vec<_> = named.collect();
    let all = statistics.sum(|_| true);
    format!(
        "  eBPF    {} programs ran {} times, {:.3}% of the machine: {}{}ours {}\n",
        all.programs,
        thousands(all.run_count),
        statistics.percent_of_machine(all.run_time_ns),
        named.join(", "),
        if named.is_empty() { "" } else { "; " },
        ms(statistics.sum(|program| program.ours).run_time_ns),
    )
}

impl Summary {
    /// About how many samples the kernel did not let us take: see [`Statistics::unsampled_ns`].
    pub fn excluded(&self) -> u64 {
        if self.event.is_some() {
            return 0;
        }
        let ns = self.programs.as_ref().map_or(0, Statistics::unsampled_ns);
        (ns as f64 / 1e9 * f64::from(self.frequency_hz)).round() as u64
    }
}

impl Blocks {
    /// How they add up.
    pub fn equation(&self) -> String {
        let (incomplete, lost) = (self.stacks.incomplete(), self.lost.values().sum());
        equation(self.taken, self.stacks.complete, incomplete, lost)
    }

    fn text(&self) -> String {
        let mut text = self.equation();
        let incomplete = self.stacks.incomplete.iter().map(|(why, blocks)| (why.reason(), blocks));
        for (why, blocks) in incomplete.chain(self.lost.iter().map(|(why, blocks)| (why.reason(), blocks))) {
            let _ = write!(text, "; {why} {blocks}");
        }
        let _ = write!(
            text,
            "; {} short or runnable; {} threads",
            thousands(self.short),
            thousands(self.threads as u64)
        );
        if self.threads_lost > 0 {
            let _ = write!(text, ", {} lost", thousands(self.threads_lost));
        }
        let _ = write!(text, "; seen at {}", self.hook);
        text
    }
}

/// `taken 10 = complete 6 + incomplete 3 + lost 1`. The left side is counted in the kernel, run by run;
/// the right side is in the profile, but for the kernel's losses. If they differ, that is told.
pub fn equation(taken: u64, complete: u64, incomplete: u64, lost: u64) -> String {
    let mut text = format!("taken {taken} = complete {complete} + incomplete {incomplete} + lost {lost}");
    let right = complete + incomplete + lost;
    if taken != right {
        let _ = write!(text, " (UNACCOUNTED: {}; please report this)", taken as i64 - right as i64);
    }
    text
}

/// The functions with the most samples of their own or, if nothing was sampled, those in which threads
/// were blocked for longest; at most `n`, with their shares in percent.
pub fn hottest(profile: &Profile, n: usize) -> Vec<(String, f64)> {
    let column = |name| profile.sample_types.iter().position(|ty| ty.name == name);
    let is_sampled = column("samples").is_some();
    let Some(at) = column("samples").or_else(|| column("off_cpu")) else { return Vec::new() };
    let mut own: BTreeMap<&str, i64> = BTreeMap::new();
    for sample in profile.samples() {
        let frames = profile.stack(sample.stack).filter_map(|id| {
            let location = profile.location(id);
            let name = &profile.function(location.lines.first()?.function).name;
            Some((location.mapping.map(|at| mapping_kind(&profile.mapping(at).path)), name.as_str()))
        });
        let is_program = |kind: Option<FrameKind>| kind.is_some_and(|kind| kind != FrameKind::Kernel);
        // All blocks end in the scheduler. What of the program waits, or else what of the kernel?
        let shown = if is_sampled {
            frames.clone().next()
        } else {
            let waits = frames.clone().find(|&(kind, _)| is_program(kind));
            waits.or_else(|| frames.clone().find(|(_, name)| !name.contains("schedule")))
        };
        if let Some((_, name)) = shown {
            *own.entry(name).or_default() += sample.values[at];
        }
    }
    let total: i64 = own.values().sum();
    own.retain(|_, value| *value > 0);
    let mut own: Vec<_> = own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    own.sort_by_key(|(_, value)| std::cmp::Reverse(*value));
    own.truncate(n);
    own.into_iter().map(|(name, value)| (name, percent(value as f64, total as f64))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_closes_or_says_that_it_does_not() {
        let mut summary = Summary { complete: 6, ..Summary::default() };
        summary.incomplete.insert(Truncation::FramePointer, 3);
        let runs = [(Outcome::Complete, 9), (Outcome::Lost(Loss::CountsFull), 1), (Outcome::Idle, 50)];
        summary.outcomes = Some(Outcomes { by_outcome: runs.into(), follow_failed: 0 });
        assert_eq!(summary.equation(), "taken 10 = complete 6 + incomplete 3 + lost 1");
        summary.complete = 5;
        assert!(summary.equation().contains("UNACCOUNTED: 1"));
        summary.outcomes = None;
        assert_eq!(summary.equation(), "taken: not known; counted: complete 5 + incomplete 3");
    }
}
