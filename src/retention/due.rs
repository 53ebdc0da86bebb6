//! How often a claim is snapshotted: whether a run takes a new snapshot of it, or the newest is recent enough.
//!
//! A CronJob's schedule is the finest grain; a claim may want less. It is due when the newest snapshot that counts
//! is older than the interval, less a tenth of it and at most ten minutes, so that a run that is late does not put
//! off the next one. Two clocks matter, and the pod's is neither: snapshots are dated by the API server
//! (`created`), and a run of a CronJob by the minute for which the CronJob scheduled it, which its Job's name ends
//! in. What a scheduled run made is as old as its schedule says, however late it began and however long its queue
//! was: so nothing drifts.
//!
//! When in doubt a claim is due: one snapshot too many costs less than one too few.

use std::{fmt, str::FromStr, time::Duration};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{ClaimIdentity, Rule, Rules, Window};
use crate::{snapshot::Snapshot, text};

/// The most that a snapshot may be early.
const MOST_EARLY: SignedDuration = SignedDuration::from_mins(10);

/// How far from its snapshot, or from now, a run can have been scheduled. A Job lives for an hour, and its start may
/// be late by half an hour; a number that is farther off is no time.
const PLAUSIBLE: SignedDuration = SignedDuration::from_hours(24);

/// How much the clocks of several API servers may differ. What is dated later than that is dated in the future.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// How often a claim is snapshotted at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Every(Interval);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Interval {
    /// As somebody wrote it; months differ in length.
    Span(Window),
    Fixed(SignedDuration),
}

impl Every {
    /// The smallest delta of `deltas`: as often k8s-snapshots takes a snapshot. `None` without such a rule.
    pub fn of_deltas(rules: &Rules) -> Option<Self> {
        let smallest = rules.iter().find_map(|rule| match rule {
            Rule::Deltas(deltas) => deltas.sorted().first(),
            _ => None,
        })?;
        Some(Every(Interval::Fixed(SignedDuration::from_micros(*smallest))))
    }

    /// When the next snapshot is wanted after one at `newest`, and from when on a run takes it. `None` if that is
    /// after all time.
    fn next(&self, newest: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let wanted = match &self.0 {
            Interval::Span(window) => window.after(newest, 1)?,
            Interval::Fixed(interval) => newest.checked_add(*interval).ok()?,
        };
        let early = (wanted.duration_since(newest) / 10).min(MOST_EARLY);
        Some((wanted, wanted.checked_sub(early).ok()?))
    }
}

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Every(Interval::Span(text.parse()?)))
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Interval::Span(window) => window.fmt(f),
            Interval::Fixed(interval) => f.write_str(&text::duration(interval.unsigned_abs())),
        }
    }
}

/// Returns when a CronJob scheduled the run of this name, `None` if no CronJob did. Kubernetes names scheduled Jobs
/// `<CronJob>-<minutes since 1970>`; a person names one as he likes, perhaps with the seconds since 1970 at the
/// end, which are no minutes near `near`.
pub fn scheduled(run: &str, near: Timestamp) -> Option<Timestamp> {
    let (_, minutes) = run.rsplit_once('-')?;
    if !minutes.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = minutes.parse::<i64>().ok()?.checked_mul(60)?;
    let time = Timestamp::from_second(seconds).ok()?;
    (time.duration_since(near).abs() <= PLAUSIBLE).then_some(time)
}

/// What [`not_due`] goes by besides the snapshots.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub every: &'a Every,
    /// The claim, if it is known. Snapshots of a previous one do not count.
    pub claim: Option<ClaimIdentity<'a>>,
    /// The Job of this run. A run outside a Job, and one of a Job that no CronJob scheduled, takes all.
    pub run: Option<&'a str>,
    /// The Job's uid. What an earlier attempt of it made has to be waited for.
    pub run_uid: Option<&'a str>,
    /// The current time by the API server's clock.
    pub now: Timestamp,
    /// How long a run waits for a snapshot.
    pub longest_wait: Duration,
}

/// Why a claim is not due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotDue {
    /// The name of its newest snapshot.
    pub newest: String,
    /// How old that is.
    pub age: SignedDuration,
    /// When the next one is wanted.
    pub next: Timestamp,
}

impl NotDue {
    /// The reason in words.
    pub fn said(&self) -> String {
        format!("its newest snapshot {} is {} old", self.newest, text::age(self.age))
    }
}

/// Returns why a claim with these snapshots, which the schedule owns, is not due; `None` if it is.
pub fn not_due(snapshots: &[Snapshot], asked: &Asked<'_>) -> Option<NotDue> {
    let now = scheduled(asked.run?, asked.now)?;
    let is_of_this_job =
        |snapshot: &Snapshot| snapshot.run_uid.as_deref() == asked.run_uid && counts(snapshot, asked);
    if asked.run_uid.is_some() && snapshots.iter().any(is_of_this_job) {
        return None;
    }
    let (newest, snapshot) = newest(snapshots, asked)?;
    let (next, from) = asked.every.next(newest)?;
    (now < from).then(|| NotDue {
        newest: snapshot.name.clone(),
        age: asked.now.duration_since(newest).max(SignedDuration::ZERO),
        next,
    })
}

/// Returns when the next snapshot of a claim is wanted, whatever run it is that is asked about; `None` if now.
pub fn next(snapshots: &[Snapshot], asked: &Asked<'_>) -> Option<Timestamp> {
    let (newest, _) = newest(snapshots, asked)?;
    asked.every.next(newest).map(|(next, _)| next).filter(|next| *next > asked.now)
}

/// The newest snapshot that puts off the next one, with the time from which its age counts.
fn newest<'s>(snapshots: &'s [Snapshot], asked: &Asked<'_>) -> Option<(Timestamp, &'s Snapshot)> {
    snapshots
        .iter()
        .filter(|snapshot| counts(snapshot, asked) && (snapshot.ready || is_awaited(snapshot, asked)))
        .map(|snapshot| (dated(snapshot), snapshot))
        .max_by_key(|(time, _)| *time)
}

/// Whether a snapshot is a copy of this very claim that stays for now, ready or not. One that is dated in the
/// future says nothing about when it was taken, and must not put off all others until then.
fn counts(snapshot: &Snapshot, asked: &Asked<'_>) -> bool {
    !snapshot.is_terminating()
        && !snapshot.unreadable
        && snapshot.owner.is_none()
        && snapshot.created.duration_since(asked.now) <= CLOCK_TOLERANCE
        && asked.claim.is_none_or(|claim| !claim.is_previous(snapshot))
}

/// Whether a run may still wait for a snapshot that is not ready.
fn is_awaited(snapshot: &Snapshot, asked: &Asked<'_>) -> bool {
    asked.now.duration_since(snapshot.created).unsigned_abs() <= asked.longest_wait
}

/// The time from which a snapshot's age counts: when the run that made it was scheduled, else when the API server
/// stored it. The storage's clock does not matter. Never later than when it was stored.
fn dated(snapshot: &Snapshot) -> Timestamp {
    let of_run = snapshot.run.as_deref().and_then(|run| scheduled(run, snapshot.created));
    of_run.map_or(snapshot.created, |scheduled| scheduled.min(snapshot.created))
}

#[cfg(test)]
mod tests;
