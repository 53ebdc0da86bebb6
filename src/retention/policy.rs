//! The judgement: rules under the safety rules that no policy overrides.
//!
//! In order:
//! 1. Some snapshots are never touched, and do not count: what the rules keep is kept besides them.
//!    These are held ones, those terminating already, those that another object owns (members of a
//!    VolumeGroupSnapshot), those whose status cannot be read, those that a claim is being restored
//!    from, those of a previous claim of the same name, those dated in the future, and those that
//!    another run made at the same moment as this one or later.
//! 2. Only ready snapshots count towards the rules.
//! 3. The newest ready one stays whatever the rules say, and so does the one that this run made.
//!    "Newest" is taken by the time of the data and by the API server's own clock; where the two
//!    disagree, both stay.
//! 4. Without a ready snapshot nothing goes.
//! 5. One that is not ready goes only if it is older than the newest ready one, older than the
//!    longest wait of a run, and, where a Job made it, older than any Job becomes: until then another
//!    run, or that Job's next attempt, may be waiting for it.

use std::{collections::HashSet, fmt, time::Duration};

use k8s_openapi::jiff::Timestamp;

use super::{Rule, Rules};
use crate::{
    snapshot::{Owner, Snapshot},
    text,
};

/// What a claim's snapshots are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Judgement<'a> {
    /// The policy.
    pub rules: &'a Rules,
    /// The `uid` of the snapshot that this run made, which is ready and stays.
    pub new: Option<&'a str>,
    /// The uids of those that were there before this run made its own although the API server,
    /// which dates in whole seconds, gives both the same time. Two runs at once would delete each
    /// other's otherwise, each taking its own for the newer one.
    pub seen_before: &'a [String],
    /// The claim as it is now, if that is known.
    pub claim: Option<ClaimIdentity<'a>>,
    /// The names of the snapshots that claims of this namespace are being restored from.
    pub in_use: Option<&'a HashSet<String>>,
    /// The moment of judging: what is dated later is dated in the future. A run takes the time at
    /// which the API server stored its own snapshot, so that no other clock matters.
    pub now: Timestamp,
    /// The longest that a run waits for a snapshot (attempts × interval).
    pub longest_wait: Duration,
    /// The longest that a Job lives, all its attempts together.
    pub job_lifetime: Duration,
}

/// What tells a claim from a previous one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimIdentity<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// When the API server stored it, for snapshots that do not name a uid.
    pub created: Option<Timestamp>,
}

impl ClaimIdentity<'_> {
    /// Whether a snapshot is of a previous claim of the same name. One that names its claim's uid is
    /// of exactly that claim; another one is if it is older than the claim.
    pub fn is_previous(&self, snapshot: &Snapshot) -> bool {
        match &snapshot.claim_uid {
            Some(uid) => uid != self.uid,
            None => self.created.is_some_and(|created| snapshot.created < created),
        }
    }
}

impl<'a> Judgement<'a> {
    /// By the rules alone, at a moment: nobody waits for anything, and nothing else is known.
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

/// What is to happen to one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'s, 'r> {
    /// The snapshot.
    pub snapshot: &'s Snapshot,
    /// Whether it stays, and why.
    pub verdict: Verdict<'r>,
}

