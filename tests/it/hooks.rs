//! Hooks: what is run in pods around the snapshots of their claims, in which order, and that no pod stays frozen
//! whatever goes wrong at whichever step.

use std::{
    fmt::Write as _,
    io::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fake_apiserver::{Command, ExecFault, Fault, Options, Plan, Request, Script, WatchFault, When, objects};
use futures::{StreamExt, stream};
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use volume_snapshotter::{
    cluster::{Cluster, HOOK_PERMISSIONS, PERMISSIONS},
    report::{Report, Stop},
    run::run,
    settings::Settings,
};

use crate::test_cluster::{Ran, TestCluster, embedded, rules};

const LABEL: &str = "volume-snapshotter/consistent";

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The rights of a run with the component.
fn permissions() -> Value {
    rules(&[PERMISSIONS, HOOK_PERMISSIONS].concat())
}

/// The annotations of a pod that is frozen and thawed, in our words.
fn freezing(further: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut annotations = vec![
        ("pre.hook.volume-snapshotter/command".to_owned(), "freeze".to_owned()),
        ("post.hook.volume-snapshotter/command".to_owned(), "thaw".to_owned()),
    ];
    annotations.extend(further.iter().map(|(key, value)| {
        let (prefix, name) = key.split_once('/').expect("a key");
        (format!("{prefix}.hook.volume-snapshotter/{name}"), (*value).to_owned())
    }));
    annotations
}

impl TestCluster {
    /// A running pod with one container and annotations.
    fn put_pod(&self, name: &str, claims: &[&str], annotations: &[(String, String)]) {
        let mut pod = objects::running_pod(&self.namespace, name, &["main"], claims);
        for (key, value) in annotations {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        self.fake().put(pod);
    }

    /// How long a pod was frozen, all times together.
    fn frozen_for(&self, pod: &str) -> Duration {
        self.fake().freezes(&self.namespace, pod).iter().map(fake_apiserver::Freeze::duration).sum()
    }

    async fn run_hooks(&self, settings: &[(&str, &str)]) -> Ran {
        let settings = [&[("SNAPSHOT_HOOKS", "true")], settings].concat();
        self.run_with_permissions(&permissions(), &settings).await
    }

    /// What the binary asked, but for reads of the watch, as `verb resource` and for commands the command.
    fn asked(&self) -> Vec<String> {
        let ours = |request: &&Request| request.user.contains("serviceaccount");
        let asked = self.fake().requests();
        asked
            .iter()
            .filter(ours)
            .map(|request| match request.resource.as_str() {
                "pods/exec" => {
                    let (_, command) = request.uri.split_once("command=").expect("a command");
                    let command = command.split('&').next().unwrap_or_default();
                    let pod = request.uri.split('/').rev().nth(1).unwrap_or_default();
                    format!("{command} {pod}")
                }
                resource => format!("{} {resource}", request.verb),
            })
            .collect()
    }
}

/// What freezes and thaws.
fn script(command: &Command) -> Option<Script> {
    Some(match command.line().as_str() {
        "freeze" => Script::new().freeze().prints("frozen\n"),
        "thaw" => Script::new().thaw().prints("thawed\n"),
        _ => return None,
    })
}

/// Claims `data` and `logs`, and a pod `db` that mounts both and counts up in both.
async fn with_database(options: Options, scenario: impl AsyncFn(&TestCluster)) {
    embedded(options, async |cluster| {
        cluster.claim("data").await;
        cluster.claim("logs").await;
        cluster.put_pod("db", &["data", "logs"], &freezing(&[]));
        cluster.fake().commands(script);
        cluster.fake().start_writer(&cluster.namespace, "db", millis(1));
        scenario(cluster).await;
    })
    .await;
}

const BOTH: (&str, &str) = ("SNAPSHOT_PVC_NAMES", "data,logs");

#[tokio::test]
async fn two_claims_of_a_pod_are_taken_at_one_instant_and_it_is_thawed_before_they_are_ready() {
    with_database(Options::default(), async |cluster| {
        let fake = cluster.fake();
        // One is taken later than the other, and both are ready long after.
        fake.plan(|snapshot| {
            let late = snapshot["spec"]["source"]["persistentVolumeClaimName"] == "logs";
            Some(Plan::ready_after(millis(1500)).taken_after(millis(if late { 400 } else { 50 })))
        });
        let ran = cluster.run_hooks(&[BOTH]).await;
        ran.assert_exit(0);
        let names = cluster.names().await;
        let counts: Vec<_> =
            names.iter().map(|name| fake.snapshot_content(&cluster.namespace, name)).collect();
        assert!(counts.len() == 2 && counts[0].is_some() && counts[0] == counts[1], "{counts:?}");
        for snapshot in cluster.snapshots().await {
            assert_eq!(snapshot["metadata"]["labels"][LABEL], "true");
        }
        let frozen = cluster.frozen_for("db");
        assert!(frozen >= millis(390) && frozen < millis(1200), "{frozen:?}");
        assert_eq!(fake.freezes(&cluster.namespace, "db").len(), 1, "one pod is frozen once");
        assert!(ran.message.contains(", consistent, 0 older snapshots deleted"), "{}", ran.message);
        let asked = cluster.asked();
        let order: Vec<&str> = asked
            .iter()
            .map(String::as_str)
            .filter(|asked| !asked.ends_with("persistentvolumeclaims") && !asked.starts_with("watch"))
            .collect();
        let expected = [
            "list pods",
            "list volumesnapshots",
            "freeze db",
            "create volumesnapshots",
            "create volumesnapshots",
            "thaw db",
            "patch volumesnapshots",
            "patch volumesnapshots",
        ];
        assert_eq!(order, expected);
        let said: Vec<&str> = ran.log.iter().filter_map(|line| line["message"].as_str()).collect();
        let at = |text: &str| said.iter().position(|line| *line == text).expect("a line");
        assert!(at("ran the pre hook") < at("made the snapshot"), "{said:?}");
        assert!(at("the snapshot is taken") < at("ran the post hook"), "{said:?}");
        assert!(at("ran the post hook") < at("the snapshot is ready"), "{said:?}");
        let _ = writeln!(std::io::stderr(), "order of calls: {}; frozen for {frozen:?}", order.join(", "));
        // Without hooks they differ: the writer goes on between the two.
        fake.clear_requests();
        cluster.run(&[BOTH]).await.assert_exit(0);
        let later = cluster.names().await.into_iter().filter(|name| !names.contains(name));
        let counts: Vec<_> = later.map(|name| fake.snapshot_content(&cluster.namespace, &name)).collect();
        assert!(counts.len() == 2 && counts[0] != counts[1], "{counts:?}");
    })
    .await;
}

// --- What goes wrong -------------------------------------------------------------------------------

/// The steps of a run with hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Pre,
    Create,
    Taken,
    Post,
}

/// What goes wrong at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Error,
    Hang,
    Cut,
    Sigterm,
    Bound,
    Sigkill,
}

