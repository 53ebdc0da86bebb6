//! `volume-snapshotter verify`: a drill that makes volumes from snapshots, has them read, and leaves nothing behind.

mod attempts;
mod killed;
mod manifests;
mod others;
mod outcomes;
mod safety;
mod table;

use std::time::Duration;

use fake_apiserver::{FakeApiServer, PodPlan};
use serde_json::{Value, json};
use volume_snapshotter::cluster::{VERIFY_CLASS_PERMISSIONS, VERIFY_PERMISSIONS};

use crate::{
    commands::Said,
    pod,
    test_cluster::{Running, TestCluster, embedded, name_of, rules},
};

pub(crate) const IMAGE: &str = "registry/volume-snapshotter:0.1.0";

/// How long it may take until nothing is left.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The rules of the Role that the component has.
pub(crate) fn rights() -> Value {
    rules(VERIFY_PERMISSIONS)
}

/// Those, and what only a ClusterRole can give.
fn rights_and_classes() -> Value {
    rules(&[VERIFY_PERMISSIONS, VERIFY_CLASS_PERMISSIONS].concat())
}

pub(crate) fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Verifies as a person does, with the rights of the Role.
pub(crate) async fn verify(cluster: &TestCluster, arguments: &[&str]) -> Said {
    verify_with(cluster, &rights(), &[], arguments).await
}

pub(crate) async fn verify_with(
    cluster: &TestCluster,
    rules: &Value,
    variables: &[(&str, &str)],
    arguments: &[&str],
) -> Said {
    // A scenario that goes wrong ends all the same.
    let variables = [&[("VERIFY_IMAGE", IMAGE), ("VERIFY_TIMEOUT", "30s")], variables].concat();
    cluster.say_with(rules, &variables, &[&["verify"], arguments].concat()).await
}

/// A termination message of this program's own `read`.
pub(crate) fn found(outcome: &str, more: Value) -> String {
    let mut reading = json!({"read": outcome, "files": 3, "bytes": 4096});
    for (key, value) in more.as_object().into_iter().flatten() {
        reading[key] = value.clone();
    }
    reading.to_string()
}

/// What becomes of the pods of drills. Others run on, as the drill's own does.
pub(crate) fn plan(fake: &FakeApiServer, plan: impl Fn() -> PodPlan + Send + Sync + 'static) {
    fake.plan_pod(move |pod| match pod["metadata"]["labels"].get("volume-snapshotter/drill") {
        Some(_) => Some(plan()),
        None => Some(PodPlan::runs()),
    });
}

/// A plan by which all of a volume is read.
pub(crate) fn whole() -> PodPlan {
    PodPlan::succeeds(&found("whole", json!({})))
}

impl TestCluster {
    /// What drills have made and is still there, by kind and name.
    pub(crate) fn left(&self) -> Vec<String> {
        let is_drills = |object: &&Value| {
            let labels = &object["metadata"]["labels"];
            labels.get("volume-snapshotter/drill").is_some()
        };
        let mut left = Vec::new();
        for resource in ["jobs", "pods", "persistentvolumeclaims"] {
            let all = self.fake().list(resource, &self.namespace);
            left.extend(all.iter().filter(is_drills).map(|one| format!("{resource}/{}", name_of(one))));
        }
        // Of a volume the claim is known, and here no other claims have anything.
        let claims: Vec<String> = self
            .fake()
            .list("persistentvolumeclaims", &self.namespace)
            .iter()
            .map(|one| name_of(one).to_owned())
            .collect();
        for volume in self.fake().list("persistentvolumes", "") {
            let claim = volume["spec"]["claimRef"]["name"].as_str().unwrap_or_default().to_owned();
            if !claims.contains(&claim) {
                left.push(format!("persistentvolumes/{} of {claim}", name_of(&volume)));
            }
        }
        left
    }

    /// Waits until nothing of a drill is left.
    pub(crate) async fn nothing_is_left(&self) {
        let began = std::time::Instant::now();
        while !self.left().is_empty() {
            assert!(began.elapsed() < LONGEST_WAIT, "left of the drill: {:?}", self.left());
            tokio::time::sleep(millis(2)).await;
        }
        assert_eq!(self.fake().leaked_volumes(), Vec::new(), "volumes that nobody knows of any more");
    }

    /// Makes a snapshot as a run does, which notes what the claim's volume is.
    pub(crate) async fn taken(&self, name: &str, claim: &str) {
        self.older(name, claim).await;
        let volume = json!({
            "accessModes": ["ReadWriteOnce"], "storageClassName": self.storage_class, "volumeMode": "Filesystem",
        });
        let annotations = json!({"volume-snapshotter/claim-volume": volume.to_string()});
        self.patch_snapshot(name, json!({"metadata": {"annotations": annotations}})).await;
    }

    /// An annotation of a snapshot.
    pub(crate) async fn noted(&self, snapshot: &str, key: &str) -> Option<String> {
        let annotations = &self.snapshot(snapshot).await["metadata"]["annotations"];
        annotations[format!("volume-snapshotter/{key}")].as_str().map(str::to_owned)
    }

    /// How many Jobs were ever created by drills.
    pub(crate) fn jobs_made(&self) -> usize {
        let requests = self.fake().requests();
        requests.iter().filter(|request| request.verb == "create" && request.resource == "jobs").count()
    }
}

/// A drill in a pod, whose own Job is there.
pub(crate) struct InPod<'a> {
    cluster: &'a TestCluster,
    files: std::path::PathBuf,
    /// The uid of the drill's own Job.
    uid: String,
}

impl<'a> InPod<'a> {
    pub(crate) async fn new(cluster: &'a TestCluster, rules: &Value) -> Self {
        let files = pod::service_account(cluster, rules).await;
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "verify-1", "namespace": cluster.namespace},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "volume-snapshotter", "image": IMAGE}],
            }}},
        });
        let made = cluster.post(&format!("/apis/batch/v1/namespaces/{}/jobs", cluster.namespace), &job).await;
        let uid = made["metadata"]["uid"].as_str().expect("a uid").to_owned();
        InPod { cluster, files, uid }
    }

    /// Begins an attempt.
    pub(crate) fn start(&self, settings: &[(&str, &str)]) -> Running {
        let own = [
            ("VERIFY_IMAGE", IMAGE),
            ("VERIFY_TIMEOUT", "30s"),
            ("SNAPSHOT_RUN_ID", "verify-1"),
            ("SNAPSHOT_RUN_UID", self.uid.as_str()),
            ("RUST_LOG", "debug"),
        ];
        pod::start_in_pod(self.cluster, &self.files, &["verify"], &[&own, settings].concat())
    }

    /// Deletes the drill's own Job, as its time to live or a person does.
    pub(crate) fn end(&self) {
        self.cluster.fake().remove("jobs", &self.cluster.namespace, "verify-1");
    }
}

/// Runs a scenario with the binary as in a pod, if that can be had here.
pub(crate) async fn in_pod(scenario: impl AsyncFn(&TestCluster)) {
    use std::io::Write;
    if !pod::mount_namespaces_work().await {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no private mount namespace can be had here");
        return;
    }
    embedded(pod::over_tls(), scenario).await;
}
