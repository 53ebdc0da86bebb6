//! What a run does, seen from outside: claims, snapshots and settings in; snapshots, exit code,
//! log and termination message out.
//!
//! Scenarios that play [`everywhere`] also play on a real cluster if `SNAPSHOTTER_TEST_KUBECONFIG`
//! names one.

use std::time::Duration;

use fake_apiserver::{Options, Others, Plan, Request, objects};
use serde_json::{Value, json};

use volume_snapshotter::cluster::{NAMESPACE_PERMISSIONS, PERMISSIONS};

use crate::test_cluster::{
    Ran, TestCluster, all_permissions, embedded_only, everywhere, name_of, permissions_of_the_bash_script,
    permissions_without_watch, rules,
};
use crate::{
    daemons::skip,
    manifests::{Tree, on_the_base},
};

const NEEDS_SLOW_DRIVER: &str = "needs a snapshot controller whose speed and errors a test chooses";
const NEEDS_OTHER_HAND: &str = "needs somebody who acts at an exact moment of the run";

fn slow(ready_after: Duration) -> Options {
    let mut options = Options::default();
    options.controller.ready_after = ready_after;
    options
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The one snapshot that was not there before.
async fn new_snapshot(cluster: &TestCluster, before: &[String]) -> String {
    let names = cluster.names().await;
    let mut new: Vec<String> = names.into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new.len(), 1, "one new snapshot and no more: {new:?}");
    new.remove(0)
}

// --- Making and waiting ----------------------------------------------------------------------------

