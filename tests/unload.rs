//! A library that contains a heap is loaded, used, and unloaded again. It leaves nothing behind that points into it,
//! and no unused memory.
//!
//! The library is built here, since no package has a library of each kind.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod case;

use case::{mappings, status_bytes};
use std::env;
use std::ffi::{CStr, CString, c_char, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

const MANIFEST: &str = r#"
[package]
name = "plugin"
version = "0.0.0"
edition = "2024"

[workspace]

[lib]
crate-type = ["cdylib"]

[dependencies]
smalloc-global = { path = "LIBRARY", features = [FEATURES] }

[profile.dev]
debug = false
"#;

const PLUGIN: &str = r#"
use smalloc::{Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{CStr, c_char};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();
static SEVERAL: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(64 << 20);
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(64 << 20);

const PIECE: Layout = Layout::new::<[u8; 100]>();

/// Uses two heaps, and leaves nothing in use. It calls nothing that keeps a library loaded until the thread ends, as
/// the standard library does for its thread-locals.
#[unsafe(no_mangle)]
pub extern "C" fn work() -> usize {
    let rows: Vec<Vec<u8>> = (0..10_000).map(|row| vec![row as u8; 1000]).collect();
    // SAFETY: the layout is not empty, and the block is live and has this layout.
    unsafe { LINKED.dealloc(LINKED.alloc(PIECE), PIECE) };
    rows.iter().map(Vec::len).sum()
}

/// A block that `give` frees, on any thread.
#[unsafe(no_mangle)]
pub extern "C" fn take() -> *mut u8 {
    // SAFETY: the layout is not empty.
    unsafe { SEVERAL.alloc(PIECE) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn give(block: *mut u8) {
    // SAFETY: the block is from `take`.
    unsafe { SEVERAL.dealloc(block, PIECE) };
}

/// Uses the heap with several regions on this thread alone.
#[unsafe(no_mangle)]
pub extern "C" fn work_here() {
    for _ in 0..1000 {
        // SAFETY: the layout is not empty, and the block is live and has this layout.
        unsafe { SEVERAL.dealloc(SEVERAL.alloc(PIECE), PIECE) };
    }
}

/// Two blocks that stay in use.
#[unsafe(no_mangle)]
pub extern "C" fn leave() -> *mut u8 {
    let large = vec![1_u8; 20 << 20];
    let left = Box::leak(vec![77_u8; 100_000].into_boxed_slice()).as_mut_ptr();
    drop(large);
    left
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn record(recording: *const c_char, page: *const c_char) -> bool {
    // SAFETY: the caller passes paths.
    let (recording, page) = unsafe { (CStr::from_ptr(recording), CStr::from_ptr(page)) };
    SEVERAL.record_to(recording.to_bytes()).is_ok() && SEVERAL.publish_to(page.to_bytes()).is_ok()
}
"#;

const LIBRARY: &str = "SMALLOC_TEST_LIBRARY";

/// Builds the library, and returns its path.
fn library() -> PathBuf {
    let source = env!("CARGO_MANIFEST_DIR");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin");
    fs::create_dir_all(folder.join("src")).expect("the folder can be made");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("the file can be written");
    let features = if cfg!(feature = "hardened") { "\"hardened\"" } else { "" };
    write("Cargo.toml", &MANIFEST.replace("LIBRARY", source).replace("FEATURES", features));
    write("src/lib.rs", PLUGIN);
    // Uses the lock file that this test was built with.
    write("Cargo.lock", &fs::read_to_string(Path::new(source).join("Cargo.lock")).unwrap_or_default());
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    folder.join("target/debug/libplugin.so")
}

const CASES: [case::Case; 5] = [
    ("threads_outlive_it", threads_outlive_it),
    ("nothing_is_left", nothing_is_left),
    ("what_is_in_use_stays", what_is_in_use_stays),
    ("files_are_closed", files_are_closed),
    ("forks_go_on", forks_go_on),
];

/// Not a test: the test below starts it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

#[test]
fn an_unloaded_library_leaves_nothing_behind() {
    let library = library();
    for (name, _) in CASES {
        case::finish(name, case::command(name).env(LIBRARY, &library)).assert_success();
    }
}

/// A loaded library.
struct Loaded(*mut c_void);

fn path() -> CString {
    CString::new(env::var(LIBRARY).expect("the test that starts this says")).expect("no zero")
}

impl Loaded {
    fn new() -> Self {
        // SAFETY: the path ends with a zero, and the initialisers of the library are sound.
        let handle = unsafe { libc::dlopen(path().as_ptr(), libc::RTLD_NOW) };
        assert!(!handle.is_null(), "the library can be loaded");
        Self(handle)
    }

    fn find(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the library is loaded, and the name ends with a zero.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!found.is_null());
        found
    }

    fn work(&self) {
        // SAFETY: this is the function's type.
        let work: extern "C" fn() -> usize = unsafe { std::mem::transmute(self.find(c"work")) };
        assert_eq!(work(), 10_000_000);
    }

    fn work_here(&self) {
        // SAFETY: this is the function's type.
        let work: extern "C" fn() = unsafe { std::mem::transmute(self.find(c"work_here")) };
        work();
    }

    /// Allocates a block on another thread, which ends later, and frees it on this one.
    fn hand_over(&self) {
        // SAFETY: this is the function's type.
        let take: extern "C" fn() -> *mut u8 = unsafe { std::mem::transmute(self.find(c"take")) };
        // SAFETY: this is the function's type.
        let give: extern "C" fn(*mut u8) = unsafe { std::mem::transmute(self.find(c"give")) };
        let block = thread::spawn(move || take().expose_provenance()).join().expect("it takes a block");
        give(std::ptr::with_exposed_provenance_mut(block));
    }

    fn leave(&self) -> *mut u8 {
        // SAFETY: this is the function's type.
        let leave: extern "C" fn() -> *mut u8 = unsafe { std::mem::transmute(self.find(c"leave")) };
        leave()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: no thread is in the library.
        assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
        // SAFETY: the path ends with a zero; the call only asks whether the library is still loaded.
        let still = unsafe { libc::dlopen(path().as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        assert!(still.is_null(), "the library is still loaded");
    }
}

/// The threads that have used the heap end when its code is gone.
fn threads_outlive_it() {
    for _ in 0..5 {
        thread::spawn(|| Loaded::new().work_here()).join().expect("the thread ends well");
        thread::spawn(|| {
            let loaded = Loaded::new();
            loaded.work();
            loaded.hand_over();
        })
        .join()
        .expect("the thread ends well");
    }
}

/// A thousand times: addresses, mappings and resident memory are the same as the second time.
fn nothing_is_left() {
    let look = || (status_bytes("VmSize"), mappings().len(), status_bytes("VmRSS"));
    let (mut before, mut descriptors) = (look(), 0);
    for round in 0..1000 {
        let loaded = Loaded::new();
        if round % 50 < 2 {
            loaded.work();
        }
        loaded.hand_over();
        drop(loaded);
        if round == 1 {
            (before, descriptors) = (look(), files());
        }
    }
    let after = look();
    assert!(after.0 <= before.0 + (4 << 20), "{before:?} became {after:?}");
    assert!(after.1 <= before.1 + 8, "{before:?} became {after:?}");
    assert!(after.2 <= before.2 + (4 << 20), "{before:?} became {after:?}");
    assert_eq!(files(), descriptors);
}

/// Open files of this process.
fn files() -> usize {
    fs::read_dir("/proc/self/fd").expect("the system tells").count()
}

/// The block stays readable, and the free memory beside it is purged.
fn what_is_in_use_stays() {
    let before = status_bytes("VmRSS");
    let loaded = Loaded::new();
    let left = loaded.leave();
    drop(loaded);
    // SAFETY: the block was given to this program, which has not freed it.
    assert!(unsafe { std::slice::from_raw_parts(left, 100_000) }.iter().all(|&byte| byte == 77));
    let kept = status_bytes("VmRSS").saturating_sub(before);
    // With `hardened` nothing is purged.
    assert!(kept < 4 << 20 || cfg!(feature = "hardened"), "{kept} bytes of memory stay");
    // When it is loaded again, it has a heap of its own.
    Loaded::new().work();
    // SAFETY: as above.
    assert!(unsafe { std::slice::from_raw_parts(left, 100_000) }.iter().all(|&byte| byte == 77));
}

/// The recording has its end, and the page says that publishing has stopped.
fn files_are_closed() {
    let name = |name: &str| env::temp_dir().join(format!("smalloc-{name}-{}", std::process::id()));
    let (recording, page) = (name("unloaded"), name("unloaded-live"));
    let text = |path: &Path| CString::new(path.to_str().expect("text")).expect("no zero");
    let open = files();
    let loaded = Loaded::new();
    // SAFETY: this is the function's type.
    let record: extern "C" fn(*const c_char, *const c_char) -> bool =
        unsafe { std::mem::transmute(loaded.find(c"record")) };
    assert!(record(text(&recording).as_ptr(), text(&page).as_ptr()));
    loaded.work_here();
    let live = smalloc::Live::open(page.to_str().expect("text")).expect("it publishes");
    assert!(!live.read().stopped);
    drop(loaded);
    assert!(live.read().stopped);
    assert_eq!(files(), open);
    let file = fs::read(&recording).expect("it was written");
    let head = smalloc::recording::Head::from_bytes(file.first_chunk().expect("a head")).expect("a head");
    assert_eq!(head.end, smalloc::recording::End::Stopped);
    assert_eq!(head.records, 2000);
    fs::remove_file(recording).expect("it was made here");
    fs::remove_file(page).expect("it was made here");
}

fn forks_go_on() {
    Loaded::new().work();
    for _ in 0..2 {
        assert_eq!(case::wait(case::fork(|| 0)), 0);
        Loaded::new().work_here();
    }
}
