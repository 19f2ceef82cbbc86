//! The rules that something still judges by.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The tables that snapshots hold over one set of counters.
///
/// Asking the living, and not remembering the last rule that was compiled, keeps a reload that was refused from
/// having any effect on counters. Locked when policies are compiled and by sweeps, never by a request.
#[derive(Debug)]
pub(crate) struct Live<T>(Mutex<Vec<Weak<T>>>);

impl<T> Default for Live<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Live<T> {
    pub(crate) fn add(&self, table: &Arc<T>) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|table| table.strong_count() > 0);
        tables.push(Arc::downgrade(table));
    }

    /// The largest of a property of the living; `None` if there are none.
    pub(crate) fn largest<N: Ord>(&self, of: impl Fn(&T) -> N) -> Option<N> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().filter_map(Weak::upgrade).map(|table| of(&table)).max()
    }
}
