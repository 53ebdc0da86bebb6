//! Jobs whose names are used again, snapshots that only look like an attempt's, quotas that are full, leftovers
//! of others, admission that changes what was asked for.

use fake_apiserver::{Fault, Options, Plan, Request, WatchFault, When, objects};
use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};

use super::{
    CLAIMS, NEEDS_OTHER_HAND, NEEDS_PAST, SNAPSHOTS, asked, asks, assert_no_last_copy_was_deleted,
    is_embedded, millis,
};
use crate::{
    faults::{put_claim, put_ready},
    test_cluster::{Ran, TestCluster, embedded_only, everywhere, name_of},
};

/// A time some minutes ago, in whole seconds.
fn minutes_ago(minutes: i64) -> Timestamp {
    let time = Timestamp::now() - SignedDuration::from_mins(minutes);
    time.round(Unit::Second).expect("a time")
}

async fn run_as(cluster: &TestCluster, id: &str, uid: &str) -> Ran {
    cluster
        .run(&[
            ("SNAPSHOT_PVC_NAMES", "data"),
            ("SNAPSHOT_RETENTION", "last=5"),
            ("SNAPSHOT_RUN_ID", id),
            ("SNAPSHOT_RUN_UID", uid),
        ])
        .await
}

// --- Jobs ------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_job_whose_name_is_used_again_makes_its_own_snapshot() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        run_as(cluster, "backup", "0a").await.assert_exit(0);
        let again = run_as(cluster, "backup", "0b").await;
        again.assert_exit(0);
        assert_eq!(again.lines("made the snapshot").len(), 1);
        assert_eq!(cluster.names().await.len(), 2);
        // The same Job's next attempt makes none.
        run_as(cluster, "backup", "0b").await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_only_has_the_jobs_name_on_it_is_not_taken_over() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        // As a tenant may plant it, who can tell what the next hour's Job will be called.
        let labels = json!({
            "job": "volume-snapshotter", "name": "planted", "volume-snapshotter/run": "hourly-29384750",
            "app.kubernetes.io/managed-by": "volume-snapshotter",
        });
        cluster.older_labelled("planted", "data", labels).await;
        let ran = run_as(cluster, "hourly-29384750", "0c").await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("made the snapshot").len(), 1);
        assert_eq!(cluster.names().await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn without_a_jobs_uid_nothing_is_taken_over() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for number in 1..=2 {
            run_as(cluster, "by-hand", "").await.assert_exit(0);
            assert_eq!(cluster.names().await.len(), number);
        }
    })
    .await;
}

#[tokio::test]
async fn what_an_attempt_made_of_a_claim_that_was_made_anew_since_is_not_taken_over() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        cluster.fake().plan(|_| Some(Plan::ready_after(millis(1500))));
        let impatient = [
            ("SNAPSHOT_PVC_NAMES", "data"),
            ("SNAPSHOT_RUN_ID", "hourly-1"),
            ("SNAPSHOT_READY_ATTEMPTS", "1"),
            ("SNAPSHOT_READY_INTERVAL", "300ms"),
        ];
        cluster.run(&impatient).await.assert_exit(1);
        let first = cluster.names().await.remove(0);
        cluster.fake().replace_claim(&cluster.namespace, "data");
        let next = cluster.run(&impatient[..2]).await;
        next.assert_exit(0);
        assert!(!next.message.contains(&first), "{}", next.message);
        assert_eq!(cluster.names().await.len(), 2, "and the earlier one stays");
    })
    .await;
}

// --- Quotas ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_quota_that_is_full_of_what_newer_snapshots_supersede_is_no_end() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for name in ["old-1", "old-2"] {
            cluster.older(name, "data").await;
            tokio::time::sleep(millis(1100)).await;
        }
        let quotas = format!("/api/v1/namespaces/{}/resourcequotas", cluster.namespace);
        cluster.post(&quotas, &objects::quota(&cluster.namespace, "q", 2)).await;
        let counted = format!("{quotas}/q");
        cluster
            .until("the quota is counted", async || {
                let used = &cluster.read(&counted).await["status"]["used"];
                used["count/volumesnapshots.snapshot.storage.k8s.io"] == "2"
            })
            .await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(0);
        assert!(ran.message.contains("2 older snapshots deleted"), "{}", ran.message);
        let names = cluster.names().await;
        assert!(names.len() == 1 && names[0].starts_with("volume-snapshot-"), "{names:?}");
    })
    .await;
}

