//! How often each claim is snapshotted: runs of a CronJob, as their Jobs are named, and a whole year of them in
//! simulated time.

use std::collections::{BTreeMap, HashSet};

use fake_apiserver::{Options, objects};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use volume_snapshotter::{
    cluster::{PERMISSIONS, SCHEDULE_PERMISSIONS},
    retention::{
        Every, Judgement, Rules,
        due::{Asked, not_due},
        judge,
    },
    snapshot::Snapshot,
};

use crate::test_cluster::{Ran, TestCluster, embedded, everywhere, rules};

/// Minutes since 1970.
fn now() -> i64 {
    Timestamp::now().as_second() / 60
}

/// A run of the Job that a CronJob scheduled so many minutes ago.
async fn scheduled(cluster: &TestCluster, minutes_ago: i64, settings: &[(&str, &str)]) -> Ran {
    let id = format!("volume-snapshotter-{}", now() - minutes_ago);
    cluster.run(&[&[("SNAPSHOT_RUN_ID", id.as_str())], settings].concat()).await
}

/// How many snapshots of each claim there are that nobody has deleted.
async fn held(cluster: &TestCluster) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for snapshot in cluster.snapshots().await {
        if snapshot["metadata"]["deletionTimestamp"].is_null() {
            let claim = snapshot["spec"]["source"]["persistentVolumeClaimName"].as_str().expect("a claim");
            *held.entry(claim.to_owned()).or_default() += 1;
        }
    }
    held
}

fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(claim, number)| ((*claim).to_owned(), *number)).collect()
}

#[tokio::test]
async fn an_hourly_schedule_makes_of_each_claim_what_it_asks_for() {
    everywhere(async |cluster| {
        let claims = ["hourly", "deltas", "daily", "weekly"];
        for claim in claims {
            cluster.claim(claim).await;
        }
        cluster.annotate_claim("hourly", json!({"volume-snapshotter/every": "1h"})).await;
        cluster.annotate_claim("deltas", json!({"backup.kubernetes.io/deltas": "PT6H P7D"})).await;
        // The schedule's own wins.
        let own =
            json!({"volume-snapshotter/every": "1h", "volume-snapshotter/every.volume-snapshotter": "1d"});
        cluster.annotate_claim("daily", own).await;
        let names = claims.join(",");
        let settings =
            [("SNAPSHOT_PVC_NAMES", names.as_str()), ("SNAPSHOT_EVERY", "1w"), ("SNAPSHOT_RETENTION", "all")];
        let mut summaries = Vec::new();
        for hours_ago in (0..=7).rev() {
            let ran = scheduled(cluster, hours_ago * 60, &settings).await;
            ran.assert_exit(0);
            summaries.push(ran.message.lines().next().unwrap_or_default().to_owned());
        }
        let mut made = held(cluster).await;
        // Its deltas keep one or two of two that are a second apart.
        made.remove("deltas");
        assert_eq!(made, counts(&[("hourly", 8), ("daily", 1), ("weekly", 1)]));
        assert_eq!(summaries[0], "4 of 4 claims have a new ready snapshot");
        assert_eq!(summaries[1], "1 of 1 claim has a new ready snapshot; 3 claims are not due");
        assert_eq!(summaries[6], "2 of 2 claims have a new ready snapshot; 2 claims are not due");
    })
    .await;
}

