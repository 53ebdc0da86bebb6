//! The Kubernetes objects that this program reads and writes, cut down to the fields it uses.
//!
//! A page of 500 whole claims or snapshots is megabytes, most of it `managedFields`; decoding only
//! these fields skips the rest without keeping it. What the program remembers of a snapshot is
//! smaller still: [`crate::snapshot::Snapshot`]. Nothing here makes a request.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::jiff::Timestamp;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, json};

use crate::{names, snapshot::ClaimId};

/// Group of the snapshot API, as it stands in a Role.
pub const SNAPSHOT_GROUP: &str = "snapshot.storage.k8s.io";

/// Group and version of the snapshot API. `v1` is served since external-snapshotter 4.0 (2020);
/// `v1beta1` is not served any more.
pub const SNAPSHOT_API: &str = "snapshot.storage.k8s.io/v1";

/// The fields of `metadata` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// The object's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What tells this object from a later one of the same name.
    pub uid: String,
    /// Which state of the object this is.
    pub resource_version: String,
    /// When the API server stored it, by its clock, in whole seconds.
    pub creation_timestamp: Option<Timestamp>,
    /// Set once somebody deleted the object; finalizers may keep it for a while.
    pub deletion_timestamp: Option<Timestamp>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The annotations that are read.
    pub annotations: SnapshotAnnotations,
    /// The objects that this one belongs to.
    pub owner_references: Vec<OwnerReference>,
}

/// The annotations of a snapshot that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SnapshotAnnotations {
    /// The uid of the claim that the snapshot was asked of.
    #[serde(rename = "volume-snapshotter/claim-uid")]
    pub claim_uid: Option<String>,
}

/// An object that another one belongs to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// Its kind: `VolumeGroupSnapshot`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// A part of an object that its schema leaves open: whatever stands there must not keep the rest of a
/// list from being read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lenient<T> {
    /// There is none.
    #[default]
    Absent,
    /// It was understood.
    Known(T),
    /// It was not: a size below zero, a time beyond the calendar.
    Unreadable,
}

impl<T> Lenient<T> {
    /// The value, if it was understood.
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

/// A `VolumeSnapshot`, as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshot {
    /// Name, labels, times.
    pub metadata: Metadata,
    /// What was asked for.
    pub spec: VolumeSnapshotSpec,
    /// What the snapshot controller made of it; missing until it has looked.
    pub status: Lenient<VolumeSnapshotStatus>,
}

/// What is asked of the snapshot controller.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotSpec {
    /// What is snapshotted.
    pub source: VolumeSnapshotSource,
    /// The VolumeSnapshotClass; left out for the cluster's default (an empty string is refused).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_snapshot_class_name: Option<String>,
}

/// What is snapshotted.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotSource {
    /// The claim; missing where the snapshot stands for content that existed before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_name: Option<String>,
}

/// What the snapshot controller reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotStatus {
    /// True once a volume can be made from it.
    pub ready_to_use: Option<bool>,
    /// When the storage system captured the data, by its own clock.
    pub creation_time: Option<Timestamp>,
    /// What the controller last saw go wrong; not a verdict, it keeps trying.
    pub error: Option<VolumeSnapshotError>,
    /// The group that this snapshot is a member of.
    pub volume_group_snapshot_name: Option<String>,
    /// The least size of a volume that is made from it; missing where the driver does not say.
    pub restore_size: Option<Quantity>,
}

/// What the snapshot controller last saw go wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct VolumeSnapshotError {
    /// In the controller's or the driver's words.
    pub message: Option<String>,
}

/// A `VolumeSnapshot`, as it is made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewVolumeSnapshot {
    /// Always [`SNAPSHOT_API`].
    pub api_version: &'static str,
    /// Always `VolumeSnapshot`.
    pub kind: &'static str,
    /// Name and labels.
    pub metadata: NewMetadata,
    /// What is asked for.
    pub spec: VolumeSnapshotSpec,
}

/// The `metadata` of a new object; its namespace is the request's.
#[derive(Clone, Debug, Serialize)]
pub struct NewMetadata {
    /// The object's name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<&'static str, String>,
    /// Annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<&'static str, String>,
}

/// A `PersistentVolumeClaim`, as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// Name, times, annotations.
    pub metadata: ClaimMetadata,
    /// What was asked for.
    pub spec: ClaimSpec,
    /// Whether there is a volume.
    pub status: ClaimStatus,
}

impl Claim {
    /// Which claim it is.
    pub fn id(&self) -> ClaimId {
        ClaimId { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }
}

/// What a claim asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    /// The StorageClass; empty for none, missing where the cluster had no default.
    pub storage_class_name: Option<String>,
    /// How pods may use the volume: `ReadWriteOnce` and such.
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: Option<String>,
    /// How much.
    pub resources: ClaimResources,
    /// What its volume is made from.
    pub data_source: Option<ClaimSource>,
    /// The same, in the form that knows other kinds and namespaces. The API server fills in the one from
    /// the other where it can.
    pub data_source_ref: Option<ClaimSource>,
    /// The PersistentVolume that it is bound to, or that somebody wants it to be bound to.
    pub volume_name: Option<String>,
}

