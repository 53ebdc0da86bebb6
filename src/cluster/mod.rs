//! The cluster: every request that this program makes is made here, and only here is one repeated.
//!
//! [`Cluster`] offers what a run needs in a run's own words, what a restore needs beside that in `claims`, and
//! what people are told with in `events`, and what a drill needs in `jobs`. How a request is sent, bounded and repeated is in `request` and
//! `backoff`, how a list is read page by page in `pages`; where the API server is and who we are to it in
//! `connect`; how a command is run in a container in `exec`; what is asked of group snapshots in `groups`; what a new
//! snapshot is to be in `new`; what can go wrong in [`Error`].

mod backoff;
mod claims;
mod connect;
mod credentials;
mod error;
mod events;
mod exec;
mod groups;
mod jobs;
mod new;
mod operation;
mod pages;
mod request;

use std::collections::BTreeMap;

use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::{
    api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams},
    core::{Request as ApiRequest, request::Error as BuildError},
};
use serde::de::DeserializeOwned;
use serde_json::json;

pub use backoff::Backoff;
pub use connect::{Access, INTERACTIVE_RETRY_BUDGET, RETRY_BUDGET, connect};
pub(crate) use error::with_causes;
pub use error::{Error, ErrorKind};
pub use exec::{OpenCommand, PodCommand};
pub use jobs::{NewJob, Notes, VERIFY_CLAIM_PERMISSIONS, VERIFY_CLASS_PERMISSIONS, VERIFY_PERMISSIONS};
pub use new::{NewSnapshot, Source, Stored};
pub use request::{DENIED_FOR, Slot};

use crate::{
    api::{
        ChangedMetadata, Claim, GROUP_SNAPSHOT_API, GROUP_SNAPSHOT_GROUP, MetadataPatch, Namespace, Pod,
        SNAPSHOT_API, SNAPSHOT_GROUP, Volume, VolumeSnapshot,
    },
    names,
    retention::VolumeAnnotations,
    snapshot::{ClaimId, Record, Snapshot},
    text,
};
use operation::Operation;
use pages::Pages;
use request::{Build, Built, Requests, decode, not_understood};

/// One thing that the Role has to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Resource, in the plural as the Role has it.
    pub resource: &'static str,
    /// Verb.
    pub verb: &'static str,
}

const CLAIMS: &str = "persistentvolumeclaims";
const SNAPSHOTS: &str = "volumesnapshots";
const NAMESPACES: &str = "namespaces";
const EVENTS: &str = "events";
const CLASSES: &str = "storageclasses";
const VOLUMES: &str = "persistentvolumes";
const CRON_JOBS: &str = "cronjobs";
const JOBS: &str = "jobs";
const CONFIG_MAPS: &str = "configmaps";
const PODS: &str = "pods";
const EXEC: &str = "pods/exec";
const GROUPS: &str = "volumegroupsnapshots";
const BATCH_GROUP: &str = "batch";
const STORAGE_GROUP: &str = "storage.k8s.io";
const EVENT_GROUP: &str = "events.k8s.io";

const fn on_claims(verb: &'static str) -> Permission {
    Permission { group: "", resource: CLAIMS, verb }
}

const fn on_snapshots(verb: &'static str) -> Permission {
    Permission { group: SNAPSHOT_GROUP, resource: SNAPSHOTS, verb }
}

const fn on_groups(verb: &'static str) -> Permission {
    Permission { group: GROUP_SNAPSHOT_GROUP, resource: GROUPS, verb }
}

