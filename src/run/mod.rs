//! One run: discover the targets, list the snapshots that the schedule owns, and then, for every target
//! side by side, create a snapshot, wait until it is ready, and prune the older ones.
//!
//! Here is the order of things. Which claims are targets is found in `discover`, and which of them are taken as groups
//! in `gather`. What is known of the snapshots at any moment is in `cache`, of groups in `groups`, and what keeps that
//! up to date in `watch`; what is asked about single snapshots and groups in `object`. How many may be
//! pending at a time is in `pace`. The way of one target is
//! `create`, `wait` and `prune`, with `hooks` around the first two where pods ask for them; what a deletion depends on besides is in `recheck`. Requests are made by
//! [`crate::cluster`]; nothing here knows HTTP.

mod cache;
mod compact;
mod create;
mod discover;
mod gather;
mod groups;
mod hooks;
mod object;
mod pace;
mod prune;
mod recheck;
mod shared;
mod target;
mod wait;
mod watch;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    convert::Infallible,
    rc::Rc,
    time::Duration,
};

use futures::{StreamExt, stream, stream::FuturesUnordered};
use k8s_openapi::jiff::Timestamp;
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    cluster::{Cluster, Error, Scope},
    names,
    report::{End, Failure, Reason, Report, Step, Stop},
    retention::due::{Asked, not_due},
    settings::Settings,
    snapshot::Snapshot,
    text,
};
use cache::SnapshotCache;
use groups::GroupCache;
use hooks::{Frozen, Plan, Turn};
use pace::Pace;
use recheck::Rechecks;
use shared::Shared;
use target::{GroupClaims, KnownClaim, New, ReportSlot, Target};

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
    /// The number of targets.
    targets: usize,
    cache: Rc<SnapshotCache>,
    /// The groups, if there are any among the targets.
    groups: Option<Rc<GroupCache>>,
    /// Whether there are claims among the targets that are in no group.
    has_claims: bool,
    pace: Pace,
    rechecks: Rechecks,
    made_lists: Shared<MadeList>,
    group_lists: Shared<MadeList>,
    /// Bounds the targets that create at a time, and make room for it; waiting takes no place. As many are pruned
    /// at a time.
    active: Semaphore,
    /// Bounds the units whose pods are frozen at a time.
    freezing: Semaphore,
    frozen: &'a Frozen,
}

/// When this run's snapshots were last listed, and whether that failed.
struct MadeList {
    began: Instant,
    error: Option<Error>,
}

impl Run<'_> {
    /// Brings the cache up to date with what this run has made, as of `after` or later: once for all targets
    /// that ask meanwhile.
    async fn made_again(&self, target: &Target, after: Instant) -> Result<(), Error> {
        let groups = self.groups_of(target);
        let ask = async || {
            if self.targets > FEW {
                sleep(COMPANY).await;
            }
            let began = Instant::now();
            let listed = match groups {
                None => watch::list_made(self).await,
                Some(groups) => watch::list_groups(self, groups).await,
            };
            MadeList { began, error: listed.err() }
        };
        let lists = if groups.is_some() { &self.group_lists } else { &self.made_lists };
        let list = lists.get(|list| list.began >= after, ask).await;
        list.error.clone().map_or(Ok(()), Err)
    }
}

/// Everything that is to be reported, filled in step by step, so that a run that is stopped can
/// say how far it came.
#[derive(Default)]
struct Progress {
    claims: RefCell<Vec<ReportSlot>>,
    trouble: Cell<Option<Failure>>,
    /// The claims of each group, with the report on the group.
    groups: RefCell<Vec<(Rc<GroupClaims>, ReportSlot)>>,
    /// What is known of the snapshots, once all of them were listed.
    cache: RefCell<Option<Rc<SnapshotCache>>>,
    group_cache: RefCell<Option<Rc<GroupCache>>>,
    /// What the targets that have to wait for others, and hooks, take besides [`Settings::bound`].
    further_waits: Cell<Duration>,
    frozen: Frozen,
}

