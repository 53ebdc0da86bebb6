//! Group snapshots: VolumeGroupSnapshots, whose members the snapshot controller makes.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Lenient, Metadata, NewMetadata, VolumeSnapshotError};

/// API group of group snapshots, as a Role names it.
pub const GROUP_SNAPSHOT_GROUP: &str = "groupsnapshot.storage.k8s.io";

/// API group and version of group snapshots. `v1` has been served since external-snapshotter 8.6 (2026).
pub const GROUP_SNAPSHOT_API: &str = "groupsnapshot.storage.k8s.io/v1";

/// The `kind` of a group snapshot, by which a member names its owner.
pub const GROUP_SNAPSHOT_KIND: &str = "VolumeGroupSnapshot";

/// A `VolumeGroupSnapshot` as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeGroupSnapshot {
    pub metadata: Metadata,
    pub spec: VolumeGroupSnapshotSpec,
    /// Written by the snapshot controller; absent until it first reconciles the group.
    pub status: Lenient<VolumeGroupSnapshotStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeGroupSnapshotSpec {
    pub source: VolumeGroupSnapshotSource,
    /// The VolumeGroupSnapshotClass. Omitted for the default one of the claims' driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_group_snapshot_class_name: Option<String>,
}

/// The source of a group. It cannot be changed.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct VolumeGroupSnapshotSource {
    /// Selects the claims. Absent if the group was created for pre-existing content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<GroupSelector>,
}

/// The claims of a group. The snapshot controller takes those of now when it begins with the group, and ignores
/// `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupSelector {
    pub match_labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeGroupSnapshotStatus {
    /// True once the driver has made the group. Its members may be ready later.
    pub ready_to_use: Option<bool>,
    /// When the storage system captured the data of all members, by its own clock.
    pub creation_time: Option<Timestamp>,
    /// The last error the controller saw. It is not final: the controller keeps trying.
    pub error: Option<VolumeSnapshotError>,
    /// The VolumeGroupSnapshotContent that the controller made for the group.
    pub bound_volume_group_snapshot_content_name: Option<String>,
}

/// A `VolumeGroupSnapshot` to create.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewVolumeGroupSnapshot {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub metadata: NewMetadata,
    pub spec: VolumeGroupSnapshotSpec,
}
