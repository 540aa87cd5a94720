//! How often a recorder looks, and what it does then.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::RecordArgs;
use crate::machine::signals::Signals;
use crate::recording::cpus::Cpus;
use crate::recording::plan::Plan;
use crate::recording::recorder::Recorder;

/// How often the side-band is read while new files appear: soon enough to open them.
const BUSY_TICK: Duration = Duration::from_millis(10);
/// How often it is read otherwise. A ring that fills up ends the wait, and so does a sample of a
/// process that is not known yet.
const QUIET_TICK: Duration = Duration::from_millis(100);
/// In a storm of processes one is always new. So each look is followed by a rest of so many times its
/// own length, and not less than the shortest.
const REST_PER_LOOK: u32 = 50;
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// When to look.
#[derive(Debug)]
pub struct Pace {
    drained: Instant,
    tick: Duration,
    rest: Duration,
    /// Records that are known to be lost.
    lost: u64,
    cpus: Cpus,
    /// Whether counts have been taken.
    pub has_drained: bool,
}

impl Pace {
    /// At the start.
    pub fn new(plan: &Plan) -> Self {
        let cpus = Cpus::new(&plan.online);
        Self {
            drained: Instant::now(),
            tick: BUSY_TICK,
            rest: SHORTEST_REST,
            lost: 0,
            cpus,
            has_drained: false,
        }
    }

    /// Sleeps until a signal, a ring of the recorder's that wants to be read, one of `others`, or the timeout;
    /// samples of unknown processes count after a rest. Says which of `others` can be read.
    pub fn wait(
        signals: &Signals,
        recorder: Option<(&Recorder, &Self)>,
        others: &[BorrowedFd<'_>],
        at_most: Duration,
    ) -> Result<Vec<bool>> {
        let mut timeout = recorder.map_or(at_most, |(_, pace)| at_most.min(pace.tick));
        let dumps = recorder.and_then(|(recorder, _)| recorder.sampler.dumps_fd());
        if let (Some(_), Some((_, pace))) = (dumps, recorder) {
            std::thread::sleep(pace.rest.min(timeout));
            timeout = timeout.saturating_sub(pace.rest);
        }
        let rings = recorder.into_iter().flat_map(|(recorder, _)| recorder.sideband.fds()).chain(dumps);
        let tables = recorder.into_iter().flat_map(|(recorder, _)| recorder.unwinding.fds());
        let all = others.iter().copied().chain([signals.fd()]).chain(rings).chain(tables);
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // Rounded up: a timeout of 0 would spin through the last millisecond.
        let timeout = PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("failed to wait for events"),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        Ok(fds.iter().take(others.len()).map(is_ready).collect())
    }

    /// Reads what there is, and the counts if it is time to. `looked` is when this look began.
    pub fn look(
        &mut self,
        looked: Instant,
        args: &RecordArgs,
        plan: &Plan,
        recorder: &mut Recorder,
    ) -> Result<()> {
        if recorder.sideband.lost > self.lost {
            // What was not told can be seen, as far as it still lives.
            self.lost = recorder.sideband.lost;
            recorder.look_again(plan);
        }
        if self.drained.elapsed() >= recorder.sampler.sizes.interval || recorder.sampler.is_half_full() {
            recorder.drain()?;
            self.cpus.follow(args, plan, recorder);
            self.drained = Instant::now();
            self.has_drained = true;
        } else {
            self.tick = if recorder.read()? { BUSY_TICK } else { (self.tick * 2).min(QUIET_TICK) };
        }
        self.rest = (looked.elapsed() * REST_PER_LOOK).clamp(SHORTEST_REST, BUSY_TICK);
        Ok(())
    }
}
