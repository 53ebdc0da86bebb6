//! Computes the rows of the list from snapshots, claims and schedules. Pure: the caller passes the current
//! time.

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{
    groups::{self, Grouped},
    schedules::Schedule,
};
use crate::{
    api::Claim,
    group::Group,
    names,
    retention::{
        ClaimIdentity, Judgement,
        due::{self, Asked},
        every_of_claim, judge, rules_of_claim,
    },
    settings::{ClaimChoice, Settings},
    snapshot::{ClaimId, Record, Snapshot},
    text,
};

/// One row of the list: a snapshot, or a group with its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub record: Record,
    /// Set for a group: what its claims have in common, or else the name of the VolumeGroupSnapshot.
    pub group: Option<String>,
    /// The members of a group, by claim.
    pub members: Vec<Row>,
    pub state: State,
    pub retention: Retention,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Ready: a volume can be created from it.
    Ok,
    /// Ready, and held.
    Held,
    Waiting,
    /// Not ready, and the snapshot controller reported an error.
    Error,
    /// Deleted, but finalizers keep it.
    Terminating,
    /// Terminating for more than an hour.
    Stuck,
}

/// Whether a run keeps or deletes a snapshot, with the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retention {
    /// A run keeps it.
    Kept(String),
    /// The next run deletes it.
    Goes(String),
    /// A run with the specified or assumed rules would delete it, but no such run is known.
    WouldGo(String),
    /// The verdict cannot be determined.
    Unknown(String),
    /// It belongs to an unknown schedule, or to none.
    NotOurs,
}

/// The input of [`rows`] besides the snapshots.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// All claims of the namespaces. `None` without permission to read them.
    pub claims: Option<&'a [Claim]>,
    /// The claims that the user's selector matches. `None` without a selector.
    pub selected: Option<&'a HashSet<ClaimId>>,
    /// The user's settings, for the claims that they select.
    pub settings: &'a Settings,
    pub schedules: &'a [Schedule],
    /// The VolumeGroupSnapshots that are known. Members of others are shown as snapshots of their own.
    pub groups: &'a [Group],
    /// The schedule that the user asked for.
    pub only: Option<&'a str>,
    /// Whether to show the snapshots of all schedules.
    pub all: bool,
    pub now: Timestamp,
}

/// The output of [`rows`].
#[derive(Debug, Default)]
pub struct Found {
    /// Sorted by namespace and claim, newest first.
    pub rows: Vec<Row>,
    pub warnings: Vec<String>,
    /// Claims that the user named, but that neither exist nor have a snapshot.
    pub missing: Vec<String>,
    /// The claims that are not due, with when they are.
    pub due: BTreeSet<(Timestamp, String)>,
    /// Number of snapshots of the selected claims that are not shown, by schedule.
    pub others: BTreeMap<Option<String>, usize>,
}

/// A deletion that takes longer is stuck. Normally it takes seconds, or as long as a claim is being restored.
const STUCK_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Maximum number of snapshots or claims that a warning or note names.
pub(super) const NAMED: usize = 3;

impl State {
    fn of(snapshot: &Snapshot, now: Timestamp) -> Self {
        match snapshot {
            Snapshot { terminating_since: Some(since), .. } if now.duration_since(*since) > STUCK_AFTER => {
                State::Stuck
            }
            Snapshot { terminating_since: Some(_), .. } => State::Terminating,
            Snapshot { ready: true, held: true, .. } => State::Held,
            Snapshot { ready: true, .. } => State::Ok,
            Snapshot { error: Some(_), .. } | Snapshot { incomplete: true, .. } => State::Error,
            _ => State::Waiting,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Held => "held",
            State::Waiting => "waiting",
            State::Error => "error",
            State::Terminating => "terminating",
            State::Stuck => "stuck",
        }
    }
}

