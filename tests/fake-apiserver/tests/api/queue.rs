//! A slow snapshot controller, and claims that are recreated before it processes their snapshots.

use crate::{PATH, SNAPSHOTS, create, is_ready, send, server, until};
use fake_apiserver::{FakeApiServer, Options, Pace, Plan, SnapshotData, Stage, objects};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const CLAIMS: &str = "persistentvolumeclaims";

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().expect("a uid")
}

fn claim(server: &FakeApiServer, name: &str) -> Value {
    server.get(CLAIMS, "app", name).expect("a claim")
}

/// A server whose snapshots are ready as soon as the controller has taken them.
async fn quick_bed() -> FakeApiServer {
    server(|options: &mut Options| options.controller.ready_after = Duration::ZERO).await
}

#[tokio::test]
async fn a_snapshot_in_the_queue_is_made_of_the_claim_that_has_the_name_by_then() {
    let server = quick_bed().await;
    let old = claim(&server, "data");
    create(&server, &objects::snapshot("app", "before", "data")).await;
    until("ready", || is_ready(&server, "before")).await;

    server.controller_pace(Pace::Stopped);
    create(&server, &objects::snapshot("app", "queued", "data")).await;
    let new = server.replace_claim("app", "data");
    sleep(Duration::from_millis(50)).await;
    let queued = server.get(SNAPSHOTS, "app", "queued").expect("is there");
    assert_eq!(queued.get("status"), None);
    assert_eq!(queued["metadata"].get("finalizers"), None);
    assert_eq!(server.snapshot_data("app", "queued"), None);

    server.controller_pace(Pace::AtOnce);
    until("ready", || is_ready(&server, "queued")).await;
    let data = |claim: &Value| SnapshotData {
        claim: uid(claim).to_owned(),
        volume: claim["spec"]["volumeName"].as_str().expect("a volume").to_owned(),
    };
    assert_eq!(server.snapshot_data("app", "before"), Some(data(&old)));
    assert_eq!(server.snapshot_data("app", "queued"), Some(data(&new)));
    // Nobody who reads the two could tell, but for the contents.
    let handle = |name: &str| {
        let snapshot = server.get(SNAPSHOTS, "app", name).expect("is there");
        let content = snapshot["status"]["boundVolumeSnapshotContentName"].as_str().expect("a content");
        let content = server.get("volumesnapshotcontents", "", content).expect("a content");
        content["spec"]["source"]["volumeHandle"].clone()
    };
    let volume = server.get("persistentvolumes", "", &data(&new).volume).expect("a volume");
    assert_eq!(handle("queued"), volume["spec"]["csi"]["volumeHandle"]);
    assert_ne!(handle("before"), handle("queued"));

    server.remove(SNAPSHOTS, "app", "before");
    server.remove(SNAPSHOTS, "app", "queued");
    for milestone in server.snapshot_history() {
        let claim = if milestone.object["metadata"]["name"] == "before" { &old } else { &new };
        assert_eq!(milestone.data, Some(data(claim)), "{:?}", milestone.stage);
    }
}

#[tokio::test]
async fn a_replaced_claim_is_another_one_that_looks_the_same() {
    let server = server(|_| {}).await;
    let mut old = objects::bound_claim("app", "data", &[("app", "web")]);
    old["metadata"]["annotations"]["volume-snapshotter/retention"] = "all".into();
    let old = server.put(old);
    let new = server.replace_claim("app", "data");
    assert_eq!(claim(&server, "data"), new);
    assert_ne!(uid(&new), uid(&old));
    assert_ne!(new["spec"]["volumeName"], old["spec"]["volumeName"]);
    for same in
        ["/metadata/labels", "/metadata/annotations", "/status", "/spec/resources", "/metadata/finalizers"]
    {
        assert_eq!(new.pointer(same), old.pointer(same), "{same}");
    }
    let volume = server.get("persistentvolumes", "", new["spec"]["volumeName"].as_str().expect("a volume"));
    assert_eq!(volume.expect("a volume")["spec"]["claimRef"]["uid"], new["metadata"]["uid"]);

    let other = server.replace_claim_with("app", "data", |claim| {
        claim["spec"]["resources"]["requests"]["storage"] = "2Gi".into();
    });
    assert_eq!(other["status"]["capacity"]["storage"], "2Gi");
    let first = new["spec"]["volumeName"].as_str().expect("a volume");
    until("the volume goes with its claim", || server.get("persistentvolumes", "", first).is_none()).await;

    // One that has no volume gets none by being replaced.
    let mut pending = objects::claim("app", "pending");
    pending["spec"]["storageClassName"] = "missing".into();
    server.put(pending);
    assert_eq!(server.replace_claim("app", "pending")["status"]["phase"], "Pending");
}