#[tokio::test]
async fn a_run_in_which_nothing_is_due_succeeds_says_so_and_deletes_nothing() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        let settings =
            [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_EVERY", "1d"), ("SNAPSHOT_RETENTION", "all")];
        scheduled(cluster, 120, &settings).await.assert_exit(0);
        cluster.run(&settings).await.assert_exit(0);
        let before = cluster.names().await;
        assert_eq!(before.len(), 2, "a run outside a Job takes all");
        // By these rules one would go; that waits for the next run that takes a snapshot.
        let ran = scheduled(cluster, 0, &[settings[0], settings[1], ("SNAPSHOT_RETENTION", "last=1")]).await;
        ran.assert_exit(0);
        assert_eq!(cluster.names().await, before);
        let mut lines = ran.message.lines();
        assert_eq!(lines.next(), Some("no snapshot was due; 1 claim is not due"));
        let line = lines.next().unwrap_or_default();
        assert!(
            line.starts_with("data: not due before ")
                && line.contains(" (every 1d): its newest snapshot volume-snapshot-"),
            "{line}"
        );
        let logged = ran.lines("not due before");
        assert_eq!(
            (logged.len(), &logged[0]["claim"], &logged[0]["level"]),
            (1, &json!("data"), &json!("INFO"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_job_that_a_person_made_takes_all() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.annotate_claim("data", json!({"volume-snapshotter/every": "1w"})).await;
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "all")];
        scheduled(cluster, 1, &settings).await.assert_exit(0);
        // `date +%s` at the end, a number, and none.
        let seconds = format!("volume-snapshotter-{}", Timestamp::now().as_second());
        for (made, id) in [(2, seconds.as_str()), (3, "before-upgrade-2"), (4, "before-upgrade")] {
            let by_hand = [("SNAPSHOT_RUN_ID", id), settings[0], settings[1]];
            cluster.run(&by_hand).await.assert_exit(0);
            assert_eq!(held(cluster).await, counts(&[("data", made)]), "{id}");
        }
        scheduled(cluster, 0, &settings).await.assert_exit(0);
        assert_eq!(held(cluster).await, counts(&[("data", 4)]));
    })
    .await;
}

