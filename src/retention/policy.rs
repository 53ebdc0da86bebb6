//! The judgement: rules under the safety rules that no policy overrides.
//!
//! In order:
//! 1. Held, terminating, group members and future-dated snapshots are never touched, and do not
//!    count: what the rules keep is kept besides them.
//! 2. Only ready snapshots count towards the rules.
//! 3. The newest ready one stays whatever the rules say, and so does the one that this run made.
//!    "Newest" is taken by the time the data was cut and by the API server's own clock; where the
//!    two disagree, both stay.
//! 4. Without a ready snapshot nothing goes.
//! 5. One that is not ready goes only if it is older than the newest ready one and older than the
//!    longest wait of a run, for until then another run may be waiting for it.

use std::{cmp::Reverse, collections::HashMap, fmt, time::Duration};

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
    /// The moment of judging: what is dated later is dated in the future. A run takes the time at
    /// which the API server stored its own snapshot, so that no other clock matters.
    pub now: Timestamp,
    /// The longest that a run waits for a snapshot (attempts × interval).
    pub longest_wait: Duration,
}

/// What is to happen to one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// Whether it stays, and why.
    pub verdict: Verdict,
}

/// Whether a snapshot stays, and why. `Display` gives the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Stays: somebody holds it.
    Held,
    /// Stays: it is deleted already and waits for its finalizers.
    Terminating,
    /// Stays: its VolumeGroupSnapshot owns it.
    GroupMember,
    /// Stays: it is dated after the moment of judging, so some clock is wrong.
    FutureDated,
    /// Stays: this run made it.
    Own,
    /// Stays: no ready one is newer.
    NewestReady,
    /// Stays: a rule keeps it, as its n-th.
    KeptBy(Rule, usize),
    /// Stays: not ready, but no newer one is ready, or another run may still wait for it.
    InProgress,
    /// Goes: ready, superseded, and no rule keeps it.
    Superseded,
    /// Goes: it never became ready, and no run waits for it any more.
    Leftover,
}

impl Verdict {
    /// Whether the snapshot is to be deleted.
    pub fn goes(&self) -> bool {
        matches!(self, Verdict::Superseded | Verdict::Leftover)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Held => f.write_str("held"),
            Verdict::Terminating => f.write_str("already terminating"),
            Verdict::GroupMember => f.write_str("member of a VolumeGroupSnapshot"),
            Verdict::FutureDated => f.write_str("dated in the future"),
            Verdict::Own => f.write_str("made by this run"),
            Verdict::NewestReady => f.write_str("newest ready"),
            Verdict::KeptBy(Rule::All, _) => f.write_str("all"),
            Verdict::KeptBy(rule, nth) => write!(f, "{} of {rule}", text::ordinal(*nth)),
            Verdict::InProgress => f.write_str("not ready yet"),
            Verdict::Superseded => f.write_str("no rule keeps it"),
            Verdict::Leftover => f.write_str("never became ready"),
        }
    }
}

/// Judges all owned snapshots of one claim; the decisions come newest first.
///
/// The order of the input does not matter.
pub fn judge<'a>(snapshots: &'a [Snapshot], by: &Judgement<'_>) -> Vec<Decision<'a>> {
    let is_own = |snapshot: &Snapshot| by.own == Some(snapshot.uid.as_str());
    // The run's own snapshot was just cut: a driver's clock that runs ahead must not make it look
    // like a mistake of the future. Its uid says that it is the newer one of the same instant.
    let time = |snapshot: &Snapshot| match is_own(snapshot) {
        true => snapshot.time().min(by.now),
        false => snapshot.time(),
    };
    let rank = |snapshot: &Snapshot| (time(snapshot), snapshot.created, is_own(snapshot));

    let mut newest_first: Vec<&Snapshot> = snapshots.iter().collect();
    newest_first.sort_by(|a, b| (Reverse(rank(a)), &a.name).cmp(&(Reverse(rank(b)), &b.name)));

    let untouchable = |snapshot: &Snapshot| {
        if snapshot.terminating {
            Some(Verdict::Terminating)
        } else if snapshot.held {
            Some(Verdict::Held)
        } else if snapshot.group_member {
            Some(Verdict::GroupMember)
        } else if time(snapshot).max(snapshot.created) > by.now {
            Some(Verdict::FutureDated)
        } else {
            None
        }
    };
    let ready: Vec<&Snapshot> = newest_first
        .iter()
        .copied()
        .filter(|snapshot| snapshot.ready && untouchable(snapshot).is_none())
        .collect();
    let newest = ready.first().copied();
    // Of equals `max_by_key` takes the last, so from the back: the one that ranks first.
    let last_created = ready.iter().rev().copied().max_by_key(|snapshot| snapshot.created);
    let kept = kept_by_rules(&ready, by.rules);

    let verdict = |snapshot: &'a Snapshot| {
        if let Some(verdict) = untouchable(snapshot) {
            return verdict;
        }
        if is_own(snapshot) {
            return Verdict::Own;
        }
        let Some(newest) = newest else { return Verdict::InProgress };
        if !snapshot.ready {
            let waited_for = by.now.duration_since(snapshot.created).unsigned_abs() <= by.longest_wait;
            return match waited_for || rank(snapshot) >= rank(newest) {
                true => Verdict::InProgress,
                false => Verdict::Leftover,
            };
        }
        if let Some((rule, nth)) = kept.get(snapshot.uid.as_str()) {
            return Verdict::KeptBy(*rule, *nth);
        }
        let is = |other: Option<&Snapshot>| other.is_some_and(|other| other.uid == snapshot.uid);
        if is(Some(newest)) || is(last_created) {
            return Verdict::NewestReady;
        }
        Verdict::Superseded
    };
    newest_first.into_iter().map(|snapshot| Decision { snapshot, verdict: verdict(snapshot) }).collect()
}

/// For each snapshot that a rule keeps, by uid, the first rule that does and its place in it.
/// `ready` is ordered newest first.
fn kept_by_rules<'a>(ready: &[&'a Snapshot], rules: &Rules) -> HashMap<&'a str, (Rule, usize)> {
    let mut kept = HashMap::new();
    for rule in rules.iter() {
        let number = match rule {
            Rule::Last(number) => usize::try_from(number.get()).unwrap_or(usize::MAX),
            Rule::All => usize::MAX,
        };
        for (index, snapshot) in ready.iter().take(number).enumerate() {
            kept.entry(snapshot.uid.as_str()).or_insert((rule, index + 1));
        }
    }
    kept
}

#[cfg(test)]
mod tests;