/// Judges each snapshot of the selected claims as a run of its schedule would if it started now and created
/// no snapshot. Shows the snapshots of the known schedules and, for each claim, the one that a restore would
/// choose, whatever its schedule.
pub fn rows(records: Vec<Record>, question: &Question<'_>) -> Found {
    let mut found = Found::default();
    let claims: Option<HashMap<ClaimId, &Claim>> =
        question.claims.map(|claims| claims.iter().map(|claim| (id_of(claim), claim)).collect());
    let (grouped, records) = groups::gathered(records, question.groups);
    let (records, grouped) = chosen(records, grouped, claims.as_ref(), question, &mut found.missing);

    // By the API server's clock no snapshot was created in the future. If one seems to be, the local clock is
    // slow.
    let all = records.iter().chain(grouped.iter().flat_map(Grouped::records));
    let newest = all.map(|record| record.snapshot.created).filter(|made| *made < Timestamp::MAX).max();
    let now = newest.map_or(question.now, |newest| newest.max(question.now));

    let judging = Judging { question, claims: claims.as_ref(), in_use: in_use(question.claims), now };
    let mut owned: HashMap<(ClaimId, String), Vec<Snapshot>> = HashMap::new();
    for record in &records {
        if let (Some(id), Some(name)) = (claim_of(record), &record.schedule) {
            owned.entry((id, name.clone())).or_default().push(record.snapshot.clone());
        }
    }
    let mut verdicts: HashMap<String, Retention> = HashMap::new();
    for ((id, name), snapshots) in &owned {
        verdicts.extend(judging.verdicts(id, name, snapshots, &mut found));
    }
    verdicts.extend(groups::verdicts(&judging, &grouped, &mut found));
    found.warnings.sort_unstable();
    found.warnings.dedup();

    let to_restore = to_restore(records.iter().chain(grouped.iter().flat_map(Grouped::members)), now);
    let is_shown = |row: &Row| {
        let record = &row.record;
        let is_known = |name: &str| match question.only {
            Some(only) => only == name,
            None => question.schedules.iter().any(|schedule| schedule.owns(name, &record.namespace)),
        };
        let is_to_restore = |row: &Row| to_restore.contains(&row.record.snapshot.uid);
        question.all
            || record.schedule.as_deref().is_some_and(is_known)
            || question.only.is_none() && (is_to_restore(row) || row.members.iter().any(is_to_restore))
    };
    let mut row = |record: Record| Row {
        state: State::of(&record.snapshot, now),
        retention: verdicts.remove(&record.snapshot.uid).unwrap_or(Retention::NotOurs),
        group: None,
        members: Vec::new(),
        record,
    };
    let mut rows: Vec<Row> = records.into_iter().map(&mut row).collect();
    rows.extend(grouped.into_iter().map(|grouped| grouped.row(&mut row)));
    rows.retain(|row| {
        let shown = is_shown(row);
        if !shown {
            *found.others.entry(row.record.schedule.clone()).or_default() += 1;
        }
        shown
    });

    // The uid comes last, so no two rows are equal and an unstable sort is deterministic.
    rows.sort_unstable_by(|a, b| {
        let of = |row: &Row| {
            (
                row.record.namespace.clone(),
                row.group.clone().or(row.record.claim.clone()),
                row.group.is_some(),
            )
        };
        let newest = |row: &Row| Reverse((row.record.snapshot.time(), row.record.snapshot.created));
        of(a)
            .cmp(&of(b))
            .then_with(|| newest(a).cmp(&newest(b)))
            .then_with(|| a.record.snapshot.name.cmp(&b.record.snapshot.name))
            .then_with(|| a.record.snapshot.uid.cmp(&b.record.snapshot.uid))
    });
    found.rows = rows;
    found.warnings.extend(stuck(&found.rows, now));
    found
}

fn id_of(claim: &Claim) -> ClaimId {
    ClaimId { namespace: claim.metadata.namespace.clone(), name: claim.metadata.name.clone() }
}

fn claim_of(record: &Record) -> Option<ClaimId> {
    Some(ClaimId { namespace: record.namespace.clone(), name: record.claim.clone()? })
}

