//! Traces of real programs, decoded to compact calls before anything is timed.
//!
//! The text form is that of Android's memory_replay: `TID: malloc 0xADDR SIZE`, `TID: calloc 0xADDR COUNT SIZE`, `TID:
//! memalign 0xADDR ALIGN SIZE`, `TID: realloc 0xNEW 0xOLD SIZE`, `TID: free 0xADDR`; one per line, plain or gzipped.
//! Addresses only name blocks. Thread numbers are ignored: the file's order is the order of the replay.

use std::alloc::Layout;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// The action of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Allocates `size` bytes.
    Alloc,
    /// Allocates `size` bytes of zeros.
    Zeroed,
    /// Changes the block from `old_size` to `size` bytes.
    Realloc,
    /// Frees the block of `size` bytes.
    Free,
}

/// One call in 12 bytes: a replay streams through millions of them and must leave the caches to
/// the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Call {
    /// Slot in the low 25 bits, then 5 bits of log2(align), then 2 bits of action.
    word: u32,
    size: u32,
    old_size: u32,
}

const SLOT_BITS: u32 = 25;
const ALIGN_BITS: u32 = 5;

impl Call {
    /// A call on the block of `slot`; `align` is a power of two.
    ///
    /// # Panics
    ///
    /// If a number does not fit: 32 million blocks live at once, sizes below 4 GiB.
    pub fn new(action: Action, slot: usize, align: usize, size: usize, old_size: usize) -> Self {
        assert!(slot < 1 << SLOT_BITS, "more than 32 million live blocks");
        let align_log = align.trailing_zeros() & ((1 << ALIGN_BITS) - 1);
        let word = slot as u32 | align_log << SLOT_BITS | (action as u32) << (SLOT_BITS + ALIGN_BITS);
        let narrow = |bytes: usize| u32::try_from(bytes).expect("blocks are smaller than 4 GiB");
        Self { word, size: narrow(size), old_size: narrow(old_size) }
    }

    /// The action.
    #[inline]
    pub fn action(self) -> Action {
        match self.word >> (SLOT_BITS + ALIGN_BITS) {
            0 => Action::Alloc,
            1 => Action::Zeroed,
            2 => Action::Realloc,
            _ => Action::Free,
        }
    }

    /// The number of the block in the table of live blocks.
    #[inline]
    pub fn slot(self) -> usize {
        (self.word & ((1 << SLOT_BITS) - 1)) as usize
    }

    /// The requested size; for a free, the size of the block.
    #[inline]
    pub fn size(self) -> usize {
        self.size as usize
    }

    /// The size of the block before a realloc.
    #[inline]
    pub fn old_size(self) -> usize {
        self.old_size as usize
    }

    #[inline]
    fn layout_of(self, size: usize) -> Layout {
        let align = 1usize << ((self.word >> SLOT_BITS) & ((1 << ALIGN_BITS) - 1));
        // SAFETY: a power of two of at most 2^31, and a size of 32 bits, cannot overflow.
        unsafe { Layout::from_size_align_unchecked(size, align) }
    }

    /// The layout of the block after the call, or the one it is freed with.
    #[inline]
    pub fn layout(self) -> Layout {
        self.layout_of(self.size())
    }

    /// The layout of the block before a realloc.
    #[inline]
    pub fn old_layout(self) -> Layout {
        self.layout_of(self.old_size())
    }
}

/// A decoded trace.
#[derive(Debug, Default)]
pub struct Trace {
    /// The file's name without its endings.
    pub name: String,
    /// The calls in order.
    pub calls: Vec<Call>,
    /// Frees of the blocks that are live at the end, so that a replay can be repeated.
    pub leaks: Vec<Call>,
    /// The number of slots that the calls use: the most blocks that are live at the same time.
    pub slots: usize,
    /// The most bytes that are live at the same time.
    pub peak_live: usize,
    /// The number of calls after which that many bytes are live for the first time.
    pub peak_at: usize,
    /// Frees and reallocs of addresses that were never seen, left out.
    pub skipped: usize,
}

/// A live block while a trace is decoded.
struct Block {
    slot: usize,
    align: usize,
    size: usize,
}

/// The state of decoding.
struct Decoder {
    trace: Trace,
    live: HashMap<u64, Block>,
    free_slots: Vec<usize>,
    live_bytes: usize,
    max_align: usize,
}

impl Decoder {
    fn new(name: String, max_align: usize) -> Self {
        let trace = Trace { name, ..Trace::default() };
        Self { trace, live: HashMap::new(), free_slots: Vec::new(), live_bytes: 0, max_align }
    }

    /// Rust types are never aligned beyond their size, and so are the layouts made here.
    fn natural_align(&self, size: usize) -> usize {
        self.max_align.min(1 << size.ilog2())
    }

