//! Hooks: what is run in pods around the snapshots of their claims, in which order, and that no pod stays frozen
//! whatever goes wrong at whichever step.

mod open;

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
    hooks::Hook,
    report::{Report, Stop},
    run::run,
    settings::Settings,
};

use crate::{
    manifests::top,
    test_cluster::{Ran, TestCluster, embedded, rules},
};

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

/// The annotations of a pod whose pre hook is kept open.
fn kept_open(further: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = [&[("command", "freeze"), ("ready-line", "frozen")], further].concat();
    all.iter()
        .map(|(key, value)| (format!("pre.hook.volume-snapshotter/{key}"), (*value).to_owned()))
        .collect()
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

/// How a pod is frozen and thawed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// With a pre hook and a post hook.
    Two,
    /// With a pre hook that is kept open.
    Open,
}

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

/// A pre hook that is kept open, and goes wrong in a step. It thaws whenever it ends: nobody else does.
fn session(step: Step, wrong: Wrong) -> Script {
    let frozen = Script::new().freeze();
    match (step, wrong) {
        (Step::Pre, Wrong::Error) => frozen.complains("half of it\n").thaw().exits(3),
        (Step::Pre, wrong) if wrong.is_stop() => frozen.until_input_ends().thaw(),
        (Step::Post, wrong) => {
            let ended = frozen.prints("frozen\n").until_input_ends();
            match wrong {
                Wrong::Error => ended.thaw().complains("not all of it\n").exits(1),
                Wrong::Hang => ended.thaw().hangs(),
                Wrong::Cut => ended.thaw().prints("thawed\n"),
                // So that it can be stopped meanwhile.
                _ => ended.wait(millis(500)).thaw(),
            }
        }
        _ => frozen.complains("a warning\n").prints("frozen\n").until_input_ends().thaw(),
    }
}

