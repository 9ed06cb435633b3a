//! The limit of addresses (`RLIMIT_AS`, `ulimit -v`), and what is left of it.

use super::call;
use super::mapping::page_size;

/// Bytes of addresses that the process may still map; `None` without a limit. If the system does not tell how many are
/// mapped, the whole limit.
pub(crate) fn left() -> Option<usize> {
    let mut limits = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limits` is writable. If the call fails, the limit stays infinite.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limits) };
    if limits.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    let limit = usize::try_from(limits.rlim_cur).unwrap_or(usize::MAX);
    Some(limit.saturating_sub(mapped().unwrap_or(0)))
}

/// Bytes of addresses that the process has mapped.
fn mapped() -> Option<usize> {
    let file = call::open(c"/proc/self/statm", libc::O_RDONLY | libc::O_CLOEXEC, 0);
    if file < 0 {
        return None;
    }
    let mut text = [0; 128];
    let read = call::read_start(file, &mut text);
    call::close(file);
    let text = text.get(..usize::try_from(read).ok()?)?;
    // The first number: pages.
    let pages = text.split(|&byte| byte == b' ').next()?;
    core::str::from_utf8(pages).ok()?.parse::<usize>().ok()?.checked_mul(page_size())
}
