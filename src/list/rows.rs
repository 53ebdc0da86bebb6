//! From snapshots and claims to what is to be said of each snapshot. Pure: the moment is handed in.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::Claim,
    retention::{ClaimIdentity, Judgement, Rules, judge, rules_of_claim},
    settings::{ClaimChoice, Settings},
    snapshot::{ClaimId, Record, Snapshot},
};

/// What is said of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The snapshot.
    pub record: Record,
    /// How it is, in one word.
    pub state: State,
    /// Whether it stays, and why.
    pub retention: Retention,
}

/// How a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A volume can be made from it.
    Ok,
    /// The same, and it is held.
    Held,
    /// Not ready yet.
    Waiting,
    /// Not ready, and the snapshot controller reports an error.
    Error,
    /// Deleted, but not gone yet.
    Terminating,
}

/// Whether a snapshot stays, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retention {
    /// It stays, for this reason.
    Kept(String),
    /// The next run deletes it, for this reason.
    Goes(String),
    /// It is no business of this schedule's.
    NotOurs,
}

/// What was made of the answers.
#[derive(Debug, Default)]
pub struct Found {
    /// By namespace and claim, newest first.
    pub rows: Vec<Row>,
    /// What is to be known besides.
    pub warnings: Vec<String>,
    /// Named claims of which there is neither a trace nor a snapshot.
    pub missing: Vec<String>,
}

impl State {
    fn of(snapshot: &Snapshot) -> Self {
        match snapshot {
            Snapshot { terminating_since: Some(_), .. } => State::Terminating,
            Snapshot { ready: true, held: true, .. } => State::Held,
            Snapshot { ready: true, .. } => State::Ok,
            Snapshot { error: Some(_), .. } => State::Error,
            _ => State::Waiting,
        }
    }

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Held => "held",
            State::Waiting => "waiting",
            State::Error => "error",
            State::Terminating => "terminating",
        }
    }
}

/// Judges the snapshots of the chosen claims as a run would that began at `now` and made none
/// itself. `claims` are those of the same namespaces that the choice's selector matches; `None` if
/// they may not be read.
pub fn rows(records: Vec<Record>, claims: Option<&[Claim]>, settings: &Settings, now: Timestamp) -> Found {
    let mut found = Found::default();
    let id_of = |claim: &Claim| ClaimId {
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
    };
    let claims: Option<HashMap<ClaimId, &Claim>> =
        claims.map(|claims| claims.iter().map(|claim| (id_of(claim), claim)).collect());
    let mut records = chosen(records, claims.as_ref(), settings, &mut found.missing);

    // By the API server's clock none of them is of the future: what is ahead is ours that is behind.
    let newest =
        records.iter().map(|record| record.snapshot.created).filter(|made| *made < Timestamp::MAX).max();
    let now = newest.map_or(now, |newest| newest.max(now));

    let mut owned: HashMap<ClaimId, Vec<Snapshot>> = HashMap::new();
    for record in records.iter().filter(|record| is_owned(record, settings)) {
        if let Some(id) = claim_of(record) {
            owned.entry(id).or_default().push(record.snapshot.clone());
        }
    }
    let mut verdicts: HashMap<String, Retention> = HashMap::new();
    for (id, snapshots) in &owned {
        let claim = claims.as_ref().map(|claims| claims.get(id));
        let retention = match &claim {
            // No run finds this claim, so none deletes anything of it.
            Some(None) => Err("the claim is gone".to_owned()),
            Some(Some(claim)) => rules_of_claim(&id.name, &claim.metadata.annotations, &settings.job)
                .map(|rules| rules.unwrap_or_else(|| settings.retention.clone()))
                .map_err(|problem| {
                    found.warnings.push(format!("nothing of claim {} is deleted: {problem}", id.name));
                    "the claim's annotation is not understood".to_owned()
                }),
            None => Ok(settings.retention.clone()),
        };
        let identity = claim.flatten().map(|claim| ClaimIdentity {
            uid: &claim.metadata.uid,
            created: claim.metadata.creation_timestamp,
        });
        verdicts.extend(judged(snapshots, &retention, identity, settings, now));
    }
    found.warnings.sort_unstable();

    // By uid at last, so that there are no equals that a stable sort would be needed for.
    records.sort_unstable_by(|a, b| {
        let newest = |record: &Record| Reverse((record.snapshot.time(), record.snapshot.created));
        (&a.namespace, &a.claim)
            .cmp(&(&b.namespace, &b.claim))
            .then_with(|| newest(a).cmp(&newest(b)))
            .then_with(|| a.snapshot.name.cmp(&b.snapshot.name))
            .then_with(|| a.snapshot.uid.cmp(&b.snapshot.uid))
    });
    found.rows = records
        .into_iter()
        .map(|record| Row {
            state: State::of(&record.snapshot),
            retention: verdicts.remove(&record.snapshot.uid).unwrap_or(Retention::NotOurs),
            record,
        })
        .collect();
    found
}

