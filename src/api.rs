//! The Kubernetes objects that this program reads and writes, reduced to the fields it uses.
//!
//! A page of 500 complete claims or snapshots is megabytes, most of it `managedFields`. Decoding only these
//! fields skips the rest without storing it. [`crate::snapshot::Snapshot`] keeps even less of each snapshot.
//! This module makes no requests.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::jiff::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, json};

mod jobs;

use crate::names;
pub use jobs::{
    ContainerRunning, ContainerState, ContainerStatus, ContainerTerminated, ContainerWaiting,
    DrillAnnotations, Job, JobCondition, JobMetadata, JobPod, JobPodStatus, JobStatus,
};

mod groups;

pub use groups::{
    GROUP_SNAPSHOT_API, GROUP_SNAPSHOT_GROUP, GROUP_SNAPSHOT_KIND, GroupSelector, NewVolumeGroupSnapshot,
    VolumeGroupSnapshot, VolumeGroupSnapshotSource, VolumeGroupSnapshotSpec, VolumeGroupSnapshotStatus,
};

/// API group of the snapshot API, as a Role names it.
pub const SNAPSHOT_GROUP: &str = "snapshot.storage.k8s.io";

/// API group and version of the snapshot API. `v1` has been served since external-snapshotter 4.0 (2020);
/// clusters no longer serve `v1beta1`.
pub const SNAPSHOT_API: &str = "snapshot.storage.k8s.io/v1";

/// The fields of `metadata` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    /// Distinguishes this object from a later one of the same name.
    pub uid: String,
    /// Identifies the state of the object that was read.
    pub resource_version: String,
    /// When the API server stored the object, by the server's clock, in whole seconds.
    pub creation_timestamp: Option<Timestamp>,
    /// Set once the object was deleted. Finalizers may keep it for a while.
    pub deletion_timestamp: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
    pub annotations: SnapshotAnnotations,
    pub owner_references: Vec<OwnerReference>,
}

/// The annotations of a snapshot that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SnapshotAnnotations {
    /// Uid of the claim at the time the snapshot was requested.
    #[serde(rename = "volume-snapshotter/claim-uid")]
    pub claim_uid: Option<String>,
    /// What the claim's volume was at that time, as JSON.
    #[serde(rename = "volume-snapshotter/claim-volume")]
    pub claim_volume: Option<String>,
    /// When the snapshot's data was last read without fault, and what was found.
    #[serde(rename = "volume-snapshotter/verified")]
    pub verified: Option<String>,
    /// When it was last tried to read it in vain, and why.
    #[serde(rename = "volume-snapshotter/verify-failed")]
    pub verify_failed: Option<String>,
    /// Of a group: its claims at the time it was requested, each as `name=uid`, comma-separated.
    #[serde(rename = "volume-snapshotter/claim-uids")]
    pub claim_uids: Option<String>,
    /// The SnapshotGroup of gemini that made the snapshot.
    #[serde(rename = "gemini.fairwinds.com/group")]
    pub gemini_group: Option<String>,
}

/// An owner of an object. The kind matters only where it is `VolumeGroupSnapshot`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    pub kind: String,
    pub name: String,
    /// Distinguishes the owner from a later one of the same name.
    pub uid: String,
}

/// A part of an object that its schema does not constrain. Content that cannot be parsed must not fail the
/// whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lenient<T> {
    #[default]
    Absent,
    Known(T),
    /// Present but not parseable: a negative size, a time outside the calendar.
    Unreadable,
}

impl<T> Lenient<T> {
    /// Returns the value if it was parsed.
    pub fn known(self) -> Option<T> {
        match self {
            Lenient::Known(value) => Some(value),
            Lenient::Absent | Lenient::Unreadable => None,
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::Null => Lenient::Absent,
            value => serde_json::from_value(value).map_or(Lenient::Unreadable, Lenient::Known),
        })
    }
}

