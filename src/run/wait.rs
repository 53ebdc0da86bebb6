//! Waiting until the new snapshot of a target is ready, or until it is known that it will not be.

use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Run, millis,
    target::{New, Target, gone},
};
use crate::{
    cluster::{Error, ErrorKind},
    names,
    report::{Failure, Reason},
    snapshot::Snapshot,
    text,
};

/// Waits until the snapshot is ready, for as many windows as the settings say. All that is learned of it
/// meanwhile is shown to `see`.
///
/// # Errors
/// If it is not: what is wrong, and nothing older may be deleted.
pub(super) async fn wait(
    run: &Run<'_>,
    target: &Target,
    new: &New,
    see: &dyn Fn(&Snapshot),
) -> Result<(), Failure> {
    let claim = target.called.as_str();
    let attempts = run.settings.ready_attempts;
    let mut reported: Option<String> = None;
    let mut unread: Option<Error> = None;
    let mut is_taken_up = false;
    for attempt in 1..=attempts {
        let end = new.began + run.settings.ready_interval * attempt;
        loop {
            let known = match run.cache.get(&target.id, &new.uid) {
                Some(known) => Some(known),
                None => Box::pin(read(run, target, new, &mut unread)).await?,
            };
            if let Some(known) = known {
                see(&known);
                if known.taken_up && !std::mem::replace(&mut is_taken_up, true) {
                    run.pace.taken_up(new.began.elapsed());
                }
                if is_ready(claim, new, &known, &mut reported, attempt)? {
                    return said_ready(claim, new, &known, attempt);
                }
            }
            if timeout_at(end, run.cache.changed(&target.id)).await.is_err() {
                break;
            }
        }
        // No news may be a watch that is broken: read. While the server is down that may go on until
        // the next window is over, and after the last one for as long as any request may.
        unread = None;
        let longest = if attempt < attempts { run.settings.ready_interval } else { run.settings.bound() };
        let read = timeout(longest, Box::pin(confirm(run, target, new, end, &mut unread))).await;
        if let Some(known) = read.unwrap_or(Ok(None))? {
            see(&known);
            if is_ready(claim, new, &known, &mut reported, attempt)? {
                return said_ready(claim, new, &known, attempt);
            }
        }
        tracing::warn!(
            claim,
            snapshot = new.name,
            attempt,
            attempts,
            duration_ms = millis(new.began.elapsed()),
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
            new.name,
            text::duration(run.settings.longest_wait()),
            text::duration(run.settings.ready_interval),
            new.name,
            target.id.namespace,
        ),
        is_transient: true,
        reason: Reason::NotReady,
    })
}

fn said_ready(claim: &str, new: &New, known: &Snapshot, attempt: u32) -> Result<(), Failure> {
    let duration_ms = millis(new.began.elapsed());
    tracing::info!(claim, snapshot = new.name, attempt, duration_ms, "the snapshot is ready");
    if let Some(taken_at) = known.taken_at.filter(|_| known.clocks_differ()) {
        tracing::warn!(
            claim,
            snapshot = new.name,
            "the storage system says that the data was captured at {taken_at}, and the API server that the snapshot was \
             made at {}: a clock is wrong, or the snapshot controller is slow; the later time counts",
            known.created
        );
    }
    Ok(())
}

/// Reads what this run has made, once for all targets whose window ended meanwhile.
async fn confirm(
    run: &Run<'_>,
    target: &Target,
    new: &New,
    end: Instant,
    unread: &mut Option<Error>,
) -> Result<Option<Snapshot>, Failure> {
    if let Err(error) = run.made_again(end).await {
        *unread = Some(error);
        return Ok(None);
    }
    match run.cache.get(&target.id, &new.uid) {
        Some(known) => Ok(Some(known)),
        None => read(run, target, new, unread).await,
    }
}

/// Reads the snapshot: the cache may lack it. Only what the API server says itself counts as gone;
/// `None`, with the error put aside, if it says nothing at all.
async fn read(
    run: &Run<'_>,
    target: &Target,
    new: &New,
    unread: &mut Option<Error>,
) -> Result<Option<Snapshot>, Failure> {
    let claim = target.called.as_str();
    match run.cluster.snapshot(&target.id.namespace, &new.name).await {
        Ok(object) if object.metadata.uid == new.uid => {
            let is_owned = Snapshot::owned(object.clone(), &run.settings.schedule).is_some();
            run.cache.apply(object);
            // What the cache knows by now may be newer than the answer.
            match run.cache.get(&target.id, &new.uid) {
                Some(known) => Ok(Some(known)),
                None if is_owned => Err(gone(claim, &new.name)),
                None => Err(Failure {
                    message: format!(
                        "somebody changed the label {} of snapshot {} of claim {claim} while it was waited for; \
                         older snapshots stay",
                        names::SCHEDULE_LABEL,
                        new.name
                    ),
                    is_transient: true,
                    reason: Reason::Disturbed,
                }),
            }
        }
        Ok(_) => Err(gone(claim, &new.name)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(gone(claim, &new.name)),
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
    new: &New,
    known: &Snapshot,
    reported: &mut Option<String>,
    attempt: u32,
) -> Result<bool, Failure> {
    if known.is_terminating() {
        return Err(gone(claim, &new.name));
    }
    let error = match known.unreadable {
        true => Some("its status cannot be read".to_owned()),
        false => known.error.clone(),
    };
    if !known.ready && error != *reported {
        if let Some(error) = &error {
            let snapshot = new.name.as_str();
            tracing::warn!(claim, snapshot, attempt, error, "the snapshot controller reports an error");
        }
        *reported = error;
    }
    Ok(known.ready)
}
