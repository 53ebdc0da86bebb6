//! What changes while a run waits, looks and deletes: the new snapshot, its neighbours, holds, annotations.

use fake_apiserver::{Fault, Options, Others, objects};
use serde_json::{Value, json};

use super::{
    CLAIMS, NEEDS_OTHER_HAND, SNAPSHOTS, asked, asks, assert_no_last_copy_was_deleted, millis, new_one, slow,
};
use crate::{
    faults::{put_claim, put_ready},
    test_cluster::{all_permissions, embedded_only},
};

/// Something that somebody does, in a namespace.
type Act = fn(&Others, &str);

#[tokio::test]
async fn a_deletion_is_not_repeated_once_the_new_snapshot_is_gone() {
    let acts: [(&str, Act); 4] = [
        ("gone", |others, namespace| {
            others.remove(SNAPSHOTS, namespace, &new_one(others, namespace));
        }),
        ("being deleted", |others, namespace| {
            let new = new_one(others, namespace);
            others.update(SNAPSHOTS, namespace, &new, |new| *new = objects::kept(new.clone()));
            others.delete(SNAPSHOTS, namespace, &new);
        }),
        ("not ready any more", |others, namespace| {
            others.update(SNAPSHOTS, namespace, &new_one(others, namespace), |new| {
                new["status"]["readyToUse"] = json!(false);
            });
        }),
        ("another schedule's", |others, namespace| {
            others.label(SNAPSHOTS, namespace, &new_one(others, namespace), "job", Some("weekly"));
        }),
    ];
    for (what, act) in acts {
        for fault in [
            Fault::TooManyRequests { retry_after: Some(1), status: true },
            Fault::Error(503, fake_apiserver::When::Before),
            Fault::Cut(fake_apiserver::When::Before),
        ] {
            embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
                put_claim(cluster, "data");
                put_ready(cluster, "old", "data", 1);
                cluster.fake().fault_nth(asks("delete", SNAPSHOTS), 1, fault.clone());
                let namespace = cluster.namespace.clone();
                cluster.fake().after(asks("delete", SNAPSHOTS), 1, move |others| act(others, &namespace));
                let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
                ran.assert_exit(1);
                assert!(ran.message.contains("somebody deleted snapshot"), "{}", ran.message);
                assert!(cluster.names().await.contains(&"old".to_owned()), "{what}, {fault:?}");
                assert_eq!(asked(cluster, "delete", SNAPSHOTS), 1, "{what}, {fault:?}");
            })
            .await;
        }
    }
}

#[tokio::test]
async fn with_a_mute_watch_the_new_snapshot_is_read_before_each_deletion() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        for hours in 1..=4 {
            put_ready(cluster, &format!("old-{hours}"), "data", hours);
        }
        cluster
            .fake()
            .fault(move |request| asks("delete", SNAPSHOTS)(request).then_some(Fault::Delay(millis(1300))));
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_CONCURRENCY", "1")];
        let running = cluster.start(&all_permissions(), &settings).await;
        cluster.until("it deletes", async || asked(cluster, "delete", SNAPSHOTS) == 1).await;
        cluster.fake().mute_watches();
        let others = cluster.fake().others();
        others.remove(SNAPSHOTS, &cluster.namespace, &new_one(&others, &cluster.namespace));
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("somebody deleted snapshot"), "{}", ran.message);
        cluster.until("one is gone", async || cluster.names().await == ["old-1", "old-2", "old-3"]).await;
        assert_no_last_copy_was_deleted(cluster.fake());
    })
    .await;
}

#[tokio::test]
async fn where_the_new_snapshot_cannot_be_read_nothing_more_is_deleted() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        let busy = Fault::TooManyRequests { retry_after: Some(1), status: true };
        cluster.fake().fault_nth(asks("delete", SNAPSHOTS), 1, busy);
        cluster.fake().fault(move |request| {
            let read = asks("get", SNAPSHOTS)(request);
            read.then_some(Fault::Error(403, fake_apiserver::When::Before))
        });
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(3);
        assert!(ran.message.contains("nothing older is deleted: cannot read snapshot"), "{}", ran.message);
        assert!(cluster.names().await.contains(&"old".to_owned()));
        assert_eq!(asked(cluster, "delete", SNAPSHOTS), 1);
    })
    .await;
}

/// Two older snapshots under `last=2`: `a` stays, `b` is to go. Plays what somebody does meanwhile, and
/// tells which of the two are left.
async fn left_after(code: i32, act: Act) -> Vec<String> {
    let left = std::sync::Mutex::default();
    embedded_only(slow(millis(60)), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "b", "data", 2);
        put_ready(cluster, "a", "data", 1);
        let namespace = cluster.namespace.clone();
        cluster.fake().after(asks("create", SNAPSHOTS), 1, move |others| act(others, &namespace));
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "last=2")]).await;
        ran.assert_exit(code);
        let mut names = cluster.names().await;
        names.retain(|name| !name.starts_with("volume-snapshot-"));
        *left.lock().expect("no panic") = names;
    })
    .await;
    left.into_inner().expect("no panic")
}

