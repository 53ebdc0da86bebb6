//! What is known of the snapshots that the schedule owns, claim by claim, at this moment.
//!
//! The list at the beginning fills it; then the watch, every read and every create write into it.
//! Whoever waits for a claim's snapshot is woken when something changed.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    rc::Rc,
};

use tokio::sync::Notify;

use crate::{
    api::VolumeSnapshot,
    snapshot::{ClaimId, Snapshot},
};

/// The owned snapshots of the chosen claims.
pub(super) struct Ledger {
    job: String,
    claims: RefCell<HashMap<ClaimId, Entry>>,
}

#[derive(Default)]
struct Entry {
    /// Ordered by uid. A claim has few, and a map would hold each uid twice and room to spare.
    snapshots: Vec<Snapshot>,
    /// The uids of those that are gone, with their last resourceVersion: the answer to a read that
    /// was under way meanwhile must not bring one back.
    gone: HashMap<String, String>,
    changed: Rc<Notify>,
}

impl Entry {
    /// Where a snapshot is, or else where it belongs.
    fn place(&self, uid: &str) -> Result<usize, usize> {
        self.snapshots.binary_search_by(|known| known.uid.as_str().cmp(uid))
    }

    fn known(&self, uid: &str) -> Option<&Snapshot> {
        self.snapshots.get(self.place(uid).ok()?)
    }
}

impl Ledger {
    /// The `owned` snapshots of the schedule `job`, each with its claim; those of other claims are
    /// left out now and later.
    pub(super) fn new(
        job: &str,
        claims: impl IntoIterator<Item = ClaimId>,
        owned: Vec<(ClaimId, Snapshot)>,
    ) -> Self {
        let claims = claims.into_iter().map(|claim| (claim, Entry::default())).collect();
        let ledger = Ledger { job: job.to_owned(), claims: RefCell::new(claims) };
        ledger.write_all(owned);
        ledger
    }

    /// Writes down a snapshot as it was just seen. One that the schedule does not own any more is
    /// struck out, and what is older than what is known already is passed over.
    pub(super) fn see(&self, object: VolumeSnapshot) {
        let (uid, version) = (object.metadata.uid.clone(), object.metadata.resource_version.clone());
        match Snapshot::owned(object, &self.job) {
            Some((claim, snapshot)) => self.write(&claim, snapshot),
            None => self.strike(&uid, version),
        }
    }

    /// Strikes out a snapshot that is gone.
    pub(super) fn forget(&self, object: &VolumeSnapshot) {
        self.strike(&object.metadata.uid, object.metadata.resource_version.clone());
    }

    /// Puts a new list, of the state `version`, in the place of all that was known.
    pub(super) fn replace(&self, owned: Vec<(ClaimId, Snapshot)>, version: &str) {
        self.replace_some(owned, version, |_| true);
    }

    /// Puts a list of the run's own snapshots, of the state `version`, in the place of what was known
    /// of them.
    pub(super) fn replace_of_run(&self, run: &str, owned: Vec<(ClaimId, Snapshot)>, version: &str) {
        self.replace_some(owned, version, |snapshot| snapshot.run.as_deref() == Some(run));
    }

    /// Strikes out what the list is about and does not have, but for what is newer than the list.
    fn replace_some(
        &self,
        owned: Vec<(ClaimId, Snapshot)>,
        version: &str,
        is_about: impl Fn(&Snapshot) -> bool,
    ) {
        let listed: HashSet<&str> = owned.iter().map(|(_, snapshot)| snapshot.uid.as_str()).collect();
        for entry in self.claims.borrow_mut().values_mut() {
            let Entry { snapshots, gone, .. } = entry;
            snapshots.retain(|snapshot| {
                let stays = !is_about(snapshot)
                    || listed.contains(snapshot.uid.as_str())
                    || is_older(version, &snapshot.resource_version);
                if !stays {
                    gone.insert(snapshot.uid.clone(), version.to_owned());
                }
                stays
            });
            entry.changed.notify_one();
        }
        self.write_all(owned);
    }

    /// All snapshots of a claim.
    pub(super) fn of_claim(&self, claim: &ClaimId) -> Vec<Snapshot> {
        let claims = self.claims.borrow();
        claims.get(claim).map(|entry| entry.snapshots.clone()).unwrap_or_default()
    }

    /// One snapshot of a claim.
    pub(super) fn get(&self, claim: &ClaimId, uid: &str) -> Option<Snapshot> {
        self.claims.borrow().get(claim)?.known(uid).cloned()
    }

    /// Waits until something changed about a claim's snapshots since the last time it was asked.
    pub(super) async fn changed(&self, claim: &ClaimId) {
        let changed = self.claims.borrow().get(claim).map(|entry| Rc::clone(&entry.changed));
        match changed {
            Some(changed) => changed.notified().await,
            None => std::future::pending().await,
        }
    }

