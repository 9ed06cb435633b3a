use super::{Extent, Granule, Region, Transfer, copy_from_transit, restore_mapping};
use crate::system::mapping::{map, page_size};
use core::ptr;

/// Four committed pages, each filled with its number.
fn pages() -> *mut u8 {
    let start = map(ptr::null_mut(), 4 * page_size(), libc::PROT_READ | libc::PROT_WRITE, 0).unwrap();
    for page in 0..4 {
        let place = start.wrapping_add(page * page_size());
        // SAFETY: the page was just mapped.
        unsafe { place.write_bytes(page as u8 + 1, page_size()) };
    }
    start
}

fn first_bytes(start: *mut u8) -> [u8; 4] {
    // SAFETY: four pages are mapped there.
    [0, 1, 2, 3].map(|page| unsafe { start.wrapping_add(page * page_size()).read() })
}

/// The second and third of four pages, and their size in bytes.
fn middle(start: *mut u8) -> (*mut u8, usize) {
    (start.wrapping_add(page_size()), 2 * page_size())
}

#[test]
fn only_unmapped_pages_are_restored() {
    let start = pages();
    let (middle, bytes) = middle(start);
    // SAFETY: the pages belong to this test.
    unsafe { restore_mapping(middle, bytes) };
    assert_eq!(first_bytes(start), [1, 2, 3, 4]);
    // SAFETY: as above.
    unsafe { libc::munmap(middle.cast(), bytes) };
    // SAFETY: as above.
    unsafe { restore_mapping(middle, bytes) };
    assert_eq!(first_bytes(start), [1, 0, 0, 4]);
}

#[test]
fn pages_that_fail_to_arrive_are_copied() {
    let (transit, new) = (pages(), pages());
    let ((transit, bytes), (place, _)) = (middle(transit), middle(new));
    // SAFETY: the pages belong to this test.
    unsafe { libc::munmap(place.cast(), bytes) };
    // SAFETY: as above.
    unsafe { copy_from_transit(transit, place, bytes) };
    assert_eq!(first_bytes(new), [1, 2, 3, 4]);
}

#[test]
fn small_parts_are_not_added() {
    let bytes = 128 * 128 * 1024;
    let mut transfer = Transfer::of(&Region::NONE, Granule(0), Granule(1 << 20), bytes);
    let part = bytes / 128 / 16;
    transfer.push(Extent::of(Granule(0), part));
    transfer.push(Extent::of(Granule(part), part + 1));
    assert!(transfer.parts().eq([Extent::of(Granule(part), part + 1)]));
}

#[test]
fn parts_go_up_and_down() {
    let (from, to) = (Granule(5 << 20), Granule(6 << 20));
    let mut transfer = Transfer::of(&Region::NONE, from, Granule(0), 16 << 20);
    let pages = Extent::new(from, to);
    transfer.push(pages);
    transfer.set_pages(pages, 1 << 20);
    assert!(transfer.new_parts().eq([Extent::new(Granule(6 << 20), Granule(7 << 20))]));
    transfer.set_pages(pages, 0_usize.wrapping_sub(5 << 20));
    assert!(transfer.new_parts().eq([Extent::new(Granule(0), Granule(1 << 20))]));
}
