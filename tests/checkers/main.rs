//! AddressSanitizer, ThreadSanitizer and valgrind on a program that uses the heap: they find every fault in
//! `program.rs`, and nothing in its correct parts.
//!
//!     cargo test --test checkers -- --ignored
//!
//! takes valgrind and a nightly Rust, since the sanitizers are options of the nightly compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MANIFEST: &str = r#"
[package]
name = "checked"
version = "0.0.0"
edition = "2024"

[workspace]

[features]
asan = ["smalloc-global/asan"]
valgrind = ["smalloc-global/valgrind"]

[dependencies]
smalloc-global = { path = "LIBRARY" }

[profile.release]
debug = true
"#;

/// Builds the program as the name says, and returns its path.
fn build(name: &str, toolchain: &str, features: &str, flags: &str) -> PathBuf {
    let library = env!("CARGO_MANIFEST_DIR");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checked").join(name);
    fs::create_dir_all(folder.join("src")).expect("the folder can be made");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("the file can be written");
    write("Cargo.toml", &MANIFEST.replace("LIBRARY", library));
    write("src/main.rs", include_str!("program.rs"));
    let locked = fs::read_to_string(Path::new(library).join("Cargo.lock"));
    // Uses the lock file that this test was built with. Cargo drops the packages that the program does not need.
    write("Cargo.lock", &locked.unwrap_or_default());
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new("cargo");
    command
        // With a target, the flags do not reach build scripts and procedural macros.
        .args([toolchain, "build", "--release", "--quiet", "--offline", "--target", &target])
        .args(["--features", features])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("RUSTFLAGS", flags);
    // `cargo test` sets these variables for the toolchain that it runs with.
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(name);
    }
    let built = command.output().expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    folder.join("target").join(target).join("release/checked")
}

/// The program succeeded, and the checker reported nothing.
fn assert_silent(output: &Output) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{}: {errors}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("done\n"));
}

/// The checker ended the process with its exit code, and reported all of this.
fn assert_reports(name: &str, output: &Output, code: i32, words: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{name}: {errors}");
    for word in words {
        assert!(errors.contains(word), "{name}: no {word:?} in: {errors}");
    }
}

#[test]
#[ignore = "needs a nightly Rust"]
fn address_sanitizer() {
    let program = build("asan", "+nightly", "asan", "-Zsanitizer=address");
    let run = |name: &str| Command::new(&program).arg(name).output().expect("the program runs");
    assert_silent(&run("clean"));
    for (name, access) in [
        ("read_after_free", "READ of size 1"),
        ("read_after_free_linked", "READ of size 1"),
        ("write_after_free", "WRITE of size 8"),
        ("read_after_move", "READ of size 1"),
        ("read_after_shrink", "READ of size 1"),
        ("past_the_end", "READ of size 1"),
        ("in_the_wilderness", "READ of size 1"),
    ] {
        assert_reports(name, &run(name), 1, &["AddressSanitizer: use-after-poison", access, "main.rs"]);
    }
    let leak = ["LeakSanitizer: detected memory leaks", "3702 byte(s)", "main.rs"];
    assert_reports("leak_of_malloc", &run("leak_of_malloc"), 1, &leak);
}

#[test]
#[ignore = "needs valgrind"]
fn valgrind() {
    let program = build("valgrind", "+stable", "valgrind", "");
    let run = |name: &str| {
        let options = ["--quiet", "--error-exitcode=9", "--leak-check=full", "--num-callers=20"];
        Command::new("valgrind").args(options).arg(&program).arg(name).output().expect("valgrind runs")
    };
    assert_silent(&run("clean"));
    for (name, words) in [
        ("read_after_free", ["Invalid read of size 1", "240 bytes inside a block of size 480 free'd"]),
        ("read_after_free_linked", ["Invalid read of size 1", "0 bytes inside a block of size 480 free'd"]),
        ("write_after_free", ["Invalid write of size 8", "400 bytes inside a block of size 800 free'd"]),
        ("read_after_move", ["Invalid read of size 1", "240 bytes inside a block of size 480 free'd"]),
        ("read_after_shrink", ["Invalid read of size 1", "block of size 48 alloc'd"]),
        ("past_the_end", ["Invalid read of size 1", "block of size 41 alloc'd"]),
        ("in_the_wilderness", ["Invalid read of size 1", "is in a rw- anonymous segment"]),
        ("leak", ["321 bytes in 1 blocks are definitely lost", "main.rs"]),
    ] {
        assert_reports(name, &run(name), 9, &words);
    }
}

#[test]
#[ignore = "needs a nightly Rust"]
fn thread_sanitizer() {
    // The standard library is built without ThreadSanitizer, which trusts what it does not see there.
    let flags = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer";
    let program = build("tsan", "+nightly", "", flags);
    let run = |name: &str| Command::new(&program).arg(name).output().expect("the program runs");
    assert_silent(&run("clean"));
    assert_reports("race", &run("race"), 66, &["ThreadSanitizer: data race", "main.rs"]);
}
