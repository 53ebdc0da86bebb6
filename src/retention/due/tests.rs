//! Tables of what is due, and a year of runs that are late, missed and doubled.

use proptest::prelude::*;

use super::*;
use crate::{
    retention::{Judgement, judge},
    snapshot::Owner,
};

const WAIT: Duration = Duration::from_secs(90);
const HOUR: i64 = 60;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Minutes since 1970 of a midnight.
const BEGIN: i64 = 29_901_600;

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).expect("a time")
}

fn every(text: &str) -> Every {
    text.parse().expect("an interval")
}

/// A snapshot that was stored at a minute, of no scheduled run.
fn stored(minute: i64) -> Snapshot {
    Snapshot::ready_at("newest", at(minute))
}

fn of_run(run: &str, minute: i64) -> Snapshot {
    Snapshot { run: Some(run.to_owned()), ..stored(minute) }
}

fn asked<'a>(every: &'a Every, run: &'a str, now: i64) -> Asked<'a> {
    Asked { every, claim: None, run: Some(run), run_uid: None, now: at(now), longest_wait: WAIT }
}

fn is_due(snapshots: &[Snapshot], interval: &str, minute: i64) -> bool {
    let (run, interval) = (format!("hourly-{minute}"), every(interval));
    not_due(snapshots, &asked(&interval, &run, minute)).is_none()
}

#[test]
fn a_claim_is_due_a_tenth_early_and_ten_minutes_at_most() {
    for (interval, age, due) in [
        ("1h", 53, false),
        ("1h", 54, true),
        ("1h", 60, true),
        ("30m", 26, false),
        ("30m", 27, true),
        ("6h", 6 * HOUR - 11, false),
        ("6h", 6 * HOUR - 10, true),
        ("1d", DAY - 11, false),
        ("1d", DAY - 10, true),
        ("1d", 40 * DAY, true),
        ("1w", 7 * DAY - 11, false),
        ("1w", 7 * DAY - 10, true),
    ] {
        assert_eq!(is_due(&[stored(BEGIN - age)], interval, BEGIN), due, "{interval} after {age} min");
    }
    assert!(is_due(&[], "1y", BEGIN), "the first one");
    // March has 31 days.
    let march = "2027-03-10T00:00:00Z".parse::<Timestamp>().expect("a time").as_second() / 60;
    assert!(!is_due(&[stored(march)], "1mo", march + 30 * DAY));
    assert!(is_due(&[stored(march)], "1mo", march + 31 * DAY));
}

#[test]
fn who_is_told_that_a_claim_is_not_due_learns_when_it_is() {
    let interval = every("1d");
    let newest = [stored(BEGIN - 2 * DAY), Snapshot { name: "b".into(), ..stored(BEGIN - 5 * HOUR) }];
    assert_eq!(
        not_due(&newest, &asked(&interval, &format!("hourly-{BEGIN}"), BEGIN)),
        Some(NotDue {
            newest: "b".to_owned(),
            age: SignedDuration::from_hours(5),
            next: at(BEGIN + 19 * HOUR),
        })
    );
}

#[test]
fn only_a_job_that_a_cronjob_scheduled_passes_over_a_claim() {
    let interval = every("1d");
    let recent = [stored(BEGIN - 5)];
    let is_due =
        |run: Option<&str>| not_due(&recent, &Asked { run, ..asked(&interval, "", BEGIN) }).is_none();
    for scheduled in [BEGIN, BEGIN - 90, BEGIN - DAY, BEGIN + 2] {
        assert!(!is_due(Some(&format!("volume-snapshotter-{scheduled}"))));
        assert!(!is_due(Some(&format!("shop-volume-snapshotter-blue-{scheduled}"))));
    }
    let seconds = format!("volume-snapshotter-{}", BEGIN * 60);
    let long_ago = format!("volume-snapshotter-{}", BEGIN - DAY - 1);
    let signed = format!("volume-snapshotter-+{BEGIN}");
    for run in [&seconds, &long_ago, &signed, "before-upgrade", "try-2", "try", "volume-snapshotter-", ""] {
        assert!(is_due(Some(run)), "{run}");
    }
    assert!(is_due(Some(&format!("a-{}", "9".repeat(40)))));
    assert!(is_due(Some(&format!("a-{}", i64::MAX))));
    assert!(is_due(None), "outside a Job");
}

