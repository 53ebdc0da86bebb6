//! What keeps the caches up to date: for each kind of object one watch for the whole run, and what is done where
//! there is none.
//!
//! A run for claims alone watches the snapshots that the schedule owns. One with groups watches these groups and the
//! members of all groups as well.

use std::{convert::Infallible, pin::pin, time::Duration};

use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep};

use super::{Run, groups::GroupCache};
use crate::{
    api::{VolumeGroupSnapshot, VolumeSnapshot},
    cluster::{Backoff, DENIED_FOR, Error, ErrorKind, Event},
    group::Member,
};

/// A watch that lasted this long was a good one: the next that breaks does so for other reasons.
const GOOD_WATCH: Duration = Duration::from_secs(10);

/// Why a watch is over.
enum Over {
    /// It goes on from where it ended.
    Ended,
    /// It broke, or could not be opened: nobody knows what it did not tell.
    Broken(Error),
    /// It cannot go on: what happened meanwhile has to be listed.
    Expired,
    /// We may not watch.
    Denied(Error),
}

/// What is watched, and where what it tells goes.
pub(super) trait Watched {
    type Object;

    /// Opens a watch.
    async fn open(
        &self,
        version: &str,
    ) -> Result<impl Stream<Item = Result<Event<Self::Object>, Error>>, Error>;

    /// Takes an object in, which is gone if `is_deleted`. Returns its resourceVersion.
    fn take(&self, object: Self::Object, is_deleted: bool) -> String;

    fn heard_at(&self, at: Instant);

    /// Lists all of it, and returns the resourceVersion from which a watch goes on.
    async fn list(&self) -> Result<String, Error>;

    /// Lists what this run has made of it, at least.
    async fn list_made(&self) -> Result<(), Error>;
}

/// The snapshots of claims.
pub(super) struct Snapshots<'a>(pub(super) &'a Run<'a>);

impl Watched for Snapshots<'_> {
    type Object = VolumeSnapshot;

    async fn open(
        &self,
        version: &str,
    ) -> Result<impl Stream<Item = Result<Event<VolumeSnapshot>, Error>>, Error> {
        self.0.cluster.watch(&self.0.scope, &self.0.owned, version).await
    }

    fn take(&self, object: VolumeSnapshot, is_deleted: bool) -> String {
        let version = object.metadata.resource_version.clone();
        match is_deleted {
            true => self.0.cache.remove(&object),
            false => self.0.cache.apply(object),
        }
        version
    }

    fn heard_at(&self, at: Instant) {
        self.0.cache.heard_at(at);
    }

    async fn list(&self) -> Result<String, Error> {
        list_owned(self.0).await
    }

    async fn list_made(&self) -> Result<(), Error> {
        list_made(self.0).await
    }
}

/// The groups.
pub(super) struct Groups<'a>(pub(super) &'a Run<'a>, pub(super) &'a GroupCache);

impl Watched for Groups<'_> {
    type Object = VolumeGroupSnapshot;

    async fn open(
        &self,
        version: &str,
    ) -> Result<impl Stream<Item = Result<Event<VolumeGroupSnapshot>, Error>>, Error> {
        self.0.cluster.watch_groups(&self.0.scope, &self.0.owned, version).await
    }

    fn take(&self, object: VolumeGroupSnapshot, is_deleted: bool) -> String {
        let version = object.metadata.resource_version.clone();
        match is_deleted {
            true => self.1.remove(&object.metadata.uid, &version),
            false => self.1.apply(object.into()),
        }
        version
    }

    fn heard_at(&self, at: Instant) {
        self.1.groups_heard_at(at);
    }

    async fn list(&self) -> Result<String, Error> {
        self.1.list(self.0.cluster, &self.0.scope, &self.0.owned).await
    }

    async fn list_made(&self) -> Result<(), Error> {
        self.list().await.map(drop)
    }
}

/// The members of groups.
pub(super) struct Members<'a>(pub(super) &'a Run<'a>, pub(super) &'a GroupCache);

impl Watched for Members<'_> {
    type Object = VolumeSnapshot;

    async fn open(
        &self,
        version: &str,
    ) -> Result<impl Stream<Item = Result<Event<VolumeSnapshot>, Error>>, Error> {
        self.0.cluster.watch_members(&self.0.scope, version).await
    }

    fn take(&self, object: VolumeSnapshot, is_deleted: bool) -> String {
        let version = object.metadata.resource_version.clone();
        match (Member::of(object), is_deleted) {
            (Some(member), true) => self.1.remove_member(&member),
            (Some(member), false) => self.1.apply_member(member),
            (None, _) => {}
        }
        version
    }

    fn heard_at(&self, at: Instant) {
        self.1.members_heard_at(at);
    }

    async fn list(&self) -> Result<String, Error> {
        self.1.list_members(self.0.cluster, &self.0.scope).await
    }

    async fn list_made(&self) -> Result<(), Error> {
        self.list().await.map(drop)
    }
}

