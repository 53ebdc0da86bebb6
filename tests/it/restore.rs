//! `volume-snapshotter restore`: a new claim from a snapshot, whatever became of the old one.

mod answers;
mod groups;

use std::{
    collections::BTreeSet,
    sync::LazyLock,
    time::{Duration, Instant},
};

use fake_apiserver::{Fault, Options, Provision, When, objects};
use k8s_openapi::api::{
    batch::v1::{CronJob, JobSpec},
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use serde_json::{Value, json};

use volume_snapshotter::{
    cluster::{RESTORE_CLASS_PERMISSIONS, RESTORE_GROUP_PERMISSIONS, RESTORE_PERMISSIONS},
    settings::{RESTORE_NAMES, RestoreSettings},
};

use crate::{
    commands::Said,
    manifests::{
        Granted, Rendered, Tree, assignment, container_of, deadline, from_the_pod, granted, longest,
        on_an_overlay, on_the_base, pod_of, top, violations,
    },
    test_cluster::{TestCluster, embedded_only, everywhere, rules},
};

const NEEDS_SLOW_DRIVER: &str = "needs a provisioner whose speed and errors a test chooses";
const NEEDS_OWN_CLASSES: &str = "needs StorageClasses of a test's own";
const NEEDS_FAULTS: &str = "needs a fault on the way";

/// The rules of the Role that the manifests have for a restore.
fn restore_rights() -> Value {
    rules(RESTORE_PERMISSIONS)
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Restores with the rights of the Role.
async fn restore(cluster: &TestCluster, arguments: &[&str]) -> Said {
    cluster.say(&restore_rights(), &[&["restore"], arguments].concat()).await
}

async fn claim_names(cluster: &TestCluster) -> Vec<String> {
    let claims = cluster.claims().await;
    claims.iter().map(|claim| claim["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Makes a claim of a specification of its own, and waits until it is bound.
async fn special_claim(cluster: &TestCluster, name: &str, change: impl FnOnce(&mut Value)) {
    let mut claim = objects::claim(&cluster.namespace, name);
    change(&mut claim["spec"]);
    cluster.post(&cluster.claims_path(), &claim).await;
    bound(cluster, name).await;
}

async fn bound(cluster: &TestCluster, name: &str) {
    cluster
        .until("the claim is bound", async || {
            cluster.try_claim(name).await.is_some_and(|claim| claim["status"]["phase"] == "Bound")
        })
        .await;
}

// --- What is restored ------------------------------------------------------------------------------

#[tokio::test]
async fn the_latest_ready_snapshot_becomes_a_new_claim_like_the_old_one() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let said = restore(cluster, &["--claim", "data", "--to", "data-restored"]).await;
        said.assert_exit(0)
            .assert_says("making claim data-restored from snapshot old of claim data, which is from");
        assert_eq!(said.out, "persistentvolumeclaim/data-restored\n");
        assert!(said.message.starts_with("claim data-restored in namespace "), "{}", said.message);
        let claim = cluster.try_claim("data-restored").await.expect("the new claim");
        let source = cluster.try_claim("data").await.expect("the old claim");
        for field in ["accessModes", "storageClassName", "volumeMode"] {
            assert_eq!(claim["spec"][field], source["spec"][field], "{field}");
        }
        assert_eq!(claim["spec"]["dataSource"]["name"], "old");
        let metadata = &claim["metadata"];
        assert_eq!(metadata["labels"]["volume-snapshotter/restored-claim"], "data");
        assert_eq!(metadata["labels"]["volume-snapshotter/restored-snapshot"], "old");
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "volume-snapshotter");
        let time = &cluster.snapshot("old").await["status"]["creationTime"];
        assert_eq!(&metadata["annotations"]["volume-snapshotter/restored-time"], time);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_is_chosen_by_its_name_or_by_a_moment() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("first", "data").await;
        tokio::time::sleep(millis(1100)).await;
        cluster.older_labelled("second", "data", json!({"job": "weekly"})).await;
        let at =
            cluster.snapshot("first").await["status"]["creationTime"].as_str().expect("a time").to_owned();
        for (to, arguments) in [
            ("by-name", vec!["--snapshot=first"]),
            ("by-name-and-claim", vec!["--snapshot=first", "--claim=data"]),
            ("by-time", vec!["--claim=data", "--at", &at]),
            ("by-schedule", vec!["--claim=data", "--job=volume-snapshotter"]),
            ("latest-of-any", vec!["--claim=data"]),
        ] {
            restore(cluster, &[arguments, vec!["--to", to]].concat()).await.assert_exit(0);
            let expected = if to == "latest-of-any" { "second" } else { "first" };
            let claim = cluster.try_claim(to).await.expect("the new claim");
            assert_eq!(claim["spec"]["dataSource"]["name"], expected, "{to}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_settings_of_a_pod_are_as_good_as_flags() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let settings = [
            ("RESTORE_CLAIM", "data"),
            ("RESTORE_TO", "again"),
            ("RESTORE_LOG_FORMAT", "json"),
            ("RESTORE_RUN_ID", "volume-snapshotter-restore-1"),
            ("RESTORE_RUN_UID", "0e1f2a3b"),
            // Those of the run beside it are none of its business.
            ("SNAPSHOT_RETENTION", "nonsense"),
        ];
        let said = cluster.say_with(&restore_rights(), &settings, &["restore"]).await;
        said.assert_exit(0);
        assert_eq!(said.out, "", "a pod's log is all JSON");
        for line in said.err.lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert!(line["message"].is_string());
        }
        let labels = cluster.try_claim("again").await.expect("the new claim")["metadata"]["labels"].clone();
        assert_eq!(labels["volume-snapshotter/run"], "volume-snapshotter-restore-1");
        assert_eq!(labels["volume-snapshotter/run-uid"], "0e1f2a3b");
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_prints_the_claim_that_it_would_make_and_makes_none() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let said = restore(cluster, &["--claim", "data", "--to", "data-restored", "--dry-run"]).await;
        said.assert_exit(0).assert_says("dry run: nothing was changed");
        assert!(cluster.try_claim("data-restored").await.is_none());
        let printed: Value = serde_saphyr::from_str(&said.out).expect("YAML");
        assert_eq!(printed["kind"], "PersistentVolumeClaim");
        assert_eq!(printed["metadata"]["namespace"], json!(cluster.namespace));
        // And it can be applied as it is.
        let made = cluster.post(&cluster.claims_path(), &printed).await;
        assert_eq!(made["spec"]["dataSource"]["name"], "old");
    })
    .await;
}

#[tokio::test]
async fn of_a_claim_that_is_gone_the_data_can_be_had_under_its_old_name() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.delete_claim("data").await;
        let class = cluster.storage_class.as_str();
        let said =
            restore(cluster, &["--claim", "data", "--to", "data", "--storage-class", class]).await;
        said.assert_exit(0).assert_says(
            "warning: claim data is gone, so assuming ReadWriteOnce (--access-modes), Filesystem (--volume-mode)",
        );
        assert_eq!(cluster.try_claim("data").await.expect("the new claim")["spec"]["dataSource"]["name"], "old");
    })
    .await;
}

