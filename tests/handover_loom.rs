//! The handing over of blocks under every interleaving of its atomic operations with up to three preemptions, by loom:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --test handover_loom
//! ```
//!
//! The model is the ring with loom's atomics, which cannot be made in a constant, and with two slots. Without
//! `--cfg loom` this file only checks that the model does, word for word, what `src/handover.rs` does.

#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use loom::thread;

    const SLOTS: usize = 2;
    const EMPTY: u64 = 0;
    const TAKEN: u64 = 1;
    const FIRST: u64 = 2;
    const PREEMPTIONS: usize = 3;

    struct HandOver {
        head: AtomicUsize,
        tail: AtomicUsize,
        slots: [AtomicU64; SLOTS],
    }

    impl HandOver {
        fn new() -> Self {
            Self {
                head: AtomicUsize::new(0),
                tail: AtomicUsize::new(0),
                slots: [AtomicU64::new(EMPTY), AtomicU64::new(EMPTY)],
            }
        }

        fn slot(&self, ticket: usize) -> &AtomicU64 {
            &self.slots[ticket % SLOTS]
        }

        fn put(&self, block: u64) -> Option<usize> {
            let mut ticket = self.tail.load(Ordering::Relaxed);
            loop {
                // Acquire: the slot was emptied before head passed it.
                if ticket.wrapping_sub(self.head.load(Ordering::Acquire)) >= SLOTS {
                    return None;
                }
                let next = ticket.wrapping_add(1);
                match self.tail.compare_exchange(ticket, next, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(now) => ticket = now,
                }
            }
            self.slot(ticket).store(block, Ordering::Release);
            Some(ticket)
        }

        fn take(&self, mut free: impl FnMut(u64)) {
            let mut head = self.head.load(Ordering::Relaxed);
            let tail = self.tail.load(Ordering::Relaxed);
            let mut ticket = head;
            while ticket != tail {
                let slot = self.slot(ticket);
                let block = slot.load(Ordering::Acquire);
                if block >= FIRST {
                    free(block);
                }
                let in_turn = ticket == head && block != EMPTY;
                ticket = ticket.wrapping_add(1);
                if in_turn {
                    slot.store(EMPTY, Ordering::Relaxed);
                    head = ticket;
                } else if block != EMPTY {
                    slot.store(TAKEN, Ordering::Relaxed);
                }
            }
            self.head.store(head, Ordering::Release);
        }
    }

    /// What has been taken, in no order.
    struct Taker<'a> {
        ring: &'a HandOver,
        taken: Vec<u64>,
    }

    impl Taker<'_> {
        fn take(&mut self) {
            self.ring.take(|block| self.taken.push(block));
        }
    }

    /// Lets each of `givers` put its blocks on a thread of its own, while `taker` takes. In the end each block that was
    /// not refused has been taken once.
    fn check(givers: &'static [&'static [u64]], taker: fn(&mut Taker<'_>, &AtomicUsize)) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            let ring = Arc::new(HandOver::new());
            // How many of the first giver's blocks have been handed over.
            let finished = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..)
                .zip(givers)
                .map(|(number, blocks)| {
                    let (ring, finished) = (Arc::clone(&ring), Arc::clone(&finished));
                    thread::spawn(move || {
                        let mut given = Vec::new();
                        for &block in *blocks {
                            if ring.put(block).is_some() {
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
            let mut taking = Taker { ring: &ring, taken: Vec::new() };
            taker(&mut taking, &finished);
            let mut given: Vec<u64> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            taking.take();
            given.sort_unstable();
            taking.taken.sort_unstable();
            assert_eq!(given, taking.taken);
            assert_eq!(ring.head.load(Ordering::Relaxed), ring.tail.load(Ordering::Relaxed));
        });
    }

    #[test]
    fn nothing_is_lost_and_nothing_comes_twice() {
        check(&[&[10, 11], &[20, 21]], |taker, _| {
            taker.take();
            taker.take();
        });
    }

    /// Even if another thread has drawn the ticket before, and has not come.
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
    let texts = [include_str!("../src/handover.rs"), include_str!("handover_loom.rs")];
    for (name, least) in [("fn put(", 10), ("fn take(&self", 15)] {
        let [ring, model] = texts.map(|text| function(text, name));
        assert!(ring.len() > least, "{ring:#?}");
        assert_eq!(ring, model, "{name}");
    }
}
