//! Pre hooks that are kept open: what they hold from a line that they write until their input ends.

use super::*;

/// Claims `data` and `logs`, and a pod `db` that mounts both and has annotations.
async fn with_session(
    options: Options,
    annotations: Vec<(String, String)>,
    session: impl Fn() -> Script + Send + Sync + 'static,
    scenario: impl AsyncFn(&TestCluster),
) {
    let session = std::sync::Arc::new(session);
    with_database(options, async |cluster| {
        cluster.put_pod("db", &["data", "logs"], &annotations);
        let session = session.clone();
        cluster.fake().commands(move |command| match command.line().as_str() {
            "freeze" => Some(session()),
            _ => script(command),
        });
        scenario(cluster).await;
    })
    .await;
}

/// What the documentation has people write.
fn held() -> Script {
    Script::new().freeze().complains("a warning\n").prints("1\nfrozen\n").until_input_ends().thaw()
}

fn labelled(snapshots: &[Value]) -> usize {
    snapshots.iter().filter(|snapshot| snapshot["metadata"]["labels"][LABEL] == "true").count()
}

#[tokio::test]
async fn a_session_that_is_kept_open_holds_both_claims_of_its_pod_until_they_are_taken() {
    with_session(Options::default(), kept_open(&[]), held, async |cluster| {
        let fake = cluster.fake();
        fake.plan(|snapshot| {
            let late = snapshot["spec"]["source"]["persistentVolumeClaimName"] == "logs";
            Some(Plan::ready_after(millis(1500)).taken_after(millis(if late { 400 } else { 50 })))
        });
        let ran = cluster.run_hooks(&[BOTH]).await;
        ran.assert_exit(0);
        let names = cluster.names().await;
        let counts: Vec<_> =
            names.iter().map(|name| fake.snapshot_content(&cluster.namespace, name)).collect();
        assert!(counts.len() == 2 && counts[0].is_some() && counts[0] == counts[1], "{counts:?}");
        assert_eq!(labelled(&cluster.snapshots().await), 2);
        let frozen = cluster.frozen_for("db");
        assert!(frozen >= millis(390) && frozen < millis(1200), "{frozen:?}");
        let processes = fake.processes();
        assert!(matches!(&processes[..], [one] if one.exit == Some(0) && one.abandoned.is_none()));
        let asked = cluster.asked();
        let order: Vec<&str> = asked
            .iter()
            .map(String::as_str)
            .filter(|asked| !asked.ends_with("persistentvolumeclaims") && !asked.starts_with("watch"))
            .collect();
        let expected = [
            "list pods",
            "list volumesnapshots",
            "freeze db",
            "create volumesnapshots",
            "create volumesnapshots",
            "patch volumesnapshots",
            "patch volumesnapshots",
        ];
        assert_eq!(order, expected);
        let said: Vec<&str> = ran.log.iter().filter_map(|line| line["message"].as_str()).collect();
        let at = |text: &str| said.iter().position(|line| *line == text).expect("a line");
        assert!(at("the pre hook is ready, and kept open") < at("made the snapshot"), "{said:?}");
        assert!(at("the snapshot is taken") < at("ended the pre hook"), "{said:?}");
        assert!(at("ended the pre hook") < at("the snapshot is ready"), "{said:?}");
    })
    .await;
}

