//! The controller of claims: binds them to volumes that it makes, and lets deleted ones go.
//!
//! It works on what the store reports, without polling. A claim that was put into the store with a phase of its own
//! other than Pending is left alone.

use crate::cluster::Cluster;
use crate::object;
use crate::registry;
use crate::store::{Change, Key, Kind};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

const CLAIMS: &str = "persistentvolumeclaims";

/// Runs until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    // Claims that wait for a class or a snapshot, with the name of the snapshot.
    let mut pending: HashMap<Key, String> = HashMap::new();
    while let Some(change) = changes.recv().await {
        match (change.resource.plural, change.kind) {
            (CLAIMS, Kind::Deleted) => {
                pending.remove(&change.key);
                remove_volume(&cluster, &change.object.value);
            }
            (CLAIMS, _) if object::is_deleting(&change.object.value) => {
                pending.remove(&change.key);
                let was = change.before.as_ref().is_some_and(|before| object::is_deleting(&before.value));
                if !was && change.kind == Kind::Modified {
                    release(&cluster, &change.key);
                }
            }
            (CLAIMS, _) => {
                if bind(&cluster, &change.key) {
                    let source = object::text(&change.object.value, "/spec/dataSource/name").to_owned();
                    pending.insert(change.key.clone(), source);
                } else {
                    pending.remove(&change.key);
                }
            }
            ("storageclasses", Kind::Added | Kind::Modified) => pending.retain(|key, _| bind(&cluster, key)),
            ("volumesnapshots", Kind::Added | Kind::Modified) => {
                let (namespace, name) = &change.key;
                pending.retain(|key, source| key.0 != *namespace || source != name || bind(&cluster, key));
            }
            _ => {}
        }
    }
}

/// Binds a claim if everything is there. Whether it is still Pending afterwards.
fn bind(cluster: &Cluster, key: &Key) -> bool {
    let (claims, volumes) = (registry::known(CLAIMS), registry::known("persistentvolumes"));
    cluster.store.write(|writer| {
        let Some(claim) = writer.get(CLAIMS, key) else { return false };
        let claim = &claim.value;
        if object::text(claim, "/status/phase") != "Pending" || object::is_deleting(claim) {
            return false;
        }
        let class_key = (String::new(), object::text(claim, "/spec/storageClassName").to_owned());
        let Some(class) = writer.get("storageclasses", &class_key) else { return true };
        let provisioner = object::text(&class.value, "/provisioner").to_owned();
        let waits = object::text(&class.value, "/volumeBindingMode") == "WaitForFirstConsumer"
            && object::annotation(claim, "volume.kubernetes.io/selected-node").is_none();
        if waits || provisioner.is_empty() {
            return true;
        }
        let taken = writer.modify(claims, key, |claim| {
            object::annotate(claim, "volume.beta.kubernetes.io/storage-provisioner", &provisioner);
            object::annotate(claim, "volume.kubernetes.io/storage-provisioner", &provisioner);
            object::add_finalizer(claim, object::CLAIM_PROTECTION);
        });
        let Some(claim) = taken else { return false };
        let claim = &claim.value;
        if !has_source(&key.0, claim, |key| {
            writer.get("volumesnapshots", key).map(|object| object.value.clone())
        }) {
            return true;
        }
        let volume = format!("pvc-{}", object::uid(claim));
        let size = claim.pointer("/spec/resources/requests/storage").cloned().unwrap_or_else(|| "1Gi".into());
        let modes = claim.pointer("/spec/accessModes").cloned().unwrap_or_default();
        writer.put(
            volumes,
            json!({
                "kind": "PersistentVolume",
                "apiVersion": "v1",
                "metadata": {
                    "name": volume,
                    "uid": object::new_uid(),
                    "creationTimestamp": object::now(),
                    "annotations": {"pv.kubernetes.io/provisioned-by": provisioner},
                    "finalizers": ["kubernetes.io/pv-protection"],
                },
                "spec": {
                    "capacity": {"storage": size},
                    "csi": {"driver": provisioner, "volumeHandle": object::new_uid()},
                    "accessModes": modes,
                    "claimRef": {
                        "kind": "PersistentVolumeClaim",
                        "namespace": key.0,
                        "name": key.1,
                        "uid": object::uid(claim),
                        "apiVersion": "v1",
                        "resourceVersion": object::resource_version(claim),
                    },
                    "persistentVolumeReclaimPolicy": "Delete",
                    "storageClassName": class_key.1,
                    "volumeMode": "Filesystem",
                },
                "status": {"phase": "Bound"},
            }),
        );
        writer.modify(claims, key, |claim| {
            object::annotate(claim, "pv.kubernetes.io/bind-completed", "yes");
            object::annotate(claim, "pv.kubernetes.io/bound-by-controller", "yes");
            object::section(claim, "spec").insert("volumeName".into(), volume.into());
            claim["status"] = json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": size}});
        });
        false
    })
}

/// Whether what a claim is to be made from is there: nothing, or a ready snapshot that fits in.
fn has_source(namespace: &str, claim: &Value, snapshot: impl FnOnce(&Key) -> Option<Value>) -> bool {
    if object::text(claim, "/spec/dataSource/kind") != "VolumeSnapshot" {
        return claim.pointer("/spec/dataSource").is_none_or(Value::is_null);
    }
    let name = object::text(claim, "/spec/dataSource/name").to_owned();
    let Some(snapshot) = snapshot(&(namespace.to_owned(), name)) else { return false };
    if snapshot.pointer("/status/readyToUse") != Some(&Value::Bool(true)) {
        return false;
    }
    let wanted = object::bytes(object::text(claim, "/spec/resources/requests/storage"));
    let needed = object::bytes(object::text(&snapshot, "/status/restoreSize"));
    wanted >= needed
}

/// Nothing uses a claim here, so its protection goes at once.
fn release(cluster: &Cluster, key: &Key) {
    cluster.store.write(|writer| {
        let remove = |claim: &mut Value| object::remove_finalizer(claim, object::CLAIM_PROTECTION);
        writer.modify(registry::known(CLAIMS), key, remove)
    });
}

fn remove_volume(cluster: &Cluster, claim: &Value) {
    let key = (String::new(), object::text(claim, "/spec/volumeName").to_owned());
    cluster.store.write(|writer| writer.remove(registry::known("persistentvolumes"), &key));
}
