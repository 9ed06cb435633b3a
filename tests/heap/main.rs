//! Exact cases of the heap, on both free lists: offsets, hops, limits, and the cost of searches.

/// Every function becomes two tests.
macro_rules! on_both_lists {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn linked() {
                super::$name::<smalloc::Linked>();
            }

            #[test]
            fn indexed() {
                super::$name::<smalloc::Indexed>();
            }
        }
    )*};
}

mod alignment;
mod calls;
mod huge;
mod limits;
#[path = "../common/oracle.rs"]
mod oracle;
mod placement;
mod realloc;
mod search;
mod table;
mod zeroed;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// The region of most cases: 4096 granules, 64 chunks.
const REGION: usize = 64 * KIB;
