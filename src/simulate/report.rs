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
    let Outcome { start, end, made, deleted, most, most_after_run, .. } = outcome;
    let mut lines = vec![
        ("Policy", format!("{}, with a run every {} for {}", plan.rules, plan.every, plan.length)),
        (
            "At most",
            format!("{most} snapshots of a claim while a run makes a new one, {most_after_run} after it"),
        ),
        ("Steady", steady(plan, outcome)),
    ];
    if let Some(Steady { oldest_least, oldest_most, .. }) = outcome.steady {
        let said = match (age(oldest_least), age(oldest_most)) {
            (least, most) if least == most => format!("{least} old after each run of the steady state"),
            (least, most) => {
                format!("{least} to {most} old in the steady state: you can always go back {least}")
            }
        };
        lines.push(("Oldest", said));
    }
    lines.push((
        "Runs",
        format!("{made}, from {} to {} UTC; {deleted} snapshots deleted", minute(*start), minute(*end)),
    ));
    let is_of_calendar = |rule: &Rule| matches!(rule, Rule::Each(..) | Rule::WithinEach(..));
    if plan.rules.iter().any(is_of_calendar) {
        let note = "periods end by the calendar in UTC, weeks on Sunday; the first run is on a Thursday";
        lines.push(("Note", note.to_owned()));
    }

    let mut said = String::new();
    for (name, sentence) in lines {
        const INDENT: usize = 9;
        let room = look.width.max(timeline::LEAST) - INDENT;
        for (index, line) in text::wrapped(&sentence, room).iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            said.push_str(&format!("{name:INDENT$}{line}\n"));
        }
    }
    said.push('\n');
    let marks =
        outcome.left.iter().map(|(time, cause)| Mark { time: *time, kind: Kind::Kept, cause: cause.clone() });
    let title =
        format!("After the last run, {}: {}", minute(*end), text::count(outcome.left.len(), "snapshot"));
    said.push_str(&timeline::draw(&[Lane { title, marks: marks.collect() }], look, *end));
    said
}

fn steady(plan: &Plan, outcome: &Outcome) -> String {
    let Some(Steady { since, least, most, .. }) = outcome.steady else {
        let not_full: Vec<String> = outcome
            .growing
            .iter()
            .map(|rule| match rule {
                Rule::All | Rule::Last(Count::All) | Rule::Each(_, Count::All) => {
                    format!("{rule} is never full")
                }
                _ => format!("{rule} is not full yet, a longer --for shows more"),
            })
            .collect();
        return format!("not within {}: {}", plan.length, not_full.join("; "));
    };
    let number = if least == most { most.to_string() } else { format!("{least} to {most}") };
    match since.duration_since(outcome.start) {
        begun if begun.is_zero() => format!("{number} after a run, from the first on"),
        begun => format!("{number} after a run, once {} have passed ({})", age(begun), minute(since)),
    }
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
