//! Jobs, what becomes of their pods, the claims of ephemeral volumes, and what goes with what.

use crate::{SNAPSHOTS, send, send_as, server, until};
use fake_apiserver::{FakeApiServer, PodPlan, Provision, objects};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const PATH: &str = "/apis/batch/v1/namespaces/app/jobs";
const TIME: &str = "2020-01-01T00:00:00Z";
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// A Job whose pod has one volume from the snapshot `good`.
fn job(name: &str) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "backoffLimit": 0,
            "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "check",
                    "image": "busybox:1",
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": true}],
                }],
                "volumes": [{"name": "data", "ephemeral": {"volumeClaimTemplate": {
                    "metadata": {"labels": {"drill": "yes"}},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "storageClassName": "hostpath",
                        "resources": {"requests": {"storage": "1Gi"}},
                        "dataSource": {
                            "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "good",
                        },
                    },
                }}}],
            }},
        },
    })
}

/// A cluster with the ready snapshot `good`.
async fn with_snapshot() -> FakeApiServer {
    let server = server(|options| options.job_backoff = Duration::from_millis(20)).await;
    let good = server.put(objects::ready_snapshot("app", "good", "data", TIME));
    assert!(good["metadata"]["uid"].is_string());
    server.set_snapshot_content("app", "good", json!("the data"));
    server
}

async fn create(server: &FakeApiServer, job: &Value) -> Value {
    let answer = send(server, "POST", PATH, Some(job)).await;
    assert_eq!(answer.status.as_u16(), 201, "{:?}", answer.json());
    answer.json()
}

async fn delete(server: &FakeApiServer, name: &str, how: &str) -> http::StatusCode {
    let options = json!({"propagationPolicy": how});
    send(server, "DELETE", &format!("{PATH}/{name}"), Some(&options)).await.status
}

fn has(server: &FakeApiServer, job: &str, condition: &str) -> bool {
    conditions(server, job).iter().any(|one| one["type"] == condition && one["status"] == "True")
}

fn conditions(server: &FakeApiServer, job: &str) -> Vec<Value> {
    let job = server.get("jobs", "app", job).unwrap_or_default();
    job["status"]["conditions"].as_array().cloned().unwrap_or_default()
}

/// The only pod.
fn pod(server: &FakeApiServer) -> Value {
    let pods = server.list("pods", "app");
    assert_eq!(pods.len(), 1, "{pods:#?}");
    pods[0].clone()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("a name").to_owned()
}

/// The claims of ephemeral volumes.
fn claims(server: &FakeApiServer) -> Vec<Value> {
    let claims = server.list("persistentvolumeclaims", "app").into_iter();
    claims.filter(|claim| claim["metadata"]["ownerReferences"].is_array()).collect()
}

fn nothing_is_left(server: &FakeApiServer) -> bool {
    ["jobs", "pods", "persistentvolumes"].iter().all(|resource| server.list(resource, "").is_empty())
        && claims(server).is_empty()
}

