//! Groups: VolumeGroupSnapshots with their members, and what one of them is judged as.
//!
//! A group and its members are objects of their own, and a member may be late, lost or of a claim that nobody asked
//! for. [`Group::snapshot`] says what they are together: a [`Snapshot`], which is ready only if all of it is.
//! [`crate::retention`] judges it as any other. Pure; the members are found by [`crate::cluster`].

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{GROUP_SNAPSHOT_KIND, Lenient, VolumeGroupSnapshot, VolumeSnapshot},
    names,
    snapshot::{ClaimId, Owner, Record, Snapshot, Verification},
    text,
};

/// A VolumeGroupSnapshot without its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub namespace: String,
    /// Key and value of the one label that selects the claims. `None` if they are selected otherwise, and the group
    /// was not made by this program.
    pub selector: Option<(String, String)>,
    /// The schedule, from the label `job`.
    pub schedule: Option<String>,
    /// The VolumeGroupSnapshotClass, which the snapshot controller fills in if it was left out.
    pub class: Option<String>,
    /// The claims when the group was requested: their uids by their names. Empty if that is not known.
    pub claims: BTreeMap<String, String>,
    /// All labels but those that have a field of their own.
    pub labels: BTreeMap<String, String>,
    /// The group alone. Whether it is ready says nothing of its members.
    alone: Snapshot,
}

/// A VolumeSnapshot that a VolumeGroupSnapshot owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// Uid of the group.
    pub group: String,
    /// Name of the claim.
    pub claim: String,
    /// Whether a volume can be created from it.
    pub ready: bool,
    /// Whether it was deleted. Its finalizer keeps it as long as the group is there.
    pub is_terminating: bool,
    /// The last error that the snapshot controller reported.
    pub error: Option<String>,
}

impl Member {
    /// Returns the snapshot as a member; `None` if it is none.
    pub fn of(object: VolumeSnapshot) -> Option<Member> {
        let owner =
            object.metadata.owner_references.iter().find(|owner| owner.kind == GROUP_SNAPSHOT_KIND)?;
        let (group, namespace) = (owner.uid.clone(), object.metadata.namespace.clone());
        let claim = object.spec.source.persistent_volume_claim_name.clone().unwrap_or_default();
        let snapshot = Snapshot::from(object);
        Some(Member {
            namespace,
            group,
            claim,
            ready: snapshot.hindrance().is_none(),
            is_terminating: snapshot.is_terminating(),
            name: snapshot.name,
            uid: snapshot.uid,
            resource_version: snapshot.resource_version,
            error: snapshot.error,
        })
    }
}

impl Member {
    /// Returns the snapshot as a member; `None` if it is none.
    pub fn of_record(record: &Record) -> Option<Member> {
        let snapshot = &record.snapshot;
        Some(Member {
            namespace: record.namespace.clone(),
            name: snapshot.name.clone(),
            uid: snapshot.uid.clone(),
            resource_version: snapshot.resource_version.clone(),
            group: record.group.as_ref()?.uid.clone(),
            claim: record.claim.clone().unwrap_or_default(),
            ready: snapshot.hindrance().is_none(),
            is_terminating: snapshot.is_terminating(),
            error: snapshot.error.clone(),
        })
    }
}

impl From<VolumeGroupSnapshot> for Group {
    fn from(object: VolumeGroupSnapshot) -> Self {
        let VolumeGroupSnapshot { metadata, spec, status } = object;
        let mut labels = metadata.labels;
        let unreadable = status == Lenient::Unreadable;
        let status = status.known().unwrap_or_default();
        let mut selected = spec.source.selector.map(|selector| selector.match_labels).unwrap_or_default();
        let selector = selected.pop_first().filter(|_| selected.is_empty());
        let claims = metadata.annotations.claim_uids.as_deref().unwrap_or_default().split(',');
        let claims = claims.filter_map(|claim| claim.split_once('='));
        let schedule = labels.remove(names::SCHEDULE_LABEL);
        let (run, run_uid) = (labels.remove(names::RUN_LABEL), labels.remove(names::RUN_UID_LABEL));
        Group {
            namespace: metadata.namespace,
            selector,
            schedule,
            class: spec.volume_group_snapshot_class_name,
            claims: claims.map(|(name, uid)| (name.to_owned(), uid.to_owned())).collect(),
            alone: Snapshot {
                held: labels.get(names::HOLD_LABEL).is_some_and(|value| value != "false"),
                run,
                run_uid,
                claim_uid: None,
                verified: false,
                name: metadata.name,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                created: metadata.creation_timestamp.unwrap_or(Timestamp::MAX),
                // The controller turns a missing time of the driver into the Unix epoch.
                taken_at: status.creation_time.filter(|taken_at| *taken_at > Timestamp::UNIX_EPOCH),
                taken_up: status
                    .bound_volume_group_snapshot_content_name
                    .is_some_and(|content| !content.is_empty()),
                ready: status.ready_to_use == Some(true),
                unreadable,
                incomplete: false,
                terminating_since: metadata.deletion_timestamp,
                owner: (!metadata.owner_references.is_empty()).then_some(Owner::Other),
                error: status
                    .error
                    .map(|error| text::foreign(error.message.as_deref().unwrap_or("no message given"))),
            },
            labels,
        }
    }
}

