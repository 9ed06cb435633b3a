use super::HEAPS;
use crate::SmallocGlobal;
use core::sync::atomic::Ordering;
use std::sync::Mutex;

/// A heap that is dropped in a static leaves the table, so that a debugger does not follow its addresses.
#[test]
fn dropped_heaps_leave_the_table() {
    static PLACE: Mutex<Option<SmallocGlobal>> = Mutex::new(None);
    let place = (&raw const PLACE).addr()..(&raw const PLACE).addr() + size_of_val(&PLACE);
    let listed =
        || HEAPS.entries.iter().filter(|entry| place.contains(&entry.0[0].load(Ordering::Relaxed))).count();
    for _ in 0..3 {
        let mut heap = PLACE.lock().unwrap();
        assert_eq!(heap.insert(SmallocGlobal::with_region_size(1 << 20)).init(), Ok(()));
        assert_eq!(listed(), 1);
        *heap = None;
        assert_eq!(listed(), 0);
    }
}
