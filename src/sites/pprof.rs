//! Profiles in the format of `pprof`: messages of Protocol Buffers, as `profile.proto` of that project describes them.
//!
//! The length of a message stands before it. It is found by writing the message once to a sink that only counts.

use super::report::{Site, Sites};

/// A place for bytes.
type Sink<'a> = &'a mut dyn FnMut(&[u8]);

/// All texts of a profile but those of objects, by their indexes. The first is empty, as the format demands.
const TEXTS: [&[u8]; 9] = [
    b"",
    b"alloc_objects",
    b"count",
    b"alloc_space",
    b"bytes",
    b"inuse_objects",
    b"inuse_space",
    b"space",
    DROPPED,
];
const COUNT: u64 = 2;
const BYTES: u64 = 4;
const INUSE_SPACE: u64 = 6;
const SPACE: u64 = 7;
const DROPPED_TEXT: u64 = 8;
/// Type and unit of the values of a sample.
const TYPES: [(u64, u64); 4] = [(1, COUNT), (3, BYTES), (5, COUNT), (INUSE_SPACE, BYTES)];
/// Functions that `pprof` leaves out at the inside of a stack.
const DROPPED: &[u8] =
    br"<?smalloc::.*|__rust_.*|__rdl_.*|__rg_.*|__rustc::.*|alloc::alloc::.*|_R.*7smalloc.*|_ZN7smalloc.*";

/// Numbers of the fields of a profile.
mod profile {
    pub(super) const SAMPLE_TYPE: u64 = 1;
    pub(super) const SAMPLE: u64 = 2;
    pub(super) const MAPPING: u64 = 3;
    pub(super) const LOCATION: u64 = 4;
    pub(super) const STRING_TABLE: u64 = 6;
    pub(super) const DROP_FRAMES: u64 = 7;
    pub(super) const PERIOD_TYPE: u64 = 11;
    pub(super) const PERIOD: u64 = 12;
    pub(super) const DEFAULT_SAMPLE_TYPE: u64 = 14;
}

impl Sites {
    /// Writes a profile in the format of `pprof`, which is not compressed: `write` gets its bytes, piece by piece.
    ///
    /// It has four values for each call stack, `alloc_objects`, `alloc_space`, `inuse_objects` and `inuse_space`, which
    /// is the one shown by default. Functions have no names yet: `pprof` finds them in the program's file and its
    /// libraries, by their paths and build IDs.
    pub fn write_pprof(&self, mut write: impl FnMut(&[u8])) {
        write_profile(self, &mut write);
    }
}

fn write_profile(sites: &Sites, sink: Sink<'_>) {
    for (kind, unit) in TYPES {
        message(profile::SAMPLE_TYPE, sink, &|sink| value_type(kind, unit, sink));
    }
    for site in sites.iter() {
        message(profile::SAMPLE, sink, &|sink| sample(&site, sink));
    }
    for (index, object) in sites.objects().enumerate() {
        message(profile::MAPPING, sink, &|sink| {
            let [path, build_id] = object_texts(index);
            let [start, end, offset] = object.code;
            let numbers = [index as u64 + 1, start, end, offset, path, build_id];
            (1..).zip(numbers).for_each(|(field, number)| integer(field, number, sink));
        });
    }
    for (index, (_, address)) in sites.frames().enumerate() {
        message(profile::LOCATION, sink, &|sink| location(sites, index as u64 + 1, address as u64, sink));
    }
    for text in TEXTS {
        bytes(profile::STRING_TABLE, text, sink);
    }
    for object in sites.objects() {
        bytes(profile::STRING_TABLE, object.path(), sink);
        hexadecimal(object.build_id(), sink);
    }
    integer(profile::DROP_FRAMES, DROPPED_TEXT, sink);
    message(profile::PERIOD_TYPE, sink, &|sink| value_type(SPACE, BYTES, sink));
    integer(profile::PERIOD, sites.interval() as u64, sink);
    integer(profile::DEFAULT_SAMPLE_TYPE, INUSE_SPACE, sink);
}

/// The indexes of an object's texts: its path and its build ID.
fn object_texts(index: usize) -> [u64; 2] {
    let first = TEXTS.len().saturating_add(index.saturating_mul(2)) as u64;
    [first, first.wrapping_add(1)]
}

fn value_type(kind: u64, unit: u64, sink: Sink<'_>) {
    integer(1, kind, sink);
    integer(2, unit, sink);
}

fn sample(site: &Site<'_>, sink: Sink<'_>) {
    site.numbers().for_each(|frame| integer(1, frame as u64, sink));
    let values = [site.blocks, site.bytes, site.live_blocks, site.live_bytes];
    message(2, sink, &|sink| values.iter().for_each(|&value| varint(value, sink)));
}

/// A frame. An address is that of the call, the last byte of which lies before the address to which it returns.
fn location(sites: &Sites, number: u64, returns_to: u64, sink: Sink<'_>) {
    let address = returns_to.wrapping_sub(1);
    // The last one that contains the address: it may have replaced another.
    let contains = |object: &super::objects::Object| (object.start..object.end).contains(&address);
    let mapping = (1..).zip(sites.objects()).filter(|(_, object)| contains(object)).last();
    integer(1, number, sink);
    integer(2, mapping.map_or(0, |(mapping, _)| mapping), sink);
    integer(3, address, sink);
}

/// A build ID as a text.
fn hexadecimal(build_id: &[u8], sink: Sink<'_>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| DIGITS.get(usize::from(half)).map_or(&b"0"[..], core::slice::from_ref);
    message(profile::STRING_TABLE, sink, &|sink| {
        for byte in build_id {
            sink(digit(byte >> 4));
            sink(digit(byte & 15));
        }
    });
}

/// A field with an integer.
fn integer(field: u64, number: u64, sink: Sink<'_>) {
    varint(field << 3, sink);
    varint(number, sink);
}

/// A field with bytes.
fn bytes(field: u64, bytes: &[u8], sink: Sink<'_>) {
    message(field, sink, &|sink| sink(bytes));
}

/// A field with a message, or with anything else that has a length.
fn message(field: u64, sink: Sink<'_>, write: &dyn Fn(Sink<'_>)) {
    let mut length = 0_u64;
    write(&mut |bytes| length = length.wrapping_add(bytes.len() as u64));
    varint(field << 3 | 2, sink);
    varint(length, sink);
    write(sink);
}

/// Seven bits a byte, the lowest first.
fn varint(mut number: u64, sink: Sink<'_>) {
    while number >= 0x80 {
        sink(&[number as u8 | 0x80]);
        number >>= 7;
    }
    sink(&[number as u8]);
}
