use super::*;

#[test]
fn packed_blocks_unpack_to_themselves() {
    let most = u32::MAX as usize - 1;
    let large = i32::MAX as usize - 1;
    for at in [0, 1, 12_345, most] {
        for size in [None, Some(0), Some(1), Some(4096), Some(large)] {
            let block = Block { at: Granule(at), size };
            let packed = block.pack().unwrap();
            assert!(packed >= MIN_BLOCK && packed.is_multiple_of(2));
            assert_eq!(Block::unpack(packed), block);
        }
    }
    assert_eq!(Block { at: Granule(most + 1), size: None }.pack(), None);
    assert_eq!(Block { at: Granule(usize::MAX), size: None }.pack(), None);
    assert_eq!(Block { at: Granule(0), size: Some(large + 1) }.pack(), None);
}
