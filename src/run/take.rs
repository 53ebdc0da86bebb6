//! The new snapshot of one claim: made, or taken over from an earlier attempt of this Job, and waited
//! for until it is ready. What happens to the older ones is in [`super::prune`].

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Place, Run, find::Chosen, millis};
use crate::{
    api::{Lenient, VolumeSnapshotStatus},
    cluster::{Cause, Error, NewSnapshot},
    names,
    report::{End, Failure, Step},
    settings::Settings,
    snapshot::Snapshot,
    text,
};

/// How many names are tried if they are taken. Two hundred years of hourly snapshots fill less
/// than a thousandth of the names, so one in a row of three is free.
const NAME_ATTEMPTS: usize = 3;

/// How many runs, one after the other, an earlier attempt of the same Job lies back at most. The
/// CronJob allows three attempts; the rest is room for pulling the image and for pauses. Somebody
/// who uses a Job's name again next week wants a new snapshot.
const LONGEST_JOB: u32 = 6;

/// The snapshot that this run makes of a claim.
pub(super) struct Own {
    pub(super) name: String,
    pub(super) uid: String,
    /// The uids of those that were there before it, as far as the time alone does not tell: the
    /// API server dates in whole seconds.
    pub(super) seen_before: Vec<String>,
    /// When it was made, for what may have changed before that.
    pub(super) made: Instant,
    /// Whether an earlier attempt of this Job made it.
    taken_over: bool,
}

/// Takes a snapshot of one claim, and returns it once it is ready.
///
/// # Errors
/// If there is none: what is wrong, and nothing older may be deleted.
pub(super) async fn take(run: &Run<'_>, chosen: &Chosen, place: Place<'_>) -> Result<Own, Failure> {
    place.update(|report| report.end = End::Unfinished(Step::Creating));
    let own = make(run, chosen).await?;
    place.update(|report| {
        report.snapshot = Some(own.name.clone());
        report.taken_over = own.taken_over;
        report.end = End::Unfinished(Step::AwaitingReady);
    });
    if !run.settings.dry_run {
        let began = Instant::now();
        wait(run, chosen, &own, began).await?;
        place.update(|report| report.ready_after = Some(began.elapsed()));
    }
    Ok(own)
}

