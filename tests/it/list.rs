//! `volume-snapshotter list`: what there is, and why it stays.
//!
//! How it looks is kept in `tests/golden/list-*`; `UPDATE_GOLDEN=1 cargo test --test it list` renews
//! that.

pub(crate) mod groups;

use std::path::Path;

use fake_apiserver::{Options, Plan, objects};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use volume_snapshotter::{
    cluster::{NAMESPACE_PERMISSIONS, PERMISSIONS, SCHEDULE_PERMISSIONS},
    list::{self, Location, Look, Origin, Question, Retention, Schedule},
    settings::Settings,
    snapshot::Record,
};

use crate::test_cluster::{TestCluster, embedded_only, everywhere, rules};

/// The cells of a table's lines.
fn lines(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

/// The rules of somebody who may read all that `list` reads.
fn list_rights() -> Value {
    rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS].concat())
}

/// Makes the CronJob of a schedule, as the manifests have it: its settings are in a ConfigMap.
async fn schedule(cluster: &TestCluster, name: &str, settings: &[(&str, &str)]) {
    let namespace = cluster.namespace.as_str();
    let map = format!("{name}-5k2hd9");
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    cluster.post(&maps, &objects::config_map(namespace, &map, settings)).await;
    let cron_jobs = format!("/apis/batch/v1/namespaces/{namespace}/cronjobs");
    cluster.post(&cron_jobs, &objects::cron_job(namespace, name, &[], &[&map])).await;
}

/// The default schedule for one claim.
async fn default_schedule(cluster: &TestCluster) {
    schedule(cluster, "volume-snapshotter", &[("SNAPSHOT_PVC_NAMES", "data")]).await;
}

/// Snapshot and verdict of what is listed.
fn verdicts(list: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| text(&item["snapshot"]) + " " + &text(&item["retention"]["verdict"])).collect()
}

async fn json_of(cluster: &TestCluster, arguments: &[&str]) -> Value {
    let said = cluster.say(&list_rights(), &[&["list", "-o", "json"], arguments].concat()).await;
    said.assert_exit(0);
    serde_json::from_str(&said.out).expect("JSON")
}

/// The names of what is listed.
fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().filter_map(|item| item["snapshot"].as_str()).collect()
}

#[tokio::test]
async fn the_snapshots_of_all_claims_are_listed_with_why_they_stay() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        cluster.older("new", "data").await;
        default_schedule(cluster).await;
        let said = cluster.say(&list_rights(), &["list"]).await;
        said.assert_exit(0);
        assert_eq!(
            said.err,
            "schedule volume-snapshotter keeps last=1 (CronJob volume-snapshotter, ConfigMap volume-snapshotter-5k2hd9)\n"
        );
        let lines = lines(&said.out);
        assert_eq!(lines[0], ["CLAIM", "SNAPSHOT", "AGE", "READY", "SIZE", "STATE", "RETENTION"]);
        assert_eq!(lines[1][..2], ["data", "new"]);
        assert_eq!((lines[1][3], lines[1].last()), ("true", Some(&"kept: 1st of last=1")));
        assert_eq!((lines[2][1], lines[2].last()), ("old", Some(&"will go: no rule keeps it")));
        assert_eq!(lines.len(), 3);
        assert!(!said.out.contains('\u{1b}'), "no colour where no terminal is");

        let list = json_of(cluster, &["data", "--retention=last=2"]).await;
        assert_eq!(list["items"][1]["retention"], json!({"verdict": "kept", "reason": "2nd of last=2"}));
    })
    .await;
}

