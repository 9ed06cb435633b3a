//! A program's numbers in a page that other processes can read: the layout, writing and reading.

use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use core::time::Duration;

use super::histogram::HopHistogram;
use super::number::{narrow, wide};
use super::stats::Stats;
use crate::system::clock::sleep_ns;
use crate::system::errno::Reason;
use crate::system::path::Path;
use crate::system::shared_page::{SharedPage, Words, remove};

/// `smalloc` and a zero byte, in memory order.
const MAGIC: u64 = u64::from_le_bytes(*b"smalloc\0");
const VERSION: u64 = 3;

// Offsets of the parts, in words.
const HEAD: usize = 0;
const NOW: usize = 8;
const LAST: usize = 16;
const NUMBERS: usize = 20;
const HOPS: usize = NUMBERS + 28;
const FAILED_HOPS: usize = HOPS + HopHistogram::WORDS;
const END: usize = FAILED_HOPS + HopHistogram::WORDS;
static_assertions::const_assert!(END <= crate::system::shared_page::PAGE_WORDS);

/// Attempts to read a page that is being written: first without a pause, then after sleeping 1 ms each. The reader
/// takes an inconsistent page after about a second.
const SPINS: usize = 1_000;
const SLEEPS: usize = 1_000;

/// Reads a program's numbers from another process. The program writes them to a file because of
/// [`SmallocGlobal::publish_to`](crate::SmallocGlobal::publish_to) or the environment variable `SMALLOC_LIVE`.
///
/// `smalloc top` shows them on a terminal.
///
/// ```no_run
/// let live = smalloc::Live::open("/tmp/heap.live")?;
/// let published = live.read();
/// println!("process {}: {} bytes in use, top at {}", live.process(), published.used_bytes, published.top);
/// println!("{}", published.stats);
/// # Ok::<(), smalloc::LiveError>(())
/// ```
///
/// # Layout, version 3
///
/// The file has 4096 bytes: 512 little-endian words of 64 bits.
///
/// | word | content |
/// |---|---|
/// | 0 | `smalloc` and a zero byte |
/// | 1 | version of the layout, 3 |
/// | 2 | number of the process |
/// | 3 | time when it started to publish, in nanoseconds since the system started (`CLOCK_BOOTTIME`) |
/// | 4 | 0 while the program publishes, 1 after it has stopped |
/// | 5 | free list: 0 `linked`, 1 `indexed` |
/// | 8 | sequence number of words 9 to 12, odd while they are written |
/// | 9 | calls since the program started to publish |
/// | 10 to 11 | bytes in use, top |
/// | 16 | sequence number of words 17 to 307, odd while they are written |
/// | 17 | word 9 at the time of writing |
/// | 18 | time of writing, on the clock of word 3 |
/// | 20 to 47 | numbers of [`Stats`] in the order of its fields, without the histograms |
/// | 48 to 177 | `hops`: 128 buckets, the sum, the maximum |
/// | 178 to 307 | `failed_hops`, likewise |
///
/// Every call writes words 9 to 12. The others are written at most every 4 ms.
#[derive(Debug)]
pub struct Live {
    page: SharedPage,
}

/// The numbers that a program published last; see [`Live::read`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Published {
    /// Calls since the program started to publish, up to now.
    pub calls: u64,
    /// Bytes in use now.
    pub used_bytes: usize,
    /// Top now.
    pub top: usize,
    /// All numbers, some calls ago.
    pub stats: Stats,
    /// Calls made after `stats` was written. An idle program may never publish its last ones.
    pub calls_since: u64,
    /// The time of `stats`, since the system started.
    pub at: Duration,
    /// Whether the program has stopped publishing.
    pub stopped: bool,
    /// Whether the numbers are consistent. False if the program was killed or stopped while it wrote them.
    pub whole: bool,
}

/// Numbers could not be published or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LiveError {
    /// The heap is not a static, or there are too many statics: a child of `fork` could not be told from its parent.
    NotStatic,
    /// The heap already publishes.
    AlreadyPublishing,
    /// Another heap or process already publishes to that file.
    InUse {
        /// The number of the process.
        process: u32,
    },
    /// The file exists and is not a page that a heap publishes to.
    OtherFile,
    /// The layout has a version that this library does not know.
    Version {
        /// The version.
        found: u64,
    },
    /// The path contains a zero byte or is too long.
    BadPath,
    /// The system refused the file.
    System {
        /// The system's error number.
        errno: i32,
    },
}