    fn write_all(&self, mut owned: Vec<(ClaimId, Snapshot)>) {
        let mut numbers: HashMap<&ClaimId, usize> = HashMap::new();
        for (claim, _) in &owned {
            *numbers.entry(claim).or_default() += 1;
        }
        for (claim, number) in numbers {
            if let Some(entry) = self.claims.borrow_mut().get_mut(claim) {
                entry.snapshots.reserve_exact(number);
            }
        }
        // By uid, so that each finds its place at the end.
        owned.sort_unstable_by(|(_, a), (_, b)| a.uid.cmp(&b.uid));
        for (claim, snapshot) in owned {
            self.write(&claim, snapshot);
        }
    }

    fn write(&self, claim: &ClaimId, snapshot: Snapshot) {
        let mut claims = self.claims.borrow_mut();
        let Some(entry) = claims.get_mut(claim) else { return };
        let known = entry.known(&snapshot.uid).map(|known| &known.resource_version);
        let last = known.or_else(|| entry.gone.get(&snapshot.uid));
        if last.is_some_and(|last| is_older(&snapshot.resource_version, last)) {
            return;
        }
        match entry.place(&snapshot.uid) {
            Ok(place) => entry.snapshots[place] = snapshot,
            Err(place) => {
                // For one more is all that a run adds to a claim.
                entry.snapshots.reserve_exact(1);
                entry.snapshots.insert(place, snapshot);
            }
        }
        entry.changed.notify_one();
    }

    fn strike(&self, uid: &str, version: String) {
        for entry in self.claims.borrow_mut().values_mut() {
            if let Ok(place) = entry.place(uid) {
                entry.snapshots.remove(place);
                entry.gone.insert(uid.to_owned(), version);
                entry.changed.notify_one();
                return;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, version: &str, job: &str) -> VolumeSnapshot {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "app", "uid": uid, "resourceVersion": version, "labels": {"job": job}},
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
        }))
        .expect("a snapshot")
    }

    fn data() -> ClaimId {
        ClaimId { namespace: "app".to_owned(), name: "data".to_owned() }
    }

    fn ledger() -> Ledger {
        Ledger::new("hourly", [data()], Vec::new())
    }

    fn version(ledger: &Ledger, uid: &str) -> Option<String> {
        ledger.get(&data(), uid).map(|snapshot| snapshot.resource_version)
    }

    #[test]
    fn answers_that_come_late_do_not_overwrite_what_is_newer() {
        let ledger = ledger();
        ledger.see(object("a", "9", "hourly"));
        ledger.see(object("a", "10", "hourly"));
        ledger.see(object("a", "9", "hourly"));
        assert_eq!(version(&ledger, "a").as_deref(), Some("10"));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_bring_back_what_is_gone() {
        let ledger = ledger();
        ledger.see(object("a", "9", "hourly"));
        ledger.forget(&object("a", "12", "hourly"));
        ledger.see(object("a", "11", "hourly"));
        assert_eq!(version(&ledger, "a"), None);
        // It is there after all, for one who relabelled it, say.
        ledger.see(object("a", "13", "hourly"));
        assert_eq!(version(&ledger, "a").as_deref(), Some("13"));
    }

    #[test]
    fn a_list_strikes_out_what_it_lacks_for_good_but_nothing_that_is_newer() {
        let ledger = ledger();
        ledger.see(object("a", "9", "hourly"));
        ledger.see(object("new", "21", "hourly"));
        ledger.replace(Vec::new(), "20");
        assert_eq!(version(&ledger, "a"), None);
        assert_eq!(version(&ledger, "new").as_deref(), Some("21"));
        ledger.see(object("a", "9", "hourly"));
        assert_eq!(version(&ledger, "a"), None, "an answer that comes late does not bring it back");
    }

    #[test]
    fn what_changes_hands_is_struck_out() {
        let ledger = ledger();
        ledger.see(object("a", "9", "hourly"));
        ledger.see(object("a", "10", "weekly"));
        assert_eq!(version(&ledger, "a"), None);
        ledger.see(object("b", "11", "weekly"));
        assert!(ledger.of_claim(&data()).is_empty());
    }

    #[test]
    fn a_claim_of_the_same_name_in_another_namespace_is_another_one() {
        let ledger = ledger();
        let mut other = object("a", "9", "hourly");
        other.metadata.namespace = "other".to_owned();
        ledger.see(other);
        assert!(ledger.of_claim(&data()).is_empty());
    }

    #[test]
    fn a_list_of_the_runs_own_says_nothing_of_the_others() {
        let ledger = ledger();
        let mut own = object("own", "2", "hourly");
        own.metadata.labels.insert("volume-snapshotter/run".into(), "run-1".into());
        ledger.see(object("old", "1", "hourly"));
        ledger.see(own);
        ledger.replace_of_run("run-1", Vec::new(), "3");
        assert_eq!(ledger.of_claim(&data()).len(), 1);
        ledger.replace(Vec::new(), "4");
        assert!(ledger.of_claim(&data()).is_empty());
    }
}
