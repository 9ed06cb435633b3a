//! `libsmalloc-preload.so`: `malloc` and its relatives in programs that were not compiled for it.

mod common;

use common::{PRELOAD, assert_success, compile, exists, folder, libraries, run, text};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

/// A program of `tests/c`, linked to the library: some of its calls are new in C23, and glibc lacks them.
fn linked(compiler: &str, source: &str, hardened: bool) -> Command {
    let library = format!("-l:{PRELOAD}");
    Command::new(compile(
        compiler,
        source,
        libraries(hardened),
        &["-w", &library, if hardened { "-DHARDENED" } else { "-DPLAIN" }],
    ))
}

fn trap(what: &str, hardened: bool) -> Output {
    run(linked("cc", "traps.c", hardened).arg(what))
}

#[test]
fn edge_calls_do_what_the_standards_say() {
    for hardened in [false, true] {
        let output = run(&mut linked("cc", "edge.c", hardened));
        assert_eq!(text(&output.stdout), "0 wrong\n", "hardened: {hardened}");
        let stats = text(&output.stderr);
        assert!(
            stats.starts_with("smalloc heap [") && stats.contains("\n  large blocks 0, bytes 0\n"),
            "{stats}"
        );
    }
}

#[test]
fn operators_throw_and_call_the_new_handler() {
    if exists("c++") {
        for hardened in [false, true] {
            let output = run(&mut linked("c++", "operators.cc", hardened));
            assert_eq!(text(&output.stdout), "0 wrong\n", "{}", text(&output.stderr));
        }
        let mixed = |hardened| run(linked("c++", "operators.cc", hardened).arg("mixed"));
        assert_success(&mixed(false));
        assert_aborts(&mixed(true), "mixed", "wrong operator: ");
    }
}

#[test]
fn calls_before_main_and_after_it() {
    let output = trap("early and late", false);
    assert_success(&output);
    assert_eq!(text(&output.stdout), "early\ndone\nat exit\nlast\n");
}

#[test]
fn threads_with_the_smallest_stack() {
    assert_success(&trap("small stacks", false));
}

#[test]
fn children_of_a_busy_program() {
    assert_success(&trap("children", false));
}

#[test]
fn forks_beside_streams_that_grow() {
    assert_success(&trap("streams", false));
}

#[test]
fn libraries_are_opened_late_and_closed_early() {
    let plain = libraries(false);
    let mut command = Command::new(compile("cc", "late.c", plain, &["-ldl"]));
    let output = run(command.arg(plain.join(PRELOAD)).arg(plain.join("libsmalloc.so.0")));
    assert_success(&output);
    let error = text(&output.stderr);
    assert!(
        error.contains("is a block of the C library's own malloc") && error.lines().count() == 1,
        "{error}"
    );
}

#[test]
fn blocks_of_the_c_library_go_back_to_it() {
    let output = trap("foreign", false);
    assert_success(&output);
    let error = text(&output.stderr);
    assert!(
        error.contains("is a block of the C library's own malloc") && error.lines().count() == 1,
        "{error}"
    );
    let strict = run(linked("cc", "traps.c", false).arg("foreign").env("SMALLOC_STRICT", "1"));
    assert_eq!(strict.status.signal(), Some(6));
    assert!(text(&strict.stderr).starts_with("smalloc: foreign pointer: "));
}

#[test]
fn misuse_ends_the_process_with_a_line() {
    let common = [
        ("stack", "foreign pointer: "),
        ("size", "wrong size: "),
        ("twice", "double free: "),
        ("empty", "double free: "),
    ];
    let hardened = [("overflow", "overflow: "), ("written", "found at exit: F2: freed bytes have changed ")];
    for (what, line) in common {
        for hardened in [false, true] {
            assert_aborts(&trap(what, hardened), what, line);
        }
    }
    for (what, line) in hardened {
        assert_aborts(&trap(what, true), what, line);
        assert_success(&trap(what, false));
    }
    let read = trap("read empty", false);
    assert_eq!(read.status.signal(), Some(11), "a block of no bytes cannot be read");
}

fn assert_aborts(output: &Output, what: &str, line: &str) {
    let error = text(&output.stderr);
    assert!(error.starts_with(&format!("smalloc: {line}")) && error.lines().count() == 1, "{what}: {error}");
    assert_eq!(output.status.signal(), Some(6), "{what}");
}

/// Blocks with mappings of their own do not escape a budget, and a limit of addresses leaves enough for the rest of the
/// program.
#[test]
fn limits_hold() {
    let output = run(linked("cc", "budget.c", false).env("SMALLOC_REGION", "4M"));
    assert_success(&output);
    let preload = libraries(false).join(PRELOAD);
    for kilobytes in [300_000, 1_070_000, 4_000_000] {
        let line = format!("ulimit -v {kilobytes}; LD_PRELOAD={} ls / > /dev/null", preload.display());
        assert_success(&run(Command::new("sh").args(["-c", &line])));
    }
}

#[test]
fn any_program_can_be_recorded() {
    let recording = folder("recordings").join(format!("ls-{}", std::process::id()));
    let mut command = Command::new("ls");
    command.arg("/").env("LD_PRELOAD", libraries(false).join(PRELOAD)).env("SMALLOC_RECORD", &recording);
    assert_success(&run(&mut command));
    let bytes = std::fs::read(&recording).unwrap();
    let (head, records) = bytes.split_first_chunk().unwrap();
    let head = smalloc::recording::Head::from_bytes(head).unwrap();
    assert_eq!((head.list(), head.regions), ("indexed", 8));
    let calls = records
        .as_chunks()
        .0
        .iter()
        .map_while(|record| smalloc::recording::Record::from_bytes(record).ok().flatten());
    let calls: Vec<_> = calls.map(|record| record.call).collect();
    assert!(calls.len() > 20, "{} calls", calls.len());
    assert!(
        calls.contains(&smalloc::recording::Call::Alloc) && calls.contains(&smalloc::recording::Call::Sfree)
    );
    std::fs::remove_file(recording).unwrap();
}

/// Functions that valgrind does not replace must not reach the heap: its blocks would be freed by the wrong allocator.
#[test]
fn valgrind_replaces_it() {
    if exists("valgrind") {
        let mut command = Command::new("valgrind");
        command
            .args(["-q", "--error-exitcode=9", "ls", "-l", "/"])
            .env("LD_PRELOAD", libraries(false).join(PRELOAD));
        assert_success(&run(&mut command));
    }
}
