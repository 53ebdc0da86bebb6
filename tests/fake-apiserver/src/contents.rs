//! What is on volumes: a value of a test's choice for each, which snapshots copy when they are taken and
//! restored claims get back.
//!
//! `controller` and `groups` take, `volumes` restores, and `pods` has the writers.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Inner {
    /// By the volume's name.
    volumes: HashMap<String, Value>,
    /// By the snapshot's uid. Deleted snapshots are included.
    snapshots: HashMap<String, Value>,
}

/// The contents of all volumes and snapshots. Its lock is taken after the store's, and nothing waits while it is
/// held.
#[derive(Default)]
pub(crate) struct Contents(Mutex<Inner>);

impl Contents {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A test that panics inside a closure of its own must not take the server down with it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is on a volume; `null` if nothing was ever written.
    pub(crate) fn of_volume(&self, volume: &str) -> Value {
        self.lock().volumes.get(volume).cloned().unwrap_or_default()
    }

    /// Changes several volumes at one instant.
    pub(crate) fn change<'a>(
        &self,
        volumes: impl IntoIterator<Item = &'a str>,
        mut change: impl FnMut(&mut Value),
    ) {
        let mut inner = self.lock();
        for volume in volumes {
            change(inner.volumes.entry(volume.to_owned()).or_default());
        }
    }

    /// What several volumes hold at one instant, in their order.
    pub(crate) fn capture<'a>(&self, volumes: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
        let inner = self.lock();
        let of = |volume: &str| inner.volumes.get(volume).cloned().unwrap_or_default();
        volumes.into_iter().map(of).collect()
    }

    /// What a snapshot holds; `None` if it is not taken yet.
    pub(crate) fn of_snapshot(&self, uid: &str) -> Option<Value> {
        self.lock().snapshots.get(uid).cloned()
    }

    pub(crate) fn set_snapshot(&self, uid: &str, content: Value) {
        self.lock().snapshots.insert(uid.to_owned(), content);
    }

    /// Copies a volume's content into a snapshot, unless that is taken already.
    pub(crate) fn take(&self, uid: &str, volume: &str) {
        let mut inner = self.lock();
        let content = inner.volumes.get(volume).cloned().unwrap_or_default();
        inner.snapshots.entry(uid.to_owned()).or_insert(content);
    }

    /// Copies a snapshot's content onto a new volume.
    pub(crate) fn restore(&self, volume: &str, uid: &str) {
        let mut inner = self.lock();
        if let Some(content) = inner.snapshots.get(uid).cloned() {
            inner.volumes.insert(volume.to_owned(), content);
        }
    }
}
