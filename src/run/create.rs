//! The new snapshot of one target: made, or taken over from an earlier attempt of this Job.
//!
//! When it is ready is in [`super::wait`], what happens to the older ones in [`super::prune`].

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Run, prune,
    target::{KnownClaim, New, Target},
};
use crate::{
    api::{Lenient, VolumeSnapshot, VolumeSnapshotStatus},
    cluster::{Backoff, Deleted, Error, ErrorKind, NewSnapshot},
    names,
    report::{Failure, Reason},
    snapshot::Snapshot,
};

/// How many names are tried if they are taken. Two hundred years of hourly snapshots fill less
/// than a thousandth of the names, so one in a row of three is free.
const NAME_ATTEMPTS: usize = 3;

/// How long a create is repeated after older snapshots were deleted to make room under a quota. The
/// quota counts a snapshot until its finalizers are gone and the quota controller has seen that.
const QUOTA_WAIT: Duration = Duration::from_secs(20);

/// How often it is tried to take back a snapshot that admission has changed.
const TAKE_BACK_ATTEMPTS: usize = 3;

/// Makes the snapshot, unless an earlier attempt of this Job did.
///
/// # Errors
/// If there is none: what is wrong, and nothing older may be deleted.
pub(super) async fn create(run: &Run<'_>, target: &Target) -> Result<New, Failure> {
    let claim = target.called.as_str();
    if let Some(made) = made_before(run, target) {
        let (snapshot, created) = (made.name.as_str(), made.created);
        tracing::info!(claim, snapshot, made = %created, "going on with the snapshot of this Job's earlier attempt");
        return Ok(New {
            name: made.name,
            uid: made.uid,
            seen_before: Vec::new(),
            began: Instant::now(),
            ready: Instant::now(),
            is_taken_over: true,
        });
    }
    // Only the newest can have been made in the same second. No more is held while the create is under way.
    let newest = {
        let known = run.cache.of_claim(&target.id);
        let newest = known.iter().map(|snapshot| snapshot.created).max();
        let newest_ones = known.iter().filter(|snapshot| Some(snapshot.created) == newest);
        newest_ones.map(|snapshot| (snapshot.uid.clone(), snapshot.created)).collect::<Vec<_>>()
    };
    let (new, mut stored) = match store(run, target).await {
        Err(error) if error.kind() == ErrorKind::Quota && !run.settings.dry_run => {
            make_room(run, target, error).await?
        }
        stored => stored?,
    };
    check(run, target, &new, &stored).await?;
    if run.settings.dry_run {
        // Nothing is stored, so nothing will ever change: judge as if it were ready.
        let ready = VolumeSnapshotStatus { ready_to_use: Some(true), ..VolumeSnapshotStatus::default() };
        stored.status = Lenient::Known(ready);
    } else {
        tracing::info!(claim, snapshot = new.name, "made the snapshot");
    }
    let same_second = stored.metadata.creation_timestamp;
    let seen_before =
        newest.into_iter().filter(|(_, created)| Some(*created) == same_second).map(|(uid, _)| uid).collect();
    let uid = stored.metadata.uid.clone();
    run.cache.apply(stored);
    let now = Instant::now();
    Ok(New { name: new.name, uid, seen_before, began: now, ready: now, is_taken_over: false })
}

/// What an earlier attempt of this Job made of this very claim: of several the ready one, then the newest.
pub(super) fn made_before(run: &Run<'_>, target: &Target) -> Option<Snapshot> {
    let job = run.settings.run_uid.as_deref()?;
    let made = run.cache.of_claim(&target.id).into_iter().filter(|snapshot| {
        snapshot.run_uid.as_deref() == Some(job)
            && !snapshot.is_terminating()
            && !snapshot.unreadable
            && snapshot.owner.is_none()
            && target.claim.as_ref().is_none_or(|claim| !claim.identity().is_previous(snapshot))
    });
    made.max_by_key(|snapshot| (snapshot.ready, snapshot.created))
}

