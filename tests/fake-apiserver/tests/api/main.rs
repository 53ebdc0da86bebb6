//! What the recordings do not show: plans, timing, paging over a changing cluster, watches, permissions, requests that
//! make no sense, and faults. What others do meanwhile is in modules of its own.

mod contents;
mod exec;
mod groups;
mod jobs;
mod meanwhile;
mod odd;
mod policy;
mod queue;
mod quota;
mod resources;
mod volumes;

use fake_apiserver::http::{self as client, Response};
use fake_apiserver::{
    FakeApiServer, Fault, History, Lasts, Options, Plan, Provision, Request, Stage, WatchFault, When, objects,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const SNAPSHOTS: &str = "volumesnapshots";
const PATH: &str = "/apis/snapshot.storage.k8s.io/v1/namespaces/app/volumesnapshots";

/// A server with a class, a default snapshot class and the bound claim `data` in the namespace `app`.
async fn server(change: impl FnOnce(&mut Options)) -> FakeApiServer {
    let mut options = Options::default();
    change(&mut options);
    let server = FakeApiServer::start(options).await;
    server.furnish("app");
    server.put(objects::bound_claim("app", "data", &[]));
    server
}

async fn send(server: &FakeApiServer, method: &str, path: &str, body: Option<&Value>) -> Response {
    send_as(server, server.admin_token(), method, path, body).await
}

async fn send_as(
    server: &FakeApiServer,
    token: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Response {
    let method = method.parse().expect("a method");
    client::request(method, &format!("{}{path}", server.url()), Some(token), &[], body)
        .await
        .expect("an answer")
}

async fn create(server: &FakeApiServer, object: &Value) -> Value {
    let response = send(server, "POST", PATH, Some(object)).await;
    assert_eq!(response.status.as_u16(), 201, "{:?}", response.json());
    response.json()
}

/// Waits until something holds; a test that hangs says less than one that fails.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn is_ready(server: &FakeApiServer, name: &str) -> bool {
    server.get(SNAPSHOTS, "app", name).is_some_and(|snapshot| snapshot["status"]["readyToUse"] == true)
}

#[tokio::test]
async fn snapshots_are_ready_when_their_plan_says() {
    let server = server(|_| {}).await;
    server.plan(|snapshot| {
        let name = snapshot["metadata"]["name"].as_str()?;
        let tenths: u64 = name.strip_prefix("tenths-")?.parse().ok()?;
        Some(Plan::ready_after(Duration::from_millis(100 * tenths)))
    });
    let url = format!("{}{PATH}?watch=true", server.url());
    let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    let began = Instant::now();
    for tenths in [4, 2, 3] {
        create(&server, &objects::snapshot("app", &format!("tenths-{tenths}"), "data")).await;
    }
    let mut ready = Vec::new();
    while ready.len() < 3 {
        let event = lines.next().await.expect("a line").expect("more events");
        if event["object"]["status"]["readyToUse"] == true {
            ready.push((
                event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
                began.elapsed(),
            ));
        }
    }
    let names: Vec<&str> = ready.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["tenths-2", "tenths-3", "tenths-4"]);
    for (at, (name, after)) in [200, 300, 400].into_iter().zip(&ready) {
        let expected = Duration::from_millis(at);
        // A few milliseconds on a machine that has nothing else to do.
        assert!((expected..expected + Duration::from_millis(150)).contains(after), "{name} after {after:?}");
    }
}

#[tokio::test]
async fn plans_say_what_goes_wrong() {
    let server = server(|_| {}).await;
    let ms = Duration::from_millis;
    server.plan(move |snapshot| {
        Some(match snapshot["metadata"]["name"].as_str()? {
            "never" => Plan::never(),
            "fails" => Plan::fails("no space"),
            "recovers" => Plan::ready_after(ms(30)).with_error(ms(5), "busy"),
            "keeps" => Plan::ready_after(ms(30)).with_error(ms(5), "odd").keeping_error(),
            "clears" => Plan::never().with_error(ms(0), "busy").with_error(ms(20), ""),
            "dated" => Plan::ready_after(ms(0)).with_creation_time("2030-01-01T00:00:00Z"),
            "stays" => Plan::ready_after(ms(0)).kept_on_delete(),
            _ => return None,
        })
    });
    for name in ["never", "fails", "recovers", "keeps", "clears", "dated", "stays", "default"] {
        create(&server, &objects::snapshot("app", name, "data")).await;
    }
    for name in ["recovers", "keeps", "dated", "stays", "default"] {
        until(name, || is_ready(&server, name)).await;
    }
    let status = |name: &str| server.get(SNAPSHOTS, "app", name).expect("is there")["status"].clone();
    until("fails", || status("fails")["error"]["message"] == "no space").await;
    assert_eq!(status("recovers").get("error"), None);
    assert_eq!(status("keeps")["error"]["message"], "odd");
    assert_eq!(status("dated")["creationTime"], "2030-01-01T00:00:00Z");
    until("clears", || status("clears").get("error").is_none()).await;
    assert_eq!(status("never")["readyToUse"], false);
    for name in ["stays", "default"] {
        assert_eq!(send(&server, "DELETE", &format!("{PATH}/{name}"), None).await.status.as_u16(), 200);
    }
    until("default goes", || server.get(SNAPSHOTS, "app", "default").is_none()).await;
    sleep(ms(20)).await;
    assert!(
        server.get(SNAPSHOTS, "app", "stays").expect("stays")["metadata"]["deletionTimestamp"].is_string()
    );
}

#[tokio::test]
async fn contents_come_and_go_with_snapshots() {
    let server = server(|_| {}).await;
    create(&server, &objects::snapshot("app", "one", "data")).await;
    until("ready", || is_ready(&server, "one")).await;
    let contents = server.list("volumesnapshotcontents", "");
    assert_eq!(contents.len(), 1);
    assert_eq!(contents[0]["status"]["restoreSize"], 1 << 30);
    send(&server, "DELETE", &format!("{PATH}/one"), None).await;
    until("gone", || server.list("volumesnapshotcontents", "").is_empty()).await;
}

