//! The controllers of claims. They bind claims to free volumes, whatever their data source, or provision
//! volumes, empty or from a snapshot. They write Events, and remove deleted claims and volumes.
//!
//! They react to changes of the store, without polling: what failed is retried when something that it needs
//! has changed. A claim that was put into the store with another phase than Pending is left alone.

use crate::announce::{self, Announcement};
use crate::cluster::Cluster;
use crate::object;
use crate::pods;
use crate::registry::known;
use crate::store::{Change, Key, Kind, Writer};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const CLASSES: &str = "storageclasses";
const SNAPSHOTS: &str = "volumesnapshots";
const PODS: &str = "pods";

/// The controller that binds claims, as it calls itself in Events.
const BINDER: &str = "persistentvolume-controller";

/// With which the scheduler says where the first pod that uses a claim is to run.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// How the provisioner is where no [`Provision`] says otherwise.
#[derive(Debug, Clone)]
pub struct Provisioner {
    /// From a claim's creation until it is bound. Nothing.
    pub bound_after: Duration,
    /// Whether Events are written as the real controllers do. Yes.
    pub events: bool,
}

impl Default for Provisioner {
    fn default() -> Provisioner {
        Provisioner { bound_after: Duration::ZERO, events: true }
    }
}

/// What happens with one claim that could be bound.
#[derive(Debug, Clone, Default)]
pub struct Provision {
    /// From when everything is there until the volume is made; `None`: never.
    pub after: Option<Duration>,
    /// What the storage complains of, from the beginning.
    pub error: Option<String>,
}

impl Provision {
    pub fn after(delay: Duration) -> Provision {
        Provision { after: Some(delay), error: None }
    }

    /// Never bound, with this complaint of the driver's.
    pub fn fails(message: &str) -> Provision {
        Provision { after: None, error: Some(message.to_owned()) }
    }
}

/// How far a claim came.
#[derive(PartialEq, Eq)]
enum Step {
    /// Something is missing that may come, or the storage is at work.
    Waits,
    /// The volume is to be made after this time.
    Begun(Duration),
    /// Nothing more is to be done.
    Over,
}

/// Runs until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    // Claims that wait for a class or a snapshot, with the name of the snapshot.
    let mut pending: HashMap<Key, String> = HashMap::new();
    // By uid: the storage is at work for these, and a timer goes on with them.
    let mut begun: HashSet<String> = HashSet::new();
    while let Some(change) = changes.recv().await {
        match (change.resource.plural, change.kind) {
            (CLAIMS, Kind::Deleted) => {
                pending.remove(&change.key);
                let claim = &change.object.value;
                let was_begun = begun.remove(object::uid(claim));
                if was_begun && object::text(claim, "/spec/volumeName").is_empty() {
                    cluster.leak(&change.key);
                }
                reclaim(&cluster, &change.object.value);
            }
            (CLAIMS, _) if object::is_deleting(&change.object.value) => {
                pending.remove(&change.key);
                let was = change.before.as_ref().is_some_and(|before| object::is_deleting(&before.value));
                if !was && change.kind == Kind::Modified {
                    release(&cluster, &change.key);
                }
            }
            (CLAIMS, _) => {
                if waits(&cluster, &change.key, change.at, &mut begun) {
                    let source = object::text(&change.object.value, "/spec/dataSource/name").to_owned();
                    pending.insert(change.key.clone(), source);
                } else {
                    pending.remove(&change.key);
                    expand(&cluster, &change.key);
                }
            }
            (CLASSES | VOLUMES, Kind::Added | Kind::Modified) => {
                let is_taken = object::text(&change.object.value, "/status/phase") != "Available";
                if change.resource.plural == VOLUMES && is_taken {
                    continue;
                }
                pending.retain(|key, _| waits(&cluster, key, change.at, &mut begun));
            }
            (PODS, Kind::Modified | Kind::Deleted) => {
                for claim in pods::claims(&change.object.value) {
                    release(&cluster, &(change.key.0.clone(), claim));
                }
            }
            (SNAPSHOTS, _) => {
                let (namespace, name) = &change.key;
                pending.retain(|key, source| {
                    key.0 != *namespace || source != name || waits(&cluster, key, change.at, &mut begun)
                });
            }
            _ => {}
        }
    }
}

