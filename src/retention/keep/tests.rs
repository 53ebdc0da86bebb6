//! Tables of times worked out by hand, and what must hold for any times.

use std::collections::BTreeSet;

use k8s_openapi::jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::retention::Rules;

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn rule(text: &str) -> Rule {
    let rules: Rules = text.parse().expect(text);
    rules.iter().next().expect("a rule").clone()
}

/// Which of `times` a rule keeps, as they are written; newest first.
fn kept<'a>(text: &str, times: &[&'a str]) -> Vec<&'a str> {
    let parsed: Vec<Timestamp> = times.iter().map(|text| time(text)).collect();
    assert!(parsed.is_sorted_by(|a, b| a >= b), "the table is ordered newest first");
    rule(text).keeps(&parsed).into_iter().map(|index| times[index]).collect()
}

#[test]
fn last_keeps_the_newest() {
    let times = ["2026-11-20T03:00:00Z", "2026-11-20T02:00:00Z", "2026-11-20T01:00:00Z"];
    assert_eq!(kept("last=2", &times), times[..2]);
    assert_eq!(kept("last=3", &times), times);
    assert_eq!(kept("last=4294967295", &times), times);
    assert!(kept("last=1", &[]).is_empty());
}

#[test]
fn hourly_keeps_the_newest_of_each_hour_and_passes_over_gaps() {
    let times = [
        "2026-11-20T12:00:00Z", // the hour that begins now
        "2026-11-20T11:59:59Z", // the hour before, newest
        "2026-11-20T11:00:00Z",
        "2026-11-20T07:30:00Z", // after a gap: the third hour that has one
        "2026-11-20T07:29:59Z",
        "2026-11-20T06:00:00Z",
    ];
    assert_eq!(kept("hourly=1", &times), [times[0]]);
    assert_eq!(kept("hourly=3", &times), [times[0], times[1], times[3]]);
    assert_eq!(kept("hourly=24", &times), [times[0], times[1], times[3], times[5]]);
}

#[test]
fn snapshots_within_one_second_are_one_period() {
    let times = ["2026-11-20T12:00:00.9Z", "2026-11-20T12:00:00.5Z", "2026-11-20T12:00:00Z"];
    for rule in ["hourly", "daily", "weekly", "monthly", "yearly"] {
        assert_eq!(kept(&format!("{rule}=1"), &times), [times[0]], "{rule}");
        // The number is not used up, so the oldest of all is kept besides.
        assert_eq!(kept(&format!("{rule}=2"), &times), [times[0], times[2]], "{rule}");
    }
}

#[test]
fn daily_goes_by_midnight_in_utc_across_month_and_year_ends() {
    let times = [
        "2027-01-01T00:00:00Z",
        "2026-12-31T23:59:59Z",
        "2026-12-31T00:00:00Z",
        "2026-12-30T12:00:00Z",
        "2026-12-01T00:00:00Z",
        "2026-11-30T23:00:00Z",
        "2026-11-30T01:00:00Z",
    ];
    assert_eq!(kept("daily=2", &times), [times[0], times[1]]);
    assert_eq!(kept("daily=5", &times), [times[0], times[1], times[3], times[4], times[5]]);
    // With one left over: the oldest of all.
    assert_eq!(kept("daily=6", &times), [times[0], times[1], times[3], times[4], times[5], times[6]]);
}

#[test]
fn daily_knows_the_leap_day() {
    let times =
        ["2028-03-01T01:00:00Z", "2028-02-29T23:00:00Z", "2028-02-29T01:00:00Z", "2028-02-28T23:00:00Z"];
    assert_eq!(kept("daily=3", &times), [times[0], times[1], times[3]]);
    let times = ["2027-03-01T01:00:00Z", "2027-02-28T23:00:00Z"];
    assert_eq!(kept("daily=2", &times), times);
}

