//! Lists that are longer than a page: what expires half-way, what is too large, what never ends.

use fake_apiserver::{Fault, Options, When, objects};

use super::{CLAIMS, NEEDS_PAST, SNAPSHOTS, asked, asks};
use crate::{
    faults::{put_claim, put_ready},
    test_cluster::{TestCluster, embedded_only},
};

/// One claim with more snapshots than a page has.
fn put_many(cluster: &TestCluster) {
    put_claim(cluster, "data");
    for number in 0..620 {
        put_ready(cluster, &format!("old-{number:03}"), "data", number + 1);
    }
}

const KEEPS_ALL: [(&str, &str); 2] = [("SNAPSHOT_PVC_NAMES", "data"), ("SNAPSHOT_RETENTION", "last=1000")];

#[tokio::test]
async fn a_list_that_expires_half_way_is_begun_anew() {
    // The continue token of each page but the first is too old, so often.
    for (expires, lists, exit) in [(1, 4, 0), (2, 6, 0), (3, 6, 1)] {
        embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
            put_many(cluster);
            for time in 1..=expires {
                cluster.fake().fault_nth(asks("list", SNAPSHOTS), 2 * time, Fault::Error(410, When::Before));
            }
            let ran = cluster.run(&KEEPS_ALL).await;
            ran.assert_exit(exit);
            assert_eq!(asked(cluster, "list", SNAPSHOTS), lists, "{expires}");
            if exit == 0 {
                // None is counted twice.
                assert_eq!(ran.lines("with 620 snapshots that this schedule owns").len(), 1);
                assert_eq!(cluster.names().await.len(), 621);
            } else {
                assert_eq!(cluster.names().await.len(), 620, "nothing is made after a list that failed");
            }
        })
        .await;
    }
}

/// An answer has 8 MB at most. Pages become smaller until they fit, and one object that does not is an error.
#[tokio::test]
async fn pages_that_are_too_large_become_smaller_until_they_fit() {
    embedded_only(Options::default(), NEEDS_PAST, async |cluster| {
        for number in 0..80 {
            let mut claim =
                objects::bound_claim(&cluster.namespace, &format!("data-{number:02}"), &[("app", "web")]);
            claim = objects::enlarged(claim, 250_000);
            cluster.fake().put(claim);
        }
        let ran = cluster.run(&[("SNAPSHOT_PVC_SELECTOR", "app=web"), ("SNAPSHOT_DRY_RUN", "true")]).await;
        ran.assert_exit(0);
        let lists = asked(cluster, "list", CLAIMS);
        // Of 500, 62 and 7 objects: the third size fits, so 12 pages of it, and the same where claims are read again.
        assert!((4..=30).contains(&lists), "{lists}");
    })
    .await;
}
