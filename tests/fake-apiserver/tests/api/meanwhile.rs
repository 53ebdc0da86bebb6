//! What others do around the requests of somebody.

use crate::{PATH, SNAPSHOTS, create, is_ready, send, server, until};
use fake_apiserver::{Fault, Request, When, objects};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const TIME: &str = "2020-01-01T00:00:00Z";

fn deletes(request: &Request) -> bool {
    request.is("delete", SNAPSHOTS)
}

#[tokio::test]
async fn an_action_comes_between_what_was_read_and_what_is_deleted() {
    let server = server(|_| {}).await;
    server.put(objects::ready_snapshot("app", "old", "data", TIME));
    server.before(deletes, 1, |others| {
        others.label(SNAPSHOTS, "app", "old", "volume-snapshotter/hold", Some("true"))
    });
    let path = format!("{PATH}/old");
    let read = send(&server, "GET", &path, None).await.json();
    assert_eq!(read["metadata"]["labels"].get("volume-snapshotter/hold"), None);
    let preconditions = json!({"preconditions": {"resourceVersion": read["metadata"]["resourceVersion"]}});
    let answer = send(&server, "DELETE", &path, Some(&preconditions)).await;
    assert_eq!(answer.status.as_u16(), 409, "it was changed just before");
    assert_eq!(send(&server, "DELETE", &path, None).await.status.as_u16(), 200, "and only once");
}

#[tokio::test]
async fn who_reads_is_told_what_was_there_before_an_action_that_comes_after() {
    let server = server(|_| {}).await;
    for name in ["a", "b"] {
        server.put(objects::ready_snapshot("app", name, "data", TIME));
    }
    let lists = |request: &Request| request.is("list", SNAPSHOTS);
    server.after(lists, 2, |others| drop(others.remove(SNAPSHOTS, "app", "a")));
    server.before(lists, 4, |others| drop(others.remove(SNAPSHOTS, "app", "b")));
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let list = send(&server, "GET", PATH, None).await.json();
        numbers.push(list["items"].as_array().map_or(0, Vec::len));
    }
    assert_eq!(numbers, [2, 2, 1, 0]);
}

#[tokio::test]
async fn each_request_can_have_its_action() {
    let server = server(|_| {}).await;
    let seen: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let note = |when| {
        let seen = seen.clone();
        server.at_each(
            when,
            |request| request.is("create", SNAPSHOTS),
            move |others, request| {
                let there = others.get(SNAPSHOTS, "app", &request.name).is_some();
                seen.lock().expect("no panic").push((request.name.clone(), there));
            },
        );
    };
    note(When::Before);
    note(When::After);
    for name in ["a", "b"] {
        create(&server, &objects::snapshot("app", name, "data")).await;
    }
    server.clear_actions();
    create(&server, &objects::snapshot("app", "c", "data")).await;
    let expected = [("a", false), ("a", true), ("b", false), ("b", true)];
    assert_eq!(*seen.lock().expect("no panic"), expected.map(|(name, there)| (name.to_owned(), there)));
}

#[tokio::test]
async fn requests_that_a_fault_refuses_count_too() {
    let server = server(|_| {}).await;
    create(&server, &objects::snapshot("app", "new", "data")).await;
    until("ready", || is_ready(&server, "new")).await;
    for fault in [
        Fault::TooManyRequests { retry_after: Some(1), status: false },
        Fault::Error(503, When::Before),
        Fault::Cut(When::Before),
        Fault::Cut(When::After),
    ] {
        server.put(objects::ready_snapshot("app", "old", "data", TIME));
        server.put(objects::ready_snapshot("app", "marker", "data", TIME));
        server.fault_times(deletes, 1, fault.clone());
        server.after(deletes, 1, |others| drop(others.remove(SNAPSHOTS, "app", "marker")));
        let url = format!("{}{PATH}/old", server.url());
        let token = Some(server.admin_token());
        let first = fake_apiserver::http::request(http::Method::DELETE, &url, token, &[], None).await;
        assert!(!first.is_ok_and(|answer| answer.status.is_success()), "{fault:?}");
        assert_eq!(server.get(SNAPSHOTS, "app", "marker"), None, "{fault:?}");
        server.remove(SNAPSHOTS, "app", "old");
        server.clear_actions();
    }
}

#[tokio::test]
async fn an_action_comes_after_the_delay_of_its_request_and_not_at_all_if_that_hangs() {
    let server = server(|_| {}).await;
    server.put(objects::ready_snapshot("app", "old", "data", TIME));
    server.fault_times(deletes, 1, Fault::Delay(Duration::from_millis(100)));
    server.before(deletes, 1, |others| drop(others.remove(SNAPSHOTS, "app", "old")));
    let path = format!("{PATH}/old");
    let deletion = send(&server, "DELETE", &path, None);
    let look = async {
        sleep(Duration::from_millis(50)).await;
        server.get(SNAPSHOTS, "app", "old").is_some()
    };
    let (answer, was_there) = tokio::join!(deletion, look);
    assert!(was_there);
    assert_eq!(answer.status.as_u16(), 404, "somebody was quicker");

    server.put(objects::ready_snapshot("app", "old", "data", TIME));
    server.fault_times(deletes, 1, Fault::Hang(When::Before));
    server.before(deletes, 1, |others| drop(others.remove(SNAPSHOTS, "app", "old")));
    assert!(timeout(Duration::from_millis(50), send(&server, "DELETE", &path, None)).await.is_err());
    assert!(server.get(SNAPSHOTS, "app", "old").is_some());
}

#[tokio::test]
async fn others_do_what_people_do() {
    let server = server(|_| {}).await;
    let uid = |server: &fake_apiserver::FakeApiServer| -> Value {
        server.get("persistentvolumeclaims", "app", "data").expect("a claim")["metadata"]["uid"].clone()
    };
    let old = uid(&server);
    server.put(objects::ready_snapshot("app", "old", "data", TIME));
    server.after(
        |request| request.is("create", SNAPSHOTS),
        1,
        |others| {
            others.replace_claim("app", "data");
            others.put(objects::claim_from_snapshot("app", "restored", "old"));
            others.delete(SNAPSHOTS, "app", "old");
        },
    );
    create(&server, &objects::snapshot("app", "new", "data")).await;
    assert_ne!(uid(&server), old);
    let snapshot = server.get(SNAPSHOTS, "app", "old");
    assert!(snapshot.is_none_or(|old| old["metadata"]["deletionTimestamp"].is_string()));
    let restored = server.get("persistentvolumeclaims", "app", "restored").expect("a claim");
    assert_eq!(restored["spec"]["dataSourceRef"]["name"], "old");
}
