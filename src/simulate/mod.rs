//! The command `simulate`: what a policy would hold of a claim if runs never failed, without any cluster.
//!
//! Pure: the runs are at simulated times from a fixed day on, each takes a snapshot and prunes by the same
//! judgement as a real one. `report` says what came of it.

mod report;

use std::collections::HashSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub use report::{json, text};

use crate::{
    retention::{Judgement, Rule, Rules, Window, cause, judge},
    snapshot::Snapshot,
};

/// What is simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub rules: Rules,
    /// The time between two runs.
    pub every: Window,
    pub length: Window,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first run.
    pub start: Timestamp,
    /// The last run.
    pub end: Timestamp,
    /// How many snapshots were made: one in each run.
    pub made: usize,
    pub deleted: usize,
    /// How many there were at most, those included that a run was about to delete.
    pub most: usize,
    /// How many there were at most after a run.
    pub most_after_run: usize,
    /// From when on the rules keep as many as they ever will, if that was reached.
    pub steady: Option<Steady>,
    /// The rules that would keep more after more runs. There are some unless there is a steady state.
    pub growing: Vec<Rule>,
    /// What there is after the last run, newest first: when it was taken, and what keeps it.
    pub left: Vec<(Timestamp, String)>,
}

/// How many snapshots there are, and how old the oldest is, after each run of the steady state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steady {
    pub since: Timestamp,
    pub least: usize,
    pub most: usize,
    pub oldest_least: SignedDuration,
    pub oldest_most: SignedDuration,
}

/// A plan that would take too long to compute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    #[error(
        "a run every {every} for {length} is more than {MOST_RUNS} runs; give a longer --every or a shorter --for"
    )]
    Runs { every: String, length: String },
    #[error(
        "after {runs} runs there are {held} snapshots ({rules}), too many to go on with; give a shorter --for, or \
         rules that keep fewer"
    )]
    Snapshots { runs: usize, held: usize, rules: String },
}

/// The first run: 1 January 2026, a Thursday.
const START: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// A year of a run every minute, and some.
const MOST_RUNS: i64 = 600_000;

/// How many snapshots are judged, over all runs. With a year of hourly runs that delete nothing it is 38
/// million.
const MOST_JUDGED: usize = 40_000_000;

const SHORTEST: SignedDuration = SignedDuration::from_mins(1);

/// A hundred years, with their leap days.
const LONGEST: SignedDuration = SignedDuration::from_hours(36_525 * 24);

/// Parses the time between two runs, or the time to simulate.
///
/// # Errors
/// If it is none, or is out of bounds; with what would be accepted.
pub fn length(text: &str) -> Result<Window, String> {
    const ACCEPTED: &str = "accepted are 1m (a minute) to 100y, e.g. 15m, 6h, 1d, 1mo or 1y";
    let window: Window = text.parse()?;
    let length = window.after(START, 1).map(|end| end.duration_since(START));
    match length {
        Some(length) if (SHORTEST..=LONGEST).contains(&length) => Ok(window),
        Some(length) if length < SHORTEST => Err(format!("{text:?} is too short; {ACCEPTED}")),
        _ => Err(format!("{text:?} is too long; {ACCEPTED}")),
    }
}

/// Runs the plan.
///
/// # Errors
/// If that would take too long.
pub fn simulate(plan: &Plan) -> Result<Outcome, TooMuch> {
    simulate_within(plan, MOST_JUDGED)
}

fn simulate_within(plan: &Plan, most_judged: usize) -> Result<Outcome, TooMuch> {
    let too_much = || TooMuch::Runs { every: plan.every.to_string(), length: plan.length.to_string() };
    let end = plan.length.after(START, 1).ok_or_else(too_much)?;
    if plan.every.after(START, MOST_RUNS).is_some_and(|last| last < end) {
        return Err(too_much());
    }
    let runs = (0..).map_while(|run| plan.every.after(START, run)).take_while(|time| *time < end);

    // Oldest first.
    let mut held: Vec<Snapshot> = Vec::new();
    let mut outcome = Outcome {
        start: START,
        end: START,
        made: 0,
        deleted: 0,
        most: 0,
        most_after_run: 0,
        steady: None,
        growing: Vec::new(),
        left: Vec::new(),
    };
    let mut judged = 0;
    for now in runs {
        held.push(Snapshot::ready_at(&format!("run-{}", outcome.made), now));
        outcome.end = now;
        outcome.made += 1;
        outcome.most = outcome.most.max(held.len());
        judged += held.len();
        if judged > most_judged {
            let (runs, held) = (outcome.made, held.len());
            return Err(TooMuch::Snapshots { runs, held, rules: plan.rules.to_string() });
        }

        let by = Judgement::by_rules(&plan.rules, now);
        let decisions = judge(&held, &by).into_iter();
        let going: HashSet<String> = decisions
            .filter(|decision| decision.verdict.goes())
            .map(|decision| decision.snapshot.uid.clone())
            .collect();
        outcome.deleted += going.len();
        if !going.is_empty() {
            held.retain(|snapshot| !going.contains(&snapshot.uid));
        }
        outcome.most_after_run = outcome.most_after_run.max(held.len());
        outcome.steady = steady(outcome.steady, &held, &plan.rules, now);
    }

    let times = newest_first(&held);
    outcome.growing = plan.rules.iter().filter(|rule| !rule.is_used_up(&times, START)).cloned().collect();
    let by = Judgement::by_rules(&plan.rules, outcome.end);
    let decisions = judge(&held, &by).into_iter();
    outcome.left = decisions
        .map(|decision| (decision.snapshot.time(), cause(&decision.verdict.to_string()).to_owned()))
        .collect();
    Ok(outcome)
}

fn newest_first(held: &[Snapshot]) -> Vec<Timestamp> {
    held.iter().rev().map(Snapshot::time).collect()
}

/// What is known of the steady state after a run that left `held`.
fn steady(before: Option<Steady>, held: &[Snapshot], rules: &Rules, now: Timestamp) -> Option<Steady> {
    let oldest = held.first().map(|oldest| now.duration_since(oldest.time()))?;
    let number = held.len();
    if let Some(steady) = before {
        return Some(Steady {
            least: steady.least.min(number),
            most: steady.most.max(number),
            oldest_least: steady.oldest_least.min(oldest),
            oldest_most: steady.oldest_most.max(oldest),
            ..steady
        });
    }
    let times = newest_first(held);
    rules.iter().all(|rule| rule.is_used_up(&times, START)).then_some(Steady {
        since: now,
        least: number,
        most: number,
        oldest_least: oldest,
        oldest_most: oldest,
    })
}

#[cfg(test)]
mod tests;