/// What a claim's volume is made from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimSource {
    /// `VolumeSnapshot`, `PersistentVolumeClaim` or what a populator knows.
    pub kind: String,
    /// The name of the snapshot, or of another claim.
    pub name: String,
    /// Its namespace, where it is not the claim's.
    pub namespace: Option<String>,
}

impl ClaimSource {
    /// Whether this is a snapshot.
    pub fn is_snapshot(&self) -> bool {
        self.kind == "VolumeSnapshot"
    }
}

/// How much a claim asks for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimResources {
    /// At least this.
    pub requests: Storage,
}

/// An amount of storage.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// The amount; missing where it is not known yet.
    pub storage: Option<Quantity>,
}

/// A quantity as it is written, `10Gi`. The API server writes text, but a snapshot's is declared as
/// text or number.
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

/// The fields of a claim's `metadata` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimMetadata {
    /// The claim's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What tells this claim from a later one of the same name.
    pub uid: String,
    /// When the API server stored it, in whole seconds.
    pub creation_timestamp: Option<Timestamp>,
    /// Set once somebody deleted it; it stays while a pod uses it.
    pub deletion_timestamp: Option<Timestamp>,
    /// Labels.
    pub labels: ClaimLabels,
    /// Annotations.
    pub annotations: ClaimAnnotations,
}

/// The labels of a claim that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimLabels {
    /// The restore that made it.
    #[serde(rename = "volume-snapshotter/run")]
    pub run: Option<String>,
    /// The uid of the Job whose restore made it.
    #[serde(rename = "volume-snapshotter/run-uid")]
    pub run_uid: Option<String>,
    /// The claim whose data it has, if it was restored and the name fits.
    #[serde(rename = "volume-snapshotter/restored-claim")]
    pub restored_claim: Option<String>,
    /// The snapshot that it was restored from, if the name fits.
    #[serde(rename = "volume-snapshotter/restored-snapshot")]
    pub restored_snapshot: Option<String>,
}

/// The annotations of a claim that are read; all others are skipped, however large they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimAnnotations {
    /// `volume-snapshotter/retention`: rules for this claim alone.
    pub retention: Option<String>,
    /// `volume-snapshotter/retention.<schedule>`: rules for this claim and one schedule, by the schedule.
    pub retention_of: Vec<(String, String)>,
    /// `backup.kubernetes.io/deltas`: the durations of k8s-snapshots.
    pub deltas: Option<String>,
    /// `volume.kubernetes.io/selected-node`: where its first consumer is to run, once there is one.
    pub selected_node: Option<String>,
    /// `volume.kubernetes.io/storage-provisioner`: who was asked to make its volume. Missing where the
    /// claim was bound to a volume that was there already.
    pub storage_provisioner: Option<String>,
    /// `volume-snapshotter/restored-claim`: as the label, for a name that is too long for one.
    pub restored_claim: Option<String>,
    /// `volume-snapshotter/restored-snapshot`: as the label, for a name that is too long for one.
    pub restored_snapshot: Option<String>,
    /// `volume-snapshotter/restored-time`: when the restored data was taken.
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
                names::DELTAS_ANNOTATION => read.deltas = Some(map.next_value()?),
                "volume.kubernetes.io/selected-node" => read.selected_node = Some(map.next_value()?),
                "volume.kubernetes.io/storage-provisioner" => {
                    read.storage_provisioner = Some(map.next_value()?);
                }
                names::RESTORED_CLAIM_LABEL => read.restored_claim = Some(map.next_value()?),
                names::RESTORED_SNAPSHOT_LABEL => read.restored_snapshot = Some(map.next_value()?),
                names::RESTORED_TIME_ANNOTATION => read.restored_time = Some(map.next_value()?),
                other => match other
                    .strip_prefix(names::RETENTION_ANNOTATION)
                    .and_then(|rest| rest.strip_prefix('.'))
                {
                    Some(schedule) => {
                        let schedule = schedule.to_owned();
                        read.retention_of.push((schedule, map.next_value()?));
                    }
                    None => drop(map.next_value::<IgnoredAny>()?),
                },
            }
        }
        Ok(read)
    }
}

/// What is known of a claim's volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
    /// How large the volume is.
    pub capacity: Storage,
}

/// A `PersistentVolumeClaim` that is to be made from a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewClaim {
    /// Its name.
    pub name: String,
    /// Its namespace, which is the snapshot's.
    pub namespace: String,
    /// Where it came from.
    pub labels: BTreeMap<&'static str, String>,
    /// Where it came from, as far as no label can hold it.
    pub annotations: BTreeMap<&'static str, String>,
    /// How pods may use the volume.
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
    /// The StorageClass; `None` for the cluster's default.
    pub storage_class: Option<String>,
    /// How much.
    pub size: String,
    /// The snapshot.
    pub snapshot: String,
}

