//! Tables of claims' snapshots with the verdicts on them, and attempts to have the wrong one
//! deleted.

use k8s_openapi::jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_secs(90);

/// Noon of a day; snapshots are dated in minutes before it.
fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().expect("a time")
}

fn ready(name: &str, minutes_ago: i64) -> Snapshot {
    let created = now() - SignedDuration::from_mins(minutes_ago);
    Snapshot {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        created,
        cut: Some(created),
        ready: true,
        held: false,
        terminating: false,
        group_member: false,
        run: None,
        error: None,
    }
}

fn unready(name: &str, minutes_ago: i64) -> Snapshot {
    Snapshot { ready: false, cut: None, ..ready(name, minutes_ago) }
}

fn decide(snapshots: &[Snapshot], rules: &str, own: Option<&str>) -> Vec<(String, String, bool)> {
    let rules = rules.parse().expect("rules");
    let own = own.map(|name| format!("uid-{name}"));
    let by = Judgement { rules: &rules, own: own.as_deref(), now: now(), longest_wait: WAIT };
    judge(snapshots, &by)
        .into_iter()
        .map(|Decision { snapshot, verdict }| (snapshot.name.clone(), verdict.to_string(), verdict.goes()))
        .collect()
}

/// The names of those that go, newest first.
fn going(snapshots: &[Snapshot], rules: &str, own: Option<&str>) -> Vec<String> {
    decide(snapshots, rules, own).into_iter().filter(|(_, _, goes)| *goes).map(|(name, ..)| name).collect()
}

#[test]
fn every_snapshot_gets_a_verdict_in_words() {
    let snapshots = [
        unready("stuck", 60),
        Snapshot { held: true, ..ready("held", 50) },
        ready("old", 120),
        Snapshot { terminating: true, ..ready("going", 40) },
        Snapshot { group_member: true, ..ready("member", 30) },
        ready("new", 0),
        ready("middle", 20),
        unready("other-run", 1),
        ready("tomorrow", -1440),
    ];
    let said: Vec<String> = decide(&snapshots, "last=2", Some("new"))
        .into_iter()
        .map(|(name, verdict, goes)| format!("{name} {}: {verdict}", if goes { "goes" } else { "stays" }))
        .collect();
    assert_eq!(
        said,
        [
            "tomorrow stays: dated in the future",
            "new stays: made by this run",
            "other-run stays: not ready yet",
            "middle stays: 2nd of last=2",
            "member stays: member of a VolumeGroupSnapshot",
            "going stays: already terminating",
            "held stays: held",
            "stuck goes: never became ready",
            "old goes: no rule keeps it",
        ]
    );
}

#[test]
fn last_keeps_the_newest_ready_ones() {
    let snapshots: Vec<Snapshot> = (0..6).map(|hour| ready(&format!("h{hour}"), hour * 60)).collect();
    assert_eq!(going(&snapshots, "last=1", Some("h0")), ["h1", "h2", "h3", "h4", "h5"]);
    assert_eq!(going(&snapshots, "last=4", Some("h0")), ["h4", "h5"]);
    assert_eq!(going(&snapshots, "last=100", Some("h0")), [""; 0]);
    assert_eq!(going(&snapshots, "all", Some("h0")), [""; 0]);
    assert_eq!(going(&snapshots, "last=1,all", Some("h0")), [""; 0]);
}

#[test]
fn without_a_ready_snapshot_nothing_goes() {
    let snapshots = [unready("a", 600), unready("b", 300), unready("c", 0)];
    assert_eq!(going(&snapshots, "last=1", Some("c")), [""; 0]);
    // Those that do not count do not make others go either.
    for untouchable in [
        Snapshot { held: true, ..ready("x", 1) },
        Snapshot { terminating: true, ..ready("x", 1) },
        Snapshot { group_member: true, ..ready("x", 1) },
        ready("x", -60),
    ] {
        assert_eq!(going(&[unready("a", 600), ready("b", 300), untouchable], "last=1", None), ["a"]);
    }
}

#[test]
fn what_is_not_ready_goes_only_when_nobody_can_be_waiting_for_it() {
    let new = ready("new", 0);
    // Exactly the longest wait is still waited for; a second more is not.
    let age = |seconds| Snapshot { created: now() - SignedDuration::from_secs(seconds), ..unready("x", 0) };
    assert_eq!(going(&[new.clone(), age(90)], "last=1", Some("new")), [""; 0]);
    assert_eq!(going(&[new.clone(), age(91)], "last=1", Some("new")), ["x"]);
    assert_eq!(going(&[new, age(91)], "all", Some("new")), ["x"], "all keeps what is ready");
    // Younger than the newest ready one: it may yet become the newest.
    assert_eq!(going(&[ready("old", 600), unready("x", 300)], "last=1", None), [""; 0]);
}

