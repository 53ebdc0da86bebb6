//! Deleting what the policy does not want any more, of one claim whose new snapshot is ready.
//!
//! What may go is judged in [`crate::retention`]. Here every deletion is made to hold for exactly
//! what was judged, and only while the new snapshot is there and ready.

use std::time::Duration;

use futures::{StreamExt, stream};

use super::{
    Place, Run,
    find::Chosen,
    take::{Own, gone},
};
use crate::{
    cluster::{Cause, Deleted},
    report::{End, Failure, Step},
    retention::{ClaimIdentity, Judgement, Rules, Verdict, judge},
    snapshot::Snapshot,
    text,
};

/// How often a snapshot that changes under our hands is judged again.
const JUDGEMENTS: usize = 3;

/// How long after a claim was read its snapshot may be made without another look at the claim: it may
/// have been deleted and made anew meanwhile, and the new snapshot then has nothing in it.
const STILL_KNOWN: Duration = Duration::from_secs(5);

/// What is to be pruned, and by which rules.
struct Pruning<'a> {
    run: &'a Run<'a>,
    chosen: &'a Chosen,
    own: &'a Own,
    rules: &'a Rules,
}

/// What became of one snapshot that had to go.
enum Pruned {
    Deleted,
    /// It went without us.
    Gone,
    /// It changed, and stays by the new judgement.
    Stays,
    /// It stays, for the new snapshot went away, and with it all reason to delete anything.
    Lost,
    Failed(String),
}

/// Deletes what no rule keeps, oldest first, and says how it ended.
///
/// # Errors
/// If the new snapshot went away meanwhile.
pub(super) async fn prune(
    run: &Run<'_>,
    chosen: &Chosen,
    own: &Own,
    place: Place<'_>,
) -> Result<End, Failure> {
    let claim = chosen.called.as_str();
    place.update(|report| report.end = End::Unfinished(Step::Pruning));
    let rules = match &chosen.retention {
        Ok(rules) => rules,
        Err(problem) => return Ok(End::NotPruned(format!("nothing older is deleted: {problem}"))),
    };
    let pruning = Pruning { run, chosen, own, rules };
    let Some(condemned) = pruning.condemned(place) else {
        return Err(gone(claim, &own.name));
    };
    if !condemned.is_empty()
        && own.made - chosen.read > STILL_KNOWN
        && let Err(problem) = pruning.claim_is_the_same().await
    {
        tracing::error!(claim, "{problem}");
        return Ok(End::NotPruned(format!("nothing older is deleted: {problem}")));
    }

    let mut deletions = stream::iter(condemned)
        .map(|snapshot| pruning.delete(snapshot))
        .buffer_unordered(run.settings.concurrency);
    let mut failures = Vec::new();
    while let Some(pruned) = deletions.next().await {
        match pruned {
            Pruned::Deleted => place.update(|report| report.deleted += 1),
            Pruned::Gone => {}
            Pruned::Stays => place.update(|report| report.kept += 1),
            Pruned::Lost => return Err(gone(claim, &own.name)),
            Pruned::Failed(problem) => {
                tracing::error!(claim, "{problem}");
                failures.push(problem);
            }
        }
    }
    Ok(match failures.first() {
        None => End::Done,
        Some(first) => End::NotPruned(format!(
            "{} that had to go could not be deleted: {first}",
            text::count(failures.len(), "older snapshot")
        )),
    })
}

impl<'a> Pruning<'a> {
    /// What has to go, oldest first; `None` if nothing can be judged. Apart from the deletions, so
    /// that a thousand claims whose deletions queue do not each hold all their snapshots meanwhile.
    fn condemned(&self, place: Place<'_>) -> Option<Vec<Snapshot>> {
        let snapshots = self.run.ledger.of_claim(&self.chosen.id);
        let mut condemned = Vec::new();
        let (mut kept, mut of_earlier_claim) = (0, 0);
        for (snapshot, verdict) in self.judge(&snapshots)? {
            self.say(snapshot, &verdict);
            match verdict {
                verdict if verdict.goes() => condemned.push(snapshot.clone()),
                Verdict::New | Verdict::Terminating => {}
                verdict => {
                    of_earlier_claim += usize::from(verdict == Verdict::PreviousClaim);
                    kept += usize::from(snapshot.uid != self.own.uid);
                }
            }
        }
        if of_earlier_claim > 0 {
            tracing::warn!(
                claim = self.chosen.called,
                "{} of an earlier claim of this name: this run leaves them alone; delete them by hand once nobody \
                 needs that claim's data",
                text::count(of_earlier_claim, "snapshot")
            );
        }
        condemned.reverse();
        place.update(|report| report.kept = kept);
        Some(condemned)
    }

