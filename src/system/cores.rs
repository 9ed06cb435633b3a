//! The cores that the process may run on.

use core::mem::MaybeUninit;

/// Number of cores in the calling thread's affinity mask; 1 if the system does not tell.
pub(crate) fn count() -> usize {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the set is writable for its size.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) } != 0;
    // SAFETY: a set consists of integers, for which all zeros are valid.
    let set = unsafe { set.assume_init() };
    // SAFETY: the function only reads the set.
    let cores = unsafe { libc::CPU_COUNT(&set) };
    if failed { 1 } else { usize::try_from(cores).unwrap_or(1).max(1) }
}
