//! Idle memory: every call, in whatever region, watches the regions that keep more than they seem to need.
//!
//! A heap keeps idle memory for some thousand calls (see `heap/quiet.rs`). The fast path counts no calls and makes no
//! checks. So while a region holds idle memory, the locks of all regions are slow: their calls are counted, and now and
//! then one of them checks those regions. Once no region holds idle memory, the locks are fast again.

use super::held::LockedSlow;
use super::idle_regions::LOOK_EVERY;
use super::{Guarded, SmallocGlobal};
use crate::calls;
use crate::free_list::FreeList;
use crate::threads::lock::{Backoff, Guard, SlowReason};
use core::sync::atomic::AtomicU32;

/// Attempts to lock a region, the last of which sleep. More attempts would only fail as well: this thread, interrupted
/// by a signal handler, holds the lock itself.
const ATTEMPTS: usize = 16;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Counts calls, and checks the regions that hold idle memory if it is time. The caller holds no lock.
    #[inline]
    pub(super) fn count_calls(&self, calls: usize) {
        if self.idle.is_any() && self.idle.count(calls) {
            self.look_at_idle_regions();
        }
    }

    /// Checks every region that holds idle memory, but for those that are in use right now.
    #[cold]
    #[inline(never)]
    fn look_at_idle_regions(&self) {
        for region in (0..REGIONS).filter(|&region| self.idle.holds(region)) {
            if let Some(guard) = self.regions.get(region).lock.try_lock() {
                let mut held = LockedSlow { global: self, guard }.drained(region);
                held.guard.heap.count_calls_elsewhere(LOOK_EVERY as u64);
                calls::check_purge(held);
            }
        }
    }

    /// Records whether a region that was just checked holds idle memory, and releases it.
    pub(super) fn record_idle(&self, region: usize, guard: Guard<'_, Guarded<L>>) {
        let changed = self.idle.set(region, guard.heap.holds_idle());
        drop(guard);
        if changed {
            self.set_locks();
        }
    }

    /// Makes every lock slow if a region holds idle memory, and fast if none does. Each lock is set by its holder, who
    /// reads the regions then: so the last to come sets what is true.
    #[cold]
    fn set_locks(&self) {
        let sleepers = AtomicU32::new(0);
        for shared in self.regions.all() {
            let mut backoff = Backoff::new();
            for _ in 0..ATTEMPTS {
                if let Some(mut guard) = shared.lock.try_lock() {
                    guard.set_slow(SlowReason::Idle, self.idle.is_any());
                    break;
                }
                backoff.pause(&sleepers);
            }
        }
    }
}