/// Arranges that a step goes wrong. The first post hook alone does: no client can thaw what cannot be thawed.
fn arrange(cluster: &TestCluster, form: Form, step: Step, wrong: Wrong) {
    let fake = cluster.fake();
    let first = AtomicBool::new(true);
    fake.commands(move |command| {
        if form == Form::Open {
            return Some(session(step, wrong));
        }
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
        (Step::Post, Wrong::Cut) if form == Form::Open => {
            fake.fault(|request| {
                runs(request, "freeze").then_some(Fault::Exec(ExecFault::CutAfterBytes(20)))
            });
        }
        (Step::Post, _) if form == Form::Open => {}
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
        Step::Post => {
            let processes = cluster.fake().processes();
            let has_no_input =
                |process: &fake_apiserver::Process| process.command.stdin && process.input_ended;
            requests().iter().any(|request| runs(request, "thaw")) || processes.iter().any(has_no_input)
        }
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
    form: Form,
    step: Step,
    wrong: Wrong,
    exit: Option<i32>,
    is_frozen: bool,
    frozen: Duration,
    consistent: usize,
}

async fn play(cluster: &TestCluster, form: Form, step: Step, wrong: Wrong) -> Outcome {
    let hangs =
        matches!((form, step, wrong), (_, Step::Pre, Wrong::Hang) | (Form::Open, Step::Post, Wrong::Hang));
    let timeout = if hangs { "1s" } else { "20s" };
    let annotations = match form {
        Form::Two => freezing(&[("pre/timeout", timeout), ("post/timeout", "5s")]),
        Form::Open => kept_open(&[("timeout", timeout)]),
    };
    cluster.put_pod("db", &["data", "logs"], &annotations);
    arrange(cluster, form, step, wrong);
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
            // The end of the connection is the end of the input.
            assert!(
                form == Form::Open || cluster.fake().is_frozen(&cluster.namespace, "db"),
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
        form,
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
    let cells =
        [Form::Two, Form::Open].map(|form| cells.map(|cells| cells.map(|(step, wrong)| (form, step, wrong))));
    stream::iter(cells.into_iter().flatten().flatten())
        .for_each_concurrent(4, async |(form, step, wrong)| {
            with_database(Options::default(), async |cluster| {
                let outcome = play(cluster, form, step, wrong).await;
                outcomes.lock().expect("no test panicked with it").push(outcome);
            })
            .await;
        })
        .await;
    let mut outcomes = outcomes.into_inner().expect("no test panicked with it");
    outcomes.sort_by_key(|outcome| (outcome.form as u8, outcome.step as u8, outcome.wrong as u8));
    let mut table = String::from("\nform step     fault    exit  at the end  frozen for  consistent\n");
    for Outcome { form, step, wrong, exit, is_frozen, frozen, consistent } in &outcomes {
        let (form, step, wrong) = (format!("{form:?}"), format!("{step:?}"), format!("{wrong:?}"));
        let exit = exit.map_or("-".to_owned(), |exit| exit.to_string());
        let end = if *is_frozen { "FROZEN" } else { "thawed" };
        let _ = writeln!(
            table,
            "{form:4} {step:8} {wrong:8} {exit:>4}  {end:10}  {:6.2} s    {consistent} of 2",
            frozen.as_secs_f64()
        );
    }
    let _ = std::io::stderr().write_all(table.as_bytes());
    for Outcome { form, step, wrong, exit, is_frozen, frozen, consistent } in outcomes {
        let cell = format!("{form:?} {step:?} {wrong:?}");
        assert!(!is_frozen, "{cell}");
        assert!(frozen > Duration::ZERO, "{cell}: nothing was tried");
        let (code, most, labelled) = match (step, wrong) {
            (_, Sigkill) if form == Form::Open => (None, 1500, None),
            // How it ended is said by nobody, or is no good end.
            (Step::Post, Error | Cut | Hang) if form == Form::Open => (Some(2), 1500, Some(0)),
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

/// A command that its client gave up may still come to freeze the pod.
#[tokio::test]
async fn a_pre_hook_that_freezes_after_its_time_is_thawed_all_the_same() {
    with_database(Options::default(), async |cluster| {
        cluster.put_pod("db", &["data", "logs"], &freezing(&[("pre/timeout", "700ms")]));
        cluster.fake().commands(|command| match command.line().as_str() {
            "freeze" => Some(Script::new().wait(millis(1000)).freeze()),
            _ => script(command),
        });
        let ran = cluster.run_hooks(&[BOTH]).await;
        ran.assert_exit(1);
        assert!(ran.message.contains("it did not end within 0.70 s"), "{}", ran.message);
        let frozen = cluster.frozen_for("db");
        assert!(!cluster.fake().is_frozen(&cluster.namespace, "db"));
        assert!(frozen > Duration::ZERO && frozen < millis(1500), "{frozen:?}");
    })
    .await;
}

/// Both are said on the claims, and the storage's snapshot is no worse for it.
#[tokio::test]
async fn a_post_hook_that_never_goes_well_is_no_success() {
    with_database(Options::default(), async |cluster| {
        cluster.older("old", "data").await;
        for (on_error, exit) in [("fail", 2), ("continue", 0)] {
            cluster.put_pod("db", &["data", "logs"], &freezing(&[("post/on-error", on_error)]));
            cluster.fake().commands(|command| match command.line().as_str() {
                "thaw" => Some(Script::new().complains("\u{1b}[2Jno such\ntable").exits(7)),
                _ => script(command),
            });
            let ran = cluster.run_hooks(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
            ran.assert_exit(exit);
            let said = "cannot run the post hook in container main of pod db in namespace";
            let ends = "it exited with 7; it said:  [2Jno such table; pod db may still be frozen";
            let lines = ran.lines(said);
            assert!(
                lines.iter().any(|line| line["message"].as_str().is_some_and(|line| line.contains(ends))),
                "{lines:?}"
            );
            assert_eq!(ran.message.contains("/db may still be frozen: "), exit == 2, "{}", ran.message);
            assert_eq!(cluster.names().await.contains(&"old".to_owned()), exit == 2, "{on_error}");
            cluster.fake().thaw(&cluster.namespace, "db");
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_failed_pre_hook_means_for_a_claim_is_said_by_on_error() {
    with_database(Options::default(), async |cluster| {
        cluster.claim("other").await;
        let both = ("SNAPSHOT_PVC_NAMES", "data,other");
        cluster.fake().commands(|command| match command.line().as_str() {
            "freeze" => Some(Script::new().freeze().complains("the disk is full").exits(1)),
            _ => script(command),
        });
        let ran = cluster.run_hooks(&[both]).await;
        ran.assert_exit(1);
        assert!(ran.message.contains("1 of 2 claims has a new ready snapshot"), "{}", ran.message);
        let said = "data: cannot run the pre hook in container main of pod db in namespace";
        assert!(ran.message.contains(said), "{}", ran.message);
        assert!(ran.message.contains("it exited with 1; it said: the disk is full"), "{}", ran.message);
        let snapshots = cluster.snapshots().await;
        assert_eq!(snapshots.len(), 1);
        assert_eq!(snapshots[0]["spec"]["source"]["persistentVolumeClaimName"], "other");
        assert!(snapshots[0]["metadata"]["labels"][LABEL].is_null(), "nothing was asked for");

        cluster.put_pod("db", &["data"], &freezing(&[("pre/on-error", "continue")]));
        let ran = cluster.run_hooks(&[both]).await;
        ran.assert_exit(0);
        assert!(ran.message.contains("; 1 of them is not consistent"), "{}", ran.message);
        assert!(ran.message.contains(", not consistent (cannot run the pre hook"), "{}", ran.message);
        assert_eq!(ran.lines("the snapshot will not be consistent").len(), 1);
        assert!(cluster.snapshots().await.iter().all(|one| one["metadata"]["labels"][LABEL].is_null()));
        assert!(!cluster.fake().is_frozen(&cluster.namespace, "db"));
    })
    .await;
}

/// Claims that are not in time, or in a pod that is thawed too early, are never called consistent.
#[tokio::test]
async fn a_snapshot_that_is_taken_after_the_thaw_is_not_called_consistent() {
    with_database(Options::default(), async |cluster| {
        // One in time, one not.
        cluster.fake().plan(|snapshot| {
            let late = snapshot["spec"]["source"]["persistentVolumeClaimName"] == "logs";
            Some(Plan::ready_after(millis(2000)).taken_after(millis(if late { 1500 } else { 50 })))
        });
        let ran = cluster.run_hooks(&[BOTH, ("SNAPSHOT_FREEZE_TIMEOUT", "700ms")]).await;
        ran.assert_exit(0);
        for snapshot in cluster.snapshots().await {
            let of_logs = snapshot["spec"]["source"]["persistentVolumeClaimName"] == "logs";
            assert_eq!(snapshot["metadata"]["labels"][LABEL].is_null(), of_logs, "{snapshot}");
        }
        let said =
            "not consistent (it was not taken within 0.70 s after the pre hooks (SNAPSHOT_FREEZE_TIMEOUT)";
        assert!(ran.message.contains(said), "{}", ran.message);
        assert!(ran.message.contains("; 1 of them is not consistent"), "{}", ran.message);
    })
    .await;
}

/// Nobody knows until when it held.
#[tokio::test]
async fn a_pod_that_goes_away_while_it_is_frozen_makes_nothing_consistent_and_nothing_fail() {
    with_database(Options::default(), async |cluster| {
        cluster.fake().plan(|_| Some(Plan::ready_after(millis(1500)).taken_after(millis(800))));
        let running = cluster.start(&permissions(), &[BOTH, ("SNAPSHOT_HOOKS", "true")]).await;
        until_at(cluster, Step::Taken).await;
        cluster.fake().delete("pods", &cluster.namespace, "db");
        let ran = running.finish().await;
        ran.assert_exit(0);
        assert!(ran.message.contains("; 2 of them are not consistent"), "{}", ran.message);
        assert!(ran.message.contains("pod db is gone, and what it held went with it"), "{}", ran.message);
        assert!(cluster.snapshots().await.iter().all(|one| one["metadata"]["labels"][LABEL].is_null()));
    })
    .await;
}

// --- What is asked, and by which right -------------------------------------------------------------

#[tokio::test]
async fn without_the_setting_nothing_is_asked_that_was_not_asked_before() {
    let asked = Mutex::new(Vec::new());
    for pod in [false, true] {
        embedded(Options::default(), async |cluster| {
            cluster.claim("data").await;
            if pod {
                cluster.put_pod("db", &["data"], &freezing(&[]));
            }
            let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
            ran.assert_exit(0);
            assert!(!ran.message.contains("consistent"), "{}", ran.message);
            // The watch is opened beside the rest.
            let mut now = cluster.asked();
            now.sort();
            asked.lock().expect("no test panicked with it").push(now);
        })
        .await;
    }
    let asked = asked.into_inner().expect("no test panicked with it");
    let expected = [
        "create volumesnapshots",
        "get persistentvolumeclaims",
        "list volumesnapshots",
        "watch volumesnapshots",
    ];
    assert_eq!(asked[0], expected);
    assert_eq!(asked[0], asked[1]);
}

#[tokio::test]
async fn what_the_role_lacks_is_named() {
    with_database(Options::default(), async |cluster| {
        for (missing, said, commands) in [
            (("pods", "list"), "resources: [\"pods\"], verbs: [\"list\"]", 0),
            (("pods/exec", "get"), "resources: [\"pods/exec\"], verbs: [\"get\"]", 0),
            (("pods/exec", "create"), "resources: [\"pods/exec\"], verbs: [\"create\"]", 0),
            (("volumesnapshots", "patch"), "resources: [\"volumesnapshots\"], verbs: [\"patch\"]", 2),
        ] {
            let all = [PERMISSIONS, HOOK_PERMISSIONS].concat();
            let granted: Vec<_> = all.into_iter().filter(|one| (one.resource, one.verb) != missing).collect();
            let before = cluster.fake().processes().len();
            let settings = [("SNAPSHOT_HOOKS", "true"), ("SNAPSHOT_PVC_NAMES", "data")];
            let ran = cluster.run_with_permissions(&rules(&granted), &settings).await;
            // A label that is missing is no reason to fail.
            ran.assert_exit(if commands == 0 { 2 } else { 0 });
            assert_eq!(cluster.fake().processes().len() - before, commands, "{missing:?}");
            let lines = ran.lines(said);
            assert!(!lines.is_empty(), "{missing:?}: {}", ran.message);
            assert!(
                lines[lines.len() - 1]["message"].to_string().contains("the component hooks grants"),
                "{lines:?}"
            );
            assert_eq!(cluster.names().await.is_empty(), commands == 0, "{missing:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_runs_nothing_in_pods() {
    with_database(Options::default(), async |cluster| {
        let ran = cluster.run_hooks(&[BOTH, ("SNAPSHOT_DRY_RUN", "true")]).await;
        ran.assert_exit(0);
        let lines = ran.lines("would run the hooks of pod db for 2 claims");
        assert_eq!(lines.len(), 1);
        assert_eq!(
            (&lines[0]["pre"], &lines[0]["post"]),
            (&json!("freeze in container main"), &json!("thaw in container main"))
        );
        assert_eq!(cluster.fake().processes().len(), 0);
    })
    .await;
}

// --- Which pods, which containers ------------------------------------------------------------------

/// What was run where: container and command, in order.
fn ran_in(cluster: &TestCluster) -> Vec<(String, String, String)> {
    let command = |process: &fake_apiserver::Process| process.command.clone();
    let processes = cluster.fake().processes();
    processes
        .iter()
        .map(command)
        .map(|one| {
            let line = one.line();
            (one.pod, one.container, line)
        })
        .collect()
}

#[tokio::test]
async fn veleros_annotations_work_as_they_stand_and_the_container_is_always_named() {
    embedded(Options::default(), async |cluster| {
        cluster.claim("data").await;
        cluster.fake().commands(script);
        let velero = [
            ("pre.hook.backup.velero.io/command", "[\"freeze\"]"),
            ("pre.hook.backup.velero.io/container", "proxy"),
            ("pre.hook.backup.velero.io/on-error", "Fail"),
            ("pre.hook.backup.velero.io/timeout", "30s"),
            ("post.hook.backup.velero.io/command", "thaw"),
        ];
        let pod = objects::running_pod(&cluster.namespace, "db", &["main", "web"], &["data"]);
        let mut pod = objects::with_sidecar(pod, "proxy");
        for (key, value) in velero {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        cluster.fake().put(pod.clone());
        // Those that do not run are left alone.
        for phase in ["Succeeded", "Failed", "Pending"] {
            let mut other = pod.clone();
            other["metadata"]["name"] = json!(phase.to_lowercase());
            other["status"]["phase"] = json!(phase);
            cluster.fake().put(other);
        }
        cluster.run_hooks(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        let expected = [("db", "proxy", "freeze"), ("db", "main", "thaw")]
            .map(|(pod, container, command)| (pod.to_owned(), container.to_owned(), command.to_owned()));
        assert_eq!(ran_in(cluster), expected);
        let execs = cluster.fake().requests();
        let mut execs = execs.iter().filter(|request| request.resource == "pods/exec");
        assert!(execs.all(|exec| exec.parameter("container").is_some_and(|name| !name.is_empty())));
        assert_eq!(cluster.snapshots().await[0]["metadata"]["labels"][LABEL], "true");

        // What cannot be understood stops the claim, and nothing is run.
        cluster.fake().annotate(
            "pods",
            &cluster.namespace,
            "db",
            "pre.hook.volume-snapshotter/comand",
            Some("freeze"),
        );
        let ran = cluster.run_hooks(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        ran.assert_exit(2);
        assert!(
            ran.message.contains("pre.hook.volume-snapshotter/comand of pod db is invalid"),
            "{}",
            ran.message
        );
        assert_eq!((ran_in(cluster).len(), cluster.names().await.len()), (2, 1));
    })
    .await;
}

/// Pods that claims connect: all pre hooks, then all creates, then each pod's post hook when its own claims are taken.
#[tokio::test]
async fn pods_that_share_claims_are_frozen_together_and_others_are_not_held_up() {
    embedded(Options::default(), async |cluster| {
        for claim in ["a", "b", "c", "d"] {
            cluster.claim(claim).await;
        }
        cluster.put_pod("one", &["a", "b"], &freezing(&[]));
        cluster.put_pod("two", &["b", "c"], &freezing(&[]));
        cluster.put_pod("three", &["d"], &freezing(&[]));
        cluster.fake().commands(|command| match (command.line().as_str(), command.pod.as_str()) {
            ("freeze", "two") => Some(Script::new().wait(millis(400)).freeze()),
            _ => script(command),
        });
        cluster.fake().plan(|snapshot| {
            let late = snapshot["spec"]["source"]["persistentVolumeClaimName"] == "c";
            Some(Plan::ready_after(millis(1200)).taken_after(millis(if late { 600 } else { 50 })))
        });
        // One unit at a time would do as well: a unit counts as one.
        let ran =
            cluster.run_hooks(&[("SNAPSHOT_PVC_SELECTOR", "!none"), ("SNAPSHOT_MAX_PENDING", "2")]).await;
        ran.assert_exit(0);
        let of = |pod: &str| cluster.fake().freezes(&cluster.namespace, pod)[0];
        let (one, two, three) = (of("one"), of("two"), of("three"));
        assert!(one.until < two.until, "each is thawed as soon as its own claims allow");
        assert!(three.until < Some(two.since + millis(100)), "another unit goes its own way");
        let history = cluster.fake().snapshot_history();
        let created = history.iter().filter(|one| one.stage == fake_apiserver::Stage::Created);
        let of_unit = created.filter(|one| one.at > two.since).count();
        assert_eq!(of_unit, 3, "nothing of the unit is made before all its pods are frozen");
        assert!(cluster.snapshots().await.iter().all(|one| one["metadata"]["labels"][LABEL] == "true"));
    })
    .await;
}

/// A pod whose claims two pods of an Indexed Job would share is frozen by one of the two.
#[tokio::test]
async fn shards_do_not_share_a_pod() {
    embedded(Options::default(), async |cluster| {
        let claims: Vec<String> = (0..6).map(|number| format!("data-{number}")).collect();
        for claim in &claims {
            cluster.claim(claim).await;
        }
        let mounted: Vec<&str> = claims.iter().take(4).map(String::as_str).collect();
        cluster.put_pod("db", &mounted, &freezing(&[]));
        cluster.fake().commands(script);
        for (shard, names) in [("0", claims.join(",")), ("1", claims.join(","))] {
            let settings = [
                ("SNAPSHOT_PVC_NAMES", names.as_str()),
                ("SNAPSHOT_SHARDS", "2"),
                ("JOB_COMPLETION_INDEX", shard),
            ];
            cluster.run_hooks(&settings).await.assert_exit(0);
        }
        assert_eq!(cluster.fake().freezes(&cluster.namespace, "db").len(), 1);
        assert_eq!(cluster.snapshots().await.len(), 6, "each claim is in one shard");
    })
    .await;
}

#[tokio::test]
async fn the_jobs_next_attempt_goes_on_without_hooks() {
    with_database(Options::default(), async |cluster| {
        cluster.fake().plan(|_| Some(Plan::ready_after(millis(1500)).taken_after(millis(50))));
        let settings = [BOTH, ("SNAPSHOT_RUN_ID", "hourly-1"), ("SNAPSHOT_HOOKS", "true")];
        let running = cluster.start(&permissions(), &settings).await;
        cluster.until("it is thawed", async || ran_in(cluster).len() == 2).await;
        running.kill().await;
        let ran = cluster.run_hooks(&settings[..2]).await;
        ran.assert_exit(0);
        assert_eq!((ran_in(cluster).len(), cluster.names().await.len()), (2, 2));
        // One that is still to be made is made with hooks.
        let name = cluster.names().await.remove(0);
        cluster.delete_snapshot(&name).await;
        cluster.until("it is gone", async || cluster.names().await.len() == 1).await;
        cluster.run_hooks(&settings[..2]).await.assert_exit(0);
        assert_eq!((ran_in(cluster).len(), cluster.names().await.len()), (4, 2));
    })
    .await;
}

/// As a real cluster speaks: over TLS, and before 1.30 only the older of the two protocols.
#[tokio::test]
async fn commands_are_run_over_tls_and_in_the_old_protocol_and_much_output_does_no_harm() {
    const MUCH: usize = 8 << 20;
    for (tls, exec_protocols) in
        [(true, Options::default().exec_protocols), (false, &["v4.channel.k8s.io"][..])]
    {
        with_database(Options { tls, exec_protocols, ..Options::default() }, async |cluster| {
            cluster.fake().commands(|command| {
                let much =
                    (0..64).fold(Script::new().freeze(), |script, _| script.prints(vec![b'x'; MUCH / 64]));
                Some(if command.line() == "thaw" { Script::new().thaw() } else { much.complains("the end") })
            });
            let ran = cluster.run_hooks(&[BOTH, ("RUST_LOG", "debug")]).await;
            ran.assert_exit(0);
            let lines = ran.lines("output of the pre hook");
            let output = lines[0]["output"].as_str().expect("the output");
            assert!(output.ends_with("xxxthe end") && output.len() < 1000, "{output}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_stream_that_says_nothing_of_the_commands_end_is_a_failure() {
    for fault in [
        ExecFault::NoStatus,
        ExecFault::Status("{}".to_owned()),
        ExecFault::Status("no JSON".to_owned()),
        ExecFault::EndsAfter(Duration::ZERO),
    ] {
        with_database(Options::default(), async |cluster| {
            let fault = fault.clone();
            cluster.put_pod("db", &["data", "logs"], &freezing(&[("pre/timeout", "500ms")]));
            cluster.fake().commands(|command| match command.line().as_str() {
                "freeze" => Some(Script::new().freeze().wait(millis(100))),
                _ => script(command),
            });
            cluster.fake().fault_nth(|request| request.resource == "pods/exec", 1, Fault::Exec(fault));
            let ran = cluster.run_hooks(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
            ran.assert_exit(1);
            assert!(ran.message.contains("cannot run the pre hook"), "{}", ran.message);
            assert!(!cluster.fake().is_frozen(&cluster.namespace, "db") && cluster.names().await.is_empty());
        })
        .await;
    }
}

// --- What the documentation has people write -------------------------------------------------------

#[tokio::test]
async fn the_hooks_of_the_documentation_are_understood() {
    let page = std::fs::read_to_string(top().join("docs/hooks.md")).expect("docs/hooks.md");
    let blocks: Vec<&str> = page
        .split("```text\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|block| block.contains("annotations:"))
        .collect();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        let mut pod: Value = serde_saphyr::from_str(block).expect("YAML");
        let annotations = pod["metadata"]["annotations"].clone();
        let container = annotations["pre.hook.volume-snapshotter/container"].clone();
        pod["metadata"]["name"] = json!("db");
        pod["status"] = json!({"phase": "Running"});
        pod["spec"] = json!({
            "containers": [{"name": "other"}, {"name": container}],
            "volumes": [{"persistentVolumeClaim": {"claimName": "data"}}],
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        let hooks = volume_snapshotter::hooks::of_pod("app", pod).expect("hooks").hooks.expect(block);
        let waits = |hook: &Hook| hook.command.iter().any(|word| word.contains("cat >/dev/null"));
        assert!(hooks.pre.iter().all(|pre| pre.ready_line.is_some() == waits(pre)), "{block}");
        for hook in hooks.pre.iter().chain(&hooks.post) {
            if let [shell, _, script] = &hook.command[..] {
                let read = std::process::Command::new(shell).args(["-n", "-c", script]).output();
                let read = read.expect("a shell");
                assert!(read.status.success(), "{script}: {}", String::from_utf8_lossy(&read.stderr));
            }
        }
    }
}
