//! The snapshot controller. It takes VolumeSnapshots through the states of the real one, with the speed and
//! errors of a test's [`Plan`], and removes deleted ones. Group snapshots wait in the same queue; what it does
//! with them is in `groups`.
//!
//! It reacts to changes of the store. Work waits in a queue, which is processed at the [`Pace`] that a test
//! chooses. A snapshot's claim is looked up by name when its turn comes. Delays count from the write that
//! they follow, or from that turn. Each has its own timer, so a thousand concurrent snapshots are as exact as
//! one. A snapshot that was put into the store with a status is processed only when it is deleted.

use crate::announce::{Announcement, announce};
use crate::cluster::Cluster;
use crate::groups;
use crate::object::{self, BOUND_PROTECTION, CLAIM_SOURCE_PROTECTION, SOURCE_PROTECTION};
use crate::registry::{SNAPSHOT_GROUP, known};
use crate::store::{Change, Key, Kind, Writer};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};

pub(crate) const SNAPSHOTS: &str = "volumesnapshots";
pub(crate) const CLAIMS: &str = "persistentvolumeclaims";
const CLASSES: &str = "volumesnapshotclasses";
pub(crate) const CONTENTS: &str = "volumesnapshotcontents";

/// Default speed of the snapshot controller.
#[derive(Debug, Clone)]
pub struct Controller {
    /// Time from the creation of a snapshot, a group snapshot or a member until it is ready. Default: 20 ms.
    pub ready_after: Duration,
    /// Time from the deletion of a snapshot or a group snapshot until it is gone. Default: 5 ms.
    pub deletion_delay: Duration,
    /// Whether to write Events like the real controller. Default: no, because tests count Events.
    pub events: bool,
}

impl Default for Controller {
    fn default() -> Controller {
        Controller {
            ready_after: Duration::from_millis(20),
            deletion_delay: Duration::from_millis(5),
            events: false,
        }
    }
}

/// What happens to one snapshot or group snapshot. The default is never ready, without an error.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Time from the snapshot's creation until it is ready; `None` means never. If an error of the cluster
    /// (such as a missing class) or the controller's [`Pace`] delayed it, the time counts from the end of the
    /// delay.
    pub ready_after: Option<Duration>,
    /// Time from the snapshot's creation until the data is taken and `status.creationTime` says so; at the latest when
    /// it is ready. `None` means that the data is taken as soon as the controller starts the snapshot, if it is to
    /// become ready at all, and that `status.creationTime` is set when it is ready.
    pub taken_after: Option<Duration>,
    /// Values of `status.error.message`, each set at a time after the creation. An empty text clears the
    /// error.
    pub errors: Vec<(Duration, String)>,
    /// `status.creationTime`, instead of the time at which the controller started the snapshot.
    pub creation_time: Option<String>,
    /// Whether an error stays set when the snapshot becomes ready.
    pub keep_error: bool,
    /// Whether the snapshot stays terminating when it is deleted.
    pub on_delete_keep: bool,
}

impl Plan {
    /// Returns a plan that is ready after a delay from the creation.
    pub fn ready_after(delay: Duration) -> Plan {
        Plan { ready_after: Some(delay), ..Plan::default() }
    }

    pub fn never() -> Plan {
        Plan::default()
    }

    /// Returns a plan that is never ready, with this error from the start.
    pub fn fails(message: &str) -> Plan {
        Plan::default().with_error(Duration::ZERO, message)
    }

    /// Takes the data at a time after the creation, and says so, long before the snapshot is ready.
    #[must_use]
    pub fn taken_after(mut self, delay: Duration) -> Plan {
        self.taken_after = Some(delay);
        self
    }

    /// Adds an error at a time after the creation. An empty text clears it.
    #[must_use]
    pub fn with_error(mut self, at: Duration, message: &str) -> Plan {
        self.errors.push((at, message.to_owned()));
        self
    }

    /// Sets the time at which the data was taken, by the storage's clock, in RFC 3339.
    #[must_use]
    pub fn with_creation_time(mut self, time: impl ToString) -> Plan {
        self.creation_time = Some(time.to_string());
        self
    }

    /// Keeps the error set when the snapshot is ready.
    #[must_use]
    pub fn keeping_error(mut self) -> Plan {
        self.keep_error = true;
        self
    }

