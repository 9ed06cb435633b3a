//! Whether the next failure is to be reported.

use crate::system::environment;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// The program has not said whether failures are reported: the environment decides.
const UNSET: u8 = 0;
/// No failure is reported.
const OFF: u8 = 1;
/// The next failure is reported.
const ARMED: u8 = 2;
/// A failure has been reported.
const REPORTED: u8 = 3;

/// Whether the next failure is to be reported.
pub(super) struct Reporting {
    state: AtomicU8,
    /// Threads that expect failures at the moment.
    expecting: AtomicUsize,
}

impl Reporting {
    pub(super) const fn unset() -> Self {
        Self { state: AtomicU8::new(UNSET), expecting: AtomicUsize::new(0) }
    }

    pub(super) const fn armed() -> Self {
        Self { state: AtomicU8::new(ARMED), ..Self::unset() }
    }

    /// Asks the environment, if the program has said nothing.
    pub(super) fn ask_environment(&self) {
        if self.state.load(Ordering::Relaxed) == UNSET {
            let state = if environment::REPORT.is_on() { ARMED } else { OFF };
            let _ = self.state.compare_exchange(UNSET, state, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether this failure is to be reported. True once.
    pub(super) fn is_next(&self) -> bool {
        self.expecting.load(Ordering::Relaxed) == 0
            && self.state.compare_exchange(ARMED, REPORTED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Arms or disarms the report, whatever was said before.
    pub(super) fn set(&self, report: bool) {
        self.state.store(if report { ARMED } else { OFF }, Ordering::Relaxed);
    }

    /// Runs `work`; no failure is reported meanwhile.
    pub(super) fn expecting<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Expecting<'a>(&'a AtomicUsize);
        impl Drop for Expecting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.expecting.fetch_add(1, Ordering::Relaxed);
        let _expecting = Expecting(&self.expecting);
        work()
    }
}
