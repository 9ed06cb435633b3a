//! The lock by itself: exclusion, recursion, fork, `errno`, and many more threads than cores.
//!
//! The lock is private to the crate, so its file is compiled into this test. Cases that end in an abort run in a
//! process of their own.

mod case;
#[allow(dead_code, reason = "the lock needs less of it than the heap")]
#[path = "../src/system"]
mod system {
    pub(crate) mod call;
    pub(crate) mod clock;
    pub(crate) mod errno;
    pub(crate) mod fatal;
}
#[allow(dead_code, reason = "not all that make a lock slow or wait for it do so here")]
#[path = "../src/threads/lock.rs"]
mod lock;

use case::{Outcome, RECURSION, on_signal};
use lock::{Lock, SlowReason};
use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use system::{errno, fatal};

static COUNT: Lock<u64> = Lock::new(0);

/// Each of these cases ends its process.
const CASES: [case::Case; 9] = [
    ("lock_twice", || {
        let _held = COUNT.lock();
        let _again = COUNT.lock();
    }),
    ("abandoned", || {
        COUNT.abandon();
        assert!(COUNT.is_abandoned() && COUNT.try_lock().is_none() && COUNT.try_lock_fast().is_none());
        let _none = COUNT.lock();
    }),
    ("fork_with_lock_held", || {
        let _held = COUNT.lock();
        // SAFETY: does not return.
        unsafe { COUNT.lock_for_fork(|_| false) };
    }),
    ("fork_in_fork", || {
        // SAFETY: the second call does not return.
        unsafe { COUNT.lock_for_fork(|_| false) };
        // SAFETY: as above.
        unsafe { COUNT.lock_for_fork(|_| false) };
    }),
    ("lock_twice_in_fork", || {
        // SAFETY: the process ends before the lock would be released.
        unsafe { COUNT.lock_for_fork(|_| false) };
        let _held = COUNT.lock();
        let _again = COUNT.lock();
    }),
    ("lock_in_abort_handler", || {
        on_signal(libc::SIGABRT, lock_in_handler);
        let _held = COUNT.lock();
        let _again = COUNT.lock();
    }),
    ("abort_blocked_and_ignored", || {
        // SAFETY: all bits zero is a set of signals, which sigemptyset makes empty.
        unsafe {
            assert_ne!(libc::signal(libc::SIGABRT, libc::SIG_IGN), libc::SIG_ERR);
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGABRT);
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        }
        let _held = COUNT.lock();
        let _again = COUNT.lock();
    }),
    ("long_message", || fatal::fatal(format_args!("{:>1000}", "x"))),
    ("signal_storm", signal_storm),
];

extern "C" fn lock_in_handler(_: libc::c_int) {
    *COUNT.lock() += 1;
}

/// Locks in a loop and in the handler of a timer, until the timer fires while the lock is held.
fn signal_storm() {
    on_signal(libc::SIGALRM, lock_in_handler);
    let tick = libc::timeval { tv_sec: 0, tv_usec: 50 };
    let timer = libc::itimerval { it_interval: tick, it_value: tick };
    // SAFETY: the timer is valid, and the old one is not requested.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }, 0);
    loop {
        *COUNT.lock() += 1;
    }
}

/// Not a test: `run` starts it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn run(name: &str) -> Outcome {
    case::finish(name, case::command(name).env("RUST_BACKTRACE", "1"))
}

#[test]
fn recursion_aborts_with_one_line() {
    for case in [
        "lock_twice",
        "fork_with_lock_held",
        "fork_in_fork",
        "lock_twice_in_fork",
        "abort_blocked_and_ignored",
    ] {
        run(case).assert_aborts(RECURSION);
    }
}

#[test]
fn abort_handler_that_locks_ends_too() {
    run("lock_in_abort_handler").assert_aborts(&RECURSION.repeat(2));
}

#[test]
fn long_message_is_cut_to_one_line() {
    run("long_message").assert_aborts(&format!("smalloc: {}\n", " ".repeat(246)));
}

/// A signal is most often taken right after the atomic instruction, so a lock that names its owner a step later hangs
/// here.
#[test]
fn signal_handler_never_hangs() {
    for _ in 0..20 {
        let outcome = run("signal_storm");
        outcome.assert_aborts(RECURSION);
        assert!(outcome.took < Duration::from_secs(10), "{:?}", outcome.took);
    }
}

