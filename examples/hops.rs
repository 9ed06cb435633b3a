//! Runs the same workload on the linked and on the indexed free list: every call must get the same place from both.
//! They differ in the hops and the time that they take to find it.

mod common;

use std::alloc::Layout;
use std::process::ExitCode;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use common::{Outcome, Progress};
use lexopt::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};
use smalloc::{FreeList, Heap, HopHistogram, Indexed, Linked};
use smalloc_terminal::{Count, HopChart, parse_size};

/// The number of calls between two updates of the progress bar, which then costs nothing.
const STRIDE: usize = 256;

const HELP: &str = "\
Run the same workload on both free lists, compare their placements call by call,
and show the hops and the time of each.

usage: hops [OPTIONS]

  --live N         how many objects live at once; a hundredth and a tenth of
                   that come first [default: 10000]
  --calls N        how many calls to make with that many objects alive
                   [default: 100000]
  --region SIZE    the size of each heap [default: 256M]
  --seed N         the seed of the random sizes [default: 1]
  -h, --help       print this

Sizes are log-normal around 96 bytes, one request in sixteen is aligned to 32
bytes up to 4 KiB, one call in seven is a realloc.
";

struct Options {
    live: usize,
    calls: usize,
    region: usize,
    seed: u64,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { live: 10_000, calls: 100_000, region: 256 << 20, seed: 1 };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => common::help(HELP),
            Long("live") => options.live = parser.value()?.parse_with(common::parse_count)?,
            Long("calls") => options.calls = parser.value()?.parse_with(common::parse_count)?,
            Long("region") => options.region = parser.value()?.parse_with(parse_size)?,
            Long("seed") => options.seed = parser.value()?.parse_with(common::parse_seed)?,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    common::main(|| {
        let options = options()?;
        let (mut placed, mut refused, mut last) = (0, 0, None);
        print_head();
        for live in steps_up_to(options.live) {
            let script = Script::new(live, options.calls, options.seed);
            let compared = compare(&script, options.region)?;
            let calls = u32::try_from(script.churn.len())?;
            let (linked, indexed) =
                (time::<Linked>(&script, options.region)?, time::<Indexed>(&script, options.region)?);
            print_row::<Linked>(live, &compared, &compared.linked, linked / calls);
            print_row::<Indexed>(live, &compared, &compared.indexed, indexed / calls);
            (placed, refused) = (placed + compared.placed, refused + compared.refused);
            last = Some(compared);
        }
        last.iter().for_each(|last| print_end(placed, refused, last));
        Ok(())
    })
}

/// A hundredth of `live`, a tenth of it, and `live` itself, as far as they are 10 or more.
fn steps_up_to(live: usize) -> impl Iterator<Item = usize> {
    [100, 10, 1].into_iter().map(move |part| live / part).filter(move |&step| step >= 10 || step == live)
}

/// One call of an allocator. A slot is where the program keeps the object.
#[derive(Clone, Copy)]
enum Call {
    Alloc { slot: usize, layout: Layout },
    Free { slot: usize },
    Realloc { slot: usize, size: usize },
}

/// A workload, drawn before it is run, so that drawing is not timed.
struct Script {
    /// Fills all slots.
    fill: Vec<Call>,
    /// Goes on with all slots full: frees an object and allocates another, or changes the size of one.
    churn: Vec<Call>,
    slots: usize,
}

impl Script {
    fn new(slots: usize, calls: usize, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let fill = (0..slots).map(|slot| Call::Alloc { slot, layout: draw_layout(&mut rng) }).collect();
        let mut churn = Vec::with_capacity(calls + 1);
        while churn.len() < calls {
            let slot = rng.random_range(0..slots);
            // Three times in four it is a pair of calls, so one call in seven is a realloc.
            if rng.random_range(0..4) == 0 {
                churn.push(Call::Realloc { slot, size: draw_size(&mut rng) });
            } else {
                churn.push(Call::Free { slot });
                churn.push(Call::Alloc { slot, layout: draw_layout(&mut rng) });
            }
        }
        churn.truncate(calls);
        Self { fill, churn, slots }
    }
}

