//! What happens between regions.

use core::sync::atomic::{AtomicU64, AtomicUsize};

/// Counters that belong to no single region.
pub(super) struct CrossRegion {
    /// Requests that no region could place.
    pub(super) failures: AtomicU64,
    /// The size of the last of them.
    pub(super) last_failed_size: AtomicUsize,
    /// Calls of `realloc` that moved to another region.
    pub(super) moved: AtomicU64,
}

impl CrossRegion {
    pub(super) const fn new() -> Self {
        Self { failures: AtomicU64::new(0), last_failed_size: AtomicUsize::new(0), moved: AtomicU64::new(0) }
    }
}
