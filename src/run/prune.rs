//! Deleting what the policy does not want any more, of one target whose new snapshot is ready.
//!
//! [`crate::retention`] judges what may go, by what the API server says after the new snapshot became ready
//! ([`super::recheck`]). This module makes sure that every try of every deletion holds for exactly what was
//! judged, and is made only while the new snapshot exists and is ready.

use std::{cell::Cell, collections::HashSet, rc::Rc, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{
    Run,
    recheck::{Recheck, Urgency},
    target::{KnownClaim, New, Policy, Target, gone},
};
use crate::{
    cluster::{Deleted, Error, ErrorKind, Slot},
    group::claim_changes,
    report::{End, Failure, Reason},
    retention::{Judgement, Rules, Verdict, judge},
    snapshot::Snapshot,
    text,
};

/// How often a target's snapshots are judged anew because something changed meanwhile, without a single
/// deletion in between.
const IDLE_ROUNDS: usize = 5;

/// How long after a claim was read its snapshot may become ready without a recheck, if there is nothing to
/// delete. Less than it takes to delete a claim, make it anew and bind it to a volume.
const STILL_KNOWN: Duration = Duration::from_secs(2);

/// How long the watch may have been silent while it is relied on for the new snapshot.
const HEARD: Duration = Duration::from_secs(1);

/// A snapshot that terminates for longer than this is worth a warning: something keeps its finalizers.
const LONG_TERMINATING: SignedDuration = SignedDuration::from_hours(1);

/// What a target's snapshots are judged by.
struct Pruning<'a> {
    run: &'a Run<'a>,
    target: &'a Target,
    /// The snapshot in whose favour others go: it has to be there and ready.
    keeper: Keeper<'a>,
    rules: &'a Rules,
    /// The claim as it is now; `None` if it may not be read.
    claim: Option<&'a KnownClaim>,
    in_use: Option<&'a HashSet<String>>,
    /// The moment of judging, by the API server's clock.
    now: Timestamp,
}

/// A snapshot in whose favour others go.
#[derive(Clone, Copy)]
struct Keeper<'a> {
    name: &'a str,
    uid: &'a str,
    /// What this run made, and which others were there before it in the same second.
    new: Option<&'a New>,
}

/// What became of one snapshot that had to go.
enum Pruned {
    Deleted,
    /// It went without us.
    Gone,
    /// Something changed: all has to be judged anew.
    Again,
    /// The same, after a try that failed.
    AgainAfter(String),
    /// The keeper went away, and with it all reason to delete anything.
    Lost,
    /// Whether the keeper is there could not be read.
    KeeperUnread,
    Failed(String),
}

