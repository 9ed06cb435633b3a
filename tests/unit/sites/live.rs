extern crate std;
use super::*;
use std::collections::HashMap;

fn sample(stack: u32) -> Sample {
    Sample { stack, amount: Amount::new(stack as usize, 1.0) }
}

/// Keys from a small range, so that many collide, against a map of the standard library.
#[test]
fn the_table_does_as_a_map() {
    let (mut table, mut map) = (Live::EMPTY, HashMap::new());
    let mut state = 1_u64;
    for round in 0..200_000_u32 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let key = 1 + (state >> 33) % 1500;
        if map.contains_key(&key) || state >> 63 == 0 {
            assert_eq!(table.remove(key), map.remove(&key), "round {round}");
        } else {
            assert!(table.insert(key, sample(round)));
            map.insert(key, sample(round));
        }
        assert_eq!(table.len, map.len());
    }
    for key in 1..=1500 {
        assert_eq!(table.remove(key), map.remove(&key));
    }
    assert_eq!((table.len, table.remove(5)), (0, None));
}

#[test]
fn the_number_of_blocks_has_a_bound() {
    let mut table = Live::EMPTY;
    let placed = (1..).find(|&key| !table.insert(key, sample(1)));
    assert_eq!(placed, Some(MOST_SLOTS as u64 / 2 + 1));
    assert_eq!(table.remove(1), Some(sample(1)));
    assert!(table.insert(1, sample(2)), "there is room again");
}