impl fmt::Display for LiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotStatic => f.write_str("only a heap that is a static can publish"),
            Self::AlreadyPublishing => f.write_str("the heap already publishes"),
            Self::InUse { process } => write!(f, "process {process} already publishes there"),
            Self::OtherFile => f.write_str("the file is not a page that a heap publishes to"),
            Self::Version { found } => write!(f, "layout version {found} is not supported, only {VERSION}"),
            Self::BadPath => f.write_str("the path is not valid"),
            Self::System { errno } => write!(f, "{}", Reason(errno)),
        }
    }
}

impl core::error::Error for LiveError {}

fn get(words: &Words, at: usize) -> u64 {
    words.get(at).map_or(0, |word| word.load(Ordering::Relaxed))
}

fn set(words: &Words, at: usize, value: u64) {
    if let Some(word) = words.get(at) {
        word.store(value, Ordering::Relaxed);
    }
}

/// Writes words that are guarded by the sequence number at `sequence`. Only one thread at a time may do so.
#[inline]
fn write_sequence(words: &Words, sequence: usize, write: impl FnOnce()) {
    let before = get(words, sequence);
    set(words, sequence, before.wrapping_add(1));
    fence(Ordering::Release);
    write();
    fence(Ordering::Release);
    set(words, sequence, before.wrapping_add(2));
}

/// Reads words that are guarded by the sequence number at `sequence`. Retries until no write overlapped the read;
/// returns false if that never happened, because the writer is not running or died while it wrote.
fn read_sequence<R>(words: &Words, sequence: usize, read: impl Fn() -> R) -> (R, bool) {
    for attempt in 0..SPINS.saturating_add(SLEEPS) {
        let before = words.get(sequence).map_or(0, |word| word.load(Ordering::Acquire));
        let result = read();
        fence(Ordering::Acquire);
        if before.is_multiple_of(2) && get(words, sequence) == before {
            return (result, true);
        }
        if attempt < SPINS { core::hint::spin_loop() } else { sleep_ns(1_000_000) }
    }
    (read(), false)
}

// ---- writing -----------------------------------------------------------------------------------------------------

/// The page that a heap publishes to, used by the thread that holds the heap's lock.
#[derive(Debug)]
pub(crate) struct LivePage {
    page: SharedPage,
    /// The earliest time of the next full write, on a clock that is cheap to read.
    next_ns: AtomicU64,
}

impl LivePage {
    /// Creates the file, and replaces one that a process has left behind. `began_ns` is the time when this process
    /// first published; `clock_ns` reads the clock.
    pub(crate) fn create(
        path: &Path,
        process: u32,
        (began_ns, clock_ns): (u64, fn() -> u64),
        list: &str,
    ) -> Result<Self, LiveError> {
        let path = path.as_c().ok_or(LiveError::BadPath)?;
        let first = [MAGIC, VERSION, u64::from(process), clock_ns(), 0, u64::from(list == "indexed")];
        let page = match SharedPage::create(path, &first) {
            Err(libc::EEXIST) => {
                let old = Live::open_at(path)?;
                // An earlier process may have had the same number.
                let own = old.process() == process && (began_ns..=clock_ns()).contains(&old.began_ns());
                if !old.stopped() && (own || old.process() != process && runs(old.process())) {
                    return Err(LiveError::InUse { process: old.process() });
                }
                // Removing keeps the old file alive for processes that have mapped it; truncating would crash them.
                remove(path);
                SharedPage::create(path, &first)
            }
            page => page,
        };
        let page = page.map_err(|errno| LiveError::System { errno })?;
        Ok(Self { page, next_ns: AtomicU64::new(0) })
    }

    pub(crate) fn process(&self) -> u64 {
        get(self.page.words(), HEAD + 2)
    }

    /// Writes the words of every call. Returns whether all numbers are due at `now_ns`.
    #[inline]
    pub(crate) fn call(&self, used_bytes: usize, top: usize, now_ns: u64) -> bool {
        let words = self.page.words();
        write_sequence(words, NOW, || {
            set(words, NOW + 1, get(words, NOW + 1).wrapping_add(1));
            set(words, NOW + 2, wide(used_bytes));
            set(words, NOW + 3, wide(top));
        });
        now_ns >= self.next_ns.load(Ordering::Relaxed)
    }

