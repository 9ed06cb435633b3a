use super::parse_size;

#[test]
fn sizes() {
    assert_eq!(parse_size("4096"), Some(4096));
    assert_eq!(parse_size("64K"), Some(64 << 10));
    assert_eq!(parse_size("3m"), Some(3 << 20));
    assert_eq!(parse_size("2G"), Some(2 << 30));
    for bad in ["", "K", "0", "12Q", "-1", "1.5G", "1 G", "99999999999G"] {
        assert_eq!(parse_size(bad), None, "{bad:?}");
    }
}
