//! Random programs of allocations, reallocations and frees, run on the heap and on an oracle of a hundred plain lines.
//! After every call the block must be where the oracle puts it, the linked list must have stepped over as many free
//! segments, `check` must find nothing, and every payload must be intact.
//!
//! `SMALLOC_TEST_SCALE=10` runs ten times as many programs.

mod common;

use common::oracle::{GRANULE, Oracle, rounded};
use common::run::{LARGEST_ALIGN, Op, Program, run, run_lent};
use proptest::collection::vec;
use proptest::prelude::*;
use smalloc::{FreeList, Indexed, Linked};
use std::alloc::Layout;
use std::cell::RefCell;
use std::panic;
use std::sync::Once;

/// Sizes of real programs are small; a few are as large as a quarter of the region, and some lie around the
/// chunk of 64 granules, where words of the segment map end, or above it, where the index does not tell all apart.
fn size(region_size: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 1..=200_usize,
        4 => 1..=2048_usize,
        2 => 62 * GRANULE..=66 * GRANULE,
        2 => 67 * GRANULE..=80 * GRANULE,
        2 => 1..=16 * 1024_usize,
        1 => 1..=region_size / 4,
    ]
}

fn align() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => Just(1_usize),
        3 => (0..=4_u32).prop_map(|power| 1 << power),
        2 => (5..=16_u32).prop_map(|power| 1 << power),
    ]
}

fn op(region_size: usize) -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (size(region_size), align()).prop_map(|(size, align)| Op::Alloc { size, align }),
        1 => (size(region_size), align()).prop_map(|(size, align)| Op::AllocZeroed { size, align }),
        2 => (any::<usize>(), size(region_size)).prop_map(|(index, size)| Op::Realloc { index, size }),
        4 => any::<usize>().prop_map(|index| Op::Free { index }),
    ]
}

fn program(region_size: usize, calls: usize) -> impl Strategy<Value = Program> {
    vec(op(region_size), 1..=calls).prop_map(move |ops| Program { region_size, ops })
}

fn config(cases: u32) -> ProptestConfig {
    let scale = std::env::var("SMALLOC_TEST_SCALE").ok().and_then(|scale| scale.parse::<u32>().ok());
    ProptestConfig { cases: cases * scale.unwrap_or(1), failure_persistence: None, ..Default::default() }
}

thread_local! {
    /// The panic message of the program that this thread runs.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a program, and turns its panic into an error. Shrinking runs hundreds of failing programs; of each only the
/// message is kept, and the last one is shown.
fn agrees<L: FreeList>(program: &Program) -> Result<(), TestCaseError> {
    catch::<L>(|| run::<L>(program))
}

/// Runs a program in lent memory, at this offset from a multiple of [`LARGEST_ALIGN`].
fn agrees_lent<L: FreeList>(program: &Program, offset: usize) -> Result<(), TestCaseError> {
    catch::<L>(|| run_lent::<L>(program, offset))
}

fn catch<L: FreeList>(play: impl Fn() + panic::UnwindSafe) -> Result<(), TestCaseError> {
    static KEEP_MESSAGES: Once = Once::new();
    KEEP_MESSAGES.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let playing = PANIC.with_borrow_mut(|kept| kept.as_mut().map(|kept| *kept = info.to_string()));
            if playing.is_none() {
                print(info);
            }
        }));
    });
    PANIC.set(Some(String::new()));
    let outcome = panic::catch_unwind(play);
    let message = PANIC.take().unwrap_or_default();
    outcome.map_err(|_| TestCaseError::fail(format!("{} list: {message}", L::NAME)))
}

/// One test for each list and size of region, so that they run side by side and name what fails.
macro_rules! same_as_the_oracle {
    ($($name:ident: $list:ty, $region_size:expr, $calls:expr, $cases:expr;)*) => {$(
        #[test]
        fn $name() {
            proptest!(config($cases), |(program in program($region_size, $calls))| {
                agrees::<$list>(&program)?;
            });
        }
    )*};
}

same_as_the_oracle! {
    linked_64_kib: Linked, 64 << 10, 300, 100;
    linked_256_kib: Linked, 256 << 10, 600, 40;
    linked_1_mib: Linked, 1 << 20, 1000, 15;
    linked_8_mib: Linked, 8 << 20, 600, 6;
    indexed_64_kib: Indexed, 64 << 10, 300, 100;
    indexed_256_kib: Indexed, 256 << 10, 600, 40;
    indexed_1_mib: Indexed, 1 << 20, 1000, 15;
    indexed_8_mib: Indexed, 8 << 20, 600, 6;
}

