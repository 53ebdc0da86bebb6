//! Deleting what the policy does not want any more, of one claim whose new snapshot is ready.
//!
//! What may go is judged in [`crate::retention`]. Here every deletion is made to hold for exactly
//! what was judged, and only while the new snapshot is there and ready.

use futures::{StreamExt, stream};

use super::{Place, Run, take::Own};
use crate::{
    cluster::{Cause, Deleted},
    report::End,
    retention::{Judgement, Verdict, judge},
    snapshot::Snapshot,
    text,
};

/// How often a snapshot that changes under our hands is judged again.
const JUDGEMENTS: usize = 3;

/// What became of one snapshot that had to go.
enum Pruned {
    Gone,
    /// It changed, and stays by the new judgement.
    Stays,
    Failed(String),
}

/// Deletes what no rule keeps, oldest first; the report says what came of it.
pub(super) async fn prune(run: &Run<'_>, claim: &str, own: &Own, place: Place<'_>) {
    let snapshots = run.ledger.of_claim(claim);
    let mut condemned = Vec::new();
    let mut kept = 0;
    for (snapshot, verdict) in judged(run, claim, own, &snapshots) {
        let goes = verdict.goes();
        say(run, claim, snapshot, &verdict);
        if goes {
            condemned.push(snapshot.clone());
        } else if snapshot.uid != own.uid {
            kept += 1;
        }
    }
    condemned.reverse();
    place.update(|report| report.kept = kept);

    let mut pruning = stream::iter(condemned)
        .map(|snapshot| delete(run, claim, own, snapshot))
        .buffer_unordered(run.settings.concurrency);
    let mut failures = Vec::new();
    while let Some(pruned) = pruning.next().await {
        match pruned {
            Pruned::Gone => place.update(|report| report.deleted += 1),
            Pruned::Stays => place.update(|report| report.kept += 1),
            Pruned::Failed(problem) => {
                tracing::error!(claim, "{problem}");
                failures.push(problem);
            }
        }
    }
    match failures.first() {
        None => place.update(|report| report.end = End::Done),
        Some(first) => {
            let problem = format!(
                "{} that had to go could not be deleted: {first}",
                text::count(failures.len(), "older snapshot")
            );
            place.update(|report| report.end = End::NotPruned(problem));
        }
    }
}

/// All snapshots of the claim with the verdict on each, newest first. Nothing is judged unless the
/// run's own snapshot is there and ready.
fn judged<'a>(
    run: &Run<'_>,
    claim: &str,
    own: &Own,
    snapshots: &'a [Snapshot],
) -> Vec<(&'a Snapshot, Verdict)> {
    let Some(new) = still_ready(run, claim, own) else {
        return Vec::new();
    };
    let by = Judgement {
        rules: &run.settings.retention,
        own: Some(&own.uid),
        now: new.created,
        longest_wait: run.settings.longest_wait(),
    };
    judge(snapshots, &by).into_iter().map(|decision| (decision.snapshot, decision.verdict)).collect()
}

/// The run's own snapshot, if it is there and ready at this moment.
fn still_ready(run: &Run<'_>, claim: &str, own: &Own) -> Option<Snapshot> {
    run.ledger.get(claim, &own.uid).filter(|new| new.ready && !new.terminating)
}

/// Deletes one snapshot, as it was judged; if it is in another state by now, it is read and judged
/// again.
async fn delete(run: &Run<'_>, claim: &str, own: &Own, mut condemned: Snapshot) -> Pruned {
    for _ in 0..JUDGEMENTS {
        if still_ready(run, claim, own).is_none() {
            return Pruned::Failed(format!(
                "the new snapshot {} is gone or not ready any more, so {} stays",
                own.name, condemned.name
            ));
        }
        let conflict = match run.cluster.delete(&condemned, run.settings.dry_run).await {
            Ok(deleted) => {
                let words = match (run.settings.dry_run, deleted) {
                    (true, _) => "would delete the older snapshot",
                    (false, Deleted::Accepted) => "deleted the older snapshot",
                    (false, Deleted::AlreadyGone) => "the older snapshot is already gone",
                };
                tracing::info!(claim, snapshot = condemned.name, "{words}");
                return Pruned::Gone;
            }
            Err(error) if error.cause() == Cause::Conflict => error,
            Err(error) => return Pruned::Failed(error.to_string()),
        };
        tracing::debug!(claim, snapshot = condemned.name, "judging again: {conflict}");
        match run.cluster.snapshot(&condemned.name).await {
            Ok(object) if object.metadata.uid == condemned.uid => run.ledger.see(object),
            // What was judged is gone; what has its name now is another.
            Ok(_) => return Pruned::Gone,
            Err(error) if error.cause() == Cause::NotFound => return Pruned::Gone,
            Err(error) => return Pruned::Failed(error.to_string()),
        }
        let snapshots = run.ledger.of_claim(claim);
        let again = judged(run, claim, own, &snapshots)
            .into_iter()
            .find(|(snapshot, _)| snapshot.uid == condemned.uid);
        match again {
            Some((snapshot, verdict)) if verdict.goes() => condemned = snapshot.clone(),
            Some((_, Verdict::Terminating)) => return Pruned::Gone,
            Some((snapshot, verdict)) => {
                tracing::info!(
                    claim,
                    snapshot = snapshot.name,
                    "the older snapshot stays after all: {verdict}"
                );
                return Pruned::Stays;
            }
            None => return Pruned::Stays,
        }
    }
    Pruned::Failed(format!("snapshot {} changes again and again", condemned.name))
}

/// Says what was decided: all of it in a dry run, which is what one makes it for.
fn say(run: &Run<'_>, claim: &str, snapshot: &Snapshot, verdict: &Verdict) {
    let word = if verdict.goes() { "goes" } else { "stays" };
    let dated = snapshot.time();
    if run.settings.dry_run {
        tracing::info!(claim, snapshot = snapshot.name, %dated, "{word}: {verdict}");
    } else {
        tracing::debug!(claim, snapshot = snapshot.name, %dated, "{word}: {verdict}");
    }
}
