//! The handing over of blocks under every interleaving of its atomic operations with up to three preemptions, by loom:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --test handover_loom
//! ```
//!
//! The model is the ring with loom's atomics, which cannot be made from zeroed memory, and with four slots in two lines. Without
//! `--cfg loom` this file only checks that the model does, word for word, what `src/threads/free_ring.rs` does.

#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use loom::thread;

    const SLOTS: usize = 4;
    const LINE: usize = 2;
    const FIRST: u64 = 1 << 32;
    const PREEMPTIONS: usize = 3;

    struct Apart<T>(T);

    struct FreeRing {
        head: Apart<AtomicUsize>,
        next: Apart<AtomicUsize>,
        slots: [AtomicU64; SLOTS],
    }

    fn empty(lap: usize) -> u64 {
        lap as u64 % FIRST
    }

    impl FreeRing {
        fn new() -> Self {
            Self {
                head: Apart(AtomicUsize::new(0)),
                next: Apart(AtomicUsize::new(0)),
                slots: std::array::from_fn(|_| AtomicU64::new(0)),
            }
        }

        fn slot(&self, ticket: usize) -> &AtomicU64 {
            &self.slots[ticket % SLOTS]
        }

        fn put(&self, block: u64) -> Option<usize> {
            // Acquire: what fills the slots below is seen by all who see this block.
            let next = self.next.0.load(Ordering::Acquire);
            let mut ticket = next;
            loop {
                let lap = ticket / SLOTS;
                let full = block | (lap as u64 % 2);
                let slot = self.slot(ticket);
                match slot.compare_exchange(empty(lap), full, Ordering::Release, Ordering::Relaxed) {
                    Ok(_) => break,
                    // What was handed over a lap ago is still there.
                    Err(found) if found >= FIRST && found % 2 != full % 2 => return None,
                    Err(_) => ticket = ticket.wrapping_add(1),
                }
            }
            // Unless somebody has since moved it further: it never goes back.
            let behind = ticket.wrapping_add(1);
            let _ = self.next.0.compare_exchange(next, behind, Ordering::Release, Ordering::Relaxed);
            Some(ticket)
        }

        fn take(&self, mut free: impl FnMut(u64)) {
            let mut head = self.head.0.load(Ordering::Relaxed);
            for _ in 0..SLOTS {
                let block = self.slot(head).load(Ordering::Acquire);
                if block < FIRST {
                    break;
                }
                free(block & !1);
                head = head.wrapping_add(1);
                if head.is_multiple_of(LINE) {
                    for ticket in head.wrapping_sub(LINE)..head {
                        self.slot(ticket).store(empty(ticket / SLOTS + 1), Ordering::Relaxed);
                    }
                }
            }
            self.head.0.store(head, Ordering::Relaxed);
        }
    }

    /// What has been taken, by number, and what was handed over by who takes.
    struct Taker<'a> {
        ring: &'a FreeRing,
        taken: Vec<u64>,
        given: Vec<u64>,
    }

    impl Taker<'_> {
        fn take(&mut self) {
            self.ring.take(|block| self.taken.push((block - FIRST) / 2));
        }

        fn put(&mut self, block: u64) {
            if self.ring.put(FIRST + 2 * block).is_some() {
                self.given.push(block);
            }
        }
    }

    /// Lets each of `givers` put its blocks on a thread of its own, while `taker` takes. In the end each block that was
    /// not refused has been taken once, and there is room again.
    fn check(givers: &'static [&'static [u64]], taker: fn(&mut Taker<'_>, &AtomicUsize)) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            let ring = Arc::new(FreeRing::new());
            // How many of the first giver's blocks have been handed over.
            let finished = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..)
                .zip(givers)
                .map(|(number, blocks)| {
                    let (ring, finished) = (Arc::clone(&ring), Arc::clone(&finished));
                    thread::spawn(move || {
                        let mut given = Vec::new();
                        for &block in *blocks {
                            if ring.put(FIRST + 2 * block).is_some() {
                                given.push(block);
                            }
                            if number == 0 {
                                finished.store(given.len(), Ordering::Release);
                            }
                        }
                        given
                    })
                })
                .collect();
            let mut taking = Taker { ring: &ring, taken: Vec::new(), given: Vec::new() };
            taker(&mut taking, &finished);
            let mut given: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            taking.take();
            given.append(&mut taking.given);
            given.sort_unstable();
            taking.taken.sort_unstable();
            assert_eq!(given, taking.taken);
            let head = ring.head.0.load(Ordering::Relaxed);
            let room = (0..=SLOTS).take_while(|_| ring.put(FIRST).is_some()).count();
            assert_eq!(room, SLOTS - head % LINE, "behind {head}");
        });
    }

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice() {
        check(&[&[10, 11], &[20, 21]], |taker, _| {
            taker.take();
            taker.take();
        });
    }

    /// There is room for four, and for less where a line was not emptied yet.
    #[test]
    fn nothing_is_lost_where_the_ring_is_full() {
        check(&[&[10, 11, 12], &[20, 21, 22]], |taker, _| taker.take());
    }

    /// Even if the others have gone round meanwhile.
    #[test]
    fn who_is_late_stops_nobody() {
        check(&[&[10]], |taker, _| {
            for block in 20..20 + 2 * SLOTS as u64 {
                taker.put(block);
                taker.take();
            }
        });
    }

    /// Whatever another thread hands over meanwhile.
    #[test]
    fn what_was_handed_over_before_is_taken() {
        check(&[&[10], &[20]], |taker, finished| {
            let before = finished.load(Ordering::Acquire);
            taker.take();
            assert!(before == 0 || taker.taken.contains(&10), "{:?}", taker.taken);
        });
    }
}

/// A function's lines, without comments and indentation. It ends with the first line that is as far in as its name.
#[cfg(not(loom))]
fn function<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.contains(name));
    let indent = lines.next().expect("there is such a function").find(|letter| letter != ' ');
    let lines = lines.take_while(|line| line.find(|letter| letter != ' ') != indent);
    lines.map(str::trim).filter(|line| !line.starts_with("//")).collect()
}

#[cfg(not(loom))]
#[test]
fn the_model_is_the_ring() {
    let texts = [include_str!("../src/threads/free_ring.rs"), include_str!("handover_loom.rs")];
    for (name, least) in [("fn put(", 10), ("fn take(&self", 12)] {
        let [ring, model] = texts.map(|text| function(text, name));
        assert!(ring.len() > least, "{ring:#?}");
        assert_eq!(ring, model, "{name}");
    }
}