#[test]
fn only_a_copy_of_this_very_claim_that_is_there_to_stay_puts_off_the_next() {
    let recent = || stored(BEGIN - 30);
    let is_due = |snapshot: Snapshot| is_due(&[snapshot], "1d", BEGIN);
    assert!(!is_due(recent()));
    assert!(!is_due(Snapshot { held: true, ..recent() }), "a held one is a copy");
    assert!(is_due(Snapshot { terminating_since: Some(at(BEGIN)), ..recent() }));
    assert!(is_due(Snapshot { unreadable: true, ready: false, ..stored(BEGIN) }));
    assert!(is_due(Snapshot { owner: Some(Owner::Group), ..recent() }));
    assert!(is_due(Snapshot { ready: false, ..stored(BEGIN - 2) }), "nobody waits for it any more");
    assert!(!is_due(Snapshot { ready: false, ..stored(BEGIN - 1) }), "another run waits for it");

    let interval = every("1d");
    let run = format!("hourly-{BEGIN}");
    let of = |claim_uid: Option<&str>, claim: ClaimIdentity<'_>| {
        let snapshot = [Snapshot { claim_uid: claim_uid.map(str::to_owned), ..recent() }];
        not_due(&snapshot, &Asked { claim: Some(claim), ..asked(&interval, &run, BEGIN) }).is_none()
    };
    let claim = |created: i64| ClaimIdentity { uid: "this", created: Some(at(created)) };
    assert!(!of(Some("this"), claim(BEGIN - DAY)));
    assert!(of(Some("previous"), claim(BEGIN - DAY)));
    assert!(of(None, claim(BEGIN - 10)), "older than the claim");
}

#[test]
fn no_wrong_clock_puts_off_the_next_for_longer_than_the_interval() {
    let due = |snapshot: Snapshot| is_due(&[snapshot], "1d", BEGIN);
    assert!(due(stored(BEGIN + 6)), "dated in the future");
    assert!(due(Snapshot { created: Timestamp::MAX, ..stored(BEGIN) }), "not dated");
    assert!(!due(stored(BEGIN + 5)), "two API servers");
    // The storage's clock is years ahead, or a day behind.
    assert!(due(Snapshot { taken_at: Some(at(BEGIN + 10 * YEAR)), ..stored(BEGIN - DAY) }));
    assert!(!due(Snapshot { taken_at: Some(at(BEGIN - DAY)), ..stored(BEGIN - HOUR) }));
    // Whoever may label snapshots makes one older by a label, and never younger.
    assert!(due(of_run(&format!("x-{}", BEGIN + 12 * HOUR), BEGIN - DAY)));
}

#[test]
fn a_snapshot_is_as_old_as_the_schedule_of_its_run_says() {
    // A run that began 50 minutes late, or whose queue was that long.
    let late = [of_run(&format!("hourly-{}", BEGIN - HOUR), BEGIN - 10)];
    assert!(is_due(&late, "1h", BEGIN));
    assert!(!is_due(&late, "2h", BEGIN));
    // A person's run is as old as its snapshot.
    assert!(!is_due(&[of_run("by-hand", BEGIN - 10)], "1h", BEGIN));
    // A run that begins late itself does not take what the next one is for.
    let interval = every("1d");
    let yesterday = [of_run(&format!("hourly-{}", BEGIN - 23 * HOUR), BEGIN - 23 * HOUR)];
    let run = format!("hourly-{BEGIN}");
    assert!(not_due(&yesterday, &asked(&interval, &run, BEGIN + 55)).is_some());
}