const STEPS: [Step; 4] = [Step::Pre, Step::Create, Step::Taken, Step::Post];

impl Wrong {
    /// Whether the run is stopped while it hangs in the step.
    fn is_stop(self) -> bool {
        matches!(self, Wrong::Sigterm | Wrong::Bound | Wrong::Sigkill)
    }
}

/// Whether the binary runs this command.
fn runs(request: &Request, command: &str) -> bool {
    request.is("get", "pods/exec") && request.parameter("command") == Some(command)
}

fn creates(request: &Request) -> bool {
    request.user.contains("serviceaccount") && request.is("create", "volumesnapshots")
}

/// Arranges that a step goes wrong. The first post hook alone does: no client can thaw what cannot be thawed.
fn arrange(cluster: &TestCluster, step: Step, wrong: Wrong) {
    let fake = cluster.fake();
    let first = AtomicBool::new(true);
    fake.commands(move |command| {
        let frozen = || match (step, wrong) {
            // What the documentation calls a dead man's switch.
            (_, Wrong::Sigkill) => Script::new().freeze().background(Script::new().wait(millis(2500)).thaw()),
            _ => Script::new().freeze(),
        };
        Some(match command.line().as_str() {
            "freeze" => match (step, wrong) {
                (Step::Pre, Wrong::Error) => frozen().complains("half of it\n").exits(3),
                (Step::Pre, wrong) if wrong.is_stop() => frozen().hangs(),
                _ => frozen().prints("frozen\n"),
            },
            "thaw" if (step, wrong) == (Step::Post, Wrong::Error) && first.swap(false, Ordering::Relaxed) => {
                Script::new().complains("not now\n").exits(1)
            }
            "thaw" => Script::new().thaw(),
            _ => return None,
        })
    });
    let (taken, ready) = match (step, wrong) {
        (Step::Taken, Wrong::Hang) => (1800, 2000),
        (Step::Taken, Wrong::Cut) => (500, 700),
        (Step::Taken, wrong) if wrong.is_stop() => (60_000, 60_000),
        _ => (50, 100),
    };
    fake.plan(move |_| Some(Plan::ready_after(millis(ready)).taken_after(millis(taken))));
    let thaws = |request: &Request| runs(request, "thaw");
    match (step, wrong) {
        (Step::Pre, Wrong::Hang) => {
            fake.fault(|request| {
                runs(request, "freeze").then_some(Fault::Exec(ExecFault::MuteAfterBytes(0)))
            });
        }
        (Step::Pre, Wrong::Cut) => {
            fake.fault(|request| runs(request, "freeze").then_some(Fault::Exec(ExecFault::CutAfterBytes(3))));
        }
        (Step::Create, Wrong::Error) => fake.admission_denies(creates, "no-snapshots", "not today"),
        (Step::Create, Wrong::Cut) => fake.fault_nth(creates, 1, Fault::Cut(When::After)),
        (Step::Create, _) => fake.fault(|request| creates(request).then_some(Fault::Hang(When::Before))),
        (Step::Taken, Wrong::Error) => {
            fake.plan(|_| Some(Plan::fails("the storage is full")));
        }
        (Step::Taken, Wrong::Cut) => {
            fake.fault_nth(
                |request| request.is("watch", "volumesnapshots"),
                1,
                Fault::Watch(WatchFault::CutLine(0)),
            );
        }
        (Step::Post, Wrong::Cut) => fake.fault_nth(thaws, 1, Fault::Cut(When::Before)),
        (Step::Post, Wrong::Error) => {}
        (Step::Post, _) => fake.fault_nth(thaws, 1, Fault::Hang(When::Before)),
        _ => {}
    }
}

