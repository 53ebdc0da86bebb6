//! What is known at this moment of the snapshots that the schedule owns, claim by claim.
//!
//! The list at the beginning fills it; then the watch, every read and every create are applied to it.
//! Whoever waits for a claim's snapshot is woken when something changed. How a snapshot fits into few bytes is
//! in [`super::compact`].

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::Duration,
};

use k8s_openapi::jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};

use super::compact::{Compact, Texts, Uid};
use crate::{
    api::VolumeSnapshot,
    cluster::Listed,
    report::Stock,
    retention::is_of_others,
    snapshot::{ClaimId, Snapshot},
};

/// The owned snapshots of the targets.
pub(super) struct SnapshotCache {
    schedule: String,
    known: RefCell<Known>,
    /// When the whole was last known to be what the API server has: an event of the watch, or a list.
    heard: Cell<Instant>,
    /// The number of the last list.
    list: Cell<u32>,
}

#[derive(Default)]
struct Known {
    claims: HashMap<Rc<ClaimId>, Entry>,
    texts: Texts,
    /// The uids of those that are gone, with their last resourceVersion: the answer to a read that
    /// was under way meanwhile must not bring one back.
    removed: HashMap<Uid<Box<str>>, Option<u64>>,
}

#[derive(Default)]
struct Entry {
    /// Ordered by uid, but while the first list fills it. A claim has few, and a map would need room to spare.
    snapshots: Vec<Kept>,
    /// The uids of those that are being deleted, whose changes do not count as such.
    to_delete: Vec<Uid<Box<str>>>,
    /// Grows whenever a snapshot that is not being deleted comes, goes, or changes in something that it is
    /// judged by.
    revision: u64,
    /// Whoever waits for a change.
    waiting: Option<Rc<Notify>>,
}

/// A snapshot in the cache.
struct Kept {
    /// The last list that had it.
    list: u32,
    /// Whether a request to delete it was accepted.
    is_deleted: bool,
    compact: Compact,
}

/// A list that is brought into the cache, object by object.
pub(super) struct Listing<'a> {
    cache: &'a SnapshotCache,
    began: Instant,
    list: u32,
}

impl Entry {
    /// Where a snapshot is, or else where it belongs.
    fn position(&self, uid: &str) -> Result<usize, usize> {
        let uid = Uid::of(uid);
        self.snapshots.binary_search_by(|kept| kept.compact.uid().cmp(&uid))
    }

    fn note_change(&mut self, uid: &str) {
        if !self.to_delete.contains(&Uid::of(uid)) {
            self.revision += 1;
        }
    }

    /// Puts a snapshot where it is, or else where it belongs.
    fn replace(&mut self, position: Result<usize, usize>, snapshot: Snapshot, list: u32, texts: &mut Texts) {
        let uid = snapshot.uid.clone();
        let compact = Compact::new(snapshot, texts);
        match position {
            Ok(position) => {
                if !self.snapshots[position].compact.is_judged_alike(&compact, texts) {
                    self.note_change(&uid);
                }
                self.snapshots[position].compact = compact;
            }
            Err(position) => {
                self.note_change(&uid);
                // One more is all that a run adds to a claim.
                self.snapshots.reserve_exact(1);
                self.snapshots.insert(position, Kept { list, is_deleted: false, compact });
            }
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.notify_one();
        }
    }
}

impl SnapshotCache {
    /// An empty cache for the snapshots of a schedule; those of other claims are left out.
    pub(super) fn new(schedule: &str, claims: impl IntoIterator<Item = Rc<ClaimId>>) -> Self {
        let claims = claims.into_iter().map(|claim| (claim, Entry::default())).collect();
        SnapshotCache {
            schedule: schedule.to_owned(),
            known: RefCell::new(Known { claims, ..Known::default() }),
            heard: Cell::new(Instant::now()),
            list: Cell::new(0),
        }
    }

