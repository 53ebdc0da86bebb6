//! What others do while a run makes a snapshot, makes room for it under a quota, takes it back, and waits for it.

use fake_apiserver::{Fault, Options, Others, Pace, WatchFault, When};
use serde_json::json;

use super::{
    CLAIMS, NEEDS_OTHER_HAND, NEEDS_PAST, NEEDS_QUEUE, SNAPSHOTS, asked, asks,
    assert_no_last_copy_was_deleted, millis, new_one, slow,
};
use crate::{
    faults::{put_claim, put_ready},
    test_cluster::{TestCluster, embedded_only},
};

const ONE: [(&str, &str); 1] = [("SNAPSHOT_PVC_NAMES", "data")];

/// Lets the claim stay while it is being deleted, as long as somebody needs it.
fn protect(cluster: &TestCluster) {
    cluster.fake().update(CLAIMS, &cluster.namespace, "data", |claim| {
        claim["metadata"]["finalizers"] = json!(["example.com/in-use"]);
    });
}

// --- Names -----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_name_that_is_taken_costs_another_try_up_to_three() {
    for (taken, exit, tries) in [(2, 0, 3), (3, 1, 3)] {
        embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
            put_claim(cluster, "data");
            for number in 1..=taken {
                let fault = Fault::Error(409, When::Before);
                cluster.fake().fault_nth(asks("create", SNAPSHOTS), number, fault);
            }
            let ran = cluster.run(&ONE).await;
            ran.assert_exit(exit);
            assert_eq!(asked(cluster, "create", SNAPSHOTS), tries);
            let names: Vec<String> = cluster
                .fake()
                .requests()
                .iter()
                .filter(|request| asks("create", SNAPSHOTS)(request))
                .filter_map(|request| Some(request.body.as_ref()?["metadata"]["name"].as_str()?.to_owned()))
                .collect();
            assert!(names[0] != names[1] && names[1] != names[2], "{names:?}");
            assert_eq!(ran.message.contains("already exists"), exit != 0, "{}", ran.message);
        })
        .await;
    }
}

// --- Room under a quota ----------------------------------------------------------------------------

/// A claim with two ready snapshots under a quota of two: one has to go before a third can be made.
async fn full(scenario: impl AsyncFn(&TestCluster)) {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old-1", "data", 2);
        put_ready(cluster, "old-2", "data", 1);
        cluster.fake().quota(&cluster.namespace, 2);
        scenario(cluster).await;
    })
    .await;
}

#[tokio::test]
async fn a_quota_takes_nothing_of_a_claim_that_is_being_deleted() {
    full(async |cluster| {
        let namespace = cluster.namespace.clone();
        protect(cluster);
        cluster.fake().before(asks("create", SNAPSHOTS), 1, move |others| {
            others.delete(CLAIMS, &namespace, "data");
        });
        let ran = cluster.run(&ONE).await;
        ran.assert_exit(1);
        assert!(ran.message.contains("raise the ResourceQuota"), "{}", ran.message);
        assert_eq!(cluster.names().await, ["old-1", "old-2"], "they are what remains of the claim");
    })
    .await;
}

#[tokio::test]
async fn what_changes_while_room_is_made_is_judged_again() {
    full(async |cluster| {
        let namespace = cluster.namespace.clone();
        cluster.fake().before(asks("delete", SNAPSHOTS), 1, move |others| {
            others.annotate(SNAPSHOTS, &namespace, "old-1", "example.com/seen", Some("yes"));
        });
        cluster.run(&ONE).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 1);
        assert_no_last_copy_was_deleted(cluster.fake());
    })
    .await;
    full(async |cluster| {
        let namespace = cluster.namespace.clone();
        cluster.fake().before(asks("delete", SNAPSHOTS), 1, move |others| {
            others.label(SNAPSHOTS, &namespace, "old-1", "volume-snapshotter/hold", Some("mine"));
        });
        let ran = cluster.run(&ONE).await;
        ran.assert_exit(1);
        assert!(ran.message.contains("raise the ResourceQuota"), "{}", ran.message);
        assert_eq!(cluster.names().await, ["old-1", "old-2"], "a hold that comes at the last moment holds");
    })
    .await;
}