/// Whether a run has come to a step.
async fn is_at(cluster: &TestCluster, step: Step) -> bool {
    let requests = || cluster.fake().requests();
    let is_frozen = cluster.fake().is_frozen(&cluster.namespace, "db");
    match step {
        Step::Pre => is_frozen,
        Step::Create => is_frozen && requests().iter().any(creates),
        Step::Taken => is_frozen && cluster.names().await.len() == 2,
        Step::Post => requests().iter().any(|request| runs(request, "thaw")),
    }
}

async fn until_at(cluster: &TestCluster, step: Step) {
    cluster.until("the step is reached", async || is_at(cluster, step).await).await;
}

/// Runs in this process, until the run's time is over while it is in a step.
async fn run_out_of_time(cluster: &TestCluster, settings: &[(&str, &str)], step: Step) -> Report {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig(&permissions()).await).expect("a kubeconfig");
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    let variables = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let settings = Settings::parse(variables).expect("settings");
    let connected = Cluster::of(config, None, true, settings.concurrency, millis(60_000)).expect("a cluster");
    let stop = async {
        until_at(cluster, step).await;
        Stop::OutOfTime
    };
    run(&connected, &settings, "hourly-1", stop).await
}

/// What came of a cell: the exit code, if the run ended, and how long the pod was frozen.
struct Outcome {
    step: Step,
    wrong: Wrong,
    exit: Option<i32>,
    is_frozen: bool,
    frozen: Duration,
    consistent: usize,
}

async fn play(cluster: &TestCluster, step: Step, wrong: Wrong) -> Outcome {
    let timeout = if (step, wrong) == (Step::Pre, Wrong::Hang) { "1s" } else { "20s" };
    let annotations = freezing(&[("pre/timeout", timeout), ("post/timeout", "5s")]);
    cluster.put_pod("db", &["data", "logs"], &annotations);
    arrange(cluster, step, wrong);
    let freeze_timeout = if wrong.is_stop() { "20s" } else { "1s" };
    let settings = [
        BOTH,
        ("SNAPSHOT_HOOKS", "true"),
        ("SNAPSHOT_FREEZE_TIMEOUT", freeze_timeout),
        ("SNAPSHOT_READY_ATTEMPTS", "1"),
        ("SNAPSHOT_READY_INTERVAL", "4s"),
    ];
    let exit = match wrong {
        Wrong::Bound => Some(i32::from(run_out_of_time(cluster, &settings, step).await.exit_code())),
        Wrong::Sigterm => {
            let running = cluster.start(&permissions(), &settings).await;
            until_at(cluster, step).await;
            let told = Instant::now();
            running.signal("TERM");
            let ran = running.finish().await;
            // The manifests give it 10 s.
            assert!(told.elapsed() < millis(8500), "{step:?}: {:?}", told.elapsed());
            Some(ran.code)
        }
        Wrong::Sigkill => {
            let running = cluster.start(&permissions(), &settings).await;
            until_at(cluster, step).await;
            assert_eq!(running.kill().await, None, "{step:?}");
            assert!(
                cluster.fake().is_frozen(&cluster.namespace, "db"),
                "{step:?}: as long as nobody thaws it"
            );
            cluster
                .until("the dead man's switch", async || !cluster.fake().is_frozen(&cluster.namespace, "db"))
                .await;
            None
        }
        // It goes on for as long as a request may take.
        Wrong::Hang if step == Step::Create => {
            let running = cluster.start(&permissions(), &settings).await;
            until_at(cluster, step).await;
            cluster.until("it is thawed", async || !cluster.fake().is_frozen(&cluster.namespace, "db")).await;
            running.kill().await
        }
        _ => Some(cluster.run_with_permissions(&permissions(), &settings).await.code),
    };
    let labelled = |snapshot: &&Value| snapshot["metadata"]["labels"][LABEL] == "true";
    Outcome {
        step,
        wrong,
        exit,
        is_frozen: cluster.fake().is_frozen(&cluster.namespace, "db"),
        frozen: cluster.frozen_for("db"),
        consistent: cluster.snapshots().await.iter().filter(labelled).count(),
    }
}

