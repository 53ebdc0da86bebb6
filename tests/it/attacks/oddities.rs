//! Statuses, names, owners, clocks and sizes that make no sense, or that others chose to do harm with.

use fake_apiserver::{Options, Plan, objects};
use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};

use super::{NEEDS_OTHER_HAND, NEEDS_PAST, SNAPSHOTS, asks, is_embedded, millis, new_one, slow};
use crate::{
    faults::{put_claim, put_ready},
    test_cluster::{TestCluster, all_permissions, embedded_only, everywhere},
};

/// Characters that change what a reader sees.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

fn hours_ago(hours: i64) -> Timestamp {
    let time = Timestamp::now() - SignedDuration::from_hours(hours);
    time.round(Unit::Second).expect("a time")
}

#[tokio::test]
async fn what_others_wrote_forges_no_line_of_the_message() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        let hostile = "no\u{1b}[2K\r\ndata: fine \u{202e}\u{2066}\u{2028}\u{2029}\u{85}\u{9b}31m";
        cluster.fake().plan(|_| Some(Plan::fails(hostile)));
        let ran = cluster
            .run(&[
                ("SNAPSHOT_PVC_NAMES", "data"),
                ("SNAPSHOT_READY_ATTEMPTS", "1"),
                ("SNAPSHOT_READY_INTERVAL", "300ms"),
            ])
            .await;
        ran.assert_exit(1);
        assert_eq!(ran.message.lines().count(), 2, "{:?}", ran.message);
        let harmful = |text: &str| text.chars().any(|character| character != '\n' && is_harmful(character));
        assert!(!harmful(&ran.message), "{:?}", ran.message);
        for line in &ran.log {
            let fields = line.as_object().expect("an object").values();
            assert!(!fields.filter_map(Value::as_str).any(harmful), "{line}");
        }
    })
    .await;
}