/// Deletes what no rule keeps, oldest first.
///
/// # Errors
/// If the new snapshot went away meanwhile, or turns out to be none of this claim's.
pub(super) async fn prune(run: &Run<'_>, target: &Target, new: &New) -> Result<End, Failure> {
    let ready = new.ready;
    let keeper = Keeper { name: &new.name, uid: &new.uid, new: Some(new) };
    let Some(known) = known_keeper(run, target, keeper) else {
        return Err(gone(target, &new.name));
    };
    let now = known.created;
    warn_of_terminating(run, target, now);
    let policy = Policy::of(target.claim.as_ref(), run.settings, run.cluster.is_in_pod());
    let survey = match &policy {
        Policy::Rules(rules) => {
            let claim = target.claim.as_ref();
            Pruning { run, target, keeper, rules, claim, in_use: None, now }.survey()
        }
        Policy::Broken(_) | Policy::NotGiven => Survey::of_none(run, target),
    };
    let goes_none = survey.to_delete.is_empty();
    if goes_none && ready - target.read <= STILL_KNOWN {
        survey.say(run, target);
        return Ok(match policy {
            Policy::Broken(problem) => not_pruned(&problem),
            Policy::Rules(_) | Policy::NotGiven => End::Done,
        });
    }
    if target.claim.is_none() && !run.settings.prune_unread_claims {
        survey.say(run, target);
        return Ok(if goes_none { End::Done } else { unread_claims(target) });
    }
    drop(survey);

    let (mut failures, mut last_problem) = (Vec::new(), None);
    let (mut idle, mut urgency) = (0, Urgency::Gather);
    while idle < IDLE_ROUNDS {
        let recheck = run.rechecks.after(run, &target.id.namespace, ready, urgency).await;
        urgency = Urgency::AtOnce;
        let claim = match claim_now(run, target, new, &recheck)? {
            ClaimNow::Known(claim) => claim,
            ClaimNow::Unread(error) if goes_none => return confirm(run, target, new, error).await,
            ClaimNow::NotPruned(_) if goes_none => return Ok(End::Done),
            ClaimNow::Unread(error) => return Ok(say_not_pruned(target, &error.to_string())),
            ClaimNow::NotPruned(why) => return Ok(say_not_pruned(target, &why)),
        };
        let policy = Policy::of(claim, run.settings, run.cluster.is_in_pod());
        let rules = match &policy {
            Policy::Rules(rules) => rules,
            Policy::Broken(problem) => return Ok(not_pruned(problem)),
            Policy::NotGiven => return Ok(End::Done),
        };
        let in_use = run.in_use(target, &recheck);
        let pruning = Pruning { run, target, keeper, rules, claim, in_use: in_use.as_deref(), now };
        let Some(round) = pruning.round(&recheck).await else {
            return Err(gone(target, &new.name));
        };
        failures.extend(round.failures);
        last_problem = round.last_problem.or(last_problem);
        match round.next {
            Next::Done => {
                return Ok(match failures.first() {
                    None => End::Done,
                    Some(first) => End::NotPruned(format!(
                        "{} that had to go could not be deleted: {first}",
                        text::count(failures.len(), "older snapshot")
                    )),
                });
            }
            Next::Again => {}
            // With a whole retry budget, and without holding a slot.
            Next::ReadKeeper => match run.read(target, &new.name).await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(gone(target, &new.name));
                }
                Err(error) => return Ok(not_pruned(&error.to_string())),
            },
        }
        idle = if round.deleted > 0 { 0 } else { idle + 1 };
    }
    let why = match last_problem {
        Some(problem) => format!("older snapshots that had to go could not be deleted: {problem}"),
        None => "older snapshots change again and again; the next run deletes them".to_owned(),
    };
    let (claim, group) = target.fields();
    tracing::error!(claim, group, "{why}");
    Ok(End::NotPruned(why))
}

/// The Role says nothing of claims.
fn unread_claims(target: &Target) -> End {
    let why = "nothing older is deleted, because nobody knows what the claim's annotations want kept: let the Role allow \
               it: apiGroups: [\"\"], resources: [\"persistentvolumeclaims\"], verbs: [\"get\", \"list\"] \
               (SNAPSHOT_PRUNE_UNREAD_CLAIMS=true prunes all the same)";
    let (claim, group) = target.fields();
    tracing::error!(claim, group, "{why}");
    End::NotPruned(why.to_owned())
}

/// Deletes what a newer ready snapshot supersedes, before this run has made one of its own, and returns how
/// many. What cannot be judged stays.
pub(super) async fn make_room(run: &Run<'_>, target: &Target) -> usize {
    let before = target.report.get().deleted;
    for _ in 0..IDLE_ROUNDS {
        let recheck = run.rechecks.after(run, &target.id.namespace, target.read, Urgency::AtOnce).await;
        // Neighbours that others deleted meanwhile would still count as copies.
        if recheck.unread_snapshots(target).is_some() {
            break;
        }
        let known = run.cache_of(target).of_claim(&target.id);
        let Ok(Some(claim)) = recheck.claim(target) else { break };
        let is_same = target.claim.is_some() && target.is_same_as(claim);
        let policy = Policy::of(Some(claim), run.settings, run.cluster.is_in_pod());
        let (true, Policy::Rules(rules)) = (is_same && !claim.is_terminating, &policy) else { break };
        let Some(now) = latest(&known, Timestamp::now()) else { break };
        let in_use = run.in_use(target, &recheck);
        let in_use = in_use.as_deref();
        let by = judgement(run, rules, Some(claim), in_use, now);
        let kept = judge(&known, &by)
            .into_iter()
            .find(|decision| decision.snapshot.ready && counts(&decision.verdict));
        let Some(kept) = kept else { break };
        let keeper = Keeper { name: &kept.snapshot.name, uid: &kept.snapshot.uid, new: None };
        let pruning = Pruning { run, target, keeper, rules, claim: Some(claim), in_use, now };
        match pruning.round(&recheck).await {
            Some(Round { next: Next::Again, .. }) => {}
            _ => break,
        }
    }
    target.report.get().deleted - before
}