#[tokio::test]
async fn whatever_goes_wrong_at_any_step_no_pod_stays_frozen() {
    use Wrong::{Bound, Cut, Error, Hang, Sigkill, Sigterm};
    let outcomes = Mutex::new(Vec::new());
    let cells = [Error, Hang, Cut, Sigterm, Bound, Sigkill].map(|wrong| STEPS.map(|step| (step, wrong)));
    stream::iter(cells.into_iter().flatten())
        .for_each_concurrent(4, async |(step, wrong)| {
            with_database(Options::default(), async |cluster| {
                let outcome = play(cluster, step, wrong).await;
                outcomes.lock().expect("no test panicked with it").push(outcome);
            })
            .await;
        })
        .await;
    let mut outcomes = outcomes.into_inner().expect("no test panicked with it");
    outcomes.sort_by_key(|outcome| (outcome.step as u8, outcome.wrong as u8));
    let mut table = String::from("\nstep     fault    exit  at the end  frozen for  consistent\n");
    for Outcome { step, wrong, exit, is_frozen, frozen, consistent } in &outcomes {
        let (step, wrong) = (format!("{step:?}"), format!("{wrong:?}"));
        let exit = exit.map_or("-".to_owned(), |exit| exit.to_string());
        let end = if *is_frozen { "FROZEN" } else { "thawed" };
        let _ = writeln!(
            table,
            "{step:8} {wrong:8} {exit:>4}  {end:10}  {:6.2} s    {consistent} of 2",
            frozen.as_secs_f64()
        );
    }
    let _ = std::io::stderr().write_all(table.as_bytes());
    for Outcome { step, wrong, exit, is_frozen, frozen, consistent } in outcomes {
        let cell = format!("{step:?} {wrong:?}");
        assert!(!is_frozen, "{cell}");
        assert!(frozen > Duration::ZERO, "{cell}: nothing was tried");
        let (code, most, labelled) = match (step, wrong) {
            (_, Sigkill) => (None, 4000, None),
            // The trouble of the first post hook costs its timeout.
            (Step::Post, Sigterm) => (Some(143), 1500, Some(0)),
            (Step::Pre, Sigterm) => (Some(143), 1500, Some(0)),
            (_, Sigterm) => (Some(143), 1500, Some(0)),
            (_, Bound) => (Some(1), 1500, Some(0)),
            (Step::Pre, Error | Cut) => (Some(1), 1000, Some(0)),
            (Step::Pre, Hang) => (Some(1), 2000, Some(0)),
            (Step::Create, Error) => (Some(2), 1000, Some(0)),
            (Step::Create, Hang) => (None, 2000, Some(0)),
            (Step::Create, Cut) => (Some(0), 1500, Some(2)),
            (Step::Taken, Error) => (Some(1), 2000, Some(0)),
            (Step::Taken, Hang) => (Some(0), 2000, Some(0)),
            (Step::Taken, Cut) => (Some(0), 1900, Some(2)),
            (Step::Post, Error | Cut) => (Some(0), 1500, Some(2)),
            (Step::Post, Hang) => (Some(0), 7000, Some(2)),
        };
        assert_eq!(exit, code, "{cell}");
        assert!(frozen < millis(most), "{cell}: frozen for {frozen:?}");
        if let Some(labelled) = labelled {
            assert_eq!(consistent, labelled, "{cell}");
        }
    }
}
