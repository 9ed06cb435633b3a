//! The pages that are in RAM, found by `PAGEMAP_SCAN` (Linux 6.7), otherwise by `mincore`.
//!
//! Both are cheap for addresses at which nothing is mapped. `PAGEMAP_SCAN` takes a fiftieth of the time for large
//! mappings, and does not count pages that were only read, all of which are the one page of zeros.

use super::mapping::page_size;
use super::{call, errno};
use core::ptr;

/// Ranges requested at a time. With more, Linux 6.18 counts pages twice.
const RANGES: usize = 512;
/// Pages requested at a time from `mincore`.
const PAGES: usize = 4096;
/// `PAGEMAP_SCAN`, `_IOWR('f', 16, Scan)`.
const SCAN: u64 = 0xC060_6610;
/// Categories of pages: in memory, and the page of zeros.
const PRESENT: u64 = 1 << 3;
const ZERO: u64 = 1 << 5;

/// `struct page_region`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Found {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    found: u64,
    found_len: u64,
    max_pages: u64,
    inverted: u64,
    mask: u64,
    any_of: u64,
    returned: u64,
}

/// Calls `visit` with the start and the bytes of each run of whole pages in the range that is in memory, ascending. The
/// addresses may be of any mapping, or of none.
pub(crate) fn visit_resident(start: usize, bytes: usize, visit: &mut dyn FnMut(usize, usize)) {
    let page = page_size();
    let first = start.next_multiple_of(page);
    let end = start.saturating_add(bytes) / page * page;
    errno::unchanged(|| {
        let scanned = scan(first, end, visit);
        look(scanned, end, page, visit);
    });
}

/// Visits by `PAGEMAP_SCAN`. Returns the address up to which that was possible.
fn scan(start: usize, end: usize, visit: &mut dyn FnMut(usize, usize)) -> usize {
    let file = call::open(c"/proc/self/pagemap", libc::O_RDONLY | libc::O_CLOEXEC, 0);
    if file < 0 {
        return start;
    }
    let mut found = [Found { start: 0, end: 0, categories: 0 }; RANGES];
    let mut from = start;
    while from < end {
        let mut request = Scan {
            size: size_of::<Scan>() as u64,
            flags: 0,
            start: from as u64,
            end: end as u64,
            walk_end: 0,
            found: found.as_mut_ptr().expose_provenance() as u64,
            found_len: RANGES as u64,
            max_pages: 0,
            inverted: ZERO,
            mask: PRESENT | ZERO,
            any_of: 0,
            returned: PRESENT,
        };
        // SAFETY: the request is complete, and the array it names has room for as many ranges.
        let count = unsafe { libc::ioctl(file, SCAN as _, &raw mut request) };
        let next = request.walk_end as usize;
        let Ok(count) = usize::try_from(count) else { break };
        if next <= from {
            break;
        }
        for range in found.iter().take(count) {
            visit(range.start as usize, range.end.saturating_sub(range.start) as usize);
        }
        from = next;
    }
    call::close(file);
    from
}

/// Visits by `mincore`.
fn look(start: usize, end: usize, page: usize, visit: &mut dyn FnMut(usize, usize)) {
    let mut known = [0_u8; PAGES];
    let mut from = start;
    while from < end {
        let bytes = end.saturating_sub(from).min(PAGES.saturating_mul(page));
        // SAFETY: the array has a byte for every page; a range that is not mapped is refused.
        let refused = unsafe { libc::mincore(ptr::without_provenance_mut(from), bytes, known.as_mut_ptr()) };
        if refused == 0 {
            let pages = known.iter().take(bytes / page).enumerate();
            for (number, _) in pages.filter(|(_, known)| **known & 1 != 0) {
                visit(from.saturating_add(number.saturating_mul(page)), page);
            }
        }
        from = from.saturating_add(bytes);
    }
}

/// Bytes of the whole process in memory, as `/proc/self/statm` has them; 0 if it cannot be read.
pub(crate) fn process_resident() -> usize {
    let mut text = [0_u8; 128];
    let length = errno::unchanged(|| {
        let file = call::open(c"/proc/self/statm", libc::O_RDONLY | libc::O_CLOEXEC, 0);
        if file < 0 {
            return 0;
        }
        let length = call::read_start(file, &mut text);
        call::close(file);
        usize::try_from(length).unwrap_or(0)
    });
    let text = text.get(..length).unwrap_or_default();
    let second = text.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    let pages = core::str::from_utf8(second).ok().and_then(|text| text.parse::<usize>().ok());
    pages.unwrap_or(0).saturating_mul(page_size())
}
