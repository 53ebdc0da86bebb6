//! What is known at this moment of the group snapshots that the schedule owns, and of their members.
//!
//! Groups and members are objects of their own, which are listed and watched side by side. Whatever becomes known of
//! one of them changes what its group is: a [`Snapshot`](crate::snapshot::Snapshot) in a [`SnapshotCache`] of its own,
//! from which the steps of a run learn of a group what they learn of a claim's snapshots from the other.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
    rc::Rc,
    time::Duration,
};

use tokio::time::Instant;

use super::cache::{SnapshotCache, is_older};
use crate::{
    cluster::{Cluster, Error, Listed, Scope},
    group::{Group, Member},
    snapshot::{ClaimId, Snapshot},
};

/// The owned groups of the targets, with the members of all groups.
pub(super) struct GroupCache {
    schedule: String,
    /// The label whose values are the groups.
    label: String,
    /// What the groups are judged as, by namespace and value.
    pub(super) snapshots: SnapshotCache,
    known: RefCell<Known>,
    /// When the groups, and the members, were last known to be what the API server has.
    groups_heard: Cell<Instant>,
    members_heard: Cell<Instant>,
}

#[derive(Default)]
struct Known {
    /// By uid.
    groups: HashMap<String, (ClaimId, Group)>,
    /// By the uid of their group. It may not be known yet, or be somebody else's.
    members: HashMap<String, Vec<Member>>,
    /// The uids of what is gone, with the last resourceVersion: the answer to a read that was under way meanwhile
    /// must not bring it back.
    removed: HashMap<String, String>,
}

fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

impl Known {
    fn is_removed_later(&self, uid: &str, version: &str) -> bool {
        let removed = self.removed.get(uid).and_then(|removed| number(removed));
        is_older(number(version), removed)
    }

    /// The members of a group.
    fn of(&self, group: &str) -> &[Member] {
        self.members.get(group).map_or(&[], Vec::as_slice)
    }
}

impl GroupCache {
    /// An empty cache for the groups of a schedule with these namespaces and values; others are left out.
    pub(super) fn new(schedule: &str, label: &str, groups: impl IntoIterator<Item = Rc<ClaimId>>) -> Self {
        let now = Instant::now();
        GroupCache {
            schedule: schedule.to_owned(),
            label: label.to_owned(),
            snapshots: SnapshotCache::new(schedule, groups),
            known: RefCell::default(),
            groups_heard: Cell::new(now),
            members_heard: Cell::new(now),
        }
    }

    /// Takes in a group as it was just read. One that the schedule does not own any more is removed, and what is older
    /// than what is known already is passed over.
    pub(super) fn apply(&self, group: Group) {
        let Some(source) = group.source(&self.schedule, &self.label) else {
            return self.remove(group.uid(), group.resource_version());
        };
        let uid = group.uid().to_owned();
        {
            let mut known = self.known.borrow_mut();
            let last = known.groups.get(&uid).and_then(|(_, last)| number(last.resource_version()));
            if is_older(number(group.resource_version()), last)
                || known.is_removed_later(&uid, group.resource_version())
            {
                return;
            }
            known.groups.insert(uid.clone(), (source, group));
        }
        self.derive(&uid);
    }

    /// Removes a group that is gone.
    pub(super) fn remove(&self, uid: &str, version: &str) {
        let removed = {
            let mut known = self.known.borrow_mut();
            let removed = known.groups.remove(uid);
            if removed.is_some() {
                known.removed.insert(uid.to_owned(), version.to_owned());
            }
            removed
        };
        if let Some((source, _)) = removed {
            self.snapshots.take_away(&source, uid);
        }
    }

    /// Takes in a member as it was just read.
    pub(super) fn apply_member(&self, member: Member) {
        let group = member.group.clone();
        {
            let mut known = self.known.borrow_mut();
            if known.is_removed_later(&member.uid, &member.resource_version) {
                return;
            }
            let members = known.members.entry(group.clone()).or_default();
            match members.iter_mut().find(|known| known.uid == member.uid) {
                Some(known)
                    if is_older(number(&member.resource_version), number(&known.resource_version)) =>
                {
                    return;
                }
                Some(known) => *known = member,
                None => members.push(member),
            }
        }
        self.derive(&group);
    }

    /// Removes a member that is gone.
    pub(super) fn remove_member(&self, member: &Member) {
        {
            let mut known = self.known.borrow_mut();
            if let Some(members) = known.members.get_mut(&member.group) {
                members.retain(|known| known.uid != member.uid);
            }
            known.removed.insert(member.uid.clone(), member.resource_version.clone());
        }
        self.derive(&member.group);
    }

    /// Brings what a group is judged as up to date.
    fn derive(&self, uid: &str) {
        let known = self.known.borrow();
        if let Some((source, group)) = known.groups.get(uid) {
            self.snapshots.put(source, group.snapshot(known.of(uid)));
        }
    }

