//! The progress bar of a long replay.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::input::Position;

/// A replay that takes less time shows nothing.
const PATIENCE: Duration = Duration::from_millis(500);
/// Calls between two readings of the clock.
const STRIDE: u64 = 4096;

/// A bar on standard error, if that is a terminal. It disappears when it is dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    position: Position,
    started: Instant,
}

impl Progress {
    /// A bar for a file that is being read.
    pub(super) fn new(position: Position) -> Self {
        let bar = ProgressBar::with_draw_target(position.total(), ProgressDrawTarget::hidden());
        Self { bar, position, started: Instant::now() }
    }

    /// Updates the bar after call number `calls`.
    pub(super) fn called(&self, calls: u64) {
        if !calls.is_multiple_of(STRIDE) || self.started.elapsed() < PATIENCE {
            return;
        }
        if self.bar.position() == 0 {
            let template = match self.position.total() {
                Some(_) => "replaying [{bar:40}] {percent} %, {msg} calls, {eta} left",
                None => "replaying {spinner} {msg} calls",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("##-"));
            }
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_message(HumanCount(calls).to_string());
        self.bar.set_position(self.position.read());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