    /// A claim's identity as all share it, if it is among those that the cache is for.
    pub(super) fn id_of(&self, claim: &ClaimId) -> Option<Rc<ClaimId>> {
        self.known.borrow().claims.get_key_value(claim).map(|(id, _)| Rc::clone(id))
    }

    /// Takes in a step of the first list, before anything else is known. [`SnapshotCache::filled`] ends it.
    pub(super) fn fill(&self, listed: Listed<VolumeSnapshot>) {
        let Known { claims, texts, .. } = &mut *self.known.borrow_mut();
        match listed {
            Listed::Begin => claims.values_mut().for_each(|entry| entry.snapshots.clear()),
            Listed::Object(object) => {
                let Some((claim, snapshot)) = Snapshot::owned(object, &self.schedule) else { return };
                if let Some(entry) = claims.get_mut(&claim) {
                    entry.snapshots.push(Kept {
                        list: 0,
                        is_deleted: false,
                        compact: Compact::new(snapshot, texts),
                    });
                }
            }
        }
    }

    /// Lets texts that snapshots may name, such as the uids of their claims, be kept once.
    pub(super) fn share(&self, texts: impl IntoIterator<Item = Rc<str>>) {
        let known = &mut *self.known.borrow_mut();
        texts.into_iter().for_each(|text| known.texts.share(text));
    }

    /// The one copy of a text, if there is one already.
    pub(super) fn shared(&self, text: &str) -> Option<Rc<str>> {
        self.known.borrow().texts.shared(text)
    }

    /// Ends the first list, which was asked for at `listed`, and returns how many snapshots there are.
    pub(super) fn filled(&self, listed: Instant) -> usize {
        let mut number = 0;
        for entry in self.known.borrow_mut().claims.values_mut() {
            entry.snapshots.sort_unstable_by(|a, b| a.compact.uid().cmp(&b.compact.uid()));
            entry.snapshots.dedup_by(|a, b| a.compact.uid() == b.compact.uid());
            entry.snapshots.shrink_to_fit();
            number += entry.snapshots.len();
        }
        self.heard.set(listed);
        number
    }

    /// Takes in a snapshot as it was just read. One that the schedule does not own any more is removed,
    /// and what is older than what is known already is passed over.
    pub(super) fn apply(&self, object: VolumeSnapshot) {
        self.apply_of(object, 0);
    }

    fn apply_of(&self, object: VolumeSnapshot, list: u32) {
        let claim = claim_of(&object);
        let (uid, version) = (object.metadata.uid.clone(), object.metadata.resource_version.parse().ok());
        match (Snapshot::owned(object, &self.schedule), claim) {
            (Some((claim, snapshot)), _) => self.insert(&claim, snapshot, list),
            (None, Some(claim)) => self.forget(&claim, &uid, version),
            (None, None) => {}
        }
    }

    /// Removes a snapshot that is gone.
    pub(super) fn remove(&self, object: &VolumeSnapshot) {
        if let Some(claim) = claim_of(object) {
            self.forget(&claim, &object.metadata.uid, object.metadata.resource_version.parse().ok());
        }
    }

