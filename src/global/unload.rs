//! Unloading: the work of a heap when the loader unloads its library (`dlclose`).
//!
//! A program may unload a library when no thread is in it any more. The rest of the program may still use blocks of the
//! heap; then the heap stays mapped, and only its free memory is purged. The loader calls the same destructors when the
//! process exits. Then other threads may still run, and other libraries may still use the heap. So the heap keeps
//! working, and is mapped again if it is needed.

use super::held::{Locked, LockedSlow};
use super::{Guarded, SmallocGlobal};
use crate::calls::Held;
use crate::debugger;
use crate::free_list::FreeList;
use crate::system::errno;
use crate::threads::lock::{Guard, Lock};
use crate::watch::Watch;
use core::ptr;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Ends recording and publishing, and unmaps the regions of the heap at `address` if nothing in them is in use. All
    /// stays if a lock is taken, as can be only while the process exits.
    ///
    /// # Safety
    /// A `SmallocGlobal<L, REGIONS>` was registered at `address`, which is readable.
    pub(super) unsafe fn unload(address: *const ()) {
        // SAFETY: guaranteed by the caller. A heap that lives elsewhere now has left its bytes here, or another heap
        // has taken the place.
        let global = unsafe { &*address.cast::<Self>() };
        if global.is_registered() {
            errno::unchanged(|| global.close());
        }
    }

    fn close(&self) {
        let stopped = self.try_empty_caches();
        let Some(mut heaps) = self.try_lock_all() else { return };
        self.end_recording(&mut heaps);
        let page = self.end_publishing(&mut heaps);
        let in_use = heaps.iter().any(|heap| heap.used_and_top().0 > 0);
        if !in_use {
            self.regions.all().iter().for_each(|shared| debugger::remove(ptr::from_ref(shared).addr()));
            self.close_sites();
            self.regions.unmap(&mut heaps);
            if let Some(stopped) = &stopped {
                stopped.forget();
            }
        }
        drop(heaps);
        drop(stopped);
        drop(page);
        if in_use {
            self.trim();
        }
    }

    /// Takes all locks, and frees what waits in queues and quarantines. `None` if a lock is taken.
    fn try_lock_all(&self) -> Option<[Guard<'_, Guarded<L>>; REGIONS]> {
        let mut region = 0;
        let guards = self.regions.all().each_ref().map(|shared| {
            let mut held: LockedSlow<'_, L, REGIONS> =
                Locked { global: self, guard: shared.lock.try_lock()? }.drained(region);
            region = region.wrapping_add(1);
            held.with(|heap, watch| watch.make_room(heap));
            Some(held.guard)
        });
        if guards.iter().any(Option::is_none) {
            return None;
        }
        let mut guards = guards.into_iter().flatten();
        // There is a guard for each region, so this never waits.
        let guard = |lock| guards.next().unwrap_or_else(|| Lock::lock(lock));
        Some(self.regions.all().each_ref().map(|shared| &shared.lock).map(guard))
    }
}

#[cfg(test)]
#[path = "../../tests/unit/global/unload.rs"]
mod tests;