#[tokio::test]
async fn the_first_snapshot_of_a_claim_is_made_and_waited_for() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RUN_ID", "hourly-1")]).await;
        ran.assert_exit(0);

        let name = new_snapshot(cluster, &[]).await;
        let digits = name.strip_prefix("volume-snapshot-").expect("the prefix");
        assert!(digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{name}");
        let snapshot = cluster.snapshot(&name).await;
        assert_eq!(snapshot["status"]["readyToUse"], true);
        assert_eq!(snapshot["spec"]["source"]["persistentVolumeClaimName"], "data");
        assert_eq!(
            snapshot["metadata"]["labels"],
            json!({
                "job": "volume-snapshotter", "name": name, "volume-snapshotter/run": "hourly-1",
                "volume-snapshotter/run-uid": "uid-of-hourly-1",
                "app.kubernetes.io/managed-by": "volume-snapshotter",
            })
        );
        assert_eq!(ran.lines("the run begins")[0]["bound_s"], 390, "the longest that it can take is said");
        let ready = ran.lines("the snapshot is ready");
        assert_eq!(ready.len(), 1);
        assert_eq!(
            (&ready[0]["claim"], &ready[0]["snapshot"], &ready[0]["attempt"]),
            (&json!("data"), &json!(name), &json!(1))
        );
        assert!(ready[0]["duration_ms"].is_u64());
        assert!(ran.message.starts_with("1 of 1 claim has a new ready snapshot\n"), "{}", ran.message);
        assert!(ran.message.contains(&format!("data: {name} ready after ")), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn without_a_class_the_default_class_is_left_to_the_cluster() {
    embedded_only(Options::default(), "a real cluster need not have a default class", async |cluster| {
        cluster.claim("data").await;
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_CLASS_NAME", "")]).await.assert_exit(0);
        let name = new_snapshot(cluster, &[]).await;
        assert_eq!(cluster.snapshot(&name).await["spec"]["volumeSnapshotClassName"], "default");
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_is_not_ready_in_time_fails_the_claim_and_nothing_is_deleted() {
    embedded_only(Options::default(), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old-1", "data").await;
        cluster.older("old-2", "data").await;
        let before = cluster.names().await;
        cluster.fake().plan(|_| Some(Plan::never()));
        let ran = cluster
            .run(&[
                ("SNAPSHOT_PVC_NAMES", "data"),
                ("SNAPSHOT_READY_ATTEMPTS", "3"),
                ("SNAPSHOT_READY_INTERVAL", "200ms"),
            ])
            .await;
        ran.assert_exit(1);
        let new = new_snapshot(cluster, &before).await;
        assert_eq!(cluster.names().await.len(), 3, "nothing is deleted");
        for attempt in 1..=3 {
            let lines = ran.lines(&format!("not ready yet (attempt {attempt} of 3)"));
            assert_eq!(lines.len(), 1);
            assert_eq!((&lines[0]["attempt"], &lines[0]["snapshot"]), (&json!(attempt), &json!(new)));
        }
        assert!(ran.message.contains("was not ready within 0.60 s (3 × 0.20 s)"), "{}", ran.message);
        assert!(ran.took < millis(3000), "{:?}", ran.took);
        let deletions =
            cluster.fake().requests().into_iter().filter(|request| request.method == "DELETE").count();
        assert_eq!(deletions, 0);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_is_ready_only_in_the_last_window_is_in_time() {
    embedded_only(slow(millis(1300)), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        let ran = cluster
            .run(&[
                ("SNAPSHOT_PVC_NAMES", "data"),
                ("SNAPSHOT_READY_ATTEMPTS", "3"),
                ("SNAPSHOT_READY_INTERVAL", "500ms"),
            ])
            .await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("the snapshot is ready")[0]["attempt"], 3);
        assert_eq!(ran.lines("not ready yet").len(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_error_of_the_controller_is_reported_once_and_is_no_verdict() {
    embedded_only(Options::default(), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.fake().plan(|_| {
            let plan = Plan::ready_after(millis(600)).with_error(millis(100), "rpc error: busy");
            Some(plan.with_error(millis(300), "rpc error: busy").keeping_error())
        });
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(0);
        let reported = ran.lines("the snapshot controller reports an error");
        assert_eq!(reported.len(), 1, "{:?}", ran.log);
        assert_eq!(
            (&reported[0]["error"], &reported[0]["level"]),
            (&json!("rpc error: busy"), &json!("WARN"))
        );
        let name = new_snapshot(cluster, &[]).await;
        assert_eq!(cluster.snapshot(&name).await["status"]["error"]["message"], "rpc error: busy");
    })
    .await;
}

#[tokio::test]
async fn what_the_controller_last_reported_is_the_reason_when_the_time_runs_out() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let ran = cluster
            .run(&[
                ("SNAPSHOT_PVC_NAMES", "data"),
                ("SNAPSHOT_CLASS_NAME", "no-such-class"),
                ("SNAPSHOT_READY_ATTEMPTS", "2"),
                ("SNAPSHOT_READY_INTERVAL", "4s"),
            ])
            .await;
        ran.assert_exit(1);
        assert!(
            ran.message.contains("volumesnapshotclass.snapshot.storage.k8s.io \"no-such-class\" not found"),
            "{}",
            ran.message
        );
        assert!(cluster.names().await.contains(&"old".to_owned()), "nothing is deleted");
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_somebody_deletes_while_it_is_waited_for_fails_the_claim_at_once() {
    embedded_only(slow(Duration::from_secs(60)), NEEDS_OTHER_HAND, async |cluster| {
        cluster.claim("data").await;
        let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        cluster.until("there is a snapshot", async || !cluster.names().await.is_empty()).await;
        cluster.delete_snapshot(&cluster.names().await[0]).await;
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("somebody deleted snapshot"), "{}", ran.message);
        assert!(ran.took < millis(3000), "{:?}", ran.took);
    })
    .await;
}

#[tokio::test]
async fn the_next_attempt_of_a_job_takes_the_snapshot_over_and_makes_no_second_one() {
    embedded_only(slow(millis(1500)), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        let settings = [
            ("SNAPSHOT_PVC_NAMES", "data"),
            ("SNAPSHOT_RUN_ID", "hourly-7"),
            ("SNAPSHOT_READY_ATTEMPTS", "1"),
        ];
        let impatient = [settings.as_slice(), &[("SNAPSHOT_READY_INTERVAL", "300ms")]].concat();
        cluster.run(&impatient).await.assert_exit(1);
        let name = new_snapshot(cluster, &[]).await;

        let again = cluster.run(&settings).await;
        again.assert_exit(0);
        assert_eq!(cluster.names().await, [name.as_str()]);
        assert_eq!(again.lines("going on with the snapshot")[0]["snapshot"], name);
        assert!(
            again.message.contains(&format!("data: {name} ready (created by an earlier attempt)")),
            "{}",
            again.message
        );

        // Another Job makes its own.
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RUN_ID", "hourly-8")]).await.assert_exit(0);
        assert!(!cluster.names().await.contains(&name), "the older one is pruned");
    })
    .await;
}

// --- Claims ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_claim_that_is_missing_fails_at_once_and_nothing_is_made() {
    everywhere(async |cluster| {
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "no-such-claim")]).await;
        ran.assert_exit(2);
        assert!(
            ran.message.contains("there is no claim no-such-claim in namespace vs-test-"),
            "{}",
            ran.message
        );
        assert!(cluster.names().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_pending_fails_and_holds_up_no_other() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.pending_claim("waiting").await;
        cluster.older("old", "data").await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "waiting,data")]).await;
        ran.assert_exit(1);
        assert!(
            ran.message
                .starts_with("1 of 2 claims has a new ready snapshot\nwaiting: claim waiting in namespace"),
            "{}",
            ran.message
        );
        assert!(ran.message.contains("is Pending"), "{}", ran.message);
        let name = new_snapshot(cluster, &[]).await;
        assert_ne!(name, "old", "the other claim has a new one, and its old one is pruned");
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_named_twice_is_snapshotted_once() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data, data")]).await.assert_exit(0);
        new_snapshot(cluster, &[]).await;
    })
    .await;
}

#[tokio::test]
async fn claims_are_chosen_by_label() {
    everywhere(async |cluster| {
        cluster.labelled_claim("one", json!({"app": "web"})).await;
        cluster.labelled_claim("two", json!({"app": "db"})).await;
        cluster.labelled_claim("three", json!({"app": "web", "backup": "no"})).await;
        cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "app in (web, db),backup!=no")]).await.assert_exit(0);
        let snapshots = cluster.snapshots().await;
        let mut claims: Vec<_> =
            snapshots.iter().map(|one| one["spec"]["source"]["persistentVolumeClaimName"].as_str()).collect();
        claims.sort();
        assert_eq!(claims, [Some("one"), Some("two")]);
    })
    .await;
}