/// Has the API server store a snapshot under a name that is free.
async fn store(run: &Run<'_>, target: &Target) -> Result<(NewSnapshot, VolumeSnapshot), Error> {
    let settings = run.settings;
    let mut attempt = 1;
    loop {
        let new = NewSnapshot {
            name: names::snapshot_name(&settings.name_prefix, rand::random()),
            claim: (*target.id).clone(),
            class: settings.class.clone(),
            schedule: settings.schedule.clone(),
            run: run.id.to_owned(),
            run_uid: settings.run_uid.clone(),
            claim_uid: target.claim.as_ref().map(|claim: &KnownClaim| claim.uid.to_string()),
            shard: settings.shard,
            hold: settings.hold,
            labels: settings.labels.clone(),
        };
        match run.cluster.create(&new, settings.dry_run).await {
            Ok(stored) => return Ok((new, stored)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// A quota is used up: deletes what a newer ready snapshot supersedes, and tries again. Otherwise runs
/// that failed while the storage was down would fill the quota, and no run could ever succeed again.
async fn make_room(
    run: &Run<'_>,
    target: &Target,
    refused: Error,
) -> Result<(NewSnapshot, VolumeSnapshot), Failure> {
    let claim = target.called.as_str();
    tracing::warn!(
        claim,
        "the quota is used up; deleting what a newer ready snapshot supersedes first: {refused}"
    );
    run.rechecks.hurry();
    if prune::make_room(run, target).await == 0 {
        return Err(over_quota(refused));
    }
    let end = Instant::now() + QUOTA_WAIT;
    let mut backoff = Backoff::between_reads();
    loop {
        match store(run, target).await {
            Err(error) if error.kind() == ErrorKind::Quota && Instant::now() < end => {
                sleep(backoff.next(None)).await;
            }
            Err(error) if error.kind() == ErrorKind::Quota => return Err(over_quota(error)),
            stored => return Ok(stored?),
        }
    }
}

fn over_quota(error: Error) -> Failure {
    Failure::from(error).advising("raise the ResourceQuota, or let SNAPSHOT_RETENTION keep fewer snapshots")
}

/// Checks that what was stored is what was asked for. What admission made something else of is nobody's:
/// this schedule would not find it again and make another in every attempt.
async fn check(
    run: &Run<'_>,
    target: &Target,
    new: &NewSnapshot,
    stored: &VolumeSnapshot,
) -> Result<(), Failure> {
    let changes = new.changes(stored);
    if changes.is_empty() {
        let lost = new.lost_labels(stored);
        if !lost.is_empty() {
            let (claim, snapshot, labels) = (target.called.as_str(), new.name.as_str(), lost.join(", "));
            tracing::warn!(claim, snapshot, labels, "admission removed or changed labels of SNAPSHOT_LABELS");
        }
        return Ok(());
    }
    let what_became = match run.settings.dry_run {
        true => "nothing was stored".to_owned(),
        false => take_back(run, target, new, stored).await,
    };
    Err(Failure {
        message: format!(
            "snapshot {} of claim {} was stored as something else than was asked for: {}; {what_became}; older \
             snapshots stay; see which admission policy or webhook changes VolumeSnapshots",
            new.name,
            target.called,
            changes.join(", ")
        ),
        is_transient: false,
        reason: Reason::Refused,
    })
}

/// Deletes what was just stored, by its uid, and says what became of it.
async fn take_back(run: &Run<'_>, target: &Target, new: &NewSnapshot, stored: &VolumeSnapshot) -> String {
    let namespace = target.id.namespace.as_str();
    let mut snapshot = Snapshot::from(stored.clone());
    for _ in 0..TAKE_BACK_ATTEMPTS {
        // The snapshot controller works on it already, which changes its state, but not whose it is.
        let error = match run.cluster.delete(namespace, &snapshot, false, async |_| true).await {
            Ok(Deleted::Accepted | Deleted::AlreadyGone | Deleted::Withheld(_)) => {
                return "it was deleted again".to_owned();
            }
            Err(error) => error,
        };
        if error.kind() != ErrorKind::Conflict {
            return format!("and it stays, because {error}");
        }
        match run.cluster.snapshot(namespace, &new.name).await {
            Ok(object) if object.metadata.uid == snapshot.uid => snapshot = Snapshot::from(object),
            Ok(_) => return "it is gone".to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return "it is gone".to_owned(),
            Err(error) => return format!("and it stays, because {error}"),
        }
    }
    "and it stays, because it changes again and again".to_owned()
}
