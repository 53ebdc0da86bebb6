//! `volume-snapshotter adopt`: a schedule gets the snapshots that another tool made.

use std::time::Duration;

use fake_apiserver::{Fault, Options, When, objects};
use serde_json::{Value, json};
use tokio::time::sleep;
use volume_snapshotter::cluster::{ADOPT_PERMISSIONS, PERMISSIONS, SCHEDULE_PERMISSIONS};

use crate::test_cluster::{TestCluster, embedded, everywhere, rules};

const SNAPSCHEDULER: &str = "snapscheduler.backube/schedule";
const GEMINI: &str = "gemini.fairwinds.com/group";

/// The rules of a person who may adopt, and read what `list` reads.
fn rights() -> Value {
    rules(&[ADOPT_PERMISSIONS, SCHEDULE_PERMISSIONS].concat())
}

/// Makes ready snapshots of the claim, the oldest first, as snapscheduler makes them.
async fn scheduled(cluster: &TestCluster, claim: &str, names: &[&str]) {
    for name in names {
        let labels = json!({SNAPSCHEDULER: "hourly", "snapscheduler.backube/when": "202611200800"});
        cluster.older_labelled(name, claim, labels).await;
        // Times are in whole seconds.
        sleep(Duration::from_millis(1100)).await;
    }
}

/// Makes the CronJob of the schedule `nightly`.
async fn nightly(cluster: &TestCluster, retention: &str) {
    let settings =
        [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_JOB", "nightly"), ("SNAPSHOT_RETENTION", retention)];
    let cron_job = objects::cron_job(&cluster.namespace, "nightly", &settings, &[]);
    cluster.post(&format!("/apis/batch/v1/namespaces/{}/cronjobs", cluster.namespace), &cron_job).await;
}

/// Labels and annotations of a snapshot.
async fn marks(cluster: &TestCluster, name: &str) -> (Value, Value) {
    let metadata = cluster.snapshot(name).await["metadata"].take();
    (metadata["labels"].clone(), metadata["annotations"].clone())
}

#[tokio::test]
async fn what_snapscheduler_made_is_shown_then_adopted_then_pruned() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        scheduled(cluster, "data", &["one", "two", "three"]).await;
        nightly(cluster, "last=2").await;
        let before = marks(cluster, "one").await;
        let arguments = ["adopt", "--from", "snapscheduler.backube/schedule=hourly", "--job", "nightly"];
        let said = cluster.say(&rights(), &arguments).await;
        said.assert_exit(0)
            .assert_says("schedule nightly keeps last=2 (CronJob nightly)")
            .assert_says(
                "nothing was changed; --yes makes 3 snapshots schedule nightly's, and its next run may delete 1 of 3",
            );
        let rows: Vec<&str> = said.out.lines().collect();
        assert!(rows[1].contains("three") && rows[1].ends_with("kept: 1st of last=2"), "{}", said.out);
        assert!(rows[3].contains("one") && rows[3].ends_with("will go: no rule keeps it"), "{}", said.out);
        assert_eq!((rows.len(), marks(cluster, "one").await), (4, before));

        let said = cluster.say(&rights(), &[&arguments[..], &["--yes"]].concat()).await;
        said.assert_exit(0).assert_says("adopted 3 of 3 snapshots; schedule nightly owns and prunes them from its next run on");
        let (labels, annotations) = marks(cluster, "one").await;
        assert_eq!(labels, json!({"job": "nightly", "snapscheduler.backube/when": "202611200800"}));
        assert_eq!(annotations["volume-snapshotter/adopted-from"], "snapscheduler.backube/schedule=hourly");
        // Of the new one and the two newest of before, as the rules say.
        let settings = [
            ("SNAPSHOT_PVC_NAMES", "data"),
            ("SNAPSHOT_JOB", "nightly"),
            ("SNAPSHOT_RETENTION", "last=2"),
            ("SNAPSHOT_NAME_PREFIX", "new"),
        ];
        cluster.run_with_permissions(&rules(PERMISSIONS), &settings).await.assert_exit(0);
        let names = cluster.names().await;
        assert!(names.contains(&"three".to_owned()) && names.len() == 2, "{names:?}");
        // There is nothing left to adopt, and saying so changes nothing.
        let said = cluster.say(&rights(), &arguments).await;
        said.assert_exit(0).assert_says("there is nothing to adopt in namespace ");
    })
    .await;
}

