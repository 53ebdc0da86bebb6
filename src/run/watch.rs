//! What keeps the [`SnapshotCache`](super::cache::SnapshotCache) up to date: one watch for the whole run,
//! and what is done where there is none.

use std::{convert::Infallible, pin::pin, time::Duration};

use futures::StreamExt;
use tokio::time::{Instant, sleep};

use super::Run;
use crate::cluster::{Backoff, DENIED_FOR, Error, ErrorKind, Event};

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

/// Watches what the schedule owns, from a list's `resource_version` on, until nobody is interested any
/// more.
pub(super) async fn watch(run: &Run<'_>, mut resource_version: String) -> Infallible {
    let mut backoff = Backoff::between_watches();
    let mut denied_since = None;
    loop {
        let began = Instant::now();
        let over = watch_once(run, &mut resource_version).await;
        if !matches!(over, Over::Denied(_)) {
            denied_since = None;
        }
        match over {
            Over::Ended => {}
            Over::Broken(error) => {
                tracing::warn!("reading instead of watching for now: {error}");
                read_made(run).await;
            }
            Over::Expired => {
                tracing::debug!("the watch expired; listing anew");
                match list_owned(run).await {
                    Ok(version) => resource_version = version,
                    Err(error) => tracing::warn!("{error}"),
                }
            }
            Over::Denied(error) => {
                if began.duration_since(*denied_since.get_or_insert(began)) >= DENIED_FOR {
                    tracing::warn!("reading again and again instead of watching: {error}");
                    read_again_and_again(run).await;
                }
                tracing::debug!("reading instead of watching for now: {error}");
                read_made(run).await;
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
async fn watch_once(run: &Run<'_>, resource_version: &mut String) -> Over {
    let over = |error: Error| match error.kind() {
        ErrorKind::Expired => Over::Expired,
        ErrorKind::Forbidden | ErrorKind::Unauthorized => Over::Denied(error),
        _ => Over::Broken(error),
    };
    let events = match run.cluster.watch(&run.scope, &run.owned, resource_version).await {
        Ok(events) => events,
        Err(error) => return over(error),
    };
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Applied(object)) => {
                resource_version.clone_from(&object.metadata.resource_version);
                run.cache.apply(object);
            }
            Ok(Event::Deleted(object)) => {
                resource_version.clone_from(&object.metadata.resource_version);
                run.cache.remove(&object);
            }
            Ok(Event::Bookmark(version)) => *resource_version = version,
            Err(error) => return over(error),
        }
        run.cache.heard_at(Instant::now());
    }
    Over::Ended
}

/// Where we may not watch: reads in growing pauses.
async fn read_again_and_again(run: &Run<'_>) -> Infallible {
    let mut backoff = Backoff::between_reads();
    loop {
        sleep(backoff.next(None)).await;
        read_made(run).await;
    }
}

/// Lists the snapshots that this run made, and no others: one small list serves all targets.
async fn read_made(run: &Run<'_>) {
    if let Err(error) = list_made(run).await {
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
