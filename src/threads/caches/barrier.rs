//! `membarrier`: makes every running thread of the process execute a memory barrier.

use crate::system::errno;

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: the call changes no memory of the process.
    errno::unchanged(|| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } == 0)
}

/// Has every running thread pass a barrier. False if the process may not ask for that.
pub(super) fn pass_barrier() -> bool {
    membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
        // The first call of a process must be announced.
        || (membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED)
            && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED))
}
