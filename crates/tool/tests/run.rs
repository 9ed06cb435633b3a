//! `smalloc run`: programs on the heap of the library that is preloaded, which is built here as users build it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs};

const LIBRARY: &str = "libsmalloc-preload.so";

/// A folder with the library in it, and a copy of the command beside it.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = temporary.join("c/run");
        let mut build = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../c/build"));
        // The tests of crates/c build there too.
        build.arg(&folder).env("CARGO_TARGET_DIR", temporary.join("c-target"));
        for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "LLVM_PROFILE_FILE"] {
            build.env_remove(name);
        }
        let output = build.output().expect("bash starts");
        assert!(output.status.success(), "{output:?}");
        // Another test process may be running the copy: it keeps its file.
        let copy = folder.join(format!("smalloc.{}", std::process::id()));
        copy_program(Path::new(env!("CARGO_BIN_EXE_smalloc")), &copy);
        fs::rename(copy, folder.join("smalloc")).expect("it has its name");
        folder
    })
}

/// Copies a file that will be run. This process must not have it open: a child of another thread would inherit that,
/// and a file that is open for writing cannot be run.
fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status().expect("cp starts");
    assert!(copied.success(), "{}", to.display());
}

/// The command that lies beside the library.
fn smalloc(arguments: &[&str]) -> Command {
    let mut command = Command::new(folder().join("smalloc"));
    command.args(arguments).env_remove("SMALLOC_PRELOAD").env_remove("LD_PRELOAD");
    command
}

fn run(arguments: &[&str]) -> Output {
    smalloc(&[&["run"], arguments].concat()).output().expect("it starts")
}

#[track_caller]
fn assert_refuses(command: &mut Command, error: &str) {
    let output = command.output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.starts_with("smalloc run: ") && stderr.contains(error), "{error:?} is not in\n{stderr}");
}

#[test]
fn a_program_is_recorded() {
    let path = folder().join("recorded.rec");
    let path = path.to_str().expect("a name in Unicode");
    let output = run(&["--record", path, "sort", "--", "/etc/passwd"]);
    assert!(output.status.success() && output.stderr.is_empty() && !output.stdout.is_empty(), "{output:?}");
    let output = smalloc(&["replay", path, "--of", "0"]).output().expect("it starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("of a recording of smalloc."), "{output:?}");
    assert!(stdout.contains("The same as recorded: the offsets of"), "{stdout}");
}

#[test]
fn the_process_is_the_program() {
    let output = run(&["sh", "-c", "echo $0 $1; echo error >&2; exit 7", "name", "--record"]);
    assert_eq!(
        (output.status.code(), &*output.stdout, &*output.stderr),
        (Some(7), &b"name --record\n"[..], &b"error\n"[..])
    );
    let output = run(&["sh", "-c", "kill -USR1 $$"]);
    assert_eq!(output.status.signal(), Some(10));
    let mut child = smalloc(&["run", "sleep", "60"]).spawn().expect("it starts");
    child.kill().expect("the program is the child");
    assert_eq!(child.wait().expect("it ends").signal(), Some(9));
}

#[test]
fn options_are_variables_of_the_program() {
    let variables = "echo $SMALLOC_REGION $SMALLOC_LIVE $LD_PRELOAD";
    let live = folder().join("live.%p");
    let library = folder().join(LIBRARY).canonicalize().expect("it is there");
    let (live, library) = (live.to_str().expect("Unicode"), library.to_str().expect("Unicode"));
    let arguments = ["run", "--region", "64M", "--live", live, "--", "sh", "-c", variables];
    let output = smalloc(&arguments).env("LD_PRELOAD", library).output().expect("it starts");
    let expected = format!("67108864 {live} {library}:{library}\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    let published = fs::read_dir(folder()).expect("the folder is there").filter_map(Result::ok);
    let published: Vec<_> =
        published.filter(|it| it.file_name().to_string_lossy().starts_with("live.")).collect();
    assert_eq!(published.len(), 1, "{published:?}");
    published.iter().for_each(|file| fs::remove_file(file.path()).expect("it is there"));
}

#[test]
fn the_library_is_found_where_it_is_named() {
    let alone = folder().join("alone");
    fs::create_dir_all(&alone).expect("a folder can be made");
    let command = alone.join("smalloc");
    copy_program(&folder().join("smalloc"), &command);
    let run = |arguments: &[&str], variable: Option<&Path>| {
        let mut run = Command::new(&command);
        run.arg("run").args(arguments).env_remove("LD_PRELOAD").env_remove("SMALLOC_PRELOAD");
        variable.into_iter().for_each(|path| _ = run.env("SMALLOC_PRELOAD", path));
        run
    };
    let library = folder().join(LIBRARY);
    let named = library.to_str().expect("Unicode");
    for (arguments, variable) in
        [(&["sort", "/etc/passwd"][..], Some(&*library)), (&["--library", named, "true"], None)]
    {
        let output = run(arguments, variable).output().expect("it starts");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    if !Path::new("/usr/local/lib").join(LIBRARY).exists() && !Path::new("/usr/lib").join(LIBRARY).exists() {
        assert_refuses(&mut run(&["true"], None), "libsmalloc-preload.so is not found (build it by");
    }
    let none = Path::new("/no/such/library");
    assert_refuses(&mut run(&["true"], Some(none)), "SMALLOC_PRELOAD: /no/such/library: No such file");
    let text = folder().join("text");
    fs::write(&text, "hello").expect("it is written");
    assert_refuses(&mut run(&["true"], Some(&text)), "it is no library");
    let spaced = folder().join("a space");
    fs::copy(&library, &spaced).expect("it is copied");
    assert_refuses(&mut run(&["true"], Some(&spaced)), "its path may have no space and no colon");
}

#[test]
fn programs_that_take_no_library_are_refused() {
    let source = folder().join("static.c");
    fs::write(&source, "int main(void) { return 0; }\n").expect("it is written");
    let built = folder().join("static");
    let cc = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output =
        Command::new(cc).arg("-static").arg("-o").args([&built, &source]).output().expect("cc starts");
    assert!(output.status.success(), "{output:?}");
    let built = built.to_str().expect("Unicode");
    assert_refuses(&mut smalloc(&["run", built]), "it is linked statically, and takes no library");

    let mine = folder().join("mine");
    copy_program(Path::new("/bin/true"), &mine);
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o4755)).expect("it is mine");
    let mine = mine.to_str().expect("Unicode");
    assert_refuses(&mut smalloc(&["run", mine]), "it is set-user-ID or set-group-ID");

    assert_refuses(&mut smalloc(&["run", "no-such-program"]), "no-such-program: there is no such program");
    assert_refuses(
        &mut smalloc(&["run", "/etc/passwd"]),
        "/etc/passwd: it cannot be started: Permission denied",
    );
    let (text, script) = (folder().join("script.txt"), folder().join("script"));
    fs::write(&text, "#!/bin/sh\nexit 3\n").expect("it is written");
    copy_program(&text, &script);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is mine");
    assert_eq!(run(&[script.to_str().expect("Unicode")]).status.code(), Some(3));
}
