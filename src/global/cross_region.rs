//! Counters that belong to no single region.

use core::sync::atomic::{AtomicU64, AtomicUsize};

pub(super) struct CrossRegion {
    pub(super) failures: AtomicU64,
    /// Size in bytes of the last failed request.
    pub(super) last_failed_size: AtomicUsize,
    /// Calls of `realloc` that moved the payload to another region.
    pub(super) moved: AtomicU64,
}

impl CrossRegion {
    pub(super) const fn new() -> Self {
        Self { failures: AtomicU64::new(0), last_failed_size: AtomicUsize::new(0), moved: AtomicU64::new(0) }
    }
}
