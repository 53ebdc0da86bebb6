//! One run: discover the targets, list the snapshots that the schedule owns, and then, for every target
//! side by side, create a snapshot, wait until it is ready, and prune the older ones.
//!
//! Here is the order of things. Which claims are targets is found in `discover`. What is known of the
//! snapshots at any moment is in `cache`, and what keeps that up to date in `watch`. The way of one target is
//! `create`, `wait` and `prune`; what a deletion depends on besides is in `recheck`. Requests are made by
//! [`crate::cluster`]; nothing here knows HTTP.

mod cache;
mod create;
mod discover;
mod prune;
mod recheck;
mod shared;
mod target;
mod wait;
mod watch;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::{
    cluster::{Cluster, Error, Scope},
    names,
    report::{End, Failure, Report, Step, Stop},
    settings::Settings,
    snapshot::{ClaimId, Snapshot},
    text,
};
use cache::SnapshotCache;
use recheck::Rechecks;
use shared::Shared;
use target::{New, ReportSlot, Target};

/// How many targets may create or prune at a time, for each request that may be in flight. More than one,
/// because a request that pauses before it is repeated holds no slot, and must not hold up the others.
const ACTIVE_PER_REQUEST: usize = 8;

/// With more targets than this, a read that serves all of them waits for company.
const FEW: usize = 8;

/// How long it waits.
const COMPANY: Duration = Duration::from_secs(1);

/// What every step of a run has at hand.
struct Run<'a> {
    cluster: &'a Cluster,
    settings: &'a Settings,
    /// Where the snapshots are that are listed and watched.
    scope: Scope,
    /// The Job that this pod belongs to, or a random name.
    id: &'a str,
    /// Selects every snapshot that the schedule owns.
    owned: String,
    /// Selects, of these, what this pod made in this run.
    made: String,
    targets: HashSet<ClaimId>,
    cache: SnapshotCache,
    rechecks: Rechecks,
    made_lists: Shared<MadeList>,
    /// Bounds the targets that create or prune at a time; waiting takes no place.
    active: Semaphore,
}

/// When this run's snapshots were last listed, and whether that failed.
struct MadeList {
    began: Instant,
    error: Option<Error>,
}

impl Run<'_> {
    /// Brings the cache up to date with what this run has made, as of `after` or later: once for all targets
    /// that ask meanwhile.
    async fn made_again(&self, after: Instant) -> Result<(), Error> {
        let ask = async || {
            if self.targets.len() > FEW {
                sleep(COMPANY).await;
            }
            MadeList { began: Instant::now(), error: watch::list_made(self).await.err() }
        };
        let list = self.made_lists.get(|list| list.began >= after, ask).await;
        list.error.clone().map_or(Ok(()), Err)
    }
}

/// Everything that is to be reported, filled in step by step, so that a run that is stopped can
/// say how far it came.
#[derive(Default)]
struct Progress {
    claims: RefCell<Vec<ReportSlot>>,
    trouble: Cell<Option<Failure>>,
}

/// Runs once, for at most [`Settings::bound`], and until `stop` comes. `id` is the Job's name, for people.
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
        schedule = settings.schedule,
        run = id,
        retention = %settings.retention,
        shard = (!settings.shard.is_whole()).then(|| settings.shard.label_value()),
        dry_run = settings.dry_run,
        bound_s = settings.bound().as_secs(),
        "the run begins"
    );
    if !cluster.is_in_pod() && !settings.is_retention_given {
        tracing::warn!(
            "older snapshots stay: this is not a pod, and SNAPSHOT_RETENTION does not say what the schedule keeps"
        );
    }
    let stopped = tokio::select! {
        biased;
        stop = stop => Some(stop),
        () = sleep(settings.bound()) => Some(Stop::OutOfTime),
        trouble = steps(cluster, settings, id, &progress) => {
            if let Err(trouble) = trouble {
                progress.trouble.set(Some(trouble));
            }
            None
        }
    };
    Report {
        claims: progress.claims.into_inner().iter().map(ReportSlot::get).collect(),
        trouble: progress.trouble.into_inner(),
        stopped,
        dry_run: settings.dry_run,
        shard: settings.shard,
        took: began.elapsed(),
    }
}

