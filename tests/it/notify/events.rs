//! Events on the claims: on which, in how many requests, and what `kubectl describe pvc` makes of them.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fake_apiserver::{Fault, Options, Plan, Request, When, objects};
use serde_json::{Value, json};
use volume_snapshotter::cluster::PERMISSIONS;

use crate::test_cluster::{TestCluster, all_permissions, embedded, everywhere, rules};

const DATA: (&str, &str) = ("SNAPSHOT_PVC_NAMES", "data");

/// One short window.
const SHORT: [(&str, &str); 2] = [("SNAPSHOT_READY_ATTEMPTS", "1"), ("SNAPSHOT_READY_INTERVAL", "200ms")];

fn put_claims(cluster: &TestCluster, count: usize) {
    for number in 0..count {
        let name = format!("data-{number}");
        cluster.fake().put(objects::bound_claim(&cluster.namespace, &name, &[("app", "web")]));
    }
}

fn is_event(request: &Request) -> bool {
    request.verb == "create" && request.resource == "events"
}

fn requests_for_events(cluster: &TestCluster) -> usize {
    cluster.fake().requests().iter().filter(|request| is_event(request)).count()
}

/// The Events of this program on a claim, as `kubectl describe` asks for them.
async fn events(cluster: &TestCluster, claim: &str) -> Vec<Value> {
    let uid =
        cluster.try_claim(claim).await.map(|claim| claim["metadata"]["uid"].clone()).unwrap_or_default();
    let selector = format!(
        "involvedObject.name%3D{claim},involvedObject.namespace%3D{},involvedObject.kind%3DPersistentVolumeClaim,\
         involvedObject.uid%3D{}",
        cluster.namespace,
        uid.as_str().unwrap_or_default(),
    );
    let path = format!("/api/v1/namespaces/{}/events?fieldSelector={selector}", cluster.namespace);
    let mut list = cluster.read(&path).await;
    let all: Vec<Value> = serde_json::from_value(list["items"].take()).expect("items");
    all.into_iter().filter(|event| event["reportingComponent"] == "volume-snapshotter").collect()
}

#[tokio::test]
async fn a_failed_snapshot_is_a_warning_on_its_claim() {
    everywhere(async |cluster| {
        cluster.pending_claim("data").await;
        let ran = cluster.run(&[DATA, ("SNAPSHOT_RUN_ID", "hourly-1")]).await;
        ran.assert_exit(1);
        let events = events(cluster, "data").await;
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(event["type"], "Warning");
        assert_eq!(event["reason"], "SnapshotFailed");
        assert_eq!(event["reportingInstance"], "hourly-1");
        let message = event["message"].as_str().expect("a message");
        assert!(message.contains("is Pending: it has no volume yet"), "{message}");
        assert!(ran.message.contains(message), "{message}: {}", ran.message);
        // And its place in the other form.
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", cluster.namespace);
        let name = event["metadata"]["name"].as_str().expect("a name");
        let other = cluster.read(&format!("{path}/{name}")).await;
        assert_eq!((&other["note"], &other["action"]), (&event["message"], &json!("Snapshot")));
    })
    .await;
}

#[tokio::test]
async fn failed_pruning_is_a_warning_and_a_success_is_one_only_if_it_is_asked_for() {
    everywhere(async |cluster| {
        for name in ["data", "logs"] {
            cluster.claim(name).await;
        }
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "dayly=7"})).await;
        let both = ("SNAPSHOT_PVC_NAMES", "data,logs");
        cluster.run(&[both]).await.assert_exit(3);
        let of_data = events(cluster, "data").await;
        let [event] = of_data.as_slice() else { panic!("{of_data:?}") };
        assert_eq!(
            (event["reason"].as_str(), event["type"].as_str()),
            (Some("PruningFailed"), Some("Warning"))
        );
        assert!(event["message"].as_str().is_some_and(|said| said.contains("is ready, but")), "{event}");
        assert_eq!(events(cluster, "logs").await, [json!(null); 0]);

        cluster.run(&[both, ("SNAPSHOT_EVENTS", "off")]).await.assert_exit(3);
        assert_eq!(events(cluster, "data").await.len(), 1);

        cluster.run(&[both, ("SNAPSHOT_EVENTS", "all")]).await.assert_exit(3);
        assert_eq!(events(cluster, "data").await.len(), 2);
        let of_logs = events(cluster, "logs").await;
        let [event] = of_logs.as_slice() else { panic!("{of_logs:?}") };
        assert_eq!(
            (event["reason"].as_str(), event["type"].as_str()),
            (Some("SnapshotReady"), Some("Normal"))
        );
    })
    .await;
}

#[tokio::test]
async fn where_all_goes_well_not_one_request_is_made_for_events() {
    embedded(Options::default(), async |cluster| {
        cluster.claim("data").await;
        let kubeconfig = cluster.kubeconfig(&all_permissions()).await;
        cluster.fake().clear_requests();
        cluster.start_as(&kubeconfig, &[DATA]).finish().await.assert_exit(0);
        let requests = cluster.fake().requests();
        assert_eq!(requests.len(), 4, "{requests:?}");
        // Of a dry run nothing is said, whatever came of it.
        let dry =
            [("SNAPSHOT_PVC_NAMES", "missing"), ("SNAPSHOT_DRY_RUN", "true"), ("SNAPSHOT_EVENTS", "all")];
        cluster.start_as(&kubeconfig, &dry).finish().await.assert_exit(2);
        assert_eq!(requests_for_events(cluster), 0);
    })
    .await;
}

