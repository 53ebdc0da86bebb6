//! Typical objects of a cluster, for tests.
//!
//! They are plain values. Tests change them as needed before storing them.

use serde_json::{Value, json};

/// Name of the driver of all objects in this module.
pub const DRIVER: &str = "hostpath.csi.k8s.io";

pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A namespace that lets in only pods of a Pod Security standard: `baseline` or `restricted`.
pub fn restrict(name: &str, level: &str) -> Value {
    let mut namespace = namespace(name);
    namespace["metadata"]["labels"] = json!({"pod-security.kubernetes.io/enforce": level});
    namespace
}

/// A StorageClass of [`DRIVER`] that binds claims at once.
pub fn storage_class(name: &str) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": DRIVER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    })
}

/// The default StorageClass, of [`DRIVER`].
pub fn default_storage_class(name: &str) -> Value {
    let mut class = storage_class(name);
    class["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    class
}

/// A StorageClass of [`DRIVER`] that waits for the first consumer.
pub fn waiting_storage_class(name: &str) -> Value {
    let mut class = storage_class(name);
    class["volumeBindingMode"] = "WaitForFirstConsumer".into();
    class
}

/// A free volume of a class. A matching claim of the class is bound to it, whatever the claim's data source.
/// When the claim is deleted, the volume is retained.
pub fn free_volume(name: &str, class: &str, size: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {
            "capacity": {"storage": size},
            "csi": {"driver": DRIVER, "volumeHandle": format!("handle-{name}")},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": class,
            "volumeMode": "Filesystem",
        },
        "status": {"phase": "Available"},
    })
}

pub fn snapshot_class(name: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {"name": name},
        "driver": DRIVER,
        "deletionPolicy": "Delete",
    })
}

/// The default VolumeSnapshotClass, of [`DRIVER`].
pub fn default_snapshot_class(name: &str) -> Value {
    let mut class = snapshot_class(name);
    class["metadata"]["annotations"] = json!({"snapshot.storage.kubernetes.io/is-default-class": "true"});
    class
}

pub fn group_snapshot_class(name: &str) -> Value {
    json!({
        "apiVersion": "groupsnapshot.storage.k8s.io/v1",
        "kind": "VolumeGroupSnapshotClass",
        "metadata": {"name": name},
        "driver": DRIVER,
        "deletionPolicy": "Delete",
    })
}

/// The default VolumeGroupSnapshotClass, of [`DRIVER`].
pub fn default_group_snapshot_class(name: &str) -> Value {
    let mut class = group_snapshot_class(name);
    class["metadata"]["annotations"] =
        json!({"groupsnapshot.storage.kubernetes.io/is-default-class": "true"});
    class
}

/// A claim as a client creates it, of the StorageClass `hostpath` and 1 GiB.
pub fn claim(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "hostpath",
            "volumeMode": "Filesystem",
        },
    })
}

/// A claim that is Bound, with labels.
pub fn bound_claim(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Value {
    let mut claim = claim(namespace, name);
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    if !labels.is_empty() {
        claim["metadata"]["labels"] = labels.into();
    }
    claim["metadata"]["annotations"] = json!({
        "pv.kubernetes.io/bind-completed": "yes",
        "pv.kubernetes.io/bound-by-controller": "yes",
        "volume.beta.kubernetes.io/storage-provisioner": DRIVER,
        "volume.kubernetes.io/storage-provisioner": DRIVER,
    });
    claim["metadata"]["finalizers"] = json!([crate::object::CLAIM_PROTECTION]);
    claim["spec"]["volumeName"] = format!("pvc-{namespace}-{name}").into();
    claim["status"] = json!({
        "phase": "Bound",
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"},
    });
    claim
}

/// An object with an annotation `example.com/large` of this many bytes. Of all annotations together the API server takes
/// 256 kB.
#[must_use]
pub fn enlarged(mut object: Value, bytes: usize) -> Value {
    crate::object::annotate(&mut object, "example.com/large", &"x".repeat(bytes));
    object
}

/// A claim as a client creates it, with a snapshot of its namespace as data source.
pub fn claim_from_snapshot(namespace: &str, name: &str, snapshot: &str) -> Value {
    let mut claim = claim(namespace, name);
    claim["spec"]["dataSource"] =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot});
    claim
}

/// A snapshot as a client creates it: of the class `default`, with the labels `job=volume-snapshotter` and `name`.
pub fn snapshot(namespace: &str, name: &str, claim: &str) -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"job": "volume-snapshotter", "name": name},
        },
        "spec": {
            "source": {"persistentVolumeClaimName": claim},
            "volumeSnapshotClassName": "default",
        },
    })
}