/// Does for a claim what can be done, and answers whether it is still Pending afterwards.
fn waits(cluster: &Arc<Cluster>, key: &Key, since: Instant, begun: &mut HashSet<String>) -> bool {
    let Some(claim) = cluster.store.get(CLAIMS, key) else { return false };
    let uid = object::uid(&claim.value).to_owned();
    match bind(cluster, key, begun.contains(&uid)) {
        Step::Over => false,
        Step::Waits => true,
        Step::Begun(after) => {
            if begun.insert(uid.clone()) {
                let (cluster, key) = (cluster.clone(), key.clone());
                tokio::spawn(async move {
                    // A delay too long to be counted is never over.
                    let Some(at) = since.checked_add(after) else { return };
                    sleep_until(at).await;
                    let there = cluster.store.get(CLAIMS, &key);
                    if there.is_some_and(|claim| object::uid(&claim.value) == uid) {
                        finish(&cluster, &key);
                    }
                });
            }
            true
        }
    }
}

/// Brings a claim to where the storage makes its volume, or says what hinders that. `is_begun`: the storage is at work
/// already, and only what hinders it is of interest.
fn bind(cluster: &Cluster, key: &Key, is_begun: bool) -> Step {
    // The closure is a test's: it runs without the store's lock.
    let Some(claim) = cluster.store.get(CLAIMS, key) else { return Step::Over };
    let plan = cluster.provision(&claim.value);
    cluster.store.write(|writer| {
        let provisioner = match take(cluster, writer, key) {
            Ok(provisioner) => provisioner,
            Err(step) => return step,
        };
        if !is_begun {
            let message =
                format!("External provisioner is provisioning volume for claim \"{}/{}\"", key.0, key.1);
            tell(cluster, writer, key, &provisioner, "Normal", "Provisioning", &message);
        }
        let source = match source(writer, key) {
            Ok(source) => source,
            Err(why) => {
                tell(cluster, writer, key, &provisioner, "Warning", "ProvisioningFailed", &why);
                return Step::Waits;
            }
        };
        if let Some(error) = &plan.error {
            let why = format!(
                "failed to provision volume with StorageClass \"{}\": {error}",
                object::text(&claim.value, "/spec/storageClassName")
            );
            tell(cluster, writer, key, &provisioner, "Warning", "ProvisioningFailed", &why);
        }
        match plan.after {
            Some(Duration::ZERO) => {
                make(cluster, writer, key, &provisioner, source);
                Step::Over
            }
            Some(after) => Step::Begun(after),
            None => Step::Waits,
        }
    })
}

/// Makes the volume once its time has come, unless something hinders it now.
fn finish(cluster: &Cluster, key: &Key) {
    cluster.store.write(|writer| {
        let Ok(provisioner) = take(cluster, writer, key) else { return };
        match source(writer, key) {
            Ok(source) => make(cluster, writer, key, &provisioner, source),
            Err(why) => tell(cluster, writer, key, &provisioner, "Warning", "ProvisioningFailed", &why),
        }
    });
}

