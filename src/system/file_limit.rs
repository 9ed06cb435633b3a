//! The limit on file sizes, which must be checked before a file grows.

/// The process's limit on file size (`RLIMIT_FSIZE`), in bytes. Exceeding it raises `SIGXFSZ`.
pub(super) fn largest_file() -> u64 {
    let mut limits = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limits` is writable. If the call fails, the limit stays infinite.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limits) };
    limits.rlim_cur
}
