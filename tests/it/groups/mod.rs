//! Groups: claims that are taken at one instant, as one VolumeGroupSnapshot, and what may happen to one before, while
//! and after it is made.
//!
//! | module | what |
//! |---|---|
//! | `taking` | what is made, of which claims, and what is said of it |
//! | `losing` | everything that could make a run delete the wrong group, or lose a member's data |
//! | `random` | others who do what they like |
//! | `surroundings` | rights, versions of the API, answers that are lost, hooks, shards |

mod losing;
mod random;
mod surroundings;
mod taking;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use fake_apiserver::{FakeApiServer, GroupApi, Options, Others, Request, objects};
use k8s_openapi::jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Value, json};
use volume_snapshotter::cluster::{EVENT_PERMISSIONS, GROUP_PERMISSIONS, PERMISSIONS};

use crate::test_cluster::{Ran, Running, TestCluster, embedded_only, name_of, rules};

const CLAIMS: &str = "persistentvolumeclaims";
const SNAPSHOTS: &str = "volumesnapshots";
const GROUPS: &str = "volumegroupsnapshots";

/// The label that makes groups here. Most scenarios are about the group `shop`.
const LABEL: &str = "example.org/group";

const NEEDS_GROUPS: &str = "needs a snapshot controller whose groups a test can plan";

const ANNOTATION: &str = "volume-snapshotter/claim-uids";

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn options() -> Options {
    Options { group_api: GroupApi::V1, ..Options::default() }
}

/// The rights of a run with the component.
fn permissions() -> Value {
    rules(&[PERMISSIONS, EVENT_PERMISSIONS, GROUP_PERMISSIONS].concat())
}

/// Whether the binary asks this, and not the test.
fn asks(verb: &'static str, resource: &'static str) -> impl Fn(&Request) -> bool + Clone + Send + Sync {
    move |request| request.user.contains("serviceaccount") && request.is(verb, resource)
}

impl TestCluster {
    fn put_grouped_claim(&self, name: &str, group: &str) {
        let mut claim = objects::bound_claim(&self.namespace, name, &[("app", "web"), (LABEL, group)]);
        claim["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
        self.fake().put(claim);
    }

    /// A ready group snapshot of these claims, as a run made it some hours ago.
    fn put_old_group(&self, name: &str, group: &str, claims: &[&str], hours: i64) -> Value {
        let time = Timestamp::now() - SignedDuration::from_hours(hours);
        let time = time.round(Unit::Second).expect("a time");
        let mut object = objects::ready_group_snapshot(&self.namespace, name, &[(LABEL, group)], time);
        let uids = claims.iter().map(|claim| {
            let found = self.fake().get(CLAIMS, &self.namespace, claim).expect("a claim");
            format!("{claim}={}", found["metadata"]["uid"].as_str().expect("a uid"))
        });
        object["metadata"]["annotations"] = json!({ANNOTATION: uids.collect::<Vec<_>>().join(",")});
        let object = self.fake().put(object);
        for claim in claims {
            self.fake().put(objects::member(&object, claim));
        }
        object
    }

    /// The names of the groups that are there and not being deleted.
    fn groups(&self) -> Vec<String> {
        let all = self.fake().list(GROUPS, &self.namespace);
        let live = all.iter().filter(|group| group["metadata"]["deletionTimestamp"].is_null());
        live.map(|group| name_of(group).to_owned()).collect()
    }

    /// The group that the run made.
    fn new_group(&self) -> Value {
        let all = self.fake().list(GROUPS, &self.namespace);
        let new = all.into_iter().find(|group| name_of(group).starts_with("volume-snapshot-"));
        new.expect("the run made a group")
    }

    /// The members of a group by their claims.
    fn members(&self, group: &str) -> BTreeMap<String, Value> {
        members_of(&self.fake().others(), &self.namespace, group)
    }

    async fn start_groups(&self, settings: &[(&str, &str)]) -> Running {
        let settings =
            [&[("SNAPSHOT_GROUP_LABEL", LABEL), ("SNAPSHOT_PVC_SELECTOR", "app=web")], settings].concat();
        self.start(&permissions(), &settings).await
    }

    async fn run_groups(&self, settings: &[(&str, &str)]) -> Ran {
        self.start_groups(settings).await.finish().await
    }
}

fn members_of(others: &Others, namespace: &str, group: &str) -> BTreeMap<String, Value> {
    let all = others.list(SNAPSHOTS, namespace).into_iter();
    let of_group = all.filter(|one| one["metadata"]["ownerReferences"][0]["name"] == group);
    of_group
        .map(|one| {
            let claim = one["spec"]["source"]["persistentVolumeClaimName"].as_str().expect("a claim");
            (claim.to_owned(), one)
        })
        .collect()
}

/// A scenario with claims `data` and `logs` in group `shop`.
async fn with_group(options: Options, scenario: impl AsyncFn(&TestCluster)) {
    embedded_only(options, NEEDS_GROUPS, async |cluster| {
        cluster.fake().furnish(&cluster.namespace);
        cluster.put_grouped_claim("data", "shop");
        cluster.put_grouped_claim("logs", "shop");
        scenario(cluster).await;
        assert_no_copy_was_lost(cluster.fake());
    })
    .await;
}

/// Fails if the binary deleted a group with a ready member of which no other group's ready member has the same claim's
/// data, by what the controller really took it of; or a member alone; or what is held, owned or not the schedule's.
fn assert_no_copy_was_lost(fake: &FakeApiServer) {
    let mut members: HashMap<String, (Value, String)> = HashMap::new();
    for write in fake.journal() {
        let uid = write.object["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let is_deleted = !write.object["metadata"]["deletionTimestamp"].is_null();
        let is_ours = write.user.contains("serviceaccount");
        if write.resource == SNAPSHOTS {
            let is_member = !write.object["metadata"]["ownerReferences"].is_null();
            assert!(!(is_ours && is_member), "the binary wrote a member: {write:?}");
            let data = write.data.as_ref().map(|data| data.claim.clone());
            let known = members.get(&uid).map(|(_, data)| data.clone());
            match write.gone {
                true => drop(members.remove(&uid)),
                false => drop(members.insert(uid, (write.object, data.or(known).unwrap_or_default()))),
            }
            continue;
        }
        if write.resource != GROUPS || !is_ours || !is_deleted {
            continue;
        }
        let metadata = &write.object["metadata"];
        assert_eq!(metadata["labels"]["job"], "volume-snapshotter", "{metadata}");
        assert!(metadata["labels"]["volume-snapshotter/hold"].is_null(), "{metadata}");
        assert!(metadata["ownerReferences"].is_null(), "{metadata}");
        let is_live = |member: &Value| {
            member["status"]["readyToUse"] == true && member["metadata"]["deletionTimestamp"].is_null()
        };
        let of = |member: &Value| member["metadata"]["ownerReferences"][0]["uid"].as_str().map(str::to_owned);
        for (member, data) in members.values().filter(|(member, _)| of(member).as_ref() == Some(&uid)) {
            let is_other = |other: &Value| is_live(other) && of(other).as_ref() != Some(&uid);
            assert!(
                !is_live(member) || members.values().any(|(other, of)| of == data && is_other(other)),
                "the last copy of {} was deleted with {}",
                member["spec"]["source"]["persistentVolumeClaimName"],
                metadata["name"]
            );
        }
    }
}
