//! The allocators under test, each as it would work behind `#[global_allocator]`.
//!
//! A new one is one line in the list at the end of this file.

use std::alloc::{GlobalAlloc, Layout, System};
use std::any::Any;
use std::ptr::{self, NonNull};

use lock_api::Mutex;
use smalloc::{Cached, Indexed, Linked, SmallocGlobal};
use spinning_top::RawSpinlock;

use crate::region::Region;

/// One allocator of the list: its name, and how an instance of it is made.
pub trait Kind: 'static {
    /// The name used on the command line, in the tables and in the CSV files.
    const NAME: &'static str;
    /// The type that serves the calls.
    type Heap: GlobalAlloc + Sync + 'static;
    /// A new instance with a region of `bytes`. The allocators of the whole process (the
    /// system's, mimalloc, jemalloc) have no region and ignore it.
    fn create(bytes: usize) -> Box<Self::Heap>;
}

/// Code that runs with one allocator of the list, compiled for each of them. The choice by name is made once, outside
/// of everything that is timed.
pub trait Visitor {
    /// The result.
    type Output;
    /// Runs the code with `K`.
    fn visit<K: Kind>(&self) -> Self::Output;
}

/// An allocator core that needs a region and a lock around it.
pub trait Core: Send {
    /// A core without memory.
    fn empty() -> Self;
    /// Gives the core its memory. From here on the core does not move.
    ///
    /// # Safety
    ///
    /// `size` bytes at `base` belong to the core alone for as long as it lives.
    unsafe fn init(&mut self, base: *mut u8, size: usize);
    /// As [`GlobalAlloc::alloc`].
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::alloc`].
    unsafe fn alloc(&mut self, layout: Layout) -> *mut u8;
    /// As [`GlobalAlloc::dealloc`].
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::dealloc`].
    unsafe fn dealloc(&mut self, block: *mut u8, layout: Layout);
    /// As [`GlobalAlloc::realloc`]; this default moves the block, for cores without a better way.
    ///
    /// # Safety
    ///
    /// As for [`GlobalAlloc::realloc`].
    #[inline]
    unsafe fn realloc(&mut self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for `block`, `layout` and `new_size`; the new block does not overlap the old one,
        // and both hold the bytes that are copied.
        unsafe {
            let new_layout = Layout::from_size_align_unchecked(new_size, layout.align());
            let moved = self.alloc(new_layout);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

/// A core with its region, behind the spin lock that all cores have.
pub struct Arena<C> {
    core: Mutex<RawSpinlock, C>,
    region: Region,
}

impl<C: Core> Arena<C> {
    /// An arena with a region of `bytes`.
    pub fn create(bytes: usize) -> Box<Self> {
        let arena = Box::new(Self { core: Mutex::new(C::empty()), region: Region::map(bytes) });
        // SAFETY: the region belongs to the arena, the core is already at its final address
        // inside the box, and both are dropped together.
        unsafe { arena.core.lock().init(arena.region.base(), arena.region.size()) };
        arena
    }
}

// SAFETY: the core hands out blocks of the region that no one else has, one call at a time.
unsafe impl<C: Core> GlobalAlloc for Arena<C> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the core requires only the caller's promise.
        unsafe { self.core.lock().alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the core requires only the caller's promise.
        unsafe { self.core.lock().dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the core requires only the caller's promise.
        unsafe { self.core.lock().realloc(block, layout, new_size) }
    }
}

/// A null pointer or the block.
#[inline]
fn or_null(block: Option<NonNull<u8>>) -> *mut u8 {
    block.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// talc brings its own lock adapter, used with the spin lock of [`Arena`].
pub struct Talc {
    heap: talc::TalcLock<RawSpinlock, talc::source::Claim>,
    _region: Region,
}

impl Talc {
    fn create(bytes: usize) -> Box<Self> {
        let region = Region::map(bytes);
        // SAFETY: the region lives as long as the heap and belongs to it alone.
        let source = unsafe { talc::source::Claim::new(region.base(), region.size()) };
        Box::new(Self { heap: talc::TalcLock::new(source), _region: region })
    }
}

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Talc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: talc requires only the caller's promise.
        unsafe { self.heap.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: talc requires only the caller's promise.
        unsafe { self.heap.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: talc requires only the caller's promise.
        unsafe { self.heap.realloc(block, layout, new_size) }
    }
}

/// rlsf with the largest tables that fit its bitmaps.
type Tlsf = rlsf::Tlsf<'static, usize, usize, { 64 - 12 }, 64>;

impl Core for Tlsf {
    fn empty() -> Self {
        Self::new()
    }

    unsafe fn init(&mut self, base: *mut u8, size: usize) {
        let base = NonNull::new(base).expect("a region is not at address 0");
        // SAFETY: the caller gives the memory away.
        let pool = unsafe { self.insert_free_block_ptr(NonNull::slice_from_raw_parts(base, size)) };
        assert!(pool.is_some(), "rlsf takes the region");
    }

    #[inline]
    unsafe fn alloc(&mut self, layout: Layout) -> *mut u8 {
        or_null(self.allocate(layout))
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        // SAFETY: blocks of this core are not null and were allocated with this alignment.
        unsafe { self.deallocate(NonNull::new_unchecked(block), layout.align()) }
    }

    #[inline]
    unsafe fn realloc(&mut self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as in `dealloc`; the caller vouches for the new size.
        unsafe {
            let new_layout = Layout::from_size_align_unchecked(new_size, layout.align());
            or_null(self.reallocate(NonNull::new_unchecked(block), new_layout))
        }
    }
}

/// Hands dlmalloc the whole region at its first request and nothing later.
#[derive(Debug)]
pub struct OneRegion {
    base: *mut u8,
    size: usize,
    taken: std::cell::Cell<bool>,
}

// SAFETY: it is only used under the lock of the arena it belongs to.
unsafe impl Send for OneRegion {}

// SAFETY: the region is handed out once, and never taken back, moved or shrunk.
unsafe impl dlmalloc::Allocator for OneRegion {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if self.taken.replace(true) || size > self.size {
            return (ptr::null_mut(), 0, 0);
        }
        (self.base, self.size, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        4096
    }
}

/// dlmalloc has to know its region when it is created, so `init` creates it.
type Dlmalloc = Option<dlmalloc::Dlmalloc<OneRegion>>;

/// The core that `init` has created.
#[inline]
unsafe fn inner(core: &mut Dlmalloc) -> &mut dlmalloc::Dlmalloc<OneRegion> {
    // SAFETY: an arena calls `init` before it serves any call.
    unsafe { core.as_mut().unwrap_unchecked() }
}

impl Core for Dlmalloc {
    fn empty() -> Self {
        None
    }

    unsafe fn init(&mut self, base: *mut u8, size: usize) {
        let source = OneRegion { base, size, taken: std::cell::Cell::new(false) };
        *self = Some(dlmalloc::Dlmalloc::new_with_allocator(source));
    }

    #[inline]
    unsafe fn alloc(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the core is initialised; the caller vouches for the layout.
        unsafe { inner(self).malloc(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        // SAFETY: the core is initialised; the caller vouches for block and layout.
        unsafe { inner(self).free(block, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn realloc(&mut self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the core is initialised; the caller vouches for the rest.
        unsafe { inner(self).realloc(block, layout.size(), layout.align(), new_size) }
    }
}

impl Core for linked_list_allocator::Heap {
    fn empty() -> Self {
        Self::empty()
    }

    unsafe fn init(&mut self, base: *mut u8, size: usize) {
        // SAFETY: the caller gives the memory away.
        unsafe { self.init(base, size) }
    }

    #[inline]
    unsafe fn alloc(&mut self, layout: Layout) -> *mut u8 {
        or_null(self.allocate_first_fit(layout).ok())
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        // SAFETY: blocks of this core are not null; the caller vouches for the layout.
        unsafe { self.deallocate(NonNull::new_unchecked(block), layout) }
    }
}

/// Orders up to 2^40 bytes.
type Buddy = buddy_system_allocator::Heap<41>;

impl Core for Buddy {
    fn empty() -> Self {
        Self::new()
    }

    unsafe fn init(&mut self, base: *mut u8, size: usize) {
        // SAFETY: the caller gives the memory away.
        unsafe { self.init(base.addr(), size) }
    }

    #[inline]
    unsafe fn alloc(&mut self, layout: Layout) -> *mut u8 {
        or_null(self.alloc(layout).ok())
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: *mut u8, layout: Layout) {
        // SAFETY: blocks of this core are not null; the caller vouches for the layout.
        unsafe { self.dealloc(NonNull::new_unchecked(block), layout) }
    }
}

/// good_memory_allocator with its default bins.
type Galloc = good_memory_allocator::Allocator;

impl Core for Galloc {
    fn empty() -> Self {
        Self::empty()
    }

    unsafe fn init(&mut self, base: *mut u8, size: usize) {
        // SAFETY: the caller gives the memory away.
        unsafe { self.init(base.addr(), size) }
    }

    #[inline]
    unsafe fn alloc(&mut self, layout: Layout) -> *mut u8 {
        // SAFETY: the core is initialised; the caller vouches for the layout.
        unsafe { self.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&mut self, block: *mut u8, _: Layout) {
        // SAFETY: the caller vouches for the block.
        unsafe { self.dealloc(block) }
    }

    #[inline]
    unsafe fn realloc(&mut self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for all three.
        unsafe { self.realloc(block, layout, new_size) }
    }
}

/// The cost of the measuring loop itself: every block is at the start of the region, and nothing is kept. It works in
/// replays that do not write to the blocks.
pub struct Loop(Region);

// SAFETY: none: blocks overlap. The measuring loops only pass them around.
unsafe impl GlobalAlloc for Loop {
    #[inline(never)]
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        self.0.base()
    }

    #[inline(never)]
    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    #[inline(never)]
    unsafe fn realloc(&self, block: *mut u8, _: Layout, _: usize) -> *mut u8 {
        block
    }
}

/// Bytes of bookkeeping that lie beside an instance's region and not in it.
pub fn bytes_beside<H: Any>(heap: &H) -> usize {
    let heap: &dyn Any = heap;
    if let Some(heap) = heap.downcast_ref::<SmallocGlobal>() {
        heap.stats().metadata_bytes
    } else if let Some(heap) = heap.downcast_ref::<SmallocGlobal<Linked>>() {
        heap.stats().metadata_bytes
    } else {
        0
    }
}

/// Defines one [`Kind`] for each line, and the lookup by name.
macro_rules! allocators {
    ($($kind:ident $name:literal: $heap:ty = |$bytes:ident| $create:expr;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            #[derive(Debug)]
            pub struct $kind;

            impl Kind for $kind {
                const NAME: &'static str = $name;
                type Heap = $heap;
                fn create($bytes: usize) -> Box<$heap> {
                    $create
                }
            }
        )*

        /// The names of all allocators, in the order of the tables.
        pub const NAMES: &[&str] = &[$($name),*];

        /// Runs `visitor` with the allocator `name`.
        ///
        /// # Panics
        ///
        /// If there is no such allocator: names are checked when the options are read.
        pub fn visit<V: Visitor>(name: &str, visitor: &V) -> V::Output {
            $(
                    if name == $name {
                    return visitor.visit::<$kind>();
                }
            )*
            panic!("no allocator is called {name:?}")
        }
    };
}

/// Allocators that serve the whole process and cannot be given a region.
pub const WITHOUT_REGION: &[&str] = &["system", "mimalloc", "jemalloc"];

/// Left out unless `--only` names them: the textbook list is slow by design, several regions are for several threads,
/// huge pages matter to large blocks, and the bare loop is no allocator.
pub const ON_DEMAND: &[&str] =
    &["smalloc-linked", "smalloc-2", "smalloc-4", "smalloc-16", "smalloc-huge", "loop"];

allocators! {
    KindSmalloc "smalloc": SmallocGlobal = |bytes| Box::new(SmallocGlobal::with_region_size(bytes));
    KindCached "smalloc-cached": Cached = |bytes| Box::new(Cached::with_region_size(bytes));
    KindLinked "smalloc-linked": SmallocGlobal<Linked> = |bytes| Box::new(SmallocGlobal::with_region_size(bytes));
    KindTwo "smalloc-2": SmallocGlobal<Indexed, 2> = |bytes| Box::new(SmallocGlobal::with_region_size(bytes));
    KindFour "smalloc-4": SmallocGlobal<Indexed, 4> = |bytes| Box::new(SmallocGlobal::with_region_size(bytes));
    KindSixteen "smalloc-16": SmallocGlobal<Indexed, 16> = |bytes| Box::new(SmallocGlobal::with_region_size(bytes));
    KindHuge "smalloc-huge": SmallocGlobal = |bytes| {
        let heap = Box::new(SmallocGlobal::with_region_size(bytes));
        assert!(heap.huge_pages(true), "the system has huge pages");
        heap
    };
    KindTalc "talc": Talc = |bytes| Talc::create(bytes);
    KindTlsf "rlsf": Arena<Tlsf> = |bytes| Arena::create(bytes);
    KindDlmalloc "dlmalloc": Arena<Dlmalloc> = |bytes| Arena::create(bytes);
    KindSystem "system": System = |_bytes| Box::new(System);
    KindMimalloc "mimalloc": mimalloc::MiMalloc = |_bytes| Box::new(mimalloc::MiMalloc);
    KindJemalloc "jemalloc": tikv_jemallocator::Jemalloc = |_bytes| Box::new(tikv_jemallocator::Jemalloc);
    KindGalloc "galloc": Arena<Galloc> = |bytes| Arena::create(bytes);
    KindBuddy "buddy": Arena<Buddy> = |bytes| Arena::create(bytes);
    KindLla "lla": Arena<linked_list_allocator::Heap> = |bytes| Arena::create(bytes);
    KindLoop "loop": Loop = |bytes| Box::new(Loop(Region::map(bytes)));
}
