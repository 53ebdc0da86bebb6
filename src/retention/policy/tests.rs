//! Tables of claims' snapshots with the verdicts on them, and attempts to have the wrong one
//! deleted.

use k8s_openapi::jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_secs(90);
const LIFETIME: Duration = Duration::from_secs(3600);

/// Noon of a day; snapshots are dated in minutes before it.
fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().expect("a time")
}

fn ready(name: &str, minutes_ago: i64) -> Snapshot {
    let created = now() - SignedDuration::from_mins(minutes_ago);
    Snapshot { uid: format!("uid-{name}"), ..Snapshot::ready_at(name, created) }
}

fn unready(name: &str, minutes_ago: i64) -> Snapshot {
    Snapshot { ready: false, taken_at: None, ..ready(name, minutes_ago) }
}

/// A run whose new snapshot is `new`, and which had seen all others of the same second before.
fn decide(snapshots: &[Snapshot], rules: &str, new: Option<&str>) -> Vec<(String, String, bool)> {
    let seen_before: Vec<String> = snapshots.iter().map(|snapshot| snapshot.uid.clone()).collect();
    decide_as(snapshots, rules, new, &seen_before, None)
}

fn decide_as(
    snapshots: &[Snapshot],
    rules: &str,
    new: Option<&str>,
    seen_before: &[String],
    claim: Option<ClaimIdentity<'_>>,
) -> Vec<(String, String, bool)> {
    let rules = rules.parse().expect("rules");
    let new = new.map(|name| format!("uid-{name}"));
    let in_use = HashSet::from(["restoring".to_owned()]);
    let by = Judgement {
        new: new.as_deref(),
        seen_before,
        claim,
        in_use: Some(&in_use),
        longest_wait: WAIT,
        job_lifetime: LIFETIME,
        ..Judgement::by_rules(&rules, now())
    };
    judge(snapshots, &by)
        .into_iter()
        .map(|Decision { snapshot, verdict }| (snapshot.name.clone(), verdict.to_string(), verdict.goes()))
        .collect()
}

/// The names of those that go, newest first.
fn going(snapshots: &[Snapshot], rules: &str, new: Option<&str>) -> Vec<String> {
    decide(snapshots, rules, new).into_iter().filter(|(_, _, goes)| *goes).map(|(name, ..)| name).collect()
}