#[tokio::test]
async fn without_a_class_of_its_own_the_default_class_is_left_to_the_cluster() {
    embedded_only(Options::default(), NEEDS_OWN_CLASSES, async |cluster| {
        cluster.claim("other").await;
        cluster.older("of-other", "other").await;
        cluster.delete_claim("other").await;
        // Nothing would ever give it a volume: it is not even made.
        for extra in [&[][..], &["--dry-run"]] {
            let said = restore(cluster, &[&["--claim", "other", "--to", "other"], extra].concat()).await;
            said.assert_exit(2)
                .assert_says("so claim other would never get a volume; choose one with --storage-class");
            said.assert_says("; see kubectl get storageclass");
            assert!(cluster.try_claim("other").await.is_none());
        }
        cluster.grant_everywhere(&rules(RESTORE_CLASS_PERMISSIONS)).await;
        let said = restore(cluster, &["--claim", "other", "--to", "other"]).await;
        said.assert_exit(2).assert_says("; there are hostpath");

        let mut class = objects::storage_class("standard");
        class["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
        cluster.fake().put(class);
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.delete_claim("data").await;
        let said = restore(cluster, &["--claim", "data", "--to", "b"]).await;
        said.assert_exit(0)
            .assert_says("assuming the cluster's default StorageClass (--storage-class)")
            .assert_says(", the default StorageClass standard");
        assert_eq!(cluster.try_claim("b").await.expect("a claim")["spec"]["storageClassName"], "standard");
    })
    .await;
}

#[tokio::test]
async fn a_block_volume_is_restored_as_one() {
    embedded_only(Options::default(), "a real driver need not know block volumes", async |cluster| {
        special_claim(cluster, "disk", |spec| {
            spec["volumeMode"] = json!("Block");
            spec["accessModes"] = json!(["ReadWriteMany"]);
        })
        .await;
        cluster.older("old", "disk").await;
        restore(cluster, &["--claim", "disk", "--to", "b"]).await.assert_exit(0);
        let spec = &cluster.try_claim("b").await.expect("a claim")["spec"];
        assert_eq!((&spec["volumeMode"], &spec["accessModes"]), (&json!("Block"), &json!(["ReadWriteMany"])));

        // Another mode is the provisioner's to refuse: an annotation can allow it.
        let other = ["--claim", "disk", "--to", "c", "--volume-mode", "Filesystem", "--timeout", "1s"];
        let said = restore(cluster, &other).await;
        said.assert_exit(1).assert_says("modifies the mode of the source volume");
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_was_expanded_since_is_restored_as_large_as_it_is() {
    embedded_only(Options::default(), "a real driver need not expand", async |cluster| {
        let mut class = objects::storage_class("hostpath");
        class["allowVolumeExpansion"] = json!(true);
        cluster.fake().put(class);
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().update("persistentvolumeclaims", &cluster.namespace, "data", |claim| {
            claim["spec"]["resources"]["requests"]["storage"] = json!("3Gi");
        });
        cluster
            .until("it is expanded", async || {
                cluster.try_claim("data").await.expect("a claim")["status"]["capacity"]["storage"] == "3Gi"
            })
            .await;
        restore(cluster, &["--claim", "data", "--to", "b"]).await.assert_exit(0);
        let claim = cluster.try_claim("b").await.expect("a claim");
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "3Gi");
        assert_eq!(claim["status"]["phase"], "Bound");
    })
    .await;
}

#[tokio::test]
async fn of_a_claim_that_was_made_anew_the_earlier_ones_snapshots_are_pointed_out() {
    embedded_only(Options::default(), "needs a snapshot that was made long ago", async |cluster| {
        cluster.claim("data").await;
        cluster.fake().put(objects::ready_snapshot(
            &cluster.namespace,
            "precious",
            "data",
            "2026-01-01T00:00:00Z",
        ));
        cluster.older("of-the-empty-one", "data").await;
        let said = restore(cluster, &["--claim", "data", "--to", "b"]).await;
        said.assert_exit(0).assert_says("warning: 1 snapshot is of a previous claim of the name data");
        let said = restore(cluster, &["--snapshot", "precious", "--to", "c"]).await;
        said.assert_exit(0).assert_says("warning: snapshot precious is of a previous claim of the name data");
    })
    .await;
}

// --- What is refused -------------------------------------------------------------------------------

#[tokio::test]
async fn a_claim_that_exists_is_never_touched() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.claim("other").await;
        cluster.older("old", "data").await;
        let before = cluster.try_claim("other").await.expect("a claim");
        for extra in [&[][..], &["--dry-run"]] {
            let said = restore(cluster, &[&["--claim", "data", "--to", "other"], extra].concat()).await;
            said.assert_exit(2).assert_says("error: there is a claim other in namespace ");
            assert_eq!(said.out, "");
        }
        let after = cluster.try_claim("other").await.expect("a claim");
        assert_eq!(before["metadata"]["resourceVersion"], after["metadata"]["resourceVersion"]);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_before_anything_is_made() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.claim("logs").await;
        cluster.older("old", "data").await;
        for (arguments, said, code) in [
            (vec!["--claim=typo"], "there is no snapshot of claim typo", 2),
            (vec!["--snapshot=typo"], "there is no snapshot typo in namespace", 2),
            (vec!["--snapshot=old", "--claim=logs"], "was taken of claim data and not of claim logs", 2),
            (vec!["--claim=data", "--at=2020-01-01T00:00:00Z"], "the oldest is old, from", 2),
            (
                vec!["--claim=data", "--size=1Ki"],
                "a volume of 1Ki is smaller than snapshot old, which needs",
                2,
            ),
            (vec!["--claim=data", "--size=1gi"], "--size=\"1gi\": not an amount of storage", 2),
        ] {
            restore(cluster, &[arguments, vec!["--to=b"]].concat()).await.assert_exit(code).assert_says(said);
        }
        restore(cluster, &["--claim", "data"]).await.assert_exit(2).assert_says("--to or RESTORE_TO");
        assert_eq!(claim_names(cluster).await, ["data", "logs"]);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_is_not_ready_or_is_being_deleted_is_refused() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.pending_claim("unbound").await;
        cluster.older("deleted", "data").await;
        cluster.delete_but_keep("deleted").await;
        let said = restore(cluster, &["--snapshot", "deleted", "--to", "b"]).await;
        said.assert_exit(2).assert_says("snapshot deleted cannot be restored: it is being deleted");
        cluster.new_snapshot("stuck", "unbound", json!({})).await;
        cluster
            .until("the controller reports an error", async || {
                cluster.snapshot("stuck").await["status"]["error"]["message"].is_string()
            })
            .await;
        let said = restore(cluster, &["--snapshot", "stuck", "--to", "b"]).await;
        said.assert_exit(1).assert_says("snapshot stuck cannot be restored: it is not ready: Failed to");
        let said = restore(cluster, &["--claim", "data", "--to", "b"]).await;
        said.assert_exit(2)
            .assert_says("1 snapshot of claim data, but none can be restored: deleted: it is being");
        assert!(cluster.try_claim("b").await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_with_the_line_to_add_to_the_role() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let permissions: Value = restore_rights()
            .as_array()
            .into_iter()
            .flatten()
            .filter(|rule| rule["verbs"][0] != "create")
            .cloned()
            .collect();
        let said = cluster.say(&permissions, &["restore", "--claim", "data", "--to", "b"]).await;
        said.assert_exit(2)
            .assert_says("cannot create claim b from snapshot old in namespace ")
            .assert_says("apiGroups: [\"\"], resources: [\"persistentvolumeclaims\"], verbs: [\"create\"]");
    })
    .await;
}

#[tokio::test]
async fn a_storage_class_that_is_gone_is_noticed_before_where_it_may_be_read_and_else_by_events() {
    embedded_only(Options::default(), NEEDS_OWN_CLASSES, async |cluster| {
        cluster.fake().put(objects::storage_class("retired"));
        special_claim(cluster, "data", |spec| spec["storageClassName"] = json!("retired")).await;
        cluster.older("old", "data").await;
        cluster.fake().remove("storageclasses", "", "retired");

        let said = restore(cluster, &["--claim", "data", "--to", "b", "--timeout", "1s"]).await;
        said.assert_exit(1)
            .assert_says(
                "warning: the volume does not exist yet: storageclass.storage.k8s.io \"retired\" not found",
            )
            .assert_says(
                "error: claim b was not Bound within 1 s: storageclass.storage.k8s.io \"retired\" not found",
            );

        cluster.grant_everywhere(&rules(RESTORE_CLASS_PERMISSIONS)).await;
        let said = restore(cluster, &["--claim", "data", "--to", "c"]).await;
        said.assert_exit(2)
            .assert_says("there is no StorageClass retired, which claim data has, in the cluster");
        assert!(cluster.try_claim("c").await.is_none());
        restore(cluster, &["--claim", "data", "--to", "d", "--storage-class", "hostpath"])
            .await
            .assert_exit(0);
    })
    .await;
}

// --- What others do --------------------------------------------------------------------------------

#[tokio::test]
async fn a_jobs_name_that_is_used_again_is_another_wish() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.claim("logs").await;
        cluster.older("of-data", "data").await;
        cluster.older("of-logs", "logs").await;
        let job = |uid: &'static str, claim: &'static str| {
            [
                ("RESTORE_CLAIM", claim),
                ("RESTORE_TO", "b"),
                ("RESTORE_RUN_ID", "restore-1"),
                ("RESTORE_RUN_UID", uid),
            ]
        };
        let permissions = restore_rights();
        cluster.say_with(&permissions, &job("uid-1", "data"), &["restore"]).await.assert_exit(0);
        // The same Job again.
        cluster.say_with(&permissions, &job("uid-1", "data"), &["restore"]).await.assert_exit(0);
        // A later one of the same name, or none that says who it is.
        for settings in [&job("uid-2", "logs")[..], &job("uid-2", "data"), &job("", "data")] {
            let said = cluster.say_with(&permissions, settings, &["restore"]).await;
            said.assert_exit(2).assert_says("there is a claim b in namespace ");
            assert_eq!(said.out, "");
        }
        // And the same one after somebody changed what it wishes.
        let said = cluster.say_with(&permissions, &job("uid-1", "logs"), &["restore"]).await;
        said.assert_exit(2).assert_says(
            "carries the uid of this Job, but is not what is asked for now: it is made from snapshot of-data of claim data, \
             and not of logs",
        );
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_somebody_planted_is_not_taken_for_the_jobs_own() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.older("other", "data").await;
        let labels = json!({
            "volume-snapshotter/run": "restore-1", "volume-snapshotter/run-uid": "uid-1",
            "volume-snapshotter/restored-claim": "data", "volume-snapshotter/restored-snapshot": "old",
        });
        let source = |name: &str| {
            json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name})
        };
        cluster.labelled_claim("empty", labels.clone()).await;
        let mut planted = objects::claim(&cluster.namespace, "of-other");
        planted["metadata"]["labels"] = labels;
        planted["spec"]["storageClassName"] = json!(cluster.storage_class);
        planted["spec"]["dataSource"] = source("other");
        cluster.post(&cluster.claims_path(), &planted).await;
        bound(cluster, "of-other").await;
        for (to, why) in [("empty", "it is made from no snapshot"), ("of-other", "it is made from snapshot other")] {
            let settings = [
                ("RESTORE_CLAIM", "data"),
                ("RESTORE_SNAPSHOT", "old"),
                ("RESTORE_TO", to),
                ("RESTORE_RUN_ID", "restore-1"),
                ("RESTORE_RUN_UID", "uid-1"),
            ];
            let said = cluster.say_with(&restore_rights(), &settings, &["restore"]).await;
            said.assert_exit(2).assert_says(why);
            assert_eq!(said.out, "");
        }
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_dated_in_the_future_is_not_the_latest() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("of-the-future", "data").await;
        let status = json!({"creationTime": "2099-01-01T00:00:00Z"});
        cluster.patch_snapshot_status("of-the-future", status).await;
        cluster.older("true", "data").await;
        let said = restore(cluster, &["--claim=data", "--to=b"]).await;
        said.assert_exit(0).assert_says(
            "warning: snapshot of-the-future is dated in the future, 2099-01-01T00:00:00Z, and is skipped",
        );
        let name = |claim: Value| claim["spec"]["dataSource"]["name"].clone();
        assert_eq!(cluster.try_claim("b").await.map(name), Some(json!("true")));
        let said = restore(cluster, &["--snapshot=of-the-future", "--to=c"]).await;
        said.assert_exit(0).assert_says("warning: snapshot of-the-future is dated in the future");
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_of_a_storage_whose_clock_is_behind_is_the_latest_all_the_same() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("first", "data").await;
        tokio::time::sleep(millis(1100)).await;
        cluster.older("behind", "data").await;
        cluster.patch_snapshot_status("behind", json!({"creationTime": "2020-01-01T00:00:00Z"})).await;
        let said = restore(cluster, &["--claim=data", "--to=b"]).await;
        said.assert_exit(0)
            .assert_says("the storage system says that its data was taken at 2020-01-01T00:00:00Z");
        let name = |claim: Value| claim["spec"]["dataSource"]["name"].clone();
        assert_eq!(cluster.try_claim("b").await.map(name), Some(json!("behind")));
    })
    .await;
}

