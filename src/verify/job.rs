//! The Job that reads the volume of one snapshot. Pure.
//!
//! Its pod has one generic ephemeral volume with the snapshot as its source: Kubernetes makes the claim for the pod, the
//! pod is the claim's first consumer, and claim and volume go with the pod. What users may change of the pod is in
//! [`super::template`].

use serde_json::json;

use super::template::Template;
use crate::{
    api::{Job, SNAPSHOT_GROUP},
    cluster::NewJob,
    names,
    snapshot::Record,
    volume::VolumePlan,
};

/// The name of the container that reads.
pub(super) const CONTAINER: &str = "verify";

/// The name of the volume. That of the claim is the pod's name, a hyphen, and this.
pub(super) const VOLUME: &str = "data";

/// Where the volume is in the container: a directory, or a device.
pub(super) const PATH: &str = "/data";

/// How much longer than it is waited for a Job may live. A claim must not be deleted while its volume is being made, so
/// what has not begun to read by the end of the wait is left to the Job's own deadline.
pub(super) const GRACE: u64 = 15 * 60;

/// How long a finished Job stays, in seconds: as long as the drill's next attempt may take to come and see it.
const TTL: u64 = 60 * 60;

/// The uid and the group of the image's user, by number: the kubelet cannot tell of a name that it is not root.
const USER: u32 = 65532;

/// What a drill's Jobs have in common.
#[derive(Debug)]
pub(super) struct Drill<'a> {
    pub(super) namespace: &'a str,
    /// Value of the label by which the drill's Jobs are found.
    pub(super) label: &'a str,
    /// The drill's own Job or a random name, for people.
    pub(super) run: &'a str,
    /// The name and uid of the drill's own Job, to which its Jobs belong.
    pub(super) owner: Option<(&'a str, &'a str)>,
    pub(super) image: &'a str,
    /// The program that checks the volume; `None` for this program's own `read`.
    pub(super) command: Option<&'a [String]>,
    /// How long it is waited for one, in seconds.
    pub(super) timeout: u64,
    pub(super) template: &'a Template,
}

/// The Job that reads `record`, a snapshot of the claim called `claim`.
pub(super) fn job(drill: &Drill<'_>, claim: &str, record: &Record, volume: &VolumePlan) -> NewJob {
    let name = names::drill_job_name(drill.label, claim);
    let snapshot = &record.snapshot;
    let labels = json!({
        "app.kubernetes.io/name": "volume-snapshotter-verify",
        "app.kubernetes.io/component": "verify",
        names::MANAGED_BY_LABEL: names::PROGRAM,
        names::DRILL_LABEL: drill.label,
        names::RUN_LABEL: drill.run,
    });
    let mut claim_spec = json!({
        "accessModes": volume.access_modes,
        "volumeMode": volume.volume_mode,
        "resources": {"requests": {"storage": volume.size.to_string()}},
        "dataSource": {"apiGroup": SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": snapshot.name},
    });
    if let Some(class) = &volume.storage_class {
        claim_spec["storageClassName"] = class.as_str().into();
    }
    let mut container = json!({
        "name": CONTAINER,
        "image": drill.image,
        "terminationMessagePath": "/dev/termination-log",
        // What a command of the user's says is the end of its log.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
    });
    match drill.command {
        Some(command) => container["command"] = json!(command),
        None => {
            container["args"] = json!(["read", PATH]);
            container["resources"]["limits"] = json!({"memory": "64Mi"});
        }
    }
    match volume.volume_mode.as_str() {
        "Block" => container["volumeDevices"] = json!([{"name": VOLUME, "devicePath": PATH}]),
        _ => container["volumeMounts"] = json!([{"name": VOLUME, "mountPath": PATH, "readOnly": true}]),
    }
    let mut pod = json!({
        "metadata": {"labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 10,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{
                "name": VOLUME,
                "ephemeral": {"volumeClaimTemplate": {"metadata": {"labels": labels}, "spec": claim_spec}},
            }],
        },
    });
    drill.template.apply(&mut pod);
    let mut metadata = json!({
        "name": name,
        "namespace": drill.namespace,
        "labels": labels,
        "annotations": {
            names::DRILL_CLAIM_ANNOTATION: claim,
            names::DRILL_SNAPSHOT_ANNOTATION: snapshot.name,
            names::DRILL_SNAPSHOT_UID_ANNOTATION: snapshot.uid,
        },
    });
    if let Some((owner, uid)) = drill.owner {
        metadata["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": owner, "uid": uid, "controller": false}]);
    }
    let object = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            // What failed once is said, and not hidden by another try.
            "backoffLimit": 0,
            "activeDeadlineSeconds": drill.timeout + GRACE,
            "ttlSecondsAfterFinished": TTL,
            "template": pod,
        },
    });
    NewJob { name, namespace: drill.namespace.to_owned(), object }
}

