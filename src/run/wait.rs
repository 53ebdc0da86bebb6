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
    let (claim, group) = target.fields();
    let cache = run.cache_of(target);
    let attempts = run.settings.ready_attempts;
    let mut reported: Option<String> = None;
    let mut unread: Option<Error> = None;
    let mut is_taken_up = false;
    for attempt in 1..=attempts {
        let end = new.began + run.settings.ready_interval * attempt;
        loop {
            let known = match cache.get(&target.id, &new.uid) {
                Some(known) => Some(known),
                None => Box::pin(read(run, target, new, &mut unread)).await?,
            };
            if let Some(known) = known {
                see(&known);
                may_be_ready(run, target, new).await?;
                if known.taken_up && !std::mem::replace(&mut is_taken_up, true) {
                    run.pace.taken_up(new.began.elapsed());
                }
                if is_ready(target, new, &known, &mut reported, attempt)? {
                    return said_ready(target, new, &known, attempt);
                }
            }
            if timeout_at(end, cache.changed(&target.id)).await.is_err() {
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
            may_be_ready(run, target, new).await?;
            if is_ready(target, new, &known, &mut reported, attempt)? {
                return said_ready(target, new, &known, attempt);
            }
        }
        tracing::warn!(
            claim,
            group,
            snapshot = new.name,
            attempt,
            attempts,
            duration_ms = millis(new.began.elapsed()),
            error = reported,
            "the snapshot is not ready yet (attempt {attempt} of {attempts})"
        );
    }
    let lacks = run.groups_of(target).and_then(|groups| groups.lacks(&new.uid));
    let reason = match (unread, lacks, reported) {
        (Some(error), _, _) => error.to_string(),
        (None, Some(lacks), _) => lacks,
        (None, None, Some(reported)) => reported,
        (None, None, None) => "the snapshot controller reports no error".to_owned(),
    };
    Err(Failure {
        message: format!(
            "snapshot {} of {} was not ready within {} ({attempts} × {}): {reason}; older snapshots stay; see kubectl \
             describe {} {} -n {}",
            new.name,
            target.what(),
            text::duration(run.settings.longest_wait()),
            text::duration(run.settings.ready_interval),
            target.kind(),
            new.name,
            target.id.namespace,
        ),
        is_transient: true,
        reason: Reason::NotReady,
    })
}

/// Checks that a group may still become ready.
///
/// # Errors
/// If it lost a member, or has one that was not asked for.
async fn may_be_ready(run: &Run<'_>, target: &Target, new: &New) -> Result<(), Failure> {
    let Some(why) = run.groups_of(target).and_then(|groups| groups.is_lost(&new.uid)) else { return Ok(()) };
    // Members go with their group, and the one may be heard of before the other.
    let is_gone = match Box::pin(run.read(target, &new.name)).await {
        Ok(read) => read.uid != new.uid || read.is_terminating,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if is_gone {
        return Err(gone(target, &new.name));
    }
    Err(Failure {
        message: format!(
            "snapshot {} of {} will never be ready: {why}; older snapshots stay",
            new.name,
            target.what()
        ),
        is_transient: true,
        reason: Reason::Disturbed,
    })
}

fn said_ready(target: &Target, new: &New, known: &Snapshot, attempt: u32) -> Result<(), Failure> {
    let (claim, group) = target.fields();
    let duration_ms = millis(new.began.elapsed());
    tracing::info!(claim, group, snapshot = new.name, attempt, duration_ms, "the snapshot is ready");
    if let Some(taken_at) = known.taken_at.filter(|_| known.clocks_differ()) {
        tracing::warn!(
            claim,
            group,
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
    if let Err(error) = run.made_again(target, end).await {
        *unread = Some(error);
        return Ok(None);
    }
    match run.cache_of(target).get(&target.id, &new.uid) {
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
    match run.read(target, &new.name).await {
        Ok(read) if read.uid == new.uid => {
            // What the cache knows by now may be newer than the answer.
            match run.cache_of(target).get(&target.id, &new.uid) {
                Some(known) => Ok(Some(known)),
                None if read.is_owned => Err(gone(target, &new.name)),
                None => Err(Failure {
                    message: format!(
                        "somebody changed the label {} of snapshot {} of {} while it was waited for; older snapshots \
                         stay",
                        names::SCHEDULE_LABEL,
                        new.name,
                        target.what()
                    ),
                    is_transient: true,
                    reason: Reason::Disturbed,
                }),
            }
        }
        Ok(_) => Err(gone(target, &new.name)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(gone(target, &new.name)),
        Err(error) => {
            *unread = Some(error);
            Ok(None)
        }
    }
}

/// Whether the snapshot is ready; an error if it never will be. What the snapshot controller has to
/// say is said on, once each time it changes.
fn is_ready(
    target: &Target,
    new: &New,
    known: &Snapshot,
    reported: &mut Option<String>,
    attempt: u32,
) -> Result<bool, Failure> {
    if known.is_terminating() {
        return Err(gone(target, &new.name));
    }
    let (claim, group) = target.fields();
    let error = match known.unreadable {
        true => Some("its status cannot be read".to_owned()),
        false => known.error.clone(),
    };
    if !known.ready && error != *reported {
        if let Some(error) = &error {
            let snapshot = new.name.as_str();
            tracing::warn!(
                claim,
                group,
                snapshot,
                attempt,
                error,
                "the snapshot controller reports an error"
            );
        }
        *reported = error;
    }
    Ok(known.ready)
}
