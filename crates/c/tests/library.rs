//! `libsmalloc`: the header, the symbols, the calls, the installation.

mod common;

use common::{assert_success, compile, exists, folder, libraries, package, run, script, text};
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

const SEED: &str =
    "success 1, offset 0, hops 0\nthe next one is 128 bytes behind\ntoo large: null, success 0\nin use: -1\n";

#[test]
fn the_seed_compiles_in_every_language_and_finds_offset_zero() {
    let plain = libraries(false);
    let strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
    for (compiler, language) in
        [("cc", "c99"), ("cc", "c11"), ("cc", "c17"), ("cc", "c2x"), ("c++", "c++17"), ("c++", "c++20")]
    {
        if !exists(compiler) {
            continue;
        }
        let standard = format!("-std={language}");
        let kind = if compiler == "c++" { "c++" } else { "c" };
        let flags = [&strict[..], &[&standard, "-l:libsmalloc.so.0"]].concat();
        let source = if kind == "c++" { "seed.cc" } else { "seed.c" };
        let output = run(&mut Command::new(compile(compiler, source, plain, &flags)));
        assert_success(&output);
        assert_eq!(text(&output.stdout), SEED.repeat(2), "{language}");
    }
}

#[test]
fn heaps_work_from_both_libraries() {
    for library in ["-l:libsmalloc.so.0", "-l:libsmalloc.a"] {
        let output = run(&mut Command::new(compile("cc", "heaps.c", libraries(false), &[library])));
        assert_success(&output);
        assert_eq!(text(&output.stdout), "ok\n");
    }
}

#[test]
fn misuse_ends_the_process_with_a_line() {
    let program = compile("cc", "misuse.c", libraries(false), &["-l:libsmalloc.so.0"]);
    for (argument, line) in [
        ("double free", "double free: "),
        ("interior pointer", "interior pointer: "),
        ("unaligned pointer", "unaligned pointer: "),
        ("foreign pointer", "foreign pointer: "),
        ("wrong layout", "wrong layout: "),
        ("seed", "foreign pointer: "),
    ] {
        let output = run(Command::new(&program).arg(argument));
        let error = text(&output.stderr);
        assert!(
            error.starts_with(&format!("smalloc: {line}")) && error.lines().count() == 1,
            "{argument}: {error}"
        );
        assert_eq!(output.status.signal(), Some(6), "{argument}");
    }
    assert_success(&run(&mut Command::new(&program)));
}

/// The names that a version script exports.
fn exported(script: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(package().join(script)).unwrap();
    let names = text.lines().filter_map(|line| line.trim().strip_suffix(';'));
    names.filter(|name| !["*", "}"].contains(name)).map(str::to_owned).collect()
}

fn symbols(library: &Path) -> BTreeSet<String> {
    let output = run(Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library));
    assert_success(&output);
    text(&output.stdout).lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn libraries_export_what_they_promise_and_nothing_else() {
    let plain = libraries(false);
    assert_eq!(symbols(&plain.join("libsmalloc.so.0")), exported("smalloc.map"));
    assert_eq!(symbols(&plain.join(common::PRELOAD)), exported("preload.map"));
    // A static library must not define `malloc` either.
    let output =
        run(Command::new("nm").args(["--defined-only", "--format=posix"]).arg(plain.join("libsmalloc.a")));
    let defined = text(&output.stdout);
    assert!(defined.contains("\nsmalloc_heap_new T "));
    for name in ["malloc", "free", "calloc", "realloc"] {
        assert!(!defined.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} is defined");
    }
}

#[test]
fn the_header_declares_what_is_exported() {
    let header = std::fs::read_to_string(package().join("include/smalloc.h")).unwrap();
    let code: String = header.split("/*").map(|part| part.split("*/").last().unwrap()).collect();
    let declarations = code.split(';').filter_map(|part| part.split_once('('));
    let named = declarations
        .filter_map(|(before, _)| before.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next());
    let declared: BTreeSet<String> = named.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    assert_eq!(declared, exported("smalloc.map"));
    let manual = std::fs::read_to_string(package().join("man/smalloc.3")).unwrap();
    for name in declared {
        assert!(manual.contains(&format!("{name}(")), "the manual page lacks {name}");
    }
}

#[test]
fn libraries_are_named_and_stay_loaded() {
    for name in ["libsmalloc.so.0", common::PRELOAD] {
        let output = run(Command::new("readelf").args(["-dW"]).arg(libraries(false).join(name)));
        let dynamic = text(&output.stdout);
        assert!(
            dynamic.contains(&format!("Library soname: [{name}]")) && dynamic.contains("NODELETE"),
            "{dynamic}"
        );
    }
}

#[test]
fn an_installation_is_complete() {
    let root = folder(&format!("installed-{}", std::process::id()));
    assert_success(&run(script("install").arg("/opt/smalloc").env("DESTDIR", &root)));
    let files = [
        "lib/libsmalloc.a",
        "lib/libsmalloc.so",
        "lib/libsmalloc.so.0",
        "lib/libsmalloc-preload.so",
        "include/smalloc.h",
        "lib/pkgconfig/smalloc.pc",
        "share/man/man3/smalloc.3",
        "share/man/man7/libsmalloc-preload.7",
    ];
    for file in files {
        assert!(root.join("opt/smalloc").join(file).exists(), "{file} is missing");
    }
    let configuration = std::fs::read_to_string(root.join("opt/smalloc/lib/pkgconfig/smalloc.pc")).unwrap();
    assert!(
        configuration.starts_with("prefix=/opt/smalloc\n") && !configuration.contains('@'),
        "{configuration}"
    );
    let refused = run(script("install").arg("relative"));
    assert_eq!(refused.status.code(), Some(2));
    std::fs::remove_dir_all(root).unwrap();
}
