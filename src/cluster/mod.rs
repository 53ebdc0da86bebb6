//! The cluster: every request that this program makes is made here, and only here is one repeated.
//!
//! [`Cluster`] offers what a run needs in a run's own words, and what a restore needs beside that in
//! `claims`. How a request is sent, bounded and repeated is in `request` and `backoff`; where the API
//! server is and who we are to it in `connect`; what can go wrong in [`Error`].

mod action;
mod backoff;
mod claims;
mod connect;
mod error;
mod request;

use std::collections::BTreeMap;

use futures::{Stream, StreamExt};
use kube::{
    api::{DeleteParams, GetParams, ListParams, PostParams, Preconditions, WatchEvent, WatchParams},
    core::{Request as ApiRequest, request::Error as BuildError},
};
use serde::de::{DeserializeOwned, IgnoredAny};

pub use backoff::Pause;
pub use connect::{Access, connect};
pub use error::{Cause, Error};

use crate::{
    api::{
        Claim, Namespace, NewMetadata, NewVolumeSnapshot, Page, PageMetadata, SNAPSHOT_API, SNAPSHOT_GROUP,
        VolumeSnapshot, VolumeSnapshotSource, VolumeSnapshotSpec,
    },
    names,
    shard::Shard,
    snapshot::{ClaimId, Record, Snapshot},
};
use action::Action;
use request::{Build, Patience, Requests, built};

/// One thing that the Role has to allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
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
const CONFIG_MAPS: &str = "configmaps";
const BATCH_GROUP: &str = "batch";
const STORAGE_GROUP: &str = "storage.k8s.io";

const fn on_claims(verb: &'static str) -> Right {
    Right { group: "", resource: CLAIMS, verb }
}

const fn on_snapshots(verb: &'static str) -> Right {
    Right { group: SNAPSHOT_GROUP, resource: SNAPSHOTS, verb }
}

const GET_CLAIM: Right = on_claims("get");
const LIST_CLAIMS: Right = on_claims("list");
const CREATE_CLAIM: Right = on_claims("create");
const CREATE: Right = on_snapshots("create");
const GET: Right = on_snapshots("get");
const LIST: Right = on_snapshots("list");
const WATCH: Right = on_snapshots("watch");
const DELETE: Right = on_snapshots("delete");
const LIST_NAMESPACES: Right = Right { group: "", resource: NAMESPACES, verb: "list" };
const LIST_EVENTS: Right = Right { group: "", resource: EVENTS, verb: "list" };
const GET_CLASS: Right = Right { group: STORAGE_GROUP, resource: CLASSES, verb: "get" };
const LIST_CLASSES: Right = Right { group: STORAGE_GROUP, resource: CLASSES, verb: "list" };
const LIST_CRON_JOBS: Right = Right { group: BATCH_GROUP, resource: CRON_JOBS, verb: "list" };
const GET_CONFIG_MAP: Right = Right { group: "", resource: CONFIG_MAPS, verb: "get" };
const GET_VOLUME: Right = Right { group: "", resource: VOLUMES, verb: "get" };

/// Every right that a run uses. No request can be made without naming one of these or of the lists
/// below, and a test holds the Role of the manifests to this list. `list` uses two of them.
pub const RIGHTS: &[Right] = &[GET_CLAIM, LIST_CLAIMS, CREATE, GET, LIST, WATCH, DELETE];

/// What a run needs besides, and in all namespaces, if it chooses namespaces by a selector.
pub const NAMESPACE_RIGHTS: &[Right] = &[LIST_NAMESPACES];

/// Every right that a restore uses, which are no part of a run's: it deletes nothing.
pub const RESTORE_RIGHTS: &[Right] = &[GET_CLAIM, CREATE_CLAIM, GET, LIST, LIST_EVENTS];

/// What a restore uses where it may: whether the StorageClass exists and what it waits for is known
/// sooner then, and which there are; and whose a volume is that does not carry the claim's uid in its
/// name. These lie outside of namespaces, so a Role cannot give them.
pub const RESTORE_CLASS_RIGHTS: &[Right] = &[GET_CLASS, LIST_CLASSES, GET_VOLUME];

/// What `list` uses where it may, besides two of a run's: the settings of the schedules.
pub const SCHEDULE_RIGHTS: &[Right] = &[LIST_CRON_JOBS, GET_CONFIG_MAP];

/// How many objects a page of a list has. 500 is what kubectl asks for.
const PAGE: u32 = 500;

/// How often a list that expired half-way is begun anew.
const LIST_ATTEMPTS: usize = 3;

