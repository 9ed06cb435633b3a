//! Whether an address lies in a loaded object: in the program, or in a library.
//!
//! The loader says where the object lies that this crate is a part of, once, before `main` or when a library is loaded. It
//! is asked again only for an address that lies elsewhere, and then with no other lock held: the caller may be in a callback
//! of `dl_iterate_phdr`, and hold the loader's lock. Two threads that ask, one of them in such a callback, do wait for each
//! other.

use super::lock::Lock;
use core::ptr;
use core::slice;
use spin::mutex::SpinMutex;

/// The object that this crate is a part of, once it has been found. Taken by `try_lock` only, so nobody waits: a child of
/// `fork` that finds it locked asks the loader. (`spin::Once` would say "written once" in its type, but its slow path
/// holds a panic, and no call of the heap may lead to one.)
static OWN: SpinMutex<Option<Object>> = SpinMutex::new(None);

/// Held while the loader is asked, and during a fork: a child may find the loader's own lock taken for ever.
pub(super) static ASKING: Lock<()> = Lock::new(());

/// Finds the object that this crate is a part of.
pub(super) fn find_own() {
    let found = Object::at(ptr::from_ref(&OWN).addr());
    if let Some(mut own) = OWN.try_lock() {
        *own = found;
    }
}

/// Whether an address lies in a loaded object. If that is the own one, the loader is not asked.
pub(super) fn any_has(address: usize) -> bool {
    let in_own = OWN.try_lock().is_some_and(|own| own.as_ref().is_some_and(|own| own.has(address)));
    in_own || Object::at(address).is_some()
}

/// The program, or a library that is loaded.
struct Object {
    base: usize,
    /// They stay as long as the object is loaded.
    headers: &'static [libc::Elf64_Phdr],
}

impl Object {
    /// Asks the loader for the object in which an address lies.
    fn at(address: usize) -> Option<Self> {
        unsafe extern "C" fn look(
            info: *mut libc::dl_phdr_info,
            _size: usize,
            search: *mut libc::c_void,
        ) -> i32 {
            // SAFETY: the loader passes valid information.
            let info = unsafe { &*info };
            // SAFETY: the loader passes on what it was given, which is a search that nothing else refers to.
            let (address, found) = unsafe { &mut *search.cast::<(usize, Option<Object>)>() };
            if info.dlpi_phdr.is_null() {
                return 0;
            }
            // SAFETY: an object has that many program headers, as long as it is loaded.
            let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
            let object = Object { base: info.dlpi_addr as usize, headers };
            *found = object.has(*address).then_some(object);
            found.is_some().into()
        }
        let mut search = (address, None);
        let _asking = ASKING.lock();
        // SAFETY: the callback matches, and the search outlives the call.
        let _ = unsafe { libc::dl_iterate_phdr(Some(look), ptr::from_mut(&mut search).cast()) };
        search.1
    }

    /// Whether an address lies in a part of it that is loaded.
    fn has(&self, address: usize) -> bool {
        self.headers.iter().any(|header| {
            let start = self.base.wrapping_add(header.p_vaddr as usize);
            header.p_type == libc::PT_LOAD && address.wrapping_sub(start) < header.p_memsz as usize
        })
    }
}