    /// Begins to bring in a list that is being asked for now.
    pub(super) fn listing(&self) -> Listing<'_> {
        Listing { cache: self, began: Instant::now(), list: self.next_list() }
    }

    fn next_list(&self) -> u32 {
        self.list.set(self.list.get() + 1);
        self.list.get()
    }

    /// Notes that everything up to this moment was heard.
    pub(super) fn heard_at(&self, at: Instant) {
        self.heard.set(self.heard.get().max(at));
    }

    /// Whether the whole was known to be what the API server has within the last `duration`.
    pub(super) fn was_heard_within(&self, duration: Duration) -> bool {
        self.heard.get().elapsed() <= duration
    }

    /// All snapshots of a claim.
    pub(super) fn of_claim(&self, claim: &ClaimId) -> Vec<Snapshot> {
        let Known { claims, texts, .. } = &*self.known.borrow();
        let of = |entry: &Entry| entry.snapshots.iter().map(|kept| kept.compact.snapshot(texts)).collect();
        claims.get(claim).map(of).unwrap_or_default()
    }

    /// One snapshot of a claim.
    pub(super) fn get(&self, claim: &ClaimId, uid: &str) -> Option<Snapshot> {
        let Known { claims, texts, .. } = &*self.known.borrow();
        let entry = claims.get(claim)?;
        Some(entry.snapshots.get(entry.position(uid).ok()?)?.compact.snapshot(texts))
    }

    /// The time of a claim's newest ready snapshot.
    pub(super) fn newest_ready(&self, claim: &ClaimId) -> Option<Timestamp> {
        let known = self.known.borrow();
        let ready = known.claims.get(claim)?.snapshots.iter().filter(|kept| kept.compact.is_ready());
        ready.map(|kept| kept.compact.time()).max()
    }

    /// What there is of a claim's snapshots, those of a previous claim of its name left out; `None` if the cache is
    /// not about the claim. `uid` is the claim's, if it is known.
    pub(super) fn stock(&self, claim: &ClaimId, uid: Option<&str>) -> Option<Stock> {
        let Known { claims, texts, .. } = &*self.known.borrow();
        let mut stock = Stock::default();
        for kept in &claims.get(claim)?.snapshots {
            let is_previous =
                uid.is_some_and(|uid| kept.compact.claim_uid(texts).is_some_and(|of| is_of_others(uid, of)));
            if is_previous {
                continue;
            }
            if kept.compact.is_usual() {
                if !kept.is_deleted && kept.compact.is_ready() {
                    stock.ready += 1;
                    stock.newest_ready = stock.newest_ready.max(Some(kept.compact.time()));
                }
                continue;
            }
            let snapshot = kept.compact.snapshot(texts);
            if snapshot.is_terminating() {
                stock.terminating += 1;
            } else if !kept.is_deleted {
                stock.held += u32::from(snapshot.held);
                if snapshot.hindrance().is_none() {
                    stock.ready += 1;
                    stock.newest_ready = stock.newest_ready.max(Some(snapshot.time()));
                }
            }
        }
        Some(stock)
    }

    /// Notes that the API server accepted to delete a snapshot, which may be heard of later.
    pub(super) fn note_deleted(&self, claim: &ClaimId, uid: &str) {
        let mut known = self.known.borrow_mut();
        let Some(entry) = known.claims.get_mut(claim) else { return };
        if let Ok(position) = entry.position(uid) {
            entry.snapshots[position].is_deleted = true;
        }
    }

    /// Looks at all snapshots that are not [usual](Compact::is_usual).
    pub(super) fn for_each_unusual(&self, mut look: impl FnMut(&Snapshot)) {
        let Known { claims, texts, .. } = &*self.known.borrow();
        let all = claims.values().flat_map(|entry| &entry.snapshots);
        for kept in all.filter(|kept| !kept.compact.is_usual()) {
            look(&kept.compact.snapshot(texts));
        }
    }

    /// Notes which of a claim's snapshots are going to be deleted, and returns the claim's revision: while
    /// it stays the same, no other snapshot of the claim came, changed or went.
    pub(super) fn mark_for_deletion<'a>(
        &self,
        claim: &ClaimId,
        uids: impl IntoIterator<Item = &'a str>,
    ) -> u64 {
        let mut known = self.known.borrow_mut();
        let Some(entry) = known.claims.get_mut(claim) else { return 0 };
        entry.to_delete = uids.into_iter().map(Uid::of).collect();
        entry.revision
    }

    /// See [`SnapshotCache::mark_for_deletion`].
    pub(super) fn revision(&self, claim: &ClaimId) -> u64 {
        self.known.borrow().claims.get(claim).map_or(0, |entry| entry.revision)
    }

    /// Waits until something changes about a claim's snapshots. One waits for each claim.
    pub(super) async fn changed(&self, claim: &ClaimId) {
        let waiting = {
            let mut known = self.known.borrow_mut();
            known.claims.get_mut(claim).map(|entry| Rc::clone(entry.waiting.get_or_insert_default()))
        };
        match waiting {
            Some(waiting) => waiting.notified().await,
            None => std::future::pending().await,
        }
    }

    fn insert(&self, claim: &ClaimId, snapshot: Snapshot, list: u32) {
        let Known { claims, texts, removed } = &mut *self.known.borrow_mut();
        let Some(entry) = claims.get_mut(claim) else { return };
        let position = entry.position(&snapshot.uid);
        let version = snapshot.resource_version.parse().ok();
        let last = match position {
            Ok(position) => {
                let kept = &mut entry.snapshots[position];
                kept.list = kept.list.max(list);
                if kept.compact.is_of_version(&snapshot.resource_version) {
                    return;
                }
                kept.compact.version()
            }
            Err(_) => removed.get(&Uid::of(&snapshot.uid)).copied().flatten(),
        };
        if is_older(version, last) {
            return;
        }
        entry.replace(position, snapshot, list, texts);
    }

    /// Takes in what is known of something that is more than one object, whatever was known of it before.
    pub(super) fn put(&self, source: &ClaimId, snapshot: Snapshot) {
        let Known { claims, texts, .. } = &mut *self.known.borrow_mut();
        let Some(entry) = claims.get_mut(source) else { return };
        entry.replace(entry.position(&snapshot.uid), snapshot, 0, texts);
    }

    /// Removes what was [`put`](Self::put).
    pub(super) fn take_away(&self, source: &ClaimId, uid: &str) {
        let mut known = self.known.borrow_mut();
        let Some(entry) = known.claims.get_mut(source) else { return };
        if let Ok(position) = entry.position(uid) {
            entry.snapshots.remove(position);
            entry.note_change(uid);
            entry.wake();
        }
    }

    fn forget(&self, claim: &ClaimId, uid: &str, version: Option<u64>) {
        let Known { claims, removed, .. } = &mut *self.known.borrow_mut();
        let Some(entry) = claims.get_mut(claim) else { return };
        if let Ok(position) = entry.position(uid) {
            entry.snapshots.remove(position);
            removed.insert(Uid::of(uid), version);
            entry.note_change(uid);
            entry.wake();
        }
    }
}

