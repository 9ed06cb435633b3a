extern crate std;
use super::*;
use std::format;

#[test]
fn percent_p_becomes_the_process_id() {
    let process = std::process::id();
    for (text, path) in [
        ("plain", "plain".into()),
        ("run-%p.rec", format!("run-{process}.rec")),
        ("%p%p%", format!("{process}{process}%")),
        ("%q%%p", format!("%q%{process}")),
        ("", "".into()),
    ] {
        let expanded = Path::with_process(text.as_bytes());
        assert_eq!(expanded.as_c().unwrap().to_bytes(), path.as_bytes(), "{text}");
    }
}

#[test]
fn invalid_paths_are_none() {
    assert!(Path::new(b"a\0b").as_c().is_none());
    assert!(Path::new(&[b'a'; BYTES]).as_c().is_none());
    assert!(Path::with_process(&[b'%'; BYTES]).as_c().is_none());
    assert_eq!(Path::new(&[b'a'; BYTES - 1]).as_c().unwrap().count_bytes(), BYTES - 1);
}