#[tokio::test]
async fn names_that_others_wrote_reach_neither_a_url_nor_the_terminal() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for (name, claim) in [
            ("path", "../../victim"),
            ("query", "?labelSelector=a"),
            ("forged", "data\u{1b}[2K\r\nmaking claim b\u{202e}"),
        ] {
            // The controller finds no such claim and sets an error. The snapshot is made ready after that, because
            // the error makes it not ready.
            cluster.new_snapshot(name, claim, json!({"job": "volume-snapshotter"})).await;
            cluster
                .until("the controller has set its error", async || {
                    !cluster.snapshot(name).await["status"]["error"].is_null()
                })
                .await;
            cluster.patch_snapshot_status(name, json!({"readyToUse": true, "restoreSize": "1Mi"})).await;
            let said = restore(
                cluster,
                &["--snapshot", name, "--to", name, "--storage-class", &cluster.storage_class, "--dry-run"],
            )
            .await;
            said.assert_exit(0).assert_says("and no claim can be called that");
            for (text, stream) in [(&said.err, "error"), (&said.out, "output"), (&said.message, "message")] {
                let bad =
                    |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
                assert!(!text.contains(bad), "standard {stream}: {text:?}");
            }
            assert!(!said.out.contains("restored-claim"), "{}", said.out);
            assert!(!said.err.lines().any(|line| line.starts_with("making claim b")), "{}", said.err);
        }
    })
    .await;
    embedded_only(Options::default(), "a real API server keeps no log for tests", async |cluster| {
        let mut hostile =
            objects::ready_snapshot(&cluster.namespace, "path", "../../victim", "2026-01-01T00:00:00Z");
        hostile["spec"]["source"]["persistentVolumeClaimName"] = json!("../../victim");
        cluster.fake().put(hostile);
        restore(cluster, &["--snapshot=path", "--to=b", "--storage-class=hostpath"]).await;
        let requests = cluster.fake().requests();
        assert!(requests.iter().any(|request| request.is("create", "persistentvolumeclaims")));
        let astray = requests.iter().find(|request| request.path.contains("victim"));
        assert!(astray.is_none(), "{astray:?}");
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_was_bound_to_a_free_volume_does_not_have_the_data() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let spare = format!("{}-spare", cluster.namespace);
        let mut volume = objects::free_volume(&spare, &cluster.storage_class, "1Mi");
        // Which driver it is of does not matter, and a real cluster has to know the kind.
        let spec = volume["spec"].as_object_mut().expect("a specification");
        spec.remove("csi");
        spec.insert("hostPath".to_owned(), json!({"path": "/tmp/spare"}));
        cluster.post_outside("/api/v1/persistentvolumes", &spare, &volume).await;
        for may_read in [false, true] {
            if may_read {
                cluster.delete_claim("b").await;
                cluster.delete_outside(&format!("/api/v1/persistentvolumes/{spare}")).await;
                cluster.post_outside("/api/v1/persistentvolumes", &spare, &volume).await;
                cluster.grant_everywhere(&rules(RESTORE_CLASS_PERMISSIONS)).await;
            }
            let said = restore(cluster, &["--claim=data", "--to=b", "--size=1Mi"]).await;
            said.assert_exit(2)
                .assert_says(&format!("Kubernetes preferred volume {spare}, which existed before, was free and has the same class"))
                .assert_says("so the claim does not have the snapshot's data. Delete the claim (kubectl delete pvc b -n ");
            assert_eq!(said.out, "");
            assert!(!said.err.contains("next:"), "{}", said.err);
            let claim = cluster.try_claim("b").await.expect("nothing is deleted");
            assert_eq!(claim["spec"]["volumeName"], spare);
        }
        // Without one the restore succeeds.
        cluster.delete_claim("b").await;
        cluster.delete_outside(&format!("/api/v1/persistentvolumes/{spare}")).await;
        restore(cluster, &["--claim=data", "--to=b", "--size=1Mi"]).await.assert_exit(0);
    })
    .await;
}