#[tokio::test]
async fn errors_clear_when_what_was_missing_comes() {
    let server = server(|_| {}).await;
    let mut claim = objects::claim("app", "late");
    claim["spec"]["storageClassName"] = "later".into();
    server.put(claim);
    let mut snapshot = objects::snapshot("app", "one", "late");
    snapshot["spec"]["volumeSnapshotClassName"] = "later".into();
    create(&server, &snapshot).await;
    let message = || {
        let snapshot = server.get(SNAPSHOTS, "app", "one").expect("is there");
        snapshot["status"]["error"]["message"].as_str().unwrap_or_default().to_owned()
    };
    until("no class", || message().contains("\"later\" not found")).await;
    server.put(objects::snapshot_class("later"));
    until("not bound", || message().contains("not yet bound")).await;
    server.put(objects::storage_class("later"));
    until("ready", || is_ready(&server, "one")).await;
    assert_eq!(message(), "");
}

#[tokio::test]
async fn claims_wait_for_their_consumer_if_their_class_says() {
    let server = server(|_| {}).await;
    let mut class = objects::storage_class("waits");
    class["volumeBindingMode"] = "WaitForFirstConsumer".into();
    server.put(class);
    let mut claim = objects::claim("app", "waits");
    claim["spec"]["storageClassName"] = "waits".into();
    server.put(claim);
    server.put(objects::claim("app", "at-once"));
    let phase = |name: &str| {
        server.get("persistentvolumeclaims", "app", name).expect("is there")["status"]["phase"].clone()
    };
    until("bound", || phase("at-once") == "Bound").await;
    assert_eq!(phase("waits"), "Pending");
    server.update("persistentvolumeclaims", "app", "waits", |claim| {
        claim["metadata"]["annotations"] = json!({"volume.kubernetes.io/selected-node": "node-1"});
    });
    until("bound", || phase("waits") == "Bound").await;
}

/// Kind, reason, message and who said it, of all Events about an object, by reason.
fn events_of(server: &FakeApiServer, name: &str) -> Vec<[String; 4]> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut events: Vec<_> = server
        .list("events", "app")
        .iter()
        .filter(|event| event["involvedObject"]["name"] == name)
        .map(|event| {
            let component = text(&event["source"]["component"]);
            // The real provisioner adds its pod's name.
            let component = component.split('_').next().unwrap_or_default().to_owned();
            [text(&event["type"]), text(&event["reason"]), text(&event["message"]), component]
        })
        .collect();
    events.sort_by(|a, b| a[1].cmp(&b[1]));
    events
}

fn restored(name: &str, size: &str, class: &str) -> Value {
    let mut claim = objects::claim("app", name);
    claim["spec"]["resources"]["requests"]["storage"] = size.into();
    claim["spec"]["storageClassName"] = class.into();
    claim["spec"]["dataSource"] = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "volume-snapshot-0a1b2c3d"});
    claim
}

#[tokio::test]
async fn what_hinders_a_restore_is_said_as_recorded() {
    let recording = include_str!("../../../data/recordings/37-restore-too-small-events.json");
    let recording: Value = serde_json::from_str(recording).expect("JSON");
    let recorder = FakeApiServer::start(Options::default()).await;
    for mut event in recording["answer"]["body"]["items"].as_array().expect("items").clone() {
        event["apiVersion"] = "v1".into();
        event["kind"] = "Event".into();
        recorder.put(event);
    }
    let server = server(|_| {}).await;
    let time = "2026-11-20T08:55:11Z";
    server.put(objects::ready_snapshot("app", "volume-snapshot-0a1b2c3d", "data", time));
    server.put(restored("too-small", "1Mi", "hostpath"));
    until("it is complained of", || events_of(&server, "too-small").len() == 3).await;
    assert_eq!(events_of(&server, "too-small"), events_of(&recorder, "too-small"));

    // What others say of the same claims is no recording's: the words are those of their sources.
    server.put(objects::waiting_storage_class("later"));
    for (name, class, size, said) in [
        ("no-class", "missing", "1Gi", "storageclass.storage.k8s.io \"missing\" not found"),
        ("waits", "later", "1Gi", "waiting for first consumer to be created before binding"),
    ] {
        server.put(restored(name, size, class));
        until(said, || events_of(&server, name).iter().any(|event| event[2] == said)).await;
    }
    // Those that are Pending hold the snapshot, but nothing is made from it any more.
    send(&server, "DELETE", &format!("{PATH}/volume-snapshot-0a1b2c3d"), None).await;
    server.put(restored("too-late", "1Gi", "hostpath"));
    let said = "error getting handle for DataSource Type VolumeSnapshot by Name volume-snapshot-0a1b2c3d: snapshot \
                volume-snapshot-0a1b2c3d is currently being deleted";
    until(said, || events_of(&server, "too-late").iter().any(|event| event[2] == said)).await;
    assert_eq!(
        server.get("persistentvolumeclaims", "app", "too-late").expect("a claim")["status"]["phase"],
        "Pending"
    );
}

#[tokio::test]
async fn volumes_are_made_when_their_provision_says() {
    let server = server(|_| {}).await;
    server.provision(|claim| match claim["metadata"]["name"].as_str() {
        Some("slow") => Some(Provision::after(Duration::from_millis(300))),
        Some("full") => Some(Provision::fails("rpc error: no space")),
        _ => None,
    });
    let began = Instant::now();
    for name in ["slow", "full", "fast"] {
        server.put(objects::claim("app", name));
    }
    let is_bound = |name: &str| {
        server
            .get("persistentvolumeclaims", "app", name)
            .is_some_and(|claim| claim["status"]["phase"] == "Bound")
    };
    until("the fast one is bound", || is_bound("fast")).await;
    assert!(!is_bound("slow"));
    until("the slow one is bound", || is_bound("slow")).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(!is_bound("full"));
    let said = "failed to provision volume with StorageClass \"hostpath\": rpc error: no space";
    assert!(events_of(&server, "full").iter().any(|event| event[0] == "Warning" && event[2] == said));
}

