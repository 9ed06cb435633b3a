//! The C libraries, built once, and C programs that use them.

#![allow(dead_code, reason = "every test program uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

pub const PRELOAD: &str = "libsmalloc-preload.so";

pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder in the target folder.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A command in the package that runs cargo, without the environment of this test.
pub fn script(name: &str) -> Command {
    let mut command = Command::new(package().join(name));
    command
        .env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("c-target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("LLVM_PROFILE_FILE");
    command
}

/// The folder with the libraries, built with the feature `hardened` or without.
pub fn libraries(hardened: bool) -> &'static Path {
    static PLAIN: OnceLock<PathBuf> = OnceLock::new();
    static HARDENED: OnceLock<PathBuf> = OnceLock::new();
    let place = if hardened { &HARDENED } else { &PLAIN };
    place.get_or_init(|| {
        let folder = folder(if hardened { "hardened" } else { "plain" });
        let mut build = script("build");
        build.arg(&folder).args(if hardened { &["--features", "hardened"][..] } else { &[] });
        assert_success(&run(&mut build));
        folder
    })
}

pub fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub fn assert_success(output: &Output) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{out}{err}", output.status);
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Compiles a program of `tests/c` with the libraries of a folder. Returns its path, which is different for each call.
pub fn compile(compiler: &str, source: &str, libraries: &Path, flags: &[&str]) -> PathBuf {
    let name = format!("{source}-{}", flags.join("").replace(|c: char| !c.is_alphanumeric(), "-"));
    // A program that another test is running cannot be written.
    static COMPILED: AtomicUsize = AtomicUsize::new(0);
    let number = COMPILED.fetch_add(1, Ordering::Relaxed);
    let program = folder("programs").join(format!("{name}-{}-{number}", std::process::id()));
    let mut command = Command::new(compiler);
    command
        .args(["-O1", "-fno-builtin", "-pthread", "-o"])
        .arg(&program)
        .arg("-I")
        .arg(package().join("include"))
        .arg(package().join("tests/c").join(source))
        .args(flags)
        .arg(format!("-L{}", libraries.display()))
        .arg(format!("-Wl,-rpath,{}", libraries.display()));
    assert_success(&run(&mut command));
    program
}

/// Whether a command exists. Only tools that come with every C compiler may be missing without a failure.
pub fn exists(tool: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output()
        .is_ok_and(|found| found.status.success())
}
