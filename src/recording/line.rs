//! Encoding and decoding of the records that tell call sites.

use super::format::{FormatError, RECORD_BYTES, Record};
use crate::system::append_file::Entry;

/// Numbers of the records that are no calls.
const INTERVAL: u8 = 10;
const OBJECT: u8 = 11;
const TEXT: u8 = 12;
const FRAME: u8 = 13;
const STACK: u8 = 14;

/// Bytes of a text in one record.
pub const TEXT_BYTES: usize = 24;

/// A record of any kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// A call.
    Call(Record),
    /// From now on the call stack is taken of one request in so many bytes on average: 1 is every request, 0 is none.
    Interval {
        /// Bytes.
        bytes: u64,
    },
    /// A loaded object: the program or a library. Its build ID and its path follow, one behind the other, in as many
    /// [`Text`](Self::Text) records as they need.
    Object(Object),
    /// The next bytes of a build ID and a path, filled up with zeros.
    Text([u8; TEXT_BYTES]),
    /// A call frame. Frames are numbered from 1 on, in the order of their records.
    Frame {
        /// The number of the caller's frame, 0 for none. It is an earlier one.
        caller: u32,
        /// The address to which the frame returns.
        address: u64,
    },
    /// The next record is of a call that was made with this call stack.
    Stack {
        /// The number of the innermost frame.
        frame: u32,
    },
}

/// A loaded object in the address space of the recorded process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Object {
    /// The difference between addresses in memory and in the file.
    pub base: u64,
    /// The first address.
    pub start: u64,
    /// The address behind the last one.
    pub end: u64,
    /// Bytes of the build ID; 0 if the object has none.
    pub build_id_bytes: usize,
    /// Bytes of the path.
    pub path_bytes: usize,
}

impl Line {
    /// Decodes a record of any kind. None at the end of the recording.
    ///
    /// # Errors
    /// The bytes are not a record.
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Result<Option<Self>, FormatError> {
        let mut words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or(0);
        let (first, second, third, fourth) = (word(), word(), word(), word());
        Ok(Some(match first as u8 {
            INTERVAL => Self::Interval { bytes: second },
            OBJECT => Self::Object(Object {
                base: second,
                start: third,
                end: fourth,
                build_id_bytes: (first >> 16) as u16 as usize,
                path_bytes: (first >> 32) as usize,
            }),
            TEXT => {
                let [_, text @ ..] = bytes.as_chunks::<8>().0 else { return Ok(None) };
                let mut all = [0; TEXT_BYTES];
                all.iter_mut().zip(text.as_flattened()).for_each(|(to, &from)| *to = from);
                Self::Text(all)
            }
            FRAME => Self::Frame { caller: (first >> 32) as u32, address: second },
            STACK => Self::Stack { frame: (first >> 32) as u32 },
            _ => return Ok(Record::from_bytes(bytes)?.map(Self::Call)),
        }))
    }

    pub(crate) fn to_entry(self) -> Entry {
        let numbered = |kind: u8, number: u32| u64::from(kind) | u64::from(number) << 32;
        match self {
            Self::Call(record) => record.to_entry(),
            Self::Interval { bytes } => [INTERVAL.into(), bytes, 0, 0],
            Self::Object(Object { base, start, end, build_id_bytes, path_bytes }) => {
                let build_id = u64::from(build_id_bytes as u16) << 16;
                [numbered(OBJECT, path_bytes as u32) | build_id, base, start, end]
            }
            Self::Text(text) => {
                let mut words = text.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
                let mut word = || words.next().unwrap_or(0);
                [TEXT.into(), word(), word(), word()]
            }
            Self::Frame { caller, address } => [numbered(FRAME, caller), address, 0, 0],
            Self::Stack { frame } => [numbered(STACK, frame), 0, 0, 0],
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/recording/line.rs"]
mod tests;
