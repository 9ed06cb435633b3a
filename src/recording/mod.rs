//! Recordings: every call on a heap, in order, in a file. The format, and how to read it.
//!
//! [`SmallocGlobal::record_to`](crate::SmallocGlobal::record_to) makes one, and so does the environment variable
//! `SMALLOC_RECORD`, from the first allocation on. A program that makes the same calls on a heap of the same size gets
//! the same offsets, and with the same list the same hops: `smalloc replay` does that and compares.
//!
//! # The format, version 1
//!
//! A head of 64 bytes, then records of 32 bytes, in the order in which the heap served the calls. All numbers are
//! little-endian.
//!
//! | head: bytes | what |
//! |---|---|
//! | 0 to 7 | [`MAGIC`] |
//! | 8 to 11 | the version of the format, 1 |
//! | 12 to 15 | bytes of a record, 32 |
//! | 16 to 19 | bytes of a granule, 16: the unit of offsets |
//! | 20 to 23 | flags: bit 0 is set if the heap was built with the feature `hardened` |
//! | 24 to 27 | how it ended: 0 with the process or not yet, 1 it was stopped, 2 there was no room for the next record |
//! | 28 to 31 | how many regions there are |
//! | 32 to 39 | bytes of a region |
//! | 40 to 47 | how many records there are, if the recording was ended before the process |
//! | 48 to 63 | the name of the free list, filled up with zeros |
//!
//! | record: bytes | what |
//! |---|---|
//! | 0 | the call: 1 `alloc`, 2 `alloc_zeroed`, 3 `smalloc`, 4 `dealloc`, 5 `sfree`, 6 `realloc`, 7 the end of a `realloc` that moved, 8 a segment that was in use when the recording began, 9 `set_limit`; 0 ends the recording |
//! | 1 | the alignment of the layout, as a power of two |
//! | 2 to 3 | the number of the region |
//! | 4 to 7 | the thread, by the system's number |
//! | 8 to 15 | the size in bytes: that of the layout, or the new one of a `realloc`; for 5 and 8 that of the segment, for 9 the limit |
//! | 16 to 19 | the offset of the payload in granules; all ones if the request was refused, and for 9 |
//! | 20 to 23 | for `realloc`, the offset before; else all ones |
//! | 24 to 27 | free segments that the search stepped over |
//! | 28 to 31 | nodes of the index that it looked at |
//!
//! A `realloc` is in place if both its offsets are the same. One that moves takes two turns: first the new place is
//! found (6), then the payload is copied, while other threads may call, and then the old place is freed (7).
//!
//! A process that ends without stopping the recording leaves up to a mebibyte of zeros behind the last record.
//!
//! ```
//! use smalloc::SmallocGlobal;
//! use smalloc::recording::{Call, Head, Record};
//! use std::alloc::Layout;
//!
//! static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
//! let path = std::env::temp_dir().join(format!("smalloc-doc-{}", std::process::id()));
//!
//! HEAP.record_to(path.to_str().unwrap())?;
//! let (block, status) = HEAP.smalloc(Layout::new::<[u8; 100]>());
//! unsafe { HEAP.sfree(block.unwrap()) };
//! assert!(HEAP.stop_recording().is_some_and(|recorded| recorded.records == 2 && recorded.complete));
//!
//! let file = std::fs::read(&path)?;
//! # std::fs::remove_file(&path)?;
//! let (head, records) = file.split_first_chunk().unwrap();
//! assert_eq!(Head::from_bytes(head)?.region_size, 1 << 20);
//! let (records, _) = records.as_chunks();
//! let first = Record::from_bytes(&records[0])?.unwrap();
//! assert_eq!((first.call, first.size, first.offset), (Call::Smalloc, 100, status.payload_offset));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod format;
mod recorder;

pub use format::{Call, End, FormatError, HEAD_BYTES, Head, MAGIC, RECORD_BYTES, Record};
pub use recorder::{RecordError, Recorded};
pub(crate) use recorder::{Recorder, create, from_environment};
