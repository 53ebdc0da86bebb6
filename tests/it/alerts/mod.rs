//! The alerts of the component `alerts`, and what `deploy/kube-state-metrics` makes kube-state-metrics say.
//!
//! `promtool` checks the rules and plays hours and weeks of kube-state-metrics to them: the cases are in
//! `tests/data/alerts`, and `promtool`'s documentation of unit tests says how they are written. A real `prometheus` raises
//! an alert in [`prometheus`]. Both are skipped with a printed word where they are not installed (Debian: `apt-get install
//! prometheus`). [`state`] reads the configuration as kube-state-metrics does.

pub(crate) mod prometheus;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use serde_json::{Value, json};

use crate::{
    daemons::{skip, version},
    manifests::{Tree, on_the_base, top},
};

/// The kind of the object that the component brings.
const RULE: &str = "PrometheusRule";

/// What kube-state-metrics 2.9 and newer say without further flags, as far as the rules use it:
/// <https://github.com/kubernetes/kube-state-metrics/tree/main/docs/metrics>. Not the annotations of claims: they are
/// there only if they were asked for.
pub(crate) const KUBE_STATE_METRICS: [&str; 12] = [
    "kube_cronjob_created",
    "kube_cronjob_next_schedule_time",
    "kube_cronjob_spec_suspend",
    "kube_cronjob_status_last_schedule_time",
    "kube_cronjob_status_last_successful_time",
    "kube_job_complete",
    "kube_job_failed",
    "kube_job_owner",
    "kube_job_spec_active_deadline_seconds",
    "kube_job_status_start_time",
    "kube_persistentvolumeclaim_created",
    "kube_persistentvolumeclaim_deletion_timestamp",
];

/// The metric that `--metric-annotations-allowlist` adds.
const ANNOTATIONS: &str = "kube_persistentvolumeclaim_annotations";

/// The groups of rules as Prometheus reads them: those of the rendered component, or, where nothing renders, of its file.
pub(crate) fn rules() -> Value {
    static RULES: LazyLock<Value> = LazyLock::new(|| {
        let rendered = Tree::new("alerts").render("alerts", &on_the_base(&["alerts"]));
        let documents = match rendered {
            Some(rendered) => rendered.documents,
            None => {
                let file = top().join("kustomize/components/alerts/prometheusrule.yaml");
                let text = fs::read_to_string(file).expect("a file of the component");
                serde_saphyr::from_multiple(&text).expect("YAML")
            }
        };
        let rules: Vec<Value> = documents.into_iter().filter(|document| document["kind"] == RULE).collect();
        let [rule] = rules.as_slice() else { panic!("one {RULE}") };
        rule["spec"].clone()
    });
    RULES.clone()
}

/// The rules of all groups.
fn each(rules: &Value) -> Vec<&Value> {
    let groups = rules["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect()
}

/// The alerts, by their names.
pub(crate) fn alerts(rules: &Value) -> BTreeMap<&str, &Value> {
    each(rules).into_iter().filter_map(|rule| Some((rule["alert"].as_str()?, rule))).collect()
}

fn without_texts(mut rules: Value) -> Value {
    for group in rules["groups"].as_array_mut().expect("groups") {
        for rule in group["rules"].as_array_mut().expect("rules") {
            rule.as_object_mut().expect("a rule").remove("annotations");
        }
    }
    rules
}

/// An empty directory with the rules, and the rules without the words for people.
fn directory(name: &str, rules: &Value) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alerts").join(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    // JSON is YAML.
    fs::write(directory.join("rules-and-texts.yaml"), rules.to_string()).expect("a file");
    fs::write(directory.join("rules.yaml"), without_texts(rules.clone()).to_string()).expect("a file");
    directory
}

/// The files of `tests/data/alerts`: hours and weeks, and which alerts fire when.
fn cases() -> Vec<PathBuf> {
    let files = fs::read_dir(top().join("tests/data/alerts")).expect("a directory");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    files
}

/// Fails with what promtool says if it is not content.
fn promtool(directory: &Path, arguments: &[&str]) {
    let said = Command::new("promtool").args(arguments).current_dir(directory).output().expect("promtool");
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "promtool {}:\n{out}{err}", arguments.join(" "));
}

#[test]
fn prometheus_understands_the_rules() {
    if version("promtool", "the syntax of the alerts is not checked").is_none() {
        return;
    }
    let directory = directory("check", &rules());
    promtool(&directory, &["check", "rules", "--lint=all", "--lint-fatal", "rules-and-texts.yaml"]);
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    if version("promtool", "the alerts are not tried").is_none() {
        return;
    }
    let directory = directory("test", &rules());
    for file in cases() {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        fs::copy(&file, directory.join(name)).expect("a file");
        promtool(&directory, &["test", "rules", name]);
    }
}

