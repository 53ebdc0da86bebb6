//! What is known at this moment of the snapshots that the schedule owns, claim by claim.
//!
//! The list at the beginning fills it; then the watch, every read and every create are applied to it.
//! Whoever waits for a claim's snapshot is woken when something changed.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    api::VolumeSnapshot,
    snapshot::{ClaimId, Snapshot},
};

/// The owned snapshots of the targets.
pub(super) struct SnapshotCache {
    schedule: String,
    claims: RefCell<HashMap<ClaimId, Entry>>,
    /// When the whole was last known to be what the API server has: an event of the watch, or a list.
    heard: Cell<Instant>,
}

#[derive(Default)]
struct Entry {
    /// Ordered by uid. A claim has few, and a map would hold each uid twice and room to spare.
    snapshots: Vec<Snapshot>,
    /// The uids of those that are gone, with their last resourceVersion: the answer to a read that
    /// was under way meanwhile must not bring one back.
    removed: HashMap<String, String>,
    /// The uids of those that are being deleted, whose changes do not count as such.
    to_delete: HashSet<String>,
    /// Grows whenever a snapshot that is not being deleted comes, goes, or changes in something that it is
    /// judged by.
    revision: u64,
    changed: Rc<Notify>,
}

impl Entry {
    /// Where a snapshot is, or else where it belongs.
    fn position(&self, uid: &str) -> Result<usize, usize> {
        self.snapshots.binary_search_by(|known| known.uid.as_str().cmp(uid))
    }

    fn known(&self, uid: &str) -> Option<&Snapshot> {
        self.snapshots.get(self.position(uid).ok()?)
    }

    fn note_change(&mut self, uid: &str) {
        if !self.to_delete.contains(uid) {
            self.revision += 1;
        }
    }
}

impl SnapshotCache {
    /// The `owned` snapshots of a schedule, each with its claim, as they were listed at `listed`; those of
    /// other claims are left out now and later.
    pub(super) fn new(
        schedule: &str,
        claims: impl IntoIterator<Item = ClaimId>,
        owned: Vec<(ClaimId, Snapshot)>,
        listed: Instant,
    ) -> Self {
        let claims = claims.into_iter().map(|claim| (claim, Entry::default())).collect();
        let cache = SnapshotCache {
            schedule: schedule.to_owned(),
            claims: RefCell::new(claims),
            heard: Cell::new(listed),
        };
        cache.apply_all(owned);
        cache
    }

    /// Takes in a snapshot as it was just read. One that the schedule does not own any more is removed,
    /// and what is older than what is known already is passed over.
    pub(super) fn apply(&self, object: VolumeSnapshot) {
        let claim = claim_of(&object);
        let (uid, version) = (object.metadata.uid.clone(), object.metadata.resource_version.clone());
        match (Snapshot::owned(object, &self.schedule), claim) {
            (Some((claim, snapshot)), _) => self.insert(&claim, snapshot),
            (None, Some(claim)) => self.forget(&claim, &uid, version),
            (None, None) => {}
        }
    }

    /// Removes a snapshot that is gone.
    pub(super) fn remove(&self, object: &VolumeSnapshot) {
        if let Some(claim) = claim_of(object) {
            self.forget(&claim, &object.metadata.uid, object.metadata.resource_version.clone());
        }
    }

    /// Puts a new list, of the state `version`, in the place of all that was known. It was asked for at
    /// `listed`.
    pub(super) fn replace(&self, owned: Vec<(ClaimId, Snapshot)>, version: &str, listed: Instant) {
        self.replace_some(owned, version, |_| true);
        self.heard_at(listed);
    }

    /// Puts a list of the snapshots that a run made, of the state `version`, in the place of what was
    /// known of them.
    pub(super) fn replace_of_run(&self, run: &str, owned: Vec<(ClaimId, Snapshot)>, version: &str) {
        self.replace_some(owned, version, |snapshot| snapshot.run.as_deref() == Some(run));
    }

    /// Notes that everything up to this moment was heard.
    pub(super) fn heard_at(&self, at: Instant) {
        self.heard.set(self.heard.get().max(at));
    }

    /// Whether the whole was known to be what the API server has within the last `duration`.
    pub(super) fn was_heard_within(&self, duration: Duration) -> bool {
        self.heard.get().elapsed() <= duration
    }

