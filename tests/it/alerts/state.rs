//! The configuration of `deploy/kube-state-metrics`, read as kube-state-metrics reads it (its documentation calls it custom
//! resource state metrics): as much of it as the configuration uses, and nothing else is accepted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use fake_apiserver::{Options, objects};
use k8s_openapi::{
    api::{
        core::v1::ConfigMap,
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    jiff::Timestamp,
};
use serde::Deserialize;
use serde_json::{Value, json};
use volume_snapshotter::names::{HOLD_LABEL, MANAGED_BY_LABEL, PROGRAM, RUN_LABEL, SCHEDULE_LABEL};

use crate::{
    manifests::{KUBE_STATE_METRICS, granted, top},
    test_cluster::{embedded, name_of},
};

/// The fields of a path, from the top of an object.
type Path = Vec<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: String,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    resources: Vec<Config>,
}

/// What is said of one kind of objects.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Config {
    group_version_kind: GroupVersionKind,
    metric_name_prefix: String,
    /// From which verbosity on what is missing is logged.
    #[serde(rename = "errorLogV")]
    error_log_v: u8,
    labels_from_path: BTreeMap<String, Path>,
    metrics: Vec<Metric>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metric {
    name: String,
    help: String,
    each: Each,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Each {
    #[serde(rename = "type")]
    kind: String,
    gauge: Gauge,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Gauge {
    path: Path,
    #[serde(default)]
    nil_is_zero: bool,
}

/// The value at a path; `None` if any part is missing.
fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, field| value.get(field)).filter(|value| !value.is_null())
}

/// A number as kube-state-metrics makes one of what it finds: true is 1, and a time is seconds since 1970.
fn number(value: &Value) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "seconds are small")]
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Number(value) => value.as_f64(),
        Value::String(value) => value.parse::<Timestamp>().ok().map(|time| time.as_second() as f64),
        _ => None,
    }
}

impl Config {
    pub(super) fn read() -> Self {
        let file = top().join("deploy/kube-state-metrics/config.yaml");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let mut document: Document = serde_saphyr::from_str(text).expect("a configuration");
        assert_eq!(document.kind, "CustomResourceStateMetrics");
        assert_eq!(document.spec.resources.len(), 1);
        document.spec.resources.remove(0)
    }

    /// The names of the metrics that it makes.
    pub(super) fn metrics(&self) -> BTreeSet<String> {
        self.metrics.iter().map(|metric| format!("{}_{}", self.metric_name_prefix, metric.name)).collect()
    }

    /// The labels that a metric can have, without those that kube-state-metrics adds itself.
    pub(super) fn labels(&self) -> BTreeSet<String> {
        self.labels_from_path.keys().cloned().collect()
    }

    /// What kube-state-metrics shows to Prometheus for these objects.
    pub(super) fn exposition(&self, objects: &[Value]) -> String {
        let mut text = String::new();
        for metric in &self.metrics {
            assert_eq!(metric.each.kind, "Gauge", "{}", metric.name);
            let name = format!("{}_{}", self.metric_name_prefix, metric.name);
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} gauge", metric.help);
            for object in objects {
                let gauge = &metric.each.gauge;
                let value = match at(object, &gauge.path) {
                    Some(value) => number(value),
                    None => gauge.nil_is_zero.then_some(0.0),
                };
                let Some(value) = value else { continue };
                let GroupVersionKind { group, version, kind } = &self.group_version_kind;
                let mut labels = format!(
                    "customresource_group=\"{group}\",customresource_kind=\"{kind}\",customresource_version=\"{version}\""
                );
                for (label, path) in &self.labels_from_path {
                    if let Some(value) = at(object, path) {
                        let _ = write!(labels, ",{label}={value}");
                    }
                }
                let _ = writeln!(text, "{name}{{{labels}}} {value}");
            }
        }
        text
    }
}

/// The VolumeSnapshots in an answer of a recording.
fn snapshots_of(body: &Value) -> Vec<&Value> {
    let listed = body["items"].as_array().into_iter().flatten();
    let all = listed.chain(std::iter::once(body));
    all.filter(|object| object["kind"] == "VolumeSnapshot").collect()
}