    /// Writes all numbers. The next such write is due at `next_ns`.
    pub(crate) fn write(&self, stats: &Stats, at_ns: u64, next_ns: u64) {
        self.next_ns.store(next_ns, Ordering::Relaxed);
        let words = self.page.words();
        write_sequence(words, LAST, || {
            set(words, LAST + 1, get(words, NOW + 1));
            set(words, LAST + 2, at_ns);
            for (at, number) in numbers(stats).into_iter().enumerate() {
                set(words, NUMBERS.wrapping_add(at), number);
            }
            stats.hops.to_words(|at, word| set(words, HOPS.wrapping_add(at), word));
            stats.failed_hops.to_words(|at, word| set(words, FAILED_HOPS.wrapping_add(at), word));
        });
    }

    pub(crate) fn stop(&self) {
        set(self.page.words(), HEAD + 4, 1);
    }
}

fn runs(process: u32) -> bool {
    // SAFETY: signal 0 is not sent; the call only checks.
    let found = unsafe { libc::kill(process as libc::pid_t, 0) } == 0;
    found || crate::system::errno::get() == libc::EPERM
}

// The numbers in the order of the page, from and to [`Stats`].
macro_rules! numbers {
    ($($field:ident)*) => {
        fn numbers(stats: &Stats) -> [u64; HOPS - NUMBERS] {
            [$(stats.$field as u64,)*]
        }

        fn stats(words: &Words) -> Stats {
            let mut words = (NUMBERS..HOPS).map(|at| get(words, at));
            let mut next = || words.next().unwrap_or(0);
            Stats { $($field: next() as _,)* ..Stats::default() }
        }
    };
}

numbers! {
    region_size used_bytes free_bytes top peak_used_bytes peak_top live_segments free_segments hole_bytes largest_hole
    allocs frees reallocs reallocs_in_place reallocs_moved failures last_failed_size requested_total allocated_total
    splits coalesces contended handed_over cached_bytes cache_hits committed_bytes metadata_bytes purged_total
}

// ---- reading -----------------------------------------------------------------------------------------------------

impl Live {
    /// Opens the file that a program publishes to. Later reads see what it writes.
    ///
    /// # Errors
    /// The file does not exist, cannot be read, or is not a page that a heap publishes to.
    pub fn open(path: impl AsRef<[u8]>) -> Result<Self, LiveError> {
        crate::system::errno::unchanged(|| {
            Self::open_at(Path::new(path.as_ref()).as_c().ok_or(LiveError::BadPath)?)
        })
    }

    fn open_at(path: &CStr) -> Result<Self, LiveError> {
        let page = SharedPage::open(path).map_err(|errno| LiveError::System { errno })?;
        let page = page.filter(|page| get(page.words(), HEAD) == MAGIC).ok_or(LiveError::OtherFile)?;
        match get(page.words(), HEAD + 1) {
            VERSION => Ok(Self { page }),
            found => Err(LiveError::Version { found }),
        }
    }

    /// The number of the publishing process.
    #[must_use]
    pub fn process(&self) -> u32 {
        get(self.page.words(), HEAD + 2) as u32
    }

    /// The time when it started to publish, since the system started.
    #[must_use]
    pub fn began(&self) -> Duration {
        Duration::from_nanos(self.began_ns())
    }

    fn began_ns(&self) -> u64 {
        get(self.page.words(), HEAD + 3)
    }

    /// The heap's free list: `linked` or `indexed`.
    #[must_use]
    pub fn list(&self) -> &'static str {
        if get(self.page.words(), HEAD + 5) == 0 { "linked" } else { "indexed" }
    }

    fn stopped(&self) -> bool {
        get(self.page.words(), HEAD + 4) != 0
    }

    /// The last published numbers. All belong to one instant, except those of now. If the program is just writing,
    /// waits for it, for about a second at most.
    #[must_use]
    pub fn read(&self) -> Published {
        let words = self.page.words();
        let ((stats, calls_then, at), whole) = read_sequence(words, LAST, || {
            let histogram = |from: usize| HopHistogram::from_words(|at| get(words, from.wrapping_add(at)));
            let stats = Stats { hops: histogram(HOPS), failed_hops: histogram(FAILED_HOPS), ..stats(words) };
            (stats, get(words, LAST + 1), Duration::from_nanos(get(words, LAST + 2)))
        });
        let ([calls, used_bytes, top], whole_now) =
            read_sequence(words, NOW, || [NOW + 1, NOW + 2, NOW + 3].map(|at| get(words, at)));
        Published {
            calls,
            used_bytes: narrow(used_bytes),
            top: narrow(top),
            stats,
            calls_since: calls.saturating_sub(calls_then),
            at,
            stopped: self.stopped(),
            whole: whole && whole_now,
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/live.rs"]
mod tests;
