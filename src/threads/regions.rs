//! Several regions side by side: which one a thread uses, and which one contains a payload.
//!
//! ```text
//! base                         base + stride                base + 2 * stride
//! | region 0 | tables |  | ring | | region 1 | tables |  | ring | | region 2 | tables |  | ring |  ...
//! ```
//!
//! One reservation holds them all. The stride is a power of two, so a payload's region follows from its address. Code
//! that needs several locks takes them in region order.

use core::hint;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};

use super::home::scope::{self, HeapId, Scope};
use super::home::{self, NUMBERS};
use super::lock::{Guard, Lock};
use super::preparing::is_preparing;
use super::shared::{Guarded, RING, SharedHeap};
use crate::free_list::FreeList;
use crate::heap::{Heap, largest_region, map_side_by_side};
use crate::region::{InitError, MAX_REGION, MIN_REGION};
use crate::system::clock::sleep_ns;
use crate::system::{addresses, cores, environment};

/// Bytes of a region without a requested size: more than most machines have, since address space is free.
const DEFAULT_REGION: usize = 32 << 30;

/// Nanoseconds before all locks are tried again.
const RETRY_NS: u32 = 100_000;

#[repr(C)]
pub(crate) struct Regions<L: FreeList, const N: usize> {
    shared: [SharedHeap<L>; N],
    /// Requested bytes per region, 0 for the default. The mapped size may be smaller.
    requested: usize,
    /// Requested address of the first region, 0 for any.
    requested_base: usize,
    /// Bytes of each region that only [`Scope::Reserve`] opens.
    reserve: usize,
    /// Limit of each region in bytes when it is mapped, unless the program sets one earlier; `usize::MAX` for none.
    first_limit: usize,
    /// Whether huge pages are wanted when the regions are mapped; `None` for the system's default.
    huge_pages: Option<bool>,
    /// Address of the first region, 0 before it is mapped. Like `stride_bits`, used only with several regions.
    base: AtomicUsize,
    /// Base-2 logarithm of the stride in bytes.
    stride_bits: AtomicU32,
    /// Mapped bytes of each region, 0 before.
    mapped: AtomicUsize,
    /// Home region by a thread's number. Every entry is below N. Used only with several regions.
    home_of: [AtomicU8; NUMBERS],
    /// Regions that are homes, from the first on.
    homes: AtomicUsize,
    requested_count: Count,
    /// Regions that are mapped, from the first on; N before they are.
    count: AtomicUsize,
}

/// The number of regions of a heap.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    /// As many as the environment says, otherwise as many as the type.
    Default,
    Exactly(usize),
    /// As many as the cores that the process may run on.
    Cores,
}

impl<L: FreeList, const N: usize> Regions<L, N> {
    /// Regions of `requested` bytes each, mapped at first use.
    pub(crate) const fn unmapped(requested: usize) -> Self {
        const { assert!(N >= 1 && N <= NUMBERS, "a SmallocGlobal has 1 to 64 regions") };
        Self {
            shared: [const { SharedHeap::unmapped() }; N],
            requested,
            requested_base: 0,
            reserve: 0,
            first_limit: usize::MAX,
            huge_pages: None,
            base: AtomicUsize::new(0),
            stride_bits: AtomicU32::new(0),
            mapped: AtomicUsize::new(0),
            home_of: in_turn(N),
            homes: AtomicUsize::new(N),
            requested_count: Count::Default,
            count: AtomicUsize::new(N),
        }
    }

    /// Requires the first region to be mapped at an address.
    pub(crate) const fn set_base(&mut self, address: usize) {
        // No region can be at address 0, which is refused like 1.
        self.requested_base = if address == 0 { 1 } else { address };
    }

    pub(crate) const fn set_first_limit(&mut self, bytes: usize) {
        self.first_limit = bytes;
    }

    pub(crate) const fn set_huge_pages(&mut self, wanted: bool) {
        self.huge_pages = Some(wanted);
    }

