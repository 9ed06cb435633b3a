use super::*;

#[test]
fn invalid_paths_are_refused() {
    assert_eq!(create(b"a\0b").err(), Some(RecordError::BadPath));
    assert_eq!(create(&[b'a'; 5000]).err(), Some(RecordError::BadPath));
    assert_eq!(create(b"").err(), Some(RecordError::System { errno: libc::ENOENT }));
    assert_eq!(create(b"/").err(), Some(RecordError::System { errno: libc::EISDIR }));
    assert_eq!(create(b"/dev/null").err(), Some(RecordError::System { errno: libc::EINVAL }));
}