#[tokio::test]
async fn what_is_put_stays_as_it_was_put() {
    let server = server(|_| {}).await;
    let mut terminating = objects::ready_snapshot("app", "terminating", "data", "2020-01-01T00:00:00Z");
    terminating["metadata"]["deletionTimestamp"] = "2020-01-02T00:00:00Z".into();
    server.put(terminating.clone());
    server.put(objects::unready_snapshot("app", "unready", "data", "2020-01-01T00:00:00Z"));
    server.put(objects::snapshot("app", "new", "data"));
    until("new", || is_ready(&server, "new")).await;
    assert!(!is_ready(&server, "unready"));
    let mut found = server.get(SNAPSHOTS, "app", "terminating").expect("stays");
    found["metadata"].as_object_mut().expect("metadata").remove("resourceVersion");
    found["metadata"].as_object_mut().expect("metadata").remove("generation");
    assert_eq!(found, terminating);
    assert!(server.remove(SNAPSHOTS, "app", "terminating").is_some());
    assert_eq!(server.get(SNAPSHOTS, "app", "terminating"), None);
}

#[tokio::test]
async fn deletions_hold_to_their_preconditions() {
    let server = server(|_| {}).await;
    let old = server.put(objects::ready_snapshot("app", "one", "data", "2020-01-01T00:00:00Z"));
    let (uid, version) = (&old["metadata"]["uid"], &old["metadata"]["resourceVersion"]);
    let new =
        server.update(SNAPSHOTS, "app", "one", |snapshot| snapshot["metadata"]["labels"] = json!({"a": "b"}));
    let path = format!("{PATH}/one");
    let options = json!({"preconditions": {"uid": uid, "resourceVersion": version}});
    let answer = send(&server, "DELETE", &path, Some(&options)).await;
    assert_eq!(answer.status.as_u16(), 409);
    let new = new.expect("is there");
    let message = format!(
        "Operation cannot be fulfilled on VolumeSnapshot.snapshot.storage.k8s.io \"one\": the ResourceVersion in the \
         precondition ({}) does not match the ResourceVersion in record ({}). The object might have been modified",
        version.as_str().unwrap_or_default(),
        new["metadata"]["resourceVersion"].as_str().unwrap_or_default(),
    );
    assert_eq!(answer.json()["message"], message);
    let options = json!({
        "preconditions": {"uid": uid, "resourceVersion": new["metadata"]["resourceVersion"]},
        "dryRun": ["All"],
    });
    assert_eq!(send(&server, "DELETE", &path, Some(&options)).await.status.as_u16(), 200);
    assert_eq!(server.get(SNAPSHOTS, "app", "one"), Some(new.clone()));
    let options =
        json!({"preconditions": {"uid": uid, "resourceVersion": new["metadata"]["resourceVersion"]}});
    assert_eq!(send(&server, "DELETE", &path, Some(&options)).await.status.as_u16(), 200);
    until("gone", || server.get(SNAPSHOTS, "app", "one").is_none()).await;
    assert_eq!(send(&server, "DELETE", &path, None).await.status.as_u16(), 404);
    let sent = server.requests().into_iter().rfind(|request| request.status == 200).expect("a deletion");
    assert_eq!(
        (sent.verb.as_str(), sent.resource.as_str(), sent.name.as_str()),
        ("delete", SNAPSHOTS, "one")
    );
    assert_eq!(sent.body, Some(options));
}

