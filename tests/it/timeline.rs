//! The pictures of `list --timeline` and `simulate`, and what else `simulate` says.
//!
//! How they look is kept in `tests/golden`; `UPDATE_GOLDEN=1 cargo test --test it timeline` renews that.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use fake_apiserver::objects;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use volume_snapshotter::{
    api::VolumeSnapshot,
    cluster::{PERMISSIONS, SCHEDULE_PERMISSIONS},
    list::{self, Location, Names, Origin, Question, Row, Schedule},
    retention::Rules,
    settings::Settings,
    snapshot::Record,
    timeline::Look,
};

use crate::test_cluster::{BINARY, everywhere, rules};

const POLICY: &str = "hourly=24,daily=7,weekly=4";

/// Compares with what is kept in `tests/golden`, or keeps it.
fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{name}: renew it with UPDATE_GOLDEN=1 cargo test --test it timeline");
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn now() -> Timestamp {
    time("2026-11-20T12:20:00Z")
}

/// What weeks of hourly runs have left of a claim by now.
fn history(claim: &str) -> Vec<Value> {
    let mut all: Vec<Timestamp> = Vec::new();
    let mut run = time("2026-11-20T12:00:05Z");
    while run > time("2026-10-01T00:00:00Z") {
        all.push(run);
        run -= SignedDuration::from_hours(1);
    }
    let rules: Rules = POLICY.parse().expect("rules");
    let mut kept: Vec<usize> = rules.iter().flat_map(|rule| rule.keeps(&all)).collect();
    kept.sort_unstable();
    kept.dedup();
    let snapshot =
        |index: usize| objects::ready_snapshot("shop", &format!("{claim}-{index}"), claim, all[index]);
    kept.into_iter().map(snapshot).collect()
}

/// Snapshots of every kind, of three claims.
fn rows() -> Vec<Row> {
    let ready = |name: &str, claim: &str, time: &str| objects::ready_snapshot("shop", name, claim, time);
    let with = |mut object: Value, change: &dyn Fn(&mut Value)| {
        change(&mut object);
        object
    };
    let mut snapshots = history("data");
    snapshots.extend([
        with(ready("before-upgrade", "data", "2026-11-10T09:30:00Z"), &|object| {
            object["metadata"]["labels"]["volume-snapshotter/hold"] = json!("true");
        }),
        ready("left-over", "data", "2026-11-19T02:00:05Z"),
        ready("left-over-too", "data", "2026-11-19T03:00:05Z"),
        with(objects::unready_snapshot("shop", "stuck", "media", "2026-11-20T12:00:05Z"), &|object| {
            object["status"]["error"] = json!({"message": "rpc error: code = Unavailable"});
        }),
        ready("media-1", "media", "2026-11-20T11:00:05Z"),
        ready("media-2", "media", "2026-11-20T10:00:05Z"),
        with(ready("going", "media", "2026-11-18T09:00:00Z"), &|object| {
            object["metadata"]["deletionTimestamp"] = json!("2026-11-20T12:00:06Z");
        }),
        objects::unready_snapshot("shop", "waiting", "orders", "2026-11-20T12:19:40Z"),
        ready("orders-1", "orders", "2026-11-20T11:00:04Z"),
    ]);
    for (name, time) in
        [("w1", "2026-11-15T00:30:00Z"), ("w2", "2026-11-08T00:30:00Z"), ("w3", "2026-11-01T00:30:00Z")]
    {
        snapshots.push(with(ready(name, "orders", time), &|object| {
            object["metadata"]["labels"]["job"] = json!("weekly");
        }));
    }
    let records = snapshots
        .into_iter()
        .map(|mut object| {
            object["metadata"]["uid"] = object["metadata"]["name"].clone();
            Record::from(serde_json::from_value::<VolumeSnapshot>(object).expect("a snapshot"))
        })
        .collect();
    let claims: Vec<_> = ["data", "media", "orders"]
        .map(|name| {
            let mut claim = objects::bound_claim("shop", name, &[]);
            claim["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
            serde_json::from_value(claim).expect("a claim")
        })
        .into();
    let settings = Settings::parse_for_list(Vec::new(), Vec::new()).expect("settings");
    let given = [("SNAPSHOT_PVC_SELECTOR", "backup=enabled"), ("SNAPSHOT_RETENTION", POLICY)];
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
        now: now(),
    };
    list::rows(records, &question).rows
}

