//! Volumes that are free, and claims that wait for their first consumer.

use crate::{PATH, SNAPSHOTS, send, server, until};
use fake_apiserver::{FakeApiServer, objects};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const CLAIMS: &str = "persistentvolumeclaims";
const CLAIMS_PATH: &str = "/api/v1/namespaces/app/persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const TIME: &str = "2020-01-01T00:00:00Z";

fn claim(server: &FakeApiServer, name: &str) -> Value {
    server.get(CLAIMS, "app", name).expect("a claim")
}

fn is_bound(server: &FakeApiServer, name: &str) -> bool {
    claim(server, name)["status"]["phase"] == "Bound"
}

async fn restore(server: &FakeApiServer, name: &str, change: impl FnOnce(&mut Value)) {
    let mut claim = objects::claim_from_snapshot("app", name, "good");
    change(&mut claim);
    let answer = send(server, "POST", CLAIMS_PATH, Some(&claim)).await;
    assert_eq!(answer.status.as_u16(), 201, "{:?}", answer.json());
}

#[tokio::test]
async fn a_free_volume_is_preferred_and_the_data_source_ignored() {
    let server = server(|_| {}).await;
    let good = server.put(objects::ready_snapshot("app", "good", "data", TIME));
    for (name, size) in [("spare", "2Gi"), ("larger", "3Gi"), ("small", "512Mi")] {
        server.put(objects::free_volume(name, "hostpath", size));
    }
    server.put(objects::free_volume("elsewhere", "other", "1Gi"));
    let mut block = objects::free_volume("block", "hostpath", "1Gi");
    block["spec"]["volumeMode"] = "Block".into();
    server.put(block);
    let mut many = objects::free_volume("many", "hostpath", "1Gi");
    many["spec"]["accessModes"] = json!(["ReadOnlyMany"]);
    server.put(many);
    let mut others = objects::free_volume("others", "hostpath", "1Gi");
    others["spec"]["claimRef"] = json!({"namespace": "other", "name": "onto-spare"});
    server.put(others);

    restore(&server, "onto-spare", |_| {}).await;
    until("bound", || is_bound(&server, "onto-spare")).await;
    let bound = claim(&server, "onto-spare");
    assert_eq!(bound["spec"]["volumeName"], "spare");
    assert_eq!(bound["status"]["capacity"]["storage"], "2Gi");
    let annotations =
        json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
    assert_eq!(bound["metadata"]["annotations"], annotations);
    assert_eq!(server.restored_from("app", "onto-spare"), None);
    let spare = server.get(VOLUMES, "", "spare").expect("a volume");
    assert_eq!(spare["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);
    assert_eq!(spare["status"]["phase"], "Bound");

    server.remove(VOLUMES, "", "larger");
    restore(&server, "provisioned", |_| {}).await;
    until("bound", || is_bound(&server, "provisioned")).await;
    assert_eq!(server.restored_from("app", "provisioned").as_deref(), good["metadata"]["uid"].as_str());
    assert_eq!(
        claim(&server, "provisioned")["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"],
        objects::DRIVER
    );

    // When the claim is gone its volume is not free again; one that was made for a claim goes with it.
    let made = claim(&server, "provisioned")["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    server.delete(CLAIMS, "app", "onto-spare");
    server.delete(CLAIMS, "app", "provisioned");
    until("reclaimed", || {
        server.get(VOLUMES, "", "spare").expect("is kept")["status"]["phase"] == "Released"
            && server.get(VOLUMES, "", &made).is_none()
    })
    .await;
    restore(&server, "again", |_| {}).await;
    until("bound", || is_bound(&server, "again")).await;
    assert_ne!(claim(&server, "again")["spec"]["volumeName"], "spare");
}

#[tokio::test]
async fn a_claim_may_name_its_volume_and_waits_for_no_other() {
    let server = server(|_| {}).await;
    server.put(objects::ready_snapshot("app", "good", "data", TIME));
    server.put(objects::free_volume("another", "static", "1Gi"));
    server.put(objects::free_volume("nearby", "hostpath", "1Gi"));
    restore(&server, "named", |claim| claim["spec"]["volumeName"] = "mine".into()).await;
    sleep(Duration::from_millis(30)).await;
    assert!(!is_bound(&server, "named"));
    server.put(objects::free_volume("mine", "hostpath", "1Gi"));
    until("bound", || is_bound(&server, "named")).await;
    assert_eq!(claim(&server, "named")["spec"]["volumeName"], "mine");
    // Volumes that are not of its name are there still, and a class need not be.
    restore(&server, "any", |claim| claim["spec"]["storageClassName"] = "static".into()).await;
    until("bound", || is_bound(&server, "any")).await;
    assert_eq!(claim(&server, "any")["spec"]["volumeName"], "another");
}

#[tokio::test]
async fn volumes_are_read_and_permitted_as_other_objects_are() {
    let server = server(|_| {}).await;
    server.put(objects::free_volume("spare", "hostpath", "1Gi"));
    let list = send(&server, "GET", "/api/v1/persistentvolumes", None).await.json();
    assert_eq!(list["items"][0]["spec"]["storageClassName"], "hostpath");
    let one = send(&server, "GET", "/api/v1/persistentvolumes/spare", None).await.json();
    assert_eq!(one["status"]["phase"], "Available");
    let token = server.token("app", "someone");
    let answer = crate::send_as(&server, &token, "GET", "/api/v1/persistentvolumes/spare", None).await;
    assert_eq!(answer.status.as_u16(), 403);
}

#[tokio::test]
async fn a_claim_that_waits_for_its_consumer_holds_its_source_until_it_is_bound() {
    let server = server(|_| {}).await;
    server.put(objects::waiting_storage_class("late"));
    let good = server.put(objects::ready_snapshot("app", "good", "data", TIME));
    restore(&server, "waits", |claim| claim["spec"]["storageClassName"] = "late".into()).await;
    until("it is seen", || claim(&server, "waits")["metadata"]["finalizers"].is_array()).await;
    sleep(Duration::from_millis(30)).await;
    assert!(!is_bound(&server, "waits"));
    assert_eq!(claim(&server, "waits")["metadata"].get("annotations"), None);
    server.use_claim("app", "waits");
    until("bound", || is_bound(&server, "waits")).await;
    assert_eq!(server.restored_from("app", "waits").as_deref(), good["metadata"]["uid"].as_str());
    assert_eq!(send(&server, "DELETE", &format!("{PATH}/good"), None).await.status.as_u16(), 200);
    until("it goes", || server.get(SNAPSHOTS, "app", "good").is_none()).await;
}

#[tokio::test]
async fn a_claim_whose_source_was_deleted_waits_for_ever_and_holds_it() {
    let server = server(|_| {}).await;
    server.put(objects::waiting_storage_class("late"));
    let good = server.put(objects::ready_snapshot("app", "good", "data", TIME));
    restore(&server, "waits", |claim| claim["spec"]["storageClassName"] = "late".into()).await;
    assert_eq!(send(&server, "DELETE", &format!("{PATH}/good"), None).await.status.as_u16(), 200);
    server.use_claim("app", "waits");
    sleep(Duration::from_millis(50)).await;
    assert!(!is_bound(&server, "waits"));
    let held = server.get(SNAPSHOTS, "app", "good").expect("is held");
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["finalizers"], good["metadata"]["finalizers"]);
    server.delete(CLAIMS, "app", "waits");
    until("it goes with what held it", || server.get(SNAPSHOTS, "app", "good").is_none()).await;
}