    /// Keeps the snapshot terminating when it is deleted.
    #[must_use]
    pub fn kept_on_delete(mut self) -> Plan {
        self.on_delete_keep = true;
        self
    }
}

/// Identifies a snapshot or a group snapshot by name and uid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Id {
    /// Which of the two it is.
    pub(crate) plural: &'static str,
    pub(crate) key: Key,
    pub(crate) uid: String,
}

impl Id {
    fn of(change: &Change) -> Id {
        Id::new(change.resource.plural, &change.object.value)
    }

    pub(crate) fn new(plural: &'static str, object: &Value) -> Id {
        let key = (object::namespace(object).to_owned(), object::name(object).to_owned());
        Id { plural, key, uid: object::uid(object).to_owned() }
    }

    pub(crate) fn get(&self, writer: &Writer<'_>) -> Option<Value> {
        let object = writer.get(self.plural, &self.key)?;
        (object::uid(&object.value) == self.uid).then(|| object.value.clone())
    }

    fn exists(&self, cluster: &Cluster) -> bool {
        cluster.store.get(self.plural, &self.key).is_some_and(|object| object::uid(&object.value) == self.uid)
    }

    pub(crate) fn modify(&self, writer: &mut Writer<'_>, f: impl FnOnce(&mut Value)) -> Option<Value> {
        self.get(writer)?;
        Some(writer.modify(known(self.plural), &self.key, f)?.value.clone())
    }
}

/// The key of a snapshot's content: the one that it is bound to, or is going to be.
fn content_of(snapshot: &Value) -> Key {
    let bound = object::text(snapshot, "/status/boundVolumeSnapshotContentName");
    let name =
        if bound.is_empty() { format!("snapcontent-{}", object::uid(snapshot)) } else { bound.to_owned() };
    (String::new(), name)
}

/// How fast the snapshot controller processes its queue: new snapshots and group snapshots, those whose class
/// or claim has appeared, and deleted ones. The members of a group do not wait in it before they are deleted.
/// The pace does not affect what the storage has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As soon as they are there.
    AtOnce,
    /// The first at once, then this many per second at equal intervals; none if it is 0.
    PerSecond(u32),
    /// Only when a test calls [`FakeApiServer::controller_takes`](crate::FakeApiServer::controller_takes) or
    /// sets another pace.
    Stopped,
}

/// The current pace of the queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    pub(crate) pace: Pace,
    /// Number of snapshots and group snapshots to process regardless of the pace.
    pub(crate) granted: usize,
}

impl Default for Orders {
    fn default() -> Orders {
        Orders { pace: Pace::AtOnce, granted: 0 }
    }
}

/// The source of a snapshot's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotData {
    /// The uid of the claim.
    pub claim: String,
    /// The name of the claim's volume.
    pub volume: String,
}

/// The progress of a snapshot or a group snapshot.
pub(crate) enum Step {
    /// Bound to a content; the storage is working.
    Begun,
    /// Something is missing that may appear later.
    Stuck,
    /// Nothing more is to be done.
    Over,
}

struct Turn {
    id: Id,
    /// Start of the delays. `None` if it had to wait; then they start when its turn comes.
    since: Option<Instant>,
}

struct Worker {
    cluster: Arc<Cluster>,
    plans: HashMap<String, Plan>,
    /// Not started yet, with the claim's name, so that a change of one claim need not check all snapshots. Of a group
    /// it is empty.
    new: HashMap<Id, String>,
    /// Deleted, but claims are being created from them, or they are members of groups that are there.
    held: HashSet<Id>,
    /// Uids of groups that are gone.
    gone: HashSet<String>,
    queue: VecDeque<Turn>,
    /// When the last one was taken from the queue.
    taken: Option<Instant>,
}

/// Runs until the store is gone.
pub(crate) async fn run(cluster: Arc<Cluster>, mut changes: UnboundedReceiver<Arc<Change>>) {
    let mut orders = cluster.orders.subscribe();
    let mut worker = Worker {
        cluster,
        plans: HashMap::new(),
        new: HashMap::new(),
        held: HashSet::new(),
        gone: HashSet::new(),
        queue: VecDeque::new(),
        taken: None,
    };
    loop {
        let now = *orders.borrow_and_update();
        let due = worker.due(now);
        tokio::select! {
            biased;
            // Changes first, so that the queue is processed with up-to-date state.
            change = changes.recv() => match change {
                Some(change) => worker.see(&change),
                None => return,
            },
            changed = orders.changed() => if changed.is_err() { return },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => worker.take(),
        }
    }
}

