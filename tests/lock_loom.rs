//! The lock's protocol under every interleaving of its atomic operations with up to two preemptions, by loom:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --test lock_loom
//! ```
//!
//! The model is the lock with loom's atomics, which have no const constructor. Its token is a loom thread-local,
//! because loom runs all threads on one system thread. Tests use two threads: of three, two could yield to each other
//! forever. Without `--cfg loom` this file only checks that the model has the same operations as `src/threads/lock.rs`,
//! in the same order.

#[cfg(loom)]
mod model {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;
    use std::cell::Cell;

    const FREE: usize = 0;
    const FORKING: usize = 1;
    const SLOW: usize = 2;
    const ABANDONED: usize = 4;
    /// Preemptions per execution. Known lock bugs need at most two.
    const PREEMPTIONS: usize = 2;

    loom::thread_local! {
        static TOKEN: Cell<usize> = Cell::new(0);
    }

    fn thread_token() -> usize {
        TOKEN.with(Cell::get)
    }

    /// Every test has two threads.
    fn single_threaded() -> bool {
        false
    }

    struct Lock {
        word: AtomicUsize,
        rest: AtomicUsize,
        value: UnsafeCell<usize>,
    }

    struct Guard<'a> {
        lock: &'a Lock,
    }

    impl Lock {
        fn new() -> Self {
            Lock { word: AtomicUsize::new(FREE), rest: AtomicUsize::new(FREE), value: UnsafeCell::new(0) }
        }

        fn lock(&self) -> Guard<'_> {
            let me = thread_token();
            if self.take(FREE, me) {
                return Guard { lock: self };
            }
            self.lock_slow(me)
        }

        fn lock_slow(&self, me: usize) -> Guard<'_> {
            let word = self.word.load(Ordering::Relaxed);
            if !(at_rest(word, me) && self.take(word, me)) {
                self.take_contended(me);
            }
            Guard { lock: self }
        }

        fn is_held_here(&self) -> bool {
            self.word.load(Ordering::Relaxed) == thread_token()
        }

        fn is_locked_for_fork(&self) -> bool {
            self.rest.load(Ordering::Relaxed) & FORKING != 0
        }

        fn is_abandoned(&self) -> bool {
            self.word.load(Ordering::Relaxed) == ABANDONED
        }

        fn abandon(&self) {
            self.word.store(ABANDONED, Ordering::Relaxed);
        }

        fn lock_for_fork(&self) {
            let me = thread_token();
            let word = self.word.load(Ordering::Relaxed);
            if !(word & !SLOW == FREE && self.take(word, me)) {
                self.take_contended(me);
            }
            assert!(self.is_held_here() && !self.is_locked_for_fork());
            let rest = me | FORKING | self.rest.load(Ordering::Relaxed);
            self.rest.store(rest, Ordering::Relaxed);
            self.word.store(rest, Ordering::Release);
        }

        fn try_lock(&self) -> Option<Guard<'_>> {
            let me = thread_token();
            let word = self.word.load(Ordering::Relaxed);
            (at_rest(word, me) && self.take(word, me)).then(|| Guard { lock: self })
        }

        fn try_lock_fast(&self) -> Option<Guard<'_>> {
            self.take(FREE, thread_token()).then(|| Guard { lock: self })
        }

        fn unlock_after_fork(&self) {
            self.word.store(thread_token(), Ordering::Relaxed);
            let rest = self.rest.load(Ordering::Relaxed) & SLOW;
            self.rest.store(rest, Ordering::Relaxed);
            self.word.store(rest, Ordering::Release);
        }

        fn take(&self, from: usize, to: usize) -> bool {
            if single_threaded() {
                return self.take_single_threaded(from, to);
            }
            self.word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
        }

        fn take_single_threaded(&self, from: usize, to: usize) -> bool {
            let free = self.word.load(Ordering::Relaxed) == from;
            if free {
                self.word.store(to, Ordering::Relaxed);
            }
            free
        }

        fn take_contended(&self, me: usize) {
            if self.word.load(Ordering::Relaxed) & !(FORKING | SLOW) == me {
                panic!("recursive call");
            }
            loop {
                let word = self.word.load(Ordering::Relaxed);
                if word & !SLOW == FREE && self.take(word, me) {
                    return;
                }
                assert!(!self.is_abandoned());
                thread::yield_now();
            }
        }
    }

    fn at_rest(word: usize, me: usize) -> bool {
        let holder = word & !SLOW;
        holder == FREE || holder == me | FORKING
    }

    impl Guard<'_> {
        fn is_slow(&self) -> bool {
            self.lock.rest.load(Ordering::Relaxed) & SLOW != 0
        }

        fn set_slow(&mut self, reasons: u8) {
            let rest = self.lock.rest.load(Ordering::Relaxed) & !SLOW;
            self.lock.rest.store(if reasons != 0 { rest | SLOW } else { rest }, Ordering::Relaxed);
        }

        /// Loom reports concurrent calls, and reads that may miss the last write.
        fn add_one(&mut self) {
            self.lock.value.with_mut(|value| unsafe { *value += 1 });
        }
    }

    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            let rest = self.lock.rest.load(Ordering::Relaxed);
            self.lock.word.store(rest, Ordering::Release);
        }
    }

    fn check(bodies: &'static [fn(&Lock)], sum: usize) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            let lock = Arc::new(Lock::new());
            // The least token of a thread, above the mark of an abandoned lock.
            let threads: Vec<_> = (2..)
                .zip(bodies)
                .map(|(number, body)| {
                    let lock = Arc::clone(&lock);
                    thread::spawn(move || {
                        TOKEN.with(|token| token.set(number * 4));
                        body(&lock);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(lock.value.with(|value| unsafe { *value }), sum);
            assert!(lock.take(FREE, 4), "the lock is not released");
        });
    }

    fn twice(lock: &Lock) {
        lock.lock().add_one();
        lock.lock().add_one();
    }

    /// A fork whose prepare handlers allocate, and an operation after it.
    fn fork(lock: &Lock) {
        lock.lock_for_fork();
        let before = lock.value.with(|value| unsafe { *value });
        lock.lock().add_one();
        lock.lock().add_one();
        let after = lock.value.with(|value| unsafe { *value });
        assert_eq!(after, before + 2, "another thread was let in during the fork");
        lock.unlock_after_fork();
        lock.lock().add_one();
    }

    #[test]
    fn two_threads_twice() {
        check(&[twice, twice], 4);
    }

    #[test]
    fn fork_beside_a_thread() {
        check(&[fork, twice], 5);
    }

    /// Makes the lock slow for two operations. The fast path fails meanwhile.
    fn slow(lock: &Lock) {
        lock.lock().set_slow(1);
        assert!(lock.try_lock_fast().is_none());
        let mut guard = lock.lock();
        assert!(guard.is_slow());
        guard.add_one();
        guard.set_slow(0);
    }

    /// Two operations, by the fast path if possible.
    fn fast(lock: &Lock) {
        for _ in 0..2 {
            lock.try_lock_fast().unwrap_or_else(|| lock.lock()).add_one();
        }
    }

    /// Two operations, without waiting if possible.
    fn hasty(lock: &Lock) {
        for _ in 0..2 {
            lock.try_lock().unwrap_or_else(|| lock.lock()).add_one();
        }
    }

    #[test]
    fn slow_beside_the_fast_path() {
        check(&[slow, fast], 3);
    }

    #[test]
    fn slow_beside_a_fork() {
        check(&[slow, fork], 4);
    }

    #[test]
    fn hasty_beside_a_fork() {
        check(&[hasty, fork], 5);
    }

    #[test]
    fn two_forks() {
        check(&[fork, fork], 6);
    }
}

/// The operations on the lock's two words in a file, each with its function, sorted by function and then by line.
#[cfg(not(loom))]
fn operations(text: &str) -> Vec<(String, String)> {
    let mut function = "";
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        if let Some((_, rest)) = line.split_once("fn ") {
            function = rest.split(['(', '<']).next().unwrap();
        }
        let place = ["word.", "rest."].iter().filter_map(|word| line.find(&format!(".{word}"))).min();
        if let Some(place) = place {
            let operation = line[place + 1..].trim_end_matches([' ', '{', ';']);
            found.push((function.to_owned(), operation.to_owned()));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

#[cfg(not(loom))]
#[test]
fn the_model_is_the_lock() {
    let lock = operations(include_str!("../src/threads/lock.rs"));
    assert_eq!(lock, operations(include_str!("lock_loom.rs").split("/// The operations").next().unwrap()));
    assert_eq!(lock.len(), 24, "{lock:#?}");
}