/// What three runs have left while the storage was down: it is all captured at once when that is over,
/// long after it was asked for.
#[tokio::test]
async fn after_an_outage_that_filled_the_quota_the_next_run_succeeds() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 5);
        for (name, minutes) in [("failed-1", 180), ("failed-2", 120), ("failed-3", 60)] {
            let mut snapshot =
                objects::unready_snapshot(&cluster.namespace, name, "data", minutes_ago(minutes));
            snapshot["metadata"]["labels"]["volume-snapshotter/run-uid"] = json!(format!("uid-of-{name}"));
            snapshot["status"]["error"] = json!({"message": "rpc error: storage is down"});
            cluster.fake().put(snapshot);
        }
        cluster.fake().quota(&cluster.namespace, 4);
        let refused = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        refused.assert_exit(1);
        assert!(refused.message.contains("raise the ResourceQuota"), "{}", refused.message);
        assert_eq!(cluster.names().await.len(), 4, "there is nothing that a newer ready one supersedes");

        for name in ["failed-1", "failed-2", "failed-3"] {
            cluster.fake().update(SNAPSHOTS, &cluster.namespace, name, |snapshot| {
                snapshot["status"]["readyToUse"] = json!(true);
                snapshot["status"]["creationTime"] = json!(minutes_ago(1).to_string());
                drop(snapshot["status"].as_object_mut().expect("a status").remove("error"));
            });
        }
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(0);
        let names = cluster.names().await;
        assert!(names.len() == 1 && names[0].starts_with("volume-snapshot-"), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn a_quota_takes_no_copy_while_it_is_not_known_what_others_deleted() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        for (name, hours) in [("old-1", 3), ("old-2", 2), ("old-3", 1)] {
            put_ready(cluster, name, "data", hours);
        }
        cluster.fake().quota(&cluster.namespace, 2);
        let namespace = cluster.namespace.clone();
        // The second newest goes behind a watch that tells nothing, and the list that would tell fails.
        cluster.fake().before(asks("create", SNAPSHOTS), 1, move |others| {
            others.remove(SNAPSHOTS, &namespace, "old-2");
        });
        cluster.fake().fault(|request| {
            asks("watch", SNAPSHOTS)(request).then_some(Fault::Watch(WatchFault::MuteAfter(0)))
        });
        cluster
            .fake()
            .fault(|request| asks("create", SNAPSHOTS)(request).then_some(Fault::Delay(millis(2500))));
        cluster.fake().fault_nth(asks("list", SNAPSHOTS), 2, Fault::Error(400, When::Before));
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "last=2")]).await;
        ran.assert_exit(1);
        assert_eq!(cluster.names().await, ["old-1", "old-3"], "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn room_under_a_quota_is_waited_for_until_the_quota_has_seen_it() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old-1", "data", 2);
        put_ready(cluster, "old-2", "data", 1);
        cluster.fake().quota(&cluster.namespace, 2);
        cluster.fake().quota_frees_after(&cluster.namespace, millis(1500));
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 1);
    })
    .await;
}

/// With one request in flight eight targets are active at a time, and each of them waits for room.
#[tokio::test]
async fn many_claims_that_need_room_under_a_quota_do_not_wait_for_each_other() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        for number in 0..10 {
            let claim = format!("data-{number}");
            put_claim(cluster, &claim);
            put_ready(cluster, &format!("{claim}-old-1"), &claim, 2);
            put_ready(cluster, &format!("{claim}-old-2"), &claim, 1);
        }
        cluster.fake().quota(&cluster.namespace, 20);
        let settings = [("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_CONCURRENCY", "1")];
        let run = tokio::time::timeout(millis(30_000), cluster.run(&settings));
        run.await.expect("the run ends").assert_exit(0);
        assert_eq!(cluster.names().await.len(), 10);
    })
    .await;
}

#[tokio::test]
async fn a_quota_takes_no_copy_that_the_claims_annotation_keeps() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old-1", "data", 2);
        put_ready(cluster, "old-2", "data", 1);
        cluster.fake().quota(&cluster.namespace, 2);
        let namespace = cluster.namespace.clone();
        // Not even if it comes after the claim was read.
        cluster.fake().after(asks("create", SNAPSHOTS), 1, move |others| {
            others.annotate(CLAIMS, &namespace, "data", "volume-snapshotter/retention", Some("all"));
        });
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(1);
        assert!(ran.message.contains("raise the ResourceQuota"), "{}", ran.message);
        assert_eq!(cluster.names().await, ["old-1", "old-2"]);
    })
    .await;
}

