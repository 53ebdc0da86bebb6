//! The worst day: every request of a run under every fault, pods that are killed at every step,
//! and runs under random faults. What may never happen is in [`crate::invariants`].

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use fake_apiserver::{FakeApiServer, Fault, History, Options, Request, WatchFault, When, objects};
use futures::{StreamExt, stream};
use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use volume_snapshotter::{cluster::Cluster, run::run, settings::Settings};

use crate::{
    invariants,
    test_cluster::{Ran, TestCluster, all_permissions, embedded},
};

/// A verb and a resource that a run asks for.
type Asked = (&'static str, &'static str);

const GET_CLAIM: Asked = ("get", "persistentvolumeclaims");
const LOOK: Asked = ("list", "persistentvolumeclaims");
const LIST: Asked = ("list", "volumesnapshots");
const WATCH: Asked = ("watch", "volumesnapshots");
const CREATE: Asked = ("create", "volumesnapshots");
const DELETE: Asked = ("delete", "volumesnapshots");

/// How the new snapshot is read before a deletion is repeated.
const READ: Asked = ("get", "volumesnapshots");

/// Every request of a run with one claim and one old snapshot whose deletion is to be repeated.
const REQUESTS: [Asked; 7] = [GET_CLAIM, LIST, WATCH, CREATE, LOOK, READ, DELETE];

const RUN: [(&str, &str); 4] = [
    ("SNAPSHOT_PVC_NAMES", "data"),
    ("SNAPSHOT_RUN_ID", "hourly-1"),
    ("SNAPSHOT_READY_ATTEMPTS", "2"),
    ("SNAPSHOT_READY_INTERVAL", "3s"),
];

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Whether the binary asks this, and not the test.
fn is(request: &Request, (verb, resource): Asked) -> bool {
    request.user.contains("serviceaccount") && request.is(verb, resource)
}

/// The faults of the matrix, by the names of its columns.
fn faults() -> Vec<(&'static str, Fault)> {
    use When::{After, Before};
    let restart = |when, history| Fault::Restart { when, down_for: millis(300), history };
    vec![
        ("delay", Fault::Delay(millis(400))),
        ("cut before", Fault::Cut(Before)),
        ("cut after", Fault::Cut(After)),
        ("half a body", Fault::CutBody(10)),
        ("hang before", Fault::Hang(Before)),
        ("hang after", Fault::Hang(After)),
        ("429", Fault::TooManyRequests { retry_after: None, status: false }),
        ("429 retry in 1 s", Fault::TooManyRequests { retry_after: Some(1), status: false }),
        ("429 Status", Fault::TooManyRequests { retry_after: Some(1), status: true }),
        ("500 before", Fault::Error(500, Before)),
        ("500 after", Fault::Error(500, After)),
        ("502 before", Fault::Error(502, Before)),
        ("502 after", Fault::Error(502, After)),
        ("503 before", Fault::Error(503, Before)),
        ("503 after", Fault::Error(503, After)),
        ("504 before", Fault::Error(504, Before)),
        ("504 after", Fault::Error(504, After)),
        ("restart before", restart(Before, History::Kept)),
        ("restart after", restart(After, History::Lost)),
        ("401", Fault::Error(401, Before)),
        ("403", Fault::Error(403, Before)),
    ]
}

/// The faults of the watch alone.
fn watch_faults() -> Vec<(&'static str, Fault)> {
    vec![
        ("watch ends at once", Fault::Watch(WatchFault::EndsAfterEvents(0))),
        ("watch ends after 2", Fault::Watch(WatchFault::EndsAfterEvents(2))),
        ("watch ends in time", Fault::Watch(WatchFault::EndsAfter(millis(5)))),
        ("410 in the stream", Fault::Watch(WatchFault::Expires(1))),
        ("410 for an answer", Fault::Error(410, When::Before)),
        ("bookmarks only", Fault::Watch(WatchFault::OnlyBookmarks)),
        ("each event twice", Fault::Watch(WatchFault::Twice)),
        ("silent watch", Fault::Watch(WatchFault::Silent)),
        ("half a line", Fault::Watch(WatchFault::CutLine(1))),
        ("garbage", Fault::Watch(WatchFault::Garbage(1))),
    ]
}