    fn grow(&mut self, bytes: usize) {
        self.live_bytes += bytes;
        if self.live_bytes > self.trace.peak_live {
            self.trace.peak_live = self.live_bytes;
            self.trace.peak_at = self.trace.calls.len();
        }
    }

    fn alloc(&mut self, action: Action, address: u64, align: usize, size: usize) {
        if self.live.contains_key(&address) {
            // The free in between was not recorded.
            self.free(address);
        }
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.trace.slots += 1;
            self.trace.slots - 1
        });
        self.trace.calls.push(Call::new(action, slot, align, size, 0));
        self.live.insert(address, Block { slot, align, size });
        self.grow(size);
    }

    fn free(&mut self, address: u64) {
        let Some(block) = self.live.remove(&address) else {
            self.trace.skipped += 1;
            return;
        };
        self.live_bytes -= block.size;
        self.free_slots.push(block.slot);
        self.trace.calls.push(Call::new(Action::Free, block.slot, block.align, block.size, 0));
    }

    fn realloc(&mut self, new: u64, old: u64, size: usize) {
        if old == 0 {
            return self.alloc(Action::Alloc, new, self.natural_align(size), size);
        }
        let Some(mut block) = self.live.remove(&old) else {
            self.trace.skipped += 1;
            return;
        };
        let call = Call::new(Action::Realloc, block.slot, block.align, size, block.size);
        self.trace.calls.push(call);
        self.live_bytes -= block.size;
        block.size = size;
        if self.live.contains_key(&new) {
            self.free(new);
        }
        self.live.insert(new, block);
        self.grow(size);
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let action = words.next()?;
        let address = number(words.next()?)?;
        let mut argument = || number(words.next()?);
        // Zero-sized blocks are real to malloc, but no `Layout` of a global allocator has size 0.
        let bytes = |size: u64| usize::try_from(size).ok().map(|size| size.max(1));
        match action {
            "malloc" => {
                let size = bytes(argument()?)?;
                self.alloc(Action::Alloc, address, self.natural_align(size), size);
            }
            "calloc" => {
                let size = bytes(argument()?.checked_mul(argument()?)?)?;
                self.alloc(Action::Zeroed, address, self.natural_align(size), size);
            }
            "memalign" => {
                let align = usize::try_from(argument()?).ok()?.max(1).next_power_of_two();
                self.alloc(Action::Alloc, address, align, bytes(argument()?)?);
            }
            "realloc" => {
                let old = argument()?;
                self.realloc(address, old, bytes(argument()?)?);
            }
            "free" => self.free(address),
            _ => return None,
        }
        Some(())
    }

    fn finish(mut self) -> Trace {
        self.trace.leaks = self
            .live
            .values()
            .map(|block| Call::new(Action::Free, block.slot, block.align, block.size, 0))
            .collect();
        // The table of live blocks is in the order of its hashes, which differs by run.
        self.trace.leaks.sort_by_key(|call| call.slot());
        self.trace
    }
}

/// A decimal number, or a hexadecimal one after `0x`.
fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

impl Trace {
    /// Decodes a text. Blocks are aligned to their size, to at most `max_align`.
    ///
    /// # Errors
    ///
    /// If reading fails, or a line is not one of the five forms: the error names the line.
    pub fn decode(name: &str, text: impl BufRead, max_align: usize) -> io::Result<Self> {
        let mut decoder = Decoder::new(name.to_owned(), max_align);
        for (index, line) in text.lines().enumerate() {
            let line = line?;
            if !line.trim().is_empty() && decoder.line(&line).is_none() {
                let text = format!("{name}: line {}: not a call: {line:?}", index + 1);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(decoder.finish())
    }

    /// Decodes a file; a name that ends in `.gz` is unpacked on the way.
    ///
    /// # Errors
    ///
    /// As for [`Trace::decode`].
    pub fn open(path: &Path, max_align: usize) -> io::Result<Self> {
        let file = File::open(path)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = file_name.trim_end_matches(".gz").trim_end_matches(".txt");
        if file_name.ends_with(".gz") {
            Self::decode(name, BufReader::new(MultiGzDecoder::new(file)), max_align)
        } else {
            Self::decode(name, BufReader::new(file), max_align)
        }
    }

    /// All traces among `paths`: files themselves, and files in folders whose names end in `.txt` or `.gz`.
    ///
    /// # Errors
    ///
    /// If a path cannot be read, or nothing is found.
    pub fn open_all(paths: &[PathBuf], max_align: usize) -> io::Result<Vec<Self>> {
        let mut files = Vec::new();
        for path in paths {
            if path.is_dir() {
                files.extend(trace_files(path)?);
            } else {
                files.push(path.clone());
            }
        }
        if files.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "no trace: name a folder or files with --traces",
            ));
        }
        files.iter().map(|file| Self::open(file, max_align)).collect()
    }

    /// Writes the calls in the form that [`Trace::load`] reads, for a child process that must not spend memory on
    /// decoding.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(File::create(path)?);
        let head = [self.calls.len(), self.leaks.len(), self.slots, self.peak_live, self.peak_at];
        for number in head {
            file.write_all(&(number as u64).to_ne_bytes())?;
        }
        for call in self.calls.iter().chain(&self.leaks) {
            for word in [call.word, call.size, call.old_size] {
                file.write_all(&word.to_ne_bytes())?;
            }
        }
        file.flush()
    }

    /// Reads a file of [`Trace::store`]. The name and the number of skipped lines are not kept.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is too short.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut file = BufReader::new(File::open(path)?);
        let mut head = [0usize; 5];
        for number in &mut head {
            let mut bytes = [0; 8];
            file.read_exact(&mut bytes)?;
            *number = u64::from_ne_bytes(bytes) as usize;
        }
        let [calls, leaks, slots, peak_live, peak_at] = head;
        let calls = load_calls(&mut file, calls)?;
        let leaks = load_calls(&mut file, leaks)?;
        Ok(Self { calls, leaks, slots, peak_live, peak_at, ..Self::default() })
    }
}

