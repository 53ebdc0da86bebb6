//! The dashboard for Grafana: what it asks for is there, and Prometheus understands it. Grafana itself is not asked.

use std::{collections::BTreeSet, fs};

use fake_apiserver::{Options, objects};
use serde_json::Value;

use super::push::{directory, prometheus, pushed, pushgateway, run, until};
use crate::{
    alerts::{self, prometheus::ask},
    daemons::{encoded, version},
    manifests::{Tree, top},
    test_cluster::embedded,
};

fn dashboard() -> Value {
    let text =
        fs::read_to_string(top().join("deploy/grafana/volume-snapshotter.json")).expect("the dashboard");
    serde_json::from_str(&text).expect("JSON")
}

fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field}: {value}"))
}

/// The expressions of the panels, and the titles of the panels that they are of.
fn expressions(dashboard: &Value) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    for panel in panels(dashboard) {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{panel}");
        all.extend(targets.iter().map(|target| (text(panel, "title"), text(target, "expr"))));
    }
    all
}

/// What the variables are asked for, but for the one that chooses Prometheus.
fn variables(dashboard: &Value) -> Vec<(&str, &str)> {
    let all = dashboard["templating"]["list"].as_array().expect("variables").iter();
    let queries = all.filter(|variable| variable["type"] == "query");
    queries.map(|variable| (text(variable, "name"), text(&variable["query"], "query"))).collect()
}

/// The names in an expression that begin like a metric's.
fn metrics(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("volume_snapshotter_") || word.starts_with("kube_")).collect()
}

#[tokio::test]
async fn every_metric_of_the_dashboard_is_pushed_or_kube_state_metrics_has_it_and_every_pushed_one_is_documented()
 {
    embedded(Options::default(), async |cluster| {
        super::ping::put_claim(cluster);
        let body = pushed(cluster).await;
        let pushed: BTreeSet<&str> =
            body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let dashboard = dashboard();
        let asked = expressions(&dashboard).into_iter().chain(variables(&dashboard));
        let mut used = BTreeSet::new();
        for (whose, expression) in asked {
            let names = metrics(expression);
            assert!(!names.is_empty(), "{whose}: {expression}");
            for name in names {
                let is_known = pushed.contains(name) || alerts::KUBE_STATE_METRICS.contains(&name);
                assert!(is_known, "{whose}: there is no {name}");
                used.insert(name);
            }
        }
        // And none is forgotten, but for what changes with a release.
        let unused: Vec<_> = pushed.difference(&used).collect();
        assert_eq!(unused, [&"volume_snapshotter_build_info"]);
        let page = fs::read_to_string(top().join("docs/monitoring.md")).expect("the page");
        let documented: BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|name| name.starts_with("volume_snapshotter_"))
            .collect();
        // Drills push theirs themselves.
        let (of_drills, of_runs): (BTreeSet<&str>, BTreeSet<&str>) =
            documented.iter().partition(|name| name.starts_with("volume_snapshotter_verify_"));
        assert_eq!(of_runs, pushed);
        let source = fs::read_to_string(top().join("src/notify/drill_metrics.rs")).expect("the module");
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let written: BTreeSet<&str> =
            code.split('"').filter(|text| text.starts_with("volume_snapshotter_verify_")).collect();
        assert_eq!(of_drills, written);
    })
    .await;
}

#[test]
fn the_panels_lie_side_by_side_and_ask_the_chosen_prometheus() {
    let dashboard = dashboard();
    let number = |panel: &Value, field: &str| panel["gridPos"][field].as_u64().expect("a number");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let (x, y) = (number(panel, "x"), number(panel, "y"));
        assert!(x + number(panel, "w") <= 24, "{panel}");
        for column in x..x + number(panel, "w") {
            for line in y..y + number(panel, "h") {
                assert!(cells.insert((column, line)), "{} lies on another", panel["title"]);
            }
        }
    }
    for panel in panels(&dashboard) {
        let targets = panel["targets"].as_array().expect("targets");
        let mut letters = BTreeSet::new();
        for asking in targets.iter().chain([panel]) {
            assert_eq!(asking["datasource"]["uid"], "${datasource}", "{panel}");
            assert_eq!(asking["datasource"]["type"], "prometheus", "{panel}");
        }
        for target in targets {
            assert!(letters.insert(text(target, "refId")), "{panel}");
        }
    }
    let list = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<_> = list.iter().map(|variable| text(variable, "name")).collect();
    assert_eq!(names, ["datasource", "namespace", "schedule", "claim"]);
    for (whose, expression) in expressions(&dashboard).into_iter().chain(variables(&dashboard)) {
        for used in expression.split('$').skip(1) {
            let name: String = used.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(names.contains(&name.as_str()), "{whose}: there is no variable {name}");
        }
    }
}

#[test]
fn the_sidecar_of_grafana_gets_the_file_as_it_is() {
    let tree = Tree::new("grafana");
    let kustomization =
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n  - ../../grafana\n";
    let Some(rendered) = tree.render("dashboard", kustomization) else { return };
    let [map] = rendered.documents.as_slice() else { panic!("{:?}", rendered.documents) };
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let file: Value = serde_json::from_str(text(&map["data"], "volume-snapshotter.json")).expect("JSON");
    assert_eq!(file, dashboard());
}

#[tokio::test]
async fn a_real_prometheus_answers_every_panel() {
    const SKIPPED: &str = "no real Prometheus answers the dashboard";
    if version("prometheus-pushgateway", SKIPPED).is_none() || version("prometheus", SKIPPED).is_none() {
        return;
    }
    let directory = directory("dashboard");
    let pushgateway = pushgateway(&directory);
    let prometheus = prometheus(&directory, &pushgateway);
    let url = format!("http://127.0.0.1:{}", pushgateway.port);
    embedded(Options::default(), async |cluster| {
        cluster.fake().put(objects::bound_claim(&cluster.namespace, "data", &[]));
        run(cluster, &url, &[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        // For the panel of the failures.
        let weekly = [("SNAPSHOT_PVC_NAMES", "missing"), ("SNAPSHOT_JOB", "weekly")];
        run(cluster, &url, &weekly).await.assert_exit(2);
        until(&prometheus, "count(volume_snapshotter_run_exit_code)", |value| value == Some(2.0)).await;
        let dashboard = dashboard();
        for (title, expression) in expressions(&dashboard) {
            let mut expression = expression.to_owned();
            for (name, _) in variables(&dashboard) {
                expression = expression.replace(&format!("${name}"), ".*");
            }
            let answer = ask(&prometheus, &format!("/api/v1/query?query={}", encoded(&expression)));
            let series = answer["result"].as_array().expect("a vector").len();
            println!("{title}: {series} series");
            assert_eq!(series == 0, expression.contains("kube_"), "{title}: {expression}: {answer}");
        }
    })
    .await;
}
