use super::*;
use std::vec::Vec;

fn empty_ring() -> FreeRing {
    FreeRing {
        head: CacheLine(AtomicUsize::new(0)),
        tail: CacheLine(AtomicUsize::new(0)),
        slots: CacheLine([const { AtomicU64::new(0) }; SLOTS]),
    }
}

fn block(number: usize) -> u64 {
    MIN_BLOCK + 2 * number as u64
}

fn drained(ring: &FreeRing) -> Vec<u64> {
    let mut blocks = Vec::new();
    ring.drain(|block| blocks.push(block));
    blocks
}

/// However many blocks were drained before, only the slots of a cache line that is not emptied yet are missing.
#[test]
fn rings_fill_up_at_any_position() {
    let ring = empty_ring();
    let mut before = 0;
    for count in [0, 1, LINE_SLOTS - 1, LINE_SLOTS, LINE_SLOTS + 1, SLOTS / 2, SLOTS - LINE_SLOTS] {
        let numbers = || (before..before + count).map(block);
        assert!(numbers().zip(before..).all(|(block, ticket)| ring.push(block) == Some(ticket)));
        assert_eq!((ring.has_blocks(), drained(&ring)), (count > 0, Vec::from_iter(numbers())));
        before += count;
        assert_eq!((ring.has_blocks(), ring.drained_count()), (false, before));
        let room = SLOTS - before % LINE_SLOTS;
        let numbers = || (before..before + room).map(block);
        assert!(numbers().all(|block| ring.push(block).is_some()), "{count}");
        assert_eq!((ring.push(MIN_BLOCK), ring.push(MIN_BLOCK)), (None, None), "{count}");
        assert_eq!(drained(&ring), Vec::from_iter(numbers()));
        before += room;
    }
}

/// `tail` is stale while a producer has filled its slot and not yet moved `tail`.
#[test]
fn a_stale_tail_finds_the_first_empty_slot() {
    let ring = empty_ring();
    for lap in 0..3 {
        for lag in [0, 1, 5] {
            let tail = ring.tail.0.load(Ordering::Relaxed);
            assert_eq!(ring.push(block(lap)), Some(tail));
            ring.tail.0.store(tail.saturating_sub(lag), Ordering::Relaxed);
            assert_eq!(ring.push(block(lag)), Some(tail + 1));
            assert_eq!(drained(&ring), [block(lap), block(lag)]);
        }
        let rest = SLOTS - ring.drained_count() % SLOTS;
        assert!((0..rest).all(|number| ring.push(block(number)).is_some()));
        assert_eq!(drained(&ring).len(), rest);
    }
}
