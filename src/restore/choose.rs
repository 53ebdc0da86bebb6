//! Chooses the snapshot to restore. Pure: the caller passes the current time.

use k8s_openapi::jiff::Timestamp;

use crate::{
    report::{Failure, Reason},
    settings::{Choice, RestoreSettings},
    snapshot::{Record, Snapshot},
    text,
};

/// Maximum number of snapshots that a message names.
const NAMED: usize = 3;

/// The snapshot to restore, with warnings about the choice.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) record: Record,
    pub(super) warnings: Vec<String>,
}

/// Chooses among the snapshots of a namespace. For a choice by name, `records` has at most that snapshot. A
/// snapshot dated after `now` is chosen only by name, because a wrong clock must not decide which one is the
/// latest.
///
/// # Errors
/// If no snapshot can be restored. The message names the snapshots that exist and why they do not qualify.
pub(super) fn choose(
    records: Vec<Record>,
    settings: &RestoreSettings,
    now: Timestamp,
) -> Result<Chosen, Failure> {
    // By the API server's clock no snapshot was created in the future. If one seems to be, the local clock is
    // slow.
    let newest =
        records.iter().map(|record| record.snapshot.created).filter(|made| *made < Timestamp::MAX).max();
    let now = newest.map_or(now, |newest| newest.max(now));
    let mut chosen = match &settings.choice {
        Choice::Named(_) => named(records, settings)?,
        Choice::Latest | Choice::At(_) => latest(records, settings, now)?,
    };
    let snapshot = &chosen.record.snapshot;
    if snapshot.is_of_the_future(now) {
        chosen.warnings.push(format!(
            "snapshot {} is dated in the future, {}: a clock is wrong, so it is not known when its data was taken",
            snapshot.name,
            snapshot.time()
        ));
    } else if let (true, Some(taken_at)) = (snapshot.clocks_differ(), snapshot.taken_at) {
        chosen.warnings.push(format!(
            "snapshot {} was made at {}, but the storage system says that its data was taken at {taken_at}: check its \
             clock",
            snapshot.name, snapshot.created
        ));
    }
    Ok(chosen)
}

fn named(records: Vec<Record>, settings: &RestoreSettings) -> Result<Chosen, Failure> {
    let Some(record) = records.into_iter().next() else {
        return Err(permanent("the snapshot does not exist".to_owned()));
    };
    let name = &record.snapshot.name;
    if let Some(wanted) = &settings.claim
        && record.claim.as_ref() != Some(wanted)
    {
        let of = record
            .claim
            .as_deref()
            .map_or("no claim".to_owned(), |claim| format!("claim {}", text::name(claim)));
        return Err(permanent(format!(
            "snapshot {name} was taken of {of} and not of claim {wanted}; leave the claim out, or choose another \
             snapshot"
        )));
    }
    match record.snapshot.hindrance() {
        None => Ok(Chosen { record, warnings: Vec::new() }),
        Some(why) => Err(Failure {
            message: format!(
                "snapshot {name} cannot be restored: {why}; choose another: volume-snapshotter list"
            ),
            is_transient: !record.snapshot.is_terminating(),
            reason: Reason::Other,
        }),
    }
}

