extern crate std;
use super::*;
use std::path::Path;
use std::vec::Vec;

#[test]
fn the_program_is_found() {
    find_objects(&Stack::take(0));
    let all: Vec<Object> = objects(0).collect();
    let code = the_program_is_found as fn() as usize as u64;
    let program = all.iter().find(|object| (object.start..object.end).contains(&code)).expect("it is loaded");
    let path = core::str::from_utf8(program.path()).unwrap();
    assert_eq!(Path::new(path), std::env::current_exe().unwrap());
    assert!(is_known(code) && program.base <= program.start);
    ask_loader();
    assert_eq!(objects(0).count(), all.len(), "none is found twice");
    assert_eq!(objects(all.len() - 1).count(), 1);
    let libc = all.iter().find(|object| object.path().windows(7).any(|part| part == b"libc.so"));
    if cfg!(target_env = "gnu") {
        assert!(libc.is_some_and(|libc| libc.build_id().len() >= 16));
    }
}

#[test]
fn long_paths_are_left_out() {
    assert_eq!(bytes::<4>(b"abc"), (*b"abc\0", 3));
    assert_eq!(bytes::<4>(b"abcde"), ([0; 4], 0));
}
