//! How fast snapshots are created where there are many claims: as fast as the snapshot controller keeps up, and those first
//! whose newest snapshot is the oldest.

use std::{cell::RefCell, io::Write as _, time::Duration};

use fake_apiserver::{Options, Pace, Stage, objects};

use crate::test_cluster::{TestCluster, all_permissions, embedded_only};

const NEEDS_PACE: &str = "needs a snapshot controller whose speed a test chooses";

fn put_claims(cluster: &TestCluster, claims: usize) {
    for number in 0..claims {
        let name = format!("data-{number}");
        cluster.fake().put(objects::bound_claim(&cluster.namespace, &name, &[("app", "web")]));
    }
}

/// The most snapshots that were created and not ready at the same time.
fn most_pending(cluster: &TestCluster) -> usize {
    let (mut pending, mut most) = (0_usize, 0);
    for milestone in cluster.fake().snapshot_history() {
        match milestone.stage {
            Stage::Created => pending += 1,
            Stage::Ready => pending = pending.saturating_sub(1),
            _ => {}
        }
        most = most.max(pending);
    }
    most
}

/// The controller makes 40 snapshots ready a second, and each has three seconds.
#[tokio::test]
async fn a_slow_controller_gets_no_more_than_it_can_do_in_time() {
    const CLAIMS: usize = 240;
    let said = RefCell::new(String::new());
    for (max_pending, code) in [("100000", 1), ("", 0)] {
        embedded_only(Options::default(), NEEDS_PACE, async |cluster| {
            put_claims(cluster, CLAIMS);
            cluster.fake().controller_pace(Pace::PerSecond(40));
            let settings = [
                ("SNAPSHOT_PVC_SELECTOR", "app=web"),
                ("SNAPSHOT_READY_ATTEMPTS", "1"),
                ("SNAPSHOT_READY_INTERVAL", "3s"),
                ("SNAPSHOT_MAX_PENDING", max_pending),
                ("SNAPSHOT_RUN_UID", "a-job"),
            ];
            let ran = cluster.start(&all_permissions(), &settings).await.finish().await;
            ran.assert_exit(code);
            let ready: usize = ran.message.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
            let timed_out = CLAIMS - ready;
            said.borrow_mut().push_str(&format!(
                "SNAPSHOT_MAX_PENDING={max_pending:?}: {ready} ready, {timed_out} not in time, {} pending at most, {:.1} s\n",
                most_pending(cluster),
                ran.took.as_secs_f64()
            ));
            match code {
                0 => assert_eq!(ready, CLAIMS, "{}", ran.message),
                _ => assert!(ready < CLAIMS * 3 / 4, "{}", ran.message),
            }
        })
        .await;
    }
    let _ = std::io::stderr().write_all(said.into_inner().as_bytes());
}

#[tokio::test]
async fn no_more_snapshots_are_pending_than_the_setting_says() {
    let mut options = Options::default();
    options.controller.ready_after = Duration::from_millis(100);
    embedded_only(options, NEEDS_PACE, async |cluster| {
        put_claims(cluster, 40);
        let settings = [("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_MAX_PENDING", "7")];
        cluster.start(&all_permissions(), &settings).await.finish().await.assert_exit(0);
        assert_eq!(most_pending(cluster), 7);
        assert_eq!(cluster.names().await.len(), 40);
    })
    .await;
}

#[tokio::test]
async fn the_claim_whose_newest_snapshot_is_the_oldest_comes_first() {
    embedded_only(Options::default(), NEEDS_PACE, async |cluster| {
        let old = |name: &str, claim: &str, time: &str| {
            cluster.fake().put(objects::ready_snapshot(&cluster.namespace, name, claim, time));
        };
        for claim in ["a", "b", "c", "d"] {
            let mut claim = objects::bound_claim(&cluster.namespace, claim, &[("app", "web")]);
            claim["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            cluster.fake().put(claim);
        }
        old("a-1", "a", "2026-02-03T00:00:00Z");
        old("b-1", "b", "2026-02-01T00:00:00Z");
        old("b-2", "b", "2026-02-04T00:00:00Z");
        old("d-1", "d", "2026-02-02T00:00:00Z");
        let settings = [
            ("SNAPSHOT_PVC_SELECTOR", "app=web"),
            ("SNAPSHOT_MAX_PENDING", "1"),
            ("SNAPSHOT_RETENTION", "all"),
        ];
        let running = cluster.start(&all_permissions(), &settings).await;
        cluster.fake().clear_requests();
        running.finish().await.assert_exit(0);
        let order: Vec<String> = cluster
            .fake()
            .requests()
            .iter()
            .filter(|request| request.is("create", "volumesnapshots"))
            .filter_map(|request| {
                let body = request.body.as_ref()?;
                Some(body["spec"]["source"]["persistentVolumeClaimName"].as_str()?.to_owned())
            })
            .collect();
        assert_eq!(order, ["c", "d", "a", "b"]);
    })
    .await;
}