#[tokio::test]
async fn an_object_without_finalizers_goes_at_once() {
    let server = server(|_| {}).await;
    let mut snapshot = objects::ready_snapshot("app", "bare", "data", "2020-01-01T00:00:00Z");
    snapshot["metadata"].as_object_mut().expect("metadata").remove("finalizers");
    let uid = server.put(snapshot)["metadata"]["uid"].clone();
    let answer = send(&server, "DELETE", &format!("{PATH}/bare"), None).await.json();
    let details = json!({"name": "bare", "group": "snapshot.storage.k8s.io", "kind": SNAPSHOTS, "uid": uid});
    let expected = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn pages_are_all_of_the_moment_of_the_first() {
    let server = server(|_| {}).await;
    for number in 0..10 {
        server.put(objects::ready_snapshot("app", &format!("s-{number}"), "data", "2020-01-01T00:00:00Z"));
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let first = send(&server, "GET", &format!("{PATH}?limit=4"), None).await.json();
    assert_eq!(names(&first), ["s-0", "s-1", "s-2", "s-3"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 6);
    server.remove(SNAPSHOTS, "app", "s-5");
    server.put(objects::ready_snapshot("app", "s-55", "data", "2020-01-01T00:00:00Z"));
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let next = format!("{PATH}?limit=4&continue={token}");
    let second = send(&server, "GET", &next, None).await.json();
    assert_eq!(names(&second), ["s-4", "s-5", "s-6", "s-7"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    // With the history the pages are gone; the answer has a token for what is there now.
    server.compact();
    let expired = send(&server, "GET", &next, None).await;
    assert_eq!((expired.status.as_u16(), &expired.json()["reason"]), (410, &json!("Expired")));
    let token = expired.json()["metadata"]["continue"].as_str().expect("a token").to_owned();
    let resumed = send(&server, "GET", &format!("{PATH}?limit=4&continue={token}"), None).await.json();
    assert_eq!(names(&resumed), ["s-4", "s-55", "s-6", "s-7"]);
}

#[tokio::test]
async fn watches_follow_their_selector_and_tell_how_far_they_are() {
    let server = server(|options| options.bookmark_every = Duration::from_millis(50)).await;
    server.put(objects::ready_snapshot("app", "one", "data", "2020-01-01T00:00:00Z"));
    let query = "watch=true&allowWatchBookmarks=true&labelSelector=hold";
    let url = format!("{}{PATH}?{query}&resourceVersion={}", server.url(), server.resource_version());
    let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    let hold = |value: Value| {
        server
            .update(SNAPSHOTS, "app", "one", |snapshot| snapshot["metadata"]["labels"] = value)
            .expect("is there")
    };
    hold(json!({"hold": "true"}));
    hold(json!({"hold": "false"}));
    let last = hold(json!({}));
    let mut kinds = Vec::new();
    loop {
        let event = lines.next().await.expect("a line").expect("more events");
        let is_bookmark = event["type"] == "BOOKMARK";
        if is_bookmark
            && event["object"]["metadata"]["resourceVersion"] != last["metadata"]["resourceVersion"]
        {
            continue;
        }
        kinds.push(event["type"].as_str().unwrap_or_default().to_owned());
        if is_bookmark {
            break;
        }
    }
    assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]);
    assert_eq!(server.watches(), 1);
    drop(lines);
    until("closed", || server.watches() == 0).await;
    assert_eq!(server.most_watches(), 1);
}

#[tokio::test]
async fn watches_can_be_ended() {
    let server = server(|_| {}).await;
    let url = format!("{}{PATH}?watch=true", server.url());
    let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    server.expire_watches();
    let event = lines.next().await.expect("a line").expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(lines.next().await.expect("the end"), None);
    let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    server.end_watches();
    assert_eq!(lines.next().await.expect("the end"), None);
}

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let server = server(|_| {}).await;
    create(&server, &objects::snapshot("app", "one", "data")).await;
    server.token("app", "someone");
    let answer = send(&server, "DELETE", "/api/v1/namespaces/app", None).await.json();
    assert_eq!(answer["status"]["phase"], "Terminating");
    until("gone", || server.get("namespaces", "", "app").is_none()).await;
    for resource in [SNAPSHOTS, "persistentvolumeclaims", "serviceaccounts"] {
        assert_eq!(server.list(resource, "app"), Vec::<Value>::new());
    }
}

#[tokio::test]
async fn permissions_may_be_for_one_name() {
    let server = server(|_| {}).await;
    let token = server.token("app", "reader");
    let mut role =
        objects::role("app", "reader", &[("", "persistentvolumeclaims", &["get", "list", "watch"])]);
    role["rules"][0]["resourceNames"] = json!(["data"]);
    server.put(role);
    server.put(objects::role_binding("app", "reader", "reader"));
    let claims = "/api/v1/namespaces/app/persistentvolumeclaims";
    for (path, expected) in [
        (format!("{claims}/data"), 200),
        (format!("{claims}/other"), 403),
        (claims.to_owned(), 403),
        (format!("{claims}?fieldSelector=metadata.name%3Ddata"), 200),
        ("/api/v1/persistentvolumeclaims".to_owned(), 403),
        ("/apis".to_owned(), 200),
        ("/metrics".to_owned(), 403),
    ] {
        assert_eq!(send_as(&server, &token, "GET", &path, None).await.status.as_u16(), expected, "{path}");
    }
    let url = format!("{}/version", server.url());
    let anonymous = client::request(http::Method::GET, &url, None, &[], None).await.expect("an answer");
    assert_eq!(anonymous.status.as_u16(), 200);
    server.remove("serviceaccounts", "app", "reader");
    assert_eq!(send_as(&server, &token, "GET", "/apis", None).await.status.as_u16(), 401);
}

#[tokio::test]
async fn changes_are_checked_against_what_is_there() {
    let server = server(|_| {}).await;
    let old = server.put(objects::ready_snapshot("app", "one", "data", "2020-01-01T00:00:00Z"));
    let path = format!("{PATH}/one");
    let mut new = old.clone();
    new["metadata"]["labels"]["a"] = "b".into();
    new["status"] = json!({});
    let answer = send(&server, "PUT", &path, Some(&new)).await;
    assert_eq!(answer.status.as_u16(), 200);
    let now = answer.json();
    assert_eq!(now["status"], old["status"], "the status has a path of its own");
    assert_eq!(now["metadata"]["generation"], old["metadata"]["generation"]);
    let stale = send(&server, "PUT", &path, Some(&new)).await;
    assert_eq!((stale.status.as_u16(), &stale.json()["reason"]), (409, &json!("Conflict")));
    let same = send(&server, "PUT", &path, Some(&now)).await.json();
    assert_eq!(same, now, "a change that is none is not written");
    let mut moved = now.clone();
    moved["spec"]["source"]["persistentVolumeClaimName"] = "other".into();
    assert_eq!(send(&server, "PUT", &path, Some(&moved)).await.status.as_u16(), 422);
    let mut done = now.clone();
    done["status"]["restoreSize"] = "2Gi".into();
    let answer = send(&server, "PUT", &format!("{path}/status"), Some(&done)).await.json();
    assert_eq!(answer["status"]["restoreSize"], "2Gi");
    let headers = [("content-type", "application/merge-patch+json")];
    let patch = json!({"metadata": {"labels": {"a": null, "c": "d"}}});
    let url = format!("{}{path}", server.url());
    let patched =
        client::request(http::Method::PATCH, &url, Some(server.admin_token()), &headers, Some(&patch)).await;
    let labels = patched.expect("an answer").json()["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"job": "volume-snapshotter", "name": "one", "c": "d"}));
}

#[tokio::test]
async fn a_cluster_need_not_have_snapshots() {
    let server = FakeApiServer::start(Options { snapshot_api: false, ..Options::default() }).await;
    let answer = send(&server, "GET", PATH, None).await;
    assert_eq!((answer.status.as_u16(), answer.content_type()), (404, "text/plain; charset=utf-8"));
    let groups = send(&server, "GET", "/apis", None).await.json();
    assert!(!groups.to_string().contains("snapshot"), "{groups}");
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let server = server(|_| {}).await;
    server.put(objects::ready_snapshot("app", "one", "data", "2020-01-01T00:00:00Z"));
    let one = format!("{PATH}/one");
    let long = format!("{PATH}?limit=99999999999999999999");
    for (method, path, body, expected) in [
        ("GET", "/", None, 404),
        ("GET", "//", None, 404),
        ("GET", "/api/v1/", None, 200),
        ("GET", "/api/v1/namespaces/app/", None, 404),
        ("GET", "/api/v1/namespaces/app/nothing", None, 404),
        ("GET", "/api/v1/namespaces/app/namespaces", None, 404),
        ("GET", "/api/v1/namespaces/app/persistentvolumes", None, 404),
        ("GET", "/apis/snapshot.storage.k8s.io/v1/volumesnapshots/one", None, 404),
        ("GET", "/api/v1/namespaces/%ff%00/persistentvolumeclaims/%2e%2e", None, 404),
        ("GET", long.as_str(), None, 400),
        ("GET", &format!("{PATH}?limit=-1"), None, 400),
        ("GET", &format!("{PATH}?watch=true&resourceVersion=x"), None, 400),
        ("GET", &format!("{PATH}?watch=true&timeoutSeconds=x"), None, 400),
        ("GET", &format!("{PATH}?fieldSelector=status.readyToUse%3Dtrue"), None, 400),
        ("GET", &format!("{one}/scale"), None, 404),
        ("POST", PATH, None, 400),
        ("POST", PATH, Some(json!([])), 400),
        ("POST", PATH, Some(json!({})), 400),
        ("POST", PATH, Some(json!({"apiVersion": "v1", "kind": "Pod"})), 400),
        (
            "POST",
            PATH,
            Some(json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot"})),
            422,
        ),
        (
            "POST",
            PATH,
            Some(
                json!({"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": []}),
            ),
            400,
        ),
        ("POST", one.as_str(), Some(objects::snapshot("app", "one", "data")), 405),
        ("POST", PATH, Some(objects::snapshot("elsewhere", "one", "data")), 400),
        ("PUT", one.as_str(), Some(objects::snapshot("app", "two", "data")), 400),
        ("PUT", one.as_str(), Some(objects::snapshot("app", "one", "data")), 422),
        ("PATCH", one.as_str(), Some(json!({})), 415),
        ("DELETE", one.as_str(), Some(json!([])), 400),
        ("DELETE", one.as_str(), Some(json!({"kind": "Nonsense"})), 400),
        ("DELETE", "/version", None, 405),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", Some(json!({})), 422),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", None, 405),
        ("BREW", one.as_str(), None, 405),
    ] {
        let answer = send(&server, method, path, body.as_ref()).await;
        assert_eq!(answer.status.as_u16(), expected, "{method} {path} {body:?}: {:?}", answer.body);
    }
    assert_eq!(send(&server, "GET", &one, None).await.status.as_u16(), 200, "the server lives");
}

#[tokio::test]
async fn requests_under_way_are_counted() {
    let server = Arc::new(server(|options| options.latency = Duration::from_millis(100)).await);
    server.clear_requests();
    let began = Instant::now();
    let requests: Vec<_> = (0..5)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { send(&server, "GET", PATH, None).await.status.as_u16() })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.expect("an answer"), 200);
    }
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!(server.most_in_flight(), 5);
    let requests = server.requests();
    assert_eq!(requests.len(), 5);
    assert!(requests.iter().all(|request| request.verb == "list" && request.received > 0));
    server.clear_requests();
    assert_eq!((server.requests().len(), server.most_in_flight()), (0, 0));
}