#[test]
fn the_next_attempt_of_a_job_goes_on_with_what_the_first_made() {
    let interval = every("1d");
    let run = format!("hourly-{BEGIN}");
    let by_uid = |uid: Option<&str>, snapshot: Snapshot| {
        not_due(&[snapshot], &Asked { run_uid: uid, ..asked(&interval, &run, BEGIN + 1) }).is_none()
    };
    let made = || Snapshot { run_uid: Some("job".into()), ..of_run(&run, BEGIN) };
    assert!(by_uid(Some("job"), made()));
    assert!(by_uid(Some("job"), Snapshot { ready: false, ..made() }));
    assert!(!by_uid(Some("another"), made()));
    assert!(!by_uid(None, Snapshot { run_uid: None, ..made() }));
    assert!(!by_uid(Some("job"), Snapshot { run_uid: None, ..made() }));
}

/// One run of a schedule.
#[derive(Clone, Copy, Debug)]
struct Run {
    scheduled: i64,
    /// How many minutes after that its snapshot is stored.
    late: i64,
}

/// Plays runs, of which a claim that is due gets a snapshot each, and returns when these runs were scheduled.
fn made(runs: impl IntoIterator<Item = Run>, interval: &Every) -> Vec<i64> {
    let mut newest: Option<Snapshot> = None;
    let mut made = Vec::new();
    for Run { scheduled, late } in runs {
        let (now, run) = (scheduled + late, format!("hourly-{scheduled}"));
        if not_due(newest.as_slice(), &asked(interval, &run, now)).is_none() {
            newest = Some(of_run(&run, now));
            made.push(scheduled);
        }
    }
    made
}

/// A year of hourly runs; each is late by up to 59 minutes.
fn late_runs() -> impl Strategy<Value = Vec<Run>> {
    proptest::collection::vec(0..60_i64, (YEAR / HOUR) as usize).prop_map(|late| {
        let run = |(hour, late): (usize, i64)| Run { scheduled: BEGIN + hour as i64 * HOUR, late };
        late.into_iter().enumerate().map(run).collect()
    })
}

const INTERVALS: [(&str, i64); 5] = [("1h", 1), ("6h", 6), ("1d", 24), ("1w", 168), ("90m", 2)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn late_runs_make_as_many_in_a_year_as_punctual_ones_and_at_the_same_hours(runs in late_runs()) {
        for (text, hours) in INTERVALS {
            let expected: Vec<i64> = (0..YEAR / HOUR).step_by(hours as usize).map(|hour| BEGIN + hour * HOUR).collect();
            prop_assert_eq!(made(runs.clone(), &every(text)), expected, "{}", text);
        }
    }

    #[test]
    fn doubled_runs_make_none_twice(runs in late_runs(), doubled in proptest::collection::vec(any::<bool>(), 8760)) {
        let twice = runs.iter().zip(doubled).flat_map(|(run, doubled)| {
            std::iter::repeat_n(*run, if doubled { 2 } else { 1 })
        });
        let interval = every("1d");
        prop_assert_eq!(made(twice, &interval), made(runs.iter().copied(), &interval));
    }

    #[test]
    fn missed_runs_cost_no_more_than_the_wait_for_the_next(
        runs in late_runs(),
        is_missed in proptest::collection::vec(proptest::bool::weighted(0.2), 8760),
    ) {
        let runs: Vec<Run> =
            runs.into_iter().zip(is_missed).filter(|(_, missed)| !missed).map(|(run, _)| run).collect();
        for (text, hours) in INTERVALS {
            let made = made(runs.iter().copied(), &every(text));
            for pair in made.windows(2) {
                let wanted = pair[0] + hours * HOUR;
                // The first run there was at the time or later.
                let next = runs.iter().map(|run| run.scheduled).find(|scheduled| *scheduled >= wanted);
                prop_assert_eq!(Some(pair[1]), next, "{}", text);
            }
        }
    }

    #[test]
    fn without_names_that_tell_the_schedule_ten_minutes_do_not_matter(
        late in proptest::collection::vec(0..=10_i64, 400 * 24),
    ) {
        // Snapshots of the bash script, say, or of an earlier version.
        let interval = every("1d");
        let mut newest: Option<Snapshot> = None;
        let mut made = Vec::new();
        for (hour, late) in late.into_iter().enumerate() {
            let scheduled = BEGIN + hour as i64 * HOUR;
            let now = scheduled + late;
            // The run itself is as late as its snapshot.
            if not_due(newest.as_slice(), &asked(&interval, &format!("x-{now}"), now)).is_none() {
                newest = Some(stored(now));
                made.push(scheduled);
            }
        }
        prop_assert_eq!(made.len(), 400);
        prop_assert!(made.windows(2).all(|pair| pair[1] - pair[0] == DAY));
    }
}

