//! The environment variables of the library, and the one way to read them.
//!
//! In a program that runs with more rights than its caller (set-user-ID and the like, `AT_SECURE`), every variable counts as
//! not set: the caller must not make it write files, or decide how much memory it has. An empty variable counts as not set
//! everywhere. Messages have the form `VARIABLE: what happened (what to do)`.

use super::fatal::{refuse, say};
use core::ffi::{CStr, c_char};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

/// A variable that the library knows.
#[derive(Clone, Copy)]
pub(crate) struct Variable(&'static CStr);

/// Bytes of a region.
pub(crate) const REGION: Variable = Variable(c"SMALLOC_REGION");
/// 1 reports the first request that finds no place.
pub(crate) const REPORT: Variable = Variable(c"SMALLOC_REPORT");
/// A file to record to.
pub(crate) const RECORD: Variable = Variable(c"SMALLOC_RECORD");
/// A file to publish to.
pub(crate) const LIVE: Variable = Variable(c"SMALLOC_LIVE");
/// 1 ends the program where a variable cannot be obeyed.
pub(crate) const STRICT: Variable = Variable(c"SMALLOC_STRICT");

/// All of them.
const KNOWN: [Variable; 5] = [REGION, REPORT, RECORD, LIVE, STRICT];
/// Names that begin like this are the library's.
const PREFIX: &[u8] = b"SMALLOC_";
/// Names that begin like this are left to programs that test the library.
const FOR_TESTS: &[u8] = b"SMALLOC_TEST_";

unsafe extern "C" {
    static environ: *const *const c_char;
}

impl Variable {
    /// The value; none where the variable is not set, is empty, or must not be obeyed.
    pub(crate) fn value(self) -> Option<&'static [u8]> {
        if is_privileged() {
            return None;
        }
        // SAFETY: the name ends in a zero byte.
        let value = NonNull::new(unsafe { libc::getenv(self.0.as_ptr()) })?;
        // SAFETY: what the environment holds ends in a zero byte.
        let text = unsafe { CStr::from_ptr(value.as_ptr()) }.to_bytes();
        (!text.is_empty()).then_some(text)
    }

    /// A value of 1 or 0. Ends the program where it is neither.
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

    /// A size in bytes: a number, or one of KiB, MiB or GiB with `K`, `M` or `G` behind it; cut to `least..=most`, which is
    /// told. Ends the program where it is no size: whoever sets a budget wants to know.
    pub(crate) fn size(self, least: usize, most: usize) -> Option<usize> {
        static TOLD: AtomicBool = AtomicBool::new(false);
        let text = self.value()?;
        let shown = text.escape_ascii();
        let Some(size) = core::str::from_utf8(text).ok().and_then(parse_size) else {
            refuse(format_args!("{self}: \"{shown}\" is not a size (bytes, or a number with K, M or G)"))
        };
        let cut = size.clamp(least, most);
        if cut != size && !TOLD.swap(true, Ordering::Relaxed) {
            say(format_args!(
                "{self}: \"{shown}\" was changed to {cut} bytes (a region has {least} to {most})"
            ));
        }
        Some(cut)
    }

    /// Tells that a variable could not be obeyed. With `SMALLOC_STRICT=1` that ends the program.
    #[cold]
    pub(crate) fn complain(self, what: fmt::Arguments<'_>) {
        if STRICT.is_on() {
            refuse(format_args!("{self}: {what}"));
        }
        self.tell(what);
    }

    /// Tells something about a variable.
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

/// Whether the program runs with more rights than its caller.
fn is_privileged() -> bool {
    // SAFETY: the call has no conditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Tells, once, of variables that look like the library's and are none.
pub(crate) fn tell_unknown() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if is_privileged() || TOLD.swap(true, Ordering::Relaxed) {
        return;
    }
    let mut index = 0;
    while let Some(entry) = entry(index) {
        let name = entry.split(|&byte| byte == b'=').next().unwrap_or_default();
        let known = KNOWN.iter().any(|variable| variable.0.to_bytes() == name);
        if name.starts_with(PREFIX) && !name.starts_with(FOR_TESTS) && !known {
            tell_unknown_name(name);
        }
        index = index.wrapping_add(1);
    }
}

#[cold]
#[inline(never)]
fn tell_unknown_name(name: &[u8]) {
    say(format_args!(
        "{}: there is no such variable (known are {}, {}, {}, {} and {})",
        name.escape_ascii(),
        REGION,
        REPORT,
        RECORD,
        LIVE,
        STRICT
    ));
}

/// An entry of the environment by its number, `NAME=value`.
fn entry(index: usize) -> Option<&'static [u8]> {
    // SAFETY: the C library's variable may be read as long as nobody changes the environment meanwhile, as by `getenv`.
    let entries = NonNull::new(unsafe { environ }.cast_mut())?;
    // SAFETY: entries follow each other up to a null; all before this one were none.
    let place = unsafe { super::mapping::nth(entries, index) };
    // SAFETY: as above.
    let entry = NonNull::new(unsafe { place.read() }.cast_mut())?;
    // SAFETY: an entry ends in a zero byte.
    Some(unsafe { CStr::from_ptr(entry.as_ptr()) }.to_bytes())
}

/// A number of bytes, or of KiB, MiB or GiB with `K`, `M` or `G` behind it.
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