#[test]
fn one_thread_at_a_time() {
    static PAIR: Lock<(u64, u64)> = Lock::new((0, 0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50_000 {
                    let mut pair = PAIR.lock();
                    assert_eq!(pair.0, pair.1);
                    pair.0 += 1;
                    std::hint::black_box(&mut *pair);
                    pair.1 += 1;
                }
            });
        }
    });
    assert_eq!(*PAIR.lock(), (400_000, 400_000));
}

#[test]
fn try_lock_never_waits() {
    let lock = Lock::new(0);
    let held = lock.lock();
    assert!(lock.try_lock().is_none());
    thread::scope(|scope| {
        scope.spawn(|| assert!(lock.try_lock().is_none()));
    });
    drop(held);
    assert!(lock.try_lock().is_some());
    assert_eq!(lock.contended(), 0);
}

#[test]
fn a_slow_lock_is_taken_by_the_slow_path_only() {
    let lock = Lock::new(0);
    assert!(lock.try_lock_fast().is_some());
    assert!(!lock.is_slow());
    lock.lock().set_slow(SlowReason::LivePage, true);
    assert!(lock.is_slow());
    for _ in 0..2 {
        assert!(lock.try_lock_fast().is_none());
        assert!(lock.try_lock().is_some());
        *lock.lock() += 1;
    }
    // SAFETY: released in the next line.
    unsafe { lock.lock_for_fork(|_| false) };
    // SAFETY: locked in the line before, and no guard is held.
    unsafe { lock.unlock_after_fork() };
    assert!(lock.try_lock_fast().is_none(), "a fork has ended the watch");
    lock.lock().set_slow(SlowReason::LivePage, false);
    assert!(lock.try_lock_fast().is_some());
    assert_eq!(lock.contended(), 0, "nobody waited");
}

#[test]
fn a_lock_is_slow_while_there_is_a_reason() {
    let lock = Lock::new(0);
    lock.lock().set_slow(SlowReason::LivePage, true);
    lock.lock().set_slow(SlowReason::Recorder, true);
    lock.lock().set_slow(SlowReason::Recorder, true);
    lock.lock().set_slow(SlowReason::LivePage, false);
    assert!(lock.try_lock_fast().is_none());
    lock.lock().set_slow(SlowReason::Recorder, false);
    assert!(lock.try_lock_fast().is_some());
}

#[test]
fn other_threads_get_the_lock_while_a_guard_is_unlocked() {
    let lock = Lock::new(0);
    let (mut guard, seen) = lock.lock().unlocked(|| {
        *lock.lock() += 1;
        *lock.lock()
    });
    *guard += 1;
    assert_eq!((*guard, seen), (2, 1));
    assert!(lock.try_lock().is_none(), "it is locked again");
}

/// A thread that holds the lock all the time, but yields it now and then, does not keep others out.
#[test]
fn sleeping_waiters_get_the_lock() {
    let lock = Lock::new(0);
    thread::scope(|scope| {
        let mut guard = lock.lock();
        scope.spawn(|| *lock.lock() = 1);
        while *guard == 0 {
            guard = guard.yield_to_waiters();
        }
        assert!(lock.contended() >= 1);
    });
}

#[test]
fn a_guard_waits_while_the_value_is_busy() {
    let lock = Lock::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                *lock.lock() += 1;
            }
        });
        assert_eq!(*lock.lock().wait_while(|&number| number < 100), 100);
    });
}

#[test]
fn a_wait_is_counted_once_and_keeps_errno() {
    static LOCK: Lock<u64> = Lock::new(0);
    on_signal(libc::SIGUSR1, ignore);
    let held = LOCK.lock();
    let waiter = thread::spawn(|| {
        case::set_errno(libc::EXDEV);
        *LOCK.lock() += 1;
        errno::get()
    });
    while LOCK.contended() == 0 {
        thread::yield_now();
    }
    // Long enough for the waiter to sleep. The signals make its sleeps fail with EINTR.
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(2));
        // SAFETY: the thread has not been joined.
        unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
    }
    drop(held);
    assert_eq!(waiter.join().unwrap(), libc::EXDEV);
    assert_eq!((*LOCK.lock(), LOCK.contended()), (1, 1));
}

extern "C" fn ignore(_: libc::c_int) {}

