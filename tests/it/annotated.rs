//! Claims that ask for snapshots by their annotations, and how much they may ask for.

use fake_apiserver::objects;
use serde_json::json;
use volume_snapshotter::cluster::{
    NAMESPACE_PERMISSIONS, PERMISSIONS, SCHEDULE_PERMISSIONS, VOLUME_PERMISSIONS,
};

use crate::test_cluster::{TestCluster, everywhere, rules};

const ANNOTATED: (&str, &str) = ("SNAPSHOT_PVC_ANNOTATED", "true");
const KEEP_ALL: (&str, &str) = ("SNAPSHOT_RETENTION", "all");

/// The claims of all snapshots that nobody has deleted, sorted.
async fn claims_of(cluster: &TestCluster) -> Vec<String> {
    let mut claims: Vec<String> = cluster
        .snapshots()
        .await
        .iter()
        .filter(|snapshot| snapshot["metadata"]["deletionTimestamp"].is_null())
        .filter_map(|snapshot| {
            snapshot["spec"]["source"]["persistentVolumeClaimName"].as_str().map(str::to_owned)
        })
        .collect();
    claims.sort();
    claims
}

#[tokio::test]
async fn claims_are_chosen_by_annotations_alone_or_with_the_selector() {
    everywhere(async |cluster| {
        for (name, app) in
            [("by-retention", "web"), ("by-every", "web"), ("by-deltas", "db"), ("of-weekly", "web")]
        {
            cluster.labelled_claim(name, json!({"app": app})).await;
        }
        cluster.claim("silent").await;
        cluster.annotate_claim("silent", json!({"team": "shop", "volume-snapshotter/max-age": "8d"})).await;
        cluster.annotate_claim("by-retention", json!({"volume-snapshotter/retention": "all"})).await;
        let own = json!({"volume-snapshotter/every.volume-snapshotter": "1d"});
        cluster.annotate_claim("by-every", own).await;
        cluster.annotate_claim("by-deltas", json!({"backup.kubernetes.io/deltas": "PT1H P7D"})).await;
        cluster.annotate_claim("of-weekly", json!({"volume-snapshotter/retention.weekly": "last=8"})).await;
        cluster.run(&[ANNOTATED, KEEP_ALL]).await.assert_exit(0);
        assert_eq!(claims_of(cluster).await, ["by-deltas", "by-every", "by-retention"]);

        let web = ("SNAPSHOT_PVC_SELECTOR", "app=web");
        let weekly = ("SNAPSHOT_JOB", "weekly");
        cluster.run(&[ANNOTATED, KEEP_ALL, web, weekly]).await.assert_exit(0);
        let all = ["by-deltas", "by-every", "by-retention", "by-retention", "of-weekly"];
        assert_eq!(claims_of(cluster).await, all);
    })
    .await;
}

#[tokio::test]
async fn a_choice_by_annotation_that_finds_nothing_is_a_failure() {
    everywhere(async |cluster| {
        cluster.claim("silent").await;
        let ran = cluster.run(&[ANNOTATED]).await;
        ran.assert_exit(2);
        let said = "asks for snapshots by an annotation: volume-snapshotter/retention, volume-snapshotter/every or \
                    backup.kubernetes.io/deltas";
        assert!(ran.message.contains(said), "{}", ran.message);
        assert!(cluster.names().await.is_empty());
        let both = cluster.run(&[ANNOTATED, ("SNAPSHOT_PVC_NAMES", "silent")]).await;
        both.assert_exit(2);
        assert!(both.message.contains("goes alone or with SNAPSHOT_PVC_SELECTOR"), "{}", both.message);
    })
    .await;
}

