//! One line on the terminal while something takes long. The only user of indicatif.

use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::recording::summary::Summary;

/// The line. Without a terminal on standard error, nothing is drawn.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// An empty line.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// Whether anybody sees it.
    pub fn is_visible(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Shows how far a recording is.
    pub fn recording(&self, elapsed: Duration, of: Option<Duration>, so_far: &Summary) {
        let time = match of {
            Some(of) => format!("{} left", clock(of.saturating_sub(elapsed))),
            None => format!("{} so far, Ctrl-C ends", clock(elapsed)),
        };
        let mut counts = Vec::new();
        if !so_far.off_cpu_only {
            let lost: u64 = so_far.lost().values().sum();
            counts.push(format!("{} samples · {lost} lost", HumanCount(so_far.taken())));
        }
        if let Some(blocks) = &so_far.blocks {
            let lost: u64 = blocks.lost.values().sum();
            counts.push(format!("{} blocks · {lost} lost", HumanCount(blocks.taken)));
        }
        self.bar.set_message(format!("recording: {time} · {}", counts.join(" · ")));
    }

    /// Shows what is being done.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_millis().div_ceil(1000);
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3600, seconds / 60 % 60),
    }
}