/// Retains the snapshots of the selected claims and the groups with one of them, and collects the names that nothing
/// was found for.
fn chosen(
    mut records: Vec<Record>,
    mut grouped: Vec<Grouped>,
    claims: Option<&HashMap<ClaimId, &Claim>>,
    question: &Question<'_>,
    missing: &mut Vec<String>,
) -> (Vec<Record>, Vec<Grouped>) {
    if let ClaimChoice::Names(names) = &question.settings.claims {
        records.retain(|record| record.claim.as_ref().is_some_and(|claim| names.contains(claim)));
        grouped.retain(|grouped| grouped.claims().any(|id| names.contains(&id.name)));
        let exists = |name: &String| claims.is_none_or(|claims| claims.keys().any(|id| id.name == *name));
        let mut seen: HashSet<String> = records.iter().filter_map(|record| record.claim.clone()).collect();
        seen.extend(grouped.iter().flat_map(Grouped::claims).map(|id| id.name));
        missing.extend(names.iter().filter(|name| !seen.contains(*name) && !exists(name)).cloned());
    }
    // Without a selector, snapshots of deleted claims are listed too.
    if let Some(selected) = question.selected {
        records.retain(|record| claim_of(record).is_some_and(|id| selected.contains(&id)));
        grouped.retain(|grouped| grouped.claims().any(|id| selected.contains(&id)));
    }
    (records, grouped)
}

/// Returns the snapshots that claims are being restored from, by namespace.
fn in_use(claims: Option<&[Claim]>) -> HashMap<String, HashSet<String>> {
    let mut in_use: HashMap<String, HashSet<String>> = HashMap::new();
    for claim in claims.unwrap_or_default().iter().filter(|claim| claim.status.phase != "Bound") {
        let sources = [&claim.spec.data_source, &claim.spec.data_source_ref];
        for source in sources.into_iter().flatten().filter(|source| source.is_snapshot()) {
            let namespace = source.namespace.as_ref().filter(|namespace| !namespace.is_empty());
            let namespace = namespace.unwrap_or(&claim.metadata.namespace);
            in_use.entry(namespace.clone()).or_default().insert(source.name.clone());
        }
    }
    in_use
}

/// Returns, for each claim, the uid of the snapshot that a restore chooses by default.
fn to_restore<'a>(records: impl Iterator<Item = &'a Record>, now: Timestamp) -> HashSet<String> {
    let mut latest: HashMap<(&str, &str), &Snapshot> = HashMap::new();
    for record in records {
        let snapshot = &record.snapshot;
        let Some(claim) = record.claim.as_deref().filter(|claim| names::is_object_name(claim)) else {
            continue;
        };
        if snapshot.hindrance().is_some() || snapshot.is_of_the_future(now) {
            continue;
        }
        let best = latest.entry((&record.namespace, claim)).or_insert(snapshot);
        if snapshot.order() > best.order() {
            *best = snapshot;
        }
    }
    latest.into_values().map(|snapshot| snapshot.uid.clone()).collect()
}

/// Returns why a run skips or fails a claim, and therefore deletes none of its snapshots.
pub(super) fn refusal(claim: &Claim) -> Option<&'static str> {
    match claim.status.phase.as_str() {
        _ if claim.metadata.deletion_timestamp.is_some() => Some("the claim is being deleted"),
        "Bound" => None,
        "Lost" => Some("the claim is Lost"),
        "Pending" => Some("the claim is Pending"),
        _ => Some("the claim is not Bound"),
    }
}

/// The input that all verdicts share.
pub(super) struct Judging<'a> {
    pub(super) question: &'a Question<'a>,
    pub(super) claims: Option<&'a HashMap<ClaimId, &'a Claim>>,
    pub(super) in_use: HashMap<String, HashSet<String>>,
    pub(super) now: Timestamp,
}

