//! What a recording says of itself: the kinds of values in it, the comments in its file, and why there is
//! nothing in it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::RecordArgs;
use crate::machine::usage;
use crate::model::profile::{Profile, ValueType};
use crate::programs::sampled;
use crate::recording::capture::perf::event::Event;
use crate::recording::capture::{bpf, proc};
use crate::recording::plan::Plan;
use crate::recording::summary::Summary;
use crate::text::exact_duration;

/// A profile with the value types of what is recorded, and nothing in it.
pub fn empty_profile(args: &RecordArgs, event: Option<&Event>) -> Profile {
    let mut profile = Profile::default();
    let (sampled, unit) = sampled(event);
    let on = [("samples", "count"), (sampled, unit)];
    let off = [("off_cpu_events", "count"), ("off_cpu", "nanoseconds")];
    // Not of stacks but of threads: how long each ran exactly, and how long it was watched.
    let threads = [("thread_cpu", "nanoseconds"), ("thread_lifetime", "nanoseconds")];
    let bpf = [(sampled::RUNS, "count"), (sampled::TIME, "nanoseconds")];
    let recorded = [
        (!args.off_cpu_only, on),
        (args.off_cpu || args.off_cpu_only, off),
        (args.off_cpu || args.off_cpu_only, threads),
        (!args.no_bpf_stats, bpf),
    ];
    let types = recorded.iter().filter(|(wanted, _)| *wanted).flat_map(|(_, types)| types);
    profile.sample_types = types.map(|(name, unit)| ValueType::new(name, unit)).collect();
    profile.default_sample_type = if args.off_cpu_only { "off_cpu" } else { sampled }.to_owned();
    profile.period_type = ValueType::new(sampled, unit);
    profile.period = match event {
        None => bpf::period_ns(args.frequency) as i64,
        // The kernel's choice changes; the recording's average is put here at its end.
        Some(_) => args.count.unwrap_or(1).cast_signed(),
    };
    profile
}

/// Name and unit of what samples measure.
fn sampled(event: Option<&Event>) -> (&str, &str) {
    event.map_or(("cpu", "nanoseconds"), |event| (&event.name, event.unit))
}

/// Where the kernel chose how many events a sample stands for, it could only guess how many would come. How
/// many came it counted exactly: `counted`. So the samples' shares of that are what they stand for.
pub fn weigh(profile: &mut Profile, event: &Event, counted: Option<u64>) {
    let Some(at) = profile.sample_type(Some(&event.name)) else { return };
    let (told, samples) = (profile.total(at), profile.total(0));
    if told <= 0 || samples <= 0 {
        return;
    }
    let counted = counted.map_or(told, |counted| counted.min(1 << 62).cast_signed());
    // Each is rounded with the remainder of those before it, so that the sum is exact.
    let (mut before, mut given) = (0i128, 0i128);
    for mut sample in profile.take_samples() {
        before += i128::from(sample.values[at]);
        let so_far = before * i128::from(counted) / i128::from(told);
        sample.values[at] = i64::try_from(so_far - given).unwrap_or(i64::MAX);
        given = so_far;
        profile.add(sample.stack, sample.labels, &sample.values);
    }
    profile.period = (counted / samples).max(1);
}

/// The frame of blocks that have no stack, by what was asked for; empty if none was.
pub fn short_blocks(args: &RecordArgs) -> String {
    if !(args.off_cpu || args.off_cpu_only) {
        return String::new();
    }
    let shortest = (!args.min_block.is_zero()).then(|| format!("< {}", exact_duration(args.min_block)));
    let longest = args.max_block.map(|longest| format!("> {}", exact_duration(longest)));
    let states = args.state.as_ref().map(|states| format!("not in {}", states.letters));
    let left_out: Vec<String> = [shortest, longest, states].into_iter().flatten().collect();
    if left_out.is_empty() {
        // There was no room, or the recording ended just then.
        return "[blocked: no stack]".to_owned();
    }
    format!("[blocked {}]", left_out.join(" or "))
}