/// The longest that the API server is asked to keep a watch open, in seconds. Servers end one
/// after 30 to 60 minutes by themselves; a shorter one notices sooner that a connection is dead.
const WATCH_SECONDS: u32 = 290;

/// A cluster, and the right to change it.
pub struct Cluster {
    requests: Requests,
    namespace: String,
}

/// Where something is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In one namespace.
    Namespace(String),
    /// In all of them.
    All,
}

/// What a new snapshot is to be.
#[derive(Clone, Debug)]
pub struct NewSnapshot {
    /// Its name, which is its label `name` too.
    pub name: String,
    /// The claim to take it of, in the same namespace.
    pub claim: ClaimId,
    /// The class; `None` for the cluster's default.
    pub class: Option<String>,
    /// The schedule that it belongs to.
    pub job: String,
    /// The run that makes it.
    pub run: String,
    /// The part of all claims that its claim is in.
    pub shard: Shard,
    /// Whether it is held.
    pub hold: bool,
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub enum Event {
    /// A snapshot is there, or changed.
    Seen(VolumeSnapshot),
    /// A snapshot is gone.
    Gone(VolumeSnapshot),
    /// Nothing changed up to this resourceVersion.
    Bookmark(String),
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The API server accepted it; finalizers may keep the object for a while.
    Accepted,
    /// There was nothing to delete any more.
    AlreadyGone,
}

impl Cluster {
    /// The namespace that the settings name, else the pod's own or the kubeconfig context's.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Lists the names of the namespaces that a label selector matches, but for those that are being
    /// deleted: nothing can be made in them any more.
    ///
    /// # Errors
    /// [`Cause::Invalid`] if the API server cannot read the selector, [`Cause::Forbidden`] without
    /// the right, which only a ClusterRole can give.
    pub async fn namespaces(&self, selector: &str) -> Result<Vec<String>, Error> {
        let action =
            Action::new(format!("list the namespaces that match {selector:?}"), &Scope::All, LIST_NAMESPACES);
        let name = |namespace: Namespace| {
            namespace.metadata.deletion_timestamp.is_none().then_some(namespace.metadata.name)
        };
        let (names, _) = self.list(&action, &path(&Scope::All, NAMESPACES), selector, name).await?;
        Ok(names)
    }

    /// Reads a claim.
    ///
    /// # Errors
    /// [`Cause::NotFound`] if there is none of that name, [`Cause::Forbidden`] without the right.
    pub async fn claim(&self, claim: &ClaimId) -> Result<Claim, Error> {
        let scope = Scope::Namespace(claim.namespace.clone());
        let action = Action::new(format!("read claim {}", claim.name), &scope, GET_CLAIM);
        let get = || path(&scope, CLAIMS).get(&claim.name, &GetParams::default());
        self.requests.send(&action, get).await
    }

    /// Lists the claims that a label selector matches and `keep` keeps something of.
    ///
    /// # Errors
    /// [`Cause::Invalid`] if the API server cannot read the selector.
    pub async fn claims<T>(
        &self,
        scope: &Scope,
        selector: &str,
        keep: impl FnMut(Claim) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let action = Action::new(format!("list the claims that match {selector:?}"), scope, LIST_CLAIMS);
        let (claims, _) = self.list(&action, &path(scope, CLAIMS), selector, keep).await?;
        Ok(claims)
    }

    /// Lists the snapshots that a label selector matches and `keep` keeps something of, and tells
    /// the resourceVersion from which a watch goes on.
    ///
    /// # Errors
    /// [`Cause::NotServed`] if the cluster has no snapshot API.
    pub async fn snapshots<T>(
        &self,
        scope: &Scope,
        selector: &str,
        keep: impl FnMut(VolumeSnapshot) -> Option<T>,
    ) -> Result<(Vec<T>, String), Error> {
        let action = Action::new(format!("list the snapshots that match {selector:?}"), scope, LIST);
        self.list(&action, &path(scope, SNAPSHOTS), selector, keep).await
    }

    /// Lists all that a person may want to know of the snapshots that a label selector matches.
    ///
    /// # Errors
    /// As [`Cluster::snapshots`].
    pub async fn records(&self, scope: &Scope, selector: &str) -> Result<Vec<Record>, Error> {
        Ok(self.snapshots(scope, selector, |object| Some(Record::from(object))).await?.0)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`Cause::NotFound`] if there is none of that name.
    pub async fn snapshot(&self, namespace: &str, name: &str) -> Result<VolumeSnapshot, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let action = Action::new(format!("read snapshot {name}"), &scope, GET);
        let get = || path(&scope, SNAPSHOTS).get(name, &GetParams::default());
        self.requests.send(&action, get).await
    }