#[test]
fn the_newest_ready_stays_under_every_disorder_of_the_clocks() {
    // The storage's clock was set back: the run's own snapshot looks older than the previous one.
    let own = Snapshot { cut: Some(now() - SignedDuration::from_hours(5)), ..ready("own", 0) };
    assert_eq!(going(&[own, ready("previous", 60), ready("older", 120)], "last=1", Some("own")), ["older"]);
    // The storage's clock runs ahead: its own snapshot is no mistake of the future, …
    let own = Snapshot { cut: Some(now() + SignedDuration::from_hours(5)), ..ready("own", 0) };
    assert_eq!(going(&[own, ready("previous", 60)], "last=1", Some("own")), ["previous"]);
    // … but one of 2099 neither goes nor makes others go.
    let odd = Snapshot { cut: Some("2099-01-01T00:00:00Z".parse().expect("a time")), ..ready("odd", 60) };
    assert_eq!(going(&[ready("own", 0), odd.clone(), ready("previous", 60)], "last=2", Some("own")), [""; 0]);
    assert_eq!(going(&[odd, ready("previous", 60)], "last=1", None), [""; 0]);
    // By the API server's clock another one is newest: both stay.
    let moved = Snapshot { cut: Some(now() - SignedDuration::from_hours(9)), ..ready("moved", 1) };
    assert_eq!(going(&[moved, ready("a", 5), ready("b", 10)], "last=1", None), ["b"]);
    // All at one instant: the run's own is the newer one, and without it one stays.
    let same = [ready("a", 0), ready("b", 0), ready("c", 0)];
    assert_eq!(going(&same, "last=1", Some("b")), ["a", "c"]);
    assert_eq!(going(&same, "last=1", None).len(), 2);
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let flags = (any::<bool>(), proptest::bool::weighted(0.1), proptest::bool::weighted(0.1));
    let times = (-3i64..200, proptest::option::of(-300i64..300));
    (flags, proptest::bool::weighted(0.1), times).prop_map(
        |((ready_, held, terminating), group_member, times)| {
            let created = now() - SignedDuration::from_mins(times.0);
            let cut = times.1.map(|minutes| created + SignedDuration::from_mins(minutes));
            Snapshot { ready: ready_, held, terminating, group_member, created, cut, ..ready("", 0) }
        },
    )
}

fn any_claim() -> impl Strategy<Value = (Vec<Snapshot>, Option<usize>)> {
    proptest::collection::vec(any_snapshot(), 1..30).prop_flat_map(|mut snapshots| {
        for (index, snapshot) in snapshots.iter_mut().enumerate() {
            snapshot.name = format!("s{index}");
            snapshot.uid = format!("uid-s{index}");
        }
        let own = proptest::option::of(0..snapshots.len());
        (Just(snapshots).prop_shuffle(), own)
    })
}

proptest! {
    #[test]
    fn no_policy_and_no_disorder_deletes_what_must_stay(
        (mut snapshots, own) in any_claim(),
        number in 1u32..5,
    ) {
        let own = own.map(|index| {
            // A run judges only once its own snapshot is ready.
            snapshots[index].ready = true;
            snapshots[index].created = now();
            snapshots[index].name.clone()
        });
        let going = going(&snapshots, &format!("last={number}"), own.as_deref());
        let goes = |snapshot: &&Snapshot| going.contains(&snapshot.name);

        for snapshot in snapshots.iter().filter(goes) {
            prop_assert!(!snapshot.held && !snapshot.terminating && !snapshot.group_member);
            prop_assert!(snapshot.time() <= now() && snapshot.created <= now());
            prop_assert!(Some(&snapshot.name) != own.as_ref());
            let newer_stays = snapshots.iter().any(|other| {
                let is_own = Some(&other.name) == own.as_ref();
                let not_older = other.time() >= snapshot.time() || (is_own && other.created >= snapshot.time());
                other.uid != snapshot.uid && other.ready && !other.terminating && not_older && !going.contains(&other.name)
            });
            prop_assert!(newer_stays, "{} goes without a newer ready one that stays", snapshot.name);
            if !snapshot.ready {
                prop_assert!(snapshot.created < now() - WAIT);
            }
        }
        // As many ready ones stay as the rule promises, if there are as many.
        let is_own = |snapshot: &Snapshot| Some(&snapshot.name) == own.as_ref();
        let counting = |snapshot: &&Snapshot| {
            snapshot.ready && !snapshot.held && !snapshot.terminating && !snapshot.group_member
                && (is_own(snapshot) || snapshot.time().max(snapshot.created) <= now())
        };
        let staying = snapshots.iter().filter(counting).filter(|snapshot| !goes(snapshot)).count();
        prop_assert!(staying >= (number as usize).min(snapshots.iter().filter(counting).count()));

        // The order of the input does not matter.
        snapshots.reverse();
        prop_assert_eq!(decide(&snapshots, &format!("last={number}"), own.as_deref()).len(), snapshots.len());
        prop_assert_eq!(super::tests::going(&snapshots, &format!("last={number}"), own.as_deref()), going);
    }
}
