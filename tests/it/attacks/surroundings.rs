//! Where a run takes place: what it may do, whether it is a pod, what is between it and the API server, what
//! it writes to, and what it must not say there.

use std::{
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use fake_apiserver::{Fault, Lasts, Options, Pace, Request, When, objects};
use serde_json::{Value, json};
use volume_snapshotter::cluster::{NAMESPACE_PERMISSIONS, PERMISSIONS};

use super::{
    CLAIMS, NEEDS_OTHER_HAND, NEEDS_PAST, NEEDS_QUEUE, SNAPSHOTS, asked, asks, is_embedded, millis, slow,
};
use crate::{
    faults::{put_claim, put_ready},
    test_cluster::{
        Ran, Running, TestCluster, all_permissions, embedded, embedded_only, everywhere,
        permissions_of_the_bash_script, rules,
    },
};

const DATA: [(&str, &str); 1] = [("SNAPSHOT_PVC_NAMES", "data")];

// --- Rights ----------------------------------------------------------------------------------------

#[tokio::test]
async fn an_annotation_that_may_not_be_read_is_not_overruled() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "all"})).await;
        cluster.older("old", "data").await;
        let ran = cluster.run_with_permissions(&permissions_of_the_bash_script(), &DATA).await;
        ran.assert_exit(3);
        let lines = "apiGroups: [\"\"], resources: [\"persistentvolumeclaims\"], verbs: [\"get\", \"list\"]";
        assert!(ran.message.contains(lines), "{}", ran.message);
        assert_eq!(cluster.names().await.len(), 2);
        if is_embedded(cluster) {
            assert_eq!(asked(cluster, "delete", SNAPSHOTS), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn with_the_right_to_read_one_claim_but_not_all_nothing_is_deleted() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let some: Vec<_> =
            PERMISSIONS.iter().filter(|one| (one.verb, one.resource) != ("list", CLAIMS)).copied().collect();
        let ran = cluster.run_with_permissions(&rules(&some), &DATA).await;
        ran.assert_exit(3);
        assert!(ran.message.contains("verbs: [\"list\"]"), "{}", ran.message);
        assert!(cluster.names().await.contains(&"old".to_owned()));
    })
    .await;
}

/// A server that has just started refuses what it allows. Whatever it refuses, the claim's annotation holds.
#[tokio::test]
async fn a_server_that_does_not_know_its_roles_yet_is_asked_again() {
    let play = async |verb: &'static str, resource: &'static str, code: u16| {
        embedded(Options::default(), async |cluster| {
            put_claim(cluster, "data");
            put_claim(cluster, "kept");
            cluster.fake().annotate(
                CLAIMS,
                &cluster.namespace,
                "kept",
                "volume-snapshotter/retention",
                Some("all"),
            );
            put_ready(cluster, "old", "data", 1);
            put_ready(cluster, "old-kept", "kept", 1);
            let kubeconfig = cluster.kubeconfig(&all_permissions()).await;
            cluster.fake().cold(asks(verb, resource), code, Lasts::For(millis(3000)));
            let ran = cluster.start_as(&kubeconfig, &[("SNAPSHOT_PVC_NAMES", "data,kept")]).finish().await;
            ran.assert_exit(0);
            let names = cluster.names().await;
            assert!(names.len() == 3 && names[0] == "old-kept", "{verb} {resource} {code}: {names:?}");
        })
        .await;
    };
    tokio::join!(
        play("get", CLAIMS, 403),
        play("get", CLAIMS, 401),
        play("list", CLAIMS, 403),
        play("list", SNAPSHOTS, 403),
        play("list", SNAPSHOTS, 401),
        play("watch", SNAPSHOTS, 403),
        play("create", SNAPSHOTS, 403),
        play("create", SNAPSHOTS, 401),
        play("delete", SNAPSHOTS, 403),
    );
}