    /// Every region keeps its last `bytes` bytes as a reserve.
    pub(crate) const fn set_reserve(&mut self, bytes: usize) {
        self.reserve = bytes;
    }

    /// Sets the number of regions to be mapped: at least 1, at most N.
    pub(crate) const fn set_count(&mut self, count: Count) {
        self.requested_count = count;
    }

    pub(crate) fn is_mapped(&self) -> bool {
        self.base.load(Ordering::Relaxed) != 0
    }

    /// Regions that are mapped, or may be.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Only the first `count` regions are homes; 0 and more than N mean all.
    pub(crate) const fn set_homes(&mut self, count: usize) {
        let count = if count == 0 || count > N { N } else { count };
        self.home_of = in_turn(count);
        self.homes = AtomicUsize::new(count);
    }

    /// Region `number`, or the first one if there is none.
    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> &SharedHeap<L> {
        // SAFETY: N is at least 1, so region 0 exists.
        self.shared.get(number).unwrap_or(unsafe { self.shared.get_unchecked(0) })
    }

    #[inline(always)]
    pub(crate) fn home_number(&self) -> usize {
        if N == 1 {
            return 0;
        }
        home::number().map_or_else(|| self.home_number_slow(), |number| self.home_of(number))
    }

    /// The home of a thread that has no number yet, or is in a scope.
    #[cold]
    #[inline(never)]
    fn home_number_slow(&self) -> usize {
        let region = scope::find(self.id(), |scope| match scope {
            Scope::Region(region) | Scope::Preferred(region) => Some(region),
            Scope::Reserve => None,
        });
        region.unwrap_or_else(|| self.home_of(home::number_slow()))
    }

    #[inline(always)]
    fn home_of(&self, number: usize) -> usize {
        let region = self.home_of.get(number).map_or(0, |home| usize::from(home.load(Ordering::Relaxed)));
        // SAFETY: every entry is below N.
        unsafe { hint::assert_unchecked(region < N) };
        region
    }

    /// Runs `work`; requests of this thread are placed as the scope says.
    pub(crate) fn within<R>(&self, scope: Scope, work: impl FnOnce() -> R) -> R {
        scope::enter(self.id(), scope, work)
    }

    /// Whether this thread may use the reserve.
    pub(crate) fn may_use_reserve(&self) -> bool {
        self.reserve > 0 && scope::find(self.id(), |scope| (scope == Scope::Reserve).then_some(())).is_some()
    }

    /// Bytes below the limit of a region up to which requests are placed that may not use the reserve.
    pub(crate) fn ordinary_limit(&self, heap: &Guarded<L>) -> usize {
        let mapped = !heap.base().is_null();
        let whole = if mapped { heap.limit.min(heap.region_size()) } else { heap.limit };
        whole.saturating_sub(self.reserve)
    }

    pub(crate) const fn reserve(&self) -> usize {
        self.reserve
    }

    fn id(&self) -> HeapId {
        HeapId(ptr::from_ref(self).addr())
    }

    /// Number of the region that contains a payload; any number for a foreign pointer.
    #[inline(always)]
    pub(crate) fn number_of(&self, payload: *const u8) -> usize {
        if N == 1 {
            return 0;
        }
        // Relaxed: the payload comes from a thread that saw the regions mapped.
        let offset = payload.addr().wrapping_sub(self.base.load(Ordering::Relaxed));
        offset.wrapping_shr(self.stride_bits.load(Ordering::Relaxed))
    }

    /// Bytes from the start of region `number` to a payload in it.
    pub(crate) fn offset_in(&self, number: usize, payload: *const u8) -> usize {
        let start = number.wrapping_shl(self.stride_bits.load(Ordering::Relaxed));
        payload.addr().wrapping_sub(self.base.load(Ordering::Relaxed)).wrapping_sub(start)
    }

    /// Whether an address lies in one of the regions.
    #[inline(always)]
    pub(crate) fn contain(&self, address: *const u8) -> bool {
        // Relaxed: as in `number_of`. Before the regions are mapped, no offset is below 0 bytes.
        let number = self.number_of(address);
        let mapped = self.mapped.load(Ordering::Relaxed);
        number < N && self.offset_in(number, address) < mapped
    }

