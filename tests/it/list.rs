//! `volume-snapshotter list`: what there is, and why it stays.
//!
//! How it looks is kept in `tests/golden/list-*`; `UPDATE_GOLDEN=1 cargo test --test it list` renews
//! that.

use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use testbed::{Options, Plan, objects};
use volume_snapshotter::{
    cluster::RIGHTS,
    list::{self, Look, Retention},
    settings::Settings,
    snapshot::Record,
};

use crate::place::{Place, all_rights, embedded_only, everywhere, rules};

/// The cells of a table's lines.
fn lines(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect()
}

async fn json_of(place: &Place, arguments: &[&str]) -> Value {
    let said = place.say(&all_rights(), &[&["list", "-o", "json"], arguments].concat()).await;
    said.assert_exit(0);
    serde_json::from_str(&said.out).expect("JSON")
}

/// The names of what is listed.
fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().filter_map(|item| item["snapshot"].as_str()).collect()
}

#[tokio::test]
async fn the_snapshots_of_all_claims_are_listed_with_why_they_stay() {
    everywhere(async |place| {
        place.claim("data").await;
        place.older("old", "data").await;
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        place.older("new", "data").await;
        let said = place.say(&all_rights(), &["list"]).await;
        said.assert_exit(0);
        assert_eq!(said.err, "");
        let lines = lines(&said.out);
        assert_eq!(lines[0], ["CLAIM", "SNAPSHOT", "AGE", "READY", "SIZE", "STATE", "RETENTION"]);
        assert_eq!(lines[1][..2], ["data", "new"]);
        assert_eq!((lines[1][3], lines[1].last()), ("true", Some(&"kept: 1st of last=1")));
        assert_eq!((lines[2][1], lines[2].last()), ("old", Some(&"will go: no rule keeps it")));
        assert_eq!(lines.len(), 3);
        assert!(!said.out.contains('\u{1b}'), "no colour where no terminal is");

        let list = json_of(place, &["data", "--retention=last=2"]).await;
        assert_eq!(list["items"][1]["retention"], json!({"verdict": "kept", "reason": "2nd of last=2"}));
    })
    .await;
}