/// promtool is content with no cases at all.
#[test]
fn every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let rules = rules();
    let mut seen: BTreeMap<String, BTreeSet<(bool, bool)>> = BTreeMap::new();
    for file in cases() {
        let text = fs::read_to_string(&file).expect("a file");
        let file: Value = serde_saphyr::from_str(&text).expect("YAML");
        let with_texts = file["rule_files"] == json!(["rules-and-texts.yaml"]);
        assert!(with_texts || file["rule_files"] == json!(["rules.yaml"]), "{}", file["rule_files"]);
        for test in file["tests"].as_array().expect("tests") {
            for case in test["alert_rule_test"].as_array().expect("cases") {
                let fires = case["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty());
                let name = case["alertname"].as_str().expect("a name").to_owned();
                seen.entry(name).or_default().insert((with_texts, fires));
            }
        }
    }
    let names: Vec<&str> = alerts(&rules).into_keys().collect();
    assert!(names.len() > 5, "{names:?}");
    let seen_names: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(seen_names, names);
    for (name, cases) in &seen {
        assert!(cases.contains(&(false, true)), "{name} never fires");
        assert!(cases.contains(&(false, false)), "{name} always fires");
        assert!(cases.contains(&(true, true)), "nobody reads the words of {name}");
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_in_words_what_is_wrong() {
    let rules = rules();
    for (name, alert) in alerts(&rules) {
        assert!(name.starts_with("VolumeSnapshotter"), "{name}");
        assert!(["critical", "warning"].map(Value::from).contains(&alert["labels"]["severity"]), "{name}");
        // So that one bad scrape raises nothing.
        assert!(alert["for"].is_string(), "{name}");
        for annotation in ["summary", "description", "runbook_url"] {
            let text = alert["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.len() > 20 && !text.contains('\n'), "{name}: {annotation}: {text:?}");
        }
    }
}

/// Words of an expression that begin so.
fn names<'a>(expression: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
    words.filter(move |word| word.starts_with(prefix))
}

/// A metric that nobody makes is an alert that never fires.
#[test]
fn every_metric_of_the_rules_is_made_by_somebody_and_is_used() {
    let rules = rules();
    let all = each(&rules);
    let expressions: Vec<&str> =
        all.iter().map(|rule| rule["expr"].as_str().expect("an expression")).collect();
    let used: BTreeSet<&str> = expressions
        .iter()
        .flat_map(|expression| {
            ["kube_", "cronjob:", "job:", "claim:", "schedule:", "cluster:"]
                .into_iter()
                .flat_map(|prefix| names(expression, prefix))
        })
        .collect();
    let recorded: BTreeSet<&str> = all.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let configured = state::Config::read().metrics();
    let made: BTreeSet<&str> = configured
        .iter()
        .map(String::as_str)
        .chain(KUBE_STATE_METRICS)
        .chain([ANNOTATIONS])
        .chain(recorded.iter().copied())
        .collect();
    assert_eq!(used, made);
    // Nor are there labels on the metrics of snapshots but those that the configuration makes.
    let labels = state::Config::read().labels();
    for expression in expressions {
        for selector in expression.split("kube_volumesnapshot_").skip(1) {
            let matchers = selector.split_once('{').filter(|(name, _)| !name.contains([' ', '\n']));
            let matchers =
                matchers.and_then(|(_, rest)| rest.split_once('}')).map_or("", |(inside, _)| inside);
            for matcher in matchers.split(", ").filter(|matcher| !matcher.is_empty()) {
                let label = matcher.split(['=', '!']).next().expect("a label");
                assert!(labels.contains(label), "{matcher}: there is no label {label}");
            }
        }
    }
}

/// Whatever a kustomization on top adds to the names.
#[test]
fn the_alerts_are_about_the_cron_jobs_of_runs_and_about_no_others() {
    let tree = Tree::new("alerts-names");
    let components = ["second-schedule", "restore", "before-upgrade", "alerts", "etcd-snapshot", "verify"];
    let mut series = Vec::new();
    let mut expected = Vec::new();
    let added = [("plain", "", ""), ("fixed", "shop-", "-a"), ("glued", "shop", "a")];
    for (namespace, prefix, suffix) in added {
        let more = format!("namePrefix: '{prefix}'\nnameSuffix: '{suffix}'\n");
        let Some(rendered) = tree.render(namespace, &(on_the_base(&components) + &more)) else {
            return skip(
                "which CronJobs the alerts are about is not checked: neither kubectl nor kustomize is installed",
            );
        };
        let mut found = BTreeSet::new();
        for document in rendered.documents.iter().filter(|document| document["kind"] == "CronJob") {
            let name = document["metadata"]["name"].as_str().expect("a name");
            let labels = format!("{{namespace=\"{namespace}\", cronjob=\"{name}\"}}");
            series.push(json!({"series": format!("kube_cronjob_created{labels}"), "values": "7"}));
            let is_run = document["metadata"]["labels"]["app.kubernetes.io/component"] != "restore";
            found.insert(is_run);
            if is_run {
                expected.push(
                    json!({"labels": format!("cronjob:volume_snapshotter_created:max{labels}"), "value": 7}),
                );
            }
        }
        assert_eq!(found, BTreeSet::from([false, true]), "{namespace}: what runs by itself, and restores");
    }
    assert_eq!(expected.len(), 12);
    if version("promtool", "which CronJobs the alerts are about is not checked").is_none() {
        return;
    }
    series.push(
        json!({"series": "kube_cronjob_created{namespace=\"plain\", cronjob=\"report\"}", "values": "7"}),
    );
    let directory = directory("names", &rules());
    let test = json!({
        "rule_files": ["rules.yaml"],
        "tests": [{
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [{
                "eval_time": "0m",
                "expr": "cronjob:volume_snapshotter_created:max",
                "exp_samples": expected,
            }],
        }],
    });
    fs::write(directory.join("names.yaml"), test.to_string()).expect("a file");
    promtool(&directory, &["test", "rules", "names.yaml"]);
}