impl Worker {
    /// Returns when to process the next one; `None` if it depends on a change.
    fn due(&mut self, orders: Orders) -> Option<Instant> {
        // Deleted snapshots do not take a turn.
        while self.queue.front().is_some_and(|turn| !turn.id.exists(&self.cluster)) {
            self.queue.pop_front();
        }
        self.queue.front()?;
        let now = Instant::now();
        match orders.pace {
            _ if orders.granted > 0 => Some(now),
            Pace::AtOnce => Some(now),
            Pace::PerSecond(0) | Pace::Stopped => None,
            Pace::PerSecond(number) => {
                Some(self.taken.map_or(now, |taken| taken + Duration::from_secs(1) / number))
            }
        }
    }

    /// Processes the next one, if its turn has come.
    fn take(&mut self) {
        let orders = *self.cluster.orders.borrow();
        if self.due(orders).is_none_or(|due| due > Instant::now()) {
            return;
        }
        let Some(Turn { id, since }) = self.queue.pop_front() else { return };
        self.taken = Some(Instant::now());
        self.cluster.orders.send_modify(|orders| orders.granted = orders.granted.saturating_sub(1));
        self.look_after(id, since.unwrap_or_else(Instant::now));
    }

    fn put_in_queue(&mut self, id: Id, at: Instant, at_once: bool) {
        if !self.queue.iter().any(|turn| turn.id == id) {
            self.queue.push_back(Turn { id, since: at_once.then_some(at) });
        }
    }

    /// Queues the snapshots that a change affects.
    fn see(&mut self, change: &Change) {
        let at_once = self.cluster.orders.borrow().pace == Pace::AtOnce;
        match (change.resource.plural, change.kind) {
            // Those of a group are looked after from the moment when they are made.
            (SNAPSHOTS, Kind::Added) if groups::is_member(&change.object.value) => {}
            (SNAPSHOTS, Kind::Added) => {
                let snapshot = &change.object.value;
                let claim = object::text(snapshot, "/spec/source/persistentVolumeClaimName").to_owned();
                if !claim.is_empty() && snapshot.get("status").is_none() && !object::is_deleting(snapshot) {
                    let id = Id::of(change);
                    self.plans.insert(id.uid.clone(), self.cluster.plan(snapshot));
                    self.new.insert(id.clone(), claim);
                    self.put_in_queue(id, change.at, at_once);
                }
            }
            (groups::GROUPS, Kind::Added) => {
                let group = &change.object.value;
                if groups::is_new(group) {
                    let id = Id::of(change);
                    self.plans.insert(id.uid.clone(), self.cluster.plan_group(group));
                    self.new.insert(id.clone(), String::new());
                    self.put_in_queue(id, change.at, at_once);
                }
            }
            (SNAPSHOTS | groups::GROUPS, Kind::Modified) => {
                let was = change.before.as_ref().is_some_and(|before| object::is_deleting(&before.value));
                if !was && object::is_deleting(&change.object.value) {
                    let id = Id::of(change);
                    self.new.remove(&id);
                    self.put_in_queue(id, change.at, at_once);
                }
            }
            (SNAPSHOTS, Kind::Deleted) => {
                let id = Id::of(change);
                self.plans.remove(&id.uid);
                self.new.remove(&id);
                self.held.remove(&id);
                // The content is removed with the snapshot, however that was removed.
                self.cluster.store.write(|writer| {
                    writer.remove(known(CONTENTS), &content_of(&change.object.value));
                    release_claim(&self.cluster, writer, &change.object.value);
                });
            }
            (groups::GROUPS, Kind::Deleted) => {
                let id = Id::of(change);
                self.plans.remove(&id.uid);
                self.new.remove(&id);
                self.held.remove(&id);
                let members = groups::disband(&self.cluster, &change.object.value);
                self.gone.insert(id.uid);
                for member in members {
                    self.put_in_queue(member, change.at, at_once);
                }
            }
            (CLASSES | groups::CLASSES | CLAIMS, _) => {
                let of_class = change.resource.plural != CLAIMS;
                let (namespace, name) = &change.key;
                let new = self.new.iter().filter(|(id, claim)| {
                    let is_group = id.plural == groups::GROUPS;
                    of_class || (id.key.0 == *namespace && (is_group || *claim == name))
                });
                // Snapshots waiting for their first turn are already queued.
                let again: Vec<Id> = new.map(|(id, _)| id.clone()).collect();
                let is_source = |id: &&Id| {
                    let states = [Some(&change.object), change.before.as_ref()];
                    states.into_iter().flatten().any(|claim| {
                        let source = object::text(&claim.value, "/spec/dataSource/name");
                        // Of a group it may be a member.
                        let is_it = id.plural == groups::GROUPS || source == id.key.1;
                        id.key.0 == *namespace && is_it && !source.is_empty()
                    })
                };
                let free: Vec<Id> = self.held.iter().filter(is_source).cloned().collect();
                for id in again.into_iter().chain(free) {
                    self.put_in_queue(id, change.at, at_once);
                }
            }
            _ => {}
        }
    }