/// A ready snapshot, created and taken at a time in RFC 3339.
pub fn ready_snapshot(namespace: &str, name: &str, claim: &str, time: impl ToString) -> Value {
    let time = time.to_string();
    let mut snapshot = unready_snapshot(namespace, name, claim, &time);
    snapshot["status"]["readyToUse"] = true.into();
    snapshot["status"]["creationTime"] = time.into();
    snapshot["status"]["restoreSize"] = "1Gi".into();
    snapshot
}

/// A snapshot created at a time in RFC 3339 that is not ready; the controller ignores it.
pub fn unready_snapshot(namespace: &str, name: &str, claim: &str, time: impl ToString) -> Value {
    let mut snapshot = snapshot(namespace, name, claim);
    let uid = crate::object::new_uid();
    snapshot["metadata"]["creationTimestamp"] = time.to_string().into();
    snapshot["metadata"]["uid"] = uid.as_str().into();
    snapshot["metadata"]["finalizers"] =
        json!([crate::object::SOURCE_PROTECTION, crate::object::BOUND_PROTECTION]);
    snapshot["status"] = json!({
        "boundVolumeSnapshotContentName": format!("snapcontent-{uid}"),
        "readyToUse": false,
    });
    snapshot
}

pub fn config_map(namespace: &str, name: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    })
}

/// A CronJob of this program as the manifests have it: one container `volume-snapshotter` with variables of its own and
/// all those of ConfigMaps.
pub fn cron_job(namespace: &str, name: &str, env: &[(&str, &str)], config_maps: &[&str]) -> Value {
    let env: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let env_from: Vec<Value> =
        config_maps.iter().map(|name| json!({"configMapRef": {"name": name}})).collect();
    let container = json!({
        "name": "volume-snapshotter",
        "image": "volume-snapshotter:0.1.0",
        "env": env,
        "envFrom": env_from,
    });
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "schedule": "@hourly",
            "concurrencyPolicy": "Forbid",
            "jobTemplate": {"spec": {"template": {"spec": {
                "serviceAccountName": "volume-snapshotter",
                "restartPolicy": "Never",
                "containers": [container],
            }}}},
        },
    })
}

/// A pod that has a claim among its volumes.
pub fn pod(namespace: &str, name: &str, claim: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "containers": [{"name": "main", "image": "busybox:1"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    })
}

/// A pod that runs: on a node, with these containers, each of which mounts all the claims.
pub fn running_pod(namespace: &str, name: &str, containers: &[&str], claims: &[&str]) -> Value {
    let mounts: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "mountPath": format!("/{claim}")})).collect();
    let volumes: Vec<Value> = claims
        .iter()
        .map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let specs: Vec<Value> = containers
        .iter()
        .map(|name| json!({"name": name, "image": "busybox:1", "volumeMounts": mounts}))
        .collect();
    let statuses: Vec<Value> = containers.iter().map(|name| running(name)).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": "node-1", "restartPolicy": "Always", "containers": specs, "volumes": volumes},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": statuses,
        },
    })
}

/// The status of a container that runs.
fn running(container: &str) -> Value {
    json!({
        "name": container,
        "image": "busybox:1",
        "imageID": "",
        "ready": true,
        "restartCount": 0,
        "started": true,
        "state": {"running": {"startedAt": crate::object::now()}},
    })
}

/// Adds a sidecar to a running pod: an init container that is started again whenever it ends. It mounts what the other
/// containers mount.
#[must_use]
pub fn with_sidecar(mut pod: Value, name: &str) -> Value {
    let mounts = pod.pointer("/spec/containers/0/volumeMounts").cloned().unwrap_or_else(|| json!([]));
    let container =
        json!({"name": name, "image": "busybox:1", "restartPolicy": "Always", "volumeMounts": mounts});
    for (section, field, entry) in
        [("spec", "initContainers", container), ("status", "initContainerStatuses", running(name))]
    {
        let entries = crate::object::section(&mut pod, section).entry(field).or_insert_with(|| json!([]));
        if let Some(entries) = entries.as_array_mut() {
            entries.push(entry);
        }
    }
    pod
}

/// Adds `ownerReferences` to an object. The first one is its controller.
#[must_use]
pub fn owned(mut object: Value, owners: &[&Value]) -> Value {
    let references: Vec<Value> = owners
        .iter()
        .enumerate()
        .map(|(number, owner)| {
            json!({
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": number == 0,
            })
        })
        .collect();
    object["metadata"]["ownerReferences"] = references.into();
    object
}