/// Whether a Job is one that an attempt of this drill made for this snapshot of this claim.
pub(super) fn is_of(job: &Job, label: &str, claim: &str, record: &Record) -> bool {
    let annotations = &job.metadata.annotations;
    job.metadata.labels.get(names::DRILL_LABEL).map(String::as_str) == Some(label)
        && annotations.claim.as_deref() == Some(claim)
        && annotations.snapshot.as_ref() == Some(&record.snapshot.name)
        && annotations.snapshot_uid.as_ref() == Some(&record.snapshot.uid)
        && job.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        api::VolumeSnapshot,
        volume::{Source, Wishes, plan},
        yaml,
    };

    fn record() -> Record {
        let object = json!({
            "metadata": {"name": "snap", "namespace": "app", "uid": "u-snap"},
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
            "status": {"readyToUse": true, "restoreSize": "1Gi"},
        });
        Record::from(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot"))
    }

    fn volume(class: Option<&str>) -> VolumePlan {
        let wishes = Wishes { storage_class: class.map(str::to_owned), ..Wishes::default() };
        plan(&wishes, &record(), &Source::Gone, "").expect("a plan")
    }

    fn drill<'a>(owner: Option<(&'a str, &'a str)>, template: &'a Template) -> Drill<'a> {
        Drill {
            namespace: "app",
            label: "u-drill",
            run: "verify-1",
            owner,
            image: "registry/volume-snapshotter:0.1.0",
            command: None,
            timeout: 3600,
            template,
        }
    }

    #[test]
    fn a_job_is_as_the_golden_file_has_it() {
        let template = Template::default();
        let made =
            job(&drill(Some(("verify-1", "u-owner")), &template), "data", &record(), &volume(Some("fast")));
        let golden = include_str!("job.golden.yaml");
        assert_eq!(yaml::document(&made.object), golden, "{}", yaml::document(&made.object));
        assert!(made.name.len() <= 63 - 11, "the pod's name is a label value");
    }

    #[test]
    fn a_block_volume_is_a_device_and_a_command_stands_for_the_reading() {
        let template = Template::default();
        let command = ["sqlite3".to_owned(), "/data/x".to_owned()];
        let drill = Drill { command: Some(&command), ..drill(None, &template) };
        let block = VolumePlan { volume_mode: "Block".to_owned(), ..volume(None) };
        let object = job(&drill, "data", &record(), &block).object;
        let spec = &object["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        assert_eq!(container["volumeDevices"], json!([{"name": "data", "devicePath": "/data"}]));
        assert_eq!(container["volumeMounts"], Value::Null);
        assert_eq!((&container["command"], &container["args"]), (&json!(command), &Value::Null));
        let claim = &spec["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"];
        assert_eq!((&claim["volumeMode"], &claim["storageClassName"]), (&json!("Block"), &Value::Null));
        assert_eq!(object["metadata"]["ownerReferences"], Value::Null);
    }

    #[test]
    fn a_job_is_ones_own_only_if_it_is_for_the_same_snapshot_of_the_same_claim() {
        let template = Template::default();
        let made = job(&drill(None, &template), "data", &record(), &volume(None)).object;
        let with = |change: &dyn Fn(&mut Value)| {
            let mut object = made.clone();
            change(&mut object);
            is_of(&serde_json::from_value(object).expect("a Job"), "u-drill", "data", &record())
        };
        assert!(with(&|_| {}));
        for (key, part) in [
            ("volume-snapshotter/drill", "labels"),
            ("volume-snapshotter/drill-claim", "annotations"),
            ("volume-snapshotter/drill-snapshot", "annotations"),
            ("volume-snapshotter/drill-snapshot-uid", "annotations"),
        ] {
            for value in [json!("other"), json!("")] {
                assert!(!with(&|object| object["metadata"][part][key] = value.clone()), "{key}: {value}");
            }
        }
        assert!(!with(&|object| object["metadata"]["deletionTimestamp"] = json!("2026-11-20T08:00:00Z")));
    }

    #[test]
    fn the_name_depends_on_the_drill_and_the_claim_alone() {
        assert_eq!(names::drill_job_name("u-1", "data"), names::drill_job_name("u-1", "data"));
        assert_ne!(names::drill_job_name("u-1", "data"), names::drill_job_name("u-1", "logs"));
        assert_ne!(names::drill_job_name("u-1", "data"), names::drill_job_name("u-2", "data"));
        assert!(names::is_object_name(&names::drill_job_name("u-1", &"x".repeat(253))));
    }
}