#[tokio::test]
async fn the_next_attempt_of_a_job_takes_over_what_the_first_made() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_EVERY", "1d")];
        let id = format!("volume-snapshotter-{}", now());
        let of_job = [("SNAPSHOT_RUN_ID", id.as_str()), settings[0], settings[1]];
        cluster.run(&of_job).await.assert_exit(0);
        let made = cluster.names().await;
        let ran = cluster.run(&of_job).await;
        ran.assert_exit(0);
        assert_eq!(cluster.names().await, made);
        assert!(ran.message.contains("ready (created by an earlier attempt)"), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn how_often_that_cannot_be_understood_puts_off_nothing_and_deletes_nothing() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_EVERY", "1w")];
        scheduled(cluster, 3, &settings).await.assert_exit(0);
        cluster.annotate_claim("data", json!({"volume-snapshotter/every": "daily"})).await;
        for made in [2, 3] {
            let ran = scheduled(cluster, 3 - made, &settings).await;
            ran.assert_exit(3);
            assert_eq!(held(cluster).await, counts(&[("data", usize::try_from(made).expect("a number"))]));
            assert!(
                ran.message
                    .contains("the annotation volume-snapshotter/every of claim data is invalid: \"daily\""),
                "{}",
                ran.message
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_was_made_anew_is_due_at_once() {
    everywhere(async |cluster| {
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_EVERY", "1w")];
        for made in [1, 2] {
            cluster.claim("data").await;
            scheduled(cluster, 0, &settings).await.assert_exit(0);
            assert_eq!(held(cluster).await, counts(&[("data", made)]));
            cluster.delete_claim("data").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_of_the_future_or_of_another_schedule_puts_off_nothing() {
    embedded(Options::default(), async |cluster| {
        cluster.claim("data").await;
        let put = |name: &str, created: &str, job: &str| {
            let mut snapshot = objects::ready_snapshot(&cluster.namespace, name, "data", created);
            snapshot["metadata"]["labels"]["job"] = json!(job);
            cluster.fake().put(snapshot);
        };
        put("of-the-future", "2099-01-01T00:00:00Z", "volume-snapshotter");
        put("of-another", &Timestamp::now().to_string(), "weekly");
        let settings =
            [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_EVERY", "1d"), ("SNAPSHOT_RETENTION", "all")];
        for _ in 0..2 {
            scheduled(cluster, 0, &settings).await.assert_exit(0);
            // The second run is not due: of this schedule and of now there is one.
            assert_eq!(held(cluster).await, counts(&[("data", 3)]));
        }
    })
    .await;
}

/// A claim in a year of hourly runs.
struct Claim {
    name: &'static str,
    every: &'static str,
    rules: &'static str,
    made: usize,
    held: Vec<Snapshot>,
}

const YEAR: i64 = 365 * 24;

/// Plays a year of hourly runs of four claims and returns a table: what was made, deleted and is kept of each.
fn year(is_every_heeded: bool) -> (Vec<(usize, usize, usize)>, String) {
    const CLAIMS: [(&str, &str, &str); 4] = [
        ("hourly", "1h", "hourly=24,daily=7"),
        ("six-hourly", "6h", "last=28"),
        ("daily", "1d", "daily=7,weekly=4,monthly=12"),
        ("weekly", "1w", "last=8"),
    ];
    let begin: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let begin = begin.as_second() / 60;
    let minute = |minute: i64| Timestamp::from_second(minute * 60).expect("a time");
    let mut rows = Vec::new();
    let mut table = format!(
        "{:<12}{:<7}{:<30}{:>6}{:>9}{:>6}{:>12}\n",
        "CLAIM", "EVERY", "RETENTION", "MADE", "DELETED", "KEPT", "OLDEST"
    );
    for (name, every, rules) in CLAIMS {
        let mut claim = Claim { name, every, rules, made: 0, held: Vec::new() };
        let (interval, rules): (Every, Rules) =
            (every.parse().expect("an interval"), rules.parse().expect("rules"));
        for hour in 0..YEAR {
            let scheduled = begin + hour * 60;
            // Every run begins late, some by much.
            let now = scheduled + if hour % 11 == 0 { 25 } else { hour % 7 };
            let run = format!("volume-snapshotter-{scheduled}");
            let asked = Asked {
                every: &interval,
                claim: None,
                run: Some(&run),
                run_uid: None,
                now: minute(now),
                longest_wait: std::time::Duration::from_secs(90),
            };
            if is_every_heeded && not_due(&claim.held, &asked).is_some() {
                continue;
            }
            claim.made += 1;
            let new = Snapshot::ready_at(&format!("{name}-{hour}"), minute(now));
            claim.held.push(Snapshot { run: Some(run), ..new });
            let going: HashSet<String> = judge(&claim.held, &Judgement::by_rules(&rules, minute(now)))
                .into_iter()
                .filter(|decision| decision.verdict.goes())
                .map(|decision| decision.snapshot.uid.clone())
                .collect();
            claim.held.retain(|snapshot| !going.contains(&snapshot.uid));
        }
        let Claim { name, every, rules, made, held } = claim;
        let deleted = made - held.len();
        let said = if is_every_heeded { every } else { "-" };
        let oldest = held.iter().map(Snapshot::time).min().expect("one is held");
        let days = minute(begin + YEAR * 60).duration_since(oldest).as_secs_f64() / 86_400.0;
        table.push_str(&format!(
            "{name:<12}{said:<7}{rules:<30}{made:>6}{deleted:>9}{:>6}{days:>7.1} days\n",
            held.len()
        ));
        rows.push((made, deleted, held.len()));
    }
    (rows, table)
}

#[test]
fn a_year_of_an_hourly_schedule_makes_no_more_than_each_claim_asks_for() {
    let (with, table) = year(true);
    println!("With `every`:\n{table}");
    let (without, table) = year(false);
    println!("Without:\n{table}");
    assert_eq!(with, [(8760, 8730, 30), (1460, 1432, 28), (365, 345, 20), (53, 45, 8)]);
    assert_eq!(without, [(8760, 8730, 30), (8760, 8732, 28), (8760, 8740, 20), (8760, 8752, 8)]);
}

#[tokio::test]
async fn list_says_when_a_claim_is_due_again() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let permissions = rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS].concat());
        let list = async || cluster.say(&permissions, &["list", "--retention=last=1"]).await;
        list().await.assert_exit(0);
        assert!(!list().await.err.contains("due again"));
        cluster.annotate_claim("data", json!({"volume-snapshotter/every": "1d"})).await;
        let created = cluster.snapshot("old").await["metadata"]["creationTimestamp"].clone();
        let created: Timestamp = created.as_str().expect("a time").parse().expect("a time");
        let next = created + SignedDuration::from_hours(24);
        let due = format!("due again: data at {} UTC (every 1d)", next.strftime("%Y-%m-%d %H:%M"));
        list().await.assert_exit(0).assert_says(&due);
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_says_what_is_not_due() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_EVERY", "1d")];
        scheduled(cluster, 60, &settings).await.assert_exit(0);
        let dry = [("SNAPSHOT_DRY_RUN", "true"), settings[0], settings[1]];
        let ran = scheduled(cluster, 0, &dry).await;
        ran.assert_exit(0);
        assert!(ran.message.starts_with("no snapshot was due; 1 claim is not due\n"), "{}", ran.message);
        let none: Vec<&Value> = ran.lines("would delete");
        assert!(none.is_empty());
    })
    .await;
}
