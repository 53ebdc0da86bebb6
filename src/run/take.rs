//! The way of one claim: make its snapshot or take over the one that an earlier attempt of this
//! Job made, wait until it is ready, then prune.

use tokio::time::{Instant, timeout_at};

use super::{Place, Run, fail, millis, prune};
use crate::{
    cluster::{Cause, NewSnapshot},
    names,
    report::End,
    report::{Failure, Step},
    snapshot::Snapshot,
    text,
};

/// How many names are tried if they are taken. Two hundred years of hourly snapshots fill less
/// than a thousandth of the names, so one in a row of three is free.
const NAME_ATTEMPTS: usize = 3;

/// The snapshot that this run makes of a claim.
pub(super) struct Own {
    pub(super) name: String,
    pub(super) uid: String,
}

/// Takes a snapshot of one claim and prunes the older ones; the report says what came of it.
pub(super) async fn take(run: &Run<'_>, claim: &str, place: Place<'_>) {
    place.update(|report| report.end = End::Unfinished(Step::Creating));
    let own = match make(run, claim).await {
        Ok(own) => own,
        Err(failure) => return fail(place, claim, failure),
    };
    place.update(|report| {
        report.snapshot = Some(own.name.clone());
        report.end = End::Unfinished(Step::AwaitingReady);
    });
    if !run.settings.dry_run {
        let began = Instant::now();
        if let Err(failure) = wait(run, claim, &own, began).await {
            return fail(place, claim, failure);
        }
        place.update(|report| report.ready_after = Some(began.elapsed()));
    }
    place.update(|report| report.end = End::Unfinished(Step::Pruning));
    prune::prune(run, claim, &own, place).await;
}

/// Makes the snapshot, unless an earlier attempt of this Job did.
async fn make(run: &Run<'_>, claim: &str) -> Result<Own, Failure> {
    let made = run.ledger.of_claim(claim).into_iter().filter(|snapshot| {
        snapshot.run.as_deref() == Some(run.id) && !snapshot.terminating && !snapshot.group_member
    });
    if let Some(made) = made.max_by_key(|snapshot| (snapshot.ready, snapshot.created)) {
        let Snapshot { name, uid, .. } = made;
        tracing::info!(claim, snapshot = name, "going on with the snapshot of this Job's earlier attempt");
        return Ok(Own { name, uid });
    }

    let settings = run.settings;
    let mut attempt = 1;
    loop {
        let new = NewSnapshot {
            name: names::snapshot_name(&settings.name_prefix, rand::random()),
            claim: claim.to_owned(),
            class: settings.class.clone(),
            job: settings.job.clone(),
            run: run.id.to_owned(),
            hold: settings.hold,
        };
        match run.cluster.create(&new, settings.dry_run).await {
            Ok(mut object) => {
                if settings.dry_run {
                    // Nothing is stored, so nothing will ever change: judge as if it were ready.
                    object.status.get_or_insert_default().ready_to_use = Some(true);
                } else {
                    tracing::info!(claim, snapshot = new.name, "made the snapshot");
                }
                let uid = object.metadata.uid.clone();
                run.ledger.see(object);
                return Ok(Own { name: new.name, uid });
            }
            Err(error) if error.cause() == Cause::AlreadyExists && attempt < NAME_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until the snapshot is ready, for as many windows as the settings say.
async fn wait(run: &Run<'_>, claim: &str, own: &Own, began: Instant) -> Result<(), Failure> {
    let attempts = run.settings.ready_attempts;
    let mut said = None;
    for attempt in 1..=attempts {
        let end = began + run.settings.ready_interval * attempt;
        loop {
            let known = match run.ledger.get(claim, &own.uid) {
                Some(known) => known,
                None => read(run, claim, own).await?,
            };
            if is_ready(claim, own, &known)? {
                tracing::info!(
                    claim,
                    snapshot = own.name,
                    attempt,
                    duration_ms = millis(began.elapsed()),
                    "the snapshot is ready"
                );
                return Ok(());
            }
            if known.error != said {
                if let Some(error) = &known.error {
                    tracing::warn!(
                        claim,
                        snapshot = own.name,
                        attempt,
                        error,
                        "the snapshot controller reports an error"
                    );
                }
                said = known.error;
            }
            if timeout_at(end, run.ledger.changed(claim)).await.is_err() {
                break;
            }
        }
        // No news may be a watch that is broken: look.
        let last = match run.cluster.snapshot(&own.name).await {
            Ok(object) if object.metadata.uid == own.uid => {
                let known = Snapshot::from(object.clone());
                run.ledger.see(object);
                if is_ready(claim, own, &known)? {
                    tracing::info!(
                        claim,
                        snapshot = own.name,
                        attempt,
                        duration_ms = millis(began.elapsed()),
                        "the snapshot is ready"
                    );
                    return Ok(());
                }
                known.error
            }
            Ok(_) => return Err(gone(claim, own)),
            Err(error) if error.cause() == Cause::NotFound => return Err(gone(claim, own)),
            Err(error) => Some(error.to_string()),
        };
        tracing::warn!(
            claim,
            snapshot = own.name,
            attempt,
            attempts,
            duration_ms = millis(began.elapsed()),
            error = last,
            "the snapshot is not ready yet (attempt {attempt} of {attempts})"
        );
        said = last;
    }
    Err(Failure {
        message: format!(
            "snapshot {} of claim {claim} was not ready within {} ({attempts} × {}): {}; older snapshots stay; see \
             kubectl describe volumesnapshot {} -n {}",
            own.name,
            text::duration(run.settings.longest_wait()),
            text::duration(run.settings.ready_interval),
            said.as_deref().unwrap_or("the snapshot controller reports no error"),
            own.name,
            run.cluster.namespace(),
        ),
        may_pass: true,
    })
}

/// Reads a snapshot that the ledger does not have any more. Only what the API server says itself
/// counts as gone.
async fn read(run: &Run<'_>, claim: &str, own: &Own) -> Result<Snapshot, Failure> {
    match run.cluster.snapshot(&own.name).await {
        Ok(object) if object.metadata.uid == own.uid => {
            if Snapshot::owned(object.clone(), &run.settings.job).is_none() {
                return Err(Failure {
                    message: format!(
                        "somebody changed the label {} of snapshot {} of claim {claim} while it was waited for; \
                         older snapshots stay",
                        names::JOB_LABEL,
                        own.name
                    ),
                    may_pass: true,
                });
            }
            run.ledger.see(object.clone());
            Ok(Snapshot::from(object))
        }
        Ok(_) => Err(gone(claim, own)),
        Err(error) if error.cause() == Cause::NotFound => Err(gone(claim, own)),
        Err(error) => Err(error.into()),
    }
}

/// Whether the snapshot is ready; an error if it never will be.
fn is_ready(claim: &str, own: &Own, known: &Snapshot) -> Result<bool, Failure> {
    match known.terminating {
        true => Err(gone(claim, own)),
        false => Ok(known.ready),
    }
}

fn gone(claim: &str, own: &Own) -> Failure {
    Failure {
        message: format!(
            "somebody deleted snapshot {} of claim {claim} while it was waited for; older snapshots stay",
            own.name
        ),
        may_pass: true,
    }
}
