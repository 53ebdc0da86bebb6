//! Group snapshots: what the snapshot controller does with them, and with their members.
//!
//! A group waits in the queue of `controller`. When its turn comes, its claims are looked up by their labels and
//! bound to one content. When its data is taken, its members are made: snapshots which then follow plans of their
//! own, as others do. It goes with its members, and they with it.

use crate::cluster::Cluster;
use crate::controller::{self, CLAIMS, CONTENTS, Happening, Id, Plan, SNAPSHOTS, Step};
use crate::deletion;
use crate::failure::quoted;
use crate::object::{self, SOURCE_PROTECTION};
use crate::quota;
use crate::registry::{GROUP_SNAPSHOT_GROUP, SNAPSHOT_GROUP, known};
use crate::store::{Key, Kind, Writer};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};

pub(crate) const GROUPS: &str = "volumegroupsnapshots";
pub(crate) const CLASSES: &str = "volumegroupsnapshotclasses";
const GROUP_CONTENTS: &str = "volumegroupsnapshotcontents";

/// Finalizer that protects a group snapshot while its content exists.
pub(crate) const BOUND_PROTECTION: &str =
    "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-bound-protection";
/// Finalizer that protects a member while its group exists.
pub(crate) const IN_GROUP_PROTECTION: &str =
    "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection";

/// Which versions of `groupsnapshot.storage.k8s.io` are served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GroupApi {
    /// None: the cluster has no CRDs of group snapshots.
    #[default]
    None,
    /// `v1beta1` only.
    V1beta1,
    /// `v1beta2` and `v1beta1`.
    V1beta2,
    /// `v1`, `v1beta2` and `v1beta1`.
    V1,
}

impl GroupApi {
    /// The versions, the newest first.
    fn versions(self) -> &'static [&'static str] {
        match self {
            GroupApi::None => &[],
            GroupApi::V1beta1 => &["v1beta1"],
            GroupApi::V1beta2 => &["v1beta2", "v1beta1"],
            GroupApi::V1 => &["v1", "v1beta2", "v1beta1"],
        }
    }

    pub(crate) fn serves(self, version: &str) -> bool {
        self.versions().contains(&version)
    }

    pub(crate) fn newest(self) -> Option<&'static str> {
        self.versions().first().copied()
    }
}

/// Name and uid of the group that a snapshot is a member of.
pub(crate) fn owner(snapshot: &Value) -> Option<(&str, &str)> {
    let owners = snapshot.pointer("/metadata/ownerReferences")?.as_array()?;
    let group = owners.iter().find(|owner| object::text(owner, "/kind") == "VolumeGroupSnapshot")?;
    Some((object::text(group, "/name"), object::text(group, "/uid")))
}

pub(crate) fn is_member(snapshot: &Value) -> bool {
    owner(snapshot).is_some()
}

/// Whether there is something to be done for a group that has just been stored.
pub(crate) fn is_new(group: &Value) -> bool {
    let has_selector = group.pointer("/spec/source/selector").is_some_and(Value::is_object);
    has_selector && group.get("status").is_none() && !object::is_deleting(group)
}

/// What the controller calls a member: a hash of the group and the volume.
pub(crate) fn member_name() -> String {
    let hash: String = (0..4).map(|_| format!("{:016x}", object::random())).collect();
    format!("snapshot-{hash}")
}

fn content_key(uid: &str) -> Key {
    (String::new(), format!("groupsnapcontent-{uid}"))
}

/// The members of a group, in the order in which they were made.
fn members(writer: &Writer<'_>, namespace: &str, uid: &str) -> Vec<Value> {
    let snapshots = writer.list_in(SNAPSHOTS, namespace).map(|snapshot| &snapshot.value);
    let of_group = snapshots.filter(|one| owner(one).is_some_and(|(_, owner)| owner == uid));
    let mut members: Vec<Value> = of_group.cloned().collect();
    // Two of the same second are in the order of their claims, which is the order of the list of claims.
    members.sort_by_key(|member| {
        let claim = object::text(member, "/spec/source/persistentVolumeClaimName").to_owned();
        (object::text(member, "/metadata/creationTimestamp").to_owned(), claim)
    });
    members
}

