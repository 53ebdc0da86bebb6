//! What a drill must never do, whatever others do meanwhile.

use fake_apiserver::{Options, PodPlan, Provision, objects};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::{IMAGE, millis, plan, rights, verify, whole};
use crate::test_cluster::{TestCluster, embedded_only};

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
async fn a_snapshot_that_took_the_name_meanwhile_is_not_said_to_be_verified() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), || whole().running_for(millis(2000)));
        let variables = [("VERIFY_IMAGE", IMAGE), ("VERIFY_TIMEOUT", "30s")];
        let saying = cluster.begin_to_say(&rights(), &variables, &["verify", "data"]).await;
        cluster
            .until("its pod is there", async || !cluster.fake().list("pods", &cluster.namespace).is_empty())
            .await;
        cluster
            .until("it runs", async || {
                cluster
                    .fake()
                    .list("pods", &cluster.namespace)
                    .iter()
                    .any(|pod| pod["status"]["phase"] == "Running")
            })
            .await;
        cluster.delete_snapshot("snap").await;
        cluster
            .until("it is gone", async || {
                cluster.fake().get("volumesnapshots", &cluster.namespace, "snap").is_none()
            })
            .await;
        cluster.taken("snap", "data").await;
        let said = saying.finish().await;
        said.assert_exit(1).assert_says("snapshot snap was replaced while it was being verified");
        assert_eq!(cluster.noted("snap", "verified").await, None);
        assert_eq!(cluster.noted("snap", "verify-failed").await, None);
        cluster.nothing_is_left().await;
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_that_takes_the_name_between_the_look_and_the_note_is_not_noted_on() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        let namespace = cluster.namespace.clone();
        cluster.fake().before(
            |request| request.is("patch", "volumesnapshots") && request.user.contains("serviceaccount"),
            1,
            move |others| {
                others.remove("volumesnapshots", &namespace, "snap");
                others.put(objects::ready_snapshot(&namespace, "snap", "data", Timestamp::now()));
            },
        );
        let said = verify(cluster, &["data"]).await;
        said.assert_exit(1).assert_says("snapshot snap was replaced while it was being verified");
        assert_eq!(cluster.noted("snap", "verified").await, None);
        assert_eq!(cluster.noted("snap", "verify-failed").await, None);
        cluster.nothing_is_left().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_that_takes_the_name_just_before_the_deletion_stays() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        let namespace = cluster.namespace.clone();
        cluster.fake().before(
            |request| request.is("delete", "jobs") && request.user.contains("serviceaccount"),
            1,
            move |others| {
                let jobs = others.list("jobs", &namespace);
                let name = jobs[0]["metadata"]["name"].as_str().expect("a name").to_owned();
                others.remove("jobs", &namespace, &name);
                others.put(json!({
                    "apiVersion": "batch/v1", "kind": "Job",
                    "metadata": {"name": name, "namespace": namespace, "labels": {"of": "another"}},
                }));
            },
        );
        verify(cluster, &["data"]).await.assert_exit(0);
        cluster.nothing_is_left().await;
        let jobs = cluster.fake().list("jobs", &cluster.namespace);
        assert_eq!(
            jobs.iter().filter(|job| job["metadata"]["labels"]["of"] == "another").count(),
            1,
            "{jobs:#?}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_others_change_of_the_snapshot_meanwhile_stays_and_the_verdict_is_noted() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        let namespace = cluster.namespace.clone();
        // Between the reading and the patch.
        cluster.fake().before(
            |request| request.verb == "patch" && request.resource == "volumesnapshots",
            1,
            move |others| {
                others.label("volumesnapshots", &namespace, "snap", "volume-snapshotter/hold", Some("true"))
            },
        );
        verify(cluster, &["data"]).await.assert_exit(0);
        assert_eq!(cluster.snapshot("snap").await["metadata"]["labels"]["volume-snapshotter/hold"], "true");
        assert!(cluster.noted("snap", "verified").await.is_some());
    })
    .await;
}