#[tokio::test]
async fn a_selector_that_matches_nothing_or_means_nothing_is_a_failure() {
    everywhere(async |cluster| {
        let ran = cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "app=web")]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("matches \"app=web\"; check SNAPSHOT_PVC_SELECTOR"), "{}", ran.message);
        let ran = cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "a===b")]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("found '=', expected: identifier"), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn a_thousand_claims_wait_side_by_side_within_the_bound_on_requests() {
    const CLAIMS: usize = 1200;
    let options = Options { latency: millis(2), ..slow(Duration::from_secs(3)) };
    embedded_only(options, "1,200 claims are too much to ask of a real driver", async |cluster| {
        for number in 0..CLAIMS {
            let name = format!("data-{number}");
            cluster.fake().put(objects::bound_claim(&cluster.namespace, &name, &[("app", "web")]));
        }
        let settings = [("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_CONCURRENCY", "5")];
        let running = cluster.start(&all_permissions(), &settings).await;
        cluster.fake().clear_requests();
        let ran = running.finish().await;
        ran.assert_exit(0);
        assert!(
            ran.message.starts_with("1200 of 1200 claims have a new ready snapshot\n"),
            "{}",
            ran.message
        );
        assert!(
            ran.message.len() <= 4096 && ran.message.contains("more claims: see the log"),
            "{}",
            ran.message
        );

        let requests = cluster.fake().requests();
        let verbs = |verb: &str, resource: &str| {
            requests.iter().filter(|request| request.verb == verb && request.resource == resource).count()
        };
        assert_eq!(verbs("list", "persistentvolumeclaims"), 2 * 3, "three pages before and after");
        assert_eq!(verbs("list", "volumesnapshots"), 1);
        assert_eq!(verbs("watch", "volumesnapshots"), 1, "one watch, however many claims");
        assert_eq!(verbs("create", "volumesnapshots"), CLAIMS);
        assert_eq!(requests.len(), 2 * 3 + 1 + 1 + CLAIMS);
        let most = cluster.fake().most_in_flight();
        assert!((2..=5).contains(&most), "{most} requests in flight");
        // One after the other they would take an hour; side by side, the making and one wait.
        assert!(ran.took < Duration::from_secs(25), "{:?}", ran.took);
        let names: std::collections::HashSet<String> = cluster.names().await.into_iter().collect();
        assert_eq!(names.len(), CLAIMS);
    })
    .await;
}

#[tokio::test]
async fn all_namespaces_that_match_are_snapshotted_and_none_holds_up_another() {
    everywhere(async |cluster| {
        let mark = |mark: &str| json!({"snapshots": mark});
        let shop = cluster.another_namespace("shop", mark(&cluster.namespace)).await;
        let blog = cluster.another_namespace("blog", mark(&cluster.namespace)).await;
        let other = cluster.another_namespace("other", json!({})).await;
        for namespace in [&shop, &blog, &other] {
            namespace.claim("data").await;
            namespace.older("old", "data").await;
        }
        blog.pending_claim("logs").await;
        shop.claim("logs").await;
        let permissions = [PERMISSIONS, NAMESPACE_PERMISSIONS].concat();
        cluster.grant_everywhere(&rules(&permissions)).await;
        let selector = format!("snapshots={}", cluster.namespace);
        let settings =
            [("SNAPSHOT_NAMESPACE_SELECTOR", selector.as_str()), ("SNAPSHOT_PVC_NAMES", "data,logs")];
        let ran = cluster.run_with_permissions(&json!([]), &settings).await;
        ran.assert_exit(1);
        assert!(ran.message.starts_with("3 of 4 claims have a new ready snapshot\n"), "{}", ran.message);
        assert!(
            ran.message.contains(&format!("{}/logs: claim logs in namespace", blog.namespace)),
            "{}",
            ran.message
        );
        for (namespace, new) in [(&shop, 2), (&blog, 1)] {
            let names = namespace.names().await;
            assert_eq!(names.len(), new, "{names:?}");
            assert!(names.iter().all(|name| name.starts_with("volume-snapshot-")), "{names:?}");
        }
        assert_eq!(other.names().await, ["old"]);
        // By label as well, claims of other namespaces are not taken.
        let settings =
            [("SNAPSHOT_NAMESPACE_SELECTOR", selector.as_str()), ("SNAPSHOT_PVC_SELECTOR", "!no-such-label")];
        let ran = cluster.run_with_permissions(&json!([]), &settings).await;
        ran.assert_exit(0);
        assert!(ran.message.contains("1 claim was skipped"), "{}", ran.message);
        assert_eq!(other.names().await, ["old"]);
        if std::env::var_os("SNAPSHOTTER_TEST_KUBECONFIG").is_none() {
            let requests = cluster.fake().requests();
            let asked = |verb: &str, resource: &str| {
                let ours = |request: &&fake_apiserver::Request| request.user.contains("serviceaccount");
                requests.iter().filter(ours).filter(|request| request.is(verb, resource)).count()
            };
            assert_eq!(
                (asked("list", "volumesnapshots"), asked("watch", "volumesnapshots")),
                (2, 2),
                "once a run"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_namespace_selector_without_the_right_or_without_a_match_is_a_failure() {
    everywhere(async |cluster| {
        let settings = [("SNAPSHOT_NAMESPACE_SELECTOR", "no-such-label=x"), ("SNAPSHOT_PVC_NAMES", "data")];
        let ran = cluster.run(&settings).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("resources: [\"namespaces\"], verbs: [\"list\"]"), "{}", ran.message);
        cluster.grant_everywhere(&rules(NAMESPACE_PERMISSIONS)).await;
        if std::env::var_os("SNAPSHOTTER_TEST_KUBECONFIG").is_some() {
            tokio::time::sleep(millis(1000)).await;
        }
        let ran = cluster.run(&settings).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("no namespace matches \"no-such-label=x\""), "{}", ran.message);
    })
    .await;
}

// --- Pruning ---------------------------------------------------------------------------------------

#[tokio::test]
async fn older_snapshots_of_the_claim_are_pruned_once_the_new_one_is_ready() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old-1", "data").await;
        cluster.older("old-2", "data").await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(0);
        let name = new_snapshot(cluster, &[]).await;
        assert!(name.starts_with("volume-snapshot-"), "only the new one is left");
        assert!(ran.message.contains("2 older snapshots deleted, 0 kept"), "{}", ran.message);
        assert_eq!(ran.lines("deleted the older snapshot").len(), 2);
    })
    .await;
}

