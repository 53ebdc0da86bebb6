//! Claims that are made anew, deleted, or restored from a snapshot, at every point of a run.

use fake_apiserver::{Fault, Options, Others, Pace, Request, When, objects};
use serde_json::json;
use volume_snapshotter::cluster::{NAMESPACE_PERMISSIONS, PERMISSIONS};

use super::{
    CLAIMS, NEEDS_OTHER_HAND, NEEDS_QUEUE, SNAPSHOTS, asks, assert_no_last_copy_was_deleted, millis,
    put_restore, slow,
};
use crate::{
    faults::{put_claim, put_ready},
    test_cluster::{TestCluster, all_permissions, embedded, embedded_only, everywhere, name_of, rules},
};

/// Whether the binary makes a snapshot of a claim.
fn makes_snapshot_of(claim: &'static str) -> impl Fn(&Request) -> bool + Send + Sync {
    move |request| {
        asks("create", SNAPSHOTS)(request)
            && request
                .body
                .as_ref()
                .is_some_and(|body| body["spec"]["source"]["persistentVolumeClaimName"] == claim)
    }
}

#[tokio::test]
async fn of_many_claims_the_one_that_is_made_anew_in_the_queue_keeps_its_older_snapshots() {
    embedded_only(Options::default(), NEEDS_QUEUE, async |cluster| {
        for number in 0..30 {
            put_claim(cluster, &format!("data-{number:02}"));
            put_ready(cluster, &format!("old-{number:02}"), &format!("data-{number:02}"), 1);
        }
        cluster.fake().controller_pace(Pace::PerSecond(20));
        let namespace = cluster.namespace.clone();
        cluster.fake().after(makes_snapshot_of("data-29"), 1, move |others| {
            drop(others.replace_claim(&namespace, "data-29"));
        });
        let ran = cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "app=web")]).await;
        ran.assert_exit(1);
        assert!(
            ran.message.starts_with("29 of 30 claims have a new ready snapshot\ndata-29: "),
            "{}",
            ran.message
        );
        assert!(ran.message.contains("deleted and made anew"), "{}", ran.message);
        let names = cluster.names().await;
        let old: Vec<&String> = names.iter().filter(|name| name.starts_with("old-")).collect();
        assert_eq!(old, ["old-29"], "all others are pruned");
        assert_no_last_copy_was_deleted(cluster.fake());
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_made_anew_at_any_moment_of_the_run_keeps_its_older_snapshots() {
    type Moment = (&'static str, &'static str, When);
    let moments: [Moment; 6] = [
        ("list", SNAPSHOTS, When::Before),
        ("watch", SNAPSHOTS, When::After),
        ("create", SNAPSHOTS, When::Before),
        ("create", SNAPSHOTS, When::After),
        // Here the new snapshot has the old claim's data, and older ones could go, but who can tell?
        ("list", CLAIMS, When::Before),
        // Too late for this run, which deletes one of two copies of the old claim's data.
        ("list", CLAIMS, When::After),
    ];
    for (verb, resource, when) in moments {
        embedded_only(slow(millis(60)), NEEDS_OTHER_HAND, async |cluster| {
            put_claim(cluster, "data");
            put_ready(cluster, "old", "data", 1);
            let namespace = cluster.namespace.clone();
            let replace = move |others: &Others| drop(others.replace_claim(&namespace, "data"));
            match when {
                When::Before => cluster.fake().before(asks(verb, resource), 1, replace),
                When::After => cluster.fake().after(asks(verb, resource), 1, replace),
            }
            let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
            assert_no_last_copy_was_deleted(cluster.fake());
            if (resource, when) == (CLAIMS, When::After) {
                return ran.assert_exit(0);
            }
            ran.assert_exit(1);
            assert!(
                ran.message.starts_with("0 of 1 claim has a new ready snapshot\n"),
                "{verb} {resource}: {}",
                ran.message
            );
            assert!(ran.message.contains("claim data was deleted and made anew"), "{}", ran.message);
            assert!(cluster.names().await.contains(&"old".to_owned()), "{verb} {resource}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_claim_that_is_made_anew_while_the_controller_stands_still_keeps_its_older_snapshots() {
    embedded_only(Options::default(), NEEDS_QUEUE, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        cluster.fake().controller_pace(Pace::Stopped);
        let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        cluster.until("a snapshot waits", async || cluster.names().await.len() == 2).await;
        tokio::time::sleep(millis(500)).await;
        cluster.fake().replace_claim(&cluster.namespace, "data");
        cluster.fake().replace_claim(&cluster.namespace, "data");
        cluster.fake().controller_pace(Pace::AtOnce);
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("nobody can tell which claim's data it has"), "{}", ran.message);
        assert!(cluster.names().await.contains(&"old".to_owned()));
        assert_no_last_copy_was_deleted(cluster.fake());

        // The next run is about the new claim, and what is left of the old one is not its business.
        let next = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        next.assert_exit(0);
        assert_eq!(next.lines("of a previous claim of this name").len(), 1);
        assert_eq!(cluster.names().await.len(), 3);
        assert_no_last_copy_was_deleted(cluster.fake());
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_made_anew_has_no_new_snapshot_even_if_there_is_nothing_to_delete() {
    embedded_only(Options::default(), NEEDS_QUEUE, async |cluster| {
        put_claim(cluster, "data");
        cluster.fake().controller_pace(Pace::Stopped);
        let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        cluster.until("a snapshot waits", async || cluster.names().await.len() == 1).await;
        tokio::time::sleep(millis(2500)).await;
        cluster.fake().replace_claim(&cluster.namespace, "data");
        cluster.fake().controller_pace(Pace::AtOnce);
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("deleted and made anew"), "{}", ran.message);
    })
    .await;
}

/// Success says that the snapshot is of the claim that was read, also where nothing has to go.
#[tokio::test]
async fn a_claim_that_cannot_be_read_again_has_no_success_even_if_there_is_nothing_to_delete() {
    embedded_only(slow(millis(2500)), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        cluster
            .fake()
            .fault(|request| asks("list", CLAIMS)(request).then_some(Fault::Error(400, When::Before)));
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RUN_UID", "a-job")];
        let ran = cluster.run(&settings).await;
        ran.assert_exit(2);
        assert!(
            ran.message.contains("is ready, but nobody knows whether claim data is still"),
            "{}",
            ran.message
        );
        cluster.fake().clear_faults();
        let again = cluster.run(&settings).await;
        again.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 1, "the Job's next attempt takes it over");
    })
    .await;
}

/// Who may read a claim but not list claims learns from a single reading whether it is the same.
#[tokio::test]
async fn a_claim_is_read_alone_where_claims_may_not_be_listed() {
    let some: Vec<_> =
        PERMISSIONS.iter().filter(|one| (one.verb, one.resource) != ("list", CLAIMS)).copied().collect();
    for (is_replaced, code) in [(false, 0), (true, 1)] {
        embedded_only(Options::default(), NEEDS_QUEUE, async |cluster| {
            put_claim(cluster, "data");
            cluster.fake().controller_pace(Pace::Stopped);
            let running = cluster.start(&rules(&some), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
            cluster.until("a snapshot waits", async || cluster.names().await.len() == 1).await;
            tokio::time::sleep(millis(2500)).await;
            if is_replaced {
                cluster.fake().replace_claim(&cluster.namespace, "data");
            }
            cluster.fake().controller_pace(Pace::AtOnce);
            let ran = running.finish().await;
            ran.assert_exit(code);
            assert_eq!(ran.message.contains("deleted and made anew"), is_replaced, "{}", ran.message);
        })
        .await;
    }
}

#[tokio::test]
async fn a_claim_that_is_made_anew_is_no_matter_to_one_of_its_name_in_another_namespace() {
    embedded_only(slow(millis(60)), NEEDS_OTHER_HAND, async |cluster| {
        let mark = json!({"snapshots": "yes"});
        let (shop, blog) = (
            cluster.another_namespace("shop", mark.clone()).await,
            cluster.another_namespace("blog", mark).await,
        );
        for namespace in [&shop, &blog] {
            namespace.claim("data").await;
            namespace.older("old", "data").await;
        }
        cluster.grant_everywhere(&rules(&[PERMISSIONS, NAMESPACE_PERMISSIONS].concat())).await;
        let namespace = shop.namespace.clone();
        let makes = {
            let namespace = namespace.clone();
            move |request: &Request| asks("create", SNAPSHOTS)(request) && request.namespace == namespace
        };
        cluster.fake().after(makes, 1, move |others| drop(others.replace_claim(&namespace, "data")));
        let settings = [("SNAPSHOT_NAMESPACE_SELECTOR", "snapshots=yes"), ("SNAPSHOT_PVC_NAMES", "data")];
        let ran = cluster.run_with_permissions(&json!([]), &settings).await;
        ran.assert_exit(1);
        assert!(ran.message.starts_with("1 of 2 claims has"), "{}", ran.message);
        assert!(shop.names().await.contains(&"old".to_owned()));
        assert_eq!(blog.names().await.len(), 1, "that one is pruned");
        assert_no_last_copy_was_deleted(cluster.fake());
    })
    .await;
}

#[tokio::test]
async fn of_a_claim_that_goes_away_during_the_run_nothing_is_deleted() {
    for (moment, code, said) in [
        ("list", 1, "claim data was deleted while snapshot"),
        ("terminating", 3, "the claim is being deleted"),
    ] {
        embedded_only(slow(millis(60)), NEEDS_OTHER_HAND, async |cluster| {
            put_claim(cluster, "data");
            put_ready(cluster, "old", "data", 1);
            let namespace = cluster.namespace.clone();
            cluster.fake().before(asks("list", CLAIMS), 1, move |others| {
                if moment == "list" {
                    others.remove(CLAIMS, &namespace, "data");
                } else {
                    // A pod uses it still.
                    others.update(CLAIMS, &namespace, "data", |claim| {
                        *claim = objects::terminating(claim.clone(), "2026-11-20T08:00:00Z");
                    });
                }
            });
            let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
            ran.assert_exit(code);
            assert!(ran.message.contains(said), "{}", ran.message);
            assert_eq!(cluster.names().await.len(), 2, "nothing is deleted");
        })
        .await;
    }
}

// --- Restores --------------------------------------------------------------------------------------

/// A claim from a snapshot that no class gives a volume, as a person writes it.
async fn restore(cluster: &TestCluster, name: &str, field: &str, snapshot: &str) {
    let mut claim = objects::claim(&cluster.namespace, name);
    claim["spec"]["storageClassName"] = json!("no-such-class");
    claim["spec"][field] =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot});
    cluster.post(&cluster.claims_path(), &claim).await;
}

#[tokio::test]
async fn a_snapshot_that_a_claim_is_being_restored_from_stays_until_that_is_over() {
    for field in ["dataSource", "dataSourceRef"] {
        everywhere(async |cluster| {
            cluster.claim("data").await;
            for name in ["old-1", "old-2"] {
                cluster.older(name, "data").await;
            }
            restore(cluster, "again", field, "old-1").await;
            let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
            ran.assert_exit(0);
            let said = ran.lines("stays: a claim is being restored from it");
            assert_eq!(said.len(), 1, "{:?}", ran.log);
            assert_eq!((&said[0]["snapshot"], &said[0]["level"]), (&json!("old-1"), &json!("INFO")));
            let names = cluster.names().await;
            assert_eq!((names.len(), names[0].as_str()), (2, "old-1"), "the other one is pruned");

            cluster.delete_claim("again").await;
            cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
            assert!(!cluster.names().await.contains(&"old-1".to_owned()), "nothing needs it any more");
        })
        .await;
    }
}

#[tokio::test]
async fn a_restore_that_waits_for_its_first_consumer_gets_its_data() {
    embedded_only(Options::default(), "needs a class that waits for a consumer", async |cluster| {
        cluster.fake().put(objects::waiting_storage_class("waiting"));
        put_claim(cluster, "data");
        let old = put_ready(cluster, "old", "data", 1);
        let mut claim = objects::claim_from_snapshot(&cluster.namespace, "again", "old");
        claim["spec"]["storageClassName"] = json!("waiting");
        cluster.post(&cluster.claims_path(), &claim).await;

        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        cluster.fake().use_claim(&cluster.namespace, "again");
        cluster
            .until("the claim is bound", async || {
                cluster.try_claim("again").await.is_some_and(|claim| claim["status"]["phase"] == "Bound")
            })
            .await;
        assert_eq!(
            cluster.fake().restored_from(&cluster.namespace, "again").as_deref(),
            old["metadata"]["uid"].as_str()
        );
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 1, "once it is restored, it goes");
    })
    .await;
}