impl Progress {
    /// Fills in what is known at the end: what there is of snapshots, and for the claims of a group what came of it.
    fn conclude(&self) {
        if let Some(cache) = self.cache.take() {
            self.claims.borrow().iter().for_each(|slot| slot.take_stock(&cache));
        }
        let cache = self.group_cache.take();
        for (claims, slot) in self.groups.take() {
            let mut members = BTreeMap::new();
            if let Some(cache) = &cache {
                slot.take_stock(&cache.snapshots);
                let name = slot.get().snapshot.unwrap_or_default();
                members = cache.members_by_claim(&slot.id(), &name);
            }
            claims.share(&slot, &members);
        }
    }

    /// Ends when the run's time is over.
    async fn out_of_time(&self, began: Instant, settings: &Settings) {
        loop {
            let end = began + settings.bound() + self.further_waits.get();
            if Instant::now() >= end {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// Runs once, until `stop` comes, and for at most [`Settings::bound`], or as much longer as targets wait for
/// others to become ready. What hooks have frozen is thawed before this returns. `id` is the Job's name, for people.
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
        () = progress.out_of_time(began, settings) => Some(Stop::OutOfTime),
        trouble = steps(cluster, settings, id, &progress) => {
            if let Err(trouble) = trouble {
                progress.trouble.set(Some(trouble));
            }
            None
        }
    };
    // The steps are gone with all that they were doing, so nothing freezes any more.
    if let Err(failure) = progress.frozen.thaw(cluster, stopped).await {
        let trouble = progress.trouble.take();
        progress.trouble.set(Some(match trouble {
            None => failure,
            // Neither hides the other.
            Some(trouble) => failure.advising(&trouble.message),
        }));
    }
    progress.conclude();
    Report {
        claims: progress.claims.into_inner().into_iter().map(ReportSlot::into_report).collect(),
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
    let (scope, mut targets, pods) = discover::targets(cluster, settings, progress).await?;
    if targets.is_empty() {
        return Ok(());
    }
    let owned = format!("{}={}", names::SCHEDULE_LABEL, settings.schedule);
    // Also about the claims that cannot be snapshotted now: what there is of them is reported.
    let alone = progress
        .claims
        .borrow()
        .iter()
        .filter(|slot| !slot.is_in_group())
        .map(ReportSlot::id)
        .collect::<Vec<_>>();
    let cache = Rc::new(SnapshotCache::new(&settings.schedule, alone));
    cache.share(targets.iter().filter_map(|target| Some(Rc::clone(&target.claim.as_ref()?.uid))));
    let has_claims = targets.iter().any(|target| target.group.is_none());
    let began = Instant::now();
    let resource_version = match has_claims {
        true => cluster.snapshots(&scope, &owned, |listed| cache.fill(listed)).await?,
        false => String::new(),
    };
    let mut snapshots = cache.filled(began);
    if has_claims {
        progress.cache.replace(Some(Rc::clone(&cache)));
    }
    let groups = match &settings.group_label {
        Some(label) if targets.iter().any(|target| target.group.is_some()) => {
            let ids: Vec<_> = progress.groups.borrow().iter().map(|(_, slot)| slot.id()).collect();
            let groups = GroupCache::new(&settings.schedule, label, ids);
            match listed(cluster, &scope, &owned, groups).await {
                Ok(groups) => Some(groups),
                // Claims that are in no group do not suffer from that.
                Err(error) => {
                    targets.retain(|target| {
                        let stays = target.group.is_none();
                        if !stays {
                            target.fail(error.clone().into());
                        }
                        stays
                    });
                    None
                }
            }
        }
        _ => None,
    };
    let group_cache = groups.as_ref().map(|(groups, ..)| Rc::clone(groups));
    progress.group_cache.replace(group_cache.clone());
    let cache_of = |target: &Target| match (&target.group, &groups) {
        (Some(_), Some((groups, ..))) => &groups.snapshots,
        _ => &*cache,
    };
    let of_groups = targets.iter().filter(|target| target.group.is_some());
    snapshots += of_groups.map(|target| cache_of(target).of_claim(&target.id).len()).sum::<usize>();
    let claims: usize = targets.iter().map(|target| target.claims().len()).sum();
    tracing::info!(
        claims,
        groups =
            group_cache.is_some().then(|| targets.iter().filter(|target| target.group.is_some()).count()),
        snapshots,
        "found {} to snapshot, with {} that this schedule owns",
        text::count(claims, "claim"),
        text::count(snapshots, "snapshot"),
    );
    warn_of_odd_ones(&cache);
    if let Some(groups) = &group_cache {
        warn_of_odd_ones(&groups.snapshots);
    }
    let targets = due(targets, &cache_of, settings, cluster.now());
    if targets.is_empty() {
        return Ok(());
    }
    let targets = in_order(targets, &cache_of);
    let pace = Pace::new(targets.len(), settings.max_pending, settings.longest_wait());
    let plan = Plan::new(pods, &targets);
    let waits = settings.longest_wait().saturating_mul(pace.waves(targets.len()) - 1);
    progress.further_waits.set(waits.saturating_add(plan.longest(settings)));

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
        cache: Rc::clone(&cache),
        groups: group_cache,
        has_claims,
        pace,
        rechecks: Rechecks::new(targets.len()),
        targets: targets.len(),
        made_lists: Shared::new(),
        group_lists: Shared::new(),
        active: Semaphore::new(settings.concurrency * ACTIVE_PER_REQUEST),
        freezing: Semaphore::new(settings.concurrency),
        frozen: &progress.frozen,
    };
    if settings.dry_run {
        plan.describe();
        snapshot_and_prune(&run, &targets, &Plan::default()).await;
    } else {
        tokio::select! {
            () = snapshot_and_prune(&run, &targets, &plan) => {}
            never = watch_all(&run, resource_version, groups.as_ref()) => match never {},
        }
    }
    Ok(())
}

/// A cache of groups, with the resourceVersions of the lists of groups and of members.
type ListedGroups = (Rc<GroupCache>, String, String);

/// Fills a cache of groups.
async fn listed(
    cluster: &Cluster,
    scope: &Scope,
    owned: &str,
    groups: GroupCache,
) -> Result<ListedGroups, Error> {
    let version = groups.list(cluster, scope, owned).await?;
    let of_members = groups.list_members(cluster, scope).await?;
    Ok((Rc::new(groups), version, of_members))
}

/// Keeps the caches up to date for as long as somebody is interested. `version` is of the list of snapshots; with the
/// cache of groups come those of its two lists.
async fn watch_all(run: &Run<'_>, version: String, groups: Option<&ListedGroups>) -> Infallible {
    let snapshots = async {
        match run.has_claims {
            true => watch::watch(&watch::Snapshots(run), version).await,
            false => std::future::pending().await,
        }
    };
    let Some((cache, of_groups, of_members)) = groups else { return snapshots.await };
    let groups = watch::Groups(run, cache);
    let members = watch::Members(run, cache);
    tokio::select! {
        never = snapshots => never,
        never = watch::watch(&groups, of_groups.clone()) => never,
        never = watch::watch(&members, of_members.clone()) => never,
    }
}

/// Those whose time has come. The others wait for a later run, and what they have is not pruned until then.
/// `now` is the API server's time.
fn due<'c>(
    targets: Vec<Target>,
    cache_of: &impl Fn(&Target) -> &'c SnapshotCache,
    settings: &Settings,
    now: Timestamp,
) -> Vec<Target> {
    let is_due = |target: &Target| {
        let Some(every) = target.every(settings) else { return true };
        let asked = Asked {
            every,
            claim: target.claim.as_ref().map(KnownClaim::identity),
            run: settings.run_id.as_deref(),
            run_uid: settings.run_uid.as_deref(),
            now,
            longest_wait: settings.longest_wait(),
        };
        let Some(not_due) = not_due(&cache_of(target).of_claim(&target.id), &asked) else { return true };
        let words =
            format!("not due before {} (every {every}): {}", text::minute(not_due.next), not_due.said());
        let (claim, group) = target.fields();
        tracing::info!(claim, group, snapshot = not_due.newest, "{words}");
        target.report.update(|report| report.end = End::NotDue(words));
        false
    };
    targets.into_iter().filter(is_due).collect()
}

/// Those whose newest ready snapshot is the oldest come first, so that what this run does not get to is what
/// the next one begins with.
fn in_order<'c>(mut targets: Vec<Target>, cache_of: &impl Fn(&Target) -> &'c SnapshotCache) -> Vec<Target> {
    targets.sort_by_cached_key(|target| cache_of(target).newest_ready(&target.id));
    targets
}

