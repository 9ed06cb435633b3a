//! What other threads have freed in a heap without waiting for its lock. Whoever holds the lock next frees it in truth.
//!
//! A ring of slots, gone round lap after lap. Who hands something over turns the first empty slot into the block, in one
//! step: nothing is between two states, and no block hides behind another that comes late. Who holds the heap's lock
//! empties the slots from `head` on:
//!
//! ```text
//!              head       next
//!   | x | x | x | a | b | c |   |   |       x: taken, and emptied for the next lap with the rest of its line
//! ```
//!
//! Between two cores a line of memory travels for each block twice: to who writes the block, and to who takes it. So
//! `head` is written where nobody who hands over looks, `next` where nobody looks who takes, and slots are emptied a
//! line at a time, when all of it have been taken.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Slots of the ring. When all are full, who frees takes the lock, and frees these first.
pub(crate) const SLOTS: usize = 256;
/// Slots that are emptied together, and so may wait for that: a cache line.
const LINE: usize = 8;

/// The least number that can be handed over; numbers are even. A slot that is empty holds a lower one, its lap, and a block
/// has the lap's last bit.
pub(crate) const FIRST: u64 = 1 << 32;

/// A line, or two where they are fetched in pairs, which nothing else shares.
#[repr(align(128))]
struct Apart<T>(T);

/// The ring. Zeros are an empty one.
pub(crate) struct FreeRing {
    /// Blocks that have been taken. Written only by the thread that holds the heap's lock.
    head: Apart<AtomicUsize>,
    /// The first empty slot, or one below it that was empty a moment ago.
    next: Apart<AtomicUsize>,
    slots: Apart<[AtomicU64; SLOTS]>,
}

/// What a slot holds that is empty in that lap.
fn empty(lap: usize) -> u64 {
    lap as u64 % FIRST
}

impl FreeRing {
    fn slot(&self, ticket: usize) -> &AtomicU64 {
        let Apart(slots) = &self.slots;
        let [first, ..] = slots;
        slots.get(ticket % SLOTS).unwrap_or(first)
    }

    /// Hands a block over, an even number from [`FIRST`] on. Returns how many were before it, or none if there is
    /// no room, or if it may seem so because many others came in between.
    pub(crate) fn put(&self, block: u64) -> Option<usize> {
        // Acquire: what fills the slots below is seen by all who see this block.
        let next = self.next.0.load(Ordering::Acquire);
        let mut ticket = next;
        loop {
            let lap = ticket / SLOTS;
            let full = block | (lap as u64 % 2);
            let slot = self.slot(ticket);
            match slot.compare_exchange(empty(lap), full, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                // What was handed over a lap ago is still there.
                Err(found) if found >= FIRST && found % 2 != full % 2 => return None,
                Err(_) => ticket = ticket.wrapping_add(1),
            }
        }
        // Unless somebody has since moved it further: it never goes back.
        let behind = ticket.wrapping_add(1);
        let _ = self.next.0.compare_exchange(next, behind, Ordering::Release, Ordering::Relaxed);
        Some(ticket)
    }

    /// Whether something is there to be taken. Only for the thread that holds the heap's lock, as is all below.
    #[inline(always)]
    pub(crate) fn waiting(&self) -> bool {
        self.slot(self.head.0.load(Ordering::Relaxed)).load(Ordering::Relaxed) >= FIRST
    }

    /// Takes everything that is there. What comes meanwhile may wait.
    pub(crate) fn take(&self, mut free: impl FnMut(u64)) {
        let mut head = self.head.0.load(Ordering::Relaxed);
        for _ in 0..SLOTS {
            let block = self.slot(head).load(Ordering::Acquire);
            if block < FIRST {
                break;
            }
            free(block & !1);
            head = head.wrapping_add(1);
            if head.is_multiple_of(LINE) {
                for ticket in head.wrapping_sub(LINE)..head {
                    self.slot(ticket).store(empty(ticket / SLOTS + 1), Ordering::Relaxed);
                }
            }
        }
        self.head.0.store(head, Ordering::Relaxed);
    }

    /// How many blocks have been handed over and taken so far.
    pub(crate) fn count(&self) -> usize {
        self.head.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/threads/free_ring.rs"]
mod tests;