/// The comments of the file: what people who open it elsewhere should know.
pub fn comments(summary: &Summary) -> Vec<String> {
    // File names from older systems are no UTF-8.
    let command: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut comments = vec![
        format!("command: {}", command.join(" ")),
        format!("profiler {} on Linux {}", env!("CARGO_PKG_VERSION"), usage::kernel()),
        format!("host: {}", usage::host()),
        match &summary.event {
            None if summary.headline.is_some() => {
                format!("{}, {:.3} s", summary.headline.as_deref().unwrap_or_default(), summary.duration_s)
            }
            Some(event) => format!(
                "event: {} {} on {} CPUs, {:.3} s",
                event.name,
                event.rate(),
                summary.cpus,
                summary.duration_s
            ),
            None => format!(
                "frequency: {} Hz on {} CPUs, {:.3} s",
                summary.frequency_hz, summary.cpus, summary.duration_s
            ),
        },
        format!("samples: {}", summary.equation()),
    ];
    comments.extend(summary.blocks.as_ref().map(|blocks| format!("blocks: {}", blocks.equation())));
    comments.extend(summary.incomplete.iter().map(|(why, n)| format!("incomplete: {} {n}", why.reason())));
    comments.extend(summary.lost().iter().map(|(why, n)| format!("lost: {} {n}", why.reason())));
    if summary.without_ids > 0 {
        comments.push(format!("without process ids: {}", summary.without_ids));
    }
    if summary.excluded() > 0 {
        comments.push(format!("not sampled beside other BPF programs: about {}", summary.excluded()));
    }
    comments.extend(summary.counters.as_ref().map(|counters| format!("counters: {}", counters.text())));
    comments.push(format!("side-band records lost: {}", summary.sideband_lost));
    comments
}

/// Wall-clock time of a moment on the monotonic clock.
pub fn unix_ns(monotonic_ns: u64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() as i64 - proc::now_ns().saturating_sub(monotonic_ns) as i64
}

/// Why there are no samples, or no blocks.
pub fn explain_nothing(args: &RecordArgs, plan: &Plan, summary: &Summary, target_ns: u64) -> String {
    let seconds = summary.duration_s;
    let period_ms = 1e3 / f64::from(args.frequency);
    if let (true, Some(blocks)) = (args.off_cpu_only, &summary.blocks) {
        let frame = short_blocks(args);
        return match blocks.threads {
            0 => format!("0 blocks: no thread was there in {seconds:.1} s"),
            threads => format!(
                "0 blocks: the {threads} threads were on a CPU, waited for one, or were {frame}, in {seconds:.1} s; \
                 profiler threads tells how long, --min-block 0 takes all blocks"
            ),
        };
    }
    if let Some(event) = &plan.event {
        return format!("0 samples: nothing that is recorded had {} in {seconds:.1} s", event.name);
    }
    let why = if !plan.watched.is_empty() {
        format!(
            "the target used {} ms of CPU in {seconds:.1} s: it waits rather than computes; {}",
            target_ns / 1_000_000,
            if args.off_cpu { "profiler flamegraph --type off-cpu shows where" } else { "try --off-cpu" }
        )
    } else if !args.command.is_empty() {
        format!(
            "the command ran for {:.0} ms and used less CPU than the {period_ms:.0} ms between two samples; try a higher -F",
            seconds * 1e3
        )
    } else if args.cgroup.is_some() {
        format!("no task of the cgroup was on a CPU at a sample in {seconds:.1} s")
    } else {
        format!(
            "the CPUs were busy for {:.0} ms of {seconds:.1} s; a longer -d sees more, -I shows idle CPUs too",
            summary.cpu.busy_s * 1e3
        )
    };
    format!("0 samples: {why}")
}

/// Says which processes of a command go on when it has ended, as those of daemons do: the recording ends
/// with the command.
pub fn say_who_goes_on(mut tgids: Vec<u32>) {
    const SHOWN: usize = 8;
    if tgids.is_empty() {
        return;
    }
    tgids.sort_unstable();
    let shown: Vec<String> = tgids.iter().take(SHOWN).map(u32::to_string).collect();
    say!(
        "profiler: the command has ended, but processes that it started still run ({}): to record those, profiler record -p {}",
        tgids.len(),
        shown.join(",")
    );
}