#[tokio::test]
async fn after_a_restart_of_the_server_in_the_middle_of_a_run_nothing_is_overruled() {
    embedded_only(slow(millis(600)), NEEDS_OTHER_HAND, async |cluster| {
        for number in 0..10 {
            put_claim(cluster, &format!("data-{number}"));
            put_ready(cluster, &format!("old-{number}"), &format!("data-{number}"), 1);
        }
        cluster.fake().annotate(
            CLAIMS,
            &cluster.namespace,
            "data-7",
            "volume-snapshotter/retention",
            Some("all"),
        );
        let is_ours = |request: &Request| request.user.contains("serviceaccount");
        cluster.fake().cold_after_restart(is_ours, 403, Lasts::Requests(15));
        let restart = Fault::Restart {
            when: When::After,
            down_for: millis(200),
            history: fake_apiserver::History::Lost,
        };
        cluster.fake().fault_nth(asks("create", SNAPSHOTS), 5, restart);
        let ran = cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "app=web")]).await;
        ran.assert_exit(0);
        let names = cluster.names().await;
        assert_eq!((names.len(), names[0].as_str()), (11, "old-7"), "{names:?}");
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_not_known_yet_is_left_to_the_jobs_next_attempt() {
    embedded_only(Options::default(), "tokens of a real cluster last an hour", async |cluster| {
        put_claim(cluster, "data");
        let token = cluster.token(&all_permissions()).await;
        cluster.fake().expire_token(&token);
        let kubeconfig = cluster.file("kubeconfig", &cluster.kubeconfig_for(token));
        let ran = cluster.start_as(&kubeconfig, &DATA).finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("Unauthorized"), "{}", ran.message);
        assert!(ran.took >= millis(10_000), "it is asked again for ten seconds: {:?}", ran.took);
    })
    .await;
}

// --- Which claims ----------------------------------------------------------------------------------

#[tokio::test]
async fn a_claim_without_a_volume_fails_a_run_only_if_it_was_named() {
    everywhere(async |cluster| {
        cluster.labelled_claim("data", json!({"app": "web"})).await;
        cluster.older("old", "data").await;
        cluster.pending_claim("never").await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "!no-such-label")]).await;
        ran.assert_exit(0);
        assert!(ran.message.contains("1 of 1 claim has a new ready snapshot; 1 claim was skipped"));
        assert_eq!(ran.lines("1 claim is skipped")[0]["level"], "WARN");
        assert_eq!(cluster.names().await.len(), 1);

        let named = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data,never")]).await;
        named.assert_exit(1);
        assert!(named.message.contains("never: claim never in namespace"), "{}", named.message);
    })
    .await;
}

#[tokio::test]
async fn where_no_chosen_claim_has_a_volume_yet_nothing_is_lost_and_nothing_fails() {
    everywhere(async |cluster| {
        cluster.pending_claim("never").await;
        let ran = cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "!no-such-label")]).await;
        ran.assert_exit(0);
        assert!(ran.message.starts_with("no snapshot was created; 1 claim was skipped"), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_being_deleted_fails_a_run_only_if_it_was_named() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old-going", "going", 1);
        let going = objects::bound_claim(&cluster.namespace, "going", &[("app", "web")]);
        cluster.fake().put(objects::terminating(going, "2026-11-20T08:00:00Z"));
        let ran = cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "app=web")]).await;
        ran.assert_exit(0);
        assert!(ran.message.contains("; 1 claim was skipped"), "{}", ran.message);
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "going")]).await.assert_exit(2);
        assert!(cluster.names().await.contains(&"old-going".to_owned()));
    })
    .await;
}

