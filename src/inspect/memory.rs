//! The memory of a process: the bytes that are in RAM, not those that are reserved.

use super::human::Bytes;
use super::number::wide;
use core::fmt;

/// Bytes of a heap and its process that are in RAM, as the system counts them.
///
/// ```text
/// in_use() + kept + bookkeeping == heap()
/// heap() + elsewhere()          == process       (unless the process's number is stale)
/// ```
///
/// The system counts a process in batches, so `process` may lag behind by some hundred KiB.
///
/// ```
/// use core::alloc::Layout;
///
/// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 26)?;
/// let block = heap.alloc(Layout::new::<[u8; 1 << 20]>());
/// unsafe { block.write_bytes(1, 1 << 20) };
/// let memory = heap.memory();
/// assert_eq!((memory.in_use(), memory.kept), (1 << 20, 0));
/// println!("{memory}");
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Bytes of the region.
    pub region: usize,
    /// Those of them in whole pages of free segments: kept for the next requests until a purge, or
    /// [`trim`](crate::SmallocGlobal::trim), returns them.
    pub kept: usize,
    /// Bytes of the bookkeeping beside the region.
    pub bookkeeping: usize,
    /// Bytes of the whole process; 0 if the system does not tell.
    pub process: usize,
}

impl Memory {
    /// Bytes of the region in pages that hold a part of a segment in use.
    #[must_use]
    pub const fn in_use(&self) -> usize {
        self.region.saturating_sub(self.kept)
    }

    /// Bytes of the region and its bookkeeping.
    #[must_use]
    pub const fn heap(&self) -> usize {
        self.region.saturating_add(self.bookkeeping)
    }

    /// Bytes of the process outside the heap: code, stacks, other allocators.
    #[must_use]
    pub const fn elsewhere(&self) -> usize {
        self.process.saturating_sub(self.heap())
    }

    /// The sum of two heaps of one process.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            region: self.region.saturating_add(other.region),
            kept: self.kept.saturating_add(other.kept),
            bookkeeping: self.bookkeeping.saturating_add(other.bookkeeping),
            process: self.process.max(other.process),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes| Bytes(wide(bytes));
        writeln!(
            f,
            "resident      {} of the process, {} of the heap",
            size(self.process),
            size(self.heap())
        )?;
        writeln!(f, "  in use      {}", size(self.in_use()))?;
        writeln!(f, "  kept        {}, free", size(self.kept))?;
        writeln!(f, "  bookkeeping {}", size(self.bookkeeping))?;
        write!(f, "  elsewhere   {}", size(self.elsewhere()))
    }
}
