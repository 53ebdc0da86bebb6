//! What is remembered of a snapshot: just what waiting and retention need, so that thousands of
//! them cost little memory. Reading the labels happens here; judging is [`crate::retention`]'s.

use k8s_openapi::jiff::Timestamp;

use crate::{api::VolumeSnapshot, names, text};

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
    /// Which state of it was seen: a deletion holds for this state only.
    pub resource_version: String,
    /// When the API server stored it. One that does not say is dated at the end of time and thus
    /// never touched.
    pub created: Timestamp,
    /// When the data was cut (`status.creationTime`), if the driver has said.
    pub cut: Option<Timestamp>,
    /// Whether a volume can be made from it.
    pub ready: bool,
    /// Whether somebody holds it: no schedule prunes it.
    pub held: bool,
    /// Whether it is deleted already and only waits for its finalizers.
    pub terminating: bool,
    /// Whether it is a member of a VolumeGroupSnapshot, which owns it.
    pub group_member: bool,
    /// The run that made it, if its label says.
    pub run: Option<String>,
    /// What the snapshot controller last saw go wrong with it.
    pub error: Option<String>,
}

impl Snapshot {
    /// The moment the data was cut, else the moment the API server stored the object.
    pub fn time(&self) -> Timestamp {
        self.cut.unwrap_or(self.created)
    }

    /// The claim that `object` was taken of and what is remembered of it, if it belongs to the
    /// schedule `job`. `None` for another schedule's, whatever the API server was asked for, and
    /// for one that was not made from a claim.
    pub fn owned(object: VolumeSnapshot, job: &str) -> Option<(ClaimId, Snapshot)> {
        if object.metadata.labels.get(names::JOB_LABEL).map(String::as_str) != Some(job) {
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
    pub job: Option<String>,
    /// Its VolumeSnapshotClass.
    pub class: Option<String>,
    /// The least size of a volume that is made from it, as the API server writes it.
    pub restore_size: Option<String>,
    /// The rest.
    pub snapshot: Snapshot,
}

impl From<VolumeSnapshot> for Record {
    fn from(mut object: VolumeSnapshot) -> Self {
        let restore_size = object.status.as_mut().and_then(|status| status.restore_size.take());
        Record {
            namespace: std::mem::take(&mut object.metadata.namespace),
            claim: object.spec.source.persistent_volume_claim_name.take(),
            job: object.metadata.labels.remove(names::JOB_LABEL),
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
        let status = status.unwrap_or_default();
        Snapshot {
            held: labels.get(names::HOLD_LABEL).is_some_and(|value| value != "false"),
            run: labels.remove(names::RUN_LABEL),
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            created: metadata.creation_timestamp.unwrap_or(Timestamp::MAX),
            // What a driver that does not say becomes on its way through the controller.
            cut: status.creation_time.filter(|cut| *cut > Timestamp::UNIX_EPOCH),
            ready: status.ready_to_use == Some(true),
            terminating: metadata.deletion_timestamp.is_some(),
            group_member: status.volume_group_snapshot_name.is_some_and(|group| !group.is_empty()),
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
                "labels": {"job": "volume-snapshotter", "volume-snapshotter/run": "hourly-1"},
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
                cut: Some("2026-11-20T08:55:12Z".parse().expect("a time")),
                ready: true,
                held: false,
                terminating: false,
                group_member: false,
                run: Some("hourly-1".into()),
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
            (record.namespace.as_str(), record.claim.as_deref(), record.job.as_deref()),
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
