//! Metrics of a run: what a real Pushgateway and a real Prometheus make of them, and what happens when nobody takes them.
//!
//! Both programs are skipped with a printed word where they are not installed (Debian: `apt-get install prometheus
//! prometheus-pushgateway`).

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use fake_apiserver::{Fault, Options, Plan, Receiver, Reply, WatchFault, objects};
use serde_json::json;
use tokio::time::sleep;

use super::ping::{DATA, SECRET, assert_kept_secret, put_claim, trace, wrong};
use crate::{
    alerts::prometheus::query,
    daemons::{Daemon, version},
    test_cluster::{Ran, TestCluster, all_permissions, embedded},
};

const URL: &str = "SNAPSHOT_PUSHGATEWAY_URL";
const PATIENCE: Duration = Duration::from_secs(60);

/// A run that pushes to this URL.
pub(super) async fn run(cluster: &TestCluster, url: &str, settings: &[(&str, &str)]) -> Ran {
    cluster.run(&[settings, &[(URL, url)]].concat()).await
}

// --- The real ones -----------------------------------------------------------------------------------

pub(super) fn directory(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("push").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    directory
}

pub(super) fn pushgateway(directory: &Path) -> Daemon {
    Daemon::start("prometheus-pushgateway", directory, "/-/ready", |port| {
        // Debian's keeps what it knows in a file of the system.
        vec!["--persistence.file=".to_owned(), format!("--web.listen-address=127.0.0.1:{port}")]
    })
}

/// A Prometheus that scrapes a Pushgateway as the documents say.
pub(super) fn prometheus(directory: &Path, pushgateway: &Daemon) -> Daemon {
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{
            "job_name": "pushgateway",
            "honor_labels": true,
            "static_configs": [{"targets": [format!("127.0.0.1:{}", pushgateway.port)]}],
        }],
    });
    fs::write(directory.join("prometheus.yml"), config.to_string()).expect("a file");
    Daemon::start("prometheus", directory, "/-/ready", |port| {
        vec![
            "--config.file=prometheus.yml".to_owned(),
            "--storage.tsdb.path=data".to_owned(),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ]
    })
}

