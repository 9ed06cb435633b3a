//! The queue of remote frees under every interleaving of its atomic operations with up to three preemptions, by loom:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --test handover_loom
//! ```
//!
//! The model is the ring with loom's atomics, which cannot be made from zeroed memory, and with four slots in two cache
//! lines. Without `--cfg loom` this file only checks that the model has the same text as `src/threads/free_ring.rs`.

#[cfg(loom)]
mod model {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use loom::thread;

    const SLOTS: usize = 4;
    const LINE_SLOTS: usize = 2;
    const MIN_BLOCK: u64 = 1 << 32;
    const PREEMPTIONS: usize = 3;

    struct CacheLine<T>(T);

    struct FreeRing {
        head: CacheLine<AtomicUsize>,
        tail: CacheLine<AtomicUsize>,
        slots: [AtomicU64; SLOTS],
    }

    fn empty_slot(lap: usize) -> u64 {
        lap as u64 % MIN_BLOCK
    }

    impl FreeRing {
        fn new() -> Self {
            Self {
                head: CacheLine(AtomicUsize::new(0)),
                tail: CacheLine(AtomicUsize::new(0)),
                slots: std::array::from_fn(|_| AtomicU64::new(0)),
            }
        }

        fn slot(&self, ticket: usize) -> &AtomicU64 {
            &self.slots[ticket % SLOTS]
        }

        fn push(&self, block: u64) -> Option<usize> {
            let tail = self.tail.0.load(Ordering::Acquire);
            let mut ticket = tail;
            loop {
                let lap = ticket / SLOTS;
                let full = block | (lap as u64 % 2);
                let slot = self.slot(ticket);
                match slot.compare_exchange(empty_slot(lap), full, Ordering::Release, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(found) if found >= MIN_BLOCK && found % 2 != full % 2 => return None,
                    Err(_) => ticket = ticket.wrapping_add(1),
                }
            }
            let after = ticket.wrapping_add(1);
            let _ = self.tail.0.compare_exchange(tail, after, Ordering::Release, Ordering::Relaxed);
            Some(ticket)
        }

        fn drain(&self, mut free: impl FnMut(u64)) {
            let mut head = self.head.0.load(Ordering::Relaxed);
            for _ in 0..SLOTS {
                let block = self.slot(head).load(Ordering::Acquire);
                if block < MIN_BLOCK {
                    break;
                }
                free(block & !1);
                head = head.wrapping_add(1);
                if head.is_multiple_of(LINE_SLOTS) {
                    for ticket in head.wrapping_sub(LINE_SLOTS)..head {
                        self.slot(ticket).store(empty_slot(ticket / SLOTS + 1), Ordering::Relaxed);
                    }
                }
            }
            self.head.0.store(head, Ordering::Relaxed);
        }
    }

    /// The consumer: the numbers of the blocks that it drained, and of those that it enqueued itself.
    struct Consumer<'a> {
        ring: &'a FreeRing,
        drained: Vec<u64>,
        pushed: Vec<u64>,
    }

    impl Consumer<'_> {
        fn drain(&mut self) {
            self.ring.drain(|block| self.drained.push((block - MIN_BLOCK) / 2));
        }

        fn push(&mut self, block: u64) {
            if self.ring.push(MIN_BLOCK + 2 * block).is_some() {
                self.pushed.push(block);
            }
        }
    }

    /// Each of `producers` pushes its blocks on a thread of its own while `consumer` runs. In the end every block that
    /// was accepted has been drained once, and the ring has room again.
    fn check(producers: &'static [&'static [u64]], consumer: fn(&mut Consumer<'_>, &AtomicUsize)) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            let ring = Arc::new(FreeRing::new());
            // The number of the first producer's blocks that were accepted.
            let finished = Arc::new(AtomicUsize::new(0));
            let threads: Vec<_> = (0..)
                .zip(producers)
                .map(|(number, blocks)| {
                    let (ring, finished) = (Arc::clone(&ring), Arc::clone(&finished));
                    thread::spawn(move || {
                        let mut pushed = Vec::new();
                        for &block in *blocks {
                            if ring.push(MIN_BLOCK + 2 * block).is_some() {
                                pushed.push(block);
                            }
                            if number == 0 {
                                finished.store(pushed.len(), Ordering::Release);
                            }
                        }
                        pushed
                    })
                })
                .collect();
            let mut consuming = Consumer { ring: &ring, drained: Vec::new(), pushed: Vec::new() };
            consumer(&mut consuming, &finished);
            let mut pushed: Vec<u64> =
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            consuming.drain();
            pushed.append(&mut consuming.pushed);
            pushed.sort_unstable();
            consuming.drained.sort_unstable();
            assert_eq!(pushed, consuming.drained);
            let head = ring.head.0.load(Ordering::Relaxed);
            let room = (0..=SLOTS).take_while(|_| ring.push(MIN_BLOCK).is_some()).count();
            assert_eq!(room, SLOTS - head % LINE_SLOTS, "after {head}");
        });
    }

    #[test]
    fn every_block_is_drained_once() {
        check(&[&[10, 11], &[20, 21]], |consumer, _| {
            consumer.drain();
            consumer.drain();
        });
    }

    /// The ring has room for four blocks, fewer while a drained cache line has not been emptied.
    #[test]
    fn a_full_ring_loses_nothing() {
        check(&[&[10, 11, 12], &[20, 21, 22]], |consumer, _| consumer.drain());
    }

    /// The slow producer comes after the others have pushed two laps.
    #[test]
    fn a_slow_producer_delays_nobody() {
        check(&[&[10]], |consumer, _| {
            for block in 20..20 + 2 * SLOTS as u64 {
                consumer.push(block);
                consumer.drain();
            }
        });
    }

    /// Blocks are drained although another thread pushes meanwhile.
    #[test]
    fn earlier_blocks_are_drained() {
        check(&[&[10], &[20]], |consumer, finished| {
            let before = finished.load(Ordering::Acquire);
            consumer.drain();
            assert!(before == 0 || consumer.drained.contains(&10), "{:?}", consumer.drained);
        });
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
fn the_model_is_the_ring() {
    let texts = [include_str!("../src/threads/free_ring.rs"), include_str!("handover_loom.rs")];
    for (name, least) in [("fn push(", 10), ("fn drain(&self", 12)] {
        let [ring, model] = texts.map(|text| function(text, name));
        assert!(ring.len() > least, "{ring:#?}");
        assert_eq!(ring, model, "{name}");
    }
}