/// Hands a claim to the provisioner of its class, which is returned, if it is Pending and may be.
fn take(cluster: &Cluster, writer: &mut Writer<'_>, key: &Key) -> Result<String, Step> {
    let Some(claim) = writer.get(CLAIMS, key) else { return Err(Step::Over) };
    let claim = &claim.value;
    if object::text(claim, "/status/phase") != "Pending" || object::is_deleting(claim) {
        return Err(Step::Over);
    }
    let class_name = object::text(claim, "/spec/storageClassName").to_owned();
    // Whatever becomes of it, a claim is under protection as soon as it is seen.
    writer.modify(known(CLAIMS), key, |claim| object::add_finalizer(claim, object::CLAIM_PROTECTION));
    let class = writer.get(CLASSES, &(String::new(), class_name.clone()));
    let waits = class.as_ref().is_some_and(|class| {
        object::text(&class.value, "/volumeBindingMode") == "WaitForFirstConsumer"
            && object::annotation(claim, SELECTED_NODE).is_none()
    });
    if waits {
        let message = "waiting for first consumer to be created before binding";
        tell(cluster, writer, key, BINDER, "Normal", "WaitForFirstConsumer", message);
        return Err(Step::Waits);
    }
    if let Some(volume) = free_volume(writer, claim) {
        bind_to_free(writer, key, &volume);
        return Err(Step::Over);
    }
    if !object::text(claim, "/spec/volumeName").is_empty() {
        // It wants that volume and no other.
        return Err(Step::Waits);
    }
    let Some(class) = class else {
        if class_name.is_empty() {
            let why = "no persistent volumes available for this claim and no storage class is set";
            tell(cluster, writer, key, BINDER, "Normal", "FailedBinding", why);
        } else {
            let why = format!("storageclass.storage.k8s.io \"{class_name}\" not found");
            tell(cluster, writer, key, BINDER, "Warning", "ProvisioningFailed", &why);
        }
        return Err(Step::Waits);
    };
    let provisioner = object::text(&class.value, "/provisioner").to_owned();
    if provisioner.is_empty() {
        return Err(Step::Waits);
    }
    writer.modify(known(CLAIMS), key, |claim| give(claim, &provisioner));
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    tell(cluster, writer, key, BINDER, "Normal", "ExternalProvisioning", &message);
    Ok(provisioner)
}

