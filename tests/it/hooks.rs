//! Hooks: what is run in pods around the snapshots of their claims, in which order, and that no pod stays frozen
//! whatever goes wrong at whichever step.

use std::{io::Write as _, time::Duration};

use fake_apiserver::{Command, Options, Plan, Request, Script, objects};
use serde_json::{Value, json};
use volume_snapshotter::cluster::{HOOK_PERMISSIONS, PERMISSIONS};

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