proptest! {
    #![proptest_config(config(40))]

    /// Programs of the fuzz target: any bytes are one, with alignments of up to 2 MiB and empty requests.
    #[test]
    fn bytes_are_programs(program in vec(any::<u8>(), 0..1500).prop_map(|bytes| Program::decode(&bytes))) {
        agrees::<Linked>(&program)?;
        agrees::<Indexed>(&program)?;
    }
}

/// The calls for lent memory at every offset: many requests with a larger alignment than its base, among holes of a few
/// sizes.
fn aligned_op() -> impl Strategy<Value = Op> {
    let size = || prop_oneof![1..=256_usize, 1..=3000_usize];
    prop_oneof![
        3 => (size(), (0..=16_u32).prop_map(|power| 1 << power)).prop_map(|(size, align)| Op::Alloc { size, align }),
        1 => (any::<usize>(), size()).prop_map(|(index, size)| Op::Realloc { index, size }),
        3 => any::<usize>().prop_map(|index| Op::Free { index }),
    ]
}

proptest! {
    #![proptest_config(config(1))]

    /// The base of lent memory is aligned to 64 bytes, and payloads to their layouts: at each of the 1024 places that a
    /// base can have between two multiples of 64 KiB.
    #[test]
    fn lent_memory_may_begin_anywhere(ops in vec(aligned_op(), 150..=200)) {
        let program = Program { region_size: 256 << 10, ops };
        for offset in (0..LARGEST_ALIGN).step_by(64) {
            agrees_lent::<Indexed>(&program, offset)?;
            agrees_lent::<Linked>(&program, offset)?;
        }
    }
}

/// A first fit that is even simpler than the oracle: one flag for each granule.
struct Granules(Vec<bool>);

impl Granules {
    fn set(&mut self, offset: usize, size: usize, in_use: bool) {
        self.0[offset / GRANULE..(offset + size) / GRANULE].fill(in_use);
    }

    fn fits(&self, offset: usize, size: usize) -> bool {
        offset + size <= self.0.len() * GRANULE
            && !self.0[offset / GRANULE..(offset + size) / GRANULE].contains(&true)
    }

    /// Tries every aligned offset from below; hops are the holes that begin below the one that is used.
    fn alloc(&mut self, layout: Layout) -> (Option<usize>, usize) {
        let size = rounded(layout.size());
        let end = self.0.len() * GRANULE;
        let found = (0..end).step_by(layout.align().max(GRANULE)).find(|&offset| self.fits(offset, size));
        let holes_below = |offset: usize| {
            (0..offset / GRANULE).filter(|&g| !self.0[g] && (g == 0 || self.0[g - 1])).count()
        };
        let hops = found.map_or_else(|| holes_below(end), |offset| holes_below(offset + GRANULE) - 1);
        if let Some(offset) = found {
            self.set(offset, size, true);
        }
        (found, hops)
    }
}

proptest! {
    #![proptest_config(config(50))]

    /// The oracle agrees with the simpler first fit.
    #[test]
    fn oracle_is_first_fit(ops in vec(op(16 << 10), 1..150)) {
        let mut oracle = Oracle::new(2 << 20, 16 << 10);
        let mut granules = Granules(vec![false; (16 << 10) / GRANULE]);
        let mut live: Vec<(usize, Layout)> = Vec::new();
        for op in ops {
            match op {
                Op::Alloc { size, align } | Op::AllocZeroed { size, align } => {
                    let layout = Layout::from_size_align(size, align).unwrap();
                    let placed = oracle.alloc(layout);
                    prop_assert_eq!((placed.offset, placed.hops), granules.alloc(layout));
                    live.extend(placed.offset.map(|offset| (offset, layout)));
                }
                Op::Realloc { .. } | Op::Free { .. } if live.is_empty() => {}
                Op::Realloc { index, size } => {
                    let index = index % live.len();
                    let (offset, layout) = live[index];
                    let resized = Layout::from_size_align(size, layout.align()).unwrap();
                    let now = oracle.realloc(offset, layout, size).map_or(Some(offset), |placed| placed.offset);
                    prop_assert_eq!(now, resize(&mut granules, offset, layout, resized));
                    if let Some(now) = now {
                        live[index] = (now, resized);
                    }
                }
                Op::Free { index } => {
                    let (offset, layout) = live.swap_remove(index % live.len());
                    oracle.free(offset);
                    granules.set(offset, rounded(layout.size()), false);
                }
            }
        }
    }
}

fn resize(granules: &mut Granules, offset: usize, old: Layout, new: Layout) -> Option<usize> {
    let (old_size, new_size) = (rounded(old.size()), rounded(new.size()));
    granules.set(offset, old_size, false);
    if granules.fits(offset, new_size) {
        granules.set(offset, new_size, true);
        return Some(offset);
    }
    granules.set(offset, old_size, true);
    let (moved, _) = granules.alloc(new);
    if moved.is_some() {
        granules.set(offset, old_size, false);
    }
    moved
}