#[tokio::test]
async fn room_that_does_not_come_is_not_waited_for_without_end() {
    full(async |cluster| {
        cluster.fake().quota_frees_after(&cluster.namespace, millis(600_000));
        let began = std::time::Instant::now();
        let ran = cluster.run(&ONE).await;
        ran.assert_exit(1);
        assert!(ran.message.contains("raise the ResourceQuota"), "{}", ran.message);
        let took = began.elapsed();
        assert!(took >= millis(20_000) && took < millis(40_000), "20 s are waited for room, not {took:?}");
        assert_eq!(cluster.names().await, ["old-2"]);
    })
    .await;
}

// --- Taking back what admission changed ------------------------------------------------------------

/// A run whose new snapshot is given to somebody else by admission, and which finds `meanwhile` done when it takes
/// that back: `says` is in the message.
async fn takes_back(
    meanwhile: impl Fn(&Others, &str) + Clone + Send + Sync + 'static,
    at_read: impl Fn(&Others, &str) + Clone + Send + Sync + 'static,
    says: &str,
    leaves: usize,
) {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        cluster.fake().admission_changes(
            |request| request.is("create", SNAPSHOTS) && request.user.contains("serviceaccount"),
            |new| new["metadata"]["labels"]["job"] = json!("tenant-7"),
        );
        let (namespace, meanwhile) = (cluster.namespace.clone(), meanwhile.clone());
        cluster.fake().before(asks("delete", SNAPSHOTS), 1, move |others| {
            meanwhile(others, &namespace);
        });
        let (namespace, at_read) = (cluster.namespace.clone(), at_read.clone());
        cluster.fake().before(asks("get", SNAPSHOTS), 1, move |others| at_read(others, &namespace));
        let ran = cluster.run(&ONE).await;
        ran.assert_exit(2);
        assert!(ran.message.contains(says), "{}", ran.message);
        cluster.until("what is left", async || cluster.snapshots().await.len() == leaves).await;
    })
    .await;
}

/// Changes the only snapshot, as its controller does.
fn touch(others: &Others, namespace: &str) {
    let name = new_one(others, namespace);
    others.annotate(SNAPSHOTS, namespace, &name, "example.com/seen", Some("yes"));
}

fn make_anew(others: &Others, namespace: &str) {
    let name = new_one(others, namespace);
    if let Some(mut snapshot) = others.remove(SNAPSHOTS, namespace, &name) {
        snapshot["metadata"] = json!({"name": name, "namespace": namespace, "labels": {"mine": "yes"}});
        others.put(snapshot);
    }
}

#[tokio::test]
async fn what_admission_changed_is_taken_back_whatever_happens_to_it_meanwhile() {
    takes_back(touch, |_, _| (), "it was deleted again", 0).await;
    let remove = |others: &Others, namespace: &str| {
        drop(others.remove(SNAPSHOTS, namespace, &new_one(others, namespace)));
    };
    takes_back(touch, remove, "it is gone", 0).await;
    // What somebody makes under the same name is not ours to delete.
    takes_back(touch, make_anew, "it is gone", 1).await;
    takes_back(make_anew, |_, _| (), "it is gone", 1).await;
}

// --- Waiting ---------------------------------------------------------------------------------------

