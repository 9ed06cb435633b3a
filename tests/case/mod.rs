//! Cases that need a process of their own: this test program again, with the name of the case in an environment
//! variable.
//!
//! A test calls [`run`] and checks the [`Outcome`]. The program that uses this module has an ignored test with the name
//! `case`, which calls [`act`].

#![allow(dead_code, reason = "every test program uses a part of it")]

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Holds the name of the case that a process is to run.
pub const CASE: &str = "SMALLOC_TEST_CASE";
/// The line on standard error for re-entry.
pub const RECURSION: &str = "smalloc: recursive call: the thread already holds the heap's lock\n";
/// A case that runs longer counts as hanging.
const LIMIT: Duration = Duration::from_secs(60);
/// The prefix of a line by which a case announces what it will write to standard error.
const TOLD: &str = "expect: ";

/// The name and the function of a case.
pub type Case = (&'static str, fn());

/// The output of a case, how it ended, and how long it took.
pub struct Outcome {
    pub name: String,
    pub stdout: String,
    pub stderr: String,
    pub status: ExitStatus,
    pub took: Duration,
}

impl Outcome {
    pub fn assert_success(&self) {
        assert!(self.status.success(), "{}: {}\n{}{}", self.name, self.status, self.stdout, self.stderr);
    }

    /// The process ended with `SIGABRT` and wrote exactly this to standard error.
    pub fn assert_aborts(&self, stderr: &str) {
        assert_eq!(self.stderr, stderr, "{}: {}", self.name, self.status);
        assert_eq!(self.status.signal(), Some(libc::SIGABRT), "{}", self.name);
    }

    /// The process ended with `SIGABRT` and wrote exactly the line that it had announced, which begins with `start`.
    pub fn assert_aborts_as_told(&self, start: &str) {
        let told = self.stdout.lines().find_map(|line| line.split_once(TOLD));
        let (_, line) = told.unwrap_or_else(|| panic!("{}: tells nothing: {}", self.name, self.stdout));
        assert!(line.starts_with(start), "{}: {line}", self.name);
        self.assert_aborts(&format!("{line}\n"));
    }
}

/// Runs a case and waits for its end.
pub fn run(name: &str) -> Outcome {
    finish(name, &mut command(name))
}

/// The command that runs a case, for tests that add to its environment.
pub fn command(name: &str) -> Command {
    command_of(&std::env::current_exe().expect("the test program has a path"), name)
}

/// The same for a copy of the test program.
pub fn command_of(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["--exact", "case", "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .env_remove("RUST_BACKTRACE");
    command
}

/// Runs a command to its end. A case writes less than a pipe holds, so nothing has to read meanwhile.
pub fn finish(name: &str, command: &mut Command) -> Outcome {
    let start = Instant::now();
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.expect("the test program starts");
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill().expect("a child can be killed");
            panic!("{name} hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let mut outcome = Outcome {
        name: name.to_owned(),
        stdout: String::new(),
        stderr: String::new(),
        status,
        took: start.elapsed(),
    };
    child.stdout.take().expect("piped").read_to_string(&mut outcome.stdout).expect("text");
    child.stderr.take().expect("piped").read_to_string(&mut outcome.stderr).expect("text");
    outcome
}

/// Runs the case that the environment names.
pub fn act(cases: &[Case]) {
    let name = std::env::var(CASE).expect("the test that starts this names a case");
    let (_, run) = cases.iter().find(|(known, _)| *known == name).expect("there is such a case");
    leave_no_core();
    run();
}

/// Keeps aborts from writing core files.
pub fn leave_no_core() {
    set_limit(libc::RLIMIT_CORE, 0);
}

#[cfg(target_os = "linux")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_os = "linux"))]
type Resource = libc::c_int;

/// Sets the soft limit of this process, and returns the old one.
pub fn set_limit(resource: Resource, limit: u64) -> u64 {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to the struct that it is given.
    assert_eq!(unsafe { libc::getrlimit(resource, &mut limits) }, 0);
    let before = limits.rlim_cur;
    limits.rlim_cur = limit.min(limits.rlim_max);
    // SAFETY: the call reads the struct that it is given.
    assert_eq!(unsafe { libc::setrlimit(resource, &limits) }, 0);
    before
}

/// Announces the line that this case is about to write to standard error. Bypasses every buffer, since the case aborts.
pub fn tell(line: &str) {
    write(&format!("\n{TOLD}{line}\n"));
}

/// Writes to standard output at once.
pub fn write(text: &str) {
    // SAFETY: the pointer and the length are those of the text.
    let written = unsafe { libc::write(libc::STDOUT_FILENO, text.as_ptr().cast(), text.len()) };
    assert_eq!(usize::try_from(written), Ok(text.len()));
}

pub fn set_errno(number: i32) {
    // SAFETY: the place belongs to this thread.
    unsafe { *libc::__errno_location() = number };
}

pub fn errno() -> i32 {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

/// Runs `handler` when the signal arrives.
pub fn on_signal(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) {
    // SAFETY: the handler is a function that takes the signal's number.
    let before = unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    assert_ne!(before, libc::SIG_ERR);
}

/// A child that takes longer counts as hanging, and the system ends it.
const CHILD_SECONDS: u32 = 20;

/// Forks, and returns the child's number. It ends with the code that `child` returns.
pub fn fork(child: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the child uses only heaps, which these tests are about, and system calls.
    let id = unsafe { libc::fork() };
    assert!(id >= 0, "the system has room for a process");
    if id == 0 {
        // SAFETY: ends the child by a signal if it hangs.
        unsafe { libc::alarm(CHILD_SECONDS) };
        let code = child();
        // SAFETY: ends the child at once, without destructors of anything that other threads held.
        unsafe { libc::_exit(code) };
    }
    id
}

/// The child's status once it has ended.
pub fn wait(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the child is this process's own, and the status may be written.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    status
}

/// Whether that thread of this process sleeps in the kernel, as threads do that wait for a lock.
pub fn sleeps(thread: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S"))
}

/// Bytes of a page.
pub fn page() -> usize {
    // SAFETY: the call has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a size")
}

/// A number of bytes that the system reports about this process, such as `VmData`.
pub fn status_bytes(name: &str) -> u64 {
    bytes_in("/proc/self/status", name)
}

/// Bytes of anonymous memory of this process that are in RAM, counted page by page.
pub fn resident_bytes() -> usize {
    bytes_in("/proc/self/smaps_rollup", "Anonymous").try_into().expect("as many as there are addresses")
}

fn bytes_in(file: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(file).expect("the system tells");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("a size");
    kibibytes.parse::<u64>().expect("a number") << 10
}

/// Bytes of the resident pages that hold the `bytes` bytes at `start`, which are mapped.
pub fn resident(start: *const u8, bytes: usize) -> usize {
    let before = start.addr() % page();
    let mut pages = vec![0_u8; (before + bytes).div_ceil(page())];
    let first = start.wrapping_sub(before).cast_mut();
    // SAFETY: there is a byte for each page; a range that is not mapped is refused.
    assert_eq!(unsafe { libc::mincore(first.cast(), before + bytes, pages.as_mut_ptr()) }, 0);
    pages.iter().filter(|&&known| known & 1 != 0).count() * page()
}

/// Start, end and permissions of every mapping of this process.
pub fn mappings() -> Vec<(usize, usize, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the system tells");
    let address = |text| usize::from_str_radix(text, 16).expect("an address");
    maps.lines()
        .map(|line| {
            let (range, rest) = line.split_once(' ').expect("a range and more");
            let (start, end) = range.split_once('-').expect("two addresses");
            (address(start), address(end), rest[..4].to_owned())
        })
        .collect()
}

/// One step of a seccomp filter: skips `on_equal` steps if the loaded value is `value`, else `otherwise` steps.
pub fn step(code: u32, on_equal: usize, otherwise: usize, value: u32) -> libc::sock_filter {
    let steps = |number: usize| number.try_into().expect("a short filter");
    libc::sock_filter {
        code: code.try_into().expect("a code"),
        jt: steps(on_equal),
        jf: steps(otherwise),
        k: value,
    }
}

/// Installs a filter for this thread and those that it starts.
pub fn install(steps: &[libc::sock_filter]) {
    let program = libc::sock_fprog {
        len: steps.len().try_into().expect("a short filter"),
        filter: steps.as_ptr().cast_mut(),
    };
    // SAFETY: the numbers are valid for the call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program is valid and only read.
    let refused = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(refused, 0, "the system has filters");
}

/// From here on the system refuses a call with `ENOMEM` if the lower half of that argument has `value` in the bits of
/// `mask`.
pub fn refuse(call: libc::c_long, argument: u32, mask: u32, value: u32) {
    let number = |value: i64| u32::try_from(value).expect("a number");
    let (load, compare) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    // Arguments lie behind two 32-bit numbers and the address of the instruction.
    install(&[
        step(load, 0, 0, 0),
        step(compare, 0, 4, number(call)),
        step(load, 0, 0, 16 + argument * 8),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask),
        step(compare, 0, 1, value),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | number(libc::ENOMEM.into())),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
}