#[test]
fn weekly_goes_by_iso_weeks_and_knows_week_53() {
    // 2020 has a week 53: Monday 28 December to Sunday 3 January 2021. 4 January begins week 1.
    let times = [
        "2021-01-11T00:00:00Z", // Monday of week 2
        "2021-01-10T23:59:59Z", // Sunday of week 1
        "2021-01-04T00:00:00Z", // Monday of week 1
        "2021-01-03T23:59:59Z", // Sunday of week 53
        "2021-01-01T00:00:00Z", // of week 53 as well
        "2020-12-28T00:00:00Z", // Monday of week 53
        "2020-12-27T12:00:00Z", // Sunday of week 52
        "2020-12-21T12:00:00Z", // Monday of week 52
    ];
    assert_eq!(kept("weekly=3", &times), [times[0], times[1], times[3]]);
    assert_eq!(kept("weekly=4", &times), [times[0], times[1], times[3], times[6]]);
    assert_eq!(kept("weekly=9", &times), [times[0], times[1], times[3], times[6], times[7]]);
    // 31 December 2024 is of week 1 of 2025, as 1 January 2025 is; week 1 of 2024 is another.
    let times =
        ["2025-01-01T00:00:00Z", "2024-12-31T00:00:00Z", "2024-12-29T00:00:00Z", "2024-01-01T00:00:00Z"];
    assert_eq!(kept("weekly=3", &times), [times[0], times[2], times[3]]);
}

#[test]
fn monthly_and_yearly_take_months_and_years_as_they_come() {
    let times = [
        "2028-03-31T23:59:59Z",
        "2028-03-01T00:00:00Z",
        "2028-02-29T23:59:59Z",
        "2028-02-01T00:00:00Z",
        "2027-02-28T00:00:00Z", // February of another year
        "2026-12-31T23:59:59Z",
        "2026-01-01T00:00:00Z",
    ];
    assert_eq!(kept("monthly=2", &times), [times[0], times[2]]);
    assert_eq!(kept("monthly=4", &times), [times[0], times[2], times[4], times[5]]);
    assert_eq!(kept("yearly=1", &times), [times[0]]);
    assert_eq!(kept("yearly=2", &times), [times[0], times[4]]);
    assert_eq!(kept("yearly=10", &times), [times[0], times[4], times[5], times[6]]);
}

#[test]
fn within_keeps_what_is_younger_than_the_newest_by_less() {
    let times = [
        "2026-11-20T12:00:00Z",
        "2026-11-06T12:00:01Z",
        "2026-11-06T12:00:00Z", // exactly 14 days: not younger
        "2026-10-01T00:00:00Z",
    ];
    assert_eq!(kept("within=14d", &times), times[..2]);
    assert_eq!(kept("within=1s", &times), times[..1]);
    assert_eq!(kept("within=1y", &times), times);
    assert!(kept("within=14d", &[]).is_empty());
}

#[test]
fn within_with_a_period_keeps_the_newest_of_each_that_is_younger() {
    let times = [
        "2026-11-20T12:00:00Z", // Friday
        "2026-11-20T11:30:00Z",
        "2026-11-20T11:00:00Z",
        "2026-11-19T12:00:01Z",
        "2026-11-19T12:00:00Z", // exactly a day: not younger
        "2026-11-16T00:00:00Z", // Monday of the same week
        "2026-11-15T23:59:59Z", // Sunday of the week before
        "2026-10-31T00:00:00Z",
        "2025-12-31T00:00:00Z",
    ];
    assert_eq!(kept("within-hourly=1d", &times), [times[0], times[1], times[3]]);
    assert_eq!(kept("within-hourly=24h1s", &times), [times[0], times[1], times[3]]);
    assert_eq!(kept("within-daily=1d", &times), [times[0], times[3]]);
    assert_eq!(kept("within-daily=7d", &times), [times[0], times[3], times[5], times[6]]);
    assert_eq!(kept("within-weekly=7d", &times), [times[0], times[6]]);
    // A week begins on Monday, not seven days ago: all that are younger than four days are of this one.
    assert_eq!(kept("within-weekly=4d", &times), [times[0]]);
    assert_eq!(kept("within-monthly=1mo", &times), [times[0], times[7]]);
    assert_eq!(kept("within-yearly=1mo", &times), [times[0]]);
    assert_eq!(kept("within-yearly=9999y", &times), [times[0], times[8]]);
    assert!(kept("within-daily=7d", &[]).is_empty());
}

#[test]
fn within_with_a_period_keeps_the_oldest_of_all_only_if_it_is_younger() {
    let times = ["2026-11-20T12:00:00Z", "2026-11-20T11:00:00Z", "2026-11-20T10:00:00Z"];
    // All of one day: the oldest is kept for as long as it is within the window, …
    assert_eq!(kept("within-daily=3h", &times), [times[0], times[2]]);
    // … and the oldest within the window is not the oldest of all.
    assert_eq!(kept("within-daily=2h", &times), [times[0]]);
}

