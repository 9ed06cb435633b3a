//! Blocking signals for a few steps that a signal handler must not see half done.

use core::mem::MaybeUninit;
use core::ptr;

/// Signals that an instruction of the thread itself raises; blocked ones would end the process without their handlers.
const OWN: [libc::c_int; 7] =
    [libc::SIGABRT, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGSEGV, libc::SIGSYS, libc::SIGTRAP];

/// The calling thread's signals are blocked until this is dropped, on the same thread or its copy in a forked child.
pub(crate) struct Blocked(libc::sigset_t);

impl Blocked {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::uninit();
        // SAFETY: the set is writable.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        for signal in OWN {
            // SAFETY: the set was filled.
            unsafe { libc::sigdelset(all.as_mut_ptr(), signal) };
        }
        let mut before = MaybeUninit::uninit();
        // SAFETY: the set was filled, and the other one is writable.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: the call has stored the set; it fails only if its first argument is wrong.
        Self(unsafe { before.assume_init() })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was stored by the system.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}