/// Binds a group to a content and goes on from there, or writes the error that prevents it.
pub(crate) fn begin(cluster: &Arc<Cluster>, id: &Id, plan: Plan, since: Instant) -> Step {
    let claims = cluster.store.write(|writer| {
        let group = id.get(writer).filter(|group| !object::is_deleting(group)).ok_or(Step::Over)?;
        bind(cluster, writer, id, &group).map_err(|Hindrance { reason, message, with_ready }| {
            controller::set_error(writer, id, &message, with_ready);
            controller::tell(cluster, writer, id, "Warning", reason, &message);
            Step::Stuck
        })
    });
    match claims {
        Ok(claims) => {
            follow(cluster, id.clone(), plan, since, claims);
            Step::Begun
        }
        Err(step) => step,
    }
}

/// Why a group cannot be snapshotted yet.
struct Hindrance {
    reason: &'static str,
    message: String,
    /// Whether the status says that it is not ready.
    with_ready: bool,
}

impl Hindrance {
    fn of_class(reason: &'static str, message: String) -> Hindrance {
        Hindrance { reason, message, with_ready: false }
    }

    fn of_content(why: &str) -> Hindrance {
        let message = format!("failed to create group snapshot content with error {why}");
        Hindrance { reason: "GroupSnapshotContentCreationFailed", message, with_ready: true }
    }
}