/// Every VolumeSnapshot that a real API server answered with.
fn recorded() -> Vec<Value> {
    let mut found = Vec::new();
    for file in fs::read_dir(top().join("tests/data/recordings")).expect("recordings") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("a recording");
        let recording: Value = serde_json::from_str(&text).expect("JSON");
        let answer = &recording["answer"];
        found.extend(snapshots_of(&answer["body"]).into_iter().cloned());
        for event in answer["events"].as_array().into_iter().flatten() {
            found.extend(snapshots_of(&event["object"]).into_iter().cloned());
        }
    }
    assert!(found.len() > 20, "{}", found.len());
    found
}

#[test]
fn it_is_about_the_api_that_the_program_uses() {
    let config = Config::read();
    let (group, version, kind) = ("snapshot.storage.k8s.io", "v1", "VolumeSnapshot");
    let expected = GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() };
    assert_eq!(config.group_version_kind, expected);
    // What is missing on some snapshots is missing on purpose.
    assert!(config.error_log_v > 5);
    for metric in &config.metrics {
        assert!(!metric.help.is_empty(), "{}", metric.name);
    }
}

#[test]
fn every_field_that_it_names_is_one_that_a_real_cluster_has() {
    let (config, recorded) = (Config::read(), recorded());
    let has = |path: &[String]| recorded.iter().any(|object| at(object, path).is_some());
    for metric in &config.metrics {
        let path = &metric.each.gauge.path;
        assert!(has(path), "{}: no recorded snapshot has {path:?}", metric.name);
        // One was recorded to see what an API server lets through: beyond this crate's calendar, and not beyond Go's.
        let odd = |value: &Value| value.as_str().is_some_and(|time| time.starts_with("9999-12-31"));
        for value in recorded.iter().filter_map(|object| at(object, path)).filter(|value| !odd(value)) {
            assert!(number(value).is_some(), "{}: {path:?} is no number: {value}", metric.name);
        }
    }
    for (label, path) in &config.labels_from_path {
        let known = match path.as_slice() {
            // Those that only this program sets.
            [first, second, key] if (first.as_str(), second.as_str()) == ("metadata", "labels") => {
                [SCHEDULE_LABEL, MANAGED_BY_LABEL, RUN_LABEL, HOLD_LABEL].contains(&key.as_str())
            }
            path => has(path),
        };
        assert!(known, "{label}: nothing has {path:?}");
    }
}

#[test]
fn a_recorded_snapshot_becomes_these_metrics() {
    let object = json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {
            "name": "volume-snapshot-0a1b2c3d", "namespace": "shop", "creationTimestamp": "2026-11-20T08:55:11Z",
            "labels": {
                "job": "volume-snapshotter", "app.kubernetes.io/managed-by": "volume-snapshotter",
                "volume-snapshotter/run": "volume-snapshotter-29384755",
            },
        },
        "spec": {"source": {"persistentVolumeClaimName": "data"}},
    });
    let mut ready = object.clone();
    ready["metadata"]["labels"]["volume-snapshotter/hold"] = json!("true");
    ready["metadata"]["deletionTimestamp"] = json!("2026-11-20T09:00:00Z");
    ready["status"] = json!({"readyToUse": true, "creationTime": "2026-11-20T08:55:12Z"});
    let config = Config::read();
    let lines = |object: &Value| -> Vec<String> {
        let text = config.exposition(std::slice::from_ref(object));
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let resource = "customresource_group=\"snapshot.storage.k8s.io\",customresource_kind=\"VolumeSnapshot\",\
                    customresource_version=\"v1\"";
    let rest = "managed_by=\"volume-snapshotter\",namespace=\"shop\",persistentvolumeclaim=\"data\",\
                run=\"volume-snapshotter-29384755\",schedule=\"volume-snapshotter\",\
                volumesnapshot=\"volume-snapshot-0a1b2c3d\"";
    // Without a status it is not ready, and nobody knows when its data was taken.
    assert_eq!(
        lines(&object),
        [
            format!("kube_volumesnapshot_created{{{resource},{rest}}} 1795164911"),
            format!("kube_volumesnapshot_status_ready{{{resource},{rest}}} 0"),
        ]
    );
    let held = format!("{resource},hold=\"true\",{rest}");
    assert_eq!(
        lines(&ready),
        [
            format!("kube_volumesnapshot_created{{{held}}} 1795164911"),
            format!("kube_volumesnapshot_status_ready{{{held}}} 1"),
            format!("kube_volumesnapshot_status_creation_time{{{held}}} 1795164912"),
            format!("kube_volumesnapshot_deletion_timestamp{{{held}}} 1795165200"),
        ]
    );
}

