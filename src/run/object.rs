//! What is asked of the API server about a target's snapshots: VolumeSnapshots of a claim, VolumeGroupSnapshots of a
//! group. What becomes known of them goes into the cache at once.

use std::{borrow::Cow, collections::HashSet, time::Duration};

use super::{Run, cache::SnapshotCache, groups::GroupCache, recheck::Recheck, target::Target};
use crate::{
    api::{Lenient, Metadata, VolumeGroupSnapshot, VolumeSnapshot, VolumeSnapshotStatus},
    cluster::{Deleted, Error, ErrorKind, NewSnapshot, Slot, Stored},
    group::{Group, Member},
    snapshot::Snapshot,
};

/// A snapshot, or group, as it was read.
pub(super) struct Read {
    pub(super) uid: String,
    pub(super) resource_version: String,
    /// Whether the schedule owns it.
    pub(super) is_owned: bool,
    pub(super) is_terminating: bool,
    /// Whether claims can be made of it, all of a group's.
    pub(super) is_ready: bool,
}

/// A snapshot, or group, as it was stored.
pub(super) enum Object {
    Snapshot(VolumeSnapshot),
    Group(VolumeGroupSnapshot),
}

impl Stored for Object {
    fn metadata(&self) -> &Metadata {
        match self {
            Object::Snapshot(snapshot) => snapshot.metadata(),
            Object::Group(group) => group.metadata(),
        }
    }

    fn source(&self) -> Option<String> {
        match self {
            Object::Snapshot(snapshot) => snapshot.source(),
            Object::Group(group) => group.source(),
        }
    }

    fn class(&self) -> Option<&str> {
        match self {
            Object::Snapshot(snapshot) => snapshot.class(),
            Object::Group(group) => group.class(),
        }
    }

    fn claim_uid(&self) -> Option<&str> {
        match self {
            Object::Snapshot(snapshot) => snapshot.claim_uid(),
            Object::Group(group) => group.claim_uid(),
        }
    }
}

impl Object {
    /// What it is without any members.
    pub(super) fn snapshot(&self) -> Snapshot {
        match self {
            Object::Snapshot(snapshot) => Snapshot::from(snapshot.clone()),
            Object::Group(group) => Group::from(group.clone()).snapshot([]),
        }
    }
}

