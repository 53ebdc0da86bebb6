use std::rc::Rc;

use k8s_openapi::jiff::Timestamp;

use super::*;
use crate::{
    report::{Failure, Step, Stop},
    snapshot::ClaimId,
};

const ENDED: SystemTime = UNIX_EPOCH;

fn claim(name: &str, end: End) -> ClaimReport {
    let id = ClaimId { namespace: "app".to_owned(), name: name.to_owned() };
    let newest_ready = "2026-11-20T08:55:11Z".parse().ok();
    ClaimReport {
        stock: Some(Stock { newest_ready, ready: 4, held: 1, terminating: 2 }),
        deleted: 1,
        end,
        ..ClaimReport::new(name.to_owned(), Rc::new(id), None)
    }
}

fn failed(reason: Reason) -> End {
    End::Failed(Failure { message: "because".to_owned(), is_transient: true, reason })
}

fn report(claims: Vec<ClaimReport>) -> Report {
    Report { claims, took: Duration::from_millis(12_345), ..Report::default() }
}

/// The lines that are no comments, without what all names begin with.
fn series(report: &Report) -> Vec<String> {
    let text = text(report, ENDED + Duration::from_millis(1_795_290_271_500)).expect("text");
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series.map(|line| line.strip_prefix("volume_snapshotter_").expect("our prefix").to_owned()).collect()
}

fn of(all: &[String], name: &str) -> Vec<String> {
    all.iter().filter(|line| line.starts_with(name)).cloned().collect()
}