fn events(server: &FakeApiServer, reason: &str) -> Vec<String> {
    let events = server.list("events", "app").into_iter().filter(|event| event["reason"] == reason);
    events.map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_job_reads_a_snapshot_on_a_volume_of_its_own_and_leaves_nothing_behind() {
    let server = with_snapshot().await;
    server.plan_pod(|_| {
        Some(PodPlan::decided(|others, pod| {
            let claim = format!("{}-data", name(pod));
            let content = others.content("app", &claim);
            PodPlan::succeeds(&content.to_string()).logging("one\ntwo\nthree\n")
        }))
    });
    let created = create(&server, &job("drill")).await;
    until("complete", || has(&server, "drill", "Complete")).await;
    let kinds: Vec<String> = conditions(&server, "drill")
        .iter()
        .map(|one| format!("{} {} {}", one["type"], one["reason"], one["message"]).replace('"', ""))
        .collect();
    assert_eq!(
        kinds,
        [
            "SuccessCriteriaMet CompletionsReached Reached expected number of succeeded pods",
            "Complete CompletionsReached Reached expected number of succeeded pods",
        ]
    );
    let status = server.get("jobs", "app", "drill").expect("a Job")["status"].clone();
    assert_eq!(status["succeeded"], 1);
    assert!(status["completionTime"].is_string() && status.get("active").is_none(), "{status}");

    let pod = pod(&server);
    assert_eq!(pod["status"]["phase"], "Succeeded");
    assert_eq!(pod["spec"]["nodeName"], "node-1");
    assert_eq!(pod["metadata"].get("finalizers"), None, "it is counted");
    let terminated = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(terminated["message"], "\"the data\"");
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(0), &json!("Completed")));
    let log = format!("/api/v1/namespaces/app/pods/{}/log", name(&pod));
    assert_eq!(send(&server, "GET", &log, None).await.body, "one\ntwo\nthree\n");
    assert_eq!(
        send(&server, "GET", &format!("{log}?container=check&tailLines=1"), None).await.body,
        "three\n"
    );
    assert_eq!(send(&server, "GET", &format!("{log}?container=other"), None).await.status.as_u16(), 400);
    assert_eq!(send(&server, "GET", &log.replace("drill-", "other-"), None).await.status.as_u16(), 404);

    let claim = &claims(&server)[0];
    assert_eq!(name(claim), format!("{}-data", name(&pod)));
    assert_eq!(claim["metadata"]["labels"], json!({"drill": "yes"}));
    assert_eq!(
        claim["metadata"]["ownerReferences"],
        json!([{
            "apiVersion": "v1", "kind": "Pod", "name": name(&pod), "uid": pod["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }])
    );
    let uid = server.get(SNAPSHOTS, "app", "good").expect("a snapshot")["metadata"]["uid"].clone();
    assert_eq!(server.restored_from("app", &name(claim)).as_deref(), uid.as_str());
    assert_eq!(events(&server, "SuccessfulCreate"), [format!("Created pod: {}", name(&pod))]);

    // Deleted alone the claim is protected while its pod is there.
    server.delete("persistentvolumeclaims", "app", &name(claim));
    sleep(Duration::from_millis(30)).await;
    assert_eq!(claims(&server).len(), 1);
    assert_eq!(delete(&server, "drill", "Background").await.as_u16(), 200);
    assert!(created["metadata"]["uid"].is_string());
    until("all is gone", || nothing_is_left(&server)).await;
    assert!(server.get(SNAPSHOTS, "app", "good").is_some());
}

#[tokio::test]
async fn pods_end_as_a_test_wants() {
    let server = with_snapshot().await;
    let ended = |plan: fn() -> PodPlan| {
        let server = &server;
        async move {
            server.plan_pod(move |_| Some(plan()));
            create(server, &job("drill")).await;
            until("failed", || has(server, "drill", "Failed")).await;
            let (pod, conditions) = (pod(server), conditions(server, "drill"));
            assert_eq!(conditions[0]["type"], "FailureTarget");
            assert_eq!(conditions[1]["reason"], "BackoffLimitExceeded");
            assert_eq!(conditions[1]["message"], "Job has reached the specified backoff limit");
            assert_eq!(server.get("jobs", "app", "drill").expect("a Job")["status"]["failed"], 1);
            delete(server, "drill", "Background").await;
            until("all is gone", || nothing_is_left(server)).await;
            pod["status"].clone()
        }
    };
    let failed = ended(|| PodPlan::fails(3, "damaged")).await;
    let terminated = &failed["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(3), &json!("Error")));
    assert_eq!(terminated["message"], "damaged");
    let killed = ended(PodPlan::out_of_memory).await;
    assert_eq!(killed["phase"], "Failed");
    assert_eq!(killed["containerStatuses"][0]["state"]["terminated"]["reason"], "OOMKilled");
    assert_eq!(killed["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    let evicted = ended(|| PodPlan::evicted("The node was low on resource: memory.")).await;
    assert_eq!((&evicted["reason"], &evicted["phase"]), (&json!("Evicted"), &json!("Failed")));
    assert_eq!(evicted["message"], "The node was low on resource: memory.");
    let conditions = evicted["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|one| one["type"] == "DisruptionTarget"));
}

#[tokio::test]
async fn pods_that_cannot_start_wait_until_the_deadline() {
    for (plan, reason) in [
        (PodPlan::image_missing("Back-off pulling image \"busybox:1\""), "ImagePullBackOff"),
        (
            PodPlan::misconfigured("container has runAsNonRoot and image will run as root"),
            "CreateContainerConfigError",
        ),
        (PodPlan::unschedulable("0/1 nodes are available: 1 Insufficient memory."), "Unschedulable"),
    ] {
        let server = with_snapshot().await;
        server.plan_pod(move |_| Some(plan.clone()));
        let mut job = job("drill");
        job["spec"]["activeDeadlineSeconds"] = 1.into();
        create(&server, &job).await;
        let began = Instant::now();
        until("it waits", || {
            let pods = server.list("pods", "app");
            let status = pods.first().map(|pod| pod["status"].clone()).unwrap_or_default();
            let waiting = &status["containerStatuses"][0]["state"]["waiting"]["reason"];
            let condition = &status["conditions"][0]["reason"];
            status["phase"] == "Pending" && (waiting == reason || condition == reason)
        })
        .await;
        if reason == "Unschedulable" {
            assert_eq!(
                events(&server, "FailedScheduling"),
                ["0/1 nodes are available: 1 Insufficient memory."]
            );
        }
        until("failed", || has(&server, "drill", "Failed")).await;
        assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
        let conditions = conditions(&server, "drill");
        assert_eq!(conditions[0]["type"], "FailureTarget");
        assert_eq!(conditions[1]["reason"], "DeadlineExceeded");
        assert_eq!(conditions[1]["message"], "Job was active longer than specified deadline");
        until("its pod and its volume are gone", || {
            server.list("pods", "app").is_empty()
                && claims(&server).is_empty()
                && server.list("persistentvolumes", "").is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn a_job_has_failed_once_its_pods_have_ended() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::runs().stopping_after(Duration::from_millis(500))));
    let mut job = job("drill");
    job["spec"]["activeDeadlineSeconds"] = 1.into();
    create(&server, &job).await;
    until("it is going to fail", || has(&server, "drill", "FailureTarget")).await;
    let began = Instant::now();
    until("failed", || {
        let failed = has(&server, "drill", "Failed");
        assert!(!failed || server.list("pods", "app").iter().all(|pod| pod["status"]["phase"] == "Failed"));
        failed
    })
    .await;
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_pod_is_the_consumer_that_its_volume_waits_for() {
    let server = with_snapshot().await;
    server.put(objects::waiting_storage_class("late"));
    server.plan_pod(|pod| match pod["metadata"]["labels"]["job-name"].as_str() {
        Some("stuck") => Some(PodPlan::unschedulable("0/1 nodes are available: 1 Insufficient cpu.")),
        _ => Some(PodPlan::succeeds("read")),
    });
    let late = |name: &str| {
        let mut job = job(name);
        let volume = &mut job["spec"]["template"]["spec"]["volumes"][0];
        volume["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"] = "late".into();
        job
    };
    create(&server, &late("stuck")).await;
    until("its claim is there", || claims(&server).len() == 1).await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(claims(&server)[0]["status"]["phase"], "Pending");
    // The snapshot is in use, and stays until the claim is gone.
    server.delete(SNAPSHOTS, "app", "good");
    sleep(Duration::from_millis(30)).await;
    assert!(server.get(SNAPSHOTS, "app", "good").is_some());
    delete(&server, "stuck", "Foreground").await;
    until("all is gone", || nothing_is_left(&server) && server.get(SNAPSHOTS, "app", "good").is_none()).await;

    server.put(objects::ready_snapshot("app", "good", "data", TIME));
    create(&server, &late("drill")).await;
    until("complete", || has(&server, "drill", "Complete")).await;
}

#[tokio::test]
async fn a_volume_that_cannot_be_made_keeps_its_pod_waiting() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    let mut job = job("drill");
    let claim =
        &mut job["spec"]["template"]["spec"]["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"];
    claim["dataSource"]["name"] = "missing".into();
    create(&server, &job).await;
    until("it is said", || !events(&server, "ProvisioningFailed").is_empty()).await;
    until("the scheduler waits", || !events(&server, "FailedScheduling").is_empty()).await;
    let message = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes are \
                   available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(pod(&server)["status"]["conditions"][0]["message"], message);
    server.put(objects::ready_snapshot("app", "missing", "data", TIME));
    until("complete", || has(&server, "drill", "Complete")).await;
}

#[tokio::test]
async fn what_the_namespace_does_not_let_in_is_an_event_and_tried_again() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    server.put(objects::restrict("app", "restricted"));
    create(&server, &job("refused")).await;
    until("it is said", || !events(&server, "FailedCreate").is_empty()).await;
    let message = &events(&server, "FailedCreate")[0];
    let expected = "violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"check\" must \
                    set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"check\" must \
                    set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"check\" must \
                    set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"check\" must set \
                    securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    assert!(message.starts_with("Error creating: pods \"refused-"), "{message}");
    assert!(message.ends_with(&format!("is forbidden: {expected}")), "{message}");
    assert!(server.list("pods", "app").is_empty());
    server.put(objects::namespace("app"));
    until("complete", || has(&server, "refused", "Complete")).await;
    delete(&server, "refused", "Background").await;

    server.put(objects::restrict("app", "restricted"));
    let mut allowed = job("allowed");
    let spec = &mut allowed["spec"]["template"]["spec"];
    spec["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    spec["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let mut root = allowed.clone();
    create(&server, &allowed).await;
    until("complete", || has(&server, "allowed", "Complete")).await;
    // What needs more than that is not let in either.
    root["metadata"]["name"] = "root".into();
    let spec = &mut root["spec"]["template"]["spec"];
    spec["securityContext"]["runAsUser"] = 0.into();
    spec["containers"][0]["securityContext"]["capabilities"]["add"] = json!(["DAC_READ_SEARCH"]);
    create(&server, &root).await;
    until("it is said", || events(&server, "FailedCreate").len() == 2).await;
    let all = events(&server, "FailedCreate").concat();
    for part in [
        "non-default capabilities (container \"check\" must not include \"DAC_READ_SEARCH\" in",
        "runAsUser=0 (pod must not set runAsUser=0)",
    ] {
        assert!(all.contains(part), "{all}");
    }
}

#[tokio::test]
async fn quotas_hold_for_pods_and_for_the_storage_of_their_volumes() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    let quota = |hard: Value| {
        json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "app"},
            "spec": {"hard": hard},
        })
    };
    server.put(quota(json!({"pods": "0"})));
    create(&server, &job("drill")).await;
    until("it is said", || !events(&server, "FailedCreate").is_empty()).await;
    let said = &events(&server, "FailedCreate")[0];
    assert!(said.ends_with("exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"), "{said}");
    for (hard, why) in [
        (
            json!({"requests.storage": "1Gi"}),
            "requested: requests.storage=1Gi, used: requests.storage=1Gi, limited: requests.storage=1Gi",
        ),
        (
            json!({"persistentvolumeclaims": "1"}),
            "requested: persistentvolumeclaims=1, used: persistentvolumeclaims=1, limited: persistentvolumeclaims=1",
        ),
    ] {
        server.put(quota(hard));
        // The claim `data` uses it up.
        until("it is said", || events(&server, "FailedBinding").iter().any(|said| said.contains(why))).await;
    }
    let said = &events(&server, "FailedBinding")[0];
    assert!(said.starts_with("ephemeral volume data: create PVC drill-"), "{said}");
    server.remove("resourcequotas", "app", "q");
    until("complete", || has(&server, "drill", "Complete")).await;
}

#[tokio::test]
async fn a_claim_of_the_same_name_is_not_taken_for_the_volumes() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    let mut pod = objects::pod("app", "mine", "unused");
    pod["spec"]["volumes"] = job("any")["spec"]["template"]["spec"]["volumes"].clone();
    server.put(objects::bound_claim("app", "mine-data", &[]));
    let created = send(&server, "POST", "/api/v1/namespaces/app/pods", Some(&pod)).await;
    assert_eq!(created.status.as_u16(), 201, "{:?}", created.json());
    until("it is said", || !events(&server, "FailedBinding").is_empty()).await;
    let said = &events(&server, "FailedBinding")[0];
    assert_eq!(
        said,
        "ephemeral volume data: PVC app/mine-data was not created for pod app/mine (pod is not owner)"
    );
    server.delete("pods", "app", "mine");
    until("it goes", || server.list("pods", "app").is_empty()).await;
    assert!(server.get("persistentvolumeclaims", "app", "mine-data").is_some());
}

#[tokio::test]
async fn deletions_take_what_belongs_to_a_job_as_they_say() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::runs().stopping_after(Duration::from_millis(500))));
    let running = async || {
        create(&server, &job("drill")).await;
        until("it runs", || server.list("pods", "app").iter().any(|pod| pod["status"]["phase"] == "Running"))
            .await;
    };
    // Foreground: the Job is the last to go, and the containers have their time.
    running().await;
    let began = Instant::now();
    assert_eq!(delete(&server, "drill", "Foreground").await.as_u16(), 200);
    let going = server.get("jobs", "app", "drill").expect("it waits");
    assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    until("the pod is going", || {
        server.list("pods", "app").iter().any(|pod| pod["metadata"]["deletionGracePeriodSeconds"] == 30)
    })
    .await;
    until("the Job is gone", || server.get("jobs", "app", "drill").is_none()).await;
    assert!(nothing_is_left(&server));
    assert!(began.elapsed() >= Duration::from_millis(495), "{:?}", began.elapsed());

    // Background: the Job goes at once.
    running().await;
    delete(&server, "drill", "Background").await;
    assert!(server.get("jobs", "app", "drill").is_none());
    assert_eq!(server.list("pods", "app").len(), 1);
    until("all is gone", || nothing_is_left(&server)).await;

    // Orphan: the pod runs on, and so does one whose Job was deleted without a word, of which there is a warning.
    for how in ["Orphan", ""] {
        running().await;
        let options = if how.is_empty() { json!({}) } else { json!({"propagationPolicy": how}) };
        let answer = send(&server, "DELETE", &format!("{PATH}/drill"), Some(&options)).await;
        let warning = answer.headers.get("warning").map(|warning| warning.to_str().unwrap_or_default());
        assert_eq!(
            warning.is_some_and(|text| text.starts_with("299 - \"child pods are preserved by default")),
            how.is_empty()
        );
        until("the Job is gone", || server.get("jobs", "app", "drill").is_none()).await;
        sleep(Duration::from_millis(30)).await;
        let left = pod(&server);
        assert_eq!(left["metadata"].get("ownerReferences"), None);
        assert_eq!(left["metadata"].get("finalizers"), None);
        assert_eq!(left["status"]["phase"], "Running");
        // Deleted at once, if that is asked for.
        let path = format!("/api/v1/namespaces/app/pods/{}?gracePeriodSeconds=0", name(&left));
        assert_eq!(send(&server, "DELETE", &path, None).await.json()["kind"], "Pod");
        until("all is gone", || nothing_is_left(&server)).await;
    }
    let odd =
        send(&server, "DELETE", &format!("{PATH}/x"), Some(&json!({"propagationPolicy": "Later"}))).await;
    assert_eq!(odd.status.as_u16(), 422);
    assert_eq!(server.leaked_volumes(), []);
}