/// A `VolumeSnapshot` as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshot {
    pub metadata: Metadata,
    pub spec: VolumeSnapshotSpec,
    /// Written by the snapshot controller; absent until it first reconciles the snapshot.
    pub status: Lenient<VolumeSnapshotStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotSpec {
    pub source: VolumeSnapshotSource,
    /// The VolumeSnapshotClass. Omitted for the cluster's default; the API server rejects an empty string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotSource {
    /// The source claim. Absent if the snapshot was created for pre-existing content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_name: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotStatus {
    /// True once a volume can be created from the snapshot.
    pub ready_to_use: Option<bool>,
    /// When the storage system captured the data, by its own clock.
    pub creation_time: Option<Timestamp>,
    /// The last error the controller saw. It is not final: the controller keeps trying.
    pub error: Option<VolumeSnapshotError>,
    /// The VolumeSnapshotContent that the controller made for the snapshot.
    pub bound_volume_snapshot_content_name: Option<String>,
    /// The VolumeGroupSnapshot that this snapshot is a member of.
    pub volume_group_snapshot_name: Option<String>,
    /// Minimum size of a volume created from the snapshot. Absent if the driver does not report it.
    pub restore_size: Option<Quantity>,
}

/// The last error that the snapshot controller saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshotError {
    /// Text of the controller or the driver, unescaped.
    pub message: Option<String>,
}

/// A `VolumeSnapshot` to create.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewVolumeSnapshot {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: NewMetadata,
    pub spec: VolumeSnapshotSpec,
}

/// A JSON merge patch (RFC 7396) of an object's `metadata`. `None` removes a key.
#[derive(Debug, Serialize)]
pub struct MetadataPatch<'a> {
    pub metadata: ChangedMetadata<'a>,
}

/// The part of `metadata` that a [`MetadataPatch`] changes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedMetadata<'a> {
    /// The state that the patch holds for; the API server refuses it in any other.
    pub resource_version: &'a str,
    pub labels: BTreeMap<&'static str, Option<&'a str>>,
    pub annotations: BTreeMap<&'static str, Option<&'a str>>,
}

/// The `metadata` of a new object. The namespace comes from the request path.
#[derive(Clone, Debug, Serialize)]
pub struct NewMetadata {
    pub name: String,
    pub labels: BTreeMap<Cow<'static, str>, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<&'static str, String>,
}

/// A `PersistentVolumeClaim` as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    pub metadata: ClaimMetadata,
    pub spec: ClaimSpec,
    pub status: ClaimStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    /// The StorageClass. Empty means no class; absent means that the cluster had no default.
    pub storage_class_name: Option<String>,
    /// Access modes such as `ReadWriteOnce`.
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: Option<String>,
    pub resources: ClaimResources,
    pub data_source: Option<ClaimSource>,
    /// Like `data_source`, but also allows other kinds and namespaces. The API server copies each field to
    /// the other where possible.
    pub data_source_ref: Option<ClaimSource>,
    /// The PersistentVolume that the claim is bound to, or that its author wants it bound to.
    pub volume_name: Option<String>,
}

/// The data source of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimSource {
    /// `VolumeSnapshot`, `PersistentVolumeClaim`, or a kind that a populator handles.
    pub kind: String,
    pub name: String,
    /// Set if the source is in another namespace than the claim.
    pub namespace: Option<String>,
}

