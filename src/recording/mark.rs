//! What was counted up to a moment: of a part of a recording, the summary is the difference of two.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Result;

use crate::cli::RecordArgs;
use crate::machine::usage::{self, CpuTime};
use crate::model::event::Outcome;
use crate::recording::capture::bpf::{Blocks, Cost, Outcomes};
use crate::recording::capture::proc;
use crate::recording::plan::Plan;
use crate::recording::recorder::Recorder;
use crate::recording::summary::Summary;

/// Counters at a moment.
#[derive(Clone, Debug)]
pub struct Mark {
    at: Instant,
    /// CLOCK_MONOTONIC.
    pub time_ns: u64,
    outcomes: Outcomes,
    blocks: Option<Blocks>,
    sideband_lost: u64,
    cpu: CpuTime,
    cost: Option<Cost>,
    own_cpu_s: f64,
}

impl Mark {
    /// Of now.
    pub fn now(plan: &Plan, recorder: &Recorder) -> Result<Self> {
        Ok(Self {
            at: Instant::now(),
            time_ns: proc::now_ns(),
            outcomes: recorder.sampler.outcomes()?,
            blocks: recorder.sampler.blocks()?,
            sideband_lost: recorder.sideband.lost,
            cpu: CpuTime::of(&plan.cpus),
            cost: recorder.sampler.cost(),
            own_cpu_s: usage::own_cpu_s() + recorder.unwinding.builders_cpu_s(),
        })
    }

    /// Samples and blocks that were taken so far, and those of them that were lost.
    pub fn taken_and_lost(&self) -> (u64, u64) {
        let summary = Summary { outcomes: Some(self.outcomes.clone()), ..Summary::default() };
        let lost: u64 = summary.lost().values().sum();
        let of_blocks = self.blocks.as_ref().map_or((0, 0), |it| (it.taken, it.lost.values().sum::<u64>()));
        (summary.taken() + of_blocks.0, lost + of_blocks.1)
    }

    /// The summary of the time since an earlier one, so far as counters tell it: how many samples there were and
    /// how whole they are is for the window to say.
    pub fn since(&self, before: &Self, args: &RecordArgs, plan: &Plan, recorder: &Recorder) -> Summary {
        let lost = difference(&self.outcomes.by_outcome, &before.outcomes.by_outcome);
        let outcomes = Outcomes {
            by_outcome: lost.into_iter().filter(|(outcome, _)| matches!(outcome, Outcome::Lost(_))).collect(),
            follow_failed: self.outcomes.follow_failed - before.outcomes.follow_failed,
        };
        let blocks = self.blocks.as_ref().zip(before.blocks.as_ref()).map(|(now, before)| Blocks {
            hook: now.hook.clone(),
            lost: now
                .lost
                .iter()
                .map(|(why, n)| (*why, n - before.lost.get(why).copied().unwrap_or(0)))
                .filter(|(_, n)| *n > 0)
                .collect(),
            short: now.short - before.short,
            wakers_lost: now.wakers_lost - before.wakers_lost,
            threads_lost: now.threads_lost - before.threads_lost,
            ..Blocks::default()
        });
        let cost = self.cost.zip(before.cost).map(|(now, before)| Cost {
            run_time_ns: now.run_time_ns.saturating_sub(before.run_time_ns),
            sampler_runs: now.sampler_runs - before.sampler_runs,
            sampler_time_ns: now.sampler_time_ns - before.sampler_time_ns,
            measured: now.measured,
        });
        Summary {
            duration_s: (self.at - before.at).as_secs_f64(),
            cpus: plan.cpus.len(),
            frequency_hz: args.frequency,
            outcomes: Some(outcomes),
            sideband_lost: self.sideband_lost - before.sideband_lost,
            cpu: self.cpu.since(before.cpu),
            cost,
            own_cpu_s: self.own_cpu_s - before.own_cpu_s,
            own_peak_bytes: usage::own_peak_bytes(),
            kernel_bytes: recorder.sampler.map_bytes()
                + recorder.unwinding.kernel_bytes()
                + recorder.sideband.ring_bytes()
                + recorder.timeline.objects.copied_bytes(),
            tables: recorder.unwinding.figures(),
            blocks,
            off_cpu_only: args.off_cpu_only,
            ..Summary::default()
        }
    }
}

fn difference(now: &HashMap<Outcome, u64>, before: &HashMap<Outcome, u64>) -> HashMap<Outcome, u64> {
    let since = now.iter().map(|(outcome, n)| (*outcome, n - before.get(outcome).copied().unwrap_or(0)));
    since.filter(|(_, n)| *n > 0).collect()
}
