//! Each region compared with the model: the same calls, in the order in which they reached it.

use crate::oracle::Oracle;
use crate::{Block, REGION, Random, layout, take};
use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::GlobalAlloc;
use std::sync::{Barrier, Mutex};
use std::thread;

/// A call and its result.
enum Call {
    Alloc { size: usize, region: usize, offset: Option<usize> },
    Free { region: usize, offset: usize },
    Realloc { region: usize, offset: usize, size: usize, new_size: usize, to: Option<usize> },
}

#[test]
fn every_region_is_first_fit_whichever_thread_calls() {
    static INDEXED: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(REGION);
    static LINKED: SmallocGlobal<Linked, 3> = SmallocGlobal::with_region_size(REGION);
    follow(&INDEXED);
    follow(&LINKED);
}

/// Threads call in the order in which they lock the log, and any of them frees and resizes blocks of the others. The
/// model makes the same calls in that order, on one thread.
fn follow<L: FreeList>(heap: &'static SmallocGlobal<L, 3>) {
    let bases = bases(heap);
    let of = |address: usize| {
        let region =
            (0..3).find(|&region| (bases[region]..bases[region] + REGION).contains(&address)).unwrap();
        (region, address - bases[region])
    };
    let log: Mutex<(Vec<Call>, Vec<Block>)> = Mutex::default();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for seed in 0..4 {
            let (log, start) = (&log, &start);
            scope.spawn(move || {
                let mut random = Random(seed);
                start.wait();
                for _ in 0..3000 {
                    let mut turn = log.lock().unwrap();
                    let (calls, blocks) = &mut *turn;
                    calls.push(call(heap, &mut random, blocks, &of));
                    drop(turn);
                    thread::yield_now();
                }
            });
        }
    });
    let (calls, blocks) = log.into_inner().unwrap();
    replay(&calls, bases);
    assert!(heap.stats().handed_over > 1000, "{}", heap.stats().handed_over);
    blocks.into_iter().for_each(|block| block.free(heap));
    assert_eq!((heap.stats().used_bytes, heap.stats().holes()), (0, 0));
    assert_eq!(heap.check(), Ok(()));
}

/// A block that fills a region shows where the region begins.
fn bases<L: FreeList>(heap: &SmallocGlobal<L, 3>) -> [usize; 3] {
    let mut bases = [0; 3];
    for (block, region) in [(); 3].map(|()| take(heap, REGION)) {
        bases[region] = block.as_ptr().addr();
        block.as_ptr().expose_provenance();
    }
    for base in bases {
        Block { address: base, size: REGION }.free(heap);
    }
    bases
}

fn call<L: FreeList>(
    heap: &SmallocGlobal<L, 3>,
    random: &mut Random,
    blocks: &mut Vec<Block>,
    of: &impl Fn(usize) -> (usize, usize),
) -> Call {
    let size = 1 + random.below(2000);
    let kind = random.below(8);
    if kind < 4 || blocks.is_empty() {
        let (block, status) = heap.smalloc(layout(size));
        if let Some(block) = block {
            blocks.push(Block { address: block.as_ptr().expose_provenance(), size });
        }
        return Call::Alloc { size, region: status.region, offset: status.payload_offset };
    }
    let index = random.below(blocks.len());
    let block = blocks[index];
    let (region, offset) = of(block.address);
    if kind < 7 {
        blocks.swap_remove(index);
        block.free(heap);
        return Call::Free { region, offset };
    }
    // A request that is no larger does not leave the region.
    let new_size = 1 + random.below(block.size);
    let payload = std::ptr::with_exposed_provenance_mut(block.address);
    // SAFETY: the block is in use.
    let moved = unsafe { heap.realloc(payload, layout(block.size), new_size) };
    blocks[index].size = new_size;
    Call::Realloc { region, offset, size: block.size, new_size, to: Some(of(moved.addr()).1) }
}

fn replay(calls: &[Call], bases: [usize; 3]) {
    let mut models = bases.map(|base| Oracle::new(base, REGION));
    for call in calls {
        match *call {
            Call::Alloc { size, region, offset } => {
                assert_eq!(models[region].alloc(layout(size)).offset, offset);
            }
            Call::Free { region, offset } => models[region].free(offset),
            Call::Realloc { region, offset, size, new_size, to } => {
                assert_eq!(models[region].realloc(offset, layout(size), new_size), None);
                assert_eq!(to, Some(offset));
            }
        }
    }
}
