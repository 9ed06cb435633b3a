use super::TABLE;
use crate::SmallocGlobal;
use std::sync::Mutex;

/// A heap may be moved out of its static and dropped elsewhere. Its entry is removed, and that of the next heap in the
/// static stays.
#[test]
fn dropped_heaps_leave_the_table() {
    static PLACE: Mutex<Option<SmallocGlobal>> = Mutex::new(None);
    let place = (&raw const PLACE).addr()..(&raw const PLACE).addr() + size_of_val(&PLACE);
    let entries =
        || TABLE.lock().entries.iter().flatten().filter(|entry| place.contains(&entry.heap.addr())).count();
    let put_in = || {
        let mut heap = PLACE.lock().unwrap();
        let old = heap.replace(SmallocGlobal::with_region_size(1 << 20));
        assert_eq!(heap.as_ref().unwrap().init(), Ok(()));
        old
    };
    put_in();
    assert_eq!(entries(), 1);
    let first = put_in();
    assert_eq!(entries(), 1);
    drop(first);
    assert_eq!(entries(), 1);
    let second = PLACE.lock().unwrap().take();
    drop(second);
    assert_eq!(entries(), 0);
}