    /// Removes what the list is about and does not have, but for what is newer than the list.
    fn replace_some(
        &self,
        owned: Vec<(ClaimId, Snapshot)>,
        version: &str,
        is_about: impl Fn(&Snapshot) -> bool,
    ) {
        let listed: HashSet<&str> = owned.iter().map(|(_, snapshot)| snapshot.uid.as_str()).collect();
        for entry in self.claims.borrow_mut().values_mut() {
            let Entry { snapshots, removed, to_delete, revision, .. } = entry;
            snapshots.retain(|snapshot| {
                let stays = !is_about(snapshot)
                    || listed.contains(snapshot.uid.as_str())
                    || is_older(version, &snapshot.resource_version);
                if !stays {
                    removed.insert(snapshot.uid.clone(), version.to_owned());
                    *revision += u64::from(!to_delete.contains(&snapshot.uid));
                }
                stays
            });
            entry.changed.notify_one();
        }
        self.apply_all(owned);
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

    /// Notes which of a claim's snapshots are going to be deleted, and returns the claim's revision: while
    /// it stays the same, no other snapshot of the claim came, changed or went.
    pub(super) fn mark_for_deletion(&self, claim: &ClaimId, uids: impl IntoIterator<Item = String>) -> u64 {
        let mut claims = self.claims.borrow_mut();
        let Some(entry) = claims.get_mut(claim) else { return 0 };
        entry.to_delete = uids.into_iter().collect();
        entry.revision
    }

    /// See [`SnapshotCache::mark_for_deletion`].
    pub(super) fn revision(&self, claim: &ClaimId) -> u64 {
        self.claims.borrow().get(claim).map_or(0, |entry| entry.revision)
    }

    /// Waits until something changed about a claim's snapshots since the last time it was asked.
    pub(super) async fn changed(&self, claim: &ClaimId) {
        let changed = self.claims.borrow().get(claim).map(|entry| Rc::clone(&entry.changed));
        match changed {
            Some(changed) => changed.notified().await,
            None => std::future::pending().await,
        }
    }

    fn apply_all(&self, mut owned: Vec<(ClaimId, Snapshot)>) {
        let mut numbers: HashMap<&ClaimId, usize> = HashMap::new();
        for (claim, _) in &owned {
            *numbers.entry(claim).or_default() += 1;
        }
        for (claim, number) in numbers {
            if let Some(entry) = self.claims.borrow_mut().get_mut(claim) {
                entry.snapshots.reserve_exact(number.saturating_sub(entry.snapshots.len()));
            }
        }
        // By uid, so that each finds its position at the end.
        owned.sort_unstable_by(|(_, a), (_, b)| a.uid.cmp(&b.uid));
        for (claim, snapshot) in owned {
            self.insert(&claim, snapshot);
        }
    }

    fn insert(&self, claim: &ClaimId, snapshot: Snapshot) {
        let mut claims = self.claims.borrow_mut();
        let Some(entry) = claims.get_mut(claim) else { return };
        let known = entry.known(&snapshot.uid).map(|known| &known.resource_version);
        let last = known.or_else(|| entry.removed.get(&snapshot.uid));
        if last.is_some_and(|last| is_older(&snapshot.resource_version, last)) {
            return;
        }
        if known == Some(&snapshot.resource_version) {
            return;
        }
        let uid = snapshot.uid.clone();
        match entry.position(&uid) {
            Ok(position) => {
                if !is_judged_alike(&entry.snapshots[position], &snapshot) {
                    entry.note_change(&uid);
                }
                entry.snapshots[position] = snapshot;
            }
            Err(position) => {
                entry.note_change(&uid);
                // One more is all that a run adds to a claim.
                entry.snapshots.reserve_exact(1);
                entry.snapshots.insert(position, snapshot);
            }
        }
        entry.changed.notify_one();
    }

    fn forget(&self, claim: &ClaimId, uid: &str, version: String) {
        let mut claims = self.claims.borrow_mut();
        let Some(entry) = claims.get_mut(claim) else { return };
        if let Ok(position) = entry.position(uid) {
            entry.snapshots.remove(position);
            entry.removed.insert(uid.to_owned(), version);
            entry.note_change(uid);
            entry.changed.notify_one();
        }
    }
}

/// Whether two states of a snapshot differ in nothing that a judgement depends on. The snapshot controller
/// goes on writing to a snapshot that is ready.
fn is_judged_alike(before: &Snapshot, now: &Snapshot) -> bool {
    let error = before.error.clone();
    let version = before.resource_version.clone();
    *before == Snapshot { error, resource_version: version, ..now.clone() }
}

fn claim_of(object: &VolumeSnapshot) -> Option<ClaimId> {
    let name = object.spec.source.persistent_volume_claim_name.clone()?;
    Some(ClaimId { namespace: object.metadata.namespace.clone(), name })
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

    fn object(uid: &str, version: &str, schedule: &str) -> VolumeSnapshot {
        serde_json::from_value(json!({
            "metadata": {"name": uid, "namespace": "app", "uid": uid, "resourceVersion": version, "labels": {"job": schedule}},
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
        }))
        .expect("a snapshot")
    }

    fn data() -> ClaimId {
        ClaimId { namespace: "app".to_owned(), name: "data".to_owned() }
    }

    fn cache() -> SnapshotCache {
        SnapshotCache::new("hourly", [data()], Vec::new(), Instant::now())
    }

    fn version(cache: &SnapshotCache, uid: &str) -> Option<String> {
        cache.get(&data(), uid).map(|snapshot| snapshot.resource_version)
    }

    #[test]
    fn answers_that_come_late_do_not_overwrite_what_is_newer() {
        let cache = cache();
        cache.apply(object("a", "9", "hourly"));
        cache.apply(object("a", "10", "hourly"));
        cache.apply(object("a", "9", "hourly"));
        assert_eq!(version(&cache, "a").as_deref(), Some("10"));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_bring_back_what_is_gone() {
        let cache = cache();
        cache.apply(object("a", "9", "hourly"));
        cache.remove(&object("a", "12", "hourly"));
        cache.apply(object("a", "11", "hourly"));
        assert_eq!(version(&cache, "a"), None);
        // It is there after all, for one who relabelled it, say.
        cache.apply(object("a", "13", "hourly"));
        assert_eq!(version(&cache, "a").as_deref(), Some("13"));
    }

    #[test]
    fn a_list_removes_what_it_lacks_for_good_but_nothing_that_is_newer() {
        let cache = cache();
        cache.apply(object("a", "9", "hourly"));
        cache.apply(object("new", "21", "hourly"));
        cache.replace(Vec::new(), "20", Instant::now());
        assert_eq!(version(&cache, "a"), None);
        assert_eq!(version(&cache, "new").as_deref(), Some("21"));
        cache.apply(object("a", "9", "hourly"));
        assert_eq!(version(&cache, "a"), None, "an answer that comes late does not bring it back");
    }

    #[test]
    fn what_changes_hands_is_removed() {
        let cache = cache();
        cache.apply(object("a", "9", "hourly"));
        cache.apply(object("a", "10", "weekly"));
        assert_eq!(version(&cache, "a"), None);
        cache.apply(object("b", "11", "weekly"));
        assert!(cache.of_claim(&data()).is_empty());
    }

    #[test]
    fn a_claim_of_the_same_name_in_another_namespace_is_another_one() {
        let cache = cache();
        let mut other = object("a", "9", "hourly");
        other.metadata.namespace = "other".to_owned();
        cache.apply(other);
        assert!(cache.of_claim(&data()).is_empty());
    }

    #[test]
    fn a_list_of_the_runs_own_says_nothing_of_the_others() {
        let cache = cache();
        let mut own = object("own", "2", "hourly");
        own.metadata.labels.insert("volume-snapshotter/run".into(), "run-1".into());
        cache.apply(object("old", "1", "hourly"));
        cache.apply(own);
        cache.replace_of_run("run-1", Vec::new(), "3");
        assert_eq!(cache.of_claim(&data()).len(), 1);
        cache.replace(Vec::new(), "4", Instant::now());
        assert!(cache.of_claim(&data()).is_empty());
    }

    #[test]
    fn only_changes_of_those_that_are_not_being_deleted_make_a_new_revision() {
        let cache = cache();
        cache.apply(object("keep", "1", "hourly"));
        cache.apply(object("old", "2", "hourly"));
        let judged = cache.mark_for_deletion(&data(), ["old".to_owned()]);
        cache.apply(object("old", "3", "hourly"));
        cache.remove(&object("old", "4", "hourly"));
        assert_eq!(cache.revision(&data()), judged);
        cache.apply(object("keep", "1", "hourly"));
        assert_eq!(cache.revision(&data()), judged, "it is what it was");
        cache.remove(&object("keep", "5", "hourly"));
        assert_ne!(cache.revision(&data()), judged);
        let judged = cache.mark_for_deletion(&data(), []);
        cache.apply(object("new", "6", "hourly"));
        assert_ne!(cache.revision(&data()), judged);
        let judged = cache.mark_for_deletion(&data(), []);
        cache.replace(Vec::new(), "9", Instant::now());
        assert_ne!(cache.revision(&data()), judged);
    }
}
