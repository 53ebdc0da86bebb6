//! The requests that only `verify` makes: its Jobs and their pods, the Events that say what is wrong with them, and what
//! it notes on snapshots.

use kube::api::{
    DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy,
};
use serde_json::{Value, json};

use super::{
    BATCH_GROUP, CLAIMS, CREATE_EVENT, Cluster, EVENTS, Error, ErrorKind, GET, GET_CLAIM, GET_CLASS, JOBS,
    LIST, LIST_CLAIMS, LIST_CLASSES, LIST_EVENTS, LIST_PODS, PATCH, PODS, Permission, SNAPSHOTS, Scope,
    decode, is_name, operation::Operation, pages::PAGE, path,
};
use crate::{
    api::{Claim, Job, JobPod, ObjectEvent, Page, VolumeSnapshot},
    names,
    snapshot::ClaimId,
};

const fn on_jobs(verb: &'static str) -> Permission {
    Permission { group: BATCH_GROUP, resource: JOBS, verb }
}

const CREATE_JOB: Permission = on_jobs("create");
const GET_JOB: Permission = on_jobs("get");
const LIST_JOBS: Permission = on_jobs("list");
const DELETE_JOB: Permission = on_jobs("delete");

/// Every right that a drill uses. None is on claims, and none deletes a snapshot. The Role of the component `verify` has
/// exactly these.
pub const VERIFY_PERMISSIONS: &[Permission] =
    &[GET, LIST, PATCH, CREATE_JOB, GET_JOB, LIST_JOBS, DELETE_JOB, LIST_PODS, LIST_EVENTS, CREATE_EVENT];

/// What a drill uses where it may: whether the StorageClass keeps deleted volumes. Classes lie outside of namespaces, so
/// a Role cannot give this.
pub const VERIFY_CLASS_PERMISSIONS: &[Permission] = &[GET_CLASS, LIST_CLASSES];

/// What a drill uses outside of a pod, where a person may do more than the drill's account.
pub const VERIFY_CLAIM_PERMISSIONS: &[Permission] = &[GET_CLAIM, LIST_CLAIMS];

/// A Job to create.
#[derive(Clone, Debug)]
pub struct NewJob {
    pub name: String,
    pub namespace: String,
    /// The whole object.
    pub object: Value,
}

/// What is noted on a snapshot: annotations, `None` to take one away.
pub type Notes<'a> = [(&'static str, Option<&'a str>)];

impl Cluster {
    /// Creates a Job. After an answer that was lost it looks for the name before it asks again. A Job that is there
    /// already counts only if `is_own` says so.
    ///
    /// With `dry_run` the API server validates the Job and stores nothing.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if another Job has the name. After an error that leaves open whether the request
    /// was carried out, the Job may exist.
    pub async fn create_job(
        &self,
        new: &NewJob,
        dry_run: bool,
        is_own: impl Fn(&Job) -> bool,
    ) -> Result<Job, Error> {
        let scope = Scope::Namespace(new.namespace.clone());
        let operation = Operation::new(format!("create Job {}", new.name), &scope, CREATE_JOB);
        let parameters = PostParams { dry_run, ..PostParams::default() };
        let post = || path(&scope, JOBS).create(&parameters, new.object.to_string().into_bytes());
        let find = async || {
            let found = self.job(&new.namespace, &new.name).await?;
            Ok(is_own(&found).then_some(found))
        };
        self.create_or_find(&operation, &post, dry_run, find).await
    }