/// Cluster-wide, and the snapshot controller takes them as they come.
#[tokio::test]
async fn one_large_namespace_does_not_starve_the_others() {
    embedded_only(Options::default(), NEEDS_QUEUE, async |cluster| {
        let mark = json!({"snapshots": "yes"});
        let large = cluster.another_namespace("a-large", mark.clone()).await;
        let small = cluster.another_namespace("b-small", mark).await;
        let unchosen = cluster.another_namespace("c-unchosen", json!({})).await;
        for number in 0..250 {
            let name = format!("data-{number}");
            cluster.fake().put(objects::bound_claim(&large.namespace, &name, &[("app", "web")]));
        }
        cluster.fake().put(objects::bound_claim(&small.namespace, "data", &[("app", "web")]));
        cluster.fake().put(objects::bound_claim(&unchosen.namespace, "data", &[("app", "web")]));
        cluster.grant_everywhere(&rules(&[PERMISSIONS, NAMESPACE_PERMISSIONS].concat())).await;
        cluster.fake().controller_pace(Pace::PerSecond(50));
        let settings =
            [("SNAPSHOT_NAMESPACE_SELECTOR", "snapshots=yes"), ("SNAPSHOT_PVC_SELECTOR", "app=web")];
        let running = cluster.start(&json!([]), &settings).await;
        cluster.fake().clear_requests();
        running.finish().await.assert_exit(0);
        let requests = cluster.fake().requests();
        let made = requests.iter().filter(|request| asks("create", SNAPSHOTS)(request));
        let turn = made.into_iter().position(|request| request.namespace == small.namespace);
        assert!(turn.is_some_and(|turn| turn < 8), "its turn is {turn:?}");
        let lists = requests.iter().filter(|request| asks("list", CLAIMS)(request));
        for list in lists {
            assert!([&large.namespace, &small.namespace].contains(&&list.namespace), "{}", list.uri);
        }
    })
    .await;
}

#[tokio::test]
async fn a_namespace_whose_claims_cannot_be_listed_holds_up_no_other() {
    for (choice, names) in [("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_PVC_NAMES", "a,b,c,d,e")] {
        embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
            let mark = json!({"snapshots": "yes"});
            let shop = cluster.another_namespace("shop", mark.clone()).await;
            let blog = cluster.another_namespace("blog", mark).await;
            for namespace in [&shop, &blog] {
                for name in ["a", "b", "c", "d", "e"] {
                    cluster.fake().put(objects::bound_claim(&namespace.namespace, name, &[("app", "web")]));
                }
            }
            cluster.grant_everywhere(&rules(&[PERMISSIONS, NAMESPACE_PERMISSIONS].concat())).await;
            let broken = blog.namespace.clone();
            cluster.fake().fault(move |request| {
                let lists = asks("list", CLAIMS)(request) && request.namespace == broken;
                lists.then_some(Fault::Error(400, When::Before))
            });
            let settings = [("SNAPSHOT_NAMESPACE_SELECTOR", "snapshots=yes"), (choice, names)];
            let ran = cluster.run_with_permissions(&json!([]), &settings).await;
            ran.assert_exit(2);
            assert!(ran.message.starts_with("5 of "), "{}", ran.message);
            assert!(ran.message.contains("cannot list the claims"), "{}", ran.message);
            assert!(!ran.message.contains("there is no claim"), "{}", ran.message);
            assert_eq!((shop.names().await.len(), blog.names().await.len()), (5, 0));
        })
        .await;
    }
}

// --- Not a pod -------------------------------------------------------------------------------------

#[tokio::test]
async fn outside_a_pod_nothing_is_deleted_unless_somebody_said_what_is_to_be_kept() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for name in ["old-1", "old-2"] {
            cluster.older(name, "data").await;
        }
        // Empty is unset.
        let bare = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "")];
        let ran = cluster.run(&bare).await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("older snapshots stay: this is not a pod").len(), 1, "{:?}", ran.log);
        assert_eq!(cluster.names().await.len(), 3);
        if is_embedded(cluster) {
            assert_eq!(asked(cluster, "delete", SNAPSHOTS), 0);
        }
        // What is annotated was said by somebody.
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "last=2"})).await;
        cluster.run(&bare).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 2);
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": null})).await;
        let given = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "last=1")];
        cluster.run(&given).await.assert_exit(0);
        assert_eq!(cluster.names().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn outside_a_pod_a_full_quota_takes_nothing_either() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old-1", "data", 2);
        put_ready(cluster, "old-2", "data", 1);
        cluster.fake().quota(&cluster.namespace, 2);
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "")]).await;
        ran.assert_exit(1);
        assert_eq!(cluster.names().await, ["old-1", "old-2"]);
    })
    .await;
}

