//! The calls of the small C allocator that is the origin of smalloc: one heap, whose size `my_init` sets.

use crate::system::{fail, set_errno};
use core::alloc::Layout;
use core::ffi::{c_int, c_ulong, c_void};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};
use smalloc::{FreeList, Indexed, Linked, MallocStatus, SmallocGlobal};

/// The smallest region in bytes. A smaller heap has a limit inside it.
const LEAST_REGION: usize = 1 << 16;

static LINKED_HEAP: SmallocGlobal<Linked> = SmallocGlobal::new();
static INDEXED_HEAP: SmallocGlobal<Indexed> = SmallocGlobal::new();

/// The list of the heap in use, as a C number, plus one; 0 before `my_init`.
static ACTIVE: AtomicU8 = AtomicU8::new(0);
const LINKED: c_int = 0;
const INDEXED: c_int = 1;

/// `Malloc_Status` of `smalloc.h`.
#[repr(C)]
#[derive(Debug)]
pub struct Status {
    success: c_int,
    payload_offset: c_ulong,
    hops: c_int,
}

impl Status {
    const FAILURE: Self = Self { success: 0, payload_offset: c_ulong::MAX, hops: 0 };
}

/// Maps a heap with the linked free list. See `smalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn my_init(region_size: c_int) -> c_int {
    my_init_list(region_size, LINKED)
}

/// Maps a heap with either free list. See `smalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn my_init_list(region_size: c_int, list: c_int) -> c_int {
    let Some(size) = usize::try_from(region_size).ok().filter(|&size| size > 0) else {
        return refuse(libc::EINVAL);
    };
    if LINKED_HEAP.totals().live_segments > 0 || INDEXED_HEAP.totals().live_segments > 0 {
        return refuse(libc::EBUSY);
    }
    let size = size.next_multiple_of(crate::system::page_size());
    let outcome = match list {
        LINKED => set_up(&LINKED_HEAP, size),
        INDEXED => set_up(&INDEXED_HEAP, size),
        _ => Err(libc::EINVAL),
    };
    match outcome {
        Ok(()) => {
            ACTIVE.store(list as u8 + 1, Ordering::Release);
            0
        }
        Err(errno) => refuse(errno),
    }
}

/// Maps a heap, unless it is mapped and large enough, and limits it to `size` bytes.
fn set_up<L: FreeList>(heap: &SmallocGlobal<L>, size: usize) -> Result<(), c_int> {
    heap.init_with_size(size.max(LEAST_REGION)).map_err(|error| error.errno.max(1))?;
    if heap.totals().region_size < size {
        return Err(libc::ENOMEM);
    }
    heap.set_limit(size);
    Ok(())
}

fn refuse(errno: c_int) -> c_int {
    set_errno(errno);
    -1
}

/// Allocates from the heap of `my_init`. See `smalloc.h`.
///
/// # Safety
/// `status` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc(payload_size: c_int, status: *mut Status) -> *mut c_void {
    let (payload, outcome) = place(payload_size).unwrap_or((None, Status::FAILURE));
    if !status.is_null() {
        // SAFETY: guaranteed by the caller.
        unsafe { status.write(outcome) };
    }
    payload.map_or_else(|| fail(libc::ENOMEM), |payload| payload.as_ptr().cast())
}

fn place(payload_size: c_int) -> Option<(Option<NonNull<u8>>, Status)> {
    let layout = Layout::from_size_align(usize::try_from(payload_size).ok()?, 1).ok()?;
    let (payload, status) = match ACTIVE.load(Ordering::Acquire) {
        0 => return None,
        1 => LINKED_HEAP.smalloc(layout),
        _ => INDEXED_HEAP.smalloc(layout),
    };
    Some((payload, status_of(&status)))
}

fn status_of(status: &MallocStatus) -> Status {
    Status {
        success: status.success.into(),
        payload_offset: status.payload_offset.map_or(c_ulong::MAX, |offset| offset as c_ulong),
        hops: c_int::try_from(status.hops).unwrap_or(c_int::MAX),
    }
}

/// Frees a payload of `smalloc`. See `smalloc.h`.
///
/// # Safety
/// The payload is null, or in use and of `smalloc`, and nothing uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sfree(payload: *mut c_void) {
    let Some(payload) = NonNull::new(payload.cast::<u8>()) else { return };
    if INDEXED_HEAP.contains(payload.as_ptr()) {
        // SAFETY: guaranteed by the caller.
        unsafe { INDEXED_HEAP.sfree(payload) }
    } else {
        // SAFETY: guaranteed by the caller. A pointer that is in neither heap ends the process here.
        unsafe { LINKED_HEAP.sfree(payload) }
    }
}
