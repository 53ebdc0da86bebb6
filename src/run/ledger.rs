//! What is known of the snapshots that the schedule owns, claim by claim, at this moment.
//!
//! The list at the beginning fills it; then the watch, every read and every create write into it.
//! Whoever waits for a claim's snapshot is woken when something changed.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use tokio::sync::Notify;

use crate::{api::VolumeSnapshot, snapshot::Snapshot};

/// The owned snapshots of the chosen claims.
pub(super) struct Ledger {
    job: String,
    claims: RefCell<HashMap<String, Entry>>,
}

#[derive(Default)]
struct Entry {
    /// By uid.
    snapshots: BTreeMap<String, Snapshot>,
    changed: Rc<Notify>,
}

impl Ledger {
    /// The `owned` snapshots of the schedule `job`, each with its claim; those of other claims are
    /// left out now and later.
    pub(super) fn new(
        job: &str,
        claims: impl IntoIterator<Item = String>,
        owned: Vec<(String, Snapshot)>,
    ) -> Self {
        let claims = claims.into_iter().map(|claim| (claim, Entry::default())).collect();
        let ledger = Ledger { job: job.to_owned(), claims: RefCell::new(claims) };
        ledger.write_all(owned);
        ledger
    }

    /// Writes down a snapshot as it was just seen. One that the schedule does not own any more is
    /// struck out, and what is older than what is known already is passed over.
    pub(super) fn see(&self, object: VolumeSnapshot) {
        let uid = object.metadata.uid.clone();
        match Snapshot::owned(object, &self.job) {
            Some((claim, snapshot)) => self.write(&claim, snapshot),
            None => self.strike(&uid),
        }
    }

    /// Strikes out a snapshot that is gone.
    pub(super) fn forget(&self, object: &VolumeSnapshot) {
        self.strike(&object.metadata.uid);
    }

    /// Puts a new list in the place of all that was known.
    pub(super) fn replace(&self, owned: Vec<(String, Snapshot)>) {
        for entry in self.claims.borrow_mut().values_mut() {
            entry.snapshots.clear();
            entry.changed.notify_one();
        }
        self.write_all(owned);
    }

    /// Puts a list of the run's own snapshots in the place of what was known of them.
    pub(super) fn replace_of_run(&self, run: &str, owned: Vec<(String, Snapshot)>) {
        for entry in self.claims.borrow_mut().values_mut() {
            entry.snapshots.retain(|uid, snapshot| {
                snapshot.run.as_deref() != Some(run) || owned.iter().any(|(_, listed)| listed.uid == *uid)
            });
            entry.changed.notify_one();
        }
        self.write_all(owned);
    }

    /// All snapshots of a claim.
    pub(super) fn of_claim(&self, claim: &str) -> Vec<Snapshot> {
        let claims = self.claims.borrow();
        claims.get(claim).map(|entry| entry.snapshots.values().cloned().collect()).unwrap_or_default()
    }

    /// One snapshot of a claim.
    pub(super) fn get(&self, claim: &str, uid: &str) -> Option<Snapshot> {
        self.claims.borrow().get(claim)?.snapshots.get(uid).cloned()
    }

    /// Waits until something changed about a claim's snapshots since the last time it was asked.
    pub(super) async fn changed(&self, claim: &str) {
        let changed = self.claims.borrow().get(claim).map(|entry| Rc::clone(&entry.changed));
        match changed {
            Some(changed) => changed.notified().await,
            None => std::future::pending().await,
        }
    }

    fn write_all(&self, owned: Vec<(String, Snapshot)>) {
        for (claim, snapshot) in owned {
            self.write(&claim, snapshot);
        }
    }

    fn write(&self, claim: &str, snapshot: Snapshot) {
        let mut claims = self.claims.borrow_mut();
        let Some(entry) = claims.get_mut(claim) else { return };
        let known = entry.snapshots.get(&snapshot.uid);
        if known.is_some_and(|known| is_older(&snapshot.resource_version, &known.resource_version)) {
            return;
        }
        entry.snapshots.insert(snapshot.uid.clone(), snapshot);
        entry.changed.notify_one();
    }

    fn strike(&self, uid: &str) {
        for entry in self.claims.borrow_mut().values_mut() {
            if entry.snapshots.remove(uid).is_some() {
                entry.changed.notify_one();
            }
        }
    }
}

/// Whether one resourceVersion is surely older than another. Answers to reads and events of the
/// watch overtake each other. Kubernetes promises since 1.35 that they are numbers that grow, as
/// they always were; where they are not, what came last is believed.
fn is_older(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version < than,
        _ => false,
    }
}