const GET_CLAIM: Permission = on_claims("get");
const LIST_CLAIMS: Permission = on_claims("list");
const CREATE_CLAIM: Permission = on_claims("create");
const CREATE: Permission = on_snapshots("create");
const GET: Permission = on_snapshots("get");
const LIST: Permission = on_snapshots("list");
const WATCH: Permission = on_snapshots("watch");
const DELETE: Permission = on_snapshots("delete");
const PATCH: Permission = on_snapshots("patch");
const CREATE_GROUP: Permission = on_groups("create");
const GET_GROUP: Permission = on_groups("get");
const LIST_GROUPS: Permission = on_groups("list");
const WATCH_GROUPS: Permission = on_groups("watch");
const DELETE_GROUP: Permission = on_groups("delete");
const PATCH_GROUP: Permission = on_groups("patch");
const LIST_NAMESPACES: Permission = Permission { group: "", resource: NAMESPACES, verb: "list" };
const CREATE_EVENT: Permission = Permission { group: EVENT_GROUP, resource: EVENTS, verb: "create" };
const LIST_EVENTS: Permission = Permission { group: "", resource: EVENTS, verb: "list" };
const GET_CLASS: Permission = Permission { group: STORAGE_GROUP, resource: CLASSES, verb: "get" };
const LIST_CLASSES: Permission = Permission { group: STORAGE_GROUP, resource: CLASSES, verb: "list" };
const LIST_CRON_JOBS: Permission = Permission { group: BATCH_GROUP, resource: CRON_JOBS, verb: "list" };
const GET_CONFIG_MAP: Permission = Permission { group: "", resource: CONFIG_MAPS, verb: "get" };
const LIST_PODS: Permission = Permission { group: "", resource: PODS, verb: "list" };
const GET_EXEC: Permission = Permission { group: "", resource: EXEC, verb: "get" };
const CREATE_EXEC: Permission = Permission { group: "", resource: EXEC, verb: "create" };
const GET_VOLUME: Permission = Permission { group: "", resource: VOLUMES, verb: "get" };
const LIST_VOLUMES: Permission = Permission { group: "", resource: VOLUMES, verb: "list" };

/// Every right that a run needs. No request can be made without naming one of these or of the lists
/// below, and a test holds the Role of the manifests to this list and the next but one. `list` uses two of them.
pub const PERMISSIONS: &[Permission] = &[GET_CLAIM, LIST_CLAIMS, CREATE, GET, LIST, WATCH, DELETE];

/// What a run needs besides, and in all namespaces, if it chooses namespaces by a selector.
pub const NAMESPACE_PERMISSIONS: &[Permission] = &[LIST_NAMESPACES];

/// What a run uses besides, where it may and where Events are not switched off: it says on a claim that its
/// snapshot failed. The Role of the manifests has it.
pub const EVENT_PERMISSIONS: &[Permission] = &[CREATE_EVENT];

/// What a run needs besides if it runs hooks. To run a command over a WebSocket takes both verbs.
pub const HOOK_PERMISSIONS: &[Permission] = &[LIST_PODS, GET_EXEC, CREATE_EXEC, PATCH];

/// What a run needs besides if it takes groups of claims (`SNAPSHOT_GROUP_LABEL`). The last is used with hooks only.
pub const GROUP_PERMISSIONS: &[Permission] =
    &[CREATE_GROUP, GET_GROUP, LIST_GROUPS, WATCH_GROUPS, DELETE_GROUP, PATCH_GROUP];

/// What a run needs besides if it heeds the annotations of volumes, which are in no namespace.
pub const VOLUME_PERMISSIONS: &[Permission] = &[LIST_VOLUMES];

/// Every right that a restore uses, which are no part of a run's: it deletes nothing.
pub const RESTORE_PERMISSIONS: &[Permission] = &[GET_CLAIM, CREATE_CLAIM, GET, LIST, LIST_EVENTS];

/// What a restore of a group needs besides, and one of a single claim if its schedule or its labels are given and
/// there are members of groups. `list` uses the second where there are groups. The Role of the manifests has them.
pub const RESTORE_GROUP_PERMISSIONS: &[Permission] = &[GET_GROUP, LIST_GROUPS];

/// What a restore uses where it may: whether the StorageClass exists and what it waits for is known
/// sooner then, and which there are; and whose a volume is that does not carry the claim's uid in its
/// name. These lie outside of namespaces, so a Role cannot give them.
pub const RESTORE_CLASS_PERMISSIONS: &[Permission] = &[GET_CLASS, LIST_CLASSES, GET_VOLUME];