#[test]
fn every_snapshot_gets_a_verdict_in_words() {
    let snapshots = [
        unready("stuck", 60),
        Snapshot { held: true, ..ready("held", 50) },
        ready("old", 120),
        Snapshot { terminating_since: Some(now()), ..ready("going", 40) },
        Snapshot { owner: Some(Owner::Group), ..ready("member", 30) },
        Snapshot { owner: Some(Owner::Other), ..ready("owned", 29) },
        Snapshot { unreadable: true, ..unready("odd", 28) },
        ready("restoring", 27),
        ready("new", 0),
        ready("middle", 20),
        unready("other-run", 1),
        Snapshot { taken_at: Some(now() + SignedDuration::from_hours(24)), ..ready("tomorrow", 55) },
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
            "restoring stays: a claim is being restored from it",
            "odd stays: its status cannot be read",
            "owned stays: another object owns it",
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
        Snapshot { terminating_since: Some(now()), ..ready("x", 1) },
        Snapshot { owner: Some(Owner::Group), ..ready("x", 1) },
        Snapshot { owner: Some(Owner::Other), ..ready("x", 1) },
        Snapshot { unreadable: true, ..unready("x", 1) },
        ready("restoring", 1),
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
    let taken = |name: &str, minutes_ago: i64, hours_off: i64| {
        let snapshot = ready(name, minutes_ago);
        Snapshot { taken_at: Some(snapshot.created + SignedDuration::from_hours(hours_off)), ..snapshot }
    };
    // The storage's clock runs behind: nothing was taken before it was asked for.
    let behind = [taken("new", 0, -5), ready("previous", 60), ready("older", 120)];
    assert_eq!(going(&behind, "last=1", Some("new")), ["previous", "older"]);
    assert_eq!(going(&[taken("a", 1, -9), taken("b", 5, 0), ready("c", 10)], "last=1", None), ["b", "c"]);
    // It runs ahead: the new snapshot is no mistake of the future, …
    assert_eq!(going(&[taken("new", 0, 5), ready("previous", 60)], "last=1", Some("new")), ["previous"]);
    // … but one of 2099 neither goes nor makes others go.
    let odd =
        Snapshot { taken_at: Some("2099-01-01T00:00:00Z".parse().expect("a time")), ..ready("odd", 60) };
    assert_eq!(going(&[ready("new", 0), odd.clone(), ready("previous", 60)], "last=2", Some("new")), [""; 0]);
    assert_eq!(going(&[odd, ready("previous", 60)], "last=1", None), [""; 0]);
    // It was set back by half an hour an hour ago. By the API server's clock another one is newest: both stay.
    let ahead = Snapshot { taken_at: Some(now() - SignedDuration::from_mins(2)), ..ready("ahead", 60) };
    assert_eq!(going(&[ahead, ready("a", 5), ready("b", 10)], "last=1", None), ["b"]);
    // All at one instant: the run's own is the newer one, and without it one stays.
    let same = [ready("a", 0), ready("b", 0), ready("c", 0)];
    assert_eq!(going(&same, "last=1", Some("b")), ["a", "c"]);
    assert_eq!(going(&same, "last=1", None).len(), 2);
}

#[test]
fn two_runs_at_once_never_delete_each_others() {
    // Both were stored within one second, and neither run had seen the other's before: whoever
    // takes its own for the newer one must not conclude that the other one is older.
    let snapshots = [ready("a", 0), ready("b", 0), ready("old", 60)];
    for own in ["a", "b"] {
        let going: Vec<String> = decide_as(&snapshots, "last=1", Some(own), &[], None)
            .into_iter()
            .filter_map(|(name, _, goes)| goes.then_some(name))
            .collect();
        assert_eq!(going, ["old"]);
    }
    // One that was stored later is not older either, whatever time its driver gives it.
    let later = Snapshot { created: now() + SignedDuration::from_secs(1), ..ready("later", 30) };
    let said = decide(&[ready("own", 0), later], "last=1", Some("own"));
    assert!(said.contains(&("later".into(), "not older than this run's".into(), false)), "{said:?}");
}

#[test]
fn snapshots_of_a_previous_claim_of_the_same_name_are_not_this_claims_to_prune() {
    // The claim was deleted by mistake and made anew an hour ago, empty; the only good data is in
    // what was taken before.
    let snapshots = [ready("own", 0), ready("empty", 30), ready("good", 90), unready("stuck", 120)];
    let claim = ClaimIdentity { uid: "this", created: Some(now() - SignedDuration::from_hours(1)) };
    let said = decide_as(&snapshots, "last=1", Some("own"), &[], Some(claim));
    let said: Vec<(&str, &str)> =
        said.iter().map(|(name, verdict, _)| (name.as_str(), verdict.as_str())).collect();
    assert_eq!(
        said,
        [
            ("own", "made by this run"),
            ("empty", "no rule keeps it"),
            ("good", "of a previous claim of this name"),
            ("stuck", "of a previous claim of this name"),
        ]
    );
}

#[test]
fn a_snapshot_that_names_its_claims_uid_is_of_that_claim_whatever_the_clock_says() {
    let of = |name: &str, minutes_ago: i64, uid: &str| Snapshot {
        claim_uid: Some(uid.to_owned()),
        ..ready(name, minutes_ago)
    };
    // The claim was made anew within the second in which the snapshot was asked for.
    let claim = ClaimIdentity { uid: "this", created: Some(now() - SignedDuration::from_mins(30)) };
    let snapshots = [of("new", 0, "this"), of("same-second", 30, "that"), of("restored", 90, "this")];
    let going: Vec<(String, bool)> = decide_as(&snapshots, "last=1", Some("new"), &[], Some(claim))
        .into_iter()
        .map(|(name, _, goes)| (name, goes))
        .collect();
    assert_eq!(going, [("new".into(), false), ("same-second".into(), false), ("restored".into(), true)]);
}

#[test]
fn what_a_job_made_is_not_a_leftover_while_the_job_may_live() {
    let of_job = |minutes_ago| Snapshot { run_uid: Some("0e1f".into()), ..unready("x", minutes_ago) };
    let new = ready("new", 0);
    assert_eq!(going(&[new.clone(), of_job(60)], "last=1", Some("new")), [""; 0]);
    assert_eq!(going(&[new, of_job(61)], "last=1", Some("new")), ["x"]);
}

#[test]
fn every_rule_says_which_one_keeps_a_snapshot() {
    let snapshots: Vec<Snapshot> = (0..5).map(|hours| ready(&format!("h{hours}"), hours * 60)).collect();
    let verdicts = |rules: &str| -> Vec<String> {
        decide(&snapshots, rules, None).into_iter().map(|(_, verdict, _)| verdict).collect()
    };
    assert_eq!(
        verdicts("last=1,hourly=3"),
        ["1st of last=1", "2nd of hourly=3", "3rd of hourly=3", "no rule keeps it", "no rule keeps it"]
    );
    assert_eq!(verdicts("within=2h")[1], "within=2h");
    assert_eq!(verdicts("within-hourly=2h")[1..3], ["within-hourly=2h", "no rule keeps it"]);
    assert_eq!(verdicts("hourly=all")[4], "hourly=all");
    assert_eq!(verdicts("deltas=PT1H PT3H")[3], "deltas=PT1H PT3H");
    assert_eq!(verdicts("all")[4], "all");
}

#[test]
fn the_newest_verified_stays_whatever_the_rules_say_and_a_rule_keeps_more_of_them() {
    let verified = |name: &str, minutes_ago: i64| Snapshot { verified: true, ..ready(name, minutes_ago) };
    let snapshots = [ready("new", 0), ready("b", 10), verified("c", 20), ready("d", 30), verified("e", 40)];
    assert_eq!(going(&snapshots, "last=1", Some("new")), ["b", "d", "e"]);
    assert_eq!(going(&snapshots, "last=1,verified=2", Some("new")), ["b", "d"]);
    assert_eq!(going(&snapshots, "verified=all", Some("new")), ["b", "d"]);
    let of = |rules: &str, name: &str| {
        let all = decide(&snapshots, rules, Some("new"));
        all.into_iter().find(|(one, ..)| one == name).map(|(_, why, _)| why)
    };
    assert_eq!(of("last=1", "c").as_deref(), Some("newest verified"));
    assert_eq!(of("verified=2", "e").as_deref(), Some("2nd of verified=2"));
    // Nobody verifies: nothing more stays than before.
    let plain = [ready("new", 0), ready("b", 10), ready("c", 20)];
    assert_eq!(going(&plain, "last=1,verified=5", Some("new")), ["b", "c"]);
    // One that is not ready, or that nothing touches anyway, is not the newest verified.
    let odd = [
        ready("new", 0),
        Snapshot { verified: true, ..unready("u", 5) },
        Snapshot { held: true, ..verified("h", 10) },
        verified("v", 20),
        verified("w", 30),
    ];
    assert_eq!(going(&odd, "last=1", Some("new")), ["u", "w"]);
}

#[test]
fn the_cause_of_a_verdict_is_the_rule_or_the_whole_reason() {
    let rules: Rules =
        "last=21,daily=all,within=2d,within-weekly=1y,deltas=PT1H P1D,all".parse().expect("rules");
    for (rule, nth) in rules.iter().zip([1, 2, 3, 21, 112, 4]) {
        assert_eq!(cause(&Verdict::KeptBy(rule, nth).to_string()), rule.to_string());
    }
    for verdict in [
        Verdict::Terminating,
        Verdict::Held,
        Verdict::GroupMember,
        Verdict::OwnedByOther,
        Verdict::Unreadable,
        Verdict::InUse,
        Verdict::PreviousClaim,
        Verdict::FutureDated,
        Verdict::NotOlder,
        Verdict::New,
        Verdict::NewestReady,
        Verdict::InProgress,
        Verdict::Superseded,
        Verdict::Leftover,
    ] {
        assert_eq!(cause(&verdict.to_string()), verdict.to_string());
    }
}

fn any_rules() -> impl Strategy<Value = String> {
    let rule = prop_oneof![
        (1u32..6).prop_map(|number| format!("last={number}")),
        (1u32..6).prop_map(|number| format!("hourly={number}")),
        (1u32..6).prop_map(|number| format!("weekly={number}")),
        (1u32..90).prop_map(|minutes| format!("within={minutes}m")),
        ("within-(hourly|daily|weekly)", 1u32..300).prop_map(|(name, minutes)| format!("{name}={minutes}m")),
        "(hourly|daily|monthly)=all",
        (1u32..60, 1u32..300).prop_map(|(a, b)| format!("deltas=PT{a}M PT{b}M")),
    ];
    proptest::collection::vec(rule, 1..4).prop_map(|mut rules| {
        rules.sort();
        rules.dedup_by_key(|rule| rule.split('=').next().map(str::to_owned));
        rules.join(",")
    })
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let rarely = || proptest::bool::weighted(0.1);
    let owner = proptest::option::weighted(0.1, prop_oneof![Just(Owner::Group), Just(Owner::Other)]);
    let flags = (any::<bool>(), rarely(), rarely(), rarely(), any::<bool>());
    let times = (-3i64..200, proptest::option::of(-300i64..300));
    (flags, owner, times).prop_map(|((is_ready, held, terminating, unreadable, of_job), owner, times)| {
        let created = now() - SignedDuration::from_mins(times.0);
        Snapshot {
            ready: is_ready && !unreadable,
            held,
            unreadable,
            terminating_since: terminating.then(now),
            owner,
            created,
            taken_at: times.1.map(|minutes| created + SignedDuration::from_mins(minutes)),
            run_uid: of_job.then(|| "0e1f".to_owned()),
            ..ready("", 0)
        }
    })
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
        rules in any_rules(),
    ) {
        let own = own.map(|index| {
            // A run judges only once its own snapshot is ready.
            snapshots[index].ready = true;
            snapshots[index].created = now();
            snapshots[index].name.clone()
        });
        let going = going(&snapshots, &rules, own.as_deref());
        let goes = |snapshot: &&Snapshot| going.contains(&snapshot.name);

        for snapshot in snapshots.iter().filter(goes) {
            prop_assert!(!snapshot.held && !snapshot.is_terminating() && snapshot.owner.is_none());
            prop_assert!(!snapshot.unreadable);
            prop_assert!(snapshot.time() <= now() && snapshot.created <= now());
            prop_assert!(Some(&snapshot.name) != own.as_ref());
            let newer_stays = snapshots.iter().any(|other| {
                let is_own = Some(&other.name) == own.as_ref();
                let not_older = other.time() >= snapshot.time() || (is_own && other.created >= snapshot.time());
                other.uid != snapshot.uid && other.ready && !other.is_terminating() && not_older && !going.contains(&other.name)
            });
            prop_assert!(newer_stays, "{} goes without a newer ready one that stays", snapshot.name);
            if !snapshot.ready {
                prop_assert!(snapshot.created < now() - WAIT);
                prop_assert!(snapshot.run_uid.is_none() || snapshot.created < now() - LIFETIME);
            }
        }
        // The order of the input does not matter.
        let before = decide(&snapshots, &rules, own.as_deref());
        snapshots.reverse();
        prop_assert_eq!(decide(&snapshots, &rules, own.as_deref()), before);
    }

    #[test]
    fn what_a_rule_keeps_a_superset_of_rules_keeps(
        (snapshots, _) in any_claim(),
        rules in any_rules(),
        more in any_rules(),
    ) {
        let names = |rules: &str| rules.split(',').map(|rule| rule.split('=').next().map(str::to_owned)).collect::<Vec<_>>();
        let known = names(&rules);
        let more: Vec<&str> = more.split(',').filter(|rule| !known.contains(&names(rule)[0])).collect();
        let superset = std::iter::once(rules.as_str()).chain(more).collect::<Vec<_>>().join(",");
        let goes_anyway = going(&snapshots, &superset, None);
        let goes = going(&snapshots, &rules, None);
        prop_assert!(goes_anyway.iter().all(|name| goes.contains(name)), "{} deletes what {} keeps", superset, rules);
    }

    /// The newest ready one stays when each run judges what the run before it left, whatever the
    /// rules, and two runs that judge the same state at once never leave nothing.
    #[test]
    fn of_two_runs_at_once_both_leave_a_ready_one(
        (mut snapshots, _) in any_claim(),
        rules in any_rules(),
    ) {
        for name in ["a", "b"] {
            snapshots.push(ready(name, 0));
        }
        let judged = |own: &str, other: &str| {
            let seen: Vec<String> =
                snapshots.iter().map(|one| one.uid.clone()).filter(|uid| !uid.ends_with(&format!("-{other}"))).collect();
            let said = decide_as(&snapshots, &rules, Some(own), &seen, None);
            said.into_iter().filter_map(|(name, _, goes)| goes.then_some(name)).collect::<Vec<String>>()
        };
        let gone: Vec<String> = judged("a", "b").into_iter().chain(judged("b", "a")).collect();
        prop_assert!(!gone.contains(&"a".to_owned()) && !gone.contains(&"b".to_owned()), "{:?}", gone);
    }
}
