//! Children of a process whose threads free each other's blocks.

use crate::{Block, FOUR, Random, case, home};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

#[test]
fn children_have_all_regions() {
    case::run("forks").assert_success();
}

static ENOUGH: AtomicBool = AtomicBool::new(false);
/// Blocks on their way from thread to thread.
static ON_THE_WAY: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

/// Frees a block of another thread, and leaves one to be freed.
fn pass_on(seed: u64) {
    let mut random = Random(seed);
    while !ENOUGH.load(Ordering::Relaxed) {
        let block = Block::new(&FOUR, 64);
        let other = ON_THE_WAY[random.below(64)].swap(block.address, Ordering::AcqRel);
        if other != 0 {
            Block { address: other, size: 64 }.free(&FOUR);
        }
    }
}

pub fn forks() {
    assert_eq!(home(&FOUR), 0);
    let threads: Vec<_> = (1..=5).map(|seed| thread::spawn(move || pass_on(seed))).collect();
    for round in 0..200 {
        let status = case::wait(case::fork(|| in_child(round)));
        assert_eq!(status, 0, "child {round} ends with {status:#x}");
    }
    ENOUGH.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let left = ON_THE_WAY.iter().map(|place| place.load(Ordering::Relaxed)).filter(|&address| address != 0);
    left.for_each(|address| Block { address, size: 64 }.free(&FOUR));
    assert_eq!((FOUR.stats().used_bytes, FOUR.check()), (0, Ok(())));
    assert!(FOUR.stats().handed_over > 1000);
}

/// Frees inherited blocks, uses every region, and hands over more than the queue can hold, twice.
fn in_child(round: usize) -> i32 {
    let inherited = ON_THE_WAY.iter().map(|place| place.swap(0, Ordering::Relaxed));
    inherited.filter(|&address| address != 0).for_each(|address| Block { address, size: 64 }.free(&FOUR));
    if FOUR.check().is_err() {
        return 1;
    }
    // Blocks that the threads held, or were about to hand over, when they disappeared: a block or two of each.
    if FOUR.stats().live_segments > 12 {
        return 2;
    }
    let blocks: Vec<Block> = (0..600).map(|_| Block::new(&FOUR, 64)).collect();
    let before = FOUR.stats().handed_over;
    let freed = thread::spawn(move || blocks.into_iter().for_each(|block| block.free(&FOUR))).join();
    let handed_over = FOUR.stats().handed_over - before;
    if freed.is_err() || handed_over < 590 {
        return 3;
    }
    // Only this thread is left, so the next one has the number after it.
    let next = thread::spawn(|| home(&FOUR)).join();
    if round.is_multiple_of(10) && next.ok() != Some((home(&FOUR) + 1) % 4) { 4 } else { 0 }
}