#[tokio::test]
async fn what_a_list_foretells_a_run_does() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        for name in ["one", "two", "three"] {
            cluster.older(name, "data").await;
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        }
        cluster.annotate_claim("data", json!({"volume-snapshotter/retention": "last=2"})).await;
        default_schedule(cluster).await;
        let foretold = json_of(cluster, &[]).await;
        let goes = |item: &&Value| item["retention"]["verdict"] == "goes";
        let goes: Vec<&Value> = foretold["items"].as_array().expect("items").iter().filter(goes).collect();
        assert_eq!(goes.iter().map(|item| &item["snapshot"]).collect::<Vec<_>>(), ["one"]);
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert!(!cluster.names().await.contains(&"one".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn claims_are_chosen_by_name_by_selector_or_by_the_settings_of_a_run() {
    everywhere(async |cluster| {
        cluster.labelled_claim("data", json!({"app": "web"})).await;
        cluster.claim("logs").await;
        cluster.older("of-data", "data").await;
        cluster.older("of-logs", "logs").await;
        assert_eq!(names(&json_of(cluster, &[]).await), ["of-data", "of-logs"]);
        assert_eq!(names(&json_of(cluster, &["logs"]).await), ["of-logs"]);
        assert_eq!(names(&json_of(cluster, &["-l", "app=web"]).await), ["of-data"]);
        let settings = [("SNAPSHOT_PVC_NAMES", "logs")];
        let said = cluster.say_with(&list_rights(), &settings, &["list", "-o", "yaml"]).await;
        said.assert_exit(0);
        let list: Value = serde_saphyr::from_str(&said.out).expect("YAML");
        assert_eq!(names(&list), ["of-logs"]);

        let said = cluster.say(&list_rights(), &["list", "typo", "logs"]).await;
        said.assert_exit(2)
            .assert_says("error: there is neither a claim nor a snapshot of one in namespace ");
        said.assert_says(": typo");
        assert!(said.out.contains("of-logs"));
    })
    .await;
}

#[tokio::test]
async fn each_is_judged_by_the_settings_of_its_own_schedule() {
    everywhere(async |cluster| {
        cluster.labelled_claim("data", json!({"app": "web"})).await;
        for (name, job) in [("w3", "weekly"), ("w2", "weekly"), ("h2", "hourly"), ("w1", "weekly"), ("h1", "hourly")] {
            cluster.older_labelled(name, "data", json!({"job": job})).await;
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        }
        let by_label = ("SNAPSHOT_PVC_SELECTOR", "app=web");
        schedule(cluster, "hourly", &[by_label, ("SNAPSHOT_JOB", "hourly")]).await;
        schedule(cluster, "weekly", &[by_label, ("SNAPSHOT_JOB", "weekly"), ("SNAPSHOT_RETENTION", "last=2")]).await;
        let said = cluster.say(&list_rights(), &["list"]).await;
        said.assert_exit(0).assert_says(
            "schedule hourly keeps last=1 (CronJob hourly, ConfigMap hourly-5k2hd9); schedule weekly keeps last=2 (CronJob \
             weekly, ConfigMap weekly-5k2hd9)\n",
        );
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        let rows = lines(&said.out);
        assert_eq!(rows[0][6..], ["SCHEDULE", "RETENTION"]);
        assert_eq!(rows[1][1], "h1");
        assert_eq!(rows[1][6..], ["hourly", "kept: 1st of last=1"]);
        let all = json_of(cluster, &[]).await;
        assert_eq!(verdicts(&all), ["h1 kept", "w1 kept", "h2 goes", "w2 kept", "w3 goes"]);
        // What a user gives wins, and no schedule will do that.
        let given = json_of(cluster, &["--retention=last=1"]).await;
        assert_eq!(verdicts(&given), ["h1 kept", "w1 kept", "h2 would-go", "w2 would-go", "w3 would-go"]);
        let said = cluster.say(&list_rights(), &["list", "--job=weekly"]).await;
        said.assert_exit(0).assert_says("2 snapshots of other schedules are not shown (2 of hourly); --all shows them");
        assert!(!said.out.contains(" h1 ") && said.out.contains(" w3 "), "{}", said.out);
    })
    .await;
}

#[tokio::test]
async fn without_a_schedule_to_be_found_nothing_is_said_to_go() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        cluster.older("new", "data").await;
        let expected = ["new kept", "old would-go"];
        let said = cluster.say(&list_rights(), &["list", "-o", "json"]).await;
        said.assert_exit(0).assert_says(
            "warning: no CronJob of volume-snapshotter was found for these snapshots, so assuming that schedule \
             volume-snapshotter keeps last=1; other rules: --retention",
        );
        assert_eq!(verdicts(&serde_json::from_str(&said.out).expect("JSON")), expected);
        default_schedule(cluster).await;
        // Neither CronJobs nor, at last, what they take their settings from may be read.
        let may_not_list = cluster.say(&rules(PERMISSIONS), &["list", "-o", "json"]).await;
        may_not_list.assert_exit(0).assert_says("warning: the schedules' settings are not known, so assuming");
        may_not_list.assert_says("resources: [\"cronjobs\"], verbs: [\"list\"]");
        assert_eq!(verdicts(&serde_json::from_str(&may_not_list.out).expect("JSON")), expected);
        let may_list = rules(&[PERMISSIONS, &SCHEDULE_PERMISSIONS[..1]].concat());
        let said = cluster.say(&may_list, &["list", "-o", "json"]).await;
        said.assert_exit(0).assert_says("ConfigMap volume-snapshotter-5k2hd9 may not be read");
        assert!(!said.out.contains("\"goes\""), "{}", said.out);
        assert_eq!(verdicts(&json_of(cluster, &[]).await), ["new kept", "old goes"]);
    })
    .await;
}