/// What it held is not known then, and its exit code does not tell.
#[tokio::test]
async fn a_session_that_ends_by_itself_makes_nothing_consistent() {
    for (code, on_error, exit) in [(0, "fail", 0), (124, "fail", 2), (124, "continue", 0)] {
        let session = move || Script::new().freeze().prints("frozen\n").wait(millis(300)).thaw().exits(code);
        with_session(Options::default(), kept_open(&[("on-error", on_error)]), session, async |cluster| {
            cluster.older("old", "data").await;
            // One is taken before that, one afterwards.
            cluster.fake().plan(|snapshot| {
                let late = snapshot["spec"]["source"]["persistentVolumeClaimName"] == "logs";
                Some(Plan::ready_after(millis(1200)).taken_after(millis(if late { 1000 } else { 50 })))
            });
            let ran = cluster.run_hooks(&[BOTH]).await;
            ran.assert_exit(exit);
            let said = "the pre hook of pod db, which is kept open, ended by itself";
            assert_eq!(ran.lines(said).len(), 2, "{}", ran.message);
            let snapshots = cluster.snapshots().await;
            assert_eq!(labelled(&snapshots), 0, "{code} {on_error}");
            assert_eq!(cluster.names().await.contains(&"old".to_owned()), exit == 2);
            if exit == 2 {
                assert!(ran.message.contains("it exited with 124"), "{}", ran.message);
                assert!(ran.message.contains("pod db may still be frozen"), "{}", ran.message);
            } else {
                assert!(ran.message.contains("; 2 of them are not consistent"), "{}", ran.message);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_session_that_ends_badly_after_its_input_makes_nothing_consistent() {
    let session = || held().complains("\u{1b}[2Jnot unlocked\n").exits(1);
    with_session(Options::default(), kept_open(&[("on-error", "continue")]), session, async |cluster| {
        let ran = cluster.run_hooks(&[BOTH]).await;
        ran.assert_exit(0);
        assert_eq!(labelled(&cluster.snapshots().await), 0);
        assert!(ran.message.contains("; 2 of them are not consistent"), "{}", ran.message);
        let said = "it said: a warning 1 frozen  [2Jnot unlocked; pod db may still be frozen";
        let warned = ran.log.iter().any(|line| line["message"].to_string().contains(said));
        assert!(warned, "{:?}", ran.log);
    })
    .await;
}

/// With a post hook too, that is what thaws for certain, and it can be repeated.
#[tokio::test]
async fn a_post_hook_mends_a_session_whose_end_nobody_saw() {
    let annotations = [kept_open(&[("timeout", "1s")]), freezing(&[]).split_off(1)].concat();
    let session = || Script::new().freeze().prints("frozen\n").until_input_ends().hangs();
    with_session(Options::default(), annotations, session, async |cluster| {
        let ran = cluster.run_hooks(&[BOTH]).await;
        ran.assert_exit(0);
        assert!(!cluster.fake().is_frozen(&cluster.namespace, "db"));
        assert!(ran.message.contains("; 2 of them are not consistent"), "{}", ran.message);
        assert_eq!(ran.lines("ran the post hook").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_does_not_say_that_it_holds_does_not() {
    type Session = fn() -> Script;
    let cases: [(Session, &str); 3] = [
        (
            || {
                Script::new()
                    .freeze()
                    .prints("unfrozen\nfrozen")
                    .complains("frozen\n")
                    .until_input_ends()
                    .thaw()
            },
            "it did not write the line frozen within 0.50 s",
        ),
        (|| Script::new().prints("nothing to do\n"), "it ended, and did not write the line frozen"),
        (|| Script::new().complains("no rights\n").exits(3), "it exited with 3; it said: no rights"),
    ];
    for (session, said) in cases {
        with_session(Options::default(), kept_open(&[("timeout", "500ms")]), session, async |cluster| {
            let ran = cluster.run_hooks(&[BOTH]).await;
            ran.assert_exit(1);
            assert!(ran.message.contains("cannot run the pre hook in container main"), "{}", ran.message);
            assert!(ran.message.contains(said), "{}", ran.message);
            assert!(cluster.names().await.is_empty());
            assert!(!cluster.fake().is_frozen(&cluster.namespace, "db"));
        })
        .await;
    }
}

/// Before 1.30: the end of the input could be told only by closing the connection, and then nobody says how the
/// command ended.
#[tokio::test]
async fn without_the_new_protocol_nothing_is_kept_open() {
    let options = Options { exec_protocols: &["v4.channel.k8s.io"], ..Options::default() };
    with_session(options, kept_open(&[]), held, async |cluster| {
        let ran = cluster.run_hooks(&[BOTH]).await;
        ran.assert_exit(2);
        assert!(ran.message.contains("the API server speaks only v4.channel.k8s.io"), "{}", ran.message);
        assert!(ran.message.contains("Kubernetes 1.30 or newer"), "{}", ran.message);
        assert!(cluster.names().await.is_empty());
        cluster.until("it is thawed", async || !cluster.fake().is_frozen(&cluster.namespace, "db")).await;
    })
    .await;
}

/// Nobody knows until when it held.
#[tokio::test]
async fn a_pod_that_goes_away_with_its_session_makes_nothing_consistent_and_nothing_fail() {
    with_session(Options::default(), kept_open(&[]), held, async |cluster| {
        cluster.fake().plan(|_| Some(Plan::ready_after(millis(1500)).taken_after(millis(800))));
        let running = cluster.start(&permissions(), &[BOTH, ("SNAPSHOT_HOOKS", "true")]).await;
        until_at(cluster, Step::Taken).await;
        cluster.fake().delete("pods", &cluster.namespace, "db");
        let ran = running.finish().await;
        ran.assert_exit(0);
        assert!(ran.message.contains("; 2 of them are not consistent"), "{}", ran.message);
        assert_eq!(labelled(&cluster.snapshots().await), 0);
    })
    .await;
}