#[tokio::test]
async fn what_belongs_to_nobody_who_is_there_goes_unless_somebody_else_has_it() {
    let server = with_snapshot().await;
    let [one, other] = ["one", "other"].map(|name| server.put(objects::config_map("app", name, &[])));
    let path = "/api/v1/namespaces/app/configmaps";
    let both = objects::owned(objects::config_map("app", "both", &[]), &[&one, &other]);
    let alone = objects::owned(objects::config_map("app", "alone", &[]), &[&one]);
    for object in [&both, &alone] {
        assert_eq!(send(&server, "POST", path, Some(object)).await.status.as_u16(), 201);
    }
    server.delete("configmaps", "app", "one");
    until("it goes", || server.get("configmaps", "app", "alone").is_none()).await;
    let owners =
        || server.get("configmaps", "app", "both").expect("stays")["metadata"]["ownerReferences"].clone();
    until("one owner is left", || owners().as_array().is_some_and(|owners| owners.len() == 1)).await;
    assert_eq!(owners()[0]["name"], "other");
    // For an owner that is not there any more nothing is made: the drill was killed.
    let late = objects::owned(job("late"), &[&one]);
    assert_eq!(send(&server, "POST", PATH, Some(&late)).await.status.as_u16(), 201);
    until("it goes", || nothing_is_left(&server)).await;
}