#[test]
fn the_forking_thread_may_lock_and_others_wait() {
    let lock = Lock::new(0);
    let released = AtomicBool::new(false);
    thread::scope(|scope| {
        // SAFETY: released below, on this thread.
        unsafe { lock.lock_for_fork(|_| false) };
        for _ in 0..3 {
            *lock.lock() += 1;
            *lock.try_lock().unwrap() += 1;
        }
        scope.spawn(|| {
            let value = *lock.lock();
            assert!(released.load(Ordering::Relaxed));
            assert_eq!(value, 6);
        });
        while lock.contended() == 0 {
            thread::yield_now();
        }
        released.store(true, Ordering::Relaxed);
        // SAFETY: locked above, on this thread, which holds no guard.
        unsafe { lock.unlock_after_fork() };
    });
    assert!(lock.try_lock().is_some());
}

#[test]
fn the_child_of_a_fork_under_load_can_lock() {
    static PAIR: Lock<(u64, u64)> = Lock::new((0, 0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut pair = PAIR.lock();
                    pair.0 += 1;
                    std::hint::black_box(&mut *pair);
                    pair.1 += 1;
                }
            });
        }
        let failed = (0..100).find(|_| fork_and_lock(&PAIR) != 0);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(failed, None);
    });
}

/// The exit status of a child that locks and checks that both numbers are equal: 0. Its alarm ends a child that hangs.
fn fork_and_lock(lock: &Lock<(u64, u64)>) -> libc::c_int {
    // SAFETY: released below in both processes, by this thread, which holds no guard.
    let unlock = || unsafe { lock.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { lock.lock_for_fork(|_| false) };
    let child = case::fork(|| {
        unlock();
        let equal = (0..10).all(|_| {
            let mut pair = lock.lock();
            pair.0 += 1;
            pair.1 += 1;
            pair.0 == pair.1
        });
        i32::from(!equal)
    });
    unlock();
    case::wait(child)
}

/// Some tens of nanoseconds of work that needs the value.
fn work(value: &mut u64) {
    for _ in 0..16 {
        *value = (*value ^ (*value >> 7)).wrapping_mul(6_364_136_223_846_793_005);
    }
}

/// Locks and works `total` times, split over the threads. Returns the longest time that a thread waited.
fn crowd(threads: u32, total: u32) -> Duration {
    let lock = Lock::new(1);
    let longest = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut waited = Duration::ZERO;
                for _ in 0..total / threads {
                    let before = Instant::now();
                    let mut value = lock.lock();
                    waited = waited.max(before.elapsed());
                    work(&mut value);
                }
                longest.fetch_max(u64::try_from(waited.as_nanos()).unwrap(), Ordering::Relaxed);
            });
        }
    });
    Duration::from_nanos(longest.into_inner())
}

/// A thread that waits for a processor while other programs run does not starve, so the bound must hold in one of three
/// attempts.
#[test]
fn sixty_four_threads_share_the_lock() {
    let starves = |_| crowd(64, 3_200_000) >= Duration::from_secs(1);
    assert!(!(0..3).all(starves), "a thread waited for a second");
}

/// In a forked child, the lock of a thread that does not exist there.
#[test]
fn an_abandoned_lock_ends_the_process() {
    case::run("abandoned").assert_aborts(
        "smalloc: fork in a signal handler: another thread was changing the heap, which this child cannot use (call exec \
         or _exit)\n",
    );
}

/// A wait can be given up for one thread, by its token.
#[test]
fn a_wait_is_given_up_for_one_thread() {
    static LOCK: Lock<u64> = Lock::new(0);
    let (me, guard) = (lock::thread_token(), LOCK.lock());
    assert!(LOCK.is_held_here());
    let waiter = thread::spawn(move || {
        assert!(!LOCK.is_held_here());
        assert!(LOCK.lock_unless(|token| token == me).is_none());
        LOCK.lock_unless(|token| token != me).is_some()
    });
    thread::sleep(Duration::from_millis(20));
    assert!(!waiter.is_finished());
    drop(guard);
    assert!(waiter.join().expect("it ends well"));
    // SAFETY: unlocked below.
    assert!(unsafe { LOCK.lock_for_fork(|_| false) } && LOCK.is_locked_for_fork() && !LOCK.is_held_here());
    // SAFETY: locked above.
    unsafe { LOCK.unlock_after_fork() };
    assert!(!LOCK.is_locked_for_fork());
}