impl Judging<'_> {
    /// Returns the verdict on each snapshot of a claim and a schedule `name`, by uid. If several CronJobs
    /// share the schedule's name, a snapshot is deleted if any of them deletes it.
    fn verdicts(
        &self,
        id: &ClaimId,
        name: &str,
        snapshots: &[Snapshot],
        found: &mut Found,
    ) -> HashMap<String, Retention> {
        let owners = || self.question.schedules.iter().filter(|schedule| schedule.owns(name, &id.namespace));
        if owners().next().is_none() {
            return HashMap::new();
        }
        let mut verdicts: HashMap<String, Retention> = HashMap::new();
        let mut add = |uid: String, new: Retention| {
            let location = verdicts.entry(uid).or_insert_with(|| new.clone());
            if rank(&new) > rank(location) {
                *location = new;
            }
        };
        for schedule in owners().filter(|schedule| schedule.finds(id)) {
            for (uid, verdict) in self.by(schedule, id, snapshots, found) {
                add(uid, verdict);
            }
        }
        for snapshot in snapshots {
            add(
                snapshot.uid.clone(),
                match self.claims.is_some_and(|claims| !claims.contains_key(id)) {
                    true => Retention::Kept("the claim is gone".to_owned()),
                    false => Retention::Kept("no schedule selects the claim".to_owned()),
                },
            );
        }
        verdicts
    }

    /// Returns when a claim is due again, `None` if at once or if how often is not known.
    fn due(&self, settings: &Settings, claim: &Claim, snapshots: &[Snapshot]) -> Option<(Timestamp, String)> {
        let Claim { metadata, .. } = claim;
        let own = every_of_claim(&metadata.name, &metadata.annotations, &settings.schedule).ok()?;
        let every = settings.every_with(own.as_ref())?;
        let asked = Asked {
            every,
            claim: Some(ClaimIdentity { uid: &metadata.uid, created: metadata.creation_timestamp }),
            run: None,
            run_uid: None,
            now: self.now,
            longest_wait: settings.longest_wait(),
        };
        let next = due::next(snapshots, &asked)?;
        Some((next, format!("{} at {} (every {every})", text::name(&metadata.name), text::minute(next))))
    }

    /// Returns the verdicts of a run of one schedule. If the claim is gone or refused, that is the reason for
    /// keeping all of its snapshots.
    fn by(
        &self,
        schedule: &Schedule,
        id: &ClaimId,
        snapshots: &[Snapshot],
        found: &mut Found,
    ) -> Vec<(String, Retention)> {
        let settings = match &schedule.settings {
            Ok(settings) => settings,
            Err(_) => {
                let unknown =
                    Retention::Unknown(format!("the settings of schedule {} are invalid", schedule.name));
                return snapshots.iter().map(|snapshot| (snapshot.uid.clone(), unknown.clone())).collect();
            }
        };
        let claim = self.claims.map(|claims| claims.get(id).copied());
        let mut why_kept = None;
        let mut rules = settings.retention.clone();
        match claim {
            // No run discovers this claim, so none deletes its snapshots.
            Some(None) => why_kept = Some("the claim is gone"),
            Some(Some(claim)) => {
                let mut lent = Cow::Borrowed(claim);
                if let Some(volumes) = &schedule.volumes {
                    volumes.lend(lent.to_mut(), &schedule.name);
                }
                match rules_of_claim(&id.name, &lent.metadata.annotations, &schedule.name) {
                    Ok(own) => {
                        if let Some(own) = own {
                            rules = settings.rules_with(&own);
                        }
                        why_kept = refusal(claim);
                        if why_kept.is_none() {
                            found.due.extend(self.due(settings, &lent, snapshots));
                        }
                    }
                    Err(problem) => {
                        let name = text::name(&id.name);
                        found.warnings.push(format!(
                            "nothing of claim {name} is deleted: {}",
                            text::foreign(&problem.to_string())
                        ));
                        why_kept = Some("the claim's annotation is invalid");
                    }
                }
            }
            None => {}
        }
        let by = Judgement {
            claim: claim.flatten().map(|claim| ClaimIdentity {
                uid: &claim.metadata.uid,
                created: claim.metadata.creation_timestamp,
            }),
            in_use: self.in_use.get(&id.namespace),
            longest_wait: settings.longest_wait(),
            job_lifetime: settings.job_lifetime(),
            ..Judgement::by_rules(&rules, self.now)
        };
        let is_certain = schedule.doubt.is_none() && self.claims.is_some();
        judge(snapshots, &by)
            .into_iter()
            .map(|decision| {
                let verdict = decision.verdict;
                let retention = match (verdict.goes(), why_kept) {
                    (_, Some(reason)) => Retention::Kept(reason.to_owned()),
                    (true, None) if is_certain => Retention::Goes(verdict.to_string()),
                    (true, None) => Retention::WouldGo(verdict.to_string()),
                    (false, None) => Retention::Kept(verdict.to_string()),
                };
                (decision.snapshot.uid.clone(), retention)
            })
            .collect()
    }
}

/// Orders the verdicts of two CronJobs on one snapshot: the one that deletes it wins.
pub(super) fn rank(retention: &Retention) -> u8 {
    match retention {
        Retention::NotOurs => 0,
        Retention::Kept(_) => 1,
        Retention::Unknown(_) => 2,
        Retention::WouldGo(_) => 3,
        Retention::Goes(_) => 4,
    }
}