/// A run whose watch is deaf, and whose new snapshot is done `meanwhile` to while it is pending: it ends with an
/// error that `says` why, and the older one stays.
async fn while_pending(meanwhile: impl Fn(&Others, &str), says: &str) {
    embedded_only(slow(millis(60_000)), NEEDS_QUEUE, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        cluster.fake().controller_pace(Pace::Stopped);
        cluster.fake().fault(|request| {
            asks("watch", SNAPSHOTS)(request).then_some(Fault::Watch(WatchFault::MuteAfter(0)))
        });
        let settings = [ONE[0], ("SNAPSHOT_READY_ATTEMPTS", "2"), ("SNAPSHOT_READY_INTERVAL", "1s")];
        let permissions = crate::test_cluster::all_permissions();
        let running = cluster.start(&permissions, &settings).await;
        cluster.until("the snapshot is there", async || cluster.names().await.len() == 2).await;
        meanwhile(&cluster.fake().others(), &cluster.namespace);
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains(says), "{}", ran.message);
        assert!(cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn what_becomes_of_a_pending_snapshot_behind_a_deaf_watch_is_read() {
    let remove = |others: &Others, namespace: &str| {
        drop(others.remove(SNAPSHOTS, namespace, &new_one(others, namespace)));
    };
    while_pending(remove, "somebody deleted snapshot").await;
    while_pending(make_anew, "somebody deleted snapshot").await;
    let relabel = |others: &Others, namespace: &str| {
        others.label(SNAPSHOTS, namespace, &new_one(others, namespace), "job", Some("tenant-7"));
    };
    while_pending(relabel, "somebody changed the label job").await;
}

#[tokio::test]
async fn a_claim_that_is_being_deleted_still_has_its_new_snapshot_if_nothing_has_to_go() {
    // Longer than a run relies on what it read of the claim.
    embedded_only(slow(millis(3000)), NEEDS_QUEUE, async |cluster| {
        put_claim(cluster, "data");
        protect(cluster);
        let running = cluster.start(&crate::test_cluster::all_permissions(), &ONE).await;
        cluster.until("a snapshot is there", async || cluster.names().await.len() == 1).await;
        // The controller refuses new snapshots of such a claim, but goes on with those that it has taken up.
        tokio::time::sleep(millis(1000)).await;
        cluster.fake().delete(CLAIMS, &cluster.namespace, "data");
        let ran = running.finish().await;
        ran.assert_exit(0);
        assert!(!ran.message.contains("nothing older is deleted"), "{}", ran.message);
    })
    .await;
}

// --- Deleting --------------------------------------------------------------------------------------

/// A run whose watch has gone deaf, and whose first try of a deletion fails while something happens to the new
/// snapshot: the next try looks, and the older one stays.
#[tokio::test]
async fn behind_a_deaf_watch_no_deletion_is_repeated_once_the_new_snapshot_is_another() {
    let replace = |others: &Others, namespace: &str| {
        let name = new_one(others, namespace);
        if let Some(mut snapshot) = others.remove(SNAPSHOTS, namespace, &name) {
            let labels = json!({"job": "volume-snapshotter"});
            snapshot["metadata"] = json!({"name": name, "namespace": namespace, "labels": labels});
            others.put(snapshot);
        }
    };
    let delete = |others: &Others, namespace: &str| {
        let name = new_one(others, namespace);
        others.update(SNAPSHOTS, namespace, &name, |snapshot| {
            snapshot["metadata"]["finalizers"] = json!(["example.com/in-use"]);
        });
        others.delete(SNAPSHOTS, namespace, &name);
    };
    let unready = |others: &Others, namespace: &str| {
        others.update(SNAPSHOTS, namespace, &new_one(others, namespace), |snapshot| {
            snapshot["status"]["readyToUse"] = json!(false);
        });
    };
    let ways: [fn(&Others, &str); 3] = [replace, delete, unready];
    for meanwhile in ways {
        embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
            put_claim(cluster, "data");
            put_ready(cluster, "old", "data", 1);
            cluster.fake().fault(|request| {
                asks("watch", SNAPSHOTS)(request).then_some(Fault::Watch(WatchFault::MuteAfter(0)))
            });
            cluster.fake().fault_nth(asks("delete", SNAPSHOTS), 1, Fault::Error(503, When::Before));
            let namespace = cluster.namespace.clone();
            cluster.fake().before(asks("delete", SNAPSHOTS), 1, move |others| meanwhile(others, &namespace));
            let ran = cluster.run(&[ONE[0], ("SNAPSHOT_READY_INTERVAL", "1s")]).await;
            ran.assert_exit(1);
            assert!(ran.message.contains("somebody deleted snapshot"), "{}", ran.message);
            assert_eq!(asked(cluster, "delete", SNAPSHOTS), 1, "{}", ran.message);
            assert!(cluster.names().await.contains(&"old".to_owned()));
        })
        .await;
    }
}