#[tokio::test]
async fn the_queue_is_worked_through_at_its_pace_and_in_order() {
    let server = quick_bed().await;
    server.controller_pace(Pace::PerSecond(20));
    let began = Instant::now();
    for number in 0..5 {
        create(&server, &objects::snapshot("app", &format!("s-{number}"), "data")).await;
    }
    until("all are ready", || (0..5).all(|number| is_ready(&server, &format!("s-{number}")))).await;
    // The first at once, and then four distances of 50 ms.
    let took = began.elapsed();
    assert!((Duration::from_millis(195)..Duration::from_secs(2)).contains(&took), "{took:?}");
    let history = server.snapshot_history();
    let ready = history.iter().filter(|milestone| milestone.stage == Stage::Ready);
    let names: Vec<&str> =
        ready.filter_map(|milestone| milestone.object["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["s-0", "s-1", "s-2", "s-3", "s-4"]);

    server.controller_pace(Pace::PerSecond(0));
    create(&server, &objects::snapshot("app", "never", "data")).await;
    sleep(Duration::from_millis(50)).await;
    assert!(!is_ready(&server, "never"));
}

#[tokio::test]
async fn a_stopped_controller_takes_what_a_test_lets_it() {
    let server = quick_bed().await;
    server.controller_pace(Pace::Stopped);
    for name in ["gone", "first", "second", "third"] {
        create(&server, &objects::snapshot("app", name, "data")).await;
    }
    // Without finalizers it goes at once, and it takes nobody's turn.
    server.delete(SNAPSHOTS, "app", "gone");
    assert_eq!(server.get(SNAPSHOTS, "app", "gone"), None);
    server.controller_takes(2);
    until("two are ready", || is_ready(&server, "first") && is_ready(&server, "second")).await;
    sleep(Duration::from_millis(50)).await;
    assert!(!is_ready(&server, "third"));

    // Deletions wait as well.
    server.delete(SNAPSHOTS, "app", "first");
    sleep(Duration::from_millis(50)).await;
    assert!(server.get(SNAPSHOTS, "app", "first").is_some());
    server.controller_takes(2);
    until("the first goes", || server.get(SNAPSHOTS, "app", "first").is_none()).await;
    assert!(is_ready(&server, "third"));
}

#[tokio::test]
async fn delays_of_a_plan_count_from_when_the_controller_gets_there() {
    let server = server(|_| {}).await;
    server.plan(|_| Some(Plan::ready_after(Duration::from_millis(100))));
    server.controller_pace(Pace::Stopped);
    create(&server, &objects::snapshot("app", "late", "data")).await;
    sleep(Duration::from_millis(150)).await;
    let began = Instant::now();
    server.controller_pace(Pace::AtOnce);
    until("ready", || is_ready(&server, "late")).await;
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_claim_is_under_protection_while_a_snapshot_is_being_made_of_it() {
    let server = server(|_| {}).await;
    let protected = || {
        let finalizers = claim(&server, "data")["metadata"]["finalizers"].clone();
        let finalizers: Vec<String> = serde_json::from_value(finalizers).expect("finalizers");
        finalizers.iter().any(|one| one == "snapshot.storage.kubernetes.io/pvc-as-source-protection")
    };
    server.plan(|snapshot| {
        Some(match snapshot["metadata"]["name"].as_str() {
            Some("quick") => Plan::ready_after(Duration::from_millis(10)),
            _ => Plan::never(),
        })
    });
    server.controller_pace(Pace::Stopped);
    create(&server, &objects::snapshot("app", "slow", "data")).await;
    create(&server, &objects::snapshot("app", "quick", "data")).await;
    sleep(Duration::from_millis(20)).await;
    assert!(!protected(), "nothing is on the claim of a queued snapshot");
    server.controller_pace(Pace::AtOnce);
    until("ready", || is_ready(&server, "quick")).await;
    assert!(protected(), "the other one is still being made");
    server.delete(CLAIMS, "app", "data");
    sleep(Duration::from_millis(20)).await;
    assert!(claim(&server, "data")["metadata"]["deletionTimestamp"].is_string());
    server.delete(SNAPSHOTS, "app", "slow");
    until("the claim goes with the last reason for its protection", || {
        server.get(CLAIMS, "app", "data").is_none()
    })
    .await;
}

#[tokio::test]
async fn what_a_snapshot_that_was_put_in_has_the_data_of_can_be_said() {
    let server = server(|_| {}).await;
    let time = "2020-01-01T00:00:00Z";
    server.put(objects::ready_snapshot("app", "known", "data", time));
    server.put(objects::ready_snapshot("app", "unknown", "missing", time));
    let found = server.snapshot_data("app", "known").expect("the claim is there");
    assert_eq!(found.claim, uid(&claim(&server, "data")));
    assert_eq!(server.snapshot_data("app", "unknown"), None);
    let data = SnapshotData { claim: "another".to_owned(), volume: "gone".to_owned() };
    for name in ["known", "unknown"] {
        server.set_snapshot_data("app", name, data.clone());
        assert_eq!(server.snapshot_data("app", name), Some(data.clone()));
    }
    // Whatever is written to it, it is of what it was.
    server.replace_claim("app", "data");
    server.label(SNAPSHOTS, "app", "known", "a", Some("b"));
    assert_eq!(server.snapshot_data("app", "known"), Some(data.clone()));
    server.put(server.get(SNAPSHOTS, "app", "known").expect("is there"));
    assert_eq!(server.snapshot_data("app", "known"), Some(data));
}

#[tokio::test]
async fn others_label_and_annotate() {
    let server = server(|_| {}).await;
    let others = server.others();
    others.annotate(CLAIMS, "app", "data", "volume-snapshotter/retention", Some("all"));
    server.label(CLAIMS, "app", "data", "app", Some("web"));
    let metadata = claim(&server, "data")["metadata"].clone();
    assert_eq!(metadata["annotations"]["volume-snapshotter/retention"], "all");
    assert_eq!(metadata["labels"], serde_json::json!({"app": "web"}));
    others.label(CLAIMS, "app", "data", "app", None);
    server.annotate(CLAIMS, "app", "data", "volume-snapshotter/retention", None);
    let metadata = claim(&server, "data")["metadata"].clone();
    assert_eq!(metadata.get("labels"), None);
    assert_eq!(metadata["annotations"].get("volume-snapshotter/retention"), None);
}

#[tokio::test]
async fn the_journal_tells_what_there_was_at_any_moment() {
    let server = quick_bed().await;
    server.put(objects::ready_snapshot("app", "old", "data", "2020-01-01T00:00:00Z"));
    create(&server, &objects::snapshot("app", "new", "data")).await;
    until("ready", || is_ready(&server, "new")).await;
    server.annotate(CLAIMS, "app", "data", "volume-snapshotter/retention", Some("all"));
    send(&server, "DELETE", &format!("{PATH}/old"), None).await;
    until("gone", || server.get(SNAPSHOTS, "app", "old").is_none()).await;
    server.compact();
    let journal = server.journal();
    assert!(journal.is_sorted_by_key(|write| write.version));
    let deletion = journal.iter().position(|write| {
        write.user == "kubernetes-admin"
            && write.resource == SNAPSHOTS
            && write.object["metadata"]["deletionTimestamp"].is_string()
    });
    let before = &journal[..deletion.expect("the deletion")];
    let claim = before.iter().rfind(|write| write.resource == CLAIMS).expect("the claim");
    assert_eq!(claim.object["metadata"]["annotations"]["volume-snapshotter/retention"], "all");
    assert_eq!((claim.user.as_str(), claim.gone, &claim.data), ("", false, &None));
    let new = before.iter().rfind(|write| write.object["metadata"]["name"] == "new").expect("the new one");
    assert_eq!(new.object["status"]["readyToUse"], true);
    assert_eq!(new.data.as_ref().expect("is known").claim, uid(&claim.object));
    let last = journal.iter().rfind(|write| write.object["metadata"]["name"] == "old").expect("its end");
    assert!(last.gone);
}