impl Listing<'_> {
    pub(super) fn take(&mut self, listed: Listed<VolumeSnapshot>) {
        match listed {
            Listed::Begin => self.list = self.cache.next_list(),
            Listed::Object(object) => self.cache.apply_of(object, self.list),
        }
    }

    /// Ends a list of all that the schedule owns, of the state `version`.
    pub(super) fn ends(self, version: &str) {
        self.remove_missing(version.parse().ok(), |_| true);
        self.cache.heard_at(self.began);
    }

    /// Ends a list of what a run made, of the state `version`.
    pub(super) fn ends_of_run(self, run: &str, version: &str) {
        self.remove_missing(version.parse().ok(), |snapshot| snapshot.run.as_deref() == Some(run));
    }

    /// Removes what the list is about and did not have, but for what is newer than the list. What a later
    /// list had is there.
    fn remove_missing(&self, version: Option<u64>, is_about: impl Fn(&Snapshot) -> bool) {
        let Known { claims, texts, removed } = &mut *self.cache.known.borrow_mut();
        for entry in claims.values_mut() {
            let Entry { snapshots, to_delete, revision, .. } = entry;
            snapshots.retain(|kept| {
                if kept.list >= self.list {
                    return true;
                }
                let snapshot = kept.compact.snapshot(texts);
                let stays = !is_about(&snapshot) || is_older(version, kept.compact.version());
                if !stays {
                    *revision += u64::from(!to_delete.contains(&Uid::of(&snapshot.uid)));
                    removed.insert(Uid::of(&snapshot.uid), version);
                }
                stays
            });
            entry.wake();
        }
    }
}