#[tokio::test]
async fn a_quota_takes_no_copy_of_a_claim_that_was_made_anew() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old-1", "data", 2);
        put_ready(cluster, "old-2", "data", 1);
        cluster.fake().quota(&cluster.namespace, 2);
        let namespace = cluster.namespace.clone();
        cluster.fake().after(asks("create", SNAPSHOTS), 1, move |others| {
            drop(others.replace_claim(&namespace, "data"));
        });
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(1);
        assert_eq!(cluster.names().await, ["old-1", "old-2"]);
    })
    .await;
}

/// Room is made by a look at the claims that is a moment old when the new snapshot is ready. Deletions in favour
/// of the new one take another.
#[tokio::test]
async fn a_look_from_before_the_new_snapshot_was_ready_is_not_enough() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old-1", "data", 2);
        put_ready(cluster, "old-2", "data", 1);
        cluster.fake().quota(&cluster.namespace, 2);
        let namespace = cluster.namespace.clone();
        let is_made = {
            let others = cluster.fake().others();
            let namespace = namespace.clone();
            move |request: &Request| {
                asks("create", SNAPSHOTS)(request) && others.get(SNAPSHOTS, &namespace, "old-1").is_none()
            }
        };
        cluster.fake().before(is_made, 1, move |others| {
            drop(others.replace_claim(&namespace, "data"));
        });
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(1);
        assert!(ran.message.contains("deleted and made anew"), "{}", ran.message);
        assert_eq!(cluster.names().await[0], "old-2", "room was made, and no more");
        assert_no_last_copy_was_deleted(cluster.fake());
    })
    .await;
}

// --- Leftovers -------------------------------------------------------------------------------------

#[tokio::test]
async fn what_another_jobs_next_attempt_may_still_wait_for_is_no_leftover() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 80);
        let put = |name: &str, minutes: i64, run_uid: Option<&str>| {
            let mut snapshot =
                objects::unready_snapshot(&cluster.namespace, name, "data", minutes_ago(minutes));
            if let Some(uid) = run_uid {
                snapshot["metadata"]["labels"]["volume-snapshotter/run-uid"] = json!(uid);
            }
            cluster.fake().put(snapshot);
        };
        // The windows of a run are 90 s together; a Job lives for an hour with its attempts.
        put("awaited", 20, Some("another"));
        put("awaited-no-more", 3 * 24 * 60, Some("yet-another"));
        put("of-the-script", 20, None);
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RUN_ID", "hourly-2")]).await.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!((names.len(), names[0].as_str()), (2, "awaited"), "{names:?}");

        // That attempt comes, and goes on with it.
        cluster.fake().update(SNAPSHOTS, &cluster.namespace, "awaited", |snapshot| {
            snapshot["status"]["readyToUse"] = json!(true);
        });
        let settings = [
            ("SNAPSHOT_PVC_NAMES", "data"),
            ("SNAPSHOT_RUN_UID", "another"),
            ("SNAPSHOT_RETENTION", "last=2"),
        ];
        let next = cluster.run(&settings).await;
        next.assert_exit(0);
        assert_eq!(next.lines("going on with the snapshot")[0]["snapshot"], "awaited");
    })
    .await;
}

// --- Admission -------------------------------------------------------------------------------------

/// What admission makes of a new snapshot.
type Change = fn(&mut Value);