/// A size around 96 bytes, of which one in a hundred is beyond 1 KiB.
fn draw_size(rng: &mut Xoshiro256PlusPlus) -> usize {
    let sizes = LogNormal::new(96f64.ln(), 1.0).expect("the deviation is a positive number");
    sizes.sample(rng).clamp(1.0, 65_536.0) as usize
}

fn draw_layout(rng: &mut Xoshiro256PlusPlus) -> Layout {
    let align = if rng.random_range(0..16) == 0 { 32 << rng.random_range(0..8) } else { 8 };
    Layout::from_size_align(draw_size(rng), align).expect("the alignment is a small power of two")
}

/// The outcome of a call, as far as the policy decides it: the same for both lists.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// The object is at this offset.
    Placed(usize),
    /// There is no room for it.
    Refused,
    /// No placement: an object was freed, or there was none.
    Done,
}

/// A heap with the objects of a workload in it.
struct Player<L: FreeList> {
    heap: Heap<L>,
    objects: Vec<Option<(NonNull<u8>, Layout)>>,
    steps: Steps,
}

/// The parts of the hops of some allocations.
#[derive(Clone, Copy, Default)]
struct Steps {
    searches: u64,
    stepped: u64,
    probes: u64,
}

impl<L: FreeList> Player<L> {
    fn new(slots: usize, region: usize) -> Outcome<Self> {
        let heap = Heap::with_region_size(region)?;
        Ok(Self { heap, objects: vec![None; slots], steps: Steps::default() })
    }

    fn play(&mut self, call: Call) -> Answer {
        match call {
            Call::Alloc { slot, layout } => self.alloc(slot, layout),
            Call::Free { slot } => self.free(slot),
            Call::Realloc { slot, size } => self.realloc(slot, size),
        }
    }

    fn alloc(&mut self, slot: usize, layout: Layout) -> Answer {
        let (payload, status) = self.heap.smalloc(layout);
        self.steps.searches += 1;
        self.steps.stepped += status.stepped as u64;
        self.steps.probes += status.probes as u64;
        self.objects[slot] = payload.map(|payload| (payload, layout));
        status.payload_offset.map_or(Answer::Refused, Answer::Placed)
    }

    fn free(&mut self, slot: usize) -> Answer {
        if let Some((payload, layout)) = self.objects[slot].take() {
            // SAFETY: the object came from this heap with this layout, and its slot has just forgotten it.
            unsafe { self.heap.dealloc(payload.as_ptr(), layout) };
        }
        Answer::Done
    }

    fn realloc(&mut self, slot: usize, size: usize) -> Answer {
        let Some((payload, layout)) = self.objects[slot] else { return Answer::Done };
        // SAFETY: the object came from this heap with this layout, and the size is neither 0 nor near the address
        // space's end.
        let moved = unsafe { self.heap.realloc(payload.as_ptr(), layout, size) };
        let Some(moved) = NonNull::new(moved) else { return Answer::Refused };
        let layout = Layout::from_size_align(size, layout.align()).expect("it is a layout with a small size");
        self.objects[slot] = Some((moved, layout));
        Answer::Placed(moved.addr().get() - self.heap.base().addr())
    }
}

/// Both lists at the same workload.
struct Duel {
    linked: Player<Linked>,
    indexed: Player<Indexed>,
    placed: u64,
    refused: u64,
}

impl Duel {
    fn new(slots: usize, region: usize) -> Outcome<Self> {
        let (linked, indexed) = (Player::new(slots, region)?, Player::new(slots, region)?);
        Ok(Self { linked, indexed, placed: 0, refused: 0 })
    }

    /// Runs the same calls on both lists and compares each result.
    fn play(&mut self, calls: &[Call]) -> Outcome {
        let mut progress = Progress::new("comparing", calls.len());
        for (number, &call) in calls.iter().enumerate() {
            let (linked, indexed) = (self.linked.play(call), self.indexed.play(call));
            if linked != indexed {
                return Err(format!("call {number}: linked says {linked:?}, indexed says {indexed:?}").into());
            }
            self.placed += u64::from(matches!(linked, Answer::Placed(_)));
            self.refused += u64::from(linked == Answer::Refused);
            if number % STRIDE == 0 {
                progress.step(STRIDE);
            }
        }
        Ok(())
    }