    /// Takes in what would have been made in a dry run, as if it were ready.
    pub(super) fn apply_as_ready(&self, group: &Group) {
        if let Some(source) = group.source(&self.schedule, &self.label) {
            let snapshot = group.snapshot([]);
            self.snapshots.put(&source, Snapshot { ready: true, incomplete: false, ..snapshot });
        }
    }

    /// Lists the groups, and brings the cache up to date with them. Returns the resourceVersion from which a watch
    /// goes on.
    ///
    /// # Errors
    /// As [`Cluster::groups`].
    pub(super) async fn list(
        &self,
        cluster: &Cluster,
        scope: &Scope,
        selector: &str,
    ) -> Result<String, Error> {
        let began = Instant::now();
        let mut listed = HashSet::new();
        let take = |step: Listed<Group>| match step {
            Listed::Begin => listed.clear(),
            Listed::Object(group) => {
                listed.insert(group.uid().to_owned());
                self.apply(group);
            }
        };
        let version = cluster.groups(scope, selector, take).await?;
        let missing: Vec<String> = {
            let known = self.known.borrow();
            let is_missing = |(uid, (_, group)): &(&String, &(ClaimId, Group))| {
                !listed.contains(*uid) && !is_older(number(&version), number(group.resource_version()))
            };
            known.groups.iter().filter(is_missing).map(|(uid, _)| uid.clone()).collect()
        };
        missing.iter().for_each(|uid| self.remove(uid, &version));
        self.groups_heard_at(began);
        Ok(version)
    }

    /// Lists the members, likewise.
    ///
    /// # Errors
    /// As [`Cluster::members`].
    pub(super) async fn list_members(&self, cluster: &Cluster, scope: &Scope) -> Result<String, Error> {
        let began = Instant::now();
        let mut listed = HashSet::new();
        let take = |step: Listed<Member>| match step {
            Listed::Begin => listed.clear(),
            Listed::Object(member) => {
                listed.insert(member.uid.clone());
                self.apply_member(member);
            }
        };
        let version = cluster.members(scope, take).await?;
        let missing: Vec<Member> = {
            let known = self.known.borrow();
            let is_missing = |member: &&Member| {
                !listed.contains(&member.uid) && !is_older(number(&version), number(&member.resource_version))
            };
            known.members.values().flatten().filter(is_missing).cloned().collect()
        };
        for member in missing {
            self.remove_member(&Member { resource_version: version.clone(), ..member });
        }
        self.members_heard_at(began);
        Ok(version)
    }

    /// Notes that everything of the groups up to this moment was heard.
    pub(super) fn groups_heard_at(&self, at: Instant) {
        self.groups_heard.set(self.groups_heard.get().max(at));
    }

    /// Notes the same of the members.
    pub(super) fn members_heard_at(&self, at: Instant) {
        self.members_heard.set(self.members_heard.get().max(at));
    }

    /// Whether the whole was known to be what the API server has within the last `duration`.
    pub(super) fn was_heard_within(&self, duration: Duration) -> bool {
        self.groups_heard.get().min(self.members_heard.get()).elapsed() <= duration
    }

    /// The members of a group.
    pub(super) fn members(&self, uid: &str) -> Vec<Member> {
        self.known.borrow().of(uid).to_vec()
    }

    /// The names of the members of the group of this name and source, by their claims.
    pub(super) fn members_by_claim(&self, source: &ClaimId, name: &str) -> BTreeMap<String, String> {
        let known = self.known.borrow();
        let group = known.groups.values().find(|(of, group)| of == source && group.name() == name);
        let members = group.map_or(&[][..], |(_, group)| known.of(group.uid()));
        members.iter().map(|member| (member.claim.clone(), member.name.clone())).collect()
    }

    /// What a group lacks to be ready, for a person; `None` if it lacks nothing, or is not known.
    pub(super) fn lacks(&self, uid: &str) -> Option<String> {
        let known = self.known.borrow();
        known.groups.get(uid).and_then(|(_, group)| group.lacks(known.of(uid)))
    }

    /// Why a group will never be ready, for a person: a member was deleted, or is of a claim that was not asked for.
    pub(super) fn is_lost(&self, uid: &str) -> Option<String> {
        let known = self.known.borrow();
        known.groups.get(uid).and_then(|(_, group)| group.is_lost(known.of(uid)))
    }

