//! The cost of a run, independent of the machine: requests, bytes, connections, and the size of the binary.
//! Each may fall, but rises only by changing these lines.
//!
//! `just bench` measures what depends on the machine.

use std::{fs, io::Write as _, path::Path};

use fake_apiserver::{Options, Traffic, objects};
use serde_json::json;

use crate::test_cluster::{BINARY, TestCluster, all_permissions, embedded};

/// How large the binary may be, in bytes.
const LARGEST_BINARY: u64 = 8_000_000;

/// Maximum number of bytes on the wire, in both directions with TLS, of a run for one claim with one older
/// snapshot. Most of them are the certificates and session tickets of the two connections.
const MOST_FOR_ONE_CLAIM: u64 = 18_000;

/// Maximum number of bytes on the wire per claim with one older snapshot, in a run for many: its part of
/// three lists, the create, the events of the new snapshot and of the old one's deletion, and the delete.
const MOST_FOR_EACH_CLAIM: u64 = 13_000;

/// Objects on a page of a list.
const PAGE: usize = 500;

/// Claims, the first of them with the most older snapshots.
async fn furnish(cluster: &TestCluster, claims: usize, snapshots: usize) {
    for number in 0..claims {
        let mut claim =
            objects::bound_claim(&cluster.namespace, &format!("data-{number}"), &[("app", "web")]);
        claim["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        cluster.fake().put(claim);
    }
    for number in 0..snapshots {
        let (name, claim) = (format!("old-{number}"), format!("data-{}", number % claims));
        cluster.fake().put(objects::ready_snapshot(
            &cluster.namespace,
            &name,
            &claim,
            "2026-02-01T00:00:00Z",
        ));
    }
}

/// The requests of one run, as `verb resource` and how many, and what went over the wire.
async fn cost(cluster: &TestCluster, settings: &[(&str, &str)]) -> (Vec<(String, usize)>, Traffic) {
    let running = cluster.start(&all_permissions(), settings).await;
    cluster.fake().clear_requests();
    running.finish().await.assert_exit(0);
    let traffic = cluster.fake().traffic();
    let mut counts = std::collections::BTreeMap::new();
    for request in cluster.fake().requests() {
        *counts.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    (counts.into_iter().collect(), traffic)
}

fn counted(counts: &[(&str, usize)]) -> Vec<(String, usize)> {
    counts.iter().filter(|(_, count)| *count > 0).map(|(what, count)| ((*what).to_owned(), *count)).collect()
}

#[tokio::test]
async fn a_run_for_one_claim_makes_four_requests_one_to_look_again_and_one_for_each_deletion() {
    for older in [0, 1, 5] {
        embedded(Options::default(), async |cluster| {
            furnish(cluster, 1, older).await;
            let (counts, _) = cost(cluster, &[("SNAPSHOT_PVC_NAMES", "data-0")]).await;
            assert_eq!(
                counts,
                counted(&[
                    ("create volumesnapshots", 1),
                    ("delete volumesnapshots", older),
                    ("get persistentvolumeclaims", 1),
                    // Claims are listed again if something is to be deleted.
                    ("list persistentvolumeclaims", older.min(1)),
                    ("list volumesnapshots", 1),
                    ("watch volumesnapshots", 1),
                ])
            );
        })
        .await;
    }
}

#[tokio::test]
async fn a_run_for_many_claims_makes_three_lists_a_watch_and_one_request_for_each_creation_and_deletion() {
    const CLAIMS: usize = 501;
    const SNAPSHOTS: usize = 1_200;
    embedded(Options::default(), async |cluster| {
        furnish(cluster, CLAIMS, SNAPSHOTS).await;
        let (counts, traffic) = cost(cluster, &[("SNAPSHOT_PVC_SELECTOR", "app=web")]).await;
        assert_eq!(
            counts,
            counted(&[
                ("create volumesnapshots", CLAIMS),
                ("delete volumesnapshots", SNAPSHOTS),
                ("list persistentvolumeclaims", 2 * CLAIMS.div_ceil(PAGE)),
                ("list volumesnapshots", SNAPSHOTS.div_ceil(PAGE)),
                ("watch volumesnapshots", 1),
            ])
        );
        // As many as may be in flight, and the watch.
        assert!(traffic.connections <= 8 + 1, "{traffic:?}");
    })
    .await;
}

#[tokio::test]
async fn a_run_moves_few_bytes() {
    let over_tls = || Options { tls: true, ..Options::default() };
    embedded(over_tls(), async |cluster| {
        furnish(cluster, 1, 1).await;
        let (_, traffic) = cost(cluster, &[("SNAPSHOT_PVC_NAMES", "data-0")]).await;
        println!("one claim: {traffic:?}");
        assert!(traffic.bytes() <= MOST_FOR_ONE_CLAIM, "{} bytes: {traffic:?}", traffic.bytes());
        // One for the watch, which stays open, and one for everything else.
        assert_eq!(traffic.connections, 2);
    })
    .await;
    embedded(over_tls(), async |cluster| {
        const CLAIMS: u64 = 200;
        furnish(cluster, 200, 200).await;
        let (_, traffic) = cost(cluster, &[("SNAPSHOT_PVC_SELECTOR", "app=web")]).await;
        println!("{CLAIMS} claims: {traffic:?}");
        assert!(traffic.bytes() / CLAIMS <= MOST_FOR_EACH_CLAIM, "{} bytes: {traffic:?}", traffic.bytes());
    })
    .await;
}

/// Looks at the release binary, and the static one, beside the one under test: the tests themselves
/// are built without optimization.
#[test]
fn the_binary_is_small() {
    let profile = Path::new(BINARY).parent().expect("a directory");
    let name = Path::new(BINARY).file_name().expect("a name");
    let target = profile.parent().expect("the target directory");
    let directories = fs::read_dir(target).expect("the target directory");
    let statics = directories
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with("-linux-musl"));
    let mut seen = 0;
    for directory in [target.to_owned()].into_iter().chain(statics) {
        let binary = directory.join("release").join(name);
        let Ok(file) = fs::metadata(&binary) else { continue };
        seen += 1;
        assert!(file.len() <= LARGEST_BINARY, "{} has {} bytes", binary.display(), file.len());
    }
    if seen == 0 {
        // Past the test harness, which shows nothing of a test that passes.
        let said = "SKIPPED: the binary's size: there is no release binary (cargo build --release makes one)";
        let _ = writeln!(std::io::stderr(), "{said}");
    }
}