#[tokio::test]
async fn retention_keeps_as_many_as_it_says() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for name in ["old-1", "old-2", "old-3"] {
            cluster.older(name, "data").await;
            // The API server dates in whole seconds.
            tokio::time::sleep(millis(1100)).await;
        }
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "last=3")]).await;
        ran.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!(names[..2], ["old-2", "old-3"]);
        assert_eq!(names.len(), 3);

        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "all")]).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn the_rules_with_a_window_and_without_a_number_hold_by_setting_and_by_annotation() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for name in ["old-1", "old-2", "old-3"] {
            cluster.older(name, "data").await;
            tokio::time::sleep(millis(1100)).await;
        }
        // All are of this year: its newest stays, and the oldest of all.
        let yearly = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "within-yearly=1d1y2mo")];
        cluster.run(&yearly).await.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!((names.len(), names[0].as_str()), (2, "old-1"));

        // The oldest is too old for the window.
        tokio::time::sleep(millis(1100)).await;
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "within-daily=1s"})).await;
        cluster.run(&yearly).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 1);
        tokio::time::sleep(millis(1100)).await;
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "yearly=all"})).await;
        cluster.run(&yearly).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 2);

        // What restic would take for months keeps all, and says so.
        tokio::time::sleep(millis(1100)).await;
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "within-daily=2m2h"})).await;
        let ran = cluster.run(&yearly).await;
        ran.assert_exit(3);
        assert!(ran.message.contains("may be minutes or months; write min or mo"), "{}", ran.message);
        assert!(ran.message.contains("within-hourly=DURATION to within-yearly=DURATION"), "{}", ran.message);
        assert_eq!(cluster.names().await.len(), 3);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_touched_that_is_not_this_schedules_to_prune() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.claim("other").await;
        let owned = |name: &str| json!({"job": "volume-snapshotter", "name": name});
        let mut held = owned("held");
        held["volume-snapshotter/hold"] = json!("before-upgrade");
        let mut released = owned("released");
        released["volume-snapshotter/hold"] = json!("false");

        cluster.older("other-claim", "other").await;
        cluster
            .older_labelled("other-schedule", "data", json!({"job": "weekly", "name": "other-schedule"}))
            .await;
        cluster.older_labelled("by-hand", "data", json!({})).await;
        cluster.older_labelled("held", "data", held).await;
        cluster.older_labelled("released", "data", released).await;
        for name in ["future", "member", "terminating", "ordinary"] {
            cluster.older(name, "data").await;
        }
        cluster.patch_snapshot_status("future", json!({"creationTime": "2099-01-01T00:00:00Z"})).await;
        cluster.patch_snapshot_status("member", json!({"volumeGroupSnapshotName": "group"})).await;
        cluster.delete_but_keep("terminating").await;

        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(0);
        let mut names = cluster.names().await;
        names.retain(|name| !name.starts_with("volume-snapshot-"));
        assert_eq!(names, ["by-hand", "future", "held", "member", "other-claim", "other-schedule"]);
        assert_eq!(name_of(&cluster.snapshot("terminating").await), "terminating", "its finalizer keeps it");
        assert!(ran.message.contains("2 older snapshots deleted, 3 kept"), "{}", ran.message);
        // A snapshot controller with groups would not let the namespace's deletion have it.
        cluster.patch_snapshot_status("member", json!({"volumeGroupSnapshotName": null})).await;
        if std::env::var_os("SNAPSHOTTER_TEST_KUBECONFIG").is_none() {
            let requests = cluster.fake().requests();
            let mut deleted: Vec<&str> = requests
                .iter()
                .filter(|request| request.method == "DELETE" && request.user.contains("serviceaccount"))
                .map(|request| request.name.as_str())
                .collect();
            deleted.sort();
            assert_eq!(deleted, ["ordinary", "released"], "nobody else's deletion is even tried");
        }
    })
    .await;
}