fn is_owned(record: &Record, settings: &Settings) -> bool {
    record.job.as_deref() == Some(&settings.job)
}

fn claim_of(record: &Record) -> Option<ClaimId> {
    Some(ClaimId { namespace: record.namespace.clone(), name: record.claim.clone()? })
}

/// Those of the chosen claims, and the names that nothing was found for.
fn chosen(
    mut records: Vec<Record>,
    claims: Option<&HashMap<ClaimId, &Claim>>,
    settings: &Settings,
    missing: &mut Vec<String>,
) -> Vec<Record> {
    match &settings.claims {
        ClaimChoice::Names(names) => {
            records.retain(|record| record.claim.as_ref().is_some_and(|claim| names.contains(claim)));
            let exists = |name: &String| claims.is_none_or(|claims| claims.keys().any(|id| id.name == *name));
            let seen: HashSet<&str> = records.iter().filter_map(|record| record.claim.as_deref()).collect();
            missing
                .extend(names.iter().filter(|name| !seen.contains(name.as_str()) && !exists(name)).cloned());
        }
        // Everything, also of claims that are gone.
        ClaimChoice::Selector(selector) if selector.is_empty() => {}
        ClaimChoice::Selector(_) => records.retain(|record| {
            claim_of(record).is_some_and(|id| claims.is_some_and(|claims| claims.contains_key(&id)))
        }),
    }
    records
}