#[tokio::test]
async fn what_a_list_foretells_a_run_does() {
    everywhere(async |place| {
        place.claim("data").await;
        for name in ["one", "two", "three"] {
            place.older(name, "data").await;
            tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        }
        place.annotate_claim("data", json!({"volume-snapshotter/retention": "last=2"})).await;
        let foretold = json_of(place, &[]).await;
        let goes = |item: &&Value| item["retention"]["verdict"] == "goes";
        let goes: Vec<&Value> = foretold["items"].as_array().expect("items").iter().filter(goes).collect();
        assert_eq!(goes.iter().map(|item| &item["snapshot"]).collect::<Vec<_>>(), ["one"]);
        place.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        assert!(!place.names().await.contains(&"one".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn claims_are_chosen_by_name_by_selector_or_by_the_settings_of_a_run() {
    everywhere(async |place| {
        place.labelled_claim("data", json!({"app": "web"})).await;
        place.claim("logs").await;
        place.older("of-data", "data").await;
        place.older("of-logs", "logs").await;
        assert_eq!(names(&json_of(place, &[]).await), ["of-data", "of-logs"]);
        assert_eq!(names(&json_of(place, &["logs"]).await), ["of-logs"]);
        assert_eq!(names(&json_of(place, &["-l", "app=web"]).await), ["of-data"]);
        let settings = [("SNAPSHOT_PVC_NAMES", "logs")];
        let said = place.say_with(&all_rights(), &settings, &["list", "-o", "yaml"]).await;
        said.assert_exit(0);
        let list: Value = serde_saphyr::from_str(&said.out).expect("YAML");
        assert_eq!(names(&list), ["of-logs"]);

        let said = place.say(&all_rights(), &["list", "typo", "logs"]).await;
        said.assert_exit(2)
            .assert_says("error: there is neither a claim nor a snapshot of one in namespace ");
        said.assert_says(": typo");
        assert!(said.out.contains("of-logs"));
    })
    .await;
}

#[tokio::test]
async fn those_of_other_schedules_are_shown_when_asked_for_and_not_judged() {
    everywhere(async |place| {
        place.claim("data").await;
        place.older_labelled("weekly", "data", json!({"job": "weekly"})).await;
        let said = place.say(&all_rights(), &["list"]).await;
        said.assert_exit(0).assert_says("no snapshots found in namespace ");
        assert_eq!(said.out, "");
        let said = place.say(&all_rights(), &["list", "--all"]).await;
        said.assert_exit(0);
        let lines = lines(&said.out);
        assert_eq!(lines[0][6..], ["SCHEDULE", "RETENTION"]);
        assert_eq!(lines[1][6..], ["weekly", "another schedule's"]);
        assert_eq!(names(&json_of(place, &["--job", "weekly"]).await), ["weekly"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_stuck_is_shown_with_its_error() {
    embedded_only(Options::default(), "needs a driver whose errors a test chooses", async |place| {
        place.claim("data").await;
        place.bed().plan(|_| Some(Plan::fails("rpc error: storage is down")));
        place.new_snapshot("stuck", "data", json!({"job": "volume-snapshotter"})).await;
        place
            .until("it reports", async || place.snapshot("stuck").await["status"]["error"].is_object())
            .await;
        let said = place.say(&all_rights(), &["list"]).await;
        said.assert_exit(0);
        let table: Vec<&str> = said.out.lines().collect();
        assert!(table[1].contains(" false ") && table[1].contains(" error "), "{}", said.out);
        assert_eq!(table[2], "  error: rpc error: storage is down");
        let wide = place.say(&all_rights(), &["list", "-o", "wide"]).await;
        assert!(wide.out.lines().nth(1).is_some_and(|line| line.ends_with("rpc error: storage is down")));
        assert_eq!(json_of(place, &[]).await["items"][0]["error"], "rpc error: storage is down");
    })
    .await;
}

#[tokio::test]
async fn a_context_and_a_namespace_are_those_of_kubectl() {
    everywhere(async |place| {
        let other = place.another_namespace("other", json!({})).await;
        other.claim("data").await;
        other.older("there", "data").await;
        place.grant_everywhere(&rules(RIGHTS)).await;
        assert_eq!(names(&json_of(place, &[]).await), [""; 0]);
        assert_eq!(names(&json_of(place, &["-n", &other.namespace]).await), ["there"]);
        let said = place.say(&all_rights(), &["list", "-A"]).await;
        said.assert_exit(0);
        assert!(said.out.lines().any(|line| line.starts_with(&other.namespace) && line.contains(" there ")));
        assert!(said.out.starts_with("NAMESPACE "));
        let said = place.say(&all_rights(), &["list", "--context", "elsewhere"]).await;
        said.assert_exit(2).assert_says("error: cannot find out where the API server is: the kubeconfig: ");
        said.assert_says("elsewhere");
    })
    .await;
}

#[tokio::test]
async fn without_the_right_to_read_claims_the_snapshots_are_listed_with_a_warning() {
    everywhere(async |place| {
        place.claim("data").await;
        place.older("old", "data").await;
        let snapshots: Vec<_> =
            RIGHTS.iter().filter(|right| right.resource == "volumesnapshots").copied().collect();
        let said = place.say(&rules(&snapshots), &["list"]).await;
        said.assert_exit(0)
            .assert_says("warning: claims are not read, so their retention annotations are not heeded");
        assert!(said.out.contains("kept: 1st of last=1"));
        let said = place.say(&json!([]), &["list"]).await;
        said.assert_exit(2).assert_says("resources: [\"volumesnapshots\"], verbs: [\"list\"]");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_the_command_line_or_the_settings_is_said_on_standard_error() {
    everywhere(async |place| {
        for (arguments, said) in [
            (
                vec!["list", "--frobnicate"],
                "volume-snapshotter: invalid option '--frobnicate'; see list --help",
            ),
            (vec!["list", "--retention", "lats=1"], "--retention=\"lats=1\": there is no such rule"),
            (vec!["list", "Data"], "CLAIM=\"Data\": \"Data\" is not the name of a claim"),
            (vec!["list", "-n", ""], "--namespace: the value is empty"),
            (vec!["liist"], "unknown argument \"liist\"; the commands are list, restore and completion"),
        ] {
            let answer = place.say(&all_rights(), &arguments).await;
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
            serde_json::from_value(claim).expect("a claim")
        })
        .into();
    let settings = [("SNAPSHOT_RETENTION".into(), "hourly=2,daily=2".into())];
    let settings = Settings::parse_for_list(settings, Vec::new()).expect("settings");
    let all = list::rows(records(), Some(&claims), &settings, now).rows;
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
    let binary = crate::place::BINARY;
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

#[test]
fn bash_completes_commands_flags_and_values() {
    let script = std::process::Command::new(crate::place::BINARY).args(["completion", "bash"]).output();
    let script = String::from_utf8(script.expect("it starts").stdout).expect("UTF-8");
    let completed = |words: &[&str]| {
        let list = words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ");
        let asked = format!(
            "{script}\nCOMP_WORDS=(volume-snapshotter {list}); COMP_CWORD={}; _volume_snapshotter; echo \"${{COMPREPLY[*]}}\"",
            words.len()
        );
        let output = std::process::Command::new("bash").args(["--norc", "-c", &asked]).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Where there is no bash, nobody completes with it.
    let Some(commands) = completed(&[""]) else { return };
    assert_eq!(commands, "list restore completion --help --version");
    assert_eq!(completed(&["re"]).as_deref(), Some("restore"));
    assert_eq!(completed(&["restore", "--s"]).as_deref(), Some("--snapshot --size --storage-class"));
    assert_eq!(completed(&["list", "-o", "j"]).as_deref(), Some("json"));
    assert_eq!(completed(&["restore", "--to", ""]).as_deref(), Some(""));
}