    /// Reads a Job.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of that name.
    pub async fn job(&self, namespace: &str, name: &str) -> Result<Job, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new(format!("read Job {name}"), &scope, GET_JOB);
        is_name(&operation, name)?;
        let get = || path(&scope, JOBS).get(name, &Default::default());
        self.read(&operation, get).await
    }

    /// Reads a claim whose snapshot is to be verified. A drill does without what it may not read, so a denial is
    /// believed at once.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of that name, [`ErrorKind::Forbidden`] without the right.
    pub async fn claim_if_permitted(&self, claim: &ClaimId) -> Result<Claim, Error> {
        let scope = Scope::Namespace(claim.namespace.clone());
        let operation = Operation::new(format!("read claim {}", claim.name), &scope, GET_CLAIM).optional();
        is_name(&operation, &claim.name)?;
        let get = || path(&scope, CLAIMS).get(&claim.name, &GetParams::default());
        self.read(&operation, get).await
    }

    /// Lists the Jobs of a drill.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without the right.
    pub async fn drill_jobs(&self, drill: &str) -> Result<Vec<Job>, Error> {
        let scope = Scope::Namespace(self.namespace().to_owned());
        let operation = Operation::new("list the Jobs of the drill".to_owned(), &scope, LIST_JOBS);
        self.list_some(&operation, &path(&scope, JOBS), &selector(drill), Some).await
    }

    /// Lists the pods of a drill's Jobs.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without the right.
    pub async fn drill_pods(&self, drill: &str) -> Result<Vec<JobPod>, Error> {
        let scope = Scope::Namespace(self.namespace().to_owned());
        let operation = Operation::new("list the pods of the drill".to_owned(), &scope, LIST_PODS);
        self.list_some(&operation, &path(&scope, PODS), &selector(drill), Some).await
    }

    /// Lists the pods of the Job with this uid.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without the right.
    pub async fn pods_of_job(&self, uid: &str) -> Result<Vec<JobPod>, Error> {
        let scope = Scope::Namespace(self.namespace().to_owned());
        let operation = Operation::new("list the pods of the drill's own Job".to_owned(), &scope, LIST_PODS);
        let selector = format!("batch.kubernetes.io/controller-uid={uid}");
        self.list_some(&operation, &path(&scope, PODS), &selector, Some).await
    }

    /// Lists the Events of an object of this name, a claim's or a pod's or a Job's.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without permission.
    pub async fn events_of(&self, kind: &str, name: &str) -> Result<Vec<ObjectEvent>, Error> {
        let scope = Scope::Namespace(self.namespace().to_owned());
        let operation =
            Operation::new(format!("list the Events of {kind} {name}"), &scope, LIST_EVENTS).optional();
        is_name(&operation, name)?;
        let selector = format!("involvedObject.kind={kind},involvedObject.name={name}");
        // One page is enough: one of these has a handful of Events.
        let parameters = ListParams::default().fields(&selector).limit(PAGE);
        let list = || path(&scope, EVENTS).list(&parameters);
        let page: Page<ObjectEvent> = self.read(&operation, list).await?;
        Ok(page.items)
    }

    /// Deletes exactly this Job; Kubernetes then deletes its pods, and with them their claims and volumes. Carried out
    /// twice it does no harm. One that is gone already, whoever deleted it, is a success.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] without the right.
    pub async fn delete_job(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new(format!("delete Job {name}"), &scope, DELETE_JOB);
        is_name(&operation, name)?;
        let parameters = DeleteParams {
            // Otherwise its pods would stay, and the volumes with them.
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        let delete = || path(&scope, JOBS).delete(name, &parameters);
        match self.requests.send(&operation, &delete).await {
            Ok(_) => Ok(()),
            // Of another uid it is another Job, and this one is gone.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Notes something on exactly this snapshot, in exactly the state that was read. Nothing else changes, and carried
    /// out twice it does no harm.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if somebody changed it since, or another object has the name by now;
    /// [`ErrorKind::NotFound`] if it is gone.
    pub async fn note_on_snapshot(&self, read: &VolumeSnapshot, notes: &Notes<'_>) -> Result<(), Error> {
        let metadata = &read.metadata;
        let scope = Scope::Namespace(metadata.namespace.clone());
        let what = format!("note on snapshot {} what a drill found", metadata.name);
        let operation = Operation::new(what, &scope, PATCH);
        is_name(&operation, &metadata.name)?;
        let annotations: Value = notes.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let patch = Patch::Merge(json!({"metadata": {
            "uid": metadata.uid, "resourceVersion": metadata.resource_version, "annotations": annotations,
        }}));
        let send = || path(&scope, SNAPSHOTS).patch(&metadata.name, &PatchParams::default(), &patch);
        let stored: VolumeSnapshot = decode(&operation, &self.requests.send(&operation, &send).await?)?;
        let stored = &stored.metadata.annotations;
        let is_stored = |(key, value): &(&'static str, Option<&str>)| match *key {
            names::VERIFIED_ANNOTATION => stored.verified.as_deref() == *value,
            names::VERIFY_FAILED_ANNOTATION => stored.verify_failed.as_deref() == *value,
            _ => true,
        };
        match notes.iter().all(is_stored) {
            true => Ok(()),
            false => {
                let said = "the API server stored it without the annotation";
                Err(Error::other(&operation, ErrorKind::Refused, said))
            }
        }
    }
}

fn selector(drill: &str) -> String {
    format!("{}={drill}", names::DRILL_LABEL)
}
