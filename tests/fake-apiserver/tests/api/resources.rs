//! Resources that are only stored, and objects that do not go.

use crate::{PATH, SNAPSHOTS, send, send_as, server, until};
use fake_apiserver::{Plan, objects};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

const TIME: &str = "2020-01-01T00:00:00Z";

#[tokio::test]
async fn schedules_and_their_settings_are_stored_listed_and_permitted() {
    let server = server(|_| {}).await;
    let settings = objects::config_map("app", "settings", &[("SNAPSHOT_RETENTION", "daily=7")]);
    let cron_job = objects::cron_job("app", "hourly", &[("SNAPSHOT_JOB", "hourly")], &["settings"]);
    let token = server.token("app", "lister");
    let cron_jobs = "/apis/batch/v1/namespaces/app/cronjobs";
    let config_maps = "/api/v1/namespaces/app/configmaps";
    for (path, object) in [(cron_jobs, &cron_job), (config_maps, &settings)] {
        assert_eq!(send(&server, "POST", path, Some(object)).await.status.as_u16(), 201);
        assert_eq!(send_as(&server, &token, "GET", path, None).await.status.as_u16(), 403);
    }
    let rules: &[(&str, &str, &[&str])] = &[("batch", "cronjobs", &["list"]), ("", "configmaps", &["get"])];
    server.put(objects::role("app", "lister", rules));
    server.put(objects::role_binding("app", "lister", "lister"));
    let list = send_as(&server, &token, "GET", cron_jobs, None).await.json();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("CronJobList"), &json!("batch/v1")));
    let container = &list["items"][0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["env"], json!([{"name": "SNAPSHOT_JOB", "value": "hourly"}]));
    assert_eq!(container["envFrom"], json!([{"configMapRef": {"name": "settings"}}]));
    let read = send_as(&server, &token, "GET", &format!("{config_maps}/settings"), None).await.json();
    assert_eq!(read["data"], json!({"SNAPSHOT_RETENTION": "daily=7"}));
    assert_eq!(send_as(&server, &token, "GET", config_maps, None).await.status.as_u16(), 403);
    let groups = send(&server, "GET", "/apis", None).await.json();
    assert!(groups["groups"].as_array().expect("groups").iter().any(|group| group["name"] == "batch"));
}