#[tokio::test]
async fn a_claim_that_goes_while_its_volume_is_made_may_leave_it_behind() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    server.provision(|_| Some(Provision::after(Duration::from_secs(60))));
    create(&server, &job("drill")).await;
    until("the storage is at work", || !events(&server, "Provisioning").is_empty()).await;
    delete(&server, "drill", "Background").await;
    until("all is gone", || nothing_is_left(&server)).await;
    until("it is leaked", || server.leaked_volumes().len() == 1).await;
}

#[tokio::test]
async fn a_class_may_retain_the_volume() {
    let server = with_snapshot().await;
    let mut class = objects::storage_class("hostpath");
    class["reclaimPolicy"] = "Retain".into();
    server.put(class);
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    create(&server, &job("drill")).await;
    until("complete", || has(&server, "drill", "Complete")).await;
    delete(&server, "drill", "Background").await;
    until("it is released", || {
        claims(&server).is_empty() && server.list("persistentvolumes", "")[0]["status"]["phase"] == "Released"
    })
    .await;
}

#[tokio::test]
async fn a_finished_job_goes_when_its_time_to_live_is_over() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    let mut job = job("drill");
    job["spec"]["ttlSecondsAfterFinished"] = 1.into();
    create(&server, &job).await;
    until("complete", || has(&server, "drill", "Complete")).await;
    let done = Instant::now();
    until("all is gone", || nothing_is_left(&server)).await;
    assert!(done.elapsed() >= Duration::from_millis(900), "{:?}", done.elapsed());
}

