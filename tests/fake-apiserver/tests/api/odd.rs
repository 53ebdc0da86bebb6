//! Unusual objects: odd statuses, hostile names, large ones.

use crate::{PATH, SNAPSHOTS, create, raw, send, server, until};
use fake_apiserver::{http as client, objects};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const TIME: &str = "2020-01-01T00:00:00Z";
const CLAIMS: &str = "/api/v1/namespaces/app/persistentvolumeclaims";

#[tokio::test]
async fn any_status_can_be_planted_and_is_shown_as_it_is() {
    let server = server(|_| {}).await;
    let statuses = [
        json!({"readyToUse": true, "restoreSize": -5, "creationTime": "9999-12-31T23:59:59-14:00"}),
        json!({"readyToUse": "yes", "restoreSize": {"a": []}, "creationTime": 7}),
        json!({"error": {"message": "\u{1b}[2K\r\nforged\u{202e}", "time": TIME}}),
        json!([]),
        json!("nonsense"),
    ];
    let watch = format!("{}{PATH}?watch=true", server.url());
    let mut lines = client::lines(&watch, Some(server.admin_token())).await.expect("a watch");
    for (number, status) in statuses.iter().enumerate() {
        let name = format!("odd-{number}");
        let mut snapshot = objects::ready_snapshot("app", &name, "data", TIME);
        snapshot["status"] = status.clone();
        server.put(snapshot);
        let read = send(&server, "GET", &format!("{PATH}/{name}"), None).await.json();
        assert_eq!(read["status"], *status);
        let event = lines.next().await.expect("a line").expect("an event");
        assert_eq!(event["object"], read, "{status}");
    }
    let list = send(&server, "GET", PATH, None).await.json();
    let listed: Vec<&Value> =
        list["items"].as_array().expect("items").iter().map(|one| &one["status"]).collect();
    assert_eq!(listed, statuses.iter().collect::<Vec<_>>());

    // What the schema lets through a client can write itself.
    let headers = [("content-type", "application/merge-patch+json")];
    let url = format!("{}{PATH}/odd-0/status", server.url());
    let patch = json!({"status": {"restoreSize": -7}});
    let patched =
        client::request(http::Method::PATCH, &url, Some(server.admin_token()), &headers, Some(&patch));
    assert_eq!(patched.await.expect("an answer").json()["status"]["restoreSize"], -7);
}

#[tokio::test]
async fn hostile_names_are_kept_as_they_are() {
    let server = server(|_| {}).await;
    let names = [
        "data\u{1b}[2K\r\nforged",
        "data\u{202e}",
        "../../victim",
        "?labelSelector=a",
        "data/status",
        "%2e%2e%2fvictim",
        "",
    ];
    for (number, name) in names.into_iter().enumerate() {
        let mut snapshot = objects::snapshot("app", &format!("hostile-{number}"), name);
        snapshot["spec"]["volumeSnapshotClassName"] = "x\u{1b}[31m".into();
        let created = create(&server, &snapshot).await;
        assert_eq!(created["spec"]["source"]["persistentVolumeClaimName"], name);
        assert_eq!(created["spec"]["volumeSnapshotClassName"], "x\u{1b}[31m");
    }
    // The controller lives.
    create(&server, &objects::snapshot("app", "normal", "data")).await;
    until("ready", || crate::is_ready(&server, "normal")).await;
}

#[tokio::test]
async fn a_request_is_logged_as_it_came() {
    let server = server(|_| {}).await;
    let connect = async || TcpStream::connect(server.address()).await.expect("a connection");
    for uri in [
        "/api/v1/namespaces/app/persistentvolumeclaims/../../victim",
        "/api/v1/namespaces/app/persistentvolumeclaims/?labelSelector=a",
        "/api/v1/namespaces/app/persistentvolumeclaims/%2e%2e%2Fvictim?a=b%26c&d",
        "/version",
    ] {
        raw(connect().await, server.admin_token(), uri).await;
        let request = server.requests().pop().expect("a request");
        assert_eq!((request.method.as_str(), request.uri.as_str()), ("GET", uri));
    }
}

#[tokio::test]
async fn large_lists_come_in_pages_and_chunks() {
    let server = server(|_| {}).await;
    const BYTES: usize = 250_000;
    for number in 0..20 {
        let claim = objects::bound_claim("app", &format!("large-{number:02}"), &[("size", "large")]);
        server.put(objects::enlarged(claim, BYTES));
    }
    let mut uri = format!("{CLAIMS}?limit=8&labelSelector=size");
    let mut sizes = Vec::new();
    loop {
        let answer = send(&server, "GET", &uri, None).await;
        assert_eq!(answer.headers.get("content-length"), None);
        assert_eq!(answer.headers["transfer-encoding"], "chunked");
        assert_eq!(server.requests().pop().expect("a request").received, answer.body.len() as u64);
        let list = answer.json();
        sizes.push((list["items"].as_array().expect("items").len(), answer.body.len() / BYTES));
        match list["metadata"]["continue"].as_str() {
            Some(token) => uri = format!("{CLAIMS}?limit=8&labelSelector=size&continue={token}"),
            None => break,
        }
    }
    assert_eq!(sizes, [(8, 8), (8, 8), (4, 4)]);
    let small = send(&server, "GET", &format!("{CLAIMS}/data"), None).await;
    assert_eq!(small.headers["content-length"], small.body.len().to_string().as_str());
}

#[tokio::test]
async fn annotations_have_a_limit() {
    let server = server(|_| {}).await;
    for (bytes, code) in [(250_000, 201), (256 * 1024, 422)] {
        let claim = objects::enlarged(objects::claim("app", &format!("of-{bytes}")), bytes);
        let answer = send(&server, "POST", CLAIMS, Some(&claim)).await;
        assert_eq!(answer.status.as_u16(), code);
        if code == 422 {
            let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
            assert!(
                message.ends_with("metadata.annotations: Too long: may not be more than 262144 bytes"),
                "{message}"
            );
        }
    }
    assert!(server.list(SNAPSHOTS, "app").is_empty());
}
