extern crate std;
use super::*;

#[test]
fn a_frame_has_one_number() {
    let mut frames = Frames::EMPTY;
    assert_eq!(frames.get(1), (0, 0));
    for round in 0..2 {
        for number in 1..=5000_u32 {
            // Each stands on the one before, and addresses repeat.
            let address = u64::from(number % 7) << 4;
            assert_eq!(frames.number(number - 1, address), Some(number), "round {round}");
        }
        assert_eq!(frames.len(), 5000);
    }
    assert_eq!(frames.get(5000), (4999, (5000 % 7) << 4));
    assert_eq!((frames.get(0), frames.get(5001)), ((0, 0), (0, 0)));
}

#[test]
fn the_number_of_frames_has_a_bound() {
    let mut frames = Frames::EMPTY;
    let last = (0..).find(|&address| frames.number(0, address).is_none());
    assert_eq!((last, frames.len()), (Some(MOST as u64 - 1), MOST - 1));
    assert_eq!(frames.number(0, 5), Some(6), "the others are still found");
}