/// What `list` uses where it may, besides two of a run's: the settings of the schedules.
pub const SCHEDULE_PERMISSIONS: &[Permission] = &[LIST_CRON_JOBS, GET_CONFIG_MAP];

/// What `adopt` uses, beside what `list` does. No Role of the manifests has the last: a person does this.
pub const ADOPT_PERMISSIONS: &[Permission] = &[LIST_CLAIMS, LIST, GET, PATCH];

/// The longest that the API server is asked to keep a watch open, in seconds. Servers end one
/// after 30 to 60 minutes by themselves; a shorter one notices sooner that a connection is dead.
const WATCH_SECONDS: u32 = 290;

/// A cluster, and the right to change it.
pub struct Cluster {
    requests: Requests,
    namespace: String,
    /// That of the pod, or of the kubeconfig's context.
    own_namespace: String,
    in_pod: bool,
}

/// Where something is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// In one namespace.
    Namespace(String),
    /// In all of them.
    All,
}

/// A step of a list.
#[derive(Clone, Debug)]
pub enum Listed<T> {
    /// The list begins, or begins anew because it expired half-way: objects before this do not count.
    Begin,
    Object(T),
}

impl<T> Listed<T> {
    /// The same step of a list of something else.
    fn map<U>(self, change: impl FnOnce(T) -> Option<U>) -> Option<Listed<U>> {
        match self {
            Listed::Begin => Some(Listed::Begin),
            Listed::Object(object) => change(object).map(Listed::Object),
        }
    }

    /// Returns what to do with the steps of a list so that `kept` holds what `keep` keeps of the objects.
    pub(crate) fn into<U>(kept: &mut Vec<U>, mut keep: impl FnMut(T) -> Option<U>) -> impl FnMut(Self) {
        move |listed| match listed {
            Listed::Begin => kept.clear(),
            Listed::Object(object) => kept.extend(keep(object)),
        }
    }
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Event<T> {
    /// An object is there, or changed.
    Applied(T),
    /// An object is gone.
    Deleted(T),
    /// Nothing changed up to this resourceVersion.
    Bookmark(String),
}

/// What became of a deletion.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The API server accepted it; finalizers may keep the object for a while.
    Accepted,
    /// There was nothing to delete any more.
    AlreadyGone,
    /// It was not asked for, or not once more: the guard did not let it. What came of the try before, if
    /// there was one.
    Withheld(Option<Error>),
}

impl Cluster {
    /// The namespace that the settings name, else the pod's own or the kubeconfig context's.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether we are the pod's ServiceAccount. Otherwise a person started this program.
    pub fn is_in_pod(&self) -> bool {
        self.in_pod
    }

    /// Whether this is a pod that works in its own namespace: what it makes can belong to its Job.
    pub fn is_in_own_namespace(&self) -> bool {
        self.in_pod && self.namespace == self.own_namespace
    }

    /// The current time by the API server's clock, which dates all objects. This machine's may be wrong.
    pub fn now(&self) -> Timestamp {
        self.requests.now()
    }

    /// Lists the names of the namespaces that a label selector matches, but for those that are being
    /// deleted: nothing can be made in them any more.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the API server cannot read the selector, [`ErrorKind::Forbidden`] without
    /// the right, which only a ClusterRole can give.
    pub async fn namespaces(&self, selector: &str) -> Result<Vec<String>, Error> {
        let operation = Operation::new(
            format!("list the namespaces that match {selector:?}"),
            &Scope::All,
            LIST_NAMESPACES,
        );
        let name = |namespace: Namespace| {
            namespace.metadata.deletion_timestamp.is_none().then_some(namespace.metadata.name)
        };
        let names = self.list_some(&operation, &path(&Scope::All, NAMESPACES), selector, name).await?;
        Ok(names)
    }