#[tokio::test]
async fn annotated_claims_of_all_chosen_namespaces_are_snapshotted() {
    everywhere(async |cluster| {
        let label = json!({"vs-test-of": cluster.namespace});
        let selector = format!("vs-test-of={}", cluster.namespace);
        let (shop, bank) = (
            cluster.another_namespace("shop", label.clone()).await,
            cluster.another_namespace("bank", label).await,
        );
        for place in [&shop, &bank] {
            place.claim("asks").await;
            place.claim("silent").await;
            place.annotate_claim("asks", json!({"backup.kubernetes.io/deltas": "PT1H P1D"})).await;
        }
        cluster.grant_everywhere(&rules(&[PERMISSIONS, NAMESPACE_PERMISSIONS].concat())).await;
        let settings = [("SNAPSHOT_NAMESPACE_SELECTOR", selector.as_str()), ANNOTATED];
        cluster.run(&settings).await.assert_exit(0);
        for place in [&shop, &bank] {
            assert_eq!(claims_of(place).await, ["asks"]);
        }
    })
    .await;
}

/// Older snapshots, a newer annotation, and what is left after a run.
async fn left(cluster: &TestCluster, annotation: serde_json::Value, settings: &[(&str, &str)]) -> usize {
    cluster.claim("data").await;
    for older in ["older-1", "older-2", "older-3"] {
        cluster.older(older, "data").await;
    }
    cluster.annotate_claim("data", annotation).await;
    cluster.run(&[&[("SNAPSHOT_PVC_NAMES", "data")], settings].concat()).await.assert_exit(0);
    cluster.names().await.len()
}

#[tokio::test]
async fn a_claim_may_ask_for_less_than_the_schedule_keeps_unless_only_more_is_granted() {
    let less = || json!({"volume-snapshotter/retention": "last=1"});
    everywhere(async |cluster| {
        assert_eq!(left(cluster, less(), &[("SNAPSHOT_RETENTION", "last=3")]).await, 1);
    })
    .await;
    everywhere(async |cluster| {
        let more = [("SNAPSHOT_RETENTION", "last=3"), ("SNAPSHOT_ANNOTATIONS", "more")];
        assert_eq!(left(cluster, less(), &more).await, 3);
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "last=4"})).await;
        cluster.run(&[&[("SNAPSHOT_PVC_NAMES", "data")], more.as_slice()].concat()).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 4);
    })
    .await;
}

#[tokio::test]
async fn where_only_more_is_granted_a_claim_neither_stops_nor_floods_its_snapshots() {
    everywhere(async |cluster| {
        cluster.claim("stops").await;
        cluster.claim("floods").await;
        cluster.annotate_claim("stops", json!({"volume-snapshotter/every": "9y"})).await;
        cluster.annotate_claim("floods", json!({"volume-snapshotter/every": "1s"})).await;
        let minutes = k8s_openapi::jiff::Timestamp::now().as_second() / 60;
        for (hours_ago, number) in [(8, 2), (7, 2), (1, 4), (0, 4)] {
            let id = format!("volume-snapshotter-{}", minutes - hours_ago * 60);
            let settings = [
                ("SNAPSHOT_RUN_ID", id.as_str()),
                ("SNAPSHOT_ANNOTATIONS", "more"),
                ("SNAPSHOT_EVERY", "6h"),
                ANNOTATED,
                KEEP_ALL,
            ];
            cluster.run(&settings).await.assert_exit(0);
            assert_eq!(claims_of(cluster).await.len(), number, "{hours_ago} h ago");
        }
    })
    .await;
}

#[tokio::test]
async fn of_a_claim_that_loses_its_annotation_during_the_run_nothing_is_deleted() {
    crate::test_cluster::embedded(fake_apiserver::Options::default(), async |cluster| {
        cluster.claim("data").await;
        cluster.older("older-1", "data").await;
        cluster.older("older-2", "data").await;
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "last=2"})).await;
        let namespace = cluster.namespace.clone();
        // As soon as the new one is being made, and before the claims are read again.
        cluster
            .fake()
            .plan(move |_| Some(fake_apiserver::Plan::ready_after(std::time::Duration::from_secs(3))));
        let running =
            cluster.start(&rules(PERMISSIONS), &[ANNOTATED, ("SNAPSHOT_RETENTION", "last=1")]).await;
        cluster.until("the new snapshot is being made", async || cluster.names().await.len() == 3).await;
        cluster.fake().annotate(
            "persistentvolumeclaims",
            &namespace,
            "data",
            "volume-snapshotter/retention",
            None,
        );
        running.finish().await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 3);
    })
    .await;
}