    fn look_after(&mut self, id: Id, since: Instant) {
        let cluster = &self.cluster;
        let Some(found) = cluster.store.get(id.plural, &id.key) else { return };
        let is_group = id.plural == groups::GROUPS;
        if object::is_deleting(&found.value) {
            let planned =
                || if is_group { cluster.plan_group(&found.value) } else { cluster.plan(&found.value) };
            let keep = self.plans.entry(id.uid.clone()).or_insert_with(planned).on_delete_keep;
            let released = keep
                || match is_group {
                    true => groups::release(cluster, &id, since),
                    false => release(cluster, &id, since, &self.gone),
                };
            if released {
                self.held.remove(&id);
            } else {
                self.held.insert(id);
            }
        } else if self.new.contains_key(&id) {
            let plan = self.plans.get(&id.uid).cloned().unwrap_or_default();
            let step = match is_group {
                true => groups::begin(cluster, &id, plan, since),
                false => {
                    let step = begin(cluster, &id);
                    if matches!(step, Step::Begun) {
                        follow(cluster, id.clone(), plan, since);
                    }
                    step
                }
            };
            if !matches!(step, Step::Stuck) {
                self.new.remove(&id);
            }
        }
    }
}

/// Binds a snapshot to a content so that the storage can start, or writes the error that prevents it.
fn begin(cluster: &Cluster, id: &Id) -> Step {
    cluster.store.write(|writer| {
        let Some(mut snapshot) = id.get(writer) else { return Step::Over };
        if object::is_deleting(&snapshot) {
            return Step::Over;
        }
        let class = match class_of(writer, &snapshot) {
            Ok(class) => class,
            Err((reason, message)) => {
                set_error(writer, id, &message, false);
                tell(cluster, writer, id, "Warning", reason, &message);
                return Step::Stuck;
            }
        };
        let class_name = object::name(&class).to_owned();
        if object::text(&snapshot, "/spec/volumeSnapshotClassName").is_empty() {
            id.modify(writer, |snapshot| {
                object::section(snapshot, "spec")
                    .insert("volumeSnapshotClassName".into(), class_name.clone().into());
                let generation = snapshot["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                object::metadata(snapshot).insert("generation".into(), generation.into());
            });
        }
        id.modify(writer, |snapshot| object::add_finalizer(snapshot, SOURCE_PROTECTION));
        let claim = match bound_claim(writer, &snapshot) {
            Ok(claim) => claim,
            Err(hindrance) => {
                let message = format!(
                    "Failed to create snapshot content with error {}",
                    hindrance.of_content(&id.key.1)
                );
                set_error(writer, id, &message, true);
                tell(cluster, writer, id, "Warning", "SnapshotContentCreationFailed", &message);
                return Step::Stuck;
            }
        };
        let driver = driver_of(writer, &claim);
        protect_claim(cluster, writer, &snapshot);
        let (content_namespace, content_name) = content_of(&snapshot);
        if writer.get(CONTENTS, &(content_namespace, content_name.clone())).is_none() {
            let handle = volume_handle(writer, &claim);
            writer.put(known(CONTENTS), content(id, &snapshot, &class, &claim, &handle));
            cluster.set_data(&id.uid, data_of(&claim));
        }
        id.modify(writer, |snapshot| {
            let status = object::section(snapshot, "status");
            status.insert("boundVolumeSnapshotContentName".into(), content_name.into());
            status.insert("readyToUse".into(), false.into());
        });
        let bound = id.modify(writer, |snapshot| object::add_finalizer(snapshot, BOUND_PROTECTION));
        snapshot = bound.unwrap_or(snapshot);
        let message = format!(
            "Waiting for a snapshot {}/{} to be created by the CSI driver.",
            object::namespace(&snapshot),
            object::name(&snapshot)
        );
        tell(cluster, writer, id, "Normal", "CreatingSnapshot", &message);
        // No sidecar of another driver handles the content: nothing happens, and there is no error.
        if driver.is_some_and(|driver| driver != object::text(&class, "/driver")) {
            return Step::Over;
        }
        Step::Begun
    })
}

/// Why a claim cannot be snapshotted yet.
enum Hindrance {
    Missing(String),
    Unbound(String),
}

impl Hindrance {
    /// The message when creating the content.
    fn of_content(&self, snapshot: &str) -> String {
        match self {
            Hindrance::Missing(_) => format!(
                "snapshot controller failed to update {snapshot} on API server: cannot get claim from snapshot"
            ),
            Hindrance::Unbound(_) => {
                format!(
                    "failed to get input parameters to create snapshot {snapshot}: \"{}\"",
                    self.of_class()
                )
            }
        }
    }

    /// The message when looking for the default class.
    fn of_class(&self) -> String {
        match self {
            Hindrance::Missing(claim) => format!(
                "failed to retrieve PVC {claim} from the lister: \"persistentvolumeclaim \\\"{claim}\\\" not found\""
            ),
            Hindrance::Unbound(claim) => {
                format!("the PVC {claim} is not yet bound to a PV, will not attempt to take a snapshot")
            }
        }
    }
}

fn bound_claim(writer: &Writer<'_>, snapshot: &Value) -> Result<Value, Hindrance> {
    let name = object::text(snapshot, "/spec/source/persistentVolumeClaimName").to_owned();
    let key = (object::namespace(snapshot).to_owned(), name.clone());
    let Some(claim) = writer.get(CLAIMS, &key) else {
        return Err(Hindrance::Missing(name));
    };
    if object::text(&claim.value, "/status/phase") != "Bound" {
        return Err(Hindrance::Unbound(name));
    }
    Ok(claim.value.clone())
}

/// Returns the driver of a claim's volume, if it is known.
pub(crate) fn driver_of(writer: &Writer<'_>, claim: &Value) -> Option<String> {
    let cluster_wide = |plural, name: &str| writer.get(plural, &(String::new(), name.to_owned()));
    let volume = cluster_wide("persistentvolumes", object::text(claim, "/spec/volumeName"));
    let of_volume = volume.map(|volume| object::text(&volume.value, "/spec/csi/driver").to_owned());
    let of_claim =
        || object::annotation(claim, "volume.kubernetes.io/storage-provisioner").map(str::to_owned);
    let of_class = || {
        let class = cluster_wide("storageclasses", object::text(claim, "/spec/storageClassName"))?;
        Some(object::text(&class.value, "/provisioner").to_owned())
    };
    of_volume.or_else(of_claim).or_else(of_class).filter(|driver| !driver.is_empty())
}

/// Returns the class that a snapshot names, or the default one of its claim's driver; or the reason and the
/// message of the error.
fn class_of(writer: &Writer<'_>, snapshot: &Value) -> Result<Value, (&'static str, String)> {
    let name = object::text(snapshot, "/spec/volumeSnapshotClassName");
    if !name.is_empty() {
        let class = writer.get(CLASSES, &(String::new(), name.to_owned()));
        return class.map(|class| class.value.clone()).ok_or_else(|| {
            let message = format!(
                "Failed to get snapshot class with error volumesnapshotclass.{SNAPSHOT_GROUP} \"{name}\" not found"
            );
            ("GetSnapshotClassFailed", message)
        });
    }
    let failed = |why: String| {
        ("SetDefaultSnapshotClassFailed", format!("Failed to set default snapshot class with error {why}"))
    };
    let claim = bound_claim(writer, snapshot).map_err(|hindrance| failed(hindrance.of_class()))?;
    let driver = driver_of(writer, &claim);
    let is_default = |class: &Value| {
        object::annotation(class, "snapshot.storage.kubernetes.io/is-default-class") == Some("true")
            && driver.as_ref().is_none_or(|driver| object::text(class, "/driver") == driver)
    };
    let defaults: Vec<&Value> =
        writer.list(CLASSES).map(|class| &class.value).filter(|class| is_default(class)).collect();
    match defaults.as_slice() {
        [] => Err(failed("cannot find default snapshot class".to_owned())),
        [class] => Ok((*class).clone()),
        many => Err(failed(format!("{} default snapshot classes were found", many.len()))),
    }
}

/// Returns the data that a snapshot of a claim has if it is taken now.
pub(crate) fn data_of(claim: &Value) -> SnapshotData {
    SnapshotData {
        claim: object::uid(claim).to_owned(),
        volume: object::text(claim, "/spec/volumeName").to_owned(),
    }
}

/// Returns the storage's name of a claim's volume. A claim that was put in as Bound may not have one.
pub(crate) fn volume_handle(writer: &Writer<'_>, claim: &Value) -> String {
    let name = object::text(claim, "/spec/volumeName");
    let volume = writer.get("persistentvolumes", &(String::new(), name.to_owned()));
    let handle = volume.map(|volume| object::text(&volume.value, "/spec/csi/volumeHandle").to_owned());
    handle.filter(|handle| !handle.is_empty()).unwrap_or_else(|| name.to_owned())
}

/// Adds the finalizer that protects a claim while it is being snapshotted.
fn protect_claim(cluster: &Cluster, writer: &mut Writer<'_>, snapshot: &Value) {
    let key = claim_of(snapshot);
    cluster.sources().entry(key.clone()).or_default().insert(object::uid(snapshot).to_owned());
    writer.modify(known(CLAIMS), &key, |claim| object::add_finalizer(claim, CLAIM_SOURCE_PROTECTION));
}

/// Removes the finalizer from a snapshot's claim, unless another snapshot of it is still in progress.
fn release_claim(cluster: &Cluster, writer: &mut Writer<'_>, snapshot: &Value) {
    let key = claim_of(snapshot);
    let mut sources = cluster.sources();
    let Some(being_made) = sources.get_mut(&key) else { return };
    being_made.remove(object::uid(snapshot));
    if being_made.is_empty() {
        sources.remove(&key);
        writer.modify(known(CLAIMS), &key, |claim| object::remove_finalizer(claim, CLAIM_SOURCE_PROTECTION));
    }
}

/// Returns the key of a snapshot's claim.
fn claim_of(snapshot: &Value) -> Key {
    let name = object::text(snapshot, "/spec/source/persistentVolumeClaimName");
    (object::namespace(snapshot).to_owned(), name.to_owned())
}

fn content(id: &Id, snapshot: &Value, class: &Value, claim: &Value, volume_handle: &str) -> Value {
    json!({
        "apiVersion": format!("{SNAPSHOT_GROUP}/v1"),
        "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": content_of(snapshot).1,
            "uid": object::new_uid(),
            "generation": 1,
            "creationTimestamp": object::now(),
            "finalizers": ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"],
        },
        "spec": {
            "deletionPolicy": match object::text(class, "/deletionPolicy") {
                "" => "Delete",
                policy => policy,
            },
            "driver": object::text(class, "/driver"),
            "source": {"volumeHandle": volume_handle},
            "sourceVolumeMode": object::volume_mode(claim),
            "volumeSnapshotClassName": object::name(class),
            "volumeSnapshotRef": {
                "apiVersion": format!("{SNAPSHOT_GROUP}/v1"),
                "kind": "VolumeSnapshot",
                "name": object::name(snapshot),
                "namespace": object::namespace(snapshot),
                "resourceVersion": object::resource_version(snapshot),
                "uid": id.uid,
            },
        },
    })
}