// --- Proxies ---------------------------------------------------------------------------------------

/// A proxy that hangs up on everybody, and how often somebody came.
fn proxy() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let came = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&came);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            if let Ok(mut connection) = connection {
                let _ = connection.read(&mut [0; 1024]);
                let _ = connection.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
            }
        }
    });
    (address, came)
}

#[tokio::test]
async fn a_proxy_is_used_but_for_the_hosts_that_it_is_not_for() {
    embedded_only(Options { tls: true, ..Options::default() }, "needs a proxy", async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        let (address, came) = proxy();
        let url = format!("http://{address}");
        let kubeconfig = cluster.kubeconfig(&all_permissions()).await;
        for name in ["HTTPS_PROXY", "https_proxy"] {
            for no_proxy in ["127.0.0.1,localhost", "127.0.0.0/8,localhost", "*"] {
                let settings = [DATA[0], (name, &url), ("NO_PROXY", no_proxy)];
                cluster.start_as(&kubeconfig, &settings).finish().await.assert_exit(0);
            }
        }
        assert_eq!(came.load(Ordering::SeqCst), 0);
        assert_eq!(cluster.names().await.len(), 1);

        let settings = [DATA[0], ("HTTPS_PROXY", &url), ("NO_PROXY", "example.com")];
        let running = cluster.start_as(&kubeconfig, &settings);
        cluster.until("it goes through the proxy", async || came.load(Ordering::SeqCst) > 0).await;
        running.signal("TERM");
        running.finish().await.assert_exit(143);
    })
    .await;
}

// --- Where it writes -------------------------------------------------------------------------------

#[tokio::test]
async fn a_snapshot_that_has_been_terminating_for_long_is_said() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        put_claim(cluster, "data");
        for (name, minutes) in [("stuck-1", 61), ("stuck-2", 180), ("fresh", 5)] {
            let snapshot = put_ready(cluster, name, "data", 24);
            let since =
                k8s_openapi::jiff::Timestamp::now() - k8s_openapi::jiff::SignedDuration::from_mins(minutes);
            let since = since.round(k8s_openapi::jiff::Unit::Second).expect("a time");
            cluster.fake().put(objects::terminating(snapshot, since));
        }
        let ran = cluster.run(&DATA).await;
        ran.assert_exit(0);
        let said = ran.lines("2 snapshots have been terminating for more than an hour");
        assert_eq!((said.len(), &said[0]["level"]), (1, &json!("WARN")), "{:?}", ran.log);
        assert_eq!(asked(cluster, "delete", SNAPSHOTS), 0, "they are deleted already");
    })
    .await;
}

#[tokio::test]
async fn a_termination_log_that_nobody_reads_does_not_hold_up_the_exit() {
    embedded_only(Options::default(), "has nothing to do with the cluster", async |cluster| {
        put_claim(cluster, "data");
        let fifo = cluster.directory("fifo").join("termination-log");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
        assert!(made.success());
        let settings = [DATA[0], ("SNAPSHOT_TERMINATION_LOG", fifo.to_str().expect("a path"))];
        let mut running = cluster.start(&all_permissions(), &settings).await;
        assert_eq!(running.ends_unheard(millis(5000)).await, Some(0), "it still runs");
    })
    .await;
}