#[tokio::test]
async fn failed_pods_are_replaced_while_the_limit_lasts_and_the_policy_may_end_that() {
    let server = with_snapshot().await;
    server.plan_pod(|pod| {
        let is = |name: &str| pod["metadata"]["labels"]["job-name"] == name;
        Some(if is("evicted") { PodPlan::evicted("low on memory") } else { PodPlan::fails(2, "no") })
    });
    let mut twice = job("twice");
    twice["spec"]["backoffLimit"] = 1.into();
    create(&server, &twice).await;
    until("failed", || has(&server, "twice", "Failed")).await;
    assert_eq!(server.get("jobs", "app", "twice").expect("a Job")["status"]["failed"], 2);
    delete(&server, "twice", "Background").await;
    until("all is gone", || nothing_is_left(&server)).await;

    let mut policy = twice.clone();
    policy["metadata"]["name"] = "policy".into();
    policy["spec"]["podFailurePolicy"] = json!({"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 3]}},
    ]});
    create(&server, &policy).await;
    until("failed", || has(&server, "policy", "Failed")).await;
    let failed = conditions(&server, "policy")[1].clone();
    assert_eq!(failed["reason"], "PodFailurePolicy");
    let pod = name(&pod(&server));
    let message =
        format!("Container check for pod app/{pod} failed with exit code 2 matching FailJob rule at index 1");
    assert_eq!(failed["message"], message);
    // What is ignored does not count, and is replaced.
    policy["metadata"]["name"] = "evicted".into();
    policy["spec"]["backoffLimit"] = 0.into();
    create(&server, &policy).await;
    let of_it = || {
        let pods = server.list("pods", "app").into_iter();
        pods.filter(|pod| pod["metadata"]["labels"]["job-name"] == "evicted").count()
    };
    until("it is replaced", || of_it() > 1).await;
    assert!(!has(&server, "evicted", "Failed"));
}