fn load_calls(file: &mut impl Read, count: usize) -> io::Result<Vec<Call>> {
    let mut calls = Vec::with_capacity(count);
    for _ in 0..count {
        let mut bytes = [[0; 4]; 3];
        file.read_exact(bytes.as_flattened_mut())?;
        let [word, size, old_size] = bytes.map(u32::from_ne_bytes);
        calls.push(Call { word, size, old_size });
    }
    Ok(calls)
}

fn trace_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "gz" || ending == "txt") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{Action, Call, Trace};
    use std::io::ErrorKind;

    fn decode(text: &str) -> Trace {
        Trace::decode("test", text.as_bytes(), 8).expect("the text is a trace")
    }

    #[test]
    fn a_call_keeps_what_it_is_given() {
        for action in [Action::Alloc, Action::Zeroed, Action::Realloc, Action::Free] {
            let call = Call::new(action, 33_554_431, 4096, u32::MAX as usize, 77);
            assert_eq!((call.action(), call.slot()), (action, 33_554_431));
            assert_eq!((call.layout().size(), call.layout().align()), (u32::MAX as usize, 4096));
            assert_eq!((call.old_layout().size(), call.old_layout().align()), (77, 4096));
        }
    }

    #[test]
    fn slots_are_used_again_and_leaks_are_kept() {
        let trace = decode(
            "1: malloc 0x10 100\n1: free 0x10\n2: calloc 0x20 3 8\n1: memalign 0x40 64 10\n1: realloc 0x30 0x20 50\n",
        );
        let slots: Vec<_> = trace.calls.iter().map(|call| (call.action(), call.slot())).collect();
        let expected = [
            (Action::Alloc, 0),
            (Action::Free, 0),
            (Action::Zeroed, 0),
            (Action::Alloc, 1),
            (Action::Realloc, 0),
        ];
        assert_eq!(slots, expected);
        assert_eq!(trace.calls[4].old_layout().size(), 24);
        assert_eq!(trace.calls[3].layout().align(), 64);
        assert_eq!((trace.peak_live, trace.peak_at, trace.slots), (100, 1, 2));
        let leaks: Vec<_> = trace.leaks.iter().map(|call| (call.slot(), call.size())).collect();
        assert_eq!(leaks, [(0, 50), (1, 10)]);
    }

    #[test]
    fn unknown_addresses_are_skipped_and_counted() {
        let trace = decode("1: free 0x10\n1: realloc 0x30 0x20 50\n1: realloc 0x40 0x0 60\n");
        assert_eq!((trace.skipped, trace.calls.len()), (2, 1));
        assert_eq!(trace.calls[0].action(), Action::Alloc);
    }

    #[test]
    fn blocks_are_aligned_to_their_size_at_most() {
        let trace = decode("1: malloc 0x10 0\n1: malloc 0x20 7\n1: malloc 0x30 100\n");
        let layouts: Vec<_> =
            trace.calls.iter().map(|call| (call.layout().size(), call.layout().align())).collect();
        assert_eq!(layouts, [(1, 1), (7, 4), (100, 8)]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Trace::decode("test", &b"1: malloc 0x10 8\n1: mmap 0x20 9\n"[..], 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn a_stored_trace_loads_as_it_was() {
        let trace = decode("1: malloc 0x10 100\n1: malloc 0x20 40\n1: free 0x10\n");
        let path = std::env::temp_dir().join(format!("smalloc-bench-test-{}", std::process::id()));
        trace.store(&path).expect("the folder for temporary files is writable");
        let loaded = Trace::load(&path).expect("the file was just written");
        std::fs::remove_file(&path).expect("the file is there");
        assert_eq!((loaded.calls, loaded.leaks), (trace.calls, trace.leaks));
        assert_eq!((loaded.slots, loaded.peak_live, loaded.peak_at), (2, 140, 2));
    }
}