/// Binds a claim as if it were to a volume that was there before; the provisioner leaves it alone.
async fn bind_to(cluster: &TestCluster, name: &str, volume: &str, provisioner: Option<&str>) {
    cluster.until("the claim is made", async || cluster.try_claim(name).await.is_some()).await;
    cluster.fake().update("persistentvolumeclaims", &cluster.namespace, name, |claim| {
        let annotations = &mut claim["metadata"]["annotations"];
        for prefix in ["volume", "volume.beta"] {
            annotations[format!("{prefix}.kubernetes.io/storage-provisioner")] = json!(provisioner);
        }
        if let (None, Some(annotations)) = (provisioner, annotations.as_object_mut()) {
            annotations.retain(|_, value| !value.is_null());
        }
        claim["spec"]["volumeName"] = json!(volume);
        claim["status"] =
            json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
    });
}

#[tokio::test]
async fn a_volume_that_is_not_called_after_its_claim_is_looked_at() {
    embedded_only(Options::default(), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().provision(|_| Some(Provision { after: None, error: None }));
        let volume = |name: &str, created: &str, uid: &Value| {
            json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {
                    "name": name, "creationTimestamp": created,
                    "annotations": {"pv.kubernetes.io/provisioned-by": "odd.csi"},
                },
                "spec": {
                    "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                    "csi": {"driver": "odd.csi", "volumeHandle": "x"},
                    "claimRef": {
                        "kind": "PersistentVolumeClaim", "namespace": cluster.namespace, "name": "any", "uid": uid,
                    },
                },
                "status": {"phase": "Bound"},
            })
        };
        let restored = async |to: &str, created: Option<&str>| {
            let to_flag = format!("--to={to}");
            let arguments = ["restore", "--claim=data", &to_flag, "--timeout=20s"];
            let saying = cluster.begin_to_say(&restore_rights(), &[], &arguments).await;
            cluster.until("the claim is made", async || cluster.try_claim(to).await.is_some()).await;
            let uid = cluster.try_claim(to).await.expect("a claim")["metadata"]["uid"].clone();
            if let Some(created) = created {
                cluster.fake().put(volume(&format!("odd-{to}"), created, &uid));
            }
            bind_to(cluster, to, &format!("odd-{to}"), Some("odd.csi")).await;
            saying.finish().await
        };
        // With the Role alone nobody can tell.
        let said = restored("b", None).await;
        said.assert_exit(2).assert_says("it is not known whether that was created from the snapshot");
        assert_eq!(said.out, "");
        cluster.grant_everywhere(&rules(RESTORE_CLASS_PERMISSIONS)).await;
        restored("c", Some("2099-01-01T00:00:00Z")).await.assert_exit(0);
        let said = restored("d", Some("2020-01-01T00:00:00Z")).await;
        said.assert_exit(2).assert_says("Kubernetes preferred volume odd-d, which existed before");
        assert_eq!(said.out, "");
    })
    .await;
}

