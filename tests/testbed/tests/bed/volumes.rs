//! Volumes that are free, and claims that wait for their first consumer.

use crate::{PATH, SNAPSHOTS, bed, send, until};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::{TestBed, objects};
use tokio::time::sleep;

const CLAIMS: &str = "persistentvolumeclaims";
const CLAIMS_PATH: &str = "/api/v1/namespaces/app/persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const TIME: &str = "2020-01-01T00:00:00Z";

fn claim(bed: &TestBed, name: &str) -> Value {
    bed.get(CLAIMS, "app", name).expect("a claim")
}

fn is_bound(bed: &TestBed, name: &str) -> bool {
    claim(bed, name)["status"]["phase"] == "Bound"
}

async fn restore(bed: &TestBed, name: &str, change: impl FnOnce(&mut Value)) {
    let mut claim = objects::claim_from_snapshot("app", name, "good");
    change(&mut claim);
    let answer = send(bed, "POST", CLAIMS_PATH, Some(&claim)).await;
    assert_eq!(answer.status.as_u16(), 201, "{:?}", answer.json());
}

#[tokio::test]
async fn a_free_volume_is_preferred_and_the_data_source_ignored() {
    let bed = bed(|_| {}).await;
    let good = bed.put(objects::ready_snapshot("app", "good", "data", TIME));
    for (name, size) in [("spare", "2Gi"), ("larger", "3Gi"), ("small", "512Mi")] {
        bed.put(objects::free_volume(name, "hostpath", size));
    }
    bed.put(objects::free_volume("elsewhere", "other", "1Gi"));
    let mut block = objects::free_volume("block", "hostpath", "1Gi");
    block["spec"]["volumeMode"] = "Block".into();
    bed.put(block);
    let mut many = objects::free_volume("many", "hostpath", "1Gi");
    many["spec"]["accessModes"] = json!(["ReadOnlyMany"]);
    bed.put(many);
    let mut others = objects::free_volume("others", "hostpath", "1Gi");
    others["spec"]["claimRef"] = json!({"namespace": "other", "name": "onto-spare"});
    bed.put(others);

    restore(&bed, "onto-spare", |_| {}).await;
    until("bound", || is_bound(&bed, "onto-spare")).await;
    let bound = claim(&bed, "onto-spare");
    assert_eq!(bound["spec"]["volumeName"], "spare");
    assert_eq!(bound["status"]["capacity"]["storage"], "2Gi");
    let annotations =
        json!({"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"});
    assert_eq!(bound["metadata"]["annotations"], annotations);
    assert_eq!(bed.restored_from("app", "onto-spare"), None);
    let spare = bed.get(VOLUMES, "", "spare").expect("a volume");
    assert_eq!(spare["spec"]["claimRef"]["uid"], bound["metadata"]["uid"]);
    assert_eq!(spare["status"]["phase"], "Bound");

    bed.remove(VOLUMES, "", "larger");
    restore(&bed, "provisioned", |_| {}).await;
    until("bound", || is_bound(&bed, "provisioned")).await;
    assert_eq!(bed.restored_from("app", "provisioned").as_deref(), good["metadata"]["uid"].as_str());
    assert_eq!(
        claim(&bed, "provisioned")["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"],
        objects::DRIVER
    );

    // When the claim is gone its volume is not free again; one that was made for a claim goes with it.
    let made = claim(&bed, "provisioned")["spec"]["volumeName"].as_str().expect("a volume").to_owned();
    bed.delete(CLAIMS, "app", "onto-spare");
    bed.delete(CLAIMS, "app", "provisioned");
    until("reclaimed", || {
        bed.get(VOLUMES, "", "spare").expect("is kept")["status"]["phase"] == "Released"
            && bed.get(VOLUMES, "", &made).is_none()
    })
    .await;
    restore(&bed, "again", |_| {}).await;
    until("bound", || is_bound(&bed, "again")).await;
    assert_ne!(claim(&bed, "again")["spec"]["volumeName"], "spare");
}

