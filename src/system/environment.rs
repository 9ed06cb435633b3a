//! The library's environment variables.
//!
//! In a program that runs with more rights than its caller (`AT_SECURE`: set-user-ID and the like) every variable
//! counts as unset, because the caller must not make it write files or size its heap. An empty variable counts as unset
//! everywhere. Messages have the form `VARIABLE: what happened (what to do)`.

use super::fatal::{refuse, say};
use core::ffi::{CStr, c_char};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone, Copy)]
pub(crate) struct Variable(&'static CStr);

/// Size of each region in bytes.
pub(crate) const REGION: Variable = Variable(c"SMALLOC_REGION");
/// Address of the first region of the first heap.
pub(crate) const BASE: Variable = Variable(c"SMALLOC_BASE");
/// Number of regions.
pub(crate) const REGIONS: Variable = Variable(c"SMALLOC_REGIONS");
/// 1 reports the first request that fails.
pub(crate) const REPORT: Variable = Variable(c"SMALLOC_REPORT");
/// File to record to.
pub(crate) const RECORD: Variable = Variable(c"SMALLOC_RECORD");
/// File to publish live statistics to.
pub(crate) const LIVE: Variable = Variable(c"SMALLOC_LIVE");
/// Mean bytes between two requests whose call stacks are taken.
pub(crate) const SITES: Variable = Variable(c"SMALLOC_SITES");
/// 1 ends the program if a variable cannot be honoured.
pub(crate) const STRICT: Variable = Variable(c"SMALLOC_STRICT");

const KNOWN: [Variable; 8] = [REGION, BASE, REGIONS, REPORT, RECORD, LIVE, SITES, STRICT];
/// The library owns every name with this prefix.
const PREFIX: &[u8] = b"SMALLOC_";
/// Except these, which are left to programs that test the library.
const FOR_TESTS: &[u8] = b"SMALLOC_TEST_";

unsafe extern "C" {
    static environ: *const *const c_char;
}

impl Variable {
    /// The value; `None` if the variable is unset or empty, or the process is privileged.
    pub(crate) fn value(self) -> Option<&'static [u8]> {
        if is_privileged() {
            return None;
        }
        // SAFETY: the name is NUL-terminated.
        let value = NonNull::new(unsafe { libc::getenv(self.0.as_ptr()) })?;
        // SAFETY: environment strings are NUL-terminated.
        let text = unsafe { CStr::from_ptr(value.as_ptr()) }.to_bytes();
        (!text.is_empty()).then_some(text)
    }

    /// Whether the value is 1; false for 0 and if unset. Any other value ends the program.
    pub(crate) fn is_on(self) -> bool {
        match self.value() {
            None | Some(b"0") => false,
            Some(b"1") => true,
            Some(text) => refuse(format_args!(
                "{self}: \"{}\" is neither 0 nor 1 (set it to 1, or leave it out)",
                text.escape_ascii()
            )),
        }
    }

    /// A size in bytes, with an optional suffix `K`, `M` or `G` (KiB, MiB, GiB), clamped to `least..=most` with a
    /// warning. An unreadable size ends the program: a memory budget must not be ignored silently.
    pub(crate) fn size(self, least: usize, most: usize) -> Option<usize> {
        static WARNED: AtomicBool = AtomicBool::new(false);
        let text = self.value()?;
        let shown = text.escape_ascii();
        let Some(size) = core::str::from_utf8(text).ok().and_then(parse_size) else {
            refuse(format_args!("{self}: \"{shown}\" is not a size (bytes, or a number with K, M or G)"))
        };
        let cut = size.clamp(least, most);
        if cut != size && !WARNED.swap(true, Ordering::Relaxed) {
            say(format_args!(
                "{self}: \"{shown}\" was changed to {cut} bytes (a region has {least} to {most})"
            ));
        }
        Some(cut)
    }

    /// A number of bytes, 0 included, with an optional suffix. An unreadable one ends the program.
    #[cfg(feature = "sites")]
    pub(crate) fn interval(self) -> Option<usize> {
        let text = self.value()?;
        if text == b"0" {
            return Some(0);
        }
        match core::str::from_utf8(text).ok().and_then(parse_size) {
            Some(bytes) => Some(bytes),
            None => refuse(format_args!(
                "{self}: \"{}\" is not a number of bytes (1 for all requests, 512K for one in so many bytes, 0 for none)",
                text.escape_ascii()
            )),
        }
    }

    /// An address: a number, hexadecimal after `0x`. An unreadable one ends the program.
    pub(crate) fn address(self) -> Option<usize> {
        let text = self.value()?;
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => usize::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        match core::str::from_utf8(text).ok().and_then(number) {
            Some(address) => Some(address),
            None => refuse(format_args!(
                "{self}: \"{}\" is not an address (a multiple of 2 MiB, such as 0x100000000000)",
                text.escape_ascii()
            )),
        }
    }

    /// A number of at least 1, or `cores`. Any other value ends the program.
    pub(crate) fn count(self, cores: impl FnOnce() -> usize) -> Option<usize> {
        let text = self.value()?;
        if text == b"cores" {
            return Some(cores());
        }
        match core::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) {
            Some(count) if count > 0 => Some(count),
            _ => refuse(format_args!(
                "{self}: \"{}\" is not a number of regions (1 or more, or cores)",
                text.escape_ascii()
            )),
        }
    }

    /// Warns that a variable could not be honoured; with `SMALLOC_STRICT=1`, ends the program.
    #[cold]
    pub(crate) fn complain(self, what: fmt::Arguments<'_>) {
        if STRICT.is_on() {
            refuse(format_args!("{self}: {what}"));
        }
        self.tell(what);
    }

    #[cold]
    pub(crate) fn tell(self, what: fmt::Arguments<'_>) {
        say(format_args!("{self}: {what}"));
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

fn is_privileged() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Warns, once per process, about variables that carry the library's prefix but are not known.
pub(crate) fn warn_unknown() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if is_privileged() || WARNED.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut index = 0;
    while let Some(entry) = entry(index) {
        let name = entry.split(|&byte| byte == b'=').next().unwrap_or_default();
        let known = KNOWN.iter().any(|variable| variable.0.to_bytes() == name);
        if name.starts_with(PREFIX) && !name.starts_with(FOR_TESTS) && !known {
            warn_unknown_name(name);
        }
        index = index.wrapping_add(1);
    }
}

