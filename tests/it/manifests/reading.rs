//! Manifests are read as strictly as an API server reads them.

use std::collections::BTreeMap;

use k8s_openapi::{
    Metadata, Resource,
    api::{
        batch::v1::{CronJob, Job, JobSpec},
        core::v1::{ConfigMap, Container, PersistentVolume, PersistentVolumeClaim, PodSpec, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    serde::{Serialize, de::DeserializeOwned},
};
use serde_json::{Value, json};

use super::others;
use super::rendering::{
    BASE, CLASSES, COMPONENTS, KUBE_STATE_METRICS, MOVED, OVERLAYS, Rendered, SHOWN, documents,
};

/// Reads an object so that nothing in it is overlooked: written out again, it has to be what it
/// was. A field that the type does not know would be lost on the way, and one that it requires
/// would appear.
pub(super) fn strictly<T: DeserializeOwned + Serialize>(document: &Value) -> Result<T, String> {
    let object: T = serde_json::from_value(document.clone()).map_err(|error| error.to_string())?;
    let back = serde_json::to_value(&object).map_err(|error| error.to_string())?;
    let mut differences = Vec::new();
    compare("", document, &back, &mut differences);
    if differences.is_empty() { Ok(object) } else { Err(differences.join("; ")) }
}

fn compare(path: &str, given: &Value, understood: &Value, differences: &mut Vec<String>) {
    match (given, understood) {
        (Value::Object(given), Value::Object(understood)) => {
            let inside = |key: &str| {
                if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
            };
            for (key, value) in given {
                match understood.get(key) {
                    Some(other) => compare(&inside(key), value, other, differences),
                    None => differences.push(format!("{}: unknown field", inside(key))),
                }
            }
            for key in understood.keys().filter(|key| !given.contains_key(*key)) {
                differences.push(format!("{}: required field missing", inside(key)));
            }
        }
        (Value::Array(given), Value::Array(understood)) if given.len() == understood.len() => {
            for (index, (value, other)) in given.iter().zip(understood).enumerate() {
                compare(&format!("{path}[{index}]"), value, other, differences);
            }
        }
        _ if given == understood => {}
        _ => differences.push(format!("{path}: {given} is understood as {understood}")),
    }
}

/// Reads an object of any kind that the manifests may hold.
pub(crate) fn read(document: &Value) -> Result<(), String> {
    let of = |field: &str| document[field].as_str().unwrap_or_default();
    match (of("apiVersion"), of("kind")) {
        ("v1", "ServiceAccount") => strictly::<ServiceAccount>(document).map(drop),
        ("v1", "ConfigMap") => strictly::<ConfigMap>(document).map(drop),
        ("v1", "PersistentVolume") => strictly::<PersistentVolume>(document).map(drop),
        ("v1", "PersistentVolumeClaim") => strictly::<PersistentVolumeClaim>(document).map(drop),
        ("networking.k8s.io/v1", "NetworkPolicy") => strictly::<NetworkPolicy>(document).map(drop),
        ("snapshot.storage.k8s.io/v1", "VolumeSnapshotClass") => {
            strictly::<VolumeSnapshotClass>(document).map(drop)
        }
        ("monitoring.coreos.com/v1", "PrometheusRule") => strictly::<PrometheusRule>(document).map(drop),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => strictly::<ClusterRole>(document).map(drop),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => {
            strictly::<ClusterRoleBinding>(document).map(drop)
        }
        ("rbac.authorization.k8s.io/v1", "Role") => strictly::<Role>(document).map(drop),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => strictly::<RoleBinding>(document).map(drop),
        ("batch/v1", "CronJob") => strictly::<CronJob>(document).map(drop),
        ("batch/v1", "Job") => strictly::<Job>(document).map(drop),
        ("snapscheduler.backube/v1", "SnapshotSchedule") => {
            strictly::<others::SnapshotSchedule>(document).map(drop)
        }
        ("gemini.fairwinds.com/v1", "SnapshotGroup") => strictly::<others::SnapshotGroup>(document).map(drop),
        ("velero.io/v1", "Schedule") => strictly::<others::Schedule>(document).map(drop),
        ("k8s-snapshots.elsdoerfer.com/v1", "SnapshotRule") => {
            strictly::<others::SnapshotRule>(document).map(drop)
        }
        (version, kind) => Err(format!("{version} {kind}: unknown kind")),
    }
}

/// The fields of the CRD, of which there is no Rust type.
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeSnapshotClass {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    driver: String,
    deletion_policy: DeletionPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<BTreeMap<String, String>>,
}

#[derive(serde::Deserialize, serde::Serialize)]
enum DeletionPolicy {
    Delete,
    Retain,
}

/// The fields of the Prometheus operator's CRD that the project uses. What is in an expression, promtool checks.
#[derive(serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PrometheusRule {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: RuleGroups,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct RuleGroups {
    groups: Vec<RuleGroup>,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
struct RuleGroup {
    name: String,
    rules: Vec<Rule>,
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(untagged, deny_unknown_fields)]
enum Rule {
    Record {
        record: String,
        expr: String,
    },
    Alert {
        alert: String,
        expr: String,
        r#for: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
    },
}

/// Objects that belong to no namespace.
pub(super) fn of_the_cluster(document: &Value) -> bool {
    let kinds = ["ClusterRole", "ClusterRoleBinding", "PersistentVolume", "VolumeSnapshotClass"];
    kinds.iter().any(|kind| document["kind"] == *kind)
}

impl Rendered {
    /// All objects of one kind.
    pub(crate) fn all<T: Resource + DeserializeOwned + Serialize>(&self) -> Vec<T> {
        self.documents
            .iter()
            .filter(|document| document["kind"] == T::KIND && document["apiVersion"] == T::API_VERSION)
            .map(|document| {
                strictly(document).unwrap_or_else(|error| panic!("{}: {}: {error}", self.directory, T::KIND))
            })
            .collect()
    }

    /// The object of a kind with this name.
    pub(crate) fn named<T>(&self, name: &str) -> T
    where
        T: Resource + Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize,
    {
        self.all::<T>()
            .into_iter()
            .find(|object| object.metadata().name.as_deref() == Some(name))
            .unwrap_or_else(|| panic!("{}: there is no {} {name}", self.directory, T::KIND))
    }

    /// The specifications of all Jobs, those that a CronJob makes and those that stand alone. There
    /// is at least one.
    pub(crate) fn jobs(&self) -> Vec<JobSpec> {
        let made = self.all::<CronJob>().into_iter().map(|cron_job| {
            cron_job.spec.and_then(|spec| spec.job_template.spec).expect("a CronJob specifies its Jobs")
        });
        let alone = self.all::<Job>().into_iter().map(|job| job.spec.expect("a Job has a specification"));
        let jobs: Vec<_> = made.chain(alone).collect();
        assert!(!jobs.is_empty(), "{}: there is no CronJob", self.directory);
        jobs
    }
}

pub(super) fn everything() -> impl Iterator<Item = &'static Rendered> {
    BASE.iter().chain(with_settings())
}

/// All that a person could apply; the base alone lacks the settings.
pub(super) fn with_settings() -> impl Iterator<Item = &'static Rendered> {
    OVERLAYS.iter().chain(COMPONENTS.iter()).chain(MOVED.iter()).chain(SHOWN.iter())
}

