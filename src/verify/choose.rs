//! Which snapshot of a claim a drill reads. Pure: the caller passes the current time.

use k8s_openapi::jiff::Timestamp;

use crate::{
    report::{Failure, Reason},
    retention::{ClaimIdentity, Window},
    snapshot::{Record, Snapshot},
    text,
};

/// What a drill does about one claim.
#[derive(Debug)]
pub(super) enum Choice {
    /// Reads this snapshot.
    Verify(Box<Record>),
    /// Nothing: the newest snapshot was verified recently. Says when.
    Recent(String),
    /// Nothing: there is no snapshot whose verification would prove anything.
    Failed(Failure),
}

/// What is asked of a snapshot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// How long a verification holds.
    pub(super) every: &'a Window,
    /// How old the snapshot may be.
    pub(super) max_age: Option<&'a Window>,
    /// The claim of now, if it is known. Snapshots of a previous one do not count.
    pub(super) claim: Option<ClaimIdentity<'a>>,
    /// The current time by the API server's clock.
    pub(super) now: Timestamp,
}

/// Chooses among the snapshots that a schedule has of the claim called `claim`: the newest that is ready. One that was
/// verified is read again when its verification is older than [`Asked::every`], and one that could not be verified in
/// every drill.
pub(super) fn choose(claim: &str, records: Vec<Record>, asked: Asked<'_>) -> Choice {
    let Asked { every, max_age, claim: identity, now } = asked;
    let number = records.len();
    let why_not = |snapshot: &Snapshot| {
        let previous = identity.is_some_and(|identity| identity.is_previous(snapshot));
        let of_previous = || previous.then(|| "it is of a previous claim of the name".to_owned());
        // A wrong clock must not decide which one is the newest.
        let of_future = || snapshot.is_of_the_future(now).then(|| "it is dated in the future".to_owned());
        snapshot.hindrance().or_else(of_previous).or_else(of_future)
    };
    let newest_of_all = records.iter().max_by(|a, b| a.snapshot.order().cmp(&b.snapshot.order()));
    let why = newest_of_all.and_then(|newest| {
        Some(format!(
            "; of the newest, {}: {}",
            text::name(&newest.snapshot.name),
            why_not(&newest.snapshot)?
        ))
    });
    let usable = records.into_iter().filter(|record| why_not(&record.snapshot).is_none());
    let Some(newest) = usable.max_by(|a, b| a.snapshot.order().cmp(&b.snapshot.order())) else {
        let message = match number {
            0 => format!("the schedule has no snapshot of claim {claim}"),
            _ => format!(
                "the schedule has {} of claim {claim}, and none that is ready{}",
                text::count(number, "snapshot"),
                why.unwrap_or_default()
            ),
        };
        return Choice::Failed(Failure { message, is_transient: number > 0, reason: Reason::Missing });
    };
    let (name, time) = (&newest.snapshot.name, newest.snapshot.time());
    if let Some(max_age) = max_age
        && max_age.after(time, 1).is_some_and(|end| end < now)
    {
        let message = format!(
            "the newest ready snapshot of claim {claim}, {name}, is from {} ({} ago), and VERIFY_MAX_AGE is {max_age}: \
             to read it would prove nothing about today; see why there is no newer one (volume-snapshotter list {claim}), \
             or delete the snapshots if the claim is gone for good",
            text::minute(time),
            text::age(now.duration_since(time)),
        );
        return Choice::Failed(Failure { message, is_transient: false, reason: Reason::TooOld });
    }
    match newest.verification.verified {
        // What was tried in vain since then is tried again. A time of the future proves nothing.
        Some(verified)
            if newest.verification.failed.is_none()
                && verified <= now
                && every.after(verified, 1).is_none_or(|end| end > now) =>
        {
            let ago = text::age(now.duration_since(verified));
            Choice::Recent(format!(
                "the newest snapshot, {name}, was verified {ago} ago, and VERIFY_EVERY is {every}"
            ))
        }
        _ => Choice::Verify(Box::new(newest)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::VolumeSnapshot;

    fn record(name: &str, hour: u8, change: impl FnOnce(&mut Value)) -> Record {
        let mut object = json!({
            "metadata": {
                "name": name, "namespace": "app", "uid": name, "labels": {"job": "hourly"},
                "annotations": {"volume-snapshotter/claim-uid": "u-now"},
                "creationTimestamp": format!("2026-11-20T{hour:02}:00:00Z"),
            },
            "spec": {"source": {"persistentVolumeClaimName": "data"}},
            "status": {"readyToUse": true},
        });
        change(&mut object);
        Record::from(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot"))
    }

    fn annotated(key: &'static str, value: &'static str) -> impl FnOnce(&mut Value) {
        move |one| one["metadata"]["annotations"][key] = json!(value)
    }

    fn chosen(records: Vec<Record>, max_age: Option<&str>, claim: Option<&str>) -> String {
        let (every, max_age) =
            ("7d".parse().expect("a window"), max_age.map(|age| age.parse().expect("a window")));
        let asked = Asked {
            every: &every,
            max_age: max_age.as_ref(),
            claim: claim.map(|uid| ClaimIdentity { uid, created: None }),
            now: "2026-11-20T20:00:00Z".parse().expect("a time"),
        };
        match choose("data", records, asked) {
            Choice::Verify(record) => record.snapshot.name,
            Choice::Recent(why) => format!("recent: {why}"),
            Choice::Failed(failure) => format!("{}: {}", failure.is_transient, failure.message),
        }
    }

    const VERIFIED: &str = "volume-snapshotter/verified";
    const FAILED: &str = "volume-snapshotter/verify-failed";

    #[test]
    fn the_newest_ready_snapshot_is_read_unless_it_was_read_recently() {
        let old = || record("old", 8, |_| {});
        for (newest, expected) in [
            (record("new", 12, |_| {}), "new"),
            (record("new", 12, |one| one["status"] = json!({})), "old"),
            (record("new", 12, |one| one["status"] = json!({"readyToUse": "odd"})), "old"),
            (
                record("new", 12, |one| one["metadata"]["deletionTimestamp"] = json!("2026-11-20T13:00:00Z")),
                "old",
            ),
            (
                record("new", 12, |one| one["metadata"]["creationTimestamp"] = json!("2027-01-01T00:00:00Z")),
                "old",
            ),
            (record("new", 12, annotated(VERIFIED, "2026-11-13T20:00:00Z 3 files")), "new"),
            (record("new", 12, annotated(VERIFIED, "2026-11-13T20:00:01Z 3 files")), "recent: the newest"),
            (record("new", 12, annotated(VERIFIED, "2026-11-20T19:00:00Z")), "recent: the newest"),
            (record("new", 12, annotated(VERIFIED, "2126-11-20T19:00:00Z")), "new"),
            (record("new", 12, annotated(VERIFIED, "yes")), "new"),
            (record("new", 12, annotated(FAILED, "2026-11-20T19:00:00Z damaged: x")), "new"),
        ] {
            // The order of a list says nothing.
            for records in [vec![old(), newest.clone()], vec![newest.clone(), old()]] {
                let chosen = chosen(records, None, None);
                assert!(chosen.starts_with(expected), "{newest:?}: {chosen}");
            }
        }
        let both = record("new", 12, |one| {
            annotated(VERIFIED, "2026-11-20T18:00:00Z 3 files")(one);
            annotated(FAILED, "2026-11-20T19:00:00Z damaged: x")(one);
        });
        assert_eq!(chosen(vec![both], None, None), "new", "what failed since is tried again");
    }

    #[test]
    fn an_old_verification_of_an_old_snapshot_does_not_stand_for_the_newest() {
        let records =
            vec![record("old", 8, annotated(VERIFIED, "2026-11-20T19:00:00Z")), record("new", 12, |_| {})];
        assert_eq!(chosen(records, None, None), "new");
    }

    #[test]
    fn a_snapshot_that_is_too_old_is_a_failure_even_if_it_was_verified() {
        for verified in ["", "2026-11-20T19:00:00Z"] {
            let stale = record("stale", 8, annotated(VERIFIED, verified));
            let chosen = chosen(vec![stale], Some("11h"), None);
            assert!(
                chosen.starts_with("false: the newest ready snapshot of claim data, stale, is from "),
                "{chosen}"
            );
        }
        assert_eq!(chosen(vec![record("new", 9, |_| {})], Some("11h"), None), "new");
    }

    #[test]
    fn snapshots_of_a_previous_claim_prove_nothing() {
        let previous = || record("new", 12, annotated("volume-snapshotter/claim-uid", "u-before"));
        let chosen_of = |records| chosen(records, None, Some("u-now"));
        assert_eq!(chosen_of(vec![record("old", 8, |_| {}), previous()]), "old");
        assert_eq!(
            chosen_of(vec![previous()]),
            "true: the schedule has 1 snapshot of claim data, and none that is ready; of the newest, new: it is of a \
             previous claim of the name"
        );
        assert_eq!(chosen(vec![], None, None), "false: the schedule has no snapshot of claim data");
    }
}
