//! Jobs and their pods, as a drill reads them.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::PodSpec;

/// A `Job` as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    pub metadata: JobMetadata,
    pub status: JobStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobMetadata {
    pub name: String,
    /// Distinguishes this Job from a later one of the same name.
    pub uid: String,
    pub creation_timestamp: Option<Timestamp>,
    /// Set once the Job was deleted. Finalizers may keep it for a while.
    pub deletion_timestamp: Option<Timestamp>,
    pub labels: BTreeMap<String, String>,
    pub annotations: DrillAnnotations,
}

/// The annotations of a drill's Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DrillAnnotations {
    #[serde(rename = "volume-snapshotter/drill-claim")]
    pub claim: Option<String>,
    #[serde(rename = "volume-snapshotter/drill-snapshot")]
    pub snapshot: Option<String>,
    #[serde(rename = "volume-snapshotter/drill-snapshot-uid")]
    pub snapshot_uid: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobStatus {
    pub conditions: Vec<JobCondition>,
}

/// A condition of a Job or of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobCondition {
    /// Of a Job `Complete`, `Failed`, or `FailureTarget`, which comes before `Failed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// In CamelCase: `DeadlineExceeded`, `BackoffLimitExceeded`; of a pod `Unschedulable`.
    pub reason: String,
    pub message: String,
}

impl JobCondition {
    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// A pod of a Job as returned by the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobPod {
    pub metadata: JobMetadata,
    pub spec: PodSpec,
    pub status: JobPodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobPodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// Why the pod failed as a whole: `Evicted`, `NodeLost`.
    pub reason: String,
    pub message: String,
    pub conditions: Vec<JobCondition>,
    pub container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    pub name: String,
    pub state: ContainerState,
}

/// Exactly one of them is there, or none yet.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    pub waiting: Option<ContainerWaiting>,
    pub running: Option<ContainerRunning>,
    pub terminated: Option<ContainerTerminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ContainerWaiting {
    /// `ContainerCreating`, `ImagePullBackOff`, `CreateContainerConfigError`.
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerRunning {
    pub started_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerTerminated {
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// The termination message, or the end of the log. Written by the container.
    pub message: String,
}