// --- What comes next -------------------------------------------------------------------------------

/// A `kubectl` that notes what it is given and answers as one does; `failing` is what it fails at.
fn fake_kubectl(cluster: &TestCluster, failing: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let name = if failing.is_empty() { "nothing" } else { failing };
    let directory = cluster.directory(&format!("kubectl-that-fails-at-{name}"));
    let log = directory.join("log");
    // Of an earlier time.
    let _ = std::fs::remove_file(&log);
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{}'\ncase \"$*\" in\n*' {name} '*|'{name} '*) exit 1;;\n*spec.replicas*) echo \
         3;;\n*volumes*name*) case $1 in get) echo store;; esac;;\n*'-o yaml'*) echo \
         volume.kubernetes.io/storage-provisioner;;\nesac\n",
        log.display()
    );
    let path = directory.join("kubectl");
    std::fs::write(&path, script).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it can be executed");
    (directory, log)
}

/// Pastes the commands after `next:` into a shell, and tells what kubectl was given and whether all went well.
fn pasted(cluster: &TestCluster, said: &Said, failing: &str) -> (Vec<String>, bool) {
    let (_, next) = said.err.split_once("next: ").expect("the next steps");
    let commands: String =
        next.split_once('\n').expect("commands").1.replace("NAME-OF-THE-DEPLOYMENT", "web");
    let (directory, log) = fake_kubectl(cluster, failing);
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let run = std::process::Command::new("bash").args(["-c", &commands]).env("PATH", path).output();
    let run = run.expect("bash");
    let log = std::fs::read_to_string(log).unwrap_or_default();
    (log.lines().map(str::to_owned).collect(), run.status.success())
}

#[tokio::test]
async fn the_next_steps_are_printed_ready_to_paste_and_stop_at_the_first_failure() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let said = restore(cluster, &["--claim=data", "--to=data-restored"]).await;
        said.assert_exit(0);
        assert_eq!(said.out, "persistentvolumeclaim/data-restored\n", "they are no data");
        let (given, well) = pasted(cluster, &said, "");
        assert!(well, "{given:?}");
        let verbs: Vec<&str> = given.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(verbs, ["get", "get", "scale", "patch", "scale", "rollout"], "{given:?}");
        assert!(given[2].ends_with("--replicas=0") && given[4].ends_with("--replicas=3"), "{given:?}");
        assert!(given.iter().all(|line| line.contains(&format!("-n {}", cluster.namespace))), "{given:?}");
        let (_, patch) = given[3].split_once("--patch ").expect("a patch");
        let patch: Value = serde_json::from_str(patch).expect("JSON");
        let volume = json!({"name": "store", "persistentVolumeClaim": {"claimName": "data-restored"}});
        assert_eq!(patch["spec"]["template"]["spec"]["volumes"], json!([volume]));
        // Whatever fails, the application is not scaled up again on its old claim.
        for failing in ["get", "scale", "patch"] {
            let (given, well) = pasted(cluster, &said, failing);
            assert!(
                !well && !given.iter().any(|line| line.ends_with("--replicas=3")),
                "{failing}: {given:?}"
            );
        }
    })
    .await;
}

