//! The part of a snapshot that waiting and retention need, so that thousands of them use little memory. This
//! module interprets the labels; [`crate::retention`] decides which snapshots stay.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::{Claim, GROUP_SNAPSHOT_KIND, Lenient, VolumeSnapshot},
    names, text,
    volume::NotedVolume,
};

/// Identifies a claim by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimId {
    pub namespace: String,
    pub name: String,
}

impl ClaimId {
    /// The identity of a claim that was read.
    pub fn of(claim: &Claim) -> Self {
        ClaimId { namespace: claim.metadata.namespace.clone(), name: claim.metadata.name.clone() }
    }
}

/// A VolumeSnapshot, reduced to what this program uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub name: String,
    /// Distinguishes this snapshot from a later one of the same name.
    pub uid: String,
    /// The state that was read. A deletion applies to this state only.
    pub resource_version: String,
    /// When the API server stored the object, in whole seconds. `Timestamp::MAX` if missing, so that such a
    /// snapshot counts as dated in the future and is never touched.
    pub created: Timestamp,
    /// When the data was taken, by the storage system's clock (`status.creationTime`). `None` if the driver
    /// has not reported it.
    pub taken_at: Option<Timestamp>,
    /// Whether the snapshot controller has made content for it.
    pub taken_up: bool,
    /// Whether a volume can be created from the snapshot.
    pub ready: bool,
    /// Whether the status cannot be parsed. Such a snapshot is not ready, and never touched.
    pub unreadable: bool,
    /// Of a group: whether members that it had are gone, or are being deleted. Such a group is not ready, and never
    /// touched: what is left of it may be wanted.
    pub incomplete: bool,
    /// Whether the hold label is set. No schedule prunes a held snapshot.
    pub held: bool,
    /// `metadata.deletionTimestamp`: deleted, but finalizers keep the object.
    pub terminating_since: Option<Timestamp>,
    /// Set if another object owns the snapshot.
    pub owner: Option<Owner>,
    /// The run that created the snapshot, from its label. Informational.
    pub run: Option<String>,
    /// Uid of the Job that created the snapshot, from its label.
    pub run_uid: Option<String>,
    /// Uid of the claim when the snapshot was requested, from its annotation. Of a group those of its claims, see
    /// [`crate::group::claim_uids`].
    pub claim_uid: Option<String>,
    /// Whether a drill has read its data without fault, and none has found it to be bad since.
    pub verified: bool,
    /// The last error that the snapshot controller reported.
    pub error: Option<String>,
}

/// The kind of object that owns a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A VolumeGroupSnapshot; the snapshot is a member.
    Group,
    Other,
}

/// How much a storage system's clock may differ from the API server's without a warning. A snapshot may also
/// wait this long in the snapshot controller's queue.
pub(crate) const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

impl Snapshot {
    /// Returns a ready snapshot that was created and taken at `time`, with `name` as its uid. For simulations
    /// and benchmarks.
    pub fn ready_at(name: &str, time: Timestamp) -> Self {
        Snapshot {
            name: name.to_owned(),
            uid: name.to_owned(),
            resource_version: "1".to_owned(),
            created: time,
            taken_at: Some(time),
            taken_up: true,
            ready: true,
            unreadable: false,
            incomplete: false,
            held: false,
            terminating_since: None,
            owner: None,
            run: None,
            run_uid: None,
            claim_uid: None,
            verified: false,
            error: None,
        }
    }

    /// Returns when the data was taken: the later of `taken_at` and `created`. Data cannot be taken before
    /// the snapshot was requested, so a slow clock of the storage system cannot make the newest snapshot the
    /// oldest.
    pub fn time(&self) -> Timestamp {
        self.taken_at.map_or(self.created, |taken_at| taken_at.max(self.created))
    }

    /// Whether `taken_at` and `created` differ by more than five minutes.
    pub fn clocks_differ(&self) -> bool {
        self.taken_at.is_some_and(|taken_at| taken_at.duration_since(self.created).abs() > CLOCK_TOLERANCE)
    }