/// Annotates the volume of a claim, as `kubectl annotate pv` does.
async fn annotate_volume(cluster: &TestCluster, claim: &str, annotations: serde_json::Value) {
    let claim = cluster.try_claim(claim).await.expect("the claim");
    let volume = claim["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    let path = format!("/api/v1/persistentvolumes/{volume}");
    cluster.patch(&path, &json!({"metadata": {"annotations": annotations}})).await;
}

#[tokio::test]
async fn the_annotations_of_a_volume_count_for_a_claim_that_has_none() {
    const VOLUMES: (&str, &str) = ("SNAPSHOT_VOLUME_ANNOTATIONS", "true");
    everywhere(async |cluster| {
        for claim in ["by-volume", "by-both", "silent"] {
            cluster.claim(claim).await;
            cluster.older(&format!("old-of-{claim}"), claim).await;
        }
        annotate_volume(cluster, "by-volume", json!({"volume-snapshotter/retention": "last=2"})).await;
        annotate_volume(cluster, "by-both", json!({"volume-snapshotter/retention": "last=2"})).await;
        cluster.annotate_claim("by-both", json!({"volume-snapshotter/retention": "last=1"})).await;
        // What may not be read is no reason to go on without it.
        let ran = cluster.run(&[ANNOTATED, VOLUMES]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("cannot list the PersistentVolumes"), "{}", ran.message);
        assert_eq!(cluster.names().await.len(), 3);

        cluster.grant_everywhere(&rules(VOLUME_PERMISSIONS)).await;
        cluster.run(&[ANNOTATED, VOLUMES]).await.assert_exit(0);
        assert_eq!(claims_of(cluster).await, ["by-both", "by-volume", "by-volume", "silent"]);
    })
    .await;
}

#[tokio::test]
async fn list_judges_by_the_annotations_of_volumes_where_the_schedule_does() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.older("new", "data").await;
        annotate_volume(cluster, "data", json!({"volume-snapshotter/retention": "all"})).await;
        let namespace = cluster.namespace.as_str();
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_VOLUME_ANNOTATIONS", "true")];
        let map = objects::config_map(namespace, "settings", &settings);
        cluster.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), &map).await;
        let cron_job = objects::cron_job(namespace, "volume-snapshotter", &[], &["settings"]);
        cluster.post(&format!("/apis/batch/v1/namespaces/{namespace}/cronjobs"), &cron_job).await;
        let permissions = rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS].concat());
        let unread = cluster.say(&permissions, &["list", "-o", "json"]).await;
        unread.assert_exit(0).assert_says("the annotations of its volumes may not be read");
        assert!(!unread.out.contains("\"goes\""), "{}", unread.out);

        cluster.grant_everywhere(&rules(VOLUME_PERMISSIONS)).await;
        let read = cluster.say(&permissions, &["list", "-o", "json"]).await;
        read.assert_exit(0);
        assert_eq!(read.out.matches("\"kept\"").count(), 2, "{}", read.out);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_deleted_while_the_annotations_of_volumes_cannot_be_read_again() {
    crate::test_cluster::embedded(fake_apiserver::Options::default(), async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        cluster.grant_everywhere(&rules(VOLUME_PERMISSIONS)).await;
        // Once the new snapshot is ready.
        let lists = std::sync::atomic::AtomicUsize::new(0);
        cluster.fake().fault(move |request| {
            let is_volumes = request.is("list", "persistentvolumes");
            let number = lists.fetch_add(usize::from(is_volumes), std::sync::atomic::Ordering::SeqCst);
            (is_volumes && number > 0)
                .then_some(fake_apiserver::Fault::Error(400, fake_apiserver::When::Before))
        });
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_VOLUME_ANNOTATIONS", "true")];
        let ran = cluster.run(&settings).await;
        ran.assert_exit(3);
        assert!(ran.message.contains("cannot list the PersistentVolumes"), "{}", ran.message);
        assert_eq!(cluster.names().await.len(), 2);
    })
    .await;
}
