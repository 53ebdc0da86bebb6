//! What is on volumes, what snapshots hold of it, and writers that are frozen.

use crate::{PATH, SNAPSHOTS, create, is_ready, server, until};
use fake_apiserver::{FakeApiServer, Pace, Plan, Script, objects};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

/// The server with a second claim `logs`, and a pod `db` that counts up on both.
async fn with_writer() -> FakeApiServer {
    let server = server(|_| {}).await;
    server.put(objects::bound_claim("app", "logs", &[]));
    server.put(objects::running_pod("app", "db", &["main"], &["data", "logs"]));
    server.start_writer("app", "db", Duration::from_millis(1));
    until("it writes", || server.content("app", "logs").as_u64() > Some(3)).await;
    server
}

fn held(server: &FakeApiServer) -> [Option<Value>; 2] {
    ["of-data", "of-logs"].map(|name| server.snapshot_content("app", name))
}

async fn snapshot_both(server: &FakeApiServer) {
    for claim in ["data", "logs"] {
        create(server, &objects::snapshot("app", &format!("of-{claim}"), claim)).await;
    }
    until("ready", || ["of-data", "of-logs"].iter().all(|name| is_ready(server, name))).await;
}

#[tokio::test]
async fn a_frozen_pod_writes_nothing_and_its_snapshots_agree() {
    let server = with_writer().await;
    // The controller comes to the second one later.
    server.controller_pace(Pace::PerSecond(20));
    snapshot_both(&server).await;
    let [data, logs] = held(&server);
    assert!(
        data.as_ref().and_then(Value::as_u64) < logs.as_ref().and_then(Value::as_u64),
        "{data:?} {logs:?}"
    );
    for name in ["of-data", "of-logs"] {
        server.remove(SNAPSHOTS, "app", name);
    }
    server.freeze("app", "db");
    let frozen_at = server.content("app", "data");
    assert_eq!(frozen_at, server.content("app", "logs"));
    snapshot_both(&server).await;
    assert_eq!(held(&server), [Some(frozen_at.clone()), Some(frozen_at.clone())]);
    assert_eq!(server.content("app", "data"), frozen_at);
    server.thaw("app", "db");
    until("it writes again", || server.content("app", "data").as_u64() > frozen_at.as_u64()).await;
    let freezes = server.freezes("app", "db");
    assert!(freezes.len() == 1 && freezes[0].until.is_some(), "{freezes:?}");
    // It ends with its pod.
    server.delete("pods", "app", "db");
    sleep(Duration::from_millis(20)).await;
    let last = server.content("app", "data");
    sleep(Duration::from_millis(20)).await;
    assert_eq!(server.content("app", "data"), last);
}

#[tokio::test]
async fn a_snapshot_is_taken_long_before_it_is_ready() {
    let server = with_writer().await;
    let ms = Duration::from_millis;
    server.plan(move |_| Some(Plan::ready_after(ms(400)).taken_after(ms(50))));
    create(&server, &objects::snapshot("app", "of-data", "data")).await;
    let before = server.content("app", "data").as_u64();
    assert_eq!(server.snapshot_content("app", "of-data"), None);
    let status = || server.get(SNAPSHOTS, "app", "of-data").expect("a snapshot")["status"].clone();
    until("taken", || status()["creationTime"].is_string()).await;
    assert_eq!(status()["readyToUse"], false);
    let taken = server.snapshot_content("app", "of-data").and_then(|content| content.as_u64());
    assert!(taken > before, "{taken:?} {before:?}");
    let time = status()["creationTime"].clone();
    until("ready", || is_ready(&server, "of-data")).await;
    assert_eq!(
        (status()["creationTime"].clone(), server.snapshot_content("app", "of-data")),
        (time, taken.map(Value::from))
    );
    // One that is never ready can be taken; one that is nothing is not.
    server.plan(move |snapshot| {
        let taken = snapshot["metadata"]["name"] == "taken";
        Some(if taken { Plan::never().taken_after(ms(0)) } else { Plan::never() })
    });
    for name in ["taken", "not-taken"] {
        create(&server, &objects::snapshot("app", name, "data")).await;
    }
    until("taken", || server.snapshot_content("app", "taken").is_some()).await;
    sleep(ms(30)).await;
    assert_eq!(server.snapshot_content("app", "not-taken"), None);
    assert!(!is_ready(&server, "taken"));
}

#[tokio::test]
async fn contents_go_from_claims_to_snapshots_to_claims() {
    let server = server(|_| {}).await;
    assert_eq!(server.content("app", "data"), Value::Null);
    server.set_content("app", "data", json!({"rows": [1, 2]}));
    create(&server, &objects::snapshot("app", "one", "data")).await;
    until("ready", || is_ready(&server, "one")).await;
    server.set_content("app", "data", json!("changed"));
    let old = "2020-01-01T00:00:00Z";
    server.put(objects::ready_snapshot("app", "put", "data", old));
    for (claim, snapshot, content) in [("a", "one", json!({"rows": [1, 2]})), ("b", "put", json!("changed"))]
    {
        server.put(objects::claim_from_snapshot("app", claim, snapshot));
        until("bound", || server.restored_from("app", claim).is_some()).await;
        assert_eq!(server.content("app", claim), content);
    }
    server.set_snapshot_content("app", "put", json!("told"));
    assert_eq!(server.snapshot_content("app", "put"), Some(json!("told")));
    // Another claim of the same name is another volume.
    server.replace_claim("app", "data");
    assert_eq!(server.content("app", "data"), Value::Null);
    assert_eq!(server.snapshot_content("app", "none"), None);
}

#[tokio::test]
async fn commands_freeze_what_snapshots_then_agree_on() {
    let server = with_writer().await;
    server.controller_pace(Pace::PerSecond(20));
    server.commands(|command| match command.line().as_str() {
        "freeze" => Some(Script::new().freeze()),
        "thaw" => Some(Script::new().thaw()),
        _ => None,
    });
    let run = async |command: &str| {
        let path = format!("/api/v1/namespaces/app/pods/db/exec?stdout=true&command={command}");
        let url = format!("{}{path}", server.url());
        let protocols = &["v5.channel.k8s.io"];
        let exec = fake_apiserver::http::exec(&url, Some(server.admin_token()), protocols).await;
        let mut exec = exec.expect("an answer").expect("it runs");
        while exec.next().await.expect("a whole stream").is_some() {}
    };
    run("freeze").await;
    snapshot_both(&server).await;
    run("thaw").await;
    let [data, logs] = held(&server);
    assert!(data.is_some() && data == logs, "{data:?} {logs:?}");
    // What the requests and processes were, in order.
    let asked: Vec<String> = server
        .requests()
        .iter()
        .filter(|request| request.path.starts_with(PATH) || request.resource == "pods/exec")
        .map(|request| format!("{} {}", request.verb, request.resource))
        .collect();
    assert_eq!(asked, ["get pods/exec", "create volumesnapshots", "create volumesnapshots", "get pods/exec"]);
    let lines: Vec<String> = server.processes().iter().map(|process| process.command.line()).collect();
    assert_eq!(lines, ["freeze", "thaw"]);
}
