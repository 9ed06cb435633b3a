//! The bytes of a shared heap that are in RAM.

use super::SmallocGlobal;
use crate::free_list::FreeList;
use crate::inspect::Memory;
use crate::system::resident::process_resident;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Asks the system which bytes of all regions and of the process are in RAM. Allocates nothing.
    ///
    /// It holds the lock of one region at a time, for about 10 µs for each GiB in use, plus some nanoseconds for each
    /// hole of a page or more.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
    /// HEAP.init()?;
    /// let memory = HEAP.memory();
    /// assert!(memory.process >= memory.heap());
    /// println!("{memory}");
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    #[must_use]
    pub fn memory(&self) -> Memory {
        let regions = (0..REGIONS).fold(Memory::default(), |sum, region| {
            let held = self.enter_slow(region);
            sum.plus(&held.guard.heap.resident())
        });
        Memory { process: process_resident(), ..regions }
    }
}