impl NewClaim {
    /// The object, whole, so that what is printed can be applied as it is.
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

/// A `StorageClass`, as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    /// Its name, and whether it is the default.
    pub metadata: StorageClassMetadata,
    /// `Immediate` or `WaitForFirstConsumer`.
    pub volume_binding_mode: String,
}

impl StorageClass {
    /// Whether claims without a class get this one, or another that is the default too.
    pub fn is_default(&self) -> bool {
        self.metadata.annotations.is_default.as_deref() == Some("true")
    }
}

/// The fields of a StorageClass's `metadata` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StorageClassMetadata {
    /// Its name.
    pub name: String,
    /// Annotations.
    pub annotations: StorageClassAnnotations,
}

/// The annotations of a StorageClass that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StorageClassAnnotations {
    /// `true`: claims without a class get this one.
    #[serde(rename = "storageclass.kubernetes.io/is-default-class")]
    pub is_default: Option<String>,
}

/// A `PersistentVolume`, as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// When it was made, and by whom.
    pub metadata: VolumeMetadata,
    /// Whom it is bound to.
    pub spec: VolumeSpec,
}

/// The fields of a PersistentVolume's `metadata` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMetadata {
    /// When the API server stored it, in whole seconds.
    pub creation_timestamp: Option<Timestamp>,
    /// Annotations.
    pub annotations: VolumeAnnotations,
}

/// The annotations of a PersistentVolume that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeAnnotations {
    /// The provisioner that made it; missing where a person did.
    #[serde(rename = "pv.kubernetes.io/provisioned-by")]
    pub provisioned_by: Option<String>,
}

/// What a PersistentVolume is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSpec {
    /// The claim that it is bound to.
    pub claim_ref: Option<ClaimReference>,
}

/// The claim that a volume is bound to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimReference {
    /// What tells this claim from a later one of the same name.
    pub uid: String,
}

/// An `Event` of the core group, as it is read: what somebody has to say of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectEvent {
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In one word: `ProvisioningFailed`.
    pub reason: String,
    /// In a sentence.
    pub message: String,
    /// When it was last said, in whole seconds.
    pub last_timestamp: Option<Timestamp>,
    /// When it was said, by those who write no `lastTimestamp`.
    pub event_time: Option<Timestamp>,
}

/// A `CronJob`, as it is read: what its pods are told.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CronJob {
    /// Name and labels.
    pub metadata: Metadata,
    /// What it does.
    pub spec: CronJobSpec,
}

/// What a CronJob does.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobSpec {
    /// Whether it does nothing for now.
    pub suspend: bool,
    /// The Jobs that it makes.
    pub job_template: Template<JobSpec>,
}

/// What something is made from: a Job of a CronJob, a pod of a Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Template<T> {
    /// What it is to be.
    pub spec: T,
}

/// What a Job is to be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobSpec {
    /// The pods that it makes.
    pub template: Template<PodSpec>,
}

/// What a pod is to be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodSpec {
    /// Its containers.
    pub containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// What is started, instead of what the image says.
    pub command: Vec<String>,
    /// With which arguments.
    pub args: Vec<String>,
    /// Variables, one by one; these win.
    pub env: Vec<Variable>,
    /// Variables, all of an object; the later ones win.
    pub env_from: Vec<VariableSource>,
}

/// A variable of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value, where that is written here.
    pub value: String,
    /// Where its value is, else.
    pub value_from: Option<ValueSource>,
}

/// Where a variable's value is; in neither of these, in a Secret or in the container's resources.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ValueSource {
    /// In a ConfigMap.
    pub config_map_key_ref: Option<KeyReference>,
    /// In the pod itself.
    pub field_ref: Option<FieldReference>,
}

/// An entry of a ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KeyReference {
    /// The ConfigMap.
    pub name: String,
    /// The entry.
    pub key: String,
    /// Whether it may be missing.
    pub optional: bool,
}

/// A field of the pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldReference {
    /// `metadata.namespace`.
    pub field_path: String,
}

/// An object whose entries are variables.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VariableSource {
    /// What the variables' names begin with before the entry's own.
    pub prefix: String,
    /// A ConfigMap; missing for a Secret.
    pub config_map_ref: Option<ConfigMapReference>,
}

/// A ConfigMap.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMapReference {
    /// Its name.
    pub name: String,
    /// Whether it may be missing.
    pub optional: bool,
}

/// A `ConfigMap`, as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    /// Its entries.
    pub data: BTreeMap<String, String>,
}

/// A `Namespace`, as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Its name, and whether it is being deleted.
    pub metadata: Metadata,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// Where the list stands and how it goes on.
    #[serde(default)]
    pub metadata: PageMetadata,
    /// The objects of this page.
    #[serde(default = "Vec::new")]
    pub items: Vec<T>,
}

/// Where a list stands and how it goes on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PageMetadata {
    /// The state of the cluster that the whole list shows; a watch goes on from here.
    pub resource_version: String,
    /// The token for the next page; empty or missing on the last.
    #[serde(rename = "continue")]
    pub next: String,
}