#[test]
fn the_timeline_of_a_list_looks_as_is_kept_in_tests_golden() {
    let rows = rows();
    let look = |width| Look { width, colour: false, unicode: true };
    let names = Names { namespaces: false, schedules: true };
    let drawn = |names, look| list::timeline(&rows, names, look, now());
    for width in [80, 120] {
        let text = drawn(names, look(width));
        compare(&format!("list-timeline-{width}.txt"), &text);
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{line}");
        }
    }
    let ascii = drawn(names, Look { unicode: false, ..look(80) });
    assert!(ascii.is_ascii());
    compare("list-timeline-ascii.txt", &ascii);
    compare("list-timeline-colour.txt", &drawn(names, Look { colour: true, ..look(80) }));
    let of_many = drawn(Names { namespaces: true, schedules: false }, look(80));
    assert!(of_many.starts_with("shop/data: "), "{of_many}");
}

/// Every row is in the picture, by what the table says of it.
#[test]
fn the_timeline_says_what_the_table_says() {
    let rows = rows();
    let look = Look { width: 200, colour: false, unicode: true };
    let drawn = list::timeline(&rows, Names { namespaces: false, schedules: true }, look, now());
    let numbers: Vec<(&str, usize)> = drawn
        .lines()
        .filter_map(|line| line.strip_prefix(' ')?.split_once('│'))
        .filter_map(|(label, _)| label.trim().rsplit_once(' '))
        .filter_map(|(cause, number)| Some((cause.trim(), number.parse().ok()?)))
        .collect();
    assert_eq!(numbers.iter().map(|(_, number)| number).sum::<usize>(), rows.len());
    let table = list::table(&rows, list::Look::default(), now());
    let said = |words: &str| table.lines().filter(|line| line.contains(words)).count();
    for (cause, words) in [
        ("hourly=24", "of hourly=24"),
        ("daily=7", "of daily=7"),
        ("weekly=4", "of weekly=4"),
        ("held", "kept: held"),
        ("being deleted", "being deleted"),
        ("not ready yet", "kept: not ready yet"),
        ("another schedule's", "another schedule's"),
        ("will go", "will go: "),
    ] {
        let drawn: usize =
            numbers.iter().filter(|(other, _)| *other == cause).map(|(_, number)| number).sum();
        assert_eq!(drawn, said(words), "{cause}");
        assert!(drawn > 0, "{cause}");
    }
}

#[tokio::test]
async fn list_draws_a_timeline_as_wide_as_it_is_told() {
    everywhere(async |cluster| {
        for claim in ["data", "logs"] {
            cluster.claim(claim).await;
        }
        for (name, claim) in [("old", "data"), ("new", "data"), ("other", "logs")] {
            cluster.older(name, claim).await;
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        let rights = rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS].concat());
        let arguments = ["list", "--timeline", "--retention", "last=1"];
        let said = cluster.say(&rights, &arguments).await;
        said.assert_exit(0).assert_says("judged by the rules that are given: last=1");
        assert!(
            said.out.is_ascii() && said.out.starts_with("data: 2 snapshots; newest ready "),
            "{}",
            said.out
        );
        assert!(said.out.contains("\nlogs: 1 snapshot; newest ready "), "{}", said.out);
        let lines: Vec<&str> = said.out.lines().collect();
        assert!(lines[1].starts_with(" last=1 ") && lines[1].ends_with('*'), "{}", said.out);
        assert!(lines[2].starts_with(" would go ") && lines[2].ends_with('x'), "{}", said.out);
        let width = |out: &str| out.lines().map(|line| line.chars().count()).max();
        let variables = [("COLUMNS", "120"), ("LC_ALL", "C.UTF-8")];
        let wide = cluster.say_with(&rights, &variables, &arguments).await;
        assert!(wide.out.contains('●') && wide.out.contains("60m"), "{}", wide.out);
        assert!(width(&said.out) <= Some(80) && width(&wide.out) > Some(80), "{}", wide.out);
        // There is nothing to draw of a claim without any.
        cluster.claim("empty").await;
        let said = cluster.say(&rights, &["list", "--timeline", "empty"]).await;
        said.assert_exit(0).assert_says("no snapshots found in namespace ");
        assert_eq!(said.out, "");
    })
    .await;
}