    /// Whether the snapshot is dated more than five minutes after `now`. A smaller difference between clocks
    /// is normal.
    pub fn is_of_the_future(&self, now: Timestamp) -> bool {
        self.time().duration_since(now) > CLOCK_TOLERANCE
    }

    /// Returns why no claim can be created from the snapshot, or `None` if one can.
    pub fn hindrance(&self) -> Option<String> {
        match self {
            Snapshot { terminating_since: Some(_), .. } => Some("it is being deleted".to_owned()),
            Snapshot { unreadable: true, .. } => Some("its status cannot be understood".to_owned()),
            Snapshot { incomplete: true, .. } => Some("a member of it was deleted".to_owned()),
            Snapshot { ready: true, .. } => None,
            Snapshot { error: Some(error), .. } => Some(format!("it is not ready: {error}")),
            _ => Some("it is not ready yet".to_owned()),
        }
    }

    /// Sort key among the snapshots of a claim: when the data was taken, then the API server's clock.
    pub fn order(&self) -> (Timestamp, Timestamp, &str) {
        (self.time(), self.created, &self.name)
    }

    pub fn is_terminating(&self) -> bool {
        self.terminating_since.is_some()
    }

    /// Returns the source claim and the snapshot if `object` belongs to `schedule`. Returns `None` for a
    /// snapshot of another schedule, whatever selector the list used, and for one without a source claim.
    pub fn owned(object: VolumeSnapshot, schedule: &str) -> Option<(ClaimId, Snapshot)> {
        if object.metadata.labels.get(names::SCHEDULE_LABEL).map(String::as_str) != Some(schedule) {
            return None;
        }
        let name = object.spec.source.persistent_volume_claim_name.clone()?;
        let claim = ClaimId { namespace: object.metadata.namespace.clone(), name };
        Some((claim, Snapshot::from(object)))
    }
}

/// A snapshot of any schedule, with the additional fields that `list` and `restore` use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub namespace: String,
    /// The source claim. `None` if the snapshot was created for pre-existing content.
    pub claim: Option<String>,
    /// The schedule, from the label `job`.
    pub schedule: Option<String>,
    pub class: Option<String>,
    /// Minimum size of a volume created from the snapshot, as an unparsed quantity.
    pub restore_size: Option<String>,
    /// The other tool that made it. `None` also if it carries no mark that is known.
    pub maker: Option<Maker>,
    /// What its claim's volume was when it was requested, if that was noted.
    pub volume: Option<NotedVolume>,
    /// Whether its data was restored and read.
    pub verification: Verification,
    /// All labels but those that have a field of their own.
    pub labels: BTreeMap<String, String>,
    /// The VolumeGroupSnapshot that it is a member of.
    pub group: Option<GroupRef>,
    pub snapshot: Snapshot,
}

/// What a snapshot's annotations say of drills.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// When its data was last restored and read without fault. `None` also if what stands there is no time.
    pub verified: Option<Timestamp>,
    /// What was found then, in words.
    pub found: Option<String>,
    /// When and why it was last tried in vain, since then.
    pub failed: Option<String>,
}

/// The time with which the annotation of a verified snapshot begins.
fn verified_at(annotation: &str) -> Option<Timestamp> {
    annotation.split(' ').next()?.parse().ok()
}

impl Verification {
    /// Reads the annotations: a time, a blank, and words.
    fn read(verified: Option<&str>, failed: Option<String>) -> Self {
        let found = verified.and_then(|text| text.split_once(' ')).map(|(_, found)| text::foreign(found));
        Verification {
            verified: verified.and_then(verified_at),
            found: found.filter(|found| !found.is_empty()),
            failed: failed.map(|why| text::foreign(&why)),
        }
    }
}

/// Identifies a VolumeGroupSnapshot, in the namespace of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRef {
    pub name: String,
    pub uid: String,
}

/// The mark by which another tool knows a snapshot as its own, and may delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maker {
    /// The label's or annotation's key.
    pub key: &'static str,
    /// Its value: the name of the tool's object that made the snapshot.
    pub name: String,
}

