//! The Kubernetes objects that this program reads and writes, cut down to the fields it uses.
//!
//! A page of 500 whole claims or snapshots is megabytes, most of it `managedFields`; decoding only
//! these fields skips the rest without keeping it. What the program remembers of a snapshot is
//! smaller still: [`crate::snapshot::Snapshot`]. Nothing here makes a request.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

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
    pub status: Option<VolumeSnapshotStatus>,
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
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeSnapshotStatus {
    /// True once a volume can be made from it.
    pub ready_to_use: Option<bool>,
    /// When the storage system cut the data.
    pub creation_time: Option<Timestamp>,
    /// What the controller last saw go wrong; not a verdict, it keeps trying.
    pub error: Option<VolumeSnapshotError>,
    /// The group that this snapshot is a member of.
    pub volume_group_snapshot_name: Option<String>,
}

/// What the snapshot controller last saw go wrong.
#[derive(Clone, Debug, Default, Deserialize)]
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
}

/// A `PersistentVolumeClaim`, as it is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// Name, times, annotations.
    pub metadata: ClaimMetadata,
    /// Whether there is a volume.
    pub status: ClaimStatus,
}

/// The fields of a claim's `metadata` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimMetadata {
    /// The claim's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// When the API server stored it: an earlier claim of the same name was another one.
    pub creation_timestamp: Option<Timestamp>,
    /// Set once somebody deleted it; it stays while a pod uses it.
    pub deletion_timestamp: Option<Timestamp>,
    /// Annotations.
    pub annotations: ClaimAnnotations,
}

/// The annotations of a claim that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimAnnotations {
    /// Rules for this claim alone.
    #[serde(rename = "volume-snapshotter/retention")]
    pub retention: Option<String>,
    /// The durations of k8s-snapshots.
    #[serde(rename = "backup.kubernetes.io/deltas")]
    pub deltas: Option<String>,
}

/// What is known of a claim's volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
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