#[tokio::test]
async fn a_claim_may_name_its_volume_and_waits_for_no_other() {
    let bed = bed(|_| {}).await;
    bed.put(objects::ready_snapshot("app", "good", "data", TIME));
    bed.put(objects::free_volume("another", "static", "1Gi"));
    bed.put(objects::free_volume("nearby", "hostpath", "1Gi"));
    restore(&bed, "named", |claim| claim["spec"]["volumeName"] = "mine".into()).await;
    sleep(Duration::from_millis(30)).await;
    assert!(!is_bound(&bed, "named"));
    bed.put(objects::free_volume("mine", "hostpath", "1Gi"));
    until("bound", || is_bound(&bed, "named")).await;
    assert_eq!(claim(&bed, "named")["spec"]["volumeName"], "mine");
    // Volumes that are not of its name are there still, and a class need not be.
    restore(&bed, "any", |claim| claim["spec"]["storageClassName"] = "static".into()).await;
    until("bound", || is_bound(&bed, "any")).await;
    assert_eq!(claim(&bed, "any")["spec"]["volumeName"], "another");
}

#[tokio::test]
async fn volumes_are_read_and_permitted_as_other_objects_are() {
    let bed = bed(|_| {}).await;
    bed.put(objects::free_volume("spare", "hostpath", "1Gi"));
    let list = send(&bed, "GET", "/api/v1/persistentvolumes", None).await.json();
    assert_eq!(list["items"][0]["spec"]["storageClassName"], "hostpath");
    let one = send(&bed, "GET", "/api/v1/persistentvolumes/spare", None).await.json();
    assert_eq!(one["status"]["phase"], "Available");
    let token = bed.token("app", "someone");
    let answer = crate::send_as(&bed, &token, "GET", "/api/v1/persistentvolumes/spare", None).await;
    assert_eq!(answer.status.as_u16(), 403);
}

#[tokio::test]
async fn a_claim_that_waits_for_its_consumer_holds_its_source_until_it_is_bound() {
    let bed = bed(|_| {}).await;
    bed.put(objects::waiting_storage_class("late"));
    let good = bed.put(objects::ready_snapshot("app", "good", "data", TIME));
    restore(&bed, "waits", |claim| claim["spec"]["storageClassName"] = "late".into()).await;
    until("it is seen", || claim(&bed, "waits")["metadata"]["finalizers"].is_array()).await;
    sleep(Duration::from_millis(30)).await;
    assert!(!is_bound(&bed, "waits"));
    assert_eq!(claim(&bed, "waits")["metadata"].get("annotations"), None);
    bed.use_claim("app", "waits");
    until("bound", || is_bound(&bed, "waits")).await;
    assert_eq!(bed.restored_from("app", "waits").as_deref(), good["metadata"]["uid"].as_str());
    assert_eq!(send(&bed, "DELETE", &format!("{PATH}/good"), None).await.status.as_u16(), 200);
    until("it goes", || bed.get(SNAPSHOTS, "app", "good").is_none()).await;
}

#[tokio::test]
async fn a_claim_whose_source_was_deleted_waits_for_ever_and_holds_it() {
    let bed = bed(|_| {}).await;
    bed.put(objects::waiting_storage_class("late"));
    let good = bed.put(objects::ready_snapshot("app", "good", "data", TIME));
    restore(&bed, "waits", |claim| claim["spec"]["storageClassName"] = "late".into()).await;
    assert_eq!(send(&bed, "DELETE", &format!("{PATH}/good"), None).await.status.as_u16(), 200);
    bed.use_claim("app", "waits");
    sleep(Duration::from_millis(50)).await;
    assert!(!is_bound(&bed, "waits"));
    let held = bed.get(SNAPSHOTS, "app", "good").expect("is held");
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["finalizers"], good["metadata"]["finalizers"]);
    bed.delete(CLAIMS, "app", "waits");
    until("it goes with what held it", || bed.get(SNAPSHOTS, "app", "good").is_none()).await;
}