impl ClaimSource {
    pub fn is_snapshot(&self) -> bool {
        self.kind == "VolumeSnapshot"
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimResources {
    pub requests: Storage,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Absent while it is not known.
    pub storage: Option<Quantity>,
}

/// An unparsed quantity such as `10Gi`. The API server writes strings, but the schema of `restoreSize` also
/// allows integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quantity")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        Ok(Quantity(text.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
        Ok(Quantity(number.to_string()))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimMetadata {
    pub name: String,
    pub namespace: String,
    /// Distinguishes this claim from a later one of the same name.
    pub uid: String,
    /// When the API server stored the claim, in whole seconds.
    pub creation_timestamp: Option<Timestamp>,
    /// Set once the claim was deleted. It stays while a pod uses it.
    pub deletion_timestamp: Option<Timestamp>,
    pub labels: ClaimLabels,
    pub annotations: ClaimAnnotations,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimLabels {
    /// For a claim of a drill: the drill.
    #[serde(rename = "volume-snapshotter/drill")]
    pub drill: Option<String>,
    /// The restore that created the claim.
    #[serde(rename = "volume-snapshotter/run")]
    pub run: Option<String>,
    /// Uid of the Job whose restore created the claim.
    #[serde(rename = "volume-snapshotter/run-uid")]
    pub run_uid: Option<String>,
    /// For a restored claim: the claim whose data it has, unless the name is too long for a label.
    #[serde(rename = "volume-snapshotter/restored-claim")]
    pub restored_claim: Option<String>,
    /// For a restored claim: the snapshot it was created from, unless the name is too long for a label.
    #[serde(rename = "volume-snapshotter/restored-snapshot")]
    pub restored_snapshot: Option<String>,
    /// All others: a setting names the one that makes groups.
    #[serde(flatten)]
    pub others: BTreeMap<String, String>,
}

impl ClaimLabels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        match key {
            names::RUN_LABEL => self.run.as_deref(),
            names::RUN_UID_LABEL => self.run_uid.as_deref(),
            names::RESTORED_CLAIM_LABEL => self.restored_claim.as_deref(),
            names::RESTORED_SNAPSHOT_LABEL => self.restored_snapshot.as_deref(),
            key => self.others.get(key).map(String::as_str),
        }
    }
}

/// The annotations of a claim that are used. All others are skipped, however large they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimAnnotations {
    /// `volume-snapshotter/retention`: rules for this claim in every schedule.
    pub retention: Option<String>,
    /// `volume-snapshotter/retention.<schedule>`: pairs of a schedule and the rules for this claim in it.
    pub retention_of: Vec<(String, String)>,
    /// `volume-snapshotter/every`: how often every schedule snapshots this claim.
    pub every: Option<String>,
    /// `volume-snapshotter/every.<schedule>`: pairs of a schedule and how often it snapshots this claim.
    pub every_of: Vec<(String, String)>,
    /// `backup.kubernetes.io/deltas`: the durations of k8s-snapshots.
    pub deltas: Option<String>,
    /// The volume that the annotations above were taken from, because the claim has none of them.
    pub of_volume: Option<String>,
    /// `pv.kubernetes.io/provisioned-by` of a volume: the provisioner that created it. Absent if it was created by
    /// hand.
    pub provisioned_by: Option<String>,
    /// `volume.kubernetes.io/selected-node`: the node of the claim's first consumer, set once there is one.
    pub selected_node: Option<String>,
    /// `volume.kubernetes.io/storage-provisioner`: the provisioner that was asked to create the volume.
    /// Absent if the claim was bound to an existing volume.
    pub storage_provisioner: Option<String>,
    /// `volume-snapshotter/restored-claim`: replaces the label if the name is too long for one.
    pub restored_claim: Option<String>,
    /// `volume-snapshotter/restored-snapshot`: replaces the label if the name is too long for one.
    pub restored_snapshot: Option<String>,
    /// `volume-snapshotter/restored-time`: when the restored data was taken, in RFC 3339.
    pub restored_time: Option<String>,
}

impl<'de> Deserialize<'de> for ClaimAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimAnnotationsVisitor)
    }
}

struct ClaimAnnotationsVisitor;