/// Makes the snapshot, unless an earlier attempt of this Job did.
async fn make(run: &Run<'_>, chosen: &Chosen) -> Result<Own, Failure> {
    let claim = chosen.called.as_str();
    let settings = run.settings;
    let (made, there) = {
        let there = run.ledger.of_claim(&chosen.id);
        let made = there.iter().filter(|snapshot| is_of_this_job(run, chosen, snapshot, settings));
        let made = made.max_by_key(|snapshot| (snapshot.ready, snapshot.created)).cloned();
        // Only they can have been made in the same second. No more is held while the create is under way.
        let newest = there.iter().map(|snapshot| snapshot.created).max();
        let newest_ones = there.iter().filter(|snapshot| Some(snapshot.created) == newest);
        (made, newest_ones.map(|snapshot| (snapshot.uid.clone(), snapshot.created)).collect::<Vec<_>>())
    };
    if let Some(made) = made {
        tracing::info!(
            claim,
            snapshot = made.name,
            made = %made.created,
            "going on with the snapshot of this Job's earlier attempt"
        );
        let (name, uid, made) = (made.name, made.uid, Instant::now());
        return Ok(Own { name, uid, seen_before: Vec::new(), made, taken_over: true });
    }

    let mut attempt = 1;
    loop {
        let new = NewSnapshot {
            name: names::snapshot_name(&settings.name_prefix, rand::random()),
            claim: chosen.id.clone(),
            class: settings.class.clone(),
            job: settings.job.clone(),
            run: run.id.to_owned(),
            shard: settings.shard,
            hold: settings.hold,
        };
        match run.cluster.create(&new, settings.dry_run).await {
            Ok(mut object) => {
                if settings.dry_run {
                    // Nothing is stored, so nothing will ever change: judge as if it were ready.
                    object.status = Lenient::Known(VolumeSnapshotStatus {
                        ready_to_use: Some(true),
                        ..VolumeSnapshotStatus::default()
                    });
                } else {
                    tracing::info!(claim, snapshot = new.name, "made the snapshot");
                }
                let uid = object.metadata.uid.clone();
                let same_second = object.metadata.creation_timestamp;
                let seen_before = there
                    .into_iter()
                    .filter(|(_, created)| Some(*created) == same_second)
                    .map(|(uid, _)| uid)
                    .collect();
                run.ledger.see(object);
                return Ok(Own { name: new.name, uid, seen_before, made: Instant::now(), taken_over: false });
            }
            Err(error) if error.cause() == Cause::AlreadyExists && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether an earlier attempt of this Job made a snapshot of this claim.
fn is_of_this_job(run: &Run<'_>, chosen: &Chosen, snapshot: &Snapshot, settings: &Settings) -> bool {
    let age = Timestamp::now().duration_since(snapshot.created);
    let longest = settings.bound().saturating_mul(LONGEST_JOB);
    snapshot.run.as_deref() == Some(run.id)
        && !snapshot.is_terminating()
        && snapshot.owner.is_none()
        && Duration::try_from(age).unwrap_or_default() <= longest
        && chosen.since.is_none_or(|since| snapshot.created >= since)
}

/// Waits until the snapshot is ready, for as many windows as the settings say.
async fn wait(run: &Run<'_>, chosen: &Chosen, own: &Own, began: Instant) -> Result<(), Failure> {
    let claim = chosen.called.as_str();
    let attempts = run.settings.ready_attempts;
    let mut reported: Option<String> = None;
    let mut unread: Option<Error> = None;
    for attempt in 1..=attempts {
        let end = began + run.settings.ready_interval * attempt;
        loop {
            let known = match run.ledger.get(&chosen.id, &own.uid) {
                Some(known) => Some(known),
                None => look(run, chosen, own, &mut unread).await?,
            };
            if let Some(known) = known
                && is_ready(claim, own, &known, &mut reported, attempt)?
            {
                return said_ready(claim, own, attempt, began);
            }
            if timeout_at(end, run.ledger.changed(&chosen.id)).await.is_err() {
                break;
            }
        }
        // No news may be a watch that is broken: look. While the server is down that may go on until
        // the next window is over, and after the last one for as long as any request may.
        unread = None;
        let patience = if attempt < attempts { run.settings.ready_interval } else { run.settings.bound() };
        let looked = timeout(patience, look(run, chosen, own, &mut unread)).await;
        if let Some(known) = looked.unwrap_or(Ok(None))?
            && is_ready(claim, own, &known, &mut reported, attempt)?
        {
            return said_ready(claim, own, attempt, began);
        }
        tracing::warn!(
            claim,
            snapshot = own.name,
            attempt,
            attempts,
            duration_ms = millis(began.elapsed()),
            error = reported,
            "the snapshot is not ready yet (attempt {attempt} of {attempts})"
        );
    }
    let reason = match (unread, reported) {
        (Some(error), _) => error.to_string(),
        (None, Some(reported)) => reported,
        (None, None) => "the snapshot controller reports no error".to_owned(),
    };
    Err(Failure {
        message: format!(
            "snapshot {} of claim {claim} was not ready within {} ({attempts} × {}): {reason}; older snapshots stay; \
             see kubectl describe volumesnapshot {} -n {}",
            own.name,
            text::duration(run.settings.longest_wait()),
            text::duration(run.settings.ready_interval),
            own.name,
            chosen.id.namespace,
        ),
        may_pass: true,
    })
}

fn said_ready(claim: &str, own: &Own, attempt: u32, began: Instant) -> Result<(), Failure> {
    let duration_ms = millis(began.elapsed());
    tracing::info!(claim, snapshot = own.name, attempt, duration_ms, "the snapshot is ready");
    Ok(())
}

/// Reads the snapshot, for the ledger may lack it or be behind. Only what the API server says
/// itself counts as gone; `None`, with the error put aside, if it says nothing at all.
async fn look(
    run: &Run<'_>,
    chosen: &Chosen,
    own: &Own,
    unread: &mut Option<Error>,
) -> Result<Option<Snapshot>, Failure> {
    let claim = chosen.called.as_str();
    match run.cluster.snapshot(&chosen.id.namespace, &own.name).await {
        Ok(object) if object.metadata.uid == own.uid => {
            let is_owned = Snapshot::owned(object.clone(), &run.settings.job).is_some();
            run.ledger.see(object);
            // What the ledger knows by now may be newer than the answer.
            match run.ledger.get(&chosen.id, &own.uid) {
                Some(known) => Ok(Some(known)),
                None if is_owned => Err(gone(claim, &own.name)),
                None => Err(Failure {
                    message: format!(
                        "somebody changed the label {} of snapshot {} of claim {claim} while it was waited for; \
                         older snapshots stay",
                        names::JOB_LABEL,
                        own.name
                    ),
                    may_pass: true,
                }),
            }
        }
        Ok(_) => Err(gone(claim, &own.name)),
        Err(error) if error.cause() == Cause::NotFound => Err(gone(claim, &own.name)),
        Err(error) => {
            *unread = Some(error);
            Ok(None)
        }
    }
}

/// Whether the snapshot is ready; an error if it never will be. What the snapshot controller has to
/// say is said on, once each time it changes.
fn is_ready(
    claim: &str,
    own: &Own,
    known: &Snapshot,
    reported: &mut Option<String>,
    attempt: u32,
) -> Result<bool, Failure> {
    if known.is_terminating() {
        return Err(gone(claim, &own.name));
    }
    if !known.ready && known.error != *reported {
        if let Some(error) = &known.error {
            let snapshot = own.name.as_str();
            tracing::warn!(claim, snapshot, attempt, error, "the snapshot controller reports an error");
        }
        reported.clone_from(&known.error);
    }
    Ok(known.ready)
}

/// The run's own snapshot went away under its hands.
pub(super) fn gone(claim: &str, snapshot: &str) -> Failure {
    Failure {
        message: format!(
            "somebody deleted snapshot {snapshot} of claim {claim} during the run; older snapshots stay"
        ),
        may_pass: true,
    }
}
