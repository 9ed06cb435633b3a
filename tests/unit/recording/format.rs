extern crate std;
use super::*;
use std::vec::Vec;

fn bytes<const N: usize>(entries: &[Entry]) -> [u8; N] {
    let bytes: Vec<u8> = entries.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn heads_are_as_documented() {
    let head = Head { end: End::NoRoom, records: 5, ..Head::new("linked", 3, 1 << 40) };
    let written: [u8; HEAD_BYTES] = bytes(&head.to_entries());
    assert_eq!(Head::from_bytes(&written), Ok(head));
    assert_eq!(head.list(), "linked");
    let hardened = u8::from(cfg!(feature = "hardened"));
    let version = if cfg!(feature = "sites") { 2 } else { 1 };
    let expected = [
        &b"\x8fsmalloc"[..],
        &[version, 0, 0, 0, 32, 0, 0, 0, 16, 0, 0, 0, hardened, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
        &[0, 0, 0, 0, 0, 1, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
        b"linked\0\0\0\0\0\0\0\0\0\0",
    ];
    assert_eq!(written[..], expected.concat());
    for (version, sites) in [(1, false), (2, true)] {
        let mut other = written;
        other[8] = version;
        assert_eq!(Head::from_bytes(&other), Ok(Head { sites, ..head }));
    }
    for (at, error) in [(0, FormatError::NoRecording), (8, FormatError::Version(9))] {
        let mut other = written;
        other[at] = 9;
        assert_eq!(Head::from_bytes(&other), Err(error));
    }
}

#[test]
fn records_are_as_documented() {
    let record = Record {
        call: Call::Realloc,
        align: 4096,
        region: 0x0102,
        thread: 0x0304_0506,
        size: 1 << 40,
        offset: None,
        old_offset: Some(0x0708 * GRANULE),
        stepped: 9,
        probes: 10,
    };
    let written: [u8; RECORD_BYTES] = bytes(&[record.to_entry()]);
    let expected = [
        [6, 12, 2, 1, 6, 5, 4, 3, 0, 0, 0, 0, 0, 1, 0, 0],
        [255, 255, 255, 255, 8, 7, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0],
    ];
    assert_eq!(written[..], expected.concat());
    assert_eq!(Record::from_bytes(&written), Ok(Some(record)));
    assert_eq!((record.hops(), Record::from_bytes(&[0; 32])), (19, Ok(None)));
    for call in Call::ALL {
        let written = bytes(&[Record { call, ..record }.to_entry()]);
        assert_eq!(Record::from_bytes(&written).unwrap().unwrap().call, call);
    }
    for (at, value) in [(0, 10), (1, 64)] {
        let mut other = written;
        other[at] = value;
        assert!(Record::from_bytes(&other).is_err());
    }
}
