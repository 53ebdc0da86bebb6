//! What others do while a run is under way, and what a cluster may be like when it begins: claims that are
//! made anew, snapshots that go, names that lie, servers that do not know yet, secrets in the wrong place.
//! Each scenario is an attack on the copies of somebody's data, or on a report that people rely on.
//!
//! | module | what |
//! |---|---|
//! | `claims` | claims that are made anew, deleted, restored |
//! | `judging` | what changes between the look and the deletion |
//! | `attempts` | Jobs of one name, quotas, leftovers, admission |
//! | `lists` | lists that are longer than a page |
//! | `making` | what others do while a snapshot is made, room is made for it, and it is waited for |
//! | `oddities` | statuses, names and sizes that make no sense |
//! | `surroundings` | rights, proxies, secrets, places to write to |

mod attempts;
mod claims;
mod judging;
mod lists;
mod making;
mod oddities;
mod surroundings;

use std::{collections::HashMap, time::Duration};

use fake_apiserver::{FakeApiServer, Options, Others, Request};
use serde_json::{Value, json};

use crate::test_cluster::{TestCluster, name_of};

const CLAIMS: &str = "persistentvolumeclaims";
const SNAPSHOTS: &str = "volumesnapshots";

const NEEDS_QUEUE: &str = "needs a snapshot controller that a test lets wait";
const NEEDS_OTHER_HAND: &str = "needs somebody who acts at an exact moment of the run";
const NEEDS_PAST: &str = "needs objects that were made long ago";

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn slow(ready_after: Duration) -> Options {
    let mut options = Options::default();
    options.controller.ready_after = ready_after;
    options
}

/// Whether the binary asks this, and not the test.
fn asks(verb: &'static str, resource: &'static str) -> impl Fn(&Request) -> bool + Clone + Send + Sync {
    move |request| request.user.contains("serviceaccount") && request.is(verb, resource)
}

/// How often the binary asked this.
fn asked(cluster: &TestCluster, verb: &'static str, resource: &'static str) -> usize {
    cluster.fake().requests().iter().filter(|request| asks(verb, resource)(request)).count()
}

/// Whether this is the embedded one of the places where a scenario plays.
fn is_embedded(cluster: &TestCluster) -> bool {
    cluster.snapshot_class == "default" && std::env::var_os("SNAPSHOTTER_TEST_KUBECONFIG").is_none()
}

/// The name of the snapshot that the run has made, among all that there are.
fn new_one(others: &Others, namespace: &str) -> String {
    let all = others.list(SNAPSHOTS, namespace);
    let new = all.iter().map(name_of).find(|name| name.starts_with("volume-snapshot-"));
    new.expect("the run has made a snapshot").to_owned()
}

/// Puts a claim that waits for a consumer, or a class, and is to be made from a snapshot.
fn put_restore(others: &Others, namespace: &str, name: &str, snapshot: &str) {
    let mut claim = fake_apiserver::objects::claim_from_snapshot(namespace, name, snapshot);
    claim["spec"]["storageClassName"] = json!("no-such-class");
    others.put(claim);
}

/// Fails if the binary deleted a ready snapshot of which no other ready one has the same claim's data: by
/// what the snapshot controller really took it of, whatever the objects say.
fn assert_no_last_copy_was_deleted(fake: &FakeApiServer) {
    let mut states: HashMap<String, Value> = HashMap::new();
    let mut data: HashMap<String, String> = HashMap::new();
    for write in fake.journal().iter().filter(|write| write.resource == SNAPSHOTS) {
        let uid = write.object["metadata"]["uid"].as_str().expect("a uid").to_owned();
        if let Some(known) = &write.data {
            data.insert(uid.clone(), known.claim.clone());
        }
        let is_copy = |state: &Value| {
            state["status"]["readyToUse"] == true && state["metadata"]["deletionTimestamp"].is_null()
        };
        let was_copy = states.get(&uid).is_some_and(is_copy);
        if was_copy && !is_copy(&write.object) && write.user.contains("serviceaccount") {
            let claim = data.get(&uid).expect("what it is of is known");
            let other = states.iter().any(|(other, state)| {
                *other != uid && is_copy(state) && data.get(other).is_some_and(|of| of == claim)
            });
            assert!(other, "{} was the last copy of its claim's data", name_of(&write.object));
        }
        match write.gone {
            true => drop(states.remove(&uid)),
            false => drop(states.insert(uid, write.object.clone())),
        }
    }
}
