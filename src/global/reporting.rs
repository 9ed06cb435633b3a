//! State of the failure report.

use crate::system::environment;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Unset: the environment decides.
const UNSET: u8 = 0;
const OFF: u8 = 1;
const ARMED: u8 = 2;
const REPORTED: u8 = 3;

pub(super) struct Reporting {
    state: AtomicU8,
    /// Calls of [`expecting`](Self::expecting) in progress.
    expecting: AtomicUsize,
}

impl Reporting {
    pub(super) const fn unset() -> Self {
        Self { state: AtomicU8::new(UNSET), expecting: AtomicUsize::new(0) }
    }

    pub(super) const fn armed() -> Self {
        Self { state: AtomicU8::new(ARMED), ..Self::unset() }
    }

    /// Reads the environment, if the program has set nothing.
    pub(super) fn read_environment(&self) {
        if self.state.load(Ordering::Relaxed) == UNSET {
            let state = if environment::REPORT.is_on() { ARMED } else { OFF };
            let _ = self.state.compare_exchange(UNSET, state, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// True once, for the failure to report.
    pub(super) fn claim(&self) -> bool {
        self.expecting.load(Ordering::Relaxed) == 0
            && self.state.compare_exchange(ARMED, REPORTED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(super) fn set(&self, report: bool) {
        self.state.store(if report { ARMED } else { OFF }, Ordering::Relaxed);
    }

    /// Runs `work`; failures are not reported meanwhile.
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