/// Plays hourly runs with these rules, and returns when the snapshots that are left were taken, and how many were
/// made. Everything is due with `None`.
fn kept(hours: i64, rules: &Rules, interval: Option<&Every>) -> (Vec<i64>, usize) {
    let mut held: Vec<Snapshot> = Vec::new();
    let mut made = 0;
    for hour in 0..hours {
        let minute = BEGIN + hour * HOUR;
        let run = format!("hourly-{minute}");
        if interval.is_some_and(|every| not_due(&held, &asked(every, &run, minute)).is_some()) {
            continue;
        }
        made += 1;
        held.push(Snapshot { uid: run.clone(), ..of_run(&run, minute) });
        let going: Vec<String> = judge(&held, &Judgement::by_rules(rules, at(minute)))
            .into_iter()
            .filter(|decision| decision.verdict.goes())
            .map(|decision| decision.snapshot.uid.clone())
            .collect();
        held.retain(|snapshot| !going.contains(&snapshot.uid));
    }
    (held.iter().map(|snapshot| (snapshot.created.as_second() / 60 - BEGIN) / HOUR).collect(), made)
}

#[test]
fn what_deltas_keep_is_the_same_as_before_and_what_is_made_in_vain_is_not_made() {
    for (deltas, days, step) in [("PT1H P1D P7D", 30, 1), ("PT6H P2D P14D", 60, 6), ("P1D P7D P28D", 120, 24)]
    {
        let rules = Rules::of_deltas(deltas).expect("deltas");
        let interval = Every::of_deltas(&rules).expect("the smallest");
        // After the last run that makes one, both end with the same newest snapshot.
        let hours = days * 24 + 1;
        let (every_hour, made_hourly) = kept(hours, &rules, None);
        let (when_due, made_when_due) = kept(hours, &rules, Some(&interval));
        assert_eq!(made_hourly as i64, hours);
        assert_eq!(made_when_due as i64, days * 24 / step + 1, "{deltas}");
        assert_eq!(when_due.last(), every_hour.last(), "{deltas}");
        // k8s-snapshots takes one whenever the smallest delta is over, and keeps these.
        let held: Vec<Snapshot> = (0..hours)
            .step_by(step as usize)
            .map(|hour| BEGIN + hour * HOUR)
            .map(|minute| Snapshot::ready_at(&minute.to_string(), at(minute)))
            .collect();
        let mut left: Vec<Snapshot> = Vec::new();
        for snapshot in held {
            let now = snapshot.created;
            left.push(snapshot);
            let stays: Vec<String> = judge(&left, &Judgement::by_rules(&rules, now))
                .into_iter()
                .filter(|decision| !decision.verdict.goes())
                .map(|decision| decision.snapshot.uid.clone())
                .collect();
            left.retain(|snapshot| stays.contains(&snapshot.uid));
        }
        let left: Vec<i64> =
            left.iter().map(|snapshot| (snapshot.created.as_second() / 60 - BEGIN) / HOUR).collect();
        assert_eq!(when_due, left, "{deltas}");
    }
}