#[tokio::test]
async fn what_a_restore_would_choose_is_among_what_is_listed() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older_labelled("by-hand", "data", json!({})).await;
        cluster.older_labelled("monthly-1", "data", json!({"job": "monthly"})).await;
        cluster.older("ours", "data").await;
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        cluster.older_labelled("monthly-2", "data", json!({"job": "monthly"})).await;
        default_schedule(cluster).await;
        let said = cluster.say(&list_rights(), &["list"]).await;
        said.assert_exit(0).assert_says(
            "2 snapshots of other schedules are not shown (1 of none, 1 of monthly); --all shows them",
        );
        let rows = lines(&said.out);
        assert_eq!(rows[1][1], "monthly-2");
        assert_eq!(rows[1][6..], ["monthly", "another schedule's"]);
        assert_eq!(rows[2][1], "ours");
        assert_eq!(rows.len(), 3);
        let said = cluster.say(&list_rights(), &["list", "--all"]).await;
        assert_eq!(lines(&said.out).len(), 5);
        let permissions = rules(volume_snapshotter::cluster::RESTORE_PERMISSIONS);
        let said = cluster.say(&permissions, &["restore", "--claim=data", "--to=b", "--dry-run"]).await;
        said.assert_exit(0).assert_says("from snapshot monthly-2 of claim data");
        assert_eq!(names(&json_of(cluster, &["--job", "monthly"]).await), ["monthly-2", "monthly-1"]);
    })
    .await;
}

#[tokio::test]
async fn a_suspended_schedule_and_one_that_chooses_other_claims_delete_nothing() {
    everywhere(async |cluster| {
        for claim in ["data", "logs"] {
            cluster.claim(claim).await;
            cluster.older(&format!("{claim}-1"), claim).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        for claim in ["data", "logs"] {
            cluster.older(&format!("{claim}-2"), claim).await;
        }
        let namespace = cluster.namespace.as_str();
        let mut suspended =
            objects::cron_job(namespace, "volume-snapshotter", &[("SNAPSHOT_PVC_NAMES", "data")], &[]);
        suspended["spec"]["suspend"] = json!(true);
        cluster.post(&format!("/apis/batch/v1/namespaces/{namespace}/cronjobs"), &suspended).await;
        let said = cluster.say(&list_rights(), &["list"]).await;
        said.assert_exit(0).assert_says("keeps last=1 (CronJob volume-snapshotter, suspended)");
        assert!(said.out.contains("would go: no rule keeps it"), "{}", said.out);
        assert!(said.out.contains("kept: no schedule selects the claim"), "{}", said.out);
        assert!(!said.out.contains("will go"), "{}", said.out);
    })
    .await;
}

#[tokio::test]
async fn of_claims_that_a_run_refuses_nothing_is_said_to_go() {
    embedded_only(Options::default(), "needs claims in states of a test's choice", async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        cluster.older("new", "data").await;
        default_schedule(cluster).await;
        assert_eq!(verdicts(&json_of(cluster, &[]).await), ["new kept", "old goes"]);
        for phase in ["Lost", "Pending"] {
            cluster.fake().update("persistentvolumeclaims", &cluster.namespace, "data", |claim| {
                claim["status"]["phase"] = json!(phase);
                claim["spec"]["volumeName"] = json!("another");
            });
            let list = json_of(cluster, &[]).await;
            assert_eq!(list["items"][1]["retention"]["reason"], format!("the claim is {phase}"));
        }
    })
    .await;
}