fn owned_by(kind: &str) -> Value {
    json!([{"apiVersion": "example.com/v1", "kind": kind, "name": "x", "uid": "0b0b", "controller": true}])
}

#[tokio::test]
async fn what_becomes_of_the_neighbours_during_the_wait_is_heeded() {
    assert_eq!(left_after(0, |_, _| {}).await, ["a"], "that is what the policy says");
    let acts: [(&str, Act); 6] = [
        ("deleted", |others, namespace| {
            others.remove(SNAPSHOTS, namespace, "a");
        }),
        ("not ready any more", |others, namespace| {
            others.update(SNAPSHOTS, namespace, "a", |a| a["status"]["readyToUse"] = json!(false));
        }),
        ("another schedule's", |others, namespace| {
            others.label(SNAPSHOTS, namespace, "a", "job", Some("weekly"));
        }),
        ("held", |others, namespace| {
            others.label(SNAPSHOTS, namespace, "a", "volume-snapshotter/hold", Some(""));
        }),
        ("a group's", |others, namespace| {
            others.update(SNAPSHOTS, namespace, "a", |a| {
                a["metadata"]["ownerReferences"] = owned_by("VolumeGroupSnapshot");
            });
        }),
        ("unreadable", |others, namespace| {
            others.update(SNAPSHOTS, namespace, "a", |a| a["status"]["restoreSize"] = json!(-5));
        }),
    ];
    for (what, act) in acts {
        let left = left_after(0, act).await;
        assert!(left.contains(&"b".to_owned()), "{what}: {left:?}");
    }
}

#[tokio::test]
async fn holds_owners_and_rules_that_come_during_the_wait_are_heeded() {
    let acts: [(&str, i32, Act); 6] = [
        ("held", 0, |others, namespace| {
            others.label(SNAPSHOTS, namespace, "b", "volume-snapshotter/hold", Some("true"));
        }),
        ("owned", 0, |others, namespace| {
            others.update(SNAPSHOTS, namespace, "b", |b| {
                b["metadata"]["ownerReferences"] = owned_by("Backup");
            });
        }),
        ("all is kept", 0, |others, namespace| {
            others.annotate(CLAIMS, namespace, "data", "volume-snapshotter/retention", Some("all"));
        }),
        ("three are kept", 0, |others, namespace| {
            others.annotate(CLAIMS, namespace, "data", "volume-snapshotter/retention", Some("last=3"));
        }),
        ("deltas", 0, |others, namespace| {
            others.annotate(CLAIMS, namespace, "data", "backup.kubernetes.io/deltas", Some("PT1H P2D"));
        }),
        ("rules that are none", 3, |others, namespace| {
            others.annotate(CLAIMS, namespace, "data", "volume-snapshotter/retention", Some("lsat=1"));
        }),
    ];
    for (what, code, act) in acts {
        assert_eq!(left_after(code, act).await, ["a", "b"], "{what}");
    }
}

#[tokio::test]
async fn an_annotation_that_comes_just_before_the_look_is_heeded() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        let namespace = cluster.namespace.clone();
        cluster.fake().before(asks("list", CLAIMS), 1, move |others| {
            others.annotate(CLAIMS, &namespace, "data", "volume-snapshotter/retention", Some("all"));
        });
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert!(cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

/// What goes is deleted oldest first, one after the other: what happens beside the first deletion counts for
/// the second.
#[tokio::test]
async fn a_neighbour_that_goes_while_others_are_deleted_is_missed_by_no_later_deletion() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        for (name, hours) in [("a", 1), ("b", 2), ("c", 3)] {
            put_ready(cluster, name, "data", hours);
        }
        cluster
            .fake()
            .fault(move |request| asks("delete", SNAPSHOTS)(request).then_some(Fault::Delay(millis(400))));
        let settings =
            [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_CONCURRENCY", "1"), ("SNAPSHOT_RETENTION", "last=2")];
        let running = cluster.start(&all_permissions(), &settings).await;
        cluster.until("it deletes", async || asked(cluster, "delete", SNAPSHOTS) == 1).await;
        cluster.fake().remove(SNAPSHOTS, &cluster.namespace, "a");
        let ran = running.finish().await;
        ran.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!((names.len(), names[0].as_str()), (2, "b"), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn another_runs_newer_snapshot_takes_no_copy_of_this_one_away() {
    embedded_only(slow(millis(60)), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        let namespace = cluster.namespace.clone();
        cluster.fake().after(asks("create", SNAPSHOTS), 1, move |others| {
            let later = k8s_openapi::jiff::Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_secs(1);
            let later = later.round(k8s_openapi::jiff::Unit::Second).expect("a time");
            others.put(objects::ready_snapshot(&namespace, "theirs", "data", later));
        });
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        let names = cluster.names().await;
        assert!(names.contains(&"theirs".to_owned()) && names.len() == 2, "{names:?}");
    })
    .await;
}
