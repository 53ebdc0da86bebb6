//! The requests that only `restore` and `list` make: creating claims, and reading Events, classes, CronJobs,
//! ConfigMaps and volumes.

use kube::api::{GetParams, ListParams, PostParams};

use super::{
    CLAIMS, CLASSES, CONFIG_MAPS, CREATE_CLAIM, CRON_JOBS, Cluster, EVENTS, Error, GET_CLASS, GET_CONFIG_MAP,
    GET_VOLUME, LIST_CLASSES, LIST_CRON_JOBS, LIST_EVENTS, Scope, VOLUMES, is_name, operation::Operation,
    pages::PAGE, path,
};
use crate::{
    api::{Claim, ConfigMap, CronJob, NewClaim, ObjectEvent, Page, StorageClass, Volume},
    names,
    snapshot::ClaimId,
};

impl Cluster {
    /// Creates a claim. If an answer is lost, it reads the claim by its name before it repeats the request.
    /// An existing claim counts as its own only if it has the same run labels and the same source snapshot.
    ///
    /// With `dry_run` the API server validates the claim and stores nothing.
    ///
    /// # Errors
    /// [`super::ErrorKind::AlreadyExists`] if another claim has the name. After an error that leaves open
    /// whether the request was carried out, the claim may exist.
    pub async fn create_claim(&self, new: &NewClaim, dry_run: bool) -> Result<Claim, Error> {
        let scope = Scope::Namespace(new.namespace.clone());
        let what = format!("create claim {} from snapshot {}", new.name, new.snapshot);
        let operation = Operation::new(what, &scope, CREATE_CLAIM);
        let parameters = PostParams { dry_run, ..PostParams::default() };
        let post = || path(&scope, CLAIMS).create(&parameters, new.object().to_string().into_bytes());
        let id = ClaimId { namespace: new.namespace.clone(), name: new.name.clone() };
        let find = async || {
            let found = self.claim(&id).await?;
            Ok(is_made(new, &found).then_some(found))
        };
        self.create_or_find(&operation, &post, dry_run, find).await
    }

    /// Lists the Events of the claim with this uid, from the provisioner and the PersistentVolume controller.
    ///
    /// # Errors
    /// [`super::ErrorKind::Forbidden`] without permission.
    pub async fn claim_events(&self, claim: &ClaimId, uid: &str) -> Result<Vec<ObjectEvent>, Error> {
        let scope = Scope::Namespace(claim.namespace.clone());
        let operation =
            Operation::new(format!("list the Events of claim {}", claim.name), &scope, LIST_EVENTS)
                .optional();
        let selector = format!("involvedObject.name={},involvedObject.uid={uid}", claim.name);
        // One page is enough: a claim has a handful of Events.
        let parameters = ListParams::default().fields(&selector).limit(PAGE);
        let list = || path(&scope, EVENTS).list(&parameters);
        let page: Page<ObjectEvent> = self.read(&operation, list).await?;
        Ok(page.items)
    }

    ///
    /// # Errors
    /// [`super::ErrorKind::NotFound`] if it does not exist, [`super::ErrorKind::Forbidden`] without
    /// permission, which only a ClusterRole can grant.
    pub async fn storage_class(&self, name: &str) -> Result<StorageClass, Error> {
        let operation =
            Operation::new(format!("read StorageClass {name}"), &Scope::All, GET_CLASS).optional();
        is_name(&operation, name)?;
        let get = || path(&Scope::All, CLASSES).get(name, &GetParams::default());
        self.read(&operation, get).await
    }

    ///
    /// # Errors
    /// [`super::ErrorKind::Forbidden`] without permission, which only a ClusterRole can grant.
    pub async fn storage_classes(&self) -> Result<Vec<StorageClass>, Error> {
        let operation =
            Operation::new("list the StorageClasses".to_owned(), &Scope::All, LIST_CLASSES).optional();
        let classes = self.list_some(&operation, &path(&Scope::All, CLASSES), "", Some).await?;
        Ok(classes)
    }

    /// Lists the CronJobs that match a label selector and for which `keep` returns true.
    ///
    /// # Errors
    /// [`super::ErrorKind::Forbidden`] without permission.
    pub async fn cron_jobs(
        &self,
        scope: &Scope,
        selector: &str,
        keep: impl Fn(&CronJob) -> bool,
    ) -> Result<Vec<CronJob>, Error> {
        let operation = Operation::new("list the CronJobs".to_owned(), scope, LIST_CRON_JOBS).optional();
        let keep = |cron_job: CronJob| keep(&cron_job).then_some(cron_job);
        let cron_jobs = self.list_some(&operation, &path(scope, CRON_JOBS), selector, keep).await?;
        Ok(cron_jobs)
    }

    ///
    /// # Errors
    /// [`super::ErrorKind::NotFound`] if it does not exist, [`super::ErrorKind::Forbidden`] without
    /// permission.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<ConfigMap, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new(format!("read ConfigMap {name}"), &scope, GET_CONFIG_MAP).optional();
        is_name(&operation, name)?;
        let get = || path(&scope, CONFIG_MAPS).get(name, &GetParams::default());
        self.read(&operation, get).await
    }

    ///
    /// # Errors
    /// [`super::ErrorKind::NotFound`] if it does not exist, [`super::ErrorKind::Forbidden`] without
    /// permission, which only a ClusterRole can grant.
    pub async fn volume(&self, name: &str) -> Result<Volume, Error> {
        let operation =
            Operation::new(format!("read PersistentVolume {name}"), &Scope::All, GET_VOLUME).optional();
        is_name(&operation, name)?;
        let get = || path(&Scope::All, VOLUMES).get(name, &GetParams::default());
        self.read(&operation, get).await
    }
}

/// Whether `found` is the claim that this run created, and not another one of the same name.
fn is_made(new: &NewClaim, found: &Claim) -> bool {
    let labels = &found.metadata.labels;
    let source = found.spec.data_source.as_ref();
    labels.run.as_ref() == new.labels.get(names::RUN_LABEL)
        && labels.run_uid.as_ref() == new.labels.get(names::RUN_UID_LABEL)
        && source.is_some_and(|source| source.is_snapshot() && source.name == new.snapshot)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn after_a_lost_answer_only_what_was_asked_for_is_taken_for_ones_own() {
        let new = NewClaim {
            name: "b".into(),
            namespace: "app".into(),
            labels: BTreeMap::from([(names::RUN_LABEL, "r-1".into()), (names::RUN_UID_LABEL, "u-1".into())]),
            annotations: BTreeMap::new(),
            access_modes: Vec::new(),
            volume_mode: "Filesystem".into(),
            storage_class: None,
            size: "1Gi".into(),
            snapshot: "old".into(),
        };
        let with = |change: &dyn Fn(&mut Value)| {
            let mut object = new.object();
            change(&mut object);
            is_made(&new, &serde_json::from_value(object).expect("a claim"))
        };
        assert!(with(&|_| {}));
        assert!(!with(&|object| object["metadata"]["labels"]["volume-snapshotter/run"] = json!("r-2")));
        assert!(!with(&|object| object["metadata"]["labels"]["volume-snapshotter/run-uid"] = json!("u-2")));
        assert!(!with(&|object| object["spec"]["dataSource"] = json!(null)));
        assert!(!with(&|object| object["spec"]["dataSource"]["name"] = json!("other")));
        assert!(!with(&|object| object["spec"]["dataSource"]["kind"] = json!("PersistentVolumeClaim")));
    }
}
