//! Admission policies that change or refuse what users send.

use crate::{PATH, SNAPSHOTS, create, is_ready, send, server, until};
use fake_apiserver::{FakeApiServer, Request, http as client, objects};
use serde_json::{Value, json};

const TIME: &str = "2020-01-01T00:00:00Z";

#[tokio::test]
async fn a_policy_changes_what_is_created() {
    let server = server(|_| {}).await;
    server.put(objects::snapshot_class("cheap"));
    server.admission_changes(
        |request| request.is("create", SNAPSHOTS) && request.name.starts_with("changed"),
        |snapshot| {
            snapshot["metadata"]["labels"]["job"] = "audited".into();
            snapshot["metadata"]["annotations"] = json!({"seen-by": "audit"});
            snapshot["spec"]["volumeSnapshotClassName"] = "cheap".into();
        },
    );
    let snapshot = objects::snapshot("app", "changed", "data");
    let dry = send(&server, "POST", &format!("{PATH}?dryRun=All"), Some(&snapshot)).await;
    assert_eq!(dry.json()["metadata"]["labels"]["job"], "audited");
    let changed = create(&server, &objects::snapshot("app", "changed", "data")).await;
    let same = create(&server, &objects::snapshot("app", "same", "data")).await;
    assert_eq!(changed["metadata"]["labels"], json!({"job": "audited", "name": "changed"}));
    assert_eq!(changed["metadata"]["annotations"], json!({"seen-by": "audit"}));
    assert_eq!(changed["spec"]["volumeSnapshotClassName"], "cheap");
    assert_eq!(same["metadata"]["labels"]["job"], "volume-snapshotter");
    until("ready", || is_ready(&server, "changed")).await;

    // What a policy makes of an object must be valid as well.
    server.admission_changes(
        |request| request.verb == "create",
        |snapshot| snapshot["spec"]["source"] = json!({}),
    );
    let answer = send(&server, "POST", PATH, Some(&objects::snapshot("app", "invalid", "data"))).await;
    assert_eq!(answer.status.as_u16(), 422);
    server.clear_admission();
    create(&server, &objects::snapshot("app", "changed-no-more", "data")).await;
}

fn writes(request: &Request) -> bool {
    ["create", "update", "patch", "delete", "deletecollection"].contains(&request.verb.as_str())
}

async fn patch(server: &FakeApiServer, name: &str, patch: &Value) -> u16 {
    let headers = [("content-type", "application/merge-patch+json")];
    let url = format!("{}{PATH}/{name}", server.url());
    let patched =
        client::request(http::Method::PATCH, &url, Some(server.admin_token()), &headers, Some(patch));
    patched.await.expect("an answer").status.as_u16()
}

#[tokio::test]
async fn a_policy_refuses_what_it_is_about() {
    let server = server(|_| {}).await;
    for name in ["kept", "other"] {
        server.put(objects::ready_snapshot("app", name, "data", TIME));
    }
    let stored = server.get(SNAPSHOTS, "app", "kept");
    server.admission_denies(
        |request| writes(request) && matches!(request.name.as_str(), "kept" | "unwanted" | ""),
        "keep",
        "for the auditors",
    );
    let why = "ValidatingAdmissionPolicy 'keep' with binding 'keep' denied request: for the auditors";
    let status = |name: &str| {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422,
            "message": format!("volumesnapshots.snapshot.storage.k8s.io \"{name}\" is forbidden: {why}"),
            "details": {
                "name": name, "group": "snapshot.storage.k8s.io", "kind": SNAPSHOTS, "causes": [{"message": why}],
            },
        })
    };
    let kept = format!("{PATH}/kept");
    assert_eq!(send(&server, "DELETE", &kept, None).await.json(), status("kept"));
    let unwanted = objects::snapshot("app", "unwanted", "data");
    assert_eq!(send(&server, "POST", PATH, Some(&unwanted)).await.json(), status("unwanted"));
    assert_eq!(send(&server, "DELETE", PATH, None).await.status.as_u16(), 422);
    assert_eq!(patch(&server, "kept", &json!({"metadata": {"labels": {"a": "b"}}})).await, 422);
    assert_eq!(server.get(SNAPSHOTS, "app", "kept"), stored);
    assert_eq!(server.get(SNAPSHOTS, "app", "unwanted"), None);

    // Who asks for what is not so is told that first.
    let stale = json!({"preconditions": {"uid": "another"}});
    assert_eq!(send(&server, "DELETE", &kept, Some(&stale)).await.status.as_u16(), 409);
    assert_eq!(send(&server, "DELETE", &format!("{PATH}/unwanted"), None).await.status.as_u16(), 404);
    assert_eq!(send(&server, "DELETE", &format!("{PATH}/other"), None).await.status.as_u16(), 200);
    server.clear_admission();
    assert_eq!(send(&server, "DELETE", &kept, None).await.status.as_u16(), 200);
}