    pub(crate) fn number_of_lock(&self, lock: &Lock<Guarded<L>>) -> usize {
        if N == 1 {
            return 0;
        }
        self.shared.iter().position(|shared| ptr::eq(&shared.lock, lock)).unwrap_or(0)
    }

    pub(crate) fn all(&self) -> &[SharedHeap<L>; N] {
        &self.shared
    }

    /// The regions where a request of this thread may go that does not fit in region `first`, in cyclic order.
    pub(crate) fn others(&self, first: usize) -> impl Iterator<Item = usize> + use<L, N> {
        let confined = scope::find(self.id(), |scope| match scope {
            Scope::Region(_) => Some(true),
            Scope::Preferred(_) => Some(false),
            Scope::Reserve => None,
        });
        let homes = if confined == Some(true) { 0 } else { self.homes.load(Ordering::Relaxed) };
        let in_turn = move |step| first.wrapping_add(step).checked_rem(homes).unwrap_or(0);
        (0..homes).map(in_turn).filter(move |&other| other != first)
    }

    /// Takes all locks. While another thread that holds one prepares a fork, it is given all of them.
    pub(crate) fn lock_all(&self) -> [Guard<'_, Guarded<L>>; N] {
        loop {
            let mut complete = true;
            let guards = self.shared.each_ref().map(|shared| {
                let guard = if complete { shared.lock.lock_unless(is_preparing) } else { None };
                complete = guard.is_some();
                guard
            });
            if complete {
                let mut guards = guards.into_iter().flatten();
                // There is a guard for each region, so this never waits.
                let guard = |lock| guards.next().unwrap_or_else(|| Lock::lock(lock));
                return self.shared.each_ref().map(|shared| &shared.lock).map(guard);
            }
            drop(guards);
            sleep_ns(RETRY_NS);
        }
    }

    /// Maps the regions, of `bytes` bytes each or of the requested size, unless they are mapped.
    pub(crate) fn init(&self, bytes: Option<usize>) -> Result<(), InitError> {
        let mut heaps = self.lock_all();
        let mapped = |heap: &Guard<'_, Guarded<L>>| !heap.base().is_null();
        if heaps.first().is_some_and(mapped) {
            return Ok(());
        }
        let (count, wanted) = (self.choose_count(), bytes.unwrap_or_else(|| self.region_bytes()));
        let stride = {
            let mut mapped = heaps.each_mut().map(|guarded| &mut guarded.heap);
            self.map(mapped.get_mut(..count).unwrap_or_default(), wanted)?
        };
        self.use_first(count);
        heaps.iter_mut().take(count).for_each(|heap| self.set_up(heap));
        warn_if_small(heaps.first().map_or(0, |first| first.region().size()), wanted.min(MAX_REGION));
        if N > 1 {
            self.shared.iter().zip(&heaps).take(count).for_each(|(shared, heap)| shared.open_ring(heap));
        }
        self.stride_bits.store(stride.trailing_zeros(), Ordering::Relaxed);
        self.base.store(heaps.first().map_or(0, |first| first.base().addr()), Ordering::Relaxed);
        self.mapped.store(heaps.first().map_or(0, |first| first.region_size()), Ordering::Relaxed);
        Ok(())
    }

    /// Maps the regions: at the address that the program requests, or else at the one in the environment if that is
    /// possible, or else anywhere. Returns the stride in bytes.
    fn map(&self, heaps: &mut [&mut Heap<L>], bytes: usize) -> Result<usize, InitError> {
        let beside = if N > 1 { RING } else { 0 };
        if self.requested_base != 0 {
            return map_side_by_side(heaps, bytes, beside, Some(self.requested_base));
        }
        if let Some(base) = base_from_environment() {
            match map_side_by_side(heaps, bytes, beside, Some(base)) {
                Ok(stride) => return Ok(stride),
                Err(error) => environment::BASE.complain(format_args!("{error} (name another address)")),
            }
        }
        map_side_by_side(heaps, bytes, beside, None)
    }

