//! The program and its libraries in memory: where each lies, its build ID and its path. Addresses get their names by
//! them, later and elsewhere.
//!
//! The loader is asked when a call stack has an address that lies in no known object, before the heap is locked: the
//! loader has a lock of its own, and a thread that holds it may allocate. The list only grows, so it is read without a
//! lock. A library that was unloaded stays in it.

use super::stack::Stack;
use crate::system::call;
use crate::threads::object::{Loaded, try_visit_loaded};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Objects at most; addresses in further ones get no names.
const MOST: usize = 256;
/// Bytes of a build ID that are kept. It has 16 to 32.
const BUILD_ID: usize = 32;
/// Bytes of a path. An object with a longer one gets no name.
const PATH: usize = 480;
/// Ranges of addresses that are known to lie in no object: code that the program made while it ran.
const OUTSIDE: usize = 64;
/// Log2 of the bytes of such a range.
const OUTSIDE_SHIFT: u32 = 16;

const WORD: usize = size_of::<u64>();
/// Words before build ID and path: base, start, end, start and end and offset of the code, and bytes of both texts.
const NUMBERS: usize = 8;

/// An object in words that are written before `COUNT` says that they are there.
struct Slot {
    numbers: [AtomicU64; NUMBERS],
    build_id: [AtomicU64; BUILD_ID / WORD],
    path: [AtomicU64; PATH / WORD],
}

static SLOTS: [Slot; MOST] = [const {
    Slot {
        numbers: [const { AtomicU64::new(0) }; NUMBERS],
        build_id: [const { AtomicU64::new(0) }; BUILD_ID / WORD],
        path: [const { AtomicU64::new(0) }; PATH / WORD],
    }
}; MOST];
/// Objects in `SLOTS`. Written only by the thread that asks the loader.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static KNOWN_OUTSIDE: [AtomicUsize; OUTSIDE] = [const { AtomicUsize::new(0) }; OUTSIDE];

/// A loaded object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    /// The difference between addresses in memory and in the file.
    pub(crate) base: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The mapping of its code: start, end, and offset in the file.
    pub(crate) code: [u64; 3],
    build_id: ([u8; BUILD_ID], usize),
    path: ([u8; PATH], usize),
}

impl Object {
    pub(crate) fn build_id(&self) -> &[u8] {
        self.build_id.0.get(..self.build_id.1).unwrap_or_default()
    }

    /// Empty if it is too long.
    pub(crate) fn path(&self) -> &[u8] {
        self.path.0.get(..self.path.1).unwrap_or_default()
    }

    fn new(loaded: &Loaded<'_>) -> Self {
        let mut path = bytes(loaded.path);
        if loaded.path.is_empty() {
            // The loader leaves out the program's own path.
            let read = call::read_link(c"/proc/self/exe", &mut path.0);
            path.1 = usize::try_from(read).unwrap_or(0);
        }
        Self {
            base: loaded.base as u64,
            start: loaded.start as u64,
            end: loaded.end as u64,
            code: [loaded.code.start, loaded.code.end, loaded.code.offset].map(|number| number as u64),
            build_id: bytes(loaded.build_id),
            path,
        }
    }
}

impl Slot {
    fn store(&self, object: &Object) {
        let Object { base, start, end, code: [from, to, offset], build_id, path } = object;
        let numbers = [*base, *start, *end, *from, *to, *offset, build_id.1 as u64, path.1 as u64];
        let store = |(to, from): (&AtomicU64, u64)| to.store(from, Ordering::Relaxed);
        self.numbers.iter().zip(numbers).for_each(store);
        let texts = [(&self.build_id[..], &build_id.0[..]), (&self.path[..], &path.0[..])];
        for (slot, text) in texts {
            slot.iter().zip(text.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word))).for_each(store);
        }
    }

    fn load(&self) -> Object {
        let [base, start, end, from, to, offset, build_id_bytes, path_bytes] =
            self.numbers.each_ref().map(|number| number.load(Ordering::Relaxed));
        let (mut build_id, mut path) = ([0; BUILD_ID], [0; PATH]);
        let texts = [(&self.build_id[..], &mut build_id[..]), (&self.path[..], &mut path[..])];
        for (slot, text) in texts {
            for (from, to) in slot.iter().zip(text.as_chunks_mut().0) {
                *to = from.load(Ordering::Relaxed).to_le_bytes();
            }
        }
        let build_id = (build_id, build_id_bytes as usize);
        Object { base, start, end, code: [from, to, offset], build_id, path: (path, path_bytes as usize) }
    }

    fn contains(&self, address: u64) -> bool {
        let [_, start, end, ..] = &self.numbers;
        (start.load(Ordering::Relaxed)..end.load(Ordering::Relaxed)).contains(&address)
    }
}

/// Bytes in an array, and their number: 0 if they do not fit.
fn bytes<const N: usize>(from: &[u8]) -> ([u8; N], usize) {
    let mut to = [0; N];
    if from.len() > N {
        return (to, 0);
    }
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    (to, from.len())
}

/// All objects that are known, from number `from` on, in the order in which they were found.
pub(crate) fn objects(from: usize) -> impl Iterator<Item = Object> {
    let known = SLOTS.get(..COUNT.load(Ordering::Acquire)).unwrap_or_default();
    known.iter().skip(from).map(Slot::load)
}

/// Asks the loader for objects, if a stack has an address that lies in none of those that are known. The caller holds
/// no lock.
pub(crate) fn find_objects(stack: &Stack) {
    let unknown = |address: &&usize| !is_known(**address as u64) && !is_known_outside(**address);
    if stack.addresses().iter().any(|address| unknown(&address)) {
        ask_loader();
        for &address in stack.addresses().iter().filter(unknown) {
            outside(address).store(address >> OUTSIDE_SHIFT, Ordering::Relaxed);
        }
    }
}

/// The whole list that the loader has. If another thread asks at the moment, that one finds them.
pub(crate) fn ask_loader() {
    try_visit_loaded(&mut |loaded| {
        let object = Object::new(loaded);
        let count = COUNT.load(Ordering::Relaxed);
        let is_new = !objects(0).any(|known| known == object);
        if let Some(slot) = SLOTS.get(count).filter(|_| is_new) {
            slot.store(&object);
            COUNT.store(count.wrapping_add(1), Ordering::Release);
        }
    });
}

fn is_known(address: u64) -> bool {
    let count = COUNT.load(Ordering::Acquire);
    SLOTS.iter().take(count).any(|slot| slot.contains(address))
}

fn is_known_outside(address: usize) -> bool {
    outside(address).load(Ordering::Relaxed) == address >> OUTSIDE_SHIFT
}

/// The place that tells whether an address is known to lie in no object.
fn outside(address: usize) -> &'static AtomicUsize {
    let [first, ..] = &KNOWN_OUTSIDE;
    KNOWN_OUTSIDE.get((address >> OUTSIDE_SHIFT) % OUTSIDE).unwrap_or(first)
}

#[cfg(test)]
#[path = "../../tests/unit/sites/objects.rs"]
mod tests;