#[cold]
#[inline(never)]
fn warn_unknown_name(name: &[u8]) {
    say(format_args!(
        "{}: unknown variable (use {}, {}, {}, {}, {}, {}, {} or {})",
        name.escape_ascii(),
        REGION,
        BASE,
        REGIONS,
        REPORT,
        RECORD,
        LIVE,
        SITES,
        STRICT
    ));
}

/// Entry `index` of the environment, as `NAME=value`; `None` past the end.
fn entry(index: usize) -> Option<&'static [u8]> {
    // SAFETY: like `getenv`, this requires that no other thread changes the environment meanwhile.
    let entries = NonNull::new(unsafe { environ }.cast_mut())?;
    // SAFETY: the array ends with a null pointer, and no earlier entry was null.
    let place = unsafe { super::mapping::nth(entries, index) };
    // SAFETY: the entry lies in the array, as argued above.
    let entry = NonNull::new(unsafe { place.read() }.cast_mut())?;
    // SAFETY: environment strings are NUL-terminated.
    Some(unsafe { CStr::from_ptr(entry.as_ptr()) }.to_bytes())
}

/// Bytes, with an optional suffix `K`, `M` or `G`; `None` for 0, overflow and anything else.
fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.strip_suffix(['k', 'K'])?, 1 << 10),
        b'm' | b'M' => (text.strip_suffix(['m', 'M'])?, 1 << 20),
        b'g' | b'G' => (text.strip_suffix(['g', 'G'])?, 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|&size| size > 0)
}

#[cfg(test)]
#[path = "../../tests/unit/system/environment.rs"]
mod tests;