/// The verdict on each of a claim's owned snapshots, by uid. Without rules all stay, for the reason
/// that is given; but what stays for a reason of its own is said to.
fn judged(
    snapshots: &[Snapshot],
    retention: &Result<Rules, String>,
    claim: Option<ClaimIdentity<'_>>,
    settings: &Settings,
    now: Timestamp,
) -> Vec<(String, Retention)> {
    let rules = retention.as_ref().unwrap_or(&settings.retention);
    let by = Judgement {
        claim,
        longest_wait: settings.longest_wait(),
        job_lifetime: settings.job_lifetime(),
        ..Judgement::by_rules(rules, now)
    };
    let said = |verdict: crate::retention::Verdict<'_>| match retention {
        Err(reason) => Retention::Kept(reason.clone()),
        Ok(_) if verdict.goes() => Retention::Goes(verdict.to_string()),
        Ok(_) => Retention::Kept(verdict.to_string()),
    };
    judge(snapshots, &by)
        .into_iter()
        .map(|decision| (decision.snapshot.uid.clone(), said(decision.verdict)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::VolumeSnapshot;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings::parse_for_list(pairs, Vec::new()).expect("settings")
    }

    fn record(name: &str, claim: &str, hour: i32, change: impl FnOnce(&mut serde_json::Value)) -> Record {
        let time = format!("2026-11-20T{hour:02}:00:00Z");
        let mut object = json!({
            "metadata": {
                "name": name, "namespace": "app", "uid": name, "creationTimestamp": time,
                "labels": {"job": "volume-snapshotter"},
            },
            "spec": {"source": {"persistentVolumeClaimName": claim}},
            "status": {"readyToUse": true, "creationTime": time},
        });
        change(&mut object);
        Record::from(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot"))
    }

    fn claim(name: &str, annotations: serde_json::Value) -> Claim {
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "app", "creationTimestamp": "2026-11-20T02:00:00Z",
                "annotations": annotations,
            },
        }))
        .expect("a claim")
    }

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().expect("a time")
    }

    /// Name, state and retention of each.
    fn said(found: &Found) -> Vec<String> {
        let retention = |row: &Row| match &row.retention {
            Retention::Kept(reason) => format!("kept: {reason}"),
            Retention::Goes(reason) => format!("goes: {reason}"),
            Retention::NotOurs => "not ours".to_owned(),
        };
        found
            .rows
            .iter()
            .map(|row| format!("{} {} {}", row.record.snapshot.name, row.state.word(), retention(row)))
            .collect()
    }

    #[test]
    fn each_snapshot_is_judged_as_a_run_would() {
        let records = vec![
            record("earlier", "data", 1, |_| {}),
            record("b", "data", 9, |_| {}),
            record("a", "data", 10, |_| {}),
            record("held", "data", 8, |one| {
                one["metadata"]["labels"]["volume-snapshotter/hold"] = json!("true")
            }),
            record("gone-soon", "data", 7, |one| {
                one["metadata"]["deletionTimestamp"] = json!("2026-11-20T11:00:00Z")
            }),
            record("stuck", "data", 6, |one| one["status"] = json!({"error": {"message": "no"}})),
            record("new", "data", 12, |one| one["status"] = json!(null)),
        ];
        let found = rows(records, Some(&[claim("data", json!({}))]), &settings(&[]), now());
        assert_eq!(
            said(&found),
            [
                "new waiting kept: not ready yet",
                "a ok kept: 1st of last=1",
                "b ok goes: no rule keeps it",
                "held held kept: held",
                "gone-soon terminating kept: already terminating",
                "stuck error goes: never became ready",
                "earlier ok kept: of a previous claim of this name",
            ]
        );
        assert!(found.warnings.is_empty() && found.missing.is_empty());
    }

    #[test]
    fn a_claims_annotation_is_honoured_and_one_that_is_not_understood_keeps_everything() {
        let records = || vec![record("b", "data", 9, |_| {}), record("a", "data", 10, |_| {})];
        let with = |annotations| rows(records(), Some(&[claim("data", annotations)]), &settings(&[]), now());
        let found = with(json!({"volume-snapshotter/retention": "last=2"}));
        assert_eq!(said(&found), ["a ok kept: 1st of last=2", "b ok kept: 2nd of last=2"]);
        let found = with(json!({"volume-snapshotter/retention": "lats=2"}));
        assert_eq!(said(&found)[1], "b ok kept: the claim's annotation is not understood");
        assert!(found.warnings[0].starts_with("nothing of claim data is deleted: the annotation "));
    }

    #[test]
    fn of_a_claim_that_is_gone_everything_stays_and_of_one_that_may_not_be_read_nothing_is_known() {
        let records = || vec![record("b", "data", 1, |_| {}), record("a", "data", 10, |_| {})];
        let found = rows(records(), Some(&[]), &settings(&[]), now());
        assert_eq!(said(&found), ["a ok kept: the claim is gone", "b ok kept: the claim is gone"]);
        let found = rows(records(), None, &settings(&[]), now());
        assert_eq!(said(&found)[1], "b ok goes: no rule keeps it");
    }

    #[test]
    fn those_of_other_schedules_are_not_judged_and_do_not_count() {
        let records = vec![
            record("weekly", "data", 11, |one| one["metadata"]["labels"]["job"] = json!("weekly")),
            record("a", "data", 10, |_| {}),
            record("pre-made", "", 9, |one| {
                one["spec"]["source"] = json!({"volumeSnapshotContentName": "c"})
            }),
        ];
        let found = rows(records, Some(&[claim("data", json!({}))]), &settings(&[]), now());
        assert_eq!(said(&found), ["pre-made ok not ours", "weekly ok not ours", "a ok kept: 1st of last=1"]);
    }

    #[test]
    fn a_clock_of_ours_that_is_behind_makes_nothing_a_thing_of_the_future() {
        let records = vec![record("a", "data", 14, |_| {}), record("b", "data", 13, |_| {})];
        let found = rows(records, Some(&[claim("data", json!({}))]), &settings(&[]), now());
        assert_eq!(said(&found), ["a ok kept: 1st of last=1", "b ok goes: no rule keeps it"]);
    }

    #[test]
    fn claims_are_chosen_by_name_or_by_what_a_selector_matched() {
        let records = || {
            vec![
                record("a", "data", 10, |_| {}),
                record("b", "logs", 10, |_| {}),
                record("c", "gone", 10, |_| {}),
            ]
        };
        let claims = [claim("data", json!({})), claim("logs", json!({})), claim("new", json!({}))];
        let names = |pairs: &[(&str, &str)], claims: &[Claim]| {
            let found = rows(records(), Some(claims), &settings(pairs), now());
            let names: Vec<String> = found.rows.iter().map(|row| row.record.snapshot.name.clone()).collect();
            (names.join(" "), found.missing.join(" "))
        };
        assert_eq!(names(&[], &claims), ("a c b".into(), String::new()));
        assert_eq!(
            names(&[("SNAPSHOT_PVC_NAMES", "data,gone,new,typo")], &claims),
            ("a c".into(), "typo".into())
        );
        assert_eq!(names(&[("SNAPSHOT_PVC_SELECTOR", "app=web")], &claims[..1]), ("a".into(), String::new()));
    }
}
