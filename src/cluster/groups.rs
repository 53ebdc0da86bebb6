//! Group snapshots: the requests about VolumeGroupSnapshots, and the lists and watches of their members.
//!
//! Members are VolumeSnapshots that the snapshot controller makes and names. They carry no labels, and no selector
//! finds them by their owner: they are looked for among the snapshots of no schedule.

use futures::Stream;
use kube::{
    api::{GetParams, Patch, PatchParams, PostParams},
    core::request::Error as BuildError,
};
use serde_json::json;

use super::{
    CREATE_GROUP, Cluster, DELETE_GROUP, Deleted, Error, Event, GET_GROUP, GROUPS, LIST, LIST_GROUPS, Listed,
    NewSnapshot, PATCH_GROUP, SNAPSHOTS, Scope, Slot, WATCH, WATCH_GROUPS, is_name, operation::Operation,
    path, request::decode,
};
use crate::{
    api::{VolumeGroupSnapshot, VolumeSnapshot},
    group::{Group, Member},
    names,
    snapshot::Snapshot,
};

/// Selects the snapshots of no schedule, among which are all members of groups.
fn of_no_schedule() -> String {
    format!("!{}", names::SCHEDULE_LABEL)
}

impl Cluster {
    /// Lists the group snapshots that a label selector matches, hands each to `take`, and returns the resourceVersion
    /// from which a watch continues.
    ///
    /// # Errors
    /// [`super::ErrorKind::NotServed`] if the cluster does not serve `groupsnapshot.storage.k8s.io/v1`.
    pub async fn groups(
        &self,
        scope: &Scope,
        selector: &str,
        mut take: impl FnMut(Listed<Group>),
    ) -> Result<String, Error> {
        let what = format!("list the group snapshots that match {selector:?}");
        let operation = Operation::new(what, scope, LIST_GROUPS);
        let read = |listed: Listed<VolumeGroupSnapshot>| {
            listed.map(|object| Some(Group::from(object))).into_iter().for_each(&mut take);
        };
        self.list(&operation, &path(scope, GROUPS), selector, read).await
    }

    /// Lists the members of all group snapshots, hands each to `take`, and returns the resourceVersion from which a
    /// watch continues.
    ///
    /// # Errors
    /// As [`Cluster::snapshots`].
    pub async fn members(
        &self,
        scope: &Scope,
        mut take: impl FnMut(Listed<Member>),
    ) -> Result<String, Error> {
        let operation = Operation::new("list the members of group snapshots".to_owned(), scope, LIST);
        let read = |listed: Listed<VolumeSnapshot>| listed.map(Member::of).into_iter().for_each(&mut take);
        self.list(&operation, &path(scope, SNAPSHOTS), &of_no_schedule(), read).await
    }

    /// Reads a group snapshot.
    ///
    /// # Errors
    /// [`super::ErrorKind::NotFound`] if there is none of that name.
    pub async fn group(&self, namespace: &str, name: &str) -> Result<Group, Error> {
        let (scope, operation) = read_group(namespace, name)?;
        let get = || path(&scope, GROUPS).get(name, &GetParams::default());
        Ok(Group::from(self.read::<VolumeGroupSnapshot>(&operation, get).await?))
    }

    /// Reads a group snapshot, once, with a slot that is held already.
    ///
    /// # Errors
    /// As [`Cluster::group`], and whatever may pass in a moment.
    pub async fn group_in(&self, slot: &Slot<'_>, namespace: &str, name: &str) -> Result<Group, Error> {
        let (scope, operation) = read_group(namespace, name)?;
        let get = || path(&scope, GROUPS).get(name, &GetParams::default());
        let body = slot.send(&operation, &get, &mut self.requests.budget()).await?;
        Ok(Group::from(decode::<VolumeGroupSnapshot>(&operation, &body)?))
    }

