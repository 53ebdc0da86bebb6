//! What keeps the [`Ledger`](super::ledger::Ledger) up to date: one watch for the whole run, and
//! what is done where there is none.

use std::{convert::Infallible, pin::pin, time::Duration};

use futures::StreamExt;
use tokio::time::{Instant, sleep};

use super::Run;
use crate::{
    cluster::{Cause, Error, Event, Pause},
    snapshot::{ClaimId, Snapshot},
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
    Forbidden(Error),
}

/// Follows what this pod made in this run, from a list's `resource_version` on, until nobody is
/// interested any more.
pub(super) async fn follow(run: &Run<'_>, mut resource_version: String) -> Infallible {
    let mut pause = Pause::between_watches();
    loop {
        let began = Instant::now();
        match watch(run, &mut resource_version).await {
            Over::Ended => {}
            Over::Broken(error) => {
                tracing::warn!("reading instead of watching for now: {error}");
                read_own(run).await;
            }
            Over::Expired => {
                tracing::debug!("the watch expired; listing anew");
                match list(run, &run.owned).await {
                    Ok((owned, version)) => {
                        run.ledger.replace(owned, &version);
                        resource_version = version;
                    }
                    Err(error) => tracing::warn!("{error}"),
                }
            }
            Over::Forbidden(error) => {
                tracing::warn!("reading again and again instead of watching: {error}");
                read_again_and_again(run).await;
            }
        }
        if began.elapsed() > GOOD_WATCH {
            pause = Pause::between_watches();
        } else {
            sleep(pause.next(None)).await;
        }
    }
}

/// One watch, from its opening to its end. `resource_version` moves on with it.
async fn watch(run: &Run<'_>, resource_version: &mut String) -> Over {
    let over = |error: Error| match error.cause() {
        Cause::Expired => Over::Expired,
        Cause::Forbidden => Over::Forbidden(error),
        _ => Over::Broken(error),
    };
    let events = match run.cluster.watch(&run.scope, &run.own, resource_version).await {
        Ok(events) => events,
        Err(error) => return over(error),
    };
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Seen(object)) => {
                resource_version.clone_from(&object.metadata.resource_version);
                run.ledger.see(object);
            }
            Ok(Event::Gone(object)) => {
                resource_version.clone_from(&object.metadata.resource_version);
                run.ledger.forget(&object);
            }
            Ok(Event::Bookmark(version)) => *resource_version = version,
            Err(error) => return over(error),
        }
    }
    Over::Ended
}

/// Where we may not watch: reads in growing pauses.
async fn read_again_and_again(run: &Run<'_>) -> Infallible {
    let mut pause = Pause::between_reads();
    loop {
        sleep(pause.next(None)).await;
        read_own(run).await;
    }
}

/// Lists the snapshots that this run made, and no others: one small list serves all claims.
async fn read_own(run: &Run<'_>) {
    match list(run, &run.own).await {
        Ok((owned, version)) => run.ledger.replace_of_run(run.id, owned, &version),
        Err(error) => tracing::warn!("{error}"),
    }
}

async fn list(run: &Run<'_>, selector: &str) -> Result<(Vec<(ClaimId, Snapshot)>, String), Error> {
    run.cluster.snapshots(&run.scope, selector, |object| Snapshot::owned(object, &run.settings.job)).await
}
