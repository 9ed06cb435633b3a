//! Encoding and decoding of heads and records.

use crate::region::GRANULE;
use crate::system::append_file::Entry;
use core::fmt;

/// The first bytes of a recording. The first byte is not ASCII, so no text file starts with them.
pub const MAGIC: [u8; 8] = *b"\x8fsmalloc";
/// Bytes of the head.
pub const HEAD_BYTES: usize = 64;
/// Bytes of a record.
pub const RECORD_BYTES: usize = 32;

/// The version of a recording of calls alone.
const VERSION: u32 = 1;
/// The version of a recording that may have [call sites](super::Line) too. This library reads both.
const VERSION_WITH_SITES: u32 = 2;
/// Flag of a heap built with the feature `hardened`.
const HARDENED: u32 = 1;
/// Bytes reserved for the name of the list.
const NAME_BYTES: usize = 16;
/// The encoded offset of a record that has none.
const NO_OFFSET: u32 = u32::MAX;

const _: () = assert!(RECORD_BYTES == size_of::<Entry>() && HEAD_BYTES == 2 * RECORD_BYTES);

/// The way in which a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Not ended yet, or with the process.
    Open,
    /// Stopped by the program.
    Stopped,
    /// Ended because there was no room for the next record. Later calls are missing.
    NoRoom,
}

/// The head of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Head {
    /// Whether the heap was built with the feature `hardened`, which changes placement.
    pub hardened: bool,
    /// The end of the recording.
    pub end: End,
    /// The number of regions.
    pub regions: u32,
    /// The size of a region in bytes.
    pub region_size: usize,
    /// The number of records, those of call sites included; 0 if the recording is [`End::Open`].
    pub records: u64,
    /// Whether the recording may have records of call sites.
    pub sites: bool,
    name: [u8; NAME_BYTES],
}

impl Head {
    pub(crate) const NONE: Self = Self {
        hardened: cfg!(feature = "hardened"),
        end: End::Open,
        regions: 1,
        region_size: 0,
        records: 0,
        sites: cfg!(feature = "sites"),
        name: [0; NAME_BYTES],
    };

    /// The head of a new recording.
    pub(crate) fn new(list: &str, regions: u32, region_size: usize) -> Self {
        let mut head = Self { regions, region_size, ..Self::NONE };
        head.name.iter_mut().zip(list.bytes()).for_each(|(to, from)| *to = from);
        head
    }

    /// The name of the free list: `linked` or `indexed`.
    #[must_use]
    pub fn list(&self) -> &str {
        let name = self.name.split(|&byte| byte == 0).next().unwrap_or_default();
        core::str::from_utf8(name).unwrap_or_default()
    }

    pub(crate) fn ended(self, end: End, records: u64) -> Self {
        Self { end, records, ..self }
    }

    pub(crate) fn to_entries(self) -> [Entry; 2] {
        let end = match self.end {
            End::Open => 0,
            End::Stopped => 1,
            End::NoRoom => 2,
        };
        let flags = if self.hardened { HARDENED } else { 0 };
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let name = u128::from_le_bytes(self.name);
        [
            [
                u64::from_le_bytes(MAGIC),
                pair(if self.sites { VERSION_WITH_SITES } else { VERSION }, RECORD_BYTES as u32),
                pair(GRANULE as u32, flags),
                pair(end, self.regions),
            ],
            [self.region_size as u64, self.records, name as u64, (name >> 64) as u64],
        ]
    }

    /// Decodes a head.
    ///
    /// # Errors
    /// The bytes are not a head, or one of another version.
    pub fn from_bytes(bytes: &[u8; HEAD_BYTES]) -> Result<Self, FormatError> {
        let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or(0);
        let halves = |word: u64| (word as u32, (word >> 32) as u32);
        if word() != u64::from_le_bytes(MAGIC) {
            return Err(FormatError::NoRecording);
        }
        let (version, record) = halves(word());
        let (granule, flags) = halves(word());
        let sites = version == VERSION_WITH_SITES;
        if !(sites || version == VERSION) || (record, granule) != (RECORD_BYTES as u32, GRANULE as u32) {
            return Err(FormatError::Version(version));
        }
        let (end, regions) = halves(word());
        let end = match end {
            0 => End::Open,
            1 => End::Stopped,
            2 => End::NoRoom,
            _ => return Err(FormatError::End(end)),
        };
        let (region_size, records) = (word() as usize, word());
        let name = (u128::from(word()) | u128::from(word()) << 64).to_le_bytes();
        Ok(Self { hardened: flags & HARDENED != 0, end, regions, region_size, records, sites, name })
    }
}

