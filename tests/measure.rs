//! The peak of a measurement, if measurements follow each other, nest, or are many.

use smalloc::{Indexed, SmallocGlobal};
use std::alloc::Layout;
use std::panic::AssertUnwindSafe;

/// Allocates and frees `bytes` bytes of a heap of its own.
fn touch(heap: &SmallocGlobal, bytes: usize) {
    let block = heap.smalloc(Layout::from_size_align(bytes, 8).expect("a layout")).0.expect("there is room");
    // SAFETY: the block is live.
    unsafe { heap.sfree(block) };
}

#[test]
fn a_measurement_has_its_own_peak() {
    let heap = SmallocGlobal::<Indexed>::with_region_size(1 << 20);
    let kept = heap.smalloc(Layout::new::<[u8; 1024]>()).0.expect("there is room");
    touch(&heap, 64 << 10);
    let (value, measured) = heap.measure(|| {
        touch(&heap, 4 << 10);
        7
    });
    assert_eq!(value, 7);
    assert_eq!(
        (measured.used_bytes_before, measured.peak_used_bytes, measured.peak_top),
        (1 << 10, 5 << 10, 5 << 10)
    );
    assert_eq!((measured.peak_growth(), measured.delta.allocs, measured.delta.frees), (4 << 10, 1, 1));
    assert_eq!((measured.delta.used_bytes, measured.delta.live_segments), (0, 0));
    assert_eq!(
        measured.to_string().lines().next(),
        Some("  peak        used 5 KiB, which is 4 KiB above the 1 KiB before, top 5 KiB")
    );
    // The earlier peak stays the peak of the heap until it is reset.
    assert_eq!((heap.stats().peak_used_bytes, heap.stats().peak_top), (65 << 10, 65 << 10));
    heap.reset_peaks();
    assert_eq!((heap.stats().peak_used_bytes, heap.stats().peak_top), (1 << 10, 1 << 10));
    // SAFETY: the block is live.
    unsafe { heap.sfree(kept) };
    assert_eq!(heap.measure(|| ()).1.peak_used_bytes, 0);
}

#[test]
fn measurements_nest_and_a_reset_or_panic_within_one_leaves_it_its_peak() {
    let heap = SmallocGlobal::<Indexed>::with_region_size(1 << 20);
    let ((inner, late), outer) = heap.measure(|| {
        touch(&heap, 8 << 10);
        let ((), inner) = heap.measure(|| touch(&heap, 2 << 10));
        heap.reset_peaks();
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| heap.measure(|| panic!("within one"))));
        assert!(panicked.is_err());
        (inner, heap.measure(|| touch(&heap, 1 << 10)).1)
    });
    assert_eq!([outer, inner, late].map(|measured| measured.peak_used_bytes), [8 << 10, 2 << 10, 1 << 10]);
    assert_eq!(heap.stats().peak_used_bytes, 1 << 10);
}

#[test]
fn the_seventeenth_measurement_may_report_too_high_a_peak() {
    let heap = SmallocGlobal::<Indexed>::with_region_size(1 << 20);
    fn nest(heap: &SmallocGlobal, depth: usize, peaks: &mut Vec<usize>) {
        let ((), measured) = heap.measure(|| {
            touch(heap, (100 - depth) << 10);
            if depth < 19 {
                nest(heap, depth + 1, peaks);
            }
        });
        peaks.push(measured.peak_used_bytes);
    }
    let mut peaks = Vec::with_capacity(20);
    nest(&heap, 0, &mut peaks);
    peaks.reverse();
    let exact: Vec<usize> = (0..20).map(|depth| (100 - depth) << 10).collect();
    assert_eq!(peaks[..16], exact[..16]);
    assert_eq!(peaks[16..], [exact[15]; 4]);
    // All measurements have ended, so the next ones have a place of their own again.
    assert_eq!(heap.measure(|| touch(&heap, 1 << 10)).1.peak_used_bytes, 1 << 10);
}