/// Says of snapshots whose status makes no sense that there are some, once for all.
fn warn_of_odd_ones(cache: &SnapshotCache) {
    let (mut unreadable, mut odd_clocks) = (Vec::new(), Vec::new());
    cache.for_each_unusual(|snapshot| {
        if snapshot.unreadable {
            unreadable.push(snapshot.name.clone());
        }
        if snapshot.clocks_differ() && snapshot.created < Timestamp::MAX {
            odd_clocks.push(snapshot.name.clone());
        }
    });
    let say = |odd: Vec<String>, what: &str| {
        if let Some(first) = odd.iter().min() {
            tracing::warn!(snapshot = first, "{}, {first} first: {what}", text::count(odd.len(), "snapshot"));
        }
    };
    say(unreadable, "the status cannot be read; such snapshots count as not ready, and stay");
    say(
        odd_clocks,
        "the storage system's clock and the API server's differ by minutes, or the snapshot controller was slow; the \
         later time counts",
    );
}

/// The whole way of all targets; their reports say what came of it. As many are created as may be pending, and
/// each that is ready is handed on to be pruned. What is under way has a future; what waits for its turn is an
/// entry in a list: there may be thousands. Targets that hooks hold together are one.
async fn snapshot_and_prune(run: &Run<'_>, targets: &[Target], plan: &Plan) {
    let (ready, mut to_prune) = mpsc::unbounded_channel();
    let create = async move {
        let settle = |at: usize, new: Result<New, Failure>| {
            run.rechecks.settled();
            let Some(target) = targets.get(at) else { return };
            match new {
                // The other end is open as long as this one.
                Ok(new) => drop(ready.send((target, new))),
                Err(failure) => target.fail(failure),
            }
        };
        let settle = &settle;
        let mut queue = targets.iter().enumerate();
        let mut pending = FuturesUnordered::new();
        loop {
            while run.pace.allows(pending.len())
                && let Some((at, target)) = queue.next()
            {
                let turn = plan.turn(at);
                if !matches!(turn, Turn::TakenAlong) {
                    pending.push(async move {
                        match turn {
                            Turn::First(unit) => {
                                Box::pin(hooks::snapshot(run, targets, plan, unit, settle)).await;
                            }
                            _ => settle(at, create_and_wait(run, target).await),
                        }
                    });
                }
            }
            tokio::select! {
                ended = pending.next() => if ended.is_none() { break },
                () = run.pace.raised() => {}
            }
        }
    };
    let prune = stream::poll_fn(|context| to_prune.poll_recv(context)).for_each_concurrent(
        run.settings.concurrency * ACTIVE_PER_REQUEST,
        async |(target, new): (&Target, New)| match Box::pin(prune::prune(run, target, &new)).await {
            Ok(end) => target.report.update(|report| report.end = end),
            Err(failure) => target.fail(failure),
        },
    );
    tokio::join!(create, prune);
}