fn latest(mut records: Vec<Record>, settings: &RestoreSettings, now: Timestamp) -> Result<Chosen, Failure> {
    let wanted = settings.claim.as_deref().unwrap_or_default();
    let mut described =
        settings.schedule.as_ref().map_or(String::new(), |schedule| format!(" of schedule {schedule}"));
    if !settings.labels.is_empty() {
        described.push_str(&format!(" with label {}", settings.said_labels()));
    }
    if settings.verified {
        described.push_str(" that is verified");
    }
    records.retain(|record| {
        record.claim.as_deref() == Some(wanted)
            && (settings.schedule.is_none() || record.schedule == settings.schedule)
            && settings.has_labels(record)
            && (!settings.verified || record.snapshot.verified)
    });
    if records.is_empty() {
        return Err(permanent(format!(
            "there is no snapshot of claim {wanted}{described}; see volume-snapshotter list --all, and check the \
             namespace"
        )));
    }
    records.sort_unstable_by(|a, b| b.snapshot.order().cmp(&a.snapshot.order()));
    let why_not = |snapshot: &Snapshot| {
        let of_future = || {
            snapshot.is_of_the_future(now).then(|| {
                format!(
                    "it is dated in the future, {}; to restore it anyway, name it with --snapshot",
                    snapshot.time()
                )
            })
        };
        snapshot.hindrance().or_else(of_future)
    };
    let (usable, unusable): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| why_not(&record.snapshot).is_none());
    let Some(oldest) = usable.last().cloned() else {
        let mut why: Vec<String> = unusable
            .iter()
            .take(NAMED)
            .filter_map(|record| Some(format!("{}: {}", record.snapshot.name, why_not(&record.snapshot)?)))
            .collect();
        if unusable.len() > NAMED {
            why.push(format!("and {} more", unusable.len() - NAMED));
        }
        return Err(Failure {
            message: format!(
                "{} of claim {wanted}{described}, but none can be restored: {}",
                text::count(unusable.len(), "snapshot"),
                why.join("; ")
            ),
            is_transient: unusable.iter().any(|record| !record.snapshot.is_terminating()),
            reason: Reason::Other,
        });
    };
    let of_future = |record: &&Record| record.snapshot.hindrance().is_none();
    let mut warnings: Vec<String> = unusable
        .iter()
        .filter(of_future)
        .take(NAMED)
        .map(|record| {
            format!(
                "snapshot {} is dated in the future, {}, and is skipped; to restore it anyway, name it with \
                 --snapshot",
                record.snapshot.name,
                record.snapshot.time()
            )
        })
        .collect();
    let passed_over = unusable.iter().filter(of_future).count();
    if passed_over > NAMED {
        warnings
            .push(format!("{} more snapshots are dated in the future and are skipped", passed_over - NAMED));
    }
    let is_wanted = |record: &Record| match settings.choice {
        Choice::At(at) => record.snapshot.time() <= at,
        Choice::Latest | Choice::Named(_) => true,
    };
    let record = usable.into_iter().find(is_wanted).ok_or_else(|| {
        let at = match settings.choice {
            Choice::At(at) => at.to_string(),
            Choice::Latest | Choice::Named(_) => "now".to_owned(),
        };
        permanent(format!(
            "no ready snapshot of claim {wanted}{described} is from {at} or before; the oldest is {}, from {}",
            oldest.snapshot.name,
            oldest.snapshot.time()
        ))
    })?;
    Ok(Chosen { record, warnings })
}