/// Asks until the answer is this, and prints it.
pub(super) async fn until(prometheus: &Daemon, expression: &str, is: impl Fn(Option<f64>) -> bool) -> f64 {
    let began = Instant::now();
    loop {
        let value = query(prometheus, expression);
        if is(value) {
            println!("{expression} = {value:?}");
            return value.unwrap_or(f64::NAN);
        }
        assert!(began.elapsed() < PATIENCE, "{expression} is {value:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_failure_keeps_the_last_success_and_the_newest_snapshot_of_every_claim() {
    const SKIPPED: &str = "no real Pushgateway keeps the last success";
    if version("prometheus-pushgateway", SKIPPED).is_none() || version("prometheus", SKIPPED).is_none() {
        return;
    }
    let directory = directory("real");
    let pushgateway = pushgateway(&directory);
    let prometheus = prometheus(&directory, &pushgateway);
    let url = format!("http://127.0.0.1:{}", pushgateway.port);
    embedded(Options::default(), async |cluster| {
        for name in ["data", "logs"] {
            cluster.fake().put(objects::bound_claim(&cluster.namespace, name, &[]));
        }
        let of = |schedule: &str, metric: &str, labels: &str| {
            let namespace = &cluster.namespace;
            format!(
                "volume_snapshotter_{metric}{{namespace=\"{namespace}\",schedule=\"{schedule}\"{labels}}}"
            )
        };
        let hourly = |metric: &str, labels: &str| of("hourly", metric, labels);
        let settings = |schedule| {
            [
                ("SNAPSHOT_PVC_NAMES", "data,logs"),
                ("SNAPSHOT_JOB", schedule),
                ("SNAPSHOT_READY_ATTEMPTS", "1"),
                ("SNAPSHOT_READY_INTERVAL", "2s"),
            ]
        };
        let ran = run(cluster, &url, &settings("hourly")).await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("cannot push").len(), 0, "{:?}", ran.log);
        let success =
            until(&prometheus, &hourly("last_success_timestamp_seconds", ""), |v| v.is_some()).await;
        until(&prometheus, &hourly("run_exit_code", ""), |v| v == Some(0.0)).await;
        let logs = ",persistentvolumeclaim=\"logs\"";
        let taken =
            until(&prometheus, &hourly("claim_newest_ready_timestamp_seconds", logs), |v| v > Some(1e9))
                .await;
        until(&prometheus, &hourly("claim_failures", logs), |v| v == Some(0.0)).await;

        // Another schedule, and pods that share the claims.
        run(cluster, &url, &settings("weekly")).await.assert_exit(0);
        for index in ["0", "1"] {
            let shards = [("SNAPSHOT_SHARDS", "2"), ("JOB_COMPLETION_INDEX", index)];
            run(cluster, &url, &[&settings("sharded")[..], &shards].concat()).await.assert_exit(0);
        }
        until(&prometheus, &of("weekly", "run_exit_code", ""), |v| v == Some(0.0)).await;
        let shards = format!("count({})", of("sharded", "run_exit_code", ",shard=~\".-of-2\""));
        until(&prometheus, &shards, |v| v == Some(2.0)).await;

        // One claim of two fails.
        sleep(Duration::from_secs(1)).await;
        cluster.fake().plan(|snapshot| {
            (snapshot["spec"]["source"]["persistentVolumeClaimName"] == "logs").then(Plan::never)
        });
        run(cluster, &url, &settings("hourly")).await.assert_exit(1);
        until(&prometheus, &hourly("run_exit_code", ""), |v| v == Some(1.0)).await;
        let newest = |claim: &str| {
            let claim = format!(",persistentvolumeclaim=\"{claim}\"");
            hourly("claim_newest_ready_timestamp_seconds", &claim)
        };
        until(&prometheus, &newest("data"), |v| v > Some(taken)).await;
        until(&prometheus, &newest("logs"), |v| v == Some(taken)).await;
        until(&prometheus, &hourly("last_success_timestamp_seconds", ""), |v| v == Some(success)).await;
        until(
            &prometheus,
            &hourly("claim_failures", ",persistentvolumeclaim=\"logs\",reason=\"not_ready\""),
            |v| v == Some(1.0),
        )
        .await;
        until(&prometheus, &hourly("run_failures", ",reason=\"not_ready\""), |v| v == Some(1.0)).await;
        until(&prometheus, &hourly("claim_ready_snapshots", logs), |v| v == Some(1.0)).await;
        let last_run = hourly("last_run_timestamp_seconds", "");
        until(&prometheus, &last_run, |v| v > Some(success)).await;
        // The other schedule is what it was.
        until(&prometheus, &of("weekly", "run_exit_code", ""), |v| v == Some(0.0)).await;
        assert_eq!(query(&prometheus, &of("weekly", "run_failures", ",reason=\"not_ready\"")), Some(0.0));

        // A claim that is gone is a failure too, and nothing is forgotten of the others.
        cluster.fake().plan(|_| None);
        let missing = [("SNAPSHOT_PVC_NAMES", "logs,missing"), ("SNAPSHOT_JOB", "hourly")];
        run(cluster, &url, &missing).await.assert_exit(2);
        until(&prometheus, &hourly("run_exit_code", ""), |v| v == Some(2.0)).await;
        until(&prometheus, &newest("missing"), |v| v == Some(0.0)).await;
        until(&prometheus, &newest("logs"), |v| v > Some(taken)).await;
        until(&prometheus, &hourly("last_success_timestamp_seconds", ""), |v| v == Some(success)).await;
    })
    .await;
}

/// The body of a push after a run that went well.
pub(super) async fn pushed(cluster: &TestCluster) -> String {
    let receiver = Receiver::start(false, |_| Reply::new(200, "")).await;
    run(cluster, &receiver.url(), &[DATA]).await.assert_exit(0);
    receiver.received().remove(0).body
}

#[tokio::test]
async fn the_metrics_follow_the_conventions_of_prometheus() {
    if version("promtool", "the metrics' names are not checked").is_none() {
        return;
    }
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let body = pushed(cluster).await;
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool");
        promtool.stdin.take().expect("a pipe").write_all(body.as_bytes()).expect("it reads");
        let said = promtool.wait_with_output().expect("promtool");
        let said =
            format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert_eq!(said, "", "{body}");
    })
    .await;
}

// --- What is sent ------------------------------------------------------------------------------------

#[tokio::test]
async fn a_push_is_a_post_to_the_group_of_the_schedule_with_the_urls_user() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let receiver = Receiver::start(true, |_| Reply::new(200, "")).await;
        let ca = cluster.file("ca.pem", receiver.ca_pem().expect("TLS"));
        let ca = ca.to_str().expect("a path");
        let url = receiver.url().replace("://", "://me:p%40ss@") + "/base/";
        let settings = [DATA, ("SNAPSHOT_JOB", "nightly"), ("SNAPSHOT_NOTIFY_CA_FILE", ca)];
        let ran = run(cluster, &url, &settings).await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("cannot push").len(), 0, "{:?}", ran.log);
        let received = receiver.received();
        let [push] = received.as_slice() else { panic!("{received:?}") };
        assert_eq!(push.method, "POST");
        let group = format!("job/volume-snapshotter/namespace/{}/schedule/nightly", cluster.namespace);
        assert_eq!(push.path, format!("/base/metrics/{group}"));
        assert_eq!(push.headers["authorization"], "Basic bWU6cEBzcw==");
        assert_eq!(push.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        let success = "\nvolume_snapshotter_last_success_timestamp_seconds 1";
        assert!(push.body.contains(success), "{}", push.body);
    })
    .await;
}

#[tokio::test]
async fn a_dry_run_pushes_nothing() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let receiver = Receiver::start(false, |_| Reply::new(200, "")).await;
        run(cluster, &receiver.url(), &[DATA, ("SNAPSHOT_DRY_RUN", "true")]).await.assert_exit(0);
        assert!(receiver.received().is_empty());
    })
    .await;
}

