//! Every call, written once, over a heap that is held.
//!
//! How a heap is held decides three things only: who watches, what it means to let others have it meanwhile, and where a
//! request goes that finds no place. So holding is a type, [`Held`], and calls are generic over it: [`Own`] is a heap of one
//! thread, and `global` has two more, one for its fast path and one for its slow path.
//!
//! An allocation in order: find and take a free segment, tell the watchers, let go, hand out. A free in order: find the
//! segment, tell the watchers, give it back, do what the list put off, let go.

mod alloc;
mod free;
mod held;
mod own;
mod realloc;
mod zero;

pub(crate) use alloc::{alloc, hand_out, place};
pub(crate) use free::{free, free_moved, free_one, free_slow};
pub(crate) use held::{Held, MovedFrom, purge, purge_if_due};
pub(crate) use own::Own;
pub(crate) use realloc::{move_by, realloc, resize_zeroed};