#[tokio::test]
async fn storage_classes_say_which_is_the_default() {
    let server = server(|_| {}).await;
    server.put(objects::default_storage_class("fast"));
    let list = send(&server, "GET", "/apis/storage.k8s.io/v1/storageclasses", None).await.json();
    let names = |default: bool| -> Vec<&str> {
        let is_default = |class: &&Value| {
            (class["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true")
                == default
        };
        let items = list["items"].as_array().expect("items").iter();
        items.filter(is_default).filter_map(|class| class["metadata"]["name"].as_str()).collect()
    };
    assert_eq!((names(true), names(false)), (vec!["fast"], vec!["hostpath"]));
    let mut claim = objects::claim("app", "anyhow");
    claim["spec"].as_object_mut().expect("a spec").remove("storageClassName");
    let created = send(&server, "POST", "/api/v1/namespaces/app/persistentvolumeclaims", Some(&claim)).await;
    assert_eq!(created.json()["spec"]["storageClassName"], "fast");
}

#[tokio::test]
async fn a_pod_is_the_consumer_that_its_claims_wait_for() {
    let server = server(|_| {}).await;
    server.put(objects::waiting_storage_class("late"));
    let mut claim = objects::claim("app", "waits");
    claim["spec"]["storageClassName"] = "late".into();
    server.put(claim);
    let is_bound = || {
        let claim = server.get("persistentvolumeclaims", "app", "waits").expect("a claim");
        claim["status"]["phase"] == "Bound"
    };
    for (pod, volume) in [("other", "data"), ("consumer", "waits")] {
        sleep(Duration::from_millis(20)).await;
        assert!(!is_bound());
        let pod = objects::pod("app", pod, volume);
        let created = send(&server, "POST", "/api/v1/namespaces/app/pods", Some(&pod)).await;
        assert_eq!(created.json()["status"]["phase"], "Pending");
    }
    until("bound", is_bound).await;
}

#[tokio::test]
async fn owners_are_kept_and_shown() {
    let server = server(|_| {}).await;
    let owner = server.put(objects::cron_job("app", "hourly", &[], &[]));
    let other = server.put(objects::config_map("app", "other", &[]));
    let snapshot = objects::owned(objects::snapshot("app", "member", "data"), &[&owner, &other]);
    let created = send(&server, "POST", PATH, Some(&snapshot)).await.json();
    assert_eq!(
        created["metadata"]["ownerReferences"],
        json!([
            {
                "apiVersion": "batch/v1", "kind": "CronJob", "name": "hourly",
                "uid": owner["metadata"]["uid"], "controller": true,
            },
            {
                "apiVersion": "v1", "kind": "ConfigMap", "name": "other",
                "uid": other["metadata"]["uid"], "controller": false,
            },
        ])
    );
}

#[tokio::test]
async fn a_member_of_a_group_is_known_by_its_owner_and_stays_when_deleted_alone() {
    let server = server(|_| {}).await;
    let member = server.put(objects::group_member("app", "member", "data", "group", TIME));
    assert_eq!(member["metadata"]["ownerReferences"][0]["kind"], "VolumeGroupSnapshot");
    assert_eq!(member["metadata"].get("labels"), None);
    assert_eq!(member["status"].get("volumeGroupSnapshotName"), None);
    send(&server, "DELETE", &format!("{PATH}/member"), None).await;
    sleep(Duration::from_millis(50)).await;
    let left = server.get(SNAPSHOTS, "app", "member").expect("stays")["metadata"]["finalizers"].clone();
    assert_eq!(left, json!(["snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection"]));
}

#[tokio::test]
async fn what_has_a_finalizer_of_others_stays_terminating() {
    let server = server(|_| {}).await;
    let old = server.put(objects::terminating(objects::ready_snapshot("app", "old", "data", TIME), TIME));
    assert_eq!(old["metadata"]["deletionTimestamp"], TIME);
    server.put(objects::kept(objects::ready_snapshot("app", "kept", "data", TIME)));
    server.plan(|snapshot| {
        (snapshot["metadata"]["name"] == "planned")
            .then(|| Plan::ready_after(Duration::ZERO).kept_on_delete())
    });
    let created = crate::create(&server, &objects::snapshot("app", "planned", "data")).await;
    until("ready", || crate::is_ready(&server, "planned")).await;
    for name in ["old", "kept", "planned"] {
        let answer = send(&server, "DELETE", &format!("{PATH}/{name}"), None).await;
        assert_eq!(answer.status.as_u16(), 200);
        assert!(answer.json()["metadata"]["deletionTimestamp"].is_string());
    }
    sleep(Duration::from_millis(50)).await;
    assert_eq!(server.get(SNAPSHOTS, "app", "old").expect("stays"), old);
    let kept = server.get(SNAPSHOTS, "app", "kept").expect("stays");
    assert_eq!(kept["metadata"]["finalizers"], json!(["example.com/stays"]));
    assert!(
        server
            .get(SNAPSHOTS, "app", "planned")
            .is_some_and(|now| now["metadata"]["uid"] == created["metadata"]["uid"])
    );
    // It can have been so for long.
    server
        .update(SNAPSHOTS, "app", "kept", |snapshot| snapshot["metadata"]["deletionTimestamp"] = TIME.into());
    let read = send(&server, "GET", &format!("{PATH}/kept"), None).await.json();
    assert_eq!(read["metadata"]["deletionTimestamp"], TIME);
    // And ends when the finalizer goes.
    server.update(SNAPSHOTS, "app", "kept", |snapshot| snapshot["metadata"]["finalizers"] = json!([]));
    assert_eq!(server.get(SNAPSHOTS, "app", "kept"), None);
}

#[tokio::test]
async fn a_job_has_a_pod_that_uses_its_claims_and_goes_with_it() {
    let server = server(|_| {}).await;
    server.put(objects::waiting_storage_class("late"));
    let mut claim = objects::claim("app", "waits");
    claim["spec"]["storageClassName"] = "late".into();
    server.put(claim);
    let path = "/apis/batch/v1/namespaces/app/jobs";
    let cron_job = server.put(objects::cron_job("app", "hourly", &[], &[]));
    let mut job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "drill"},
        "spec": {"template": {"spec": objects::pod("app", "any", "waits")["spec"]}},
    });
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    let created = send(&server, "POST", path, Some(&objects::owned(job.clone(), &[&cron_job]))).await.json();
    let uid = created["metadata"]["uid"].as_str().expect("a uid");
    until("the claim is bound", || {
        let claim = server.get("persistentvolumeclaims", "app", "waits").expect("a claim");
        claim["status"]["phase"] == "Bound"
    })
    .await;
    let pods = server.list("pods", "app");
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0]["metadata"]["labels"]["batch.kubernetes.io/controller-uid"], uid);
    let status = || server.get("jobs", "app", "drill").expect("a Job")["status"]["active"].clone();
    until("it is active", || status() == 1).await;

    // With the CronJob goes the Job, and with that its pod.
    server.delete("cronjobs", "app", "hourly");
    until("all are gone", || server.list("jobs", "app").is_empty() && server.list("pods", "app").is_empty())
        .await;

    // One of the same name is another one, and so is its pod.
    let again = send(&server, "POST", path, Some(&job)).await.json();
    assert_ne!(again["metadata"]["uid"], uid);
    until("it has its pod", || server.list("pods", "app").len() == 1).await;
    assert_eq!(
        server.list("pods", "app")[0]["metadata"]["ownerReferences"][0]["uid"],
        again["metadata"]["uid"]
    );
    // One that is put in with an end stays as it is.
    let mut done = job;
    done["metadata"] = json!({"name": "done", "namespace": "app"});
    done["spec"]["selector"] = json!({});
    done["status"] = json!({"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]});
    server.put(done);
    sleep(Duration::from_millis(30)).await;
    assert_eq!(server.list("pods", "app").len(), 1);
}
