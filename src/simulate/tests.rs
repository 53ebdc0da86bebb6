//! Plans with what comes of them, worked out by hand.

use super::*;

fn plan(rules: &str, every: &str, length: &str) -> Plan {
    Plan {
        rules: rules.parse().expect(rules),
        every: every.parse().expect(every),
        length: length.parse().expect(length),
    }
}

fn outcome(rules: &str, every: &str, length: &str) -> Outcome {
    simulate(&plan(rules, every, length)).expect("an outcome")
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn hours(number: i64) -> SignedDuration {
    SignedDuration::from_hours(number)
}

#[test]
fn a_number_is_reached_and_kept() {
    let Outcome { start, end, made, deleted, most, most_after_run, steady, growing, left } =
        outcome("last=3", "1h", "1d");
    assert_eq!((start, end), (time("2026-01-01T00:00:00Z"), time("2026-01-01T23:00:00Z")));
    assert_eq!((made, deleted, most, most_after_run), (24, 21, 4, 3));
    let since = time("2026-01-01T02:00:00Z");
    let (oldest_least, oldest_most) = (hours(2), hours(2));
    assert_eq!(steady, Some(Steady { since, least: 3, most: 3, oldest_least, oldest_most }));
    assert_eq!(growing, []);
    let last = |hour: i64| (end - hours(hour), "last=3".to_owned());
    assert_eq!(left, [last(0), last(1), last(2)]);
}

#[test]
fn the_rules_of_the_calendar_are_steady_once_each_has_all_its_periods() {
    let Outcome { steady, most, most_after_run, left, .. } =
        outcome("hourly=24,daily=7,weekly=4", "1h", "1y");
    // On Monday 19 January the fourth week begins: what is left of the first is of Sunday the 4th.
    let steady = steady.expect("a steady state");
    assert_eq!(steady.since, time("2026-01-19T00:00:00Z"));
    // The fourth week is represented by its Sunday at 23:00: an hour and two weeks ago when the first begins, and
    // three weeks ago when it ends.
    assert_eq!((steady.oldest_least, steady.oldest_most), (hours(14 * 24 + 1), hours(21 * 24)));
    // 24 hours, 5 or 6 days besides, and the Sundays of 2 or 3 weeks that are not among them.
    assert_eq!((steady.least, steady.most, most_after_run, most), (31, 33, 33, 34));
    let count = |cause: &str| left.iter().filter(|(_, other)| other == cause).count();
    // The last run is on a Thursday.
    assert_eq!((count("hourly=24"), count("daily=7"), count("weekly=4")), (24, 6, 2));
}

#[test]
fn the_oldest_of_all_does_not_make_a_rule_full() {
    // Until Monday 5 January there is one week, whose oldest stays besides.
    assert_eq!(outcome("weekly=2", "1d", "4d").growing.len(), 1);
    assert_eq!(
        outcome("weekly=2", "1d", "5d").steady.map(|steady| steady.since),
        Some(time("2026-01-05T00:00:00Z"))
    );
}

#[test]
fn a_window_and_deltas_are_steady_once_the_runs_reach_as_far() {
    let within = outcome("within=2d", "6h", "10d").steady.expect("a steady state");
    assert_eq!((within.since, within.least, within.most), (time("2026-01-03T00:00:00Z"), 8, 8));
    let deltas = outcome("deltas=PT1H P1D P7D", "1h", "30d").steady.expect("a steady state");
    assert_eq!(deltas.since, time("2026-01-08T00:00:00Z"));
    assert!(deltas.oldest_least >= hours(6 * 24) && deltas.oldest_most <= hours(8 * 24), "{deltas:?}");
}

#[test]
fn what_is_not_full_is_no_steady_state() {
    let Outcome { steady, growing, most, deleted, .. } = outcome("daily=7,yearly=10", "1d", "1y");
    assert_eq!((steady, growing.len()), (None, 1));
    assert_eq!(growing[0].to_string(), "yearly=10");
    assert!(most > 7 && deleted > 300);
    for rules in ["all", "last=all", "hourly=all", "within=31d", "within-daily=1y"] {
        let outcome = outcome(rules, "1d", "30d");
        assert_eq!((outcome.steady, outcome.deleted, outcome.most), (None, 0, 30), "{rules}");
    }
}

/// Each run judges what the runs before it left; where nothing is kept only for being the oldest, that is what
/// judging all at once keeps.
#[test]
fn what_runs_leave_is_what_the_rules_keep_of_all() {
    for (rules, every, length) in [
        ("hourly=24,daily=7,weekly=4", "1h", "9w"),
        ("hourly=5,daily=3", "25min", "20d"),
        ("last=2,within-daily=10d", "7h", "40d"),
        ("monthly=3", "1mo", "2y"),
    ] {
        let plan = plan(rules, every, length);
        let Outcome { start, end, made, left, .. } = simulate(&plan).expect("an outcome");
        let mut all: Vec<Timestamp> =
            (0..).map_while(|run| plan.every.after(start, run)).take_while(|time| *time <= end).collect();
        assert_eq!(all.len(), made);
        all.reverse();
        let mut kept: Vec<usize> = plan.rules.iter().flat_map(|rule| rule.keeps(&all)).collect();
        kept.sort_unstable();
        kept.dedup();
        let kept: Vec<Timestamp> = kept.into_iter().map(|index| all[index]).collect();
        assert_eq!(left.into_iter().map(|(time, _)| time).collect::<Vec<_>>(), kept, "{rules}");
    }
}

#[test]
fn lengths_are_bounded_with_what_is_accepted() {
    for text in ["1m", "15m", "1h", "1d", "1mo", "1y", "100y"] {
        assert!(length(text).is_ok(), "{text}");
    }
    for (text, problem) in [
        ("59s", "is too short; accepted are 1m"),
        ("101y", "is too long; accepted are 1m (a minute) to 100y"),
        ("9999y", "is too long"),
        ("hourly", "is not a length of time"),
        ("1", "is not a length of time"),
        ("-1h", "is not above zero"),
        ("1d6m", "write min or mo"),
    ] {
        let said = length(text).expect_err(text);
        assert!(said.contains(problem), "{text}: {said}");
    }
}

#[test]
fn what_would_take_too_long_is_refused() {
    let said = simulate(&plan("last=1", "1m", "2y")).expect_err("too many runs").to_string();
    assert_eq!(
        said,
        "a run every 1m for 2y is more than 600000 runs; give a longer --every or a shorter --for"
    );
    let said = simulate_within(&plan("all", "1h", "1y"), 10_000).expect_err("too many snapshots").to_string();
    assert_eq!(
        said,
        "after 141 runs there are 141 snapshots (all), too many to go on with; give a shorter --for, or rules that \
         keep fewer"
    );
}