#[test]
fn all_of_a_period_keeps_each_that_there_is_and_the_oldest() {
    let times = [
        "2026-11-20T12:00:00Z",
        "2026-11-20T11:00:00Z",
        "2026-11-18T11:00:00Z",
        "1999-01-01T23:00:00Z",
        "1999-01-01T22:00:00Z",
        "1999-01-01T21:00:00Z",
    ];
    assert_eq!(kept("daily=all", &times), [times[0], times[2], times[3], times[5]]);
    assert_eq!(kept("yearly=all", &times), [times[0], times[3], times[5]]);
    assert_eq!(kept("hourly=all", &times), times);
    assert_eq!(kept("last=all", &times), times);
}

#[test]
fn deltas_with_a_tiny_step_end_at_once_and_keep_everything_in_reach() {
    let times: Vec<Timestamp> =
        (0..1000).map(|hour| time("2026-11-20T12:00:00Z") - SignedDuration::from_hours(hour)).collect();
    // Stepping microsecond by microsecond over a week would take days.
    let kept = rule("deltas=PT0.000001S P7D").keeps(&times);
    assert_eq!(kept, (0..=168).collect::<Vec<_>>());
}

/// What `deltas` keeps, as the original computes it, word for word of its description and step by
/// step.
fn deltas_step_by_step(deltas: &[i64], times: &[Timestamp]) -> Vec<usize> {
    let seconds: Vec<i64> = times.iter().map(|time| time.as_second()).collect();
    let Some(&newest) = seconds.first() else { return Vec::new() };
    let mut sorted = deltas.to_vec();
    sorted.sort_unstable();
    let mut kept = BTreeSet::from([0]);
    for generation in (1..sorted.len()).rev() {
        let mut point = newest - sorted[generation];
        let step = sorted[generation - 1];
        let mut last = None;
        while point < newest {
            let nearest = (0..seconds.len()).min_by_key(|&index| ((seconds[index] - point).abs(), index));
            if nearest == last {
                point += step;
            } else {
                last = nearest;
                let index = nearest.expect("one is nearest");
                kept.insert(index);
                point = seconds[index] + step;
            }
        }
    }
    kept.into_iter().collect()
}

