//! Scopes: what a thread does differently in a heap while a closure runs.
//!
//! Scopes lie on the thread's stack and form a list, the innermost first. The list begins in the thread's word, which
//! otherwise holds its number, so a thread outside of all scopes pays nothing:
//!
//! ```text
//! word -> innermost scope -> outer scope -> number + 1
//! ```
//!
//! - **S1** every scope in a thread's list lies in a frame of that thread's stack that has not been left.

use super::{NUMBERS, number_of, number_slow, word};
use core::ptr;

/// A heap's address, which tells the scopes of several heaps apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeapId(pub(crate) usize);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Requests are placed in this region, and fail if it has no room.
    Region(usize),
    /// Requests are placed in this region, and in others if it has no room.
    Preferred(usize),
    /// Requests may use the heap's reserve.
    Reserve,
}

struct Link {
    heap: HeapId,
    scope: Scope,
    /// The next outer link, or the thread's number plus one.
    outer: *const Link,
}

/// Runs `work` in a scope. The scope ends when `work` returns or unwinds.
pub(crate) fn enter<R>(heap: HeapId, scope: Scope, work: impl FnOnce() -> R) -> R {
    struct Leave(*const Link);
    impl Drop for Leave {
        fn drop(&mut self) {
            word::set(self.0.cast());
        }
    }
    // The thread's number ends the list, so it must exist.
    number_slow();
    let link = Link { heap, scope, outer: word::get().cast() };
    let _leave = Leave(link.outer);
    word::set(ptr::from_ref(&link).cast());
    work()
}

/// The first result of `select` on this thread's scopes in a heap, the innermost first.
pub(crate) fn find<T>(heap: HeapId, select: impl Fn(Scope) -> Option<T>) -> Option<T> {
    let mut link = first(word::get().cast());
    while let Some(inner) = link {
        if inner.heap == heap
            && let Some(found) = select(inner.scope)
        {
            return Some(found);
        }
        link = first(inner.outer);
    }
    None
}

/// The thread's number below all scopes that begin at `word`; `None` if it has none yet.
pub(super) fn number_below(word: *const ()) -> Option<usize> {
    let mut word: *const Link = word.cast();
    while let Some(link) = first(word) {
        word = link.outer;
    }
    number_of(word.cast())
}

/// The link at an address; `None` if that is a number.
fn first<'a>(word: *const Link) -> Option<&'a Link> {
    // SAFETY: a word above all numbers is the address of a link in a frame that has not been left (S1).
    if word.addr() > NUMBERS { unsafe { word.as_ref() } } else { None }
}
