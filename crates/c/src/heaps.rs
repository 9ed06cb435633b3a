//! Several heaps, each with a region and a lock of its own. `smalloc.h` has the documentation of each call.

use crate::system::{fail, page_size, set_errno};
use core::alloc::Layout;
use core::ffi::{c_char, c_int, c_void};
use core::fmt::{self, Write};
use core::ptr::{self, NonNull};
use smalloc::{Heap, HeapLock, Indexed, SnapshotError};

/// The alignment of every payload, and the unit of sizes.
const GRANULE: usize = 16;

/// `smalloc_heap` of `smalloc.h`, in a mapping of its own.
#[derive(Debug)]
pub struct CHeap(HeapLock<Indexed>);

/// `smalloc_stats` of `smalloc.h`.
#[repr(C)]
#[derive(Debug)]
pub struct CStats {
    region_size: usize,
    used_bytes: usize,
    top: usize,
    live_segments: usize,
    holes: usize,
    hole_bytes: usize,
    largest_hole: usize,
    committed_bytes: usize,
    metadata_bytes: usize,
    peak_used_bytes: usize,
    peak_top: usize,
    allocs: u64,
    frees: u64,
    reallocs: u64,
    failures: u64,
    hops: u64,
}

/// `smalloc_segment` of `smalloc.h`.
#[repr(C)]
#[derive(Debug)]
pub struct CSegment {
    offset: usize,
    size: usize,
    in_use: c_int,
}

fn bytes_of_heap() -> usize {
    size_of::<CHeap>().next_multiple_of(page_size())
}

/// Creates a heap; null with `errno` set if the system refuses.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_heap_new(region_size: usize) -> *mut CHeap {
    let heap = match Heap::with_region_size(region_size) {
        Ok(heap) => heap,
        Err(error) => return fail(error.errno).cast(),
    };
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping replaces nothing.
    let place = unsafe { libc::mmap(ptr::null_mut(), bytes_of_heap(), protection, flags, -1, 0) };
    if place == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let place: *mut CHeap = place.cast();
    // SAFETY: the mapping is as large as a heap, aligned to a page, and nothing else uses it.
    unsafe { place.write(CHeap(HeapLock::new(heap))) };
    place
}

/// Deletes a heap with all its payloads. Null does nothing.
///
/// # Safety
/// The heap is of `smalloc_heap_new`, and nothing uses it or its payloads any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_delete(heap: *mut CHeap) {
    if !heap.is_null() {
        // SAFETY: guaranteed by the caller: this is the last use.
        unsafe { heap.drop_in_place() };
        // SAFETY: the heap lies in a mapping of this size.
        unsafe { libc::munmap(heap.cast(), bytes_of_heap()) };
    }
}

/// The heap that a handle names, locked.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted.
unsafe fn lock<'a>(heap: *const CHeap) -> smalloc::HeapGuard<'a, Indexed> {
    // SAFETY: guaranteed by the caller.
    unsafe { &(*heap).0 }.lock()
}

fn payload_or_errno(payload: *mut u8) -> *mut c_void {
    if payload.is_null() { fail(libc::ENOMEM) } else { payload.cast() }
}

/// Allocates; null with `ENOMEM` if nothing fits.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_alloc(heap: *mut CHeap, size: usize) -> *mut c_void {
    // SAFETY: guaranteed by the caller.
    unsafe { smalloc_heap_aligned_alloc(heap, GRANULE, size) }
}

/// Allocates at an alignment; null with `ENOMEM` if nothing fits, with `EINVAL` if it is not a power of two.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_aligned_alloc(
    heap: *mut CHeap,
    alignment: usize,
    size: usize,
) -> *mut c_void {
    if !alignment.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    let Ok(layout) = Layout::from_size_align(size, alignment.max(GRANULE)) else { return fail(libc::ENOMEM) };
    // SAFETY: guaranteed by the caller.
    payload_or_errno(unsafe { lock(heap) }.alloc(layout))
}

/// Allocates `count * size` bytes of zeros; null with `ENOMEM` if nothing fits.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_calloc(heap: *mut CHeap, count: usize, size: usize) -> *mut c_void {
    let layout = count.checked_mul(size).and_then(|bytes| Layout::from_size_align(bytes, GRANULE).ok());
    let Some(layout) = layout else { return fail(libc::ENOMEM) };
    // SAFETY: guaranteed by the caller.
    payload_or_errno(unsafe { lock(heap) }.alloc_zeroed(layout))
}

/// Resizes a payload; null with `ENOMEM` if nothing fits, and the payload is as it was.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted. The payload is null, or in use and of this heap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_realloc(
    heap: *mut CHeap,
    payload: *mut c_void,
    size: usize,
) -> *mut c_void {
    let Some(payload) = NonNull::new(payload.cast::<u8>()) else {
        // SAFETY: guaranteed by the caller.
        return unsafe { smalloc_heap_alloc(heap, size) };
    };
    if Layout::from_size_align(size, GRANULE).is_err() {
        return fail(libc::ENOMEM);
    }
    // SAFETY: guaranteed by the caller.
    let mut heap = unsafe { lock(heap) };
    // SAFETY: guaranteed by the caller, and the size was checked above.
    let moved = unsafe { heap.srealloc(payload, size) };
    payload_or_errno(moved.map_or(ptr::null_mut(), NonNull::as_ptr))
}