/// More lines than a pipe holds, and nobody takes them.
async fn with_a_deaf_reader(cluster: &TestCluster, ready_after: u64) -> Running {
    for number in 0..600 {
        let name = format!("data-{number}");
        cluster.fake().put(objects::bound_claim(&cluster.namespace, &name, &[("app", "web")]));
    }
    cluster.fake().plan(move |_| Some(fake_apiserver::Plan::ready_after(millis(ready_after))));
    let settings = [("SNAPSHOT_PVC_SELECTOR", "app=web"), ("RUST_LOG", "debug")];
    cluster.start(&all_permissions(), &settings).await
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_neither_the_run_nor_its_exit() {
    embedded_only(Options::default(), "has nothing to do with the cluster", async |cluster| {
        let mut running = with_a_deaf_reader(cluster, 20).await;
        assert_eq!(running.ends_unheard(millis(30_000)).await, Some(0), "it still runs");
        assert_eq!(cluster.names().await.len(), 600);
    })
    .await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_does_not_keep_a_run_from_being_told_to_stop() {
    embedded_only(Options::default(), "has nothing to do with the cluster", async |cluster| {
        let mut running = with_a_deaf_reader(cluster, 60_000).await;
        cluster.until("some are made", async || asked(cluster, "create", SNAPSHOTS) > 0).await;
        tokio::time::sleep(millis(3000)).await;
        running.signal("TERM");
        assert_eq!(running.ends_unheard(millis(2000)).await, Some(143), "it still runs");
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_while_it_deletes_says_what_is_perhaps_deleted() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        put_claim(cluster, "data");
        for hours in 1..=3 {
            put_ready(cluster, &format!("old-{hours}"), "data", hours);
        }
        cluster
            .fake()
            .fault(move |request| asks("delete", SNAPSHOTS)(request).then_some(Fault::Hang(When::After)));
        let running = cluster.start(&all_permissions(), &DATA).await;
        cluster.until("it deletes", async || asked(cluster, "delete", SNAPSHOTS) == 3).await;
        running.signal("TERM");
        let ran = running.finish().await;
        ran.assert_exit(143);
        assert!(ran.message.contains("0 deleted, 3 more may have been deleted"), "{}", ran.message);
    })
    .await;
}

// --- Secrets ---------------------------------------------------------------------------------------

/// What nobody may ever read in a log.
const SECRET: &str = "s3cr3t-and-planted";

/// Fails if a run has said the secret anywhere, in clear or in base64.
fn assert_kept_secret(ran: &Ran, what: &str) {
    use std::fmt::Write;
    let mut said = ran.message.clone();
    for line in &ran.log {
        let _ = write!(said, "{line}");
    }
    // The same in base64, wherever it begins in the text that was encoded.
    let base64 = ["czNjcjN0LWFuZC1wbGFudGVk", "MzY3IzdC1hbmQtcGxhbnRlZ", "zM2NyM3QtYW5kLXBsYW50ZW"];
    for secret in [SECRET, base64[0], base64[1], base64[2]] {
        assert!(!said.contains(secret), "{what}: {said}");
    }
}

/// Runs with a kubeconfig, all that a log can have switched on, and stops it as soon as it has failed or,
/// where it would go on trying, after a while.
async fn trace(cluster: &TestCluster, kubeconfig: &str, variables: &[(&str, &str)]) -> Ran {
    let kubeconfig = cluster.file("kubeconfig", kubeconfig);
    let settings = [&[DATA[0], ("RUST_LOG", "trace")], variables].concat();
    let running = cluster.start_as(&kubeconfig, &settings);
    let id = running.id().to_string();
    let stop = tokio::spawn(async move {
        tokio::time::sleep(millis(2500)).await;
        let _ = std::process::Command::new("kill").args(["-TERM", &id]).status();
    });
    let ran = running.finish().await;
    stop.abort();
    ran
}

/// A program in place of a credential plugin.
fn plugin(cluster: &TestCluster, script: &str) -> PathBuf {
    let path = cluster.file("plugin", &format!("#!/bin/sh\n{script}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    path
}

/// A kubeconfig of the test cluster with another user, and another server in parts.
fn kubeconfig(cluster: &TestCluster, user: Value, server: Value) -> String {
    let text = cluster.kubeconfig_for("x".to_owned());
    let mut kubeconfig: Value = serde_json::from_str(&text).expect("JSON");
    kubeconfig["users"][0]["user"] = user;
    for (key, value) in server.as_object().into_iter().flatten() {
        kubeconfig["clusters"][0]["cluster"][key] = value.clone();
    }
    kubeconfig.to_string()
}

fn exec(cluster: &TestCluster, script: &str) -> Value {
    json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": plugin(cluster, script), "env": [{"name": "PLUGIN_KEY", "value": SECRET}],
    }})
}

#[tokio::test]
async fn a_credential_plugin_that_fails_gives_no_secret_away() {
    embedded_only(Options::default(), "has nothing to do with the cluster", async |cluster| {
        put_claim(cluster, "data");
        let credential = format!(
            r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"{SECRET}"}}}}"#
        );
        let certificate = json!({
            "apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"clientCertificateData": SECRET, "clientKeyData": SECRET},
        });
        let two_lines = credential.replace(SECRET, &format!("{SECRET}\\n"));
        let odd_time =
            credential.replace("\"token\"", &format!("\"expirationTimestamp\":\"{SECRET}\",\"token\""));
        let half = &credential[..credential.len() - 3];
        // What it prints before it ends, and whether that is a failure at once.
        let scripts = [
            ("its credential, and fails", format!("echo '{credential}'; exit 3"), true),
            ("a complaint with it", format!("echo 'cannot refresh {SECRET}' >&2; exit 1"), true),
            ("it bare", format!("echo '{SECRET}'"), true),
            ("half of it", format!("printf '%s' '{half}'"), true),
            ("a token of two lines", format!("echo '{two_lines}'"), false),
            ("a certificate that is none", format!("echo '{certificate}'"), true),
            ("a token that nobody knows", format!("echo '{credential}'"), false),
            ("a time that is none", format!("echo '{odd_time}'"), true),
        ];
        for (what, script, has_failed) in scripts {
            let ran = trace(cluster, &kubeconfig(cluster, exec(cluster, &script), json!({})), &[]).await;
            assert_kept_secret(&ran, what);
            assert!([1, 2, 143].contains(&ran.code), "{what}: exit {}", ran.code);
            assert!(!has_failed || ran.code != 143, "{what}: it has failed by then: {}", ran.message);
            assert!(!ran.message.is_empty(), "{what}");
        }
        let failing = exec(cluster, &format!("echo {SECRET}; exit 3"));
        let ran = trace(cluster, &kubeconfig(cluster, failing, json!({})), &[]).await;
        assert!(ran.message.contains("exit status: 3"), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn a_kubeconfig_that_is_broken_gives_no_secret_away() {
    embedded_only(Options::default(), "has nothing to do with the cluster", async |cluster| {
        put_claim(cluster, "data");
        let head = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters:\n- name: x\n  cluster:\n    server: {}\n\
             contexts:\n- name: x\n  context: {{cluster: x, user: x}}\nusers:\n- name: x\n  user:\n",
            cluster.fake().url()
        );
        let texts = [
            ("a quote is open", format!("{head}    token: \"{SECRET}\n")),
            ("a colon too many", format!("{head}    token: a: {SECRET}\n")),
            ("a tab", format!("{head}\ttoken: {SECRET}\n")),
            ("a list", format!("{head}    token: [{SECRET}]\n")),
            ("a map", format!("{head}    token: {{{SECRET}: 1}}\n")),
            ("an anchor", format!("{head}    token: *{SECRET}\n")),
            ("a tag", format!("{head}    token: !{SECRET} x\n")),
            ("twice", format!("{head}    token: {SECRET}\n    token: {SECRET}\n")),
            ("no text at all", SECRET.to_owned()),
        ];
        for (what, text) in texts {
            let ran = trace(cluster, &text, &[]).await;
            assert_kept_secret(&ran, what);
            assert_ne!(ran.code, 0, "{what}");
            // A tag means nothing: that token is another one, which nobody knows.
            assert!(what == "a tag" || ran.message.contains("kubeconfig"), "{what}: {}", ran.message);
        }
        let ran = trace(cluster, &format!("{head}    token: a: {SECRET}\n"), &[]).await;
        assert!(ran.message.contains("at line 14, column "), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn credentials_in_a_kubeconfig_are_nowhere_in_the_log() {
    embedded_only(Options::default(), "has nothing to do with the cluster", async |cluster| {
        put_claim(cluster, "data");
        let files = [cluster.file("token", &format!("{SECRET}\nmore")), cluster.file("key", SECRET)];
        let users = [
            ("a token that nobody knows", json!({"token": SECRET})),
            ("a token with a line break", json!({"token": format!("{SECRET}\n")})),
            ("a token with a line break in the middle", json!({"token": format!("{SECRET}\nx")})),
            ("a token in a file with a line break", json!({"tokenFile": files[0]})),
            ("a password", json!({"username": "me", "password": SECRET})),
            ("a password with a line break", json!({"username": "me", "password": format!("{SECRET}\n")})),
            ("a key that is none", json!({"client-certificate-data": "eA==", "client-key-data": SECRET})),
            ("a key in a file that is none", json!({"client-certificate": files[1], "client-key": files[1]})),
            (
                "a provider of old",
                json!({"auth-provider": {"name": "gcp", "config": {"access-token": SECRET}}}),
            ),
        ];
        for (what, user) in users {
            let ran = trace(cluster, &kubeconfig(cluster, user, json!({})), &[]).await;
            assert_kept_secret(&ran, what);
            assert!([1, 2, 143].contains(&ran.code), "{what}: exit {}", ran.code);
        }
        // A run that goes well is no occasion either.
        let token = cluster.token(&all_permissions()).await;
        let ran = trace(cluster, &cluster.kubeconfig_for(token.clone()), &[]).await;
        ran.assert_exit(0);
        assert!(!ran.log.iter().any(|line| line.to_string().contains(&token)));
        assert!(!ran.message.contains(&token));
    })
    .await;
}

#[tokio::test]
async fn the_password_of_a_proxy_is_nowhere_in_the_log() {
    embedded_only(Options { tls: true, ..Options::default() }, "needs a proxy", async |cluster| {
        put_claim(cluster, "data");
        let (address, _) = proxy();
        let token = cluster.token(&all_permissions()).await;
        let urls = [
            ("one that hangs up", format!("http://me:{SECRET}@{address}")),
            ("one that is not there", format!("http://me:{SECRET}@127.0.0.1:1")),
            ("another protocol", format!("socks5://me:{SECRET}@{address}")),
            ("no protocol", format!("ftp://me:{SECRET}@{address}")),
            ("no URL", format!("http://me:{SECRET}@no host")),
            ("no port", format!("http://me:{SECRET}@127.0.0.1:{SECRET}")),
        ];
        for (what, url) in urls {
            let by_kubeconfig =
                kubeconfig(cluster, json!({"token": token}), json!({"proxy-url": url.as_str()}));
            let ran = trace(cluster, &by_kubeconfig, &[]).await;
            assert_kept_secret(&ran, what);
            assert_ne!(ran.code, 0, "{what}");
            let ran = trace(cluster, &cluster.kubeconfig_for(token.clone()), &[("HTTPS_PROXY", &url)]).await;
            assert_kept_secret(&ran, what);
            assert!([0, 1, 2, 143].contains(&ran.code), "{what}: exit {}", ran.code);
        }
    })
    .await;
}
