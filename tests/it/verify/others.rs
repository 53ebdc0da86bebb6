//! What others make of a drill: people who are told, `list`, `restore`, runs that prune, and runs that find its claims.

use fake_apiserver::{Fault, Options, Others, PodPlan, Receiver, Reply, Request};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use volume_snapshotter::cluster::{
    PERMISSIONS, RESTORE_PERMISSIONS, SCHEDULE_PERMISSIONS, VERIFY_PERMISSIONS,
};

use super::{found, millis, plan, rights, verify, verify_with, whole};
use crate::{
    faults::{put_claim, put_ready},
    test_cluster::{Ran, TestCluster, all_permissions, embedded_only, rules},
};

const NEEDS_PODS: &str = "needs pods whose end a test chooses";
const NEEDS_OTHER_HAND: &str = "needs somebody who acts at an exact moment of the run";
const SNAPSHOTS: &str = "volumesnapshots";
const VERIFIED: &str = "volume-snapshotter/verified";

async fn with_snapshot(scenario: impl AsyncFn(&TestCluster)) {
    embedded_only(Options::default(), NEEDS_PODS, async |cluster| {
        cluster.claim("data").await;
        cluster.taken("snap", "data").await;
        scenario(cluster).await;
    })
    .await;
}

/// A plan by which there is a file that cannot be read.
fn damaged() -> PodPlan {
    let named = json!({"unreadable": 1, "named": [{"path": "/data/a", "error": "Input/output error"}]});
    PodPlan::fails(2, &found("unreadable", named))
}

/// Type, reason and message of the Events that drills made on a claim, in this order.
fn events(cluster: &TestCluster, claim: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_drills = |event: &&Value| {
        event["reportingComponent"] == "volume-snapshotter"
            && event["action"] == "Verify"
            && event["involvedObject"]["name"] == claim
    };
    let all = cluster.fake().list("events", &cluster.namespace);
    let said = |event: &Value| (text(&event["type"]), text(&event["reason"]), text(&event["message"]));
    let mut said: Vec<_> = all.iter().filter(is_drills).map(said).collect();
    said.sort();
    said
}

// --- People ----------------------------------------------------------------------------------------

#[tokio::test]
async fn a_drill_that_fails_is_a_warning_on_the_claim_and_one_that_does_not_is_quiet() {
    with_snapshot(async |cluster| {
        plan(cluster.fake(), damaged);
        verify(cluster, &["data"]).await.assert_exit(2);
        let said = events(cluster, "data");
        let [(kind, reason, message)] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!((kind.as_str(), reason.as_str()), ("Warning", "SnapshotNotVerified"));
        assert!(
            message.starts_with("snapshot snap is damaged: 1 file or directory cannot be read"),
            "{message}"
        );
        plan(cluster.fake(), whole);
        verify(cluster, &["data"]).await.assert_exit(0);
        assert_eq!(events(cluster, "data").len(), 1);
        let all = [("SNAPSHOT_EVENTS", "all"), ("VERIFY_EVERY", "1s")];
        tokio::time::sleep(millis(1100)).await;
        verify_with(cluster, &rights(), &all, &["data"]).await.assert_exit(0);
        let said = events(cluster, "data");
        let [(kind, reason, message), _] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!((kind.as_str(), reason.as_str()), ("Normal", "SnapshotVerified"));
        assert_eq!(message, "snap is verified: 3 files, 4.1 kB");
    })
    .await;
}

