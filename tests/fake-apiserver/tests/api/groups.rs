//! Group snapshots: plans, members, what hinders them, how they go, and the versions in which they are served.

use crate::{PATH, SNAPSHOTS, send, send_as, until};
use fake_apiserver::http as client;
use fake_apiserver::{FakeApiServer, Fault, GroupApi, Options, Pace, Plan, Stage, When, objects};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const GROUPS: &str = "volumegroupsnapshots";
const GROUP_PATH: &str = "/apis/groupsnapshot.storage.k8s.io/v1/namespaces/app/volumegroupsnapshots";
const SHOP: &[(&str, &str)] = &[("app", "shop")];
const TIME: &str = "2020-01-01T00:00:00Z";

/// A server with two claims of the group `shop`, and a default class.
async fn server_of(api: GroupApi) -> FakeApiServer {
    let server = FakeApiServer::start(Options { group_api: api, ..Options::default() }).await;
    server.furnish("app");
    for claim in ["data", "logs"] {
        server.put(objects::bound_claim("app", claim, SHOP));
    }
    server
}

async fn server() -> FakeApiServer {
    server_of(GroupApi::V1).await
}

async fn create(server: &FakeApiServer, group: &Value) -> Value {
    let response = send(server, "POST", GROUP_PATH, Some(group)).await;
    assert_eq!(response.status.as_u16(), 201, "{:?}", response.json());
    response.json()
}

fn status(server: &FakeApiServer, name: &str) -> Value {
    server.get(GROUPS, "app", name).map(|group| group["status"].clone()).unwrap_or_default()
}

fn error(server: &FakeApiServer, name: &str) -> String {
    status(server, name)["error"]["message"].as_str().unwrap_or_default().to_owned()
}

/// The members of a group by their claims.
fn members(server: &FakeApiServer, group: &str) -> Vec<(String, Value)> {
    let of_group = |one: &Value| one["metadata"]["ownerReferences"][0]["name"] == group;
    let snapshots = server.list(SNAPSHOTS, "app").into_iter().filter(of_group);
    let mut members: Vec<(String, Value)> = snapshots
        .map(|one| {
            (one["spec"]["source"]["persistentVolumeClaimName"].as_str().unwrap_or_default().to_owned(), one)
        })
        .collect();
    members.sort_by(|a, b| a.0.cmp(&b.0));
    members
}