/// Sets an error, unless it is already set: the controller retries, but reports it once.
pub(crate) fn set_error(writer: &mut Writer<'_>, id: &Id, message: &str, with_ready: bool) {
    id.modify(writer, |object| {
        if object::text(object, "/status/error/message") == message {
            return;
        }
        let status = object::section(object, "status");
        status.insert("error".into(), json!({"message": message, "time": object::now()}));
        if with_ready {
            status.insert("readyToUse".into(), false.into());
        }
    });
}

/// A step of a plan.
pub(crate) enum Happening {
    Error(String),
    /// The data is taken, and the status says so.
    Taken,
    Ready,
}

impl Plan {
    /// The steps in order, with their times after the creation.
    pub(crate) fn steps(&self) -> Vec<(Duration, Happening)> {
        let mut steps: Vec<(Duration, Happening)> =
            self.errors.iter().map(|(at, message)| (*at, Happening::Error(message.clone()))).collect();
        if let Some(at) = self.taken_after {
            let latest = self.ready_after.unwrap_or(at);
            steps.push((at.min(latest), Happening::Taken));
        }
        if let Some(at) = self.ready_after {
            steps.push((at, Happening::Ready));
        }
        // Stable: what is ready was taken before.
        steps.sort_by_key(|(at, _)| *at);
        steps
    }

