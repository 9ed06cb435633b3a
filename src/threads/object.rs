//! Tests whether an address lies in a loaded object: the program or a shared library.
//!
//! The object that contains this crate is looked up once, before `main` or when the library is loaded. Other addresses
//! ask the loader each time, without any other lock held, because the caller may be in a `dl_iterate_phdr` callback and
//! hold the loader's lock. Two threads that ask at the same time, one of them in such a callback, deadlock.

use super::lock::Lock;
#[cfg(feature = "sites")]
use crate::system::mapping;
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

/// A loaded object, as the loader tells it.
#[cfg(feature = "sites")]
pub(crate) struct Loaded<'a> {
    /// The difference between addresses in memory and in the file.
    pub(crate) base: usize,
    /// The range of addresses from its first to its last segment.
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) code: Code,
    /// Empty for the program.
    pub(crate) path: &'a [u8],
    /// Empty if it has none.
    pub(crate) build_id: &'a [u8],
}

/// The mapping of an object's first segment of code, in whole pages; zeros if it has none.
#[cfg(feature = "sites")]
#[derive(Clone, Copy, Default)]
pub(crate) struct Code {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// Its offset in the file, in bytes.
    pub(crate) offset: usize,
}

/// Calls `visit` with every loaded object; not if another thread asks the loader at the moment. The caller holds no
/// lock.
#[cfg(feature = "sites")]
pub(crate) fn try_visit_loaded(mut visit: &mut dyn FnMut(&Loaded<'_>)) {
    unsafe extern "C" fn each(info: *mut libc::dl_phdr_info, _: usize, visit: *mut libc::c_void) -> i32 {
        // SAFETY: the loader passes valid information.
        let info = unsafe { &*info };
        // SAFETY: the loader passes on the function, to which nothing else refers during the call.
        let visit = unsafe { &mut *visit.cast::<&mut dyn FnMut(&Loaded<'_>)>() };
        if info.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: the object has that many program headers while it is loaded.
        let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let object = Object { base: info.dlpi_addr as usize, headers };
        let path = match info.dlpi_name.is_null() {
            true => &[][..],
            // SAFETY: the name is NUL-terminated.
            false => unsafe { core::ffi::CStr::from_ptr(info.dlpi_name) }.to_bytes(),
        };
        if let Some((start, end)) = object.range() {
            let (code, build_id) = (object.code(), object.build_id());
            visit(&Loaded { base: object.base, start, end, code, path, build_id });
        }
        0
    }
    let Some(_asking) = LOADER.try_lock() else { return };
    // SAFETY: the callback has the right type, and `visit` outlives the call.
    let _ = unsafe { libc::dl_iterate_phdr(Some(each), ptr::from_mut(&mut visit).cast()) };
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
    /// The range of addresses from the first to the last segment; `None` if there is none.
    #[cfg(feature = "sites")]
    fn range(&self) -> Option<(usize, usize)> {
        let loaded = || self.headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
        let start = loaded().map(|header| header.p_vaddr).min()?;
        let end = loaded().map(|header| header.p_vaddr.wrapping_add(header.p_memsz)).max()?;
        Some((self.base.wrapping_add(start as usize), self.base.wrapping_add(end as usize)))
    }

    /// The mapping of the first segment of code.
    #[cfg(feature = "sites")]
    fn code(&self) -> Code {
        let is_code =
            |header: &&libc::Elf64_Phdr| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0;
        let Some(header) = self.headers.iter().find(is_code) else { return Code::default() };
        let start = self.base.wrapping_add(header.p_vaddr as usize);
        let into_page = start & mapping::page_size().wrapping_sub(1);
        Code {
            start: start.wrapping_sub(into_page),
            end: mapping::whole_pages(start.wrapping_add(header.p_memsz as usize)),
            offset: (header.p_offset as usize).wrapping_sub(into_page),
        }
    }

    /// The build ID, which the linker has written into a note; empty if there is none.
    #[cfg(feature = "sites")]
    fn build_id(&self) -> &[u8] {
        let loaded = |note: &libc::Elf64_Phdr| self.contains(self.base.wrapping_add(note.p_vaddr as usize));
        let notes =
            self.headers.iter().filter(|header| header.p_type == libc::PT_NOTE).filter(|note| loaded(note));
        let bytes = notes.map(|note| {
            let start = self.base.wrapping_add(note.p_vaddr as usize);
            // SAFETY: the note lies in a segment of the object, which is loaded.
            (unsafe { mapping::bytes_at(start, note.p_memsz as usize) }, note.p_align as usize)
        });
        bytes.filter_map(|(note, align)| build_id_in(note, align)).next().unwrap_or_default()
    }
}

/// The build ID in a segment of notes: each is three numbers, a name and a value, both padded to the alignment.
#[cfg(feature = "sites")]
fn build_id_in(mut notes: &[u8], align: usize) -> Option<&[u8]> {
    const BUILD_ID: u32 = 3;
    let padded = |bytes: u32| (bytes as usize).checked_next_multiple_of(align.max(4));
    loop {
        let ([name_bytes, value_bytes, kind], rest) = numbers(notes)?;
        let (name, rest) = rest.split_at_checked(padded(name_bytes)?)?;
        if kind == BUILD_ID && name.starts_with(b"GNU\0") {
            return rest.get(..value_bytes as usize);
        }
        notes = rest.get(padded(value_bytes)?..)?;
    }
}

/// The three numbers that begin a note, and the bytes behind them.
#[cfg(feature = "sites")]
fn numbers(note: &[u8]) -> Option<([u32; 3], &[u8])> {
    let (head, rest) = note.split_first_chunk::<12>()?;
    let mut words = head.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word));
    Some(([words.next()?, words.next()?, words.next()?], rest))
}
