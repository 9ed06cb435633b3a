//! Every call, written once, over a heap that is held.
//!
//! The way of holding a heap decides three things: which watchers it has, whether other threads can have the heap
//! meanwhile, and where a request goes that does not fit. So holding is a trait, [`Held`], and calls are generic over
//! it. [`Own`] holds a heap of one thread; `global` has one type for its fast path and one for its slow path.
//!
//! An allocation: find and take a free segment, tell the watchers, release the heap, return the payload. A free: find
//! the segment, tell the watchers, give it back, do the deferred work of the free list, release the heap.

mod alloc;
mod batch;
mod free;
mod held;
mod own;
mod realloc;
mod zero;

pub(crate) use alloc::{alloc, hand_out, place};
pub(crate) use batch::{free_batch, place_batch, wait_for_batch};
pub(crate) use free::{free, free_moved, free_one};
pub(crate) use held::{Held, MovedFrom, check_purge, purge, purge_if_due};
pub(crate) use own::Own;
pub(crate) use realloc::{move_by, realloc, resize_zeroed};
