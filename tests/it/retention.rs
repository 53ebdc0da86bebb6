//! Compares `deltas` with k8s-snapshots, and the other rules with restic: what each keeps of the snapshots of
//! `tests/data/retention`. Those of restic, and its rules, are the ones of its own test suite; its `m` is `mo` here.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use volume_snapshotter::{
    retention::{Judgement, Rules, judge},
    snapshot::Snapshot,
};

#[derive(Deserialize)]
struct Answers {
    cases: Vec<Case>,
    rolling: Vec<Rolling>,
    parse: Vec<Parse>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    deltas: String,
    snapshots: Vec<(String, Timestamp)>,
    keep: BTreeSet<String>,
}

/// A snapshot at every step, with expiry after each.
#[derive(Deserialize)]
struct Rolling {
    deltas: String,
    step_seconds: i64,
    steps: i64,
    start: Timestamp,
    survivors: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Parse {
    input: String,
    /// Whether the original parses it and completes expiry with it. Durations that it parses as zero are
    /// rejected here as well.
    accepted: bool,
    /// How many of 60 hourly snapshots it keeps.
    keeps_of_60_hourly: Option<usize>,
}

fn answers() -> Answers {
    serde_json::from_str(include_str!("../data/retention/deltas.json")).expect("the answers")
}

fn snapshot(name: &str, time: Timestamp) -> Snapshot {
    Snapshot::ready_at(name, time)
}

/// Returns the names of the snapshots that are kept.
fn kept(snapshots: &[Snapshot], rules: &Rules) -> BTreeSet<String> {
    let by = Judgement::by_rules(rules, Timestamp::MAX);
    let staying = judge(snapshots, &by).into_iter().filter(|decision| !decision.verdict.goes());
    staying.map(|decision| decision.snapshot.name.clone()).collect()
}

#[test]
fn deltas_keeps_what_k8s_snapshots_keeps() {
    for case in answers().cases {
        let snapshots: Vec<Snapshot> =
            case.snapshots.iter().map(|(name, time)| snapshot(name, *time)).collect();
        let of_annotation = Rules::of_deltas(&case.deltas).expect("deltas");
        assert_eq!(kept(&snapshots, &of_annotation), case.keep, "{}", case.name);
        let of_settings: Rules = format!("deltas={}", case.deltas).parse().expect("rules");
        assert_eq!(of_settings, of_annotation);
    }
}

#[test]
fn run_after_run_deltas_leaves_what_k8s_snapshots_leaves() {
    for rolling in answers().rolling {
        let rules = Rules::of_deltas(&rolling.deltas).expect("deltas");
        let mut snapshots = Vec::new();
        for step in 0..rolling.steps {
            let time = rolling.start + SignedDuration::from_secs(step * rolling.step_seconds);
            snapshots.push(snapshot(&format!("t{step:04}"), time));
            let kept = kept(&snapshots, &rules);
            snapshots.retain(|snapshot| kept.contains(&snapshot.name));
        }
        let left: BTreeSet<String> = snapshots.into_iter().map(|snapshot| snapshot.name).collect();
        assert_eq!(left, rolling.survivors, "{}", rolling.deltas);
    }
}

#[test]
fn deltas_accepts_what_k8s_snapshots_gets_through_with() {
    let begin: Timestamp = "2024-03-01T00:00:00Z".parse().expect("a time");
    let hourly: Vec<Snapshot> = (0..60)
        .map(|hour| snapshot(&format!("s{hour:03}"), begin + SignedDuration::from_hours(hour)))
        .collect();
    for Parse { input, accepted, keeps_of_60_hourly } in answers().parse {
        match Rules::of_deltas(&input) {
            Ok(rules) => {
                assert!(accepted, "{input:?} is accepted");
                assert_eq!(Some(kept(&hourly, &rules).len()), keeps_of_60_hourly, "{input:?}");
            }
            Err(error) => {
                assert!(!accepted, "{input:?}: {error}");
                assert!(error.to_string().contains("PT1H P1D P7D"), "{input:?}: {error}");
            }
        }
    }
}

#[derive(Deserialize)]
struct OfRestic {
    snapshots: Vec<Timestamp>,
    cases: Vec<CaseOfRestic>,
}

#[derive(Deserialize)]
struct CaseOfRestic {
    rules: String,
    /// Newest first. Of snapshots of one instant it does not say which.
    keep: Vec<Timestamp>,
}

#[test]
fn the_rules_of_restic_keep_what_restic_keeps() {
    let OfRestic { snapshots, cases } =
        serde_json::from_str(include_str!("../data/retention/restic.json")).expect("the answers");
    let snapshots: Vec<Snapshot> = snapshots
        .into_iter()
        .enumerate()
        .map(|(index, time)| snapshot(&format!("s{index:03}"), time))
        .collect();
    assert_eq!((snapshots.len(), cases.len()), (103, 36));
    for CaseOfRestic { rules: text, keep } in cases {
        let rules: Rules = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let kept = kept(&snapshots, &rules);
        let mut times: Vec<Timestamp> =
            snapshots.iter().filter(|one| kept.contains(&one.name)).map(Snapshot::time).collect();
        times.sort_by(|a, b| b.cmp(a));
        assert_eq!(times, keep, "{text}");
    }
}
