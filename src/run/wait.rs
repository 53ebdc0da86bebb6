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
    let attempts = run.settings.ready_attempts;
    let mut waiting = Waiting { run, target, new, see, reported: None, unread: None, is_taken_up: false };
    for attempt in 1..=attempts {
        let end = new.began + run.settings.ready_interval * attempt;
        loop {
            if target.group.is_some() {
                Box::pin(may_be_ready(run, target, new)).await?;
            }
            match waiting.look(attempt)? {
                Look::Ready => return Ok(()),
                Look::NotReady => {}
                Look::Unknown if Box::pin(waiting.read()).await? => continue,
                Look::Unknown => {}
            }
            if timeout_at(end, run.cache_of(target).changed(&target.id)).await.is_err() {
                break;
            }
        }
        // No news may be a watch that is broken: read. While the server is down that may go on until
        // the next window is over, and after the last one for as long as any request may.
        waiting.unread = None;
        let longest = if attempt < attempts { run.settings.ready_interval } else { run.settings.bound() };
        let confirmed = timeout(longest, Box::pin(waiting.confirm(end))).await;
        if confirmed.unwrap_or(Ok(false))? {
            if target.group.is_some() {
                Box::pin(may_be_ready(run, target, new)).await?;
            }
            if let Look::Ready = waiting.look(attempt)? {
                return Ok(());
            }
        }
        let (claim, group) = target.fields();
        tracing::warn!(
            claim,
            group,
            snapshot = new.name,
            attempt,
            attempts,
            duration_ms = millis(new.began.elapsed()),
            error = waiting.reported,
            "the snapshot is not ready yet (attempt {attempt} of {attempts})"
        );
    }
    let lacks = run.groups_of(target).and_then(|groups| groups.lacks(&new.uid));
    let reason = match (waiting.unread, lacks, waiting.reported) {
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

fn said_ready(target: &Target, new: &New, known: &Snapshot, attempt: u32) {
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
}

/// A target whose new snapshot is waited for. There may be thousands, so nothing large is held across an await.
struct Waiting<'a> {
    run: &'a Run<'a>,
    target: &'a Target,
    new: &'a New,
    see: &'a dyn Fn(&Snapshot),
    /// What the snapshot controller said last.
    reported: Option<String>,
    /// Why it is not known how the snapshot is.
    unread: Option<Box<Error>>,
    is_taken_up: bool,
}

/// How the new snapshot looks.
enum Look {
    Ready,
    NotReady,
    /// The cache lacks it.
    Unknown,
}

impl Waiting<'_> {
    /// Looks at what is known of the snapshot.
    ///
    /// # Errors
    /// If it never will be ready.
    fn look(&mut self, attempt: u32) -> Result<Look, Failure> {
        let Self { run, target, new, .. } = *self;
        let Some(known) = run.cache_of(target).get(&target.id, &new.uid) else { return Ok(Look::Unknown) };
        (self.see)(&known);
        if known.taken_up && !std::mem::replace(&mut self.is_taken_up, true) {
            run.pace.taken_up(new.began.elapsed());
        }
        if !is_ready(target, new, &known, &mut self.reported, attempt)? {
            return Ok(Look::NotReady);
        }
        said_ready(target, new, &known, attempt);
        Ok(Look::Ready)
    }

    /// Reads what this run has made, once for all targets whose window ended meanwhile. Returns whether it is known
    /// how the snapshot is.
    async fn confirm(&mut self, end: Instant) -> Result<bool, Failure> {
        let Self { run, target, new, .. } = *self;
        if let Err(error) = run.made_again(target, end).await {
            self.unread = Some(Box::new(error));
            return Ok(false);
        }
        match run.cache_of(target).get(&target.id, &new.uid) {
            Some(_) => Ok(true),
            None => self.read().await,
        }
    }

    /// Reads the snapshot: the cache may lack it. Only what the API server says itself counts as gone; `false`, with
    /// the error put aside, if it says nothing at all.
    async fn read(&mut self) -> Result<bool, Failure> {
        let Self { run, target, new, .. } = *self;
        match run.read(target, &new.name).await {
            Ok(read) if read.uid == new.uid => {
                // What the cache knows by now may be newer than the answer.
                match run.cache_of(target).get(&target.id, &new.uid) {
                    Some(_) => Ok(true),
                    None if read.is_owned => Err(gone(target, &new.name)),
                    None => Err(Failure {
                        message: format!(
                            "somebody changed the label {} of snapshot {} of {} while it was waited for; older \
                             snapshots stay",
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
                self.unread = Some(Box::new(error));
                Ok(false)
            }
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