/// The run without its end.
///
/// # Errors
/// If the run as a whole came to nothing.
async fn steps(cluster: &Cluster, settings: &Settings, id: &str, progress: &Progress) -> Result<(), Failure> {
    let (scope, targets) = discover::targets(cluster, settings, progress).await?;
    if targets.is_empty() {
        return Ok(());
    }
    let owned = format!("{}={}", names::SCHEDULE_LABEL, settings.schedule);
    let ids: HashSet<ClaimId> = targets.iter().map(|target| target.id.clone()).collect();
    let began = Instant::now();
    let listed = cluster.snapshots(&scope, &owned, |object| {
        Snapshot::owned(object, &settings.schedule).filter(|(claim, _)| ids.contains(claim))
    });
    let (snapshots, resource_version) = listed.await?;
    tracing::info!(
        claims = targets.len(),
        snapshots = snapshots.len(),
        "found {} to snapshot, with {} that this schedule owns",
        text::count(targets.len(), "claim"),
        text::count(snapshots.len(), "snapshot"),
    );
    warn_of_odd_ones(snapshots.iter().map(|(_, snapshot)| snapshot));

    let mut made = format!("{owned},{}={id}", names::RUN_LABEL);
    if !settings.shard.is_whole() {
        made.push_str(&format!(",{}={}", names::SHARD_LABEL, settings.shard.label_value()));
    }
    let run = Run {
        cluster,
        settings,
        scope,
        id,
        made,
        owned,
        cache: SnapshotCache::new(&settings.schedule, ids.iter().cloned(), snapshots, began),
        rechecks: Rechecks::new(targets.len()),
        targets: ids,
        made_lists: Shared::new(),
        active: Semaphore::new(settings.concurrency * ACTIVE_PER_REQUEST),
    };
    let mut under_way: FuturesUnordered<_> =
        targets.iter().map(|target| snapshot_and_prune(&run, target)).collect();
    let all = async { while under_way.next().await.is_some() {} };
    if settings.dry_run {
        all.await;
    } else {
        tokio::select! {
            () = all => {}
            never = watch::watch(&run, resource_version) => match never {},
        }
    }
    Ok(())
}

/// Says of snapshots whose status makes no sense that there are some, once for all.
fn warn_of_odd_ones<'a>(snapshots: impl Iterator<Item = &'a Snapshot> + Clone) {
    let say = |what: &str, is_odd: fn(&Snapshot) -> bool| {
        let mut odd = snapshots.clone().filter(|snapshot| is_odd(snapshot));
        if let Some(first) = odd.next() {
            let more = text::count(1 + odd.count(), "snapshot");
            tracing::warn!(snapshot = first.name, "{more}, {} first: {what}", first.name);
        }
    };
    say("the status cannot be read; such snapshots count as not ready, and stay", |snapshot| {
        snapshot.unreadable
    });
    say(
        "the storage system's clock and the API server's differ by minutes, or the snapshot controller was slow; the \
         later time counts",
        |snapshot| snapshot.clocks_differ() && snapshot.created < Timestamp::MAX,
    );
}

/// The whole way of one target; the report says what came of it. What is not needed while it waits is on
/// the heap, and only while it is needed: thousands wait.
async fn snapshot_and_prune(run: &Run<'_>, target: &Target) {
    let report = &target.report;
    let new = create_and_wait(run, target).await;
    run.rechecks.settled();
    let ended = match new {
        Ok(new) => {
            report.update(|report| report.end = End::Unfinished(Step::Pruning));
            Box::pin(prune::prune(run, target, &new)).await
        }
        Err(failure) => Err(failure),
    };
    match ended {
        Ok(end) => report.update(|report| report.end = end),
        Err(failure) => report.fail(&target.called, failure),
    }
}

async fn create_and_wait(run: &Run<'_>, target: &Target) -> Result<New, Failure> {
    let report = &target.report;
    let new = {
        let Ok(_active) = run.active.acquire().await else {
            return Err(Failure { message: "no more requests are made".to_owned(), is_transient: true });
        };
        report.update(|report| report.end = End::Unfinished(Step::Creating));
        Box::pin(create::create(run, target)).await?
    };
    report.update(|report| {
        report.snapshot = Some(new.name.clone());
        report.taken_over = new.is_taken_over;
        report.end = End::Unfinished(Step::AwaitingReady);
    });
    if !run.settings.dry_run {
        wait::wait(run, target, &new).await?;
        report.update(|report| report.ready_after = Some(new.began.elapsed()));
    }
    Ok(new)
}

/// A duration for a log line's field, in milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