    /// Watches the group snapshots that a label selector matches, as [`Cluster::watch`] does snapshots.
    ///
    /// # Errors
    /// As [`Cluster::watch`].
    pub async fn watch_groups(
        &self,
        scope: &Scope,
        selector: &str,
        resource_version: &str,
    ) -> Result<impl Stream<Item = Result<Event<VolumeGroupSnapshot>, Error>> + use<>, Error> {
        let what = format!("watch the group snapshots that match {selector:?}");
        let operation = Operation::new(what, scope, WATCH_GROUPS);
        self.watch_some(operation, &path(scope, GROUPS), selector, resource_version).await
    }

    /// Watches the snapshots of no schedule, among which are the members of all groups.
    ///
    /// # Errors
    /// As [`Cluster::watch`].
    pub async fn watch_members(
        &self,
        scope: &Scope,
        resource_version: &str,
    ) -> Result<impl Stream<Item = Result<Event<VolumeSnapshot>, Error>> + use<>, Error> {
        let operation = Operation::new("watch the members of group snapshots".to_owned(), scope, WATCH);
        self.watch_some(operation, &path(scope, SNAPSHOTS), &of_no_schedule(), resource_version).await
    }

    /// Makes a group snapshot, as [`Cluster::create`] makes a snapshot.
    ///
    /// # Errors
    /// As [`Cluster::create`].
    pub async fn create_group(&self, new: &NewSnapshot, dry_run: bool) -> Result<VolumeGroupSnapshot, Error> {
        let namespace = new.source.namespace();
        let scope = Scope::Namespace(namespace.to_owned());
        let what = format!("make group snapshot {} of {}", new.name, new.source);
        let operation = Operation::new(what, &scope, CREATE_GROUP);
        let parameters = PostParams { dry_run, ..PostParams::default() };
        let post = || {
            let body = serde_json::to_vec(&new.group_object()).map_err(BuildError::SerializeBody)?;
            path(&scope, GROUPS).create(&parameters, body)
        };
        let find = async || {
            let (scope, operation) = read_group(namespace, &new.name)?;
            let get = || path(&scope, GROUPS).get(&new.name, &GetParams::default());
            let found: VolumeGroupSnapshot = self.read(&operation, get).await?;
            Ok(new.is(&found).then_some(found))
        };
        self.create_or_find(&operation, &post, dry_run, find).await
    }

    /// Deletes exactly the group snapshot, in exactly the state, that `group` remembers, as [`Cluster::delete`] does a
    /// snapshot. Its members go with it.
    ///
    /// # Errors
    /// As [`Cluster::delete`].
    pub async fn delete_group(
        &self,
        namespace: &str,
        group: &Snapshot,
        dry_run: bool,
        guard: impl AsyncFn(&Slot<'_>) -> bool,
    ) -> Result<Deleted, Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let operation = Operation::new(format!("delete group snapshot {}", group.name), &scope, DELETE_GROUP);
        self.delete_object(&operation, &path(&scope, GROUPS), group, dry_run, guard).await
    }

    /// Gives exactly this group snapshot a label, as [`Cluster::label`] does a snapshot.
    ///
    /// # Errors
    /// As [`Cluster::label`].
    pub async fn label_group(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        label: (&str, &str),
    ) -> Result<(), Error> {
        let scope = Scope::Namespace(namespace.to_owned());
        let what = format!("label group snapshot {name} with {}", label.0);
        let operation = Operation::new(what, &scope, PATCH_GROUP);
        is_name(&operation, name)?;
        let (key, value) = label;
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "labels": {key: value}}}));
        let send = || path(&scope, GROUPS).patch(name, &PatchParams::default(), &patch);
        self.requests.send(&operation, &send).await?;
        Ok(())
    }
}

fn read_group(namespace: &str, name: &str) -> Result<(Scope, Operation), Error> {
    let scope = Scope::Namespace(namespace.to_owned());
    let operation = Operation::new(format!("read group snapshot {name}"), &scope, GET_GROUP);
    is_name(&operation, name)?;
    Ok((scope, operation))
}