#[tokio::test]
async fn a_claim_whose_volume_is_being_made_is_not_taken_from_under_it() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        cluster.fake().provision(|_| Some(Provision::after(millis(4000))));
        let variables = [("VERIFY_IMAGE", IMAGE), ("VERIFY_TIMEOUT", "30s")];
        let saying = cluster.begin_to_say(&rights(), &variables, &["verify", "data"]).await;
        cluster
            .until("its pod is there", async || !cluster.fake().list("pods", &cluster.namespace).is_empty())
            .await;
        tokio::time::sleep(millis(800)).await;
        saying.signal("INT");
        let said = saying.finish().await;
        said.assert_exit(130).assert_says("is left to its own deadline: its volume may be being made");
        assert_eq!(cluster.left().iter().filter(|one| one.starts_with("jobs/")).count(), 1);
        let job = &cluster.fake().list("jobs", &cluster.namespace)[0];
        assert!(
            job["spec"]["activeDeadlineSeconds"].is_u64() && job["spec"]["ttlSecondsAfterFinished"].is_u64()
        );
        cluster
            .until("the volume is made", async || cluster.fake().list("persistentvolumes", "").len() > 1)
            .await;
        assert_eq!(cluster.fake().leaked_volumes(), Vec::new());
    })
    .await;
}

#[tokio::test]
async fn ctrl_c_takes_away_what_was_begun() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), PodPlan::runs);
        let variables = [("VERIFY_IMAGE", IMAGE), ("VERIFY_TIMEOUT", "30s")];
        let saying = cluster.begin_to_say(&rights(), &variables, &["verify", "data"]).await;
        cluster
            .until("it runs", async || {
                cluster
                    .fake()
                    .list("pods", &cluster.namespace)
                    .iter()
                    .any(|pod| pod["status"]["phase"] == "Running")
            })
            .await;
        tokio::time::sleep(millis(1500)).await;
        saying.signal("INT");
        saying.finish().await.assert_exit(130);
        cluster.nothing_is_left().await;
        assert_eq!(cluster.noted("snap", "verify-failed").await, None);
    })
    .await;
}

#[tokio::test]
async fn a_volume_that_was_there_before_proves_nothing() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        cluster.fake().put(fake_apiserver::objects::free_volume("leftover", "hostpath", "1Gi"));
        let said = verify(cluster, &["data", "--storage-class=hostpath"]).await;
        said.assert_exit(1).assert_says("no Event says that it was made from the snapshot");
        assert_eq!(cluster.noted("snap", "verified").await, None);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_somebody_else_made_under_the_name_is_left_alone() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), whole);
        let uid = "5b2c8f3e-3f0a-4f4e-9d0b-6a1d2c7e9f10";
        let name = volume_snapshotter::names::drill_job_name(uid, "data");
        let planted = json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": name, "namespace": cluster.namespace, "labels": {"volume-snapshotter/drill": uid},
                // As if it were of the snapshot, which it is not by its uid.
                "annotations": {
                    "volume-snapshotter/drill-claim": "other", "volume-snapshotter/drill-snapshot": "snap",
                    "volume-snapshotter/drill-snapshot-uid": "x",
                },
            },
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "verify", "image": "x"}]}}},
        });
        cluster.post(&format!("/apis/batch/v1/namespaces/{}/jobs", cluster.namespace), &planted).await;
        let variables =
            [("SNAPSHOT_RUN_ID", "verify-1"), ("SNAPSHOT_RUN_UID", uid), ("VERIFY_IMAGE", IMAGE), ("VERIFY_TIMEOUT", "30s")];
        let said = cluster.say_with(&rights(), &variables, &["verify", "data"]).await;
        said.assert_exit(1).assert_says("there is a Job ");
        assert!(cluster.fake().get("jobs", &cluster.namespace, &name).is_some());
        assert_eq!(cluster.noted("snap", "verified").await, None);
    })
    .await;
}
