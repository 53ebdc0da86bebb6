//! What others do around the requests of somebody.

use crate::{PATH, SNAPSHOTS, bed, create, is_ready, send, until};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testbed::{Fault, Request, When, objects};
use tokio::time::{sleep, timeout};

const TIME: &str = "2020-01-01T00:00:00Z";

fn deletes(request: &Request) -> bool {
    request.is("delete", SNAPSHOTS)
}

#[tokio::test]
async fn an_action_comes_between_what_was_read_and_what_is_deleted() {
    let bed = bed(|_| {}).await;
    bed.put(objects::ready_snapshot("app", "old", "data", TIME));
    bed.before(deletes, 1, |others| {
        others.label(SNAPSHOTS, "app", "old", "volume-snapshotter/hold", Some("true"))
    });
    let path = format!("{PATH}/old");
    let read = send(&bed, "GET", &path, None).await.json();
    assert_eq!(read["metadata"]["labels"].get("volume-snapshotter/hold"), None);
    let preconditions = json!({"preconditions": {"resourceVersion": read["metadata"]["resourceVersion"]}});
    let answer = send(&bed, "DELETE", &path, Some(&preconditions)).await;
    assert_eq!(answer.status.as_u16(), 409, "it was changed just before");
    assert_eq!(send(&bed, "DELETE", &path, None).await.status.as_u16(), 200, "and only once");
}

#[tokio::test]
async fn who_reads_is_told_what_was_there_before_an_action_that_comes_after() {
    let bed = bed(|_| {}).await;
    for name in ["a", "b"] {
        bed.put(objects::ready_snapshot("app", name, "data", TIME));
    }
    let lists = |request: &Request| request.is("list", SNAPSHOTS);
    bed.after(lists, 2, |others| drop(others.remove(SNAPSHOTS, "app", "a")));
    bed.before(lists, 4, |others| drop(others.remove(SNAPSHOTS, "app", "b")));
    let mut numbers = Vec::new();
    for _ in 0..4 {
        let list = send(&bed, "GET", PATH, None).await.json();
        numbers.push(list["items"].as_array().map_or(0, Vec::len));
    }
    assert_eq!(numbers, [2, 2, 1, 0]);
}

#[tokio::test]
async fn each_request_can_have_its_action() {
    let bed = bed(|_| {}).await;
    let seen: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
    let note = |when| {
        let seen = seen.clone();
        bed.at_each(
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
        create(&bed, &objects::snapshot("app", name, "data")).await;
    }
    bed.clear_actions();
    create(&bed, &objects::snapshot("app", "c", "data")).await;
    let expected = [("a", false), ("a", true), ("b", false), ("b", true)];
    assert_eq!(*seen.lock().expect("no panic"), expected.map(|(name, there)| (name.to_owned(), there)));
}

#[tokio::test]
async fn requests_that_a_fault_refuses_count_too() {
    let bed = bed(|_| {}).await;
    create(&bed, &objects::snapshot("app", "new", "data")).await;
    until("ready", || is_ready(&bed, "new")).await;
    for fault in [
        Fault::TooManyRequests { retry_after: Some(1), status: false },
        Fault::Error(503, When::Before),
        Fault::Cut(When::Before),
        Fault::Cut(When::After),
    ] {
        bed.put(objects::ready_snapshot("app", "old", "data", TIME));
        bed.put(objects::ready_snapshot("app", "marker", "data", TIME));
        bed.fault_times(deletes, 1, fault.clone());
        bed.after(deletes, 1, |others| drop(others.remove(SNAPSHOTS, "app", "marker")));
        let url = format!("{}{PATH}/old", bed.url());
        let token = Some(bed.admin_token());
        let first = testbed::http::request(http::Method::DELETE, &url, token, &[], None).await;
        assert!(!first.is_ok_and(|answer| answer.status.is_success()), "{fault:?}");
        assert_eq!(bed.get(SNAPSHOTS, "app", "marker"), None, "{fault:?}");
        bed.remove(SNAPSHOTS, "app", "old");
        bed.clear_actions();
    }
}

#[tokio::test]
async fn an_action_comes_after_the_delay_of_its_request_and_not_at_all_if_that_hangs() {
    let bed = bed(|_| {}).await;
    bed.put(objects::ready_snapshot("app", "old", "data", TIME));
    bed.fault_times(deletes, 1, Fault::Delay(Duration::from_millis(100)));
    bed.before(deletes, 1, |others| drop(others.remove(SNAPSHOTS, "app", "old")));
    let path = format!("{PATH}/old");
    let deletion = send(&bed, "DELETE", &path, None);
    let look = async {
        sleep(Duration::from_millis(50)).await;
        bed.get(SNAPSHOTS, "app", "old").is_some()
    };
    let (answer, was_there) = tokio::join!(deletion, look);
    assert!(was_there);
    assert_eq!(answer.status.as_u16(), 404, "somebody was quicker");

    bed.put(objects::ready_snapshot("app", "old", "data", TIME));
    bed.fault_times(deletes, 1, Fault::Hang(When::Before));
    bed.before(deletes, 1, |others| drop(others.remove(SNAPSHOTS, "app", "old")));
    assert!(timeout(Duration::from_millis(50), send(&bed, "DELETE", &path, None)).await.is_err());
    assert!(bed.get(SNAPSHOTS, "app", "old").is_some());
}

#[tokio::test]
async fn others_do_what_people_do() {
    let bed = bed(|_| {}).await;
    let uid = |bed: &testbed::TestBed| -> Value {
        bed.get("persistentvolumeclaims", "app", "data").expect("a claim")["metadata"]["uid"].clone()
    };
    let old = uid(&bed);
    bed.put(objects::ready_snapshot("app", "old", "data", TIME));
    bed.after(
        |request| request.is("create", SNAPSHOTS),
        1,
        |others| {
            others.replace_claim("app", "data");
            others.put(objects::claim_from_snapshot("app", "restored", "old"));
            others.delete(SNAPSHOTS, "app", "old");
        },
    );
    create(&bed, &objects::snapshot("app", "new", "data")).await;
    assert_ne!(uid(&bed), old);
    let snapshot = bed.get(SNAPSHOTS, "app", "old");
    assert!(snapshot.is_none_or(|old| old["metadata"]["deletionTimestamp"].is_string()));
    let restored = bed.get("persistentvolumeclaims", "app", "restored").expect("a claim");
    assert_eq!(restored["spec"]["dataSourceRef"]["name"], "old");
}