/// The smallest free volume that a claim can have: of its class and mode, large enough, and with its access modes; or the
/// one that it names.
fn free_volume(writer: &Writer<'_>, claim: &Value) -> Option<Value> {
    let wanted = object::bytes(size(claim).as_str().unwrap_or_default()).unwrap_or(0);
    let capacity =
        |volume: &Value| object::bytes(object::text(volume, "/spec/capacity/storage")).unwrap_or(0);
    let modes = |object: &Value| -> Vec<Value> {
        object.pointer("/spec/accessModes").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let is_for = |volume: &Value| {
        let (uid, name) =
            (object::text(volume, "/spec/claimRef/uid"), object::text(volume, "/spec/claimRef/name"));
        let namespace = object::text(volume, "/spec/claimRef/namespace");
        let is_free = volume.pointer("/spec/claimRef").is_none_or(Value::is_null);
        is_free || (uid.is_empty() && (namespace, name) == (object::namespace(claim), object::name(claim)))
    };
    let named = object::text(claim, "/spec/volumeName");
    let volumes = writer.list(VOLUMES).map(|volume| &volume.value);
    let fit = volumes.filter(|volume| {
        object::text(volume, "/status/phase") == "Available"
            && !object::is_deleting(volume)
            && is_for(volume)
            && (named.is_empty() || named == object::name(volume))
            && object::text(volume, "/spec/storageClassName") == object::text(claim, "/spec/storageClassName")
            && object::volume_mode(volume) == object::volume_mode(claim)
            && capacity(volume) >= wanted
            && modes(claim).iter().all(|mode| modes(volume).contains(mode))
    });
    fit.min_by_key(|volume| capacity(volume)).cloned()
}

/// Binds a claim to a volume that was free. Nobody looks at what the claim is to be made from.
fn bind_to_free(writer: &mut Writer<'_>, key: &Key, volume: &Value) {
    let Some(claim) = writer.get(CLAIMS, key).map(|claim| claim.value.clone()) else { return };
    let volume_key = (String::new(), object::name(volume).to_owned());
    writer.modify(known(VOLUMES), &volume_key, |volume| {
        object::annotate(volume, "pv.kubernetes.io/bound-by-controller", "yes");
        object::section(volume, "spec").insert("claimRef".into(), reference(&claim));
        volume["status"] = json!({"phase": "Bound", "lastPhaseTransitionTime": object::now()});
    });
    writer.modify(known(CLAIMS), key, |claim| {
        object::annotate(claim, "pv.kubernetes.io/bind-completed", "yes");
        if object::text(claim, "/spec/volumeName").is_empty() {
            object::annotate(claim, "pv.kubernetes.io/bound-by-controller", "yes");
        }
        object::section(claim, "spec").insert("volumeName".into(), object::name(volume).into());
        claim["status"] = json!({
            "phase": "Bound",
            "accessModes": volume["spec"]["accessModes"],
            "capacity": volume["spec"]["capacity"],
        });
    });
}

/// A claim as its volume refers to it.
fn reference(claim: &Value) -> Value {
    json!({
        "kind": "PersistentVolumeClaim",
        "namespace": object::namespace(claim),
        "name": object::name(claim),
        "uid": object::uid(claim),
        "apiVersion": "v1",
        "resourceVersion": object::resource_version(claim),
    })
}

/// Makes a volume and binds a claim to it.
fn make(cluster: &Cluster, writer: &mut Writer<'_>, key: &Key, provisioner: &str, source: Option<String>) {
    let Some(claim) = writer.get(CLAIMS, key) else { return };
    let claim = claim.value.clone();
    let volume = format!("pvc-{}", object::uid(&claim));
    if let Some(source) = source {
        cluster.set_restored(&volume, &source);
        cluster.contents.restore(&volume, &source);
    }
    let made = provisioned(writer, &claim, provisioner);
    writer.put(known(VOLUMES), made);
    let message = format!("Successfully provisioned volume {volume}");
    tell(cluster, writer, key, provisioner, "Normal", "ProvisioningSucceeded", &message);
    writer.modify(known(CLAIMS), key, bind_to_own);
}

/// The volume that a provisioner makes for a claim.
fn provisioned(writer: &Writer<'_>, claim: &Value, provisioner: &str) -> Value {
    let class = (String::new(), object::text(claim, "/spec/storageClassName").to_owned());
    let class = writer.get(CLASSES, &class);
    let policy = class.map(|class| object::text(&class.value, "/reclaimPolicy").to_owned());
    let policy = policy.filter(|policy| !policy.is_empty()).unwrap_or_else(|| "Delete".to_owned());
    json!({
        "kind": "PersistentVolume",
        "apiVersion": "v1",
        "metadata": {
            "name": format!("pvc-{}", object::uid(claim)),
            "uid": object::new_uid(),
            "creationTimestamp": object::now(),
            "annotations": {
                "pv.kubernetes.io/provisioned-by": provisioner,
                "volume.kubernetes.io/provisioner-deletion-secret-name": "",
                "volume.kubernetes.io/provisioner-deletion-secret-namespace": "",
            },
            "finalizers": ["external-provisioner.volume.kubernetes.io/finalizer", "kubernetes.io/pv-protection"],
        },
        "spec": {
            "capacity": {"storage": size(claim)},
            "csi": {
                "driver": provisioner,
                "volumeHandle": object::new_uid(),
                "volumeAttributes": {
                    "storage.kubernetes.io/csiProvisionerIdentity": format!("1795265588442-1750-{provisioner}"),
                },
            },
            "accessModes": claim.pointer("/spec/accessModes").cloned().unwrap_or_default(),
            "claimRef": reference(claim),
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": object::text(claim, "/spec/storageClassName"),
            "volumeMode": object::volume_mode(claim),
        },
        "status": {"phase": "Bound", "lastPhaseTransitionTime": object::now()},
    })
}

/// The size that a claim asks for.
fn size(claim: &Value) -> Value {
    claim.pointer("/spec/resources/requests/storage").cloned().unwrap_or_else(|| "1Gi".into())
}

/// Binds a claim to the volume that was made for it.
fn bind_to_own(claim: &mut Value) {
    let volume = format!("pvc-{}", object::uid(claim));
    let modes = claim.pointer("/spec/accessModes").cloned().unwrap_or_default();
    let size = size(claim);
    object::annotate(claim, "pv.kubernetes.io/bind-completed", "yes");
    object::annotate(claim, "pv.kubernetes.io/bound-by-controller", "yes");
    object::section(claim, "spec").insert("volumeName".into(), volume.into());
    claim["status"] = json!({"phase": "Bound", "accessModes": modes, "capacity": {"storage": size}});
}

/// What a person once wrote of a claim: no more than what is kept in Git.
pub(crate) fn manifest(claim: &Value) -> Value {
    let mut metadata = json!({"name": object::name(claim), "namespace": object::namespace(claim)});
    for section in ["labels", "annotations"] {
        let entries = claim["metadata"].get(section).and_then(Value::as_object);
        let own = |key: &str| !key.starts_with("pv.kubernetes.io/") && !key.starts_with("volume.");
        let entries: Map<String, Value> = entries
            .into_iter()
            .flatten()
            .filter(|(key, _)| own(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !entries.is_empty() {
            metadata[section] = entries.into();
        }
    }
    let mut spec = claim["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("volumeName");
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
}

/// Binds a recreated claim to a new volume, if the previous one was Bound.
pub(crate) fn bind_anew(writer: &mut Writer<'_>, claim: &mut Value, old: &Value) {
    let class = (String::new(), object::text(claim, "/spec/storageClassName").to_owned());
    let of_class = writer.get(CLASSES, &class);
    let provisioner = of_class
        .map(|class| object::text(&class.value, "/provisioner").to_owned())
        .or_else(|| object::annotation(old, "volume.kubernetes.io/storage-provisioner").map(str::to_owned))
        .unwrap_or_default();
    if !provisioner.is_empty() {
        give(claim, &provisioner);
        let volume = provisioned(writer, claim, &provisioner);
        writer.put(known(VOLUMES), volume);
    }
    object::add_finalizer(claim, object::CLAIM_PROTECTION);
    bind_to_own(claim);
}

/// Hands a claim to a provisioner.
fn give(claim: &mut Value, provisioner: &str) {
    object::annotate(claim, "volume.beta.kubernetes.io/storage-provisioner", provisioner);
    object::annotate(claim, "volume.kubernetes.io/storage-provisioner", provisioner);
}

/// What a claim is to be made from, if that is there: nothing, or a ready snapshot that fits in and is of the same mode,
/// by its uid; else what the provisioner says of it.
fn source(writer: &Writer<'_>, key: &Key) -> Result<Option<String>, String> {
    let Some(claim) = writer.get(CLAIMS, key).map(|claim| claim.value.clone()) else { return Ok(None) };
    let kind = object::text(&claim, "/spec/dataSource/kind");
    if claim.pointer("/spec/dataSource").is_none_or(Value::is_null) {
        return Ok(None);
    }
    let name = object::text(&claim, "/spec/dataSource/name");
    let handle = |why: String| {
        format!("error getting handle for DataSource Type VolumeSnapshot by Name {name}: {why}")
    };
    if kind != "VolumeSnapshot" {
        return Err(format!("the fake API server cannot create a volume from a {kind}"));
    }
    let Some(snapshot) = writer.get(SNAPSHOTS, &(key.0.clone(), name.to_owned())) else {
        return Err(handle(format!(
            "error getting snapshot {name} from api server: volumesnapshots.snapshot.storage.k8s.io \"{name}\" not found"
        )));
    };
    let snapshot = &snapshot.value;
    if object::is_deleting(snapshot) {
        return Err(handle(format!("snapshot {name} is currently being deleted")));
    }
    if snapshot.pointer("/status/readyToUse") != Some(&Value::Bool(true)) {
        return Err(handle(format!("snapshot {name} is not Ready")));
    }
    let wanted = object::bytes(object::text(&claim, "/spec/resources/requests/storage")).unwrap_or(0);
    let needed = object::bytes(object::text(snapshot, "/status/restoreSize")).unwrap_or(0);
    if wanted < needed {
        return Err(handle(format!(
            "requested volume size {wanted} is less than the size {needed} for the source snapshot {name}"
        )));
    }
    let content = object::text(snapshot, "/status/boundVolumeSnapshotContentName").to_owned();
    let content = writer.get("volumesnapshotcontents", &(String::new(), content));
    let mode = content.as_ref().map(|content| object::text(&content.value, "/spec/sourceVolumeMode"));
    if mode.is_some_and(|mode| !mode.is_empty() && mode != object::volume_mode(&claim)) {
        return Err(handle(format!(
            "requested volume {}/{} modifies the mode of the source volume but does not have permission to do so. \
             snapshot.storage.kubernetes.io/allow-volume-mode-change annotation is not present on snapshotcontent {}",
            key.0,
            key.1,
            content.as_ref().map_or("", |content| object::name(&content.value))
        )));
    }
    Ok(Some(object::uid(snapshot).to_owned()))
}

/// Makes the volume of a bound claim larger, if the claim asks for more and its class allows it.
fn expand(cluster: &Cluster, key: &Key) {
    cluster.store.write(|writer| {
        let Some(claim) = writer.get(CLAIMS, key).map(|claim| claim.value.clone()) else { return };
        let wanted = object::text(&claim, "/spec/resources/requests/storage").to_owned();
        let class = (String::new(), object::text(&claim, "/spec/storageClassName").to_owned());
        let allowed = writer
            .get(CLASSES, &class)
            .is_some_and(|class| class.value.pointer("/allowVolumeExpansion") == Some(&Value::Bool(true)));
        let is_larger =
            object::bytes(&wanted) > object::bytes(object::text(&claim, "/status/capacity/storage"));
        if object::text(&claim, "/status/phase") != "Bound" || !allowed || !is_larger {
            return;
        }
        let volume = (String::new(), object::text(&claim, "/spec/volumeName").to_owned());
        writer.modify(known(VOLUMES), &volume, |volume| {
            volume["spec"]["capacity"]["storage"] = wanted.clone().into()
        });
        writer.modify(known(CLAIMS), key, |claim| claim["status"]["capacity"]["storage"] = wanted.into());
    });
}

/// Finds a node for the first pod that uses a claim, which is what the claim may have waited for.
pub(crate) fn select_node(writer: &mut Writer<'_>, key: &Key) {
    let waits = |claim: &Value| {
        object::text(claim, "/status/phase") == "Pending"
            && object::annotation(claim, SELECTED_NODE).is_none()
    };
    if writer.get(CLAIMS, key).is_some_and(|claim| waits(&claim.value)) {
        writer.modify(known(CLAIMS), key, |claim| object::annotate(claim, SELECTED_NODE, pods::NODE));
    }
}

/// Takes the protection of a deleted claim away once no pod uses it.
fn release(cluster: &Cluster, key: &Key) {
    cluster.store.write(|writer| {
        let Some(claim) = writer.get(CLAIMS, key) else { return };
        if object::is_deleting(&claim.value) && !pods::are_using(writer, &claim.value) {
            let remove = |claim: &mut Value| object::remove_finalizer(claim, object::CLAIM_PROTECTION);
            writer.modify(known(CLAIMS), key, remove);
        }
    });
}

/// Does with the volume of a claim that is gone what it is to be done with it.
fn reclaim(cluster: &Cluster, claim: &Value) {
    let key = (String::new(), object::text(claim, "/spec/volumeName").to_owned());
    cluster.store.write(|writer| {
        let Some(volume) = writer.get(VOLUMES, &key) else { return };
        if object::text(&volume.value, "/spec/persistentVolumeReclaimPolicy") == "Delete" {
            writer.remove(known(VOLUMES), &key);
        } else {
            // It keeps its claimRef, so that nobody else gets the data.
            writer.modify(known(VOLUMES), &key, |volume| {
                volume["status"] = json!({"phase": "Released", "lastPhaseTransitionTime": object::now()});
            });
        }
    });
}

/// Writes an Event about a claim, if that is wanted.
fn tell(
    cluster: &Cluster,
    writer: &mut Writer<'_>,
    key: &Key,
    component: &str,
    kind: &str,
    reason: &str,
    message: &str,
) {
    if !cluster.options.provisioner.events {
        return;
    }
    let Some(claim) = writer.get(CLAIMS, key).map(|claim| claim.value.clone()) else { return };
    let about = ("v1", "PersistentVolumeClaim");
    announce::repeat(writer, &Announcement { about, object: &claim, component, kind, reason, message });
}
