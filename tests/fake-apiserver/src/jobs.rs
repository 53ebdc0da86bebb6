//! Jobs: defaults, pods, and garbage collection.
//!
//! Pods never run. A test that needs a finished Job writes its status.

use crate::cluster::Cluster;
use crate::object;
use crate::registry::known;
use crate::store::{Change, Key, Kind};
use crate::verbs;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// The finalizer with which the controller makes sure to count every pod.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

fn default(fields: &mut Map<String, Value>, values: Value) {
    let Value::Object(values) = values else { return };
    for (field, value) in values {
        fields.entry(field).or_insert(value);
    }
}

/// Fills in what a new Job has without anybody having said it: the labels by which its pods are known, and defaults.
pub(crate) fn complete(job: &mut Value) {
    let (name, uid) = (object::name(job).to_owned(), object::uid(job).to_owned());
    let labels = json!({
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    });
    let spec = object::section(job, "spec");
    default(
        spec,
        json!({
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
            "manualSelector": false,
            "completionMode": "NonIndexed",
            "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed",
        }),
    );
    let template = spec.entry("template").or_insert_with(|| json!({}));
    default(object::section(object::inner(template, "metadata"), "labels"), labels);
    complete_pod(object::section(template, "spec"));
    // Of the Job's own template the server takes the labels over, unless the Job has some already.
    let labels = template["metadata"]["labels"].clone();
    object::metadata(job).entry("labels").or_insert(labels);
}

/// The defaults of a pod's spec.
fn complete_pod(spec: &mut Map<String, Value>) {
    default(
        spec,
        json!({
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "securityContext": {},
            "schedulerName": "default-scheduler",
        }),
    );
    for container in spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(container) = container.as_object_mut() else { continue };
        default(
            container,
            json!({
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            }),
        );
    }
}

/// The pod of a Job.
fn pod(job: &Value) -> Value {
    let mut spec = job.pointer("/spec/template/spec").cloned().unwrap_or_default();
    let toleration = |key: &str| {
        json!({
            "key": format!("node.kubernetes.io/{key}"),
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": 300,
        })
    };
    if let Some(spec) = spec.as_object_mut() {
        default(
            spec,
            json!({
                "tolerations": [toleration("not-ready"), toleration("unreachable")],
                "priority": 0,
                "enableServiceLinks": true,
                "preemptionPolicy": "PreemptLowerPriority",
            }),
        );
    }
    let prefix = format!("{}-", object::name(job));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("{prefix}{}", object::name_suffix()),
            "generateName": prefix,
            "namespace": object::namespace(job),
            "uid": object::new_uid(),
            "generation": 1,
            "creationTimestamp": object::now(),
            "labels": job["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [{
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": object::name(job),
                "uid": object::uid(job),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
            "finalizers": [TRACKING],
        },
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    })
}

/// Makes the pods of Jobs, and deletes what belongs to a Job or a CronJob that is gone, until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    // What belongs to whom, by the owner's uid.
    let mut owned: HashMap<String, HashSet<(&'static str, Key)>> = HashMap::new();
    while let Some(change) = changes.recv().await {
        let object = &change.object.value;
        if !matches!(change.resource.plural, "cronjobs" | "jobs" | "pods") {
            continue;
        }
        if change.kind == Kind::Deleted {
            for (plural, key) in owned.remove(object::uid(object)).unwrap_or_default() {
                cluster.store.write(|writer| {
                    writer.modify(known(plural), &key, |object| object::remove_finalizer(object, TRACKING));
                    verbs::delete_gracefully(writer, known(plural), &key);
                });
            }
            continue;
        }
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        for owner in owners.into_iter().flatten() {
            let uid = object::text(owner, "/uid").to_owned();
            owned.entry(uid).or_default().insert((change.resource.plural, change.key.clone()));
        }
        // One that was put in without a selector, or has begun, is left as it is.
        let is_new = change.resource.plural == "jobs"
            && change.kind == Kind::Added
            && object.pointer("/spec/selector").is_some()
            && object["status"].as_object().is_none_or(Map::is_empty);
        if is_new {
            cluster.store.write(|writer| {
                writer.put(known("pods"), pod(object));
                writer.modify(known("jobs"), &change.key, |job| {
                    job["status"] = json!({
                        "active": 1,
                        "ready": 0,
                        "startTime": object::now(),
                        "terminating": 0,
                        "uncountedTerminatedPods": {},
                    });
                });
            });
        }
    }
}