#[tokio::test]
async fn leftovers_go_and_what_another_run_may_wait_for_stays() {
    embedded_only(Options::default(), "needs snapshots that were made long ago", async |cluster| {
        cluster.claim("data").await;
        cluster.fake().update("persistentvolumeclaims", &cluster.namespace, "data", |claim| {
            claim["metadata"]["creationTimestamp"] = json!("2019-01-01T00:00:00Z");
        });
        cluster.fake().put(objects::unready_snapshot(
            &cluster.namespace,
            "stuck-long-ago",
            "data",
            "2020-01-01T00:00:00Z",
        ));
        cluster.fake().plan(|snapshot| name_of(snapshot).starts_with("stuck").then(Plan::never));
        cluster.new_snapshot("stuck-just-now", "data", json!({"job": "volume-snapshotter"})).await;
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!(names.len(), 2);
        assert_eq!(names[0], "stuck-just-now");
    })
    .await;
}

#[tokio::test]
async fn snapshots_of_a_previous_claim_of_the_same_name_stay() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("the-only-copy", "data").await;
        cluster.delete_claim("data").await;
        // The API server dates in whole seconds.
        tokio::time::sleep(millis(1100)).await;
        cluster.claim("data").await;
        for _ in 0..2 {
            let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
            ran.assert_exit(0);
            assert_eq!(ran.lines("1 snapshot of a previous claim of this name").len(), 1);
        }
        let names = cluster.names().await;
        assert!(names.len() == 2 && names.contains(&"the-only-copy".to_owned()), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn a_claims_annotation_holds_for_it_alone() {
    everywhere(async |cluster| {
        for claim in ["plain", "kept", "switched"] {
            cluster.claim(claim).await;
            cluster.older(&format!("{claim}-old"), claim).await;
        }
        cluster
            .annotate_claim(
                "kept",
                json!({"volume-snapshotter/retention": "last=2", "backup.kubernetes.io/deltas": "oops"}),
            )
            .await;
        cluster.annotate_claim("switched", json!({"backup.kubernetes.io/deltas": "PT1S P7D"})).await;
        // Of several at one instant `deltas` keeps one, and the API server dates in whole seconds.
        tokio::time::sleep(millis(1100)).await;
        cluster
            .run(&[("SNAPSHOT_PVC_NAMES", "plain,kept,switched"), ("SNAPSHOT_RETENTION", "last=1")])
            .await
            .assert_exit(0);
        let mut names = cluster.names().await;
        names.retain(|name| name.ends_with("-old"));
        assert_eq!(names, ["kept-old", "switched-old"]);
    })
    .await;
}

#[tokio::test]
async fn an_annotation_that_is_not_understood_keeps_everything_of_its_claim() {
    everywhere(async |cluster| {
        for claim in ["plain", "misspelt"] {
            cluster.claim(claim).await;
            cluster.older(&format!("{claim}-old"), claim).await;
        }
        cluster.annotate_claim("misspelt", json!({"volume-snapshotter/retention": "dayly=7"})).await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "plain,misspelt")]).await;
        ran.assert_exit(3);
        let names = cluster.names().await;
        assert_eq!(names.len(), 3, "both have a new one: {names:?}");
        assert!(names.contains(&"misspelt-old".to_owned()));
        let said = "nothing older is deleted: the annotation volume-snapshotter/retention of claim misspelt is invalid: \
                    there is no such rule (at character 1: \"dayly=7\")";
        assert!(ran.message.contains(said), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn two_runs_at_the_same_moment_leave_the_claim_a_ready_snapshot() {
    let options = Options { latency: millis(3), ..slow(millis(50)) };
    embedded_only(options, NEEDS_OTHER_HAND, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        for round in 0..8 {
            let first = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
            let second = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
            for ran in [first.finish().await, second.finish().await] {
                // Where a second begins between them, one is older than the other, and may be pruned
                // by it while it prunes itself.
                assert!([0, 1].contains(&ran.code), "round {round}: {}", ran.message);
            }
            let ready = cluster.snapshots().await.into_iter().filter(|snapshot| {
                snapshot["status"]["readyToUse"] == true
                    && snapshot["metadata"]["deletionTimestamp"].is_null()
            });
            assert!(ready.count() > 0, "round {round}: none is left");
        }
        assert!(!cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_run_can_hold_what_it_makes_and_no_schedule_prunes_it() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_HOLD", "true")]).await.assert_exit(0);
        let held = new_snapshot(cluster, &[]).await;
        assert_eq!(cluster.snapshot(&held).await["metadata"]["labels"]["volume-snapshotter/hold"], "true");
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        let names = cluster.names().await;
        assert!(names.len() == 2 && names.contains(&held), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn two_schedules_on_one_claim_prune_each_their_own() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        let hourly =
            [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_JOB", "hourly"), ("SNAPSHOT_NAME_PREFIX", "hourly")];
        let weekly =
            [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_JOB", "weekly"), ("SNAPSHOT_NAME_PREFIX", "weekly")];
        for _ in 0..2 {
            let first = cluster.start(&all_permissions(), &hourly).await;
            let second = cluster.start(&all_permissions(), &weekly).await;
            first.finish().await.assert_exit(0);
            second.finish().await.assert_exit(0);
        }
        let names = cluster.names().await;
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].starts_with("hourly-") && names[1].starts_with("weekly-"), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do_and_changes_nothing() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster
            .older_labelled(
                "held",
                "data",
                json!({"job": "volume-snapshotter", "volume-snapshotter/hold": ""}),
            )
            .await;
        // The snapshot controller may still have something to note.
        let essence = async || -> Vec<Value> {
            let snapshots = cluster.snapshots().await;
            let essence = |one: &Value| {
                let metadata = &one["metadata"];
                json!([
                    metadata["name"],
                    metadata["uid"],
                    metadata["labels"],
                    metadata["deletionTimestamp"],
                    one["spec"]
                ])
            };
            snapshots.iter().map(essence).collect()
        };
        let before = essence().await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_DRY_RUN", "true")]).await;
        ran.assert_exit(0);
        assert_eq!(essence().await, before);
        let decisions: Vec<(&Value, &Value)> = ran
            .log
            .iter()
            .filter(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|said| said.starts_with("goes:") || said.starts_with("stays:"))
            })
            .map(|line| (&line["snapshot"], &line["message"]))
            .collect();
        assert_eq!(decisions.len(), 2, "{decisions:?}");
        assert!(decisions.contains(&(&json!("old"), &json!("goes: no rule keeps it"))), "{decisions:?}");
        assert!(decisions.contains(&(&json!("held"), &json!("stays: held"))), "{decisions:?}");
        assert!(
            ran.message.starts_with("dry run: nothing was changed; 1 of 1 claim could be snapshotted\n"),
            "{}",
            ran.message
        );
        assert!(
            ran.message.contains("data: would create a snapshot, delete 1 older one and keep 1"),
            "{}",
            ran.message
        );
    })
    .await;
}

// --- Deleting the wrong one ------------------------------------------------------------------------

/// A run that is about to delete `old`, with somebody who changes it just before that is carried out.
async fn behind_its_back(cluster: &TestCluster, change: impl FnOnce(&Others, &str) + Send + 'static) -> Ran {
    cluster.claim("data").await;
    cluster.older("old", "data").await;
    let namespace = cluster.namespace.clone();
    let is_deletion = |request: &Request| request.is("delete", "volumesnapshots") && request.name == "old";
    cluster.fake().before(is_deletion, 1, move |others| change(others, &namespace));
    cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("RUST_LOG", "debug")]).await
}

