//! A bounded queue of remote frees: any thread enqueues without the heap's lock, and the next lock holder frees.
//!
//! It is a ring buffer. A producer claims the first empty slot with the compare-exchange that also writes the block, so
//! a slot is either empty or complete, and a slow producer delays no other. The lock holder drains from `head` on:
//!
//! ```text
//!              head       tail
//!   | x | x | x | a | b | c |   |   |       x: drained, and emptied for the next lap with the rest of its cache line
//! ```
//!
//! Each block costs two cache-line transfers, one to the producer and one to the consumer. To add no others, producers
//! do not read `head`, the consumer does not read `tail`, and slots are emptied one whole cache line at a time.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Slots: a power of two, so that tickets may wrap. It bounds the blocks that wait in an idle region. A producer that
/// finds the ring full takes the lock and drains it.
pub(crate) const SLOTS: usize = 256;
/// Slots in a cache line, which are emptied together once all are drained.
const LINE_SLOTS: usize = 8;

/// The smallest block; blocks are even numbers. An empty slot holds a smaller number, its lap, and a full slot holds
/// the block with the lap's lowest bit added.
pub(crate) const MIN_BLOCK: u64 = 1 << 32;

/// Keeps a value on cache lines of its own: 128 bytes, because some processors fetch lines in pairs.
#[repr(align(128))]
struct CacheLine<T>(T);

/// The ring; all zeros is an empty one.
pub(crate) struct FreeRing {
    /// Blocks drained so far. Written only by the holder of the heap's lock.
    head: CacheLine<AtomicUsize>,
    /// The first empty slot, or one before it if stale.
    tail: CacheLine<AtomicUsize>,
    slots: CacheLine<[AtomicU64; SLOTS]>,
}

/// The content of an empty slot in lap `lap`.
fn empty_slot(lap: usize) -> u64 {
    lap as u64 % MIN_BLOCK
}

impl FreeRing {
    fn slot(&self, ticket: usize) -> &AtomicU64 {
        let CacheLine(slots) = &self.slots;
        let [first, ..] = slots;
        slots.get(ticket % SLOTS).unwrap_or(first)
    }

    /// Enqueues a block, an even number from [`MIN_BLOCK`] on. Returns its ticket, the number of blocks enqueued before
    /// it; `None` if the ring is full, or looks full because other producers have overtaken this one.
    pub(crate) fn push(&self, block: u64) -> Option<usize> {
        // Acquire: a thread that sees this block also sees the blocks in the slots before it.
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut ticket = tail;
        loop {
            let lap = ticket / SLOTS;
            let full = block | (lap as u64 % 2);
            let slot = self.slot(ticket);
            match slot.compare_exchange(empty_slot(lap), full, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                // The block of the last lap has not been drained.
                Err(found) if found >= MIN_BLOCK && found % 2 != full % 2 => return None,
                Err(_) => ticket = ticket.wrapping_add(1),
            }
        }
        // If this fails, another producer has moved the tail further; it never moves back.
        let after = ticket.wrapping_add(1);
        let _ = self.tail.0.compare_exchange(tail, after, Ordering::Release, Ordering::Relaxed);
        Some(ticket)
    }

    /// Whether a block waits. Like all methods below, only for the holder of the heap's lock.
    #[inline(always)]
    pub(crate) fn has_blocks(&self) -> bool {
        self.slot(self.head.0.load(Ordering::Relaxed)).load(Ordering::Relaxed) >= MIN_BLOCK
    }

    /// Passes every waiting block to `free`. Blocks enqueued meanwhile may stay.
    pub(crate) fn drain(&self, mut free: impl FnMut(u64)) {
        let mut head = self.head.0.load(Ordering::Relaxed);
        for _ in 0..SLOTS {
            let block = self.slot(head).load(Ordering::Acquire);
            if block < MIN_BLOCK {
                break;
            }
            free(block & !1);
            head = head.wrapping_add(1);
            if head.is_multiple_of(LINE_SLOTS) {
                for ticket in head.wrapping_sub(LINE_SLOTS)..head {
                    self.slot(ticket).store(empty_slot(ticket / SLOTS + 1), Ordering::Relaxed);
                }
            }
        }
        self.head.0.store(head, Ordering::Relaxed);
    }

    /// Number of blocks enqueued and drained so far.
    pub(crate) fn drained_count(&self) -> usize {
        self.head.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/threads/free_ring.rs"]
mod tests;