fn any_times() -> impl Strategy<Value = Vec<Timestamp>> {
    let now = time("2026-11-20T12:00:00Z").as_second();
    proptest::collection::vec(0i64..1_000_000, 0..80).prop_map(move |mut ages| {
        ages.sort_unstable();
        ages.into_iter().map(|age| Timestamp::from_second(now - age).expect("a time")).collect()
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let numbered = ("(last|hourly|daily|weekly|monthly|yearly)", 1u32..30)
        .prop_map(|(name, number)| format!("{name}={number}"));
    let endless = "(last|hourly|daily|weekly|monthly|yearly)=all";
    let periods = "within(-(hourly|daily|weekly|monthly|yearly))?";
    let within = (periods, 1u32..300).prop_map(|(name, hours)| format!("{name}={hours}h"));
    let deltas =
        (1u32..2000, 1u32..2000, 1u32..20_000).prop_map(|(a, b, c)| format!("deltas=PT{a}M PT{b}M PT{c}M"));
    prop_oneof![numbered, endless, within, deltas, Just("all".to_owned())].prop_map(|text| rule(&text))
}

proptest! {
    #[test]
    fn deltas_keeps_what_stepping_keeps(
        times in any_times(),
        deltas in proptest::collection::vec(600i64..2_000_000, 2..5),
    ) {
        let text: Vec<String> = deltas.iter().map(|delta| format!("PT{delta}S")).collect();
        let rule = rule(&format!("deltas={}", text.join(" ")));
        prop_assert_eq!(rule.keeps(&times), deltas_step_by_step(&deltas, &times));
    }

    #[test]
    fn a_rule_keeps_the_newest_and_each_at_most_once(times in any_times(), rule in any_rule()) {
        let kept = rule.keeps(&times);
        prop_assert!(kept.is_sorted_by(|a, b| a < b));
        prop_assert!(kept.iter().all(|index| *index < times.len()));
        prop_assert_eq!(kept.first().copied(), (!times.is_empty()).then_some(0));
        if let Rule::Last(Count::AtMost(number)) | Rule::Each(_, Count::AtMost(number)) = rule {
            prop_assert!(kept.len() <= number.get() as usize);
        }
    }

    /// All of a period are what any number of them has, and more; within a window there are of them the
    /// newest of each period that has one there, and besides at most the oldest of all.
    #[test]
    fn a_window_and_a_number_are_parts_of_all(
        times in any_times(),
        period in "(hour|dai|week|month|year)ly",
        number in 1u32..30,
        hours in 1u32..300,
    ) {
        let keeps = |text: String| rule(&text).keeps(&times).into_iter().collect::<BTreeSet<_>>();
        let all = keeps(format!("{period}=all"));
        let young = keeps(format!("within={hours}h"));
        let of_window = keeps(format!("within-{period}={hours}h"));
        let some = keeps(format!("{period}={number}"));
        prop_assert!(some.is_subset(&all));
        prop_assert_eq!(&of_window, &all.intersection(&young).copied().collect());
        let Rule::Each(period, _) = rule(&format!("{period}=all")) else { unreachable!() };
        let buckets: BTreeSet<_> = of_window.iter().map(|index| bucket(period, times[*index])).collect();
        let besides = usize::from(of_window.contains(&(times.len().wrapping_sub(1))));
        prop_assert!(of_window.len() - buckets.len() <= besides);
    }

    /// Applied to what it kept, a rule keeps all of it. It holds for `last`, the calendar rules,
    /// `within` and `all`, which look at the newest of their periods, or at the newest alone, and
    /// those are kept. It does not hold for `deltas`: once the others are gone, another snapshot
    /// may be nearest to a point, and two points may have the same nearest one.
    #[test]
    fn what_a_rule_kept_it_keeps_again(times in any_times(), rule in any_rule()) {
        prop_assume!(!matches!(rule, Rule::Deltas(_)));
        let kept: Vec<Timestamp> = rule.keeps(&times).into_iter().map(|index| times[index]).collect();
        prop_assert_eq!(rule.keeps(&kept), (0..kept.len()).collect::<Vec<_>>());
    }
}

/// Two years of hourly runs, each pruning after it: what stays is within the bound that each rule
/// promises, and reaches as far back: the newest of the N-th period before now, which may have just
/// begun, is N - 2 whole periods away at least.
#[test]
fn two_years_of_hourly_runs_stay_within_the_bounds() {
    let hour = SignedDuration::from_hours(1);
    let begin = time("2024-01-01T00:30:00Z");
    for (text, most, reach_hours) in [
        ("last=1", 1, 0),
        ("last=24", 24, 23),
        ("hourly=24", 24, 23),
        ("daily=7", 7, 5 * 24),
        ("weekly=5", 5, 3 * 7 * 24),
        ("monthly=12", 12, 304 * 24),
        ("yearly=2", 2, 300 * 24),
        ("within=2d", 48, 47),
        ("within-hourly=2d", 48, 47),
        // The days that 30 times 24 hours touch, and the oldest of all before there are so many.
        ("within-daily=30d", 31, 29 * 24),
        ("within-weekly=6w", 7, 5 * 7 * 24),
        ("within-monthly=1y", 13, 334 * 24),
        ("within-yearly=1y6mo", 3, 364 * 24),
        // A generation of n steps has n + 1 posts, and a snapshot more while one comes and one goes.
        ("deltas=PT1H P1D P7D", 24 + 7 + 3, 6 * 24),
        ("deltas=P1D P7D P30D", 7 + 5 + 4, 20 * 24),
    ] {
        let rule = rule(text);
        let mut kept: Vec<Timestamp> = Vec::new();
        for run in 0..2 * 365 * 24 {
            kept.insert(0, begin + hour * run);
            kept = rule.keeps(&kept).into_iter().map(|index| kept[index]).collect();
            assert!(kept.len() <= most, "{text}: {} are kept after run {run}", kept.len());
        }
        let reach = kept[0].duration_since(kept[kept.len() - 1]);
        assert!(reach >= hour * reach_hours, "{text}: reaches back {} h only", reach.as_hours());
    }
}
