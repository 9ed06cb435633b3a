extern crate std;
use super::super::format::Call;
use super::*;
use std::vec::Vec;

fn bytes(line: Line) -> [u8; RECORD_BYTES] {
    let bytes: Vec<u8> = line.to_entry().iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn lines_are_as_documented() {
    let object = Object { base: 1, start: 2, end: 3, build_id_bytes: 20, path_bytes: 0x0102_0304 };
    let text = *b"/usr/lib/a/library.so.6\0";
    let lines: [(Line, &[u8]); 5] = [
        (Line::Interval { bytes: 0x0102 }, &[10, 0, 0, 0, 0, 0, 0, 0, 2, 1]),
        (Line::Object(object), &[11, 0, 20, 0, 4, 3, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2]),
        (Line::Text(text), b"\x0c\0\0\0\0\0\0\0/usr/lib/a/library.so.6"),
        (Line::Frame { caller: 7, address: 0x0203 }, &[13, 0, 0, 0, 7, 0, 0, 0, 3, 2]),
        (Line::Stack { frame: 8 }, &[14, 0, 0, 0, 8]),
    ];
    for (line, start) in lines {
        let written = bytes(line);
        assert!(written.starts_with(start), "{line:?}: {written:?}");
        assert_eq!(Line::from_bytes(&written), Ok(Some(line)));
        assert!(Record::from_bytes(&written).is_err(), "it is no call");
    }
    let call = Line::Call(Record::new(Call::Alloc, 100, Some(16)));
    assert_eq!(Line::from_bytes(&bytes(call)), Ok(Some(call)));
    assert_eq!(Line::from_bytes(&[0; RECORD_BYTES]), Ok(None));
    assert_eq!(Line::from_bytes(&[15; RECORD_BYTES]), Err(FormatError::Call(15)));
}