fn member(server: &FakeApiServer, group: &str, claim: &str) -> Value {
    let found = members(server, group).into_iter().find(|(of, _)| of == claim);
    found.map(|(_, member)| member).unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn is_ready(object: &Value) -> bool {
    object["status"]["readyToUse"] == true
}

async fn until_all_ready(server: &FakeApiServer, group: &str, number: usize) {
    until("group and members are ready", || {
        let members = members(server, group);
        status(server, group)["readyToUse"] == true
            && members.len() == number
            && members.iter().all(|(_, member)| is_ready(member))
    })
    .await;
}

#[tokio::test]
async fn members_are_of_one_instant_and_know_their_group_late() {
    let server = server().await;
    server.put(objects::running_pod("app", "db", &["main"], &["data", "logs"]));
    server.start_writer("app", "db", Duration::from_micros(200));
    let ms = Duration::from_millis;
    server.plan(move |member| {
        assert_eq!(member.get("status"), None);
        assert_eq!(member["metadata"]["ownerReferences"][0]["name"], "one");
        Some(Plan::ready_after(ms(if member["spec"]["source"]["persistentVolumeClaimName"] == "data" {
            40
        } else {
            400
        })))
    });
    let created = create(&server, &objects::group_snapshot("app", "one", SHOP)).await;
    until("the group is ready", || status(&server, "one")["readyToUse"] == true).await;
    let late = member(&server, "one", "logs");
    assert!(!is_ready(&late));
    assert_eq!(late["status"].get("volumeGroupSnapshotName"), None);
    assert_eq!(late["metadata"].get("labels"), None);
    assert!(name(&late).strip_prefix("snapshot-").is_some_and(|hash| hash.len() == 64), "{late}");
    assert_eq!(late["metadata"]["ownerReferences"][0]["uid"], created["metadata"]["uid"]);
    until_all_ready(&server, "one", 2).await;
    let contents: Vec<Option<Value>> = members(&server, "one")
        .iter()
        .map(|(claim, member)| {
            let status = &member["status"];
            assert_eq!(status["volumeGroupSnapshotName"], "one");
            assert_eq!(status["creationTime"], self::status(&server, "one")["creationTime"]);
            let data = server.snapshot_data("app", name(member)).expect("data");
            let claim = server.get("persistentvolumeclaims", "app", claim).expect("a claim");
            assert_eq!(claim["metadata"]["uid"], data.claim);
            server.snapshot_content("app", name(member))
        })
        .collect();
    assert!(contents[0].is_some() && contents[0] == contents[1], "{contents:?}");
    // Each has a content, and a claim can be made of it.
    assert_eq!(server.list("volumesnapshotcontents", "").len(), 2);
    let content = &server.list("volumegroupsnapshotcontents", "")[0];
    assert_eq!(content["spec"]["source"]["volumeHandles"].as_array().map(Vec::len), Some(2));
    let source = member(&server, "one", "data");
    server.put(objects::claim_from_snapshot("app", "restored", name(&source)));
    until("restored", || server.restored_from("app", "restored").is_some()).await;
    assert_eq!(Some(server.content("app", "restored")), contents[0]);
}

#[tokio::test]
async fn groups_follow_their_plans() {
    let server = server().await;
    let ms = Duration::from_millis;
    server.plan_group(move |group| {
        Some(match name(group) {
            "never" => Plan::never(),
            "fails" => Plan::fails("no space"),
            "recovers" => Plan::ready_after(ms(60)).with_error(ms(5), "busy"),
            "keeps" => Plan::ready_after(ms(30)).with_error(ms(5), "odd").keeping_error(),
            "taken" => Plan::ready_after(ms(600)).taken_after(ms(50)),
            "stuck" => Plan::never().taken_after(ms(0)),
            "dated" => Plan::ready_after(ms(0)).with_creation_time("2030-01-01T00:00:00Z"),
            "stays" => Plan::ready_after(ms(0)).kept_on_delete(),
            _ => return None,
        })
    });
    for name in ["never", "fails", "recovers", "keeps", "taken", "stuck", "dated", "stays", "default"] {
        create(&server, &objects::group_snapshot("app", name, SHOP)).await;
    }
    until("busy", || error(&server, "recovers") == "busy").await;
    until("taken", || status(&server, "taken")["creationTime"].is_string()).await;
    assert_eq!(
        (status(&server, "taken")["readyToUse"].clone(), members(&server, "taken").len()),
        (json!(false), 2)
    );
    for name in ["recovers", "keeps", "dated", "stays", "default", "taken"] {
        until_all_ready(&server, name, 2).await;
    }
    assert_eq!((error(&server, "recovers"), error(&server, "keeps")), (String::new(), "odd".to_owned()));
    assert_eq!(status(&server, "dated")["creationTime"], "2030-01-01T00:00:00Z");
    assert_eq!(member(&server, "dated", "data")["status"]["creationTime"], "2030-01-01T00:00:00Z");
    // What is taken has members, and nothing else.
    assert_eq!(error(&server, "fails"), "no space");
    for (name, expected, time) in [("never", 0, false), ("fails", 0, false), ("stuck", 2, true)] {
        assert_eq!(members(&server, name).len(), expected, "{name}");
        let status = status(&server, name);
        assert_eq!(
            (&status["readyToUse"], status["creationTime"].is_string()),
            (&json!(false), time),
            "{name}"
        );
    }
    for name in ["stays", "default"] {
        assert_eq!(send(&server, "DELETE", &format!("{GROUP_PATH}/{name}"), None).await.status.as_u16(), 200);
    }
    until("gone", || {
        members(&server, "default").is_empty() && server.get(GROUPS, "app", "default").is_none()
    })
    .await;
    assert!(server.get(GROUPS, "app", "stays").is_some());
    assert_eq!(members(&server, "stays").len(), 2);
    let stages: Vec<Stage> = server
        .group_history()
        .iter()
        .filter(|milestone| name(&milestone.object) == "default")
        .map(|milestone| milestone.stage)
        .collect();
    assert_eq!(stages, [Stage::Created, Stage::Ready, Stage::DeleteAccepted, Stage::Removed]);
    assert!(server.snapshot_history().iter().all(|milestone| milestone.object["kind"] == "VolumeSnapshot"));
    assert!(server.journal().iter().any(|write| write.resource == GROUPS));
}

#[tokio::test]
async fn a_member_that_is_never_ready_does_not_hold_its_group_up() {
    let server = server().await;
    server.plan(|member| {
        let is_it = member["spec"]["source"]["persistentVolumeClaimName"] == "logs";
        is_it.then(|| Plan::fails("no space"))
    });
    create(&server, &objects::group_snapshot("app", "one", SHOP)).await;
    until("ready", || {
        status(&server, "one")["readyToUse"] == true && is_ready(&member(&server, "one", "data"))
    })
    .await;
    until("it says why", || member(&server, "one", "logs")["status"]["error"]["message"] == "no space").await;
    assert!(!is_ready(&member(&server, "one", "logs")));
    assert_eq!(error(&server, "one"), "");
}

#[tokio::test]
async fn a_member_goes_with_its_group_and_not_before() {
    let server = server().await;
    create(&server, &objects::group_snapshot("app", "one", SHOP)).await;
    until_all_ready(&server, "one", 2).await;
    let data = member(&server, "one", "data");
    // One that knows its group keeps all its finalizers.
    send(&server, "DELETE", &format!("{PATH}/{}", name(&data)), None).await;
    sleep(Duration::from_millis(50)).await;
    let left = member(&server, "one", "data");
    assert!(left["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(left["metadata"]["finalizers"], data["metadata"]["finalizers"]);
    // While a claim is made from one of them, all stay.
    server.put(objects::waiting_storage_class("late"));
    let logs = member(&server, "one", "logs");
    let mut claim = objects::claim_from_snapshot("app", "restored", name(&logs));
    claim["spec"]["storageClassName"] = "late".into();
    server.put(claim);
    let answer = send(&server, "DELETE", &format!("{GROUP_PATH}/one"), None).await;
    assert!(answer.json()["metadata"]["deletionTimestamp"].is_string());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(members(&server, "one").len(), 2);
    assert!(server.get(GROUPS, "app", "one").is_some());
    server.remove("persistentvolumeclaims", "app", "restored");
    until("all are gone", || members(&server, "one").is_empty()).await;
    assert_eq!(server.get(GROUPS, "app", "one"), None);
    for contents in ["volumesnapshotcontents", "volumegroupsnapshotcontents"] {
        until("contents too", || server.list(contents, "").is_empty()).await;
    }

    // One that was not ready when it was deleted goes with the group too, and so it is if the group just goes.
    server.plan(|_| Some(Plan::never()));
    for deleted in ["deleted", "removed"] {
        create(&server, &objects::group_snapshot("app", deleted, SHOP)).await;
        until("members", || members(&server, deleted).len() == 2).await;
        let one = member(&server, deleted, "data");
        send(&server, "DELETE", &format!("{PATH}/{}", name(&one)), None).await;
        until("one finalizer is left", || {
            let left = member(&server, deleted, "data")["metadata"]["finalizers"].clone();
            left == json!(["snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection"])
        })
        .await;
        if deleted == "removed" {
            server.remove(GROUPS, "app", deleted);
        } else {
            server.delete(GROUPS, "app", deleted);
        }
        until("all are gone", || members(&server, deleted).is_empty()).await;
    }
    // And with the namespace.
    create(&server, &objects::group_snapshot("app", "last", SHOP)).await;
    until("members", || members(&server, "last").len() == 2).await;
    send(&server, "DELETE", "/api/v1/namespaces/app", None).await;
    until("the namespace is gone", || server.get("namespaces", "", "app").is_none()).await;
    assert!(server.list(GROUPS, "").is_empty() && server.list(SNAPSHOTS, "").is_empty());
}

#[tokio::test]
async fn what_hinders_a_group_is_said_and_may_pass() {
    let server = server().await;
    let mut late = objects::claim("app", "late");
    late["metadata"]["labels"] = json!({"app": "half"});
    late["spec"]["storageClassName"] = "later".into();
    server.put(late);
    create(&server, &objects::group_snapshot("app", "half", &[("app", "half")])).await;
    let none = &[("app", "none"), ("tier", "db")];
    create(&server, &objects::group_snapshot("app", "none", none)).await;
    let mut classless = objects::group_snapshot("app", "classless", SHOP);
    classless["spec"]["volumeGroupSnapshotClassName"] = "later".into();
    create(&server, &classless).await;
    for (group, message) in [
        ("half", "the PVC late is not yet bound to a PV"),
        ("none", "\"label selector app=none,tier=db for group snapshot not applied to any PVC\""),
        ("classless", "volumegroupsnapshotclass.groupsnapshot.storage.k8s.io \"later\" not found"),
    ] {
        until(message, || error(&server, group).contains(message)).await;
        assert!(members(&server, group).is_empty());
        assert_eq!(server.get(GROUPS, "app", group).expect("a group")["metadata"].get("finalizers"), None);
    }
    server.put(objects::storage_class("later"));
    server.put(objects::group_snapshot_class("later"));
    server.put(objects::bound_claim("app", "at-last", none));
    for (group, number) in [("half", 1), ("none", 1), ("classless", 2)] {
        until_all_ready(&server, group, number).await;
        assert_eq!(error(&server, group), "");
    }

    // A claim of another driver, and what the selector does not look at.
    let mut other = objects::bound_claim("app", "other", &[("app", "mixed")]);
    other["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"] =
        "other.csi.example.com".into();
    server.put(other);
    server.put(objects::bound_claim("app", "own", &[("app", "mixed")]));
    create(&server, &objects::group_snapshot("app", "mixed", &[("app", "mixed")])).await;
    let message = "failed to create group snapshot content with error snapshot controller failed to update app/mixed on \
                   API server: Volume CSI driver (other.csi.example.com) mismatch with VolumeGroupSnapshotClass \
                   (hostpath.csi.k8s.io) app/mixed: pvc-app-other";
    until("mixed", || error(&server, "mixed") == message).await;
    server.remove("persistentvolumeclaims", "app", "other");
    until_all_ready(&server, "mixed", 1).await;
    let mut expressions = objects::group_snapshot("app", "expressions", SHOP);
    expressions["spec"]["source"]["selector"]["matchExpressions"] =
        json!([{"key": "app", "operator": "DoesNotExist"}]);
    create(&server, &expressions).await;
    until_all_ready(&server, "expressions", 2).await;
    create(&server, &objects::group_snapshot("app", "all", &[])).await;
    until_all_ready(&server, "all", server.list("persistentvolumeclaims", "app").len()).await;

    // The default class.
    let mut default = objects::group_snapshot("app", "default", SHOP);
    default["spec"].as_object_mut().expect("a spec").remove("volumeGroupSnapshotClassName");
    let retry = |name: &str| {
        let mut group = default.clone();
        group["metadata"]["name"] = name.into();
        group
    };
    server.put(objects::default_group_snapshot_class("second"));
    create(&server, &retry("two")).await;
    let said = "Failed to set default group snapshot class with error 2 default snapshot classes were found";
    until("two", || error(&server, "two") == said).await;
    for class in ["second", "default-group"] {
        server.put(objects::group_snapshot_class(class));
    }
    create(&server, &retry("no")).await;
    let said =
        "Failed to set default group snapshot class with error cannot find default group snapshot class";
    until("no", || error(&server, "no") == said).await;
}

#[tokio::test]
async fn quotas_count_groups_and_members() {
    let server = server().await;
    server.quota("app", 1);
    create(&server, &objects::group_snapshot("app", "one", SHOP)).await;
    until("one member", || members(&server, "one").len() == 1).await;
    sleep(Duration::from_millis(60)).await;
    // The controller tries again and says nothing.
    assert_eq!(members(&server, "one").len(), 1);
    let status = status(&server, "one");
    assert_eq!(
        (&status["readyToUse"], status.get("error"), status.get("creationTime")),
        (&json!(false), None, None)
    );
    server.quota("app", 2);
    until_all_ready(&server, "one", 2).await;

    // The group goes while a member waits.
    server.put(objects::quota("app", "q", 3));
    create(&server, &objects::group_snapshot("app", "two", SHOP)).await;
    until("one member", || members(&server, "two").len() == 1).await;
    send(&server, "DELETE", &format!("{GROUP_PATH}/two"), None).await;
    until("gone", || server.get(GROUPS, "app", "two").is_none() && members(&server, "two").is_empty()).await;
    server.quota("app", 10);
    sleep(Duration::from_millis(30)).await;
    assert!(members(&server, "two").is_empty());

    server.put(objects::quota_of("app", "groups", "volumegroupsnapshots.groupsnapshot.storage.k8s.io", 1));
    let refused =
        send(&server, "POST", GROUP_PATH, Some(&objects::group_snapshot("app", "three", SHOP))).await;
    assert_eq!(refused.status.as_u16(), 403);
    let message = "volumegroupsnapshots.groupsnapshot.storage.k8s.io \"three\" is forbidden: exceeded quota: groups, \
                   requested: count/volumegroupsnapshots.groupsnapshot.storage.k8s.io=1, used: \
                   count/volumegroupsnapshots.groupsnapshot.storage.k8s.io=1, limited: \
                   count/volumegroupsnapshots.groupsnapshot.storage.k8s.io=1";
    assert_eq!(refused.json()["message"], message);
}

#[tokio::test]
async fn a_group_waits_in_the_queue_and_is_of_the_claims_that_are_there_then() {
    let server = server().await;
    server.controller_pace(Pace::Stopped);
    create(&server, &objects::group_snapshot("app", "one", SHOP)).await;
    let new = server.replace_claim("app", "data");
    server.label("persistentvolumeclaims", "app", "logs", "app", None);
    sleep(Duration::from_millis(30)).await;
    assert_eq!(status(&server, "one"), Value::Null);
    server.controller_takes(1);
    until_all_ready(&server, "one", 1).await;
    let data = server.snapshot_data("app", name(&member(&server, "one", "data"))).expect("data");
    assert_eq!(new["metadata"]["uid"], data.claim);
    // Others with the same name are other groups.
    server.delete(GROUPS, "app", "one");
    create_denied(&server, "one").await;
    server.controller_pace(Pace::AtOnce);
    until("gone", || server.get(GROUPS, "app", "one").is_none()).await;
    let again = create(&server, &objects::group_snapshot("app", "one", SHOP)).await;
    until_all_ready(&server, "one", 1).await;
    assert_eq!(
        member(&server, "one", "data")["metadata"]["ownerReferences"][0]["uid"],
        again["metadata"]["uid"]
    );
}

/// A name is taken as long as its group is terminating.
async fn create_denied(server: &FakeApiServer, name: &str) {
    let answer = send(server, "POST", GROUP_PATH, Some(&objects::group_snapshot("app", name, SHOP))).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["reason"]), (409, &json!("AlreadyExists")));
}

#[tokio::test]
async fn older_groups_are_put_in_with_their_members() {
    let server = server().await;
    let old = server.put(objects::ready_group_snapshot("app", "old", SHOP, TIME));
    server.set_content("app", "data", json!(7));
    for claim in ["data", "logs"] {
        server.put(objects::member(&old, claim));
    }
    let data = member(&server, "old", "data");
    assert_eq!(
        (&data["metadata"]["creationTimestamp"], &data["status"]["creationTime"]),
        (&json!(TIME), &json!(TIME))
    );
    assert_eq!(server.snapshot_content("app", name(&data)), Some(json!(7)));
    sleep(Duration::from_millis(30)).await;
    assert_eq!(server.get(GROUPS, "app", "old"), Some(old.clone()));
    let path = format!("{GROUP_PATH}/old");
    for (field, value, code) in [
        ("uid", json!("other"), 409),
        ("resourceVersion", json!("1"), 409),
        ("uid", old["metadata"]["uid"].clone(), 200),
    ] {
        let options = json!({"preconditions": {field: value}});
        assert_eq!(send(&server, "DELETE", &path, Some(&options)).await.status.as_u16(), code);
    }
    until("all are gone", || server.list(SNAPSHOTS, "app").is_empty()).await;
    assert_eq!(server.get(GROUPS, "app", "old"), None);
}

#[tokio::test]
async fn clusters_serve_the_versions_that_their_crds_have() {
    for (api, versions) in [
        (GroupApi::None, &[][..]),
        (GroupApi::V1beta1, &["v1beta1"]),
        (GroupApi::V1beta2, &["v1beta2", "v1beta1"]),
        (GroupApi::V1, &["v1", "v1beta2", "v1beta1"]),
    ] {
        let server = server_of(api).await;
        let found = send(&server, "GET", "/apis/groupsnapshot.storage.k8s.io", None).await;
        assert_eq!(found.status.as_u16(), if versions.is_empty() { 404 } else { 200 });
        let preferred = &found.json()["preferredVersion"]["version"];
        assert_eq!(preferred.as_str(), versions.first().copied(), "{api:?}");
        let is_listed = send(&server, "GET", "/apis", None).await.json()["groups"]
            .as_array()
            .is_some_and(|groups| groups.iter().any(|group| group["name"] == "groupsnapshot.storage.k8s.io"));
        assert_eq!(is_listed, !versions.is_empty());
        for version in ["v1", "v1beta2", "v1beta1"] {
            let path = GROUP_PATH.replace("/v1/", &format!("/{version}/"));
            let listed = send(&server, "GET", &path, None).await;
            if !versions.contains(&version) {
                assert_eq!((listed.status.as_u16(), listed.json()), (404, Value::Null), "{api:?} {version}");
                continue;
            }
            let api_version = format!("groupsnapshot.storage.k8s.io/{version}");
            let mut group = objects::group_snapshot("app", &format!("of-{version}"), SHOP);
            group["apiVersion"] = api_version.as_str().into();
            let url = format!("{}{path}?watch=true&timeoutSeconds=1", server.url());
            let mut lines = client::lines(&url, Some(server.admin_token())).await.expect("a watch");
            let created = send(&server, "POST", &path, Some(&group)).await;
            assert_eq!(created.json()["apiVersion"], api_version, "{:?}", created.json());
            let event = loop {
                let event = lines.next().await.expect("a line").expect("an event");
                if name(&event["object"]) == name(&group) {
                    break event;
                }
            };
            assert_eq!(event["object"]["apiVersion"], api_version);
            let warning = created.headers.get("warning").map(|text| text.to_str().expect("text").to_owned());
            let expected = (version == "v1beta1" && versions[0] != version).then(|| {
                let (old, new) =
                    (api_version.clone(), format!("groupsnapshot.storage.k8s.io/{}", versions[0]));
                format!("299 - \"{old} VolumeGroupSnapshot is deprecated; use {new} VolumeGroupSnapshot\"")
            });
            assert_eq!(warning, expected, "{api:?}");
            let listed = send(&server, "GET", &path, None).await.json();
            assert_eq!(listed["items"][0]["apiVersion"], api_version);
            // What is in one version is in the body of a request for that version.
            group["apiVersion"] = "groupsnapshot.storage.k8s.io/v0".into();
            assert_eq!(send(&server, "POST", &path, Some(&group)).await.status.as_u16(), 400);
            let patch = [("content-type", "application/merge-patch+json")];
            let body = json!({"metadata": {"labels": {"held": "true"}}});
            let url = format!("{}{path}/of-{version}", server.url());
            let patched =
                client::request(http::Method::PATCH, &url, Some(server.admin_token()), &patch, Some(&body))
                    .await;
            let patched = patched.expect("an answer").json();
            assert_eq!(
                (&patched["apiVersion"], &patched["metadata"]["labels"]["held"]),
                (&json!(api_version), &json!("true"))
            );
            until_all_ready(&server, &format!("of-{version}"), 2).await;
            let owner =
                member(&server, &format!("of-{version}"), "data")["metadata"]["ownerReferences"][0].clone();
            assert_eq!(owner["apiVersion"], format!("groupsnapshot.storage.k8s.io/{}", versions[0]));
        }
        // They are stored in one form.
        let all = server.list(GROUPS, "app");
        assert_eq!(all.len(), versions.len());
        assert!(all.iter().all(|group| group["apiVersion"] == "groupsnapshot.storage.k8s.io/v1"));
    }
}

#[tokio::test]
async fn groups_are_permitted_validated_and_fail_as_everything_does() {
    let server = server().await;
    let token = server.token("app", "maker");
    let group = objects::group_snapshot("app", "one", SHOP);
    let refused = send_as(&server, &token, "POST", GROUP_PATH, Some(&group)).await;
    assert_eq!(refused.status.as_u16(), 403);
    server.put(objects::role("app", "maker", &[("groupsnapshot.storage.k8s.io", GROUPS, &["create"])]));
    server.put(objects::role_binding("app", "maker", "maker"));
    let dry = format!("{GROUP_PATH}?dryRun=All");
    assert_eq!(send_as(&server, &token, "POST", &dry, Some(&group)).await.status.as_u16(), 201);
    assert_eq!(server.get(GROUPS, "app", "one"), None);
    assert_eq!(send_as(&server, &token, "POST", GROUP_PATH, Some(&group)).await.status.as_u16(), 201);
    assert_eq!(
        send_as(&server, &token, "GET", &format!("{GROUP_PATH}/one"), None).await.status.as_u16(),
        403
    );

    for (change, code, said) in [
        (
            json!({"spec": {"source": {}}}),
            422,
            "exactly one of selector and volumeGroupSnapshotContentName must be set",
        ),
        (json!({"spec": null}), 422, "spec: Required value"),
        (
            json!({"spec": {"source": {"selector": {}}, "volumeGroupSnapshotClassName": ""}}),
            422,
            "must not be the empty string",
        ),
        (json!({"spec": {"source": {"selectors": {}}}}), 400, "unknown field \"spec.source.selectors\""),
        (json!({"metadata": {"name": "Bad", "namespace": "app"}}), 422, "metadata.name"),
    ] {
        let mut bad = objects::group_snapshot("app", "bad", SHOP);
        for (field, value) in change.as_object().expect("an object") {
            bad[field] = value.clone();
        }
        let answer = send(&server, "POST", &format!("{GROUP_PATH}?fieldValidation=Strict"), Some(&bad)).await;
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status.as_u16() == code && message.contains(said), "{code} {message}");
    }
    let classes = "/apis/groupsnapshot.storage.k8s.io/v1/volumegroupsnapshotclasses";
    let mut class = objects::group_snapshot_class("odd");
    class["deletionPolicy"] = "Forget".into();
    let answer = send(&server, "POST", classes, Some(&class)).await.json();
    assert_eq!(answer["details"]["causes"][0]["reason"], "FieldValueNotSupported", "{answer}");

    // Carried out without an answer, and refused with one.
    let creates = |request: &fake_apiserver::Request| request.is("create", GROUPS);
    server.fault_nth(creates, 1, Fault::Error(504, When::After));
    server.fault_nth(creates, 2, Fault::Error(500, When::Before));
    for (name, code, made) in [("two", 504, true), ("three", 500, false)] {
        let answer =
            send(&server, "POST", GROUP_PATH, Some(&objects::group_snapshot("app", name, SHOP))).await;
        assert_eq!(answer.status.as_u16(), code);
        assert_eq!(server.get(GROUPS, "app", name).is_some(), made, "{name}");
    }
    until_all_ready(&server, "two", 2).await;
}

#[tokio::test]
async fn the_controller_tells_of_groups_in_events() {
    let mut options = Options { group_api: GroupApi::V1, ..Options::default() };
    options.controller.events = true;
    let server = FakeApiServer::start(options).await;
    server.furnish("app");
    server.put(objects::bound_claim("app", "data", SHOP));
    let began = Instant::now();
    create(&server, &objects::group_snapshot("app", "one", SHOP)).await;
    create(&server, &objects::group_snapshot("app", "none", &[("app", "none")])).await;
    let reasons = |name: &str| {
        let about = |event: &Value| {
            event["involvedObject"]["kind"] == "VolumeGroupSnapshot"
                && event["involvedObject"]["name"] == name
        };
        let events = server.list("events", "app").into_iter().filter(about);
        events.map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    until("ready", || reasons("one").len() == 3).await;
    assert_eq!(reasons("one"), ["CreatingGroupSnapshot", "GroupSnapshotCreated", "GroupSnapshotReady"]);
    until("failed", || reasons("none") == ["GroupSnapshotContentCreationFailed"]).await;
    assert!(began.elapsed() < Duration::from_secs(5));
}