// --- Waiting ---------------------------------------------------------------------------------------

#[tokio::test]
async fn a_class_that_waits_for_a_consumer_is_understood_with_and_without_the_right_to_read_it() {
    embedded_only(Options::default(), NEEDS_OWN_CLASSES, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().put(objects::waiting_storage_class("later"));
        for (to, may_read) in [("by-events", false), ("by-class", true)] {
            if may_read {
                cluster.grant_everywhere(&rules(RESTORE_CLASS_PERMISSIONS)).await;
            }
            let said = restore(cluster, &["--claim", "data", "--to", to, "--storage-class", "later"]).await;
            said.assert_exit(0)
                .assert_says("its StorageClass waits for the first consumer")
                .assert_says("volume-snapshotter/hold=true");
            assert_eq!(said.out, format!("persistentvolumeclaim/{to}\n"));
            assert!(said.took < millis(3000), "{:?}", said.took);
            let (given, well) = pasted(cluster, &said, "");
            assert!(well, "{given:?}");
            assert!(
                given[0].starts_with("label volumesnapshot old") && given[0].ends_with("hold=true"),
                "{given:?}"
            );
            assert!(given.last().is_some_and(|line| line.ends_with("volume-snapshotter/hold-")), "{given:?}");
            assert_eq!(cluster.try_claim(to).await.expect("a claim")["status"]["phase"], "Pending");
            // The first pod comes.
            cluster.annotate_claim(to, json!({"volume.kubernetes.io/selected-node": "node-1"})).await;
            bound(cluster, to).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_provisioner_complains_of_is_said_once_and_is_the_reason_when_the_time_runs_out() {
    embedded_only(Options::default(), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().provision(|claim| {
            let complaint = "rpc error: code = ResourceExhausted desc = no space on the storage";
            (claim["metadata"]["name"] == "b").then(|| Provision::fails(complaint))
        });
        let said = restore(cluster, &["--claim", "data", "--to", "b", "--timeout", "1500ms"]).await;
        said.assert_exit(1).assert_says(
            "error: claim b was not Bound within 1.50 s: failed to provision volume with StorageClass \"hostpath\": rpc \
             error: code = ResourceExhausted desc = no space on the storage; it still exists",
        );
        assert_eq!(said.err.matches("warning: the volume does not exist yet").count(), 1, "{}", said.err);
        assert!(said.took < millis(4000), "{:?}", said.took);
        assert!(cluster.try_claim("b").await.is_some(), "nothing is deleted");
    })
    .await;
}

#[tokio::test]
async fn a_slow_provisioner_is_waited_for() {
    let mut options = Options::default();
    options.provisioner.bound_after = millis(1200);
    embedded_only(options, NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let said = restore(cluster, &["--claim", "data", "--to", "b"]).await;
        said.assert_exit(0).assert_says("claim b in namespace ").assert_says("is Bound after ");
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_is_deleted_under_a_restore_ends_it() {
    embedded_only(Options::default(), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().provision(|_| Some(Provision { after: None, error: None }));
        let saying =
            cluster.begin_to_say(&restore_rights(), &[], &["restore", "--claim=data", "--to=b"]).await;
        cluster.until("the claim is made", async || cluster.try_claim("b").await.is_some()).await;
        cluster.delete_snapshot("old").await;
        let said = saying.finish().await;
        said.assert_exit(2).assert_says(
            "error: snapshot old was deleted before claim b was Bound: error getting handle for DataSource Type \
             VolumeSnapshot by Name old: snapshot old is currently being deleted",
        );
        assert!(said.took < millis(5000), "{:?}", said.took);
        assert!(cluster.try_claim("b").await.is_some(), "nothing is deleted");
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_deleted_under_a_restore_ends_it() {
    embedded_only(Options::default(), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().provision(|_| Some(Provision { after: None, error: None }));
        let saying =
            cluster.begin_to_say(&restore_rights(), &[], &["restore", "--claim=data", "--to=b"]).await;
        cluster.until("the claim is made", async || cluster.try_claim("b").await.is_some()).await;
        cluster.delete_claim("b").await;
        saying.finish().await.assert_exit(2).assert_says("error: claim b was deleted before it was Bound");
    })
    .await;
}

#[tokio::test]
async fn without_the_right_to_read_events_it_waits_all_the_same() {
    let mut options = Options::default();
    options.provisioner.bound_after = millis(900);
    embedded_only(options, NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let permissions: Value = restore_rights()
            .as_array()
            .into_iter()
            .flatten()
            .filter(|rule| rule["resources"][0] != "events")
            .cloned()
            .collect();
        let said = cluster.say(&permissions, &["restore", "--claim=data", "--to=b"]).await;
        said.assert_exit(0);
        assert_eq!(said.err.matches("continuing without the Events of the claim").count(), 1, "{}", said.err);
    })
    .await;
}

#[tokio::test]
async fn the_next_attempt_of_a_job_goes_on_with_the_claim_of_the_one_before() {
    embedded_only(Options::default(), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().provision(|_| Some(Provision { after: None, error: None }));
        let settings = [("RESTORE_CLAIM", "data"), ("RESTORE_TO", "b"), ("RESTORE_RUN_UID", "uid-7")];
        let saying = cluster.begin_to_say(&restore_rights(), &settings, &["restore"]).await;
        cluster.until("the claim is made", async || cluster.try_claim("b").await.is_some()).await;
        let told = Instant::now();
        saying.signal("TERM");
        let said = saying.finish().await;
        said.assert_exit(143);
        assert!(told.elapsed() < millis(1000), "{:?}", told.elapsed());
        assert_eq!(said.message, "told to stop; if claim b was made it stays, and may still become Bound\n");

        let uid = cluster.try_claim("b").await.expect("a claim")["metadata"]["uid"].clone();
        cluster.fake().provision(|_| None);
        cluster.annotate_claim("b", json!({"nudge": "on"})).await;
        let said = cluster.say_with(&restore_rights(), &settings, &["restore"]).await;
        said.assert_exit(0).assert_says("going on with claim b, which this Job's earlier attempt made");
        assert_eq!(cluster.try_claim("b").await.expect("a claim")["metadata"]["uid"], uid);
        // Another Job, and a person, find a claim that exists.
        let other = [("RESTORE_CLAIM", "data"), ("RESTORE_TO", "b"), ("RESTORE_RUN_UID", "uid-8")];
        cluster.say_with(&restore_rights(), &other, &["restore"]).await.assert_exit(2);
        restore(cluster, &["--claim=data", "--to=b"]).await.assert_exit(2);
    })
    .await;
}

#[tokio::test]
async fn ctrl_c_ends_a_restore_and_says_what_is_left() {
    embedded_only(Options::default(), NEEDS_SLOW_DRIVER, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.fake().provision(|_| Some(Provision { after: None, error: None }));
        let saying =
            cluster.begin_to_say(&restore_rights(), &[], &["restore", "--claim=data", "--to=b"]).await;
        cluster.until("the claim is made", async || cluster.try_claim("b").await.is_some()).await;
        saying.signal("INT");
        saying.finish().await.assert_exit(130).assert_says("if claim b was made it stays");
    })
    .await;
}

// --- Requests --------------------------------------------------------------------------------------

#[tokio::test]
async fn a_lost_answer_to_the_creation_makes_no_second_claim() {
    for fault in [
        Fault::Cut(When::After),
        Fault::Error(500, When::After),
        Fault::Error(504, When::After),
        Fault::Cut(When::Before),
        Fault::Error(503, When::Before),
        Fault::TooManyRequests { retry_after: Some(1), status: true },
    ] {
        embedded_only(Options::default(), NEEDS_FAULTS, async |cluster| {
            cluster.claim("data").await;
            cluster.older("old", "data").await;
            cluster.fake().clear_requests();
            cluster.fake().fault_nth(
                |request| request.is("create", "persistentvolumeclaims"),
                1,
                fault.clone(),
            );
            let said = restore(cluster, &["--claim=data", "--to=b"]).await;
            said.assert_exit(0);
            let creates: Vec<bool> = cluster
                .fake()
                .requests()
                .iter()
                .filter(|request| request.is("create", "persistentvolumeclaims"))
                .map(|request| request.carried_out)
                .collect();
            assert_eq!(
                creates.iter().filter(|carried_out| **carried_out).count(),
                1,
                "{fault:?}: {creates:?}"
            );
            // After an answer that was lost it looks, and finds it.
            let was_made = matches!(fault, Fault::Cut(When::After) | Fault::Error(_, When::After));
            assert_eq!(creates.len(), if was_made { 1 } else { 2 }, "{fault:?}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_claim_that_somebody_makes_in_between_is_not_taken_for_ones_own() {
    embedded_only(Options::default(), NEEDS_FAULTS, async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let is_create = |request: &fake_apiserver::Request| {
            request.is("create", "persistentvolumeclaims") && request.name == "b"
        };
        cluster.fake().fault_nth(is_create, 1, Fault::Delay(millis(700)));
        let saying =
            cluster.begin_to_say(&restore_rights(), &[], &["restore", "--claim=data", "--to=b"]).await;
        cluster
            .until("the creation is under way", async || cluster.fake().requests().iter().any(is_create))
            .await;
        cluster.fake().put(objects::bound_claim(&cluster.namespace, "b", &[]));
        saying.finish().await.assert_exit(2).assert_says("a restore never touches one");
        assert!(cluster.try_claim("b").await.expect("a claim")["spec"]["dataSource"].is_null());
    })
    .await;
}

#[tokio::test]
async fn a_restore_reads_and_makes_one_claim_and_does_nothing_else() {
    embedded_only(Options::default(), "a real API server keeps no log for tests", async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let saying =
            cluster.begin_to_say(&restore_rights(), &[], &["restore", "--claim=data", "--to=b"]).await;
        cluster.fake().clear_requests();
        saying.finish().await.assert_exit(0);
        let requests = cluster.fake().requests();
        let of_account = requests.iter().filter(|request| request.user.starts_with("system:serviceaccount:"));
        let log: Vec<String> =
            of_account.map(|request| format!("{} {}", request.verb, request.resource)).collect();
        assert_eq!(
            log.iter().map(String::as_str).collect::<BTreeSet<_>>(),
            [
                "create persistentvolumeclaims",
                "get persistentvolumeclaims",
                "get storageclasses",
                "list volumesnapshots",
            ]
            .into(),
            "{log:?}"
        );
        assert_eq!(log.iter().filter(|line| line.starts_with("create")).count(), 1);
    })
    .await;
}

// --- In the cluster --------------------------------------------------------------------------------

const COMPONENT: &str = "kustomize/components/restore";

/// The component on the base, on an overlay where everything that can be another is, and beside all
/// others.
static RENDERED: LazyLock<Vec<Rendered>> = LazyLock::new(|| {
    let tree = Tree::new("restore");
    let others = ["restore", "second-schedule", "before-upgrade", "all-claims", "cluster-wide", "dry-run"];
    [
        ("restore-on-the-base", on_the_base(&["restore"])),
        ("restore-moved", on_an_overlay(&["restore"])),
        ("restore-beside-all", on_an_overlay(&others)),
        ("restore-without", on_an_overlay(&others[1..])),
    ]
    .into_iter()
    .filter_map(|(name, text)| tree.render(name, &text))
    .collect()
});

fn job_of(rendered: &Rendered) -> Option<(CronJob, JobSpec)> {
    let cron_jobs = rendered.all::<CronJob>();
    let is_restore = |cron_job: &CronJob| {
        cron_job.metadata.name.as_deref().is_some_and(|name| name.ends_with("volume-snapshotter-restore"))
    };
    let cron_job = cron_jobs.into_iter().find(is_restore)?;
    let job = cron_job.spec.as_ref().and_then(|spec| spec.job_template.spec.clone()).expect("a Job");
    Some((cron_job, job))
}

fn settings_of(
    rendered: &Rendered,
    job: &JobSpec,
    change: &[(String, String)],
) -> Result<RestoreSettings, String> {
    let container = container_of(job);
    let mut variables = std::collections::BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let reference = source.config_map_ref.as_ref().expect("settings come from a ConfigMap");
        assert_ne!(reference.optional, Some(true));
        variables.extend(rendered.named::<ConfigMap>(&reference.name).data.unwrap_or_default());
    }
    let env: Vec<&str> = container.env.iter().flatten().map(|variable| variable.name.as_str()).collect();
    assert_eq!(env, ["RESTORE_RUN_ID", "RESTORE_RUN_UID"], "{}: nobody else changes it", rendered.directory);
    for name in env {
        variables.insert(name.to_owned(), "volume-snapshotter-restore-1".to_owned());
    }
    variables.extend(change.iter().cloned());
    for name in variables.keys() {
        assert!(RESTORE_NAMES.contains(&name.as_str()), "nobody reads {name}");
    }
    let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
    RestoreSettings::parse(variables, Vec::new()).map_err(|(problems, _)| problems.to_string())
}

#[test]
fn the_component_is_a_suspended_cron_job_whose_pods_restore_and_may_do_nothing_else() {
    for rendered in RENDERED.iter() {
        let directory = rendered.directory.as_str();
        let Some((cron_job, job)) = job_of(rendered) else {
            assert_eq!(directory, "restore-without");
            continue;
        };
        let spec = cron_job.spec.expect("a specification");
        assert_eq!(
            (spec.suspend, spec.concurrency_policy.as_deref()),
            (Some(true), Some("Forbid")),
            "{directory}"
        );
        let (pod, container) = (pod_of(&job), container_of(&job));
        for (variable, label) in [("RESTORE_RUN_ID", "job-name"), ("RESTORE_RUN_UID", "controller-uid")] {
            assert_eq!(
                from_the_pod(container, variable),
                [format!("metadata.labels['batch.kubernetes.io/{label}']")],
                "{directory}: {variable}"
            );
        }
        assert_eq!(container.args.as_deref(), Some(&["restore".to_owned()][..]), "{directory}");
        assert_eq!(violations(pod), [""; 0], "{directory}");
        let context = container.security_context.as_ref();
        assert_eq!(context.and_then(|context| context.read_only_root_filesystem), Some(true), "{directory}");
        assert_eq!(pod.enable_service_links, Some(false), "{directory}");
        assert_eq!(pod.restart_policy.as_deref(), Some("Never"), "{directory}");
        let rules = &job.pod_failure_policy.as_ref().expect("podFailurePolicy is set").rules;
        assert_eq!(rules[0].on_exit_codes.as_ref().map(|codes| codes.values.as_slice()), Some(&[2][..]));

        // Account, binding and Role are its own, and the Role has the rights that it uses.
        let account = pod.service_account_name.clone().expect("an account");
        rendered.named::<ServiceAccount>(&account);
        let bindings: Vec<RoleBinding> = rendered
            .all::<RoleBinding>()
            .into_iter()
            .filter(|binding| binding.subjects.iter().flatten().any(|subject| subject.name == account))
            .collect();
        let [binding] = bindings.as_slice() else { panic!("{directory}: one binding") };
        let role: Role = rendered.named(&binding.role_ref.name);
        let used: Granted = [RESTORE_PERMISSIONS, RESTORE_GROUP_PERMISSIONS]
            .into_iter()
            .flatten()
            .map(|permission| (permission.group.into(), permission.resource.into(), permission.verb.into()))
            .collect();
        assert_eq!(granted(directory, role.rules.unwrap_or_default()), used, "{directory}");
        let accounts: Vec<_> =
            rendered.jobs().iter().map(|job| pod_of(job).service_account_name.clone()).collect();
        assert_eq!(
            accounts.iter().filter(|other| other.as_deref() == Some(&account)).count(),
            1,
            "{directory}"
        );
        for document in &rendered.documents {
            let changed = document["metadata"]["labels"]["app.kubernetes.io/name"] == "volume-snapshotter";
            let name = document["metadata"]["name"].as_str().unwrap_or_default();
            assert!(
                !(changed && name.ends_with("-restore")),
                "{directory}: other components would change {name}"
            );
        }
    }
}

#[test]
fn the_component_changes_nothing_of_the_runs() {
    let of = |name: &str| RENDERED.iter().find(|rendered| rendered.directory == name);
    let (Some(with), Some(without)) = (of("restore-beside-all"), of("restore-without")) else { return };
    for document in &without.documents {
        assert!(with.documents.contains(document), "{}", document["metadata"]["name"]);
    }
    assert_eq!(with.documents.len(), without.documents.len() + 5);
}

#[test]
fn the_components_settings_and_examples_are_accepted_and_fit_its_deadline() {
    let text = std::fs::read_to_string(top().join(COMPONENT).join("restore.env")).expect("restore.env");
    let examples: Vec<(String, String)> =
        text.lines().filter_map(|line| assignment(line.strip_prefix('#')?)).collect();
    assert!(examples.len() >= 8, "{examples:?}");
    for rendered in RENDERED.iter() {
        let Some((_, job)) = job_of(rendered) else { continue };
        let mut cases: Vec<Vec<(String, String)>> =
            examples.iter().map(|example| vec![example.clone()]).collect();
        cases.push(Vec::new());
        for mut case in cases {
            let first = case.first().map(|(given, _)| given.clone()).unwrap_or_default();
            let is_either = |name: &str| first == name;
            assert!(
                case.iter().all(|(_, value)| value.trim() == value && !value.contains(['"', '#'])),
                "{case:?}"
            );
            if is_either("RESTORE_AT") {
                case.push(("RESTORE_SNAPSHOT".to_owned(), String::new()));
            }
            let pattern = ("RESTORE_TO".to_owned(), "{claim}-restored".to_owned());
            if is_either("RESTORE_GROUP") {
                case.extend([pattern, ("RESTORE_CLAIM".to_owned(), String::new())]);
            } else if case.contains(&pattern) {
                // With the line above it.
                continue;
            }
            let settings = settings_of(rendered, &job, &case).unwrap_or_else(|problems| panic!("{problems}"));
            assert!(longest(&job, settings.bound()) <= deadline(&job), "{case:?}");
        }
    }
}
