//! What happened to snapshots and claims, whoever did it: for tests that look back after a run and ask whether each
//! deletion was right at its moment.

use crate::cluster::Cluster;
use crate::controller::SnapshotData;
use crate::object;
use crate::store::{Change, Kind};
use serde_json::Value;
use std::time::Instant;

/// One thing that happened to a VolumeSnapshot.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Milestone {
    /// What it was.
    pub stage: Stage,
    /// The snapshot right after it; of one that was removed the last state.
    pub object: Value,
    /// The user who did it; empty: a controller, or the test itself with [`FakeApiServer::put`](crate::TestBed::put) and such.
    pub user: String,
    /// When it was.
    pub at: Instant,
    /// What the snapshot has the data of; `None`: nobody knows, or it has none yet. What is known at last is told of
    /// all that happened to the snapshot.
    pub data: Option<SnapshotData>,
}

/// What can happen to a snapshot, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It was created.
    Created,
    /// `status.readyToUse` became true. One that was put in ready has this right after its creation.
    Ready,
    /// Its deletion was accepted. One without finalizers is removed right after.
    DeleteAccepted,
    /// It is gone.
    Removed,
}

/// One write of a VolumeSnapshot or a PersistentVolumeClaim.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Write {
    /// `volumesnapshots` or `persistentvolumeclaims`.
    pub resource: &'static str,
    /// Whether the object is gone with this write.
    pub gone: bool,
    /// The object after the write; of one that is gone the last state.
    pub object: Value,
    /// Who wrote it; empty: a controller, or the test itself.
    pub user: String,
    /// The resourceVersion of the write. They are in order, over all resources.
    pub version: u64,
    /// When it was.
    pub at: Instant,
    /// What the snapshot has the data of, as for [`Milestone::data`].
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

/// The stages that a change of a snapshot takes it through, in order.
pub(crate) fn stages(change: &Change) -> Vec<Stage> {
    if change.resource.plural != "volumesnapshots" {
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
