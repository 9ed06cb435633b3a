//! Call sites, with the feature `sites`: requests whose call stacks are taken, and the counts by stack.
//!
//! A request on a slow path asks the sampler before it takes the heap's lock. If it is due, its stack is taken, then
//! the heap is locked, and the stack gets its number. The number stays beside the heap until the call is recorded.

use super::SmallocGlobal;
use super::held::LockedSlow;
use crate::free_list::FreeList;
#[cfg(not(feature = "sites"))]
use crate::recording::{Record, Recorder};
#[cfg(not(feature = "sites"))]
use crate::system::environment;

#[cfg(feature = "sites")]
mod taken;
#[cfg(feature = "sites")]
pub(super) use taken::CallSites;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Locks a region's heap for a request of `bytes` bytes. If it is due, its call stack is taken first.
    #[inline(always)]
    pub(super) fn enter_for(&self, region: usize, bytes: usize) -> LockedSlow<'_, L, REGIONS> {
        #[cfg(feature = "sites")]
        if self.sites.is_due(bytes) {
            return self.enter_taking_stack(region);
        }
        let _ = bytes;
        self.enter_slow(region)
    }

    /// Locks a region's heap for a request whose call stack has this number.
    pub(super) fn enter_with(&self, region: usize, stack: u32) -> LockedSlow<'_, L, REGIONS> {
        let mut held = self.enter_slow(region);
        held.guard.stack = stack;
        held
    }
}

/// Without the feature nothing is taken, recorded or counted.
#[cfg(not(feature = "sites"))]
impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    pub(super) fn prepare_sites(&self) {
        if environment::SITES.value().is_some() {
            environment::SITES.complain(format_args!(
                "call stacks are not recorded (build the program with smalloc's feature `sites`)"
            ));
        }
    }

    pub(super) fn record_sites(&self, recorder: &mut Recorder) {
        let _ = recorder;
    }

    pub(super) fn set_sites(&self, is_recording: bool) -> bool {
        is_recording
    }

    pub(super) fn close_sites(&self) {}

    pub(super) fn stack_of(&self, held: &Record) -> u32 {
        let _ = held;
        0
    }

    pub(super) fn count_site(&self, record: &Record, stack: u32) -> bool {
        let _ = (record, stack);
        false
    }
}
