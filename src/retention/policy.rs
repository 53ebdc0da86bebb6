//! The judgement: rules under the safety rules that no policy overrides.
//!
//! In order:
//! 1. Held, terminating, group members and future-dated snapshots are never touched, and do not
//!    count: what the rules keep is kept besides them. Nor are those of an earlier claim of the same
//!    name, and those that another run made at the same moment as this one or later.
//! 2. Only ready snapshots count towards the rules.
//! 3. The newest ready one stays whatever the rules say, and so does the one that this run made.
//!    "Newest" is taken by the time the data was cut and by the API server's own clock; where the
//!    two disagree, both stay.
//! 4. Without a ready snapshot nothing goes.
//! 5. One that is not ready goes only if it is older than the newest ready one and older than the
//!    longest wait of a run, for until then another run may be waiting for it.

use std::{fmt, time::Duration};

use k8s_openapi::jiff::Timestamp;

use super::{Rule, Rules};
use crate::{snapshot::Snapshot, text};

/// By what a claim's snapshots are judged.
#[derive(Clone, Copy, Debug)]
pub struct Judgement<'a> {
    /// The policy.
    pub rules: &'a Rules,
    /// The `uid` of the snapshot that this run made, which is ready and stays.
    pub own: Option<&'a str>,
    /// The uids of those that were there before this run made its own although the API server,
    /// which dates in whole seconds, gives both the same time. Two runs at once would delete each
    /// other's otherwise, each taking its own for the newer one.
    pub seen_before: &'a [String],
    /// Since when the claim exists, if that is known.
    pub claim_since: Option<Timestamp>,
    /// The moment of judging: what is dated later is dated in the future. A run takes the time at
    /// which the API server stored its own snapshot, so that no other clock matters.
    pub now: Timestamp,
    /// The longest that a run waits for a snapshot (attempts × interval).
    pub longest_wait: Duration,
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
    /// Stays: it was taken of a claim of the same name that is gone.
    EarlierClaim,
    /// Stays: it is dated after the moment of judging, so some clock is wrong.
    FutureDated,
    /// Stays: another run made it, not before this run made its own.
    NotOlder,
    /// Stays: this run made it.
    Own,
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
            Verdict::EarlierClaim => f.write_str("of an earlier claim of this name"),
            Verdict::FutureDated => f.write_str("dated in the future"),
            Verdict::NotOlder => f.write_str("not older than this run's"),
            Verdict::Own => f.write_str("made by this run"),
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
        let Ranked { rank, counts, untouchable, .. } = ranked[place];
        if let Some(verdict) = untouchable {
            return verdict;
        }
        if rank.is_own {
            return Verdict::Own;
        }
        let Some(newest) = newest else { return Verdict::InProgress };
        if !counts {
            let age = by.now.duration_since(rank.created).unsigned_abs();
            return match age <= by.longest_wait || rank >= ranked[newest].rank {
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
}

/// A place in time: by when the data was cut, then by the API server's clock; of two at one instant
/// the run's own is the newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    time: Timestamp,
    created: Timestamp,
    is_own: bool,
}

impl<'s> Ranked<'s> {
    fn new(snapshot: &'s Snapshot, by: &Judgement<'_>) -> Self {
        let is_own = by.own == Some(snapshot.uid.as_str());
        // The run's own was just cut: a driver's clock that runs ahead must not make it look like a
        // mistake of the future.
        let time = if is_own { snapshot.time().min(by.now) } else { snapshot.time() };
        let rank = Rank { time, created: snapshot.created, is_own };
        let untouchable = untouchable(snapshot, rank, by);
        Ranked { snapshot, rank, counts: snapshot.ready && untouchable.is_none(), untouchable }
    }
}

fn untouchable(snapshot: &Snapshot, rank: Rank, by: &Judgement<'_>) -> Option<Verdict<'static>> {
    let not_older = || {
        let same_second = rank.created == by.now && !by.seen_before.contains(&snapshot.uid);
        by.own.is_some() && !rank.is_own && (rank.created > by.now || same_second)
    };
    if snapshot.terminating {
        Some(Verdict::Terminating)
    } else if snapshot.held {
        Some(Verdict::Held)
    } else if snapshot.group_member {
        Some(Verdict::GroupMember)
    } else if by.claim_since.is_some_and(|since| rank.created < since) {
        Some(Verdict::EarlierClaim)
    } else if rank.time > by.now {
        Some(Verdict::FutureDated)
    } else if not_older() {
        Some(Verdict::NotOlder)
    } else if rank.created > by.now {
        Some(Verdict::FutureDated)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