/// Binds a group to a content, and returns its claims.
fn bind(cluster: &Cluster, writer: &mut Writer<'_>, id: &Id, group: &Value) -> Result<Vec<Value>, Hindrance> {
    let (namespace, name) = &id.key;
    let class = class_of(writer, group)?;
    if object::text(group, "/spec/volumeGroupSnapshotClassName").is_empty() {
        id.modify(writer, |group| {
            let spec = object::section(group, "spec");
            spec.insert("volumeGroupSnapshotClassName".into(), object::name(&class).into());
            let generation = group["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            object::metadata(group).insert("generation".into(), generation.into());
        });
    }
    let claims = claims_of(writer, group).map_err(|why| {
        let why = quoted(&why);
        Hindrance::of_content(&format!(
            "failed to get input parameters to create group snapshot {name}: {why}"
        ))
    })?;
    let driver = object::text(&class, "/driver");
    for claim in &claims {
        let Some(other) = controller::driver_of(writer, claim).filter(|other| other != driver) else {
            continue;
        };
        let volume = object::text(claim, "/spec/volumeName");
        return Err(Hindrance::of_content(&format!(
            "snapshot controller failed to update {namespace}/{name} on API server: Volume CSI driver ({other}) \
             mismatch with VolumeGroupSnapshotClass ({driver}) {namespace}/{name}: {volume}"
        )));
    }
    let content = content_key(&id.uid);
    if writer.get(GROUP_CONTENTS, &content).is_none() {
        let handles = claims.iter().map(|claim| controller::volume_handle(writer, claim)).collect();
        writer.put(known(GROUP_CONTENTS), group_content(id, group, &class, handles));
    }
    id.modify(writer, |group| {
        let status = object::section(group, "status");
        status.insert("boundVolumeGroupSnapshotContentName".into(), content.1.into());
        status.insert("readyToUse".into(), false.into());
        status.remove("error");
    });
    id.modify(writer, |group| object::add_finalizer(group, BOUND_PROTECTION));
    let message = format!("Waiting for a group snapshot {namespace}/{name} to be created by the CSI driver.");
    controller::tell(cluster, writer, id, "Normal", "CreatingGroupSnapshot", &message);
    Ok(claims)
}

/// The class that a group names, or the default one of its claims' driver.
fn class_of(writer: &Writer<'_>, group: &Value) -> Result<Value, Hindrance> {
    let name = object::text(group, "/spec/volumeGroupSnapshotClassName");
    if !name.is_empty() {
        let class = writer.get(CLASSES, &(String::new(), name.to_owned()));
        return class.map(|class| class.value.clone()).ok_or_else(|| {
            let message = format!(
                "failed to get group snapshot class with error volumegroupsnapshotclass.{GROUP_SNAPSHOT_GROUP} \
                 \"{name}\" not found"
            );
            Hindrance::of_class("GetGroupSnapshotClassFailed", message)
        });
    }
    let failed = |why: &str| {
        let message = format!("Failed to set default group snapshot class with error {why}");
        Hindrance::of_class("SetDefaultGroupSnapshotClassFailed", message)
    };
    let claims = claims_of(writer, group).map_err(|why| failed(&why))?;
    let driver = claims.first().and_then(|claim| controller::driver_of(writer, claim));
    let is_default = |class: &Value| {
        object::annotation(class, "groupsnapshot.storage.kubernetes.io/is-default-class") == Some("true")
            && driver.as_ref().is_none_or(|driver| object::text(class, "/driver") == driver)
    };
    let defaults: Vec<&Value> =
        writer.list(CLASSES).map(|class| &class.value).filter(|class| is_default(class)).collect();
    match defaults.as_slice() {
        [] => Err(failed("cannot find default group snapshot class")),
        [class] => Ok((*class).clone()),
        many => Err(failed(&format!("{} default snapshot classes were found", many.len()))),
    }
}

/// The claims with the labels of a group, all Bound; or what is wrong with them. The expressions of the selector are not
/// looked at.
fn claims_of(writer: &Writer<'_>, group: &Value) -> Result<Vec<Value>, String> {
    let wanted = group.pointer("/spec/source/selector/matchLabels").and_then(Value::as_object);
    let wanted: Vec<(&String, &str)> =
        wanted.into_iter().flatten().map(|(key, value)| (key, value.as_str().unwrap_or_default())).collect();
    let matches = |claim: &Value| wanted.iter().all(|(key, value)| object::label(claim, key) == Some(*value));
    let claims = writer.list_in(CLAIMS, object::namespace(group)).map(|claim| &claim.value);
    let claims: Vec<Value> = claims.filter(|claim| matches(claim)).cloned().collect();
    if claims.is_empty() {
        let selector: Vec<String> = wanted.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let selector = selector.join(",");
        return Err(format!("label selector {selector} for group snapshot not applied to any PVC"));
    }
    match claims.iter().find(|claim| object::text(claim, "/status/phase") != "Bound") {
        Some(claim) => {
            let name = object::name(claim);
            Err(format!("the PVC {name} is not yet bound to a PV, will not attempt to take a group snapshot"))
        }
        None => Ok(claims),
    }
}

fn policy(class: &Value) -> &str {
    match object::text(class, "/deletionPolicy") {
        "" => "Delete",
        policy => policy,
    }
}

fn group_content(id: &Id, group: &Value, class: &Value, handles: Vec<String>) -> Value {
    let api_version = known(GROUPS).api_version();
    json!({
        "apiVersion": api_version,
        "kind": "VolumeGroupSnapshotContent",
        "metadata": {
            "name": content_key(&id.uid).1,
            "uid": object::new_uid(),
            "generation": 1,
            "creationTimestamp": object::now(),
            "finalizers": ["groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection"],
        },
        "spec": {
            "deletionPolicy": policy(class),
            "driver": object::text(class, "/driver"),
            "source": {"volumeHandles": handles},
            "volumeGroupSnapshotClassName": object::name(class),
            "volumeGroupSnapshotRef": {
                "apiVersion": api_version,
                "kind": "VolumeGroupSnapshot",
                "name": object::name(group),
                "namespace": object::namespace(group),
                "resourceVersion": object::resource_version(group),
                "uid": id.uid,
            },
        },
    })
}

/// What the storage took of the claims of a group, at one instant.
struct Taken {
    at: Timestamp,
    /// With the content of each.
    claims: Vec<(Value, Value)>,
}

fn take(cluster: &Cluster, claims: &[Value]) -> Taken {
    let volumes = claims.iter().map(|claim| object::text(claim, "/spec/volumeName"));
    let contents = cluster.contents.capture(volumes);
    Taken { at: Timestamp::now(), claims: claims.iter().cloned().zip(contents).collect() }
}

/// Executes a group's plan, each step at its time.
fn follow(cluster: &Arc<Cluster>, id: Id, plan: Plan, since: Instant, claims: Vec<Value>) {
    let mut taken = plan.is_taken_at_once().then(|| take(cluster, &claims));
    let steps = plan.steps();
    let cluster = cluster.clone();
    tokio::spawn(async move {
        if let Some(taken) = &taken
            && !make_members(&cluster, &id, &plan, taken).await
        {
            return;
        }
        for (after, happening) in steps {
            // A delay too long to be counted is never over.
            let Some(at) = since.checked_add(after) else { return };
            sleep_until(at).await;
            if matches!(happening, Happening::Taken) {
                let taken = taken.insert(take(&cluster, &claims));
                if !make_members(&cluster, &id, &plan, taken).await {
                    return;
                }
            }
            let goes_on = cluster.store.write(|writer| {
                let Some(group) = id.get(writer).filter(|group| !object::is_deleting(group)) else {
                    return false;
                };
                match (&happening, &taken) {
                    (Happening::Error(message), _) if message.is_empty() => {
                        id.modify(writer, |group| drop(object::section(group, "status").remove("error")));
                    }
                    (Happening::Error(message), _) => controller::set_error(writer, &id, message, false),
                    (Happening::Taken, Some(taken)) => {
                        say(&cluster, writer, &id, &group, &plan, taken, false)
                    }
                    (Happening::Ready, Some(taken)) => say(&cluster, writer, &id, &group, &plan, taken, true),
                    // What is ready was taken before.
                    (Happening::Taken | Happening::Ready, None) => {}
                }
                true
            });
            if !goes_on {
                return;
            }
        }
    });
}

/// Says that a group is taken, and perhaps that it is ready.
fn say(
    cluster: &Cluster,
    writer: &mut Writer<'_>,
    id: &Id,
    group: &Value,
    plan: &Plan,
    taken: &Taken,
    ready: bool,
) {
    let said = object::text(group, "/status/creationTime").to_owned();
    let time = if said.is_empty() { plan.time(taken.at) } else { said.clone() };
    writer.modify(known(GROUP_CONTENTS), &content_key(&id.uid), |content| {
        let status = object::section(content, "status");
        status.insert("creationTime".into(), time.as_str().into());
        status.insert("readyToUse".into(), ready.into());
    });
    id.modify(writer, |group| {
        let status = object::section(group, "status");
        status.insert("creationTime".into(), time.into());
        status.insert("readyToUse".into(), ready.into());
        if ready && !plan.keep_error {
            status.remove("error");
        }
    });
    let what = format!("GroupSnapshot {}/{}", id.key.0, id.key.1);
    if said.is_empty() {
        let message = format!("{what} was successfully created by the CSI driver.");
        controller::tell(cluster, writer, id, "Normal", "GroupSnapshotCreated", &message);
    }
    if ready {
        let message = format!("{what} is ready to use.");
        controller::tell(cluster, writer, id, "Normal", "GroupSnapshotReady", &message);
    }
}

/// Why a member cannot be made.
enum Refusal {
    NoGroup,
    Quota,
}

/// Makes the members of a group that are not there yet, one after the other. One that is refused is tried again when
/// something has changed that may help; until then the group says nothing. Returns `false` if the group is gone.
async fn make_members(cluster: &Arc<Cluster>, id: &Id, plan: &Plan, taken: &Taken) -> bool {
    let handle = object::new_uid();
    for (claim, content) in &taken.claims {
        let (name, snapshot_handle) = (member_name(), object::new_uid());
        loop {
            let mut changes = cluster.store.subscribe();
            let made = cluster.store.write(|writer| {
                let group = id.get(writer).filter(|group| !object::is_deleting(group));
                let group = group.ok_or(Refusal::NoGroup)?;
                let member = member(cluster, &group, claim, &name);
                let uid = object::uid(&member);
                let is_allowed = quota::check(cluster, writer, known(SNAPSHOTS), &member);
                is_allowed.map_err(|_| Refusal::Quota)?;
                cluster.set_data(uid, controller::data_of(claim));
                cluster.contents.set_snapshot(uid, content.clone());
                Ok(put_member(writer, &group, claim, member, &handle, &snapshot_handle))
            });
            match made {
                Ok(member) => {
                    // As the closure of a test sees it, it is new.
                    let mut new = member.clone();
                    new.as_object_mut().map(|fields| fields.remove("status"));
                    let mut of_member = cluster.plan(&new);
                    of_member.creation_time.get_or_insert_with(|| plan.time(taken.at));
                    controller::follow(cluster, Id::new(SNAPSHOTS, &member), of_member, Instant::now());
                    break;
                }
                Err(Refusal::NoGroup) => return false,
                Err(Refusal::Quota) => loop {
                    let Some(change) = changes.recv().await else { return false };
                    let helps = match change.resource.plural {
                        SNAPSHOTS => change.kind == Kind::Deleted,
                        "resourcequotas" | GROUPS => true,
                        _ => false,
                    };
                    if helps && change.key.0 == id.key.0 {
                        break;
                    }
                },
            }
        }
    }
    true
}

/// A member as the controller creates it.
fn member(cluster: &Cluster, group: &Value, claim: &Value, name: &str) -> Value {
    let version = cluster.options.group_api.newest().unwrap_or_default();
    json!({
        "apiVersion": format!("{SNAPSHOT_GROUP}/v1"),
        "kind": "VolumeSnapshot",
        "metadata": {
            "name": name,
            "namespace": object::namespace(group),
            "uid": object::new_uid(),
            "generation": 1,
            "creationTimestamp": object::now(),
            "finalizers": [IN_GROUP_PROTECTION],
            "ownerReferences": [{
                "apiVersion": format!("{GROUP_SNAPSHOT_GROUP}/{version}"),
                "kind": "VolumeGroupSnapshot",
                "name": object::name(group),
                "uid": object::uid(group),
            }],
        },
        "spec": {"source": {"persistentVolumeClaimName": object::name(claim)}},
    })
}

/// Stores a member with its content, and returns it bound.
fn put_member(
    writer: &mut Writer<'_>,
    group: &Value,
    claim: &Value,
    member: Value,
    group_handle: &str,
    handle: &str,
) -> Value {
    let name = object::name(&member).replacen("snapshot-", "snapcontent-", 1);
    let key = (object::namespace(&member).to_owned(), object::name(&member).to_owned());
    let group_content = writer.get(GROUP_CONTENTS, &content_key(object::uid(group)));
    let of_group =
        |pointer| group_content.as_ref().map_or("", |content| object::text(&content.value, pointer));
    let mut annotations = Map::new();
    annotations.insert(
        "groupsnapshot.storage.kubernetes.io/volumeGroupSnapshotHandle".to_owned(),
        group_handle.into(),
    );
    let content = json!({
        "apiVersion": format!("{SNAPSHOT_GROUP}/v1"),
        "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": name,
            "uid": object::new_uid(),
            "generation": 1,
            "creationTimestamp": object::now(),
            "annotations": annotations,
            "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"],
        },
        "spec": {
            "deletionPolicy": of_group("/spec/deletionPolicy"),
            "driver": of_group("/spec/driver"),
            "source": {"volumeHandle": controller::volume_handle(writer, claim)},
            "sourceVolumeMode": object::volume_mode(claim),
            "volumeSnapshotRef": {
                "kind": "VolumeSnapshot",
                "name": key.1,
                "namespace": key.0,
                "uid": object::uid(&member),
            },
        },
        "status": {
            "readyToUse": false,
            "snapshotHandle": handle,
            "volumeGroupSnapshotHandle": group_handle,
        },
    });
    writer.put(known(CONTENTS), content);
    writer.put(known(SNAPSHOTS), member);
    writer.modify(known(SNAPSHOTS), &key, |member| object::add_finalizer(member, SOURCE_PROTECTION));
    let bound = writer.modify(known(SNAPSHOTS), &key, |member| {
        member["status"] = json!({"boundVolumeSnapshotContentName": name, "readyToUse": false});
    });
    bound.map(|member| member.value.clone()).unwrap_or_default()
}

