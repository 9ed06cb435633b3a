//! Taking a call stack, by the unwinder that every Rust program has.
//!
//! The unwinder reads tables that the compiler writes for every function, so no frame pointers are needed. Those of gcc
//! 12 and later and of LLVM neither allocate nor lock on this path. Should another one allocate, the heap is called
//! from inside of it; that call's stack is not taken.

use crate::system::errno;
use crate::threads::lock::thread_token;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Frames that are kept of a stack: the innermost.
pub(crate) const FRAMES: usize = 32;

/// Values that the callback returns (`_Unwind_Reason_Code`).
const NO_REASON: c_int = 0;
const FAILURE: c_int = 9;

/// Threads inside the unwinder at the same time, at most. A power of two.
const THREADS: usize = 256;
/// Places where a thread may be entered.
const PLACES: usize = 8;

/// Tokens of threads that are inside the unwinder, 0 in free entries.
static INSIDE: [AtomicUsize; THREADS] = [const { AtomicUsize::new(0) }; THREADS];

#[repr(C)]
struct Context {
    _opaque: [u8; 0],
}

type Visit = extern "C" fn(*mut Context, *mut c_void) -> c_int;

#[cfg_attr(all(target_env = "gnu", not(target_feature = "crt-static")), link(name = "gcc_s"))]
unsafe extern "C" {
    fn _Unwind_Backtrace(visit: Visit, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut Context, is_before: *mut c_int) -> usize;
}

/// The return addresses of a call stack, the innermost first.
pub(crate) struct Stack {
    addresses: [usize; FRAMES],
    len: usize,
    /// Frames that are still to be left out.
    skip: usize,
}

impl Stack {
    /// The calling thread's stack without the `skip` innermost frames, of which this function is the first. It is empty
    /// if the thread is inside this function already.
    #[inline(never)]
    pub(crate) fn take(skip: usize) -> Self {
        let mut stack = Self { addresses: [0; FRAMES], len: 0, skip };
        if let Some(_inside) = Inside::enter() {
            // Not by `errno::unchanged`, which may be a frame of its own.
            let errno = errno::get();
            // SAFETY: the callback has the right type, and the stack outlives the call.
            unsafe { _Unwind_Backtrace(visit, ptr::from_mut(&mut stack).cast()) };
            errno::set(errno);
        }
        stack
    }

    /// Takes a stack for nothing, once: the unwinder reads its tables at the first call, which takes longer.
    pub(crate) fn warm_up() {
        static DONE: AtomicBool = AtomicBool::new(false);
        if !DONE.swap(true, Ordering::Relaxed) {
            let _ = Self::take(0);
        }
    }

    pub(crate) fn addresses(&self) -> &[usize] {
        self.addresses.get(..self.len).unwrap_or_default()
    }
}

/// Adds a frame, or ends the walk.
extern "C" fn visit(context: *mut Context, stack: *mut c_void) -> c_int {
    // SAFETY: the unwinder passes on the stack, to which nothing else refers during the call.
    let stack = unsafe { &mut *stack.cast::<Stack>() };
    if let Some(left) = stack.skip.checked_sub(1) {
        stack.skip = left;
        return NO_REASON;
    }
    let mut is_before = 0;
    // SAFETY: the unwinder passes a valid context, and the flag is writable.
    let address = unsafe { _Unwind_GetIPInfo(context, &raw mut is_before) };
    let Some(place) = stack.addresses.get_mut(stack.len).filter(|_| address != 0) else { return FAILURE };
    // In a frame that a signal has interrupted, the address is that of the next instruction, and no return address.
    *place = if is_before == 0 { address } else { address.wrapping_add(1) };
    stack.len = stack.len.wrapping_add(1);
    NO_REASON
}

/// The calling thread is inside the unwinder.
struct Inside(&'static AtomicUsize);

impl Inside {
    /// `None` if it is inside already, or too many threads are.
    fn enter() -> Option<Self> {
        let me = thread_token();
        let first = me.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let places = || (0..PLACES).filter_map(|place| INSIDE.get(first.wrapping_add(place) % THREADS));
        if places().any(|place| place.load(Ordering::Relaxed) == me) {
            return None;
        }
        let is_taken = |place: &&AtomicUsize| {
            place.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        places().find(is_taken).map(Self)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "../../tests/unit/sites/stack.rs"]
mod tests;
