//! What a drill finds, and what it says of it.

use fake_apiserver::{Options, PodPlan, Request};
use serde_json::json;

use super::{IMAGE, found, plan, rights, rights_and_classes, verify, verify_with, whole};
use crate::test_cluster::{TestCluster, embedded_only, rules};

const NEEDS_PODS: &str = "needs pods whose end a test chooses";

async fn with_snapshot(scenario: impl AsyncFn(&TestCluster)) {
    embedded_only(Options::default(), NEEDS_PODS, async |cluster| {
        cluster.claim("data").await;
        cluster.taken("snap", "data").await;
        scenario(cluster).await;
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_can_be_read_is_verified_and_says_so() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        let said = verify(cluster, &["data"]).await;
        said.assert_exit(0).assert_says("snap is verified: 3 files, 4.1 kB");
        assert!(
            said.message.starts_with("the newest snapshot of 1 of 1 claim is verified\ndata: snap is"),
            "{}",
            said.message
        );
        let noted = cluster.noted("snap", "verified").await.expect("it is noted");
        let (time, found) = noted.split_once(' ').expect("a time and words");
        assert!(time.parse::<k8s_openapi::jiff::Timestamp>().is_ok(), "{noted}");
        assert_eq!(found, "3 files, 4.1 kB");
        assert_eq!(cluster.noted("snap", "verify-failed").await, None);
        // The Role has no right on claims, and the drill can do without: one denial is enough to know.
        let requests = cluster.fake().requests();
        let is_on_claim =
            |one: &&Request| one.user.contains("serviceaccount") && one.is("get", "persistentvolumeclaims");
        assert_eq!(requests.iter().filter(is_on_claim).count(), 1);
        cluster.nothing_is_left().await;
    })
    .await;
}

#[tokio::test]
async fn the_pod_gets_the_data_of_the_snapshot_and_nothing_else() {
    with_snapshot(async |cluster| {
        let namespace = cluster.namespace.clone();
        let data = cluster.fake().snapshot_content(&namespace, "snap");
        // Written after the snapshot was taken.
        cluster.fake().set_content(&namespace, "data", json!("later"));
        let (seen, see) = (std::sync::Arc::new(std::sync::Mutex::new(None)), std::sync::Arc::new(()));
        let noted = seen.clone();
        plan(cluster.fake(), move || {
            let (noted, namespace) = (noted.clone(), namespace.clone());
            PodPlan::decided(move |others, pod| {
                let claim = format!("{}-data", pod["metadata"]["name"].as_str().unwrap_or_default());
                *noted.lock().expect("no panic") = Some((others.content(&namespace, &claim), pod.clone()));
                whole()
            })
        });
        drop(see);
        verify(cluster, &["data"]).await.assert_exit(0);
        let (content, pod) = seen.lock().expect("no panic").take().expect("a pod");
        assert_eq!(Some(content), data);
        let spec = &pod["spec"];
        assert_eq!(spec["containers"][0]["args"], json!(["read", "/data"]));
        assert_eq!(
            (&spec["containers"][0]["image"], &spec["automountServiceAccountToken"]),
            (&json!(IMAGE), &json!(false))
        );
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["readOnly"], true);
    })
    .await;
}

#[tokio::test]
async fn damaged_data_is_found_and_an_earlier_verification_holds_no_more() {
    with_snapshot(async |cluster| {
        cluster
            .patch_snapshot(
                "snap",
                json!({"metadata": {"annotations": {"volume-snapshotter/verified": "2020-01-01T00:00:00Z 3 files"}}}),
            )
            .await;
        let named = json!({"unreadable": 1, "named": [{"path": "/data/a", "error": "Input/output error"}]});
        let message = found("unreadable", named);
        plan(cluster.fake(), move || PodPlan::fails(2, &message));
        let said = verify(cluster, &["data"]).await;
        said.assert_exit(2).assert_says("snapshot snap is damaged: 1 file or directory cannot be read: /data/a (Input/output");
        let noted = cluster.noted("snap", "verify-failed").await.expect("it is noted");
        assert!(noted.contains("Z damaged: 1 file or directory cannot be read: /data/a"), "{noted}");
        assert_eq!(cluster.noted("snap", "verified").await, None);
        cluster.nothing_is_left().await;
        // It is read again, for somebody may have seen to it.
        plan(cluster.fake(), whole);
        verify(cluster, &["data"]).await.assert_exit(0);
        assert_eq!(cluster.noted("snap", "verify-failed").await, None);
        assert!(cluster.noted("snap", "verified").await.is_some());
    })
    .await;
}

