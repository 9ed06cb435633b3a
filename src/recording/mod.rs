//! Recordings: every call on a heap, in order, in a file. This module documents the format and reads it.
//!
//! [`SmallocGlobal::record_to`](crate::SmallocGlobal::record_to) starts a recording, as does the environment variable
//! `SMALLOC_RECORD` from the first allocation on. A program that makes the same calls on a heap of the same size gets
//! the same offsets and, with the same list, the same hops: `smalloc replay` replays a recording and compares.
//!
//! # The format, versions 1 and 2
//!
//! A head of 64 bytes is followed by records of 32 bytes, in the order in which the heap served the calls. All numbers
//! are little-endian.
//!
//! | head: bytes | content |
//! |---|---|
//! | 0 to 7 | [`MAGIC`] |
//! | 8 to 11 | version of the format: 2 if there may be records of call sites, otherwise 1 |
//! | 12 to 15 | bytes per record, 32 |
//! | 16 to 19 | bytes per granule, 16: the unit of offsets |
//! | 20 to 23 | flags: bit 0 is set if the heap was built with the feature `hardened` |
//! | 24 to 27 | how the recording ended: 0 with the process or not yet, 1 stopped, 2 no room for the next record |
//! | 28 to 31 | number of regions |
//! | 32 to 39 | bytes per region |
//! | 40 to 47 | number of all records, if the recording ended before the process |
//! | 48 to 63 | name of the free list, padded with zeros |
//!
//! | record: bytes | content |
//! |---|---|
//! | 0 | the call, by its number below; 0 ends the recording |
//! | 1 | log2 of the layout's alignment |
//! | 2 to 3 | number of the region |
//! | 4 to 7 | thread number of the system |
//! | 8 to 15 | bytes: of the layout, the new size for `realloc`, the segment's size for 5 and 8, the limit for 9 |
//! | 16 to 19 | offset of the payload in granules; all ones for 9 and for refused requests |
//! | 20 to 23 | the old offset for `realloc`; otherwise all ones |
//! | 24 to 27 | free segments that the search stepped over |
//! | 28 to 31 | index nodes that the search probed |
//!
//! The calls are 1 `alloc`, 2 `alloc_zeroed`, 3 `smalloc`, 4 `dealloc`, 5 `sfree`, 6 `realloc`, 7 the end of a
//! `realloc` that moved, 8 a segment that was in use when the recording began, and 9 `set_limit`.
//!
//! A `realloc` with two equal offsets was in place. One that moves takes two records: it is placed (6), then the
//! payload is copied while other threads may call, then the old place is freed (7).
//!
//! # Call sites
//!
//! A program built with the feature `sites` writes recordings of version 2. Further records then tell which code made
//! the calls, in bytes 0 to 31; all other bytes are 0. [`Line`] decodes every record.
//!
//! | record | bytes | content |
//! |---|---|---|
//! | 10, interval | 8 to 15 | from now on the stack is taken of one request in so many bytes: 1 is all, 0 is none |
//! | 11, object | 2 to 3, 4 to 7 | bytes of the build ID and of the path of the program or a library |
//! | | 8 to 15 | difference between addresses in memory and in the file |
//! | | 16 to 31 | first address in memory, and the address behind the last one |
//! | 12, text | 8 to 31 | the next 24 bytes of the build ID and the path of the object before, filled up with zeros |
//! | 13, frame | 4 to 7, 8 to 15 | number of the caller's frame, 0 for none, and the address to which this one returns |
//! | 14, stack | 4 to 7 | the next record's call was made with this frame as the innermost one |
//!
//! Frames are numbered from 1 on in the order of their records; each stands behind its caller. At most 32 frames of a
//! stack are kept, the innermost. They include those of the allocator.
//!
//! A process that ends without stopping the recording leaves up to 1 MiB of zeros behind the last record.
//!
//! ```
//! use smalloc::SmallocGlobal;
//! use smalloc::recording::{Call, Head, Line};
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
//! let mut calls = records.iter().filter_map(|record| match Line::from_bytes(record) {
//!     Ok(Some(Line::Call(call))) => Some(call),
//!     _ => None,
//! });
//! let first = calls.next().unwrap();
//! assert_eq!((first.call, first.size, first.offset), (Call::Smalloc, 100, status.payload_offset));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod format;
mod line;
mod recorder;

pub use format::{Call, End, FormatError, HEAD_BYTES, Head, MAGIC, RECORD_BYTES, Record};
pub use line::{Line, Object, TEXT_BYTES};
pub use recorder::{RecordError, Recorded};
pub(crate) use recorder::{Recorder, create, from_environment};
