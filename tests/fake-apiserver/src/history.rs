//! The history of snapshots, group snapshots and claims, for tests that check after a run whether each deletion was allowed
//! when it happened.

use crate::cluster::Cluster;
use crate::controller::SnapshotData;
use crate::object;
use crate::store::{Change, Kind};
use serde_json::Value;
use std::time::Instant;

/// A milestone of a VolumeSnapshot or a VolumeGroupSnapshot.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Milestone {
    pub stage: Stage,
    /// The snapshot right after it; the last state if it was removed.
    pub object: Value,
    /// The user; empty for a controller, or for the test itself with
    /// [`FakeApiServer::put`](crate::FakeApiServer::put) and such.
    pub user: String,
    pub at: Instant,
    /// The source of the snapshot's data; `None` if it is not known, and of a group. All milestones of a snapshot have the
    /// final value.
    pub data: Option<SnapshotData>,
}

/// The milestones of a snapshot. Each occurs at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Created,
    /// `status.readyToUse` became true. For a snapshot stored as ready, this comes right after its creation.
    Ready,
    /// Its deletion was accepted. Without finalizers it is removed right after.
    DeleteAccepted,
    Removed,
}

/// One write of a VolumeSnapshot, a VolumeGroupSnapshot or a PersistentVolumeClaim.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Write {
    pub resource: &'static str,
    /// Whether the object is gone with this write.
    pub gone: bool,
    /// The object after the write; the last state if it was removed.
    pub object: Value,
    /// The user; empty for a controller or the test itself.
    pub user: String,
    /// The resourceVersion of the write. They are in order, over all resources.
    pub version: u64,
    pub at: Instant,
    /// The source of the snapshot's data, as in [`Milestone::data`].
    pub data: Option<SnapshotData>,
}

/// A change as a test sees it.
pub(crate) fn write(cluster: &Cluster, change: &Change) -> Write {
    Write {
        resource: change.resource.plural,
        gone: change.kind == Kind::Deleted,
        object: change.object.value.clone(),
        user: change.user.clone(),
        version: change.version,
        at: change.at.into_std(),
        data: cluster.data(&change.object.value),
    }
}

/// Returns the milestones of a change of a snapshot or a group snapshot, in order.
pub(crate) fn stages(change: &Change) -> Vec<Stage> {
    if !matches!(change.resource.plural, "volumesnapshots" | "volumegroupsnapshots") {
        return Vec::new();
    }
    let is_ready = |object: &Value| object.pointer("/status/readyToUse") == Some(&Value::Bool(true));
    let before = change.before.as_ref().map(|object| &object.value);
    let after = &change.object.value;
    let removed = change.kind == Kind::Deleted;
    let mut stages = Vec::new();
    if before.is_none() {
        stages.push(Stage::Created);
    }
    if is_ready(after) && !before.is_some_and(is_ready) {
        stages.push(Stage::Ready);
    }
    if (removed || object::is_deleting(after)) && !before.is_some_and(object::is_deleting) {
        stages.push(Stage::DeleteAccepted);
    }
    if removed {
        stages.push(Stage::Removed);
    }
    stages
}

/// The stages of a change as a test sees them.
pub(crate) fn milestones(cluster: &Cluster, change: &Change) -> impl Iterator<Item = Milestone> {
    let data = cluster.data(&change.object.value);
    stages(change).into_iter().map(move |stage| Milestone {
        stage,
        object: change.object.value.clone(),
        user: change.user.clone(),
        at: change.at.into_std(),
        data: data.clone(),
    })
}