    /// Applies the settings of the declaration to a region that was just mapped.
    fn set_up(&self, heap: &mut Guarded<L>) {
        if heap.limit == usize::MAX {
            heap.limit = self.first_limit;
        }
        if self.reserve > 0 || self.first_limit < usize::MAX {
            let limit = self.ordinary_limit(heap);
            heap.set_limit(limit);
        }
        if let Some(wanted) = self.huge_pages {
            heap.huge_pages(wanted);
        }
    }

    fn choose_count(&self) -> usize {
        let count = match self.requested_count {
            _ if N == 1 => 1,
            Count::Exactly(count) => count,
            Count::Cores => cores::count(),
            Count::Default => environment::REGIONS.count(cores::count).unwrap_or(N),
        };
        count.clamp(1, N)
    }

    /// Homes are among the first `count` regions from now on.
    fn use_first(&self, count: usize) {
        let homes = self.homes.load(Ordering::Relaxed).min(count);
        for (number, home) in self.home_of.iter().enumerate() {
            home.store(number.checked_rem(homes).unwrap_or(0) as u8, Ordering::Relaxed);
        }
        self.homes.store(homes, Ordering::Relaxed);
        self.count.store(count, Ordering::Relaxed);
    }

    /// Unmaps all regions, in which nothing is in use and whose locks the caller holds. They can be mapped again.
    pub(crate) fn unmap(&self, heaps: &mut [Guard<'_, Guarded<L>>; N]) {
        self.base.store(0, Ordering::Relaxed);
        self.shared.iter().zip(heaps).for_each(|(shared, heap)| shared.unmap(heap));
    }

    fn region_bytes(&self) -> usize {
        match self.requested {
            0 => environment::REGION.size(MIN_REGION, MAX_REGION).unwrap_or_else(Self::default_bytes),
            requested => requested,
        }
    }

    /// Bytes of a region without a requested size: under a limit of addresses, all regions take at most half of what it
    /// leaves, since stacks and libraries need addresses too.
    fn default_bytes() -> usize {
        addresses::left().map_or(DEFAULT_REGION, |left| {
            largest_region::<L>(left / 2, N, RING).clamp(MIN_REGION, DEFAULT_REGION)
        })
    }

    /// Calls [`Lock::unlock_after_fork`] for every region that is locked for a fork.
    ///
    /// # Safety
    /// This thread has locked them, and has no guard of them.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        for shared in self.shared.iter().filter(|shared| shared.lock.is_locked_for_fork()) {
            // SAFETY: guaranteed by the caller.
            unsafe { shared.lock.unlock_after_fork() };
        }
    }
}

/// A region smaller than its wanted size divided by this is reported: a program that expects so much will run out of
/// memory, though one that lost only a few halvings may not notice.
const SMALL: usize = 100;

/// Warns if the system has refused all but a small part of the wanted size.
fn warn_if_small(size: usize, wanted: usize) {
    if size < wanted / SMALL {
        environment::REGION.tell(format_args!(
            "a region has {size} bytes, since the system refused {wanted} (raise the limit of addresses, or name a size)"
        ));
    }
}

/// The address in the environment, for the first heap of a process only: two heaps cannot be at the same place.
fn base_from_environment() -> Option<usize> {
    static READ: AtomicBool = AtomicBool::new(false);
    if READ.swap(true, Ordering::Relaxed) { None } else { environment::BASE.address() }
}

/// Numbers from 0 to `count - 1`, in turn.
const fn in_turn(count: usize) -> [AtomicU8; NUMBERS] {
    let mut table = [const { AtomicU8::new(0) }; NUMBERS];
    let mut rest: &mut [AtomicU8] = &mut table;
    let mut number = 0;
    while let Some((first, others)) = rest.split_first_mut() {
        *first = AtomicU8::new((number % count) as u8);
        rest = others;
        number += 1;
    }
    table
}
