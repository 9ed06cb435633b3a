//! How much a cache holds: which sizes may hold how many payloads, and what idle ones give back.

use super::cache::{BATCH, Cache, Habit, SLOTS, Stack, bytes, least_cap};
use core::sync::atomic::Ordering;

/// The largest cap of a stack of `n` granules.
pub(super) fn most_cap(n: usize) -> usize {
    8192_usize.checked_div(bytes(1, n)).unwrap_or(0).min(SLOTS)
}

impl Cache {
    /// Notes a refill of a stack and asks for more the next time. Returns whether idle stacks are due for a look.
    pub(crate) fn refilled(&self, n: usize) -> bool {
        let (Some(stack), Some(habit)) = (self.stacks.get(n), self.habits.get(n)) else { return false };
        let want = habit.want.load(Ordering::Relaxed);
        habit.want.store(want.saturating_mul(2).min(BATCH as u8), Ordering::Relaxed);
        if usize::from(want) * 2 > stack.cap() {
            self.raise(stack, n);
        }
        self.event(habit)
    }

    /// Notes that a stack is full. Returns the payloads to give back, and whether idle stacks are due for a look.
    pub(crate) fn overflowed(&self, n: usize) -> (usize, bool) {
        let (Some(stack), Some(habit)) = (self.stacks.get(n), self.habits.get(n)) else { return (0, false) };
        self.raise(stack, n);
        let cap = stack.cap();
        let count = stack.cached().len();
        let spill = if count >= cap { count.saturating_sub(cap / 2) } else { 0 };
        (spill, self.event(habit))
    }

    /// Counts a slow event. Every 128th one, idle stacks are due for a look.
    fn event(&self, habit: &Habit) -> bool {
        habit.active.store(true, Ordering::Relaxed);
        let events = self.events.load(Ordering::Relaxed).wrapping_add(1) % 128;
        self.events.store(events, Ordering::Relaxed);
        events == 0
    }

    /// Doubles a stack's cap as far as the budget allows.
    fn raise(&self, stack: &Stack, n: usize) {
        let cap = stack.cap();
        let more = cap.min(most_cap(n).saturating_sub(cap));
        let slack = self.slack.load(Ordering::Relaxed);
        if let Some(rest) = slack.checked_sub(bytes(more, n)) {
            stack.cap.store(cap.saturating_add(more) as u32, Ordering::Relaxed);
            self.slack.store(rest, Ordering::Relaxed);
        }
    }

    /// Halves the cap of stack `n` if it was idle since the last look. Returns the payloads to give back: half of an
    /// idle stack, rounded up.
    pub(crate) fn age(&self, n: usize) -> usize {
        let (Some(stack), Some(habit)) = (self.stacks.get(n), self.habits.get(n)) else { return 0 };
        if habit.active.swap(false, Ordering::Relaxed) {
            return 0;
        }
        let cap = stack.cap();
        let lower = (cap / 2).max(least_cap(n)).min(cap);
        stack.cap.store(lower as u32, Ordering::Relaxed);
        habit.want.store(1, Ordering::Relaxed);
        let slack = self.slack.load(Ordering::Relaxed).saturating_add(bytes(cap.saturating_sub(lower), n));
        self.slack.store(slack, Ordering::Relaxed);
        let count = stack.cached().len();
        count.div_ceil(2).max(count.saturating_sub(lower))
    }

    /// Sets the budget to `budget` bytes; if that is less, as far as no cap holds it.
    pub(super) fn resize(&self, budget: usize) {
        let (old, slack) = (self.budget.load(Ordering::Relaxed), self.slack.load(Ordering::Relaxed));
        let lower = old.saturating_sub(budget).min(slack);
        let raise = budget.saturating_sub(old);
        self.budget.store(old.saturating_sub(lower).saturating_add(raise), Ordering::Relaxed);
        self.slack.store(slack.saturating_sub(lower).saturating_add(raise), Ordering::Relaxed);
    }
}
