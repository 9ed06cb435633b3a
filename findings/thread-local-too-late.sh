#!/bin/sh
# A Rust `thread_local!` that is first used inside the destructor of a pthread key is stored and never dropped.
#
# Guess: `thread_local!` registers its destructor at first use, so the value is dropped a little later, or `try_with`
# returns an error because the thread is ending.
# Seen (rustc 1.95.0, glibc 2.36, x86-64): the value is stored, `try_with` is `Ok`, and `drop` never runs. The C library
# has run its list of thread-local destructors before it calls those of keys, and does not look at the list again.
# A value that was used before is refused: `try_with` is `Err`.
#
# For an allocator: a cache of a thread must not hang on a `thread_local!` with a destructor. It needs a pthread key, set
# again whenever the cache is used in a later round of destructors.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >main.rs <<'RUST'
use std::cell::Cell;
use std::ffi::c_void;

unsafe extern "C" {
    fn pthread_key_create(key: *mut u32, destructor: extern "C" fn(*mut c_void)) -> i32;
    fn pthread_setspecific(key: u32, value: *const c_void) -> i32;
}

struct Noisy(&'static str);

impl Drop for Noisy {
    fn drop(&mut self) {
        println!("{} dropped", self.0);
    }
}

thread_local! {
    static EARLY: Cell<Option<Noisy>> = const { Cell::new(None) };
    static LATE: Cell<Option<Noisy>> = const { Cell::new(None) };
}

extern "C" fn at_exit(_: *mut c_void) {
    let early = EARLY.try_with(|place| place.set(Some(Noisy("early again"))));
    println!("key's destructor: early {}", if early.is_ok() { "stored" } else { "refused" });
    let late = LATE.try_with(|place| place.set(Some(Noisy("late"))));
    println!("key's destructor: late {}", if late.is_ok() { "stored" } else { "refused" });
}

fn main() {
    let mut key = 0;
    assert_eq!(unsafe { pthread_key_create(&mut key, at_exit) }, 0);
    let thread = std::thread::spawn(move || {
        assert_eq!(unsafe { pthread_setspecific(key, 1 as *const c_void) }, 0);
        EARLY.with(|place| place.set(Some(Noisy("early"))));
    });
    thread.join().unwrap();
    println!("the thread has ended");
}
RUST
rustc --version
rustc --edition 2024 -A warnings -O main.rs
./main | tee seen
cat >expected <<'TEXT'
early dropped
key's destructor: early refused
key's destructor: late stored
the thread has ended
TEXT
diff expected seen
echo "as expected: the late value was stored and never dropped"
