//! The work of the example `cache`, apart from its heap: a cache of values, and the clients that request keys.
//! `smalloc-bench programs` does the same work with other allocators.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, PoisonError};
use std::thread;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal, Zipf};

/// The number of parts of the cache, each with a lock of its own.
const SHARDS: usize = 16;
/// The largest value, in bytes.
const LARGEST: f64 = 262_144.0;

/// An allocator that holds the values of a cache.
pub(crate) trait Heap: GlobalAlloc + Sync + 'static {}

impl<A: GlobalAlloc + Sync + 'static> Heap for A {}

/// The load on a cache.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) threads: usize,
    pub(crate) keys: usize,
    /// The limit on the bytes of all values together.
    pub(crate) capacity: usize,
    /// The seed of the random keys and sizes.
    pub(crate) seed: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self { threads: 4, keys: 500_000, capacity: 64 << 20, seed: 1 }
    }
}

/// The clients of a load, one for each thread.
pub(crate) fn clients(load: &Load) -> Vec<Client> {
    (0..load.threads).map(|number| Client::new(number, load)).collect()
}

/// Serves `requests` requests with all clients at once, the first of them on this thread: a single client then has the
/// heap to itself, and no thread ends in between.
pub(crate) fn serve<A: Heap>(
    cache: &Cache<A>,
    clients: &mut [Client],
    requests: usize,
) -> Result<Tally, String> {
    let threads = clients.len();
    let share = |number: usize| requests * (number + 1) / threads - requests * number / threads;
    let (first, others) = clients.split_first_mut().ok_or("there is no client")?;
    let mut tallies = Vec::with_capacity(threads);
    thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads);
        for (number, client) in (1..).zip(others) {
            let share = share(number);
            handles.push(scope.spawn(move || client.serve(cache, share)));
        }
        tallies.push(first.serve(cache, share(0)));
        tallies.extend(handles.into_iter().map(|handle| handle.join().expect("a client does not panic")));
    });
    let mut sum = Tally::default();
    tallies.iter().for_each(|tally| sum.add(tally));
    match sum.damaged {
        0 => Ok(sum),
        damaged => Err(format!("{damaged} values were not what had been stored")),
    }
}

/// The results of the clients.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) asked: u64,
    pub(crate) hits: u64,
    pub(crate) refused: u64,
    damaged: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.hits += other.hits;
        self.refused += other.refused;
        self.damaged += other.damaged;
    }

    pub(crate) fn hit_percent(&self) -> f64 {
        100.0 * self.hits as f64 / self.asked.max(1) as f64
    }
}

/// A thread's part of the load.
pub(crate) struct Client {
    rng: Xoshiro256PlusPlus,
    keys: Zipf<f64>,
    sizes: LogNormal<f64>,
}

impl Client {
    fn new(number: usize, load: &Load) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(load.seed.wrapping_add(number as u64));
        let keys = Zipf::new(load.keys as f64, 1.0).expect("there is a key");
        let sizes = LogNormal::new(256f64.ln(), 1.0).expect("the deviation is a positive number");
        Self { rng, keys, sizes }
    }

    fn serve<A: Heap>(&mut self, cache: &Cache<A>, requests: usize) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..requests {
            let key = self.keys.sample(&mut self.rng) as u64;
            match self.rng.random_range(0..100) {
                0..5 => self.store(cache, key, &mut tally),
                5..8 => cache.remove(key),
                _ => self.ask(cache, key, &mut tally),
            }
        }
        tally
    }

    /// Requests a key's value, and creates it if it is not there.
    fn ask<A: Heap>(&mut self, cache: &Cache<A>, key: u64, tally: &mut Tally) {
        tally.asked += 1;
        match cache.get(key) {
            Some(whole) => {
                tally.hits += 1;
                tally.damaged += u64::from(!whole);
            }
            None => self.store(cache, key, tally),
        }
    }

    /// Creates a value and stores it. The allocation is made without the shard's lock.
    fn store<A: Heap>(&mut self, cache: &Cache<A>, key: u64, tally: &mut Tally) {
        let size = self.sizes.sample(&mut self.rng).clamp(1.0, LARGEST) as usize;
        match Value::new(cache.heap, key, size) {
            Some(value) => cache.put(key, value),
            None => tally.refused += 1,
        }
    }
}

/// The values of keys, up to a number of bytes.
pub(crate) struct Cache<A: Heap> {
    heap: &'static A,
    shards: Vec<Mutex<Shard<A>>>,
}