fn claim_of(object: &VolumeSnapshot) -> Option<ClaimId> {
    let name = object.spec.source.persistent_volume_claim_name.clone()?;
    Some(ClaimId { namespace: object.metadata.namespace.clone(), name })
}

/// Whether one resourceVersion is surely older than another. Answers to reads and events of the
/// watch overtake each other. Kubernetes promises since 1.35 that they are numbers that grow, as
/// they always were; where they are not, what came last is believed.
pub(super) fn is_older(version: Option<u64>, than: Option<u64>) -> bool {
    matches!((version, than), (Some(version), Some(than)) if version < than)
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
        SnapshotCache::new("hourly", [Rc::new(data())])
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
        cache.listing().ends("20");
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
        cache.listing().ends_of_run("run-1", "3");
        assert_eq!(cache.of_claim(&data()).len(), 1);
        cache.listing().ends("4");
        assert!(cache.of_claim(&data()).is_empty());
    }

    #[test]
    fn only_changes_of_those_that_are_not_being_deleted_make_a_new_revision() {
        let cache = cache();
        cache.apply(object("keep", "1", "hourly"));
        cache.apply(object("old", "2", "hourly"));
        let judged = cache.mark_for_deletion(&data(), ["old"]);
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
        cache.listing().ends("9");
        assert_ne!(cache.revision(&data()), judged);
    }

    #[test]
    fn the_stock_counts_what_there_is_of_this_very_claim() {
        let cache = cache();
        let of = |uid: &str, metadata: serde_json::Value, status: serde_json::Value| {
            let mut object = json!({
                "metadata": {
                    "name": uid, "namespace": "app", "uid": uid, "resourceVersion": "1", "labels": {"job": "hourly"},
                    "creationTimestamp": "2026-11-20T08:00:00Z",
                },
                "spec": {"source": {"persistentVolumeClaimName": "data"}},
                "status": status,
            });
            for (name, value) in metadata.as_object().expect("an object") {
                object["metadata"][name] = value.clone();
            }
            serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot")
        };
        let ready =
            |hour: u8| json!({"readyToUse": true, "creationTime": format!("2026-11-20T{hour:02}:30:00Z")});
        assert_eq!(cache.stock(&data(), Some("1")), Some(Stock::default()));
        let held = json!({"labels": {"job": "hourly", "volume-snapshotter/hold": "true"}});
        let going = json!({"deletionTimestamp": "2026-11-20T09:00:00Z"});
        let previous = json!({"annotations": {"volume-snapshotter/claim-uid": "0"}});
        for (uid, metadata, status) in [
            ("a", json!({}), ready(8)),
            ("b", held.clone(), ready(9)),
            ("c", held, json!({"readyToUse": false})),
            ("d", going, ready(12)),
            ("e", previous, ready(13)),
            ("f", json!({}), ready(10)),
            ("g", json!({}), json!({"readyToUse": true, "creationTime": 17})),
        ] {
            cache.apply(of(uid, metadata, status));
        }
        let stock = |uid| cache.stock(&data(), uid).expect("a known claim");
        let time = |text: &str| text.parse().ok();
        assert_eq!(
            stock(Some("1")),
            Stock { newest_ready: time("2026-11-20T10:30:00Z"), ready: 3, held: 2, terminating: 1 }
        );
        // Nobody knows which claim it is.
        assert_eq!(stock(None).newest_ready, time("2026-11-20T13:30:00Z"));
        // Accepted, and not yet heard of.
        cache.note_deleted(&data(), "f");
        assert_eq!(
            stock(Some("1")),
            Stock { newest_ready: time("2026-11-20T09:30:00Z"), ready: 2, held: 2, terminating: 1 }
        );
        let other = ClaimId { namespace: "app".to_owned(), name: "logs".to_owned() };
        assert_eq!(cache.stock(&other, None), None);
    }
}