    /// Whether the data is taken as soon as the snapshot is started.
    pub(crate) fn is_taken_at_once(&self) -> bool {
        self.taken_after.is_none() && self.ready_after.is_some()
    }

    /// `status.creationTime` of what the storage took at a time.
    pub(crate) fn time(&self, taken: Timestamp) -> String {
        self.creation_time.clone().unwrap_or_else(|| object::time(taken))
    }
}

/// Executes a snapshot's plan, each step at its time.
pub(crate) fn follow(cluster: &Arc<Cluster>, id: Id, plan: Plan, since: Instant) {
    let mut taken = Timestamp::now();
    if plan.is_taken_at_once()
        && let Some(snapshot) = cluster.store.get(SNAPSHOTS, &id.key)
    {
        take(cluster, &snapshot.value);
    }
    let steps = plan.steps();
    if steps.is_empty() {
        return;
    }
    let cluster = cluster.clone();
    tokio::spawn(async move {
        for (after, happening) in steps {
            // A delay too long to be counted is never over.
            let Some(at) = since.checked_add(after) else { return };
            sleep_until(at).await;
            let exists = cluster.store.write(|writer| {
                match &happening {
                    Happening::Error(message) if message.is_empty() => id.modify(writer, |snapshot| {
                        object::section(snapshot, "status").remove("error");
                    }),
                    Happening::Error(message) => {
                        set_error(writer, &id, message, false);
                        id.get(writer)
                    }
                    Happening::Taken => {
                        taken = Timestamp::now();
                        say_taken(&cluster, writer, &id, &plan, taken)
                    }
                    Happening::Ready => make_ready(&cluster, writer, &id, &plan, taken),
                }
                .is_some()
            });
            if !exists {
                return;
            }
        }
    });
}

