//! What other threads have freed in a heap without waiting for its lock. Whoever holds the lock next frees it in truth.
//!
//! A ring of slots. Who hands something over draws a ticket, which is `tail`, and stores the block in the slot of that
//! number. Who holds the heap's lock empties the slots from `head` on:
//!
//! ```text
//!        head                  tail
//!   |  .  | a | b | ? | c | d |  .  |  .  |      ? a ticket is drawn, the block is not there yet
//!   |  .  | . | . | ? | x | x |  .  |  .  |      after `take`: c and d are freed, their slots taken
//!                  head
//! ```
//!
//! A thread that is interrupted at `?` keeps nobody from handing over or from taking: what is behind it is taken out of
//! turn, and `head` passes when the late block has come. So whatever was handed over before `take` begins is taken.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Blocks that can wait. When all slots are full, who frees takes the lock, and frees these first.
pub(crate) const SLOTS: usize = 256;

/// A slot in which nothing is.
const EMPTY: u64 = 0;
/// A slot whose block was taken out of turn.
const TAKEN: u64 = 1;
/// The least number that can be handed over.
pub(crate) const FIRST: u64 = 2;

#[repr(align(128))]
pub(crate) struct HandOver {
    /// Tickets whose blocks have been taken. Written only by the thread that holds the heap's lock.
    head: AtomicUsize,
    /// Tickets drawn.
    tail: AtomicUsize,
    slots: [AtomicU64; SLOTS],
}

impl HandOver {
    pub(crate) const fn new() -> Self {
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots: [const { AtomicU64::new(EMPTY) }; SLOTS],
        }
    }

    fn slot(&self, ticket: usize) -> &AtomicU64 {
        let [first, ..] = &self.slots;
        self.slots.get(ticket % SLOTS).unwrap_or(first)
    }

    /// Hands a block over, a number from [`FIRST`] on. Returns the ticket, or none if there is no room.
    pub(crate) fn put(&self, block: u64) -> Option<usize> {
        let mut ticket = self.tail.load(Ordering::Relaxed);
        loop {
            // Acquire: the slot was emptied before head passed it.
            if ticket.wrapping_sub(self.head.load(Ordering::Acquire)) >= SLOTS {
                return None;
            }
            let next = ticket.wrapping_add(1);
            match self.tail.compare_exchange(ticket, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => ticket = now,
            }
        }
        self.slot(ticket).store(block, Ordering::Release);
        Some(ticket)
    }

    /// Whether something may be there to be taken. Only for the thread that holds the heap's lock, as is all below.
    #[inline(always)]
    pub(crate) fn waiting(&self) -> bool {
        self.tail.load(Ordering::Relaxed) != self.head.load(Ordering::Relaxed)
    }

    /// Takes everything that is there.
    pub(crate) fn take(&self, mut free: impl FnMut(u64)) {
        let mut head = self.head.load(Ordering::Relaxed);
        let tail = self.tail.load(Ordering::Relaxed);
        let mut ticket = head;
        while ticket != tail {
            let slot = self.slot(ticket);
            let block = slot.load(Ordering::Acquire);
            if block >= FIRST {
                free(block);
            }
            let in_turn = ticket == head && block != EMPTY;
            ticket = ticket.wrapping_add(1);
            if in_turn {
                slot.store(EMPTY, Ordering::Relaxed);
                head = ticket;
            } else if block != EMPTY {
                slot.store(TAKEN, Ordering::Relaxed);
            }
        }
        self.head.store(head, Ordering::Release);
    }

    /// Forgets the tickets whose blocks have not come. In the child of a fork they never will: who drew them is not there.
    pub(crate) fn forget_late(&self) {
        self.slots.iter().for_each(|slot| slot.store(EMPTY, Ordering::Relaxed));
        self.head.store(self.tail.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// How many blocks have been handed over and taken so far, those that came late left out.
    pub(crate) fn count(&self) -> usize {
        self.head.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn taken(ring: &HandOver) -> Vec<u64> {
        let mut blocks = Vec::new();
        ring.take(|block| blocks.push(block));
        blocks
    }

    /// A block that comes late keeps its slot, and what is behind it is taken; once it is forgotten there is room again.
    #[test]
    fn late_blocks_are_waited_for_and_forgotten() {
        let ring = HandOver::new();
        let late = ring.tail.fetch_add(1, Ordering::Relaxed);
        let most = SLOTS as u64;
        for block in FIRST..FIRST + most - 1 {
            assert!(ring.put(block).is_some());
        }
        assert_eq!(ring.put(9), None);
        assert_eq!(taken(&ring), Vec::from_iter(FIRST..FIRST + most - 1));
        assert_eq!((ring.put(9), ring.waiting(), ring.count()), (None, true, 0));
        ring.slot(late).store(7, Ordering::Release);
        assert_eq!(taken(&ring), [7]);
        assert_eq!((ring.waiting(), ring.count()), (false, SLOTS));
        ring.tail.fetch_add(1, Ordering::Relaxed);
        assert!(ring.put(8).is_some());
        assert_eq!(taken(&ring), [8]);
        ring.forget_late();
        assert!(!ring.waiting());
        assert!((0..most).all(|block| ring.put(FIRST + block).is_some()));
        assert_eq!(taken(&ring), Vec::from_iter(FIRST..FIRST + most));
    }
}