/// A group snapshot as a client creates it: of the claims with these labels and the class `default-group`, with the labels
/// `job=volume-snapshotter` and `name`.
pub fn group_snapshot(namespace: &str, name: &str, claims: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        claims.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    json!({
        "apiVersion": "groupsnapshot.storage.k8s.io/v1",
        "kind": "VolumeGroupSnapshot",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"job": "volume-snapshotter", "name": name},
        },
        "spec": {
            "source": {"selector": {"matchLabels": labels}},
            "volumeGroupSnapshotClassName": "default-group",
        },
    })
}

/// A ready group snapshot, created and taken at a time in RFC 3339. Its members are put in with [`member`].
pub fn ready_group_snapshot(
    namespace: &str,
    name: &str,
    claims: &[(&str, &str)],
    time: impl ToString,
) -> Value {
    let (time, uid) = (time.to_string(), crate::object::new_uid());
    let mut group = group_snapshot(namespace, name, claims);
    group["metadata"]["creationTimestamp"] = time.as_str().into();
    group["metadata"]["uid"] = uid.as_str().into();
    group["metadata"]["finalizers"] = json!([crate::groups::BOUND_PROTECTION]);
    group["status"] = json!({
        "boundVolumeGroupSnapshotContentName": format!("groupsnapcontent-{uid}"),
        "creationTime": time,
        "readyToUse": true,
    });
    group
}

/// A member of a group snapshot: a ready snapshot of a claim, of the time of the group, with a name of the controller's
/// and no labels. It goes with the group, and stays terminating if it is deleted before.
pub fn member(group: &Value, claim: &str) -> Value {
    let (namespace, name) = (crate::object::namespace(group), crate::object::name(group));
    let time = crate::object::text(group, "/metadata/creationTimestamp");
    let mut member = group_member(namespace, &crate::groups::member_name(), claim, name, time);
    member["metadata"]["ownerReferences"][0]["uid"] = group["metadata"]["uid"].clone();
    member["status"]["volumeGroupSnapshotName"] = name.into();
    member
}

/// A snapshot of a claim that was made with a VolumeGroupSnapshot which is not there, ready, as the controller makes it:
/// without labels, and before its status names the group. Deleted alone it stays, terminating.
pub fn group_member(namespace: &str, name: &str, claim: &str, group: &str, time: impl ToString) -> Value {
    let mut snapshot = ready_snapshot(namespace, name, claim, time);
    if let Some(metadata) = snapshot["metadata"].as_object_mut() {
        metadata.remove("labels");
    }
    if let Some(spec) = snapshot["spec"].as_object_mut() {
        spec.remove("volumeSnapshotClassName");
    }
    snapshot["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "groupsnapshot.storage.k8s.io/v1",
        "kind": "VolumeGroupSnapshot",
        "name": group,
        "uid": crate::object::new_uid(),
    }]);
    snapshot["metadata"]["finalizers"] =
        json!([crate::groups::IN_GROUP_PROTECTION, crate::object::SOURCE_PROTECTION]);
    snapshot
}

/// Adds a finalizer that nothing removes.
#[must_use]
pub fn kept(mut object: Value) -> Value {
    crate::object::add_finalizer(&mut object, "example.com/stays");
    object
}

/// An object that has been terminating since a time in RFC 3339, and stays terminating.
#[must_use]
pub fn terminating(object: Value, since: impl ToString) -> Value {
    let mut object = kept(object);
    object["metadata"]["deletionTimestamp"] = since.to_string().into();
    object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    object
}

/// A ResourceQuota that allows this many snapshots.
pub fn quota(namespace: &str, name: &str, snapshots: usize) -> Value {
    quota_of(namespace, name, "volumesnapshots.snapshot.storage.k8s.io", snapshots)
}

/// A ResourceQuota that allows this many objects of a resource, which is given with its group.
pub fn quota_of(namespace: &str, name: &str, resource: &str, objects: usize) -> Value {
    let mut hard = json!({});
    hard[format!("count/{resource}")] = objects.to_string().into();
    json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hard": hard},
    })
}

/// A Role with rules given as group, resource and verbs.
pub fn role(namespace: &str, name: &str, rules: &[(&str, &str, &[&str])]) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(
            |(group, resource, verbs)| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs}),
        )
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": rules,
    })
}

/// A RoleBinding of a Role to a ServiceAccount of the same namespace, with the Role's name.
pub fn role_binding(namespace: &str, role: &str, service_account: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": namespace}],
    })
}