#[tokio::test]
async fn a_pod_that_somebody_deletes_counts_as_failed() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::runs()));
    create(&server, &job("drill")).await;
    until("it runs", || server.list("pods", "app").iter().any(|pod| pod["status"]["phase"] == "Running"))
        .await;
    assert_eq!(pod(&server)["metadata"]["finalizers"], json!([TRACKING]));
    let path = format!("/api/v1/namespaces/app/pods/{}", name(&pod(&server)));
    assert_eq!(
        send(&server, "DELETE", &path, None).await.json()["metadata"]["deletionGracePeriodSeconds"],
        30
    );
    until("failed", || has(&server, "drill", "Failed")).await;
    until("it goes with its volume", || server.list("pods", "app").is_empty() && claims(&server).is_empty())
        .await;
}

#[tokio::test]
async fn a_volume_must_be_used_in_its_mode() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    server.update("volumesnapshotcontents", "", "none", |_| {});
    let mut job = job("drill");
    let spec = &mut job["spec"]["template"]["spec"];
    spec["volumes"][0]["ephemeral"]["volumeClaimTemplate"]["spec"]["volumeMode"] = "Block".into();
    create(&server, &job).await;
    until("it is said", || !events(&server, "FailedMount").is_empty()).await;
    assert!(
        events(&server, "FailedMount")[0].ends_with("has volumeMode Block, but is specified in volumeMounts")
    );
    delete(&server, "drill", "Background").await;
    until("all is gone", || nothing_is_left(&server)).await;
    let container = &mut job["spec"]["template"]["spec"]["containers"][0];
    container["volumeDevices"] = json!([{"name": "data", "devicePath": "/data"}]);
    container.as_object_mut().map(|container| container.remove("volumeMounts"));
    create(&server, &job).await;
    until("complete", || has(&server, "drill", "Complete")).await;
}