/// Lets a deleted group go, after the delay, and its members with it. Returns `false` if claims are being created from
/// one of them.
pub(crate) fn release(cluster: &Arc<Cluster>, id: &Id, since: Instant) -> bool {
    let free = cluster.store.write(|writer| {
        let members = members(writer, &id.key.0, &id.uid);
        let key = |member: &Value| (id.key.0.clone(), object::name(member).to_owned());
        !members.iter().any(|member| controller::is_in_use(writer, &key(member)))
    });
    if free {
        let (cluster, id) = (cluster.clone(), id.clone());
        tokio::spawn(async move {
            let Some(at) = since.checked_add(cluster.options.controller.deletion_delay) else { return };
            sleep_until(at).await;
            cluster.store.write(|writer| {
                delete_members(writer, &id);
                writer.remove(known(GROUP_CONTENTS), &content_key(&id.uid));
                id.modify(writer, |group| object::remove_finalizer(group, BOUND_PROTECTION));
            });
        });
    }
    free
}

fn delete_members(writer: &mut Writer<'_>, id: &Id) -> Vec<Id> {
    let members: Vec<Id> =
        members(writer, &id.key.0, &id.uid).iter().map(|member| Id::new(SNAPSHOTS, member)).collect();
    for member in &members {
        deletion::delete_gracefully(writer, known(SNAPSHOTS), &member.key);
    }
    members
}

/// Deletes what is left of a group that is gone, however it went. Returns its members, which may go now.
pub(crate) fn disband(cluster: &Cluster, group: &Value) -> Vec<Id> {
    let id = Id::new(GROUPS, group);
    cluster.store.write(|writer| {
        writer.remove(known(GROUP_CONTENTS), &content_key(&id.uid));
        delete_members(writer, &id)
    })
}