/// The moment of judging where this run has made no snapshot to take it from: when the API server stored the
/// last one, or the storage system captured the last one, if that is later and no later than `clock`. After an
/// outage the data of what was asked for meanwhile is captured long after all of it was stored.
fn latest(known: &[Snapshot], clock: Timestamp) -> Option<Timestamp> {
    let stored = known.iter().map(|snapshot| snapshot.created).max()?;
    let captured = known.iter().map(Snapshot::time).filter(|time| *time <= clock).max();
    Some(captured.map_or(stored, |captured| captured.max(stored)))
}

/// Whether a snapshot that stays counts as a copy of the claim that nothing takes away.
fn counts(verdict: &Verdict<'_>) -> bool {
    matches!(verdict, Verdict::NewestReady | Verdict::KeptBy(..))
}

/// The claim as it is now, or why nothing of it is pruned.
enum ClaimNow<'a> {
    /// `None` where it may not be read, and somebody has said that this is not to matter.
    Known(Option<&'a KnownClaim>),
    /// It is the same, as far as that was ever known.
    NotPruned(String),
    /// Whether it is the same is not known.
    Unread(&'a Error),
}

/// Returns the claim as it is now, if it is still the one that was read before the snapshot was made. The
/// snapshot controller looks it up by its name only when it gets there.
///
/// # Errors
/// If it is not: nobody can tell which claim's data the new snapshot has.
fn claim_now<'a>(
    run: &Run<'_>,
    target: &Target,
    new: &New,
    recheck: &'a Recheck,
) -> Result<ClaimNow<'a>, Failure> {
    let now = match recheck.claim(target) {
        Ok(now) => now,
        Err(error) if error.kind() == ErrorKind::Forbidden && run.settings.prune_unread_claims => {
            return Ok(ClaimNow::Known(None));
        }
        Err(error) => return Ok(ClaimNow::Unread(error)),
    };
    let now = same_claim(target, new, now)?;
    Ok(if let Some(error) = recheck.unread_snapshots(target) {
        ClaimNow::NotPruned(error.to_string())
    } else if now.is_terminating {
        ClaimNow::NotPruned("the claim is being deleted, and these are what remains of it".to_owned())
    } else if target.claim.is_none() {
        // Which claim the snapshot is of was never known.
        ClaimNow::NotPruned("claims could not be read before the snapshot was made".to_owned())
    } else {
        ClaimNow::Known(Some(now))
    })
}

/// Returns `now` if it is the claim that was read before the snapshot was made.
///
/// # Errors
/// If it is another, or gone.
fn same_claim<'a>(
    target: &Target,
    new: &New,
    now: Option<&'a KnownClaim>,
) -> Result<&'a KnownClaim, Failure> {
    let snapshot = new.name.as_str();
    let replaced = |what: String| Failure {
        message: format!(
            "{what} while snapshot {snapshot} was being made, so nobody can tell which claim's data it has; older \
             snapshots stay"
        ),
        is_transient: true,
        reason: Reason::Disturbed,
    };
    match (now, &target.group) {
        (Some(now), _) if target.is_same_as(now) => Ok(now),
        (None, None) => Err(replaced(format!("{} was deleted", target.what()))),
        (Some(_), None) => Err(replaced(format!("{} was deleted and made anew", target.what()))),
        (now, Some(_)) => {
            let of = |claim: Option<&KnownClaim>| claim.map_or(String::new(), |claim| claim.uid.to_string());
            Err(replaced(claim_changes(&target.what(), &of(target.claim.as_ref()), &of(now))))
        }
    }
}

/// Ends a target of which nothing has to go, where `error` kept its namespace's claims from being listed: a
/// success says that the snapshot is of the claim that was read, so that one is read again.
///
/// # Errors
/// If the claim is another now, or cannot be read.
async fn confirm(run: &Run<'_>, target: &Target, new: &New, error: &Error) -> Result<End, Failure> {
    if target.claim.is_none() {
        return Ok(End::Done);
    }
    let read = match error.kind() {
        // Whoever may not list may still be allowed to read one.
        ErrorKind::Forbidden if target.group.is_none() => run.cluster.claim(&target.id).await,
        _ => Err(error.clone()),
    };
    let now = match read {
        Ok(claim) => Some(KnownClaim::of(claim, &run.settings.schedule)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let Failure { message, is_transient, reason } = error.into();
            let message = format!(
                "snapshot {} is ready, but nobody knows whether {} is still the same: {message}",
                new.name,
                target.what()
            );
            return Err(Failure { message, is_transient, reason });
        }
    };
    same_claim(target, new, now.as_ref()).map(|_| End::Done)
}