    /// Reads a claim.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of that name, [`ErrorKind::Forbidden`] without the right.
    pub async fn claim(&self, claim: &ClaimId) -> Result<Claim, Error> {
        let scope = Scope::Namespace(claim.namespace.clone());
        let operation = Operation::new(format!("read claim {}", claim.name), &scope, GET_CLAIM);
        is_name(&operation, &claim.name)?;
        let get = || path(&scope, CLAIMS).get(&claim.name, &GetParams::default());
        self.read(&operation, get).await
    }

    /// Lists the claims that a label selector matches and `keep` keeps something of.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the API server cannot read the selector.
    pub async fn claims<T>(
        &self,
        scope: &Scope,
        selector: &str,
        keep: impl FnMut(Claim) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut kept = Vec::new();
        self.list_claims(scope, selector, Listed::into(&mut kept, keep)).await?;
        Ok(kept)
    }

    /// Lists the claims that a label selector matches, and hands each to `take`.
    ///
    /// # Errors
    /// As [`Cluster::claims`].
    pub async fn list_claims(
        &self,
        scope: &Scope,
        selector: &str,
        take: impl FnMut(Listed<Claim>),
    ) -> Result<(), Error> {
        let what = match selector {
            "" => "list the claims".to_owned(),
            selector => format!("list the claims that match {selector:?}"),
        };
        let operation = Operation::new(what, scope, LIST_CLAIMS);
        self.list(&operation, &path(scope, CLAIMS), selector, take).await?;
        Ok(())
    }

    /// Lists the pods of a namespace that `keep` keeps something of.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without the right, which only runs with hooks have.
    pub async fn pods<T>(
        &self,
        namespace: &str,
        keep: impl FnMut(Pod) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new("list the pods".to_owned(), &scope, LIST_PODS);
        self.list_some(&operation, &path(&scope, PODS), "", keep).await
    }

