//! Applies the rules, subject to safety rules that no policy overrides.
//!
//! In order:
//! 1. Some snapshots are never touched and do not count towards the rules: held ones, terminating ones, those
//!    that another object owns (members of a VolumeGroupSnapshot), those whose status cannot be parsed, groups
//!    of which a member was deleted, those that a claim is being restored from, those of a previous claim of the same name, those dated in the
//!    future, and those that another run created at the same time as this one or later.
//! 2. Only ready snapshots count towards the rules.
//! 3. The newest ready snapshot is kept whatever the rules say, and so is the one that this run created.
//!    "Newest" means by the time of the data and by the API server's clock. If the two disagree, both are
//!    kept.
//! 4. The newest snapshot that a drill has verified is kept whatever the rules say. A schedule whose snapshots nobody
//!    verifies has none.
//! 5. Without a ready snapshot nothing is deleted.
//! 6. A snapshot that is not ready is deleted only if it is older than the newest ready one, older than the
//!    longest wait of a run and, if a Job created it, older than the lifetime of a Job. Until then another
//!    run, or that Job's next attempt, may be waiting for it.

use std::{collections::HashSet, fmt, time::Duration};

use k8s_openapi::jiff::Timestamp;

use super::{Count, Rule, Rules};
use crate::{
    snapshot::{Owner, Snapshot},
    text,
};

/// The input of [`judge`] besides the snapshots.
#[derive(Clone, Copy, Debug)]
pub struct Judgement<'a> {
    pub rules: &'a Rules,
    /// Uid of the snapshot that this run created. It is ready, and it is kept.
    pub new: Option<&'a str>,
    /// Uids of the snapshots that existed before this run created its own, although the API server, which
    /// stores whole seconds, gives both the same time. Without this, two concurrent runs would delete each
    /// other's snapshots, each taking its own for the newer one.
    pub seen_before: &'a [String],
    /// The current claim, if it is known.
    pub claim: Option<ClaimIdentity<'a>>,
    /// Names of the snapshots that claims in this namespace are being restored from.
    pub in_use: Option<&'a HashSet<String>>,
    /// The current time. Snapshots dated later are dated in the future. A run passes the time at which the
    /// API server stored its own snapshot, so that no other clock matters.
    pub now: Timestamp,
    /// The longest time that a run waits for a snapshot (attempts × interval).
    pub longest_wait: Duration,
    /// The longest lifetime of a Job, all attempts together.
    pub job_lifetime: Duration,
}

/// Distinguishes a claim from a previous one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimIdentity<'a> {
    /// The claim's uid. Of a group those of all its claims, see [`crate::group::claim_uids`].
    pub uid: &'a str,
    /// When the API server stored the claim. Used for snapshots without a claim uid.
    pub created: Option<Timestamp>,
}

impl ClaimIdentity<'_> {
    /// Whether a snapshot was taken of a previous claim of the same name. If the snapshot names its claim's
    /// uid, the uid decides; otherwise it belongs to a previous claim if it is older than this one. A group is of
    /// previous claims if any of its claims is none of the group's of now.
    pub fn is_previous(&self, snapshot: &Snapshot) -> bool {
        match &snapshot.claim_uid {
            Some(uids) => is_of_others(self.uid, uids),
            None => self.created.is_some_and(|created| snapshot.created < created),
        }
    }
}

/// Whether, of what was snapshotted `then`, anything is not among what there is `now`: the uid of a claim, or of the
/// claims of a group.
pub fn is_of_others(now: &str, then: &str) -> bool {
    !then.split(',').all(|then| now.split(',').any(|now| now == then))
}

impl<'a> Judgement<'a> {
    /// Judges by the rules alone: no run waits for anything, and nothing else is known.
    pub fn by_rules(rules: &'a Rules, now: Timestamp) -> Self {
        Judgement {
            rules,
            new: None,
            seen_before: &[],
            claim: None,
            in_use: None,
            now,
            longest_wait: Duration::ZERO,
            job_lifetime: Duration::ZERO,
        }
    }
}

/// The verdict on one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'s, 'r> {
    pub snapshot: &'s Snapshot,
    pub verdict: Verdict<'r>,
}