impl Group {
    pub fn name(&self) -> &str {
        &self.alone.name
    }

    pub fn uid(&self) -> &str {
        &self.alone.uid
    }

    pub fn resource_version(&self) -> &str {
        &self.alone.resource_version
    }

    /// The last error of the group itself.
    pub fn error(&self) -> Option<&str> {
        self.alone.error.as_deref()
    }

    /// Whether the hold label is set.
    pub fn is_held(&self) -> bool {
        self.alone.held
    }

    /// The value that its claims have in common. `None` if they are not selected by one label.
    pub fn value(&self) -> Option<&str> {
        self.selector.as_ref().map(|(_, value)| value.as_str())
    }

    /// The group together with its members, as `list` and `restore` show it.
    pub fn record<'a>(&self, members: impl IntoIterator<Item = &'a Member>) -> Record {
        Record {
            namespace: self.namespace.clone(),
            claim: None,
            schedule: self.schedule.clone(),
            class: self.class.clone(),
            restore_size: None,
            maker: None,
            volume: None,
            verification: Verification::default(),
            labels: self.labels.clone(),
            group: None,
            snapshot: self.snapshot(members),
        }
    }

    /// Returns what the group is of if it belongs to `schedule` and its claims are selected by the label `label`: its
    /// namespace and the label's value, in the place of a claim's name. The selector counts and not our label,
    /// because it cannot be changed.
    pub fn source(&self, schedule: &str, label: &str) -> Option<ClaimId> {
        let (key, value) = self.selector.as_ref()?;
        let is_owned = self.schedule.as_deref() == Some(schedule) && key == label;
        is_owned.then(|| ClaimId { namespace: self.namespace.clone(), name: value.clone() })
    }

    /// What the group is together with its members. It is ready if it says so itself, and has a ready member of each
    /// claim that was asked for and no other. Its claims are those that were asked for and those of its members.
    pub fn snapshot<'a>(&self, members: impl IntoIterator<Item = &'a Member>) -> Snapshot {
        let mut snapshot = self.alone.clone();
        let mut ready: BTreeSet<&str> = BTreeSet::new();
        let mut there: BTreeSet<&str> = BTreeSet::new();
        let mut all_ready = !self.claims.is_empty();
        for member in members {
            there.insert(&member.claim);
            match member.ready {
                true => drop(ready.insert(&member.claim)),
                false => all_ready = false,
            }
            snapshot.incomplete |= member.is_terminating && !snapshot.is_terminating();
            if let Some(error) = &member.error {
                let claim = text::foreign(&member.claim);
                snapshot.error.get_or_insert_with(|| format!("the member of claim {claim}: {error}"));
            }
        }
        let asked: BTreeSet<&str> = self.claims.keys().map(String::as_str).collect();
        snapshot.incomplete |= snapshot.ready && !asked.is_subset(&there);
        snapshot.ready &= all_ready && asked == ready;
        let of_others = there.difference(&asked).map(|claim| (*claim, ""));
        let of_asked = self.claims.iter().map(|(name, uid)| (name.as_str(), uid.as_str()));
        snapshot.claim_uid = Some(claim_uids(of_asked.chain(of_others)));
        snapshot
    }

    /// Why the group will never be ready, for a person; `None` if it may be.
    pub fn is_lost<'a>(&self, members: impl IntoIterator<Item = &'a Member>) -> Option<String> {
        members.into_iter().find_map(|member| {
            let claim = text::foreign(&member.claim);
            match self.claims.contains_key(&member.claim) {
                false => Some(format!("it has a member of claim {claim}, which was not asked for")),
                true if member.is_terminating => {
                    Some(format!("somebody deleted its member {} of claim {claim}", member.name))
                }
                true => None,
            }
        })
    }

    /// What the group lacks to be ready, for a person; `None` if it lacks nothing.
    pub fn lacks<'a>(&self, members: impl IntoIterator<Item = &'a Member>) -> Option<String> {
        let members: Vec<&Member> = members.into_iter().collect();
        let not_ready = || match &self.alone.error {
            Some(error) => error.clone(),
            None => "the group itself is not ready, and the snapshot controller reports no error".to_owned(),
        };
        if !self.alone.ready && members.is_empty() {
            return Some(not_ready());
        }
        let mut lacks: Vec<String> = self.is_lost(members.iter().copied()).into_iter().collect();
        for claim in self.claims.keys() {
            let of_claim = members.iter().find(|member| member.claim == *claim);
            let claim = text::foreign(claim);
            match of_claim {
                None => lacks.push(format!(
                    "it has no member of claim {claim}; a ResourceQuota that is used up keeps the snapshot controller \
                     from making one, see kubectl describe resourcequota"
                )),
                Some(member) if !member.ready && !member.is_terminating => {
                    let error = member.error.as_ref().map(|error| format!(": {error}"));
                    let error = error.unwrap_or_default();
                    lacks.push(format!("its member {} of claim {claim} is not ready{error}", member.name));
                }
                Some(_) => {}
            }
        }
        if lacks.is_empty() && !self.alone.ready {
            lacks.push(not_ready());
        }
        (!lacks.is_empty()).then(|| lacks.join("; "))
    }
}