impl<'de> Visitor<'de> for ClaimAnnotationsVisitor {
    type Value = ClaimAnnotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_unit<E: de::Error>(self) -> Result<ClaimAnnotations, E> {
        Ok(ClaimAnnotations::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ClaimAnnotations, A::Error> {
        let mut read = ClaimAnnotations::default();
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            match &*key {
                names::RETENTION_ANNOTATION => read.retention = Some(map.next_value()?),
                names::EVERY_ANNOTATION => read.every = Some(map.next_value()?),
                names::DELTAS_ANNOTATION => read.deltas = Some(map.next_value()?),
                "pv.kubernetes.io/provisioned-by" => read.provisioned_by = Some(map.next_value()?),
                "volume.kubernetes.io/selected-node" => read.selected_node = Some(map.next_value()?),
                "volume.kubernetes.io/storage-provisioner" => {
                    read.storage_provisioner = Some(map.next_value()?);
                }
                names::RESTORED_CLAIM_LABEL => read.restored_claim = Some(map.next_value()?),
                names::RESTORED_SNAPSHOT_LABEL => read.restored_snapshot = Some(map.next_value()?),
                names::RESTORED_TIME_ANNOTATION => read.restored_time = Some(map.next_value()?),
                other => {
                    let of = |key: &str| Some(other.strip_prefix(key)?.strip_prefix('.')?.to_owned());
                    if let Some(schedule) = of(names::RETENTION_ANNOTATION) {
                        read.retention_of.push((schedule, map.next_value()?));
                    } else if let Some(schedule) = of(names::EVERY_ANNOTATION) {
                        read.every_of.push((schedule, map.next_value()?));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
            }
        }
        Ok(read)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
    /// Actual size of the volume.
    pub capacity: Storage,
}

/// A `Pod` as returned by the API server: what hooks need of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: PodMetadata,
    pub spec: PodFields,
    pub status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodMetadata {
    pub name: String,
    pub annotations: HookAnnotations,
}

/// The annotations of a pod that are hooks, by their whole keys. All others are skipped, however large they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookAnnotations(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for HookAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HookAnnotationsVisitor)
    }
}

struct HookAnnotationsVisitor;

impl<'de> Visitor<'de> for HookAnnotationsVisitor {
    type Value = HookAnnotations;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_unit<E: de::Error>(self) -> Result<HookAnnotations, E> {
        Ok(HookAnnotations::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HookAnnotations, A::Error> {
        let mut read = BTreeMap::new();
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            let is_hook =
                key.split_once('/').is_some_and(|(prefix, _)| names::HOOK_ANNOTATIONS.contains(&prefix));
            if is_hook {
                read.insert(key.into_owned(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(HookAnnotations(read))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFields {
    pub containers: Vec<PodContainer>,
    pub init_containers: Vec<PodContainer>,
    pub volumes: Vec<PodVolume>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodContainer {
    pub name: String,
    /// Of an init container `Always` makes it a sidecar, which runs as long as the pod does.
    pub restart_policy: Option<String>,
}

/// A volume of a pod, which is a claim or something else.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolume {
    pub name: String,
    pub persistent_volume_claim: Option<PodClaim>,
    /// Present if the claim is made with the pod, and named after the pod and the volume.
    pub ephemeral: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodClaim {
    pub claim_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
}

/// A `PersistentVolumeClaim` to create from a snapshot in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClaim {
    pub name: String,
    /// Namespace of the claim and of the snapshot.
    pub namespace: String,
    pub labels: BTreeMap<&'static str, String>,
    /// Origin of the data, for values that are not valid as label values.
    pub annotations: BTreeMap<&'static str, String>,
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
    /// `None` for the cluster's default StorageClass.
    pub storage_class: Option<String>,
    pub size: String,
    pub snapshot: String,
}

impl NewClaim {
    /// Returns the complete object, so that `kubectl apply` accepts the printed form.
    pub fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": self.labels,
                "annotations": self.annotations,
            },
            "spec": {
                "accessModes": self.access_modes,
                "volumeMode": self.volume_mode,
                "resources": {"requests": {"storage": self.size}},
                "dataSource": {"apiGroup": SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": self.snapshot},
            },
        });
        if let Some(class) = &self.storage_class {
            object["spec"]["storageClassName"] = class.as_str().into();
        }
        object
    }
}

/// An Event to create on a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// Unique in the namespace.
    pub name: String,
    pub namespace: String,
    pub claim: String,
    /// `None` where the claim is not there, or may not be read.
    pub claim_uid: Option<String>,
    /// Whether something is wrong.
    pub is_warning: bool,
    /// Why it is created, in CamelCase.
    pub reason: &'static str,
    /// What was done, in CamelCase.
    pub action: &'static str,
    /// At most 1024 bytes.
    pub note: String,
    pub time: Timestamp,
    /// The Job that reports it; at most 128 bytes.
    pub instance: String,
}

impl NewEvent {
    pub fn object(&self) -> Value {
        let mut object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.namespace},
            // Microseconds: neither more nor fewer digits are read.
            "eventTime": format!("{:.6}", self.time),
            "type": if self.is_warning { "Warning" } else { "Normal" },
            "reason": self.reason,
            "action": self.action,
            "note": self.note,
            "reportingController": names::PROGRAM,
            "reportingInstance": self.instance,
            "regarding": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": self.namespace,
                "name": self.claim,
            },
        });
        if let Some(uid) = &self.claim_uid {
            object["regarding"]["uid"] = uid.as_str().into();
        }
        object
    }
}

/// A `StorageClass` as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    pub metadata: StorageClassMetadata,
    /// `Immediate` or `WaitForFirstConsumer`.
    pub volume_binding_mode: String,
    /// What becomes of a volume whose claim is deleted: `Delete` or `Retain`.
    pub reclaim_policy: String,
}

