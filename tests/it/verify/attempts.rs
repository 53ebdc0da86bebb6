//! The drill's Job is tried again, is killed, or is deleted: what goes on, and what is left.

use serde_json::json;

use super::{InPod, in_pod, millis, plan, rights, whole};
use crate::test_cluster::TestCluster;

async fn with_snapshot(cluster: &TestCluster) {
    cluster.claim("data").await;
    cluster.taken("snap", "data").await;
}

async fn until_asked(cluster: &TestCluster, verb: &str, resource: &str) {
    cluster
        .until(&format!("{verb} {resource} was asked for"), async || {
            cluster.fake().requests().iter().any(|request| {
                request.verb == verb
                    && request.resource == resource
                    && request.user.ends_with(":volume-snapshotter")
            })
        })
        .await;
}

#[tokio::test]
async fn a_second_attempt_goes_on_with_the_job_of_the_first() {
    in_pod(async |cluster| {
        with_snapshot(cluster).await;
        plan(cluster.fake(), || whole().running_for(millis(1500)));
        let pod = InPod::new(cluster, &rights()).await;
        cluster.fake().clear_requests();
        let first = pod.start(&[]);
        until_asked(cluster, "list", "pods").await;
        first.kill().await;
        // A run makes another snapshot meanwhile: the Job there is counts.
        cluster.taken("newer", "data").await;
        let second = pod.start(&[]).finish().await;
        second.assert_exit(0);
        assert_eq!(second.lines("going on with Job volume-snapshotter-verify-").len(), 1, "{:?}", second.log);
        assert_eq!(cluster.jobs_made(), 1);
        assert!(cluster.noted("snap", "verified").await.is_some());
        assert_eq!(cluster.noted("newer", "verified").await, None);
        cluster.nothing_is_left().await;
    })
    .await;
}

#[tokio::test]
async fn a_drill_that_is_told_to_stop_leaves_its_job_to_the_next_attempt() {
    in_pod(async |cluster| {
        with_snapshot(cluster).await;
        plan(cluster.fake(), || whole().running_for(millis(1500)));
        let pod = InPod::new(cluster, &rights()).await;
        cluster.fake().clear_requests();
        let first = pod.start(&[]);
        until_asked(cluster, "list", "pods").await;
        first.signal("TERM");
        let ran = first.finish().await;
        ran.assert_exit(143);
        assert_eq!(cluster.left().iter().filter(|one| one.starts_with("jobs/")).count(), 1);
        pod.start(&[]).finish().await.assert_exit(0);
        assert_eq!(cluster.jobs_made(), 1);
        cluster.nothing_is_left().await;
    })
    .await;
}

#[tokio::test]
async fn whenever_a_drill_is_killed_nothing_stays_once_its_own_job_is_gone() {
    for (verb, resource) in [
        ("list", "volumesnapshots"),
        ("list", "jobs"),
        ("create", "jobs"),
        ("list", "pods"),
        ("list", "events"),
        ("get", "volumesnapshots"),
        ("patch", "volumesnapshots"),
        ("delete", "jobs"),
    ] {
        in_pod(async |cluster| {
            with_snapshot(cluster).await;
            plan(cluster.fake(), whole);
            let pod = InPod::new(cluster, &rights()).await;
            cluster.fake().clear_requests();
            let first = pod.start(&[]);
            until_asked(cluster, verb, resource).await;
            first.kill().await;
            pod.end();
            cluster.nothing_is_left().await;
            let is_noted = cluster.noted("snap", "verified").await.is_some();
            assert!(
                !is_noted || matches!(verb, "patch" | "delete" | "get"),
                "noted before {verb} {resource}"
            );
        })
        .await;
    }
}

#[tokio::test]
async fn in_a_pod_nothing_is_asked_about_claims_and_no_snapshot_is_deleted() {
    in_pod(async |cluster| {
        with_snapshot(cluster).await;
        plan(cluster.fake(), whole);
        let pod = InPod::new(cluster, &rights()).await;
        cluster.fake().clear_requests();
        // Those of the run, whose ConfigMap both use.
        let settings = [("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_RETENTION", "last=1")];
        let ran = pod.start(&settings).finish().await;
        ran.assert_exit(0);
        let user = format!("system:serviceaccount:{}:volume-snapshotter", cluster.namespace);
        let requests = cluster.fake().requests();
        let own: Vec<_> = requests.iter().filter(|request| request.user == user).collect();
        assert!(own.len() > 5, "{own:?}");
        for request in &own {
            assert_ne!(request.resource, "persistentvolumeclaims", "{request:?}");
            assert!(
                (request.verb.as_str(), request.resource.as_str()) != ("delete", "volumesnapshots"),
                "{request:?}"
            );
        }
        let made = own.iter().find(|request| request.verb == "create" && request.resource == "jobs");
        assert!(made.is_some());
        cluster.nothing_is_left().await;
        assert_eq!(cluster.names().await, ["snap"]);
        assert_eq!(cluster.snapshot("snap").await["metadata"]["labels"]["job"], json!("volume-snapshotter"));
    })
    .await;
}
