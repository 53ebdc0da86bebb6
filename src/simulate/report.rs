//! What came of a simulation, for people and for scripts. The fields of the JSON are a promise.

use std::collections::BTreeMap;

use k8s_openapi::jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::{Outcome, Plan, Steady};
use crate::{
    retention::{Count, Rule},
    text::{self, age},
    timeline::{self, Kind, Lane, Look, Mark},
};

/// In sentences, with a picture of what is left at the end.
pub fn text(plan: &Plan, outcome: &Outcome, look: Look) -> String {
    const INDENT: usize = 9;
    let room = look.width.max(timeline::LEAST) - INDENT;
    let mut said = String::new();
    for (name, sentence) in sentences(plan, outcome) {
        for (index, line) in text::wrapped(&sentence, room).iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            said.push_str(&format!("{name:INDENT$}{line}\n"));
        }
    }
    said.push('\n');
    let mark =
        |(time, cause): &(Timestamp, String)| Mark { time: *time, kind: Kind::Kept, cause: cause.clone() };
    let number = text::count(outcome.left.len(), "snapshot");
    let lane = Lane {
        title: format!("After the last run, {}: {number}", minute(outcome.end)),
        marks: outcome.left.iter().map(mark).collect(),
    };
    said.push_str(&timeline::draw(&[lane], look, outcome.end));
    said
}

fn sentences(plan: &Plan, outcome: &Outcome) -> Vec<(&'static str, String)> {
    let most = text::count(outcome.most, "snapshot");
    let policy = format!("{}, with a run every {} for {}", plan.rules, plan.every, plan.length);
    let mut said = vec![("Policy", policy)];
    match outcome.steady {
        Some(Steady { since, least, most: most_steady, oldest_least, oldest_most }) => {
            let after = outcome.most_after_run;
            said.push((
                "At most",
                format!("{most} of a claim while a run makes a new one, {after} after it"),
            ));
            let number = range(&least.to_string(), &most_steady.to_string());
            let begun = since.duration_since(outcome.start);
            let from = match begun.is_zero() {
                true => "from the first on".to_owned(),
                false => format!("once {} have passed ({})", age(begun), minute(since)),
            };
            said.push(("Steady", format!("{number} after a run, {from}")));
            let (least, most) = (age(oldest_least), age(oldest_most));
            said.push((
                "Oldest",
                format!("{} old in the steady state: you can always go back {least}", range(&least, &most)),
            ));
        }
        None => {
            said.push(("At most", format!("{most} of a claim by then, and more later")));
            said.push(("Steady", format!("not within {}; {}", plan.length, growing(&outcome.growing))));
        }
    }
    said.push((
        "Runs",
        format!(
            "{}, from {} to {} UTC; {} deleted",
            outcome.made,
            minute(outcome.start),
            minute(outcome.end),
            text::count(outcome.deleted, "snapshot")
        ),
    ));
    let is_of_calendar = |rule: &Rule| matches!(rule, Rule::Each(..) | Rule::WithinEach(..));
    if plan.rules.iter().any(is_of_calendar) {
        let note = "periods end by the calendar in UTC, weeks on Sunday; the first run is on a Thursday";
        said.push(("Note", note.to_owned()));
    }
    said
}

/// `14d to 21d`, or only one of the two if they are the same.
fn range(least: &str, most: &str) -> String {
    if least == most { most.to_owned() } else { format!("{least} to {most}") }
}

/// Why there is no steady state.
fn growing(rules: &[Rule]) -> String {
    let is_endless =
        |rule: &&Rule| matches!(rule, Rule::All | Rule::Last(Count::All) | Rule::Each(_, Count::All));
    let (endless, not_yet): (Vec<&Rule>, Vec<&Rule>) = rules.iter().partition(is_endless);
    let list = |rules: &[&Rule]| rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut said = Vec::new();
    if !endless.is_empty() {
        said.push(format!("growing for ever: {}", list(&endless)));
    }
    if !not_yet.is_empty() {
        said.push(format!("not full yet: {} (a longer --for shows more)", list(&not_yet)));
    }
    said.join("; ")
}

fn minute(time: Timestamp) -> String {
    TimeZone::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M").to_string()
}

/// As one JSON document.
pub fn json(plan: &Plan, outcome: &Outcome) -> String {
    let mut by_cause: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, cause) in &outcome.left {
        *by_cause.entry(cause).or_default() += 1;
    }
    let snapshot = |(time, cause): &(Timestamp, String)| {
        let age = outcome.end.duration_since(*time).as_secs();
        json!({"time": time.to_string(), "ageSeconds": age, "cause": cause})
    };
    let steady = |Steady { since, least, most, oldest_least, oldest_most }: Steady| {
        json!({
            "since": since.to_string(),
            "afterSeconds": since.duration_since(outcome.start).as_secs(),
            "least": least,
            "most": most,
            "oldestAgeSeconds": {"least": oldest_least.as_secs(), "most": oldest_most.as_secs()},
        })
    };
    let document = json!({
        "retention": plan.rules.to_string(),
        "every": plan.every.to_string(),
        "for": plan.length.to_string(),
        "firstRun": outcome.start.to_string(),
        "lastRun": outcome.end.to_string(),
        "made": outcome.made,
        "deleted": outcome.deleted,
        "most": outcome.most,
        "mostAfterRun": outcome.most_after_run,
        "steady": outcome.steady.map_or(Value::Null, steady),
        "growing": outcome.growing.iter().map(Rule::to_string).collect::<Vec<_>>(),
        "causes": by_cause,
        "snapshots": outcome.left.iter().map(snapshot).collect::<Vec<_>>(),
    });
    // A value of text, numbers and maps with text keys is always JSON.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}