#[tokio::test]
async fn geminis_snapshots_are_known_by_their_annotation() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for (name, group) in [("postgres-1", "postgres"), ("mysql-1", "mysql")] {
            cluster.older_labelled(name, "data", json!({})).await;
            let annotations = json!({GEMINI: group, "app.kubernetes.io/managed-by": "gemini"});
            cluster.patch_snapshot(name, json!({"metadata": {"annotations": annotations}})).await;
        }
        let said = cluster
            .say(&rights(), &["adopt", "data", "--from=gemini.fairwinds.com/group=postgres", "-y"])
            .await;
        said.assert_exit(0).assert_says("adopted 1 of 1 snapshot; schedule volume-snapshotter owns");
        let (labels, annotations) = marks(cluster, "postgres-1").await;
        assert_eq!(labels, json!({"job": "volume-snapshotter"}));
        assert_eq!(annotations[GEMINI], Value::Null);
        assert_eq!(annotations["volume-snapshotter/adopted-from"], "gemini.fairwinds.com/group=postgres");
        assert_eq!(marks(cluster, "mysql-1").await.1[GEMINI], "mysql");
    })
    .await;
}

#[tokio::test]
async fn what_is_somebody_elses_is_left_alone_and_a_hold_stays() {
    everywhere(async |cluster| {
        for claim in ["data", "logs"] {
            cluster.claim(claim).await;
        }
        for (name, claim, labels) in [
            ("by-hand", "data", json!({"app": "shop"})),
            ("held", "data", json!({"volume-snapshotter/hold": "true"})),
            ("of-weekly", "data", json!({"job": "weekly"})),
            ("ours", "data", json!({"job": "volume-snapshotter"})),
            ("of-velero", "data", json!({"velero.io/backup-name": "b"})),
            ("owned", "data", json!({})),
            ("of-logs", "logs", json!({})),
        ] {
            cluster.older_labelled(name, claim, labels).await;
        }
        // One that exists: of another, the garbage collector deletes what it owns.
        let path = format!("/api/v1/namespaces/{}/configmaps", cluster.namespace);
        let made = cluster.post(&path, &objects::config_map(&cluster.namespace, "owner", &[])).await;
        let uid = &made["metadata"]["uid"];
        let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
        cluster.patch_snapshot("owned", json!({"metadata": {"ownerReferences": owner}})).await;
        let others = ["of-weekly", "ours", "of-velero", "owned", "of-logs"];
        let mut before = Vec::new();
        for name in others {
            before.push(cluster.snapshot(name).await["metadata"]["labels"].clone());
        }
        let said = cluster.say(&rights(), &["adopt", "data", "--yes"]).await;
        said.assert_exit(0)
            .assert_says("left alone: snapshot of-weekly: it is schedule weekly's (label job)")
            .assert_says("left alone: snapshot ours: it is this schedule's already")
            .assert_says("left alone: snapshot of-velero: it is of Velero's backup b, and Velero deletes it")
            .assert_says("left alone: snapshot owned: another object owns it")
            .assert_says("adopted 2 of 2 snapshots;");
        for (name, labels) in others.into_iter().zip(before) {
            assert_eq!(cluster.snapshot(name).await["metadata"]["labels"], labels, "{name}");
        }
        let (labels, annotations) = marks(cluster, "held").await;
        assert_eq!(labels, json!({"job": "volume-snapshotter", "volume-snapshotter/hold": "true"}));
        assert_eq!(annotations["volume-snapshotter/adopted-from"], Value::Null);
        assert_eq!(marks(cluster, "by-hand").await.0["app"], "shop");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_adopted_where_something_is_not_as_the_person_thinks() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older_labelled("one", "data", json!({})).await;
        for (arguments, says) in [
            (&["--snapshot", "one,gone"][..], "error: there is no snapshot gone in namespace "),
            (&["data", "typo"], "error: there is neither a claim nor a snapshot of one in namespace "),
            (&["data", "--from", "a=b=c"], "error: cannot list the snapshots that match \"a=b=c\""),
        ] {
            let said = cluster.say(&rights(), &[&["adopt", "--yes"], arguments].concat()).await;
            said.assert_exit(2).assert_says(says);
        }
        // The rights of a run are not enough, and the error says which is.
        let may_run = rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS].concat());
        let said = cluster.say(&may_run, &["adopt", "--snapshot", "one", "--yes"]).await;
        said.assert_exit(2)
            .assert_says("error: cannot adopt snapshot one in namespace ")
            .assert_says("verbs: [\"patch\"]")
            .assert_says("adopted 0 of 1 snapshot\n");
        assert_eq!(marks(cluster, "one").await.0["job"], Value::Null);
        cluster.say(&rights(), &["adopt", "--snapshot", "one", "--yes"]).await.assert_exit(0);
        assert_eq!(marks(cluster, "one").await.0["job"], "volume-snapshotter");
    })
    .await;
}