    /// Asserts that both heaps are consistent and have the same segments.
    fn ensure_same_segments(&self) -> Outcome {
        self.linked.heap.check()?;
        self.indexed.heap.check()?;
        let (linked, indexed) = (self.linked.heap.snapshot()?, self.indexed.heap.snapshot()?);
        match linked.segments().eq(indexed.segments()) {
            true => Ok(()),
            false => Err("the heaps have different segments at the end".into()),
        }
    }
}

/// The outcome of a script on both lists, from the moment when all slots were full.
struct Compared {
    placed: u64,
    refused: u64,
    holes: usize,
    linked: Cost,
    indexed: Cost,
}

/// The cost of the searches of one list.
struct Cost {
    steps: Steps,
    hops: HopHistogram,
}

/// Runs a script on both lists at once and returns the cost of their searches.
fn compare(script: &Script, region: usize) -> Outcome<Compared> {
    let mut duel = Duel::new(script.slots, region)?;
    duel.play(&script.fill)?;
    let before = (duel.linked.heap.stats(), duel.indexed.heap.stats());
    (duel.linked.steps, duel.indexed.steps) = Default::default();
    duel.play(&script.churn)?;
    duel.ensure_same_segments()?;

    let (linked, indexed) = (duel.linked.heap.stats(), duel.indexed.heap.stats());
    Ok(Compared {
        placed: duel.placed,
        refused: duel.refused,
        holes: linked.holes(),
        linked: Cost { steps: duel.linked.steps, hops: linked.since(&before.0).hops },
        indexed: Cost { steps: duel.indexed.steps, hops: indexed.since(&before.1).hops },
    })
}

/// Runs a script on one list and times its calls with all slots full.
fn time<L: FreeList>(script: &Script, region: usize) -> Outcome<Duration> {
    let mut player = Player::<L>::new(script.slots, region)?;
    for &call in &script.fill {
        player.play(call);
    }
    let mut progress = Progress::new(L::NAME, script.churn.len());
    let start = Instant::now();
    for calls in script.churn.chunks(STRIDE) {
        for &call in calls {
            player.play(call);
        }
        progress.step(calls.len());
    }
    Ok(start.elapsed())
}

fn print_head() {
    println!(
        "{:>8}{:>8}  {:<8}{:>12}{:>9}{:>9}{:>8}{:>8}{:>12}",
        "live", "holes", "list", "hops mean", "stepped", "probes", "p99", "max", "ns a call"
    );
}

fn print_row<L: FreeList>(live: usize, compared: &Compared, cost: &Cost, each: Duration) {
    let Steps { searches, stepped, probes } = cost.steps;
    let mean = |sum: u64| sum as f64 / searches.max(1) as f64;
    println!(
        "{live:>8}{:>8}  {:<8}{:>12.2}{:>9.2}{:>9.2}{:>8}{:>8}{:>12}",
        compared.holes,
        L::NAME,
        mean(stepped + probes),
        mean(stepped),
        mean(probes),
        cost.hops.quantile(0.99),
        cost.hops.max(),
        Count(each.as_nanos() as u64),
    );
}

/// Prints the result of the comparison, and draws the hops of the largest workload.
fn print_end(placed: u64, refused: u64, last: &Compared) {
    println!("\nBoth lists gave the same place to each of {} objects,", Count(placed));
    println!("found no room for the same {} requests, and ended with the same segments.", Count(refused));
    println!("Hops are free segments stepped over and, in the index, nodes probed.");
    print_chart::<Linked>(&last.linked);
    print_chart::<Indexed>(&last.indexed);
}

fn print_chart<L: FreeList>(cost: &Cost) {
    println!("\n{}:", L::NAME);
    print!("{}", HopChart(&cost.hops));
}