#[tokio::test]
async fn a_stopped_bed_is_gone() {
    let server = server(|_| {}).await;
    let address = server.address();
    let url = format!("{}{PATH}?watch=true", server.url());
    let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    server.stop().await;
    assert!(lines.next().await.is_err() || lines.next().await.is_ok_and(|line| line.is_none()));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

/// A TLS connection of somebody who trusts this authority.
async fn trusting(
    server: &FakeApiServer,
    ca_pem: Option<&str>,
    name: &str,
) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};

    let mut roots = rustls::RootCertStore::empty();
    if let Some(pem) = ca_pem {
        let ca = CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        roots.add(ca).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TcpStream::connect(server.address()).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Makes a GET request and reads what comes until the connection ends: head and body, and whether the end was clean.
async fn raw(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    token: &str,
    path: &str,
) -> (String, String, bool) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("a connection");
    let mut answer = Vec::new();
    let clean = stream.read_to_end(&mut answer).await.is_ok();
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned(), clean)
}

#[tokio::test]
async fn tls_is_spoken_by_those_who_trust_the_authority() {
    let server = server(|options| options.tls = true).await;
    assert!(server.url().starts_with("https://"));
    assert!(server.kubeconfig(server.admin_token(), "app").contains("certificate-authority-data: "));
    assert!(trusting(&server, None, "localhost").await.is_err());
    for name in ["localhost", "127.0.0.1"] {
        let stream = trusting(&server, server.ca_pem(), name).await.expect("trust");
        let (head, ..) = raw(stream, server.admin_token(), "/version").await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    }
}

// --- Faults --------------------------------------------------------------------------------------------------------

fn creates(request: &Request) -> bool {
    request.is("create", SNAPSHOTS)
}

/// Makes a request that fails with its connection.
async fn send_in_vain(
    server: &FakeApiServer,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> std::io::Error {
    let method = method.parse().expect("a method");
    let url = format!("{}{path}", server.url());
    client::request(method, &url, Some(server.admin_token()), &[], body).await.expect_err("no answer")
}

fn last_request(server: &FakeApiServer) -> Request {
    server.requests().pop().expect("a request")
}

#[tokio::test]
async fn a_cut_request_was_carried_out_or_not() {
    let server = server(|_| {}).await;
    for (name, when, carried_out) in [("before", When::Before, false), ("after", When::After, true)] {
        server.fault_times(creates, 1, Fault::Cut(when));
        send_in_vain(&server, "POST", PATH, Some(&objects::snapshot("app", name, "data"))).await;
        assert_eq!(server.get(SNAPSHOTS, "app", name).is_some(), carried_out);
        let request = last_request(&server);
        assert_eq!(
            (request.fault, request.carried_out, request.status),
            (Some(Fault::Cut(when)), carried_out, 0)
        );
    }
    create(&server, &objects::snapshot("app", "whole", "data")).await;
    let request = last_request(&server);
    assert_eq!((request.fault, request.carried_out, request.status), (None, true, 201));
}

#[tokio::test]
async fn bodies_are_cut_where_the_fault_says() {
    let server = server(|_| {}).await;
    let connect = async || TcpStream::connect(server.address()).await.expect("a connection");
    let (head, whole, _) = raw(connect().await, server.admin_token(), PATH).await;
    let length = format!("content-length: {}", whole.len());
    assert!(head.contains(&length), "{head}");
    for (bytes, expected) in [(0, 0), (10, 10), (usize::MAX, whole.len() - 1)] {
        server.fault_times(|_| true, 1, Fault::CutBody(bytes));
        let (head, body, _) = raw(connect().await, server.admin_token(), PATH).await;
        assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains(&length), "{head}");
        assert_eq!(body, whole[..expected]);
        assert_eq!(last_request(&server).received, expected as u64);
    }
    server.fault_times(|_| true, 1, Fault::CutBody(10));
    send_in_vain(&server, "GET", PATH, None).await;
}

#[tokio::test]
async fn cuts_are_cuts_over_tls_too() {
    let server = server(|options| options.tls = true).await;
    let connect = async || trusting(&server, server.ca_pem(), "localhost").await.expect("trust");
    server.fault_nth(|_| true, 1, Fault::Cut(When::After));
    server.fault_nth(|_| true, 2, Fault::CutBody(10));
    let (head, _, clean) = raw(connect().await, server.admin_token(), PATH).await;
    assert_eq!((head.as_str(), clean), ("", false));
    let (head, body, clean) = raw(connect().await, server.admin_token(), PATH).await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert_eq!((body.len(), clean), (10, false));
}

