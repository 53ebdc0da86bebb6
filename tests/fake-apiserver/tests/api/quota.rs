//! Quotas on the number of snapshots.

use crate::{PATH, SNAPSHOTS, create, is_ready, send, server, until};
use fake_apiserver::{FakeApiServer, Plan, objects};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const WHAT: &str = "count/volumesnapshots.snapshot.storage.k8s.io";

async fn try_to_create(server: &FakeApiServer, name: &str) -> u16 {
    send(server, "POST", PATH, Some(&objects::snapshot("app", name, "data"))).await.status.as_u16()
}

#[tokio::test]
async fn a_quota_is_full_until_a_snapshot_is_gone() {
    let server = server(|_| {}).await;
    server.plan(|snapshot| {
        let plan = Plan::ready_after(Duration::ZERO);
        Some(if snapshot["metadata"]["name"] == "stays" { plan.kept_on_delete() } else { plan })
    });
    server.quota("app", 2);
    for name in ["stays", "goes"] {
        create(&server, &objects::snapshot("app", name, "data")).await;
        until("ready", || is_ready(&server, name)).await;
    }
    let refused = send(&server, "POST", PATH, Some(&objects::snapshot("app", "more", "data"))).await;
    assert_eq!(refused.status.as_u16(), 403);
    let why = format!("exceeded quota: q, requested: {WHAT}=1, used: {WHAT}=2, limited: {WHAT}=2");
    let message = format!("volumesnapshots.snapshot.storage.k8s.io \"more\" is forbidden: {why}");
    assert_eq!(refused.json()["message"], message);
    let other = objects::snapshot("other", "more", "data");
    server.put(objects::namespace("other"));
    let elsewhere = PATH.replace("/app/", "/other/");
    assert_eq!(send(&server, "POST", &elsewhere, Some(&other)).await.status.as_u16(), 201);

    // One that is terminating has its place still.
    server.delete(SNAPSHOTS, "app", "stays");
    sleep(Duration::from_millis(30)).await;
    assert_eq!(try_to_create(&server, "more").await, 403);
    server.delete(SNAPSHOTS, "app", "goes");
    until("gone", || server.get(SNAPSHOTS, "app", "goes").is_none()).await;
    assert_eq!(try_to_create(&server, "more").await, 201);
    assert_eq!(try_to_create(&server, "one-more").await, 403);
    server.remove("resourcequotas", "app", "q");
    assert_eq!(try_to_create(&server, "one-more").await, 201);
}

#[tokio::test]
async fn a_quota_may_notice_late_that_a_snapshot_is_gone() {
    let server = server(|_| {}).await;
    server.quota("app", 1);
    server.quota_frees_after("app", Duration::from_millis(200));
    let used = || server.get("resourcequotas", "app", "q").expect("a quota")["status"]["used"][WHAT].clone();
    create(&server, &objects::snapshot("app", "one", "data")).await;
    until("counted", || used() == "1").await;
    server.remove(SNAPSHOTS, "app", "one");
    let gone = Instant::now();
    assert_eq!(try_to_create(&server, "two").await, 403);
    assert_eq!(used(), "1");
    while try_to_create(&server, "two").await != 201 {
        assert!(gone.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(5)).await;
    }
    assert!(gone.elapsed() >= Duration::from_millis(195), "{:?}", gone.elapsed());
    server.remove(SNAPSHOTS, "app", "two");
    until("counted again", || used() == "0").await;
}

#[tokio::test]
async fn quotas_are_made_and_read_as_other_objects_are() {
    let server = server(|_| {}).await;
    let path = "/api/v1/namespaces/app/resourcequotas";
    let mut quota = objects::quota("app", "strict", 0);
    quota["spec"]["hard"]["count/configmaps"] = "1".into();
    assert_eq!(send(&server, "POST", path, Some(&quota)).await.status.as_u16(), 201);
    assert_eq!(try_to_create(&server, "one").await, 403);
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let maps = "/api/v1/namespaces/app/configmaps";
    assert_eq!(send(&server, "POST", maps, Some(&map("a"))).await.status.as_u16(), 201);
    let refused = send(&server, "POST", maps, Some(&map("b"))).await.json();
    let message = "configmaps \"b\" is forbidden: exceeded quota: strict, requested: count/configmaps=1, used: \
                   count/configmaps=1, limited: count/configmaps=1";
    assert_eq!(refused["message"], message);
    let expected =
        json!({"hard": {WHAT: "0", "count/configmaps": "1"}, "used": {WHAT: "0", "count/configmaps": "1"}});
    until("counted", || {
        server.get("resourcequotas", "app", "strict").expect("a quota")["status"] == expected
    })
    .await;
    assert_eq!(send(&server, "GET", &format!("{path}/strict"), None).await.json()["status"], expected);
}
