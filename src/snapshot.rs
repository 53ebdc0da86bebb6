//! What is remembered of a snapshot: just what waiting and retention need, so that thousands of
//! them cost little memory. Reading the labels happens here; judging is [`crate::retention`]'s.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::{Lenient, VolumeSnapshot},
    names, text,
};

/// Which claim: claims of one name in two namespaces are two.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClaimId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What is remembered of a VolumeSnapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// What tells it from a later one of the same name.
    pub uid: String,
    /// Which state of it was read: a deletion holds for this state only.
    pub resource_version: String,
    /// When the API server stored it, in whole seconds. One that does not say is dated at the end of
    /// time and thus never touched.
    pub created: Timestamp,
    /// When the data was captured, by the storage system's clock (`status.creationTime`), if the driver
    /// has said.
    pub taken_at: Option<Timestamp>,
    /// Whether a volume can be made from it.
    pub ready: bool,
    /// Whether its status cannot be understood; it is then not ready, and never touched.
    pub unreadable: bool,
    /// Whether somebody holds it: no schedule prunes it.
    pub held: bool,
    /// Since when it is deleted and only waits for its finalizers.
    pub terminating_since: Option<Timestamp>,
    /// Whom it belongs to, if not to the schedule of its label alone.
    pub owner: Option<Owner>,
    /// The run that made it, if its label says: a Job's name, for people.
    pub run: Option<String>,
    /// The uid of the Job that made it, if its label says.
    pub run_uid: Option<String>,
    /// The uid of the claim that it was asked of, if its annotation says.
    pub claim_uid: Option<String>,
    /// What the snapshot controller last saw go wrong with it.
    pub error: Option<String>,
}

/// Whom a snapshot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A VolumeGroupSnapshot, of which it is a member.
    Group,
    /// Another object.
    Other,
}

/// By how much a storage system's clock may differ from the API server's before that is worth a warning.
/// A snapshot may also wait that long in the snapshot controller's queue.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

impl Snapshot {
    /// A ready snapshot that was made and taken at one moment, and of which nothing else is known; its
    /// uid is its name. Simulations begin with it.
    pub fn ready_at(name: &str, time: Timestamp) -> Self {
        Snapshot {
            name: name.to_owned(),
            uid: name.to_owned(),
            resource_version: "1".to_owned(),
            created: time,
            taken_at: Some(time),
            ready: true,
            unreadable: false,
            held: false,
            terminating_since: None,
            owner: None,
            run: None,
            run_uid: None,
            claim_uid: None,
            error: None,
        }
    }

    /// When the data was captured: the later of the storage system's word and the moment the API server
    /// stored the object, because no data is captured before it is asked for. A clock that runs behind
    /// thus cannot make the newest snapshot the oldest.
    pub fn time(&self) -> Timestamp {
        self.taken_at.map_or(self.created, |taken_at| taken_at.max(self.created))
    }

    /// Whether the two clocks that date it differ by more than five minutes.
    pub fn clocks_differ(&self) -> bool {
        self.taken_at.is_some_and(|taken_at| taken_at.duration_since(self.created).abs() > CLOCK_TOLERANCE)
    }

    /// Whether it is dated so far after `now` that a clock is wrong. A storage system's may be a few minutes
    /// ahead of the API server's.
    pub fn is_of_the_future(&self, now: Timestamp) -> bool {
        self.time().duration_since(now) > CLOCK_TOLERANCE
    }

    /// Why no claim can be made from it, if none can.
    pub fn hindrance(&self) -> Option<String> {
        match self {
            Snapshot { terminating_since: Some(_), .. } => Some("it is being deleted".to_owned()),
            Snapshot { unreadable: true, .. } => Some("its status cannot be understood".to_owned()),
            Snapshot { ready: true, .. } => None,
            Snapshot { error: Some(error), .. } => Some(format!("it is not ready: {error}")),
            _ => Some("it is not ready yet".to_owned()),
        }
    }

    /// Its place among the snapshots of a claim: when its data was taken, then the API server's clock.
    pub fn order(&self) -> (Timestamp, Timestamp, &str) {
        (self.time(), self.created, &self.name)
    }

    /// Whether it is deleted already and only waits for its finalizers.
    pub fn is_terminating(&self) -> bool {
        self.terminating_since.is_some()
    }

    /// The claim that `object` was taken of and what is remembered of it, if it belongs to the
    /// schedule `schedule`. `None` for another schedule's, whatever the API server was asked for, and
    /// for one that was not made from a claim.
    pub fn owned(object: VolumeSnapshot, schedule: &str) -> Option<(ClaimId, Snapshot)> {
        if object.metadata.labels.get(names::SCHEDULE_LABEL).map(String::as_str) != Some(schedule) {
            return None;
        }
        let name = object.spec.source.persistent_volume_claim_name.clone()?;
        let claim = ClaimId { namespace: object.metadata.namespace.clone(), name };
        Some((claim, Snapshot::from(object)))
    }
}

/// A snapshot with all that a person may want to know of it, whoever's it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its namespace.
    pub namespace: String,
    /// The claim that it was taken of; `None` where it stands for content that existed before it.
    pub claim: Option<String>,
    /// The schedule that it belongs to, if its label says.
    pub schedule: Option<String>,
    /// Its VolumeSnapshotClass.
    pub class: Option<String>,
    /// The least size of a volume that is made from it, as the API server writes it.
    pub restore_size: Option<String>,
    /// The rest.
    pub snapshot: Snapshot,
}

impl From<VolumeSnapshot> for Record {
    fn from(mut object: VolumeSnapshot) -> Self {
        let restore_size = match &mut object.status {
            Lenient::Known(status) => status.restore_size.take(),
            Lenient::Absent | Lenient::Unreadable => None,
        };
        Record {
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
        let unreadable = status == Lenient::Unreadable;
        let status = status.known().unwrap_or_default();
        // The controller writes the group's name into the status late; the owner is there from the beginning.
        let in_group = status.volume_group_snapshot_name.is_some_and(|group| !group.is_empty())
            || metadata.owner_references.iter().any(|owner| owner.kind == "VolumeGroupSnapshot");
        Snapshot {
            held: labels.get(names::HOLD_LABEL).is_some_and(|value| value != "false"),
            run: labels.remove(names::RUN_LABEL),
            run_uid: labels.remove(names::RUN_UID_LABEL),
            claim_uid: metadata.annotations.claim_uid,
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            created: metadata.creation_timestamp.unwrap_or(Timestamp::MAX),
            // What a driver that does not say becomes on its way through the controller.
            taken_at: status.creation_time.filter(|taken_at| *taken_at > Timestamp::UNIX_EPOCH),
            ready: status.ready_to_use == Some(true),
            unreadable,
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
            "status": {"creationTime": "2026-11-20T08:55:12Z", "readyToUse": true, "restoreSize": "1Gi"},
        })));
        assert_eq!(
            read,
            Snapshot {
                name: "volume-snapshot-0a1b2c3d".into(),
                uid: "8e3e".into(),
                resource_version: "420".into(),
                created: "2026-11-20T08:55:11Z".parse().expect("a time"),
                taken_at: Some("2026-11-20T08:55:12Z".parse().expect("a time")),
                ready: true,
                unreadable: false,
                held: false,
                terminating_since: None,
                owner: None,
                run: Some("hourly-1".into()),
                run_uid: Some("0e1f".into()),
                claim_uid: Some("76d4".into()),
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
        assert_eq!(read(json!(1024)).restore_size.as_deref(), Some("1024"));
        assert_eq!(read(json!(null)).restore_size, None);
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