/// The way of one target until its new snapshot is ready. What is not needed while it waits is on the heap,
/// and only while it is needed.
async fn create_and_wait(run: &Run<'_>, target: &Target) -> Result<New, Failure> {
    let mut new = {
        let Ok(_active) = run.active.acquire().await else {
            let message = "no more requests are made".to_owned();
            return Err(Failure { message, is_transient: true, reason: Reason::Other });
        };
        Box::pin(create_now(run, target)).await?
    };
    await_ready(run, target, &mut new, &|_| ()).await?;
    Ok(new)
}

/// Creates a target's new snapshot, whoever else creates meanwhile.
async fn create_now(run: &Run<'_>, target: &Target) -> Result<New, Failure> {
    let report = &target.report;
    report.update(|report| report.end = End::Unfinished(Step::Creating));
    let new = create::create(run, target).await?;
    report.update(|report| {
        report.snapshot = Some(new.name.clone());
        report.taken_over = new.is_taken_over;
        report.end = End::Unfinished(Step::AwaitingReady);
    });
    Ok(new)
}

/// Waits until it is ready. All that is learned of it meanwhile is shown to `see`.
async fn await_ready(
    run: &Run<'_>,
    target: &Target,
    new: &mut New,
    see: &dyn Fn(&Snapshot),
) -> Result<(), Failure> {
    let report = &target.report;
    if !run.settings.dry_run {
        wait::wait(run, target, new, see).await?;
        report.update(|report| report.ready_after = Some(new.began.elapsed()));
    }
    new.ready = Instant::now();
    report.update(|report| report.end = End::Unfinished(Step::Pruning));
    Ok(())
}

/// A duration for a log line's field, in milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