/// A claim with one ready snapshot, an hour old, on its own fake API server.
async fn with_one_old(scenario: impl AsyncFn(&TestCluster)) {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        scenario(cluster).await;
    })
    .await;
}

/// A claim that has been there for years.
pub(crate) fn put_claim(cluster: &TestCluster, name: &str) {
    let mut claim = objects::bound_claim(&cluster.namespace, name, &[("app", "web")]);
    claim["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
    cluster.fake().put(claim);
}

/// A ready snapshot that is some hours old.
pub(crate) fn put_ready(cluster: &TestCluster, name: &str, claim: &str, hours: i64) -> Value {
    let time = Timestamp::now() - SignedDuration::from_hours(hours);
    let time = time.round(Unit::Second).expect("a time");
    cluster.fake().put(objects::ready_snapshot(&cluster.namespace, name, claim, time))
}

/// The names of the snapshots that the binary made, whatever became of them.
fn made(fake: &FakeApiServer) -> Vec<String> {
    let requests = fake.requests();
    let made = requests.iter().filter(|request| is(request, CREATE) && request.carried_out);
    let mut names: Vec<String> = made
        .filter_map(|request| Some(request.body.as_ref()?["metadata"]["name"].as_str()?.to_owned()))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Plays one cell of the matrix; says what is wrong if something is.
async fn cell(asked: Asked, fault: Fault, times: usize, code: i32) -> Result<(), String> {
    let result = std::sync::Mutex::new(Ok(()));
    with_one_old(async |cluster| {
        if asked == READ {
            let busy = Fault::Error(503, When::Before);
            cluster.fake().fault_nth(|request| is(request, DELETE), 1, busy);
        }
        cluster.fake().fault_times(move |request| is(request, asked), times, fault.clone());
        let ran = cluster.run(&RUN).await;
        *result.lock().expect("no panic") = judge(cluster, &ran, code).await;
    })
    .await;
    result.into_inner().expect("no panic")
}

async fn judge(cluster: &TestCluster, ran: &Ran, code: i32) -> Result<(), String> {
    let problem = |what: String| {
        let log: String = ran.log.iter().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "    {line}");
            all
        });
        Err(format!("{what}\n{}\n{log}", ran.message))
    };
    if ran.code != code {
        return problem(format!("exit {} instead of {code}", ran.code));
    }
    if let Err(violation) = invariants::check(&cluster.fake().snapshot_history()) {
        return problem(violation);
    }
    let made = made(cluster.fake());
    if made.len() > 1 {
        return problem(format!("two were made: {made:?}"));
    }
    let names = cluster.names().await;
    let permission = match code {
        0 => names == made && made.len() == 1,
        3 => names.len() == 2 && made.len() == 1,
        _ => names.contains(&"old".to_owned()),
    };
    if !permission {
        return problem(format!("{names:?} are left, {made:?} was made"));
    }
    if code != 0 && !ran.message.contains("cannot ") {
        return problem("the message names no cause".to_owned());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_under_every_fault_ends_well_or_says_why_not() {
    let began = Instant::now();
    let mut cells = Vec::new();
    for asked in REQUESTS {
        cells.extend(faults().into_iter().map(|(name, fault)| (asked, name, fault, 1)));
    }
    cells.extend(watch_faults().into_iter().map(|(name, fault)| (WATCH, name, fault, 1)));
    // One that does not go away: the watch is done without, everything else gives up after a minute.
    for asked in REQUESTS {
        cells.push((asked, "503 for good", Fault::Error(503, When::Before), usize::MAX));
    }

    let number = cells.len();
    // Those that take longest first.
    cells.sort_by_key(|(_, name, ..)| (!name.ends_with("for good"), !name.starts_with("hang")));
    let played: Vec<_> = stream::iter(cells)
        .map(|(asked, name, fault, times)| async move {
            let code = match (times, asked) {
                // Everything that may pass, passes; a 401 or 403 that is not repeated may as well.
                (1, _) => 0,
                (_, WATCH) => 0,
                (_, LOOK | READ | DELETE) => 3,
                _ => 1,
            };
            (asked, name, code, cell(asked, fault, times, code).await)
        })
        .buffer_unordered(16)
        .collect()
        .await;

    let mut columns: Vec<&str> = faults().iter().chain(&watch_faults()).map(|(name, _)| *name).collect();
    columns.push("503 for good");
    let mut table = format!("\nA run under faults: exit code, - where there is no such case\n{:20}", "");
    for (verb, resource) in REQUESTS {
        let _ = write!(
            table,
            "{:>14}",
            format!("{verb} {}", if resource == "volumesnapshots" { "" } else { "claim(s)" })
        );
    }
    for column in columns {
        let _ = write!(table, "\n{column:20}");
        for asked in REQUESTS {
            let cell = played.iter().find(|(other, name, ..)| (*other, *name) == (asked, column));
            let shown = match cell {
                Some((.., code, Ok(()))) => code.to_string(),
                Some((.., Err(_))) => "WRONG".to_owned(),
                None => "-".to_owned(),
            };
            let _ = write!(table, "{shown:>14}");
        }
    }
    let wrong: Vec<String> = played
        .iter()
        .filter_map(|((verb, resource), name, _, result)| {
            Some(format!("{verb} {resource} under {name}: {}", result.as_ref().err()?))
        })
        .collect();
    let _ = writeln!(
        std::io::stderr(),
        "{table}\n{number} cases, {} wrong, in {:.0} s",
        wrong.len(),
        began.elapsed().as_secs_f64()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

// --- Other hands -----------------------------------------------------------------------------------

#[tokio::test]
async fn when_the_new_snapshot_goes_away_during_pruning_the_rest_stays_and_the_claim_fails() {
    with_one_old(async |cluster| {
        for hours in 2..9 {
            put_ready(cluster, &format!("old-{hours}"), "data", hours);
        }
        cluster.fake().fault(|request| is(request, DELETE).then_some(Fault::Delay(millis(200))));
        let settings = [RUN.as_slice(), &[("SNAPSHOT_CONCURRENCY", "1")]].concat();
        let running = cluster.start(&all_permissions(), &settings).await;
        let gone =
            || cluster.fake().requests().iter().any(|request| is(request, DELETE) && request.carried_out);
        cluster.until("the first is deleted", async || gone()).await;
        let new = made(cluster.fake()).remove(0);
        cluster.delete_snapshot(&new).await;
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("somebody deleted snapshot"), "{}", ran.message);
        let left = cluster.names().await.len();
        assert!(left >= 5, "{left} of 8 are left");
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_made_anew_before_its_snapshot_is_keeps_the_old_ones() {
    with_one_old(async |cluster| {
        cluster.fake().fault(|request| is(request, LIST).then_some(Fault::Delay(millis(5500))));
        let running = cluster.start(&all_permissions(), &RUN).await;
        let listed = || cluster.fake().requests().iter().any(|request| is(request, LIST));
        cluster.until("the claim was read", async || listed()).await;
        cluster.fake().remove("persistentvolumeclaims", &cluster.namespace, "data");
        cluster.fake().put(objects::bound_claim(&cluster.namespace, "data", &[]));
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("was deleted and made anew"), "{}", ran.message);
        assert_eq!(cluster.names().await[0], "old");
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_lost_or_being_deleted_is_not_snapshotted() {
    for (change, said) in [
        (json!({"status": {"phase": "Lost"}}), "is Lost: its volume is gone"),
        (
            json!({"metadata": {"deletionTimestamp": "2026-11-20T00:00:00Z", "finalizers": ["volume-snapshotter/test"]}}),
            "is being deleted",
        ),
    ] {
        with_one_old(async |cluster| {
            cluster.fake().update("persistentvolumeclaims", &cluster.namespace, "data", |claim| {
                for (part, fields) in change.as_object().into_iter().flatten() {
                    for (field, value) in fields.as_object().into_iter().flatten() {
                        claim[part][field] = value.clone();
                    }
                }
            });
            let ran = cluster.run(&RUN).await;
            ran.assert_exit(2);
            assert!(ran.message.contains(said), "{}", ran.message);
            assert_eq!(cluster.names().await, ["old"]);
        })
        .await;
    }
}

#[tokio::test]
async fn a_watch_that_breaks_again_and_again_is_not_opened_without_a_pause() {
    with_one_old(async |cluster| {
        cluster.fake().plan(|_| Some(fake_apiserver::Plan::ready_after(millis(2500))));
        cluster.fake().fault(|request| is(request, WATCH).then_some(Fault::Error(503, When::Before)));
        let ran = cluster.run(&[RUN.as_slice(), &[("SNAPSHOT_READY_INTERVAL", "20s")]].concat()).await;
        ran.assert_exit(0);
        assert!(ran.took < millis(15_000), "it reads meanwhile: {:?}", ran.took);
        let watches = cluster.fake().requests().iter().filter(|request| is(request, WATCH)).count();
        assert!((2..=6).contains(&watches), "{watches} watches");
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_expires_while_a_snapshot_is_waited_for_is_begun_anew() {
    with_one_old(async |cluster| {
        cluster.fake().plan(|_| Some(fake_apiserver::Plan::ready_after(millis(1200))));
        let running = cluster.start(&all_permissions(), &[("SNAPSHOT_PVC_NAMES", "data")]).await;
        cluster
            .until("it waits", async || cluster.fake().watches() == 1 && cluster.names().await.len() == 2)
            .await;
        cluster.fake().expire_watches();
        let ran = running.finish().await;
        ran.assert_exit(0);
        assert!(ran.took < millis(6_000), "ready is learned from the new watch: {:?}", ran.took);
        let watches = cluster.fake().requests().iter().filter(|request| is(request, WATCH)).count();
        assert_eq!(watches, 2, "the new one goes on from the new list");
    })
    .await;
}

// --- The next attempt ------------------------------------------------------------------------------

/// The steps at which a pod can be stopped: the request that hangs meanwhile, and whether the
/// server carries it out.
const STEPS: [(Asked, When); 8] = [
    (GET_CLAIM, When::Before),
    (LIST, When::Before),
    (WATCH, When::Before),
    (CREATE, When::Before),
    (CREATE, When::After),
    (LOOK, When::Before),
    (DELETE, When::Before),
    (DELETE, When::After),
];

/// Starts a run that comes as far as a step, and hands it over there.
async fn at_step(cluster: &TestCluster, asked: Asked, when: When) -> crate::test_cluster::Running {
    if asked == WATCH {
        // Without a watch it goes on by reading; let it wait there.
        cluster.fake().plan(|_| Some(fake_apiserver::Plan::ready_after(millis(1500))));
    }
    cluster.fake().fault(move |request| is(request, asked).then_some(Fault::Hang(when)));
    let running = cluster.start(&all_permissions(), &RUN).await;
    let hangs = || {
        let requests = cluster.fake().requests();
        requests.iter().any(|request| is(request, asked) && (when == When::Before || request.carried_out))
    };
    cluster.until("the step is reached", async || hangs()).await;
    if asked == WATCH {
        cluster.until("it waits", async || cluster.names().await.len() == 2).await;
        // What is stored is not yet answered.
        tokio::time::sleep(millis(300)).await;
    }
    running
}

#[tokio::test]
async fn after_a_pod_is_killed_at_any_step_the_next_one_finishes_its_work() {
    for (asked, when) in STEPS {
        with_one_old(async |cluster| {
            let running = at_step(cluster, asked, when).await;
            running.signal("KILL");
            drop(running);
            cluster.fake().clear_faults();
            cluster.run(&RUN).await.assert_exit(0);
            let made = made(cluster.fake());
            assert_eq!(made.len(), 1, "{asked:?} {when:?}: one Job makes one snapshot");
            cluster.until("the old one is gone", async || cluster.names().await == made).await;
            invariants::check(&cluster.fake().snapshot_history()).expect("nothing that may not happen");
        })
        .await;
    }
}

#[tokio::test]
async fn sigterm_at_any_step_ends_the_run_within_a_second() {
    for (asked, when) in STEPS {
        with_one_old(async |cluster| {
            let running = at_step(cluster, asked, when).await;
            let told = Instant::now();
            running.signal("TERM");
            let ran = running.finish().await;
            assert!(told.elapsed() < Duration::from_secs(1), "{asked:?} {when:?}: {:?}", told.elapsed());
            ran.assert_exit(143);
            assert!(ran.message.contains("a signal stopped the run"), "{}", ran.message);
            let left = match asked {
                GET_CLAIM => "no snapshot was created",
                LIST => "data: not started",
                WATCH => "was ready; the Job's next attempt continues with it",
                CREATE => "data: stopped while its snapshot was being created",
                _ => "is ready; stopped while older snapshots were being deleted",
            };
            assert!(ran.message.contains(left), "{asked:?} {when:?}: {}", ran.message);
        })
        .await;
    }
}

/// On a clock that jumps whenever nothing but time can go on, so all that matters has to hang.
#[tokio::test(start_paused = true)]
async fn a_run_ends_at_its_bound_whatever_hangs() {
    let fake = FakeApiServer::start(Options::default()).await;
    let kubeconfig =
        Kubeconfig::from_yaml(&fake.kubeconfig(fake.admin_token(), "default")).expect("a kubeconfig");
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    fake.fault(|_| Some(Fault::Hang(When::Before)));
    let variables = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_CONCURRENCY", "1")];
    let settings =
        Settings::parse(variables.map(|(name, value)| (name.into(), value.into()))).expect("settings");

    let patience = settings.bound() * 2;
    let cluster = Cluster::of(config, None, true, settings.concurrency, patience).expect("a cluster");
    let began = tokio::time::Instant::now();
    let report = run(&cluster, &settings, "hourly-1", std::future::pending()).await;
    let took = began.elapsed();
    assert_eq!(took.as_secs(), settings.bound().as_secs());
    assert_eq!(report.exit_code(), 1);
    assert!(report.summary().contains("the run reached its time limit"), "{}", report.summary());
    fake.stop().await;
}

// --- Credentials that change -----------------------------------------------------------------------

/// Both take their minute, and do nothing meanwhile.
#[tokio::test]
async fn credentials_that_change_under_a_run_lose_nothing() {
    tokio::join!(
        a_token_that_is_renewed_on_disk_is_read_again_before_the_old_one_expires(),
        when_the_ca_changes_under_a_run_nothing_is_lost_and_the_next_attempt_finishes_its_work(),
    );
}

async fn a_token_that_is_renewed_on_disk_is_read_again_before_the_old_one_expires() {
    with_one_old(async |cluster| {
        let token = cluster.token(&all_permissions()).await;
        let (token_file, ca_file) = (cluster.file("token", &token), cluster.file("ca.crt", ""));
        let kubeconfig = cluster.fake().kubeconfig_with_token_file(&token_file, &ca_file, &cluster.namespace);
        let kubeconfig = cluster.file("kubeconfig", &kubeconfig);
        // As the kubelet does it: the new one is there long before the old one expires. The client
        // library looks at the file once a minute.
        cluster.fake().plan(|_| Some(fake_apiserver::Plan::ready_after(millis(64_000))));
        let running = cluster.start_as(&kubeconfig, &[("SNAPSHOT_PVC_NAMES", "data")]);
        cluster.until("a snapshot is made", async || cluster.names().await.len() == 2).await;
        std::fs::write(&token_file, cluster.token(&all_permissions()).await).expect("the file is renewed");
        tokio::time::sleep(millis(62_000)).await;
        cluster.fake().expire_token(&token);
        let ran = running.finish().await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("deleted the older snapshot").len(), 1);
    })
    .await;
}

async fn when_the_ca_changes_under_a_run_nothing_is_lost_and_the_next_attempt_finishes_its_work() {
    embedded(Options { tls: true, ..Options::default() }, async |cluster| {
        put_claim(cluster, "data");
        put_ready(cluster, "old", "data", 1);
        let token = cluster.token(&all_permissions()).await;
        let kubeconfig =
            |name: &str| cluster.file(name, &cluster.fake().kubeconfig(&token, &cluster.namespace));
        cluster.fake().plan(|_| Some(fake_apiserver::Plan::ready_after(millis(1000))));
        let once = [RUN.as_slice(), &[("SNAPSHOT_READY_ATTEMPTS", "1")]].concat();
        let running = cluster.start_as(&kubeconfig("before"), &once);
        let asked =
            || cluster.fake().requests().iter().any(|request| is(request, CREATE) && request.carried_out);
        cluster.until("a snapshot is made", async || asked()).await;
        cluster.fake().rotate_ca();
        cluster.fake().cut_connections().await;
        let ran = running.finish().await;
        ran.assert_exit(1);
        assert!(ran.message.contains("invalid peer certificate"), "{}", ran.message);
        assert!(cluster.fake().get("volumesnapshots", &cluster.namespace, "old").is_some());

        cluster.start_as(&kubeconfig("after"), &RUN).finish().await.assert_exit(0);
        let left: Vec<Value> = cluster.fake().list("volumesnapshots", &cluster.namespace);
        let alive =
            left.iter().filter(|snapshot| snapshot["metadata"]["deletionTimestamp"].is_null()).count();
        assert_eq!((alive, made(cluster.fake()).len()), (1, 1));
        invariants::check(&cluster.fake().snapshot_history()).expect("nothing that may not happen");
    })
    .await;
}

// --- Rights and refusals ---------------------------------------------------------------------------

#[tokio::test]
async fn each_right_that_is_missing_costs_what_needs_it_and_is_named() {
    for (missing, selector, code) in [
        (("get", "persistentvolumeclaims"), false, 3),
        (("list", "persistentvolumeclaims"), false, 3),
        (("list", "persistentvolumeclaims"), true, 2),
        (("create", "volumesnapshots"), false, 2),
        (("get", "volumesnapshots"), false, 0),
        (("list", "volumesnapshots"), false, 2),
        (("watch", "volumesnapshots"), false, 0),
        (("delete", "volumesnapshots"), false, 3),
    ] {
        with_one_old(async |cluster| {
            let all = all_permissions();
            let rules: Value = all
                .as_array()
                .into_iter()
                .flatten()
                .filter(|rule| {
                    (&rule["verbs"][0], &rule["resources"][0]) != (&json!(missing.0), &json!(missing.1))
                })
                .cloned()
                .collect();
            let choice = match selector {
                true => ("SNAPSHOT_PVC_SELECTOR", "app=web"),
                false => ("SNAPSHOT_PVC_NAMES", "data"),
            };
            let ran = cluster.run_with_permissions(&rules, &[choice]).await;
            ran.assert_exit(code);
            if code != 0 {
                let (verb, resource) = missing;
                let line = match missing {
                    // Both are needed to know what the claims want kept.
                    ("get", "persistentvolumeclaims") => "verbs: [\"get\", \"list\"]".to_owned(),
                    _ => format!("verbs: [\"{verb}\"]"),
                };
                let said = format!("resources: [\"{resource}\"], {line}");
                assert!(ran.message.contains(&said), "{missing:?}: {}", ran.message);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_quota_that_is_used_up_is_said_in_the_servers_words() {
    with_one_old(async |cluster| {
        cluster.fake().quota(&cluster.namespace, 1);
        let ran = cluster.run(&RUN).await;
        ran.assert_exit(1);
        assert!(ran.message.contains("exceeded quota"), "{}", ran.message);
        assert!(ran.message.contains("raise the ResourceQuota"), "{}", ran.message);
        assert_eq!(cluster.names().await, ["old"]);
    })
    .await;
}

#[tokio::test]
async fn a_namespace_that_is_being_deleted_is_said_in_the_servers_words() {
    with_one_old(async |cluster| {
        // As a user, for the namespace takes its ServiceAccounts along.
        let kubeconfig = cluster.fake().kubeconfig(cluster.fake().admin_token(), &cluster.namespace);
        let kubeconfig = cluster.file("kubeconfig", &kubeconfig);
        cluster
            .fake()
            .fault(|request| request.is("create", "volumesnapshots").then_some(Fault::Delay(millis(500))));
        let running = cluster.start_as(&kubeconfig, &RUN);
        let asked =
            || cluster.fake().requests().iter().any(|request| request.is("create", "volumesnapshots"));
        cluster.until("a snapshot is asked for", async || asked()).await;
        // Something in it keeps the namespace from going at once.
        cluster.keep("old").await;
        cluster.delete_namespace().await;
        let ran = running.finish().await;
        ran.assert_exit(2);
        assert!(ran.message.contains("because it is being terminated"), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_expires_is_said_to_have() {
    with_one_old(async |cluster| {
        let token = cluster.token(&all_permissions()).await;
        cluster.fake().expire_token(&token);
        let kubeconfig = cluster.file("kubeconfig", &cluster.fake().kubeconfig(&token, &cluster.namespace));
        let ran = cluster.start_as(&kubeconfig, &RUN).finish().await;
        // It may be that nobody knows us yet: the Job's next attempt may be luckier.
        ran.assert_exit(1);
        assert!(ran.message.contains("Unauthorized; check the ServiceAccount's token"), "{}", ran.message);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_down_for_a_while_is_waited_for() {
    with_one_old(async |cluster| {
        let kubeconfig = cluster.kubeconfig(&all_permissions()).await;
        cluster.fake().refuse_connections().await;
        let running = cluster.start_as(&kubeconfig, &RUN);
        tokio::time::sleep(millis(1500)).await;
        cluster.fake().accept_connections().await;
        let ran = running.finish().await;
        ran.assert_exit(0);
        assert!(!ran.lines("Connection refused").is_empty(), "{:?}", ran.log);
    })
    .await;
}

#[tokio::test]
async fn what_a_cluster_says_breaks_neither_the_log_nor_the_message() {
    with_one_old(async |cluster| {
        let hostile = format!("line\none\r\n\u{1b}[31mred\u{0}\u{7}\"}} {}", "x".repeat(2_000_000));
        cluster.fake().plan(move |_| Some(fake_apiserver::Plan::fails(&hostile)));
        let ran = cluster.run(&[RUN.as_slice(), &[("SNAPSHOT_READY_INTERVAL", "300ms")]].concat()).await;
        // That every line of the log is JSON is checked wherever the log is read.
        ran.assert_exit(1);
        assert!(ran.message.len() <= 4096, "{}", ran.message.len());
        assert!(ran.message.chars().all(|character| character == '\n' || !character.is_control()));
        assert_eq!(ran.message.lines().count(), 2, "{}", ran.message);
        assert!(ran.log.iter().all(|line| line.to_string().len() < 10_000));
    })
    .await;
}

// --- The soak --------------------------------------------------------------------------------------

/// Runs under random faults, with random claims and older snapshots, each Job tried again as its
/// CronJob would, until the time is over. `SNAPSHOTTER_SOAK_SECONDS` makes it longer,
/// `SNAPSHOTTER_SOAK_SEED` repeats what failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_runs_under_random_faults_never_lose_a_snapshot() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("SNAPSHOTTER_SOAK_SECONDS").unwrap_or(20);
    let seed = number("SNAPSHOTTER_SOAK_SEED");
    let end = Instant::now() + Duration::from_secs(seconds);
    let seeds: Box<dyn Iterator<Item = u64>> = match seed {
        Some(seed) => Box::new(std::iter::once(seed)),
        // Short enough to be typed.
        None => {
            Box::new(std::iter::from_fn(move || (Instant::now() < end).then(|| rand::random::<u64>() >> 32)))
        }
    };
    // Mostly they wait: for pauses between tries, for servers that restart, for windows to end.
    let (mut jobs, mut runs, mut struck) = (0, 0, 0);
    let mut played = stream::iter(seeds).map(random_job).buffer_unordered(32);
    while let Some((job_runs, job_struck)) = played.next().await {
        jobs += 1;
        runs += job_runs;
        struck += job_struck;
    }
    let _ = writeln!(
        std::io::stderr(),
        "soak: {jobs} Jobs, {runs} runs, {struck} faults in {seconds} s; no invariant was broken"
    );
}

/// One Job from one seed: how many runs it took and how many faults it met.
async fn random_job(seed: u64) -> (usize, usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut options = Options::default();
    options.controller.ready_after = millis(random.random_range(0..120));
    let counts = std::sync::Mutex::new((0, 0));
    // Drawn before anything happens, so that a seed means the same whatever the timing.
    let claims = random.random_range(1..4usize);
    let older: Vec<(usize, bool, i64)> = (0..random.random_range(0..8))
        .map(|_| (random.random_range(0..claims), random.random_bool(0.15), random.random_range(1..200)))
        .collect();
    let draws: Vec<(f64, usize)> =
        (0..200).map(|_| (random.random_range(0.0..1.0), random.random_range(0..1000))).collect();
    let rate = random.random_range(0.0..0.5);
    let last = random.random_range(1..4).to_string();
    let kill_after: Vec<Option<u64>> =
        (0..4).map(|_| random.random_bool(0.3).then(|| random.random_range(1..150))).collect();

    embedded(options, async |cluster| {
        let names: Vec<String> = (0..claims).map(|claim| format!("data-{claim}")).collect();
        names.iter().for_each(|name| put_claim(cluster, name));
        // Oldest first, so that the order of the history is that of their times.
        let mut older = older.clone();
        older.sort_by_key(|(.., hours)| std::cmp::Reverse(*hours));
        for (index, (claim, held, hours)) in older.iter().enumerate() {
            let mut snapshot = put_ready(cluster, &format!("old-{index}"), &names[*claim], *hours);
            if *held {
                snapshot["metadata"]["labels"]["volume-snapshotter/hold"] = json!("true");
                cluster.fake().put(snapshot);
            }
        }
        // Before anything goes wrong, for the test meets a server that is down as well.
        let kubeconfig = cluster.kubeconfig(&all_permissions()).await;
        let draws = draws.clone();
        let next = std::sync::atomic::AtomicUsize::new(0);
        cluster.fake().fault(move |request| {
            if !request.user.contains("serviceaccount") {
                return None;
            }
            let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (chance, which) = draws[turn % draws.len()];
            // Enough is enough: later attempts meet fewer.
            let rate = if turn < 60 { rate } else { rate / 4.0 };
            let mut quick: Vec<Fault> = faults().into_iter().map(|(_, fault)| fault).collect();
            if request.verb == "watch" {
                quick.extend(watch_faults().into_iter().map(|(_, fault)| fault));
            }
            quick.retain(|fault| !matches!(fault, Fault::Hang(_)));
            (chance < rate).then(|| quick[which % quick.len()].clone())
        });

        let settings = [
            ("SNAPSHOT_PVC_NAMES", names.join(",")),
            ("SNAPSHOT_RUN_ID", "soak".to_owned()),
            ("SNAPSHOT_RETENTION", format!("last={last}")),
            ("SNAPSHOT_READY_ATTEMPTS", "2".to_owned()),
            ("SNAPSHOT_READY_INTERVAL", "2s".to_owned()),
        ];
        let settings: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for kill in &kill_after {
            let running = cluster.start_as(&kubeconfig, &settings);
            counts.lock().expect("no panic").0 += 1;
            let code = match kill {
                Some(after) => {
                    tokio::time::sleep(millis(*after)).await;
                    running.kill().await
                }
                None => Some(running.finish().await.code),
            };
            let history = cluster.fake().snapshot_history();
            if let Err(violation) = invariants::check(&history) {
                panic!("SNAPSHOTTER_SOAK_SEED={seed}: {violation}\n{history:#?}");
            }
            if let Some(code) = code {
                assert!((0..=3).contains(&code), "SNAPSHOTTER_SOAK_SEED={seed}: exit {code}");
                if code != 1 {
                    break;
                }
            }
        }
        let struck = cluster.fake().requests().iter().filter(|request| request.fault.is_some()).count();
        counts.lock().expect("no panic").1 += struck;
        cluster.fake().clear_faults();
    })
    .await;
    counts.into_inner().expect("no panic")
}