fn permanent(message: String) -> Failure {
    Failure { message, is_transient: false, reason: Reason::Other }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::VolumeSnapshot;

    fn settings(pairs: &[(&str, &str)]) -> RestoreSettings {
        let pairs = [("RESTORE_TO", "new")].iter().chain(pairs);
        RestoreSettings::parse(pairs.map(|(name, value)| ((*name).into(), (*value).into())), Vec::new())
            .expect("settings")
    }

    fn record(name: &str, hour: i32, change: impl FnOnce(&mut Value)) -> Record {
        let mut object = json!({
            "metadata": {
                "name": name, "namespace": "app", "uid": name, "labels": {"job": "hourly"},
                "creationTimestamp": format!("2026-11-20T{hour:02}:00:00Z"),
            },
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
            "status": {"readyToUse": true},
        });
        change(&mut object);
        Record::from(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot"))
    }

    fn now() -> Timestamp {
        "2026-11-20T20:00:00Z".parse().expect("a time")
    }

    fn all() -> Vec<Record> {
        vec![
            record("eight", 8, |one| one["metadata"]["labels"]["release"] = json!("1.2.3")),
            record("twelve", 12, |one| one["status"] = json!({"error": {"message": "storage is down"}})),
            record("eleven", 11, |one| one["metadata"]["deletionTimestamp"] = json!("2026-11-20T11:30:00Z")),
            record("ten", 10, |_| {}),
            record("weekly", 9, |one| one["metadata"]["labels"]["job"] = json!("weekly")),
            record("logs", 13, |one| one["spec"]["source"]["persistentVolumeClaimName"] = json!("logs")),
        ]
    }

    #[test]
    fn the_latest_that_is_ready_or_was_at_a_moment_is_chosen() {
        for (pairs, chosen) in [
            (vec![], "ten"),
            (vec![("RESTORE_AT", "2026-11-20 10:00")], "ten"),
            (vec![("RESTORE_AT", "2026-11-20 09:59:59")], "weekly"),
            (vec![("RESTORE_AT", "2026-11-20 09:59:59"), ("RESTORE_JOB", "hourly")], "eight"),
            (vec![("RESTORE_JOB", "weekly")], "weekly"),
            (vec![("RESTORE_LABEL", "release=1.2.3")], "eight"),
            (vec![("RESTORE_LABEL", "release=1.2.3,job=hourly")], "eight"),
            (vec![("RESTORE_LABEL", "job=weekly")], "weekly"),
        ] {
            let pairs = [vec![("RESTORE_CLAIM", "data")], pairs].concat();
            let found = choose(all(), &settings(&pairs), now()).expect("one");
            assert_eq!(found.record.snapshot.name, chosen, "{pairs:?}");
            assert_eq!(found.warnings, [""; 0]);
        }
    }

    #[test]
    fn the_time_that_counts_is_that_of_the_data() {
        let taken_late =
            record("taken-late", 7, |one| one["status"]["creationTime"] = json!("2026-11-20T10:30:00Z"));
        let latest = |record: Record| {
            let records = [all(), vec![record]].concat();
            choose(records, &settings(&[("RESTORE_CLAIM", "data")]), now()).expect("one")
        };
        assert_eq!(latest(taken_late).record.snapshot.name, "taken-late");
        // A storage system's clock that runs behind does not make it older than its object.
        let behind =
            record("behind", 11, |one| one["status"]["creationTime"] = json!("2026-11-20T01:00:00Z"));
        let chosen = latest(behind);
        assert_eq!(chosen.record.snapshot.name, "behind");
        assert_eq!(
            chosen.warnings,
            [
                "snapshot behind was made at 2026-11-20T11:00:00Z, but the storage system says that its data was taken \
                 at 2026-11-20T01:00:00Z: check its clock"
            ]
        );
    }

    #[test]
    fn one_dated_in_the_future_is_not_the_latest_unless_it_is_named() {
        let of_future =
            || record("of-future", 9, |one| one["status"]["creationTime"] = json!("2027-11-20T09:00:00Z"));
        let data = ("RESTORE_CLAIM", "data");
        let chosen = choose([all(), vec![of_future()]].concat(), &settings(&[data]), now()).expect("one");
        assert_eq!(chosen.record.snapshot.name, "ten");
        assert_eq!(
            chosen.warnings,
            [
                "snapshot of-future is dated in the future, 2027-11-20T09:00:00Z, and is skipped; to restore it \
                 anyway, name it with --snapshot"
            ]
        );
        let named = settings(&[("RESTORE_SNAPSHOT", "of-future")]);
        let chosen = choose(vec![of_future()], &named, now()).expect("one");
        assert!(chosen.warnings[0].starts_with("snapshot of-future is dated in the future"), "{chosen:?}");
        let failure = choose(vec![of_future()], &settings(&[data]), now()).expect_err("none");
        assert!(failure.message.contains("of-future: it is dated in the future"), "{}", failure.message);
        // A minute is no reason, and a clock of ours that is behind is none either.
        let ahead = |time: &str| record("ahead", 19, |one| one["status"]["creationTime"] = json!(time));
        for (time, now) in [
            ("2026-11-20T20:03:00Z", "2026-11-20T20:00:00Z"),
            ("2026-11-20T19:00:00Z", "2026-11-19T00:00:00Z"),
        ] {
            let now = now.parse().expect("a time");
            let chosen = choose([all(), vec![ahead(time)]].concat(), &settings(&[data]), now).expect("one");
            assert_eq!(chosen.record.snapshot.name, "ahead");
        }
    }

    #[test]
    fn what_cannot_be_restored_is_refused_with_the_reason() {
        let refused = |records: Vec<Record>, pairs: &[(&str, &str)]| {
            choose(records, &settings(pairs), now())
                .map_err(|failure| (failure.message, failure.is_transient))
                .expect_err("none")
        };
        let data = ("RESTORE_CLAIM", "data");
        let (message, is_transient) = refused(all(), &[("RESTORE_CLAIM", "typo")]);
        assert!(message.starts_with("there is no snapshot of claim typo; see") && !is_transient, "{message}");
        let (message, _) = refused(all(), &[data, ("RESTORE_AT", "2026-11-20 07:00")]);
        assert_eq!(
            message,
            "no ready snapshot of claim data is from 2026-11-20T07:00:00Z or before; the oldest is eight, from \
             2026-11-20T08:00:00Z"
        );
        let (message, is_transient) = refused(all()[1..3].to_vec(), &[data]);
        assert_eq!(
            message,
            "2 snapshots of claim data, but none can be restored: twelve: it is not ready: storage is down; eleven: \
             it is being deleted"
        );
        assert!(is_transient);
        let one = |index: usize, pairs: &[(&str, &str)]| {
            let pairs = [&[("RESTORE_SNAPSHOT", "x")], pairs].concat();
            refused(vec![all().remove(index)], &pairs)
        };
        let (message, is_transient) = one(1, &[]);
        assert!(
            message
                .starts_with("snapshot twelve cannot be restored: it is not ready: storage is down; choose")
        );
        assert!(is_transient);
        let (message, is_transient) = one(2, &[data]);
        assert!(message.starts_with("snapshot eleven cannot be restored: it is being deleted"), "{message}");
        assert!(!is_transient);
        let (message, is_transient) = one(5, &[data]);
        assert!(
            message.starts_with("snapshot logs was taken of claim logs and not of claim data"),
            "{message}"
        );
        assert!(!is_transient);
        let many =
            (0..5).map(|hour| record(&format!("s{hour}"), hour, |one| one["status"] = json!(null))).collect();
        let (message, _) = refused(many, &[data]);
        assert!(
            message.ends_with(
                "s4: it is not ready yet; s3: it is not ready yet; s2: it is not ready yet; and 2 more"
            ),
            "{message}"
        );
    }
}