impl StorageClass {
    /// Whether the class is marked as the cluster's default. Several classes may be.
    pub fn is_default(&self) -> bool {
        self.metadata.annotations.is_default.as_deref() == Some("true")
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StorageClassMetadata {
    pub name: String,
    pub annotations: StorageClassAnnotations,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StorageClassAnnotations {
    /// `true` marks the default class.
    #[serde(rename = "storageclass.kubernetes.io/is-default-class")]
    pub is_default: Option<String>,
}

/// A `PersistentVolume` as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    pub metadata: VolumeMetadata,
    pub spec: VolumeSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMetadata {
    pub name: String,
    /// When the API server stored the volume, in whole seconds.
    pub creation_timestamp: Option<Timestamp>,
    /// Those that a claim may have as well, and its provisioner.
    pub annotations: ClaimAnnotations,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    pub claim_ref: Option<ClaimReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimReference {
    /// Distinguishes the claim from a later one of the same name.
    pub uid: String,
}

/// An `Event` of the core group as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectEvent {
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    pub reason: String,
    pub message: String,
    /// Time of the last occurrence, in whole seconds.
    pub last_timestamp: Option<Timestamp>,
    /// Used by reporters that do not set `lastTimestamp`.
    pub event_time: Option<Timestamp>,
}

/// A `CronJob` as returned by the API server: the settings of its pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CronJob {
    pub metadata: Metadata,
    pub spec: CronJobSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobSpec {
    /// Whether the CronJob creates no Jobs for now.
    pub suspend: bool,
    pub job_template: Template<JobSpec>,
}

/// The template of a CronJob's Jobs, or of a Job's pods.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Template<T> {
    pub spec: T,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobSpec {
    pub template: Template<PodSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodSpec {
    pub containers: Vec<Container>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub image: String,
    /// Replaces the image's entrypoint.
    pub command: Vec<String>,
    pub args: Vec<String>,
    /// Single variables. They win over `env_from`.
    pub env: Vec<Variable>,
    /// All entries of an object as variables. Later sources win.
    pub env_from: Vec<VariableSource>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Variable {
    pub name: String,
    /// Literal value; empty if `value_from` is set.
    pub value: String,
    pub value_from: Option<ValueSource>,
}

/// Source of a variable's value. If neither field is set, it is a Secret or the container's resources.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ValueSource {
    pub config_map_key_ref: Option<KeyReference>,
    pub field_ref: Option<FieldReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyReference {
    pub name: String,
    pub key: String,
    /// Whether the container starts without it.
    pub optional: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldReference {
    pub field_path: String,
}

/// An object whose entries become variables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VariableSource {
    /// Prepended to the name of each entry.
    pub prefix: String,
    /// Absent if the source is a Secret.
    pub config_map_ref: Option<ConfigMapReference>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMapReference {
    pub name: String,
    /// Whether the container starts without it.
    pub optional: bool,
}

/// A `ConfigMap` as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    pub data: BTreeMap<String, String>,
}

/// A `Namespace` as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: Metadata,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    #[serde(default)]
    pub metadata: PageMetadata,
    #[serde(default = "Vec::new")]
    pub items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PageMetadata {
    /// The state of the cluster that all pages show. A watch starts from here.
    pub resource_version: String,
    /// Continue token of the next page; empty on the last one.
    #[serde(rename = "continue")]
    pub next: String,
}