    /// The names of the groups of a namespace that claims are being restored from: from one of their members.
    /// `snapshots` are the names of the snapshots that claims are being restored from.
    pub(super) fn in_use(&self, namespace: &str, snapshots: &HashSet<String>) -> HashSet<String> {
        let known = self.known.borrow();
        let is_used = |uid: &str| known.of(uid).iter().any(|member| snapshots.contains(&member.name));
        let groups = known.groups.values().filter(|(source, _)| source.namespace == namespace);
        groups.filter(|(_, group)| is_used(group.uid())).map(|(_, group)| group.name().to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::{VolumeGroupSnapshot, VolumeSnapshot};

    fn group(uid: &str, version: &str, change: impl FnOnce(&mut Value)) -> Group {
        let mut object = json!({
            "metadata": {
                "name": uid, "namespace": "app", "uid": uid, "resourceVersion": version,
                "labels": {"job": "hourly"},
                "annotations": {"volume-snapshotter/claim-uids": "data=1"},
            },
            "spec": {"source": {"selector": {"matchLabels": {"group": "shop"}}}},
            "status": {"readyToUse": true},
        });
        change(&mut object);
        serde_json::from_value::<VolumeGroupSnapshot>(object).expect("a group").into()
    }

    fn member(group: &str, version: &str, ready: bool) -> Member {
        let object = json!({
            "metadata": {
                "name": format!("member-of-{group}"), "namespace": "app", "uid": format!("m-{group}"),
                "resourceVersion": version, "ownerReferences": [{"kind": "VolumeGroupSnapshot", "uid": group}],
            },
            "spec": {"source": {"persistentVolumeClaimName": "data"}}, "status": {"readyToUse": ready},
        });
        Member::of(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot")).expect("a member")
    }

    fn shop() -> ClaimId {
        ClaimId { namespace: "app".to_owned(), name: "shop".to_owned() }
    }

    fn cache() -> GroupCache {
        GroupCache::new("hourly", "group", [Rc::new(shop())])
    }

    fn is_ready(cache: &GroupCache, uid: &str) -> Option<bool> {
        cache.snapshots.get(&shop(), uid).map(|snapshot| snapshot.ready)
    }

    #[test]
    fn a_group_is_what_is_known_of_it_and_its_members_in_whichever_order() {
        let cache = cache();
        cache.apply_member(member("a", "2", true));
        assert_eq!(is_ready(&cache, "a"), None);
        cache.apply(group("a", "1", |_| {}));
        assert_eq!(is_ready(&cache, "a"), Some(true));
        cache.apply_member(member("a", "3", false));
        assert_eq!(is_ready(&cache, "a"), Some(false));
        cache.apply_member(member("a", "2", true));
        assert_eq!(is_ready(&cache, "a"), Some(false), "an answer that comes late");
        cache.remove_member(&member("a", "4", true));
        assert!(cache.snapshots.get(&shop(), "a").is_some_and(|snapshot| snapshot.incomplete));
        cache.apply_member(member("a", "3", true));
        assert_eq!(is_ready(&cache, "a"), Some(false), "what is gone does not come back");
    }

    #[test]
    fn what_changes_hands_or_is_gone_is_no_longer_there() {
        let cache = cache();
        cache.apply(group("a", "1", |_| {}));
        cache.apply(group("b", "2", |_| {}));
        cache.apply(group("a", "3", |group| group["metadata"]["labels"]["job"] = json!("daily")));
        cache.remove("b", "4");
        assert!(cache.snapshots.of_claim(&shop()).is_empty());
        cache.apply(group("b", "2", |_| {}));
        assert!(cache.snapshots.of_claim(&shop()).is_empty(), "an answer that comes late");
        cache.apply(group("c", "5", |group| {
            group["spec"]["source"]["selector"]["matchLabels"] = json!({"x": "shop"})
        }));
        assert!(cache.snapshots.of_claim(&shop()).is_empty(), "somebody else's");
    }

    #[test]
    fn a_change_of_a_member_has_its_group_judged_again_unless_it_is_being_deleted() {
        let cache = cache();
        for uid in ["keep", "old"] {
            cache.apply(group(uid, "1", |_| {}));
            cache.apply_member(member(uid, "2", true));
        }
        let judged = cache.snapshots.mark_for_deletion(&shop(), ["old"]);
        cache.apply_member(member("old", "3", false));
        cache.remove("old", "4");
        assert_eq!(cache.snapshots.revision(&shop()), judged);
        cache.apply(group("keep", "5", |_| {}));
        assert_eq!(cache.snapshots.revision(&shop()), judged, "it is what it was");
        cache.apply_member(member("keep", "6", false));
        assert_ne!(cache.snapshots.revision(&shop()), judged);
    }

    #[test]
    fn a_group_is_in_use_while_a_claim_is_being_restored_from_a_member() {
        let cache = cache();
        for uid in ["a", "b"] {
            cache.apply(group(uid, "1", |_| {}));
            cache.apply_member(member(uid, "2", true));
        }
        let used = HashSet::from(["member-of-b".to_owned(), "a".to_owned()]);
        assert_eq!(cache.in_use("app", &used), HashSet::from(["b".to_owned()]));
        assert!(cache.in_use("other", &used).is_empty());
    }
}