    /// Gives exactly this snapshot a label. Carried out twice it does no harm.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another object has the name by now.
    pub async fn label(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        label: (&str, &str),
    ) -> Result<(), Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new(format!("label snapshot {name} with {}", label.0), &scope, PATCH);
        is_name(&operation, name)?;
        let (key, value) = label;
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "labels": {key: value}}}));
        let send = || path(&scope, SNAPSHOTS).patch(name, &PatchParams::default(), &patch);
        self.requests.send(&operation, &send).await?;
        Ok(())
    }

    /// Reads what the volumes of claims are annotated with.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without the right, which only a ClusterRole can give.
    pub async fn volume_annotations(&self) -> Result<VolumeAnnotations, Error> {
        let operation = Operation::new("list the PersistentVolumes".to_owned(), &Scope::All, LIST_VOLUMES);
        let mut annotations = VolumeAnnotations::default();
        let take = |listed: Listed<Volume>| match listed {
            Listed::Begin => annotations = VolumeAnnotations::default(),
            Listed::Object(volume) => annotations.add(volume),
        };
        self.list(&operation, &path(&Scope::All, VOLUMES), "", take).await?;
        Ok(annotations)
    }

    /// Lists the snapshots that a label selector matches, hands each to `take`, and returns the
    /// resourceVersion from which a watch continues.
    ///
    /// # Errors
    /// [`ErrorKind::NotServed`] if the cluster has no snapshot API.
    pub async fn snapshots(
        &self,
        scope: &Scope,
        selector: &str,
        take: impl FnMut(Listed<VolumeSnapshot>),
    ) -> Result<String, Error> {
        let operation = Operation::new(format!("list the snapshots that match {selector:?}"), scope, LIST);
        self.list(&operation, &path(scope, SNAPSHOTS), selector, take).await
    }

    /// Lists all that a person may want to know of the snapshots that a label selector matches.
    ///
    /// # Errors
    /// As [`Cluster::snapshots`].
    pub async fn records(&self, scope: &Scope, selector: &str) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        self.snapshots(scope, selector, Listed::into(&mut records, |object| Some(Record::from(object))))
            .await?;
        Ok(records)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of that name.
    pub async fn snapshot(&self, namespace: &str, name: &str) -> Result<VolumeSnapshot, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new(format!("read snapshot {name}"), &scope, GET);
        is_name(&operation, name)?;
        let get = || path(&scope, SNAPSHOTS).get(name, &GetParams::default());
        self.read(&operation, get).await
    }

    /// Reads a snapshot, once, with a slot that is held already.
    ///
    /// # Errors
    /// As [`Cluster::snapshot`], and whatever may pass in a moment.
    pub async fn snapshot_in(
        &self,
        slot: &Slot<'_>,
        namespace: &str,
        name: &str,
    ) -> Result<VolumeSnapshot, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new(format!("read snapshot {name}"), &scope, GET);
        is_name(&operation, name)?;
        let get = || path(&scope, SNAPSHOTS).get(name, &GetParams::default());
        let body = slot.send(&operation, &get, &mut self.requests.budget()).await?;
        decode(&operation, &body)
    }

    /// Watches the snapshots that a label selector matches, from a list's resourceVersion on. The
    /// stream ends after five minutes at the latest, and is then to be opened again.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without the right; [`ErrorKind::Expired`], also from the stream, if the
    /// resourceVersion is too old.
    pub async fn watch(
        &self,
        scope: &Scope,
        selector: &str,
        resource_version: &str,
    ) -> Result<impl Stream<Item = Result<Event<VolumeSnapshot>, Error>> + use<>, Error> {
        let operation = Operation::new(format!("watch the snapshots that match {selector:?}"), scope, WATCH);
        self.watch_some(operation, &path(scope, SNAPSHOTS), selector, resource_version).await
    }

    async fn watch_some<T: Clone + DeserializeOwned + 'static>(
        &self,
        operation: Operation,
        path: &ApiRequest,
        selector: &str,
        resource_version: &str,
    ) -> Result<impl Stream<Item = Result<Event<T>, Error>> + use<T>, Error> {
        let parameters = WatchParams {
            label_selector: Some(selector.to_owned()),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = path.watch(&parameters, resource_version);
        let events = self.requests.watch::<T>(operation.clone(), request).await?;
        Ok(events.map(move |event| {
            Ok(match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => Event::Applied(object),
                WatchEvent::Deleted(object) => Event::Deleted(object),
                WatchEvent::Bookmark(bookmark) => Event::Bookmark(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => {
                    return Err(Error::answered(&operation, status.code, Some(*status), "", None));
                }
            })
        }))
    }

    /// Makes a snapshot. After an answer that was lost it looks for the name before it asks again,
    /// so that there is never more than one.
    ///
    /// With `dry_run` the API server checks everything and stores nothing.
    ///
    /// The answer is what was stored, which admission may have changed: see [`NewSnapshot::changes`].
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if somebody else's has the name. After an error that leaves open
    /// whether the request was carried out, the snapshot may be there.
    pub async fn create(&self, new: &NewSnapshot, dry_run: bool) -> Result<VolumeSnapshot, Error> {
        let namespace = new.source.namespace();
        let scope = Scope::Namespace(namespace.to_owned());
        let operation =
            Operation::new(format!("make snapshot {} of {}", new.name, new.source), &scope, CREATE);
        let parameters = PostParams { dry_run, ..PostParams::default() };
        let post = || {
            let body = serde_json::to_vec(&new.object()).map_err(BuildError::SerializeBody)?;
            path(&scope, SNAPSHOTS).create(&parameters, body)
        };
        let find = async || {
            let found = self.snapshot(namespace, &new.name).await?;
            Ok(new.is(&found).then_some(found))
        };
        self.create_or_find(&operation, &post, dry_run, find).await
    }

    /// Sends a create again and again while the failure may pass, but never blindly: after an
    /// answer that was lost it looks first. `find` answers what is there under the name, if it is
    /// what was to be made, and `None` if it is somebody else's.
    async fn create_or_find<T: DeserializeOwned>(
        &self,
        operation: &Operation,
        build: &Build<'_>,
        dry_run: bool,
        find: impl AsyncFn() -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let mut budget = self.requests.budget();
        let mut unclear = false;
        loop {
            let answer = self.requests.slot(operation).await?.send(operation, build, &mut budget).await;
            let error = match answer.and_then(|body| decode(operation, &body)) {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            unclear |= error.is_unclear() && !dry_run;
            let is_taken = unclear && error.kind() == ErrorKind::AlreadyExists;
            let given_up = match is_taken {
                true => None,
                false => budget.wait(operation, error).await.err(),
            };
            // Whatever the last answer was, an earlier try may have made it meanwhile.
            if unclear {
                match find().await {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => return Err(given_up.unwrap_or_else(|| Error::name_taken(operation))),
                    // It was there a moment ago, and it was made by this run or by somebody else.
                    Err(missing) if missing.kind() == ErrorKind::NotFound && is_taken => {
                        return Err(Error::name_taken(operation));
                    }
                    Err(missing) if missing.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(given_up.unwrap_or(error)),
                }
            }
            if let Some(error) = given_up {
                return Err(error);
            }
        }
    }

    /// Deletes exactly the object, in exactly the state, that `snapshot` remembers. Carried out
    /// twice it does no harm.
    ///
    /// Every try, a repeated one too, is made only if `guard` answers `true`. It is asked once the try
    /// has its slot, so that nothing but the request itself lies between its word and the API server.
    ///
    /// With `dry_run` the API server checks everything and deletes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it is another object or in another state by now.
    pub async fn delete(
        &self,
        namespace: &str,
        snapshot: &Snapshot,
        dry_run: bool,
        guard: impl AsyncFn(&Slot<'_>) -> bool,
    ) -> Result<Deleted, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new(format!("delete snapshot {}", snapshot.name), &scope, DELETE);
        self.delete_object(&operation, &path(&scope, SNAPSHOTS), snapshot, dry_run, guard).await
    }

    async fn delete_object(
        &self,
        operation: &Operation,
        path: &ApiRequest,
        snapshot: &Snapshot,
        dry_run: bool,
        guard: impl AsyncFn(&Slot<'_>) -> bool,
    ) -> Result<Deleted, Error> {
        is_name(operation, &snapshot.name)?;
        let parameters = DeleteParams {
            dry_run,
            preconditions: Some(Preconditions {
                uid: Some(snapshot.uid.clone()),
                resource_version: Some(snapshot.resource_version.clone()),
            }),
            ..DeleteParams::default()
        };
        let delete = || path.delete(&snapshot.name, &parameters);
        let mut budget = self.requests.budget();
        let mut unclear = false;
        let mut last = None;
        loop {
            let slot = self.requests.slot(operation).await?;
            if !guard(&slot).await {
                return Ok(Deleted::Withheld(last));
            }
            let answer = slot.send(operation, &delete, &mut budget).await;
            drop(slot);
            match answer {
                // The answer is the object if finalizers keep it, else a Status: neither is needed.
                Ok(_) => return Ok(Deleted::Accepted),
                // An earlier try was carried out although its answer was lost.
                Err(error) if error.kind() == ErrorKind::NotFound && unclear => return Ok(Deleted::Accepted),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Deleted::AlreadyGone),
                Err(error) => {
                    unclear |= error.is_unclear() && !dry_run;
                    last = Some(error.clone());
                    budget.wait(operation, error).await?;
                }
            }
        }
    }

    /// Gives a snapshot to `schedule`: sets the label, takes away by what other tools know it as theirs, and notes
    /// that in an annotation. All of it or nothing, and only in exactly the state that `record` remembers. Nothing
    /// else changes.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if somebody changed it since, [`ErrorKind::NotFound`] if it is gone.
    pub async fn adopt(&self, record: &Record, schedule: &str) -> Result<(), Error> {
        let Record { namespace, maker, snapshot, .. } = record;
        let scope = Scope::Namespace(namespace.clone());
        let operation = Operation::new(format!("adopt snapshot {}", snapshot.name), &scope, PATCH);
        is_name(&operation, &snapshot.name)?;
        let mark = maker.as_ref().map(|maker| format!("{}={}", maker.key, text::foreign(&maker.name)));
        let mut annotations = BTreeMap::from([(names::GEMINI_ANNOTATION, None)]);
        annotations.extend(mark.as_deref().map(|mark| (names::ADOPTED_FROM_ANNOTATION, Some(mark))));
        let labels =
            BTreeMap::from([(names::SCHEDULE_LABEL, Some(schedule)), (names::SNAPSCHEDULER_LABEL, None)]);
        let resource_version = snapshot.resource_version.as_str();
        let metadata = ChangedMetadata { resource_version, labels, annotations };
        let patch = Patch::Merge(MetadataPatch { metadata });
        let build = || path(&scope, SNAPSHOTS).patch(&snapshot.name, &PatchParams::default(), &patch);
        let is_adopted = |found: &VolumeSnapshot| {
            found.metadata.uid == snapshot.uid
                && found.metadata.labels.get(names::SCHEDULE_LABEL).is_some_and(|label| label == schedule)
        };
        match self.requests.send(&operation, &build).await {
            Ok(body) if is_adopted(&decode(&operation, &body)?) => Ok(()),
            Ok(_) => {
                let said = format!("the API server stored it without the label job={schedule}");
                Err(Error::other(&operation, ErrorKind::Refused, &said))
            }
            // An earlier try may have been carried out although its answer was lost.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                match self.snapshot(namespace, &snapshot.name).await {
                    Ok(found) if is_adopted(&found) => Ok(()),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a request that does no harm if it is carried out twice, and reads the answer.
    async fn read<T: DeserializeOwned>(
        &self,
        operation: &Operation,
        build: impl Fn() -> Built,
    ) -> Result<T, Error> {
        decode(operation, &self.requests.send(operation, &build).await?)
    }

    /// Lists, and returns what `keep` keeps of the objects.
    async fn list_some<T: DeserializeOwned, U>(
        &self,
        operation: &Operation,
        path: &ApiRequest,
        selector: &str,
        keep: impl FnMut(T) -> Option<U>,
    ) -> Result<Vec<U>, Error> {
        let mut kept = Vec::new();
        self.list(operation, path, selector, Listed::into(&mut kept, keep)).await?;
        Ok(kept)
    }

    /// Lists page by page, and returns the resourceVersion of the list.
    async fn list<T: DeserializeOwned>(
        &self,
        operation: &Operation,
        path: &ApiRequest,
        selector: &str,
        mut take: impl FnMut(Listed<T>),
    ) -> Result<String, Error> {
        let mut pages = Pages::new(selector);
        while let Some(body) = pages.next(&self.requests, operation, path).await? {
            if pages.is_first() {
                take(Listed::Begin);
            }
            let page = pages::read(&body, &mut |object| take(Listed::Object(object)));
            pages.goes_on(page.map_err(|error| not_understood(operation, &error))?);
        }
        Ok(pages.into_resource_version())
    }
}

/// Checks a name before it becomes part of a URL: what others wrote into a field may be a path to
/// something else.
fn is_name(operation: &Operation, name: &str) -> Result<(), Error> {
    match names::is_object_name(name) {
        true => Ok(()),
        false => Err(Error::other(operation, ErrorKind::Invalid, "that is not the name of an object")),
    }
}

/// The path of a resource.
fn path(scope: &Scope, resource: &str) -> ApiRequest {
    let api = match resource {
        SNAPSHOTS => format!("/apis/{SNAPSHOT_API}"),
        GROUPS => format!("/apis/{GROUP_SNAPSHOT_API}"),
        CLASSES => format!("/apis/{STORAGE_GROUP}/v1"),
        CRON_JOBS | JOBS => format!("/apis/{BATCH_GROUP}/v1"),
        _ => "/api/v1".to_owned(),
    };
    ApiRequest::new(match scope {
        Scope::Namespace(namespace) => format!("{api}/namespaces/{namespace}/{resource}"),
        Scope::All => format!("{api}/{resource}"),
    })
}