/// Whether a snapshot is kept or deleted, and why. `Display` prints the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'r> {
    /// Kept: already deleted, waiting for its finalizers.
    Terminating,
    Held,
    /// Kept: a VolumeGroupSnapshot owns it.
    GroupMember,
    /// Kept: another object owns it.
    OwnedByOther,
    /// Kept: its status cannot be parsed.
    Unreadable,
    /// Kept: a group of which a member was deleted.
    Incomplete,
    /// Kept: a claim that is not Bound yet names it as its data source.
    InUse,
    /// Kept: it was taken of a previous claim of the same name.
    PreviousClaim,
    /// Kept: it is dated after the current time, so a clock is wrong.
    FutureDated,
    /// Kept: another run created it at the same time as this run or later.
    NotOlder,
    /// Kept: this run created it.
    New,
    /// Kept: no ready snapshot is newer.
    NewestReady,
    /// Kept: of those that a drill has verified none is newer.
    NewestVerified,
    /// Kept: it is the n-th snapshot that the rule keeps.
    KeptBy(&'r Rule, usize),
    /// Kept: not ready, but no newer one is ready, or another run may still wait for it.
    InProgress,
    /// Deleted: ready, superseded, and no rule keeps it.
    Superseded,
    /// Deleted: it never became ready, and no run waits for it any more.
    Leftover,
}

impl Verdict<'_> {
    /// Whether the snapshot is to be deleted.
    pub fn goes(&self) -> bool {
        matches!(self, Verdict::Superseded | Verdict::Leftover)
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Terminating => f.write_str("already terminating"),
            Verdict::Held => f.write_str("held"),
            Verdict::GroupMember => f.write_str("member of a VolumeGroupSnapshot"),
            Verdict::OwnedByOther => f.write_str("another object owns it"),
            Verdict::Unreadable => f.write_str("its status cannot be read"),
            Verdict::Incomplete => f.write_str("a member of it was deleted"),
            Verdict::InUse => f.write_str("a claim is being restored from it"),
            Verdict::PreviousClaim => f.write_str("of a previous claim of this name"),
            Verdict::FutureDated => f.write_str("dated in the future"),
            Verdict::NotOlder => f.write_str("not older than this run's"),
            Verdict::New => f.write_str("made by this run"),
            Verdict::NewestReady => f.write_str("newest ready"),
            Verdict::NewestVerified => f.write_str("newest verified"),
            Verdict::KeptBy(
                rule @ (Rule::Last(Count::AtMost(_))
                | Rule::Each(_, Count::AtMost(_))
                | Rule::Verified(Count::AtMost(_))),
                nth,
            ) => {
                write!(f, "{} of {rule}", text::ordinal(*nth))
            }
            Verdict::KeptBy(rule, _) => rule.fmt(f),
            Verdict::InProgress => f.write_str("not ready yet"),
            Verdict::Superseded => f.write_str("no rule keeps it"),
            Verdict::Leftover => f.write_str("never became ready"),
        }
    }
}

/// Returns the cause in a reason that a [`Verdict`] gave, without which of several the snapshot is: of `2nd of
/// daily=7` it is `daily=7`. All other reasons are causes.
pub fn cause(reason: &str) -> &str {
    match reason.split_once(" of ") {
        Some((place, rule)) if place.starts_with(|character: char| character.is_ascii_digit()) => rule,
        _ => reason,
    }
}