#[tokio::test]
async fn jobs_of_a_wrong_shape_are_refused() {
    let server = with_snapshot().await;
    let template = "/spec/template/spec/volumes/0/ephemeral/volumeClaimTemplate";
    let volume = "spec.template.spec.volumes[0].ephemeral.volumeClaimTemplate";
    let long = "x".repeat(64);
    for (pointer, value, expected) in [
        (
            "/metadata/name",
            json!("Drill"),
            "metadata.name: Invalid value: \"Drill\": a lowercase RFC 1123 subdomain",
        ),
        ("/metadata/name", json!(long), "must be no more than 63 bytes"),
        ("/metadata/labels", json!({"a": "b c"}), "metadata.labels: Invalid value: \"b c\""),
        (
            "/spec/backoffLimit",
            json!(-1),
            "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("Always"),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            "/spec/template/spec/restartPolicy",
            json!("Once"),
            "spec.template.spec.restartPolicy: Unsupported value: \"Once\": supported values: \"OnFailure\", \"Never\"",
        ),
        ("/spec/template/spec/containers", json!([]), "spec.template.spec.containers: Required value"),
        ("/spec/template/spec/containers/0/image", json!(""), "containers[0].image: Required value"),
        ("/spec/template/spec/containers/0/name", json!("A"), "containers[0].name: Invalid value: \"A\""),
        (
            "/spec/template/spec/containers/0/env",
            json!([{"name": "A", "value": 1}]),
            "containers[0].env[0].value",
        ),
        (
            "/spec/template/spec/containers/0/volumeMounts/0/name",
            json!("other"),
            "containers[0].volumeMounts[0].name: Not found: \"other\"",
        ),
        ("/spec/template/spec/containers/0/volumeMounts/0/mountPath", json!(""), "mountPath: Required value"),
        ("/spec/template/spec/volumes/0/emptyDir", json!({}), "may not specify more than 1 volume type"),
        (template, json!(null), &format!("{volume}: Required value")),
        (&format!("{template}/metadata/name"), json!("x"), &format!("{volume}.metadata.name: Forbidden")),
        (
            &format!("{template}/spec/accessModes"),
            json!([]),
            &format!("{volume}.spec.accessModes: Required value: at least 1 access mode is required"),
        ),
        (
            &format!("{template}/spec/accessModes"),
            json!(["Once"]),
            &format!("{volume}.spec.accessModes: Unsupported value: \"Once\""),
        ),
        (
            &format!("{template}/spec/resources"),
            json!({}),
            &format!("{volume}.spec.resources[storage]: Required value"),
        ),
    ] {
        let mut job = job("drill");
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        job.pointer_mut(parent).expect("is there")[field] = value;
        let answer = send(&server, "POST", PATH, Some(&job)).await;
        assert_eq!(answer.status.as_u16(), 422, "{pointer}: {:?}", answer.json());
        let message = answer.json()["message"].as_str().expect("a message").to_owned();
        assert!(message.starts_with("Job.batch ") && message.contains(expected), "{message}");
    }
    create(&server, &job("drill")).await;
    let stored = send(&server, "GET", &format!("{PATH}/drill"), None).await.json();
    let mut changed = stored.clone();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "other".into();
    let refused = send(&server, "PUT", &format!("{PATH}/drill"), Some(&changed)).await;
    assert_eq!(refused.status.as_u16(), 422);
    assert!(refused.json()["message"].as_str().is_some_and(|text| text.contains("field is immutable")));
}

#[tokio::test]
async fn jobs_and_logs_are_permitted_as_other_things_are_and_a_dry_run_makes_nothing() {
    let server = with_snapshot().await;
    server.plan_pod(|_| Some(PodPlan::succeeds("")));
    let token = server.token("app", "drill");
    let refused = send_as(&server, &token, "POST", PATH, Some(&job("drill"))).await;
    assert_eq!(refused.status.as_u16(), 403);
    let user =
        "User \"system:serviceaccount:app:drill\" cannot create resource \"jobs\" in API group \"batch\"";
    assert!(
        refused.json()["message"].as_str().is_some_and(|text| text.contains(user)),
        "{:?}",
        refused.json()
    );
    server.put(objects::role(
        "app",
        "drill",
        &[("batch", "jobs", &["create", "watch"]), ("", "pods", &["list"])],
    ));
    server.put(objects::role_binding("app", "drill", "drill"));
    let dry = send_as(&server, &token, "POST", &format!("{PATH}?dryRun=All"), Some(&job("drill"))).await;
    assert_eq!(dry.status.as_u16(), 201);
    assert_eq!(dry.json()["spec"]["template"]["metadata"]["labels"]["job-name"], "drill");
    sleep(Duration::from_millis(30)).await;
    assert!(nothing_is_left(&server));
    assert_eq!(send_as(&server, &token, "POST", PATH, Some(&job("drill"))).await.status.as_u16(), 201);
    until("complete", || has(&server, "drill", "Complete")).await;
    let of_job = "/api/v1/namespaces/app/pods?labelSelector=batch.kubernetes.io%2Fjob-name%3Ddrill";
    let pods = send_as(&server, &token, "GET", of_job, None).await.json();
    assert_eq!(pods["items"][0]["status"]["phase"], "Succeeded");
    let log = format!("/api/v1/namespaces/app/pods/{}/log", name(&pods["items"][0]));
    assert_eq!(send_as(&server, &token, "GET", &log, None).await.status.as_u16(), 403);
    server.put(objects::role("app", "drill", &[("", "pods/log", &["get"])]));
    assert_eq!(send_as(&server, &token, "GET", &log, None).await.status.as_u16(), 200);
    assert_eq!(send_as(&server, &token, "DELETE", &format!("{PATH}/drill"), None).await.status.as_u16(), 403);
}

