use super::*;
use std::vec::Vec;

fn empty_ring() -> FreeRing {
    FreeRing {
        head: Apart(AtomicUsize::new(0)),
        next: Apart(AtomicUsize::new(0)),
        slots: Apart([const { AtomicU64::new(0) }; SLOTS]),
    }
}

fn block(number: usize) -> u64 {
    FIRST + 2 * number as u64
}

fn taken(ring: &FreeRing) -> Vec<u64> {
    let mut blocks = Vec::new();
    ring.take(|block| blocks.push(block));
    blocks
}

/// Whatever was taken before, a ring has room for all its slots but those that are emptied with a line.
#[test]
fn rings_are_full_at_the_end_of_a_lap() {
    let ring = empty_ring();
    let mut before = 0;
    for some in [0, 1, LINE - 1, LINE, LINE + 1, SLOTS / 2, SLOTS - LINE] {
        let numbers = || (before..before + some).map(block);
        assert!(numbers().zip(before..).all(|(block, ticket)| ring.put(block) == Some(ticket)));
        assert_eq!((ring.waiting(), taken(&ring)), (some > 0, Vec::from_iter(numbers())));
        before += some;
        assert_eq!((ring.waiting(), ring.count()), (false, before));
        let room = SLOTS - before % LINE;
        let numbers = || (before..before + room).map(block);
        assert!(numbers().all(|block| ring.put(block).is_some()), "{some}");
        assert_eq!((ring.put(FIRST), ring.put(FIRST)), (None, None), "{some}");
        assert_eq!(taken(&ring), Vec::from_iter(numbers()));
        before += room;
    }
}

/// `next` may be low, where who has filled a slot has not said so yet.
#[test]
fn a_low_hint_finds_the_first_empty_slot() {
    let ring = empty_ring();
    for lap in 0..3 {
        for low in [0, 1, 5] {
            let next = ring.next.0.load(Ordering::Relaxed);
            assert_eq!(ring.put(block(lap)), Some(next));
            ring.next.0.store(next.saturating_sub(low), Ordering::Relaxed);
            assert_eq!(ring.put(block(low)), Some(next + 1));
            assert_eq!(taken(&ring), [block(lap), block(low)]);
        }
        let rest = SLOTS - ring.count() % SLOTS;
        assert!((0..rest).all(|number| ring.put(block(number)).is_some()));
        assert_eq!(taken(&ring).len(), rest);
    }
}