#[tokio::test]
async fn a_request_that_hangs_is_never_answered() {
    let server = server(|_| {}).await;
    for (name, when, carried_out) in [("before", When::Before, false), ("after", When::After, true)] {
        server.fault_times(creates, 1, Fault::Hang(when));
        let snapshot = objects::snapshot("app", name, "data");
        let sent = send(&server, "POST", PATH, Some(&snapshot));
        assert!(timeout(Duration::from_millis(100), sent).await.is_err());
        assert_eq!(server.get(SNAPSHOTS, "app", name).is_some(), carried_out);
        assert_eq!(last_request(&server).carried_out, carried_out);
    }
}

#[tokio::test]
async fn a_delayed_request_is_carried_out_late() {
    let server = server(|_| {}).await;
    server.fault_times(|_| true, 1, Fault::Delay(Duration::from_millis(50)));
    let began = Instant::now();
    assert_eq!(send(&server, "GET", PATH, None).await.status.as_u16(), 200);
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn errors_look_like_those_of_whoever_gives_them() {
    let server = server(|_| {}).await;
    let json = "application/json";
    let text = "text/plain; charset=utf-8";
    for (code, content_type, expected) in [
        (401, json, r#""reason":"Unauthorized""#),
        (
            403,
            json,
            r#"User \"kubernetes-admin\" cannot create resource \"volumesnapshots\" in API group \"snapshot.storage.k8s.io\" in the namespace \"app\""#,
        ),
        (410, json, r#""reason":"Expired""#),
        (429, json, r#""reason":"TooManyRequests""#),
        (500, json, r#""reason":"InternalError""#),
        (502, "text/html", "<h1>502 Bad Gateway</h1>"),
        (503, json, r#""reason":"ServiceUnavailable""#),
        (504, text, "upstream request timeout"),
        (507, json, r#""code":507"#),
    ] {
        for when in [When::Before, When::After] {
            let name = format!("{code}-{}", if when == When::Before { "before" } else { "after" });
            server.fault_times(creates, 1, Fault::Error(code, when));
            let answer = send(&server, "POST", PATH, Some(&objects::snapshot("app", &name, "data"))).await;
            assert_eq!((answer.status.as_u16(), answer.content_type()), (code, content_type));
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(body.contains(expected), "{body}");
            assert_eq!(server.get(SNAPSHOTS, "app", &name).is_some(), when == When::After, "{name}");
        }
    }
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_try_again() {
    let server = server(|_| {}).await;
    for (retry_after, status) in [(None, false), (Some(1), false), (None, true), (Some(7), true)] {
        server.fault_times(|_| true, 1, Fault::TooManyRequests { retry_after, status });
        let answer = send(&server, "GET", PATH, None).await;
        assert_eq!(answer.status.as_u16(), 429);
        let header = answer.headers.get("retry-after").and_then(|value| value.to_str().ok());
        assert_eq!(header.map(str::to_owned), retry_after.map(|seconds| seconds.to_string()));
        if status {
            assert_eq!(answer.json()["reason"], "TooManyRequests");
            assert_eq!(
                answer.json()["details"].get("retryAfterSeconds"),
                retry_after.map(Value::from).as_ref()
            );
        } else {
            assert_eq!(answer.content_type(), "text/plain; charset=utf-8");
            assert_eq!(answer.body, "Too many requests, please try again later.\n");
        }
    }
}

#[tokio::test]
async fn faults_hit_whom_they_are_meant_for() {
    let server = server(|_| {}).await;
    server.clear_requests();
    server.fault_nth(|request| request.verb == "list", 2, Fault::Error(503, When::Before));
    server.fault_times(|request| request.name == "data", 2, Fault::Error(500, When::Before));
    server.fault(|request| {
        (request.verb == "list" && request.earlier >= 3).then_some(Fault::Error(502, When::Before))
    });
    let claim = "/api/v1/namespaces/app/persistentvolumeclaims/data";
    for (path, expected) in [
        (PATH, 200),
        (claim, 500),
        (PATH, 503),
        (claim, 500),
        (claim, 200),
        (PATH, 200),
        (PATH, 502),
        (PATH, 502),
    ] {
        assert_eq!(send(&server, "GET", path, None).await.status.as_u16(), expected, "{path}");
    }
    server.clear_faults();
    assert_eq!(send(&server, "GET", PATH, None).await.status.as_u16(), 200);
    let faults = server.requests().into_iter().filter(|request| request.fault.is_some()).count();
    assert_eq!(faults, 5);
}

/// What comes of a watch of three snapshots: the types of events with the names or codes of their objects, `broken` for
/// what is no event, and `end`; up to the number of things that is asked for.
async fn watched(server: &FakeApiServer, fault: WatchFault, things: usize) -> Vec<String> {
    server.clear_faults();
    server.fault(move |_| Some(Fault::Watch(fault.clone())));
    let url = format!("{}{PATH}?watch=true&allowWatchBookmarks=true", server.url());
    let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    assert_eq!(lines.status.as_u16(), 200);
    let mut seen = Vec::new();
    while seen.len() < things {
        match timeout(Duration::from_secs(10), lines.next()).await.expect("in time") {
            Ok(None) => {
                seen.push("end".to_owned());
                break;
            }
            Ok(Some(event)) if event["type"] == "BOOKMARK" => seen.push("BOOKMARK".to_owned()),
            Ok(Some(event)) if event["type"] == "ERROR" => {
                seen.push(format!("ERROR {}", event["object"]["code"]))
            }
            Ok(Some(event)) => seen.push(format!(
                "{} {}",
                event["type"].as_str().unwrap_or_default(),
                event["object"]["metadata"]["name"].as_str().unwrap_or_default()
            )),
            Err(_) => seen.push("broken".to_owned()),
        }
    }
    seen
}

#[tokio::test]
async fn watches_go_wrong_as_their_fault_says() {
    let server = server(|options| options.bookmark_every = Duration::from_millis(10)).await;
    for name in ["a", "b", "c"] {
        server.put(objects::ready_snapshot("app", name, "data", "2020-01-01T00:00:00Z"));
    }
    let (a, b, c) = ("ADDED a", "ADDED b", "ADDED c");
    for (fault, expected) in [
        (WatchFault::EndsAfterEvents(0), &["end"][..]),
        (WatchFault::EndsAfterEvents(2), &[a, b, "end"]),
        (WatchFault::Expires(0), &["ERROR 410", "end"]),
        (WatchFault::Expires(1), &[a, "ERROR 410", "end"]),
        (WatchFault::OnlyBookmarks, &["BOOKMARK", "BOOKMARK"]),
        (WatchFault::Twice, &[a, a, b, b, c, c, "BOOKMARK"]),
        (WatchFault::MuteAfter(3), &[a, b, c]),
        (WatchFault::CutLine(0), &["broken"]),
        (WatchFault::CutLine(2), &[a, b, "broken"]),
        (WatchFault::Garbage(0), &["broken", a, b, c, "BOOKMARK"]),
        (WatchFault::Garbage(1), &[a, "broken", b, c, "BOOKMARK"]),
        (WatchFault::Garbage(3), &[a, b, c, "broken", "BOOKMARK"]),
    ] {
        assert_eq!(watched(&server, fault.clone(), expected.len()).await, expected, "{fault:?}");
    }
    let began = Instant::now();
    let seen = watched(&server, WatchFault::EndsAfter(Duration::from_millis(50)), usize::MAX).await;
    assert_eq!(
        (&seen[..3], seen.last().map(String::as_str)),
        (&[a, b, c].map(str::to_owned)[..], Some("end"))
    );
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_silent_watch_says_nothing_whatever_its_timeout() {
    let server = server(|options| options.bookmark_every = Duration::from_millis(1)).await;
    server.fault(|_| Some(Fault::Watch(WatchFault::Silent)));
    server.put(objects::ready_snapshot("app", "a", "data", "2020-01-01T00:00:00Z"));
    let url = format!("{}{PATH}?watch=true&allowWatchBookmarks=true&timeoutSeconds=1", server.url());
    let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    assert!(timeout(Duration::from_millis(1100), lines.next()).await.is_err());
    assert_eq!(last_request(&server).received, 0);
    drop(lines);
    until("closed", || server.watches() == 0).await;
}

#[tokio::test]
async fn a_watch_goes_mute_after_its_events() {
    let server = server(|options| options.bookmark_every = Duration::from_millis(1)).await;
    server.fault_nth(|request| request.verb == "watch", 1, Fault::Watch(WatchFault::MuteAfter(1)));
    let url = format!("{}{PATH}?watch=true&resourceVersion={}", server.url(), server.resource_version());
    let timed = format!("{url}&allowWatchBookmarks=true&timeoutSeconds=1");
    let mut mute = client::lines(&timed, Some(server.admin_token())).await.expect("a watch");
    let mut other = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    for name in ["a", "b"] {
        server.put(objects::ready_snapshot("app", name, "data", "2020-01-01T00:00:00Z"));
    }
    let mut seen = Vec::new();
    while let Ok(event) = timeout(Duration::from_millis(1100), mute.next()).await {
        let event = event.expect("the stream is whole").expect("no end");
        if event["type"] != "BOOKMARK" {
            seen.push(event["object"]["metadata"]["name"].clone());
        }
    }
    assert_eq!(seen, ["a"]);
    for name in ["a", "b"] {
        let event = other.next().await.expect("a line").expect("an event");
        assert_eq!(event["object"]["metadata"]["name"], name);
    }
}

#[tokio::test]
async fn all_watches_can_go_mute_at_once() {
    let server = server(|options| options.bookmark_every = Duration::from_millis(1)).await;
    server.put(objects::ready_snapshot("app", "a", "data", "2020-01-01T00:00:00Z"));
    let url = format!("{}{PATH}?watch=true&timeoutSeconds=1", server.url());
    let watch = async || client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    let (mut one, mut two) = (watch().await, watch().await);
    for lines in [&mut one, &mut two] {
        assert_eq!(lines.next().await.expect("a line").expect("an event")["type"], "ADDED");
    }
    server.mute_watches();
    server.remove(SNAPSHOTS, "app", "a");
    let mut later = watch().await;
    assert_eq!(later.next().await.expect("the end in time"), None, "those that begin later are as always");
    let wait = Duration::from_millis(200);
    assert!(timeout(wait, one.next()).await.is_err());
    assert!(timeout(wait, two.next()).await.is_err());
}

#[tokio::test]
async fn a_server_that_has_just_restarted_does_not_know_everybody_yet() {
    let server = server(|_| {}).await;
    let claim = "/api/v1/namespaces/app/persistentvolumeclaims/data";
    let status = async |path: &str| send(&server, "GET", path, None).await.status.as_u16();
    server.cold_after_restart(|request| request.resource == SNAPSHOTS, 403, Lasts::Requests(2));
    server.cold_after_restart(
        |request| request.resource == "persistentvolumeclaims",
        401,
        Lasts::For(Duration::from_millis(200)),
    );
    assert_eq!((status(PATH).await, status(claim).await), (200, 200));
    for _ in 0..2 {
        server.restart(Duration::ZERO, History::Kept).await;
        let listens = Instant::now();
        let refused = send(&server, "GET", PATH, None).await;
        assert_eq!(refused.status.as_u16(), 403);
        let message = refused.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("cannot list resource \"volumesnapshots\""), "{message}");
        assert_eq!((status(PATH).await, status(PATH).await), (403, 200));
        assert_eq!(status(claim).await, 401);
        until("known", || listens.elapsed() > Duration::from_millis(210)).await;
        assert_eq!(status(claim).await, 200);
    }
    server.cold(|_| true, 401, Lasts::Requests(1));
    assert_eq!((status(PATH).await, status(PATH).await), (401, 200));
    server.clear_faults();
    server.restart(Duration::ZERO, History::Kept).await;
    assert_eq!(status(PATH).await, 200);
}

#[tokio::test]
async fn a_watch_can_be_refused_again_and_again() {
    let server = server(|_| {}).await;
    server.fault(|request| (request.verb == "watch").then_some(Fault::Error(503, When::Before)));
    for _ in 0..3 {
        assert_eq!(send(&server, "GET", &format!("{PATH}?watch=true"), None).await.status.as_u16(), 503);
    }
    assert_eq!(server.most_watches(), 0);
}

#[tokio::test]
async fn a_port_that_is_closed_refuses_and_the_connections_live_on() {
    let server = server(|_| {}).await;
    let url = format!("{}{PATH}?watch=true", server.url());
    let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
    server.refuse_connections().await;
    server.refuse_connections().await;
    assert_eq!(send_in_vain(&server, "GET", PATH, None).await.kind(), std::io::ErrorKind::ConnectionRefused);
    server.put(objects::ready_snapshot("app", "one", "data", "2020-01-01T00:00:00Z"));
    assert!(lines.next().await.expect("a line").is_some());
    server.accept_connections().await;
    server.accept_connections().await;
    assert_eq!(send(&server, "GET", PATH, None).await.status.as_u16(), 200);
    server.cut_connections().await;
    assert!(lines.next().await.is_err());
}

#[tokio::test]
async fn connections_can_be_turned_away() {
    let server = server(|_| {}).await;
    server.turn_away(2);
    for _ in 0..2 {
        send_in_vain(&server, "GET", PATH, None).await;
    }
    assert_eq!(server.requests().len(), 0);
    assert_eq!(send(&server, "GET", PATH, None).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_server_that_restarts_is_away_for_a_while_and_keeps_its_objects() {
    let server = server(|_| {}).await;
    for (history, expected) in [(History::Kept, "ADDED"), (History::Lost, "ERROR")] {
        let url = format!("{}{PATH}?watch=true&resourceVersion={}", server.url(), server.resource_version());
        server.put(objects::ready_snapshot(
            "app",
            expected.to_lowercase().as_str(),
            "data",
            "2020-01-01T00:00:00Z",
        ));
        let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
        assert_eq!(lines.next().await.expect("a line").expect("an event")["type"], "ADDED");
        let began = Instant::now();
        let refused = async {
            while TcpStream::connect(server.address()).await.is_ok() {}
            began.elapsed()
        };
        let ((), refused_after) = tokio::join!(server.restart(Duration::from_millis(200), history), refused);
        assert!(began.elapsed() >= Duration::from_millis(200) && refused_after < began.elapsed());
        assert!(lines.next().await.is_err());
        let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
        let event = lines.next().await.expect("a line").expect("an event");
        assert_eq!(event["type"], expected);
    }
    assert_eq!(server.list(SNAPSHOTS, "app").len(), 2);
}

#[tokio::test]
async fn a_server_may_restart_over_a_request() {
    let server = server(|_| {}).await;
    for (name, when, carried_out) in [("before", When::Before, false), ("after", When::After, true)] {
        let fault = Fault::Restart { when, down_for: Duration::from_millis(50), history: History::Kept };
        server.fault_times(creates, 1, fault);
        send_in_vain(&server, "POST", PATH, Some(&objects::snapshot("app", name, "data"))).await;
        assert_eq!(server.get(SNAPSHOTS, "app", name).is_some(), carried_out);
        // The port is closed before the connection, so the next one that comes about is one to the new server.
        while TcpStream::connect(server.address()).await.is_err() {
            sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(send(&server, "GET", PATH, None).await.status.as_u16(), 200);
    }
}

#[tokio::test]
async fn a_new_authority_is_for_new_connections() {
    let server = server(|options| options.tls = true).await;
    let old = server.ca_pem();
    let mut stream = trusting(&server, old, "localhost").await.expect("trust");
    let before = server.kubeconfig(server.admin_token(), "app");
    server.rotate_ca();
    assert_ne!(server.ca_pem(), old);
    assert_ne!(server.kubeconfig(server.admin_token(), "app"), before);
    assert!(trusting(&server, old, "localhost").await.is_err());
    assert!(trusting(&server, server.ca_pem(), "localhost").await.is_ok());
    let (head, ..) = raw(&mut stream, server.admin_token(), "/version").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
}

#[tokio::test]
async fn a_token_that_has_expired_is_not_valid() {
    let server = server(|_| {}).await;
    let (old, new) = (server.token("app", "someone"), server.token("app", "someone"));
    server.expire_token(&old);
    assert_eq!(send_as(&server, &old, "GET", "/apis", None).await.status.as_u16(), 401);
    assert_eq!(send_as(&server, &new, "GET", "/apis", None).await.status.as_u16(), 200);
}

#[tokio::test]
async fn what_became_of_snapshots_is_remembered() {
    let server = server(|_| {}).await;
    create(&server, &objects::snapshot("app", "new", "data")).await;
    until("ready", || is_ready(&server, "new")).await;
    server.put(objects::ready_snapshot("app", "old", "data", "2020-01-01T00:00:00Z"));
    let token = server.token("app", "pruner");
    server.put(objects::role("app", "pruner", &[("snapshot.storage.k8s.io", SNAPSHOTS, &["delete"])]));
    server.put(objects::role_binding("app", "pruner", "pruner"));
    send_as(&server, &token, "DELETE", &format!("{PATH}/old"), None).await;
    until("gone", || server.get(SNAPSHOTS, "app", "old").is_none()).await;
    let mut bare = objects::snapshot("app", "bare", "missing");
    bare["status"] = json!({});
    server.put(bare);
    send(&server, "DELETE", &format!("{PATH}/bare"), None).await;
    server.compact();
    let admin = "kubernetes-admin";
    let pruner = "system:serviceaccount:app:pruner";
    let history = server.snapshot_history();
    let seen: Vec<(Stage, &str, &str)> = history
        .iter()
        .map(|one| {
            (one.stage, one.object["metadata"]["name"].as_str().unwrap_or_default(), one.user.as_str())
        })
        .collect();
    assert_eq!(
        seen,
        [
            (Stage::Created, "new", admin),
            (Stage::Ready, "new", ""),
            (Stage::Created, "old", ""),
            (Stage::Ready, "old", ""),
            (Stage::DeleteAccepted, "old", pruner),
            (Stage::Removed, "old", ""),
            (Stage::Created, "bare", ""),
            (Stage::DeleteAccepted, "bare", admin),
            (Stage::Removed, "bare", admin),
        ]
    );
    assert!(history.is_sorted_by_key(|one| one.at));
    assert_eq!(history[3].object["status"]["readyToUse"], true);
    assert!(history[4].object["metadata"]["deletionTimestamp"].is_string());
}