#[tokio::test]
async fn names_of_others_forge_no_row() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        for (name, claim) in
            [("cut", "data\u{1b}[2K\r\ndata    forged    1s    true"), ("turned", "a\u{202e}\u{2028}b")]
        {
            let mut hostile = objects::snapshot(&cluster.namespace, name, claim);
            hostile["spec"]["volumeSnapshotClassName"] = json!("x\u{1b}[31m\u{9b}2J");
            cluster.post(&cluster.snapshots_path(), &hostile).await;
        }
        default_schedule(cluster).await;
        for output in ["table", "wide", "json", "yaml"] {
            let said = cluster.say(&list_rights(), &["list", "--all", "-o", output]).await;
            said.assert_exit(0);
            let bad = |character: char| {
                character.is_control() && character != '\n' || ('\u{2028}'..='\u{202e}').contains(&character)
            };
            assert!(
                !said.out.contains(bad) && !said.err.contains(bad),
                "{output}: {:?} {:?}",
                said.out,
                said.err
            );
            if ["table", "wide"].contains(&output) {
                assert!(!said.out.lines().any(|line| line.starts_with("data    forged")), "{}", said.out);
                assert!(said.out.contains(r#""a\u{202e}\u{2028}b""#), "{}", said.out);
            }
        }
        let list: Value = json_of(cluster, &["--all"]).await;
        assert!(list.to_string().contains("\u{202e}"), "scripts get what is there");
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_does_not_finish_is_a_warning() {
    embedded_only(Options::default(), "needs a snapshot that was deleted long ago", async |cluster| {
        cluster.claim("data").await;
        let old = objects::ready_snapshot(&cluster.namespace, "old", "data", "2026-01-01T00:00:00Z");
        cluster.fake().put(objects::terminating(old, "2026-01-02T00:00:00Z"));
        cluster.older("new", "data").await;
        default_schedule(cluster).await;
        let said = cluster.say(&list_rights(), &["list"]).await;
        said.assert_exit(0).assert_says("warning: deletion is stuck: old (");
        assert!(said.out.contains(" stuck "), "{}", said.out);
        assert_eq!(json_of(cluster, &[]).await["items"][1]["terminatingSince"], "2026-01-02T00:00:00Z");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_kubeconfig_is_named_in_one_line() {
    everywhere(async |cluster| {
        let plain: Value = serde_json::from_str(&cluster.kubeconfig_for("token".into())).expect("JSON");
        let plugin = |command: &str, args: &[&str]| {
            let mut kubeconfig = plain.clone();
            kubeconfig["users"][0]["user"] = json!({"exec": {
                "apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": args,
                "interactiveMode": "Never",
            }});
            cluster.file("kubeconfig", &kubeconfig.to_string())
        };
        let (missing, failing) =
            (plugin("no-such-plugin", &[]), plugin("sh", &["-c", "echo s3cret; exit 3"]));
        let broken = cluster.file("kubeconfig", "users:\n- user: {token: s3cret\n");
        let path = |path: &Path| path.to_str().expect("a path").to_owned();
        for (arguments, said) in [
            (vec!["--context=elsewhere".to_owned()], "there is no context \"elsewhere\" in the kubeconfig"),
            (
                vec!["--kubeconfig=/no/such/file".to_owned()],
                "cannot read the kubeconfig /no/such/file: No such file",
            ),
            (
                vec![format!("--kubeconfig={}", path(&missing))],
                "exec plugin \"no-such-plugin\" cannot be started",
            ),
            (vec![format!("--kubeconfig={}", path(&failing))], "failed: exit status: 3; run it by hand"),
            (vec![format!("--kubeconfig={}", path(&broken))], "the kubeconfig cannot be parsed"),
        ] {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let answer = cluster.say(&list_rights(), &[&["list"], arguments.as_slice()].concat()).await;
            answer.assert_exit(2).assert_says(said);
            assert_eq!(answer.err.lines().count(), 1, "{}", answer.err);
            assert!(!answer.err.contains("s3cret"), "{}", answer.err);
        }
        // And one that is right wins over the environment.
        let permission = cluster.kubeconfig(&list_rights()).await;
        let arguments = ["list", "--kubeconfig", permission.to_str().expect("a path")];
        let variables = [("KUBECONFIG", "/no/such/file")];
        cluster.say_with(&list_rights(), &variables, &arguments).await.assert_exit(0);
    })
    .await;
}

#[tokio::test]
async fn an_api_server_that_cannot_be_reached_is_told_in_one_line_within_ten_seconds() {
    embedded_only(Options::default(), "a real API server is there", async |cluster| {
        // A port that nobody listens on: it was just given back.
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
        let nowhere = cluster
            .kubeconfig_for("token".into())
            .replace(&cluster.fake().url(), &format!("http://127.0.0.1:{port}"));
        let nowhere = cluster.file("kubeconfig", &nowhere);
        let variables = [("KUBECONFIG", nowhere.to_str().expect("a path"))];
        let said = cluster.say_with(&list_rights(), &variables, &["list"]).await;
        said.assert_exit(1).assert_says("Connection refused");
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert!(said.took < std::time::Duration::from_secs(11), "{:?}", said.took);
    })
    .await;
}

#[tokio::test]
async fn what_is_stuck_is_shown_with_its_error() {
    embedded_only(Options::default(), "needs a driver whose errors a test chooses", async |cluster| {
        cluster.claim("data").await;
        cluster.fake().plan(|_| Some(Plan::fails("rpc error: storage is down")));
        cluster.new_snapshot("stuck", "data", json!({"job": "volume-snapshotter"})).await;
        cluster
            .until("it reports", async || cluster.snapshot("stuck").await["status"]["error"].is_object())
            .await;
        default_schedule(cluster).await;
        let said = cluster.say(&list_rights(), &["list"]).await;
        said.assert_exit(0);
        let table: Vec<&str> = said.out.lines().collect();
        assert!(table[1].contains(" false ") && table[1].contains(" error "), "{}", said.out);
        assert_eq!(table[2], "  error: rpc error: storage is down");
        let wide = cluster.say(&list_rights(), &["list", "-o", "wide"]).await;
        assert!(wide.out.lines().nth(1).is_some_and(|line| line.ends_with("rpc error: storage is down")));
        assert_eq!(json_of(cluster, &[]).await["items"][0]["error"], "rpc error: storage is down");
    })
    .await;
}

#[tokio::test]
async fn a_context_and_a_namespace_are_those_of_kubectl() {
    everywhere(async |cluster| {
        let other = cluster.another_namespace("other", json!({})).await;
        other.claim("data").await;
        other.older("there", "data").await;
        cluster.grant_everywhere(&list_rights()).await;
        assert_eq!(names(&json_of(cluster, &[]).await), [""; 0]);
        assert_eq!(names(&json_of(cluster, &["-n", &other.namespace]).await), ["there"]);
        let said = cluster.say(&list_rights(), &["list", "-A"]).await;
        said.assert_exit(0);
        assert!(said.out.lines().any(|line| line.starts_with(&other.namespace) && line.contains(" there ")));
        assert!(said.out.starts_with("NAMESPACE "));
        let said = cluster.say(&list_rights(), &["list", "--context", "elsewhere"]).await;
        said.assert_exit(2).assert_says("there is no context \"elsewhere\" in the kubeconfig");
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
    })
    .await;
}

#[tokio::test]
async fn without_the_right_to_read_claims_the_snapshots_are_listed_with_a_warning() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("old", "data").await;
        let snapshots: Vec<_> = PERMISSIONS
            .iter()
            .filter(|permission| permission.resource == "volumesnapshots")
            .copied()
            .collect();
        let said = cluster.say(&rules(&snapshots), &["list"]).await;
        said.assert_exit(0)
            .assert_says("warning: claims cannot be read, so their retention annotations are ignored");
        assert!(said.out.contains("kept: 1st of last=1"));
        let said = cluster.say(&json!([]), &["list"]).await;
        said.assert_exit(2).assert_says("resources: [\"volumesnapshots\"], verbs: [\"list\"]");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_the_command_line_or_the_settings_is_said_on_standard_error() {
    everywhere(async |cluster| {
        for (arguments, said) in [
            (vec!["list", "--frobnicate"], "error: unexpected argument '--frobnicate' found"),
            (vec!["list", "--namespac", "shop"], "a similar argument exists: '--namespace'"),
            (vec!["list", "--retention", "lats=1"], "--retention=\"lats=1\": there is no such rule"),
            (vec!["list", "Data"], "CLAIM=\"Data\": \"Data\" is not the name of a claim"),
            (vec!["list", "-n", ""], "--namespace: the value is empty"),
            (vec!["liist"], "error: unrecognized subcommand 'liist'"),
        ] {
            let answer = cluster.say(&list_rights(), &arguments).await;
            answer.assert_exit(2).assert_says(said);
            assert_eq!(answer.out, "");
        }
    })
    .await;
}

// --- How it looks ----------------------------------------------------------------------------------

/// Snapshots in every state, of three claims, as an API server has them.
fn records() -> Vec<Record> {
    let ready = |name: &str, claim: &str, time: &str| objects::ready_snapshot("shop", name, claim, time);
    let with = |mut object: Value, change: &dyn Fn(&mut Value)| {
        change(&mut object);
        object
    };
    let stuck = "rpc error: code = Unavailable desc = storage backend of pool gold is down for maintenance until 6:00";
    [
        ready("volume-snapshot-5b90e6a1", "data", "2026-11-20T11:00:05Z"),
        ready("volume-snapshot-0d41c7f2", "data", "2026-11-20T10:00:04Z"),
        ready("volume-snapshot-77aa10bc", "data", "2026-11-20T09:00:04Z"),
        ready("volume-snapshot-19c0ffee", "data", "2026-11-19T23:00:04Z"),
        with(ready("before-upgrade", "data", "2026-11-18T10:00:00Z"), &|object| {
            object["metadata"]["labels"]["volume-snapshotter/hold"] = json!("true");
        }),
        with(ready("volume-snapshot-de1e7ed0", "data", "2026-11-18T09:00:00Z"), &|object| {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-20T11:00:06Z");
        }),
        with(
            objects::unready_snapshot("shop", "volume-snapshot-93aa07de", "media", "2026-11-20T11:00:05Z"),
            &|object| {
                object["status"]["error"] = json!({"message": stuck});
            },
        ),
        ready("volume-snapshot-4be2aa31", "media", "2026-11-20T10:00:04Z"),
        objects::unready_snapshot("shop", "volume-snapshot-00c4b6f9", "orders", "2026-11-20T11:59:40Z"),
        with(ready("volume-snapshot-weekly-7c1f22b8", "orders", "2026-11-15T00:30:00Z"), &|object| {
            object["metadata"]["labels"]["job"] = json!("volume-snapshotter-weekly");
            object["status"]["restoreSize"] = json!("250Gi");
        }),
    ]
    .into_iter()
    .map(|mut object| {
        // Which of one second is first is decided by it in the end.
        object["metadata"]["uid"] = object["metadata"]["name"].clone();
        Record::from(
            serde_json::from_value::<volume_snapshotter::api::VolumeSnapshot>(object).expect("a snapshot"),
        )
    })
    .collect()
}

#[test]
fn it_looks_as_is_kept_in_tests_golden() {
    let now: Timestamp = "2026-11-20T12:00:00Z".parse().expect("a time");
    let claims: Vec<_> = ["data", "media", "orders"]
        .map(|name| {
            let mut claim = objects::bound_claim("shop", name, &[]);
            claim["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            claim["metadata"]["uid"] = json!(name);
            serde_json::from_value(claim).expect("a claim")
        })
        .into();
    let settings = Settings::parse_for_list(Vec::new(), Vec::new()).expect("settings");
    let given = [("SNAPSHOT_PVC_SELECTOR", "backup=enabled"), ("SNAPSHOT_RETENTION", "hourly=2,daily=2")];
    let given = given.map(|(name, value)| (name.into(), value.into()));
    let schedule = Schedule {
        location: Location::One("shop".into()),
        doubt: None,
        ..Schedule::without_cron_job(&Settings::parse(given).expect("settings"), Origin::Assumed)
    };
    let question = Question {
        claims: Some(&claims),
        selected: None,
        settings: &settings,
        schedules: &[schedule],
        groups: &[],
        only: None,
        all: true,
        now,
    };
    let all = list::rows(records(), &question).rows;
    let mut rows = all.clone();
    rows.retain(|row| row.retention != Retention::NotOurs);
    let table = |look: Look| list::table(&rows, look, now);
    let at = |width| Look { width: Some(width), ..Look::default() };
    for (name, text) in [
        ("list-80.txt", table(at(80))),
        ("list-160-all.txt", list::table(&all, Look { jobs: true, namespaces: true, ..at(160) }, now)),
        ("list-160.txt", table(at(160))),
        ("list-160-colour.txt", table(Look { colour: true, ..at(160) })),
        ("list-piped.txt", table(Look::default())),
        ("list-wide.txt", table(Look { wide: true, ..at(80) })),
        ("list-json.json", list::json(&rows)),
        ("list-yaml.yaml", list::yaml(&rows)),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &text).expect("the file can be written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(text, kept, "{name}: renew it with UPDATE_GOLDEN=1 cargo test --test it list");
        let width = [80, 160].into_iter().find(|width| name == format!("list-{width}.txt"));
        for line in text.lines() {
            assert!(width.is_none_or(|width| line.chars().count() <= width), "{name}: {line}");
        }
    }
}

// --- Shells ----------------------------------------------------------------------------------------

#[test]
fn the_scripts_that_complete_the_command_line_are_understood_by_their_shells() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let binary = crate::test_cluster::BINARY;
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = Command::new(binary).args(["completion", shell]).output().expect("it starts");
        assert!(script.status.success() && script.stderr.is_empty());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("completion.{shell}"));
        std::fs::write(&path, &script.stdout).expect("a file");
        match Command::new(shell).arg(check).arg(&path).stdin(Stdio::null()).output() {
            Ok(checked) => {
                let said = String::from_utf8_lossy(&checked.stderr);
                assert!(checked.status.success() && said.is_empty(), "{shell}: {said}");
            }
            Err(_) => drop(writeln!(std::io::stderr(), "SKIPPED: {shell} is not installed")),
        }
    }
}

/// What a shell that is at the last of these words is offered.
async fn completed(shell: &str, variables: &[(&str, &str)], words: &[&str]) -> Vec<String> {
    let mut asked = tokio::process::Command::new(crate::test_cluster::BINARY);
    asked.env_clear().env("VOLUME_SNAPSHOTTER_COMPLETE", shell).envs(variables.iter().copied());
    asked.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).env("_CLAP_IFS", "\n");
    let output = asked.args(["--", "volume-snapshotter"]).args(words).output().await.expect("it starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn commands_flags_and_values_are_completed() {
    let bash = async |words: &[&str]| completed("bash", &[], words).await;
    let commands =
        ["list", "restore", "simulate", "adopt", "verify", "read", "completion", "version", "help"];
    assert_eq!(bash(&[""]).await[..9], commands);
    assert_eq!(bash(&["re"]).await, ["restore", "read"]);
    assert_eq!(bash(&["restore", "--s"]).await, ["--snapshot", "--size", "--storage-class"]);
    assert_eq!(bash(&["list", "-o", "j"]).await, ["json"]);
    assert_eq!(bash(&["list", "--t"]).await, ["--timeline"]);
    assert_eq!(bash(&["simulate", "--"]).await[..3], ["--retention", "--every", "--for"]);
    assert_eq!(bash(&["simulate", "-o", ""]).await, ["text", "json"]);
    assert_eq!(bash(&["completion", "b"]).await, ["bash"]);
    assert_eq!(completed("zsh", &[], &["res"]).await, ["restore:Make a new claim from a snapshot"]);
}

#[tokio::test]
async fn claims_snapshots_and_namespaces_are_completed_by_what_the_cluster_has() {
    embedded_only(Options::default(), "it completes whatever others have", async |cluster| {
        for claim in ["data", "database", "logs"] {
            cluster.claim(claim).await;
        }
        cluster.older("snap-a", "data").await;
        cluster.older("snap-b", "logs").await;
        let token = cluster.token(&list_rights()).await;
        let kubeconfig = cluster.file("kubeconfig", &cluster.kubeconfig_for(token));
        let kubeconfig = kubeconfig.to_str().expect("UTF-8");
        let bash = async |words: &[&str]| completed("bash", &[("KUBECONFIG", kubeconfig)], words).await;
        assert_eq!(bash(&["list", "da"]).await, ["data", "database"]);
        assert_eq!(bash(&["restore", "--claim", "l"]).await, ["logs"]);
        assert_eq!(bash(&["adopt", "da"]).await, ["data", "database"]);
        assert_eq!(bash(&["adopt", "--snapshot", "snap-b"]).await, ["snap-b"]);
        assert_eq!(bash(&["restore", "--snapshot", ""]).await, ["snap-a", "snap-b"]);
        assert_eq!(bash(&["restore", "--claim", "logs", "--snapshot", ""]).await, ["snap-b"]);
        // Which namespaces there are, this account may not know.
        assert_eq!(bash(&["list", "-n", ""]).await, [""; 0]);
        cluster.grant_everywhere(&rules(NAMESPACE_PERMISSIONS)).await;
        assert!(bash(&["list", "-n", &cluster.namespace[..3]]).await.contains(&cluster.namespace));
        assert_eq!(bash(&["list", "-n", "elsewhere", "da"]).await, [""; 0]);
        // A cluster that cannot be reached is no reason to hold up a shell.
        assert_eq!(completed("bash", &[("KUBECONFIG", "/nowhere")], &["list", "da"]).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn names_are_listed_as_kubectl_takes_them() {
    everywhere(async |cluster| {
        cluster.claim("data").await;
        cluster.older("snap-a", "data").await;
        let said = cluster.say(&list_rights(), &["list", "-o", "name", "data"]).await;
        said.assert_exit(0);
        assert_eq!(said.out, "volumesnapshot.snapshot.storage.k8s.io/snap-a\n");
    })
    .await;
}

#[test]
fn bash_completes_by_the_script() {
    let binary = Path::new(crate::test_cluster::BINARY);
    let asked = "source <(volume-snapshotter completion bash); COMP_WORDS=(volume-snapshotter restore --vol); \
                 COMP_CWORD=2; COMP_TYPE=9; _clap_complete_volume_snapshotter volume-snapshotter --vol restore; \
                 echo \"${COMPREPLY[*]}\"; complete -p volume-snapshotter";
    let directory = binary.parent().expect("a directory").to_str().expect("UTF-8");
    let path = format!("{directory}:{}", std::env::var("PATH").expect("PATH"));
    let asked = std::process::Command::new("bash").args(["--norc", "-c", asked]).env("PATH", path).output();
    // Where there is no bash, nobody completes with it.
    let Ok(output) = asked else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("--volume-mode\ncomplete "), "{output:?}");
}