/// As `recordings/106` and `107` have them: the API server takes such names of claims.
#[tokio::test]
async fn a_snapshot_of_a_claim_with_a_hostile_name_is_left_alone_and_reaches_no_url() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let names = ["../../victim", "?labelSelector=a", "data/../../secrets", "a%2fb", "data\r\n\u{1b}[31m"];
        for (number, claim) in names.into_iter().enumerate() {
            let name = format!("planted-{number}");
            cluster.new_snapshot(&name, claim, json!({"job": "volume-snapshotter", "name": name})).await;
        }
        if is_embedded(cluster) {
            cluster.fake().clear_requests();
        }
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        let left = cluster.names().await;
        assert_eq!(left.iter().filter(|name| name.starts_with("planted-")).count(), names.len());
        assert!(!left.contains(&"old".to_owned()));
        if is_embedded(cluster) {
            let (claims, snapshots) = (cluster.claims_path(), cluster.snapshots_path());
            let requests = cluster.fake().requests();
            for request in requests.iter().filter(|request| request.user.contains("serviceaccount")) {
                let path = request.path.as_str();
                let rest = [&claims, &snapshots].into_iter().find_map(|prefix| path.strip_prefix(&**prefix));
                let is_one_name = |rest: &str| {
                    rest.chars().all(|one| one.is_ascii_alphanumeric() || one == '-' || one == '/')
                        && rest.matches('/').count() <= 1
                };
                assert!(rest.is_some_and(is_one_name), "{}", request.uri);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_called_what_no_claim_can_be_stops_the_run_before_any_request() {
    for name in ["../../victim", "data?labelSelector=a", "data/../../../secrets/token", "data%2f..", "."] {
        everywhere(async |cluster| {
            let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", name)]).await;
            if is_embedded(cluster) {
                cluster.fake().clear_requests();
            }
            let ran = running.finish().await;
            ran.assert_exit(2);
            if is_embedded(cluster) {
                assert!(cluster.fake().requests().is_empty(), "{name}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_status_that_cannot_be_read_keeps_its_snapshot_and_stops_nobody() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for name in ["old", "odd-size", "odd-time"] {
            cluster.older(name, "data").await;
        }
        cluster.patch_snapshot_status("odd-size", json!({"restoreSize": -5})).await;
        let odd = json!({"restoreSize": -5, "creationTime": "9999-12-31T23:59:59-14:00"});
        cluster.patch_snapshot_status("odd-time", odd).await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!(names[..2], ["odd-size", "odd-time"]);
        assert_eq!(names.len(), 3, "the other one is pruned: {names:?}");
        let warned = ran.lines("the status cannot be read");
        assert_eq!((warned.len(), &warned[0]["level"]), (1, &json!("WARN")), "{:?}", ran.log);
    })
    .await;
}

#[tokio::test]
async fn a_new_snapshot_whose_status_cannot_be_read_is_not_ready() {
    embedded_only(slow(millis(60)), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        cluster.fake().plan(|_| Some(Plan::never()));
        let namespace = cluster.namespace.clone();
        cluster.fake().after(asks("create", SNAPSHOTS), 1, move |others| {
            others.update(SNAPSHOTS, &namespace, &new_one(others, &namespace), |new| {
                new["status"] = json!({"readyToUse": true, "restoreSize": -5});
            });
        });
        let ran = cluster
            .run(&[
                ("SNAPSHOT_PVC_NAMES", "data"),
                ("SNAPSHOT_READY_ATTEMPTS", "1"),
                ("SNAPSHOT_READY_INTERVAL", "500ms"),
            ])
            .await;
        ran.assert_exit(1);
        assert!(ran.message.contains("its status cannot be read"), "{}", ran.message);
        assert!(cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_understood_is_no_passing_failure() {
    embedded_only(Options::default(), "no API server stores this", async |cluster| {
        put_claim(cluster, "data");
        let mut odd = objects::ready_snapshot(&cluster.namespace, "odd", "data", hours_ago(1));
        odd["metadata"]["ownerReferences"] = json!("nobody");
        cluster.fake().put(odd);
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("the answer cannot be understood"), "{}", ran.message);
        assert!(ran.took < millis(5000), "{:?}", ran.took);
    })
    .await;
}

#[tokio::test]
async fn snapshots_that_belong_to_groups_or_other_objects_are_nobodys_leftovers() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        let put = |name: &str, is_ready: bool, kind: &str| {
            let (namespace, time) = (cluster.namespace.as_str(), hours_ago(72));
            let mut snapshot = match is_ready {
                true => objects::ready_snapshot(namespace, name, "data", time),
                false => objects::unready_snapshot(namespace, name, "data", time),
            };
            snapshot["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "example.com/v1", "kind": kind, "name": "x", "uid": "0f"}]);
            cluster.fake().put(snapshot);
        };
        put("member-ready", true, "VolumeGroupSnapshot");
        put("member-unready", false, "VolumeGroupSnapshot");
        put("owned-ready", true, "Backup");
        put("owned-unready", false, "Backup");
        put_ready(cluster, "old", "data", 1);
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!(names[..4], ["member-ready", "member-unready", "owned-ready", "owned-unready"]);
        assert_eq!(names.len(), 5);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_another_object_owns_stays() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let owner = cluster
            .post(
                &format!("/api/v1/namespaces/{}/configmaps", cluster.namespace),
                &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "backup"}}),
            )
            .await;
        let owners = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "backup", "uid": owner["metadata"]["uid"],
            "controller": true,
        }]);
        cluster.patch_snapshot("old", json!({"metadata": {"ownerReferences": owners}})).await;
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert!(cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_storage_clock_that_runs_behind_does_not_make_the_newest_the_oldest() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        // By the storage's clock, which was set back between the second and the third, `b` is the oldest.
        for (name, made, taken) in [("d", 4, 4), ("c", 3, 3), ("b", 2, 12), ("a", 1, 11)] {
            let mut snapshot = objects::ready_snapshot(&cluster.namespace, name, "data", hours_ago(made));
            snapshot["status"]["creationTime"] = json!(hours_ago(taken).to_string());
            cluster.fake().put(snapshot);
        }
        cluster.fake().plan(|_| Some(Plan::ready_after(millis(20)).with_creation_time(hours_ago(10))));
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "last=3")]).await;
        ran.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!(names[..2], ["a", "b"]);
        assert_eq!(names.len(), 3);
        assert_eq!(ran.lines("a clock is wrong").len(), 1, "{:?}", ran.log);
        assert_eq!(ran.lines("2 snapshots, ").len(), 1, "{:?}", ran.log);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_dated_in_the_future_neither_goes_nor_takes_anothers_place() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        put_ready(cluster, "future", "data", -48);
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "last=2")]).await.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!(names[..2], ["future", "old"]);
        assert_eq!(names.len(), 3, "two count, and the future one besides");
    })
    .await;
}

/// The most memory that the process had, in kB, watched from outside until it ends.
fn peak_of(id: u32) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/status")) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let Some(line) = line else { break };
            peak = line.trim().trim_end_matches(" kB").parse().expect("a number");
            std::thread::sleep(millis(2));
        }
        peak
    })
}

/// Claims with as many annotations as an API server takes, all listed again before the deletions. The memory
/// of an implementation that reads pages of 500 grows with their number; `SNAPSHOTTER_TEST_CLAIMS` sets it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn large_annotations_on_many_claims_do_not_fill_the_memory() {
    embedded_only(
        Options::default(),
        "75 MB are much to store in a real API server",
        async |cluster: &TestCluster| {
            let claims = std::env::var("SNAPSHOTTER_TEST_CLAIMS").ok().and_then(|text| text.parse().ok());
            for number in 0..claims.unwrap_or(150) {
                let name = format!("data-{number}");
                let mut claim = objects::bound_claim(&cluster.namespace, &name, &[("app", "web")]);
                claim["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
                cluster.fake().put(objects::enlarged(claim, 250_000));
            }
            put_ready(cluster, "old", "data-7", 1);
            let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_SELECTOR", "app=web")]).await;
            let peak = peak_of(running.id());
            let ran = running.finish().await;
            ran.assert_exit(0);
            let peak = peak.join().expect("no panic");
            println!("{peak} kB at most");
            assert!(peak < 40_000, "{peak} kB");
            assert_eq!(ran.lines("deleted the older snapshot").len(), 1, "{}", ran.message);
        },
    )
    .await;
}