    /// Watches the snapshots that a label selector matches, from a list's resourceVersion on. The
    /// stream ends after five minutes at the latest, and is then to be opened again.
    ///
    /// # Errors
    /// [`Cause::Forbidden`] without the right; [`Cause::Expired`], also from the stream, if the
    /// resourceVersion is too old.
    pub async fn watch(
        &self,
        scope: &Scope,
        selector: &str,
        resource_version: &str,
    ) -> Result<impl Stream<Item = Result<Event, Error>> + use<>, Error> {
        let action = Action::new(format!("watch the snapshots that match {selector:?}"), scope, WATCH);
        let parameters = WatchParams {
            label_selector: Some(selector.to_owned()),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = built(&action, path(scope, SNAPSHOTS).watch(&parameters, resource_version))?;
        let events = self.requests.watch::<VolumeSnapshot>(action.clone(), request).await?;
        Ok(events.map(move |event| {
            Ok(match event? {
                WatchEvent::Added(snapshot) | WatchEvent::Modified(snapshot) => Event::Seen(snapshot),
                WatchEvent::Deleted(snapshot) => Event::Gone(snapshot),
                WatchEvent::Bookmark(bookmark) => Event::Bookmark(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => {
                    return Err(Error::answered(&action, status.code, Some(*status), "", None));
                }
            })
        }))
    }

    /// Makes a snapshot. After an answer that was lost it looks for the name before it asks again,
    /// so that there is never more than one.
    ///
    /// With `dry_run` the API server checks everything and stores nothing.
    ///
    /// # Errors
    /// [`Cause::AlreadyExists`] if somebody else's has the name. After an error that leaves open
    /// whether the request was carried out, the snapshot may be there.
    pub async fn create(&self, new: &NewSnapshot, dry_run: bool) -> Result<VolumeSnapshot, Error> {
        let scope = Scope::Namespace(new.claim.namespace.clone());
        let action =
            Action::new(format!("make snapshot {} of claim {}", new.name, new.claim.name), &scope, CREATE);
        let parameters = PostParams { dry_run, ..PostParams::default() };
        let post = || {
            let body = serde_json::to_vec(&new.object()).map_err(BuildError::SerializeBody)?;
            path(&scope, SNAPSHOTS).create(&parameters, body)
        };
        let find = async || {
            let found = self.snapshot(&new.claim.namespace, &new.name).await?;
            Ok(new.is(&found).then_some(found))
        };
        self.create_or_find(&action, &post, dry_run, find).await
    }

    /// Sends a create again and again while the failure may pass, but never blindly: after an
    /// answer that was lost it looks first. `find` answers what is there under the name, if it is
    /// what was to be made, and `None` if it is somebody else's.
    async fn create_or_find<T: DeserializeOwned>(
        &self,
        action: &Action,
        build: &Build<'_>,
        dry_run: bool,
        find: impl AsyncFn() -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let mut patience = Patience::new();
        let mut unclear = false;
        loop {
            let error = match self.requests.send_once(action, build, &mut patience).await {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            unclear |= error.is_unclear() && !dry_run;
            let again = error.is_passing() || unclear && error.cause() == Cause::AlreadyExists;
            let given_up = match again {
                true => patience.wait(error).await.err(),
                false => Some(error),
            };
            // Whatever the last answer was, an earlier try may have made it meanwhile.
            if unclear {
                match find().await {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) => return Err(given_up.unwrap_or_else(|| Error::name_taken(action))),
                    Err(missing) if missing.cause() == Cause::NotFound => {}
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
    /// With `dry_run` the API server checks everything and deletes nothing.
    ///
    /// # Errors
    /// [`Cause::Conflict`] if it is another object or in another state by now.
    pub async fn delete(
        &self,
        namespace: &str,
        snapshot: &Snapshot,
        dry_run: bool,
    ) -> Result<Deleted, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let action = Action::new(format!("delete snapshot {}", snapshot.name), &scope, DELETE);
        let parameters = DeleteParams {
            dry_run,
            preconditions: Some(Preconditions {
                uid: Some(snapshot.uid.clone()),
                resource_version: Some(snapshot.resource_version.clone()),
            }),
            ..DeleteParams::default()
        };
        let delete = || path(&scope, SNAPSHOTS).delete(&snapshot.name, &parameters);
        // The answer is the object if finalizers keep it, else a Status: neither is needed.
        match self.requests.send::<IgnoredAny>(&action, delete).await {
            Ok(_) => Ok(Deleted::Accepted),
            Err(error) if error.cause() == Cause::NotFound => Ok(Deleted::AlreadyGone),
            Err(error) => Err(error),
        }
    }

    /// Lists page by page, and keeps something of each object.
    async fn list<T: DeserializeOwned, U>(
        &self,
        action: &Action,
        path: &ApiRequest,
        selector: &str,
        mut keep: impl FnMut(T) -> Option<U>,
    ) -> Result<(Vec<U>, String), Error> {
        let mut kept = Vec::new();
        let mut read = |body: &[u8], is_first: bool| {
            let page: Page<T> = serde_json::from_slice(body)?;
            if is_first {
                kept.clear();
            }
            kept.extend(page.items.into_iter().filter_map(&mut keep));
            Ok(page.metadata)
        };
        let version = self.pages(action, path, selector, &mut read).await?;
        Ok((kept, version))
    }

    /// Reads page by page, and tells the resourceVersion of the whole; begins anew, with a first
    /// page again, if the pages expire under it.
    async fn pages(
        &self,
        action: &Action,
        path: &ApiRequest,
        selector: &str,
        read: &mut PageReader<'_>,
    ) -> Result<String, Error> {
        let first_page = ListParams::default().labels(selector).limit(PAGE);
        let mut attempt = 1;
        let mut parameters = first_page.clone();
        loop {
            let list = || path.list(&parameters);
            let is_first = parameters.continue_token.is_none();
            let mut metadata = PageMetadata::default();
            let mut read_page = |body: &[u8]| read(body, is_first).map(|read| metadata = read);
            match self.requests.send_to(action, &list, &mut read_page).await {
                Err(error) if error.cause() == Cause::Expired && attempt < LIST_ATTEMPTS => {
                    attempt += 1;
                    parameters = first_page.clone();
                    continue;
                }
                answer => answer?,
            }
            if metadata.next.is_empty() {
                return Ok(metadata.resource_version);
            }
            parameters.continue_token = Some(metadata.next);
        }
    }
}

/// Reads a page of a list, the first or another, and tells where the list stands.
type PageReader<'a> = dyn FnMut(&[u8], bool) -> Result<PageMetadata, serde_json::Error> + 'a;

/// The path of a resource.
fn path(scope: &Scope, resource: &str) -> ApiRequest {
    let api = match resource {
        SNAPSHOTS => format!("/apis/{SNAPSHOT_API}"),
        CLASSES => format!("/apis/{STORAGE_GROUP}/v1"),
        CRON_JOBS => format!("/apis/{BATCH_GROUP}/v1"),
        _ => "/api/v1".to_owned(),
    };
    ApiRequest::new(match scope {
        Scope::Namespace(namespace) => format!("{api}/namespaces/{namespace}/{resource}"),
        Scope::All => format!("{api}/{resource}"),
    })
}

impl NewSnapshot {
    fn object(&self) -> NewVolumeSnapshot {
        let mut labels = BTreeMap::from([
            (names::JOB_LABEL, self.job.clone()),
            (names::NAME_LABEL, self.name.clone()),
            (names::RUN_LABEL, self.run.clone()),
            (names::MANAGED_BY_LABEL, names::PROGRAM.to_owned()),
        ]);
        if !self.shard.is_whole() {
            labels.insert(names::SHARD_LABEL, self.shard.label_value());
        }
        if self.hold {
            labels.insert(names::HOLD_LABEL, "true".to_owned());
        }
        NewVolumeSnapshot {
            api_version: SNAPSHOT_API,
            kind: "VolumeSnapshot",
            metadata: NewMetadata { name: self.name.clone(), labels, annotations: BTreeMap::new() },
            spec: VolumeSnapshotSpec {
                source: VolumeSnapshotSource { persistent_volume_claim_name: Some(self.claim.name.clone()) },
                volume_snapshot_class_name: self.class.clone(),
            },
        }
    }

    /// Whether `found` is what this asked for, made by this run, and not somebody else's.
    fn is(&self, found: &VolumeSnapshot) -> bool {
        let label = |key| found.metadata.labels.get(key).map(String::as_str);
        label(names::JOB_LABEL) == Some(&self.job)
            && label(names::RUN_LABEL) == Some(&self.run)
            && found.spec.source.persistent_volume_claim_name.as_deref() == Some(&self.claim.name)
    }
}