/// Copies the data of a snapshot, unless that was done before.
fn take(cluster: &Cluster, snapshot: &Value) {
    if let Some(data) = cluster.data(snapshot) {
        cluster.contents.take(object::uid(snapshot), &data.volume);
    }
}

/// A time as a content has it.
pub(crate) fn nanoseconds(time: &str) -> i64 {
    time.parse::<Timestamp>().map_or(0, |time| time.as_second().saturating_mul(1_000_000_000))
}

/// Takes the data of a snapshot, and says so.
fn say_taken(
    cluster: &Cluster,
    writer: &mut Writer<'_>,
    id: &Id,
    plan: &Plan,
    taken: Timestamp,
) -> Option<Value> {
    take(cluster, &id.get(writer)?);
    let time = plan.time(taken);
    writer.modify(known(CONTENTS), &content_of(&id.get(writer)?), |content| {
        let status = object::section(content, "status");
        status.insert("creationTime".into(), nanoseconds(&time).into());
        status.insert("readyToUse".into(), false.into());
    });
    let taken = id.modify(writer, |snapshot| {
        object::section(snapshot, "status").insert("creationTime".into(), time.into());
    });
    tell_created(cluster, writer, id);
    taken
}

fn tell_created(cluster: &Cluster, writer: &mut Writer<'_>, id: &Id) {
    let message = format!("Snapshot {}/{} was successfully created by the CSI driver.", id.key.0, id.key.1);
    tell(cluster, writer, id, "Normal", "SnapshotCreated", &message);
}