impl Run<'_> {
    /// The cache of groups, if the target is one.
    pub(super) fn groups_of(&self, target: &Target) -> Option<&GroupCache> {
        self.groups.as_deref().filter(|_| target.group.is_some())
    }

    /// The cache with the target's snapshots.
    pub(super) fn cache_of(&self, target: &Target) -> &SnapshotCache {
        self.groups_of(target).map_or(&*self.cache, |groups| &groups.snapshots)
    }

    /// Whether the target's snapshots were all known to be what the API server has within the last `duration`.
    pub(super) fn was_heard_within(&self, target: &Target, duration: Duration) -> bool {
        match self.groups_of(target) {
            None => self.cache.was_heard_within(duration),
            Some(groups) => groups.was_heard_within(duration),
        }
    }

    /// The names of the target's snapshots that claims are being restored from.
    pub(super) fn in_use<'a>(
        &self,
        target: &Target,
        recheck: &'a Recheck,
    ) -> Option<Cow<'a, HashSet<String>>> {
        let namespace = &target.id.namespace;
        let in_use = recheck.in_use(namespace)?;
        Some(match self.groups_of(target) {
            None => Cow::Borrowed(in_use),
            Some(groups) => Cow::Owned(groups.in_use(namespace, in_use)),
        })
    }

    /// Has the API server store a snapshot.
    ///
    /// # Errors
    /// As [`Cluster::create`](crate::cluster::Cluster::create).
    pub(super) async fn create(&self, target: &Target, new: &NewSnapshot) -> Result<Object, Error> {
        let dry_run = self.settings.dry_run;
        Ok(match target.group {
            None => Object::Snapshot(self.cluster.create(new, dry_run).await?),
            Some(_) => Object::Group(self.cluster.create_group(new, dry_run).await?),
        })
    }

    /// Notes what was stored. In a dry run nothing was, so nothing will ever change: it counts as ready.
    pub(super) fn note_stored(&self, target: &Target, object: Object) {
        let dry_run = self.settings.dry_run;
        match (object, self.groups_of(target)) {
            (Object::Snapshot(mut snapshot), _) => {
                if dry_run {
                    let ready =
                        VolumeSnapshotStatus { ready_to_use: Some(true), ..VolumeSnapshotStatus::default() };
                    snapshot.status = Lenient::Known(ready);
                }
                self.cache.apply(snapshot);
            }
            (Object::Group(group), Some(groups)) if dry_run => groups.apply_as_ready(&group.into()),
            (Object::Group(group), Some(groups)) => groups.apply(group.into()),
            (Object::Group(_), None) => {}
        }
    }

    /// Reads one of the target's snapshots.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of that name.
    pub(super) async fn read(&self, target: &Target, name: &str) -> Result<Read, Error> {
        let namespace = &target.id.namespace;
        match self.groups_of(target) {
            None => Ok(self.note(self.cluster.snapshot(namespace, name).await?)),
            Some(groups) => {
                let group = self.cluster.group(namespace, name).await?;
                let members = groups.members(group.uid());
                Ok(self.note_group(groups, group, &members))
            }
        }
    }

    /// Reads one of the target's snapshots, once, with a slot that is held already. Of a group, its members too.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none of that name, or a member is gone.
    pub(super) async fn read_in(&self, slot: &Slot<'_>, target: &Target, name: &str) -> Result<Read, Error> {
        let namespace = &target.id.namespace;
        let Some(groups) = self.groups_of(target) else {
            return Ok(self.note(self.cluster.snapshot_in(slot, namespace, name).await?));
        };
        let group = self.cluster.group_in(slot, namespace, name).await?;
        let mut members = Vec::new();
        for known in groups.members(group.uid()) {
            match self.cluster.snapshot_in(slot, namespace, &known.name).await {
                Ok(object) => members.extend(Member::of(object)),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    groups.remove_member(&known);
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        members.iter().for_each(|member| groups.apply_member(member.clone()));
        Ok(self.note_group(groups, group, &members))
    }

    fn note(&self, object: VolumeSnapshot) -> Read {
        let snapshot = Snapshot::from(object.clone());
        let is_owned = Snapshot::owned(object.clone(), &self.settings.schedule).is_some();
        self.cache.apply(object);
        Read::of(snapshot, is_owned)
    }

    fn note_group(&self, groups: &GroupCache, group: Group, members: &[Member]) -> Read {
        let label = self.settings.group_label.as_deref().unwrap_or_default();
        let is_owned = group.source(&self.settings.schedule, label).is_some();
        let snapshot = group.snapshot(members);
        groups.apply(group);
        Read::of(snapshot, is_owned)
    }

    /// Deletes exactly what `snapshot` remembers.
    ///
    /// # Errors
    /// As [`Cluster::delete`](crate::cluster::Cluster::delete).
    pub(super) async fn delete(
        &self,
        target: &Target,
        snapshot: &Snapshot,
        dry_run: bool,
        guard: impl AsyncFn(&Slot<'_>) -> bool,
    ) -> Result<Deleted, Error> {
        let namespace = &target.id.namespace;
        match target.group {
            None => self.cluster.delete(namespace, snapshot, dry_run, guard).await,
            Some(_) => self.cluster.delete_group(namespace, snapshot, dry_run, guard).await,
        }
    }

    /// Gives exactly this snapshot a label.
    ///
    /// # Errors
    /// As [`Cluster::label`](crate::cluster::Cluster::label).
    pub(super) async fn label(
        &self,
        target: &Target,
        name: &str,
        uid: &str,
        label: (&str, &str),
    ) -> Result<(), Error> {
        let namespace = &target.id.namespace;
        match target.group {
            None => self.cluster.label(namespace, name, uid, label).await,
            Some(_) => self.cluster.label_group(namespace, name, uid, label).await,
        }
    }
}

impl Read {
    fn of(snapshot: Snapshot, is_owned: bool) -> Self {
        Read {
            is_owned,
            is_terminating: snapshot.is_terminating(),
            is_ready: snapshot.ready && !snapshot.is_terminating(),
            uid: snapshot.uid,
            resource_version: snapshot.resource_version,
        }
    }
}