/// The labels on what the binary makes are those that the alerts go by.
#[tokio::test]
async fn a_snapshot_of_a_run_has_every_label_that_it_names() {
    embedded(Options::default(), async |cluster| {
        cluster.claim("data").await;
        let run = "volume-snapshotter-29384755";
        let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RUN_ID", run), ("SNAPSHOT_HOLD", "true")];
        cluster.run(&settings).await.assert_exit(0);
        let snapshots = cluster.snapshots().await;
        let [snapshot] = snapshots.as_slice() else { panic!("one snapshot: {snapshots:?}") };
        let config = Config::read();
        let label = |name: &str| at(snapshot, &config.labels_from_path[name]).and_then(Value::as_str);
        assert_eq!(label("namespace"), Some(cluster.namespace.as_str()));
        assert_eq!(label("volumesnapshot"), Some(name_of(snapshot)));
        assert_eq!(label("persistentvolumeclaim"), Some("data"));
        assert_eq!(label("schedule"), Some("volume-snapshotter"));
        assert_eq!(label("managed_by"), Some(PROGRAM));
        assert_eq!(label("run"), Some(run));
        assert_eq!(label("hold"), Some("true"));
        assert_eq!(config.labels_from_path.len(), 7);
        let ready = config.exposition(&snapshots);
        assert!(
            ready
                .lines()
                .any(|line| line.starts_with("kube_volumesnapshot_status_ready{") && line.ends_with(" 1"))
        );
    })
    .await;
}

#[test]
fn the_fake_api_servers_snapshots_have_a_time_in_seconds() {
    let snapshot = objects::ready_snapshot("shop", "s", "data", "2026-11-20T08:55:11Z");
    assert_eq!(
        at(&snapshot, &["status".into(), "creationTime".into()]).and_then(number),
        Some(1_795_164_911.0)
    );
}

#[test]
fn what_is_applied_for_it_is_that_configuration_and_the_right_to_see_snapshots() {
    let Some(rendered) = KUBE_STATE_METRICS.first() else { return };
    let directory = &rendered.directory;
    let [config_map] = &rendered.all::<ConfigMap>()[..] else { panic!("one ConfigMap") };
    let data = config_map.data.clone().unwrap_or_default();
    // The key that the chart of kube-state-metrics mounts.
    let [(key, text)] = &data.iter().collect::<Vec<_>>()[..] else { panic!("one key") };
    assert_eq!(key.as_str(), "config.yaml");
    assert_eq!(Config::parse(text).metrics(), Config::read().metrics());

    let [role] = &rendered.all::<ClusterRole>()[..] else { panic!("one ClusterRole") };
    let granted = granted(directory, role.rules.clone().unwrap_or_default());
    let both = |group: &str, resource: &str| {
        ["list", "watch"].map(|verb| (group.to_owned(), resource.to_owned(), verb.to_owned()))
    };
    let expected = both("snapshot.storage.k8s.io", "volumesnapshots")
        .into_iter()
        .chain(both("apiextensions.k8s.io", "customresourcedefinitions"));
    assert_eq!(granted, expected.collect());
    let [binding] = &rendered.all::<ClusterRoleBinding>()[..] else { panic!("one ClusterRoleBinding") };
    assert_eq!(Some(&binding.role_ref.name), role.metadata.name.as_ref());
    let subjects: Vec<_> = binding.subjects.iter().flatten().collect();
    // A pod can mount a ConfigMap of its own namespace only.
    assert_eq!(subjects.len(), 1);
    assert_eq!(subjects[0].namespace, config_map.metadata.namespace);
    assert!(config_map.metadata.namespace.is_some());
}