impl Record {
    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        match key {
            names::SCHEDULE_LABEL => self.schedule.as_deref(),
            names::RUN_LABEL => self.snapshot.run.as_deref(),
            names::RUN_UID_LABEL => self.snapshot.run_uid.as_deref(),
            key => self.labels.get(key).map(String::as_str),
        }
    }
}

impl From<VolumeSnapshot> for Record {
    fn from(mut object: VolumeSnapshot) -> Self {
        let restore_size = match &mut object.status {
            Lenient::Known(status) => status.restore_size.take(),
            Lenient::Absent | Lenient::Unreadable => None,
        };
        let is_further = |key: &String| {
            !matches!(key.as_str(), names::SCHEDULE_LABEL | names::RUN_LABEL | names::RUN_UID_LABEL)
        };
        let further = object.metadata.labels.iter().filter(|(key, _)| is_further(key));
        let further: BTreeMap<String, String> =
            further.map(|(key, value)| (key.clone(), value.clone())).collect();
        let labels = &mut object.metadata.labels;
        let mut label = |key| labels.remove(key).map(|name| Maker { key, name });
        let maker = label(names::VELERO_LABEL).or_else(|| label(names::SNAPSCHEDULER_LABEL)).or_else(|| {
            let group = object.metadata.annotations.gemini_group.take();
            group.map(|name| Maker { key: names::GEMINI_ANNOTATION, name })
        });
        let annotations = &mut object.metadata.annotations;
        let volume = annotations.claim_volume.take().and_then(|noted| NotedVolume::read(&noted));
        let verification =
            Verification::read(annotations.verified.as_deref(), annotations.verify_failed.take());
        let owners = &object.metadata.owner_references;
        let group = owners.iter().find(|owner| owner.kind == GROUP_SNAPSHOT_KIND);
        let group = group.map(|owner| GroupRef { name: owner.name.clone(), uid: owner.uid.clone() });
        Record {
            maker,
            group,
            volume,
            verification,
            labels: further,
            namespace: std::mem::take(&mut object.metadata.namespace),
            claim: object.spec.source.persistent_volume_claim_name.take(),
            schedule: object.metadata.labels.remove(names::SCHEDULE_LABEL),
            class: object.spec.volume_snapshot_class_name.take(),
            restore_size: restore_size.map(|size| text::foreign(&size.0)),
            snapshot: Snapshot::from(object),
        }
    }
}