#[tokio::test]
async fn a_snapshot_that_is_held_in_the_last_moment_stays() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        let ran = behind_its_back(cluster, |others, namespace| {
            others.label("volumesnapshots", namespace, "old", "volume-snapshotter/hold", Some("true"));
        })
        .await;
        ran.assert_exit(0);
        assert_eq!(cluster.names().await[0], "old");
        assert_eq!(ran.lines("stays: held").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_changes_without_consequence_is_judged_again_and_goes() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        let ran = behind_its_back(cluster, |others, namespace| {
            others.label("volumesnapshots", namespace, "old", "note", Some("hello"));
        })
        .await;
        ran.assert_exit(0);
        assert!(!cluster.names().await.contains(&"old".to_owned()));
        assert_eq!(ran.lines("judging again").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn another_snapshot_under_the_same_name_is_not_deleted_in_its_place() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        let ran = behind_its_back(cluster, |others, namespace| {
            let mut other = others.remove("volumesnapshots", namespace, "old").expect("a snapshot");
            let metadata = other["metadata"].as_object_mut().expect("metadata");
            metadata.remove("uid");
            metadata.remove("resourceVersion");
            others.put(other);
        })
        .await;
        ran.assert_exit(0);
        assert!(cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_changes_hands_is_not_deleted() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        let ran = behind_its_back(cluster, |others, namespace| {
            others.label("volumesnapshots", namespace, "old", "job", Some("weekly"));
        })
        .await;
        ran.assert_exit(0);
        assert!(cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

// --- Rights ----------------------------------------------------------------------------------------

#[tokio::test]
async fn the_role_of_the_bash_script_is_enough_to_make_snapshots_and_deletes_none() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let ran = cluster
            .run_with_permissions(&permissions_of_the_bash_script(), &[("SNAPSHOT_PVC_NAMES", "data")])
            .await;
        ran.assert_exit(3);
        let lines = "apiGroups: [\"\"], resources: [\"persistentvolumeclaims\"], verbs: [\"get\", \"list\"]";
        assert!(ran.message.contains(lines), "{}", ran.message);
        assert_eq!(cluster.names().await.len(), 2, "nothing is deleted");
        // As the script did it, for those who say so.
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_PRUNE_UNREAD_CLAIMS", "true")];
        let ran = cluster.run_with_permissions(&permissions_of_the_bash_script(), &settings).await;
        ran.assert_exit(0);
        assert_ne!(new_snapshot(cluster, &[]).await, "old");
    })
    .await;
}

#[tokio::test]
async fn without_the_right_to_watch_snapshots_are_read() {
    embedded_only(slow(Duration::from_secs(13)), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.fake().plan(|snapshot| (name_of(snapshot) == "old").then(|| Plan::ready_after(millis(1))));
        cluster.older("old", "data").await;
        let ran = cluster
            .run_with_permissions(&permissions_without_watch(), &[("SNAPSHOT_PVC_NAMES", "data")])
            .await;
        ran.assert_exit(0);
        assert_ne!(new_snapshot(cluster, &[]).await, "old");
        let unwatched = ran.lines("reading again and again instead of watching");
        assert_eq!(unwatched.len(), 1);
        assert!(unwatched[0]["message"].as_str().is_some_and(|said| said.contains("verbs: [\"watch\"]")));
    })
    .await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_with_the_line_to_add_to_the_role() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        let ran = cluster.run_with_permissions(&json!([]), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("cannot list resource \"volumesnapshots\""), "{}", ran.message);
        assert!(ran.message.contains(":volume-snapshotter\""), "the ServiceAccount is named: {}", ran.message);
        assert!(
            ran.message.contains("apiGroups: [\"snapshot.storage.k8s.io\"], resources: [\"volumesnapshots\"], verbs: [\"list\"]"),
            "{}",
            ran.message
        );
    })
    .await;
}