/// Judges all snapshots of one claim that the schedule owns. Returns the decisions newest first.
///
/// The order of the input does not matter. Takes O(n log n).
pub fn judge<'s, 'r>(snapshots: &'s [Snapshot], by: &Judgement<'r>) -> Vec<Decision<'s, 'r>> {
    let mut ranked: Vec<Ranked<'s>> = snapshots.iter().map(|snapshot| Ranked::new(snapshot, by)).collect();
    ranked.sort_by(|a, b| b.rank.cmp(&a.rank).then_with(|| a.snapshot.name.cmp(&b.snapshot.name)));

    let ready: Vec<usize> = (0..ranked.len()).filter(|&place| ranked[place].counts).collect();
    let newest = ready.first().copied();
    // `max_by_key` returns the last of equals; iterating in reverse makes that the one that ranks first.
    let last_created = ready.iter().rev().copied().max_by_key(|&place| ranked[place].rank.created);

    let times = |places: &[usize]| -> Vec<Timestamp> {
        places.iter().map(|&place| ranked[place].rank.time).collect()
    };
    let verified: Vec<usize> =
        ready.iter().copied().filter(|&place| ranked[place].snapshot.verified).collect();
    let of_ready = times(&ready);
    let mut kept: Vec<Option<(&'r Rule, usize)>> = vec![None; ranked.len()];
    for rule in by.rules.iter() {
        let (places, keeps) = match rule {
            Rule::Verified(_) => (&verified, rule.keeps(&times(&verified))),
            _ => (&ready, rule.keeps(&of_ready)),
        };
        for (nth, index) in keeps.into_iter().enumerate() {
            kept[places[index]].get_or_insert((rule, nth + 1));
        }
    }

    let verdict = |place: usize| {
        let Ranked { rank, counts, untouchable, made_by_job, .. } = ranked[place];
        if let Some(verdict) = untouchable {
            return verdict;
        }
        if rank.is_new {
            return Verdict::New;
        }
        let Some(newest) = newest else { return Verdict::InProgress };
        if !counts {
            let age = by.now.duration_since(rank.created).unsigned_abs();
            let may_be_awaited = age <= by.longest_wait || made_by_job && age <= by.job_lifetime;
            return match may_be_awaited || rank >= ranked[newest].rank {
                true => Verdict::InProgress,
                false => Verdict::Leftover,
            };
        }
        if let Some((rule, nth)) = kept[place] {
            return Verdict::KeptBy(rule, nth);
        }
        if place == newest || Some(place) == last_created {
            return Verdict::NewestReady;
        }
        if Some(place) == verified.first().copied() {
            return Verdict::NewestVerified;
        }
        Verdict::Superseded
    };
    (0..ranked.len())
        .map(|place| Decision { snapshot: ranked[place].snapshot, verdict: verdict(place) })
        .collect()
}

/// A snapshot with its rank and everything that is checked after sorting. The fields are copied here because
/// the snapshots themselves are scattered in memory.
#[derive(Clone, Copy)]
struct Ranked<'s> {
    snapshot: &'s Snapshot,
    rank: Rank,
    /// Whether it counts towards the rules: it is ready and may be touched.
    counts: bool,
    /// Why it must not be touched, whatever the rules say.
    untouchable: Option<Verdict<'static>>,
    /// Whether a Job created it, whose next attempt may continue with it.
    made_by_job: bool,
}

/// Sort key: the time of the data, then the API server's clock. Of two at the same instant, the one that this
/// run created is the newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    time: Timestamp,
    created: Timestamp,
    is_new: bool,
}

impl<'s> Ranked<'s> {
    fn new(snapshot: &'s Snapshot, by: &Judgement<'_>) -> Self {
        let is_new = by.new == Some(snapshot.uid.as_str());
        // This run's snapshot was just taken. A driver's clock that runs ahead must not make it count as
        // dated in the future.
        let time = if is_new { snapshot.time().min(by.now) } else { snapshot.time() };
        let rank = Rank { time, created: snapshot.created, is_new };
        let untouchable = untouchable(snapshot, rank, by);
        Ranked {
            snapshot,
            rank,
            counts: snapshot.ready && untouchable.is_none(),
            untouchable,
            made_by_job: snapshot.run_uid.is_some(),
        }
    }
}

fn untouchable(snapshot: &Snapshot, rank: Rank, by: &Judgement<'_>) -> Option<Verdict<'static>> {
    let not_older = || {
        let same_second = rank.created == by.now && !by.seen_before.contains(&snapshot.uid);
        by.new.is_some() && !rank.is_new && (rank.created > by.now || same_second)
    };
    if snapshot.is_terminating() {
        Some(Verdict::Terminating)
    } else if snapshot.held {
        Some(Verdict::Held)
    } else if let Some(owner) = snapshot.owner {
        Some(match owner {
            Owner::Group => Verdict::GroupMember,
            Owner::Other => Verdict::OwnedByOther,
        })
    } else if snapshot.unreadable {
        Some(Verdict::Unreadable)
    } else if snapshot.incomplete {
        Some(Verdict::Incomplete)
    } else if by.in_use.is_some_and(|in_use| in_use.contains(&snapshot.name)) && !rank.is_new {
        Some(Verdict::InUse)
    } else if by.claim.is_some_and(|claim| claim.is_previous(snapshot)) {
        Some(Verdict::PreviousClaim)
    } else if not_older() {
        Some(Verdict::NotOlder)
    } else if rank.time > by.now {
        Some(Verdict::FutureDated)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
