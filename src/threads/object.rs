//! Tests whether an address lies in a loaded object: the program or a shared library.
//!
//! The object that contains this crate is looked up once, before `main` or when the library is loaded. Other addresses
//! ask the loader each time, without any other lock held, because the caller may be in a `dl_iterate_phdr` callback and
//! hold the loader's lock. Two threads that ask at the same time, one of them in such a callback, deadlock.

use super::lock::Lock;
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::mutex::SpinMutex;

/// The object that contains this crate, once found. Only `try_lock` is used: a child forked while it is locked asks the
/// loader instead of waiting. (`spin::Once` would fit, but its slow path contains a panic, and no call may reach one.)
static OWN_OBJECT: SpinMutex<Option<Object>> = SpinMutex::new(None);

/// Whether that object is the program and no library, once known.
static IS_PROGRAM: AtomicBool = AtomicBool::new(false);

/// Held while the loader is asked and during a fork, so that a child does not inherit the loader's own lock taken.
pub(super) static LOADER: Lock<()> = Lock::new(());

pub(super) fn find_own_object() {
    let found = Object::at(ptr::from_ref(&OWN_OBJECT).addr());
    IS_PROGRAM.store(found.as_ref().is_none_or(Object::is_program), Ordering::Relaxed);
    if let Some(mut own) = OWN_OBJECT.try_lock() {
        *own = found;
    }
}

/// Whether this crate is a part of the program, which is never unloaded.
pub(super) fn is_in_program() -> bool {
    IS_PROGRAM.load(Ordering::Relaxed)
}

/// Whether an address lies in a loaded object. The loader is asked only if it is not this crate's own.
pub(super) fn is_in_loaded_object(address: usize) -> bool {
    let in_own =
        OWN_OBJECT.try_lock().is_some_and(|own| own.as_ref().is_some_and(|own| own.contains(address)));
    in_own || Object::at(address).is_some()
}

struct Object {
    base: usize,
    /// Valid while the object is loaded.
    headers: &'static [libc::Elf64_Phdr],
}

impl Object {
    /// Asks the loader for the object that contains an address.
    fn at(address: usize) -> Option<Self> {
        unsafe extern "C" fn visit(
            info: *mut libc::dl_phdr_info,
            _size: usize,
            search: *mut libc::c_void,
        ) -> i32 {
            // SAFETY: the loader passes valid information.
            let info = unsafe { &*info };
            // SAFETY: the loader passes on `search`, to which nothing else refers during the call.
            let (address, found) = unsafe { &mut *search.cast::<(usize, Option<Object>)>() };
            if info.dlpi_phdr.is_null() {
                return 0;
            }
            // SAFETY: the object has that many program headers while it is loaded.
            let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            let object = Object { base: info.dlpi_addr as usize, headers };
            *found = object.contains(*address).then_some(object);
            found.is_some().into()
        }
        let mut search = (address, None);
        let _asking = LOADER.lock();
        // SAFETY: the callback has the right type, and `search` outlives the call.
        let _ = unsafe { libc::dl_iterate_phdr(Some(visit), ptr::from_mut(&mut search).cast()) };
        search.1
    }

    /// Whether it is the program, whose program headers are in the auxiliary vector.
    fn is_program(&self) -> bool {
        // SAFETY: the call has no preconditions.
        let headers = unsafe { libc::getauxval(libc::AT_PHDR) };
        self.headers.as_ptr().addr() == headers as usize
    }

    /// Whether an address lies in a loaded segment of the object.
    fn contains(&self, address: usize) -> bool {
        self.headers.iter().any(|header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            header.p_type == libc::PT_LOAD && address.wrapping_sub(start) < header.p_memsz as usize
        })
    }
}