/// `simulate` as a person at a keyboard gives it, where there is no cluster.
fn simulate(variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("simulate").args(arguments).env_clear().env("KUBECONFIG", "/nowhere");
    command.envs(variables.iter().copied()).stdin(Stdio::null()).output().expect("it starts")
}

/// Fails unless it succeeded, with nothing on standard error.
fn said(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_simulation_looks_as_is_kept_in_tests_golden() {
    let arguments = ["--retention", POLICY, "--every", "1h", "--for", "1y"];
    for width in ["80", "120"] {
        let text = said(simulate(&[("COLUMNS", width), ("LANG", "C.UTF-8")], &arguments));
        compare(&format!("simulate-{width}.txt"), &text);
        assert!(text.lines().all(|line| line.chars().count() <= width.parse().expect("a number")));
    }
    compare("simulate-ascii.txt", &said(simulate(&[("LANG", "C.UTF-8"), ("TERM", "dumb")], &arguments)));
    let deltas = ["--retention=deltas=PT1H P1D P7D", "--every=1h", "--for=30d", "-o=json"];
    compare("simulate-json.json", &said(simulate(&[], &deltas)));
}

#[test]
fn the_readme_shows_a_simulation_as_it_is() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(top.join("README.md")).expect("the README");
    let printed = std::fs::read_to_string(top.join("tests/golden/simulate-80.txt")).expect("a simulation");
    let begin = readme.find("```text\nPolicy").expect("a simulation") + "```text\n".len();
    let shown: Vec<&str> =
        readme[begin..].lines().take_while(|line| *line != "```").filter(|line| *line != "…").collect();
    assert!(
        shown.len() > 8 && readme.contains(&format!("simulate --retention {POLICY} --every 1h --for 1y"))
    );
    for line in shown {
        assert!(printed.lines().any(|printed| printed == line), "{line}");
    }
}

#[test]
fn a_year_of_hourly_runs_is_simulated_in_no_time_and_alike_each_time() {
    let arguments = ["--retention", "hourly=24,daily=7,weekly=4,monthly=12", "-o", "json"];
    let began = Instant::now();
    let text = said(simulate(&[], &arguments));
    // Without optimization, and beside other tests, it takes a second at most.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(said(simulate(&[], &arguments)), text);
    let outcome: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(outcome["made"], 8760);
    let kept = outcome["snapshots"].as_array().expect("snapshots").len();
    assert_eq!(outcome["deleted"], 8760 - kept);
    // As the README says of this policy: 47 at most, less those that two rules keep.
    assert!(outcome["most"].as_u64() <= Some(48) && outcome["steady"]["most"].as_u64() <= Some(47), "{text}");
}

#[test]
fn what_a_simulation_cannot_do_is_said_with_its_limits() {
    for (arguments, problem) in [
        (&[][..], "required arguments were not provided:\n  --retention <RULES>"),
        (
            &["--retention=dayly=7"],
            "there is no such rule (at character 1: \"dayly=7\"); accepted are last=N",
        ),
        (&["--retention=last=1", "--every=5s"], "\"5s\" is too short; accepted are 1m (a minute) to 100y"),
        (&["--retention=last=1", "--for=200y"], "\"200y\" is too long; accepted are 1m (a minute) to 100y"),
        (
            &["--retention=last=1", "--every=1m", "--for=100y"],
            "is more than 600000 runs; give a longer --every",
        ),
        (&["--retention=last=1", "-o=yaml"], "[possible values: text, json]"),
    ] {
        let output = simulate(&[], arguments);
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.starts_with("error: ") && error.contains(problem), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}