    /// All snapshots of the claim with the verdict on each, newest first. Nothing is judged unless
    /// the run's own snapshot is there and ready.
    fn judge<'s>(&self, snapshots: &'s [Snapshot]) -> Option<Vec<(&'s Snapshot, Verdict<'a>)>> {
        let new = self.new_snapshot()?;
        let claim = self.chosen.since.map(|created| ClaimIdentity { uid: "", created: Some(created) });
        let by = Judgement {
            new: Some(&self.own.uid),
            seen_before: &self.own.seen_before,
            claim,
            longest_wait: self.run.settings.longest_wait(),
            job_lifetime: self.run.settings.job_lifetime(),
            ..Judgement::by_rules(self.rules, new.created)
        };
        Some(
            judge(snapshots, &by).into_iter().map(|decision| (decision.snapshot, decision.verdict)).collect(),
        )
    }

    /// The run's own snapshot, if it is there and ready at this moment.
    fn new_snapshot(&self) -> Option<Snapshot> {
        let new = self.run.ledger.get(&self.chosen.id, &self.own.uid);
        new.filter(|new| (new.ready || self.run.settings.dry_run) && !new.is_terminating())
    }

    /// Whether the claim is still the one that was read in the beginning.
    async fn claim_is_the_same(&self) -> Result<(), String> {
        let Some(since) = self.chosen.since else { return Ok(()) };
        match self.run.cluster.claim(&self.chosen.id).await {
            Ok(claim) if claim.metadata.creation_timestamp == Some(since) => Ok(()),
            Ok(_) => Err(format!(
                "claim {} was deleted and made anew while its snapshot was being made",
                self.chosen.called
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Deletes one snapshot, as it was judged; if it is in another state by now, it is read and
    /// judged again.
    async fn delete(&self, mut condemned: Snapshot) -> Pruned {
        let (run, claim) = (self.run, self.chosen.called.as_str());
        let namespace = self.chosen.id.namespace.as_str();
        for _ in 0..JUDGEMENTS {
            if self.new_snapshot().is_none() {
                return Pruned::Lost;
            }
            let conflict = match run.cluster.delete(namespace, &condemned, run.settings.dry_run).await {
                Ok(Deleted::AlreadyGone) => {
                    tracing::info!(claim, snapshot = condemned.name, "the older snapshot is already gone");
                    return Pruned::Gone;
                }
                Ok(Deleted::Accepted) => {
                    let words = match run.settings.dry_run {
                        true => "would delete the older snapshot",
                        false => "deleted the older snapshot",
                    };
                    tracing::info!(claim, snapshot = condemned.name, "{words}");
                    return Pruned::Deleted;
                }
                Err(error) if error.cause() == Cause::Conflict => error,
                Err(error) => return Pruned::Failed(error.to_string()),
            };
            tracing::debug!(claim, snapshot = condemned.name, "judging again: {conflict}");
            match run.cluster.snapshot(namespace, &condemned.name).await {
                Ok(object) if object.metadata.uid == condemned.uid => run.ledger.see(object),
                // What was judged is gone; what has its name now is another.
                Ok(_) => return Pruned::Gone,
                Err(error) if error.cause() == Cause::NotFound => return Pruned::Gone,
                Err(error) => return Pruned::Failed(error.to_string()),
            }
            let snapshots = run.ledger.of_claim(&self.chosen.id);
            let Some(verdicts) = self.judge(&snapshots) else {
                return Pruned::Lost;
            };
            match verdicts.into_iter().find(|(snapshot, _)| snapshot.uid == condemned.uid) {
                Some((snapshot, verdict)) if verdict.goes() => condemned = snapshot.clone(),
                Some((_, Verdict::Terminating)) => return Pruned::Gone,
                Some((snapshot, verdict)) => {
                    let snapshot = snapshot.name.as_str();
                    tracing::info!(claim, snapshot, "the older snapshot stays after all: {verdict}");
                    return Pruned::Stays;
                }
                // It is not this schedule's any more.
                None => return Pruned::Stays,
            }
        }
        Pruned::Failed(format!("snapshot {} changes again and again", condemned.name))
    }

    /// Says what was decided: all of it in a dry run, which is what one makes it for.
    fn say(&self, snapshot: &Snapshot, verdict: &Verdict<'_>) {
        let claim = self.chosen.called.as_str();
        let word = if verdict.goes() { "goes" } else { "stays" };
        if self.run.settings.dry_run && *verdict == Verdict::New {
            // It was not made; its name is not worth remembering.
            return tracing::info!(claim, "the new snapshot would be the newest, and stay");
        }
        let dated = snapshot.time();
        if self.run.settings.dry_run {
            tracing::info!(claim, snapshot = snapshot.name, %dated, "{word}: {verdict}");
        } else {
            tracing::debug!(claim, snapshot = snapshot.name, %dated, "{word}: {verdict}");
        }
    }
}