#[tokio::test]
async fn without_the_right_to_delete_the_snapshots_are_made_and_the_run_says_what_is_left() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let permissions: Value = all_permissions()
            .as_array()
            .into_iter()
            .flatten()
            .filter(|rule| rule["verbs"][0] != "delete")
            .cloned()
            .collect();
        let ran = cluster.run_with_permissions(&permissions, &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(3);
        assert_eq!(cluster.names().await.len(), 2);
        assert!(
            ran.message
                .contains("1 older snapshot that had to go could not be deleted: cannot delete snapshot old"),
            "{}",
            ran.message
        );
    })
    .await;
}

// --- The process -----------------------------------------------------------------------------------

#[tokio::test]
async fn settings_that_cannot_be_understood_stop_the_run_before_anything_is_changed() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTON", "last=24")]).await;
        ran.assert_exit(2);
        assert!(
            ran.message
                .contains("SNAPSHOT_RETENTON: there is no such setting; the nearest is SNAPSHOT_RETENTION"),
            "{}",
            ran.message
        );
        assert_eq!(cluster.names().await, ["old"]);
    })
    .await;
}

#[tokio::test]
async fn sigterm_ends_the_run_within_a_second_and_says_what_is_left() {
    embedded_only(slow(Duration::from_secs(60)), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        cluster.until("there is a snapshot", async || !cluster.names().await.is_empty()).await;
        tokio::time::sleep(millis(200)).await;
        let told = std::time::Instant::now();
        running.signal("TERM");
        let ran = running.finish().await;
        assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
        ran.assert_exit(143);
        let name = new_snapshot(cluster, &[]).await;
        assert_eq!(
            ran.message,
            format!(
                "0 of 1 claim has a new ready snapshot; a signal stopped the run\n\
                 data: stopped before {name} was ready; the Job's next attempt continues with it\n"
            )
        );
    })
    .await;
}

#[tokio::test]
async fn a_cluster_without_the_snapshot_api_is_named_as_such() {
    let options = Options { snapshot_api: false, ..Options::default() };
    embedded_only(options, "a cluster without the CRDs is needed", async |cluster| {
        cluster.claim("data").await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("install the snapshot CRDs"), "{}", ran.message);
    })
    .await;
}

/// What a run asked for, and of what.
fn asked(cluster: &TestCluster) -> Vec<String> {
    let requests = cluster.fake().requests();
    requests.iter().map(|request| format!("{} {}", request.verb, request.resource)).collect()
}