/// Returns a warning about snapshots whose deletion is stuck.
fn stuck(rows: &[Row], now: Timestamp) -> Option<String> {
    let stuck: Vec<(&Record, Timestamp)> = rows
        .iter()
        .filter(|row| row.state == State::Stuck)
        .filter_map(|row| Some((&row.record, row.record.snapshot.terminating_since?)))
        .collect();
    let (first, _) = stuck.first()?;
    let mut said: Vec<String> = stuck
        .iter()
        .take(NAMED)
        .map(|(record, since)| {
            format!("{} ({})", text::name(&record.snapshot.name), text::age(now.duration_since(*since)))
        })
        .collect();
    if stuck.len() > NAMED {
        said.push(format!("{} more", stuck.len() - NAMED));
    }
    Some(format!(
        "deletion is stuck: {}; to see the finalizers that block it: kubectl describe volumesnapshot {} -n {}",
        said.join(", "),
        text::name(&first.snapshot.name),
        text::name(&first.namespace)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::VolumeSnapshot,
        list::schedules::{Location, Origin},
    };

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
            "status": {"phase": "Bound"},
        }))
        .expect("a claim")
    }

    fn now() -> Timestamp {
        "2026-11-20T12:00:00Z".parse().expect("a time")
    }

    fn ask<'a>(
        claims: Option<&'a [Claim]>,
        settings: &'a Settings,
        schedules: &'a [Schedule],
    ) -> Question<'a> {
        Question {
            claims,
            selected: None,
            settings,
            schedules,
            groups: &[],
            only: None,
            all: false,
            now: now(),
        }
    }

    /// The schedule of a CronJob with these settings, for the claims data and logs.
    fn schedule(pairs: &[(&str, &str)]) -> Schedule {
        let mut given = BTreeMap::from([("SNAPSHOT_PVC_NAMES", "data,logs")]);
        given.extend(pairs.iter().copied());
        let pairs = given.into_iter().map(|(name, value)| (name.into(), value.into()));
        let settings = Settings::parse(pairs).expect("settings");
        let origin = Origin::CronJob {
            namespace: "app".into(),
            name: settings.schedule.clone(),
            config_maps: Vec::new(),
        };
        Schedule {
            doubt: None,
            origin: origin.clone(),
            location: Location::One("app".into()),
            settings: Ok(Box::new(settings.clone())),
            ..Schedule::without_cron_job(&settings, origin)
        }
    }

    /// Judged by one schedule with the default settings.
    fn judged(records: Vec<Record>, claims: Option<&[Claim]>) -> Found {
        rows(records, &ask(claims, &settings(&[]), &[schedule(&[])]))
    }

    /// Name, state and retention of each.
    fn said(found: &Found) -> Vec<String> {
        let retention = |row: &Row| match &row.retention {
            Retention::Kept(reason) => format!("kept: {reason}"),
            Retention::Goes(reason) => format!("goes: {reason}"),
            Retention::WouldGo(reason) => format!("would go: {reason}"),
            Retention::Unknown(reason) => format!("unknown: {reason}"),
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
        let found = judged(records, Some(&[claim("data", json!({}))]));
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
        let with = |annotations| judged(records(), Some(&[claim("data", annotations)]));
        let found = with(json!({"volume-snapshotter/retention": "last=2"}));
        assert_eq!(said(&found), ["a ok kept: 1st of last=2", "b ok kept: 2nd of last=2"]);
        let found = with(json!({"volume-snapshotter/retention": "lats=2"}));
        assert_eq!(said(&found)[1], "b ok kept: the claim's annotation is invalid");
        assert!(found.warnings[0].starts_with("nothing of claim data is deleted: the annotation "));
    }

    #[test]
    fn of_a_claim_that_is_gone_everything_stays_and_of_one_that_may_not_be_read_nothing_is_known() {
        let records = || vec![record("b", "data", 1, |_| {}), record("a", "data", 10, |_| {})];
        let found = judged(records(), Some(&[]));
        assert_eq!(said(&found), ["a ok kept: the claim is gone", "b ok kept: the claim is gone"]);
        let found = judged(records(), None);
        assert_eq!(said(&found)[1], "b ok would go: no rule keeps it");
    }

    #[test]
    fn those_of_other_schedules_are_counted_but_for_what_a_restore_would_choose() {
        let records = || {
            vec![
                record("weekly", "data", 11, |one| one["metadata"]["labels"]["job"] = json!("weekly")),
                record("a", "data", 10, |_| {}),
                record("older", "data", 9, |one| one["metadata"]["labels"] = json!({})),
                record("of-logs", "logs", 8, |_| {}),
                record("older-of-logs", "logs", 7, |one| one["metadata"]["labels"]["job"] = json!("weekly")),
                record("pre-made", "", 9, |one| {
                    one["spec"]["source"] = json!({"volumeSnapshotContentName": "c"})
                }),
            ]
        };
        let claims = [claim("data", json!({})), claim("logs", json!({}))];
        let found = judged(records(), Some(&claims));
        assert_eq!(
            said(&found),
            [
                "pre-made ok not ours",
                "weekly ok not ours",
                "a ok kept: 1st of last=1",
                "of-logs ok kept: 1st of last=1"
            ]
        );
        assert_eq!(found.others, BTreeMap::from([(None, 1), (Some("weekly".to_owned()), 1)]));
        let all = settings(&[]);
        let schedules = [schedule(&[])];
        let everything = Question { all: true, ..ask(Some(&claims), &all, &schedules) };
        let found = rows(records(), &everything);
        assert_eq!((found.rows.len(), found.others.len()), (6, 0));
        let one = Question { only: Some("weekly"), ..ask(Some(&claims), &all, &schedules) };
        assert_eq!(said(&rows(records(), &one)), ["weekly ok not ours", "older-of-logs ok not ours"]);
    }

    #[test]
    fn each_is_judged_by_the_rules_of_its_own_schedule() {
        let weekly = |name: &str, hour| {
            record(name, "data", hour, |one| one["metadata"]["labels"]["job"] = json!("weekly"))
        };
        let records = || {
            vec![
                weekly("w1", 9),
                weekly("w2", 8),
                weekly("w3", 7),
                record("h1", "data", 10, |_| {}),
                record("h2", "data", 6, |_| {}),
            ]
        };
        let claims = [claim("data", json!({}))];
        let settings = settings(&[]);
        let by = |schedules: &[Schedule]| said(&rows(records(), &ask(Some(&claims), &settings, schedules)));
        let weekly = schedule(&[("SNAPSHOT_JOB", "weekly"), ("SNAPSHOT_RETENTION", "last=2")]);
        assert_eq!(
            by(&[schedule(&[]), weekly.clone()]),
            [
                "h1 ok kept: 1st of last=1",
                "w1 ok kept: 1st of last=2",
                "w2 ok kept: 2nd of last=2",
                "w3 ok goes: no rule keeps it",
                "h2 ok goes: no rule keeps it",
            ]
        );
        // Suspended, nobody deletes; and a second one with the same label can.
        let suspended = Schedule { doubt: Some("suspended".to_owned()), ..weekly.clone() };
        assert_eq!(by(std::slice::from_ref(&suspended))[3], "w3 ok would go: no rule keeps it");
        let stricter = schedule(&[("SNAPSHOT_JOB", "weekly")]);
        assert_eq!(by(&[suspended, stricter])[2], "w2 ok goes: no rule keeps it");
        // One that is for other claims, or elsewhere, or does not start, deletes nothing of this one.
        let other_claims = schedule(&[("SNAPSHOT_JOB", "weekly"), ("SNAPSHOT_PVC_NAMES", "logs")]);
        assert_eq!(by(&[other_claims])[3], "w3 ok kept: no schedule selects the claim");
        let by_label = schedule(&[
            ("SNAPSHOT_JOB", "weekly"),
            ("SNAPSHOT_PVC_NAMES", ""),
            ("SNAPSHOT_PVC_SELECTOR", "a=b"),
        ]);
        let matches_none = Schedule { selected: Some(HashSet::new()), ..by_label.clone() };
        assert_eq!(by(&[matches_none])[3], "w3 ok kept: no schedule selects the claim");
        let id = ClaimId { namespace: "app".into(), name: "data".into() };
        let matches = Schedule { selected: Some(HashSet::from([id])), ..by_label };
        assert_eq!(by(&[matches])[3], "w3 ok goes: no rule keeps it");
        let elsewhere = Schedule { location: Location::One("other".into()), ..weekly.clone() };
        assert_eq!(
            by(&[schedule(&[]), elsewhere]),
            ["h1 ok kept: 1st of last=1", "h2 ok goes: no rule keeps it"]
        );
        let wrong = Schedule { settings: Err("x".to_owned()), ..weekly };
        assert_eq!(by(&[wrong])[3], "w3 ok unknown: the settings of schedule weekly are invalid");
    }

    #[test]
    fn of_a_claim_that_a_run_refuses_nothing_goes() {
        let records = || vec![record("b", "data", 9, |_| {}), record("a", "data", 10, |_| {})];
        for (change, reason) in [
            (json!({"status": {"phase": "Pending"}}), "the claim is Pending"),
            (json!({"status": {"phase": "Lost"}}), "the claim is Lost"),
            (
                json!({"metadata": {"deletionTimestamp": "2026-11-20T11:00:00Z"}}),
                "the claim is being deleted",
            ),
        ] {
            let mut claim = claim("data", json!({}));
            if let Some(phase) = change["status"]["phase"].as_str() {
                claim.status.phase = phase.to_owned();
            } else {
                claim.metadata.deletion_timestamp = Some(now());
            }
            assert_eq!(said(&judged(records(), Some(&[claim])))[1], format!("b ok kept: {reason}"));
        }
    }

    #[test]
    fn what_a_claim_waits_for_is_in_use() {
        let records = || vec![record("b", "data", 9, |_| {}), record("a", "data", 10, |_| {})];
        let mut waiting = claim("new", json!({}));
        waiting.status.phase = "Pending".to_owned();
        waiting.spec.data_source_ref =
            serde_json::from_value(json!({"kind": "VolumeSnapshot", "name": "b"})).expect("a source");
        let of = |waiting: &Claim| {
            said(&judged(records(), Some(&[claim("data", json!({})), waiting.clone()]))).remove(1)
        };
        assert!(of(&waiting).starts_with("b ok kept: "), "{}", of(&waiting));
        waiting.status.phase = "Bound".to_owned();
        assert_eq!(of(&waiting), "b ok goes: no rule keeps it");
    }

    #[test]
    fn a_deletion_that_does_not_finish_within_an_hour_is_a_warning() {
        let deleted = |name: &str, since: &str| {
            record(name, "data", 9, |one| one["metadata"]["deletionTimestamp"] = json!(since))
        };
        let found = judged(
            vec![deleted("late", "2026-11-20T08:40:00Z"), deleted("soon", "2026-11-20T11:00:01Z")],
            Some(&[claim("data", json!({}))]),
        );
        assert_eq!(
            said(&found),
            ["late stuck kept: already terminating", "soon terminating kept: already terminating"]
        );
        assert_eq!(found.warnings.len(), 1);
        assert!(found.warnings[0].starts_with("deletion is stuck: late (3h20m); "), "{found:?}");
    }

    #[test]
    fn a_clock_of_ours_that_is_behind_makes_nothing_a_thing_of_the_future() {
        let records = vec![record("a", "data", 14, |_| {}), record("b", "data", 13, |_| {})];
        let found = judged(records, Some(&[claim("data", json!({}))]));
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
        let names = |pairs: &[(&str, &str)], selected: Option<&HashSet<ClaimId>>| {
            let settings = settings(pairs);
            let schedules = [schedule(&[])];
            let found = rows(records(), &Question { selected, ..ask(Some(&claims), &settings, &schedules) });
            let names: Vec<String> = found.rows.iter().map(|row| row.record.snapshot.name.clone()).collect();
            (names.join(" "), found.missing.join(" "))
        };
        assert_eq!(names(&[], None), ("a c b".into(), String::new()));
        assert_eq!(
            names(&[("SNAPSHOT_PVC_NAMES", "data,gone,new,typo")], None),
            ("a c".into(), "typo".into())
        );
        let selected = HashSet::from([id_of(&claims[0])]);
        let by_label = [("SNAPSHOT_PVC_SELECTOR", "app=web")];
        assert_eq!(names(&by_label, Some(&selected)), ("a".into(), String::new()));
    }
}