#[test]
fn a_success_says_when_it_was_and_a_failure_says_nothing_of_it() {
    let well = series(&report(vec![claim("data", End::Done)]));
    assert_eq!(of(&well, "last_success"), ["last_success_timestamp_seconds 1795290271.5"]);
    assert_eq!(of(&well, "last_run"), ["last_run_timestamp_seconds 1795290271.5"]);
    assert_eq!(of(&well, "run_duration"), ["run_duration_seconds 12.345"]);
    assert_eq!(of(&well, "run_exit_code"), ["run_exit_code 0.0"]);
    assert_eq!(
        of(&well, "build_info"),
        [concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1.0")]
    );
    for (end, exit) in [
        (failed(Reason::Quota), "run_exit_code 1.0"),
        (End::NotPruned("because".to_owned()), "run_exit_code 3.0"),
        (End::Unfinished(Step::Waiting), "run_exit_code 1.0"),
    ] {
        let badly = series(&report(vec![claim("data", end)]));
        assert_eq!(of(&badly, "last_success"), [""; 0]);
        assert_eq!(of(&badly, "run_exit_code"), [exit]);
    }
}

#[test]
fn what_is_said_of_one_claim_is_said_of_all() {
    let ready =
        ClaimReport { ready_after: Some(Duration::from_millis(612)), kept: 3, ..claim("a", End::Done) };
    let taken_over = ClaimReport { taken_over: true, ..ready.clone() };
    let taken_over = ClaimReport { id: claim("b", End::Done).id, ..taken_over };
    let never = claim("c", failed(Reason::NotReady));
    let never = ClaimReport { stock: Some(Stock::default()), deleted: 0, ..never };
    let skipped = claim("d", End::PassedOver("it is Pending".to_owned()));
    let all = series(&report(vec![ready, taken_over, never, skipped]));
    let of_claims = |name: &str| -> Vec<String> {
        let strip = |line: &String| line.replace("claim_namespace=\"app\",persistentvolumeclaim=", "");
        of(&all, name).iter().map(strip).collect()
    };
    for (name, values) in [
        ("claim_newest_ready_timestamp_seconds", ["1795164911.0", "1795164911.0", "0.0"]),
        ("claim_ready_snapshots", ["4.0", "4.0", "0.0"]),
        ("claim_held_snapshots", ["1.0", "1.0", "0.0"]),
        ("claim_terminating_snapshots", ["2.0", "2.0", "0.0"]),
        ("claim_deleted_snapshots", ["1.0", "1.0", "0.0"]),
        ("claim_kept_snapshots", ["3.0", "3.0", "NaN"]),
        ("claim_ready_duration_seconds", ["0.612", "NaN", "NaN"]),
    ] {
        let [a, b, c] = values;
        let expected =
            [format!("{name}{{\"a\"}} {a}"), format!("{name}{{\"b\"}} {b}"), format!("{name}{{\"c\"}} {c}")];
        assert_eq!(of_claims(name), expected);
    }
    assert_eq!(
        of_claims("claim_failures"),
        [
            "claim_failures{\"a\"} 0.0",
            "claim_failures{\"b\"} 0.0",
            "claim_failures{\"c\",reason=\"not_ready\"} 1.0"
        ]
    );
    assert_eq!(
        of(&all, "run_claims"),
        [
            "run_claims{outcome=\"done\"} 2.0",
            "run_claims{outcome=\"not_pruned\"} 0.0",
            "run_claims{outcome=\"failed\"} 1.0",
            "run_claims{outcome=\"unfinished\"} 0.0",
            "run_claims{outcome=\"not_due\"} 0.0",
            "run_claims{outcome=\"skipped\"} 1.0"
        ]
    );
}

/// Else 0 would erase what an earlier run knew.
#[test]
fn what_was_not_listed_is_not_said() {
    let unlisted = ClaimReport { stock: None, ..claim("data", failed(Reason::Forbidden)) };
    let all = series(&report(vec![unlisted]));
    for name in ["claim_newest", "claim_ready_snapshots", "claim_held", "claim_terminating"] {
        assert_eq!(of(&all, name), [""; 0]);
    }
    let failure = Failure { message: "because".to_owned(), is_transient: false, reason: Reason::Missing };
    let all = series(&Report::of_trouble(failure));
    assert_eq!(of(&all, "claim_"), [""; 0]);
    assert_eq!(of(&all, "run_failures{reason=\"missing\"}"), ["run_failures{reason=\"missing\"} 1.0"]);
}

#[test]
fn every_reason_is_counted_under_a_name_of_its_own() {
    let mut claims: Vec<_> =
        Reason::ALL.into_iter().map(|reason| claim(reason.name(), failed(reason))).collect();
    claims.push(claim("again", failed(Reason::Quota)));
    let all = of(&series(&report(claims)), "run_failures");
    let expected = Reason::ALL.map(|reason| {
        let count = if reason == Reason::Quota { 2 } else { 1 };
        format!("run_failures{{reason=\"{}\"}} {count}.0", reason.name())
    });
    assert_eq!(all, expected);
    let stopped =
        |stop| Report { stopped: Some(stop), ..report(vec![claim("data", End::Unfinished(Step::Waiting))]) };
    for (stop, reason) in [(Stop::Signal(15), "signal"), (Stop::OutOfTime, "time_limit")] {
        let counted = format!("run_failures{{reason=\"{reason}\"}}");
        assert_eq!(of(&series(&stopped(stop)), &counted), [format!("{counted} 1.0")]);
    }
}

#[test]
fn of_too_many_claims_those_are_said_that_are_to_be_looked_at() {
    let at = |second: i64| Timestamp::from_second(1_795_000_000 + second).ok();
    let claims = (0..10_000).map(|number: i64| {
        let newest_ready = if number == 7777 { None } else { at(10_000 - number) };
        let stock = Stock { newest_ready, ..Stock::default() };
        ClaimReport { stock: Some(stock), ..claim(&format!("data-of-a-long-name-{number}"), End::Done) }
    });
    let report = report(claims.collect());
    let text = text(&report, ENDED).expect("text");
    assert!(text.len() < 1_500_000, "{}", text.len());
    let all = series(&report);
    let newest = of(&all, "claim_newest");
    assert_eq!(newest.len(), MOST_CLAIMS);
    for number in [7777, 9999, 9001] {
        assert!(newest.iter().any(|line| line.contains(&format!("-{number}\""))), "{number}");
    }
    assert!(!newest.iter().any(|line| line.contains("-9000\"")));
    assert_eq!(of(&all, "run_claims{outcome=\"done\"}"), ["run_claims{outcome=\"done\"} 10000.0"]);
}

#[test]
fn each_schedule_and_each_pod_has_a_group_of_its_own() {
    let of = |namespace: &str, schedule: &str, shard| path(namespace, schedule, shard);
    let shard = Shard::new(3, 8).expect("a shard");
    for (path, expected) in [
        (of("app", "hourly", Shard::WHOLE), "/metrics/job/volume-snapshotter/namespace/app/schedule/hourly"),
        (
            of("app", "hourly", shard),
            "/metrics/job/volume-snapshotter/namespace/app/schedule/hourly/shard/3-of-8",
        ),
        // As the Pushgateway's documentation has it.
        (
            of("", "/var/tmp", Shard::WHOLE),
            "/metrics/job/volume-snapshotter/namespace@base64/=/schedule@base64/L3Zhci90bXA=",
        ),
        (
            of("..", "Προμηθεύς", Shard::WHOLE),
            "/metrics/job/volume-snapshotter/namespace@base64/Li4=/schedule@base64/zqDPgc6_zrzOt864zrXPjc-C",
        ),
    ] {
        assert_eq!(path, expected);
    }
}
