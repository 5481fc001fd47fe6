//! A long call as seen from outside: how far it is, and a way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::{Error, Result};

/// Shared between the threads that work and the one that watches.
///
/// Work is counted in units that take about equally long, so that a bar moves evenly: here, about the time that one
/// element of the L1 kernel takes.
#[derive(Debug, Default)]
pub struct Task {
    cancelled: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
}

impl Task {
    /// A task with nothing announced yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the workers to stop; they return [`Error::Cancelled`] within milliseconds.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Whether to go on. Workers call this between pieces of a few milliseconds.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once [`Task::cancel`] was called.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Relaxed) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Announces `units` of work to come.
    pub fn announce(&self, units: u64) {
        self.total.fetch_add(units, Relaxed);
    }

    /// Reports `units` of work as done.
    pub fn advance(&self, units: u64) {
        self.done.fetch_add(units, Relaxed);
    }

    /// Reports all as done. Some work turns out not to be needed, such as that after a radius is reached.
    pub fn finish(&self) {
        self.done.store(self.total.load(Relaxed), Relaxed);
    }

    /// `(done, total)` in units.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let total = self.total.load(Relaxed);
        (self.done.load(Relaxed).min(total), total)
    }
}