impl<A: Heap> Cache<A> {
    pub(crate) fn new(heap: &'static A, load: &Load) -> Self {
        let keys = load.keys.div_ceil(SHARDS);
        let shard = || Mutex::new(Shard::new(keys, load.capacity / SHARDS));
        Self { heap, shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Runs `work` with the shard of a key, whose lock it holds.
    fn with_shard<T>(&self, key: u64, action: impl FnOnce(&mut Shard<A>) -> T) -> T {
        let shard = &self.shards[key as usize % SHARDS];
        action(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the value of a key is the stored one; none if it is not there.
    fn get(&self, key: u64) -> Option<bool> {
        self.with_shard(key, |shard| {
            let slot = shard.slots.get_mut(&key)?;
            slot.touched = true;
            slot.value.as_ref().map(|value| value.is_of(key))
        })
    }

    fn put(&self, key: u64, value: Value<A>) {
        self.with_shard(key, |shard| shard.put(key, value));
    }

    fn remove(&self, key: u64) {
        self.with_shard(key, |shard| shard.remove(key));
    }

    /// The number of values, and of the bytes that they requested.
    pub(crate) fn size(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (shard.slots.values().filter(|slot| slot.value.is_some()).count(), shard.bytes)
        });
        sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }
}

/// A part of the cache. The queue holds each key that has a slot once, in the order in which they are evicted. A key
/// that was requested in the meantime goes through the queue once more.
struct Shard<A: Heap> {
    /// Its hashes are the same in each run, so that the table grows at the same moment.
    slots: HashMap<u64, Slot<A>, BuildHasherDefault<DefaultHasher>>,
    queue: VecDeque<u64>,
    bytes: usize,
    capacity: usize,
}

/// The place of a key. It stays until its turn comes, with or without a value.
struct Slot<A: Heap> {
    value: Option<Value<A>>,
    touched: bool,
}

impl<A: Heap> Shard<A> {
    fn new(keys: usize, capacity: usize) -> Self {
        let slots = HashMap::with_capacity_and_hasher(keys, BuildHasherDefault::new());
        Self { slots, queue: VecDeque::with_capacity(keys), bytes: 0, capacity }
    }

    fn put(&mut self, key: u64, value: Value<A>) {
        self.remove(key);
        while self.bytes + value.layout.size() > self.capacity && self.throw_out() {}
        self.bytes += value.layout.size();
        let slot = self.slots.entry(key).or_insert_with(|| {
            self.queue.push_back(key);
            Slot { value: None, touched: false }
        });
        slot.value = Some(value);
    }

    fn remove(&mut self, key: u64) {
        let value = self.slots.get_mut(&key).and_then(|slot| slot.value.take());
        self.bytes -= value.map_or(0, |value| value.layout.size());
    }

    /// Evicts the first key of the queue that was not requested since its last turn; false if there is none.
    fn throw_out(&mut self) -> bool {
        while let Some(key) = self.queue.pop_front() {
            match self.slots.get_mut(&key) {
                Some(slot) if slot.touched => {
                    slot.touched = false;
                    self.queue.push_back(key);
                }
                _ => {
                    self.remove(key);
                    self.slots.remove(&key);
                    return true;
                }
            }
        }
        false
    }
}

/// A value: bytes in a heap, each of which depends on the key.
struct Value<A: Heap> {
    heap: &'static A,
    payload: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a value owns its bytes, and its heap frees them on any thread.
unsafe impl<A: Heap> Send for Value<A> {}

impl<A: Heap> Value<A> {
    /// Allocates a value; none if the heap has no room for it. Values have one byte at least.
    fn new(heap: &'static A, key: u64, size: usize) -> Option<Self> {
        let layout = Layout::array::<u8>(size.max(1)).ok()?;
        // SAFETY: the layout is not empty.
        let payload = NonNull::new(unsafe { heap.alloc(layout) })?;
        // SAFETY: the payload is as large as the layout, and nothing else refers to it.
        unsafe { payload.write_bytes(key as u8, layout.size()) };
        Some(Self { heap, payload, layout })
    }

    /// Whether the first and the last byte are those that were stored for this key.
    fn is_of(&self, key: u64) -> bool {
        // SAFETY: the payload is as large as the layout, and `new` has written all of it.
        let bytes = unsafe { slice::from_raw_parts(self.payload.as_ptr(), self.layout.size()) };
        bytes.first() == Some(&(key as u8)) && bytes.last() == Some(&(key as u8))
    }
}

impl<A: Heap> Drop for Value<A> {
    fn drop(&mut self) {
        // SAFETY: the payload was allocated by this heap with this layout, and its only owner is being dropped.
        unsafe { self.heap.dealloc(self.payload.as_ptr(), self.layout) };
    }
}
