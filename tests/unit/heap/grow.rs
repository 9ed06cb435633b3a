use crate::region::{GRANULE, NEAR};
use crate::{FreeList, Heap, Indexed, Linked};
use core::alloc::Layout;

/// Small tables keep their entries when they move.
#[test]
fn tables_that_move_keep_their_entries() {
    grow_past_near::<Indexed>();
    grow_past_near::<Linked>();
}

fn grow_past_near<L: FreeList>() {
    const PIECE: Layout = Layout::new::<[u8; 64 << 10]>();
    let mut heap = Heap::<L>::with_region_size(2 * NEAR).unwrap();
    let pieces = NEAR / PIECE.size();
    let blocks: std::vec::Vec<_> = (0..pieces).map(|_| heap.smalloc(PIECE).0.unwrap()).collect();
    let before = heap.stats().metadata_bytes;
    for block in blocks.iter().skip(1).step_by(100) {
        // SAFETY: the block is in use and has this layout.
        unsafe { heap.dealloc(block.as_ptr(), PIECE) };
    }
    let large = Layout::from_size_align(NEAR - GRANULE, GRANULE).unwrap();
    assert_eq!(heap.smalloc(large).1.payload_offset, Some(NEAR));
    assert!(heap.stats().metadata_bytes > 3 * before / 2, "the tables are those of a heap twice as large");
    assert_eq!(heap.check(), Ok(()));
    assert_eq!(heap.smalloc(PIECE).1.payload_offset, Some(PIECE.size()));
    assert_eq!(heap.smalloc(PIECE).1.payload_offset, Some(101 * PIECE.size()));
    // Holes with links keep their first page.
    let kept = if L::LINK_BYTES > 0 { 4 << 10 } else { 0 };
    let holes = (pieces - 1).div_ceil(100) - 2;
    assert_eq!(heap.trim(), holes * (PIECE.size() - kept));
}
