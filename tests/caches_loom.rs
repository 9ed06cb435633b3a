//! The right to change a cache or a depot, under every interleaving of the atomic operations with up to two
//! preemptions, by loom:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --test caches_loom
//! ```
//!
//! In the model, a cache holds a number instead of payloads, in a cell that loom lets nobody change beside another. The
//! pair of `membarrier` and a fence for the compiler is two fences: loom has no other. Without `--cfg loom` this file
//! only checks that the model has the same text as `src/threads/caches`.

#[cfg(loom)]
mod model {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering, fence};
    use loom::thread;

    const BUSY: usize = usize::MAX - 1;
    const CLOSED: usize = usize::MAX;
    const PREEMPTIONS: usize = 2;

    fn compiler_fence(order: Ordering) {
        fence(order);
    }

    struct Cache {
        pass: AtomicUsize,
        held: UnsafeCell<usize>,
    }

    #[rustfmt::skip]
    impl Cache {
        pub(super) fn enter<R>(&self, gate: &AtomicUsize, work: impl FnOnce() -> Option<R>) -> Option<R> {
            let pass = self.pass.load(Ordering::Relaxed);
            self.pass.store(BUSY, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            let result = if pass == gate.load(Ordering::Acquire) { work() } else { None };
            self.pass.store(pass, Ordering::Release);
            result
        }

        pub(super) fn claim<R>(&self, gate: &AtomicUsize, work: impl FnOnce() -> Option<R>) -> Option<R> {
            let pass = gate.load(Ordering::Relaxed);
            self.pass.compare_exchange(pass, BUSY, Ordering::Acquire, Ordering::Relaxed).ok()?;
            compiler_fence(Ordering::SeqCst);
            let result = if pass == gate.load(Ordering::Acquire) { work() } else { None };
            self.pass.store(pass, Ordering::Release);
            result
        }

        pub(super) fn seize(&self, pass: Option<usize>) -> bool {
            let old = self.pass.load(Ordering::Relaxed);
            let is_due = old != BUSY && old != 0 && pass != Some(old);
            is_due && self.pass.compare_exchange(old, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok()
        }

        pub(super) fn admit(&self, pass: usize) {
            self.pass.store(pass, Ordering::Release);
        }

        pub(super) fn is_busy(&self) -> bool {
            self.pass.load(Ordering::Acquire) == BUSY
        }
    }

    impl Cache {
        fn new(held: usize) -> Self {
            Self { pass: AtomicUsize::new(1), held: UnsafeCell::new(held) }
        }

        /// Changes what the cache holds. Loom ends the test if somebody else may be doing so.
        fn change(&self, work: impl FnOnce(&mut usize)) {
            // SAFETY: loom checks that nobody else accesses the number.
            self.held.with_mut(|held| work(unsafe { &mut *held }));
        }

        fn take_all(&self) -> usize {
            let mut all = 0;
            self.change(|held| all = std::mem::take(held));
            all
        }
    }

    struct Heap {
        gate: AtomicUsize,
        pass: AtomicUsize,
        caches: [Cache; 2],
        depot: Cache,
    }

    impl Heap {
        fn new() -> Self {
            Self {
                gate: AtomicUsize::new(1),
                pass: AtomicUsize::new(1),
                caches: [Cache::new(2), Cache::new(2)],
                depot: Cache::new(0),
            }
        }

        /// One payload from the depot into a cache.
        fn withdraw(&self, own: &Cache) {
            own.enter(&self.gate, || {
                self.depot.claim(&self.gate, || {
                    let mut moved = 0;
                    self.depot.change(|held| {
                        moved = (*held).min(1);
                        *held -= moved;
                    });
                    own.change(|held| *held += moved);
                    Some(())
                })
            });
        }

        /// Closes the gate, waits, and empties what the heap has.
        fn stop(&self) -> usize {
            self.gate.store(CLOSED, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let all = || self.caches.iter().chain([&self.depot]);
            while all().any(Cache::is_busy) {
                thread::yield_now();
            }
            let taken = all().map(Cache::take_all).sum();
            self.gate.store(self.pass.load(Ordering::Relaxed), Ordering::Release);
            taken
        }

        /// Asks all threads to empty their caches, without stopping them.
        fn ask(&self) {
            self.gate.store(CLOSED, Ordering::SeqCst);
            self.pass.store(2, Ordering::Relaxed);
            self.gate.store(2, Ordering::Release);
        }

        /// A thread's slow path: empties its cache and the depot if they are asked for.
        fn answer(&self, own: &Cache) -> usize {
            let pass = self.pass.load(Ordering::Relaxed);
            if own.pass.load(Ordering::Relaxed) == pass {
                return 0;
            }
            let mut taken = own.take_all();
            own.admit(pass);
            if self.depot.seize(Some(pass)) {
                taken += self.depot.take_all();
                self.depot.admit(pass);
            }
            taken
        }
    }

    /// Runs the work of several threads, each of which returns what it took. Nothing is lost or there twice.
    fn check(work: &'static [fn(&Heap) -> usize]) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            let heap = Arc::new(Heap::new());
            let threads: Vec<_> = work[1..]
                .iter()
                .map(|work| {
                    let heap = Arc::clone(&heap);
                    thread::spawn(move || work(&heap))
                })
                .collect();
            let mut taken = work[0](&heap);
            taken += threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
            let left: usize = heap.caches.iter().chain([&heap.depot]).map(Cache::take_all).sum();
            assert_eq!(taken + left, 4);
        });
    }

    /// Two hits, a free and an allocation: what was taken and not given back.
    fn hits(heap: &Heap) -> usize {
        let own = &heap.caches[0];
        let mut mine = 0;
        own.enter(&heap.gate, || {
            own.change(|held| {
                mine = (*held).min(1);
                *held -= mine;
            });
            Some(())
        });
        let given = own.enter(&heap.gate, || {
            own.change(|held| *held += mine);
            Some(())
        });
        if given.is_some() { 0 } else { mine }
    }

    fn deposit(heap: &Heap) -> usize {
        deposit_if_any(heap, 0)
    }

    /// Leaves a payload to others, if the cache still has one.
    fn deposit_if_any(heap: &Heap, number: usize) -> usize {
        let own = &heap.caches[number];
        own.enter(&heap.gate, || {
            heap.depot.claim(&heap.gate, || {
                let mut moved = 0;
                own.change(|held| {
                    moved = (*held).min(1);
                    *held -= moved;
                });
                heap.depot.change(|held| *held += moved);
                Some(())
            })
        });
        0
    }

    fn exchange(heap: &Heap) -> usize {
        deposit_if_any(heap, 1);
        heap.withdraw(&heap.caches[1]);
        0
    }

    fn stop(heap: &Heap) -> usize {
        heap.stop()
    }

    /// The last thread but one ends: the depot is emptied, and nobody enters it any more.
    fn retire(heap: &Heap) -> usize {
        while !heap.depot.seize(None) {
            thread::yield_now();
        }
        let taken = heap.depot.take_all();
        heap.depot.admit(0);
        taken
    }

    fn ask(heap: &Heap) -> usize {
        heap.ask();
        0
    }

    fn answering(number: usize, heap: &Heap) -> usize {
        deposit_if_any(heap, number);
        let taken = heap.answer(&heap.caches[number]);
        deposit_if_any(heap, number);
        taken
    }

    #[test]
    fn hits_beside_a_stop() {
        check(&[hits, stop]);
    }

    #[test]
    fn two_threads_with_a_depot() {
        check(&[deposit, exchange]);
    }

    #[test]
    fn two_threads_with_a_depot_beside_a_stop() {
        check(&[deposit, exchange, stop]);
    }

    #[test]
    fn a_depot_that_is_retired() {
        check(&[retire, exchange]);
    }

    #[test]
    fn threads_that_are_asked() {
        check(&[ask, |heap| answering(0, heap), |heap| answering(1, heap)]);
    }
}

/// A function's lines, without comments and indentation. The first line indented like its head ends it.
#[cfg(not(loom))]
fn function<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.contains(name));
    let indent = lines.next().expect("there is such a function").find(|letter| letter != ' ');
    let lines = lines.take_while(|line| line.find(|letter| letter != ' ') != indent);
    lines.map(str::trim).filter(|line| !line.starts_with("//")).collect()
}

#[cfg(not(loom))]
#[test]
fn the_model_is_the_protocol() {
    let model = include_str!("caches_loom.rs");
    let cache = include_str!("../src/threads/caches/cache.rs");
    let depot = include_str!("../src/threads/caches/depot.rs");
    let functions = [
        (cache, "fn enter<", 6),
        (cache, "fn admit(", 1),
        (cache, "fn is_busy(", 1),
        (depot, "fn claim<", 6),
        (depot, "fn seize(", 3),
    ];
    for (source, name, lines) in functions {
        let source = function(source, name);
        assert_eq!(source.len(), lines, "{source:#?}");
        assert_eq!(source, function(model, name), "{name}");
    }
}