/// Also if nothing was heard of the deletion yet.
#[tokio::test]
async fn what_was_just_deleted_is_not_counted_as_ready() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        pushed(cluster).await;
        cluster.fake().fault(|request| (request.verb == "watch").then_some(Fault::Watch(WatchFault::Silent)));
        let receiver = Receiver::start(false, |_| Reply::new(200, "")).await;
        let ran = run(cluster, &receiver.url(), &[DATA, ("SNAPSHOT_READY_INTERVAL", "1s")]).await;
        ran.assert_exit(0);
        let body = receiver.received().remove(0).body;
        for (metric, value) in [("deleted", "1.0"), ("ready", "1.0"), ("terminating", "0.0")] {
            let name = format!("volume_snapshotter_claim_{metric}_snapshots{{");
            let series = body.lines().find(|line| line.starts_with(&name)).expect("a series");
            assert!(series.ends_with(&format!("}} {value}")), "{series}");
        }
    })
    .await;
}

// --- What goes wrong ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_push_that_fails_is_one_warning_and_changes_nothing() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let bad = ("finds it inconsistent", Reply::new(400, SECRET), "the log of the Pushgateway says why");
        for (what, reply, said) in wrong().into_iter().chain([bad]) {
            let receiver = Receiver::start(false, move |_| reply.clone()).await;
            let ran = run(cluster, &format!("{}/{SECRET}", receiver.url()), &[DATA]).await;
            ran.assert_exit(0);
            assert!(ran.took < Duration::from_secs(11), "{what}: {:?}", ran.took);
            let warnings: Vec<_> = ran.log.iter().filter(|line| line["level"] == "WARN").collect();
            let [warning] = warnings.as_slice() else { panic!("{what}: {warnings:?}") };
            let message = warning["message"].as_str().expect("a message");
            let said = said.trim_end_matches(';');
            assert!(message.contains(said), "{what}: {message}");
            assert!(
                message.starts_with(&format!("cannot push metrics to {}: ", receiver.url())),
                "{message}"
            );
            let tries = receiver.received().len();
            assert_eq!(tries, if ["is broken", "hangs up"].contains(&what) { 3 } else { 1 }, "{what}");
        }
        let ran = run(cluster, &format!("http://127.0.0.1:1/{SECRET}"), &[DATA]).await;
        ran.assert_exit(0);
        assert_eq!(ran.lines("Connection refused").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_gateway_and_a_pinged_server_that_say_nothing_take_ten_seconds_together() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let (gateway, pinged) = (
            Receiver::start(false, |_| Reply::Silence).await,
            Receiver::start(false, |_| Reply::Silence).await,
        );
        let ran = run(cluster, &gateway.url(), &[DATA, ("SNAPSHOT_PING_URL", &pinged.url())]).await;
        ran.assert_exit(0);
        assert!(ran.took < Duration::from_secs(11), "{:?}", ran.took);
        assert_eq!((gateway.received().len(), pinged.received().len()), (3, 3));
        assert_eq!((ran.lines("cannot push metrics").len(), ran.lines("cannot ping").len()), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_says_so_and_is_gone_within_a_second() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        cluster.fake().plan(|_| Some(Plan::never()));
        for reply in [Reply::new(200, ""), Reply::Silence] {
            let before = cluster.names().await.len();
            let receiver = Receiver::start(false, move |_| reply.clone()).await;
            let running = cluster.start(&all_permissions(), &[DATA, (URL, &receiver.url())]).await;
            cluster.until("it waits", async || cluster.names().await.len() > before).await;
            let began = Instant::now();
            running.signal("TERM");
            let ran = running.finish().await;
            ran.assert_exit(143);
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            let body = receiver.received().remove(0).body;
            assert!(body.contains("volume_snapshotter_run_exit_code 143.0\n"), "{body}");
            assert!(body.contains(",reason=\"signal\"} 1.0\n"), "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_of_the_url_is_in_any_log_at_any_level() {
    embedded(Options::default(), async |cluster| {
        put_claim(cluster);
        let answers = wrong().into_iter().map(|(what, reply, _)| (what, reply));
        for (what, reply) in answers.chain([("is well", Reply::new(200, SECRET))]) {
            let receiver = Receiver::start(false, move |_| reply.clone()).await;
            let url = receiver.url().replace("://", &format!("://{SECRET}-user:{SECRET}-password@"));
            let url = format!("{url}/{SECRET}-path?key={SECRET}-key");
            assert_kept_secret(&trace(cluster, &[DATA, (URL, &url)]).await, what);
            let received = receiver.received();
            assert!(received[0].path.starts_with(&format!("/{SECRET}-path/metrics/job/")), "{received:?}");
            assert_eq!(received[0].parameter("key"), Some(&*format!("{SECRET}-key")), "{received:?}");
        }
        for url in [
            format!("http://{SECRET}:{SECRET}@127.0.0.1:1/{SECRET}"),
            SECRET.to_owned(),
            format!("ftp://{SECRET}/"),
        ] {
            assert_kept_secret(&trace(cluster, &[DATA, (URL, &url)]).await, "nobody is there");
        }
    })
    .await;
}