#[tokio::test]
async fn without_the_right_one_request_is_made_and_nothing_fails() {
    embedded(Options::default(), async |cluster| {
        put_claims(cluster, 20);
        cluster.fake().plan(|_| Some(Plan::never()));
        let settings = [&SHORT[..], &[("SNAPSHOT_PVC_SELECTOR", "app=web"), ("RUST_LOG", "debug")]].concat();
        let ran = cluster.run_with_permissions(&rules(PERMISSIONS), &settings).await;
        ran.assert_exit(1);
        assert_eq!(requests_for_events(cluster), 1);
        let said = ran.lines("no Events are created");
        let [line] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(line["level"], "DEBUG");
        let message = line["message"].as_str().expect("a message");
        assert!(
            message.contains(r#"apiGroups: ["events.k8s.io"], resources: ["events"], verbs: ["create"]"#),
            "{message}"
        );
        let warned = |line: &&Value| line["level"] == "WARN" && line["message"].to_string().contains("Event");
        assert_eq!(ran.log.iter().filter(warned).count(), 0);
    })
    .await;
}

#[tokio::test]
async fn many_failures_are_told_by_few_events_side_by_side() {
    embedded(Options { latency: Duration::from_millis(5), ..Options::default() }, async |cluster| {
        put_claims(cluster, 300);
        cluster.fake().plan(|_| Some(Plan::never()));
        let settings =
            [&SHORT[..], &[("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_CONCURRENCY", "8")]].concat();
        let ran = cluster.run(&settings).await;
        ran.assert_exit(1);
        assert_eq!(requests_for_events(cluster), 100);
        assert_eq!(cluster.fake().list("events", &cluster.namespace).len(), 100);
        assert_eq!(ran.lines("200 more were not created, for a run creates 100 at most").len(), 1);
        let most = cluster.fake().most_in_flight();
        assert!((2..=8).contains(&most), "{most} requests in flight");
    })
    .await;
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_holds_up_the_end_for_five_seconds_at_most() {
    embedded(Options::default(), async |cluster| {
        cluster.claim("data").await;
        cluster.fake().plan(|_| Some(Plan::never()));
        cluster.fake().fault(|request| is_event(request).then_some(Fault::Hang(When::Before)));
        let ran = cluster.run(&[&SHORT[..], &[DATA]].concat()).await;
        ran.assert_exit(1);
        assert!(ran.took < Duration::from_secs(7), "{:?}", ran.took);
        assert_eq!(ran.lines("Events on claims: 0 of 1 were created in time").len(), 1, "{:?}", ran.log);
        assert_eq!(requests_for_events(cluster), 1);
    })
    .await;
}

#[tokio::test]
async fn an_event_that_is_refused_is_one_warning() {
    embedded(Options::default(), async |cluster| {
        put_claims(cluster, 5);
        cluster.fake().plan(|_| Some(Plan::never()));
        cluster.fake().fault(|request| is_event(request).then_some(Fault::Error(500, When::Before)));
        let ran = cluster.run(&[&SHORT[..], &[("SNAPSHOT_PVC_SELECTOR", "app=web")]].concat()).await;
        ran.assert_exit(1);
        assert_eq!(ran.lines("Events on claims: 0 of 5 were created: cannot create an Event").len(), 1);
        assert_eq!(requests_for_events(cluster), 1);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_is_gone_within_a_second_whatever_events_there_are_to_create() {
    embedded(Options::default(), async |cluster| {
        cluster.claim("data").await;
        cluster.fake().plan(|_| Some(Plan::never()));
        cluster.fake().fault(|request| is_event(request).then_some(Fault::Hang(When::Before)));
        // One claim has failed by then, the other is being waited for.
        let settings = [("SNAPSHOT_PVC_NAMES", "missing,data")];
        let running = cluster.start(&all_permissions(), &settings).await;
        cluster.until("it waits", async || cluster.names().await.len() == 1).await;
        let began = Instant::now();
        running.signal("TERM");
        running.finish().await.assert_exit(143);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        // Of the other one the next attempt will tell.
        assert_eq!(requests_for_events(cluster), 1);
    })
    .await;
}

// --- kubectl ---------------------------------------------------------------------------------------

#[tokio::test]
async fn kubectl_describe_shows_the_event_of_a_failed_snapshot() {
    let is_there = Command::new("kubectl").arg("version").arg("--client").stdout(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: kubectl is not installed, so nobody describes a claim");
        return;
    }
    let with_tls = Options { tls: true, ..Options::default() };
    embedded(with_tls, async |cluster| {
        cluster.claim("data").await;
        cluster
            .fake()
            .plan(|_| Some(Plan::fails("rpc error: code = Unavailable desc = storage backend is down")));
        let ran = cluster.run(&[&SHORT[..], &[DATA, ("SNAPSHOT_RUN_ID", "hourly-1")]].concat()).await;
        ran.assert_exit(1);
        let kubeconfig = cluster.fake().kubeconfig(cluster.fake().admin_token(), &cluster.namespace);
        let kubeconfig = cluster.file("kubeconfig", &kubeconfig);
        let mut kubectl = tokio::process::Command::new("kubectl");
        kubectl.args(["describe", "pvc", "data", "--kubeconfig"]).arg(kubeconfig);
        let described = kubectl.output().await.expect("kubectl starts");
        let described = String::from_utf8_lossy(&described.stdout).into_owned();
        let line = described.lines().find(|line| line.contains("SnapshotFailed"));
        let line = line.unwrap_or_else(|| panic!("{described}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            (words[0], words[1], words[3]),
            ("Warning", "SnapshotFailed", "volume-snapshotter"),
            "{line}"
        );
        assert!(line.contains("storage backend is down"), "{line}");
        // An age that can be told.
        assert!(words[2].ends_with('s'), "{line}");
    })
    .await;
}
