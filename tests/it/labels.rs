//! Labels of one's own on snapshots: set by a run, shown by `list`, and what a restore chooses by.

use fake_apiserver::Options;
use serde_json::{Value, json};
use volume_snapshotter::cluster::{PERMISSIONS, RESTORE_PERMISSIONS, SCHEDULE_PERMISSIONS};

use crate::test_cluster::{TestCluster, embedded_only, everywhere, name_of, rules};

const KEEP_ALL: (&str, &str) = ("SNAPSHOT_RETENTION", "all");

/// The snapshot whose label has this value.
async fn labelled(cluster: &TestCluster, key: &str, value: &str) -> Value {
    let snapshots = cluster.snapshots().await;
    let mut found = snapshots.into_iter().filter(|snapshot| snapshot["metadata"]["labels"][key] == value);
    let one = found.next().unwrap_or_else(|| panic!("a snapshot with {key}={value}"));
    assert!(found.next().is_none(), "one with {key}={value}");
    one
}

#[tokio::test]
async fn a_release_is_labelled_listed_and_restored_by_its_label() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for labels in ["release=1.2.3,example.org/team=shop", "release=1.3.0", ""] {
            let settings = [("SNAPSHOT_PVC_NAMES", "data"), KEEP_ALL, ("SNAPSHOT_LABELS", labels)];
            cluster.run(&settings).await.assert_exit(0);
        }
        let old = labelled(cluster, "release", "1.2.3").await;
        let name = name_of(&old).to_owned();
        let labels = &old["metadata"]["labels"];
        assert_eq!(
            (&labels["job"], &labels["name"], &labels["example.org/team"]),
            (&json!("volume-snapshotter"), &json!(name), &json!("shop"))
        );

        let may_list = rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS].concat());
        let table = cluster.say(&may_list, &["list", "--all", "-L", "release,example.org/team"]).await;
        table.assert_exit(0);
        let heading = table.out.lines().next().unwrap_or_default();
        assert!(heading.contains("  RELEASE  TEAM  RETENTION"), "{}", table.out);
        let cells = |name: &str| -> Vec<String> {
            let line = table.out.lines().find(|line| line.contains(name)).unwrap_or_default();
            line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        };
        let at = cells(heading).iter().position(|cell| cell == "RELEASE").expect("a column");
        assert_eq!(cells(&name)[at..=at + 1], ["1.2.3", "shop"]);
        let newer = name_of(&labelled(cluster, "release", "1.3.0").await).to_owned();
        assert_eq!(cells(&newer)[at..=at + 1], ["1.3.0", "-"]);

        let json = cluster.say(&may_list, &["list", "--all", "-o", "json"]).await;
        let json: Value = serde_json::from_str(&json.out).expect("JSON");
        let items = json["items"].as_array().expect("items");
        let item = items.iter().find(|item| item["snapshot"] == name).expect("the snapshot");
        assert_eq!(item["labels"], json!({"release": "1.2.3", "example.org/team": "shop"}));

        let arguments = ["restore", "--claim=data", "--label", "release=1.2.3", "--to=before"];
        cluster.say(&rules(RESTORE_PERMISSIONS), &arguments).await.assert_exit(0);
        let restored = cluster.try_claim("before").await.expect("the claim");
        assert_eq!(restored["spec"]["dataSource"]["name"], name);
        let arguments = ["restore", "--claim=data", "--label=release=9.9.9", "--to=none"];
        let none = cluster.say(&rules(RESTORE_PERMISSIONS), &arguments).await;
        none.assert_exit(2).assert_says("there is no snapshot of claim data with label release=9.9.9");
    })
    .await;
}

#[tokio::test]
async fn a_label_that_others_go_by_is_refused_before_anything_is_made() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for (labels, said) in [
            ("job=other", "the label job is used by volume-snapshotter"),
            (
                "volume-snapshotter/hold=false",
                "the label volume-snapshotter/hold is used by volume-snapshotter",
            ),
            ("app.kubernetes.io/instance=shop", "the label app.kubernetes.io/instance is used by Argo CD"),
            ("release", "\"release\" is not a label with its value"),
        ] {
            let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_LABELS", labels)]).await;
            ran.assert_exit(2);
            assert!(ran.message.contains(said), "{}", ran.message);
        }
        assert!(cluster.names().await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_label_that_admission_takes_away_is_said_and_costs_no_snapshot() {
    embedded_only(Options::default(), "needs an admission webhook", async |cluster| {
        cluster.claim("data").await;
        cluster.fake().admission_changes(
            |request| request.resource == "volumesnapshots",
            |snapshot| {
                snapshot["metadata"]["labels"]["team"] = json!("everybody");
            },
        );
        let labels = ("SNAPSHOT_LABELS", "team=shop,release=1.2.3");
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), labels]).await;
        ran.assert_exit(0);
        let warned = ran.lines("admission removed or changed labels of SNAPSHOT_LABELS");
        assert_eq!((warned.len(), &warned[0]["labels"]), (1, &json!("team")));
    })
    .await;
}