fn make_ready(
    cluster: &Cluster,
    writer: &mut Writer<'_>,
    id: &Id,
    plan: &Plan,
    taken: Timestamp,
) -> Option<Value> {
    let snapshot = id.get(writer)?;
    let said = object::text(&snapshot, "/status/creationTime").to_owned();
    let time = if said.is_empty() { plan.time(taken) } else { said.clone() };
    let group = groups::owner(&snapshot).map(|(name, _)| name.to_owned());
    let claim = object::text(&snapshot, "/spec/source/persistentVolumeClaimName").to_owned();
    let claim = writer.get(CLAIMS, &(id.key.0.clone(), claim));
    let size = claim.and_then(|claim| {
        let found = claim.value.pointer("/status/capacity/storage");
        found.or_else(|| claim.value.pointer("/spec/resources/requests/storage")).cloned()
    });
    writer.modify(known(CONTENTS), &content_of(&snapshot), |content| {
        let bytes = size.as_ref().and_then(Value::as_str).and_then(object::bytes).unwrap_or(0);
        let status = object::section(content, "status");
        status.insert("creationTime".into(), nanoseconds(&time).into());
        status.insert("readyToUse".into(), true.into());
        status.insert("restoreSize".into(), bytes.into());
        // That of a member is known from the beginning.
        status.entry("snapshotHandle").or_insert_with(|| object::new_uid().into());
    });
    let ready = id.modify(writer, |snapshot| {
        let status = object::section(snapshot, "status");
        status.insert("creationTime".into(), time.into());
        status.insert("readyToUse".into(), true.into());
        if let Some(size) = size {
            status.insert("restoreSize".into(), size);
        }
        if let Some(group) = group {
            status.insert("volumeGroupSnapshotName".into(), group.into());
        }
        if !plan.keep_error {
            status.remove("error");
        }
    });
    release_claim(cluster, writer, &snapshot);
    if said.is_empty() {
        tell_created(cluster, writer, id);
    }
    let message = format!("Snapshot {}/{} is ready to use.", id.key.0, id.key.1);
    tell(cluster, writer, id, "Normal", "SnapshotReady", &message);
    ready
}

/// Whether a claim is being created from a snapshot.
pub(crate) fn is_in_use(writer: &Writer<'_>, (namespace, name): &Key) -> bool {
    let uses = |claim: &Value| {
        object::text(claim, "/status/phase") == "Pending"
            && object::text(claim, "/spec/dataSource/kind") == "VolumeSnapshot"
            && object::text(claim, "/spec/dataSource/name") == name
    };
    writer.list_in(CLAIMS, namespace).any(|claim| uses(&claim.value))
}

/// Removes the finalizers of a deleted snapshot: one at once, the other after the delay. Returns `false` if
/// claims still use it, or its group is there; `gone` are groups that are not.
fn release(cluster: &Arc<Cluster>, id: &Id, since: Instant, gone: &HashSet<String>) -> bool {
    let free = cluster.store.write(|writer| {
        let Some(snapshot) = id.get(writer) else { return true };
        if is_in_use(writer, &id.key) {
            return false;
        }
        let named = object::text(&snapshot, "/status/volumeGroupSnapshotName").to_owned();
        let group = (id.key.0.clone(), named.clone());
        let is_in_group = !named.is_empty() && writer.get(groups::GROUPS, &group).is_some();
        if is_in_group {
            return false;
        }
        id.modify(writer, |snapshot| object::remove_finalizer(snapshot, SOURCE_PROTECTION));
        let Some((_, owner)) = groups::owner(&snapshot) else { return true };
        // One whose status does not tell of its group is known by its owner alone.
        let is_alone = !named.is_empty() || gone.contains(owner);
        if is_alone {
            id.modify(writer, |snapshot| object::remove_finalizer(snapshot, groups::IN_GROUP_PROTECTION));
        }
        is_alone
    });
    if free {
        let (cluster, id) = (cluster.clone(), id.clone());
        tokio::spawn(async move {
            let Some(at) = since.checked_add(cluster.options.controller.deletion_delay) else { return };
            sleep_until(at).await;
            cluster.store.write(|writer| {
                id.modify(writer, |snapshot| object::remove_finalizer(snapshot, BOUND_PROTECTION));
            });
        });
    }
    free
}

/// Writes an Event about a snapshot or a group snapshot, if Events are enabled.
pub(crate) fn tell(
    cluster: &Cluster,
    writer: &mut Writer<'_>,
    id: &Id,
    kind: &str,
    reason: &str,
    message: &str,
) {
    if !cluster.options.controller.events {
        return;
    }
    let Some(object) = id.get(writer) else { return };
    let resource = known(id.plural);
    let said = Announcement {
        about: (&resource.api_version(), resource.kind),
        object: &object,
        component: "snapshot-controller",
        kind,
        reason,
        message,
    };
    announce(writer, &said);
}