/// The identity of the claims of a group: each as `name=uid`, in the order of their names.
/// [`crate::retention::ClaimIdentity`] compares such texts.
pub fn claim_uids<'a>(claims: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let claims: BTreeMap<&str, &str> = claims.into_iter().collect();
    let claims: Vec<String> = claims.into_iter().map(|(name, uid)| format!("{name}={uid}")).collect();
    claims.join(",")
}

/// What became of the claims of `group` between two states, which are as [`claim_uids`] gives them, in words.
pub fn claim_changes(group: &str, before: &str, now: &str) -> String {
    let read = |text: &'_ str| -> BTreeMap<String, String> {
        let claims = text.split(',').filter_map(|claim| claim.split_once('='));
        claims.map(|(name, uid)| (name.to_owned(), uid.to_owned())).collect()
    };
    let (before, now) = (read(before), read(now));
    let mut changes = Vec::new();
    for (name, uid) in &before {
        match now.get(name) {
            None => changes.push(format!("claim {name} left {group} or was deleted")),
            Some(now) if now != uid => {
                changes.push(format!("claim {name} of {group} was deleted and made anew"))
            }
            Some(_) => {}
        }
    }
    for name in now.keys().filter(|name| !before.contains_key(*name)) {
        changes.push(format!("claim {name} came to {group}"));
    }
    changes.join(", and ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn group(change: impl FnOnce(&mut Value)) -> Group {
        let mut object = json!({
            "metadata": {
                "name": "volume-snapshot-0a1b2c3d", "namespace": "app", "uid": "g", "resourceVersion": "7",
                "creationTimestamp": "2026-11-21T12:54:21Z", "labels": {"job": "hourly"},
                "annotations": {"volume-snapshotter/claim-uids": "data=u1,logs=u2"},
            },
            "spec": {"source": {"selector": {"matchLabels": {"app": "shop"}}}},
            "status": {
                "boundVolumeGroupSnapshotContentName": "groupsnapcontent-g",
                "creationTime": "2026-11-21T12:54:21Z", "readyToUse": true,
            },
        });
        change(&mut object);
        serde_json::from_value::<VolumeGroupSnapshot>(object).expect("a group").into()
    }

    fn member(claim: &str) -> Member {
        member_with(claim, json!({"readyToUse": true}), json!({}))
    }

    fn member_with(claim: &str, status: Value, metadata: Value) -> Member {
        let mut object = json!({
            "metadata": {
                "name": format!("snapshot-{claim}"), "namespace": "app", "uid": claim, "resourceVersion": "8",
                "ownerReferences": [{"kind": "VolumeGroupSnapshot", "name": "one", "uid": "g"}],
            },
            "spec": {"source": {"persistentVolumeClaimName": claim}},
            "status": status,
        });
        for (name, value) in metadata.as_object().expect("an object") {
            object["metadata"][name] = value.clone();
        }
        Member::of(serde_json::from_value(object).expect("a snapshot")).expect("a member")
    }

    #[test]
    fn a_group_is_ready_when_it_and_a_member_of_each_claim_are() {
        let deleted = json!({"deletionTimestamp": "2026-11-21T13:00:00Z"});
        let late = || member_with("logs", json!({"readyToUse": false}), json!({}));
        let terminating = || member_with("logs", json!({"readyToUse": true}), deleted.clone());
        for (members, ready, incomplete, lacks) in [
            (vec![member("data"), member("logs")], true, false, None),
            (vec![member("data"), late()], false, false, Some("snapshot-logs of claim logs is not ready")),
            (vec![member("data")], false, true, Some("no member of claim logs")),
            (vec![member("data"), terminating()], false, true, Some("somebody deleted")),
            (vec![member("data"), member("logs"), member("new")], false, false, Some("member of claim new")),
            (vec![], false, true, Some("no member of claim data")),
        ] {
            let snapshot = group(|_| {}).snapshot(&members);
            assert_eq!((snapshot.ready, snapshot.incomplete), (ready, incomplete), "{members:?}");
            let said = group(|_| {}).lacks(&members).unwrap_or_default();
            assert!(lacks.map_or(said.is_empty(), |words| said.contains(words)), "{said}");
        }
        let both = [member("data"), member("logs")];
        let not_ready = group(|object| object["status"]["readyToUse"] = json!(false));
        let snapshot = not_ready.snapshot(&both);
        assert!(!snapshot.ready && !snapshot.incomplete && snapshot.taken_at.is_some());
        assert!(not_ready.lacks(&both).is_some_and(|said| said.starts_with("the group itself is not ready")));
        let own = group(|object| object["status"] = json!({"error": {"message": "busy"}}));
        assert_eq!(own.lacks([]).as_deref(), Some("busy"));
        let of_nobody = group(|object| object["metadata"]["annotations"] = json!({}));
        assert!(!of_nobody.snapshot(&both).ready, "nobody knows of which claims it should be");
        let terminating =
            group(|object| object["metadata"]["deletionTimestamp"] = "2026-11-21T13:00:00Z".into());
        assert!(
            !terminating
                .snapshot(&[member("data"), self::member_with("logs", json!({}), deleted)])
                .incomplete
        );
    }

    #[test]
    fn the_claims_of_a_group_are_those_that_were_asked_for_and_those_of_its_members() {
        let uids = |members: &[Member]| group(|_| {}).snapshot(members).claim_uid;
        assert_eq!(uids(&[]).as_deref(), Some("data=u1,logs=u2"));
        assert_eq!(uids(&[member("extra")]).as_deref(), Some("data=u1,extra=,logs=u2"));
    }

    #[test]
    fn a_group_is_the_schedules_by_its_label_and_of_a_value_by_its_selector() {
        let source = |change: &dyn Fn(&mut Value)| {
            group(|object| change(object)).source("hourly", "app").map(|id| (id.namespace, id.name))
        };
        assert_eq!(source(&|_| {}), Some(("app".into(), "shop".into())));
        assert_eq!(source(&|object| object["metadata"]["labels"]["job"] = "daily".into()), None);
        assert_eq!(source(&|object| object["metadata"]["labels"] = json!({})), None);
        for selector in [
            json!({"matchLabels": {"app": "shop", "tier": "db"}}),
            json!({"matchLabels": {"part-of": "shop"}}),
            json!({"matchLabels": {}}),
            json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
            json!(null),
        ] {
            assert_eq!(
                source(&|object| object["spec"]["source"]["selector"] = selector.clone()),
                None,
                "{selector}"
            );
        }
    }

    #[test]
    fn an_error_of_a_member_is_one_of_the_group() {
        let failed = member_with("logs", json!({"error": {"message": "no\u{1b}[2J space"}}), json!({}));
        let error = group(|_| {}).snapshot([&failed]).error;
        assert!(
            error.as_deref().is_some_and(|error| error.starts_with("the member of claim logs: no")),
            "{error:?}"
        );
        assert!(!error.unwrap_or_default().contains('\u{1b}'));
        let own = group(|object| object["status"]["error"] = json!({"message": "busy"}));
        assert_eq!(own.snapshot([&failed]).error.as_deref(), Some("busy"));
    }

    #[test]
    fn what_became_of_the_claims_of_a_group_is_said() {
        for (before, now, said) in [
            ("data=1,logs=2", "data=1", "claim logs left group shop or was deleted"),
            ("data=1", "data=2", "claim data of group shop was deleted and made anew"),
            ("data=1", "data=1,extra=3", "claim extra came to group shop"),
            ("data=1", "", "claim data left group shop or was deleted"),
            (
                "a=1,b=2",
                "b=3,c=4",
                "claim a left group shop or was deleted, and claim b of group shop was deleted and made anew, and claim c came to group shop",
            ),
        ] {
            assert_eq!(claim_changes("group shop", before, now), said);
        }
    }

    #[test]
    fn whoever_owns_a_group_keeps_it() {
        let owned = group(|object| object["metadata"]["ownerReferences"] = json!([{"kind": "Backup"}]));
        assert_eq!(owned.snapshot([]).owner, Some(Owner::Other));
    }
}
