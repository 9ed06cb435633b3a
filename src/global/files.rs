//! Files of a heap that are named where it is declared.

use core::sync::atomic::AtomicBool;

pub(super) struct Files {
    pub(super) record: Option<&'static str>,
    pub(super) publish: Option<&'static str>,
    /// Whether they have been opened, or could not be.
    pub(super) opened: AtomicBool,
}

impl Files {
    pub(super) const fn none() -> Self {
        Self { record: None, publish: None, opened: AtomicBool::new(false) }
    }
}
