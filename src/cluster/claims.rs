//! What only a restore asks of the cluster: making a claim, and what is said of it.

use kube::api::{GetParams, ListParams, PostParams};

use super::{
    CLAIMS, CLASSES, CREATE_CLAIM, Cluster, EVENTS, Error, GET_CLASS, LIST_EVENTS, PAGE, Scope,
    action::Action, path,
};
use crate::{
    api::{Claim, NewClaim, ObjectEvent, Page, StorageClass},
    names,
    snapshot::ClaimId,
};

impl Cluster {
    /// Makes a claim. After an answer that was lost it looks for the name before it asks again, and
    /// takes for its own only what carries the same label of the run.
    ///
    /// With `dry_run` the API server checks everything and stores nothing.
    ///
    /// # Errors
    /// [`super::Cause::AlreadyExists`] if there is a claim of that name. After an error that leaves open
    /// whether the request was carried out, the claim may be there.
    pub async fn create_claim(&self, new: &NewClaim, dry_run: bool) -> Result<Claim, Error> {
        let scope = Scope::Namespace(new.namespace.clone());
        let what = format!("make claim {} from snapshot {}", new.name, new.snapshot);
        let action = Action::new(what, &scope, CREATE_CLAIM);
        let parameters = PostParams { dry_run, ..PostParams::default() };
        let post = || path(&scope, CLAIMS).create(&parameters, new.object().to_string().into_bytes());
        let id = ClaimId { namespace: new.namespace.clone(), name: new.name.clone() };
        let run = new.labels.get(names::RUN_LABEL);
        let find = async || {
            let found = self.claim(&id).await?;
            Ok((found.metadata.labels.run.as_ref() == run).then_some(found))
        };
        self.create_or_find(&action, &post, dry_run, find).await
    }

    /// Lists what is said of exactly this claim: by the provisioner, and by the controller that
    /// binds it.
    ///
    /// # Errors
    /// [`super::Cause::Forbidden`] without the right.
    pub async fn claim_events(&self, claim: &ClaimId, uid: &str) -> Result<Vec<ObjectEvent>, Error> {
        let scope = Scope::Namespace(claim.namespace.clone());
        let action = Action::new(format!("list the Events of claim {}", claim.name), &scope, LIST_EVENTS);
        let selector = format!("involvedObject.name={},involvedObject.uid={uid}", claim.name);
        // One page: of one claim there are a handful.
        let parameters = ListParams::default().fields(&selector).limit(PAGE);
        let list = || path(&scope, EVENTS).list(&parameters);
        let page: Page<ObjectEvent> = self.read(&action, list).await?;
        Ok(page.items)
    }

    /// Reads a StorageClass.
    ///
    /// # Errors
    /// [`super::Cause::NotFound`] if there is none of that name, [`super::Cause::Forbidden`] without the right,
    /// which only a ClusterRole can give.
    pub async fn storage_class(&self, name: &str) -> Result<StorageClass, Error> {
        let action = Action::new(format!("read StorageClass {name}"), &Scope::All, GET_CLASS);
        let get = || path(&Scope::All, CLASSES).get(name, &GetParams::default());
        self.read(&action, get).await
    }
}