#[tokio::test]
async fn a_container_says_how_it_ended_in_a_message_or_at_the_end_of_its_log() {
    let server = with_snapshot().await;
    let log: String = (1..=100).map(|line| format!("line {line}\n")).collect();
    let said = log.clone();
    server.plan_pod(move |pod| {
        let is = |name: &str| pod["metadata"]["labels"]["job-name"] == name;
        let plan = match () {
            () if is("says") => PodPlan::fails(1, "what it says"),
            () if is("succeeds") => PodPlan::succeeds(""),
            () if is("long") => PodPlan::fails(1, &"x".repeat(10_000)),
            () => PodPlan::fails(1, ""),
        };
        Some(plan.logging(&said))
    });
    let last: String = (21..=100).map(|line| format!("line {line}\n")).collect();
    for (name, policy, message) in [
        ("says", "FallbackToLogsOnError", Some("what it says".to_owned())),
        ("silent", "FallbackToLogsOnError", Some(last)),
        ("file", "File", None),
        ("succeeds", "FallbackToLogsOnError", None),
        ("long", "File", Some("x".repeat(4096))),
    ] {
        let mut job = job(name);
        job["spec"]["template"]["spec"]["containers"][0]["terminationMessagePolicy"] = policy.into();
        create(&server, &job).await;
        until("it has ended", || has(&server, name, "Failed") || has(&server, name, "Complete")).await;
        let pods = server.list("pods", "app");
        let pod = pods.iter().find(|pod| pod["metadata"]["labels"]["job-name"] == name).expect("a pod");
        let terminated = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(terminated["message"].as_str(), message.as_deref(), "{name}");
    }
}

#[tokio::test]
async fn a_log_is_there_as_soon_as_the_container_runs() {
    let server = with_snapshot().await;
    server.plan_pod(|pod| {
        let is = |name: &str| pod["metadata"]["labels"]["job-name"] == name;
        Some(match () {
            () if is("unscheduled") => PodPlan::unschedulable("no node"),
            () if is("creating") => PodPlan::runs().started_after(Duration::from_secs(60)),
            () => PodPlan::runs().scheduled_after(Duration::from_millis(50)).logging("begun\n"),
        })
    });
    let log = async |name: &str| {
        let pods = server.list("pods", "app");
        let of_job = |pod: &&Value| pod["metadata"]["labels"]["job-name"] == name;
        let pod = pods.iter().find(of_job).map(crate::jobs::name).unwrap_or_default();
        send(&server, "GET", &format!("/api/v1/namespaces/app/pods/{pod}/log"), None).await
    };
    for name in ["unscheduled", "creating", "running"] {
        create(&server, &job(name)).await;
    }
    until("one runs", || server.list("pods", "app").iter().any(|pod| pod["status"]["phase"] == "Running"))
        .await;
    assert_eq!(log("unscheduled").await.body, "");
    let creating = log("creating").await;
    assert_eq!(creating.status.as_u16(), 400);
    let message = creating.json()["message"].as_str().expect("a message").to_owned();
    assert!(message.starts_with("container \"check\" in pod \"creating-"), "{message}");
    assert!(message.ends_with("is waiting to start: ContainerCreating"), "{message}");
    let began = Instant::now();
    while log("running").await.body != "begun\n" {
        assert!(began.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(5)).await;
    }
}
