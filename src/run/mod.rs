//! One run: find the claims, list the snapshots that the schedule owns, and then, for every claim
//! side by side, make a snapshot, wait until it is ready, and prune the older ones.
//!
//! Here is the order of things. Which claims there are is found in `find`; what is known of the
//! snapshots at any moment is in `ledger`, and what keeps that up to date in `follow`; the way of one
//! claim is `take` and then `prune`. Requests are made by [`crate::cluster`]; nothing here knows HTTP.

mod find;
mod follow;
mod ledger;
mod prune;
mod take;

use std::{cell::RefCell, collections::HashSet, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, Scope},
    names,
    report::{ClaimReport, End, Failure, Report, Stop},
    settings::Settings,
    snapshot::{ClaimId, Snapshot},
    text,
};
use ledger::Ledger;

/// What every step of a run has at hand.
struct Run<'a> {
    cluster: &'a Cluster,
    settings: &'a Settings,
    /// Where the snapshots are that are listed and watched.
    scope: Scope,
    /// The Kubernetes Job that this pod belongs to, or a random name.
    id: &'a str,
    /// Selects every snapshot that the schedule owns.
    owned: String,
    /// Selects, of these, what this pod makes in this run. Only they are waited for, so only they
    /// are watched; that another one changed is noticed when it is to be deleted.
    own: String,
    ledger: Ledger,
}

/// Everything that is to be reported, filled in step by step, so that a run that is stopped can
/// say how far it came.
#[derive(Default)]
struct Progress {
    claims: RefCell<Vec<ClaimReport>>,
    trouble: RefCell<Option<Failure>>,
}

/// The place in the report of one claim.
#[derive(Clone, Copy)]
struct Place<'a> {
    progress: &'a Progress,
    index: usize,
}

impl Place<'_> {
    fn update(&self, change: impl FnOnce(&mut ClaimReport)) {
        if let Some(report) = self.progress.claims.borrow_mut().get_mut(self.index) {
            change(report);
        }
    }
}

/// Runs once, for at most [`Settings::bound`], and until `stop` comes. `id` is the Kubernetes Job's
/// name: snapshots that it has made already are taken over.
pub async fn run(
    cluster: &Cluster,
    settings: &Settings,
    id: &str,
    stop: impl Future<Output = Stop>,
) -> Report {
    let began = Instant::now();
    let progress = Progress::default();
    tracing::info!(
        namespace = settings.namespace_selector.as_deref().unwrap_or(cluster.namespace()),
        job = settings.job,
        run = id,
        retention = %settings.retention,
        shard = (!settings.shard.is_whole()).then(|| settings.shard.label_value()),
        dry_run = settings.dry_run,
        bound_s = settings.bound().as_secs(),
        "the run begins"
    );
    let stopped = tokio::select! {
        biased;
        stop = stop => Some(stop),
        () = sleep(settings.bound()) => Some(Stop::OutOfTime),
        () = steps(cluster, settings, id, &progress) => None,
    };
    Report {
        claims: progress.claims.into_inner(),
        trouble: progress.trouble.into_inner(),
        stopped,
        dry_run: settings.dry_run,
        shard: settings.shard,
        took: began.elapsed(),
    }
}

/// The run without its end.
async fn steps(cluster: &Cluster, settings: &Settings, id: &str, progress: &Progress) {
    let (scope, claims) = match find::claims(cluster, settings, progress).await {
        Ok(found) => found,
        Err(failure) => {
            *progress.trouble.borrow_mut() = Some(failure);
            return;
        }
    };
    if claims.is_empty() {
        return;
    }

    let owned_by_schedule = format!("{}={}", names::JOB_LABEL, settings.job);
    let ids: HashSet<&ClaimId> = claims.iter().map(|(_, chosen)| &chosen.id).collect();
    let listed = cluster.snapshots(&scope, &owned_by_schedule, |object| {
        Snapshot::owned(object, &settings.job).filter(|(claim, _)| ids.contains(claim))
    });
    let (owned, resource_version) = match listed.await {
        Ok(listed) => listed,
        Err(error) => {
            *progress.trouble.borrow_mut() = Some(error.into());
            return;
        }
    };
    tracing::info!(
        claims = claims.len(),
        snapshots = owned.len(),
        "found {} to snapshot, with {} that this schedule owns",
        text::count(claims.len(), "claim"),
        text::count(owned.len(), "snapshot"),
    );

    let ledger = Ledger::new(&settings.job, ids.into_iter().cloned(), owned);
    let mut own = format!("{owned_by_schedule},{}={id}", names::RUN_LABEL);
    if !settings.shard.is_whole() {
        own.push_str(&format!(",{}={}", names::SHARD_LABEL, settings.shard.label_value()));
    }
    let run = Run { cluster, settings, scope, id, owned: owned_by_schedule, own, ledger };
    let mut taking: FuturesUnordered<_> = claims
        .iter()
        .map(|(index, chosen)| take_and_prune(&run, chosen, Place { progress, index: *index }))
        .collect();
    let all_taken = async { while taking.next().await.is_some() {} };
    if settings.dry_run {
        all_taken.await;
    } else {
        tokio::select! {
            () = all_taken => {}
            never = follow::follow(&run, resource_version) => match never {},
        }
    }
}

/// The whole way of one claim; the report says what came of it.
async fn take_and_prune(run: &Run<'_>, chosen: &find::Chosen, place: Place<'_>) {
    let taken_and_pruned = async {
        let own = take::take(run, chosen, place).await?;
        prune::prune(run, chosen, &own, place).await
    };
    match taken_and_pruned.await {
        Ok(end) => place.update(|report| report.end = end),
        Err(failure) => fail(place, &chosen.called, failure),
    }
}

/// Notes that there is no new snapshot of a claim, and says so.
fn fail(place: Place<'_>, claim: &str, failure: Failure) {
    tracing::error!(claim, "{}", failure.message);
    place.update(|report| report.end = End::Failed(failure));
}

/// A duration for a log line's field, in milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