/// Watches from a list's `resource_version` on, until nobody is interested any more.
pub(super) async fn watch(watched: &impl Watched, mut resource_version: String) -> Infallible {
    let mut backoff = Backoff::between_watches();
    let mut denied_since = None;
    loop {
        let began = Instant::now();
        let over = watch_once(watched, &mut resource_version).await;
        if !matches!(over, Over::Denied(_)) {
            denied_since = None;
        }
        match over {
            Over::Ended => {}
            Over::Broken(error) => {
                tracing::warn!("reading instead of watching for now: {error}");
                read_made(watched).await;
            }
            Over::Expired => {
                tracing::debug!("the watch expired; listing anew");
                match watched.list().await {
                    Ok(version) => resource_version = version,
                    Err(error) => tracing::warn!("{error}"),
                }
            }
            Over::Denied(error) => {
                if began.duration_since(*denied_since.get_or_insert(began)) >= DENIED_FOR {
                    tracing::warn!("reading again and again instead of watching: {error}");
                    read_again_and_again(watched).await;
                }
                tracing::debug!("reading instead of watching for now: {error}");
                read_made(watched).await;
            }
        }
        if began.elapsed() > GOOD_WATCH {
            backoff = Backoff::between_watches();
        } else {
            sleep(backoff.next(None)).await;
        }
    }
}

/// One watch, from its opening to its end. `resource_version` moves on with it.
async fn watch_once(watched: &impl Watched, resource_version: &mut String) -> Over {
    let over = |error: Error| match error.kind() {
        ErrorKind::Expired => Over::Expired,
        ErrorKind::Forbidden | ErrorKind::Unauthorized => Over::Denied(error),
        _ => Over::Broken(error),
    };
    let from = resource_version.clone();
    let events = match watched.open(&from).await {
        Ok(events) => events,
        Err(error) => return over(error),
    };
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Applied(object)) => *resource_version = watched.take(object, false),
            Ok(Event::Deleted(object)) => *resource_version = watched.take(object, true),
            Ok(Event::Bookmark(version)) => *resource_version = version,
            Err(error) => return over(error),
        }
        watched.heard_at(Instant::now());
    }
    Over::Ended
}

/// Where we may not watch: reads in growing pauses.
async fn read_again_and_again(watched: &impl Watched) -> Infallible {
    let mut backoff = Backoff::between_reads();
    loop {
        sleep(backoff.next(None)).await;
        read_made(watched).await;
    }
}

/// Lists what this run made, and no others: one small list serves all targets.
async fn read_made(watched: &impl Watched) {
    if let Err(error) = watched.list_made().await {
        tracing::warn!("{error}");
    }
}

/// Lists what this run made, and brings the cache up to date with it.
///
/// # Errors
/// As [`Cluster::snapshots`](crate::cluster::Cluster::snapshots).
pub(super) async fn list_made(run: &Run<'_>) -> Result<(), Error> {
    let mut listing = run.cache.listing();
    let version = run.cluster.snapshots(&run.scope, &run.made, |listed| listing.take(listed)).await?;
    listing.ends_of_run(run.id, &version);
    Ok(())
}

/// Lists all that the schedule owns, brings the cache up to date with it, and returns the
/// resourceVersion from which a watch goes on.
///
/// # Errors
/// As [`Cluster::snapshots`](crate::cluster::Cluster::snapshots).
pub(super) async fn list_owned(run: &Run<'_>) -> Result<String, Error> {
    let mut listing = run.cache.listing();
    let version = run.cluster.snapshots(&run.scope, &run.owned, |listed| listing.take(listed)).await?;
    listing.ends(&version);
    Ok(version)
}

/// Lists the groups and their members, and brings the cache up to date with them.
///
/// # Errors
/// As [`Cluster::groups`](crate::cluster::Cluster::groups).
pub(super) async fn list_groups(run: &Run<'_>, groups: &GroupCache) -> Result<(), Error> {
    groups.list(run.cluster, &run.scope, &run.owned).await?;
    groups.list_members(run.cluster, &run.scope).await?;
    Ok(())
}