fn say_not_pruned(target: &Target, problem: &str) -> End {
    let (claim, group) = target.fields();
    tracing::error!(claim, group, "nothing older is deleted: {problem}");
    not_pruned(problem)
}

fn not_pruned(problem: &str) -> End {
    End::NotPruned(format!("nothing older is deleted: {problem}"))
}

/// A judgement by what is known of a claim.
fn judgement<'a>(
    run: &Run<'_>,
    rules: &'a Rules,
    claim: Option<&'a KnownClaim>,
    in_use: Option<&'a HashSet<String>>,
    now: Timestamp,
) -> Judgement<'a> {
    Judgement {
        claim: claim.map(KnownClaim::identity),
        in_use,
        longest_wait: run.settings.longest_wait(),
        job_lifetime: run.settings.job_lifetime(),
        ..Judgement::by_rules(rules, now)
    }
}

/// The keeper, if it is there and ready at this moment.
fn known_keeper(run: &Run<'_>, target: &Target, keeper: Keeper<'_>) -> Option<Snapshot> {
    let known = run.cache_of(target).get(&target.id, keeper.uid);
    known.filter(|known| (known.ready || run.settings.dry_run) && !known.is_terminating())
}

fn warn_of_terminating(run: &Run<'_>, target: &Target, now: Timestamp) {
    let known = run.cache_of(target).of_claim(&target.id);
    let is_stuck = |snapshot: &&Snapshot| {
        snapshot.terminating_since.is_some_and(|since| now.duration_since(since) > LONG_TERMINATING)
    };
    let stuck: Vec<&Snapshot> = known.iter().filter(is_stuck).collect();
    if let Some(first) = stuck.first() {
        let (claim, group) = target.fields();
        tracing::warn!(
            claim,
            group,
            snapshot = first.name,
            "{} terminating for more than an hour: something keeps the finalizers; see kubectl get {} {} -n {} -o yaml",
            match stuck.len() {
                1 => "1 snapshot has been".to_owned(),
                many => format!("{many} snapshots have been"),
            },
            target.kind(),
            first.name,
            target.id.namespace
        );
    }
}

/// What came of one round of deletions.
struct Round {
    deleted: usize,
    failures: Vec<String>,
    /// What came of a try that is to be repeated.
    last_problem: Option<String>,
    next: Next,
}

/// What is to be done after a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Done,
    /// Something changed: all has to be judged anew.
    Again,
    /// The same, once the keeper was read.
    ReadKeeper,
}

/// The verdicts on a target's snapshots.
struct Survey {
    /// What has to go, oldest first.
    to_delete: Vec<Snapshot>,
    /// How many others stay, this run's own left out.
    kept: usize,
    of_previous_claim: usize,
    /// The groups of which a member was deleted.
    incomplete: Vec<String>,
    /// What is to be said of each.
    said: Vec<(String, Timestamp, Said)>,
}

/// What is to be said of one verdict, and how loudly.
struct Said {
    words: String,
    is_info: bool,
}

impl Survey {
    /// Where nothing is judged, all stay.
    fn of_none(run: &Run<'_>, target: &Target) -> Self {
        let kept = run.cache_of(target).of_claim(&target.id).len().saturating_sub(1);
        Survey { to_delete: Vec::new(), kept, of_previous_claim: 0, incomplete: Vec::new(), said: Vec::new() }
    }

    /// Says what was decided: all of it in a dry run, which is what one makes it for.
    fn say(&self, run: &Run<'_>, target: &Target) {
        let (claim, group) = target.fields();
        for (snapshot, dated, Said { words, is_info }) in &self.said {
            match *is_info || run.settings.dry_run {
                true => tracing::info!(claim, group, snapshot, %dated, "{words}"),
                false => tracing::debug!(claim, group, snapshot, %dated, "{words}"),
            }
        }
        if self.of_previous_claim > 0 {
            let whose = match group {
                None => "a previous claim of this name",
                Some(_) => "claims that are no longer in the group, or were made anew",
            };
            tracing::warn!(
                claim,
                group,
                "{} of {whose}: this run leaves them alone; delete them by hand once nobody needs that data",
                text::count(self.of_previous_claim, "snapshot")
            );
        }
        if let Some(first) = self.incomplete.first() {
            tracing::warn!(
                group,
                snapshot = first,
                "{} of which a member was deleted, {first} first: this run leaves what is left alone; delete it by hand \
                 once nobody needs it",
                text::count(self.incomplete.len(), "snapshot")
            );
        }
        target.report.update(|report| report.kept = self.kept);
    }
}