#[tokio::test]
async fn a_drill_pings_its_own_url_and_never_that_of_the_runs() {
    with_snapshot(async |cluster| {
        let [own, of_runs] = [
            Receiver::start(false, |_| Reply::new(200, "")).await,
            Receiver::start(false, |_| Reply::new(200, "")).await,
        ];
        let (own_url, url_of_runs) =
            (format!("{}/drill/{{exit}}", own.url()), format!("{}/run", of_runs.url()));
        let urls = [("VERIFY_PING_URL", own_url.as_str()), ("SNAPSHOT_PING_URL", url_of_runs.as_str())];
        for (outcome, code) in [(damaged as fn() -> PodPlan, 2), (whole, 0)] {
            plan(cluster.fake(), outcome);
            let said = verify_with(cluster, &rights(), &urls, &["data"]).await;
            said.assert_exit(code);
            let received = own.received();
            let last = received.last().expect("a ping");
            assert_eq!(
                (last.path.as_str(), last.body.as_str()),
                (&*format!("/drill/{code}"), &*said.message)
            );
        }
        assert_eq!((own.received().len(), of_runs.received().len()), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn a_list_has_a_column_that_says_when_each_was_verified_or_that_this_failed() {
    with_snapshot(async |cluster| {
        let list_rights = rules(&[PERMISSIONS, SCHEDULE_PERMISSIONS].concat());
        let list = async |arguments: &[&str]| {
            let said = cluster.say(&list_rights, &[&["list"], arguments].concat()).await;
            said.assert_exit(0);
            said.out
        };
        assert!(!list(&[]).await.contains("VERIFIED"), "nothing was ever verified");
        // In the place of the heading.
        let cell = |table: &str| {
            let mut lines = table.lines();
            let at = lines.next().and_then(|line| line.find("VERIFIED")).expect("the column");
            let line = lines.find(|line| line.contains("snap")).expect("the snapshot");
            line[at..].split("  ").next().unwrap_or_default().to_owned()
        };
        plan(cluster.fake(), whole);
        verify(cluster, &["data"]).await.assert_exit(0);
        let said = cell(&list(&[]).await);
        assert!(said.ends_with(" ago"), "{said}");
        let listed: Value = serde_json::from_str(&list(&["-o", "json"]).await).expect("JSON");
        let verified = listed["items"][0]["verified"].as_str().expect("a time");
        let noted = cluster.noted("snap", "verified").await.expect("it is noted");
        assert!(noted.starts_with(verified), "{verified}: {noted}");
        plan(cluster.fake(), damaged);
        let again = [("VERIFY_EVERY", "1s")];
        tokio::time::sleep(millis(1100)).await;
        verify_with(cluster, &rights(), &again, &["data"]).await.assert_exit(2);
        assert_eq!(cell(&list(&[]).await), "failed");
    })
    .await;
}

// --- Restores --------------------------------------------------------------------------------------

#[tokio::test]
async fn a_restore_of_what_is_verified_takes_the_latest_that_is_proven() {
    with_snapshot(async |cluster| {
        let restore = async |to: &str| {
            let arguments = ["restore", "--claim=data", "--verified", "--to", to];
            cluster.say(&rules(RESTORE_PERMISSIONS), &arguments).await
        };
        let said = restore("none").await;
        said.assert_exit(2).assert_says("verified");
        assert!(cluster.try_claim("none").await.is_none());
        plan(cluster.fake(), whole);
        verify(cluster, &["data"]).await.assert_exit(0);
        tokio::time::sleep(millis(1100)).await;
        // Newer, and found to be bad, or not looked at.
        cluster.taken("bad", "data").await;
        plan(cluster.fake(), damaged);
        verify(cluster, &["data"]).await.assert_exit(2);
        tokio::time::sleep(millis(1100)).await;
        cluster.taken("unread", "data").await;
        restore("proven").await.assert_exit(0);
        let claim = cluster.try_claim("proven").await.expect("the claim");
        assert_eq!(claim["spec"]["dataSource"]["name"], "snap");
    })
    .await;
}

#[tokio::test]
async fn what_a_run_notes_of_the_volume_is_what_a_restore_and_a_drill_make_when_the_claim_is_gone() {
    embedded_only(Options::default(), NEEDS_PODS, async |cluster| {
        // Neither class nor modes are what would be assumed.
        cluster.fake().put(fake_apiserver::objects::storage_class("special"));
        let mut claim = fake_apiserver::objects::claim(&cluster.namespace, "data");
        claim["spec"]["storageClassName"] = json!("special");
        claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
        cluster.post(&cluster.claims_path(), &claim).await;
        let is_bound = async |name: &str| {
            cluster.try_claim(name).await.is_some_and(|claim| claim["status"]["phase"] == "Bound")
        };
        cluster.until("it is bound", async || is_bound("data").await).await;
        cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await.assert_exit(0);
        cluster.delete_claim("data").await;
        cluster.until("it is gone", async || cluster.try_claim("data").await.is_none()).await;
        let noted = cluster.noted(&cluster.names().await[0], "claim-volume").await.expect("a note");
        let noted: Value = serde_json::from_str(&noted).expect("JSON");
        let restored =
            cluster.say(&rules(RESTORE_PERMISSIONS), &["restore", "--claim=data", "--to=back"]).await;
        restored.assert_exit(0);
        let spec = cluster.try_claim("back").await.expect("the claim")["spec"].take();
        for (field, expected) in [
            ("storageClassName", json!("special")),
            ("accessModes", json!(["ReadWriteOncePod"])),
            ("volumeMode", json!("Filesystem")),
        ] {
            assert_eq!((&spec[field], &noted[field]), (&expected, &expected), "{field}");
        }
        // The drill's has the class as well.
        plan(cluster.fake(), whole);
        let said = verify(cluster, &["data"]).await;
        said.assert_exit(0).assert_says(" of class special");
        cluster.delete_claim("back").await;
        cluster.nothing_is_left().await;
    })
    .await;
}

// --- Runs ------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_run_makes_no_snapshot_of_a_drills_claim() {
    with_snapshot(async |cluster| {
        // Here there is one account, and both are under way at the same time.
        let both = rules(&[PERMISSIONS, VERIFY_PERMISSIONS].concat());
        plan(cluster.fake(), || whole().running_for(millis(4000)));
        let verifying =
            cluster.begin_to_say(&both, &[("VERIFY_IMAGE", super::IMAGE)], &["verify", "data"]).await;
        let of_drill = || {
            let all = cluster.fake().list("persistentvolumeclaims", &cluster.namespace);
            let mut all = all.into_iter();
            all.find(|one| one["metadata"]["labels"].get("volume-snapshotter/drill").is_some())
        };
        cluster
            .until("its claim is bound", async || {
                of_drill().is_some_and(|one| one["status"]["phase"] == "Bound")
            })
            .await;
        let name = of_drill().expect("a claim")["metadata"]["name"].as_str().expect("a name").to_owned();
        // A selector that matches all.
        let ran = cluster
            .run_with_permissions(
                &both,
                &[("SNAPSHOT_PVC_SELECTOR", "!no-such-label"), ("SNAPSHOT_RETENTION", "last=2")],
            )
            .await;
        ran.assert_exit(0);
        let made: Vec<Value> = cluster.snapshots().await;
        let of = |claim: &str| {
            made.iter().filter(|one| one["spec"]["source"]["persistentVolumeClaimName"] == claim).count()
        };
        assert!(of_drill().is_some(), "the drill was over before");
        assert_eq!(of(&name), 0);
        assert!(of("data") > 0);
        let ran = cluster.run_with_permissions(&both, &[("SNAPSHOT_PVC_NAMES", &name)]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("is a drill's, made from a snapshot"), "{}", ran.message);
        verifying.finish().await.assert_exit(0);
        cluster.nothing_is_left().await;
    })
    .await;
}

fn asks(verb: &'static str, resource: &'static str) -> impl Fn(&Request) -> bool + Clone + Send + Sync {
    move |request| request.user.contains("serviceaccount") && request.is(verb, resource)
}

fn verify_by_hand(others: &Others, namespace: &str, name: &str) {
    let note = format!("{} 3 files", Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"));
    others.annotate(SNAPSHOTS, namespace, name, VERIFIED, Some(&note));
}

/// Snapshots of claim `data`, each an hour older than the one before, of which some are verified.
fn arrange(cluster: &TestCluster, names: &[(&str, bool)]) {
    put_claim(cluster, "data");
    for (hours, (name, is_verified)) in (1..).zip(names) {
        put_ready(cluster, name, "data", hours);
        if *is_verified {
            verify_by_hand(&cluster.fake().others(), &cluster.namespace, name);
        }
    }
}

/// The names of the older snapshots that are left.
async fn left(cluster: &TestCluster, ran: Ran) -> Vec<String> {
    ran.assert_exit(0);
    let names = cluster.names().await;
    assert_eq!(names.iter().filter(|name| name.starts_with("volume-snapshot-")).count(), 1, "{names:?}");
    names.into_iter().filter(|name| !name.starts_with("volume-snapshot-")).collect()
}

#[tokio::test]
async fn a_run_keeps_the_newest_that_are_verified_and_one_of_them_whatever_its_rules_say() {
    for (retention, expected) in [
        ("last=1", &["b"][..]),
        ("last=1,verified=1", &["b"]),
        ("last=1,verified=2", &["b", "d"]),
        ("last=3", &["a", "b"]),
        ("last=1,verified=all", &["b", "d", "f"]),
    ] {
        embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
            arrange(
                cluster,
                &[("a", false), ("b", true), ("c", false), ("d", true), ("e", false), ("f", true)],
            );
            let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", retention)]).await;
            assert_eq!(left(cluster, ran).await, expected, "{retention}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_verification_that_was_noted_a_second_ago_saves_the_snapshot() {
    embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
        arrange(cluster, &[("a", false), ("b", false)]);
        let namespace = cluster.namespace.clone();
        let is_b = |request: &Request| asks("delete", SNAPSHOTS)(request) && request.name == "b";
        // The request to delete it is on its way.
        cluster.fake().before(is_b, 1, move |others| verify_by_hand(others, &namespace, "b"));
        let ran = cluster.run(&[("SNAPSHOT_PVC_NAMES", "data")]).await;
        assert_eq!(left(cluster, ran).await, ["b"]);
    })
    .await;
}

/// Something that somebody does, in a namespace.
type Act = fn(&Others, &str);

/// What goes is deleted oldest first. `b` may go because `a` is verified too, until that is not so any more.
#[tokio::test]
async fn once_the_newest_verified_is_so_no_more_the_next_one_stays() {
    let acts: [(&str, Act); 3] = [
        ("somebody strips its annotation", |others, namespace| {
            others.annotate(SNAPSHOTS, namespace, "a", VERIFIED, None)
        }),
        ("what is noted is nothing", |others, namespace| {
            others.annotate(SNAPSHOTS, namespace, "a", VERIFIED, Some("yes"))
        }),
        ("somebody deletes it", |others, namespace| drop(others.remove(SNAPSHOTS, namespace, "a"))),
    ];
    for (what, act) in acts {
        embedded_only(Options::default(), NEEDS_OTHER_HAND, async |cluster| {
            arrange(cluster, &[("a", true), ("b", true), ("c", false)]);
            cluster
                .fake()
                .fault(|request| asks("delete", SNAPSHOTS)(request).then_some(Fault::Delay(millis(400))));
            let settings = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_CONCURRENCY", "1")];
            let running = cluster.start(&all_permissions(), &settings).await;
            let asked =
                || cluster.fake().requests().iter().filter(|one| asks("delete", SNAPSHOTS)(one)).count();
            cluster.until("it deletes the first", async || asked() == 1).await;
            act(&cluster.fake().others(), &cluster.namespace);
            let left = left(cluster, running.finish().await).await;
            assert!(left.contains(&"b".to_owned()), "{what}: {left:?}");
            assert!(!left.contains(&"c".to_owned()), "{what}: {left:?}");
        })
        .await;
    }
}