#[tokio::test]
async fn what_admission_made_something_else_of_is_taken_back_and_said() {
    let changes: [(&str, Change); 7] = [
        ("label job is \"tenant-7\" instead of \"volume-snapshotter\"", |new| {
            new["metadata"]["labels"]["job"] = json!("tenant-7");
        }),
        ("label volume-snapshotter/run is missing instead of \"hourly-1\"", |new| {
            drop(new["metadata"]["labels"].as_object_mut().expect("labels").remove("volume-snapshotter/run"));
        }),
        ("label volume-snapshotter/hold is \"true\" instead of missing", |new| {
            new["metadata"]["labels"]["volume-snapshotter/hold"] = json!("true");
        }),
        ("the claim is \"other\" instead of \"data\"", |new| {
            new["spec"]["source"]["persistentVolumeClaimName"] = json!("other");
        }),
        ("the class is \"gold\\u{1b}[31m\" instead of \"default\"", |new| {
            new["spec"]["volumeSnapshotClassName"] = json!("gold\u{1b}[31m");
        }),
        // It would be nobody's: of a claim that never was.
        ("annotation volume-snapshotter/claim-uid is \"0d\" instead of", |new| {
            new["metadata"]["annotations"]["volume-snapshotter/claim-uid"] = json!("0d");
        }),
        // It would be somebody else's, and stay for ever.
        ("its owner is \"ConfigMap tenant\" instead of missing", |new| {
            new["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "tenant", "uid": "0e"}]);
        }),
    ];
    for (said, change) in changes {
        embedded_only(Options::default(), "needs a webhook", async |cluster| {
            put_claim(cluster, "data");
            put_claim(cluster, "other");
            put_ready(cluster, "old", "data", 1);
            cluster.fake().admission_changes(|request| request.is("create", SNAPSHOTS), change);
            for _ in 0..2 {
                let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RUN_ID", "hourly-1")];
                let ran = cluster.run(&settings).await;
                ran.assert_exit(2);
                assert!(ran.message.contains(said), "{}", ran.message);
                assert!(ran.message.contains("it was deleted again"), "{}", ran.message);
                assert!(!ran.message.contains('\u{1b}'), "{}", ran.message);
                cluster.until("nothing is left behind", async || cluster.snapshots().await.len() == 1).await;
                assert_eq!(cluster.names().await, ["old"]);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_taken_back_is_said_to_stay() {
    embedded_only(Options::default(), "needs a webhook", async |cluster| {
        put_claim(cluster, "data");
        cluster.fake().admission_changes(
            |request| request.is("create", SNAPSHOTS),
            |new| new["metadata"]["labels"]["job"] = json!("tenant-7"),
        );
        cluster.fake().admission_denies(|request| request.is("delete", SNAPSHOTS), "keep-all", "not here");
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("and it stays, because"), "{}", ran.message);
        assert!(ran.message.contains("not here"), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn what_admission_adds_for_others_is_no_matter() {
    embedded_only(Options::default(), "needs a webhook", async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        cluster.fake().admission_changes(
            |request| request.is("create", SNAPSHOTS),
            |new| {
                new["metadata"]["labels"]["cost-centre"] = json!("7");
                new["metadata"]["annotations"]["example.com/note"] = json!("x");
            },
        );
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_a_policy_refuses_is_said_and_is_not_repeated() {
    embedded_only(Options::default(), "needs a webhook", async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        cluster.fake().admission_denies(|request| request.is("delete", SNAPSHOTS), "keep-all", "not here");
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(3);
        assert!(ran.message.contains("not here"), "{}", ran.message);
        assert_eq!(asked(cluster, "delete", SNAPSHOTS), 1);
    })
    .await;
}

/// The answer is lost, and what was made looks like nobody's.
#[tokio::test]
async fn a_changed_snapshot_whose_creation_was_not_answered_is_taken_back_as_well() {
    embedded_only(Options::default(), "needs a webhook", async |cluster| {
        put_claim(cluster, "data");
        cluster.fake().admission_changes(
            |request| request.is("create", SNAPSHOTS),
            |new| new["metadata"]["labels"]["job"] = json!("tenant-7"),
        );
        cluster.fake().fault_nth(asks("create", SNAPSHOTS), 1, Fault::Cut(When::After));
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("it was deleted again"), "{}", ran.message);
        cluster.until("nothing is left behind", async || cluster.snapshots().await.is_empty()).await;
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_changes_hands_while_it_is_waited_for_is_no_success() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let settings = [
            ("SNAPSHOT_PVC_NAMES", "data"),
            // Nothing makes it ready meanwhile.
            ("SNAPSHOT_CLASS_NAME", "no-such-class"),
            ("SNAPSHOT_READY_INTERVAL", "20s"),
        ];
        let running = cluster.start(&crate::test_cluster::all_permissions(), &settings).await;
        cluster.until("it waits", async || cluster.names().await.len() == 2).await;
        let names = cluster.names().await;
        let new = names.iter().find(|name| name.starts_with("volume-snapshot-")).expect("a new one");
        cluster.patch_snapshot(new, json!({"metadata": {"labels": {"job": "weekly"}}})).await;
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("somebody changed the label job"), "{}", ran.message);
        assert!(cluster.names().await.contains(&"old".to_owned()));
        if is_embedded(cluster) {
            assert_eq!(cluster.fake().list(SNAPSHOTS, &cluster.namespace).iter().map(name_of).count(), 2);
        }
    })
    .await;
}
