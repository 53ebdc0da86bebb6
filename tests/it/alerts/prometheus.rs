//! The alerts in a real Prometheus, which scrapes what kube-state-metrics would say of a schedule that fails and of one that
//! does not.
//!
//! One thing is not as users have it: every `for:` is a second instead of an hour. How long that is, `promtool` has tried.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use fake_apiserver::objects;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use volume_snapshotter::names::{MANAGED_BY_LABEL, PROGRAM, RUN_LABEL};

use super::{directory, rules, state::Config};
use crate::daemons::{Daemon, Exporter, encoded, get, version};

const PATIENCE: Duration = Duration::from_secs(60);

/// A Prometheus that scrapes an exporter and evaluates rules, once a second.
pub(super) fn start(directory: &Path, exporter: &Exporter, rules: &Value) -> Daemon {
    fs::write(directory.join("rules.yaml"), rules.to_string()).expect("a file");
    let config = json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{
            "job_name": "kube-state-metrics",
            // The labels `namespace` and the like are those of the objects.
            "honor_labels": true,
            "static_configs": [{"targets": [format!("127.0.0.1:{}", exporter.port)]}],
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

/// What an API of Prometheus answers.
pub(crate) fn ask(prometheus: &Daemon, path: &str) -> Value {
    let (status, body) = get(prometheus.port, path).expect("Prometheus answers");
    assert_eq!(status, 200, "{path}: {body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["status"], "success", "{path}: {answer}");
    answer["data"].clone()
}

/// The value of an expression that has one series.
pub(crate) fn query(prometheus: &Daemon, expression: &str) -> Option<f64> {
    let data = ask(prometheus, &format!("/api/v1/query?query={}", encoded(expression)));
    let result = data["result"].as_array().expect("a vector");
    assert!(result.len() < 2, "{expression}: {result:?}");
    result.first()?["value"][1].as_str()?.parse().ok()
}

/// The rules with every `for:` a second.
fn impatient(mut rules: Value) -> Value {
    for group in rules["groups"].as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            if rule["for"].is_string() {
                rule["for"] = json!("1s");
            }
        }
    }
    rules
}

/// What kube-state-metrics says of an hourly CronJob, of one of its Jobs, which is done, and of its claim.
fn schedule(text: &mut String, namespace: &str, now: Timestamp, last_success: SignedDuration) {
    let ago = |hours: i64| (now - SignedDuration::from_hours(hours)).as_second();
    let cron_job = format!("{{namespace=\"{namespace}\",cronjob=\"volume-snapshotter\"}}");
    let job =
        |rest: &str| format!("{{namespace=\"{namespace}\",job_name=\"volume-snapshotter-29384755\"{rest}}}");
    let owner = job(",owner_kind=\"CronJob\",owner_name=\"volume-snapshotter\",owner_is_controller=\"true\"");
    let claim = format!("{{namespace=\"{namespace}\",persistentvolumeclaim=\"data\"}}");
    for (series, value) in [
        (format!("kube_cronjob_created{cron_job}"), ago(1000)),
        (format!("kube_cronjob_spec_suspend{cron_job}"), 0),
        (format!("kube_cronjob_status_last_schedule_time{cron_job}"), ago(0)),
        (format!("kube_cronjob_next_schedule_time{cron_job}"), ago(-1)),
        (format!("kube_cronjob_status_last_successful_time{cron_job}"), (now - last_success).as_second()),
        (format!("kube_job_owner{owner}"), 1),
        (format!("kube_job_spec_active_deadline_seconds{}", job("")), 3540),
        (format!("kube_job_status_start_time{}", job("")), ago(2)),
        (format!("kube_job_failed{}", job(",condition=\"true\"")), 1),
        (format!("kube_persistentvolumeclaim_created{claim}"), ago(1000)),
    ] {
        let _ = writeln!(text, "{series} {value}");
    }
}

fn snapshot(namespace: &str, taken: Timestamp) -> Value {
    let mut snapshot = objects::ready_snapshot(namespace, "volume-snapshot-0a1b2c3d", "data", taken);
    snapshot["metadata"]["labels"][MANAGED_BY_LABEL] = json!(PROGRAM);
    snapshot["metadata"]["labels"][RUN_LABEL] = json!("volume-snapshotter-29384755");
    snapshot
}

#[test]
fn a_failing_schedule_raises_alerts_and_a_healthy_one_beside_it_does_not() {
    let Some(version) = version("prometheus", "no real Prometheus raises an alert") else { return };
    let now = Timestamp::now();
    let mut text = String::new();
    schedule(&mut text, "failing", now, SignedDuration::from_hours(5));
    schedule(&mut text, "healthy", now, SignedDuration::from_mins(50));
    text += &Config::read().exposition(&[
        snapshot("failing", now - SignedDuration::from_hours(30)),
        snapshot("healthy", now - SignedDuration::from_mins(50)),
    ]);
    let exporter = Exporter::start(&text);
    let rules = impatient(rules());
    let directory = directory("prometheus", &rules);
    let prometheus = start(&directory, &exporter, &rules);

    let began = Instant::now();
    let firing = || -> Vec<Value> {
        let alerts = ask(&prometheus, "/api/v1/alerts")["alerts"].take();
        let alerts = alerts.as_array().expect("alerts").iter();
        alerts.filter(|alert| alert["state"] == "firing").cloned().collect()
    };
    // Before the first scrape there is no CronJob at all, which is an alert too.
    let names = |alerts: &[Value]| -> Vec<String> {
        let name =
            |alert: &Value| format!("{}/{}", alert["labels"]["namespace"], alert["labels"]["alertname"]);
        let mut names: Vec<String> = alerts.iter().map(|alert| name(alert).replace('"', "")).collect();
        names.sort();
        names
    };
    let expected = ["failing/VolumeSnapshotterNoSuccess", "failing/VolumeSnapshotterSnapshotTooOld"];
    while names(&firing()) != expected {
        assert!(began.elapsed() < PATIENCE, "{:?}, and not {expected:?}", names(&firing()));
        sleep(Duration::from_millis(100));
    }
    // And that is how it stays.
    sleep(Duration::from_secs(3));
    let alerts = firing();
    assert_eq!(names(&alerts), expected);
    // The healthy schedule raises nothing because it is healthy, and not because nobody sees it.
    for namespace in ["failing", "healthy"] {
        let of = |metric: &str| query(&prometheus, &format!("{metric}{{namespace=\"{namespace}\"}}"));
        assert_eq!(of("cronjob:volume_snapshotter_interval_seconds:max"), Some(3600.0), "{namespace}");
        assert_eq!(of("cronjob:volume_snapshotter_deadline_seconds:max"), Some(3540.0), "{namespace}");
        assert_eq!(of("claim:volume_snapshotter_max_age_seconds:max"), Some(97_200.0), "{namespace}");
    }
    let groups = ask(&prometheus, "/api/v1/rules")["groups"].take();
    for group in groups.as_array().expect("groups") {
        for rule in group["rules"].as_array().expect("rules") {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }
    println!("{}", version.lines().next().unwrap_or_default());
    for alert in &alerts {
        println!("{}", serde_json::to_string_pretty(alert).expect("JSON"));
    }

    // The next run succeeds.
    let now = Timestamp::now();
    let mut text = String::new();
    for namespace in ["failing", "healthy"] {
        schedule(&mut text, namespace, now, SignedDuration::from_secs(10));
    }
    text += &Config::read().exposition(&["failing", "healthy"].map(|namespace| snapshot(namespace, now)));
    exporter.show(&text);
    let began = Instant::now();
    while !firing().is_empty() {
        assert!(began.elapsed() < PATIENCE, "still firing: {:?}", names(&firing()));
        sleep(Duration::from_millis(100));
    }
}