/// Frees a payload. Null does nothing.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted. Nothing uses the payload any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_free(heap: *mut CHeap, payload: *mut c_void) {
    if let Some(payload) = NonNull::new(payload.cast()) {
        // SAFETY: guaranteed by the caller.
        let mut heap = unsafe { lock(heap) };
        // SAFETY: guaranteed by the caller; any other pointer ends the process.
        unsafe { heap.sfree(payload) };
    }
}

/// Frees a payload of `size` bytes; any other size ends the process. Null does nothing.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted. Nothing uses the payload any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_free_sized(heap: *mut CHeap, payload: *mut c_void, size: usize) {
    if payload.is_null() {
        return;
    }
    // No payload has a size for which there is no layout. 0 bytes do not match either, except a payload of 1 to 16
    // bytes.
    let layout = Layout::from_size_align(size, 1).unwrap_or(Layout::new::<()>());
    // SAFETY: guaranteed by the caller.
    let mut heap = unsafe { lock(heap) };
    // SAFETY: guaranteed by the caller; a layout that does not match ends the process.
    unsafe { heap.dealloc(payload.cast(), layout) };
}

/// The bytes that a payload may use; 0 for null and for anything that is not a payload in use.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_usable_size(heap: *mut CHeap, payload: *const c_void) -> usize {
    let Some(payload) = NonNull::new(payload.cast_mut().cast()) else { return 0 };
    // SAFETY: guaranteed by the caller.
    unsafe { lock(heap) }.usable_size(payload).unwrap_or(0)
}

/// Whether an address lies in the heap's region: 1 or 0.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_contains(heap: *mut CHeap, address: *const c_void) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { lock(heap) }.contains(address.cast()).into()
}

/// The heap's numbers.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted, and `stats` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_stats(heap: *mut CHeap, stats: *mut CStats) {
    // SAFETY: guaranteed by the caller.
    let now = unsafe { lock(heap) }.stats();
    let now = CStats {
        region_size: now.region_size,
        used_bytes: now.used_bytes,
        top: now.top,
        live_segments: now.live_segments,
        holes: now.holes(),
        hole_bytes: now.hole_bytes,
        largest_hole: now.largest_hole,
        committed_bytes: now.committed_bytes,
        metadata_bytes: now.metadata_bytes,
        peak_used_bytes: now.peak_used_bytes,
        peak_top: now.peak_top,
        allocs: now.allocs,
        frees: now.frees,
        reallocs: now.reallocs,
        failures: now.failures,
        hops: now.hops.sum(),
    };
    // SAFETY: guaranteed by the caller.
    unsafe { stats.write(now) };
}

/// Copies the heap's segments in order, as many as there is room for, and returns their number; 0 with `errno` set if
/// the system has no memory for the copy.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted, and `segments` has room for `capacity` segments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_snapshot(
    heap: *mut CHeap,
    segments: *mut CSegment,
    capacity: usize,
) -> usize {
    // SAFETY: guaranteed by the caller.
    let taken = unsafe { lock(heap) }.snapshot();
    let snapshot = match taken {
        Ok(snapshot) => snapshot,
        Err(error) => {
            set_errno(if let SnapshotError::NoMemory { errno, .. } = error { errno } else { libc::EAGAIN });
            return 0;
        }
    };
    for (index, segment) in snapshot.segments().take(capacity).enumerate() {
        let copy = CSegment { offset: segment.offset, size: segment.size, in_use: segment.in_use.into() };
        // SAFETY: the index is below the capacity.
        let place = unsafe { segments.add(index) };
        // SAFETY: guaranteed by the caller.
        unsafe { place.write(copy) };
    }
    snapshot.segments().len()
}

/// Returns free memory to the system, and the number of those bytes.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_trim(heap: *mut CHeap) -> usize {
    // SAFETY: guaranteed by the caller.
    unsafe { lock(heap) }.trim()
}

/// Limits the heap to the first `bytes` bytes of its region, and returns the limit.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_set_limit(heap: *mut CHeap, bytes: usize) -> usize {
    // SAFETY: guaranteed by the caller.
    unsafe { lock(heap) }.set_limit(bytes)
}

/// Checks the bookkeeping: 0, or -1 with a line in `text`, which may be null.
///
/// # Safety
/// The heap is of `smalloc_heap_new` and not deleted, and `text` has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_heap_check(heap: *mut CHeap, text: *mut c_char, size: usize) -> c_int {
    // SAFETY: guaranteed by the caller.
    let found = unsafe { lock(heap) }.check();
    let Err(found) = found else { return 0 };
    if !text.is_null() && size > 0 {
        let mut line = Text { place: text.cast(), room: size - 1 };
        // The rest of a text that does not fit is cut.
        let _ = write!(line, "{found}");
        // SAFETY: the text leaves room for this byte.
        unsafe { line.place.write(0) };
    }
    -1
}

/// A caller's buffer: the next byte, and the room behind it in bytes.
struct Text {
    place: *mut u8,
    room: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let n = text.len().min(self.room);
        // SAFETY: the buffer belongs to the caller and has room for `n` bytes.
        unsafe { self.place.copy_from_nonoverlapping(text.as_ptr(), n) };
        // SAFETY: the result is in the buffer, or one past its last byte but one.
        self.place = unsafe { self.place.add(n) };
        self.room -= n;
        Ok(())
    }
}