/// The kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Call {
    /// `GlobalAlloc::alloc`.
    Alloc = 1,
    /// `GlobalAlloc::alloc_zeroed`.
    AllocZeroed = 2,
    /// `SmallocGlobal::smalloc`.
    Smalloc = 3,
    /// `GlobalAlloc::dealloc`.
    Dealloc = 4,
    /// `SmallocGlobal::sfree`.
    Sfree = 5,
    /// `GlobalAlloc::realloc`: in place, moved or refused.
    Realloc = 6,
    /// The free of the old place after a `realloc` that moved.
    MovedFrom = 7,
    /// Not a call: a segment that was in use when the recording began.
    Held = 8,
    /// `SmallocGlobal::set_limit`, or the limit that was set when the recording began.
    Limit = 9,
}

impl Call {
    const ALL: [Self; 9] = [
        Self::Alloc,
        Self::AllocZeroed,
        Self::Smalloc,
        Self::Dealloc,
        Self::Sfree,
        Self::Realloc,
        Self::MovedFrom,
        Self::Held,
        Self::Limit,
    ];
}

/// A call and its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Record {
    /// The kind of call.
    pub call: Call,
    /// The alignment of the layout in bytes; 1 without a layout.
    pub align: usize,
    /// The number of the region.
    pub region: u16,
    /// The system's number of the thread.
    pub thread: u32,
    /// Bytes requested or, for a free, of the layout; without a layout, of the segment; for a limit, the limit.
    pub size: usize,
    /// The payload's offset from the region's base, in bytes. None if the request was refused.
    pub offset: Option<usize>,
    /// The payload's offset before a `realloc`, in bytes. None for other calls.
    pub old_offset: Option<usize>,
    /// Free segments that the search stepped over.
    pub stepped: u32,
    /// Index nodes that the search probed.
    pub probes: u32,
}

impl Record {
    pub(crate) const fn new(call: Call, size: usize, offset: Option<usize>) -> Self {
        Self { call, align: 1, region: 0, thread: 0, size, offset, old_offset: None, stepped: 0, probes: 0 }
    }

    pub(crate) fn to_entry(self) -> Entry {
        let align = u64::from(self.align.trailing_zeros());
        let (region, thread) = (u64::from(self.region), u64::from(self.thread));
        let granules = |offset: Option<usize>| offset.map_or(NO_OFFSET, |offset| (offset / GRANULE) as u32);
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            self.call as u64 | align << 8 | region << 16 | thread << 32,
            self.size as u64,
            pair(granules(self.offset), granules(self.old_offset)),
            pair(self.stepped, self.probes),
        ]
    }

    /// Decodes a record of a call. None at the end of the recording.
    ///
    /// # Errors
    /// The bytes are not a record, or one of call sites, which [`Line`](super::Line) decodes too.
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Result<Option<Self>, FormatError> {
        let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or(0);
        let offset = |granules: u32| (granules != NO_OFFSET).then_some(granules as usize * GRANULE);
        let (first, size, offsets, hops) = (word(), word(), word(), word());
        let call = first as u8;
        if call == 0 {
            return Ok(None);
        }
        let known = Call::ALL.into_iter().find(|&known| known as u8 == call);
        let align = 1_usize.checked_shl((first >> 8) as u8 as u32);
        let (Some(call), Some(align)) = (known, align) else { return Err(FormatError::Call(call)) };
        Ok(Some(Self {
            call,
            align,
            region: (first >> 16) as u16,
            thread: (first >> 32) as u32,
            size: size as usize,
            offset: offset(offsets as u32),
            old_offset: offset((offsets >> 32) as u32),
            stepped: hops as u32,
            probes: (hops >> 32) as u32,
        }))
    }

    /// Steps of the search beyond its first look: `stepped + probes`.
    #[must_use]
    pub const fn hops(&self) -> usize {
        self.stepped as usize + self.probes as usize
    }
}

/// The bytes are not a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// The first bytes are not [`MAGIC`].
    NoRecording,
    /// The format has this version, which this library cannot read.
    Version(u32),
    /// The number in the head for how the recording ended is unknown.
    End(u32),
    /// The number of the call is unknown, or its alignment is not valid.
    Call(u8),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecording => f.write_str("not a recording of smalloc"),
            Self::Version(version) => {
                write!(
                    f,
                    "format version {version} is not supported, only {VERSION} and {VERSION_WITH_SITES}"
                )
            }
            Self::End(end) => write!(f, "damaged: unknown end {end}"),
            Self::Call(call) => write!(f, "damaged: call {call} is unknown, or its alignment is invalid"),
        }
    }
}

impl core::error::Error for FormatError {}

#[cfg(test)]
#[path = "../../tests/unit/recording/format.rs"]
mod tests;