#[tokio::test]
async fn a_restore_that_begins_while_the_new_snapshot_is_waited_for_keeps_its_source() {
    embedded_only(slow(millis(60)), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        let namespace = cluster.namespace.clone();
        cluster.fake().after(asks("create", SNAPSHOTS), 1, move |others| {
            put_restore(others, &namespace, "again", "old");
        });
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert!(cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

/// The look that a deletion was judged by is too old by the time that the deletion is repeated.
#[tokio::test]
async fn a_deletion_that_is_put_off_for_long_is_judged_by_another_look() {
    let restore: fn(&Others, &str) = |others, namespace| put_restore(others, namespace, "again", "old");
    let annotate: fn(&Others, &str) = |others, namespace| {
        others.annotate(CLAIMS, namespace, "data", "volume-snapshotter/retention", Some("all"));
    };
    let replace: fn(&Others, &str) = |others, namespace| drop(others.replace_claim(namespace, "data"));
    let play = async |change: fn(&Others, &str), code: i32| {
        embedded(Options::default(), async |cluster| {
            put_claim(cluster, "data");
            put_ready(cluster, "old", "data", 1);
            let busy = Fault::TooManyRequests { retry_after: Some(12), status: true };
            cluster.fake().fault_nth(asks("delete", SNAPSHOTS), 1, busy);
            let namespace = cluster.namespace.clone();
            cluster.fake().after(asks("delete", SNAPSHOTS), 1, move |others| change(others, &namespace));
            cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(code);
            assert!(cluster.names().await.contains(&"old".to_owned()));
            let deletions = super::asked(cluster, "delete", SNAPSHOTS);
            assert_eq!(deletions, 1, "the second try is not made");
        })
        .await;
    };
    tokio::join!(play(restore, 0), play(annotate, 0), play(replace, 1));
}

#[tokio::test]
async fn what_another_namespace_restores_from_a_snapshot_of_the_same_name_keeps_nothing_here() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let other = cluster.another_namespace("other", json!({})).await;
        restore(&other, "again", "dataSource", "old").await;
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert!(!cluster.names().await.contains(&"old".to_owned()));
        assert!(cluster.claims().await.iter().all(|claim| name_of(claim) == "data"));
    })
    .await;
}