#[tokio::test]
async fn one_claim_with_nothing_to_delete_costs_four_requests() {
    embedded_only(Options::default(), "a real API server keeps no log for tests", async |cluster| {
        cluster.claim("data").await;
        let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        cluster.fake().clear_requests();
        running.finish().await.assert_exit(0);
        let mut asked = asked(cluster);
        println!("{}", asked.join("\n"));
        asked.sort();
        assert_eq!(
            asked,
            [
                "create volumesnapshots",
                "get persistentvolumeclaims",
                "list volumesnapshots",
                "watch volumesnapshots"
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn one_claim_with_one_old_snapshot_costs_six_requests() {
    embedded_only(Options::default(), "a real API server keeps no log for tests", async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        cluster.fake().clear_requests();
        running.finish().await.assert_exit(0);
        let mut asked = asked(cluster);
        println!("{}", asked.join("\n"));
        assert_eq!(
            asked[asked.len() - 2..],
            ["list persistentvolumeclaims", "delete volumesnapshots"],
            "it looks again, and then it deletes"
        );
        asked.sort();
        assert_eq!(
            asked,
            [
                "create volumesnapshots",
                "delete volumesnapshots",
                "get persistentvolumeclaims",
                "list persistentvolumeclaims",
                "list volumesnapshots",
                "watch volumesnapshots",
            ]
        );
        let deletion = cluster.fake().requests().into_iter().find(|request| request.verb == "delete");
        let preconditions =
            deletion.and_then(|request| request.body).expect("a body")["preconditions"].take();
        assert!(preconditions["uid"].is_string() && preconditions["resourceVersion"].is_string());
    })
    .await;
}

// --- Disks that Kubernetes did not make ------------------------------------------------------------

/// The volume and the claim of the component, for a disk of this driver and with a name that no other scenario has.
fn outside_disk(namespace: &str, csi: &Value) -> Option<(Value, Value)> {
    let rendered = Tree::new("outside-disk").render("outside-disk", &on_the_base(&["outside-disk"]))?;
    let of = |kind: &str| {
        let found = rendered.documents.iter().find(|document| document["kind"] == kind);
        found.unwrap_or_else(|| panic!("the component has a {kind}")).clone()
    };
    let (mut volume, mut claim) = (of("PersistentVolume"), of("PersistentVolumeClaim"));
    let name = format!("{namespace}-disk");
    volume["metadata"]["name"] = json!(name);
    volume["spec"]["claimRef"]["namespace"] = json!(namespace);
    volume["spec"]["csi"]["driver"] = csi["driver"].clone();
    volume["spec"]["csi"]["volumeHandle"] = csi["volumeHandle"].clone();
    assert!(!volume.to_string().contains('%'), "nothing more is to be filled in: {volume}");
    claim["spec"]["volumeName"] = json!(name);
    Some((volume, claim))
}

#[tokio::test]
async fn a_disk_that_kubernetes_did_not_make_is_snapshotted_and_pruned_like_any_other_and_survives_its_claim()
{
    everywhere(async |cluster| {
        const VOLUMES: &str = "/api/v1/persistentvolumes";
        // A disk of which the cluster knows nothing any more.
        cluster.claim("data").await;
        let made = cluster.try_claim("data").await.expect("the claim")["spec"]["volumeName"].clone();
        let made = format!("{VOLUMES}/{}", made.as_str().expect("a bound claim names its volume"));
        let csi = cluster.read(&made).await["spec"]["csi"].clone();
        cluster.patch(&made, &json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})).await;
        cluster.delete_claim("data").await;
        cluster.delete_outside(&made).await;

        let Some((volume, claim)) = outside_disk(&cluster.namespace, &csi) else {
            return skip("no outside disk is snapshotted: neither kubectl nor kustomize is installed");
        };
        let path = format!("{VOLUMES}/{}", name_of(&volume));
        cluster.post_outside(VOLUMES, name_of(&volume), &volume).await;
        cluster.post(&cluster.claims_path(), &claim).await;
        let bound = async || {
            cluster.try_claim("outside-disk").await.is_some_and(|claim| claim["status"]["phase"] == "Bound")
        };
        cluster.until("the claim is bound", bound).await;
        let volume = cluster.read(&path).await;
        assert_eq!(volume["spec"]["claimRef"]["name"], "outside-disk");

        let settings = [("SNAPSHOT_PVC_NAMES", "outside-disk")];
        cluster.run(&settings).await.assert_exit(0);
        let first = cluster.names().await;
        cluster.run(&settings).await.assert_exit(0);
        let second = new_snapshot(cluster, &[]).await;
        assert_ne!(first, [second.as_str()], "the older one is pruned");
        let taken = cluster.snapshot(&second).await;
        assert_eq!(taken["spec"]["source"]["persistentVolumeClaimName"], "outside-disk");

        // Neither the disk nor its snapshots are lost with the claim.
        cluster.delete_claim("outside-disk").await;
        let released = async || cluster.read(&path).await["status"]["phase"] == "Released";
        cluster.until("the volume is released and not deleted", released).await;
        assert_eq!(cluster.names().await, [second]);
        // On a real cluster the disk is no longer needed: its driver may delete it.
        let whose = json!({"pv.kubernetes.io/provisioned-by": csi["driver"]});
        let policy = json!({"persistentVolumeReclaimPolicy": "Delete"});
        cluster.patch(&path, &json!({"metadata": {"annotations": whose}, "spec": policy})).await;
    })
    .await;
}
