//! The environment variables: which values count as set, which are reported, and where they are ignored.

mod case;

use smalloc::SmallocGlobal;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

const CASES: [case::Case; 1] = [("tells_its_region", tells_its_region)];
/// The variables that take a value other than 1.
const WITH_VALUES: [&str; 5] =
    ["SMALLOC_REGION", "SMALLOC_BASE", "SMALLOC_REGIONS", "SMALLOC_RECORD", "SMALLOC_LIVE"];
const NAME: &str = "tells_its_region";
const DEFAULT: &str = "region 34359738368";

fn tells_its_region() {
    // The second line of standard output: libtest has written the first one.
    case::write(&format!("\nregion {}\n", HEAP.stats().region_size));
    // SAFETY: the call has no preconditions.
    case::write(&format!("privileged {}\n", unsafe { libc::getauxval(libc::AT_SECURE) }));
    assert!(Vec::<u8>::new().try_reserve(1 << 40).is_err());
}

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn run(variables: &[(&str, &str)]) -> case::Outcome {
    case::finish(NAME, case::command(NAME).envs(variables.iter().copied()))
}

fn assert_says(outcome: &case::Outcome, line: &str) {
    assert!(outcome.stdout.lines().any(|told| told == line), "{}", outcome.stdout);
}

#[test]
fn an_empty_variable_is_not_set() {
    let variables = WITH_VALUES.map(|name| (name, ""));
    let outcome = run(&[&variables[..], &[("SMALLOC_REPORT", ""), ("SMALLOC_STRICT", "")]].concat());
    outcome.assert_success();
    assert_says(&outcome, DEFAULT);
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_size_that_no_region_has_is_reported() {
    for (value, size) in [("100G", (64_usize << 30) - (2 << 20)), ("1K", 64 << 10)] {
        let outcome = case::finish("too small", case::command(NAME).env("SMALLOC_REGION", value));
        let line = format!(
            "smalloc: SMALLOC_REGION: \"{value}\" was changed to {size} bytes (a region has 65536 to 68717379584)\n"
        );
        assert!(outcome.stderr.starts_with(&line), "{value}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.matches("SMALLOC_REGION").count(), 1);
    }
    assert_eq!(run(&[("SMALLOC_REGION", "64M")]).stderr, "", "nothing was changed");
}

#[test]
fn an_unknown_variable_is_reported_once() {
    let outcome = run(&[("SMALLOC_REGOIN", "64M"), ("SMALLOC_TEST_ANYTHING", "1"), ("SMALLOCATION", "1")]);
    outcome.assert_success();
    assert_says(&outcome, DEFAULT);
    assert_eq!(
        outcome.stderr,
        "smalloc: SMALLOC_REGOIN: unknown variable (use SMALLOC_REGION, SMALLOC_BASE, \
         SMALLOC_REGIONS, SMALLOC_REPORT, SMALLOC_RECORD, SMALLOC_LIVE, SMALLOC_SITES or SMALLOC_STRICT)\n"
    );
}

#[test]
fn strict_is_0_or_1() {
    let outcome = run(&[("SMALLOC_STRICT", "yes"), ("SMALLOC_RECORD", "/no/such/folder")]);
    let line = "smalloc: SMALLOC_STRICT: \"yes\" is neither 0 nor 1 (set it to 1, or leave it out)\n";
    assert_eq!((outcome.stderr.as_str(), outcome.status.code()), (line, Some(2)));
    let outcome = run(&[("SMALLOC_STRICT", "0"), ("SMALLOC_RECORD", "/no/such/folder")]);
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
}

/// A copy of this program that runs as another user than its caller.
struct Privileged(PathBuf);

impl Privileged {
    /// `None` if this process cannot make one: only root can, and only if the file system allows it.
    fn new() -> Option<Self> {
        const NOBODY: u32 = 65534;
        // SAFETY: the call has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("privileged-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        let program = folder.join("program");
        fs::copy(std::env::current_exe().expect("a path"), &program).expect("it can be copied");
        chown(&program, Some(NOBODY), Some(NOBODY)).expect("root may do so");
        chown(&folder, Some(NOBODY), Some(NOBODY)).expect("root may do so");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("root may do so");
        let status = Command::new(&program).arg("--list").output().ok()?.status;
        (status.success() && fs::metadata(&program).ok()?.mode() & 0o4000 != 0).then_some(Self(folder))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.0.join("program"));
        command.args(["--exact", "case", "--include-ignored", "--nocapture", "--test-threads=1"]);
        command.env(case::CASE, NAME);
        command
    }
}

impl Drop for Privileged {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// In a set-user-ID program every variable is ignored, nothing is reported, and no file is created with the program's
/// rights.
#[test]
fn a_privileged_program_ignores_every_variable() {
    let Some(privileged) = Privileged::new() else {
        eprintln!("not tested: only root can make a set-user-ID program");
        return;
    };
    let file = |name: &str| privileged.0.join(name);
    let variables = [
        ("SMALLOC_REGION", "64M".into()),
        ("SMALLOC_REPORT", "1".into()),
        ("SMALLOC_STRICT", "1".into()),
        ("SMALLOC_RECORD", file("recording")),
        ("SMALLOC_LIVE", file("page")),
        ("SMALLOC_REGOIN", "64M".into()),
    ];
    let outcome = case::finish("privileged", privileged.command().envs(variables));
    outcome.assert_success();
    if outcome.stdout.contains("privileged 0") {
        eprintln!("not tested: the file system ignores the set-user-ID bit");
        return;
    }
    assert_says(&outcome, DEFAULT);
    assert_eq!(outcome.stderr, "");
    let made: Vec<_> = ["recording", "page"].map(file).into_iter().filter(|path| path.exists()).collect();
    assert!(made.is_empty(), "{made:?}");
    // Without other rights the same variables take effect, so the checks above mean something.
    let plain = run(&[("SMALLOC_REGION", "64M"), ("SMALLOC_REPORT", "1")]);
    assert_says(&plain, "region 67108864");
    assert!(plain.stderr.starts_with("smalloc: no place for "), "{}", plain.stderr);
}
