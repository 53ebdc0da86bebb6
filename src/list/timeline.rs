//! Rows as a picture: which snapshots of each claim there are over time, and what keeps each.
//! [`crate::timeline`] draws it.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::{Retention, Row, State};
use crate::{
    retention,
    snapshot::Record,
    text,
    timeline::{self, Kind, Lane, Look, Mark},
};

/// Which names the titles have besides the claim's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    pub namespaces: bool,
    pub schedules: bool,
}

/// The picture, with a lane for each claim and schedule. Ages are those of `now`.
pub fn timeline(rows: &[Row], names: Names, look: Look, now: Timestamp) -> String {
    let mut lanes: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let Record { namespace, claim, schedule, .. } = &row.record;
        lanes
            .entry((namespace, row.group.as_ref().or(claim.as_ref()), &row.group, schedule))
            .or_default()
            .push(row);
    }
    let lanes: Vec<Lane> = lanes
        .into_values()
        .map(|rows| Lane { title: title(&rows, names, now), marks: rows.into_iter().map(mark).collect() })
        .collect();
    timeline::draw(&lanes, look, now)
}

/// `shop/data, schedule hourly: 34 snapshots; newest ready 20m, oldest 27d`
fn title(rows: &[&Row], names: Names, now: Timestamp) -> String {
    let Some(Row { record: Record { namespace, claim, schedule, .. }, group, .. }) = rows.first() else {
        return String::new();
    };
    let mut title = match (group, claim) {
        (Some(group), _) => text::name(group).into_owned(),
        (None, Some(claim)) => text::name(claim).into_owned(),
        (None, None) => "without a claim".to_owned(),
    };
    if names.namespaces {
        title = format!("{}/{title}", text::name(namespace));
    }
    if group.is_some() {
        title = format!("group {title}");
    }
    if names.schedules {
        match schedule {
            Some(schedule) => title.push_str(&format!(", schedule {}", text::name(schedule))),
            None => title.push_str(", of no schedule"),
        }
    }
    let age = |time: Timestamp| text::age(now.duration_since(time));
    let is_ready = |row: &&&Row| row.record.snapshot.ready && !row.record.snapshot.is_terminating();
    let ready = match rows.iter().filter(is_ready).map(|row| row.record.snapshot.time()).max() {
        Some(newest) => format!("newest ready {}", age(newest)),
        None => "none ready".to_owned(),
    };
    let oldest = rows.iter().map(|row| row.record.snapshot.time()).min().map_or(String::new(), age);
    format!("{title}: {}; {ready}, oldest {oldest}", text::count(rows.len(), "snapshot"))
}

fn mark(row: &Row) -> Mark {
    let snapshot = &row.record.snapshot;
    let not_ready = match row.state {
        State::Error => Some(Kind::Failing),
        State::Waiting => Some(Kind::NotReady),
        State::Ok | State::Held | State::Terminating | State::Stuck => None,
    };
    let (kind, cause) = match &row.retention {
        // Nobody keeps what is going: it waits for its finalizers.
        Retention::Kept(_) if snapshot.is_terminating() => (Kind::Terminating, "being deleted"),
        Retention::Kept(reason) if snapshot.held => (Kind::Held, retention::cause(reason)),
        Retention::Kept(reason) => (not_ready.unwrap_or(Kind::Kept), retention::cause(reason)),
        Retention::Goes(_) => (Kind::Goes, "will go"),
        Retention::WouldGo(_) => (Kind::Goes, "would go"),
        Retention::Unknown(reason) => (Kind::Unknown, reason.as_str()),
        Retention::NotOurs => (Kind::OfOthers, "another schedule's"),
    };
    Mark { time: snapshot.time(), kind, cause: text::foreign(cause) }
}