pub(crate) fn pod_of(job: &JobSpec) -> &PodSpec {
    job.template.spec.as_ref().expect("a Job specifies its pods")
}

pub(crate) fn container_of(job: &JobSpec) -> &Container {
    match pod_of(job).containers.as_slice() {
        [container] => container,
        more => panic!("a pod has one container and not {}", more.len()),
    }
}

/// Where an object without a namespace ends up.
pub(super) fn namespace_of(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

#[test]
fn every_manifest_is_of_a_known_kind_and_has_only_known_fields() {
    for rendered in everything().chain(CLASSES.iter()).chain(KUBE_STATE_METRICS.iter()) {
        for document in &rendered.documents {
            let name = &document["metadata"]["name"];
            read(document).unwrap_or_else(|error| panic!("{}: {name}: {error}", rendered.directory));
        }
    }
}

#[test]
fn a_misspelt_field_a_missing_one_and_an_unknown_kind_are_found() {
    let good = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "volume-snapshotter"},
        "spec": {
            "schedule": "@hourly",
            "jobTemplate": {"spec": {"template": {"spec": {
                "containers": [{
                    "name": "volume-snapshotter",
                    "securityContext": {"readOnlyRootFilesystem": true},
                }],
            }}}},
        },
    });
    assert_eq!(read(&good), Ok(()));

    let change = |path: &str, value: Value| {
        let mut changed = good.clone();
        *changed.pointer_mut(path).expect("a path of the example") = value;
        read(&changed).expect_err("the change is found")
    };
    let pointer = "/spec/jobTemplate/spec/template/spec/containers/0";
    let container = "spec.jobTemplate.spec.template.spec.containers[0]";
    let security_context = format!("{pointer}/securityContext");
    assert_eq!(
        change(&security_context, json!({"readOnlyRootFilesytem": true})),
        format!("{container}.securityContext.readOnlyRootFilesytem: unknown field")
    );
    assert_eq!(
        change(pointer, json!({"image": "volume-snapshotter"})),
        format!("{container}.name: required field missing")
    );
    assert_eq!(change("/kind", json!("CronJobb")), "batch/v1 CronJobb: unknown kind");
    let version = json!("batch/v1beta1");
    assert_eq!(change("/apiVersion", version), "batch/v1beta1 CronJob: unknown kind");
    // The ConfigMap's values are strings, and a number among them is what a forgotten quote makes.
    let number = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"SNAPSHOT_CONCURRENCY": 8},
    });
    assert!(read(&number).is_err());
}

#[test]
fn a_key_that_stands_twice_in_a_manifest_is_found() {
    assert!(documents("kind: Role\nkind: Role\n").is_err());
}
