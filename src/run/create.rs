//! The new snapshot of one target: made, or taken over from an earlier attempt of this Job.
//!
//! When it is ready is in [`super::wait`], what happens to the older ones in [`super::prune`].

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Run,
    object::Object,
    prune,
    target::{KnownClaim, New, Target},
};
use crate::{
    api::GROUP_SNAPSHOT_KIND,
    cluster::{Backoff, Deleted, Error, ErrorKind, NewSnapshot, Source, Stored},
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
    let (claim, group) = target.fields();
    if let Some(made) = made_before(run, target) {
        let (snapshot, created) = (made.name.as_str(), made.created);
        tracing::info!(claim, group, snapshot, made = %created, "going on with the snapshot of this Job's earlier attempt");
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
        let known = run.cache_of(target).of_claim(&target.id);
        let newest = known.iter().map(|snapshot| snapshot.created).max();
        let newest_ones = known.iter().filter(|snapshot| Some(snapshot.created) == newest);
        newest_ones.map(|snapshot| (snapshot.uid.clone(), snapshot.created)).collect::<Vec<_>>()
    };
    let (new, stored) = match store(run, target).await {
        Err(error) if error.kind() == ErrorKind::Quota && !run.settings.dry_run => {
            make_room(run, target, error).await?
        }
        stored => stored?,
    };
    check(run, target, &new, &stored).await?;
    if !run.settings.dry_run {
        tracing::info!(claim, group, snapshot = new.name, "made the snapshot");
    }
    let same_second = stored.metadata().creation_timestamp;
    let seen_before =
        newest.into_iter().filter(|(_, created)| Some(*created) == same_second).map(|(uid, _)| uid).collect();
    let uid = stored.metadata().uid.clone();
    run.note_stored(target, stored);
    let now = Instant::now();
    Ok(New { name: new.name, uid, seen_before, began: now, ready: now, is_taken_over: false })
}

/// What an earlier attempt of this Job made of this very claim: of several the ready one, then the newest.
pub(super) fn made_before(run: &Run<'_>, target: &Target) -> Option<Snapshot> {
    let job = run.settings.run_uid.as_deref()?;
    let made = run.cache_of(target).of_claim(&target.id).into_iter().filter(|snapshot| {
        snapshot.run_uid.as_deref() == Some(job)
            && !snapshot.is_terminating()
            && !snapshot.unreadable
            && snapshot.owner.is_none()
            && target.claim.as_ref().is_none_or(|claim| !claim.identity().is_previous(snapshot))
            && (target.group.is_none() || is_of_all(target, snapshot))
    });
    made.max_by_key(|snapshot| (snapshot.ready, snapshot.created))
}

/// Whether a group is of all claims that the group has now, and of no other. One that lacks a member would never be
/// ready.
fn is_of_all(target: &Target, group: &Snapshot) -> bool {
    let uids = target.claim.as_ref().map(|claim| &*claim.uid);
    !group.incomplete && uids == group.claim_uid.as_deref()
}

/// Has the API server store a snapshot under a name that is free.
async fn store(run: &Run<'_>, target: &Target) -> Result<(NewSnapshot, Object), Error> {
    let settings = run.settings;
    let mut attempt = 1;
    loop {
        let new = NewSnapshot {
            name: names::snapshot_name(&settings.name_prefix, rand::random()),
            source: match (&target.group, &settings.group_label) {
                (Some(_), Some(label)) => Source::Group {
                    namespace: target.id.namespace.clone(),
                    label: label.clone(),
                    value: target.id.name.clone(),
                },
                _ => Source::Claim((*target.id).clone()),
            },
            class: match target.group {
                None => settings.class.clone(),
                Some(_) => settings.group_class.clone(),
            },
            schedule: settings.schedule.clone(),
            run: run.id.to_owned(),
            run_uid: settings.run_uid.clone(),
            claim_uid: target.claim.as_ref().map(|claim: &KnownClaim| claim.uid.to_string()),
            claim_volume: target.claim.as_ref().and_then(|claim| claim.volume.as_deref()).map(str::to_owned),
            shard: settings.shard,
            hold: settings.hold,
            labels: settings.labels.clone(),
        };
        match run.create(target, &new).await {
            Ok(stored) => return Ok((new, stored)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// A quota is used up: deletes what a newer ready snapshot supersedes, and tries again. Otherwise runs
/// that failed while the storage was down would fill the quota, and no run could ever succeed again.
async fn make_room(run: &Run<'_>, target: &Target, refused: Error) -> Result<(NewSnapshot, Object), Failure> {
    let (claim, group) = target.fields();
    tracing::warn!(
        claim,
        group,
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
async fn check(run: &Run<'_>, target: &Target, new: &NewSnapshot, stored: &Object) -> Result<(), Failure> {
    let changes = new.changes(stored);
    if changes.is_empty() {
        let lost = new.lost_labels(stored);
        if !lost.is_empty() {
            let ((claim, group), snapshot, labels) = (target.fields(), new.name.as_str(), lost.join(", "));
            tracing::warn!(
                claim,
                group,
                snapshot,
                labels,
                "admission removed or changed labels of SNAPSHOT_LABELS"
            );
        }
        return Ok(());
    }
    let what_became = match run.settings.dry_run {
        true => "nothing was stored".to_owned(),
        false => take_back(run, target, new, stored).await,
    };
    Err(Failure {
        message: format!(
            "snapshot {} of {} was stored as something else than was asked for: {}; {what_became}; older snapshots \
             stay; see which admission policy or webhook changes {}s",
            new.name,
            target.what(),
            changes.join(", "),
            match target.group {
                None => "VolumeSnapshot",
                Some(_) => GROUP_SNAPSHOT_KIND,
            }
        ),
        is_transient: false,
        reason: Reason::Refused,
    })
}

/// Deletes what was just stored, by its uid, and says what became of it.
async fn take_back(run: &Run<'_>, target: &Target, new: &NewSnapshot, stored: &Object) -> String {
    let mut snapshot = stored.snapshot();
    for _ in 0..TAKE_BACK_ATTEMPTS {
        // The snapshot controller works on it already, which changes its state, but not whose it is.
        let error = match run.delete(target, &snapshot, false, async |_| true).await {
            Ok(Deleted::Accepted | Deleted::AlreadyGone | Deleted::Withheld(_)) => {
                return "it was deleted again".to_owned();
            }
            Err(error) => error,
        };
        if error.kind() != ErrorKind::Conflict {
            return format!("and it stays, because {error}");
        }
        match run.read(target, &new.name).await {
            Ok(read) if read.uid == snapshot.uid => snapshot.resource_version = read.resource_version,
            Ok(_) => return "it is gone".to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return "it is gone".to_owned(),
            Err(error) => return format!("and it stays, because {error}"),
        }
    }
    "and it stays, because it changes again and again".to_owned()
}