impl From<VolumeSnapshot> for Snapshot {
    fn from(object: VolumeSnapshot) -> Self {
        let VolumeSnapshot { metadata, spec: _, status } = object;
        let mut labels = metadata.labels;
        let verified = metadata.annotations.verified.as_deref().and_then(verified_at).is_some();
        let unreadable = status == Lenient::Unreadable;
        let status = status.known().unwrap_or_default();
        // The controller writes the group's name into the status late; the owner reference is there from the
        // start.
        let in_group = status.volume_group_snapshot_name.is_some_and(|group| !group.is_empty())
            || metadata.owner_references.iter().any(|owner| owner.kind == GROUP_SNAPSHOT_KIND);
        Snapshot {
            held: labels.get(names::HOLD_LABEL).is_some_and(|value| value != "false"),
            run: labels.remove(names::RUN_LABEL),
            run_uid: labels.remove(names::RUN_UID_LABEL),
            claim_uid: metadata.annotations.claim_uid,
            verified,
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            created: metadata.creation_timestamp.unwrap_or(Timestamp::MAX),
            // The controller turns a missing time of the driver into the Unix epoch.
            taken_at: status.creation_time.filter(|taken_at| *taken_at > Timestamp::UNIX_EPOCH),
            taken_up: status.bound_volume_snapshot_content_name.is_some_and(|content| !content.is_empty()),
            ready: status.ready_to_use == Some(true),
            unreadable,
            incomplete: false,
            terminating_since: metadata.deletion_timestamp,
            owner: match in_group {
                true => Some(Owner::Group),
                false => (!metadata.owner_references.is_empty()).then_some(Owner::Other),
            },
            error: status
                .error
                .map(|error| text::foreign(error.message.as_deref().unwrap_or("no message given"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: serde_json::Value) -> VolumeSnapshot {
        serde_json::from_value(value).expect("a snapshot")
    }

    #[test]
    fn a_ready_snapshot_is_read_as_the_api_server_sends_it() {
        let read = Snapshot::from(object(json!({
            "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
            "metadata": {
                "name": "volume-snapshot-0a1b2c3d", "namespace": "app", "uid": "8e3e", "generation": 1,
                "resourceVersion": "420", "creationTimestamp": "2026-11-20T08:55:11Z",
                "labels": {
                    "job": "volume-snapshotter", "volume-snapshotter/run": "hourly-1",
                    "volume-snapshotter/run-uid": "0e1f",
                },
                "annotations": {"volume-snapshotter/claim-uid": "76d4", "other": "x"},
                "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": "default"},
            "status": {
                "boundVolumeSnapshotContentName": "snapcontent-8e3e", "creationTime": "2026-11-20T08:55:12Z",
                "readyToUse": true, "restoreSize": "1Gi",
            },
        })));
        assert_eq!(
            read,
            Snapshot {
                name: "volume-snapshot-0a1b2c3d".into(),
                uid: "8e3e".into(),
                resource_version: "420".into(),
                created: "2026-11-20T08:55:11Z".parse().expect("a time"),
                taken_at: Some("2026-11-20T08:55:12Z".parse().expect("a time")),
                taken_up: true,
                ready: true,
                unreadable: false,
                incomplete: false,
                held: false,
                terminating_since: None,
                owner: None,
                run: Some("hourly-1".into()),
                run_uid: Some("0e1f".into()),
                claim_uid: Some("76d4".into()),
                verified: false,
                error: None,
            }
        );
        assert_eq!(read.time().to_string(), "2026-11-20T08:55:12Z");
    }

    #[test]
    fn a_record_knows_whose_and_how_large_a_snapshot_is() {
        let read = |size: serde_json::Value| {
            Record::from(object(json!({
                "metadata": {"name": "a", "namespace": "app", "labels": {"job": "hourly"}},
                "spec": {
                    "source": {"persistentVolumeClaimName": "data"}, "volumeSnapshotClassName": "default",
                },
                "status": {"restoreSize": size},
            })))
        };
        let record = read(json!("10Gi"));
        assert_eq!(
            (record.namespace.as_str(), record.claim.as_deref(), record.schedule.as_deref()),
            ("app", Some("data"), Some("hourly"))
        );
        assert_eq!(
            (record.class.as_deref(), record.restore_size.as_deref()),
            (Some("default"), Some("10Gi"))
        );
        assert_eq!(record.maker, None);
        assert_eq!(read(json!(1024)).restore_size.as_deref(), Some("1024"));
        assert_eq!(read(json!(null)).restore_size, None);
    }

    #[test]
    fn a_record_knows_which_other_tool_made_a_snapshot() {
        let maker = |metadata: serde_json::Value| {
            Record::from(object(json!({"metadata": metadata}))).maker.map(|maker| (maker.key, maker.name))
        };
        let snapscheduler = json!({"snapscheduler.backube/schedule": "hourly", "job": "a"});
        for (metadata, expected) in [
            (json!({"labels": snapscheduler}), Some(("snapscheduler.backube/schedule", "hourly"))),
            (
                json!({"annotations": {"gemini.fairwinds.com/group": "postgres"}}),
                Some(("gemini.fairwinds.com/group", "postgres")),
            ),
            (json!({"labels": {"velero.io/backup-name": "b"}}), Some(("velero.io/backup-name", "b"))),
            (json!({"labels": {"gemini.fairwinds.com/group": "postgres"}}), None),
            (json!({"annotations": snapscheduler}), None),
        ] {
            let expected = expected.map(|(key, name)| (key, name.to_owned()));
            assert_eq!(maker(metadata.clone()), expected, "{metadata}");
        }
    }

    #[test]
    fn a_driver_whose_clock_is_behind_does_not_make_a_snapshot_older_than_its_object() {
        let read = |taken_at: &str| {
            Snapshot::from(object(json!({
                "metadata": {"creationTimestamp": "2026-11-20T08:55:11Z"},
                "status": {"creationTime": taken_at, "readyToUse": true},
            })))
        };
        let behind = read("2026-11-20T02:00:00Z");
        assert_eq!(behind.time().to_string(), "2026-11-20T08:55:11Z");
        assert!(behind.clocks_differ());
        let late = read("2026-11-20T08:59:00Z");
        assert_eq!(late.time().to_string(), "2026-11-20T08:59:00Z");
        assert!(!late.clocks_differ());
    }

    #[test]
    fn a_status_that_cannot_be_read_is_not_ready_and_keeps_no_other_from_being_read() {
        for status in [
            json!({"readyToUse": true, "restoreSize": -5}),
            json!({"readyToUse": true, "creationTime": "9999-12-31T23:59:59-14:00"}),
            json!({"readyToUse": "true"}),
            json!("odd"),
        ] {
            let read = Snapshot::from(object(json!({"metadata": {"name": "odd"}, "status": status})));
            assert!(read.unreadable && !read.ready, "{status}");
        }
        for status in [json!(null), json!({}), json!({"readyToUse": true, "restoreSize": 5})] {
            assert!(!Snapshot::from(object(json!({"status": status}))).unreadable, "{status}");
        }
    }

    #[test]
    fn whom_a_snapshot_belongs_to_is_read_from_its_owners_and_from_its_status() {
        let owner = |owners: serde_json::Value, status: serde_json::Value| {
            Snapshot::from(object(json!({"metadata": {"ownerReferences": owners}, "status": status}))).owner
        };
        assert_eq!(owner(json!([]), json!({})), None);
        assert_eq!(owner(json!([]), json!({"volumeGroupSnapshotName": ""})), None);
        assert_eq!(owner(json!([]), json!({"volumeGroupSnapshotName": "shop"})), Some(Owner::Group));
        let group = json!([{"kind": "VolumeGroupSnapshot", "name": "shop", "uid": "1"}]);
        assert_eq!(owner(group, json!(null)), Some(Owner::Group));
        let other = json!([{"kind": "Backup", "name": "b", "uid": "1", "controller": true}]);
        assert_eq!(owner(other, json!(null)), Some(Owner::Other));
    }

    #[test]
    fn a_driver_that_gives_the_epoch_gives_no_time() {
        let read = Snapshot::from(object(json!({
            "metadata": {"creationTimestamp": "2026-11-20T08:55:11Z"},
            "status": {"creationTime": "1970-01-01T00:00:00Z", "readyToUse": true},
        })));
        assert_eq!(read.time().to_string(), "2026-11-20T08:55:11Z");
    }

    #[test]
    fn any_value_holds_a_snapshot_but_false() {
        for (value, held) in
            [("true", true), ("", true), ("before-upgrade", true), ("False", true), ("false", false)]
        {
            let labels = json!({ "volume-snapshotter/hold": value });
            let read = Snapshot::from(object(json!({"metadata": {"labels": labels}})));
            assert_eq!(read.held, held, "{value}");
        }
    }

    #[test]
    fn only_snapshots_of_a_claim_with_the_schedules_label_are_owned() {
        let made = |labels: serde_json::Value, source: serde_json::Value| {
            object(json!({"metadata": {"namespace": "app", "labels": labels}, "spec": {"source": source}}))
        };
        let claim = json!({"persistentVolumeClaimName": "data"});
        let owned = |object| {
            Snapshot::owned(object, "hourly").map(|(claim, _)| format!("{}/{}", claim.namespace, claim.name))
        };
        assert_eq!(owned(made(json!({"job": "hourly"}), claim.clone())), Some("app/data".into()));
        assert_eq!(owned(made(json!({"job": "weekly"}), claim.clone())), None);
        assert_eq!(owned(made(json!({}), claim)), None);
        assert_eq!(
            owned(made(json!({"job": "hourly"}), json!({"volumeSnapshotContentName": "content"}))),
            None
        );
    }

    #[test]
    fn a_snapshot_that_says_nothing_of_itself_is_dated_at_the_end_of_time() {
        let read = Snapshot::from(object(json!({"metadata": {"creationTimestamp": null}})));
        assert_eq!(read.time(), Timestamp::MAX);
        assert!(!read.ready);
    }
}
