//! Frees that are still to be written.
//!
//! Tracers write a free after it has happened. In between, another thread may get the block's address and write that:
//! then the address is allocated twice in a row, and its first block must have been freed before. The free that is
//! written later does not belong to the block that has the address by then.
//!
//! Some frees are never written, such as that of `realloc(p, 0)` by heaptrack. If a free of the address follows that
//! cannot be late, those before it are in doubt.

use std::collections::HashMap;

/// The number of frees of each address that are still to be written.
#[derive(Default)]
pub(super) struct LateFrees(HashMap<u64, Frees>);

#[derive(Default)]
struct Frees {
    expected: u64,
    doubtful: u64,
}

impl LateFrees {
    /// The address was allocated before its free was written.
    pub(super) fn add(&mut self, block: u64) {
        self.0.entry(block).or_default().expected += 1;
    }

    /// A free that may be late was written. True if it is one of those.
    pub(super) fn take(&mut self, block: u64) -> bool {
        self.0.get_mut(&block).is_some_and(|frees| take_one(&mut frees.expected))
    }

    /// A free that frees nothing was written. True if it is one that was in doubt.
    pub(super) fn take_doubtful(&mut self, block: u64) -> bool {
        self.0.get_mut(&block).is_some_and(|frees| take_one(&mut frees.doubtful))
    }

    /// A free was written in time, of the block that has the address now.
    pub(super) fn doubt(&mut self, block: u64) {
        if let Some(frees) = self.0.get_mut(&block) {
            frees.doubtful += std::mem::take(&mut frees.expected);
        }
    }

    /// The number of frees still to be written.
    pub(super) fn count(&self) -> u64 {
        self.0.values().map(|frees| frees.expected + frees.doubtful).sum()
    }
}

/// Takes one away; false if there is none.
fn take_one(count: &mut u64) -> bool {
    let there = *count > 0;
    *count -= u64::from(there);
    there
}

#[cfg(test)]
mod tests {
    use super::LateFrees;

    #[test]
    fn each_free_is_paid_once() {
        let mut late_frees = LateFrees::default();
        assert!(!late_frees.take(1) && !late_frees.take_doubtful(1));
        late_frees.add(1);
        late_frees.add(1);
        assert!(late_frees.take(1) && !late_frees.take(2));
        late_frees.doubt(1);
        late_frees.doubt(2);
        assert!(late_frees.count() == 1 && !late_frees.take(1));
        late_frees.add(1);
        assert!(late_frees.count() == 2 && late_frees.take_doubtful(1) && !late_frees.take_doubtful(1));
        assert!(late_frees.take(1) && late_frees.count() == 0);
    }
}