#[tokio::test]
async fn one_that_changed_a_moment_ago_is_not_adopted() {
    embedded(Options::default(), async |cluster| {
        cluster.claim("data").await;
        scheduled(cluster, "data", &["one", "two"]).await;
        let namespace = cluster.namespace.clone();
        // Another schedule gets them after they were shown.
        cluster.fake().before(
            |request| request.is("patch", "volumesnapshots"),
            1,
            move |others| {
                for name in ["one", "two"] {
                    others.label("volumesnapshots", &namespace, name, "job", Some("weekly"));
                }
            },
        );
        let said = cluster.say(&rights(), &["adopt", "data", "--yes"]).await;
        said.assert_exit(1)
            .assert_says("error: cannot adopt snapshot two in namespace ")
            .assert_says("it changed since it was read: look again, and repeat this")
            .assert_says("adopted 0 of 2 snapshots\n");
        for name in ["one", "two"] {
            let labels = marks(cluster, name).await.0;
            assert_eq!((&labels["job"], &labels[SNAPSCHEDULER]), (&json!("weekly"), &json!("hourly")));
        }
    })
    .await;
}

#[tokio::test]
async fn one_whose_answer_was_lost_is_adopted_once() {
    embedded(Options::default(), async |cluster| {
        cluster.claim("data").await;
        scheduled(cluster, "data", &["one"]).await;
        let is_patch = |request: &fake_apiserver::Request| request.is("patch", "volumesnapshots");
        cluster.fake().fault_nth(is_patch, 1, Fault::Cut(When::After));
        let said = cluster.say(&rights(), &["adopt", "data", "--yes"]).await;
        said.assert_exit(0).assert_says("adopted 1 of 1 snapshot;");
        assert_eq!(marks(cluster, "one").await.0["job"], "volume-snapshotter");
        // One that is gone, in the meantime, is an error: it was meant.
        scheduled(cluster, "data", &["two"]).await;
        let namespace = cluster.namespace.clone();
        cluster
            .fake()
            .before(is_patch, 1, move |others| drop(others.remove("volumesnapshots", &namespace, "two")));
        let said = cluster.say(&rights(), &["adopt", "--snapshot=two", "--yes"]).await;
        said.assert_exit(1).assert_says("error: cannot adopt snapshot two in namespace ");
    })
    .await;
}