impl Pruning<'_> {
    /// Judges all snapshots and deletes those that have to go, oldest first; `None` if the keeper went away.
    ///
    /// It asks for no place among the active targets: who makes room under a quota has one, and all places may
    /// belong to such.
    async fn round(&self, recheck: &Rc<Recheck>) -> Option<Round> {
        let (run, target) = (self.run, self.target);
        let mut round = Round { deleted: 0, failures: Vec::new(), last_problem: None, next: Next::Done };
        known_keeper(run, target, self.keeper)?;
        let survey = self.survey();
        survey.say(run, target);
        let to_delete = survey.to_delete;
        let revision = run
            .cache_of(target)
            .mark_for_deletion(&target.id, to_delete.iter().map(|snapshot| snapshot.uid.as_str()));
        let mut deletions = stream::iter(to_delete)
            .map(|snapshot| self.delete(snapshot, recheck, revision))
            .buffer_unordered(run.settings.concurrency);
        while let Some(pruned) = deletions.next().await {
            match pruned {
                Pruned::Deleted => {
                    round.deleted += 1;
                    target.report.update(|report| report.deleted += 1);
                }
                Pruned::Gone => {}
                Pruned::Again => round.next = round.next.max(Next::Again),
                Pruned::AgainAfter(problem) => {
                    round.next = round.next.max(Next::Again);
                    round.last_problem = Some(problem);
                }
                Pruned::KeeperUnread => round.next = Next::ReadKeeper,
                Pruned::Lost => return None,
                Pruned::Failed(problem) => {
                    let (claim, group) = target.fields();
                    tracing::error!(claim, group, "{problem}");
                    round.failures.push(problem);
                }
            }
        }
        Some(round)
    }

    /// The verdicts on all snapshots. Apart from the deletions, so that a thousand targets whose deletions
    /// queue do not each hold all their snapshots meanwhile.
    fn survey(&self) -> Survey {
        let snapshots = self.run.cache_of(self.target).of_claim(&self.target.id);
        let mut survey = Survey {
            to_delete: Vec::new(),
            kept: 0,
            of_previous_claim: 0,
            incomplete: Vec::new(),
            said: Vec::new(),
        };
        let is_said = self.run.settings.dry_run || tracing::enabled!(tracing::Level::DEBUG);
        for (snapshot, verdict) in self.judge(&snapshots) {
            // That a claim is being restored from it is what somebody who waits for room wants to know.
            let is_info = verdict == Verdict::InUse;
            if is_said || is_info {
                let words = match verdict {
                    // It was not made; its name is not worth remembering.
                    Verdict::New if self.run.settings.dry_run => {
                        "the new snapshot would be the newest, and stay".to_owned()
                    }
                    Verdict::PreviousClaim if self.target.group.is_some() => {
                        "stays: it has claims that are no longer in the group, or were made anew".to_owned()
                    }
                    verdict if verdict.goes() => format!("goes: {verdict}"),
                    verdict => format!("stays: {verdict}"),
                };
                survey.said.push((snapshot.name.clone(), snapshot.time(), Said { words, is_info }));
            }
            match verdict {
                verdict if verdict.goes() => survey.to_delete.push(snapshot.clone()),
                Verdict::New | Verdict::Terminating => {}
                verdict => {
                    survey.of_previous_claim += usize::from(verdict == Verdict::PreviousClaim);
                    if verdict == Verdict::Incomplete {
                        survey.incomplete.push(snapshot.name.clone());
                    }
                    survey.kept += 1;
                }
            }
        }
        survey.to_delete.reverse();
        survey
    }

    /// All snapshots of the claim with the verdict on each, newest first.
    fn judge<'s>(&self, snapshots: &'s [Snapshot]) -> Vec<(&'s Snapshot, Verdict<'_>)> {
        let mut by = judgement(self.run, self.rules, self.claim, self.in_use, self.now);
        if let Some(new) = self.keeper.new {
            by = Judgement { new: Some(&new.uid), seen_before: &new.seen_before, ..by };
        }
        judge(snapshots, &by).into_iter().map(|decision| (decision.snapshot, decision.verdict)).collect()
    }

    /// Deletes one snapshot, as it was judged. Whatever changes meanwhile, of it or beside it, has all
    /// judged anew.
    async fn delete(&self, to_delete: Snapshot, recheck: &Rc<Recheck>, revision: u64) -> Pruned {
        let (run, target) = (self.run, self.target);
        let ((claim, group), snapshot) = (target.fields(), to_delete.name.as_str());
        let dry_run = run.settings.dry_run;
        let withheld = Cell::new(None);
        let tries = Cell::new(0_u32);
        let guard = async |slot: &Slot<'_>| {
            let is_first = tries.replace(tries.get() + 1) == 0;
            let why = match dry_run {
                true => None,
                false => self.reason_to_wait(slot, recheck, revision, is_first).await,
            };
            let goes = why.is_none();
            withheld.set(why);
            goes
        };
        target.report.update(|report| report.deleting += 1);
        let deleted = run.delete(target, &to_delete, dry_run, guard).await;
        target.report.update(|report| report.deleting -= 1);
        match deleted {
            Ok(Deleted::AlreadyGone) => {
                tracing::info!(claim, group, snapshot, "the older snapshot is already gone");
                Pruned::Gone
            }
            Ok(Deleted::Accepted) => {
                let words = match dry_run {
                    true => "would delete the older snapshot",
                    false => "deleted the older snapshot",
                };
                if !dry_run {
                    run.cache_of(target).note_deleted(&target.id, &to_delete.uid);
                }
                tracing::info!(claim, group, snapshot, "{words}");
                Pruned::Deleted
            }
            Ok(Deleted::Withheld(before)) => match (withheld.take(), before) {
                (Some(Pruned::Again) | None, Some(error)) => Pruned::AgainAfter(error.to_string()),
                (why, _) => why.unwrap_or(Pruned::Again),
            },
            Err(error) if error.kind() == ErrorKind::Conflict => {
                tracing::debug!(claim, group, snapshot, "judging again: {error}");
                match run.read(target, snapshot).await {
                    Ok(read) if read.uid == to_delete.uid => {
                        if read.is_terminating {
                            Pruned::Gone
                        } else {
                            Pruned::Again
                        }
                    }
                    // What was judged is gone; what has its name now is another.
                    Ok(_) => Pruned::Gone,
                    Err(error) if error.kind() == ErrorKind::NotFound => Pruned::Gone,
                    Err(error) => Pruned::Failed(error.to_string()),
                }
            }
            Err(error) => Pruned::Failed(error.to_string()),
        }
    }

    /// Why a try of a deletion that has its slot is not to be made now; `None` if it may be.
    ///
    /// The recheck must be fresh, no other snapshot of the claim may have come, changed or gone since all were
    /// judged, and the keeper must exist and be ready. The watch vouches for the keeper if it was heard of
    /// within a second; otherwise, and before every repeated try, the keeper is read.
    async fn reason_to_wait(
        &self,
        slot: &Slot<'_>,
        recheck: &Recheck,
        revision: u64,
        is_first: bool,
    ) -> Option<Pruned> {
        let (run, target) = (self.run, self.target);
        if !recheck.is_fresh() {
            return Some(Pruned::Again);
        }
        if !is_first || !run.was_heard_within(target, HEARD) {
            let Keeper { name, uid, .. } = self.keeper;
            match run.read_in(slot, target, name).await {
                Ok(read) if read.uid == uid && read.is_ready => {}
                Ok(_) => return Some(Pruned::Lost),
                Err(error) if error.kind() == ErrorKind::NotFound => return Some(Pruned::Lost),
                Err(error) => {
                    let (claim, group) = target.fields();
                    tracing::debug!(claim, group, "{error}");
                    return Some(Pruned::KeeperUnread);
                }
            }
        }
        if known_keeper(run, target, self.keeper).is_none() {
            return Some(Pruned::Lost);
        }
        (run.cache_of(target).revision(&target.id) != revision).then_some(Pruned::Again)
    }
}