/// Whether a snapshot stays, and why. `Display` gives the reason in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'r> {
    /// Stays: it is deleted already and waits for its finalizers.
    Terminating,
    /// Stays: somebody holds it.
    Held,
    /// Stays: its VolumeGroupSnapshot owns it.
    GroupMember,
    /// Stays: another object owns it.
    OwnedByOther,
    /// Stays: nobody can tell what it is.
    Unreadable,
    /// Stays: a claim that is not yet Bound names it as its data source.
    InUse,
    /// Stays: it was taken of a claim of the same name that is gone.
    PreviousClaim,
    /// Stays: it is dated after the moment of judging, so some clock is wrong.
    FutureDated,
    /// Stays: another run made it, not before this run made its own.
    NotOlder,
    /// Stays: this run made it.
    New,
    /// Stays: no ready one is newer.
    NewestReady,
    /// Stays: a rule keeps it, as its n-th.
    KeptBy(&'r Rule, usize),
    /// Stays: not ready, but no newer one is ready, or another run may still wait for it.
    InProgress,
    /// Goes: ready, superseded, and no rule keeps it.
    Superseded,
    /// Goes: it never became ready, and no run waits for it any more.
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
            Verdict::InUse => f.write_str("a claim is being restored from it"),
            Verdict::PreviousClaim => f.write_str("of a previous claim of this name"),
            Verdict::FutureDated => f.write_str("dated in the future"),
            Verdict::NotOlder => f.write_str("not older than this run's"),
            Verdict::New => f.write_str("made by this run"),
            Verdict::NewestReady => f.write_str("newest ready"),
            Verdict::KeptBy(rule @ (Rule::Last(_) | Rule::Each(..)), nth) => {
                write!(f, "{} of {rule}", text::ordinal(*nth))
            }
            Verdict::KeptBy(rule, _) => rule.fmt(f),
            Verdict::InProgress => f.write_str("not ready yet"),
            Verdict::Superseded => f.write_str("no rule keeps it"),
            Verdict::Leftover => f.write_str("never became ready"),
        }
    }
}

/// Judges all owned snapshots of one claim; the decisions come newest first.
///
/// The order of the input does not matter. Takes n log n.
pub fn judge<'s, 'r>(snapshots: &'s [Snapshot], by: &Judgement<'r>) -> Vec<Decision<'s, 'r>> {
    let mut ranked: Vec<Ranked<'s>> = snapshots.iter().map(|snapshot| Ranked::new(snapshot, by)).collect();
    ranked.sort_by(|a, b| b.rank.cmp(&a.rank).then_with(|| a.snapshot.name.cmp(&b.snapshot.name)));

    let ready: Vec<usize> = (0..ranked.len()).filter(|&place| ranked[place].counts).collect();
    let newest = ready.first().copied();
    // Of equals `max_by_key` takes the last, so from the back: the one that ranks first.
    let last_created = ready.iter().rev().copied().max_by_key(|&place| ranked[place].rank.created);

    let times: Vec<Timestamp> = ready.iter().map(|&place| ranked[place].rank.time).collect();
    let mut kept: Vec<Option<(&'r Rule, usize)>> = vec![None; ranked.len()];
    for rule in by.rules.iter() {
        for (nth, index) in rule.keeps(&times).into_iter().enumerate() {
            kept[ready[index]].get_or_insert((rule, nth + 1));
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
        Verdict::Superseded
    };
    (0..ranked.len())
        .map(|place| Decision { snapshot: ranked[place].snapshot, verdict: verdict(place) })
        .collect()
}

/// A snapshot with its place in time, and with all that is asked of it once it has that place: the
/// snapshots themselves lie about in memory in another order.
#[derive(Clone, Copy)]
struct Ranked<'s> {
    snapshot: &'s Snapshot,
    rank: Rank,
    /// Whether it is ready and may be touched: then it counts towards the rules.
    counts: bool,
    /// Why it is not to be touched, whatever the rules say.
    untouchable: Option<Verdict<'static>>,
    /// Whether a Job made it, whose next attempt may go on with it.
    made_by_job: bool,
}

/// A place in time: by the time of the data, then by the API server's clock; of two at one instant
/// the one that this run made is the newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    time: Timestamp,
    created: Timestamp,
    is_new: bool,
}

impl<'s> Ranked<'s> {
    fn new(snapshot: &'s Snapshot, by: &Judgement<'_>) -> Self {
        let is_new = by.new == Some(snapshot.uid.as_str());
        // This run's was just taken: a driver's clock that runs ahead must not make it look like a
        // mistake of the future.
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