#[tokio::test]
async fn what_says_nothing_of_the_data_leaves_an_earlier_verification_alone() {
    with_snapshot(async |cluster| {
        let before = "2020-01-01T00:00:00Z 3 files";
        let annotations = json!({"volume-snapshotter/verified": before});
        cluster.patch_snapshot("snap", json!({"metadata": {"annotations": annotations}})).await;
        plan(cluster.fake(), || PodPlan::evicted("The node was low on resource: memory."));
        let said = verify(cluster, &["data"]).await;
        said.assert_exit(1).assert_says(
            "snapshot snap is not verified: the pod was ended before it had read the volume: Evicted",
        );
        assert_eq!(cluster.noted("snap", "verified").await.as_deref(), Some(before));
        assert!(cluster.noted("snap", "verify-failed").await.is_some_and(|why| why.contains(" not read: ")));
    })
    .await;
}

#[tokio::test]
async fn a_command_of_the_users_stands_for_the_reading() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), || PodPlan::fails(1, "").logging("row 7 missing from index\n"));
        let command =
            ["data", "--image=sqlite:3", "--command", r#"["sqlite3", "/data/x", "pragma integrity_check"]"#];
        let said = verify(cluster, &command).await;
        said.assert_exit(2).assert_says("the command ended with exit code 1: row 7 missing from index");
        cluster.nothing_is_left().await;
    })
    .await;
}

#[tokio::test]
async fn what_was_verified_recently_is_not_read_again_and_a_stale_copy_proves_nothing() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        verify(cluster, &[]).await.assert_exit(0);
        cluster.nothing_is_left().await;
        let said = verify(cluster, &[]).await;
        said.assert_exit(0).assert_says("nothing was to be verified; that of 1 claim was verified recently");
        assert_eq!(cluster.jobs_made(), 1);
        tokio::time::sleep(super::millis(1200)).await;
        let said = verify(cluster, &["data", "--max-age=1s"]).await;
        said.assert_exit(2)
            .assert_says("and VERIFY_MAX_AGE is 1s: to read it would prove nothing about today");
        assert_eq!(cluster.jobs_made(), 1);
        let again = verify_with(cluster, &rights(), &[("VERIFY_EVERY", "1s")], &[]).await;
        again.assert_exit(0);
        assert_eq!(cluster.jobs_made(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        let said = verify(cluster, &["data", "--dry-run"]).await;
        said.assert_exit(0).assert_says("would read snap");
        assert_eq!(cluster.left(), [""; 0]);
        assert_eq!(cluster.noted("snap", "verified").await, None);
    })
    .await;
}

#[tokio::test]
async fn without_a_right_it_says_which_line_the_role_lacks() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        let all = volume_snapshotter::cluster::VERIFY_PERMISSIONS;
        for (resource, verb) in
            [("volumesnapshots", "list"), ("jobs", "create"), ("jobs", "list"), ("pods", "list")]
        {
            let some: Vec<_> =
                all.iter().filter(|one| (one.resource, one.verb) != (resource, verb)).copied().collect();
            let said = verify_with(cluster, &rules(&some), &[], &["data"]).await;
            assert!(matches!(said.code, 2), "{resource} {verb}: {}", said.err);
            let line = format!("resources: [\"{resource}\"], verbs: [\"{verb}\"]");
            said.assert_says(&line);
            cluster.nothing_is_left().await;
        }
        // Verified all the same, and said so, but that is not noted.
        let some: Vec<_> = all.iter().filter(|one| one.verb != "patch").copied().collect();
        let said = verify_with(cluster, &rules(&some), &[], &["data"]).await;
        said.assert_exit(3)
            .assert_says("snap is verified: 3 files, 4.1 kB; but that could not be noted on the snapshot");
        cluster.nothing_is_left().await;
    })
    .await;
}

#[tokio::test]
async fn a_class_that_keeps_volumes_is_refused_unless_that_is_allowed() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        cluster
            .fake()
            .update("storageclasses", "", "hostpath", |class| class["reclaimPolicy"] = json!("Retain"));
        cluster.grant_everywhere(&rights_and_classes()).await;
        let by_class = ["data", "--storage-class=hostpath"];
        let said = verify_with(cluster, &rights_and_classes(), &[], &by_class).await;
        said.assert_exit(2)
            .assert_says("StorageClass hostpath keeps the volumes of deleted claims (reclaimPolicy: Retain)");
        assert_eq!(cluster.jobs_made(), 0);
        let allowed = [&by_class[..], &["--allow-retain"]].concat();
        verify_with(cluster, &rights_and_classes(), &[], &allowed).await.assert_exit(0);
    })
    .await;
}
